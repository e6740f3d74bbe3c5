//! TCP connections: which segment belongs to which, in what order the octets go, what is missing, and what must go
//! when memory is short.
//!
//! What the layer promises to the one above it:
//!
//! * Every octet of a direction is delivered once and in order, borrowed from the packet where it came in order. The
//!   first captured copy of an octet wins.
//! * What is missing is said ([`Gap`]): octets delivered plus octets in gaps are the length of the stream.
//! * Memory stays below [`Limits::flow_memory`](crate::limits::Limits) for any input, work per segment is constant
//!   (amortised), and every time a limit is reached it is counted under a stable name ([`LimitCounts`]).
//! * The same segments give the same calls: nothing depends on a random state or on a clock.

mod clock;
mod connection;
mod ends;
mod history;
mod id;
mod lent;
mod lists;
mod orientation;
mod reassembly;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use self::id::FlowId;
pub use self::table::FlowTable;
use crate::event::Tampering;
use crate::model::CloseReason;
use crate::packet::{At, InterfaceId, Side};
use crate::time::Timestamp;

/// What a connection's octets are for; implemented by the connection layer.
///
/// [`interest`](Self::interest), [`value`](Self::value), [`memory`](Self::memory) and
/// [`poll_timeout`](Self::poll_timeout) are asked after every segment and have to be cheap.
pub trait Conversation<X>: Sized {
    /// A connection was answered, or carries data. One that never was answered is opened just before its
    /// [`handle_close`](Self::handle_close), so that nothing larger than a table entry is kept for a mere SYN.
    fn open(opening: &Opening, cx: &mut X) -> Self;

    /// Octets in order, each once. Not called once the interest is less than [`Interest::Everything`].
    fn handle_data(&mut self, flow: &FlowFacts, at: &At, side: Side, data: &[u8], cx: &mut X);

    /// Octets that will not come.
    fn handle_gap(&mut self, flow: &FlowFacts, at: &At, side: Side, gap: Gap, cx: &mut X);

    /// Octets that contradict those already seen, or that no receiver would take. `offset` is the place of the first
    /// in that direction's stream, `bytes` how many they are.
    #[allow(clippy::too_many_arguments, reason = "each is a separate fact and none has a default")]
    fn handle_tampering(
        &mut self,
        flow: &FlowFacts,
        at: &At,
        side: Side,
        what: Tampering,
        offset: u64,
        bytes: u64,
        cx: &mut X,
    );

    /// The connection ended. Called once, and last; not at all after [`Interest::Nothing`] and for what is still open
    /// at the end of the input.
    fn handle_close(&mut self, flow: &FlowFacts, at: &At, reason: CloseReason, cx: &mut X);

    /// The input has ended while the connection was open. Called once, and last.
    fn handle_end(&mut self, _flow: &FlowFacts, _at: &At, _cx: &mut X) {}

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    fn handle_timeout(&mut self, _flow: &FlowFacts, _now: Timestamp, _cx: &mut X) {}

    /// When to call [`handle_timeout`](Self::handle_timeout), in the time of the packets. A value that has fired is
    /// not heeded again until it changes.
    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// What it still wants to hear. It may fall, but never rise.
    fn interest(&self) -> Interest;

    /// How much it matters that this connection stays.
    fn value(&self) -> Value;

    /// Bytes that it holds beyond its own size.
    fn memory(&self) -> usize;
}

/// What the layer above knows of ports: those learned from EPMD and those of the policy.
pub trait Ports {
    /// Whether connections are accepted at this address and port.
    fn is_listener(&self, at: SocketAddr) -> bool;

    /// Whether a connection with just these ends is remembered from before the capture.
    fn is_remembered(&self, _initiator: SocketAddr, _acceptor: SocketAddr) -> bool {
        false
    }
}

/// What a conversation still wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// Nothing, not even the end; it may be forgotten at once.
    Nothing,
    /// The end, the time-outs and the numbers in [`FlowFacts`]: no octet is kept or delivered.
    CountOnly,
    /// Every octet.
    Everything,
}

/// What a connection is worth when memory is short; the lowest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Not known for anything.
    Unknown,
    /// May become one of those below.
    Candidate,
    /// A conversation with EPMD.
    Epmd,
    /// A distribution handshake, or what looks like one.
    Attempt,
    /// Established distribution: never given up for anything but another link.
    Link,
}

/// What a live source need not hand in any more of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The TCP client.
    pub initiator: SocketAddr,
    /// The TCP server.
    pub acceptor: SocketAddr,
    /// What of it is still wanted.
    pub wanted: Wanted,
}

/// What is still wanted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its end, and how much passes.
    Counts,
    /// Nothing: it is of no interest.
    Nothing,
    /// It has ended.
    Ended,
}

/// Octets that were sent and cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub bytes: u64,
    /// Why.
    pub cause: GapCause,
}

