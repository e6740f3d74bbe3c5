//! The capture thread with a back end that plays a capture.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use distwatch_engine::model::Severity;
use distwatch_engine::policy::RuleSettings;
use serde_json::Value;

use super::*;
use crate::daemon::feed::{Audience, Form};
use crate::daemon::output::Output;
use crate::privilege::Sandbox;
use crate::source::live::Books;
use crate::source::pcap_file::CaptureFile;

/// A back end that plays a capture, and writes down what it is told.
struct Played {
    packets: VecDeque<(Timestamp, LinkType, Vec<u8>)>,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    ports: Vec<(RangeInclusive<u16>, Expected)>,
    watched: Vec<(SocketAddr, Expected)>,
    decided: Vec<(FlowEnds, Verdict)>,
    counts: Vec<(FlowEnds, FlowCounts)>,
    lost: u64,
    sockets: Vec<SocketSeen>,
    /// Sockets wait to be asked for, and packets behind them.
    waits: bool,
}

impl LiveSource for Played {
    fn kind(&self) -> &'static str {
        "played"
    }

    fn attachments(&self) -> Vec<String> {
        vec!["a file".into()]
    }

    fn poll(&mut self, _: Duration, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> io::Result<usize> {
        let most = if self.told.lock().unwrap().waits { 0 } else { most };
        let count = most.min(self.packets.len());
        for (time, link_type, data) in self.packets.drain(..count) {
            let monotonic = time.as_nanos().cast_unsigned();
            take(Captured { monotonic, interface: 7, link_type, data: &data, original_len: data.len() as u32 });
        }
        Ok(count)
    }

    fn sockets(&mut self, each: &mut dyn FnMut(SocketSeen)) {
        let mut told = self.told.lock().unwrap();
        told.waits = false;
        told.sockets.drain(..).for_each(each);
    }

    fn interface_name(&mut self, interface: u32) -> String {
        format!("cluster{interface}")
    }

    fn watch_ports(&mut self, ports: &[(RangeInclusive<u16>, Expected)]) -> io::Result<()> {
        self.told.lock().unwrap().ports = ports.to_vec();
        Ok(())
    }

    fn watch(&mut self, at: SocketAddr, what: Expected) -> io::Result<()> {
        self.told.lock().unwrap().watched.push((at, what));
        Ok(())
    }

    fn unwatch(&mut self, _: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    fn decide(&mut self, flow: FlowEnds, verdict: Verdict) -> io::Result<()> {
        self.told.lock().unwrap().decided.push((flow, verdict));
        Ok(())
    }

    fn counts(&mut self, each: &mut dyn FnMut(FlowEnds, FlowCounts)) {
        self.told.lock().unwrap().counts.iter().for_each(|&(flow, counts)| each(flow, counts));
    }

    fn refresh(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn books(&mut self) -> Books {
        let packets = self.told.lock().unwrap().lost;
        Books { lost: vec![Lost { stage: "ring", packets, bytes: 0 }], ..Books::default() }
    }
}

/// What was written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    monitor: Monitor,
    told: Arc<Mutex<Told>>,
    written: Shared,
    asked: Receiver<Vec<SocketSeen>>,
    _commands: Sender<Command>,
}

impl Bench {
    fn playing(capture: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures").join(capture);
        let mut file = CaptureFile::open(&path).unwrap();
        let mut packets = VecDeque::new();
        while let Some(packet) = file.next() {
            packets.push_back((packet.time, packet.link_type, packet.data.to_vec()));
        }
        let (told, written) = (Arc::<Mutex<Told>>::default(), Shared::default());
        let (sender, commands) = channel();
        let (lookups, asked) = std::sync::mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let monitor = Monitor::new(Parts {
            source: Box::new(Played { packets, told: Arc::clone(&told) }),
            policy: Policy::default(),
            records: FanOut::start(Vec::new(), Some(Output::start(written.clone()).unwrap()), None).unwrap(),
            sinks: Arc::new(Sinks::start(&[], Path::new("/nonexistent"), "host", runtime.handle()).unwrap()),
            writer: Writer::new(Form::Ndjson, Audience::All, "host".into()),
            // The capture's own time, as if it went on from there.
            clock: Clock::at(0, 0),
            stats_interval: Duration::from_secs(60),
            commands,
            lookups,
            sees_all_namespaces: false,
            sandbox: Sandbox { off: true, ..Sandbox::default() }.apply().unwrap(),
            state: None,
            http: None,
        });
        Self { monitor: monitor.unwrap(), told, written, asked, _commands: sender }
    }

    fn records(self) -> Vec<Value> {
        let Self { mut monitor, written, .. } = self;
        monitor.finish();
        assert!(monitor.records.finish(Duration::from_secs(60)));
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn of<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["event_type"] == kind).map(|record| &record[kind]).collect()
}

#[test]
fn a_capture_that_is_played_live_gives_the_links_and_findings_of_the_file_with_the_interfaces_name() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    bench.monitor.take_packets(Duration::ZERO).unwrap();
    bench.monitor.hand_on_decisions();
    assert_eq!(bench.told.lock().unwrap().ports, [(4369..=4369, Expected::Epmd)]);
    let watched = bench.told.lock().unwrap().watched.clone();
    assert!(watched.iter().any(|(at, what)| at.port() == 41493 && *what == Expected::Distribution), "{watched:?}");
    let records = bench.records();
    let handshake = of(&records, "link").into_iter().find(|link| link["change"] == "handshake").unwrap();
    assert_eq!(handshake["initiator"]["node"], "web@host-a");
    assert_eq!(handshake["interfaces"], serde_json::json!(["cluster7"]), "the first packet waited for the name");
    let rules: Vec<&str> = of(&records, "alert").iter().filter_map(|alert| alert["rule_id"].as_str()).collect();
    for rule in ["remote-command", "remote-code-load", "cookie-on-the-wire", "distribution-exposed"] {
        assert!(rules.contains(&rule), "{rule} in {rules:?}");
    }
}

