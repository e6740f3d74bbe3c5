//! OCSF Detection Finding (class 2004): one finding that is created, updated and closed.

use distwatch_engine::model::Severity;
use distwatch_engine::time::Timestamp;
use serde_json::{Value, json};

use super::{severity, without_nulls};
use crate::sink::deliver::Entry;

/// The version of the schema that these events keep to.
const VERSION: &str = "1.5.0";

const CLASS: u64 = 2004;

pub(super) fn convert(entry: &Entry, record: &Value) -> Value {
    let alert = &record["alert"];
    let (activity, activity_name) = match alert["status"].as_str() {
        Some("new") => (1, "Create"),
        Some("resolved") => (3, "Close"),
        _ => (2, "Update"),
    };
    let (status, status_name) = if activity == 3 { (4, "Resolved") } else { (1, "New") };
    let (severity_id, severity_name) = match severity(alert) {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    };
    let (confidence_id, confidence) = match alert["confidence"].as_str() {
        Some("certain") => (3, "High"),
        Some("likely") => (2, "Medium"),
        _ => (1, "Low"),
    };
    let end = |ip: &str, port: &str| match record[ip].is_null() {
        true => Value::Null,
        false => json!({ "ip": record[ip], "port": record[port] }),
    };
    let endpoints = (end("src_ip", "src_port"), end("dest_ip", "dest_port"));
    let connection = match endpoints.0.is_null() {
        true => Value::Null,
        false => json!({ "protocol_name": "tcp", "protocol_num": 6, "uid": record["flow_id"],
            "community_uid": record["community_id"] }),
    };
    let rule = &alert["rule_id"];
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("Detection Finding: {activity_name}"),
        "time": millis(&record["timestamp"]).unwrap_or(entry.time.as_nanos() / 1_000_000),
        "severity_id": severity_id,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "confidence_id": confidence_id,
        "confidence": confidence,
        "is_alert": true,
        "message": alert["reason"],
        "count": alert["count"],
        "start_time": millis(&alert["first_seen"]),
        "end_time": millis(&alert["last_seen"]),
        "metadata": {
            "version": VERSION,
            "event_code": rule,
            "log_name": "distwatch",
            "product": { "name": "distwatch", "vendor_name": "distwatch", "version": env!("CARGO_PKG_VERSION") },
            "profiles": ["host"],
        },
        "device": { "hostname": record["host"], "type_id": 0 },
        "finding_info": {
            "uid": alert["fingerprint"],
            "title": rule,
            "desc": alert["reason"],
            "first_seen_time": millis(&alert["first_seen"]),
            "last_seen_time": millis(&alert["last_seen"]),
            "analytic": { "uid": rule, "name": rule, "type_id": 1, "type": "Rule" },
        },
        "evidences": [{
            "src_endpoint": endpoints.0,
            "dst_endpoint": endpoints.1,
            "connection_info": connection,
            "data": { "facts": alert["evidence"] },
        }],
        "resources": [{ "name": alert["subject"], "type": "Erlang distribution" }],
        "remediation": { "desc": alert["remediation"] },
        "unmapped": { "references": alert["references"], "process": alert["process"] },
    });
    without_nulls(&mut event);
    event
}

/// Milliseconds since the epoch, of a time as records write it.
fn millis(time: &Value) -> Option<i64> {
    Some(parse(time.as_str()?)?.as_nanos().div_euclid(1_000_000))
}

/// RFC 3339 as [`Timestamp`] writes it: UTC, nanoseconds, always of the same length.
fn parse(text: &str) -> Option<Timestamp> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, nanos) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 29)?);
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_parts(seconds, u32::try_from(nanos).ok()?))
}

/// The day number (0 is 1970-01-01) of a date in the proleptic Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EventType;
    use crate::sink::format::testing::entries;

    #[test]
    fn a_finding_has_what_the_class_requires_and_follows_the_alert() {
        for entry in entries().iter().filter(|entry| entry.event_type == EventType::Alert) {
            let record = entry.json();
            let event = convert(entry, &record);
            let activity = event["activity_id"].as_u64().unwrap();
            assert_eq!(event["type_uid"], 200_400 + activity);
            assert_eq!((&event["category_uid"], &event["class_uid"]), (&2.into(), &2004.into()));
            assert_eq!(event["time"], entry.time.as_nanos() / 1_000_000);
            assert_eq!(event["finding_info"]["uid"], record["alert"]["fingerprint"]);
            assert_eq!(event["metadata"]["product"]["vendor_name"], "distwatch");
            assert_eq!(event["status_id"] == 4, record["alert"]["status"] == "resolved");
            assert!((1..=5).contains(&event["severity_id"].as_u64().unwrap()));
            assert!(!event.to_string().contains("null"), "{event}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for nanos in [0, 951_782_400_000_000_001, 1_795_406_329_333_358_001, -1, 4_102_444_800_000_000_000] {
            let time = Timestamp::from_nanos(nanos);
            assert_eq!(parse(&time.to_string()), Some(time));
        }
        assert_eq!(parse("yesterday"), None);
    }
}
