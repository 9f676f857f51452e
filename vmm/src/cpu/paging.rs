//! From linear to physical addresses (SDM vol. 3, "Paging"): two-level paging with 4 KiB and 4 MiB
//! pages (PSE, PSE-36), PAE paging with 4 KiB and 2 MiB pages, accessed and dirty bits, and filling the TLB.

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
    /// PSE-36: bits 32 to 35 of the address of a 4 MiB page.
    pub(super) const LARGE_HIGH: u32 = 0x0001_e000;
    /// How far those have to be shifted.
    pub(super) const LARGE_HIGH_SHIFT: u32 = 32 - 13;
    /// Must be zero in a directory entry for a 4 MiB page.
    pub(super) const LARGE_RESERVED: u32 = 0x003e_0000;
}

/// PAE entries: 64 bits, with the low bits of [`entry`].
mod pae {
    /// Address of a page, page table or page directory: 36 bits.
    pub(super) const ADDRESS: u64 = 0xf_ffff_f000;
    /// Address of a 2 MiB page.
    pub(super) const LARGE_ADDRESS: u64 = 0xf_ffe0_0000;
    /// Must be zero in every entry; without NX bit 63 too.
    pub(super) const RESERVED: u64 = !0xf_ffff_ffff;
    /// Must be zero in a directory entry for a 2 MiB page.
    pub(super) const LARGE_RESERVED: u64 = RESERVED | 0x001f_e000;
    /// Must be zero in a page-directory-pointer table entry that is present.
    pub(super) const POINTER_RESERVED: u64 = RESERVED | 0x1e6;
}

/// Directory pointers in the table that CR3 names.
pub(super) const POINTERS: usize = 4;
/// The bits that a page-directory-pointer register can have.
pub(super) const POINTER_DEFINED: u64 = !pae::POINTER_RESERVED;

/// An access that is being translated.
#[derive(Clone, Copy)]
struct Access {
    linear: u32,
    write: bool,
    user: bool,
    /// Writes need RW.
    honours_rw: bool,
}

impl Access {
    /// The page fault that it raises.
    fn fault(self, why: u32) -> Fault {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let code = bit(self.write, page_fault::WRITE) | bit(self.user, page_fault::USER);
        Fault::pf(self.linear, code | why)
    }

    /// Whether an access of this kind may write where the entries together say `rights`; a fault when
    /// this one is not permitted.
    fn check(self, rights: u32) -> Exec<bool> {
        let writable = !self.honours_rw || rights & entry::RW != 0;
        if self.user && rights & entry::US == 0 || self.write && !writable {
            return Err(self.fault(page_fault::PROTECTION));
        }
        Ok(writable)
    }

    /// What the walk sets in the last entry.
    fn used(self) -> u32 {
        if self.write { entry::A | entry::D } else { entry::A }
    }
}

