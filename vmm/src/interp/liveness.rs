//! Which instructions of a block need not compute their flags, because later ones overwrite all of them
//! before anybody can look: no fault and no way out of the block lies between. An access to memory may fault
//! before it, and leave the block after it: code was written, or a debugger's watchpoint met.

use super::decode::Decoded;
use super::op::{Ends, Handler, Op};
use crate::cpu::bus::Bus;
use iced_x86::{Mnemonic, OpKind, RflagsBits};

/// All arithmetic flags, as iced-x86 numbers them.
const ALL: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;
/// Shift counts are taken modulo 32; a count of zero changes no flag.
const COUNT_MASK: u8 = 31;

/// What an instruction has to do with flags.
pub struct FlagUse<B: Bus> {
    /// Flags that it reads.
    read: u32,
    /// Flags that do not depend on their old value after it.
    killed: u32,
    /// Whether the flags before and after it can be seen: it can fault or leave the block.
    exposes: bool,
    /// Its handler that computes no flags, if there is one.
    quiet: Option<Handler<B>>,
}

impl<B: Bus> FlagUse<B> {
    /// Of an instruction of which nothing is known.
    pub const fn opaque() -> Self {
        Self { read: ALL, killed: 0, exposes: true, quiet: None }
    }

    /// Of a decoded instruction with its operation.
    pub fn of(form: &Decoded, op: &Op<B>, quiet: Option<Handler<B>>) -> Self {
        use Mnemonic::*;
        let instruction = &form.instruction;
        let undefined = instruction.rflags_undefined();
        let defined = instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
        let killed = match form.mnemonic {
            Add | Adc | Sub | Sbb | And | Or | Xor | Cmp | Test | Inc | Dec | Neg => defined | undefined,
            Shl | Sal | Shr | Sar | Rol | Ror if has_fixed_count(form) => defined | undefined,
            Shl | Sal | Shr | Sar | Rol | Ror => 0,
            // What they leave undefined keeps its old value here.
            Imul => defined,
            Mov | Movzx | Movsx | Lea | Not | Bswap | Cdq | Cwd | Cwde | Cbw | Xchg | Nop => 0,
            _ if form.set_condition().is_some() || form.move_condition().is_some() => 0,
            _ => return Self::opaque(),
        };
        let memory = form.mnemonic != Lea && (0..instruction.op_count()).any(|n| !is_plain(form, n));
        if op.ends != Ends::Not {
            return Self::opaque();
        }
        Self {
            read: instruction.rflags_read() & ALL,
            killed: killed & ALL,
            exposes: memory,
            quiet: quiet.filter(|_| killed != 0),
        }
    }
}

/// A general register or a constant.
fn is_plain(form: &Decoded, n: u32) -> bool {
    match form.instruction.op_kind(n) {
        OpKind::Register => form.instruction.op_register(n).is_gpr(),
        kind => matches!(
            kind,
            OpKind::Immediate8
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
        ),
    }
}

/// Whether a shift has an immediate count that is not zero.
fn has_fixed_count(form: &Decoded) -> bool {
    form.instruction.op1_kind() == OpKind::Immediate8 && form.instruction.immediate8() & COUNT_MASK != 0
}

/// Replaces the handlers of those instructions whose flags nobody sees.
pub fn drop_dead_flags<B: Bus>(ops: &mut [Op<B>], uses: &[FlagUse<B>]) {
    let mut live = ALL;
    for (op, flags) in ops.iter_mut().zip(uses).rev() {
        if flags.exposes {
            live = ALL;
            continue;
        }
        if let Some(quiet) = flags.quiet.filter(|_| flags.killed & live == 0) {
            op.handler = quiet;
        }
        live = live & !flags.killed | flags.read;
    }
}
