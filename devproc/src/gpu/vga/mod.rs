//! The graphics adapter: a VGA with Bochs VBE extensions, as PCI function 1234:1111.
//!
//! Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"; Bochs, "VBE
//! Display API"; QEMU, docs/specs/standard-vga.rst (PCI identity, BARs).
//!
//! - `registers.rs`, `ports.rs`: the register file and the ports that lead to it
//! - `memory.rs`, `window.rs`: what the CPU sees of display memory
//! - `scan.rs`, `text.rs`, `graphics.rs`, `palette.rs`, `timing.rs`, `picture.rs`: what the monitor sees
//!
//! The adapter decodes its VGA ports and windows without regard to the PCI command register, as
//! the boards and emulators do that firmware without PCI support runs on. Not modelled: the
//! vertical interrupt line (IRQ 2 is not wired on PCI boards; its status bit works), light pen,
//! feature connector, overscan, blinking in graphics modes, and latches loaded by reads of
//! directly mapped windows (leaving such a mode, they hold what the last trapped read left).

pub(crate) mod graphics;
mod memory;
mod names;
pub(crate) mod palette;
mod picture;
mod ports;
mod registers;
mod scan;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod timing;
mod window;

use self::memory::{Pipeline, PlaneWord};
use self::picture::{Picture, Source};
use self::registers::Registers;
use self::state::{VgaState, part};
use self::window::{Window, Windows};
use crate::device::{
    ALL_PARTS, Access, Backing, Device, Frame, IoError, MirrorSlot, Parts, ReadResult, Region, RegionId,
    Register, ResetKind, StateError, Width, WriteResult, Writes, load_state, save_parts,
};
use crate::gpu::vbe::{Dispi, edid, spec as vbe_spec};
use crate::host::Host;
use crate::pack::pack;
use crate::pci::{self, Bar, PciAddress, PciConfig, PciIdentity};
use ipc::raster::Raster;
use ipc::time::VirtualTime;

/// Where the adapter is on the PCI bus.
const PCI_ADDRESS: PciAddress = PciAddress::bus0(2, 0);
/// Index of the frame buffer's BAR.
const BAR_LFB: usize = 0;
/// Index of the registers' BAR.
const BAR_MMIO: usize = 2;

/// Device memory: the ROM follows the display memory, ...
const ROM_OFFSET: usize = vbe_spec::VRAM_LEN;
/// ... then the text window, ...
const TEXT_OFFSET: usize = ROM_OFFSET + vbe_spec::ROM_LEN;
/// ... and what the planes held when the text window was opened.
const TEXT_BASE_OFFSET: usize = TEXT_OFFSET + TEXT_LEN;
/// Length of the text window.
const TEXT_LEN: usize = spec::WINDOW_B_LEN as usize;
/// Length of the device memory.
const MEMORY_LEN: usize = TEXT_BASE_OFFSET + TEXT_LEN;

/// The model's regions.
mod region {
    use super::RegionId;
    pub(super) const WINDOW_A: RegionId = RegionId(0);
    pub(super) const WINDOW_B0: RegionId = RegionId(1);
    pub(super) const WINDOW_B8: RegionId = RegionId(2);
    pub(super) const LFB: RegionId = RegionId(3);
    pub(super) const MMIO: RegionId = RegionId(4);
    pub(super) const ROM: RegionId = RegionId(5);
    pub(super) const CRTC_MONO: RegionId = RegionId(6);
    pub(super) const STATUS_MONO: RegionId = RegionId(7);
    pub(super) const ATTRIBUTE: RegionId = RegionId(8);
    pub(super) const MISC: RegionId = RegionId(9);
    pub(super) const SEQUENCER: RegionId = RegionId(10);
    pub(super) const DAC: RegionId = RegionId(11);
    pub(super) const READ_BACK: RegionId = RegionId(12);
    pub(super) const GRAPHICS: RegionId = RegionId(13);
    pub(super) const CRTC_COLOR: RegionId = RegionId(14);
    pub(super) const STATUS_COLOR: RegionId = RegionId(15);
    pub(super) const DISPI: RegionId = RegionId(16);

