//! Interfaces of this and other network namespaces, by number and by name.
//!
//! Nothing enters another namespace: any process in it shows its interfaces in procfs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// How many interfaces are remembered. A host with a thousand containers has some thousands; one that makes new ones all day
/// forgets the half that was seen least lately. An interface that comes back has a new number.
const INTERFACES: usize = 16_384;

/// How many packets may pass before a name that was not found is looked for again: the search reads all of procfs.
const PATIENCE: u32 = 4096;

/// The interfaces that packets were seen on.
#[derive(Debug)]
pub(super) struct Interfaces {
    own: u32,
    /// Numbers by namespace and index, and after how many others each was seen last.
    numbers: HashMap<(u32, u32), (u32, u64)>,
    known: HashMap<u32, Interface>,
    /// The last number that was given.
    last: u32,
    /// Packets so far.
    seen: u64,
    namespaces: Vec<u32>,
}

#[derive(Debug)]
struct Interface {
    namespace: u32,
    index: u32,
    name: String,
    asked: u32,
}

impl Interfaces {
    pub(super) fn new() -> Self {
        let own = fs::metadata("/proc/self/ns/net").map_or(0, |of| inode(&of));
        Self { own, numbers: HashMap::new(), known: HashMap::new(), last: 0, seen: 0, namespaces: vec![own] }
    }

    /// The namespaces of the interfaces, this process's own first.
    pub(super) fn namespaces(&self) -> &[u32] {
        &self.namespaces
    }

    /// The number of an interface.
    pub(super) fn number(&mut self, namespace: u32, index: u32) -> u32 {
        let namespace = if namespace == 0 { self.own } else { namespace };
        self.seen += 1;
        if let Some((number, seen)) = self.numbers.get_mut(&(namespace, index)) {
            *seen = self.seen;
            return *number;
        }
        if self.numbers.len() >= INTERFACES {
            self.forget_half();
        }
        // They are used up after a year of a hundred new ones a second.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let number = self.last;
        self.known.insert(number, Interface { namespace, index, name: String::new(), asked: 0 });
        self.numbers.insert((namespace, index), (number, self.seen));
        if !self.namespaces.contains(&namespace) {
            self.namespaces.push(namespace);
        }
        number
    }

    /// Forgets the half of them that was seen least lately, and the namespaces that have none any more.
    fn forget_half(&mut self) {
        let mut all: Vec<u64> = self.numbers.values().map(|(_, seen)| *seen).collect();
        let half = all.len() / 2;
        let (_, &mut middle, _) = all.select_nth_unstable(half);
        self.numbers.retain(|_, (_, seen)| *seen > middle);
        let numbers = &self.numbers;
        self.known
            .retain(|number, of| numbers.get(&(of.namespace, of.index)).is_some_and(|(known, _)| known == number));
        let left: HashSet<u32> = numbers.keys().map(|(namespace, _)| *namespace).collect();
        let own = self.own;
        self.namespaces.retain(|namespace| *namespace == own || left.contains(namespace));
    }

    /// The name in its own namespace; empty where it is not known.
    pub(super) fn name(&mut self, number: u32) -> String {
        let own = self.own;
        let Some(interface) = self.known.get_mut(&number) else { return String::new() };
        if interface.name.is_empty() && interface.asked.is_multiple_of(PATIENCE) {
            interface.name = if interface.namespace == own {
                name_of(interface.index)
            } else {
                name_elsewhere(interface.namespace, interface.index)
            };
        }
        interface.asked = interface.asked.wrapping_add(1);
        interface.name.clone()
    }
}

/// The interfaces of this namespace, by index.
pub(super) fn of_this_namespace() -> Vec<(u32, String)> {
    let Ok(names) = fs::read_to_string("/proc/self/net/dev") else { return Vec::new() };
    let names = names.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    names.filter_map(|name| index_of(&name).map(|index| (index, name))).collect()
}

