//! All connections: found by their ends, aged by the packets' clock, and shed in order of their worth.

mod aging;
mod entry;
mod shedding;

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use self::entry::{BY_HOLE, BY_USE, Class, Entries, Entry, HalfOpen, Holes, Opened, State};
use super::clock::PacketClock;
use super::connection::{Connection, NewSyn, Turn, Verdict};
use super::ends::Ends;
use super::lent::{Lent, Pieces};
use super::lists::{Links, List, NONE};
use super::orientation::sender_is_acceptor;
use super::reassembly::ALLOCATION_OVERHEAD;
use super::{Conversation, Decision, FlowStats, GapCause, Interest, Limit, Opening, Ports, Value, Wanted};
use crate::limits::Limits;
use crate::model::CloseReason;
use crate::net::{Segment, TcpFlags};
use crate::packet::{At, Side};
use crate::time::Timestamp;

/// The share of `flow_memory` (one in so many) that unanswered SYNs may have, and the remains of ended connections
/// as well. Table entries, once made, are used again but not given back, so a flood of SYNs must not turn all of the
/// memory into entries.
const ENTRY_SHARE: usize = 8;

/// Time-outs that one segment may pay for. Two would keep up with any rate of opening connections; more lets a
/// backlog shrink.
const TIMEOUTS_PER_SEGMENT: usize = 8;

/// Time-outs that one call of [`FlowTable::handle_timeout`] may process; the caller is asked to come again.
const TIMEOUTS_PER_CALL: usize = 4096;

/// What an armed time-out costs: the entry of a B-tree whose nodes are two thirds full, with its part of the inner nodes.
const TIMER_MEMORY: usize = 32;

/// What is to be done with a segment after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// The entry has another state now, which the segment is for.
    Again,
}

/// All connections, and the octets that wait for others.
#[derive(Debug)]
pub struct FlowTable<C> {
    limits: Limits,
    clock: PacketClock,
    stats: FlowStats,
    entries: Entries<C>,
    /// Seeded at random, so that nobody can choose addresses that collide; its order is never used.
    index: HashTable<u32>,
    index_memory: usize,
    hasher: RandomState,
    /// The entry of the last segment: the next one is likely to be of the same connection.
    latest: u32,
    by_use: [List<BY_USE>; Class::ALL.len()],
    population: [usize; Class::ALL.len()],
    by_hole: [List<BY_HOLE>; 2],
    free: List<BY_USE>,
    timers: BTreeSet<(Timestamp, u32)>,
    /// Nothing times out before this.
    next_due: Timestamp,
    /// Memory of the connections beyond their entries.
    charged: usize,
    /// Entries that unanswered SYNs may have, and the remains of ended connections as well.
    share: usize,
    /// What the source is to be told; `None` where nobody asks.
    decisions: Option<VecDeque<Decision>>,
    /// What is remembered of the block that is lent, and entries that need it.
    pieces: Pieces,
    borrowers: Vec<u32>,
    /// Before this, links are not made to forget what they delivered.
    forget_after: Timestamp,
}

