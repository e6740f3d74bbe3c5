//! What is kept of findings over a restart, so that none is new twice.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::rules;
use super::{Finding, FindingStore};
use crate::model::{Confidence, Severity};
use crate::saved::SavedHold;
use crate::time::Timestamp;

/// How long a finding that has ended is kept: what comes back within a week goes on counting where it stopped.
const ENDED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A finding, in a form that can be written to disk and read by a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFinding {
    rule: String,
    key: String,
    severity: String,
    confidence: u8,
    subject: String,
    reason: String,
    count: u64,
    /// Nanoseconds since the epoch, like the other two.
    first_seen: i64,
    last_seen: i64,
    came_out: i64,
    /// It lasts as long as a connection.
    #[serde(default)]
    lasting: bool,
    /// It has ended.
    #[serde(default)]
    resolved: bool,
}

impl SavedFinding {
    fn of(finding: &Finding) -> Self {
        Self {
            rule: finding.rule.id.to_owned(),
            key: finding.key.clone(),
            severity: finding.severity.name().to_owned(),
            confidence: finding.confidence as u8,
            subject: finding.subject.clone(),
            reason: finding.reason.clone(),
            count: finding.count,
            first_seen: finding.first_seen.as_nanos(),
            last_seen: finding.last_seen.as_nanos(),
            came_out: finding.came_out.as_nanos(),
            // One that an earlier run knew to last does so until its connection could be met.
            lasting: finding.lasting || finding.waits_since.is_some(),
            resolved: finding.resolved,
        }
    }

    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> (&str, &str) {
        (&self.rule, &self.key)
    }
}

impl FindingStore {
    /// All findings that are told of, and those that ended not long before `now`.
    #[must_use]
    pub fn saved(&self, now: Timestamp) -> Vec<SavedFinding> {
        let is_kept =
            |finding: &Finding| !finding.superseded && (!finding.resolved || now.since(finding.came_out) <= ENDED_KEPT);
        self.findings.values().filter(|finding| is_kept(finding)).map(|finding| SavedFinding::of(finding)).collect()
    }

    /// From now on it is noted what comes out.
    pub(crate) fn note_what_comes_out(&mut self) {
        self.came_out = Some(BTreeSet::new());
    }

    /// What came out since it was asked for last, and the connections that it is about.
    pub(crate) fn take_what_came_out(&mut self) -> Vec<(SavedFinding, Option<String>)> {
        let ids = self.came_out.as_mut().map(std::mem::take).unwrap_or_default();
        let known = ids.into_iter().filter_map(|id| self.findings.get(&id)).filter(|finding| !finding.superseded);
        known.map(|finding| (SavedFinding::of(finding), finding.flow.as_ref().map(|flow| flow.id.clone()))).collect()
    }

    /// What a connection has been reported for.
    #[must_use]
    pub fn holds(&self, flow_id: &str) -> Vec<SavedHold> {
        let held = self.by_flow.get(flow_id).into_iter().flatten();
        let known = held.filter_map(|&(id, lasts)| Some((self.findings.get(&id)?, lasts)));
        known
            .map(|(finding, lasts)| SavedHold { rule: finding.rule.id.to_owned(), key: finding.key.clone(), lasts })
            .collect()
    }

