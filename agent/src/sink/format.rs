//! The shapes in which a record can leave: ours, OCSF, ECS.

mod ecs;
mod ocsf;

use std::borrow::Cow;

use distwatch_engine::model::Severity;
use serde_json::Value;

use super::deliver::Entry;
use super::settings::Format;
use crate::record::EventType;

/// The record as text of JSON, in the wanted shape.
pub(crate) fn render(entry: &Entry, format: Format) -> Cow<'_, [u8]> {
    let convert = match format {
        Format::Native => return Cow::Borrowed(&entry.line),
        Format::Ocsf => ocsf::convert,
        Format::Ecs => ecs::convert,
    };
    Cow::Owned(convert(entry, &entry.json()).to_string().into_bytes())
}

/// What several kinds of sink ask of an alert, out of its record.
#[derive(Debug)]
pub(crate) struct AlertView {
    record: Value,
}

impl AlertView {
    /// `None` for any other kind of record.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        (entry.event_type == EventType::Alert).then(|| Self { record: entry.json() })
    }

    /// A field of the alert as text; empty where there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.record["alert"][field].as_str().unwrap_or_default()
    }

    /// How much it matters.
    pub(crate) fn severity(&self) -> Severity {
        severity(&self.record["alert"])
    }

    /// Whether the condition has ended.
    pub(crate) fn is_resolved(&self) -> bool {
        self.text("status") == "resolved"
    }

    /// The two ends that it is about, as far as its subject names two.
    pub(crate) fn ends(&self) -> Option<(&str, &str)> {
        self.text("subject").split_once(" -> ")
    }

    /// The whole record.
    pub(crate) const fn record(&self) -> &Value {
        &self.record
    }
}

/// The severity that an `alert` object has.
fn severity(alert: &Value) -> Severity {
    let word = alert["severity"].as_str().unwrap_or_default();
    Severity::ALL.into_iter().find(|severity| severity.name() == word).unwrap_or(Severity::Info)
}

/// The level of the same meaning in syslog (RFC 5424, section 6.2.1) and in the journal.
pub(crate) const fn syslog_level(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

/// Where a field may be missing: `null` is left out of objects.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// One sentence for a person, whatever the record is.
pub(crate) fn summary(record: &Value, event_type: EventType) -> String {
    let body = &record[event_type.name()];
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let end = |field: &str| {
        let end = &body[field];
        match end["node"].as_str() {
            Some(node) => node.to_owned(),
            None => format!("{}:{}", end["ip"].as_str().unwrap_or_default(), end["port"]),
        }
    };
    match event_type {
        EventType::Alert => {
            let ended = if body["status"] == "resolved" { " (ended)" } else { "" };
            format!("{}{ended}", text("reason"))
        }
        EventType::Link => {
            format!("link {}: {} -> {} ({})", text("change"), end("initiator"), end("acceptor"), text("transport"))
        }
        EventType::Process => {
            let name = |field: &str| body[field].as_str().map(|name| format!(" {name}"));
            let who = name("unit").or_else(|| name("container")).or_else(|| name("exe")).unwrap_or_default();
            format!("{} {}:{} is process {}{who}", text("end"), text("ip"), body["port"], body["pid"])
        }
        EventType::Epmd => format!("EPMD {} {}: {}", text("request"), text("name"), text("result")),
        EventType::Activity => {
            let what = body["mfa"].as_str().or(body["target"].as_str()).unwrap_or_default();
            let node = |field: &str| body[field].as_str().unwrap_or("?").to_owned();
            format!("{} {what}: {} -> {} (x{})", text("kind"), node("from_node"), node("to_node"), body["count"])
        }
        EventType::Stats => format!("{} packets, {} flows, {} gaps", body["packets"], body["flows"], body["gaps"]),
        EventType::Weird => format!("{}: {}", text("name"), text("detail")),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::record::{CommunityIds, Record};
    use crate::report::sample;

    /// The records of the sample: alerts of several severities, and counters.
    pub(crate) fn entries() -> Vec<Entry> {
        let report = sample::report();
        let mut ids = CommunityIds::default();
        let mut records: Vec<Record<'_>> =
            report.alerts.iter().map(|alert| Record::from_alert(alert, "sensor-1", &mut ids)).collect();
        records.push(Record::stats(&report.stats, sample::at(9), "sensor-1"));
        records
            .iter()
            .map(|record| {
                let out = crate::sink::Outgoing::new(record);
                Entry { time: out.time, event_type: out.event_type, line: out.line.to_vec(), id: Some((1, 8)) }
            })
            .collect()
    }

    #[test]
    fn every_shape_is_as_it_was_looked_at() {
        for (format, name) in [(Format::Ocsf, "sink-ocsf.json"), (Format::Ecs, "sink-ecs.json")] {
            let alerts = entries().into_iter().filter(|entry| entry.event_type == EventType::Alert);
            let shown: Vec<Value> =
                alerts.map(|entry| serde_json::from_slice(&render(&entry, format)).unwrap()).collect();
            sample::golden(name, &format!("{:#}\n", Value::from(shown)));
        }
    }

    #[test]
    fn our_own_shape_is_the_record_itself() {
        for entry in entries() {
            assert_eq!(&*render(&entry, Format::Native), entry.line.as_slice());
            assert!(!summary(&entry.json(), entry.event_type).is_empty());
        }
    }
}
