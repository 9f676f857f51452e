//! Which arithmetic flags a program reads before it writes them again. Engines that translate need not keep the others, so the
//! frame of a fault may hold anything there.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, RflagsBits};
use std::collections::HashMap;
use vmm::cpu::registers::eflags;

/// The arithmetic flags as iced-x86 has them, and as EFLAGS does.
const FLAGS: [(u32, u32); 6] = [
    (RflagsBits::OF, eflags::OF),
    (RflagsBits::SF, eflags::SF),
    (RflagsBits::ZF, eflags::ZF),
    (RflagsBits::AF, eflags::AF),
    (RflagsBits::CF, eflags::CF),
    (RflagsBits::PF, eflags::PF),
];

/// iced-x86's flag bits as EFLAGS.
pub fn arithmetic(bits: u32) -> u32 {
    FLAGS.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |flags, (_, flag)| flags | flag)
}

/// Code of 16 or 32 bits.
pub struct Code<'a> {
    /// 16 or 32.
    pub bits: u32,
    /// The bytes of an instruction at an EIP, or fewer.
    pub fetch: &'a mut dyn FnMut(u32) -> Vec<u8>,
}

/// Instructions that are looked at before everything counts as read.
const MOST: usize = 1000;

/// Flags that are dead before the instruction at `eip`.
pub fn dead(code: &mut Code<'_>, eip: u32) -> u32 {
    eflags::ARITHMETIC & !live(code, eip, &mut HashMap::new())
}

fn live(code: &mut Code<'_>, eip: u32, known: &mut HashMap<u32, u32>) -> u32 {
    if let Some(flags) = known.get(&eip) {
        return *flags;
    }
    // Around a loop nobody has read it yet.
    known.insert(eip, 0);
    if known.len() > MOST {
        return eflags::ARITHMETIC;
    }
    let bytes = (code.fetch)(eip);
    let instruction = Decoder::with_ip(code.bits, &bytes, u64::from(eip), DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return eflags::ARITHMETIC;
    }
    let (killed, read) = (killed(&instruction), arithmetic(instruction.rflags_read()));
    // (Whatever follows: then there is more left for other ways.)
    if killed == eflags::ARITHMETIC && instruction.flow_control() == FlowControl::Next {
        known.insert(eip, read);
        return read;
    }
    let mut there = || live(code, instruction.near_branch_target() as u32, known);
    let after = match instruction.flow_control() {
        FlowControl::Next => live(code, instruction.next_ip32(), known),
        FlowControl::ConditionalBranch => there() | live(code, instruction.next_ip32(), known),
        FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => there(),
        FlowControl::Call if instruction.is_call_near() => there(),
        _ => eflags::ARITHMETIC,
    };
    let flags = after & !killed | read;
    known.insert(eip, flags);
    flags
}

/// Flags that do not depend on their old value after an instruction.
fn killed(instruction: &Instruction) -> u32 {
    use Mnemonic as M;
    let shifts = matches!(
        instruction.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    );
    let may_do_nothing = shifts && !has_count(instruction)
        || instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
    if may_do_nothing { 0 } else { arithmetic(instruction.rflags_modified()) }
}

/// Whether a shift's count is known and not zero.
fn has_count(instruction: &Instruction) -> bool {
    let last = instruction.op_count() - 1;
    instruction.op_kind(last) == OpKind::Immediate8 && instruction.immediate8() & 0x1f != 0
}
