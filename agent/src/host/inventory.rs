//! Erlang nodes and port mappers of this host, their listeners and connections, as one picture that is brought up to date.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distwatch_engine::event::Expected;
use distwatch_engine::model::Process;
use distwatch_engine::policy::Ports;

use super::cgroup::Groups;
use super::epmd::Registered;
use super::process::{self, Identity, Inspected, Kind};
use super::sockets::{self, TcpSocket, TcpState};
use crate::clocks::monotonic;

/// How much one scan may cost, and where it looks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `/proc` is mounted.
    pub proc: PathBuf,
    /// The ports that EPMD may have.
    pub epmd_ports: Ports,
    /// Processes that one scan looks at; the next scan goes on from there. Ten microseconds each, a hundred the first time.
    pub processes: usize,
    /// Descriptors that one scan reads to find out whose a socket is. One microsecond each.
    pub descriptors: usize,
    /// Other network namespaces that one scan reads.
    pub namespaces: usize,
}

impl Default for Options {
    /// 50 ms at most for the processes of a large host, 0.2 s for the descriptors of nodes with many connections.
    fn default() -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            epmd_ports: Ports(vec![(4369, 4369)]),
            processes: 5000,
            descriptors: 200_000,
            namespaces: 256,
        }
    }
}

/// What listens on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The port mapper.
    Epmd,
    /// Distribution of a node.
    Distribution,
    /// A socket of a node that may be its distribution, or any server in it.
    Candidate,
}

impl Role {
    /// What is to be expected on its connections; nothing of a candidate.
    #[must_use]
    pub const fn expected(self) -> Option<Expected> {
        match self {
            Self::Epmd => Some(Expected::Epmd),
            Self::Distribution => Some(Expected::Distribution),
            Self::Candidate => None,
        }
    }
}

/// How a role is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The process is EPMD.
    IsEpmd,
    /// The port is one of EPMD's, and nothing else is known to hold it (systemd may, for it).
    EpmdPort,
    /// EPMD says so.
    Registered,
    /// The command line says so.
    CommandLine,
    /// The node is registered with EPMD, and has no other listener.
    OnlyListener,
    /// A process of a node holds it.
    HeldByNode,
}

/// A listening socket of an Erlang node or a port mapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub at: SocketAddr,
    /// What for.
    pub role: Role,
    /// How that is known.
    pub why: Why,
    /// The process, where it is known.
    pub process: Option<Arc<Process>>,
    /// Nobody could look at the process: it is the only one of its user that it may be.
    pub is_guess: bool,
    /// Distribution of it runs over TLS by its command line.
    pub tls: bool,
    /// Its network namespace, by inode; none for a host that does not tell.
    pub namespace: Option<u64>,
}

/// An established connection from or to a listener of this host, or of one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// What the listener is that one of both ends belongs to; none where a node of this host connected to somewhere else, and
    /// not to EPMD.
    pub role: Option<Role>,
    /// Whether this end is the listener's.
    pub accepted: bool,
    /// The process of this end, where it is known.
    pub process: Option<Arc<Process>>,
    /// Nobody could look at that process: it is the only one of its user that it may be.
    pub is_guess: bool,
    /// Its network namespace.
    pub namespace: Option<u64>,
    /// The socket's cookie; 0 where it is not known.
    pub cookie: u64,
    /// Octets that passed on it so far, where that is told.
    pub octets: Option<u64>,
}

/// What a scan could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Processes that were not looked at in this scan.
    pub processes: usize,
    /// Network namespaces that were not read.
    pub namespaces: usize,
    /// Descriptors were not read, because there are too many or because it is forbidden: sockets may have no process.
    pub descriptors: bool,
    /// Processes whose descriptors may not be read (CAP_SYS_PTRACE).
    pub forbidden: usize,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Listeners, by address.
    pub listeners: Vec<Listener>,
    /// Connections.
    pub connections: Vec<Connection>,
    /// All nodes and port mappers, also those without a socket.
    pub processes: Vec<Arc<Process>>,
    /// When the look began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub begun: u64,
    /// The namespace that the others are seen from.
    pub own_namespace: Option<u64>,
    /// Other network namespaces that were read.
    pub other_namespaces: usize,
    /// What is missing.
    pub left_out: LeftOut,
}

