//! The formats, and the one form in which all of them are computed with.

use super::{F32, F64, F80};

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    /// Finite and not zero, denormals included.
    Finite,
    Infinity,
    QuietNan,
    SignallingNan,
    /// An extended value that the x87 has not known since the 387: exponent and integer bit contradict each other.
    Unsupported,
}

/// A value of any format, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Unpacked {
    pub(super) class: Class,
    pub(super) sign: bool,
    /// It was a denormal (or pseudo-denormal).
    pub(super) denormal: bool,
    /// Of a finite value: that of the significand's first bit.
    pub(super) exponent: i32,
    /// Of a finite value: the first bit is bit 63. Of a NaN: as in extended precision.
    pub(super) significand: u64,
}

/// The integer bit of an extended significand.
pub(super) const INTEGER_BIT: u64 = 1 << 63;
/// The bit that a quiet NaN has and a signalling one has not, in an extended significand.
pub(super) const QUIET_BIT: u64 = 1 << 62;
/// Significand of the NaN that invalid operations give.
pub(super) const DEFAULT_NAN: u64 = INTEGER_BIT | QUIET_BIT;

impl Unpacked {
    pub(super) const fn special(class: Class, sign: bool, significand: u64) -> Self {
        Self { class, sign, denormal: false, exponent: 0, significand }
    }

    #[inline(always)]
    pub(super) const fn finite(sign: bool, exponent: i32, significand: u64) -> Self {
        Self { class: Class::Finite, sign, denormal: false, exponent, significand }
    }

    /// A denormal with its significand as extended precision has it, aligned to `exponent`.
    #[cold]
    const fn denormal(sign: bool, exponent: i32, significand: u64) -> Self {
        let zeros = significand.leading_zeros();
        Self {
            class: Class::Finite,
            sign,
            denormal: true,
            exponent: exponent - zeros as i32,
            significand: significand << zeros,
        }
    }

    #[cold]
    const fn infinity_or_nan(sign: bool, significand: u64) -> Self {
        let class = if significand == INTEGER_BIT {
            Class::Infinity
        } else if significand & QUIET_BIT != 0 {
            Class::QuietNan
        } else {
            Class::SignallingNan
        };
        Self::special(class, sign, significand)
    }

    #[inline(always)]
    pub(super) const fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignallingNan)
    }

    /// DAZ: the same, or zero for a denormal.
    #[inline(always)]
    pub(super) const fn flushed(self, daz: bool) -> Self {
        if daz && self.denormal { Self::special(Class::Zero, self.sign, 0) } else { self }
    }

    /// An integer.
    #[inline(always)]
    pub(super) const fn integer(sign: bool, magnitude: u64) -> Self {
        if magnitude == 0 {
            return Self::special(Class::Zero, sign, 0);
        }
        let zeros = magnitude.leading_zeros();
        Self::finite(sign, 63 - zeros as i32, magnitude << zeros)
    }
}

/// A floating-point format.
pub trait Format: Copy + Default {
    /// Significant bits.
    const BITS: u32;
    /// Exponent of the smallest normal value.
    const MIN: i32;
    /// Exponent of the largest value.
    const MAX: i32;

    /// Whether it is neither zero, denormal, infinity nor NaN.
    fn is_normal(self) -> bool;
    /// Takes a normal value apart.
    fn unpack_normal(self) -> Unpacked;
    /// Takes a value apart that is not normal.
    fn unpack_special(self) -> Unpacked;

    /// Takes a value apart.
    #[inline(always)]
    fn unpack(self) -> Unpacked {
        if self.is_normal() { self.unpack_normal() } else { self.unpack_special() }
    }

    /// A normal value: `significand` has its first bit at bit 63 and zeros below the format's last bit.
    fn normal(sign: bool, exponent: i32, significand: u64) -> Self;
    /// A value below the smallest normal one, zero, or that one itself: `significand` is aligned to exponent `MIN`.
    fn tiny(sign: bool, significand: u64) -> Self;
    /// Infinity.
    fn infinity(sign: bool) -> Self;
    /// The NaN with the significand that extended precision would have, quietened.
    fn nan(sign: bool, significand: u64) -> Self;
}

