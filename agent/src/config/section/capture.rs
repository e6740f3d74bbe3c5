//! `[capture]`: where the daemon's packets come from.

use super::Plain;
use crate::config::Config;
use crate::config::form::{Bytes, List, Name};
use crate::config::key::key;

pub(super) const SECTION: Plain = Plain {
    name: "capture",
    help: "Where the daemon's packets come from. A change takes a restart.",
    keys: &[
        key!(
            "interfaces",
            List<Name>,
            Config.capture.interfaces,
            "Interfaces by name or pattern, or \"any\" for all of them. Those that appear later are taken up."
        ),
        key!(
            "buffer",
            Bytes<{ 1 << 20 }, { 1 << 30 }>,
            Config.capture.buffer,
            "The kernel's buffer for one interface. What does not fit into it is lost, and counted."
        ),
    ],
};
