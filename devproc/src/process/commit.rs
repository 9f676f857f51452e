//! Commits a model's state after each call, and brings a successor to where its predecessor was.
//!
//! Order of one call: model runs (effects held back) -> state, reply and unrepeatable effects
//! are committed with one store -> effects -> reply -> the request leaves the ring. A process
//! that dies before the commit leaves the request for its successor to run; one that dies
//! after it leaves a record from which the successor completes it without running it again.

use super::effects::{Effect, pack_channel, pack_record, unpack_record};
use super::host::ModelHost;
use super::machine::{DeviceProcess, Shared};
use crate::device::{Device, ResetKind};
use ipc::board::attention;
use ipc::message::{Kind, MESSAGE_WORDS, Message};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use std::io::Write;

/// Buffers for commits: filled anew each time, allocated once.
#[derive(Debug, Default)]
pub struct Committer {
    state: Vec<u8>,
    record: Vec<u64>,
}

impl Committer {
    /// Commits `model`'s state if it changed. `sequence` is that of the request it includes.
    pub fn commit(
        &mut self,
        number: usize,
        model: &mut dyn Device,
        sequence: u64,
        reply: Option<&Message>,
        shared: &Shared,
    ) {
        if !model.take_changed() {
            return;
        }
        self.state.clear();
        model.save(&mut self.state);
        pack_record(reply, &shared.effects, &mut self.record);
        let page = &shared.layout().states[number];
        if !page.commit(sequence, model.state_version(), &self.record, &self.state) {
            tracing::error!(
                "State of {} is too large to commit ({} bytes): it cannot be restarted from here",
                model.name(),
                self.state.len()
            );
        }
    }
}

impl DeviceProcess {
    /// Starts the models afresh, or goes on from what a predecessor committed.
    pub(super) fn start(&mut self, resume: bool) {
        let now = self.shared.board().clock.now();
        let mut resumed_at = vec![None; self.models.len()];
        let mut repeat = Vec::new();
        for number in 0..self.models.len() {
            let committed = self.shared.layout().states[number].committed().filter(|_| resume);
            if let Some(state) = committed {
                let model = &mut self.models[number];
                match model.load(state.version, &state.data) {
                    Ok(()) => {
                        resumed_at[number] = Some(state.sequence);
                        repeat.push((number, state));
                    }
                    Err(error) => {
                        tracing::error!("{} starts cold, its state was refused: {error}", model.name());
                    }
                }
            }
            let fresh = resumed_at[number].is_none();
            let Self { models, shared, .. } = self;
            let mut host = ModelHost { shared, model: number, now };
            models[number].attach(&mut host);
            if fresh {
                models[number].reset(ResetKind::PowerOn, &mut host);
            }
            if fresh {
                let next = self.next_sequence() - 1;
                // A first state must exist even for a model that says it did not change.
                let _ = self.models[number].take_changed();
                self.committer.state.clear();
                self.models[number].save(&mut self.committer.state);
                let version = self.models[number].state_version();
                let page = &self.shared.layout().states[number];
                let _ = page.commit(next, version, &[0], &self.committer.state);
            }
            self.apply_effects(number, now);
        }
        // A line that the predecessor held and no model holds now is let go.
        for line in 0..20 {
            let held = self.shared.held_lines.first().is_some_and(|lines| lines & 1 << line != 0);
            if !self.shared.held_lines.is_empty() {
                self.drive_line(0, line, held);
            }
        }
        self.shared.publish_regions();
        if resume {
            self.complete_committed_request(repeat, now);
        }
        // Lines may have changed while nobody looked.
        self.lines_seen = self.shared.board().lines.generation().wrapping_sub(1);
        self.follow_lines(now);
    }

    /// Sequence number of the oldest request that was not completed.
    pub(super) fn next_sequence(&self) -> u64 {
        let requests = &self.shared.layout().requests;
        requests.produced() - requests.len().unwrap_or(0) + 1
    }

    /// If the predecessor committed the oldest request but died before it left the ring: repeat
    /// what may not have been done of it.
    fn complete_committed_request(
        &mut self,
        committed: Vec<(usize, ipc::link::CommittedState)>,
        now: VirtualTime,
    ) {
        let next = self.next_sequence();
        let Ok(Some(words)) = self.shared.layout().requests.peek() else { return };
        let Some(request) = Message::decode(words) else { return };
        if matches!(request.kind, Kind::Reset) {
            // Every model resets again: that is harmless, and which of them did is not in one place.
            return;
        }
        let done = committed
            .iter()
            .find(|(number, state)| *number == usize::from(request.model) && state.sequence >= next);
        let Some((number, state)) = done else { return };
        let (reply, effects) = unpack_record(&state.record);
        self.shared.effects.extend(effects);
        self.apply_effects(*number, now);
        if request.kind == Kind::InterruptAcknowledge {
            self.shared.board().intr.acknowledge_arrived();
        }
        if let Some(reply) = reply
            && !self.already_replied(reply.sequence)
        {
            self.send(&reply);
        }
        self.shared.layout().requests.advance();
        tracing::info!("Completed request {next}, which the predecessor had committed");
    }

