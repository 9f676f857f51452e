//! One counter of the 8254, moved on by any number of clocks at once.
//!
//! The counter keeps the clock number that its fields are true for and jumps from there:
//! whole periods are divided out, so a jump costs the same for one clock and for a day.

use super::spec::{
    ACCESS_BOTH, ACCESS_HIGH, ACCESS_LOW, BCD_MODULUS, BINARY_MODULUS, ControlWord, MODE_HARDWARE_STROBE,
    MODE_ONE_SHOT, MODE_RATE_GENERATOR, MODE_SOFTWARE_STROBE, MODE_SQUARE_WAVE, MODE_TERMINAL_COUNT,
    SHORTEST_PERIOD, Status,
};
use crate::device::StateError;
use crate::pack::pack_fields;
use ipc::counter::Latch;
use serde::{Deserialize, Serialize};

/// Architectural state of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    /// Number of the clock that the rest is true for.
    at: u64,
    mode: u8,
    access: u8,
    bcd: bool,
    gate: bool,
    out: bool,

    /// CR, the count register, as written.
    count_register: u16,
    /// A complete count was written since the control word.
    count_written: bool,
    /// The first of two bytes, while the second is awaited.
    low_byte: Option<u8>,
    null_count: bool,

    /// CE, the counting element, in binary also when it counts in BCD; the modulus itself
    /// stands for the 0 that is loaded as the largest count.
    element: u32,
    /// CR goes to CE with the next clock.
    load_pending: bool,
    /// CE holds a count and counts (unless the gate stops it).
    counting: bool,
    /// Modes 0, 1, 4 and 5: the terminal count is still to come.
    armed: bool,
    /// Mode 3: the half-period being counted belongs to an odd count.
    odd: bool,

    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The next byte read of a two-byte count is the high one.
    read_high: bool,
}

/// How the count goes on: it begins with `first` and falls by `step` with each clock; after `period` clocks it begins again, and
/// once in between after `turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// Clocks of the period that have passed.
    pub(super) phase: u32,
    pub(super) period: u32,
    pub(super) turn: u32,
    pub(super) first: u32,
    pub(super) step: u8,
    /// The clock from which on that is not true any more.
    pub(super) end: Option<u64>,
}

pack_fields!(Counter {
    at,
    mode,
    access,
    bcd,
    gate,
    out,
    count_register,
    count_written,
    low_byte,
    null_count,
    element,
    load_pending,
    counting,
    armed,
    odd,
    latched_count,
    latched_status,
    read_high,
});