fn index_of(name: &str) -> Option<u32> {
    let socket = socket().ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

fn name_of(index: u32) -> String {
    let Ok(socket) = socket() else { return String::new() };
    rustix::net::netdevice::index_to_name(&socket, index).unwrap_or_default()
}

fn socket() -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// By the first process that is in the namespace.
fn name_elsewhere(namespace: u32, index: u32) -> String {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let member = processes
        .map(|entry| entry.path())
        .find(|process| fs::metadata(process.join("ns/net")).is_ok_and(|of| inode(&of) == namespace));
    let Some(member) = member else { return String::new() };
    let read = |file: &str| fs::read_to_string(member.join(file)).unwrap_or_default();
    name_in_igmp(&read("net/igmp"), index)
        .or_else(|| name_in_if_inet6(&read("net/if_inet6"), index))
        .unwrap_or_default()
}

/// Lines of interfaces begin with `2\teth0      :`, those of groups with a space.
fn name_in_igmp(igmp: &str, index: u32) -> Option<String> {
    igmp.lines().filter(|line| !line.starts_with(char::is_whitespace)).find_map(|line| {
        let mut words = line.split_whitespace();
        let found = words.next()?.parse::<u32>().ok()?;
        let name = words.next()?.trim_end_matches(':');
        (found == index).then(|| name.to_owned())
    })
}

/// Address, index in hexadecimal, prefix, scope, flags, name.
fn name_in_if_inet6(addresses: &str, index: u32) -> Option<String> {
    addresses.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, found, _, _, _, name] = words.as_slice() else { return None };
        (u32::from_str_radix(found, 16).ok()? == index).then(|| (*name).to_owned())
    })
}

/// The kernel numbers namespaces with 32 bits.
fn inode(of: &fs::Metadata) -> u32 {
    u32::try_from(of.ino()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_procfs_writes_them() {
        let igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
            12\teth0      :     1      V3\n";
        assert_eq!(name_in_igmp(igmp, 1).as_deref(), Some("lo"));
        assert_eq!(name_in_igmp(igmp, 12).as_deref(), Some("eth0"));
        assert_eq!(name_in_igmp(igmp, 2), None);
        let addresses = "00000000000000000000000000000001 01 80 10 80       lo\nfe80 0c 40 20 80     eth0\n";
        assert_eq!(name_in_if_inet6(addresses, 12).as_deref(), Some("eth0"));
        assert_eq!(name_in_if_inet6(addresses, 3), None);
    }

    #[test]
    fn an_interface_keeps_its_number_and_the_same_index_elsewhere_has_another() {
        let mut interfaces = Interfaces::new();
        let here = interfaces.number(0, 1);
        assert_eq!(interfaces.number(interfaces.own, 1), here);
        let elsewhere = interfaces.number(7, 1);
        assert_ne!(here, elsewhere);
        assert_eq!(interfaces.name(here), "lo");
        assert_eq!(interfaces.name(elsewhere), "");
    }

    #[test]
    fn a_host_that_makes_interfaces_all_day_has_names_for_the_newest_and_for_those_that_are_used() {
        let mut interfaces = Interfaces::new();
        let used = interfaces.number(0, 1);
        let mut numbers = HashSet::from([used]);
        for container in 0..3 * INTERFACES as u32 {
            assert!(numbers.insert(interfaces.number(1000 + container, 2)), "a number is given once");
            assert_eq!(interfaces.number(0, 1), used);
            assert!(interfaces.numbers.len() <= INTERFACES && interfaces.known.len() == interfaces.numbers.len());
            assert!(interfaces.namespaces.len() <= INTERFACES + 1);
        }
        assert_eq!(interfaces.name(used), "lo");
        assert_eq!(interfaces.namespaces[0], interfaces.own);
        let gone = interfaces.number(1000, 2);
        assert!(numbers.insert(gone), "it is another one for all that is known");
    }
}