    /// All of them; memory regions come first.
    pub(super) const ALL: [RegionId; 17] = [
        WINDOW_A,
        WINDOW_B0,
        WINDOW_B8,
        LFB,
        MMIO,
        ROM,
        CRTC_MONO,
        STATUS_MONO,
        ATTRIBUTE,
        MISC,
        SEQUENCER,
        DAC,
        READ_BACK,
        GRAPHICS,
        CRTC_COLOR,
        STATUS_COLOR,
        DISPI,
    ];
    /// The windows, and the registers whose treatment depends on whether a window is direct.
    pub(super) const FOLLOW_WINDOWS: [RegionId; 6] =
        [WINDOW_A, WINDOW_B0, WINDOW_B8, MISC, SEQUENCER, GRAPHICS];
    /// Regions that PCI configuration moves.
    pub(super) const BARS: [RegionId; 3] = [LFB, MMIO, ROM];
}

/// Mirror cells: a byte register each.
mod cell {
    use super::MirrorSlot;
    pub(super) const READ_BACK: MirrorSlot = MirrorSlot(0);
    pub(super) const SEQUENCER: MirrorSlot = MirrorSlot(3);
    pub(super) const GRAPHICS: MirrorSlot = MirrorSlot(5);
    pub(super) const CRTC_MONO: MirrorSlot = MirrorSlot(7);
    pub(super) const CRTC_COLOR: MirrorSlot = MirrorSlot(9);
    pub(super) const STATUS_MONO: MirrorSlot = MirrorSlot(11);
    pub(super) const STATUS_COLOR: MirrorSlot = MirrorSlot(12);
}

/// The parts of the device memory.
struct Layout<'a> {
    vram: &'a mut [u8],
    rom: &'a mut [u8],
    text: &'a mut [u8],
    text_base: &'a mut [u8],
}

impl<'a> Layout<'a> {
    /// `None` when the host gave less memory than was asked for.
    fn split(memory: &'a mut [u8]) -> Option<Self> {
        let (vram, rest) = memory.split_at_mut_checked(vbe_spec::VRAM_LEN)?;
        let (rom, rest) = rest.split_at_mut_checked(vbe_spec::ROM_LEN)?;
        let (text, rest) = rest.split_at_mut_checked(TEXT_LEN)?;
        let text_base = rest.get_mut(..TEXT_LEN)?;
        Some(Self { vram, rom, text, text_base })
    }
}

/// The adapter.
pub(crate) struct Vga {
    // What the board is made with.
    rom: Option<Vec<u8>>,
    edid: [u8; edid::EDID_LEN],

    // Follows from the state.
    pipeline: Pipeline,
    windows: Windows,
    picture: Picture,
    changed: Parts,
    /// A cell of input status register 1 says something.
    status_published: bool,
    /// How the bus makes accesses, as published.
    raster: Option<Raster>,

    // State.
    registers: Registers,
    latch: PlaneWord,
    interrupt_cleared: VirtualTime,
    dispi: Dispi,
    pci: PciConfig,
}

