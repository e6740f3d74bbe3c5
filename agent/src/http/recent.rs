//! The last records, numbered, for clients that are told of each as it comes and for those that come back.
//!
//! One ring serves all clients: each only remembers how far it has got. A client that reads too slowly costs nothing more
//! than one that does not; it is found out when what it wants next has left the ring.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::limits::{RECENT_BYTES, RECENT_RECORDS};
use crate::record::EventType;

/// What a record takes besides its line.
const OVERHEAD: usize = 64;

/// The ring.
#[derive(Debug)]
pub struct Recent {
    /// Which run of the daemon it is: ids of another one mean nothing here.
    boot: u64,
    ring: Mutex<Ring>,
    /// The number of the newest record.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Kept>,
    bytes: usize,
    /// The number of the newest record; the first one of all is 1.
    newest: u64,
}

/// A record that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// What it is.
    pub(crate) event_type: EventType,
    /// The JSON object.
    pub(crate) line: Arc<[u8]>,
}

/// Where a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// With the next record.
    Now,
    /// After this one.
    After(u64),
    /// It was told something of another run of the daemon, or nobody knows of what.
    Elsewhere,
}

/// What there is for a client.
#[derive(Debug)]
pub(crate) struct Next {
    /// Records, in order, each with its number.
    pub(crate) records: Vec<(u64, Kept)>,
    /// The number of the last one that was looked at, wanted or not.
    pub(crate) upto: u64,
    /// How many have left the ring before the client asked.
    pub(crate) lost: u64,
}

impl Recent {
    /// An empty one of a run that began then, in nanoseconds.
    #[must_use]
    pub fn new(boot: u64) -> Self {
        Self { boot, ring: Mutex::default(), news: watch::Sender::new(0) }
    }

    /// Takes one more record. It waits for nobody.
    pub fn push(&self, event_type: EventType, line: Arc<[u8]>) {
        let mut ring = self.ring();
        ring.bytes += line.len() + OVERHEAD;
        ring.newest += 1;
        ring.records.push_back(Kept { event_type, line });
        while ring.records.len() > RECENT_RECORDS || (ring.bytes > RECENT_BYTES && ring.records.len() > 1) {
            let Some(oldest) = ring.records.pop_front() else { break };
            ring.bytes -= oldest.line.len() + OVERHEAD;
        }
        let newest = ring.newest;
        drop(ring);
        self.news.send_replace(newest);
    }

    /// So many records are lost before the next one: whoever is told of records hears of that as of any other loss.
    pub fn lose(&self, records: u64) {
        let mut ring = self.ring();
        ring.newest += records;
        ring.records.clear();
        ring.bytes = 0;
        let newest = ring.newest;
        drop(ring);
        self.news.send_replace(newest);
    }

    /// Says when there is something new.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The id of the newest record; it can be gone on after.
    pub(crate) fn last_id(&self) -> String {
        self.id(self.ring().newest)
    }

