//! Cells of the mirror page: what a byte register reads, and how long that is true.
//!
//! A model that knows when a register will read something else says so, and the bus answers until then without asking. One word,
//! so that a reader never sees the value of one moment with the end of another.

use crate::time::VirtualTime;

/// Where the end of validity is.
const UNTIL_SHIFT: u32 = 8;
/// The end of what holds until the device process says otherwise.
const ALWAYS: u64 = u64::MAX >> UNTIL_SHIFT;

/// The content of a mirror cell: bits 0-7 the byte, bits 8-63 the virtual time from which on it is not true any more. The latest
/// time means that it holds until it is replaced; zero, that the device is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored(u64);

impl Mirrored {
    /// The device is to be asked.
    pub const ASK: Self = Self(0);

    /// A byte that holds until it is replaced.
    pub const fn always(byte: u8) -> Self {
        Self(ALWAYS << UNTIL_SHIFT | byte as u64)
    }

    /// A byte that holds until it is replaced, but not from `end` on.
    pub fn until(byte: u8, end: VirtualTime) -> Self {
        if end == VirtualTime::NEVER {
            return Self::always(byte);
        }
        Self(end.0.min(ALWAYS - 1) << UNTIL_SHIFT | u64::from(byte))
    }

    /// The cell with this content.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The content as it stands in the cell.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The byte, true or not.
    pub const fn byte(self) -> u8 {
        self.0 as u8
    }

    /// The byte, while it is true. The clock is only looked at when that matters.
    #[inline]
    pub fn get(self, now: impl FnOnce() -> VirtualTime) -> Option<u8> {
        let end = self.0 >> UNTIL_SHIFT;
        (end == ALWAYS || end != 0 && now().0 < end).then_some(self.byte())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_holds_until_its_end_and_the_clock_is_read_only_for_that() {
        let never = || unreachable!("nobody needs the time");
        assert_eq!(Mirrored::ASK.get(never), None);
        assert_eq!(Mirrored::always(0xa5).get(never), Some(0xa5));
        let timed = Mirrored::until(7, VirtualTime(1000));
        assert_eq!(timed.get(|| VirtualTime(999)), Some(7));
        assert_eq!(timed.get(|| VirtualTime(1000)), None);
        assert_eq!(Mirrored::until(7, VirtualTime::NEVER).get(never), Some(7));
        assert_eq!(Mirrored::from_word(timed.word()), timed);
    }
}
