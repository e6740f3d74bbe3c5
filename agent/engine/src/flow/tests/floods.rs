//! Floods: memory stays below the limit, a link among them keeps every octet, and the books balance.

use super::*;

/// A link that sends a tick now and then, in the midst of `flows` other connections that `attack` makes.
fn survive(limits: &Limits, flows: u32, value: Value, attack: impl Fn(&mut Bench, SocketAddr, SocketAddr)) -> Bench {
    let mut bench = Bench::with(limits);
    bench.world.link = Some(40_000);
    bench.world.value = value;
    bench.connect();
    let mut ticks = Vec::new();
    for n in 0..flows {
        let ip = [10, 1 + (n >> 16) as u8, (n >> 8) as u8, n as u8];
        attack(&mut bench, (ip, 50_000).into(), ([10, 0, 0, 2], 4369).into());
        assert!(bench.table.memory() <= limits.flow_memory);
        if n % 64 == 0 {
            let tick = (n / 64 % 251) as u8;
            bench.client(n / 64, &[tick]);
            ticks.push(tick);
        }
    }
    let link = bench.world.calls[0].0;
    let of_link: Vec<&Call> = bench.world.calls.iter().filter(|(id, _)| *id == link).map(|(_, call)| call).collect();
    assert_eq!(of_link.len(), ticks.len() + 1, "nothing but the opening and the ticks");
    for (call, tick) in of_link.into_iter().skip(1).zip(ticks) {
        assert_eq!(*call, data(&[tick]));
    }
    bench
}

fn segment<'a>(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    sequence: u32,
    payload: &'a [u8],
) -> Segment<'a> {
    Segment {
        source,
        destination,
        sequence,
        acknowledgement: 1,
        flags: TcpFlags(flags),
        window: 0,
        payload,
        payload_len: payload.len() as u32,
    }
}

fn small() -> Limits {
    Limits { flow_memory: 1 << 20, ..Limits::default() }
}

#[test]
fn a_flood_of_syns_is_held_to_its_share() {
    let bench = survive(&small(), 50_000, Value::Unknown, |bench, client, server| {
        bench.raw(&segment(client, server, SYN, 0, b""));
    });
    let evicted = bench.table.stats().limits.of(Limit::HalfOpenFlows);
    assert_eq!(evicted + bench.table.open_flows() as u64, 50_001);
    assert!(bench.table.memory() < small().flow_memory / 2);
}

#[test]
fn a_flood_of_half_handshakes_gives_up_the_oldest() {
    let bench = survive(&small(), 20_000, Value::Attempt, |bench, client, server| {
        bench.raw(&segment(client, server, SYN, 0, b""));
        bench.raw(&segment(server, client, SYN | ACK, 0, b""));
        bench.raw(&segment(client, server, ACK, 1, b"\0\x20N"));
    });
    let evicted = bench.table.stats().limits.of(Limit::FlowMemory);
    assert_eq!(evicted + bench.table.open_flows() as u64, 20_001);
}

#[test]
fn a_flood_of_holes_is_emptied_oldest_first() {
    for value in [Value::Unknown, Value::Attempt] {
        survive(&small(), 5000, value, |bench, client, server| {
            bench.raw(&segment(client, server, SYN, 0, b""));
            bench.raw(&segment(server, client, SYN | ACK, 0, b""));
            for n in 0..4 {
                bench.raw(&segment(client, server, ACK, 2 + n * 1400, &[b'x'; 1400]));
            }
        });
    }
}

