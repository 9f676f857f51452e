//! The machine's bus: routes the CPU's accesses to RAM, to memory that devices share, and to
//! device processes.
//!
//! It knows ranges and policies, not devices. What it decodes itself is PCI configuration mechanism #1,
//! because only the bus knows every function (`pci`), and the port that belongs to two of the processor's
//! pins (`coprocessor`).
//!
//! Order: accesses of one device stay in order in its ring. An access to one device waits
//! until posted writes to another have been handled ([`MachineBus::fence`]), so the guest can
//! never observe that they ran behind.

mod coprocessor;
mod counter;
mod link;
mod map;
mod pci;
mod raster;

pub use coprocessor::CoprocessorError;
pub use link::DeviceLink;
use map::MemoryMap;
use pci::ConfigMechanism;
use raster::RasterWindow;

use crate::cpu::bus::{Bus, PageGrant};
use ipc::board::{Board, attention};
use ipc::chassis::Chassis;
use ipc::message::{FLAG_JOINS, FLAG_POSTED, Kind, Message, Status};
use ipc::panel::{Panel, VMM_SLOT};
use ipc::region::{RegionInfo, WritePolicy};
use ipc::segment::Segment;
use ipc::time::VirtualTime;
use ipc::width::Width;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// A region of one of the links.
#[derive(Clone, Debug)]
pub struct BusRegion {
    /// Index of the link.
    pub link: usize,
    /// The region.
    pub info: RegionInfo,
}

/// What the bus itself remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusState {
    /// CONFIG_ADDRESS of PCI configuration mechanism #1.
    pub config_address: u32,
    /// The processor's error pins.
    pub coprocessor: CoprocessorError,
}

/// The bus of one VM.
pub struct MachineBus {
    chassis: Arc<Chassis>,
    links: Vec<DeviceLink>,
    map: MemoryMap,
    pci: ConfigMechanism,
    coprocessor: CoprocessorError,
    /// The region whose accesses are made here.
    raster: Option<RasterWindow>,
    /// Link with posted writes that other links' accesses must wait for.
    posted: Option<usize>,
    /// A posted write may not have woken its process yet, see [`MachineBus::settle_bells`].
    bells_owed: bool,
    generation: u64,
    board_map_seen: u32,
    written_code: VecDeque<(u64, u64)>,
    /// CS and EIP of the access in progress, for traces; set by the monitor.
    guest: (u16, u32),
}

impl MachineBus {
    /// A bus with the given RAM and links.
    pub fn new(chassis: Arc<Chassis>, ram: Segment, links: Vec<DeviceLink>) -> Self {
        let mut bus = Self {
            map: MemoryMap::new(ram),
            chassis,
            links,
            pci: ConfigMechanism::default(),
            coprocessor: CoprocessorError::default(),
            raster: None,
            posted: None,
            bells_owed: false,
            generation: 1,
            board_map_seen: 0,
            written_code: VecDeque::new(),
            guest: (0, 0),
        };
        bus.rebuild();
        bus
    }

    /// The board.
    #[inline]
    pub fn board(&self) -> &Board {
        self.chassis.board()
    }

    /// The panel.
    #[inline]
    pub fn panel(&self) -> &Panel {
        self.chassis.panel()
    }

    /// Board and panel.
    pub fn chassis(&self) -> &Chassis {
        &self.chassis
    }

    /// Has the guest wait for device processes that have said that they are about to end: without their timers it
    /// would see time go on that nobody counts.
    pub fn wait_for_ending(&mut self) {
        for link in &mut self.links {
            link.wait_for_return(&self.chassis, &mut self.written_code);
        }
    }

    /// Rings the bells of processes that were sent posted writes. A posted write itself only
    /// wakes a process that it sees asleep: making sure costs a full memory fence, which is
    /// paid here, once per run of guest code.
    pub fn settle_bells(&mut self) {
        if std::mem::take(&mut self.bells_owed) {
            let board = self.chassis.board();
            self.links.iter_mut().for_each(|link| link.settle_bell(board));
        }
    }

    /// Where the guest is, for traces.
    #[inline]
    pub fn set_guest_position(&mut self, cs: u16, eip: u32) {
        self.guest = (cs, eip);
    }

    /// Resets every device process and the bus's own state.
    pub fn reset(&mut self) {
        self.board().reset_a20();
        self.pci = ConfigMechanism::default();
        self.coprocessor = CoprocessorError::default();
        self.drive_coprocessor_irq();
        for index in 0..self.links.len() {
            let request = Message { value: 1, ..Message::new(Kind::Reset) };
            self.call(index, request);
        }
        self.posted = None;
        self.rebuild();
    }

