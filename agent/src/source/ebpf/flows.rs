//! The tables of connections: verdicts into the kernel, counts out of it, and what has ended taken out.

use std::collections::{HashMap, VecDeque};
use std::io;

use aya::maps::{HashMap as KernelMap, MapData, MapError};
use distwatch_ebpf::{Flow, FlowKey, state, verdict};

use super::layout::{Plain, key};
use crate::source::live::{FlowCounts, FlowEnds, Verdict};

/// How long a connection that has ended stays: what is still under way from one end to the other is then not taken for
/// something new.
const LINGER: u64 = 2_000_000_000;

/// How long nothing may pass on a connection until it is forgotten. Distribution says something each quarter of a minute.
const IDLE: u64 = 15 * 60 * 1_000_000_000;

/// The same while the table is nearly full: four ticks.
const IDLE_WHEN_FULL: u64 = 60 * 1_000_000_000;

/// How often idle connections are looked for.
const SWEEP: u64 = 60 * 1_000_000_000;

/// How many counts of connections that ended wait to be asked for. The daemon asks every few seconds.
const ENDED: usize = 65_536;

type Table<V> = KernelMap<MapData, Plain<FlowKey>, Plain<V>>;

/// Both tables, and what is under way.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) flows: Table<Flow>,
    pub(super) verdicts: Table<distwatch_ebpf::Verdict>,
    /// The size of the tables.
    pub(super) room: u32,
    /// Those with a verdict to count, and which end is the initiator.
    counted: HashMap<FlowKey, (FlowEnds, usize)>,
    closing: VecDeque<(u64, FlowKey)>,
    ended: Vec<(FlowEnds, FlowCounts)>,
    swept: u64,
    forgotten: u64,
}

impl Flows {
    pub(super) fn new(flows: Table<Flow>, verdicts: Table<distwatch_ebpf::Verdict>, room: u32) -> Self {
        Self {
            flows,
            verdicts,
            room,
            counted: HashMap::new(),
            closing: VecDeque::new(),
            ended: Vec::new(),
            swept: 0,
            forgotten: 0,
        }
    }

    /// Connections whose counts were not asked for in time.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Decides of a connection. `scopes` are the namespaces in which it may be: those that have it are meant, or else the first.
    pub(super) fn decide(&mut self, now: u64, ends: FlowEnds, scopes: &[u32], what: Verdict) -> io::Result<()> {
        let keys = scopes.iter().map(|&scope| key(ends, scope).0);
        let mut present: Vec<FlowKey> = keys.filter(|key| self.flows.get(&Plain(*key), 0).is_ok()).collect();
        if present.is_empty() {
            present.extend(scopes.first().map(|&scope| key(ends, scope).0).filter(|_| what != Verdict::Forget));
        }
        present.into_iter().try_for_each(|key| self.decide_of(now, key, ends, what))
    }

    fn decide_of(&mut self, now: u64, flow: FlowKey, ends: FlowEnds, what: Verdict) -> io::Result<()> {
        let (code, octets) = match what {
            Verdict::Forget => return self.remove(flow),
            Verdict::Full => (verdict::FULL, 0),
            Verdict::Headers(octets) => (verdict::HEADERS, u32::from(octets)),
            Verdict::Count => (verdict::COUNT, 0),
            Verdict::Ignore => (verdict::IGNORE, 0),
        };
        const NO_EXIST: u64 = 1;
        // Nobody has shown it yet, but from now on it can be idle for too long.
        let mut fresh = Flow::default();
        fresh.owners.seen = [now; 2];
        match self.flows.insert(Plain(flow), Plain(fresh), NO_EXIST) {
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("the table of connections", error)),
        }
        if what == Verdict::Full {
            return absent_is_fine(self.verdicts.remove(&Plain(flow)));
        }
        if what == Verdict::Count {
            self.counted.insert(flow, (ends, key(ends, flow.scope).1));
        }
        let value = distwatch_ebpf::Verdict { code, octets };
        self.verdicts.insert(Plain(flow), Plain(value), 0).map_err(|error| io_error("the table of verdicts", error))
    }

    /// The kernel says that a connection has ended.
    pub(super) fn closed(&mut self, at: u64, flow: FlowKey) {
        self.closing.push_back((at, flow));
    }

    /// Takes out what ended long enough ago.
    pub(super) fn reap(&mut self, now: u64) -> io::Result<()> {
        while let Some(&(at, flow)) = self.closing.front()
            && now.saturating_sub(at) >= LINGER
        {
            self.closing.pop_front();
            // The same ports may have been taken again meanwhile.
            if self.flows.get(&Plain(flow), 0).is_ok_and(|found| found.0.state & state::CLOSED != 0) {
                self.remove(flow)?;
            }
        }
        Ok(())
    }

    /// Takes out connections on which nothing passes any more, once a minute.
    pub(super) fn sweep(&mut self, now: u64) -> io::Result<()> {
        if now.saturating_sub(self.swept) < SWEEP {
            return Ok(());
        }
        self.swept = now;
        let keys: Vec<FlowKey> = self.flows.keys().filter_map(|key| key.ok().map(|key| key.0)).collect();
        let is_nearly_full = keys.len() as u64 * 10 >= u64::from(self.room) * 9;
        let patience = if is_nearly_full { IDLE_WHEN_FULL } else { IDLE };
        for flow in keys {
            let Ok(Plain(found)) = self.flows.get(&Plain(flow), 0) else { continue };
            let [low, high] = found.owners.seen;
            if now.saturating_sub(low.max(high)) >= patience {
                self.remove(flow)?;
            }
        }
        Ok(())
    }

    /// Hands out the counts, and the last ones of what has ended since.
    pub(super) fn counts(&mut self, each: &mut dyn FnMut(FlowEnds, FlowCounts)) {
        self.ended.drain(..).for_each(|(ends, counts)| each(ends, counts));
        for (flow, &(ends, initiator)) in &self.counted {
            if let Ok(Plain(found)) = self.flows.get(&Plain(*flow), 0) {
                each(ends, counts_of(&found, initiator));
            }
        }
    }

    fn remove(&mut self, flow: FlowKey) -> io::Result<()> {
        absent_is_fine(self.verdicts.remove(&Plain(flow)))?;
        let last = self.flows.get(&Plain(flow), 0);
        absent_is_fine(self.flows.remove(&Plain(flow)))?;
        if let Some((ends, initiator)) = self.counted.remove(&flow)
            && let Ok(Plain(last)) = last
        {
            if self.ended.len() < ENDED {
                self.ended.push((ends, counts_of(&last, initiator)));
            } else {
                self.forgotten += 1;
            }
        }
        Ok(())
    }
}

fn counts_of(flow: &Flow, initiator: usize) -> FlowCounts {
    let from_initiator = |of: [u64; 2]| if initiator == distwatch_ebpf::FROM_LOW { of } else { [of[1], of[0]] };
    FlowCounts { packets: from_initiator(flow.packets), bytes: from_initiator(flow.octets), last: flow.last }
}

pub(super) fn absent_is_fine(result: Result<(), MapError>) -> io::Result<()> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(error) => Err(io_error("a table of the kernel", error)),
    }
}

pub(super) fn io_error(what: &str, error: MapError) -> io::Error {
    let kind = match &error {
        MapError::SyscallError(error) => error.io_error.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{what}: {error}"))
}
