//! Single and double precision against the host's SSE unit: results and flags, with everything masked.
#![expect(unsafe_code, reason = "executes SSE instructions under another MXCSR")]

use super::{ROUNDINGS, Random};
use crate::softfloat::{Env, F32, F64, Relation, Rounding, exception, sse};
use std::arch::asm;

/// Pairs of operands for each operation and mode.
const ROUNDS: usize = 60_000;
const MASKS: u32 = 0x1f80;
const DAZ: u32 = 1 << 6;
const FZ: u32 = 1 << 15;

/// Runs one instruction on `xmm0` and `xmm1` (operands $a, $b as bits) under MXCSR and returns the bits of `xmm0` and the flags.
macro_rules! on_host {
    ($name:ident, $instruction:literal) => {
        fn $name(mxcsr: u32, a: u64, b: u64) -> (u64, u8) {
            let mut result = a;
            let mut after = mxcsr;
            let mut saved = 0u32;
            // SAFETY: all exceptions are masked in every `mxcsr` that the tests use; MXCSR is put back before the
            // block ends; registers and memory are those named.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{control}]",
                    $instruction,
                    "stmxcsr [{control}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &raw mut saved,
                    control = in(reg) &raw mut after,
                    inout("xmm0") f64::from_bits(a) => _,
                    in("xmm1") f64::from_bits(b),
                    inout("rax") result,
                );
            }
            (result, after as u8 & exception::ALL)
        }
    };
}

