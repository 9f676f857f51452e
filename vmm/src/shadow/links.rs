//! Links: where constant jumps and calls to other pages lead, as data.
//!
//! Such a jump goes through a *cell*, one word that only it uses. At first the cell leads to a stub of the jump, which looks its target up in
//! the exec map like any other jump between pages, leaves what it found in the cell and notes in a *log* that it did. As soon as anything
//! changes that such a look-up depends on, all cells of that privilege side that are in the log lead to their stubs again. Code itself is
//! never written.
//!
//! This module knows where cells are and what is in them, and nothing of maps and code.
#![expect(unsafe_code, reason = "memory that shadow code reads and writes")]

use super::cache::CacheError;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;

/// Cells there are at most: more than fit beside their jumps into the code cache, mostly.
const CELLS: usize = 1 << 20;
/// Bytes of a cell: an address.
const CELL_BYTES: usize = size_of::<u64>();
/// An entry of a log: the address of a cell. One more than there are cells: what leads nowhere is noted, too, and taken back at once.
const LOG_BYTES: usize = (CELLS + 1) * size_of::<u32>();
const BYTES: usize = CELLS * CELL_BYTES + SIDES * LOG_BYTES;
/// Privilege sides: supervisor and user.
const SIDES: usize = 2;

/// Where shadow code writes the next entry of each side's log.
pub type Logs = [u64; SIDES];

/// See the module's description.
pub struct Links {
    start: NonNull<u8>,
    /// The stub of each cell that is in use.
    stubs: Vec<u32>,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Links {}

impl Links {
    /// No cells yet.
    ///
    /// # Errors
    /// When the host has no room below 2 GiB.
    pub fn new() -> Result<Self, CacheError> {
        let flags =
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::from_bits_retain(libc::MAP_32BIT as u32);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), BYTES, protection, flags) };
        let start = at.and_then(|at| NonNull::new(at.cast()).ok_or(rustix::io::Errno::NOMEM));
        let start = start.map_err(|error| CacheError { what: "links", error })?;
        Ok(Self { start, stubs: Vec::new() })
    }

    /// Where the logs begin.
    pub fn logs(&self) -> Logs {
        let first = self.start.as_ptr() as u64 + (CELLS * CELL_BYTES) as u64;
        std::array::from_fn(|side| first + (side * LOG_BYTES) as u64)
    }

    /// Where the cells that are free begin and end.
    pub fn free(&self) -> [u32; 2] {
        [self.stubs.len(), CELLS].map(|cell| (self.start.as_ptr() as usize + cell * CELL_BYTES) as u32)
    }

    /// Takes the next free cell, which leads to `stub`.
    pub fn take(&mut self, stub: u64) {
        if self.stubs.len() < CELLS {
            self.stubs.push(stub as u32);
            self.lead(self.stubs.len() - 1, stub);
        }
    }

    fn lead(&mut self, cell: usize, to: u64) {
        assert!(cell < CELLS);
        // SAFETY: within the mapping (just checked), aligned; shadow code, which also uses it, is not running.
        unsafe { self.start.as_ptr().cast::<u64>().add(cell).write(to) };
    }

    fn leads_to(&self, cell: usize) -> u64 {
        assert!(cell < CELLS);
        // SAFETY: as in `lead`.
        unsafe { self.start.as_ptr().cast::<u64>().add(cell).read() }
    }

    /// The cell that an entry of a log is about, if it is in use.
    fn logged(&self, entry: u64) -> Option<usize> {
        let offset = entry.checked_sub(self.start.as_ptr() as u64)? as usize;
        if !offset.is_multiple_of(size_of::<u32>()) || !(CELLS * CELL_BYTES..BYTES).contains(&offset) {
            return None;
        }
        // SAFETY: a whole entry of a log, in the mapping; shadow code is not running.
        let cell = unsafe { self.start.as_ptr().add(offset).cast::<u32>().read() };
        let cell = (cell as usize).checked_sub(self.start.as_ptr() as usize)? / CELL_BYTES;
        (cell < self.stubs.len()).then_some(cell)
    }

    /// Takes back what the last entry of a log says if that leads to `miss`: there was no code, or attention was wanted.
    pub fn forget_miss(&mut self, logs: &mut Logs, miss: u64) {
        let starts = self.logs();
        for (next, start) in logs.iter_mut().zip(starts) {
            if *next > start
                && let Some(cell) = self.logged(*next - size_of::<u32>() as u64)
                && self.leads_to(cell) == miss
            {
                *next -= size_of::<u32>() as u64;
                self.lead(cell, self.stubs[cell].into());
            }
        }
    }

    /// All cells of a side (`user`, or supervisor) lead to their stubs again.
    pub fn forget(&mut self, logs: &mut Logs, user: bool) {
        let side = usize::from(user);
        let start = self.logs()[side];
        let mut entry = start;
        while entry < logs[side] {
            if let Some(cell) = self.logged(entry) {
                self.lead(cell, self.stubs[cell].into());
            }
            entry += size_of::<u32>() as u64;
        }
        logs[side] = start;
    }

    /// All cells are free again.
    pub fn clear(&mut self, logs: &mut Logs) {
        self.stubs.clear();
        *logs = self.logs();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nobody uses it after its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stub does.
    fn fill(links: &mut Links, logs: &mut Logs, user: bool, cell: usize, code: u64) {
        let next = &mut logs[usize::from(user)];
        let address = links.start.as_ptr() as u64 + (cell * CELL_BYTES) as u64;
        // SAFETY: the log has room for it.
        unsafe { (*next as *mut u32).write(address as u32) };
        *next += 4;
        links.lead(cell, code);
    }

    #[test]
    fn cells_lead_where_they_were_filled_until_their_side_is_forgotten() {
        let mut links = Links::new().expect("there is room");
        let mut logs = links.logs();
        for stub in [100, 200, 300] {
            links.take(stub);
        }
        fill(&mut links, &mut logs, false, 0, 1000);
        fill(&mut links, &mut logs, true, 2, 3000);
        links.forget(&mut logs, true);
        assert_eq!([0, 1, 2].map(|cell| links.leads_to(cell)), [1000, 200, 300]);
        links.forget(&mut logs, false);
        assert_eq!(links.leads_to(0), 100);
        assert_eq!(logs, links.logs());
    }

    #[test]
    fn what_leads_nowhere_is_taken_back_and_nothing_else() {
        const MISS: u64 = 7;
        let mut links = Links::new().expect("there is room");
        let mut logs = links.logs();
        links.take(100);
        links.take(200);
        fill(&mut links, &mut logs, false, 0, 1000);
        links.forget_miss(&mut logs, MISS);
        assert_eq!(links.leads_to(0), 1000);
        fill(&mut links, &mut logs, false, 1, MISS);
        links.forget_miss(&mut logs, MISS);
        assert_eq!([0, 1].map(|cell| links.leads_to(cell)), [1000, 200]);
        links.forget(&mut logs, false);
        assert_eq!(links.leads_to(0), 100);
    }

    #[test]
    fn there_are_no_more_cells_than_there_is_room_for() {
        let mut links = Links::new().expect("there is room");
        let mut logs = links.logs();
        let first = links.free();
        for _ in 0..CELLS + 10 {
            links.take(1);
        }
        let [next, end] = links.free();
        assert_eq!(next, end);
        links.clear(&mut logs);
        assert_eq!(links.free(), first);
    }
}
