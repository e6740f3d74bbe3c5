//! What the kernel is to let through, as an expression of libpcap's filter language.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How many listeners are kept apart. A large host runs some dozens of nodes; whoever forges EPMD answers must not fill
/// memory.
const MOST_LISTENERS: usize = 8192;

/// How many pairs of address and port stand in the filter as such. libpcap's compiler takes quadratic time (8 ms for 64
/// terms, 340 ms for 512) and the kernel takes 4096 instructions at most; above it ports are watched on every address.
const MOST_PAIRS: usize = 32;

/// How many ports or ranges of them, for the same reason; above it the smallest gaps are closed.
const MOST_RANGES: usize = 32;

/// How many listeners known only by the signature are kept: anybody can send the octets, so the oldest goes.
const MOST_RECOGNISED: usize = 16;

/// The octets that any message of the handshake begins with (`docs/protocol.md` §8.4): a length in two octets and a tag.
/// All of them are asked for, not only the first, because the others pass before the filter can name the connection.
const SIGNATURE: [(u32, u32); 6] = [
    // the name, by version 5 and 6; version 6 has the challenge under the same tag
    (0xf800_ff00, 0x0000_6e00),
    (0xf800_ff00, 0x0000_4e00),
    // the status, whose longest form gives a name
    (0xf800_ff00, 0x0000_7300),
    // the answer to the challenge, its acknowledgement, and the complement: one length each
    (0xffff_ff00, 0x0015_7200),
    (0xffff_ff00, 0x0011_6100),
    (0xffff_ff00, 0x0009_6300),
];

/// Where the payload of TCP begins, from its header on.
const PAYLOAD: &str = "((tcp[12] & 0xf0) >> 2)";
/// The same in IPv6, where libpcap knows no `tcp[…]`: from the IP header on, without extension headers.
const PAYLOAD_6: &str = "(40 + ((ip6[52] & 0xf0) >> 2))";

/// What is watched: ports on every address, and listeners.
#[derive(Debug)]
pub(super) struct Watched {
    everywhere: BTreeSet<u16>,
    /// Those of them that the configuration names, and those that were learned.
    configured: BTreeSet<u16>,
    learned: BTreeSet<u16>,
    listeners: BTreeSet<SocketAddr>,
    /// Listeners that only the signature told of, the oldest first.
    recognised: VecDeque<SocketAddr>,
    /// How many of either name a port: what is asked of every packet.
    ports: Box<[u16; 65536]>,
}

impl Watched {
    /// Nothing but the signature.
    pub(super) fn new() -> Self {
        let ports = vec![0; 65536].into_boxed_slice().try_into().expect("it is as long as it was made");
        Self {
            everywhere: BTreeSet::new(),
            configured: BTreeSet::new(),
            learned: BTreeSet::new(),
            listeners: BTreeSet::new(),
            recognised: VecDeque::new(),
            ports,
        }
    }

    /// The configuration names these ports, and no others. Returns whether that changes the filter.
    pub(super) fn configure(&mut self, ports: BTreeSet<u16>) -> bool {
        let before = std::mem::replace(&mut self.configured, ports);
        let added: Vec<u16> = self.configured.difference(&self.everywhere).copied().collect();
        let unnamed = before.difference(&self.configured).copied();
        let removed: Vec<u16> = unnamed.filter(|port| !self.learned.contains(port)).collect();
        for &port in &added {
            self.everywhere.insert(port);
            self.count(port, true);
        }
        for &port in &removed {
            self.everywhere.remove(&port);
            self.count(port, false);
        }
        !added.is_empty() || !removed.is_empty()
    }

    /// Something listens there. Returns whether that changes the filter.
    pub(super) fn add(&mut self, at: SocketAddr) -> io::Result<bool> {
        if self.listeners.len() >= MOST_LISTENERS && !at.ip().is_unspecified() {
            return Err(io::Error::other(format!("more than {MOST_LISTENERS} listeners are watched already")));
        }
        let added = match at.ip().is_unspecified() {
            true => {
                self.learned.insert(at.port());
                self.everywhere.insert(at.port())
            }
            false => self.listeners.insert(plain(at)),
        };
        if added {
            self.count(at.port(), true);
        }
        Ok(added)
    }

    /// Nothing listens there any more. Returns whether that changes the filter.
    pub(super) fn remove(&mut self, at: SocketAddr) -> bool {
        let removed = match at.ip().is_unspecified() {
            true => {
                self.learned.remove(&at.port());
                !self.configured.contains(&at.port()) && self.everywhere.remove(&at.port())
            }
            false => self.listeners.remove(&plain(at)),
        };
        if removed {
            self.count(at.port(), false);
        }
        self.forget(at) || removed
    }

