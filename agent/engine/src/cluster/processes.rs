//! Whose the sockets of this host are, as far as the host told; the memory from which links and findings take it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Cluster, Table, link_ends};
use crate::event::FlowInfo;
use crate::model::{Link, Process, ProcessEnd, SocketProcess};
use crate::time::Timestamp;

/// A socket of this host, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's; none for one that listens.
    pub remote: Option<SocketAddr>,
    /// Its network namespace, by inode; 0 where that is not told.
    pub namespace: u32,
    /// When it was so: a connection with the same ends that began later is another one.
    pub seen: Timestamp,
    /// The process.
    pub process: Arc<Process>,
    /// Nobody could look: it is the only process that it may be. What is known is not replaced by that.
    pub is_guess: bool,
}

/// Who has a socket.
#[derive(Debug)]
struct Owner {
    namespace: u32,
    seen: Timestamp,
    process: Arc<Process>,
}

/// Who has the sockets with the same ends. Network namespaces each have a loopback of their own, so that there can be two.
#[derive(Debug)]
struct Owners {
    last: Owner,
    /// Who has the one in another namespace.
    other: Option<Box<Owner>>,
}

/// Sockets by their ends.
#[derive(Debug, Default)]
pub(super) struct Processes {
    owners: Table<(SocketAddr, Option<SocketAddr>), Owners>,
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
        if let Some(owners) = self.processes.owners.get_mut(&key) {
            return owners.learn(seen);
        }
        let given_up = make_room(&mut self.processes.owners, self.entries);
        if given_up > 0 {
            *self.limits_reached.entry("socket_processes").or_default() += given_up;
        }
        self.processes.owners.insert(key, Owners { last: Owner::of(seen), other: None });
        if first {
            let open = self.links.values().filter(|link| link.closed.is_none());
            let open: Vec<_> = open.map(|link| (link_ends(link), link.flow_id.clone())).collect();
            open.into_iter().for_each(|(ends, id)| self.processes.open(ends, &id, self.entries));
        }
        true
    }

    /// The process behind an end of a connection that began at `begun` or later, where it is on this host: by the connection
    /// itself, else by the listener that accepted it. What was so before is of an earlier connection with the same ends.
    #[must_use]
    pub fn process_of(
        &self,
        (initiator, acceptor): (SocketAddr, SocketAddr),
        begun: Timestamp,
        end: ProcessEnd,
    ) -> Option<&Arc<Process>> {
        if !self.processes.is_there() {
            return None;
        }
        let of_connection = |local, remote| self.processes.owners.get(&(local, Some(remote)))?.since(begun);
        match end {
            ProcessEnd::Initiator => of_connection(initiator, acceptor),
            ProcessEnd::Acceptor => of_connection(acceptor, initiator)
                .or_else(|| self.process_of((initiator, acceptor), begun, ProcessEnd::Listener)),
            ProcessEnd::Listener => self.listener(acceptor).map(|(_, process)| process),
        }
    }

    /// The socket that listens for connections to an address, and its process.
    fn listener(&self, at: SocketAddr) -> Option<(SocketAddr, &Arc<Process>)> {
        let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // A socket of both families listens on the IPv6 address for all.
        let everywhere = [any, Ipv6Addr::UNSPECIFIED.into()].map(|ip| SocketAddr::new(ip, at.port()));
        std::iter::once(at)
            .chain(everywhere)
            .find_map(|at| Some((at, &self.processes.owners.get(&(at, None))?.last.process)))
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
        let is_its = |link: &&Link| link.closed.is_none() && begin_of(link) <= seen.seen;
        let find = |ends| self.link(self.processes.links.get(&ends)?).filter(is_its);
        let initiated = find((seen.local, remote)).map(|link| (link, ProcessEnd::Initiator));
        initiated.or_else(|| Some((find((remote, seen.local))?, ProcessEnd::Acceptor)))
    }

    /// The processes behind a link, as they are told of.
    pub(crate) fn processes_of_link(&self, link: &Link) -> impl Iterator<Item = SocketProcess> + '_ {
        let (ends, begun) = (link_ends(link), begin_of(link));
        [ProcessEnd::Initiator, ProcessEnd::Acceptor].into_iter().filter_map(move |end| {
            let process = self.process_of(ends, begun, end)?;
            let at = if end == ProcessEnd::Initiator { ends.0 } else { ends.1 };
            Some(SocketProcess::new(end, at, process))
        })
    }
}

impl Owner {
    fn of(seen: &SocketOwner) -> Self {
        Self { namespace: seen.namespace, seen: seen.seen, process: Arc::clone(&seen.process) }
    }

