//! Whose the sockets of this host are, as far as the host told; the memory from which links and findings take it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Cluster, Table, link_ends};
use crate::event::FlowInfo;
use crate::model::{Link, Process, ProcessEnd, SocketProcess};

/// A socket of this host, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's; none for one that listens.
    pub remote: Option<SocketAddr>,
    /// The process.
    pub process: Arc<Process>,
    /// Nobody could look: it is the only process that it may be. What is known is not replaced by that.
    pub is_guess: bool,
}

/// Sockets by their ends.
#[derive(Debug, Default)]
pub(super) struct Processes {
    owners: Table<(SocketAddr, Option<SocketAddr>), Arc<Process>>,
    /// Open links by their ends, the initiator first.
    links: Table<(SocketAddr, SocketAddr), String>,
    /// Listeners that were told of, and with which process.
    told: Table<SocketAddr, u32>,
}

impl Processes {
    /// Whether the host told of any process: a capture file never does.
    pub(super) fn is_there(&self) -> bool {
        !self.owners.is_empty()
    }

    pub(super) fn open(&mut self, ends: (SocketAddr, SocketAddr), flow_id: &str, limit: usize) {
        if self.links.get(&ends).is_some_and(|known| known == flow_id) {
            return;
        }
        make_room(&mut self.links, limit);
        self.links.insert(ends, flow_id.to_owned());
    }

    pub(super) fn close(&mut self, ends: (SocketAddr, SocketAddr)) {
        self.links.swap_remove(&ends);
    }
}

impl Cluster {
    /// Takes in whose a socket is. Returns whether that is news.
    pub fn learn_process(&mut self, seen: &SocketOwner) -> bool {
        let first = !self.processes.is_there();
        let key = (seen.local, seen.remote);
        if self.processes.owners.get(&key) == Some(&seen.process) {
            return false;
        }
        let is_known = self.processes.owners.contains_key(&key);
        if is_known && seen.is_guess {
            return false;
        }
        if !is_known {
            let given_up = make_room(&mut self.processes.owners, self.entries);
            if given_up > 0 {
                *self.limits_reached.entry("socket_processes").or_default() += given_up;
            }
        }
        self.processes.owners.insert(key, Arc::clone(&seen.process));
        if first {
            let open = self.links.values().filter(|link| link.closed.is_none());
            let open: Vec<_> = open.map(|link| (link_ends(link), link.flow_id.clone())).collect();
            open.into_iter().for_each(|(ends, id)| self.processes.open(ends, &id, self.entries));
        }
        true
    }

    /// The process behind an end of a connection, where it is on this host: by the connection itself, else by the listener
    /// that accepted it.
    #[must_use]
    pub fn process_of(&self, initiator: SocketAddr, acceptor: SocketAddr, end: ProcessEnd) -> Option<&Arc<Process>> {
        if !self.processes.is_there() {
            return None;
        }
        let owners = &self.processes.owners;
        match end {
            ProcessEnd::Initiator => owners.get(&(initiator, Some(acceptor))),
            ProcessEnd::Acceptor => owners
                .get(&(acceptor, Some(initiator)))
                .or_else(|| self.process_of(initiator, acceptor, ProcessEnd::Listener)),
            ProcessEnd::Listener => self.listener(acceptor).map(|(_, process)| process),
        }
    }

    /// The socket that listens for connections to an address, and its process.
    fn listener(&self, at: SocketAddr) -> Option<(SocketAddr, &Arc<Process>)> {
        let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // A socket of both families listens on the IPv6 address for all.
        let everywhere = [any, Ipv6Addr::UNSPECIFIED.into()].map(|ip| SocketAddr::new(ip, at.port()));
        std::iter::once(at).chain(everywhere).find_map(|at| Some((at, self.processes.owners.get(&(at, None))?)))
    }

    /// The process that listens for connections to an address, if it has not been told of yet.
    pub(crate) fn untold_listener(&mut self, at: SocketAddr) -> Option<SocketProcess> {
        let (at, process) = self.listener(at)?;
        let told = SocketProcess::new(ProcessEnd::Listener, at, process);
        let table = &mut self.processes.told;
        make_room(table, self.entries);
        (table.insert(at, told.process.pid) != Some(told.process.pid)).then_some(told)
    }

