//! The parts of a device process: models, timers, regions, and the shared memory of the VM.

use super::commit::Committer;
use super::counters::HeldCounters;
use super::effects::Effect;
use super::faults::Injector;
use super::orders::Orders;
use super::picture::Painter;
use super::recording::{Tape, TapeOrders};
use super::stopwatch::Stopwatch;
use super::{BuildContext, Builder, ProcessError};
use crate::device::{Device, Reads, Region, RegionId, Space, TimerId, Writes};
use crate::outside::Outside;
use ipc::board::Board;
use ipc::clock::ClockView;
use ipc::dma::{DmaRam, RamRange};
use ipc::link::{Link, LinkLayout, MAX_MODELS, MAX_REGIONS, MIRROR_CELLS, ModelInfo};
use ipc::machine::{MachineConfig, SerialBackend};
use ipc::panel::{MAX_DEVICES, PanelView, VMM_SLOT};
use ipc::region::{RegionInfo, WritePolicy};
use ipc::segment::{ReadOnlySegment, Segment, SegmentError, SegmentNames};
use ipc::serial::SerialCables;
use ipc::setup::{Recording, StartFrom};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
/// How long output of a serial port may wait for the supervisor.
const SERIAL_PATIENCE: Duration = Duration::from_secs(2);

/// Deadlines of all models. There are few: a scan is quicker than a heap.
#[derive(Debug, Default)]
pub struct Timers {
    armed: Vec<(VirtualTime, usize, TimerId)>,
}

impl Timers {
    /// Arms or re-arms a model's timer.
    pub fn arm(&mut self, model: usize, timer: TimerId, deadline: VirtualTime) {
        self.cancel(model, timer);
        self.armed.push((deadline, model, timer));
    }

    /// Forgets a model's timer.
    pub fn cancel(&mut self, model: usize, timer: TimerId) {
        self.armed.retain(|(_, m, t)| (*m, *t) != (model, timer));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<VirtualTime> {
        self.armed.iter().map(|(deadline, ..)| *deadline).min()
    }

    /// The armed timers of a model.
    pub fn of(&self, model: usize) -> impl Iterator<Item = (TimerId, VirtualTime)> {
        self.armed.iter().filter(move |(_, m, _)| *m == model).map(|(deadline, _, timer)| (*timer, *deadline))
    }

    /// Takes the earliest timer that is due at `now`.
    pub fn take_due(&mut self, now: VirtualTime) -> Option<(VirtualTime, usize, TimerId)> {
        let index = (0..self.armed.len()).min_by_key(|i| self.armed[*i])?;
        (self.armed[index].0 <= now).then(|| self.armed.swap_remove(index))
    }
}

/// What all models of the process share, and what a model can reach through its host.
pub struct Shared {
    /// Slot of this process on the board.
    pub slot: usize,
    board: Arc<Segment>,
    panel: ReadOnlySegment,
    /// The link to the VMM.
    pub link: Link,
    /// The guest RAM that the process has.
    pub ram: Arc<DmaRam>,
    /// The address behind the last that each model reaches by DMA.
    pub dma_end: Vec<u64>,
    memory: Option<Segment>,
    /// Offset and length of each model's device memory.
    memory_of: Vec<(u64, u64)>,
    /// Regions of each model, as they decode now.
    regions: Vec<Vec<Region>>,
    /// First mirror cell of each model.
    mirror_of: Vec<u16>,
    /// Armed timers.
    pub timers: Timers,
    /// Effects of the call in progress.
    pub effects: Vec<Effect>,
    /// ISA lines and PIRQs that each model holds: bits 0-15 and 16-19.
    pub held_lines: Vec<u32>,
    /// PCI device number of each model.
    pub pci_device: Vec<u8>,
    /// Sequence number of the access that each model has deferred.
    pub deferred: Vec<Option<u64>>,
    /// Debug console.
    pub console: Option<std::fs::File>,
    /// The cables at the serial ports, if the machine has any.
    pub serial: Option<SerialCables>,
    /// Nobody takes serial output any more: it is dropped.
    serial_stalled: bool,
    /// Every access to every region is to come as a message, also those that the bus answers otherwise.
    pub observed: bool,
    /// Makes faults.
    pub injector: Injector,
}

impl Shared {
    /// The board.
    #[inline]
    pub fn board(&self) -> &Board {
        self.board.view().unwrap_or_else(|_| unreachable!("checked when it was opened"))
    }

