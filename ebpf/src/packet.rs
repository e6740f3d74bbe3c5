//! From a packet in the kernel to who sends what to whom over TCP.
//!
//! Headers are nearly always in the packet's linear part, which is read directly; what is not goes through `bpf_skb_load_bytes`,
//! which reaches all of it.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use distwatch_ebpf::End;

const TCP: u8 = 6;
/// The length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

const VLAN_TAG: u32 = 4;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

/// VLAN tags that are stepped over: 802.1ad has two.
const VLAN_TAGS: usize = 2;

/// IPv6 extension headers that are stepped over. More than hop-by-hop, routing, destination (twice) and fragment make no sense.
const EXTENSION_HEADERS: usize = 6;

/// Flags of TCP.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// A TCP segment.
pub(crate) struct Segment {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// Where the payload begins.
    pub(crate) payload: u32,
    /// How long it is.
    pub(crate) octets: u32,
}

impl Segment {
    #[inline(always)]
    pub(crate) const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// Why a packet is none.
pub(crate) enum Other {
    /// Another protocol.
    NotTcp,
    /// Headers that end too early or contradict each other.
    Unreadable,
}

/// The segment of a packet whose IP header begins at `AT`, or further behind after VLAN tags.
#[inline(always)]
pub(crate) fn segment<const AT: usize>(context: &SkBuffContext) -> Result<Segment, Other> {
    if let Some(segment) = usual::<AT>(context) {
        return Ok(segment);
    }
    let at = if AT == ETHERNET { after_tags(context)? } else { AT as u32 };
    match load::<u8>(context, at)? >> 4 {
        4 => ipv4(context, at),
        6 => ipv6(context, at),
        _ => Err(Other::Unreadable),
    }
}

/// The usual case, and quick: TCP right after an IP header without options, all in the packet's linear part.
#[inline(always)]
fn usual<const AT: usize>(context: &SkBuffContext) -> Option<Segment> {
    const V4: usize = 20;
    const V6: usize = 40;
    const BASE: usize = 20;
    // SAFETY: the fields are the kernel's.
    let (begin, end) = unsafe { ((*context.skb.skb).data as usize, (*context.skb.skb).data_end as usize) };
    let head = Head { begin, end, at: AT };
    if !head.has(V4 + BASE) {
        return None;
    }
    if AT == ETHERNET {
        let kind = head.u16_before(2);
        if kind != IPV4 && kind != IPV6 {
            return None;
        }
    }
    let (base, end, from, to) = if head.u8(0) == 0x45 {
        let [length, fragment] = [head.u16(2), head.u16(6)];
        if head.u8(9) != TCP || fragment & 0x1FFF != 0 || length == 0 {
            return None;
        }
        (V4, length as usize, End::mapped(head.raw(12)), End::mapped(head.raw(16)))
    } else if head.u8(0) >> 4 == 6 && head.has(V6 + BASE) {
        let length = head.u16(4);
        if head.u8(6) != TCP || length == 0 {
            return None;
        }
        (V6, V6 + length as usize, head.address(8), head.address(24))
    } else {
        return None;
    };
    let header = (head.u8(base + 12) >> 4) as usize * 4;
    let payload = base + header;
    if header < BASE || payload > end || AT + end > context.len() as usize {
        return None;
    }
    Some(Segment {
        from: End::new(from, head.u16(base)),
        to: End::new(to, head.u16(base + 2)),
        sequence: u32::from_be(head.raw(base + 4)),
        flags: head.u8(base + 13),
        payload: (AT + payload) as u32,
        octets: (end - payload) as u32,
    })
}

/// The linear part of a packet, from the IP header on. Whoever reads has asked before whether so much is there.
struct Head {
    begin: usize,
    end: usize,
    at: usize,
}

impl Head {
    #[inline(always)]
    const fn has(&self, octets: usize) -> bool {
        self.begin + self.at + octets <= self.end
    }

    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> T {
        // SAFETY: the verifier lets no program in that reads past the end; and it knows which machines can read a number that
        // is not aligned.
        unsafe { core::ptr::read_volatile((self.begin + self.at + at) as *const T) }
    }

