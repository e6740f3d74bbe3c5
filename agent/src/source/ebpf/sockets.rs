//! What the kernel tells of sockets: who listens, who connects, and whose they are.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use distwatch_ebpf::{Event, Owner, event};

use super::layout::address;
use crate::source::live::{SocketSeen, SocketState};

/// How many wait to be asked for. The oldest goes first and is counted.
const WAITING: usize = 8192;

/// How many listeners are remembered, for whoever accepts a connection is whoever listens.
const LISTENERS: usize = 4096;

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    waiting: VecDeque<SocketSeen>,
    /// Whose they are, and since when.
    listeners: HashMap<(u32, SocketAddr), (Owner, u64)>,
    lost: u64,
}

impl Sockets {
    pub(super) fn handle(&mut self, seen: &Event) {
        let ends = seen.key.ends();
        let here = (seen.local & 1) as usize;
        let (local, remote) = (address(ends[here]), address(ends[here ^ 1]));
        let state = match seen.kind {
            event::LISTENING => SocketState::Listening,
            event::CONNECTED => SocketState::Connected,
            event::ACCEPTED => SocketState::Accepted,
            event::FLOW_OPENED => SocketState::Carrying,
            event::CLOSED => SocketState::Closed,
            _ => return,
        };
        let (mut owner, mut owned) = (seen.owner, seen.time);
        match state {
            SocketState::Listening if owner.pid != 0 && self.listeners.len() < LISTENERS => {
                self.listeners.insert((seen.netns, local), (owner, owned));
            }
            SocketState::Closed if local == remote => drop(self.listeners.remove(&(seen.netns, local))),
            _ if owner.pid == 0 => (owner, owned) = self.listener(seen.netns, local).unwrap_or((owner, owned)),
            _ => {}
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        let command = owner.command.split(|&octet| octet == 0).next().unwrap_or_default();
        self.waiting.push_back(SocketSeen {
            monotonic: seen.time,
            local,
            remote: (local != remote).then_some(remote),
            state,
            cookie: seen.cookie,
            pid: owner.pid,
            owned,
            uid: owner.uid,
            command: String::from_utf8_lossy(command).into_owned(),
            cgroup: owner.cgroup,
            namespace: seen.netns,
        });
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = SocketSeen> + '_ {
        self.waiting.drain(..)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Who listens there, on that address or on all, and since when.
    fn listener(&self, namespace: u32, at: SocketAddr) -> Option<(Owner, u64)> {
        let any = ["0.0.0.0", "::"].into_iter().filter_map(|ip| ip.parse().ok());
        let candidates = std::iter::once(at).chain(any.map(|ip| SocketAddr::new(ip, at.port())));
        candidates.into_iter().find_map(|at| self.listeners.get(&(namespace, at)).copied())
    }
}

#[cfg(test)]
mod tests {
    use distwatch_ebpf::FlowKey;

    use super::super::layout::end;
    use super::*;

    fn told(kind: u32, local: &str, remote: &str, pid: u32) -> Event {
        let (key, direction) = FlowKey::new(end(local.parse().unwrap()), end(remote.parse().unwrap()), 0);
        let mut command = [0; 16];
        command[..4].copy_from_slice(b"beam");
        let owner = if pid == 0 { Owner::default() } else { Owner { pid, command, ..Owner::default() } };
        Event { time: 1, cookie: 2, key, owner, kind, local: direction as u32, netns: 7, padding: 0 }
    }

    #[test]
    fn whoever_listens_is_whoever_accepts_until_the_listener_is_closed() {
        let mut sockets = Sockets::default();
        sockets.handle(&told(event::LISTENING, "0.0.0.0:9100", "0.0.0.0:9100", 42));
        sockets.handle(&Event { time: 5, ..told(event::ACCEPTED, "10.0.0.1:9100", "10.0.0.2:40000", 0) });
        sockets.handle(&told(event::CLOSED, "0.0.0.0:9100", "0.0.0.0:9100", 42));
        sockets.handle(&told(event::ACCEPTED, "10.0.0.1:9100", "10.0.0.2:40001", 0));
        let seen: Vec<SocketSeen> = sockets.take().collect();
        let pids: Vec<u32> = seen.iter().map(|socket| socket.pid).collect();
        assert_eq!(pids, [42, 42, 42, 0]);
        assert_eq!((seen[1].monotonic, seen[1].owned), (5, 1), "it was the listener's process that was at work");
        assert_eq!(seen[1].command, "beam");
        assert_eq!((seen[0].remote, seen[1].remote), (None, Some("10.0.0.2:40000".parse().unwrap())));
    }

    #[test]
    fn what_nobody_asks_for_is_bounded_and_counted() {
        let mut sockets = Sockets::default();
        for _ in 0..WAITING + 3 {
            sockets.handle(&told(event::CONNECTED, "10.0.0.1:9100", "10.0.0.2:40000", 1));
        }
        assert_eq!((sockets.take().count(), sockets.lost()), (WAITING, 3));
    }
}
