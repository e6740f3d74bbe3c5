//! What the cluster hands to the next run, and takes from an earlier one: nodes and names.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Cluster, PER_NODE, new_node, otp_from_flags, remember};
use crate::model::{Link, Node};
use crate::saved::{Saved, SavedLink, SavedNode};
use crate::time::Timestamp;

impl Cluster {
    /// Adds nodes and names.
    pub fn save(&self, saved: &mut Saved) {
        let node = |node: &Arc<Node>| SavedNode {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            dist_ports: node.dist_ports.clone(),
            creations: node.creations.clone(),
            hidden: node.hidden,
            dynamic_name: node.dynamic_name,
            flags: node.otp.flags,
            first_seen: node.first_seen,
            last_seen: node.last_seen,
        };
        saved.nodes = self.nodes.values().map(node).collect();
        saved.registered = self.registered.iter().map(|(&at, name)| (at.into(), name.clone())).collect();
        saved.owners = self.owners.iter().map(|(&at, name)| (at.into(), name.clone())).collect();
        saved.hosts = self.hosts.iter().map(|(&at, name)| (at, name.clone())).collect();
    }

    /// A link as the next run would know it again, without what it was reported for.
    #[must_use]
    pub fn save_link(&self, link: &Link, now: Timestamp) -> SavedLink {
        let [initiator, acceptor] = [&link.initiator, &link.acceptor].map(|end| SocketAddr::new(end.ip, end.port));
        let handshake = &link.handshake;
        let inferred = if link.acceptor.node.is_none() { self.acceptor_name(link) } else { None };
        SavedLink {
            nodes: [link.initiator.node.clone(), link.acceptor.node.clone()],
            inferred: inferred.map(|(name, _)| name),
            flags: [handshake.initiator_flags, handshake.acceptor_flags],
            creations: [handshake.initiator_creation, handshake.acceptor_creation],
            dynamic_name: handshake.dynamic_name,
            ..SavedLink::at_ends(initiator, acceptor, now)
        }
    }

    /// Takes in nodes and names, as far as there is room; before the first event.
    pub fn restore(&mut self, saved: &Saved) {
        for node in saved.nodes.iter().take(self.entries) {
            self.nodes.put(Arc::new(restored(node)));
        }
        let limit = self.entries;
        let inferred = saved.links.iter().filter_map(|link| Some((link.acceptor, link.inferred.as_ref()?)));
        for (at, name) in saved.owners.iter().map(|(at, name)| (*at, name)).chain(inferred) {
            remember(&mut self.owners, limit, (at.ip(), at.port()), name);
        }
        for (at, name) in &saved.registered {
            remember(&mut self.registered, limit, (at.ip(), at.port()), name);
        }
        for (at, name) in &saved.hosts {
            remember(&mut self.hosts, limit, *at, name);
        }
    }
}

fn restored(saved: &SavedNode) -> Node {
    Node {
        addresses: saved.addresses.iter().copied().take(PER_NODE).collect(),
        dist_ports: saved.dist_ports.iter().copied().take(PER_NODE).collect(),
        creations: saved.creations.iter().copied().take(PER_NODE).collect(),
        hidden: saved.hidden,
        dynamic_name: saved.dynamic_name,
        otp: saved.flags.map(otp_from_flags).unwrap_or_default(),
        last_seen: saved.last_seen,
        ..new_node(&saved.name, saved.first_seen)
    }
}
