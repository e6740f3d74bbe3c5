//! Findings: stateful conditions with a fingerprint, a count and a state.
use super::Rule;
use crate::event::Event;
use crate::model::{Alert, Confidence, Severity};
/// A condition that a detector reports.
pub struct Finding {
    pub rule: &'static Rule,
    pub severity: Severity,
    pub subject: String,
    pub reason: String,
    pub confidence: Confidence,
}
/// The place where detectors put findings.
pub struct Findings<'a> {
    _p: std::marker::PhantomData<(&'a Event, Alert)>,
}
