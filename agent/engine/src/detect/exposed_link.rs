//! `distribution-exposed`: distribution that is reached where others are.

use super::cleartext::{is_up_in_clear, is_up_in_tls};
use super::{Detector, Exposure, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{HandshakeOutcome, Link, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&DISTRIBUTION_EXPOSED], detector: |_| Box::new(ExposedLink) };

static DISTRIBUTION_EXPOSED: Rule = Rule {
    id: "distribution-exposed",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::EXPOSURE,
    raised_when: "A distribution connection, in clear or TLS, is answered on an interface or address that is not isolated. \
                  Where the policy declares nothing, a way between private addresses is high instead of critical.",
    rationale: "The distribution listener binds to all interfaces unless told otherwise, so a cluster that was meant for one \
                network is open on all of them. Whoever reaches the listener is one cookie away from every node of \
                the cluster.",
    evidence: "The connection's first packet, its addresses and interfaces, and what makes it exposed.",
    remediation: "Bind the listener to the cluster's network: `-kernel inet_dist_use_interface '{10,0,0,1}'` (an IPv6 address \
                  as a tuple of eight). Fix its port with `inet_dist_listen_min` and `inet_dist_listen_max` and let a \
                  firewall keep it to the peers. Declare the network under `network.isolated` where this is as wanted.",
    references: &["G7"],
    options: &[],
};

struct ExposedLink;

impl Detector for ExposedLink {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        // A status comes before the acceptor's name; what is judged with the name must not be judged without it before.
        let name_may_come = link.acceptor.node.is_none() && link.handshake.outcome == HandshakeOutcome::Incomplete;
        let is_time = (*change == LinkChange::Closed) == name_may_come;
        if !is_time || !is_answered_distribution(link) {
            return;
        }
        let (from, to) = (link.initiator.ip, link.acceptor.ip);
        let exposure = Exposure::judge(findings.policy, link.interfaces.iter().map(String::as_str), from, to);
        if exposure.is_local() {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        let way = format!("{from} reached {to}:{} on {}", link.acceptor.port, interfaces(link));
        let reason = format!("distribution {parties} is reached {} ({way})", exposure.in_words());
        let report = Report::new(&DISTRIBUTION_EXPOSED, &parties, reason)
            .severity(exposure.weigh(DISTRIBUTION_EXPOSED.severity))
            .span(Span::WhileLinkOpen);
        findings.raise(event, report.fact_at(way, &link.first_packet));
    }
}

/// The acceptor spoke distribution: an unanswered attempt shows no more than that somebody tried.
pub(super) fn is_answered_distribution(link: &Link) -> bool {
    is_up_in_clear(link)
        || is_up_in_tls(link)
        || link.handshake.acceptor_flags.is_some()
        || link.handshake.status.is_some()
}

/// The interfaces in words.
pub(super) fn interfaces(link: &Link) -> String {
    if link.interfaces.iter().all(String::is_empty) {
        return "an interface that the capture does not name".to_owned();
    }
    link.interfaces.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established, ip, policy_with_isolated};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn only_the_link_that_leaves_the_isolated_network_is_exposed() {
        let mut bench = Bench::new(policy_with_isolated(&["lo"], &["10.77.0.0/24"]));
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("distribution-exposed");
        let mut desk = established("f2");
        desk.initiator.node = Some("desk@host-c".into());
        desk.acceptor.node = Some("web@host-a".into());
        (desk.initiator.ip, desk.acceptor.ip) = (ip("10.88.0.50"), ip("10.88.0.1"));
        bench.link(LinkChange::Handshake, &desk);
        let alert = bench.only("distribution-exposed");
        assert_eq!((alert.subject.as_str(), alert.severity), ("desk@host-c -> web@host-a", Severity::Critical));
    }

    #[test]
    fn a_link_is_judged_once_when_its_acceptor_has_told_its_name_or_left_without() {
        let mut bench = Bench::new(Policy::default());
        let mut begun = established("f1");
        begun.acceptor.node = None;
        begun.handshake.acceptor_flags = None;
        begun.handshake.outcome = HandshakeOutcome::Incomplete;
        bench.link(LinkChange::Handshake, &begun);
        bench.none("distribution-exposed");
        bench.link(LinkChange::Handshake, &established("f1"));
        assert_eq!(bench.only("distribution-exposed").subject, "web@host-a -> db@host-b");

        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &begun);
        bench.link(LinkChange::Closed, &begun);
        bench.only("distribution-exposed");
    }

    #[test]
    fn without_a_policy_a_private_network_weighs_one_step_less_and_an_unanswered_attempt_nothing() {
        let mut bench = Bench::new(Policy::default());
        let mut silent = established("f0");
        silent.handshake = crate::model::Handshake::default();
        bench.link(LinkChange::Opened, &silent);
        bench.none("distribution-exposed");
        bench.link(LinkChange::Handshake, &established("f1"));
        assert_eq!(bench.only("distribution-exposed").severity, Severity::High);
    }
}
