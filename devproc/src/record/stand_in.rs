//! The machine around a model that is replayed: answers from the recording, and gathers what the model does.

use super::deeds::{Doings, FIRST_PIN};
use super::format::{Deed, Learnt, Shown};
use crate::device::{CounterId, Device, MirrorSlot, Region, RegionId, TimerId};
use crate::host::{
    A20Source, DmaChannel, DmaDirection, DmaError, DmaOutcome, Host, IntxPin, IrqLines, ResetRequest,
    SerialCable,
};
use crate::isa_dma;
use crate::process::{pack_channel, unpack_channel};
use ipc::counter::{Counting, Latch};
use ipc::mirror::Mirrored;
use ipc::raster::Raster;
use ipc::time::VirtualTime;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

const PAGE: u64 = 4096;
const WORD: u64 = 64;

/// What one model has around it.
pub struct World {
    /// What it shows and does.
    pub doings: Doings,
    /// Its device memory.
    pub memory: Vec<u8>,
    regions: Vec<Region>,
}

impl World {
    /// Around `device`, as it is after construction.
    pub fn new(device: &dyn Device) -> Self {
        let regions = device.regions();
        let shown = Shown {
            regions: regions.iter().map(super::format::RegionInfo::of).collect(),
            ..Shown::default()
        };
        Self { doings: Doings::new(&shown), memory: vec![0; device.device_memory_len() as usize], regions }
    }
}

/// What is known of guest memory.
#[derive(Default)]
struct Ram {
    pages: HashMap<u64, Page>,
}

struct Page {
    bytes: Box<[u8; PAGE as usize]>,
    known: [u64; (PAGE / WORD) as usize],
}

impl Ram {
    fn keep(&mut self, address: u64, data: &[u8]) {
        for (at, byte) in data.iter().enumerate() {
            let address = address.wrapping_add(at as u64);
            let page = self.pages.entry(address / PAGE).or_insert_with(|| Page {
                bytes: Box::new([0; PAGE as usize]),
                known: [0; (PAGE / WORD) as usize],
            });
            let offset = address % PAGE;
            page.bytes[offset as usize] = *byte;
            page.known[(offset / WORD) as usize] |= 1 << (offset % WORD);
        }
    }

    fn get(&self, address: u64, data: &mut [u8]) -> bool {
        data.iter_mut().enumerate().all(|(at, byte)| {
            let address = address.wrapping_add(at as u64);
            let offset = address % PAGE;
            let page = self.pages.get(&(address / PAGE));
            let page = page.filter(|page| page.known[(offset / WORD) as usize] & 1 << (offset % WORD) != 0);
            page.map(|page| *byte = page.bytes[offset as usize]).is_some()
        })
    }
}

/// What all models have around them.
#[derive(Default)]
pub struct Surroundings {
    ram: Ram,
    ram_bytes: u64,
    /// What the recorded model learnt in the call at hand and this one has not.
    expected: VecDeque<Learnt>,
    channels: HashMap<u8, DmaChannel>,
    lines: IrqLines,
    cables: HashMap<u8, SerialCable>,
    serial: HashMap<(u8, u64), u8>,
    /// What the model asked for and the recording does not have.
    complaints: Vec<String>,
}

impl Surroundings {
    /// In a machine with so much RAM.
    pub fn new(ram_bytes: u64) -> Self {
        Self { ram_bytes, ..Self::default() }
    }

    /// What there is before the first call.
    pub fn begin_with(&mut self, around: &[Learnt]) {
        for learnt in around {
            match learnt {
                Learnt::Lines(isa_levels, isa_edges, pirq_levels) => {
                    self.lines = IrqLines {
                        isa_levels: *isa_levels,
                        isa_edges: *isa_edges,
                        pirq_levels: *pirq_levels,
                    };
                }
                Learnt::Channel(channel, words, request) => {
                    self.channels.insert(*channel, unpack_channel(*words, *request));
                }
                Learnt::Cable(port, connected, taken, sent) => {
                    let cable = SerialCable { connected: *connected, taken: *taken, sent: *sent };
                    self.cables.insert(*port, cable);
                }
                _ => {}
            }
        }
    }