    /// Whether the reply to `sequence` is still in the reply ring: sent, not yet taken. A reply
    /// that was taken implies that nobody waits for it, and the VMM ignores a second one.
    fn already_replied(&self, sequence: u64) -> bool {
        self.shared
            .layout()
            .replies
            .peek_last()
            .is_some_and(|words: [u64; MESSAGE_WORDS]| words[0] == sequence)
    }

    /// Does what the model wanted done, now that its state is committed.
    pub(super) fn apply_effects(&mut self, number: usize, now: VirtualTime) {
        let mut regions_changed = false;
        // What the guest can read without asking comes before what can make it read: an
        // interrupt handler that finds the old status in the mirror page would do nothing, and
        // no further edge would come.
        for mirrors in [true, false] {
            for index in 0..self.shared.effects.len() {
                let effect = self.shared.effects[index];
                if matches!(effect, Effect::Mirror(..)) == mirrors {
                    self.apply(number, effect, now, &mut regions_changed);
                }
            }
        }
        self.shared.effects.clear();
        if regions_changed {
            self.shared.publish_regions();
            self.shared.board().call_vcpu(attention::MAP);
        }
    }

    fn apply(&mut self, number: usize, effect: Effect, now: VirtualTime, regions_changed: &mut bool) {
        let slot = self.shared.slot;
        match effect {
            Effect::Irq(irq, level) => self.drive_line(number, u32::from(irq & 15), level),
            Effect::Intx(pin, level) => {
                // PIRQ swizzle of the i440FX board: device n's INTA# is PIRQ (n - 1) mod 4.
                let device = u32::from(self.shared.pci_device[number]);
                let pirq = (device + 3 + pin as u32) & 3;
                self.drive_line(number, 16 + pirq, level);
            }
            Effect::Dreq(channel, level) => self.shared.board().set_dreq(channel, level),
            Effect::Dma(channel, state) => {
                self.shared.board().set_dma_channel(channel, pack_channel(&state));
            }
            Effect::A20(source, enabled) => self.shared.board().set_a20(source as u32, enabled),
            Effect::Reset(kind) => self.shared.board().request_reset(kind as u32),
            Effect::PowerOff => {
                self.shared.board().powered_off.store(1, Ordering::Release);
                self.shared.board().call_vcpu(attention::RUN_STATE);
            }
            Effect::Interrupt(vector) => {
                let board = self.shared.board();
                if board.intr.publish(vector, slot as u8, number as u8) {
                    board.call_vcpu(attention::INTR);
                }
            }
            Effect::Mirror(cell, value) => {
                let index = self.shared.mirror_base(number) + usize::from(cell.0);
                if !self.shared.layout().set_mirror(index, value) {
                    tracing::error!("Mirror cell {index} does not exist");
                }
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
            Effect::Deferred(value) => {
                if let Some(sequence) = self.shared.deferred.take() {
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
        let held = &mut self.shared.held_lines;
        if level {
            held[number] |= bit;
        } else {
            held[number] &= !bit;
        }
        let any = held.iter().any(|lines| lines & bit != 0);
        let board = self.shared.board();
        let changed = if line < 16 {
            board.lines.set_isa(line as u8, self.shared.slot, any)
        } else {
            board.lines.set_pirq((line - 16) as u8, self.shared.slot, any)
        };
        if changed {
            let others = board.lines.watchers() & !(1 << self.shared.slot);
            for slot in (0..ipc::board::MAX_DEVICES).filter(|slot| others & 1 << slot != 0) {
                board.processes[slot].doorbell.ring();
            }
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
                self.call(number, now, |model, host| model.lines_changed(host));
            }
        }
    }

    /// Runs one call of a model that is no request: commit, effects.
    pub(super) fn call(
        &mut self,
        number: usize,
        now: VirtualTime,
        call: impl FnOnce(&mut dyn Device, &mut ModelHost<'_>),
    ) {
        let sequence = self.next_sequence() - 1;
        let Self { models, shared, committer, .. } = self;
        let model = models[number].as_mut();
        call(model, &mut ModelHost { shared, model: number, now });
        committer.commit(number, model, sequence, None, shared);
        self.apply_effects(number, now);
    }
}
