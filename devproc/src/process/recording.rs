//! Recording what happens on the link, from inside the main loop, where it has one order.
//!
//! While there is a recording, the process is *observed*: it publishes its regions without mirrors and
//! without memory that the guest writes directly, so every access comes as a message, in order. What the bus would
//! have done with those is done here; the models have no more part in it than before. A recording
//! starts between two requests, once the VMM acts by the regions that say so.

use super::effects::pack_channel;
use super::host::ModelHost;
use super::machine::{DeviceProcess, Identity, Shared};
use super::serve::{access, burst_len};
use crate::device::{Access, Device, IoError, Reads, Region, Space};
use crate::host::Host;
use crate::record::format::{
    self, AccessKind, Answer, Call, Header, Learnt, ModelInfo, ModelStart, RegionInfo, RegisterInfo, Shown,
    Start, Status, What,
};
use crate::record::machine::Machine;
use crate::record::{Recorder, Sink};
use crate::register::{PCI_HEADER, Register};
use ipc::board::{Board, attention};
use ipc::host_clock::host_nanos;
use ipc::message::{FLAG_POSTED, Kind, Message};
use ipc::segment::Segment;
use ipc::setup::Recording;
use ipc::sync::Ordering;
use ipc_channel::ipc::{IpcBytesSender, IpcSender};
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often is looked whether the VMM acts by the new regions.
const LOOK_FOR_VMM: Duration = Duration::from_millis(1);
/// Device memory is recorded in pieces of this size; those that are all zero are left out.
const PAGE: usize = 4096;
const DMA_CHANNELS: u8 = 8;
const SERIAL_PORTS: u8 = ipc::serial::PORTS as u8;
/// ISA lines; pins come after them.
const ISA_LINES: u32 = 16;
const PINS: u32 = 4;

/// Something that another thread wants of the main loop.
pub enum TapeOrder {
    /// Record from now on, or no longer.
    Record {
        /// Where to.
        to: Option<Recording>,
        /// Where is told when that is so, or why not.
        answer: IpcSender<Result<(), String>>,
    },
}

/// Hands orders to the main loop, and wakes it.
#[derive(Clone)]
pub struct TapeOrders {
    waiting: Arc<AtomicBool>,
    list: Arc<Mutex<VecDeque<TapeOrder>>>,
    board: Arc<Segment>,
    slot: usize,
}

impl TapeOrders {
    /// For the process in `slot`.
    pub fn new(board: Arc<Segment>, slot: usize) -> Self {
        Self { waiting: Arc::default(), list: Arc::default(), board, slot }
    }

