//! One TCP connection: two directions, how it begins and how it ends.

use super::lent::Lent;
use super::reassembly::{Context, Direction, Keep, Moment, OUTSIDE_WINDOW, Upward};
use super::{Conversation, FlowFacts, FlowStats, Gap, GapCause, Interest, Opening, Value};
use crate::event::Tampering;
use crate::limits::Limits;
use crate::model::CloseReason;
use crate::net::{Segment, TcpFlags};
use crate::packet::{At, Side};
use crate::time::Timestamp;

/// How far behind the last octet seen an RST may be. Its sender's receiver takes only one that is exactly at (or, on
/// old systems, inside) its window, but the capture may have missed the octets before it. One that is taken and was
/// not real is found out when the sender goes on ([`Remains`]).
const RESET_WINDOW: i64 = 1 << 20;

/// How far before the first captured octet a SYN may be and still be that connection's, merely captured late.
const LATE_SYN: i64 = 64 << 10;

/// A SYN of another connection on the same addresses and ports, which is not believed until it is answered: the
/// receiver of a forged one just goes on (RFC 9293, section 3.10.7.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSyn {
    pub(super) at: At,
    pub(super) side: Side,
    pub(super) initial: u32,
}

/// What a segment did to the connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// It goes on.
    Open,
    /// It ended.
    Closed(CloseReason),
    /// Its addresses and ports belong to the connection of this SYN now, and so does the segment at hand.
    Reused(NewSyn),
}

/// What is kept of a connection that ended, so that its last retransmissions do not look like a new one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remains {
    /// The sequence numbers of the SYNs.
    pub(super) initial: [Option<u32>; 2],
    /// For each side that said it would send no more, the sequence number from which on it would not.
    ends: [Option<u32>; 2],
}

impl Remains {
    /// Whether the segment shows that the side that ended the connection goes on with it.
    pub(super) fn are_alive(&self, side: Side, segment: &Segment<'_>) -> bool {
        // Keep-alive and window probes lie before the end; a retransmitted FIN has nothing behind it.
        self.ends[side.index()].is_some_and(|end| {
            let beyond = segment.sequence.wrapping_add(segment.payload_len).wrapping_sub(end).cast_signed();
            segment.payload_len > 1 && beyond > 1 && i64::from(beyond) <= RESET_WINDOW
        })
    }
}

/// A connection that was answered or carries data.
#[derive(Debug)]
pub(super) struct Connection<C> {
    facts: FlowFacts,
    directions: [Direction; 2],
    conversation: C,
    /// Segments of both directions, wrapping: only differences are used.
    segments: u32,
    /// The side that said first that it has no more to send.
    first_fin: Option<Side>,
    /// What that side acknowledged with it.
    first_fin_acknowledged: Option<u32>,
    /// The sequence number from which on the side that reset it would send nothing.
    reset: Option<(Side, u32)>,
    new_syn: Option<Box<NewSyn>>,
    /// Nobody wants octets any more, and none are kept.
    counts_only: bool,
    /// The source was told so, and may leave octets out from here on: sequence numbers say nothing any more.
    counted: bool,
}

impl<C> Connection<C> {
    /// One whose first packet was `opening.at`. Sequence numbers are those of the SYNs, as far as seen.
    pub(super) fn open<X>(opening: Opening, initial: [Option<u32>; 2], cx: &mut X) -> Self
    where
        C: Conversation<X>,
    {
        let mut directions = <[Direction; 2]>::default();
        for (direction, initial) in directions.iter_mut().zip(initial) {
            if let Some(initial) = initial {
                direction.start(initial.wrapping_add(1), Some(initial));
            }
        }
        Self {
            facts: FlowFacts::new(opening),
            directions,
            conversation: C::open(&opening, cx),
            segments: 0,
            first_fin: None,
            first_fin_acknowledged: None,
            reset: None,
            new_syn: None,
            counts_only: false,
            counted: false,
        }
    }

