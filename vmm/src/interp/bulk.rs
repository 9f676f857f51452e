//! Repeated MOVS, STOS, SCAS and CMPS on plain memory, many elements at a time.
//!
//! Only within one page of source and target, only forwards, and only where moving the elements one by one
//! would be the same: whatever is not plain RAM, could fault, or is watched goes the slow way.
#![expect(unsafe_code, reason = "copies between granted host pages")]

use super::op::Size;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::registers::Seg;
use crate::cpu::{Mode, Vcpu};

/// Fewer elements are moved faster one by one.
const WORTH_IT: u32 = 24;

/// A range of guest memory within one page that can be accessed directly.
struct Plain {
    host: *mut u8,
    bytes: u32,
}

/// Elements of size `S` from `offset` on that lie in one page and in the address size `A`.
fn contiguous<B: Bus, S: Size, A: Size>(cpu: &Vcpu<B>, segment: Seg, offset: u32) -> u32 {
    let linear = cpu.state.segment(segment).base().wrapping_add(offset);
    let in_page = PAGE_SIZE as u32 - linear % PAGE_SIZE as u32;
    in_page.min(A::MASK - offset) / (S::BITS / 8)
}

/// Direct access to `bytes` bytes, which lie in one page.
fn plain<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, bytes: u32, write: bool) -> Option<Plain> {
    let linear = if write {
        cpu.probe_write(segment, offset, bytes).ok()?;
        cpu.linear_for_write(segment, offset, bytes).ok()?
    } else {
        cpu.probe_read(segment, offset, bytes).ok()?;
        cpu.linear_for_read(segment, offset, bytes).ok()?
    };
    let physical = cpu.debug_translate(linear)?;
    if write && cpu.code.overlaps(physical, bytes) {
        return None;
    }
    let in_page = physical % PAGE_SIZE;
    if in_page + u64::from(bytes) > PAGE_SIZE {
        return None;
    }
    let grant = cpu.bus.page(physical - in_page);
    let page = if write { grant.write.filter(|_| grant.read == grant.write) } else { grant.read }?;
    // SAFETY: the grant is for a whole page, and `in_page` is less than its size.
    let host = unsafe { page.as_ptr().add(in_page as usize) };
    Some(Plain { host, bytes })
}

/// Whether elements may be moved without looking at each.
fn allowed<B: Bus>(cpu: &Vcpu<B>, count: u32) -> bool {
    count >= WORTH_IT && !cpu.data_is_watched() && cpu.mode() != Mode::UserAligned
}

/// Elements that may be done at once: how many of `count`, and how many bytes those are.
struct Batch {
    count: u32,
    bytes: u32,
}

/// How many of `count` elements of size `S` lie in one page at each of `places`. `None`: not enough to be worth it, or each must be looked at.
fn batch<B: Bus, S: Size, A: Size>(cpu: &Vcpu<B>, count: u32, places: &[(Seg, u32)]) -> Option<Batch> {
    if !allowed(cpu, count) {
        return None;
    }
    let in_page = |(segment, offset): &(Seg, u32)| contiguous::<B, S, A>(cpu, *segment, *offset);
    let count = places.iter().map(in_page).fold(count, u32::min);
    (count >= WORTH_IT).then_some(Batch { count, bytes: count * (S::BITS / 8) })
}

/// Copies up to `count` elements forwards from `source` to ES:`target`; the number copied.
pub fn copy<B: Bus, S: Size, A: Size>(
    cpu: &mut Vcpu<B>,
    segment: Seg,
    source: u32,
    target: u32,
    count: u32,
) -> u32 {
    let places = [(segment, source), (Seg::Es, target)];
    let Some(Batch { count, bytes }) = batch::<B, S, A>(cpu, count, &places) else { return 0 };
    let Some(from) = plain(cpu, segment, source, bytes, false) else { return 0 };
    let Some(to) = plain(cpu, Seg::Es, target, bytes, true) else { return 0 };
    let size = S::BITS / 8;
    // A target shortly behind its source repeats a pattern: no more than their distance at once.
    let distance = (to.host as usize).wrapping_sub(from.host as usize);
    let count = if distance < from.bytes as usize { distance as u32 / size } else { count };
    // SAFETY: both pointers are good for `bytes` bytes, of which no more are copied; `copy` allows
    // any overlap, and none that it would treat differently from single elements is left.
    unsafe { std::ptr::copy(from.host, to.host, (count * size) as usize) };
    count
}

/// Fills up to `count` elements at ES:`target` with `value`; the number written.
pub fn fill<B: Bus, S: Size, A: Size>(cpu: &mut Vcpu<B>, target: u32, value: u32, count: u32) -> u32 {
    let places = [(Seg::Es, target)];
    let Some(Batch { count, bytes }) = batch::<B, S, A>(cpu, count, &places) else { return 0 };
    let Some(to) = plain(cpu, Seg::Es, target, bytes, true) else { return 0 };
    for n in 0..count as usize {
        // SAFETY: `to.host` is good for `count` elements of `size` bytes; writes are unaligned ones.
        unsafe {
            match S::BITS / 8 {
                1 => to.host.add(n).write(value as u8),
                2 => to.host.cast::<u16>().add(n).write_unaligned((value as u16).to_le()),
                _ => to.host.cast::<u32>().add(n).write_unaligned(value.to_le()),
            }
        }
    }
    count
}

/// One element.
///
/// # Safety
/// `size` bytes can be read there.
unsafe fn element(at: *const u8, size: u32) -> u32 {
    // SAFETY: promised by the caller.
    unsafe {
        match size {
            1 => u32::from(at.read()),
            2 => u32::from(u16::from_le(at.cast::<u16>().read_unaligned())),
            _ => u32::from_le(at.cast::<u32>().read_unaligned()),
        }
    }
}

/// Skips elements at ES:`target` while they are `value` (`equal`), or are not: the number skipped, less than `count` and never the last
/// that is compared, which leaves flags.
pub fn scan<B: Bus, S: Size, A: Size>(
    cpu: &mut Vcpu<B>,
    target: u32,
    value: u32,
    count: u32,
    equal: bool,
) -> u32 {
    let places = [(Seg::Es, target)];
    let Some(Batch { count, bytes }) = batch::<B, S, A>(cpu, count, &places) else { return 0 };
    let Some(at) = plain(cpu, Seg::Es, target, bytes, false) else { return 0 };
    let size = S::BITS / 8;
    // SAFETY: `count` elements can be read at `at.host`.
    let differs = |n: &u32| unsafe { element(at.host.add((n * size) as usize), size) == value } != equal;
    (0..count - 1).find(differs).unwrap_or(count - 1)
}

/// The same for elements at `source` and ES:`target` that are compared with each other.
pub fn compare<B: Bus, S: Size, A: Size>(
    cpu: &mut Vcpu<B>,
    segment: Seg,
    source: u32,
    target: u32,
    count: u32,
    equal: bool,
) -> u32 {
    let places = [(segment, source), (Seg::Es, target)];
    let Some(Batch { count, bytes }) = batch::<B, S, A>(cpu, count, &places) else { return 0 };
    let Some(a) = plain(cpu, segment, source, bytes, false) else { return 0 };
    let Some(b) = plain(cpu, Seg::Es, target, bytes, false) else { return 0 };
    let size = S::BITS / 8;
    let differs = |n: &u32| {
        let at = (n * size) as usize;
        // SAFETY: `count` elements can be read at both.
        unsafe { (element(a.host.add(at), size) == element(b.host.add(at), size)) != equal }
    };
    (0..count - 1).find(differs).unwrap_or(count - 1)
}
