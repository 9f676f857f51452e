//! Guest RAM that a window can map a second time.
#![expect(unsafe_code, reason = "maps memory")]

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;

/// Bytes before and behind it that nobody can access: an engine that strays there is caught.
const GUARD: usize = 1 << 16;

/// Shared memory, zero at first.
pub struct SharedRam {
    start: NonNull<Cell<u8>>,
    len: usize,
}

impl SharedRam {
    /// As many bytes, whole pages.
    pub fn new(len: usize) -> Self {
        use rustix::mm::{MapFlags, ProtFlags};
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len + 2 * GUARD, ProtFlags::empty(), flags)
        };
        let start = at.expect("there is address space").wrapping_byte_add(GUARD);
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: within the mapping just made, which nobody uses.
        let at = unsafe { rustix::mm::mmap_anonymous(start, len, protection, flags | MapFlags::FIXED) };
        let start = NonNull::new(at.expect("there is memory").cast()).expect("nothing is mapped at zero");
        Self { start, len }
    }
}

impl Deref for SharedRam {
    type Target = [Cell<u8>];

    fn deref(&self) -> &[Cell<u8>] {
        // SAFETY: the whole mapping, which lives as long as `self`; cells may be written through other pointers meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for SharedRam {
    fn drop(&mut self) {
        let start = self.start.as_ptr().wrapping_byte_sub(GUARD);
        // SAFETY: made by `new`, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(start.cast(), self.len + 2 * GUARD) };
    }
}
