//! The whole of it in one object: packets in; events, alerts and the state of the cluster out.
//!
//! `analyze` runs it in one loop with the packets' own time; the daemon runs the same object.

use crate::cluster::Cluster;
use crate::detect::{Judge, SavedFinding};
use crate::engine::Engine;
use crate::event::Event;
use crate::model::{Alert, Stats};
use crate::packet::Packet;
use crate::policy::Policy;
use crate::time::Timestamp;

/// What wants to hear of every event and every change of an alert, in order.
pub trait Listener {
    /// A fact; the cluster already knows it.
    fn event(&mut self, event: &Event);
    /// A finding that is new, has changed or has ended.
    fn alert(&mut self, alert: &Alert);
    /// It will not hear anything any more, so nothing needs to be read any more.
    fn is_done(&self) -> bool {
        false
    }
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn event(&mut self, _: &Event) {}
    fn alert(&mut self, _: &Alert) {}
}

/// Decoding, memory and judgement together.
pub struct Analysis {
    /// Decoding.
    pub engine: Engine,
    /// Memory.
    pub cluster: Cluster,
    /// Judgement.
    pub judge: Judge,
    /// When judgement has something to do, asked only when that may have changed.
    judge_due: Option<Timestamp>,
}

impl Analysis {
    /// An analysis under a policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            engine: Engine::new(policy),
            cluster: Cluster::new(&policy.limits),
            judge: Judge::new(policy),
            judge_due: None,
        }
    }

    /// Takes one packet. What is due at its time happens first or with it.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, listener: &mut impl Listener) {
        self.handle_lent_packet(packet, &[], listener);
    }

    /// The same for one whose bytes lie in a block that stays until [`Analysis::return_block`]; see
    /// [`Engine::handle_lent_packet`].
    #[inline]
    pub fn handle_lent_packet(&mut self, packet: &Packet<'_>, block: &[u8], listener: &mut impl Listener) {
        self.engine.handle_lent_packet(packet, block);
        if self.engine.has_events() {
            self.drain(listener);
        }
        if self.judge_due.is_some_and(|due| due <= packet.time) {
            self.judge.handle_timeout(packet.time, &self.cluster);
            self.drain_alerts(listener);
        }
    }

    /// The block that packets were from goes.
    pub fn return_block(&mut self, block: &[u8]) {
        self.engine.return_block(block);
    }

    /// When [`Analysis::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match (self.engine.poll_timeout(), self.judge_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets time pass without a packet: for live capture alone, where `now` is the packets' own clock.
    pub fn handle_timeout(&mut self, now: Timestamp, listener: &mut impl Listener) {
        self.engine.handle_timeout(now);
        self.drain(listener);
        self.judge.handle_timeout(now, &self.cluster);
        self.drain_alerts(listener);
    }

    /// Says a fact that no packet says: what a source lost, say.
    pub fn handle_event(&mut self, event: &Event, listener: &mut impl Listener) {
        self.take(event, listener);
        self.drain_alerts(listener);
    }

    /// Takes in what an earlier run saved of its findings; before the first packet.
    pub fn restore(&mut self, saved: Vec<SavedFinding>) {
        self.judge.restore(saved);
        self.judge_due = self.judge.poll_timeout();
    }

    /// Another policy from now on. Connections, findings and what was learned stay; what the cluster remembers keeps to the limit
    /// that it was begun with.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.engine.set_policy(policy);
        self.judge.set_policy(policy);
        self.judge_due = self.judge.poll_timeout();
    }

    /// The input has ended: what waits behind holes is read, counters are brought up to date.
    pub fn finish(&mut self, listener: &mut impl Listener) {
        self.engine.finish();
        self.drain(listener);
        let now = self.engine.now();
        self.judge.finish(now, &self.cluster);
        self.drain_alerts(listener);
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.engine.stats();
        for (&name, &count) in self.cluster.limits_reached().iter().chain(self.judge.findings().limits_reached()) {
            *stats.limits_reached.entry(name.to_owned()).or_default() += count;
        }
        stats
    }

    fn drain(&mut self, listener: &mut impl Listener) {
        let mut any = false;
        while let Some(event) = self.engine.poll_event() {
            any = true;
            self.take(&event, listener);
        }
        if any {
            self.drain_alerts(listener);
        }
    }

    fn take(&mut self, event: &Event, listener: &mut impl Listener) {
        self.cluster.handle_event(event);
        listener.event(event);
        self.judge.handle_event(event, &self.cluster);
    }

    fn drain_alerts(&mut self, listener: &mut impl Listener) {
        while let Some(alert) = self.judge.poll_alert() {
            listener.alert(&alert);
        }
        self.judge_due = self.judge.poll_timeout();
    }
}