    /// Waits until every device has handled what was posted to it.
    pub fn settle(&mut self) {
        for index in 0..self.links.len() {
            self.drain(index);
        }
    }

    /// What the bus itself remembers.
    pub fn state(&self) -> BusState {
        BusState { config_address: self.pci.address(), coprocessor: self.coprocessor }
    }

    /// Takes over a state that was saved.
    pub fn load_state(&mut self, state: BusState) {
        self.pci.set_address(state.config_address);
        self.coprocessor = state.coprocessor;
        self.drive_coprocessor_irq();
    }

    /// Takes over what devices and chipset changed of the memory map, if anything.
    pub fn refresh_map(&mut self) {
        let moved = self.board().map_generation() != self.board_map_seen
            || self.links.iter().any(DeviceLink::map_changed);
        if moved {
            self.rebuild();
        }
    }

    fn drive_coprocessor_irq(&self) {
        let board = self.board();
        if board.lines.set_isa(coprocessor::IRQ, VMM_SLOT, self.coprocessor.irq()) {
            board.wake_watchers(VMM_SLOT);
        }
    }

    fn rebuild(&mut self) {
        // A map is only taken while its device has handled all that was posted: a later posted
        // write may change it again. So only what was drained here is read, and what was
        // published meanwhile is seen by the next look.
        for index in 0..self.links.len() {
            if self.links[index].map_changed() {
                self.drain(index);
                self.links[index].read_map();
            }
        }
        self.board_map_seen = self.board().map_generation();
        let mut regions = Vec::new();
        self.pci.clear();
        let panel = self.chassis.panel();
        for (index, link) in self.links.iter().enumerate().filter(|(_, link)| link.is_on_bus(panel)) {
            regions.extend(link.regions().iter().map(|info| BusRegion { link: index, info: info.clone() }));
            for (model, info) in link.models().iter().enumerate() {
                if let Some(address) = info.pci {
                    self.pci.register(address, index, model as u8);
                }
            }
        }
        self.raster = RasterWindow::find(&regions);
        self.map.set_regions(regions);
        self.generation += 1;
    }

    /// Waits until `index` has handled everything posted to it.
    fn drain(&mut self, index: usize) {
        if self.posted == Some(index) {
            self.posted = None;
        }
        self.links[index].drain(&self.chassis, &mut self.written_code);
    }

    /// Waits for posted writes of other links than `index`.
    #[inline]
    fn fence(&mut self, index: usize) {
        if let Some(other) = self.posted
            && other != index
        {
            self.drain(other);
        }
    }

    fn call(&mut self, index: usize, mut message: Message) -> Message {
        self.fence(index);
        message.guest = self.guest;
        message.time = self.panel().clock.now();
        let reply = self.links[index].call(&self.chassis, message, &mut self.written_code);
        if self.posted == Some(index) {
            self.posted = None;
        }
        if self.links[index].map_changed() || self.board().map_generation() != self.board_map_seen {
            self.rebuild();
        }
        reply
    }

    fn post(&mut self, index: usize, mut message: Message, local: bool) {
        self.fence(index);
        message.guest = self.guest;
        message.flags |= FLAG_POSTED;
        message.time = self.panel().clock.now();
        self.links[index].post(&self.chassis, message, &mut self.written_code);
        self.bells_owed = true;
        if !local {
            self.posted = Some(index);
        }
    }

    fn request(region: &BusRegion, kind: Kind, width: Width, address: u64) -> Message {
        Message { model: region.info.model, region: region.info.region, width, address, ..Message::new(kind) }
    }

    fn read_region(&mut self, slot: usize, address: u64, width: Width) -> u32 {
        let region = self.map.region(slot);
        if splits(&region.info, address, width) {
            let half = half(width);
            let memory = region.info.is_memory;
            let low = self.read_space(memory, address, half);
            let high = self.read_space(memory, address + u64::from(half.bytes()), half);
            return low | high << (8 * half.bytes());
        }
        let link = region.link;
        if region.info.counters && width == Width::Byte {
            let register = address - region.info.base;
            if let Some(byte) = self.counter_byte(link, register) {
                return byte.into();
            }
        }
        let region = self.map.region(slot);
        if let Some(ticks) = &region.info.ticks {
            // (Only the time changes it: nothing that is on its way to the device.)
            let now = || self.panel().clock.now();
            if let Some(value) = ticks.read(address - region.info.base, width, now) {
                return value;
            }
        }
        if let Some(first) = region.info.mirror {
            let cell = mirror_cell(&region.info, first, address);
            if let Some(value) = self.mirrored(link, cell, width) {
                return value;
            }
        }
        let region = self.map.region(slot);
        let message = Self::request(region, Kind::Read, width, address);
        let reply = self.call(link, message);
        if reply.status == Status::Done { reply.value as u32 & width.mask() } else { width.mask() }
    }

