//! Elastic Common Schema 9: fields of the schema where it has them, the rest below `distwatch`.

use serde_json::{Value, json};

use super::{severity, summary, without_nulls};
use crate::record::EventType;
use crate::sink::deliver::Entry;

/// The version of the schema that these documents keep to.
const VERSION: &str = "9.0.0";

pub(super) fn convert(entry: &Entry, record: &Value) -> Value {
    let name = entry.event_type.name();
    let body = &record[name];
    let (kind, types) = match entry.event_type {
        EventType::Alert => ("alert", "info"),
        EventType::Link => ("event", "connection"),
        EventType::Epmd | EventType::Activity => ("event", "protocol"),
        EventType::Stats => ("metric", "info"),
        EventType::Process | EventType::Weird => ("event", "info"),
    };
    let categories = match entry.event_type {
        EventType::Alert => json!(["intrusion_detection", "network"]),
        _ => json!(["network"]),
    };
    let alert = entry.event_type == EventType::Alert;
    let only = |value: Value| if alert { value } else { Value::Null };
    let end = |ip: &str, port: &str| match record[ip].is_null() {
        true => Value::Null,
        false => json!({ "ip": record[ip], "address": record[ip], "port": record[port] }),
    };
    let network = match record["src_ip"].is_null() {
        true => Value::Null,
        false => json!({ "transport": "tcp", "community_id": record["community_id"] }),
    };
    let mut document = json!({
        "@timestamp": record["timestamp"],
        "ecs": { "version": VERSION },
        "message": summary(record, entry.event_type),
        "event": {
            "kind": kind,
            "category": categories,
            "type": [types],
            "module": "distwatch",
            "dataset": format!("distwatch.{name}"),
            "severity": only(json!(severity(body) as u8 + 1)),
            "action": if alert { body["status"].clone() } else { body["change"].clone() },
            "start": only(body["first_seen"].clone()),
            "end": only(body["last_seen"].clone()),
        },
        "log": only(json!({ "level": body["level"] })),
        "rule": only(json!({ "id": body["rule_id"], "name": body["rule_id"], "description": body["reason"] })),
        "source": end("src_ip", "src_port"),
        "destination": end("dest_ip", "dest_port"),
        "network": network,
        "host": { "name": record["host"] },
        "observer": {
            "type": "sensor",
            "product": "distwatch",
            "vendor": "distwatch",
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": record["host"],
        },
        "distwatch": { "flow_id": record["flow_id"] },
    });
    // Below a name of our own nothing is left out: `null` says something there.
    without_nulls(&mut document);
    if let Some(own) = document["distwatch"].as_object_mut() {
        own.insert(name.to_owned(), body.clone());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::format::testing::entries;

    #[test]
    fn a_document_has_the_fields_that_every_rule_of_the_schema_asks_for_and_the_whole_record() {
        for entry in entries() {
            let record = entry.json();
            let document = convert(&entry, &record);
            assert_eq!(document["@timestamp"], record["timestamp"]);
            assert!(document["ecs"]["version"].as_str().unwrap().starts_with('9'));
            let name = entry.event_type.name();
            assert_eq!(document["distwatch"][name], record[name]);
            assert_eq!(document["event"]["dataset"], format!("distwatch.{name}"));
            assert_eq!(document["rule"]["id"].is_null(), entry.event_type != EventType::Alert);
            assert_eq!(document["network"]["community_id"], record["community_id"]);
        }
    }
}
