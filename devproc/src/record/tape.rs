//! Writes a recording while models are called.
//!
//! [`Recorder::host`] gives the model a [`Host`] that passes everything on and notes what the model
//! learnt and did. Before a model is called, everything up to that call is in the file: when the call kills
//! the process, the recording ends with it.

use super::deeds::{Doings, FIRST_PIN};
use super::format::{
    Access, Answer, Call, Deed, Entry, Header, Learnt, Outcome, PictureHash, Start, encode, preamble,
};
use crate::device::{CounterId, MirrorSlot, Region, RegionId, TimerId};
use crate::host::{
    A20Source, DmaChannel, DmaDirection, DmaError, DmaOutcome, Host, IntxPin, IrqLines, ResetRequest,
    SerialCable,
};
use crate::isa_dma;
use crate::outside::Outside;
use crate::process::pack_channel;
use ipc::counter::{Counting, Latch};
use ipc::host_clock::host_nanos;
use ipc::mirror::Mirrored;
use ipc::raster::Raster;
use ipc::time::VirtualTime;
use ipc_channel::ipc::IpcBytesSender;
use serde_bytes::ByteBuf;
use std::fs::File;
use std::io::Write;

/// So much is gathered before it is written, where nothing can go wrong meanwhile.
const WORTH_WRITING: usize = 64 << 10;

/// Where a recording goes.
pub enum Sink {
    /// A file of this process.
    File(File),
    /// Somebody who writes it: this process may open no file.
    Channel(IpcBytesSender),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::File(file) => file.write_all(bytes).map_err(|error| error.to_string()),
            Self::Channel(channel) => channel.send(bytes).map_err(|error| error.to_string()),
        }
    }
}

/// Writes a recording.
pub struct Recorder {
    sink: Sink,
    buffer: Vec<u8>,
    doings: Vec<Doings>,
    learnt: Vec<Learnt>,
    outside: Outside,
    failure: Option<String>,
}

impl Recorder {
    /// Records to `sink`, which got nothing yet, or, when there is no header, the parts before.
    pub fn new(sink: Sink, header: Option<Header>, outside: &Outside) -> Self {
        let mut recorder = Self {
            sink,
            buffer: Vec::with_capacity(WORTH_WRITING),
            doings: Vec::new(),
            learnt: Vec::new(),
            outside: outside.clone(),
            failure: None,
        };
        if let Some(header) = header {
            recorder.buffer.extend(preamble());
            recorder.write(&Entry::Header(Box::new(header)));
        }
        recorder.outside.listen(true);
        recorder
    }

    /// Why nothing more can be recorded, if so. Said once.
    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    fn write(&mut self, entry: &Entry) {
        encode(entry, &mut self.buffer);
        if self.buffer.len() >= WORTH_WRITING {
            self.flush();
        }
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) {
        if !self.buffer.is_empty()
            && let Err(error) = self.sink.write(&self.buffer)
        {
            self.failure = Some(error);
        }
        self.buffer.clear();
    }

    /// Where it goes, for a successor.
    pub fn channel(&self) -> Option<IpcBytesSender> {
        match &self.sink {
            Sink::File(_) => None,
            Sink::Channel(channel) => Some(channel.clone()),
        }
    }

    /// A section starts.
    pub fn start(&mut self, start: Start) {
        self.doings = start.models.iter().map(|model| Doings::new(&model.shown)).collect();
        self.write(&Entry::Start(Box::new(start)));
        self.flush();
    }

    /// A model is going to be called.
    pub fn begin(&mut self, call: Call) {
        if let Some(doings) = self.doings.get_mut(usize::from(call.model)) {
            doings.begin(&call.what);
        }
        self.write(&Entry::Call(call));
        self.flush();
    }

    /// The host for that call.
    pub fn host<'a>(&'a mut self, model: usize, inner: &'a mut dyn Host) -> TapedHost<'a> {
        TapedHost { inner, learnt: (&mut self.learnt).into(), doings: &mut self.doings[model] }
    }

    /// It was called.
    pub fn end(&mut self, model: usize, answer: Answer, picture: Option<PictureHash>) {
        for learnt in std::mem::take(&mut self.learnt) {
            self.write(&Entry::Learnt(learnt));
        }
        for act in self.outside.take_acts() {
            self.doings[model].image(act.clone());
            self.write(&Entry::Learnt(Learnt::Image(act)));
        }
        let deeds = self.doings[model].finish();
        self.write(&Entry::Outcome(Outcome { answer, deeds, picture }));
    }

    /// An access that the bus would have answered.
    pub fn bus(&mut self, access: Access, answer: Answer) {
        self.write(&Entry::Bus(access, answer));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.outside.listen(false);
        #[cfg(test)]
        if std::thread::panicking() {
            // Tests let a process die as by SIGKILL: what was not written is lost.
            return;
        }
        if !std::thread::panicking() {
            self.write(&Entry::End { host_nanos: host_nanos() });
        }
        self.flush();
    }
}

/// What is learnt, also through `&self`.
struct Notes<'a>(std::cell::RefCell<&'a mut Vec<Learnt>>);

impl<'a> From<&'a mut Vec<Learnt>> for Notes<'a> {
    fn from(list: &'a mut Vec<Learnt>) -> Self {
        Self(std::cell::RefCell::new(list))
    }
}

impl Notes<'_> {
    fn push(&self, learnt: Learnt) {
        self.0.borrow_mut().push(learnt);
    }
}

/// A host that notes what passes through it.
pub struct TapedHost<'a> {
    inner: &'a mut dyn Host,
    learnt: Notes<'a>,
    doings: &'a mut Doings,
}

