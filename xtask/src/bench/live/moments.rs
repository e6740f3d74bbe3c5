//! Idleness, start, memory, and the time from a handshake to its alert.

use std::time::{Duration, Instant, UNIX_EPOCH};

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch};
use e2e::text;

use super::super::measure::median;
use super::super::table::Table;
use super::tap::POLICY;

/// A daemon beside two nodes that only tick; how long it takes until it captures.
pub(super) fn idle(table: &mut Table, rounds: usize, seconds: u64) {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let db = Node::start(&b, "db", "benchmark", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "benchmark", &NodeOptions::default());
    web.join(&db.name);
    for back_end in BackEnd::ALL {
        let watch = Watch::new(&b, back_end).policy(POLICY);
        let starts: Vec<f64> = (0..rounds)
            .map(|_| {
                let (daemon, took) = watch.start_timed();
                daemon.stop();
                took.as_secs_f64() * 1e3
            })
            .collect();
        let name = back_end.name();
        table.figure("P11", &format!("{name}: start to ready, ms"), median(starts), "<= 300");
        let daemon = watch.start();
        // The start itself is no idleness.
        let (before, begin) = (b.observers_cpu_seconds(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let share = (b.observers_cpu_seconds() - before) / begin.elapsed().as_secs_f64();
        table.figure("P11", &format!("{name}, idle for {seconds} s: share of a core, %"), 100.0 * share, "<= 0.2");
        table.figure("P11", &format!("{name}, idle: resident memory, MiB"), daemon.mebibytes(), "<= 40");
        daemon.stop();
    }
}

/// Memory with many links open.
pub(super) fn links(table: &mut Table, links: u32) {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&b, back_end).policy(POLICY).start();
        let mut acceptor = Node::undistributed(&b);
        let mut initiator = Node::undistributed(&a);
        let port = acceptor.ask("crowd:listen()");
        initiator.ask(&format!("crowd:connect({{10,77,0,2}}, {port}, {links})"));
        let last = format!("crowd{links}@10.77.0.1");
        daemon.hears("the last link", |record| text(&record["link"]["initiator"], "node") == last);
        let what = format!("{}, {links} links open: resident memory, MiB", back_end.name());
        table.figure("P11", &what, daemon.mebibytes(), "<= 64 with 10,000");
        daemon.stop();
    }
}

/// From before the last octet of a handshake is sent to when its alert was read from standard output.
pub(super) fn latency(table: &mut Table, handshakes: usize) {
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    // It would log every refusal.
    let quiet = NodeOptions::flags(&["-kernel", "logger_level", "none"]);
    let mut db = Node::start(&b, "db", "benchmark", &quiet);
    let port = db.port();
    let mut probe = Node::undistributed(&a);
    for back_end in BackEnd::ALL {
        let daemon = Watch::new(&b, back_end).policy(POLICY).start();
        let name = |number: usize| format!("p{number}{}@10.77.0.1", back_end.name());
        let names: Vec<String> = (0..handshakes).map(|number| format!("\"{}\"", name(number))).collect();
        let answer = probe.ask(&format!(
            "[Sent || {{_, closed, Sent, _}} <- probe:handshakes({{10,77,0,2}}, {port}, \"wrong\", [{}], 5)]",
            names.join(",")
        ));
        let sent: Vec<u64> = answer.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        let mut milliseconds: Vec<f64> = (0..handshakes)
            .map(|number| {
                let (_, read) = daemon.when("a failed handshake", |record| {
                    text(&record["alert"], "rule_id") == "bad-cookie"
                        && text(&record["alert"], "subject").contains(&name(number))
                });
                let sent = UNIX_EPOCH + Duration::from_nanos(sent[number]);
                read.duration_since(sent).unwrap_or_default().as_secs_f64() * 1e3
            })
            .collect();
        milliseconds.sort_by(f64::total_cmp);
        let what = format!("{}: last octet of a handshake to its alert, ms, ", back_end.name());
        let late = milliseconds[handshakes.saturating_sub(1).min(handshakes * 99 / 100)];
        table.figure("R", &format!("{what}median of {handshakes}"), median(milliseconds), "< 10");
        table.figure("R", &format!("{what}99th percentile"), late, "< 50");
        daemon.stop();
    }
}
