//! The VMM's end of the link to one device process: posting, calling, waiting.
//!
//! Nothing that comes back is trusted: replies that nobody asked for are dropped, regions are
//! checked, a device that does not answer only makes the guest wait, or read all ones once
//! the supervisor has given it up.

use super::counter::Counters;
use ipc::board::Board;
use ipc::chassis::Chassis;
use ipc::clock::Freeze;
use ipc::host_clock::host_nanos;
use ipc::link::{Link, ModelInfo, Payload, REPLY_SLOTS};
use ipc::message::{FLAG_JOINS, JOINED_BYTES, JOINED_WORD, Kind, Message, Status};
use ipc::mirror::Mirrored;
use ipc::panel::{Panel, ProcessState, RunState, VMM_SLOT, VcpuState};
use ipc::patience::Patience;
use ipc::raster::RasterCell;
use ipc::region::RegionInfo;
use ipc::ring::RingError;
use ipc::segment::{Segment, SegmentNames};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use std::collections::VecDeque;
use std::time::Duration;

/// What a wait costs of the guest's time at most, beyond spinning, host ns. About half of what a process that sleeps needs for its answer,
/// so that the guest's clock keeps up with the host's where that has time for its processes. Little enough that Linux keeps
/// the time-stamp counter, which it gives up for good when its reads of the PIT (two waits) take 0.1 ms three times.
const WAIT_COSTS: u64 = 15_000;
/// Waits of this length are worth a line in the log. Host ns.
const WORTH_A_LINE: u64 = 20_000_000;
/// Ranges of written code that are remembered one by one.
const MAX_WRITTEN_CODE: usize = 1024;
/// How often a long wait looks at the run state.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// The link to one device process.
pub struct DeviceLink {
    link: Link,
    name: String,
    slot: usize,
    memory_name: String,
    memory: Option<Segment>,
    sequence: u64,
    seen_head: u64,
    /// A posted write may not have woken the process yet.
    bell_owed: bool,
    map_seen: u64,
    regions: Vec<RegionInfo>,
    models: Vec<ModelInfo>,
    patience: Patience,
    counters: Counters,
    /// The message sent last, when others may be joined to it.
    run: Option<Run>,
}

/// A write that others may be joined to.
struct Run {
    /// Its number in the ring, from 0.
    index: u64,
    target: (u8, u8, u8, u64),
    joined: u32,
    values: [u64; 2],
}

impl Run {
    fn target(message: &Message) -> (u8, u8, u8, u64) {
        (message.model, message.region, message.width.bytes() as u8, message.address)
    }

    fn of(message: &Message, sequence: u64) -> Self {
        let index = sequence.wrapping_sub(1);
        Self { index, target: Self::target(message), joined: 0, values: [message.value, 0] }
    }

    fn is_of(&self, message: &Message) -> bool {
        self.target == Self::target(message)
    }
}

impl DeviceLink {
    /// Opens the link to the device process `name` in `slot`.
    ///
    /// # Errors
    /// [`ipc::segment::SegmentError`].
    pub fn open(names: &SegmentNames, slot: usize, name: &str) -> Result<Self, ipc::segment::SegmentError> {
        Ok(Self {
            link: Link::open(&names.link(slot))?,
            name: name.into(),
            slot,
            memory_name: names.device_memory(slot),
            memory: None,
            sequence: 0,
            seen_head: 0,
            bell_owed: false,
            map_seen: u64::MAX,
            regions: Vec::new(),
            models: Vec::new(),
            patience: Patience::for_reply(),
            counters: Counters::default(),
            run: None,
        })
    }

    /// Slot of the process on the board.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Whether it answers for its regions: not when its process has been given up.
    pub fn is_on_bus(&self, panel: &Panel) -> bool {
        panel.view().process_state(self.slot) != ProcessState::Offline
    }

    /// How its process is.
    pub fn process_state(&self, panel: &Panel) -> ProcessState {
        ProcessState::of(panel.view().process_state(self.slot), self.link.layout().process.serves())
    }

