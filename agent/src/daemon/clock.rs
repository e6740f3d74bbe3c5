//! What time of day a moment of `CLOCK_MONOTONIC` is.

use distwatch_engine::time::Timestamp;

use crate::clocks::{monotonic, wall};

/// The two clocks as they stood together when the daemon began.
///
/// Time goes on from there by the monotonic clock alone, so that a step of the wall clock (NTP, an operator, a resumed
/// machine) makes no time-out fire and no duration negative. After such a step the daemon's time differs from the wall
/// clock's by the step until it is started again; [`Clock::step`] says by how much, and `distwatch status` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: i64,
    monotonic: u64,
}

impl Clock {
    /// Both clocks as they stand.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: wall(), monotonic: monotonic() }
    }

    /// Clocks that stood like this, in nanoseconds.
    #[must_use]
    pub const fn at(wall: i64, monotonic: u64) -> Self {
        Self { wall, monotonic }
    }

    /// The time of a moment, in nanoseconds of the monotonic clock.
    #[must_use]
    pub const fn time_of(&self, monotonic: u64) -> Timestamp {
        let since = monotonic.wrapping_sub(self.monotonic).cast_signed();
        Timestamp::from_nanos(self.wall.saturating_add(since))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time_of(monotonic())
    }

    /// By how many nanoseconds the wall clock has been set forward (or, negative, back) since the start.
    #[must_use]
    pub fn step(&self) -> i64 {
        wall().saturating_sub(self.now().as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_by_the_monotonic_clock() {
        let clock = Clock::at(1_700_000_000_000_000_000, 5_000);
        assert_eq!(clock.time_of(5_000).as_nanos(), 1_700_000_000_000_000_000);
        assert_eq!(clock.time_of(6_500).as_nanos(), 1_700_000_000_000_001_500);
        assert_eq!(clock.time_of(4_000).as_nanos(), 1_699_999_999_999_999_000, "captured before the start");
    }

    #[test]
    fn a_wall_clock_that_was_set_is_noticed() {
        let day = 86_400_000_000_000;
        let clock = Clock::at(wall() - day, monotonic());
        assert!((clock.step() - day).abs() < 1_000_000_000);
        assert!(Clock::start().step().abs() < 1_000_000_000);
    }
}
