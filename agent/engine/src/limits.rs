//! Every limit in one place, each with its reason. Reaching one is counted under its name and shown.

use std::time::Duration;

/// Limits that the policy can set. All of them are in force always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory for connections and what is buffered for them, in bytes. At the limit the least valuable goes first:
    /// connections without payload, then unclassified ones, then what is buffered behind holes; a distribution link goes last.
    pub flow_memory: usize,
    /// Octets that one direction may have waiting behind a hole. Beyond it the hole is skipped and reported as a gap.
    pub reorder_bytes: usize,
    /// Segments that one direction may have waiting behind a hole.
    pub reorder_segments: usize,
    /// How long a hole is waited for.
    pub reorder_wait: Duration,
    /// How long an established connection may be silent before it counts as ended. Longer than the 75 s after which
    /// a node of the default `net_ticktime` is given up, and than the 120 s to which `net_setuptime` is capped.
    pub idle_link: Duration,
    /// How long any other connection may be silent.
    pub idle_flow: Duration,
    /// How long a handshake may take: `net_setuptime` is 7 s unless set.
    pub handshake: Duration,
    /// Links, nodes and EPMD exchanges that the report keeps; those that never got far go first.
    pub report_entries: usize,
    /// Different remote actions that one link keeps apart; further ones are counted under one heading.
    pub actions_per_link: usize,
    /// Different findings; further ones are counted.
    pub findings: usize,
    /// Fragmented messages that one direction may have open. Real nodes have one for each process that is sending a big one.
    pub open_fragments: usize,
    /// Nesting of terms. Real messages stay below 30; a node accepts a million.
    pub term_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flow_memory: 64 << 20,
            reorder_bytes: 4 << 20,
            reorder_segments: 4096,
            reorder_wait: Duration::from_secs(3),
            idle_link: Duration::from_secs(180),
            idle_flow: Duration::from_secs(120),
            handshake: Duration::from_secs(7),
            report_entries: 20_000,
            actions_per_link: 1024,
            findings: 10_000,
            open_fragments: 512,
            term_depth: 256,
        }
    }
}
