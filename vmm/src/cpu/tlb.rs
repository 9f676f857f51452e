//! The software TLB: from a linear address to host memory in one compare.
//!
//! An entry belongs to one linear page and one [`Mode`]. It has three tags, each either the page's
//! linear address or [`NO_PAGE`]: `page` (the translation is known), `read` and `write` (bytes may be
//! moved directly at `host`). What has no direct tag takes the slow path in `memory.rs`, which goes
//! through the bus, applies watchpoints, reports code writes and may upgrade the entry.
//!
//! **Code writes.** A page with kept instructions ([`super::Vcpu::mark_code`]) never has a `write` tag,
//! so that each write to it takes the slow path, which stores and then tells
//! [`crate::interp::code_map::CodeMap::note_write`]. The engine looks at `code.has_written()` after each
//! instruction, drops what it kept of those bytes, and calls [`super::Vcpu::unmark_code_page`] when
//! nothing of the page is left, which makes writes fast again. Writes by device DMA come from
//! [`super::bus::Bus::take_written_code`] instead.
//!
//! **When entries die.** MOV CR3 drops those that are not global; changes of CR0.PG/PE/WP,
//! CR4.PSE/PGE/PAE and of debug registers drop all; INVLPG drops one page (or one large page); a new
//! [`super::bus::Bus::map_generation`] (also A20) drops all and the cached grants. The generation is
//! compared on every slow path, on every [`super::Vcpu::translate_code`], and after every port or
//! slow memory access of this processor, which are the only things that change the map while the
//! processor runs.
#![expect(unsafe_code, reason = "the fast path dereferences granted host pointers")]

use super::bus::{PAGE_SIZE, PageGrant};
use super::direct::{DirectMap, NewPage};
use super::word::Word;
use std::ptr::NonNull;

/// Bits of an address that name the page.
pub(super) const PAGE_MASK: u32 = !(PAGE_SIZE as u32 - 1);
/// Bits of an address within its page.
pub(super) const OFFSET_MASK: u32 = PAGE_SIZE as u32 - 1;

/// Entries per mode.
const ENTRIES: usize = 1024;
/// All modes; four, although three are used, to make the index a mask.
const TOTAL: usize = 4 * ENTRIES;
/// Tag that equals no page address.
const NO_PAGE: u32 = 1;
/// How many grants of physical pages are remembered.
const GRANTS: usize = 256;
/// Address bits of a 4 MiB page that lie above its offset; a page of 2 MiB is dropped with its neighbour.
const LARGE_MASK: u32 = 0xffc0_0000;

/// With which rights an access is made; entries are not shared between modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// CPL 0 to 2, and every access to system tables.
    Supervisor = 0,
    /// CPL 3.
    User = 1,
    /// CPL 3 with alignment checking on: nothing is fast.
    UserAligned = 2,
}

impl Mode {
    /// The U/S side of it.
    pub const fn is_user(self) -> bool {
        !matches!(self, Mode::Supervisor)
    }
}

/// Entry flags.
mod flag {
    /// Writes are permitted and the dirty bit is set.
    pub(super) const WRITABLE: u32 = 1 << 0;
    /// Survives MOV CR3.
    pub(super) const GLOBAL: u32 = 1 << 1;
    /// Part of a large page.
    pub(super) const LARGE: u32 = 1 << 2;
    /// `host` can be read.
    pub(super) const HOST_READ: u32 = 1 << 3;
    /// `host` can be written.
    pub(super) const HOST_WRITE: u32 = 1 << 4;
    /// Decoded code may be kept.
    pub(super) const CACHEABLE_CODE: u32 = 1 << 5;
}

/// In which lists a slot is.
#[derive(Clone, Copy, Default)]
struct Listed {
    used: bool,
    local: bool,
}

/// Large pages there can be.
const REGIONS: usize = 1 << (32 - LARGE_MASK.trailing_zeros());

/// The number of the large page that a linear address is in.
const fn region(linear: u32) -> usize {
    (linear >> LARGE_MASK.trailing_zeros()) as usize
}

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Entry {
    read: u32,
    write: u32,
    page: u32,
    flags: u32,
    physical: u64,
    host: *mut u8,
}

const EMPTY: Entry =
    Entry { read: NO_PAGE, write: NO_PAGE, page: NO_PAGE, flags: 0, physical: 0, host: std::ptr::null_mut() };

/// A translated page, as the slow path uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translation {
    /// Physical address of the page.
    pub(super) physical: u64,
    /// How to reach it.
    pub(super) grant: PageGrant,
}

