//! Operations on single and double precision as SSE and SSE2 have them.
//!
//! A NaN result is the first operand if that is a NaN, otherwise the second one, quietened. When [`Env::trapped`]
//! after an operation, its result means nothing: SSE instructions with an unmasked exception change nothing but
//! MXCSR. For packed operations: run all elements, then, if an unmasked exception of `exception::BEFORE` came up,
//! drop the new flags that are not of `BEFORE`.

use super::arithmetic::{self, Add, Div, Mul, Operation, Sub};
use super::env::{Env, Rounding, exception};
use super::round::{Exact, Trapped, round, round_to_magnitude};
use super::unpacked::{Class, Format as Float, Unpacked};
use super::{F32, F64, Relation};

/// A format that SSE computes with.
pub trait Format: Float {
    /// The host's type of that format.
    type Host: std::ops::Add<Output = Self::Host>
        + std::ops::Sub<Output = Self::Host>
        + std::ops::Mul<Output = Self::Host>
        + std::ops::Div<Output = Self::Host>
        + PartialOrd;

    /// As the host has it.
    fn to_host(self) -> Self::Host;
    /// From the host.
    fn from_host(value: Self::Host) -> Self;
    /// The host's square root.
    fn host_sqrt(value: Self::Host) -> Self::Host;
    /// Whether the value is normal, and so large that it cannot have been tiny before it was rounded.
    fn is_safely_normal(self) -> bool;
}

macro_rules! sse_format {
    ($name:ident, $host:ty) => {
        impl Format for $name {
            type Host = $host;

            #[inline(always)]
            fn to_host(self) -> $host {
                <$host>::from_bits(self.0)
            }

            #[inline(always)]
            fn from_host(value: $host) -> Self {
                Self(value.to_bits())
            }

            #[inline(always)]
            fn host_sqrt(value: $host) -> $host {
                value.sqrt()
            }

            #[inline(always)]
            fn is_safely_normal(self) -> bool {
                self.magnitude().wrapping_sub(2 * Self::SMALLEST_NORMAL)
                    < Self::INFINITY - 2 * Self::SMALLEST_NORMAL
            }
        }
    };
}

sse_format!(F32, f32);
sse_format!(F64, f64);

/// Whether normal operands with a normal result can be left to the host: round to nearest, no exception that
/// matters, and an inexact result changes nothing any more.
#[inline(always)]
fn host_will_do(env: &Env) -> bool {
    env.rounding == Rounding::Nearest && env.unmasked == 0 && env.flags & exception::PE != 0
}

#[inline(always)]
fn binary<F: Format, O: Operation>(
    env: &mut Env,
    a: F,
    b: F,
    on_host: impl Fn(F::Host, F::Host) -> F::Host,
) -> F {
    if host_will_do(env) && a.is_normal() && b.is_normal() {
        let result = F::from_host(on_host(a.to_host(), b.to_host()));
        if result.is_safely_normal() {
            return result;
        }
    }
    binary_slow::<F, O>(env, a, b)
}

#[inline(never)]
fn binary_slow<F: Format, O: Operation>(env: &mut Env, a: F, b: F) -> F {
    if a.is_normal() && b.is_normal() {
        let exact = O::apply(env, a.unpack_normal(), b.unpack_normal());
        return round(env, F::BITS, Trapped::Dropped, exact);
    }
    binary_special::<F, O>(env, a, b)
}

#[cold]
#[inline(never)]
fn binary_special<F: Format, O: Operation>(env: &mut Env, a: F, b: F) -> F {
    let (a, b) = (a.unpack().flushed(env.daz), b.unpack().flushed(env.daz));
    if a.is_nan() || b.is_nan() {
        return nan(env, if a.is_nan() { a } else { b }, a, b);
    }
    let before = std::mem::take(&mut env.flags);
    let exact = O::apply(env, a, b);
    finish(env, before, a.denormal | b.denormal, exact)
}

/// Rounds the result unless there is none. `before`: the flags before the operation, whose own are in `env`.
#[inline(always)]
fn finish<F: Format>(env: &mut Env, before: u8, denormal: bool, exact: Exact) -> F {
    if env.flags == 0 && denormal {
        env.raise(exception::DE);
    }
    let result = if env.trapped() { F::default() } else { round(env, F::BITS, Trapped::Dropped, exact) };
    env.flags |= before;
    result
}

/// `chosen` as the result of an operation on `a` and `b`.
#[cold]
fn nan<F: Format>(env: &mut Env, chosen: Unpacked, a: Unpacked, b: Unpacked) -> F {
    if a.class == Class::SignallingNan || b.class == Class::SignallingNan {
        env.raise(exception::IE);
    }
    F::nan(chosen.sign, chosen.significand)
}

/// `a + b`.
#[inline(always)]
pub fn add<F: Format>(env: &mut Env, a: F, b: F) -> F {
    binary::<F, Add>(env, a, b, |a, b| a + b)
}

/// `a - b`.
#[inline(always)]
pub fn sub<F: Format>(env: &mut Env, a: F, b: F) -> F {
    binary::<F, Sub>(env, a, b, |a, b| a - b)
}

/// `a * b`.
#[inline(always)]
pub fn mul<F: Format>(env: &mut Env, a: F, b: F) -> F {
    binary::<F, Mul>(env, a, b, |a, b| a * b)
}

