//! What each sink's task does: takes batches from the store, has them sent, waits after failures, and keeps order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::deliver::{Deliver, Entry, Outcome, Refused};
use super::settings::Settings;
use super::spool::Place;
use super::status::Fate;
use super::store::Store;

/// How long the cursor may lag behind while much is sent: so much is sent twice after a `kill -9`.
const CURSOR_INTERVAL: Duration = Duration::from_millis(100);

/// What workers are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) phase: Phase,
    /// Goes up when files are to be opened anew.
    pub(crate) reopen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Send, for ever.
    Run,
    /// Send what there is, until then.
    Flush(Instant),
    /// Leave.
    Stop,
}

pub(crate) struct Worker {
    store: Arc<Store>,
    sink: Box<dyn Deliver>,
    backoff: Backoff,
    control: watch::Receiver<Control>,
    reopened: u64,
    /// Sent, but not beyond doubt yet.
    settling: VecDeque<Settling>,
    /// The first place of the spool that has never been sent.
    fresh: Place,
    cursor_saved: Instant,
}

struct Settling {
    at: Instant,
    end: Place,
    records: u64,
}

/// How a batch ended.
enum Ended {
    /// It is done.
    Sent,
    /// Everything since the last record beyond doubt is to be read again.
    Rewound,
    /// Somebody wants the worker to leave.
    Leave,
}

impl Worker {
    pub(crate) fn new(
        store: Arc<Store>,
        sink: Box<dyn Deliver>,
        settings: &Settings,
        control: watch::Receiver<Control>,
    ) -> Self {
        let reopened = control.borrow().reopen;
        Self {
            store,
            sink,
            backoff: Backoff::new(settings.retry_first, settings.retry_longest),
            control,
            reopened,
            settling: VecDeque::new(),
            fresh: Place::default(),
            cursor_saved: Instant::now(),
        }
    }

    /// Works until it is told to leave, or until all is sent after it was told to flush.
    pub(crate) async fn run(mut self) {
        loop {
            let phase = self.obey();
            self.settle();
            if phase == Phase::Stop || matches!(phase, Phase::Flush(until) if until <= Instant::now()) {
                break;
            }
            let Some(next) = self.store.next(self.sink.batch()) else {
                self.save_cursor();
                if phase != Phase::Run {
                    self.finish(phase).await;
                    break;
                }
                self.wait().await;
                continue;
            };
            let ended = self.send(&next.entries, next.end).await;
            self.store.put_down();
            match ended {
                Ended::Sent if self.cursor_saved.elapsed() >= CURSOR_INTERVAL => self.save_cursor(),
                Ended::Sent | Ended::Rewound => {}
                Ended::Leave => {
                    if next.end.is_none() {
                        // It was never on the disk, and nobody waits any longer.
                        self.store.counters.add(Fate::DiskFull, next.entries.len() as u64);
                    }
                    break;
                }
            }
        }
        self.save_cursor();
    }

    /// Sends a batch until it is done.
    async fn send(&mut self, entries: &[Entry], end: Option<Place>) -> Ended {
        let mut rest = entries;
        loop {
            let leave = leave(self.control.clone());
            let outcome = tokio::select! {
                biased;
                outcome = self.sink.send(rest) => outcome,
                () = leave => return Ended::Leave,
            };
            let (reason, after) = match outcome {
                Outcome::Done { refused } => {
                    self.taken(rest, refused, end);
                    return Ended::Sent;
                }
                Outcome::Retry { done, refused, reason, after } => {
                    let (taken, left) = rest.split_at(done.min(rest.len()));
                    if let (Some(first), false) = (left.first(), taken.is_empty()) {
                        let until = first.id.map(|(segment, offset)| Place { segment, offset });
                        self.taken(taken, refused, until);
                    } else if left.is_empty() {
                        self.taken(rest, refused, end);
                        return Ended::Sent;
                    }
                    rest = left;
                    (reason, after)
                }
            };
            if self.store.counters.failed(&reason) {
                warn!(sink = self.store.name, reason, "the sink takes no records; they are kept and sent again");
            }
            let rewound = self.sink.settles_after().is_some() && end.is_some();
            if rewound {
                self.settling.clear();
                self.store.spool.rewind();
            }
            let wait = self.backoff.next(after);
            if !self.pause(wait).await {
                return Ended::Leave;
            }
            if rewound {
                return Ended::Rewound;
            }
        }
    }