    /// What the recorded model learnt in the call that comes.
    pub fn expect(&mut self, learnt: Vec<Learnt>) {
        for learnt in &learnt {
            match learnt {
                Learnt::Dma { address, data: Some(data), .. } => self.ram.keep(*address, data),
                Learnt::Serial(port, at, Some(byte)) => {
                    self.serial.insert((*port, *at), *byte);
                }
                _ => {}
            }
        }
        self.expected = learnt.into();
    }

    /// What the model asked for and the recording does not have, since this was last asked.
    pub fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Takes the first expected thing that `wanted` recognizes.
    fn take<T>(&mut self, wanted: impl Fn(&Learnt) -> Option<T>) -> Option<T> {
        let (at, found) = self.expected.iter().enumerate().find_map(|(at, l)| Some((at, wanted(l)?)))?;
        self.expected.remove(at);
        Some(found)
    }
}

/// [`Host`] of a model that is replayed, for one call.
pub struct StandIn<'a> {
    now: VirtualTime,
    world: &'a mut World,
    // Some questions come through `&self`.
    around: RefCell<&'a mut Surroundings>,
}

impl<'a> StandIn<'a> {
    /// For a call at `now`.
    pub fn new(now: u64, world: &'a mut World, around: &'a mut Surroundings) -> Self {
        Self { now: VirtualTime(now), world, around: RefCell::new(around) }
    }
}