/// What a new entry is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEntry {
    /// Linear address of the page.
    pub(super) page: u32,
    pub(super) translation: Translation,
    pub(super) writable: bool,
    pub(super) global: bool,
    pub(super) large: bool,
    /// Reads may be direct.
    pub(super) fast_read: bool,
    /// Writes may be direct (only honoured when `writable`).
    pub(super) fast_write: bool,
}

/// Bytes up to the end of a page that can be reached directly.
pub(super) struct Run {
    pub(super) host: *mut u8,
    /// At least one.
    pub(super) left: u32,
}

impl Run {
    fn of(entry: &Entry, linear: u32) -> Self {
        let offset = linear & OFFSET_MASK;
        Self { host: entry.host.wrapping_add(offset as usize), left: PAGE_SIZE as u32 - offset }
    }
}

/// See the module's description.
pub(super) struct Tlb {
    entries: Box<[Entry; TOTAL]>,
    /// Indices of entries that are not empty: flushing costs what filling did.
    /// Slots that may not be empty, and those whose entries may be local; each once, as `listed` says.
    used: Vec<u16>,
    local: Vec<u16>,
    listed: Box<[Listed; TOTAL]>,
    has_large: bool,
    /// Whether a page of the large page was here since everything was dropped.
    large: Box<[bool; REGIONS]>,
    grants: Box<[(u64, PageGrant); GRANTS]>,
    /// What translated code uses instead, when there is an engine that makes such code.
    direct: Option<Box<DirectMap>>,
}

#[inline(always)]
fn index(mode: Mode, linear: u32) -> usize {
    ((mode as usize * ENTRIES) | (linear >> 12) as usize & (ENTRIES - 1)) & (TOTAL - 1)
}

impl Tlb {
    pub(super) fn new() -> Self {
        Self {
            entries: Box::new([EMPTY; TOTAL]),
            used: Vec::with_capacity(TOTAL),
            local: Vec::with_capacity(TOTAL),
            listed: Box::new([Listed::default(); TOTAL]),
            has_large: false,
            large: Box::new([false; REGIONS]),
            grants: Box::new([(u64::MAX, PageGrant::default()); GRANTS]),
            direct: None,
        }
    }

    /// Reads directly, if the whole word lies in a page that allows it.
    ///
    /// The tag is compared with the page of the word's *last* byte: a word that crosses into the
    /// next page never matches, because that page has another index.
    #[inline(always)]
    pub(super) fn read<T: Word>(&self, mode: Mode, linear: u32) -> Option<T> {
        let entry = &self.entries[index(mode, linear)];
        if entry.read != linear.wrapping_add(T::SIZE - 1) & PAGE_MASK {
            return None;
        }
        // SAFETY: `read` is a page address only while `host` is the start of a page that the bus
        // granted for reading, and the whole word lies in that page (see above). The grant holds:
        // it ends only with a new map generation, and all entries are dropped before the next
        // guest access when that changes (module description).
        Some(unsafe { T::load(entry.host.add((linear & OFFSET_MASK) as usize)) })
    }

    /// Reads directly from a page that could also be written directly.
    #[inline(always)]
    pub(super) fn read_writable<T: Word>(&self, mode: Mode, linear: u32) -> Option<T> {
        let entry = &self.entries[index(mode, linear)];
        if entry.write != linear.wrapping_add(T::SIZE - 1) & PAGE_MASK {
            return None;
        }
        // SAFETY: as in `read`; a `write` tag is only set when `host` is also granted for reading
        // (`insert` demands both).
        Some(unsafe { T::load(entry.host.add((linear & OFFSET_MASK) as usize)) })
    }

    /// Writes directly; false when the page does not allow it.
    #[inline(always)]
    pub(super) fn write<T: Word>(&self, mode: Mode, linear: u32, value: T) -> bool {
        let entry = &self.entries[index(mode, linear)];
        if entry.write != linear.wrapping_add(T::SIZE - 1) & PAGE_MASK {
            return false;
        }
        // SAFETY: as in `read`, for a page granted for writing.
        unsafe { value.store(entry.host.add((linear & OFFSET_MASK) as usize)) };
        true
    }

    /// Whether `len` bytes at `linear`, within one page, can be read or written directly.
    #[inline(always)]
    pub(super) fn fast_write(&self, mode: Mode, linear: u32, len: u32) -> bool {
        self.entries[index(mode, linear)].write == linear.wrapping_add(len.wrapping_sub(1)) & PAGE_MASK
    }

