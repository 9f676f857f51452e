//! Data movement: MOV, extensions, exchanges, LEA, conditional moves, XLAT, segment loads.

use super::{by_condition, by_size, by_word_size, holds};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::registers::Seg;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{
    Byte, Dword, EAX, EBX, EDX, Ends, Handler, Imm, Mem, Op, Place, Reg, Rm, Size, Target, Word,
};
use iced_x86::{Code, Mnemonic, Register};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let memory_source = form.kinds[1] == Kind::Memory;
    let source_size = form.instruction.memory_size().size();
    Some(match form.mnemonic {
        Mnemonic::Mov => return moves(form, op),
        Mnemonic::Movzx | Mnemonic::Movsx => {
            let source_is_byte = if memory_source { source_size == 1 } else { form.register(1).is_gpr8() };
            let signed = form.mnemonic == Mnemonic::Movsx;
            match (source_is_byte, signed, memory_source) {
                (true, false, true) => by_word_size!(form.size, extend, Byte, Zero, Mem),
                (true, false, false) => by_word_size!(form.size, extend, Byte, Zero, Rm),
                (true, true, true) => by_word_size!(form.size, extend, Byte, Sign, Mem),
                (true, true, false) => by_word_size!(form.size, extend, Byte, Sign, Rm),
                (false, false, true) => by_word_size!(form.size, extend, Word, Zero, Mem),
                (false, false, false) => by_word_size!(form.size, extend, Word, Zero, Rm),
                (false, true, true) => by_word_size!(form.size, extend, Word, Sign, Mem),
                (false, true, false) => by_word_size!(form.size, extend, Word, Sign, Rm),
            }
        }
        Mnemonic::Xchg => match form.kinds {
            [Kind::Memory, ..] => by_size!(form.size, exchange, Mem),
            _ => by_size!(form.size, exchange, Reg),
        },
        Mnemonic::Lea => by_word_size!(form.size, load_address),
        Mnemonic::Nop | Mnemonic::Reservednop | Mnemonic::Prefetchw | Mnemonic::Prefetch => no_operation::<B>,
        Mnemonic::Cbw => convert_byte::<B>,
        Mnemonic::Cwde => convert_word::<B>,
        Mnemonic::Cwd => by_word_size!(2, convert_double),
        Mnemonic::Cdq => by_word_size!(4, convert_double),
        Mnemonic::Xlatb => translate_byte::<B>,
        Mnemonic::Les => by_word_size!(form_far_size(form), load_far, Es),
        Mnemonic::Lds => by_word_size!(form_far_size(form), load_far, Ds),
        Mnemonic::Lss => by_word_size!(form_far_size(form), load_far, Ss),
        Mnemonic::Lfs => by_word_size!(form_far_size(form), load_far, Fs),
        Mnemonic::Lgs => by_word_size!(form_far_size(form), load_far, Gs),
        _ => match form.move_condition() {
            Some(condition) => match (form.size, memory_source) {
                (2, true) => by_condition!(condition, move_if, Word, Mem),
                (2, false) => by_condition!(condition, move_if, Word, Rm),
                (_, true) => by_condition!(condition, move_if, Dword, Mem),
                (_, false) => by_condition!(condition, move_if, Dword, Rm),
            },
            None => return None,
        },
    })
}

fn form_far_size(form: &Decoded) -> u8 {
    form.register(0).size() as u8
}

fn moves<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    Some(match form.instruction.code() {
        Code::Mov_rm16_Sreg => match form.kinds[0] {
            Kind::Memory => store_segment::<B>,
            _ => by_word_size!(2, move_segment),
        },
        Code::Mov_r32m16_Sreg => match form.kinds[0] {
            Kind::Memory => store_segment::<B>,
            _ => by_word_size!(4, move_segment),
        },
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => {
            if form.register(0) == Register::SS {
                op.ends = Ends::Full;
            }
            match form.kinds[1] {
                Kind::Memory => load_segment::<B, Mem>,
                _ => load_segment::<B, Rm>,
            }
        }
        _ if form.register(0).is_cr() || form.register(0).is_dr() || form.register(0).is_tr() => return None,
        _ if form.register(1).is_cr() || form.register(1).is_dr() || form.register(1).is_tr() => return None,
        _ => match (form.kinds[0], form.kinds[1]) {
            (Kind::Memory, Kind::Immediate) => by_size!(form.size, copy, Mem, Imm),
            (Kind::Memory, _) => by_size!(form.size, copy, Mem, Rm),
            (_, Kind::Memory) => by_size!(form.size, copy, Reg, Mem),
            (_, Kind::Immediate) => by_size!(form.size, copy, Reg, Imm),
            _ => by_size!(form.size, copy, Reg, Rm),
        },
    })
}

