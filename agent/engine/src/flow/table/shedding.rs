//! What goes when memory is short, and in which order.

use std::time::Duration;

use super::FlowTable;
use super::entry::{BY_USE, Class, Holes, State};
use crate::flow::lists::List;
use crate::flow::{Conversation, GapCause, Limit, Ports};
use crate::model::CloseReason;

/// One entry of each class for so many bytes of `flow_memory` is kept, the newest ones, as long as anything but links
/// can go instead: a new connection must get the time to show what it is also when worthier ones fill the memory.
const MEMORY_PER_NEWCOMER: usize = 64 << 10;

/// To let links forget what they delivered takes a look at half of them, which is worth it where it gives back such a part
/// of the memory.
const WORTH_LOOKING: usize = 16;

/// Where it was not worth it, it is not tried again for so long.
const BETWEEN_FORGETTING: Duration = Duration::from_millis(100);

impl<C> FlowTable<C> {
    /// Whether anything is beyond the limits.
    #[inline]
    pub(super) fn is_over_limits(&self) -> bool {
        self.population[Class::HalfOpen as usize] > self.share
            || self.population[Class::Ended as usize] > self.share
            || self.memory() > self.limits.flow_memory
    }

    /// Gives up, in order of worth, what is beyond the limits.
    pub(super) fn shed<X: Ports>(&mut self, cx: &mut X)
    where
        C: Conversation<X>,
    {
        while self.population[Class::HalfOpen as usize] > self.share {
            self.stats.limits.count(Limit::HalfOpenFlows);
            self.evict_first(Class::HalfOpen, cx);
        }
        while self.population[Class::Ended as usize] > self.share {
            self.evict_first(Class::Ended, cx);
        }
        while self.memory() > self.limits.flow_memory {
            if !self.shed_one(Class::Link, cx) {
                return;
            }
        }
    }

    /// Gives up the least valuable thing, for the sake of something of the class `needy`.
    #[cold]
    pub(super) fn shed_one<X: Ports>(&mut self, needy: Class, cx: &mut X) -> bool
    where
        C: Conversation<X>,
    {
        // What has ended is over with nothing lost.
        if self.evict_first(Class::Ended, cx) {
            return true;
        }
        self.stats.limits.count(Limit::FlowMemory);
        let newcomers = self.limits.flow_memory / MEMORY_PER_NEWCOMER;
        let first_of = |table: &mut Self, classes: &[Class], kept: usize, cx: &mut X| {
            classes.iter().any(|&class| table.population[class as usize] > kept && table.evict_first(class, cx))
        };
        let (lower, higher) = Class::NOT_LINKS.split_at(3);
        first_of(self, lower, newcomers, cx)
            || self.empty_first(Holes::OfOthers, cx)
            || first_of(self, higher, newcomers, cx)
            || first_of(self, &Class::NOT_LINKS, 0, cx)
            || self.empty_first(Holes::OfLinks, cx)
            || self.forget_histories::<X>()
            || (needy == Class::Link && self.evict_first(Class::Link, cx))
    }

    /// Lets links forget what they delivered last, all but the half that was used last: retransmissions on the others are
    /// compared with nothing, which is less than to lose one of them. Returns whether that gave anything back.
    fn forget_histories<X: Ports>(&mut self) -> bool
    where
        C: Conversation<X>,
    {
        let now = self.clock.now();
        if now < self.forget_after {
            return false;
        }
        let before = self.memory();
        let class = Class::Link as usize;
        let mut next = self.by_use[class].first();
        for _ in 0..self.population[class].div_ceil(2) {
            let Some(index) = next else { break };
            next = List::<BY_USE>::after(&mut self.entries, index);
            if let Some(State::Open(opened)) = self.entries.get_mut(index).map(|entry| &mut entry.state)
                && opened.connection.forget_histories()
            {
                self.settle::<X>(index, false);
            }
        }
        let freed = before.saturating_sub(self.memory());
        if freed < self.limits.flow_memory / WORTH_LOOKING {
            self.forget_after = now.plus(BETWEEN_FORGETTING);
        }
        freed > 0
    }

    fn evict_first<X: Ports>(&mut self, class: Class, cx: &mut X) -> bool
    where
        C: Conversation<X>,
    {
        let Some(index) = self.by_use[class as usize].first() else { return false };
        let at = self.timeout_at(index);
        self.close(index, CloseReason::Evicted, &at, cx);
        self.remove(index);
        true
    }

    /// Delivers what the connection with the oldest hole has waiting.
    fn empty_first<X: Ports>(&mut self, holes: Holes, cx: &mut X) -> bool
    where
        C: Conversation<X>,
    {
        let Some(index) = self.by_hole[holes as usize].first() else { return false };
        let at = self.timeout_at(index);
        self.flush(index, GapCause::Limit, &at, cx);
        self.settle::<X>(index, false);
        true
    }
}
