//! Killed, reloaded and given more than it can take, all under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::live::{BackEnd, Daemon, Lab, Node, NodeOptions, Watch};
use e2e::text;
use serde_json::Value;

use super::super::table::Table;
use super::cost::lost;
use super::tap::POLICY;

/// Under load from here on.
fn busy(lab: &mut Lab, callers: u32) -> (e2e::live::Host, Node, Node) {
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    // It would log every refusal.
    let quiet = NodeOptions::flags(&["-kernel", "logger_level", "none"]);
    let mut db = Node::start(&b, "db", "benchmark", &quiet);
    let mut web = Node::start(&a, "web", "benchmark", &quiet);
    db.ask("load:serve()");
    web.join(&db.name);
    web.ask(&format!("load:call('{}', {callers})", db.name));
    (b, web, db)
}

/// Killed at moments that differ, and started again with what it kept.
pub(super) fn kills(table: &mut Table, times: usize) {
    let mut lab = Lab::new();
    let (b, web, _db) = busy(&mut lab, 4);
    let attached = || {
        let shown = b.observer("bpftool").args(["cgroup", "show"]).arg(b.cgroup()).output();
        shown.map_or_else(|_| String::new(), |shown| String::from_utf8_lossy(&shown.stdout).into_owned())
    };
    let before = attached();
    let mut daemon = Watch::new(&b, BackEnd::Ebpf).policy(POLICY).start();
    let (mut slowest, mut twice, mut told) = (Duration::ZERO, 0, Vec::<String>::new());
    for time in 0..times {
        let sure = daemon.alert("cleartext-distribution");
        told.push(text(&sure, "fingerprint").to_owned());
        // Not at random, but spread: a prime number of milliseconds further each time.
        std::thread::sleep(Duration::from_millis((time as u64 * 37) % 400));
        daemon = daemon.kill().launch();
        slowest = slowest.max(daemon.captures());
        let news = daemon.of_kind("alert").into_iter().filter(|record| record["alert"]["status"] == "new");
        twice += news.filter(|record| told.iter().any(|one| one == text(&record["alert"], "fingerprint"))).count();
    }
    daemon.kill();
    e2e::live::eventually("nothing is left attached", || (attached() == before).then_some(()));
    drop(web);
    table.figure(
        "R8",
        &format!("killed {times} times: slowest start to captures, ms"),
        slowest.as_secs_f64() * 1e3,
        "<= 1000",
    );
    table.figure("R8", "findings told as new twice", twice as f64, "0");
}

/// Reloads under load, one in ten of them invalid. The valid ones say in turn that a wrong cookie is a trifle and that it is not, while
/// somebody tries one wrong cookie after the other.
pub(super) fn reloads(table: &mut Table, times: usize) {
    let mut lab = Lab::new();
    let (b, mut web, mut db) = busy(&mut lab, 8);
    let mut probe = Node::undistributed(&lab.host("c", 3));
    let port = db.port();
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&b, back_end).policy(POLICY).start();
        // On a connection that is seen from its beginning.
        web.ask("load:stop(0)");
        web.leave("db@10.77.0.2");
        web.join("db@10.77.0.2");
        let begin = Instant::now();
        web.ask("load:call('db@10.77.0.2', 8)");
        let tries = times * 4;
        probe.order(&format!(
            "Names = [lists:concat([\"p\", N, \"@10.77.0.3\"]) || N <- lists:seq(1, {tries})], \
             probe:handshakes({{10,77,0,2}}, {port}, \"wrong\", Names, 5), ok"
        ));
        let (mut valid, mut invalid, mut untold) = (0, 0, 0);
        for time in 0..times {
            if time % 10 == 9 {
                invalid += 1;
                daemon.reload(&format!("{POLICY}\n[rules.bad-cookie]\nseveritee = \"low\"\n"));
                // Line 5, column 1.
                let told = || daemon.log().matches("5:1").count() >= invalid;
                untold += usize::from(e2e::live::in_time(|| told().then_some(())).is_none());
            } else {
                valid += 1;
                let severity = ["low", "critical"][valid % 2];
                daemon.reload(&format!("{POLICY}\n[rules.bad-cookie]\nseverity = \"{severity}\"\n"));
            }
            e2e::live::eventually("the reload is over", || (daemon.status()["reloads"] == valid).then_some(()));
        }
        let took = begin.elapsed().as_secs_f64();
        probe.answer();
        let books = daemon.status()["capture"].clone();
        let calls: f64 = web.ask("load:stop(0)").parse().unwrap_or(f64::NAN);
        let rate = calls / begin.elapsed().as_secs_f64();
        let records = daemon.stop().records;
        let link = records.iter().rev().find(|record| text(&record["link"]["initiator"], "node") == "web@10.77.0.1");
        let missing = link.and_then(|record| record["link"]["missing_bytes"].as_f64()).unwrap_or(f64::NAN);
        let severities: Vec<&str> = records
            .iter()
            .map(|record| &record["alert"])
            .filter(|alert| text(alert, "rule_id") == "bad-cookie" && text(alert, "status") == "new")
            .map(|alert| text(alert, "severity"))
            .collect();
        let turns = severities.windows(2).filter(|two| two[0] != two[1]).count();
        let most = format!("<= {valid}");
        let rows = [
            (format!("calls a second during {times} reloads in {took:.1} s"), rate, ""),
            ("packets lost".into(), lost(&books), "0"),
            (
                format!("of {invalid} invalid ones not told with line and column, the policy staying"),
                untold as f64,
                "0",
            ),
            ("octets missing of the link".into(), missing, "0"),
            (format!("findings of {tries} wrong cookies that are missing"), (tries - severities.len()) as f64, "0"),
            (format!("turns from one policy to the other in them, at {valid} valid reloads"), turns as f64, &most),
        ];
        for (what, value, goal) in rows {
            table.figure("R12", &format!("{}: {what}", back_end.name()), value, goal);
        }
    }
}

