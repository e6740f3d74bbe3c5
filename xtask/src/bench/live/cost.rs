//! What watching costs: CPU per gigabyte of everything that takes part, against the same without a monitor.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::live::{Certificates, Host, Lab, Node, NodeOptions, TlsOptions};
use serde_json::Value;

use super::super::measure::median;
use super::super::table::Table;
use super::tap::{Tap, suricata};

/// Processes that call at the same time.
const CALLERS: u32 = 16;
/// Schedulers that have nothing to do sleep instead of waiting busily, which would be CPU that no packet needs.
const NO_BUSY_WAIT: [&str; 6] = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];
/// Octets of one message of the volume over TLS.
const BLOB: u64 = 1 << 20;

/// Two nodes that can be joined and parted.
struct Pair {
    hosts: [Host; 2],
    web: Node,
    db: Node,
}

/// One run.
#[derive(Clone, Debug, Default)]
struct Sample {
    /// CPU seconds of both hosts, the tap and ksoftirqd, per gigabyte that passed.
    cpu: f64,
    /// Those of the tap alone.
    tap: f64,
    /// Gigabytes that the receiving host's interface took and gave.
    gigabytes: f64,
    /// Calls that were answered, a second.
    calls: f64,
    /// Octets that the monitor copied.
    copied: f64,
    /// Packets that the monitor lost.
    lost: f64,
}

/// TLS distribution: recognised as such, then cut off.
pub(super) fn tls(table: &mut Table, rounds: usize, megabytes: u64) -> Result<()> {
    let mut lab = Lab::new();
    let hosts = [lab.host("a", 1), lab.host("b", 2)];
    let certificates = Certificates::new(lab.folder());
    let options = TlsOptions { version: "tlsv1.3", mutual: true };
    let mut pair = Pair::start(hosts, |address| certificates.node(address, options));
    let taps = [Tap::Nothing, Tap::Ours, Tap::Tcpdump];
    let all = pair.rounds(rounds, &taps, |pair| pair.volume(megabytes))?;
    let [none, ours, tcpdump] = all.as_slice() else { unreachable!("as many as there are taps") };

    ratio(table, "P8", "TLS, cut off: CPU per GB against no monitor", ours, none, "<= 1.05");
    ratio(table, "P8", "the same for `tcpdump -w /dev/null`", tcpdump, none, "");
    let extra = |samples: &[Sample]| median(samples.iter().zip(none).map(|(a, b)| a.cpu - b.cpu).collect());
    table.figure("P8", "extra CPU per GB against tcpdump's extra", extra(ours) / extra(tcpdump), "<= 0.125");
    let tap = |samples: &[Sample]| median(samples.iter().map(|sample| sample.tap / sample.gigabytes).collect());
    table.figure("P8", "CPU per GB of the monitor's own process against tcpdump's", tap(ours) / tap(tcpdump), "");
    let small = pair.sample(Tap::Ours, &|pair| pair.volume(megabytes))?;
    let large = pair.sample(Tap::Ours, &|pair| pair.volume(10 * megabytes))?;
    table.ratios(
        "P8",
        "octets copied of a connection that carries ten times as much",
        &[large.copied / small.copied],
        "<= 1.05",
        format!(
            "{:.0} octets of {:.2} GB / {:.0} of {:.2} GB",
            large.copied, large.gigabytes, small.copied, small.gigabytes
        ),
    );
    Ok(())
}

