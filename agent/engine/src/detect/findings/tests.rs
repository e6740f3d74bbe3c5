//! The life of a finding: new, update, resolved; and what bounds it.

use super::super::Judge;
use super::super::testing::{Bench, at, bad_cookie, established, event, flow_of, ip, link};
use super::*;
use crate::cluster::SocketOwner;
use crate::event::{EventBody, LinkChange, Tampering};
use crate::model::{CloseReason, Link, Transport};

fn tamper(bench: &mut Bench) {
    let what = Tampering::ConflictingRetransmission;
    bench.on_flow(EventBody::Tampering { what, from_initiator: true, offset: 0, bytes: 1 });
}

fn changes(judge: &mut Judge) -> Vec<(String, AlertStatus, u64)> {
    std::iter::from_fn(|| judge.poll_alert()).map(|alert| (alert.rule_id, alert.status, alert.count)).collect()
}

fn tampering(bench: &mut Bench) -> Vec<(AlertStatus, u64)> {
    let changes = changes(&mut bench.judge).into_iter();
    changes.filter(|(rule, ..)| rule == "stream-tampering").map(|(_, status, count)| (status, count)).collect()
}

#[test]
fn repeats_come_out_at_most_once_per_interval_and_silence_ends_it() {
    let mut bench = Bench::new(Policy::default());
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), [(AlertStatus::New, 1)]);
    for _ in 0..10 {
        bench.now += 1;
        tamper(&mut bench);
        assert_eq!(tampering(&mut bench), []);
    }
    bench.wait(Duration::from_secs(49));
    assert_eq!(tampering(&mut bench), []);
    bench.wait(Duration::from_secs(1));
    assert_eq!(tampering(&mut bench), [(AlertStatus::Update, 11)]);
    bench.wait(Duration::from_secs(100));
    assert_eq!(tampering(&mut bench), [], "nothing new, no update");
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), [(AlertStatus::Update, 12)], "the interval is over already");
    bench.wait(QUIET);
    assert_eq!(tampering(&mut bench), [(AlertStatus::Resolved, 12)]);
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), [(AlertStatus::New, 13)], "it came back");
    assert_eq!(bench.judge.findings().poll_timeout(), Some(at(bench.now).plus(QUIET)));
}

#[test]
fn the_interval_is_an_argument() {
    let mut bench = Bench::new(Policy::default());
    bench.judge = Judge::with_interval(&Policy::default(), Duration::from_secs(1));
    tamper(&mut bench);
    bench.now += 1;
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), [(AlertStatus::New, 2)], "what was not asked for comes out once");
    bench.now += 1;
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), [(AlertStatus::Update, 3)]);
}

#[test]
fn a_condition_ends_with_the_last_link_that_has_it() {
    let mut bench = Bench::new(Policy::default());
    let (mut first, mut second) = (established("f1"), established("f2"));
    bench.link(LinkChange::Handshake, &first);
    bench.link(LinkChange::Handshake, &second);
    bench.close(&mut first);
    assert_eq!(bench.only("cleartext-distribution").status, AlertStatus::Update);
    bench.wait(QUIET);
    assert_eq!(bench.only("cleartext-distribution").status, AlertStatus::Update, "it lasts, however quiet");
    bench.close(&mut second);
    let alert = bench.only("cleartext-distribution");
    assert_eq!((alert.status, alert.count), (AlertStatus::Resolved, 2));
}

#[test]
fn an_update_that_was_held_back_comes_out_at_the_end() {
    let mut bench = Bench::new(Policy::default());
    tamper(&mut bench);
    tampering(&mut bench);
    tamper(&mut bench);
    assert_eq!(tampering(&mut bench), []);
    bench.judge.finish(at(1), &bench.cluster);
    assert_eq!(tampering(&mut bench), [(AlertStatus::Update, 2)]);
}

#[test]
fn a_worse_severity_comes_out_at_once() {
    let mut bench = Bench::new(Policy::default());
    bench.link(LinkChange::Handshake, &bad_cookie("f1"));
    assert!(changes(&mut bench.judge).contains(&("cleartext-distribution".into(), AlertStatus::New, 1)));
    bench.link(LinkChange::Handshake, &established("f2"));
    assert!(changes(&mut bench.judge).contains(&("cleartext-distribution".into(), AlertStatus::Update, 2)));
    assert_eq!(bench.only("cleartext-distribution").severity, Severity::High);
}

