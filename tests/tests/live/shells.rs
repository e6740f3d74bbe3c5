//! Remote shells, over a network and through a forward on loopback.

use e2e::live::{Lab, Monitors, Node, NodeOptions, Terminal, possible_with};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

#[test]
fn a_remote_erl_shell_over_a_network() {
    live!("erl -remsh");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let db = Node::start(&b, "db", "greenhouse", &NodeOptions::default());
    let line = format!("erl -name oper@10.77.0.1 -hidden -setcookie greenhouse -remsh {}", db.name);
    let mut shell = Terminal::open(&a, &line);
    shell.shows("(db@10.77.0.2)1>");
    shell.types("lists:sum(lists:seq(1, 100)).");
    shell.shows("5050");
    monitors.each(|daemon| {
        let finding = daemon.alert_about("remote-shell", "oper@10.77.0.1");
        assert_eq!(finding["severity"], "critical", "{finding}");
        daemon.alert("hidden-node");
        daemon.hears("the shell", |record| text(&record["activity"], "kind") == "shell");
    });
    monitors.agree();
}

#[test]
fn a_remote_iex_shell_over_a_network() {
    live!("iex --remsh");
    if !possible_with("iex --remsh", &["iex"]) {
        return;
    }
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let server = Terminal::open(&b, "iex --name db@10.77.0.2 --cookie greenhouse");
    server.shows("iex(db@10.77.0.2)1>");
    let line = "iex --name oper@10.77.0.1 --hidden --cookie greenhouse --remsh db@10.77.0.2";
    let mut shell = Terminal::open(&a, line);
    shell.shows("iex(db@10.77.0.2)1>");
    shell.types("Enum.sum(1..100)");
    shell.shows("5050");
    monitors.each(|daemon| {
        let finding = daemon.alert_about("remote-shell", "oper@10.77.0.1");
        assert_eq!(finding["severity"], "critical", "{finding}");
    });
    drop(shell);
    monitors.agree();
}

#[test]
fn a_remote_shell_through_a_forward_is_judged_by_where_it_arrives() {
    live!("a forwarded remote shell");
    let mut lab = Lab::new();
    let b = lab.host("b", 2);
    let monitors = Monitors::start(&b, ISOLATED);
    // As through `ssh -L`: what arrives at the node comes from its own host's loopback.
    let local = NodeOptions { at: Some("127.0.0.1".into()), ..NodeOptions::default() };
    let db = Node::start(&b, "db", "greenhouse", &local);
    let line = format!("erl -name oper@127.0.0.1 -hidden -setcookie greenhouse -remsh {}", db.name);
    let shell = Terminal::open(&b, &line);
    shell.shows("(db@127.0.0.1)1>");
    monitors.each(|daemon| {
        let finding = daemon.alert_about("remote-shell", "oper@127.0.0.1");
        assert_eq!(finding["severity"], "medium", "{finding}");
        // Both ends are on this host, and it is one link all the same.
        let flows: Vec<Value> = daemon.of_kind("link").iter().map(|record| record["flow_id"].clone()).collect();
        assert!(!flows.is_empty() && flows.iter().all(|flow| *flow == flows[0]), "{flows:?}");
    });
    monitors.agree();
}
