//! How a sink is doing: counted by those who move records, read by `status`, the metrics and the rule `sink-failing`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use distwatch_engine::text::safe;
use distwatch_engine::time::Timestamp;
use serde::Serialize;

/// Characters of a server's answer that are kept.
const QUOTED: usize = 300;

/// What becomes of records, by the word in `distwatch_sink_records_total{result}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fate {
    /// The server took it.
    Sent,
    /// It was sent once more, because nobody could say whether it had arrived.
    Resent,
    /// The server will never take it.
    Refused,
    /// The sink's rate limit held it back.
    RateLimited,
    /// It was the oldest when the spool reached its limit.
    SpoolFull,
    /// The disk could not take it, and memory was full as well.
    DiskFull,
    /// It came faster than it could be written.
    QueueFull,
    /// It is longer than any record should be.
    TooLong,
    /// It could not be read from the disk any more.
    Damaged,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Sent,
        Self::Resent,
        Self::Refused,
        Self::RateLimited,
        Self::SpoolFull,
        Self::DiskFull,
        Self::QueueFull,
        Self::TooLong,
        Self::Damaged,
    ];

    /// The word in metrics and in `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Resent => "resent",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::SpoolFull => "spool_full",
            Self::DiskFull => "disk_full",
            Self::QueueFull => "queue_full",
            Self::TooLong => "too_long",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the record is lost to this sink, and that by no wish of the operator's.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        !matches!(self, Self::Sent | Self::Resent | Self::RateLimited)
    }
}

/// How a sink is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// The word for its kind.
    pub kind: &'static str,
    /// Records that it has not taken yet, in memory and on disk.
    pub queued: u64,
    /// Octets of its spool that it has not taken yet.
    pub spool_bytes: u64,
    /// What became of records, by [`Fate::name`], since the start.
    pub records: BTreeMap<&'static str, u64>,
    /// When it last took something.
    pub last_success: Option<Timestamp>,
    /// What went wrong last; kept after it has recovered.
    pub last_error: Option<String>,
    /// Since when it takes nothing, or its spool cannot be written; `None` where all is well.
    pub failing_since: Option<Timestamp>,
}

impl SinkStatus {
    /// How many records had this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        self.records.get(fate.name()).copied().unwrap_or_default()
    }
}

/// What is counted of one sink.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    fates: [AtomicU64; Fate::ALL.len()],
    health: Mutex<Health>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) last_error: Option<String>,
    pub(crate) sending_fails_since: Option<Timestamp>,
    pub(crate) disk_fails_since: Option<Timestamp>,
}

impl Counters {
    pub(crate) fn add(&self, fate: Fate, records: u64) {
        if records > 0 {
            self.fates[fate as usize].fetch_add(records, Ordering::Relaxed);
        }
    }

    pub(crate) fn records(&self) -> BTreeMap<&'static str, u64> {
        Fate::ALL.iter().map(|fate| (fate.name(), self.fates[*fate as usize].load(Ordering::Relaxed))).collect()
    }

    /// The server took something.
    pub(crate) fn succeeded(&self) {
        let mut health = self.health();
        health.last_success = Some(now());
        health.sending_fails_since = None;
    }

    /// The server took nothing. Returns whether that is news.
    pub(crate) fn failed(&self, reason: &str) -> bool {
        let mut health = self.health();
        let news = health.sending_fails_since.is_none();
        health.sending_fails_since.get_or_insert_with(now);
        health.last_error = Some(short(reason));
        news
    }

    /// Something is wrong that does not keep records from arriving.
    pub(crate) fn remark(&self, reason: &str) {
        self.health().last_error = Some(short(reason));
    }

    /// The spool could be written, or not. Returns whether that is news.
    pub(crate) fn disk(&self, error: Option<&str>) -> bool {
        let mut health = self.health();
        let failed = health.disk_fails_since.is_some();
        match error {
            Some(error) => {
                health.disk_fails_since.get_or_insert_with(now);
                health.last_error = Some(short(error));
            }
            None => health.disk_fails_since = None,
        }
        failed != error.is_some()
    }

    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    pub(crate) fn failing_since(&self) -> Option<Timestamp> {
        match (self.sending_fails_since, self.disk_fails_since) {
            (Some(sending), Some(disk)) => Some(sending.min(disk)),
            (one, other) => one.or(other),
        }
    }
}

/// A server's words, short and harmless to a terminal.
pub(crate) fn short(reason: &str) -> String {
    let start: String = reason.chars().take(QUOTED).collect();
    safe(&start).into_owned()
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_parts(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}
