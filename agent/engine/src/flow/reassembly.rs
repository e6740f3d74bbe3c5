//! One direction of a connection: from segments in any order to octets in order.
//!
//! Octets have offsets that count from the first one (the one behind the SYN, or the first captured one), so that the
//! wrapping sequence numbers are met in one place only. What waits behind a hole is kept in pieces that are sorted,
//! do not overlap and all begin behind [`Direction::next`].

use std::collections::VecDeque;
use std::time::Duration;

use super::history::{History, differing};
use super::lent::Lent;
use super::{Gap, GapCause, Limit};
use crate::event::Tampering;
use crate::limits::Limits;
use crate::time::Timestamp;

/// How far from where a stream is a segment may be before it is taken for astray. The largest window that TCP can
/// announce is 1 GiB, but buffers bound what is really under way: Linux gives a socket 6 MiB unless told otherwise
/// (`net.ipv4.tcp_rmem`), and the emulator asks for less. A jump beyond it is not held against anyone by itself,
/// because a capture that pauses looks the same: see [`Stray`].
pub(super) const OUTSIDE_WINDOW: i64 = 16 << 20;

/// A hole that the receiver has acknowledged is lost to the capture, unless the capture itself delivers packets out
/// of order: several receive queues or interfaces are some packets, or one poll of the kernel's ring, apart.
const REORDER_GRACE: Duration = Duration::from_millis(50);
/// The same in segments of the connection, for busy ones.
const REORDER_GRACE_SEGMENTS: u32 = 32;

/// Room that a link keeps for what comes behind its next hole, in octets and in pieces: about what arrives while one hole
/// is waited for.
const ROOM_KEPT: usize = 32 << 10;
const PIECES_KEPT: usize = 64;

/// What an allocation costs beyond the bytes asked for: header and rounding of the usual allocators.
pub(super) const ALLOCATION_OVERHEAD: usize = 16;

/// What a direction tells, in the order of the stream.
pub(super) trait Upward {
    /// Octets on the wire that are seen for the first time.
    fn seen(&mut self, bytes: u64);
    /// Octets in order.
    fn data(&mut self, data: &[u8]);
    /// Octets that will not come.
    fn gap(&mut self, gap: Gap);
    /// Octets that cannot be true.
    fn tampering(&mut self, what: Tampering, offset: u64, bytes: u64);
    /// Octets that are ignored because they are too far away.
    fn stray(&mut self, bytes: u64);
    /// A limit was reached.
    fn limit(&mut self, limit: Limit);
    /// What is to be kept now.
    fn keep(&self) -> Keep;
    /// Whether anything is.
    fn keeps(&self) -> bool;
    /// The block that octets may be remembered in.
    fn lent(&mut self) -> Lent<'_>;
}

/// What a direction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keep {
    /// Only which octets were seen.
    Nothing,
    /// Octets behind holes.
    Octets,
    /// These, and the last delivered ones to compare retransmissions with.
    History,
}

/// The moment of a segment, in the time of the layer's clock and in segments of the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    pub(super) segments: u32,
}

impl Moment {
    /// Whether so long has passed since `earlier` that a capture's reordering no longer explains anything.
    fn is_beyond_grace(self, earlier: Self) -> bool {
        self.segments.wrapping_sub(earlier.segments) >= REORDER_GRACE_SEGMENTS
            || self.now.is_past(earlier.now, REORDER_GRACE)
    }
}

/// A piece of the stream that waits behind a hole.
#[derive(Debug)]
struct Held {
    start: u64,
    /// Length on the wire; more than `kept` where it was cut off, or where octets are not kept.
    len: u32,
    kept: u32,
    /// Where its octets are in [`Direction::octets`].
    place: usize,
    arrived: Moment,
}

impl Held {
    const fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    fn data<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        octets.get(self.place..self.place + self.kept as usize).unwrap_or_default()
    }
}

