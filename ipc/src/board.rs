//! The board: the wiring of the virtual PC that crosses processes, as data in shared memory.
//!
//! Interrupt lines, the interrupt request to the CPU, ISA DMA channels, the A20 and reset
//! lines, shadow-RAM switches, the bitmap of pages that hold code, the process table.
//! Everything is an atomic, so that a process that misbehaves can give wrong values, which
//! readers check, but can never break another one's memory safety.

#![expect(unsafe_code)] // For `unsafe impl Shared`: the promise that the layout is all atomics.

use crate::clock::SharedClock;
use crate::doorbell::Doorbell;
use crate::segment::Shared;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// First word of a board: "VMSimBrd".
pub const BOARD_MAGIC: u64 = u64::from_le_bytes(*b"VMSimBrd");
/// Device processes per VM.
pub const MAX_DEVICES: usize = 12;
/// Process slot of the VMM; devices have 0 to [`MAX_DEVICES`] - 1.
pub const VMM_SLOT: usize = MAX_DEVICES;
/// Process slots in all.
pub const PROCESS_SLOTS: usize = MAX_DEVICES + 1;
/// Largest guest RAM, bytes.
pub const MAX_RAM: u64 = 2 << 30;
/// First address of the area with shadow-RAM switches.
pub const SHADOW_BASE: u32 = 0xa_0000;
/// 4 KiB pages with shadow-RAM switches: A0000h to FFFFFh.
pub const SHADOW_PAGES: usize = 96;
/// Switch: reads of the page go to RAM.
pub const SHADOW_READ: u32 = 1 << 0;
/// Switch: writes to the page go to RAM.
pub const SHADOW_WRITE: u32 = 1 << 1;
const PAGE_SHIFT: u64 = 12;
const CODE_WORDS: usize = (MAX_RAM >> PAGE_SHIFT) as usize / 64;

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
}

/// What the VM as a whole is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunState {
    /// Processes are being started.
    Starting = 0,
    /// Guest code runs.
    Running = 1,
    /// The user paused it.
    Paused = 2,
    /// It is ending.
    Stopping = 3,
}

impl RunState {
    fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Paused,
            3 => Self::Stopping,
            _ => Self::Starting,
        }
    }
}

/// State of the CPU, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VcpuState {
    /// Not running yet.
    Off = 0,
    /// Executes instructions.
    Running = 1,
    /// In HLT, waiting for an interrupt.
    Halted = 2,
    /// Stopped by a pause.
    Paused = 3,
    /// Waits for a device's answer.
    WaitsForDevice = 4,
    /// Shut down by a triple fault; a reset follows.
    Shutdown = 5,
}

impl VcpuState {
    /// From a word of the board; unknown values count as off.
    pub fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Halted,
            3 => Self::Paused,
            4 => Self::WaitsForDevice,
            5 => Self::Shutdown,
            _ => Self::Off,
        }
    }
}

/// Interrupt request lines. A line has one bit per device process that holds it.
#[repr(C, align(64))]
pub struct Lines {
    /// Bit n of word i: device process n asserts ISA IRQ i.
    isa: [AtomicU32; 16],
    /// Rising edges of each ISA IRQ so far.
    edges: [AtomicU32; 16],
    /// Bit n of word i: device process n asserts PCI PIRQ i.
    pirq: [AtomicU32; 4],
    /// Changes of any line so far.
    generation: AtomicU32,
    /// Bit n: device process n wants to be woken by changes.
    watchers: AtomicU32,
}

/// The interrupt request from the controller to the CPU, as one word:
/// bits 0-7 vector, 8 pending, 9 acknowledged, 16-23 model, 24-31 device process, 32-63 generation.
#[repr(C, align(64))]
pub struct InterruptRequest {
    word: AtomicU64,
}

const INTR_PENDING: u64 = 1 << 8;
const INTR_ACKNOWLEDGED: u64 = 1 << 9;

/// A published interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingInterrupt {
    /// Vector to deliver.
    pub vector: u8,
    /// Device process of the controller.
    pub process: u8,
    /// Model number of the controller in that process.
    pub model: u8,
}

