//! What all x87 instructions do before and after their work: checks, last-instruction pointers, exceptions, stack
//! faults (SDM vol. 1, sections 8.1 and 8.5).

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::fpu::{FpuState, fcw, fsw};
use crate::cpu::registers::Seg;
use crate::interp::op::Op;
use crate::softfloat::{Env, F80, Precision, Rounding, exception};

/// Before a waiting instruction.
#[inline(always)]
pub fn begin<B: Bus>(cpu: &mut Vcpu<B>) -> Exec {
    cpu.check_fpu()?;
    cpu.check_fpu_error()
}

/// Remembers a non-control instruction.
#[inline(always)]
pub fn note<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) {
    let offset = op.address(cpu);
    let selector = cpu.state.segment(Seg::Cs).selector;
    let fpu = &mut cpu.state.fpu;
    fpu.opcode = op.imm2;
    fpu.instruction_offset = offset;
    fpu.instruction_selector = selector;
}

/// Remembers a non-control instruction with a memory operand.
#[inline(always)]
pub fn note_operand<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>, offset: u32) {
    note(cpu, op);
    let selector = cpu.state.segment(op.segment).selector;
    cpu.state.fpu.operand_offset = offset;
    cpu.state.fpu.operand_selector = selector;
}

/// What the control word says about arithmetic.
#[inline(always)]
pub fn environment(fpu: &FpuState) -> Env {
    let precision = match (fpu.control & fcw::PC) >> fcw::PC_SHIFT {
        0 => Precision::Single,
        2 => Precision::Double,
        _ => Precision::Extended,
    };
    Env {
        rounding: Rounding::from_rc(u32::from(fpu.control >> fcw::RC_SHIFT)),
        precision,
        unmasked: (!fpu.control & fcw::MASKS) as u8,
        ..Env::default()
    }
}

/// Sets C1.
#[inline(always)]
pub fn set_c1(fpu: &mut FpuState, c1: bool) {
    fpu.status = fpu.status & !fsw::C1 | if c1 { fsw::C1 } else { 0 };
}

/// Takes over the exceptions that an operation raised, and C1. Whether it has a result.
#[inline(always)]
pub fn complete<B: Bus>(cpu: &mut Vcpu<B>, env: &Env) -> bool {
    cpu.state.fpu.status |= u16::from(env.flags);
    set_c1(&mut cpu.state.fpu, env.rounded_up);
    if env.trapped() {
        cpu.update_fpu_summary();
        return !env.stopped();
    }
    true
}

/// Raises a stack fault. Whether the instruction goes on, with indefinite values.
#[cold]
fn stack_fault<B: Bus>(cpu: &mut Vcpu<B>, overflow: bool) -> bool {
    let fpu = &mut cpu.state.fpu;
    fpu.status |= u16::from(exception::IE) | fsw::SF;
    set_c1(fpu, overflow);
    cpu.update_fpu_summary();
    cpu.state.fpu.control & u16::from(exception::IE) != 0
}

/// An operand is empty. Whether the instruction goes on, with indefinite values.
#[cold]
pub fn underflow<B: Bus>(cpu: &mut Vcpu<B>) -> bool {
    stack_fault(cpu, false)
}

/// There is no room for a value to be pushed. Whether the instruction goes on, with indefinite values.
#[cold]
pub fn overflow<B: Bus>(cpu: &mut Vcpu<B>) -> bool {
    stack_fault(cpu, true)
}

/// Whether a push would overwrite a value.
#[inline(always)]
pub fn is_full(fpu: &FpuState) -> bool {
    !fpu.is_empty(7)
}

/// Pushes, or pushes the indefinite value where there is no room.
#[inline(always)]
pub fn push<B: Bus>(cpu: &mut Vcpu<B>, value: F80) {
    if is_full(&cpu.state.fpu) {
        if overflow(cpu) {
            cpu.state.fpu.push(F80::INDEFINITE);
        }
    } else {
        set_c1(&mut cpu.state.fpu, false);
        cpu.state.fpu.push(value);
    }
}

/// Pops `count` registers.
#[inline(always)]
pub fn pop<B: Bus>(cpu: &mut Vcpu<B>, count: u8) {
    for _ in 0..count {
        cpu.state.fpu.pop();
    }
}
