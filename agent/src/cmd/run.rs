//! `distwatch run`: the daemon.

use anyhow::{Context as _, Result};

use crate::cli::RunArgs;
use crate::cmd::{Exit, Explain as _};
use crate::config;
use crate::daemon::{self, Run};
use crate::source::live::LiveSource;

/// Runs the command.
///
/// # Errors
/// The configuration has mistakes, nothing can be captured from, or the capture failed.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let loaded = args.policy.load()?;
    let config = loaded.config;
    let mut capture = config.capture.clone();
    if !args.interfaces.is_empty() {
        capture.interfaces.clone_from(&args.interfaces);
    }
    let source = open(&capture).or_exit(Exit::NoCapture)?;
    for attachment in source.attachments() {
        tracing::info!(back_end = source.kind(), "{attachment}");
    }
    let host = config.daemon.host.clone().unwrap_or_else(host_name);
    let socket = args.socket.clone().unwrap_or_else(|| config.daemon.socket.clone());
    let run = Run { config, file: loaded.file, socket, host };
    daemon::run(run, source, |file| config::load(Some(file)).map(|loaded| loaded.config)).or_exit(Exit::NoCapture)
}

#[cfg(feature = "pcap")]
fn open(capture: &config::Capture) -> Result<Box<dyn LiveSource>> {
    use crate::source::pcap_live::{Options, PcapLive};

    let options = Options { interfaces: capture.interfaces.clone(), buffer_size: capture.buffer, ..Options::default() };
    let source = PcapLive::open(options).context("opening the interfaces")?;
    Ok(Box::new(source))
}

#[cfg(not(feature = "pcap"))]
fn open(_: &config::Capture) -> Result<Box<dyn LiveSource>> {
    Err(anyhow::anyhow!("this build cannot capture: it was made without the feature `pcap`"))
        .context("opening the interfaces")
        .hint("build it with libpcap (Debian: libpcap-dev) and the default features")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