impl Counter {
    /// A counter that was never programmed: it does not count and OUT is low.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            at: 0,
            mode: MODE_TERMINAL_COUNT,
            access: ACCESS_BOTH,
            bcd: false,
            gate,
            out: false,
            count_register: 0,
            count_written: false,
            low_byte: None,
            null_count: true,
            element: 0,
            load_pending: false,
            counting: false,
            armed: false,
            odd: false,
            latched_count: None,
            latched_status: None,
            read_high: false,
        }
    }

    pub(super) fn validate(&self) -> Result<(), StateError> {
        if self.mode > MODE_HARDWARE_STROBE {
            return Err(StateError::OutOfRange("pit.mode"));
        }
        if !(ACCESS_LOW..=ACCESS_BOTH).contains(&self.access) {
            return Err(StateError::OutOfRange("pit.access"));
        }
        // BCD digits above 9 make larger first counts than the modulus; see `initial_count`.
        if self.element > BINARY_MODULUS {
            return Err(StateError::OutOfRange("pit.element"));
        }
        Ok(())
    }

    /// Level of OUT.
    pub(super) fn out(&self) -> bool {
        self.out
    }

    /// Moves on to clock `now`; returns whether OUT rose on the way.
    pub(super) fn advance(&mut self, now: u64) -> bool {
        let mut clocks = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let mut rose = false;
        while clocks > 0 {
            if self.load_pending {
                clocks -= 1;
                let was_low = !self.out;
                self.load();
                rose |= was_low && self.out;
            } else if self.runs() {
                rose |= match self.mode {
                    MODE_RATE_GENERATOR => self.count_rate(clocks),
                    MODE_SQUARE_WAVE => self.count_square(clocks),
                    _ => self.count_down(clocks),
                };
                break;
            } else {
                break;
            }
        }
        rose
    }

    /// The clock at which OUT rises next, if nothing is written before.
    pub(super) fn next_rise(&self) -> Option<u64> {
        let mut ahead = self.clone();
        let mut clocks = 0;
        if ahead.load_pending {
            clocks += 1;
            ahead.load();
            if !self.out && ahead.out {
                return Some(self.at.saturating_add(clocks));
            }
        }
        if !ahead.runs() {
            return None;
        }
        let element = u64::from(ahead.element);
        clocks += match ahead.mode {
            MODE_RATE_GENERATOR => element,
            MODE_SQUARE_WAVE => {
                let half = u64::from(ahead.clocks_of_half());
                if ahead.out { half + u64::from(ahead.initial_count() / 2) } else { half }
            }
            MODE_TERMINAL_COUNT | MODE_ONE_SHOT if ahead.armed => element,
            MODE_SOFTWARE_STROBE | MODE_HARDWARE_STROBE if ahead.armed => element + 1,
            MODE_SOFTWARE_STROBE | MODE_HARDWARE_STROBE if !ahead.out => 1,
            _ => return None,
        };
        Some(self.at.saturating_add(clocks))
    }

    /// How the count goes on from the clock that the fields are true for. `None` when reads do not give low and high byte of a
    /// binary count, or nothing counts.
    pub(super) fn course(&self) -> Option<Course> {
        let is_plain = self.access == ACCESS_BOTH && !self.bcd && self.latched_status.is_none();
        if !is_plain || self.load_pending || !self.runs() {
            return None;
        }
        let (element, count) = (self.element, self.initial_count());
        let step = if self.mode == MODE_SQUARE_WAVE { 2 } else { 1 };
        let (first, period, turn, before) = match self.mode {
            // A new count comes with the end of the (half) period.
            MODE_RATE_GENERATOR if self.null_count => (element, element, element, 0),
            MODE_SQUARE_WAVE if self.null_count => {
                let half = self.clocks_of_half();
                (element, half, half, 0)
            }
            MODE_RATE_GENERATOR => (count, count, count, 0),
            MODE_SQUARE_WAVE if self.odd != (count % 2 == 1) => return None,
            MODE_SQUARE_WAVE if count % 2 == 0 => (count, count / 2, count / 2, 0),
            MODE_SQUARE_WAVE => {
                let high = count / 2 + 1;
                (count - 1, count, high, if self.out { 0 } else { high })
            }
            // From zero on around the modulus, which stands for zero.
            _ if element == 0 => (0, BINARY_MODULUS, BINARY_MODULUS, 0),
            _ => (BINARY_MODULUS, BINARY_MODULUS, BINARY_MODULUS, 0),
        };
        let fallen = first.checked_sub(element)?;
        let phase = before + fallen / u32::from(step);
        // Otherwise it is in no state that it comes to by counting.
        let is_on_course = phase < period && fallen.is_multiple_of(step.into());
        let reloads = matches!(self.mode, MODE_RATE_GENERATOR | MODE_SQUARE_WAVE) && self.null_count;
        let end = reloads.then(|| self.at.saturating_add(period.into()));
        is_on_course.then_some(Course { phase, period, turn, first, step, end })
    }

    /// Number of the clock that the fields are true for.
    pub(super) fn clock(&self) -> u64 {
        self.at
    }

    /// The output latch, for who is not to know of a latched status.
    pub(super) fn output_latch(&self) -> Latch {
        Latch { count: self.latched_count, high: self.read_high }
    }

    /// Takes over an output latch that others have latched and read.
    pub(super) fn set_output_latch(&mut self, latch: Latch) {
        (self.latched_count, self.read_high) = (latch.count, latch.high);
    }

    /// The clock before which OUT surely does not change, if nothing is written; `None` when it then never does.
    pub(super) fn next_change(&self) -> Option<u64> {
        if self.load_pending {
            return Some(self.at.saturating_add(1));
        }
        if !self.runs() {
            return None;
        }
        let clocks = match self.mode {
            // Low for the last clock of a period.
            MODE_RATE_GENERATOR => self.element.saturating_sub(1),
            MODE_SQUARE_WAVE => self.clocks_of_half(),
            _ if self.armed => self.element,
            MODE_SOFTWARE_STROBE | MODE_HARDWARE_STROBE if !self.out => 1,
            _ => return None,
        };
        Some(self.at.saturating_add(clocks.max(1).into()))
    }

    /// A control word for this counter (not a latch command). The caller has advanced.
    pub(super) fn write_control(&mut self, word: ControlWord) {
        self.mode = match word.mode() {
            mode @ MODE_TERMINAL_COUNT..=MODE_HARDWARE_STROBE => mode,
            // Bit 2 is "don't care" in modes 2 and 3.
            mode => mode & MODE_SQUARE_WAVE,
        };
        self.access = word.access();
        self.bcd = word.bcd();
        self.out = self.mode != MODE_TERMINAL_COUNT;
        self.count_register = 0;
        self.count_written = false;
        self.low_byte = None;
        self.null_count = true;
        self.load_pending = false;
        self.counting = false;
        self.armed = false;
        self.latched_count = None;
        self.latched_status = None;
        self.read_high = false;
    }

    /// A byte of a count.
    pub(super) fn write_count(&mut self, value: u8) {
        match (self.access, self.low_byte) {
            (ACCESS_LOW, _) => self.count_complete(u16::from(value)),
            (ACCESS_HIGH, _) => self.count_complete(u16::from(value) << 8),
            (_, Some(low)) => {
                self.low_byte = None;
                self.count_complete(u16::from_le_bytes([low, value]));
            }
            (_, None) => {
                self.low_byte = Some(value);
                // "Writing the first byte disables counting. OUT is set low immediately."
                if self.mode == MODE_TERMINAL_COUNT {
                    self.out = false;
                    self.counting = false;
                    self.load_pending = false;
                }
            }
        }
    }

    fn count_complete(&mut self, count: u16) {
        self.count_register = count;
        self.count_written = true;
        self.null_count = true;
        match self.mode {
            MODE_TERMINAL_COUNT => {
                self.out = false;
                self.load_pending = true;
            }
            MODE_SOFTWARE_STROBE => self.load_pending = true,
            // Once running, a new count waits for the end of the (half) period.
            MODE_RATE_GENERATOR | MODE_SQUARE_WAVE => self.load_pending |= !self.counting,
            _ => {}
        }
    }

    /// Drives the GATE input. The caller has advanced.
    pub(super) fn set_gate(&mut self, gate: bool) {
        if self.gate == gate {
            return;
        }
        self.gate = gate;
        match self.mode {
            MODE_ONE_SHOT | MODE_HARDWARE_STROBE => self.load_pending |= gate && self.count_written,
            MODE_RATE_GENERATOR | MODE_SQUARE_WAVE => {
                if gate {
                    self.load_pending |= self.count_written;
                } else {
                    self.out = true;
                }
            }
            _ => {}
        }
    }

    /// Counter latch command: a count already latched stays.
    pub(super) fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.displayed());
        }
    }

    /// Latches the status: a status already latched stays.
    pub(super) fn latch_status(&mut self) {
        let status = Status::new()
            .with_bcd(self.bcd)
            .with_mode(self.mode)
            .with_access(self.access)
            .with_null_count(self.null_count)
            .with_out(self.out);
        self.latched_status.get_or_insert(status.into_bits());
    }

    /// A read of the counter's port. The caller has advanced.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let count = self.latched_count.unwrap_or_else(|| self.displayed());
        let [low, high] = count.to_le_bytes();
        match self.access {
            ACCESS_LOW => {
                self.latched_count = None;
                low
            }
            ACCESS_HIGH => {
                self.latched_count = None;
                high
            }
            _ if self.read_high => {
                self.latched_count = None;
                self.read_high = false;
                high
            }
            _ => {
                self.read_high = true;
                low
            }
        }
    }

    fn runs(&self) -> bool {
        let gate_stops = !matches!(self.mode, MODE_ONE_SHOT | MODE_HARDWARE_STROBE);
        self.counting && (self.gate || !gate_stops)
    }

    fn modulus(&self) -> u32 {
        if self.bcd { BCD_MODULUS } else { BINARY_MODULUS }
    }

    /// What CR stands for: 1 to the modulus, where 0 is the largest count.
    fn initial_count(&self) -> u32 {
        let count = if self.bcd {
            // Digits above 9 are undefined; they count as what they are worth.
            (0..4).rev().fold(0, |sum, digit| sum * 10 + u32::from(self.count_register >> (4 * digit) & 0xf))
        } else {
            u32::from(self.count_register)
        };
        let count = if count == 0 { self.modulus() } else { count };
        let shortest = match self.mode {
            MODE_RATE_GENERATOR | MODE_SQUARE_WAVE => SHORTEST_PERIOD,
            _ => 1,
        };
        count.max(shortest)
    }

    /// CE as the guest reads it.
    fn displayed(&self) -> u16 {
        let value = self.element % self.modulus();
        if !self.bcd {
            return value as u16;
        }
        [1000, 100, 10, 1].iter().fold(0, |bcd, unit| bcd << 4 | (value / unit % 10) as u16)
    }

    /// CR to CE, with what the mode does to OUT at that clock.
    fn load(&mut self) {
        self.load_pending = false;
        self.counting = true;
        self.armed = true;
        match self.mode {
            MODE_ONE_SHOT => self.out = false,
            MODE_TERMINAL_COUNT => {}
            _ => self.out = true,
        }
        self.reload();
    }

    fn reload(&mut self) {
        self.null_count = false;
        let count = self.initial_count();
        self.odd = count % 2 == 1;
        self.element = if self.mode == MODE_SQUARE_WAVE { count & !1 } else { count };
    }

    /// Modes 0, 1, 4 and 5: down to zero once, then on around the modulus without effect.
    fn count_down(&mut self, clocks: u64) -> bool {
        let strobes = matches!(self.mode, MODE_SOFTWARE_STROBE | MODE_HARDWARE_STROBE);
        let to_zero = u64::from(self.element);
        let mut rose = false;
        if self.armed {
            if clocks < to_zero {
                self.element -= clocks as u32;
                return false;
            }
            self.armed = false;
            if strobes {
                // Low for the one clock at which the element is zero.
                self.out = clocks > to_zero;
                rose = self.out;
            } else {
                self.out = true;
                rose = true;
            }
        } else if strobes && !self.out {
            self.out = true;
            rose = true;
        }
        let modulus = u64::from(self.modulus());
        self.element = ((to_zero % modulus + modulus - clocks % modulus) % modulus) as u32;
        rose
    }

    /// Mode 2: N down to 1, low at 1, and again.
    fn count_rate(&mut self, clocks: u64) -> bool {
        let to_reload = u64::from(self.element.max(1));
        let rose = clocks >= to_reload;
        if rose {
            self.reload();
            let left = (clocks - to_reload) % u64::from(self.element);
            self.element -= left as u32;
        } else {
            self.element -= clocks as u32;
        }
        self.out = self.element != 1;
        rose
    }

    /// Mode 3: down by two, OUT changes at the end of each half.
    fn count_square(&mut self, clocks: u64) -> bool {
        let mut clocks = clocks;
        let mut rose = false;
        loop {
            let half = u64::from(self.clocks_of_half());
            if clocks < half {
                self.element -= 2 * clocks as u32;
                return rose;
            }
            clocks -= half;
            self.out = !self.out;
            rose |= self.out;
            self.reload();
            // From the first reload on, all periods are alike.
            let period = u64::from(self.initial_count());
            rose |= clocks >= period;
            clocks %= period;
        }
    }

    /// Clocks until the current half of a square wave ends. The high half of an odd count is
    /// one clock longer.
    fn clocks_of_half(&self) -> u32 {
        let halved = self.element / 2;
        if self.out && self.odd { halved + 1 } else { halved.max(1) }
    }
}
