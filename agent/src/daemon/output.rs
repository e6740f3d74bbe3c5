//! Records to standard output, from a thread of its own: whoever reads slowly holds back neither the capture nor the sinks.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::feed::Batch;
use super::queue::{Gauge, Inlet, Outlet, queue};

/// What became of records.
#[derive(Debug, Default)]
pub struct Written {
    written: AtomicU64,
    dropped: AtomicU64,
    closed: AtomicBool,
}

/// The end of the queue that batches are put into.
#[derive(Debug)]
pub struct Output {
    batches: Option<Inlet>,
    thread: Option<JoinHandle<()>>,
    done: Receiver<()>,
    shared: Arc<Written>,
}

impl Output {
    /// Begins to write to `out`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (batches, waiting) = queue();
        let (finished, done) = sync_channel(1);
        let shared = Arc::new(Written::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("output".into()).spawn(move || {
            write(out, &waiting, &of_thread);
            let _ = finished.send(());
        })?;
        Ok(Self { batches: Some(batches), thread: Some(thread), done, shared })
    }

    /// Hands records over; when the queue is full they are counted as dropped.
    ///
    /// # Errors
    /// The records that were dropped.
    pub fn offer(&self, batch: Batch) -> Result<(), Batch> {
        let Some(batches) = self.batches.as_ref().filter(|_| batch.printed() > 0) else { return Ok(()) };
        batches.offer(batch).inspect_err(|batch| {
            self.shared.dropped.fetch_add(batch.printed(), Ordering::Relaxed);
        })
    }

    /// Whether records wait.
    pub(super) fn gauge(&self) -> Option<Gauge> {
        self.batches.as_ref().map(Inlet::gauge)
    }

    /// What becomes of records.
    #[must_use]
    pub fn counts(&self) -> Arc<Written> {
        Arc::clone(&self.shared)
    }

    /// Lets what waits go out, for so long at most. Returns whether all of it did.
    pub fn finish(mut self, patience: Duration) -> bool {
        self.batches = None;
        let finished = !matches!(self.done.recv_timeout(patience), Err(RecvTimeoutError::Timeout));
        if let Some(thread) = self.thread.take().filter(|_| finished) {
            let _ = thread.join();
        }
        finished && !self.shared.is_closed()
    }
}

impl Written {
    /// Records that were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Records that were dropped: the queue was full, or the output is closed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Room for text that is kept from one batch for the next. A burst's is given back.
const ROOM_KEPT: usize = 64 << 10;

fn write(mut out: impl Write, waiting: &Outlet, shared: &Written) {
    let mut text = Vec::new();
    while let Some(batch) = waiting.take() {
        if shared.closed.load(Ordering::Relaxed) {
            shared.dropped.fetch_add(batch.printed(), Ordering::Relaxed);
            continue;
        }
        text.clear();
        text.shrink_to(ROOM_KEPT);
        batch.print(&mut text);
        match out.write_all(&text).and_then(|()| out.flush()) {
            Ok(()) => shared.written.fetch_add(batch.printed(), Ordering::Relaxed),
            Err(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    tracing::error!(%error, "writing records to standard output failed");
                }
                shared.closed.store(true, Ordering::Relaxed);
                shared.dropped.fetch_add(batch.printed(), Ordering::Relaxed)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::super::queue::BATCHES;
    use super::*;

    /// Takes nothing before it is told to.
    struct Stuck(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(number: usize) -> Batch {
        Batch { lines: vec![format!("{number}")], for_a_person: true, ..Batch::default() }
    }

    #[test]
    fn a_reader_that_stops_holds_nothing_back_and_what_it_misses_is_counted() {
        let (go, stop) = channel();
        let (written, lines) = channel();
        let output = Output::start(Stuck(stop, written)).unwrap();
        let offered = 3 * BATCHES;
        let refused = (0..offered).filter(|&number| output.offer(line(number)).is_err()).count();
        let dropped = output.counts().dropped();
        assert!(dropped >= (2 * BATCHES - 1) as u64 && dropped == refused as u64, "{dropped} of {refused}");
        for _ in 0..offered {
            let _ = go.send(());
        }
        assert!(output.finish(Duration::from_secs(60)));
        let lines: Vec<Vec<u8>> = lines.try_iter().collect();
        assert_eq!(lines.len() as u64 + dropped, offered as u64, "every record went out or was counted");
        assert_eq!(lines[0], b"0\n");
    }

    #[test]
    fn an_output_that_is_closed_is_known() {
        let (go, stop) = channel::<()>();
        drop(go);
        let output = Output::start(Stuck(stop, channel().0)).unwrap();
        let shared = Arc::clone(&output.shared);
        output.offer(line(1)).unwrap();
        assert!(!output.finish(Duration::from_secs(60)));
        assert_eq!((shared.dropped.load(Ordering::Relaxed), shared.closed.load(Ordering::Relaxed)), (1, true));
    }
}
