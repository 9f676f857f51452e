//! The real-time clock and CMOS RAM: an MC146818 with the PIIX4's extended bank.
//!
//! Sources: Motorola MC146818 datasheet ("Address map", "Update cycle", "Interrupts", "Divider
//! stages", "Registers"); 82371AB (PIIX4) datasheet, section 4.2 (real time
//! clock registers).
//!
//! The clock runs on virtual time. Time and flags are computed when somebody looks, so a
//! machine that uses no clock interrupt arms no timer, and one that does has exactly one timer,
//! for the next interrupt that can assert the line (none while it is asserted: the guest must
//! read register C first).
//!
//! What differs from the chip: the century byte counts on with the year; leap years follow the
//! Gregorian calendar (the chip's own rule errs in 2100); divider settings other than 32.768
//! kHz hold the clock; bytes that mean no time are taken as the nearest that does when the
//! clock moves on; the extended bank cannot be locked or disabled.
//!
//! The 256 bytes outlive the machine in a host file: the process writes
//! [`RtcCmos::image`] there when [`RtcCmos::change_count`] has moved.

mod calendar;
mod clock;
mod names;
mod setup;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Device, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind, StateError,
    TimerId, WriteResult, Writes, load_state,
};
use crate::host::Host;
use calendar::DateTime;
use clock::{ClockState, is_time};
use ipc::mirror::Mirrored;
use ipc::time::VirtualTime;
pub use setup::FloppyType;
use spec::{
    BANK_LEN, BANK_PORTS, CENTURY, CMOS_LEN, DATA_OFFSET, DIVIDER_32_KHZ, EXTENDED_BASE, INDEX_MASK,
    INDEX_OFFSET, NMI_MASK, REGISTER_A, REGISTER_A_DEFAULT, REGISTER_B, REGISTER_B_DEFAULT,
    REGISTER_B_FORMAT, REGISTER_C, REGISTER_D, REGISTER_D_VALID, RTC_IRQ, RegisterB, STANDARD_BASE,
};

const STANDARD: RegionId = RegionId(0);
const EXTENDED: RegionId = RegionId(1);

const NEXT_INTERRUPT: TimerId = TimerId(0);

/// Port 70h, which is never answered from the mirror page.
const INDEX_CELL: MirrorSlot = MirrorSlot(0);
/// Port 71h, as it reads until the register that is selected changes.
const DATA_CELL: MirrorSlot = MirrorSlot(1);

/// The clock and its 256 bytes.
pub struct RtcCmos {
    // Runtime glue
    changed: bool,
    /// [`DATA_CELL`] says something.
    published: bool,

    // Volatile state
    state: ClockState,
}

impl RtcCmos {
    /// A clock that shows `start_unix_seconds` when virtual time is zero. `initial_cmos` is what
    /// an earlier machine left ([`RtcCmos::image`]); its time is replaced, its formats are kept.
    pub fn new(start_unix_seconds: i64, initial_cmos: Option<[u8; CMOS_LEN]>) -> Self {
        let mut state = ClockState {
            ram: initial_cmos.unwrap_or([0; CMOS_LEN]),
            index: 0,
            extended_index: 0,
            flags: 0,
            synced: VirtualTime(0),
            phase: 0,
            changes: 0,
        };
        if initial_cmos.is_none() {
            state.set_byte(REGISTER_B, REGISTER_B_DEFAULT);
        }
        // A machine that was switched off while it set the clock left it stopped. Start it.
        if state.register_a().divider() != DIVIDER_32_KHZ || initial_cmos.is_none() {
            state.set_byte(REGISTER_A, REGISTER_A_DEFAULT);
        }
        state.set_byte(REGISTER_A, state.register_a().with_update_in_progress(false).into_bits());
        state.set_byte(REGISTER_B, state.byte(REGISTER_B) & REGISTER_B_FORMAT);
        state.set_byte(REGISTER_C, 0);
        state.set_byte(REGISTER_D, REGISTER_D_VALID);
        state.set_time(DateTime::from_unix(start_unix_seconds));
        Self { changed: true, published: true, state }
    }

    /// Both banks, as the host file keeps them.
    pub fn image(&self) -> [u8; CMOS_LEN] {
        self.state.ram
    }

    /// Changes whenever [`RtcCmos::image`] has changed in more than the running time. It is part of the
    /// saved state; a process that has just started does not know what was written before it,
    /// and should write the file once.
    pub fn change_count(&self) -> u64 {
        self.state.changes
    }

    /// Whether port 70h masks NMI.
    pub fn nmi_masked(&self) -> bool {
        self.state.index & NMI_MASK != 0
    }

    fn stored(&self, register: u8) -> u8 {
        self.state.byte(register)
    }

    fn store(&mut self, register: u8, value: u8) {
        if self.state.byte(register) == value {
            return;
        }
        self.state.set_byte(register, value);
        self.note_change(register);
    }

    fn note_change(&mut self, register: u8) {
        if !is_time(register) {
            self.state.changes = self.state.changes.wrapping_add(1);
        }
    }

    fn sync(&mut self, host: &dyn Host) {
        self.changed |= self.state.sync(host.now());
    }

