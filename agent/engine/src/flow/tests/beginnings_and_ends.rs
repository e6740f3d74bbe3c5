//! How connections begin, end, are found again and time out.

use super::*;

fn open() -> Call {
    Call::Open { mid_stream: false, initiator: 40_000 }
}

fn all(bench: &Bench) -> Vec<Call> {
    bench.world.calls.iter().map(|(_, call)| call.clone()).collect()
}

#[test]
fn a_syn_may_carry_data() {
    let mut bench = Bench::new();
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"early");
    bench.send(Side::Acceptor, SYN | ACK, SERVER, CLIENT.wrapping_add(6), b"");
    bench.client(5, b"late");
    assert_eq!(all(&bench), [open(), data(b"early"), data(b"late")]);
}

#[test]
fn a_refused_or_unanswered_syn_is_opened_and_closed_at_once() {
    let mut bench = Bench::new();
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    bench.send(Side::Acceptor, RST | ACK, 0, 99, b"");
    assert_eq!(all(&bench), [], "that RST answers something else");
    bench.send(Side::Acceptor, RST | ACK, 0, CLIENT.wrapping_add(1), b"");
    assert_eq!(all(&bench), [open(), Call::Close(CloseReason::ResetAcceptor)]);
    assert!(!bench.facts().answered);

    let mut bench = Bench::new();
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    bench.idle(200);
    assert_eq!(all(&bench), [open(), Call::Close(CloseReason::Silent)]);
}

#[test]
fn a_simultaneous_open_is_one_connection_of_whoever_was_first() {
    let mut bench = Bench::new();
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    bench.send(Side::Acceptor, SYN, SERVER, 0, b"");
    bench.send(Side::Initiator, SYN | ACK, CLIENT, SERVER + 1, b"");
    bench.send(Side::Acceptor, SYN | ACK, SERVER, CLIENT.wrapping_add(1), b"");
    bench.client(0, b"abc");
    bench.send(Side::Acceptor, ACK, SERVER + 1, CLIENT.wrapping_add(4), b"def");
    assert_eq!(all(&bench), [open(), data(b"abc"), Call::Data(Side::Acceptor, b"def".to_vec())]);
}

#[test]
fn without_a_syn_the_first_data_sets_where_the_stream_begins() {
    let mut bench = Bench::new();
    bench.acknowledge(0);
    assert_eq!(all(&bench), []);
    bench.client(100, b"abc");
    bench.client(90, b"0123456789");
    bench.client(103, b"def");
    assert_eq!(
        all(&bench),
        [Call::Open { mid_stream: true, initiator: 40_000 }, data(b"abc"), data(b"def")],
        "what was sent before is no conflict and no gap"
    );
}

#[test]
fn the_initiator_is_inferred_from_the_ports_when_the_acceptor_is_seen_first() {
    let mut bench = Bench::new();
    bench.send(Side::Acceptor, ACK, SERVER, 5, b"abc");
    assert_eq!(all(&bench)[0], Call::Open { mid_stream: true, initiator: 40_000 });
    assert_eq!(bench.bytes(Side::Acceptor), b"abc");
}

#[test]
fn a_syn_ack_alone_tells_both_ends_and_where_both_streams_begin() {
    let mut bench = Bench::new();
    bench.send(Side::Acceptor, SYN | ACK, SERVER, CLIENT.wrapping_add(1), b"");
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    bench.client(3, b"def");
    bench.client(0, b"abc");
    assert_eq!(all(&bench), [open(), data(b"abc"), data(b"def")]);
}

#[test]
fn a_syn_that_is_captured_after_the_first_data_is_not_another_connection() {
    let mut bench = Bench::new();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    bench.client(3, b"def");
    assert_eq!(bench.calls(), [data(b"abc"), data(b"def")]);
}

#[test]
fn one_direction_alone_is_read_and_is_missing_nothing() {
    let mut bench = Bench::new();
    bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    for n in 0..100 {
        let sequence = CLIENT.wrapping_add(1 + n);
        bench.send(Side::Initiator, ACK, sequence, SERVER + 1000 * n, &[n as u8]);
    }
    bench.send(Side::Initiator, ACK | FIN, CLIENT.wrapping_add(101), SERVER + 100_000, b"");
    bench.finish();
    assert_eq!(bench.bytes(Side::Initiator), (0..100).collect::<Vec<u8>>());
    assert_eq!(bench.without_data(), [Call::Close(CloseReason::FinInitiator)]);
}

