//! Octets out of order, twice, differing, missing or cut.

use super::*;

#[test]
fn octets_in_order_are_delivered_as_they_come() {
    let mut bench = Bench::connected();
    bench.client(0, b"hello");
    bench.client(5, b"world");
    assert_eq!(bench.calls(), [data(b"hello"), data(b"world")]);
    assert_eq!(bench.facts().side(Side::Initiator).payload, 10);
}

#[test]
fn segments_out_of_order_are_put_in_order() {
    let mut bench = Bench::connected();
    for (offset, payload) in [(6, b"ghi"), (3, b"def"), (9, b"jkl"), (0, b"abc")] {
        bench.client(offset, payload);
    }
    assert_eq!(bench.bytes(Side::Initiator), b"abcdefghijkl");
    assert_eq!(bench.without_data(), []);
}

#[test]
fn sequence_numbers_wrap_around_in_the_middle_of_a_stream() {
    let stream: Vec<u8> = (0..200).collect();
    let mut bench = Bench::connected();
    for (n, piece) in stream.chunks(7).enumerate().collect::<Vec<_>>().into_iter().rev() {
        bench.client(n as u32 * 7, piece);
    }
    assert_eq!(bench.bytes(Side::Initiator), stream);
    assert_eq!(bench.without_data(), []);
}

#[test]
fn segments_of_one_octet_in_any_order_make_the_stream() {
    let stream: Vec<u8> = (0..=255).collect();
    let mut bench = Bench::connected();
    for offset in (0..256).map(|n| n * 77 % 256) {
        bench.client(offset, &stream[offset as usize..][..1]);
    }
    assert_eq!(bench.bytes(Side::Initiator), stream);
    assert_eq!(bench.without_data(), []);
}

#[test]
fn an_overlap_keeps_the_first_copy_whichever_end_overlaps() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.client(6, b"ghi");
    bench.client(2, b"XdefX");
    assert_eq!(bench.bytes(Side::Initiator), b"abcdefghi");
    assert_eq!(bench.without_data(), [conflict(2, 1), conflict(6, 1)]);
}

#[test]
fn a_segment_that_spans_several_waiting_ones_only_fills_between_them() {
    let mut bench = Bench::connected();
    bench.client(2, b"c");
    bench.client(5, b"f");
    bench.client(1, b"bXdeYg");
    bench.client(0, b"a");
    assert_eq!(bench.bytes(Side::Initiator), b"abcdefg");
    assert_eq!(bench.without_data(), [conflict(2, 1), conflict(5, 1)]);
}

#[test]
fn a_retransmission_that_differs_from_delivered_octets_is_tampering() {
    let mut bench = Bench::connected();
    bench.client(0, b"abcdefgh");
    bench.client(2, b"cXYfghij");
    assert_eq!(bench.calls(), [data(b"abcdefgh"), conflict(3, 2), data(b"ij")]);
}

#[test]
fn packets_that_are_captured_twice_are_no_finding() {
    let mut bench = Bench::new();
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    for (side, flags, sequence, acknowledgement, payload) in [
        (Side::Initiator, SYN, CLIENT, 0, &b""[..]),
        (Side::Acceptor, SYN | ACK, SERVER, client, b""),
        (Side::Initiator, ACK, client, server, b""),
        (Side::Initiator, ACK, client, server, b"abc"),
        (Side::Acceptor, ACK, server, client.wrapping_add(3), b"defg"),
        (Side::Initiator, ACK | FIN, client.wrapping_add(3), server + 4, b""),
        (Side::Acceptor, ACK | FIN, server + 4, client.wrapping_add(4), b""),
        (Side::Initiator, ACK, client.wrapping_add(4), server + 5, b""),
    ] {
        for _ in 0..2 {
            bench.send(side, flags, sequence, acknowledgement, payload);
        }
    }
    bench.finish();
    let told = [data(b"abc"), Call::Data(Side::Acceptor, b"defg".to_vec()), Call::Close(CloseReason::FinInitiator)];
    assert_eq!(bench.calls(), told);
    assert_eq!(bench.table.stats().flows, 1);
}

#[test]
fn keep_alive_octets_are_not_compared_with_the_stream() {
    let mut bench = Bench::connected();
    bench.client(0, b"abcd");
    bench.acknowledge(4);
    bench.client(3, b"\0");
    bench.client(3, b"");
    bench.client(4, b"efgh");
    assert_eq!(bench.calls(), [data(b"abcd"), data(b"efgh")]);
}

#[test]
fn a_zero_window_probe_with_the_next_octet_is_delivered_once() {
    let mut bench = Bench::connected();
    bench.client(0, b"abcd");
    bench.client(4, b"e");
    bench.acknowledge(4);
    bench.client(4, b"efgh");
    assert_eq!(bench.bytes(Side::Initiator), b"abcdefgh");
    assert_eq!(bench.without_data(), []);
}

#[test]
fn a_hole_that_was_acknowledged_is_skipped_once_reordering_no_longer_explains_it() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.client(13, b"def");
    bench.acknowledge(16);
    assert_eq!(bench.calls(), [data(b"abc")], "the capture may still deliver it");
    bench.idle(1);
    assert_eq!(bench.calls(), [data(b"abc"), lost(10), data(b"def")]);
    assert_eq!((bench.facts().gaps(), bench.facts().missing_bytes()), (1, 10));
}

