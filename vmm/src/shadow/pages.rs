//! Shadow pages: what has been made of each guest physical page that executes.
//!
//! A shadow page belongs to a physical page, the linear page where it runs (its code has EIPs in it) and a [`Mode`]. It has an
//! entry table, which shadow code jumps through, and units, which are dropped when a byte of theirs is written.
//! Guests never see any of it: their reads go to the physical page.

use super::cache::{Table, Tables};
use super::mode::Mode;
use super::scanner::{self, PAGE, Unit};
use super::translate::{Borrow, Neighbour, Neighbours};
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::interp::op::Op;
use std::collections::HashMap;
use std::ops::Range;

/// Instructions that were made into code together.
pub struct ShadowUnit<B: Bus> {
    /// Its terminal instructions.
    #[expect(dead_code, reason = "shadow code has their addresses")]
    #[expect(clippy::vec_box, reason = "they must not move")]
    pub ops: Vec<Box<Op<B>>>,
    /// Physical address of the next page, and how many of its first bytes belong to the unit's last instruction.
    pub spill: Option<(u64, u16)>,
    /// Ranges of the page's bytes that it was made of: start and end.
    pub ranges: Vec<(u16, u16)>,
    /// Offsets of its instructions that can be entered, and the arithmetic flags that are read there before they are written again.
    pub entries: Vec<(u16, u32)>,
    /// Code of other units of the page that it jumps to by itself.
    pub links: Vec<u64>,
    /// See [`Borrow`].
    pub borrows: Vec<(u16, Borrow)>,
    /// Where the code starts of instructions whose faults leave by a way of their own, and where that is in the code.
    pub ways_out: Vec<(u32, u32)>,
    /// Offset of each instruction, and where its code starts from `code`.
    pub map: Vec<(u16, u32)>,
    /// Where its code starts that is needed rarely.
    pub stubs: u32,
    /// Where its code is.
    pub code: u64,
    /// Bytes of code.
    pub len: u32,
}

impl<B: Bus> ShadowUnit<B> {
    /// The bytes that `unit` consists of, as few ranges as possible, but for those that it reads when it runs.
    pub fn ranges_of(unit: &Unit) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        let mut add = |start: u16, end: u16| match ranges.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ if start < end => ranges.push((start, end)),
            _ => {}
        };
        for (&start, item) in &unit.instructions {
            let end = (usize::from(start) + item.len()).min(PAGE_SIZE as usize) as u16;
            if let Some(live) = item.live {
                let live_start = start + u16::from(live.offset);
                add(start, live_start);
                add(live_start + u16::from(live.size), end);
            } else {
                add(start, end);
            }
        }
        ranges
    }

    /// The offset of the instruction whose code `at` is in, and where that starts.
    pub fn instruction_at(&self, at: u64) -> Option<(u16, u32)> {
        let place = at.checked_sub(self.code).filter(|place| *place < u64::from(self.len))? as u32;
        let behind = self.map.partition_point(|(_, start)| *start <= place);
        self.map.get(behind.checked_sub(1)?).copied()
    }

    /// Where its code is.
    fn place(&self) -> Range<u64> {
        self.code..self.code + u64::from(self.len)
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.ranges.iter().any(|&(from, to)| u64::from(from) < end && start < u64::from(to))
    }
}

/// See the module's description.
pub struct ShadowPage<B: Bus> {
    /// Physical address.
    pub physical: u64,
    /// Linear address.
    pub linear: u32,
    /// Its mode.
    pub mode: Mode,
    /// Where its bytes were when it was made.
    pub host: usize,
    /// Its entry table.
    pub table: Table,
    /// Its units.
    pub units: Vec<ShadowUnit<B>>,
}

impl<B: Bus> ShadowPage<B> {
    /// The code of other units that `unit` jumps to.
    pub fn neighbours(&self, unit: &Unit, page_eip: u32, tables: &Tables, miss: u32) -> Neighbours {
        let targets = unit.instructions.values().flat_map(|item| {
            let target = item.kind.has_target().then(|| scanner::target(&item.instruction));
            let target = target.and_then(|target| scanner::on_page(self.mode, page_eip, target));
            // What follows it may be another unit's too.
            let behind = item.instruction.next_ip32().wrapping_sub(page_eip);
            target.into_iter().chain(u16::try_from(behind).ok().filter(|at| usize::from(*at) < PAGE))
        });
        let mut neighbours = Neighbours::new();
        for offset in targets.filter(|offset| !unit.instructions.contains_key(offset)) {
            let code = u64::from(tables.get(self.table, usize::from(offset)));
            if code == u64::from(miss) {
                continue;
            }
            let of = self.units.iter().find(|unit| unit.place().contains(&code));
            let entry = of.and_then(|unit| unit.entries.iter().find(|(entry, _)| *entry == offset));
            if let Some(&(_, live)) = entry {
                neighbours.insert(offset, Neighbour { code, live });
            }
        }
        neighbours
    }

