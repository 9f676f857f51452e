//! Descriptors that data segment registers were loaded from lately, so that shadow code of a 32-bit supervisor can load them again by
//! itself: it reads the descriptor where it is, and when that is what it was the register becomes what it became.
//!
//! Nothing here goes out of date: the selector, the descriptor's bytes and the table's limit are compared each time. What is not
//! compared is that the processor is in protected mode at CPL 0: [`Descriptors::forget`] is called where it is not.

use crate::cpu::Segment;
use crate::cpu::registers::selector;

/// How many of each kind are remembered; those whose numbers are the same modulo this drive each other out.
const SLOTS: usize = 32;
/// The bits of a selector that tell its slot.
pub const SLOT_BITS: u32 = (SLOTS as u32 - 1) << INDEX_SHIFT;
/// Where a selector has its descriptor's number.
const INDEX_SHIFT: u32 = 3;
/// In place of the descriptor of a null selector.
pub const NULL_DESCRIPTOR: u64 = 0;
/// In place of a selector: nothing is remembered.
const NONE: u32 = u32::MAX;

/// A register that was loaded.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// The descriptor, as it is in memory; [`NULL_DESCRIPTOR`] of a null selector.
    pub descriptor: u64,
    /// The selector, RPL included.
    pub selector: u32,
    /// What the register was then.
    pub segment: Segment,
}

// Shadow code multiplies the selector's number by this, of which 8 are in the selector and 8 in its addressing mode.
const _: () = assert!(size_of::<Loaded>() == 8 << INDEX_SHIFT);

/// See the module's description.
#[repr(C)]
#[derive(Debug)]
pub struct Descriptors {
    /// Of flat segments, for DS and ES: what mode the code is in does not change then.
    pub flat: [Loaded; SLOTS],
    /// Of any, for FS and GS.
    pub any: [Loaded; SLOTS],
    is_empty: bool,
}

impl Default for Descriptors {
    fn default() -> Self {
        let none = Loaded { descriptor: 0, selector: NONE, segment: Segment::null(0) };
        Self { flat: [none; SLOTS], any: [none; SLOTS], is_empty: true }
    }
}

impl Descriptors {
    /// Remembers that a register was loaded from a descriptor of the GDT, which is marked as accessed, or with a null selector. (Of the LDT none is remembered.)
    pub fn remember(&mut self, segment: Segment, descriptor: u64, is_flat: bool) {
        if segment.selector & selector::TI != 0 {
            return;
        }
        let slot = usize::from(segment.selector >> INDEX_SHIFT) % SLOTS;
        let loaded = Loaded { descriptor, selector: u32::from(segment.selector), segment };
        self.any[slot] = loaded;
        if is_flat {
            self.flat[slot] = loaded;
        }
        self.is_empty = false;
    }

    /// Forgets all.
    #[inline]
    pub fn forget(&mut self) {
        if !self.is_empty {
            *self = Self::default();
        }
    }
}
