//! Operations on extended precision as the x87 has them.
//!
//! Arithmetic takes operands of any format, as instructions with a memory operand do: a single or double operand is
//! converted exactly. Of two NaNs the one with the larger significand is the result, quietened, but a quiet one goes
//! before a signalling one. When an unmasked exception of `exception::BEFORE` has come up ([`Env::stopped`]), there is
//! no result, and what an operation returns means nothing. Unmasked overflow and underflow give a result whose
//! exponent is wrapped around.

use super::arithmetic::{self, Add, Div, Mul, Operation, Sub};
use super::env::{Env, Precision, Rounding, exception};
use super::round::{Exact, Trapped, round, round_to_magnitude};
use super::unpacked::{Class, Format, INTEGER_BIT, Unpacked};
use super::{F80, Relation};

impl Env {
    /// Whether an exception has come up that leaves an x87 instruction without result.
    #[inline(always)]
    pub const fn stopped(&self) -> bool {
        self.flags & self.unmasked & exception::BEFORE != 0
    }

    #[inline(always)]
    fn significant_bits(&self) -> u32 {
        match self.precision {
            Precision::Single => 24,
            Precision::Double => 53,
            Precision::Extended => 64,
        }
    }
}

impl F80 {
    /// The real indefinite: what masked invalid operations give.
    pub const INDEFINITE: F80 = F80 { significand: 3 << 62, sign_exponent: 0xffff };
    /// Zero.
    pub const ZERO: F80 = F80 { significand: 0, sign_exponent: 0 };
    /// One.
    pub const ONE: F80 = F80 { significand: 1 << 63, sign_exponent: 0x3fff };

    /// An integer.
    pub fn from_i64(value: i64) -> Self {
        integer(value < 0, value.unsigned_abs())
    }

    /// The same with the sign cleared.
    pub const fn abs(self) -> Self {
        F80 { sign_exponent: self.sign_exponent & Self::EXPONENT, ..self }
    }

    /// The same with the sign changed.
    pub const fn neg(self) -> Self {
        F80 { sign_exponent: self.sign_exponent ^ Self::SIGN, ..self }
    }

    /// Whether the sign is set.
    pub const fn is_negative(self) -> bool {
        self.sign_exponent & Self::SIGN != 0
    }

    /// What FXAM says of it.
    pub fn kind(self) -> ValueKind {
        let value = self.unpack();
        match value.class {
            Class::Zero => ValueKind::Zero,
            Class::Finite if value.denormal => ValueKind::Denormal,
            Class::Finite => ValueKind::Normal,
            Class::Infinity => ValueKind::Infinity,
            Class::QuietNan | Class::SignallingNan => ValueKind::Nan,
            Class::Unsupported => ValueKind::Unsupported,
        }
    }
}

/// Kinds of values, as FXAM tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A value in a format that is not supported.
    Unsupported,
    /// A NaN.
    Nan,
    /// A normal value.
    Normal,
    /// An infinity.
    Infinity,
    /// A zero.
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
}

/// What becomes of an operand that is no number. `None`: all are numbers.
#[cold]
fn not_numbers(env: &mut Env, a: Unpacked, b: Unpacked) -> Option<F80> {
    if a.class == Class::Unsupported || b.class == Class::Unsupported {
        env.raise(exception::IE);
        return Some(F80::INDEFINITE);
    }
    if !a.is_nan() && !b.is_nan() {
        return None;
    }
    if a.class == Class::SignallingNan || b.class == Class::SignallingNan {
        env.raise(exception::IE);
    }
    let chosen = match (a.class, b.class) {
        (Class::QuietNan, Class::SignallingNan) => a,
        (Class::SignallingNan, Class::QuietNan) => b,
        _ if !a.is_nan() => b,
        _ if !b.is_nan() => a,
        _ if a.significand != b.significand => {
            if a.significand > b.significand {
                a
            } else {
                b
            }
        }
        _ if a.sign => b,
        _ => a,
    };
    Some(F80::nan(chosen.sign, chosen.significand))
}

/// Raises DE for an operation whose operands are not invalid.
#[inline(always)]
fn note_denormals(env: &mut Env, before: u8, denormal: bool) {
    if denormal && (env.flags & !before) & (exception::IE | exception::ZE) == 0 {
        env.raise(exception::DE);
    }
}

#[inline(always)]
fn binary<O: Operation, A: Format, B: Format>(env: &mut Env, a: A, b: B) -> F80 {
    if a.is_normal() & b.is_normal() {
        let exact = O::apply(env, a.unpack_normal(), b.unpack_normal());
        if env.precision == Precision::Extended {
            round(env, F80::BITS, Trapped::Wrapped, exact)
        } else {
            round_shorter(env, exact)
        }
    } else {
        binary_special::<O>(env, a.unpack(), b.unpack())
    }
}

