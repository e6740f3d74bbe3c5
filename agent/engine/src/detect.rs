//! Judgement: events in, findings out. One rule or one family of rules a file; this file is the list of them.
//!
//! To add a rule: a file with its documentation, a [`Rule`] and an `impl Detector`, and one line in [`FAMILIES`].

mod findings;

pub use findings::{Finding, Findings};

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

    /// Called when [`Detector::poll_timeout`]'s time has come, and once at the end.
    fn handle_timeout(&mut self, _now: Timestamp, _cluster: &Cluster, _findings: &mut Findings<'_>) {}

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
pub const FAMILIES: &[&Family] = &[];

/// All rules, in the order of the catalogue.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.iter().flat_map(|family| family.rules.iter().copied())
}
