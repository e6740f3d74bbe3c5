//! What lies between the analysis and one sink's server: a short queue in memory, then the spool.
//!
//! The analysis never waits for a sink. It pushes into the queue; a thread of its own empties the queues of all sinks
//! into their spools. Only an alert goes the whole way at once, into the kernel's memory, so that not even `kill -9`
//! loses it.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::deliver::{Batch, Entry};
use super::outgoing::Outgoing;
use super::settings::Fsync;
use super::spool::{Place, Spool, entry};
use super::status::{Counters, Fate};

/// Octets that a sink's queue may hold: some thousand records, or half a second of a busy link's. Lines are shared, so
/// ten sinks with full queues hold the same ones.
const QUEUE_BYTES: usize = 4 << 20;

/// What a record costs besides its line.
const RECORD_COST: usize = 200;

/// Octets that are written to a spool at once.
const CHUNK: usize = 256 << 10;

/// A write that took longer shows that the disk holds everybody up. Then alerts go by way of the queue for
/// [`MERCY`], for the analysis must not be held up.
const SLOW: Duration = Duration::from_millis(50);

/// How long a disk that was slow is not waited for.
const MERCY: Duration = Duration::from_secs(10);

/// How often a spool that could not be written is tried again. Space that returns is used within this.
pub(crate) const DISK_RETRY: Duration = Duration::from_secs(1);

/// Records of one sink that its server has not taken yet.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) counters: Counters,
    pub(crate) spool: Spool,
    /// Something has come for the worker.
    pub(crate) ready: Notify,
    queue: Mutex<Queue>,
    writing: Mutex<Writing>,
    /// Records that the worker has taken past the disk and not sent yet.
    in_hand: AtomicU64,
    /// The spool could not be written.
    failing: AtomicBool,
    /// The disk is slow.
    slow: AtomicBool,
    fsync: Mutex<Fsync>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Arc<Outgoing>>,
    bytes: usize,
}

/// Held by whoever moves records from the queue into the spool, so that they stay in order.
#[derive(Debug, Default)]
struct Writing {
    /// Taken from the queue, not yet written.
    pending: VecDeque<Arc<Outgoing>>,
    slow_since: Option<Instant>,
    next_attempt: Option<Instant>,
}

/// What a worker sends next.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) entries: Vec<Entry>,
    /// Where they end in the spool; `None` for records that never reached it.
    pub(crate) end: Option<Place>,
}

impl Store {
    /// Opens a sink's spool.
    ///
    /// # Errors
    /// A sentence that says why it cannot be opened.
    pub(crate) fn open(name: &str, dir: &Path, limit: u64, fsync: Fsync) -> Result<Self, String> {
        let (spool, opened) = Spool::open(dir, limit)
            .map_err(|error| format!("its spool {} cannot be opened: {error}", dir.display()))?;
        let counters = Counters::default();
        if opened.waiting > 0 {
            info!(sink = name, records = opened.waiting, "records of an earlier run are sent now");
        }
        if opened.torn_bytes > 0 {
            let remark = format!("{} octets of the spool were not whole and have been cut off", opened.torn_bytes);
            warn!(sink = name, octets = opened.torn_bytes, "the end of the spool was not whole and has been cut off");
            counters.remark(&remark);
        }
        if opened.cursor_lost {
            warn!(sink = name, "the cursor of the spool cannot be read: everything in it is sent again");
            counters.remark("the cursor of the spool could not be read: everything in it was sent again");
        }
        Ok(Self {
            name: name.to_owned(),
            counters,
            spool,
            ready: Notify::new(),
            queue: Mutex::default(),
            writing: Mutex::default(),
            in_hand: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            fsync: Mutex::new(fsync),
        })
    }

    /// Takes a record. An alert is in the kernel when this returns, unless the disk is full or slow.
    pub(crate) fn push(&self, record: &Arc<Outgoing>) {
        if record.line.len() > entry::LONGEST {
            return self.counters.add(Fate::TooLong, 1);
        }
        {
            let mut queue = self.queue();
            queue.bytes += cost(record);
            queue.records.push_back(Arc::clone(record));
            while queue.bytes > QUEUE_BYTES
                && let Some(oldest) = queue.records.pop_front()
            {
                queue.bytes = queue.bytes.saturating_sub(cost(&oldest));
                let fate = if self.failing.load(Ordering::Relaxed) { Fate::DiskFull } else { Fate::QueueFull };
                self.counters.add(fate, 1);
            }
        }
        let held_up = self.failing.load(Ordering::Relaxed) || self.slow.load(Ordering::Relaxed);
        if record.alert.is_some() && !held_up {
            self.write(&mut Vec::new());
        }
    }