impl<C> FlowTable<C> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            clock: PacketClock::default(),
            stats: FlowStats::default(),
            entries: Entries(Vec::new()),
            index: HashTable::new(),
            index_memory: 0,
            hasher: RandomState::default(),
            latest: NONE,
            by_use: [List::EMPTY; Class::ALL.len()],
            population: [0; Class::ALL.len()],
            by_hole: [List::EMPTY; 2],
            free: List::EMPTY,
            timers: BTreeSet::new(),
            next_due: Timestamp::from_nanos(i64::MAX),
            charged: 0,
            share: share(limits, size_of::<Entry<C>>()),
            decisions: None,
            pieces: Pieces::default(),
            borrowers: Vec::new(),
            forget_after: Timestamp::from_nanos(i64::MIN),
        }
    }

    /// From now on the source is told what is still wanted of each connection, and may leave the rest out. Whoever calls this
    /// must empty [`poll_decision`](Self::poll_decision) after every few packets.
    pub fn decide_for_source(&mut self) {
        self.decisions.get_or_insert_default();
    }

    /// The next thing that the source is to be told.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.as_mut()?.pop_front()
    }

    /// Other limits from now on. What is above them goes with the next segments.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.clone();
        self.share = share(limits, size_of::<Entry<C>>());
    }

    /// Takes note of octets that the source only counted on an open connection, the initiator's first, since it said so
    /// last. A connection that is not known is left alone.
    pub fn handle_counts(&mut self, time: Timestamp, initiator: SocketAddr, acceptor: SocketAddr, octets: [u64; 2]) {
        self.clock.advance(time);
        let (ends, from_low) = Ends::between(initiator, acceptor);
        let Some(index) = self.find(&ends) else { return };
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(index) else { return };
        let octets = if entry.side(from_low) == Side::Initiator { octets } else { [octets[1], octets[0]] };
        let class = entry.class;
        if let State::Open(opened) = &mut entry.state
            && opened.connection.is_left_to_source()
        {
            opened.connection.add_counts(time, octets);
            self.file(index, class, true, now);
        }
    }

    /// Takes in a segment.
    pub fn handle_segment<X: Ports>(&mut self, at: &At, segment: &Segment<'_>, cx: &mut X)
    where
        C: Conversation<X>,
    {
        self.handle_lent_segment(at, segment, &[], cx);
    }

    /// Takes in a segment of a packet that lies in this block. The block stays as it is, and all segments are from it, until
    /// [`return_block`](Self::return_block).
    #[inline]
    pub fn handle_lent_segment<X: Ports>(&mut self, at: &At, segment: &Segment<'_>, block: &[u8], cx: &mut X)
    where
        C: Conversation<X>,
    {
        if self.clock.advance(at.time) >= self.next_due {
            // What is not caused by a segment knows of no block.
            self.return_block(block);
            self.expire(TIMEOUTS_PER_SEGMENT, cx);
        }
        let (ends, from_low) = Ends::of(segment);
        let Some(index) = self.find(&ends).or_else(|| {
            self.return_block(block);
            self.admit(ends, at, segment, from_low, cx)
        }) else {
            self.stats.segments_outside_connections += 1;
            return;
        };
        self.latest = index;
        while self.step(index, at, segment, block, from_low, cx) == Step::Again {}
        if !self.is_settled::<X>(index) {
            self.settle::<X>(index, true);
            if self.is_over_limits() {
                self.return_block(block);
                self.shed(cx);
            }
        }
    }

    /// Keeps what is needed of the block that segments were from: it goes.
    #[inline]
    pub fn return_block(&mut self, block: &[u8]) {
        if !self.pieces.is_empty() {
            self.take_back(block);
        }
    }

    #[cold]
    fn take_back(&mut self, block: &[u8]) {
        let lent = Lent::new(block, &mut self.pieces);
        for index in self.borrowers.drain(..) {
            if let Some(State::Open(opened)) = self.entries.get_mut(index).map(|entry| &mut entry.state) {
                opened.connection.take_back(&lent);
            }
        }
        self.pieces.clear();
    }

    /// Lets time pass without a packet. The clock that this drives is the packets': `now` is the daemon's time where
    /// packets are captured live, and is not to be called where they are read from a file.
    pub fn handle_timeout<X: Ports>(&mut self, now: Timestamp, cx: &mut X)
    where
        C: Conversation<X>,
    {
        if self.clock.advance(now) >= self.next_due {
            self.expire(TIMEOUTS_PER_CALL, cx);
        }
        self.shed(cx);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, in the time of the packets.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (!self.index.is_empty()).then(|| self.clock.packet_time_of(self.next_due))
    }

    /// The input has ended: what waits behind holes is delivered, and what is known to be missing is said. What is
    /// still open stays open, except SYNs that had the time to be answered, and what has ended as far as its only
    /// captured direction tells.
    pub fn finish<X: Ports>(&mut self, now: Timestamp, cx: &mut X)
    where
        C: Conversation<X>,
    {
        self.clock.advance(now);
        for index in 0..self.entries.0.len() as u32 {
            self.finish_entry(index, cx);
        }
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> &FlowStats {
        &self.stats
    }

    /// Connections that are known now and have not ended.
    #[must_use]
    pub fn open_flows(&self) -> usize {
        self.population.iter().skip(1).sum()
    }

    /// Bytes in use, as [`Limits::flow_memory`] counts them.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.0.capacity() * size_of::<Entry<C>>() + self.index_memory + self.charged
    }

    /// Whether a connection between these two is known.
    #[must_use]
    pub fn knows(&self, one: SocketAddr, other: SocketAddr) -> bool {
        let (ends, _) = Ends::between(one, other);
        let is_it = |&index: &u32| self.entries.0.get(index as usize).is_some_and(|entry| entry.ends == ends);
        self.index.find(self.hasher.hash_one(ends), is_it).is_some()
    }

    #[inline]
    fn find(&mut self, ends: &Ends) -> Option<u32> {
        if let Some(entry) = self.entries.get_mut(self.latest)
            && entry.ends == *ends
            && !matches!(entry.state, State::Free)
        {
            return Some(self.latest);
        }
        let entries = &self.entries.0;
        let is_it = |&index: &u32| entries.get(index as usize).is_some_and(|entry| entry.ends == *ends);
        self.index.find(self.hasher.hash_one(ends), is_it).copied()
    }

    /// Makes an entry for a segment that begins a connection.
    fn admit<X: Ports>(&mut self, ends: Ends, at: &At, segment: &Segment<'_>, from_low: bool, cx: &mut X) -> Option<u32>
    where
        C: Conversation<X>,
    {
        if !begins_connection(segment) {
            return None;
        }
        let index = self.vacant(cx)?;
        let hash = self.hasher.hash_one(ends);
        let Self { entries, index: table, hasher, .. } = self;
        let ends_of = |index: &u32| entries.0.get(*index as usize).map(|entry| entry.ends);
        table.insert_unique(hash, index, |index| ends_of(index).map_or(0, |ends| hasher.hash_one(ends)));
        let touched = self.clock.now();
        if let Some(entry) = self.entries.get_mut(index) {
            (entry.ends, entry.class, entry.touched) = (ends, Class::Ended, touched);
        }
        self.by_use[Class::Ended as usize].push(&mut self.entries, index);
        self.population[Class::Ended as usize] += 1;
        self.next_due = self.next_due.min(touched.plus(Class::Ended.idle(&self.limits)));
        self.index_memory = self.index.allocation_size();
        self.begin(index, at, segment, from_low, cx);
        Some(index)
    }

    /// An unused entry; none where the memory is full of what must not go.
    fn vacant<X: Ports>(&mut self, cx: &mut X) -> Option<u32>
    where
        C: Conversation<X>,
    {
        if let Some(index) = self.free.first() {
            self.free.remove(&mut self.entries, index);
            return Some(index);
        }
        let entries = &mut self.entries.0;
        if entries.len() == entries.capacity() {
            let more = (entries.len() / 4).max(64);
            // Twice the growth: hash tables grow by doubling, and few bytes per entry.
            let needed = 2 * more * size_of::<Entry<C>>();
            if self.memory() + needed > self.limits.flow_memory {
                while self.free.first().is_none() && self.shed_one(Class::Unknown, cx) {}
                let Some(index) = self.free.first() else {
                    self.stats.limits.count(Limit::FlowMemory);
                    return None;
                };
                self.free.remove(&mut self.entries, index);
                return Some(index);
            }
            self.entries.0.reserve_exact(more);
        }
        let index = u32::try_from(self.entries.0.len()).ok().filter(|&index| index != NONE)?;
        self.entries.0.push(Entry {
            ends: Ends::default(),
            initiator_is_low: true,
            class: Class::Ended,
            holes: None,
            touched: Timestamp::EPOCH,
            by_use: Links::UNLINKED,
            by_hole: Links::UNLINKED,
            state: State::Free,
        });
        Some(index)
    }

    /// Gives an entry the state that the first segment of a connection calls for.
    fn begin<X: Ports>(&mut self, index: u32, at: &At, segment: &Segment<'_>, from_low: bool, cx: &mut X)
    where
        C: Conversation<X>,
    {
        let (is_syn, is_answer) = (segment.flags.has(TcpFlags::SYN), segment.flags.has(TcpFlags::ACK));
        let from_acceptor = match is_syn {
            true => is_answer,
            false => sender_is_acceptor(segment.source, segment.destination, cx),
        };
        let initial = [(is_syn && is_answer).then(|| segment.acknowledgement.wrapping_sub(1)), None];
        self.stats.flows += 1;
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.initiator_is_low = from_low != from_acceptor;
        if is_syn && !is_answer && segment.payload_len == 0 {
            let initial = segment.sequence;
            entry.state = State::HalfOpen(HalfOpen { at: *at, last_seen: at.time, initial, other_initial: None });
            return;
        }
        let opening = entry.opening(*at, !is_syn);
        self.open(index, opening, initial, cx);
    }

    fn open<X: Ports>(&mut self, index: u32, opening: Opening, initial: [Option<u32>; 2], cx: &mut X)
    where
        C: Conversation<X>,
    {
        let connection = Connection::open(opening, initial, cx);
        let opened = Opened { connection, charged: 0, armed: None, wanted: None, wanted_due: None };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.state = State::Open(Box::new(opened));
        }
    }

    /// Brings a segment to the entry in its present state.
    #[inline]
    fn step<X: Ports>(
        &mut self,
        index: u32,
        at: &At,
        segment: &Segment<'_>,
        block: &[u8],
        from_low: bool,
        cx: &mut X,
    ) -> Step
    where
        C: Conversation<X>,
    {
        let Self { entries, stats, limits, clock, pieces, borrowers, .. } = self;
        let Some(entry) = entries.get_mut(index) else { return Step::Done };
        let side = entry.side(from_low);
        match &mut entry.state {
            State::Free => Step::Done,
            State::Open(opened) => {
                let before = pieces.len();
                let lent = Lent::new(block, pieces);
                let mut turn = Turn { at, now: clock.now(), limits, stats, lent, cx };
                let verdict = opened.connection.handle_segment(&mut turn, side, segment);
                // More than once for the same connection does no harm.
                if pieces.len() > before && borrowers.last() != Some(&index) {
                    borrowers.push(index);
                }
                match verdict {
                    Verdict::Open => Step::Done,
                    verdict => {
                        self.return_block(block);
                        self.conclude(index, verdict, at, cx)
                    }
                }
            }
            State::HalfOpen(_) => self.step_half_open(index, side, at, segment, cx),
            State::Ended(_) => self.step_ended(index, side, at, segment, from_low, cx),
        }
    }

    fn step_half_open<X: Ports>(&mut self, index: u32, side: Side, at: &At, segment: &Segment<'_>, cx: &mut X) -> Step
    where
        C: Conversation<X>,
    {
        let Some(entry) = self.entries.get_mut(index) else { return Step::Done };
        let State::HalfOpen(half) = &mut entry.state else { return Step::Done };
        let (flags, first) = (segment.flags, half.initial.wrapping_add(1));
        let answers = flags.has(TcpFlags::ACK) && segment.acknowledgement == first;
        if flags.has(TcpFlags::RST) {
            let is_refusal = match side {
                Side::Acceptor => answers,
                Side::Initiator => segment.sequence == first || segment.sequence == half.initial,
            };
            if !is_refusal {
                self.stats.resets_ignored += 1;
                return Step::Done;
            }
            half.last_seen = at.time;
            let reason = if side == Side::Acceptor { CloseReason::ResetAcceptor } else { CloseReason::ResetInitiator };
            self.close(index, reason, at, cx);
            return Step::Done;
        }
        if flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::ACK) && segment.payload_len == 0 {
            half.last_seen = half.last_seen.max(at.time);
            match side {
                Side::Acceptor => half.other_initial = Some(segment.sequence),
                Side::Initiator if segment.sequence == half.initial => {}
                Side::Initiator => {
                    let syn = NewSyn { at: *at, side, initial: segment.sequence };
                    return self.conclude(index, Verdict::Reused(syn), at, cx);
                }
            }
            return Step::Done;
        }
        // An acknowledgement of something else is the acceptor's protest that it knows an older connection.
        if side == Side::Acceptor && !answers && segment.payload_len == 0 {
            return Step::Done;
        }
        let half = *half;
        let opening = entry.opening(half.at, false);
        self.open(index, opening, [Some(half.initial), half.other_initial], cx);
        Step::Again
    }

    fn step_ended<X: Ports>(
        &mut self,
        index: u32,
        side: Side,
        at: &At,
        segment: &Segment<'_>,
        from_low: bool,
        cx: &mut X,
    ) -> Step
    where
        C: Conversation<X>,
    {
        let Some(entry) = self.entries.get_mut(index) else { return Step::Done };
        let State::Ended(remains) = entry.state else { return Step::Done };
        let is_syn = segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::RST);
        if is_syn && remains.initial[side.index()] != Some(segment.sequence) {
            self.begin(index, at, segment, from_low, cx);
            return Step::Again;
        }
        if remains.are_alive(side, segment) {
            self.stats.closes_disproved += 1;
            self.stats.flows += 1;
            let opening = entry.opening(*at, true);
            self.open(index, opening, [None; 2], cx);
            return Step::Again;
        }
        self.stats.segments_outside_connections += 1;
        Step::Done
    }

    /// Does what a verdict calls for.
    #[cold]
    fn conclude<X: Ports>(&mut self, index: u32, verdict: Verdict, at: &At, cx: &mut X) -> Step
    where
        C: Conversation<X>,
    {
        match verdict {
            Verdict::Open => Step::Done,
            Verdict::Closed(reason) => {
                self.close(index, reason, at, cx);
                Step::Done
            }
            Verdict::Reused(syn) => {
                self.close(index, CloseReason::PortReuse, at, cx);
                self.stats.flows += 1;
                if let Some(entry) = self.entries.get_mut(index) {
                    entry.initiator_is_low = entry.initiator_is_low == (syn.side == Side::Initiator);
                    let half = HalfOpen { at: syn.at, last_seen: at.time, initial: syn.initial, other_initial: None };
                    entry.state = State::HalfOpen(half);
                }
                Step::Again
            }
        }
    }

    /// Tells the conversation of the end and keeps the remains.
    fn close<X: Ports>(&mut self, index: u32, reason: CloseReason, at: &At, cx: &mut X)
    where
        C: Conversation<X>,
    {
        if let Some(entry) = self.entries.get_mut(index)
            && let State::HalfOpen(half) = entry.state
        {
            let opening = entry.opening(half.at, false);
            self.open(index, opening, [Some(half.initial), half.other_initial], cx);
            if let Some(State::Open(opened)) = self.entries.get_mut(index).map(|entry| &mut entry.state) {
                opened.connection.was_seen(half.last_seen);
            }
        }
        let Self { entries, stats, limits, clock, pieces, .. } = self;
        let Some(entry) = entries.get_mut(index) else { return };
        if let State::Open(opened) = &mut entry.state {
            let mut turn = Turn { at, now: clock.now(), limits, stats, lent: Lent::new(&[], pieces), cx };
            opened.connection.close(&mut turn, reason);
            // Of others the source keeps nothing.
            let is_kept = opened.connection.has_payload() || opened.connection.is_left_to_source();
            if let Some(decisions) = self.decisions.as_mut().filter(|_| is_kept) {
                let Opening { initiator, acceptor, .. } = opened.connection.facts().opening;
                decisions.push_back(Decision { initiator, acceptor, wanted: Wanted::Ended });
            }
            let remains = opened.connection.remains();
            self.replace_open(index, State::Ended(remains));
        }
    }

    /// Puts another state in place of an open one, and takes back what was charged for it.
    fn replace_open(&mut self, index: u32, state: State<C>) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let old = std::mem::replace(&mut entry.state, state);
        if let State::Open(opened) = old {
            self.charged -= opened.charged;
            if let Some(due) = opened.armed {
                self.timers.remove(&(due, index));
            }
        }
    }

    /// Whether a segment changed nothing that [`settle`](Self::settle) looks after, as nearly every one on a busy link;
    /// then this has noted that the link was used, and it is already the one that was used last.
    #[inline]
    fn is_settled<X: Ports>(&mut self, index: u32) -> bool
    where
        C: Conversation<X>,
    {
        let now = self.clock.now();
        if !self.by_use[Class::Link as usize].ends_with(index) {
            return false;
        }
        let Some(entry) = self.entries.get_mut(index) else { return false };
        let State::Open(opened) = &entry.state else { return false };
        let (connection, conversation) = (&opened.connection, opened.connection.conversation());
        let holding = connection.is_holding();
        let settled = entry.class == Class::Link
            && entry.holes == holding.then_some(Holes::OfLinks)
            && !connection.is_weighed()
            && (opened.armed.is_some() || opened.wanted_due.is_none())
            && (!holding || is_armed_by(opened.armed, connection.hole_due(&self.limits)))
            && conversation.poll_timeout() == opened.wanted
            && conversation.interest() == Interest::Everything
            && conversation.value() == Value::Link;
        if settled {
            entry.touched = now;
        }
        settled
    }

    /// Brings lists, time-outs and the memory count up to date with an entry's state.
    #[inline]
    fn settle<X: Ports>(&mut self, index: u32, touch: bool)
    where
        C: Conversation<X>,
    {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(index) else { return };
        let (class, holding) = match &mut entry.state {
            State::Free => return,
            State::HalfOpen(_) => (Class::HalfOpen, false),
            State::Ended(_) => (Class::Ended, false),
            State::Open(opened) => match opened.connection.heed_interest() {
                Interest::Nothing => {
                    let remains = opened.connection.remains();
                    self.replace_open(index, State::Ended(remains));
                    (Class::Ended, false)
                }
                interest => {
                    if let Some(decisions) = self.decisions.as_mut()
                        && interest == Interest::CountOnly
                        && !opened.connection.is_left_to_source()
                    {
                        opened.connection.leave_to_source();
                        let Opening { initiator, acceptor, .. } = opened.connection.facts().opening;
                        let unknown = opened.connection.conversation().value() == Value::Unknown;
                        let wanted = if unknown { Wanted::Nothing } else { Wanted::Counts };
                        decisions.push_back(Decision { initiator, acceptor, wanted });
                    }
                    let settled = Self::settle_open(
                        opened,
                        // What did not come of a segment has delivered what was held.
                        !touch || opened.connection.is_weighed(),
                        index,
                        &self.clock,
                        &self.limits,
                        &mut self.timers,
                        &mut self.charged,
                    );
                    self.next_due = self.next_due.min(opened.armed.unwrap_or(self.next_due));
                    settled
                }
            },
        };
        self.file(index, class, touch, now);
        self.file_hole(index, class, holding);
    }

    #[inline]
    fn settle_open<X: Ports>(
        opened: &mut Opened<C>,
        weigh: bool,
        index: u32,
        clock: &PacketClock,
        limits: &Limits,
        timers: &mut BTreeSet<(Timestamp, u32)>,
        charged: &mut usize,
    ) -> (Class, bool)
    where
        C: Conversation<X>,
    {
        let connection = &opened.connection;
        let wanted = connection.conversation().poll_timeout();
        let wanted_anew = wanted != opened.wanted;
        if wanted_anew {
            opened.wanted = wanted;
            opened.wanted_due = wanted.map(|deadline| clock.due(deadline));
        }
        // In the common case nothing waits and nothing new is wanted.
        if connection.is_holding() || (opened.armed.is_none() && opened.wanted_due.is_some()) || wanted_anew {
            let due = [opened.wanted_due, connection.hole_due(limits)].into_iter().flatten().min();
            // One that comes too early is only looked at, so it need not be moved when the time-out is put off.
            if let Some(due) = due
                && opened.armed.is_none_or(|armed| due < armed)
            {
                if let Some(armed) = opened.armed.replace(due) {
                    timers.remove(&(armed, index));
                }
                timers.insert((due, index));
            }
        }
        if weigh {
            let timer = if opened.armed.is_some() { TIMER_MEMORY } else { 0 };
            let charge = size_of::<Opened<C>>() + ALLOCATION_OVERHEAD + connection.memory() + timer;
            *charged = *charged - opened.charged + charge;
            opened.charged = charge;
        }
        let class = if connection.has_payload() { Class::of(connection.conversation().value()) } else { Class::Silent };
        (class, connection.is_holding())
    }

    /// Puts an entry at the end of the list of its class.
    #[inline]
    fn file(&mut self, index: u32, class: Class, touch: bool, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let old = entry.class;
        if old == class && !touch {
            return;
        }
        (entry.class, entry.touched) = (class, now);
        if old == class && self.by_use[class as usize].ends_with(index) {
            return;
        }
        self.by_use[old as usize].remove(&mut self.entries, index);
        self.by_use[class as usize].push(&mut self.entries, index);
        if old != class {
            self.population[old as usize] -= 1;
            self.population[class as usize] += 1;
            self.next_due = self.next_due.min(now.plus(class.idle(&self.limits)));
        }
    }

    #[inline]
    fn file_hole(&mut self, index: u32, class: Class, holding: bool) {
        let list = holding.then_some(if class == Class::Link { Holes::OfLinks } else { Holes::OfOthers });
        let Some(entry) = self.entries.get_mut(index) else { return };
        if entry.holes == list {
            return;
        }
        if let Some(old) = std::mem::replace(&mut entry.holes, list) {
            self.by_hole[old as usize].remove(&mut self.entries, index);
        }
        if let Some(list) = list {
            self.by_hole[list as usize].push(&mut self.entries, index);
        }
    }

    /// Delivers what waits behind a connection's holes, and ends it if that was all.
    fn flush<X: Ports>(&mut self, index: u32, cause: GapCause, at: &At, cx: &mut X)
    where
        C: Conversation<X>,
    {
        let Self { entries, stats, limits, clock, pieces, .. } = self;
        let Some(State::Open(opened)) = entries.get_mut(index).map(|entry| &mut entry.state) else { return };
        let mut turn = Turn { at, now: clock.now(), limits, stats, lent: Lent::new(&[], pieces), cx };
        opened.connection.flush(&mut turn, cause);
        let verdict = opened.connection.verdict();
        self.conclude(index, verdict, at, cx);
    }

    /// Forgets an entry altogether.
    fn remove(&mut self, index: u32) {
        self.file_hole(index, Class::Ended, false);
        self.replace_open(index, State::Free);
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.state = State::Free;
        let (ends, class) = (entry.ends, entry.class);
        self.by_use[class as usize].remove(&mut self.entries, index);
        self.population[class as usize] -= 1;
        self.free.push(&mut self.entries, index);
        if let Ok(found) = self.index.find_entry(self.hasher.hash_one(ends), |&other| other == index) {
            found.remove();
        }
    }
}

/// Entries that unanswered SYNs may have, and the remains of ended connections as well.
fn share(limits: &Limits, entry: usize) -> usize {
    (limits.flow_memory / ENTRY_SHARE / entry).max(1)
}

/// Whether a time-out comes no later than it must.
fn is_armed_by(armed: Option<Timestamp>, due: Option<Timestamp>) -> bool {
    due.is_none_or(|due| armed.is_some_and(|armed| armed <= due))
}

/// Whether a segment of no known connection begins one: it opens, or carries data. A lone acknowledgement, FIN or
/// RST is the rest of one that is over.
fn begins_connection(segment: &Segment<'_>) -> bool {
    !segment.flags.has(TcpFlags::RST) && (segment.flags.has(TcpFlags::SYN) || segment.payload_len > 0)
}