    /// Takes in a segment that `side` sent.
    #[inline]
    pub(super) fn handle_segment<X>(&mut self, turn: &mut Turn<'_, X>, side: Side, segment: &Segment<'_>) -> Verdict
    where
        C: Conversation<X>,
    {
        self.facts.see(turn.at);
        self.segments = self.segments.wrapping_add(1);
        if self.counted {
            return self.handle_counted(turn, side, segment);
        }
        let flags = segment.flags;
        if flags.0 & (TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN) != 0 || self.new_syn.is_some() {
            return self.handle_control(turn, side, segment);
        }
        self.handle_octets(turn, side, segment, segment.sequence);
        self.verdict()
    }

    /// Ends what has waited too long, and wakes the conversation if `fire`.
    pub(super) fn handle_timeout<X>(&mut self, turn: &mut Turn<'_, X>, fire: bool) -> Verdict
    where
        C: Conversation<X>,
    {
        for side in Side::BOTH {
            self.settle(turn, side);
        }
        if fire && self.conversation.interest() != Interest::Nothing {
            self.conversation.handle_timeout(&self.facts, turn.at.time, turn.cx);
        }
        self.verdict()
    }

    /// Delivers whatever waits behind holes: nothing more will come, or there is no room for it to wait.
    pub(super) fn flush<X>(&mut self, turn: &mut Turn<'_, X>, cause: GapCause)
    where
        C: Conversation<X>,
    {
        for side in Side::BOTH {
            let (direction, mut up) = self.split(turn, side);
            direction.flush(cause, &mut up);
        }
    }

    /// Ends it.
    pub(super) fn close<X>(&mut self, turn: &mut Turn<'_, X>, reason: CloseReason)
    where
        C: Conversation<X>,
    {
        let cause = if reason == CloseReason::Evicted { GapCause::Limit } else { GapCause::Lost };
        self.flush(turn, cause);
        if self.conversation.interest() != Interest::Nothing {
            self.conversation.handle_close(&self.facts, turn.at, reason, turn.cx);
        }
    }

    /// What it ended by if nothing more comes.
    pub(super) fn reason_when_silent(&self) -> CloseReason {
        self.first_fin.map_or(CloseReason::Silent, closed_by)
    }

    /// Whether one side ended it and the other was never captured at all.
    pub(super) fn is_ended_one_way(&self) -> bool {
        let ended = |side: Side| {
            self.directions[side.index()].is_finished() && !self.directions[side.other().index()].is_started()
        };
        Side::BOTH.into_iter().any(ended)
    }

    /// What is kept of it after its end.
    pub(super) fn remains(&self) -> Remains {
        let mut ends = [None; 2];
        for (end, direction) in ends.iter_mut().zip(&self.directions) {
            *end = direction.end_sequence().filter(|_| direction.has_fin());
        }
        if let Some((side, sequence)) = self.reset {
            ends[side.index()] = Some(sequence);
        }
        Remains { initial: self.directions.each_ref().map(Direction::initial), ends }
    }

    /// The input has ended and the connection has not.
    pub(super) fn end<X>(&mut self, at: &At, cx: &mut X)
    where
        C: Conversation<X>,
    {
        if self.conversation.interest() != Interest::Nothing {
            self.conversation.handle_end(&self.facts, at, cx);
        }
    }

    /// Drops kept octets once the conversation wants no more of them.
    #[inline]
    pub(super) fn heed_interest<X>(&mut self) -> Interest
    where
        C: Conversation<X>,
    {
        let interest = self.conversation.interest();
        if interest != Interest::Everything && !self.counts_only {
            self.counts_only = true;
            self.directions.iter_mut().for_each(Direction::forget_octets);
        }
        interest
    }

    /// From now on the source may leave out what is not a beginning or an end.
    pub(super) fn leave_to_source(&mut self) {
        self.counted = true;
    }

    pub(super) const fn is_left_to_source(&self) -> bool {
        self.counted
    }

    /// What passed that the source only counted.
    pub(super) fn add_counts(&mut self, time: Timestamp, octets: [u64; 2]) {
        self.was_seen(time);
        for (side, octets) in self.facts.sides.iter_mut().zip(octets) {
            side.payload = side.payload.saturating_add(octets);
        }
    }

    /// Takes note of when something of it was seen that changed nothing.
    pub(super) fn was_seen(&mut self, time: Timestamp) {
        self.facts.last_seen = self.facts.last_seen.max(time);
    }

    pub(super) const fn facts(&self) -> &FlowFacts {
        &self.facts
    }

    pub(super) const fn conversation(&self) -> &C {
        &self.conversation
    }

    /// Drops what both directions delivered last. Returns whether there was anything.
    pub(super) fn forget_histories(&mut self) -> bool {
        let [one, other] = &mut self.directions;
        one.forget_history() | other.forget_history()
    }

    /// Copies what it needs of the block that is lent.
    pub(super) fn take_back(&mut self, lent: &Lent<'_>) {
        self.directions.iter_mut().for_each(|direction| direction.take_back(lent));
    }

    pub(super) fn has_payload(&self) -> bool {
        self.directions.iter().any(Direction::has_payload)
    }

    pub(super) fn is_holding(&self) -> bool {
        self.directions.iter().any(Direction::is_holding)
    }

    /// Whether what it holds is to be counted anew after this segment. A busy connection is weighed at every sixteenth, and
    /// at every fourth while octets wait behind a hole: what came in between is no more than three segments.
    #[inline]
    pub(super) fn is_weighed(&self) -> bool {
        const YOUNG: u32 = 64;
        const EVERY: u32 = 16;
        const EVERY_BEHIND_A_HOLE: u32 = 4;
        self.segments < YOUNG
            || self.segments.is_multiple_of(EVERY)
            || (self.is_holding() && self.segments.is_multiple_of(EVERY_BEHIND_A_HOLE))
            || self.counts_only
    }

    /// Bytes beyond its own size.
    #[inline]
    pub(super) fn memory<X>(&self) -> usize
    where
        C: Conversation<X>,
    {
        let syn = if self.new_syn.is_some() { size_of::<NewSyn>() } else { 0 };
        self.conversation.memory() + self.directions[0].memory() + self.directions[1].memory() + syn
    }

    /// When a hole has been waited for long enough.
    #[inline]
    pub(super) fn hole_due(&self, limits: &Limits) -> Option<Timestamp> {
        match (self.directions[0].due(limits), self.directions[1].due(limits)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    #[cold]
    fn handle_control<X>(&mut self, turn: &mut Turn<'_, X>, side: Side, segment: &Segment<'_>) -> Verdict
    where
        C: Conversation<X>,
    {
        if let Some(syn) = self.new_syn.as_deref().copied() {
            if self.proves(&syn, side, segment) {
                return Verdict::Reused(syn);
            }
            if side == syn.side && segment.payload_len > 0 && self.is_current(side, segment) {
                self.new_syn = None;
            }
        }
        if segment.flags.has(TcpFlags::RST) {
            return self.handle_reset(turn, side, segment);
        }
        let mut sequence = segment.sequence;
        if segment.flags.has(TcpFlags::SYN) {
            match self.handle_syn(turn, side, segment) {
                Some(verdict) => return verdict,
                None => sequence = sequence.wrapping_add(1),
            }
        }
        self.handle_octets(turn, side, segment, sequence);
        if segment.flags.has(TcpFlags::FIN) {
            let acknowledged = segment.flags.has(TcpFlags::ACK).then_some(segment.acknowledgement);
            self.handle_fin(turn, side, sequence.wrapping_add(segment.payload_len), acknowledged);
        }
        self.verdict()
    }

    /// The verdict on a SYN that is not this connection's own; `None` for one that is.
    fn handle_syn<X>(&mut self, turn: &Turn<'_, X>, side: Side, segment: &Segment<'_>) -> Option<Verdict> {
        let has_ack = segment.flags.has(TcpFlags::ACK);
        let answers = has_ack && self.acknowledges_syn(side, segment);
        self.facts.answered |= answers && side == Side::Acceptor;
        let first = segment.sequence.wrapping_add(1);
        let direction = &mut self.directions[side.index()];
        if !direction.is_started() {
            direction.start(first, Some(segment.sequence));
            return None;
        }
        if direction.initial() == Some(segment.sequence) {
            return None;
        }
        let is_late = direction.initial().is_none() && (-LATE_SYN..=0).contains(&direction.offset(first));
        if is_late {
            return Some(Verdict::Open);
        }
        if has_ack {
            // A server that answers with SYN cookies may answer a second time with another one.
            if answers && !direction.has_payload() {
                direction.start(first, Some(segment.sequence));
                return None;
            }
            return Some(Verdict::Open);
        }
        let syn = NewSyn { at: *turn.at, side, initial: segment.sequence };
        let ending = self.directions.iter().any(Direction::has_fin);
        if ending || !self.has_payload() {
            return Some(Verdict::Reused(syn));
        }
        self.new_syn = Some(Box::new(syn));
        Some(Verdict::Open)
    }

    /// Whether the segment acknowledges the other side's SYN and nothing else.
    fn acknowledges_syn(&self, side: Side, segment: &Segment<'_>) -> bool {
        let syn = self.directions[side.other().index()].initial();
        syn.is_none_or(|initial| segment.acknowledgement == initial.wrapping_add(1))
    }

    /// Whether the segment can only belong to the connection of that SYN: it answers it, or goes on behind it.
    fn proves(&self, syn: &NewSyn, side: Side, segment: &Segment<'_>) -> bool {
        let first = syn.initial.wrapping_add(1);
        let flags = segment.flags;
        if flags.has(TcpFlags::RST) {
            return false;
        }
        if side != syn.side {
            return flags.has(TcpFlags::SYN | TcpFlags::ACK) && segment.acknowledgement == first;
        }
        !flags.has(TcpFlags::SYN)
            && flags.has(TcpFlags::ACK)
            && segment.sequence == first
            && !self.is_current(side, segment)
    }

    /// Whether the segment is about where its direction is.
    fn is_current(&self, side: Side, segment: &Segment<'_>) -> bool {
        let direction = &self.directions[side.index()];
        direction.is_started() && direction.distance(segment.sequence).abs() <= OUTSIDE_WINDOW
    }

    /// A segment of a connection of which the source leaves most out. Where a direction is cannot be known any more, so a
    /// FIN of each side ends it, a RST does, and a SYN begins another one.
    #[cold]
    fn handle_counted<X>(&mut self, turn: &Turn<'_, X>, side: Side, segment: &Segment<'_>) -> Verdict {
        let flags = segment.flags;
        if flags.has(TcpFlags::RST) {
            return Verdict::Closed(self.first_fin.map_or(reset_by(side), closed_by));
        }
        if flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::ACK) {
            return Verdict::Reused(NewSyn { at: *turn.at, side, initial: segment.sequence });
        }
        let seen = &mut self.facts.sides[side.index()].payload;
        *seen = seen.saturating_add(u64::from(segment.payload_len));
        match self.first_fin {
            Some(first) if flags.has(TcpFlags::FIN) && first != side => Verdict::Closed(closed_by(first)),
            None if flags.has(TcpFlags::FIN) => {
                self.first_fin = Some(side);
                Verdict::Open
            }
            _ => Verdict::Open,
        }
    }

    fn handle_reset<X>(&mut self, turn: &mut Turn<'_, X>, side: Side, segment: &Segment<'_>) -> Verdict {
        let direction = &self.directions[side.index()];
        if direction.is_started() {
            let (lowest, highest) = direction.receiver();
            let offset = direction.offset(segment.sequence);
            if offset < lowest || offset > highest + RESET_WINDOW {
                turn.stats.resets_ignored += 1;
                return Verdict::Open;
            }
        } else if !self.acknowledges_something(side, segment) {
            turn.stats.resets_ignored += 1;
            return Verdict::Open;
        }
        let end = direction.end_sequence().unwrap_or(segment.sequence);
        let is_behind = segment.sequence.wrapping_sub(end).cast_signed() > 0;
        self.reset = Some((side, if is_behind { segment.sequence } else { end }));
        Verdict::Closed(self.first_fin.map_or(reset_by(side), closed_by))
    }

    /// Whether the segment acknowledges, if it says so at all, what the other side may have sent.
    fn acknowledges_something(&self, side: Side, segment: &Segment<'_>) -> bool {
        let other = &self.directions[side.other().index()];
        let (lowest, highest) = other.receiver();
        let offset = other.offset(segment.acknowledgement);
        !segment.flags.has(TcpFlags::ACK) || !other.is_started() || (lowest..=highest + RESET_WINDOW).contains(&offset)
    }

    fn handle_fin<X>(&mut self, turn: &mut Turn<'_, X>, side: Side, sequence: u32, acknowledged: Option<u32>)
    where
        C: Conversation<X>,
    {
        let moment = Moment { now: turn.now, segments: self.segments };
        let direction = &mut self.directions[side.index()];
        direction.receive_fin(sequence, moment);
        if direction.has_fin() {
            match self.first_fin {
                None => (self.first_fin, self.first_fin_acknowledged) = (Some(side), acknowledged),
                // The other side's FIN answered this one and was merely captured before it.
                Some(first) if first != side && self.first_fin_acknowledged == Some(sequence.wrapping_add(1)) => {
                    self.first_fin = Some(side);
                }
                Some(_) => {}
            }
        }
        self.settle(turn, side);
    }

    /// Takes in what a segment acknowledges, and its octets from `sequence` on.
    #[inline]
    fn handle_octets<X>(&mut self, turn: &mut Turn<'_, X>, side: Side, segment: &Segment<'_>, sequence: u32)
    where
        C: Conversation<X>,
    {
        let moment = Moment { now: turn.now, segments: self.segments };
        if segment.flags.has(TcpFlags::ACK) {
            self.directions[side.other().index()].acknowledge(segment.acknowledgement, moment);
            self.facts.answered |= !segment.flags.has(TcpFlags::SYN);
        }
        let carries = segment.payload_len > 0;
        if carries || segment.flags.has(TcpFlags::FIN) {
            self.start_in_the_middle(side, sequence);
        }
        if carries {
            let two_way = self.is_two_way(side);
            let (direction, mut up) = self.split(turn, side);
            let data = segment.payload.get(..segment.payload_len as usize).unwrap_or(segment.payload);
            let context = Context { limits: up.limits, moment, two_way };
            direction.receive(sequence, segment.payload_len, data, &context, &mut up);
        }
        self.settle(turn, side);
        if segment.flags.has(TcpFlags::ACK) {
            self.settle(turn, side.other());
        }
    }

    fn start_in_the_middle(&mut self, side: Side, sequence: u32) {
        let direction = &mut self.directions[side.index()];
        if !direction.is_started() {
            direction.start(sequence, None);
        }
    }

    fn is_two_way(&self, side: Side) -> bool {
        self.directions[side.other().index()].is_started() && self.directions[side.index()].is_acknowledged()
    }

    #[inline]
    fn settle<X>(&mut self, turn: &mut Turn<'_, X>, side: Side)
    where
        C: Conversation<X>,
    {
        let direction = &self.directions[side.index()];
        if direction.is_holding() || direction.has_fin() {
            self.skip_holes(turn, side);
        }
    }

    fn skip_holes<X>(&mut self, turn: &mut Turn<'_, X>, side: Side)
    where
        C: Conversation<X>,
    {
        let moment = Moment { now: turn.now, segments: self.segments };
        let two_way = self.is_two_way(side);
        let (direction, mut up) = self.split(turn, side);
        let context = Context { limits: up.limits, moment, two_way };
        direction.settle(&context, &mut up);
    }

    /// Whether it has ended by what was delivered so far.
    #[inline]
    pub(super) fn verdict(&mut self) -> Verdict {
        let Some(first) = self.first_fin.filter(|_| !self.counted) else { return Verdict::Open };
        if !self.directions[first.index()].has_fin() {
            // The sender went on behind it: it was never sent.
            self.first_fin = None;
            return Verdict::Open;
        }
        if self.directions.iter().all(Direction::is_finished) {
            Verdict::Closed(closed_by(first))
        } else {
            Verdict::Open
        }
    }

    #[inline]
    fn split<'a, 'b, X>(&'a mut self, turn: &'a mut Turn<'b, X>, side: Side) -> (&'a mut Direction, Delivery<'a, C, X>)
    where
        'b: 'a,
    {
        let delivery = Delivery {
            facts: &mut self.facts,
            conversation: &mut self.conversation,
            stats: turn.stats,
            limits: turn.limits,
            lent: turn.lent.again(),
            at: turn.at,
            cx: turn.cx,
            side,
        };
        (&mut self.directions[side.index()], delivery)
    }
}

/// What a connection needs from outside to take in a segment.
pub(super) struct Turn<'a, X> {
    pub(super) at: &'a At,
    /// The same moment by the layer's own clock.
    pub(super) now: Timestamp,
    pub(super) limits: &'a Limits,
    pub(super) stats: &'a mut FlowStats,
    pub(super) lent: Lent<'a>,
    pub(super) cx: &'a mut X,
}

/// Brings what a direction delivers to the conversation, and counts it.
struct Delivery<'a, C, X> {
    facts: &'a mut FlowFacts,
    conversation: &'a mut C,
    stats: &'a mut FlowStats,
    limits: &'a Limits,
    lent: Lent<'a>,
    at: &'a At,
    cx: &'a mut X,
    side: Side,
}

impl<C: Conversation<X>, X> Upward for Delivery<'_, C, X> {
    #[inline]
    fn seen(&mut self, bytes: u64) {
        self.facts.sides[self.side.index()].payload += bytes;
    }

    #[inline]
    fn data(&mut self, data: &[u8]) {
        self.conversation.handle_data(self.facts, self.at, self.side, data, self.cx);
    }

    fn gap(&mut self, gap: Gap) {
        let side = &mut self.facts.sides[self.side.index()];
        side.gaps += 1;
        side.missing += gap.bytes;
        self.stats.gaps += 1;
        self.stats.missing_bytes += gap.bytes;
        if self.conversation.interest() == Interest::Everything {
            self.conversation.handle_gap(self.facts, self.at, self.side, gap, self.cx);
        }
    }

    fn tampering(&mut self, what: Tampering, offset: u64, bytes: u64) {
        if self.conversation.interest() == Interest::Everything {
            self.conversation.handle_tampering(self.facts, self.at, self.side, what, offset, bytes, self.cx);
        }
    }

    fn stray(&mut self, bytes: u64) {
        self.stats.stray_octets += bytes;
    }

    fn limit(&mut self, limit: super::Limit) {
        self.stats.limits.count(limit);
    }

    #[inline]
    fn keep(&self) -> Keep {
        if self.conversation.interest() != Interest::Everything {
            return Keep::Nothing;
        }
        // What is not yet known for anything is not worth 32 KiB; floods are made of that.
        if self.conversation.value() > Value::Unknown { Keep::History } else { Keep::Octets }
    }

    #[inline]
    fn keeps(&self) -> bool {
        self.conversation.interest() == Interest::Everything
    }

    #[inline]
    fn lent(&mut self) -> Lent<'_> {
        self.lent.again()
    }
}

const fn closed_by(side: Side) -> CloseReason {
    match side {
        Side::Initiator => CloseReason::FinInitiator,
        Side::Acceptor => CloseReason::FinAcceptor,
    }
}

const fn reset_by(side: Side) -> CloseReason {
    match side {
        Side::Initiator => CloseReason::ResetInitiator,
        Side::Acceptor => CloseReason::ResetAcceptor,
    }
}