#[test]
fn what_came_before_the_stop_is_taken_also_behind_sockets_that_were_not_asked_for() {
    let bench = Bench::playing("apps-otp25.pcap");
    bench.told.lock().unwrap().waits = true;
    let records = bench.records();
    assert!(of(&records, "link").iter().any(|link| link["change"] == "handshake"), "{records:?}");
}

#[test]
fn a_tls_link_is_left_to_the_kernel_and_its_counts_are_the_links_own() {
    let mut bench = Bench::playing("tls13-mutual-otp25.pcap");
    let all = std::mem::take(&mut bench.monitor.packets);
    assert_eq!(all, 0);
    bench.monitor.take_packets(Duration::ZERO).unwrap();
    bench.monitor.hand_on_decisions();
    let decided = bench.told.lock().unwrap().decided.clone();
    assert!(decided.iter().any(|(_, verdict)| *verdict == Verdict::Count), "{decided:?}");
}

#[test]
fn what_the_back_end_lost_is_said_once_with_its_stage_and_raises_capture_loss() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    bench.told.lock().unwrap().lost = 500;
    let now = bench.monitor.clock.now();
    bench.monitor.keep_house(now).unwrap();
    bench.monitor.keep_house(now).unwrap();
    let records = bench.records();
    let lost: Vec<&Value> = of(&records, "weird").into_iter().filter(|weird| weird["name"] == "packets-lost").collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0]["detail"].as_str().unwrap().contains("500 packets lost: ring"));
    assert!(of(&records, "alert").iter().any(|alert| alert["rule_id"] == "capture-loss"));
}

#[test]
fn another_policy_holds_from_the_next_packet_on_and_nothing_is_forgotten() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    bench.monitor.take_packets(Duration::ZERO).unwrap();
    let links = bench.monitor.analysis.cluster.links().len();
    assert!(bench.monitor.picture().rules.is_empty());
    let mut policy =
        Policy { distribution_ports: distwatch_engine::policy::Ports(vec![(9100, 9101)]), ..Policy::default() };
    policy
        .rules
        .insert("hidden-node".into(), RuleSettings { severity: Some(Severity::Low), ..RuleSettings::default() });
    bench.monitor.set_policy(&policy);
    assert_eq!(bench.monitor.picture().rules["hidden-node"].severity, Some(Severity::Low));
    assert_eq!(bench.monitor.analysis.cluster.links().len(), links);
    assert!(links > 0);
    let ports = bench.told.lock().unwrap().ports.clone();
    assert_eq!(ports, [(4369..=4369, Expected::Epmd), (9100..=9101, Expected::Distribution)]);
}

#[test]
fn what_holds_is_told_again_with_a_new_policy_for_sinks_that_are_new_with_it() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    bench.monitor.take_packets(Duration::ZERO).unwrap();
    let told = bench.monitor.writer.take();
    let new = told.records.iter().filter(|one| one.alert.as_ref().is_some_and(|it| it.status == AlertStatus::New));
    let new: Vec<_> = new.map(|one| one.alert.clone().unwrap().rule_id).collect();
    let before = bench.monitor.clock.now();
    bench.monitor.set_policy(&Policy::default());
    let again = bench.monitor.writer.take().records;
    let holds = bench.monitor.analysis.judge.alerts().iter().filter(|it| it.status != AlertStatus::Resolved).count();
    assert!(holds > 0 && holds <= new.len() && again.len() == holds, "{holds} of {new:?}");
    for record in again {
        assert_eq!(record.alert.as_ref().unwrap().status, AlertStatus::Update);
        assert!(record.time >= before, "as of now, or a server would take it for old");
    }
}

#[test]
fn what_the_queue_did_not_take_of_findings_is_told_again_in_their_last_state() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    bench.monitor.take_packets(Duration::ZERO).unwrap();
    let lost = bench.monitor.writer.take();
    let told = |batch: &Batch| {
        let alerts = batch.records.iter().filter_map(|record| record.alert.as_ref());
        alerts.map(|alert| alert.fingerprint.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(told(&lost).len() > 3);
    bench.monitor.records.lose(&lost);
    let now = bench.monitor.clock.now();
    bench.monitor.keep_house(now).unwrap();
    assert_eq!(told(&bench.monitor.writer.take()), told(&lost));
    bench.monitor.keep_house(now).unwrap();
    assert!(told(&bench.monitor.writer.take()).is_empty(), "once");
}

#[test]
fn sockets_that_there_was_no_room_to_ask_about_are_asked_about_later() {
    let mut bench = Bench::playing("apps-otp25.pcap");
    let socket = |pid| SocketSeen {
        monotonic: 1,
        local: "10.0.0.1:9100".parse().unwrap(),
        remote: None,
        state: crate::source::live::SocketState::Listening,
        cookie: 0,
        pid,
        owned: 1,
        uid: 0,
        command: String::new(),
        cgroup: 0,
        namespace: 0,
    };
    for pid in 1..=3 {
        bench.told.lock().unwrap().sockets.push(socket(pid));
        bench.monitor.take_sockets();
    }
    let asked = |bench: &Bench| bench.asked.try_iter().flatten().map(|socket| socket.pid).collect::<Vec<_>>();
    assert_eq!(asked(&bench), [1], "there was room for one batch");
    bench.monitor.take_sockets();
    assert_eq!((asked(&bench), bench.monitor.not_looked_up), (vec![2, 3], 0));
}