    /// Hands one over.
    pub fn give(&self, order: TapeOrder) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.waiting.store(true, Ordering::Release);
        if let Ok(board) = self.board.view::<Board>() {
            board.doorbell(self.slot).ring();
        }
    }

    /// Whether there is any.
    #[inline]
    pub fn are_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    fn take(&self) -> VecDeque<TapeOrder> {
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether there is a recording.
pub enum Tape {
    /// No.
    Off,
    /// There will be one, once the VMM acts by the regions that say so.
    Waits {
        /// Where to.
        to: Recording,
        /// Whom to tell.
        answer: IpcSender<Result<(), String>>,
    },
    /// Yes.
    On(Box<Recorder>),
}

impl Tape {
    /// What to record with.
    #[inline]
    pub fn recorder(&mut self) -> Option<&mut Recorder> {
        match self {
            Self::On(recorder) => Some(recorder),
            _ => None,
        }
    }

    /// Where the recording goes, for a successor.
    pub fn sink(&self) -> Option<IpcBytesSender> {
        match self {
            Self::On(recorder) => recorder.channel(),
            _ => None,
        }
    }

    /// How long the process may sleep at most because of it.
    pub fn patience(&self) -> Option<Duration> {
        matches!(self, Self::Waits { .. }).then_some(LOOK_FOR_VMM)
    }
}

impl DeviceProcess {
    /// Where other threads say what they want.
    pub fn tape_orders(&self) -> TapeOrders {
        self.tape_orders.clone()
    }

    /// Records from the start of the process on.
    pub(super) fn record_from_start(&mut self, to: &Recording, cold: bool) {
        self.start_tape(to, cold);
    }

    /// Does what other threads want, and goes on with what was begun.
    #[inline]
    pub(super) fn take_tape_orders(&mut self) {
        if self.tape_orders.are_waiting() {
            for order in self.tape_orders.take() {
                let TapeOrder::Record { to, answer } = order;
                match to {
                    Some(to) => self.ask_for_tape(to, answer),
                    None => {
                        let ended = if matches!(self.tape, Tape::Off) {
                            Err(format!("{} is not being recorded", self.identity.device))
                        } else {
                            self.end_tape();
                            Ok(())
                        };
                        // A client that went away does not need its answer.
                        let _ = answer.send(ended);
                    }
                }
            }
        }
        match &mut self.tape {
            Tape::Off => {}
            Tape::Waits { .. } if self.shared.layout().regions_are_taken() => {
                if let Tape::Waits { to, answer } = std::mem::replace(&mut self.tape, Tape::Off) {
                    self.start_tape(&to, false);
                    // As above.
                    let _ = answer.send(Ok(()));
                }
            }
            Tape::Waits { .. } => {}
            Tape::On(recorder) => {
                // Nothing more may come for long: what there is is to be seen.
                if self.shared.layout().requests.is_empty() {
                    recorder.flush();
                }
                if let Some(error) = recorder.failure() {
                    tracing::error!("The recording ends: {error}");
                    self.end_tape();
                }
            }
        }
    }

    fn ask_for_tape(&mut self, to: Recording, answer: IpcSender<Result<(), String>>) {
        if matches!(self.tape, Tape::Off) {
            self.observe(true);
            self.tape = Tape::Waits { to, answer };
            return;
        }
        let why = format!("{} is being recorded already: end that first, with --stop", self.identity.device);
        // A client that went away does not need its answer.
        let _ = answer.send(Err(why));
    }

    /// Lets every access come as a message, or no longer.
    fn observe(&mut self, observed: bool) {
        self.shared.observed = observed;
        self.shared.publish_regions();
        self.shared.board().call_vcpu(attention::MAP);
    }

    fn start_tape(&mut self, to: &Recording, cold: bool) {
        let header = (!to.append).then(|| header(&self.identity, &self.models, self.outside.found()));
        let mut recorder = Recorder::new(Sink::Channel(to.sink.clone()), header, &self.outside);
        let now = self.shared.clock().now().0;
        let models = (0..self.models.len()).map(|number| self.model_start(number)).collect();
        let around = self.around();
        recorder.start(Start { now, host_nanos: host_nanos(), cold, around, models });
        if let Some(painter) = &mut self.painter {
            // Whoever replays this has drawn nothing yet.
            painter.start_afresh();
        }
        self.tape = Tape::On(Box::new(recorder));
        tracing::info!("Records");
    }

    fn end_tape(&mut self) {
        self.tape = Tape::Off;
        self.observe(false);
        tracing::info!("Does not record any more");
    }

    /// What the models find around them now.
    fn around(&mut self) -> Vec<Learnt> {
        let now = self.shared.clock().now();
        // None of it depends on the model that asks.
        let host = ModelHost { shared: &mut self.shared, model: 0, now };
        let lines = host.irq_lines();
        let mut around = vec![Learnt::Lines(lines.isa_levels, lines.isa_edges, lines.pirq_levels)];
        around.extend((0..DMA_CHANNELS).map(|channel| {
            let state = host.dma_channel(channel);
            Learnt::Channel(channel, pack_channel(&state), state.request)
        }));
        around.extend((0..SERIAL_PORTS).map(|port| {
            let cable = host.serial_cable(port);
            Learnt::Cable(port, cable.connected, cable.taken, cable.sent)
        }));
        around
    }

    fn model_start(&mut self, number: usize) -> ModelStart {
        self.take_latch(number);
        self.import_counters(number);
        let mut state = Vec::new();
        self.models[number].save(&mut state);
        let mut memory: Vec<(u64, ByteBuf)> = Vec::new();
        for (at, page) in (0..).step_by(PAGE).zip(self.shared.device_memory(number).chunks(PAGE)) {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            match memory.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend_from_slice(page),
                _ => memory.push((at, ByteBuf::from(page))),
            }
        }
        ModelStart {
            version: self.models[number].state_version(),
            state: ByteBuf::from(state),
            shown: shown(&self.shared, number),
            memory,
        }
    }

    /// Answers a request in place of the bus, where that would have, or has the model answer it; records both.
    #[cold]
    pub(super) fn answer_observed(
        &mut self,
        number: usize,
        at: Access,
        request: &Message,
        buffer: &mut [u8],
    ) -> Result<u32, IoError> {
        let Self { models, shared, tape, .. } = self;
        let model = models[number].as_mut();
        let written = match request.kind {
            Kind::WriteBurst => &buffer[..burst_len(request)],
            _ => &[],
        };
        let access_info = tape.recorder().and_then(|_| recorded_access(model, number, at, request, written));
        let by_bus = shared
            .region(number, at.region)
            .and_then(|region| answer_as_bus(shared, number, &region, at, request, buffer));
        if let Some(value) = by_bus {
            if let (Some(recorder), Some(info)) = (tape.recorder(), access_info) {
                let answer = answer(Ok(value), request, buffer);
                recorder.bus(info, answer);
            }
            return Ok(value);
        }
        let mut host = ModelHost { shared, model: number, now: request.time };
        let Some(recorder) = tape.recorder() else {
            return access(model, &mut host, at, request, buffer);
        };
        let what = match (access_info, request.kind) {
            (Some(info), _) => What::Access(info),
            (None, _) => What::Acknowledge(request.value as u8),
        };
        recorder.begin(Call { model: number as u8, now: request.time.0, what });
        let value = access(model, &mut recorder.host(number, &mut host), at, request, buffer);
        recorder.end(number, answer(value, request, buffer), None);
        value
    }
}

