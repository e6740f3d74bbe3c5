//! Time stamps of capture files: a count of some unit since the epoch, turned into nanoseconds.

use distwatch_engine::time::Timestamp;

const NANOS: u64 = 1_000_000_000;

/// The unit and the zero of an interface's time stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    unit: Unit,
    /// Nanoseconds to be added to each.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many nanoseconds.
    Nanos(u64),
    /// The so-many-th part of a nanosecond.
    PartOfNano(u64),
    /// A second halved so many times.
    Halvings(u8),
}

impl Default for Clock {
    /// Microseconds since the epoch, which is what pcapng means where it says nothing.
    fn default() -> Self {
        Self { unit: Unit::Nanos(1000), offset: 0 }
    }
}

impl Clock {
    /// Sets the unit from the octet of `if_tsresol` (pcapng, section 4.2): a negative power of 10, or of 2 where the
    /// highest bit is set.
    pub(super) fn set_resolution(&mut self, octet: u8) {
        let exponent = octet & 0x7f;
        self.unit = match (octet >> 7, exponent) {
            (0, ..=9) => Unit::Nanos(10u64.pow(9 - u32::from(exponent))),
            // Finer units than 10^-28 do not reach a nanosecond in 64 bits.
            (0, _) => Unit::PartOfNano(10u64.checked_pow(u32::from(exponent) - 9).unwrap_or(u64::MAX)),
            _ => Unit::Halvings(exponent),
        };
    }

    /// Sets the zero from `if_tsoffset`, in seconds.
    pub(super) fn set_offset(&mut self, seconds: i64) {
        self.offset = seconds.saturating_mul(NANOS as i64);
    }

    /// The point in time; saturates at the ends of what a [`Timestamp`] can hold.
    #[inline]
    pub(super) fn time(self, units: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Nanos(nanos) => units.saturating_mul(nanos),
            Unit::PartOfNano(parts) => units / parts,
            Unit::Halvings(exponent) => {
                u64::try_from((u128::from(units) * u128::from(NANOS)) >> exponent).unwrap_or(u64::MAX)
            }
        };
        Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX).saturating_add(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(resolution: u8, offset: i64, units: u64) -> i64 {
        let mut clock = Clock::default();
        clock.set_resolution(resolution);
        clock.set_offset(offset);
        clock.time(units).as_nanos()
    }

    #[test]
    fn powers_of_ten_and_of_two_become_nanoseconds() {
        assert_eq!(Clock::default().time(1_500_000).as_nanos(), 1_500_000_000);
        assert_eq!(nanos(0, 0, 3), 3_000_000_000);
        assert_eq!(nanos(6, 0, 3), 3000);
        assert_eq!(nanos(9, 0, 3), 3);
        assert_eq!(nanos(12, 0, 3999), 3);
        assert_eq!(nanos(0x80 | 10, 0, 1536), 1_500_000_000);
        assert_eq!(nanos(0x80 | 32, 0, 1 << 31), 500_000_000);
        assert_eq!(nanos(9, -2, 5), 5 - 2_000_000_000);
    }

    #[test]
    fn no_resolution_and_no_count_overflow() {
        for resolution in 0..=255 {
            for offset in [i64::MIN, -1, 0, i64::MAX] {
                nanos(resolution, offset, u64::MAX);
                nanos(resolution, offset, 0);
            }
        }
    }
}
