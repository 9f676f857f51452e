//! Control transfers: jumps, calls, returns, interrupts, BOUND.
//!
//! When these run, EIP is that of the next instruction; the engine puts EIP and ESP back on a fault.

use super::stack::{pop_value, push_value};
use super::{by_condition, by_word_size, holds};
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::{SoftInterrupt, Vcpu};
use crate::interp::decode::{Decoded, Kind, is_wide_far};
use crate::interp::op::{ECX, ESP, Ends, Handler, Mem, Op, Place, Reg, Size};
use iced_x86::{Code, Mnemonic};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let code = form.instruction.code();
    let size = branch_size(form);
    let handler = match form.mnemonic {
        Mnemonic::Jmp => match form.kinds[0] {
            Kind::Branch if form.instruction.is_jmp_short_or_near() => by_word_size!(size, jump),
            Kind::Branch => jump_far::<B>,
            Kind::Memory if code == Code::Jmp_m1632 => jump_far_indirect::<B, true>,
            Kind::Memory if code == Code::Jmp_m1616 => jump_far_indirect::<B, false>,
            Kind::Memory => by_word_size!(size, jump_indirect, Mem),
            _ => by_word_size!(size, jump_indirect, Reg),
        },
        Mnemonic::Call => match form.kinds[0] {
            Kind::Branch if form.instruction.is_call_near() => by_word_size!(size, call),
            Kind::Branch if is_wide_far(code) => call_far::<B, true>,
            Kind::Branch => call_far::<B, false>,
            Kind::Memory if code == Code::Call_m1632 => call_far_indirect::<B, true>,
            Kind::Memory if code == Code::Call_m1616 => call_far_indirect::<B, false>,
            Kind::Memory => by_word_size!(size, call_indirect, Mem),
            _ => by_word_size!(size, call_indirect, Reg),
        },
        Mnemonic::Ret => {
            by_word_size!(if matches!(code, Code::Retnw | Code::Retnw_imm16) { 2 } else { 4 }, ret)
        }
        Mnemonic::Retf if is_wide_far(code) => ret_far::<B, true>,
        Mnemonic::Retf => ret_far::<B, false>,
        Mnemonic::Iret => iret::<B, false>,
        Mnemonic::Iretd => iret::<B, true>,
        Mnemonic::Int => interrupt::<B>,
        Mnemonic::Int3 => breakpoint::<B>,
        Mnemonic::Into => overflow::<B>,
        Mnemonic::Int1 => debug_trap::<B>,
        Mnemonic::Bound => {
            let size = form.register(0).size();
            return Some(by_word_size!(size, bound));
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => select_loop(form, size),
        Mnemonic::Jcxz => by_word_size!(size, jump_if_zero_count, crate::interp::op::Word),
        Mnemonic::Jecxz => by_word_size!(size, jump_if_zero_count, crate::interp::op::Dword),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => super::undefined::<B>,
        _ => {
            let condition = form.jump_condition()?;
            match size {
                2 => by_condition!(condition, jump_if, crate::interp::op::Word),
                _ => by_condition!(condition, jump_if, crate::interp::op::Dword),
            }
        }
    };
    op.ends = match form.mnemonic {
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into | Mnemonic::Int1 => Ends::Interrupt,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Retf => Ends::Full,
        Mnemonic::Jmp | Mnemonic::Call if is_far(form) => Ends::Full,
        _ => Ends::Near,
    };
    Some(handler)
}

/// The handler of a conditional jump that is not the last instruction of its block: it leaves the block when
/// the jump is taken ([`Fault::BRANCH`]) and has no effect else.
pub fn select_side_exit<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(by_condition!(form.jump_condition()?, side_exit))
}

fn is_far(form: &Decoded) -> bool {
    let instruction = &form.instruction;
    instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far()
        || instruction.is_call_far_indirect()
}

/// Operand size of a near transfer.
fn branch_size(form: &Decoded) -> u8 {
    use iced_x86::OpKind;
    match form.instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::FarBranch16 => 2,
        OpKind::NearBranch32 | OpKind::FarBranch32 => 4,
        _ => form.size,
    }
}

fn select_loop<B: Bus>(form: &Decoded, size: u8) -> Handler<B> {
    use crate::interp::op::{Dword, Word};
    use Code::*;
    let narrow_count = matches!(
        form.instruction.code(),
        Loop_rel8_16_CX
            | Loop_rel8_32_CX
            | Loope_rel8_16_CX
            | Loope_rel8_32_CX
            | Loopne_rel8_16_CX
            | Loopne_rel8_32_CX
    );
    match (form.mnemonic, narrow_count) {
        (Mnemonic::Loop, true) => by_word_size!(size, count_down, Word, Always),
        (Mnemonic::Loop, false) => by_word_size!(size, count_down, Dword, Always),
        (Mnemonic::Loope, true) => by_word_size!(size, count_down, Word, WhileEqual),
        (Mnemonic::Loope, false) => by_word_size!(size, count_down, Dword, WhileEqual),
        (_, true) => by_word_size!(size, count_down, Word, WhileNotEqual),
        (_, false) => by_word_size!(size, count_down, Dword, WhileNotEqual),
    }
}

