//! What the server counts of itself.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// The first digits of statuses that are answered.
pub(crate) const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Counters that all connections share.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU64,
    refused: AtomicU64,
    gave_way: AtomicU64,
    streams: AtomicU64,
    cut_off: AtomicU64,
    answers: [AtomicU64; CLASSES.len()],
}

/// The counters at one moment, as `status` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Connections.
    pub connections: u64,
    /// Connections that were closed at once: there were too many, and an answer was under way on each.
    pub refused: u64,
    /// Connections that waited, and were closed because there was one more than there may be.
    pub gave_way: u64,
    /// Clients that are told events as they come.
    pub streams: u64,
    /// Clients that were cut off because they read too slowly.
    pub cut_off: u64,
    /// Answers, by the first digit of their status from 2 on.
    pub answers: [u64; CLASSES.len()],
}

/// One that is there, until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(Arc<Counts>, fn(&Counts) -> &AtomicU64);

impl Present {
    /// A connection.
    pub(crate) fn connection(counts: &Arc<Counts>) -> Self {
        Self::new(counts, |counts| &counts.connections)
    }

    /// A client that is told events.
    pub(crate) fn stream(counts: &Arc<Counts>) -> Self {
        Self::new(counts, |counts| &counts.streams)
    }

    fn new(counts: &Arc<Counts>, of: fn(&Counts) -> &AtomicU64) -> Self {
        of(counts).fetch_add(1, Relaxed);
        Self(Arc::clone(counts), of)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

impl Counts {
    /// A connection was refused.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// A connection gave way to another.
    pub(crate) fn gave_way(&self) {
        self.gave_way.fetch_add(1, Relaxed);
    }

    /// A client was cut off.
    pub(crate) fn cut_off(&self) {
        self.cut_off.fetch_add(1, Relaxed);
    }

    /// Something was answered.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// All of them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.connections.load(Relaxed),
            refused: self.refused.load(Relaxed),
            gave_way: self.gave_way.load(Relaxed),
            streams: self.streams.load(Relaxed),
            cut_off: self.cut_off.load(Relaxed),
            answers: array::from_fn(|class| self.answers[class].load(Relaxed)),
        }
    }
}