impl Host for StandIn<'_> {
    fn now(&self) -> VirtualTime {
        self.now
    }
    fn arm_timer(&mut self, timer: TimerId, deadline: VirtualTime) {
        self.world.doings.timer(timer.0, Some(deadline.0));
    }
    fn cancel_timer(&mut self, timer: TimerId) {
        self.world.doings.timer(timer.0, None);
    }
    fn set_irq(&mut self, irq: u8, level: bool) {
        self.world.doings.line(irq & (FIRST_PIN - 1), level);
    }
    fn set_intx(&mut self, pin: IntxPin, level: bool) {
        self.world.doings.line(FIRST_PIN + pin as u8, level);
    }
    fn dma_read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), DmaError> {
        let wanted = buffer.len() as u64;
        let error = DmaError { address, len: wanted };
        let around = self.around.get_mut();
        let recorded = around.take(|learnt| match learnt {
            Learnt::Dma { address: a, len, data } if (*a, *len) == (address, wanted) => Some(data.clone()),
            _ => None,
        });
        match recorded {
            Some(data) => {
                let data = data.filter(|data| data.len() == buffer.len()).ok_or(error)?;
                buffer.copy_from_slice(&data);
            }
            None if around.ram.get(address, buffer) => {}
            None => {
                buffer.fill(0);
                around.complaints.push(format!("DMA read of {wanted} bytes at {address:#x}"));
            }
        }
        Ok(())
    }
    fn dma_write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.world.doings.dma(address, data);
        let around = self.around.get_mut();
        let taken = around.take(|learnt| match learnt {
            Learnt::DmaTaken { address: a, taken } if *a == address => Some(*taken),
            _ => None,
        });
        let inside = || address.checked_add(data.len() as u64).is_some_and(|end| end <= around.ram_bytes);
        if taken.unwrap_or_else(inside) {
            around.ram.keep(address, data);
            Ok(())
        } else {
            Err(DmaError { address, len: data.len() as u64 })
        }
    }
    fn isa_dma(&mut self, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome {
        isa_dma::transfer(self, channel, direction, buffer)
    }
    fn set_dreq(&mut self, channel: u8, level: bool) {
        self.world.doings.dreq(channel, level);
    }
    fn device_memory(&mut self) -> &mut [u8] {
        &mut self.world.memory
    }
    fn update_region(&mut self, region: Region) {
        if let Some(slot) = self.world.regions.iter_mut().find(|r| r.id == region.id) {
            *slot = region;
        }
        self.world.doings.region(&region);
    }
    fn publish_mirror(&mut self, slot: MirrorSlot, value: u32) {
        self.world.doings.mirror(slot.0, value);
    }
    fn publish_timed(&mut self, _: MirrorSlot, _: Mirrored) {
        // A recording has none.
    }
    fn publish_raster(&mut self, _: Option<Raster>) {}
    fn publish_latch(&mut self, _: u32) {}
    fn publish_counter(&mut self, _: CounterId, _: Option<Counting>, _: Latch) {}
    fn complete_deferred(&mut self, value: u32) {
        self.world.doings.other(Deed::Late(value));
    }
    fn set_a20(&mut self, source: A20Source, enabled: bool) {
        self.world.doings.a20(source as u8, enabled);
    }
    fn request_reset(&mut self, reset: ResetRequest) {
        self.world.doings.other(Deed::Reset(reset as u8));
    }
    fn power_off(&mut self) {
        self.world.doings.other(Deed::PowerOff);
    }
    fn debug_text(&mut self, byte: u8) {
        self.world.doings.text(byte);
    }
    fn serial_cable(&self, port: u8) -> SerialCable {
        let mut around = self.around.borrow_mut();
        let recorded = around.take(|learnt| match learnt {
            Learnt::Cable(p, connected, taken, sent) if *p == port => {
                Some(SerialCable { connected: *connected, taken: *taken, sent: *sent })
            }
            _ => None,
        });
        let last = around.cables.entry(port).or_default();
        *last = recorded.unwrap_or(*last);
        *last
    }
    fn serial_peek(&self, port: u8, at: u64) -> Option<u8> {
        let mut around = self.around.borrow_mut();
        let recorded = around.take(|learnt| match learnt {
            Learnt::Serial(p, a, byte) if (*p, *a) == (port, at) => Some(*byte),
            _ => None,
        });
        recorded.unwrap_or_else(|| around.serial.get(&(port, at)).copied())
    }
    fn serial_taken(&mut self, port: u8, taken: u64) {
        self.world.doings.other(Deed::SerialTaken(port, taken));
    }
    fn serial_put(&mut self, port: u8, at: u64, byte: u8) {
        self.world.doings.other(Deed::SerialPut(port, at, byte));
    }
    fn serial_sent(&mut self, port: u8, sent: u64) {
        self.world.doings.other(Deed::SerialSent(port, sent));
    }
    fn irq_lines(&self) -> IrqLines {
        let mut around = self.around.borrow_mut();
        let recorded = around.take(|learnt| match learnt {
            Learnt::Lines(isa_levels, isa_edges, pirq_levels) => {
                Some(IrqLines { isa_levels: *isa_levels, isa_edges: *isa_edges, pirq_levels: *pirq_levels })
            }
            _ => None,
        });
        around.lines = recorded.unwrap_or(around.lines);
        around.lines
    }
    fn set_interrupt_request(&mut self, vector: Option<u8>) {
        self.world.doings.other(Deed::Interrupt(vector));
    }
    fn dma_channel(&self, channel: u8) -> DmaChannel {
        let mut around = self.around.borrow_mut();
        let recorded = around.take(|learnt| match learnt {
            Learnt::Channel(c, words, request) if *c == channel => Some(unpack_channel(*words, *request)),
            _ => None,
        });
        let last = around.channels.entry(channel).or_default();
        *last = recorded.unwrap_or(*last);
        *last
    }
    fn set_dma_channel(&mut self, channel: u8, state: DmaChannel) {
        self.world.doings.channel(channel, pack_channel(&state));
        self.around.get_mut().channels.insert(channel, state);
    }
    fn set_shadow_ram(&mut self, base: u32, len: u32, read_ram: bool, write_ram: bool) {
        self.world.doings.shadow(base, len, read_ram, write_ram);
    }
    fn region(&self, id: RegionId) -> Option<Region> {
        self.world.regions.iter().copied().find(|region| region.id == id)
    }
}
