//! Nodes, links, EPMD exchanges and remote actions as known so far; the memory that detectors and reports share.
//!
//! Everything in here is bounded by [`Limits::report_entries`]. What is full makes room by giving up what never got
//! far (attempts before links, closed ones before open ones, old ones before new ones) and counts it.

mod by_name;
mod otp;
mod processes;
mod saved;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::{Equivalent, IndexMap};

use crate::event::{Event, EventBody};
use crate::limits::Limits;
use crate::model::{
    Activity, ActivityKind, Confidence, End, EpmdExchange, EpmdRequest, HandshakeOutcome, Link, Node, Otp, TlsOutcome,
    Transport,
};
use crate::time::Timestamp;

use by_name::ByName;
use processes::Processes;

pub use otp::{Flag, otp_from_flags};
pub use processes::SocketOwner;
pub(crate) use processes::{begin_of, flow_of};

/// Addresses, ports or creations that a node keeps. A real one has a handful; a restart loop has thousands.
const PER_NODE: usize = 64;

/// Part of a full table that makes room at once, so that the search for it is paid once for many entries.
const ROOM: usize = 8;

/// In the order of insertion; the hash is seeded at random, so that nobody can choose keys that collide.
type Table<K, V> = IndexMap<K, V, RandomState>;

/// Everything that events have said.
#[derive(Debug)]
pub struct Cluster {
    entries: usize,
    /// Shared with whoever looks at them elsewhere: a picture of all of them costs a pointer each.
    links: ByName<Link>,
    nodes: ByName<Node>,
    epmd: Vec<EpmdExchange>,
    activity: Table<ActivityKey, Activity>,
    /// What EPMD said: the node name (without host) behind an address and port.
    registered: Table<(IpAddr, u16), String>,
    /// The host part that names of nodes at an address have.
    hosts: Table<IpAddr, String>,
    /// Full names of nodes that were reached at an address and port.
    owners: Table<(IpAddr, u16), String>,
    /// Whose the sockets of this host are.
    processes: Processes,
    limits_reached: BTreeMap<&'static str, u64>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new(&Limits::default())
    }
}

