//! Exact sums, products, quotients and roots. Operands are no NaNs; IE and ZE are raised here.

use super::env::{Env, Rounding, exception};
use super::round::{Exact, shift_right};
use super::unpacked::{Class, Unpacked};

#[cold]
fn invalid(env: &mut Env) -> Exact {
    env.raise(exception::IE);
    Exact::invalid()
}

/// `a + b`.
#[inline(always)]
pub(super) fn add(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    if a.class != Class::Finite || b.class != Class::Finite {
        return add_special(env, a, b);
    }
    // The larger exponent first.
    let (a, b) = if a.exponent < b.exponent { (b, a) } else { (a, b) };
    let difference = (a.exponent - b.exponent) as u32;
    let (high, low) = shift_right(b.significand, 0, difference);
    let first = u128::from(a.significand) << 64;
    let second = u128::from(high) << 64 | u128::from(low);
    if a.sign == b.sign {
        let (sum, carry) = first.overflowing_add(second);
        if carry {
            let high = 1 << 63 | (sum >> 65) as u64;
            let low = (sum >> 1) as u64 | sum as u64 & 1;
            Exact::finite(a.sign, a.exponent + 1, high, low)
        } else {
            Exact::finite(a.sign, a.exponent, (sum >> 64) as u64, sum as u64)
        }
    } else {
        let (difference, borrow) = first.overflowing_sub(second);
        // Only with equal exponents.
        let (sign, difference) =
            if borrow { (b.sign, difference.wrapping_neg()) } else { (a.sign, difference) };
        if difference == 0 {
            return Exact::zero(env.rounding == Rounding::Down);
        }
        let zeros = difference.leading_zeros();
        let difference = difference << zeros;
        Exact::finite(sign, a.exponent - zeros as i32, (difference >> 64) as u64, difference as u64)
    }
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
pub(super) fn sub(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
    add(env, a, Unpacked { sign: !b.sign, ..b })
}

/// `a * b`.
#[inline(always)]
pub(super) fn mul(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
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
    let product = product << (1 - carry);
    Exact::finite(sign, a.exponent + b.exponent + carry, (product >> 64) as u64, product as u64)
}

/// `a / b`.
#[inline(always)]
pub(super) fn div(env: &mut Env, a: Unpacked, b: Unpacked) -> Exact {
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
