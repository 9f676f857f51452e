//! A machine in one process, for unit tests of device models.
//!
//! [`TestHost`] implements [`Host`] over plain memory and records what a model did; [`Bench`]
//! adds the bus: it finds the region of an access, splits wide accesses, answers mirrored reads
//! from the mirror, fires timers as time is moved on, and maps "no answer" to all ones.

use crate::device::{
    Access, CounterId, Device, IoError, MirrorSlot, Parts, Reads, Region, RegionId, ResetKind, Space,
    TimerId, Width,
};
use crate::host::{
    A20Source, DmaChannel, DmaDirection, DmaError, DmaOutcome, Host, IntxPin, IrqLines, ResetRequest,
    SerialCable,
};
use crate::isa_dma;
use ipc::counter::{Counting, Latch};
use ipc::mirror::Mirrored;
use ipc::raster::{LANES, Raster};
use ipc::time::VirtualTime;
use std::collections::{BTreeMap, BTreeSet};

/// Records what a model does to the machine.
pub struct TestHost {
    /// Virtual time; tests move it through [`Bench::advance`].
    pub now: VirtualTime,
    /// Armed timers.
    pub timers: BTreeMap<TimerId, VirtualTime>,
    /// Interrupt lines of the machine.
    pub lines: IrqLines,
    /// Levels of the model's PCI interrupt pins.
    pub intx: [bool; 4],
    /// Guest RAM.
    pub ram: Vec<u8>,
    /// ISA DMA channels.
    pub channels: [DmaChannel; 8],
    /// Device memory.
    pub memory: Vec<u8>,
    /// Current regions of the model.
    pub regions: Vec<Region>,
    /// The mirror page.
    pub mirror: BTreeMap<MirrorSlot, u32>,
    /// Cells of regions with [`Reads::Timed`].
    pub timed: BTreeMap<MirrorSlot, Mirrored>,
    /// How the bus makes accesses to the region with [`Reads::Raster`].
    pub raster: Option<Raster>,
    /// What the latch of that memory holds.
    pub latch: u32,
    /// The counters that the bus latches and reads, and their latches.
    pub counters: BTreeMap<u8, (Counting, Latch)>,
    /// Values given to deferred accesses.
    pub completed: Vec<u32>,
    /// Inputs of the A20 gate, by [`A20Source`].
    pub a20: [bool; 2],
    /// Resets asked for.
    pub resets: Vec<ResetRequest>,
    /// Whether soft-off was asked for.
    pub powered_off: bool,
    /// Debug console text.
    pub console: Vec<u8>,
    /// Published interrupt vector.
    pub intr: Option<u8>,
    /// Shadow-RAM settings by base address: (length, read RAM, write RAM).
    pub shadow: BTreeMap<u32, (u32, bool, bool)>,
    /// The cables at the serial ports.
    pub serial: [TestCable; 2],
}

/// A serial port's cable.
#[derive(Debug, Default)]
pub struct TestCable {
    /// What the model is told of it.
    pub cable: SerialCable,
    /// Everything that came in so far, taken or not.
    pub input: Vec<u8>,
    /// Everything that the model wrote; the first `cable.sent` of it are sent.
    pub output: Vec<u8>,
}

impl TestHost {
    /// A machine with 1 MiB of RAM and the regions and device memory of `device`.
    pub fn new(device: &dyn Device) -> Self {
        Self {
            now: VirtualTime(0),
            timers: BTreeMap::new(),
            lines: IrqLines::default(),
            intx: [false; 4],
            ram: vec![0; 1 << 20],
            channels: [DmaChannel::default(); 8],
            memory: vec![0; device.device_memory_len() as usize],
            regions: device.regions(),
            mirror: BTreeMap::new(),
            timed: BTreeMap::new(),
            raster: None,
            latch: 0,
            counters: BTreeMap::new(),
            completed: Vec::new(),
            a20: [false; 2],
            resets: Vec::new(),
            powered_off: false,
            console: Vec::new(),
            intr: None,
            shadow: BTreeMap::new(),
            serial: Default::default(),
        }
    }

    /// Level of an ISA interrupt line.
    pub fn irq(&self, irq: u8) -> bool {
        self.lines.isa_levels & (1 << irq) != 0
    }

    fn ram_range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, DmaError> {
        let error = DmaError { address, len: len as u64 };
        let start = usize::try_from(address).map_err(|_| error)?;
        let end = start.checked_add(len).filter(|end| *end <= self.ram.len()).ok_or(error)?;
        Ok(start..end)
    }
}

