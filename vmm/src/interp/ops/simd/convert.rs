//! Conversions between single, double and 32-bit integers, in XMM, MMX and general registers.

use super::float::{Element, Numeric, element, numeric, with_exceptions};
use super::vector::{Lanes, lane, split};
use super::{Gpr, Mm, Part, Source, Unit, Xmm};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::model::feature::{SSE, SSE2};
use crate::cpu::word::{Vector64, Vector128, Word};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Mem, Op, Rm};
use crate::softfloat::sse;
use crate::softfloat::{Env, F32, F64, Rounding};
use iced_x86::Mnemonic;
use std::marker::PhantomData;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    let memory = form.kinds[1] == Kind::Memory;
    Some(match form.mnemonic {
        Mnemonic::Cvtss2sd if memory => numeric::<B, Xmm<SSE2>, Widen, Part<u32>>,
        Mnemonic::Cvtss2sd => numeric::<B, Xmm<SSE2>, Widen, Rm>,
        Mnemonic::Cvtsd2ss if memory => numeric::<B, Xmm<SSE2>, Narrow, Part<u64>>,
        Mnemonic::Cvtsd2ss => numeric::<B, Xmm<SSE2>, Narrow, Rm>,
        Mnemonic::Cvtps2pd if memory => numeric::<B, Xmm<SSE2>, WidenBoth, Part<u64>>,
        Mnemonic::Cvtps2pd => numeric::<B, Xmm<SSE2>, WidenBoth, Rm>,
        Mnemonic::Cvtpd2ps => whole::<B, NarrowBoth>(memory),
        Mnemonic::Cvtdq2ps => whole::<B, FromIntegers<F32, 4>>(memory),
        Mnemonic::Cvtdq2pd if memory => numeric::<B, Xmm<SSE2>, FromIntegers<F64, 2>, Part<u64>>,
        Mnemonic::Cvtdq2pd => numeric::<B, Xmm<SSE2>, FromIntegers<F64, 2>, Rm>,
        Mnemonic::Cvtps2dq => whole::<B, ToIntegers<F32, 4, AsSet>>(memory),
        Mnemonic::Cvttps2dq => whole::<B, ToIntegers<F32, 4, Truncate>>(memory),
        Mnemonic::Cvtpd2dq => whole::<B, ToIntegers<F64, 2, AsSet>>(memory),
        Mnemonic::Cvttpd2dq => whole::<B, ToIntegers<F64, 2, Truncate>>(memory),
        Mnemonic::Cvtpi2ps if memory => from_mmx_memory::<B, FromIntegersLow, SSE, true>,
        Mnemonic::Cvtpi2ps => from_mmx::<B, FromIntegersLow, SSE>,
        Mnemonic::Cvtpi2pd if memory => from_mmx_memory::<B, FromIntegers<F64, 2>, SSE2, false>,
        Mnemonic::Cvtpi2pd => from_mmx::<B, FromIntegers<F64, 2>, SSE2>,
        Mnemonic::Cvtps2pi if memory => to_mmx::<B, Xmm<SSE>, ToIntegers<F32, 2, AsSet>, Part<u64>>,
        Mnemonic::Cvtps2pi => to_mmx::<B, Xmm<SSE>, ToIntegers<F32, 2, AsSet>, Rm>,
        Mnemonic::Cvttps2pi if memory => to_mmx::<B, Xmm<SSE>, ToIntegers<F32, 2, Truncate>, Part<u64>>,
        Mnemonic::Cvttps2pi => to_mmx::<B, Xmm<SSE>, ToIntegers<F32, 2, Truncate>, Rm>,
        Mnemonic::Cvtpd2pi if memory => to_mmx::<B, Xmm<SSE2>, ToIntegers<F64, 2, AsSet>, Mem>,
        Mnemonic::Cvtpd2pi => to_mmx::<B, Xmm<SSE2>, ToIntegers<F64, 2, AsSet>, Rm>,
        Mnemonic::Cvttpd2pi if memory => to_mmx::<B, Xmm<SSE2>, ToIntegers<F64, 2, Truncate>, Mem>,
        Mnemonic::Cvttpd2pi => to_mmx::<B, Xmm<SSE2>, ToIntegers<F64, 2, Truncate>, Rm>,
        Mnemonic::Cvtsi2ss => from_general::<B, F32>(memory),
        Mnemonic::Cvtsi2sd => from_general::<B, F64>(memory),
        Mnemonic::Cvtss2si => to_general::<B, F32, AsSet>(memory),
        Mnemonic::Cvtsd2si => to_general::<B, F64, AsSet>(memory),
        Mnemonic::Cvttss2si => to_general::<B, F32, Truncate>(memory),
        Mnemonic::Cvttsd2si => to_general::<B, F64, Truncate>(memory),
        _ => return None,
    })
}

