//! Pictures of what the capture thread knows: taken when somebody asks, and shown to all who ask soon after.

use std::fmt;
use std::sync::{self, Arc, MutexGuard, PoisonError};

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::limits::{CAPTURE_PATIENCE, KEPT_PICTURES, PART_PATIENCE, PICTURE_AGE, PICTURE_SHARE};
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
    kept: Arc<Kept>,
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
        Self { ask: Arc::new(ask), recent, last: Arc::default(), kept: Arc::default() }
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

    /// The picture of this time, where it is still kept.
    pub(super) fn of(&self, time: &str) -> Option<Shown> {
        self.kept.of(time)
    }

    /// Keeps a picture for whoever was shown a part of a list in it: the rest is to be of the same moment.
    pub(super) fn keep(&self, shown: &Shown) {
        if self.kept.keep(shown) {
            tokio::spawn(Arc::clone(&self.kept).forget(Arc::clone(&shown.picture)));
        }
    }
}

/// Pictures that somebody was shown a part of, and until when each is kept.
#[derive(Debug, Default)]
struct Kept(sync::Mutex<Vec<(Shown, Instant)>>);

impl Kept {
    fn of(&self, time: &str) -> Option<Shown> {
        self.all().iter().find(|(shown, _)| shown.picture.time.to_string() == time).map(|(shown, _)| shown.clone())
    }

    /// Returns whether it was not kept before.
    fn keep(&self, shown: &Shown) -> bool {
        let mut all = self.all();
        let until = Instant::now() + PART_PATIENCE;
        if let Some((_, kept)) = all.iter_mut().find(|(kept, _)| Arc::ptr_eq(&kept.picture, &shown.picture)) {
            *kept = until;
            return false;
        }
        if all.len() >= KEPT_PICTURES
            && let Some(oldest) = (0..all.len()).min_by_key(|&place| all[place].1)
        {
            all.swap_remove(oldest);
        }
        all.push((shown.clone(), until));
        true
    }

    /// Lets go of a picture once nobody has asked for it for long enough.
    async fn forget(self: Arc<Self>, picture: Arc<Picture>) {
        let place = |all: &[(Shown, Instant)]| all.iter().position(|(kept, _)| Arc::ptr_eq(&kept.picture, &picture));
        loop {
            let until = {
                let mut all = self.all();
                let Some(place) = place(&all) else { return };
                if all[place].1 <= Instant::now() {
                    all.swap_remove(place);
                    return;
                }
                all[place].1
            };
            sleep_until(until).await;
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<(Shown, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    use distwatch_engine::time::Timestamp;

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

    #[tokio::test(start_paused = true)]
    async fn a_picture_of_which_a_part_was_shown_is_kept_for_a_while_and_only_so_many() {
        let times = AtomicU64::new(0);
        let ask = move |answer: oneshot::Sender<Picture>| {
            let time = Timestamp::from_parts(times.fetch_add(1, Ordering::Relaxed).cast_signed(), 0);
            answer.send(Picture { time, ..sample::picture() }).is_ok()
        };
        let pictures = Pictures::new(Box::new(ask), recent());
        let mut shown = Vec::new();
        for _ in 0..=KEPT_PICTURES {
            shown.push(pictures.now().await.unwrap());
            pictures.keep(shown.last().unwrap());
            // It is not kept twice, and the last one asked for is kept longest.
            pictures.keep(&shown[shown.len().min(2) - 1]);
            tokio::time::advance(PICTURE_AGE).await;
        }
        let is_kept = |shown: &Shown| {
            let found = pictures.of(&shown.picture.time.to_string());
            found.is_some_and(|found| Arc::ptr_eq(&found.picture, &shown.picture))
        };
        assert_eq!(shown.iter().filter(|shown| is_kept(shown)).count(), KEPT_PICTURES);
        assert!(!is_kept(&shown[0]) && is_kept(&shown[1]), "the one that nobody has asked for is let go first");
        assert!(pictures.of("").is_none());
        tokio::time::sleep(PART_PATIENCE / 2).await;
        pictures.keep(&shown[1]);
        tokio::time::sleep(PART_PATIENCE * 2 / 3).await;
        assert_eq!(shown.iter().filter(|shown| is_kept(shown)).count(), 1, "one reader goes on");
        tokio::time::sleep(PART_PATIENCE).await;
        assert!(pictures.kept.all().is_empty() && !is_kept(&shown[1]));
    }
}