impl Host for TestHost {
    fn now(&self) -> VirtualTime {
        self.now
    }
    fn arm_timer(&mut self, timer: TimerId, deadline: VirtualTime) {
        self.timers.insert(timer, deadline);
    }
    fn cancel_timer(&mut self, timer: TimerId) {
        self.timers.remove(&timer);
    }
    fn set_irq(&mut self, irq: u8, level: bool) {
        let bit = 1 << irq;
        if level && self.lines.isa_levels & bit == 0 {
            let edges = &mut self.lines.isa_edges[irq as usize];
            *edges = edges.wrapping_add(1);
        }
        self.lines.isa_levels = (self.lines.isa_levels & !bit) | if level { bit } else { 0 };
    }
    fn set_intx(&mut self, pin: IntxPin, level: bool) {
        self.intx[pin as usize] = level;
    }
    fn dma_read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), DmaError> {
        let range = self.ram_range(address, buffer.len())?;
        buffer.copy_from_slice(&self.ram[range]);
        Ok(())
    }
    fn dma_write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let range = self.ram_range(address, data.len())?;
        self.ram[range].copy_from_slice(data);
        Ok(())
    }
    fn isa_dma(&mut self, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome {
        isa_dma::transfer(self, channel, direction, buffer)
    }
    fn set_dreq(&mut self, channel: u8, level: bool) {
        self.channels[channel as usize].request = level;
    }
    fn device_memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }
    fn update_region(&mut self, region: Region) {
        match self.regions.iter_mut().find(|r| r.id == region.id) {
            Some(slot) => *slot = region,
            None => panic!("model updated undeclared region {:?} ({})", region.id, region.name),
        }
    }
    fn publish_mirror(&mut self, slot: MirrorSlot, value: u32) {
        self.mirror.insert(slot, value);
    }
    fn publish_timed(&mut self, slot: MirrorSlot, content: Mirrored) {
        self.timed.insert(slot, content);
    }
    fn publish_raster(&mut self, raster: Option<Raster>) {
        self.raster = raster;
    }
    fn publish_latch(&mut self, latch: u32) {
        self.latch = latch;
    }
    fn publish_counter(&mut self, counter: CounterId, counting: Option<Counting>, latch: Latch) {
        match counting {
            Some(counting) => _ = self.counters.insert(counter.0, (counting, latch)),
            None => _ = self.counters.remove(&counter.0),
        }
    }
    fn complete_deferred(&mut self, value: u32) {
        self.completed.push(value);
    }
    fn set_a20(&mut self, source: A20Source, enabled: bool) {
        self.a20[source as usize] = enabled;
    }
    fn request_reset(&mut self, reset: ResetRequest) {
        self.resets.push(reset);
    }
    fn power_off(&mut self) {
        self.powered_off = true;
    }
    fn debug_text(&mut self, byte: u8) {
        self.console.push(byte);
    }
    fn serial_cable(&self, port: u8) -> SerialCable {
        self.serial[port as usize].cable
    }
    fn serial_peek(&self, port: u8, at: u64) -> Option<u8> {
        self.serial[port as usize].input.get(at as usize).copied()
    }
    fn serial_taken(&mut self, port: u8, taken: u64) {
        self.serial[port as usize].cable.taken = taken;
    }
    fn serial_put(&mut self, port: u8, at: u64, byte: u8) {
        let output = &mut self.serial[port as usize].output;
        output.truncate(at as usize);
        assert_eq!(output.len() as u64, at, "the model left a character out");
        output.push(byte);
    }
    fn serial_sent(&mut self, port: u8, sent: u64) {
        self.serial[port as usize].cable.sent = sent;
    }
    fn irq_lines(&self) -> IrqLines {
        self.lines
    }
    fn set_interrupt_request(&mut self, vector: Option<u8>) {
        self.intr = vector;
    }
    fn dma_channel(&self, channel: u8) -> DmaChannel {
        self.channels[channel as usize]
    }
    fn set_dma_channel(&mut self, channel: u8, state: DmaChannel) {
        self.channels[channel as usize] = state;
    }
    fn set_shadow_ram(&mut self, base: u32, len: u32, read_ram: bool, write_ram: bool) {
        self.shadow.insert(base, (len, read_ram, write_ram));
    }
    fn region(&self, id: RegionId) -> Option<Region> {
        self.regions.iter().copied().find(|r| r.id == id)
    }
}

