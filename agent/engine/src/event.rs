//! What the decoders say: owned facts, made once per change and never per packet.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{Activity, EpmdExchange, Link, SocketProcess, Weird};
use crate::packet::PacketRef;
use crate::time::Timestamp;

/// A fact, with its time, its packet and its connection.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it became known.
    pub time: Timestamp,
    /// The packet that made it known; number 0 where a time-out did.
    pub packet: PacketRef,
    /// The connection, where one is concerned.
    pub flow: Option<Arc<FlowInfo>>,
    /// What it is.
    pub body: EventBody,
}

/// What stays the same about a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Stable text id (16 hexadecimal digits).
    pub id: String,
    /// The TCP client, as far as known (mid-stream it is inferred).
    pub initiator: SocketAddr,
    /// The TCP server.
    pub acceptor: SocketAddr,
    /// Name of the interface that the connection was first seen on; empty where the capture names none.
    pub interface: String,
}

/// Kinds of fact.
#[derive(Clone, Debug)]
pub enum EventBody {
    /// A distribution connection changed.
    Link {
        /// What about it.
        change: LinkChange,
        /// The connection as it is now, shared with whoever keeps it.
        link: Arc<Link>,
    },
    /// An EPMD request with its answer.
    Epmd(Box<EpmdExchange>),
    /// One or more remote actions of a kind. `activity.count` is the number since the last event for the same key.
    Activity(Box<Activity>),
    /// A term that is a cookie went over the wire in clear (an answer to `erlang:get_cookie` and the like).
    CookieSent {
        /// What carried it, in words that do not hold the cookie.
        how: String,
        /// Whether the connection's initiator sent it.
        from_initiator: bool,
    },
    /// Bytes that are neither the protocol nor TLS, on a port known for the protocol.
    Foreign {
        /// What the port is known for.
        expected: Expected,
        /// What the bytes look like (`HTTP`, `TLS`, `SSH`, `unknown bytes`, …).
        looks_like: &'static str,
    },
    /// A retransmission carried other octets than the first copy, or data came from outside the window.
    Tampering {
        /// Which.
        what: Tampering,
        /// Whether the initiator's direction is concerned.
        from_initiator: bool,
        /// Offset in that direction's stream.
        offset: u64,
        /// Octets that differ or lie outside.
        bytes: u64,
    },
    /// A peer broke the protocol in a way that no release does. Never raised for what loss explains.
    Violation {
        /// What it did, in the protocol's words.
        what: String,
        /// Whether the initiator did it.
        from_initiator: bool,
    },
    /// A TCP SYN that nobody answered or that was refused, towards a port known for the protocol.
    Unanswered {
        /// What the port is known for.
        expected: Expected,
    },
    /// Something for the analyst.
    Weird(Weird),
    /// A source lost packets (a counter of the capture file, the kernel or a queue).
    Loss {
        /// Where: `kernel`, `interface`, `ring`, `queue`.
        stage: &'static str,
        /// How many, since the last such event.
        packets: u64,
    },
    /// Established distribution sockets of this host of which nothing is captured, as they are now; 0 when all are seen.
    Unseen {
        /// How many.
        sockets: u64,
        /// One of them, `address:port -> address:port`; empty where there is none.
        example: String,
    },
    /// The process behind a listener, or behind an end of a link.
    Process(Box<SocketProcess>),
    /// How a sink of the monitor's own is doing: told while it fails, and once when it has recovered.
    SinkState {
        /// Its name.
        sink: String,
        /// Since when it takes no records; `None` where all is well.
        failing_since: Option<Timestamp>,
        /// What it says.
        reason: String,
    },
}

/// What changed about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkChange {
    /// Its first packet, or the packet that made it known as distribution.
    Opened,
    /// Its transport became known.
    Classified,
    /// A handshake message was read (distribution or TLS); `link` has what is known so far.
    Progress,
    /// The distribution handshake (or the TLS one, for TLS) has its outcome.
    Handshake,
    /// A node name or release became known later.
    Identified,
    /// Only its counters: the input has ended, or it is time to say where they stand.
    Updated,
    /// It ended.
    Closed,
}

impl LinkChange {
    /// The word in `link` records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Classified => "classified",
            Self::Progress => "progress",
            Self::Handshake => "handshake",
            Self::Identified => "identified",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }
}

/// What a port is known for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// EPMD.
    Epmd,
    /// Distribution.
    Distribution,
}

/// Ways in which a stream was tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tampering {
    /// A retransmission differs from the first copy.
    ConflictingRetransmission,
    /// Data far outside the receiver's window.
    OutsideWindow,
}
