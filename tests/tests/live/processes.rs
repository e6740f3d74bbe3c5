//! Which process stands behind a listener, a link and a finding: of nodes that were there before the daemon, of nodes that came
//! after it, and of those in containers.

use e2e::live::{BackEnd, Daemon, Lab, Node, NodeOptions, Watch};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

const CONTAINER: &str = "4f1d2b0c7e8a9f3d5c6b1a2e3f4d5c6b7a8f9e0d1c2b3a4f5e6d7c8b9a0f1e2d";

/// What the kernel calls the node's process.
fn pid(node: &mut Node) -> u64 {
    node.ask("list_to_integer(os:getpid())").parse().expect("a number")
}

/// The first record of the process behind an end, waited for.
fn process(daemon: &Daemon, end: &str, pid: u64) -> Value {
    let what = format!("process {pid} as {end}");
    daemon.hears(&what, |record| {
        let process = &record["process"];
        text(process, "end") == end && process["pid"].as_u64() == Some(pid)
    })
}

/// The last word on a finding, once it has its process.
fn about(daemon: &Daemon, rule: &str, subject: &str, pid: u64) -> Value {
    let what = format!("{rule} about {subject} with process {pid}");
    daemon.hears(&what, |record| {
        let alert = &record["alert"];
        text(alert, "rule_id") == rule
            && text(alert, "subject").contains(subject)
            && alert["process"]["pid"].as_u64() == Some(pid)
    })["alert"]
        .clone()
}

#[test]
fn links_and_findings_have_the_process_of_nodes_from_before_the_daemon_and_after() {
    live!("processes");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let mut db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    let daemons = BackEnd::ALL.map(|back_end| Watch::new(&b, back_end).policy(ISOLATED).start());
    web.join(&db.name);
    web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
    let db_pid = pid(&mut db);
    for daemon in &daemons {
        let listener = process(daemon, "listener", db_pid);
        assert!(text(&listener["process"], "exe").ends_with("/beam.smp"), "{listener}");
        assert_eq!(text(&listener["process"], "node"), "db@10.77.0.2", "{listener}");
        assert_eq!(text(&listener["process"], "user"), "root", "{listener}");
        let acceptor = process(daemon, "acceptor", db_pid);
        assert_eq!(acceptor["dest_port"], acceptor["process"]["port"], "{acceptor}");
        let command = about(daemon, "remote-command", "db@10.77.0.2", db_pid);
        assert_eq!((text(&command, "status"), text(&command, "process_end")), ("new", "acceptor"), "{command}");
        about(daemon, "cleartext-distribution", "web@10.77.0.1 -> db@10.77.0.2", db_pid);
    }
    // One that comes later is known by what the kernel says of its sockets.
    let [daemon, _] = &daemons;
    let mut late = Node::start(&b, "late", "maplesyrup", &NodeOptions::default());
    let late_pid = pid(&mut late);
    let listener = process(daemon, "listener", late_pid);
    assert!(text(&listener["process"], "exe").ends_with("/beam.smp"), "{listener}");
    assert_eq!(text(&listener["process"], "node"), "late@10.77.0.2", "{listener}");
    web.join(&late.name);
    web.ask("rpc:call('late@10.77.0.2', os, cmd, [\"id\"])");
    let command = about(daemon, "remote-command", "late@10.77.0.2", late_pid);
    assert_eq!(text(&command, "status"), "new", "its listener was known: {command}");
    late.join(&db.name);
    process(daemon, "initiator", late_pid);
    let link = daemon.link("late@10.77.0.2", "db@10.77.0.2", "ok");
    assert_eq!(link["mid_stream"], false, "{link}");
    for daemon in daemons {
        daemon.stop();
    }
}

#[test]
fn what_runs_in_a_unit_or_a_container_is_told_with_it() {
    live!("processes in units and containers");
    let mut lab = Lab::new();
    let b = lab.host("b", 2);
    let service = lab.container("shop.service", &b);
    let docker = lab.container(&format!("docker-{CONTAINER}.scope"), &b);
    lab.plug(&service, "eth0", "10.77.0.21/24");
    lab.plug(&docker, "eth0", "10.77.0.22/24");
    service.start_epmd();
    docker.start_epmd();
    let daemon = Watch::new(&b, BackEnd::Ebpf).policy(ISOLATED).start();
    let mut shop = Node::start(&service, "shop", "maplesyrup", &NodeOptions::default());
    let mut boxed = Node::start(&docker, "boxed", "maplesyrup", &NodeOptions::default());
    let (shop_pid, boxed_pid) = (pid(&mut shop), pid(&mut boxed));
    shop.join(&boxed.name);
    let initiator = process(&daemon, "initiator", shop_pid);
    assert_eq!(initiator["process"]["unit"], "shop.service", "{initiator}");
    assert_eq!(initiator["process"]["container"], Value::Null, "{initiator}");
    let acceptor = process(&daemon, "acceptor", boxed_pid);
    assert_eq!(acceptor["process"]["container"], CONTAINER, "{acceptor}");
    assert_eq!(acceptor["process"]["user"], "0", "another's names are not this host's: {acceptor}");
    shop.ask("rpc:call('boxed@10.77.0.22', os, cmd, [\"id\"])");
    let command = about(&daemon, "remote-command", "boxed@10.77.0.22", boxed_pid);
    assert_eq!(command["process"]["container"], CONTAINER, "{command}");
    daemon.stop();
}