macro_rules! interchange_format {
    ($name:ident, $bits:ty, $signed:ty, $significant:literal) => {
        impl $name {
            /// Bits of the fraction.
            const FRACTION_BITS: u32 = $significant - 1;
            /// How far the significand is from where extended precision has it.
            const SHIFT: u32 = 64 - $significant;
            const FRACTION: $bits = (1 << Self::FRACTION_BITS) - 1;
            const EXPONENT: $bits = <$bits>::MAX >> 1 & !Self::FRACTION;
            const BIAS: i32 = <Self as Format>::MAX;
            /// Bits of infinity.
            pub(super) const INFINITY: $bits = Self::EXPONENT;
            /// Bits of the smallest normal value.
            pub(super) const SMALLEST_NORMAL: $bits = 1 << Self::FRACTION_BITS;

            /// The bits without the sign.
            #[inline(always)]
            pub(super) const fn magnitude(self) -> $bits {
                self.0 & <$bits>::MAX >> 1
            }

            #[inline(always)]
            const fn is_negative(self) -> bool {
                (self.0 as $signed) < 0
            }

            /// The fraction where extended precision has it.
            #[inline(always)]
            const fn extended_fraction(self) -> u64 {
                ((self.0 & Self::FRACTION) as u64) << Self::SHIFT
            }

            #[inline(always)]
            const fn with_sign(sign: bool, magnitude: $bits) -> Self {
                Self((sign as $bits) << (<$bits>::BITS - 1) | magnitude)
            }
        }

        impl Format for $name {
            const BITS: u32 = $significant;
            const MAX: i32 = (1 << (<$bits>::BITS - $significant - 1)) - 1;
            const MIN: i32 = 1 - Self::MAX;

            #[inline(always)]
            fn is_normal(self) -> bool {
                self.magnitude().wrapping_sub(Self::SMALLEST_NORMAL) < Self::INFINITY - Self::SMALLEST_NORMAL
            }

            #[inline(always)]
            fn unpack_normal(self) -> Unpacked {
                let biased = (self.magnitude() >> Self::FRACTION_BITS) as i32;
                Unpacked::finite(
                    self.is_negative(),
                    biased - Self::BIAS,
                    INTEGER_BIT | self.extended_fraction(),
                )
            }

            #[cold]
            fn unpack_special(self) -> Unpacked {
                let (sign, fraction) = (self.is_negative(), self.extended_fraction());
                if self.magnitude() == 0 {
                    Unpacked::special(Class::Zero, sign, 0)
                } else if self.magnitude() < Self::SMALLEST_NORMAL {
                    Unpacked::denormal(sign, Self::MIN, fraction)
                } else {
                    Unpacked::infinity_or_nan(sign, INTEGER_BIT | fraction)
                }
            }

            #[inline(always)]
            fn normal(sign: bool, exponent: i32, significand: u64) -> Self {
                // The integer bit adds one to the exponent.
                let biased = (exponent + Self::BIAS - 1) as $bits;
                let magnitude =
                    (biased << Self::FRACTION_BITS).wrapping_add((significand >> Self::SHIFT) as $bits);
                Self::with_sign(sign, magnitude)
            }

            #[inline(always)]
            fn tiny(sign: bool, significand: u64) -> Self {
                Self::with_sign(sign, (significand >> Self::SHIFT) as $bits)
            }

            fn infinity(sign: bool) -> Self {
                Self::with_sign(sign, Self::INFINITY)
            }

            fn nan(sign: bool, significand: u64) -> Self {
                let fraction = ((significand | QUIET_BIT) >> Self::SHIFT) as $bits & Self::FRACTION;
                Self::with_sign(sign, Self::EXPONENT | fraction)
            }
        }
    };
}

interchange_format!(F32, u32, i32, 24);
interchange_format!(F64, u64, i64, 53);

impl F80 {
    /// The sign, in `sign_exponent`.
    pub(super) const SIGN: u16 = 1 << 15;
    /// The exponent, in `sign_exponent`.
    pub(super) const EXPONENT: u16 = Self::SIGN - 1;
    const BIAS: i32 = 16383;

    #[inline(always)]
    pub(super) const fn with_sign(sign: bool, biased: u16, significand: u64) -> Self {
        F80 { significand, sign_exponent: biased | (sign as u16) << 15 }
    }
}

impl Format for F80 {
    const BITS: u32 = 64;
    const MAX: i32 = Self::BIAS;
    const MIN: i32 = 1 - Self::MAX;

    #[inline(always)]
    fn is_normal(self) -> bool {
        let biased = self.sign_exponent & Self::EXPONENT;
        (biased.wrapping_sub(1) < Self::EXPONENT - 1) & (self.significand & INTEGER_BIT != 0)
    }

    #[inline(always)]
    fn unpack_normal(self) -> Unpacked {
        let biased = self.sign_exponent & Self::EXPONENT;
        let sign = self.sign_exponent & Self::SIGN != 0;
        Unpacked::finite(sign, i32::from(biased) - Self::BIAS, self.significand)
    }

    #[cold]
    fn unpack_special(self) -> Unpacked {
        let sign = self.sign_exponent & Self::SIGN != 0;
        match (self.sign_exponent & Self::EXPONENT, self.significand) {
            (0, 0) => Unpacked::special(Class::Zero, sign, 0),
            (0, significand) => Unpacked::denormal(sign, <Self as Format>::MIN, significand),
            (Self::EXPONENT, significand) if significand & INTEGER_BIT != 0 => {
                Unpacked::infinity_or_nan(sign, significand)
            }
            _ => Unpacked::special(Class::Unsupported, sign, 0),
        }
    }

    #[inline(always)]
    fn normal(sign: bool, exponent: i32, significand: u64) -> Self {
        Self::with_sign(sign, (exponent + Self::BIAS) as u16 & Self::EXPONENT, significand)
    }

    #[inline(always)]
    fn tiny(sign: bool, significand: u64) -> Self {
        Self::with_sign(sign, (significand >> 63) as u16, significand)
    }

    fn infinity(sign: bool) -> Self {
        Self::with_sign(sign, Self::EXPONENT, INTEGER_BIT)
    }

    fn nan(sign: bool, significand: u64) -> Self {
        Self::with_sign(sign, Self::EXPONENT, significand | DEFAULT_NAN)
    }
}
