//! Live packets by libpcap: interfaces by name or pattern, or `any`, with a filter that follows what is watched.
//!
//! It is the fall-back where eBPF cannot be used, and the way to read mirror ports. What it cannot do: choose by connection
//! what is copied ([`LiveSource::decide`] only withdraws what the signature of a handshake was taken for), see inside tunnels
//! before they end (name the tunnel's own interface), or see other network namespaces than its own. A packet that passes two
//! watched interfaces of this host (both ends of a veth pair, a bridge and its port, `any`) is handed over twice; the engine
//! takes the second for the retransmission that it looks like.
//!
//! The books: `seen` is what the kernel's filter let through, so it holds only what is watched, and `uninteresting` stays 0.
//! What the interface itself lost is added to `seen` and to what was lost; it is counted by the driver before any filter, so
//! other traffic is in it.

mod clock;
mod filter;
mod handle;
mod interfaces;
mod program;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use distwatch_engine::dist::{looks_like_send_name, looks_like_status};
use distwatch_engine::event::Expected;
use distwatch_engine::limits::Limits;
use distwatch_engine::net::{Decoded, Net};
use distwatch_engine::packet::{InterfaceId, LinkType, PacketRef};
use distwatch_engine::time::Timestamp;
use distwatch_engine::wire::Match;
use globset::{Glob, GlobMatcher};
use rustix::event::{PollFd, PollFlags, Timespec};

use self::clock::{Clock, Now};
use self::filter::{Filter, Watched};
use self::handle::Handle;
use super::link_changes::LinkChanges;
use super::live::{Books, Captured, FlowCounts, FlowEnds, LiveSource, Lost, Verdict};

/// The name of all interfaces together.
const ANY: &str = "any";

/// Time between two exchanges of the filter. The first change after a quiet time is in force at once; compiling the longest
/// filter takes some milliseconds, and a node that registers many listeners must not cost more than packets do.
const BETWEEN_FILTERS: Duration = Duration::from_millis(50);

/// Interfaces that are open at once. Each has a buffer of its own.
const MOST_HANDLES: usize = 256;

/// Names that are remembered of interfaces that are gone: hosts that run containers make new ones all day.
const MOST_NAMES: usize = 4096;

/// How long an interface that is gone is still read: the last block of its buffer is handed over when its time is up.
const LINGER: Duration = Duration::from_millis(100);

/// No handshake's first message is longer (with headers): what is longer need not be looked at.
const LONGEST_SIGNATURE: usize = 2048;

/// How to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names, patterns (`veth*`), or `any` for all of them in one.
    pub interfaces: Vec<String>,
    /// The kernel's buffer for an interface, in octets.
    pub buffer_size: usize,
    /// How long a packet may wait in the kernel so that more are handed over at once. Zero wakes up for each packet, and
    /// makes room for fewer of them in the buffer.
    pub latency: Duration,
    /// Also packets that are not addressed to this host: a mirror port.
    pub promiscuous: bool,
}

impl Default for Options {
    /// All interfaces; 24 MiB hold an eighth of a second at the highest rate that two Erlang nodes were seen to reach; waiting
    /// 4 ms spares nearly all wake-ups.
    fn default() -> Self {
        Self {
            interfaces: vec![ANY.to_owned()],
            buffer_size: 24 << 20,
            latency: Duration::from_millis(4),
            promiscuous: false,
        }
    }
}

/// A live capture by libpcap.
pub struct PcapLive {
    options: Options,
    patterns: Vec<GlobMatcher>,
    handles: Vec<Handle>,
    /// Unless it is `any` that is captured from.
    changes: Option<LinkChanges>,
    /// Which handle is read first the next time, so that a busy one does not starve the others.
    first: usize,
    watched: Watched,
    filter: Filter,
    /// The filter is not what is watched any more.
    stale: bool,
    exchanged: Option<Instant>,
    exchanges: u64,
    clock: Clock,
    net: Net,
    names: BTreeMap<u32, String>,
    /// Interfaces that match and are not open, with the reason.
    waiting: BTreeMap<String, String>,
    books: Books,
    dropped: u64,
    lost_by_interfaces: u64,
    closed: u64,
}

