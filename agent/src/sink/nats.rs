//! `nats`: records into a JetStream stream, each with its acknowledgement.
//!
//! Every record has a `Nats-Msg-Id` that is the same for each attempt, so that a stream drops repeats by itself
//! (within its window, two minutes by default).

mod client;

use std::time::{Duration, Instant};

use ring::digest;
use serde_json::Value;
use tokio::time::timeout;

use super::deliver::{Batch, Deliver, Entry, Outcome, Refused, Sending};
use super::format::render;
use super::settings::{Format, Settings};
use super::{Context, Kind};
use client::{Client, Login, Message, Server};

pub(super) const KIND: Kind = Kind {
    name: "nats",
    help: "NATS JetStream: a stream that takes the subject must exist",
    only_alerts: false,
    alerts_unless_asked: false,
    open,
};

/// How often a connection without records is looked after: servers ask every two minutes whether somebody is there.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// Error codes of JetStream that the record is at fault for: larger than the stream takes, or not what it expects.
const REFUSED: [u64; 3] = [10_054, 10_060, 10_070];

struct Nats {
    servers: Vec<Server>,
    /// The server that is tried next.
    turn: usize,
    login: Login,
    patience: Duration,
    format: Format,
    batch: Batch,
    subject: String,
    host: String,
    name: String,
    client: Option<Client>,
    due: Option<Instant>,
    /// The last attempt went well, as far as anybody knows.
    is_steady: bool,
}

fn open(settings: &Settings, context: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let servers: Result<Vec<Server>, String> = settings.url.iter().map(|url| Server::parse(url)).collect();
    let wait = settings.batch_wait.unwrap_or_default();
    Ok(Box::new(Nats {
        servers: servers?,
        turn: 0,
        login: Login::new(settings)?,
        patience: settings.timeout,
        format: settings.format,
        batch: Batch { records: settings.batch_records.unwrap_or(500), bytes: 512 << 10, wait },
        subject: settings.subject.replace("{host}", &token(context.host)),
        host: token(context.host),
        name: settings.name.clone(),
        client: None,
        due: None,
        is_steady: false,
    }))
}

/// Checks an address of a server.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(text: &str) -> Result<(), String> {
    Server::parse(text).map(drop)
}

/// The port of a server; `None` where that is no address of one.
pub(crate) fn port(text: &str) -> Option<u16> {
    Server::parse(text).ok().map(|server| server.port)
}

/// Checks a subject: what stands in braces is known, and the rest is one that can be published to.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_subject(text: &str) -> Result<(), String> {
    let filled = text.replace("{host}", "h").replace("{event_type}", "t");
    let fits = |it: u8| it.is_ascii_graphic() && !b"*>{}".contains(&it);
    if filled.split('.').all(|token| !token.is_empty() && token.bytes().all(fits)) {
        return Ok(());
    }
    Err("it is no subject: words between dots, without spaces and wildcards; {host} and {event_type} stand for the \
         record's"
        .to_owned())
}

impl Deliver for Nats {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let patience = self.patience;
            // Dropped when there is no answer in time, so that late ones cannot be taken for those to later records.
            let client = self.client.take();
            match timeout(patience, self.try_send(client, batch)).await {
                Ok(Ok((client, outcome))) => {
                    self.client = Some(client);
                    self.due = Some(Instant::now() + LOOK_AFTER);
                    self.is_steady = matches!(outcome, Outcome::Done { .. });
                    outcome
                }
                Ok(Err(reason)) => self.away(reason),
                Err(_) => self.away(format!("no answer within {patience:?}")),
            }
        })
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn tick(&mut self) -> Sending<'_> {
        Box::pin(async move {
            self.due = None;
            let Some(mut client) = self.client.take() else { return Outcome::DONE };
            match timeout(self.patience, client.look_after()).await {
                Ok(Ok(())) => {
                    self.client = Some(client);
                    self.due = Some(Instant::now() + LOOK_AFTER);
                    Outcome::DONE
                }
                Ok(Err(reason)) => self.away(reason),
                Err(_) => self.away("no answer to a ping".to_owned()),
            }
        })
    }
}

impl Nats {
    fn away(&mut self, reason: String) -> Outcome {
        let server = self.servers.get(self.turn % self.servers.len().max(1));
        let reason = server.map_or_else(|| reason.clone(), |server| format!("{server}: {reason}"));
        self.turn = self.turn.wrapping_add(1);
        self.due = None;
        self.is_steady = false;
        Outcome::retry(reason)
    }

