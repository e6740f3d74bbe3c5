//! Findings: stateful conditions with a fingerprint, a count, evidence and a state. Detectors report here, and here alone
//! the policy's word on a rule (on or off, severity, exceptions) is applied.
//!
//! A finding is named by its rule and by a key that the rule chooses, so one condition is one alert. Repeats raise its
//! count and come out as `update` at most once per interval; the end of it comes out as `resolved`. In the final list
//! ([`FindingStore::alerts`]) every finding stands in its last state, resolved ones included.

mod report;
mod saved;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

pub use report::{Report, Seen, Span};
pub use saved::SavedFinding;

use super::Rule;
use super::memory::stable_hash;
use crate::event::FlowInfo;
use crate::limits::Limits;
use crate::model::{Alert, AlertStatus, Confidence, Evidence, Process, ProcessEnd, Severity, SocketProcess};
use crate::packet::PacketRef;
use crate::policy::{Allow, Policy};
use crate::time::Timestamp;

/// How often a finding may come out again: one a minute keeps a person informed and a log small.
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(60);

/// After so long without a repeat a momentary condition counts as ended, so that what is active stays a useful number.
pub const QUIET: Duration = Duration::from_secs(3600);

/// Facts that a finding keeps: half of them the first, half the last.
pub const EVIDENCE: usize = 20;

/// One rule holds at most this part (one fourth) of all findings, so that whoever can provoke one rule at will cannot
/// make the others go silent.
const RULE_SHARE: usize = 4;

/// Resolved findings are given up for new ones when they are at least this part (one tenth) of all, so that the search for
/// them is paid once for many.
const SWEEP_SHARE: usize = 10;

/// Where detectors put findings while they look at an event.
pub struct Findings<'a> {
    /// All findings so far.
    pub(super) store: &'a mut FindingStore,
    /// What the operator allows.
    pub policy: &'a Policy,
}

impl Findings<'_> {
    /// Takes a report, unless the policy silences it.
    pub fn raise<'e>(&mut self, seen: impl Into<Seen<'e>>, report: Report) {
        let settings = self.policy.rules.get(report.rule.id);
        let default = report.asked_for || !report.rule.off_by_default;
        if !settings.and_then(|settings| settings.enabled).unwrap_or(default) {
            return;
        }
        if settings.is_some_and(|settings| settings.allow.iter().any(|allow| allows(allow, &report))) {
            return;
        }
        let fixed = settings.and_then(|settings| settings.severity);
        let severity = fixed.or(report.severity).unwrap_or(report.rule.severity);
        self.store.raise(seen.into(), report, severity);
    }

    /// Says that a condition has ended.
    pub fn resolve(&mut self, rule: &'static Rule, key: &str, time: Timestamp) {
        self.store.resolve(rule, key, time);
    }

    /// The value of a rule's option.
    #[must_use]
    pub fn option(&self, rule: &'static Rule, name: &str) -> u64 {
        option(self.policy, rule, name)
    }
}

/// The value of a rule's option: the policy's, else the default that the rule declares.
#[must_use]
pub fn option(policy: &Policy, rule: &'static Rule, name: &str) -> u64 {
    let set = policy.rules.get(rule.id).and_then(|settings| settings.options.get(name)).copied();
    let default = rule.options.iter().find(|option| option.name == name).map_or(0, |option| option.default);
    set.unwrap_or(default)
}

/// Whether every part of the exception that is given matches.
fn allows(allow: &Allow, report: &Report) -> bool {
    let nodes = allow.nodes.is_empty() || report.names.iter().any(|name| allow.nodes.matches(name));
    let source = report.source.to_canonical();
    let from = allow.from.is_empty() || allow.from.iter().any(|network| network.contains(&source));
    let interfaces = allow.interfaces.is_empty() || report.interfaces.iter().any(|name| allow.interfaces.matches(name));
    let says_nothing = allow.nodes.is_empty() && allow.from.is_empty() && allow.interfaces.is_empty();
    nodes && from && interfaces && !says_nothing
}

