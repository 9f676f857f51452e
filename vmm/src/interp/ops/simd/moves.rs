//! Moves between vector registers, general registers and memory.

use super::vector::{Vector, split};
use super::{Extraction, Gpr, Mm, Operation, Part, Source, Unit, Xmm, compute, compute_on, extract};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::model::feature::{MMX, SSE, SSE2};
use crate::cpu::word::{Vector64, Vector128, Word};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{EDI, Handler, Op, Rm};
use iced_x86::{Mnemonic, Register};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let stores = form.kinds[0] == Kind::Memory;
    Some(match form.mnemonic {
        Mnemonic::Movaps if stores => store::<B, Xmm<SSE>>,
        Mnemonic::Movaps => compute_on::<B, Xmm<SSE>, Move>(form),
        Mnemonic::Movapd | Mnemonic::Movdqa if stores => store::<B, Xmm<SSE2>>,
        Mnemonic::Movapd | Mnemonic::Movdqa => compute_on::<B, Xmm<SSE2>, Move>(form),
        Mnemonic::Movups => unaligned::<B, SSE>(form),
        Mnemonic::Movupd | Mnemonic::Movdqu => unaligned::<B, SSE2>(form),
        Mnemonic::Movntps => store::<B, Xmm<SSE>>,
        Mnemonic::Movntpd | Mnemonic::Movntdq => store::<B, Xmm<SSE2>>,
        Mnemonic::Movntq => store::<B, Mm<SSE>>,
        Mnemonic::Movnti => store_general::<B>,
        Mnemonic::Movss => scalar::<B, Xmm<SSE>, MergeDword, u32>(form),
        Mnemonic::Movsd => scalar::<B, Xmm<SSE2>, MergeLow, u64>(form),
        Mnemonic::Movlps if stores => store_part::<B, Xmm<SSE>, u64>,
        Mnemonic::Movlps => compute::<B, Xmm<SSE>, MergeLow, Part<u64>>,
        Mnemonic::Movlpd if stores => store_part::<B, Xmm<SSE2>, u64>,
        Mnemonic::Movlpd => compute::<B, Xmm<SSE2>, MergeLow, Part<u64>>,
        Mnemonic::Movhps if stores => store_high::<B, SSE>,
        Mnemonic::Movhps => compute::<B, Xmm<SSE>, MergeHigh, Part<u64>>,
        Mnemonic::Movhpd if stores => store_high::<B, SSE2>,
        Mnemonic::Movhpd => compute::<B, Xmm<SSE2>, MergeHigh, Part<u64>>,
        Mnemonic::Movhlps => compute::<B, Xmm<SSE>, HighToLow, Rm>,
        Mnemonic::Movlhps => compute::<B, Xmm<SSE>, MergeHigh, Rm>,
        Mnemonic::Movd if form.register(0).is_mm() || form.register(1).is_mm() => {
            doubleword::<B, Mm<MMX>>(form)
        }
        Mnemonic::Movd => doubleword::<B, Xmm<SSE2>>(form),
        Mnemonic::Movq => match (form.register(0), form.register(1)) {
            (to, from) if to.is_mm() || from.is_mm() => match stores {
                true => store::<B, Mm<MMX>>,
                false => compute_on::<B, Mm<MMX>, Move>(form),
            },
            (_, Register::None) => compute::<B, Xmm<SSE2>, Move, Part<u64>>,
            (Register::None, _) => store_part::<B, Xmm<SSE2>, u64>,
            _ => compute::<B, Xmm<SSE2>, LowAlone, Rm>,
        },
        Mnemonic::Movq2dq => mm_to_xmm::<B>,
        Mnemonic::Movdq2q => xmm_to_mm::<B>,
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu => {
            // The operand that is written is implicit, DS:EDI or DS:DI; what is stored comes second, the mask third.
            op.set_address(Some(EDI), None, 0, 0, if form.wide_address { u32::MAX } else { 0xffff });
            op.reg = form.instruction.op2_register().number() as u8;
            if form.mnemonic == Mnemonic::Maskmovq {
                store_masked::<B, Mm<SSE>>
            } else {
                store_masked::<B, Xmm<SSE2>>
            }
        }
        _ => return None,
    })
}

fn unaligned<B: Bus, const FEATURE: u32>(form: &Decoded) -> Handler<B> {
    match form.kinds {
        [Kind::Memory, ..] => store_part::<B, Xmm<FEATURE>, Vector128>,
        [_, Kind::Memory, _] => compute::<B, Xmm<FEATURE>, Move, Part<Vector128>>,
        _ => compute::<B, Xmm<FEATURE>, Move, Rm>,
    }
}

