//! Where shadow code is at home: memory around R13, in which it finds its [`Context`], a stack for return addresses below, and the
//! machine's attention byte above.
//!
//! ```text
//! guard | return stack | Context | attention page
//!                      ^ R13
//! ```
//!
//! - The **return stack** holds host addresses that calls of shadow code left there for the returns that match them, so that the
//!   host's own prediction of returns works for the guest. They are predictions and nothing else: where a return arrives the guest's
//!   EIP is checked. At the bottom is the address of code that looks EIP up. Whoever leaves shadow code leaves all of them behind, and
//!   when the guard is met they are dropped.
//! - The **attention page** is the page of the machine's board that has the attention byte, mapped a second time, so that a poll is one
//!   comparison at a fixed distance.
//!
//! This module knows neither processor nor code.
#![expect(unsafe_code, reason = "maps memory and keeps a value in it")]

use super::bridge::Context;
use super::cache::CacheError;
use crate::cpu::bus::PAGE_SIZE;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

const PAGE: usize = PAGE_SIZE as usize;
/// Bytes of the return stack: calls are 8 bytes deep. When it is full somebody looks whether attention is wanted, for which calls to other
/// pages do not: it must not take long.
const STACK_BYTES: usize = 16 << 10;
/// Where the context is.
const CONTEXT_AT: usize = PAGE + STACK_BYTES;
/// Where the attention page is.
const ATTENTION_AT: usize = CONTEXT_AT + size_of::<Context>().next_multiple_of(PAGE);
const BYTES: usize = ATTENTION_AT + PAGE;

/// Where the stack starts, from R13: the address of the code that ends it is there.
pub const STACK_TOP: i32 = -16;

/// See the module's description.
pub struct Home {
    start: NonNull<c_void>,
    /// Whose page is mapped.
    watched: Option<*const u8>,
    /// Whose page the host would not map: it is not asked again.
    refused: Option<*const u8>,
}

// SAFETY: the memory belongs to this value alone; the board that is mapped in it is shared anyway.
unsafe impl Send for Home {}

impl Home {
    /// With a context in it.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn new(context: Context) -> Result<Self, CacheError> {
        let fail = |error| CacheError { what: "context", error };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), BYTES, protection, MapFlags::PRIVATE) };
        let start = at.and_then(|at| NonNull::new(at).ok_or(rustix::io::Errno::NOMEM)).map_err(fail)?;
        let home = Self { start, watched: None, refused: None };
        // SAFETY: the first page of the new mapping.
        unsafe { rustix::mm::mprotect(start.as_ptr(), PAGE, MprotectFlags::empty()) }.map_err(fail)?;
        // SAFETY: aligned to pages and large enough.
        unsafe { home.context().write(context) };
        Ok(home)
    }

    fn context(&self) -> NonNull<Context> {
        // SAFETY: within the mapping.
        unsafe { self.start.byte_add(CONTEXT_AT) }.cast()
    }

    /// What the return stack starts with: code for returns that no call is known of.
    pub fn set_stack_end(&mut self, code: u64) {
        // SAFETY: within the mapping, between stack and context.
        unsafe { self.context().byte_offset(STACK_TOP as isize).cast::<u64>().write(code) };
    }

    /// RSP of an empty return stack.
    pub fn stack_top(&self) -> u64 {
        (self.context().as_ptr() as u64).wrapping_add_signed(i64::from(STACK_TOP))
    }

    /// What lies below the return stack.
    pub fn guard(&self) -> Range<u64> {
        let start = self.start.as_ptr() as u64;
        start..start + PAGE as u64
    }

    /// Maps the page of `byte`, which is in shared memory, behind the context. Returns the distance from R13; `None` if the host refused
    /// it once, as when the memory is not shared.
    pub fn watch(&mut self, byte: *const u8) -> Option<i32> {
        if self.refused == Some(byte) {
            return None;
        }
        let offset = byte as usize % PAGE;
        if self.watched != Some(byte)
            && let Err(error) = self.map_attention(byte)
        {
            tracing::warn!("The attention byte cannot be mapped ({error}): everything is interpreted");
            self.refused = Some(byte);
            return None;
        }
        Some((ATTENTION_AT - CONTEXT_AT + offset) as i32)
    }

    fn map_attention(&mut self, byte: *const u8) -> rustix::io::Result<()> {
        self.watched = None;
        let offset = byte as usize % PAGE;
        // SAFETY: the target is this value's own; the source is mapped, says who has its address. A shared mapping of which
        // nothing (0 bytes) is moved is mapped a second time.
        unsafe {
            let page = byte.cast_mut().wrapping_byte_sub(offset).cast();
            let to = self.start.as_ptr().wrapping_byte_add(ATTENTION_AT);
            rustix::mm::mremap_fixed(page, 0, PAGE, MremapFlags::MAYMOVE, to)?;
            rustix::mm::mprotect(to, PAGE, MprotectFlags::READ)?;
        }
        self.watched = Some(byte);
        Ok(())
    }

    /// Whose attention byte is mapped.
    #[inline]
    pub fn watched(&self) -> Option<*const u8> {
        self.watched
    }
}

impl Deref for Home {
    type Target = Context;

    #[inline]
    fn deref(&self) -> &Context {
        // SAFETY: `new` has put it there, and it is borrowed as this value is.
        unsafe { self.context().as_ref() }
    }
}

impl DerefMut for Home {
    #[inline]
    fn deref_mut(&mut self) -> &mut Context {
        // SAFETY: as above.
        unsafe { self.context().as_mut() }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // SAFETY: made by `new`; nobody uses it after its owner. The context has nothing to drop.
        unsafe {
            let _ = rustix::mm::munmap(self.start.as_ptr(), BYTES);
        }
    }
}
