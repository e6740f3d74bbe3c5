//! The thread that empties all queues into their spools, so that the analysis does not.

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

/// How long it sleeps where nothing happens. Any record wakes it up.
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
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none to give.
    pub(crate) fn start(lanes: Arc<Lanes>) -> io::Result<Self> {
        let orders = Arc::new(Orders { asleep: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let own = Arc::clone(&orders);
        let handle = thread::Builder::new().name("spools".into()).spawn(move || work(&lanes, &own))?;
        Ok(Self { orders, thread: handle.thread().clone(), handle: Mutex::new(Some(handle)) })
    }

    /// There is something to write. Costs nothing while the thread is at work anyway.
    pub(crate) fn wake(&self) {
        if self.orders.asleep.load(Ordering::SeqCst) && self.orders.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Lets the thread end, after writing what is in the queues. Whoever joins the handle waits for the disk.
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

fn work(lanes: &Lanes, orders: &Orders) {
    let mut buffer = Vec::new();
    let mut synced = Instant::now();
    while !orders.stop.load(Ordering::SeqCst) {
        let stores = stores(lanes);
        let due = synced.elapsed() >= SYNC_INTERVAL;
        let mut wrote = false;
        for store in &stores {
            wrote |= round(store, due, &mut buffer);
        }
        if due {
            synced = Instant::now();
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

fn stores(lanes: &Lanes) -> Vec<Arc<Store>> {
    lanes.all().iter().map(|lane| Arc::clone(&lane.store)).collect()
}

/// Writes what waits for a spool, and brings it to the disk where that is due. Returns whether there was anything.
fn round(store: &Store, due: bool, buffer: &mut Vec<u8>) -> bool {
    let wrote = store.write(buffer);
    // An alert is written by whoever brings it, so there may be something to bring to the disk without a write of ours.
    match *store.fsync() {
        Fsync::Always => store.sync(),
        Fsync::Interval if due => store.sync(),
        Fsync::Interval | Fsync::Never => {}
    }
    wrote
}

/// How long nothing needs to be done for a spool; `None` where something does now.
fn rest(store: &Store) -> Option<Duration> {
    if store.is_failing() {
        return Some(DISK_RETRY / 2);
    }
    let unsynced = store.spool.has_unsynced();
    match *store.fsync() {
        _ if store.has_queued() => None,
        Fsync::Always if unsynced => None,
        Fsync::Interval if unsynced => Some(SYNC_INTERVAL),
        _ => Some(IDLE),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outgoing::{AlertFacts, Outgoing};
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
        assert_eq!(rest(&store), None, "it does not sleep over it");
        round(&store, false, &mut Vec::new());
        assert!(!store.spool.has_unsynced());
        assert_eq!(rest(&store), Some(IDLE));
    }

    #[test]
    fn what_is_to_be_on_the_disk_within_a_second_is_not_slept_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Fsync::Interval);
        assert_eq!(rest(&store), Some(IDLE));
        store.push(&record(EventType::Alert));
        assert_eq!(rest(&store), Some(SYNC_INTERVAL));
        round(&store, false, &mut Vec::new());
        assert!(store.spool.has_unsynced(), "it is not due");
        round(&store, true, &mut Vec::new());
        assert!(!store.spool.has_unsynced());
        store.push(&record(EventType::Link));
        assert_eq!(rest(&store), None, "a queue is written at once");
    }
}
