//! `stream-tampering`: somebody else writes into a connection.

use super::{Detector, Family, Findings, Parties, Report, Rule, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, Tampering};
use crate::model::{Confidence, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&STREAM_TAMPERING], detector: |_| Box::new(StreamTampering) };

static STREAM_TAMPERING: Rule = Rule {
    id: "stream-tampering",
    severity: Severity::Critical,
    off_by_default: false,
    group: group::STREAM,
    raised_when: "A retransmission carries other octets than the first copy, or data is sent far outside of the receiver's window.",
    rationale: "The cookie is checked once, at the beginning. Whoever can put octets into the stream after that acts with the rights \
                of the peer, and TCP does not notice.",
    evidence: "The packet, the direction, the offset in the stream and the number of octets.",
    remediation: "Run distribution over TLS, which notices. Look for a device in between that rewrites packets, and for an address \
                  that is used twice.",
    references: &["G3"],
    options: &[],
};

struct StreamTampering;

impl Detector for StreamTampering {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Tampering { what, from_initiator, offset, bytes } = &event.body else { return };
        let Some(parties) = Parties::of_event(event, cluster) else { return };
        let (from, to) = if *from_initiator { (&parties.from, &parties.to) } else { (&parties.to, &parties.from) };
        let (how, confidence) = match what {
            Tampering::ConflictingRetransmission => {
                ("a retransmission differs from the first copy", Confidence::Certain)
            }
            Tampering::OutsideWindow => ("data lies far outside of the receiver's window", Confidence::Likely),
        };
        let reason = format!("somebody writes into the stream from {from} to {to}: {how}");
        let fact = format!("{how}: {bytes} octets at offset {offset} from {from} to {to}");
        findings.raise(event, Report::new(&STREAM_TAMPERING, &parties, reason).confidence(confidence).fact(fact));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established};
    use super::*;
    use crate::event::LinkChange;
    use crate::policy::Policy;

    #[test]
    fn a_conflicting_retransmission_is_critical_and_says_where() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("stream-tampering");
        let what = Tampering::ConflictingRetransmission;
        bench.on_flow(EventBody::Tampering { what, from_initiator: true, offset: 4711, bytes: 12 });
        let alert = bench.only("stream-tampering");
        assert_eq!((alert.severity, alert.subject.as_str()), (Severity::Critical, "web@host-a -> db@host-b"));
        assert!(alert.evidence[0].fact.contains("12 octets at offset 4711"));
    }
}
