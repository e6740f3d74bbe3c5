//! What is known by a name that it has in itself: in the order of its appearance, found by the name, and without a copy of it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::set::MutableValues;
use indexmap::{Equivalent, IndexSet};

use super::ROOM;
use crate::model::{Link, Node};
use crate::time::Timestamp;

/// What has a name that never changes.
pub(super) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

impl Named for Link {
    fn name(&self) -> &str {
        &self.flow_id
    }
}

impl Named for Node {
    fn name(&self) -> &str {
        &self.name
    }
}

/// One of them; equal to any other of its name.
#[derive(Debug)]
struct One<T>(Arc<T>);

impl<T: Named> Hash for One<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl<T: Named> PartialEq for One<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl<T: Named> Eq for One<T> {}

impl<T: Named> Equivalent<One<T>> for str {
    fn equivalent(&self, one: &One<T>) -> bool {
        self == one.0.name()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct ByName<T>(IndexSet<One<T>, RandomState>);

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(IndexSet::default())
    }
}

impl<T: Named> ByName<T> {
    /// In the order of their appearance.
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &Arc<T>> {
        self.0.iter().map(|one| &one.0)
    }

    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.0.get(name).map(|one| &*one.0)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The one of this name, to be changed in anything but its name.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut T>
    where
        T: Clone,
    {
        self.0.get_full_mut2(name).map(|(_, one)| Arc::make_mut(&mut one.0))
    }

    /// Puts it in the place of the one of its name, or at the end.
    pub(super) fn put(&mut self, one: Arc<T>) {
        self.0.replace(One(one));
    }

    /// Where there are `limit` of them, removes an eighth: lowest worth first. Returns how many were removed.
    pub(super) fn make_room(&mut self, limit: usize, worth: impl Fn(&T) -> (u8, Timestamp)) -> u64 {
        if self.0.len() < limit {
            return 0;
        }
        let room = (limit / ROOM).max(1).min(self.0.len());
        let mut order: Vec<((u8, Timestamp), usize)> =
            self.values().enumerate().map(|(place, value)| (worth(value), place)).collect();
        order.sort_unstable();
        let mut gone: Vec<usize> = order.iter().take(room).map(|&(_, place)| place).collect();
        gone.sort_unstable();
        let (mut place, mut next) = (0_usize, 0_usize);
        self.0.retain(|_| {
            let goes = gone.get(next) == Some(&place);
            next += usize::from(goes);
            place += 1;
            !goes
        });
        room as u64
    }
}
