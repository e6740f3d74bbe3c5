//! `/api/v1`: the lists, the status and the catalogue. Objects are those of `analyze`'s report, field for field.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use distwatch_engine::detect;
use distwatch_engine::model::{Alert, AlertStatus, Link, SCHEMA_VERSION, Severity, Transport};
use distwatch_engine::time::Timestamp;
use http::StatusCode;
use http::response::Response;
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{self, Body, Problem};
use super::limits::{ENTRIES, PIECE};
use super::pictures::Shown;
use super::query::Query;
use crate::daemon::picture::{Picture, RulesInForce};
use crate::guideline;
use crate::report::SchemaVersion;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Findings.
    Alerts,
    /// Nodes.
    Nodes,
    /// Links.
    Links,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Nodes => "nodes",
            Self::Links => "links",
        }
    }

    /// What it may be asked by.
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Alerts => &["status", "severity", "rule_id", "limit", "offset", "at"],
            Self::Nodes => &["limit", "offset", "at"],
            Self::Links => &["transport", "state", "limit", "offset", "at"],
        }
    }

    /// What it is asked by.
    pub(super) fn read(self, query: &str) -> Result<Query<'static>, Problem> {
        Query::read(query, self.parameters())
    }

    /// The part of the list that is asked for.
    pub(super) fn part(self, query: &Query<'_>, picture: &Picture) -> Result<Part, Problem> {
        let limit = query.whole("limit", 1)?.unwrap_or(ENTRIES);
        let offset = query.whole("offset", 0)?.unwrap_or(0);
        let wanted: Vec<usize> = match self {
            Self::Alerts => {
                let wanted = alert_filter(query)?;
                places(&picture.alerts, |alert| wanted(alert))
            }
            Self::Nodes => (0..picture.nodes.len()).collect(),
            Self::Links => {
                let wanted = link_filter(query)?;
                places(&picture.links, |link| wanted(link))
            }
        };
        let total = wanted.len();
        Ok(Part { list: self, rows: wanted.into_iter().skip(offset).take(limit).collect(), total, offset })
    }
}

/// Some of a list's entries, by their places in the picture.
pub(super) struct Part {
    list: List,
    rows: Vec<usize>,
    total: usize,
    offset: usize,
}

impl Part {
    /// Whether there are more behind these.
    pub(super) fn has_rest(&self) -> bool {
        self.offset.saturating_add(self.rows.len()) < self.total
    }

    /// The answer that has them.
    pub(super) fn respond(self, shown: &Shown, host: &str, place: OwnedSemaphorePermit) -> Response<Body> {
        let Shown { picture, last_event_id } = shown;
        let Self { list, rows, total, offset } = self;
        let head = Head { schema_version: SchemaVersion, timestamp: picture.time, host, last_event_id, total, offset };
        let mut head = serde_json::to_string(&head).unwrap_or_default();
        // The list itself comes last, in pieces.
        head.pop();
        let pieces = Pieces {
            before: Some(format!("{head},\"{}\":[", list.name())),
            list,
            picture: Arc::clone(picture),
            rows: rows.into_iter(),
            is_first: true,
            _place: place,
        };
        answer::in_pieces(StatusCode::OK, "application/json", pieces.boxed_unsync())
    }
}

/// What stands before the list.
#[derive(Serialize)]
struct Head<'a> {
    schema_version: SchemaVersion,
    timestamp: Timestamp,
    host: &'a str,
    last_event_id: &'a str,
    total: usize,
    offset: usize,
}

fn places<T>(list: &[T], wanted: impl Fn(&T) -> bool) -> Vec<usize> {
    list.iter().enumerate().filter(|(_, entry)| wanted(entry)).map(|(place, _)| place).collect()
}

