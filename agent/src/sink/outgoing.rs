//! One record on its way out: made once, shared by all sinks.

use std::sync::Arc;

use distwatch_engine::model::{AlertStatus, Severity};
use distwatch_engine::time::Timestamp;

use crate::record::{Body, EventType, Record};

/// A record as all sinks get it. Cheap to clone: the line is shared.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// When it became known.
    pub time: Timestamp,
    /// What it is.
    pub event_type: EventType,
    /// What filters ask of an alert; `None` for every other kind of record.
    pub alert: Option<AlertFacts>,
    /// The JSON object, without a line feed.
    pub line: Arc<[u8]>,
}

/// What filters ask of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertFacts {
    /// How much it matters.
    pub severity: Severity,
    /// Id in the catalogue.
    pub rule_id: String,
    /// New, update or resolved.
    pub status: AlertStatus,
    /// What names its condition.
    pub fingerprint: String,
}

impl Outgoing {
    /// Serialises the record. This is the only time that it is.
    #[must_use]
    pub fn new(record: &Record<'_>) -> Self {
        let alert = match record.body {
            Body::Alert(alert) => Some(AlertFacts {
                severity: alert.severity,
                rule_id: alert.rule_id.clone(),
                status: alert.status,
                fingerprint: alert.fingerprint.clone(),
            }),
            _ => None,
        };
        let mut line = Vec::with_capacity(1024);
        record.write_line(&mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Self { time: record.timestamp, event_type: record.event_type, alert, line: line.into() }
    }
}
