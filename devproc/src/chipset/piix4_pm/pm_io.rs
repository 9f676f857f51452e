//! The power management I/O block: PM1 events, the timer, and registers that only keep bits.

use super::spec::PM_LEN;
use super::spec::pm::*;
use crate::device::StateError;
use crate::pack::pack;
use ipc::tick_register::TickRegister;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};

const LEN: usize = PM_LEN as usize;

/// What a write to the block asks of the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspend {
    /// S5: the power supply is to be switched off.
    SoftOff,
    /// Another SUS_TYP.
    Other(u16),
}

/// The registers of the block at PMBA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PmIo {
    bytes: [u8; LEN],
    /// Tick of the virtual clock at which the timer was zero.
    timer_zero: u64,
    /// Tick of the timer at which bit 23 changes next (and was not yet taken note of).
    next_overflow: u64,
}

/// Saved form of a [`PmIo`].
#[derive(Serialize, Deserialize)]
pub(super) struct PmIoState {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    timer_zero: u64,
    next_overflow: u64,
}

/// The writable and the write-one-to-clear bits of each byte of the block.
fn masks(at: usize) -> (u8, u8) {
    REGISTERS
        .iter()
        .find(|r| (r.at..r.at + r.len).contains(&at))
        .map_or((0, 0), |r| (byte_of(r.writable, at - r.at), byte_of(r.clear, at - r.at)))
}

fn byte_of(value: u32, index: usize) -> u8 {
    value.to_le_bytes().get(index).copied().unwrap_or(0)
}

impl PmIo {
    /// The block after a reset at `now`: the timer starts from zero.
    pub(super) fn new(now: VirtualTime) -> Self {
        let mut bytes = [0; LEN];
        for register in &REGISTERS {
            for index in 0..register.len {
                bytes[register.at + index] = byte_of(register.reset, index);
            }
        }
        Self { bytes, timer_zero: now.ticks(TIMER_HZ), next_overflow: TIMER_HALF }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn set_bits(&mut self, at: usize, bits: u16) {
        let value = self.word(at) | bits;
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn clear_bits(&mut self, at: usize, bits: u16) {
        let value = self.word(at) & !bits;
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Ticks that the timer has made, not cut to its width.
    fn ticks(&self, now: VirtualTime) -> u64 {
        now.ticks(TIMER_HZ).saturating_sub(self.timer_zero)
    }

    /// PMTMR.
    pub(super) fn timer_register(&self) -> TickRegister {
        let bits = TIMER_MASK.count_ones() as u8;
        TickRegister { offset: PMTMR as u16, hz: TIMER_HZ as u32, bits, zero: self.timer_zero }
    }

    /// Takes note of changes of the timer's bit 23 up to `now`; true when one was new.
    pub(super) fn catch_up(&mut self, now: VirtualTime) -> bool {
        let ticks = self.ticks(now);
        if ticks < self.next_overflow {
            return false;
        }
        self.set_bits(PMSTS, TMROF);
        self.next_overflow = (ticks / TIMER_HALF).saturating_add(1).saturating_mul(TIMER_HALF);
        true
    }

    /// When the timer will next raise an SCI, if it is to.
    pub(super) fn timer_deadline(&self) -> Option<VirtualTime> {
        let armed =
            self.word(PMCNTRL) & SCI_EN != 0 && self.word(PMEN) & TMROF != 0 && self.word(PMSTS) & TMROF == 0;
        armed.then(|| VirtualTime::of_ticks(self.timer_zero.saturating_add(self.next_overflow), TIMER_HZ))
    }

    /// Whether an enabled event waits for ACPI software.
    pub(super) fn sci(&self) -> bool {
        let events = self.word(PMSTS) & self.word(PMEN) & (TMROF | GBL | PWRBTN) != 0
            || self.word(GPSTS) & self.word(GPEN) != 0;
        events && self.word(PMCNTRL) & SCI_EN != 0
    }

    /// Reads a byte of the block; [`PmIo::catch_up`] has been called.
    pub(super) fn read(&self, at: usize, now: VirtualTime) -> u8 {
        if (PMTMR..PMTMR + 4).contains(&at) {
            return byte_of(self.timer_register().value(now), at - PMTMR);
        }
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Writes bytes of the block from `at` on. Bits that only start something read as zero.
    pub(super) fn write(&mut self, at: usize, value: &[u8]) -> Option<Suspend> {
        for (at, byte) in (at..LEN).zip(value) {
            let (writable, clear) = masks(at);
            self.bytes[at] = (self.bytes[at] & !writable | byte & writable) & !(byte & clear);
        }
        if self.word(PMCNTRL) & GBL_RLS != 0 {
            self.clear_bits(PMCNTRL, GBL_RLS);
            self.set_bits(GLBSTS, BIOS_STS);
        }
        if self.word(GLBCTL) & BIOS_RLS != 0 {
            self.clear_bits(GLBCTL, BIOS_RLS);
            self.set_bits(PMSTS, GBL);
        }
        if self.word(PMCNTRL) & SUS_EN == 0 {
            return None;
        }
        self.clear_bits(PMCNTRL, SUS_EN);
        match self.word(PMCNTRL) >> SUS_TYP_SHIFT & SUS_TYP_MASK {
            SUS_TYP_SOFF => Some(Suspend::SoftOff),
            other => Some(Suspend::Other(other)),
        }
    }

    /// APMC was written while it generates SMI#.
    pub(super) fn note_apm(&mut self) {
        self.set_bits(GLBSTS, APM_STS);
    }

    /// Switches between SCI (ACPI) and SMI (legacy) for events.
    pub(super) fn set_acpi_mode(&mut self, acpi: bool) {
        if acpi {
            self.set_bits(PMCNTRL, SCI_EN);
        } else {
            self.clear_bits(PMCNTRL, SCI_EN);
        }
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> PmIoState {
        let Self { bytes, timer_zero, next_overflow } = self;
        PmIoState { bytes: bytes.to_vec(), timer_zero: *timer_zero, next_overflow: *next_overflow }
    }

    /// Appends the block to `out`, as a [`PmIoState`].
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        pack((LEN, &self.bytes, self.timer_zero, self.next_overflow), out);
    }

    /// A block from a saved state; bits that no guest could have set are not taken over.
    pub(super) fn from_state(state: PmIoState) -> Result<Self, StateError> {
        let PmIoState { bytes, timer_zero, next_overflow } = state;
        let bytes: [u8; LEN] =
            bytes.try_into().map_err(|_| StateError::OutOfRange("power management registers"))?;
        if next_overflow == 0 || !next_overflow.is_multiple_of(TIMER_HALF) {
            return Err(StateError::OutOfRange("power management timer"));
        }
        let mut block = Self::new(VirtualTime(0));
        for (at, byte) in bytes.into_iter().enumerate() {
            let (writable, clear) = masks(at);
            let mask = writable | clear;
            block.bytes[at] = block.bytes[at] & !mask | byte & mask;
        }
        block.clear_bits(PMCNTRL, SUS_EN | GBL_RLS);
        block.clear_bits(GLBCTL, BIOS_RLS);
        Ok(Self { timer_zero, next_overflow, ..block })
    }
}

#[cfg(test)]
pub(super) mod tests_support {
    use super::PmIoState;

    /// A state that no running model would write.
    pub(crate) fn state(bytes: Vec<u8>, timer_zero: u64, next_overflow: u64) -> PmIoState {
        PmIoState { bytes, timer_zero, next_overflow }
    }
}