/// Segments far from where the stream is. Either somebody injected them, or the capture missed what lies between.
/// What comes next tells: new data at the old place disproves them, an acknowledgement at the new place (or, without
/// any, a run of segments for longer than holes are waited for) proves them.
#[derive(Clone, Copy, Debug)]
struct Stray {
    /// Stream offset that the first would have.
    offset: u64,
    /// Sequence number behind the last.
    end: u32,
    bytes: u64,
    since: Timestamp,
    acknowledged: bool,
}

/// What the other end has acknowledged, and what of it is older than the capture's reordering.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    latest: u64,
    ripe: u64,
    ripening: u64,
    since: Moment,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The sequence number of the octet at `next`; meaningless before `started`.
    sequence: u32,
    started: bool,
    /// Whether the other end has ever acknowledged anything here.
    is_acknowledged: bool,
    /// The sequence number of the SYN.
    initial: Option<u32>,
    /// Offset of the next octet to deliver.
    next: u64,
    /// Offset behind the last octet seen.
    highest: u64,
    acknowledged: Acknowledged,
    /// Offset of the FIN, and when it came.
    fin: Option<(u64, Moment)>,
    held: VecDeque<Held>,
    /// The octets of what is held, one after the other as they came: an allocation and a release for each piece would
    /// cost more than the copy. May have gaps, of what was delivered.
    octets: Vec<u8>,
    /// Octets of what is held.
    held_octets: usize,
    stray: Option<Box<Stray>>,
    history: Option<History>,
}

impl Direction {
    /// Sets where the stream begins: `sequence` is that of the first octet.
    pub(super) fn start(&mut self, sequence: u32, initial: Option<u32>) {
        (self.sequence, self.started, self.initial) = (sequence, true, initial);
    }

    /// Whether anything was seen of it.
    pub(super) const fn is_started(&self) -> bool {
        self.started
    }

    /// Whether the other end was seen to acknowledge it.
    pub(super) const fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// Whether any payload was.
    pub(super) const fn has_payload(&self) -> bool {
        self.highest > 0
    }

    /// The sequence number of its SYN.
    pub(super) const fn initial(&self) -> Option<u32> {
        self.initial
    }

    /// The sequence number behind the last octet seen or acknowledged.
    pub(super) fn end_sequence(&self) -> Option<u32> {
        let ahead = self.highest.max(self.next) - self.next;
        self.started.then(|| self.sequence.wrapping_add(ahead as u32))
    }

    /// How far `sequence` is from the next octet to deliver.
    #[inline]
    pub(super) fn distance(&self, sequence: u32) -> i64 {
        i64::from(sequence.wrapping_sub(self.sequence).cast_signed())
    }

    /// The offset of `sequence`; negative before the beginning.
    pub(super) fn offset(&self, sequence: u32) -> i64 {
        self.next.cast_signed() + self.distance(sequence)
    }

    /// The lowest and highest offsets at which the receiver may be.
    pub(super) fn receiver(&self) -> (i64, i64) {
        (self.acknowledged.latest.cast_signed(), self.highest.max(self.acknowledged.latest).cast_signed())
    }

    /// Whether all of it was delivered, up to the FIN.
    pub(super) fn is_finished(&self) -> bool {
        self.fin.is_some_and(|(fin, _)| self.next >= fin)
    }

    /// Whether the FIN was seen, whatever is still missing.
    pub(super) const fn has_fin(&self) -> bool {
        self.fin.is_some()
    }

