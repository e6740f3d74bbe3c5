//! A policy that changes under load, and one that is wrong.

use e2e::live::{Lab, Monitors, Node, NodeOptions, eventually};
use e2e::text;

use crate::{ISOLATED, live};

#[test]
fn a_policy_changes_under_load_and_a_wrong_one_changes_nothing() {
    live!("policy reload");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    db.ask("load:serve()");
    web.ask("load:call('db@10.77.0.2', 4)");
    monitors.each(|daemon| {
        daemon.link("web@10.77.0.1", "db@10.77.0.2", "ok");
        // What is wrong is told with its place, and the policy in force stays.
        daemon.reload("[network]\nisolated = [\"lo\"]\n\n[tls]\nrequird = true\n");
        eventually("the mistake is told", || daemon.log().contains("requird").then_some(()));
        let log = daemon.log();
        assert!(log.contains("5:1") || log.contains("line 5"), "line and column: {log}");
        assert!(!daemon.rules().contains(&"distribution-exposed".into()), "{:?}", daemon.rules());
        // Without the network, the same link is exposed.
        daemon.reload("[network]\nisolated = [\"lo\"]\n");
        eventually("the new policy is in force", || (daemon.status()["reloads"] == 1).then_some(()));
    });
    web.ask("net_kernel:disconnect('db@10.77.0.2')");
    eventually("the nodes are joined again", || web.connect("db@10.77.0.2").then_some(()));
    monitors.each(|daemon| {
        daemon.alert("distribution-exposed");
        let lost = daemon.of_kind("alert").iter().any(|record| text(&record["alert"], "rule_id") == "capture-loss");
        assert!(!lost, "a reload loses nothing");
    });
    web.ask("load:stop(0)");
    web.stop();
    db.stop();
    monitors.agree();
}
