//! What an analysis hands to the next run of the program, in a form that can be written to disk and read by a later version.
//!
//! Everything in here is bounded by the limits of the tables that it comes from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use crate::detect::{Fact, SavedFinding};
use crate::time::Timestamp;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Findings: open ones, and those that have ended and are still known.
    pub findings: Vec<SavedFinding>,
    /// Open links.
    pub links: Vec<SavedLink>,
    /// Nodes.
    pub nodes: Vec<SavedNode>,
    /// The name (without host) that EPMD gave for an address and port.
    pub registered: Vec<(SocketAddr, String)>,
    /// The full name of the node that accepts there.
    pub owners: Vec<(SocketAddr, String)>,
    /// The host part of names at an address.
    pub hosts: Vec<(IpAddr, String)>,
    /// What single rules remember.
    pub facts: Vec<Fact>,
    /// Where EPMD was learned to listen.
    pub epmd: Vec<SocketAddr>,
    /// Where distribution was learned to listen.
    pub distribution: Vec<SocketAddr>,
}

impl Saved {
    /// Takes in what later words say of findings and links: the last one on each holds.
    pub fn overlay(&mut self, later: Vec<Self>) {
        let (mut findings, mut links) = (BTreeMap::new(), BTreeMap::new());
        let own = (std::mem::take(&mut self.findings), std::mem::take(&mut self.links));
        for (newer, newer_links) in std::iter::once(own).chain(later.into_iter().map(|one| (one.findings, one.links))) {
            for finding in newer {
                let (rule, key) = finding.id();
                findings.insert((rule.to_owned(), key.to_owned()), finding);
            }
            links.extend(newer_links.into_iter().map(|link| ((link.initiator, link.acceptor), link)));
        }
        self.findings = findings.into_values().collect();
        self.links = links.into_values().collect();
    }
}

/// An open link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLink {
    /// The TCP client.
    pub initiator: SocketAddr,
    /// The TCP server.
    pub acceptor: SocketAddr,
    /// The names that were read, the initiator's first like everything that is of both.
    pub nodes: [Option<String>; 2],
    /// The acceptor's name where it was put together and not read.
    pub inferred: Option<String>,
    /// Capability flags.
    pub flags: [Option<u64>; 2],
    /// Creations.
    pub creations: [Option<u32>; 2],
    /// The initiator asked for its name.
    pub dynamic_name: bool,
    /// When it was last known to be open.
    #[serde(with = "nanos")]
    pub seen: Timestamp,
    /// What it was reported for.
    pub findings: Vec<SavedHold>,
}

/// That a connection was reported for a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHold {
    /// The finding's rule.
    pub rule: String,
    /// The finding's key.
    pub key: String,
    /// The finding lasts as long as the connection.
    pub lasts: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the node that is printed")]
pub struct SavedNode {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub dist_ports: Vec<u16>,
    pub creations: Vec<u32>,
    pub hidden: bool,
    pub dynamic_name: bool,
    pub flags: Option<u64>,
    #[serde(with = "nanos")]
    pub first_seen: Timestamp,
    #[serde(with = "nanos")]
    pub last_seen: Timestamp,
}

impl SavedLink {
    /// One of which only the ends are known.
    #[must_use]
    pub const fn at_ends(initiator: SocketAddr, acceptor: SocketAddr, seen: Timestamp) -> Self {
        Self {
            initiator,
            acceptor,
            nodes: [None, None],
            inferred: None,
            flags: [None, None],
            creations: [None, None],
            dynamic_name: false,
            seen,
            findings: Vec::new(),
        }
    }
}

/// Points in time as nanoseconds since the epoch.
pub(crate) mod nanos {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::time::Timestamp;

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        time.as_nanos().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_nanos)
    }
}
