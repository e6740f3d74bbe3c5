//! `[daemon]`: what the daemon does beside capturing.

use super::Plain;
use crate::config::Config;
use crate::config::form::{Maybe, Name, PathName, Time};
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "daemon",
    help: "What the daemon does beside capturing. A change takes a restart.",
    keys: &[
        key!(
            "socket",
            PathName,
            Config.daemon.socket,
            "The socket where `distwatch status` asks. Its folder is made if it is not there."
        ),
        key!(
            "state_dir",
            PathName,
            Config.daemon.state_dir,
            "The folder of what is kept over a restart: findings, so that one that goes on is not new again, and where nodes listen. It is \
             made if it is not there."
        ),
        key!("host", Maybe<Name>, Config.daemon.host, "The name of this host in records.")
            .example(r#""sensor-1""#)
            .unset("the host's own name"),
        key!(
            "stats_interval",
            Time<1000, 86_400_000>,
            Config.daemon.stats_interval,
            "How often a record of all counters is written."
        ),
    ],
};