    /// What is left of the page of `linear`, when it can be read directly.
    pub(super) fn readable_run(&self, mode: Mode, linear: u32) -> Option<Run> {
        let entry = &self.entries[index(mode, linear)];
        (entry.read == linear & PAGE_MASK).then(|| Run::of(entry, linear))
    }

    /// What is left of the page of `linear`, when it can be written directly.
    pub(super) fn writable_run(&self, mode: Mode, linear: u32) -> Option<Run> {
        let entry = &self.entries[index(mode, linear)];
        (entry.write == linear & PAGE_MASK).then(|| Run::of(entry, linear))
    }

    /// The known translation of the page of `linear`, if it permits the access.
    #[inline(always)]
    pub(super) fn translation(&self, mode: Mode, linear: u32, write: bool) -> Option<Translation> {
        let entry = &self.entries[index(mode, linear)];
        if entry.page != linear & PAGE_MASK || write && entry.flags & flag::WRITABLE == 0 {
            return None;
        }
        let host = NonNull::new(entry.host);
        Some(Translation {
            physical: entry.physical,
            grant: PageGrant {
                read: host.filter(|_| entry.flags & flag::HOST_READ != 0),
                write: host.filter(|_| entry.flags & flag::HOST_WRITE != 0),
                cacheable_code: entry.flags & flag::CACHEABLE_CODE != 0,
            },
        })
    }

    /// Puts an entry in.
    pub(super) fn insert(&mut self, mode: Mode, new: &NewEntry) {
        let slot = index(mode, new.page);
        let grant = new.translation.grant;
        // Memory that is read and written at two places keeps only the first: writes go to the bus.
        let write = grant.write.filter(|_| grant.read.is_none() || grant.read == grant.write);
        let host = grant.read.or(write);
        let fast_read = new.fast_read && grant.read.is_some();
        let fast_write = new.fast_write && new.writable && grant.read.is_some() && write.is_some();
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let listed = &mut self.listed[slot];
        if !std::mem::replace(&mut listed.used, true) {
            self.used.push(slot as u16);
        }
        if !new.global && !std::mem::replace(&mut listed.local, true) {
            self.local.push(slot as u16);
        }
        let entry = &mut self.entries[slot];
        *entry = Entry {
            read: if fast_read { new.page } else { NO_PAGE },
            write: if fast_write { new.page } else { NO_PAGE },
            page: new.page,
            flags: bit(new.writable, flag::WRITABLE)
                | bit(new.global, flag::GLOBAL)
                | bit(new.large, flag::LARGE)
                | bit(grant.read.is_some(), flag::HOST_READ)
                | bit(write.is_some(), flag::HOST_WRITE)
                | bit(grant.cacheable_code, flag::CACHEABLE_CODE),
            physical: new.translation.physical,
            host: host.map_or(std::ptr::null_mut(), NonNull::as_ptr),
        };
        if new.large {
            self.has_large = true;
            self.large[region(new.page)] = true;
        }
    }

    /// Drops everything, global pages too.
    pub(super) fn flush_all(&mut self) {
        for slot in self.used.drain(..) {
            let slot = usize::from(slot) & (TOTAL - 1);
            self.entries[slot] = EMPTY;
            self.listed[slot] = Listed::default();
        }
        self.local.clear();
        if std::mem::take(&mut self.has_large) {
            self.large.fill(false);
        }
        if let Some(direct) = &mut self.direct {
            direct.flush_all();
        }
    }

    /// Drops everything that is not global.
    pub(super) fn flush_local(&mut self) {
        for slot in self.local.drain(..) {
            let slot = usize::from(slot) & (TOTAL - 1);
            self.listed[slot].local = false;
            let entry = &mut self.entries[slot];
            if entry.flags & flag::GLOBAL == 0 {
                *entry = EMPTY;
            }
        }
        if let Some(direct) = &mut self.direct {
            direct.flush_local();
        }
    }

    /// Drops what is known about the page of `linear`.
    pub(super) fn flush_page(&mut self, linear: u32) {
        let page = linear & PAGE_MASK;
        let large = linear & LARGE_MASK;
        if let Some(direct) = &mut self.direct {
            direct.flush_page(linear);
        }
        for mode in [Mode::Supervisor, Mode::User, Mode::UserAligned] {
            let entry = &mut self.entries[index(mode, linear)];
            if entry.page == page {
                *entry = EMPTY;
            }
        }
        if self.large[region(linear)] {
            for &slot in &self.used {
                let entry = &mut self.entries[usize::from(slot) & (TOTAL - 1)];
                if entry.flags & flag::LARGE != 0 && entry.page & LARGE_MASK == large {
                    *entry = EMPTY;
                }
            }
        }
    }

