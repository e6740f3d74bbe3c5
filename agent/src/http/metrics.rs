//! `/metrics`: the picture as series. Everything is read when it is asked for, so that nothing has to be kept up to date.
//!
//! A label is one of few words that the program or its configuration chose; only [`LINK`] has names that peers chose, where
//! the operator asks for it, and then no more than [`PER_LINK`] of them.

mod exposition;
mod process;

use std::collections::BTreeMap;

use distwatch_engine::detect;
use distwatch_engine::model::{AlertStatus, Severity};
use distwatch_engine::text::safe;
use distwatch_engine::time::Timestamp;

pub(crate) use self::exposition::Format;
use self::exposition::{Exposition, Family, Kind, Series, Value};
use super::counts::{self, Counts};
use crate::daemon::picture::Picture;
use crate::sink::SinkStatus;

/// Links that get a series of their own: what a server that scrapes a hundred hosts still holds with ease.
const PER_LINK: usize = 500;

/// Layers in which something may not be decoded; they are told before it happens.
const LAYERS: [&str; 5] = ["dist", "epmd", "etf", "handshake", "tls"];

/// What is told besides the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// What the capture thread knows.
    pub(crate) picture: &'a Picture,
    /// How the configuration was loaded last.
    pub(crate) reload: Reload,
    /// What the server counts of itself.
    pub(crate) counts: &'a Counts,
    /// A series for each link.
    pub(crate) per_link: bool,
}

/// How the configuration was loaded last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether it was taken.
    pub successful: bool,
    /// When one was last taken.
    pub last_success: Timestamp,
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, unit: "", help }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, unit: "", help }
}

const fn in_unit(mut family: Family, unit: &'static str) -> Family {
    family.unit = unit;
    family
}

const BUILD: Family =
    Family { name: "distwatch_build", kind: Kind::Info, unit: "", help: "The program and how it captures." };
const LINKS: Family = gauge("distwatch_links", "Open distribution connections, by what they are carried by.");
const NODES: Family = gauge("distwatch_nodes", "Nodes that took part in the traffic.");
const ALERTS: Family = counter("distwatch_alerts", "Findings that were new.");
const ACTIVE: Family = gauge("distwatch_alerts_active", "Findings that have not ended.");
const PACKETS: Family = counter("distwatch_packets", "Packets that the capture back end was given.");
const BYTES: Family =
    in_unit(counter("distwatch_bytes", "Octets of the packets that the capture back end was given."), "bytes");
const OUTCOMES: Family = counter(
    "distwatch_capture_packets",
    "What became of the packets that the back end was given and did not lose: analysed, counted, uninteresting, refused.",
);
const DROPPED: Family = counter("distwatch_capture_dropped", "Packets that were lost, by the stage that lost them.");
const SHORTFALLS: Family = counter(
    "distwatch_capture_shortfalls",
    "What the capture did not keep besides packets, by what it was: connections, counts, processes of sockets.",
);
const DROPPED_BYTES: Family = in_unit(
    counter(
        "distwatch_capture_dropped_bytes",
        "Octets that were lost, by the stage that lost them; `cut` are the ends of packets that were analysed without them.",
    ),
    "bytes",
);
const GAPS: Family = counter("distwatch_reassembly_gaps", "Places where octets of a connection are missing.");
const ERRORS: Family = counter("distwatch_decode_errors", "What could not be decoded, by layer.");
const LIMITS: Family = counter("distwatch_limits_reached", "Limits that were reached, by name.");
const FLOWS: Family = gauge("distwatch_flows", "TCP connections that are remembered.");
const RELOADED: Family = gauge(
    "distwatch_config_last_reload_successful",
    "Whether the configuration that was loaded last was taken (1) or not (0).",
);
const RELOADED_AT: Family = in_unit(
    gauge("distwatch_config_last_reload_success_timestamp_seconds", "When a configuration was last taken."),
    "seconds",
);
const LINK: Family = Family {
    name: "distwatch_link",
    kind: Kind::Info,
    unit: "",
    help: "An open distribution connection; its names are those that its ends gave.",
};
const LINKS_LEFT_OUT: Family = gauge(
    "distwatch_link_series_left_out",
    "Open distribution connections that have no series of their own: there are too many.",
);
const SINK_RECORDS: Family = counter("distwatch_sink_records", "What became of the records of a sink.");
const SINK_SPOOL: Family =
    in_unit(gauge("distwatch_sink_spool_bytes", "Octets on disk that a sink has not taken yet."), "bytes");
