//! `loki`: pushes to Grafana Loki, with few labels and the rest as structured metadata.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::{AlertView, render};
use super::http::{self, Answer, Http, Url};
use super::settings::{Format, LokiSettings, Settings};
use super::status::now;
use super::{Context, Kind};

pub(super) const KIND: Kind =
    Kind { name: "loki", help: "Grafana Loki, by its push API", only_alerts: false, alerts_unless_asked: false, open };

struct Loki {
    http: Http,
    url: Url,
    format: Format,
    batch: Batch,
    host: String,
    settings: LokiSettings,
}

fn open(settings: &Settings, context: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let mut urls = http::urls(settings)?;
    let http = Http::new(settings, &urls)?;
    let url = http::with_path(urls.pop().ok_or("it has no url")?, "/loki/api/v1/push");
    let wait = settings.batch_wait.unwrap_or(Duration::from_millis(200));
    let batch = Batch { records: settings.batch_records.unwrap_or(1000), bytes: 512 << 10, wait };
    let (format, host, settings) = (settings.format, context.host.to_owned(), settings.loki.clone());
    Ok(Box::new(Loki { http, url, format, batch, host, settings }))
}

impl Deliver for Loki {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let body = gzip(self.body(batch).to_string().as_bytes());
            let mut headers = vec![("content-type", "application/json"), ("content-encoding", "gzip")];
            if let Some(tenant) = &self.settings.tenant {
                headers.push(("x-scope-orgid", tenant));
            }
            match self.http.post(&self.url, &headers, body).await {
                // A part of it may have been stored all the same, so it is never sent again.
                Answer::Refused(reason) => Outcome::refused(ignored(&reason, batch.len()), reason),
                answer => answer.outcome(batch.len()),
            }
        })
    }
}

impl Loki {
    /// One stream for each kind of record, each in order.
    fn body(&self, batch: &[Entry]) -> Value {
        let sent = self.settings.time_of_sending.then(now);
        let mut streams: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for entry in batch {
            let time = sent.unwrap_or(entry.time).as_nanos().to_string();
            let line = String::from_utf8_lossy(&render(entry, self.format)).into_owned();
            let value = match AlertView::of(entry).filter(|_| self.settings.structured_metadata) {
                Some(alert) => json!([time, line, metadata(&alert)]),
                None => json!([time, line]),
            };
            streams.entry(entry.event_type.name()).or_default().push(value);
        }
        let stream = |(event_type, values): (&str, Vec<Value>)| {
            let mut labels: BTreeMap<&str, &str> =
                self.settings.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            labels.extend([("service_name", "distwatch"), ("host", &self.host), ("event_type", event_type)]);
            json!({ "stream": labels, "values": values })
        };
        json!({ "streams": streams.into_iter().map(stream).collect::<Vec<_>>() })
    }
}

/// Text only, and no name that is also a field at the top of the record: Loki would rename that.
fn metadata(alert: &AlertView) -> Value {
    let mut metadata: BTreeMap<&str, &str> = ["rule_id", "severity", "level", "status", "fingerprint", "subject"]
        .into_iter()
        .map(|name| (name, alert.text(name)))
        .collect();
    if let Some((from, to)) = alert.ends() {
        metadata.extend([("from_node", from), ("to_node", to)]);
    }
    metadata.retain(|_, value| !value.is_empty());
    json!(metadata)
}

/// How many records the server says that it has not stored: `… total ignored: 3 out of 10 …`; all where it does not say.
fn ignored(reason: &str, records: usize) -> usize {
    let said = reason.split_once("total ignored: ").and_then(|(_, rest)| {
        let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits)?.parse::<usize>().ok()
    });
    said.map_or(records, |said| said.min(records))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    // Writing to memory cannot fail; were it to, the server would refuse the rest.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::format::testing::entries;
    use super::*;

    #[test]
    fn there_are_few_labels_and_the_rest_is_text_in_the_metadata() {
        let settings = Settings { url: vec!["http://localhost:1".into()], ..Settings::default() };
        let labels = BTreeMap::from([("env".to_owned(), "test".to_owned())]);
        let http = Http::new(&settings, &[]).unwrap();
        let loki = Loki {
            http,
            url: http::url("http://localhost:1").unwrap(),
            format: Format::Native,
            batch: Batch { records: 1, bytes: 1, wait: Duration::ZERO },
            host: "sensor-1".into(),
            settings: LokiSettings { labels, ..LokiSettings::default() },
        };
        let batch = entries();
        let body = loki.body(&batch);
        let streams = body["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 2);
        let alerts = &streams[0];
        let labels = json!({ "env": "test", "service_name": "distwatch", "host": "sensor-1", "event_type": "alert" });
        assert_eq!(alerts["stream"], labels);
        let value = &alerts["values"][0];
        assert_eq!(value[0], batch[0].time.as_nanos().to_string());
        assert_eq!(value[1].as_str().unwrap().as_bytes(), batch[0].line);
        let record = batch[0].json();
        assert_eq!(value[2]["rule_id"], record["alert"]["rule_id"]);
        for (name, value) in value[2].as_object().unwrap() {
            assert!(value.is_string() && record.get(name).is_none(), "{name}");
        }
        assert_eq!(streams[1]["values"][0].as_array().unwrap().len(), 2, "nothing to say beside counters");
    }

    #[test]
    fn what_a_refusal_says_of_the_number_is_counted() {
        assert_eq!(ignored("400: entry too far behind, total ignored: 3 out of 10 for stream", 10), 3);
        assert_eq!(ignored("400: total ignored: 99 out of 10", 10), 10);
        assert_eq!(ignored("400: at least one label pair is required", 10), 10);
    }
}
