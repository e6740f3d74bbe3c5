//! Pictures of what the capture thread knows: taken when somebody asks, and shown to all who ask soon after.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::limits::{CAPTURE_PATIENCE, PICTURE_AGE, PICTURE_SHARE};
use super::recent::Recent;
use crate::daemon::picture::Picture;

/// Asks the capture thread; `false` where it is gone.
pub type Ask = Box<dyn Fn(oneshot::Sender<Picture>) -> bool + Send + Sync>;

/// The capture thread does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silent {
    /// It has ended.
    #[error("the capture thread has ended")]
    Gone,
    /// It is busy, or hangs.
    #[error("the capture thread does not answer within {} s", CAPTURE_PATIENCE.as_secs())]
    Late,
}

/// A picture, and where it stands in the stream of events.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// What was known.
    pub(super) picture: Arc<Picture>,
    /// The last event that is surely in it; what comes after this one may be.
    pub(super) last_event_id: Arc<str>,
}

/// The last picture, and where the next comes from.
pub(super) struct Pictures {
    ask: Arc<Ask>,
    recent: Arc<Recent>,
    last: Arc<Mutex<Option<Last>>>,
}

/// The last answer, a failure too, and until when it is shown.
struct Last {
    answer: Result<Shown, Silent>,
    until: Instant,
}

impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pictures").finish_non_exhaustive()
    }
}

impl Pictures {
    pub(super) fn new(ask: Ask, recent: Arc<Recent>) -> Self {
        Self { ask: Arc::new(ask), recent, last: Arc::default() }
    }

    /// A picture that is fresh enough.
    ///
    /// # Errors
    /// The capture thread does not answer.
    pub(super) async fn now(&self) -> Result<Shown, Silent> {
        // Who asks while another waits for a picture gets that one.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(last) = last.as_ref().filter(|last| Instant::now() < last.until) {
            return last.answer.clone();
        }
        // A task of its own: who asked may hang up, and whoever comes next must not make the capture thread work anew.
        let (ask, recent) = (Arc::clone(&self.ask), Arc::clone(&self.recent));
        let taking = tokio::spawn(async move {
            let answer = take(&ask, &recent).await;
            let age = answer.as_ref().map_or(PICTURE_AGE, |shown| PICTURE_AGE.max(shown.picture.cost * PICTURE_SHARE));
            *last = Some(Last { answer: answer.clone(), until: Instant::now() + age });
            answer
        });
        taking.await.unwrap_or(Err(Silent::Gone))
    }
}

async fn take(ask: &Ask, recent: &Recent) -> Result<Shown, Silent> {
    // A record is made before it is numbered, so whatever has a number now is in the picture.
    let last_event_id = recent.last_id().into();
    let (sender, receiver) = oneshot::channel();
    if !ask(sender) {
        return Err(Silent::Gone);
    }
    match timeout(CAPTURE_PATIENCE, receiver).await {
        Ok(Ok(picture)) => Ok(Shown { picture: Arc::new(picture), last_event_id }),
        Ok(Err(_)) => Err(Silent::Gone),
        Err(_) => Err(Silent::Late),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::http::sample;

    fn recent() -> Arc<Recent> {
        Arc::new(Recent::new(1))
    }

    /// Answers with a picture of this cost, and counts how often.
    fn answering(cost: Duration) -> (Pictures, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let ask = move |answer: oneshot::Sender<Picture>| {
            count.fetch_add(1, Ordering::Relaxed);
            answer.send(Picture { cost, ..sample::picture() }).is_ok()
        };
        (Pictures::new(Box::new(ask), recent()), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_within_a_second_cost_one_picture() {
        let (pictures, asked) = answering(Duration::from_micros(100));
        for _ in 0..100 {
            pictures.now().await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(PICTURE_AGE).await;
        pictures.now().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_before_the_picture_is_there_does_not_make_the_next_one_cost_another() {
        let asked = Arc::new(AtomicU64::new(0));
        let (count, kept) = (Arc::clone(&asked), std::sync::Mutex::new(Vec::new()));
        let ask = move |answer| {
            count.fetch_add(1, Ordering::Relaxed);
            kept.lock().unwrap().push(answer);
            true
        };
        let pictures = Pictures::new(Box::new(ask), recent());
        for _ in 0..100 {
            assert!(timeout(Duration::from_millis(1), pictures.now()).await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_picture_that_took_long_is_shown_for_longer() {
        let (pictures, asked) = answering(Duration::from_millis(100));
        pictures.now().await.unwrap();
        tokio::time::advance(Duration::from_millis(4900)).await;
        pictures.now().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_millis(200)).await;
        pictures.now().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_capture_thread_that_hangs_or_is_gone_is_told_apart_and_not_asked_by_everybody() {
        let kept = std::sync::Mutex::new(Vec::new());
        let hang = move |answer| {
            kept.lock().unwrap().push(answer);
            assert_eq!(kept.lock().unwrap().len(), 1);
            true
        };
        let hangs = Pictures::new(Box::new(hang), recent());
        assert_eq!(hangs.now().await.unwrap_err(), Silent::Late);
        assert_eq!(hangs.now().await.unwrap_err(), Silent::Late);
        assert_eq!(Pictures::new(Box::new(|_| false), recent()).now().await.unwrap_err(), Silent::Gone);
        assert_eq!(Pictures::new(Box::new(|_| true), recent()).now().await.unwrap_err(), Silent::Gone);
    }
}