#[test]
fn an_acknowledged_hole_is_skipped_after_some_segments_even_if_no_time_passes() {
    let mut bench = Bench::connected();
    bench.client(10, b"x");
    for _ in 0..100 {
        bench.acknowledge(11);
    }
    assert_eq!(bench.calls(), [lost(10), data(b"x")]);
}

#[test]
fn a_hole_that_nobody_acknowledged_is_waited_for_and_then_skipped() {
    let mut bench = Bench::connected();
    bench.client(10, b"x");
    bench.idle(2);
    assert_eq!(bench.calls(), []);
    bench.idle(2);
    assert_eq!(bench.calls(), [lost(10), data(b"x")]);
    assert_eq!(bench.table.stats().limits.iter().collect::<Vec<_>>(), [("reorder_wait", 1)]);
    bench.client(0, b"too late  ");
    assert_eq!(bench.calls().len(), 2);
}

#[test]
fn a_hole_with_too_many_octets_or_segments_behind_it_is_skipped() {
    let limits = Limits { reorder_bytes: 1000, reorder_segments: 10, ..Limits::default() };
    for (len, limit) in [(600, "reorder_bytes"), (1, "reorder_segments")] {
        let mut bench = Bench::with(&limits);
        bench.connect();
        let mut offset = 1;
        while bench.calls().is_empty() {
            bench.client(offset, &vec![b'x'; len]);
            offset += len as u32;
        }
        assert_eq!(bench.calls()[0], Call::Gap(Side::Initiator, 1, GapCause::Limit));
        assert_eq!(bench.bytes(Side::Initiator).len(), offset as usize - 1);
        assert_eq!(bench.table.stats().limits.iter().collect::<Vec<_>>(), [(limit, 1)]);
    }
}

#[test]
fn octets_that_the_snap_length_cut_are_a_gap_behind_the_captured_head() {
    let mut bench = Bench::connected();
    let first = CLIENT.wrapping_add(1);
    bench.send_cut(Side::Initiator, ACK, first, SERVER + 1, b"abc", 10);
    bench.send_cut(Side::Initiator, ACK, first.wrapping_add(20), SERVER + 1, b"uvw", 10);
    bench.client(10, b"klmnopqrst");
    let cut = Call::Gap(Side::Initiator, 7, GapCause::SnapLength);
    assert_eq!(bench.calls(), [data(b"abc"), cut.clone(), data(b"klmnopqrst"), data(b"uvw"), cut]);
    assert_eq!(*bench.facts().side(Side::Initiator), SideFacts { payload: 30, gaps: 2, missing: 14 });
}

#[test]
fn what_was_acknowledged_and_never_seen_is_said_at_the_end_also_with_nothing_behind_it() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.acknowledge(103);
    bench.finish();
    assert_eq!(bench.calls(), [data(b"abc"), lost(100)]);
    assert_eq!(bench.table.stats().missing_bytes, 100);
}

#[test]
fn data_far_outside_the_window_is_ignored_and_reported_when_the_stream_goes_on() {
    let mut bench = Bench::connected();
    bench.client(0, b"abc");
    bench.acknowledge(3);
    bench.client(20 << 20, b"forged");
    assert_eq!(bench.calls(), [data(b"abc")], "a pause of the capture would look the same");
    bench.client(3, b"def");
    let told = Call::Tampering(Side::Initiator, Tampering::OutsideWindow, 20 << 20, 6);
    assert_eq!(bench.calls(), [data(b"abc"), told, data(b"def")]);
}

#[test]
fn a_capture_that_pauses_for_more_than_a_window_goes_on_with_a_gap_and_without_a_finding() {
    for jump in [20 << 20, 3_000_000_000] {
        let mut bench = Bench::connected();
        bench.client(0, b"abc");
        bench.acknowledge(3);
        bench.client(jump, b"first");
        bench.acknowledge(jump + 5);
        bench.client(jump + 5, b"second");
        assert_eq!(bench.calls(), [data(b"abc"), lost(u64::from(jump) + 2), data(b"second")]);
    }
}

#[test]
fn a_connection_that_is_only_counted_delivers_nothing_and_keeps_nothing() {
    let mut bench = Bench::new();
    bench.world.interest = Interest::CountOnly;
    bench.connect();
    let before = bench.table.memory();
    bench.client(0, &[1; 1000]);
    bench.client(2000, &[1; 1000]);
    assert!(bench.table.memory() - before < 500);
    bench.client(1000, &[1; 1000]);
    bench.client(0, &[2; 3000]);
    bench.send(Side::Acceptor, RST, SERVER + 1, 0, b"");
    assert_eq!(bench.calls(), [Call::Close(CloseReason::ResetAcceptor)]);
    assert_eq!(bench.facts().side(Side::Initiator).payload, 3000);
}

#[test]
fn an_unknown_connection_keeps_no_history() {
    let mut bench = Bench::new();
    bench.world.value = Value::Unknown;
    bench.connect();
    let before = bench.table.memory();
    bench.client(0, b"abc");
    assert_eq!(bench.table.memory(), before);
}
