//! Runs of bytes moved at once, for repeated string instructions.
//!
//! Each method does what a loop of single accesses at the current privilege level would do, but only as far
//! as memory can be reached directly and within one page; it returns how much it did. Zero means that the
//! next element must take the normal path (which may make the following ones direct). Segment limits
//! are the caller's: [`Vcpu::linear_for_read`] and [`Vcpu::linear_for_write`] check a whole range.
#![expect(unsafe_code, reason = "copies between granted host pages")]

use super::{Vcpu, Word, bus::Bus};

impl<B: Bus> Vcpu<B> {
    /// Copies up to `len` bytes upwards from linear `source` to `target`, in whole elements of `unit` bytes.
    /// Overlapping ranges give what element after element would give.
    pub fn copy_direct(&mut self, target: u32, source: u32, len: u32, unit: u32) -> u32 {
        let (Some(from), Some(to)) =
            (self.tlb.readable_run(self.mode, source), self.tlb.writable_run(self.mode, target))
        else {
            return 0;
        };
        let mut bytes = len.min(from.left).min(to.left);
        // A target shortly after the source repeats a pattern: copy at most one period of it.
        let distance = (to.host as usize).wrapping_sub(from.host as usize);
        if distance < bytes as usize {
            bytes = distance as u32;
        }
        bytes -= bytes.checked_rem(unit).unwrap_or(bytes);
        // SAFETY: both runs are granted for at least `bytes` bytes (tlb.rs says why the grants
        // hold); `copy` allows them to overlap.
        unsafe { std::ptr::copy(from.host.cast_const(), to.host, bytes as usize) };
        bytes
    }

    /// Stores `value` up to `count` times upwards from linear `target`; returns the number of elements.
    pub fn fill_direct<T: Word>(&mut self, target: u32, value: T, count: u32) -> u32 {
        let Some(to) = self.tlb.writable_run(self.mode, target) else { return 0 };
        let count = count.min(to.left / T::SIZE);
        for i in 0..count as usize {
            // SAFETY: `count` elements fit into what is left of the granted page.
            unsafe { value.store(to.host.add(i * T::SIZE as usize)) };
        }
        count
    }

    /// Stores bytes from linear `target` upwards; returns how many.
    pub fn store_direct(&mut self, target: u32, data: &[u8]) -> usize {
        let Some(to) = self.tlb.writable_run(self.mode, target) else { return 0 };
        let bytes = data.len().min(to.left as usize);
        // SAFETY: `bytes` are within `data` and within the granted page; a Rust slice never
        // overlaps guest memory.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to.host, bytes) };
        bytes
    }

    /// Fetches bytes from linear `source` upwards; returns how many.
    pub fn load_direct(&mut self, source: u32, data: &mut [u8]) -> usize {
        let Some(from) = self.tlb.readable_run(self.mode, source) else { return 0 };
        let bytes = data.len().min(from.left as usize);
        // SAFETY: as in `store_direct`.
        unsafe { std::ptr::copy_nonoverlapping(from.host.cast_const(), data.as_mut_ptr(), bytes) };
        bytes
    }
}
