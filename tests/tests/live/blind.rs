//! A monitor that sees nothing of what it should says so.

use std::time::Duration;

use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

/// Nodes that have nothing to say tick every 15 s, and what the kernel counted of that is waited for one look longer. Without the
/// kernel's counters it takes longer than two nodes may be silent, which is more than this.
const TAKES: Duration = Duration::from_secs(75);

#[test]
fn a_monitor_that_looks_the_wrong_way_says_that_it_is_blind() {
    live!("a blind monitor");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let elsewhere = lab.bare_host("elsewhere");
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    // One watches a part of the host in which nothing runs, the other an interface over which nothing passes.
    let daemons = [
        Watch::cgroup(&b, elsewhere.cgroup()).policy(ISOLATED).start(),
        Watch::new(&b, BackEnd::Pcap).words(&["--interface", "lo"]).policy(ISOLATED).start(),
    ];
    for _ in 0..5 {
        web.ask("rpc:call('db@10.77.0.2', erlang, node, [])");
    }
    for daemon in daemons {
        let is_blind = |record: &Value| text(&record["alert"], "rule_id") == "blind-sensor";
        let (record, _) = daemon.within(TAKES, "its blindness", is_blind);
        assert_eq!(text(&record["alert"], "severity"), "high", "{record}");
        assert!(daemon.of_kind("link").is_empty(), "it is blind indeed");
        daemon.stop();
    }
}
