//! Live packets and sockets by programs in the kernel: the one user of aya.
//!
//! The programs are in the package `distwatch-ebpf`; their object is part of this program. They look at every packet of the
//! sockets in a cgroup (by default all), or of some interfaces, and copy what is asked for into a ring. A record wakes
//! nobody while this side looks every few milliseconds by itself; when nothing came for a while, it asks to be woken.

mod attach;
mod btf;
mod flows;
mod layout;
mod listeners;
mod namespace;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use distwatch_ebpf::{Column, Counters, event};
use distwatch_engine::event::Expected;
use distwatch_engine::packet::LinkType;
use globset::{GlobBuilder, GlobSet};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

use self::attach::Attachments;
use self::btf::NamespaceFields;
use self::flows::{Flows, io_error};
use self::layout::{Plain, is_scoped};
use self::listeners::Listeners;
use self::namespace::Interfaces;
use self::sockets::Sockets;
use crate::clocks::monotonic;
use crate::memory;
use crate::source::link_changes::LinkChanges;
use crate::source::live::{Books, Captured, FlowCounts, FlowEnds, LiveSource, Lost, SocketSeen, Verdict};

static OBJECT: &[u8] = include_bytes_aligned!("../../../ebpf/object/distwatch.bpf.o");

/// How long is slept between two looks into the ring. Shorter costs wake-ups, longer costs latency and room in the ring.
const PAUSE: Duration = Duration::from_millis(2);

/// After how many looks in vain this side asks to be woken.
const LOOKS: u32 = 16;

/// What to watch, and how much room to take.
#[derive(Clone, Debug)]
pub struct Options {
    /// A cgroup of which alone the sockets are watched; none is the root of cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// Interfaces to watch instead, by name or glob.
    pub interfaces: Vec<String>,
    /// Use clsact on interfaces, also where the kernel has TCX.
    pub classic: bool,
    /// Ports that are watched on all addresses.
    pub ports: Vec<(RangeInclusive<u16>, Expected)>,
    /// Octets of the ring; made a power of two of at least a page. Below a mebibyte the longest packets have no
    /// room. It counts twice as memory of this process, for it is mapped twice, end to end.
    pub ring: u32,
    /// How many connections the kernel's table holds.
    pub flows: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cgroup: None,
            interfaces: Vec::new(),
            classic: false,
            ports: vec![(4369..=4369, Expected::Epmd)],
            ring: 8 << 20,
            flows: 65_536,
        }
    }
}

/// The back end.
pub struct EbpfSource {
    object: Ebpf,
    attachments: Attachments,
    /// Where it is attached to interfaces.
    changes: Option<LinkChanges>,
    tells_namespaces: bool,
    packets: RingBuf<MapData>,
    events: RingBuf<MapData>,
    sleeping: Array<MapData, u32>,
    counters: PerCpuArray<MapData, Plain<Counters>>,
    listeners: Listeners,
    flows: Flows,
    interfaces: Interfaces,
    sockets: Sockets,
    /// Somebody asks for them.
    tells_sockets: bool,
    in_vain: u32,
    /// Asked to be woken, and not woken since.
    asked: bool,
    handed: u64,
    handed_bytes: u64,
}