/// Octets of the headers before a payload: IPv4, and TCP with time stamps.
const HEADERS: u64 = 52;

/// So little CPU, as on a host that is too busy, that twice as much comes as it can take. All the while others try the cookie, and ask
/// EPMD. Then it has all of its time again.
pub(super) fn overload(table: &mut Table, seconds: u64) -> Result<()> {
    let mut lab = Lab::new();
    let (b, mut web, mut db) = busy(&mut lab, 16);
    let mut probe = Node::undistributed(&lab.host("c", 3));
    let port = db.port();
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(POLICY).start();
    // On a connection that is seen from its beginning.
    web.ask("load:stop(0)");
    web.leave("db@10.77.0.2");
    web.join("db@10.77.0.2");
    web.ask("load:call('db@10.77.0.2', 16)");
    let mut quota = Quota::start(daemon.process())?;
    // Until it is found, and then for as long as was asked for.
    let found = Instant::now();
    while found.elapsed() < Duration::from_secs(20) && !(1.8..2.4).contains(&quota.adjust(&daemon)) {}
    let before = daemon.status()["capture"].clone();
    let (begin, mut tried, mut least) = (Instant::now(), 0, f64::INFINITY);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let second = Instant::now();
        while second.elapsed() < Duration::from_secs(1) {
            tried += 1;
            probe.ask(&format!("probe:handshakes({{10,77,0,2}}, {port}, \"wrong\", [\"p{tried}@10.77.0.3\"], 1)"));
            probe.ask("erl_epmd:names({10,77,0,2})");
            std::thread::sleep(Duration::from_millis(100));
        }
        least = least.min(quota.adjust(&daemon));
    }
    let after = daemon.status()["capture"].clone();
    drop(quota);
    let (recovered, balanced) = recovery(&daemon);
    web.ask("load:stop(0)");
    let unaccounted = e2e::live::eventually("the books balance", || {
        let off = e2e::live::unaccounted(&daemon.status()["capture"]);
        (off == 0).then_some(off)
    });
    web.leave("db@10.77.0.2");
    let link = daemon.hears("the link's end", |record| {
        let link = &record["link"];
        text(link, "change") == "closed"
            && text(&link["initiator"], "node") == "web@10.77.0.1"
            && link["missing_bytes"].as_u64() > Some(0)
    });
    let told = daemon.stop().records;
    let of = |kind: &str, matches: &dyn Fn(&Value) -> bool| {
        told.iter().map(|record| &record[kind]).filter(|object| object.is_object() && matches(object)).count()
    };
    let refused = of("link", &|link| {
        text(link, "change") == "handshake" && text(&link["initiator"], "node").ends_with("@10.77.0.3")
    });
    let asked = of("epmd", &|epmd| text(&epmd["client"], "ip") == "10.77.0.3" && text(epmd, "request") == "names");
    let raised = |rule: &str| of("alert", &|alert| text(alert, "rule_id") == rule);
    let shed = |field: &str| balanced[field]["shed"].as_u64().unwrap_or(0);
    let cut = balanced["cut_bytes"].as_u64().unwrap_or(0);
    let octets = (shed("lost_bytes") - HEADERS * shed("lost") + cut) as f64;
    let missing = link["link"]["missing_bytes"].as_f64().unwrap_or(f64::NAN);
    let grown = |field: &str| (after[field].as_u64().unwrap_or(0) - before[field].as_u64().unwrap_or(0)) as f64;
    let ring = balanced["lost"]["ring"].as_u64().unwrap_or(0);
    let rows = [
        ("what came against what was analysed, packets", grown("seen") / grown("handed"), "2"),
        ("the same in its easiest second", least, ""),
        ("packets shed", shed("lost") as f64, ""),
        ("packets lost because the ring was full", ring as f64, "0"),
        ("handshakes and questions to EPMD meanwhile", 2.0 * f64::from(tried), ""),
        ("handshakes that were not seen", f64::from(tried) - refused as f64, "0"),
        ("questions to EPMD that were not seen", f64::from(tried) - asked as f64, "0"),
        ("octets missing of the link, by the engine against those that the kernel shed of it", missing / octets, "1"),
        ("alerts `capture-loss`, at least", (raised("capture-loss") as f64).min(1.0), "1"),
        ("findings of a broken protocol", raised("protocol-violation") as f64, "0"),
        ("packets that the books do not account for", unaccounted as f64, "0"),
        ("seconds until nothing is lost any more", recovered.as_secs_f64(), "<= 5"),
    ];
    for (what, value, goal) in rows {
        table.figure("R16", &format!("twice the rate that it can take, for {seconds} s: {what}"), value, goal);
    }
    Ok(())
}

