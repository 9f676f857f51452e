//! Decoded blocks, found by the physical address of their first byte.

use super::op::Op;
use crate::cpu::Vcpu;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use std::collections::HashMap;

/// Slots of the direct-mapped table; two blocks that meet in one drive each other out.
const SLOTS: usize = 1 << 16;
/// A key that no block has.
const NO_KEY: u64 = u64::MAX;

/// Instructions that run one after the other, within a page.
pub struct Block<B: Bus> {
    /// The instructions; never empty while the block is in the table.
    pub ops: Vec<Op<B>>,
    /// Physical address of the first byte.
    pub physical: u64,
    /// Bytes of all instructions.
    pub len: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    block: u32,
}

/// What is decoded of one physical page.
struct CodePage {
    blocks: Vec<u32>,
    /// Where the page's bytes were when they were decoded.
    host: usize,
}

/// All decoded blocks.
pub struct BlockCache<B: Bus> {
    slots: Box<[Slot; SLOTS]>,
    blocks: Vec<Block<B>>,
    free: Vec<u32>,
    pages: HashMap<u64, CodePage>,
}

fn key(physical: u64, wide: bool) -> u64 {
    physical << 1 | u64::from(wide)
}

#[inline(always)]
fn slot_of(physical: u64) -> usize {
    (physical ^ physical >> 16) as usize % SLOTS
}

fn page_of(physical: u64) -> u64 {
    physical & !(PAGE_SIZE - 1)
}

/// A table without blocks, made on the heap: it is too big for some stacks.
fn empty_slots() -> Box<[Slot; SLOTS]> {
    let slots = vec![Slot { key: NO_KEY, block: 0 }; SLOTS].into_boxed_slice();
    slots.try_into().unwrap_or_else(|_| unreachable!("a slice of that length"))
}

impl<B: Bus> Default for BlockCache<B> {
    fn default() -> Self {
        BlockCache { slots: empty_slots(), blocks: Vec::new(), free: Vec::new(), pages: HashMap::new() }
    }
}

impl<B: Bus> BlockCache<B> {
    /// The block that starts at a physical address, for 16- or 32-bit code.
    #[inline(always)]
    pub fn find(&self, physical: u64, wide: bool) -> Option<&Block<B>> {
        let slot = self.slots[slot_of(physical)];
        if slot.key == key(physical, wide) { self.blocks.get(slot.block as usize) } else { None }
    }

    /// How many blocks there are.
    pub fn count(&self) -> usize {
        self.blocks.len() - self.free.len()
    }

    /// Keeps a block. `host` is where its page can be read.
    pub fn insert(&mut self, cpu: &mut Vcpu<B>, ops: Vec<Op<B>>, physical: u64, wide: bool, host: usize) {
        let len = ops.last().map_or(0, |op| u32::from(op.end));
        if len == 0 {
            return;
        }
        let slot = slot_of(physical);
        if let Some(old) = self.slots.get(slot).filter(|old| old.key != NO_KEY) {
            let old = old.block;
            self.remove(cpu, old);
        }
        let block = Block { ops, physical, len };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.blocks.get_mut(id as usize) {
                    *place = block;
                }
                id
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        };
        self.slots[slot] = Slot { key: key(physical, wide), block: id };
        self.pages
            .entry(page_of(physical))
            .or_insert_with(|| CodePage { blocks: Vec::new(), host })
            .blocks
            .push(id);
        cpu.mark_code(physical, len);
    }

    /// Drops one block that is in the table.
    fn remove(&mut self, cpu: &mut Vcpu<B>, id: u32) {
        let Some(block) = self.blocks.get_mut(id as usize) else { return };
        let physical = block.physical;
        block.ops.clear();
        let slot = slot_of(physical);
        if self.slots[slot].block == id {
            self.slots[slot].key = NO_KEY;
        }
        self.free.push(id);
        let page = page_of(physical);
        if let Some(entry) = self.pages.get_mut(&page) {
            entry.blocks.retain(|other| *other != id);
            if entry.blocks.is_empty() {
                self.pages.remove(&page);
                cpu.unmark_code_page(page);
            }
            // Otherwise its marks stay: they only cost a useless look-up.
        }
    }

    /// Drops the blocks that have a byte of a range of physical memory, and no other. Returns how many.
    pub fn drop_range(&mut self, cpu: &mut Vcpu<B>, physical: u64, len: u64) -> usize {
        let mut dropped = 0;
        let end = physical.saturating_add(len.max(1));
        let mut page = page_of(physical);
        while page < end {
            dropped += self.drop_in_page(cpu, page, physical, end);
            page += PAGE_SIZE;
        }
        dropped
    }

    fn drop_in_page(&mut self, cpu: &mut Vcpu<B>, page: u64, start: u64, end: u64) -> usize {
        let Some(entry) = self.pages.get(&page) else {
            // Marked by a decoding that came to nothing, or by an interpreter that is no more.
            cpu.unmark_code_page(page);
            return 0;
        };
        let overlaps =
            |block: &Block<B>| block.physical < end && start < block.physical + u64::from(block.len);
        let hit: Vec<u32> = entry
            .blocks
            .iter()
            .copied()
            .filter(|id| self.blocks.get(*id as usize).is_some_and(overlaps))
            .collect();
        for id in &hit {
            self.remove(cpu, *id);
        }
        // The marks of what is left, so that the next store to the freed bytes is no code write.
        if let Some(entry) = self.pages.get(&page) {
            cpu.code.clear_marks(page);
            for block in entry.blocks.iter().filter_map(|id| self.blocks.get(*id as usize)) {
                cpu.code.mark(block.physical, block.len);
            }
        }
        hit.len()
    }

    /// Marks what is kept of a page.
    pub fn mark_page(&self, cpu: &mut Vcpu<B>, page: u64) {
        if let Some(entry) = self.pages.get(&page) {
            for block in entry.blocks.iter().filter_map(|id| self.blocks.get(*id as usize)) {
                cpu.code.mark(block.physical, block.len);
            }
        }
    }

    /// Whether anything of a page is kept.
    pub fn keeps_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Drops everything.
    pub fn clear(&mut self, cpu: &mut Vcpu<B>) {
        for page in self.pages.keys() {
            cpu.unmark_code_page(*page);
        }
        self.pages.clear();
        self.slots.fill(Slot { key: NO_KEY, block: 0 });
        self.blocks.clear();
        self.free.clear();
    }

    /// After the memory map changed: drops the pages whose bytes are now elsewhere.
    pub fn revalidate(&mut self, cpu: &mut Vcpu<B>) {
        let moved: Vec<u64> = self
            .pages
            .iter()
            .filter(|(page, entry)| {
                let grant = cpu.bus.page(**page);
                !grant.cacheable_code || grant.read.map(|host| host.as_ptr() as usize) != Some(entry.host)
            })
            .map(|(page, _)| *page)
            .collect();
        for page in moved {
            self.drop_in_page(cpu, page, page, page + PAGE_SIZE);
        }
    }
}
