//! Every fault of every server over the network: no record is lost, and none comes out of order.
//!
//! With `DISTWATCH_FAULT_SECONDS` each fault lasts so long under a thousand records a second (`cargo xtask bench faults`); without,
//! a few hundred records.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::child::Offering;
use crate::harness::{account, fault_seconds, settle_in, wait_for};
use crate::loki;
use crate::standin::{HTTP_FAULTS, Mode, Request, StandIn, counts};

/// Waits that a test can afford.
pub(crate) const QUICK: &str = "retry_first = \"20ms\"\nretry_longest = \"200ms\"\n";

/// Records that are offered while a fault lasts.
pub(crate) const RECORDS: u64 = 300;

/// Offers records during a fault, some hundred, or a thousand a second for as long as is wanted; where they end.
pub(crate) fn offer(offering: &mut Offering, next: u64) -> u64 {
    let Some(seconds) = fault_seconds() else {
        offering.offer(next..next + RECORDS);
        return next + RECORDS;
    };
    let start = Instant::now();
    for second in 0..seconds {
        offering.offer(next + second * 1000..next + (second + 1) * 1000);
        let until = start + Duration::from_secs(second + 1);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
    next + 1000 * seconds
}

/// Takes a sink through all faults of a server, and through `kill -9` of our own process in each of them.
fn try_all(name: &str, toml: &str, server: &StandIn, faults: &[Mode]) {
    let dir = tempfile::tempdir().unwrap();
    let mut offering = Offering::start(dir.path(), toml);
    offering.offer(0..50);
    let mut next = 50;
    received_all(server, next);
    for &fault in faults {
        server.set(fault);
        let hurt = server.hurt.load(Ordering::SeqCst);
        let (first, before) = (next, server.received().len());
        let end = offer(&mut offering, next);
        offering.until_offered(end - 1);
        if fault != Mode::Stopped {
            // It has met the fault.
            wait_for("the fault", || (server.hurt.load(Ordering::SeqCst) > hurt).then_some(()));
        }
        let memory = offering.peak_memory();
        offering.kill();
        offering = Offering::start(dir.path(), toml);
        server.set(Mode::Well);
        next = end;
        received_all(server, next);
        // A repeat from before the fault is one that came of it.
        let since: Vec<u64> = server.received().split_off(before).iter().map(|it| it.saturating_sub(first)).collect();
        settle_in(memory, name, &format!("{fault}, and kill -9"), next - first, &since);
    }
    offering.offer(next..next + 50);
    received_all(server, next + 50);
    offering.end();
    assert_eq!(account(next + 50, &server.received()).lost, 0, "{name}: all of these in a row");
}

fn received_all(server: &StandIn, below: u64) {
    let all = || {
        let received = server.received();
        if (received.len() as u64) < below {
            return None;
        }
        let distinct: BTreeSet<u64> = received.into_iter().collect();
        (distinct.range(..below).count() as u64 == below).then_some(())
    };
    wait_for(&format!("all records below {below}"), all);
}

/// A server that takes whatever has the wanted path, and looks for the numbers in it.
fn anything(path: &'static str) -> impl Fn(&Request) -> (u16, String, Vec<u64>) + Send + Sync {
    move |request| match request.head.starts_with(&format!("POST {path} ")) {
        true => (200, String::new(), counts(&request.body)),
        false => (400, "wrong path".to_owned(), Vec::new()),
    }
}

fn http_sink(kind: &str, server: &StandIn, more: &str) -> String {
    format!("[[sink]]\ntype = \"{kind}\"\nurl = \"{}\"\ntimeout = \"300ms\"\n{QUICK}{more}", server.url())
}

#[test]
fn loki_loses_nothing() {
    let server = StandIn::http(loki::judge);
    try_all("loki", &http_sink("loki", &server, "batch_wait = \"20ms\"\n"), &server, &HTTP_FAULTS);
}

#[test]
fn a_webhook_loses_nothing() {
    let server = StandIn::http(anything("/"));
    try_all("webhook", &http_sink("webhook", &server, ""), &server, &HTTP_FAULTS);
}

#[test]
fn a_webhook_with_a_body_of_its_own_loses_nothing() {
    let server = StandIn::http(anything("/"));
    let body = "body = '{\"text\": \"{{alert.reason}}\", \"count\":{{alert.count}} }'\n";
    try_all("webhook, a request a record", &http_sink("webhook", &server, body), &server, &HTTP_FAULTS);
}

#[test]
fn otlp_loses_nothing() {
    let server = StandIn::http(anything("/v1/logs"));
    try_all("otlp (HTTP)", &http_sink("otlp", &server, "batch_wait = \"20ms\"\n"), &server, &HTTP_FAULTS);
}

#[test]
fn otlp_over_grpc_loses_nothing() {
    let server = StandIn::grpc();
    let toml = http_sink("otlp", &server, "protocol = \"grpc\"\nbatch_wait = \"20ms\"\n");
    try_all("otlp (gRPC)", &toml, &server, &HTTP_FAULTS);
}

#[test]
fn alertmanager_loses_nothing() {
    let server = StandIn::http(|request| {
        let alerts: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let number = |alert: &serde_json::Value| {
            u64::from_str_radix(alert["labels"]["fingerprint"].as_str().unwrap(), 16).unwrap()
        };
        (200, String::new(), alerts.as_array().unwrap().iter().map(number).collect())
    });
    let toml = http_sink("alertmanager", &server, "resend = \"1h\"\nbatch_wait = \"20ms\"\n");
    try_all("alertmanager", &toml, &server, &HTTP_FAULTS);
}

#[test]
fn syslog_over_tcp_loses_nothing() {
    let server = StandIn::syslog();
    let toml = format!("[[sink]]\ntype = \"syslog\"\naddress = \"{}\"\ntimeout = \"300ms\"\n{QUICK}", server.address);
    // A server that reads and forgets cannot be told from one that works: there are no acknowledgements.
    try_all("syslog (TCP)", &toml, &server, &[Mode::Stopped, Mode::DiesInMidRequest, Mode::Garbage]);
}

#[test]
fn a_slow_sink_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (slow, well) = (StandIn::http(anything("/")), StandIn::http(anything("/")));
    slow.set(Mode::Silent);
    let sink = |name: &str, server: &StandIn| {
        format!("[[sink]]\ntype = \"webhook\"\nname = \"{name}\"\nurl = \"{}\"\ntimeout = \"10m\"\n", server.url())
    };
    let toml = format!("{}{}", sink("slow", &slow), sink("well", &well));
    let running = crate::harness::Running::start(dir.path(), &toml);
    running.offer(0..2000);
    running.until_sent("well");
    assert_eq!(well.received(), (0..2000).collect::<Vec<_>>());
    assert_eq!(running.status("slow").queued, 2000);
}