impl Host for TapedHost<'_> {
    fn now(&self) -> VirtualTime {
        self.inner.now()
    }
    fn arm_timer(&mut self, timer: TimerId, deadline: VirtualTime) {
        self.doings.timer(timer.0, Some(deadline.0));
        self.inner.arm_timer(timer, deadline);
    }
    fn cancel_timer(&mut self, timer: TimerId) {
        self.doings.timer(timer.0, None);
        self.inner.cancel_timer(timer);
    }
    fn set_irq(&mut self, irq: u8, level: bool) {
        self.doings.line(irq & (FIRST_PIN - 1), level);
        self.inner.set_irq(irq, level);
    }
    fn set_intx(&mut self, pin: IntxPin, level: bool) {
        self.doings.line(FIRST_PIN + pin as u8, level);
        self.inner.set_intx(pin, level);
    }
    fn dma_read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), DmaError> {
        let outcome = self.inner.dma_read(address, buffer);
        let data = outcome.is_ok().then(|| ByteBuf::from(&*buffer));
        self.learnt.push(Learnt::Dma { address, len: buffer.len() as u64, data });
        outcome
    }
    fn dma_write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.doings.dma(address, data);
        let outcome = self.inner.dma_write(address, data);
        self.learnt.push(Learnt::DmaTaken { address, taken: outcome.is_ok() });
        outcome
    }
    fn isa_dma(&mut self, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome {
        isa_dma::transfer(self, channel, direction, buffer)
    }
    fn set_dreq(&mut self, channel: u8, level: bool) {
        self.doings.dreq(channel, level);
        self.inner.set_dreq(channel, level);
    }
    fn device_memory(&mut self) -> &mut [u8] {
        self.inner.device_memory()
    }
    fn update_region(&mut self, region: Region) {
        self.doings.region(&region);
        self.inner.update_region(region);
    }
    fn publish_mirror(&mut self, slot: MirrorSlot, value: u32) {
        self.doings.mirror(slot.0, value);
        self.inner.publish_mirror(slot, value);
    }
    fn publish_timed(&mut self, slot: MirrorSlot, content: Mirrored) {
        // No part of what the model does: while it is recorded, such registers are asked for.
        self.inner.publish_timed(slot, content);
    }
    fn publish_raster(&mut self, raster: Option<Raster>) {
        self.inner.publish_raster(raster);
    }
    fn publish_latch(&mut self, latch: u32) {
        self.inner.publish_latch(latch);
    }
    fn publish_counter(&mut self, counter: CounterId, counting: Option<Counting>, latch: Latch) {
        self.inner.publish_counter(counter, counting, latch);
    }
    fn complete_deferred(&mut self, value: u32) {
        self.doings.other(Deed::Late(value));
        self.inner.complete_deferred(value);
    }
    fn set_a20(&mut self, source: A20Source, enabled: bool) {
        self.doings.a20(source as u8, enabled);
        self.inner.set_a20(source, enabled);
    }
    fn request_reset(&mut self, reset: ResetRequest) {
        self.doings.other(Deed::Reset(reset as u8));
        self.inner.request_reset(reset);
    }
    fn power_off(&mut self) {
        self.doings.other(Deed::PowerOff);
        self.inner.power_off();
    }
    fn debug_text(&mut self, byte: u8) {
        self.doings.text(byte);
        self.inner.debug_text(byte);
    }
    fn serial_cable(&self, port: u8) -> SerialCable {
        let cable = self.inner.serial_cable(port);
        self.learnt.push(Learnt::Cable(port, cable.connected, cable.taken, cable.sent));
        cable
    }
    fn serial_peek(&self, port: u8, at: u64) -> Option<u8> {
        let byte = self.inner.serial_peek(port, at);
        self.learnt.push(Learnt::Serial(port, at, byte));
        byte
    }
    fn serial_taken(&mut self, port: u8, taken: u64) {
        self.doings.other(Deed::SerialTaken(port, taken));
        self.inner.serial_taken(port, taken);
    }
    fn serial_put(&mut self, port: u8, at: u64, byte: u8) {
        self.doings.other(Deed::SerialPut(port, at, byte));
        self.inner.serial_put(port, at, byte);
    }
    fn serial_sent(&mut self, port: u8, sent: u64) {
        self.doings.other(Deed::SerialSent(port, sent));
        self.inner.serial_sent(port, sent);
    }
    fn irq_lines(&self) -> IrqLines {
        let lines = self.inner.irq_lines();
        self.learnt.push(Learnt::Lines(lines.isa_levels, lines.isa_edges, lines.pirq_levels));
        lines
    }
    fn set_interrupt_request(&mut self, vector: Option<u8>) {
        self.doings.other(Deed::Interrupt(vector));
        self.inner.set_interrupt_request(vector);
    }
    fn dma_channel(&self, channel: u8) -> DmaChannel {
        let state = self.inner.dma_channel(channel);
        self.learnt.push(Learnt::Channel(channel, pack_channel(&state), state.request));
        state
    }
    fn set_dma_channel(&mut self, channel: u8, state: DmaChannel) {
        self.doings.channel(channel, pack_channel(&state));
        self.inner.set_dma_channel(channel, state);
    }
    fn set_shadow_ram(&mut self, base: u32, len: u32, read_ram: bool, write_ram: bool) {
        self.doings.shadow(base, len, read_ram, write_ram);
        self.inner.set_shadow_ram(base, len, read_ram, write_ram);
    }
    fn region(&self, id: RegionId) -> Option<Region> {
        self.inner.region(id)
    }
}