    /// The id of a record.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.boot)
    }

    /// What an id means here.
    pub(crate) fn place_of(&self, id: &str) -> Place {
        let number = id.split_once('-').filter(|(boot, _)| boot.parse() == Ok(self.boot));
        match number.and_then(|(_, number)| number.parse().ok()) {
            Some(number) if number <= self.ring().newest => Place::After(number),
            _ => Place::Elsewhere,
        }
    }

    /// The number after which a client goes on, and how many it has lost; `None` where nobody can know.
    pub(crate) fn begin(&self, from: Place) -> (u64, Option<u64>) {
        let ring = self.ring();
        let before_first = ring.before_first();
        match from {
            Place::Now => (ring.newest, Some(0)),
            Place::After(number) => (number.max(before_first), Some(before_first.saturating_sub(number))),
            Place::Elsewhere => (before_first, None),
        }
    }

    /// What comes after a number and is wanted, of no more than about `bytes`.
    pub(crate) fn after(&self, number: u64, wanted: impl Fn(EventType) -> bool, bytes: usize) -> Next {
        let ring = self.ring();
        let before_first = ring.before_first();
        let mut next =
            Next { records: Vec::new(), upto: number.max(before_first), lost: before_first.saturating_sub(number) };
        let skip = usize::try_from(next.upto - before_first).unwrap_or(usize::MAX);
        let mut size = 0;
        for record in ring.records.iter().skip(skip) {
            if size >= bytes {
                break;
            }
            next.upto += 1;
            if wanted(record.event_type) {
                size += record.line.len() + OVERHEAD;
                next.records.push((next.upto, record.clone()));
            }
        }
        next
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The number of the newest record that is not here any more.
    fn before_first(&self) -> u64 {
        self.newest - self.records.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(records: usize, length: usize) -> Recent {
        let recent = Recent::new(7);
        for number in 1..=records {
            let event_type = if number % 2 == 0 { EventType::Alert } else { EventType::Link };
            let mut line = number.to_string().into_bytes();
            line.resize(length.max(line.len()), b' ');
            recent.push(event_type, line.into());
        }
        recent
    }

    fn numbers(next: &Next) -> Vec<u64> {
        next.records.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_client_is_told_every_record_once_and_in_order() {
        let recent = filled(5, 1);
        let next = recent.after(2, |_| true, usize::MAX);
        assert_eq!((numbers(&next), next.upto, next.lost), (vec![3, 4, 5], 5, 0));
        assert_eq!(&*next.records[0].1.line, b"3");
        let alerts = recent.after(0, |kind| kind == EventType::Alert, usize::MAX);
        assert_eq!((numbers(&alerts), alerts.upto), (vec![2, 4], 5));
        let nothing = recent.after(5, |_| true, usize::MAX);
        assert_eq!((numbers(&nothing), nothing.upto), (vec![], 5));
    }

    #[test]
    fn what_is_handed_over_at_once_is_bounded_and_nothing_is_skipped() {
        let recent = filled(100, 50);
        let (mut at, mut all) = (0, Vec::new());
        while at < 100 {
            let next = recent.after(at, |_| true, 500);
            assert!(next.records.len() <= 10, "{}", next.records.len());
            all.extend(numbers(&next));
            at = next.upto;
        }
        assert_eq!(all, (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn the_ring_has_an_end_in_records_and_in_octets() {
        let many = filled(RECENT_RECORDS + 10, 1);
        assert_eq!(many.begin(Place::After(3)), (10, Some(7)));
        assert_eq!(many.begin(Place::After(10)), (10, Some(0)));
        let next = many.after(3, |_| true, 1);
        assert_eq!((numbers(&next), next.lost), (vec![11], 7));
        let large = filled(30, RECENT_BYTES / 10);
        let ring = large.ring();
        assert!(ring.bytes <= RECENT_BYTES && ring.records.len() == 9, "{} octets", ring.bytes);
        drop(ring);
        large.push(EventType::Weird, vec![b' '; 2 * RECENT_BYTES].into());
        assert_eq!(large.after(0, |_| true, usize::MAX).records.len(), 1, "the newest is there, whatever its size");
    }

    #[test]
    fn an_id_of_another_run_or_of_no_record_is_not_taken_for_a_place() {
        let recent = filled(5, 1);
        assert_eq!(recent.place_of(&recent.id(3)), Place::After(3));
        assert_eq!(recent.place_of(&recent.last_id()), Place::After(5));
        assert_eq!(recent.place_of("7-0"), Place::After(0));
        for elsewhere in ["8-3", "7-6", "7", "", "7-x", "-3", "7-3-3", "07x-3"] {
            assert_eq!(recent.place_of(elsewhere), Place::Elsewhere, "{elsewhere}");
        }
        assert_eq!(recent.begin(Place::Elsewhere), (0, None));
        assert_eq!(recent.begin(Place::Now), (5, Some(0)));
    }

    #[test]
    fn what_was_dropped_before_it_came_here_is_a_loss_to_everybody() {
        let recent = filled(5, 1);
        recent.lose(3);
        assert_eq!(recent.after(5, |_| true, usize::MAX).lost, 3);
        assert_eq!(recent.begin(Place::After(2)), (8, Some(6)));
        recent.push(EventType::Alert, b"9"[..].into());
        assert_eq!(numbers(&recent.after(8, |_| true, usize::MAX)), vec![9]);
    }

    #[test]
    fn who_waits_for_news_hears_of_it() {
        let recent = filled(1, 1);
        let mut news = recent.news();
        assert!(!news.has_changed().unwrap());
        recent.push(EventType::Stats, b"{}"[..].into());
        assert_eq!((news.has_changed().unwrap(), *news.borrow_and_update()), (true, 2));
    }
}
