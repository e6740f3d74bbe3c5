//! The record of a remote action, written without serde's way through every field: of all records only these come once
//! for each control message.
//!
//! What is the same in every line of a connection is put together once. The line is, octet for octet, what
//! [`Record::write_line`](super::Record::write_line) makes of the same event; a test holds the two together.

use std::sync::Arc;

use distwatch_engine::event::{Event, FlowInfo};
use distwatch_engine::model::{Activity, SCHEMA_VERSION};
use distwatch_engine::time::Timestamp;
use serde::Serialize;

use super::{CommunityIds, EventType, Flow};

/// Writes records of remote actions.
#[derive(Debug)]
pub struct ActivityLines {
    /// From the line's start to the time.
    start: Vec<u8>,
    /// From behind the time to the connection.
    host: Vec<u8>,
    /// The connection of the last line, and what a line has of it.
    flow: Option<(Arc<FlowInfo>, Vec<u8>)>,
}

impl ActivityLines {
    /// For the sensor on `host`.
    #[must_use]
    pub fn new(host: &str) -> Self {
        let start = format!(r#"{{"schema_version":{SCHEMA_VERSION},"timestamp":""#).into_bytes();
        let mut line = format!(r#"","event_type":"{}","host":"#, EventType::Activity.name()).into_bytes();
        text(&mut line, host);
        Self { start, host: line, flow: None }
    }

    /// Appends the record of `activity`, which is what `event` tells, and a line feed to `line`.
    pub fn write(&mut self, event: &Event, activity: &Activity, ids: &mut CommunityIds, line: &mut Vec<u8>) {
        // All fields by name: one that is added must be written too.
        let Activity {
            kind,
            from_node,
            to_node,
            mfa,
            target,
            count,
            first_seen,
            last_seen,
            flow_id,
            operation,
            from_initiator,
            confidence,
            arguments,
            first_packet,
        } = activity;
        line.extend_from_slice(&self.start);
        let time = event.time.text();
        line.extend_from_slice(&time);
        let stamp = |line: &mut Vec<u8>, stamp: Timestamp| {
            let text = if stamp == event.time { time } else { stamp.text() };
            line.extend_from_slice(&text);
        };
        line.extend_from_slice(&self.host);
        if let Some(flow) = &event.flow {
            line.extend_from_slice(self.of_flow(flow, ids));
        }
        line.extend_from_slice(br#","activity":{"kind":"#);
        json(line, kind);
        for (name, value) in [
            (&br#","from_node":"#[..], from_node),
            (br#","to_node":"#, to_node),
            (br#","mfa":"#, mfa),
            (br#","target":"#, target),
        ] {
            line.extend_from_slice(name);
            optional(line, value.as_deref());
        }
        line.extend_from_slice(br#","count":"#);
        json(line, count);
        line.extend_from_slice(br#","first_seen":""#);
        stamp(line, *first_seen);
        line.extend_from_slice(br#"","last_seen":""#);
        stamp(line, *last_seen);
        line.extend_from_slice(br#"","flow_id":"#);
        text(line, flow_id);
        line.extend_from_slice(br#","operation":"#);
        text(line, operation);
        line.extend_from_slice(br#","from_initiator":"#);
        line.extend_from_slice(if *from_initiator { b"true" } else { b"false" });
        line.extend_from_slice(br#","confidence":"#);
        json(line, confidence);
        line.extend_from_slice(br#","arguments":"#);
        optional(line, arguments.as_deref());
        line.extend_from_slice(br#","first_packet":"#);
        text(line, first_packet);
        line.extend_from_slice(b"}}\n");
    }

    /// What a line has of its connection, from the comma on.
    fn of_flow(&mut self, flow: &Arc<FlowInfo>, ids: &mut CommunityIds) -> &[u8] {
        if !self.flow.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, flow)) {
            let mut fields = vec![b','];
            json(&mut fields, &Flow::of(flow, ids));
            // The fields stand in the record itself, without the braces of an object.
            fields.remove(1);
            fields.pop();
            self.flow = Some((Arc::clone(flow), fields));
        }
        self.flow.as_ref().map_or(&[], |(_, fields)| fields)
    }
}

fn optional(line: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(line, value),
        None => line.extend_from_slice(b"null"),
    }
}

/// A string. Nearly none has anything in it that JSON escapes.
fn text(line: &mut Vec<u8>, value: &str) {
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if value.as_bytes().iter().all(is_plain) {
        line.push(b'"');
        line.extend_from_slice(value.as_bytes());
        line.push(b'"');
    } else {
        json(line, value);
    }
}

fn json(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing to a Vec cannot fail: there is no error to report.
    _ = serde_json::to_writer(line, value);
}

#[cfg(test)]
mod tests {
    use distwatch_engine::event::EventBody;
    use distwatch_engine::packet::PacketRef;

    use super::super::Record;
    use super::*;
    use crate::report::sample;

    fn flow(id: &str, acceptor: &str, interface: &str) -> Option<Arc<FlowInfo>> {
        Some(Arc::new(FlowInfo {
            id: id.into(),
            initiator: "10.77.0.1:40123".parse().unwrap(),
            acceptor: acceptor.parse().unwrap(),
            interface: interface.into(),
        }))
    }

    #[test]
    fn a_line_is_what_serde_makes_of_the_record() {
        let host = "sensor \"one\"\n";
        let flows = [
            flow("00a1b2c3d4e5f607", "10.77.0.2:9100", "eth0"),
            flow("10a1b2c3d4e5f607", "[fe80::1]:9100", ""),
            flow("20a1b2c3d4e5f607", "10.77.0.3:9100", "e\\t\u{1}h"),
            None,
        ];
        let mut activities = sample::report().activity;
        assert!(!activities.is_empty());
        let mut odd = activities[0].clone();
        (odd.from_node, odd.to_node) = (None, Some("ev\"il\n\u{2028}\u{7f}\u{0}@h\\".into()));
        (odd.mfa, odd.target, odd.arguments) = (Some("a:b/1".into()), Some("<pid>".into()), Some("\t[ä]".into()));
        (odd.count, odd.from_initiator) = (u64::MAX, !odd.from_initiator);
        activities.push(odd);
        let (mut lines, mut ids) = (ActivityLines::new(host), CommunityIds::default());
        for activity in activities {
            for flow in flows.iter().chain(&flows) {
                for time in [activity.first_seen, activity.last_seen, Timestamp::from_nanos(-1)] {
                    let body = EventBody::Activity(Box::new(activity.clone()));
                    let event = Event { time, packet: PacketRef::default(), flow: flow.clone(), body };
                    let (mut ours, mut serdes) = (Vec::new(), Vec::new());
                    lines.write(&event, &activity, &mut ids, &mut ours);
                    Record::from_event(&event, host, &mut ids).unwrap().write_line(&mut serdes);
                    assert_eq!(String::from_utf8(ours), String::from_utf8(serdes));
                }
            }
        }
    }
}
