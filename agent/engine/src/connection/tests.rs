//! Connections from their segments to events and alerts: the whole engine over streams that are put together here.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use flate2::{Compression, write::ZlibEncoder};

use crate::analysis::{Analysis, Listener};
use crate::captured::{self, Step};
use crate::cluster::SocketOwner;
use crate::event::{Event, EventBody, Expected, LinkChange};
use crate::model::{
    Activity, ActivityKind, Alert, AlertStatus, CloseReason, Link, Process, ProcessEnd, TlsOutcome, Transport,
};
use crate::packet::{InterfaceId, LinkType, Packet, PacketRef, Side};
use crate::policy::{Arguments, Policy};
use crate::saved::{Saved, SavedLink};
use crate::time::Timestamp;

const INITIATOR: u16 = 50_000;
const ACCEPTOR: u16 = 41_000;
const FIN: u8 = 0x11;
const DATA: u8 = 0x18;

/// Everything that was said.
#[derive(Default)]
struct Heard(Vec<Event>, Vec<Alert>);

impl Listener for Heard {
    fn event(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
    fn alert(&mut self, alert: &Alert) {
        self.1.push(alert.clone());
    }
}

/// One TCP connection between 10.0.0.1 and 10.0.0.2 under analysis.
struct Wire {
    analysis: Analysis,
    heard: Heard,
    sequence: [u32; 2],
    packets: u64,
}

impl Wire {
    /// A connection that was up before the capture.
    fn mid_stream(policy: &Policy) -> Self {
        Self { analysis: Analysis::new(policy), heard: Heard::default(), sequence: [1000, 5000], packets: 0 }
    }

    /// A connection from its SYN on.
    fn connect(policy: &Policy) -> Self {
        let mut wire = Self::mid_stream(policy);
        wire.segment(Side::Initiator, 0x02, &[]);
        wire.segment(Side::Acceptor, 0x12, &[]);
        wire
    }

