//! The board: the wiring of the virtual PC that crosses processes, as data in shared memory.
//!
//! Interrupt lines, the interrupt request to the CPU, ISA DMA channels, the A20, reset and power
//! lines, shadow-RAM switches, and the doorbells of the processes. Every process may write all of it, as any
//! chip on a real board drives its lines: what nobody but VMM and supervisor may say is on the [panel](crate::panel).
//! Everything is an atomic, so that a process that misbehaves can give wrong values, which
//! readers check, but can never break another one's memory safety.

// SAFETY: unsafe is the promise of `unsafe impl Shared` alone, that the layout is all atomics; it is made there.
#![expect(unsafe_code)]

use crate::doorbell::Doorbell;
pub use crate::interrupt::{ALL_LINES, InterruptRequest, Lines, PendingInterrupt};
use crate::panel::{PROCESS_SLOTS, VMM_SLOT};
use crate::segment::Shared;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// First word of a board: "VMSimBrd".
const BOARD_MAGIC: u64 = u64::from_le_bytes(*b"VMSimBrd");
/// First address of the area with shadow-RAM switches.
pub const SHADOW_BASE: u32 = 0xa_0000;
/// 4 KiB pages with shadow-RAM switches: A0000h to FFFFFh.
pub const SHADOW_PAGES: usize = 96;
/// Switch: reads of the page go to RAM.
pub const SHADOW_READ: u32 = 1 << 0;
/// Switch: writes to the page go to RAM.
pub const SHADOW_WRITE: u32 = 1 << 1;
const PAGE_SHIFT: u64 = 12;

/// Bits of [`Board::attention`]: why the vCPU should leave guest code.
pub mod attention {
    /// The interrupt controller asserts INTR.
    pub const INTR: u32 = 1 << 0;
    /// A reset was requested.
    pub const RESET: u32 = 1 << 1;
    /// The VM is to pause, or to end.
    pub const RUN_STATE: u32 = 1 << 2;
    /// A device wrote to a page that holds code.
    pub const CODE_WRITTEN: u32 = 1 << 3;
    /// A device published a changed memory map.
    pub const MAP: u32 = 1 << 4;
    /// Somebody wants to look at the guest, or a debugger has something to say.
    pub const DEBUG: u32 = 1 << 5;
    /// A device process has said that it is about to end.
    pub const PROCESS_ENDS: u32 = 1 << 6;
    /// The guest switches the machine off.
    pub const POWER: u32 = 1 << 7;
    /// All there are.
    pub const ALL: u32 = (1 << 8) - 1;
}

/// Why the machine is to be reset. The stronger has the greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ResetRequest {
    /// INIT#: only the CPU (8042 pulse, port 92h bit 0, RCR soft reset, triple fault).
    Cpu = 1,
    /// PCIRST#: the whole machine (RCR hard reset, the reset button).
    Machine = 2,
}

/// The part of the machine's wiring that is state and belongs to no process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// Bit n: source n opens the A20 gate.
    pub a20: u32,
    /// A reset that is requested: 0 none, else a [`ResetRequest`].
    pub reset_request: u32,
    /// Two words for each ISA DMA channel.
    pub dma: Vec<[u64; 2]>,
    /// DREQ of each channel.
    pub dreq: Vec<bool>,
    /// [`SHADOW_READ`] and [`SHADOW_WRITE`] of each page from [`SHADOW_BASE`] on.
    pub shadow: Vec<u8>,
}

/// The board. Created by the launcher, all zero but for the header.
#[repr(C)]
pub struct Board {
    /// [`BOARD_MAGIC`].
    magic: AtomicU64,
    /// A requested reset: 0 none, else a [`ResetRequest`].
    reset_request: AtomicU32,
    /// Not zero: the machine is to be switched off. See [`Board::request_power_off`].
    pub power_off_request: AtomicU32,
    /// Bit n: source n (`A20Source`) opens the A20 gate.
    a20: AtomicU32,
    /// Changes of the shadow switches or the A20 gate so far.
    map_generation: AtomicU32,
    /// See [`attention`].
    attention: crate::ring::Padded<AtomicU32>,
    /// The request to the CPU.
    pub intr: InterruptRequest,
    /// Interrupt lines.
    pub lines: Lines,
    /// ISA DMA channels, packed by [`Board::dma_channel`].
    dma: [[AtomicU64; 2]; 8],
    /// DREQ of each channel.
    dreq: [AtomicU32; 8],
    /// Shadow-RAM switches by page.
    shadow: [AtomicU32; SHADOW_PAGES],
    /// Each is rung when its process has something to do.
    doorbells: [Doorbell; PROCESS_SLOTS],
    /// Bit n: process n sleeps until time goes on.
    frozen_sleepers: AtomicU32,
}

