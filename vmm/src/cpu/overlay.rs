//! Copies of the guest's pages, for somebody who wants to see what a processor does before it counts.
//!
//! A covered processor ([`Vcpu::cover`]) works on copies of the pages that it touches, page tables included, and with another
//! TLB. Each page is kept three times: as it was, as the covered processor leaves it ("first"), and as another one
//! leaves it that is compared with it ("second"). What both agree on can be written to the machine ([`Overlay::commit`]).
//! Memory that is not read and written at the same place (ROM) is read where it is, and nobody writes it.
#![expect(unsafe_code, reason = "copies host pages that the bus granted")]

use super::Vcpu;
use super::bus::{Bus, PAGE_SIZE, PageGrant};
use super::direct::DirectMap;
use super::tlb::Tlb;
use rustix::mm::{MapFlags, ProtFlags};
use std::cell::Cell;
use std::ptr::NonNull;

const WORD_BYTES: usize = size_of::<u64>();
const WORDS: usize = PAGE_SIZE as usize / WORD_BYTES;

/// Accessed and dirty in a page-table entry.
const ACCESSED_DIRTY: u64 = 0x60;

/// The bytes of a page; also written through the pointer that is granted.
struct Bytes(NonNull<[Cell<u64>; WORDS]>);

impl Bytes {
    fn host(&self) -> NonNull<u8> {
        self.0.cast()
    }

    fn cells(&self) -> &[Cell<u64>; WORDS] {
        // SAFETY: a page of the mapping of the `Copied` that it is part of; shadow code writes it only while nobody looks.
        unsafe { self.0.as_ref() }
    }

    fn copy_from(&self, other: &Self) {
        for (to, from) in self.cells().iter().zip(other.cells().iter()) {
            to.set(from.get());
        }
    }

    fn load(&self, host: NonNull<u8>) {
        // SAFETY: the bus granted a whole page at `host` for reading, and `self` is a page. Other processes may write meanwhile,
        // which only mixes bytes.
        unsafe { std::ptr::copy_nonoverlapping(host.as_ptr(), self.host().as_ptr(), PAGE_SIZE as usize) };
    }

    /// Whether both are the same, without looking where they are not.
    fn is(&self, other: &Self) -> bool {
        self.cells().iter().zip(other.cells().iter()).fold(0, |all, (a, b)| all | (a.get() ^ b.get())) == 0
    }

    /// Of a page that is granted to nobody.
    fn bytes(&self) -> &[u8; PAGE_SIZE as usize] {
        // SAFETY: as many bytes, and nobody writes them while they are borrowed: pointers are given only to those of other pages.
        unsafe { self.host().cast().as_ref() }
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.cells().iter().map(Cell::get)
    }
}

/// A page that was touched.
struct Copied {
    physical: u64,
    /// How the machine grants it.
    grant: PageGrant,
    /// The second processor has its copy.
    taken: bool,
    before: Bytes,
    first: Bytes,
    second: Bytes,
}

/// Versions of a page.
const VERSIONS: usize = 3;
const PAGE_BYTES: usize = PAGE_SIZE as usize;

impl Copied {
    /// `None`: the host has no memory.
    fn new() -> Option<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // Shared, so that windows can map it a second time.
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                VERSIONS * PAGE_BYTES,
                protection,
                MapFlags::SHARED,
            )
        };
        let at = NonNull::new(at.ok()?.cast::<u8>())?;
        // SAFETY: within the mapping.
        let version = |n: usize| Bytes(unsafe { at.add(n * PAGE_BYTES) }.cast());
        Some(Self {
            physical: 0,
            grant: PageGrant::default(),
            taken: false,
            before: version(0),
            first: version(1),
            second: version(2),
        })
    }

    fn is_copied(&self) -> bool {
        self.grant.read.is_some() && self.grant.read == self.grant.write
    }

    fn covered(&self, bytes: &Bytes) -> PageGrant {
        if self.is_copied() {
            PageGrant { read: Some(bytes.host()), write: Some(bytes.host()), ..self.grant }
        } else {
            PageGrant { write: None, ..self.grant }
        }
    }

    fn second(&self) -> &Bytes {
        if self.taken { &self.second } else { &self.before }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nobody uses after its owner.
        let _ = unsafe { rustix::mm::munmap(self.before.host().as_ptr().cast(), VERSIONS * PAGE_BYTES) };
    }
}

