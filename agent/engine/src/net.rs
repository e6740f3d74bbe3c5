//! Link layers, tunnels and IP: from a captured packet to a TCP segment. The one user of etherparse.

use std::net::SocketAddr;

/// Flags of a TCP segment, as on the wire (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Whether all of these bits are set.
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

/// A TCP segment, still borrowed from the packet (or from the fragment pool).
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
    /// Sequence number of the first payload octet (of the SYN, where there is one).
    pub sequence: u32,
    /// Acknowledgement number; meaningless without the ACK flag.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Advertised window, unscaled.
    pub window: u16,
    /// Payload as far as it was captured.
    pub payload: &'a [u8],
    /// Payload length on the wire; more than `payload` where the snap length cut it.
    pub payload_len: u32,
}
