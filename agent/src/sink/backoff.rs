//! How long to wait before another attempt.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Waits that double, with some chance in them so that many sensors do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// After a failure: how long to wait. A server's own wish is kept to, within the longest wait.
    pub(crate) fn next(&mut self, wish: Option<Duration>) -> Duration {
        self.next_with(wish, chance())
    }

    /// After a success.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// `chance` is between 0 and 1.
    fn next_with(&mut self, wish: Option<Duration>, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures.min(31)));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.max(wish.unwrap_or_default()).min(self.longest);
        // Up to a quarter less, but neither less than the shortest wait nor than the server asked for.
        let floor = self.first.max(wish.unwrap_or_default()).min(self.longest);
        wait.mul_f64(1.0 - chance / 4.0).max(floor)
    }
}

/// A number from 0 to 1. A hasher's random keys are chance enough to keep sensors apart.
fn chance() -> f64 {
    f64::from((RandomState::new().hash_one(0) >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(SECOND / 2, 300 * SECOND);
        let waits: Vec<f64> = (0..12).map(|_| backoff.next_with(None, 0.0).as_secs_f64()).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]);
        backoff.reset();
        assert_eq!(backoff.next_with(None, 1.0), SECOND / 2, "chance never makes it shorter than the shortest");
        assert_eq!(backoff.next_with(None, 1.0), SECOND.mul_f64(0.75));
    }

    #[test]
    fn a_server_may_ask_for_more_time_but_not_for_any_time() {
        let mut backoff = Backoff::new(SECOND, 60 * SECOND);
        assert_eq!(backoff.next_with(Some(30 * SECOND), 1.0), 30 * SECOND);
        assert_eq!(backoff.next_with(Some(86_400 * SECOND), 0.0), 60 * SECOND);
        assert!((0.0..=1.0).contains(&chance()));
    }
}