    #[inline(always)]
    fn u8(&self, at: usize) -> u8 {
        self.read(at)
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> u16 {
        u16::from_be(self.read(at))
    }

    #[inline(always)]
    fn u16_before(&self, octets: usize) -> u16 {
        // SAFETY: as with `read`.
        u16::from_be(unsafe { core::ptr::read_volatile((self.begin + self.at - octets) as *const u16) })
    }

    #[inline(always)]
    fn raw(&self, at: usize) -> u32 {
        self.read(at)
    }

    #[inline(always)]
    fn address(&self, at: usize) -> [u64; 2] {
        let half = |at: usize| u64::from(self.raw(at)) | u64::from(self.raw(at + 4)) << 32;
        [half(at), half(at + 8)]
    }
}

/// Where the IP header begins, after an Ethernet header and VLAN tags.
#[inline(always)]
fn after_tags(context: &SkBuffContext) -> Result<u32, Other> {
    let mut at = ETHERNET as u32;
    let mut kind = u16::from_be(load::<u16>(context, at - 2)?);
    for _ in 0..VLAN_TAGS {
        if kind != 0x8100 && kind != 0x88A8 {
            break;
        }
        kind = u16::from_be(load::<u16>(context, at + 2)?);
        at += VLAN_TAG;
    }
    if kind == IPV4 || kind == IPV6 { Ok(at) } else { Err(Other::NotTcp) }
}

#[inline(always)]
fn ipv4(context: &SkBuffContext, at: u32) -> Result<Segment, Other> {
    let header = load::<[u32; 5]>(context, at)?;
    let [first, second, third, from, to] = header;
    let [version, _, length @ ..] = first.to_ne_bytes();
    let [_, _, fragment @ ..] = second.to_ne_bytes();
    let [_, protocol, _, _] = third.to_ne_bytes();
    if protocol != TCP {
        return Err(Other::NotTcp);
    }
    if u16::from_be_bytes(fragment) & 0x1FFF != 0 {
        return Err(Other::Unreadable);
    }
    let header = u32::from(version & 15) * 4;
    if header < 20 {
        return Err(Other::Unreadable);
    }
    // 0 is a packet longer than the field can say.
    let end = match u16::from_be_bytes(length) {
        0 => length_of(context),
        length => at + u32::from(length),
    };
    tcp(context, at + header, end, End::mapped(from), End::mapped(to))
}

#[inline(always)]
fn ipv6(context: &SkBuffContext, at: u32) -> Result<Segment, Other> {
    const HEADER: u32 = 40;
    let header = load::<[u32; 2]>(context, at)?;
    let from = load::<[u64; 2]>(context, at + 8)?;
    let to = load::<[u64; 2]>(context, at + 24)?;
    let [length_high, length_low, mut next, _] = header[1].to_ne_bytes();
    let end = match u16::from_be_bytes([length_high, length_low]) {
        0 => length_of(context),
        length => at + HEADER + u32::from(length),
    };
    let mut place = at + HEADER;
    for _ in 0..EXTENSION_HEADERS {
        if next == TCP {
            return tcp(context, place, end, from, to);
        }
        let [following, length, fragment_high, fragment_low] = match next {
            // Hop by hop, routing, destination options, mobility; fragment; authentication.
            0 | 43 | 60 | 135 | 44 | 51 => load::<[u8; 4]>(context, place)?,
            _ => return Err(Other::NotTcp),
        };
        place += match next {
            44 if u16::from_be_bytes([fragment_high, fragment_low]) & 0xFFF8 != 0 => {
                return if following == TCP { Err(Other::Unreadable) } else { Err(Other::NotTcp) };
            }
            44 => 8,
            51 => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        next = following;
    }
    if next == TCP { tcp(context, place, end, from, to) } else { Err(Other::NotTcp) }
}

#[inline(always)]
fn tcp(context: &SkBuffContext, at: u32, end: u32, from: [u64; 2], to: [u64; 2]) -> Result<Segment, Other> {
    let [ports, sequence, _, rest] = load::<[u32; 4]>(context, at)?;
    let [from_high, from_low, to_high, to_low] = ports.to_ne_bytes();
    let [offset, flags, _, _] = rest.to_ne_bytes();
    let header = u32::from(offset >> 4) * 4;
    let payload = at + header;
    if header < 20 || payload > end || end > length_of(context) {
        return Err(Other::Unreadable);
    }
    Ok(Segment {
        from: End::new(from, u16::from_be_bytes([from_high, from_low])),
        to: End::new(to, u16::from_be_bytes([to_high, to_low])),
        sequence: u32::from_be(sequence),
        flags,
        payload,
        octets: end - payload,
    })
}

/// Whether the payload begins as the first message of a distribution handshake does.
///
/// Version 6: length, `N`, flags (8), creation (4), length of the name, name. Version 5: length, `n`, 5, flags (4), name.
#[inline(always)]
pub(crate) fn is_handshake(context: &SkBuffContext, segment: &Segment) -> bool {
    const SHORTEST: u32 = 12;
    if segment.octets < SHORTEST {
        return false;
    }
    let Ok([high, low, tag, version_high, version_low, ..]) = load::<[u8; SHORTEST as usize]>(context, segment.payload)
    else {
        return false;
    };
    let length = u16::from_be_bytes([high, low]);
    match tag {
        b'N' => {
            const BEFORE_NAME: u16 = 15;
            let Ok([high, low]) = load::<[u8; 2]>(context, segment.payload + u32::from(BEFORE_NAME)) else {
                return false;
            };
            length > BEFORE_NAME && u16::from_be_bytes([high, low]) == length - BEFORE_NAME
        }
        b'n' => u16::from_be_bytes([version_high, version_low]) == 5 && length > 7 && length < 512,
        _ => false,
    }
}

/// Whether the payload begins as a record of a TLS handshake does.
#[inline(always)]
pub(crate) fn is_tls_handshake(context: &SkBuffContext, segment: &Segment) -> bool {
    const HEADER: u32 = 5;
    const HANDSHAKE: [u8; 2] = [22, 3];
    segment.octets >= HEADER && load::<[u8; 2]>(context, segment.payload).is_ok_and(|begin| begin == HANDSHAKE)
}

#[inline(always)]
pub(crate) fn length_of(context: &SkBuffContext) -> u32 {
    context.len()
}

/// What stands at `at`.
#[inline(always)]
fn load<T: Copy>(context: &SkBuffContext, at: u32) -> Result<T, Other> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the kernel fills all of `value`, whose size it is told, or answers with an error. `T` is a number or an
    // array of numbers, for which every pattern of bits is valid.
    unsafe {
        if bpf_skb_load_bytes(context.as_ptr(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
            return Err(Other::Unreadable);
        }
        Ok(value.assume_init())
    }
}