/// What the bus does with an access to a region that is not observed: `None` when it asks the model.
fn answer_as_bus(
    shared: &mut Shared,
    number: usize,
    region: &Region,
    at: Access,
    request: &Message,
    buffer: &mut [u8],
) -> Option<u32> {
    let (kind, width) = (request.kind, at.width.bytes() as usize);
    let is_read = matches!(kind, Kind::Read | Kind::ReadBurst);
    let is_access = is_read || matches!(kind, Kind::Write | Kind::WriteBurst);
    if let Some(backing) = region.backing.filter(|backing| backing.writable && is_access) {
        let len = if matches!(kind, Kind::Read | Kind::Write) { width } else { burst_len(request) };
        let start = usize::try_from(backing.offset.checked_add(at.offset)?).ok()?;
        let memory = shared.device_memory(number).get_mut(start..start.checked_add(len)?)?;
        let mut value = [0; 4];
        match kind {
            Kind::Read => value[..len].copy_from_slice(memory),
            Kind::Write => memory.copy_from_slice(&(request.value as u32).to_le_bytes()[..len]),
            Kind::ReadBurst => buffer[..len].copy_from_slice(memory),
            _ => memory.copy_from_slice(&buffer[..len]),
        }
        return Some(u32::from_le_bytes(value));
    }
    let Reads::Mirrored { first } = region.reads else { return None };
    let cell = |offset: usize| {
        let index = shared.mirror_base(number) + usize::from(first.0) + offset;
        shared.layout().mirror(index).byte()
    };
    let offset = usize::try_from(at.offset).ok()?;
    match kind {
        Kind::Read => {
            let mut value = [0; 4];
            value.iter_mut().take(width).enumerate().for_each(|(n, byte)| *byte = cell(offset + n));
            Some(u32::from_le_bytes(value))
        }
        Kind::ReadBurst => {
            let step = if region.space == Space::Memory { width } else { 0 };
            let len = burst_len(request);
            for (n, byte) in buffer[..len].iter_mut().enumerate() {
                *byte = cell(offset + n / width * step + n % width);
            }
            Some(0)
        }
        _ => None,
    }
}

fn answer(value: Result<u32, IoError>, request: &Message, buffer: &[u8]) -> Answer {
    let status = match value {
        Ok(_) => Status::Done,
        Err(IoError::InvalidRegister) => Status::InvalidRegister,
        Err(IoError::InvalidWidth) => Status::InvalidWidth,
        Err(IoError::NoResponse) => Status::NoResponse,
        Err(IoError::Deferred) => Status::Deferred,
    };
    let is_burst = request.kind == Kind::ReadBurst && value.is_ok();
    let data = if is_burst { ByteBuf::from(&buffer[..burst_len(request)]) } else { ByteBuf::new() };
    Answer { status, value: value.unwrap_or(0), data }
}

