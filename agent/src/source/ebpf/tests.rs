//! Single packets through the kernel's programs, of kinds that no test host sends by itself.

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};

use super::*;

/// A source that is attached to nothing, for it is handed packets one by one.
fn unattached() -> Option<EbpfSource> {
    unattached_with(64 << 10)
}

/// The same with a ring of this size.
fn unattached_with(ring: u32) -> Option<EbpfSource> {
    let interfaces = vec!["no-such-interface".into()];
    let ports = vec![(9100..=9155, Expected::Distribution)];
    match EbpfSource::open(&Options { interfaces, ports, ring, flows: 64, ..Options::default() }) {
        Ok(source) => Some(source),
        Err(error) if format!("{error:?}").contains("not permitted") => {
            eprintln!("*** SKIPPED: eBPF is not permitted here, so no packet was tried: {error:#}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn classifier<'a>(source: &'a mut EbpfSource, name: &str) -> &'a mut SchedClassifier {
    source.object.program_mut(name).unwrap().try_into().unwrap()
}

/// What became of a packet.
fn fate(source: &mut EbpfSource, program: &str, frame: &[u8]) -> &'static str {
    let before = source.columns();
    let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
    classifier(source, program).test_run(options).unwrap();
    let after = source.columns();
    let grown = |column: Column| after[column as usize] - before[column as usize];
    assert_eq!(grown(Column::Seen), 1);
    let columns = [
        (Column::Copied, "copied"),
        (Column::Uninteresting, "uninteresting"),
        (Column::Duplicate, "duplicate"),
        (Column::Counted, "counted"),
        (Column::Refused, "refused"),
        (Column::RingFull, "ring full"),
        (Column::Shed, "shed"),
        (Column::TurnedAway, "turned away"),
    ];
    let found: Vec<&str> = columns.iter().filter(|(column, _)| grown(*column) == 1).map(|(_, name)| *name).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    if grown(Column::Cut) == 1 { "cut" } else { found[0] }
}

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A frame of these parts.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    [&[&ETHERNET[..]], parts].concat().concat()
}

/// From port 40000 to port `to`.
fn tcp(to: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&to.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = 16;
    segment.extend_from_slice(payload);
    segment
}

/// From port `from` to port `to`, with this sequence number and these flags.
fn segment(from: u16, to: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = tcp(to, payload);
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[13] = flags;
    frame(&[IPV4, &ipv4(6, &[], 0, &segment)])
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, segment: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45 + (options.len() / 4) as u8;
    packet[2..4].copy_from_slice(&((20 + options.len() + segment.len()) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    [packet.as_slice(), options, segment].concat()
}

/// `headers` are extension headers, each with its number.
fn ipv6(headers: &[(u8, &[u8])], segment: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut next = headers.iter().map(|(number, _)| *number).chain([6]);
    let first = next.next().unwrap();
    for (_, header) in headers {
        rest.push(next.next().unwrap());
        rest.extend_from_slice(&header[1..]);
    }
    rest.extend_from_slice(segment);
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    packet[6] = first;
    packet[23] = 1;
    packet[39] = 2;
    [packet, rest].concat()
}

const IPV4: &[u8] = &[0x08, 0x00];
const IPV6: &[u8] = &[0x86, 0xDD];
const VLAN: &[u8] = &[0x81, 0x00, 0, 7];
const SERVICE_VLAN: &[u8] = &[0x88, 0xA8, 0, 9];
const OPTIONS: &[u8] = &[0; 8];

#[test]
fn headers_before_tcp_are_stepped_over() {
    let Some(mut source) = unattached() else { return };
    let long: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authentication: &[u8] = &[0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let segment = tcp(9100, b"hello");
    let watched = [
        frame(&[IPV4, &ipv4(6, &[], 0, &segment)]),
        frame(&[IPV4, &ipv4(6, OPTIONS, 0, &segment)]),
        frame(&[VLAN, IPV4, &ipv4(6, &[], 0, &segment)]),
        frame(&[SERVICE_VLAN, VLAN, IPV4, &ipv4(6, &[], 0, &segment)]),
        frame(&[IPV6, &ipv6(&[], &segment)]),
        frame(&[VLAN, IPV6, &ipv6(&[], &segment)]),
        frame(&[IPV6, &ipv6(&[(0, OPTIONS), (60, long), (43, OPTIONS), (44, OPTIONS)], &segment)]),
        frame(&[IPV6, &ipv6(&[(51, authentication)], &segment)]),
    ];
    for (number, frame) in watched.iter().enumerate() {
        assert_eq!(fate(&mut source, "dw_ether_in", frame), "copied", "frame {number}");
        let mut copied = Vec::new();
        let mut take = |packet: Captured<'_>| copied.push((packet.link_type, packet.data.to_vec()));
        source.poll(Duration::ZERO, 10, &mut take).unwrap();
        source.poll(Duration::from_millis(5), 10, &mut take).unwrap();
        assert_eq!(copied, [(LinkType::ETHERNET, frame.clone())], "frame {number}");
    }
    // The same, but for a port of which nobody knows.
    let segment = tcp(80, b"hello");
    for frame in [frame(&[IPV4, &ipv4(6, &[], 0, &segment)]), frame(&[VLAN, IPV6, &ipv6(&[(0, OPTIONS)], &segment)])] {
        assert_eq!(fate(&mut source, "dw_ether_in", &frame), "uninteresting");
    }
}

#[test]
fn on_an_interface_without_a_link_layer_the_ip_header_comes_first() {
    // The kernel takes the first 14 octets for a link layer in any case, and shows this kind of program what follows.
    let Some(mut source) = unattached() else { return };
    let packet = ipv4(6, &[], 0, &tcp(9100, b"hello"));
    assert_eq!(fate(&mut source, "dw_raw_in", &[packet.clone(), vec![0; 14]].concat()), "copied");
    assert_eq!(fate(&mut source, "dw_raw_in", &frame(&[IPV4, &packet])), "refused");
}

#[test]
fn what_is_not_tcp_is_uninteresting_and_what_is_cut_is_refused() {
    let Some(mut source) = unattached() else { return };
    let segment = tcp(9100, b"hello");
    let of = |source: &mut EbpfSource, frame: &[u8]| fate(source, "dw_ether_in", frame);
    let many: Vec<(u8, &[u8])> = vec![(60, OPTIONS); 7];
    for other in [
        frame(&[&[0x08, 0x06], &[0; 28]]),
        frame(&[IPV4, &ipv4(17, &[], 0, &segment)]),
        frame(&[IPV6, &ipv6(&[(59, OPTIONS)], &segment)]),
        frame(&[IPV6, &ipv6(&many, &segment)]),
        frame(&[VLAN, VLAN, VLAN, IPV4, &ipv4(6, &[], 0, &segment)]),
    ] {
        assert_eq!(of(&mut source, &other), "uninteresting", "{other:?}");
    }
    let mut longer = ipv4(6, &[], 0, &segment);
    longer[3] += 1;
    let mut headless = ipv4(6, &[], 0, &segment);
    headless[0] = 0x44;
    let mut short_tcp = segment.clone();
    short_tcp[12] = 4 << 4;
    let mut long_tcp = segment.clone();
    long_tcp[12] = 15 << 4;
    for broken in [
        frame(&[IPV4, &ipv4(6, &[], 0, &segment)[..30]]),
        frame(&[VLAN, IPV4, &ipv4(6, &[], 0, &segment)[..12]]),
        frame(&[IPV4, &longer]),
        frame(&[IPV4, &headless]),
        frame(&[IPV4, &ipv4(6, &[], 0, &short_tcp)]),
        frame(&[IPV4, &ipv4(6, &[], 0, &long_tcp)]),
        // A later fragment, by either version.
        frame(&[IPV4, &ipv4(6, &[], 100, &segment)]),
        frame(&[IPV6, &ipv6(&[(44, &[0, 0, 0, 8, 0, 0, 0, 1])], &segment)]),
        frame(&[IPV4, &[0x75; 40]]),
    ] {
        assert_eq!(of(&mut source, &broken), "refused", "{broken:?}");
    }
}

#[test]
fn padding_of_a_short_frame_is_no_payload() {
    let Some(mut source) = unattached() else { return };
    let hello = b"\x00\x12N\0\0\0\0\0\0\0\0\0\0\0\0\0\x03a@b";
    let frame_of = |segment: &[u8], padding: &[u8]| frame(&[IPV4, &ipv4(6, &[], 0, segment), padding]);
    assert_eq!(fate(&mut source, "dw_ether_in", &frame_of(&tcp(80, &[]), hello)), "uninteresting");
    assert_eq!(fate(&mut source, "dw_ether_in", &frame_of(&tcp(80, hello), &[])), "copied");
}

#[test]
fn every_damaged_packet_has_its_place_in_the_books() {
    let Some(mut source) = unattached() else { return };
    let whole = frame(&[VLAN, IPV6, &ipv6(&[(0, OPTIONS), (44, OPTIONS)], &tcp(9100, b"hello"))]);
    for length in 14..whole.len() {
        // `fate` asserts that there is exactly one.
        fate(&mut source, "dw_ether_in", &whole[..length]);
    }
    for at in 12..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fate(&mut source, "dw_ether_in", &damaged);
        }
    }
}

#[test]
fn a_configured_port_stays_watched_when_its_listener_is_gone() {
    let Some(mut source) = unattached() else { return };
    let segment = |port| frame(&[IPV4, &ipv4(6, &[], 0, &tcp(port, b"hello"))]);
    let any = |port| SocketAddr::new("0.0.0.0".parse().unwrap(), port);
    let at: SocketAddr = "10.0.0.2:9200".parse().unwrap();
    let elsewhere: SocketAddr = "10.0.0.9:9200".parse().unwrap();
    for (step, watched) in
        [(0, [true, false]), (1, [true, true]), (2, [true, false]), (3, [true, true]), (4, [false, true])]
    {
        match step {
            1 => {
                source.watch(any(9100), Expected::Distribution).unwrap();
                source.watch(at, Expected::Distribution).unwrap();
                source.watch(elsewhere, Expected::Distribution).unwrap();
            }
            2 => {
                source.unwatch(any(9100)).unwrap();
                source.unwatch(at).unwrap();
            }
            3 => source.watch(any(9200), Expected::Epmd).unwrap(),
            4 => source.watch_ports(&[]).unwrap(),
            _ => {}
        }
        for (port, is_watched) in [9100, 9200].into_iter().zip(watched) {
            let found = fate(&mut source, "dw_ether_in", &segment(port));
            assert_eq!(found == "copied", is_watched, "step {step}, port {port}: {found}");
            source.poll(Duration::ZERO, 10, &mut |_| {}).unwrap();
            let flow =
                FlowEnds { initiator: "10.0.0.1:40000".parse().unwrap(), acceptor: SocketAddr::new(at.ip(), port) };
            source.decide(flow, Verdict::Forget).unwrap();
        }
    }
}

#[test]
fn a_kernel_that_does_not_tell_its_types_runs_the_programs_nevertheless() {
    let options = Options { interfaces: Vec::new(), ring: 64 << 10, flows: 64, ..Options::default() };
    let Ok(root) = attach::root_of_cgroups() else { return };
    let cgroup = root.join(format!("distwatch-test-{}-types", std::process::id()));
    if unattached().is_none() || std::fs::create_dir(&cgroup).is_err() {
        eprintln!("*** SKIPPED: no cgroup can be made or no program loaded here");
        return;
    }
    let source =
        EbpfSource::open_with(&Options { cgroup: Some(cgroup.clone()), ..options }, NamespaceFields::default());
    std::fs::remove_dir(cgroup).unwrap();
    assert!(!source.unwrap().tells_namespaces());
}

#[test]
fn what_is_idle_for_too_long_leaves_the_table() {
    let Some(mut source) = unattached() else { return };
    let flow = |port| FlowEnds {
        initiator: "10.0.0.1:40000".parse().unwrap(),
        acceptor: SocketAddr::new("10.0.0.2".parse().unwrap(), port),
    };
    source.decide(flow(9100), Verdict::Count).unwrap();
    assert_eq!(fate(&mut source, "dw_ether_in", &frame(&[IPV4, &ipv4(6, &[], 0, &tcp(9100, b"hello"))])), "counted");
    let now = monotonic();
    let minutes = |minutes: u64| now + minutes * 60 * 1_000_000_000;
    let held = |source: &mut EbpfSource| {
        let mut seen = Vec::new();
        source.counts(&mut |ends, counts| seen.push((ends, counts.bytes)));
        seen
    };
    source.flows.sweep(minutes(5)).unwrap();
    assert_eq!(held(&mut source), [(flow(9100), [5, 0])]);
    source.flows.sweep(minutes(30)).unwrap();
    // Its last counts, and then nothing.
    assert_eq!(held(&mut source), [(flow(9100), [5, 0])]);
    assert_eq!(held(&mut source), []);
    // While the table is nearly full, patience is shorter.
    (0..60).for_each(|port| source.decide(flow(10_000 + port), Verdict::Count).unwrap());
    source.flows.sweep(minutes(35)).unwrap();
    assert_eq!(held(&mut source).len(), 60, "told once more");
    assert_eq!(held(&mut source), []);
}

#[test]
fn while_the_ring_fills_payload_goes_first_then_what_is_new_and_beginnings_never() {
    const ACK: u8 = 16;
    const PSH: u8 = 8 | ACK;
    const SYN: u8 = 2;
    const FIN: u8 = 1 | ACK;
    let Some(mut source) = unattached_with(256 << 10) else { return };
    source.watch_ports(&[(9100..=9155, Expected::Distribution), (4369..=4369, Expected::Epmd)]).unwrap();
    let of = |source: &mut EbpfSource, frame: &[u8]| fate(source, "dw_ether_in", frame);
    let payload = vec![7; 1000];
    let early = distwatch_ebpf::shed::EARLY;
    let late = |number: u32| segment(41_000, 9100, 1 + early + number * 1000, PSH, &payload);
    assert_eq!(of(&mut source, &segment(41_000, 9100, 1, PSH, &payload)), "copied", "the first of it");
    // Fills the ring as a daemon that reads nothing would have it.
    let mut fates: Vec<&str> = (0..500).map(|number| of(&mut source, &late(number))).collect();
    fates.dedup();
    assert_eq!(fates, ["copied", "cut", "shed"]);
    let is_copied = |source: &mut EbpfSource| {
        let hello = b"\x00\x12N\0\0\0\0\0\0\0\0\0\0\0\0\0\x03a@b";
        for (what, frame) in [
            ("a SYN", segment(42_000, 9100, 0, SYN, &[])),
            ("a handshake on a port that nobody knows", segment(42_001, 80, 1, PSH, hello)),
            ("a handshake of TLS", segment(42_002, 9100, 1, PSH, &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0])),
            ("what follows in it", segment(42_002, 9100, 11, PSH, &payload)),
            ("a question to EPMD", segment(42_003, 4369, 1, PSH, b"\x00\x01n")),
            ("the other direction's beginning", segment(9100, 42_002, 77, PSH, &payload)),
            ("an end", segment(41_000, 9100, 1 + early, FIN, &[])),
        ] {
            assert_eq!(of(source, &frame), "copied", "{what}");
        }
    };
    is_copied(&mut source);
    assert_eq!(of(&mut source, &segment(43_000, 9100, 900_000, PSH, &[1])), "copied", "new, and there is room");
    // Beginnings fill the rest: then nothing else that is new is let in, and they still are.
    let mut number = 0;
    let turned_away = loop {
        number += 1;
        let strange = of(&mut source, &segment(44_000 + number, 9100, 5, PSH, &[1]));
        if strange != "copied" {
            break strange;
        }
        assert_eq!(of(&mut source, &segment(45_000 + number, 9100, 0, SYN, &[])), "copied");
    };
    assert_eq!(turned_away, "turned away");
    is_copied(&mut source);
    let books = source.books();
    let lost: u64 = books.lost.iter().map(|lost| lost.packets).sum();
    assert!(books.cut_bytes > 0 && books.lost.iter().all(|lost| (lost.packets > 0) == (lost.bytes > 0)), "{books:?}");
    assert_eq!(books.lost[0].packets, 0, "the ring was never full: {books:?}");
    // Once it is read, everything is copied again, and all of it is accounted for.
    source.poll(Duration::ZERO, usize::MAX, &mut |_| {}).unwrap();
    source.poll(Duration::from_millis(50), usize::MAX, &mut |_| {}).unwrap();
    assert_eq!(of(&mut source, &late(900)), "copied");
    source.poll(Duration::from_millis(50), usize::MAX, &mut |_| {}).unwrap();
    let books = source.books();
    assert_eq!(books.seen, books.handed + books.uninteresting + books.counted + books.refused + lost, "{books:?}");
}