impl EbpfSource {
    /// Loads the programs and attaches them.
    ///
    /// # Errors
    /// The kernel or a missing privilege does not allow it: what was tried, and what stood in the way.
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        unlock_memory();
        let fields = NamespaceFields::of_this_kernel();
        let opened = Self::open_any_way(options, fields);
        // To load programs, aya reads the description of all of the kernel's types: some 15 MiB in small pieces.
        memory::give_back();
        opened
    }

    fn open_any_way(options: &Options, fields: NamespaceFields) -> anyhow::Result<Self> {
        match Self::open_with(options, fields) {
            // A locked-down kernel lets no program read its memory, and that is how namespaces are told.
            Err(error) if fields != NamespaceFields::default() => {
                let opened = Self::open_with(options, NamespaceFields::default())?;
                tracing::warn!("network namespaces are not told apart: {error:#}");
                Ok(opened)
            }
            opened => opened,
        }
    }

    fn open_with(options: &Options, fields: NamespaceFields) -> anyhow::Result<Self> {
        let ring = options.ring.max(4096).checked_next_power_of_two().context("the ring is too large")?;
        let flows = options.flows.max(1);
        let mut object = EbpfLoader::new()
            .override_global("SOCKET_NETWORK", &fields.socket_network, true)
            .override_global("NETWORK_INODE", &fields.network_inode, true)
            .map_max_entries("PACKETS", ring)
            .map_max_entries("FLOWS", flows)
            .map_max_entries("VERDICTS", flows)
            .load(OBJECT)
            .context("the kernel does not take the eBPF maps (CAP_BPF is needed, and Linux 5.8 or newer)")?;
        let ports = Array::try_from(map(&mut object, "PORTS")?)?;
        let packets = RingBuf::try_from(map(&mut object, "PACKETS")?)?;
        let events = RingBuf::try_from(map(&mut object, "EVENTS")?)?;
        let sleeping = Array::try_from(map(&mut object, "SLEEPING")?)?;
        let counters = PerCpuArray::try_from(map(&mut object, "COUNTERS")?)?;
        let listeners = Listeners::new(ports, HashMap::try_from(map(&mut object, "LISTENERS")?)?, &options.ports)?;
        let flow_table = HashMap::try_from(map(&mut object, "FLOWS")?)?;
        let verdicts = HashMap::try_from(map(&mut object, "VERDICTS")?)?;
        // Before they are looked at, so that none comes unseen.
        let changes = (!options.interfaces.is_empty()).then(LinkChanges::listen);
        let attachments = if options.interfaces.is_empty() {
            let cgroup = options.cgroup.clone().map_or_else(attach::root_of_cgroups, Ok)?;
            Attachments::to_cgroup(&mut object, &cgroup)?
        } else {
            Attachments::to_interfaces(&mut object, globs(&options.interfaces)?, options.classic)?
        };
        Ok(Self {
            object,
            attachments,
            changes,
            tells_namespaces: fields != NamespaceFields::default(),
            packets,
            events,
            sleeping,
            counters,
            listeners,
            flows: Flows::new(flow_table, verdicts, flows),
            interfaces: Interfaces::new(),
            sockets: Sockets::default(),
            tells_sockets: false,
            in_vain: 0,
            asked: false,
            handed: 0,
            handed_bytes: 0,
        })
    }

    /// Whether the network namespaces of sockets are told apart: not where the kernel does not describe its types.
    #[must_use]
    pub const fn tells_namespaces(&self) -> bool {
        self.tells_namespaces
    }

    /// What was not kept, besides packets: connections that found the table full, events and counts that were lost.
    pub fn losses(&mut self) -> Losses {
        let columns = self.columns();
        Losses {
            flows: columns[Column::TableFull as usize],
            events: columns[Column::EventsLost as usize],
            sockets: self.sockets.lost(),
            counts: self.flows.forgotten(),
            cut: columns[Column::Cut as usize],
        }
    }

    fn columns(&self) -> [u64; distwatch_ebpf::COLUMNS] {
        let mut sum = [0; distwatch_ebpf::COLUMNS];
        if let Ok(each) = self.counters.get(&0, 0) {
            for cpu in each.iter() {
                sum.iter_mut().zip(cpu.0.0).for_each(|(sum, of)| *sum += of);
            }
        }
        sum
    }

    fn drain_events(&mut self) {
        while let Some(item) = self.events.next() {
            // Whoever wrote it has taken the flag back.
            self.asked = false;
            let Some(told) = layout::event(&item) else { continue };
            if told.kind == event::FLOW_CLOSED {
                self.flows.closed(told.time, told.key);
            } else {
                self.sockets.handle(&told);
            }
        }
    }

    fn hand_over(&mut self, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> usize {
        let mut count = 0;
        while count < most
            && let Some(item) = self.packets.next()
        {
            count += 1;
            self.handed += 1;
            // The programs write nothing else, so there is always one.
            let Some((record, data)) = layout::record(&item) else { continue };
            self.handed_bytes += data.len() as u64;
            take(Captured {
                monotonic: record.time,
                interface: self.interfaces.number(record.netns, record.ifindex),
                link_type: u16::try_from(record.link).map_or(LinkType::RAW, LinkType),
                data,
                original_len: record.original,
            });
        }
        count
    }

    /// Waits until a record may be there.
    fn wait(&mut self, wait: Duration) -> io::Result<()> {
        if self.in_vain < LOOKS {
            self.in_vain += 1;
            std::thread::sleep(wait.min(PAUSE));
            return Ok(());
        }
        if !self.asked {
            self.sleeping.set(0, 1, 0).map_err(|error| io_error("the flag for being woken", error))?;
            self.asked = true;
            // What came before the flag wakes nobody: one more look.
            return Ok(());
        }
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let rings = [self.packets.as_fd(), self.events.as_fd()];
        let mut rings = rings.map(|ring| PollFd::from_borrowed_fd(ring, PollFlags::IN));
        match rustix::event::poll(&mut rings, Some(&wait)) {
            Ok(ready) => self.asked = ready == 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// See [`EbpfSource::losses`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Connections that should have come into the kernel's table and found it full.
    pub flows: u64,
    /// What the kernel had to tell of sockets and of connections that ended, and found no room for.
    pub events: u64,
    /// What was to be told of sockets and was not asked for in time.
    pub sockets: u64,
    /// Last counts of connections that ended.
    pub counts: u64,
    /// Packets of which only the beginning was handed over: longer than what is copied at most, or shortened while the ring was
    /// filling.
    pub cut: u64,
}

impl LiveSource for EbpfSource {
    fn kind(&self) -> &'static str {
        "ebpf"
    }

    fn attachments(&self) -> Vec<String> {
        self.attachments.lines()
    }

    fn poll(&mut self, wait: Duration, most: usize, take: &mut dyn FnMut(Captured<'_>)) -> io::Result<usize> {
        if self.changes.as_ref().is_some_and(LinkChanges::any) {
            self.refresh()?;
        }
        let deadline = monotonic() + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2);
        loop {
            self.drain_events();
            self.flows.reap(monotonic())?;
            if self.tells_sockets && !self.sockets.is_empty() {
                return Ok(0);
            }
            let count = self.hand_over(most, take);
            if count > 0 {
                // Whoever wrote them has taken the flag back.
                (self.in_vain, self.asked) = (0, false);
                return Ok(count);
            }
            let left = deadline.saturating_sub(monotonic());
            if left == 0 || most == 0 {
                return Ok(0);
            }
            self.wait(Duration::from_nanos(left))?;
        }
    }

    fn sockets(&mut self, each: &mut dyn FnMut(SocketSeen)) {
        self.tells_sockets = true;
        self.drain_events();
        self.sockets.take().for_each(each);
    }

    fn interface_name(&mut self, interface: u32) -> String {
        self.interfaces.name(interface)
    }

    fn watch_ports(&mut self, ports: &[(RangeInclusive<u16>, Expected)]) -> io::Result<()> {
        self.listeners.configure(ports)
    }

    fn watch(&mut self, at: SocketAddr, what: Expected) -> io::Result<()> {
        self.listeners.watch(at, what)
    }

    fn unwatch(&mut self, at: SocketAddr) -> io::Result<()> {
        self.listeners.unwatch(at)
    }

    fn decide(&mut self, flow: FlowEnds, verdict: Verdict) -> io::Result<()> {
        let scopes = if is_scoped(flow) && self.tells_namespaces { self.interfaces.namespaces() } else { &[0] };
        self.flows.decide(monotonic(), flow, scopes, verdict)
    }

    fn counts(&mut self, each: &mut dyn FnMut(FlowEnds, FlowCounts)) {
        self.flows.counts(each);
    }

    fn refresh(&mut self) -> io::Result<()> {
        let now = monotonic();
        self.drain_events();
        self.flows.reap(now)?;
        self.flows.sweep(now)?;
        self.attachments.refresh(&mut self.object).map_err(|error| io::Error::other(format!("{error:#}")))
    }

    fn books(&mut self) -> Books {
        let columns = self.columns();
        let of = |column: Column| columns[column as usize];
        Books {
            seen: of(Column::Seen),
            seen_bytes: of(Column::SeenOctets),
            handed: self.handed,
            handed_bytes: self.handed_bytes,
            uninteresting: of(Column::Uninteresting) + of(Column::Duplicate),
            counted: of(Column::Counted),
            refused: of(Column::Refused),
            lost: vec![
                Lost { stage: "ring", packets: of(Column::RingFull), bytes: of(Column::RingFullOctets) },
                Lost { stage: "shed", packets: of(Column::Shed), bytes: of(Column::ShedOctets) },
                Lost { stage: "turned-away", packets: of(Column::TurnedAway), bytes: of(Column::TurnedAwayOctets) },
            ],
            cut_bytes: of(Column::CutOctets),
        }
    }

    fn shortfalls(&mut self) -> Vec<(&'static str, u64)> {
        // What nobody asked for is no shortfall.
        let Losses { flows, events, counts, cut, sockets: _ } = self.losses();
        vec![("flow-table", flows), ("events", events), ("last-counts", counts), ("cut-packets", cut)]
    }
}

fn map(object: &mut Ebpf, name: &str) -> anyhow::Result<aya::maps::Map> {
    object.take_map(name).with_context(|| format!("the object has no map {name}"))
}

fn globs(names: &[String]) -> anyhow::Result<GlobSet> {
    let mut set = GlobSet::builder();
    for name in names {
        let glob =
            GlobBuilder::new(name).build().with_context(|| format!("{name:?} is no pattern of interface names"))?;
        set.add(glob);
    }
    Ok(set.build()?)
}

/// Before Linux 5.11 maps count as locked memory, of which a process may have little.
fn unlock_memory() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        // Newer kernels do not need it, and older ones say what they lack.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
}