impl Vga {
    /// An adapter with the given option ROM (at most 64 KiB; the rest of its BAR reads FFh).
    pub fn new(rom: Option<Vec<u8>>) -> Self {
        let identity = PciIdentity {
            vendor: vbe_spec::VENDOR,
            device: vbe_spec::DEVICE,
            revision: vbe_spec::REVISION,
            class: vbe_spec::CLASS,
            subsystem: vbe_spec::SUBSYSTEM,
            multifunction: false,
            interrupt_pin: 0,
        };
        let mut bars = [Bar::None; 6];
        bars[BAR_LFB] = Bar::Memory { size: vbe_spec::VRAM_LEN as u32, prefetchable: true };
        bars[BAR_MMIO] = Bar::Memory { size: vbe_spec::MMIO_LEN as u32, prefetchable: false };
        let rom_len = if rom.is_some() { vbe_spec::ROM_LEN as u32 } else { 0 };
        let mut pci = PciConfig::new(identity, bars, rom_len);
        // Without an I/O BAR, but with VGA ports: drivers look at this bit to find the primary adapter.
        pci.allow16(pci::register::COMMAND, pci::command::IO_SPACE | pci::command::MEMORY_SPACE);
        let registers = Registers::power_on();
        let dispi = Dispi::power_on();
        let pipeline = Pipeline::decode(&registers);
        Self {
            rom,
            edid: edid::edid(),
            windows: Windows::decode(&registers, &pipeline, &dispi),
            pipeline,
            picture: Picture::default(),
            changed: ALL_PARTS,
            status_published: true,
            raster: None,
            registers,
            latch: 0,
            interrupt_cleared: VirtualTime::default(),
            dispi,
            pci,
        }
    }

    /// A region as it is at present.
    fn region(&self, id: RegionId) -> Region {
        use spec::port;
        // A write that can end a direct mapping must have done so before the guest's next store
        // goes through that mapping. The other direction may come late: the store is trapped then,
        // and lands in the same place.
        let control = if self.windows.any_direct() { Writes::Sync } else { Writes::PostedLocal };
        let ports = |name, first, len| Region::ports(id, name, first, len).writes(Writes::PostedLocal);
        match id {
            region::WINDOW_A => {
                self.window_region(id, "vga-a0000", spec::WINDOW_A_BASE, spec::WINDOW_A_LEN, self.windows.a)
            }
            region::WINDOW_B0 => {
                self.window_region(id, "vga-b0000", spec::WINDOW_B0_BASE, spec::WINDOW_B_LEN, self.windows.b0)
            }
            region::WINDOW_B8 => {
                self.window_region(id, "vga-b8000", spec::WINDOW_B8_BASE, spec::WINDOW_B_LEN, self.windows.b8)
            }
            region::LFB => {
                let backing = Backing { offset: 0, writable: true };
                let len = vbe_spec::VRAM_LEN as u64;
                self.bar_region(Region::memory(id, "vga-lfb", 0, len).backed(backing), BAR_LFB)
            }
            region::MMIO => {
                let region = Region::memory(id, "vga-mmio", 0, vbe_spec::MMIO_LEN).writes(Writes::Sync);
                self.bar_region(region, BAR_MMIO)
            }
            region::ROM => {
                let backing = Backing { offset: ROM_OFFSET as u64, writable: false };
                let len = vbe_spec::ROM_LEN as u64;
                self.bar_region(Region::memory(id, "vga-rom", 0, len).backed(backing), pci::ROM_INDEX)
            }
            region::CRTC_MONO => {
                ports("vga-crtc-mono", port::CRTC_INDEX_MONO, 2).width(Width::Word).mirrored(cell::CRTC_MONO)
            }
            region::STATUS_MONO => ports("vga-status-mono", port::STATUS_1_MONO, 1).timed(cell::STATUS_MONO),
            region::ATTRIBUTE => ports("vga-attribute", port::ATTRIBUTE, 2),
            region::MISC => ports("vga-misc", port::MISC_OUTPUT_WRITE, 2).writes(control),
            region::SEQUENCER => ports("vga-sequencer", port::SEQUENCER_INDEX, 2)
                .width(Width::Word)
                .writes(control)
                .mirrored(cell::SEQUENCER),
            region::DAC => ports("vga-dac", port::PEL_MASK, 4).writes(Writes::Joined),
            region::READ_BACK => {
                ports("vga-read-back", port::FEATURE_CONTROL_READ, 3).mirrored(cell::READ_BACK)
            }
            region::GRAPHICS => ports("vga-graphics", port::GRAPHICS_INDEX, 2)
                .width(Width::Word)
                .writes(control)
                .mirrored(cell::GRAPHICS),
            region::CRTC_COLOR => {
                ports("vga-crtc", port::CRTC_INDEX_COLOR, 2).width(Width::Word).mirrored(cell::CRTC_COLOR)
            }
            region::STATUS_COLOR => ports("vga-status", port::STATUS_1_COLOR, 1).timed(cell::STATUS_COLOR),
            // Enabling a mode clears memory that the guest may write directly right after.
            _ => ports("vga-dispi", vbe_spec::INDEX_PORT, vbe_spec::PORT_COUNT)
                .width(Width::Word)
                .writes(Writes::Sync),
        }
    }

