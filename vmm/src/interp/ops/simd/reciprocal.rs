//! RCPPS, RSQRTPS and their scalar forms: approximations, without exceptions and whatever MXCSR says.
//!
//! The manual promises a relative error of at most 1.5 * 2^-12; which value within it comes out differs between
//! makers of processors. On an x86-64 host the guest gets the host's; elsewhere ([`portable`]) the best
//! one with 12 bits.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector registers of the host are plain bits, which Rust does not know")
)]

use super::vector::{Vector, map};
use super::{Operation, Part, Xmm, compute, compute_on};
use crate::cpu::bus::Bus;
use crate::cpu::model::feature::SSE;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Rm};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Rcpps => compute_on::<B, Xmm<SSE>, Rcp>(form),
        Mnemonic::Rsqrtps => compute_on::<B, Xmm<SSE>, Rsqrt>(form),
        Mnemonic::Rcpss => scalar::<B, ScalarRcp>(form),
        Mnemonic::Rsqrtss => scalar::<B, ScalarRsqrt>(form),
        _ => return None,
    })
}

fn scalar<B: Bus, O: Operation>(form: &Decoded) -> Handler<B> {
    match form.kinds[1] {
        Kind::Memory => compute::<B, Xmm<SSE>, O, Part<u32>>,
        _ => compute::<B, Xmm<SSE>, O, Rm>,
    }
}

struct Rcp;
struct Rsqrt;
struct ScalarRcp;
struct ScalarRsqrt;

/// `a` with its lowest element replaced.
fn with_lowest<V: Vector>(a: V, lowest: u32) -> V {
    V::narrow(a.widen() & !u128::from(u32::MAX) | u128::from(lowest))
}

impl Operation for Rcp {
    fn apply<V: Vector>(_a: V, b: V, _imm: u8) -> V {
        map::<u32, V>(b, reciprocal)
    }
}

impl Operation for Rsqrt {
    fn apply<V: Vector>(_a: V, b: V, _imm: u8) -> V {
        map::<u32, V>(b, reciprocal_root)
    }
}

impl Operation for ScalarRcp {
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        with_lowest(a, reciprocal(b.widen() as u32))
    }
}

impl Operation for ScalarRsqrt {
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        with_lowest(a, reciprocal_root(b.widen() as u32))
    }
}

#[cfg(target_arch = "x86_64")]
use host::{reciprocal, reciprocal_root};
#[cfg(not(target_arch = "x86_64"))]
use portable::{reciprocal, reciprocal_root};

#[cfg(target_arch = "x86_64")]
mod host {
    use std::arch::x86_64::{__m128, _mm_rcp_ss, _mm_rsqrt_ss};
    use std::mem::transmute;

    fn load(bits: u32) -> __m128 {
        // SAFETY: both are 16 bytes, and any bits are valid in either.
        unsafe { transmute::<u128, __m128>(u128::from(bits)) }
    }

    fn store(value: __m128) -> u32 {
        // SAFETY: as in `load`.
        unsafe { transmute::<__m128, u128>(value) as u32 }
    }

    pub(super) fn reciprocal(bits: u32) -> u32 {
        // SAFETY: SSE is part of x86-64.
        store(unsafe { _mm_rcp_ss(load(bits)) })
    }

    pub(super) fn reciprocal_root(bits: u32) -> u32 {
        // SAFETY: SSE is part of x86-64.
        store(unsafe { _mm_rsqrt_ss(load(bits)) })
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    const SIGN: u32 = 1 << 31;
    const QUIET: u32 = 1 << 22;
    const INFINITY: u32 = 0x7f80_0000;
    const DEFAULT_NAN: u32 = SIGN | INFINITY | QUIET;
    const SMALLEST_NORMAL: u32 = 1 << 23;
    /// Bits of the significand that are dropped, to leave 12 (with the implicit one).
    const DROPPED: u32 = 12;

    /// Rounds a positive normal value to 12 bits.
    fn rounded(value: f64) -> u32 {
        let bits = (value as f32).to_bits();
        bits.wrapping_add(1 << (DROPPED - 1)) & (u32::MAX << DROPPED)
    }

    pub(super) fn reciprocal(bits: u32) -> u32 {
        let (sign, magnitude) = (bits & SIGN, bits & !SIGN);
        if magnitude > INFINITY {
            bits | QUIET
        } else if magnitude < SMALLEST_NORMAL {
            sign | INFINITY
        } else {
            let result = rounded(1.0 / f64::from(f32::from_bits(magnitude)));
            // Tiny results are zeros.
            sign | if result < SMALLEST_NORMAL { 0 } else { result }
        }
    }

    pub(super) fn reciprocal_root(bits: u32) -> u32 {
        let (sign, magnitude) = (bits & SIGN, bits & !SIGN);
        if magnitude > INFINITY {
            bits | QUIET
        } else if magnitude < SMALLEST_NORMAL {
            sign | INFINITY
        } else if sign != 0 {
            DEFAULT_NAN
        } else if magnitude == INFINITY {
            0
        } else {
            rounded(1.0 / f64::from(f32::from_bits(magnitude)).sqrt())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::portable;

    #[test]
    fn portable_approximations_keep_the_promised_error() {
        const ERROR: f64 = 1.5 / 4096.0;
        for step in 0..0x7_f000_u32 {
            let bits = 0x0080_0000 + step.wrapping_mul(0xfef);
            let x = f64::from(f32::from_bits(bits));
            let root = f64::from(f32::from_bits(portable::reciprocal_root(bits)));
            assert!((root * x.sqrt() - 1.0).abs() <= ERROR, "1/sqrt of {bits:08x}");
            let reciprocal = f64::from(f32::from_bits(portable::reciprocal(bits)));
            let tiny = 1.0 / x < f64::from(f32::MIN_POSITIVE);
            assert!(tiny && reciprocal == 0.0 || (reciprocal * x - 1.0).abs() <= ERROR, "1 / {bits:08x}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn portable_approximations_are_special_where_the_host_is() {
        use super::host;
        let special = [0, 1, 0x007f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000, 0x7fff_ffff];
        for bits in special.into_iter().flat_map(|bits| [bits, bits | 1 << 31]) {
            assert_eq!(portable::reciprocal(bits), host::reciprocal(bits), "1 / {bits:08x}");
            assert_eq!(portable::reciprocal_root(bits), host::reciprocal_root(bits), "1/sqrt of {bits:08x}");
        }
        assert_eq!(portable::reciprocal_root(0xbf80_0000), host::reciprocal_root(0xbf80_0000), "of -1");
    }
}