    /// Whether it is one of the sockets of that namespace, as far as namespaces are told.
    const fn is_in(&self, namespace: u32) -> bool {
        self.namespace == namespace || self.namespace == 0 || namespace == 0
    }
}

impl Owners {
    /// Takes in who has a socket. Returns whether that is news.
    fn learn(&mut self, seen: &SocketOwner) -> bool {
        let known = if self.last.is_in(seen.namespace) {
            Some(&mut self.last)
        } else {
            self.other.as_deref_mut().filter(|other| other.is_in(seen.namespace))
        };
        let Some(known) = known else {
            let last = std::mem::replace(&mut self.last, Owner::of(seen));
            self.other = Some(Box::new(last));
            return true;
        };
        if seen.seen < known.seen {
            return false;
        }
        if known.process == seen.process {
            known.seen = seen.seen;
            return false;
        }
        if seen.is_guess {
            return false;
        }
        *known = Owner::of(seen);
        true
    }

    /// The one of a connection that began then, if it can only be one.
    fn since(&self, begun: Timestamp) -> Option<&Arc<Process>> {
        let mut all = std::iter::once(&self.last).chain(self.other.as_deref()).filter(|owner| owner.seen >= begun);
        let one = all.next()?;
        all.all(|other| other.process.pid == one.process.pid).then_some(&one.process)
    }
}

/// When a link began; of one that was met in its middle nobody knows.
pub(crate) fn begin_of(link: &Link) -> Timestamp {
    if link.mid_stream { Timestamp::EPOCH } else { link.opened }
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
        SocketOwner {
            local: at(local),
            remote: remote.map(at),
            namespace: 0,
            seen: Timestamp::EPOCH,
            process: Arc::new(process),
            is_guess: false,
        }
    }

    #[test]
    fn the_connection_itself_says_more_than_its_listener() {
        let mut cluster = Cluster::default();
        let (from, to) = (at("10.0.0.1:40000"), at("10.0.0.2:9100"));
        let pid =
            |cluster: &Cluster, end| cluster.process_of((from, to), Timestamp::EPOCH, end).map(|process| process.pid);
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
        let ends = (at("10.0.0.1:99"), at("10.0.0.2:9100"));
        assert!(cluster.process_of(ends, Timestamp::EPOCH, ProcessEnd::Initiator).is_some());
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_parts(second, 0)
    }

    #[test]
    fn the_process_of_an_earlier_connection_with_the_same_ends_is_not_that_of_the_next() {
        let mut cluster = Cluster::default();
        let ends = (at("10.0.0.1:40000"), at("10.0.0.2:9100"));
        let pid = |cluster: &Cluster, begun| {
            cluster.process_of(ends, second(begun), ProcessEnd::Initiator).map(|process| process.pid)
        };
        let own = |pid, seen| SocketOwner { seen: second(seen), ..owner("10.0.0.1:40000", Some("10.0.0.2:9100"), pid) };
        assert!(cluster.learn_process(&own(7, 100)));
        assert_eq!((pid(&cluster, 99), pid(&cluster, 200)), (Some(7), None));
        assert!(cluster.learn_process(&own(8, 201)));
        assert_eq!(pid(&cluster, 200), Some(8));
        assert!(!cluster.learn_process(&own(7, 100)), "what was looked up late is no news");
        assert_eq!(pid(&cluster, 200), Some(8));
        assert!(!cluster.learn_process(&own(8, 300)), "nor is that it is still so, but it is known");
        assert_eq!(pid(&cluster, 299), Some(8));
    }

    #[test]
    fn equal_ends_in_two_network_namespaces_are_told_apart_by_time_or_not_at_all() {
        let mut cluster = Cluster::default();
        let ends = (at("127.0.0.1:40000"), at("127.0.0.1:9100"));
        let pid = |cluster: &Cluster, begun| {
            cluster.process_of(ends, second(begun), ProcessEnd::Initiator).map(|process| process.pid)
        };
        let own = |namespace, pid, seen| SocketOwner {
            namespace,
            seen: second(seen),
            ..owner("127.0.0.1:40000", Some("127.0.0.1:9100"), pid)
        };
        cluster.learn_process(&own(1, 7, 100));
        cluster.learn_process(&own(2, 8, 200));
        assert_eq!((pid(&cluster, 50), pid(&cluster, 150)), (None, Some(8)));
        cluster.learn_process(&own(1, 7, 300));
        assert_eq!((pid(&cluster, 150), pid(&cluster, 250)), (None, Some(7)));
        cluster.learn_process(&own(2, 9, 400));
        assert_eq!(pid(&cluster, 350), Some(9));
    }
}
