//! The system timer: an 8254 with the system timer interrupt, and port 61h.
//!
//! Sources: Intel 8254 datasheet ("Operational description", "Mode definitions", "Read
//! operations"); 82371AB (PIIX4) datasheet, section 4.2 (counter/timer and NMI registers).
//!
//! The counters run on absolute clock numbers computed from virtual time, so they never
//! drift and nothing needs to happen while they count. Only counter 0 has a timer, because
//! its rising OUT is IRQ 0:
//! - The timer is armed for the next *rise*. A fall of OUT by counting is shown on the line
//!   together with the next rise: an edge-triggered controller sees no difference, except that a
//!   tick which the CPU could not take within the high half of a square wave is not lost.
//!   A fall by a write (mode 0) is shown at once.
//! - When the host was busy and the timer is late by several periods, the missed edges become
//!   one interrupt and the phase is kept: the next edge comes when it would have come.
//!
//! While a counter only counts, and low and high byte of a binary count are what reads give, the bus latches and reads it
//! by itself (`statement` says how it counts); whatever else a counter does, the model is asked.
//!
//! A count of 1 in modes 2 and 3 (illegal) counts as 2. Nothing raises SERR# or IOCHK# in this
//! machine, so the NMI source bits of port 61h read 0. There is no sound: speaker data is kept.

mod counter;
mod names;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, CounterId, Device, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind,
    StateError, TimerId, WriteResult, Writes, load_state,
};
use crate::host::Host;
use crate::pack::{pack, pack_fields};
use counter::Counter;
use ipc::counter::{Counting, Latch, Rate};
use ipc::mirror::Mirrored;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};
use spec::{
    ACCESS_LATCH, CLOCK_HZ, CONTROL_OFFSET, COUNTERS, ControlWord, NMISC_PORT, NMISC_WRITABLE, Nmisc,
    PIT_BASE, PIT_PORTS, REFRESH_TICKS, ReadBack, SELECT_READ_BACK, SPEAKER_TONE, SYSTEM_TIMER, TIMER_IRQ,
};

const PIT: RegionId = RegionId(0);
const NMISC: RegionId = RegionId(1);

/// The CLK inputs.
const CLOCK: Rate = Rate::of_hz(CLOCK_HZ as u32);

const NEXT_TICK: TimerId = TimerId(0);

/// Port 61h, as it reads until one of its two oscillating bits changes.
const NMISC_CELL: MirrorSlot = MirrorSlot(0);

/// Saved state, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PitState {
    counters: [Counter; COUNTERS],
    /// Port 61h, writable bits.
    nmisc: u8,
    /// Level that IRQ 0 is driven to.
    irq_level: bool,
}

pack_fields!(PitState { counters, nmisc, irq_level });

/// The 8254 and port 61h.
pub struct Pit {
    // Runtime glue
    changed: bool,
    /// [`NMISC_CELL`] says something.
    published: bool,
    /// What the bus goes by.
    stated: [Option<(Counting, Latch)>; COUNTERS],

    // Volatile state
    state: PitState,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// A timer as after power-on: no counter is programmed.
    pub fn new() -> Self {
        // The gates of counters 0 and 1 are tied high; that of counter 2 is port 61h bit 0.
        let counters = [Counter::new(true), Counter::new(true), Counter::new(false)];
        let state = PitState { counters, nmisc: 0, irq_level: false };
        Self { changed: true, published: true, stated: [None; COUNTERS], state }
    }

    /// Brings a counter up to now, with the interrupt that this brings.
    fn advance(&mut self, index: usize, host: &mut dyn Host) {
        self.advance_to(index, host.now(), host);
    }

    fn advance_to(&mut self, index: usize, time: VirtualTime, host: &mut dyn Host) {
        let now = time.ticks(CLOCK_HZ);
        if self.state.counters[index].advance(now) && index == SYSTEM_TIMER {
            self.changed = true;
            host.set_irq(TIMER_IRQ, false);
            host.set_irq(TIMER_IRQ, true);
            self.state.irq_level = true;
        }
    }

    /// Applies a write to a counter, which may change OUT at once and moves its next rise.
    fn write_counter(&mut self, index: usize, host: &mut dyn Host, write: impl FnOnce(&mut Counter)) {
        self.advance(index, host);
        let counter = &mut self.state.counters[index];
        let before = counter.out();
        write(counter);
        let after = counter.out();
        if index != SYSTEM_TIMER {
            return;
        }
        if before != after {
            // The line may still be high although OUT fell by counting, hence low in any case.
            host.set_irq(TIMER_IRQ, false);
            host.set_irq(TIMER_IRQ, after);
            self.state.irq_level = after;
        }
        self.arm(host);
    }

    fn arm(&self, host: &mut dyn Host) {
        match self.state.counters[SYSTEM_TIMER].next_rise() {
            Some(clock) => host.arm_timer(NEXT_TICK, VirtualTime::of_ticks(clock, CLOCK_HZ)),
            None => host.cancel_timer(NEXT_TICK),
        }
    }

    /// What the bus may go by when the guest latches or reads a counter.
    fn statement(&self, index: usize) -> Option<(Counting, Latch)> {
        let counter = &self.state.counters[index];
        let course = counter.course()?;
        let (origin, fraction) = CLOCK.moment(counter.clock())?;
        // A count from behind a tick is not to be seen before the tick: the model is asked, and its timer comes first.
        let tick = if index == SYSTEM_TIMER { counter.next_rise() } else { None };
        let end = [course.end, tick].into_iter().flatten().min();
        let counting = Counting {
            register: index as u16,
            command: (CONTROL_OFFSET as u16, ControlWord::new().with_select(index as u8).into_bits()),
            rate: CLOCK,
            origin,
            until: end.map_or(VirtualTime::NEVER, |clock| VirtualTime::of_ticks(clock, CLOCK_HZ)),
            fraction,
            phase: course.phase,
            period: course.period,
            turn: course.turn,
            first: course.first,
            step: course.step,
        };
        Some((counting, counter.output_latch()))
    }

