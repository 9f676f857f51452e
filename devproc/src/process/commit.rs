//! Commits a model's state after each call, and brings a successor to where its predecessor was.
//!
//! Order of one call: model runs (effects held back) -> state, reply and unrepeatable effects
//! are committed with one store -> effects -> reply -> the request leaves the ring. A process
//! that dies before the commit leaves the request for its successor to run; one that dies
//! after it leaves a record from which the successor completes it without running it again.
//!
//! Effects come in two steps. First those that nobody notices by himself (mirrors, DMA channels,
//! regions); then the commit is marked as applied; then those that make others look (lines, the
//! request to the CPU). So once the guest can react, nothing of the first step is ever repeated over
//! what it did. Lines and requests are levels that `Device::attach` drives again from the state;
//! edges beyond the level are counted on the board, so a successor knows which are missing.

use super::crash_point;
use super::effects::{Decisions, Edges, Effect, Record, pack_channel, pack_record, unpack_record};
use super::host::ModelHost;
use super::machine::{DeviceProcess, Shared};
use crate::device::{Device, Parts, ResetKind};
use crate::host::Host;
use crate::record::format::{Answer, Call, What};
use ipc::board::attention;
use ipc::link::StateWriter;
use ipc::message::{Kind, Message, Status};
use ipc::raster::Raster;
use ipc::setup::StartFrom;
use ipc::time::VirtualTime;
use std::io::Write;

/// ISA lines; PIRQs are numbered after them.
const ISA_LINES: u32 = 16;
/// Lines of both kinds.
const ALL_LINES: u32 = ISA_LINES + 4;

/// The request that is being dealt with.
#[derive(Clone, Copy, Debug)]
struct InProgress {
    model: usize,
    sequence: u64,
    reply: Option<Message>,
}

/// What each model's state was when it was last committed, and what goes into the next commit.
#[derive(Debug, Default)]
pub struct Committer {
    writers: Vec<StateWriter>,
    record: Vec<u64>,
    /// Whatever else the request's model commits before the request is done carries its sequence
    /// number and reply too, or a successor would run it again, or never answer.
    in_progress: Option<InProgress>,
    /// Host events that each model has dealt with.
    events: Vec<u64>,
}

impl Committer {
    /// For a process with these models.
    pub fn new(models: &[Box<dyn Device>]) -> Self {
        let writers = models.iter().map(|model| StateWriter::new(model.parts())).collect();
        Self { writers, events: vec![0; models.len()], ..Self::default() }
    }

    /// From here to [`Committer::end`], what model `model` commits includes request `sequence`.
    #[inline]
    pub fn begin(&mut self, model: usize, sequence: u64, reply: Option<Message>) {
        self.in_progress = Some(InProgress { model, sequence, reply });
    }

    /// The request is done.
    #[inline]
    pub fn end(&mut self) {
        self.in_progress = None;
    }

    /// Notes that model `number` deals with host event number `count`. False when it did before.
    pub fn sees_event(&mut self, number: usize, count: u64) -> bool {
        let new = self.events[number] < count;
        self.events[number] = self.events[number].max(count);
        new
    }

    /// Commits `state`, of `version`, for a model that does nothing at present.
    pub fn commit_as(&mut self, number: usize, version: u16, state: &[u8], shared: &Shared) {
        let deferred = shared.deferred[number].unwrap_or(0);
        let events = self.events[number];
        let decisions = Decisions::<Message> { reply: None, late_reply: None, events, deferred };
        pack_record(&decisions, &[], |_| (false, 0), &mut self.record);
        let page = &shared.layout().states[number];
        if !page.commit(shared.layout().requests.consumed(), version, &self.record, state) {
            tracing::error!("State of model {number} is too large to commit ({} bytes)", state.len());
        }
        page.set_applied();
    }

