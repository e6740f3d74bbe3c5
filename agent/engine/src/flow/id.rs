//! The stable id of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::time::Timestamp;

/// 64 bits that stand for a connection: the same for the same addresses, ports and time of opening, in every run and
/// whichever end is taken for the initiator. Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl FlowId {
    /// Of the connection between these two that was opened then.
    #[must_use]
    pub fn new(one: SocketAddr, other: SocketAddr, opened: Timestamp) -> Self {
        let (low, high) =
            if (one.ip(), one.port()) <= (other.ip(), other.port()) { (one, other) } else { (other, one) };
        let mut hash = SipHash::new();
        for end in [low, high] {
            match end.ip() {
                IpAddr::V4(ip) => hash.word(u64::from(u32::from(ip))),
                IpAddr::V6(ip) => {
                    let bits = u128::from(ip);
                    hash.word((bits >> 64) as u64);
                    hash.word(bits as u64);
                }
            }
        }
        // 6 is TCP's protocol number; the family keeps an IPv4 address apart from an IPv6 address of the same bits.
        let family = if low.is_ipv4() { 4 } else { 6 };
        hash.word(u64::from(low.port()) << 48 | u64::from(high.port()) << 32 | family << 8 | 6);
        hash.word(opened.as_nanos() as u64);
        Self(hash.finish())
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// SipHash-1-3 over whole words with a fixed key. Written out because the standard library promises no particular
/// algorithm, and an id must not change with the compiler.
struct SipHash {
    v: [u64; 4],
}

impl SipHash {
    /// The constants of SipHash mixed with the key `b"distwatch flowid"`, in little-endian halves.
    fn new() -> Self {
        let (k0, k1) = (u64::from_le_bytes(*b"distwatc"), u64::from_le_bytes(*b"h flowid"));
        Self {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
    }

    fn finish(mut self) -> u64 {
        self.v[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_from_either_end_and_differs_by_port_time_and_family() {
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:4369".parse().unwrap());
        let at = Timestamp::from_parts(1_700_000_000, 5);
        let id = FlowId::new(a, b, at);
        assert_eq!(id, FlowId::new(b, a, at));
        assert_ne!(id, FlowId::new(a, "10.0.0.2:4370".parse().unwrap(), at));
        assert_ne!(id, FlowId::new(a, b, Timestamp::from_parts(1_700_000_000, 6)));
        let six = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_ne!(id, FlowId::new(six("[::a00:1]:40000"), six("[::a00:2]:4369"), at));
        assert_eq!(id.to_string().len(), 16);
    }

    #[test]
    fn ids_do_not_change_from_one_build_to_the_next() {
        let id = FlowId::new(
            "127.0.0.1:40000".parse().unwrap(),
            "127.0.0.1:4369".parse().unwrap(),
            Timestamp::from_parts(1, 0),
        );
        assert_eq!(id.to_string(), "f9cf404e1f11dc6e");
    }
}
