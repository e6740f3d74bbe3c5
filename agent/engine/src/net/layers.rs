//! The general way through a packet: one function for each kind of header, and the loop that goes from one to the next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpAuthHeaderSlice, IpFragOffset, IpNumber, Ipv4HeaderSlice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, UdpHeaderSlice, ether_type,
    ip_number,
};

use super::{Segment, Span, segment};
use crate::packet::LinkType;

/// Why a packet is not taken further: a stable kebab-case word.
pub(super) type NotUsed = &'static str;

/// VLAN tags, MPLS labels and tunnels that one packet may have. Q-in-Q around VXLAN around a tagged frame with
/// IP in IP is five; more than eight is somebody who wants the monitor to work.
const MAX_ENCAPSULATIONS: u32 = 8;

/// UDP ports of VXLAN: IANA's (RFC 7348) and the one that Linux, and with it flannel, used before there was one.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
/// UDP port of Geneve (RFC 8926, section 3.3).
const GENEVE_PORT: u16 = 6081;

const ETHER_MPLS: EtherType = EtherType(0x8847);
const ETHER_MPLS_MULTICAST: EtherType = EtherType(0x8848);
const ETHER_PPPOE_SESSION: EtherType = EtherType(0x8864);
const ETHER_TRANSPARENT_BRIDGING: EtherType = EtherType(0x6558);
const ETHER_ERSPAN_2: EtherType = EtherType(0x88be);
const ETHER_ERSPAN_3: EtherType = EtherType(0x22eb);

/// What the bytes at hand begin with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An address family in four octets (BSD loopback).
    AddressFamily,
    /// The header of a Linux "cooked" capture.
    Cooked,
    /// The same, version 2.
    Cooked2,
    /// Whatever this Ethernet type says.
    EtherType(EtherType),
    /// An IP header, of the version that its first four bits say.
    Ip,
    /// Whatever this IP protocol number says, between these addresses.
    Payload(IpNumber, IpAddr, IpAddr),
}

/// A piece of an IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) identification: u32,
    /// Of the whole packet's payload. In IPv6 only the first fragment's counts (RFC 8200, section 4.5).
    pub(super) protocol: IpNumber,
    pub(super) offset: IpFragOffset,
    pub(super) more: bool,
    pub(super) payload: &'a [u8],
}

/// What a packet comes down to, if it is of use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Segment(Segment<'a>),
    Fragment(Fragment<'a>),
}

