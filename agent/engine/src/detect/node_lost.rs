//! `node-lost`: links that end without a goodbye.

use std::time::Duration;

use super::cleartext::{is_up_in_clear, is_up_in_tls};
use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::{Cluster, Flag};
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{CloseReason, Link, Severity};

pub(super) const FAMILY: Family = Family { rules: &[&NODE_LOST], detector: |_| Box::new(NodeLost) };

static NODE_LOST: Rule = Rule {
    id: "node-lost",
    severity: Severity::Low,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "An established link between published nodes ends with a reset, or falls silent: the ticks stop and nothing \
                  closes it.",
    rationale: "A node that ends says so with a FIN. Silence is a network that was cut or a host that died; a reset is a \
                process that was killed with data unread, or a box in the middle that interferes.",
    evidence: "The last packet, who reset it or how long it was silent, and what the link had carried.",
    remediation: "Look at the node's end and at the network between. How fast peers notice is `-kernel net_ticktime` (60 s \
                  unless set).",
    references: &[],
    options: &[],
};

/// Silence after which a link is lost though nothing ended it: a node gives its peer up after at most 75 s of the default
/// `net_ticktime` (60 s and a quarter). A capture often ends before [`Limits::idle_link`](crate::limits::Limits) is over.
const SILENCE: Duration = Duration::from_secs(75);

struct NodeLost;

impl Detector for NodeLost {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change: change @ (LinkChange::Closed | LinkChange::Updated), link } = &event.body else {
            return;
        };
        if !(is_up_in_clear(link) || is_up_in_tls(link)) || is_a_tool(link) {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        let how = match link.close_reason {
            Some(CloseReason::ResetInitiator) => format!("{} reset it", parties.from),
            Some(CloseReason::ResetAcceptor) => format!("{} reset it", parties.to),
            Some(CloseReason::Silent) => format!("nothing was sent after {}", link.last_seen),
            None if *change == LinkChange::Updated && event.time.since(link.last_seen) > SILENCE => {
                format!("nothing was sent after {}", link.last_seen)
            }
            Some(CloseReason::PortReuse) => "it was begun anew without having ended".to_owned(),
            _ => return,
        };
        let report = Report::new(&NODE_LOST, &parties, format!("{parties} ended without a close: {how}"));
        findings.raise(event, report.span(Span::OncePerLink).fact(how));
    }
}

/// Tools and C nodes hang up by reset as a habit: a call, an answer, the end.
fn is_a_tool(link: &Link) -> bool {
    let hidden = |flags: Option<u64>| flags.is_some_and(|flags| !Flag::PUBLISHED.is_in(flags));
    hidden(link.handshake.initiator_flags) || link.handshake.dynamic_name
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, established};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn silence_and_resets_are_losses_and_a_fin_or_a_tool_is_not() {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        bench.close(&mut link);
        link.handshake.initiator_flags = Some(0xD_07DF_7FBC);
        link.close_reason = Some(CloseReason::ResetInitiator);
        bench.link(LinkChange::Closed, &link);
        bench.none("node-lost");
        let mut link = established("f2");
        link.close_reason = Some(CloseReason::Silent);
        bench.link(LinkChange::Closed, &link);
        let alert = bench.only("node-lost");
        assert_eq!((alert.severity, alert.subject.as_str()), (Severity::Low, "web@host-a -> db@host-b"));
        let mut link = established("f3");
        link.close_reason = Some(CloseReason::ResetAcceptor);
        bench.link(LinkChange::Closed, &link);
        assert_eq!(bench.only("node-lost").count, 2);
    }

    #[test]
    fn a_link_that_is_silent_when_the_capture_ends_is_lost_and_one_that_ticks_is_not() {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        bench.now = 170;
        link.last_seen = at(110);
        bench.link(LinkChange::Updated, &link);
        bench.none("node-lost");
        link.last_seen = at(90);
        bench.link(LinkChange::Updated, &link);
        let alert = bench.only("node-lost");
        assert!(alert.reason.contains("nothing was sent after"), "{}", alert.reason);
    }
}
