//! `alertmanager`: firing and resolved alerts to every peer of an Alertmanager, said again before they expire.
//!
//! Alertmanager forgets what is not said again, so what goes on is repeated each minute, and what has ended for five
//! minutes; with its annotations, for the notification of the end has those of the last message. An alert counts as
//! taken when one peer has it: the peers tell each other, and one that was away hears of it with the next repeat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use distwatch_engine::model::Severity;
use distwatch_engine::time::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::warn;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::AlertView;
use super::http::{self, Answer, Http, Url};
use super::settings::{AlertmanagerSettings, Settings};
use super::status::now;
use super::{Context, Kind};

pub(super) const KIND: Kind = Kind {
    name: "alertmanager",
    help: "Prometheus Alertmanager, by its API of version 2",
    only_alerts: true,
    alerts_unless_asked: true,
    open,
};

/// How long an end is repeated: as long as Alertmanager by default takes to forget (`resolve_timeout`).
const REPEAT_END: Duration = Duration::from_secs(300);

/// After so many missed repeats an alert ends by itself: the sensor has gone.
const MISSED: u32 = 4;

/// Alerts that are repeated. More at once is nothing that anybody is notified of one by one; further ones are sent once.
const HELD: usize = 10_000;

/// Alerts in one request.
const PIECE: usize = 500;

struct Alertmanager {
    http: Http,
    peers: Vec<Url>,
    /// Whether each peer took the last request.
    well: Vec<bool>,
    batch: Batch,
    settings: AlertmanagerSettings,
    /// What is repeated, by fingerprint.
    held: BTreeMap<String, Held>,
    next_repeat: Option<Instant>,
}

/// An alert as it was last sent.
#[derive(Clone, Debug)]
struct Held {
    alert: Value,
    ended: Option<Instant>,
}

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let urls = http::urls(settings)?;
    let http = Http::new(settings, &urls)?;
    let peers: Vec<Url> = urls.into_iter().map(|url| http::with_path(url, "/api/v2/alerts")).collect();
    let wait = settings.batch_wait.unwrap_or(Duration::from_millis(100));
    let batch = Batch { records: settings.batch_records.unwrap_or(PIECE), bytes: 1 << 20, wait };
    let (well, settings) = (vec![true; peers.len()], settings.alertmanager.clone());
    Ok(Box::new(Alertmanager { http, peers, well, batch, settings, held: BTreeMap::new(), next_repeat: None }))
}

impl Deliver for Alertmanager {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let mut alerts = Vec::new();
            for alert in batch.iter().filter_map(AlertView::of) {
                self.take(&alert, Instant::now(), &mut alerts);
            }
            self.post(&alerts).await.outcome(batch.len())
        })
    }

    fn due(&self) -> Option<Instant> {
        self.next_repeat
    }

    fn tick(&mut self) -> Sending<'_> {
        Box::pin(async move {
            let alerts = self.repeat(Instant::now());
            let mut worst = Outcome::DONE;
            for piece in alerts.chunks(PIECE) {
                match self.post(piece).await {
                    Answer::Again { reason, after } => worst = Outcome::Retry { done: 0, refused: None, reason, after },
                    Answer::Refused(reason) => worst = Outcome::retry(reason),
                    Answer::Taken(_) => {}
                }
            }
            worst
        })
    }
}

impl Alertmanager {
    /// Remembers an alert, and adds what has to be said of it.
    fn take(&mut self, alert: &AlertView, at: Instant, out: &mut Vec<Value>) {
        let told = self.told(alert);
        let fingerprint = alert.text("fingerprint").to_owned();
        // Labels tell alerts apart. Where they change, the one before has ended, which is repeated like any end.
        if self.held.get(&fingerprint).is_some_and(|held| held.alert["labels"] != told["labels"])
            && let Some(mut before) = self.held.remove(&fingerprint)
        {
            before.alert["endsAt"] = json!(moment(now()));
            before.ended = Some(at);
            out.push(before.alert.clone());
            self.held.insert(format!("{fingerprint} {}", before.alert["labels"]["severity"]), before);
        }
        out.push(told.clone());
        let ended = alert.is_resolved().then_some(at);
        if self.held.len() >= HELD && !self.held.contains_key(&fingerprint) {
            let oldest = self.held.iter().filter(|(_, held)| held.ended.is_some()).min_by_key(|(_, held)| held.ended);
            let Some(ended) = oldest.map(|(fingerprint, _)| fingerprint.clone()) else {
                warn!(limit = HELD, "so many alerts are firing that a further one is sent once and not repeated");
                return;
            };
            self.held.remove(&ended);
        }
        self.held.insert(fingerprint, Held { alert: told, ended });
        self.next_repeat.get_or_insert(at + self.settings.resend);
    }

