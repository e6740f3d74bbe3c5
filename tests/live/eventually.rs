//! Waiting for what happens outside, with a deadline.

use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look.
const BETWEEN: Duration = Duration::from_millis(10);

/// Asks until there is an answer, or no time is left.
pub fn in_time<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        std::thread::sleep(BETWEEN);
    }
}

/// Asks until there is an answer.
///
/// # Panics
/// Where there is none in time.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    in_time(ask).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}