const SINK_WAITING: Family = gauge("distwatch_sink_waiting_records", "Records that a sink has not taken yet.");
const SINK_SUCCESS: Family = in_unit(
    gauge("distwatch_sink_last_success_timestamp_seconds", "When a sink last took something; 0 where it never did."),
    "seconds",
);
const CONNECTIONS: Family = gauge("distwatch_http_connections", "Connections to the HTTP server.");
const REFUSED: Family = counter(
    "distwatch_http_connections_refused",
    "Connections that the HTTP server closed at once: there were too many.",
);
const GAVE_WAY: Family = counter(
    "distwatch_http_connections_given_way",
    "Connections without a request under way that the HTTP server closed because there was one more than there may be.",
);
const REQUESTS: Family =
    counter("distwatch_http_requests", "Answers of the HTTP server, by the first digit of their status.");
const STREAMS: Family = gauge("distwatch_http_streams", "Clients that are told events as they come.");
const CUT_OFF: Family =
    counter("distwatch_http_slow_clients", "Clients that were cut off because they read too slowly.");

/// The whole text.
pub(crate) fn text(facts: &Facts<'_>, format: Format) -> String {
    let mut out = Exposition::new(format);
    of_program(facts, &mut out);
    of_cluster(facts.picture, &mut out);
    of_capture(facts.picture, &mut out);
    of_sinks(&facts.picture.status.sinks, &mut out);
    if facts.per_link {
        of_links(facts.picture, &mut out);
    }
    of_server(facts.counts, &mut out);
    process::add(facts.picture.status.started, &mut out);
    out.finish()
}

fn of_program(facts: &Facts<'_>, out: &mut Exposition) {
    let status = &facts.picture.status;
    let labels = [("version", status.version.as_str()), ("capture", status.capture.back_end.as_str())];
    out.family(&BUILD, |series| series.add(&labels, 1_u64));
    out.family(&RELOADED, |series| series.add(&[], u64::from(facts.reload.successful)));
    out.family(&RELOADED_AT, |series| series.add(&[], seconds(facts.reload.last_success)));
}

fn of_cluster(picture: &Picture, out: &mut Exposition) {
    let open = &picture.status.cluster.links;
    out.family(&LINKS, |series| {
        for transport in ["cleartext", "tls", "unknown"] {
            series.add(&[("transport", transport)], open.get(transport).copied().unwrap_or(0));
        }
    });
    out.family(&NODES, |series| series.add(&[], picture.nodes.len()));
    // Zero is told too: whoever asks for an increase would not see the first one without it.
    // Any severity: findings of one rule differ in it, and a policy may change it.
    let catalogue = || detect::rules().flat_map(|rule| Severity::ALL.map(|severity| ((rule.id, severity), 0_u64)));
    let mut raised: BTreeMap<(&str, Severity), u64> = catalogue().collect();
    for ((rule, severity), count) in &picture.raised {
        raised.insert((rule, *severity), *count);
    }
    let mut active: BTreeMap<(&str, Severity), u64> = catalogue().collect();
    for alert in picture.alerts.iter().filter(|alert| alert.status != AlertStatus::Resolved) {
        *active.entry((&alert.rule_id, alert.severity)).or_default() += 1;
    }
    for (family, findings) in [(&ALERTS, raised), (&ACTIVE, active)] {
        out.family(family, |series| {
            for ((rule, severity), count) in findings {
                series.add(&[("rule_id", rule), ("severity", severity.name())], count);
            }
        });
    }
    out.family(&FLOWS, |series| series.add(&[], picture.open_flows));
    let stats = &picture.status.stats;
    out.family(&GAPS, |series| series.add(&[], stats.gaps));
    out.family(&ERRORS, |series| {
        let mut errors: BTreeMap<&str, u64> = LAYERS.into_iter().map(|layer| (layer, 0)).collect();
        errors.extend(stats.decode_errors.iter().map(|(layer, &count)| (layer.as_str(), count)));
        errors.into_iter().for_each(|(layer, count)| series.add(&[("layer", layer)], count));
    });
    out.family(&LIMITS, |series| named(series, "limit", &stats.limits_reached));
}