    /// Whether an access is one that is made here. The device has then done with all that came before.
    #[inline]
    fn is_made_here(&mut self, address: u64, width: Width, write: bool) -> bool {
        let Some(window) = &mut self.raster else { return false };
        let (link, bytes) = (window.link, width.bytes());
        if !window.holds(address, bytes) || self.chassis.board().shadow(address) != 0 {
            return false;
        }
        if self.links[link].has_pending() {
            if write && window.sends() {
                return false;
            }
            self.drain(link);
        }
        self.fence(link);
        self.raster.as_mut().is_some_and(|window| window.follow(&self.links[link]))
    }

    /// What the mirror page says, if it does, once everything that was posted has been handled.
    #[inline]
    fn mirrored(&mut self, link: usize, first: usize, width: Width) -> Option<u32> {
        self.fence(link);
        if self.links[link].has_pending() {
            self.drain(link);
        }
        let clock = &self.panel().clock;
        // (What was true a moment ago may still be read.)
        let now = || clock.glance().unwrap_or_else(|| clock.now());
        let byte = |n: u32| Some(u32::from(self.links[link].mirror(first + n as usize).get(now)?) << (8 * n));
        (0..width.bytes()).try_fold(0, |value, n| Some(value | byte(n)?))
    }

    /// What a read of a counter gives when it is made here, once everything that was posted has been handled.
    #[inline]
    fn counter_byte(&mut self, link: usize, register: u64) -> Option<u8> {
        self.fence(link);
        if self.links[link].has_pending() {
            self.drain(link);
        }
        let clock = &self.chassis.panel().clock;
        self.links[link].read_counter(register, || clock.now())
    }

    /// Whether a write is one that latches a counter, and was made here. Behind others it is sent.
    #[inline]
    fn latches_counter(&mut self, link: usize, register: u64, byte: u8) -> bool {
        if self.links[link].has_pending() {
            return false;
        }
        self.fence(link);
        let clock = &self.chassis.panel().clock;
        self.links[link].write_counter(register, byte, || clock.now())
    }

    fn write_region(&mut self, slot: usize, address: u64, width: Width, value: u32) {
        let region = self.map.region(slot);
        if splits(&region.info, address, width) {
            let half = half(width);
            let memory = region.info.is_memory;
            self.write_space(memory, address, half, value & half.mask());
            let high = address + u64::from(half.bytes());
            self.write_space(memory, high, half, value >> (8 * half.bytes()) & half.mask());
            return;
        }
        let (link, writes) = (region.link, region.info.writes);
        if region.info.counters
            && width == Width::Byte
            && self.latches_counter(link, address - region.info.base, value as u8)
        {
            return;
        }
        let region = self.map.region(slot);
        let mut message = Self::request(region, Kind::Write, width, address);
        message.value = (value & width.mask()).into();
        match writes {
            WritePolicy::Sync => {
                self.call(link, message);
            }
            WritePolicy::Posted => self.post(link, message, false),
            WritePolicy::PostedLocal => self.post(link, message, true),
            WritePolicy::Joined => {
                self.fence(link);
                if !self.links[link].join(&message) {
                    message.flags |= FLAG_JOINS;
                    self.post(link, message, true);
                }
            }
        }
    }

    fn read_space(&mut self, memory: bool, address: u64, width: Width) -> u32 {
        if memory { self.read_memory(address, width) } else { self.read_port(address as u16, width) }
    }

    fn write_space(&mut self, memory: bool, address: u64, width: Width, value: u32) {
        if memory {
            self.write_memory(address, width, value);
        } else {
            self.write_port(address as u16, width, value);
        }
    }

    fn config_read(&mut self, port: u16, width: Width) -> u32 {
        let Some(target) = self.pci.target(port) else { return width.mask() };
        let message = Message {
            model: target.model,
            width,
            address: target.register.into(),
            ..Message::new(Kind::ConfigRead)
        };
        let reply = self.call(target.link, message);
        if reply.status == Status::Done { reply.value as u32 & width.mask() } else { width.mask() }
    }

