//! What all these tests need: records with numbers, sinks from a configuration, and waiting for something real.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distwatch::config;
use distwatch::record::{CommunityIds, Record};
use distwatch::sink::{Fate, Outgoing, Settings, SinkStatus, Sinks};
use distwatch_engine::model::{Alert, AlertStatus, Confidence, Evidence, Severity};
use distwatch_engine::time::Timestamp;

/// What every test gives up after: far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long each fault lasts, where somebody wants to know it exactly.
pub(crate) fn fault_seconds() -> Option<u64> {
    std::env::var("DISTWATCH_FAULT_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"))
}

/// What waiting gives up after: longer where more is to be sent.
pub(crate) fn patience() -> Duration {
    PATIENCE + 5 * Duration::from_secs(fault_seconds().unwrap_or(0))
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_parts(since.as_secs() as i64, since.subsec_nanos())
}

/// An alert that carries a number in its count.
pub(crate) fn alert(number: u64) -> Alert {
    let at = now();
    Alert {
        rule_id: "cleartext-distribution".into(),
        severity: Severity::High,
        level: "error".into(),
        status: AlertStatus::New,
        fingerprint: format!("{number:016x}"),
        count: number,
        first_seen: at,
        last_seen: at,
        told: at,
        subject: "web@host-a -> db@host-b".into(),
        reason: "The link web@host-a -> db@host-b runs in clear; \"ü\" and \\ are harmless".into(),
        evidence: vec![Evidence { fact: "a handshake in clear".into(), packet: Some("31".into()), timestamp: at }],
        confidence: Confidence::Certain,
        remediation: "Run distribution over TLS.".into(),
        references: vec!["G1".into()],
        flow_id: Some("00a1b2c3d4e5f607".into()),
        src_ip: Some([10, 77, 0, 1].into()),
        src_port: Some(40123),
        dest_ip: Some([10, 77, 0, 2].into()),
        dest_port: Some(9100),
        in_iface: Some("eth0".into()),
        process: None,
        process_end: None,
    }
}

pub(crate) fn outgoing(alert: &Alert) -> Arc<Outgoing> {
    Arc::new(Outgoing::new(&Record::from_alert(alert, "sensor-1", &mut CommunityIds::default())))
}

/// An alert with this number, as sinks get it.
pub(crate) fn numbered(number: u64) -> Arc<Outgoing> {
    outgoing(&alert(number))
}

/// The number in a record.
pub(crate) fn number_in(record: &serde_json::Value) -> Option<u64> {
    record["alert"]["count"].as_u64()
}

/// The numbers of the records in some lines of JSON.
pub(crate) fn numbers_in(lines: &str) -> Vec<u64> {
    lines.lines().filter_map(|line| number_in(&serde_json::from_str(line).ok()?)).collect()
}

/// Sinks as a configuration file has them.
pub(crate) fn settings(toml: &str) -> Vec<Settings> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("distwatch.toml");
    std::fs::write(&file, toml).unwrap();
    config::load(Some(&file)).unwrap_or_else(|errors| panic!("{errors}")).config.sinks
}

/// Sinks, and the threads that their tasks run on.
pub(crate) struct Running {
    pub(crate) sinks: Sinks,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start(state: &Path, toml: &str) -> Self {
        let runtime = runtime();
        let sinks = Sinks::start(&settings(toml), state, "sensor-1", runtime.handle())
            .unwrap_or_else(|errors| panic!("{errors}"));
        Self { sinks, runtime }
    }

    pub(crate) fn offer(&self, numbers: std::ops::Range<u64>) {
        numbers.for_each(|number| self.sinks.offer(&numbered(number)));
    }

    pub(crate) fn status(&self, name: &str) -> SinkStatus {
        self.sinks.status().into_iter().find(|status| status.name == name).expect("there is such a sink")
    }

    /// Waits until a sink has nothing left to send.
    pub(crate) fn until_sent(&self, name: &str) -> SinkStatus {
        wait_for(&format!("{name} to be sent"), || Some(self.status(name)).filter(|status| status.queued == 0))
    }

    pub(crate) fn reload(&self, toml: &str) {
        self.runtime.block_on(self.sinks.reload(&settings(toml))).unwrap_or_else(|errors| panic!("{errors}"));
    }

    /// Ends in good order; what could not be sent, by sink.
    pub(crate) fn flush(self, within: Duration) -> BTreeMap<String, u64> {
        let left = self.runtime.block_on(self.sinks.flush(within));
        left.into_iter().map(|left| (left.sink, left.records)).collect()
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Waits for something real to happen.
pub(crate) fn wait_for<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = happened() {
            return result;
        }
        assert!(start.elapsed() < patience(), "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a fault cost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicated: u64,
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
}

/// Compares what was received with the numbers below `sent`. A repeat may come at any time; the first copies must come in
/// order.
pub(crate) fn account(sent: u64, received: &[u64]) -> Account {
    let mut seen = std::collections::BTreeSet::new();
    let (mut highest, mut out_of_order) = (0, 0);
    for &number in received {
        if seen.insert(number) {
            if number < highest {
                out_of_order += 1;
            }
            highest = highest.max(number);
        }
    }
    let lost = (0..sent).filter(|number| !seen.contains(number)).count() as u64;
    let duplicated = (received.len() - seen.len()) as u64;
    Account { sent, received: received.len() as u64, duplicated, lost, out_of_order }
}

/// Prints a row of the table of faults, and fails where a record is lost or out of order.
pub(crate) fn settle(sink: &str, fault: &str, sent: u64, received: &[u64]) -> Account {
    let account = account(sent, received);
    row(sink, fault, &account, "–");
    assert_eq!((account.lost, account.out_of_order), (0, 0), "{sink}, {fault}: {account:?}");
    account
}

/// The same for a sender of which is known how much memory it had at most.
pub(crate) fn settle_in(mebibytes: f64, sink: &str, fault: &str, sent: u64, received: &[u64]) {
    let account = account(sent, received);
    row(sink, fault, &account, &format!("{mebibytes:.1}"));
    assert_eq!((account.lost, account.out_of_order), (0, 0), "{sink}, {fault}: {account:?}");
}

/// Prints a row of the table of faults.
pub(crate) fn row(sink: &str, fault: &str, account: &Account, memory: &str) {
    println!(
        "| {sink} | {fault} | {} | {} | {} | {} | {} | {memory} |",
        account.sent, account.received, account.duplicated, account.lost, account.out_of_order
    );
}

/// How much is lost to a sink by its own account.
pub(crate) fn losses(status: &SinkStatus) -> u64 {
    Fate::ALL.into_iter().filter(|fate| fate.is_loss()).map(|fate| status.count(fate)).sum()
}

/// A file system of its own that is soon full; unmounted when dropped.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    /// `None`, after saying so, where nothing may be mounted.
    pub(crate) fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(at.to_path_buf()));
        }
        eprintln!("*** NOT CHECKED: a small file system cannot be mounted here (it needs root)");
        None
    }

    /// With other options from now on.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