#[test]
fn links_are_given_up_only_for_links() {
    let limits = Limits { flow_memory: 256 << 10, ..Limits::default() };
    let mut bench = Bench::with(&limits);
    bench.world.value = Value::Link;
    let server = ([10, 0, 0, 2], 4369).into();
    for n in 0..1000_u32 {
        let client = ([10, 2, (n >> 8) as u8, n as u8], 50_000).into();
        bench.raw(&segment(client, server, ACK, 1, b"x"));
    }
    let links = bench.table.open_flows();
    assert!((5..1000).contains(&links));
    bench.world.value = Value::Candidate;
    bench.world.calls.clear();
    for n in 0..1000_u32 {
        let client = ([10, 3, (n >> 8) as u8, n as u8], 50_000).into();
        bench.raw(&segment(client, server, ACK, 1, b"x"));
    }
    let evicted: Vec<FlowId> =
        bench.world.calls.iter().filter(|(_, call)| matches!(call, Call::Close(_))).map(|c| c.0).collect();
    let opened: Vec<FlowId> =
        bench.world.calls.iter().filter(|(_, call)| matches!(call, Call::Open { .. })).map(|c| c.0).collect();
    assert!(evicted.iter().all(|id| opened.contains(id)), "none of the links");
    assert!(bench.table.open_flows() >= links);
}

#[test]
fn links_forget_what_they_delivered_before_one_of_them_is_given_up() {
    let mut bench = Bench::with(&small());
    bench.world.value = Value::Link;
    let server = ([10, 0, 0, 2], 4369).into();
    // Each is worth keeping 16 KiB of, which is more than there is room for, and far less without.
    let links = 200_u32;
    for round in 0..30_u32 {
        for n in 0..links {
            let client = ([10, 2, 0, n as u8], 50_000).into();
            bench.raw(&segment(client, server, ACK, 1 + round * 1000, &[b'x'; 1000]));
            assert!(bench.table.memory() <= small().flow_memory);
        }
        bench.wait(Duration::from_secs(1));
    }
    let opened = bench.world.calls.iter().filter(|(_, call)| matches!(call, Call::Open { .. })).count();
    assert_eq!((opened, bench.table.open_flows()), (links as usize, links as usize), "nobody was given up");
    assert!(bench.table.stats().limits.of(Limit::FlowMemory) > 0, "and that memory was short is told");
}

#[test]
fn the_same_flood_gives_the_same_calls() {
    let run = || {
        let bench = survive(&small(), 3000, Value::Attempt, |bench, client, server| {
            bench.raw(&segment(client, server, ACK, 1, &[1; 100]));
            bench.raw(&segment(client, server, ACK, 500, &[1; 700]));
        });
        bench.world.calls
    };
    assert!(run() == run());
}