    fn config_write(&mut self, port: u16, width: Width, value: u32) {
        let Some(target) = self.pci.target(port) else { return };
        let message = Message {
            model: target.model,
            width,
            address: target.register.into(),
            value: value.into(),
            ..Message::new(Kind::ConfigWrite)
        };
        self.call(target.link, message);
    }

    /// The region that takes a burst at `port`, when one message can carry it.
    fn burst_region(&self, port: u16, width: Width) -> Option<usize> {
        let slot = self.map.port(port)?;
        let info = &self.map.region(slot).info;
        (info.mirror.is_none() && !splits(info, port.into(), width)).then_some(slot)
    }
}

/// Whether an access must be split: too wide for the region, or reaching beyond it.
fn splits(region: &RegionInfo, address: u64, width: Width) -> bool {
    width != Width::Byte
        && (width > region.width || address + u64::from(width.bytes()) > region.base + region.len)
}

/// The mirror cell of an address, in a region whose first one is `first`.
fn mirror_cell(region: &RegionInfo, first: u16, address: u64) -> usize {
    usize::from(first) + (address - region.base) as usize
}

fn half(width: Width) -> Width {
    if width == Width::Dword { Width::Word } else { Width::Byte }
}

impl Bus for MachineBus {
    fn page(&mut self, address: u64) -> PageGrant {
        let shadow = self.board().shadow(address);
        self.map.page(address, shadow, &self.links)
    }

    #[inline]
    fn map_generation(&self) -> u64 {
        self.generation
    }

    fn read_memory(&mut self, address: u64, width: Width) -> u32 {
        if self.is_made_here(address, width, false)
            && let Some(window) = &self.raster
            && let Some(value) = window.read(&self.links[window.link], address, width.bytes())
        {
            return value;
        }
        let shadow = self.board().shadow(address);
        if let Some(value) = self.map.read_direct(address, width, shadow, &self.links) {
            return value;
        }
        match self.map.memory(address) {
            Some(slot) => self.read_region(slot, address, width),
            None => width.mask(),
        }
    }

    fn write_memory(&mut self, address: u64, width: Width, value: u32) {
        if self.is_made_here(address, width, true)
            && let Some(window) = &self.raster
            && window.write(&self.links[window.link], address, width.bytes(), value)
        {
            return;
        }
        let shadow = self.board().shadow(address);
        if self.map.write_direct(address, width, value, shadow, &self.links) {
            return;
        }
        if let Some(slot) = self.map.memory(address) {
            self.write_region(slot, address, width, value);
        }
    }

    fn read_port(&mut self, port: u16, width: Width) -> u32 {
        if pci::is_address_port(port, width) {
            return self.pci.address();
        }
        if pci::is_data_port(port) {
            return self.config_read(port, width);
        }
        match self.map.port(port) {
            Some(slot) => self.read_region(slot, port.into(), width),
            None if width == Width::Byte => Width::Byte.mask(),
            // Parts of a wide access may meet a device.
            None => {
                let half = half(width);
                let low = self.read_port(port, half);
                let high = self.read_port(port.wrapping_add(half.bytes() as u16), half);
                low | high << (8 * half.bytes())
            }
        }
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32) {
        if pci::is_address_port(port, width) {
            self.pci.set_address(value);
            return;
        }
        if pci::is_data_port(port) {
            self.config_write(port, width, value);
            return;
        }
        if port == coprocessor::ERROR_PORT {
            self.coprocessor.acknowledge();
            self.drive_coprocessor_irq();
            return;
        }
        match self.map.port(port) {
            Some(slot) => self.write_region(slot, port.into(), width, value),
            None if width == Width::Byte => {}
            None => {
                let half = half(width);
                self.write_port(port, half, value & half.mask());
                let high = value >> (8 * half.bytes());
                self.write_port(port.wrapping_add(half.bytes() as u16), half, high & half.mask());
            }
        }
    }

