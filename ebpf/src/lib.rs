//! The layouts that the programs in the kernel and the agent share: the only place for them.
//!
//! Everything is `repr(C)`, has no padding that is not named, and its size is asserted here, on whichever side it is compiled.
//! Numbers are in the machine's byte order, but for addresses, which stay as they are on the wire.

#![no_std]

use core::mem::size_of;

/// The longest part of a packet that is copied. Segmentation offload makes 65,535 octets of IP, but with BIG TCP (on loopback
/// that is the default of newer kernels) eight times as many; there is room for a link layer before them.
pub const LONGEST: u32 = 524_352;

/// How long the point that showed a direction of a connection first goes on being the one that counts while it shows
/// nothing. Packets need far less from one end of a host to the other, so a later one is no duplicate.
pub const OWNED_FOR: u64 = 1_000_000_000;

/// What is done without, and when, while the ring fills faster than it is read: the order in which packets are shed.
///
/// What begins and ends a connection, and the first [`shed::EARLY`] octets of either direction, are copied for as long as there is
/// any room: EPMD, the handshakes of distribution and of TLS.
pub mod shed {
    /// Everything is copied.
    pub const NOTHING: u32 = 0;
    /// Of packets of established connections only the first [`SHORT`] octets are copied.
    pub const DETAILS: u32 = 1;
    /// Of established connections nothing is copied.
    pub const PAYLOAD: u32 = 2;
    /// Nor of connections that are new here, unless they begin.
    pub const NEW: u32 = 3;

    /// How many sixteenths of the ring are filled when each of them begins. They leave as much as possible to a burst that passes: what
    /// is never shed is little.
    pub const MARKS: [(u64, u32); 3] = [(15, NEW), (14, PAYLOAD), (12, DETAILS)];
    /// How many are filled at most when all of them end. Being far below the marks, it makes one long hole out of many short ones,
    /// of which every one would cost a message or two.
    pub const RELIEF: u64 = 8;

    /// Octets of each packet: the headers, and what most calls and messages are shorter than.
    pub const SHORT: u32 = 320;
    /// Octets from the first that a direction was seen to send: what a TLS handshake with long chains of certificates needs, and
    /// far more than EPMD and the handshake of distribution do.
    pub const EARLY: u32 = 16 << 10;
}

/// What a port is watched for: bits of the values in the map `PORTS`.
pub mod port {
    /// EPMD, on any address.
    pub const EPMD: u32 = 1;
    /// Distribution, on any address.
    pub const DISTRIBUTION: u32 = 2;
    /// Some address with this port stands in the map `LISTENERS`.
    pub const EXACT: u32 = 4;
}

/// One end of a connection. IPv4 addresses are mapped into IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// The 16 octets of the address.
    pub address: [u64; 2],
    /// The port.
    pub port: u16,
    /// Nothing.
    pub padding: [u16; 3],
}

impl End {
    /// An end, from the 16 octets of an address.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u64; 2], port: u16) -> Self {
        Self { address, port, padding: [0; 3] }
    }

    /// Whether the address never leaves its host: 127.0.0.0/8 or ::1.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        let [high, low] = self.address;
        let mapped = u64::from_be(low) >> 24;
        high == 0 && (mapped == 0x00FF_FF7F || u64::from_be(low) == 1)
    }

    /// The 16 octets of an IPv4 address (as they are on the wire) mapped into IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn mapped(ipv4: u32) -> [u64; 2] {
        [0, ((u32::from_be(ipv4) as u64) | 0x0000_FFFF_0000_0000).to_be()]
    }
}

/// A connection, the same for both directions: the lower end first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The lower end's address.
    pub low: [u64; 2],
    /// The higher end's address.
    pub high: [u64; 2],
    /// The lower end's port.
    pub low_port: u16,
    /// The higher end's port.
    pub high_port: u16,
    /// The network namespace where an address is a loopback one, for every namespace has its own; 0 for all others.
    pub scope: u32,
}

