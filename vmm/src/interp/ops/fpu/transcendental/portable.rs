//! Transcendental functions for hosts without x87, by the host's double precision.

use super::Results;
use crate::softfloat::x87::ValueKind;
use crate::softfloat::{Env, F64, F80, exception, x87};

/// Trigonometric functions take operands below two to the power of this.
const RANGE: u16 = 16383 + 63;
const EXPONENT: u16 = 0x7fff;

/// As the host has it; too large or too small for it becomes infinity or zero.
fn to_host(value: F80) -> f64 {
    f64::from_bits(x87::store::<F64>(&mut Env::default(), value).0)
}

/// What the host computed, as a result: inexact unless it is zero, an infinity or a NaN.
fn from_host(env: &mut Env, value: f64) -> F80 {
    if value.is_nan() {
        env.flags |= exception::IE;
        return F80::INDEFINITE;
    }
    if value.is_finite() && value != 0.0 {
        env.flags |= exception::PE;
    }
    x87::load(&mut Env::default(), F64(value.to_bits()))
}

/// Raises what operands raise by themselves. The result, if one of them is no number.
fn check(env: &mut Env, operands: &[F80]) -> Option<F80> {
    let not_numbers = |value: &&F80| matches!(value.kind(), ValueKind::Nan | ValueKind::Unsupported);
    if let Some(first) = operands.iter().find(not_numbers) {
        // The sum of NaNs is the NaN that every operation gives.
        let second = operands.iter().rfind(not_numbers).unwrap_or(first);
        let mut masked = Env::default();
        let result = x87::add(&mut masked, *first, *second);
        env.flags |= masked.flags;
        return Some(result);
    }
    if operands.iter().any(|value| value.kind() == ValueKind::Denormal) {
        env.flags |= exception::DE;
    }
    None
}

fn one(value: F80) -> Results {
    Results { out_of_range: false, values: [value, F80::ZERO] }
}

fn of_one(env: &mut Env, st0: F80, function: impl Fn(f64) -> f64) -> Results {
    let result = check(env, &[st0]).unwrap_or_else(|| from_host(env, function(to_host(st0))));
    one(result)
}

fn of_two(env: &mut Env, st0: F80, st1: F80, function: impl Fn(f64, f64) -> f64) -> Results {
    let result =
        check(env, &[st0, st1]).unwrap_or_else(|| from_host(env, function(to_host(st0), to_host(st1))));
    one(result)
}

fn is_out_of_range(st0: F80) -> bool {
    let exponent = st0.sign_exponent & EXPONENT;
    (RANGE..EXPONENT).contains(&exponent) && st0.kind() == ValueKind::Normal
}

fn trigonometric(env: &mut Env, st0: F80, function: impl Fn(f64) -> f64) -> Results {
    if is_out_of_range(st0) {
        return Results { out_of_range: true, values: [st0, F80::ZERO] };
    }
    of_one(env, st0, function)
}

/// F2XM1.
pub fn f2xm1(env: &mut Env, st0: F80, _st1: F80) -> Results {
    of_one(env, st0, |x| (x * std::f64::consts::LN_2).exp_m1())
}

/// FYL2X.
pub fn fyl2x(env: &mut Env, st0: F80, st1: F80) -> Results {
    if st0.kind() == ValueKind::Zero && !matches!(st1.kind(), ValueKind::Zero | ValueKind::Nan) {
        env.flags |= exception::ZE;
    }
    of_two(env, st0, st1, |x, y| y * x.log2())
}

/// FYL2XP1.
pub fn fyl2xp1(env: &mut Env, st0: F80, st1: F80) -> Results {
    of_two(env, st0, st1, |x, y| y * (x.ln_1p() * std::f64::consts::LOG2_E))
}

/// FPATAN.
pub fn fpatan(env: &mut Env, st0: F80, st1: F80) -> Results {
    of_two(env, st0, st1, |x, y| y.atan2(x))
}

/// FPTAN.
pub fn fptan(env: &mut Env, st0: F80, _st1: F80) -> Results {
    let results = trigonometric(env, st0, f64::tan);
    let [tangent, _] = results.values;
    let is_nan = tangent.kind() == ValueKind::Nan;
    Results { values: [if is_nan { tangent } else { F80::ONE }, tangent], ..results }
}

/// FSIN.
pub fn fsin(env: &mut Env, st0: F80, _st1: F80) -> Results {
    trigonometric(env, st0, f64::sin)
}

/// FCOS.
pub fn fcos(env: &mut Env, st0: F80, _st1: F80) -> Results {
    trigonometric(env, st0, f64::cos)
}

/// FSINCOS.
pub fn fsincos(env: &mut Env, st0: F80, _st1: F80) -> Results {
    let [cosine, sine] = [trigonometric(env, st0, f64::cos), trigonometric(env, st0, f64::sin)];
    Results { values: [cosine.values[0], sine.values[0]], ..sine }
}
