//! The whole of it in one object: packets in; events, alerts and the state of the cluster out.
//!
//! `analyze` runs it in one loop with the packets' own time; the daemon runs the same object.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::{Cluster, SocketOwner, flow_of, is_up};
use crate::detect::Judge;
use crate::engine::Engine;
use crate::event::{Event, EventBody, Expected, FlowInfo, LinkChange};
use crate::model::{Alert, CloseReason, Link, SocketProcess, Stats};
use crate::packet::{Packet, PacketRef};
use crate::policy::Policy;
use crate::saved::{Saved, SavedLink};
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
    revision: u64,
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
            revision: 0,
        }
    }

    /// Takes one packet. What is due at its time happens first or with it.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, listener: &mut impl Listener) {
        self.engine.handle_packet(packet);
        self.follow(packet, listener);
    }

    /// The same for one whose bytes lie in a block that stays until [`Analysis::return_block`]; see
    /// [`Engine::handle_lent_packet`].
    #[inline]
    pub fn handle_lent_packet(&mut self, packet: &Packet<'_>, block: &[u8], listener: &mut impl Listener) {
        self.engine.handle_lent_packet(packet, block);
        self.follow(packet, listener);
    }

    /// Does what comes of a packet.
    #[inline]
    fn follow(&mut self, packet: &Packet<'_>, listener: &mut impl Listener) {
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

    /// Takes in whose a socket of this host is. That is told where it is news: of what listens for EPMD or distribution, and of
    /// an end of a link.
    pub fn handle_process(&mut self, now: Timestamp, seen: &SocketOwner, listener: &mut impl Listener) {
        if !self.cluster.learn_process(seen) {
            return;
        }
        if seen.remote.is_none() {
            if self.engine.listeners().is_known(seen.local) {
                self.tell_listener(now, seen.local, listener);
            }
            return;
        }
        let Some((link, end)) = self.cluster.link_of_socket(seen) else { return };
        let process = SocketProcess::new(end, seen.local, &seen.process);
        let event = process_event(now, Some(flow_of(link)), process);
        self.handle_event(&event, listener);
    }

    /// Tells which process listens for connections to an address, of which it is known now what for.
    pub fn tell_listener(&mut self, now: Timestamp, at: SocketAddr, listener: &mut impl Listener) {
        if let Some(process) = self.cluster.untold_listener(at) {
            self.handle_event(&process_event(now, None, process), listener);
        }
    }

    /// Says a fact that no packet says: what a source lost, say.
    pub fn handle_event(&mut self, event: &Event, listener: &mut impl Listener) {
        self.take(event, listener);
        self.drain_alerts(listener);
    }

    /// What was told last of the findings with these fingerprints got lost on its way: it is told again.
    pub fn tell_again(&mut self, fingerprints: &BTreeSet<String>, now: Timestamp, listener: &mut impl Listener) {
        if !fingerprints.is_empty() {
            self.judge.tell_again(fingerprints, now);
            self.drain_alerts(listener);
        }
    }

    /// What the next run is to know, as of `now`.
    #[must_use]
    pub fn saved(&self, now: Timestamp) -> Saved {
        let listeners = |wanted: Expected| {
            let learned = self.engine.listeners().learned();
            learned.filter(|&(_, what)| what == wanted).map(|(at, _)| at).collect()
        };
        let open = self.cluster.links().filter(|link| link.closed.is_none());
        let mut saved = Saved {
            findings: self.judge.findings().saved(now),
            links: open.map(|link| self.saved_link(link, now)).collect(),
            facts: self.judge.facts(),
            epmd: listeners(Expected::Epmd),
            distribution: listeners(Expected::Distribution),
            ..Saved::default()
        };
        saved.links.extend(self.engine.recall().waiting(now).cloned());
        self.cluster.save(&mut saved);
        saved
    }

    /// From now on [`Analysis::saved_since`] says what is new of what [`Analysis::saved`] would say.
    pub fn keep_a_journal(&mut self) {
        self.judge.note_what_comes_out();
    }

    /// The findings that came out since this was asked last, with the links that they are about; nothing where none did.
    pub fn saved_since(&mut self, now: Timestamp) -> Option<Saved> {
        let came_out = self.judge.take_what_came_out();
        if came_out.is_empty() {
            return None;
        }
        let mut saved = Saved::default();
        let mut flows = BTreeSet::new();
        for (finding, flow) in came_out {
            saved.findings.push(finding);
            flows.extend(flow);
        }
        let open = flows.iter().filter_map(|flow| self.cluster.link(flow)).filter(|link| link.closed.is_none());
        saved.links = open.map(|link| self.saved_link(link, now)).collect();
        Some(saved)
    }

    /// A link as the next run is to know it.
    fn saved_link(&self, link: &Link, now: Timestamp) -> SavedLink {
        let findings = self.judge.findings().holds(&link.flow_id);
        SavedLink { findings, ..self.cluster.save_link(link, now) }
    }

    /// Takes in what an earlier run saved; before the first packet.
    pub fn restore(&mut self, saved: Saved, now: Timestamp) {
        self.cluster.restore(&saved);
        let Saved { findings, links, facts, epmd, distribution, .. } = saved;
        self.judge.restore(findings, now);
        for link in &links {
            self.judge.expect((link.initiator, link.acceptor), &link.findings);
        }
        self.judge.recall(&facts);
        self.judge_due = self.judge.poll_timeout();
        self.engine.restore(links);
        for (listeners, what) in [(epmd, Expected::Epmd), (distribution, Expected::Distribution)] {
            listeners.into_iter().for_each(|at| self.engine.add_listener(at, what));
        }
    }

    /// A number that rises with what [`Analysis::saved`] would have to say anew, but for time and mere counters.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.wrapping_add(self.engine.listeners().learned_so_far())
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
        let changes = match &event.body {
            EventBody::Link { change, .. } => *change != LinkChange::Updated,
            EventBody::Epmd(exchange) => exchange.accepted,
            _ => false,
        };
        self.revision = self.revision.wrapping_add(u64::from(changes));
        self.cluster.handle_event(event);
        listener.event(event);
        if let EventBody::Link { change: LinkChange::Closed, link } = &event.body
            && link.close_reason == Some(CloseReason::Evicted)
            && is_up(link)
        {
            self.engine.expect_again(self.saved_link(link, event.time));
        }
        self.judge.handle_event(event, &self.cluster);
        if let EventBody::Link { change: LinkChange::Opened, link } = &event.body {
            for process in self.cluster.processes_of_link(link).collect::<Vec<_>>() {
                let told = process_event(event.time, event.flow.clone(), process);
                listener.event(&told);
                self.judge.handle_event(&told, &self.cluster);
            }
        }
    }

    fn drain_alerts(&mut self, listener: &mut impl Listener) {
        while let Some(alert) = self.judge.poll_alert() {
            self.revision = self.revision.wrapping_add(1);
            listener.alert(&alert);
        }
        self.judge_due = self.judge.poll_timeout();
    }
}

fn process_event(time: Timestamp, flow: Option<Arc<FlowInfo>>, process: SocketProcess) -> Event {
    Event { time, packet: PacketRef::default(), flow, body: EventBody::Process(Box::new(process)) }
}
