//! Links in clear and over TLS, where they may be and where not.

use e2e::live::{Certificates, Lab, Monitors, Node, NodeOptions, TlsOptions};
use e2e::text;
use serde_json::Value;

use crate::{ISOLATED, live};

#[test]
fn a_link_in_clear_is_seen_with_its_handshake_and_what_is_done_on_it() {
    live!("links in clear");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    web.ask("rpc:call('db@10.77.0.2', erlang, node, [])");
    web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
    monitors.each(|daemon| {
        let link = daemon.link("web@10.77.0.1", "db@10.77.0.2", "ok");
        assert_eq!(link["transport"], "cleartext", "{link}");
        assert_eq!(link["mid_stream"], false, "{link}");
        let finding = daemon.alert("cleartext-distribution");
        assert_eq!(finding["severity"], "high", "the network is isolated: {finding}");
        daemon.alert_about("remote-command", "web@10.77.0.1 -> db@10.77.0.2");
        daemon.hears("the call of os:cmd/1", |record| {
            text(&record["activity"], "mfa") == "os:cmd/1" && text(&record["activity"], "from_node") == "web@10.77.0.1"
        });
    });
    web.leave("db@10.77.0.2");
    monitors.each(|daemon| {
        daemon.hears("the end of the link", |record| !record["link"]["closed"].is_null());
    });
    let picture = monitors.agree();
    assert!(picture.nodes.contains("db@10.77.0.2"), "{picture:#?}");
}

#[test]
fn tls_is_read_as_far_as_it_shows_itself() {
    live!("links over TLS");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let certificates = Certificates::new(lab.folder());
    let monitors = Monitors::start(&b, ISOLATED);
    // The ports tell one from the other: who is behind a TLS link cannot be read.
    let cases = [("tlsv1.2", true), ("tlsv1.2", false), ("tlsv1.3", true), ("tlsv1.3", false)];
    for (number, (version, mutual)) in cases.into_iter().enumerate() {
        let tls = TlsOptions { version, mutual };
        let port = 9200 + number;
        let mut options = certificates.node("10.77.0.2", tls);
        options.flags.extend(listen(port));
        let db = Node::start(&b, &format!("db{number}"), "quietforest", &options);
        let mut web = Node::start(&a, &format!("web{number}"), "quietforest", &certificates.node("10.77.0.1", tls));
        web.join(&db.name);
        web.ask(&format!("rpc:call('{}', os, cmd, [\"id\"])", db.name));
        web.leave(&db.name);
    }
    monitors.each(|daemon| {
        for (number, (version, mutual)) in cases.into_iter().enumerate() {
            let found = daemon.hears(&format!("the end of a link over {version}"), |record| {
                on_port(record, 9200 + number) && !record["link"]["closed"].is_null()
            });
            let link = &found["link"];
            assert_eq!(link["transport"], "tls", "{link}");
            assert_eq!(text(&link["tls"], "version"), version.trim_start_matches("tlsv"), "{link}");
            assert_eq!(text(&link["tls"], "mutual_auth"), if mutual { "yes" } else { "no" }, "{link}");
        }
        assert_eq!(daemon.alert("tls-without-client-certificate")["severity"], "high");
        let rules = daemon.rules();
        assert!(!rules.iter().any(|rule| rule.starts_with("cleartext")), "{rules:?}");
        assert!(!rules.iter().any(|rule| rule.starts_with("remote")), "{rules:?}");
    });
    monitors.agree();
}