    /// The panel.
    #[inline]
    pub fn panel(&self) -> &PanelView {
        self.panel.view().unwrap_or_else(|_| unreachable!("checked when it was opened"))
    }

    /// The virtual clock.
    #[inline]
    pub fn clock(&self) -> &ClockView {
        self.panel().clock()
    }

    /// The link's layout.
    #[inline]
    pub fn layout(&self) -> &LinkLayout {
        self.link.layout()
    }

    /// Device memory of a model.
    #[expect(unsafe_code)] // A slice over memory that the guest writes too: see SAFETY.
    pub fn device_memory(&mut self, model: usize) -> &mut [u8] {
        let (offset, len) = self.memory_of[model];
        match &self.memory {
            Some(segment) if len > 0 => {
                // SAFETY: the range lies in the mapping (sized from the same numbers in `open`);
                // `&mut self` keeps this process from making a second slice. The guest's stores
                // come from another process: models treat the bytes as data that may change at
                // any time (as a real adapter's memory does) and derive no index from them unchecked.
                unsafe { std::slice::from_raw_parts_mut(segment.as_ptr().add(offset as usize), len as usize) }
            }
            _ => &mut [],
        }
    }

    /// Writes a character of serial output, and waits for room if need be: the supervisor takes
    /// what comes whether anybody reads it or not.
    pub fn put_serial(&mut self, port: u8, at: u64, byte: u8) {
        let Some(cables) = &self.serial else { return };
        if cables.put(port.into(), at, byte) {
            self.serial_stalled = false;
            return;
        }
        let deadline = Instant::now() + SERIAL_PATIENCE;
        while !self.serial_stalled && !cables.put(port.into(), at, byte) {
            if Instant::now() > deadline {
                tracing::error!("The supervisor takes no output of COM{}; it is dropped", port + 1);
                self.serial_stalled = true;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// A region of a model.
    pub fn region(&self, model: usize, id: RegionId) -> Option<Region> {
        self.regions[model].iter().copied().find(|r| r.id == id)
    }

    /// The regions of a model, as they decode now.
    pub fn regions_of(&self, model: usize) -> &[Region] {
        &self.regions[model]
    }

    /// Where a model's device memory begins.
    pub fn memory_base(&self, model: usize) -> u64 {
        self.memory_of[model].0
    }

    /// The first mirror cell of a model.
    pub fn mirror_base(&self, model: usize) -> usize {
        self.mirror_of[model].into()
    }

    /// Takes a changed region; false when nothing changed or the model never declared it.
    pub fn replace_region(&mut self, model: usize, region: Region) -> bool {
        match self.regions[model].iter_mut().find(|r| r.id == region.id) {
            Some(old) if *old != region => {
                *old = region;
                true
            }
            Some(_) => false,
            None => {
                tracing::error!("Model changed a region that it never declared: {}", region.name);
                false
            }
        }
    }

    /// Publishes the region table.
    pub fn publish_regions(&self) {
        let words: Vec<_> = self
            .regions
            .iter()
            .enumerate()
            .flat_map(|(model, regions)| regions.iter().map(move |r| (model, r)))
            .map(|(model, region)| {
                let info = region_info(model, region, self.memory_of[model].0, self.mirror_of[model]);
                if self.observed { observed(info) } else { info }.encode()
            })
            .collect();
        self.layout().set_regions(&words);
    }
}

/// The region without what lets the bus access it by itself. Memory that the guest only reads stays
/// mapped: nothing is to be seen there.
fn observed(info: RegionInfo) -> RegionInfo {
    RegionInfo {
        mirror: None,
        raster: false,
        counters: false,
        ticks: None,
        // Each is a call of its own, with a time of its own.
        writes: if info.writes == WritePolicy::Joined { WritePolicy::PostedLocal } else { info.writes },
        backing: info.backing.filter(|(_, writable)| !writable),
        ..info
    }
}

fn region_info(model: usize, region: &Region, memory: u64, mirror: u16) -> RegionInfo {
    RegionInfo {
        model: model as u8,
        region: region.id.0,
        is_memory: region.space == Space::Memory,
        width: region.width,
        writes: match region.writes {
            Writes::Sync => WritePolicy::Sync,
            Writes::Posted => WritePolicy::Posted,
            Writes::PostedLocal => WritePolicy::PostedLocal,
            Writes::Joined => WritePolicy::Joined,
        },
        enabled: region.enabled,
        mirror: match region.reads {
            Reads::Trap | Reads::Raster | Reads::Ticks(_) | Reads::Counters => None,
            Reads::Mirrored { first } | Reads::Timed { first } => Some(mirror + first.0),
        },
        raster: region.reads == Reads::Raster,
        counters: region.reads == Reads::Counters,
        ticks: match region.reads {
            Reads::Ticks(register) => Some(register),
            _ => None,
        },
        backing: region.backing.map(|b| (memory + b.offset, b.writable)),
        base: region.base,
        len: region.len,
        name: region.name.into(),
    }
}

/// A device process: its models and all that serves them.
pub struct DeviceProcess {
    /// The models, in the order of their numbers.
    pub models: Vec<Box<dyn Device>>,
    /// What they share.
    pub shared: Shared,
    /// Commits states.
    pub committer: Committer,
    /// The counters of which the bus has statements.
    pub(super) counters: HeldCounters,
    /// Publishes pictures.
    pub painter: Option<Painter>,
    /// Numbers of the models that watch lines.
    pub watchers: Vec<usize>,
    /// Line changes seen.
    pub lines_seen: u32,
    /// While models attach: lines are gathered, to be driven together when all have said theirs.
    pub starting: bool,
    /// What the supervisor wants.
    pub orders: Orders,
    /// How the models reach files.
    pub outside: Outside,
    /// What happens on the link is recorded here.
    pub tape: Tape,
    /// What other threads want of the main loop.
    pub(super) tape_orders: TapeOrders,
    /// Times the models.
    pub(super) stopwatch: Stopwatch,
    /// What a recording says of the process.
    pub(super) identity: Identity,
}

/// What a recording says of a process, besides its models.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub device: String,
    /// The machine.
    pub config: MachineConfig,
    /// Unix time (seconds) at virtual time zero.
    pub start_unix_seconds: u64,
}

/// Which process of which machine a device process is.
#[derive(Clone)]
pub struct Place<'a> {
    /// Slot on the board.
    pub slot: usize,
    /// The machine.
    pub config: &'a MachineConfig,
    /// The guest RAM that it may reach at most; `None`: what its models ask for.
    pub dma: Option<&'a [RamRange]>,
    /// The guest RAM that the process has mapped already: in its sandbox it cannot do that again.
    pub ram: Option<Arc<DmaRam>>,
}

impl DeviceProcess {
    /// Opens the VM's shared memory, builds the models and starts or resumes them.
    ///
    /// # Errors
    /// [`ProcessError`].
    #[cfg(test)]
    pub fn open(
        names: &SegmentNames,
        device: &str,
        place: &Place<'_>,
        from: StartFrom,
        recording: Option<&Recording>,
        build: Builder,
    ) -> Result<Self, ProcessError> {
        let mut process = Self::prepare(names, device, place, build)?;
        process.begin(from, recording);
        Ok(process)
    }

