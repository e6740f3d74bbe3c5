//! The last octets that a direction delivered, to compare retransmissions with.

use super::lent::{Lent, NONE};

/// A ring of the octets delivered last, contiguous up to `end`.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// A power of two long, so that the place of an octet is its offset modulo the length.
    ring: Box<[u8]>,
    /// As long as the ring has to be so far.
    size: usize,
    /// Stream offset behind the newest octet.
    end: u64,
    /// Octets that are known.
    len: usize,
    /// The newest octets, as many as `lent`, are not in the ring but in the block that is lent, in pieces of which this is
    /// the last.
    latest: u32,
    lent: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { ring: Box::default(), size: 0, end: 0, len: 0, latest: NONE, lent: 0 }
    }
}

impl History {
    /// Octets kept at most. A forged segment that races with the true one comes within a round trip, during which a
    /// link rarely has more than this under way.
    pub(super) const SIZE: usize = 16 << 10;
    /// Octets that there is room for from the start: one side of a handshake between names that are short.
    const FIRST_SIZE: usize = 64;

    /// Bytes on the heap, once the block that is lent has gone.
    pub(super) const fn memory(&self) -> usize {
        self.size
    }

    /// Whether it needs the block that is lent.
    const fn is_lent(&self) -> bool {
        self.latest != NONE
    }

    /// Takes over octets that were delivered at `offset`. If that is not where the last ended, the past is forgotten.
    #[inline(always)]
    pub(super) fn push(&mut self, offset: u64, data: &[u8], lent: &mut Lent<'_>) {
        if offset == self.end
            && self.size == Self::SIZE
            && let Some(piece) = lent.piece(data, self.latest)
        {
            self.end += data.len() as u64;
            self.len = Self::SIZE.min(self.len + data.len());
            (self.latest, self.lent) = (lent.remember(piece), self.lent + data.len() as u64);
            return;
        }
        self.push_any(offset, data, lent);
    }

    /// The same before the ring has its full length, behind a gap, and of octets that do not lie in the block.
    fn push_any(&mut self, offset: u64, data: &[u8], lent: &mut Lent<'_>) {
        if offset != self.end {
            (self.len, self.end, self.latest, self.lent) = (0, offset, NONE, 0);
        }
        if self.size < Self::SIZE && self.size - self.len < data.len() {
            self.size = (self.len + data.len()).clamp(Self::FIRST_SIZE, Self::SIZE).next_power_of_two();
        }
        let piece = lent.piece(data, self.latest);
        if piece.is_none() {
            self.take_back(lent);
            self.make_room();
        }
        self.end = offset + data.len() as u64;
        let kept = data.get(data.len().saturating_sub(self.size)..).unwrap_or(data);
        self.len = self.size.min(self.len + kept.len());
        match piece {
            Some(piece) => (self.latest, self.lent) = (lent.remember(piece), self.lent + data.len() as u64),
            None => self.write(self.end - kept.len() as u64, kept),
        }
    }

    /// Copies what is needed of the block that is lent.
    pub(super) fn take_back(&mut self, lent: &Lent<'_>) {
        if !self.is_lent() {
            return;
        }
        self.make_room();
        let wanted = self.len.min(usize::try_from(self.lent).unwrap_or(usize::MAX));
        let (mut at, mut left) = (self.end, wanted);
        while left > 0
            && let Some((octets, before)) = lent.recall(self.latest)
        {
            let kept = octets.get(octets.len().saturating_sub(left)..).unwrap_or(octets);
            at -= kept.len() as u64;
            left -= kept.len();
            self.write(at, kept);
            self.latest = before;
        }
        debug_assert_eq!(left, 0, "the block is the one that was lent");
        if left > 0 {
            self.len = wanted - left;
        }
        (self.latest, self.lent) = (NONE, 0);
    }

