//! Who a finding is about: the two ends, by name where a name is known, and how they are written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, alive_of, begin_of, host_of};
use crate::event::Event;
use crate::model::{Activity, Confidence, EpmdExchange, Link, Process, ProcessEnd};
use crate::time::Timestamp;

/// How long before an event its connection may have begun, where no link tells: what asks EPMD does so at once. Addresses and
/// ports that come again sooner are those of the same program.
const RECENT: Duration = Duration::from_secs(60);

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The node's full name.
    pub name: Option<String>,
    /// The name was put together, not read.
    pub inferred: bool,
    /// The name before the `@` that EPMD has for the port, where the full one is not known.
    pub registered: Option<String>,
    /// Its address.
    pub ip: IpAddr,
    /// The port that it accepts on; none for the end that calls.
    pub port: Option<u16>,
    /// Its name was given to it for this connection only.
    pub dynamic: bool,
    /// Its process, where it is on this host.
    pub process: Option<Arc<Process>>,
}

impl Party {
    /// An end of which only the address matters.
    #[must_use]
    pub const fn at(ip: IpAddr, port: Option<u16>) -> Self {
        Self { name: None, inferred: false, registered: None, ip, port, dynamic: false, process: None }
    }

    /// Which end of the connection it is.
    #[must_use]
    pub const fn end(&self) -> ProcessEnd {
        if self.port.is_some() { ProcessEnd::Acceptor } else { ProcessEnd::Initiator }
    }

    /// The end in a form that is the same for the same end, also when its next session has another name.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.name {
            Some(name) if self.dynamic => format!("<dynamic>@{}", host_of(name)),
            Some(name) => stable_name(name),
            None => self.address(),
        }
    }

    /// The end with its address, said once: `web@host-a at 10.77.0.1`, or the address alone.
    #[must_use]
    pub fn with_address(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} at {}", self.ip),
            None => self.to_string(),
        }
    }

    fn address(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).to_string(),
            None => self.ip.to_string(),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.registered) {
            (Some(name), _) => f.write_str(name),
            (None, Some(alive)) => write!(f, "{alive} ({})", self.address()),
            (None, None) => f.write_str(&self.address()),
        }
    }
}

/// The two ends, who did it first.
#[derive(Clone, Debug)]
pub struct Parties {
    /// Who called, asked or acted.
    pub from: Party,
    /// Whom.
    pub to: Party,
    /// Where it was seen.
    pub interfaces: Vec<String>,
}

impl Parties {
    /// The ends of a link, initiator first.
    #[must_use]
    pub fn of_link(link: &Link, cluster: &Cluster) -> Self {
        let mut from = Party::at(link.initiator.ip, None);
        from.name.clone_from(&link.initiator.node);
        // Not read on this connection, but on one with the same ends.
        from.inferred = link.resumed && from.name.is_some();
        from.dynamic = link.handshake.dynamic_name;
        let mut to = Party::at(link.acceptor.ip, Some(link.acceptor.port));
        if let Some((name, confidence)) = cluster.acceptor_name(link) {
            to.name = Some(name);
            to.inferred = link.resumed || confidence < Confidence::Certain;
        } else {
            to.registered = cluster.registered_name(to.ip, link.acceptor.port).map(str::to_owned);
        }
        let [initiator, acceptor] = [&link.initiator, &link.acceptor].map(|end| SocketAddr::new(end.ip, end.port));
        let begun = begin_of(link);
        Self { from, to, interfaces: link.interfaces.clone() }.with_processes((initiator, acceptor), begun, cluster)
    }

    /// The ends of an event's connection; of its link, where one is known.
    #[must_use]
    pub fn of_event(event: &Event, cluster: &Cluster) -> Option<Self> {
        let flow = event.flow.as_ref()?;
        if let Some(link) = cluster.link(&flow.id) {
            return Some(Self::of_link(link, cluster));
        }
        let mut to = Party::at(flow.acceptor.ip(), Some(flow.acceptor.port()));
        to.registered = cluster.registered_name(to.ip, flow.acceptor.port()).map(str::to_owned);
        let from = Party::at(flow.initiator.ip(), None);
        let parties = Self { from, to, interfaces: vec![flow.interface.clone()] };
        Some(parties.with_processes((flow.initiator, flow.acceptor), not_long_before(event.time), cluster))
    }

    /// Adds whose the sockets are; the first is the initiator. The connection began at `begun` or later.
    fn with_processes(mut self, ends: (SocketAddr, SocketAddr), begun: Timestamp, cluster: &Cluster) -> Self {
        self.from.process = cluster.process_of(ends, begun, ProcessEnd::Initiator).cloned();
        self.to.process = cluster.process_of(ends, begun, ProcessEnd::Acceptor).cloned();
        self
    }

    /// Who did a remote action to whom.
    #[must_use]
    pub fn of_activity(activity: &Activity, event: &Event, cluster: &Cluster) -> Option<Self> {
        let mut parties = Self::of_event(event, cluster)?;
        if !activity.from_initiator {
            parties = parties.reversed();
        }
        if activity.from_node.is_some() {
            parties.from.name.clone_from(&activity.from_node);
        }
        if activity.to_node.is_some() {
            parties.to.name.clone_from(&activity.to_node);
        }
        Some(parties)
    }