#[test]
fn the_first_and_the_last_facts_are_kept_with_their_packets() {
    let mut bench = Bench::new(Policy::default());
    for _ in 0..100 {
        tamper(&mut bench);
    }
    let evidence = bench.only("stream-tampering").evidence;
    assert_eq!(evidence.len(), EVIDENCE);
    let packet = |place: usize| evidence[place].packet.as_deref().unwrap();
    assert_eq!((packet(0), packet(9), packet(10), packet(19)), ("1", "10", "91", "100"));
    assert_eq!(packet_text(PacketRef { capture: 2, number: 5 }).as_deref(), Some("2:5"));
    assert_eq!(packet_text(PacketRef::default()), None);
}

#[test]
fn the_same_condition_has_the_same_fingerprint_after_a_restart_and_another_has_another() {
    let fingerprint = |name: &str| {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        link.initiator.node = Some(name.into());
        link.initiator.port = 1000 + u16::try_from(name.len()).unwrap();
        bench.link(LinkChange::Handshake, &link);
        bench.only("cleartext-distribution").fingerprint
    };
    assert_eq!(fingerprint("web@host-a"), fingerprint("web@host-a"));
    assert_ne!(fingerprint("web@host-a"), fingerprint("web2@host-a"));
    assert_eq!(
        fingerprint("web@host-a"),
        "26751a589f091b14",
        "a change of it breaks every silence that an operator has set"
    );
}

#[test]
fn findings_are_bounded_and_one_rule_cannot_take_the_place_of_the_others() {
    let limits = Limits { findings: 40, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ..Policy::default() });
    for number in 0..200_u8 {
        let mut attempt = link(&format!("f{number}"), ("10.77.0.1", None), ("10.77.0.2", None));
        attempt.initiator.ip = ip(&format!("10.77.1.{number}"));
        attempt.transport = Transport::Unknown;
        let body = EventBody::Foreign { expected: crate::event::Expected::Epmd, looks_like: "HTTP" };
        bench.event(super::super::testing::event(body, Some(super::super::testing::flow_of(&attempt))));
    }
    assert_eq!(bench.alerts().len(), 40 / RULE_SHARE);
    assert_eq!(bench.judge.findings().limits_reached()["findings"], 190);
    bench.link(LinkChange::Handshake, &established("last"));
    bench.only("cleartext-distribution");
}

#[test]
fn resolved_findings_make_room_for_new_ones() {
    let limits = Limits { findings: 40, ..Limits::default() };
    let mut bench = Bench::new(Policy { limits, ..Policy::default() });
    for number in 0..100 {
        let mut link = established(&format!("f{number}"));
        link.initiator.node = Some(format!("web{number}@host-a"));
        bench.link(LinkChange::Handshake, &link);
        bench.close(&mut link);
        changes(&mut bench.judge);
    }
    let alerts = bench.alerts();
    assert!(alerts.len() <= 40);
    assert!(alerts.iter().any(|alert| alert.subject.starts_with("web99@")));
    assert!(bench.judge.findings().limits_reached()["findings"] > 0);
}

#[test]
fn the_same_events_give_the_same_alerts_in_the_same_order() {
    let run = || {
        let mut bench = Bench::new(Policy::default());
        for number in 0..20 {
            let mut link = if number % 3 == 0 { bad_cookie("x") } else { established("x") };
            link.flow_id = format!("f{number}");
            link.initiator.node = Some(format!("web{}@host-a", number % 7));
            bench.link(LinkChange::Handshake, &link);
            bench.now += 1;
        }
        bench.alerts()
    };
    let alerts = run();
    assert_eq!(alerts, run());
    assert!(alerts.windows(2).all(|pair| pair[0].severity >= pair[1].severity));
    assert!(alerts.len() > 10);
}

#[test]
fn at_the_end_of_time_a_timer_that_is_due_does_what_it_was_set_for() {
    let mut bench = Bench::new(Policy::default());
    let what = Tampering::ConflictingRetransmission;
    let body = EventBody::Tampering { what, from_initiator: true, offset: 0, bytes: 1 };
    let mut late = event(body, Some(flow_of(&established("f1"))));
    late.time = Timestamp::from_nanos(i64::MAX - 10);
    bench.judge.handle_event(&late, &bench.cluster);
    bench.judge.handle_timeout(Timestamp::from_nanos(i64::MAX), &bench.cluster);
    assert_eq!(bench.only("stream-tampering").status, AlertStatus::Resolved);
    assert_eq!(bench.judge.findings().poll_timeout(), None);
}

/// What comes out of `cleartext-distribution`.
fn cleartext(bench: &mut Bench) -> Vec<AlertStatus> {
    let changes = changes(&mut bench.judge).into_iter();
    changes.filter(|(rule, ..)| rule == "cleartext-distribution").map(|(_, status, _)| status).collect()
}

