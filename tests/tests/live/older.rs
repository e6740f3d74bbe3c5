//! What was up before the daemon came, and nodes that come again.

use e2e::live::{Certificates, Lab, Monitors, Node, NodeOptions, TlsOptions, eventually};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

#[test]
fn connections_older_than_the_daemon_are_judged_too() {
    live!("connections older than the daemon");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let certificates = Certificates::new(lab.folder());
    let tls = TlsOptions { version: "tlsv1.3", mutual: true };
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    let mut safe = Node::start(&b, "safe", "quietforest", &certificates.node("10.77.0.2", tls));
    let mut peer = Node::start(&a, "peer", "quietforest", &certificates.node("10.77.0.1", tls));
    web.join(&db.name);
    peer.join(&safe.name);
    let (clear, hidden) = (web_port(&mut web, "db"), safe.port());

    let monitors = Monitors::start(&b, ISOLATED);
    for _ in 0..3 {
        web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
        peer.ask("rpc:call('safe@10.77.0.2', erlang, node, [])");
    }
    monitors.each(|daemon| {
        let on = |record: &Value, port: u16| record["link"]["acceptor"]["port"].as_u64() == Some(port.into());
        let link = daemon
            .hears("the old link in clear", |record| on(record, clear) && record["link"]["transport"] == "cleartext");
        assert_eq!(link["link"]["mid_stream"], true, "{link}");
        assert_eq!(link["link"]["transport"], "cleartext", "{link}");
        let link =
            daemon.hears("the old link over TLS", |record| on(record, hidden) && record["link"]["transport"] == "tls");
        assert_eq!(link["link"]["mid_stream"], true, "{link}");
        daemon.alert("cleartext-distribution");
        // The atoms that were sent before are not known; that something is done is.
        let flow = daemon.hears("an action on the old link", |record| !record["activity"].is_null())["flow_id"].clone();
        assert!(daemon.of_kind("link").iter().any(|record| record["flow_id"] == flow), "{flow}");
        assert!(!daemon.rules().contains(&"blind-sensor".into()), "{:?}", daemon.rules());
    });
    monitors.agree();
}

/// The port of the first node of this name that EPMD of 10.77.0.2 knows.
fn web_port(node: &mut Node, name: &str) -> u16 {
    let answer = node.ask(&format!("{{port, Port, _}} = erl_epmd:port_please(\"{name}\", {{10,77,0,2}}), Port"));
    answer.parse().expect("a port")
}

#[test]
fn a_node_that_comes_again_is_known_by_its_creation() {
    live!("a node that restarts");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    monitors.each(|daemon| {
        daemon.link("web@10.77.0.1", "db@10.77.0.2", "ok");
    });
    web.kill();
    let mut web =
        eventually("the name is free again", || Some(Node::start(&a, "web", "maplesyrup", &NodeOptions::default())));
    web.join(&db.name);
    monitors.each(|daemon| {
        let finding = daemon.alert_about("node-restarted", "web@10.77.0.1");
        assert_eq!(text(&finding, "severity"), "info");
    });
    web.leave("db@10.77.0.2");
    monitors.agree();
}