/// MOVSS and MOVSD: between registers they leave the other lanes alone, from memory they clear them.
fn scalar<B: Bus, U: Unit, O: Operation, W: Word + 'static>(form: &Decoded) -> Handler<B> {
    match form.kinds {
        [Kind::Memory, ..] => store_part::<B, U, W>,
        [_, Kind::Memory, _] => compute::<B, U, Move, Part<W>>,
        _ => compute::<B, U, O, Rm>,
    }
}

fn doubleword<B: Bus, U: Unit>(form: &Decoded) -> Handler<B> {
    match form.kinds {
        [Kind::Memory, ..] => store_part::<B, U, u32>,
        [_, Kind::Memory, _] => compute::<B, U, Move, Part<u32>>,
        _ if form.register(0).is_gpr() => extract::<B, U, Low>,
        _ => compute::<B, U, Move, Gpr>,
    }
}

struct Move;
struct LowAlone;
struct MergeDword;
struct MergeLow;
struct MergeHigh;
struct HighToLow;
struct Low;

impl Operation for Move {
    #[inline(always)]
    fn apply<V: Vector>(_a: V, b: V, _imm: u8) -> V {
        b
    }
}

impl Operation for LowAlone {
    #[inline(always)]
    fn apply<V: Vector>(_a: V, b: V, _imm: u8) -> V {
        V::narrow(u128::from(b.widen() as u64))
    }
}

impl Operation for MergeDword {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        V::narrow(a.widen() & !u128::from(u32::MAX) | u128::from(b.widen() as u32))
    }
}

impl Operation for MergeLow {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        V::narrow(a.widen() & !u128::from(u64::MAX) | u128::from(b.widen() as u64))
    }
}

impl Operation for MergeHigh {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        V::narrow(u128::from(a.widen() as u64) | b.widen() << 64)
    }
}

impl Operation for HighToLow {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        V::narrow(a.widen() & !u128::from(u64::MAX) | b.widen() >> 64)
    }
}

impl Extraction for Low {
    #[inline(always)]
    fn apply<V: Vector>(value: V, _imm: u8) -> u32 {
        value.widen() as u32
    }
}

fn store<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    let offset = op.offset(cpu);
    let value = U::get(cpu, op.rm);
    U::store(cpu, op.segment, offset, value)?;
    U::touch(cpu);
    Ok(())
}

/// Stores the low bits of a register, whatever the alignment.
fn store_part<B: Bus, U: Unit, W: Word>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    let offset = op.offset(cpu);
    let value = W::narrow(U::get(cpu, op.rm).widen());
    cpu.write::<W>(op.segment, offset, value)?;
    U::touch(cpu);
    Ok(())
}

fn store_high<B: Bus, const FEATURE: u32>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    Xmm::<FEATURE>::check(cpu)?;
    let offset = op.offset(cpu);
    let value = Xmm::<FEATURE>::get(cpu, op.rm).widen() >> 64;
    cpu.write_u64(op.segment, offset, value as u64)
}

/// MOVNTI: general registers only, so it depends on nothing but the model.
fn store_general<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    if !cpu.state.model.has(SSE2) {
        return Err(Fault::ud());
    }
    let offset = op.offset(cpu);
    cpu.write_u32(op.segment, offset, cpu.state.gpr[(op.rm & 7) as usize])
}

fn mm_to_xmm<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_mmx_and_xmm(SSE2)?;
    let value = Rm::read::<B, Mm<SSE2>>(cpu, op)?;
    cpu.state.fpu.enter_mmx();
    Xmm::<SSE2>::set(cpu, op.reg, Vector128::narrow(value.widen()));
    Ok(())
}

fn xmm_to_mm<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.check_mmx_and_xmm(SSE2)?;
    let value = Rm::read::<B, Xmm<SSE2>>(cpu, op)?;
    Mm::<SSE2>::set(cpu, op.reg, Vector64::narrow(value.widen()));
    Ok(())
}

/// MASKMOVQ and MASKMOVDQU: the bytes of `op.rm` whose byte of the mask `op.reg` has its sign bit set.
fn store_masked<B: Bus, U: Unit>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    U::check(cpu)?;
    let offset = op.offset(cpu);
    let value = split::<u8, U::Value>(U::get(cpu, op.rm));
    let mask = split::<u8, U::Value>(U::get(cpu, op.reg));
    let selected = mask.as_ref().iter().any(|mask| *mask >= 0x80);
    if selected {
        cpu.probe_write(op.segment, offset, U::Value::SIZE)?;
        for (n, (byte, mask)) in value.as_ref().iter().zip(mask.as_ref()).enumerate() {
            if *mask >= 0x80 {
                cpu.write_u8(op.segment, offset.wrapping_add(n as u32), *byte)?;
            }
        }
    }
    U::touch(cpu);
    Ok(())
}