// SAFETY: Board is repr(C) and consists of atomics and arrays and structs of atomics only.
unsafe impl Shared for Board {}

const _: () = {
    assert!(align_of::<Board>() <= 4096);
    assert!(size_of::<Board>() < 16 << 10);
};

impl Board {
    /// Writes the header. For the launcher, on fresh zeroed memory.
    pub fn initialise(&self) {
        self.magic.store(BOARD_MAGIC, Ordering::Release);
    }

    /// Whether it is a board.
    pub fn is_valid(&self) -> bool {
        self.magic.load(Ordering::Acquire) == BOARD_MAGIC
    }

    /// The doorbell of the process in `slot`.
    ///
    /// # Panics
    /// Beyond the last slot.
    #[inline]
    pub fn doorbell(&self, slot: usize) -> &Doorbell {
        &self.doorbells[slot]
    }

    /// Asks the vCPU to leave guest code for the reasons in `bits`, and wakes it.
    pub fn call_vcpu(&self, bits: u32) {
        // SYNC POINT attention: what the caller stored before is visible to the vCPU after it
        // has taken the bits.
        self.attention.0.fetch_or(bits, Ordering::Release);
        self.doorbells[VMM_SLOT].ring();
    }

    /// Wakes the processes that chose how long to sleep while time stood still ([`Board::sleeps_frozen`]), after it
    /// goes on.
    pub(crate) fn wake_frozen_sleepers(&self) {
        // SYNC POINT frozen sleepers: either we see the bit here, or the sleeper, who sets it
        // before it looks at the clock for the last time, sees the clock go on.
        let sleepers = self.frozen_sleepers.swap(0, Ordering::SeqCst);
        for (slot, doorbell) in self.doorbells.iter().enumerate() {
            if sleepers & 1 << slot != 0 {
                doorbell.ring();
            }
        }
    }

    /// Notes that process `slot` is about to sleep with a timer armed that does not move, as the
    /// clock stands still. Look at [`crate::clock::ClockView::changes`] after this once more.
    pub fn sleeps_frozen(&self, slot: usize) {
        self.frozen_sleepers.fetch_or(1 << (slot & 31), Ordering::SeqCst);
    }

    /// Wakes the processes that watch lines, but for `slot`.
    pub fn wake_watchers(&self, slot: usize) {
        let watchers = self.lines.watchers();
        let others = self.doorbells.iter().enumerate().filter(|(i, _)| *i != slot && watchers & 1 << i != 0);
        others.for_each(|(_, doorbell)| doorbell.ring());
    }

    /// Tells everybody to look at everything. For a process that goes on for another one, which
    /// may have died after it changed something and before it said so.
    pub fn announce(&self, slot: usize) {
        self.lines.announce();
        self.wake_watchers(slot);
        self.map_generation.fetch_add(1, Ordering::Release);
        self.call_vcpu(
            attention::MAP | attention::INTR | attention::RESET | attention::CODE_WRITTEN | attention::POWER,
        );
    }

    /// Lets go of what device process `slot` drives, because it is off the bus, and has the bus leave
    /// out its regions.
    pub fn disconnect(&self, slot: usize) {
        self.lines.release(slot);
        self.wake_watchers(slot);
        self.map_generation.fetch_add(1, Ordering::Release);
        self.call_vcpu(attention::RUN_STATE | attention::MAP);
    }

    /// Where the attention bits are, for code that polls them by itself.
    pub fn attention_address(&self) -> *const u32 {
        std::ptr::from_ref(&self.attention.0).cast()
    }