/// How long a daemon goes on losing packets, and its books when it no longer does.
fn recovery(daemon: &Daemon) -> (Duration, Value) {
    /// For so long nothing must be lost.
    const QUIET: Duration = Duration::from_secs(1);
    let begin = Instant::now();
    let (mut last, mut before) = (begin, daemon.status()["capture"].clone());
    while last.elapsed() < QUIET && begin.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
        let now = daemon.status()["capture"].clone();
        if now["lost"] != before["lost"] || now["cut_bytes"] != before["cut_bytes"] {
            last = Instant::now();
        }
        before = now;
    }
    (last.duration_since(begin), before)
}

/// A share of a core that a process may have, and no more.
struct Quota {
    place: PathBuf,
    /// Of a period.
    share: f64,
    /// How much more came than was analysed, of late.
    ratio: f64,
    before: Value,
}

impl Quota {
    /// Microseconds: so short that the ring bridges the pauses.
    const PERIOD: f64 = 100_000.0;
    /// The kernel gives no less than a millisecond.
    const LEAST: f64 = 1000.0 / Self::PERIOD;

    fn start(process: u32) -> Result<Self> {
        let place = Path::new("/sys/fs/cgroup/cpu").join(format!("dwbench{process}"));
        let why = "no quota of CPU can be set (the controller cpu of cgroup v1 is needed)";
        fs::create_dir(&place).context(why)?;
        let mut quota = Self { place, share: 0.0, ratio: 1.0, before: Value::Null };
        fs::write(quota.place.join("cpu.cfs_period_us"), format!("{}", Self::PERIOD)).context(why)?;
        quota.set(0.3).context(why)?;
        fs::write(quota.place.join("cgroup.procs"), process.to_string()).context(why)?;
        Ok(quota)
    }

    fn set(&mut self, share: f64) -> std::io::Result<()> {
        self.share = share.clamp(Self::LEAST, 2.0);
        fs::write(self.place.join("cpu.cfs_quota_us"), format!("{:.0}", self.share * Self::PERIOD))
    }

    /// How much more came than was analysed since the last time; gives more or less accordingly.
    fn adjust(&mut self, daemon: &Daemon) -> f64 {
        let now = daemon.status()["capture"].clone();
        let grown =
            |field: &str| (now[field].as_f64().unwrap_or(0.0) - self.before[field].as_f64().unwrap_or(0.0)).max(1.0);
        let ratio = grown("seen") / grown("handed");
        if self.before.is_null() {
            self.before = now;
            std::thread::sleep(Duration::from_millis(500));
            return f64::INFINITY;
        }
        // Packets are shed in bursts, so one look says little.
        self.ratio = 0.5 * self.ratio + 0.5 * ratio;
        let step = match self.ratio {
            ..1.9 => 0.7,
            2.2.. => 1.15,
            _ => 1.0,
        };
        self.before = now;
        // What cannot be set stays.
        _ = self.set(self.share * step);
        std::thread::sleep(Duration::from_millis(500));
        self.ratio
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.place.join("cgroup.procs")).unwrap_or_default();
        processes.lines().for_each(|one| _ = fs::write("/sys/fs/cgroup/cpu/cgroup.procs", one));
        _ = fs::remove_dir(&self.place);
    }
}
