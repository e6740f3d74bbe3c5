//! The key of a connection: its two ends.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::net::Segment;

/// Both ends of a connection, the lower first, so that both directions find the same entry. IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub(super) struct Ends {
    low: [u64; 2],
    high: [u64; 2],
    low_port: u16,
    high_port: u16,
}

impl Ends {
    /// The ends of a segment, and whether the lower sent it.
    #[inline]
    pub(super) fn of(segment: &Segment<'_>) -> (Self, bool) {
        Self::between(segment.source, segment.destination)
    }

    /// The ends of what goes from one address to another, and whether the first is the lower.
    #[inline]
    pub(super) fn between(source: SocketAddr, destination: SocketAddr) -> (Self, bool) {
        let source = (Self::bits(source.ip()), source.port());
        let destination = (Self::bits(destination.ip()), destination.port());
        let from_low = source <= destination;
        let ((low, low_port), (high, high_port)) = if from_low { (source, destination) } else { (destination, source) };
        (Self { low, high, low_port, high_port }, from_low)
    }

    fn bits(ip: IpAddr) -> [u64; 2] {
        match ip {
            IpAddr::V4(ip) => [0, 0xffff_0000_0000 | u64::from(u32::from(ip))],
            IpAddr::V6(ip) => {
                let bits = u128::from(ip);
                [(bits >> 64) as u64, bits as u64]
            }
        }
    }

    pub(super) fn address(&self, low: bool) -> SocketAddr {
        let ([upper, lower], port) = if low { (self.low, self.low_port) } else { (self.high, self.high_port) };
        let ip = Ipv6Addr::from(u128::from(upper) << 64 | u128::from(lower));
        SocketAddr::new(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4), port)
    }
}

impl PartialEq for Ends {
    /// Word by word: both were just written that way, and wider loads would wait for it.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.low_port == other.low_port
            && self.high_port == other.high_port
            && self.low[1] == other.low[1]
            && self.high[1] == other.high[1]
            && self.low[0] == other.low[0]
            && self.high[0] == other.high[0]
    }
}

impl Hash for Ends {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.low.into_iter().chain(self.high) {
            state.write_u64(word);
        }
        state.write_u32(u32::from(self.low_port) << 16 | u32::from(self.high_port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TcpFlags;

    #[test]
    fn both_directions_have_the_same_ends_and_the_addresses_come_out_again() {
        for (one, other) in
            [("10.0.0.1:40000", "10.0.0.2:4369"), ("[fe80::1]:9", "[2001:db8::2]:4369"), ("127.0.0.1:2", "127.0.0.1:1")]
        {
            let (one, other): (SocketAddr, SocketAddr) = (one.parse().unwrap(), other.parse().unwrap());
            let segment = |source, destination| Segment {
                source,
                destination,
                sequence: 0,
                acknowledgement: 0,
                flags: TcpFlags(0),
                window: 0,
                payload: &[],
                payload_len: 0,
            };
            let (there, from_low) = Ends::of(&segment(one, other));
            let (back, back_from_low) = Ends::of(&segment(other, one));
            assert_eq!(there, back);
            assert_ne!(from_low, back_from_low);
            assert_eq!((there.address(from_low), there.address(!from_low)), (one, other));
        }
    }
}