    /// Why the vCPU should leave guest code; 0 for no reason.
    #[inline]
    pub fn attention(&self) -> u32 {
        self.attention.0.load(Ordering::Relaxed)
    }

    /// Takes the attention bits in `bits`; returns which of them were set. vCPU only.
    pub fn take_attention(&self, bits: u32) -> u32 {
        self.attention.0.fetch_and(!bits, Ordering::Acquire) & bits
    }

    /// Asks for a reset; the stronger request wins.
    pub fn request_reset(&self, kind: ResetRequest) {
        self.reset_request.fetch_max(kind as u32, Ordering::Release);
        self.call_vcpu(attention::RESET);
    }

    /// Asks for the machine to be switched off.
    pub fn request_power_off(&self) {
        self.power_off_request.store(1, Ordering::Release);
        self.call_vcpu(attention::POWER);
    }

    /// Takes the request to switch the machine off: whether there was one. vCPU only.
    pub fn take_power_off(&self) -> bool {
        self.power_off_request.swap(0, Ordering::Acquire) != 0
    }

    /// What of the board is wiring of the machine, but for the lines, which belong to processes.
    pub fn wiring(&self) -> Wiring {
        let channels = (0..8).map(|channel| self.dma_channel(channel));
        let (dma, dreq) = channels.unzip();
        Wiring {
            a20: self.a20.load(Ordering::Acquire),
            reset_request: self.reset_request.load(Ordering::Acquire),
            dma,
            dreq,
            shadow: self.shadow.iter().map(|page| page.load(Ordering::Relaxed) as u8).collect(),
        }
    }

    /// Puts the wiring into a state from before. For the launcher, before anybody else looks.
    pub fn restore_wiring(&self, wiring: &Wiring) {
        self.a20.store(wiring.a20, Ordering::Release);
        self.reset_request.store(wiring.reset_request, Ordering::Release);
        for (channel, (words, dreq)) in (0..8).zip(wiring.dma.iter().zip(&wiring.dreq)) {
            self.set_dma_channel(channel, *words);
            self.set_dreq(channel, *dreq);
        }
        for (page, bits) in self.shadow.iter().zip(&wiring.shadow) {
            page.store(u32::from(*bits) & (SHADOW_READ | SHADOW_WRITE), Ordering::Relaxed);
        }
    }

    /// Takes the requested reset. vCPU only.
    pub fn take_reset_request(&self) -> Option<ResetRequest> {
        match self.reset_request.swap(0, Ordering::Acquire) {
            0 => None,
            1 => Some(ResetRequest::Cpu),
            _ => Some(ResetRequest::Machine),
        }
    }

    /// Opens or closes the A20 gate for one source. Calls the vCPU when the gate changed.
    pub fn set_a20(&self, source: u32, enabled: bool) {
        let bit = 1 << (source & 31);
        let old = if enabled {
            self.a20.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.a20.fetch_and(!bit, Ordering::AcqRel)
        };
        let new = if enabled { old | bit } else { old & !bit };
        if (old != 0) != (new != 0) {
            self.map_generation.fetch_add(1, Ordering::Release);
            self.call_vcpu(attention::MAP);
        }
    }

    /// Whether address line 20 passes.
    #[inline]
    pub fn a20_enabled(&self) -> bool {
        self.a20.load(Ordering::Relaxed) != 0
    }

    /// Closes the gate for every source: machine reset.
    pub fn reset_a20(&self) {
        for source in 0..32 {
            self.set_a20(source, false);
        }
    }

    /// Sets the shadow-RAM switches of the whole pages in `base..base + len`.
    pub fn set_shadow(&self, base: u32, len: u32, read_ram: bool, write_ram: bool) {
        let bits = if read_ram { SHADOW_READ } else { 0 } | if write_ram { SHADOW_WRITE } else { 0 };
        let mut changed = false;
        for (page, cell) in self.shadow.iter().enumerate() {
            let address = SHADOW_BASE + ((page as u32) << PAGE_SHIFT);
            if address >= base && address - base < len {
                changed |= cell.swap(bits, Ordering::Relaxed) != bits;
            }
        }
        if changed {
            self.map_generation.fetch_add(1, Ordering::Release);
            self.call_vcpu(attention::MAP);
        }
    }

