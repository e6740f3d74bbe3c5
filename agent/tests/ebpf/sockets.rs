//! Who makes, connects and closes sockets, as the kernel tells it.

use distwatch::source::live::{LiveSource, SocketSeen, SocketState};
use distwatch_engine::event::Expected;

use super::host::{Cgroup, Watch};
use super::peer::Peer;

fn drain(watch: &mut Watch, into: &mut Vec<SocketSeen>) {
    watch.source.sockets(&mut |socket| into.push(socket));
}

#[test]
fn a_listener_and_both_ends_of_a_connection_have_their_process() {
    let Some(cgroup) = Cgroup::new("sockets") else { return };
    let Some(mut watch) = Watch::open(&cgroup.options()) else { return };
    let mut server = Peer::in_cgroup(cgroup.path());
    let mut client = Peer::in_cgroup(cgroup.path());
    let at = server.listen("127.0.0.1");
    watch.source.watch(at, Expected::Distribution).unwrap();
    let from = client.order(&format!("connect {at} 0")).parse().unwrap();
    server.order("accept");
    client.order("write client 10");
    server.order("read server 10");
    client.order("close");
    server.order("close");
    let mut seen = Vec::new();
    let closed = |seen: &[SocketSeen]| seen.iter().filter(|socket| socket.state == SocketState::Closed).count();
    let deadline = std::time::Instant::now() + super::host::PATIENCE;
    while closed(&seen) < 2 {
        assert!(std::time::Instant::now() < deadline, "{seen:#?}");
        watch.drain();
        drain(&mut watch, &mut seen);
    }
    let find = |state| seen.iter().find(|socket| socket.state == state).unwrap();
    let listening = find(SocketState::Listening);
    assert_eq!((listening.local, listening.remote, listening.pid), (at, None, server.pid()));
    let connected = find(SocketState::Connected);
    assert_eq!((connected.local, connected.remote, connected.pid), (from, Some(at), client.pid()));
    assert!(!connected.command.is_empty() && connected.cookie != 0);
    assert_eq!(connected.cgroup, std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(cgroup.path()).unwrap()));
    let accepted = find(SocketState::Accepted);
    assert_eq!((accepted.local, accepted.remote, accepted.pid), (at, Some(from), server.pid()));
    let carrying = find(SocketState::Carrying);
    assert_eq!((carrying.local, carrying.remote, carrying.pid), (from, Some(at), client.pid()));
    if watch.source.tells_namespaces() {
        let own = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/net").unwrap());
        assert!(seen.iter().all(|socket| u64::from(socket.namespace) == own), "{seen:#?}");
    }
}

#[test]
fn connections_with_ports_that_nobody_watches_are_not_told() {
    let Some(cgroup) = Cgroup::new("unwatched") else { return };
    let Some(mut watch) = Watch::open(&cgroup.options()) else { return };
    let mut peer = Peer::in_cgroup(cgroup.path());
    let at = peer.listen("127.0.0.1");
    peer.connect(at);
    peer.send(10);
    let mut seen = Vec::new();
    drain(&mut watch, &mut seen);
    let states: Vec<SocketState> = seen.iter().map(|socket| socket.state).collect();
    assert_eq!(states, [SocketState::Listening]);
}