    /// What has to be said again.
    fn repeat(&mut self, at: Instant) -> Vec<Value> {
        self.held.retain(|_, held| held.ended.is_none_or(|ended| at.saturating_duration_since(ended) <= REPEAT_END));
        let until = json!(moment(self.expiry()));
        for held in self.held.values_mut().filter(|held| held.ended.is_none()) {
            held.alert["endsAt"] = until.clone();
        }
        self.next_repeat = (!self.held.is_empty()).then(|| at + self.settings.resend);
        self.held.values().map(|held| held.alert.clone()).collect()
    }

    fn told(&self, alert: &AlertView) -> Value {
        let record = alert.record();
        let rule = alert.text("rule_id");
        let severity = match alert.severity() {
            Severity::Info | Severity::Low => "info",
            Severity::Medium => "warning",
            Severity::High | Severity::Critical => "critical",
        };
        let mut labels: BTreeMap<&str, &str> =
            self.settings.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let name = camel_case(rule);
        labels.extend([
            ("alertname", name.as_str()),
            ("service", "distwatch"),
            ("severity", severity),
            ("host", record["host"].as_str().unwrap_or_default()),
            ("rule_id", rule),
            ("subject", alert.text("subject")),
            ("fingerprint", alert.text("fingerprint")),
        ]);
        if let Some((from, to)) = alert.ends() {
            labels.extend([("from_node", from), ("to_node", to)]);
        }
        // An empty label is none.
        labels.retain(|_, value| !value.is_empty());
        let evidence = record["alert"]["evidence"].as_array();
        let facts: Vec<&str> = evidence.into_iter().flatten().filter_map(|fact| fact["fact"].as_str()).collect();
        let references = record["alert"]["references"].as_array();
        let references: Vec<&str> = references.into_iter().flatten().filter_map(Value::as_str).collect();
        let mut annotations = BTreeMap::from([
            ("summary", alert.text("reason").to_owned()),
            ("description", facts.join("\n")),
            ("remediation", alert.text("remediation").to_owned()),
            ("guideline", references.join(", ")),
            ("confidence", alert.text("confidence").to_owned()),
        ]);
        annotations.retain(|_, value| !value.is_empty());
        let mut told = json!({
            "labels": labels,
            "annotations": annotations,
            // Where the clock of this host was ahead and has been set back: one that ends before it starts is refused.
            "startsAt": alert.text("first_seen").to_owned().min(now().to_string()),
            "endsAt": match alert.is_resolved() {
                // It may have lasted long after it was last seen.
                true => record["timestamp"].as_str().unwrap_or_default().to_owned(),
                false => moment(self.expiry()),
            },
        });
        if let Some(url) = &self.settings.generator_url {
            told["generatorURL"] = json!(url);
        }
        told
    }

    fn expiry(&self) -> Timestamp {
        now().plus(self.settings.resend * MISSED)
    }

    /// Tells every peer. Taken when one takes it, refused when one refuses it and none takes it.
    async fn post(&mut self, alerts: &[Value]) -> Answer {
        let body = json!(alerts).to_string().into_bytes();
        let mut asked = JoinSet::new();
        for (number, peer) in self.peers.iter().cloned().enumerate() {
            let (http, body) = (self.http.clone(), body.clone());
            asked.spawn(async move { (number, http.post(&peer, &[("content-type", "application/json")], body).await) });
        }
        let mut best = Answer::Again { reason: "no peer was asked".to_owned(), after: None };
        while let Some(answer) = asked.join_next().await {
            let Ok((number, answer)) = answer else { continue };
            self.note(number, &answer);
            best = match (best, answer) {
                (Answer::Taken(body), _) | (_, Answer::Taken(body)) => Answer::Taken(body),
                (Answer::Refused(reason), _) => Answer::Refused(reason),
                (_, answer) => answer,
            };
        }
        best
    }

