//! Counters that the bus latches and reads by itself ([`ipc::counter`]): what one device process has stated of them, as last read.
//! What a counter is, and by which registers it is reached, is the device's to say, and it says it in its link.

use ipc::counter::{CounterCell, Counting, MAX_COUNTERS, Seen};
use ipc::time::VirtualTime;

/// The statements of one device process.
#[derive(Debug, Default)]
pub struct Counters {
    /// With the generation that each is of.
    kept: [Option<(u32, Counting)>; MAX_COUNTERS],
}

impl Counters {
    /// Makes a write of one byte at offset `register` of the region. False: the device is to be told of it.
    #[inline]
    pub fn write(
        &mut self,
        cells: &[CounterCell; MAX_COUNTERS],
        register: u64,
        byte: u8,
        now: impl FnOnce() -> VirtualTime,
    ) -> bool {
        let is_it = |c: &Counting| u64::from(c.command.0) == register && c.command.1 == byte;
        self.find(cells, is_it).is_some_and(|(cell, seen, counting)| cell.latch(seen, counting, now))
    }

    /// Makes a read of one byte likewise. `None`: the device is to be asked.
    #[inline]
    pub fn read(
        &mut self,
        cells: &[CounterCell; MAX_COUNTERS],
        register: u64,
        now: impl FnOnce() -> VirtualTime,
    ) -> Option<u8> {
        let (cell, seen, counting) = self.find(cells, |c| u64::from(c.register) == register)?;
        cell.read(seen, counting, now)
    }

    /// The first counter in force of which `is_it` is true.
    #[inline]
    fn find<'a>(
        &mut self,
        cells: &'a [CounterCell; MAX_COUNTERS],
        is_it: impl Fn(&Counting) -> bool,
    ) -> Option<(&'a CounterCell, Seen, &Counting)> {
        for (cell, kept) in cells.iter().zip(&mut self.kept) {
            let Some(seen) = cell.look() else { continue };
            if kept.as_ref().is_none_or(|(generation, _)| *generation != seen.generation()) {
                *kept = cell.counting(seen).map(|counting| (seen.generation(), counting));
            }
            if let Some((_, counting)) = kept
                && is_it(counting)
            {
                return Some((cell, seen, counting));
            }
        }
        None
    }
}
