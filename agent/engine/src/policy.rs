//! The checked policy: what the operator allows, in a form that answers questions. Its file format is the agent's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use globset::GlobMatcher;
use ipnet::IpNet;

use crate::limits::Limits;
use crate::model::Severity;

/// All that the operator declared; [`Policy::default`] is what holds where nothing is declared.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where distribution and EPMD may be. `None`: nothing was declared, so loopback only.
    pub isolated: Option<Places>,
    /// Where a remote shell may come from.
    pub tunnels: Places,
    /// Ports of EPMD.
    pub epmd_ports: Ports,
    /// Ports of distribution, in addition to what is learned.
    pub distribution_ports: Ports,
    /// What TLS must be like.
    pub tls: TlsPolicy,
    /// Declared clusters.
    pub clusters: Vec<Cluster>,
    /// Nodes that must have no peer.
    pub standalone: Patterns,
    /// Words that a cookie must not be, besides the published defaults.
    pub cookie_words: Vec<CookieWord>,
    /// How much of a remote action's arguments is shown.
    pub arguments: Arguments,
    /// Remote calls that `remote-call` reports: `module:function` globs.
    pub watch: Patterns,
    /// What was said of single rules, by rule id.
    pub rules: BTreeMap<String, RuleSettings>,
    /// Limits of memory and time.
    pub limits: Limits,
}

/// The port that EPMD has unless it is told otherwise (OTP, `epmd`, section "Environment Variables", `ERL_EPMD_PORT`).
pub const EPMD_PORT: u16 = 4369;

impl Default for Policy {
    fn default() -> Self {
        Self {
            isolated: None,
            tunnels: Places::default(),
            epmd_ports: Ports(vec![(EPMD_PORT, EPMD_PORT)]),
            distribution_ports: Ports::default(),
            tls: TlsPolicy::default(),
            clusters: Vec::new(),
            standalone: Patterns::default(),
            cookie_words: Vec::new(),
            arguments: Arguments::default(),
            watch: Patterns::default(),
            rules: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

/// Interfaces (globs) and networks.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Interface names.
    pub interfaces: Patterns,
    /// Networks; a single address is one of its full length.
    pub networks: Vec<IpNet>,
}

impl Places {
    /// Whether the address lies in one of the networks.
    #[must_use]
    pub fn contains_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether the interface is one of those named.
    #[must_use]
    pub fn contains_interface(&self, interface: &str) -> bool {
        !interface.is_empty() && self.interfaces.matches(interface)
    }
}

/// Globs over names.
#[derive(Clone, Debug, Default)]
pub struct Patterns(pub Vec<GlobMatcher>);

impl Patterns {
    /// Whether any of them matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(name))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of ports as inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<(u16, u16)>);

impl Ports {
    /// Whether the port is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&port))
    }
}

/// What TLS must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Distribution must run over TLS.
    pub required: bool,
    /// Lowest version, as on the wire (0x0303 is TLS 1.2).
    pub minimum_version: u16,
    /// A client certificate must be asked for.
    pub client_certificate_required: bool,
    /// A certificate that ends within so many days is reported.
    pub expiry_days: u32,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self { required: true, minimum_version: 0x0303, client_certificate_required: true, expiry_days: 30 }
    }
}

/// A declared cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The tier that it belongs to.
    pub tier: Option<String>,
    /// Its nodes.
    pub nodes: Patterns,
    /// Where they are; empty means anywhere.
    pub addresses: Vec<IpNet>,
    /// Clusters or tiers that it may have links to.
    pub links_to: Vec<String>,
}

/// A word that a cookie must not be. The word itself is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieWord {
    /// What is printed: which entry of which list.
    pub entry: String,
    /// The word.
    pub word: Vec<u8>,
}

impl std::fmt::Debug for CookieWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieWord").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// How much of the arguments of a remote action is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arguments {
    /// Nothing.
    #[default]
    None,
    /// Types and sizes.
    Types,
    /// The terms.
    Full,
}

/// What the policy says of one rule.
#[derive(Clone, Debug, Default)]
pub struct RuleSettings {
    /// On or off; `None` is the rule's own default.
    pub enabled: Option<bool>,
    /// Instead of the rule's own severity.
    pub severity: Option<Severity>,
    /// Where the rule is silent.
    pub allow: Vec<Allow>,
    /// The rule's own options, already checked against what it declares.
    pub options: BTreeMap<String, u64>,
}

/// An exception: every part that is given must match.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// Node names (either end).
    pub nodes: Patterns,
    /// Addresses that it comes from.
    pub from: Vec<IpNet>,
    /// Interfaces.
    pub interfaces: Patterns,
}
