//! `distwatch run`: the daemon.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use distwatch_engine::event::Expected;
use distwatch_engine::policy::Policy;

use crate::cli::{HttpAt, RunArgs};
use crate::cmd::{Exit, Explain as _};
use crate::config::{self, BackEnd, Capture, Config};
use crate::daemon::lock::{Lock, LockError};
use crate::daemon::state::Keeper;
use crate::daemon::{self, Run, neighbours};
use crate::http::{Listener, OpenError};
use crate::privilege::{self, Needs, Sandbox};
use crate::sink;
use crate::source::ebpf::{self, EbpfSource};
use crate::source::live::LiveSource;

/// Runs the command.
///
/// # Errors
/// The configuration has mistakes, nothing can be captured from, or the capture failed.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let loaded = args.policy.load()?;
    let mut config = loaded.config;
    match args.http {
        Some(HttpAt::Off) => config.http.enabled = false,
        Some(HttpAt::At(listen)) => (config.http.enabled, config.http.listen) = (true, listen),
        None => {}
    }
    // First of all, since it takes nothing to find out.
    let http = config.http.enabled.then(|| Listener::open(&config.http)).transpose();
    let http = http.map_err(|error| {
        // An address that is not there yet, or is taken for a moment, is no wrong usage: a service manager tries again.
        let exit = if matches!(error, OpenError::Listen { .. }) { Exit::NoCapture } else { Exit::Usage };
        (error, exit)
    });
    let http = match http {
        Ok(http) => http,
        Err((error, exit)) => return Err(error).context("starting the HTTP server").or_exit(exit),
    };
    let mut capture = config.capture.clone();
    if let Some(by) = args.capture {
        capture.back_end = by.into();
    }
    if args.cgroup.is_some() {
        capture.cgroup.clone_from(&args.cgroup);
    }
    if !args.interfaces.is_empty() {
        capture.interfaces.clone_from(&args.interfaces);
    }
    let state_dir = args.state_dir.clone().unwrap_or_else(|| config.daemon.state_dir.clone());
    // It holds until the last record is out, and before it nothing is begun that a daemon which has it would notice.
    let lock = match Lock::take(&state_dir) {
        Err(error @ LockError::Held { .. }) => {
            return Err(anyhow!("the state cannot be kept in {}: {error}", state_dir.display()))
                .hint("stop that one, or name another folder (`[daemon] state_dir`, or --state-dir)")
                .or_exit(Exit::NoCapture);
        }
        Err(LockError::Io(error)) => Err(error),
        Ok(lock) => Ok(lock),
    };
    // Landlock closes what tells whose a socket is, so this is found out before.
    let mut inventory = neighbours::inventory(&config.policy.epmd_ports);
    let snapshot = neighbours::first_look(&mut inventory);
    let source = open(&capture, &config.policy).or_exit(Exit::NoCapture)?;
    for attachment in source.attachments() {
        tracing::info!(back_end = source.kind(), "{attachment}");
    }
    let host = config.daemon.host.clone().unwrap_or_else(host_name);
    let socket = args.socket.clone().unwrap_or_else(|| config.daemon.socket.clone());
    let sees_all_namespaces = source.kind() == "ebpf" && capture.cgroup.is_none() && capture.interfaces.is_empty();
    let mut sandbox = sandbox(args, &capture, source.kind(), &config, loaded.file.as_deref(), &socket);
    let (_lock, state) = match lock {
        Ok(lock) => (Some(lock), Keeper::open(&state_dir)),
        Err(error) => (None, Err(error)),
    };
    match &state {
        Ok(_) => sandbox.write.push(state_dir.clone()),
        Err(error) if !config.sinks.is_empty() => {
            let cannot = format!(
                "nothing can be kept in {}, where sinks keep what they have not sent: {error}",
                state_dir.display()
            );
            return Err(anyhow!(cannot))
                .hint("name another folder (`[daemon] state_dir`, or --state-dir)")
                .or_exit(Exit::NoCapture);
        }
        Err(error) => {
            let path = state_dir.display();
            tracing::warn!(%error, "nothing can be kept in {path} (--state-dir names another folder); findings are new again after a restart");
        }
    }
    let needs = sink::Needs::of(&config.sinks, &state_dir);
    sandbox.read.extend(needs.read);
    sandbox.write.extend(needs.write);
    sandbox.connect.extend(needs.connect);
    sandbox.read.extend(config.http.files().flat_map(privilege::folders));
    let file = loaded.file;
    let run = Run {
        config,
        file,
        socket,
        state: state.ok(),
        state_dir,
        http,
        host,
        sees_all_namespaces,
        host_seen: snapshot,
        sandbox,
    };
    daemon::run(run, source, inventory, |file| config::load(Some(file)).map(|loaded| loaded.config))
        .or_exit(Exit::NoCapture)
}

