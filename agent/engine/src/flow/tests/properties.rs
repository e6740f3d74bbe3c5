//! What holds for any segmentation, order, duplication and loss, and for segments of no sense at all.

use proptest::prelude::*;

use super::*;

/// Pieces of a stream: lengths, an order, and which come twice.
fn pieces() -> impl Strategy<Value = Vec<(usize, u16, bool, bool)>> {
    prop::collection::vec((1..200_usize, any::<u16>(), any::<bool>(), prop::bool::weighted(0.2)), 1..60)
}

/// Sends the pieces in the order of their keys, those marked twice (with more of the stream than the first time), and
/// those marked lost not. Returns the stream, and how far it was seen.
fn send(bench: &mut Bench, pieces: &[(usize, u16, bool, bool)], base: u32, losing: bool) -> (Vec<u8>, usize) {
    let total: usize = pieces.iter().map(|piece| piece.0).sum();
    let stream: Vec<u8> = (0..total).map(|n| (n * 31 % 251) as u8).collect();
    let mut order = Vec::new();
    let mut start = 0;
    for &(len, key, twice, is_lost) in pieces {
        let end = start + len;
        if !(losing && is_lost) {
            order.push((key, start, end));
            if twice {
                order.push((key.wrapping_mul(40_503), start.saturating_sub(30), (end + 30).min(total)));
            }
        }
        start = end;
    }
    order.sort_unstable();
    bench.send(Side::Initiator, SYN, base.wrapping_sub(1), 0, b"");
    bench.send(Side::Acceptor, SYN | ACK, SERVER, base, b"");
    for &(_, start, end) in &order {
        bench.send(Side::Initiator, ACK, base.wrapping_add(start as u32), SERVER + 1, &stream[start..end]);
    }
    (stream, order.iter().map(|piece| piece.2).max().unwrap_or(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_segmentation_order_and_duplication_gives_the_stream(pieces in pieces(), base: u32) {
        let mut bench = Bench::new();
        let (stream, _) = send(&mut bench, &pieces, base, false);
        prop_assert_eq!(bench.facts().side(Side::Initiator).payload, stream.len() as u64);
        prop_assert_eq!(bench.bytes(Side::Initiator), stream);
        prop_assert_eq!(bench.without_data(), []);
    }

    #[test]
    fn any_loss_is_accounted_for_octet_by_octet(pieces in pieces(), base: u32, few in 1..40_usize) {
        let limits = Limits { reorder_segments: few, ..Limits::default() };
        let mut bench = Bench::with(&limits);
        let (stream, highest) = send(&mut bench, &pieces, base, true);
        bench.finish();
        let mut rebuilt = Vec::new();
        for call in bench.calls() {
            match call {
                Call::Data(_, data) => rebuilt.extend(data.into_iter().map(Some)),
                Call::Gap(_, bytes, _) => rebuilt.extend((0..bytes).map(|_| None)),
                other => prop_assert!(false, "unexpected {:?}", other),
            }
        }
        prop_assert_eq!(rebuilt.len(), highest);
        for (offset, octet) in rebuilt.into_iter().enumerate() {
            prop_assert!(octet.is_none_or(|octet| octet == stream[offset]));
        }
    }

    #[test]
    fn no_segments_make_it_panic_or_exceed_its_memory(
        segments in prop::collection::vec(
            (0..6_u8, any::<bool>(), prop_oneof![any::<u32>(), 0..5000_u32], any::<u32>(), any::<u8>(), 0..3000_usize, any::<u32>(), 0..5_u8),
            1..400,
        ),
        interest in 0..3_u8,
        value in 0..5_u8,
    ) {
        let limits = Limits { flow_memory: 64 << 10, reorder_bytes: 20_000, ..Limits::default() };
        let mut bench = Bench::with(&limits);
        bench.world.interest =
            [Interest::Nothing, Interest::CountOnly, Interest::Everything][usize::from(interest)];
        bench.world.value =
            [Value::Unknown, Value::Candidate, Value::Epmd, Value::Attempt, Value::Link][usize::from(value)];
        let payload = [7_u8; 3000];
        for (flow, forward, sequence, acknowledgement, flags, len, wire, time) in segments {
            let ends = (SocketAddr::from(([10, 0, 0, flow], 1000)), SocketAddr::from(([10, 0, 0, 2], 4369)));
            let (source, destination) = if forward { ends } else { (ends.1, ends.0) };
            let payload_len = if time == 0 { wire } else { len as u32 };
            let step = [0, 1, 100_000_000, 5_000_000_000, i64::from(wire) * 1_000_000_000][usize::from(time)];
            bench.now = Timestamp::from_nanos(bench.now.as_nanos().saturating_add(step));
            bench.raw(&Segment {
                source,
                destination,
                sequence,
                acknowledgement,
                flags: TcpFlags(flags),
                window: 0,
                payload: &payload[..len],
                payload_len,
            });
            prop_assert!(bench.table.memory() <= limits.flow_memory, "{}", bench.table.memory());
        }
        bench.finish();
        let opened = bench.world.calls.iter().filter(|(_, call)| matches!(call, Call::Open { .. })).count();
        let closed = bench.world.calls.iter().filter(|(_, call)| matches!(call, Call::Close(_))).count();
        prop_assert!(closed <= opened);
    }

    #[test]
    fn segments_of_a_block_that_is_lent_give_the_calls_of_segments_that_go_at_once(
        segments in prop::collection::vec(
            (0..3_u8, any::<bool>(), 0..3000_u32, 0..3000_u32, 0..40_u8, 0..700_usize, any::<bool>(), 0..12_u8),
            1..250,
        ),
        stretch in 1..60_usize,
        flow_memory in prop_oneof![Just(64 << 20), 10_000..60_000_usize],
    ) {
        let limits = Limits { flow_memory, ..Limits::default() };
        let (mut copying, mut lending) = (Bench::with(&limits), Bench::with(&limits));
        for stretch in segments.chunks(stretch) {
            let payload = |&(_, _, sequence, _, _, len, _, change): &(u8, bool, u32, u32, u8, usize, bool, u8)| {
                let mut payload: Vec<u8> = (sequence..).take(len).map(|n| (n % 251) as u8).collect();
                if let (0, Some(octet)) = (change, payload.get_mut(len / 2)) {
                    *octet ^= 1;
                }
                payload
            };
            let payloads: Vec<Vec<u8>> = stretch.iter().map(payload).collect();
            let block = payloads.concat();
            let mut start = 0;
            for (segment, payload) in stretch.iter().zip(&payloads) {
                let &(flow, forward, sequence, acknowledgement, flags, len, lies_in_block, _) = segment;
                let ends = (SocketAddr::from(([10, 0, 0, flow], 1000)), SocketAddr::from(([10, 0, 0, 2], 4369)));
                let (source, destination) = if forward { ends } else { (ends.1, ends.0) };
                let flags = TcpFlags(match flags { 0 => SYN, 1 => SYN | ACK, 2 => RST, 3 => FIN | ACK, _ => ACK });
                let payload = if lies_in_block { &block[start..start + len] } else { payload };
                start += len;
                let segment = Segment {
                    source, destination, sequence, acknowledgement, flags, window: 0, payload, payload_len: len as u32,
                };
                copying.raw(&segment);
                lending.raw_of(&segment, &block);
                prop_assert_eq!(copying.table.memory(), lending.table.memory());
            }
            lending.table.return_block(&block);
        }
        copying.finish();
        lending.finish();
        prop_assert_eq!(&copying.world.calls, &lending.world.calls);
        prop_assert_eq!(copying.table.stats(), lending.table.stats());
    }

    #[test]
    fn every_conversation_ends_once_and_hears_nothing_afterwards(
        steps in prop::collection::vec((any::<bool>(), 0..32_u8, 0..40_u32, 0..40_u32), 1..200),
    ) {
        let mut bench = Bench::new();
        for (forward, flags, sequence, acknowledgement) in steps {
            let side = if forward { Side::Initiator } else { Side::Acceptor };
            bench.send(side, flags, sequence, acknowledgement, &[0; 20][..sequence as usize % 20]);
        }
        let mut closed = std::collections::HashSet::new();
        for (id, call) in &bench.world.calls {
            prop_assert!(!closed.contains(id), "{:?} after the end", call);
            if matches!(call, Call::Close(_)) {
                closed.insert(*id);
            }
        }
    }
}
