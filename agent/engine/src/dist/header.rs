//! The distribution header: which cache slots a message refers to, and which of them it sets.
//!
//! ```text
//! N:u8 | flags: none where N is 0, else N/2 + 1 octets | N references
//! reference: slot's low octet [length:u8 or u16, text where it is new]
//! ```
//! OTP, "External Term Format", section "Distribution Header".

use arrayvec::ArrayVec;

use super::atom_cache::{AtomCache, MAX_ATOM, Slot};
use crate::etf::Atom;
use crate::wire::{Fault, Malformed, Reader};

/// The largest header: 255 new entries of the longest atoms, with their flags.
pub const MAX_HEADER: usize = 1 + 128 + 255 * (1 + 2 + MAX_ATOM);

/// The atoms of one message, of which the header counts in one octet.
pub type AtomTable<'a> = ArrayVec<Atom<'a>, 255>;

/// A header as it stands in the frame. Nothing is looked up and nothing is set by reading it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    count: u8,
    flags: &'a [u8],
    references: &'a [u8],
    long_atoms: bool,
    /// Whether it sets a slot.
    pub sets: bool,
}

/// What a table could not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Some text is not known.
    pub any: bool,
    /// A slot that was never seen to be set.
    pub empty: Option<u16>,
}

impl<'a> Header<'a> {
    /// No header: atoms stand in the terms.
    pub const NONE: Self = Self { count: 0, flags: &[], references: &[], long_atoms: false, sets: false };

    /// Reads a header; `reader` is then at the control message.
    ///
    /// # Errors
    /// `Truncated` at the end of the bytes, `TooLong` for an atom longer than any.
    #[inline]
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u8("number of atom cache references")?;
        if count == 0 {
            return Ok(Self::NONE);
        }
        let flags = reader.bytes("atom cache flags", usize::from(count) / 2 + 1)?;
        // nearly every header only refers to what was set before: one octet for each reference
        if flags.iter().all(|pair| pair & 0x88 == 0) {
            let references = reader.bytes("atom cache index", count.into())?;
            return Ok(Self { count, flags, references, long_atoms: false, sets: false });
        }
        let long_atoms = nibble(flags, count) & 1 != 0;
        let start = reader.rest();
        let mut sets = false;
        for index in 0..count {
            reader.u8("atom cache index")?;
            if nibble(flags, index) & 8 == 0 {
                continue;
            }
            sets = true;
            let len =
                if long_atoms { reader.u16("atom length")?.into() } else { usize::from(reader.u8("atom length")?) };
            if len > MAX_ATOM {
                return Err(reader.malformed("atom length", Fault::TooLong));
            }
            reader.bytes("atom", len)?;
        }
        let references = start.get(..start.len() - reader.len()).unwrap_or_default();
        Ok(Self { count, flags, references, long_atoms, sets })
    }

    /// The usual header, with what is behind it: it refers to something, and only to what was set before. `None` for any
    /// other, and where it is not all there.
    #[inline]
    pub(super) fn plain(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&count @ 1.., rest) = bytes.split_first()? else { return None };
        let (flags, rest) = rest.split_at_checked(usize::from(count) / 2 + 1)?;
        let (references, rest) = rest.split_at_checked(count.into())?;
        let only_refers = flags.iter().all(|pair| pair & 0x88 == 0);
        only_refers.then_some((Self { count, flags, references, long_atoms: false, sets: false }, rest))
    }

    /// Whether it refers to nothing.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The references: slot, and the text where it is new.
    pub fn references(&self) -> References<'a> {
        References { header: *self, reader: Reader::new(self.references), index: 0 }
    }

    /// Looks all references up. Entries take effect in their order, as in the receiver; the cache itself is left alone.
    #[inline]
    pub fn resolve<'t>(&self, cache: &'t AtomCache, table: &mut AtomTable<'t>) -> Unknown
    where
        'a: 't,
    {
        let mut unknown = Unknown::default();
        for (slot, new) in self.references() {
            let text = match new {
                Some(text) => Some(text),
                None => self.earlier(table, slot).or_else(|| look_up(cache, slot, &mut unknown)),
            };
            let _ = table.try_push(Atom { text, latin1: false, slot: Some(slot), inferred: false });
        }
        unknown
    }

    /// Looks up the references of a header that sets nothing, and says whether all are known or need not be; the table is
    /// of use only then.
    #[inline]
    pub(super) fn resolve_plain<'t>(
        &self,
        cache: &'t AtomCache,
        may_be_unknown: bool,
        table: &mut AtomTable<'t>,
    ) -> bool {
        let mut references = self.references;
        for pair in self.flags {
            for flags in [pair & 7, pair >> 4 & 7] {
                let Some((&low, others)) = references.split_first() else { return true };
                references = others;
                let slot = u16::from(flags) << 8 | u16::from(low);
                let text = cache.known(slot);
                if text.is_none() && !may_be_unknown {
                    return false;
                }
                let _ = table.try_push(Atom { text, latin1: false, slot: Some(slot), inferred: false });
            }
        }
        true
    }

    /// Puts the new entries into the cache.
    pub fn apply(&self, cache: &mut AtomCache) {
        for (slot, new) in self.references() {
            if let Some(text) = new {
                cache.set(slot, text);
            }
        }
    }

    /// The text that this very header gave to the slot before. No node refers to a slot twice in a header, but what
    /// does must not be read otherwise than the receiver reads it.
    fn earlier<'t>(&self, table: &AtomTable<'t>, slot: u16) -> Option<&'t [u8]> {
        if !self.sets {
            return None;
        }
        let new = |index: usize| u8::try_from(index).is_ok_and(|index| nibble(self.flags, index) & 8 != 0);
        let same = |(index, atom): &(usize, &Atom<'t>)| atom.slot == Some(slot) && new(*index);
        table.iter().enumerate().rev().find(same).and_then(|(_, atom)| atom.text)
    }
}