    /// States how a counter counts, if the bus goes by something else.
    fn state_counter(&mut self, index: usize, host: &mut dyn Host) {
        let new = self.statement(index);
        let stays = match (&self.stated[index], &new) {
            (Some((old, held)), Some((new, latch))) => held == latch && old.agrees(new, host.now()),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !stays {
            self.publish_counter(index, new, host);
        }
    }

    fn publish_counter(&mut self, index: usize, new: Option<(Counting, Latch)>, host: &mut dyn Host) {
        self.stated[index] = new;
        let (counting, latch) = new.unzip();
        host.publish_counter(CounterId(index as u8), counting, latch.unwrap_or_default());
    }

    fn write_control(&mut self, word: ControlWord, host: &mut dyn Host) {
        if word.select() == SELECT_READ_BACK {
            let command = ReadBack::from_bits(word.into_bits());
            for index in (0..COUNTERS).filter(|index| command.counters() & 1 << index != 0) {
                self.advance(index, host);
                if !command.skip_count() {
                    self.state.counters[index].latch_count();
                }
                if !command.skip_status() {
                    self.state.counters[index].latch_status();
                }
                self.state_counter(index, host);
            }
            return;
        }
        let index = usize::from(word.select());
        if word.access() == ACCESS_LATCH {
            self.advance(index, host);
            self.state.counters[index].latch_count();
        } else {
            self.write_counter(index, host, |counter| counter.write_control(word));
        }
        self.state_counter(index, host);
    }

    fn read_nmisc(&mut self, host: &mut dyn Host) -> u8 {
        self.advance(SPEAKER_TONE, host);
        let refresh_cycles = host.now().ticks(CLOCK_HZ) / REFRESH_TICKS;
        let tone = &self.state.counters[SPEAKER_TONE];
        let value = Nmisc::from_bits(self.state.nmisc)
            .with_refresh_toggle(refresh_cycles % 2 == 1)
            .with_out_2(tone.out())
            .into_bits();
        let toggle = (refresh_cycles + 1) * REFRESH_TICKS;
        let change = tone.next_change().map_or(toggle, |change| change.min(toggle));
        host.publish_timed(NMISC_CELL, Mirrored::until(value, VirtualTime::of_ticks(change, CLOCK_HZ)));
        self.published = true;
        value
    }

    /// A write may have changed what port 61h reads.
    fn withdraw(&mut self, host: &mut dyn Host) {
        if std::mem::take(&mut self.published) {
            host.publish_timed(NMISC_CELL, Mirrored::ASK);
        }
    }

    fn write_nmisc(&mut self, value: u8, host: &mut dyn Host) {
        self.advance(SPEAKER_TONE, host);
        self.state.nmisc = value & NMISC_WRITABLE;
        self.state.counters[SPEAKER_TONE].set_gate(Nmisc::from_bits(value).gate_2());
        self.state_counter(SPEAKER_TONE, host);
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(PIT, "pit", PIT_BASE, PIT_PORTS).writes(Writes::PostedLocal).counted(),
            Region::ports(NMISC, "port61", NMISC_PORT, 1).writes(Writes::PostedLocal).timed(NMISC_CELL),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        host.set_irq(TIMER_IRQ, self.state.irq_level);
        self.arm(host);
        self.withdraw(host);
        for index in 0..COUNTERS {
            self.publish_counter(index, self.statement(index), host);
        }
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let value = match (at.region, at.offset) {
            (NMISC, _) => self.read_nmisc(host),
            (PIT, offset @ 0..CONTROL_OFFSET) => {
                let index = offset as usize;
                self.advance(index, host);
                self.changed = true;
                let byte = self.state.counters[index].read();
                self.state_counter(index, host);
                byte
            }
            // The control word register does not drive the bus.
            _ => return Err(IoError::InvalidRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        self.changed = true;
        self.withdraw(host);
        let value = value as u8;
        match (at.region, at.offset) {
            (NMISC, _) => self.write_nmisc(value, host),
            (PIT, CONTROL_OFFSET) => self.write_control(ControlWord::from_bits(value), host),
            (PIT, offset @ 0..CONTROL_OFFSET) => {
                self.write_counter(offset as usize, host, |counter| counter.write_count(value));
                self.state_counter(offset as usize, host);
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn timer(&mut self, _timer: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        self.changed = true;
        // One tick at a time, however late: the next one is due at once then, and none is lost.
        self.advance_to(SYSTEM_TIMER, deadline.min(host.now()), host);
        self.arm(host);
        self.state_counter(SYSTEM_TIMER, host);
    }

    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host) {
        self.changed = true;
        match kind {
            ResetKind::PowerOn => self.state = Self::new().state,
            // The 8254 has no reset input; port 61h has.
            ResetKind::Hard => self.write_nmisc(0, host),
        }
        self.attach(host);
    }

    fn counter_moved(&mut self, counter: CounterId, latch: Latch) {
        let index = usize::from(counter.0);
        let Some(counter) = self.state.counters.get_mut(index) else { return };
        self.changed = true;
        counter.set_output_latch(latch);
        if let Some((_, stated)) = &mut self.stated[index] {
            *stated = latch;
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        pack(&self.state, out);
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: PitState = load_state(data)?;
        for counter in &state.counters {
            counter.validate()?;
        }
        if state.nmisc & !NMISC_WRITABLE != 0 {
            return Err(StateError::OutOfRange("pit.nmisc"));
        }
        self.state = state;
        self.changed = true;
        self.published = true;
        Ok(())
    }
}
