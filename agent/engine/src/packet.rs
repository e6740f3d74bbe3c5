//! What a source hands to the engine: bytes, when and where they were captured, and nothing else.

use crate::time::Timestamp;

/// The link layer of a capture, by its number in the registry of libpcap (`LINKTYPE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback, address family in the byte order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IP without a link layer (three numbers are in use for it).
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback, address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture.
    pub const LINUX_SLL: Self = Self(113);
    /// IPv4 only.
    pub const IPV4: Self = Self(228);
    /// IPv6 only.
    pub const IPV6: Self = Self(229);
    /// Linux "cooked" capture, version 2, with the interface's index.
    pub const LINUX_SLL2: Self = Self(276);

    /// The name in the registry, in lower case, or the number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::NULL => "null".into(),
            Self::ETHERNET => "ethernet".into(),
            Self(12 | 14) | Self::RAW => "raw".into(),
            Self::LOOP => "loop".into(),
            Self::LINUX_SLL => "linux_sll".into(),
            Self::IPV4 => "ipv4".into(),
            Self::IPV6 => "ipv6".into(),
            Self::LINUX_SLL2 => "linux_sll2".into(),
            Self(other) => format!("{other}"),
        }
    }
}

/// An interface that the engine was told of with [`Engine::add_interface`](crate::engine::Engine::add_interface).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u32);

/// Which packet something was read from: the capture (0 is the first) and the number in it, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketRef {
    /// The capture's place in the list of captures.
    pub capture: u32,
    /// The packet's number as Wireshark shows it; 0 where no packet is meant (a time-out).
    pub number: u64,
}

/// One captured packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it stands.
    pub reference: PacketRef,
    /// When it was captured.
    pub time: Timestamp,
    /// The link layer that `data` begins with.
    pub link_type: LinkType,
    /// The interface that it was captured on.
    pub interface: InterfaceId,
    /// The bytes that were captured.
    pub data: &'a [u8],
    /// The length on the wire; more than `data` where a snap length cut the packet.
    pub original_len: u32,
}

/// Which end of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The TCP client.
    Initiator,
    /// The TCP server.
    Acceptor,
}

impl Side {
    /// Both, the initiator first.
    pub const BOTH: [Self; 2] = [Self::Initiator, Self::Acceptor];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Acceptor,
            Self::Acceptor => Self::Initiator,
        }
    }

    /// 0 for the initiator, 1 for the acceptor: the place in arrays of two.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// When and where something was seen: what every decoder is given beside the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The packet's time, or the time-out's.
    pub time: Timestamp,
    /// The packet; number 0 for a time-out.
    pub packet: PacketRef,
    /// Its interface.
    pub interface: InterfaceId,
}

impl std::fmt::Display for PacketRef {
    /// `105`, or `2:105` in the second of several captures.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.capture {
            0 => self.number.fmt(f),
            capture => write!(f, "{}:{}", u64::from(capture) + 1, self.number),
        }
    }
}