/// A model on a bus of its own.
pub struct Bench<D: Device> {
    /// The model.
    pub device: D,
    /// The machine around it.
    pub host: TestHost,
    /// The parts of the state as they were when the model last said that they changed.
    parts: Vec<Vec<u8>>,
    /// Parts that changed since [`Bench::take_changed`].
    changed: Parts,
    /// The bus latches and reads counters by itself while they are stated, as in a machine. Otherwise the model is asked all the same,
    /// and must say nothing else.
    pub counts_alone: bool,
    /// Counters whose latch the bus has changed since it told the model.
    moved: BTreeSet<u8>,
}

impl<D: Device> Bench<D> {
    /// Attaches `device` and resets it as at power-on.
    pub fn new(device: D) -> Self {
        let mut bench = Self::resumed(device);
        bench.device.reset(ResetKind::PowerOn, &mut bench.host);
        bench.check_changes();
        bench
    }

    /// Attaches a device that has loaded a state.
    pub fn resumed(device: D) -> Self {
        let mut host = TestHost::new(&device);
        let mut device = device;
        device.attach(&mut host);
        let parts = Self::save_parts(&device, |_| true, vec![Vec::new(); device.parts()]);
        let moved = BTreeSet::new();
        Self { device, host, parts, changed: Parts::MAX, counts_alone: false, moved }
    }

    fn save_parts(device: &D, which: impl Fn(usize) -> bool, mut parts: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        for (number, bytes) in parts.iter_mut().enumerate().filter(|(number, _)| which(*number)) {
            bytes.clear();
            device.save_part(number, bytes);
        }
        parts
    }

    /// Whether the model's state may have changed since the last call to this method.
    pub fn take_changed(&mut self) -> bool {
        self.check_changes();
        std::mem::take(&mut self.changed) != 0
    }

    /// What the model does not call changed must be as it was, or a successor would go on from something else.
    fn check_changes(&mut self) {
        let changed = self.device.take_changed_parts();
        self.changed |= changed;
        let parts = std::mem::take(&mut self.parts);
        self.parts = Self::save_parts(&self.device, |number| changed & 1 << number != 0, parts);
        let mut state = Vec::new();
        self.device.save(&mut state);
        // A state of one part may change without a word in what follows from the time.
        let same = self.parts.len() == 1 || self.parts.concat() == state;
        assert!(same, "{} changed and did not say so", self.device.name());
    }

    fn find(&self, space: Space, address: u64) -> Option<Region> {
        let hit = |r: &&Region| r.enabled && r.space == space && (r.base..r.base + r.len).contains(&address);
        self.host.regions.iter().find(hit).copied()
    }

    fn read(&mut self, space: Space, address: u64, width: Width) -> u32 {
        let Some(region) = self.find(space, address) else { return width.mask() };
        if width > region.width || address + u64::from(width.bytes()) > region.base + region.len {
            let half = if width == Width::Dword { Width::Word } else { Width::Byte };
            let low = self.read(space, address, half);
            let high = self.read(space, address + u64::from(half.bytes()), half);
            return low | high << (8 * half.bytes());
        }
        let at = Access { region: region.id, address, offset: address - region.base, width };
        if let Reads::Mirrored { first } = region.reads {
            let mut value = 0;
            for i in 0..width.bytes() {
                let slot = MirrorSlot(first.0 + at.offset as u16 + i as u16);
                value |= (self.host.mirror.get(&slot).copied().unwrap_or(0) & 0xff) << (8 * i);
            }
            return value;
        }
        let by_counter = self.counter(region, at, |counting| u64::from(counting.register) == at.offset);
        let by_counter = by_counter.and_then(|(id, counting, latch)| {
            let (byte, latch) = latch.read(|| counting.count(self.host.now))?;
            Some((id, byte, latch))
        });
        if let Some((id, byte, latch)) = by_counter
            && self.counts_alone
        {
            self.move_latch(id, latch);
            return byte.into();
        }
        self.tell_moved();
        // The bus would answer by itself; the model is asked all the same, and must say nothing else.
        let published = self.published(region, at);
        let by_raster = self.read_by_raster(region, at).filter(|_| width == Width::Byte);
        let answer = self.device.read(at, &mut self.host);
        self.check_changes();
        if let Some((byte, latch)) = by_raster {
            assert_eq!(
                (answer, self.host.latch),
                (Ok(byte.into()), latch),
                "the bus would read something else"
            );
        }
        if let Some((id, byte, latch)) = by_counter {
            assert_eq!(
                (answer, self.latch_of(id)),
                (Ok(byte.into()), Some(latch)),
                "the bus would read something else"
            );
        }
        if let Some(value) = published {
            assert_eq!(answer, Ok(value), "{} is not what was published", region.name);
        }
        match answer {
            Ok(value) => value & width.mask(),
            Err(_) => width.mask(),
        }
    }