/// Calls in clear: every message decoded and judged.
pub(super) fn clear(table: &mut Table, rounds: usize, seconds: u64) -> Result<()> {
    let mut lab = Lab::new();
    let hosts = [lab.host("a", 1), lab.host("b", 2)];
    let mut pair = Pair::start(hosts, |_| NodeOptions::default());
    let mut taps = vec![Tap::Nothing, Tap::Ours, Tap::OursByPcap, Tap::BareLoop, Tap::Tcpdump];
    taps.extend(suricata().map(|_| Tap::Suricata));
    let all = pair.rounds(rounds, &taps, |pair| pair.calls(Duration::from_secs(seconds)))?;
    let [none, ours, by_pcap, bare, tcpdump, suricata @ ..] = all.as_slice() else {
        unreachable!("as many as there are taps")
    };

    ratio(
        table,
        "P9",
        "calls in clear, eBPF, all decoded: CPU per GB against libpcap's bare loop",
        ours,
        bare,
        "<= 1.1",
    );
    ratio(table, "P9", "the same by libpcap", by_pcap, bare, "<= 1.1");
    match suricata {
        [suricata] => beside_suricata(table, "calls", [none, ours, suricata]),
        _ => table.left_out(
            "P9",
            "CPU per GB against Suricata's",
            "BENCH_SURICATA names no folder with usr/bin/suricata",
        ),
    }
    ratio(table, "P9", "eBPF against no monitor", ours, none, "");
    ratio(table, "P9", "the bare loop against no monitor", bare, none, "");
    ratio(table, "P9", "`tcpdump -w /dev/null` against no monitor", tcpdump, none, "");
    let calls = |samples: &[Sample]| median(samples.iter().map(|sample| sample.calls).collect());
    table.ratios(
        "P10",
        "calls a second with eBPF against no monitor",
        &[calls(ours) / calls(none)],
        ">= 0.85",
        format!("{:.0} / {:.0} calls/s", calls(ours), calls(none)),
    );
    for (name, samples) in [("eBPF", ours), ("libpcap", by_pcap)] {
        let lost = samples.iter().map(|sample| sample.lost).sum();
        table.figure("P10", &format!("packets lost by {name} in all rounds"), lost, "0");
    }
    Ok(())
}

/// Messages of a megabyte in clear, in packets of the network's own size: where Suricata is, beside it.
pub(super) fn bulk(table: &mut Table, rounds: usize, megabytes: u64) -> Result<()> {
    if suricata().is_none() {
        return Ok(());
    }
    let mut lab = Lab::new();
    let hosts = [lab.host("a", 1), lab.host("b", 2)];
    for host in &hosts {
        let mut command = host.observer("ethtool");
        let done = command.args(["-K", "eth0", "tso", "off", "gso", "off", "gro", "off"]).output();
        if !done.is_ok_and(|output| output.status.success()) {
            table.left_out("P9", "bulk in clear", "ethtool is not installed, which turns offloads off");
            return Ok(());
        }
    }
    let mut pair = Pair::start(hosts, |_| NodeOptions::default());
    let all = pair.rounds(rounds, &[Tap::Nothing, Tap::Ours, Tap::Suricata], |pair| pair.volume(megabytes))?;
    let [none, ours, suricata] = all.as_slice() else { unreachable!("as many as there are taps") };
    beside_suricata(table, "messages of a megabyte", [none, ours, suricata]);
    ratio(table, "P9", "messages of a megabyte in clear: eBPF against no monitor", ours, none, "");
    let lost = ours.iter().map(|sample| sample.lost).sum();
    table.figure("P9", "messages of a megabyte in clear: packets lost by eBPF", lost, "0");
    Ok(())
}

fn beside_suricata(table: &mut Table, what: &str, [none, ours, suricata]: [&[Sample]; 3]) {
    let about =
        format!("{what} in clear, eBPF: CPU per GB against Suricata's, which has no rules and knows no distribution");
    ratio(table, "P9", &about, ours, suricata, "<= 0.6");
    let each = |of: fn(&Sample, &Sample) -> f64| -> Vec<f64> {
        none.iter().zip(ours).zip(suricata).map(|((none, ours), theirs)| of(ours, none) / of(theirs, none)).collect()
    };
    let extra = each(|sample, none| sample.cpu - none.cpu);
    table.ratios("P9", "the same without what the nodes themselves cost", &extra, "", String::new());
    let tap = each(|sample, _| sample.tap / sample.gigabytes);
    table.ratios("P9", "CPU per GB of the monitor's own process against Suricata's", &tap, "", String::new());
}