/// A page as the page tables have it for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserPage {
    /// Its physical address.
    pub physical: u64,
    /// Writes need nothing but the write: they are permitted, the dirty bit is set, and no code of the page is kept.
    pub write: bool,
    /// It is part of a large page, or may be.
    pub large: bool,
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
        let mut grant = self.bus.page(page);
        if let Some(overlay) = &mut self.overlay {
            grant = overlay.first(page, grant);
        }
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
        if self.state.cr0 & cr0::PG == 0 {
            return Ok(Walk {
                physical: u64::from(linear & PAGE_MASK),
                writable: true,
                dirty: true,
                global: false,
                large: false,
            });
        }
        let user = mode.is_user();
        let access = Access { linear, write, user, honours_rw: user || self.state.cr0 & cr0::WP != 0 };
        if self.state.cr4 & cr4::PAE != 0 { self.walk_pae(access) } else { self.walk_two_level(access) }
    }

    /// The end of every walk: `last` is the low half of the entry that names the page, as just set.
    fn walked(&self, physical: u64, last: u32, writable: bool, large: bool) -> Walk {
        Walk {
            physical,
            writable,
            dirty: last & entry::D != 0,
            global: last & entry::G != 0 && self.state.cr4 & cr4::PGE != 0,
            large,
        }
    }

    fn walk_two_level(&mut self, access: Access) -> Exec<Walk> {
        let linear = access.linear;
        let directory_entry_at = u64::from(self.state.cr3 & cr3::DIRECTORY | linear >> 20 & 0xffc);
        let directory_entry = self.read_table(directory_entry_at);
        if directory_entry & entry::P == 0 {
            return Err(access.fault(0));
        }
        if directory_entry & entry::PS != 0 && self.state.cr4 & cr4::PSE != 0 {
            if directory_entry & entry::LARGE_RESERVED != 0 {
                return Err(access.fault(page_fault::PROTECTION | page_fault::RESERVED));
            }
            let writable = access.check(directory_entry)?;
            let used = directory_entry | access.used();
            self.update_table(directory_entry_at, directory_entry, used);
            return Ok(self.walked(large_page(used, linear & PAGE_MASK), used, writable, true));
        }

        let table_entry_at = u64::from(directory_entry & entry::ADDRESS | linear >> 10 & 0xffc);
        let table_entry = self.read_table(table_entry_at);
        if table_entry & entry::P == 0 {
            return Err(access.fault(0));
        }
        let writable = access.check(directory_entry & table_entry)?;
        self.update_table(directory_entry_at, directory_entry, directory_entry | entry::A);
        let used = table_entry | access.used();
        self.update_table(table_entry_at, table_entry, used);
        Ok(self.walked(u64::from(used & entry::ADDRESS), used, writable, false))
    }

    fn walk_pae(&mut self, access: Access) -> Exec<Walk> {
        let linear = access.linear;
        let reserved = || access.fault(page_fault::PROTECTION | page_fault::RESERVED);
        let pointer = self.state.pdpte[(linear >> 30) as usize % POINTERS];
        if pointer & u64::from(entry::P) == 0 {
            return Err(access.fault(0));
        }
        let directory_entry_at = pointer & pae::ADDRESS | u64::from(linear >> 18 & 0xff8);
        let directory_entry = self.read_table_64(directory_entry_at);
        // All but the address is in the low half.
        let directory_low = directory_entry as u32;
        if directory_low & entry::P == 0 {
            return Err(access.fault(0));
        }
        if directory_low & entry::PS != 0 {
            if directory_entry & pae::LARGE_RESERVED != 0 {
                return Err(reserved());
            }
            let writable = access.check(directory_low)?;
            let used = directory_low | access.used();
            self.update_table(directory_entry_at, directory_low, used);
            let offset = u64::from(linear & PAGE_MASK) & !pae::LARGE_ADDRESS;
            return Ok(self.walked(directory_entry & pae::LARGE_ADDRESS | offset, used, writable, true));
        }
        if directory_entry & pae::RESERVED != 0 {
            return Err(reserved());
        }

        let table_entry_at = directory_entry & pae::ADDRESS | u64::from(linear >> 9 & 0xff8);
        let table_entry = self.read_table_64(table_entry_at);
        let table_low = table_entry as u32;
        if table_low & entry::P == 0 {
            return Err(access.fault(0));
        }
        if table_entry & pae::RESERVED != 0 {
            return Err(reserved());
        }
        let writable = access.check(directory_low & table_low)?;
        self.update_table(directory_entry_at, directory_low, directory_low | entry::A);
        let used = table_low | access.used();
        self.update_table(table_entry_at, table_low, used);
        Ok(self.walked(table_entry & pae::ADDRESS, used, writable, false))
    }

    /// Reads the four directory pointers of PAE paging from the table at `cr3`: the processor keeps them
    /// until CR3 is loaded anew. #GP(0) when one has a reserved bit set.
    pub(super) fn load_pointers(&mut self, cr3: u32) -> Exec {
        let mut pointers = [0; POINTERS];
        for (n, pointer) in pointers.iter_mut().enumerate() {
            *pointer = self.read_table_64(u64::from(cr3 & cr3::POINTER_TABLE) + n as u64 * 8);
            if *pointer & u64::from(entry::P) != 0 && *pointer & pae::POINTER_RESERVED != 0 {
                return Err(Fault::gp(0));
            }
            // One that is not present may hold anything; nobody can see it.
            *pointer &= POINTER_DEFINED;
        }
        self.state.pdpte = pointers;
        Ok(())
    }

    /// Reads a paging structure entry.
    fn read_table(&mut self, physical: u64) -> u32 {
        let (page, offset) = self.split(physical);
        let translation = Translation { physical: page, grant: self.grant(page) };
        translation
            .load(offset)
            .unwrap_or_else(|| self.bus.read_memory(page | u64::from(offset), Width::Dword))
    }

    /// Reads a PAE paging structure entry.
    fn read_table_64(&mut self, physical: u64) -> u64 {
        u64::from(self.read_table(physical)) | u64::from(self.read_table(physical + 4)) << 32
    }

    /// Writes the (low half of the) paging structure entry when it changed.
    fn update_table(&mut self, physical: u64, old: u32, new: u32) {
        if old == new {
            return;
        }
        if let Some(updated) = &mut self.updated_entries {
            updated.push(physical & self.a20_mask);
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
        let physical = if self.state.cr4 & cr4::PAE != 0 {
            self.debug_walk_pae(linear)
        } else {
            self.debug_walk_two_level(linear)
        };
        physical.map(|physical| physical & self.a20_mask)
    }

    /// What the page tables say of a user's page, without any effect: `None` unless the page is there for users and has been
    /// accessed, so that nothing would have to be noted in the tables if it were read.
    pub fn user_page(&mut self, linear: u32) -> Option<UserPage> {
        if self.state.cr0 & cr0::PG == 0 {
            return None;
        }
        let needed = entry::P | entry::US | entry::A;
        let (physical, rights, last, large) = if self.state.cr4 & cr4::PAE != 0 {
            let pointer = self.state.pdpte[(linear >> 30) as usize % POINTERS];
            if pointer & u64::from(entry::P) == 0 {
                return None;
            }
            let directory_entry =
                self.read_table_64(pointer & pae::ADDRESS | u64::from(linear >> 18 & 0xff8));
            let low = directory_entry as u32;
            if low & needed != needed {
                return None;
            }
            if low & entry::PS != 0 {
                if directory_entry & pae::LARGE_RESERVED != 0 {
                    return None;
                }
                let offset = u64::from(linear & PAGE_MASK) & !pae::LARGE_ADDRESS;
                (directory_entry & pae::LARGE_ADDRESS | offset, low, low, true)
            } else {
                let table_entry =
                    self.read_table_64(directory_entry & pae::ADDRESS | u64::from(linear >> 9 & 0xff8));
                if (directory_entry | table_entry) & pae::RESERVED != 0 {
                    return None;
                }
                (table_entry & pae::ADDRESS, low & table_entry as u32, table_entry as u32, false)
            }
        } else {
            let directory_entry =
                self.read_table(u64::from(self.state.cr3 & cr3::DIRECTORY | linear >> 20 & 0xffc));
            if directory_entry & needed != needed {
                return None;
            }
            if directory_entry & entry::PS != 0 && self.state.cr4 & cr4::PSE != 0 {
                if directory_entry & entry::LARGE_RESERVED != 0 {
                    return None;
                }
                (large_page(directory_entry, linear & PAGE_MASK), directory_entry, directory_entry, true)
            } else {
                let table_entry =
                    self.read_table(u64::from(directory_entry & entry::ADDRESS | linear >> 10 & 0xffc));
                (u64::from(table_entry & entry::ADDRESS), directory_entry & table_entry, table_entry, false)
            }
        };
        if rights & needed != needed {
            return None;
        }
        let page = physical & self.a20_mask;
        let writable = rights & entry::RW != 0 && last & entry::D != 0;
        Some(UserPage { physical: page, write: writable && !self.code.is_code_page(page), large })
    }

    /// Where the bytes of a physical page are in host memory, and whether they can be written there.
    pub fn host_page(&mut self, physical: u64) -> Option<(std::ptr::NonNull<u8>, bool)> {
        let grant = self.grant(physical);
        let host = grant.read?;
        Some((host, grant.write == Some(host)))
    }

    fn debug_walk_two_level(&mut self, linear: u32) -> Option<u64> {
        let directory_entry =
            self.read_table(u64::from(self.state.cr3 & cr3::DIRECTORY | linear >> 20 & 0xffc));
        if directory_entry & entry::P == 0 {
            return None;
        }
        if directory_entry & entry::PS != 0 && self.state.cr4 & cr4::PSE != 0 {
            return Some(large_page(directory_entry, linear));
        }
        let table_entry = self.read_table(u64::from(directory_entry & entry::ADDRESS | linear >> 10 & 0xffc));
        (table_entry & entry::P != 0).then(|| u64::from(table_entry & entry::ADDRESS | linear & OFFSET_MASK))
    }

    fn debug_walk_pae(&mut self, linear: u32) -> Option<u64> {
        let present = |value: u64| (value & u64::from(entry::P) != 0).then_some(value);
        let pointer = present(self.state.pdpte[(linear >> 30) as usize % POINTERS])?;
        let directory_entry =
            present(self.read_table_64(pointer & pae::ADDRESS | u64::from(linear >> 18 & 0xff8)))?;
        if directory_entry & u64::from(entry::PS) != 0 {
            return Some(directory_entry & pae::LARGE_ADDRESS | u64::from(linear) & !pae::LARGE_ADDRESS);
        }
        let table_entry =
            present(self.read_table_64(directory_entry & pae::ADDRESS | u64::from(linear >> 9 & 0xff8)))?;
        Some(table_entry & pae::ADDRESS | u64::from(linear & OFFSET_MASK))
    }
}

/// Where `linear` is in the 4 MiB page that a directory entry names.
fn large_page(directory_entry: u32, linear: u32) -> u64 {
    let high = u64::from(directory_entry & entry::LARGE_HIGH) << entry::LARGE_HIGH_SHIFT;
    high | u64::from(directory_entry & entry::LARGE_ADDRESS | linear & !entry::LARGE_ADDRESS)
}