    /// Makes every entry of a physical page slow for writes.
    pub(super) fn protect(&mut self, physical: u64) {
        for &slot in &self.used {
            let entry = &mut self.entries[usize::from(slot) & (TOTAL - 1)];
            if entry.physical == physical {
                entry.write = NO_PAGE;
            }
        }
        if let Some(direct) = &mut self.direct {
            direct.protect(physical);
        }
    }

    /// Whether the entry of the page of `linear` is global and part of a large page. Of an unknown one: not global, and large, so
    /// that everything that might concern it does.
    pub(super) fn page_kind(&self, mode: Mode, linear: u32) -> (bool, bool) {
        let entry = &self.entries[index(mode, linear)];
        let known = entry.page == linear & PAGE_MASK;
        (known && entry.flags & flag::GLOBAL != 0, !known || entry.flags & flag::LARGE != 0)
    }

    /// The direct map, if an engine asked for one.
    pub(super) fn direct(&mut self) -> Option<&mut DirectMap> {
        self.direct.as_deref_mut()
    }

    /// Keeps `direct` in step from now on.
    pub(super) fn set_direct(&mut self, direct: DirectMap) {
        self.direct = Some(Box::new(direct));
    }

    /// Lets translated code access the page of `linear` as its entry here allows. False when it must not.
    pub(super) fn make_direct(&mut self, mode: Mode, linear: u32, write: bool) -> bool {
        let entry = self.entries[index(mode, linear)];
        let page = linear & PAGE_MASK;
        let (Some(direct), Some(host)) = (&mut self.direct, NonNull::new(entry.host)) else { return false };
        let reads = entry.read == page;
        let writes = entry.write == page;
        if !reads || write && !writes {
            return false;
        }
        let flag = |flag| entry.flags & flag != 0;
        direct.insert(NewPage {
            page,
            user: mode.is_user(),
            write: writes,
            host,
            physical: entry.physical,
            global: flag(flag::GLOBAL),
            large: flag(flag::LARGE),
        });
        true
    }

    /// Whether the page of `linear` may be read and written directly.
    pub(super) fn rights(&self, mode: Mode, linear: u32) -> (bool, bool) {
        let entry = &self.entries[index(mode, linear)];
        let page = linear & PAGE_MASK;
        (entry.read == page, entry.write == page)
    }

    /// Lets writes be direct again where the translation and the grant allow it.
    pub(super) fn unprotect(&mut self, mode: Mode, linear: u32) {
        let entry = &mut self.entries[index(mode, linear)];
        let needed = flag::WRITABLE | flag::HOST_READ | flag::HOST_WRITE;
        if entry.page == linear & PAGE_MASK && entry.flags & needed == needed && entry.read == entry.page {
            entry.write = entry.page;
        }
    }

    /// The remembered grant of a physical page.
    pub(super) fn grant(&self, physical: u64) -> Option<PageGrant> {
        let (page, grant) = self.grants[(physical / PAGE_SIZE) as usize % GRANTS];
        (page == physical).then_some(grant)
    }

    /// Remembers the grant of a physical page.
    pub(super) fn remember_grant(&mut self, physical: u64, grant: PageGrant) {
        self.grants[(physical / PAGE_SIZE) as usize % GRANTS] = (physical, grant);
    }

    /// Drops everything, grants too.
    pub(super) fn flush_map(&mut self) {
        self.flush_all();
        self.grants.fill((u64::MAX, PageGrant::default()));
    }
}

impl Translation {
    /// Reads directly; `None` when reads go through the bus.
    ///
    /// The word must lie within the page.
    pub(super) fn load<T: Word>(&self, offset: u32) -> Option<T> {
        let host = self.grant.read.filter(|_| offset <= PAGE_SIZE as u32 - T::SIZE)?;
        // SAFETY: the bus granted the whole page at `host` for reading and the word lies within
        // it (just checked). Translations are used at once, before the map can change.
        Some(unsafe { T::load(host.as_ptr().add(offset as usize)) })
    }

    /// Writes directly; false when writes go through the bus.
    ///
    /// The word must lie within the page.
    pub(super) fn store<T: Word>(&self, offset: u32, value: T) -> bool {
        let Some(host) = self.grant.write.filter(|_| offset <= PAGE_SIZE as u32 - T::SIZE) else {
            return false;
        };
        // SAFETY: as in `load`, for writing.
        unsafe { value.store(host.as_ptr().add(offset as usize)) };
        true
    }
}