// SAFETY: the memory belongs to this value alone; it may move to another thread with it.
unsafe impl Send for Copied {}

/// Eight bytes on which two processors disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Physical address of the first byte.
    pub physical: u64,
    /// As they were.
    pub before: u64,
    /// As the covered processor leaves them.
    pub first: u64,
    /// As the second one leaves them.
    pub second: u64,
}

/// See the module's description.
#[derive(Default)]
pub struct Overlay {
    /// Those from `used` on are there to be used again.
    pages: Vec<Copied>,
    used: usize,
}

impl Overlay {
    fn find(&mut self, physical: u64) -> Option<&mut Copied> {
        self.pages.iter_mut().take(self.used).find(|page| page.physical == physical)
    }

    /// Copies the page at `physical`, which the machine grants like that, if it is not there yet.
    pub fn add(&mut self, physical: u64, grant: PageGrant) {
        if self.find(physical).is_some() {
            return;
        }
        if self.used == self.pages.len() {
            self.pages.extend(Copied::new());
        }
        let Some(page) = self.pages.get_mut(self.used) else { return };
        self.used += 1;
        (page.physical, page.grant, page.taken) = (physical, grant, false);
        if let Some(host) = grant.read.filter(|_| page.is_copied()) {
            page.before.load(host);
            page.first.copy_from(&page.before);
        }
    }

    /// How the covered processor reaches a page.
    pub(super) fn first(&mut self, physical: u64, grant: PageGrant) -> PageGrant {
        self.add(physical, grant);
        self.find(physical).map_or(grant, |page| page.covered(&page.first))
    }

    /// Where the machine has a page.
    fn machine(&self, physical: u64) -> Option<NonNull<u8>> {
        self.pages.iter().take(self.used).find(|page| page.physical == physical)?.grant.read
    }

    /// How the second processor reaches a page; `None`: the page is not there yet.
    pub fn second(&mut self, physical: u64) -> Option<PageGrant> {
        let page = self.find(physical)?;
        if !page.taken && page.is_copied() {
            page.second.copy_from(&page.before);
            page.taken = true;
        }
        Some(page.covered(&page.second))
    }

    /// Forgets what the second processor did.
    pub fn restart_second(&mut self) {
        self.pages.iter_mut().for_each(|page| page.taken = false);
    }

    /// The bytes of a page before anybody ran.
    pub fn before(&mut self, physical: u64) -> Option<&[u8; PAGE_SIZE as usize]> {
        let page = self.find(physical)?;
        if !page.is_copied() {
            page.before.load(page.grant.read?);
        }
        Some(page.before.bytes())
    }

    /// Where both disagree, up to `most` places. Accessed and dirty bits of the page-table entries at `walked` do not count: a
    /// processor may look further than it then goes.
    pub fn disagreements(&self, walked: &[u64], most: usize) -> Vec<Disagreement> {
        let pages = self.pages.iter().take(self.used);
        let pages = pages.filter(|page| page.is_copied() && !page.first.is(page.second()));
        let words = pages.flat_map(|page| {
            let versions = page.before.words().zip(page.first.words().zip(page.second().words()));
            versions.enumerate().filter_map(|(n, (before, (first, second)))| {
                if first == second {
                    return None;
                }
                let physical = page.physical + (n * WORD_BYTES) as u64;
                let entry =
                    |at: u64, shift: u32| if walked.contains(&at) { ACCESSED_DIRTY << shift } else { 0 };
                let ignored = entry(physical, 0) | entry(physical + 4, u32::BITS);
                ((first ^ second) & !ignored != 0).then_some(Disagreement { physical, before, first, second })
            })
        });
        words.take(most).collect()
    }

    /// Writes to the machine what the covered processor changed.
    pub fn commit(&self) {
        let pages = self.pages.iter().take(self.used);
        for page in pages.filter(|page| page.is_copied() && !page.first.is(&page.before)) {
            let Some(host) = page.grant.write else { continue };
            for (n, (before, first)) in page.before.words().zip(page.first.words()).enumerate() {
                if before == first {
                    continue;
                }
                // Only bytes that changed: a device may have written their neighbours meanwhile.
                for (i, (old, new)) in before.to_le_bytes().into_iter().zip(first.to_le_bytes()).enumerate() {
                    if old != new {
                        // SAFETY: the bus granted the whole page at `host` for writing, and the map has not changed since.
                        unsafe { host.as_ptr().add(n * WORD_BYTES + i).write(new) };
                    }
                }
            }
        }
    }

