//! `handshake-stalled`: handshakes that are begun and never finished.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::memory::ENTRIES;
use super::{Detector, Family, Findings, Parties, Report, Rule, Seen, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, FlowInfo, LinkChange};
use crate::model::{HandshakeOutcome, Link, Severity, TlsOutcome, Transport};
use crate::packet::PacketRef;
use crate::policy::Policy;
use crate::time::Timestamp;

pub(super) const FAMILY: Family = Family {
    rules: &[&HANDSHAKE_STALLED],
    detector: |policy| {
        let patience = policy.limits.handshake;
        Box::new(HandshakeStalled { patience, open: HashMap::new(), due: BTreeSet::new(), order: VecDeque::new() })
    },
};

static HANDSHAKE_STALLED: Rule = Rule {
    id: "handshake-stalled",
    severity: Severity::Low,
    off_by_default: false,
    group: group::AUTHENTICATION,
    raised_when: "A connection to a distribution port is opened and its handshake does not come to an end: it goes on for longer \
                  than a node waits (7 s unless set), or the initiator leaves once it has the acceptor's challenge.",
    rationale: "The acceptor tells its name, release and creation to anyone who sends a name. Tools take that and leave; others \
                keep connections half open to hold the acceptor's set-up processes.",
    evidence: "The first packet of each such connection, how far it got and how long it took.",
    remediation: "Look at what runs at that address. A node of yours that is stuck there has a proxy or a firewall in between, or \
                  speaks TLS to a listener in clear.",
    references: &["G5"],
    options: &[],
};

struct Open {
    flow: Arc<FlowInfo>,
    due: Timestamp,
}

struct HandshakeStalled {
    patience: Duration,
    open: HashMap<String, Open>,
    due: BTreeSet<(Timestamp, String)>,
    /// In the order of their beginning, so that the oldest gives way when there are too many.
    order: VecDeque<String>,
}

impl Detector for HandshakeStalled {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        if *change == LinkChange::Closed {
            self.forget(&link.flow_id);
            let took = link.last_seen.max(event.time).since(link.opened);
            let left =
                link.handshake.acceptor_flags.is_some() && link.handshake.outcome == HandshakeOutcome::Incomplete;
            // A node closes what it has waited for itself, so the end comes about when patience does.
            if is_unfinished(link) && (left || took >= self.patience / 2) {
                stalled(event, link, took, cluster, findings);
            }
            return;
        }
        if !is_unfinished(link) {
            self.forget(&link.flow_id);
        } else if let Some(flow) = event.flow.as_ref().filter(|_| !self.open.contains_key(&link.flow_id)) {
            self.remember(link, flow);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp, cluster: &Cluster, findings: &mut Findings<'_>) {
        while let Some((time, id)) = self.due.first().cloned() {
            if time > now {
                return;
            }
            self.due.pop_first();
            let Some(open) = self.open.remove(&id) else { continue };
            let Some(link) = cluster.link(&id).filter(|link| link.closed.is_none() && is_unfinished(link)) else {
                continue;
            };
            let seen = Seen { time, packet: PacketRef::default(), flow: Some(&open.flow) };
            stalled(seen, link, time.since(link.opened), cluster, findings);
        }
    }

    fn set_policy(&mut self, policy: &Policy) {
        self.patience = policy.limits.handshake;
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(time, _)| *time)
    }
}

impl HandshakeStalled {
    fn remember(&mut self, link: &Link, flow: &Arc<FlowInfo>) {
        let full = self.order.len() >= ENTRIES;
        if let Some(oldest) = full.then(|| self.order.pop_front()).flatten() {
            self.forget(&oldest);
        }
        let due = link.opened.plus(self.patience);
        self.open.insert(link.flow_id.clone(), Open { flow: Arc::clone(flow), due });
        self.due.insert((due, link.flow_id.clone()));
        self.order.push_back(link.flow_id.clone());
    }

    fn forget(&mut self, id: &str) {
        if let Some(open) = self.open.remove(id) {
            self.due.remove(&(open.due, id.to_owned()));
        }
    }
}

