//! `[metrics]`: what `/metrics` tells beyond the counts.

use super::Plain;
use crate::config::Config;
use crate::config::form::Switch;
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "metrics",
    help: "What /metrics tells. A change takes a restart.",
    keys: &[key!(
        "per_link",
        Switch,
        Config.metrics.per_link,
        "A series for each open link, with the names and addresses of its ends, for the first 500. Names that others choose become \
         labels by this, so switch it on only where the cluster is small."
    )],
};