    /// Forgets all pages.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

/// What a processor uses while it is covered.
pub struct Cover {
    tlb: Tlb,
    /// `None` while it is in use.
    overlay: Option<Box<Overlay>>,
}

impl Cover {
    /// A cover that has copied nothing.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new() -> rustix::io::Result<Self> {
        let mut tlb = Tlb::new();
        tlb.set_direct(DirectMap::new()?);
        Ok(Self { tlb, overlay: Some(Box::default()) })
    }

    /// The copies, to be given back with [`Cover::put`].
    pub fn take(&mut self) -> Box<Overlay> {
        self.overlay.take().unwrap_or_default()
    }

    /// Gives the copies back.
    pub fn put(&mut self, overlay: Box<Overlay>) {
        self.overlay = Some(overlay);
    }
}

impl<B: Bus> Vcpu<B> {
    /// From now on everything is done on copies, with a TLB that knows nothing.
    pub fn cover(&mut self, cover: &mut Cover) {
        self.sync_map();
        if let Some(overlay) = &mut cover.overlay {
            overlay.clear();
        }
        // What happened at the end of the last time is no news.
        if let Some(direct) = cover.tlb.direct() {
            direct.take_flushes();
        }
        std::mem::swap(&mut self.tlb, &mut cover.tlb);
        std::mem::swap(&mut self.overlay, &mut cover.overlay);
    }

    /// Between [`Vcpu::cover`] and [`Vcpu::uncover`].
    pub fn is_covered(&self) -> bool {
        self.overlay.is_some()
    }

    /// The end of [`Vcpu::cover`]: memory and TLB are what they were before. Only what was found out for translated code is kept, as
    /// if it had been found out without a cover. Returns a linear page of which something else was known, which should
    /// have been forgotten.
    pub fn uncover(&mut self, cover: &mut Cover) -> Option<u32> {
        std::mem::swap(&mut self.tlb, &mut cover.tlb);
        std::mem::swap(&mut self.overlay, &mut cover.overlay);
        let mut stale = None;
        if let (Some(direct), Some(fresh), Some(overlay)) =
            (self.tlb.direct(), cover.tlb.direct(), &cover.overlay)
        {
            stale = direct.adopt(fresh, |physical| overlay.machine(physical));
        }
        cover.tlb.flush_map();
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Seg;
    use crate::cpu::testing::{protected, vcpu};

    #[test]
    fn what_a_covered_processor_writes_counts_when_it_is_committed() {
        let mut cpu = vcpu();
        let mut cover = Cover::new().unwrap();
        cpu.write_u32(Seg::Ds, 0x5000, 1).unwrap();
        cpu.cover(&mut cover);
        cpu.write_u32(Seg::Ds, 0x5000, 0x0102).unwrap();
        assert_eq!(cpu.read_u32(Seg::Ds, 0x5000), Ok(0x0102));
        // Somebody else writes another byte of the same word meanwhile.
        cpu.bus.load(0x5002, &[9]);
        cpu.uncover(&mut cover);
        assert_eq!(cpu.read_u32(Seg::Ds, 0x5000), Ok(0x0009_0001));
        let overlay = cover.take();
        assert_eq!(
            overlay.disagreements(&[], 9),
            [Disagreement { physical: 0x5000, before: 1, first: 0x0102, second: 1 }]
        );
        overlay.commit();
        assert_eq!(cpu.read_u32(Seg::Ds, 0x5000), Ok(0x0009_0102));
    }

    #[test]
    fn page_tables_are_copied_too() {
        let mut cpu = protected();
        cpu.enable_paging();
        let mut cover = Cover::new().unwrap();
        cpu.set_pte(0x5000, 0x6000 | 7);
        cpu.cover(&mut cover);
        cpu.updated_entries = Some(Vec::new());
        cpu.write_u8(Seg::Ds, 0x5000, 1).unwrap();
        cpu.uncover(&mut cover);
        let walked = cpu.updated_entries.take().unwrap_or_default();
        assert_eq!(cpu.pte(0x5000), 0x6000 | 7);
        let overlay = cover.take();
        assert_eq!(overlay.disagreements(&walked, 9).len(), 1, "all but the bits of the page table");
        overlay.commit();
        assert_eq!(cpu.pte(0x5000), 0x6000 | 0x67);
    }
}