/// `a / b`.
#[inline(always)]
pub fn div<F: Format>(env: &mut Env, a: F, b: F) -> F {
    binary::<F, Div>(env, a, b, |a, b| a / b)
}

/// The square root.
#[inline(always)]
pub fn sqrt<F: Format>(env: &mut Env, a: F) -> F {
    if host_will_do(env) && a.is_normal() {
        let result = F::from_host(F::host_sqrt(a.to_host()));
        if result.is_safely_normal() {
            return result;
        }
    }
    sqrt_slow(env, a)
}

#[inline(never)]
fn sqrt_slow<F: Format>(env: &mut Env, a: F) -> F {
    let a = a.unpack().flushed(env.daz);
    if a.is_nan() {
        return nan(env, a, a, a);
    }
    let before = std::mem::take(&mut env.flags);
    let exact = arithmetic::sqrt(env, a);
    finish(env, before, a.denormal, exact)
}

/// MINSS and the like: `a` if it is less, otherwise `b` (also for NaNs, which are invalid and pass unchanged).
pub fn min<F: Format>(env: &mut Env, a: F, b: F) -> F {
    choose(env, a, b, Relation::Less)
}

/// MAXSS and the like: `a` if it is greater, otherwise `b`.
pub fn max<F: Format>(env: &mut Env, a: F, b: F) -> F {
    choose(env, a, b, Relation::Greater)
}

fn choose<F: Format>(env: &mut Env, a: F, b: F, first: Relation) -> F {
    let chosen = if compare(env, a, b) == first { a } else { b };
    if chosen.is_normal() {
        return chosen;
    }
    let value = chosen.unpack();
    if value.denormal && env.daz { F::tiny(value.sign, 0) } else { chosen }
}

/// Compares; any NaN is invalid (COMISS, CMPLTSS, CMPLESS, CMPNLTSS, CMPNLESS).
#[inline(always)]
pub fn compare<F: Format>(env: &mut Env, a: F, b: F) -> Relation {
    relation(env, a, b, |class| matches!(class, Class::QuietNan | Class::SignallingNan))
}

/// Compares; only a signalling NaN is invalid (UCOMISS, CMPEQSS, CMPUNORDSS, CMPNEQSS, CMPORDSS).
#[inline(always)]
pub fn compare_quiet<F: Format>(env: &mut Env, a: F, b: F) -> Relation {
    relation(env, a, b, |class| class == Class::SignallingNan)
}

#[inline(always)]
fn relation<F: Format>(env: &mut Env, a: F, b: F, invalid: impl Fn(Class) -> bool) -> Relation {
    if a.is_normal()
        && b.is_normal()
        && let Some(order) = a.to_host().partial_cmp(&b.to_host())
    {
        return order.into();
    }
    relation_slow(env, a, b, invalid)
}

#[inline(never)]
fn relation_slow<F: Format>(env: &mut Env, a: F, b: F, invalid: impl Fn(Class) -> bool) -> Relation {
    let (a, b) = (a.unpack().flushed(env.daz), b.unpack().flushed(env.daz));
    if a.is_nan() || b.is_nan() {
        if invalid(a.class) || invalid(b.class) {
            env.raise(exception::IE);
        }
        return Relation::Unordered;
    }
    if a.denormal | b.denormal {
        env.raise(exception::DE);
    }
    arithmetic::order(a, b).into()
}

#[inline(always)]
fn convert<F: Format, G: Format>(env: &mut Env, a: F) -> G {
    let a = a.unpack().flushed(env.daz);
    if a.is_nan() {
        return nan(env, a, a, a);
    }
    let before = std::mem::take(&mut env.flags);
    finish(env, before, a.denormal, Exact { value: a, rest: 0 })
}

/// CVTSS2SD.
pub fn widen(env: &mut Env, a: F32) -> F64 {
    convert(env, a)
}

/// CVTSD2SS.
pub fn narrow(env: &mut Env, a: F64) -> F32 {
    convert(env, a)
}

/// CVTSI2SS and the like.
pub fn from_i32<F: Format>(env: &mut Env, value: i32) -> F {
    let value = Unpacked::integer(value < 0, u64::from(value.unsigned_abs()));
    round(env, F::BITS, Trapped::Dropped, Exact { value, rest: 0 })
}

/// CVTSS2SI and the like with `env.rounding`, CVTTSS2SI and the like with `Rounding::Zero`; what does not fit (or is
/// a NaN) is invalid and gives the integer indefinite, `i32::MIN`.
pub fn to_i32<F: Format>(env: &mut Env, a: F, rounding: Rounding) -> i32 {
    let a = a.unpack().flushed(env.daz);
    let rounded = match a.class {
        Class::Zero => return 0,
        Class::Finite => round_to_magnitude(rounding, a),
        _ => None,
    };
    let limit = i32::MIN.unsigned_abs() - u32::from(!a.sign);
    match rounded {
        Some((magnitude, inexact, _)) if magnitude <= u64::from(limit) => {
            if inexact {
                env.raise(exception::PE);
            }
            if a.sign { (magnitude as i32).wrapping_neg() } else { magnitude as i32 }
        }
        _ => {
            env.raise(exception::IE);
            i32::MIN
        }
    }
}
