//! Exec maps: for a [`Mode`] and each linear page, the entry table of the shadow page that is mapped there now.
//!
//! A page's entry is valid while its translation is; entries die with the flushes of the TLB. What is not known leads to a
//! table that is full of the miss stub. Entries are biased, so that shadow code needs no mask: the table's address minus four
//! times the page's linear address.
#![expect(unsafe_code, reason = "reads a table that shadow code reads by its address")]

use super::cache::CacheError;
use super::mode::Mode;
use crate::cpu::bus::PAGE_SIZE;
use crate::cpu::direct::{ARRAY_BYTES, Arrays, Flush, PAGES};
use crate::cpu::known::{Known, KnownPages};

const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();
/// Pages that a 16-bit code segment can touch.
const PAGES_16: usize = 17;

/// An entry: `table` for the page at `page`.
pub fn biased(table: u64, page: u32) -> u64 {
    table.wrapping_sub(4 * u64::from(page))
}

fn fill(arrays: &mut Arrays, first: usize, pages: usize, table: u64) {
    for n in 0..pages {
        arrays.set(n, biased(table, ((first + n) as u32) << PAGE_SHIFT));
    }
}

/// Selectors of real mode.
const SELECTORS: usize = 1 << 16;

/// For segmented modes that differ in nothing but the base of CS: the exec map for each selector of a code segment, as the distance
/// from the map that is empty.
pub struct FarTable {
    distances: Arrays,
}

impl FarTable {
    /// One that knows no map.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn new() -> Result<Self, CacheError> {
        let distances = Arrays::new(SELECTORS * size_of::<u64>())
            .map_err(|error| CacheError { what: "exec maps by selector", error })?;
        Ok(Self { distances })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.distances.address()
    }

    /// The exec map of the code segment at `cs_base`, by the table at `table`. `None`: it has none, or has been forgotten.
    ///
    /// # Safety
    /// `table` is [`FarTable::address`] of one that exists, or zero; `empty` is the address of the map that is empty.
    pub unsafe fn find(table: u64, cs_base: u32, empty: u64) -> Option<u64> {
        let selector = (cs_base / 16) as usize;
        if table == 0 || !cs_base.is_multiple_of(16) || selector >= SELECTORS {
            return None;
        }
        // SAFETY: within the table (just checked), which only this thread writes.
        let distance = unsafe { (table as *const u64).add(selector).read() };
        (distance != 0).then(|| empty.wrapping_add(distance))
    }

    /// Leads the selector of code segments with this base to their map.
    pub fn set(&mut self, cs_base: u32, map: &ExecMap, empty: &ExecMap) {
        if cs_base.is_multiple_of(16) && ((cs_base / 16) as usize) < SELECTORS {
            self.distances.set((cs_base / 16) as usize, map.address().wrapping_sub(empty.address()));
        }
    }
}

/// See the module's description.
pub struct ExecMap {
    entries: Arrays,
    first: usize,
    pages: usize,
    miss: u64,
    known: KnownPages<()>,
    /// Of code at CPL 3.
    pub user: bool,
    /// In segmented modes: where the table of all code segments' maps is.
    pub far: u64,
}

impl ExecMap {
    /// A map for `mode` that knows nothing; `miss` is the table that leads to the miss stub.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn new(mode: Mode, miss: u64) -> Result<Self, CacheError> {
        let made = if mode.code32() {
            Self::whole(miss)
        } else {
            let first = (mode.cs_base >> PAGE_SHIFT) as usize;
            Self::make(first, PAGES_16.min(PAGES - first), PAGES_16 * size_of::<u64>(), miss)
        };
        made.map(|map| Self { user: mode.user(), ..map })
    }

    /// A map of all linear pages that knows nothing.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn whole(miss: u64) -> Result<Self, CacheError> {
        Self::make(0, PAGES, ARRAY_BYTES, miss)
    }

    fn make(first: usize, pages: usize, bytes: usize, miss: u64) -> Result<Self, CacheError> {
        let mut entries = Arrays::new(bytes).map_err(|error| CacheError { what: "exec maps", error })?;
        fill(&mut entries, first, pages, miss);
        Ok(Self { entries, first, pages, miss, known: KnownPages::default(), user: false, far: 0 })
    }

    /// Whether it has all linear pages.
    pub fn is_whole(&self) -> bool {
        self.pages == PAGES
    }

    /// What shadow code adds eight times the page's number to.
    pub fn address(&self) -> u64 {
        self.entries.address().wrapping_sub(8 * self.first as u64)
    }

    fn index(&self, page: u32) -> Option<usize> {
        ((page >> PAGE_SHIFT) as usize).checked_sub(self.first).filter(|index| *index < self.pages)
    }

    /// Whether anything is known of the page.
    pub fn knows(&self, page: u32) -> bool {
        self.index(page).is_some_and(|index| self.entries.get(index) != biased(self.miss, page))
    }

    /// Where an entry table is that the page leads to.
    pub fn table(&self, page: u32) -> Option<u64> {
        let entry = self.entries.get(self.index(page)?);
        Some(entry.wrapping_add(4 * u64::from(page)))
    }

    /// Leads the page to an entry table. True: it led to another one.
    pub fn set(&mut self, page: u32, table: u64, global: bool, large: bool) -> bool {
        let Some(index) = self.index(page) else { return false };
        let (knew, entry) = (self.knows(page), biased(table, page));
        if !knew {
            self.known.add(global, Known { page, large, extra: () });
        }
        let changes = knew && self.entries.get(index) != entry;
        self.entries.set(index, entry);
        changes
    }

    /// Forgets what a flush of the TLB makes void. True: it knew something of that.
    pub fn flush(&mut self, flush: Flush) -> bool {
        let mut knew = false;
        let entries = &mut self.entries;
        let (first, pages, miss) = (self.first, self.pages, self.miss);
        self.known.flush(flush, |linear| {
            let page = linear >> PAGE_SHIFT;
            if let Some(index) = (page as usize).checked_sub(first).filter(|index| *index < pages) {
                let empty = biased(miss, page << PAGE_SHIFT);
                knew |= entries.get(index) != empty;
                entries.set(index, empty);
            }
        });
        knew
    }
}
