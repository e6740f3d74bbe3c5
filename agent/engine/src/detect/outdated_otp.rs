//! `outdated-otp`: releases that are too old, as the capability flags show them.

use super::{Detector, Family, Findings, Parties, Report, Rule, RuleOption, Span, group};
use crate::cluster::{Cluster, otp_from_flags};
use crate::event::{Event, EventBody, LinkChange};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&OUTDATED_OTP], detector: |_| Box::new(OutdatedOtp) };

static OUTDATED_OTP: Rule = Rule {
    id: "outdated-otp",
    severity: Severity::Low,
    off_by_default: false,
    group: group::MEMBERSHIP,
    raised_when: "The capability flags are those of a release below the minimum (`minimum`, 25 unless set). Flags that fit \
                  several releases, or none, raise nothing.",
    rationale: "Only the newest three releases get security fixes, in the runtime and in its TLS.",
    evidence: "The packet of the handshake, the flags, and the releases that send them.",
    remediation: "Move the node to a maintained release. Set `[rules.outdated-otp] minimum` to what you run, and this tells you \
                  of every node that was forgotten.",
    references: &["G5"],
    options: &[RuleOption { name: "minimum", default: 25, help: "lowest release that is in order" }],
};

struct OutdatedOtp;

impl Detector for OutdatedOtp {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Link { change, link } = &event.body else { return };
        if *change == LinkChange::Closed {
            return;
        }
        let minimum = findings.option(&OUTDATED_OTP, "minimum");
        let parties = Parties::of_link(link, cluster);
        let sides = [(&parties.from, link.handshake.initiator_flags), (&parties.to, link.handshake.acceptor_flags)];
        for (party, flags) in sides {
            // A name that no peer has accepted yet is a claim.
            let known = party.name.as_ref().filter(|name| cluster.node(name).is_some());
            let (Some(name), Some(flags)) = (known, flags) else { continue };
            let Some(max) = otp_from_flags(flags).max.filter(|&max| u64::from(max) < minimum) else { continue };
            let reason = format!("{name} at {} runs OTP {max} or older; {minimum} is the minimum", party.ip);
            let report = Report::new(&OUTDATED_OTP, &parties, reason)
                .key(party.key())
                .subject(name.as_str())
                .span(Span::WhileLinkOpen);
            findings.raise(event, report.fact(format!("flags {flags:#x} are those of OTP {max}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established, rule_option};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn a_release_below_the_minimum_is_outdated_and_flags_of_several_releases_are_not() {
        let mut bench = Bench::new(Policy::default());
        bench.link(LinkChange::Handshake, &established("f1"));
        bench.none("outdated-otp");
        let mut old = established("f2");
        old.handshake.acceptor_flags = Some(0x1_01DF_7FBD);
        bench.link(LinkChange::Handshake, &old);
        assert_eq!(bench.only("outdated-otp").subject, "db@host-b");
    }

    #[test]
    fn the_policy_sets_the_minimum() {
        let mut bench = Bench::new(rule_option("outdated-otp", "minimum", 28));
        bench.link(LinkChange::Handshake, &established("f1"));
        assert_eq!(bench.alerts().iter().filter(|alert| alert.rule_id == "outdated-otp").count(), 2);
    }
}
