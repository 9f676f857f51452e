//! Which arithmetic flags may differ after the same instructions: those that nobody reads where shadow code was left, for it may
//! have left anything in them, and those that an instruction left undefined.
//!
//! What is found out about a page of code is kept as long as its bytes are the same.

use crate::cpu::bus::PAGE_SIZE;
use crate::cpu::registers::eflags;
use crate::shadow::mode::Mode;
use crate::shadow::scanner::{self, ALL_FLAGS, CodeBytes, decode};
use iced_x86::{Instruction, Mnemonic, RflagsBits};
use std::collections::HashMap;

const PAGE: u32 = PAGE_SIZE as u32;
/// Most pages that are remembered.
const MOST_PAGES: usize = 4096;

/// A page of code.
pub(super) struct CodePage {
    bytes: CodeBytes,
    mode: Mode,
    /// EIP of its first byte.
    eip: u32,
    /// By offset: flags that nobody reads there, bits of EFLAGS.
    dead: HashMap<u16, u32>,
}

impl CodePage {
    /// Flags that nobody reads before the instruction at a linear address of the page.
    pub(super) fn dead_flags(&mut self, linear: u32) -> u32 {
        let offset = (linear % PAGE) as u16;
        let (bytes, mode, eip) = (&self.bytes, self.mode, self.eip);
        *self.dead.entry(offset).or_insert_with(|| to_eflags(!scanner::live_flags(bytes, mode, eip, offset)))
    }

    /// The instruction at a linear address of the page.
    pub(super) fn instruction(&self, linear: u32) -> Option<Instruction> {
        decode(&self.bytes, self.mode, self.eip, (linear % PAGE) as usize).map(|(instruction, _)| instruction)
    }
}

/// Pages of code by physical and linear address.
#[derive(Default)]
pub(super) struct CodePages {
    pages: HashMap<(u64, u32, Mode), CodePage>,
}

impl CodePages {
    /// The page of a linear address, which has these bytes now.
    pub(super) fn page(&mut self, physical: u64, linear: u32, mode: Mode, bytes: CodeBytes) -> &mut CodePage {
        let linear = linear & !(PAGE - 1);
        if self.pages.len() >= MOST_PAGES {
            self.pages.clear();
        }
        let eip = linear.wrapping_sub(mode.cs_base);
        let new = |bytes| CodePage { bytes, mode, eip, dead: HashMap::new() };
        match self.pages.entry((physical, linear, mode)) {
            std::collections::hash_map::Entry::Vacant(free) => free.insert(new(bytes)),
            std::collections::hash_map::Entry::Occupied(known) => {
                let page = known.into_mut();
                if page.bytes != bytes {
                    *page = new(bytes);
                }
                page
            }
        }
    }
}

/// Flags that are undefined after some instructions, which are looked at from the last to the first.
pub(super) struct Undefined {
    /// Those of which that is not known yet, as iced-x86 numbers them.
    open: u32,
    undefined: u32,
}

impl Default for Undefined {
    fn default() -> Self {
        Self { open: ALL_FLAGS, undefined: 0 }
    }
}

impl Undefined {
    /// Before what has been looked at there was this instruction. True: those before it matter too.
    pub(super) fn went_through(&mut self, instruction: &Instruction) -> bool {
        self.undefined |= instruction.rflags_undefined() & self.open;
        self.open &= !instruction.rflags_undefined();
        if !may_do_nothing(instruction.mnemonic()) {
            let defined =
                instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
            self.open &= !defined;
        }
        self.open != 0
    }

    /// The undefined ones, bits of EFLAGS.
    pub(super) fn flags(&self) -> u32 {
        to_eflags(self.undefined)
    }
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