    async fn try_send(&self, client: Option<Client>, batch: &[Entry]) -> Result<(Client, Outcome), String> {
        let mut client = match client {
            Some(client) => client,
            None => {
                let server = self.servers.get(self.turn % self.servers.len().max(1)).ok_or("it has no url")?;
                Client::connect(server, &self.login).await?
            }
        };
        let mut messages = Vec::with_capacity(batch.len());
        for entry in batch {
            let subject = self.subject.replace("{event_type}", entry.event_type.name());
            messages.push(Message { subject, id: self.id(entry), body: render(entry, self.format) });
        }
        // After a failure the first goes alone: a stream that comes back in the middle would have what is behind it first.
        let (alone, together) = messages.split_at(usize::from(!self.is_steady).min(messages.len()));
        let mut answers = client.publish(alone).await?;
        if !matches!(judge(&answers), Outcome::Retry { .. }) {
            answers.extend(client.publish(together).await?);
        }
        Ok((client, judge(&answers)))
    }

    /// The same for each attempt, and another for every other record, also where the spool was lost in between or the
    /// record never reached it.
    fn id(&self, entry: &Entry) -> String {
        let (segment, offset) = entry.id.unwrap_or_default();
        let hash = digest::digest(&digest::SHA256, &entry.line);
        let hash: String = hash.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
        format!("{}-{}-{segment}-{offset}-{hash}", self.host, self.name)
    }
}

/// What the answers to some records mean together. The first one that has to be sent again takes those behind it along.
fn judge(answers: &[Result<Vec<u8>, String>]) -> Outcome {
    let mut refused: Option<Refused> = None;
    for (number, answer) in answers.iter().enumerate() {
        let again = |reason: String| Outcome::Retry { done: number, refused: refused.clone(), reason, after: None };
        let answer: Value = match answer {
            Ok(body) => serde_json::from_slice(body).unwrap_or_default(),
            Err(reason) => return again(reason.clone()),
        };
        let error = &answer["error"];
        if error.is_object() {
            let reason = format!("{} {}", error["err_code"], error["description"].as_str().unwrap_or_default());
            if !error["err_code"].as_u64().is_some_and(|code| REFUSED.contains(&code)) {
                return again(reason);
            }
            refused = Some(Refused { records: refused.map_or(0, |refused| refused.records) + 1, reason });
        } else if answer["stream"].as_str().is_none() {
            return again("the answer is none of JetStream's".to_owned());
        }
    }
    Outcome::Done { refused }
}

/// A name as a word of a subject.
fn token(name: &str) -> String {
    let fits = |it: char| if it.is_ascii_alphanumeric() || it == '-' || it == '_' { it } else { '_' };
    let token: String = name.chars().map(fits).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_that_was_not_stored_takes_those_behind_it_along() {
        let stored = || Ok(br#"{"stream":"S","seq":7}"#.to_vec());
        let full =
            || Ok(br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#.to_vec());
        let large = || Ok(br#"{"error":{"code":400,"err_code":10054,"description":"too large"}}"#.to_vec());
        assert_eq!(judge(&[stored(), stored()]), Outcome::DONE);
        assert!(matches!(judge(&[stored(), full(), stored()]), Outcome::Retry { done: 1, .. }));
        assert!(matches!(judge(&[Err("no stream".into())]), Outcome::Retry { done: 0, .. }));
        assert_eq!(judge(&[stored(), large()]), Outcome::refused(1, "10054 too large"));
        let Outcome::Retry { done: 2, refused: Some(refused), .. } = judge(&[large(), stored(), full(), large()])
        else {
            panic!("what was refused before is counted, and what comes after is asked again");
        };
        assert_eq!(refused, Refused { records: 1, reason: "10054 too large".into() });
        assert!(matches!(judge(&[Ok(b"hello".to_vec())]), Outcome::Retry { done: 0, .. }));
    }

    #[test]
    fn a_subject_can_be_published_to() {
        assert!(check_subject("distwatch.{event_type}.{host}").is_ok());
        for wrong in ["", "a..b", "a.*", "a.>", "a b", "a.{node}"] {
            assert!(check_subject(wrong).is_err(), "{wrong}");
        }
        assert_eq!(token("sensor 1.example"), "sensor_1_example");
    }
}
