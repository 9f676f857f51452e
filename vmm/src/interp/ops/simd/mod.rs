//! MMX, SSE and SSE2: operations on vectors in MMX and XMM registers.
//!
//! Handlers are put together from a register file ([`Unit`]), a [`Source`] and an operation. An [`Operation`]
//! cannot fault and is written once for both widths; what rounds and raises numeric exceptions is in [`float`]
//! and [`convert`]. Rules of processor state (checks, aliasing with the x87) are those of `cpu`.

mod control;
mod convert;
mod float;
mod integer;
mod moves;
mod reciprocal;
mod shuffle;
mod vector;

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::model::feature;
use crate::cpu::registers::Seg;
use crate::cpu::word::{Vector64, Vector128, Word};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Imm, Mem, Op, Rm};
use iced_x86::CpuidFeature;
use std::marker::PhantomData;
use vector::Vector;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    // Later extensions give some of the same mnemonics other forms.
    let ours = |feature: &CpuidFeature| {
        matches!(feature, CpuidFeature::MMX | CpuidFeature::SSE | CpuidFeature::SSE2 | CpuidFeature::CLFSH)
    };
    if !form.instruction.cpuid_features().iter().any(ours) {
        return None;
    }
    integer::select(form)
        .or_else(|| shuffle::select(form))
        .or_else(|| moves::select(form, op))
        .or_else(|| float::select(form))
        .or_else(|| convert::select(form))
        .or_else(|| reciprocal::select(form))
        .or_else(|| control::select(form))
}

/// A file of registers, and the rules of instructions on it.
trait Unit: 'static {
    /// What a register holds.
    type Value: Vector;

    /// What comes before the instruction: #UD, #NM, #MF.
    fn check<B: Bus>(cpu: &mut Vcpu<B>) -> Exec;
    /// Reads a register.
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> Self::Value;
    /// Writes a register.
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: Self::Value);
    /// What an instruction does to the state besides, if it only reads registers.
    fn touch<B: Bus>(cpu: &mut Vcpu<B>);
    /// Reads a whole operand from memory.
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<Self::Value>;
    /// Writes a whole operand to memory.
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: Self::Value) -> Exec;
}

/// The MMX registers, for instructions that `FEATURE` brought.
struct Mm<const FEATURE: u32>;
/// The XMM registers, for instructions that `FEATURE` brought.
struct Xmm<const FEATURE: u32>;

impl<const FEATURE: u32> Unit for Mm<FEATURE> {
    type Value = Vector64;

    #[inline(always)]
    fn check<B: Bus>(cpu: &mut Vcpu<B>) -> Exec {
        cpu.check_mmx(FEATURE)
    }

    #[inline(always)]
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> Vector64 {
        Vector64::of(cpu.state.fpu.mm(register))
    }

    #[inline(always)]
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: Vector64) {
        cpu.state.fpu.enter_mmx();
        value.put(cpu.state.fpu.mm_mut(register));
    }

    #[inline(always)]
    fn touch<B: Bus>(cpu: &mut Vcpu<B>) {
        cpu.state.fpu.enter_mmx();
    }

    #[inline(always)]
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<Vector64> {
        cpu.read(segment, offset)
    }

    #[inline(always)]
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: Vector64) -> Exec {
        cpu.write(segment, offset, value)
    }
}

impl<const FEATURE: u32> Unit for Xmm<FEATURE> {
    type Value = Vector128;

    #[inline(always)]
    fn check<B: Bus>(cpu: &mut Vcpu<B>) -> Exec {
        cpu.check_xmm(FEATURE)
    }

    #[inline(always)]
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> Vector128 {
        Vector128::of(&cpu.state.fpu.xmm[(register & 7) as usize])
    }

    #[inline(always)]
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: Vector128) {
        value.put(&mut cpu.state.fpu.xmm[(register & 7) as usize]);
    }

    #[inline(always)]
    fn touch<B: Bus>(_cpu: &mut Vcpu<B>) {}

    #[inline(always)]
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<Vector128> {
        cpu.read_aligned(segment, offset)
    }

    #[inline(always)]
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: Vector128) -> Exec {
        cpu.write_aligned(segment, offset, value)
    }
}

/// Where the second operand is.
trait Source: 'static {
    /// Reads it.
    fn read<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value>;
}

/// As much memory as `W` has, whatever its alignment, zero-extended.
struct Part<W>(PhantomData<W>);
/// A general register, zero-extended.
struct Gpr;

impl Source for Rm {
    #[inline(always)]
    fn read<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value> {
        Ok(U::get(cpu, op.rm))
    }
}

impl Source for Mem {
    #[inline(always)]
    fn read<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value> {
        let offset = op.offset(cpu);
        U::load(cpu, op.segment, offset)
    }
}

impl<W: Word + 'static> Source for Part<W> {
    #[inline(always)]
    fn read<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value> {
        let offset = op.offset(cpu);
        Ok(U::Value::narrow(cpu.read::<W>(op.segment, offset)?.widen()))
    }
}

impl Source for Gpr {
    #[inline(always)]
    fn read<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value> {
        Ok(U::Value::narrow(u128::from(cpu.state.gpr[(op.rm & 7) as usize])))
    }
}

impl Source for Imm {
    #[inline(always)]
    fn read<B: Bus, U: Unit>(_cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<U::Value> {
        Ok(U::Value::narrow(u128::from(op.imm)))
    }
}

/// What an instruction computes from its first and its second operand and its immediate.
trait Operation: 'static {
    /// Computes it.
    fn apply<V: Vector>(a: V, b: V, imm: u8) -> V;
}

fn compute<B: Bus, U: Unit, O: Operation, S: Source>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    let b = S::read::<B, U>(cpu, op)?;
    let a = U::get(cpu, op.reg);
    U::set(cpu, op.reg, O::apply(a, b, op.imm as u8));
    Ok(())
}

/// [`compute`] on the registers of `U`, with the second operand where the instruction has it, all of it.
fn compute_on<B: Bus, U: Unit, O: Operation>(form: &Decoded) -> Handler<B> {
    match form.kinds[1] {
        Kind::Memory => compute::<B, U, O, Mem>,
        Kind::Immediate => compute::<B, U, O, Imm>,
        _ => compute::<B, U, O, Rm>,
    }
}

/// The same on MMX registers, for which the operation came with `FEATURE`, or on XMM registers with SSE2.
fn compute_either<B: Bus, O: Operation, const FEATURE: u32>(form: &Decoded) -> Handler<B> {
    if form.register(0).is_mm() {
        compute_on::<B, Mm<FEATURE>, O>(form)
    } else {
        compute_on::<B, Xmm<{ feature::SSE2 }>, O>(form)
    }
}

/// What an instruction takes out of a vector for a general register.
trait Extraction: 'static {
    /// Takes it.
    fn apply<V: Vector>(value: V, imm: u8) -> u32;
}

fn extract<B: Bus, U: Unit, E: Extraction>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    let value = U::get(cpu, op.rm);
    U::touch(cpu);
    cpu.state.gpr[(op.reg & 7) as usize] = E::apply(value, op.imm as u8);
    Ok(())
}

/// [`extract`] from MMX registers, for which the operation came with `FEATURE`, or from XMM registers with SSE2.
fn extract_either<B: Bus, E: Extraction, const FEATURE: u32>(form: &Decoded) -> Handler<B> {
    if form.register(1).is_mm() {
        extract::<B, Mm<FEATURE>, E>
    } else {
        extract::<B, Xmm<{ feature::SSE2 }>, E>
    }
}
