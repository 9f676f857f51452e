//! The counters of which the bus has statements ([`ipc::counter`]): taken back before a model acts on them, and in force again once its
//! state is committed. What they are is the model's to say.
//!
//! Order, so that a process may die anywhere: the counter is taken back -> the model is told what the bus did with it -> that is
//! committed -> it is noted that it was -> the call, its commit -> in force again. A successor that finds no such note tells its
//! model again; while there is none, nothing else has happened.

use super::crash_point;
use super::machine::DeviceProcess;
use crate::device::{CounterId, Reads, Region};
use ipc::counter::{Counting, Latch, MAX_COUNTERS};

/// Which counters there are, and in whose hands.
#[derive(Debug, Default)]
pub struct HeldCounters {
    /// Number of the model that has counters.
    owner: Option<usize>,
    /// Taken back, to be in force again with the end of the call.
    held: [bool; MAX_COUNTERS],
    /// What a model said while it was attached: shown when its state is committed.
    waiting: [Option<(Option<Counting>, Latch)>; MAX_COUNTERS],
}

impl HeldCounters {
    /// For models with these regions. The first that has any is the one whose counters they are.
    pub fn new(regions: &[Vec<Region>]) -> Self {
        let has = |regions: &Vec<Region>| regions.iter().any(|region| region.reads == Reads::Counters);
        Self { owner: regions.iter().position(has), ..Self::default() }
    }
}

impl DeviceProcess {
    /// Takes the counters of a model back before it acts, and commits what the bus did with them.
    #[inline]
    pub(super) fn take_counters(&mut self, number: usize) {
        if self.counters.owner != Some(number) || !self.import_counters(number) {
            return;
        }
        let Self { models, shared, committer, .. } = self;
        committer.commit(number, models[number].as_mut(), shared);
        crash_point();
        shared.layout().counters.iter().for_each(ipc::counter::CounterCell::notice);
        crash_point();
    }

    /// Takes the counters of a model back and has it take notice of what the bus did with them. Whether that was anything.
    pub(super) fn import_counters(&mut self, number: usize) -> bool {
        let Self { models, shared, counters, .. } = self;
        if counters.owner != Some(number) {
            return false;
        }
        let mut any = false;
        for (id, (cell, held)) in (0..).zip(shared.layout().counters.iter().zip(&mut counters.held)) {
            let taken = cell.take();
            *held |= taken.in_force;
            if let Some(latch) = taken.moved {
                models[number].counter_moved(CounterId(id), latch);
                any = true;
            }
        }
        crash_point();
        any
    }

    /// Puts the counters of a model in force again that it has said nothing else of.
    #[inline]
    pub(super) fn give_counters(&mut self, number: usize) {
        if self.counters.owner != Some(number) || self.starting {
            return;
        }
        for (cell, held) in self.shared.layout().counters.iter().zip(&mut self.counters.held) {
            if std::mem::take(held) {
                cell.give();
            }
        }
    }

    /// Does what a model said of one of its counters.
    pub(super) fn publish_counter(
        &mut self,
        number: usize,
        counter: CounterId,
        counting: Option<Counting>,
        latch: Latch,
    ) {
        let index = usize::from(counter.0);
        if self.counters.owner != Some(number) || index >= MAX_COUNTERS {
            tracing::error!("Model stated counter {index}, which it does not have");
            return;
        }
        self.counters.held[index] = false;
        if self.starting {
            self.counters.waiting[index] = Some((counting, latch));
            return;
        }
        self.counters.waiting[index] = None;
        self.shared.layout().counters[index].publish(counting.as_ref(), latch);
    }

    /// Takes out of force whatever a predecessor had stated.
    pub(super) fn withdraw_counters(&mut self) {
        for cell in &self.shared.layout().counters {
            cell.take();
        }
    }

    /// Shows what the models said while they were attached, now that their states are committed, and no more of what a
    /// predecessor had.
    pub(super) fn show_counters(&mut self) {
        for (cell, waiting) in self.shared.layout().counters.iter().zip(&mut self.counters.waiting) {
            match waiting.take() {
                Some((counting, latch)) => cell.publish(counting.as_ref(), latch),
                None if cell.is_in_force() => {}
                None => cell.publish(None, Latch::default()),
            }
            crash_point();
        }
    }
}
