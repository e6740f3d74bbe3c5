//! What each sink's task does: takes batches from the store, has them sent, waits after failures, and keeps order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::blocking;
use super::deliver::{Deliver, Entry, Outcome, Refused, Settled};
use super::settings::{Fsync, Settings};
use super::spool::Place;
use super::status::{Fate, short};
use super::store::{Next, Store};

/// How long the cursor may lag behind while much is sent: so much is sent twice after a `kill -9`.
const CURSOR_INTERVAL: Duration = Duration::from_millis(100);

/// How often a sink is asked that cannot say yet whether what was sent has arrived.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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
    /// The server refused some of what it got last.
    refusing: bool,
    /// When the sink is asked again whether that has arrived.
    ask_again: Option<Instant>,
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
    /// Somebody wants the worker to leave; so many records, the last ones, are not done.
    Leave(usize),
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
            refusing: false,
            ask_again: None,
            fresh: Place::default(),
            cursor_saved: Instant::now(),
        }
    }

    /// Works until it is told to leave, or until all is sent after it was told to flush.
    pub(crate) async fn run(mut self) {
        loop {
            let phase = self.obey();
            self.settle().await;
            if phase == Phase::Stop || matches!(phase, Phase::Flush(until) if until <= Instant::now()) {
                break;
            }
            let next = match self.next().await {
                Ok(Some(next)) => next,
                Ok(None) => {
                    self.save_cursor().await;
                    if phase != Phase::Run {
                        self.finish(phase).await;
                        break;
                    }
                    self.wait().await;
                    continue;
                }
                Err(reason) => {
                    if self.store.counters.failed(&reason) {
                        warn!(sink = self.store.name, reason, "records wait until the spool can be read");
                    }
                    let wait = self.backoff.next(None);
                    match self.pause(wait).await {
                        true => continue,
                        false => break,
                    }
                }
            };
            let ended = self.send(&next.entries, next.end).await;
            if let (Ended::Leave(left), None) = (&ended, next.end) {
                // It was never on the disk: who comes next takes it from memory as well, or it is written after all.
                let done = next.entries.len().saturating_sub(*left);
                let (store, left) = (Arc::clone(&self.store), next.entries.get(done..).unwrap_or_default().to_vec());
                let _ = blocking(move || store.put_back(&left)).await;
            }
            self.store.put_down();
            match ended {
                Ended::Sent if self.cursor_saved.elapsed() >= CURSOR_INTERVAL => self.save_cursor().await,
                Ended::Sent | Ended::Rewound => {}
                Ended::Leave(_) => break,
            }
        }
        if !self.settling.is_empty() && self.sink.settled().await == Settled::All {
            self.settle_all();
        }
        self.save_cursor().await;
    }

    /// What is sent next. The disk may take its time, and the tasks of other sinks must not wait for it.
    async fn next(&mut self) -> Result<Option<Next>, String> {
        let (store, batch) = (Arc::clone(&self.store), self.sink.batch());
        blocking(move || store.next(batch)).await?
    }

    /// Sends a batch until it is done.
    async fn send(&mut self, entries: &[Entry], end: Option<Place>) -> Ended {
        let mut rest = entries;
        loop {
            let leave = leave(self.control.clone());
            let outcome = tokio::select! {
                biased;
                outcome = self.sink.send(rest) => outcome,
                () = leave => return Ended::Leave(rest.len()),
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
            let rewound = self.sink.doubts_after_failure() && end.is_some();
            if rewound {
                self.settling.clear();
                self.store.spool.rewind();
            }
            let wait = self.backoff.next(after);
            if !self.pause(wait).await {
                return Ended::Leave(rest.len());
            }
            // This may take long, and what was done before it need not be sent again by the next run.
            if self.cursor_saved.elapsed() >= CURSOR_INTERVAL {
                self.save_cursor().await;
            }
            if rewound {
                return Ended::Rewound;
            }
        }
    }

    /// These need not be sent again; what is before `until` is done.
    fn taken(&mut self, entries: &[Entry], refused: Option<Refused>, until: Option<Place>) {
        // A server that refuses everything says so in `status`, and not in a line of the log for each batch.
        let before = std::mem::replace(&mut self.refusing, refused.is_some());
        let news = self.refusing && !before;
        let refused = refused.map_or(0, |refused| {
            if news {
                let reason = short(&refused.reason);
                warn!(sink = self.store.name, records = refused.records, reason, "the server refuses records for good");
            }
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

    /// What was sent long enough ago is beyond doubt, unless the sink knows better.
    async fn settle(&mut self) {
        if self.settles().is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.ask_again = None;
        match self.sink.settled().await {
            Settled::Due => {
                let after = self.sink.settles_after().unwrap_or_default();
                while self.settling.front().is_some_and(|first| first.at.elapsed() >= after) {
                    self.settle_first();
                }
            }
            Settled::All => self.settle_all(),
            Settled::NotYet => self.ask_again = Some(Instant::now() + ASK_AGAIN),
            Settled::Lost(reason) => {
                if self.store.counters.failed(&reason) {
                    warn!(sink = self.store.name, reason, "what was sent may be lost, and is sent again");
                }
                self.settling.clear();
                self.store.spool.rewind();
            }
        }
    }

    /// When it is to be found out whether what was sent has arrived.
    fn settles(&self) -> Option<Instant> {
        let first = self.settling.front()?.at + self.sink.settles_after()?;
        Some(self.ask_again.map_or(first, |again| again.max(first)))
    }

    fn settle_all(&mut self) {
        while !self.settling.is_empty() {
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
        let due = self.sink.due();
        let wake = due.into_iter().chain(self.settles()).min();
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
            self.settle_all();
        }
    }

    async fn save_cursor(&mut self) {
        self.cursor_saved = Instant::now();
        let (store, durable) = (Arc::clone(&self.store), *self.store.fsync() == Fsync::Always);
        let saved = blocking(move || store.spool.save_cursor(durable).map_err(|error| error.to_string())).await;
        if let Err(error) = saved.flatten() {
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Mutex;

    use distwatch_engine::model::{AlertStatus, Severity};
    use distwatch_engine::time::Timestamp;

    use super::super::deliver::{Batch, Sending};
    use super::super::outgoing::{AlertFacts, Outgoing};
    use super::*;
    use crate::record::EventType;

    /// Takes everything, and says of what it took whatever it is told to.
    struct Doubtful {
        sent: Arc<Mutex<Vec<String>>>,
        says: VecDeque<Settled>,
    }

    impl Deliver for Doubtful {
        fn batch(&self) -> Batch {
            Batch { records: 10, bytes: 1 << 20, wait: Duration::ZERO }
        }

        fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
            let lines = batch.iter().map(|entry| String::from_utf8(entry.line.clone()).unwrap());
            self.sent.lock().unwrap().extend(lines);
            Box::pin(async { Outcome::DONE })
        }

        fn settles_after(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }

        fn settled(&mut self) -> Pin<Box<dyn Future<Output = Settled> + Send + '_>> {
            let says = self.says.pop_front().unwrap_or(Settled::Due);
            Box::pin(async { says })
        }
    }

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

    /// Takes the first batch and nothing after it.
    struct Brief(bool);

    impl Deliver for Brief {
        fn batch(&self) -> Batch {
            Batch { records: 1, bytes: 1 << 20, wait: Duration::ZERO }
        }

        fn send<'a>(&'a mut self, _: &'a [Entry]) -> Sending<'a> {
            let outcome = if self.0 { Outcome::retry("not any more") } else { Outcome::DONE };
            self.0 = true;
            Box::pin(async { outcome })
        }
    }

    #[tokio::test]
    async fn what_was_taken_before_a_long_failure_is_not_sent_again_after_kill_9() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("test", dir.path(), 1 << 20, Fsync::Never).unwrap());
        ["1", "2"].iter().for_each(|line| store.push(&alert(line)));
        let (_orders, control) = watch::channel(Control { phase: Phase::Run, reopen: 0 });
        let settings = Settings { retry_first: Duration::from_millis(10), ..Settings::default() };
        let worker = Worker::new(Arc::clone(&store), Box::new(Brief(false)), &settings, control);
        let task = tokio::spawn(worker.run());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !dir.path().join("cursor").exists() {
            assert!(Instant::now() < deadline, "the cursor is saved while the failure goes on");
            sleep(Duration::from_millis(1)).await;
        }
        task.abort();
        assert!(task.await.is_err());
        drop(store);
        // What it did on the disk may take a moment to end.
        let store = loop {
            match Store::open("test", dir.path(), 1 << 20, Fsync::Never) {
                Ok(store) => break store,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(store.queued(), 1, "the second alone");
    }

    #[tokio::test]
    async fn what_turns_out_to_be_lost_is_sent_again_without_a_further_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("test", dir.path(), 1 << 20, Fsync::Never).unwrap());
        ["1", "2"].iter().for_each(|line| store.push(&alert(line)));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sink = Doubtful { sent: Arc::clone(&sent), says: [Settled::Lost("gone".to_owned())].into() };
        let (orders, control) = watch::channel(Control { phase: Phase::Run, reopen: 0 });
        let worker = Worker::new(Arc::clone(&store), Box::new(sink), &Settings::default(), control);
        let task = tokio::spawn(worker.run());
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.queued() > 0 {
            assert!(Instant::now() < deadline, "it settles");
            sleep(Duration::from_millis(1)).await;
        }
        orders.send_modify(|control| control.phase = Phase::Stop);
        task.await.unwrap();
        assert_eq!(*sent.lock().unwrap(), ["1", "2", "1", "2"]);
        let records = store.counters.records();
        assert_eq!((records[Fate::Sent.name()], records[Fate::Resent.name()]), (2, 2));
        assert_eq!(store.counters.health().failing_since(), None);
    }
}