    /// Who asked which EPMD.
    #[must_use]
    pub fn of_epmd(exchange: &EpmdExchange, event: &Event, cluster: &Cluster) -> Self {
        let interfaces = event.flow.iter().map(|flow| flow.interface.clone()).collect();
        let (client, server) = (exchange.client, exchange.server);
        let ends = [client, server].map(|end| SocketAddr::new(end.ip, end.port));
        Self { from: Party::at(client.ip, None), to: Party::at(server.ip, Some(server.port)), interfaces }
            .with_processes(ends.into(), not_long_before(event.time), cluster)
    }

    /// The other way round.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, interfaces: self.interfaces }
    }

    /// The key of a condition between the two.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} -> {}", self.from.key(), self.to.key())
    }

    /// The key that the same condition had before names were known.
    #[must_use]
    pub fn address_key(&self) -> String {
        format!("{} -> {}", self.from.address(), self.to.address())
    }

    /// The key of a condition that has no direction.
    #[must_use]
    pub fn undirected_key(&self) -> String {
        let (a, b) = (self.from.key(), self.to.key());
        if a <= b { format!("{a} <-> {b}") } else { format!("{b} <-> {a}") }
    }

    /// The process that a finding about the two is about: that of the second, else that of the first; and which end it has.
    #[must_use]
    pub fn process(&self) -> Option<(ProcessEnd, Arc<Process>)> {
        [&self.to, &self.from].into_iter().find_map(|party| Some((party.end(), party.process.clone()?)))
    }

    /// `certain`, or `likely` where a name was put together.
    #[must_use]
    pub const fn confidence(&self) -> Confidence {
        if self.from.inferred || self.to.inferred { Confidence::Likely } else { Confidence::Certain }
    }

    /// The names that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.from.name, &self.to.name].into_iter().filter_map(|name| name.as_deref())
    }
}

impl fmt::Display for Parties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// Names that tools make up anew for each call (`docs/protocol.md` §7.7): what stays of them is the beginning.
const TOOL_PREFIXES: [&str; 6] = ["rabbitmqcli-", "rem-", "rpc-", "remsh", "maint", "epmd-starter-"];

/// Whether the name is one that the command line of a known product makes up.
#[must_use]
pub(super) fn is_tool_name(name: &str) -> bool {
    let alive = alive_of(name);
    TOOL_PREFIXES.iter().any(|prefix| {
        let rest = alive.strip_prefix(prefix);
        rest.is_some_and(|rest| prefix.ends_with('-') || rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The name without what changes from call to call: runs of digits in names that tools make up, and of C nodes (`c17`).
fn stable_name(name: &str) -> String {
    let alive = alive_of(name);
    let numbered_c_node =
        alive.strip_prefix('c').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    if !is_tool_name(name) && !numbered_c_node {
        return name.to_owned();
    }
    let mut stable = String::with_capacity(name.len());
    let is_hex_tag = alive.starts_with("rem-") || alive.starts_with("rpc-");
    for (place, c) in alive.char_indices() {
        let varies = c.is_ascii_digit() || (is_hex_tag && (4..8).contains(&place));
        if !varies {
            stable.push(c);
        } else if !stable.ends_with('*') {
            stable.push('*');
        }
    }
    stable + "@" + host_of(name)
}

/// The earliest that the connection of an event can have begun.
fn not_long_before(time: Timestamp) -> Timestamp {
    let recent = i64::try_from(RECENT.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(recent))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, ip};
    use super::*;

    #[test]
    fn names_that_tools_make_up_have_one_key() {
        assert_eq!(stable_name("rabbitmqcli-4711-rabbit@h"), stable_name("rabbitmqcli-12-rabbit@h"));
        assert_eq!(stable_name("rem-0a3f-shop@h"), stable_name("rem-91bc-shop@h"));
        assert_eq!(stable_name("c17@h"), stable_name("c4242@h"));
        assert_ne!(stable_name("web1@h"), stable_name("web2@h"));
        assert_eq!(stable_name("cache@h"), "cache@h");
        assert!(is_tool_name("remsh123@h") && !is_tool_name("remshell@h"));
    }

    #[test]
    fn ends_are_named_by_node_then_by_epmd_then_by_address() {
        let mut party = Party::at(ip("10.0.0.2"), Some(41791));
        assert_eq!(party.to_string(), "10.0.0.2:41791");
        party.registered = Some("db".into());
        assert_eq!(party.to_string(), "db (10.0.0.2:41791)");
        party.name = Some("db@host-b".into());
        assert_eq!(party.to_string(), "db@host-b");
        let mut v6 = Party::at(ip("fd00::2"), Some(4369));
        assert_eq!(v6.to_string(), "[fd00::2]:4369");
        v6.port = None;
        assert_eq!(v6.to_string(), "fd00::2");
    }

    #[test]
    fn inside_tls_the_acceptor_is_named_by_epmd_and_by_the_server_name() {
        let mut cluster = Cluster::default();
        cluster.handle_event(&testing::port_please("10.77.0.1", "10.77.0.2", "db", 46369));
        let mut link = testing::link("f1", ("10.77.0.1", None), ("10.77.0.2", None));
        link.acceptor.port = 46369;
        link.tls = Some(Box::new(testing::tls("1.2")));
        assert_eq!(Parties::of_link(&link, &cluster).to_string(), "10.77.0.1 -> db (10.77.0.2:46369)");
        link.tls.as_mut().unwrap().sni = Some("host-b".into());
        let parties = Parties::of_link(&link, &cluster);
        assert_eq!(parties.to_string(), "10.77.0.1 -> db@host-b");
        assert_eq!(parties.confidence(), Confidence::Likely);
    }
}