/// One finding.
#[derive(Debug)]
struct Finding {
    rule: &'static Rule,
    key: String,
    severity: Severity,
    confidence: Confidence,
    subject: String,
    reason: String,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    first_facts: Vec<Evidence>,
    last_facts: VecDeque<Evidence>,
    flow: Option<Arc<FlowInfo>>,
    /// The process that it is about, and which end of the connection that has.
    process: Option<(ProcessEnd, Arc<Process>)>,
    /// Open connections that the condition lasts with.
    open: u32,
    lasting: bool,
    resolved: bool,
    /// The same condition is told better by another finding.
    superseded: bool,
    /// An earlier run told of it.
    told_before: bool,
    /// Since when the connection that it lasts with could be met again: since an earlier run left it, or since it was given up.
    /// Before that nothing is quiet.
    waits_since: Option<Timestamp>,
    /// Connections that it lasted with and that were given up: none of them was seen to end.
    given_up: u32,
    /// It came out, and not as `resolved`.
    announced: bool,
    queued: bool,
    /// It changed since it last came out.
    changed: bool,
    came_out: Timestamp,
    due: Option<Timestamp>,
}

impl Finding {
    fn fingerprint(&self) -> String {
        format!("{:016x}", stable_hash(&[self.rule.id, &self.key]))
    }

    /// From when on quiet counts.
    fn silent_since(&self) -> Timestamp {
        self.waits_since.map_or(self.last_seen, |since| self.last_seen.max(since))
    }

    fn add_facts(&mut self, seen: Seen<'_>, facts: Vec<(String, Option<String>)>) {
        if self.first_facts.is_empty() {
            // Most findings have no others.
            self.first_facts.reserve_exact(facts.len().min(EVIDENCE / 2));
        }
        for (fact, packet) in facts {
            let packet = packet.or_else(|| packet_text(seen.packet));
            let evidence = Evidence { fact, packet, timestamp: seen.time };
            if self.first_facts.len() < EVIDENCE / 2 {
                self.first_facts.push(evidence);
                continue;
            }
            if self.last_facts.len() >= EVIDENCE - EVIDENCE / 2 {
                self.last_facts.pop_front();
            }
            self.last_facts.push_back(evidence);
        }
    }

    fn alert(&self, status: AlertStatus) -> Alert {
        let flow = self.flow.as_deref();
        Alert {
            rule_id: self.rule.id.to_owned(),
            severity: self.severity,
            level: self.severity.level().to_owned(),
            status,
            fingerprint: self.fingerprint(),
            count: self.count,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            told: self.came_out,
            subject: self.subject.clone(),
            reason: self.reason.clone(),
            evidence: self.first_facts.iter().chain(&self.last_facts).cloned().collect(),
            confidence: self.confidence,
            remediation: self.rule.remediation.to_owned(),
            references: self.rule.references.iter().map(|&id| id.to_owned()).collect(),
            flow_id: flow.map(|flow| flow.id.clone()),
            src_ip: flow.map(|flow| flow.initiator.ip()),
            src_port: flow.map(|flow| flow.initiator.port()),
            dest_ip: flow.map(|flow| flow.acceptor.ip()),
            dest_port: flow.map(|flow| flow.acceptor.port()),
            in_iface: flow.map(|flow| flow.interface.clone()).filter(|name| !name.is_empty()),
            process: self.process.as_ref().map(|(_, process)| Process::clone(process)),
            process_end: self.process.as_ref().map(|&(end, _)| end),
        }
    }
}

