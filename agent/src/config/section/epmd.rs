//! `[epmd]`: where the port mapper listens.

use super::Plain;
use crate::config::Config;
use crate::config::form::PortList;
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "epmd",
    help: "The Erlang port mapper.",
    keys: &[key!(
        "ports",
        PortList,
        Config.policy.epmd_ports,
        "Its ports: what ERL_EPMD_PORT or `epmd -port` says. The list replaces the default."
    )],
};
