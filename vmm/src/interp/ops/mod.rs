//! The instructions, one file per group. Each group's `select` names the handler for an
//! instruction that it knows.

pub mod alu;
pub mod bcd;
pub mod bits;
pub mod control;
pub mod flag;
pub mod fpu;
pub mod io;
pub mod mov;
pub mod muldiv;
pub mod shift;
mod simd;
pub mod stack;
pub mod string;
pub mod system;

use super::decode::Decoded;
use super::op::{Ends, Handler, Op};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};

/// The handler for a decoded instruction; #UD where no group knows it.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Handler<B> {
    alu::select(form)
        .or_else(|| mov::select(form, op))
        .or_else(|| control::select(form, op))
        .or_else(|| stack::select(form, op))
        .or_else(|| shift::select(form))
        .or_else(|| muldiv::select(form))
        // Before the string instructions: MOVSD and CMPSD are names of both.
        .or_else(|| simd::select(form, op))
        .or_else(|| string::select(form, op))
        .or_else(|| bits::select(form))
        .or_else(|| flag::select(form, op))
        .or_else(|| bcd::select(form))
        .or_else(|| io::select(form, op))
        .or_else(|| system::select(form, op))
        .or_else(|| fpu::select(form, op))
        .unwrap_or_else(|| {
            op.ends = Ends::Full;
            undefined
        })
}

/// The handler that does the same but computes no flags, where there is one.
pub fn select_quiet<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    alu::select_quiet(form).or_else(|| shift::select_quiet(form))
}

/// An opcode that no model has, or one that may not have its LOCK prefix.
pub fn undefined<B: Bus>(_cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    Err(Fault::ud())
}

/// An instruction that is longer than 15 bytes.
pub fn too_long<B: Bus>(_cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    Err(Fault::gp(0))
}

/// One handler per operand size.
macro_rules! by_size {
    ($size:expr, $handler:ident $(, $argument:ty)*) => {
        match $size {
            1 => $handler::<B, $crate::interp::op::Byte $(, $argument)*> as $crate::interp::op::Handler<B>,
            2 => $handler::<B, $crate::interp::op::Word $(, $argument)*>,
            _ => $handler::<B, $crate::interp::op::Dword $(, $argument)*>,
        }
    };
}

/// One handler per operand size, for instructions that have no byte form.
macro_rules! by_word_size {
    ($size:expr, $handler:ident $(, $argument:ty)*) => {
        match $size {
            2 => $handler::<B, $crate::interp::op::Word $(, $argument)*> as $crate::interp::op::Handler<B>,
            _ => $handler::<B, $crate::interp::op::Dword $(, $argument)*>,
        }
    };
}

/// One handler per condition code.
macro_rules! by_condition {
    ($condition:expr, $handler:ident $(, $argument:ty)*) => {
        match $condition & 15 {
            0 => $handler::<B, 0 $(, $argument)*> as $crate::interp::op::Handler<B>,
            1 => $handler::<B, 1 $(, $argument)*>,
            2 => $handler::<B, 2 $(, $argument)*>,
            3 => $handler::<B, 3 $(, $argument)*>,
            4 => $handler::<B, 4 $(, $argument)*>,
            5 => $handler::<B, 5 $(, $argument)*>,
            6 => $handler::<B, 6 $(, $argument)*>,
            7 => $handler::<B, 7 $(, $argument)*>,
            8 => $handler::<B, 8 $(, $argument)*>,
            9 => $handler::<B, 9 $(, $argument)*>,
            10 => $handler::<B, 10 $(, $argument)*>,
            11 => $handler::<B, 11 $(, $argument)*>,
            12 => $handler::<B, 12 $(, $argument)*>,
            13 => $handler::<B, 13 $(, $argument)*>,
            14 => $handler::<B, 14 $(, $argument)*>,
            _ => $handler::<B, 15 $(, $argument)*>,
        }
    };
}

use {by_condition, by_size, by_word_size};

/// Whether condition code `CONDITION` (its encoding in Jcc, SETcc and CMOVcc) holds.
#[inline(always)]
fn holds<const CONDITION: u8>(flags: super::flags::LazyFlags) -> bool {
    let positive = match CONDITION >> 1 {
        0 => flags.overflow(),
        1 => flags.carry(),
        2 => flags.zero(),
        3 => flags.carry() | flags.zero(),
        4 => flags.sign(),
        5 => flags.parity(),
        6 => flags.sign() != flags.overflow(),
        _ => flags.zero() | (flags.sign() != flags.overflow()),
    };
    positive != (CONDITION & 1 != 0)
}
