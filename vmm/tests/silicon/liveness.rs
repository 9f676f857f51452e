//! Which arithmetic flags a program reads before it writes them again. Engines that translate need not keep the others, so the
//! frame of a fault may hold anything there.

use super::machine::Program;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, RflagsBits};
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

/// Flags that are dead before the instruction at `eip`.
pub fn dead(program: &Program, eip: u32) -> u32 {
    eflags::ARITHMETIC & !live(program, eip, &mut HashMap::new())
}

fn live(program: &Program, eip: u32, known: &mut HashMap<u32, u32>) -> u32 {
    if let Some(flags) = known.get(&eip) {
        return *flags;
    }
    // Where there is a loop, everything is read.
    known.insert(eip, eflags::ARITHMETIC);
    let Some(bytes) = program.bytes.get(eip.wrapping_sub(program.start) as usize..) else {
        return eflags::ARITHMETIC;
    };
    let instruction = Decoder::with_ip(32, bytes, u64::from(eip), DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return eflags::ARITHMETIC;
    }
    let mut there = || live(program, instruction.near_branch_target() as u32, known);
    let after = match instruction.flow_control() {
        FlowControl::Next => live(program, instruction.next_ip32(), known),
        FlowControl::ConditionalBranch => there() | live(program, instruction.next_ip32(), known),
        FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => there(),
        FlowControl::Call if instruction.is_call_near() => there(),
        _ => eflags::ARITHMETIC,
    };
    let flags = after & !killed(&instruction) | arithmetic(instruction.rflags_read());
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
    let may_do_nothing = shifts && super::undefined::count(instruction, None).is_none_or(|count| count == 0)
        || instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
    if may_do_nothing { 0 } else { arithmetic(instruction.rflags_modified()) }
}
