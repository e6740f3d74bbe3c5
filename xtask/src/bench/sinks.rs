//! `cargo xtask bench sinks`: what sinks cost, alone and in a daemon that watches real connections.
//!
//! Alone, records are offered to the sinks by a loop. With the daemon, nodes come and go on another host so fast that they make
//! so many records; runs with every kind of sink and without any alternate, and what is compared is what capture feels of it.

pub(super) mod churn;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::live::{BackEnd, Daemon, Host, Lab, Watch, lost, unaccounted};
use serde_json::Value;

use super::measure::median;
use crate::run::{cargo, repository};

/// Every kind of sink at once.
#[derive(Args)]
pub(super) struct Sinks {
    /// Records a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only this part (both where none is named).
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The sinks without a daemon.
    Alone,
    /// The daemon beside nodes that come and go (needs root).
    Daemon,
}

/// Records that one node makes by coming and going: EPMD is asked; a link is opened, classified, has its handshake and is closed;
/// that it runs in clear begins and ends. More than a quarter of them are alerts, which is more than any host has.
const RECORDS_EACH: u64 = 7;

/// The cluster's network is isolated, so that alerts are about links and not about the bench.
const POLICY: &str = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\"]\n";

const PORT: &str = "9100";
const HTTP: &str = "127.0.0.1:9469";

/// How long sinks may take for what is left at the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures what is wanted.
pub(super) fn run(sinks: &Sinks, rounds: usize, output: Option<&Path>) -> Result<()> {
    if sinks.only != Some(Part::Daemon) {
        alone(sinks)?;
    }
    if sinks.only != Some(Part::Alone) {
        let text = with_daemon(sinks, rounds)?;
        println!("{text}");
        if let Some(path) = output {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Once with an alert among a hundred records, as hosts have them at their worst, and once with nothing but alerts.
fn alone(sinks: &Sinks) -> Result<()> {
    for alert_every in [100, 1] {
        let status = cargo(&["run", "--release", "--quiet", "--package", "distwatch", "--example", "sinks_load", "--"])
            .args([sinks.rate, sinks.seconds, alert_every].map(|number| number.to_string()))
            .status()?;
        if !status.success() {
            bail!("the benchmark of the sinks ended with {status}");
        }
    }
    Ok(())
}

/// One run of the daemon.
#[derive(Debug, Default)]
struct Sample {
    /// Times that a node came and went.
    visits: f64,
    /// By how much the traffic was late at most, in milliseconds: more than this machine can make.
    behind: f64,
    seconds: f64,
    seen: f64,
    lost: f64,
    unaccounted: f64,
    /// Shares of a core: the capture thread, and how long it waited for one; the whole daemon.
    capture: f64,
    waited: f64,
    daemon: f64,
    /// Milliseconds from a packet to its record at a client of the HTTP server.
    delay: [f64; 3],
    /// MiB.
    memory: f64,
    /// Records that waited for sinks at most, all of these together, and octets of spools.
    queued: f64,
    spooled: f64,
    /// Dropped before any sink, and by sinks.
    dropped: f64,
    by_sinks: f64,
    /// Seconds until sinks had sent all, and the records of the sink that sent the fewest of all that get everything.
    drained: f64,
    sent: f64,
}

fn with_daemon(sinks: &Sinks, rounds: usize) -> Result<String> {
    if !e2e::live::possible("bench sinks") {
        bail!("this machine cannot do it");
    }
    // Built before anything is measured.
    e2e::program();
    let receivers = receivers()?;
    let mut lab = Lab::new();
    let (a, b) = (lab.bare_host("a"), lab.host("b", 2));
    lab.plug(&a, "eth0", "10.77.0.1/24");
    // A connection every half millisecond: ports must not run out.
    let many = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse";
    ensure!(a.command("sh").args(["-c", many]).status()?.success(), "the host's ports cannot be set");
    let _server = Helper::start(b.command(std::env::current_exe()?).args(["bench", "churn", "serve", PORT]))?;
    let mut text = format!(
        "{} s of {} records a second from nodes that come and go; medians of {rounds} rounds, with and without sinks in turn.\n\n\
         | back end | what | without sinks | every kind of sink |\n| --- | --- | --- | --- |\n",
        sinks.seconds, sinks.rate
    );
    for back_end in BackEnd::ALL {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            without.push(sample(sinks, back_end, &a, &b, None)?);
            with.push(sample(sinks, back_end, &a, &b, Some(&receivers))?);
        }
        rows(&mut text, back_end, &without, &with);
    }
    Ok(text)
}

/// The program that takes what sinks send: `DISTWATCH_RECEIVERS`, or the release build of the load's own.
fn receivers() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DISTWATCH_RECEIVERS") {
        return Ok(path.into());
    }
    let built =
        cargo(&["build", "--release", "--quiet", "--package", "distwatch", "--example", "sinks_load"]).status()?;
    ensure!(built.success(), "the receivers do not build");
    Ok(repository().join("target/release/examples/sinks_load"))
}

