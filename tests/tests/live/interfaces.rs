//! Interfaces that come later, and one that comes and goes.

use std::time::{Duration, Instant};

use e2e::live::{Lab, Monitors, Node, NodeOptions};

use crate::{ISOLATED, live};

#[test]
fn an_interface_that_appears_later_is_watched() {
    live!("an interface that appears later");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    lab.cable([(&a, "late0", "192.0.2.1/24"), (&b, "late0", "192.0.2.2/24")]);
    let at = |address: &str| NodeOptions { at: Some(address.into()), ..NodeOptions::default() };
    let db = Node::start(&b, "db", "maplesyrup", &at("192.0.2.2"));
    let mut web = Node::start(&a, "web", "maplesyrup", &at("192.0.2.1"));
    web.join(&db.name);
    web.ask("rpc:call('db@192.0.2.2', os, cmd, [\"id\"])");
    monitors.each(|daemon| {
        daemon.alert("remote-command");
        daemon.alert("distribution-exposed");
    });
}

/// How often the interface goes and comes.
const FLAPS: u32 = 10;

#[test]
fn an_interface_that_flaps_costs_nothing_but_what_passed_meanwhile() {
    live!("an interface that flaps");
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let monitors = Monitors::start(&b, ISOLATED);
    let mut before = Vec::new();
    monitors.each(|daemon| drop(daemon.status()));
    for daemon in monitors.all() {
        before.push(daemon.open_files());
    }
    for flap in 0..FLAPS {
        if flap % 2 == 0 {
            lab.cable([(&a, "flap0", "192.0.2.1/24"), (&b, "flap0", "192.0.2.2/24")]);
            b.ip(&["link", "del", "flap0"]);
        } else {
            b.ip(&["link", "set", "eth0", "down"]);
            b.ip(&["link", "set", "eth0", "mtu", "1400"]);
            b.ip(&["link", "set", "eth0", "up"]);
        }
    }
    let up = Instant::now();
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
    monitors.each(|daemon| {
        daemon.alert("remote-command");
    });
    assert!(up.elapsed() < Duration::from_secs(30));
    for (daemon, before) in monitors.all().iter().zip(before) {
        let after = daemon.open_files();
        assert!(after <= before + 2, "{}: {before} open files became {after}", daemon.back_end().name());
    }
}
