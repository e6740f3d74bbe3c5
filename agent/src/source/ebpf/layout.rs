//! Between the layouts of the programs and what the agent says: addresses, records, values of maps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use distwatch_ebpf::{Counters, End, Event, Flow, FlowKey, Owner, Record, Verdict};

use crate::source::live::FlowEnds;

/// A value as it stands in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(super) struct Plain<T: Layout>(pub(super) T);

/// The layouts, none of which has padding without a name.
pub(super) trait Layout: Copy + 'static {}
impl Layout for Counters {}
impl Layout for End {}
impl Layout for Flow {}
impl Layout for FlowKey {}
impl Layout for Verdict {}

// SAFETY: a layout is made of numbers alone, in `repr(C)`, and its size is asserted to be that of its fields.
#[allow(unsafe_code)]
// Maps take keys and values as octets, and this is how aya is told that they are.
unsafe impl<T: Layout> aya::Pod for Plain<T> {}

/// One end, as the programs have it.
pub(super) fn end(at: SocketAddr) -> End {
    let octets = match at.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let [half, other] = [0, 8].map(|at| octets[at..].first_chunk().map_or(0, |eight| u64::from_ne_bytes(*eight)));
    End::new([half, other], at.port())
}

/// One end, as the agent has it.
pub(super) fn address(end: End) -> SocketAddr {
    let mut octets = [0; 16];
    let [high, low] = end.address;
    octets[..8].copy_from_slice(&high.to_ne_bytes());
    octets[8..].copy_from_slice(&low.to_ne_bytes());
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), end.port)
}

/// The key of a connection, and which of its ends is the initiator.
pub(super) fn key(flow: FlowEnds, scope: u32) -> (FlowKey, usize) {
    FlowKey::new(end(flow.initiator), end(flow.acceptor), scope)
}

/// Whether the connection is one within a network namespace, of which others may have the like.
pub(super) fn is_scoped(flow: FlowEnds) -> bool {
    flow.initiator.ip().to_canonical().is_loopback() || flow.acceptor.ip().to_canonical().is_loopback()
}

/// Reads numbers, one after the other.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}

/// A record of the packets' ring: its header and the octets.
pub(super) fn record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (header, octets) = bytes.split_at_checked(size_of::<Record>())?;
    let mut header = Numbers(header);
    let record = Record {
        time: header.u64()?,
        cookie: header.u64()?,
        original: header.u32()?,
        captured: header.u32()?,
        ifindex: header.u32()?,
        netns: header.u32()?,
        link: header.u32()?,
        padding: header.u32()?,
    };
    Some((record, octets.get(..record.captured as usize)?))
}

/// A record of the events' ring.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    let mut fields = Numbers(bytes);
    Some(Event {
        time: fields.u64()?,
        cookie: fields.u64()?,
        key: FlowKey {
            low: [fields.u64()?, fields.u64()?],
            high: [fields.u64()?, fields.u64()?],
            low_port: fields.u16()?,
            high_port: fields.u16()?,
            scope: fields.u32()?,
        },
        owner: Owner { cgroup: fields.u64()?, pid: fields.u32()?, uid: fields.u32()?, command: fields.array()? },
        kind: fields.u32()?,
        local: fields.u32()?,
        netns: fields.u32()?,
        padding: fields.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_there_and_back() {
        for text in ["127.0.0.1:4369", "10.1.2.3:1", "[::1]:9100", "[2001:db8::7]:65535"] {
            let at: SocketAddr = text.parse().unwrap();
            assert_eq!(address(end(at)), at);
            let flow = FlowEnds { initiator: at, acceptor: at };
            assert_eq!(is_scoped(flow), end(at).is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_record_that_says_more_than_it_has_is_none() {
        let mut bytes = vec![0; size_of::<Record>()];
        assert_eq!(record(&bytes).map(|(_, octets)| octets.len()), Some(0));
        bytes[20] = 4;
        assert_eq!(record(&bytes), None);
        bytes.extend([1, 2, 3, 4, 5]);
        assert_eq!(record(&bytes).map(|(_, octets)| octets), Some(&[1, 2, 3, 4][..]));
        assert_eq!(record(&bytes[..39]), None);
        assert_eq!(event(&[0; 103]), None);
        assert!(event(&[0; 104]).is_some());
    }
}
