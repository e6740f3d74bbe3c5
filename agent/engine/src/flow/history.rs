//! The last octets that a direction delivered, to compare retransmissions with.

/// A ring of the octets delivered last, contiguous up to `end`.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// As long as has been needed so far: a power of two, so that the place of an octet is its offset modulo the length.
    ring: Box<[u8]>,
    /// Stream offset behind the newest octet.
    end: u64,
    len: usize,
}

impl History {
    /// Octets kept at most. A forged segment that races with the true one comes within a round trip, during which a
    /// link rarely has more than this under way.
    pub(super) const SIZE: usize = 16 << 10;
    /// Octets that there is room for from the start: a distribution handshake.
    const FIRST_SIZE: usize = 256;

    /// Bytes on the heap.
    pub(super) const fn memory(&self) -> usize {
        self.ring.len()
    }

    /// Takes over octets that were delivered at `offset`. If that is not where the last ended, the past is forgotten.
    #[inline]
    pub(super) fn push(&mut self, offset: u64, data: &[u8]) {
        if offset != self.end {
            (self.len, self.end) = (0, offset);
        }
        if self.ring.len() < Self::SIZE && self.ring.len() - self.len < data.len() {
            self.grow(data.len());
        }
        self.end = offset + data.len() as u64;
        let size = self.ring.len();
        let kept = data.get(data.len().saturating_sub(size)..).unwrap_or(data);
        self.len = size.min(self.len + kept.len());
        self.write(self.end - kept.len() as u64, kept);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let size = (self.len + more).clamp(Self::FIRST_SIZE, Self::SIZE).next_power_of_two();
        let old = std::mem::replace(&mut self.ring, vec![0; size].into());
        let known = self.end - self.len as u64;
        let from = Self::place(&old, known);
        let (head, tail) = (old.get(from..).unwrap_or_default(), old.get(..from).unwrap_or_default());
        let head = head.get(..self.len).unwrap_or(head);
        let tail = tail.get(..self.len - head.len()).unwrap_or(tail);
        self.write(known, head);
        self.write(known + head.len() as u64, tail);
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
    pub(super) fn differing(&self, offset: u64, data: &[u8]) -> Option<(u64, u64)> {
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
    use super::*;

    fn octets(from: u64, len: usize) -> Vec<u8> {
        (from..).take(len).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn what_was_delivered_equals_itself_across_the_ring_s_end() {
        let mut history = History::default();
        let mut at = 0;
        for len in [100, 200, 300, 1, 900, 10_000, 5000, 3000, 7, 16_384, 100] {
            history.push(at, &octets(at, len));
            at += len as u64;
            let kept = at.min(History::SIZE as u64);
            assert_eq!(history.len as u64, kept, "nothing is lost before the ring is full");
            assert_eq!(history.differing(at - kept, &octets(at - kept, kept as usize)), None);
        }
    }

    #[test]
    fn a_changed_octet_is_found_on_both_sides_of_the_ring_s_end() {
        let mut history = History::default();
        history.push(0, &octets(0, 10_000));
        history.push(10_000, &octets(10_000, 10_000));
        let mut forged = octets(16_000, 1000);
        forged[1] ^= 1;
        forged[999] ^= 1;
        assert_eq!(history.differing(16_000, &forged), Some((16_001, 2)));
    }

    #[test]
    fn octets_beyond_the_ring_or_behind_a_gap_are_not_judged() {
        let mut history = History::default();
        history.push(0, &octets(0, 20_000));
        assert_eq!(history.differing(0, &[0xff; 3000]), None);
        history.push(30_000, &octets(30_000, 10));
        assert_eq!(history.differing(19_000, &[0xff; 11_000]), None);
        assert_eq!(history.differing(30_000, &[0xff; 10]), Some((30_000, 10)));
    }

    #[test]
    fn a_push_larger_than_the_ring_keeps_its_end() {
        let mut history = History::default();
        history.push(5, &octets(5, 70_000));
        assert_eq!(history.differing(69_000, &octets(69_000, 1005)), None);
        assert_eq!(history.differing(70_004, &[octets(70_004, 1)[0] ^ 1]), Some((70_004, 1)));
    }
}
