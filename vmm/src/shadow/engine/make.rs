//! Shadow code is made here, and dropped when what it was made of changes.
#![expect(unsafe_code, reason = "copies guest code")]

use super::Shadow;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::direct::Flush;
use crate::cpu::{CodeLocation, Vcpu};
use crate::interp::Dropped;
use crate::interp::op::Op;
use crate::shadow::classify::Kind;
use crate::shadow::mode::Mode;
use crate::shadow::pages::{PageId, ShadowPage, ShadowUnit};
use crate::shadow::scanner::{self, ALL_FLAGS, CodeBytes, PAGE, Unit};
use crate::shadow::space;
use crate::shadow::translate::{Neighbours, Target};
use crate::shadow::windowed;

/// Most instructions across page boundaries that are remembered.
const MOST_CROSSINGS: usize = 4096;

/// Times that the unit of an instruction across a page boundary is made anew because the next page is known.
const MOST_REMAKES: u8 = 3;

/// An instruction across a page boundary.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Crossing {
    mode: Mode,
    linear: u32,
    /// Where its first page is.
    physical: u64,
    /// Where its second page is.
    behind: u64,
}

/// The page behind one that is being made into code.
struct NextPage {
    host: *mut u8,
    physical: u64,
    /// What the exec map says of it.
    entry: u64,
}

impl<B: Bus> Shadow<B> {
    /// Drops what devices have written, and the processor.
    pub(super) fn follow_device_writes(&mut self, cpu: &mut Vcpu<B>) {
        self.interp.drop_written(cpu);
        self.follow_writes(cpu);
    }

    /// Drops what was written since, by the processor.
    pub(super) fn follow_writes(&mut self, cpu: &mut Vcpu<B>) {
        while cpu.code.has_written() {
            self.interp.drop_written(cpu);
        }
        while let Some(Dropped { physical, len, own }) = self.interp.take_dropped() {
            self.drop_range(cpu, physical, len, own);
        }
    }

    /// Drops the units of a range of physical memory. `patched`: because the processor wrote it.
    #[cold]
    fn drop_range(&mut self, cpu: &mut Vcpu<B>, physical: u64, len: u64, patched: bool) {
        let end = physical.saturating_add(len.max(1));
        let mut page = physical & !(PAGE_SIZE - 1);
        while page < end {
            if self.pages.is_shadowed(page) {
                let start = physical.max(page) - page;
                let stop = end.min(page + PAGE_SIZE) - page;
                let miss = self.places.miss as u32;
                let dropped = self.pages.drop_units(&mut self.tables, miss, page, start, stop);
                self.statistics.units_dropped += dropped as u64;
                if dropped > 0 {
                    self.forget_links();
                }
                if dropped > 0 && patched {
                    self.patched.note(page, start, stop, windowed::ticks());
                }
                self.mark_again(cpu, page);
            }
            page += PAGE_SIZE;
        }
    }

    /// Marks what is still kept of a physical page, and nothing else.
    fn mark_again(&mut self, cpu: &mut Vcpu<B>, page: u64) {
        cpu.code.set_pinned(page, false);
        cpu.code.clear_marks(page);
        self.interp.mark_page(cpu, page);
        let mut any = false;
        for (start, end) in self.pages.ranges(page) {
            any = true;
            cpu.code.mark(page + u64::from(start), u32::from(end - start));
        }
        if any {
            cpu.code.set_pinned(page, true);
        } else if !self.interp.keeps_page(page) {
            cpu.unmark_code_page(page);
        }
    }

    /// After the memory map changed: drops the pages whose bytes are now elsewhere.
    pub(super) fn revalidate(&mut self, cpu: &mut Vcpu<B>) {
        for (page, host) in self.pages.physical_pages() {
            let grant = cpu.bus.page(page);
            if !grant.cacheable_code || grant.read.map(|at| at.as_ptr() as usize) != Some(host) {
                // Entry tables remember where the bytes were: all must go, and be made anew.
                return self.drop_everything(cpu);
            }
        }
    }

    pub(super) fn drop_everything(&mut self, cpu: &mut Vcpu<B>) {
        let physical = self.pages.physical_pages();
        self.pages.clear();
        self.tables.clear();
        let miss = self.places.miss as u32;
        let kept = self.tables.take(miss);
        debug_assert_eq!(kept, Some(self.miss_table));
        self.maps.iter_mut().for_each(|map| {
            map.flush(Flush::All);
        });
        self.links.clear(&mut self.context.link_logs);
        self.cache.clear();
        self.code_index.clear();
        self.perf.clear();
        for (page, _) in physical {
            self.mark_again(cpu, page);
        }
        self.statistics.cache_flushes += 1;
    }