/// The sender is the lower end of the key.
pub const FROM_LOW: usize = 0;
/// The sender is the higher end of the key.
pub const FROM_HIGH: usize = 1;

impl FlowKey {
    /// The key of a connection, and which of its ends `from` is.
    #[inline(always)]
    #[must_use]
    pub fn new(from: End, to: End, scope: u32) -> (Self, usize) {
        let below = (from.address[0], from.address[1], from.port) <= (to.address[0], to.address[1], to.port);
        let (low, high, direction) = if below { (from, to, FROM_LOW) } else { (to, from, FROM_HIGH) };
        let key = Self { low: low.address, high: high.address, low_port: low.port, high_port: high.port, scope };
        (key, direction)
    }

    /// Both ends, the lower first.
    #[must_use]
    pub const fn ends(&self) -> [End; 2] {
        [End::new(self.low, self.low_port), End::new(self.high, self.high_port)]
    }
}

/// Bits of [`Flow::state`].
pub mod state {
    /// A FIN came from the lower end; shifted by one, from the higher.
    pub const FIN: u32 = 1;
    /// A RST came from the lower end; shifted by one, from the higher.
    pub const RST: u32 = 4;
    /// A SYN came from the lower end; shifted by one, from the higher.
    pub const SYN: u32 = 16;
    /// That the connection closed was said.
    pub const CLOSED: u32 = 64;
    /// The lower end sent payload; shifted by one, the higher.
    pub const BEGUN: u32 = 128;
}

/// Which point shows a direction, and when it last did. Index 0 is what the lower end sends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: [u64; 2],
    /// The point; 0 is none.
    pub point: [u32; 2],
}

/// What is remembered of a connection: made by the first payload, or by the agent. Index 0 is what the lower end sends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets that were only counted.
    pub packets: [u64; 2],
    /// Octets of TCP payload in them.
    pub octets: [u64; 2],
    /// When the last of them passed.
    pub last: u64,
    /// Who shows it.
    pub owners: Owners,
    /// The sequence numbers of the SYNs.
    pub initial: [u32; 2],
    /// The sequence numbers of the first payload that was seen.
    pub begin: [u32; 2],
    /// See [`state`].
    pub state: u32,
    /// Nothing.
    pub padding: u32,
}

/// What is to be done with a connection: [`Verdict::code`].
pub mod verdict {
    /// Copy all of it. So it is for a connection without a verdict.
    pub const FULL: u32 = 0;
    /// Copy the first octets of each packet.
    pub const HEADERS: u32 = 1;
    /// Copy SYN, FIN and RST, count the rest.
    pub const COUNT: u32 = 2;
    /// Copy nothing.
    pub const IGNORE: u32 = 3;
}

/// A verdict; written by the agent alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// See [`verdict`].
    pub code: u32,
    /// How many octets of each packet, for [`verdict::HEADERS`].
    pub octets: u32,
}

/// Values of [`Record::link`]: the numbers of libpcap's registry.
pub mod link {
    /// An Ethernet header.
    pub const ETHERNET: u32 = 1;
    /// The IP header comes first.
    pub const RAW: u32 = 101;
}

/// What stands before each packet in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it passed, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The socket's cookie; 0 where no socket is known.
    pub cookie: u64,
    /// Octets in the kernel's packet.
    pub original: u32,
    /// Octets that follow this header.
    pub captured: u32,
    /// The interface's index in its network namespace.
    pub ifindex: u32,
    /// The network namespace's inode; 0 where it is not known.
    pub netns: u32,
    /// See [`link`].
    pub link: u32,
    /// Nothing.
    pub padding: u32,
}

/// Values of [`Event::kind`].
pub mod event {
    /// A connection came into the flow table by itself.
    pub const FLOW_OPENED: u32 = 1;
    /// A connection of the flow table ended.
    pub const FLOW_CLOSED: u32 = 2;
    /// A socket began to listen.
    pub const LISTENING: u32 = 3;
    /// A connection was established from here.
    pub const CONNECTED: u32 = 4;
    /// A connection was established to here.
    pub const ACCEPTED: u32 = 5;
    /// A socket was closed.
    pub const CLOSED: u32 = 6;
}

