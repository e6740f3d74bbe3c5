//! A picture made by hand, for tests.

use std::sync::Arc;
use std::time::Duration;

use distwatch_engine::model::{AlertStatus, Severity, Stats};
use distwatch_engine::time::Timestamp;

use crate::daemon::picture::Picture;
use crate::daemon::status::{Capture, Cluster, Records, Status};
use crate::privilege::Sandbox;
use crate::report::sample;
use crate::sink::SinkStatus;

/// Two nodes, their link, and findings about it.
pub(crate) fn picture() -> Picture {
    let report = sample::report();
    let status = Status {
        state: "capturing".into(),
        version: "0.1.0".into(),
        pid: 7,
        started: sample::at(0),
        uptime_seconds: 20,
        clock_step_seconds: 0,
        reloads: 0,
        sandbox: Sandbox { off: true, ..Sandbox::default() }.apply().unwrap(),
        capture: Capture {
            back_end: "ebpf".into(),
            attachments: vec!["cgroup_skb at /sys/fs/cgroup".into()],
            seen: 1000,
            seen_bytes: 100_000,
            handed: 900,
            handed_bytes: 90_000,
            uninteresting: 43,
            counted: 50,
            refused: 0,
            lost: [("ring".to_owned(), 7)].into(),
            lost_bytes: [("ring".to_owned(), 7000)].into(),
            cut_bytes: 3,
            shortfalls: [].into(),
            decisions_refused: 0,
        },
        output: Records { written: 10, dropped: 0, unkept: 0, state_failures: 0 },
        sinks: vec![SinkStatus {
            name: "loki".into(),
            kind: "loki",
            queued: 3,
            spool_bytes: 900,
            records: [("sent", 8), ("refused", 0)].into(),
            last_success: Some(Timestamp::from_parts(1_795_406_330, 0)),
            last_error: None,
            failing_since: None,
        }],
        http: None,
        cluster: Cluster { nodes: 2, links: [("cleartext".to_owned(), 1)].into(), findings: [].into() },
        stats: Stats {
            packets: 900,
            bytes: 90_000,
            gaps: 1,
            decode_errors: [("dist".to_owned(), 2)].into(),
            ..Stats::default()
        },
    };
    let mut alerts = report.alerts;
    alerts.sort_by_key(|alert| std::cmp::Reverse(alert.severity));
    let mut clear = alerts.iter_mut().filter(|alert| alert.rule_id == "cleartext-distribution");
    clear.next_back().unwrap().status = AlertStatus::Resolved;
    Picture {
        time: sample::at(20),
        cost: Duration::ZERO,
        status,
        open_flows: 12,
        nodes: report.nodes.into_iter().take(2).map(Into::into).collect(),
        links: report.links.into_iter().map(Into::into).collect(),
        alerts,
        raised: [(("cleartext-distribution".to_owned(), Severity::High), 3)].into(),
        rules: Arc::default(),
    }
}