    fn segment(&mut self, side: Side, flags: u8, data: &[u8]) {
        let (from, to) = if side == Side::Initiator { (INITIATOR, ACCEPTOR) } else { (ACCEPTOR, INITIATOR) };
        let (own, other) = (self.sequence[side.index()], self.sequence[side.other().index()]);
        let acknowledged = if flags & 0x10 == 0 { 0 } else { other };
        let ends = if side == Side::Initiator { [10, 0, 0, 1, 10, 0, 0, 2] } else { [10, 0, 0, 2, 10, 0, 0, 1] };
        let mut packet = vec![0x45, 0];
        packet.extend((40 + data.len() as u16).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend(ends);
        packet.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
        packet.extend([own.to_be_bytes(), acknowledged.to_be_bytes()].concat());
        packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(data);
        self.sequence[side.index()] = own.wrapping_add(data.len() as u32 + u32::from(flags & 3 != 0));
        self.packets += 1;
        let packet = Packet {
            reference: PacketRef { capture: 0, number: self.packets },
            time: Timestamp::from_parts(1_795_406_300, self.packets as u32 * 1000),
            link_type: LinkType::RAW,
            interface: InterfaceId(0),
            data: &packet,
            original_len: packet.len() as u32,
        };
        self.analysis.handle_packet(&packet, &mut self.heard);
    }

    fn send(&mut self, side: Side, data: &[u8]) {
        self.segment(side, DATA, data);
    }

    fn close(&mut self) {
        self.segment(Side::Initiator, FIN, &[]);
        self.segment(Side::Acceptor, FIN, &[]);
        self.segment(Side::Initiator, 0x10, &[]);
        self.analysis.finish(&mut self.heard);
    }

    fn activities(&self) -> Vec<&Activity> {
        let activities = self.heard.0.iter().filter_map(|event| match &event.body {
            EventBody::Activity(activity) => Some(&**activity),
            _ => None,
        });
        activities.collect()
    }

    /// Who sent cookies, in order: `true` for the initiator.
    fn cookies(&self) -> Vec<bool> {
        let cookies = self.heard.0.iter().filter_map(|event| match &event.body {
            EventBody::CookieSent { from_initiator, .. } => Some(*from_initiator),
            _ => None,
        });
        cookies.collect()
    }

    fn count(&self, wanted: impl Fn(&EventBody) -> bool) -> usize {
        self.heard.0.iter().filter(|event| wanted(&event.body)).count()
    }

    fn last_link(&self, wanted: LinkChange) -> Option<&Link> {
        self.heard.0.iter().rev().find_map(|event| match &event.body {
            EventBody::Link { change, link } if *change == wanted => Some(&**link),
            _ => None,
        })
    }
}

fn atom(text: &str) -> Vec<u8> {
    [&[119, text.len() as u8], text.as_bytes()].concat()
}

fn tuple(elements: &[&[u8]]) -> Vec<u8> {
    [&[104, elements.len() as u8][..], &elements.concat()].concat()
}

fn list(elements: &[&[u8]]) -> Vec<u8> {
    [&[108][..], &(elements.len() as u32).to_be_bytes(), &elements.concat(), &[106]].concat()
}

fn pid() -> Vec<u8> {
    [&[88][..], &atom("a@host-a"), &[0, 0, 0, 90, 0, 0, 0, 0, 0, 0, 0, 7]].concat()
}

fn reference() -> Vec<u8> {
    [&[90, 0, 3][..], &atom("a@host-a"), &[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]].concat()
}

/// `[alias | Ref]`, as `gen` marks its calls since OTP 24.
fn alias() -> Vec<u8> {
    [&[108, 0, 0, 0, 1][..], &atom("alias"), &reference()].concat()
}

/// A pass-through frame.
fn frame(control: &[u8], payload: &[u8]) -> Vec<u8> {
    let body = [&[112, 131][..], control, &[131], payload].concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn reg_send(name: &str, payload: &[u8]) -> Vec<u8> {
    frame(&tuple(&[&[97, 6], &pid(), &atom(""), &atom(name)]), payload)
}

fn send_sender(payload: &[u8]) -> Vec<u8> {
    frame(&tuple(&[&[97, 22], &pid(), &pid()]), payload)
}

fn call(kind: &str, module: &str, function: &str, arguments: &[u8]) -> Vec<u8> {
    tuple(&[&atom(kind), &atom(module), &atom(function), arguments, &atom("user")])
}

fn compressed(term: &[u8]) -> Vec<u8> {
    let head = [&[80][..], &(term.len() as u32).to_be_bytes()].concat();
    let mut encoder = ZlibEncoder::new(head, Compression::best());
    encoder.write_all(term).unwrap();
    encoder.finish().unwrap()
}

/// A connection on which so much was read that what follows is the peers' own doing.
fn trusted(policy: &Policy) -> Wire {
    let mut wire = Wire::mid_stream(policy);
    for side in Side::BOTH {
        for _ in 0..20 {
            wire.send(side, &reg_send("kiosk", &[97, 1]));
        }
    }
    wire
}

#[test]
fn only_the_other_side_answers_a_request_for_a_cookie_and_a_failure_is_no_cookie() {
    let ask = reg_send("rex", &tuple(&[&pid(), &call("call", "erlang", "get_cookie", &[106])]));
    let answer = send_sender(&tuple(&[&atom("rex"), &atom("XKCDXKCD")]));
    let failed = send_sender(&tuple(&[&atom("rex"), &tuple(&[&atom("badrpc"), &atom("nodedown")])]));
    let mut wire = trusted(&Policy::default());
    wire.send(Side::Initiator, &ask);
    wire.send(Side::Initiator, &answer);
    wire.send(Side::Acceptor, &failed);
    wire.send(Side::Acceptor, &answer);
    assert!(wire.cookies().is_empty());
    wire.send(Side::Initiator, &ask);
    wire.send(Side::Acceptor, &answer);
    assert_eq!(wire.cookies(), [false]);
}

#[test]
fn a_cookie_that_is_asked_for_by_a_call_of_a_server_is_followed_by_the_tag_of_the_call() {
    for (server, request) in [
        ("rex", call("block_call", "erlang", "get_cookie", &[106])),
        ("auth", tuple(&[&atom("get_cookie"), &atom("b@host-b")])),
    ] {
        for tag in [reference(), alias()] {
            let ask = tuple(&[&atom("$gen_call"), &tuple(&[&pid(), &tag]), &request]);
            let mut wire = trusted(&Policy::default());
            wire.send(Side::Initiator, &reg_send(server, &ask));
            wire.send(Side::Acceptor, &send_sender(&tuple(&[&atom("rex"), &atom("other")])));
            assert!(wire.cookies().is_empty(), "{server}");
            wire.send(Side::Acceptor, &send_sender(&tuple(&[&tag, &atom("XKCDXKCD")])));
            assert_eq!(wire.cookies(), [false], "{server}");
        }
    }
}

#[test]
fn a_cookie_that_is_set_by_the_auth_server_is_never_shown() {
    let policy = Policy { arguments: Arguments::Full, ..Policy::default() };
    let request = tuple(&[&atom("set_cookie"), &atom("b@host-b"), &atom("XKCDXKCD")]);
    let mut wire = trusted(&policy);
    wire.send(
        Side::Initiator,
        &reg_send("auth", &tuple(&[&atom("$gen_call"), &tuple(&[&pid(), &reference()]), &request])),
    );
    assert_eq!(wire.cookies(), [true]);
    assert!(!format!("{:?} {:?}", wire.heard.0, wire.analysis.judge.alerts()).contains("XKCDXKCD"));
}

#[test]
fn what_a_compressed_term_hides_is_said_and_the_compression_is_a_violation() {
    let request = call("call", "os", "cmd", &list(&[&[107, 0, 2, b'i', b'd']]));
    for payload in [compressed(&tuple(&[&pid(), &request])), tuple(&[&pid(), &compressed(&request)])] {
        let mut wire = trusted(&Policy::default());
        wire.send(Side::Initiator, &reg_send("rex", &payload));
        let calls: Vec<_> = wire.activities().into_iter().filter(|one| one.kind == ActivityKind::RpcCall).collect();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].mfa.as_deref(), Some("os:cmd/1"));
        let alerts = wire.analysis.judge.alerts();
        for rule in ["remote-command", "protocol-violation"] {
            assert!(alerts.iter().any(|alert| alert.rule_id == rule), "{rule}: {alerts:#?}");
        }
    }
}

#[test]
fn a_request_to_an_open_file_of_the_other_node_is_file_access() {
    let request = tuple(&[&atom("pread"), &[97, 0], &[97, 9]]);
    let mut wire = trusted(&Policy::default());
    wire.send(Side::Initiator, &send_sender(&tuple(&[&atom("file_request"), &pid(), &reference(), &request])));
    assert_eq!(wire.activities().last().and_then(|activity| activity.mfa.as_deref()), Some("file:pread/2"));
    assert!(wire.analysis.judge.alerts().iter().any(|alert| alert.rule_id == "remote-file-access"));
}

#[test]
fn a_peer_that_is_odd_in_every_frame_is_remarked_so_often_and_then_counted() {
    let mut wire = trusted(&Policy::default());
    let odd = reg_send("kiosk", &[97, 1, 97, 2]);
    for _ in 0..300 {
        wire.send(Side::Initiator, &odd);
    }
    assert_eq!(wire.count(|body| matches!(body, EventBody::Weird(_))), 256);
    assert_eq!(wire.analysis.stats().limits_reached.get("remarks_per_flow"), Some(&44));
    // Another kind of remark is not drowned by it.
    wire.send(Side::Initiator, &frame(&tuple(&[&[97, 99], &pid()]), &[]));
    assert!(wire.count(|body| matches!(body, EventBody::Violation { .. })) > 0);
}

#[test]
fn an_alert_of_tls_in_place_of_a_status_is_known_whatever_its_segments() {
    // OTP 25, a visible node; the name is a@b (`docs/protocol.md` §2).
    let mut name = vec![0, 18, b'N'];
    name.extend(0xD_07DF_7FBD_u64.to_be_bytes());
    name.extend([0, 0, 0, 7, 0, 3]);
    name.extend(b"a@b");
    for step in [7, 3, 1] {
        let mut wire = Wire::connect(&Policy::default());
        wire.send(Side::Initiator, &name);
        for part in [21, 3, 3, 0, 2, 2, 10].chunks(step) {
            wire.send(Side::Acceptor, part);
        }
        let link = wire.last_link(LinkChange::Progress).unwrap();
        assert_eq!(link.tls.as_ref().map(|tls| tls.outcome), Some(TlsOutcome::RefusedByServer), "{step}");
        assert!(wire.analysis.judge.alerts().iter().any(|alert| alert.rule_id == "cleartext-attempt"));
        assert_eq!(wire.count(|body| matches!(body, EventBody::Violation { .. })), 0);
    }
}

#[test]
fn tls_on_a_port_that_is_named_only_later_is_a_link_after_all() {
    let recorded = captured::connections("tls12-mutual-otp25.pcap");
    let hello = recorded.iter().flat_map(|connection| &connection.steps).find_map(|step| match step {
        Step::Data(_, Side::Initiator, data) if data.starts_with(&[22, 3]) => Some(data.clone()),
        _ => None,
    });
    for named in [false, true] {
        let mut wire = Wire::connect(&Policy::default());
        wire.send(Side::Initiator, hello.as_deref().unwrap());
        assert_eq!(wire.count(|body| matches!(body, EventBody::Link { .. })), 0);
        if named {
            wire.analysis.engine.add_listener(SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)), Expected::Distribution);
        }
        wire.close();
        let link = wire.last_link(LinkChange::Closed);
        assert_eq!(link.map(|link| link.transport), named.then_some(Transport::Tls));
    }
}

