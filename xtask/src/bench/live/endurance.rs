//! Killed, reloaded and given more than it can take, all under load.

use std::time::Duration;

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch};
use e2e::text;

use super::super::table::Table;
use super::cost::lost;
use super::tap::POLICY;

/// Under load from here on.
fn busy(lab: &mut Lab, callers: u32) -> (e2e::live::Host, Node, Node) {
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "benchmark", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "benchmark", &NodeOptions::default());
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

/// Reloads under load, one in ten of them invalid.
pub(super) fn reloads(table: &mut Table, times: usize) {
    let mut lab = Lab::new();
    let (b, web, _db) = busy(&mut lab, 8);
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(POLICY).start();
    for time in 0..times {
        if time % 10 == 9 {
            daemon.reload("[network\n");
        } else {
            daemon.reload(&format!("{POLICY}\n[tls]\nexpiry_days = {}\n", 10 + time));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let books = daemon.status()["capture"].clone();
    drop(web);
    table.figure("R12", &format!("packets lost in {times} reloads under load"), lost(&books), "0");
    daemon.stop();
}

/// Stopped for a while under load, as a host that is too busy would do, which overfills the ring; then it recovers.
pub(super) fn overload(table: &mut Table, seconds: u64) {
    let mut lab = Lab::new();
    let (b, mut web, _db) = busy(&mut lab, 32);
    let policy = format!("{POLICY}\n[capture]\nring = \"1 MiB\"\n");
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(&policy).start();
    daemon.signal("STOP");
    std::thread::sleep(Duration::from_secs(seconds));
    daemon.signal("CONT");
    daemon.alert("capture-loss");
    let mut recovered = Duration::ZERO;
    let mut before = daemon.status()["capture"].clone();
    loop {
        std::thread::sleep(Duration::from_millis(250));
        recovered += Duration::from_millis(250);
        let now = daemon.status()["capture"].clone();
        if lost(&now) == lost(&before) || recovered > Duration::from_secs(20) {
            break;
        }
        before = now;
    }
    web.ask("load:stop(0)");
    let unaccounted = e2e::live::eventually("the books balance", || {
        let books = daemon.status()["capture"].clone();
        let off = e2e::live::unaccounted(&books);
        (off == 0).then_some(off)
    });
    table.figure(
        "R16",
        &format!("stopped for {seconds} s under load: seconds until nothing is lost"),
        recovered.as_secs_f64(),
        "<= 5",
    );
    table.figure("R16", "packets that the books do not account for", unaccounted as f64, "0");
    daemon.stop();
}
