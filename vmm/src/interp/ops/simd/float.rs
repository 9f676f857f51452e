//! Arithmetic and comparison of single and double precision, packed and scalar, with the exceptions of MXCSR.

use super::vector::{Lanes, lane, split};
use super::{Part, Source, Unit, Xmm};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::fpu::mxcsr;
use crate::cpu::model::feature::{SSE, SSE2};
use crate::cpu::registers::{cr4, eflags};
use crate::cpu::word::{Vector128, Word};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Mem, Op, Rm};
use crate::softfloat::sse::{self, Format};
use crate::softfloat::{Env, F32, F64, Relation, Rounding, exception};
use iced_x86::Mnemonic;
use std::marker::PhantomData;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Addps => packed::<B, F32, Add>(form),
        Mnemonic::Addpd => packed::<B, F64, Add>(form),
        Mnemonic::Addss => scalar::<B, F32, Add>(form),
        Mnemonic::Addsd => scalar::<B, F64, Add>(form),
        Mnemonic::Subps => packed::<B, F32, Sub>(form),
        Mnemonic::Subpd => packed::<B, F64, Sub>(form),
        Mnemonic::Subss => scalar::<B, F32, Sub>(form),
        Mnemonic::Subsd => scalar::<B, F64, Sub>(form),
        Mnemonic::Mulps => packed::<B, F32, Mul>(form),
        Mnemonic::Mulpd => packed::<B, F64, Mul>(form),
        Mnemonic::Mulss => scalar::<B, F32, Mul>(form),
        Mnemonic::Mulsd => scalar::<B, F64, Mul>(form),
        Mnemonic::Divps => packed::<B, F32, Div>(form),
        Mnemonic::Divpd => packed::<B, F64, Div>(form),
        Mnemonic::Divss => scalar::<B, F32, Div>(form),
        Mnemonic::Divsd => scalar::<B, F64, Div>(form),
        Mnemonic::Sqrtps => packed::<B, F32, Sqrt>(form),
        Mnemonic::Sqrtpd => packed::<B, F64, Sqrt>(form),
        Mnemonic::Sqrtss => scalar::<B, F32, Sqrt>(form),
        Mnemonic::Sqrtsd => scalar::<B, F64, Sqrt>(form),
        Mnemonic::Minps => packed::<B, F32, Min>(form),
        Mnemonic::Minpd => packed::<B, F64, Min>(form),
        Mnemonic::Minss => scalar::<B, F32, Min>(form),
        Mnemonic::Minsd => scalar::<B, F64, Min>(form),
        Mnemonic::Maxps => packed::<B, F32, Max>(form),
        Mnemonic::Maxpd => packed::<B, F64, Max>(form),
        Mnemonic::Maxss => scalar::<B, F32, Max>(form),
        Mnemonic::Maxsd => scalar::<B, F64, Max>(form),
        Mnemonic::Cmpps => packed::<B, F32, Compare>(form),
        Mnemonic::Cmppd => packed::<B, F64, Compare>(form),
        Mnemonic::Cmpss => scalar::<B, F32, Compare>(form),
        Mnemonic::Cmpsd => scalar::<B, F64, Compare>(form),
        Mnemonic::Comiss => compare_flags::<B, F32, false>(form),
        Mnemonic::Comisd => compare_flags::<B, F64, false>(form),
        Mnemonic::Ucomiss => compare_flags::<B, F32, true>(form),
        Mnemonic::Ucomisd => compare_flags::<B, F64, true>(form),
        _ => return None,
    })
}

/// A format as lanes of XMM registers have it.
pub(super) trait Element: Format + Copy + 'static {
    /// The integer with the same bits.
    type Bits: Word + Copy + Default + 'static;
    /// XMM registers, for the feature that brought the format.
    type Unit: Unit<Value = Vector128>;

    /// The value with these bits.
    fn from_bits(bits: Self::Bits) -> Self;
    /// Its bits.
    fn bits(self) -> Self::Bits;

    /// The lowest one.
    #[inline(always)]
    fn lowest(vector: Vector128) -> Self {
        Self::from_bits(Self::Bits::narrow(vector.widen()))
    }

    /// `vector` with the lowest one replaced.
    #[inline(always)]
    fn with_lowest(vector: Vector128, value: Self) -> Vector128 {
        let mask = u128::MAX << (8 * Self::Bits::SIZE);
        Vector128::narrow(vector.widen() & mask | value.bits().widen())
    }
}