#[inline(never)]
fn round_shorter(env: &mut Env, exact: Exact) -> F80 {
    let bits = env.significant_bits();
    round(env, bits, Trapped::Wrapped, exact)
}

#[cold]
#[inline(never)]
fn binary_special<O: Operation>(env: &mut Env, a: Unpacked, b: Unpacked) -> F80 {
    if let Some(result) = not_numbers(env, a, b) {
        return result;
    }
    let before = std::mem::take(&mut env.flags);
    let exact = O::apply(env, a, b);
    note_denormals(env, 0, a.denormal | b.denormal);
    let bits = env.significant_bits();
    finish(env, before, bits, exact)
}

/// Rounds the result unless there is none. `before`: the flags before the operation, whose own are in `env`.
#[inline(always)]
fn finish(env: &mut Env, before: u8, bits: u32, exact: Exact) -> F80 {
    let result = if env.stopped() { F80::default() } else { round(env, bits, Trapped::Wrapped, exact) };
    env.flags |= before;
    result
}

/// FADD: `a + b`.
#[inline(always)]
pub fn add<A: Format, B: Format>(env: &mut Env, a: A, b: B) -> F80 {
    binary::<Add, A, B>(env, a, b)
}

/// FSUB, FSUBR: `a - b`.
#[inline(always)]
pub fn sub<A: Format, B: Format>(env: &mut Env, a: A, b: B) -> F80 {
    binary::<Sub, A, B>(env, a, b)
}

/// FMUL: `a * b`.
#[inline(always)]
pub fn mul<A: Format, B: Format>(env: &mut Env, a: A, b: B) -> F80 {
    binary::<Mul, A, B>(env, a, b)
}

/// FDIV, FDIVR: `a / b`.
#[inline(always)]
pub fn div<A: Format, B: Format>(env: &mut Env, a: A, b: B) -> F80 {
    binary::<Div, A, B>(env, a, b)
}

/// FSQRT.
pub fn sqrt(env: &mut Env, a: F80) -> F80 {
    if a.is_normal() && !a.is_negative() && env.precision == Precision::Extended {
        let exact = arithmetic::sqrt(env, a.unpack_normal());
        return round(env, F80::BITS, Trapped::Wrapped, exact);
    }
    let a = a.unpack();
    if let Some(result) = not_numbers(env, a, a) {
        return result;
    }
    let before = std::mem::take(&mut env.flags);
    let exact = arithmetic::sqrt(env, a);
    note_denormals(env, 0, a.denormal);
    let bits = env.significant_bits();
    finish(env, before, bits, exact)
}

/// FCOM, FCOMI, FICOM, FTST: any NaN is invalid. An unmasked DE does not keep the relation from being told.
#[inline(always)]
pub fn compare<B: Format>(env: &mut Env, a: F80, b: B) -> Relation {
    relation(env, a.unpack(), b.unpack(), true)
}

/// FUCOM, FUCOMI: quiet NaNs are not invalid. DE as with [`compare`].
#[inline(always)]
pub fn compare_quiet(env: &mut Env, a: F80, b: F80) -> Relation {
    relation(env, a.unpack(), b.unpack(), false)
}

#[inline(always)]
fn relation(env: &mut Env, a: Unpacked, b: Unpacked, quiet_is_invalid: bool) -> Relation {
    let number = |v: &Unpacked| matches!(v.class, Class::Zero | Class::Finite | Class::Infinity);
    if !(number(&a) & number(&b)) {
        let invalid = |v: &Unpacked| match v.class {
            Class::QuietNan => quiet_is_invalid,
            Class::SignallingNan | Class::Unsupported => true,
            _ => false,
        };
        if invalid(&a) || invalid(&b) {
            env.raise(exception::IE);
        }
        return Relation::Unordered;
    }
    if a.denormal | b.denormal {
        env.raise(exception::DE);
    }
    arithmetic::order(a, b).into()
}

/// FLD of a single or double operand. An unmasked DE does not keep it from being loaded.
#[inline(always)]
pub fn load<A: Format>(env: &mut Env, a: A) -> F80 {
    if a.is_normal() {
        let a = a.unpack_normal();
        return F80::normal(a.sign, a.exponent, a.significand);
    }
    load_special(env, a.unpack_special())
}

#[cold]
fn load_special(env: &mut Env, a: Unpacked) -> F80 {
    match a.class {
        Class::Zero => F80::tiny(a.sign, 0),
        Class::Finite => {
            env.raise(exception::DE);
            F80::normal(a.sign, a.exponent, a.significand)
        }
        Class::Infinity => F80::infinity(a.sign),
        _ => not_numbers(env, a, a).unwrap_or(F80::INDEFINITE),
    }
}