/// What a header leads to.
enum Step<'a> {
    /// What the header is always followed by.
    Next(Layer, Span<'a>),
    /// The same, but the header was one that can be put around any number of times.
    Inner(Layer, Span<'a>),
    /// The end of the way.
    Found(Found<'a>),
}

type Walked<'a> = Result<Step<'a>, NotUsed>;

impl Layer {
    /// What packets of this link type begin with.
    pub(super) fn outermost(link_type: LinkType) -> Result<Self, NotUsed> {
        Ok(match link_type {
            LinkType::ETHERNET => Self::Ethernet,
            LinkType::NULL | LinkType::LOOP => Self::AddressFamily,
            LinkType::LINUX_SLL => Self::Cooked,
            LinkType::LINUX_SLL2 => Self::Cooked2,
            // 12 and 14 are what LINKTYPE_RAW is called by the DLT_RAW of FreeBSD and OpenBSD.
            LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 | LinkType(12 | 14) => Self::Ip,
            _ => return Err("link-type-not-supported"),
        })
    }
}

/// Goes through the headers from `layer` on.
pub(super) fn walk(mut layer: Layer, mut bytes: Span<'_>) -> Result<Found<'_>, NotUsed> {
    let mut encapsulations = 0;
    loop {
        let step = match layer {
            Layer::Ethernet => ethernet(bytes),
            Layer::AddressFamily => address_family(bytes),
            Layer::Cooked => cooked(bytes, 14, 16),
            Layer::Cooked2 => cooked(bytes, 0, 20),
            Layer::EtherType(ether_type) => ether(ether_type, bytes),
            Layer::Ip => ip(bytes),
            Layer::Payload(protocol, source, destination) => payload(protocol, source, destination, bytes),
        };
        (layer, bytes) = match step? {
            Step::Next(layer, bytes) => (layer, bytes),
            Step::Inner(layer, bytes) => {
                encapsulations += 1;
                if encapsulations > MAX_ENCAPSULATIONS {
                    return Err("too-many-encapsulations");
                }
                (layer, bytes)
            }
            Step::Found(found) => return Ok(found),
        };
    }
}

const CUT_LINK: NotUsed = "cut-link-header";
const CUT_IP: NotUsed = "cut-ip-header";
const CUT_EXTENSION: NotUsed = "cut-ip-extension-header";
const CUT_TUNNEL: NotUsed = "cut-tunnel-header";

fn ethernet(bytes: Span<'_>) -> Walked<'_> {
    let header = Ethernet2HeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_LINK)?;
    let rest = bytes.skip(header.slice().len()).ok_or(CUT_LINK)?;
    Ok(Step::Next(Layer::EtherType(header.ether_type()), rest))
}

/// The family is in the byte order of the machine that captured, which the file does not always tell; no family is
/// above 255, so both orders can be told apart.
fn address_family(bytes: Span<'_>) -> Walked<'_> {
    let family = u32::from_be_bytes(*bytes.captured.first_chunk().ok_or(CUT_LINK)?);
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        // IPv4 everywhere; IPv6 on NetBSD and OpenBSD, FreeBSD, Darwin, and Linux.
        2 | 24 | 28 | 30 | 10 => Ok(Step::Next(Layer::Ip, bytes.skip(4).ok_or(CUT_LINK)?)),
        _ => Err("address-family-not-ip"),
    }
}

/// Both versions hold an Ethernet type, at different places (LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2).
fn cooked(bytes: Span<'_>, protocol_at: usize, header_len: usize) -> Walked<'_> {
    let rest = bytes.skip(header_len).ok_or(CUT_LINK)?;
    Ok(Step::Next(Layer::EtherType(ether_type_at(bytes, protocol_at, CUT_LINK)?), rest))
}

fn ether(ether_type: EtherType, bytes: Span<'_>) -> Walked<'_> {
    use ether_type::{ARP, IPV4, IPV6, PROVIDER_BRIDGING, VLAN_DOUBLE_TAGGED_FRAME, VLAN_TAGGED_FRAME};
    match ether_type {
        IPV4 | IPV6 => Ok(Step::Next(Layer::Ip, bytes)),
        VLAN_TAGGED_FRAME | PROVIDER_BRIDGING | VLAN_DOUBLE_TAGGED_FRAME => {
            let tag = SingleVlanHeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_LINK)?;
            let rest = bytes.skip(tag.slice().len()).ok_or(CUT_LINK)?;
            Ok(Step::Inner(Layer::EtherType(tag.ether_type()), rest))
        }
        ETHER_MPLS | ETHER_MPLS_MULTICAST => mpls(ether_type, bytes),
        ETHER_PPPOE_SESSION => pppoe(bytes),
        ARP => Err("arp"),
        _ => Err("other-ether-type"),
    }
}

/// One label (RFC 3032, section 2.1). What follows the last one is not told; IP shows by its version.
fn mpls(ether_type: EtherType, bytes: Span<'_>) -> Walked<'_> {
    let label = bytes.captured.first_chunk::<4>().ok_or(CUT_LINK)?;
    let rest = bytes.skip(label.len()).ok_or(CUT_LINK)?;
    if label[2] & 1 == 0 {
        return Ok(Step::Inner(Layer::EtherType(ether_type), rest));
    }
    match rest.captured.first().map(|byte| byte >> 4) {
        Some(4 | 6) => Ok(Step::Inner(Layer::Ip, rest)),
        Some(_) => Err("mpls-without-ip"),
        None => Err(CUT_IP),
    }
}

/// Session stage (RFC 2516, section 4) with the PPP protocol number (RFC 1661, section 2).
fn pppoe(bytes: Span<'_>) -> Walked<'_> {
    let header = bytes.captured.first_chunk::<8>().ok_or(CUT_LINK)?;
    let rest = bytes.skip(header.len()).ok_or(CUT_LINK)?;
    match [header[6], header[7]] {
        [0x00, 0x21 | 0x57] => Ok(Step::Inner(Layer::Ip, rest)),
        _ => Err("ppp-without-ip"),
    }
}

fn ip(bytes: Span<'_>) -> Walked<'_> {
    match bytes.captured.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        Some(_) => Err("bad-ip-header"),
        None => Err(CUT_IP),
    }
}

fn ipv4(bytes: Span<'_>) -> Walked<'_> {
    use etherparse::err::ipv4::HeaderSliceError;
    let header = Ipv4HeaderSlice::from_slice(bytes.captured).map_err(|error| match error {
        HeaderSliceError::Len(_) => CUT_IP,
        HeaderSliceError::Content(_) => "bad-ip-header",
    })?;
    let rest = bytes.skip(header.slice().len()).ok_or(CUT_IP)?;
    let rest = match usize::from(header.total_len()) {
        // A segment that is cut up only behind the capture (TSO, BIG TCP) and is too long for the field.
        0 => rest,
        total_len => rest.limit(total_len.checked_sub(header.slice().len()).ok_or("bad-ip-header")?),
    };
    let (source, destination) = (Ipv4Addr::from(header.source()).into(), Ipv4Addr::from(header.destination()).into());
    if !header.is_fragmenting_payload() {
        return Ok(Step::Next(Layer::Payload(header.protocol(), source, destination), rest));
    }
    fragment(rest, |payload| Fragment {
        source,
        destination,
        identification: header.identification().into(),
        protocol: header.protocol(),
        offset: header.fragments_offset(),
        more: header.more_fragments(),
        payload,
    })
}

fn ipv6(bytes: Span<'_>) -> Walked<'_> {
    let header = Ipv6HeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_IP)?;
    let rest = bytes.skip(header.slice().len()).ok_or(CUT_IP)?;
    let rest = match usize::from(header.payload_length()) {
        // The same as above; some kernels add a jumbo payload option, which is an extension header like any.
        0 => rest,
        len => rest.limit(len),
    };
    let (source, destination) = (Ipv6Addr::from(header.source()).into(), Ipv6Addr::from(header.destination()).into());
    Ok(Step::Next(Layer::Payload(header.next_header(), source, destination), rest))
}

/// What an IP packet carries: extension headers (each leads to the next; the packet's length bounds them), and in the
/// end a transport or a tunnel.
fn payload(protocol: IpNumber, source: IpAddr, destination: IpAddr, bytes: Span<'_>) -> Walked<'_> {
    let next = |protocol, len| {
        let rest = bytes.skip(len).ok_or(CUT_EXTENSION)?;
        Ok(Step::Next(Layer::Payload(protocol, source, destination), rest))
    };
    match protocol {
        ip_number::TCP => segment(source, destination, bytes).map(|segment| Step::Found(Found::Segment(segment))),
        ip_number::UDP => udp(bytes),
        ip_number::IPV4 | ip_number::IPV6 => Ok(Step::Inner(Layer::Ip, bytes)),
        ip_number::GRE => gre(bytes),
        ip_number::AUTH => {
            let header = IpAuthHeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_EXTENSION)?;
            next(header.next_header(), header.slice().len())
        }
        ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE if source.is_ipv6() => {
            let header = Ipv6RawExtHeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_EXTENSION)?;
            next(header.next_header(), header.slice().len())
        }
        ip_number::IPV6_FRAG if source.is_ipv6() => {
            let header = Ipv6FragmentHeaderSlice::from_slice(bytes.captured).map_err(|_| CUT_EXTENSION)?;
            if !header.is_fragmenting_payload() {
                return next(header.next_header(), header.slice().len());
            }
            let rest = bytes.skip(header.slice().len()).ok_or(CUT_EXTENSION)?;
            fragment(rest, |payload| Fragment {
                source,
                destination,
                identification: header.identification(),
                protocol: header.next_header(),
                offset: header.fragment_offset(),
                more: header.more_fragments(),
                payload,
            })
        }
        ip_number::ICMP | ip_number::IPV6_ICMP => Err("icmp"),
        ip_number::SCTP => Err("sctp"),
        ip_number::ENCAP_SEC => Err("ipsec-esp"),
        _ => Err("other-ip-protocol"),
    }
}

/// A fragment can be used only when all of it was captured.
fn fragment<'a>(payload: Span<'a>, build: impl FnOnce(&'a [u8]) -> Fragment<'a>) -> Walked<'a> {
    if payload.wire > payload.captured.len() {
        return Err("cut-ip-fragment");
    }
    Ok(Step::Found(Found::Fragment(build(payload.captured))))
}

fn udp(bytes: Span<'_>) -> Walked<'_> {
    let header = UdpHeaderSlice::from_slice(bytes.captured).map_err(|_| "cut-udp-header")?;
    let rest = bytes.skip(header.slice().len()).ok_or("cut-udp-header")?;
    match header.destination_port() {
        port if VXLAN_PORTS.contains(&port) => vxlan(rest),
        GENEVE_PORT => geneve(rest),
        _ => Err("udp"),
    }
}

/// RFC 7348, section 5: flags with the I bit set, a network identifier, then an Ethernet frame.
fn vxlan(bytes: Span<'_>) -> Walked<'_> {
    let header = bytes.captured.first_chunk::<8>().ok_or(CUT_TUNNEL)?;
    if header[0] & 0x08 == 0 {
        return Err("udp");
    }
    Ok(Step::Inner(Layer::Ethernet, bytes.skip(header.len()).ok_or(CUT_TUNNEL)?))
}

/// RFC 8926, section 3.4: version 0, options counted in words of four octets, an Ethernet type.
fn geneve(bytes: Span<'_>) -> Walked<'_> {
    let header = bytes.captured.first_chunk::<8>().ok_or(CUT_TUNNEL)?;
    if header[0] >> 6 != 0 {
        return Err("udp");
    }
    let rest = bytes.skip(header.len() + usize::from(header[0] & 0x3f) * 4).ok_or(CUT_TUNNEL)?;
    tunnelled(EtherType(u16::from_be_bytes([header[2], header[3]])), rest)
}

/// RFC 2784 with key and sequence number of RFC 2890: version 0, and optional words as the flags say. ERSPAN (Cisco)
/// puts a header of its own before the mirrored frame: none in type I, which has no sequence number, 8 octets in
/// type II, 12 and perhaps 8 more in type III.
fn gre(bytes: Span<'_>) -> Walked<'_> {
    const CHECKSUM_OR_ROUTING: u8 = 0xc0;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    let header = bytes.captured.first_chunk::<4>().ok_or(CUT_TUNNEL)?;
    let (flags, version) = (header[0], header[1] & 0x07);
    if version != 0 {
        return Err("gre-version-not-supported");
    }
    let words = [CHECKSUM_OR_ROUTING, KEY, SEQUENCE].into_iter().filter(|bits| flags & bits != 0).count();
    let rest = bytes.skip(header.len() + words * 4).ok_or(CUT_TUNNEL)?;
    match EtherType(u16::from_be_bytes([header[2], header[3]])) {
        ETHER_ERSPAN_2 => {
            let len = if flags & SEQUENCE == 0 { 0 } else { 8 };
            Ok(Step::Inner(Layer::Ethernet, rest.skip(len).ok_or(CUT_TUNNEL)?))
        }
        ETHER_ERSPAN_3 => {
            let erspan = rest.captured.first_chunk::<12>().ok_or(CUT_TUNNEL)?;
            let len = if erspan[11] & 1 == 0 { 12 } else { 20 };
            Ok(Step::Inner(Layer::Ethernet, rest.skip(len).ok_or(CUT_TUNNEL)?))
        }
        ether_type => tunnelled(ether_type, rest),
    }
}

fn tunnelled(ether_type: EtherType, rest: Span<'_>) -> Walked<'_> {
    match ether_type {
        ETHER_TRANSPARENT_BRIDGING => Ok(Step::Inner(Layer::Ethernet, rest)),
        ether_type => Ok(Step::Inner(Layer::EtherType(ether_type), rest)),
    }
}

fn ether_type_at(bytes: Span<'_>, at: usize, cut: NotUsed) -> Result<EtherType, NotUsed> {
    let bytes = bytes.captured.get(at..).and_then(<[u8]>::first_chunk).ok_or(cut)?;
    Ok(EtherType(u16::from_be_bytes(*bytes)))
}