    /// Commits `model`'s state if it changed or if it did something.
    pub fn commit(&mut self, number: usize, model: &mut dyn Device, shared: &Shared) {
        let changed = model.take_changed_parts();
        let only_shown = shared.effects.iter().all(Effect::is_only_shown);
        if changed == 0 && only_shown && shared.deferred[number].is_none() {
            return;
        }
        let writer = &mut self.writers[number];
        save_changed(model, changed, writer);
        let own = self.in_progress.as_ref().filter(|request| request.model == number);
        let late_reply;
        let mut decisions = Decisions {
            reply: own.and_then(|request| request.reply.as_ref()),
            late_reply: None,
            events: self.events[number],
            deferred: 0,
        };
        if let Some(sequence) = shared.deferred[number] {
            let value = shared.effects.iter().find_map(|effect| match effect {
                Effect::Deferred(value) => Some(u64::from(*value)),
                _ => None,
            });
            match value {
                Some(value) => {
                    late_reply = Message { sequence, value, ..Message::new(Kind::Reply) };
                    decisions.late_reply = Some(&late_reply);
                }
                None => decisions.deferred = sequence,
            }
        }
        let line = |irq| {
            let held = shared.held_lines[number] & 1u32 << irq != 0;
            (held, shared.board().lines.edges_of(irq))
        };
        pack_record(&decisions, &shared.effects, line, &mut self.record);
        let sequence = own.map_or_else(|| shared.layout().requests.consumed(), |request| request.sequence);
        let page = &shared.layout().states[number];
        if !writer.commit(page, sequence, model.state_version(), &self.record) {
            tracing::error!(
                "State of {} is too large to commit: it cannot be restarted from here",
                model.name()
            );
        }
    }

    /// Commits the first state of a model.
    fn commit_first(&mut self, number: usize, model: &mut dyn Device, shared: &Shared) {
        // It must exist even for a model that says it did not change.
        let _ = model.take_changed_parts();
        let writer = &mut self.writers[number];
        save_changed(model, writer.all(), writer);
        let page = &shared.layout().states[number];
        if !writer.commit(page, shared.layout().requests.consumed(), model.state_version(), &[]) {
            tracing::error!("State of {} is too large to commit: it cannot be restarted", model.name());
        }
    }
}

/// Gives `writer` the parts of a model's state that changed, and those that it never had.
#[inline]
pub(super) fn save_changed(model: &dyn Device, changed: Parts, writer: &mut StateWriter) {
    let mut parts = (changed | writer.missing()) & writer.all();
    while parts != 0 {
        let part = parts.trailing_zeros() as usize;
        parts &= parts - 1;
        model.save_part(part, writer.part(part));
    }
}

/// A model that goes on from what its predecessor committed.
struct Resumed {
    number: usize,
    sequence: u64,
    applied: bool,
    record: Record,
}

