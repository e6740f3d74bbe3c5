//! `sink-failing`: findings that nobody gets to see.

use std::net::{IpAddr, Ipv4Addr};

use super::{Detector, Family, Findings, Parties, Party, Report, Rule, RuleOption, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&SINK_FAILING], detector: |_| Box::new(SinkFailing) };

static SINK_FAILING: Rule = Rule {
    id: "sink-failing",
    severity: Severity::Medium,
    off_by_default: false,
    group: group::MONITOR,
    raised_when: "A sink has not taken a record for longer than its limit, or its spool cannot be written.",
    rationale: "A finding that nobody sees is worth nothing. Records wait on disk meanwhile; when the spool reaches its limit, the \
                oldest are lost.",
    evidence: "The sink, since when it takes nothing, and what its server or the disk says.",
    remediation: "Look at the server, the way to it and its credentials, or at the space left for the spool; `distwatch status` shows \
                  each sink. Once it takes records again, what waits is sent in order.",
    references: &[],
    options: &[RuleOption { name: "after_seconds", default: 60, help: "how long a sink may take nothing, in seconds" }],
};

struct SinkFailing;

impl Detector for SinkFailing {
    fn handle_event(&mut self, event: &Event, _: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::SinkState { sink, failing_since, reason } = &event.body else { return };
        let Some(since) = failing_since else { return findings.resolve(&SINK_FAILING, sink, event.time) };
        let seconds = event.time.since(*since).as_secs();
        if seconds < findings.option(&SINK_FAILING, "after_seconds") {
            return;
        }
        // No peer is concerned: the ends are the monitor's own.
        let itself = Party::at(IpAddr::V4(Ipv4Addr::LOCALHOST), None);
        let parties = Parties { from: itself.clone(), to: itself, interfaces: Vec::new() };
        let sentence = format!("The sink {sink} takes no records since {since}: {reason}");
        let report = Report::new(&SINK_FAILING, &parties, sentence).key(sink.as_str()).subject(format!("sink {sink}"));
        findings.raise(event, report.fact(reason.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, at, event};
    use super::*;
    use crate::model::AlertStatus;
    use crate::policy::Policy;

    fn state(bench: &mut Bench, now: i64, failing_since: Option<i64>) {
        bench.now = now;
        let reason = "503 Service Unavailable".to_owned();
        let body = EventBody::SinkState { sink: "loki".into(), failing_since: failing_since.map(at), reason };
        bench.event(event(body, None));
    }

    #[test]
    fn a_sink_that_fails_for_too_long_is_a_finding_that_ends_when_it_recovers() {
        let mut bench = Bench::new(Policy::default());
        state(&mut bench, 10, Some(5));
        state(&mut bench, 64, Some(5));
        bench.none("sink-failing");
        state(&mut bench, 65, Some(5));
        let alert = bench.only("sink-failing");
        assert_eq!((alert.subject.as_str(), alert.status), ("sink loki", AlertStatus::New));
        assert!(alert.reason.contains("503"), "{}", alert.reason);
        state(&mut bench, 70, None);
        assert_eq!(bench.only("sink-failing").status, AlertStatus::Resolved);
    }
}
