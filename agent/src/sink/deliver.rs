//! What a kind of sink does: take a batch, and say what became of it.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use distwatch_engine::time::Timestamp;
use serde_json::Value;

use crate::record::EventType;

/// A record as it comes out of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it became known.
    pub time: Timestamp,
    /// What it is.
    pub event_type: EventType,
    /// The JSON object, without a line feed.
    pub line: Vec<u8>,
    /// Where it lies in the spool: the same for every attempt to send it, so that a receiver may tell repeats. Empty
    /// for a record that never reached the disk.
    pub id: Option<(u64, u64)>,
}

impl Entry {
    /// The record as JSON; `Null` where it is none, which no record of ours is.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.line).unwrap_or_default()
    }
}

/// How much a sink takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Records.
    pub records: usize,
    /// Octets of them. A single record may be larger.
    pub bytes: usize,
    /// How long records may wait for others to go along with.
    pub wait: Duration,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server took it, except for what it refused for good.
    Done {
        /// What it refused, and in which words.
        refused: Option<Refused>,
    },
    /// The server could not take it now.
    Retry {
        /// How many records, from the first on, need not be sent again.
        done: usize,
        /// What it refused for good among those, and in which words.
        refused: Option<Refused>,
        /// Why, for a person.
        reason: String,
        /// When the server wants to be asked again, if it said so.
        after: Option<Duration>,
    },
}

/// What a server will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many records.
    pub records: usize,
    /// In the server's words.
    pub reason: String,
}

impl Outcome {
    /// All of it was taken.
    pub const DONE: Self = Self::Done { refused: None };

    /// None of it was taken, and it is worth trying again.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::retry_after(0, reason)
    }

    /// So much of it need not be sent again, and the rest is worth trying again.
    pub fn retry_after(done: usize, reason: impl Into<String>) -> Self {
        Self::Retry { done, refused: None, reason: reason.into(), after: None }
    }

    /// Some of it will never be taken.
    pub fn refused(records: usize, reason: impl Into<String>) -> Self {
        match records {
            0 => Self::DONE,
            _ => Self::Done { refused: Some(Refused { records, reason: reason.into() }) },
        }
    }
}

/// What became of records that were sent some time ago.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Those that were sent so long ago have arrived.
    Due,
    /// All that were sent until now have.
    All,
    /// It cannot be said yet.
    NotYet,
    /// They may be lost, for this reason, and are sent again.
    Lost(String),
}

/// An attempt under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// A sink of some kind. It keeps a connection and nothing else: queue, spool, retries and order are the worker's.
pub trait Deliver: Send {
    /// How much it takes at once.
    fn batch(&self) -> Batch;

    /// Sends a batch, never an empty one. May be dropped half-way; the batch is then sent again.
    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a>;

    /// For what has no acknowledgements: how long what was sent may still turn out to be lost. It is kept for so long at
    /// least, until [`Deliver::settled`] says that it has arrived.
    fn settles_after(&self) -> Option<Duration> {
        None
    }

    /// Whether an attempt that fails puts in doubt what was sent before and has not settled.
    fn doubts_after_failure(&self) -> bool {
        self.settles_after().is_some()
    }

    /// What became of what was sent so long ago.
    fn settled(&mut self) -> Pin<Box<dyn Future<Output = Settled> + Send + '_>> {
        Box::pin(async { Settled::Due })
    }

    /// When [`Deliver::tick`] wants to be called although there is no record.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does what is due. Nothing is lost by its failure; it is shown.
    fn tick(&mut self) -> Sending<'_> {
        Box::pin(async { Outcome::DONE })
    }

    /// Opens files anew: somebody has moved them away.
    fn reopen(&mut self) {}

    /// Ends in good order: all has been sent. Returns whether the other side has taken note of that.
    fn close(&mut self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async { true })
    }
}
