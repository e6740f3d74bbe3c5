//! Doubly linked lists through the entries of a table, so that the one used longest ago is at hand in constant time.

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// An entry's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    /// Of an entry in no list.
    pub(super) const UNLINKED: Self = Self { previous: NONE, next: NONE };
}

/// Entries that can be in a list of the kind `K` (an entry can be in one list of each kind).
pub(super) trait Linked<const K: usize> {
    /// The neighbours of an entry; none where there is no such entry.
    fn links(&mut self, index: u32) -> Option<&mut Links>;
}

/// First and last of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const K: usize> {
    head: u32,
    tail: u32,
}

impl<const K: usize> List<K> {
    /// An empty one.
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// The entry that has been in it longest.
    pub(super) const fn first(&self) -> Option<u32> {
        if self.head == NONE { None } else { Some(self.head) }
    }

    /// The entry that came after this one, which must be in this list.
    pub(super) fn after<E: Linked<K> + ?Sized>(entries: &mut E, index: u32) -> Option<u32> {
        entries.links(index).map(|links| links.next).filter(|&next| next != NONE)
    }

    /// Whether this is the entry that came last.
    pub(super) const fn ends_with(&self, index: u32) -> bool {
        self.tail == index
    }

    /// Adds an entry, which must not be in a list of this kind, at the end.
    pub(super) fn push<E: Linked<K> + ?Sized>(&mut self, entries: &mut E, index: u32) {
        if let Some(links) = entries.links(index) {
            *links = Links { previous: self.tail, next: NONE };
        }
        match entries.links(self.tail) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
    }

    /// Takes out an entry, which must be in this list.
    pub(super) fn remove<E: Linked<K> + ?Sized>(&mut self, entries: &mut E, index: u32) {
        let Some(links) = entries.links(index) else { return };
        let Links { previous, next } = std::mem::replace(links, Links::UNLINKED);
        match entries.links(previous) {
            Some(before) => before.next = next,
            None => self.head = next,
        }
        match entries.links(next) {
            Some(behind) => behind.previous = previous,
            None => self.tail = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked<0> for Vec<Links> {
        fn links(&mut self, index: u32) -> Option<&mut Links> {
            self.get_mut(index as usize)
        }
    }

    fn drained(list: &mut List<0>, entries: &mut Vec<Links>) -> Vec<u32> {
        std::iter::from_fn(|| list.first().inspect(|&first| list.remove(entries, first))).collect()
    }

    #[test]
    fn entries_leave_in_the_order_they_came_wherever_others_were_taken_out() {
        let mut entries = vec![Links::UNLINKED; 6];
        let mut list = List::EMPTY;
        for index in 0..6 {
            list.push(&mut entries, index);
        }
        for index in [0, 3, 5] {
            list.remove(&mut entries, index);
        }
        list.push(&mut entries, 3);
        assert!(list.ends_with(3));
        let mut after = |index| List::<0>::after(&mut entries, index);
        assert_eq!((after(1), after(2), after(4), after(3)), (Some(2), Some(4), Some(3), None));
        assert_eq!(drained(&mut list, &mut entries), [1, 2, 4, 3]);
        assert_eq!(list.first(), None);
        list.push(&mut entries, 5);
        assert_eq!(drained(&mut list, &mut entries), [5]);
    }
}