/// From a whole XMM register, or an operand in memory as large.
fn whole<B: Bus, N: Numeric>(memory: bool) -> Handler<B> {
    if memory { numeric::<B, Xmm<SSE2>, N, Mem> } else { numeric::<B, Xmm<SSE2>, N, Rm> }
}

/// How a conversion to an integer rounds.
trait Mode: 'static {
    /// The mode.
    fn rounding(env: &Env) -> Rounding;
}

/// As MXCSR says.
struct AsSet;
/// Towards zero.
struct Truncate;

impl Mode for AsSet {
    #[inline(always)]
    fn rounding(env: &Env) -> Rounding {
        env.rounding
    }
}

impl Mode for Truncate {
    #[inline(always)]
    fn rounding(_env: &Env) -> Rounding {
        Rounding::Zero
    }
}

/// The lowest single, as the lowest double.
struct Widen;
/// The lowest double, as the lowest single.
struct Narrow;
/// The two lowest singles.
struct WidenBoth;
/// Both doubles, with zeros above.
struct NarrowBoth;
/// The `N` lowest integers.
struct FromIntegers<E, const N: usize>(PhantomData<E>);
/// The two lowest integers as singles, below what the destination has.
struct FromIntegersLow;
/// The lowest integer, below what the destination has.
struct FromInteger<E>(PhantomData<E>);
/// The `N` lowest elements, with zeros above.
struct ToIntegers<E, const N: usize, M>(PhantomData<(E, M)>);

impl Numeric for Widen {
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        F64::with_lowest(a, sse::widen(env, F32::lowest(b)))
    }
}

impl Numeric for Narrow {
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        F32::with_lowest(a, sse::narrow(env, F64::lowest(b)))
    }
}

impl Numeric for WidenBoth {
    #[inline(always)]
    fn apply(env: &mut Env, _a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        let low = sse::widen(env, element(b, 0));
        let high = sse::widen(env, element(b, 1));
        Lanes::<u64>::join([low.0, high.0])
    }
}

impl Numeric for NarrowBoth {
    #[inline(always)]
    fn apply(env: &mut Env, _a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        let low = sse::narrow(env, element(b, 0));
        let high = sse::narrow(env, element(b, 1));
        Lanes::<u32>::join([low.0, high.0, 0, 0])
    }
}

/// Integer n of a vector.
#[inline(always)]
fn integer(vector: Vector128, n: usize) -> i32 {
    let lanes = split::<u32, Vector128>(vector);
    lane::<u32, _>(&lanes, n) as i32
}

impl<E: Element, const N: usize> Numeric for FromIntegers<E, N>
where
    Vector128: Lanes<E::Bits>,
{
    #[inline(always)]
    fn apply(env: &mut Env, _a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        let mut lanes = split::<E::Bits, Vector128>(Vector128::default());
        for (n, lane) in lanes.as_mut().iter_mut().take(N).enumerate() {
            *lane = sse::from_i32::<E>(env, integer(b, n)).bits();
        }
        Lanes::<E::Bits>::join(lanes)
    }
}

impl Numeric for FromIntegersLow {
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        let low: F32 = sse::from_i32(env, integer(b, 0));
        let high: F32 = sse::from_i32(env, integer(b, 1));
        let [_, _, c, d] = split::<u32, Vector128>(a);
        Lanes::<u32>::join([low.0, high.0, c, d])
    }
}