impl Cluster {
    /// An empty one that keeps [`Limits::report_entries`] of each kind.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            entries: limits.report_entries.max(1),
            links: ByName::default(),
            nodes: ByName::default(),
            epmd: Vec::new(),
            activity: Table::default(),
            registered: Table::default(),
            hosts: Table::default(),
            owners: Table::default(),
            processes: Processes::default(),
            limits_reached: BTreeMap::new(),
        }
    }

    /// Takes in one event. Call this before the detectors see it.
    pub fn handle_event(&mut self, event: &Event) {
        match &event.body {
            EventBody::Link { link, .. } => self.handle_link(link, event.time),
            EventBody::Epmd(exchange) => self.handle_epmd(exchange),
            EventBody::Activity(activity) => self.handle_activity(activity),
            _ => {}
        }
    }

    /// Links in the order of their appearance.
    pub fn links(&self) -> impl ExactSizeIterator<Item = &Link> {
        self.links.values().map(Arc::as_ref)
    }

    /// The same, to be kept as they are now.
    pub fn shared_links(&self) -> impl ExactSizeIterator<Item = &Arc<Link>> {
        self.links.values()
    }

    /// The link with this flow id.
    #[must_use]
    pub fn link(&self, flow_id: &str) -> Option<&Link> {
        self.links.get(flow_id)
    }

    /// Nodes in the order of their appearance.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// The same, to be kept as they are now.
    pub fn shared_nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// EPMD exchanges in the order in which they were answered.
    #[must_use]
    pub fn epmd(&self) -> &[EpmdExchange] {
        &self.epmd
    }

    /// Remote actions by (kind, from, to, mfa or target), in the order of their appearance.
    pub fn activity(&self) -> impl ExactSizeIterator<Item = &Activity> {
        self.activity.values()
    }

    /// Limits that were reached here, and how many entries were given up for it.
    #[must_use]
    pub const fn limits_reached(&self) -> &BTreeMap<&'static str, u64> {
        &self.limits_reached
    }

    /// Who accepts distribution at this address and port: the full name where a link told it, else the name before
    /// the `@` that EPMD has for it.
    #[must_use]
    pub fn dist_port_owner(&self, ip: IpAddr, port: u16) -> Option<&str> {
        self.owners.get(&(ip, port)).or_else(|| self.registered.get(&(ip, port))).map(String::as_str)
    }

    /// The name (without host) that EPMD gave for this address and port.
    #[must_use]
    pub fn registered_name(&self, ip: IpAddr, port: u16) -> Option<&str> {
        self.registered.get(&(ip, port)).map(String::as_str)
    }

    /// Whether EPMD was heard to have this name at this address.
    #[must_use]
    pub fn is_registered(&self, ip: IpAddr, alive: &str) -> bool {
        self.registered.iter().any(|((at, _), name)| *at == ip && name == alive)
    }

    /// The full name of the node at an end, where it was read.
    ///
    /// Inside TLS no name can be read. There the acceptor's is put together from what EPMD answered for its port and
    /// from the server name that the client asked for, which is the host part of the node name (`docs/protocol.md`
    /// §8.1); the second value says that it was inferred so.
    #[must_use]
    pub fn acceptor_name(&self, link: &Link) -> Option<(String, Confidence)> {
        let end = &link.acceptor;
        if let Some(name) = &end.node {
            return Some((name.clone(), Confidence::Certain));
        }
        if let Some(name) = self.owners.get(&(end.ip, end.port)) {
            return Some((name.clone(), Confidence::Likely));
        }
        let alive = self.registered.get(&(end.ip, end.port))?;
        let sni = link.tls.as_ref().and_then(|tls| tls.sni.as_deref());
        let host = sni.or_else(|| self.hosts.get(&end.ip).map(String::as_str))?;
        Some((format!("{alive}@{host}"), Confidence::Likely))
    }

    fn handle_link(&mut self, link: &Arc<Link>, time: Timestamp) {
        self.learn_names(link, time);
        if !self.links.contains(&link.flow_id) {
            let given_up = self.links.make_room(self.entries, |link| (reach_of(link), link.last_seen));
            self.count(given_up);
        }
        let ends = link_ends(link);
        if link.closed.is_some() {
            self.processes.close(ends);
        } else if self.processes.is_there() {
            self.processes.open(ends, &link.flow_id, self.entries);
        }
        self.links.put(Arc::clone(link));
    }

    /// Believes a name only where the other side did: the acceptor's when it stands in its challenge, the initiator's when
    /// it went through the cookie check. Anyone can send a name.
    fn learn_names(&mut self, link: &Link, time: Timestamp) {
        let outcome = link.handshake.outcome;
        let through = matches!(outcome, HandshakeOutcome::Ok | HandshakeOutcome::BadCookie | HandshakeOutcome::Unseen);
        let challenged = link.handshake.acceptor_flags.is_some();
        if through {
            self.learn_node(link, true, time);
        }
        if through || challenged {
            self.learn_node(link, false, time);
            let end = &link.acceptor;
            if let Some(name) = &end.node {
                remember(&mut self.owners, self.entries, (end.ip, end.port), name);
            }
        }
        if let Some(sni) = link.tls.as_ref().and_then(|tls| tls.sni.as_deref()) {
            remember(&mut self.hosts, self.entries, link.acceptor.ip, sni);
        }
    }

    fn learn_node(&mut self, link: &Link, initiator: bool, time: Timestamp) {
        let handshake = &link.handshake;
        let (end, flags, creation, build) = if initiator {
            (&link.initiator, handshake.initiator_flags, handshake.initiator_creation, &link.builds.initiator)
        } else {
            (&link.acceptor, handshake.acceptor_flags, handshake.acceptor_creation, &link.builds.acceptor)
        };
        let Some(name) = &end.node else { return };
        if !self.nodes.contains(name) {
            let given_up = self.nodes.make_room(self.entries, |node| (0, node.last_seen));
            self.count(given_up);
            self.nodes.put(Arc::new(new_node(name, time)));
        }
        let mut full = 0;
        if let Some(node) = self.nodes.get_mut(name) {
            node.last_seen = node.last_seen.max(time);
            full += push_new(&mut node.addresses, end.ip);
            if !initiator {
                full += push_new(&mut node.dist_ports, end.port);
                node.dist_ports.sort_unstable();
            }
            if let Some(creation) = creation.filter(|&creation| creation != 0) {
                full += push_new(&mut node.creations, creation);
            }
            // The acceptor answers a request for a name with the same request and without PUBLISHED, whatever
            // it is itself (`docs/protocol.md` §2.7).
            let speaks_for_itself = initiator || !handshake.dynamic_name;
            if let Some(flags) = flags {
                if speaks_for_itself {
                    node.hidden = !Flag::PUBLISHED.is_in(flags);
                }
                let build = (node.otp.build.take(), node.otp.build_confidence);
                node.otp = otp_from_flags(flags);
                (node.otp.build, node.otp.build_confidence) = build;
            }
            if let Some(build) = build {
                node.otp.build = Some(build.name.clone());
                node.otp.build_confidence = Some(build.confidence);
            }
            if initiator {
                let made_up = node.otp.implementation.as_deref() == Some("erl_interface") && is_made_up(&node.name);
                node.dynamic_name |= handshake.dynamic_name || made_up;
            }
        }
        self.count(full);
    }

    fn handle_epmd(&mut self, exchange: &EpmdExchange) {
        if exchange.accepted {
            self.learn_registrations(exchange);
        }
        if self.epmd.len() >= self.entries {
            let room = (self.entries / ROOM).max(1).min(self.epmd.len());
            self.epmd.drain(..room);
            self.count(room as u64);
        }
        self.epmd.push(exchange.clone());
    }

    fn learn_registrations(&mut self, exchange: &EpmdExchange) {
        let ip = exchange.server.ip;
        let named =
            matches!(exchange.request, EpmdRequest::Alive2 | EpmdRequest::PortPlease2) && !exchange.name.is_empty();
        if let Some(node) = exchange.node.as_ref().filter(|_| named) {
            remember(&mut self.registered, self.entries, (ip, node.port), &exchange.name);
        }
        for name in &exchange.names {
            remember(&mut self.registered, self.entries, (ip, name.port), &name.name);
        }
    }

    fn handle_activity(&mut self, activity: &Activity) {
        if activity.kind == ActivityKind::Reply {
            return;
        }
        let key = ActivityRef::of(activity);
        if let Some(known) = self.activity.get_mut(&key) {
            known.count = known.count.saturating_add(activity.count);
            known.last_seen = known.last_seen.max(activity.last_seen);
            known.confidence = known.confidence.max(activity.confidence);
            return;
        }
        // A rare action is worth as much as a frequent one, so the first ones stay and later ones are counted.
        if self.activity.len() >= self.entries {
            self.count(1);
            return;
        }
        self.activity.insert(key.to_owned(), activity.clone());
    }

    fn count(&mut self, given_up: u64) {
        if given_up > 0 {
            let count = self.limits_reached.entry("report_entries").or_default();
            *count = count.saturating_add(given_up);
        }
    }
}

