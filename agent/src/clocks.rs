//! The system's clocks, in nanoseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`: what has passed since the boot, without what the host slept.
pub(crate) fn monotonic() -> u64 {
    since_boot(ClockId::Monotonic)
}

/// `CLOCK_BOOTTIME`: what has passed since the boot.
pub(crate) fn boottime() -> u64 {
    since_boot(ClockId::Boottime)
}

/// The wall clock, from 1970 on. By the standard library, which asks libc for it: tests set that clock by libfaketime.
pub(crate) fn wall() -> i64 {
    let since = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(|before| -since(before.duration()), since)
}

fn since_boot(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec).cast_unsigned()
}
