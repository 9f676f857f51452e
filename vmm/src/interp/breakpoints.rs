//! A debugger's breakpoints: linear addresses before whose instructions the engine stops. Guest memory is not
//! changed, so the guest cannot see them.
//!
//! Blocks are found by physical address and breakpoints are linear ones, but the offset in the page is the same
//! in both. So no block holds an instruction at an offset that any breakpoint has, whatever its page; such
//! instructions are executed one by one, and only there the whole address is compared. Blocks themselves
//! are not slowed down.

use crate::cpu::bus::PAGE_SIZE;
use std::collections::BTreeSet;

const WORDS: usize = PAGE_SIZE as usize / 64;

/// See the module's description.
pub(super) struct Breakpoints {
    addresses: BTreeSet<u32>,
    /// One bit for each offset in a page that an address has.
    offsets: [u64; WORDS],
}

impl Default for Breakpoints {
    fn default() -> Self {
        Self { addresses: BTreeSet::new(), offsets: [0; WORDS] }
    }
}

impl Breakpoints {
    pub(super) fn new(addresses: &BTreeSet<u32>) -> Self {
        let mut breakpoints = Self { addresses: addresses.clone(), ..Self::default() };
        for address in addresses {
            let offset = *address as usize % PAGE_SIZE as usize;
            breakpoints.offsets[offset / 64] |= 1 << (offset % 64);
        }
        breakpoints
    }

    /// Whether a breakpoint may be at an address with this one's offset in its page: no block may
    /// hold the instruction.
    pub(super) fn may_be_at(&self, address: u64) -> bool {
        let offset = (address % PAGE_SIZE) as usize;
        self.offsets[offset / 64] & 1 << (offset % 64) != 0
    }

    /// Whether there is a breakpoint at a linear address.
    pub(super) fn at(&self, linear: u32) -> bool {
        !self.addresses.is_empty() && self.addresses.contains(&linear)
    }

    pub(super) fn is(&self, addresses: &BTreeSet<u32>) -> bool {
        self.addresses == *addresses
    }
}
