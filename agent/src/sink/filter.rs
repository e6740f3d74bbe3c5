//! Which records a sink gets: by kind of record, rule and severity, and how many a second.

use std::time::Duration;

use distwatch_engine::model::Severity;
use distwatch_engine::policy::Patterns;

use super::Kind;
use super::outgoing::Outgoing;
use super::settings::{Format, Settings};
use crate::record::EventType;

/// What a sink wants.
#[derive(Debug)]
pub(crate) struct Filter {
    /// By the position in [`EventType::ALL`].
    types: [bool; EventType::ALL.len()],
    rules: Patterns,
    severity: Severity,
}

impl Filter {
    pub(crate) fn new(settings: &Settings, kind: &Kind) -> Self {
        let wants = |event_type: EventType| {
            let alert = event_type == EventType::Alert;
            let asked = match settings.events.is_empty() {
                true => alert || !kind.alerts_unless_asked,
                false => settings.events.matches(event_type.name()),
            };
            asked && (alert || !(kind.only_alerts || settings.format == Format::Ocsf))
        };
        Self { types: EventType::ALL.map(wants), rules: settings.rules.clone(), severity: settings.severity }
    }

    /// Whether the sink gets records of this kind, some of them at least.
    pub(crate) fn wants_kind(&self, kind: EventType) -> bool {
        EventType::ALL.iter().zip(self.types).any(|(known, wanted)| wanted && *known == kind)
    }

    /// Whether the sink gets this record.
    pub(crate) fn wants(&self, record: &Outgoing) -> bool {
        self.wants_kind(record.event_type)
            && record.alert.as_ref().is_none_or(|alert| {
                alert.severity >= self.severity && (self.rules.is_empty() || self.rules.matches(&alert.rule_id))
            })
    }
}

/// Lets so many records a second through, and a second's worth at once. Time is an argument: since any fixed point.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: f64,
    left: f64,
    at: Duration,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), left: f64::from(per_second), at: Duration::ZERO }
    }

    /// Whether one more may go.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = passed.mul_add(self.per_second, self.left).min(self.per_second);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use distwatch_engine::model::AlertStatus;
    use distwatch_engine::time::Timestamp;

    use super::super::outgoing::AlertFacts;
    use super::super::settings::exactly;
    use super::super::{KINDS, kind};
    use super::*;

    fn record(event_type: EventType) -> Outgoing {
        Outgoing { time: Timestamp::EPOCH, event_type, alert: None, line: b"{}".as_slice().into() }
    }

    fn alert(rule_id: &str, severity: Severity) -> Outgoing {
        let alert =
            AlertFacts { severity, rule_id: rule_id.into(), status: AlertStatus::New, fingerprint: String::new() };
        Outgoing { alert: Some(alert), ..record(EventType::Alert) }
    }

    fn filter(settings: Settings) -> Filter {
        Filter::new(&settings, kind("file").unwrap())
    }

    #[test]
    fn severity_and_rules_concern_alerts_and_types_concern_everything() {
        let all = filter(Settings::default());
        assert!(all.wants(&record(EventType::Stats)) && all.wants(&alert("x", Severity::Info)));
        let some = filter(Settings {
            severity: Severity::Medium,
            rules: exactly(&["bad-cookie"]),
            events: exactly(&["alert", "weird"]),
            ..Settings::default()
        });
        assert!(some.wants(&alert("bad-cookie", Severity::Medium)) && some.wants(&record(EventType::Weird)));
        assert!(!some.wants(&alert("bad-cookie", Severity::Low)));
        assert!(!some.wants(&alert("weak-cookie", Severity::Critical)));
        assert!(!some.wants(&record(EventType::Link)));
    }

    #[test]
    fn what_can_only_tell_alerts_gets_nothing_else() {
        let ocsf = filter(Settings { format: Format::Ocsf, ..Settings::default() });
        assert!(ocsf.wants(&alert("x", Severity::Info)) && !ocsf.wants(&record(EventType::Link)));
        for kind in KINDS.iter().filter(|kind| kind.only_alerts || kind.alerts_unless_asked) {
            let filter = Filter::new(&Settings::default(), kind);
            assert!(!filter.wants(&record(EventType::Link)), "{}", kind.name);
        }
    }

    #[test]
    fn a_rate_lets_a_second_of_records_through_and_then_so_many_a_second() {
        let mut limit = RateLimit::new(10);
        let at = Duration::from_secs(100);
        assert_eq!((0..50).filter(|_| limit.take(at)).count(), 10);
        assert_eq!((0..50).filter(|_| limit.take(at + Duration::from_millis(500))).count(), 5);
        assert_eq!((0..50).filter(|_| limit.take(at)).count(), 0, "a clock that goes back gives nothing");
    }
}
