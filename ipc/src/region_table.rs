//! The region table of a link: written by the device process, read by the VMM, whole or not at
//! all (a sequence lock).

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Regions per device process.
pub const MAX_REGIONS: usize = if cfg!(loom) { 2 } else { 128 };
/// Words that describe a region.
pub const REGION_WORDS: usize = if cfg!(loom) { 1 } else { 8 };

/// The table.
#[repr(C, align(128))]
pub struct RegionTable {
    /// Odd while the table changes; counts changes.
    generation: AtomicU64,
    count: AtomicU32,
    reserved: AtomicU32,
    cells: [[AtomicU64; REGION_WORDS]; MAX_REGIONS],
}

impl RegionTable {
    /// Changes so far; odd while it changes.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Replaces the table. Device side. Regions beyond [`MAX_REGIONS`] are refused by the caller.
    pub fn set(&self, regions: &[[u64; REGION_WORDS]]) {
        // A predecessor may have died in the middle and left it odd: go on from there.
        let generation = self.generation.load(Ordering::Relaxed) | 1;
        self.generation.store(generation, Ordering::Relaxed);
        // SYNC POINT regions: the odd generation is visible before any cell changes.
        fence(Ordering::Release);
        for (cell, region) in self.cells.iter().zip(regions) {
            for (word, value) in cell.iter().zip(region) {
                word.store(*value, Ordering::Relaxed);
            }
        }
        self.count.store(regions.len().min(MAX_REGIONS) as u32, Ordering::Relaxed);
        self.generation.store(generation.wrapping_add(1), Ordering::Release);
    }

    /// Reads the table with its generation; `None` while it is being changed.
    pub fn get(&self) -> Option<(u64, Vec<[u64; REGION_WORDS]>)> {
        let before = self.generation.load(Ordering::Acquire);
        let count = (self.count.load(Ordering::Relaxed) as usize).min(MAX_REGIONS);
        let regions = self.cells[..count]
            .iter()
            .map(|cell| std::array::from_fn(|i| cell[i].load(Ordering::Relaxed)))
            .collect();
        // SYNC POINT regions: pairs with the fence in `set`.
        fence(Ordering::Acquire);
        let after = self.generation.load(Ordering::Relaxed);
        (before & 1 == 0 && before == after).then_some((before, regions))
    }
}

#[cfg(any(test, loom))]
impl Default for RegionTable {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            count: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            cells: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_region_table_is_whole_or_not_there() {
        let table = RegionTable::default();
        table.set(&[[1; REGION_WORDS], [2; REGION_WORDS]]);
        let (generation, regions) = table.get().unwrap();
        assert_eq!((generation, regions.len()), (2, 2));
        table.set(&[[3; REGION_WORDS]]);
        assert_eq!(table.get().unwrap(), (4, vec![[3; REGION_WORDS]]));
    }

    #[test]
    fn a_writer_that_died_in_the_middle_leaves_nothing_and_its_successor_repairs_it() {
        let table = RegionTable::default();
        table.set(&[[1; REGION_WORDS]]);
        table.generation.fetch_add(1, Ordering::Relaxed);
        assert_eq!(table.get(), None);
        table.set(&[[2; REGION_WORDS]]);
        assert_eq!(table.get(), Some((4, vec![[2; REGION_WORDS]])));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// `first` generation of the table before the writer starts; odd: its predecessor died.
    fn run(first: u64) {
        loom::model(move || {
            let table = Arc::new(RegionTable::default());
            table.set(&[[1], [1]]);
            if first & 1 == 1 {
                table.generation.fetch_add(1, Ordering::Relaxed);
                table.cells[0][0].store(9, Ordering::Relaxed);
            }
            let writer = {
                let table = table.clone();
                loom::thread::spawn(move || {
                    table.set(&[[2], [2]]);
                    table.set(&[[3]]);
                })
            };
            if let Some((generation, regions)) = table.get() {
                let version = generation / 2;
                let expected = if version == 3 { vec![[3]] } else { vec![[version]; 2] };
                assert_eq!(regions, expected);
            }
            writer.join().unwrap();
            assert_eq!(table.get(), Some((6, vec![[3]])));
        });
    }

    #[test]
    fn no_interleaving_shows_a_reader_a_mixed_table() {
        run(2);
    }

    #[test]
    fn no_interleaving_after_a_crash_shows_a_reader_a_mixed_table() {
        run(3);
    }
}
