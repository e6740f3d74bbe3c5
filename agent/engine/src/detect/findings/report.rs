//! What a detector hands in: who, what, how bad, how sure, and how long it lasts.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Parties, Rule};
use crate::event::{Event, FlowInfo};
use crate::model::{Confidence, Process, ProcessEnd, Severity};
use crate::packet::PacketRef;
use crate::time::Timestamp;

/// How long a condition lasts, and what counts as a repeat of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// It happens at a moment; every report counts.
    Moment,
    /// It happens at a moment; reports of the same connection count once.
    OncePerLink,
    /// It lasts as long as the connection; reports of the same connection count once.
    WhileLinkOpen,
}

/// When and where something was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When.
    pub time: Timestamp,
    /// In which packet; number 0 where a time-out showed it.
    pub packet: PacketRef,
    /// On which connection, where it is one's.
    pub flow: Option<&'a Arc<FlowInfo>>,
}

impl<'a> From<&'a Event> for Seen<'a> {
    fn from(event: &'a Event) -> Self {
        Self { time: event.time, packet: event.packet, flow: event.flow.as_ref() }
    }
}

/// What a detector has to say.
#[derive(Debug)]
pub struct Report {
    pub(super) rule: &'static Rule,
    pub(super) key: String,
    pub(super) supersedes: Option<String>,
    pub(super) subject: String,
    pub(super) reason: String,
    pub(super) severity: Option<Severity>,
    pub(super) confidence: Confidence,
    pub(super) facts: Vec<(String, Option<String>)>,
    pub(super) span: Span,
    pub(super) names: Vec<String>,
    pub(super) source: IpAddr,
    pub(super) interfaces: Vec<String>,
    pub(super) asked_for: bool,
    pub(super) process: Option<(ProcessEnd, Arc<Process>)>,
}

impl Report {
    /// A report about two ends. Without further words the condition is "this rule, from this end to that", it happens
    /// at a moment and has the rule's own severity.
    #[must_use]
    pub fn new(rule: &'static Rule, parties: &Parties, reason: impl Into<String>) -> Self {
        Self {
            rule,
            key: parties.key(),
            supersedes: Some(parties.address_key()),
            subject: parties.to_string(),
            reason: reason.into(),
            severity: None,
            confidence: parties.confidence(),
            facts: Vec::new(),
            span: Span::Moment,
            names: parties.names().map(str::to_owned).collect(),
            source: parties.from.ip,
            interfaces: parties.interfaces.clone(),
            asked_for: false,
            process: parties.process(),
        }
    }

    /// Another key than the two ends. It must be the same for the same condition, over restarts.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self.supersedes = None;
        self
    }

    /// Another subject than the two ends.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Another severity than the rule's.
    #[must_use]
    pub const fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    /// How sure it is.
    #[must_use]
    pub fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = self.confidence.min(confidence);
        self
    }

    /// A fact, seen in the event's packet.
    #[must_use]
    pub fn fact(mut self, fact: impl Into<String>) -> Self {
        self.facts.push((fact.into(), None));
        self
    }

    /// A fact with a packet of its own.
    #[must_use]
    pub fn fact_at(mut self, fact: impl Into<String>, packet: impl Into<String>) -> Self {
        self.facts.push((fact.into(), Some(packet.into())));
        self
    }

    /// How long it lasts.
    #[must_use]
    pub const fn span(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// The policy asked for this by other means than the rule's `enabled`.
    #[must_use]
    pub const fn asked_for(mut self) -> Self {
        self.asked_for = true;
        self
    }
}