/// What is told beside packets, in a ring of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The socket's cookie; 0 where no socket is known.
    pub cookie: u64,
    /// The connection; for a listener both ends are its address.
    pub key: FlowKey,
    /// Who made the socket.
    pub owner: Owner,
    /// See [`event`].
    pub kind: u32,
    /// Which end of the key is this socket's, or the sender's.
    pub local: u32,
    /// The network namespace's inode; 0 where it is not known.
    pub netns: u32,
    /// Nothing.
    pub padding: u32,
}

/// Who made a socket. All zero where that was before the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The cgroup's id.
    pub cgroup: u64,
    /// The process.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The thread's name, ended by a zero.
    pub command: [u8; 16],
}

/// What is counted.
///
/// `Seen` is the sum of `Copied`, `Uninteresting`, `Duplicate`, `Counted`, `Refused`, `RingFull`, `Shed` and `TurnedAway`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Packets that the programs were given.
    Seen,
    /// Octets of them.
    SeenOctets,
    /// Packets that went into the ring.
    Copied,
    /// Octets that were copied for them.
    CopiedOctets,
    /// Packets that nobody asked for.
    Uninteresting,
    /// Packets that were seen before, at another point.
    Duplicate,
    /// Packets of connections that are counted.
    Counted,
    /// Packets whose headers could not be read.
    Refused,
    /// Packets for which the ring had no room.
    RingFull,
    /// Octets of them.
    RingFullOctets,
    /// Packets of established connections that were done without while the ring was filling.
    Shed,
    /// Octets of them.
    ShedOctets,
    /// Packets of connections that are new here, done without while the ring was nearly full.
    TurnedAway,
    /// Octets of them.
    TurnedAwayOctets,
    /// Packets without their end: longer than what is copied, or shortened while the ring was filling. They are among the copied.
    Cut,
    /// Octets that were cut off.
    CutOctets,
    /// Connections that should have come into the flow table and found it full.
    TableFull,
    /// Events for which their ring had no room.
    EventsLost,
}

/// How many columns there are.
pub const COLUMNS: usize = Column::EventsLost as usize + 1;

/// Where every packet went, by [`Column`]; each CPU has its own.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; COLUMNS]);

const _: () = {
    assert!(size_of::<End>() == 24);
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Owners>() == 24);
    assert!(size_of::<Flow>() == 88);
    assert!(size_of::<Verdict>() == 8);
    assert!(size_of::<Record>() == 40);
    assert!(size_of::<Owner>() == 32);
    assert!(size_of::<Event>() == 104);
    assert!(size_of::<Counters>() == 144);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_a_connection_have_one_key() {
        let client = End::new(End::mapped(u32::from_ne_bytes([10, 0, 0, 1])), 40_000);
        let server = End::new(End::mapped(u32::from_ne_bytes([10, 0, 0, 2])), 4369);
        let (there, from_client) = FlowKey::new(client, server, 7);
        let (back, from_server) = FlowKey::new(server, client, 7);
        assert_eq!(there, back);
        assert_ne!(from_client, from_server);
        assert_eq!(there.ends()[from_client], client);
        assert_eq!(there.ends()[from_server], server);
    }

    #[test]
    fn loopback_is_told_from_all_else() {
        let ipv4 = |octets| End::new(End::mapped(u32::from_ne_bytes(octets)), 1);
        assert!(ipv4([127, 0, 0, 1]).is_loopback() && ipv4([127, 255, 0, 9]).is_loopback());
        assert!(!ipv4([10, 0, 0, 1]).is_loopback() && !ipv4([128, 0, 0, 1]).is_loopback());
        assert!(End::new([0, 1_u64.to_be()], 1).is_loopback());
        assert!(!End::new([0, 0], 1).is_loopback() && !End::new([1, 1_u64.to_be()], 1).is_loopback());
    }
}
