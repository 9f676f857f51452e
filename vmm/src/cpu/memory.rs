//! Reading and writing memory: segment checks, the TLB's fast path, and the slow path behind it.

use super::Vcpu;
use super::bus::{Bus, PAGE_SIZE};
use super::direct::DirectMap;
use super::fault::{Exec, Fault};
use super::paging::UserPage;
use super::registers::{Seg, gpr};
use super::tlb::{Mode, OFFSET_MASK, Translation};
use super::word::{MAX_ALIGNMENT, Vector128, Word};
use ipc::width::Width;

/// Whether `len` bytes (at least one) at `linear` reach into the next page.
const fn crosses_page(linear: u32, len: u32) -> bool {
    (linear & OFFSET_MASK) + len > PAGE_SIZE as u32
}

/// First byte of the page after that of `linear`: what CR2 tells when the second page of an access faults.
const fn next_page(linear: u32) -> u32 {
    (linear | OFFSET_MASK).wrapping_add(1)
}

/// The widest access that the bus has for a part of an operand of `size` bytes.
const fn bus_width(size: u32) -> Width {
    match size {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

impl<B: Bus> Vcpu<B> {
    /// Linear address of `len` bytes at `seg:offset` to be read, after the segment checks.
    #[inline(always)]
    pub fn linear_for_read(&self, seg: Seg, offset: u32, len: u32) -> Exec<u32> {
        let segment = &self.state.segments[seg as usize];
        if u64::from(offset) + u64::from(len) <= segment.read_end() {
            return Ok(segment.base().wrapping_add(offset));
        }
        self.check_segment(seg, offset, len, false)
    }

    /// Linear address of `len` bytes at `seg:offset` to be written, after the segment checks.
    #[inline(always)]
    pub fn linear_for_write(&self, seg: Seg, offset: u32, len: u32) -> Exec<u32> {
        let segment = &self.state.segments[seg as usize];
        if u64::from(offset) + u64::from(len) <= segment.write_end() {
            return Ok(segment.base().wrapping_add(offset));
        }
        self.check_segment(seg, offset, len, true)
    }

    /// The whole check, for what the precomputed ends do not answer.
    #[cold]
    fn check_segment(&self, seg: Seg, offset: u32, len: u32, write: bool) -> Exec<u32> {
        let segment = self.state.segment(seg);
        if segment.allows(offset, len, write) {
            Ok(segment.base().wrapping_add(offset))
        } else if seg == Seg::Ss {
            Err(Fault::ss(0))
        } else {
            Err(Fault::gp(0))
        }
    }

    /// Reads `seg:offset` with the rights of the current privilege level.
    #[inline(always)]
    pub fn read<T: Word>(&mut self, seg: Seg, offset: u32) -> Exec<T> {
        let linear = self.linear_for_read(seg, offset, T::SIZE)?;
        self.read_linear_as(linear, self.mode)
    }

    /// Writes `seg:offset` with the rights of the current privilege level.
    #[inline(always)]
    pub fn write<T: Word>(&mut self, seg: Seg, offset: u32, value: T) -> Exec {
        let linear = self.linear_for_write(seg, offset, T::SIZE)?;
        self.write_linear_as(linear, value, self.mode)
    }

    /// Reads `seg:offset` for an instruction that will write it back: every check of the write is
    /// made now, so the write that follows cannot fault.
    #[inline(always)]
    pub fn read_for_write<T: Word>(&mut self, seg: Seg, offset: u32) -> Exec<T> {
        let linear = self.linear_for_write(seg, offset, T::SIZE)?;
        if let Some(value) = self.tlb.read_writable(self.mode, linear) {
            return Ok(value);
        }
        self.probe_linear_write(linear, T::SIZE)?;
        self.read_slow(linear, self.mode)
    }

    /// Checks that `len` bytes (at least one) at `seg:offset` can be written.
    #[inline]
    pub fn probe_write(&mut self, seg: Seg, offset: u32, len: u32) -> Exec {
        let linear = self.linear_for_write(seg, offset, len)?;
        if self.tlb.fast_write(self.mode, linear, len) && len <= PAGE_SIZE as u32 {
            return Ok(());
        }
        self.probe_linear_write(linear, len)
    }

    /// Checks that `len` bytes (at least one) at `seg:offset` can be read.
    pub fn probe_read(&mut self, seg: Seg, offset: u32, len: u32) -> Exec {
        let linear = self.linear_for_read(seg, offset, len)?;
        self.probe_pages(linear, len, false)
    }

    #[cold]
    fn probe_linear_write(&mut self, linear: u32, len: u32) -> Exec {
        let alignment = len.min(MAX_ALIGNMENT);
        if self.mode == Mode::UserAligned && len.is_power_of_two() && linear & (alignment - 1) != 0 {
            return Err(Fault::ac());
        }
        self.probe_pages(linear, len, true)
    }

    fn probe_pages(&mut self, linear: u32, len: u32, write: bool) -> Exec {
        self.translate(linear, write, self.mode)?;
        let mut checked = PAGE_SIZE as u32 - (linear & OFFSET_MASK);
        while checked < len {
            self.translate(linear.wrapping_add(checked), write, self.mode)?;
            checked = checked.saturating_add(PAGE_SIZE as u32);
        }
        Ok(())
    }

    /// Reads linear memory with the rights of the current privilege level.
    #[inline(always)]
    pub fn read_linear_user<T: Word>(&mut self, linear: u32) -> Exec<T> {
        self.read_linear_as(linear, self.mode)
    }

    /// Writes linear memory with the rights of the current privilege level.
    #[inline(always)]
    pub fn write_linear_user<T: Word>(&mut self, linear: u32, value: T) -> Exec {
        self.write_linear_as(linear, value, self.mode)
    }

    /// Reads linear memory with supervisor rights, as descriptor tables are.
    #[inline(always)]
    pub fn read_linear<T: Word>(&mut self, linear: u32) -> Exec<T> {
        self.read_linear_as(linear, Mode::Supervisor)
    }

    /// Writes linear memory with supervisor rights.
    #[inline(always)]
    pub fn write_linear<T: Word>(&mut self, linear: u32, value: T) -> Exec {
        self.write_linear_as(linear, value, Mode::Supervisor)
    }

    #[inline(always)]
    pub(super) fn read_linear_as<T: Word>(&mut self, linear: u32, mode: Mode) -> Exec<T> {
        match self.tlb.read(mode, linear) {
            Some(value) => Ok(value),
            None => self.read_slow(linear, mode),
        }
    }

    #[inline(always)]
    pub(super) fn write_linear_as<T: Word>(&mut self, linear: u32, value: T, mode: Mode) -> Exec {
        if self.tlb.write(mode, linear, value) { Ok(()) } else { self.write_slow(linear, value, mode) }
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Word>(&mut self, linear: u32, mode: Mode) -> Exec<T> {
        if mode == Mode::UserAligned && linear & (T::ALIGNMENT - 1) != 0 {
            return Err(Fault::ac());
        }
        let first = self.translate(linear, false, mode)?;
        let offset = linear & OFFSET_MASK;
        if !crosses_page(linear, T::SIZE) {
            self.watch_data(linear, T::SIZE, false);
            if let Some(value) = first.load(offset) {
                return Ok(value);
            }
            let address = first.physical | u64::from(offset);
            let mut value = 0;
            self.device_accesses = self.device_accesses.wrapping_add(1);
            let width = bus_width(T::SIZE);
            for at in (0..T::SIZE).step_by(width.bytes() as usize) {
                let part = self.bus.read_memory(address + u64::from(at), width);
                value |= u128::from(part) << (8 * at);
            }
            self.sync_map();
            return Ok(T::narrow(value));
        }
        let second = self.translate(next_page(linear), false, mode)?;
        self.watch_data(linear, T::SIZE, false);
        let mut value = 0;
        for i in 0..T::SIZE {
            let (page, at) = byte_of(&first, &second, offset + i);
            let byte = match page.load::<u8>(at) {
                Some(byte) => byte,
                None => self.bus.read_memory(page.physical | u64::from(at), Width::Byte) as u8,
            };
            value |= u128::from(byte) << (8 * i);
        }
        self.sync_map();
        Ok(T::narrow(value))
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Word>(&mut self, linear: u32, value: T, mode: Mode) -> Exec {
        if mode == Mode::UserAligned && linear & (T::ALIGNMENT - 1) != 0 {
            return Err(Fault::ac());
        }
        let first = self.translate(linear, true, mode)?;
        let offset = linear & OFFSET_MASK;
        if !crosses_page(linear, T::SIZE) {
            self.watch_data(linear, T::SIZE, true);
            let address = first.physical | u64::from(offset);
            if first.store(offset, value) {
                if self.code.is_code_page(first.physical) {
                    self.code.note_write(address, T::SIZE);
                } else if mode != Mode::UserAligned {
                    self.tlb.unprotect(mode, linear);
                }
                return Ok(());
            }
            self.device_accesses = self.device_accesses.wrapping_add(1);
            let width = bus_width(T::SIZE);
            for at in (0..T::SIZE).step_by(width.bytes() as usize) {
                let part = (value.widen() >> (8 * at)) as u32 & width.mask();
                self.bus.write_memory(address + u64::from(at), width, part);
            }
            self.code.note_write(address, T::SIZE);
            self.sync_map();
            return Ok(());
        }
        let second = self.translate(next_page(linear), true, mode)?;
        self.watch_data(linear, T::SIZE, true);
        for i in 0..T::SIZE {
            let (page, at) = byte_of(&first, &second, offset + i);
            let byte = (value.widen() >> (8 * i)) as u8;
            let address = page.physical | u64::from(at);
            if !page.store(at, byte) {
                self.bus.write_memory(address, Width::Byte, u32::from(byte));
            }
            self.code.note_write(address, 1);
        }
        self.sync_map();
        Ok(())
    }

    /// Lets translated code access the page of `len` bytes at `linear` directly from now on. False when this access is
    /// not one it may make: it faults, crosses a page, goes to a device or to kept code, or is watched.
    pub fn make_direct(&mut self, linear: u32, len: u32, write: bool) -> bool {
        let mode = self.mode;
        if mode == Mode::UserAligned || crosses_page(linear, len) {
            return false;
        }
        let Ok(translation) = self.translate(linear, write, mode) else { return false };
        if write && !self.code.is_code_page(translation.physical) {
            self.tlb.unprotect(mode, linear);
        }
        self.tlb.make_direct(mode, linear, write)
    }

    /// Where translated code may make a write that [`Vcpu::make_direct`] has just refused, this once: to a page of kept code, beside
    /// the bytes that are kept. The distance from linear to host address.
    pub fn make_direct_once(&mut self, linear: u32, len: u32) -> Option<u64> {
        let mode = self.mode;
        if mode == Mode::UserAligned || crosses_page(linear, len) {
            return None;
        }
        let known = self.tlb.translation(mode, linear, true)?;
        let host = known.grant.write.filter(|_| known.grant.read.is_some())?;
        let at = known.physical | u64::from(linear & OFFSET_MASK);
        let beside = self.code.is_code_page(known.physical) && !self.code.overlaps(at, len);
        beside.then(|| (host.as_ptr() as u64).wrapping_sub(u64::from(linear & !OFFSET_MASK)))
    }

    /// Has the page tables note an access by a user and tells what page it is to be made to. `None` when the access is not one that
    /// translated code may make in host memory: it faults, goes to a device or to kept code, or is watched.
    pub fn make_window(&mut self, linear: u32, write: bool) -> Option<UserPage> {
        let mode = self.mode;
        if mode != Mode::User {
            return None;
        }
        let translation = self.translate(linear, write, mode).ok()?;
        if write && !self.code.is_code_page(translation.physical) {
            self.tlb.unprotect(mode, linear);
        }
        let (read, writes) = self.tlb.rights(mode, linear);
        (read && (writes || !write)).then(|| {
            let (_, large) = self.tlb.page_kind(mode, linear);
            UserPage { physical: translation.physical, write: writes, large }
        })
    }

    /// Whether the translation of a linear page, which has just been used, is global, and whether it is part of a large page.
    pub fn page_kind(&self, linear: u32) -> (bool, bool) {
        self.tlb.page_kind(self.mode, linear)
    }

    /// Where the page of `linear` can be read, and its physical address, when its translation is known without a walk: finding
    /// that out sets no accessed bit.
    pub fn known_code_page(&self, linear: u32) -> Option<(std::ptr::NonNull<u8>, u64)> {
        let known = self.tlb.translation(self.mode, linear, false)?;
        let host = known.grant.read.filter(|_| known.grant.cacheable_code)?;
        Some((host, known.physical))
    }

    /// The map of what translated code may access directly; it exists after [`Vcpu::set_direct`].
    pub fn direct(&mut self) -> Option<&mut DirectMap> {
        self.tlb.direct()
    }

    /// Makes this the direct map of the processor.
    pub fn set_direct(&mut self, map: DirectMap) {
        self.tlb.set_direct(map);
        self.tlb.flush_all();
    }

    /// Pushes onto the current stack; nothing changes when it faults.
    #[inline]
    pub fn push<T: Word>(&mut self, value: T) -> Exec {
        let esp = self.state.gpr[gpr::ESP];
        let mask = self.stack_mask();
        let top = esp.wrapping_sub(T::SIZE) & mask;
        self.write(Seg::Ss, top, value)?;
        self.state.gpr[gpr::ESP] = esp & !mask | top;
        Ok(())
    }

    /// Pops from the current stack; nothing changes when it faults.
    #[inline]
    pub fn pop<T: Word>(&mut self) -> Exec<T> {
        let esp = self.state.gpr[gpr::ESP];
        let mask = self.stack_mask();
        let value = self.read(Seg::Ss, esp & mask)?;
        self.state.gpr[gpr::ESP] = esp & !mask | esp.wrapping_add(T::SIZE) & mask;
        Ok(value)
    }

    /// All ones where the stack pointer has bits: SP or ESP.
    #[inline(always)]
    pub fn stack_mask(&self) -> u32 {
        if self.state.segment(Seg::Ss).big() { u32::MAX } else { 0xffff }
    }

    /// Remembers that instructions of `len` bytes (within one page) at `physical` are being kept:
    /// writes to them will appear in [`Vcpu::code`].
    pub fn mark_code(&mut self, physical: u64, len: u32) {
        if self.code.mark(physical, len) {
            let page = physical & !(PAGE_SIZE - 1);
            self.bus.mark_code(page);
            self.tlb.protect(page);
        }
    }

    /// Nothing of the page at `physical` is kept any more.
    pub fn unmark_code_page(&mut self, physical: u64) {
        if self.code.is_code_page(physical) && !self.code.is_pinned(physical) {
            self.code.clear_page(physical);
            self.bus.unmark_code(physical & !(PAGE_SIZE - 1));
        }
    }
}

/// In which of two consecutive pages the byte at `offset` from the first one's start is, and where.
fn byte_of<'a>(first: &'a Translation, second: &'a Translation, offset: u32) -> (&'a Translation, u32) {
    if offset < PAGE_SIZE as u32 { (first, offset) } else { (second, offset & OFFSET_MASK) }
}

macro_rules! named_access {
    ($type:ty, $read:ident, $write:ident, $modify:ident, $read_linear:ident, $write_linear:ident) => {
        impl<B: Bus> Vcpu<B> {
            #[doc = concat!("Reads a `", stringify!($type), "` at `seg:offset`.")]
            #[inline(always)]
            pub fn $read(&mut self, seg: Seg, offset: u32) -> Exec<$type> {
                self.read(seg, offset)
            }

            #[doc = concat!("Writes a `", stringify!($type), "` at `seg:offset`.")]
            #[inline(always)]
            pub fn $write(&mut self, seg: Seg, offset: u32, value: $type) -> Exec {
                self.write(seg, offset, value)
            }

            #[doc = concat!("[`Vcpu::read_for_write`] of a `", stringify!($type), "`.")]
            #[inline(always)]
            pub fn $modify(&mut self, seg: Seg, offset: u32) -> Exec<$type> {
                self.read_for_write(seg, offset)
            }

            #[doc = concat!("Reads a `", stringify!($type), "` with supervisor rights.")]
            #[inline(always)]
            pub fn $read_linear(&mut self, linear: u32) -> Exec<$type> {
                self.read_linear(linear)
            }

            #[doc = concat!("Writes a `", stringify!($type), "` with supervisor rights.")]
            #[inline(always)]
            pub fn $write_linear(&mut self, linear: u32, value: $type) -> Exec {
                self.write_linear(linear, value)
            }
        }
    };
}

named_access!(u8, read_u8, write_u8, modify_u8, read_linear_u8, write_linear_u8);
named_access!(u16, read_u16, write_u16, modify_u16, read_linear_u16, write_linear_u16);
named_access!(u32, read_u32, write_u32, modify_u32, read_linear_u32, write_linear_u32);
named_access!(u64, read_u64, write_u64, modify_u64, read_linear_u64, write_linear_u64);

/// #GP(0) unless `linear` is a multiple of 16: also for what lies outside the stack segment.
#[inline(always)]
fn demand_aligned(linear: u32) -> Exec {
    if linear & 15 == 0 { Ok(()) } else { Err(Fault::gp(0)) }
}

impl<B: Bus> Vcpu<B> {
    /// Reads 16 bytes at `seg:offset`, which must be a multiple of 16.
    #[inline(always)]
    pub fn read_aligned(&mut self, seg: Seg, offset: u32) -> Exec<Vector128> {
        demand_aligned(self.state.segment(seg).base().wrapping_add(offset))?;
        let linear = self.linear_for_read(seg, offset, Vector128::SIZE)?;
        self.read_linear_as(linear, self.mode)
    }

    /// Writes 16 bytes at `seg:offset`, which must be a multiple of 16.
    #[inline(always)]
    pub fn write_aligned(&mut self, seg: Seg, offset: u32, value: Vector128) -> Exec {
        demand_aligned(self.state.segment(seg).base().wrapping_add(offset))?;
        let linear = self.linear_for_write(seg, offset, Vector128::SIZE)?;
        self.write_linear_as(linear, value, self.mode)
    }
}

impl<B: Bus> Vcpu<B> {
    /// PUSH of a word.
    #[inline]
    pub fn push16(&mut self, value: u16) -> Exec {
        self.push(value)
    }

    /// PUSH of a dword.
    #[inline]
    pub fn push32(&mut self, value: u32) -> Exec {
        self.push(value)
    }

    /// POP of a word.
    #[inline]
    pub fn pop16(&mut self) -> Exec<u16> {
        self.pop()
    }

    /// POP of a dword.
    #[inline]
    pub fn pop32(&mut self) -> Exec<u32> {
        self.pop()
    }
}