impl Element for F32 {
    type Bits = u32;
    type Unit = Xmm<SSE>;

    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        F32(bits)
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        self.0
    }
}

impl Element for F64 {
    type Bits = u64;
    type Unit = Xmm<SSE2>;

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        F64(bits)
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        self.0
    }
}

/// A computation that rounds, or raises exceptions, or both.
pub(super) trait Numeric: 'static {
    /// Computes it from the old value of the destination, the source, and the immediate.
    fn apply(env: &mut Env, a: Vector128, b: Vector128, imm: u8) -> Vector128;
}

/// What an instruction computes from one or two elements.
trait Arithmetic: 'static {
    /// Computes it.
    fn apply<E: Element>(env: &mut Env, a: E, b: E, imm: u8) -> E;
}

/// In every lane.
struct Packed<E, A>(PhantomData<(E, A)>);
/// In the lowest lane.
struct Scalar<E, A>(PhantomData<(E, A)>);

impl<E: Element, A: Arithmetic> Numeric for Packed<E, A>
where
    Vector128: Lanes<E::Bits>,
{
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, imm: u8) -> Vector128 {
        let mut a = split::<E::Bits, Vector128>(a);
        let b = split::<E::Bits, Vector128>(b);
        for (a, b) in a.as_mut().iter_mut().zip(b.as_ref()) {
            *a = A::apply(env, E::from_bits(*a), E::from_bits(*b), imm).bits();
        }
        Lanes::<E::Bits>::join(a)
    }
}

impl<E: Element, A: Arithmetic> Numeric for Scalar<E, A> {
    #[inline(always)]
    fn apply(env: &mut Env, a: Vector128, b: Vector128, imm: u8) -> Vector128 {
        E::with_lowest(a, A::apply(env, E::lowest(a), E::lowest(b), imm))
    }
}

fn packed<B: Bus, E: Element, A: Arithmetic>(form: &Decoded) -> Handler<B>
where
    Vector128: Lanes<E::Bits>,
{
    match form.kinds[1] {
        Kind::Memory => numeric::<B, E::Unit, Packed<E, A>, Mem>,
        _ => numeric::<B, E::Unit, Packed<E, A>, Rm>,
    }
}

fn scalar<B: Bus, E: Element, A: Arithmetic>(form: &Decoded) -> Handler<B> {
    match form.kinds[1] {
        Kind::Memory => numeric::<B, E::Unit, Scalar<E, A>, Part<E::Bits>>,
        _ => numeric::<B, E::Unit, Scalar<E, A>, Rm>,
    }
}

/// From XMM registers or memory to an XMM register.
pub(super) fn numeric<B: Bus, U: Unit<Value = Vector128>, N: Numeric, S: Source>(
    cpu: &mut Vcpu<B>,
    op: &Op<B>,
) -> Exec {
    U::check(cpu)?;
    let b = S::read::<B, U>(cpu, op)?;
    let a = U::get(cpu, op.reg);
    let result = with_exceptions(cpu, |env| N::apply(env, a, b, op.imm as u8))?;
    U::set(cpu, op.reg, result);
    Ok(())
}

/// Runs a computation under the modes of MXCSR. Its exceptions are collected there; an unmasked one is raised,
/// and then the instruction must change nothing else.
#[inline(always)]
pub(super) fn with_exceptions<B: Bus, R>(cpu: &mut Vcpu<B>, compute: impl FnOnce(&mut Env) -> R) -> Exec<R> {
    let mxcsr = cpu.state.fpu.mxcsr;
    let unmasked = !(mxcsr >> mxcsr::MASKS_SHIFT) as u8 & exception::ALL;
    let mut env = Env {
        rounding: Rounding::from_rc(mxcsr >> mxcsr::RC_SHIFT),
        unmasked,
        daz: mxcsr & mxcsr::DAZ != 0,
        ftz: mxcsr & mxcsr::FZ != 0,
        // Flags are sticky. With an exception unmasked it matters which of them are new.
        flags: if unmasked == 0 { mxcsr as u8 & exception::ALL } else { 0 },
        ..Env::default()
    };
    let result = compute(&mut env);
    if unmasked == 0 {
        cpu.state.fpu.mxcsr = mxcsr | u32::from(env.flags);
    } else {
        raise_unmasked(cpu, &env)?;
    }
    Ok(result)
}

