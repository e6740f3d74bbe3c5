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
    /// Suricata without rules, by its own capture, where it is installed: see [`suricata`].
    Suricata,
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
            Self::Suricata => Running::Other(start_suricata(host)?),
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

/// The folder that Suricata is installed below, as `BENCH_SURICATA` says: `/`, or that of another system.
pub(super) fn suricata() -> Option<PathBuf> {
    let root = PathBuf::from(std::env::var_os("BENCH_SURICATA")?);
    root.join("usr/bin/suricata").exists().then_some(root)
}

/// In mounts of its own, that end with it: it looks at the interfaces of the host in `/sys`.
fn start_suricata(host: &Host) -> Result<Child> {
    const SCRIPT: &str = "mount -t proc proc \"$0/proc\" && mount -t sysfs sysfs \"$0/sys\" \
        && mount -t tmpfs tmpfs \"$0/run\" && mkdir \"$0/run/log\" \
        && exec chroot \"$0\" /usr/bin/suricata -c /etc/suricata/suricata.yaml -S /dev/null -l /run/log \
        --set default-rule-path=/run --af-packet=eth0 2>&1";
    let root = suricata().context("Suricata is not where BENCH_SURICATA says")?;
    let mut command = host.observer("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT]).arg(root).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut output = BufReader::new(child.stdout.take().context("a pipe")?);
    let (mut line, mut all) = (String::new(), String::new());
    while output.read_line(&mut line)? > 0 {
        if line.contains("Engine started") {
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            return Ok(child);
        }
        all.push_str(&std::mem::take(&mut line));
    }
    anyhow::bail!("Suricata ended at once:\n{all}")
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
