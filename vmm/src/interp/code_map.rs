//! Which bytes of physical memory have been decoded, and which of those were written since.
//!
//! A byte-exact map, because DOS programs keep variables between their instructions: a store to
//! a page that holds code costs a look-up here, but only a store to a decoded byte drops blocks.

use crate::cpu::bus::PAGE_SIZE;

/// Pages below 4 GiB; code above (36-bit physical addresses) is executed uncached.
const PAGES: usize = 1 << 20;
const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();

/// A "written" range without bytes.
const NOTHING: (u64, u32) = (0, 0);

/// One bit for each byte of a page.
struct PageBits([u64; 64]);

impl PageBits {
    fn overlaps(&self, offset: usize, length: usize) -> bool {
        // Accesses are short; the rare long ones (bulk copies) still need few iterations.
        let mut at = offset;
        let end = (offset + length).min(PAGE_SIZE as usize);
        while at < end {
            let word = at / 64;
            let upto = end.min((word + 1) * 64);
            if self.0[word] & mask(at % 64, upto - at) != 0 {
                return true;
            }
            at = upto;
        }
        false
    }

    fn mark(&mut self, offset: usize, length: usize) {
        let mut at = offset;
        let end = (offset + length).min(PAGE_SIZE as usize);
        while at < end {
            let word = at / 64;
            let upto = end.min((word + 1) * 64);
            self.0[word] |= mask(at % 64, upto - at);
            at = upto;
        }
    }
}

/// `count` ones starting at bit `from` (`from + count <= 64`, `count > 0`).
fn mask(from: usize, count: usize) -> u64 {
    (u64::MAX >> (64 - count)) << from
}

/// The decoded bytes of physical memory.
pub struct CodeMap {
    /// Index into `bits` plus one, by physical page; 0: no code there.
    pages: Vec<u32>,
    bits: Vec<PageBits>,
    free: Vec<u32>,
    written: Vec<(u64, u32)>,
    /// Pages whose marks somebody else than the interpreter needs: one bit each.
    pinned: Vec<u64>,
}

impl Default for CodeMap {
    fn default() -> Self {
        Self::new()
    }
}

impl CodeMap {
    /// An empty map.
    pub fn new() -> Self {
        CodeMap {
            pages: vec![0; PAGES],
            bits: Vec::new(),
            free: Vec::new(),
            written: Vec::new(),
            pinned: vec![0; PAGES / 64],
        }
    }

    fn slot(&self, address: u64) -> Option<usize> {
        let slot = *self.pages.get((address >> PAGE_SHIFT) as usize)?;
        (slot as usize).checked_sub(1)
    }

    /// Whether the page of physical `address` holds decoded code: stores to it must be reported
    /// with [`CodeMap::note_write`].
    #[inline]
    pub fn is_code_page(&self, address: u64) -> bool {
        self.pages.get((address >> PAGE_SHIFT) as usize).is_some_and(|slot| *slot != 0)
    }

    /// Whether any byte of the range, which stays within a page, has been decoded.
    pub fn overlaps(&self, address: u64, length: u32) -> bool {
        let offset = (address % PAGE_SIZE) as usize;
        self.slot(address)
            .and_then(|slot| self.bits.get(slot))
            .is_some_and(|bits| bits.overlaps(offset, length as usize))
    }

    /// A store of the CPU to physical memory (within a page). When it hit decoded bytes, the range
    /// is remembered for the engine, which must stop the running block after this instruction
    /// ([`CodeMap::has_written`]).
    #[inline]
    pub fn note_write(&mut self, address: u64, length: u32) {
        if self.is_code_page(address) && self.overlaps(address, length) {
            self.written.push((address, length));
        }
    }

    /// Whether decoded code was written since it was last taken.
    #[inline(always)]
    pub fn has_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// Makes the engine leave its block after this instruction although no code was written: somebody
    /// outside has to look at what the instruction did.
    pub fn leave_block(&mut self) {
        self.written.push(NOTHING);
    }

    /// The next range that was written: physical address, length.
    pub fn take_written(&mut self) -> Option<(u64, u32)> {
        while let Some(range) = self.written.pop() {
            if range != NOTHING {
                return Some(range);
            }
        }
        None
    }

    /// Marks a range (within a page) as decoded. Returns whether it is the first of its page: direct
    /// write access to the page must then end. Out of range addresses are not kept.
    pub(crate) fn mark(&mut self, address: u64, length: u32) -> bool {
        let Some(entry) = self.pages.get_mut((address >> PAGE_SHIFT) as usize) else { return false };
        let first = *entry == 0;
        if first {
            let slot = match self.free.pop() {
                Some(slot) => {
                    if let Some(bits) = self.bits.get_mut(slot as usize) {
                        bits.0 = [0; 64];
                    }
                    slot
                }
                None => {
                    self.bits.push(PageBits([0; 64]));
                    (self.bits.len() - 1) as u32
                }
            };
            *entry = slot + 1;
        }
        let slot = (*entry - 1) as usize;
        if let Some(bits) = self.bits.get_mut(slot) {
            bits.mark((address % PAGE_SIZE) as usize, length as usize);
        }
        first
    }

    /// Keeps the marks of the page at `address`, or no longer: the shadow engine has code of it.
    pub(crate) fn set_pinned(&mut self, address: u64, pinned: bool) {
        let page = (address >> PAGE_SHIFT) as usize;
        if let Some(word) = self.pinned.get_mut(page / 64) {
            let bit = 1 << (page % 64);
            *word = *word & !bit | if pinned { bit } else { 0 };
        }
    }

    /// Whether [`CodeMap::set_pinned`] was called.
    pub(crate) fn is_pinned(&self, address: u64) -> bool {
        let page = (address >> PAGE_SHIFT) as usize;
        self.pinned.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// Forgets that the page at `address` holds code.
    pub(crate) fn clear_page(&mut self, address: u64) {
        if let Some(entry) = self.pages.get_mut((address >> PAGE_SHIFT) as usize)
            && *entry != 0
        {
            self.free.push(*entry - 1);
            *entry = 0;
        }
    }

    /// Clears the marks of the page at `address`, which still holds code: the caller marks again
    /// what is left.
    pub(crate) fn clear_marks(&mut self, address: u64) {
        if self.is_pinned(address) {
            return;
        }
        if let Some(bits) = self.slot(address).and_then(|slot| self.bits.get_mut(slot)) {
            bits.0 = [0; 64];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_to_decoded_bytes_is_remembered() {
        let mut map = CodeMap::new();
        assert!(map.mark(0x1ffe, 2));
        assert!(!map.mark(0x103c, 8));

        map.note_write(0x1044, 4);
        map.note_write(0x1038, 4);
        map.note_write(0x2000, 4);
        assert!(!map.has_written());

        map.note_write(0x1041, 4);
        map.note_write(0x1fff, 1);
        assert_eq!(map.take_written(), Some((0x1fff, 1)));
        assert_eq!(map.take_written(), Some((0x1041, 4)));
        assert_eq!(map.take_written(), None);
    }

    #[test]
    fn a_reused_slot_starts_clean() {
        let mut map = CodeMap::new();
        map.mark(0x1000, 64);
        map.clear_page(0x1000);
        map.mark(0x5040, 1);
        assert!(!map.overlaps(0x5000, 64));
        assert!(map.overlaps(0x5000, 65));
        assert!(!map.is_code_page(0x1000));
    }
}
