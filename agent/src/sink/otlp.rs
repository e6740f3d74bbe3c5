//! `otlp`: OpenTelemetry log records as protocol buffers, over HTTP or gRPC.

mod grpc;
mod protobuf;

use std::time::Duration;

use distwatch_engine::model::Severity;
use distwatch_engine::time::Timestamp;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::{AlertView, render};
use super::http::{self, Answer, Http, Url};
use super::settings::{Format, Protocol, Settings};
use super::status::now;
use super::{Context, Kind};
use protobuf::{Message, refused, text};

pub(super) const KIND: Kind = Kind {
    name: "otlp",
    help: "an OpenTelemetry collector, by OTLP over HTTP or gRPC",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

struct Otlp {
    http: Http,
    url: Url,
    protocol: Protocol,
    timeout: Duration,
    format: Format,
    batch: Batch,
    host: String,
}

fn open(settings: &Settings, context: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let mut urls = http::urls(settings)?;
    let (http, path) = match settings.protocol {
        Protocol::Http => (Http::new(settings, &urls)?, "/v1/logs"),
        Protocol::Grpc => (Http::only_http_2(settings, &urls)?, grpc::EXPORT),
    };
    let url = http::with_path(urls.pop().ok_or("it has no url")?, path);
    let wait = settings.batch_wait.unwrap_or(Duration::from_millis(200));
    let batch = Batch { records: settings.batch_records.unwrap_or(1000), bytes: 512 << 10, wait };
    let (protocol, timeout, format) = (settings.protocol, settings.timeout, settings.format);
    Ok(Box::new(Otlp { http, url, protocol, timeout, format, batch, host: context.host.to_owned() }))
}

impl Deliver for Otlp {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let body = self.body(batch);
            if self.protocol == Protocol::Grpc {
                let reply = http::grpc::call(&self.http, &self.url, &body, self.timeout).await;
                return grpc::outcome(reply, batch.len());
            }
            match self.http.post(&self.url, &[("content-type", "application/x-protobuf")], body).await {
                Answer::Taken(response) => rejected(&response, batch.len()),
                answer => answer.outcome(batch.len()),
            }
        })
    }
}

/// What an `ExportLogsServiceResponse` says of so many records. A partial success must not be sent again (OTLP, "Partial
/// Success").
fn rejected(response: &[u8], records: usize) -> Outcome {
    match refused(response) {
        Some((number, why)) => Outcome::refused(usize::try_from(number).unwrap_or(records).min(records), why),
        None => Outcome::DONE,
    }
}

impl Otlp {
    /// An `ExportLogsServiceRequest` with one resource and one scope.
    fn body(&self, batch: &[Entry]) -> Vec<u8> {
        let resource = Message::default()
            .attribute(1, "service.name", "distwatch")
            .attribute(1, "service.version", env!("CARGO_PKG_VERSION"))
            .attribute(1, "host.name", &self.host);
        let scope = Message::default().bytes(1, b"distwatch").bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
        let observed = now();
        let logs = batch
            .iter()
            .fold(Message::default().message(1, scope), |logs, entry| logs.message(2, self.record(entry, observed)));
        Message::default().message(1, Message::default().message(1, resource).message(2, logs)).into_bytes()
    }

    /// A `LogRecord`.
    fn record(&self, entry: &Entry, observed: Timestamp) -> Message {
        let alert = AlertView::of(entry);
        let (number, word) = alert.as_ref().map_or((9, "INFO"), |alert| level(alert.severity()));
        let kind = entry.event_type.name();
        let mut record = Message::default()
            .fixed64(1, nanos(entry.time))
            .number(2, number)
            .bytes(3, word.as_bytes())
            .message(5, text(&render(entry, self.format)))
            .attribute(6, "event_type", kind)
            .fixed64(11, nanos(observed))
            .bytes(12, format!("distwatch.{kind}").as_bytes());
        for name in ["rule_id", "severity", "status", "fingerprint", "subject"] {
            if let Some(value) = alert.as_ref().map(|alert| alert.text(name)).filter(|value| !value.is_empty()) {
                record = record.attribute(6, name, value);
            }
        }
        record
    }
}

/// `SeverityNumber` and its short name.
const fn level(severity: Severity) -> (u64, &'static str) {
    match severity {
        Severity::Info => (9, "INFO"),
        Severity::Low => (10, "INFO2"),
        Severity::Medium => (13, "WARN"),
        Severity::High => (17, "ERROR"),
        Severity::Critical => (21, "FATAL"),
    }
}

/// There is no time before the epoch in OTLP.
fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(0)
}
