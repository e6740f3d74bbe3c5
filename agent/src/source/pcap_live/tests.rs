//! Real TCP over veth pairs and loopback, in network namespaces.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use distwatch_engine::packet::Packet;

use super::*;
use crate::testing::{Namespace, has_namespaces};

/// Long enough for a block of the buffer to be handed over.
const QUIET: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(20);

const NAME: &[u8] = b"\x00\x1eN\x00\x00\x00\x0d\x07\xdf\x7f\xbd\x6b\x03\xb5\xc5\x00\x0fref_a@127.0.0.1";

fn options(interfaces: &[&str]) -> Options {
    Options { interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(), ..Options::default() }
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// What was seen of the connections to a port.
#[derive(Default)]
struct Seen {
    packets: u64,
    /// Payload by direction and sequence number; the longest copy of each.
    payload: BTreeMap<(SocketAddr, SocketAddr, u32), Vec<u8>>,
    interfaces: BTreeMap<u32, u64>,
    links: BTreeMap<u16, u64>,
    last: u64,
}

impl Seen {
    fn take(&mut self, net: &mut Net, captured: Captured<'_>) {
        assert!(captured.monotonic >= self.last, "time goes on");
        self.last = captured.monotonic;
        assert_eq!(captured.data.len(), captured.original_len as usize, "packets are whole");
        self.packets += 1;
        *self.interfaces.entry(captured.interface).or_default() += 1;
        *self.links.entry(captured.link_type.0).or_default() += 1;
        let packet = Packet {
            reference: PacketRef::default(),
            time: Timestamp::EPOCH,
            link_type: captured.link_type,
            interface: InterfaceId(0),
            data: captured.data,
            original_len: captured.original_len,
        };
        if let Decoded::Tcp(segment) = net.decode(&packet) {
            let key = (segment.source, segment.destination, segment.sequence);
            let kept = self.payload.entry(key).or_default();
            if kept.len() < segment.payload.len() {
                *kept = segment.payload.to_vec();
            }
        }
    }

    /// The octets sent to a port, without gaps or repetitions; panics where some are missing.
    fn stream_to(&self, port: u16) -> Vec<u8> {
        let mut stream: Vec<u8> = Vec::new();
        let mut next = None;
        for ((_, to, sequence), payload) in &self.payload {
            if to.port() != port || payload.is_empty() {
                continue;
            }
            let next = next.get_or_insert(*sequence);
            let known = next.wrapping_sub(*sequence) as usize;
            assert!(known <= 1 << 30, "octets are missing before {sequence}");
            let new = payload.get(known.min(payload.len())..).unwrap_or_default();
            stream.extend(new);
            *next = next.wrapping_add(new.len() as u32);
        }
        stream
    }
}

/// Reads until nothing more comes.
fn drain(source: &mut PcapLive, net: &mut Net, seen: &mut Seen) {
    let deadline = Instant::now() + DEADLINE;
    let mut quiet = 0;
    while quiet < 3 {
        assert!(Instant::now() < deadline, "traffic never ends");
        let taken = source.poll(QUIET, 1000, &mut |captured| seen.take(net, captured)).unwrap();
        quiet = if taken == 0 { quiet + 1 } else { 0 };
    }
}

/// Handed over and lost are all that was seen.
fn assert_balanced(source: &mut PcapLive, seen: &Seen) -> Books {
    let books = source.books();
    let lost: u64 = books.lost.iter().map(|lost| lost.packets).sum();
    assert_eq!(books.seen, books.handed + books.uninteresting + books.counted + books.refused + lost, "{books:?}");
    assert_eq!(books.handed, seen.packets);
    books
}

/// Sends octets to a listener and waits until it has read them all.
fn send(to: SocketAddr, chunks: &[&[u8]]) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    for chunk in chunks {
        stream.write_all(chunk).unwrap();
        // The answer is one octet, so that each chunk is a packet of its own.
        stream.read_exact(&mut [0]).unwrap();
    }
}