impl<E: Element> Numeric for FromInteger<E> {
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        E::with_lowest(a, sse::from_i32(env, integer(b, 0)))
    }
}

impl<E: Element, const N: usize, M: Mode> Numeric for ToIntegers<E, N, M>
where
    Vector128: Lanes<E::Bits>,
{
    #[inline(always)]
    fn apply(env: &mut Env, _a: Vector128, b: Vector128, _imm: u8) -> Vector128 {
        let mut lanes = [0u32; 4];
        for (n, lane) in lanes.iter_mut().take(N).enumerate() {
            let rounding = M::rounding(env);
            *lane = sse::to_i32::<E>(env, element(b, n), rounding) as u32;
        }
        Lanes::<u32>::join(lanes)
    }
}

/// CVTPI2PS and CVTPI2PD of an MMX register.
fn from_mmx<B: Bus, N: Numeric, const FEATURE: u32>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_mmx_and_xmm(FEATURE)?;
    let b = Mm::<FEATURE>::get(cpu, op.rm);
    convert_from_mmx::<B, N, FEATURE>(cpu, op, b)?;
    cpu.state.fpu.enter_mmx();
    Ok(())
}

/// CVTPI2PS and CVTPI2PD of memory: the former is an MMX instruction (`MMX`) even so.
fn from_mmx_memory<B: Bus, N: Numeric, const FEATURE: u32, const MMX: bool>(
    cpu: &mut Vcpu<B>,
    op: &Op<B>,
) -> Exec {
    if MMX {
        cpu.check_mmx_and_xmm(FEATURE)?;
    } else {
        cpu.check_xmm(FEATURE)?;
    }
    let offset = op.offset(cpu);
    let b = cpu.read(op.segment, offset)?;
    convert_from_mmx::<B, N, FEATURE>(cpu, op, b)?;
    if MMX {
        cpu.state.fpu.enter_mmx();
    }
    Ok(())
}

#[inline(always)]
fn convert_from_mmx<B: Bus, N: Numeric, const FEATURE: u32>(
    cpu: &mut Vcpu<B>,
    op: &Op<B>,
    b: Vector64,
) -> Exec {
    let a = Xmm::<FEATURE>::get(cpu, op.reg);
    let b = Vector128::narrow(b.widen());
    let result = with_exceptions(cpu, |env| N::apply(env, a, b, 0))?;
    Xmm::<FEATURE>::set(cpu, op.reg, result);
    Ok(())
}

fn to_mmx<B: Bus, U: Unit<Value = Vector128>, N: Numeric, S: Source>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    cpu.check_fpu_error()?;
    let b = S::read::<B, U>(cpu, op)?;
    let result = with_exceptions(cpu, |env| N::apply(env, Vector128::default(), b, 0))?;
    cpu.state.fpu.enter_mmx();
    *cpu.state.fpu.mm_mut(op.reg) = result.widen() as u64;
    Ok(())
}

fn from_general<B: Bus, E: Element>(memory: bool) -> Handler<B> {
    if memory {
        numeric::<B, E::Unit, FromInteger<E>, Part<u32>>
    } else {
        numeric::<B, E::Unit, FromInteger<E>, Gpr>
    }
}

fn to_general<B: Bus, E: Element, M: Mode>(memory: bool) -> Handler<B> {
    if memory { to_gpr::<B, E, M, Part<E::Bits>> } else { to_gpr::<B, E, M, Rm> }
}

fn to_gpr<B: Bus, E: Element, M: Mode, S: Source>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    E::Unit::check(cpu)?;
    let b = E::lowest(S::read::<B, E::Unit>(cpu, op)?);
    let result = with_exceptions(cpu, |env| {
        let rounding = M::rounding(env);
        sse::to_i32(env, b, rounding)
    })?;
    cpu.state.gpr[(op.reg & 7) as usize] = result as u32;
    Ok(())
}