fn copy<B: Bus, S: Size, D: Target, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = R::read::<B, S>(cpu, op)?;
    D::write::<B, S>(cpu, op, value)
}

trait Extension: 'static {
    fn extend<S: Size>(value: u32) -> u32;
}

struct Zero;
struct Sign;

impl Extension for Zero {
    #[inline(always)]
    fn extend<S: Size>(value: u32) -> u32 {
        value
    }
}

impl Extension for Sign {
    #[inline(always)]
    fn extend<S: Size>(value: u32) -> u32 {
        S::sign_extend(value)
    }
}

fn extend<B: Bus, S: Size, F: Size, E: Extension, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = E::extend::<F>(R::read::<B, F>(cpu, op)?);
    S::set(cpu, op.reg, value);
    Ok(())
}

fn exchange<B: Bus, S: Size, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let new = S::get(cpu, op.rm);
    D::modify::<B, S>(cpu, op, |cpu, old| {
        S::set(cpu, op.rm, old);
        new
    })
}

fn load_address<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    S::set(cpu, op.reg, offset);
    Ok(())
}

/// NOP, also the hint opcodes 0F 18 to 0F 1F and 0F 0D: their memory operand is not accessed.
fn no_operation<B: Bus>(_cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    Ok(())
}

fn convert_byte<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let value = Byte::sign_extend(Byte::get(cpu, EAX));
    Word::set(cpu, EAX, value);
    Ok(())
}

fn convert_word<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let value = Word::sign_extend(Word::get(cpu, EAX));
    Dword::set(cpu, EAX, value);
    Ok(())
}

fn convert_double<B: Bus, S: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let negative = S::get(cpu, EAX) & S::SIGN != 0;
    S::set(cpu, EDX, if negative { S::MASK } else { 0 });
    Ok(())
}

/// XLAT: iced gives the address as BX plus AL; AL is added here because it is a byte register.
fn translate_byte<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = cpu.state.gpr[EBX as usize].wrapping_add(Byte::get(cpu, EAX)) & op.address_mask;
    let value = Byte::load(cpu, op.segment, offset)?;
    Byte::set(cpu, EAX, value);
    Ok(())
}

fn move_if<B: Bus, const CONDITION: u8, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    // The source is read, and can fault, whatever the condition.
    let value = R::read::<B, S>(cpu, op)?;
    if holds::<CONDITION>(cpu.lazy) {
        S::set(cpu, op.reg, value);
    }
    Ok(())
}

/// A segment register known at compile time.
trait SegmentName: 'static {
    const SEGMENT: Seg;
}

struct Es;
struct Ss;
struct Ds;
struct Fs;
struct Gs;

impl SegmentName for Es {
    const SEGMENT: Seg = Seg::Es;
}
impl SegmentName for Ss {
    const SEGMENT: Seg = Seg::Ss;
}
impl SegmentName for Ds {
    const SEGMENT: Seg = Seg::Ds;
}
impl SegmentName for Fs {
    const SEGMENT: Seg = Seg::Fs;
}
impl SegmentName for Gs {
    const SEGMENT: Seg = Seg::Gs;
}

/// LDS and its relatives: the offset first in memory, then the selector.
fn load_far<B: Bus, S: Size, N: SegmentName>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    let value = S::load(cpu, op.segment, offset)?;
    let selector_offset = offset.wrapping_add(S::BITS / 8);
    let selector = cpu.read_u16(op.segment, selector_offset)?;
    cpu.load_segment(N::SEGMENT, selector)?;
    S::set(cpu, op.reg, value);
    Ok(())
}

fn segment_of(encoding: u8) -> Exec<Seg> {
    Seg::from_encoding(encoding).ok_or(Fault::ud())
}

/// MOV r, Sreg. A 32-bit register gets zeroes above, as on every P6.
fn move_segment<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let selector = cpu.state.segment(segment_of(op.rm)?).selector;
    S::set(cpu, op.reg, u32::from(selector));
    Ok(())
}

/// MOV m, Sreg: 16 bits whatever the operand size.
fn store_segment<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let selector = cpu.state.segment(segment_of(op.rm)?).selector;
    let offset = op.offset(cpu);
    cpu.write_u16(op.segment, offset, selector)
}

fn load_segment<B: Bus, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let segment = segment_of(op.reg)?;
    if segment == Seg::Cs {
        return Err(Fault::ud());
    }
    let selector = R::read::<B, Word>(cpu, op)? as u16;
    if segment == Seg::Ss { cpu.load_ss_with_shadow(selector) } else { cpu.load_segment(segment, selector) }
}
