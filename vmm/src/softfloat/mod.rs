//! IEEE 754 arithmetic in integers: single, double and the x87's 80-bit extended format, with the
//! rounding modes, exception flags and special results of the x87 and SSE units (SDM vol. 1, chapters 4, 8 and 11).
//!
//! Bit-exact on every host, so the interpreter that uses it is a reference. It knows nothing of
//! processors or instructions.

use serde::{Deserialize, Serialize};

/// An 80-bit extended value: explicit integer bit, 15-bit exponent with bias 16383.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct F80 {
    /// Integer bit (63) and fraction.
    pub significand: u64,
    /// Sign (bit 15) and biased exponent.
    pub sign_exponent: u16,
}
