//! Links: what is known of where constant jumps and calls to other pages lead, as data.
//!
//! Each such place has a *cell*, one word that only it uses. At first there is in it what the place takes to look its target up in the exec
//! map, like any other jump between pages; then what was found, and the cell is noted in a *log*. As soon as anything changes that such a
//! look-up depends on, all cells of that privilege side that are in the log are what they were at first. Code itself is never
//! written.
//!
//! This module knows where cells are and what is in them, and nothing of maps and code.
#![expect(unsafe_code, reason = "memory that shadow code reads and writes")]

use super::cache::CacheError;
use rustix::mm::{MapFlags, ProtFlags};
use std::ops::Range;
use std::ptr::NonNull;

/// Cells there are at most: more than fit beside their jumps into the code cache, mostly.
const CELLS: usize = 1 << 20;
/// Bytes of a cell: an address.
const CELL_BYTES: usize = size_of::<u64>();
/// An entry of a log: the address of a cell. A cell is in a log once at most.
const LOG_BYTES: usize = CELLS * size_of::<u32>();
const BYTES: usize = CELLS * CELL_BYTES + SIDES * LOG_BYTES;
/// Privilege sides: supervisor and user.
const SIDES: usize = 2;

/// Where shadow code writes the next entry of each side's log.
pub type Logs = [u64; SIDES];

/// See the module's description.
pub struct Links {
    start: NonNull<u8>,
    /// What is in each cell that is in use at first.
    first: Vec<u32>,
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
        Ok(Self { start, first: Vec::new() })
    }

    /// Empty logs.
    pub fn logs(&self) -> Logs {
        let first = self.start.as_ptr() as u64 + (CELLS * CELL_BYTES) as u64;
        std::array::from_fn(|side| first + (side * LOG_BYTES) as u64)
    }

    /// Where the cells that are free begin and end.
    pub fn free(&self) -> [u32; 2] {
        [self.first.len(), CELLS].map(|cell| (self.start.as_ptr() as usize + cell * CELL_BYTES) as u32)
    }

    /// Where all cells are.
    pub fn range(&self) -> Range<u64> {
        let start = self.start.as_ptr() as u64;
        start..start + (CELLS * CELL_BYTES) as u64
    }

    /// Takes the next free cell. `first`: what is in it as long as nothing is known.
    pub fn take(&mut self, first: u32) {
        if self.first.len() < CELLS {
            self.first.push(first);
            self.set(self.first.len() - 1, first.into());
        }
    }

    fn set(&mut self, cell: usize, to: u64) {
        assert!(cell < CELLS);
        // SAFETY: within the mapping (just checked), aligned; shadow code, which also uses it, is not running.
        unsafe { self.start.as_ptr().cast::<u64>().add(cell).write(to) };
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
        (cell < self.first.len()).then_some(cell)
    }

    /// Nothing is known any more of a side's (`user`, or supervisor).
    pub fn forget(&mut self, logs: &mut Logs, user: bool) {
        let side = usize::from(user);
        let start = self.logs()[side];
        for entry in (start..logs[side]).step_by(size_of::<u32>()) {
            if let Some(cell) = self.logged(entry) {
                self.set(cell, self.first[cell].into());
            }
        }
        logs[side] = start;
    }

    /// All cells are free again.
    pub fn clear(&mut self, logs: &mut Logs) {
        self.first.clear();
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

    /// What shadow code does.
    fn fill(links: &mut Links, logs: &mut Logs, user: bool, cell: usize, code: u64) {
        let next = &mut logs[usize::from(user)];
        let address = links.start.as_ptr() as u64 + (cell * CELL_BYTES) as u64;
        // SAFETY: the log has room for it.
        unsafe { (*next as *mut u32).write(address as u32) };
        *next += 4;
        links.set(cell, code);
    }

    fn get(links: &Links, cell: usize) -> u64 {
        assert!(cell < CELLS);
        // SAFETY: within the mapping (just checked).
        unsafe { links.start.as_ptr().cast::<u64>().add(cell).read() }
    }

    #[test]
    fn cells_keep_what_they_were_filled_with_until_their_side_is_forgotten() {
        let mut links = Links::new().expect("there is room");
        let mut logs = links.logs();
        for first in [100, 200, 0] {
            links.take(first);
        }
        fill(&mut links, &mut logs, false, 0, 1000);
        fill(&mut links, &mut logs, true, 2, 1);
        links.forget(&mut logs, true);
        assert_eq!([0, 1, 2].map(|cell| get(&links, cell)), [1000, 200, 0]);
        links.forget(&mut logs, false);
        assert_eq!(get(&links, 0), 100);
        assert_eq!(logs, links.logs());
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
