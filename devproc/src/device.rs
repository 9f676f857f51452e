//! The contract that every device model implements.
//!
//! A model is a state machine. It is called with one access, timer or event at a time, answers
//! with a typed result, and acts on the machine only through [`Host`]. After each call its
//! state may be saved, the process may die, and another process may go on from that state.
//! So: everything that matters for what happens next is in the saved state, and everything
//! that the outside sees (lines, mirrors, regions, timers) can be published again from it.

use crate::host::Host;
pub use crate::register::Register;
use ipc::counter::Latch;
use ipc::input::HostEvent;
use ipc::tick_register::TickRegister;
use ipc::time::VirtualTime;
pub use ipc::width::Width;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A model's own number for one of its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u8);

/// A model's own number for one of its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u8);

/// Index of a 32-bit cell in the device's mirror page (see [`Reads::Mirrored`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorSlot(pub u16);

/// A model's own number for one of its counters, below [`ipc::counter::MAX_COUNTERS`] (see [`Reads::Counters`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterId(pub u8);

/// The address space that a region lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// I/O ports, 0 to FFFFh.
    Port,
    /// Physical memory.
    Memory,
}

/// How the bus treats writes to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writes {
    /// The guest waits until the model has handled the write. For everything that changes
    /// what the CPU does next without a further access: memory map, A20, reset.
    Sync,
    /// The guest runs on at once. Any access to *another* device waits until this write has
    /// been handled, so the order across devices is kept.
    Posted,
    /// As `Posted`, but other devices' accesses do not wait: for writes whose effect only
    /// this device's own reads and interrupts can show (debug text, end of interrupt, VRAM).
    PostedLocal,
    /// As `PostedLocal`, and the model does not care when each was made: consecutive writes to one register may all come with the
    /// time of the first.
    Joined,
}

/// How the bus answers reads of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reads {
    /// Each read is a round trip to the model.
    Trap,
    /// Reads have no side effect, and the model keeps the current value of the byte at
    /// offset `n` in the mirror cell `first + n`, see [`Host::publish_mirror`]. The bus
    /// answers from there.
    Mirrored {
        /// Mirror cell of offset 0.
        first: MirrorSlot,
    },
    /// As `Mirrored`, while the cell says that its byte is true, see [`Host::publish_timed`]; otherwise a read is a round trip
    /// to the model, which publishes what the next ones give. For registers that follow time in a way that the model can tell
    /// in advance, and for those whose reads have side effects at times. A write to the device withdraws what it changes.
    Timed {
        /// Mirror cell of offset 0.
        first: MirrorSlot,
    },
    /// Memory whose reads *and writes* the bus makes by itself in the device memory, as [`Host::publish_raster`] says. At most one
    /// region of a process at a time.
    Raster,
    /// A register that only counts ticks of virtual time, which the bus reads by itself; other reads are as with `Trap`.
    Ticks(TickRegister),
    /// Counters that the bus latches and reads by itself, as [`Host::publish_counter`] says; other accesses are as with `Trap`. At
    /// most one model of a process has them.
    Counters,
}

/// Memory of the device that the guest accesses without a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backing {
    /// Where it starts in the device memory ([`Host::device_memory`]), a multiple of 4096.
    pub offset: u64,
    /// Whether guest writes go there too; if not, writes are trapped like any other.
    pub writable: bool,
}

/// A range of ports or memory that a model answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The model's number for it.
    pub id: RegionId,
    /// Name for messages and traces, such as `"pic1"`; at most 23 bytes of ASCII.
    pub name: &'static str,
    /// Which address space.
    pub space: Space,
    /// First port or physical address.
    pub base: u64,
    /// Number of ports or bytes, at least 1.
    pub len: u64,
    /// The widest access that the model takes; the bus splits wider ones, lowest address first.
    pub width: Width,
    /// How writes travel.
    pub writes: Writes,
    /// How reads are answered.
    pub reads: Reads,
    /// Direct memory behind the region, if any (memory regions only).
    pub backing: Option<Backing>,
    /// False while the region does not decode (a BAR before it is enabled).
    pub enabled: bool,
}

impl Region {
    /// A port range of byte-wide registers with posted writes and trapped reads.
    pub const fn ports(id: RegionId, name: &'static str, first: u16, len: u16) -> Self {
        Self {
            id,
            name,
            space: Space::Port,
            base: first as u64,
            len: len as u64,
            width: Width::Byte,
            writes: Writes::Posted,
            reads: Reads::Trap,
            backing: None,
            enabled: true,
        }
    }

