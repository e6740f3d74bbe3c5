//! Nodes and links as known so far; the memory that detectors and reports share.

use indexmap::IndexMap;

use crate::model::{Link, Node};

/// Everything that events have said of nodes and links.
#[derive(Debug, Default)]
pub struct Cluster {
    /// By flow id, in order of appearance.
    pub links: IndexMap<String, Link>,
    /// By name, in order of appearance.
    pub nodes: IndexMap<String, Node>,
}
