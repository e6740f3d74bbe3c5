//! What the capture thread knows at one moment, for those who show it: made by copying pointers, so that it takes the thread
//! little time, and looked at elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distwatch_engine::analysis::Analysis;
use distwatch_engine::model::{Alert, AlertStatus, Link, Node, Severity};
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
}

/// How many findings were new, by rule and severity.
pub type Raised = BTreeMap<(String, Severity), u64>;

impl Picture {
    /// What is known now.
    pub(super) fn of(analysis: &Analysis, raised: &Raised, status: Status, time: Timestamp, begun: Instant) -> Self {
        let mut picture = Self {
            time,
            cost: Duration::ZERO,
            status,
            open_flows: analysis.engine.open_flows(),
            nodes: analysis.cluster.shared_nodes().cloned().collect(),
            links: analysis.cluster.shared_links().cloned().collect(),
            alerts: analysis.judge.alerts(),
            raised: raised.clone(),
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
