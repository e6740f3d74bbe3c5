//! What the host itself tells: where its nodes listen, and which distribution sockets nothing was captured of.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use distwatch_engine::policy::Ports;

use super::clock::Clock;
use super::monitor::Command;
use crate::host::{Connection, Inventory, Options, Role, Snapshot, epmd};
use crate::source::live::SocketSeen;

/// Between two looks at the host: some milliseconds of work each. A node that begins meanwhile is found by its registration,
/// which is captured.
const BETWEEN: Duration = Duration::from_secs(10);

/// How long an EPMD of this host may take to answer.
const EPMD_PATIENCE: Duration = Duration::from_millis(500);

/// Looks in a row at which nothing was captured of a socket before it counts as unseen: longer than the 15 s after which two
/// nodes of the default `net_ticktime` tick, and than the 75 s at which they give each other up.
const UNSEEN_AFTER: u32 = 9;

/// Batches of sockets whose processes may wait to be looked up: one is what the kernel told of between two looks.
pub const LOOKUPS: usize = 64;

/// Looks at the host now and then, and at the processes of the sockets that it is asked about, until nobody asks or listens any
/// more. A thread of its own, because a process may hold up whoever reads its command line.
///
/// # Errors
/// No thread can be started.
pub fn start(
    mut inventory: Inventory,
    asked: Receiver<Vec<SocketSeen>>,
    commands: Sender<Command>,
    clock: Clock,
) -> io::Result<()> {
    let mut next = Instant::now() + BETWEEN;
    let look = move || loop {
        let now = Instant::now();
        let told = if now >= next {
            next = now + BETWEEN;
            inventory.scan().map(|snapshot| Command::Host(Box::new(snapshot)))
        } else {
            match asked.recv_timeout(next - now) {
                Ok(sockets) => {
                    Ok(Command::Processes(inventory.attribute(&sockets, |monotonic| clock.time_of(monotonic))))
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        match told {
            Ok(command) => {
                if commands.send(command).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the sockets of this host cannot be read"),
        }
    };
    std::thread::Builder::new().name("host".into()).spawn(look).map(drop)
}

/// An inventory of this host.
#[must_use]
pub fn inventory(epmd_ports: &Ports) -> Inventory {
    Inventory::new(Options { epmd_ports: epmd_ports.clone(), ..Options::default() })
}

/// The first look, before the sandbox, which forbids to ask anybody: what EPMD knows is asked for on loopback, where it always
/// listens, and only where the inventory found one. What is registered later is told by the traffic.
///
/// # Errors
/// Neither `/proc` nor netlink tells anything.
pub fn first_look(inventory: &mut Inventory) -> io::Result<Snapshot> {
    let snapshot = inventory.scan()?;
    let own = |namespace: Option<u64>| namespace == snapshot.own_namespace;
    let mappers = snapshot.listeners.iter().filter(|listener| listener.role == Role::Epmd && own(listener.namespace));
    let mut names = Vec::new();
    for listener in mappers {
        let mut at = listener.at;
        if at.ip().is_unspecified() {
            let loopback = if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            at = SocketAddr::new(loopback, at.port());
        }
        match epmd::names(at, EPMD_PATIENCE) {
            Ok(found) => names.extend(found),
            Err(error) => tracing::debug!(%error, %at, "the port mapper was not heard"),
        }
    }
    if names.is_empty() {
        return Ok(snapshot);
    }
    inventory.learn_registered(names);
    inventory.scan()
}

/// A socket that nothing was captured of.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// In how many looks in a row.
    count: u32,
    /// What had passed on it by then.
    octets: Option<u64>,
    /// Something passed between two earlier looks, and would have been captured by now.
    passed: bool,
}

/// Distribution sockets of this host that nothing was captured of, look by look.
#[derive(Debug, Default)]
pub struct Unseen {
    looks: HashMap<(SocketAddr, SocketAddr), Look>,
    /// Whether some were unseen for long at the last look.
    raised: bool,
}

/// What there is to say of sockets that nothing is captured of.
#[derive(Debug, PartialEq, Eq)]
pub struct Blind {
    /// How many.
    pub sockets: u64,
    /// One of them.
    pub example: String,
}

impl Unseen {
    /// Takes a look. `is_seen` is asked for each distribution connection of this host, initiator first. Says something when
    /// sockets are unseen for long, or something passed on them, and once when none is any more.
    ///
    /// What passed is told by the kernel's own counters. They count from the second look at a socket on, for by the first it
    /// may have become known what is to be watched; and what passed is waited for one look longer, for it may be under way.
    pub fn look<'a>(
        &mut self,
        connections: impl Iterator<Item = &'a Connection>,
        mut is_seen: impl FnMut(SocketAddr, SocketAddr) -> bool,
    ) -> Option<Blind> {
        let (mut looks, mut unseen) = (HashMap::new(), Vec::new());
        for connection in connections.filter(|connection| connection.role == Some(Role::Distribution)) {
            let (local, remote) = (canonical(connection.local), canonical(connection.remote));
            let ends = if connection.accepted { (remote, local) } else { (local, remote) };
            if !is_seen(ends.0, ends.1) {
                let before = self.looks.get(&ends).copied();
                let count = before.map_or(0, |look| look.count) + 1;
                let octets = connection.octets;
                let passed = before.is_some_and(|look| {
                    let moved = look.octets.zip(octets).is_some_and(|(before, now)| before != now);
                    look.passed || (look.count > 1 && moved)
                });
                let is_late = before.is_some_and(|look| look.passed) || count >= UNSEEN_AFTER;
                if is_late {
                    unseen.push(ends);
                }
                looks.insert(ends, Look { count, octets, passed });
            }
        }
        self.looks = looks;
        unseen.sort();
        let example = unseen.first().map_or_else(String::new, |(from, to)| format!("{from} -> {to}"));
        let was_raised = std::mem::replace(&mut self.raised, !unseen.is_empty());
        (was_raised || self.raised).then_some(Blind { sockets: unseen.len() as u64, example })
    }
}

/// IPv4 as IPv4: a socket of both families has it mapped, the wire never.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(role: Role) -> Connection {
        Connection {
            local: "[::ffff:10.0.0.2]:9100".parse().unwrap(),
            remote: "[::ffff:10.0.0.1]:40000".parse().unwrap(),
            role: Some(role),
            accepted: true,
            process: None,
            is_guess: false,
            namespace: None,
            cookie: 0,
            octets: None,
        }
    }

    #[test]
    fn a_socket_is_unseen_when_nothing_was_captured_of_it_for_longer_than_nodes_are_silent() {
        let (mut unseen, link) = (Unseen::default(), connection(Role::Distribution));
        for _ in 1..UNSEEN_AFTER {
            assert_eq!(unseen.look([&link].into_iter(), |_, _| false), None);
        }
        let example = "10.0.0.1:40000 -> 10.0.0.2:9100".to_owned();
        assert_eq!(unseen.look([&link].into_iter(), |_, _| false), Some(Blind { sockets: 1, example }));
        let none = Some(Blind { sockets: 0, example: String::new() });
        assert_eq!(unseen.look([&link].into_iter(), |from, _| from.port() == 40000), none, "it is seen again");
        assert_eq!(unseen.look([&link].into_iter(), |_, _| true), None);
    }

    #[test]
    fn a_socket_on_which_something_passed_is_unseen_sooner_but_not_by_what_passed_before_it_was_watched() {
        let mut unseen = Unseen::default();
        let mut look = |octets: u64| {
            let link = Connection { octets: Some(octets), ..connection(Role::Distribution) };
            unseen.look([&link].into_iter(), |_, _| false).map(|blind| blind.sockets)
        };
        assert_eq!([look(100), look(104), look(104), look(104)], [None; 4], "that may be from before");
        assert_eq!([look(108), look(108), look(108)], [None, Some(1), Some(1)]);
    }

    #[test]
    fn a_socket_of_which_something_was_captured_in_the_meantime_is_seen_whatever_passes() {
        let mut unseen = Unseen::default();
        for octets in 0..100 {
            let link = Connection { octets: Some(octets), ..connection(Role::Distribution) };
            assert_eq!(unseen.look([&link].into_iter(), |_, _| octets % 3 == 0), None);
        }
    }

    #[test]
    fn what_is_not_distribution_or_ends_in_time_is_no_matter() {
        let (mut unseen, other, link) =
            (Unseen::default(), connection(Role::Candidate), connection(Role::Distribution));
        for _ in 0..2 * UNSEEN_AFTER {
            assert_eq!(unseen.look([&other].into_iter(), |_, _| false), None);
        }
        for round in 0..3 * UNSEEN_AFTER {
            let ended = round % UNSEEN_AFTER == UNSEEN_AFTER - 1;
            assert_eq!(unseen.look([&link].into_iter().filter(|_| !ended), |_, _| false), None);
        }
    }
}
