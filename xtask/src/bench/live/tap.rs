//! What watches during a run: nothing, ours, tcpdump, or libpcap's bare loop.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::live::{BackEnd, Daemon, Host, Watch};

use crate::run::{cargo, repository};

/// The cluster's network is isolated, so that an alert is about the link and not about the bench.
pub(super) const POLICY: &str = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\"]\n";

/// A way to watch a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tap {
    /// Nobody watches.
    Nothing,
    /// The daemon, by its programs in the kernel.
    Ours,
    /// The daemon, by libpcap.
    OursByPcap,
    /// `tcpdump -w /dev/null`, whole packets.
    Tcpdump,
    /// libpcap's loop, which looks at every packet once.
    BareLoop,
}

/// A tap at work.
pub(super) enum Running {
    Nothing,
    Ours(Box<Daemon>),
    Other(Child),
}

impl Tap {
    /// Starts it and waits until it captures.
    pub(super) fn start(self, host: &Host) -> Result<Running> {
        Ok(match self {
            Self::Nothing => Running::Nothing,
            Self::Ours => Running::Ours(Box::new(Watch::new(host, BackEnd::Ebpf).policy(POLICY).start())),
            Self::OursByPcap => Running::Ours(Box::new(Watch::new(host, BackEnd::Pcap).policy(POLICY).start())),
            Self::Tcpdump => {
                let mut command = host.observer("tcpdump");
                command.args(["-Z", "root", "-i", "eth0", "-w", "/dev/null", "tcp"]);
                Running::Other(ready(command.stderr(Stdio::piped()).stdout(Stdio::null()))?)
            }
            Self::BareLoop => {
                let mut command = host.observer(bare_loop()?);
                Running::Other(ready(command.arg("eth0").stdout(Stdio::piped()))?)
            }
        })
    }
}

impl Running {
    /// The daemon, where it is ours.
    pub(super) fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::Ours(daemon) => Some(daemon),
            _ => None,
        }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Ours(daemon) => drop(daemon.stop()),
            Self::Other(mut child) => {
                child.kill()?;
                child.wait()?;
            }
        }
        Ok(())
    }
}

/// Starts a program that says one line once it captures.
fn ready(command: &mut Command) -> Result<Child> {
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut line = String::new();
    match (child.stdout.take(), child.stderr.take()) {
        (Some(output), _) => BufReader::new(output).read_line(&mut line)?,
        (None, Some(errors)) => {
            let mut errors = BufReader::new(errors);
            let read = errors.read_line(&mut line)?;
            // A pipe that nobody reads would end it at its next word.
            std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
            read
        }
        (None, None) => 0,
    };
    ensure!(!line.is_empty(), "{command:?} ended at once");
    Ok(child)
}

/// The bare loop, built once.
fn bare_loop() -> Result<PathBuf> {
    let manifest = repository().join("bench/Cargo.toml");
    let path = repository().join("bench/target/release/tap");
    if !path.exists() {
        let status = cargo(&["build", "--release", "--bin", "tap", "--manifest-path"]).arg(manifest).status()?;
        ensure!(status.success(), "the bare loop does not build (it needs libpcap-dev)");
    }
    Ok(path)
}