#[test]
fn a_link_that_ends_has_its_counters_and_the_frame_that_proves_one_is_its_senders() {
    let mut wire = Wire::mid_stream(&Policy::default());
    wire.analysis.engine.add_listener(SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)), Expected::Distribution);
    // The second frame confirms the boundary of the first.
    wire.send(Side::Acceptor, &reg_send("kiosk", &[97, 1]).repeat(2));
    let first = wire.last_link(LinkChange::Handshake).unwrap().messages;
    assert_eq!((first.from_initiator, first.from_acceptor), (0, 1));
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    wire.send(Side::Initiator, &[0; 4]);
    wire.close();
    let link = wire.last_link(LinkChange::Closed).unwrap();
    assert_eq!((link.messages.from_initiator, link.messages.from_acceptor), (3, 2));
    assert_eq!((link.ticks.from_initiator, link.ticks.from_acceptor), (1, 0));
}

/// What an earlier run knew of the connection: two nodes by these names.
fn known(names: [&str; 2]) -> Saved {
    let end = |last, port| SocketAddr::from(([10, 0, 0, last], port));
    let seen = Timestamp::from_parts(1_795_406_200, 0);
    let link = SavedLink {
        nodes: names.map(|name| Some(name.to_owned())),
        flags: [Some(0xD_07DF_7FBC), Some(0xD_07DF_7FBD)],
        ..SavedLink::at_ends(end(1, INITIATOR), end(2, ACCEPTOR), seen)
    };
    Saved { links: vec![link], ..Saved::default() }
}

