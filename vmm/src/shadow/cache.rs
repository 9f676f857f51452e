//! The code cache: memory for shadow code, mapped twice, once to be written and once to be executed.
//!
//! Both mappings, and the entry tables of shadow pages, lie below 2 GiB, so that code addresses are 32 bits wide.
//! Nothing is freed singly: when it is full, everything is dropped and it starts anew behind the bridge.
#![expect(unsafe_code, reason = "maps memory, and writes through the mapping")]

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::ptr::NonNull;

/// Bytes of shadow code.
pub const CODE_BYTES: usize = 64 << 20;

/// Below 2 GiB: the flag of `mmap` that rustix has no name for.
const MAP_32BIT: u32 = libc::MAP_32BIT as u32;

/// What can go wrong when the engine is made.
#[derive(Debug, thiserror::Error)]
#[error(
    "The shadow engine could not get memory for its {what}: {error}. Use --engine interp, or raise the limit (ulimit -v)."
)]
pub struct CacheError {
    /// For what.
    pub what: &'static str,
    /// What the host says.
    pub error: rustix::io::Errno,
}

/// See the module's description.
pub struct CodeCache {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    used: usize,
    /// What [`CodeCache::clear`] keeps.
    head: usize,
}

// SAFETY: the mappings belong to this value alone.
unsafe impl Send for CodeCache {}

impl CodeCache {
    /// An empty cache.
    ///
    /// # Errors
    /// When the host has no memory, or no room below 2 GiB.
    pub fn new() -> Result<Self, CacheError> {
        let fail = |error| CacheError { what: "code cache", error };
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::from_bits_retain(MAP_32BIT));
        let address = |at: *mut c_void| NonNull::new(at.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM);
        // Shared memory without a name, not a memfd: perf looks its own map of names up for that alone.
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let executable =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), CODE_BYTES, protection, flags) };
        let executable = executable.and_then(address).map_err(fail)?;
        // SAFETY: of a shared mapping of which nothing (0 bytes) is moved another one is made, at an address of the kernel's choice.
        let writable =
            unsafe { rustix::mm::mremap(executable.as_ptr().cast(), 0, CODE_BYTES, MremapFlags::MAYMOVE) };
        let writable = writable.and_then(address).map_err(fail)?;
        let runs = MprotectFlags::READ | MprotectFlags::EXEC;
        // SAFETY: the new mapping, in which nothing is yet.
        unsafe { rustix::mm::mprotect(executable.as_ptr().cast(), CODE_BYTES, runs) }.map_err(fail)?;
        Ok(Self { writable, executable, used: 0, head: 0 })
    }

    /// Address at which the next code will be executed.
    pub fn next(&self) -> u64 {
        self.executable.as_ptr() as u64 + self.used as u64
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// All addresses that it has or may have code at.
    pub fn range(&self) -> std::ops::Range<u64> {
        let start = self.executable.as_ptr() as u64;
        start..start + CODE_BYTES as u64
    }

    /// Appends code; returns where it will be executed. `None`: the cache is full.
    pub fn append(&mut self, code: &[u8]) -> Option<u64> {
        /// Code starts at multiples of this many bytes.
        const ALIGNMENT: usize = 32;
        let at = self.next();
        let end = self.used.checked_add(code.len())?.next_multiple_of(ALIGNMENT);
        if end > CODE_BYTES {
            return None;
        }
        // SAFETY: `used..end` lies within the writable mapping (just checked), which nobody else has.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.writable.as_ptr().add(self.used), code.len())
        };
        self.used = end;
        Some(at)
    }

    /// What [`CodeCache::clear`] is to keep is all there now.
    pub fn seal_head(&mut self) {
        self.head = self.used;
    }

    /// Drops everything behind the head.
    pub fn clear(&mut self) {
        self.used = self.head;
    }

    /// Changes a byte of what was appended.
    #[cfg(test)]
    pub fn poke(&mut self, address: u64, byte: u8) {
        let from = (address - self.executable.as_ptr() as u64) as usize;
        assert!(from < self.used);
        // SAFETY: within what was appended (just checked); nobody executes it meanwhile.
        unsafe { self.writable.as_ptr().add(from).write(byte) };
    }

    /// Code as it was appended, for listings.
    pub fn code(&self, address: u64, len: usize) -> Option<&[u8]> {
        let from = address.checked_sub(self.executable.as_ptr() as u64)? as usize;
        if from.checked_add(len)? > self.used {
            return None;
        }
        // SAFETY: within what was appended; writes need `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(self.writable.as_ptr().add(from), len) })
    }
}

impl Drop for CodeCache {
    fn drop(&mut self) {
        // SAFETY: both mappings were made by `new` and nobody uses them after their owner.
        unsafe {
            let _ = rustix::mm::munmap(self.writable.as_ptr().cast(), CODE_BYTES);
            let _ = rustix::mm::munmap(self.executable.as_ptr().cast(), CODE_BYTES);
        }
    }
}

/// Number of entry tables there is room for.
const TABLES: usize = 8192;
/// Entries of a table: one for each byte of a page.
pub const TABLE_ENTRIES: usize = 4096;
const TABLE_BYTES: usize = TABLE_ENTRIES * size_of::<u32>();

/// Entry tables: for each byte of a guest page the address of the shadow code of the instruction that starts there.
pub struct Tables {
    start: NonNull<u32>,
    used: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Tables {}

/// One of the [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table(u32);

impl Tables {
    /// No tables yet.
    ///
    /// # Errors
    /// When the host has no room below 2 GiB.
    pub fn new() -> Result<Self, CacheError> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::from_bits_retain(MAP_32BIT);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), TABLES * TABLE_BYTES, protection, flags)
        };
        let start = at.and_then(|at| NonNull::new(at.cast()).ok_or(rustix::io::Errno::NOMEM));
        let start = start.map_err(|error| CacheError { what: "entry tables", error })?;
        Ok(Self { start, used: 0 })
    }

    /// A table full of `miss`. `None`: there is no room.
    pub fn take(&mut self, miss: u32) -> Option<Table> {
        if self.used == TABLES {
            return None;
        }
        let table = self.used as u32;
        self.used += 1;
        // SAFETY: the table lies within the mapping, and shadow code, which also reads it, is not running.
        let entries = unsafe {
            std::slice::from_raw_parts_mut(
                self.start.as_ptr().add(table as usize * TABLE_ENTRIES),
                TABLE_ENTRIES,
            )
        };
        entries.fill(miss);
        Some(Table(table))
    }

    /// Takes all back.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Where it is.
    pub fn address(&self, table: Table) -> u64 {
        self.start.as_ptr() as u64 + u64::from(table.0) * TABLE_BYTES as u64
    }

    /// An entry.
    #[inline]
    pub fn get(&self, table: Table, offset: usize) -> u32 {
        assert!(offset < TABLE_ENTRIES);
        // SAFETY: within a table that was taken, in the mapping.
        unsafe { self.start.add(table.0 as usize * TABLE_ENTRIES + offset).read() }
    }

    /// Sets an entry.
    #[inline]
    pub fn set(&mut self, table: Table, offset: usize, value: u32) {
        assert!(offset < TABLE_ENTRIES);
        // SAFETY: as in `get`; shadow code is not running.
        unsafe { self.start.add(table.0 as usize * TABLE_ENTRIES + offset).write(value) }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nobody uses it after its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), TABLES * TABLE_BYTES) };
    }
}