    #[cold]
    #[inline(never)]
    pub(super) fn make_code(
        &mut self,
        cpu: &mut Vcpu<B>,
        mode: Mode,
        map: usize,
        offset: usize,
    ) -> Option<u64> {
        // A fault of it is the interpreter's.
        let location = cpu.translate_code(cpu.state.eip).ok()?;
        if self.patched.pauses(location.physical & !(PAGE_SIZE - 1)) {
            return None;
        }
        let id = self.page_for(cpu, mode, &location)?;
        let table = self.pages.get(id).table;
        let page = location.linear & !(PAGE as u32 - 1);
        let (global, large) = cpu.page_kind(page);
        let entry = self.tables.get(table, offset);
        let code = if u64::from(entry) == self.places.miss {
            self.translate(cpu, mode, id, &location, offset)?
        } else {
            u64::from(entry)
        };
        // A full cache has dropped everything: then the page is made anew at the next miss.
        if self.pages.find(location.physical & !(PAGE_SIZE - 1), page, mode) == Some(id) {
            let changes = self.maps[map].set(page, self.tables.address(table), global, large);
            if changes {
                self.links.forget(&mut self.context.link_logs, mode.user());
            }
        }
        Some(code)
    }

    fn page_for(&mut self, cpu: &mut Vcpu<B>, mode: Mode, location: &CodeLocation) -> Option<PageId> {
        let host = location.grant.read.filter(|_| location.grant.cacheable_code)?;
        let physical = location.physical & !(PAGE_SIZE - 1);
        if physical > u64::from(u32::MAX) {
            return None;
        }
        let linear = location.linear & !(PAGE as u32 - 1);
        if let Some(id) = self.pages.find(physical, linear, mode) {
            return Some(id);
        }
        let miss = self.places.miss as u32;
        let table = match self.tables.take(miss) {
            Some(table) => table,
            None => {
                self.drop_everything(cpu);
                self.tables.take(miss)?
            }
        };
        let host = host.as_ptr() as usize;
        Some(self.pages.insert(ShadowPage { physical, linear, mode, host, table, units: Vec::new() }))
    }

    /// The page behind that of `location`, for instructions that reach into it; made a shadow page too, so that it can be told in the
    /// exec map.
    fn next_page(&mut self, cpu: &mut Vcpu<B>, mode: Mode, location: &CodeLocation) -> Option<NextPage> {
        let linear = (location.linear | (PAGE as u32 - 1)).checked_add(1)?;
        let (host, physical) = cpu.known_code_page(linear)?;
        let id = self.pages.find(physical, linear, mode)?;
        cpu.mark_code(physical, 1);
        cpu.code.set_pinned(physical, true);
        let entry = space::biased(self.tables.address(self.pages.get(id).table), linear);
        Some(NextPage { host: host.as_ptr(), physical, entry })
    }

    /// An instruction across the page's boundary was interpreted: when the next page has become known, its unit is made anew, unless
    /// that would not help.
    #[cold]
    pub(super) fn crossed(&mut self, cpu: &mut Vcpu<B>, mode: Mode, linear: u32) {
        let next = (linear | (PAGE as u32 - 1)).wrapping_add(1);
        let known = |page| cpu.known_code_page(page).map(|(_, physical)| physical);
        let (Some(physical), Some(behind)) = (known(linear), known(next)) else { return };
        if self.pages.find(behind, next, mode).is_none() {
            return;
        }
        if self.crossings.len() >= MOST_CROSSINGS {
            self.crossings.clear();
        }
        let crossing = Crossing { mode, linear, physical, behind };
        let times = self.crossings.entry(crossing).or_default();
        *times = times.saturating_add(1);
        // Some are the interpreter's whatever is behind them.
        if *times <= MOST_REMAKES {
            self.drop_range(cpu, physical | u64::from(linear % PAGE as u32), 1, false);
        }
    }

    /// The access of the instruction at `linear` met a device.
    #[cold]
    pub(super) fn met_device(&mut self, cpu: &mut Vcpu<B>, linear: u32) {
        let Some((_, page)) = cpu.known_code_page(linear & !(PAGE as u32 - 1)) else { return };
        let physical = page | u64::from(linear % PAGE as u32);
        if self.devices.note(physical) {
            self.drop_range(cpu, physical, 1, false);
        }
    }

