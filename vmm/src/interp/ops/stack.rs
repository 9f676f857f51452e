//! The stack: PUSH, POP, their all-register forms, frames.
//!
//! The engine puts ESP back when an instruction faults, so handlers may move it early.

use super::by_word_size;
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::registers::Seg;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{EAX, EBP, EDI, ESP, Ends, Handler, Imm, Mem, Op, Place, Reg, Size, Target};
use iced_x86::{Mnemonic, Register};

/// ENTER takes its nesting level modulo this.
const NESTING_LEVELS: u16 = 32;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    let size = (form.instruction.stack_pointer_increment().unsigned_abs() & 0xff) as u8;
    let segment = form.register(0).is_segment_register();
    Some(match form.mnemonic {
        Mnemonic::Push => match form.kinds[0] {
            Kind::Memory => by_word_size!(size, push, Mem),
            Kind::Immediate => by_word_size!(size, push, Imm),
            _ if segment => by_word_size!(size, push_segment),
            _ => by_word_size!(size, push, Reg),
        },
        Mnemonic::Pop => match form.kinds[0] {
            Kind::Memory => by_word_size!(size, pop, Mem),
            _ if segment => {
                if form.register(0) == Register::SS {
                    op.ends = Ends::Full;
                }
                by_word_size!(size, pop_segment)
            }
            _ => by_word_size!(size, pop, Reg),
        },
        Mnemonic::Pusha => by_word_size!(2, push_all),
        Mnemonic::Pushad => by_word_size!(4, push_all),
        Mnemonic::Popa => by_word_size!(2, pop_all),
        Mnemonic::Popad => by_word_size!(4, pop_all),
        Mnemonic::Enter => by_word_size!(frame_size(form), enter),
        Mnemonic::Leave => by_word_size!(frame_size(form), leave),
        _ => return None,
    })
}

fn frame_size(form: &Decoded) -> u8 {
    use iced_x86::Code;
    match form.instruction.code() {
        Code::Enterw_imm16_imm8 | Code::Leavew => 2,
        _ => 4,
    }
}

/// PUSH of a value of the operand size.
#[inline(always)]
pub fn push_value<B: Bus, S: Size>(cpu: &mut Vcpu<B>, value: u32) -> Exec {
    if S::BITS == 16 { cpu.push16(value as u16) } else { cpu.push32(value) }
}

/// POP of a value of the operand size.
#[inline(always)]
pub fn pop_value<B: Bus, S: Size>(cpu: &mut Vcpu<B>) -> Exec<u32> {
    if S::BITS == 16 { Ok(u32::from(cpu.pop16()?)) } else { cpu.pop32() }
}

fn push<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = R::read::<B, S>(cpu, op)?;
    push_value::<B, S>(cpu, value)
}

fn pop<B: Bus, S: Size, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    // The address of a memory destination uses ESP after the pop.
    let value = pop_value::<B, S>(cpu)?;
    D::write::<B, S>(cpu, op, value)
}

fn push_segment<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let segment = Seg::from_encoding(op.reg).ok_or(Fault::ud())?;
    let selector = cpu.state.segment(segment).selector;
    push_value::<B, S>(cpu, u32::from(selector))
}

fn pop_segment<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let segment = Seg::from_encoding(op.reg).ok_or(Fault::ud())?;
    let selector = pop_value::<B, S>(cpu)? as u16;
    if segment == Seg::Ss { cpu.load_ss_with_shadow(selector) } else { cpu.load_segment(segment, selector) }
}

fn push_all<B: Bus, S: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let original = cpu.state.gpr[ESP as usize];
    for register in EAX..=EDI {
        let value = if register == ESP { original } else { cpu.state.gpr[register as usize & 7] };
        push_value::<B, S>(cpu, value)?;
    }
    Ok(())
}

fn pop_all<B: Bus, S: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let mut values = [0; 8];
    for register in (EAX..=EDI).rev() {
        values[register as usize & 7] = pop_value::<B, S>(cpu)?;
    }
    for register in EAX..=EDI {
        if register != ESP {
            S::set(cpu, register, values[register as usize & 7]);
        }
    }
    Ok(())
}

/// Replaces the part of ESP that the stack's size uses.
fn set_stack_pointer<B: Bus>(cpu: &mut Vcpu<B>, value: u32) {
    let mask = cpu.stack_mask();
    let esp = &mut cpu.state.gpr[ESP as usize];
    *esp = *esp & !mask | value & mask;
}

fn enter<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let level = op.imm2 % NESTING_LEVELS;
    let mask = cpu.stack_mask();
    let old_frame = cpu.state.gpr[EBP as usize];
    push_value::<B, S>(cpu, old_frame)?;
    let frame = cpu.state.gpr[ESP as usize];
    if level > 0 {
        let mut outer = old_frame;
        for _ in 1..level {
            outer = outer.wrapping_sub(S::BITS / 8);
            let pointer = S::load(cpu, Seg::Ss, outer & mask)?;
            push_value::<B, S>(cpu, pointer)?;
        }
        push_value::<B, S>(cpu, frame)?;
    }
    let top = cpu.state.gpr[ESP as usize].wrapping_sub(op.imm);
    // A frame that cannot be written faults now, before EBP changes.
    cpu.probe_write(Seg::Ss, top & mask, S::BITS / 8)?;
    set_stack_pointer(cpu, top);
    S::set(cpu, EBP, frame);
    Ok(())
}

fn leave<B: Bus, S: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let frame = cpu.state.gpr[EBP as usize];
    set_stack_pointer(cpu, frame);
    let value = pop_value::<B, S>(cpu)?;
    S::set(cpu, EBP, value);
    Ok(())
}