on_host!(addss, "addss xmm0, xmm1\nmovq rax, xmm0");
on_host!(subss, "subss xmm0, xmm1\nmovq rax, xmm0");
on_host!(mulss, "mulss xmm0, xmm1\nmovq rax, xmm0");
on_host!(divss, "divss xmm0, xmm1\nmovq rax, xmm0");
on_host!(minss, "minss xmm0, xmm1\nmovq rax, xmm0");
on_host!(maxss, "maxss xmm0, xmm1\nmovq rax, xmm0");
on_host!(sqrtss, "sqrtss xmm0, xmm0\nmovq rax, xmm0");
on_host!(addsd, "addsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(subsd, "subsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(mulsd, "mulsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(divsd, "divsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(minsd, "minsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(maxsd, "maxsd xmm0, xmm1\nmovq rax, xmm0");
on_host!(sqrtsd, "sqrtsd xmm0, xmm0\nmovq rax, xmm0");
on_host!(cvtss2sd, "cvtss2sd xmm0, xmm0\nmovq rax, xmm0");
on_host!(cvtsd2ss, "cvtsd2ss xmm0, xmm0\nmovq rax, xmm0");
on_host!(cvtss2si, "cvtss2si eax, xmm0");
on_host!(cvttss2si, "cvttss2si eax, xmm0");
on_host!(cvtsd2si, "cvtsd2si eax, xmm0");
on_host!(cvttsd2si, "cvttsd2si eax, xmm0");
on_host!(cvtsi2ss, "movq rax, xmm0\ncvtsi2ss xmm0, eax\nmovq rax, xmm0");
on_host!(cvtsi2sd, "movq rax, xmm0\ncvtsi2sd xmm0, eax\nmovq rax, xmm0");
// LAHF: ZF is bit 6, PF bit 2, CF bit 0 of AH.
on_host!(comiss, "comiss xmm0, xmm1\nlahf\nmovzx eax, ah\nand eax, 0x45");
on_host!(ucomiss, "ucomiss xmm0, xmm1\nlahf\nmovzx eax, ah\nand eax, 0x45");
on_host!(comisd, "comisd xmm0, xmm1\nlahf\nmovzx eax, ah\nand eax, 0x45");
on_host!(ucomisd, "ucomisd xmm0, xmm1\nlahf\nmovzx eax, ah\nand eax, 0x45");

/// What COMISS makes of a relation.
fn as_flags(relation: Relation) -> u64 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => 1,
        Relation::Equal => 0x40,
        Relation::Unordered => 0x45,
    }
}

type OnHost = fn(u32, u64, u64) -> (u64, u8);
type Ours = fn(&mut Env, u64, u64) -> u64;

fn check(name: &str, on_host: OnHost, ours: Ours, wide: bool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut operand = |other| if wide { random.float(11, 52, other) } else { random.float(8, 23, other) };
    for round in 0..ROUNDS {
        let a = operand(u64::MAX >> 2);
        let b = operand(a);
        for rounding in ROUNDINGS {
            for (daz, ftz) in [(false, false), (true, false), (false, true), (true, true)] {
                // Every other time with PE set before, which allows short cuts.
                let before = if round % 2 == 0 { 0 } else { exception::PE };
                let modes = if daz { DAZ } else { 0 } | if ftz { FZ } else { 0 };
                let mxcsr = MASKS | (rounding as u32) << 13 | modes | u32::from(before);
                let (expected, flags) = on_host(mxcsr, a, b);
                let mut env = Env { rounding, daz, ftz, flags: before, ..Env::default() };
                let result = ours(&mut env, a, b);
                let narrow = !wide && !matches!(name, "cvtss2sd") || name == "cvtsd2ss";
                let mask = if narrow { u64::from(u32::MAX) } else { u64::MAX };
                assert_eq!(
                    (result & mask, env.flags),
                    (expected & mask, flags),
                    "{name} {a:016x}, {b:016x} under {env:?}: {result:016x}, not {expected:016x}"
                );
            }
        }
    }
}

fn single(a: u64) -> F32 {
    F32(a as u32)
}

macro_rules! check_both {
    ($single:ident, $double:ident, $operation:expr) => {
        check(
            stringify!($single),
            $single,
            |env, a, b| $operation(env, single(a), single(b)).0.into(),
            false,
        );
        check(stringify!($double), $double, |env, a, b| $operation(env, F64(a), F64(b)).0, true);
    };
}

#[test]
fn sums_agree_with_the_host() {
    check_both!(addss, addsd, sse::add);
    check_both!(subss, subsd, sse::sub);
}

#[test]
fn products_and_quotients_agree_with_the_host() {
    check_both!(mulss, mulsd, sse::mul);
    check_both!(divss, divsd, sse::div);
}

#[test]
fn square_roots_agree_with_the_host() {
    check("sqrtss", sqrtss, |env, a, _| sse::sqrt(env, single(a)).0.into(), false);
    check("sqrtsd", sqrtsd, |env, a, _| sse::sqrt(env, F64(a)).0, true);
}

#[test]
fn minima_and_maxima_agree_with_the_host() {
    check_both!(minss, minsd, sse::min);
    check_both!(maxss, maxsd, sse::max);
}

#[test]
fn comparisons_agree_with_the_host() {
    check("comiss", comiss, |env, a, b| as_flags(sse::compare(env, single(a), single(b))), false);
    check("ucomiss", ucomiss, |env, a, b| as_flags(sse::compare_quiet(env, single(a), single(b))), false);
    check("comisd", comisd, |env, a, b| as_flags(sse::compare(env, F64(a), F64(b))), true);
    check("ucomisd", ucomisd, |env, a, b| as_flags(sse::compare_quiet(env, F64(a), F64(b))), true);
}

#[test]
fn conversions_between_formats_agree_with_the_host() {
    check("cvtss2sd", cvtss2sd, |env, a, _| sse::widen(env, single(a)).0, false);
    check("cvtsd2ss", cvtsd2ss, |env, a, _| sse::narrow(env, F64(a)).0.into(), true);
}

#[test]
fn conversions_to_integers_agree_with_the_host() {
    check("cvtss2si", cvtss2si, |env, a, _| sse::to_i32(env, single(a), env.rounding) as u32 as u64, false);
    check(
        "cvttss2si",
        cvttss2si,
        |env, a, _| sse::to_i32(env, single(a), Rounding::Zero) as u32 as u64,
        false,
    );
    check("cvtsd2si", cvtsd2si, |env, a, _| sse::to_i32(env, F64(a), env.rounding) as u32 as u64, true);
    check("cvttsd2si", cvttsd2si, |env, a, _| sse::to_i32(env, F64(a), Rounding::Zero) as u32 as u64, true);
}

#[test]
fn conversions_from_integers_agree_with_the_host() {
    check("cvtsi2ss", cvtsi2ss, |env, a, _| sse::from_i32::<F32>(env, a as i32).0.into(), false);
    check("cvtsi2sd", cvtsi2sd, |env, a, _| sse::from_i32::<F64>(env, a as i32).0, true);
}