/// The handshake has neither passed nor failed, and what was sent can be the beginning of one.
fn is_unfinished(link: &Link) -> bool {
    if link.mid_stream {
        return false;
    }
    match (link.transport, &link.tls) {
        (Transport::Tls, Some(tls)) => tls.outcome == TlsOutcome::Incomplete,
        (Transport::Tls, None) => false,
        (_, Some(_)) => false,
        (_, None) => link.handshake.outcome == HandshakeOutcome::Incomplete,
    }
}

fn stalled<'e>(seen: impl Into<Seen<'e>>, link: &Link, took: Duration, cluster: &Cluster, findings: &mut Findings<'_>) {
    let parties = Parties::of_link(link, cluster);
    let handshake = &link.handshake;
    let far = if link.tls.is_some() {
        "the TLS handshake was begun"
    } else if handshake.acceptor_flags.is_some() {
        "the acceptor's challenge was not answered"
    } else if handshake.version.is_some() {
        "a name was sent"
    } else if link.bytes.from_initiator > 0 {
        "less than a name was sent"
    } else {
        "nothing was sent"
    };
    let address = link.initiator.ip;
    let reason = format!("a handshake from {address} with {} was begun and not finished: {far}", parties.to);
    let report = Report::new(&HANDSHAKE_STALLED, &parties, reason)
        .key(format!("{address} -> {}", parties.to.key()))
        .subject(format!("{address} -> {}", parties.to))
        .span(Span::OncePerLink);
    let fact = format!("{far}; open for {:.1} s", took.as_secs_f64());
    findings.raise(seen, report.fact_at(fact, &link.first_packet));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, established, link};
    use super::*;

    fn attempt(flow: &str) -> Link {
        let mut link = link(flow, ("10.77.0.1", None), ("10.77.0.2", None));
        link.bytes.from_initiator = 2;
        link
    }

    #[test]
    fn several_unfinished_handshakes_from_one_address_are_one_finding() {
        let mut bench = Bench::new(Policy::default());
        let (mut first, mut second) = (attempt("f1"), attempt("f2"));
        bench.link(LinkChange::Opened, &first);
        bench.link(LinkChange::Opened, &second);
        bench.none("handshake-stalled");
        bench.wait(Duration::from_secs(7));
        let alert = bench.only("handshake-stalled");
        assert_eq!((alert.count, alert.severity), (2, Severity::Low));
        bench.close(&mut first);
        bench.close(&mut second);
        assert_eq!(bench.only("handshake-stalled").count, 2, "the end of it is no repeat");
    }

    #[test]
    fn a_handshake_that_ends_in_time_or_a_port_scan_is_not_stalled() {
        let mut bench = Bench::new(Policy::default());
        let mut scan = attempt("f1");
        bench.link(LinkChange::Opened, &scan);
        bench.close(&mut scan);
        let mut losing = established("f2");
        losing.handshake.outcome = HandshakeOutcome::Nok;
        bench.link(LinkChange::Opened, &attempt("f2"));
        bench.link(LinkChange::Handshake, &losing);
        bench.wait(Duration::from_secs(60));
        bench.close(&mut losing);
        bench.none("handshake-stalled");
    }

    #[test]
    fn taking_the_challenge_and_leaving_is_reported_at_once() {
        let mut bench = Bench::new(Policy::default());
        let mut probe = established("f1");
        probe.handshake.outcome = HandshakeOutcome::Incomplete;
        bench.link(LinkChange::Progress, &probe);
        bench.close(&mut probe);
        assert!(bench.only("handshake-stalled").reason.contains("challenge was not answered"));
        assert_eq!(bench.only("handshake-stalled").first_seen, at(0));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut stalled = HandshakeStalled {
            patience: Duration::from_secs(7),
            open: HashMap::new(),
            due: BTreeSet::new(),
            order: VecDeque::new(),
        };
        for number in 0..ENTRIES + 10 {
            let link = attempt(&format!("f{number}"));
            stalled.remember(&link, &super::super::testing::flow_of(&link));
        }
        assert_eq!((stalled.open.len(), stalled.due.len(), stalled.order.len()), (ENTRIES, ENTRIES, ENTRIES));
    }
}
