//! `[limits]`: how much memory and patience the analysis has.

use super::Plain;
use crate::config::Config;
use crate::config::form::{Bytes, Time, Whole};
use crate::config::key::key;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The bounds keep a slip of the pen from switching the analysis off, or its memory from having an end.
pub(super) const SECTION: Plain = Plain {
    name: "limits",
    help: "Limits of memory and time. All are in force always; where one is reached, it is counted and shown. \
           Memory takes octets or \"64 MiB\", times take \"250ms\", \"3s\", \"2m\", \"1h\".",
    keys: &[
        key!(
            "flow_memory",
            Bytes<MIB, { 1 << 40 }>,
            Config.policy.limits.flow_memory,
            "Memory for connections and for what is buffered of them. At the limit connections without payload go \
             first, distribution links last."
        ),
        key!(
            "reorder_bytes",
            Bytes<{ 64 << 10 }, { 4 << 30 }>,
            Config.policy.limits.reorder_bytes,
            "How much of one direction may wait behind missing octets before these are given up as a gap."
        ),
        key!(
            "reorder_segments",
            Whole<usize, 16, 1_000_000>,
            Config.policy.limits.reorder_segments,
            "How many segments of one direction may wait behind missing octets."
        ),
        key!(
            "reorder_wait",
            Time<10, HOUR>,
            Config.policy.limits.reorder_wait,
            "How long missing octets are waited for."
        ),
        key!(
            "idle_link",
            Time<SECOND, { 30 * DAY }>,
            Config.policy.limits.idle_link,
            "How long a distribution link may be silent before it counts as ended. A node with the default \
             net_ticktime is given up after 75 s at the latest; a longer one wants more here."
        ),
        key!(
            "idle_flow",
            Time<SECOND, { 30 * DAY }>,
            Config.policy.limits.idle_flow,
            "How long any other connection may be silent before it is forgotten."
        ),
        key!(
            "handshake",
            Time<SECOND, HOUR>,
            Config.policy.limits.handshake,
            "How long a handshake may take before it counts as stalled; net_setuptime is 7 s unless set."
        ),
        key!(
            "report_entries",
            Whole<usize, 1, 10_000_000>,
            Config.policy.limits.report_entries,
            "Links, nodes and EPMD exchanges that a report keeps of each kind; those that never got far go first."
        ),
        key!(
            "actions_per_link",
            Whole<usize, 1, 1_000_000>,
            Config.policy.limits.actions_per_link,
            "Different remote actions that one link keeps apart; further ones are counted together."
        ),
        key!(
            "findings",
            Whole<usize, 1, 10_000_000>,
            Config.policy.limits.findings,
            "Different findings that are kept; further ones are counted."
        ),
        key!(
            "open_fragments",
            Whole<usize, 1, 100_000>,
            Config.policy.limits.open_fragments,
            "Fragmented messages that one direction may have open at a time."
        ),
        key!(
            "term_depth",
            Whole<usize, 16, 10_000>,
            Config.policy.limits.term_depth,
            "How deep terms may be nested. Real messages stay below 30."
        ),
    ],
};
