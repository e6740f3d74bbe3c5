//! The eBPF back end against real traffic: what a process in a cgroup of the test's own sends is handed over, counted or left
//! aside as was asked for, and the books say so exactly.

mod host;
mod interfaces;
mod peer;
mod sockets;

use std::time::{Duration, Instant};

use distwatch::source::ebpf::Options;
use distwatch::source::live::{FlowEnds, LiveSource, Verdict};
use distwatch_engine::event::Expected;

use host::{Cgroup, FIN, Namespaces, RST, SYN, Watch};
use peer::{Peer, pattern};

/// A cgroup with a watch on it and a process in it.
fn scene(name: &str, with: impl FnOnce(Options) -> Options) -> Option<(Cgroup, Watch, Peer)> {
    let cgroup = Cgroup::new(name)?;
    let watch = Watch::open(&with(cgroup.options()))?;
    let peer = Peer::in_cgroup(cgroup.path());
    Some((cgroup, watch, peer))
}

fn patterned(octets: usize) -> Vec<u8> {
    (0..octets).map(pattern).collect()
}

#[test]
fn what_really_attaches_is_said() {
    let Some(cgroup) = Cgroup::new("attached") else { return };
    let Some(watch) = Watch::open(&cgroup.options()) else { return };
    let lines = watch.source.attachments();
    let path = format!(" at {}", cgroup.path().display());
    assert!(lines.len() == 1 && lines[0].starts_with("cgroup_skb at ") && lines[0].contains(&path), "{lines:?}");
    // `cargo xtask kernels` reads these lines.
    println!("attached to sockets: {}", lines[0].replace(&path, ""));
    println!("namespaces: {}", if watch.source.tells_namespaces() { "told apart" } else { "not told apart" });
    let on_loopback = Options { cgroup: None, interfaces: vec!["lo".into()], ..cgroup.options() };
    let lines = Watch::open(&on_loopback).unwrap().source.attachments();
    let how = lines[0].strip_suffix(" on lo").unwrap();
    assert!(lines.len() == 1 && ["TCX", "clsact"].contains(&how), "{lines:?}");
    println!("attached to interfaces: {how}");
}

fn a_whole_connection_is_handed_over_once(ip: &str, name: &str) {
    let Some((_cgroup, mut watch, mut peer)) = scene(name, |options| options) else { return };
    let server = peer.listen(ip);
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    peer.send(5000);
    peer.order("write server 70");
    peer.order("read client 70");
    peer.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    assert_eq!(watch.payload(client), patterned(5000));
    assert_eq!(watch.payload(server), patterned(70));
    assert_eq!((watch.with(SYN), watch.with(FIN)), (2, 2));
    let books = watch.balance();
    // Both ends are in the cgroup, so every packet came by twice; but the last ones may find no socket any more.
    assert!((books.handed - 2..=books.handed).contains(&books.uninteresting), "{books:?}");
    assert_eq!(watch.interfaces().len(), 1);
    assert_eq!(watch.interfaces().first().unwrap().1, "lo");
}

#[test]
fn a_connection_with_both_ends_on_the_host_is_handed_over_once() {
    a_whole_connection_is_handed_over_once("127.0.0.1", "once4");
}

#[test]
fn a_connection_over_ipv6_is_handed_over_once() {
    a_whole_connection_is_handed_over_once("::1", "once6");
}

