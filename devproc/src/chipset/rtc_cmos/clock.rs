//! The clock registers: time and alarm bytes in their formats, flags, and the divider chain.

use super::calendar::{DateTime, SECONDS_PER_DAY};
use super::spec::{
    ALARM_DONT_CARE, BANK_LEN, CENTURY, CMOS_LEN, CRYSTAL_HZ, DAY_OF_MONTH, DAY_OF_WEEK, DIVIDER_32_KHZ,
    DIVIDER_RELEASE_NANOS, HOURS, HOURS_ALARM, HOURS_PM, INTERRUPT_FLAGS, MINUTES, MINUTES_ALARM, MONTH,
    REGISTER_A, REGISTER_B, REGISTER_C, RegisterA, RegisterB, RegisterC, SECONDS, SECONDS_ALARM,
    UPDATE_IN_PROGRESS_NANOS, YEAR,
};
use crate::device::StateError;
use crate::pack::pack;
use ipc::time::{NANOS_PER_SEC, VirtualTime};
use serde::{Deserialize, Serialize};

/// Longest time that an alarm can be away.
const ALARM_SEARCH_SECONDS: u64 = SECONDS_PER_DAY;
/// The faster rates of register A, 1 and 2, stand for those of 8 and 9 with a 32.768 kHz crystal.
const ALIASED_RATES: u8 = 2;
const ALIASED_RATE_OFFSET: u8 = 7;

/// Saved state, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClockState {
    /// Both banks. Registers A and B are here without UIP, register C is `flags`.
    #[serde(with = "serde_bytes")]
    pub(super) ram: [u8; CMOS_LEN],
    /// Index of the standard bank, with the NMI mask bit of port 70h.
    pub(super) index: u8,
    /// Index of the extended bank.
    pub(super) extended_index: u8,
    /// Interrupt flags of register C (without IRQF).
    pub(super) flags: u8,
    /// Virtual time up to which the registers are brought.
    pub(super) synced: VirtualTime,
    /// The divider chain's position is virtual time plus this (less than a second).
    pub(super) phase: u64,
    /// How often a byte that is worth keeping has changed.
    pub(super) changes: u64,
}

