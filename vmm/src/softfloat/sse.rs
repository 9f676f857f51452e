//! Operations on single and double precision as SSE and SSE2 have them.
//!
//! A NaN result is the first operand if that is a NaN, otherwise the second one, quietened. When [`Env::trapped`]
//! after an operation, its result means nothing: SSE instructions with an unmasked exception change nothing but
//! MXCSR. For packed operations: run all elements, then, if an unmasked exception of `exception::BEFORE` came up,
//! drop the new flags that are not of `BEFORE`.

use super::{Env, F32, F64, Relation, Rounding};

/// A format that SSE computes with.
pub trait Format: Copy {}
impl Format for F32 {}
impl Format for F64 {}

/// `a + b`.
pub fn add<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// `a - b`.
pub fn sub<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// `a * b`.
pub fn mul<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// `a / b`.
pub fn div<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// The square root.
pub fn sqrt<F: Format>(_env: &mut Env, _a: F) -> F {
    todo!()
}

/// MINSS and the like: `b` unless `a` is less.
pub fn min<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// MAXSS and the like: `b` unless `a` is greater.
pub fn max<F: Format>(_env: &mut Env, _a: F, _b: F) -> F {
    todo!()
}

/// Compares; any NaN is invalid (COMISS, CMPLTSS, CMPLESS, CMPNLTSS, CMPNLESS).
pub fn compare<F: Format>(_env: &mut Env, _a: F, _b: F) -> Relation {
    todo!()
}

/// Compares; only a signalling NaN is invalid (UCOMISS, CMPEQSS, CMPUNORDSS, CMPNEQSS, CMPORDSS).
pub fn compare_quiet<F: Format>(_env: &mut Env, _a: F, _b: F) -> Relation {
    todo!()
}

/// CVTSS2SD.
pub fn widen(_env: &mut Env, _a: F32) -> F64 {
    todo!()
}

/// CVTSD2SS.
pub fn narrow(_env: &mut Env, _a: F64) -> F32 {
    todo!()
}

/// CVTSI2SS and the like.
pub fn from_i32<F: Format>(_env: &mut Env, _value: i32) -> F {
    todo!()
}

/// CVTSS2SI and the like with `env.rounding`, CVTTSS2SI and the like with `Rounding::Zero`; what does not fit (or is
/// a NaN) is invalid and gives the integer indefinite, `i32::MIN`.
pub fn to_i32<F: Format>(_env: &mut Env, _a: F, _rounding: Rounding) -> i32 {
    todo!()
}
