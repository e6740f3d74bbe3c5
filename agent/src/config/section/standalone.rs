//! `[standalone]`: nodes that must have no peer.

use super::Plain;
use crate::config::Config;
use crate::config::form::Globs;
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "standalone",
    help: "Nodes that belong to no cluster.",
    keys: &[key!(
        "nodes",
        Globs,
        Config.policy.standalone,
        "Node names (globs) that must not be reachable off loopback, nor have a peer."
    )
    .example(r#"["cron@*"]"#)],
};
