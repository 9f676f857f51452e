//! What a device model can do to the rest of the machine.
//!
//! The trait is implemented by the device host (over shared memory) and by
//! [`crate::testing::TestHost`] (in one process). Models see only this.

use crate::device::{CounterId, MirrorSlot, Region, RegionId, TimerId};
pub use ipc::board::ResetRequest;
use ipc::counter::{Counting, Latch};
use ipc::mirror::Mirrored;
use ipc::raster::Raster;
use ipc::time::VirtualTime;
use thiserror::Error;

/// A PCI interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IntxPin {
    /// INTA#.
    A = 0,
    /// INTB#.
    B = 1,
    /// INTC#.
    C = 2,
    /// INTD#.
    D = 3,
}

/// Who holds an input of the machine's A20 gate (they are ORed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum A20Source {
    /// Port 92h bit 1.
    Port92 = 0,
    /// 8042 output port bit 1.
    Keyboard = 1,
}

/// Interrupt request lines as a controller sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqLines {
    /// Bit n: the level of ISA IRQ n (the OR of all sources).
    pub isa_levels: u16,
    /// Rising edges seen on each ISA IRQ since the VM started; wraps.
    pub isa_edges: [u32; 16],
    /// Bit n: PCI PIRQ n (A-D) is asserted.
    pub pirq_levels: u8,
}

/// Which way a DMA transfer goes, named from the device's side as the 8237 datasheet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DmaDirection {
    /// "Write transfer": device to memory.
    ToMemory,
    /// "Read transfer": memory to device.
    FromMemory,
    /// "Verify": addresses advance, nothing moves.
    Verify,
}

/// State of one ISA DMA channel. The 8237 model owns its programming, the device that uses
/// the channel advances it: it is wiring, shared by both (see `docs/protocol.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DmaChannel {
    /// Base address register (as programmed; words for channels 5-7).
    pub base_address: u16,
    /// Base count register (transfers minus one).
    pub base_count: u16,
    /// Current address register.
    pub current_address: u16,
    /// Current count register.
    pub current_count: u16,
    /// Page register: address bits 16-23.
    pub page: u8,
    /// Mode register (bits 7-2; the channel number is not kept).
    pub mode: u8,
    /// Mask bit: requests are ignored.
    pub masked: bool,
    /// Terminal count reached since the status register was last read.
    pub terminal_count: bool,
    /// DREQ is asserted by the device.
    pub request: bool,
}

/// How an ISA DMA transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaOutcome {
    /// Bytes moved (or counted, for verify). 0 when the channel is masked.
    pub bytes: usize,
    /// TC was signalled with the last byte.
    pub terminal_count: bool,
}

/// A guest physical range that a device may not reach.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("DMA to {address:#x}..+{len:#x} is outside guest RAM, or of what the device may reach of it")]
pub struct DmaError {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A serial port's cable. Positions count characters since the VM
/// started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SerialCable {
    /// Somebody is at the other end.
    pub connected: bool,
    /// Characters taken from what came in, by calls that have ended.
    pub taken: u64,
    /// Characters sent, by calls that have ended.
    pub sent: u64,
}

/// What a device model can do to the rest of the machine.
pub trait Host {
    /// Current virtual time. Constant within one call of the model.
    fn now(&self) -> VirtualTime;

    /// Calls [`crate::device::Device::timer`] at or soon after `deadline`; replaces an earlier deadline.
    fn arm_timer(&mut self, timer: TimerId, deadline: VirtualTime);

    /// Forgets a timer.
    fn cancel_timer(&mut self, timer: TimerId);

    /// Drives this model's connection to ISA IRQ `irq` (0-15). Lines of several models are ORed.
    /// A low-high change counts as one edge, also when the line falls again at once.
    fn set_irq(&mut self, irq: u8, level: bool);

    /// Drives an interrupt pin of this model's PCI function.
    fn set_intx(&mut self, pin: IntxPin, level: bool);

