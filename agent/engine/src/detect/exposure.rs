//! Where a connection can be reached from: judged from its addresses and interfaces, and from what the policy declares.

use std::net::IpAddr;

use crate::model::Severity;
use crate::policy::Policy;

/// Names of the loopback interface: Linux, and the BSDs with macOS.
const LOOPBACK: [&str; 2] = ["lo", "lo0"];

/// How far the way of a connection is open to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// It does not leave the host.
    Loopback,
    /// It stays on what the policy declares isolated.
    Isolated,
    /// It leaves what the policy declares isolated.
    Declared,
    /// The policy declares nothing, and an address is public.
    Public,
    /// The policy declares nothing, and both addresses are private.
    Private,
}

impl Exposure {
    /// Judges the way between two addresses that was seen on these interfaces.
    ///
    /// An address in an isolated network is not enough: when it is reached from an address outside, the way led
    /// through a router. So both addresses count, or the interfaces, all of them.
    #[must_use]
    pub fn judge<'a, I>(policy: &Policy, interfaces: I, from: IpAddr, to: IpAddr) -> Self
    where
        I: IntoIterator<Item = &'a str>,
        I::IntoIter: Clone,
    {
        let (from, to) = (from.to_canonical(), to.to_canonical());
        let mut named = interfaces.into_iter().filter(|name| !name.is_empty() && *name != "any").peekable();
        let on_loopback = named.peek().is_some() && named.clone().all(|name| LOOPBACK.contains(&name));
        // The kernel routes a host's own address over loopback, whatever interface the address belongs to.
        if on_loopback || from == to || (from.is_loopback() && to.is_loopback()) {
            return Self::Loopback;
        }
        let Some(isolated) = &policy.isolated else {
            return if is_public(from) || is_public(to) { Self::Public } else { Self::Private };
        };
        let by_interface = named.peek().is_some() && named.all(|name| isolated.contains_interface(name));
        if by_interface || (isolated.contains_address(from) && isolated.contains_address(to)) {
            return Self::Isolated;
        }
        Self::Declared
    }

    /// Whether it is "local" in the sense of the catalogue.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Loopback | Self::Isolated)
    }

    /// The severity of an exposure: a private address lowers it by one step where nothing was declared.
    #[must_use]
    pub const fn weigh(self, severity: Severity) -> Severity {
        match self {
            Self::Private => severity.lowered(),
            _ => severity,
        }
    }

    /// In words, to end a sentence with.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Loopback => "inside this host",
            Self::Isolated => "on an isolated network",
            Self::Declared => "outside of the networks and interfaces that the policy declares isolated",
            Self::Public => "over a public address",
            Self::Private => "over a private network that no policy declares isolated",
        }
    }
}

/// Whether the address can be reached from the Internet: not private, unique local, link-local, shared (RFC 6598) or
/// loopback.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_link_local() || ip.is_loopback() || ip.is_unspecified() || shared)
        }
        IpAddr::V6(ip) => {
            let first = ip.segments().first().copied().unwrap_or(0);
            let unique_local = first & 0xfe00 == 0xfc00;
            let link_local = first & 0xffc0 == 0xfe80;
            !(unique_local || link_local || ip.is_loopback() || ip.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ip, policy_with_isolated};
    use super::*;

    fn judge(policy: &Policy, interfaces: &[&str], from: &str, to: &str) -> Exposure {
        Exposure::judge(policy, interfaces.iter().copied(), ip(from), ip(to))
    }

    #[test]
    fn without_a_policy_loopback_is_isolated_and_a_private_address_weighs_less_than_a_public_one() {
        let policy = Policy::default();
        assert_eq!(judge(&policy, &[], "127.0.0.1", "127.0.0.1"), Exposure::Loopback);
        assert_eq!(judge(&policy, &["lo"], "10.0.0.1", "10.0.0.1"), Exposure::Loopback);
        assert_eq!(judge(&policy, &["lo"], "10.0.0.1", "10.1.0.1"), Exposure::Loopback, "two addresses of one host");
        assert_eq!(judge(&policy, &["eth0"], "10.0.0.1", "10.0.0.2"), Exposure::Private);
        assert_eq!(judge(&policy, &["eth0"], "fd00::1", "fe80::2"), Exposure::Private);
        assert_eq!(judge(&policy, &["eth0"], "10.0.0.1", "192.0.3.9"), Exposure::Public);
        assert_eq!(Exposure::Private.weigh(Severity::Critical), Severity::High);
        assert_eq!(Exposure::Public.weigh(Severity::Critical), Severity::Critical);
    }

    #[test]
    fn with_a_policy_both_addresses_or_all_interfaces_must_be_isolated() {
        let policy = policy_with_isolated(&["cluster0"], &["10.77.0.0/24"]);
        assert_eq!(judge(&policy, &["any"], "10.77.0.1", "10.77.0.2"), Exposure::Isolated);
        assert_eq!(judge(&policy, &["any"], "10.88.0.50", "10.88.0.1"), Exposure::Declared);
        assert_eq!(
            judge(&policy, &["eth0"], "10.88.0.50", "10.77.0.2"),
            Exposure::Declared,
            "it came through a router"
        );
        assert_eq!(judge(&policy, &["cluster0"], "10.88.0.50", "10.77.0.2"), Exposure::Isolated);
        assert_eq!(judge(&policy, &["cluster0", "eth1"], "10.88.0.50", "10.77.0.2"), Exposure::Declared);
        assert_eq!(judge(&policy, &["eth0"], "::ffff:10.77.0.1", "10.77.0.2"), Exposure::Isolated);
        assert_eq!(judge(&policy, &[], "::1", "::1"), Exposure::Loopback);
    }

    #[test]
    fn public_is_what_the_internet_can_reach() {
        assert!(is_public(ip("8.8.8.8")) && is_public(ip("2001:db8::1")));
        for address in
            ["10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.0.1", "100.64.0.1", "fd12::1", "fe80::1", "::1"]
        {
            assert!(!is_public(ip(address)), "{address}");
        }
    }
}
