//! What the capture thread knows at one moment, for those who show it: made by copying pointers, so that it takes the thread
//! little time, and looked at elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distwatch_engine::analysis::Analysis;
use distwatch_engine::model::{Alert, AlertStatus, Link, Node, Severity};
use distwatch_engine::policy::RuleSettings;
use distwatch_engine::time::Timestamp;

use super::status::Status;

/// All that is known at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When.
    pub time: Timestamp,
    /// What the capture thread spent on it.
    pub cost: Duration,
    /// How the daemon is.
    pub status: Status,
    /// TCP connections that are remembered.
    pub open_flows: usize,
    /// Nodes, in the order of their appearance.
    pub nodes: Vec<Arc<Node>>,
    /// Links, in the order of their appearance, closed ones too as long as they are remembered.
    pub links: Vec<Arc<Link>>,
    /// Findings in their last state: the worst first, then the oldest.
    pub alerts: Vec<Alert>,
    /// How many findings were new since the start.
    pub raised: Raised,
    /// What the policy in force says of single rules.
    pub rules: Arc<RulesInForce>,
}

/// What a policy says of single rules, by their ids.
pub type RulesInForce = BTreeMap<String, RuleSettings>;

/// How many findings were new, by rule and severity.
pub type Raised = BTreeMap<(String, Severity), u64>;

impl Picture {
    /// What is known now.
    pub(super) fn of(
        analysis: &Analysis,
        alerts: Vec<Alert>,
        (raised, rules): (&Raised, &Arc<RulesInForce>),
        status: Status,
        time: Timestamp,
        begun: Instant,
    ) -> Self {
        let mut picture = Self {
            time,
            cost: Duration::ZERO,
            status,
            open_flows: analysis.engine.open_flows(),
            nodes: analysis.cluster.shared_nodes().cloned().collect(),
            links: analysis.cluster.shared_links().cloned().collect(),
            alerts,
            raised: raised.clone(),
            rules: Arc::clone(rules),
        };
        picture.cost = begun.elapsed();
        picture
    }
}

/// Counts a finding that is new.
pub(super) fn count(raised: &mut Raised, alert: &Alert) {
    if alert.status == AlertStatus::New {
        let count = raised.entry((alert.rule_id.clone(), alert.severity)).or_default();
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use distwatch_engine::analysis::Silent;
    use distwatch_engine::event::{Event, EventBody, FlowInfo, LinkChange};
    use distwatch_engine::packet::PacketRef;
    use distwatch_engine::policy::Policy;

    use super::*;
    use crate::http::sample;

    #[test]
    fn links_and_nodes_are_not_copied_and_stay_as_they_were() {
        let mut analysis = Analysis::new(&Policy::default());
        let status = sample::picture().status;
        let link = crate::report::sample::report().links.remove(0);
        for number in 0..10_000_u32 {
            let mut link = link.clone();
            link.flow_id = format!("{number:016x}");
            link.initiator.node = Some(format!("web{number}@host-a"));
            link.initiator.ip = number.to_be_bytes().into();
            see(&mut analysis, link, LinkChange::Handshake);
        }
        let picture = |analysis: &Analysis| {
            let (begun, raised, rules) = (Instant::now(), Raised::new(), Arc::default());
            Picture::of(analysis, analysis.judge.alerts(), (&raised, &rules), status.clone(), Timestamp::EPOCH, begun)
        };
        let (one, two) = (picture(&analysis), picture(&analysis));
        assert!(one.links.len() == 10_000 && one.nodes.len() > 10_000);
        assert!(one.links.iter().zip(&two.links).all(|(one, two)| Arc::ptr_eq(one, two)));
        assert!(one.nodes.iter().zip(&two.nodes).all(|(one, two)| Arc::ptr_eq(one, two)));
        let mut changed = (*one.links[3]).clone();
        changed.gaps = 99;
        see(&mut analysis, changed, LinkChange::Closed);
        let three = picture(&analysis);
        assert_eq!((one.links[3].gaps == 99, three.links[3].gaps), (false, 99));
        eprintln!("{} links, {} findings: {:?}", one.links.len(), one.alerts.len(), one.cost);
    }

    fn see(analysis: &mut Analysis, link: Link, change: LinkChange) {
        let flow = FlowInfo {
            id: link.flow_id.clone(),
            initiator: (link.initiator.ip, link.initiator.port).into(),
            acceptor: (link.acceptor.ip, link.acceptor.port).into(),
            interface: String::new(),
        };
        let body = EventBody::Link { change, link: link.into() };
        let event = Event { time: Timestamp::EPOCH, packet: PacketRef::default(), flow: Some(flow.into()), body };
        analysis.handle_event(&event, &mut Silent);
    }
}