impl PcapLive {
    /// Opens the interfaces that are there. Those that match later are opened by [`LiveSource::refresh`].
    ///
    /// # Errors
    /// A pattern is none, or nothing may be opened: [`io::ErrorKind::PermissionDenied`] names what is missing.
    pub fn open(options: Options) -> io::Result<Self> {
        let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        if options.interfaces.is_empty() {
            return Err(bad("no interface is named".to_owned()));
        }
        let patterns = options.interfaces.iter().map(|pattern| {
            let glob = Glob::new(pattern).map_err(|error| bad(format!("{pattern:?} is no pattern: {error}")))?;
            Ok(glob.compile_matcher())
        });
        let patterns = patterns.collect::<io::Result<_>>()?;
        let watched = Watched::new();
        // Before the interfaces are looked at, so that none comes unseen.
        let changes = options.interfaces.iter().any(|name| name != ANY).then(LinkChanges::listen);
        let mut source = Self {
            options,
            patterns,
            handles: Vec::new(),
            changes,
            first: 0,
            filter: watched.filter(),
            watched,
            stale: false,
            exchanged: None,
            exchanges: 0,
            clock: Clock::default(),
            net: Net::new(&Limits::default()),
            names: BTreeMap::new(),
            waiting: BTreeMap::new(),
            books: Books::default(),
            dropped: 0,
            lost_by_interfaces: 0,
            closed: 0,
        };
        source.refresh()?;
        Ok(source)
    }

    /// How often the kernel's filter was exchanged.
    #[must_use]
    pub const fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// The version of libpcap, as it says it.
    #[must_use]
    pub fn library_version() -> String {
        library_version()
    }

    /// Sets the filter of all interfaces to what is watched now.
    fn exchange(&mut self) {
        self.filter = self.watched.filter();
        for handle in &mut self.handles {
            if let Err(error) = handle.filter(&self.filter.expression) {
                // It goes on with the old filter, and is asked again at the next change.
                tracing::warn!(interface = handle.name, %error, "the capture filter cannot be exchanged");
            }
        }
        self.exchanges += 1;
        self.exchanged = Some(Instant::now());
        self.stale = false;
    }

    /// How long the next exchange has to wait; none where there is nothing to exchange.
    fn until_exchange(&self) -> Option<Duration> {
        let since = self.exchanged.map_or(BETWEEN_FILTERS, |at| at.elapsed());
        self.stale.then(|| BETWEEN_FILTERS.saturating_sub(since))
    }

    fn exchange_if_due(&mut self) {
        if self.until_exchange().is_some_and(|wait| wait.is_zero()) {
            self.exchange();
        }
    }

    /// Hands over what is there.
    fn drain(&mut self, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> usize {
        let Self { handles, watched, clock, net, books, stale, .. } = self;
        let now = Now::read();
        let mut taken = 0;
        let count = handles.len();
        for turn in 0..count {
            let handle = &mut handles[(self.first + turn) % count];
            let (link_type, index) = (handle.link_type(), handle.index);
            taken += handle.read(most - taken, |packet| {
                let data = packet.data;
                // With this precision the fraction is in nanoseconds.
                let stamp = i128::from(packet.header.ts.tv_sec) * 1_000_000_000 + i128::from(packet.header.ts.tv_usec);
                let interface = match link_type {
                    LinkType::LINUX_SLL2 => {
                        data.get(4..8).and_then(|index| index.try_into().ok()).map(u32::from_be_bytes)
                    }
                    _ => Some(index),
                };
                books.seen_bytes += u64::from(packet.header.len);
                books.handed += 1;
                books.handed_bytes += data.len() as u64;
                let captured = Captured {
                    monotonic: clock.monotonic(stamp, now),
                    interface: interface.unwrap_or(0),
                    link_type,
                    data,
                    original_len: packet.header.len,
                };
                if let Some(listener) = recognise(&captured, watched, net) {
                    watched.recognise(listener);
                    *stale = true;
                }
                take(captured);
            });
            if taken >= most {
                self.first = (self.first + turn) % count;
                return taken;
            }
        }
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        clock.drained(now);
        taken
    }

    /// Asks the kernel what it counted.
    fn count(&mut self) {
        for handle in &mut self.handles {
            let counted = handle.count();
            self.books.seen += counted.received + counted.lost_by_the_interface;
            self.dropped += counted.dropped;
            self.lost_by_interfaces += counted.lost_by_the_interface;
        }
    }

    /// Closes what is gone and has been read to its end.
    fn close_ended(&mut self) {
        if !self.handles.iter().any(|handle| handle.ending.is_some_and(|since| since.elapsed() >= LINGER)) {
            return;
        }
        self.count();
        self.handles.retain(|handle| {
            let ended = handle.ending.is_some_and(|since| since.elapsed() >= LINGER);
            if ended {
                tracing::info!(interface = handle.name, "the interface is gone");
                self.closed += handle.waiting();
            }
            !ended
        });
    }

    /// Whether an interface is asked for by name or pattern.
    fn is_asked_for(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(name))
    }
}

