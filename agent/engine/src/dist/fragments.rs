//! Fragmented messages of one direction that are not complete yet.
//!
//! OTP, "External Term Format", section "Distribution Header for Fragmented Messages". Sequences interleave; each is
//! known by its whole 64-bit sequence id, and its fragments count down to 1.

use super::walk::Walk;

/// A sequence between two of its fragments.
pub(super) struct Sequence {
    pub(super) id: u64,
    /// The fragment that must come next.
    pub(super) next: u64,
    /// Where its payload stands.
    pub(super) walk: Walk,
    opened: u64,
}

/// All open sequences.
#[derive(Default)]
pub(super) struct Sequences {
    open: Vec<Sequence>,
    opened: u64,
}

impl Sequences {
    /// Takes a sequence out.
    pub(super) fn take(&mut self, id: u64) -> Option<Sequence> {
        let place = self.open.iter().position(|sequence| sequence.id == id)?;
        Some(self.open.swap_remove(place))
    }

    /// Keeps a sequence until its next fragment. Returns whether the oldest one had to go for it.
    pub(super) fn put(&mut self, id: u64, next: u64, walk: Walk, limit: usize) -> bool {
        let full = self.open.len() >= limit.max(1);
        if full {
            let oldest =
                self.open.iter().enumerate().min_by_key(|(_, sequence)| sequence.opened).map(|(place, _)| place);
            if let Some(place) = oldest {
                self.open.swap_remove(place);
            }
        }
        self.opened += 1;
        self.open.push(Sequence { id, next, walk, opened: self.opened });
        full
    }

    pub(super) fn clear(&mut self) {
        self.open = Vec::new();
    }

    pub(super) fn memory(&self) -> usize {
        self.open.capacity() * size_of::<Sequence>()
            + self.open.iter().map(|sequence| sequence.walk.memory()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sequence_goes_when_there_are_too_many() {
        let mut sequences = Sequences::default();
        assert!(!sequences.put(1, 5, Walk::lost(), 2));
        assert!(!sequences.put(2, 5, Walk::lost(), 2));
        assert!(sequences.put(3, 5, Walk::lost(), 2));
        assert!(sequences.take(1).is_none());
        assert_eq!(sequences.take(3).map(|sequence| sequence.next), Some(5));
    }

    #[test]
    fn ids_that_differ_in_the_upper_half_are_different() {
        let mut sequences = Sequences::default();
        sequences.put(0x48_0000_0093, 7, Walk::lost(), 8);
        assert!(sequences.take(0x93).is_none());
        assert!(sequences.take(0x48_0000_0093).is_some());
    }
}
