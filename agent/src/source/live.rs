//! What a live back end is: packets of this host as they pass, with the books of what it saw and lost.
//!
//! One thread owns a back end and drives it; nothing in here blocks for longer than it is told to. Packets are borrowed
//! from the back end's own memory and never cross a thread.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use distwatch_engine::event::Expected;
use distwatch_engine::packet::LinkType;

/// One packet of a live back end.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// When it passed: `CLOCK_MONOTONIC`, in nanoseconds. Whoever drives the back end knows what time of day that is.
    pub monotonic: u64,
    /// Its interface, as the back end numbers them; see [`LiveSource::interface_name`].
    pub interface: u32,
    /// The link layer that `data` begins with.
    pub link_type: LinkType,
    /// The bytes that were copied.
    pub data: &'a [u8],
    /// The length on the wire; more than `data` where the back end copies only the beginning.
    pub original_len: u32,
}

/// A TCP connection, the initiator first, as the engine names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowEnds {
    /// The TCP client.
    pub initiator: SocketAddr,
    /// The TCP server.
    pub acceptor: SocketAddr,
}

/// What the kernel is to do with a connection from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Copy all of it.
    Full,
    /// Copy this many octets of each packet.
    Headers(u16),
    /// Copy only what begins and ends the connection (SYN, FIN, RST); count the rest.
    Count,
    /// It is nothing of interest: copy nothing of it, and do not remember it for longer than needed.
    Ignore,
    /// It has ended: forget it.
    Forget,
}

/// What passed on a connection that is only counted, since it is counted, per direction (the initiator's first).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Packets.
    pub packets: [u64; 2],
    /// Octets of TCP payload.
    pub bytes: [u64; 2],
    /// The last of them, `CLOCK_MONOTONIC` nanoseconds; 0 where there was none.
    pub last: u64,
}

/// Where every packet went that a back end was given, since it was opened.
///
/// `seen = handed + uninteresting + counted + refused + Σ lost.packets` holds whenever the back end is drained, and to within what
/// is under way at any other time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Packets that the hooks or the socket were given.
    pub seen: u64,
    /// Octets of them, as long as they were on the wire.
    pub seen_bytes: u64,
    /// Packets that were handed to the caller of [`LiveSource::poll`].
    pub handed: u64,
    /// Octets that were copied for them.
    pub handed_bytes: u64,
    /// Packets of no protocol, port or signature that is watched; and those seen a second time, on the other end of
    /// a connection whose both ends are on this host.
    pub uninteresting: u64,
    /// Packets of connections that are only counted.
    pub counted: u64,
    /// Packets that could not be taken as they are (no IP header to be read, say).
    pub refused: u64,
    /// What was lost, by stage.
    pub lost: Vec<Lost>,
    /// Octets of packets that were handed over without them, though they were wanted.
    pub cut_bytes: u64,
}

/// What was lost at one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Which: `kernel`, `interface`, `ring`, `shed` …
    pub stage: &'static str,
    /// Packets.
    pub packets: u64,
    /// Octets of them, as long as they were on the wire; 0 where the stage does not tell.
    pub bytes: u64,
}

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// It listens.
    Listening,
    /// It is the initiator's end of a connection that is established.
    Connected,
    /// It is the acceptor's end of a connection that is established.
    Accepted,
    /// The first payload passed on it; whose end it is was not seen.
    Carrying,
    /// It is closed.
    Closed,
}

/// Something about a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSeen {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub monotonic: u64,
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's; none for a listener.
    pub remote: Option<SocketAddr>,
    /// What became of it.
    pub state: SocketState,
    /// The kernel's number of it; 0 where there is none.
    pub cookie: u64,
    /// The process that made it, or made the listener that it was accepted on; 0 where that was before the start.
    pub pid: u32,
    /// When that process was at work on it, `CLOCK_MONOTONIC` nanoseconds: of one that was accepted, when its listener began to
    /// listen. A process of that number that began later is another one.
    pub owned: u64,
    /// That process's user.
    pub uid: u32,
    /// The name of the thread that made it.
    pub command: String,
    /// The id of that process's cgroup: the inode of its folder; 0 where it is not known.
    pub cgroup: u64,
    /// The network namespace, by the inode of `/proc/PID/ns/net`; 0 where it is not known.
    pub namespace: u32,
}

/// A live back end. The order of calls is free; all are made by one thread.
pub trait LiveSource: Send {
    /// `ebpf` or `pcap`: the word in metrics and `status`.
    fn kind(&self) -> &'static str;

    /// What it is attached to, one line each, for a person: `cgroup_skb at /sys/fs/cgroup`, `TCX on eth0`.
    fn attachments(&self) -> Vec<String>;

    /// Waits up to `wait` for packets, then hands over what is there, at most `most` of them. Returns how many.
    ///
    /// # Errors
    /// The back end cannot go on; it is to be opened anew.
    fn poll(&mut self, wait: Duration, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> io::Result<usize>;

    /// Hands over what became of sockets since the last call, where the back end is told. From the first call on,
    /// [`LiveSource::poll`] hands over no packets before what was known of sockets by then was asked for.
    fn sockets(&mut self, _each: &mut dyn FnMut(SocketSeen)) {}

    /// The name of an interface in its own network namespace; empty where it is not known.
    fn interface_name(&mut self, interface: u32) -> String;

    /// The ports that the configuration names, on every address, in place of those that it named before; what was learned by
    /// [`LiveSource::watch`] stays.
    ///
    /// # Errors
    /// The kernel's table is full, or it refuses.
    fn watch_ports(&mut self, ports: &[(RangeInclusive<u16>, Expected)]) -> io::Result<()>;

    /// Something listens there: connections to it are to be handed over from their first packet. An unspecified address means
    /// every address.
    ///
    /// # Errors
    /// The kernel's table is full, or it refuses.
    fn watch(&mut self, at: SocketAddr, what: Expected) -> io::Result<()>;

    /// Nothing listens there any more.
    ///
    /// # Errors
    /// The kernel refuses.
    fn unwatch(&mut self, at: SocketAddr) -> io::Result<()>;

    /// What is to become of a connection. A back end that cannot choose does nothing.
    ///
    /// # Errors
    /// The kernel's table is full, or it refuses.
    fn decide(&mut self, flow: FlowEnds, verdict: Verdict) -> io::Result<()>;

    /// The counters of all connections under [`Verdict::Count`], and the captured ones where the back end has them.
    fn counts(&mut self, each: &mut dyn FnMut(FlowEnds, FlowCounts));

    /// Looks for interfaces (or what else it attaches to) that came or went. Cheap; called about once a second.
    ///
    /// # Errors
    /// Nothing is left to capture from, and nothing can be attached.
    fn refresh(&mut self) -> io::Result<()>;

    /// The books as they stand.
    fn books(&mut self) -> Books;

    /// What was not kept since it was opened, besides packets, each under a stable word: connections that found a table full,
    /// counts that were lost, and the like.
    fn shortfalls(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