/// Answers every piece that it reads with one octet, until the connection ends.
fn listen(namespace: &Namespace, at: SocketAddr) -> SocketAddr {
    let listener = namespace.run(|| TcpListener::bind(at).unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) && stream.write_all(b"!").is_ok() {}
        }
    });
    address
}

#[test]
fn watched_ports_are_seen_whole_on_ipv4_and_ipv6_and_the_books_balance() {
    if !has_namespaces("live capture by libpcap") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.join(&b, "eth0", 1);
    let four = listen(&b, "10.9.1.2:9100".parse().unwrap());
    let six = listen(&b, "[fd09:1::2]:9101".parse().unwrap());
    let other = listen(&b, "10.9.1.2:9200".parse().unwrap());
    b.run(|| {
        let mut source = PcapLive::open(options(&["eth*"])).unwrap();
        source.watch(everywhere(9100), Expected::Distribution).unwrap();
        source.watch(six, Expected::Distribution).unwrap();
        let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
        drain(&mut source, &mut net, &mut seen);
        let before = seen.packets;
        a.run(|| {
            let big = vec![7; 300_000];
            send(other, &[b"not watched"]);
            send(four, &[b"hello", b"world"]);
            send(six, &[b"HELLO"]);
            let mut stream = TcpStream::connect(four).unwrap();
            stream.write_all(&big).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // A connection that is closed with answers unread is reset, and the rest of it never sent.
            stream.read_to_end(&mut Vec::new()).unwrap();
        });
        drain(&mut source, &mut net, &mut seen);
        assert!(seen.packets > before);
        let first: Vec<_> = seen.payload.values().filter(|payload| !payload.is_empty()).collect();
        assert!(first.iter().any(|payload| payload.as_slice() == b"hello"));
        assert!(first.iter().all(|payload| payload.as_slice() != b"not watched"));
        assert_eq!(seen.stream_to(9101), b"HELLO");
        let books = assert_balanced(&mut source, &seen);
        assert!(books.handed_bytes > 300_000 && books.seen_bytes == books.handed_bytes, "{books:?}");
        let (&index, _) = seen.interfaces.first_key_value().unwrap();
        assert_eq!(source.interface_name(index), "eth0");
        assert_eq!(seen.links.keys().collect::<Vec<_>>(), [&LinkType::ETHERNET.0]);
        assert_eq!(source.attachments().len(), 1, "{:?}", source.attachments());
    });
}

#[test]
fn a_handshake_on_an_unknown_port_makes_the_whole_connection_watched() {
    if !has_namespaces("recognition by the signature") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.join(&b, "eth0", 2);
    for at in ["10.9.2.2:31000", "[fd09:2::2]:31001"] {
        let to = listen(&b, at.parse().unwrap());
        b.run(|| {
            let mut source = PcapLive::open(options(&["eth0"])).unwrap();
            let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
            a.run(|| {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.write_all(NAME).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                let deadline = Instant::now() + DEADLINE;
                b.run(|| {
                    while source.exchanges() == 0 {
                        assert!(Instant::now() < deadline, "the handshake is not recognised");
                        source.poll(QUIET, 1000, &mut |captured| seen.take(&mut net, captured)).unwrap();
                    }
                });
                stream.write_all(b"after the handshake").unwrap();
                stream.read_exact(&mut [0]).unwrap();
            });
            drain(&mut source, &mut net, &mut seen);
            assert_eq!(seen.stream_to(to.port()), [NAME, b"after the handshake"].concat());
            assert_balanced(&mut source, &seen);
            // What turns out to be no distribution is left alone again, but for how its connections begin.
            let flow = FlowEnds { initiator: to, acceptor: to };
            source.decide(flow, Verdict::Ignore).unwrap();
            drain(&mut source, &mut net, &mut seen);
            let before = seen.packets;
            a.run(|| send(to, &[b"nothing"]));
            drain(&mut source, &mut net, &mut seen);
            assert_eq!(seen.packets, before + 2, "SYN and SYN-ACK alone");
            assert_balanced(&mut source, &seen);
        });
    }
}