/// Takes in the names of the interfaces that are there. Those that are gone are read for a moment longer; where there are many of
/// them, all are forgotten.
fn remember(names: &mut BTreeMap<u32, String>, there: &BTreeMap<String, u32>) {
    if names.len() >= there.len() + MOST_NAMES {
        names.clear();
    }
    names.extend(there.iter().map(|(name, &index)| (index, name.clone())));
}

/// The listener of a connection that only the signature of the handshake told of.
fn recognise(captured: &Captured<'_>, watched: &Watched, net: &mut Net) -> Option<SocketAddr> {
    if captured.data.len() > LONGEST_SIGNATURE || has_watched_port(captured, watched) {
        return None;
    }
    let packet = distwatch_engine::packet::Packet {
        reference: PacketRef::default(),
        time: Timestamp::EPOCH,
        link_type: captured.link_type,
        interface: InterfaceId(captured.interface),
        data: captured.data,
        original_len: captured.original_len,
    };
    let Decoded::Tcp(segment) = net.decode(&packet) else {
        return None;
    };
    let listener = if looks_like_send_name(segment.payload) == Match::Yes {
        segment.destination
    } else if looks_like_status(segment.payload) == Match::Yes {
        segment.source
    } else {
        return None;
    };
    (!watched.has(listener)).then_some(listener)
}

/// Whether the packet is of a port that is watched, as far as that can be told at a glance.
fn has_watched_port(captured: &Captured<'_>, watched: &Watched) -> bool {
    let ports = || {
        let ip = captured.data.get(
            match captured.link_type {
                LinkType::ETHERNET => 14,
                LinkType::LINUX_SLL => 16,
                LinkType::LINUX_SLL2 => 20,
                LinkType::RAW => 0,
                _ => return None,
            }..,
        )?;
        let tcp = match ip.first()? {
            version if version >> 4 == 4 && *ip.get(9)? == 6 => ip.get(usize::from(version & 0xf) * 4..)?,
            version if version >> 4 == 6 && *ip.get(6)? == 6 => ip.get(40..)?,
            _ => return None,
        };
        let &[a, b, c, d] = tcp.first_chunk()?;
        Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
    };
    ports().is_some_and(|ports| ports.into_iter().any(|port| watched.has_port(port)))
}