    fn window_region(&self, id: RegionId, name: &'static str, base: u64, len: u64, window: Window) -> Region {
        let region = Region::memory(id, name, base, len).writes(Writes::PostedLocal);
        match window {
            Window::Vram { offset } => region.backed(Backing { offset: offset.into(), writable: true }),
            Window::Text => region.backed(Backing { offset: TEXT_OFFSET as u64, writable: true }),
            // Only this one is large enough to be drawn in.
            Window::Planar { .. } if id == region::WINDOW_A => region.rastered(),
            Window::Planar { .. } | Window::Absent => region,
        }
    }

    fn bar_region(&self, region: Region, bar: usize) -> Region {
        match self.pci.bar(bar) {
            // Address 0 is what an unassigned BAR holds; RAM answers there.
            Some(mapping) if mapping.enabled && mapping.base != 0 => {
                Region { base: mapping.base.into(), ..region }
            }
            _ => region.disabled(),
        }
    }

    /// Brings the memory map in line with the registers. Called after every register write that
    /// can matter to it.
    fn remap(&mut self, host: &mut dyn Host) {
        self.pipeline = Pipeline::decode(&self.registers);
        let windows = Windows::decode(&self.registers, &self.pipeline, &self.dispi);
        let raster = self.raster_of(windows);
        if self.raster != raster {
            self.raster = raster;
            host.publish_raster(raster);
        }
        if windows == self.windows {
            return;
        }
        match (self.windows.text(), windows.text()) {
            (false, true) => window::open_text(host.device_memory()),
            (true, false) => window::close_text(host.device_memory()),
            _ => {}
        }
        self.windows = windows;
        for id in region::FOLLOW_WINDOWS {
            host.update_region(self.region(id));
        }
    }

    /// How the bus makes accesses to the window at A0000h.
    fn raster_of(&self, windows: Windows) -> Option<Raster> {
        match windows.a {
            Window::Planar { base } => self.pipeline.raster(base, self.plane_wrap()),
            _ => None,
        }
    }

    fn window_at(&self, id: RegionId) -> Window {
        match id {
            region::WINDOW_A => self.windows.a,
            region::WINDOW_B0 => self.windows.b0,
            _ => self.windows.b8,
        }
    }

    /// Plane length minus one.
    fn plane_wrap(&self) -> u32 {
        let len = if self.dispi.enabled() { vbe_spec::VRAM_LEN / spec::PLANES } else { spec::PLANE_LEN };
        len as u32 - 1
    }

    /// Reads consecutive bytes of a memory region.
    fn read_memory(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        let layout = Layout::split(host.device_memory()).ok_or(IoError::NoResponse)?;
        let offset = at.offset as usize;
        let from: &[u8] = match at.region {
            region::LFB => layout.vram.get(offset..).unwrap_or_default(),
            region::ROM => layout.rom.get(offset..).unwrap_or_default(),
            id => match self.window_at(id) {
                Window::Absent => return Err(IoError::NoResponse),
                Window::Text => layout.text.get(offset..).unwrap_or_default(),
                Window::Vram { offset: base } => {
                    layout.vram.get(base as usize + offset..).unwrap_or_default()
                }
                Window::Planar { base } => {
                    let wrap = self.plane_wrap();
                    let mut loaded = false;
                    for (n, byte) in data.iter_mut().enumerate() {
                        let address = base.wrapping_add((offset + n) as u32);
                        let (latch, value) = self.pipeline.read(layout.vram, address, wrap);
                        loaded |= latch != self.latch;
                        self.latch = latch;
                        *byte = value;
                    }
                    if loaded {
                        self.changed |= part::REST;
                        host.publish_latch(self.latch);
                    }
                    return Ok(());
                }
            },
        };
        data.copy_from_slice(from.get(..data.len()).ok_or(IoError::NoResponse)?);
        Ok(())
    }