/// All findings, and what of them has not come out yet.
#[derive(Debug)]
pub struct FindingStore {
    limit: usize,
    connections: usize,
    update_interval: Duration,
    quiet: Duration,
    next: u64,
    /// In boxes: the leaves of a map that only grows at its end are half empty.
    findings: BTreeMap<u64, Box<Finding>>,
    ids: HashMap<(&'static str, String), u64>,
    per_rule: BTreeMap<&'static str, usize>,
    resolved: usize,
    /// What an open connection has been reported for, and whether the finding lasts with it.
    by_flow: HashMap<String, Vec<(u64, bool)>>,
    /// The same of connections that an earlier run knew, or that were given up, and that have not been met again yet.
    by_ends: HashMap<(SocketAddr, SocketAddr), Vec<(u64, bool)>>,
    due: BTreeSet<(Timestamp, u64)>,
    changes: VecDeque<u64>,
    /// What came out since it was asked for last, where somebody asks.
    came_out: Option<BTreeSet<u64>>,
    limits_reached: BTreeMap<&'static str, u64>,
}

impl FindingStore {
    /// An empty one.
    #[must_use]
    pub fn new(limits: &Limits, update_interval: Duration) -> Self {
        Self {
            limit: limits.findings.max(1),
            connections: limits.report_entries.max(1),
            update_interval,
            quiet: QUIET,
            next: 0,
            findings: BTreeMap::new(),
            ids: HashMap::new(),
            per_rule: BTreeMap::new(),
            resolved: 0,
            by_flow: HashMap::new(),
            by_ends: HashMap::new(),
            due: BTreeSet::new(),
            changes: VecDeque::new(),
            came_out: None,
            limits_reached: BTreeMap::new(),
        }
    }