/// FST to a single or double operand. After unmasked overflow or underflow there is no result either.
#[inline(always)]
pub fn store<F: Format>(env: &mut Env, a: F80) -> F {
    if a.is_normal() {
        let exact = Exact { value: a.unpack_normal(), rest: 0 };
        return round(env, F::BITS, Trapped::NotStored, exact);
    }
    store_special(env, a)
}

#[cold]
#[inline(never)]
fn store_special<F: Format>(env: &mut Env, a: F80) -> F {
    let a = a.unpack_special();
    if !matches!(a.class, Class::QuietNan | Class::SignallingNan | Class::Unsupported) {
        return round(env, F::BITS, Trapped::NotStored, Exact { value: a, rest: 0 });
    }
    if a.class != Class::QuietNan {
        env.raise(exception::IE);
    }
    if a.class == Class::Unsupported { F::nan(true, 3 << 62) } else { F::nan(a.sign, a.significand) }
}

/// An integer of at most 64 bits.
fn integer(sign: bool, magnitude: u64) -> F80 {
    let value = Unpacked::integer(sign, magnitude);
    if value.class == Class::Zero {
        F80::tiny(sign, 0)
    } else {
        F80::normal(sign, value.exponent, value.significand)
    }
}

/// Rounds to an integer of at most `limit` (negative: `limit` + `more_below`): sign and magnitude. `None`, and invalid, when it is no such
/// integer.
#[inline(always)]
fn to_magnitude(
    env: &mut Env,
    a: F80,
    rounding: Rounding,
    limit: u64,
    more_below: u64,
) -> Option<(bool, u64)> {
    let a = a.unpack();
    let rounded = match a.class {
        Class::Zero => return Some((a.sign, 0)),
        Class::Finite => round_to_magnitude(rounding, a),
        _ => None,
    };
    let limit = if a.sign { limit + more_below } else { limit };
    match rounded {
        Some((magnitude, inexact, up)) if magnitude <= limit => {
            env.rounded_up = up;
            if inexact {
                env.raise(exception::PE);
            }
            Some((a.sign, magnitude))
        }
        _ => {
            env.raise(exception::IE);
            None
        }
    }
}

/// FIST with `env.rounding`: an integer of `bits` bits, the smallest one (the integer indefinite) if it does not fit.
#[inline(always)]
pub fn to_integer(env: &mut Env, a: F80, bits: u32) -> i64 {
    let limit = (1 << (bits - 1)) - 1;
    match to_magnitude(env, a, env.rounding, limit, 1) {
        Some((true, magnitude)) => (magnitude as i64).wrapping_neg(),
        Some((false, magnitude)) => magnitude as i64,
        None => -1 << (bits - 1),
    }
}

/// Digits of a packed decimal integer.
const DIGITS: u32 = 18;
/// Where a packed decimal integer has its sign: the top bit of the last byte.
const DECIMAL_SIGN: u8 = 0x80;

/// FBSTP: a packed decimal integer, the packed decimal indefinite if it does not fit.
pub fn to_decimal(env: &mut Env, a: F80) -> [u8; 10] {
    const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
    let limit = 10u64.pow(DIGITS) - 1;
    let Some((sign, mut magnitude)) = to_magnitude(env, a, env.rounding, limit, 0) else {
        return INDEFINITE;
    };
    let mut bytes = [0; 10];
    for byte in bytes.iter_mut().take(DIGITS as usize / 2) {
        *byte = (magnitude % 10) as u8 | ((magnitude / 10 % 10) as u8) << 4;
        magnitude /= 100;
    }
    bytes[9] = if sign { DECIMAL_SIGN } else { 0 };
    bytes
}

/// FBLD: a packed decimal integer. Digits above nine count as what their four bits say.
pub fn from_decimal(bytes: [u8; 10]) -> F80 {
    let digits = bytes.iter().take(DIGITS as usize / 2).rev();
    let magnitude =
        digits.fold(0u64, |sum, byte| sum * 100 + u64::from(byte >> 4) * 10 + u64::from(byte & 15));
    integer(bytes[9] & DECIMAL_SIGN != 0, magnitude)
}

/// FRNDINT.
pub fn round_to_integer(env: &mut Env, a: F80) -> F80 {
    let value = a.unpack();
    if let Some(result) = not_numbers(env, value, value) {
        return result;
    }
    env.rounded_up = false;
    if value.class != Class::Finite || value.exponent >= 63 {
        return a;
    }
    note_denormals(env, env.flags, value.denormal);
    let Some((magnitude, inexact, up)) = round_to_magnitude(env.rounding, value) else { return a };
    if env.stopped() {
        return a;
    }
    if inexact {
        env.raise(exception::PE);
    }
    env.rounded_up = up;
    integer(value.sign, magnitude)
}