    /// Takes in what an earlier run saved, before anything is raised. What is raised again counts as a repeat. What is not ends
    /// by quiet; for what lasted with a connection that begins `now`, when the connection can first be met again. Rules
    /// that are no more are left out, and so is what there is no room for, which is counted.
    pub fn restore(&mut self, saved: Vec<SavedFinding>, now: Timestamp) {
        for one in saved {
            let Some(rule) = rules().find(|rule| rule.id == one.rule) else { continue };
            if self.ids.contains_key(&(rule.id, one.key.clone())) {
                continue;
            }
            if !self.has_room(rule.id) {
                let count = self.limits_reached.entry("findings").or_default();
                *count = count.saturating_add(1);
                continue;
            }
            let id = self.next;
            self.next = self.next.saturating_add(1);
            let confidence = match one.confidence {
                0 => Confidence::Possible,
                1 => Confidence::Likely,
                _ => Confidence::Certain,
            };
            let finding = Box::new(Finding {
                rule,
                key: one.key.clone(),
                severity: Severity::from_name(&one.severity).unwrap_or(rule.severity),
                confidence,
                subject: one.subject,
                reason: one.reason,
                count: one.count,
                first_seen: Timestamp::from_nanos(one.first_seen),
                last_seen: Timestamp::from_nanos(one.last_seen),
                first_facts: Vec::new(),
                last_facts: VecDeque::new(),
                flow: None,
                process: None,
                open: 0,
                lasting: false,
                resolved: one.resolved,
                superseded: false,
                told_before: true,
                waits_since: (one.lasting && !one.resolved).then_some(now),
                given_up: 0,
                announced: !one.resolved,
                queued: false,
                changed: false,
                came_out: Timestamp::from_nanos(one.came_out),
                due: None,
            });
            self.resolved += usize::from(one.resolved);
            *self.per_rule.entry(rule.id).or_default() += 1;
            self.ids.insert((rule.id, one.key), id);
            self.findings.insert(id, finding);
            self.schedule(id);
        }
    }

    /// Takes in what a connection was reported for that an earlier run knew.
    pub(in super::super) fn expect(&mut self, ends: (SocketAddr, SocketAddr), holds: &[SavedHold]) {
        let id = |hold: &SavedHold| {
            let rule = rules().find(|rule| rule.id == hold.rule)?;
            Some((*self.ids.get(&(rule.id, hold.key.clone()))?, hold.lasts))
        };
        self.expect_held(ends, holds.iter().filter_map(id).collect());
    }

    /// Beyond the limit nothing is noted: then what is met again is reported anew.
    pub(super) fn expect_held(&mut self, ends: (SocketAddr, SocketAddr), held: Vec<(u64, bool)>) {
        if held.is_empty() {
            return;
        }
        if self.by_ends.len() >= self.connections && !self.by_ends.contains_key(&ends) {
            let count = self.limits_reached.entry("report_entries").or_default();
            *count = count.saturating_add(1);
            return;
        }
        self.by_ends.insert(ends, held);
    }

