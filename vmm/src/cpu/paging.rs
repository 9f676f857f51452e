//! From linear to physical addresses (SDM vol. 3, "Paging"): two-level paging with 4 KiB and 4 MiB
//! pages, accessed and dirty bits, and filling the TLB.
//!
//! PAE would be a second function beside [`Vcpu::walk_two_level`], chosen in [`Vcpu::walk`]; the rest
//! already works with 64-bit physical addresses.

use super::bus::{Bus, PAGE_SIZE, PageGrant};
use super::fault::{Exec, Fault, page_fault};
use super::registers::{cr0, cr3, cr4, dr7};
use super::tlb::{Mode, NewEntry, OFFSET_MASK, PAGE_MASK, Translation};
use super::{CodeLocation, Vcpu};
use ipc::width::Width;

/// Page directory and page table entry bits.
mod entry {
    /// Present.
    pub(super) const P: u32 = 1 << 0;
    /// Writable.
    pub(super) const RW: u32 = 1 << 1;
    /// User pages.
    pub(super) const US: u32 = 1 << 2;
    /// Accessed.
    pub(super) const A: u32 = 1 << 5;
    /// Dirty.
    pub(super) const D: u32 = 1 << 6;
    /// Directory entry: a 4 MiB page.
    pub(super) const PS: u32 = 1 << 7;
    /// Global.
    pub(super) const G: u32 = 1 << 8;
    /// Address of a page or page table.
    pub(super) const ADDRESS: u32 = 0xffff_f000;
    /// Address of a 4 MiB page.
    pub(super) const LARGE_ADDRESS: u32 = 0xffc0_0000;
    /// Must be zero in a directory entry for a 4 MiB page, as PSE-36 is not offered.
    pub(super) const LARGE_RESERVED: u32 = 0x003f_e000;
}

/// Address line 20.
const A20: u64 = 1 << 20;

/// Result of a page walk.
struct Walk {
    physical: u64,
    /// Writes are permitted in this mode.
    writable: bool,
    /// The dirty bit is set.
    dirty: bool,
    global: bool,
    large: bool,
}

impl<B: Bus> Vcpu<B> {
    /// Compares the map generation and forgets everything when it changed.
    ///
    /// Must follow each use of [`Vcpu::bus`] that can change the memory map; [`Vcpu::port_write`] and
    /// the memory accesses do it themselves.
    #[inline]
    pub fn sync_map(&mut self) {
        let generation = self.bus.map_generation();
        if self.map_generation != Some(generation) {
            self.map_generation = Some(generation);
            self.a20_mask = if self.bus.a20_enabled() { !0 } else { !A20 };
            self.tlb.flush_map();
        }
    }

    /// How the physical page at `page` can be reached.
    pub(super) fn grant(&mut self, page: u64) -> PageGrant {
        if let Some(grant) = self.tlb.grant(page) {
            return grant;
        }
        let grant = self.bus.page(page);
        self.tlb.remember_grant(page, grant);
        grant
    }

    /// Translates the page of `linear` for an access, or raises the page fault.
    pub(super) fn translate(&mut self, linear: u32, write: bool, mode: Mode) -> Exec<Translation> {
        self.sync_map();
        if let Some(translation) = self.tlb.translation(mode, linear, write) {
            return Ok(translation);
        }
        let walk = self.walk(linear, write, mode)?;
        let page = walk.physical & self.a20_mask;
        let translation = Translation { physical: page, grant: self.grant(page) };
        let watched = self.watched(linear);
        let direct = mode != Mode::UserAligned && !watched;
        self.tlb.insert(
            mode,
            &NewEntry {
                page: linear & PAGE_MASK,
                translation,
                writable: walk.writable && walk.dirty,
                global: walk.global,
                large: walk.large,
                fast_read: direct,
                fast_write: direct && !self.code.is_code_page(page),
            },
        );
        Ok(translation)
    }

    /// Whether a data breakpoint or watchpoint lies in the page of `linear` (or reaches into it).
    fn watched(&self, linear: u32) -> bool {
        if self.hooks.watches_data() && self.hooks.watches_page(linear & PAGE_MASK) {
            return true;
        }
        let dr = &self.state.dr;
        dr[7] & dr7::ENABLES != 0
            && (0..4).any(|i| dr[7] >> (2 * i) & 3 != 0 && dr[i] & PAGE_MASK == linear & PAGE_MASK)
    }

    fn walk(&mut self, linear: u32, write: bool, mode: Mode) -> Exec<Walk> {
        if self.state.cr0 & cr0::PG != 0 {
            return self.walk_two_level(linear, write, mode);
        }
        Ok(Walk {
            physical: u64::from(linear & PAGE_MASK),
            writable: true,
            dirty: true,
            global: false,
            large: false,
        })
    }