    /// A handshake was seen to be answered there.
    pub(super) fn recognise(&mut self, at: SocketAddr) {
        if self.recognised.len() >= MOST_RECOGNISED
            && let Some(oldest) = self.recognised.pop_front()
        {
            self.count(oldest.port(), false);
        }
        self.recognised.push_back(plain(at));
        self.count(at.port(), true);
    }

    /// What was taken for a handshake there was none. Returns whether that changes the filter.
    pub(super) fn forget(&mut self, at: SocketAddr) -> bool {
        let at = plain(at);
        let before = self.recognised.len();
        self.recognised.retain(|&known| known != at);
        let forgotten = self.recognised.len() < before;
        if forgotten {
            self.count(at.port(), false);
        }
        forgotten
    }

    /// Whether a listener with this port is watched, wherever it is.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports[usize::from(port)] > 0
    }

    /// Whether the filter lets connections to it through.
    pub(super) fn has(&self, at: SocketAddr) -> bool {
        let at = plain(at);
        self.everywhere.contains(&at.port()) || self.listeners.contains(&at) || self.recognised.contains(&at)
    }

    /// The filter, and what it watches in words.
    pub(super) fn filter(&self) -> Filter {
        let pairs: BTreeSet<SocketAddr> = self
            .listeners
            .iter()
            .chain(&self.recognised)
            .filter(|at| !self.everywhere.contains(&at.port()))
            .copied()
            .collect();
        let mut ports = self.everywhere.clone();
        let mut widened = pairs.len() > MOST_PAIRS;
        let mut by_address: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        for at in &pairs {
            match widened {
                true => ports.insert(at.port()),
                false => by_address.entry(at.ip()).or_default().insert(at.port()),
            };
        }
        let exact = ranges(&ports);
        widened |= exact.len() > MOST_RANGES;
        let ranges = close_gaps(exact, MOST_RANGES);

        let mut expression = String::new();
        if !ranges.is_empty() {
            write!(expression, "(tcp and ({})) or ", any_of(&ranges)).unwrap_or_default();
        }
        for (address, ports) in &by_address {
            let ports = self::ranges(ports);
            write!(expression, "(tcp and host {address} and ({})) or ", any_of(&ports)).unwrap_or_default();
        }
        // What begins a connection comes before anything that could tell what it is.
        expression.push_str("(tcp[13] & 2) != 0 or (ip6[6] = 6 and (ip6[53] & 2) != 0) or ");
        // What follows the first fragment of a packet has no ports to ask for, and is rare.
        expression.push_str("(ip proto 6 and (ip[6:2] & 0x1fff) != 0) or ip6[6] = 44");
        // An octet that is asked for and not there ends the filter with no, so these stand last.
        for (mask, value) in SIGNATURE {
            write!(expression, " or (tcp[{PAYLOAD}:4] & {mask:#x}) = {value:#x}").unwrap_or_default();
        }
        let six: Vec<String> =
            SIGNATURE.iter().map(|(mask, value)| format!("(ip6[{PAYLOAD_6}:4] & {mask:#x}) = {value:#x}")).collect();
        write!(expression, " or (ip6[6] = 6 and ({}))", six.join(" or ")).unwrap_or_default();

        let mut words = match (ports.len(), by_address.len()) {
            (0, 0) => "the signature of a handshake on any port".to_owned(),
            (ports, 0) => format!("{ports} ports and the signature of a handshake"),
            (ports, addresses) => format!("{ports} ports, {addresses} addresses and the signature of a handshake"),
        };
        if widened {
            words.push_str("; wider than asked for, as there are too many for one filter");
        }
        Filter { expression, words }
    }

    fn count(&mut self, port: u16, up: bool) {
        let count = &mut self.ports[usize::from(port)];
        *count = if up { count.saturating_add(1) } else { count.saturating_sub(1) };
    }
}

/// A filter for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// In libpcap's language.
    pub(super) expression: String,
    /// For a person.
    pub(super) words: String,
}

/// An IPv4 address that an IPv6 socket gave in its own form is IPv4 on the wire.
fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// Ports that follow each other, as ranges.
fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

/// At most `most` ranges that have all ports of these, and as few others as can be.
fn close_gaps(ranges: Vec<(u16, u16)>, most: usize) -> Vec<(u16, u16)> {
    let mut gaps: Vec<(u16, usize)> =
        ranges.windows(2).enumerate().map(|(place, pair)| (pair[1].0 - pair[0].1, place)).collect();
    gaps.sort_unstable();
    let closed: BTreeSet<usize> =
        gaps.iter().take(ranges.len().saturating_sub(most)).map(|&(_, place)| place).collect();
    let mut fewer: Vec<(u16, u16)> = Vec::new();
    for (place, &(first, last)) in ranges.iter().enumerate() {
        match fewer.last_mut() {
            Some((_, end)) if closed.contains(&(place - 1)) => *end = last,
            _ => fewer.push((first, last)),
        }
    }
    fewer
}