    /// Opens the VM's shared memory and builds the models. Nobody notices yet.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn prepare(
        names: &SegmentNames,
        device: &str,
        place: &Place<'_>,
        build: Builder,
    ) -> Result<Self, ProcessError> {
        let Place { slot, config, dma, .. } = *place;
        let board_segment = Arc::new(Segment::open(&names.board())?);
        let panel_segment = ReadOnlySegment::open(&names.panel())?;
        let panel: &PanelView = panel_segment.view()?;
        if !board_segment.view::<Board>()?.is_valid() || !panel.is_valid() || slot >= MAX_DEVICES {
            let reason = format!("slot {slot} is not one of a VM of this version");
            return Err(SegmentError::Os { name: names.board(), reason }.into());
        }
        let start_unix_seconds = panel.start_unix_seconds();
        let outside = Outside::live();
        let context = BuildContext { config, start_unix_seconds, outside: &outside };
        let models =
            build(&context).map_err(|reason| ProcessError::Build { device: device.into(), reason })?;
        outside.built();
        let dma_end: Vec<_> = models.iter().map(|model| model.dma().end().min(config.ram_bytes)).collect();
        let ram = match &place.ram {
            Some(ram) => ram.clone(),
            None => Arc::new(DmaRam::open(&names.ram(), &reach(dma, &dma_end))?),
        };
        let link = Link::open(&names.link(slot))?;
        let (memory_of, memory_bytes) = lay_out_memory(&models);
        let memory = open_device_memory(names, slot, memory_bytes)?;
        let mirror_of = lay_out_mirrors(&models);
        let regions: Vec<_> = models.iter().map(|m| m.regions()).collect();
        check_limits(device, &models, &regions)?;
        let counters = HeldCounters::new(&regions);
        let console = config.debug_console.as_ref().and_then(|path| open_console(path));
        let has_cables = config.serial.iter().any(SerialBackend::is_cable);
        let serial = has_cables.then(|| SerialCables::open(&names.serial())).transpose()?;
        let watchers: Vec<_> = (0..models.len()).filter(|i| models[*i].watches_lines()).collect();
        let painter = match models.iter().position(|m| m.has_picture()) {
            Some(model) => Some(Painter::open(names, model)?),
            None => None,
        };
        let orders = Orders::new(board_segment.clone(), slot);
        let shared = Shared {
            slot,
            ram,
            dma_end,
            board: board_segment.clone(),
            panel: panel_segment,
            link,
            memory,
            memory_of,
            regions,
            mirror_of,
            timers: Timers::default(),
            effects: Vec::with_capacity(64),
            held_lines: vec![0; models.len()],
            pci_device: models.iter().map(|m| m.pci_address().map_or(0, |a| a.device)).collect(),
            deferred: vec![None; models.len()],
            console,
            serial,
            serial_stalled: false,
            observed: false,
            injector: Injector::default(),
        };
        let committer = Committer::new(&models);
        let tape_orders = TapeOrders::new(board_segment.clone(), slot);
        let identity = Identity { device: device.into(), config: config.clone(), start_unix_seconds };
        Ok(Self {
            models,
            shared,
            committer,
            counters,
            painter,
            watchers,
            lines_seen: 0,
            starting: false,
            orders,
            outside,
            tape: Tape::Off,
            tape_orders,
            stopwatch: Stopwatch::new(),
            identity,
        })
    }