/// A process that was looked at, and how it is printed.
#[derive(Debug)]
struct Known {
    identity: Identity,
    inspected: Inspected,
    printed: Arc<Process>,
}

/// Finds out, and remembers what need not be found out again.
#[derive(Debug)]
pub struct Inventory {
    options: Options,
    host: String,
    known: BTreeMap<u32, Known>,
    /// Where the next scan begins to look at processes.
    next: u32,
    /// Whose a socket is; none for one that is known to be no node's.
    owners: HashMap<u64, Option<u32>>,
    users: BTreeMap<u32, Option<String>>,
    registered: BTreeSet<(u16, String)>,
    groups: Groups,
}

impl Inventory {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            options,
            host: host.split('.').next().unwrap_or_default().to_owned(),
            known: BTreeMap::new(),
            next: 0,
            owners: HashMap::new(),
            users: BTreeMap::new(),
            registered: BTreeSet::new(),
            groups: Groups::default(),
        }
    }

    /// What an EPMD of this network namespace says, which [`super::epmd::names`] asks it for.
    pub fn learn_registered(&mut self, names: impl IntoIterator<Item = Registered>) {
        self.registered = names.into_iter().map(|(name, port)| (port, name)).collect();
    }

    /// Looks at what is there now.
    ///
    /// # Errors
    /// There is no `/proc`, and netlink gives no sockets either.
    pub fn scan(&mut self) -> io::Result<Snapshot> {
        let begun = monotonic();
        let mut left_out = LeftOut { processes: self.look_at_processes()?, ..LeftOut::default() };
        let own = process::own_namespace(&self.options.proc);
        let mut spaces = vec![(own, sockets::own()?)];
        let others = self.other_namespaces(own);
        left_out.namespaces = others.len().saturating_sub(self.options.namespaces);
        for (namespace, pid) in others.into_iter().take(self.options.namespaces) {
            // One that ended meanwhile is no loss: the namespace has another process, or none, at the next scan.
            if let Ok(sockets) = sockets::of_process(&self.options.proc, pid) {
                spaces.push((Some(namespace), sockets));
            }
        }
        self.find_owners(spaces.iter().flat_map(|(_, sockets)| sockets), &mut left_out);

        let mut snapshot = Snapshot {
            processes: self.known.values().filter(|known| is_ours(known)).map(|known| known.printed.clone()).collect(),
            begun,
            own_namespace: own,
            other_namespaces: spaces.len() - 1,
            left_out,
            ..Snapshot::default()
        };
        for (namespace, sockets) in &spaces {
            self.describe(*namespace, *namespace == own, sockets, &mut snapshot);
        }
        snapshot.listeners.sort_by_key(|listener| (listener.namespace, listener.at));
        Ok(snapshot)
    }

    /// Brings the processes up to date, as many as one scan may. Returns how many were left for the next one.
    fn look_at_processes(&mut self) -> io::Result<usize> {
        let mut pids: Vec<u32> = std::fs::read_dir(&self.options.proc)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        let alive: HashSet<u32> = pids.iter().copied().collect();
        self.known.retain(|pid, _| alive.contains(pid));
        let begin = pids.partition_point(|&pid| pid < self.next);
        pids.rotate_left(begin);
        let left = pids.len().saturating_sub(self.options.processes);
        self.next = if left > 0 { pids[self.options.processes] } else { 0 };
        for &pid in pids.iter().take(self.options.processes) {
            let Ok(identity) = process::identity(&self.options.proc, pid) else {
                self.known.remove(&pid);
                continue;
            };
            self.know(pid, identity);
        }
        Ok(left)
    }

    /// A process that is this one, looked at if it has not been yet.
    pub(super) fn know(&mut self, pid: u32, identity: Identity) -> Option<Arc<Process>> {
        if let Some(known) = self.known.get(&pid).filter(|known| known.identity == identity) {
            return Some(Arc::clone(&known.printed));
        }
        let Ok(inspected) = process::inspect(&self.options.proc, pid, &identity.name) else {
            self.known.remove(&pid);
            return None;
        };
        let printed = Arc::new(self.print(&inspected));
        self.known.insert(pid, Known { identity, inspected, printed: Arc::clone(&printed) });
        Some(printed)
    }

    /// Where `/proc` is.
    pub(super) fn proc(&self) -> &Path {
        &self.options.proc
    }

    /// Cgroups by their ids.
    pub(super) const fn groups(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// The name of a user of this host.
    pub(super) fn user(&mut self, uid: u32) -> Option<String> {
        self.users.entry(uid).or_insert_with(|| process::user_name(uid)).clone()
    }

    fn print(&mut self, inspected: &Inspected) -> Process {
        let uid = inspected.uid;
        // In a container a number may have another name than here.
        let user = match inspected.container {
            Some(_) => None,
            None => self.user(uid),
        };
        let host = inspected.container.is_none().then_some(self.host.as_str());
        Process {
            pid: inspected.pid,
            exe: inspected.exe.clone(),
            user: Some(user.unwrap_or_else(|| uid.to_string())),
            unit: inspected.unit.clone(),
            container: inspected.container.clone(),
            node: match &inspected.kind {
                Kind::Beam(arguments) => arguments.node(host),
                _ => None,
            },
        }
    }

    /// Other network namespaces with a node or a port mapper in them, each with one process of it.
    fn other_namespaces(&self, own: Option<u64>) -> BTreeMap<u64, u32> {
        let ours = self.known.values().filter(|known| is_ours(known) && known.inspected.kind != Kind::Init);
        let mut others = BTreeMap::new();
        for known in ours {
            if let Some(namespace) = known.inspected.namespace.filter(|namespace| Some(*namespace) != own) {
                others.entry(namespace).or_insert(known.inspected.pid);
            }
        }
        others
    }

    /// Finds out whose the sockets are that are new. Nodes and port mappers are asked first, because a child may hold a
    /// socket of its parent's.
    fn find_owners<'a>(&mut self, all: impl Iterator<Item = &'a TcpSocket>, left_out: &mut LeftOut) {
        let inodes: HashSet<u64> = all.map(|socket| socket.inode).filter(|&inode| inode != 0).collect();
        self.owners.retain(|inode, _| inodes.contains(inode));
        let mut unknown: HashSet<u64> = inodes.into_iter().filter(|inode| !self.owners.contains_key(inode)).collect();
        let mut most = self.options.descriptors;
        let ours = self.known.values().filter(|known| is_ours(known)).map(|known| known.inspected.pid);
        let others = self.known.values().filter(|known| !is_ours(known)).map(|known| known.inspected.pid);
        for pid in ours.chain(others) {
            if unknown.is_empty() {
                break;
            }
            let owners = &mut self.owners;
            let read = process::sockets(&self.options.proc, pid, &mut most, |inode| {
                if unknown.remove(&inode) {
                    owners.insert(inode, Some(pid));
                }
            });
            match read {
                Ok(true) => {}
                Ok(false) => {
                    left_out.descriptors = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    left_out.forbidden += 1;
                    left_out.descriptors = true;
                }
                Err(_) => {}
            }
        }
        // What nobody has need not be looked for again, if everybody was asked.
        if !left_out.descriptors && left_out.processes == 0 {
            self.owners.extend(unknown.into_iter().map(|inode| (inode, None)));
        }
    }

    /// The process that has the socket; where that may not be read, the only node or port mapper of the same user.
    fn owner(&self, socket: &TcpSocket, namespace: Option<u64>) -> Option<&Known> {
        // One that nobody has any more, or that nobody has accepted yet.
        if socket.inode == 0 {
            return None;
        }
        match self.owners.get(&socket.inode) {
            Some(Some(pid)) => self.known.get(pid),
            Some(None) => None,
            None => {
                let mut same = self.known.values().filter(|known| {
                    is_ours(known)
                        && known.inspected.kind != Kind::Init
                        && known.inspected.uid == socket.uid
                        && known.inspected.namespace.is_none_or(|own| Some(own) == namespace)
                });
                let only = same.next()?;
                same.next().is_none().then_some(only)
            }
        }
    }

    /// Whether that was found out without a look at the process.
    fn is_guess(&self, socket: &TcpSocket) -> bool {
        !self.owners.contains_key(&socket.inode)
    }

    /// Adds what the sockets of a namespace are.
    fn describe(&self, namespace: Option<u64>, own: bool, sockets: &[TcpSocket], snapshot: &mut Snapshot) {
        let listening = || sockets.iter().filter(|socket| socket.state == TcpState::Listen);
        let established = || sockets.iter().filter(|socket| socket.state == TcpState::Established);
        let mut roles: BTreeMap<SocketAddr, Role> = BTreeMap::new();
        let mut per_process: BTreeMap<u32, usize> = BTreeMap::new();
        for known in listening().filter_map(|socket| self.owner(socket, namespace)) {
            *per_process.entry(known.inspected.pid).or_default() += 1;
        }
        let registered_with_epmd: BTreeSet<u32> = established()
            .filter(|socket| self.options.epmd_ports.contains(socket.remote.port()))
            .filter_map(|socket| Some(self.owner(socket, namespace)?.inspected.pid))
            .collect();
        for socket in listening() {
            let owner = self.owner(socket, namespace);
            let port = socket.local.port();
            let is_epmd_port = self.options.epmd_ports.contains(port);
            let (role, why) = match owner.map(|known| &known.inspected.kind) {
                Some(Kind::Epmd) => (Role::Epmd, Why::IsEpmd),
                Some(Kind::Init) | None if is_epmd_port => (Role::Epmd, Why::EpmdPort),
                Some(Kind::Beam(arguments)) => {
                    let pid = owner.map_or(0, |known| known.inspected.pid);
                    if own && self.registered.range((port, String::new())..).next().is_some_and(|(at, _)| *at == port) {
                        (Role::Distribution, Why::Registered)
                    } else if arguments.listen.is_some_and(|(first, last)| (first..=last).contains(&port)) {
                        (Role::Distribution, Why::CommandLine)
                    } else if per_process.get(&pid) == Some(&1) && registered_with_epmd.contains(&pid) {
                        (Role::Distribution, Why::OnlyListener)
                    } else {
                        (Role::Candidate, Why::HeldByNode)
                    }
                }
                _ => continue,
            };
            roles.insert(socket.local, role);
            snapshot.listeners.push(Listener {
                at: socket.local,
                role,
                why,
                process: owner.map(|known| known.printed.clone()),
                is_guess: self.is_guess(socket),
                tls: owner.is_some_and(|known| matches!(&known.inspected.kind, Kind::Beam(arguments) if arguments.tls)),
                namespace,
            });
        }
        let here: HashSet<IpAddr> = sockets.iter().map(|socket| socket.local.ip()).collect();
        for socket in established() {
            let owner = self.owner(socket, namespace);
            let from_a_node = owner.is_some_and(|known| matches!(known.inspected.kind, Kind::Beam(_)));
            let accepted = listener(&roles, socket.local);
            let connected = || {
                let at = socket.remote;
                let is_here = here.contains(&at.ip()) || at.ip().is_loopback();
                let elsewhere = || (from_a_node && self.options.epmd_ports.contains(at.port())).then_some(Role::Epmd);
                if is_here { listener(&roles, at) } else { elsewhere() }
            };
            let role = accepted.or_else(connected);
            if role.is_none() && !from_a_node {
                continue;
            }
            snapshot.connections.push(Connection {
                local: socket.local,
                remote: socket.remote,
                role,
                accepted: accepted.is_some(),
                process: owner.map(|known| known.printed.clone()),
                is_guess: self.is_guess(socket),
                namespace,
                cookie: socket.cookie,
                octets: socket.octets,
            });
        }
    }
}

/// Whether it is one of those that this is about.
fn is_ours(known: &Known) -> bool {
    known.inspected.kind != Kind::Other
}

/// What listens at an address: a socket on just that address, or on all of them.
fn listener(roles: &BTreeMap<SocketAddr, Role>, at: SocketAddr) -> Option<Role> {
    let every = [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
    let any = every.iter().find_map(|&address| roles.get(&SocketAddr::new(address, at.port())));
    roles.get(&at).or(any).copied()
}
