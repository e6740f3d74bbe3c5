//! One line of NDJSON: an envelope shaped like Suricata's EVE, and the object named like its `event_type`.
//!
//! A record borrows everything from the event that it tells of, and is serialised straight into a buffer that the
//! caller uses again: a line costs no allocation.

mod activity;
mod community_id;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use distwatch_engine::event::{Event, EventBody, Expected, FlowInfo, LinkChange, Tampering};
use distwatch_engine::model::{Activity, Alert, EpmdExchange, Link, SocketProcess, Stats, Weird};
use distwatch_engine::packet::PacketRef;
use distwatch_engine::time::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

pub use activity::ActivityLines;
pub use community_id::{CommunityId, CommunityIds};

use crate::report::SchemaVersion;

/// Kinds of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    /// A finding is new, has changed or has ended.
    Alert,
    /// A distribution connection changed.
    Link,
    /// An EPMD request with its answer.
    Epmd,
    /// A remote action read in clear.
    Activity,
    /// The process behind a listener or an end of a link.
    Process,
    /// Counters since the start.
    Stats,
    /// Something that no rule covers but an analyst wants.
    Weird,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Alert, Self::Link, Self::Epmd, Self::Activity, Self::Process, Self::Stats, Self::Weird];

    /// The word in `event_type`, and the name of the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Link => "link",
            Self::Epmd => "epmd",
            Self::Activity => "activity",
            Self::Process => "process",
            Self::Stats => "stats",
            Self::Weird => "weird",
        }
    }
}

/// The only transport protocol that distribution uses, as EVE writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Proto {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
}

/// One record.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Record<'a> {
    /// The version of this shape.
    pub schema_version: SchemaVersion,
    /// When it became known: the packet's time, not the printer's.
    pub timestamp: Timestamp,
    /// Which of the objects below is present.
    pub event_type: EventType,
    /// The host that the sensor runs on; empty where none was given.
    pub host: &'a str,
    /// The connection, where one is concerned.
    #[serde(flatten)]
    pub flow: Option<Flow<'a>>,
    /// The rest, under a name that is the `event_type`.
    #[serde(flatten)]
    pub body: Body<'a>,
}

/// The connection of a record; the initiator is the source, whoever sent what the record tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Flow<'a> {
    /// Stable text id of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<&'a str>,
    /// Community ID, version 1, seed 0; missing only where the two addresses are of different families.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_id: Option<CommunityId>,
    /// The initiator's address.
    pub src_ip: IpAddr,
    /// The initiator's port.
    pub src_port: u16,
    /// The acceptor's address.
    pub dest_ip: IpAddr,
    /// The acceptor's port.
    pub dest_port: u16,
    /// Always `TCP`.
    pub proto: Proto,
    /// The interface, where the capture names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<&'a str>,
}

impl<'a> Flow<'a> {
    fn of(flow: &'a FlowInfo, ids: &mut CommunityIds) -> Self {
        let interface = (!flow.interface.is_empty()).then_some(flow.interface.as_str());
        Self::between(flow.initiator, flow.acceptor, Some(&flow.id), interface, ids)
    }

    fn of_alert(alert: &'a Alert, ids: &mut CommunityIds) -> Option<Self> {
        let initiator = SocketAddr::new(alert.src_ip?, alert.src_port?);
        let acceptor = SocketAddr::new(alert.dest_ip?, alert.dest_port?);
        Some(Self::between(initiator, acceptor, alert.flow_id.as_deref(), alert.in_iface.as_deref(), ids))
    }

    fn between(
        initiator: SocketAddr,
        acceptor: SocketAddr,
        flow_id: Option<&'a str>,
        in_iface: Option<&'a str>,
        ids: &mut CommunityIds,
    ) -> Self {
        Self {
            flow_id,
            community_id: ids.of(initiator, acceptor),
            src_ip: initiator.ip(),
            src_port: initiator.port(),
            dest_ip: acceptor.ip(),
            dest_port: acceptor.port(),
            proto: Proto::Tcp,
            in_iface,
        }
    }
}