/// Jumps to next EIP + displacement, truncated to the operand size.
#[inline(always)]
fn jump_relative<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let target = cpu.state.eip.wrapping_add(op.imm) & S::MASK;
    cpu.jump_near(target)
}

fn jump<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    jump_relative::<B, S>(cpu, op)
}

fn jump_if<B: Bus, const CONDITION: u8, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    if holds::<CONDITION>(cpu.lazy) { jump_relative::<B, S>(cpu, op) } else { Ok(()) }
}

fn side_exit<B: Bus, const CONDITION: u8>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    if holds::<CONDITION>(cpu.lazy) { Err(Fault::BRANCH) } else { Ok(()) }
}

fn jump_if_zero_count<B: Bus, S: Size, C: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    if C::get(cpu, ECX) == 0 { jump_relative::<B, S>(cpu, op) } else { Ok(()) }
}

trait LoopCondition: 'static {
    fn goes_on(zero: bool) -> bool;
}

struct Always;
struct WhileEqual;
struct WhileNotEqual;

impl LoopCondition for Always {
    fn goes_on(_zero: bool) -> bool {
        true
    }
}

impl LoopCondition for WhileEqual {
    fn goes_on(zero: bool) -> bool {
        zero
    }
}

impl LoopCondition for WhileNotEqual {
    fn goes_on(zero: bool) -> bool {
        !zero
    }
}

fn count_down<B: Bus, S: Size, C: Size, L: LoopCondition>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let count = C::get(cpu, ECX).wrapping_sub(1) & C::MASK;
    if count != 0 && L::goes_on(cpu.lazy.zero()) {
        jump_relative::<B, S>(cpu, op)?;
    }
    C::set(cpu, ECX, count);
    Ok(())
}

fn jump_indirect<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let target = R::read::<B, S>(cpu, op)?;
    cpu.jump_near(target)
}

fn call<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let back = cpu.state.eip;
    jump_relative::<B, S>(cpu, op)?;
    push_value::<B, S>(cpu, back)
}

fn call_indirect<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let target = R::read::<B, S>(cpu, op)?;
    let back = cpu.state.eip;
    cpu.jump_near(target)?;
    push_value::<B, S>(cpu, back)
}

fn ret<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let target = pop_value::<B, S>(cpu)?;
    cpu.jump_near(target)?;
    release::<B>(cpu, op.imm);
    Ok(())
}

/// Drops `bytes` of parameters.
fn release<B: Bus>(cpu: &mut Vcpu<B>, bytes: u32) {
    let mask = cpu.stack_mask();
    let esp = &mut cpu.state.gpr[ESP as usize];
    *esp = *esp & !mask | esp.wrapping_add(bytes) & mask;
}

fn jump_far<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.far_jump(op.imm2, op.imm)
}

fn call_far<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.far_call(op.imm2, op.imm, WIDE)
}

/// Reads a far pointer: selector and offset.
fn far_pointer<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<(u16, u32)> {
    let offset = op.offset(cpu);
    if WIDE {
        let target = cpu.read_u32(op.segment, offset)?;
        Ok((cpu.read_u16(op.segment, offset.wrapping_add(4))?, target))
    } else {
        let target = cpu.read_u16(op.segment, offset)?;
        Ok((cpu.read_u16(op.segment, offset.wrapping_add(2))?, u32::from(target)))
    }
}

fn jump_far_indirect<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let (selector, offset) = far_pointer::<B, WIDE>(cpu, op)?;
    cpu.far_jump(selector, offset)
}

fn call_far_indirect<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let (selector, offset) = far_pointer::<B, WIDE>(cpu, op)?;
    cpu.far_call(selector, offset, WIDE)
}

fn ret_far<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.far_return(WIDE, op.imm as u16)
}

fn iret<B: Bus, const WIDE: bool>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.iret(WIDE)
}

fn interrupt<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    cpu.software_interrupt(SoftInterrupt::Int(op.imm as u8))
}

fn breakpoint<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.software_interrupt(SoftInterrupt::Int3)
}

fn overflow<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    if !cpu.lazy.overflow() {
        return Ok(());
    }
    cpu.software_interrupt(SoftInterrupt::Into)
}

/// INT1 (F1).
fn debug_trap<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.software_interrupt(SoftInterrupt::Int1)
}

fn bound<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    let lower = S::sign_extend(S::load(cpu, op.segment, offset)?) as i32;
    let upper = S::sign_extend(S::load(cpu, op.segment, offset.wrapping_add(S::BITS / 8))?) as i32;
    let index = S::sign_extend(S::get(cpu, op.reg)) as i32;
    if index < lower || index > upper { Err(Fault::br()) } else { Ok(()) }
}
