//! Virtual time as a value. The clock that produces it is shared memory and lives elsewhere.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};

/// Nanoseconds per second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A point in virtual time: nanoseconds since the virtual PC was first powered on.
///
/// It stands still while the VM is paused and never goes back. `u64` nanoseconds last 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VirtualTime(pub u64);

impl VirtualTime {
    /// A moment that no virtual PC reaches.
    pub const NEVER: Self = Self(u64::MAX);

    /// Whole ticks of a clock of `hz` that have passed since power-on.
    ///
    /// Exact for every `u64` time, modulo 2^64.
    #[inline]
    pub fn ticks(self, hz: u64) -> u64 {
        const FASTEST: u64 = u64::MAX / NANOS_PER_SEC;
        if hz > FASTEST {
            return (u128::from(self.0) * u128::from(hz) / u128::from(NANOS_PER_SEC)) as u64;
        }
        // Whole seconds are whole ticks: so there is no division of 128 bits, which is a call of a function.
        let (seconds, nanos) = (self.0 / NANOS_PER_SEC, self.0 % NANOS_PER_SEC);
        seconds.wrapping_mul(hz).wrapping_add(nanos * hz / NANOS_PER_SEC)
    }

    /// The first moment at which `ticks` ticks of a clock of `hz` have passed.
    ///
    /// `hz` must not be zero. The result saturates at [`VirtualTime::NEVER`].
    pub fn of_ticks(ticks: u64, hz: u64) -> Self {
        let nanos = (u128::from(ticks) * u128::from(NANOS_PER_SEC)).div_ceil(u128::from(hz));
        Self(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The time `nanos` nanoseconds later; saturates.
    pub fn after(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to `self`; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for VirtualTime {
    type Output = Self;
    fn add(self, nanos: u64) -> Self {
        self.after(nanos)
    }
}

impl Sub for VirtualTime {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_what_the_whole_product_gives() {
        let slow = [1, 7, 32_768, 1_193_182, 3_579_545, 450_000_000, 18_446_744_073];
        for hz in slow.into_iter().chain([18_446_744_074, u64::MAX]) {
            for nanos in [0, 1, 999_999_999, NANOS_PER_SEC, 123_456_789_012_345_678, u64::MAX] {
                let whole = u128::from(nanos) * u128::from(hz) / u128::from(NANOS_PER_SEC);
                assert_eq!(VirtualTime(nanos).ticks(hz), whole as u64, "{nanos} ns at {hz} Hz");
            }
        }
    }

    #[test]
    fn tick_conversion_is_exact_in_both_directions() {
        const PIT_HZ: u64 = 1_193_182;
        for ticks in [0, 1, 2, 1_193_182, 65_536, 987_654_321_012] {
            let t = VirtualTime::of_ticks(ticks, PIT_HZ);
            assert_eq!(t.ticks(PIT_HZ), ticks);
            assert!(ticks == 0 || VirtualTime(t.0 - 1).ticks(PIT_HZ) < ticks);
        }
    }
}
