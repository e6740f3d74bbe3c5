//! From the capture thread to everything that takes records: sinks, and standard output.
//!
//! A thread of its own, because an alert is on disk once a sink has taken it, and a disk may be slow. The queue before it is
//! bounded; what does not fit is counted and never waited for.

use std::collections::BTreeSet;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::feed::Batch;
use super::journal::Journal;
use super::output::{Output, Written};
use super::queue::{Gauge, Inlet, queue};
use super::untold::Untold;
use crate::http::Recent;
use crate::sink::{Outgoing, Sinks};

/// Batches that are brought to the disk together, at most: what waits for it is told that much later.
const TOGETHER: usize = 255;

/// Something that takes records. It waits for no reader and no server.
pub trait Taker: Send + Sync {
    /// Takes one more.
    fn take(&self, record: &Arc<Outgoing>);
    /// So many before the next one were dropped, and nobody will ever get them.
    fn miss(&self, _records: u64) {}
}

impl Taker for Sinks {
    fn take(&self, record: &Arc<Outgoing>) {
        self.offer(record);
    }
}

impl Taker for Recent {
    fn take(&self, record: &Arc<Outgoing>) {
        self.push(record.event_type, Arc::clone(&record.line));
    }

    fn miss(&self, records: u64) {
        self.lose(records);
    }
}

/// The capture's end of it.
pub struct FanOut {
    batches: Option<Inlet>,
    thread: Option<JoinHandle<()>>,
    /// The output, once the thread does not need it any more.
    done: Receiver<Option<Output>>,
    dropped: Arc<AtomicU64>,
    output: Option<Arc<Written>>,
    unkept: Arc<AtomicU64>,
    untold: Arc<Untold>,
    /// The queue here, and that before standard output.
    queues: Vec<Gauge>,
}

/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(10);