/// How far a connection got: what is given up first when there is no room.
fn reach_of(link: &Link) -> u8 {
    match (is_up(link), link.closed) {
        (true, None) => 3,
        (true, Some(_)) => 2,
        (false, None) => 1,
        (false, Some(_)) => 0,
    }
}

/// Whether a connection got as far as the check of the cookie.
pub(crate) fn is_up(link: &Link) -> bool {
    let tls_up = link.tls.as_ref().is_some_and(|tls| {
        matches!(tls.outcome, TlsOutcome::Ok | TlsOutcome::Established | TlsOutcome::BadCookie | TlsOutcome::Unseen)
    });
    let clear_up = link.transport == Transport::Cleartext
        && matches!(
            link.handshake.outcome,
            HandshakeOutcome::Ok | HandshakeOutcome::Unseen | HandshakeOutcome::BadCookie
        );
    tls_up || clear_up
}

fn link_ends(link: &Link) -> (SocketAddr, SocketAddr) {
    let end = |end: &End| SocketAddr::new(end.ip, end.port);
    (end(&link.initiator), end(&link.acceptor))
}

/// Sets a fact about an address in a bounded table; the oldest half goes when it is full.
fn remember<K: Hash + Eq>(table: &mut Table<K, String>, limit: usize, key: K, name: &str) {
    if let Some(known) = table.get_mut(&key) {
        if known != name {
            *known = name.to_owned();
        }
        return;
    }
    if table.len() >= limit {
        table.drain(..table.len().div_ceil(2));
    }
    table.insert(key, name.to_owned());
}

