//! `hidden-node`: nodes that `nodes()` does not show.

use super::cleartext::is_up_in_clear;
use super::parties::is_tool_name;
use super::{Detector, Family, Findings, Parties, Report, Rule, Span, group};
use crate::cluster::{Cluster, Flag, otp_from_flags};
use crate::event::{Event, EventBody, LinkChange};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&HIDDEN_NODE], detector: |_| Box::new(HiddenNode) };

static HIDDEN_NODE: Rule = Rule {
    id: "hidden-node",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "A node that is not published (`-hidden`, a C or Java node, or one that is given a dynamic name) has a \
                  connection. Low for names that the command lines of known products make up.",
    rationale: "A hidden node appears neither in `nodes()` nor in `global`, so what watches the cluster from inside does not \
                see it, while it may do everything that a member may. Operators' tools connect this way; so do attack \
                tools.",
    evidence: "The packet of the handshake, the node's capability flags, and what implementation they are those of.",
    remediation: "`nodes(hidden)` on the peer lists it. Where it is an operator's tool, allow it: `allow = [{ nodes = \
                  [\"rabbitmqcli-*\"], from = [\"10.0.0.0/24\"] }]` for this rule.",
    references: &["G5", "G9"],
    options: &[],
};

struct HiddenNode;

impl Detector for HiddenNode {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        if *change == LinkChange::Closed || !is_up_in_clear(link) {
            return;
        }
        let parties = Parties::of_link(link, cluster);
        let handshake = &link.handshake;
        // To a peer that asks for a name the acceptor shows itself hidden too, whatever it is (`docs/protocol.md` §2.7).
        let acceptor_flags = handshake.acceptor_flags.filter(|_| !handshake.dynamic_name);
        for (party, flags) in [(&parties.from, handshake.initiator_flags), (&parties.to, acceptor_flags)] {
            let (Some(name), Some(flags)) = (&party.name, flags) else { continue };
            if Flag::PUBLISHED.is_in(flags) {
                continue;
            }
            let kind = match (party.dynamic, otp_from_flags(flags).implementation.as_deref()) {
                (true, _) => "with a dynamic name".to_owned(),
                (false, Some("unknown")) => "of an unknown implementation".to_owned(),
                (false, Some(implementation)) => format!("made with {implementation}"),
                (false, None) => "started with -hidden or as a tool".to_owned(),
            };
            let severity = if is_tool_name(name) { Severity::Low } else { HIDDEN_NODE.severity };
            let reason = format!("{name} at {} is connected as a hidden node, {kind} ({parties})", party.ip);
            let report = Report::new(&HIDDEN_NODE, &parties, reason)
                .key(format!("{} at {}", party.key(), party.ip))
                .subject(format!("{name} ({parties})"))
                .severity(severity)
                .span(Span::WhileLinkOpen);
            findings.raise(event, report.fact(format!("{name} sent the flags {flags:#x}, without PUBLISHED")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn a_node_without_published_is_hidden_and_its_peer_is_not() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("hidden-node");
        let mut hidden = established("f2");
        hidden.handshake.initiator_flags = Some(0xD_07DF_7FBC);
        bench.link(LinkChange::Handshake, &hidden);
        let alert = bench.only("hidden-node");
        assert_eq!(alert.severity, Severity::Medium);
        assert!(alert.subject.starts_with("web@host-a"));
    }

    #[test]
    fn a_dynamic_name_is_hidden_and_makes_its_peer_look_hidden() {
        let mut bench = Bench::new(Policy::default());
        for (flow, name) in [("f1", "F79064XOSHD6@host-a"), ("f2", "3FTK26R13SHHR@host-a")] {
            let mut link = established(flow);
            link.initiator.node = Some(name.into());
            link.handshake.dynamic_name = true;
            link.handshake.initiator_flags = Some(0xF_07DF_7FBC);
            link.handshake.acceptor_flags = Some(0xF_07DF_7FBC);
            bench.link(LinkChange::Handshake, &link);
        }
        let alert = bench.only("hidden-node");
        assert_eq!(alert.count, 2, "one condition, whatever name the next session is given");
        assert!(alert.subject.starts_with("F79064XOSHD6@host-a"));
    }

    #[test]
    fn the_command_line_of_a_known_product_is_low() {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        link.initiator.node = Some("rabbitmqcli-17-rabbit@host-a".into());
        link.handshake.initiator_flags = Some(0xD_07DF_7FBC);
        bench.link(LinkChange::Handshake, &link);
        assert_eq!(bench.only("hidden-node").severity, Severity::Low);
    }
}