    /// Looks which calls are of code that only loads its return address into a register, as position-independent code has them everywhere. (What
    /// is made of that looks again.)
    fn find_reads_of_eip(cpu: &mut Vcpu<B>, unit: &mut Unit, mode: Mode) {
        for item in unit.instructions.values_mut().filter(|item| item.kind == Kind::Call) {
            let to = mode.linear(scanner::target(&item.instruction));
            let at = (to % PAGE as u32) as usize;
            let page = cpu.user_page(to - at as u32).and_then(|page| cpu.host_page(page.physical));
            if let Some((host, _)) = page.filter(|_| at + scanner::READS_EIP <= PAGE) {
                // SAFETY: the bus granted the whole page for reading; devices may write meanwhile.
                let bytes = std::array::from_fn(|n| unsafe { host.as_ptr().add(at + n).read_volatile() });
                item.reads_eip = scanner::reads_eip(bytes);
            }
        }
    }

    /// Scans from `offset` and makes code.
    fn translate(
        &mut self,
        cpu: &mut Vcpu<B>,
        mode: Mode,
        id: PageId,
        location: &CodeLocation,
        offset: usize,
    ) -> Option<u64> {
        let physical = location.physical & !(PAGE_SIZE - 1);
        // Marked before it is read: a device that writes it from now on reports that.
        cpu.mark_code(location.physical, 1);
        cpu.code.set_pinned(physical, true);
        let next = self.next_page(cpu, mode, location);
        let host = location.grant.read?;
        let next_host = next.as_ref().map(|next| next.host.cast_const());
        // SAFETY: the bus granted both pages whole for reading; devices may write meanwhile, which they report.
        let bytes = unsafe { CodeBytes::copy(host.as_ptr(), next_host) };
        let page_eip = cpu.state.eip.wrapping_sub(offset as u32);
        let table = self.pages.get(id).table;
        let (tables, miss) = (&self.tables, self.places.miss as u32);
        let mut unit = scanner::scan(&bytes, mode, page_eip, offset as u16, |at| {
            tables.get(table, usize::from(at)) != miss
        });
        self.patched.find_live(physical, &mut unit, &bytes, mode);
        if mode.window() {
            Self::find_reads_of_eip(cpu, &mut unit, mode);
        }
        for (at, item) in &mut unit.instructions {
            item.device = self.devices.is(physical + u64::from(*at));
        }
        let target = Target {
            mode,
            page_eip,
            table: self.tables.address(table),
            next_page: next.as_ref().map(|next| next.entry),
            cells: self.links.free(),
            counts: self.counts,
            lockstep: self.context.in_lockstep,
        };
        // Where code is written over, less is to be dropped.
        let neighbours = if self.patched.knows(physical) {
            Neighbours::new()
        } else {
            self.pages.get(id).neighbours(&unit, page_eip, &self.tables, miss)
        };
        let base = self.cache.next();
        let made = self.translator.translate(&unit, target, &neighbours, base);
        let mut ops = Vec::with_capacity(made.ops.len());
        for &(at, place) in &made.ops {
            let op = self.interp.decode_one(bytes.from(usize::from(at)), mode.code32())?;
            self.translator.set_address(place, std::ptr::from_ref::<Op<B>>(&op) as u64);
            ops.push(op);
        }
        let len = self.translator.code().len();
        let Some(code) = self.cache.append(self.translator.code()) else {
            self.drop_everything(cpu);
            return None;
        };
        let ranges = ShadowUnit::<B>::ranges_of(&unit);
        for &(start, end) in &ranges {
            cpu.mark_code(physical + u64::from(start), u32::from(end - start));
        }
        let spill = unit.spill().and_then(|bytes| next.map(|next| (next.physical, bytes)));
        if let Some((physical, bytes)) = spill {
            cpu.mark_code(physical, u32::from(bytes));
        }
        for first in &made.cells {
            self.links.take(first.map_or(1, |place| (code + u64::from(place)) as u32));
        }
        let mut found = None;
        for &(entry, place) in &made.entries {
            let at = code + u64::from(place);
            self.tables.set(table, usize::from(entry), at as u32);
            if usize::from(entry) == offset {
                found = Some(at);
            }
        }
        self.patched.made(physical);
        self.statistics.units += 1;
        self.statistics.instructions += unit.instructions.len() as u64;
        self.statistics.code_bytes += len as u64;
        let live = |entry: u16| unit.instructions.get(&entry).map_or(ALL_FLAGS, |item| item.live_in);
        let entries = made.entries.iter().map(|(entry, _)| (*entry, live(*entry))).collect();
        let unit = ShadowUnit {
            ops,
            spill,
            ranges,
            entries,
            links: made.links,
            borrows: made.borrows,
            ways_out: made.ways_out,
            map: made.map,
            stubs: made.stubs,
            code,
            len: len as u32,
        };
        self.pages.add_unit(id, unit);
        self.code_index.push((code, id));
        self.perf.add(code, len as u32, location.linear, mode.window());
        found
    }
}