/// Appends what is not there yet; returns 1 where there is no room.
fn push_new<T: PartialEq>(list: &mut Vec<T>, value: T) -> u64 {
    if list.contains(&value) {
        return 0;
    }
    if list.len() >= PER_NODE {
        return 1;
    }
    if list.is_empty() {
        // Most have one for ever, and a list makes room for four.
        list.reserve_exact(1);
    }
    list.push(value);
    0
}

fn new_node(name: &str, time: Timestamp) -> Node {
    Node {
        name: name.to_owned(),
        addresses: Vec::new(),
        dist_ports: Vec::new(),
        creations: Vec::new(),
        hidden: false,
        dynamic_name: false,
        otp: Otp::default(),
        first_seen: time,
        last_seen: time,
    }
}

/// Whether `erl_call` made the name up from its process id (`c17@host`), for the one connection.
fn is_made_up(name: &str) -> bool {
    let digits = alive_of(name).strip_prefix('c').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The host part of a node name.
#[must_use]
pub fn host_of(name: &str) -> &str {
    name.split_once('@').map_or("", |(_, host)| host)
}

/// The part of a node name before the `@`.
#[must_use]
pub fn alive_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(alive, _)| alive)
}

/// An end in words: its name, else its address.
#[must_use]
pub fn name_or_address(end: &End) -> String {
    end.node.clone().unwrap_or_else(|| end.ip.to_string())
}

/// What actions are told apart by.
#[derive(Debug, PartialEq, Eq)]
struct ActivityKey {
    kind: ActivityKind,
    from: Option<String>,
    to: Option<String>,
    mfa: Option<String>,
    target: Option<String>,
}

/// The same, borrowed, so that counting a known action allocates nothing.
#[derive(PartialEq, Eq)]
struct ActivityRef<'a> {
    kind: ActivityKind,
    from: Option<&'a str>,
    to: Option<&'a str>,
    mfa: Option<&'a str>,
    target: Option<&'a str>,
}

impl<'a> ActivityRef<'a> {
    fn of(activity: &'a Activity) -> Self {
        // The contract tells actions apart by "mfa or target": a target beside an mfa is only a detail.
        let target = if activity.mfa.is_some() { None } else { activity.target.as_deref() };
        Self {
            kind: activity.kind,
            from: activity.from_node.as_deref(),
            to: activity.to_node.as_deref(),
            mfa: activity.mfa.as_deref(),
            target,
        }
    }

    fn to_owned(&self) -> ActivityKey {
        ActivityKey {
            kind: self.kind,
            from: self.from.map(str::to_owned),
            to: self.to.map(str::to_owned),
            mfa: self.mfa.map(str::to_owned),
            target: self.target.map(str::to_owned),
        }
    }
}

impl ActivityKey {
    fn borrowed(&self) -> ActivityRef<'_> {
        ActivityRef {
            kind: self.kind,
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            mfa: self.mfa.as_deref(),
            target: self.target.as_deref(),
        }
    }
}

impl Hash for ActivityRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.from, self.to, self.mfa, self.target).hash(state);
    }
}

impl Hash for ActivityKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl Equivalent<ActivityKey> for ActivityRef<'_> {
    fn equivalent(&self, key: &ActivityKey) -> bool {
        *self == key.borrowed()
    }
}

#[cfg(test)]
mod tests;
