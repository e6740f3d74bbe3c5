//! The judge: the policy, all detectors and all findings in one object that is driven by events and time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Detector, FAMILIES, Fact, FindingStore, Findings, SavedFinding, UPDATE_INTERVAL};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Alert, CloseReason};
use crate::policy::Policy;
use crate::saved::SavedHold;
use crate::time::Timestamp;

/// Turns events into alerts by a policy.
///
/// Give each event to the [`Cluster`] first and then to the judge. Time is that of the events; a daemon also calls
/// [`Judge::handle_timeout`] with its clock when [`Judge::poll_timeout`] has come, an analysis calls [`Judge::finish`].
pub struct Judge {
    policy: Policy,
    detectors: Vec<Heard>,
    store: FindingStore,
    /// No detector wants to be called before this.
    due: Option<Timestamp>,
}

/// A detector, and whether it is to hear of remote actions: asked once, not for each of them.
struct Heard {
    detector: Box<dyn Detector>,
    of_actions: bool,
}

fn detectors(policy: &Policy) -> Vec<Heard> {
    let detectors = FAMILIES.iter().map(|family| (family.detector)(policy));
    detectors.map(|detector| Heard { of_actions: detector.hears_actions(), detector }).collect()
}

impl Judge {
    /// A judge with all rules, by this policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self::with_interval(policy, UPDATE_INTERVAL)
    }

    /// The same, with another interval between two updates of one finding.
    #[must_use]
    pub fn with_interval(policy: &Policy, update_interval: Duration) -> Self {
        Self {
            policy: policy.clone(),
            detectors: detectors(policy),
            store: FindingStore::new(&policy.limits, update_interval),
            due: None,
        }
    }

    /// Another policy from now on. Findings stay, and what detectors remember.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.policy = policy.clone();
        self.detectors.iter_mut().for_each(|heard| heard.detector.set_policy(policy));
    }

    /// Takes one event, which the cluster already contains.
    pub fn handle_event(&mut self, event: &Event, cluster: &Cluster) {
        if self.poll_timeout().is_some_and(|due| due <= event.time) {
            self.handle_timeout(event.time, cluster);
        }
        if let (EventBody::Link { change: LinkChange::Opened, link }, Some(flow)) = (&event.body, &event.flow)
            && link.resumed
        {
            self.store.resume((flow.initiator, flow.acceptor), &link.flow_id);
        }
        let mut findings = Findings { store: &mut self.store, policy: &self.policy };
        let action = matches!(event.body, EventBody::Activity(_));
        for Heard { detector, .. } in self.detectors.iter_mut().filter(|heard| heard.of_actions || !action) {
            detector.handle_event(event, cluster, &mut findings);
            // What comes too early is only looked at, so a time that was put off may stand until it has come.
            self.due = earliest(self.due, detector.poll_timeout());
        }
        if let (EventBody::Process(process), Some(flow)) = (&event.body, &event.flow) {
            self.store.attribute(&flow.id, process, event.time);
        }
        if let EventBody::Link { change: LinkChange::Closed, link } = &event.body {
            match &event.flow {
                Some(flow) if link.close_reason == Some(CloseReason::Evicted) => {
                    self.store.handle_given_up(flow, event.time);
                }
                _ => self.store.handle_closed(&link.flow_id, event.time),
            }
        }
    }

    /// Lets what waits for a time happen.
    pub fn handle_timeout(&mut self, now: Timestamp, cluster: &Cluster) {
        let mut findings = Findings { store: &mut self.store, policy: &self.policy };
        self.due = None;
        for Heard { detector, .. } in &mut self.detectors {
            if detector.poll_timeout().is_some_and(|due| due <= now) {
                detector.handle_timeout(now, cluster, &mut findings);
            }
            self.due = earliest(self.due, detector.poll_timeout());
        }
        self.store.handle_timeout(now);
    }

    /// When [`Judge::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.due, self.store.poll_timeout())
    }

    /// The end: what still waits happens now, as far as its time has come, and every change comes out.
    pub fn finish(&mut self, now: Timestamp, cluster: &Cluster) {
        let mut findings = Findings { store: &mut self.store, policy: &self.policy };
        for Heard { detector, .. } in &mut self.detectors {
            detector.handle_timeout(now, cluster, &mut findings);
        }
        self.store.finish(now);
    }

    /// The next new, updated or resolved alert.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        self.store.poll_alert()
    }

    /// What was told last of the findings with these fingerprints got lost on its way: it is told again.
    pub fn tell_again(&mut self, fingerprints: &BTreeSet<String>, now: Timestamp) {
        self.store.tell_again(fingerprints, now);
    }

    /// All alerts in their last state, the worst first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.store.alerts()
    }

    /// Takes in what an earlier run saved of its findings; before the first event.
    pub fn restore(&mut self, saved: Vec<SavedFinding>, now: Timestamp) {
        self.store.restore(saved, now);
    }

    /// Takes in what a connection between these ends, the initiator first, was reported for by an earlier run; after
    /// [`Judge::restore`].
    pub fn expect(&mut self, ends: (SocketAddr, SocketAddr), holds: &[SavedHold]) {
        self.store.expect(ends, holds);
    }

    /// What the detectors remember and would not see again after a restart.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.detectors.iter().for_each(|heard| heard.detector.save(&mut facts));
        facts
    }

    /// Takes in what the detectors of an earlier run remembered; before the first event.
    pub fn recall(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.detectors.iter_mut().for_each(|heard| heard.detector.restore(fact));
        }
    }

    /// From now on it is noted what comes out.
    pub(crate) fn note_what_comes_out(&mut self) {
        self.store.note_what_comes_out();
    }

    pub(crate) fn take_what_came_out(&mut self) -> Vec<(SavedFinding, Option<String>)> {
        self.store.take_what_came_out()
    }

    /// All findings.
    #[must_use]
    pub const fn findings(&self) -> &FindingStore {
        &self.store
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