    /// Whether octets wait behind a hole.
    #[inline]
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes on the heap.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        let history = self.history.as_ref().map_or(0, |history| history.memory() + ALLOCATION_OVERHEAD);
        if self.held.capacity() == 0 && self.octets.capacity() == 0 && self.stray.is_none() {
            return history;
        }
        let stray = if self.stray.is_some() { size_of::<Stray>() + ALLOCATION_OVERHEAD } else { 0 };
        let pieces = self.held.capacity() * size_of::<Held>() + self.octets.capacity();
        let allocations = usize::from(self.held.capacity() > 0) + usize::from(self.octets.capacity() > 0);
        history + stray + pieces + allocations * ALLOCATION_OVERHEAD
    }

    /// Drops every octet kept; which octets were seen stays known.
    pub(super) fn forget_octets(&mut self) {
        for held in &mut self.held {
            held.kept = 0;
        }
        (self.octets, self.held_octets, self.history) = (Vec::new(), 0, None);
    }

    /// Drops what was delivered last: a retransmission of it is compared with nothing. Returns whether there was anything.
    pub(super) fn forget_history(&mut self) -> bool {
        self.history.take().is_some()
    }

    /// Copies what it needs of the block that is lent.
    pub(super) fn take_back(&mut self, lent: &Lent<'_>) {
        if let Some(history) = &mut self.history {
            history.take_back(lent);
        }
    }

    /// Takes note of what the other end acknowledges.
    #[inline]
    pub(super) fn acknowledge(&mut self, acknowledgement: u32, moment: Moment) {
        if !self.started {
            return;
        }
        self.is_acknowledged = true;
        let offset = self.offset(acknowledgement);
        if let Some(stray) = &mut self.stray {
            let from_stray = i64::from(acknowledgement.wrapping_sub(stray.end).cast_signed());
            let is_here = (offset - self.highest.max(self.next).cast_signed()).abs() <= OUTSIDE_WINDOW;
            stray.acknowledged |= !is_here && from_stray.abs() <= OUTSIDE_WINDOW;
        }
        // An acknowledgement of what is not there yet may be ahead by what the capture missed, or be a lie.
        if offset > self.acknowledged.latest.cast_signed()
            && offset <= self.highest.max(self.next).cast_signed() + OUTSIDE_WINDOW
        {
            self.acknowledged.latest = offset.cast_unsigned();
        }
        if self.acknowledged.ripe < self.acknowledged.latest {
            self.ripen(moment);
        }
    }

    /// Takes in the octets of a segment.
    #[inline]
    pub(super) fn receive<U: Upward>(
        &mut self,
        sequence: u32,
        len: u32,
        data: &[u8],
        context: &Context<'_>,
        up: &mut U,
    ) {
        if sequence == self.sequence && self.held.is_empty() && self.stray.is_none() {
            up.seen(u64::from(len));
            self.deliver(data, len, up);
            return;
        }
        self.receive_out_of_order(sequence, len, data, context, up);
    }

    /// Takes note of a FIN behind the octet at `sequence`.
    pub(super) fn receive_fin(&mut self, sequence: u32, moment: Moment) {
        let offset = self.offset(sequence);
        let distance = self.distance(sequence);
        if (0..=OUTSIDE_WINDOW).contains(&distance) && self.fin.is_none() && offset >= self.highest.cast_signed() {
            self.fin = Some((offset.cast_unsigned(), moment));
        }
    }

    /// Skips holes that need not, or must not, be waited for any longer.
    #[inline]
    pub(super) fn settle<U: Upward>(&mut self, context: &Context<'_>, up: &mut U) {
        if self.held.is_empty() && self.fin.is_none() {
            return;
        }
        self.ripen(context.moment);
        while let Some((end, arrived)) = self.hole() {
            let Some((cause, limit)) = self.reason_to_skip(end, arrived, context) else { return };
            if let Some(limit) = limit {
                up.limit(limit);
            }
            self.skip_to(end, cause, up);
        }
    }

    /// When [`settle`](Self::settle) will have something to do if nothing else comes.
    #[inline]
    pub(super) fn due(&self, limits: &Limits) -> Option<Timestamp> {
        let (end, arrived) = self.hole()?;
        let given_up = arrived.now.plus(limits.reorder_wait);
        if self.acknowledged.latest < end {
            return Some(given_up);
        }
        // An acknowledgement ripens after one grace, or after two if one was ripening already.
        Some(given_up.min(arrived.now.max(self.acknowledged.since.now).plus(REORDER_GRACE)))
    }

    /// Delivers what waits behind holes, and says what was acknowledged beyond it: nothing more will come, or there is no
    /// memory for it, and so no room is kept either.
    pub(super) fn flush<U: Upward>(&mut self, cause: GapCause, up: &mut U) {
        while let Some((end, _)) = self.hole() {
            self.skip_to(end, cause, up);
        }
        (self.octets, self.held) = (Vec::new(), VecDeque::new());
        let missing = self.acknowledged.latest.saturating_sub(self.next);
        // Behind the last octet lies the FIN, which is acknowledged like an octet and may itself have been missed.
        if missing > 1 && self.fin.is_none() {
            self.skip_to(self.acknowledged.latest, cause, up);
        }
    }

    fn hole(&self) -> Option<(u64, Moment)> {
        match (self.held.front(), self.fin) {
            (Some(held), _) => Some((held.start, held.arrived)),
            (None, Some((fin, arrived))) if fin > self.next => Some((fin, arrived)),
            _ => None,
        }
    }

    fn reason_to_skip(&self, end: u64, arrived: Moment, context: &Context<'_>) -> Option<(GapCause, Option<Limit>)> {
        let limits = context.limits;
        if self.held_octets > limits.reorder_bytes {
            return Some((GapCause::Limit, Some(Limit::ReorderBytes)));
        }
        if self.held.len() > limits.reorder_segments {
            return Some((GapCause::Limit, Some(Limit::ReorderSegments)));
        }
        if self.acknowledged.ripe >= end && context.moment.is_beyond_grace(arrived) {
            return Some((GapCause::Lost, None));
        }
        let waited = context.moment.now.since(arrived.now);
        (waited >= limits.reorder_wait).then_some((GapCause::Lost, Some(Limit::ReorderWait)))
    }

    fn ripen(&mut self, moment: Moment) {
        let acknowledged = &mut self.acknowledged;
        if acknowledged.ripe < acknowledged.latest && moment.is_beyond_grace(acknowledged.since) {
            acknowledged.ripe = acknowledged.ripening;
            (acknowledged.ripening, acknowledged.since) = (acknowledged.latest, moment);
        }
    }

    #[cold]
    fn receive_out_of_order<U: Upward>(
        &mut self,
        sequence: u32,
        len: u32,
        data: &[u8],
        context: &Context<'_>,
        up: &mut U,
    ) {
        if self.is_astray(sequence, len, context) && !self.returns_from_astray(sequence, len, context, up) {
            return;
        }
        let start = self.offset(sequence);
        let end = start.saturating_add(i64::from(len));
        let next = self.next.cast_signed();
        if start < next && !self.is_probe(start, len) {
            self.compare_with_delivered(start, data, up);
        }
        if end <= next {
            return;
        }
        if let Some(stray) = self.stray.take()
            && context.two_way
        {
            up.tampering(Tampering::OutsideWindow, stray.offset, stray.bytes);
        }
        let segment = Placed { start, end: end.cast_unsigned(), data };
        if start <= next { self.fill(segment, up) } else { self.hold(segment, context.moment, up) }
    }

    /// A keep-alive or window probe: one octet, of any value, just before the end of what was sent or acknowledged
    /// (RFC 9293, section 3.8.4). The receiver ignores it.
    fn is_probe(&self, start: i64, len: u32) -> bool {
        let behind = start + 1;
        len == 1 && (behind == self.highest.cast_signed() || behind == self.acknowledged.latest.cast_signed())
    }

    fn compare_with_delivered<U: Upward>(&mut self, start: i64, data: &[u8], up: &mut U) {
        let Some(history) = &mut self.history else { return };
        let before = usize::try_from(start.min(0).unsigned_abs()).unwrap_or(usize::MAX);
        let Some(data) = data.get(before..) else { return };
        if let Some((offset, bytes)) = history.differing(start.max(0).cast_unsigned(), data, &up.lent()) {
            up.tampering(Tampering::ConflictingRetransmission, offset, bytes);
        }
    }

    /// Takes in a segment that begins at or before `next` and ends behind it.
    fn fill<U: Upward>(&mut self, segment: Placed<'_>, up: &mut U) {
        while self.next < segment.end {
            let hole_end = self.held.front().map_or(segment.end, |held| held.start.min(segment.end));
            if self.next < hole_end {
                let piece = segment.between(self.next, hole_end);
                let len = (hole_end - self.next) as u32;
                up.seen(u64::from(len));
                self.deliver(piece, len, up);
            } else if let Some(held) = self.take_held() {
                let octets = std::mem::take(&mut self.octets);
                segment.compare_with(&held, &octets, up);
                self.deliver(held.data(&octets), held.len, up);
                self.octets = octets;
            }
        }
        self.deliver_held(up);
    }

    /// Keeps those octets of a segment behind a hole that are not there yet.
    fn hold<U: Upward>(&mut self, segment: Placed<'_>, arrived: Moment, up: &mut U) {
        let mut cursor = segment.start.cast_unsigned();
        let mut index = self.held.partition_point(|held| held.end() <= cursor);
        let probe = self.is_probe(segment.start, (segment.end - cursor) as u32);
        while cursor < segment.end {
            let piece_end = match self.held.get(index) {
                Some(held) if held.start <= cursor => {
                    if !probe {
                        segment.compare_with(held, &self.octets, up);
                    }
                    cursor = held.end();
                    index += 1;
                    continue;
                }
                Some(held) => held.start.min(segment.end),
                None => segment.end,
            };
            let data = match up.keep() {
                Keep::Nothing => &[],
                Keep::Octets | Keep::History => segment.between(cursor, piece_end),
            };
            up.seen(piece_end - cursor);
            let (len, kept, place) = ((piece_end - cursor) as u32, data.len() as u32, self.octets.len());
            self.octets.extend_from_slice(data);
            self.held_octets += data.len();
            self.held.insert(index, Held { start: cursor, len, kept, place, arrived });
            cursor = piece_end;
            index += 1;
        }
        self.highest = self.highest.max(segment.end);
        self.drop_disproved_fin();
    }

    fn skip_to<U: Upward>(&mut self, end: u64, cause: GapCause, up: &mut U) {
        let bytes = end - self.next;
        self.next = end;
        self.sequence = self.sequence.wrapping_add(bytes as u32);
        up.gap(Gap { bytes, cause });
        self.deliver_held(up);
    }

    fn deliver_held<U: Upward>(&mut self, up: &mut U) {
        let octets = std::mem::take(&mut self.octets);
        while self.held.front().is_some_and(|held| held.start <= self.next) {
            let Some(held) = self.take_held() else { break };
            self.deliver(held.data(&octets), held.len, up);
        }
        self.octets = octets;
        self.tidy(up.keep());
    }

    /// Gives back the room of octets that were delivered. A link keeps a little for its next hole.
    fn tidy(&mut self, keep: Keep) {
        if self.held.is_empty() {
            self.octets.clear();
            if keep != Keep::History || self.octets.capacity() > ROOM_KEPT {
                self.octets = Vec::new();
            }
            if self.held.capacity() > if keep == Keep::History { PIECES_KEPT } else { 0 } {
                self.held = VecDeque::new();
            }
        } else if self.octets.len() > 2 * self.held_octets + ROOM_KEPT {
            // Moved only when that frees more than it moves.
            let mut octets = Vec::with_capacity(self.held_octets);
            for held in &mut self.held {
                let place = octets.len();
                octets.extend_from_slice(held.data(&self.octets));
                held.place = place;
            }
            self.octets = octets;
        }
    }

    fn take_held(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.held_octets -= held.kept as usize;
        Some(held)
    }

    /// Delivers the octets at `next`: `len` on the wire, of which `data` are there.
    #[inline]
    fn deliver<U: Upward>(&mut self, data: &[u8], len: u32, up: &mut U) {
        let keeps = up.keeps();
        let offset = self.next;
        self.next += u64::from(len);
        self.sequence = self.sequence.wrapping_add(len);
        self.highest = self.highest.max(self.next);
        self.drop_disproved_fin();
        if !keeps {
            return;
        }
        if !data.is_empty() {
            up.data(data);
            if up.keep() == Keep::History {
                self.history.get_or_insert_default().push(offset, data, &mut up.lent());
            }
        }
        let cut = u64::from(len).saturating_sub(data.len() as u64);
        if cut > 0 {
            up.gap(Gap { bytes: cut, cause: GapCause::SnapLength });
        }
    }

    /// A sender that goes on behind its FIN never sent that FIN.
    #[inline]
    fn drop_disproved_fin(&mut self) {
        if self.fin.is_some_and(|(fin, _)| fin < self.highest) {
            self.fin = None;
        }
    }

    fn is_astray(&self, sequence: u32, len: u32, context: &Context<'_>) -> bool {
        let distance = self.distance(sequence);
        let (_, receiver) = self.receiver();
        let ahead = distance - (receiver - self.next.cast_signed()).max(0);
        distance + i64::from(len) < -OUTSIDE_WINDOW || (context.two_way && ahead > OUTSIDE_WINDOW)
    }

    /// Takes note of a segment astray, and says whether the stream really is where it says.
    fn returns_from_astray<U: Upward>(&mut self, sequence: u32, len: u32, context: &Context<'_>, up: &mut U) -> bool {
        let (now, end) = (context.moment.now, sequence.wrapping_add(len));
        let offset = self.offset(sequence).max(0).cast_unsigned();
        let near = |stray: &Stray| i64::from(sequence.wrapping_sub(stray.end).cast_signed()).abs() <= OUTSIDE_WINDOW;
        match &mut self.stray {
            Some(stray) if near(stray) => {
                if stray.acknowledged || now.since(stray.since) >= context.limits.reorder_wait {
                    self.resume_at(sequence, up);
                    return true;
                }
                stray.end = end;
                stray.bytes += u64::from(len);
            }
            // The first is what evidence is gathered on; others do not push it out.
            Some(_) => {}
            None => {
                let stray = Stray { offset, end, bytes: u64::from(len), since: now, acknowledged: false };
                self.stray = Some(Box::new(stray));
            }
        }
        up.stray(u64::from(len));
        false
    }

    /// Goes on at a place that is too far away to be reached in order.
    fn resume_at<U: Upward>(&mut self, sequence: u32, up: &mut U) {
        self.stray = None;
        self.fin = None;
        self.flush(GapCause::Lost, up);
        // Where the stream is more than 4 GiB further on, the whole multiples cannot be known.
        let forward = u64::from(sequence.wrapping_sub(self.sequence));
        if forward > 0 {
            self.skip_to(self.next + forward, GapCause::Lost, up);
        }
        self.highest = self.highest.max(self.next);
    }
}