    /// Copies guest memory into `buffer`.
    ///
    /// # Errors
    /// [`DmaError`] when part of the range is not guest RAM that the device may read.
    fn dma_read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), DmaError>;

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    /// [`DmaError`], and nothing was written.
    fn dma_write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError>;

    /// Moves bytes over an ISA DMA channel as far as its count allows: into guest memory from
    /// `buffer`, or out of it, as the channel's mode says; advances the channel and signals TC.
    /// For [`DmaDirection::Verify`] the buffer is only counted.
    fn isa_dma(&mut self, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome;

    /// Drives DREQ of an ISA DMA channel.
    fn set_dreq(&mut self, channel: u8, level: bool);

    /// The device memory that [`crate::device::Device::device_memory_len`] asked for. It is
    /// shared with the guest and outlives the process.
    fn device_memory(&mut self) -> &mut [u8];

    /// Publishes a changed region (BAR moved, window switched, writes now posted). `region.id`
    /// names which. Takes effect for the guest with the completion of the current access.
    fn update_region(&mut self, region: Region);

    /// Sets a cell of the mirror page (see [`crate::device::Reads::Mirrored`]).
    fn publish_mirror(&mut self, slot: MirrorSlot, value: u32);

    /// Sets a cell of a region with [`crate::device::Reads::Timed`].
    fn publish_timed(&mut self, slot: MirrorSlot, content: Mirrored);

    /// Says how the bus makes accesses to the region with [`crate::device::Reads::Raster`] from the end of this access on; `None`:
    /// it asks the model. Its offset is one in [`Host::device_memory`].
    fn publish_raster(&mut self, raster: Option<Raster>);

    /// Says what the latch of that memory holds, after the model has changed it.
    fn publish_latch(&mut self, latch: u32);

    /// Says how a counter of the region with [`crate::device::Reads::Counters`] counts from the end of this call on, and what its
    /// latch holds: the bus latches and reads it by itself until the model says something else. `None`: it asks the model.
    fn publish_counter(&mut self, counter: CounterId, counting: Option<Counting>, latch: Latch);

    /// Completes an access that was answered with [`crate::device::IoError::Deferred`].
    /// `value` is ignored for writes.
    fn complete_deferred(&mut self, value: u32);

    /// Drives one input of the A20 gate.
    fn set_a20(&mut self, source: A20Source, enabled: bool);

    /// Asks for a reset. It happens after the current access has completed.
    fn request_reset(&mut self, reset: ResetRequest);

    /// Switches the machine off (ACPI soft-off); the VM ends with exit code 0.
    fn power_off(&mut self);

    /// Text from the guest for the debug console.
    fn debug_text(&mut self, byte: u8);

    // The rest is for the chipset's own models.

    /// The cable at serial port `port` (0 is COM1).
    fn serial_cable(&self, port: u8) -> SerialCable;

    /// The character at position `at` of what came in over the cable, if it has come.
    fn serial_peek(&self, port: u8, at: u64) -> Option<u8>;

    /// The characters before position `taken` are in the model's state and not needed any more.
    fn serial_taken(&mut self, port: u8, taken: u64);

    /// Writes the character at position `at` of what goes out; it goes with [`Host::serial_sent`].
    fn serial_put(&mut self, port: u8, at: u64, byte: u8);

    /// Sends the characters before position `sent`.
    fn serial_sent(&mut self, port: u8, sent: u64);

    /// The interrupt request lines of the machine.
    fn irq_lines(&self) -> IrqLines;

    /// Publishes the vector that the CPU is to take (INTR asserted), or withdraws it.
    fn set_interrupt_request(&mut self, vector: Option<u8>);

    /// Reads the state of ISA DMA channel 0-7.
    fn dma_channel(&self, channel: u8) -> DmaChannel;

    /// Writes the state of ISA DMA channel 0-7.
    fn set_dma_channel(&mut self, channel: u8, state: DmaChannel);

    /// Sets what the CPU reaches at shadow-RAM range `base..base+len` (multiples of 4096 between
    /// A0000h and FFFFFh): RAM or what lies behind it (ROM, devices), for reads and for writes.
    fn set_shadow_ram(&mut self, base: u32, len: u32, read_ram: bool, write_ram: bool);

    /// Says which of the model's regions is meant when it is not at its base: a helper for models
    /// that compute with their current map.
    fn region(&self, id: RegionId) -> Option<Region>;
}