#[cold]
#[inline(never)]
fn raise_unmasked<B: Bus>(cpu: &mut Vcpu<B>, env: &Env) -> Exec {
    // What is found before computing, in any element, keeps the others from being computed.
    let stopped_before = env.flags & env.unmasked & exception::BEFORE != 0;
    let flags = if stopped_before { env.flags & exception::BEFORE } else { env.flags };
    cpu.state.fpu.mxcsr |= u32::from(flags);
    if flags & env.unmasked == 0 {
        Ok(())
    } else if cpu.state.cr4 & cr4::OSXMMEXCPT != 0 {
        Err(Fault::xm())
    } else {
        Err(Fault::ud())
    }
}

struct Add;
struct Sub;
struct Mul;
struct Div;
struct Sqrt;
struct Min;
struct Max;
struct Compare;

impl Arithmetic for Add {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::add(env, a, b)
    }
}

impl Arithmetic for Sub {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::sub(env, a, b)
    }
}

impl Arithmetic for Mul {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::mul(env, a, b)
    }
}

impl Arithmetic for Div {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::div(env, a, b)
    }
}

impl Arithmetic for Sqrt {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, _a: E, b: E, _imm: u8) -> E {
        sse::sqrt(env, b)
    }
}

impl Arithmetic for Min {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::min(env, a, b)
    }
}

impl Arithmetic for Max {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, _imm: u8) -> E {
        sse::max(env, a, b)
    }
}

/// The predicates of CMPPS and its relatives; bit 2 negates.
mod predicate {
    pub(super) const EQUAL: u8 = 0;
    pub(super) const LESS: u8 = 1;
    pub(super) const LESS_OR_EQUAL: u8 = 2;
    pub(super) const UNORDERED: u8 = 3;
    pub(super) const KIND: u8 = 3;
    pub(super) const NEGATED: u8 = 1 << 2;
}

impl Arithmetic for Compare {
    #[inline(always)]
    fn apply<E: Element>(env: &mut Env, a: E, b: E, imm: u8) -> E {
        let kind = imm & predicate::KIND;
        let relation = match kind {
            predicate::EQUAL | predicate::UNORDERED => sse::compare_quiet(env, a, b),
            _ => sse::compare(env, a, b),
        };
        let holds = match kind {
            predicate::EQUAL => relation == Relation::Equal,
            predicate::LESS => relation == Relation::Less,
            predicate::LESS_OR_EQUAL => matches!(relation, Relation::Less | Relation::Equal),
            _ => relation == Relation::Unordered,
        };
        let result = holds != (imm & predicate::NEGATED != 0);
        E::from_bits(E::Bits::narrow(if result { u128::MAX } else { 0 }))
    }
}

fn compare_flags<B: Bus, E: Element, const QUIET: bool>(form: &Decoded) -> Handler<B> {
    match form.kinds[1] {
        Kind::Memory => compare_to_flags::<B, E, QUIET, Part<E::Bits>>,
        _ => compare_to_flags::<B, E, QUIET, Rm>,
    }
}

/// COMISS and (`QUIET`) UCOMISS.
fn compare_to_flags<B: Bus, E: Element, const QUIET: bool, S: Source>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    E::Unit::check(cpu)?;
    let b = E::lowest(S::read::<B, E::Unit>(cpu, op)?);
    let a = E::lowest(E::Unit::get(cpu, op.reg));
    let relation = with_exceptions(cpu, |env| match QUIET {
        true => sse::compare_quiet(env, a, b),
        false => sse::compare(env, a, b),
    })?;
    cpu.lazy.set_bits(match relation {
        Relation::Less => eflags::CF,
        Relation::Equal => eflags::ZF,
        Relation::Greater => 0,
        Relation::Unordered => eflags::ZF | eflags::PF | eflags::CF,
    });
    Ok(())
}

/// Element n of a vector.
#[inline(always)]
pub(super) fn element<E: Element>(vector: Vector128, n: usize) -> E
where
    Vector128: Lanes<E::Bits>,
{
    let lanes = split::<E::Bits, Vector128>(vector);
    E::from_bits(lane(&lanes, n))
}