    /// Writes consecutive bytes of a memory region.
    fn write_memory(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        let layout = Layout::split(host.device_memory()).ok_or(IoError::NoResponse)?;
        let offset = at.offset as usize;
        let to: &mut [u8] = match at.region {
            region::LFB => layout.vram.get_mut(offset..).unwrap_or_default(),
            region::ROM => return Err(IoError::InvalidRegister),
            id => match self.window_at(id) {
                Window::Absent => return Err(IoError::NoResponse),
                Window::Text => layout.text.get_mut(offset..).unwrap_or_default(),
                Window::Vram { offset: base } => {
                    layout.vram.get_mut(base as usize + offset..).unwrap_or_default()
                }
                Window::Planar { base } => {
                    let wrap = self.plane_wrap();
                    for (n, byte) in data.iter().enumerate() {
                        let address = base.wrapping_add((offset + n) as u32);
                        self.pipeline.write(layout.vram, self.latch, address, wrap, *byte);
                    }
                    return Ok(());
                }
            },
        };
        to.get_mut(..data.len()).ok_or(IoError::NoResponse)?.copy_from_slice(data);
        Ok(())
    }

    fn publish_bars(&self, host: &mut dyn Host) {
        for id in region::BARS {
            host.update_region(self.region(id));
        }
    }

    fn is_memory(id: RegionId) -> bool {
        id <= region::ROM
    }
}