/// What is still needed once everything is open.
fn sandbox(
    args: &RunArgs,
    capture: &Capture,
    kind: &str,
    config: &Config,
    file: Option<&Path>,
    socket: &Path,
) -> Sandbox {
    let back_end = if kind == "ebpf" { privilege::BackEnd::Ebpf } else { privilege::BackEnd::Pcap };
    // Under Landlock it would be kept to no use.
    let attribution = privilege::landlock_abi().is_none();
    Sandbox {
        off: args.no_sandbox,
        strict: args.sandbox_strict,
        needs: Needs { back_end, follows_interfaces: !capture.interfaces.is_empty(), attribution },
        read: file.into_iter().chain(config.words_file.as_deref()).flat_map(privilege::folders).collect(),
        write: privilege::folders(socket),
        connect: Vec::new(),
        bind: Vec::new(),
    }
}

/// Opens the back end that is asked for; by itself eBPF, and libpcap where the kernel does not take that.
fn open(capture: &Capture, policy: &Policy) -> Result<Box<dyn LiveSource>> {
    match capture.back_end {
        BackEnd::Ebpf => {
            open_ebpf(capture, policy).hint("`--capture pcap` captures by libpcap, and needs only CAP_NET_RAW")
        }
        BackEnd::Pcap => open_pcap(capture),
        BackEnd::Auto => {
            let error = match open_ebpf(capture, policy) {
                Ok(source) => return Ok(source),
                Err(error) => error,
            };
            tracing::warn!("capturing by libpcap, since eBPF is not to be had: {error:#}");
            open_pcap(capture).with_context(|| format!("by eBPF: {error:#}; by libpcap"))
        }
    }
}

fn open_ebpf(capture: &Capture, policy: &Policy) -> Result<Box<dyn LiveSource>> {
    let ranges = |ports: &distwatch_engine::policy::Ports, what: Expected| {
        ports.0.iter().map(|&(first, last)| (first..=last, what)).collect::<Vec<_>>()
    };
    let mut ports = ranges(&policy.epmd_ports, Expected::Epmd);
    ports.extend(ranges(&policy.distribution_ports, Expected::Distribution));
    let options = ebpf::Options {
        cgroup: capture.cgroup.clone(),
        interfaces: capture.interfaces.clone(),
        ports,
        ring: u32::try_from(capture.ring).context("the ring is too large")?,
        ..ebpf::Options::default()
    };
    Ok(Box::new(EbpfSource::open(&options).context("capturing by eBPF")?))
}

#[cfg(feature = "pcap")]
fn open_pcap(capture: &Capture) -> Result<Box<dyn LiveSource>> {
    use crate::source::pcap_live::{Options, PcapLive};

    if capture.cgroup.is_some() {
        return Err(anyhow!("libpcap cannot tell cgroups apart")).hint("leave --cgroup out, or capture by eBPF");
    }
    let mut options = Options { buffer_size: capture.buffer, ..Options::default() };
    if !capture.interfaces.is_empty() {
        options.interfaces.clone_from(&capture.interfaces);
    }
    Ok(Box::new(PcapLive::open(options).context("capturing by libpcap")?))
}

#[cfg(not(feature = "pcap"))]
fn open_pcap(_: &Capture) -> Result<Box<dyn LiveSource>> {
    Err(anyhow!("this build has no libpcap: it was made without the feature `pcap`"))
        .hint("build it with libpcap (Debian: libpcap-dev) and the default features")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