/// What a record is about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body<'a> {
    /// A finding in its present state.
    Alert(&'a Alert),
    /// A connection in its present state, and what changed.
    Link(LinkRecord<'a>),
    /// A request with its answer.
    Epmd(&'a EpmdExchange),
    /// A remote action; `count` is the number since the last record of the same kind.
    Activity(&'a Activity),
    /// A process of this host.
    Process(&'a SocketProcess),
    /// Counters.
    Stats(&'a Stats),
    /// Something odd.
    Weird(Cow<'a, Weird>),
}

impl Body<'_> {
    /// The `event_type` that names it.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::Alert(_) => EventType::Alert,
            Self::Link(_) => EventType::Link,
            Self::Epmd(_) => EventType::Epmd,
            Self::Activity(_) => EventType::Activity,
            Self::Process(_) => EventType::Process,
            Self::Stats(_) => EventType::Stats,
            Self::Weird(_) => EventType::Weird,
        }
    }
}

/// A connection, and what changed about it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LinkRecord<'a> {
    /// What changed: `opened`, `classified`, `handshake`, `identified` or `closed`.
    pub change: &'static str,
    /// The connection as it is now.
    #[serde(flatten)]
    pub link: &'a Link,
}

impl<'a> Record<'a> {
    /// The record of an event; none for a handshake that has only made progress, which the `handshake` record of the
    /// same link will tell whole.
    #[must_use]
    pub fn from_event(event: &'a Event, host: &'a str, ids: &mut CommunityIds) -> Option<Self> {
        let body = match &event.body {
            EventBody::Link { change: LinkChange::Progress | LinkChange::Identified | LinkChange::Updated, .. } => {
                return None;
            }
            EventBody::Link { change, link } => Body::Link(LinkRecord { change: change.name(), link }),
            EventBody::Epmd(exchange) => Body::Epmd(exchange),
            EventBody::Activity(activity) => Body::Activity(activity),
            EventBody::Process(process) => Body::Process(process),
            EventBody::Weird(weird) => Body::Weird(Cow::Borrowed(weird)),
            other => Body::Weird(Cow::Owned(weird(other, event.packet)?)),
        };
        let flow = event.flow.as_deref().map(|flow| Flow::of(flow, ids));
        Some(Self::new(event.time, host, flow, body))
    }

    /// The record of a finding, at the time when this state of it came out.
    #[must_use]
    pub fn from_alert(alert: &'a Alert, host: &'a str, ids: &mut CommunityIds) -> Self {
        Self::new(alert.told, host, Flow::of_alert(alert, ids), Body::Alert(alert))
    }

    /// The record of the counters as they stand at `time`.
    #[must_use]
    pub const fn stats(stats: &'a Stats, time: Timestamp, host: &'a str) -> Self {
        Self::new(time, host, None, Body::Stats(stats))
    }

    const fn new(timestamp: Timestamp, host: &'a str, flow: Option<Flow<'a>>, body: Body<'a>) -> Self {
        Self { schema_version: SchemaVersion, timestamp, event_type: body.event_type(), host, flow, body }
    }

    /// Appends the record and a line feed to `line`.
    pub fn write_line(&self, line: &mut Vec<u8>) {
        // Writing to a Vec cannot fail, and no key in a record is anything but a string: there is no error to report.
        if serde_json::to_writer(&mut *line, self).is_ok() {
            line.push(b'\n');
        }
    }
}

/// The events that have a rule of their own are also in the stream, so that it holds every fact that the rules saw.
fn weird(body: &EventBody, packet: PacketRef) -> Option<Weird> {
    let (name, layer, detail) = match body {
        EventBody::Foreign { expected, looks_like } => {
            ("foreign-bytes", layer(*expected), format!("{looks_like} on a port known for {}", protocol(*expected)))
        }
        EventBody::Tampering { what, from_initiator, offset, bytes } => {
            let (name, how) = match what {
                Tampering::ConflictingRetransmission => ("conflicting-retransmission", "differ from the first copy"),
                Tampering::OutsideWindow => ("outside-window", "lie far outside the receiver's window"),
            };
            (name, "tcp", format!("{bytes} octets at offset {offset} from the {} {how}", side(*from_initiator)))
        }
        EventBody::Violation { what, from_initiator } => {
            ("protocol-violation", "dist", format!("{what}, by the {}", side(*from_initiator)))
        }
        EventBody::Unanswered { expected } => {
            ("unanswered-connection", "tcp", format!("no answer on a port known for {}", protocol(*expected)))
        }
        EventBody::CookieSent { how, from_initiator } => {
            ("cookie-sent", "dist", format!("{how}, from the {}", side(*from_initiator)))
        }
        EventBody::Loss { stage, packets } => ("packets-lost", "capture", format!("{packets} packets lost: {stage}")),
        EventBody::Unseen { sockets, example } => {
            let among = if example.is_empty() { String::new() } else { format!(", {example} among them") };
            ("sockets-unseen", "capture", format!("nothing is captured of {sockets} distribution sockets{among}"))
        }
        EventBody::SinkState { sink, failing_since: Some(since), reason } => {
            ("sink-failing", "sink", format!("{sink} takes no records since {since}: {reason}"))
        }
        EventBody::SinkState { sink, failing_since: None, .. } => {
            ("sink-recovered", "sink", format!("{sink} takes records again"))
        }
        EventBody::Link { .. }
        | EventBody::Epmd(_)
        | EventBody::Activity(_)
        | EventBody::Process(_)
        | EventBody::Weird(_) => return None,
    };
    Some(Weird { name: name.into(), layer: layer.into(), detail, packet: packet_text(packet) })
}

const fn layer(expected: Expected) -> &'static str {
    match expected {
        Expected::Epmd => "epmd",
        Expected::Distribution => "dist",
    }
}

const fn protocol(expected: Expected) -> &'static str {
    match expected {
        Expected::Epmd => "EPMD",
        Expected::Distribution => "distribution",
    }
}