fn any_of(ranges: &[(u16, u16)]) -> String {
    let terms: Vec<String> = ranges
        .iter()
        .map(|&(first, last)| match first == last {
            true => format!("port {first}"),
            false => format!("portrange {first}-{last}"),
        })
        .collect();
    terms.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// What is let through besides the beginnings of all connections and the signature.
    fn by_port(watched: &Watched) -> String {
        let Filter { expression, .. } = watched.filter();
        expression.split(" or (tcp[13]").next().unwrap().to_owned()
    }

    #[test]
    fn a_port_that_is_named_no_more_is_not_watched_unless_something_was_learned_to_listen_there() {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let mut watched = Watched::new();
        assert!(watched.configure(BTreeSet::from([4369, 9100, 9101])));
        assert!(!watched.add(any(9100)).unwrap());
        assert!(watched.configure(BTreeSet::from([4369, 9102])));
        let ports: Vec<u16> = (4369..9200).filter(|&port| watched.has(any(port)) && watched.has_port(port)).collect();
        assert_eq!(ports, [4369, 9100, 9102]);
        assert!(!watched.configure(BTreeSet::from([4369, 9102])));
        assert!(!watched.remove(any(4369)), "the configuration names it");
        assert!(watched.remove(any(9100)) && !watched.has_port(9100));
    }

    #[test]
    fn ports_are_watched_everywhere_and_listeners_at_their_address() {
        let mut watched = Watched::new();
        for port in [4369, 9100, 9101, 9102] {
            assert!(watched.add(SocketAddr::from(([0, 0, 0, 0], port))).unwrap());
        }
        watched.add(at("10.0.0.1:40000")).unwrap();
        watched.add(at("[::ffff:10.0.0.1]:40001")).unwrap();
        watched.add(at("[fd00::1]:9101")).unwrap();
        assert_eq!(
            by_port(&watched),
            "(tcp and (port 4369 or portrange 9100-9102)) or (tcp and host 10.0.0.1 and (portrange 40000-40001))"
        );
        assert!(watched.remove(at("10.0.0.1:40000")));
        assert!(!watched.remove(at("10.0.0.1:40000")));
        assert!(watched.has(at("10.0.0.1:40001")) && !watched.has(at("10.0.0.1:40000")));
        assert!(!watched.has_port(40000) && watched.has_port(40001));
        assert!(by_port(&watched).contains("host 10.0.0.1 and (port 40001)"));
    }

    #[test]
    fn too_many_listeners_are_watched_by_port_and_too_many_ports_by_wider_ranges() {
        let mut watched = Watched::new();
        for host in 0..=MOST_PAIRS as u8 {
            watched.add(SocketAddr::from(([10, 0, 0, host], 9000))).unwrap();
        }
        assert_eq!(by_port(&watched), "(tcp and (port 9000))");
        assert!(watched.filter().words.contains("wider"), "{:?}", watched.filter().words);
        for port in (0..200).map(|number| 10_000 + number * 10) {
            watched.add(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
        }
        let filter = by_port(&watched);
        assert_eq!(filter.matches("port").count(), MOST_RANGES, "{filter}");
        assert!(filter.contains("port 9000 "), "the widest gap is left: {filter}");
    }

    #[test]
    fn what_is_known_only_by_its_signature_is_bounded_and_the_oldest_goes() {
        let mut watched = Watched::new();
        for port in 1..=100 {
            watched.recognise(SocketAddr::from(([10, 0, 0, 1], port)));
        }
        assert_eq!(watched.recognised.len(), MOST_RECOGNISED);
        assert!(!watched.has_port(1) && watched.has_port(100));
        assert!(watched.forget(at("10.0.0.1:100")) && !watched.has_port(100));
    }

    #[test]
    fn a_table_that_is_full_says_so() {
        let mut watched = Watched::new();
        for port in 0..MOST_LISTENERS {
            watched.add(SocketAddr::from(([10, 0, 0, 1], port as u16))).unwrap();
        }
        assert!(watched.add(at("10.0.0.2:1")).is_err());
        assert!(watched.add(at("0.0.0.0:1")).is_ok(), "ports are bounded by themselves");
    }

    #[test]
    fn gaps_are_closed_from_the_smallest_on() {
        assert_eq!(close_gaps(vec![(1, 2), (5, 5), (100, 110), (112, 112)], 2), [(1, 5), (100, 112)]);
        assert_eq!(close_gaps(vec![(1, 2), (5, 5)], 2), [(1, 2), (5, 5)]);
        assert_eq!(close_gaps(Vec::new(), 2), []);
    }
}