fn names(link: &Link) -> [Option<&str>; 2] {
    [link.initiator.node.as_deref(), link.acceptor.node.as_deref()]
}

#[test]
fn a_link_that_an_earlier_run_knew_bears_its_names_from_its_first_record_to_its_last() {
    let mut wire = Wire::mid_stream(&Policy::default());
    wire.analysis.restore(known(["a@host-a", "db@host-b"]), Timestamp::from_parts(1_795_406_299, 0));
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    wire.close();
    for change in [LinkChange::Opened, LinkChange::Handshake, LinkChange::Closed] {
        let link = wire.last_link(change).unwrap();
        assert_eq!(names(link), [Some("a@host-a"), Some("db@host-b")], "{change:?}");
        assert!(link.mid_stream && link.resumed && link.handshake.initiator_flags.is_some(), "{change:?}");
    }
    assert_eq!(wire.count(|body| matches!(body, EventBody::Link { change: LinkChange::Identified, .. })), 0);
}

#[test]
fn a_link_that_was_given_up_to_save_memory_bears_its_names_when_it_is_met_again() {
    let mut wire = Wire::mid_stream(&Policy::default());
    wire.analysis.restore(known(["a@host-a", "db@host-b"]), Timestamp::from_parts(1_795_406_299, 0));
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    let mut link = wire.last_link(LinkChange::Handshake).unwrap().clone();
    let (from, to) = (SocketAddr::from(([10, 0, 0, 1], INITIATOR)), SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)));
    assert!(!wire.analysis.engine.recall().contains(from, to), "it was met");
    let time = Timestamp::from_parts(1_795_406_301, 0);
    let flow = wire.heard.0.iter().find_map(|event| event.flow.clone());
    (link.closed, link.close_reason) = (Some(time), Some(CloseReason::Evicted));
    let body = EventBody::Link { change: LinkChange::Closed, link: Arc::new(link) };
    let given_up = Event { time, packet: PacketRef::default(), flow, body };
    wire.analysis.handle_event(&given_up, &mut wire.heard);
    assert!(wire.analysis.engine.recall().contains(from, to), "it may come again");
    assert!(wire.heard.1.iter().all(|alert| alert.status != AlertStatus::Resolved));
    let saved = wire.analysis.saved(time).links;
    assert!(saved.len() == 1 && !saved[0].findings.is_empty(), "also in the next run: {saved:?}");
}

