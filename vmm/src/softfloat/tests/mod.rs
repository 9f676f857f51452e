//! Tests of the arithmetic against the processor that the tests run on, bit for bit, and of what needs no processor.

#[cfg(target_arch = "x86_64")]
mod host_sse;
#[cfg(target_arch = "x86_64")]
mod host_x87;

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn arithmetic_agrees_with_the_host() {
    eprintln!("SKIPPED: this host is no x86-64, so there is no x87 or SSE unit to compare with");
}

mod bench;

use super::exception::{DE, OE, PE, UE};
use super::{Env, F32, F80, Rounding, sse};

/// All rounding modes, in the order of their encoding.
const ROUNDINGS: [Rounding; 4] = [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero];

/// xorshift: the same sequence every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A pattern of `bits` bits as significands that make trouble have: few ones, long runs, near a boundary.
    fn pattern(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let one = 1u64 << self.below(u64::from(bits));
        let value = match self.below(8) {
            0 => 0,
            1 => mask,
            2 => one,
            3 => !one,
            4 => one | 1 << self.below(u64::from(bits)),
            5 => one.wrapping_neg(),
            6 => (1 << (bits - 1)) | self.below(4),
            _ => self.next(),
        };
        value & mask
    }

    /// An exponent field of `bits` bits: often near the ends, near the middle, or near `other`.
    fn exponent(&mut self, bits: u32, other: u64) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let near = |center: u64, random: &mut Self| {
            (center as i64 + random.below(140) as i64 - 70).clamp(0, mask as i64) as u64
        };
        match self.below(8) {
            0 => self.below(3),
            1 => mask - self.below(3),
            2 => near(mask >> 1, self),
            3 => near(mask, self),
            4 => near(0, self),
            5 => self.next() & mask,
            _ => near(other, self),
        }
    }

    /// An extended value, often near the exponent of another one.
    pub(crate) fn extended(&mut self, other: F80) -> F80 {
        let near = u64::from(other.sign_exponent & 0x7fff);
        let sign_exponent = (self.exponent(15, near) | self.below(2) << 15) as u16;
        // Mostly with the integer bit that belongs to the exponent.
        let integer = match self.below(32) {
            0 => self.below(2),
            _ => u64::from(sign_exponent & 0x7fff != 0),
        };
        F80 { significand: integer << 63 | self.pattern(63), sign_exponent }
    }

    /// A value of a format with a sign, `exponent` bits and `fraction` bits.
    pub(crate) fn float(&mut self, exponent: u32, fraction: u32, other: u64) -> u64 {
        let near = other >> fraction & u64::MAX >> (64 - exponent);
        let sign = self.below(2) << (exponent + fraction);
        sign | self.exponent(exponent, near) << fraction | self.pattern(fraction)
    }
}

/// One operation with everything masked but `unmasked`: the flags.
fn flags_of_product(unmasked: u8, ftz: bool, a: u32, b: u32) -> u8 {
    let mut env = Env { unmasked, ftz, ..Env::default() };
    sse::mul(&mut env, F32(a), F32(b));
    env.flags
}

#[test]
fn unmasked_overflow_and_underflow_tell_whether_the_result_would_have_been_exact() {
    // As seen on silicon.
    assert_eq!(flags_of_product(OE, false, 0x7f00_0000, 0x7f00_0000), OE);
    assert_eq!(flags_of_product(OE, false, 0x7f00_0001, 0x7f00_0001), OE | PE);
    assert_eq!(flags_of_product(UE, false, 0x0080_0000, 0x3f00_0000), UE);
    assert_eq!(flags_of_product(UE, true, 0x0080_0001, 0x0080_0001), UE | PE);
    assert_eq!(flags_of_product(PE, true, 0x0080_0000, 0x3f00_0000), UE | PE);
}

#[test]
fn an_unmasked_denormal_operand_stops_the_operation() {
    assert_eq!(flags_of_product(DE, false, 1, 0x3f00_0000), DE);
    assert_eq!(flags_of_product(0, false, 1, 0x3f00_0000), DE | UE | PE);
}