fn alert_filter<'q>(query: &'q Query<'_>) -> Result<impl Fn(&Alert) -> bool + 'q, Problem> {
    let statuses: [(&str, &[AlertStatus]); 4] = [
        ("new", &[AlertStatus::New]),
        ("update", &[AlertStatus::Update]),
        ("resolved", &[AlertStatus::Resolved]),
        ("active", &[AlertStatus::New, AlertStatus::Update]),
    ];
    let status = query.word("status", &statuses)?;
    let severity = query.word("severity", &Severity::ALL.map(|severity| (severity.name(), severity)))?;
    let rules: Vec<(&str, &str)> = detect::rules().map(|rule| (rule.id, rule.id)).collect();
    let rule = match query.text("rule_id") {
        Some(id) if !rules.iter().any(|(known, _)| *known == id) => {
            return Err(Problem::bad_request("there is no rule of this rule_id: /api/v1/rules has all of them"));
        }
        rule => rule,
    };
    Ok(move |alert: &Alert| {
        status.is_none_or(|these| these.contains(&alert.status))
            && severity.is_none_or(|least| alert.severity >= least)
            && rule.is_none_or(|rule| alert.rule_id == rule)
    })
}

fn link_filter(query: &Query<'_>) -> Result<impl Fn(&Link) -> bool + use<>, Problem> {
    let transports =
        [Transport::Cleartext, Transport::Tls, Transport::Unknown].map(|it| (crate::daemon::status::transport(it), it));
    let transport = query.word("transport", &transports)?;
    let states = [("open", Some(true)), ("closed", Some(false)), ("all", None)];
    let open = query.word("state", &states)?.unwrap_or(Some(true));
    Ok(move |link: &Link| {
        transport.is_none_or(|transport| link.transport == transport)
            && open.is_none_or(|open| link.closed.is_none() == open)
    })
}

/// A list that is written piece by piece, when the connection can take one.
#[derive(Debug)]
struct Pieces {
    before: Option<String>,
    list: List,
    picture: Arc<Picture>,
    rows: std::vec::IntoIter<usize>,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

impl Pieces {
    fn next_piece(&mut self) -> Option<Vec<u8>> {
        let mut piece = self.before.take()?.into_bytes();
        while piece.len() < PIECE {
            let Some(row) = self.rows.next() else {
                piece.extend_from_slice(b"]}\n");
                return Some(piece);
            };
            if !std::mem::take(&mut self.is_first) {
                piece.push(b',');
            }
            match self.list {
                List::Alerts => write(self.picture.alerts.get(row), &mut piece),
                List::Nodes => write(self.picture.nodes.get(row).map(Arc::as_ref), &mut piece),
                List::Links => write(self.picture.links.get(row).map(Arc::as_ref), &mut piece),
            }
        }
        self.before = Some(String::new());
        Some(piece)
    }
}

/// Writing to memory cannot fail, and no key in these objects is anything but a string.
fn write(entry: Option<&impl Serialize>, into: &mut Vec<u8>) {
    let _ = serde_json::to_writer(into, &entry);
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece.into()))))
    }
}

/// The catalogue, as far as a reader of findings needs it, with what the policy in force makes of it.
pub(super) fn rules(in_force: &RulesInForce) -> Json {
    let rules: Vec<Json> = detect::rules()
        .map(|rule| {
            let said = in_force.get(rule.id);
            json!({
                "id": rule.id,
                "group": rule.group,
                "severity": said.and_then(|said| said.severity).unwrap_or(rule.severity),
                "default_severity": rule.severity,
                "enabled": said.and_then(|said| said.enabled).unwrap_or(!rule.off_by_default),
                "default_enabled": !rule.off_by_default,
                "exceptions": said.map_or(0, |said| said.allow.len()),
                "title": rule.raised_when,
                "rationale": rule.rationale,
                "evidence": rule.evidence,
                "remedy": rule.remediation,
                "references": guideline::with_statements(rule.references),
            })
        })
        .collect();
    json!({ "schema_version": SCHEMA_VERSION, "rules": rules })
}

#[cfg(test)]
mod tests {
    use distwatch_engine::policy::{Allow, RuleSettings};

    use super::*;
    use crate::http::sample;