#[test]
fn a_link_of_other_nodes_on_the_same_ends_is_another_one() {
    let mut wire = Wire::mid_stream(&Policy::default());
    wire.analysis.restore(known(["other@host-a", "db@host-b"]), Timestamp::from_parts(1_795_406_299, 0));
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    let link = wire.last_link(LinkChange::Identified).unwrap();
    assert_eq!((names(link), link.resumed), ([Some("a@host-a"), None], false));
    assert_eq!(link.handshake.initiator_flags, None);
}

#[test]
fn a_link_that_begins_anew_or_comes_too_late_is_not_the_one_that_was_known() {
    let frames = reg_send("kiosk", &[97, 1]).repeat(2);
    for anew in [true, false] {
        let mut wire = if anew { Wire::connect(&Policy::default()) } else { Wire::mid_stream(&Policy::default()) };
        let mut saved = known(["other@host-a", "db@host-b"]);
        if !anew {
            saved.links[0].seen = Timestamp::from_parts(1_795_402_000, 0);
        }
        wire.analysis.restore(saved, Timestamp::from_parts(1_795_406_299, 0));
        wire.send(Side::Initiator, &frames);
        assert!(wire.last_link(LinkChange::Opened).is_none_or(|link| !link.resumed), "{anew}");
    }
}

#[test]
fn what_was_not_met_again_yet_is_kept_for_the_run_after_the_next() {
    let mut wire = Wire::mid_stream(&Policy::default());
    let saved = known(["a@host-a", "db@host-b"]);
    let now = Timestamp::from_parts(1_795_406_299, 0);
    wire.analysis.restore(saved.clone(), now);
    assert_eq!(wire.analysis.saved(now), saved);
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    let links = wire.analysis.saved(now).links;
    assert_eq!((links.len(), links[0].seen), (1, now), "now it is an open link of this run");
    assert_eq!(links[0].nodes, saved.links[0].nodes);
    assert!(!links[0].findings.is_empty(), "cleartext-distribution");
}

fn process(pid: u32) -> Arc<Process> {
    Arc::new(Process { pid, exe: None, user: None, unit: Some("db.service".into()), container: None, node: None })
}