    /// A memory range with posted writes and trapped reads of any width.
    pub const fn memory(id: RegionId, name: &'static str, base: u64, len: u64) -> Self {
        Self {
            id,
            name,
            space: Space::Memory,
            base,
            len,
            width: Width::Dword,
            writes: Writes::Posted,
            reads: Reads::Trap,
            backing: None,
            enabled: true,
        }
    }

    /// The same region with another widest access.
    pub const fn width(mut self, width: Width) -> Self {
        self.width = width;
        self
    }

    /// The same region with another treatment of writes.
    pub const fn writes(mut self, writes: Writes) -> Self {
        self.writes = writes;
        self
    }

    /// The same region with its reads answered from the mirror page, from cell `first` on.
    pub const fn mirrored(mut self, first: MirrorSlot) -> Self {
        self.reads = Reads::Mirrored { first };
        self
    }

    /// The same region with its reads answered from the mirror page while the cells there, from `first` on, say so.
    pub const fn timed(mut self, first: MirrorSlot) -> Self {
        self.reads = Reads::Timed { first };
        self
    }

    /// The same region with accesses made by the bus as a raster says.
    pub const fn rastered(mut self) -> Self {
        self.reads = Reads::Raster;
        self
    }

    /// The same region with a register that counts ticks.
    pub const fn ticking(mut self, register: TickRegister) -> Self {
        self.reads = Reads::Ticks(register);
        self
    }

    /// The same region with counters that the bus latches and reads while they are stated.
    pub const fn counted(mut self) -> Self {
        self.reads = Reads::Counters;
        self
    }

    /// The same region with direct memory behind it.
    pub const fn backed(mut self, backing: Backing) -> Self {
        self.backing = Some(backing);
        self
    }

    /// The same region, not decoding until [`Host::update_region`] enables it.
    pub const fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }
}

/// What of guest RAM a model reaches, see [`Device::dma`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dma {
    /// Nothing: it is no bus master.
    #[default]
    None,
    /// What lies below this address: the bus has no more address lines.
    Below(u64),
    /// Everything.
    Anywhere,
}

impl Dma {
    /// Over a channel of the 8237, which has 24 address lines.
    pub const ISA: Self = Self::Below(16 << 20);

    /// The address behind the last.
    pub const fn end(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Below(end) => end,
            Self::Anywhere => u64::MAX,
        }
    }
}

/// One access to a region, as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which of the model's regions.
    pub region: RegionId,
    /// Absolute port number or physical address.
    pub address: u64,
    /// `address` minus the region's base.
    pub offset: u64,
    /// How many bytes.
    pub width: Width,
}

impl Access {
    /// The port number. Only meaningful for a region in [`Space::Port`].
    pub const fn port(&self) -> u16 {
        self.address as u16
    }
}

/// Why a model gave no value. The bus, not the model, decides what the guest then reads.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum IoError {
    /// Nothing decodes at this offset, or not in this direction.
    #[error("No such register")]
    InvalidRegister,
    /// The register exists but not at this width or alignment.
    #[error("Register does not take this access width")]
    InvalidWidth,
    /// The device does not answer (powered down, disabled).
    #[error("Device does not respond")]
    NoResponse,
    /// The answer will be given later, through [`Host::complete_deferred`].
    #[error("Answer deferred")]
    Deferred,
}

/// What a model answers to a read.
pub type ReadResult = Result<u32, IoError>;

/// What a model answers to a write.
pub type WriteResult = Result<(), IoError>;

/// What kind of reset the machine goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetKind {
    /// Power-on: everything takes its power-on value.
    PowerOn,
    /// PCIRST# / reset button: what the datasheet says survives, survives.
    Hard,
}

/// Why saved state was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// The bytes are not a state of this version.
    #[error("Malformed state: {0}")]
    Malformed(String),
    /// The version is newer than this build or older than it can import.
    #[error("State version {found} is not one of the versions 1 to {newest} that this build can import")]
    Version {
        /// Version of the state offered.
        found: u16,
        /// Newest version that this build knows.
        newest: u16,
    },
    /// A value is outside what the device can be in.
    #[error("Value out of range in state: {0}")]
    OutOfRange(&'static str),
}

/// Parts of a model's state: bit n for part n, see [`Device::save_part`].
pub type Parts = u32;

/// Every part that there is.
pub const ALL_PARTS: Parts = Parts::MAX;