    /// Drives IRQ 8 and arms the timer, from the current state.
    fn publish(&self, host: &mut dyn Host) {
        host.set_irq(RTC_IRQ, self.state.register_c().interrupt());
        match self.state.next_interrupt() {
            Some(time) => host.arm_timer(NEXT_INTERRUPT, time),
            None => host.cancel_timer(NEXT_INTERRUPT),
        }
    }

    fn read_standard(&mut self, host: &mut dyn Host) -> u8 {
        self.sync(host);
        let register = self.state.index & INDEX_MASK;
        let value = self.read_register(register, host);
        if let Some(end) = self.holds_until(register, host.now()) {
            host.publish_timed(DATA_CELL, Mirrored::until(value, end));
            self.published = true;
        }
        value
    }

    /// Until when a register surely reads what it reads now, unless something is written.
    fn holds_until(&self, register: u8, now: VirtualTime) -> Option<VirtualTime> {
        match register {
            // A read clears it.
            REGISTER_C => None,
            REGISTER_A => Some(self.state.next_step(now)),
            _ if is_time(register) || register == CENTURY => Some(self.state.next_step(now)),
            _ => Some(VirtualTime::NEVER),
        }
    }

    /// Something was written, or another register selected.
    fn withdraw(&mut self, host: &mut dyn Host) {
        if std::mem::take(&mut self.published) {
            host.publish_timed(DATA_CELL, Mirrored::ASK);
        }
    }

    fn read_register(&mut self, register: u8, host: &mut dyn Host) -> u8 {
        match register {
            REGISTER_A => {
                let uip = self.state.update_in_progress(host.now());
                self.state.register_a().with_update_in_progress(uip).into_bits()
            }
            REGISTER_C => {
                let value = self.state.register_c().into_bits();
                if self.state.flags != 0 {
                    self.changed = true;
                    self.state.flags = 0;
                    self.publish(host);
                }
                value
            }
            _ => self.state.byte(register),
        }
    }

    fn write_standard(&mut self, value: u8, host: &mut dyn Host) {
        self.sync(host);
        let register = self.state.index & INDEX_MASK;
        let before = self.state.byte(register);
        match register {
            REGISTER_A => self.state.write_register_a(value, host.now()),
            REGISTER_B => self.state.write_register_b(value),
            REGISTER_C | REGISTER_D => return,
            _ => self.state.set_byte(register, value),
        }
        if self.state.byte(register) != before {
            self.note_change(register);
        }
        if register <= REGISTER_B {
            self.publish(host);
        }
    }

    /// Where the extended bank's index points in the image.
    fn extended_byte(&mut self) -> &mut u8 {
        let at = BANK_LEN + usize::from(self.state.extended_index & INDEX_MASK);
        &mut self.state.ram[at]
    }
}

impl Device for RtcCmos {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(STANDARD, "rtc", STANDARD_BASE, BANK_PORTS)
                .writes(Writes::PostedLocal)
                .timed(INDEX_CELL),
            Region::ports(EXTENDED, "rtc_ext", EXTENDED_BASE, BANK_PORTS).writes(Writes::PostedLocal),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn selected(&self, at: Access, _written: Option<u32>) -> Option<u32> {
        (at.region == STANDARD && at.offset == DATA_OFFSET)
            .then_some(u32::from(self.state.index & INDEX_MASK))
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.withdraw(host);
        self.publish(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let value = match (at.region, at.offset) {
            (STANDARD, DATA_OFFSET) => self.read_standard(host),
            (EXTENDED, DATA_OFFSET) => *self.extended_byte(),
            // The index ports are write only.
            _ => return Err(IoError::InvalidRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        self.changed = true;
        self.withdraw(host);
        let value = value as u8;
        match (at.region, at.offset) {
            (STANDARD, INDEX_OFFSET) => self.state.index = value,
            (STANDARD, DATA_OFFSET) => self.write_standard(value, host),
            (EXTENDED, INDEX_OFFSET) => self.state.extended_index = value & INDEX_MASK,
            (EXTENDED, DATA_OFFSET) => {
                let byte = self.extended_byte();
                if *byte != value {
                    *byte = value;
                    self.state.changes = self.state.changes.wrapping_add(1);
                }
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn timer(&mut self, _timer: TimerId, _deadline: VirtualTime, host: &mut dyn Host) {
        self.sync(host);
        self.publish(host);
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        // The battery keeps everything; RESET# clears interrupt enables, flags and SQWE.
        self.sync(host);
        self.withdraw(host);
        let b = self
            .state
            .register_b()
            .with_periodic_interrupt(false)
            .with_alarm_interrupt(false)
            .with_update_interrupt(false)
            .with_square_wave(false);
        self.state.set_byte(REGISTER_B, RegisterB::into_bits(b));
        self.state.flags = 0;
        self.state.index = 0;
        self.state.extended_index = 0;
        self.changed = true;
        self.publish(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.state.save(out);
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: ClockState = load_state(data)?;
        state.validate()?;
        self.state = state;
        self.changed = true;
        self.published = true;
        Ok(())
    }
}
