//! What a live source is told, and what it may leave out afterwards.

use super::*;
use crate::flow::{Decision, Wanted};

fn decision(wanted: Wanted) -> Decision {
    Decision { initiator: ([10, 0, 0, 1], 40_000).into(), acceptor: ([10, 0, 0, 2], 4369).into(), wanted }
}

/// A connection whose conversation wants no octets and is worth so much.
fn uninterested(value: Value) -> Bench {
    let mut bench = Bench::new();
    bench.table.decide_for_source();
    (bench.world.interest, bench.world.value) = (Interest::CountOnly, value);
    bench.connect();
    bench
}

#[test]
fn a_source_that_nobody_asks_for_decisions_is_told_nothing() {
    let mut bench = Bench::new();
    bench.world.interest = Interest::CountOnly;
    bench.connect();
    bench.client(0, b"abc");
    assert_eq!(bench.table.poll_decision(), None);
}

#[test]
fn a_link_without_interest_in_octets_is_counted_and_anything_else_ignored_once() {
    for (value, wanted) in [(Value::Link, Wanted::Counts), (Value::Unknown, Wanted::Nothing)] {
        let mut bench = uninterested(value);
        bench.client(0, b"abc");
        bench.client(3, b"def");
        assert_eq!(bench.table.poll_decision(), Some(decision(wanted)));
        assert_eq!(bench.table.poll_decision(), None);
    }
}

#[test]
fn what_the_source_leaves_out_is_no_gap_and_its_counts_are_the_connections_own() {
    let mut bench = uninterested(Value::Link);
    bench.client(0, b"abc");
    let (initiator, acceptor) = (([10, 0, 0, 1], 40_000).into(), ([10, 0, 0, 2], 4369).into());
    bench.table.handle_counts(bench.now, initiator, acceptor, [5_000_000_000, 7]);
    // 5 GB further on the sequence numbers have wrapped.
    let far = 5_000_000_003_u64 as u32;
    bench.send(Side::Initiator, FIN | ACK, CLIENT.wrapping_add(1).wrapping_add(far), SERVER + 8, b"");
    assert_eq!(bench.calls(), [], "one FIN ends one direction");
    bench.send(Side::Acceptor, FIN | ACK, SERVER + 8, CLIENT.wrapping_add(2).wrapping_add(far), b"");
    assert_eq!(bench.calls(), [Call::Close(CloseReason::FinInitiator)]);
    let facts = bench.facts();
    assert_eq!((facts.side(Side::Initiator).payload, facts.side(Side::Acceptor).payload), (5_000_000_003, 7));
    assert_eq!((facts.gaps(), facts.missing_bytes()), (0, 0));
    let decisions: Vec<Decision> = std::iter::from_fn(|| bench.table.poll_decision()).collect();
    assert_eq!(decisions, [decision(Wanted::Counts), decision(Wanted::Ended)]);
}

#[test]
fn a_counted_connection_lives_as_long_as_its_counts_grow() {
    let mut bench = uninterested(Value::Link);
    bench.client(0, b"abc");
    let (initiator, acceptor) = (([10, 0, 0, 1], 40_000).into(), ([10, 0, 0, 2], 4369).into());
    for _ in 0..10 {
        bench.idle(100);
        bench.table.handle_counts(bench.now, initiator, acceptor, [1, 1]);
    }
    assert_eq!(bench.calls(), []);
    bench.idle(200);
    assert_eq!(bench.calls(), [Call::Close(CloseReason::Silent)]);
}

#[test]
fn a_new_connection_between_the_ends_of_a_counted_one_is_read_again() {
    let mut bench = uninterested(Value::Link);
    bench.client(0, b"abc");
    (bench.world.interest, bench.world.value) = (Interest::Everything, Value::Attempt);
    bench.wait(Duration::from_secs(1));
    bench.connect();
    bench.client(0, b"xyz");
    assert_eq!(bench.bytes(Side::Initiator), b"xyz");
    assert_eq!(bench.calls()[0], Call::Close(CloseReason::PortReuse));
}

#[test]
fn counts_of_a_connection_that_is_not_known_change_nothing() {
    let mut bench = Bench::new();
    bench.table.decide_for_source();
    bench.table.handle_counts(bench.now, ([10, 0, 0, 9], 1).into(), ([10, 0, 0, 8], 2).into(), [1, 1]);
    assert_eq!(bench.table.open_flows(), 0);
}