/// What [`Direction`] has to know of the rest of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) limits: &'a Limits,
    pub(super) moment: Moment,
    /// Both directions are captured, and this one's octets are acknowledged in the other.
    pub(super) two_way: bool,
}

/// A segment's octets with their place in the stream.
#[derive(Clone, Copy)]
struct Placed<'a> {
    start: i64,
    end: u64,
    data: &'a [u8],
}

impl<'a> Placed<'a> {
    /// Those captured octets that lie between these offsets.
    fn between(&self, from: u64, to: u64) -> &'a [u8] {
        let index = |offset: u64| {
            let index = offset.cast_signed().saturating_sub(self.start);
            usize::try_from(index).unwrap_or(0).min(self.data.len())
        };
        self.data.get(index(from)..index(to)).unwrap_or_default()
    }

    /// Compares with a piece that is held in `octets`.
    fn compare_with<U: Upward>(&self, held: &Held, octets: &[u8], up: &mut U) {
        let from = held.start.max(self.start.max(0).cast_unsigned());
        let Some(first_copy) = held.data(octets).get((from - held.start) as usize..) else { return };
        if let Some((offset, bytes)) = differing(from, first_copy, self.between(from, held.end())) {
            up.tampering(Tampering::ConflictingRetransmission, offset, bytes);
        }
    }
}