/// A request as a recording has it; `None` when it is no access.
fn recorded_access(
    model: &dyn Device,
    number: usize,
    at: Access,
    request: &Message,
    written: &[u8],
) -> Option<format::Access> {
    let kind = match request.kind {
        Kind::Read => AccessKind::Read,
        Kind::Write => AccessKind::Write,
        Kind::ReadBurst => AccessKind::ReadBurst,
        Kind::WriteBurst => AccessKind::WriteBurst,
        Kind::ConfigRead => AccessKind::ConfigRead,
        Kind::ConfigWrite => AccessKind::ConfigWrite,
        Kind::Reset | Kind::InterruptAcknowledge | Kind::Reply | Kind::CodeWritten => return None,
    };
    let value = request.value as u32;
    let (region, offset, selected) = if kind.is_config() {
        (Register::CONFIG.0, request.address, None)
    } else {
        (at.region.0, at.offset, model.selected(at, kind.is_write().then_some(value)))
    };
    Some(format::Access {
        model: number as u8,
        kind,
        region,
        address: request.address,
        offset,
        width: request.width.bytes() as u8,
        posted: request.flags & FLAG_POSTED != 0,
        sequence: request.sequence,
        guest: request.guest,
        value: if kind.is_write() { value } else { 0 },
        data: ByteBuf::from(written),
        len: if matches!(kind, AccessKind::ReadBurst | AccessKind::WriteBurst) {
            burst_len(request) as u32
        } else {
            0
        },
        selected,
    })
}

/// What a model shows the outside now.
fn shown(shared: &Shared, number: usize) -> Shown {
    let held = shared.held_lines[number];
    // PIRQs are held as lines of the board; a pin is one of the function's own.
    let device = u32::from(shared.pci_device[number]);
    let pins = (0..PINS).filter(|pin| held & 1 << (ISA_LINES + ((device + 3 + pin) & 3)) != 0);
    let pins = pins.fold(0, |pins, pin| pins | 1 << (ISA_LINES + pin));
    let mut timers: Vec<_> =
        shared.timers.of(number).map(|(timer, deadline)| (timer.0, deadline.0)).collect();
    timers.sort_unstable();
    let regions = shared.regions_of(number);
    let mirrored = regions.iter().filter_map(|region| match region.reads {
        Reads::Mirrored { first } => Some(first.0..first.0.saturating_add(region.len as u16)),
        Reads::Trap | Reads::Timed { .. } | Reads::Raster | Reads::Ticks(_) | Reads::Counters => None,
    });
    let base = shared.mirror_base(number);
    let mut mirrors: Vec<_> = mirrored
        .flatten()
        .map(|cell| (cell, shared.layout().mirror(base + usize::from(cell)).byte().into()))
        .filter(|(_, value)| *value != 0)
        .collect();
    mirrors.sort_unstable();
    mirrors.dedup();
    Shown {
        lines: held & ((1 << ISA_LINES) - 1) | pins,
        timers,
        mirrors,
        regions: regions.iter().map(RegionInfo::of).collect(),
    }
}

fn header(identity: &Identity, models: &[Box<dyn Device>], found: crate::outside::Found) -> Header {
    Header {
        device: identity.device.clone(),
        build: env!("CARGO_PKG_VERSION").into(),
        machine: Machine::of(&identity.config),
        start_unix_seconds: identity.start_unix_seconds,
        models: models.iter().map(|model| model_info(model.as_ref())).collect(),
        found,
    }
}

/// A model as a recording has it.
pub fn model_info(model: &dyn Device) -> ModelInfo {
    let pci = model.pci_address();
    let standard: &[Register] = if pci.is_some() { &PCI_HEADER } else { &[] };
    let own = model.registers();
    // A model may name a register of the header better.
    let unnamed = |r: &&Register| !own.iter().any(|o| o.region == Register::CONFIG && o.offset == r.offset);
    let registers = standard.iter().filter(unnamed).chain(&own).map(RegisterInfo::of).collect();
    ModelInfo {
        name: model.name().into(),
        pci: pci.map(|address| (address.bus, address.device, address.function)),
        memory_len: model.device_memory_len(),
        regions: model.regions().iter().map(RegionInfo::of).collect(),
        registers,
    }
}

impl RegisterInfo {
    fn of(register: &Register) -> Self {
        Self {
            region: register.region.0,
            offset: register.offset,
            width: register.width.bytes() as u8,
            index: register.index,
            name: register.name.into(),
            fields: register.fields.iter().map(|(name, mask)| ((*name).into(), *mask)).collect(),
        }
    }
}
