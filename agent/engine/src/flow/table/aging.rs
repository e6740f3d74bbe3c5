//! What happens because time passes, or because the input ends.

use super::FlowTable;
use super::entry::{Class, State};
use crate::flow::connection::Turn;
use crate::flow::lent::Lent;
use crate::flow::{Conversation, GapCause, Ports};
use crate::model::CloseReason;
use crate::packet::{At, InterfaceId, PacketRef};
use crate::time::Timestamp;

impl<C> FlowTable<C> {
    /// Processes up to `batch` time-outs that are due.
    #[cold]
    pub(super) fn expire<X: Ports>(&mut self, batch: usize, cx: &mut X)
    where
        C: Conversation<X>,
    {
        let now = self.clock.now();
        for _ in 0..batch {
            if let Some(&(due, index)) = self.timers.first()
                && due <= now
            {
                self.timers.pop_first();
                self.fire(index, cx);
            } else if let Some(index) = self.idle(now) {
                let at = self.timeout_at(index);
                let reason = self.reason_when_silent(index);
                self.close(index, reason, &at, cx);
                self.remove(index);
            } else {
                break;
            }
        }
        self.next_due = self.earliest();
    }

    fn fire<X: Ports>(&mut self, index: u32, cx: &mut X)
    where
        C: Conversation<X>,
    {
        let at = self.timeout_at(index);
        let Self { entries, stats, limits, clock, pieces, .. } = self;
        let Some(State::Open(opened)) = entries.get_mut(index).map(|entry| &mut entry.state) else { return };
        opened.armed = None;
        let fires = opened.wanted_due.take_if(|due| *due <= clock.now()).is_some();
        let time = if fires { at.time.max(opened.wanted.unwrap_or(at.time)) } else { at.time };
        let at = At { time, ..at };
        let mut turn = Turn { at: &at, now: clock.now(), limits, stats, lent: Lent::new(&[], pieces), cx };
        let verdict = opened.connection.handle_timeout(&mut turn, fires);
        self.conclude(index, verdict, &at, cx);
        self.settle::<X>(index, false);
    }

    /// An entry that was silent for too long.
    fn idle(&mut self, now: Timestamp) -> Option<u32> {
        let limits = &self.limits;
        let entries = &self.entries.0;
        Class::ALL.into_iter().zip(&self.by_use).find_map(|(class, list)| {
            let index = list.first()?;
            let entry = entries.get(index as usize)?;
            (entry.touched.plus(class.idle(limits)) <= now).then_some(index)
        })
    }

    /// When the next thing is due.
    fn earliest(&self) -> Timestamp {
        let silent = Class::ALL.into_iter().zip(&self.by_use).filter_map(|(class, list)| {
            let entry = self.entries.0.get(list.first()? as usize)?;
            Some(entry.touched.plus(class.idle(&self.limits)))
        });
        let armed = self.timers.first().map(|&(due, _)| due);
        silent.chain(armed).min().unwrap_or(Timestamp::from_nanos(i64::MAX))
    }

    fn reason_when_silent(&mut self, index: u32) -> CloseReason {
        match self.entries.get_mut(index).map(|entry| &entry.state) {
            Some(State::Open(opened)) => opened.connection.reason_when_silent(),
            _ => CloseReason::Silent,
        }
    }

    pub(super) fn finish_entry<X: Ports>(&mut self, index: u32, cx: &mut X)
    where
        C: Conversation<X>,
    {
        let at = self.timeout_at(index);
        self.flush(index, GapCause::Lost, &at, cx);
        let patience = self.limits.handshake;
        let Some(entry) = self.entries.get_mut(index) else { return };
        let over = match &entry.state {
            State::Open(opened) => opened.connection.is_ended_one_way(),
            State::HalfOpen(half) => at.time.since(half.last_seen) >= patience,
            State::Free | State::Ended(_) => false,
        };
        if over {
            let reason = self.reason_when_silent(index);
            self.close(index, reason, &at, cx);
        } else if let State::Open(opened) = &mut entry.state {
            opened.connection.end(&at, cx);
        }
        self.settle::<X>(index, false);
    }

    /// The moment of something that no packet caused.
    pub(super) fn timeout_at(&self, index: u32) -> At {
        let interface = match self.entries.0.get(index as usize).map(|entry| &entry.state) {
            Some(State::Open(opened)) => opened.connection.facts().opening.at.interface,
            Some(State::HalfOpen(half)) => half.at.interface,
            _ => InterfaceId::default(),
        };
        At { time: self.clock.packet_time(), packet: PacketRef::default(), interface }
    }
}
