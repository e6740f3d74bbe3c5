//! The connections that are there: as many as there may be, and where one more comes, one that waits for nothing gives way.
//!
//! ```text
//!          a head is read              the answer is whole          all of it is handed to the kernel
//!  Waiting ──────────────> Answering ─────────────────> Sending ───────────────────────────────────> Waiting
//! ```
//!
//! Only who waits gives way: nobody loses an answer, a list or a stream of events to a newcomer. Among those, it is one of the
//! address that has most of them, and of those the one that has waited longest: who opens many connections takes them from
//! itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::Body;
use super::limits::CONNECTIONS;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Vec<Arc<Guest>>>);

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    address: IpAddr,
    doing: Mutex<Doing>,
    leave: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It was answered all that it asked, if anything, since then.
    Waiting(Instant),
    /// An answer to it is made.
    Answering,
    /// The answer is whole, and on its way out of this program.
    Sending,
}

/// Somebody was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) seat: Seat,
    /// Another one had to give way.
    pub(super) instead_of_another: bool,
}

/// A connection's place among all, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    guests: Arc<Guests>,
    guest: Arc<Guest>,
}

impl Guests {
    /// Lets a connection from this address in; nothing where nobody can give way to it.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let mut there = self.there();
        let instead_of_another = there.len() >= CONNECTIONS;
        if instead_of_another {
            let place = who_gives_way(&there)?;
            there.swap_remove(place).leave.notify_one();
        }
        let guest = Arc::new(Guest::new(address));
        there.push(Arc::clone(&guest));
        drop(there);
        Some(Admitted { seat: Seat { guests: Arc::clone(self), guest }, instead_of_another })
    }

    fn there(&self) -> MutexGuard<'_, Vec<Arc<Guest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn who_gives_way(there: &[Arc<Guest>]) -> Option<usize> {
    let mut of_address = HashMap::<IpAddr, usize>::new();
    for guest in there {
        *of_address.entry(guest.address).or_default() += 1;
    }
    let waiting = there.iter().enumerate().filter_map(|(place, guest)| {
        let Doing::Waiting(since) = *guest.doing() else { return None };
        let others = of_address.get(&guest.address).copied().unwrap_or(0);
        Some((std::cmp::Reverse(others), since, place))
    });
    waiting.min().map(|(.., place)| place)
}

impl Guest {
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            doing: Mutex::new(Doing::Waiting(Instant::now())),
            leave: Notify::new(),
        }
    }

    /// Everything that there was to send is handed to the kernel.
    pub(super) fn sent(&self) {
        let mut doing = self.doing();
        if *doing == Doing::Sending {
            *doing = Doing::Waiting(Instant::now());
        }
    }

    /// Waits until it has to give way.
    pub(super) async fn has_to_leave(&self) {
        self.leave.notified().await;
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Seat {
    type Target = Arc<Guest>;

    fn deref(&self) -> &Self::Target {
        &self.guest
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.there().retain(|other| !Arc::ptr_eq(other, &self.guest));
    }
}

/// An answer that is made, until the last of it goes out.
#[derive(Debug)]
pub(super) struct Underway(Arc<Guest>);

impl Underway {
    /// A request has come.
    pub(super) fn begin(guest: &Arc<Guest>) -> Self {
        *guest.doing() = Doing::Answering;
        Self(Arc::clone(guest))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        *self.0.doing() = Doing::Sending;
    }
}

/// The body of such an answer.
#[derive(Debug)]
pub(super) struct Said {
    body: Body,
    _underway: Underway,
}

impl Said {
    pub(super) const fn new(body: Body, underway: Underway) -> Self {
        Self { body, _underway: underway }
    }
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(ready!(Pin::new(&mut self.body).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// So many from an address, each a second after the one before.
    async fn arrive(guests: &Arc<Guests>, address: IpAddr, count: usize) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..count {
            seats.push(guests.admit(address).unwrap().seat);
            advance(Duration::from_secs(1)).await;
        }
        seats
    }

    fn has_left(seat: &Seat) -> bool {
        !seat.guests.there().iter().any(|guest| Arc::ptr_eq(guest, &seat.guest))
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_takes_the_place_of_the_one_that_has_waited_longest() {
        let guests = Arc::<Guests>::default();
        let seats = arrive(&guests, ONE, CONNECTIONS).await;
        // The first two are answered: what one of them was sent is in the kernel, that of the other is not.
        let (first, second) = (Underway::begin(&seats[0]), Underway::begin(&seats[1]));
        drop((first, second));
        seats[0].sent();
        for (place, seat) in seats.iter().enumerate().skip(2) {
            let admitted = guests.admit(ONE).unwrap();
            assert!(admitted.instead_of_another && has_left(seat), "{place}");
            seat.has_to_leave().await;
            std::mem::forget(admitted.seat);
        }
        let admitted = guests.admit(ONE).unwrap();
        assert!(has_left(&seats[0]) && !has_left(&seats[1]));
        assert_eq!(guests.there().len(), CONNECTIONS);
        drop((admitted.seat, seats));
        assert_eq!(guests.there().len(), CONNECTIONS - 2, "who has left already leaves once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_many_takes_them_from_itself() {
        let guests = Arc::<Guests>::default();
        let quiet = arrive(&guests, OTHER, 2).await;
        let many = arrive(&guests, ONE, CONNECTIONS - 2).await;
        for (count, seat) in many.iter().enumerate() {
            let next = guests.admit(ONE).unwrap().seat;
            assert!(has_left(seat), "{count}");
            std::mem::forget(next);
        }
        assert!(!quiet.iter().any(has_left));
        // A newcomer from elsewhere does not take from those who have few either.
        assert!(guests.admit("::ffff:10.0.0.2".parse().unwrap()).is_some() && !quiet.iter().any(has_left));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gives_way_while_an_answer_is_made_or_sent() {
        let guests = Arc::<Guests>::default();
        let seats = arrive(&guests, ONE, CONNECTIONS).await;
        let mut underway: Vec<Underway> = seats.iter().map(|seat| Underway::begin(seat)).collect();
        seats.iter().for_each(|seat| seat.sent());
        assert!(guests.admit(OTHER).is_none());
        underway.pop();
        assert!(guests.admit(OTHER).is_none());
        seats[CONNECTIONS - 1].sent();
        assert!(guests.admit(OTHER).is_some_and(|admitted| admitted.instead_of_another));
        assert!(has_left(&seats[CONNECTIONS - 1]));
    }
}