/// Serializes a model's state struct, or a part of it, (postcard) for [`Device::save`].
pub fn save_state<T: Serialize + ?Sized>(state: &T, out: &mut Vec<u8>) {
    // Into the room that there is, which is much quicker than by a vector that grows byte by byte.
    if crate::spare::save(state, out) {
        return;
    }
    let buffer = std::mem::take(out);
    // Writing to a growing Vec cannot fail, and state structs have no unserializable types;
    // should one appear, the empty state is refused by load, with a message.
    *out = postcard::to_extend(state, buffer).unwrap_or_default();
}

/// Reads back what [`save_state`] wrote, for [`Device::load`].
///
/// # Errors
/// [`StateError::Malformed`] when `data` is not exactly one `T`.
pub fn load_state<T: DeserializeOwned>(data: &[u8]) -> Result<T, StateError> {
    let (value, rest) = postcard::take_from_bytes(data).map_err(|e| StateError::Malformed(e.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(StateError::Malformed(format!("{} bytes left over", rest.len())))
    }
}

/// One picture of what the adapter sends to the monitor.
///
/// Pixels are `0x00RRGGBB`, row by row, without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height` pixels.
    pub pixels: Vec<u32>,
    /// The characters shown, when the adapter is in a text mode.
    pub text: Option<TextScreen>,
}

/// The characters of a text mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextScreen {
    /// Characters per row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
    /// `columns * rows` cells: character code (code page 437) in bits 0-7, VGA attribute in bits 8-15.
    pub cells: Vec<u16>,
    /// Column and row of the cursor, when it is shown.
    pub cursor: Option<(u16, u16)>,
}

/// A device model.
///
/// Only [`Device::name`], [`Device::save`] and [`Device::load`] must be written; the rest have
/// defaults that fit a device without that ability.
pub trait Device: Send {
    /// Short lower-case name, unique in its process, such as `"pic"`; at most 15 bytes.
    fn name(&self) -> &'static str;

    /// The regions that the model answers for, in their state right after construction.
    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

    /// The PCI function that the model implements, if any.
    fn pci_address(&self) -> Option<crate::pci::PciAddress> {
        None
    }

    /// How many bytes of device memory (video RAM, ROM) the model wants, 0 for none.
    /// Zero-filled when the VM starts; it survives the process.
    fn device_memory_len(&self) -> u64 {
        0
    }

    /// What of guest RAM the model reaches as a bus master. A process has what its models ask for, less what the
    /// machine file does not give it, and no other RAM.
    fn dma(&self) -> Dma {
        Dma::None
    }

    /// The registers by name, for traces, coverage and replays. Those of the PCI header are added.
    fn registers(&self) -> Vec<Register> {
        Vec::new()
    }

    /// For a register behind an index register: the index by which an access at `at` would reach it
    /// now. `written` is what a write carries: a wide one may set the index itself.
    fn selected(&self, at: Access, written: Option<u32>) -> Option<u32> {
        let _ = (at, written);
        None
    }

    /// Publishes all that the outside sees (line levels, mirrors, region changes, timers) from
    /// the current state. Called once before the first access, and again after [`Device::load`].
    fn attach(&mut self, host: &mut dyn Host) {
        let _ = host;
    }

