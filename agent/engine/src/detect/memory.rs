//! A bounded memory for detectors that forgets the oldest first.

use std::hash::Hash;
use std::mem;

use hashbrown::HashMap;

/// Entries that a detector's memory holds by default: far more than a cluster has peers, and a few megabytes at most.
pub(super) const ENTRIES: usize = 8192;

/// A map in two generations: when the young one is full it becomes the old one, and the old one is forgotten.
/// Every operation is O(1), and an entry that is used stays.
#[derive(Debug)]
pub(super) struct Memory<K, V> {
    young: HashMap<K, V, foldhash::fast::RandomState>,
    old: HashMap<K, V, foldhash::fast::RandomState>,
    half: usize,
}

impl<K: Hash + Eq, V> Memory<K, V> {
    /// One that never holds more than `entries`.
    pub(super) fn new(entries: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: (entries / 2).max(1) }
    }

    /// The value for the key, made if it is not there.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(make);
            if self.young.len() >= self.half {
                self.old = mem::take(&mut self.young);
            }
            debug_assert!(self.young.len() < self.half);
            return self.young.entry(key).or_insert(value);
        }
        self.young.entry(key).or_insert_with(make)
    }

    /// The value for the key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// All of it, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(&self.old)
    }

    /// Takes the value out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }
}

/// A number that stays the same over restarts and machines: FNV-1a, 64 bits.
///
/// It names things, it protects nothing: findings are kept apart by their whole key, never by this number.
pub(super) fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut step = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in parts {
        part.bytes().for_each(&mut step);
        step(0);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_is_forgotten() {
        let mut memory = Memory::new(8);
        *memory.entry("kept".to_owned(), || 0) = 7;
        for number in 0..100 {
            memory.entry(format!("{number}"), || number);
            assert_eq!(*memory.entry("kept".to_owned(), || 0), 7);
            assert!(memory.young.len() + memory.old.len() <= 8);
        }
        assert_eq!(memory.get(&"0".to_owned()), None);
        assert_eq!(memory.remove(&"kept".to_owned()), Some(7));
        assert_eq!(memory.get(&"kept".to_owned()), None);
    }

    #[test]
    fn the_stable_hash_is_fnv_1a_and_keeps_parts_apart() {
        assert_eq!(stable_hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
        assert_eq!(stable_hash(&["bad-cookie", "x"]), stable_hash(&["bad-cookie", "x"]));
    }
}