impl Device for Vga {
    fn name(&self) -> &'static str {
        "vga"
    }

    fn regions(&self) -> Vec<Region> {
        region::ALL.into_iter().map(|id| self.region(id)).collect()
    }

    fn pci_address(&self) -> Option<PciAddress> {
        Some(PCI_ADDRESS)
    }

    fn registers(&self) -> Vec<Register> {
        self.register_names()
    }

    fn selected(&self, at: Access, written: Option<u32>) -> Option<u32> {
        self.selected_register(at, written)
    }

    fn device_memory_len(&self) -> u64 {
        MEMORY_LEN as u64
    }

    fn attach(&mut self, host: &mut dyn Host) {
        if let (Some(rom), Some(layout)) = (&self.rom, Layout::split(host.device_memory())) {
            let (used, unused) = layout.rom.split_at_mut(rom.len().min(vbe_spec::ROM_LEN));
            used.copy_from_slice(&rom[..used.len()]);
            unused.fill(u8::MAX);
        }
        for id in region::ALL {
            host.update_region(self.region(id));
        }
        self.publish_registers(host);
        self.withdraw_status(host);
        self.raster = self.raster_of(self.windows);
        host.publish_raster(self.raster);
        host.publish_latch(self.latch);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let len = at.width.bytes() as usize;
        let mut bytes = [0; 4];
        match at.region {
            region::MMIO => return self.read_mmio(at, host),
            region::DISPI => return self.read_dispi(at),
            id if Self::is_memory(id) => self.read_memory(at, &mut bytes[..len], host)?,
            _ => {
                for (n, byte) in bytes[..len].iter_mut().enumerate() {
                    *byte = self.read_port(at.port().wrapping_add(n as u16), host)?;
                }
            }
        }
        Ok(u32::from_le_bytes(bytes))
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let bytes = value.to_le_bytes();
        let bytes = &bytes[..at.width.bytes() as usize];
        match at.region {
            region::MMIO => self.write_mmio(at, value, host),
            region::DISPI => self.write_dispi(at, value as u16, host),
            id if Self::is_memory(id) => self.write_memory(at, bytes, host),
            // OUT DX, AX to an index port: the index, then the data.
            _ => bytes
                .iter()
                .enumerate()
                .try_for_each(|(n, byte)| self.write_port(at.port().wrapping_add(n as u16), *byte, host)),
        }
    }

    fn read_burst(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        let linear = Self::is_memory(at.region) && at.region != region::MMIO;
        if linear {
            return self.read_memory(at, data, host);
        }
        let step = at.width.bytes();
        for (n, chunk) in data.chunks_exact_mut(step as usize).enumerate() {
            let value = self.read(self.burst_access(at, n), host)?;
            chunk.copy_from_slice(&value.to_le_bytes()[..step as usize]);
        }
        Ok(())
    }

    fn write_burst(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        let linear = Self::is_memory(at.region) && at.region != region::MMIO;
        if linear {
            return self.write_memory(at, data, host);
        }
        let step = at.width.bytes() as usize;
        for (n, chunk) in data.chunks_exact(step).enumerate() {
            let mut bytes = [0; 4];
            bytes[..step].copy_from_slice(chunk);
            self.write(self.burst_access(at, n), u32::from_le_bytes(bytes), host)?;
        }
        Ok(())
    }

    fn burst_advances(&self, at: Access) -> bool {
        Self::is_memory(at.region)
    }

    fn config_read(&mut self, register: u8, width: Width, _host: &mut dyn Host) -> u32 {
        self.pci.read(register, width)
    }

    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        let before = region::BARS.map(|id| self.region(id));
        self.pci.write(register, width, value);
        self.changed |= part::PCI;
        for (id, before) in region::BARS.into_iter().zip(before) {
            let after = self.region(id);
            if after != before {
                host.update_region(after);
            }
        }
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        self.registers = Registers::power_on();
        self.dispi = Dispi::power_on();
        self.latch = 0;
        host.publish_latch(self.latch);
        self.interrupt_cleared = host.now();
        self.pci.reset();
        self.changed = ALL_PARTS;
        self.withdraw_status(host);
        self.remap(host);
        self.publish_bars(host);
        self.publish_registers(host);
    }

    fn has_picture(&self) -> bool {
        true
    }

    fn render(&mut self, frame: &mut Frame, force: bool, host: &mut dyn Host) -> bool {
        let source = Source {
            registers: &self.registers,
            dispi: &self.dispi,
            text_window: self.windows.text(),
            now: host.now(),
        };
        self.picture.render(&source, host.device_memory(), frame, force)
    }

    fn state_version(&self) -> u16 {
        state::VERSION
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_parts(self, out);
    }

    fn latch_loaded(&mut self, latch: u32) {
        if self.latch != latch {
            self.changed |= part::REST;
            self.latch = latch;
        }
    }

    fn take_changed(&mut self) -> bool {
        self.take_changed_parts() != 0
    }

    fn parts(&self) -> usize {
        part::COUNT
    }

    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        match 1 << part {
            part::REGISTERS => self.registers.save(out),
            part::DAC => self.registers.dac.save_registers(out),
            part::REST => pack((self.latch, self.interrupt_cleared, &self.dispi), out),
            part::PCI => self.pci.save(out),
            _ => {
                if let Some(piece) = part::piece(part) {
                    self.registers.dac.save_piece(piece, out);
                }
            }
        }
    }

    fn take_changed_parts(&mut self) -> Parts {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != state::VERSION {
            return Err(StateError::Version { found: version, newest: state::VERSION });
        }
        let VgaState { registers, latch, interrupt_cleared, dispi, pci }: VgaState = {
            let state: VgaState = load_state(data)?;
            state.validate()?;
            state
        };
        if !self.pci.load(&pci) {
            return Err(StateError::OutOfRange("PCI configuration space"));
        }
        self.registers = registers;
        self.latch = latch;
        self.interrupt_cleared = interrupt_cleared;
        self.dispi = dispi;
        self.pipeline = Pipeline::decode(&self.registers);
        self.windows = Windows::decode(&self.registers, &self.pipeline, &self.dispi);
        self.picture = Picture::default();
        self.changed = ALL_PARTS;
        self.status_published = true;
        Ok(())
    }
}
