//! The atom cache of one direction: 2048 slots that the sender fills and refers to.
//!
//! OTP, "External Term Format", section "Distribution Header". A gap may hide that a slot was overwritten, and a wrong
//! name is worse than none: what was set before a gap counts as unknown until it is set again.

/// Slots: eight segments of 256.
pub const SLOTS: usize = 2048;
/// Slots of a segment, which is allocated when one of them is first set.
const SEGMENT: usize = 256;
/// The longest atom: 255 characters of four octets.
pub const MAX_ATOM: usize = 1020;
/// Overwritten text is swept out when it outweighs half of what is alive by this much; small caches are never swept.
const SWEEP: usize = 4096;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot<'a> {
    /// This text.
    Known(&'a [u8]),
    /// This text was set before a gap.
    Stale(&'a [u8]),
    /// Nothing was ever seen to be set.
    Empty,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    offset: u32,
    len: u16,
    /// 0 where it was never set; else the epoch that it was set in.
    epoch: u16,
}

/// The slots of one direction. All text stands in one buffer, so an entry costs its text and eight octets.
#[derive(Default)]
pub struct AtomCache {
    segments: [Option<Box<[Entry; SEGMENT]>>; SLOTS / SEGMENT],
    text: Vec<u8>,
    live: usize,
    /// Raised by every gap; entries of an earlier one are stale.
    epoch: u16,
}

impl AtomCache {
    /// What the slot holds. Slots beyond the last are empty.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: u16) -> Slot<'_> {
        let Some(entry) = self.entry(slot) else {
            return Slot::Empty;
        };
        let start = entry.offset as usize;
        let Some(text) = self.text.get(start..start + usize::from(entry.len)) else {
            return Slot::Empty;
        };
        if entry.epoch == self.epoch + 1 { Slot::Known(text) } else { Slot::Stale(text) }
    }

    /// The text that the slot has for certain.
    #[must_use]
    #[inline]
    pub fn known(&self, slot: u16) -> Option<&[u8]> {
        let segment = self.segments.get(usize::from(slot) / SEGMENT)?.as_ref()?;
        let entry = &segment[usize::from(slot) % SEGMENT];
        if entry.epoch != self.epoch + 1 {
            return None;
        }
        self.text.get(entry.offset as usize..)?.get(..usize::from(entry.len))
    }

    /// Sets the slot. Text longer than an atom can be is not taken.
    pub fn set(&mut self, slot: u16, text: &[u8]) {
        let (Ok(len), true) = (u16::try_from(text.len()), text.len() <= MAX_ATOM) else {
            return;
        };
        let epoch = self.epoch + 1;
        let end = self.text.len();
        let (segment, place) = (usize::from(slot) / SEGMENT, usize::from(slot) % SEGMENT);
        let Some(segment) = self.segments.get_mut(segment) else {
            return;
        };
        let entry = &mut segment.get_or_insert_with(|| Box::new([Entry::default(); SEGMENT]))[place];
        let start = entry.offset as usize;
        let room = if entry.epoch == 0 { 0 } else { usize::from(entry.len) };
        self.live = self.live - room + text.len();
        if room >= text.len() && room > 0 {
            *entry = Entry { offset: entry.offset, len, epoch };
            if let Some(old) = self.text.get_mut(start..start + text.len()) {
                old.copy_from_slice(text);
            }
        } else {
            *entry = Entry { offset: u32::try_from(end).unwrap_or(u32::MAX), len, epoch };
            self.text.extend_from_slice(text);
        }
        if self.text.len() - self.live > self.live / 2 + SWEEP {
            self.sweep();
        }
    }

    /// A gap: all that is set may have been overwritten.
    pub fn taint(&mut self) {
        if self.epoch >= u16::MAX - 2 {
            *self = Self::default();
        } else {
            self.epoch += 1;
        }
    }

    /// Octets that it holds on the heap.
    #[must_use]
    pub fn memory(&self) -> usize {
        let segments = self.segments.iter().flatten().count();
        segments * size_of::<[Entry; SEGMENT]>() + self.text.capacity()
    }

    #[inline]
    fn entry(&self, slot: u16) -> Option<&Entry> {
        let segment = self.segments.get(usize::from(slot) / SEGMENT)?.as_ref()?;
        Some(&segment[usize::from(slot) % SEGMENT]).filter(|entry| entry.epoch != 0)
    }

    fn sweep(&mut self) {
        let mut text = Vec::with_capacity(self.live + SWEEP);
        for entry in self.segments.iter_mut().flatten().flat_map(|segment| segment.iter_mut()) {
            let start = entry.offset as usize;
            if entry.epoch == 0 {
                continue;
            }
            entry.offset = u32::try_from(text.len()).unwrap_or(u32::MAX);
            text.extend_from_slice(self.text.get(start..start + usize::from(entry.len)).unwrap_or_default());
        }
        self.text = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_makes_entries_stale_until_they_are_set_again() {
        let mut cache = AtomCache::default();
        cache.set(431, b"net_kernel");
        assert_eq!(cache.get(431), Slot::Known(b"net_kernel"));
        cache.taint();
        assert_eq!(cache.get(431), Slot::Stale(b"net_kernel"));
        cache.set(431, b"net_kernel");
        assert_eq!(cache.get(431), Slot::Known(b"net_kernel"));
        assert_eq!(cache.get(2047), Slot::Empty);
        assert_eq!(cache.get(2048), Slot::Empty);
    }

    #[test]
    fn a_full_cache_that_is_overwritten_for_ever_stays_small() {
        let mut cache = AtomCache::default();
        for round in 0..20_u16 {
            for slot in 0..2048 {
                let len = 1 + usize::from((slot + round * 37) % 1020);
                cache.set(slot, &vec![b'a'; len]);
            }
        }
        assert!(cache.memory() < 5 << 20, "{}", cache.memory());
    }

    #[test]
    fn many_gaps_never_bring_old_entries_back() {
        let mut cache = AtomCache::default();
        cache.set(1, b"true");
        for _ in 0..70_000 {
            cache.taint();
            assert!(!matches!(cache.get(1), Slot::Known(_)));
        }
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map(sets in prop::collection::vec((0_u16..16, prop::collection::vec(any::<u8>(), 0..1020)), 0..200)) {
            let (mut cache, mut map) = (AtomCache::default(), std::collections::HashMap::new());
            for (slot, text) in sets {
                cache.set(slot, &text);
                map.insert(slot, text);
            }
            for slot in 0..16 {
                let expected = map.get(&slot).map_or(Slot::Empty, |text| Slot::Known(text));
                prop_assert_eq!(cache.get(slot), expected);
            }
        }
    }
}