fn of_capture(picture: &Picture, out: &mut Exposition) {
    let capture = &picture.status.capture;
    let source = ("source", capture.back_end.as_str());
    out.family(&PACKETS, |series| series.add(&[source], capture.seen));
    out.family(&BYTES, |series| series.add(&[source], capture.seen_bytes));
    out.family(&OUTCOMES, |series| {
        for (outcome, count) in [
            ("analysed", capture.handed),
            ("counted", capture.counted),
            ("uninteresting", capture.uninteresting),
            ("refused", capture.refused),
        ] {
            series.add(&[source, ("outcome", outcome)], count);
        }
    });
    out.family(&DROPPED, |series| {
        for (stage, &count) in &capture.lost {
            series.add(&[source, ("stage", stage)], count);
        }
    });
    out.family(&SHORTFALLS, |series| {
        for (what, &count) in &capture.shortfalls {
            series.add(&[source, ("what", what)], count);
        }
    });
    out.family(&DROPPED_BYTES, |series| {
        for (stage, &count) in &capture.lost_bytes {
            series.add(&[source, ("stage", stage)], count);
        }
        series.add(&[source, ("stage", "cut")], capture.cut_bytes);
    });
}

fn of_sinks(sinks: &[SinkStatus], out: &mut Exposition) {
    out.family(&SINK_RECORDS, |series| {
        for sink in sinks {
            for (result, &count) in &sink.records {
                series.add(&[("sink", &sink.name), ("result", result)], count);
            }
        }
    });
    let mut each = |family, value: fn(&SinkStatus) -> Value| {
        out.family(family, |series| {
            sinks.iter().for_each(|sink| series.add(&[("sink", &sink.name)], value(sink)));
        });
    };
    each(&SINK_SPOOL, |sink| sink.spool_bytes.into());
    each(&SINK_WAITING, |sink| sink.queued.into());
    each(&SINK_SUCCESS, |sink| sink.last_success.map_or(0.0, seconds).into());
}

fn of_links(picture: &Picture, out: &mut Exposition) {
    let open = || picture.links.iter().filter(|link| link.closed.is_none());
    out.family(&LINK, |series| {
        for link in open().take(PER_LINK) {
            let name = |node: &Option<String>| safe(node.as_deref().unwrap_or_default()).into_owned();
            let (initiator, acceptor) = (name(&link.initiator.node), name(&link.acceptor.node));
            let (from, to) = (link.initiator.ip.to_string(), link.acceptor.ip.to_string());
            let labels = [
                ("flow_id", link.flow_id.as_str()),
                ("initiator", &initiator),
                ("initiator_ip", &from),
                ("acceptor", &acceptor),
                ("acceptor_ip", &to),
                ("transport", crate::daemon::status::transport(link.transport)),
            ];
            series.add(&labels, 1_u64);
        }
    });
    out.family(&LINKS_LEFT_OUT, |series| series.add(&[], open().count().saturating_sub(PER_LINK)));
}

fn of_server(counts: &Counts, out: &mut Exposition) {
    let counts = counts.snapshot();
    out.family(&CONNECTIONS, |series| series.add(&[], counts.connections));
    out.family(&REFUSED, |series| series.add(&[], counts.refused));
    out.family(&GAVE_WAY, |series| series.add(&[], counts.gave_way));
    out.family(&REQUESTS, |series| {
        for (class, count) in counts::CLASSES.into_iter().zip(counts.answers) {
            series.add(&[("status", class)], count);
        }
    });
    out.family(&STREAMS, |series| series.add(&[], counts.streams));
    out.family(&CUT_OFF, |series| series.add(&[], counts.cut_off));
}

