//! `[network]`: where what may run.

use super::Plain;
use crate::config::Config;
use crate::config::form::{Maybe, PlaceList};
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "network",
    help: "Where distribution, EPMD and remote shells may be seen. Interfaces take globs; addresses and networks \
           stand beside them in the same list. An interface counts only where the capture knows its name.",
    keys: &[
        key!(
            "isolated",
            Maybe<PlaceList>,
            Config.policy.isolated,
            "Where only members of the cluster can be: distribution and EPMD may be there, and on loopback always."
        )
        .example(r#"["cluster0", "10.77.0.0/24"]"#)
        .unset("loopback only; private addresses lower an exposure by one step"),
        key!(
            "tunnels",
            PlaceList,
            Config.policy.tunnels,
            "Where a remote shell may come from: SSH tunnels and VPNs, besides loopback."
        )
        .example(r#"["wg0", "tailscale*"]"#),
    ],
};
