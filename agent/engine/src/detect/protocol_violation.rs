//! `protocol-violation`: what no release of OTP sends.

use super::{Detector, Family, Findings, Parties, Report, Rule, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&PROTOCOL_VIOLATION], detector: |_| Box::new(ProtocolViolation) };

static PROTOCOL_VIOLATION: Rule = Rule {
    id: "protocol-violation",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::STREAM,
    raised_when: "A peer breaks the protocol in a way that no release of OTP does: impossible lengths, references to cache entries \
                  that were never set while nothing was lost, nesting or inflation beyond the limits.",
    rationale: "It is an implementation of its own, a fuzzer, or somebody who tries to make a decoder fail: the node's or the \
                monitor's.",
    evidence: "The packet, what was broken, and by whom.",
    remediation: "Find out what the peer is (its capability flags tell the implementation). If it is one of yours, update it; if not, \
                  keep it from the port.",
    references: &["G5"],
    options: &[],
};

struct ProtocolViolation;

impl Detector for ProtocolViolation {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Violation { what, from_initiator } = &event.body else { return };
        let Some(parties) = Parties::of_event(event, cluster) else { return };
        let who = if *from_initiator { &parties.from } else { &parties.to };
        let reason = format!("{who} broke the protocol ({parties}): {what}");
        let key = format!("{} by {}", parties.key(), who.key());
        findings.raise(event, Report::new(&PROTOCOL_VIOLATION, &parties, reason).key(key).fact(what));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established};
    use super::*;
    use crate::event::LinkChange;
    use crate::policy::Policy;

    #[test]
    fn a_violation_names_who_did_it() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("protocol-violation");
        bench.on_flow(EventBody::Violation { what: "a frame of 4 GB".into(), from_initiator: false });
        let alert = bench.only("protocol-violation");
        assert_eq!(alert.subject, "web@host-a -> db@host-b");
        assert!(alert.reason.starts_with("db@host-b broke the protocol"));
    }
}