fn named(series: &mut Series<'_>, label: &'static str, counts: &BTreeMap<String, u64>) {
    for (name, &count) in counts {
        series.add(&[(label, name)], count);
    }
}

/// A point in time as metrics have it. To the microsecond, which is all that a number of this size can tell.
fn seconds(time: Timestamp) -> f64 {
    (time.as_nanos() / 1000) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::sample;

    fn written(picture: &Picture, per_link: bool, format: Format) -> String {
        let reload = Reload { successful: true, last_success: Timestamp::from_parts(1_795_406_329, 500_000_000) };
        text(&Facts { picture, reload, counts: &Counts::default(), per_link }, format)
    }

    #[test]
    fn every_metric_of_the_contract_is_told() {
        let text = written(&sample::picture(), false, Format::OpenMetrics);
        for line in [
            "distwatch_build_info{version=\"0.1.0\",capture=\"ebpf\"} 1",
            "distwatch_links{transport=\"cleartext\"} 1",
            "distwatch_links{transport=\"tls\"} 0",
            "distwatch_nodes 2",
            "distwatch_alerts_total{rule_id=\"cleartext-distribution\",severity=\"high\"} 3",
            "distwatch_alerts_active{rule_id=\"cleartext-distribution\",severity=\"high\"} 1",
            "distwatch_alerts_active{rule_id=\"cookie-guessing\",severity=\"critical\"} 0",
            "distwatch_packets_total{source=\"ebpf\"} 1000",
            "distwatch_bytes_total{source=\"ebpf\"} 100000",
            "distwatch_capture_dropped_total{source=\"ebpf\",stage=\"ring\"} 7",
            "distwatch_reassembly_gaps_total 1",
            "distwatch_decode_errors_total{layer=\"dist\"} 2",
            "distwatch_decode_errors_total{layer=\"tls\"} 0",
            "distwatch_flows 12",
            "distwatch_sink_records_total{sink=\"loki\",result=\"sent\"} 8",
            "distwatch_sink_spool_bytes{sink=\"loki\"} 900",
            "distwatch_sink_waiting_records{sink=\"loki\"} 3",
            "distwatch_sink_last_success_timestamp_seconds{sink=\"loki\"} 1795406330",
            "distwatch_config_last_reload_successful 1",
            "distwatch_config_last_reload_success_timestamp_seconds 1795406329.5",
            "# TYPE distwatch_alerts counter",
            "# TYPE distwatch_build info",
            "# UNIT distwatch_bytes bytes",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
        assert!(!text.contains("@host"), "no name of a node without being asked:\n{text}");
    }

    #[test]
    fn a_series_for_each_link_has_a_cap_and_says_what_it_leaves_out() {
        let mut picture = sample::picture();
        let link = Arc::clone(&picture.links[0]);
        picture.links = (0..PER_LINK + 3)
            .map(|number| {
                let mut link = (*link).clone();
                link.closed = None;
                link.flow_id = format!("{number:016x}");
                link.initiator.node = Some("a\"}\n\u{1b}[2J@h".into());
                Arc::new(link)
            })
            .collect();
        let text = written(&picture, true, Format::Text);
        assert_eq!(text.matches("\ndistwatch_link_info{").count(), PER_LINK);
        assert!(text.contains("\ndistwatch_link_series_left_out 3\n"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("initiator=\"a\\\"}"), "{text}");
        assert!(!written(&picture, false, Format::Text).contains("distwatch_link_info"));
    }

    #[test]
    fn units_end_the_names_of_their_families_and_no_help_needs_to_be_escaped() {
        let text = written(&sample::picture(), true, Format::OpenMetrics);
        for line in text.lines() {
            let mut words = line.split(' ');
            if line.starts_with("# UNIT ") {
                let (name, unit) = (words.nth(2).unwrap(), words.next().unwrap());
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
            }
            assert!(!line.starts_with("# HELP") || !line.contains(['\\', '"']), "{line}");
        }
    }
}