    /// Publishes everything and starts or resumes the models; the process is ready then.
    pub fn begin(&mut self, from: StartFrom, recording: Option<&Recording>) {
        self.shared.observed = recording.is_some();
        let slot = self.shared.slot;
        let info = |model: &dyn Device| ModelInfo {
            name: model.name().into(),
            pci: model.pci_address().map(|a| (a.bus, a.device, a.function)),
        };
        let infos: Vec<_> = self.models.iter().map(|model| info(model.as_ref())).collect();
        let before = self.shared.layout().model_infos();
        let bytes = self.shared.memory.as_ref().map_or(0, Segment::len);
        self.shared.layout().device_memory_bytes.store(bytes, Ordering::Release);
        self.shared.layout().set_models(&infos);
        self.shared.layout().set_dma(&self.shared.ram.ranges());
        if !self.watchers.is_empty() {
            self.shared.board().lines.watch(slot);
        }
        for (number, page) in self.shared.layout().states.iter().enumerate() {
            let name = |models: &[ModelInfo]| models.get(number).map(|info| info.name.clone());
            if name(&before).is_some() && name(&before) != name(&infos) {
                // Another model had this place: its state is of no use, now or to a later build.
                page.clear();
            }
        }
        self.resume_faults();
        self.start(from);
        if let Some(recording) = recording {
            self.record_from_start(recording, from == StartFrom::PowerOn);
        }
        self.begin_faults();
        self.shared.layout().process.set_serves(true);
        self.shared.board().doorbell(VMM_SLOT).ring();
        tracing::info!("Serves {}", infos.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", "));
    }
}

