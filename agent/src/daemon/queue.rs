//! The way of batches from one thread to another: bounded in batches and in octets, and nobody waits to put one in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::feed::Batch;

/// Batches that may wait. A batch is what one look at the capture gave, of which there are some hundred a second at most.
pub(super) const BATCHES: usize = 1024;

/// Octets of records that may wait: some seconds at the rates of a real cluster, for a disk or a reader that pauses. A batch can
/// be large, so their number alone bounds no memory.
const OCTETS: usize = 32 << 20;

/// Where batches are put in.
#[derive(Debug)]
pub(super) struct Inlet {
    batches: SyncSender<Batch>,
    waiting: Arc<AtomicUsize>,
}

/// Where they come out, in order.
#[derive(Debug)]
pub(super) struct Outlet {
    batches: Receiver<Batch>,
    waiting: Arc<AtomicUsize>,
}

/// An empty queue.
pub(super) fn queue() -> (Inlet, Outlet) {
    let (sender, receiver) = sync_channel(BATCHES);
    let waiting = Arc::<AtomicUsize>::default();
    (Inlet { batches: sender, waiting: Arc::clone(&waiting) }, Outlet { batches: receiver, waiting })
}

/// Whether there is nothing in a queue.
#[derive(Clone, Debug)]
pub(super) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// All that was put in has been taken out.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Inlet {
    /// For whoever wants to know later whether the queue is empty.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.waiting))
    }

    /// Puts a batch in.
    ///
    /// # Errors
    /// There is no room, or nobody to take it any more: the batch itself.
    pub(super) fn offer(&self, batch: Batch) -> Result<(), Batch> {
        let octets = batch.octets();
        let before = self.waiting.fetch_add(octets, Ordering::Relaxed);
        // One that is larger than all of it may go alone.
        let refused = if before > 0 && before + octets > OCTETS {
            Some(batch)
        } else {
            self.batches
                .try_send(batch)
                .err()
                .map(|(TrySendError::Full(batch) | TrySendError::Disconnected(batch))| batch)
        };
        match refused {
            None => Ok(()),
            Some(batch) => {
                self.waiting.fetch_sub(octets, Ordering::Relaxed);
                Err(batch)
            }
        }
    }
}

impl Outlet {
    /// The next batch, waited for; none when nothing will come any more.
    pub(super) fn take(&self) -> Option<Batch> {
        self.batches.recv().ok().map(|batch| self.out(batch))
    }

    /// The next batch, if it is there.
    pub(super) fn try_take(&self) -> Option<Batch> {
        self.batches.try_recv().ok().map(|batch| self.out(batch))
    }

    fn out(&self, batch: Batch) -> Batch {
        self.waiting.fetch_sub(batch.octets(), Ordering::Relaxed);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(octets: usize) -> Batch {
        Batch { lines: vec!["x".repeat(octets)], ..Batch::default() }
    }

    #[test]
    fn what_waits_has_an_end_in_octets_and_room_comes_back() {
        let (inlet, outlet) = queue();
        let quarter = OCTETS / 4;
        let taken = (0..6).filter(|_| inlet.offer(of(quarter)).is_ok()).count();
        assert_eq!(taken, 3, "three with what they take besides, and no fourth");
        assert!(outlet.take().is_some());
        assert!(inlet.offer(of(quarter)).is_ok(), "there is room again");
        while outlet.try_take().is_some() {}
        assert!(inlet.offer(of(2 * OCTETS)).is_ok(), "alone, whatever its size");
        assert!(inlet.offer(of(1)).is_err());
        assert!(!inlet.gauge().is_empty());
        assert!(outlet.take().is_some());
        assert!(inlet.gauge().is_empty());
    }

    #[test]
    fn what_nobody_takes_any_more_is_handed_back() {
        let (inlet, outlet) = queue();
        drop(outlet);
        assert_eq!(inlet.offer(of(7)).unwrap_err().lines[0].len(), 7);
    }
}