    /// These need not be sent again; what is before `until` is done.
    fn taken(&mut self, entries: &[Entry], refused: Option<Refused>, until: Option<Place>) {
        let refused = refused.map_or(0, |refused| {
            warn!(sink = self.store.name, records = refused.records, reason = refused.reason, "refused");
            self.store.counters.remark(&format!("{} records refused: {}", refused.records, refused.reason));
            refused.records.min(entries.len()) as u64
        });
        self.store.counters.add(Fate::Refused, refused);
        let again = |entry: &&Entry| entry.id.is_some_and(|(segment, offset)| Place { segment, offset } < self.fresh);
        let again = entries.iter().filter(again).count() as u64;
        let records = entries.len() as u64;
        self.store.counters.add(Fate::Resent, again);
        self.store.counters.add(Fate::Sent, records.saturating_sub(again).saturating_sub(refused));
        if self.store.counters.health().sending_fails_since.is_some() {
            info!(sink = self.store.name, "the sink takes records again");
        }
        self.store.counters.succeeded();
        self.backoff.reset();
        let Some(end) = until else { return };
        self.fresh = self.fresh.max(end);
        match self.sink.settles_after() {
            Some(_) => self.settling.push_back(Settling { at: Instant::now(), end, records }),
            None => self.store.spool.done(end, records),
        }
    }

    /// What was sent long enough ago is beyond doubt.
    fn settle(&mut self) {
        let Some(after) = self.sink.settles_after() else { return };
        while self.settling.front().is_some_and(|first| first.at.elapsed() >= after) {
            self.settle_first();
        }
    }

    fn settle_first(&mut self) {
        if let Some(Settling { end, records, .. }) = self.settling.pop_front() {
            self.store.spool.done(end, records);
        }
    }

    /// Waits for records, for orders, or for something that is due.
    async fn wait(&mut self) {
        let settles = self.settling.front().zip(self.sink.settles_after()).map(|(first, after)| first.at + after);
        let due = self.sink.due();
        let wake = due.into_iter().chain(settles).min();
        let idle = async {
            match wake {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let linger = tokio::select! {
            () = self.store.ready.notified() => self.sink.batch().wait,
            changed = self.control.changed() => return self.orphaned(changed.is_err()),
            () = idle => Duration::ZERO,
        };
        if !linger.is_zero() {
            tokio::select! {
                () = sleep(linger) => {}
                _ = self.control.changed() => {}
            }
        }
        if due.is_some_and(|due| due <= Instant::now()) {
            self.tick().await;
        }
    }

    async fn tick(&mut self) {
        let leave = leave(self.control.clone());
        let outcome = tokio::select! {
            outcome = self.sink.tick() => outcome,
            () = leave => return,
        };
        match outcome {
            Outcome::Done { .. } => self.store.counters.succeeded(),
            Outcome::Retry { reason, .. } => {
                if self.store.counters.failed(&reason) {
                    warn!(sink = self.store.name, reason, "the sink does not answer");
                }
            }
        }
    }

    /// Waits after a failure. Returns early when there is a new order, and `false` when that is to leave.
    async fn pause(&mut self, wait: Duration) -> bool {
        let leave = leave(self.control.clone());
        let flushing = self.control.borrow().phase != Phase::Run;
        let reopened = self.reopened;
        let ordered = async {
            let mut control = self.control.clone();
            // Once is enough: between attempts of a flush, the waits hold.
            let news = |control: &Control| (!flushing && control.phase != Phase::Run) || control.reopen != reopened;
            let _ = control.wait_for(news).await;
        };
        let left = tokio::select! {
            biased;
            () = leave => false,
            () = ordered => true,
            () = sleep(wait) => true,
        };
        self.obey();
        left
    }

    /// Does what can be done at once, and says what the rest is.
    fn obey(&mut self) -> Phase {
        let control = *self.control.borrow_and_update();
        if control.reopen != self.reopened {
            self.reopened = control.reopen;
            self.sink.reopen();
        }
        control.phase
    }

    /// All has been sent: ends in good order.
    async fn finish(&mut self, phase: Phase) {
        let leave = leave(self.control.clone());
        let closed = tokio::select! {
            closed = self.sink.close() => closed,
            () = leave => false,
        };
        if closed && phase != Phase::Stop {
            while !self.settling.is_empty() {
                self.settle_first();
            }
        }
    }

    fn save_cursor(&mut self) {
        self.cursor_saved = Instant::now();
        let durable = *self.store.fsync() == super::settings::Fsync::Always;
        if let Err(error) = self.store.spool.save_cursor(durable) {
            // It costs repeats after a restart, nothing else.
            self.store.counters.remark(&format!("the cursor of the spool cannot be written: {error}"));
        }
    }

    /// Without anybody who could give orders there is nothing left to do.
    fn orphaned(&mut self, orphaned: bool) {
        if orphaned {
            let (_, control) = watch::channel(Control { phase: Phase::Stop, reopen: self.reopened });
            self.control = control;
        }
    }
}

/// Ends when a worker should leave whatever it is doing.
async fn leave(mut control: watch::Receiver<Control>) {
    loop {
        let phase = control.borrow_and_update().phase;
        let until = match phase {
            Phase::Run => None,
            Phase::Flush(until) => Some(until),
            Phase::Stop => return,
        };
        tokio::select! {
            changed = control.changed() => if changed.is_err() { return },
            () = async { match until {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            } } => return,
        }
    }
}
