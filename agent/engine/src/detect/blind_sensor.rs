//! `blind-sensor`: distribution that this host has and the monitor does not see.

use std::net::{IpAddr, Ipv4Addr};

use super::{Detector, Family, Findings, Parties, Party, Report, Rule, RuleOption, group};
use crate::cluster::Cluster;
use crate::event::{Event, EventBody};
use crate::model::Severity;

pub(super) const FAMILY: Family = Family { rules: &[&BLIND_SENSOR], detector: |_| Box::new(BlindSensor) };

static BLIND_SENSOR: Rule = Rule {
    id: "blind-sensor",
    severity: Severity::High,
    off_by_default: false,
    group: group::MONITOR,
    raised_when: "The host has established distribution sockets of which nothing is captured. Ends when all of them are seen again.",
    rationale: "A monitor that sees nothing reports nothing, which looks like a host on which all is well. What these connections \
                carry is not judged.",
    evidence: "How many sockets are not seen, and one of them.",
    remediation: "See what `distwatch status` says of the capture back end and where it is attached, and `distwatch doctor` of what \
                  this host allows. Name the interfaces (`--interface`) or the cgroup (`--cgroup`) of the nodes.",
    references: &[],
    options: &[RuleOption { name: "sockets", default: 1, help: "established distribution sockets that are not seen" }],
};

const KEY: &str = "sockets";

struct BlindSensor;

impl Detector for BlindSensor {
    fn handle_event(&mut self, event: &Event, _: &Cluster, findings: &mut Findings<'_>) {
        let EventBody::Unseen { sockets, example } = &event.body else { return };
        if *sockets < findings.option(&BLIND_SENSOR, "sockets").max(1) {
            findings.resolve(&BLIND_SENSOR, KEY, event.time);
            return;
        }
        // No peer is concerned: the ends are the monitor's own.
        let itself = Party::at(IpAddr::V4(Ipv4Addr::LOCALHOST), None);
        let parties = Parties { from: itself.clone(), to: itself, interfaces: Vec::new() };
        let reason = format!("nothing was captured of {sockets} established distribution sockets of this host");
        let report = Report::new(&BLIND_SENSOR, &parties, reason).key(KEY).subject("capture".to_owned());
        let fact = if example.is_empty() {
            format!("{sockets} sockets")
        } else {
            format!("{sockets} sockets, {example} among them")
        };
        findings.raise(event, report.fact(fact));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, event};
    use super::*;
    use crate::model::AlertStatus;
    use crate::policy::Policy;

    fn unseen(sockets: u64) -> Event {
        event(EventBody::Unseen { sockets, example: "10.0.0.1:40000 -> 10.0.0.2:9100".into() }, None)
    }

    #[test]
    fn sockets_that_are_not_seen_are_one_finding_that_ends_when_they_are() {
        let mut bench = Bench::new(Policy::default());
        bench.event(unseen(0));
        bench.none("blind-sensor");
        bench.event(unseen(2));
        bench.event(unseen(1));
        let alert = bench.only("blind-sensor");
        assert_eq!((alert.severity, alert.subject.as_str()), (Severity::High, "capture"));
        bench.event(unseen(0));
        assert_eq!(bench.only("blind-sensor").status, AlertStatus::Resolved);
    }
}
