//! Judgement: events in, findings out. One rule or one family of rules a file; this file is the list of them.
//!
//! To add a rule: a file with its documentation, a [`Rule`] and an `impl Detector`, and one line in [`FAMILIES`].
//! Detectors keep nothing about a connection that the [`Cluster`] or the [`Findings`] keep: most of them look at one
//! event and say what is wrong with it, as often as they like; what counts as a repeat is decided in one place.

mod blind_sensor;
mod capture_loss;
mod certificates;
mod cleartext;
mod cookie_guessing;
mod cookie_on_the_wire;
mod epmd;
mod exposed_link;
pub mod exposure;
mod fact;
mod findings;
mod foreign;
mod handshake_stalled;
mod hidden_node;
mod judge;
mod known_scanner;
mod membership;
mod memory;
mod node_identity;
mod node_lost;
mod outdated_otp;
mod parties;
mod protocol_violation;
mod remote_action;
mod sink_failing;
mod stream_tampering;
mod tls_strength;
mod weak_cookie;

#[cfg(test)]
pub(crate) mod testing;

pub use exposure::Exposure;
pub use fact::Fact;
pub use findings::{
    EVIDENCE, FindingStore, Findings, QUIET, Report, SavedFinding, Seen, Span, UPDATE_INTERVAL, option, packet_text,
};
pub use judge::Judge;
pub use parties::{Parties, Party};

use crate::cluster::Cluster;
use crate::event::Event;
use crate::model::Severity;
use crate::policy::Policy;
use crate::time::Timestamp;

/// What the catalogue says of a rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable id, in kebab-case.
    pub id: &'static str,
    /// Default severity.
    pub severity: Severity,
    /// Off unless the policy says otherwise.
    pub off_by_default: bool,
    /// Heading in the catalogue (`Transport`, `Exposure`, …).
    pub group: &'static str,
    /// When it is raised, one sentence.
    pub raised_when: &'static str,
    /// Why it matters, a short paragraph.
    pub rationale: &'static str,
    /// What is shown as evidence.
    pub evidence: &'static str,
    /// What to do about it, a short paragraph.
    pub remediation: &'static str,
    /// Statements of the guideline (`G1` …).
    pub references: &'static [&'static str],
    /// The rule's own numeric options in the policy.
    pub options: &'static [RuleOption],
}

/// A numeric option of a rule.
#[derive(Debug)]
pub struct RuleOption {
    /// Key in `[rules.<id>]`.
    pub name: &'static str,
    /// What holds where nothing is set.
    pub default: u64,
    /// What it means, with its unit.
    pub help: &'static str,
}

/// Something that turns events into findings.
pub trait Detector: Send {
    /// Takes one event. `cluster` already contains it.
    fn handle_event(&mut self, event: &Event, cluster: &Cluster, findings: &mut Findings<'_>);

    /// Whether it is given remote actions too: of all events only they may come once for each control message.
    fn hears_actions(&self) -> bool {
        false
    }

    /// Called when [`Detector::poll_timeout`]'s time has come, and once at the end.
    fn handle_timeout(&mut self, _now: Timestamp, _cluster: &Cluster, _findings: &mut Findings<'_>) {}

    /// Another policy from now on, for what is not asked of [`Findings::policy`]. What it remembers stays.
    fn set_policy(&mut self, _policy: &Policy) {}

    /// Adds what it remembers and would not see again after a restart.
    fn save(&self, _facts: &mut Vec<Fact>) {}

    /// Takes in one such thing from an earlier run, of whichever detector.
    fn restore(&mut self, _fact: &Fact) {}

    /// When it wants to be called.
    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

/// One file of rules: what it can raise, and how its detector is made.
pub struct Family {
    /// Its rules.
    pub rules: &'static [&'static Rule],
    /// Makes the detector for a policy.
    pub detector: fn(&Policy) -> Box<dyn Detector>,
}

/// All families. The order is that of the catalogue.
pub const FAMILIES: &[&Family] = &[
    &cleartext::FAMILY,
    &tls_strength::FAMILY,
    &certificates::FAMILY,
    &exposed_link::FAMILY,
    &epmd::FAMILY,
    &membership::FAMILY,
    &hidden_node::FAMILY,
    &node_identity::FAMILY,
    &node_lost::FAMILY,
    &outdated_otp::FAMILY,
    &cookie_guessing::FAMILY,
    &weak_cookie::FAMILY,
    &cookie_on_the_wire::FAMILY,
    &known_scanner::FAMILY,
    &handshake_stalled::FAMILY,
    &remote_action::FAMILY,
    &foreign::FAMILY,
    &protocol_violation::FAMILY,
    &stream_tampering::FAMILY,
    &capture_loss::FAMILY,
    &blind_sensor::FAMILY,
    &sink_failing::FAMILY,
];

/// All rules, in the order of the catalogue.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.iter().flat_map(|family| family.rules.iter().copied())
}

/// The rule of this id.
#[must_use]
pub fn rule(id: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.id == id)
}

/// Headings of the catalogue.
mod group {
    pub(super) const TRANSPORT: &str = "Transport";
    pub(super) const EXPOSURE: &str = "Exposure";
    pub(super) const MEMBERSHIP: &str = "Membership";
    pub(super) const AUTHENTICATION: &str = "Authentication";
    pub(super) const REMOTE_ACTIONS: &str = "Remote actions";
    pub(super) const STREAM: &str = "Protocol and stream";
    pub(super) const MONITOR: &str = "The monitor itself";
}

#[cfg(test)]
mod tests;
