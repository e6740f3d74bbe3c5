//! Interfaces that come later, and one that comes and goes.

use std::time::Duration;

use e2e::live::flaps::{self, Flapped};
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

/// Both networks are isolated, so that the links alone are at stake.
const POLICY: &str = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\", \"192.0.2.0/24\"]\n";

/// How often the interface goes and comes. `DISTWATCH_FLAPS` asks for another number.
const FLAPS: usize = 10;

#[test]
fn an_interface_that_flaps_costs_nothing_but_what_passed_meanwhile() {
    live!("an interface that flaps", "bpftool");
    let times = std::env::var("DISTWATCH_FLAPS").ok().and_then(|times| times.parse().ok()).unwrap_or(FLAPS);
    let (all, _) = flaps::flap(times, POLICY);
    for flapped in &all {
        let Flapped { what, lost, unaccounted, missing, unseen, slowest, backwards, .. } = flapped;
        assert_eq!((*lost, *unaccounted, *missing, *unseen), (0, 0, 0, 0), "{what}: {flapped:?}");
        assert!(backwards.is_empty() && flapped.grown().is_empty(), "{what}: {flapped:?}");
        assert!(*slowest < Duration::from_secs(1), "{what}: {slowest:?} until it was watched");
    }
    assert_eq!(all.len(), 4);
}
