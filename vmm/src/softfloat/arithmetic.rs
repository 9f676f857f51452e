//! Exact sums, products, quotients and roots. Operands are no NaNs; IE and ZE are raised here.

use super::env::{Env, Rounding, exception};
use super::round::Exact;
use super::unpacked::{Class, Unpacked};
use std::hint::select_unpredictable;

/// An operation on two operands that are no NaNs.
pub(super) trait Operation {
    /// The exact result.
    fn apply(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact;
}

macro_rules! operations {
    ($($name:ident $function:ident)*) => {
        $(
            pub(super) struct $name;

            impl Operation for $name {
                #[inline(always)]
                fn apply(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
                    $function(env, a, b)
                }
            }
        )*
    };
}

operations!(Add add Sub sub Mul mul Div div);

#[cold]
fn invalid(env: &mut Env) -> Exact {
    env.raise(exception::IE);
    Exact::invalid()
}

/// `a + b`.
#[inline(always)]
fn add(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    if a.class != Class::Finite || b.class != Class::Finite {
        return add_special(env, a, b);
    }
    // The larger magnitude first. No branches from here on: signs and exponents of data are hard to predict.
    let swap = (a.exponent < b.exponent) | ((a.exponent == b.exponent) & (a.significand < b.significand));
    let distance = a.exponent.abs_diff(b.exponent);
    let exponent = a.exponent.max(b.exponent);
    let larger = select_unpredictable(swap, b.significand, a.significand);
    let smaller = select_unpredictable(swap, a.significand, b.significand);
    let sign = a.sign ^ (swap & (a.sign != b.sign));
    // One bit of room above for the carry, 63 below.
    let first = u128::from(larger) << 63;
    let second = u128::from(smaller) << 63;
    let second = if distance < 64 { second >> distance } else { shifted_far(second, distance) };
    // All ones to negate.
    let negate = u128::from(a.sign != b.sign).wrapping_neg();
    let sum = first.wrapping_add((second ^ negate).wrapping_sub(negate));
    let (high, low) = ((sum >> 64) as u64, sum as u64);
    if high == 0 {
        // All but the last bits have cancelled; the distance was at most one.
        if low == 0 {
            return Exact::zero(env.rounding == Rounding::Down);
        }
        let zeros = low.leading_zeros();
        return Exact::finite(sign, exponent - 63 - zeros as i32, low << zeros, 0);
    }
    let zeros = high.leading_zeros();
    let significand = high << zeros | low >> 1 >> (63 - zeros);
    Exact::finite(sign, exponent + 1 - zeros as i32, significand, low << zeros)
}

/// Shifts right by more than 63; what falls off stays visible in the last bit.
#[cold]
fn shifted_far(value: u128, by: u32) -> u128 {
    if by < 128 { value >> by | u128::from(value << (128 - by) != 0) } else { 1 }
}

#[cold]
fn add_special(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if a.sign != b.sign => invalid(env),
        (Class::Infinity, _) => Exact::infinity(a.sign),
        (_, Class::Infinity) => Exact::infinity(b.sign),
        (Class::Zero, Class::Zero) if a.sign != b.sign => Exact::zero(env.rounding == Rounding::Down),
        (Class::Zero, Class::Zero) => Exact::zero(a.sign),
        (Class::Zero, _) => Exact { value: b, rest: 0 },
        _ => Exact { value: a, rest: 0 },
    }
}

/// `a - b`.
#[inline(always)]
fn sub(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    add(env, a, Unpacked { sign: !b.sign, ..b })
}

/// `a * b`.
#[inline(always)]
fn mul(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    let sign = a.sign != b.sign;
    if a.class != Class::Finite || b.class != Class::Finite {
        return match (a.class, b.class) {
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => invalid(env),
            (Class::Infinity, _) | (_, Class::Infinity) => Exact::infinity(sign),
            _ => Exact::zero(sign),
        };
    }
    let product = u128::from(a.significand) * u128::from(b.significand);
    let carry = (product >> 127) as i32;
    let product = if carry == 0 { product << 1 } else { product };
    Exact::finite(sign, a.exponent + b.exponent + carry, (product >> 64) as u64, product as u64)
}

/// `a / b`.
#[inline(always)]
fn div(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    let sign = a.sign != b.sign;
    if a.class != Class::Finite || b.class != Class::Finite {
        return match (a.class, b.class) {
            (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => invalid(env),
            (Class::Infinity, _) => Exact::infinity(sign),
            (Class::Zero, _) | (_, Class::Infinity) => Exact::zero(sign),
            _ => {
                env.raise(exception::ZE);
                Exact::infinity(sign)
            }
        };
    }
    let smaller = a.significand < b.significand;
    let dividend = u128::from(a.significand) << (63 + u32::from(smaller));
    let divisor = u128::from(b.significand);
    let quotient = (dividend / divisor) as u64;
    let remainder = (dividend % divisor) as u64;
    let exponent = a.exponent - b.exponent - i32::from(smaller);
    Exact::finite(sign, exponent, quotient, rest_of(remainder, b.significand - remainder))
}

/// What follows the last bit, given what was left over there and what was missing to the next.
#[inline(always)]
fn rest_of(remainder: u64, missing: u64) -> u64 {
    const HALF: u64 = 1 << 63;
    match remainder {
        0 => 0,
        _ if remainder < missing => 1,
        _ if remainder == missing => HALF,
        _ => HALF | 1,
    }
}

/// The square root.
#[inline(always)]
pub(super) fn sqrt(env: &mut Env, a: Unpacked) -> Exact {
    match a.class {
        Class::Zero => return Exact::zero(a.sign),
        _ if a.sign => return invalid(env),
        Class::Infinity => return Exact::infinity(false),
        _ => {}
    }
    // An even exponent: a = radicand * 2^(exponent - 126), radicand in 2^126..2^128.
    let odd = a.exponent & 1 != 0;
    let radicand = u128::from(a.significand) << (63 + u32::from(odd));
    // 53 bits from the host, the rest from a step of Newton's method, which never falls below the root.
    let estimate = ((radicand >> 64) as f64).sqrt() * 4_294_967_296.0;
    let estimate = (estimate as u64).max(1 << 63);
    let step = (u128::from(estimate) + radicand / u128::from(estimate)) >> 1;
    let mut root = step.min(u128::from(u64::MAX)) as u64;
    while u128::from(root) * u128::from(root) > radicand {
        root -= 1;
    }
    let remainder = radicand - u128::from(root) * u128::from(root);
    // Above half: (root + 1/2)^2 = root^2 + root + 1/4.
    let rest = match remainder {
        0 => 0,
        _ if remainder > u128::from(root) => 1 << 63 | 1,
        _ => 1,
    };
    Exact::finite(false, (a.exponent - i32::from(odd)) / 2, root, rest)
}

/// Compares magnitudes and signs of operands that are no NaNs: less, equal or greater.
#[inline(always)]
pub(super) fn order(a: Unpacked, b: Unpacked) -> std::cmp::Ordering {
    // A key that grows with the value.
    let key = |v: Unpacked| -> i128 {
        let magnitude = match v.class {
            Class::Zero => 0,
            Class::Finite => i128::from(v.exponent + 0x1_0000) << 64 | i128::from(v.significand),
            _ => i128::MAX,
        };
        if v.sign { -magnitude } else { magnitude }
    };
    key(a).cmp(&key(b))
}
