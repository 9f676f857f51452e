//! Windows: the guest's linear memory of a user, as memory of this process.
//!
//! A window is 4 GiB of address space, aligned to 4 GiB, in which the host's own paging does the work of the guest's: an
//! access of the guest is one access of the host, at the window's address plus the linear address. What is not mapped
//! faults; [`super::trap`] catches that, and the engine maps the page here or leaves the access to the interpreter.
//!
//! A window belongs to a value of CR3 and outlives its reload: what was mapped is then compared with the page tables, and
//! unmapped where they differ. So x86's rule holds (a translation may be kept until CR3 is loaded or INVLPG names it) without
//! any watch on the guest's page tables. A page is mapped writable only once its dirty bit is set, and never while code of
//! it is kept.
//!
//! Mappings are counted and bounded, as the host bounds them; the least recently used window goes first. When the host refuses
//! a change all the same, and what is mapped then is not what was meant, the whole window goes. This module knows neither code nor
//! processor.
#![expect(unsafe_code, reason = "maps guest memory a second time")]

use crate::cpu::bus::PAGE_SIZE;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr::NonNull;

/// Bytes of a window.
pub const WINDOW_BYTES: u64 = 1 << 32;
/// Bytes on both sides of a window that are never mapped: the displacements of accesses, and moves of the stack pointer between two
/// accesses, stay below this.
pub const GUARD_BYTES: u64 = 1 << 20;
/// Windows at a time.
const MOST_WINDOWS: usize = 8;
/// Mapped pages at a time when the host does not tell its limit.
const DEFAULT_BUDGET: usize = 24_000;
/// Mappings of this process that are not windows'.
const OTHER_MAPPINGS: usize = 4096;
const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();

/// Address space without content, released when dropped.
struct Reservation {
    start: NonNull<c_void>,
    /// The window in it.
    base: u64,
    /// Nothing is ever mapped there.
    pretends: bool,
}

// SAFETY: the address space belongs to this value alone.
unsafe impl Send for Reservation {}

impl Reservation {
    /// Whatever its start, an aligned window with both guards is in it.
    const BYTES: usize = (2 * WINDOW_BYTES + 2 * GUARD_BYTES) as usize;

    fn new(pretends: bool) -> rustix::io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), Self::BYTES, ProtFlags::empty(), flags)
        }?;
        let start = NonNull::new(at).ok_or(rustix::io::Errno::NOMEM)?;
        let base = (at as u64 + GUARD_BYTES).next_multiple_of(WINDOW_BYTES);
        Ok(Self { start, base, pretends })
    }

    fn at(&self, page: u32) -> *mut c_void {
        (self.base + u64::from(page)) as *mut c_void
    }

    /// Maps `bytes` of the shared memory at `host` once more, at `page`.
    fn map(&self, page: u32, host: NonNull<u8>, bytes: usize, write: bool) -> rustix::io::Result<()> {
        if self.pretends {
            return Ok(());
        }
        // SAFETY: the target lies in the reservation, which nobody else uses; the source is memory that the bus granted. A
        // shared mapping of which nothing (0 bytes) is moved is mapped a second time.
        unsafe {
            let flags = MremapFlags::MAYMOVE;
            rustix::mm::mremap_fixed(host.as_ptr().cast(), 0, bytes, flags, self.at(page))?;
        }
        if write { Ok(()) } else { self.protect(page, bytes) }
    }

    fn protect(&self, page: u32, bytes: usize) -> rustix::io::Result<()> {
        if self.pretends {
            return Ok(());
        }
        // SAFETY: within the reservation; only shadow code uses it, which is prepared for faults.
        unsafe { rustix::mm::mprotect(self.at(page), bytes, MprotectFlags::READ) }
    }

    /// Takes away what is mapped.
    fn unmap(&self, page: u32, bytes: usize) -> rustix::io::Result<()> {
        if self.pretends {
            return Ok(());
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: within the reservation; only shadow code uses it, which is prepared for faults.
        unsafe { rustix::mm::mmap_anonymous(self.at(page), bytes, ProtFlags::empty(), flags) }.map(drop)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the address space was reserved by `new` and nobody uses it after its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr(), Self::BYTES) };
    }
}

/// A page in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its physical address.
    pub physical: u64,
    /// It can be written.
    pub write: bool,
}