    /// The stated counter that an access meets, if it is to a region of such.
    fn counter(
        &self,
        region: Region,
        at: Access,
        is_it: impl Fn(&Counting) -> bool,
    ) -> Option<(u8, Counting, Latch)> {
        let counters =
            (region.reads == Reads::Counters && at.width == Width::Byte).then_some(&self.host.counters)?;
        let (id, (counting, latch)) = counters.iter().find(|(_, (counting, _))| is_it(counting))?;
        Some((*id, *counting, *latch))
    }

    fn latch_of(&self, id: u8) -> Option<Latch> {
        self.host.counters.get(&id).map(|(_, latch)| *latch)
    }

    /// The bus changes the latch of a counter.
    fn move_latch(&mut self, id: u8, latch: Latch) {
        if let Some((_, old)) = self.host.counters.get_mut(&id) {
            *old = latch;
            self.moved.insert(id);
        }
    }

    /// Tells the model what the bus did with its counters, before it acts or is saved.
    fn tell_moved(&mut self) {
        for id in std::mem::take(&mut self.moved) {
            if let Some(latch) = self.latch_of(id) {
                self.device.counter_moved(CounterId(id), latch);
            }
        }
        self.check_changes();
    }

    /// Where a byte of the region with [`Reads::Raster`] is in the device memory, when the bus would make an access to it by itself.
    fn raster_place(&self, region: Region, offset: u64) -> Option<(Raster, std::ops::Range<usize>)> {
        let raster = self.host.raster.filter(|_| region.reads == Reads::Raster)?;
        let place = raster.place(offset as u32) as usize;
        Some((raster, place..place + LANES))
    }

    fn raster_word(&self, place: std::ops::Range<usize>) -> u32 {
        u32::from_le_bytes(self.host.memory[place].try_into().unwrap())
    }

    /// What a read of one byte gives when the bus makes it, and what the latch holds then.
    fn read_by_raster(&self, region: Region, at: Access) -> Option<(u8, u32)> {
        let (raster, place) = self.raster_place(region, at.offset)?;
        let latch = self.raster_word(place);
        Some((raster.read(latch), latch))
    }

    /// The word that a write of one byte makes when the bus makes it.
    fn write_by_raster(&self, region: Region, at: Access, byte: u8) -> Option<(std::ops::Range<usize>, u32)> {
        let (raster, place) = self.raster_place(region, at.offset)?;
        let word = raster.write(self.raster_word(place.clone()), self.host.latch, byte);
        Some((place, word))
    }

    /// What the bus answers to a read by cells that hold at present, or by the time alone.
    fn published(&self, region: Region, at: Access) -> Option<u32> {
        if let Reads::Ticks(register) = region.reads {
            return register.read(at.offset, at.width, || self.host.now);
        }
        let Reads::Timed { first } = region.reads else { return None };
        let byte = |n: u32| {
            let cell = self.host.timed.get(&MirrorSlot(first.0 + at.offset as u16 + n as u16))?;
            Some(u32::from(cell.get(|| self.host.now)?) << (8 * n))
        };
        (0..at.width.bytes()).try_fold(0, |value, n| Some(value | byte(n)?))
    }

