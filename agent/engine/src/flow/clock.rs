//! The clock that connections age by: that of the packets, without its jumps.

use std::time::Duration;

use crate::time::Timestamp;

/// A clock made of packet times, that never goes back and never leaps.
///
/// A packet's time cannot be trusted alone. A host's clock is set, a capture file has one wild stamp, two interfaces
/// disagree, two captures of different days are read as one. None of that may end every connection at once, so:
///
/// * Steps up to [`MAX_STEP`](Self::MAX_STEP) forward count in full. Steps back by as much are reordering and count
///   as nothing.
/// * A larger step either way is believed only when the next packet confirms it, and even then it counts as one
///   `MAX_STEP` (forward) or as nothing (back). A single wild stamp, or two clocks that alternate, thus change nothing.
///
/// A pause in the capture of a day therefore ages connections by a minute; those that are really over are found
/// silent later, or their ports are used again. Taking a link for dead that is alive would be worse.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketClock {
    now: Timestamp,
    anchor: Option<Timestamp>,
    suspect: Option<Timestamp>,
}

/// [`PacketClock::MAX_STEP`].
const MAX_STEP_NANOS: i64 = PacketClock::MAX_STEP.as_nanos() as i64;

impl PacketClock {
    /// More than the 15 s between two ticks of an idle link, and less than half of any idle time-out by default, so
    /// that one confirmed leap alone ends nothing that is alive.
    pub(super) const MAX_STEP: Duration = Duration::from_secs(60);

    /// Takes note of a packet's time.
    #[inline]
    pub(super) fn advance(&mut self, stamp: Timestamp) -> Timestamp {
        let Some(anchor) = self.anchor else {
            (self.now, self.anchor) = (stamp, Some(stamp));
            return self.now;
        };
        // In whole nanoseconds, and first what nearly every packet is: this runs for each.
        if let Some(step) = stamp.as_nanos().checked_sub(anchor.as_nanos())
            && (0..=MAX_STEP_NANOS).contains(&step)
        {
            self.suspect = None;
            self.now = Timestamp::from_nanos(self.now.as_nanos().saturating_add(step));
            self.anchor = Some(stamp);
            return self.now;
        }
        let step = stamp.as_nanos().saturating_sub(anchor.as_nanos());
        if step.unsigned_abs() <= Self::MAX_STEP.as_nanos() as u64 {
            // Back by as little as that: reordering.
            self.suspect = None;
            return self.now;
        }
        self.leap(anchor, stamp);
        self.now
    }

    /// The clock's own time. It equals the packets' until they leap.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The latest time of a packet that is believed.
    pub(super) fn packet_time(&self) -> Timestamp {
        self.anchor.unwrap_or_default()
    }

    /// When, in the time of packets, this clock will show `due`. Never further away than one step, so that whoever
    /// calls at that time feeds the clock in steps that it believes.
    pub(super) fn packet_time_of(&self, due: Timestamp) -> Timestamp {
        self.packet_time().plus(due.since(self.now).min(Self::MAX_STEP))
    }

    /// When this clock will show what the packets call `deadline`.
    pub(super) fn due(&self, deadline: Timestamp) -> Timestamp {
        self.now.plus(deadline.since(self.packet_time()))
    }

    fn leap(&mut self, anchor: Timestamp, stamp: Timestamp) {
        let confirmed = self.suspect.is_some_and(|suspect| {
            let near = stamp.since(suspect) <= Self::MAX_STEP && suspect.since(stamp) <= Self::MAX_STEP;
            // Three rising stamps: the traffic is that sparse.
            near || (anchor < suspect && suspect <= stamp)
        });
        if !confirmed {
            self.suspect = Some(stamp);
            return;
        }
        if stamp > anchor {
            self.now = self.now.plus(Self::MAX_STEP);
        }
        (self.anchor, self.suspect) = (Some(stamp), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_parts(seconds, 0)
    }

    fn shows(stamps: &[i64]) -> i64 {
        let mut clock = PacketClock::default();
        for &stamp in stamps {
            clock.advance(at(stamp));
        }
        clock.now().as_nanos() / 1_000_000_000
    }

    #[test]
    fn usual_steps_and_reordering_follow_the_packets() {
        assert_eq!(shows(&[1000, 1015, 1014, 1030, 1090]), 1090);
    }

    #[test]
    fn a_single_wild_stamp_changes_nothing() {
        assert_eq!(shows(&[1000, 1000 + DAY, 1001]), 1001);
        assert_eq!(shows(&[1000, 1000 - DAY, 1001]), 1001);
    }

    #[test]
    fn a_clock_that_is_set_counts_as_one_step_forward_or_as_none_back() {
        assert_eq!(shows(&[1000, 1000 + DAY, 1001 + DAY, 1002 + DAY]), 1061);
        assert_eq!(shows(&[1000 + DAY, 1000, 1001, 1002]), 1001 + DAY);
    }

    #[test]
    fn two_clocks_that_alternate_do_not_race() {
        let stamps: Vec<i64> = (0..1000).map(|n| n / 2 + n % 2 * DAY).collect();
        assert!(shows(&stamps) < 600);
    }

    #[test]
    fn packets_that_are_hours_apart_still_move_the_clock() {
        let stamps: Vec<i64> = (0..100).map(|n| n * 3600).collect();
        assert!(shows(&stamps) >= 40 * 60);
    }
}