const fn side(from_initiator: bool) -> &'static str {
    if from_initiator { "initiator" } else { "acceptor" }
}

/// `number`, or `capture:number` from the second capture on.
fn packet_text(packet: PacketRef) -> Option<String> {
    match (packet.capture, packet.number) {
        (_, 0) => None,
        (0, number) => Some(number.to_string()),
        (capture, number) => Some(format!("{capture}:{number}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use distwatch_engine::model::ProcessEnd;
    use serde_json::Value;

    use super::*;
    use crate::report::sample;

    fn event(body: EventBody) -> Event {
        let flow = FlowInfo {
            id: "00a1b2c3d4e5f607".into(),
            initiator: "10.77.0.1:40123".parse().unwrap(),
            acceptor: "10.77.0.2:9100".parse().unwrap(),
            interface: "eth0".into(),
        };
        Event { time: sample::at(3), packet: PacketRef { capture: 0, number: 57 }, flow: Some(Arc::new(flow)), body }
    }

    fn value(record: &Record<'_>) -> Value {
        let mut line = Vec::new();
        record.write_line(&mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'), "one record is one line");
        serde_json::from_slice(&line).unwrap()
    }

    fn every_body() -> Vec<EventBody> {
        let report = sample::report();
        let mut bodies: Vec<EventBody> = report
            .links
            .into_iter()
            .map(|link| EventBody::Link { change: LinkChange::Closed, link: link.into() })
            .collect();
        bodies.extend(report.epmd.into_iter().map(|exchange| EventBody::Epmd(Box::new(exchange))));
        bodies.extend(report.activity.into_iter().map(|activity| EventBody::Activity(Box::new(activity))));
        bodies.extend([
            EventBody::CookieSent { how: "answer to erlang:get_cookie/0".into(), from_initiator: false },
            EventBody::Foreign { expected: Expected::Epmd, looks_like: "HTTP" },
            EventBody::Tampering {
                what: Tampering::ConflictingRetransmission,
                from_initiator: true,
                offset: 17,
                bytes: 4,
            },
            EventBody::Tampering { what: Tampering::OutsideWindow, from_initiator: false, offset: 17, bytes: 4 },
            EventBody::Violation { what: "frame of 3 GB".into(), from_initiator: true },
            EventBody::Unanswered { expected: Expected::Distribution },
            EventBody::Weird(Weird {
                name: "gap".into(),
                layer: "tcp".into(),
                detail: "12 octets missing".into(),
                packet: None,
            }),
            EventBody::Loss { stage: "kernel", packets: 9 },
            EventBody::Process(Box::new(SocketProcess {
                end: ProcessEnd::Acceptor,
                ip: "10.77.0.2".parse().unwrap(),
                port: 9100,
                process: sample::process(),
            })),
            EventBody::Unseen { sockets: 2, example: "10.0.0.1:40000 -> 10.0.0.2:9100".into() },
            EventBody::SinkState {
                sink: "loki".into(),
                failing_since: Some(sample::at(1)),
                reason: "connection refused".into(),
            },
            EventBody::SinkState { sink: "loki".into(), failing_since: None, reason: String::new() },
        ]);
        bodies
    }

    #[test]
    fn an_envelope_names_the_connection_with_the_initiator_first() {
        let exchange = sample::report().epmd.remove(0);
        let event = event(EventBody::Epmd(Box::new(exchange)));
        let record = value(&Record::from_event(&event, "sensor-1", &mut CommunityIds::default()).unwrap());
        assert_eq!(record["schema_version"], 1);
        assert_eq!(record["timestamp"], sample::at(3).to_string());
        assert_eq!(record["event_type"], "epmd");
        assert_eq!(record["host"], "sensor-1");
        assert_eq!(record["flow_id"], "00a1b2c3d4e5f607");
        assert_eq!((&record["src_ip"], &record["src_port"]), (&"10.77.0.1".into(), &40123.into()));
        assert_eq!((&record["dest_ip"], &record["dest_port"]), (&"10.77.0.2".into(), &9100.into()));
        assert_eq!((&record["proto"], &record["in_iface"]), (&"TCP".into(), &"eth0".into()));
        assert!(record["community_id"].as_str().unwrap().starts_with("1:"));
        assert_eq!(record["epmd"]["request"], "alive2");
    }

    #[test]
    fn every_record_keeps_to_the_shipped_schema_and_has_the_object_that_its_type_names() {
        let validator = jsonschema::validator_for(&crate::report::schema::records()).unwrap();
        let mut ids = CommunityIds::default();
        let check = |record: Record<'_>| {
            let value = value(&record);
            let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?} in {value}");
            assert!(value[record.event_type.name()].is_object());
            for other in EventType::ALL.iter().filter(|kind| **kind != record.event_type) {
                assert!(value.get(other.name()).is_none(), "{value}");
            }
        };
        for body in every_body() {
            let event = event(body);
            check(Record::from_event(&event, "h", &mut ids).unwrap());
        }
        let report = sample::report();
        for alert in &report.alerts {
            check(Record::from_alert(alert, "h", &mut ids));
        }
        check(Record::stats(&report.stats, sample::at(9), "h"));
    }

    #[test]
    fn a_record_of_the_wrong_shape_does_not_keep_to_the_schema() {
        let validator = jsonschema::validator_for(&crate::report::schema::records()).unwrap();
        let event = event(EventBody::Loss { stage: "kernel", packets: 9 });
        let good = value(&Record::from_event(&event, "h", &mut CommunityIds::default()).unwrap());
        let mut other_type = good.clone();
        other_type["event_type"] = "link".into();
        let mut other_version = good.clone();
        other_version["schema_version"] = 2.into();
        let mut no_object = good.clone();
        no_object.as_object_mut().unwrap().remove("weird");
        let mut no_timestamp = good.clone();
        no_timestamp.as_object_mut().unwrap().remove("timestamp");
        assert!(validator.is_valid(&good));
        for bad in [other_type, other_version, no_object, no_timestamp] {
            assert!(!validator.is_valid(&bad), "{bad}");
        }
    }

    #[test]
    fn a_link_record_says_what_changed_and_progress_makes_none() {
        let link = Arc::new(sample::report().links.remove(0));
        let mut ids = CommunityIds::default();
        let opened = event(EventBody::Link { change: LinkChange::Opened, link: link.clone() });
        let record = value(&Record::from_event(&opened, "h", &mut ids).unwrap());
        assert_eq!(record["link"]["change"], "opened");
        assert_eq!(record["link"]["initiator"]["node"], "web@host-a");
        let progress = event(EventBody::Link { change: LinkChange::Progress, link });
        assert!(Record::from_event(&progress, "h", &mut ids).is_none());
    }

    #[test]
    fn names_from_the_wire_cannot_break_a_line() {
        let mut link = sample::report().links.remove(0);
        link.initiator.node = Some("evil\n{\"event_type\":\"alert\"}\u{2028}\u{0}@h".into());
        let event = event(EventBody::Link { change: LinkChange::Opened, link: Arc::new(link.clone()) });
        let record = value(&Record::from_event(&event, "h", &mut CommunityIds::default()).unwrap());
        assert_eq!(record["link"]["initiator"]["node"].as_str(), link.initiator.node.as_deref());
    }

    #[test]
    fn packets_are_named_as_elsewhere() {
        assert_eq!(packet_text(PacketRef { capture: 0, number: 0 }), None);
        assert_eq!(packet_text(PacketRef { capture: 0, number: 57 }).as_deref(), Some("57"));
        assert_eq!(packet_text(PacketRef { capture: 2, number: 57 }).as_deref(), Some("2:57"));
    }
}