    /// Drops the units for which `hit` says so, and those that jump to them by themselves. Returns how many.
    fn drop_units(&mut self, tables: &mut Tables, miss: u32, hit: impl Fn(&ShadowUnit<B>) -> bool) -> usize {
        let table = self.table;
        let before = self.units.len();
        let mut dropped: Vec<Range<u64>> = Vec::new();
        loop {
            let count = dropped.len();
            self.units.retain(|unit| {
                let leads = unit.links.iter().any(|link| dropped.iter().any(|place| place.contains(link)));
                let drops = count == 0 && hit(unit) || leads;
                if drops {
                    dropped.push(unit.place());
                    for &(entry, _) in &unit.entries {
                        if unit.place().contains(&u64::from(tables.get(table, usize::from(entry)))) {
                            tables.set(table, usize::from(entry), miss);
                        }
                    }
                }
                !drops
            });
            if dropped.len() == count {
                break;
            }
        }
        before - self.units.len()
    }
}

/// Where a shadow page is in [`Pages`].
pub type PageId = usize;

/// All shadow pages.
pub struct Pages<B: Bus> {
    pages: Vec<ShadowPage<B>>,
    index: HashMap<(u64, u32, Mode), PageId>,
    by_physical: HashMap<u64, Vec<PageId>>,
    /// Shadow pages with units that go on on a physical page.
    spills: HashMap<u64, Vec<PageId>>,
}

impl<B: Bus> Default for Pages<B> {
    fn default() -> Self {
        Self { pages: Vec::new(), index: HashMap::new(), by_physical: HashMap::new(), spills: HashMap::new() }
    }
}

impl<B: Bus> Pages<B> {
    /// The shadow page of a physical page at a linear page in a mode.
    pub fn find(&self, physical: u64, linear: u32, mode: Mode) -> Option<PageId> {
        self.index.get(&(physical, linear, mode)).copied()
    }

    /// A shadow page.
    pub fn get(&self, id: PageId) -> &ShadowPage<B> {
        &self.pages[id]
    }

    /// Adds one.
    pub fn insert(&mut self, page: ShadowPage<B>) -> PageId {
        let id = self.pages.len();
        self.index.insert((page.physical, page.linear, page.mode), id);
        self.by_physical.entry(page.physical).or_default().push(id);
        self.pages.push(page);
        id
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pages.len()
    }

    /// Every one of them.
    pub fn iter(&self) -> impl Iterator<Item = &ShadowPage<B>> {
        self.pages.iter()
    }

    /// Physical pages that have any, with where their bytes were.
    pub fn physical_pages(&self) -> Vec<(u64, usize)> {
        let host = |ids: &Vec<PageId>| ids.first().map_or(0, |id| self.pages[*id].host);
        self.by_physical.iter().map(|(physical, ids)| (*physical, host(ids))).collect()
    }

    /// Adds a unit to a shadow page.
    pub fn add_unit(&mut self, id: PageId, unit: ShadowUnit<B>) {
        if let Some((physical, _)) = unit.spill {
            let pages = self.spills.entry(physical).or_default();
            if !pages.contains(&id) {
                pages.push(id);
            }
        }
        self.pages[id].units.push(unit);
    }

    fn ids(map: &HashMap<u64, Vec<PageId>>, physical: u64) -> &[PageId] {
        map.get(&physical).map_or(&[], Vec::as_slice)
    }

    /// The bytes of a physical page that units were made of.
    pub fn ranges(&self, physical: u64) -> impl Iterator<Item = (u16, u16)> {
        let own = Self::ids(&self.by_physical, physical)
            .iter()
            .flat_map(|id| &self.pages[*id].units)
            .flat_map(|unit| unit.ranges.iter().copied());
        let spilled =
            Self::ids(&self.spills, physical).iter().flat_map(|id| &self.pages[*id].units).filter_map(
                move |unit| unit.spill.filter(|(page, _)| *page == physical).map(|(_, end)| (0, end)),
            );
        own.chain(spilled)
    }

    /// Drops the units that have a byte from `start` up to `end` of a physical page. Returns how many.
    pub fn drop_units(
        &mut self,
        tables: &mut Tables,
        miss: u32,
        physical: u64,
        start: u64,
        end: u64,
    ) -> usize {
        let mut dropped = 0;
        for id in Self::ids(&self.by_physical, physical) {
            dropped += self.pages[*id].drop_units(tables, miss, |unit| unit.overlaps(start, end));
        }
        for id in Self::ids(&self.spills, physical) {
            dropped += self.pages[*id].drop_units(tables, miss, |unit| {
                unit.spill.is_some_and(|(page, len)| page == physical && start < u64::from(len))
            });
        }
        dropped
    }

    /// Whether a physical page has a shadow page, with units or without.
    pub fn is_shadowed(&self, physical: u64) -> bool {
        self.by_physical.contains_key(&(physical & !(PAGE_SIZE - 1)))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.index.clear();
        self.by_physical.clear();
        self.spills.clear();
    }
}