#[test]
fn of_two_fins_the_one_that_the_other_acknowledges_was_first_whatever_the_capture_says() {
    for (acknowledged, reason) in [(SERVER + 2, CloseReason::FinAcceptor), (SERVER + 1, CloseReason::FinInitiator)] {
        let mut bench = Bench::connected();
        bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(1), acknowledged, b"");
        bench.send(Side::Acceptor, FIN | ACK, SERVER + 1, CLIENT.wrapping_add(1), b"");
        assert_eq!(all(&bench), [open(), Call::Close(reason)]);
    }
}

#[test]
fn after_a_fin_of_one_side_the_other_may_go_on() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(4), SERVER + 1, b"");
    bench.send(Side::Acceptor, ACK, SERVER + 1, CLIENT.wrapping_add(5), b"answer");
    assert_eq!(bench.calls().len(), 2);
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 7, CLIENT.wrapping_add(5), b"");
    bench.send(Side::Initiator, ACK, CLIENT.wrapping_add(5), SERVER + 8, b"");
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 7, CLIENT.wrapping_add(5), b"");
    bench.finish();
    assert_eq!(bench.calls()[2..], [Call::Close(CloseReason::FinInitiator)]);
    assert_eq!(bench.facts().gaps(), 0);
}

#[test]
fn a_fin_that_overtakes_data_ends_the_stream_only_behind_it() {
    let mut bench = Bench::connected();
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 1, CLIENT.wrapping_add(1), b"");
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(4), SERVER + 2, b"");
    assert_eq!(bench.calls(), []);
    bench.client(0, b"abc");
    assert_eq!(bench.calls(), [data(b"abc"), Call::Close(CloseReason::FinAcceptor)]);
}

#[test]
fn a_forged_fin_does_not_hide_what_its_sender_still_sends() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(4), SERVER + 1, b"");
    bench.client(3, b"def");
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 1, CLIENT.wrapping_add(7), b"");
    assert_eq!(bench.calls(), [data(b"abc"), data(b"def")]);
}

#[test]
fn a_reset_inside_the_window_ends_and_one_outside_does_not() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.acknowledge(3);
    for forged in [CLIENT.wrapping_add(1), CLIENT.wrapping_add(1 << 24), 1 << 31] {
        bench.send(Side::Initiator, RST, forged, 0, b"");
    }
    assert_eq!(bench.calls(), [data(b"abc")]);
    assert_eq!(bench.table.stats().resets_ignored, 3);
    bench.send(Side::Initiator, RST, CLIENT.wrapping_add(4), 0, b"");
    assert_eq!(bench.calls(), [data(b"abc"), Call::Close(CloseReason::ResetInitiator)]);
}

#[test]
fn a_reset_that_its_sender_does_not_heed_does_not_blind() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, RST, CLIENT.wrapping_add(4), 0, b"");
    bench.send(Side::Acceptor, ACK, SERVER + 1, CLIENT.wrapping_add(4), b"was under way");
    assert_eq!(bench.calls().len(), 2);
    bench.client(3, b"still here");
    let again = Call::Open { mid_stream: true, initiator: 40_000 };
    assert_eq!(bench.calls()[2..], [again, data(b"still here")]);
    assert_eq!(bench.table.stats().closes_disproved, 1);
}

#[test]
fn what_waits_behind_a_hole_is_delivered_when_the_connection_is_reset() {
    let mut bench = Bench::connected();
    bench.client(5, b"abc");
    bench.send(Side::Initiator, RST, CLIENT.wrapping_add(9), 0, b"");
    assert_eq!(bench.calls(), [lost(5), data(b"abc"), Call::Close(CloseReason::ResetInitiator)]);
}

#[test]
fn the_same_ports_with_another_syn_after_the_end_are_another_connection() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, RST, CLIENT.wrapping_add(4), 0, b"");
    bench.send(Side::Initiator, SYN, 5000, 0, b"");
    bench.send(Side::Acceptor, SYN | ACK, 9000, 5001, b"");
    bench.send(Side::Initiator, ACK, 5001, 9001, b"new");
    assert_eq!(bench.calls()[2..], [open(), data(b"new")]);
    let ids: Vec<FlowId> = bench.world.calls.iter().map(|(id, _)| *id).collect();
    assert_ne!(ids.first(), ids.last());
}