/// Not a test of behaviour: prints what a segment of one busy connection costs. Run it with
/// `cargo test --release -p distwatch-engine nanoseconds -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn nanoseconds_per_segment() {
    struct Nowhere;
    impl Ports for Nowhere {
        fn is_listener(&self, _: SocketAddr) -> bool {
            false
        }
    }
    struct Sum(u64);
    impl Conversation<Nowhere> for Sum {
        fn open(_: &Opening, _: &mut Nowhere) -> Self {
            Self(0)
        }
        fn handle_data(&mut self, _: &FlowFacts, _: &At, _: Side, data: &[u8], _: &mut Nowhere) {
            self.0 += data.len() as u64;
        }
        fn handle_gap(&mut self, _: &FlowFacts, _: &At, _: Side, _: Gap, _: &mut Nowhere) {}
        fn handle_tampering(&mut self, _: &FlowFacts, _: &At, _: Side, _: Tampering, _: u64, _: u64, _: &mut Nowhere) {}
        fn handle_close(&mut self, _: &FlowFacts, _: &At, _: CloseReason, _: &mut Nowhere) {}
        fn interest(&self) -> Interest {
            Interest::Everything
        }
        fn value(&self) -> Value {
            Value::Attempt
        }
        fn memory(&self) -> usize {
            0
        }
    }
    let measure = |what: &str, count: u32, each: &mut dyn FnMut(u32, &mut FlowTable<Sum>)| {
        let mut table = FlowTable::new(&Limits::default());
        // The best and the mean of many short spells: other work on the machine only ever adds.
        let spell = count / 100;
        let spells: Vec<f64> = (0..100)
            .map(|k| {
                let start = std::time::Instant::now();
                (k * spell..(k + 1) * spell).for_each(|n| each(n, &mut table));
                start.elapsed().as_nanos() as f64 / f64::from(spell)
            })
            .collect();
        let best = spells.iter().copied().fold(f64::INFINITY, f64::min);
        let mean = spells.iter().sum::<f64>() / 100.0;
        println!("{what}: {best:.1} ns at best, {mean:.1} ns on average, {} KiB", table.memory() >> 10);
    };
    let at = |n: u32| At { time: Timestamp::from_nanos(i64::from(n) * 1000), ..At::default() };
    let (client, server) = (([10, 0, 0, 1], 40_000).into(), ([10, 0, 0, 2], 4369).into());
    for len in [100, 350, 1448] {
        let payload = vec![7; len as usize];
        measure(&format!("in order, {len} octets"), 4_000_000, &mut |n, table| {
            let sequence = n.wrapping_mul(len);
            table.handle_segment(&at(n), &segment(client, server, ACK, sequence, &payload), &mut Nowhere);
        });
    }
    let payload = vec![7; 350];
    measure("in order, 350 octets and an acknowledgement in turn", 4_000_000, &mut |n, table| {
        let mut segment = match n % 2 {
            0 => segment(client, server, ACK, n / 2 * 350, &payload),
            _ => segment(server, client, ACK, 77, b""),
        };
        segment.acknowledgement = if n % 2 == 0 { 77 } else { (n / 2 + 1) * 350 };
        table.handle_segment(&at(n), &segment, &mut Nowhere);
    });
    measure("in order, 350 octets, 64 connections in turn", 4_000_000, &mut |n, table| {
        let client = ([10, 0, 1, (n % 64) as u8], 40_000).into();
        table.handle_segment(&at(n), &segment(client, server, ACK, n / 64 * 350, &payload), &mut Nowhere);
    });
    let address = |n: u32| SocketAddr::from(([10, 1 + (n >> 16) as u8, (n >> 8) as u8, n as u8], 50_000));
    measure("SYN flood, each", 1_000_000, &mut |n, table| {
        table.handle_segment(&at(n), &segment(address(n), server, SYN, 0, b""), &mut Nowhere);
    });
    measure("half handshakes, each of three", 750_000, &mut |n, table| {
        let client = address(n / 3);
        let segment = match n % 3 {
            0 => segment(client, server, SYN, 0, b""),
            1 => segment(server, client, SYN | ACK, 0, b""),
            _ => segment(client, server, ACK, 1, b"\0\x20N"),
        };
        table.handle_segment(&at(n), &segment, &mut Nowhere);
    });
    let payload = vec![7; 1400];
    measure("holes, each of six", 600_000, &mut |n, table| {
        let client = address(n / 6);
        let segment = match n % 6 {
            0 => segment(client, server, SYN, 0, b""),
            1 => segment(server, client, SYN | ACK, 0, b""),
            k => segment(client, server, ACK, 2 + (k - 2) * 1400, &payload),
        };
        table.handle_segment(&at(n), &segment, &mut Nowhere);
    });
}

#[test]
fn a_link_whose_holes_fill_the_memory_gives_up_the_holes_and_stays() {
    let limits = Limits { flow_memory: 256 << 10, ..Limits::default() };
    let mut bench = Bench::with(&limits);
    bench.world.value = Value::Link;
    bench.connect();
    let mut offset = 0;
    for _ in 0..100 {
        bench.client(offset, b"in order");
        offset += 8;
    }
    let segments = 2000;
    for n in 0..segments {
        // An octet is missing before the first, and before every 300th.
        bench.client(offset + 1 + n / 300 + n * 1000, &[7; 1000]);
        assert!(bench.table.memory() <= limits.flow_memory);
    }
    assert!(bench.table.stats().limits.of(Limit::FlowMemory) > 0);
    assert!(!bench.calls().iter().any(|call| matches!(call, Call::Close(_))));
    assert_eq!(bench.table.open_flows(), 1);
    bench.finish();
    assert_eq!(bench.bytes(Side::Initiator).len(), 800 + segments as usize * 1000);
}
