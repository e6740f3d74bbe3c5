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

use parking_lot::{Mutex as PatientMutex, MutexGuard as PatientMutexGuard};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::deliver::{Batch, Entry};
use super::outgoing::Outgoing;
use super::settings::Fsync;
use super::spool::{Place, Spool, entry};
use super::status::{Counters, Fate};

/// Octets that a sink's queue may hold: a second of ten thousand records, for a disk or a processor that has something else to do.
/// Lines are shared, so ten sinks with full queues hold the same ones.
const QUEUE_BYTES: usize = 8 << 20;

/// What a record costs besides its line.
const RECORD_COST: usize = 200;

/// Octets that are written to a spool at once.
const CHUNK: usize = 256 << 10;

/// A write that takes longer shows that the disk holds everybody up. Then alerts go by way of the queue for
/// [`MERCY`], for whoever brings them must not be held up.
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
    /// Held while the disk is worked on, which may take for ever: nobody waits for it who has something else to do.
    writing: PatientMutex<Writing>,
    /// Records that were taken from the queue and are not written yet, for those who only want to know.
    pending: AtomicU64,
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
        if let Some(error) = &opened.disk_full {
            warn!(sink = name, error, "there is no room for the spool: records are sent from memory until there is");
            counters.disk(Some(error));
        }
        Ok(Self {
            name: name.to_owned(),
            counters,
            spool,
            ready: Notify::new(),
            queue: Mutex::default(),
            writing: PatientMutex::default(),
            pending: AtomicU64::new(0),
            in_hand: AtomicU64::new(0),
            failing: AtomicBool::new(opened.disk_full.is_some()),
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
        if record.alert.is_none() || held_up {
            return;
        }
        match self.writing.try_lock_for(SLOW) {
            Some(writing) => {
                self.write_with(writing, &mut Vec::new());
            }
            // Somebody else waits for the disk, and nobody knows how long.
            None => self.slow.store(true, Ordering::Relaxed),
        }
    }

    /// Moves everything from the queue into the spool. Returns whether there was anything. `buffer` is for reuse.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) -> bool {
        self.write_with(self.writing.lock(), buffer)
    }

    fn write_with(&self, mut writing: PatientMutexGuard<'_, Writing>, buffer: &mut Vec<u8>) -> bool {
        if self.slow.load(Ordering::Relaxed) {
            let since = *writing.slow_since.get_or_insert_with(Instant::now);
            if since.elapsed() > MERCY {
                writing.slow_since = None;
                self.slow.store(false, Ordering::Relaxed);
            }
        }
        if writing.next_attempt.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        let mut wrote = false;
        loop {
            let start = Instant::now();
            self.refill(&mut writing);
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
            self.pending.store(writing.pending.len() as u64, Ordering::SeqCst);
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

    /// What the worker sends next; `None` where there is nothing. Waits for the disk.
    ///
    /// # Errors
    /// A sentence that says why the spool cannot be read. It may be later.
    pub(crate) fn next(&self, batch: Batch) -> Result<Option<Next>, String> {
        let part = self.spool.read(batch.records, batch.bytes);
        if part.damaged > 0 {
            warn!(sink = self.name, records = part.damaged, "records of the spool are damaged and lost");
            self.counters.add(Fate::Damaged, part.damaged);
            self.counters.remark("a part of the spool was damaged");
        }
        if !part.entries.is_empty() {
            return Ok(Some(Next { entries: part.entries, end: Some(part.end) }));
        }
        if let Some(error) = part.failed {
            return Err(format!("the spool cannot be read: {error}"));
        }
        if !self.failing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let entries = self.take_from_memory(batch);
        Ok((!entries.is_empty()).then_some(Next { entries, end: None }))
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

    /// Records that the server has not taken. Waits for no disk.
    pub(crate) fn queued(&self) -> u64 {
        // In this order, so that what changes hands meanwhile is counted twice rather than not at all.
        let queued = self.queue().records.len() as u64;
        let pending = self.pending.load(Ordering::SeqCst);
        queued + pending + self.in_hand.load(Ordering::SeqCst) + self.spool.waiting()
    }

    /// Takes back what was taken past the disk and is not sent: it is the next to be written.
    pub(crate) fn put_back(&self, entries: &[Entry]) {
        let mut writing = self.writing.lock();
        for Entry { time, event_type, line, .. } in entries.iter().rev() {
            // What filters ask of it has been asked.
            let (time, event_type, line) = (*time, *event_type, line.as_slice().into());
            writing.pending.push_front(Arc::new(Outgoing { time, event_type, alert: None, line }));
        }
        self.pending.store(writing.pending.len() as u64, Ordering::SeqCst);
    }

    /// Makes one more attempt to write what is only in memory; what cannot be written is lost with it, and counted.
    pub(crate) fn give_up(&self) {
        self.writing.lock().next_attempt = None;
        self.write(&mut Vec::new());
        let mut writing = self.writing.lock();
        self.refill(&mut writing);
        let lost = writing.pending.len() as u64;
        writing.pending.clear();
        self.pending.store(0, Ordering::SeqCst);
        if lost > 0 {
            warn!(sink = self.name, records = lost, "the spool cannot be written: records in memory are lost");
            self.counters.add(Fate::DiskFull, lost);
        }
    }

    /// What was taken past the disk is no longer under way.
    pub(crate) fn put_down(&self) {
        self.in_hand.store(0, Ordering::SeqCst);
    }

    /// Takes records past the disk, where that is full and everything on it has been read.
    fn take_from_memory(&self, batch: Batch) -> Vec<Entry> {
        let mut writing = self.writing.lock();
        if self.spool.unread() > 0 {
            return Vec::new();
        }
        self.refill(&mut writing);
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
        self.pending.store(writing.pending.len() as u64, Ordering::SeqCst);
        entries
    }

    /// Takes what is in the queue, where nothing is left of what was taken before.
    fn refill(&self, writing: &mut Writing) {
        if writing.pending.is_empty() {
            let mut queue = self.queue();
            queue.bytes = 0;
            std::mem::swap(&mut writing.pending, &mut queue.records);
            self.pending.store(writing.pending.len() as u64, Ordering::SeqCst);
        }
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
}

impl Drop for Store {
    /// A record that was offered while its sink was taken away goes into the spool as well.
    fn drop(&mut self) {
        self.write(&mut Vec::new());
    }
}

fn cost(record: &Outgoing) -> usize {
    record.line.len() + RECORD_COST
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use distwatch_engine::model::{AlertStatus, Severity};
    use distwatch_engine::time::Timestamp;

    use super::*;
    use crate::record::EventType;
    use crate::sink::outgoing::AlertFacts;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    const ALL: Batch = Batch { records: 100, bytes: 1 << 20, wait: Duration::ZERO };

    fn alert(line: &str) -> Arc<Outgoing> {
        let facts = AlertFacts {
            severity: Severity::High,
            rule_id: "bad-cookie".into(),
            status: AlertStatus::New,
            fingerprint: String::new(),
        };
        let (time, event_type) = (Timestamp::EPOCH, EventType::Alert);
        Arc::new(Outgoing { time, event_type, alert: Some(facts), line: line.as_bytes().into() })
    }

    fn store(dir: &Path) -> Arc<Store> {
        Arc::new(Store::open("test", dir, 1 << 20, Fsync::Interval).unwrap())
    }

    fn lines(store: &Store) -> Vec<String> {
        let entries = store.next(ALL).unwrap().map(|next| next.entries).unwrap_or_default();
        entries.into_iter().map(|entry| String::from_utf8(entry.line).unwrap()).collect()
    }

    #[test]
    fn nobody_waits_for_ever_for_a_write_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (said, heard) = channel();
        let hangs = store.writing.lock();
        let other = Arc::clone(&store);
        let thread = thread::spawn(move || {
            for line in ["1", "2", "3"] {
                other.push(&alert(line));
                said.send(other.queued()).unwrap();
            }
        });
        let queued: Vec<u64> = (0..3).map(|_| heard.recv_timeout(PATIENCE).expect("it goes on")).collect();
        assert_eq!(queued, [1, 2, 3]);
        assert!(store.slow.load(Ordering::Relaxed), "it is waited for once, and not by each");
        drop(hangs);
        thread.join().unwrap();
        assert!(store.write(&mut Vec::new()));
        assert_eq!(lines(&store), ["1", "2", "3"]);
    }

    #[test]
    fn what_was_taken_past_the_disk_and_not_sent_is_the_next_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.failed(&io::Error::from(io::ErrorKind::StorageFull));
        ["1", "2", "3"].iter().for_each(|line| store.push(&alert(line)));
        let taken = store.next(ALL).unwrap().unwrap();
        assert_eq!((taken.entries.len(), taken.end), (3, None));
        store.push(&alert("4"));
        store.put_back(&taken.entries[1..]);
        store.put_down();
        assert_eq!(store.queued(), 3);
        store.give_up();
        assert_eq!(store.counters.records()[Fate::DiskFull.name()], 0, "the disk has space");
        assert_eq!(lines(&store), ["2", "3", "4"]);
    }

    #[test]
    fn what_was_offered_to_the_last_is_in_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let link = Outgoing { alert: None, event_type: EventType::Link, ..(*alert("1")).clone() };
        store(dir.path()).push(&Arc::new(link));
        assert_eq!(lines(&store(dir.path())), ["1"]);
    }
}