    /// Makes the ring as long as it has to be.
    #[inline]
    fn make_room(&mut self) {
        if self.ring.len() < self.size {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::replace(&mut self.ring, vec![0; self.size].into());
        let end = self.end - self.lent;
        let known = self.len.saturating_sub(usize::try_from(self.lent).unwrap_or(usize::MAX));
        let from = Self::place(&old, end - known as u64);
        let (head, tail) = (old.get(from..).unwrap_or_default(), old.get(..from).unwrap_or_default());
        let head = head.get(..known).unwrap_or(head);
        let tail = tail.get(..known - head.len()).unwrap_or(tail);
        self.write(end - known as u64, head);
        self.write(end - known as u64 + head.len() as u64, tail);
    }

    /// Puts octets, no more than there is room for, at the place of `offset`.
    #[inline]
    fn write(&mut self, offset: u64, data: &[u8]) {
        let place = Self::place(&self.ring, offset);
        let (head, tail) = data.split_at(data.len().min(self.ring.len() - place));
        if let Some(room) = self.ring.get_mut(place..place + head.len()) {
            room.copy_from_slice(head);
        }
        if let Some(room) = self.ring.get_mut(..tail.len()) {
            room.copy_from_slice(tail);
        }
    }

    /// Where `data`, claimed to be at `offset`, differs from what was delivered there: the first such offset and how
    /// many octets. What is no longer (or not yet) known does not differ.
    pub(super) fn differing(&mut self, offset: u64, data: &[u8], lent: &Lent<'_>) -> Option<(u64, u64)> {
        self.take_back(lent);
        let known = self.end - self.len as u64;
        let from = known.max(offset);
        let to = self.end.min(offset.saturating_add(data.len() as u64));
        if from >= to {
            return None;
        }
        let data = data.get((from - offset) as usize..(to - offset) as usize)?;
        let place = Self::place(&self.ring, from);
        let (head, tail) = data.split_at(data.len().min(self.ring.len() - place));
        let first = differing(from, self.ring.get(place..place + head.len())?, head);
        let second = differing(from + head.len() as u64, self.ring.get(..tail.len())?, tail);
        match (first, second) {
            (Some((at, count)), Some((_, more))) => Some((at, count + more)),
            (one, other) => one.or(other),
        }
    }

    #[inline]
    const fn place(ring: &[u8], offset: u64) -> usize {
        offset as usize & ring.len().wrapping_sub(1) & (Self::SIZE - 1)
    }
}

/// Where two copies of the octets from `offset` on differ: the first such offset and how many octets.
pub(super) fn differing(offset: u64, one: &[u8], other: &[u8]) -> Option<(u64, u64)> {
    let shared = one.len().min(other.len());
    let (one, other) = (one.get(..shared)?, other.get(..shared)?);
    // Equal copies are the rule, and a plain comparison of slices is many times faster than counting.
    if one == other {
        return None;
    }
    let first = one.iter().zip(other).position(|(a, b)| a != b)?;
    let count = one.iter().zip(other).filter(|(a, b)| a != b).count();
    Some((offset + first as u64, count as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lent::Pieces;
    use super::*;

    fn octets(from: u64, len: usize) -> Vec<u8> {
        (from..).take(len).map(|n| (n % 251) as u8).collect()
    }

    /// Pushes octets that go at once.
    fn push(history: &mut History, offset: u64, data: &[u8]) {
        history.push(offset, data, &mut Lent::new(&[], &mut Pieces::default()));
    }

    fn differing(history: &mut History, offset: u64, data: &[u8]) -> Option<(u64, u64)> {
        history.differing(offset, data, &Lent::new(&[], &mut Pieces::default()))
    }

    #[test]
    fn what_was_delivered_equals_itself_across_the_ring_s_end() {
        let mut history = History::default();
        let mut at = 0;
        for len in [100, 200, 300, 1, 900, 10_000, 5000, 3000, 7, 16_384, 100] {
            push(&mut history, at, &octets(at, len));
            at += len as u64;
            let kept = at.min(History::SIZE as u64);
            assert_eq!(history.len as u64, kept, "nothing is lost before the ring is full");
            assert_eq!(differing(&mut history, at - kept, &octets(at - kept, kept as usize)), None);
        }
    }

    #[test]
    fn a_changed_octet_is_found_on_both_sides_of_the_ring_s_end() {
        let mut history = History::default();
        push(&mut history, 0, &octets(0, 10_000));
        push(&mut history, 10_000, &octets(10_000, 10_000));
        let mut forged = octets(16_000, 1000);
        forged[1] ^= 1;
        forged[999] ^= 1;
        assert_eq!(differing(&mut history, 16_000, &forged), Some((16_001, 2)));
    }

    #[test]
    fn octets_beyond_the_ring_or_behind_a_gap_are_not_judged() {
        let mut history = History::default();
        push(&mut history, 0, &octets(0, 20_000));
        assert_eq!(differing(&mut history, 0, &[0xff; 3000]), None);
        push(&mut history, 30_000, &octets(30_000, 10));
        assert_eq!(differing(&mut history, 19_000, &[0xff; 11_000]), None);
        assert_eq!(differing(&mut history, 30_000, &[0xff; 10]), Some((30_000, 10)));
    }

    #[test]
    fn a_push_larger_than_the_ring_keeps_its_end() {
        let mut history = History::default();
        push(&mut history, 5, &octets(5, 70_000));
        assert_eq!(differing(&mut history, 69_000, &octets(69_000, 1005)), None);
        assert_eq!(differing(&mut history, 70_004, &[octets(70_004, 1)[0] ^ 1]), Some((70_004, 1)));
    }

    proptest! {
        #[test]
        fn octets_that_were_lent_are_judged_like_those_that_were_copied(
            pushes in prop::collection::vec((0_usize..6000, 0_u8..10, any::<bool>()), 1..40),
            questions in prop::collection::vec((0_u64..40, 1_usize..3000, any::<prop::sample::Index>()), 0..6),
        ) {
            let (mut copied, mut lending) = (History::default(), History::default());
            let mut pieces = Pieces::default();
            let mut at = 0;
            for (round, stretch) in pushes.chunks(8).enumerate() {
                let block = octets(round as u64 * 7, 48_000);
                let mut from = 0;
                for &(len, gap, lies_in_block) in stretch {
                    at += if gap == 0 { 1 } else { 0 };
                    let data = &block[from..from + len];
                    from += len;
                    push(&mut copied, at, data);
                    let elsewhere = data.to_vec();
                    let data = if lies_in_block { data } else { &elsewhere[..] };
                    lending.push(at, data, &mut Lent::new(&block, &mut pieces));
                    at += len as u64;
                    prop_assert_eq!((copied.len, copied.end, copied.memory()), (lending.len, lending.end, lending.memory()));
                }
                for (back, len, flip) in &questions {
                    let offset = at.saturating_sub(back * 600);
                    let mut data = octets(offset, *len);
                    data[flip.index(*len)] ^= 1;
                    let expected = differing(&mut copied, offset, &data);
                    prop_assert_eq!(expected, lending.differing(offset, &data, &Lent::new(&block, &mut pieces)));
                }
                lending.take_back(&Lent::new(&block, &mut pieces));
                pieces.clear();
                prop_assert!(!lending.is_lent());
            }
        }
    }
}