    /// The open link that a socket belongs to, and which of its ends it is.
    pub(crate) fn link_of_socket(&self, seen: &SocketOwner) -> Option<(&Link, ProcessEnd)> {
        let remote = seen.remote?;
        let find = |ends| self.link(self.processes.links.get(&ends)?).filter(|link| link.closed.is_none());
        let initiated = find((seen.local, remote)).map(|link| (link, ProcessEnd::Initiator));
        initiated.or_else(|| Some((find((remote, seen.local))?, ProcessEnd::Acceptor)))
    }

    /// The processes behind a link, as they are told of.
    pub(crate) fn processes_of_link(&self, link: &Link) -> impl Iterator<Item = SocketProcess> + '_ {
        let ends = link_ends(link);
        [ProcessEnd::Initiator, ProcessEnd::Acceptor].into_iter().filter_map(move |end| {
            let process = self.process_of(ends.0, ends.1, end)?;
            let at = if end == ProcessEnd::Initiator { ends.0 } else { ends.1 };
            Some(SocketProcess::new(end, at, process))
        })
    }
}

impl SocketProcess {
    pub(crate) fn new(end: ProcessEnd, at: SocketAddr, process: &Process) -> Self {
        Self { end, ip: at.ip(), port: at.port(), process: process.clone() }
    }
}

/// The connection of a link, as events name it.
pub(crate) fn flow_of(link: &Link) -> Arc<FlowInfo> {
    let (initiator, acceptor) = link_ends(link);
    let interface = link.interfaces.first().cloned().unwrap_or_default();
    Arc::new(FlowInfo { id: link.flow_id.clone(), initiator, acceptor, interface })
}

/// Where the table is full, the older half goes. Returns how many went.
fn make_room<K: std::hash::Hash + Eq, V>(table: &mut Table<K, V>, limit: usize) -> u64 {
    if table.len() < limit {
        return 0;
    }
    let half = table.len().div_ceil(2);
    table.drain(..half);
    half as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn owner(local: &str, remote: Option<&str>, pid: u32) -> SocketOwner {
        let process = Process { pid, exe: None, user: None, unit: None, container: None, node: None };
        SocketOwner { local: at(local), remote: remote.map(at), process: Arc::new(process), is_guess: false }
    }

    #[test]
    fn the_connection_itself_says_more_than_its_listener() {
        let mut cluster = Cluster::default();
        let (from, to) = (at("10.0.0.1:40000"), at("10.0.0.2:9100"));
        let pid = |cluster: &Cluster, end| cluster.process_of(from, to, end).map(|process| process.pid);
        assert_eq!(pid(&cluster, ProcessEnd::Acceptor), None);
        assert!(cluster.learn_process(&owner("[::]:9100", None, 1)));
        assert!(!cluster.learn_process(&owner("[::]:9100", None, 1)));
        assert_eq!((pid(&cluster, ProcessEnd::Acceptor), pid(&cluster, ProcessEnd::Initiator)), (Some(1), None));
        cluster.learn_process(&owner("0.0.0.0:9100", None, 2));
        assert_eq!(pid(&cluster, ProcessEnd::Acceptor), Some(2));
        cluster.learn_process(&owner("10.0.0.2:9100", Some("10.0.0.1:40000"), 3));
        cluster.learn_process(&owner("10.0.0.1:40000", Some("10.0.0.2:9100"), 4));
        assert_eq!((pid(&cluster, ProcessEnd::Acceptor), pid(&cluster, ProcessEnd::Initiator)), (Some(3), Some(4)));
        assert!(cluster.learn_process(&owner("0.0.0.0:9100", None, 5)), "another process listens there now");
    }

    #[test]
    fn sockets_beyond_the_limit_push_out_older_ones_and_are_counted() {
        let mut cluster = Cluster::new(&Limits { report_entries: 16, ..Limits::default() });
        for port in 1..100 {
            cluster.learn_process(&owner(&format!("10.0.0.1:{port}"), Some("10.0.0.2:9100"), 7));
            assert!(cluster.processes.owners.len() <= 16);
        }
        assert!(cluster.limits_reached()["socket_processes"] > 70);
        assert!(cluster.process_of(at("10.0.0.1:99"), at("10.0.0.2:9100"), ProcessEnd::Initiator).is_some());
    }
}
