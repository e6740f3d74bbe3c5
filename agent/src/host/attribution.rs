//! Whose a socket is that the kernel has just told of: the process that made it, looked up once.
//!
//! Under Landlock a process may not look into one outside, so `/proc/PID/fd` and `exe` are closed for those that start later;
//! but the kernel's programs name the process that makes a socket, and its `stat`, `cmdline`, `cgroup` and `status` stay
//! readable. Of one that is gone already the kernel's own word is left: its user, and its cgroup.

use std::path::PathBuf;
use std::sync::Arc;

use distwatch_engine::cluster::SocketOwner;
use distwatch_engine::model::Process;
use distwatch_engine::time::Timestamp;

use super::Snapshot;
use super::inventory::Inventory;
use super::process;
use crate::clocks;
use crate::source::live::SocketSeen;

/// Where a hierarchy of version 2 may be mounted: alone, or on hybrid hosts beside the others.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The inode of the first namespace of process ids (`PROC_PID_INIT_INO`), in which the kernel's programs count.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Clock ticks in a second, as `/proc` counts them on every architecture that Linux has today.
const TICKS: u64 = 100;

impl Snapshot {
    /// The sockets whose process is known, as of `seen`, when the look at them began.
    pub fn owners(&self, seen: Timestamp) -> impl Iterator<Item = SocketOwner> + '_ {
        let listeners = self.listeners.iter().filter(|listener| {
            listener.role.expected().is_some()
                && is_unambiguous(listener.at.ip(), listener.namespace, self.own_namespace)
        });
        let listeners = listeners.map(|one| (one.at, None, one.namespace, &one.process, one.is_guess));
        let connections = self.connections.iter();
        let connections =
            connections.map(|one| (one.local, Some(one.remote), one.namespace, &one.process, one.is_guess));
        listeners.chain(connections).filter_map(move |(local, remote, namespace, process, is_guess)| {
            // The kernel numbers namespaces with 32 bits.
            let namespace = namespace.and_then(|inode| u32::try_from(inode).ok()).unwrap_or(0);
            Some(SocketOwner { local, remote, namespace, seen, process: Arc::clone(process.as_ref()?), is_guess })
        })
    }
}

/// Whether only one socket of this host can listen there: each network namespace has its own loopback and its own "every address".
fn is_unambiguous(at: std::net::IpAddr, namespace: Option<u64>, own: Option<u64>) -> bool {
    (!at.is_unspecified() && !at.is_loopback()) || (namespace.is_some() && namespace == own)
}

impl Inventory {
    /// The processes of sockets that the kernel told of. Costs some tens of microseconds for each, a hundred more for a process
    /// that is not known yet. `time_of` tells what time a moment of `CLOCK_MONOTONIC` is.
    pub fn attribute(&mut self, seen: &[SocketSeen], time_of: impl Fn(u64) -> Timestamp) -> Vec<SocketOwner> {
        let own = process::own_namespace(self.proc());
        let counts_alike = process::namespace(&self.proc().join("thread-self/ns/pid")) == Some(FIRST_PID_NAMESPACE);
        let mut owners = Vec::new();
        for socket in seen.iter().filter(|socket| socket.pid != 0) {
            let namespace = (socket.namespace != 0).then_some(u64::from(socket.namespace));
            let ambiguous = || !is_unambiguous(socket.local.ip(), namespace, own);
            if socket.remote.is_none() && ambiguous() {
                continue;
            }
            let alive = if counts_alike { self.alive(socket) } else { None };
            let process = alive.unwrap_or_else(|| Arc::new(self.remains(socket)));
            let SocketSeen { local, remote, namespace, monotonic, .. } = *socket;
            let seen = time_of(monotonic);
            owners.push(SocketOwner { local, remote, namespace, seen, process, is_guess: false });
        }
        owners
    }

    /// The process, if it is still the one that made the socket.
    fn alive(&mut self, socket: &SocketSeen) -> Option<Arc<Process>> {
        let identity = process::identity(self.proc(), socket.pid).ok()?;
        // Its number may be another's by now.
        if !began_before(identity.started, socket.owned) {
            return None;
        }
        self.know(socket.pid, identity)
    }

    /// What the kernel said of a process that cannot be looked at any more.
    fn remains(&mut self, socket: &SocketSeen) -> Process {
        let roots = HIERARCHIES.map(PathBuf::from);
        let place = self.groups().place(&roots, socket.cgroup);
        let user = if place.container.is_none() { self.user(socket.uid) } else { None };
        Process {
            pid: socket.pid,
            exe: None,
            user: Some(user.unwrap_or_else(|| socket.uid.to_string())),
            unit: place.unit,
            container: place.container,
            node: None,
        }
    }
}

/// Whether a process that was started at so many clock ticks after the boot can have done something at `monotonic` nanoseconds.
fn began_before(ticks: u64, monotonic: u64) -> bool {
    // The one clock stands still while the host sleeps, and the other does not.
    let slept = clocks::boottime().saturating_sub(clocks::monotonic());
    let began = ticks.saturating_mul(1_000_000_000 / TICKS);
    began <= monotonic.saturating_add(slept).saturating_add(1_000_000_000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::source::live::SocketState;

    #[test]
    fn a_process_that_began_after_the_listener_was_made_is_another_one_with_its_number() {
        let now = clocks::monotonic();
        let accepted_by = |owned| SocketSeen {
            monotonic: now,
            local: "10.0.0.1:9100".parse().unwrap(),
            remote: Some("10.0.0.2:40000".parse().unwrap()),
            state: SocketState::Accepted,
            cookie: 1,
            pid: std::process::id(),
            owned,
            uid: 0,
            command: String::new(),
            cgroup: 0,
            namespace: 0,
        };
        let mut inventory = Inventory::new(Options::default());
        assert!(inventory.alive(&accepted_by(now + 1_000_000_000)).is_some());
        assert!(inventory.alive(&accepted_by(0)).is_none(), "nothing of today listened when the host began");
    }
}