#[test]
fn the_same_ports_with_another_syn_while_open_close_the_old_one_once_the_syn_is_answered() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.client(10, b"waits");
    bench.send(Side::Initiator, SYN, 5000, 0, b"");
    assert_eq!(bench.calls(), [data(b"abc")]);
    bench.send(Side::Acceptor, SYN | ACK, 9000, 5001, b"");
    let told = [data(b"abc"), lost(7), data(b"waits"), Call::Close(CloseReason::PortReuse), open()];
    assert_eq!(bench.calls(), told);
    bench.send(Side::Initiator, ACK, 5001, 9001, b"new");
    assert_eq!(bench.calls()[5..], [data(b"new")]);
}

#[test]
fn a_forged_syn_in_an_open_connection_changes_nothing() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, SYN, 5000, 0, b"");
    bench.send(Side::Acceptor, ACK, SERVER + 1, CLIENT.wrapping_add(4), b"");
    bench.client(3, b"def");
    assert_eq!(bench.calls(), [data(b"abc"), data(b"def")]);
}

#[test]
fn a_retransmitted_syn_is_not_another_connection() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.send(Side::Initiator, SYN, CLIENT, 0, b"");
    }
    bench.connect();
    bench.client(0, b"abc");
    bench.connect();
    assert_eq!(all(&bench), [open(), data(b"abc")]);
    assert_eq!(bench.table.stats().flows, 1);
}

#[test]
fn data_after_the_end_does_not_open_a_connection_again() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(4), SERVER + 1, b"");
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 1, CLIENT.wrapping_add(5), b"");
    bench.client(0, b"abc");
    bench.client(3, b"\0");
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(1), SERVER + 1, b"abc");
    assert_eq!(bench.calls(), [data(b"abc"), Call::Close(CloseReason::FinInitiator)]);
}

#[test]
fn silence_ends_a_link_later_than_other_connections() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.idle(119);
    assert_eq!(bench.calls(), [data(b"abc")]);
    bench.idle(2);
    assert_eq!(bench.calls(), [data(b"abc"), Call::Close(CloseReason::Silent)]);
    assert_eq!(bench.table.poll_timeout(), None);

    let mut bench = Bench::new();
    bench.world.link = Some(40_000);
    bench.connect();
    bench.client(0, b"abc");
    bench.idle(179);
    assert_eq!(bench.calls(), [data(b"abc")]);
    bench.idle(2);
    assert_eq!(bench.calls().len(), 2);
}

#[test]
fn a_clock_that_jumps_a_day_ends_no_connection_that_goes_on() {
    let day = Duration::from_secs(86_400);
    for wild in [1, 500] {
        let mut bench = Bench::connected();
        let before = bench.now;
        for n in 0..500 {
            if n == 250 {
                bench.wait(day);
            }
            if n == 250 + wild {
                bench.now = before;
            }
            bench.wait(Duration::from_secs(15));
            bench.client(n, b"t");
        }
        assert_eq!(bench.without_data(), []);
    }
}

#[test]
fn a_conversation_s_time_out_fires_once_when_its_time_has_come() {
    let mut bench = Bench::new();
    bench.world.deadline = Some(bench.now.plus(Duration::from_secs(7)));
    bench.connect();
    bench.idle(6);
    assert_eq!(bench.calls(), []);
    assert!(bench.table.poll_timeout().is_some_and(|due| due <= bench.now.plus(Duration::from_secs(1))));
    bench.idle(60);
    assert_eq!(bench.calls(), [Call::Timeout]);
}

#[test]
fn a_conversation_without_interest_is_forgotten_and_not_opened_again_by_the_rest() {
    let mut bench = Bench::new();
    bench.world.interest = Interest::Nothing;
    bench.connect();
    bench.client(0, b"abc");
    bench.send(Side::Initiator, RST, CLIENT.wrapping_add(4), 0, b"");
    assert_eq!(all(&bench), [open()]);
    assert_eq!(bench.table.open_flows(), 0);
}

#[test]
fn the_facts_name_each_interface_once() {
    let mut bench = Bench::connected();
    for n in 0..10 {
        let at = At { time: bench.now, packet: PacketRef::default(), interface: InterfaceId(n % 3) };
        let segment = Segment {
            source: ([10, 0, 0, 1], 40_000).into(),
            destination: ([10, 0, 0, 2], 4369).into(),
            sequence: CLIENT.wrapping_add(1 + n),
            acknowledgement: SERVER + 1,
            flags: TcpFlags(ACK),
            window: 0,
            payload: b"x",
            payload_len: 1,
        };
        bench.table.handle_segment(&at, &segment, &mut bench.world);
    }
    assert_eq!(bench.facts().interfaces(), [InterfaceId(0), InterfaceId(1), InterfaceId(2)]);
}
