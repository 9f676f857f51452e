//! From an exact result to a value of a format: rounding, overflow, underflow.

use super::env::{Env, Rounding, exception};
use super::unpacked::{Class, DEFAULT_NAN, Format, Unpacked};

/// A result before rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    /// The class, sign, exponent and the first 64 bits of the significand.
    pub(super) value: Unpacked,
    /// Of a finite result: the bits that follow, the last one standing for all further ones.
    pub(super) rest: u64,
}

impl Exact {
    #[inline(always)]
    pub(super) const fn finite(sign: bool, exponent: i32, significand: u64, rest: u64) -> Self {
        Exact { value: Unpacked::finite(sign, exponent, significand), rest }
    }

    pub(super) const fn zero(sign: bool) -> Self {
        Exact { value: Unpacked::special(Class::Zero, sign, 0), rest: 0 }
    }

    pub(super) const fn infinity(sign: bool) -> Self {
        Exact { value: Unpacked::special(Class::Infinity, sign, 0), rest: 0 }
    }

    /// What an invalid operation gives.
    pub(super) const fn invalid() -> Self {
        Exact { value: Unpacked::special(Class::QuietNan, true, DEFAULT_NAN), rest: 0 }
    }
}

/// What becomes of a result when an unmasked overflow or underflow comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trapped {
    /// The exponent is wrapped around (x87 arithmetic).
    Wrapped,
    /// There is no result (SSE).
    Dropped,
    /// There is no result, and whether it would have been exact is not told either (x87 stores).
    NotStored,
}

/// By how much an exponent is wrapped around.
const WRAP: i32 = 0x6000;

/// Whether a magnitude is rounded up whose bits from half of the last place on are `fraction`.
#[inline(always)]
pub(super) fn rounds_up(rounding: Rounding, sign: bool, odd: bool, fraction: u64) -> bool {
    const HALF: u64 = 1 << 63;
    if rounding == Rounding::Nearest {
        return fraction > HALF - u64::from(odd);
    }
    match rounding {
        Rounding::Nearest | Rounding::Zero => false,
        Rounding::Down => sign & (fraction != 0),
        Rounding::Up => !sign & (fraction != 0),
    }
}

struct Rounded {
    significand: u64,
    /// The significand was all ones, and has become one with the next exponent.
    carry: bool,
    up: bool,
    inexact: bool,
}

#[inline(always)]
fn round_significand(rounding: Rounding, bits: u32, sign: bool, significand: u64, rest: u64) -> Rounded {
    let drop = 64 - bits;
    let fraction = if drop == 0 { rest } else { significand << bits | u64::from(rest != 0) };
    let kept = significand >> drop;
    let up = rounds_up(rounding, sign, kept & 1 != 0, fraction);
    let (significand, carry) = (kept << drop).overflowing_add(u64::from(up) << drop);
    Rounded { significand, carry, up, inexact: fraction != 0 }
}

/// Rounds a result to `bits` significant bits and makes it a value of format `F`.
#[inline(always)]
pub(super) fn round<F: Format>(env: &mut Env, bits: u32, trapped: Trapped, exact: Exact) -> F {
    let value = exact.value;
    if value.class != Class::Finite {
        env.rounded_up = false;
        return special(value);
    }
    let rounded = round_significand(env.rounding, bits, value.sign, value.significand, exact.rest);
    let exponent = value.exponent + i32::from(rounded.carry);
    if exponent.wrapping_sub(F::MIN) as u32 > (F::MAX - F::MIN) as u32 {
        return out_of_range(env, bits, trapped, exact, rounded);
    }
    env.rounded_up = rounded.up;
    if rounded.inexact {
        env.raise(exception::PE);
    }
    F::normal(value.sign, exponent, rounded.significand | u64::from(rounded.carry) << 63)
}

#[cold]
fn special<F: Format>(value: Unpacked) -> F {
    match value.class {
        Class::Zero => F::tiny(value.sign, 0),
        Class::Infinity => F::infinity(value.sign),
        _ => F::nan(value.sign, value.significand),
    }
}

#[cold]
#[inline(never)]
fn out_of_range<F: Format>(env: &mut Env, bits: u32, trapped: Trapped, exact: Exact, rounded: Rounded) -> F {
    let Exact { value, rest } = exact;
    let exponent = value.exponent + i32::from(rounded.carry);
    let overflow = exponent > F::MAX;
    let exception = if overflow { exception::OE } else { exception::UE };
    if env.unmasked & exception != 0 {
        env.raise(exception);
        if rounded.inexact && trapped != Trapped::NotStored {
            env.raise(exception::PE);
        }
        if trapped != Trapped::Wrapped {
            return F::default();
        }
        let wrapped = if overflow { exponent - WRAP } else { exponent + WRAP };
        if (F::MIN..=F::MAX).contains(&wrapped) {
            env.rounded_up = rounded.up;
            let significand = rounded.significand | u64::from(rounded.carry) << 63;
            return F::normal(value.sign, wrapped, significand);
        }
        // Out of range even so: FSCALE can do that.
        env.raise(exception::PE);
        env.rounded_up = overflow;
        return if overflow { F::infinity(value.sign) } else { F::tiny(value.sign, 0) };
    }
    if overflow {
        env.raise(exception::OE | exception::PE);
        let to_infinity = rounds_up(env.rounding, value.sign, true, u64::MAX);
        env.rounded_up = to_infinity;
        return if to_infinity {
            F::infinity(value.sign)
        } else {
            F::normal(value.sign, F::MAX, u64::MAX << (64 - bits))
        };
    }
    if env.ftz {
        env.raise(exception::UE | exception::PE);
        return F::tiny(value.sign, 0);
    }
    let (significand, rest) = shift_right(value.significand, rest, (F::MIN - value.exponent) as u32);
    let rounded = round_significand(env.rounding, bits, value.sign, significand, rest);
    env.rounded_up = rounded.up;
    if rounded.inexact {
        env.raise(exception::UE | exception::PE);
    }
    F::tiny(value.sign, rounded.significand)
}

/// Shifts 128 bits right; what falls off stays visible in the last bit.
#[inline(always)]
fn shift_right(high: u64, low: u64, by: u32) -> (u64, u64) {
    match by {
        0 => (high, low),
        1..64 => (high >> by, high << (64 - by) | low >> by | u64::from(low << (64 - by) != 0)),
        64 => (0, high | u64::from(low != 0)),
        65..128 => (0, high >> (by - 64) | u64::from(high << (128 - by) | low != 0)),
        _ => (0, u64::from(high | low != 0)),
    }
}

/// Rounds to an integer: sign, magnitude, whether that is inexact and whether it was rounded up. `None` when the
/// magnitude has more than 64 bits.
#[inline(always)]
pub(super) fn round_to_magnitude(rounding: Rounding, value: Unpacked) -> Option<(u64, bool, bool)> {
    let (whole, fraction) = match value.exponent {
        64.. => return None,
        63 => (value.significand, 0),
        exponent @ 0..63 => (value.significand >> (63 - exponent), value.significand << (exponent + 1)),
        -1 => (0, value.significand),
        _ => (0, 1),
    };
    let up = rounds_up(rounding, value.sign, whole & 1 != 0, fraction);
    Some((whole + u64::from(up), fraction != 0, up))
}