impl DeviceProcess {
    /// Starts the models afresh, or goes on from what a predecessor committed.
    pub(super) fn start(&mut self, from: StartFrom) {
        let now = self.shared.clock().now();
        if from == StartFrom::Cold {
            self.let_go_of_what_is_deferred(now);
        }
        self.withdraw_counters();
        let models = if from == StartFrom::Committed { 0..self.models.len() } else { 0..0 };
        let resumed: Vec<_> = models.filter_map(|number| self.load(number)).collect();
        let head = self.shared.layout().requests.peek().ok().flatten().and_then(Message::decode);
        let next = self.next_sequence();
        // Every model resets again: that is harmless, and which of them did is not in one place.
        let committed = head.filter(|request| request.kind != Kind::Reset).and_then(|request| {
            let is_it = |r: &&Resumed| r.number == usize::from(request.model) && r.sequence >= next;
            resumed.iter().find(is_it).map(|r| (request, r.record.decisions.reply))
        });
        if let Some((request, _)) = &committed
            && request.kind == Kind::InterruptAcknowledge
        {
            // Before the controller publishes its next request, which would be ignored otherwise.
            self.shared.board().intr.acknowledge_arrived(request.address as u32);
        }
        self.starting = true;
        for number in 0..self.models.len() {
            let fresh = !resumed.iter().any(|r| r.number == number);
            self.attach(number, fresh, now);
        }
        for Resumed { number, record, .. } in resumed.iter().filter(|r| !r.applied) {
            self.shared.effects.extend(&record.effects);
            self.apply_effects(*number, now);
            self.shared.layout().states[*number].set_applied();
        }
        self.starting = false;
        crash_point();
        // A line that the predecessor held and no model holds now is let go.
        for line in 0..ALL_LINES {
            self.publish_line(line);
        }
        self.shared.publish_regions();
        crash_point();
        for Resumed { number, record, .. } in &resumed {
            for edges in &record.edges {
                self.repeat_edges(*number, *edges);
            }
            // One that was taken already is ignored.
            if let Some(reply) = &record.decisions.late_reply {
                self.send(reply);
            }
        }
        crash_point();
        if let Some((request, reply)) = committed {
            if let Some(reply) = reply
                && !self.already_replied(reply.sequence)
            {
                self.send(&reply);
            }
            crash_point();
            self.shared.layout().requests.advance();
            tracing::info!("Completed request {}, which the predecessor had committed", request.sequence);
        }
        // Whatever the predecessor changed last, it may not have said so.
        self.shared.board().announce(self.shared.slot);
        self.lines_seen = self.shared.board().lines.generation().wrapping_sub(1);
        self.follow_lines(now);
        for number in 0..self.models.len() {
            // What changed by attaching.
            self.settle(number, now);
        }
        self.show_counters();
    }

    /// Answers the access that the predecessor had deferred: the answer that it would have got is lost.
    fn let_go_of_what_is_deferred(&self, now: VirtualTime) {
        for page in &self.shared.layout().states {
            let deferred =
                page.committed().map_or(0, |state| unpack_record(&state.record).decisions.deferred);
            if deferred != 0 {
                let lost = Message { status: Status::NoResponse, time: now, ..Message::new(Kind::Reply) };
                self.send(&Message { sequence: deferred, ..lost });
            }
        }
    }

    /// Loads what was committed for a model, if anything was and the model takes it.
    fn load(&mut self, number: usize) -> Option<Resumed> {
        let state = self.shared.layout().states[number].committed()?;
        let model = &mut self.models[number];
        if let Err(error) = model.load(state.version, &state.data) {
            tracing::error!("{} starts cold, its state was refused: {error}", model.name());
            return None;
        }
        self.take_latch(number);
        self.import_counters(number);
        let record = unpack_record(&state.record);
        self.shared.deferred[number] = Some(record.decisions.deferred).filter(|sequence| *sequence != 0);
        // At most the event at hand can have been dealt with.
        let events = self.shared.layout().events.consumed().wrapping_add(1);
        self.committer.events[number] = record.decisions.events.min(events);
        Some(Resumed { number, sequence: state.sequence, applied: state.applied, record })
    }

    fn attach(&mut self, number: usize, fresh: bool, now: VirtualTime) {
        let Self { models, shared, committer, .. } = self;
        let model = models[number].as_mut();
        let mut host = ModelHost { shared, model: number, now };
        model.attach(&mut host);
        if fresh {
            model.reset(ResetKind::PowerOn, &mut host);
            committer.commit_first(number, model, shared);
        }
        self.apply_effects(number, now);
    }

    /// Makes the edges of a line that the predecessor had committed but not made.
    fn repeat_edges(&mut self, number: usize, edges: Edges) {
        let irq = u32::from(edges.irq);
        let made = self.shared.board().lines.edges_of(edges.irq).wrapping_sub(edges.before);
        let level = self.shared.held_lines[number] & 1 << irq != 0;
        for _ in made..edges.rises {
            self.drive_line(number, irq, !level);
            self.drive_line(number, irq, level);
        }
    }

    /// Sequence number of the oldest request that was not completed.
    fn next_sequence(&self) -> u64 {
        self.shared.layout().requests.consumed().wrapping_add(1)
    }