    /// One peer that is away is no failure of the sink, but somebody should know.
    fn note(&mut self, number: usize, answer: &Answer) {
        let (Some(well), Some(peer)) = (self.well.get_mut(number), self.peers.get(number)) else { return };
        let reason = match answer {
            Answer::Taken(_) => None,
            Answer::Refused(reason) | Answer::Again { reason, .. } => Some(reason),
        };
        if let Some(reason) = reason.filter(|_| *well) {
            warn!(peer = %peer, reason, "a peer of Alertmanager does not take alerts");
        }
        *well = reason.is_none();
    }
}

/// RFC 3339 with milliseconds.
fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}Z", text.get(..23).unwrap_or(&text))
}

/// `weak-cookie` is `WeakCookie`.
fn camel_case(rule: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    rule.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use distwatch_engine::model::AlertStatus;

    use super::*;
    use crate::record::{CommunityIds, EventType, Record};
    use crate::report::sample;
    use crate::sink::Outgoing;

    const SECOND: Duration = Duration::from_secs(1);

    fn view(status: AlertStatus, severity: Severity) -> AlertView {
        let mut alert = sample::report().alerts.remove(0);
        (alert.status, alert.severity) = (status, severity);
        let out = Outgoing::new(&Record::from_alert(&alert, "sensor-1", &mut CommunityIds::default()));
        let entry = Entry { time: out.time, event_type: EventType::Alert, line: out.line.to_vec(), id: None };
        AlertView::of(&entry).unwrap()
    }

    fn sink() -> Alertmanager {
        let settings = Settings::default();
        Alertmanager {
            http: Http::new(&settings, &[]).unwrap(),
            peers: Vec::new(),
            well: Vec::new(),
            batch: Batch { records: 1, bytes: 1, wait: Duration::ZERO },
            settings: settings.alertmanager,
            held: BTreeMap::new(),
            next_repeat: None,
        }
    }

    #[test]
    fn what_goes_on_is_repeated_and_what_has_ended_is_for_five_minutes() {
        let (mut sink, start, mut out) = (sink(), Instant::now(), Vec::new());
        sink.take(&view(AlertStatus::New, Severity::High), start, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(sink.due(), Some(start + 60 * SECOND));
        assert!(out[0]["endsAt"].as_str().unwrap() > moment(now()).as_str());
        for minute in 1..100 {
            assert_eq!(sink.repeat(start + minute * 60 * SECOND).len(), 1);
        }
        let end = start + 6000 * SECOND;
        out.clear();
        sink.take(&view(AlertStatus::Resolved, Severity::High), end, &mut out);
        assert!(out[0]["endsAt"].as_str().unwrap() < moment(now()).as_str());
        assert!(out[0]["annotations"]["summary"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(sink.repeat(end + 300 * SECOND), out);
        assert!(sink.repeat(end + 301 * SECOND).is_empty());
        assert_eq!(sink.due(), None);
    }

    #[test]
    fn another_severity_is_another_alert_and_ends_the_one_before() {
        let (mut sink, mut out) = (sink(), Vec::new());
        sink.take(&view(AlertStatus::New, Severity::Medium), Instant::now(), &mut out);
        sink.take(&view(AlertStatus::Update, Severity::Critical), Instant::now(), &mut out);
        let severities: Vec<_> = out.iter().map(|alert| alert["labels"]["severity"].as_str().unwrap()).collect();
        assert_eq!(severities, ["warning", "warning", "critical"]);
        assert!(out[1]["endsAt"].as_str().unwrap() <= moment(now()).as_str());
        assert_eq!(sink.repeat(Instant::now()).len(), 2);
        assert_eq!(sink.repeat(Instant::now() + 400 * SECOND).len(), 1, "the end is not repeated for ever");
    }

    #[test]
    fn names_are_those_of_prometheus() {
        assert_eq!(camel_case("tls-without-client-certificate"), "TlsWithoutClientCertificate");
        let told = sink().told(&view(AlertStatus::New, Severity::High));
        let fits = |name: &String| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        assert!(told["labels"].as_object().unwrap().keys().all(fits));
        assert_eq!(told["labels"]["service"], "distwatch");
        assert_eq!(moment(Timestamp::from_nanos(1_795_406_329_333_358_001)), "2026-11-23T03:58:49.333Z");
    }
}