/// Whose a socket is, as of so many seconds.
fn owner(local: SocketAddr, remote: SocketAddr, pid: u32, seen: i64) -> SocketOwner {
    let seen = Timestamp::from_parts(seen, 0);
    SocketOwner { local, remote: Some(remote), namespace: 0, seen, process: process(pid), is_guess: false }
}

#[test]
fn the_process_behind_a_link_is_told_once_whichever_is_known_first() {
    let (from, to) = (SocketAddr::from(([10, 0, 0, 1], INITIATOR)), SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)));
    let acceptor = owner(to, from, 7, 1_795_406_300);
    let initiator = owner(from, to, 8, 1_795_406_300);
    let mut wire = Wire::mid_stream(&Policy::default());
    let now = Timestamp::from_parts(1_795_406_300, 0);
    wire.analysis.handle_process(now, &acceptor, &mut wire.heard);
    let told = |wire: &Wire| wire.count(|body| matches!(body, EventBody::Process(_)));
    assert_eq!(told(&wire), 0, "it may be any connection");
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    assert_eq!(told(&wire), 1);
    let alert =
        |wire: &Wire| wire.analysis.judge.alerts().into_iter().find(|one| one.rule_id == "cleartext-distribution");
    let found = alert(&wire).unwrap();
    assert_eq!((found.process.unwrap().pid, found.process_end), (7, Some(ProcessEnd::Acceptor)));
    for _ in 0..2 {
        wire.analysis.handle_process(now, &initiator, &mut wire.heard);
        wire.analysis.handle_process(now, &acceptor, &mut wire.heard);
    }
    assert_eq!(told(&wire), 2);
    let last = wire.heard.0.iter().rev().find(|event| matches!(event.body, EventBody::Process(_))).unwrap();
    assert!(last.flow.as_ref().is_some_and(|flow| flow.initiator == from), "it is about the link");
    assert_eq!(alert(&wire).unwrap().process.unwrap().pid, 7, "the end that it is about stays");
}

#[test]
fn a_finding_that_came_before_its_process_is_told_again_with_it() {
    let (from, to) = (SocketAddr::from(([10, 0, 0, 1], INITIATOR)), SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)));
    let mut wire = Wire::mid_stream(&Policy::default());
    wire.send(Side::Initiator, &reg_send("kiosk", &[97, 1]).repeat(2));
    let is_cleartext = |alert: &&Alert| alert.rule_id == "cleartext-distribution";
    assert!(wire.heard.1.iter().filter(is_cleartext).all(|alert| alert.process.is_none()));
    let owner = owner(to, from, 7, 1_795_406_300);
    let now = Timestamp::from_parts(1_795_406_301, 0);
    wire.analysis.handle_process(now, &owner, &mut wire.heard);
    let told: Vec<_> = wire.heard.1.iter().filter(is_cleartext).map(|one| (one.status, one.count)).collect();
    assert_eq!(told, [(AlertStatus::New, 1), (AlertStatus::Update, 1)]);
}

#[test]
fn what_is_told_of_a_socket_late_does_not_name_the_next_connection_with_its_ends() {
    let (from, to) = (SocketAddr::from(([10, 0, 0, 1], INITIATOR)), SocketAddr::from(([10, 0, 0, 2], ACCEPTOR)));
    let mut wire = Wire::connect(&Policy::default());
    let name = b"a@host-a";
    let mut first = vec![0, 15 + name.len() as u8, b'N'];
    first.extend(0xD_07DF_7FBD_u64.to_be_bytes());
    first.extend([0, 0, 0, 9, 0, name.len() as u8]);
    wire.send(Side::Initiator, &[&first[..], &name[..]].concat());
    let now = Timestamp::from_parts(1_795_406_301, 0);
    let told = |wire: &Wire| wire.count(|body| matches!(body, EventBody::Process(_)));
    wire.analysis.handle_process(now, &owner(to, from, 7, 1_795_406_299), &mut wire.heard);
    assert_eq!(told(&wire), 0, "seen before its first packet");
    wire.analysis.handle_process(now, &owner(to, from, 8, 1_795_406_301), &mut wire.heard);
    assert_eq!(told(&wire), 1);
}