    /// That connection was met: what it was reported for before is no news, and lasts with it again.
    pub(in super::super) fn resume(&mut self, ends: (SocketAddr, SocketAddr), flow_id: &str) {
        for (id, lasts) in self.by_ends.remove(&ends).unwrap_or_default() {
            self.by_flow.entry_ref(flow_id).or_default().push((id, lasts));
            if let Some(finding) = self.findings.get_mut(&id).filter(|finding| lasts && !finding.resolved) {
                finding.open = finding.open.saturating_add(1);
                finding.given_up = finding.given_up.saturating_sub(1);
                (finding.lasting, finding.waits_since) = (true, None);
                self.schedule(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::testing::{Bench, at, established};
    use super::*;
    use crate::event::LinkChange;
    use crate::limits::Limits;
    use crate::model::AlertStatus;
    use crate::policy::Policy;

    #[test]
    fn a_finding_of_an_earlier_run_is_not_new_again_and_keeps_its_count_and_fingerprint() {
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, &established("f1"));
        let first = before.only("cleartext-distribution");
        let saved = before.judge.findings().saved(at(1));
        let text = serde_json::to_string(&saved).unwrap();

        let mut after = Bench::new(Policy::default());
        after.judge.restore(serde_json::from_str(&text).unwrap(), at(2));
        let kept = after.only("cleartext-distribution");
        assert_eq!((kept.fingerprint, kept.count, kept.first_seen), (first.fingerprint, 1, first.first_seen));
        assert_eq!(kept.status, AlertStatus::Update, "it was new to the earlier run");
        after.link(LinkChange::Handshake, &established("f2"));
        let again = after.only("cleartext-distribution");
        assert_eq!((again.count, again.status), (2, AlertStatus::Update));
        let came_out: Vec<_> = std::iter::from_fn(|| after.judge.poll_alert()).collect();
        let is_new = |alert: &&crate::model::Alert| alert.status == AlertStatus::New;
        assert_eq!(came_out.iter().filter(is_new).find(|alert| alert.rule_id == "cleartext-distribution"), None);
    }

    #[test]
    fn what_is_not_raised_again_ends_by_quiet_and_unknown_rules_are_left_out() {
        let one = |rule: &str| SavedFinding {
            rule: rule.to_owned(),
            key: "k".to_owned(),
            severity: "high".to_owned(),
            confidence: 2,
            subject: "s".to_owned(),
            reason: "r".to_owned(),
            count: 3,
            first_seen: 0,
            last_seen: 1_000_000_000,
            came_out: 1_000_000_000,
            lasting: false,
            resolved: false,
        };
        let mut store = FindingStore::new(&Limits::default(), Duration::from_secs(60));
        store.restore(vec![one("no-such-rule"), one("bad-cookie"), one("bad-cookie")], Timestamp::from_nanos(0));
        assert_eq!(store.alerts().len(), 1);
        assert_eq!(store.poll_alert(), None, "nothing comes out for having been read");
        store.handle_timeout(Timestamp::from_parts(7200, 0));
        assert_eq!(store.poll_alert().map(|alert| (alert.status, alert.count)), Some((AlertStatus::Resolved, 3)));
        let saved = store.saved(Timestamp::from_parts(7200, 0));
        assert_eq!(saved.iter().map(|one| (one.resolved, one.count)).collect::<Vec<_>>(), [(true, 3)]);
        assert_eq!(store.saved(Timestamp::from_parts(30 * 24 * 3600, 0)), [], "nothing is kept for ever");
    }

    /// A second run that has what the first one saved after it saw `link`, ten hours later.
    fn second_run(link: &crate::model::Link) -> Bench {
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, link);
        let (first, store) = (before.only("cleartext-distribution"), before.judge.findings());
        let ends = ends(link);
        let (saved, holds) = (store.saved(at(36_000)), store.holds(&link.flow_id));
        assert_eq!(first.status, AlertStatus::New);
        let mut after = Bench::new(Policy::default());
        after.now = 36_001;
        after.judge.restore(saved, at(36_001));
        after.judge.expect(ends, &holds);
        after
    }

    fn ends(link: &crate::model::Link) -> (SocketAddr, SocketAddr) {
        let [initiator, acceptor] = [&link.initiator, &link.acceptor].map(|end| SocketAddr::new(end.ip, end.port));
        (initiator, acceptor)
    }

    fn statuses(bench: &mut Bench) -> Vec<(AlertStatus, u64)> {
        let all = std::iter::from_fn(|| bench.judge.poll_alert());
        all.filter(|alert| alert.rule_id == "cleartext-distribution").map(|alert| (alert.status, alert.count)).collect()
    }

    #[test]
    fn a_connection_that_is_met_again_is_no_repeat_and_the_finding_ends_with_it() {
        let mut link = established("f1");
        let mut after = second_run(&link);
        link.flow_id = "f2".into();
        (link.mid_stream, link.resumed) = (true, true);
        after.link(LinkChange::Opened, &link);
        after.link(LinkChange::Handshake, &link);
        after.judge.handle_timeout(at(36_000 + 3 * 3600), &after.cluster);
        assert_eq!(statuses(&mut after), [], "it goes on, and nothing is new about it");
        after.close(&mut link);
        assert_eq!(statuses(&mut after), [(AlertStatus::Resolved, 1)]);
    }

    #[test]
    fn a_connection_that_is_not_met_again_is_waited_for_and_then_its_finding_ends() {
        let mut after = second_run(&established("f1"));
        after.judge.handle_timeout(at(36_000 + 3600), &after.cluster);
        assert_eq!(statuses(&mut after), [], "that it was quiet for ten hours says nothing: it lasted");
        after.judge.handle_timeout(at(36_001 + 3600), &after.cluster);
        assert_eq!(statuses(&mut after), [(AlertStatus::Resolved, 1)]);
    }

    #[test]
    fn what_had_ended_is_new_again_and_counts_on() {
        let mut link = established("f1");
        let mut before = Bench::new(Policy::default());
        before.link(LinkChange::Handshake, &link);
        before.close(&mut link);
        let mut after = Bench::new(Policy::default());
        after.judge.restore(before.judge.findings().saved(at(1)), at(2));
        assert_eq!(statuses(&mut after), []);
        after.link(LinkChange::Handshake, &established("f2"));
        assert_eq!(statuses(&mut after), [(AlertStatus::New, 2)]);
    }
}
