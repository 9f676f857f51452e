//! The coprocessor escape: with no x87 yet, what a processor without coprocessor does.
//!
//! ESC instructions raise #NM as CR0 demands; otherwise they compute their address and do nothing, so
//! that FNSTSW and FNSTCW leave their destination unchanged, which is how software finds no FPU.

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::interp::decode::Decoded;
use crate::interp::op::{Handler, Op};
use iced_x86::Mnemonic;

/// The opcodes that address a coprocessor.
const ESCAPES: std::ops::RangeInclusive<u8> = 0xd8..=0xdf;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Wait => wait::<B>,
        _ if ESCAPES.contains(&form.opcode) => escape::<B>,
        _ => return None,
    })
}

fn wait<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_wait()
}

fn escape<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    cpu.check_fpu()
}