#[inline]
fn look_up<'t>(cache: &'t AtomCache, slot: u16, unknown: &mut Unknown) -> Option<&'t [u8]> {
    match cache.get(slot) {
        Slot::Known(text) => return Some(text),
        Slot::Stale(_) => {}
        Slot::Empty => {
            unknown.empty.get_or_insert(slot);
        }
    }
    unknown.any = true;
    None
}

/// Iterator over the references of a header.
pub struct References<'a> {
    header: Header<'a>,
    reader: Reader<'a>,
    index: u8,
}

impl<'a> Iterator for References<'a> {
    type Item = (u16, Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            return None;
        }
        let flags = nibble(self.header.flags, self.index);
        self.index += 1;
        let slot = u16::from(flags & 7) << 8 | u16::from(self.reader.u8("index").ok()?);
        if flags & 8 == 0 {
            return Some((slot, None));
        }
        let len = if self.header.long_atoms {
            self.reader.u16("length").ok()?.into()
        } else {
            usize::from(self.reader.u8("length").ok()?)
        };
        Some((slot, Some(self.reader.bytes("atom", len).ok()?)))
    }
}

/// Half-byte `index`: the low one of its octet where `index` is even.
#[inline]
fn nibble(flags: &[u8], index: u8) -> u8 {
    let byte = flags.get(usize::from(index / 2)).copied().unwrap_or_default();
    if index.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_refers_to_one_slot_and_sets_another() {
        let bytes = b"\x02\x97\x00\x40\xaf\x0anet_kernelrest";
        let mut reader = Reader::new(bytes);
        let header = Header::decode(&mut reader).unwrap();
        assert_eq!(reader.rest(), b"rest");
        let references: Vec<_> = header.references().collect();
        assert_eq!(references, [(1856, None), (431, Some(&b"net_kernel"[..]))]);

        let mut cache = AtomCache::default();
        let mut table = AtomTable::new();
        assert_eq!(header.resolve(&cache, &mut table), Unknown { any: true, empty: Some(1856) });
        assert!(table[1].is("net_kernel"));
        drop(table);
        header.apply(&mut cache);
        assert_eq!(cache.get(431), Slot::Known(b"net_kernel"));
    }

    #[test]
    fn long_atoms_count_for_all_new_entries_of_the_header() {
        let mut bytes = vec![1, 0x18, 7, 1, 4];
        bytes.extend([b'x'; 260]);
        let mut reader = Reader::new(&bytes);
        let header = Header::decode(&mut reader).unwrap();
        assert_eq!(header.references().next().unwrap().1.unwrap().len(), 260);
        bytes[3] = 4;
        assert_eq!(Header::decode(&mut Reader::new(&bytes)).unwrap_err().fault, Fault::TooLong);
    }

    #[test]
    fn every_prefix_is_cut_and_not_wrong() {
        let bytes = b"\x02\x97\x00\x40\xaf\x0anet_kernel";
        for len in 0..bytes.len() {
            assert_eq!(Header::decode(&mut Reader::new(&bytes[..len])).unwrap_err().fault, Fault::Truncated);
        }
    }

    #[test]
    fn a_slot_named_twice_is_read_in_order_as_the_receiver_does() {
        // old 5, new 5 = "b", old 5, with "a" in the cache
        let bytes = [3, 0x80, 0x00, 5, 5, 1, b'b', 5];
        let header = Header::decode(&mut Reader::new(&bytes)).unwrap();
        let mut cache = AtomCache::default();
        cache.set(5, b"a");
        let mut table = AtomTable::new();
        header.resolve(&cache, &mut table);
        let texts: Vec<_> = table.iter().map(|atom| atom.text.unwrap()).collect();
        assert_eq!(texts, [b"a", b"b", b"b"]);
    }

    #[test]
    fn a_stale_entry_is_unknown_and_not_empty() {
        let bytes = [1, 0x00, 5];
        let header = Header::decode(&mut Reader::new(&bytes)).unwrap();
        let mut cache = AtomCache::default();
        cache.set(5, b"a");
        cache.taint();
        assert_eq!(header.resolve(&cache, &mut AtomTable::new()), Unknown { any: true, empty: None });
    }
}
