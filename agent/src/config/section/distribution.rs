//! `[distribution]`: where nodes listen.

use super::Plain;
use crate::config::Config;
use crate::config::form::PortList;
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "distribution",
    help: "The connections between nodes.",
    keys: &[key!(
        "ports",
        PortList,
        Config.policy.distribution_ports,
        "Ports and ranges of ports that nodes listen on, in addition to those that EPMD's answers, the sockets and \
         the traffic itself tell."
    )
    .example(r#"["9100-9155", 25672]"#)],
};