/// FSCALE: `a` times two to the power of `b`, which is rounded towards zero.
pub fn scale(env: &mut Env, a: F80, b: F80) -> F80 {
    /// A power that no value survives.
    const ENORMOUS: i32 = 0x2_0000;
    let (a, b) = (a.unpack(), b.unpack());
    if let Some(result) = not_numbers(env, a, b) {
        return result;
    }
    let before = std::mem::take(&mut env.flags);
    let exact = match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if b.sign => {
            env.raise(exception::IE);
            Exact::invalid()
        }
        (Class::Zero, Class::Infinity) if !b.sign => {
            env.raise(exception::IE);
            Exact::invalid()
        }
        (Class::Infinity | Class::Zero, _) => Exact { value: a, rest: 0 },
        (_, Class::Infinity) if b.sign => Exact::zero(a.sign),
        (_, Class::Infinity) => Exact::infinity(a.sign),
        (_, Class::Zero) => Exact { value: a, rest: 0 },
        _ => {
            let magnitude = match round_to_magnitude(Rounding::Zero, b) {
                Some((magnitude, ..)) => magnitude.min(ENORMOUS as u64) as i32,
                None => ENORMOUS,
            };
            let power = if b.sign { -magnitude } else { magnitude };
            Exact::finite(a.sign, a.exponent + power, a.significand, 0)
        }
    };
    note_denormals(env, 0, a.denormal | b.denormal);
    finish(env, before, F80::BITS, exact)
}

/// FXTRACT: exponent and significand.
pub fn extract(env: &mut Env, a: F80) -> (F80, F80) {
    let value = a.unpack();
    if let Some(result) = not_numbers(env, value, value) {
        return (result, result);
    }
    match value.class {
        Class::Zero => {
            env.raise(exception::ZE);
            (F80::infinity(true), a)
        }
        Class::Infinity => (F80::infinity(false), a),
        _ => {
            note_denormals(env, env.flags, value.denormal);
            let exponent = F80::from_i64(value.exponent.into());
            (exponent, F80::normal(value.sign, 0, value.significand))
        }
    }
}

/// What FPREM and FPREM1 leave.
#[derive(Clone, Copy, Debug)]
pub struct Remainder {
    /// The remainder, or, when not complete, a smaller value with the same remainder.
    pub value: F80,
    /// The last three bits of the quotient; none if the operands were invalid or no numbers.
    pub quotient: Option<u8>,
    /// Whether this is the remainder.
    pub complete: bool,
}

/// FPREM (`nearest` false: the quotient is truncated) and FPREM1 (it is rounded to nearest).
pub fn remainder(env: &mut Env, a: F80, b: F80, nearest: bool) -> Remainder {
    let invalid = |value| Remainder { value, quotient: None, complete: true };
    let (a, b) = (a.unpack(), b.unpack());
    if let Some(result) = not_numbers(env, a, b) {
        return invalid(result);
    }
    if a.class == Class::Infinity || b.class == Class::Zero {
        env.raise(exception::IE);
        return invalid(F80::INDEFINITE);
    }
    let before = std::mem::take(&mut env.flags);
    note_denormals(env, 0, a.denormal | b.denormal);
    if env.stopped() {
        env.flags |= before;
        return invalid(F80::default());
    }
    let difference = a.exponent - b.exponent;
    if a.class == Class::Zero || b.class == Class::Infinity || difference < -1 || !nearest && difference < 0 {
        let value = finish(env, before, F80::BITS, Exact { value: a, rest: 0 });
        return Remainder { value, quotient: Some(0), complete: true };
    }
    let complete = difference < 64;
    // By how many bits the exponents get closer in an incomplete step: any number from 32 to 63 will do.
    let step = if complete { difference.max(0) } else { difference & 31 | 32 } as u32;
    // With an exponent difference of -1 the dividend is less than the divisor.
    let (dividend, divisor) = match difference {
        -1 => (u128::from(a.significand), u128::from(b.significand) << 1),
        _ => (u128::from(a.significand) << step, u128::from(b.significand)),
    };
    let mut quotient = dividend / divisor;
    let mut rest = dividend % divisor;
    let mut sign = a.sign;
    if nearest && complete {
        let missing = divisor - rest;
        if rest > missing || rest == missing && quotient & 1 != 0 {
            rest = missing;
            quotient += 1;
            sign = !sign;
        }
    }
    // The exponent of the dividend's last bit.
    let last = a.exponent - step as i32 - 63;
    let exact = if rest == 0 {
        Exact::zero(a.sign)
    } else {
        let zeros = rest.leading_zeros();
        let rest = rest << zeros;
        Exact::finite(sign, last + 127 - zeros as i32, (rest >> 64) as u64, rest as u64)
    };
    let value = finish(env, before, F80::BITS, exact);
    let quotient = if complete { quotient as u8 & 7 } else { 0 };
    Remainder { value, quotient: Some(quotient), complete }
}

const _: () = assert!(F80::ONE.significand == INTEGER_BIT);
