//! What the processor sees of the rest of the machine.

use ipc::time::VirtualTime;
use ipc::width::Width;
use std::ptr::NonNull;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// How the CPU may access one 4 KiB page of physical memory without asking the bus again.
///
/// A grant is valid until [`Bus::map_generation`] changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageGrant {
    /// Where the page's bytes can be read directly; `None`: every read goes through [`Bus::read_memory`].
    pub read: Option<NonNull<u8>>,
    /// Where they can be written directly (usually the same place); `None`: every write goes
    /// through [`Bus::write_memory`].
    pub write: Option<NonNull<u8>>,
    /// Whether decoded code of this page may be kept: it is guest RAM, whose other writers
    /// (device DMA) report what they write, or it is ROM, which nobody writes.
    pub cacheable_code: bool,
}

/// The processor's side of the machine: memory, ports, the interrupt pin and time.
///
/// Addresses are physical; the A20 gate has been applied by the CPU ([`Bus::a20_enabled`]).
/// Accesses through `read_memory` and `write_memory` never cross a page.
///
/// What a bus leaves out is not connected: nobody answers at ports or behind memory that is not granted, no line is ever asserted, nobody
/// else writes memory.
pub trait Bus {
    /// How the page at `address` (a multiple of [`PAGE_SIZE`]) can be reached directly.
    fn page(&mut self, address: u64) -> PageGrant;

    /// Changes whenever a [`PageGrant`] given earlier may no longer hold (also when the A20
    /// gate or the memory map changed). Cheap enough to look at between blocks.
    fn map_generation(&self) -> u64;

    /// Reads memory through the bus (device memory, or nobody: all ones).
    fn read_memory(&mut self, _address: u64, width: Width) -> u32 {
        width.mask()
    }

    /// Writes memory through the bus.
    fn write_memory(&mut self, _address: u64, _width: Width, _value: u32) {}

    /// IN. All ones where nobody answers.
    fn read_port(&mut self, _port: u16, width: Width) -> u32 {
        width.mask()
    }

    /// OUT.
    fn write_port(&mut self, _port: u16, _width: Width, _value: u32) {}

    /// REP INS: fills `data` (a multiple of `width`) from one port.
    fn read_port_string(&mut self, port: u16, width: Width, data: &mut [u8]) {
        let step = width.bytes() as usize;
        for chunk in data.chunks_exact_mut(step) {
            chunk.copy_from_slice(&self.read_port(port, width).to_le_bytes()[..step]);
        }
    }

    /// REP OUTS.
    fn write_port_string(&mut self, port: u16, width: Width, data: &[u8]) {
        let step = width.bytes() as usize;
        for chunk in data.chunks_exact(step) {
            let mut bytes = [0; 4];
            bytes[..step].copy_from_slice(chunk);
            self.write_port(port, width, u32::from_le_bytes(bytes));
        }
    }

    /// Whether address line 20 passes (true after the gate was opened).
    fn a20_enabled(&self) -> bool {
        true
    }

    /// Whether anything wants the CPU's attention between instructions: an interrupt (only when
    /// `interrupts_enabled`), a reset, a pause, a device's report of written code. One relaxed
    /// load; polled per block.
    fn attention(&self, _interrupts_enabled: bool) -> bool {
        false
    }

    /// Where an engine can see for itself that [`Bus::attention`] may have become true: a byte that is not zero then. Bit 0
    /// is that of an interrupt, which counts only while interrupts are enabled. It may be written by other processes, with anything.
    fn attention_byte(&self) -> Option<*const u8> {
        None
    }

    /// INTR is asserted.
    fn interrupt_pending(&self) -> bool {
        false
    }

    /// INTA cycle: the vector to deliver, or `None` when the request was withdrawn meanwhile.
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
    }

    /// Remembers that decoded code of the RAM page at `address` is being kept, so that device
    /// DMA into it is reported ([`Bus::take_written_code`]).
    fn mark_code(&mut self, _address: u64) {}

    /// Forgets [`Bus::mark_code`].
    fn unmark_code(&mut self, _address: u64) {}

    /// Next range of a marked page that something other than the CPU wrote: (address, length).
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        None
    }

    /// Virtual time now (the time-stamp counter counts it).
    fn now(&mut self) -> VirtualTime;

    /// Drives FERR#: an unmasked x87 exception is pending and CR0.NE is clear.
    fn set_ferr(&mut self, _asserted: bool) {}

    /// Whether IGNNE# is asserted: x87 instructions run although an exception is pending.
    fn ignne(&self) -> bool {
        false
    }
}