/// One process of the VM.
#[repr(C, align(64))]
pub struct ProcessCell {
    /// Rung when the process has something to do.
    pub doorbell: Doorbell,
    /// Process ID; 0 when the slot has none.
    pub pid: AtomicU32,
    /// A `ProcessState`.
    pub state: AtomicU32,
    /// Times it was started again.
    pub restarts: AtomicU32,
    /// Counts main-loop rounds: a hung process is one whose count stands while it has work.
    pub heartbeat: AtomicU32,
}

/// State of a device process as it and the supervisor publish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessState {
    /// No such process.
    Absent = 0,
    /// Started, not attached yet.
    Starting = 1,
    /// Attached and serving.
    Ready = 2,
    /// It died; it will be started again.
    Restarting = 3,
    /// It died too often and is off the bus: reads give all ones.
    Offline = 4,
}

impl ProcessState {
    /// From a word of the board; unknown values count as absent.
    pub fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Starting,
            2 => Self::Ready,
            3 => Self::Restarting,
            4 => Self::Offline,
            _ => Self::Absent,
        }
    }
}

/// What the vCPU publishes about itself.
#[repr(C, align(64))]
pub struct VcpuCell {
    /// A [`VcpuState`].
    pub state: AtomicU32,
    /// Times the vCPU started to run guest code after a halt or pause: while it and the state
    /// stand still, no guest store can have happened.
    pub activity: AtomicU32,
    /// Instructions retired since power-on.
    pub instructions: AtomicU64,
    /// CS (bits 32-47) and EIP (0-31) where the vCPU last left guest code.
    pub cs_eip: AtomicU64,
    /// Virtual ns spent halted, for the speed display.
    pub halted_nanos: AtomicU64,
    /// Device process that the vCPU waits for, plus one; 0 for none.
    pub waits_for: AtomicU32,
    /// Host ns (CLOCK_MONOTONIC) since when it waits.
    pub waits_since: AtomicU64,
}

/// The board. Created by the launcher, all zero but for the header.
#[repr(C)]
pub struct Board {
    /// [`BOARD_MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::message::PROTOCOL_VERSION`].
    pub version: AtomicU32,
    /// A [`RunState`].
    run_state: AtomicU32,
    /// Guest RAM, bytes.
    pub ram_bytes: AtomicU64,
    /// Unix time (seconds) at virtual time zero.
    pub start_unix_seconds: AtomicU64,
    /// Accesses are logged by device processes while not zero.
    pub log_accesses: AtomicU32,
    /// Resets of the machine so far.
    pub resets: AtomicU32,
    /// Not zero: the guest switched the machine off.
    pub powered_off: AtomicU32,
    /// A requested reset: 0 none, 1 CPU, 2 machine (`ResetRequest`).
    reset_request: AtomicU32,
    /// Bit n: source n (`A20Source`) opens the A20 gate.
    a20: AtomicU32,
    /// Changes of the shadow switches or the A20 gate so far.
    map_generation: AtomicU32,
    /// The virtual clock.
    pub clock: SharedClock,
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
    /// The vCPU.
    pub vcpu: VcpuCell,
    /// The processes.
    pub processes: [ProcessCell; PROCESS_SLOTS],
    /// Displays attached at present.
    pub displays: AtomicU32,
    /// One bit per RAM page: decoded code of it is being kept.
    code: [AtomicU64; CODE_WORDS],
}

// SAFETY: Board is repr(C) and consists of atomics and arrays and structs of atomics only.
unsafe impl Shared for Board {}

const _: () = {
    assert!(align_of::<Board>() <= 4096);
    assert!(std::mem::offset_of!(Board, clock) == 64);
    assert!(size_of::<Board>() < 128 << 10);
    assert!(size_of::<ProcessCell>() == 128);
};

impl Board {
    /// Writes the header. For the launcher, on fresh zeroed memory.
    pub fn initialise(&self, ram_bytes: u64, start_unix_seconds: u64) {
        self.ram_bytes.store(ram_bytes, Ordering::Relaxed);
        self.start_unix_seconds.store(start_unix_seconds, Ordering::Relaxed);
        self.version.store(crate::message::PROTOCOL_VERSION, Ordering::Relaxed);
        self.clock.initialise(crate::clock::Freeze::Paused);
        self.magic.store(BOARD_MAGIC, Ordering::Release);
    }