    fn place() -> OwnedSemaphorePermit {
        Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    fn asked(list: List, query: &str) -> Result<Json, Problem> {
        let shown = Shown { picture: Arc::new(sample::picture()), last_event_id: "1-2".into() };
        let query = list.read(query)?;
        let response = list.part(&query, &shown.picture)?.respond(&shown, "h", place());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        Ok(serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn a_list_has_the_objects_of_the_report_and_says_how_many_there_are() {
        let report = crate::report::sample::report();
        let answer = asked(List::Nodes, "limit=1&offset=1").unwrap();
        assert_eq!((&answer["schema_version"], &answer["host"], &answer["total"]), (&json!(1), &json!("h"), &json!(2)));
        assert_eq!(answer["nodes"], json!([report.nodes[1]]));
        assert_eq!(answer["last_event_id"], "1-2");
        assert!(answer["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(asked(List::Nodes, "offset=99").unwrap()["nodes"], json!([]));
        let all = asked(List::Links, "state=all").unwrap();
        assert_eq!(all["links"], serde_json::to_value(&report.links).unwrap());
    }

    #[test]
    fn links_are_those_that_are_open_unless_asked_otherwise() {
        let count = |query: &str| asked(List::Links, query).unwrap()["links"].as_array().unwrap().len();
        let (open, closed, all) = (count(""), count("state=closed"), count("state=all"));
        assert!(open > 0 && closed > 0);
        assert_eq!((count("state=open"), all), (open, open + closed));
        let by_transport = ["cleartext", "tls", "unknown"].map(|it| count(&format!("state=all&transport={it}")));
        assert_eq!(by_transport.iter().sum::<usize>(), all);
    }

    #[test]
    fn alerts_are_filtered_by_state_rule_and_least_severity() {
        let rules = |query: &str| -> Vec<String> {
            let answer = asked(List::Alerts, query).unwrap();
            let alerts = answer["alerts"].as_array().unwrap();
            assert_eq!(answer["total"], alerts.len());
            alerts.iter().map(|alert| alert["rule_id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(rules("").len(), 4);
        assert_eq!(rules("severity=critical"), ["remote-command"]);
        assert_eq!(rules("severity=high").len(), 3);
        assert_eq!(rules("status=active&rule_id=cleartext-distribution").len(), 1);
        assert_eq!(rules("status=resolved").len(), 2);
        for wrong in ["severity=bad", "status=old", "rule_id=none", "state=open"] {
            assert_eq!(asked(List::Alerts, wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn a_long_list_comes_in_pieces_of_bounded_size() {
        let mut picture = sample::picture();
        let link = Arc::clone(&picture.links[0]);
        picture.links = vec![link; 1000];
        let rows: Vec<usize> = (0..1000).collect();
        let mut pieces = Pieces {
            before: Some("[".into()),
            list: List::Links,
            picture: Arc::new(picture),
            rows: rows.into_iter(),
            is_first: true,
            _place: place(),
        };
        let (mut whole, mut count) = (Vec::new(), 0);
        while let Some(piece) = pieces.next_piece() {
            assert!(piece.len() < 2 * PIECE);
            whole.extend_from_slice(&piece);
            count += 1;
        }
        assert!(count > 10, "{count}");
        let whole = String::from_utf8(whole).unwrap();
        let list: Vec<Json> = serde_json::from_str(whole.strip_suffix("}\n").unwrap()).unwrap();
        assert_eq!(list.len(), 1000);
    }

    #[test]
    fn every_rule_has_what_a_reader_needs() {
        let rules = rules(&RulesInForce::new());
        for rule in rules["rules"].as_array().unwrap() {
            for field in ["id", "severity", "title", "rationale", "remedy"] {
                assert!(rule[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {rule}");
            }
            assert!(rule["references"].as_array().unwrap().iter().all(|it| it["statement"].is_string()), "{rule}");
        }
    }

    #[test]
    fn a_rule_is_shown_as_the_policy_has_it_with_what_it_would_be_by_itself() {
        let said = RuleSettings {
            enabled: Some(false),
            severity: Some(Severity::Low),
            allow: vec![Allow::default(); 2],
            ..RuleSettings::default()
        };
        let on = RuleSettings { enabled: Some(true), ..RuleSettings::default() };
        let rules = rules(&[("hidden-node".to_owned(), said), ("remote-call".to_owned(), on)].into());
        let shown = |id: &str| {
            let rule = rules["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == id).unwrap();
            ["severity", "enabled", "default_severity", "default_enabled", "exceptions"].map(|key| rule[key].clone())
        };
        assert_eq!(json!(shown("hidden-node")), json!(["low", false, "medium", true, 2]));
        assert_eq!(json!(shown("remote-call")), json!(["info", true, "info", false, 0]));
        assert_eq!(json!(shown("remote-shell")), json!(["critical", true, "critical", true, 0]));
    }
}