#[test]
fn a_link_that_comes_over_a_network_that_is_not_isolated_is_exposed() {
    live!("an exposed link");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    lab.cable([(&a, "wan0", "192.0.2.1/24"), (&b, "wan0", "192.0.2.2/24")]);
    let monitors = Monitors::start(&b, ISOLATED);
    let at = |address: &str| NodeOptions { at: Some(address.into()), ..NodeOptions::default() };
    let mut web = Node::start(&a, "web", "maplesyrup", &at("192.0.2.1"));
    let db = Node::start(&b, "db", "maplesyrup", &at("192.0.2.2"));
    web.join(&db.name);
    monitors.each(|daemon| {
        let link = daemon.link("web@192.0.2.1", "db@192.0.2.2", "ok");
        assert_eq!(link["interfaces"], serde_json::json!(["wan0"]), "{link}");
        assert_eq!(daemon.alert("distribution-exposed")["severity"], "critical");
        assert_eq!(daemon.alert("epmd-exposed")["severity"], "high");
        daemon.hears("a critical finding about clear text", |record| {
            let finding = &record["alert"];
            text(finding, "rule_id") == "cleartext-distribution" && text(finding, "severity") == "critical"
        });
    });
    web.stop();
    db.stop();
    monitors.agree();
}

#[test]
fn a_node_on_an_unforeseen_port_without_epmd_is_known_by_what_it_says() {
    live!("a node without EPMD");
    let mut lab = Lab::new();
    let (a, b) = (lab.bare_host("a"), lab.bare_host("b"));
    lab.plug(&a, "eth0", "10.77.0.1/24");
    lab.plug(&b, "eth0", "10.77.0.2/24");
    let monitors = Monitors::start(&b, ISOLATED);
    // With a fixed port and no EPMD on either side, as releases in containers run.
    let options = NodeOptions::flags(&["-start_epmd", "false", "-erl_epmd_port", "31234"]);
    let mut db = Node::start(&b, "db", "maplesyrup", &options);
    let mut web = Node::start(&a, "web", "maplesyrup", &options);
    web.join(&db.name);
    assert_eq!(db.ask("length(nodes(connected))"), "1");
    monitors.each(|daemon| {
        let link = daemon.link("web@10.77.0.1", "db@10.77.0.2", "ok");
        assert_eq!(link["acceptor"]["port"], 31234, "{link}");
        daemon.alert("cleartext-distribution");
        assert!(daemon.of_kind("epmd").is_empty(), "nobody asked an EPMD");
    });
    web.leave("db@10.77.0.2");
    monitors.agree();
}

#[test]
fn a_container_of_the_host_is_watched_by_the_host() {
    live!("a container");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    // A namespace of its own behind the host, as a container engine makes it, and routed there.
    let container = lab.container("c", &b);
    lab.cable([(&b, "vc0", "172.20.0.1/24"), (&container, "eth0", "172.20.0.2/24")]);
    container.ip(&["route", "add", "default", "via", "172.20.0.1"]);
    a.ip(&["route", "add", "172.20.0.0/24", "via", "10.77.0.2"]);
    assert!(b.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).status().expect("sh").success());
    container.start_epmd();
    let policy = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\", \"172.20.0.0/24\"]\n";
    let monitors = Monitors::start(&b, policy);
    let db = Node::start(&container, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    web.ask("rpc:call('db@172.20.0.2', os, cmd, [\"id\"])");
    monitors.each(|daemon| {
        daemon.link("web@10.77.0.1", "db@172.20.0.2", "ok");
        daemon.alert("remote-command");
    });
    web.leave("db@172.20.0.2");
    // A connection that is seen on several interfaces is one link.
    monitors.each(|daemon| {
        daemon.hears("the end of the link", |record| !record["link"]["closed"].is_null());
        let links = daemon.of_kind("link");
        let first = text(&links[0], "flow_id");
        assert!(links.iter().all(|record| text(record, "flow_id") == first), "{links:#?}");
    });
}

/// Words for a node that listens on one port.
fn listen(port: usize) -> [String; 5] {
    let port = port.to_string();
    ["-kernel", "inet_dist_listen_min", &port, "inet_dist_listen_max", &port].map(str::to_owned)
}

fn on_port(record: &Value, port: usize) -> bool {
    record["link"]["acceptor"]["port"].as_u64() == Some(port as u64)
}