    /// What the VM is told to do.
    pub fn run_state(&self) -> RunState {
        RunState::from_wire(self.run_state.load(Ordering::Acquire))
    }

    /// Tells the VM what to do, and the vCPU to look.
    pub fn set_run_state(&self, state: RunState) {
        self.run_state.store(state as u32, Ordering::Release);
        self.call_vcpu(attention::RUN_STATE);
    }

    /// Asks the vCPU to leave guest code for the reasons in `bits`, and wakes it.
    pub fn call_vcpu(&self, bits: u32) {
        // SYNC POINT attention: what the caller stored before is visible to the vCPU after it
        // has taken the bits.
        self.attention.0.fetch_or(bits, Ordering::Release);
        self.processes[VMM_SLOT].doorbell.ring();
    }

    /// Lets the clock go on after [`SharedClock::freeze`], and wakes every process: those that sleep
    /// until a timer is due chose how long while time stood still.
    pub fn thaw(&self, reason: crate::clock::Freeze) {
        self.clock.thaw(reason);
        for cell in &self.processes {
            cell.doorbell.ring();
        }
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

    /// The process cell of a slot, if there is such a slot.
    pub fn process(&self, slot: usize) -> Option<&ProcessCell> {
        self.processes.get(slot)
    }

    /// Asks for a reset (1 CPU, 2 machine); the stronger request wins.
    pub fn request_reset(&self, kind: u32) {
        self.reset_request.fetch_max(kind, Ordering::Release);
        self.call_vcpu(attention::RESET);
    }

    /// Takes the requested reset: 0 none, 1 CPU, 2 machine. vCPU only.
    pub fn take_reset_request(&self) -> u32 {
        self.reset_request.swap(0, Ordering::Acquire)
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

    fn code_bit(address: u64) -> Option<(usize, u64)> {
        let page = address >> PAGE_SHIFT;
        let word = (page / 64) as usize;
        (word < CODE_WORDS).then_some((word, 1 << (page % 64)))
    }

    /// Marks or unmarks the RAM page at `address` as holding decoded code. vCPU only.
    pub fn set_code(&self, address: u64, holds_code: bool) {
        if let Some((word, bit)) = Self::code_bit(address) {
            // SYNC POINT code: a device that writes after it saw no mark may be missed only if
            // the page was decoded later than that; the decoder then sees its bytes.
            if holds_code {
                self.code[word].fetch_or(bit, Ordering::SeqCst);
            } else {
                self.code[word].fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }

    /// Whether the RAM page at `address` holds decoded code.
    #[inline]
    pub fn holds_code(&self, address: u64) -> bool {
        Self::code_bit(address).is_some_and(|(word, bit)| self.code[word].load(Ordering::SeqCst) & bit != 0)
    }
}

impl Lines {
    /// Drives device process `slot`'s share of ISA IRQ `irq` (0-15). True when the line changed.
    pub fn set_isa(&self, irq: u8, slot: usize, level: bool) -> bool {
        let index = usize::from(irq & 15);
        let changed = drive(&self.isa[index], slot, level);
        if changed {
            if level {
                self.edges[index].fetch_add(1, Ordering::AcqRel);
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Drives device process `slot`'s share of PIRQ `pirq` (0-3). True when the line changed.
    pub fn set_pirq(&self, pirq: u8, slot: usize, level: bool) -> bool {
        let changed = drive(&self.pirq[usize::from(pirq & 3)], slot, level);
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Levels of the 16 ISA lines, and of the four PIRQs.
    pub fn levels(&self) -> (u16, u8) {
        let bits = |cells: &[AtomicU32]| {
            cells
                .iter()
                .enumerate()
                .fold(0, |bits, (i, cell)| bits | u16::from(cell.load(Ordering::Acquire) != 0) << i)
        };
        (bits(&self.isa), bits(&self.pirq) as u8)
    }

    /// Rising edges of each ISA line so far.
    pub fn edges(&self) -> [u32; 16] {
        std::array::from_fn(|i| self.edges[i].load(Ordering::Acquire))
    }

    /// Changes so far.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes device process `slot` one that is woken by changes.
    pub fn watch(&self, slot: usize) {
        self.watchers.fetch_or(1 << (slot & 31), Ordering::AcqRel);
    }

    /// Slots of the processes that are woken by changes, as bits.
    pub fn watchers(&self) -> u32 {
        self.watchers.load(Ordering::Acquire)
    }
}

/// True when the wired-OR level changed.
fn drive(cell: &AtomicU32, slot: usize, level: bool) -> bool {
    let bit = 1 << (slot & 31);
    let old =
        if level { cell.fetch_or(bit, Ordering::AcqRel) } else { cell.fetch_and(!bit, Ordering::AcqRel) };
    let new = if level { old | bit } else { old & !bit };
    (old != 0) != (new != 0)
}

impl InterruptRequest {
    /// Publishes (or withdraws) the controller's request. Does nothing while an acknowledge is
    /// on its way to the controller: it publishes again when it has dealt with that.
    /// True when the CPU should look.
    pub fn publish(&self, request: Option<u8>, process: u8, model: u8) -> bool {
        let mut old = self.word.load(Ordering::Relaxed);
        loop {
            if old & INTR_ACKNOWLEDGED != 0 {
                return false;
            }
            let generation = (old >> 32).wrapping_add(1) << 32;
            let source = u64::from(model) << 16 | u64::from(process) << 24;
            let pending = request.map_or(0, |vector| INTR_PENDING | u64::from(vector));
            let new = generation | source | pending;
            // SYNC POINT intr: pairs with the CPU's Acquire in `take`.
            match self.word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return request.is_some(),
                Err(found) => old = found,
            }
        }
    }

    /// Device process that published last.
    #[inline]
    pub fn process(&self) -> usize {
        (self.word.load(Ordering::Acquire) >> 24) as usize & 0xff
    }

    /// Whether a request is pending.
    #[inline]
    pub fn is_pending(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & INTR_PENDING != 0 && word & INTR_ACKNOWLEDGED == 0
    }

    /// CPU: takes the pending request, if there still is one. The controller must then be told.
    pub fn take(&self) -> Option<PendingInterrupt> {
        let mut old = self.word.load(Ordering::Acquire);
        loop {
            if old & INTR_PENDING == 0 || old & INTR_ACKNOWLEDGED != 0 {
                return None;
            }
            match self.word.compare_exchange_weak(
                old,
                old | INTR_ACKNOWLEDGED,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    return Some(PendingInterrupt {
                        vector: old as u8,
                        model: (old >> 16) as u8,
                        process: (old >> 24) as u8,
                    });
                }
                Err(found) => old = found,
            }
        }
    }

    /// Controller: the acknowledge has arrived; requests may be published again.
    pub fn acknowledge_arrived(&self) {
        self.word.fetch_and(!(INTR_PENDING | INTR_ACKNOWLEDGED), Ordering::AcqRel);
    }
}

/// Fresh zeroed board on the heap, for tests of other crates too.
#[doc(hidden)]
pub fn zeroed_board() -> Box<Board> {
    // SAFETY: `Shared` says that all zeros is a valid Board; the layout is that of Board.
    unsafe { Box::<Board>::new_zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_line_falls_when_its_last_holder_lets_go() {
        let board = zeroed_board();
        assert!(board.lines.set_isa(5, 0, true));
        assert!(!board.lines.set_isa(5, 1, true));
        assert!(!board.lines.set_isa(5, 0, false));
        assert_eq!(board.lines.levels(), (1 << 5, 0));
        assert!(board.lines.set_isa(5, 1, false));
        assert_eq!(board.lines.levels(), (0, 0));
        assert_eq!(board.lines.edges()[5], 1);
    }

    #[test]
    fn a_taken_request_stays_taken_until_the_controller_knows() {
        let board = zeroed_board();
        assert!(board.intr.publish(Some(0x08), 1, 2));
        assert_eq!(board.intr.take(), Some(PendingInterrupt { vector: 8, process: 1, model: 2 }));
        assert!(!board.intr.publish(Some(0x09), 1, 2));
        assert_eq!(board.intr.take(), None);
        board.intr.acknowledge_arrived();
        assert!(board.intr.publish(Some(0x09), 1, 2));
        assert!(board.intr.is_pending());
        board.intr.publish(None, 1, 2);
        assert_eq!(board.intr.take(), None);
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
