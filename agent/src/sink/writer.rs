//! The thread that empties all queues into their spools, so that the analysis does not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::Lane;
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
    pub(crate) fn start(lanes: Arc<RwLock<Vec<Arc<Lane>>>>) -> io::Result<Self> {
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

    /// Ends the thread, after what it is doing.
    pub(crate) fn stop(&self) {
        self.orders.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of it has been printed.
            let _ = handle.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(lanes: &RwLock<Vec<Arc<Lane>>>, orders: &Orders) {
    let mut buffer = Vec::new();
    let mut synced = Instant::now();
    while !orders.stop.load(Ordering::SeqCst) {
        let stores: Vec<Arc<Store>> =
            lanes.read().unwrap_or_else(PoisonError::into_inner).iter().map(|lane| Arc::clone(&lane.store)).collect();
        let due = synced.elapsed() >= SYNC_INTERVAL;
        let mut wrote = false;
        let mut failing = false;
        let mut unsynced = false;
        for store in &stores {
            let any = store.write(&mut buffer);
            let fsync = *store.fsync();
            if (fsync == Fsync::Always && any) || (fsync == Fsync::Interval && due) {
                store.sync();
            }
            wrote |= any;
            failing |= store.is_failing();
            unsynced |= fsync == Fsync::Interval && store.spool.waiting() > 0;
        }
        if due {
            synced = Instant::now();
        }
        if wrote {
            thread::park_timeout(GATHER);
            continue;
        }
        orders.asleep.store(true, Ordering::SeqCst);
        if !failing && stores.iter().any(|store| store.has_queued()) {
            orders.asleep.store(false, Ordering::SeqCst);
            continue;
        }
        let rest = if failing {
            DISK_RETRY / 2
        } else if unsynced {
            SYNC_INTERVAL
        } else {
            IDLE
        };
        // A large buffer is for a busy moment.
        buffer.shrink_to(64 << 10);
        thread::park_timeout(rest);
        orders.asleep.store(false, Ordering::SeqCst);
    }
}
