//! IEEE 754 arithmetic in integers: single, double and the x87's 80-bit extended format, with the
//! rounding modes, exception flags and special results of the x87 and SSE units (SDM vol. 1, chapters 4, 8 and 11).
//!
//! Bit-exact on every host, so the interpreter that uses it is a reference. It knows nothing of
//! processors or instructions. [`sse`] has the operations on single and double, [`x87`] those on extended
//! values: they share the arithmetic and differ in what comes of NaNs and of unmasked exceptions.

mod arithmetic;
mod env;
mod round;
pub mod sse;
#[cfg(test)]
pub(crate) mod tests;
mod unpacked;
pub mod x87;

pub use unpacked::Format;

pub use env::{Env, Precision, Rounding, exception};

use serde::{Deserialize, Serialize};

/// The bits of a single-precision value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F32(pub u32);

/// The bits of a double-precision value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F64(pub u64);

/// An 80-bit extended value: explicit integer bit, 15-bit exponent with bias 16383.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct F80 {
    /// Integer bit (63) and fraction.
    pub significand: u64,
    /// Sign (bit 15) and biased exponent.
    pub sign_exponent: u16,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is less.
    Less,
    /// They are equal (zeros of both signs are).
    Equal,
    /// The first is greater.
    Greater,
    /// One of them is a NaN.
    Unordered,
}

impl From<std::cmp::Ordering> for Relation {
    #[inline(always)]
    fn from(ordering: std::cmp::Ordering) -> Self {
        match ordering {
            std::cmp::Ordering::Less => Relation::Less,
            std::cmp::Ordering::Equal => Relation::Equal,
            std::cmp::Ordering::Greater => Relation::Greater,
        }
    }
}