    /// Reads from a region.
    ///
    /// # Errors
    /// See [`IoError`].
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let _ = (at, host);
        Err(IoError::InvalidRegister)
    }

    /// Writes to a region.
    ///
    /// # Errors
    /// See [`IoError`].
    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let _ = (at, value, host);
        Err(IoError::InvalidRegister)
    }

    /// REP INS from a port or a burst read of memory: fills `data` with accesses of `at.width`.
    ///
    /// # Errors
    /// That of the first access that failed; nothing is said of the others.
    fn read_burst(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        let step = at.width.bytes() as usize;
        for (i, chunk) in data.chunks_exact_mut(step).enumerate() {
            let value = self.read(burst_access(at, i, self.burst_advances(at)), host)?;
            chunk.copy_from_slice(&value.to_le_bytes()[..step]);
        }
        Ok(())
    }

    /// REP OUTS to a port or a burst write of memory.
    ///
    /// # Errors
    /// That of the first access that failed; the rest of the burst is dropped.
    fn write_burst(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        let step = at.width.bytes() as usize;
        for (i, chunk) in data.chunks_exact(step).enumerate() {
            let mut bytes = [0; 4];
            bytes[..step].copy_from_slice(chunk);
            self.write(burst_access(at, i, self.burst_advances(at)), u32::from_le_bytes(bytes), host)?;
        }
        Ok(())
    }

    /// Whether a burst at `at` walks through addresses (memory) or stays (a port).
    fn burst_advances(&self, at: Access) -> bool {
        self.regions().iter().any(|r| r.id == at.region && r.space == Space::Memory)
    }

    /// Reads the configuration space of [`Device::pci_address`]. `register` is a byte offset
    /// (0-255), aligned to `width`. Infallible: PCI configuration has defined answers.
    fn config_read(&mut self, register: u8, width: Width, host: &mut dyn Host) -> u32 {
        let _ = (register, host);
        width.mask()
    }

    /// Writes the configuration space. As for reads; always waited for.
    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        let _ = (register, width, value, host);
    }

    /// A timer that [`Host::arm_timer`] armed is due. `host.now()` is at or after its deadline.
    fn timer(&mut self, timer: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        let _ = (timer, deadline, host);
    }

    /// An interrupt request line of the machine changed. Only called on models that say so
    /// through [`Device::watches_lines`].
    fn lines_changed(&mut self, host: &mut dyn Host) {
        let _ = host;
    }

    /// Whether the model wants [`Device::lines_changed`] (an interrupt controller does).
    fn watches_lines(&self) -> bool {
        false
    }

    /// The CPU took `vector` (INTA cycle). Only sent to the model that published it.
    fn interrupt_acknowledged(&mut self, vector: u8, host: &mut dyn Host) {
        let _ = (vector, host);
    }

    /// Something happened outside the machine (key, mouse, serial cable). Every model of a process that is
    /// sent host events gets every one.
    fn host_event(&mut self, event: &HostEvent, host: &mut dyn Host) {
        let _ = (event, host);
    }

    /// The machine is reset. Afterwards the model publishes its lines, mirrors and timers as
    /// in [`Device::attach`].
    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host);

    /// Whether the model drives a monitor, so that [`Device::render`] is worth calling.
    fn has_picture(&self) -> bool {
        false
    }

    /// Draws what the monitor shows into `frame`, if anything may have changed since the last
    /// call; returns whether it drew. `force` draws in any case. Called at most 60 times a
    /// second, only for models with a picture.
    fn render(&mut self, frame: &mut Frame, force: bool, host: &mut dyn Host) -> bool {
        let _ = (frame, force, host);
        false
    }

    /// Version of the format that [`Device::save`] writes; starts at 1.
    fn state_version(&self) -> u16 {
        1
    }

    /// Appends the model's state to `out` (usually [`save_state`] of a plain struct).
    /// Called after every handled access that reported a change: keep it small and cheap.
    fn save(&self, out: &mut Vec<u8>);

    /// Appends the state in the format of an older `version`, for an older build that is to go on from it.
    /// False when this model cannot: then that build cannot take its place with the state kept.
    fn save_older(&self, version: u16, out: &mut Vec<u8>) -> bool {
        let _ = (version, out);
        false
    }

    /// The bus, which makes accesses to the model's [`Reads::Raster`] by itself, has loaded this into the latch meanwhile. Called
    /// before the next request, and before the state is saved for somebody else.
    fn latch_loaded(&mut self, latch: u32) {
        let _ = latch;
    }

    /// The bus, which latches and reads the model's counters by itself while they are stated, has left this in the latch of one.
    /// Called before any call in which the model acts, and before its state is saved for somebody else. A change of the state.
    fn counter_moved(&mut self, counter: CounterId, latch: Latch) {
        let _ = (counter, latch);
    }

    /// Whether the state may have changed since the last call to this method. A model that
    /// always says true is correct; one that knows better makes accesses cheaper.
    fn take_changed(&mut self) -> bool {
        true
    }

    /// How many parts the state has. What a message costs grows with the parts that it changes, so a model
    /// whose state is more than some hundred bytes says which those are.
    fn parts(&self) -> usize {
        1
    }

    /// Appends part `part` of the state to `out`. All parts, one after the other, are what [`Device::save`] writes.
    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        let _ = part;
        self.save(out);
    }

    /// Which parts may have changed since the last call to this method: what [`Device::take_changed`] says of
    /// the whole state.
    fn take_changed_parts(&mut self) -> Parts {
        if self.take_changed() { ALL_PARTS } else { 0 }
    }

    /// Takes over a state that `save` of `version` wrote. On error the model is unchanged.
    ///
    /// # Errors
    /// [`StateError`]; the data may come from an older build or a hostile process.
    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError>;
}

/// [`Device::save`] of a model with parts.
pub fn save_parts(model: &(impl Device + ?Sized), out: &mut Vec<u8>) {
    (0..model.parts()).for_each(|part| model.save_part(part, out));
}

fn burst_access(at: Access, index: usize, advances: bool) -> Access {
    let step = if advances { index as u64 * u64::from(at.width.bytes()) } else { 0 };
    Access { address: at.address + step, offset: at.offset + step, ..at }
}
