//! What is kept of findings over a restart, so that none is new twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::rules;
use super::{Finding, FindingStore};
use crate::model::{Confidence, Severity};
use crate::time::Timestamp;

/// A finding that has come out and not ended, in a form that can be written to disk and read by a later version.
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
}

impl FindingStore {
    /// All findings that have come out and not ended.
    #[must_use]
    pub fn saved(&self) -> Vec<SavedFinding> {
        let lasting = self.findings.values().filter(|finding| !finding.resolved && !finding.superseded);
        lasting
            .map(|finding| SavedFinding {
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
            })
            .collect()
    }

    /// Takes in what an earlier run saved, before anything is raised. What is raised again counts as a repeat; what is not
    /// ends by quiet, since whether its connection is still there cannot be known. Rules that are no more are left out, and
    /// so is what there is no room for, which is counted.
    pub fn restore(&mut self, saved: Vec<SavedFinding>) {
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
            let finding = Finding {
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
                open: 0,
                lasting: false,
                resolved: false,
                superseded: false,
                announced: true,
                queued: false,
                changed: false,
                came_out: Timestamp::from_nanos(one.came_out),
                due: None,
            };
            *self.per_rule.entry(rule.id).or_default() += 1;
            self.ids.insert((rule.id, one.key), id);
            self.findings.insert(id, finding);
            self.schedule(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::testing::{Bench, established};
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
        let saved = before.judge.findings().saved();
        let text = serde_json::to_string(&saved).unwrap();

        let mut after = Bench::new(Policy::default());
        after.judge.restore(serde_json::from_str(&text).unwrap());
        let kept = after.only("cleartext-distribution");
        assert_eq!((kept.fingerprint, kept.count, kept.first_seen), (first.fingerprint, 1, first.first_seen));
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
        };
        let mut store = FindingStore::new(&Limits::default(), Duration::from_secs(60));
        store.restore(vec![one("no-such-rule"), one("bad-cookie"), one("bad-cookie")]);
        assert_eq!(store.alerts().len(), 1);
        assert_eq!(store.poll_alert(), None, "nothing comes out for having been read");
        store.handle_timeout(Timestamp::from_parts(7200, 0));
        assert_eq!(store.poll_alert().map(|alert| (alert.status, alert.count)), Some((AlertStatus::Resolved, 3)));
        assert_eq!(store.saved(), []);
    }
}