/// The guest RAM that the process is to have: what a model asks for and the machine gives.
fn reach(given: Option<&[RamRange]>, ends: &[u64]) -> Vec<RamRange> {
    let asked = RamRange { start: 0, end: ends.iter().copied().max().unwrap_or(0) };
    match given {
        None => asked.and(asked).into_iter().collect(),
        Some(ranges) => ranges.iter().filter_map(|range| range.and(asked)).collect(),
    }
}

fn lay_out_memory(models: &[Box<dyn Device>]) -> (Vec<(u64, u64)>, u64) {
    let mut end = 0;
    let places = models
        .iter()
        .map(|model| {
            let place = (end, model.device_memory_len());
            end += model.device_memory_len().next_multiple_of(PAGE);
            place
        })
        .collect();
    (places, end)
}

/// The first start creates the segment; successors find it with its content.
fn open_device_memory(
    names: &SegmentNames,
    slot: usize,
    bytes: u64,
) -> Result<Option<Segment>, ProcessError> {
    if bytes == 0 {
        return Ok(None);
    }
    let name = names.device_memory(slot);
    let segment = match Segment::open(&name) {
        Ok(segment) => segment,
        Err(_) => {
            // It belongs to the VM, not to this process: it stays when the process dies.
            let mut created = Segment::create_sparse(&name, bytes)?;
            created.keep_name();
            created
        }
    };
    if segment.len() < bytes {
        return Err(SegmentError::TooSmall { name, found: segment.len(), needed: bytes }.into());
    }
    Ok(Some(segment))
}

fn lay_out_mirrors(models: &[Box<dyn Device>]) -> Vec<u16> {
    let mut next = 0;
    models
        .iter()
        .map(|model| {
            let first = next;
            let cells = model.regions().into_iter().filter_map(|region| match region.reads {
                Reads::Mirrored { first } | Reads::Timed { first } => Some(u64::from(first.0) + region.len),
                Reads::Trap | Reads::Raster | Reads::Ticks(_) | Reads::Counters => None,
            });
            next += cells.max().unwrap_or(0) as u16;
            first
        })
        .collect()
}

fn check_limits(
    device: &str,
    models: &[Box<dyn Device>],
    regions: &[Vec<Region>],
) -> Result<(), ProcessError> {
    let limit = |what: String| Err(ProcessError::Limits { device: device.into(), what });
    if models.len() > MAX_MODELS {
        return limit(format!("has {} models; a link carries {MAX_MODELS}", models.len()));
    }
    let count: usize = regions.iter().map(Vec::len).sum();
    if count > MAX_REGIONS {
        return limit(format!("has {count} regions; a link carries {MAX_REGIONS}"));
    }
    if usize::from(lay_out_mirrors(models).last().copied().unwrap_or(0)) > MIRROR_CELLS {
        return limit(format!("mirrors more than {MIRROR_CELLS} registers"));
    }
    Ok(())
}

fn open_console(path: &std::path::Path) -> Option<std::fs::File> {
    match std::fs::OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::error!("Debug console {}: {error}; its text is dropped", path.display());
            None
        }
    }
}