    /// Whether the reply to `sequence` is still in the reply ring: sent, not yet taken. A reply
    /// that was taken implies that nobody waits for it, and the VMM ignores a second one.
    fn already_replied(&self, sequence: u64) -> bool {
        let last = self.shared.layout().replies.peek_last();
        last.is_some_and(|words| words[0] == sequence)
    }

    /// Does what the model wanted done, now that its state is committed.
    pub(super) fn apply_effects(&mut self, number: usize, now: VirtualTime) {
        let mut regions_changed = false;
        let mut recorded = false;
        for index in 0..self.shared.effects.len() {
            let effect = self.shared.effects[index];
            if effect.comes_first() {
                recorded |= effect.is_recorded();
                self.apply(number, effect, now, &mut regions_changed);
                crash_point();
            }
        }
        if regions_changed && !self.starting {
            self.shared.publish_regions();
            self.shared.board().call_vcpu(attention::MAP);
        }
        if recorded && !self.starting {
            self.shared.layout().states[number].set_applied();
            crash_point();
        }
        self.give_counters(number);
        for index in 0..self.shared.effects.len() {
            let effect = self.shared.effects[index];
            if !effect.comes_first() {
                self.apply(number, effect, now, &mut regions_changed);
                crash_point();
            }
        }
        self.shared.effects.clear();
    }

    fn apply(&mut self, number: usize, effect: Effect, now: VirtualTime, regions_changed: &mut bool) {
        let slot = self.shared.slot;
        match effect {
            Effect::Irq(irq, level) => self.drive_line(number, u32::from(irq & 15), level),
            Effect::Intx(pin, level) => {
                // PIRQ swizzle of the i440FX board: device n's INTA# is PIRQ (n - 1) mod 4.
                let device = u32::from(self.shared.pci_device[number]);
                let pirq = (device + 3 + pin as u32) & 3;
                self.drive_line(number, ISA_LINES + pirq, level);
            }
            Effect::Dreq(channel, level) => self.shared.board().set_dreq(channel, level),
            Effect::Dma(channel, state) => {
                self.shared.board().set_dma_channel(channel, pack_channel(&state));
            }
            Effect::A20(source, enabled) => self.shared.board().set_a20(source as u32, enabled),
            Effect::Reset(kind) => self.shared.board().request_reset(kind),
            Effect::PowerOff => self.shared.board().request_power_off(),
            Effect::Interrupt(vector) => {
                let board = self.shared.board();
                if board.intr.publish(vector, slot as u8, number as u8) {
                    board.call_vcpu(attention::INTR);
                }
            }
            Effect::Mirror(cell, content) => {
                let index = self.shared.mirror_base(number) + usize::from(cell.0);
                if !self.shared.layout().set_mirror(index, content) {
                    tracing::error!("Mirror cell {index} does not exist");
                }
            }
            Effect::Raster(raster) => {
                let base = self.shared.memory_base(number);
                let raster = raster.map(|raster| Raster { offset: raster.offset + base, ..raster });
                self.shared.layout().raster.publish(raster.as_ref());
            }
            Effect::Latch(latch) => self.shared.layout().raster.set_latch(latch),
            Effect::Counter(counter, counting, latch) => {
                self.publish_counter(number, counter, counting, latch);
            }
            Effect::Shadow { base, len, read, write } => {
                self.shared.board().set_shadow(base, len, read, write);
            }
            Effect::Regions => *regions_changed = true,
            Effect::CodeWritten(address, len) => {
                self.send(&Message { address, value: len, time: now, ..Message::new(Kind::CodeWritten) });
                self.shared.board().call_vcpu(attention::CODE_WRITTEN);
            }
            Effect::DebugText(byte) => {
                if let Some(console) = &mut self.shared.console
                    && let Err(error) = console.write_all(&[byte])
                {
                    tracing::error!("Debug console: {error}; its text is dropped from here on");
                    self.shared.console = None;
                }
            }
            Effect::SerialTaken(port, taken) => {
                if let Some(cables) = &self.shared.serial {
                    cables.set_taken(port.into(), taken);
                }
            }
            Effect::SerialSent(port, sent) => {
                if let Some(cables) = &self.shared.serial {
                    cables.set_sent(port.into(), sent);
                }
            }
            Effect::Deferred(value) => {
                if let Some(sequence) = self.shared.deferred[number].take() {
                    let value = value.into();
                    self.send(&Message { sequence, value, time: now, ..Message::new(Kind::Reply) });
                }
            }
        }
    }

