//! The x87 floating-point unit of a Pentium III (SDM vol. 1, chapter 8; vol. 2).
//!
//! What is computed is in `softfloat`; here is which operands, what becomes of the register stack, and when
//! exceptions are reported: an unmasked one by the next waiting instruction ([`Vcpu::check_fpu_error`]). A memory
//! operand is read before anything changes, and written before anything but memory changes, so that an instruction
//! which faults can be restarted.
//!
//! - `unit.rs`: what all instructions do before and after their work.
//! - `arithmetic.rs`: arithmetic and comparisons. `transfer.rs`: loads, stores and constants.
//! - `transcendental.rs`: logarithms and trigonometry, with the host's unit (`host.rs`) where it has one.
//! - `control.rs`: the unit's own state; `fxsave.rs`: FXSAVE and FXRSTOR.

mod arithmetic;
mod control;
mod fxsave;
#[cfg(target_arch = "x86_64")]
mod host;
mod transcendental;
mod transfer;
mod unit;

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::interp::decode::Decoded;
use crate::interp::op::{Handler, Op};
use iced_x86::Mnemonic;

/// The opcodes that address a coprocessor.
const ESCAPES: std::ops::RangeInclusive<u8> = 0xd8..=0xdf;
/// The bits of such an opcode that are part of FOP.
const OPCODE_BITS: u8 = 7;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    match form.mnemonic {
        Mnemonic::Wait => return Some(wait::<B>),
        Mnemonic::Fxsave | Mnemonic::Fxrstor => return fxsave::select(form),
        _ if !ESCAPES.contains(&form.opcode) => return None,
        _ => {}
    }
    // FOP, which these instructions leave for FNSTENV.
    op.imm2 = u16::from(form.opcode & OPCODE_BITS) << 8 | u16::from(form.second);
    arithmetic::select(form, op)
        .or_else(|| transfer::select(form, op))
        .or_else(|| transcendental::select(form))
        .or_else(|| control::select(form))
}

fn wait<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_wait()?;
    cpu.check_fpu_error()
}