#[test]
fn a_watched_port_is_watched_on_all_addresses_until_it_is_not() {
    let Some((_cgroup, mut watch, mut peer)) = scene("ports", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    let any = std::net::SocketAddr::new("0.0.0.0".parse().unwrap(), server.port());
    watch.source.watch(any, Expected::Epmd).unwrap();
    peer.connect(server);
    peer.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    watch.source.unwatch(any).unwrap();
    let before = watch.seen.len();
    peer.connect(server);
    peer.send(10);
    peer.order("close");
    watch.balance();
    assert_eq!(watch.seen.len(), before);
    watch.source.watch_ports(&[(server.port()..=server.port(), Expected::Distribution)]).unwrap();
    peer.connect(server);
    watch.until("a handshake", |watch| watch.seen.len() > before);
}

#[test]
fn what_nobody_asked_for_is_not_handed_over() {
    let Some((_cgroup, mut watch, mut peer)) = scene("nobody", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    peer.connect(server);
    peer.send(100_000);
    peer.order("close");
    let books = watch.balance();
    assert_eq!((books.handed, books.counted, books.refused), (0, 0, 0));
    assert!(books.seen >= 10 && books.uninteresting == books.seen, "{books:?}");
}

#[test]
fn the_signature_of_a_handshake_is_found_on_any_port() {
    // `send_name` of version 6 (flags, creation, name `a@b`) and of version 5 (version, flags, name).
    let version_6 = "00124e000000000000000000000000000361406200";
    let version_5 = "000a6e000500000000614062";
    for (name, hello) in [("sig6", &version_6[..40]), ("sig5", version_5)] {
        let Some((_cgroup, mut watch, mut peer)) = scene(name, |options| options) else { return };
        let server = peer.listen("127.0.0.1");
        let client = peer.connect(server);
        peer.order(&format!("say client {hello}"));
        peer.order(&format!("read server {}", hello.len() / 2));
        peer.order("write server 5");
        peer.order("read client 5");
        peer.order("close");
        watch.until("the end", |watch| watch.with(FIN) >= 2);
        assert_eq!(watch.payload(client).len(), hello.len() / 2, "{name}");
        assert_eq!(watch.payload(server), patterned(5), "{name}");
        watch.balance();
    }
}

#[test]
fn what_only_resembles_a_handshake_is_not_taken_for_one() {
    let Some((_cgroup, mut watch, mut peer)) = scene("nosig", |options| options) else { return };
    // The name is longer than the message; another version; too short.
    for hello in ["00124e000000000000000000000000000461406200", "000a6e000600000000614062", "00124e00"] {
        let server = peer.listen("127.0.0.1");
        peer.connect(server);
        peer.order(&format!("say client {hello}"));
        peer.order("close");
    }
    assert_eq!(watch.balance().handed, 0);
}

#[test]
fn a_counted_connection_is_counted_exactly_and_only_its_ends_are_copied() {
    let Some((_cgroup, mut watch, mut peer)) = scene("count", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    peer.send(10);
    watch.until("the first payload", |watch| watch.seen.iter().any(|seen| seen.payload.len() == 10));
    let flow = FlowEnds { initiator: client, acceptor: server };
    watch.source.decide(flow, Verdict::Count).unwrap();
    watch.seen.clear();
    let before = watch.source.books();
    for _ in 0..20 {
        peer.send(1000);
    }
    peer.order("write server 333");
    peer.order("read client 333");
    watch.drain();
    assert!(watch.seen.is_empty(), "{:?}", watch.seen);
    let counts = watch.counts(flow).unwrap();
    assert_eq!(counts.bytes, [20_000, 333]);
    assert_eq!(counts.packets.iter().sum::<u64>(), watch.source.books().counted - before.counted);
    assert!(counts.last > 0);
    peer.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    assert!(watch.seen.iter().all(|seen| seen.flags & (SYN | FIN | RST) != 0));
    // It has ended, so it leaves the table; its last counts are told before, or with that.
    let mut last = None;
    watch.until("its leaving", |watch| match watch.counts(flow) {
        Some(counts) => {
            last = Some(counts.bytes);
            false
        }
        None => true,
    });
    assert_eq!(last, Some([20_000, 333]));
}

#[test]
fn headers_are_cut_where_it_was_asked_for() {
    let Some((_cgroup, mut watch, mut peer)) = scene("headers", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    let flow = FlowEnds { initiator: client, acceptor: server };
    watch.source.decide(flow, Verdict::Headers(80)).unwrap();
    watch.drain();
    watch.seen.clear();
    peer.send(4000);
    watch.until("the payload", |watch| watch.seen.iter().any(|seen| seen.original > 4000));
    assert!(watch.seen.iter().all(|seen| seen.captured <= 80));
}

#[test]
fn a_connection_that_is_ignored_is_not_handed_over_but_its_successor_is() {
    let Some((_cgroup, mut watch, mut peer)) = scene("ignore", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    peer.send(10);
    watch.until("the first payload", |watch| watch.seen.iter().any(|seen| seen.payload.len() == 10));
    let flow = FlowEnds { initiator: client, acceptor: server };
    watch.source.decide(flow, Verdict::Ignore).unwrap();
    watch.seen.clear();
    peer.send(1000);
    peer.order("reset");
    watch.balance_after_clear();
    assert!(watch.seen.is_empty(), "{:?}", watch.seen);
    // The same two ports again: nothing that was decided of the old connection holds for the new one.
    peer.order(&format!("connect {server} {}", client.port()));
    peer.order("accept");
    peer.send(2000);
    watch.until("the new payload", |watch| watch.seen.iter().any(|seen| seen.payload.len() == 2000));
    assert_eq!(watch.payload(client), patterned(2000));
    assert_eq!(watch.with(SYN), 2);
}

#[test]
fn a_packet_of_segmentation_offload_is_copied_whole() {
    let Some((_cgroup, mut watch, mut peer)) = scene("gso", |options| Options { ring: 8 << 20, ..options }) else {
        return;
    };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    for _ in 0..8 {
        peer.send(250_000);
    }
    peer.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    let longest = watch.seen.iter().map(|seen| seen.captured).max().unwrap();
    assert!(longest > 60_000, "the longest packet was {longest}");
    assert!(watch.seen.iter().all(|seen| seen.captured == seen.original as usize));
    assert_eq!(watch.payload(client), patterned(2_000_000));
    watch.balance();
}

#[test]
fn what_a_ring_that_is_too_small_loses_is_counted_exactly() {
    let Some((_cgroup, mut watch, mut peer)) = scene("ring", |options| Options { ring: 16 << 10, ..options }) else {
        return;
    };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    peer.connect(server);
    for _ in 0..50 {
        peer.send(3000);
    }
    peer.order("close");
    let books = watch.balance();
    let lost: u64 = books.lost.iter().map(|lost| lost.packets).sum();
    assert!(lost > 20, "{books:?}");
    let first = books.handed + lost;
    assert!((first - 2..=first).contains(&books.uninteresting), "each was seen twice: {books:?}");
}

#[test]
fn a_crowd_of_connections_does_not_drive_out_a_verdict() {
    let Some((cgroup, mut watch, mut peer)) = scene("crowd", |options| Options { flows: 32, ..options }) else {
        return;
    };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = peer.connect(server);
    peer.send(10);
    let flow = FlowEnds { initiator: client, acceptor: server };
    watch.source.decide(flow, Verdict::Count).unwrap();
    let mut other = Peer::in_cgroup(cgroup.path());
    let crowded = other.listen("127.0.0.1");
    watch.source.watch(crowded, Expected::Distribution).unwrap();
    other.order(&format!("crowd {crowded} 500 "));
    assert_eq!(watch.source.losses().flows, 0, "a handshake alone needs no entry");
    other.order("disperse");
    other.order(&format!("crowd {crowded} 100 payload"));
    assert!(watch.source.losses().flows > 0, "the table is full");
    watch.drain();
    watch.seen.clear();
    let before = watch.counts(flow).unwrap();
    peer.send(777);
    watch.drain();
    assert_eq!(watch.counts(flow).unwrap().bytes[0] - before.bytes[0], 777);
    assert!(watch.seen.iter().all(|seen| seen.from != client && seen.to != client));
    watch.balance_after_clear();
}

#[test]
fn after_a_long_silence_the_first_packet_wakes_the_reader() {
    let Some((_cgroup, mut watch, mut peer)) = scene("wake", |options| options) else { return };
    let server = peer.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    for _ in 0..5 {
        // Until it no longer looks by itself.
        watch.drain();
        assert_eq!(watch.source.poll(Duration::from_millis(100), 100, &mut |_| {}).unwrap(), 0);
        // It waits in another thread, for so long that only being woken can end it.
        let handed = std::thread::scope(|scope| {
            let source = &mut watch.source;
            let waiting = scope.spawn(|| {
                let start = Instant::now();
                let handed = source.poll(2 * host::PATIENCE, 1, &mut |_| {}).unwrap();
                (handed, start.elapsed())
            });
            peer.connect(server);
            waiting.join().unwrap()
        });
        assert!(handed.0 == 1 && handed.1 < host::PATIENCE, "{handed:?}");
        peer.order("close");
    }
}

#[test]
fn connections_between_namespaces_are_handed_over_once_with_their_interfaces_own_names() {
    let Some(cgroup) = Cgroup::new("netns") else { return };
    let Some(mut watch) = Watch::open(&cgroup.options()) else { return };
    let namespaces = Namespaces::new("a");
    let mut left = Peer::in_namespace(cgroup.path(), &namespaces.left);
    let mut right = Peer::in_namespace(cgroup.path(), &namespaces.right);
    let server = right.listen("10.99.0.2");
    watch.source.watch(server, Expected::Distribution).unwrap();
    let client = left.order(&format!("connect {server} 0")).parse().unwrap();
    right.order("accept");
    left.order("write client 9000");
    right.order("read server 9000");
    right.order("write server 50");
    left.order("read client 50");
    left.order("close");
    right.order("close");
    watch.until("the end", |watch| watch.with(FIN) >= 2);
    assert_eq!(watch.payload(client), patterned(9000));
    assert_eq!(watch.payload(server), patterned(50));
    assert_eq!(watch.with(SYN), 2);
    if watch.source.tells_namespaces() {
        let names: Vec<String> = watch.interfaces().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["left0", "right0"]);
    }
    watch.balance();
}

#[test]
fn the_loopback_of_two_namespaces_is_two_interfaces() {
    let Some(cgroup) = Cgroup::new("loopbacks") else { return };
    let Some(mut watch) = Watch::open(&cgroup.options()) else { return };
    if !watch.source.tells_namespaces() {
        eprintln!("*** SKIPPED: this kernel does not tell network namespaces apart");
        return;
    }
    let namespaces = Namespaces::new("b");
    let mut peers = [&namespaces.left, &namespaces.right].map(|name| Peer::in_namespace(cgroup.path(), name));
    let [left, right] = &mut peers;
    let server = left.listen("127.0.0.1");
    watch.source.watch(server, Expected::Epmd).unwrap();
    let client = left.connect(server);
    left.send(10);
    // Exactly the same addresses and ports, elsewhere.
    right.order(&format!("listen-at {server}"));
    right.order(&format!("connect {server} {}", client.port()));
    right.order("accept");
    right.send(20);
    watch.until("both payloads", |watch| {
        [10, 20].iter().all(|&octets| watch.seen.iter().any(|seen| seen.payload.len() == octets))
    });
    let interface_of =
        |watch: &Watch, octets| watch.seen.iter().find(|seen| seen.payload.len() == octets).unwrap().interface;
    assert_ne!(interface_of(&watch, 10), interface_of(&watch, 20));
    assert!(watch.interfaces().iter().all(|(_, name)| name == "lo"));
    assert_eq!(watch.with(SYN), 4);
    watch.balance();
}

#[test]
fn what_is_outside_of_the_cgroup_is_not_seen() {
    let Some((_cgroup, mut watch, _peer)) = scene("inside", |options| options) else { return };
    let Some(outside) = Cgroup::new("outside") else { return };
    let mut other = Peer::in_cgroup(outside.path());
    let server = other.listen("127.0.0.1");
    watch.source.watch(server, Expected::Distribution).unwrap();
    other.connect(server);
    other.send(100);
    assert_eq!(watch.balance().seen, 0);
}
