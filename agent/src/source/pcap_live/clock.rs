//! From the wall clock, which the kernel stamps packets with, to the monotonic one.

use crate::clocks;

/// How long a packet may have waited in the kernel's buffer although nothing was to be read: a block of the buffer is
/// handed over when it is full or its time is up, which is much sooner.
const SLACK: u64 = 1_000_000_000;

/// Both clocks at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: u64,
    /// What the wall clock is ahead of the monotonic one (behind, where the machine thinks that it is 1969).
    pub(super) ahead: i128,
}

impl Now {
    /// Reads both clocks, the wall clock between two readings of the other.
    pub(super) fn read() -> Self {
        let before = clocks::monotonic();
        let wall = clocks::wall();
        let monotonic = clocks::monotonic();
        Self { monotonic, ahead: i128::from(wall) - i128::from(before.midpoint(monotonic)) }
    }
}

/// Converts stamps. A stamp was made by the wall clock as it was set when the packet passed, which may be another setting
/// than now's: a step of the clock puts a stamp too far back or into the future. So the result is held between the last one
/// (or the last time that nothing was to be read, if that is later) and now.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: u64,
    drained: u64,
}

impl Clock {
    /// The monotonic time of a packet with this stamp, read `now`. Never less than that of a packet before.
    pub(super) fn monotonic(&mut self, stamp: i128, now: Now) -> u64 {
        let earliest = self.last.max(self.drained.saturating_sub(SLACK)).min(now.monotonic);
        let nanos = u64::try_from((stamp - now.ahead).max(0)).unwrap_or(u64::MAX);
        self.last = nanos.clamp(earliest, now.monotonic).max(self.last);
        self.last
    }

    /// Nothing more is to be read.
    pub(super) const fn drained(&mut self, now: Now) {
        self.drained = now.monotonic;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DAY: i128 = 86_400 * SECOND as i128;
    const EPOCH: i128 = 1_795_000_000 * SECOND as i128;

    fn now(monotonic: u64, step: i128) -> Now {
        Now { monotonic, ahead: EPOCH + step }
    }

    #[test]
    fn a_stamp_is_converted_by_what_the_clocks_differ_in() {
        let mut clock = Clock::default();
        assert_eq!(clock.monotonic(EPOCH + 5_000_000_123, now(6 * SECOND, 0)), 5_000_000_123);
        assert_eq!(clock.monotonic(EPOCH + 5_500_000_000, now(6 * SECOND, 0)), 5_500_000_000);
    }

    #[test]
    fn a_wall_clock_that_jumps_by_a_day_makes_no_jump() {
        for step in [DAY, -DAY] {
            let mut clock = Clock::default();
            assert_eq!(clock.monotonic(EPOCH + 100_000_000_000, now(100 * SECOND, 0)), 100 * SECOND);
            clock.drained(now(105 * SECOND, 0));
            // stamped before the step, read after it
            let held = clock.monotonic(EPOCH + 106_000_000_000, now(106 * SECOND, step));
            assert!((104 * SECOND..=106 * SECOND).contains(&held), "{held}");
            // stamped and read after it
            let after = clock.monotonic(EPOCH + step + 107_000_000_000, now(108 * SECOND, step));
            assert_eq!(after, 107 * SECOND);
        }
    }

    #[test]
    fn time_never_goes_back_nor_into_the_future() {
        let mut clock = Clock::default();
        assert_eq!(clock.monotonic(i128::MAX / 2, now(7 * SECOND, 0)), 7 * SECOND);
        assert_eq!(clock.monotonic(-1, now(8 * SECOND, 0)), 7 * SECOND);
        assert_eq!(clock.monotonic(EPOCH + 9_000_000_000, now(8 * SECOND, 0)), 8 * SECOND);
    }

    #[test]
    fn the_real_clocks_agree_with_themselves() {
        let read = Now::read();
        let stamp = read.ahead + i128::from(read.monotonic);
        assert_eq!(Clock::default().monotonic(stamp, read), read.monotonic);
    }
}