#[test]
fn any_tells_the_interface_of_each_packet_and_loopback_is_seen_once() {
    if !has_namespaces("capture from all interfaces") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.join(&b, "eth0", 3);
    let to = listen(&b, "0.0.0.0:9100".parse().unwrap());
    for name in ["any", "lo"] {
        b.run(|| {
            let mut source = PcapLive::open(options(&[name])).unwrap();
            source.watch(everywhere(9100), Expected::Distribution).unwrap();
            let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
            drain(&mut source, &mut net, &mut seen);
            send(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), to.port()), &[b"by loopback"]);
            drain(&mut source, &mut net, &mut seen);
            let loopback = seen.packets;
            // SYN, SYN+ACK, ACK, data, answer and the end: each once. Twice would be 18 and more.
            assert!((8..=13).contains(&loopback), "{loopback}");
            assert_balanced(&mut source, &seen);
            if name == "any" {
                a.run(|| send(SocketAddr::new(IpAddr::from([10, 9, 3, 2]), to.port()), &[b"by veth"]));
                drain(&mut source, &mut net, &mut seen);
                assert_balanced(&mut source, &seen);
                let names: Vec<String> = seen.interfaces.keys().map(|&index| source.interface_name(index)).collect();
                assert_eq!(names, ["lo", "eth0"]);
                assert_eq!(seen.links.keys().collect::<Vec<_>>(), [&LinkType::LINUX_SLL2.0]);
            }
        });
    }
}

#[test]
fn exchanging_the_filter_under_load_loses_nothing() {
    if !has_namespaces("exchange of the filter under load") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.join(&b, "eth0", 4);
    let to = listen(&b, "10.9.4.2:9100".parse().unwrap());
    let enough = AtomicBool::new(false);
    b.run(|| {
        let mut source = PcapLive::open(options(&["eth0"])).unwrap();
        source.watch(to, Expected::Distribution).unwrap();
        let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
        drain(&mut source, &mut net, &mut seen);
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                a.run(|| {
                    let mut stream = TcpStream::connect(to).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut reader = stream.try_clone().unwrap();
                    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                    let mut sent = Vec::new();
                    while !enough.load(Ordering::Relaxed) {
                        let chunk = [sent.len().to_be_bytes(); 60].concat();
                        stream.write_all(&chunk).unwrap();
                        sent.extend(chunk);
                    }
                    sent
                })
            });
            for port in (20_000..20_080).step_by(2) {
                source.watch(everywhere(port), Expected::Distribution).unwrap();
                if port > 20_020 {
                    source.unwatch(everywhere(port - 20)).unwrap();
                }
                source.exchange();
                source.poll(Duration::from_millis(1), 10_000, &mut |captured| seen.take(&mut net, captured)).unwrap();
            }
            enough.store(true, Ordering::Relaxed);
            // What is still on the way would fill the buffer if nobody read.
            while !sender.is_finished() {
                source.poll(Duration::from_millis(1), 10_000, &mut |captured| seen.take(&mut net, captured)).unwrap();
            }
            sender.join().unwrap()
        });
        drain(&mut source, &mut net, &mut seen);
        assert!(source.exchanges() >= 40 && sent.len() > 100_000, "{} {}", source.exchanges(), sent.len());
        assert!(seen.stream_to(9100) == sent, "every octet was seen");
        let books = assert_balanced(&mut source, &seen);
        assert!(books.lost.iter().all(|lost| lost.packets == 0), "{books:?}");
    });
}

#[test]
fn what_a_small_buffer_has_no_room_for_is_counted() {
    if !has_namespaces("loss in a small buffer") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.join(&b, "eth0", 5);
    let to = listen(&b, "10.9.5.2:9100".parse().unwrap());
    b.run(|| {
        let mut source = PcapLive::open(Options { buffer_size: 256 << 10, ..options(&["eth0"]) }).unwrap();
        source.watch(to, Expected::Distribution).unwrap();
        let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
        drain(&mut source, &mut net, &mut seen);
        let chunk = [9; 1000];
        a.run(|| send(to, &[&chunk[..]; 3000]));
        drain(&mut source, &mut net, &mut seen);
        let books = assert_balanced(&mut source, &seen);
        assert!(books.lost.iter().any(|lost| lost.stage == "kernel" && lost.packets > 1000), "{books:?}");
        assert!(books.seen >= 6000, "a packet each way for every chunk: {books:?}");
    });
}