fn give_up(bench: &mut Bench, link: &mut Link) {
    (link.closed, link.close_reason) = (Some(at(bench.now)), Some(CloseReason::Evicted));
    bench.link(LinkChange::Closed, link);
}

#[test]
fn what_lasts_with_a_connection_that_is_given_up_goes_on_and_ends_when_it_is_met_again_and_ends() {
    let mut bench = Bench::new(Policy::default());
    let mut link = established("f1");
    bench.link(LinkChange::Handshake, &link);
    assert_eq!(cleartext(&mut bench), [AlertStatus::New]);
    give_up(&mut bench, &mut link);
    bench.wait(QUIET - Duration::from_secs(1));
    assert_eq!(cleartext(&mut bench), []);
    let mut again = established("f2");
    (again.mid_stream, again.resumed) = (true, true);
    bench.link(LinkChange::Opened, &again);
    bench.link(LinkChange::Handshake, &again);
    assert_eq!(cleartext(&mut bench), [], "it is known already");
    bench.wait(2 * QUIET);
    assert_eq!(cleartext(&mut bench), []);
    bench.close(&mut again);
    assert_eq!(cleartext(&mut bench), [AlertStatus::Resolved]);
}

#[test]
fn what_lasts_with_a_connection_that_is_given_up_and_not_met_again_ends_by_quiet() {
    let mut bench = Bench::new(Policy::default());
    let (mut given_up, mut other) = (established("f1"), established("f2"));
    other.initiator.port += 1;
    bench.link(LinkChange::Handshake, &given_up);
    bench.link(LinkChange::Handshake, &other);
    assert_eq!(cleartext(&mut bench), [AlertStatus::New]);
    give_up(&mut bench, &mut given_up);
    bench.now += 10;
    bench.close(&mut other);
    let came_out = cleartext(&mut bench);
    assert!(!came_out.contains(&AlertStatus::Resolved), "one of its connections was not seen to end: {came_out:?}");
    bench.wait(QUIET);
    assert_eq!(cleartext(&mut bench), [AlertStatus::Resolved]);
}

/// Who has the initiator's end of a link, as of so many seconds.
fn initiator(link: &Link, pid: u32, seen: i64) -> SocketOwner {
    let flow = flow_of(link);
    let process = Process { pid, exe: None, user: None, unit: None, container: None, node: None };
    let (local, remote, namespace, seen) = (flow.initiator, Some(flow.acceptor), 0, at(seen));
    SocketOwner { local, remote, namespace, seen, process: Arc::new(process), is_guess: false }
}

#[test]
fn a_finding_names_the_process_of_the_connection_that_it_is_about_and_not_of_one_with_the_same_ends_before() {
    let mut bench = Bench::new(Policy::default());
    let mut first = established("f1");
    bench.cluster.learn_process(&initiator(&first, 7, 1));
    bench.link(LinkChange::Handshake, &first);
    let pid = |bench: &Bench| bench.only("cleartext-distribution").process.map(|process| process.pid);
    assert_eq!(pid(&bench), Some(7));
    bench.now = 10;
    bench.close(&mut first);
    changes(&mut bench.judge);
    bench.now = 20;
    let mut second = established("f2");
    second.opened = at(20);
    bench.link(LinkChange::Handshake, &second);
    assert_eq!(pid(&bench), None, "it is another connection, and nobody has said yet whose it is");
    let owner = initiator(&second, 8, 21);
    bench.cluster.learn_process(&owner);
    let process = crate::model::SocketProcess::new(ProcessEnd::Initiator, owner.local, &owner.process);
    bench.event(event(EventBody::Process(Box::new(process)), Some(flow_of(&second))));
    assert_eq!(pid(&bench), Some(8));
}

#[test]
fn what_got_lost_on_its_way_is_told_again_in_its_last_state() {
    let mut bench = Bench::new(Policy::default());
    tamper(&mut bench);
    let fingerprint = BTreeSet::from([bench.only("stream-tampering").fingerprint]);
    assert_eq!(tampering(&mut bench), [(AlertStatus::New, 1)]);
    bench.judge.tell_again(&fingerprint, at(1));
    assert_eq!(tampering(&mut bench), [(AlertStatus::Update, 1)]);
    bench.wait(QUIET);
    assert_eq!(tampering(&mut bench), [(AlertStatus::Resolved, 1)]);
    for _ in 0..2 {
        bench.judge.tell_again(&fingerprint, at(bench.now));
        assert_eq!(tampering(&mut bench), [(AlertStatus::Resolved, 1)], "until somebody has heard it");
    }
    assert_eq!(changes(&mut bench.judge), []);
}
