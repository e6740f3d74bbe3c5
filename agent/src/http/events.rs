//! `/api/v1/events`: each record as it comes, as server-sent events (HTML standard, section 9.2).
//!
//! ```text
//!  recent ── what comes next ──> a task for each client ── one piece ──> its connection
//! ```
//!
//! The task takes from the ring only when the connection has taken the piece before. A client that falls so far behind that the
//! ring has gone on without it is cut off; when it comes back, it is told how much it has lost.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::answer::{self, Body, Problem};
use super::counts::{Counts, Present};
use super::limits::{HEARTBEAT, PIECE, STREAMS};
use super::query::Query;
use super::recent::{Place, Recent};
use super::server::told;
use crate::record::EventType;

/// After how long a client that was cut off should come back, in milliseconds.
const COME_BACK: u32 = 2000;

/// What all streams share.
#[derive(Debug)]
pub(super) struct Events {
    recent: Arc<Recent>,
    counts: Arc<Counts>,
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    /// Changes when those who are told have to come in anew.
    ended: watch::Sender<()>,
}

impl Events {
    pub(super) fn new(recent: Arc<Recent>, counts: Arc<Counts>, stopping: watch::Receiver<bool>) -> Self {
        Self { recent, counts, places: Arc::new(Semaphore::new(STREAMS)), stopping, ended: watch::Sender::new(()) }
    }

    /// Ends all streams that there are: what they were let in by does not hold any more.
    pub(super) fn end_streams(&self) {
        self.ended.send_replace(());
    }

    /// Begins a stream; `last_id` is what the client was told last.
    pub(super) fn respond(&self, query: &str, last_id: Option<&str>) -> Result<Response<Body>, Problem> {
        let kinds = EventType::ALL.map(|kind| (kind.name(), kind));
        let wanted = Query::read(query, &["types"])?.words("types", &kinds)?;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Problem::unavailable(format!(
                "{STREAMS} clients are told of events, which is all there can be"
            )));
        };
        let from = last_id.map_or(Place::Now, |id| self.recent.place_of(id));
        let (pieces, body) = mpsc::channel(1);
        let stream = Stream {
            recent: Arc::clone(&self.recent),
            wanted,
            ended: self.ended.subscribe(),
            counts: Arc::clone(&self.counts),
            _present: Present::stream(&self.counts),
            _place: place,
        };
        tokio::spawn(stream.run(from, pieces, self.stopping.clone()));
        Ok(answer::in_pieces(StatusCode::OK, "text/event-stream", Pieces(body).boxed_unsync()))
    }
}

/// One client's.
struct Stream {
    recent: Arc<Recent>,
    wanted: Option<Vec<EventType>>,
    ended: watch::Receiver<()>,
    counts: Arc<Counts>,
    _present: Present,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Goes on until the client is gone or cut off, or the server ends. That is what dropping `pieces` says.
    async fn run(mut self, from: Place, pieces: mpsc::Sender<Bytes>, mut stopping: watch::Receiver<bool>) {
        let mut news = self.recent.news();
        let (mut at, lost) = self.recent.begin(from);
        let mut text = format!("retry: {COME_BACK}\nid: {}\n\n", self.recent.id(at));
        if lost != Some(0) {
            // It may have been of any type, so it is told whatever the client wants.
            let _ = write!(text, "event: lost\ndata: {}\n\n", json!({ "records": lost }));
        }
        let mut told_of = at;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut ends = false;
        loop {
            // Before looking, so that what comes after the look is news.
            news.mark_unchanged();
            let next = self.recent.after(at, |kind| self.wants(kind), PIECE);
            if next.lost > 0 {
                self.counts.cut_off();
                return;
            }
            at = next.upto;
            for (number, record) in &next.records {
                told_of = *number;
                let (id, kind) = (self.recent.id(*number), record.event_type.name());
                // JSON has no line feed in it.
                let line = String::from_utf8_lossy(&record.line);
                let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {line}\n\n");
            }
            if !text.is_empty() {
                if pieces.send(std::mem::take(&mut text).into()).await.is_err() {
                    return;
                }
                heartbeat.reset();
                continue;
            }
            if ends {
                return;
            }
            tokio::select! {
                // Whoever makes news lives as long as this.
                _ = news.changed() => {}
                _ = heartbeat.tick() => {
                    text.push_str(": alive\n");
                    if told_of != at {
                        // What the client did not want it has not missed either.
                        told_of = at;
                        let _ = writeln!(text, "id: {}", self.recent.id(at));
                    }
                    text.push('\n');
                }
                () = told(&mut stopping) => ends = true,
                _ = self.ended.changed() => ends = true,
                () = pieces.closed() => return,
            }
        }
    }

