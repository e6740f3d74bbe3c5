//! Cgroups and network namespaces of the tests' own, and what was seen in them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use distwatch::source::ebpf::{EbpfSource, Options};
use distwatch::source::live::{Books, FlowCounts, FlowEnds, LiveSource};
use distwatch_engine::packet::LinkType;

/// How long an external event is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A cgroup that is removed in the end.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// None where this cannot be tested, which is then said.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let Some(root) = root else {
            eprintln!("*** SKIPPED: cgroup v2 is not mounted, so nothing of eBPF was tested");
            return None;
        };
        let path = Path::new(root).join(format!("distwatch-test-{}-{name}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&path) {
            eprintln!("*** SKIPPED: cannot make a cgroup ({error}), so nothing of eBPF was tested");
            return None;
        }
        Some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn options(&self) -> Options {
        Options { cgroup: Some(self.0.clone()), ring: 1 << 20, flows: 1024, ..Options::default() }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // Its processes have been killed, but may not be gone yet.
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Two namespaces with a veth pair between them: 10.99.0.1 on `left0` and 10.99.0.2 on `right0`.
pub(crate) struct Namespaces {
    pub(crate) left: String,
    pub(crate) right: String,
}

impl Namespaces {
    pub(crate) fn new(name: &str) -> Self {
        let [left, right] = ["l", "r"].map(|side| format!("dwe{}{name}{side}", std::process::id()));
        for namespace in [&left, &right] {
            ip(&["netns", "add", namespace]);
        }
        let made = Self { left, right };
        let (left, right) = (made.left.as_str(), made.right.as_str());
        ip(&["link", "add", "left0", "netns", left, "type", "veth", "peer", "name", "right0", "netns", right]);
        for (namespace, interface, address) in [(left, "left0", "10.99.0.1/24"), (right, "right0", "10.99.0.2/24")] {
            ip(&["-n", namespace, "address", "add", address, "dev", interface]);
            ip(&["-n", namespace, "link", "set", interface, "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        made
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in [&self.left, &self.right] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

/// One TCP packet that was handed over.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) captured: usize,
    pub(crate) original: u32,
    pub(crate) interface: u32,
    pub(crate) link: LinkType,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;

impl Seen {
    fn new(link: LinkType, interface: u32, original: u32, data: &[u8]) -> Self {
        let packet = if link == LinkType::ETHERNET { &data[14..] } else { data };
        let (from, to, begin): (IpAddr, IpAddr, usize) = if packet[0] >> 4 == 4 {
            let ip = |at: usize| Ipv4Addr::from(*packet[at..].first_chunk::<4>().unwrap()).into();
            (ip(12), ip(16), usize::from(packet[0] & 15) * 4)
        } else {
            let ip = |at: usize| Ipv6Addr::from(*packet[at..].first_chunk::<16>().unwrap()).into();
            (ip(8), ip(24), 40)
        };
        let tcp = &packet[begin..];
        let port = |at: usize| u16::from_be_bytes(*tcp[at..].first_chunk().unwrap());
        // A packet of which only the headers were asked for may end anywhere.
        let payload = tcp.get(usize::from(tcp[12] >> 4) * 4..).unwrap_or_default();
        Self {
            from: SocketAddr::new(from, port(0)),
            to: SocketAddr::new(to, port(2)),
            sequence: u32::from_be_bytes(*tcp[4..].first_chunk().unwrap()),
            flags: tcp[13],
            payload: payload.to_vec(),
            captured: data.len(),
            original,
            interface,
            link,
        }
    }
}

/// A source with all that it handed over.
pub(crate) struct Watch {
    pub(crate) source: EbpfSource,
    pub(crate) seen: Vec<Seen>,
}

impl Watch {
    /// None where the kernel does not permit it, which is then said.
    pub(crate) fn open(options: &Options) -> Option<Self> {
        match EbpfSource::open(options) {
            Ok(source) => Some(Self { source, seen: Vec::new() }),
            Err(error) if format!("{error:?}").contains("not permitted") => {
                eprintln!("*** SKIPPED: eBPF is not permitted here, so nothing of it was tested: {error:#}");
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Takes what is there.
    pub(crate) fn drain(&mut self) {
        while self.poll(Duration::ZERO) > 0 {}
    }

    fn poll(&mut self, wait: Duration) -> usize {
        let seen = &mut self.seen;
        let mut take = |packet: distwatch::source::live::Captured<'_>| {
            seen.push(Seen::new(packet.link_type, packet.interface, packet.original_len, packet.data));
        };
        self.source.poll(wait, 10_000, &mut take).unwrap()
    }

    /// Takes what comes until it holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what} did not come about; seen: {:#?}", self.summary());
            self.poll(Duration::from_millis(20));
        }
        self.drain();
    }

    /// The payload that `from` sent, in order and without holes. A retransmission says the same again.
    pub(crate) fn payload(&self, from: SocketAddr) -> Vec<u8> {
        let syn = self.seen.iter().find(|seen| seen.from == from && seen.flags & SYN != 0);
        let first = syn.map_or_else(
            || self.seen.iter().find(|seen| seen.from == from).unwrap().sequence,
            |seen| seen.sequence.wrapping_add(1),
        );
        let mut parts: Vec<(usize, &[u8])> = self
            .seen
            .iter()
            .filter(|seen| seen.from == from && !seen.payload.is_empty())
            .map(|seen| (seen.sequence.wrapping_sub(first) as usize, seen.payload.as_slice()))
            .collect();
        parts.sort_unstable();
        let mut all = Vec::new();
        for (at, part) in parts {
            assert!(at <= all.len(), "a hole at {}: {:#?}", all.len(), self.summary());
            let known = (all.len() - at).min(part.len());
            assert!(all[at..at + known] == part[..known], "a retransmission says something else");
            all.extend_from_slice(&part[known..]);
        }
        all
    }

    /// How many with one of the flags.
    pub(crate) fn with(&self, flags: u8) -> usize {
        self.seen.iter().filter(|seen| seen.flags & flags != 0).count()
    }

    pub(crate) fn counts(&mut self, flow: FlowEnds) -> Option<FlowCounts> {
        let mut found = None;
        self.source.counts(&mut |ends, counts| {
            if ends == flow {
                found = Some(counts);
            }
        });
        found
    }

    /// All is accounted for, and all that was handed over is still there.
    pub(crate) fn balance(&mut self) -> Books {
        let books = self.balance_after_clear();
        assert_eq!(books.handed, self.seen.len() as u64, "{books:?}");
        assert_eq!(books.handed_bytes, self.seen.iter().map(|seen| seen.captured as u64).sum::<u64>());
        books
    }

    /// All is accounted for.
    pub(crate) fn balance_after_clear(&mut self) -> Books {
        self.drain();
        let books = self.source.books();
        let lost: u64 = books.lost.iter().map(|lost| lost.packets).sum();
        assert_eq!(books.seen, books.handed + books.uninteresting + books.counted + books.refused + lost, "{books:?}");
        books
    }

    pub(crate) fn interfaces(&mut self) -> BTreeSet<(u32, String)> {
        let numbers: BTreeSet<u32> = self.seen.iter().map(|seen| seen.interface).collect();
        numbers.into_iter().map(|number| (number, self.source.interface_name(number))).collect()
    }

    fn summary(&self) -> Vec<String> {
        let line = |seen: &Seen| {
            format!(
                "{} > {} flags {:02x} seq {} +{}",
                seen.from,
                seen.to,
                seen.flags,
                seen.sequence,
                seen.payload.len()
            )
        };
        self.seen.iter().take(60).map(line).collect()
    }
}
