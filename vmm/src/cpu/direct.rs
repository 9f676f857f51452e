//! The direct map: the soft back end of translated code's view of guest memory.
//!
//! For each privilege side an array with one slot for every linear page holds the distance from the page's linear
//! address to the host memory behind it, once for reads and once for writes; zero: there is none, ask. An access is
//! then "load the slot, add, access", with no tag to compare and no conflict between pages. The arrays are address space
//! that the host backs only where it was touched.
//!
//! Slots are a cache of the TLB's rights and die with them: `tlb.rs` calls the `flush` methods and [`DirectMap::protect`].
//! Where pages of code are is the engine's business; it follows [`DirectMap::take_flushes`].
#![expect(unsafe_code, reason = "slots are written in memory that translated code reads")]

use super::bus::PAGE_SIZE;
use super::known::{Known, KnownPages};
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr::NonNull;

/// Linear pages.
pub const PAGES: usize = 1 << 20;
/// Bytes of an array of slots.
pub const ARRAY_BYTES: usize = PAGES * size_of::<u64>();
const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();

/// What happened to translations, for those who cache more than this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All are void.
    All,
    /// Those that are not global.
    Local,
    /// That of one page, and of the large page around it if it is one.
    Page(u32),
}

/// What is known of a page that has slots.
#[derive(Clone, Copy)]
struct Extra {
    physical: u64,
    global: bool,
}

/// Anonymous memory of whole pages, released when dropped.
pub struct Arrays {
    start: NonNull<u64>,
    bytes: usize,
}

impl Arrays {
    /// Zeroed memory that takes no room until it is written.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(bytes: usize) -> rustix::io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let start = NonNull::new(at.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, bytes })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// A slot.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        assert!(index < self.bytes / size_of::<u64>());
        // SAFETY: within the mapping (just checked), aligned, and only written by the thread that owns `self`.
        unsafe { self.start.add(index).read() }
    }

    /// Sets a slot.
    #[inline]
    pub fn set(&mut self, index: usize, value: u64) {
        assert!(index < self.bytes / size_of::<u64>());
        // SAFETY: as in `get`; translated code, which also reads it, runs in the same thread, never meanwhile.
        unsafe { self.start.add(index).write(value) }
    }
}

impl Drop for Arrays {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nobody uses it after its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

// SAFETY: the memory belongs to this value alone; it may move to another thread with it.
unsafe impl Send for Arrays {}

/// One privilege side.
struct Side {
    /// Read slots, then write slots.
    slots: Arrays,
    known: KnownPages<Extra>,
}

impl Side {
    fn new() -> rustix::io::Result<Self> {
        Ok(Self { slots: Arrays::new(2 * ARRAY_BYTES)?, known: KnownPages::default() })
    }

    fn flush(&mut self, flush: Flush) {
        let slots = &mut self.slots;
        self.known.flush(flush, |page| {
            let index = (page >> PAGE_SHIFT) as usize;
            // (Untouched memory stays so.)
            if slots.get(index) != 0 {
                slots.set(index, 0);
                slots.set(PAGES + index, 0);
            }
        });
    }
}

/// See the module's description.
pub struct DirectMap {
    sides: [Side; 2],
    flushes: Vec<Flush>,
    /// Physical pages that were protected, for an engine that has mapped some; `None`: nobody wants to know.
    protected: Option<Vec<u64>>,
}

/// Flushes that are remembered one by one; more count as [`Flush::All`].
const REMEMBERED_FLUSHES: usize = 64;

/// A page that becomes directly accessible.
#[derive(Clone, Copy)]
pub(super) struct NewPage {
    pub(super) page: u32,
    pub(super) user: bool,
    pub(super) write: bool,
    pub(super) host: NonNull<u8>,
    pub(super) physical: u64,
    pub(super) global: bool,
    pub(super) large: bool,
}

impl DirectMap {
    /// An empty map.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self { sides: [Side::new()?, Side::new()?], flushes: Vec::new(), protected: None })
    }

    /// Where the read slots of a side start; its write slots are [`ARRAY_BYTES`] further.
    pub fn address(&self, user: bool) -> u64 {
        self.sides[usize::from(user)].slots.address()
    }

