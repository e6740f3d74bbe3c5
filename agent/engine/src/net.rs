//! Link layers, tunnels and IP: from a captured packet to a TCP segment. The one user of etherparse.
//!
//! Checksums are never verified: a packet captured on the machine that sends it has none yet (offload). Where a
//! header and the capture disagree about a length, the IP header is believed for the length on the wire, and the
//! capture for what there is to read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::Limits;
use crate::packet::{LinkType, Packet};

use fragments::Fragments;
use layers::{Found, Layer, NotUsed};

mod fragments;
mod layers;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// Not TCP over IP, or not to be taken further; the reason is a stable kebab-case word for
    /// [`Stats::packets_not_used`](crate::model::Stats::packets_not_used).
    NotUsed(&'static str),
    /// A fragment of an IP packet whose rest is not here yet.
    Pending,
}

/// Takes packets apart, down to TCP. Keeps nothing between packets but IP fragments.
#[derive(Debug)]
pub struct Net {
    fragments: Fragments,
}

impl Net {
    /// With an empty fragment pool, which may take a small part of the memory that `limits` gives to connections.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { fragments: Fragments::new(limits.flow_memory) }
    }

    /// Finds the TCP segment in a packet. A fragment that completes an IP packet gives that packet's segment.
    pub fn decode<'a>(&'a mut self, packet: &Packet<'a>) -> Decoded<'a> {
        match plain(packet) {
            Some(segment) => Decoded::Tcp(segment),
            None => self.decode_layers(packet),
        }
    }

    /// How often the limits of the fragment pool were reached since the last call, by name. Worth asking only after
    /// a packet that was not [`Decoded::Tcp`].
    pub fn take_limits(&mut self) -> [(&'static str, u64); 3] {
        self.fragments.take_limits()
    }

    /// The general way, which takes any packet.
    fn decode_layers<'a>(&'a mut self, packet: &Packet<'a>) -> Decoded<'a> {
        let wire = usize::try_from(packet.original_len).unwrap_or(usize::MAX).max(packet.data.len());
        let found = Layer::outermost(packet.link_type)
            .and_then(|layer| layers::walk(layer, Span { captured: packet.data, wire }));
        let fragment = match found {
            Ok(Found::Segment(segment)) => return Decoded::Tcp(segment),
            Ok(Found::Fragment(fragment)) => fragment,
            Err(reason) => return Decoded::NotUsed(reason),
        };
        match self.fragments.add(&fragment, packet.interface, packet.time) {
            Ok(Some((layer, whole))) => match layers::walk(layer, Span { captured: whole, wire: whole.len() }) {
                Ok(Found::Segment(segment)) => Decoded::Tcp(segment),
                // A fragment inside a reassembled packet takes a tunnel whose both ends fragment; nobody runs that.
                Ok(Found::Fragment(_)) => Decoded::NotUsed("ip-fragment-in-fragments"),
                Err(reason) => Decoded::NotUsed(reason),
            },
            Ok(None) => Decoded::Pending,
            Err(reason) => Decoded::NotUsed(reason),
        }
    }
}

/// The index of the interface that a packet of link type `LINUX_SLL2` was captured on, as the capturing host
/// numbered it.
#[must_use]
pub fn interface_index(packet: &Packet<'_>) -> Option<u32> {
    if packet.link_type != LinkType::LINUX_SLL2 {
        return None;
    }
    packet.data.get(4..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// The bytes of a layer: what was captured, and how many there were on the wire (never fewer).
#[derive(Clone, Copy, Debug)]
struct Span<'a> {
    captured: &'a [u8],
    wire: usize,
}

impl Span<'_> {
    /// Without the first `len` bytes, all of which must have been captured.
    fn skip(self, len: usize) -> Option<Self> {
        Some(Self { captured: self.captured.get(len..)?, wire: self.wire.saturating_sub(len) })
    }

    /// As long as a header says, which ends the padding of short Ethernet frames.
    fn limit(self, len: usize) -> Self {
        Self { captured: self.captured.get(..len).unwrap_or(self.captured), wire: len }
    }
}

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Length of an IPv4 header without options.
const IPV4: usize = 20;
/// Length of an IPv6 header without extensions.
const IPV6: usize = 40;
/// Length of a TCP header without options.
const TCP: usize = 20;
/// Number of TCP among IP's protocols.
const PROTOCOL_TCP: u8 = 6;

/// The short way for nearly every packet: Ethernet, IP without options or fragments, TCP. Whatever else it meets,
/// damage included, it leaves to the general way; where it answers, both answer the same.
#[inline(always)]
pub(crate) fn plain<'a>(packet: &Packet<'a>) -> Option<Segment<'a>> {
    if packet.link_type != LinkType::ETHERNET {
        return None;
    }
    let (ethernet, rest) = packet.data.split_first_chunk::<ETHERNET>()?;
    match [ethernet[12], ethernet[13]] {
        [0x08, 0x00] => {
            let (ip, rest) = rest.split_first_chunk::<IPV4>()?;
            // More fragments, or an offset; "don't fragment" and the reserved bit do not matter.
            if ip[0] != 0x45 || ip[9] != PROTOCOL_TCP || ip[6] & 0x3f != 0 || ip[7] != 0 {
                return None;
            }
            let len = usize::from(u16::from_be_bytes([ip[2], ip[3]])).checked_sub(IPV4)?;
            let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
            let destination = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
            segment(source.into(), destination.into(), Span { captured: rest, wire: len }.limit(len)).ok()
        }
        [0x86, 0xdd] => {
            let (ip, rest) = rest.split_first_chunk::<IPV6>()?;
            let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            if ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP || len == 0 {
                return None;
            }
            let source = Ipv6Addr::from_octets(*ip[8..].first_chunk()?);
            let destination = Ipv6Addr::from_octets(*ip[24..].first_chunk()?);
            segment(source.into(), destination.into(), Span { captured: rest, wire: len }.limit(len)).ok()
        }
        _ => None,
    }
}

/// Reads a TCP header (RFC 9293, section 3.1). Its options may be cut: snap lengths of 64 and 68 octets do that.
///
/// Always inlined: handing a segment up through the results and options on its way costs more than reading it.
#[inline(always)]
fn segment(source: IpAddr, destination: IpAddr, bytes: Span<'_>) -> Result<Segment<'_>, NotUsed> {
    let header = bytes.captured.first_chunk::<TCP>().ok_or("cut-tcp-header")?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < TCP {
        return Err("bad-tcp-header");
    }
    let payload_len = bytes.wire.checked_sub(header_len).ok_or("bad-tcp-header")?;
    Ok(Segment {
        source: SocketAddr::new(source, u16::from_be_bytes([header[0], header[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([header[2], header[3]])),
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        acknowledgement: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: TcpFlags(header[13]),
        window: u16::from_be_bytes([header[14], header[15]]),
        payload: bytes.captured.get(header_len..).unwrap_or_default(),
        payload_len: u32::try_from(payload_len).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests;