    /// Moves everything from the queue into the spool. Returns whether there was anything. `buffer` is for reuse.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) -> bool {
        let mut writing = self.writing();
        if writing.slow_since.is_some_and(|since| since.elapsed() > MERCY) {
            writing.slow_since = None;
            self.slow.store(false, Ordering::Relaxed);
        }
        if writing.next_attempt.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        let mut wrote = false;
        loop {
            let start = Instant::now();
            if writing.pending.is_empty() {
                let mut queue = self.queue();
                queue.bytes = 0;
                std::mem::swap(&mut writing.pending, &mut queue.records);
            }
            let (records, result) = match writing.pending.is_empty() {
                false => self.append(&writing.pending, buffer),
                // Nothing to write, but somebody should know when it could be.
                true if self.is_failing() => (0, self.spool.probe()),
                true => break,
            };
            wrote = true;
            if start.elapsed() > SLOW {
                writing.slow_since = Some(Instant::now());
                self.slow.store(true, Ordering::Relaxed);
            }
            if let Err(error) = result {
                writing.next_attempt = Some(Instant::now() + DISK_RETRY);
                self.failed(&error);
                break;
            }
            writing.pending.drain(..records);
            writing.next_attempt = None;
            self.failing.store(false, Ordering::Relaxed);
            if self.counters.disk(None) {
                info!(sink = self.name, "the spool can be written again");
            }
            self.ready.notify_one();
        }
        wrote
    }

    /// Brings to the disk what the policy wants there.
    pub(crate) fn sync(&self) {
        if let Err(error) = self.spool.sync() {
            warn!(sink = self.name, %error, "the spool cannot be brought to the disk");
            self.counters.remark(&format!("the spool cannot be brought to the disk: {error}"));
        }
    }

    /// What the worker sends next; `None` where there is nothing.
    pub(crate) fn next(&self, batch: Batch) -> Option<Next> {
        let part = self.spool.read(batch.records, batch.bytes);
        if part.damaged > 0 {
            warn!(sink = self.name, records = part.damaged, "records of the spool are damaged and lost");
            self.counters.add(Fate::Damaged, part.damaged);
            self.counters.remark("a part of the spool was damaged");
        }
        if !part.entries.is_empty() {
            return Some(Next { entries: part.entries, end: Some(part.end) });
        }
        if !self.failing.load(Ordering::Relaxed) {
            return None;
        }
        let entries = self.take_from_memory(batch);
        (!entries.is_empty()).then_some(Next { entries, end: None })
    }

    /// Whether anything waits for the spool.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue().records.is_empty() || self.is_failing()
    }

    /// Whether the spool could not be written.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// When the spool is brought to the disk.
    pub(crate) fn fsync(&self) -> MutexGuard<'_, Fsync> {
        self.fsync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the server has not taken.
    pub(crate) fn queued(&self) -> u64 {
        let pending = self.writing().pending.len() + self.queue().records.len();
        // In this order, so that what changes hands meanwhile is counted twice rather than not at all.
        pending as u64 + self.in_hand.load(Ordering::SeqCst) + self.spool.waiting()
    }

    /// What was taken past the disk is no longer under way.
    pub(crate) fn put_down(&self) {
        self.in_hand.store(0, Ordering::SeqCst);
    }

    /// Takes records past the disk, where that is full and everything on it has been read.
    fn take_from_memory(&self, batch: Batch) -> Vec<Entry> {
        let mut writing = self.writing();
        if self.spool.unread() > 0 {
            return Vec::new();
        }
        if writing.pending.is_empty() {
            let mut queue = self.queue();
            queue.bytes = 0;
            std::mem::swap(&mut writing.pending, &mut queue.records);
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < batch.records.max(1)
            && let Some(record) = writing.pending.front()
            && (entries.is_empty() || bytes + record.line.len() <= batch.bytes)
        {
            bytes += record.line.len();
            let (time, event_type, line) = (record.time, record.event_type, record.line.to_vec());
            entries.push(Entry { time, event_type, line, id: None });
            writing.pending.pop_front();
        }
        self.in_hand.store(entries.len() as u64, Ordering::SeqCst);
        entries
    }

    /// Appends the first of these to the spool; how many, and how that went.
    fn append(&self, pending: &VecDeque<Arc<Outgoing>>, buffer: &mut Vec<u8>) -> (usize, io::Result<()>) {
        buffer.clear();
        let mut records = 0;
        for record in pending {
            if records > 0 && buffer.len() + entry::size(record.line.len()) > CHUNK {
                break;
            }
            entry::encode(record.time, record.event_type, &record.line, buffer);
            records += 1;
        }
        let durable = *self.fsync() != Fsync::Never;
        let appended = self.spool.append(buffer, records as u64, durable);
        (records, appended.map(|discarded| self.discarded(discarded)))
    }

    fn failed(&self, error: &io::Error) {
        self.failing.store(true, Ordering::Relaxed);
        if self.counters.disk(Some(&format!("the spool cannot be written: {error}"))) {
            warn!(sink = self.name, %error, "the spool cannot be written; records are kept in memory");
        }
        // The worker takes them from memory, as long as the server takes them.
        self.ready.notify_one();
    }

    fn discarded(&self, records: u64) {
        if records > 0 {
            warn!(sink = self.name, records, "the spool is full: the oldest records are discarded");
            self.counters.add(Fate::SpoolFull, records);
            self.counters.remark("the spool was full: the oldest records were discarded");
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(record: &Outgoing) -> usize {
    record.line.len() + RECORD_COST
}