/// One address space.
struct Window {
    memory: Reservation,
    cr3: u32,
    pages: BTreeMap<u32, Mapped>,
    /// The page tables may have changed.
    stale: bool,
    /// When it was current last.
    used: u64,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowStatistics {
    /// Windows there are.
    pub windows: u64,
    /// Pages in them.
    pub pages: u64,
    /// Address spaces that got a window.
    pub promotions: u64,
    /// Those that lost it because too many of their accesses were not plain.
    pub demotions: u64,
    /// Windows that had to make room for others.
    pub evictions: u64,
    /// Faults that mapped something.
    pub fills: u64,
    /// Pages mapped by them.
    pub pages_mapped: u64,
    /// Faults that were left to the interpreter.
    pub not_plain: u64,
    /// Times a window was compared with its page tables.
    pub comparisons: u64,
    /// Pages that were unmapped because the page tables had changed.
    pub changed: u64,
    /// Pages made read-only because code of them is kept.
    pub protected: u64,
}

/// See the module's description.
pub struct Windows {
    windows: Vec<Window>,
    current: Option<usize>,
    budget: usize,
    pages: usize,
    /// How many windows have a physical page writable.
    writable: HashMap<u64, u32>,
    clock: u64,
    statistics: WindowStatistics,
    /// Nothing is mapped, only remembered.
    pretends: bool,
}

/// Half of the host's limit, and something for everybody else: a page can split the empty mapping around it.
fn budget() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    limit.map_or(DEFAULT_BUDGET, |limit| limit.saturating_sub(OTHER_MAPPINGS) / 2)
}

impl Default for Windows {
    fn default() -> Self {
        Self::with_budget(budget())
    }
}

impl Windows {
    /// None yet, and never more than `budget` pages in all.
    pub fn with_budget(budget: usize) -> Self {
        Self {
            windows: Vec::new(),
            current: None,
            budget,
            pages: 0,
            writable: HashMap::new(),
            clock: 0,
            statistics: WindowStatistics::default(),
            pretends: false,
        }
    }

    /// Windows in which nothing is ever mapped: they only remember what would be.
    pub fn pretended() -> Self {
        Self { pretends: true, ..Self::default() }
    }

    /// What has been done.
    pub fn statistics(&self) -> WindowStatistics {
        WindowStatistics { windows: self.windows.len() as u64, pages: self.pages as u64, ..self.statistics }
    }

    /// Counts a fault that is left to the interpreter.
    pub fn count_not_plain(&mut self) -> u64 {
        self.statistics.not_plain += 1;
        self.statistics.not_plain
    }

    /// The current window's address, if it is that of `cr3` and nothing in it needs a comparison.
    #[inline]
    pub fn ready(&self, cr3: u32) -> Option<u64> {
        let window = &self.windows[self.current?];
        (window.cr3 == cr3 && !window.stale).then_some(window.memory.base)
    }

    /// Makes the window of `cr3` current, if there is one. Its content must then be compared ([`Windows::compare`]).
    pub fn switch(&mut self, cr3: u32) -> bool {
        let found = self.windows.iter().position(|window| window.cr3 == cr3);
        if let Some(index) = found {
            self.clock += 1;
            let window = &mut self.windows[index];
            window.used = self.clock;
            // Others have run meanwhile, and may have changed anything.
            window.stale |= self.current != Some(index);
            self.current = found;
        }
        found.is_some()
    }

    /// Gives `cr3` a window and makes it current. False: the host has no room.
    pub fn open(&mut self, cr3: u32) -> bool {
        if self.windows.len() >= MOST_WINDOWS {
            self.evict(None);
        }
        let Ok(memory) = Reservation::new(self.pretends) else { return false };
        self.windows.push(Window { memory, cr3, pages: BTreeMap::new(), stale: false, used: 0 });
        self.statistics.promotions += 1;
        self.switch(cr3);
        // Nothing is in it that could be outdated.
        if let Some(window) = self.windows.last_mut() {
            window.stale = false;
        }
        true
    }

    /// Makes the only window one of `cr3` in which nothing is mapped. False: the host has no room.
    pub fn restart(&mut self, cr3: u32) -> bool {
        match self.windows.first_mut() {
            Some(window) => (window.cr3, window.stale) = (cr3, true),
            None => return self.open(cr3),
        }
        self.current = Some(0);
        self.compare(|_, _| false);
        self.ready(cr3).is_some()
    }

