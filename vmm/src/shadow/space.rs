//! Exec maps: for a [`Mode`] and each linear page, the entry table of the shadow page that is mapped there now.
//!
//! A page's entry is valid while its translation is; entries die with the flushes of the TLB. What is not known leads to a
//! table that is full of the miss stub. Entries are biased, so that shadow code needs no mask: the table's address minus four
//! times the page's linear address.

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

/// See the module's description.
pub struct ExecMap {
    entries: Arrays,
    first: usize,
    pages: usize,
    miss: u64,
    known: KnownPages<()>,
}

impl ExecMap {
    /// A map for `mode` that knows nothing; `miss` is the table that leads to the miss stub.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn new(mode: Mode, miss: u64) -> Result<Self, CacheError> {
        if mode.code32() {
            return Self::whole(miss);
        }
        let first = (mode.cs_base >> PAGE_SHIFT) as usize;
        Self::make(first, PAGES_16.min(PAGES - first), PAGES_16 * size_of::<u64>(), miss)
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
        Ok(Self { entries, first, pages, miss, known: KnownPages::default() })
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

    /// Leads the page to an entry table.
    pub fn set(&mut self, page: u32, table: u64, global: bool, large: bool) {
        let Some(index) = self.index(page) else { return };
        if !self.knows(page) {
            self.known.add(global, Known { page, large, extra: () });
        }
        self.entries.set(index, biased(table, page));
    }

    /// Forgets what a flush of the TLB makes void.
    pub fn flush(&mut self, flush: Flush) {
        let entries = &mut self.entries;
        let (first, pages, miss) = (self.first, self.pages, self.miss);
        self.known.flush(flush, |linear| {
            let page = linear >> PAGE_SHIFT;
            if let Some(index) = (page as usize).checked_sub(first).filter(|index| *index < pages) {
                entries.set(index, biased(miss, page << PAGE_SHIFT));
            }
        });
    }
}
