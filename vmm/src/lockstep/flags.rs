//! Which arithmetic flags may differ after the same instructions.

use super::Run;
use crate::cpu::bus::PAGE_SIZE;
use crate::cpu::registers::eflags;
use crate::shadow::scanner::{self, CodeBytes, decode};
use iced_x86::{Mnemonic, RflagsBits};

const PAGE: u32 = PAGE_SIZE as u32;

/// Flags that the instructions at `path` leave undefined, and those that nobody reads at linear address `left`, where shadow code was left: it
/// may have left anything in them. Bits of EFLAGS.
pub(super) fn that_may_differ(bytes: &CodeBytes, path: &[u32], left: u32, run: &Run) -> u32 {
    let mode = run.mode;
    let page = run.start & !(PAGE - 1);
    let page_eip = page.wrapping_sub(mode.cs_base);
    let offset = |linear: u32| (linear & !(PAGE - 1) == page).then_some((linear % PAGE) as usize);
    let mut undefined = 0;
    for at in path.iter().filter_map(|linear| offset(*linear)) {
        let Some((instruction, _)) = decode(bytes, mode, page_eip, at) else { continue };
        let defined = instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
        if !may_do_nothing(instruction.mnemonic()) {
            undefined &= !defined;
        }
        undefined |= instruction.rflags_undefined();
    }
    let dead = offset(left).map_or(0, |at| !scanner::live_flags(bytes, mode, page_eip, at as u16));
    to_eflags(undefined | dead)
}

/// Shifts by a count of zero change no flag.
fn may_do_nothing(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd)
}

/// From iced-x86's numbers to those of EFLAGS.
fn to_eflags(bits: u32) -> u32 {
    const NUMBERS: [(u32, u32); 6] = [
        (RflagsBits::OF, eflags::OF),
        (RflagsBits::SF, eflags::SF),
        (RflagsBits::ZF, eflags::ZF),
        (RflagsBits::AF, eflags::AF),
        (RflagsBits::CF, eflags::CF),
        (RflagsBits::PF, eflags::PF),
    ];
    NUMBERS.iter().filter(|(number, _)| bits & number != 0).fold(0, |all, (_, flag)| all | flag)
}