/// Why octets are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// They were never captured: the other end acknowledged them, or they did not come in time.
    Lost,
    /// The capture's snap length cut them off.
    SnapLength,
    /// A limit of memory was reached before they came.
    Limit,
}

/// What is known of a connection at its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its stable id.
    pub id: FlowId,
    /// The first packet.
    pub at: At,
    /// The TCP client; without a SYN this is inferred.
    pub initiator: SocketAddr,
    /// The TCP server.
    pub acceptor: SocketAddr,
    /// Neither SYN nor SYN-ACK was captured: it begins somewhere in the middle.
    pub mid_stream: bool,
}

/// Numbers of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideFacts {
    /// Payload octets as on the wire, each counted once (also those that a snap length cut off).
    pub payload: u64,
    /// Places where octets are missing.
    pub gaps: u64,
    /// Octets that are missing: acknowledged or skipped, or cut off, and never captured.
    pub missing: u64,
}

/// What is known of a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFacts {
    /// What was known at the first packet.
    pub opening: Opening,
    /// The time of the last packet, whatever it carried.
    pub last_seen: Timestamp,
    /// Whether the acceptor answered: a SYN-ACK, data, or the initiator's acknowledgement of them.
    pub answered: bool,
    sides: [SideFacts; 2],
    interfaces: Interfaces,
}

impl FlowFacts {
    fn new(opening: Opening) -> Self {
        Self {
            opening,
            last_seen: opening.at.time,
            answered: false,
            sides: [SideFacts::default(); 2],
            interfaces: Interfaces::of(opening.at.interface),
        }
    }

    /// The numbers of one direction.
    #[must_use]
    pub const fn side(&self, side: Side) -> &SideFacts {
        &self.sides[side.index()]
    }

    /// The interfaces that it was seen on, in the order seen.
    #[must_use]
    pub fn interfaces(&self) -> &[InterfaceId] {
        self.interfaces.as_slice()
    }

    /// Places where octets are missing, of both directions.
    #[must_use]
    pub const fn gaps(&self) -> u64 {
        self.sides[0].gaps + self.sides[1].gaps
    }

    /// Missing octets, of both directions.
    #[must_use]
    pub const fn missing_bytes(&self) -> u64 {
        self.sides[0].missing + self.sides[1].missing
    }

    fn see(&mut self, at: &At) {
        self.last_seen = self.last_seen.max(at.time);
        self.interfaces.add(at.interface);
    }
}

/// The interfaces of a connection. A packet crosses the pair of a veth, a bridge and a physical interface at most,
/// so four are kept; further ones are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interfaces {
    ids: [InterfaceId; Self::KEPT],
    len: u8,
}

impl Interfaces {
    const KEPT: usize = 4;

    fn of(first: InterfaceId) -> Self {
        Self { ids: [first; Self::KEPT], len: 1 }
    }

    fn as_slice(&self) -> &[InterfaceId] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }

    #[inline]
    fn add(&mut self, id: InterfaceId) {
        if self.ids[0] == id || self.as_slice().contains(&id) {
            return;
        }
        if let Some(free) = self.ids.get_mut(usize::from(self.len)) {
            *free = id;
            self.len += 1;
        }
    }
}

/// A limit of this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections given up, refused, or robbed of what waited behind a hole, to stay below `flow_memory`.
    FlowMemory,
    /// Unanswered SYNs given up to keep them to their share of `flow_memory`.
    HalfOpenFlows,
    /// Holes skipped because too many octets waited behind them.
    ReorderBytes,
    /// Holes skipped because too many segments waited behind them.
    ReorderSegments,
    /// Holes skipped because they were waited for too long.
    ReorderWait,
}

/// How often each limit was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitCounts([u64; 5]);

impl LimitCounts {
    const NAMES: [&str; 5] = ["flow_memory", "half_open_flows", "reorder_bytes", "reorder_segments", "reorder_wait"];

    /// How often this one was.
    #[must_use]
    pub const fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// The limits that were reached, by their stable names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.0).filter(|&(_, count)| count > 0)
    }

    fn count(&mut self, limit: Limit) {
        self.0[limit as usize] += 1;
    }
}

/// Counters of the layer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Connections seen, those that were never answered included.
    pub flows: u64,
    /// Places where octets are missing.
    pub gaps: u64,
    /// Octets that are missing.
    pub missing_bytes: u64,
    /// Segments on connections that have ended, and segments without data that belong to no known connection.
    pub segments_outside_connections: u64,
    /// Octets far from where the connection is, ignored: reported as [`Tampering::OutsideWindow`] when the connection
    /// goes on at its old place, and part of a gap when it does not.
    pub stray_octets: u64,
    /// RSTs with a sequence number that the receiver would not accept.
    pub resets_ignored: u64,
    /// Connections that went on after an RST or FIN that thus was a forgery, or only meant for the observer.
    pub closes_disproved: u64,
    /// Limits that were reached.
    pub limits: LimitCounts,
}
