//! Other protocols on the ports of EPMD and distribution: `not-distribution` and `not-epmd`.

use super::{Detector, Family, Findings, Parties, Report, Rule, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, Expected};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&NOT_DISTRIBUTION, &NOT_EPMD], detector: |_| Box::new(Foreign) };

static NOT_DISTRIBUTION: Rule = Rule {
    id: "not-distribution",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::STREAM,
    raised_when: "Octets that are neither the distribution protocol nor TLS arrive on a port that is known for distribution.",
    rationale: "Nodes say nothing else there. It is a scanner, a health check that points at the wrong port, or somebody who looks \
                for what listens.",
    evidence: "The packet, what the octets look like, and the addresses.",
    remediation: "Look at what runs at the sender's address. Health checks belong on a port of their own. Let only the cluster's \
                  network reach the port (`inet_dist_use_interface`, a firewall).",
    references: &["G5"],
    options: &[],
};

static NOT_EPMD: Rule = Rule {
    id: "not-epmd",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::STREAM,
    raised_when: "Octets that are no EPMD request arrive on EPMD's port.",
    rationale: "EPMD's port (4369) is on every scanner's list.",
    evidence: "The packet, what the octets look like, and the addresses.",
    remediation: "Look at what runs at the sender's address, and bind EPMD to the cluster's network with `ERL_EPMD_ADDRESS`.",
    references: &["G5"],
    options: &[],
};

struct Foreign;

impl Detector for Foreign {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Foreign { expected, looks_like } = &event.body else { return };
        let (rule, known_for) = match expected {
            // TLS there is another matter: `cleartext-attempt`.
            Expected::Distribution if *looks_like == "TLS" => return,
            Expected::Distribution => (&NOT_DISTRIBUTION, "distribution"),
            Expected::Epmd => (&NOT_EPMD, "EPMD"),
        };
        let Some(flow) = &event.flow else { return };
        let Some(parties) = Parties::of_event(event, cluster) else { return };
        let (from, to) = (flow.initiator.ip(), flow.acceptor);
        let reason = format!("{from} sent {looks_like} to {to}, a port known for {known_for}");
        let report =
            Report::new(rule, &parties, reason).key(format!("{from} -> {to}")).subject(format!("{from} -> {to}"));
        findings.raise(event, report.fact(format!("looks like: {looks_like}")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn each_port_has_its_rule_and_tls_has_another() {
        let mut bench = Bench::new(Policy::default());
        bench.on_flow(EventBody::Foreign { expected: Expected::Distribution, looks_like: "TLS" });
        bench.none("not-distribution");
        bench.on_flow(EventBody::Foreign { expected: Expected::Distribution, looks_like: "HTTP" });
        assert_eq!(bench.only("not-distribution").subject, "10.77.0.1 -> 10.77.0.2:41000");
        bench.none("not-epmd");
        bench.on_flow(EventBody::Foreign { expected: Expected::Epmd, looks_like: "SSH" });
        assert_eq!(bench.only("not-epmd").severity, Severity::Medium);
    }
}
