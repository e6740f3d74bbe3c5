//! A stand-in for Loki that refuses what Loki refuses, as its documentation and its real answers have it.

use std::collections::BTreeMap;

use distwatch::sink::Fate;
use serde_json::Value;

use crate::harness::{Running, alert, losses, now, outgoing};
use crate::standin::{Request, StandIn, counts};

/// Limits of a Loki as it comes.
const OLDEST_NANOS: i64 = 7 * 86_400 * 1_000_000_000;
const NEWEST_NANOS: i64 = 600 * 1_000_000_000;
const LABELS: usize = 15;
const LABEL_VALUE: usize = 2048;
const LINE: usize = 256 << 10;
const METADATA: usize = 128;

/// What Loki says to a push, and which numbers it stores.
pub(crate) fn judge(request: &Request) -> (u16, String, Vec<u64>) {
    if !request.head.starts_with("POST /loki/api/v1/push ") {
        return (404, "not found".into(), Vec::new());
    }
    if request.header("content-type").is_none_or(|kind| kind != "application/json") {
        return (400, "unsupported media type".into(), Vec::new());
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return (400, "couldn't parse push request".into(), Vec::new());
    };
    let streams = body["streams"].as_array().cloned().unwrap_or_default();
    if streams.is_empty() {
        return (422, "error at least one valid stream is required for ingestion".into(), Vec::new());
    }
    let mut stored = Vec::new();
    let (mut ignored, mut all) = (0, 0);
    for stream in &streams {
        let Ok(labels) = serde_json::from_value::<BTreeMap<String, String>>(stream["stream"].clone()) else {
            return (400, "labels must be strings".into(), Vec::new());
        };
        let is_name = |name: &String| {
            let fits = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
            name.bytes().all(fits) && !name.starts_with(|it: char| it.is_ascii_digit())
        };
        if labels.is_empty() || !labels.keys().all(is_name) || labels.values().any(|value| value.len() > LABEL_VALUE) {
            return (400, "error parsing labels".into(), Vec::new());
        }
        if labels.len() > LABELS {
            return (400, "max label names per series reached".into(), Vec::new());
        }
        for value in stream["values"].as_array().into_iter().flatten() {
            let (Some(time), Some(line)) = (value[0].as_str(), value[1].as_str()) else {
                return (400, "couldn't parse push request".into(), Vec::new());
            };
            let metadata = value[2].as_object().cloned().unwrap_or_default();
            if metadata.len() > METADATA || metadata.values().any(|value| !value.is_string()) {
                return (400, "structured metadata must be strings".into(), Vec::new());
            }
            let Ok(time) = time.parse::<i64>() else { return (400, "no time".into(), Vec::new()) };
            all += 1;
            let age = now().as_nanos() - time;
            if age > OLDEST_NANOS || -age > NEWEST_NANOS || line.len() > LINE {
                ignored += 1;
            } else {
                stored.extend(counts(line.as_bytes()));
            }
        }
    }
    // Some of it may be stored although the answer is a refusal.
    match ignored {
        0 => (204, String::new(), stored),
        _ => (400, format!("entry has timestamp too old, total ignored: {ignored} out of {all}"), stored),
    }
}

#[test]
fn a_refusal_is_counted_and_never_sent_again_although_a_part_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = StandIn::http(judge);
    let toml = format!(
        "[[sink]]\ntype = \"loki\"\nurl = \"{}\"\nlabels = {{ env = \"test\" }}\ntenant = \"team-1\"\nbatch_wait = \"50ms\"\n",
        server.url()
    );
    let running = Running::start(dir.path(), &toml);
    for number in 0..100 {
        let mut alert = alert(number);
        if number % 10 == 3 {
            // Eight days ago, and next week.
            let days = if number % 20 == 3 { -8 } else { 7 };
            alert.told = distwatch_engine::time::Timestamp::from_nanos(now().as_nanos() + days * 86_400_000_000_000);
        }
        running.sinks.offer(&outgoing(&alert));
    }
    let status = running.until_sent("loki");
    assert_eq!((status.count(Fate::Sent), status.count(Fate::Refused), losses(&status)), (90, 10, 10));
    assert!(status.last_error.unwrap().contains("too old"));
    let expected: Vec<u64> = (0..100).filter(|number| number % 10 != 3).collect();
    assert_eq!(server.received(), expected, "stored once, in order");
}