fn sample(sinks: &Sinks, back_end: BackEnd, a: &Host, b: &Host, receivers: Option<&Path>) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let mut policy = POLICY.to_owned();
    let receivers = match receivers {
        Some(program) => {
            let helper = Helper::start(b.observer(program).arg("receive").arg(folder.path()))?;
            policy += &std::fs::read_to_string(folder.path().join("sinks.toml"))?;
            Some(helper)
        }
        None => None,
    };
    let daemon = Watch::new(b, back_end).policy(&policy).words(&["--http", HTTP]).unheard().start();
    let mut hearing = Helper::spawn(b.observer(std::env::current_exe()?).args(["bench", "churn", "hear", HTTP]))?;
    let heard = hearing.lines();
    let mut command = a.command(std::env::current_exe()?);
    command.args(["bench", "churn", "come", "10.77.0.2", PORT]);
    command.args([(sinks.rate / RECORDS_EACH).to_string(), sinks.seconds.to_string()]);
    let before = Account::of(&daemon)?;
    let mut coming = command.stdout(Stdio::piped()).spawn()?;
    let mut sample = Sample::default();
    while coming.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(500));
        sample.look_at(&daemon.status());
    }
    let after = Account::of(&daemon)?;
    let mut said = String::new();
    coming.stdout.take().context("no output")?.read_to_string(&mut said)?;
    let [visits, behind, seconds] = numbers(&said)[..] else { bail!("the traffic ended early: {said}") };
    (sample.visits, sample.behind, sample.seconds) = (visits, behind, seconds);
    sample.capture = (after.capture - before.capture) / seconds;
    sample.waited = (after.waited - before.waited) / seconds;
    sample.daemon = (after.daemon - before.daemon) / seconds;
    let end = Instant::now();
    while daemon.status()["sinks"].as_array().is_some_and(|all| all.iter().any(|sink| sink["queued"] != 0)) {
        if end.elapsed() > PATIENCE {
            sample.drained = f64::INFINITY;
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    sample.drained = sample.drained.max(end.elapsed().as_secs_f64());
    let status = daemon.status();
    let books = &status["capture"];
    (sample.seen, sample.lost) = (number(&books["seen"]), lost(books) as f64);
    sample.unaccounted = unaccounted(books) as f64;
    sample.dropped = number(&status["output"]["dropped"]);
    for sink in status["sinks"].as_array().into_iter().flatten() {
        let count = |fate: &str| number(&sink["records"][fate]);
        let fates = ["refused", "rate_limited", "spool_full", "disk_full", "queue_full", "too_long", "damaged"];
        sample.by_sinks += fates.iter().map(|fate| count(fate)).sum::<f64>();
        if sink["kind"] != "alertmanager" {
            sample.sent = if sample.sent == 0.0 { count("sent") } else { sample.sent.min(count("sent")) };
        }
    }
    let kibibytes = daemon.proc_status("VmHWM");
    sample.memory = kibibytes.trim_end_matches(" kB").parse::<f64>()? / 1024.0;
    hearing.end()?;
    let last = heard.recv_timeout(PATIENCE).context("nobody heard an event")?;
    let [_, median, late, latest] = numbers(&last)[..] else { bail!("the client ended early: {last}") };
    sample.delay = [median, late, latest];
    daemon.stop();
    if let Some(mut receivers) = receivers {
        receivers.end()?;
    }
    Ok(sample)
}

impl Sample {
    /// What waits at this moment.
    fn look_at(&mut self, status: &Value) {
        let sum = |field: &str| -> f64 {
            status["sinks"].as_array().into_iter().flatten().map(|sink| number(&sink[field])).sum()
        };
        self.queued = self.queued.max(sum("queued"));
        self.spooled = self.spooled.max(sum("spool_bytes"));
    }
}

fn rows(text: &mut String, back_end: BackEnd, without: &[Sample], with: &[Sample]) {
    type Figure = fn(&Sample) -> f64;
    let figures: [(&str, usize, Figure); 16] = [
        ("nodes that came and went, a second", 0, |it| it.visits / it.seconds),
        ("by how much the traffic was late at most, ms", 0, |it| it.behind),
        ("packets seen, a second", 0, |it| it.seen / it.seconds),
        ("packets lost, or in no book", 0, |it| it.lost + it.unaccounted),
        ("capture thread, of a core", 3, |it| it.capture),
        ("it waited for a core, of the time", 3, |it| it.waited),
        ("the whole daemon, cores", 2, |it| it.daemon),
        ("from a packet to a client of the HTTP server, median, ms", 1, |it| it.delay[0]),
        ("the same, 99 %, ms", 1, |it| it.delay[1]),
        ("peak memory, MiB", 1, |it| it.memory),
        ("records that waited for all sinks together, at most", 0, |it| it.queued),
        ("spools, at most, MiB", 2, |it| it.spooled / 1024.0 / 1024.0),
        ("records dropped before the sinks", 0, |it| it.dropped),
        ("records dropped by all sinks together", 0, |it| it.by_sinks),
        ("records that each sink sent, a second (alertmanager: alerts alone)", 0, |it| it.sent / it.seconds),
        ("all sent after the last, s", 1, |it| it.drained),
    ];
    for (what, digits, figure) in figures {
        let middle = |samples: &[Sample]| format!("{:.digits$}", median(samples.iter().map(figure).collect()));
        let of_sinks = ["waited for all", "spools", "each sink", "all sent", "by all sinks"]
            .iter()
            .any(|part| what.contains(part));
        let without = if of_sinks { "–".to_owned() } else { middle(without) };
        _ = writeln!(text, "| {} | {what} | {without} | {} |", back_end.name(), middle(with));
    }
}

/// CPU seconds so far.
struct Account {
    capture: f64,
    waited: f64,
    daemon: f64,
}

impl Account {
    fn of(daemon: &Daemon) -> Result<Self> {
        let mut account = Self { capture: f64::NAN, waited: f64::NAN, daemon: 0.0 };
        for task in std::fs::read_dir(format!("/proc/{}/task", daemon.process()))? {
            let task = task?.path();
            // Nanoseconds on a core, and waiting for one.
            let times = numbers(&std::fs::read_to_string(task.join("schedstat"))?);
            let [on, waiting, ..] = times[..] else { bail!("no times of a thread") };
            account.daemon += on / 1e9;
            if std::fs::read_to_string(task.join("comm"))?.trim() == "capture" {
                (account.capture, account.waited) = (on / 1e9, waiting / 1e9);
            }
        }
        Ok(account)
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// A process that goes on until its standard input ends.
struct Helper(Child);

impl Helper {
    /// Starts it, and waits until it says that it is ready.
    fn start(command: &mut Command) -> Result<Self> {
        let mut helper = Self::spawn(command)?;
        let mut line = String::new();
        BufReader::new(helper.0.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "{command:?} ended at once");
        Ok(helper)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// The last line that it says, once it has ended.
    fn lines(&mut self) -> std::sync::mpsc::Receiver<String> {
        let (sender, receiver) = std::sync::mpsc::channel();
        if let Some(output) = self.0.stdout.take() {
            std::thread::spawn(move || {
                let last = BufReader::new(output).lines().map_while(Result::ok).last();
                // Whoever wants to know may be gone.
                last.map(|last| sender.send(last))
            });
        }
        receiver
    }

    /// Lets it end.
    fn end(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
