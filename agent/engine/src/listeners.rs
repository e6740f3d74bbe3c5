//! Where EPMD and distribution listen: what the policy says, and what the traffic teaches.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::{HashMap, HashMapExt as _};

use crate::event::Expected;
use crate::policy::{Policy, Ports};

/// How many listeners are learned. A large host runs some dozens of nodes; whoever forges EPMD answers must not fill
/// memory. The oldest goes first.
const LEARNED: usize = 8192;

/// Ports by policy and by traffic.
#[derive(Debug)]
pub struct Listeners {
    epmd: Ports,
    distribution: Ports,
    learned: HashMap<SocketAddr, Expected>,
    order: VecDeque<SocketAddr>,
    forgotten: u64,
}

impl Listeners {
    /// What the policy declares; nothing is learned yet.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            epmd: policy.epmd_ports.clone(),
            distribution: policy.distribution_ports.clone(),
            learned: HashMap::new(),
            order: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Other ports are declared from now on; what was learned stays.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.epmd = policy.epmd_ports.clone();
        self.distribution = policy.distribution_ports.clone();
    }

    /// What listens there, as far as known. What the traffic showed counts more than a configured range.
    #[must_use]
    pub fn expected(&self, at: SocketAddr) -> Option<Expected> {
        let anywhere = if at.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let learned = self.learned.get(&at).or_else(|| self.learned.get(&SocketAddr::new(anywhere, at.port())));
        if let Some(&learned) = learned {
            return Some(learned);
        }
        if self.epmd.contains(at.port()) {
            return Some(Expected::Epmd);
        }
        self.distribution.contains(at.port()).then_some(Expected::Distribution)
    }

    /// Whether a socket that listens at this address takes connections of which it is known what they are for: one on all
    /// addresses does where that is known of any of them.
    #[must_use]
    pub fn is_known(&self, socket: SocketAddr) -> bool {
        let of_any = || self.learned.keys().any(|at| at.port() == socket.port());
        self.expected(socket).is_some() || (socket.ip().is_unspecified() && of_any())
    }

    /// Something was seen to listen there; an unspecified address is every address of which nothing else is known. Returns
    /// whether that is new.
    pub fn learn(&mut self, at: SocketAddr, what: Expected) -> bool {
        if at.port() == 0 || self.expected(at) == Some(what) {
            return false;
        }
        if self.learned.insert(at, what).is_none() {
            self.order.push_back(at);
        }
        if self.learned.len() > LEARNED
            && let Some(oldest) = self.order.pop_front()
        {
            self.learned.remove(&oldest);
            self.forgotten += 1;
        }
        true
    }

    /// All that was learned of distribution, in the order in which it was: what a capture filter needs.
    pub fn learned(&self) -> impl Iterator<Item = (SocketAddr, Expected)> + '_ {
        self.order.iter().filter_map(|at| self.learned.get(at).map(|&what| (*at, what)))
    }

    /// How many were learned since the start: whoever saw this number before knows whether there is something new.
    #[must_use]
    pub fn learned_so_far(&self) -> u64 {
        self.forgotten + self.order.len() as u64
    }

    /// How many were forgotten at the limit.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_traffic_shows_counts_more_than_a_configured_range() {
        let policy = Policy { distribution_ports: Ports(vec![(9100, 9155)]), ..Policy::default() };
        let mut listeners = Listeners::new(&policy);
        assert_eq!(listeners.expected(at("10.0.0.1:9100")), Some(Expected::Distribution));
        assert!(listeners.learn(at("10.0.0.1:9100"), Expected::Epmd));
        assert_eq!(listeners.expected(at("10.0.0.1:9100")), Some(Expected::Epmd));
        assert_eq!(listeners.expected(at("10.0.0.2:9100")), Some(Expected::Distribution));
    }

    #[test]
    fn an_unspecified_address_is_every_address_of_its_family() {
        let mut listeners = Listeners::new(&Policy::default());
        listeners.learn(at("0.0.0.0:41000"), Expected::Distribution);
        assert_eq!(listeners.expected(at("10.0.0.1:41000")), Some(Expected::Distribution));
        assert_eq!(listeners.expected(at("[::1]:41000")), None);
        listeners.learn(at("[::]:41000"), Expected::Distribution);
        assert_eq!(listeners.expected(at("[::1]:41000")), Some(Expected::Distribution));
    }

    #[test]
    fn a_socket_on_all_addresses_is_known_by_any_of_them() {
        let mut listeners = Listeners::new(&Policy::default());
        listeners.learn(at("127.0.0.1:41000"), Expected::Distribution);
        assert!(listeners.is_known(at("0.0.0.0:41000")) && listeners.is_known(at("[::]:4369")));
        assert!(!listeners.is_known(at("0.0.0.0:41001")) && !listeners.is_known(at("10.0.0.1:41000")));
    }

    #[test]
    fn forged_answers_cannot_fill_memory_and_what_is_forgotten_is_counted() {
        let mut listeners = Listeners::new(&Policy::default());
        for port in 1..=u16::MAX {
            listeners.learn(SocketAddr::from(([10, 0, 0, 1], port)), Expected::Distribution);
        }
        assert_eq!(listeners.learned().count(), LEARNED);
        // 4369 is EPMD's by default and was learned as distribution like any other.
        assert_eq!(listeners.forgotten(), u64::from(u16::MAX) - LEARNED as u64);
    }
}