    /// Name of the device process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its regions, as last read.
    pub fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }

    /// Its models, as last read.
    pub fn models(&self) -> &[ModelInfo] {
        &self.models
    }

    /// Its device memory.
    pub fn memory(&self) -> Option<&Segment> {
        self.memory.as_ref()
    }

    /// Whether the process published a region table that was not read yet.
    #[inline]
    pub fn map_changed(&self) -> bool {
        self.link.layout().region_generation() != self.map_seen
    }

    /// Reads the region table. Regions that make no sense are left out, with an error in the log.
    pub fn read_map(&mut self) {
        let layout = self.link.layout();
        // Odd while the process writes it; a process that died in the middle leaves it odd until
        // its successor publishes anew, and the map seen last stays in force.
        let Some((generation, words)) = layout.regions() else { return };
        if generation == self.map_seen {
            return;
        }
        self.map_seen = generation;
        // What was sent to a process that has gone off the bus may have been forgotten since.
        self.run = None;
        self.models = layout.model_infos();
        let bytes = layout.device_memory_bytes.load(Ordering::Acquire);
        if self.memory.is_none() && bytes > 0 {
            match Segment::open(&self.memory_name) {
                Ok(segment) => self.memory = Some(segment),
                Err(error) => tracing::error!("Device memory of {}: {error}", self.name),
            }
        }
        // Only what is really mapped counts, whatever the process says.
        let mapped = self.memory.as_ref().map_or(0, Segment::len).min(bytes);
        let (good, bad): (Vec<_>, Vec<_>) =
            words.into_iter().map(|words| RegionInfo::decode(words, mapped)).partition(Result::is_ok);
        for error in bad.into_iter().filter_map(Result::err) {
            tracing::error!("{} published {error}", self.name);
        }
        self.regions = good.into_iter().flatten().collect();
        self.link.layout().take_regions(generation);
    }

    /// A mirror cell.
    #[inline]
    pub fn mirror(&self, cell: usize) -> Mirrored {
        self.link.layout().mirror(cell)
    }

    /// How the process lets accesses to one of its regions be made.
    #[inline]
    pub fn raster(&self) -> &RasterCell {
        &self.link.layout().raster
    }

    /// Makes a write to one of its counters, if the process lets that be done. Nothing is on its way to it.
    #[inline]
    pub fn write_counter(&mut self, register: u64, byte: u8, now: impl FnOnce() -> VirtualTime) -> bool {
        self.counters.write(&self.link.layout().counters, register, byte, now)
    }

    /// Makes a read of one of its counters likewise.
    #[inline]
    pub fn read_counter(&mut self, register: u64, now: impl FnOnce() -> VirtualTime) -> Option<u8> {
        self.counters.read(&self.link.layout().counters, register, now)
    }

    /// Whether posted writes are still on their way.
    #[inline]
    pub fn has_pending(&self) -> bool {
        !self.link.layout().requests.is_empty()
    }

    /// Whether the published interrupt request came from this process.
    pub fn is_interrupt_controller(&self, board: &Board) -> bool {
        board.intr.process() == self.slot
    }

    /// Copies the payload of a burst read.
    pub fn take_payload(&self, data: &mut [u8]) -> bool {
        self.link.layout().read_payload(Payload::In, data)
    }

    /// Provides the payload of a burst write. The ring must be empty of earlier bursts, which it
    /// is: bursts are always waited for.
    pub fn put_payload(&self, data: &[u8]) -> bool {
        self.link.layout().write_payload(Payload::Out, data)
    }

    /// Takes events without waiting.
    pub fn take_events(&mut self, written_code: &mut VecDeque<(u64, u64)>) {
        self.take_replies(u64::MAX, written_code);
    }

    /// Waits for the process, or its successor, if it has said that it is about to end.
    pub fn wait_for_return(&mut self, chassis: &Chassis, written_code: &mut VecDeque<(u64, u64)>) {
        let is_there = |link: &Self| link.process_state(chassis.panel()).is_settled();
        if !is_there(self) {
            self.wait(chassis, |link| {
                link.take_replies(u64::MAX, written_code);
                is_there(link)
            });
        }
    }

    /// Sends a message that is not waited for.
    pub fn post(&mut self, chassis: &Chassis, message: Message, written_code: &mut VecDeque<(u64, u64)>) {
        let sequence = self.push(chassis, message, written_code);
        self.run = (message.flags & FLAG_JOINS != 0).then(|| Run::of(&message, sequence));
        let doorbell = chassis.board().doorbell(self.slot);
        if doorbell.is_asleep() {
            doorbell.ring();
        } else {
            self.bell_owed = true;
        }
    }

    /// Joins a write to the message sent last, if that is to the same register and the process has not come to it yet.
    #[inline]
    pub fn join(&mut self, message: &Message) -> bool {
        let Some(run) = &mut self.run else { return false };
        let requests = &self.link.layout().requests;
        let room = run.joined < JOINED_BYTES / message.width.bytes() - 1;
        if !room || run.index.wrapping_add(1) != requests.produced() || !run.is_of(message) {
            self.run = None;
            return false;
        }
        let place = (run.joined + 1) * message.width.bytes();
        let (half, shift) = ((place / 8) as usize & 1, 8 * (place % 8));
        let content = run.values[half] | message.value << shift;
        let word = (JOINED_WORD + half, content);
        if !requests.extend(run.index, word, run.joined.into(), (run.joined + 1).into()) {
            self.run = None;
            return false;
        }
        run.values[half] = content;
        run.joined += 1;
        true
    }

    /// Sends a message and waits for its answer.
    pub fn call(
        &mut self,
        chassis: &Chassis,
        message: Message,
        written_code: &mut VecDeque<(u64, u64)>,
    ) -> Message {
        let sequence = self.push(chassis, message, written_code);
        self.bell_owed = true;
        self.settle_bell(chassis.board());
        let mut answer = None;
        self.wait(chassis, |link| {
            answer = link.take_replies(sequence, written_code);
            answer.is_some()
        });
        answer.unwrap_or(Message { status: Status::NoResponse, ..Message::new(Kind::Reply) })
    }

    /// Waits until everything posted has been handled.
    pub fn drain(&mut self, chassis: &Chassis, written_code: &mut VecDeque<(u64, u64)>) {
        self.settle_bell(chassis.board());
        self.wait(chassis, |link| {
            if link.has_pending() {
                // The process may itself wait for room in the reply ring.
                link.take_replies(u64::MAX, written_code);
            }
            !link.has_pending()
        });
    }

    fn push(
        &mut self,
        chassis: &Chassis,
        mut message: Message,
        written_code: &mut VecDeque<(u64, u64)>,
    ) -> u64 {
        // Both indices are in memory that the device can write: whatever they say, we go on.
        self.sequence = self.link.layout().requests.produced().wrapping_add(1);
        message.sequence = self.sequence;
        let words = message.encode();
        match self.link.layout().requests.push_remembering(words, &mut self.seen_head) {
            Ok(()) => {}
            Err(RingError::Full) => {
                let mut sent = false;
                self.settle_bell(chassis.board());
                self.wait(chassis, |link| {
                    link.take_replies(u64::MAX, written_code);
                    sent = sent || link.link.layout().requests.push(words).is_ok();
                    sent
                });
            }
            Err(error) => tracing::error!("Ring to {}: {error}; the access is lost", self.name),
        }
        self.sequence
    }

    /// Makes sure that the process has noticed, or will notice, what was posted.
    pub fn settle_bell(&mut self, board: &Board) {
        if std::mem::take(&mut self.bell_owed) {
            board.doorbell(self.slot).ring();
        }
    }

    /// Takes what is in the reply ring; returns the reply to `sequence` when it is among it.
    fn take_replies(&mut self, sequence: u64, written_code: &mut VecDeque<(u64, u64)>) -> Option<Message> {
        let replies = &self.link.layout().replies;
        // An honest ring holds no more; one that a hostile process keeps filling ends here too.
        for _ in 0..REPLY_SLOTS {
            let words = match replies.peek() {
                Ok(Some(words)) => words,
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!("Ring from {}: {error}; emptied", self.name);
                    replies.clear();
                    return None;
                }
            };
            replies.advance();
            match Message::decode(words) {
                Some(message) if message.kind == Kind::CodeWritten => {
                    if written_code.len() >= MAX_WRITTEN_CODE {
                        // Too many to remember one by one: all decoded code is to go.
                        written_code.clear();
                        written_code.push_back((0, u64::MAX));
                    }
                    written_code.push_back((message.address, message.value));
                }
                Some(message) if message.kind == Kind::Reply && message.sequence == sequence => {
                    return Some(message);
                }
                // A second reply to something that a predecessor had answered already.
                Some(message) if message.kind == Kind::Reply && message.sequence <= self.sequence => {}
                _ => tracing::error!("{} sent what no device process sends: {words:x?}", self.name),
            }
        }
        None
    }

    /// Waits until `done`; gives up when the VM ends or the device was taken off the bus.
    fn wait(&mut self, chassis: &Chassis, mut done: impl FnMut(&mut Self) -> bool) {
        let patience = self.patience.clone();
        if !patience.spin(|| done(self)) {
            self.wait_long(chassis, done);
        }
    }

    /// The rest of a wait that takes longer than devices do. Guest time stands still until the answer comes, but for
    /// [`WAIT_COSTS`]: a process that is stopped, restarted or short of CPU must neither make the guest's time-outs
    /// expire nor spoil its measurements.
    #[cold]
    fn wait_long(&mut self, chassis: &Chassis, mut done: impl FnMut(&mut Self) -> bool) {
        let started = host_nanos();
        let panel = chassis.panel();
        let vcpu = &panel.vcpu;
        let state_before = vcpu.state.swap(VcpuState::WaitsForDevice as u32, Ordering::Relaxed);
        vcpu.waits_since.store(started, Ordering::Relaxed);
        vcpu.waits_for.store(self.slot as u32 + 1, Ordering::Release);
        let (mut frozen_at, mut offered) = (None, false);
        let mut costs = WAIT_COSTS;
        let mut thaw = |frozen_at: u64| {
            let stood = host_nanos().saturating_sub(frozen_at).min(costs);
            costs -= stood;
            chassis.thaw_ahead(Freeze::DeviceWait, stood);
        };
        let mut stood = false;
        let mut finished = false;
        while !finished {
            let state = self.process_state(panel);
            if state == ProcessState::Offline {
                // Nobody will handle what is in the ring.
                self.link.layout().requests.clear();
                self.run = None;
                break;
            }
            if panel.run_state() == RunState::Stopping {
                // The device still finishes what was posted: a disk write must not be lost.
                break;
            }
            // A device that took the request and defers its answer waits for a timer of its own:
            // time must run for it. One that did not take it is stopped, slow or dead.
            let pending = self.has_pending();
            let stuck = pending || state != ProcessState::Ready;
            if stuck && frozen_at.is_none() {
                panel.clock.freeze(Freeze::DeviceWait);
                frozen_at = Some(host_nanos());
                stood = true;
            } else if !stuck && let Some(frozen_at) = frozen_at.take() {
                thaw(frozen_at);
            }
            let mut patience = self.patience.clone();
            let mut news = || {
                finished = finished || done(self);
                // Time goes on for a device that took the request.
                finished || pending && !self.has_pending()
            };
            if std::mem::replace(&mut offered, true) || !patience.offer(&mut news) {
                chassis.board().doorbell(VMM_SLOT).sleep(Some(LOOK_AROUND), &mut news);
            }
            news();
            self.patience = patience;
        }
        if let Some(frozen_at) = frozen_at {
            thaw(frozen_at);
        }
        if stood {
            let waited = host_nanos().saturating_sub(started);
            if waited >= WORTH_A_LINE {
                ipc::logging::set_context(panel.clock.now(), (0, 0));
                tracing::warn!("Waited {} ms for {}; guest time stood still", waited / 1_000_000, self.name);
            }
        }
        let waited = host_nanos().saturating_sub(started);
        panel.processes[self.slot].waited_nanos.fetch_add(waited, Ordering::Relaxed);
        vcpu.waits_for.store(0, Ordering::Relaxed);
        vcpu.state.store(state_before, Ordering::Relaxed);
        // The CPUs that this process may use can change while it runs; this is off the hot path.
        self.patience.renew(Patience::for_reply());
    }
}