    fn read_port_string(&mut self, port: u16, width: Width, data: &mut [u8]) {
        let step = width.bytes() as usize;
        let slot =
            self.map.port(port).filter(|slot| !splits(&self.map.region(*slot).info, port.into(), width));
        let Some(slot) = slot else {
            for chunk in data.chunks_exact_mut(step) {
                chunk.copy_from_slice(&self.read_port(port, width).to_le_bytes()[..step]);
            }
            return;
        };
        let region = self.map.region(slot).clone();
        let link = region.link;
        if let Some(first) = region.info.mirror {
            // All at one moment, as in a message.
            if let Some(value) = self.mirrored(link, mirror_cell(&region.info, first, port.into()), width) {
                data.chunks_exact_mut(step)
                    .for_each(|chunk| chunk.copy_from_slice(&value.to_le_bytes()[..step]));
                return;
            }
        }
        for part in data.chunks_mut(ipc::link::PAYLOAD_BYTES) {
            let mut message = Self::request(&region, Kind::ReadBurst, width, port.into());
            message.payload = (0, part.len() as u32);
            let reply = self.call(link, message);
            if reply.status != Status::Done || !self.links[link].take_payload(part) {
                part.fill(0xff);
            }
        }
    }

    fn write_port_string(&mut self, port: u16, width: Width, data: &[u8]) {
        let Some(slot) = self.burst_region(port, width) else {
            let step = width.bytes() as usize;
            for chunk in data.chunks_exact(step) {
                let mut bytes = [0; 4];
                bytes[..step].copy_from_slice(chunk);
                self.write_port(port, width, u32::from_le_bytes(bytes));
            }
            return;
        };
        let region = self.map.region(slot).clone();
        let link = region.link;
        for part in data.chunks(ipc::link::PAYLOAD_BYTES) {
            let mut message = Self::request(&region, Kind::WriteBurst, width, port.into());
            message.payload = (0, part.len() as u32);
            // Waited for: the payload area is free again when it has been handled.
            if self.links[link].put_payload(part) {
                self.call(link, message);
            }
        }
    }

    #[inline]
    fn a20_enabled(&self) -> bool {
        self.board().a20_enabled()
    }

    #[inline]
    fn attention_byte(&self) -> Option<*const u8> {
        // All bits are in the lowest byte, which comes first on a little-endian host.
        Some(self.board().attention_address().cast())
    }

    #[inline]
    fn attention(&self, interrupts_enabled: bool) -> bool {
        let wanted = if interrupts_enabled { u32::MAX } else { !attention::INTR };
        self.board().attention() & wanted != 0
    }

    fn interrupt_pending(&self) -> bool {
        self.board().intr.is_pending()
    }

    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        // Posted writes to the controller (mask, end of interrupt) come before the acknowledge.
        for index in 0..self.links.len() {
            if self.links[index].is_interrupt_controller(self.board()) {
                self.drain(index);
            }
        }
        let taken = self.board().intr.take()?;
        let Some(index) = self.links.iter().position(|l| l.slot() == usize::from(taken.process)) else {
            // No process of ours can have published that, and none will deal with it.
            self.board().intr.acknowledge_arrived(taken.generation);
            return None;
        };
        let message = Message {
            model: taken.model,
            value: taken.vector.into(),
            address: taken.generation.into(),
            ..Message::new(Kind::InterruptAcknowledge)
        };
        // Not local: the handler's first access to its device waits until the controller has
        // taken the request out of its IRR. Otherwise that access could make the device raise
        // its line again before, and the acknowledge would swallow the new edge.
        self.post(index, message, false);
        Some(taken.vector)
    }

    fn mark_code(&mut self, address: u64) {
        if self.map.is_ram(address) {
            self.panel().set_code(address, true);
        }
    }

    fn unmark_code(&mut self, address: u64) {
        self.panel().set_code(address, false);
    }

    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        if self.board().attention() & attention::CODE_WRITTEN != 0 {
            self.board().take_attention(attention::CODE_WRITTEN);
            for link in &mut self.links {
                link.take_events(&mut self.written_code);
            }
        }
        // Ranges come from device processes: only what is RAM counts.
        let ram = self.map.ram_len();
        while let Some((address, len)) = self.written_code.pop_front() {
            let end = address.saturating_add(len).min(ram);
            if address < end {
                return Some((address, end - address));
            }
        }
        None
    }

    fn now(&mut self) -> VirtualTime {
        self.panel().clock.now()
    }

    fn set_ferr(&mut self, asserted: bool) {
        let irq = self.coprocessor.irq();
        self.coprocessor.set_ferr(asserted);
        if irq != self.coprocessor.irq() {
            self.drive_coprocessor_irq();
        }
    }

    fn ignne(&self) -> bool {
        self.coprocessor.ignne()
    }
}
