//! `capture-loss`: what the monitor itself did not see.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Detector, Family, Findings, Parties, Party, Report, Rule, RuleOption, Span, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody, LinkChange};
use crate::model::{Link, Severity};

pub(super) const FAMILY: Family =
    Family { rules: &[&CAPTURE_LOSS], detector: |_| Box::new(CaptureLoss { lost: BTreeMap::new() }) };

static CAPTURE_LOSS: Rule = Rule {
    id: "capture-loss",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::MONITOR,
    raised_when: "The kernel, an interface, the ring or a queue lost packets beyond a threshold, or a link ends with octets missing \
                  beyond a threshold.",
    rationale: "What was not captured cannot be judged: names, calls and failures are missing from the report, and atoms that were \
                lost make later messages unreadable.",
    evidence: "Where it was lost and how much; for a link its number of gaps and missing octets.",
    remediation: "Give the capture a larger buffer, a narrower filter or a core of its own, or capture by eBPF. For a file, record it \
                  with a full snap length (`tcpdump -s 0 -B 65536`).",
    references: &[],
    options: &[
        RuleOption { name: "packets", default: 100, help: "lost packets of one stage, in total" },
        RuleOption { name: "missing_bytes", default: 65_536, help: "octets that are missing from one link" },
    ],
};

struct CaptureLoss {
    /// Lost packets by stage. The stages are a handful of fixed words.
    lost: BTreeMap<&'static str, u64>,
}

impl Detector for CaptureLoss {
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>) {
        match &event.body {
            EventBody::Loss { stage, packets } => self.stage(event, stage, *packets, findings),
            EventBody::Link { change: LinkChange::Closed | LinkChange::Updated, link } => {
                gaps(event, link, cluster, findings);
            }
            _ => {}
        }
    }
}

impl CaptureLoss {
    fn stage(&mut self, event: &Event, stage: &'static str, packets: u64, findings: &mut Findings<'_>) {
        let total = self.lost.entry(stage).or_default();
        *total = total.saturating_add(packets);
        if packets == 0 || *total < findings.option(&CAPTURE_LOSS, "packets") {
            return;
        }
        // No peer is concerned: the ends are the monitor's own.
        let itself = Party::at(IpAddr::V4(Ipv4Addr::LOCALHOST), None);
        let parties = Parties { from: itself.clone(), to: itself, interfaces: Vec::new() };
        let reason = format!("{total} packets were lost at the stage {stage}");
        let report = Report::new(&CAPTURE_LOSS, &parties, reason).key(stage).subject(format!("capture ({stage})"));
        findings.raise(event, report.fact(format!("{packets} more packets lost at {stage}, {total} in total")));
    }
}

fn gaps(event: &Event, link: &Link, cluster: &Cluster, findings: &mut Findings<'_>) {
    if link.missing_bytes == 0 || link.missing_bytes < findings.option(&CAPTURE_LOSS, "missing_bytes") {
        return;
    }
    let parties = Parties::of_link(link, cluster);
    let fact = format!("{} octets are missing in {} places", link.missing_bytes, link.gaps);
    let report = Report::new(&CAPTURE_LOSS, &parties, format!("{parties} was not captured whole: {fact}"));
    findings.raise(event, report.span(Span::OncePerLink).fact(fact));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, established, event};
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn losses_add_up_to_the_threshold() {
        let mut bench = Bench::new(Policy::default());
        bench.event(event(EventBody::Loss { stage: "kernel", packets: 60 }, None));
        bench.event(event(EventBody::Loss { stage: "ring", packets: 60 }, None));
        bench.none("capture-loss");
        bench.event(event(EventBody::Loss { stage: "kernel", packets: 60 }, None));
        let alert = bench.only("capture-loss");
        assert_eq!(alert.subject, "capture (kernel)");
        assert!(alert.reason.contains("120 packets"));
    }

    #[test]
    fn a_link_with_many_octets_missing_was_not_captured_whole() {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        link.missing_bytes = 1460;
        link.gaps = 1;
        bench.close(&mut link);
        bench.none("capture-loss");
        link.missing_bytes = 1 << 20;
        bench.link(LinkChange::Closed, &link);
        assert_eq!(bench.only("capture-loss").subject, "web@host-a -> db@host-b");
    }

    #[test]
    fn a_link_that_is_still_open_at_the_end_counts_as_well() {
        let mut bench = Bench::new(Policy::default());
        let mut link = established("f1");
        link.missing_bytes = 1 << 20;
        bench.link(LinkChange::Updated, &link);
        bench.only("capture-loss");
    }
}