impl ClockState {
    /// Appends the state as it is saved.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        let Self { ram, index, extended_index, flags, synced, phase, changes } = self;
        pack((CMOS_LEN, ram, index, extended_index, flags, synced, phase, changes), out);
    }

    pub(super) fn validate(&self) -> Result<(), StateError> {
        if self.phase >= NANOS_PER_SEC {
            return Err(StateError::OutOfRange("rtc.phase"));
        }
        if self.flags & !INTERRUPT_FLAGS != 0 {
            return Err(StateError::OutOfRange("rtc.flags"));
        }
        if usize::from(self.extended_index) >= BANK_LEN {
            return Err(StateError::OutOfRange("rtc.extended_index"));
        }
        Ok(())
    }

    pub(super) fn byte(&self, register: u8) -> u8 {
        self.ram[usize::from(register)]
    }

    pub(super) fn set_byte(&mut self, register: u8, value: u8) {
        self.ram[usize::from(register)] = value;
    }

    pub(super) fn register_a(&self) -> RegisterA {
        RegisterA::from_bits(self.byte(REGISTER_A))
    }

    pub(super) fn register_b(&self) -> RegisterB {
        RegisterB::from_bits(self.byte(REGISTER_B))
    }

    /// Register C as it reads.
    pub(super) fn register_c(&self) -> RegisterC {
        let enabled = self.flags & self.byte(REGISTER_B) & INTERRUPT_FLAGS;
        RegisterC::from_bits(self.flags).with_interrupt(enabled != 0)
    }

    fn divider_runs(&self) -> bool {
        self.register_a().divider() == DIVIDER_32_KHZ
    }

    fn updates(&self) -> bool {
        self.divider_runs() && !self.register_b().set()
    }

    fn position(&self, time: VirtualTime) -> VirtualTime {
        time.after(self.phase)
    }

    fn time_at(&self, position: VirtualTime) -> VirtualTime {
        VirtualTime(position.since(VirtualTime(self.phase)))
    }

    /// Crystal clocks between two periodic interrupts.
    fn period(&self) -> Option<u64> {
        match self.register_a().rate() {
            0 => None,
            rate @ 1..=ALIASED_RATES => Some(1 << (rate + ALIASED_RATE_OFFSET - 1)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// UIP at `now`.
    pub(super) fn update_in_progress(&self, now: VirtualTime) -> bool {
        self.updates() && self.position(now).0 % NANOS_PER_SEC >= NANOS_PER_SEC - UPDATE_IN_PROGRESS_NANOS
    }

    /// The moment before which neither the time nor UIP changes by itself.
    pub(super) fn next_step(&self, now: VirtualTime) -> VirtualTime {
        if !self.divider_runs() || !self.updates() {
            return VirtualTime::NEVER;
        }
        let into_second = self.position(now).0 % NANOS_PER_SEC;
        let update = NANOS_PER_SEC - UPDATE_IN_PROGRESS_NANOS;
        now.after(if into_second < update { update } else { NANOS_PER_SEC } - into_second)
    }

    /// Brings time and flags up to `now`; returns whether anything but `synced` changed.
    pub(super) fn sync(&mut self, now: VirtualTime) -> bool {
        let (from, to) = (self.position(self.synced), self.position(now));
        self.synced = self.synced.max(now);
        if to <= from || !self.divider_runs() {
            return false;
        }
        let before = self.flags;
        if let Some(period) = self.period()
            && to.ticks(CRYSTAL_HZ) / period > from.ticks(CRYSTAL_HZ) / period
        {
            self.flags |= RegisterC::new().with_periodic(true).into_bits();
        }
        let seconds = to.0 / NANOS_PER_SEC - from.0 / NANOS_PER_SEC;
        if seconds > 0 && self.updates() {
            self.update(seconds);
            return true;
        }
        self.flags != before
    }

    /// `seconds` update cycles.
    fn update(&mut self, seconds: u64) {
        if self.seconds_to_alarm().is_some_and(|away| away <= seconds) {
            self.flags |= RegisterC::new().with_alarm(true).into_bits();
        }
        self.flags |= RegisterC::new().with_update(true).into_bits();
        let time = self.time().after(seconds);
        self.set_time(time);
    }

    /// When the next enabled interrupt comes, if none is asserted already.
    pub(super) fn next_interrupt(&self) -> Option<VirtualTime> {
        let enabled = self.register_b();
        if !self.divider_runs() || self.register_c().interrupt() {
            return None;
        }
        let position = self.position(self.synced);
        let second = position.0 / NANOS_PER_SEC;
        let periodic = self.period().filter(|_| enabled.periodic_interrupt()).map(|period| {
            let next = (position.ticks(CRYSTAL_HZ) / period + 1).saturating_mul(period);
            VirtualTime::of_ticks(next, CRYSTAL_HZ)
        });
        let updates = self.updates();
        let update = (updates && enabled.update_interrupt()).then_some(1);
        let alarm = if updates && enabled.alarm_interrupt() { self.seconds_to_alarm() } else { None };
        let after_seconds =
            |seconds: u64| VirtualTime((second.saturating_add(seconds)).saturating_mul(NANOS_PER_SEC));
        [periodic, update.map(after_seconds), alarm.map(after_seconds)]
            .into_iter()
            .flatten()
            .min()
            .map(|position| self.time_at(position))
    }

    /// Writes register A. The caller has synced.
    pub(super) fn write_register_a(&mut self, value: u8, now: VirtualTime) {
        let did_run = self.divider_runs();
        self.set_byte(REGISTER_A, RegisterA::from_bits(value).with_update_in_progress(false).into_bits());
        if self.divider_runs() && !did_run {
            let into_second = now.0 % NANOS_PER_SEC;
            self.phase = (NANOS_PER_SEC + DIVIDER_RELEASE_NANOS - into_second) % NANOS_PER_SEC;
        }
    }

    /// Writes register B. The caller has synced.
    pub(super) fn write_register_b(&mut self, value: u8) {
        let mut b = RegisterB::from_bits(value);
        if b.set() {
            // "SET going high clears UIE."
            b.set_update_interrupt(false);
        }
        self.set_byte(REGISTER_B, b.into_bits());
    }

    /// Seconds until the time matches the alarm bytes, 1 to a day; `None` if it never does.
    pub(super) fn seconds_to_alarm(&self) -> Option<u64> {
        let matches = |value: u8, alarm: u8| {
            let alarm = self.byte(alarm);
            alarm & ALARM_DONT_CARE == ALARM_DONT_CARE || value == alarm
        };
        // Some alarm bytes match no time at all; then there is nothing to search for.
        if !(0..24).any(|hour| matches(self.encode_hour(hour), HOURS_ALARM))
            || !(0..60).any(|minute| matches(self.encode(minute), MINUTES_ALARM))
            || !(0..60).any(|second| matches(self.encode(second), SECONDS_ALARM))
        {
            return None;
        }
        let start = self.time();
        let mut away = 1;
        while away <= ALARM_SEARCH_SECONDS {
            let time = start.after(away);
            // Skip to the next hour or minute where this one does not match.
            away += if !matches(self.encode_hour(time.hour), HOURS_ALARM) {
                3600 - time.second_of_day() % 3600
            } else if !matches(self.encode(time.minute), MINUTES_ALARM) {
                60 - time.second_of_day() % 60
            } else if !matches(self.encode(time.second), SECONDS_ALARM) {
                1
            } else {
                return Some(away);
            };
        }
        None
    }

    /// The time in the registers. Bytes that mean no time are taken as the nearest that does.
    pub(super) fn time(&self) -> DateTime {
        let century = from_bcd(self.byte(CENTURY)).min(99);
        DateTime {
            year: u16::from(century) * 100 + u16::from(self.decode(self.byte(YEAR)).min(99)),
            month: self.decode(self.byte(MONTH)).clamp(1, 12),
            day: self.decode(self.byte(DAY_OF_MONTH)).clamp(1, 31),
            day_of_week: self.byte(DAY_OF_WEEK).clamp(1, 7),
            hour: self.decode_hour(self.byte(HOURS)),
            minute: self.decode(self.byte(MINUTES)).min(59),
            second: self.decode(self.byte(SECONDS)).min(59),
        }
    }

    /// Puts a time into the registers in the format that register B says.
    pub(super) fn set_time(&mut self, time: DateTime) {
        let DateTime { year, month, day, day_of_week, hour, minute, second } = time;
        self.set_byte(SECONDS, self.encode(second));
        self.set_byte(MINUTES, self.encode(minute));
        self.set_byte(HOURS, self.encode_hour(hour));
        self.set_byte(DAY_OF_WEEK, day_of_week);
        self.set_byte(DAY_OF_MONTH, self.encode(day));
        self.set_byte(MONTH, self.encode(month));
        self.set_byte(YEAR, self.encode((year % 100) as u8));
        // To the chip this is RAM: firmware keeps it in BCD whatever the format of the clock.
        self.set_byte(CENTURY, to_bcd((year / 100 % 100) as u8));
    }

    fn encode(&self, value: u8) -> u8 {
        if self.register_b().binary() { value } else { to_bcd(value) }
    }

    fn decode(&self, byte: u8) -> u8 {
        if self.register_b().binary() { byte } else { from_bcd(byte) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.register_b().hours_24() {
            return self.encode(hour);
        }
        let pm = if hour >= 12 { HOURS_PM } else { 0 };
        // Twelve o'clock comes before one.
        let hour = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(hour) | pm
    }

    fn decode_hour(&self, byte: u8) -> u8 {
        if self.register_b().hours_24() {
            return self.decode(byte).min(23);
        }
        let pm = if byte & HOURS_PM != 0 { 12 } else { 0 };
        self.decode(byte & !HOURS_PM) % 12 + pm
    }
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// Digits above 9 count as what they are worth.
fn from_bcd(byte: u8) -> u8 {
    (byte >> 4) * 10 + (byte & 0x0f)
}

/// Whether a register holds the running time (and so is no reason to write the image).
pub(super) fn is_time(register: u8) -> bool {
    matches!(register, SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | REGISTER_C)
}
