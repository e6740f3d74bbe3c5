//! The thread that empties all queues into their spools, so that the analysis does not, and the one that brings them to the disk.
//!
//! Two of them, because bringing something to the disk may take a second where others use it too, and the queues must be emptied
//! meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::Lanes;
use super::settings::Fsync;
use super::store::{DISK_RETRY, Store};

/// How long records gather before they are written together: what `kill -9` may take of those that are no alerts.
const GATHER: Duration = Duration::from_millis(10);

/// How often what waits is brought to the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long a thread sleeps where nothing happens. Any record wakes it up.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Writer {
    orders: Arc<Orders>,
    thread: Thread,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Orders {
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Writer {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has none to give.
    pub(crate) fn start(lanes: Arc<Lanes>) -> io::Result<Self> {
        let orders = Arc::new(Orders { asleep: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let (all, own) = (Arc::clone(&lanes), Arc::clone(&orders));
        let syncing = thread::Builder::new().name("spools-to-disk".into()).spawn(move || bring_to_disk(&all, &own))?;
        let own = Arc::clone(&orders);
        let handle = thread::Builder::new().name("spools".into()).spawn(move || {
            work(&lanes, &own, syncing.thread());
            syncing.thread().unpark();
            // A panic of it has been printed.
            let _ = syncing.join();
        })?;
        Ok(Self { orders, thread: handle.thread().clone(), handle: Mutex::new(Some(handle)) })
    }

    /// There is something to write. Costs nothing while the thread is at work anyway.
    pub(crate) fn wake(&self) {
        if self.orders.asleep.load(Ordering::SeqCst) && self.orders.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Lets the threads end, after writing what is in the queues. Whoever joins the handle waits for the disk.
    pub(crate) fn stop(&self) -> Option<JoinHandle<()>> {
        self.orders.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(handle) = self.stop() {
            // A panic of it has been printed.
            let _ = handle.join();
        }
    }
}

fn work(lanes: &Lanes, orders: &Orders, syncing: &Thread) {
    let mut buffer = Vec::new();
    while !orders.stop.load(Ordering::SeqCst) {
        let stores = stores(lanes);
        let mut wrote = false;
        for store in &stores {
            wrote |= store.write(&mut buffer);
        }
        // An alert is written by whoever brings it, so there may be something to bring to the disk without a write of ours.
        if stores.iter().any(|store| store.spool.has_unsynced()) {
            syncing.unpark();
        }
        if wrote {
            thread::park_timeout(GATHER);
            continue;
        }
        orders.asleep.store(true, Ordering::SeqCst);
        // Looked at only now: what comes later finds the thread asleep, and wakes it up.
        let Some(rest) = stores.iter().map(|store| rest(store)).min().unwrap_or(Some(IDLE)) else {
            orders.asleep.store(false, Ordering::SeqCst);
            continue;
        };
        // The spool of a sink that is taken away meanwhile is to be closed.
        drop(stores);
        // A large buffer is for a busy moment.
        buffer.shrink_to(64 << 10);
        thread::park_timeout(rest);
        orders.asleep.store(false, Ordering::SeqCst);
    }
    for store in stores(lanes) {
        store.write(&mut buffer);
    }
}

/// Brings to the disk what is due, until it is told to stop.
fn bring_to_disk(lanes: &Lanes, orders: &Orders) {
    let mut last = Instant::now();
    while !orders.stop.load(Ordering::SeqCst) {
        let due = last.elapsed() >= SYNC_INTERVAL;
        let stores = stores(lanes);
        stores.iter().for_each(|store| sync(store, due));
        if due {
            last = Instant::now();
        }
        let rest = stores.iter().map(|store| rest_from_syncing(store, last.elapsed())).min().unwrap_or(IDLE);
        drop(stores);
        // What is written meanwhile ends it at once.
        thread::park_timeout(rest);
    }
}

fn stores(lanes: &Lanes) -> Vec<Arc<Store>> {
    lanes.all().iter().map(|lane| Arc::clone(&lane.store)).collect()
}

/// Brings a spool to the disk where that is wanted now.
fn sync(store: &Store, due: bool) {
    let policy = *store.fsync();
    match policy {
        Fsync::Always => store.sync(),
        Fsync::Interval if due => store.sync(),
        Fsync::Interval | Fsync::Never => {}
    }
}

/// How long nothing needs to be written to a spool; `None` where something does now.
fn rest(store: &Store) -> Option<Duration> {
    if store.is_failing() {
        return Some(DISK_RETRY / 2);
    }
    if store.has_queued() { None } else { Some(IDLE) }
}

/// How long nothing needs to be brought to the disk, so long after the last time.
fn rest_from_syncing(store: &Store, since: Duration) -> Duration {
    let policy = *store.fsync();
    match policy {
        Fsync::Always if store.spool.has_unsynced() => Duration::ZERO,
        Fsync::Interval if store.spool.has_unsynced() => SYNC_INTERVAL.saturating_sub(since),
        _ => IDLE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::outgoing::{AlertFacts, Outgoing};
    use super::super::{Place, Settings};
    use super::*;
    use crate::record::EventType;
    use distwatch_engine::model::{AlertStatus, Severity};
    use distwatch_engine::time::Timestamp;

    fn record(event_type: EventType) -> Arc<Outgoing> {
        let facts = AlertFacts {
            severity: Severity::High,
            rule_id: "bad-cookie".into(),
            status: AlertStatus::New,
            fingerprint: String::new(),
        };
        let alert = (event_type == EventType::Alert).then_some(facts);
        Arc::new(Outgoing { time: Timestamp::EPOCH, event_type, alert, line: b"{}".as_slice().into() })
    }

    fn store(dir: &std::path::Path, fsync: Fsync) -> Store {
        Store::open("test", dir, 1 << 20, fsync).unwrap()
    }

    #[test]
    fn an_alert_is_brought_to_the_disk_although_it_was_written_by_whoever_brought_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Fsync::Always);
        store.push(&record(EventType::Alert));
        assert!(store.spool.has_unsynced());
        assert_eq!(rest_from_syncing(&store, Duration::ZERO), Duration::ZERO, "it does not sleep over it");
        sync(&store, false);
        assert!(!store.spool.has_unsynced());
        assert_eq!(rest_from_syncing(&store, Duration::ZERO), IDLE);
    }

    #[test]
    fn what_is_to_be_on_the_disk_within_a_second_is_not_slept_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Fsync::Interval);
        assert_eq!(rest_from_syncing(&store, Duration::ZERO), IDLE);
        store.push(&record(EventType::Alert));
        assert_eq!(rest_from_syncing(&store, SYNC_INTERVAL / 4), SYNC_INTERVAL / 4 * 3);
        sync(&store, false);
        assert!(store.spool.has_unsynced(), "it is not due");
        sync(&store, true);
        assert!(!store.spool.has_unsynced());
        assert_eq!(rest(&store), Some(IDLE));
        store.push(&record(EventType::Link));
        assert_eq!(rest(&store), None, "a queue is written at once");
    }

    #[test]
    fn queues_are_emptied_and_brought_to_the_disk_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { name: "test".into(), kind: "file".into(), ..Settings::default() };
        (settings.fsync, settings.file.path) = (Fsync::Always, dir.path().join("out"));
        let place = Place { spools: dir.path().into(), host: "h".into() };
        let made = place.make(&[settings], HashMap::new()).unwrap();
        let store = Arc::clone(&made[0].0.store);
        let lanes = Arc::new(Lanes::default());
        lanes.become_these(made.iter().map(|(lane, ..)| Arc::clone(lane)).collect());
        let writer = Writer::start(Arc::clone(&lanes)).unwrap();
        for number in 1..4 {
            store.push(&record(EventType::Link));
            writer.wake();
            let deadline = Instant::now() + Duration::from_secs(30);
            while store.spool.has_unsynced() || store.spool.waiting() < number {
                assert!(Instant::now() < deadline, "it is on the disk");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