    /// Drives model `number`'s share of line `line` (0-15 ISA, 16-19 PIRQ) and, through the OR of
    /// all models here, the process's.
    fn drive_line(&mut self, number: usize, line: u32, level: bool) {
        let bit = 1 << line;
        let held = &mut self.shared.held_lines[number];
        *held = if level { *held | bit } else { *held & !bit };
        if !self.starting {
            self.publish_line(line);
        }
    }

    fn publish_line(&mut self, line: u32) {
        let any = self.shared.held_lines.iter().any(|lines| lines & 1 << line != 0);
        let level = if self.shared.injector.is_idle() { any } else { self.strike_line(line, any) };
        self.show_line(line, level);
    }

    /// What the machine is to see of a line, with the faults that it has.
    #[cold]
    fn strike_line(&mut self, line: u32, level: bool) -> bool {
        let mut injector = std::mem::take(&mut self.shared.injector);
        let shown = injector.line(self.shared.layout(), || self.shared.clock().now(), line, level);
        self.shared.injector = injector;
        shown
    }

    /// Has the machine see a line as it is.
    pub(super) fn show_line(&self, line: u32, any: bool) {
        let board = self.shared.board();
        let changed = if line < ISA_LINES {
            board.lines.set_isa(line as u8, self.shared.slot, any)
        } else {
            board.lines.set_pirq((line - ISA_LINES) as u8, self.shared.slot, any)
        };
        if changed {
            board.wake_watchers(self.shared.slot);
        }
    }

    /// Lets the models that watch lines see changes, until there are no new ones.
    pub(super) fn follow_lines(&mut self, now: VirtualTime) {
        if self.watchers.is_empty() {
            return;
        }
        // A router and a controller in one process need two rounds; more would be an oscillation.
        for _ in 0..8 {
            let generation = self.shared.board().lines.generation();
            if generation == self.lines_seen {
                return;
            }
            self.lines_seen = generation;
            for index in 0..self.watchers.len() {
                let number = self.watchers[index];
                self.call(number, now, || What::Lines, |model, host| model.lines_changed(host));
            }
        }
    }

    /// Has a model take notice of what the bus loaded into its latch.
    #[inline]
    pub(super) fn take_latch(&mut self, number: usize) {
        if let Some(latch) = self.shared.layout().raster.loaded_by_bus() {
            self.models[number].latch_loaded(latch);
        }
    }

    /// Runs one call of a model that is no request: commit, effects. `what` says for a recording what it is.
    pub(super) fn call(
        &mut self,
        number: usize,
        now: VirtualTime,
        what: impl FnOnce() -> What,
        call: impl FnOnce(&mut dyn Device, &mut dyn Host),
    ) {
        self.take_counters(number);
        let began = self.stopwatch.begin();
        let Self { models, shared, tape, .. } = self;
        let model = models[number].as_mut();
        let mut host = ModelHost { shared, model: number, now };
        match tape.recorder() {
            None => call(model, &mut host),
            Some(recorder) => {
                recorder.begin(Call { model: number as u8, now: now.0, what: what() });
                call(model, &mut recorder.host(number, &mut host));
                recorder.end(number, Answer::default(), None);
            }
        }
        self.stopwatch.end(began, &self.shared.layout().models[number]);
        self.settle(number, now);
    }

    /// Commits what a call changed, and does what the model wanted done.
    fn settle(&mut self, number: usize, now: VirtualTime) {
        let Self { models, shared, committer, .. } = self;
        crash_point();
        committer.commit(number, models[number].as_mut(), shared);
        crash_point();
        self.apply_effects(number, now);
    }
}