    /// What is mapped in the current window.
    pub fn pages(&self) -> impl Iterator<Item = (u32, Mapped)> {
        let window = self.current.and_then(|current| self.windows.get(current));
        window.into_iter().flat_map(|window| window.pages.iter().map(|(page, mapped)| (*page, *mapped)))
    }

    /// Closes the window of `cr3`.
    pub fn close(&mut self, cr3: u32) {
        if let Some(index) = self.windows.iter().position(|window| window.cr3 == cr3) {
            self.remove(index);
            self.statistics.demotions += 1;
        }
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.writable.clear();
        self.current = None;
        self.pages = 0;
    }

    fn remove(&mut self, index: usize) {
        let window = self.windows.swap_remove(index);
        self.current = None;
        self.forget(window.pages.values());
    }

    /// Pages are not mapped any more.
    fn forget<'a>(&mut self, pages: impl Iterator<Item = &'a Mapped>) {
        for page in pages {
            self.pages -= 1;
            if page.write {
                Self::not_writable(&mut self.writable, page.physical);
            }
        }
    }

    fn not_writable(writable: &mut HashMap<u64, u32>, physical: u64) {
        if let Some(count) = writable.get_mut(&physical) {
            *count -= 1;
            if *count == 0 {
                writable.remove(&physical);
            }
        }
    }

    /// Closes the window that has not been used for longest, but not `but`. False: there is none.
    fn evict(&mut self, but: Option<usize>) -> bool {
        let others = self.windows.iter().enumerate().filter(|(index, _)| Some(*index) != but);
        let Some((index, _)) = others.min_by_key(|(_, window)| window.used) else { return false };
        let current = self.current.map(|current| self.windows[current].cr3);
        self.remove(index);
        self.statistics.evictions += 1;
        self.current = current.and_then(|cr3| self.windows.iter().position(|window| window.cr3 == cr3));
        true
    }

    /// The linear address that `address` is in the current window, if it is.
    pub fn linear(&self, address: u64) -> Option<u32> {
        let base = self.windows[self.current?].memory.base;
        u32::try_from(address.wrapping_sub(base)).ok()
    }

    /// Whether `address` is in a guard of the current window.
    pub fn guards(&self, address: u64) -> bool {
        let Some(window) = self.current.and_then(|current| self.windows.get(current)) else { return false };
        let start = window.memory.base - GUARD_BYTES;
        (start..start + WINDOW_BYTES + 2 * GUARD_BYTES).contains(&address)
    }

    /// Whether the current window has the page at `page`, and how.
    pub fn mapped(&self, page: u32) -> Option<Mapped> {
        self.windows.get(self.current?)?.pages.get(&page).copied()
    }

    /// Maps pages of the current window from `page` on: physically consecutive ones, whose bytes start at `host`. False: the host
    /// refuses, and the window may be closed ([`Windows::ready`]), or they are more than there may be.
    pub fn map(&mut self, page: u32, first: Mapped, host: NonNull<u8>, count: u32) -> bool {
        while self.pages + count as usize > self.budget {
            if !self.evict(self.current) {
                return false;
            }
        }
        let Some(window) = self.current.and_then(|current| self.windows.get_mut(current)) else {
            return false;
        };
        let bytes = count as usize * PAGE_SIZE as usize;
        if !(host.as_ptr() as u64).is_multiple_of(PAGE_SIZE) {
            return false;
        }
        if window.memory.map(page, host, bytes, first.write).is_err() {
            // What was there before is gone, perhaps.
            let repaired = window.memory.unmap(page, bytes);
            let pages = (0..count).map(|n| page + (n << PAGE_SHIFT));
            let gone: Vec<Mapped> = pages.filter_map(|page| window.pages.remove(&page)).collect();
            self.forget(gone.iter());
            self.remove_current_if_failed(repaired);
            return false;
        }
        for n in 0..count {
            let mapped =
                Mapped { physical: first.physical + (u64::from(n) << PAGE_SHIFT), write: first.write };
            match window.pages.insert(page + (n << PAGE_SHIFT), mapped) {
                Some(old) if old.write => Self::not_writable(&mut self.writable, old.physical),
                Some(_) => {}
                None => self.pages += 1,
            }
            if mapped.write {
                *self.writable.entry(mapped.physical).or_default() += 1;
            }
        }
        self.statistics.fills += 1;
        self.statistics.pages_mapped += u64::from(count);
        true
    }

    /// Every window must be compared before it is used again.
    pub fn outdate(&mut self) {
        self.windows.iter_mut().for_each(|window| window.stale = true);
    }

    /// The current window must be compared before it is used again.
    pub fn outdate_current(&mut self) {
        if let Some(window) = self.current.and_then(|current| self.windows.get_mut(current)) {
            window.stale = true;
        }
    }

    /// Whether a page is mapped is decided anew.
    pub fn unmap(&mut self, page: u32) {
        let Some(window) = self.current.and_then(|current| self.windows.get_mut(current)) else { return };
        if let Some(old) = window.pages.remove(&page) {
            let done = window.memory.unmap(page, PAGE_SIZE as usize);
            self.forget(std::iter::once(&old));
            self.remove_current_if_failed(done);
        }
    }

    /// What is mapped in the current window may not be what `pages` has: it goes.
    fn remove_current_if_failed(&mut self, done: rustix::io::Result<()>) {
        if let (Err(_), Some(current)) = (done, self.current) {
            self.remove(current);
        }
    }

    /// Compares the current window with the page tables: unmaps every page of which `holds` does not say that it would be mapped in
    /// the same way.
    pub fn compare(&mut self, mut holds: impl FnMut(u32, Mapped) -> bool) {
        let Some(window) = self.current.and_then(|current| self.windows.get_mut(current)) else { return };
        if !std::mem::take(&mut window.stale) {
            return;
        }
        self.statistics.comparisons += 1;
        let mut gone = Vec::new();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (&page, &mapped) in &window.pages {
            if holds(page, mapped) {
                continue;
            }
            gone.push((page, mapped));
            match runs.last_mut() {
                // Nothing lies between two neighbours in the map that are both gone.
                Some((start, pages)) if *start + (*pages << PAGE_SHIFT) == page => *pages += 1,
                _ => runs.push((page, 1)),
            }
        }
        let mut done = Ok(());
        if !gone.is_empty() && gone.len() == window.pages.len() {
            let all = u64::from(gone[gone.len() - 1].0 - gone[0].0) + PAGE_SIZE;
            done = window.memory.unmap(gone[0].0, all as usize);
        } else {
            for (start, pages) in runs {
                done = done.and(window.memory.unmap(start, (pages as usize) << PAGE_SHIFT));
            }
        }
        for (page, _) in &gone {
            window.pages.remove(page);
        }
        self.statistics.changed += gone.len() as u64;
        self.forget(gone.iter().map(|(_, mapped)| mapped));
        self.remove_current_if_failed(done);
    }

    /// Makes a physical page read-only wherever it is mapped. Windows in which the host refuses that are closed.
    pub fn protect(&mut self, physical: u64) {
        if self.writable.remove(&physical).is_none() {
            return;
        }
        let mut failed = Vec::new();
        for (index, window) in self.windows.iter_mut().enumerate() {
            let pages = window.pages.iter_mut();
            let mut done = Ok(());
            for (&page, mapped) in pages.filter(|(_, mapped)| mapped.write && mapped.physical == physical) {
                mapped.write = false;
                self.statistics.protected += 1;
                done = done.and(window.memory.protect(page, PAGE_SIZE as usize));
            }
            if done.is_err() {
                failed.push(index);
            }
        }
        // (From the last: others take the place of what is removed.)
        failed.into_iter().rev().for_each(|index| self.remove(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory, as guest RAM is.
    struct Ram(NonNull<u8>);

    const PAGES: usize = 64;
    const PAGE: u32 = PAGE_SIZE as u32;

    impl Ram {
        fn new() -> Self {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping.
            let at = unsafe {
                rustix::mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    PAGES * PAGE_SIZE as usize,
                    protection,
                    MapFlags::SHARED,
                )
            };
            let ram = Self(NonNull::new(at.expect("there is memory").cast()).expect("not at zero"));
            for n in 0..PAGES {
                // SAFETY: within the mapping.
                unsafe { ram.page(n).write(n as u8) };
            }
            ram
        }

        fn page(&self, n: usize) -> NonNull<u8> {
            // SAFETY: callers stay within the mapping.
            unsafe { self.0.add(n * PAGE_SIZE as usize) }
        }
    }

    fn at(n: usize, write: bool) -> Mapped {
        Mapped { physical: n as u64 * PAGE_SIZE, write }
    }

    fn peek(windows: &Windows, linear: u32) -> u8 {
        let base = windows.windows[windows.current.expect("one is current")].memory.base;
        // SAFETY: callers have mapped it.
        unsafe { ((base + u64::from(linear)) as *const u8).read_volatile() }
    }

    #[test]
    fn a_window_shows_what_is_mapped_and_is_aligned_to_its_size() {
        let ram = Ram::new();
        let mut windows = Windows::with_budget(100);
        assert!(windows.open(0x1000));
        assert!(windows.map(5 * PAGE, at(9, true), ram.page(9), 3));
        for n in 0..3 {
            assert_eq!(peek(&windows, (5 + n) * PAGE), 9 + n as u8);
        }
        assert_eq!(windows.ready(0x1000).expect("it is current") % WINDOW_BYTES, 0);
        assert_eq!(windows.mapped(7 * PAGE), Some(at(11, true)));
        assert_eq!(windows.statistics().pages, 3);
    }

    #[test]
    fn no_more_pages_are_mapped_than_the_budget_allows() {
        let ram = Ram::new();
        let mut windows = Windows::with_budget(20);
        for space in 0..50 {
            assert!(windows.open(space * PAGE));
            for n in 0..20 {
                assert!(
                    windows.map(n * 2 * PAGE, at(n as usize, true), ram.page(n as usize), 1),
                    "{space} {n}"
                );
                assert!(windows.pages <= 20);
            }
            assert!(!windows.map(200 * PAGE, at(1, true), ram.page(1), 1), "it alone has all there may be");
            assert_eq!(peek(&windows, 38 * PAGE), 19);
        }
        assert!(windows.windows.len() <= MOST_WINDOWS);
    }

    #[test]
    fn a_comparison_unmaps_what_differs_and_nothing_else() {
        let ram = Ram::new();
        let mut windows = Windows::with_budget(100);
        assert!(windows.open(0x1000));
        assert!(windows.map(0, at(0, true), ram.page(0), 8));
        windows.compare(|_, _| panic!("nothing has happened"));
        windows.outdate();
        assert_eq!(windows.ready(0x1000), None);
        windows.compare(|page, mapped| {
            assert_eq!(u64::from(page), mapped.physical);
            !(3 * PAGE..5 * PAGE).contains(&page)
        });
        assert!(windows.ready(0x1000).is_some());
        let left: Vec<u32> = (0..8).filter(|n| windows.mapped(n * PAGE).is_some()).collect();
        assert_eq!(left, [0, 1, 2, 5, 6, 7]);
        assert_eq!(peek(&windows, 5 * PAGE), 5);
        assert_eq!(windows.statistics().changed, 2);
    }

    #[test]
    fn a_window_is_compared_after_another_was_used() {
        let mut windows = Windows::with_budget(100);
        assert!(windows.open(0x1000));
        assert!(windows.open(0x2000));
        assert_eq!(windows.ready(0x1000), None);
        assert!(windows.switch(0x1000));
        assert_eq!(windows.ready(0x1000), None);
        windows.compare(|_, _| true);
        assert!(windows.ready(0x1000).is_some());
        assert!(!windows.switch(0x3000));
    }

    #[test]
    fn a_protected_page_becomes_read_only_in_every_window() {
        let ram = Ram::new();
        let mut windows = Windows::with_budget(100);
        for space in [0x1000, 0x2000] {
            assert!(windows.open(space));
            assert!(windows.map(PAGE, at(4, true), ram.page(4), 2));
        }
        windows.protect(4 * PAGE_SIZE);
        windows.protect(4 * PAGE_SIZE);
        assert_eq!(windows.statistics().protected, 2);
        assert_eq!(windows.mapped(PAGE), Some(at(4, false)));
        assert_eq!(windows.mapped(2 * PAGE), Some(at(5, true)));
        // Writable again, and protected again.
        assert!(windows.map(PAGE, at(4, true), ram.page(4), 1));
        windows.protect(4 * PAGE_SIZE);
        assert_eq!(windows.statistics().protected, 3);
    }

    #[test]
    fn memory_that_is_not_shared_is_refused() {
        let memory = vec![0_u8; 3 * PAGE_SIZE as usize];
        let aligned = (memory.as_ptr() as usize).next_multiple_of(PAGE_SIZE as usize) as *mut u8;
        let mut windows = Windows::with_budget(100);
        assert!(windows.open(0));
        assert!(!windows.map(0, at(0, true), NonNull::new(aligned).expect("not null"), 1));
        assert_eq!(windows.statistics().pages, 0);
    }
}