#[test]
fn interfaces_come_go_and_flap_without_an_end_of_the_source() {
    if !has_namespaces("interfaces that come and go") {
        return;
    }
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    b.run(|| {
        let mut source = PcapLive::open(options(&["vt*"])).unwrap();
        source.watch(everywhere(9100), Expected::Distribution).unwrap();
        assert_eq!(source.attachments(), ["waiting for vt*: there is no such interface"]);
        let (mut net, mut seen) = (Net::new(&Limits::default()), Seen::default());
        drain(&mut source, &mut net, &mut seen);
        for round in 0..3_u8 {
            let name = format!("vt{round}");
            a.join(&b, &name, 10 + round);
            source.refresh().unwrap();
            assert!(source.attachments()[0].starts_with(&format!("libpcap on {name}")), "{:?}", source.attachments());
            let to = listen(&b, SocketAddr::from(([10, 9, 10 + round, 2], 9100)));
            a.run(|| send(to, &[b"before"]));
            drain(&mut source, &mut net, &mut seen);
            // Down and up again is the same interface.
            b.ip(&["link", "set", &name, "down"]);
            source.refresh().unwrap();
            drain(&mut source, &mut net, &mut seen);
            b.ip(&["link", "set", &name, "up"]);
            source.refresh().unwrap();
            let before = seen.packets;
            a.run(|| send(to, &[b"after"]));
            drain(&mut source, &mut net, &mut seen);
            assert!(seen.packets > before, "round {round}: it is read again");
            // The last packets of an interface that goes are read or counted.
            a.run(|| send(to, &[b"last"]));
            b.ip(&["link", "del", &name]);
            source.refresh().unwrap();
            let deadline = Instant::now() + DEADLINE;
            while source.attachments().iter().any(|line| line.starts_with("libpcap on")) {
                assert!(Instant::now() < deadline, "{:?}", source.attachments());
                drain(&mut source, &mut net, &mut seen);
            }
            assert_balanced(&mut source, &seen);
        }
        let names: Vec<String> = seen.interfaces.keys().map(|&index| source.interface_name(index)).collect();
        assert_eq!(names, ["vt0", "vt1", "vt2"], "names outlive their interfaces");
    });
}

#[test]
fn without_the_capability_it_says_which_one_is_missing() {
    if !has_namespaces("opening without CAP_NET_RAW") {
        return;
    }
    let a = Namespace::new("a");
    let error = a.run(|| {
        // The capabilities of a thread are its own.
        let sets = rustix::thread::capabilities(None).unwrap();
        let without = rustix::thread::CapabilitySets {
            effective: sets.effective - rustix::thread::CapabilitySet::NET_RAW,
            ..sets
        };
        rustix::thread::set_capabilities(None, without).unwrap();
        PcapLive::open(options(&["any"])).err().expect("it may not")
    });
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
}

#[test]
fn a_pattern_that_is_none_is_an_error() {
    for interfaces in [&["eth["][..], &[]] {
        let error = PcapLive::open(options(interfaces)).err().expect("it cannot be opened");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn interfaces_that_are_there_keep_their_names_however_many_came_and_went() {
    let there = BTreeMap::from([("lo".to_owned(), 1), ("eth0".to_owned(), 2)]);
    let mut names = BTreeMap::new();
    for index in 3..4 * MOST_NAMES as u32 {
        names.insert(index, format!("veth{index}"));
        remember(&mut names, &there);
        assert!(names.len() <= MOST_NAMES + there.len());
        assert_eq!((names[&1].as_str(), names[&2].as_str()), ("lo", "eth0"));
    }
}