    fn write(&mut self, space: Space, address: u64, width: Width, value: u32) -> Result<(), IoError> {
        let region = self.find(space, address).ok_or(IoError::NoResponse)?;
        if width > region.width || address + u64::from(width.bytes()) > region.base + region.len {
            let half = if width == Width::Dword { Width::Word } else { Width::Byte };
            self.write(space, address, half, value & half.mask())?;
            let high = address + u64::from(half.bytes());
            return self.write(space, high, half, value >> (8 * half.bytes()) & half.mask());
        }
        let at = Access { region: region.id, address, offset: address - region.base, width };
        let is_command =
            |c: &Counting| (u64::from(c.command.0), u32::from(c.command.1)) == (at.offset, value & 0xff);
        let by_counter = self
            .counter(region, at, is_command)
            .and_then(|(id, counting, latch)| Some((id, latch.hold(|| counting.count(self.host.now))?)));
        if let Some((id, latch)) = by_counter
            && self.counts_alone
        {
            self.move_latch(id, latch);
            return Ok(());
        }
        self.tell_moved();
        let by_raster = self.write_by_raster(region, at, value as u8).filter(|_| width == Width::Byte);
        let answer = self.device.write(at, value & width.mask(), &mut self.host);
        self.check_changes();
        if let Some((id, latch)) = by_counter {
            assert_eq!(
                (answer, self.latch_of(id)),
                (Ok(()), Some(latch)),
                "the bus would latch something else"
            );
        }
        if let Some((place, word)) = by_raster {
            assert_eq!(
                (answer, self.raster_word(place)),
                (Ok(()), word),
                "the bus would write something else"
            );
        }
        answer
    }

    /// IN AL, port.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.read(Space::Port, port.into(), Width::Byte) as u8
    }
    /// IN AX, port.
    pub fn inw(&mut self, port: u16) -> u16 {
        self.read(Space::Port, port.into(), Width::Word) as u16
    }
    /// IN EAX, port.
    pub fn inl(&mut self, port: u16) -> u32 {
        self.read(Space::Port, port.into(), Width::Dword)
    }
    /// OUT port, AL. Errors are ignored, as a PC does; see [`Bench::try_outb`].
    pub fn outb(&mut self, port: u16, value: u8) {
        let _ = self.write(Space::Port, port.into(), Width::Byte, value.into());
    }
    /// OUT port, AL, with the model's answer.
    ///
    /// # Errors
    /// What the model answered, or [`IoError::NoResponse`] where nothing decodes.
    pub fn try_outb(&mut self, port: u16, value: u8) -> Result<(), IoError> {
        self.write(Space::Port, port.into(), Width::Byte, value.into())
    }
    /// OUT port, AX.
    pub fn outw(&mut self, port: u16, value: u16) {
        let _ = self.write(Space::Port, port.into(), Width::Word, value.into());
    }
    /// OUT port, EAX.
    pub fn outl(&mut self, port: u16, value: u32) {
        let _ = self.write(Space::Port, port.into(), Width::Dword, value);
    }
    /// Reads physical memory that the model answers for.
    pub fn mem_read(&mut self, address: u64, width: Width) -> u32 {
        self.read(Space::Memory, address, width)
    }
    /// Writes physical memory that the model answers for.
    pub fn mem_write(&mut self, address: u64, width: Width, value: u32) {
        let _ = self.write(Space::Memory, address, width, value);
    }
    /// Reads the model's configuration space.
    pub fn config_read(&mut self, register: u8, width: Width) -> u32 {
        let value = self.device.config_read(register, width, &mut self.host);
        self.check_changes();
        value
    }
    /// Writes the model's configuration space.
    pub fn config_write(&mut self, register: u8, width: Width, value: u32) {
        self.device.config_write(register, width, value, &mut self.host);
        self.check_changes();
    }

    /// Moves time on by `nanos`, firing the timers that fall due, in order and at their deadlines.
    pub fn advance(&mut self, nanos: u64) {
        let end = self.host.now.after(nanos);
        while let Some((&timer, &deadline)) = self.host.timers.iter().min_by_key(|(_, deadline)| **deadline) {
            if deadline > end {
                break;
            }
            self.host.timers.remove(&timer);
            self.host.now = self.host.now.max(deadline);
            self.tell_moved();
            self.device.timer(timer, deadline, &mut self.host);
            self.check_changes();
        }
        self.host.now = end;
    }

    /// Tells a model that watches lines that some changed.
    pub fn lines_changed(&mut self) {
        self.device.lines_changed(&mut self.host);
        self.check_changes();
    }

    /// Saves the state, loads it into `fresh`, and goes on with that: what a restart does.
    ///
    /// # Panics
    /// When the fresh model refuses the state or saves it differently.
    pub fn restart(&mut self, fresh: D) {
        self.tell_moved();
        let mut state = Vec::new();
        self.device.save(&mut state);
        let mut fresh = fresh;
        fresh.load(self.device.state_version(), &state).expect("a fresh model must take its own state");
        fresh.attach(&mut self.host);
        let mut again = Vec::new();
        fresh.save(&mut again);
        assert_eq!(state, again, "state changed by save and load");
        self.device = fresh;
        self.check_changes();
    }
}