    /// What has been flushed since the last call.
    pub fn take_flushes(&mut self) -> std::vec::Drain<'_, Flush> {
        self.flushes.drain(..)
    }

    /// Whether there is something for [`DirectMap::take_flushes`].
    #[inline]
    pub fn has_flushes(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// From now on [`DirectMap::take_protected`] tells which pages must not be written any more.
    pub fn follow_protection(&mut self) {
        self.protected.get_or_insert_default();
    }

    /// Whether there is something for [`DirectMap::take_protected`].
    #[inline]
    pub fn has_protected(&self) -> bool {
        self.protected.as_ref().is_some_and(|pages| !pages.is_empty())
    }

    /// Physical pages to which writes must ask again since the last call.
    pub fn take_protected(&mut self) -> Vec<u64> {
        self.protected.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Pages that are directly accessible now.
    pub fn pages(&self) -> usize {
        let filled = |side: &Side, page: u32| side.slots.get((page >> PAGE_SHIFT) as usize) != 0;
        let of_side = |side: &Side| {
            let pages = side.known.iter().map(|known| known.page).filter(|page| filled(side, *page));
            pages.collect::<BTreeSet<_>>().len()
        };
        self.sides.iter().map(of_side).sum()
    }

    pub(super) fn insert(&mut self, new: NewPage) {
        let side = &mut self.sides[usize::from(new.user)];
        let index = (new.page >> PAGE_SHIFT) as usize;
        if side.slots.get(index) == 0 {
            let extra = Extra { physical: new.physical, global: new.global };
            side.known.add(new.global, Known { page: new.page, large: new.large, extra });
        }
        let distance = (new.host.as_ptr() as u64).wrapping_sub(u64::from(new.page));
        side.slots.set(index, distance);
        side.slots.set(PAGES + index, if new.write { distance } else { 0 });
    }

    /// Takes over what `fresh` has found out, with the hosts that `host` knows by physical address. Returns a linear page of which
    /// this map knew something else: its slot should have died.
    pub(super) fn adopt(&mut self, fresh: &Self, host: impl Fn(u64) -> Option<NonNull<u8>>) -> Option<u32> {
        let mut stale = None;
        for user in [false, true] {
            for used in fresh.sides[usize::from(user)].known.iter() {
                let Some(host) = host(used.extra.physical) else { continue };
                let index = (used.page >> PAGE_SHIFT) as usize;
                let side = &self.sides[usize::from(user)];
                let distance = (host.as_ptr() as u64).wrapping_sub(u64::from(used.page));
                let known = side.slots.get(index);
                if known != 0 && known != distance {
                    stale = Some(used.page);
                }
                // What is known of another page says nothing.
                let write = fresh.sides[usize::from(user)].slots.get(PAGES + index) != 0
                    || known == distance && side.slots.get(PAGES + index) != 0;
                self.insert(NewPage {
                    page: used.page,
                    user,
                    write,
                    host,
                    physical: used.extra.physical,
                    global: used.extra.global,
                    large: used.large,
                });
            }
        }
        stale
    }

    fn note(&mut self, flush: Flush) {
        match self.flushes.last() {
            Some(Flush::All) => {}
            Some(last) if *last == flush => {}
            _ if self.flushes.len() >= REMEMBERED_FLUSHES => {
                self.flushes.clear();
                self.flushes.push(Flush::All);
            }
            _ => self.flushes.push(flush),
        }
    }

    pub(super) fn flush_all(&mut self) {
        self.sides.iter_mut().for_each(|side| side.flush(Flush::All));
        self.flushes.clear();
        self.note(Flush::All);
    }

    pub(super) fn flush_local(&mut self) {
        self.sides.iter_mut().for_each(|side| side.flush(Flush::Local));
        self.note(Flush::Local);
    }

    pub(super) fn flush_page(&mut self, linear: u32) {
        self.sides.iter_mut().for_each(|side| side.flush(Flush::Page(linear)));
        self.note(Flush::Page(linear));
    }

    /// Makes every write to a physical page ask again.
    pub(super) fn protect(&mut self, physical: u64) {
        if let Some(protected) = &mut self.protected
            && protected.last() != Some(&physical)
        {
            protected.push(physical);
        }
        for side in &mut self.sides {
            for used in side.known.iter().filter(|used| used.extra.physical == physical) {
                side.slots.set(PAGES + (used.page >> PAGE_SHIFT) as usize, 0);
            }
        }
    }
}