impl LiveSource for PcapLive {
    fn kind(&self) -> &'static str {
        "pcap"
    }

    fn attachments(&self) -> Vec<String> {
        let open = self.handles.iter().map(|handle| format!("libpcap on {}: {}", handle.name, self.filter.words));
        let waiting = self.waiting.iter().map(|(name, reason)| format!("waiting for {name}: {reason}"));
        open.chain(waiting).collect()
    }

    fn poll(&mut self, wait: Duration, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> io::Result<usize> {
        if self.changes.as_ref().is_some_and(LinkChanges::any) {
            self.refresh()?;
        }
        self.exchange_if_due();
        let taken = self.drain(most, take);
        // What was recognised by what was just read is watched as soon as it can be.
        self.exchange_if_due();
        if taken > 0 || wait.is_zero() || most == 0 {
            self.close_ended();
            return Ok(taken);
        }
        let wait = self.until_exchange().unwrap_or(wait).min(wait);
        let ready = {
            let mut sockets: Vec<PollFd<'_>> = self
                .handles
                .iter()
                .filter(|handle| handle.ending.is_none())
                .map(|handle| PollFd::from_borrowed_fd(handle.socket(), PollFlags::IN))
                .collect();
            match rustix::event::poll(&mut sockets, Some(&Timespec::try_from(wait).unwrap_or_default())) {
                Ok(ready) => ready,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            }
        };
        self.exchange_if_due();
        let taken = if ready > 0 { self.drain(most, take) } else { 0 };
        self.exchange_if_due();
        self.close_ended();
        Ok(taken)
    }

    fn interface_name(&mut self, interface: u32) -> String {
        if let Some(name) = self.names.get(&interface) {
            return name.clone();
        }
        let name = if interface == 0 { None } else { interfaces::name(interface) };
        if let Some(name) = &name {
            self.names.insert(interface, name.clone());
        }
        name.unwrap_or_default()
    }

    fn watch_ports(&mut self, ports: &[(RangeInclusive<u16>, Expected)]) -> io::Result<()> {
        self.stale |= self.watched.configure(ports.iter().flat_map(|(range, _)| range.clone()).collect());
        Ok(())
    }

    fn watch(&mut self, at: SocketAddr, _: Expected) -> io::Result<()> {
        self.stale |= self.watched.add(at)?;
        Ok(())
    }

    fn unwatch(&mut self, at: SocketAddr) -> io::Result<()> {
        self.stale |= self.watched.remove(at);
        Ok(())
    }

    fn decide(&mut self, flow: FlowEnds, verdict: Verdict) -> io::Result<()> {
        if verdict == Verdict::Ignore {
            self.stale |= self.watched.forget(flow.acceptor);
        }
        Ok(())
    }

    fn counts(&mut self, _: &mut dyn FnMut(FlowEnds, FlowCounts)) {}

    fn refresh(&mut self) -> io::Result<()> {
        let there = interfaces::list()?;
        for handle in self.handles.iter_mut().filter(|handle| handle.index != 0 && handle.ending.is_none()) {
            if there.get(&handle.name) != Some(&handle.index) {
                handle.ending = Some(Instant::now());
            }
        }
        self.waiting.clear();
        let mut forbidden = None;
        let any = self.options.interfaces.iter().any(|name| name == ANY);
        let mut asked: BTreeMap<String, u32> = there
            .iter()
            .filter(|(name, _)| !any && self.is_asked_for(name))
            .map(|(name, &index)| (name.clone(), index))
            .collect();
        if any {
            asked.insert(ANY.to_owned(), 0);
        } else {
            for pattern in self.options.interfaces.iter().zip(&self.patterns) {
                if !asked.keys().any(|name| pattern.1.is_match(name)) {
                    self.waiting.insert(pattern.0.clone(), "there is no such interface".to_owned());
                }
            }
        }
        remember(&mut self.names, &there);
        for (name, index) in asked {
            let is_open = |handle: &Handle| handle.name == name && handle.index == index && handle.ending.is_none();
            if self.handles.iter().any(is_open) {
                continue;
            }
            if self.handles.len() >= MOST_HANDLES {
                self.waiting.insert(name, format!("{MOST_HANDLES} interfaces are open, which is the limit"));
                continue;
            }
            match Handle::open(&name, index, &self.options, &self.filter.expression) {
                Ok(handle) => {
                    tracing::info!(interface = name, "capturing");
                    self.handles.push(handle);
                }
                Err(error) => {
                    if error.forbidden {
                        forbidden.get_or_insert_with(|| format!("{name}: {}", error.reason));
                    }
                    self.waiting.insert(name, error.reason);
                }
            }
        }
        match forbidden {
            Some(reason) if self.handles.is_empty() => {
                let text = format!("capturing needs CAP_NET_RAW: {reason}");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
            _ => Ok(()),
        }
    }

    fn books(&mut self) -> Books {
        self.count();
        let lost = [("kernel", self.dropped), ("interface", self.lost_by_interfaces), ("closed", self.closed)];
        let mut books = self.books.clone();
        books.lost = lost.map(|(stage, packets)| Lost { stage, packets, bytes: 0 }).to_vec();
        books
    }
}

/// The version of libpcap, as it says it: `libpcap version 1.10.3 (with TPACKET_V3)`.
#[allow(unsafe_code)] // The crate does not wrap this function.
fn library_version() -> String {
    unsafe extern "C" {
        fn pcap_lib_version() -> *const std::ffi::c_char;
    }
    // SAFETY: libpcap, which the crate `pcap` links, declares it so, and returns a text that is never freed.
    let text = unsafe { std::ffi::CStr::from_ptr(pcap_lib_version()) };
    text.to_string_lossy().into_owned()
}