    /// Shadow-RAM switches of the page at `address`; 0 outside A0000h-FFFFFh.
    pub fn shadow(&self, address: u64) -> u32 {
        let page = address.wrapping_sub(u64::from(SHADOW_BASE)) >> PAGE_SHIFT;
        self.shadow.get(page as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Changes of shadow switches and A20 gate so far.
    #[inline]
    pub fn map_generation(&self) -> u32 {
        self.map_generation.load(Ordering::Acquire)
    }

    /// The two packed words and DREQ of an ISA DMA channel (0-7).
    pub fn dma_channel(&self, channel: u8) -> ([u64; 2], bool) {
        let index = usize::from(channel & 7);
        let words = [0, 1].map(|i| self.dma[index][i].load(Ordering::Acquire));
        (words, self.dreq[index].load(Ordering::Acquire) != 0)
    }

    /// Sets the packed words of a channel; DREQ is the device's, see [`Board::set_dreq`].
    pub fn set_dma_channel(&self, channel: u8, words: [u64; 2]) {
        for (cell, word) in self.dma[usize::from(channel & 7)].iter().zip(words) {
            cell.store(word, Ordering::Release);
        }
    }

    /// Drives DREQ of a channel.
    pub fn set_dreq(&self, channel: u8, level: bool) {
        self.dreq[usize::from(channel & 7)].store(u32::from(level), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh board on the heap.
    fn zeroed_board() -> Box<Board> {
        // SAFETY: `Shared` says that all zeros is a valid Board; the layout is that of Board.
        unsafe { Box::<Board>::new_zeroed().assume_init() }
    }

    #[test]
    fn shadow_switches_cover_whole_ranges_and_call_the_vcpu_once_changed() {
        let board = zeroed_board();
        board.set_shadow(0xf_0000, 0x1_0000, true, false);
        assert_eq!(board.take_attention(u32::MAX), attention::MAP);
        assert_eq!(board.shadow(0xf_0000), SHADOW_READ);
        assert_eq!(board.shadow(0xf_ffff), SHADOW_READ);
        assert_eq!(board.shadow(0xe_f000), 0);
        assert_eq!(board.shadow(0x10_0000), 0);
        board.set_shadow(0xf_0000, 0x1_0000, true, false);
        assert_eq!(board.take_attention(u32::MAX), 0);
    }

    #[test]
    fn wiring_and_lines_that_are_put_back_are_those_from_before_and_no_line_rises_again() {
        let before = zeroed_board();
        before.set_a20(1, true);
        before.request_reset(ResetRequest::Cpu);
        before.set_dma_channel(2, [7, 8]);
        before.set_dreq(2, true);
        before.set_shadow(0xf_0000, 0x1000, true, false);
        before.lines.set_isa(4, 2, true);
        before.lines.set_isa(4, 2, false);
        before.lines.set_isa(4, 2, true);
        before.lines.set_pirq(3, 5, true);
        let after = zeroed_board();
        after.restore_wiring(&before.wiring());
        // The processes may have other slots.
        let held = [(1, before.lines.held_by(2)), (VMM_SLOT, before.lines.held_by(5))];
        after.lines.restore(&before.lines.all_edges(), &held);
        assert_eq!(after.wiring(), before.wiring());
        assert!(after.wiring().dreq[2] && after.a20_enabled());
        assert_eq!(after.lines.isa(), before.lines.isa());
        assert!(!after.lines.set_isa(4, 1, true), "a line that was held is held");
        assert_eq!(after.lines.held_by(VMM_SLOT), 1 << 19);
        assert_eq!(after.take_reset_request(), Some(ResetRequest::Cpu));
    }

    #[test]
    fn the_a20_gate_is_open_while_any_source_opens_it() {
        let board = zeroed_board();
        board.set_a20(0, true);
        board.set_a20(1, true);
        board.set_a20(0, false);
        assert!(board.a20_enabled());
        board.set_a20(1, false);
        assert!(!board.a20_enabled());
    }
}