    fn wants(&self, kind: EventType) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&kind))
    }
}

/// What goes to the connection.
struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::RECENT_RECORDS;

    /// Events whose end nobody says.
    fn events(recent: &Arc<Recent>) -> (Events, Arc<Counts>, watch::Sender<bool>) {
        let (stop, stopping) = watch::channel(false);
        let counts = Arc::<Counts>::default();
        (Events::new(Arc::clone(recent), Arc::clone(&counts), stopping), counts, stop)
    }

    fn push(recent: &Recent, kind: EventType, number: u64) {
        recent.push(kind, format!("{{\"n\":{number}}}").into_bytes().into());
    }

    /// The next piece that comes; `None` at the end.
    async fn piece(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_hears_of_what_it_wants_and_goes_on_where_it_left_off() {
        let recent = Arc::new(Recent::new(7));
        push(&recent, EventType::Link, 1);
        let (events, counts, _stop) = events(&recent);
        let mut body = events.respond("types=alert,weird", None).unwrap().into_body();
        assert_eq!(piece(&mut body).await.unwrap(), "retry: 2000\nid: 7-1\n\n");
        assert_eq!(counts.snapshot().streams, 1);
        push(&recent, EventType::Alert, 2);
        assert_eq!(piece(&mut body).await.unwrap(), "id: 7-2\nevent: alert\ndata: {\"n\":2}\n\n");
        push(&recent, EventType::Link, 3);
        assert_eq!(piece(&mut body).await.unwrap(), ": alive\nid: 7-3\n\n", "the heartbeat says how far it is");
        assert_eq!(piece(&mut body).await.unwrap(), ": alive\n\n");
        drop(body);
        push(&recent, EventType::Alert, 4);
        let mut again = events.respond("types=alert", Some("7-2")).unwrap().into_body();
        let text = piece(&mut again).await.unwrap();
        assert_eq!(text, "retry: 2000\nid: 7-2\n\nid: 7-4\nevent: alert\ndata: {\"n\":4}\n\n");
        assert_eq!(counts.snapshot().streams, 1, "the first one has been let go");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_is_said_first_with_its_number_where_that_is_known() {
        let recent = Arc::new(Recent::new(7));
        (1..=RECENT_RECORDS as u64 + 5).for_each(|number| push(&recent, EventType::Link, number));
        let (events, _, _stop) = events(&recent);
        let mut body = events.respond("types=stats", Some("7-2")).unwrap().into_body();
        let text = piece(&mut body).await.unwrap();
        assert_eq!(text, "retry: 2000\nid: 7-5\n\nevent: lost\ndata: {\"records\":3}\n\n");
        let mut body = events.respond("types=stats", Some("6-2")).unwrap().into_body();
        let text = piece(&mut body).await.unwrap();
        assert_eq!(text, "retry: 2000\nid: 7-5\n\nevent: lost\ndata: {\"records\":null}\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_behind_the_ring_is_cut_off_and_counted() {
        let recent = Arc::new(Recent::new(7));
        let (events, counts, _stop) = events(&recent);
        let mut slow = events.respond("", None).unwrap().into_body();
        let mut quick = events.respond("", None).unwrap().into_body();
        for body in [&mut slow, &mut quick] {
            piece(body).await.unwrap();
        }
        let mut heard = 0;
        for number in 0..2 * RECENT_RECORDS as u64 {
            push(&recent, EventType::Link, number);
            if number % 100 == 0 {
                heard += piece(&mut quick).await.unwrap().matches("data: ").count();
            }
        }
        let mut pieces = 0;
        while piece(&mut slow).await.is_some() {
            pieces += 1;
        }
        assert!(pieces <= 2, "what was under way, and no more: {pieces}");
        assert_eq!(counts.snapshot().cut_off, 1);
        heard += piece(&mut quick).await.unwrap().matches("data: ").count();
        assert_eq!(heard, 2 * RECENT_RECORDS);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_streams_and_no_more_and_all_end_with_the_server() {
        let recent = Arc::new(Recent::new(7));
        let (events, counts, stop) = events(&recent);
        let mut bodies: Vec<Body> = (0..STREAMS).map(|_| events.respond("", None).unwrap().into_body()).collect();
        assert_eq!(events.respond("", None).unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        for body in &mut bodies {
            piece(body).await.unwrap();
        }
        push(&recent, EventType::Alert, 1);
        stop.send_replace(true);
        for body in &mut bodies {
            assert!(piece(body).await.unwrap().contains("event: alert"), "last words go out");
            assert_eq!(piece(body).await, None);
        }
        assert_eq!(counts.snapshot().streams, 0);
        assert!(events.respond("types=all", None).is_err());
    }
}
