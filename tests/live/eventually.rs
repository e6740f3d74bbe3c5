//! Waiting for what happens outside, with a deadline.

use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look.
const BETWEEN: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
///
/// # Panics
/// Where there is none in time.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(BETWEEN);
    }
}