fn ratio(table: &mut Table, id: &str, what: &str, ours: &[Sample], other: &[Sample], goal: &str) {
    let ratios: Vec<f64> = ours.iter().zip(other).map(|(a, b)| a.cpu / b.cpu).collect();
    let middle = |samples: &[Sample]| median(samples.iter().map(|sample| sample.cpu).collect());
    table.ratios(id, what, &ratios, goal, format!("{:.2} / {:.2} s/GB", middle(ours), middle(other)));
}

impl Pair {
    fn start(hosts: [Host; 2], options: impl Fn(&str) -> NodeOptions) -> Self {
        let [a, b] = &hosts;
        let options = |address: &str| {
            let mut options = options(address);
            options.flags.extend(NO_BUSY_WAIT.map(str::to_owned));
            options
        };
        let mut db = Node::start(b, "db", "benchmark", &options("10.77.0.2"));
        let web = Node::start(a, "web", "benchmark", &options("10.77.0.1"));
        db.ask("load:serve()");
        Self { hosts, web, db }
    }

    /// Every tap in every round, after one warm-up without any; the samples of each tap.
    fn rounds(&mut self, rounds: usize, taps: &[Tap], work: impl Fn(&mut Self) -> f64) -> Result<Vec<Vec<Sample>>> {
        self.sample(Tap::Nothing, &work)?;
        let mut all = vec![Vec::new(); taps.len()];
        for _ in 0..rounds {
            for (samples, &tap) in all.iter_mut().zip(taps) {
                samples.push(self.sample(tap, &work).with_context(|| format!("{tap:?}"))?);
            }
        }
        Ok(all)
    }

    /// One connection with this work on it.
    fn sample(&mut self, tap: Tap, work: &impl Fn(&mut Self) -> f64) -> Result<Sample> {
        let running = tap.start(&self.hosts[1])?;
        self.web.join(&self.db.name);
        let before = self.account();
        let calls = work(self);
        let after = self.account();
        self.web.leave(&self.db.name);
        let gigabytes = (after.octets - before.octets) / 1e9;
        let used = (after.hosts - before.hosts) + (after.tap - before.tap) + (after.softirq - before.softirq);
        let mut sample =
            Sample { cpu: used / gigabytes, tap: after.tap - before.tap, gigabytes, calls, ..Sample::default() };
        if let Some(daemon) = running.daemon() {
            let books = &daemon.status()["capture"];
            sample.copied = books["handed_bytes"].as_f64().unwrap_or(f64::NAN);
            sample.lost = lost(books);
        }
        running.stop()?;
        Ok(sample)
    }

    fn account(&self) -> Account {
        let [a, b] = &self.hosts;
        Account {
            hosts: a.cpu_seconds() + b.cpu_seconds(),
            tap: b.observers_cpu_seconds(),
            softirq: ksoftirqd_seconds(),
            octets: b.octets("eth0"),
        }
    }

    /// So many megabytes from one to the other.
    fn volume(&mut self, megabytes: u64) -> f64 {
        let blobs = megabytes * 1_000_000 / BLOB;
        self.web.ask(&format!("load:volume('{}', {blobs}, {BLOB})", self.db.name));
        0.0
    }

    /// Calls for so long; how many a second.
    fn calls(&mut self, time: Duration) -> f64 {
        let begin = Instant::now();
        self.web.ask(&format!("load:call('{}', {CALLERS}), timer:sleep({})", self.db.name, time.as_millis()));
        let calls: f64 = self.web.ask("load:stop(0)").parse().unwrap_or(f64::NAN);
        calls / begin.elapsed().as_secs_f64()
    }
}

struct Account {
    hosts: f64,
    tap: f64,
    softirq: f64,
    octets: f64,
}

/// Packets lost by any stage.
pub(super) fn lost(books: &Value) -> f64 {
    e2e::live::lost(books) as f64
}

/// CPU seconds of the kernel's threads that work off what interrupts left.
fn ksoftirqd_seconds() -> f64 {
    /// `USER_HZ`, which is 100 on every architecture that this runs on.
    const TICKS: f64 = 100.0;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let threads = stats.filter(|stat| stat.contains("(ksoftirqd/"));
    threads
        .map(|stat| {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
            (ticks(11) + ticks(12)) / TICKS
        })
        .sum()
}