    fn walk_two_level(&mut self, linear: u32, write: bool, mode: Mode) -> Exec<Walk> {
        let user = mode.is_user();
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let code = bit(write, page_fault::WRITE) | bit(user, page_fault::USER);
        let fault = |why: u32| Fault::pf(linear, code | why);
        let honours_rw = user || self.state.cr0 & cr0::WP != 0;

        let directory_entry_at = u64::from(self.state.cr3 & cr3::DIRECTORY | linear >> 20 & 0xffc);
        let directory_entry = self.read_table(directory_entry_at);
        if directory_entry & entry::P == 0 {
            return Err(fault(0));
        }
        if directory_entry & entry::PS != 0 && self.state.cr4 & cr4::PSE != 0 {
            if directory_entry & entry::LARGE_RESERVED != 0 {
                return Err(fault(page_fault::PROTECTION | page_fault::RESERVED));
            }
            let writable = !honours_rw || directory_entry & entry::RW != 0;
            if user && directory_entry & entry::US == 0 || write && !writable {
                return Err(fault(page_fault::PROTECTION));
            }
            let used = directory_entry | entry::A | bit(write, entry::D);
            self.update_table(directory_entry_at, directory_entry, used);
            return Ok(Walk {
                physical: u64::from(used & entry::LARGE_ADDRESS | linear & !entry::LARGE_ADDRESS & PAGE_MASK),
                writable,
                dirty: used & entry::D != 0,
                global: used & entry::G != 0 && self.state.cr4 & cr4::PGE != 0,
                large: true,
            });
        }

        let table_entry_at = u64::from(directory_entry & entry::ADDRESS | linear >> 10 & 0xffc);
        let table_entry = self.read_table(table_entry_at);
        if table_entry & entry::P == 0 {
            return Err(fault(0));
        }
        let both = directory_entry & table_entry;
        let writable = !honours_rw || both & entry::RW != 0;
        if user && both & entry::US == 0 || write && !writable {
            return Err(fault(page_fault::PROTECTION));
        }
        self.update_table(directory_entry_at, directory_entry, directory_entry | entry::A);
        let used = table_entry | entry::A | bit(write, entry::D);
        self.update_table(table_entry_at, table_entry, used);
        Ok(Walk {
            physical: u64::from(used & entry::ADDRESS),
            writable,
            dirty: used & entry::D != 0,
            global: used & entry::G != 0 && self.state.cr4 & cr4::PGE != 0,
            large: false,
        })
    }

    /// Reads a paging structure entry.
    fn read_table(&mut self, physical: u64) -> u32 {
        let (page, offset) = self.split(physical);
        let translation = Translation { physical: page, grant: self.grant(page) };
        translation
            .load(offset)
            .unwrap_or_else(|| self.bus.read_memory(page | u64::from(offset), Width::Dword))
    }

    /// Writes a paging structure entry when it changed.
    fn update_table(&mut self, physical: u64, old: u32, new: u32) {
        if old == new {
            return;
        }
        let (page, offset) = self.split(physical);
        let translation = Translation { physical: page, grant: self.grant(page) };
        if !translation.store(offset, new) {
            self.bus.write_memory(page | u64::from(offset), Width::Dword, new);
        }
        self.code.note_write(page | u64::from(offset), 4);
    }

    fn split(&self, physical: u64) -> (u64, u32) {
        let physical = physical & self.a20_mask;
        (physical & !(PAGE_SIZE - 1), physical as u32 & OFFSET_MASK)
    }

    /// Where the instruction at `eip` is: checks the code segment's limit for its first byte and
    /// translates with the rights of the current privilege level.
    ///
    /// The location is that of one page; the bytes after it belong to another translation.
    ///
    /// Always inlined: returned through memory, its narrow fields would be stored one by one and
    /// loaded as one word, which no CPU forwards. Such a load waits until every older store has
    /// reached the cache, also those to ring slots that another core holds: 100 ns and more
    /// after each posted write.
    #[inline(always)]
    pub fn translate_code(&mut self, eip: u32) -> Exec<CodeLocation> {
        let cs = &self.state.segments[super::Seg::Cs as usize];
        if eip > cs.limit() {
            return Err(Fault::gp(0));
        }
        let linear = cs.base().wrapping_add(eip);
        self.sync_map();
        let translation = match self.tlb.translation(self.mode, linear, false) {
            Some(translation) => translation,
            None => self.translate(linear, false, self.mode)?,
        };
        Ok(CodeLocation {
            physical: translation.physical | u64::from(linear & OFFSET_MASK),
            linear,
            grant: translation.grant,
        })
    }

    /// Physical address of a linear one as a debugger sees it: no rights, no A/D bits, no fault.
    pub fn debug_translate(&mut self, linear: u32) -> Option<u64> {
        self.sync_map();
        if self.state.cr0 & cr0::PG == 0 {
            return Some(u64::from(linear) & self.a20_mask);
        }
        let directory_entry =
            self.read_table(u64::from(self.state.cr3 & cr3::DIRECTORY | linear >> 20 & 0xffc));
        if directory_entry & entry::P == 0 {
            return None;
        }
        if directory_entry & entry::PS != 0 && self.state.cr4 & cr4::PSE != 0 {
            let physical = directory_entry & entry::LARGE_ADDRESS | linear & !entry::LARGE_ADDRESS;
            return Some(u64::from(physical) & self.a20_mask);
        }
        let table_entry = self.read_table(u64::from(directory_entry & entry::ADDRESS | linear >> 10 & 0xffc));
        (table_entry & entry::P != 0)
            .then(|| u64::from(table_entry & entry::ADDRESS | linear & OFFSET_MASK) & self.a20_mask)
    }
}
