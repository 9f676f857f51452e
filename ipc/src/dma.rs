//! Guest RAM as a device process has it: the ranges that its models may reach as bus masters, and nothing else.
//!
//! The file descriptor is closed once the ranges are mapped. Who may have which range is decided elsewhere.

#![expect(unsafe_code)] // Mapping memory that other processes write is what this module is for.

use crate::segment::SegmentError;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::shm;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Ranges that a process may have.
pub const MAX_RANGES: usize = 8;
/// What a range is a multiple of: mappings are.
pub const GRAIN: u64 = 4096;

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RamRange {
    /// First address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
}

impl RamRange {
    /// What both ranges have, if anything.
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }

    /// Whether `len` bytes from `address` on lie in it.
    fn contains(self, address: u64, len: u64) -> bool {
        address >= self.start && address.checked_add(len).is_some_and(|end| end <= self.end)
    }
}

impl fmt::Display for RamRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Address(self.start), Address(self.end))
    }
}

/// An address as people write it.
struct Address(u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            at if at.is_multiple_of(1 << 20) => write!(f, "{}M", at >> 20),
            at => write!(f, "{}K", at.div_ceil(1 << 10)),
        }
    }
}

/// Sorted, without gaps of nothing and without overlaps.
pub fn merged(mut ranges: Vec<RamRange>) -> Vec<RamRange> {
    ranges.sort_unstable();
    let mut merged: Vec<RamRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Ranges of guest RAM, mapped.
#[derive(Debug, Default)]
pub struct DmaRam {
    pieces: Vec<Piece>,
}

/// A range and where it is mapped.
#[derive(Debug)]
struct Piece {
    range: RamRange,
    memory: *mut u8,
}

// SAFETY: the pointer is to a mapping of the whole process, which stays until drop; all access is by raw copies.
unsafe impl Send for Piece {}
// SAFETY: as above; no method hands out a reference to the bytes.
unsafe impl Sync for Piece {}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: the mapping was made for this piece, of this length, and nobody else has the pointer.
        let _ = unsafe { munmap(self.memory.cast(), (self.range.end - self.range.start) as usize) };
    }
}

impl DmaRam {
    /// Maps what there is of `ranges` (rounded inwards to whole pages) in the RAM segment `name`. Without ranges
    /// the segment is not even opened.
    ///
    /// # Errors
    /// [`SegmentError::Os`].
    pub fn open(name: &str, ranges: &[RamRange]) -> Result<Self, SegmentError> {
        if ranges.is_empty() {
            return Ok(Self::default());
        }
        let os = |e: rustix::io::Errno| SegmentError::Os { name: name.into(), reason: e.to_string() };
        let file = shm::open(format!("/{name}"), shm::OFlags::RDWR, rustix::fs::Mode::empty()).map_err(os)?;
        let len = rustix::fs::fstat(&file).map_err(os)?.st_size as u64;
        let mut pieces = Vec::new();
        for range in merged(ranges.to_vec()).into_iter().take(MAX_RANGES) {
            let whole =
                RamRange { start: range.start.next_multiple_of(GRAIN), end: range.end & !(GRAIN - 1) };
            let Some(range) = whole.and(RamRange { start: 0, end: len }) else { continue };
            let bytes = (range.end - range.start) as usize;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping at an address that the kernel chooses, inside the file: it replaces nothing, and
            // the segment is never made shorter.
            let memory = unsafe {
                mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, range.start).map_err(os)?
            };
            pieces.push(Piece { range, memory: memory.cast() });
        }
        Ok(Self { pieces })
    }

    /// What is mapped.
    pub fn ranges(&self) -> Vec<RamRange> {
        self.pieces.iter().map(|piece| piece.range).collect()
    }

    /// Where `len` bytes at `address` are, if all of them are mapped.
    fn find(&self, address: u64, len: usize) -> Option<*mut u8> {
        let piece = self.pieces.iter().find(|piece| piece.range.contains(address, len as u64))?;
        // SAFETY: the offset is inside the mapping, or just behind it when `len` is 0.
        Some(unsafe { piece.memory.add((address - piece.range.start) as usize) })
    }

    /// Whether all of `len` bytes at `address` are mapped.
    pub fn reaches(&self, address: u64, len: usize) -> bool {
        self.find(address, len).is_some()
    }

    /// Copies bytes out. False, and `buffer` as before, when they are not all mapped.
    #[must_use]
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let Some(from) = self.find(address, buffer.len()) else { return false };
        // SAFETY: `find` says that the source lies in a mapping; `buffer` is ours, so they do not overlap. Others may
        // write at the same time: the bytes are then mixed, as they are for a bus master on real hardware.
        unsafe { from.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) };
        true
    }

    /// Copies bytes in. False, and nothing written, when the place is not all mapped.
    #[must_use]
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some(to) = self.find(address, data.len()) else { return false };
        // SAFETY: as for `read`.
        unsafe { to.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Segment, SegmentNames};

    const PAGE: u64 = GRAIN;

    fn pages(start: u64, end: u64) -> RamRange {
        RamRange { start: start * PAGE, end: end * PAGE }
    }

    #[test]
    fn only_what_was_asked_for_is_reached() {
        let name = SegmentNames::new(&format!("dma{}", std::process::id())).ram();
        let ram = Segment::create(&name, 16 * PAGE).unwrap();
        let dma = DmaRam::open(&name, &[pages(8, 10), pages(1, 2), pages(2, 3), pages(15, 99)]).unwrap();
        assert_eq!(dma.ranges(), [pages(1, 3), pages(8, 10), pages(15, 16)]);
        assert!(dma.write(2 * PAGE - 1, b"two"));
        let mut back = [0; 3];
        assert!(ram.read(2 * PAGE - 1, &mut back));
        assert_eq!(&back, b"two");
        assert!(ram.write(9 * PAGE, b"it") && dma.read(9 * PAGE, &mut back[..2]));
        assert_eq!(&back[..2], b"it");
        for outside in [0, PAGE - 1, 3 * PAGE - 2, 3 * PAGE, 10 * PAGE - 1, 16 * PAGE - 2, u64::MAX - 1] {
            assert!(!dma.read(outside, &mut back), "{outside:x}");
            assert!(!dma.write(outside, &back), "{outside:x}");
        }
        assert!(DmaRam::open("vmsim-there-is-no-such", &[]).unwrap().ranges().is_empty());
        assert!(DmaRam::open("vmsim-there-is-no-such", &[pages(0, 1)]).is_err());
    }

    #[test]
    fn ranges_read_as_they_are_written() {
        assert_eq!(pages(0, 4096).to_string(), "0-16M");
        assert_eq!(RamRange { start: 640 << 10, end: 1 << 20 }.to_string(), "640K-1M");
    }
}