    /// The next change, in the order in which they happened. A finding that changed several times before it was asked
    /// for comes out once.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        while let Some(id) = self.changes.pop_front() {
            let Some(finding) = self.findings.get_mut(&id) else { continue };
            finding.queued = false;
            finding.changed = false;
            if finding.superseded && !finding.announced {
                // It gave way before anybody heard of it.
                continue;
            }
            let status = match (finding.resolved, finding.announced) {
                (true, _) => AlertStatus::Resolved,
                (false, false) => AlertStatus::New,
                (false, true) => AlertStatus::Update,
            };
            finding.announced = !finding.resolved;
            if let Some(came_out) = &mut self.came_out {
                came_out.insert(id);
            }
            return Some(finding.alert(status));
        }
        None
    }

    /// All findings in their last state: the worst first, then the oldest.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let mut alerts: Vec<Alert> =
            self.findings.values().filter(|finding| !finding.superseded).map(|finding| last_state(finding)).collect();
        alerts.sort_by(|a, b| {
            let key = |alert: &'_ Alert| (std::cmp::Reverse(alert.severity), alert.first_seen);
            key(a).cmp(&key(b)).then_with(|| (&a.rule_id, &a.fingerprint).cmp(&(&b.rule_id, &b.fingerprint)))
        });
        alerts
    }

    /// What was told last of the findings with these fingerprints got lost on its way: it is told again.
    pub fn tell_again(&mut self, fingerprints: &BTreeSet<String>, now: Timestamp) {
        let lost: Vec<u64> = self
            .findings
            .iter()
            .filter(|(_, finding)| fingerprints.contains(&finding.fingerprint()))
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            self.come_out(id, now);
            self.schedule(id);
        }
    }

    /// Limits that were reached, and how many findings were not kept for it.
    #[must_use]
    pub const fn limits_reached(&self) -> &BTreeMap<&'static str, u64> {
        &self.limits_reached
    }

    /// When [`FindingStore::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|&(time, _)| time)
    }

    /// Lets updates that were held back come out, and momentary conditions end.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(time, id)) = self.due.first() {
            if time > now {
                return;
            }
            self.due.pop_first();
            let (interval, quiet) = (self.update_interval, self.quiet);
            let Some(finding) = self.findings.get_mut(&id) else { continue };
            finding.due = None;
            // By the very sums that the timer was set to: at the end of time they saturate, and a difference would never
            // reach what the timer waits for.
            let held_back = finding.changed && finding.came_out.plus(interval) <= now;
            let over = !finding.lasting && !finding.resolved && finding.silent_since().plus(quiet) <= now;
            if over {
                self.end(id, now);
            } else if held_back {
                self.come_out(id, now);
            }
            self.schedule(id);
        }
    }

    /// Lets every update that was held back come out, whatever the interval.
    pub fn finish(&mut self, now: Timestamp) {
        let waiting: Vec<u64> =
            self.findings.iter().filter(|(_, finding)| finding.changed && !finding.queued).map(|(&id, _)| id).collect();
        for id in waiting {
            self.come_out(id, now);
        }
    }

    /// A connection ended, and with it the conditions that last as long as it.
    pub(super) fn handle_closed(&mut self, flow_id: &str, time: Timestamp) {
        for (id, lasts) in self.by_flow.remove(flow_id).unwrap_or_default() {
            let Some(finding) = self.findings.get_mut(&id).filter(|_| lasts) else { continue };
            finding.open = finding.open.saturating_sub(1);
            if finding.open > 0 {
                continue;
            }
            let may_go_on = finding.given_up > 0 && finding.silent_since().plus(self.quiet) > time;
            if may_go_on {
                finding.lasting = false;
                self.schedule(id);
            } else {
                self.end(id, time);
            }
        }
    }

    /// A connection was given up to save memory, and goes on for all that is known: what lasts with it goes on as well, until it
    /// is met again and ends, or until it has been quiet for long.
    pub(super) fn handle_given_up(&mut self, flow: &FlowInfo, time: Timestamp) {
        let Some(held) = self.by_flow.remove(&flow.id) else { return };
        for &(id, _) in held.iter().filter(|(_, lasts)| *lasts) {
            let Some(finding) = self.findings.get_mut(&id) else { continue };
            finding.open = finding.open.saturating_sub(1);
            finding.given_up = finding.given_up.saturating_add(1);
            finding.waits_since = Some(time);
            if finding.open == 0 {
                finding.lasting = false;
                self.schedule(id);
            }
        }
        self.expect_held((flow.initiator, flow.acceptor), held);
    }

    pub(super) fn raise(&mut self, seen: Seen<'_>, report: Report, severity: Severity) {
        let flow_id = seen.flow.map(|flow| flow.id.as_str());
        let Some(id) = self.ids.get(&(report.rule.id, report.key.clone())).copied() else {
            self.supersede(&report, flow_id, seen.time);
            self.add(seen, report, severity);
            return;
        };
        let first_of_link = report.span == Span::Moment || !self.is_reported(flow_id, id);
        if first_of_link {
            self.supersede(&report, flow_id, seen.time);
            self.hold(flow_id, id, report.span);
        }
        let Some(finding) = self.findings.get_mut(&id) else { return };
        let raised = severity > finding.severity;
        if !first_of_link && !raised && report.confidence <= finding.confidence {
            return;
        }
        let back = first_of_link && finding.resolved;
        if raised || first_of_link {
            finding.reason = report.reason;
            finding.last_seen = finding.last_seen.max(seen.time);
            // The process of another connection says nothing of this one, for which it may not be known yet.
            let is_another =
                seen.flow.is_some_and(|flow| finding.flow.as_ref().is_none_or(|known| known.id != flow.id));
            let known = finding.process.take().filter(|_| !is_another);
            finding.flow = seen.flow.cloned().or(finding.flow.take());
            finding.process = report.process.or(known);
            finding.add_facts(seen, report.facts);
        }
        finding.severity = finding.severity.max(severity);
        finding.confidence = finding.confidence.max(report.confidence);
        finding.count = finding.count.saturating_add(u64::from(first_of_link));
        finding.changed = true;
        if back {
            finding.resolved = false;
            finding.superseded = false;
            self.resolved = self.resolved.saturating_sub(1);
        }
        let interval_over = seen.time.since(finding.came_out) >= self.update_interval;
        if back || raised || interval_over {
            self.come_out(id, seen.time);
        }
        self.schedule(id);
    }

    /// The process behind an end of a connection became known after something was found on it: what was told without is told
    /// once more, as more is known.
    pub(super) fn attribute(&mut self, flow_id: &str, process: &SocketProcess, time: Timestamp) {
        let mut known = None;
        for (id, _) in self.by_flow.get(flow_id).cloned().unwrap_or_default() {
            let Some(finding) = self.findings.get_mut(&id) else { continue };
            let is_its = finding.flow.as_ref().is_none_or(|flow| flow.id == flow_id);
            let is_known = finding
                .process
                .as_ref()
                .is_some_and(|(end, known)| *end != process.end || known.pid == process.process.pid);
            if finding.resolved || !is_its || is_known {
                continue;
            }
            let known = known.get_or_insert_with(|| Arc::new(process.process.clone()));
            finding.process = Some((process.end, Arc::clone(known)));
            finding.changed = true;
            // Of what an earlier run told, nobody waits for it; nor of what was told before, of another connection.
            if !finding.told_before && finding.count == 1 {
                self.come_out(id, time);
            }
            self.schedule(id);
        }
    }

    pub(super) fn resolve(&mut self, rule: &'static Rule, key: &str, time: Timestamp) {
        if let Some(&id) = self.ids.get(&(rule.id, key.to_owned())) {
            self.end(id, time);
        }
    }

    fn add(&mut self, seen: Seen<'_>, report: Report, severity: Severity) {
        if !self.has_room(report.rule.id) {
            let count = self.limits_reached.entry("findings").or_default();
            *count = count.saturating_add(1);
            return;
        }
        let id = self.next;
        self.next = self.next.saturating_add(1);
        let flow_id = seen.flow.map(|flow| flow.id.as_str());
        let mut finding = Box::new(Finding {
            rule: report.rule,
            key: report.key.clone(),
            severity,
            confidence: report.confidence,
            subject: report.subject,
            reason: report.reason,
            count: 1,
            first_seen: seen.time,
            last_seen: seen.time,
            first_facts: Vec::new(),
            last_facts: VecDeque::new(),
            flow: seen.flow.cloned(),
            process: report.process,
            open: 0,
            lasting: false,
            resolved: false,
            superseded: false,
            told_before: false,
            waits_since: None,
            given_up: 0,
            announced: false,
            queued: false,
            changed: true,
            came_out: seen.time,
            due: None,
        });
        finding.add_facts(seen, report.facts);
        *self.per_rule.entry(report.rule.id).or_default() += 1;
        self.ids.insert((report.rule.id, report.key), id);
        self.findings.insert(id, finding);
        self.hold(flow_id, id, report.span);
        self.come_out(id, seen.time);
        self.schedule(id);
    }

    /// Whether there is room for one more of this rule; makes some by giving up what is resolved.
    fn has_room(&mut self, rule: &'static str) -> bool {
        let share = (self.limit / RULE_SHARE).max(1);
        let fits =
            |store: &Self| store.findings.len() < store.limit && store.per_rule.get(rule).copied().unwrap_or(0) < share;
        if fits(self) {
            return true;
        }
        let worth_a_sweep = self.resolved > 0 && self.resolved >= self.findings.len() / SWEEP_SHARE;
        if !worth_a_sweep {
            return false;
        }
        let gone: Vec<u64> = self
            .findings
            .iter()
            .filter(|(_, finding)| finding.resolved && !finding.queued)
            .map(|(&id, _)| id)
            .collect();
        let count = self.limits_reached.entry("findings").or_default();
        *count = count.saturating_add(gone.len() as u64);
        for id in gone {
            self.forget(id);
        }
        fits(self)
    }

    fn forget(&mut self, id: u64) {
        let Some(finding) = self.findings.remove(&id) else { return };
        if let Some(due) = finding.due {
            self.due.remove(&(due, id));
        }
        if finding.resolved {
            self.resolved = self.resolved.saturating_sub(1);
        }
        if let Some(count) = self.per_rule.get_mut(finding.rule.id) {
            *count = count.saturating_sub(1);
        }
        self.ids.remove(&(finding.rule.id, finding.key));
    }

    /// The same connection was reported under its addresses before its names were known: that finding gives way.
    fn supersede(&mut self, report: &Report, flow_id: Option<&str>, time: Timestamp) {
        let Some(old_key) = report.supersedes.as_ref().filter(|&key| *key != report.key) else { return };
        let Some(&old) = self.ids.get(&(report.rule.id, old_key.clone())) else { return };
        let Some(held) = flow_id.and_then(|flow_id| self.by_flow.get_mut(flow_id)) else { return };
        let Some(place) = held.iter().position(|&(id, _)| id == old) else { return };
        let (_, lasts) = held.swap_remove(place);
        let Some(finding) = self.findings.get_mut(&old) else { return };
        finding.open = finding.open.saturating_sub(u32::from(lasts));
        if finding.count == 1 {
            finding.superseded = true;
        }
        if finding.open == 0 {
            self.end(old, time);
        }
    }

    fn is_reported(&self, flow_id: Option<&str>, id: u64) -> bool {
        let held = flow_id.and_then(|flow_id| self.by_flow.get(flow_id));
        held.is_some_and(|held| held.iter().any(|&(other, _)| other == id))
    }

    /// Notes that a connection was reported for a finding. Beyond the limit nothing is noted: then repeats count, and the
    /// finding ends by quiet instead of with the connection.
    fn hold(&mut self, flow_id: Option<&str>, id: u64, span: Span) {
        let Some(flow_id) = flow_id.filter(|_| span != Span::Moment) else { return };
        if self.by_flow.len() >= self.connections && !self.by_flow.contains_key(flow_id) {
            let count = self.limits_reached.entry("report_entries").or_default();
            *count = count.saturating_add(1);
            return;
        }
        let lasts = span == Span::WhileLinkOpen;
        self.by_flow.entry_ref(flow_id).or_default().push((id, lasts));
        if let Some(finding) = self.findings.get_mut(&id).filter(|_| lasts) {
            finding.open = finding.open.saturating_add(1);
            finding.lasting = true;
        }
    }

    fn end(&mut self, id: u64, time: Timestamp) {
        let Some(finding) = self.findings.get_mut(&id).filter(|finding| !finding.resolved) else { return };
        finding.resolved = true;
        finding.changed = true;
        self.resolved += 1;
        self.come_out(id, time);
    }

    fn come_out(&mut self, id: u64, time: Timestamp) {
        let Some(finding) = self.findings.get_mut(&id) else { return };
        finding.came_out = time;
        if !finding.queued {
            finding.queued = true;
            self.changes.push_back(id);
        }
    }

    /// Sets the finding's one timer: for the update that is held back, or for the end by quiet.
    fn schedule(&mut self, id: u64) {
        let Some(finding) = self.findings.get_mut(&id) else { return };
        let update = (finding.changed && !finding.queued).then(|| finding.came_out.plus(self.update_interval));
        let end = (!finding.lasting && !finding.resolved).then(|| finding.silent_since().plus(self.quiet));
        let due = [update, end].into_iter().flatten().min();
        if finding.due == due {
            return;
        }
        if let Some(old) = finding.due {
            self.due.remove(&(old, id));
        }
        finding.due = due;
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }
}

fn last_state(finding: &Finding) -> Alert {
    let status = match (finding.resolved, finding.count) {
        (true, _) => AlertStatus::Resolved,
        (false, 1) if !finding.told_before => AlertStatus::New,
        (false, _) => AlertStatus::Update,
    };
    finding.alert(status)
}

/// A packet as evidence names it: its number, with the capture's place before it where it is not the first capture.
#[must_use]
pub fn packet_text(packet: PacketRef) -> Option<String> {
    match packet {
        PacketRef { number: 0, .. } => None,
        PacketRef { capture: 0, number } => Some(number.to_string()),
        PacketRef { capture, number } => Some(format!("{capture}:{number}")),
    }
}

#[cfg(test)]
mod tests;