impl FanOut {
    /// Begins to hand every record to each of `takers`, and to standard output where that is one of them.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        takers: Vec<Arc<dyn Taker>>,
        output: Option<Output>,
        mut journal: Option<Journal>,
    ) -> io::Result<Self> {
        let unkept = journal.as_ref().map(Journal::failed).unwrap_or_default();
        let (batches, waiting) = queue();
        let (finished, done) = sync_channel(1);
        let counts = output.as_ref().map(Output::counts);
        let dropped = Arc::<AtomicU64>::default();
        let of_thread = Arc::clone(&dropped);
        let queues = iter::once(batches.gauge()).chain(output.as_ref().and_then(Output::gauge)).collect();
        let untold = Arc::<Untold>::default();
        let not_printed = Arc::clone(&untold);
        let thread = std::thread::Builder::new().name("records".into()).spawn(move || {
            let mut missed = 0;
            while let Some(batch) = waiting.take() {
                let so_far = of_thread.load(Ordering::Relaxed);
                if so_far > missed {
                    takers.iter().for_each(|taker| taker.miss(so_far - missed));
                    missed = so_far;
                }
                // What has come meanwhile costs the disk one wait together.
                let batches: Vec<Batch> =
                    iter::once(batch).chain(iter::from_fn(|| waiting.try_take()).take(TOGETHER)).collect();
                // A finding is on disk before it is told.
                if let Some(journal) = &mut journal {
                    journal.write(batches.iter().filter_map(|batch| batch.journal.as_ref()));
                }
                for batch in batches {
                    for record in &batch.records {
                        takers.iter().for_each(|taker| taker.take(record));
                    }
                    if let Some(Err(batch)) = output.as_ref().map(|output| output.offer(batch)) {
                        not_printed.add(&batch);
                    }
                }
            }
            // Whoever waits for the end may be gone.
            let _ = finished.send(output);
        })?;
        let batches = Some(batches);
        Ok(Self { batches, thread: Some(thread), done, dropped, output: counts, unkept, untold, queues })
    }

    /// Hands records over; when the queue is full they are dropped and counted. Returns whether they were taken.
    pub fn offer(&self, batch: Batch) -> bool {
        self.offer_within(batch, Duration::ZERO)
    }

    /// The same, but waits so long for room.
    pub fn offer_within(&self, batch: Batch, patience: Duration) -> bool {
        let Some(batches) = self.batches.as_ref().filter(|_| !batch.is_empty()) else { return false };
        let Err(mut refused) = batches.offer(batch) else { return true };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            std::thread::sleep(LOOK);
            match batches.offer(refused) {
                Ok(()) => return true,
                Err(again) => refused = again,
            }
        }
        self.dropped.fetch_add(refused.told(), Ordering::Relaxed);
        self.untold.add(&refused);
        false
    }

    /// As if the queue had not taken it.
    #[cfg(test)]
    pub(crate) fn lose(&self, batch: &Batch) {
        self.untold.add(batch);
    }

    /// Whether all that was offered has gone out. What is told again before is dropped again, and whoever is not late hears it over
    /// and over.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.queues.iter().all(Gauge::is_empty)
    }

    /// Findings of which something was dropped and that are to be told again, by their fingerprints: at most so many.
    #[must_use]
    pub fn take_untold(&self, most: usize) -> BTreeSet<String> {
        self.untold.take(most)
    }

    /// Lines for the journal that could not be written.
    #[must_use]
    pub fn unkept(&self) -> u64 {
        self.unkept.load(Ordering::Relaxed)
    }

    /// Records that were written to standard output.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.output.as_ref().map_or(0, |output| output.written())
    }

    /// Records that were dropped: a queue was full, or nobody reads standard output any more.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.output.as_ref().map_or(0, |output| output.dropped())
    }

    /// Whether standard output is one of those that take records, and nobody reads it any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.output.as_ref().is_some_and(|output| output.is_closed())
    }

    /// Lets what waits go out, for so long at most. Returns whether all of it did.
    pub fn finish(mut self, patience: Duration) -> bool {
        self.batches = None;
        let until = Instant::now() + patience;
        let Ok(output) = self.done.recv_timeout(patience) else { return false };
        if let Some(thread) = self.thread.take() {
            // It has done what it had to.
            let _ = thread.join();
        }
        output.is_none_or(|output| output.finish(until.saturating_duration_since(Instant::now())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::super::queue::BATCHES;
    use super::*;
    use crate::daemon::feed::{Audience, Form, Writer};
    use crate::report::sample;

    /// Takes nothing before it is told to.
    struct Slow(Mutex<Receiver<()>>, Mutex<Sender<String>>);

    impl Taker for Slow {
        fn take(&self, record: &Arc<Outgoing>) {
            let _ = self.0.lock().unwrap().recv();
            let _ = self.1.lock().unwrap().send(String::from_utf8(record.line.to_vec()).unwrap());
        }
    }

    fn batch(writer: &mut Writer, number: i64) -> Batch {
        writer.stats(&sample::report().stats, sample::at(number));
        writer.take()
    }

    #[test]
    fn findings_whose_records_were_dropped_are_known_and_the_last_words_wait_for_room() {
        let (go, stop) = channel();
        let (taken, lines) = channel();
        let slow = Arc::new(Slow(Mutex::new(stop), Mutex::new(taken)));
        let fan_out = FanOut::start(vec![slow], None, None).unwrap();
        let mut writer = Writer::new(Form::Ndjson, Audience::All, "h".into());
        let mut alert = sample::report().alerts.remove(0);
        let mut offer = |fingerprint: &str, patience| {
            alert.fingerprint = fingerprint.to_owned();
            writer.write_alert(&alert);
            fan_out.offer_within(writer.take(), patience)
        };
        while offer("lost", Duration::ZERO) {}
        let lost = fan_out.take_untold(10);
        assert_eq!(lost.iter().collect::<Vec<_>>(), ["lost"]);
        assert!(fan_out.take_untold(10).is_empty());
        std::thread::scope(|scope| {
            scope.spawn(move || (0..BATCHES + TOGETHER + 3).for_each(|_| _ = go.send(())));
            assert!(offer("last", Duration::from_secs(60)));
        });
        assert!(fan_out.finish(Duration::from_secs(60)));
        assert!(lines.try_iter().last().unwrap().contains("\"last\""));
    }

    /// Writes nothing before the other end is gone.
    struct Stuck(Receiver<()>);

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_has_not_caught_up_before_standard_output_has() {
        let (go, stop) = channel();
        let fan_out = FanOut::start(Vec::new(), Some(Output::start(Stuck(stop)).unwrap()), None).unwrap();
        assert!(fan_out.has_caught_up());
        let mut writer = Writer::new(Form::Ndjson, Audience::All, "h".into());
        let alert = sample::report().alerts.remove(0);
        while fan_out.take_untold(1).is_empty() {
            writer.write_alert(&alert);
            fan_out.offer(writer.take());
        }
        assert!(!fan_out.has_caught_up(), "more is under way than a queue holds");
        drop(go);
        let until = Instant::now() + Duration::from_secs(60);
        while !fan_out.has_caught_up() {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_record_reaches_every_taker_in_order_or_is_counted() {
        let (go, stop) = channel();
        let (taken, lines) = channel();
        let slow = Arc::new(Slow(Mutex::new(stop), Mutex::new(taken)));
        let fan_out = FanOut::start(vec![slow], None, None).unwrap();
        let mut writer = Writer::new(Form::Ndjson, Audience::All, "h".into());
        let offered = 2 * BATCHES as i64;
        for number in 0..offered {
            fan_out.offer(batch(&mut writer, number));
        }
        let dropped = fan_out.dropped();
        assert!(dropped >= (BATCHES - TOGETHER) as u64 - 1, "{dropped}");
        drop(go);
        assert!(fan_out.finish(Duration::from_secs(60)));
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines.len() as u64 + dropped, offered.cast_unsigned());
        assert!(lines.is_sorted(), "in order");
    }
}
