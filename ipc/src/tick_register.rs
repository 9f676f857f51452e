//! Registers that do nothing but count ticks of virtual time: the bus reads them without asking the device.
//!
//! This module knows what such a register holds at a time and how that travels with a region, and no device's registers.

use crate::time::VirtualTime;
use crate::width::Width;

/// Bytes of such a register.
const BYTES: u64 = 4;
/// Bits of its wire form: the offset at 0, the width at 16, ticks per second at 32.
const WIDTH_SHIFT: u32 = 16;
const HZ_SHIFT: u32 = 32;

/// A register of 32 bits, the low ones of which count up and begin with zero again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TickRegister {
    /// Where it is in its region, of which it takes four bytes.
    pub offset: u16,
    /// Ticks per second; not 0.
    pub hz: u32,
    /// Bits that count, 1 to 32; the others are zero.
    pub bits: u8,
    /// The tick since power-on ([`VirtualTime::ticks`]) at which it is zero; it is before, too.
    pub zero: u64,
}

impl TickRegister {
    /// What the register holds at `now`.
    pub fn value(&self, now: VirtualTime) -> u32 {
        let mask = u32::MAX.checked_shr(u32::BITS.saturating_sub(self.bits.into())).unwrap_or(0);
        now.ticks(self.hz.into()).saturating_sub(self.zero) as u32 & mask
    }

    /// What a read at an offset in the region gives. `None`: not all of it is the register's.
    #[inline]
    pub fn read(&self, offset: u64, width: Width, now: impl FnOnce() -> VirtualTime) -> Option<u32> {
        let at =
            offset.checked_sub(self.offset.into()).filter(|at| at + u64::from(width.bytes()) <= BYTES)?;
        Some(self.value(now()) >> (8 * at) & width.mask())
    }

    /// Two words.
    pub(crate) fn encode(&self) -> [u64; 2] {
        let Self { offset, hz, bits, zero } = *self;
        [u64::from(offset) | u64::from(bits) << WIDTH_SHIFT | u64::from(hz) << HZ_SHIFT, zero]
    }

    /// From two words of a region of `len` bytes. `None`: there is no such register.
    pub(crate) fn decode(words: [u64; 2], len: u64) -> Option<Self> {
        let offset = words[0] as u16;
        let (bits, hz) = ((words[0] >> WIDTH_SHIFT) as u8, (words[0] >> HZ_SHIFT) as u32);
        let makes_sense = (1..=32).contains(&bits) && hz != 0 && u64::from(offset) + BYTES <= len;
        makes_sense.then_some(Self { offset, hz, bits, zero: words[1] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::NANOS_PER_SEC;

    const REGISTER: TickRegister = TickRegister { offset: 8, hz: 3_579_545, bits: 24, zero: 1000 };

    #[test]
    fn it_is_zero_at_its_tick_and_again_when_all_bits_were_set() {
        let at = |tick: u64| REGISTER.value(VirtualTime::of_ticks(tick, REGISTER.hz.into()));
        assert_eq!([0, 1000, 1001, 1000 + 0xff_ffff, 1000 + 0x100_0000].map(at), [0, 0, 1, 0xff_ffff, 0]);
        let wide = TickRegister { bits: 32, zero: 0, hz: 1, ..REGISTER };
        assert_eq!(wide.value(VirtualTime(0xffff_ffff * NANOS_PER_SEC)), u32::MAX);
    }

    #[test]
    fn parts_of_it_are_read_and_nothing_beside_it() {
        let now = || VirtualTime::of_ticks(1000 + 0x12_3456, REGISTER.hz.into());
        let read = |offset, width| REGISTER.read(offset, width, now);
        assert_eq!(read(8, Width::Dword), Some(0x12_3456));
        assert_eq!((read(9, Width::Word), read(10, Width::Byte)), (Some(0x1234), Some(0x12)));
        assert_eq!(read(11, Width::Byte), Some(0));
        let never = || unreachable!("nobody needs the time");
        for (offset, width) in [(7, Width::Byte), (7, Width::Word), (11, Width::Word), (12, Width::Byte)] {
            assert_eq!(REGISTER.read(offset, width, never), None, "{offset} {width:?}");
        }
    }

    #[test]
    fn it_comes_back_as_it_went_and_nonsense_does_not_come() {
        let words = REGISTER.encode();
        assert_eq!(TickRegister::decode(words, 12), Some(REGISTER));
        assert_eq!(TickRegister::decode(words, 11), None, "it does not fit");
        for nonsense in [
            TickRegister { bits: 0, ..REGISTER },
            TickRegister { bits: 33, ..REGISTER },
            TickRegister { hz: 0, ..REGISTER },
        ] {
            assert_eq!(TickRegister::decode(nonsense.encode(), 64), None, "{nonsense:?}");
            // All the same, it does no harm.
            nonsense.value(VirtualTime::NEVER);
        }
    }
}
