//! The floppy disk controller, with its drives.
//!
//! Source: Intel 82077AA CHMOS Single-Chip Floppy Disk Controller, datasheet 290166 (1994): section
//! 2.1 (registers), 3 (reset), 4.2 (drive polling), 5 (commands), 6 (status). Ports 3F0h-3F5h
//! and 3F7h, IRQ 6, DMA channel 2. Port 3F6h belongs to the IDE controller.
//!
//! The strap is AT: the DMA gate of the DOR works and the DIR drives only bit 7. The AT strap
//! leaves 3F0h and 3F1h undriven; here they show the PS/2 status registers, which some
//! diagnostics look at. PART ID and POWERDOWN are 82078 commands and are invalid, as on the real chip.
//!
//! **Time.** Mechanics are shortened, in virtual time, to what a guest can still see: 20 us from
//! reset to ready, 20 us per step, 100 us until the first sector comes by, 50 us per sector
//! (`*_NS` below). So a driver always sees a busy controller before its interrupt. A whole sector moves
//! at one such moment; the channel is given half a second to be unmasked before that counts
//! as overrun. Non-DMA transfers never overrun.
//!
//! **What a raw image cannot hold.** Deleted data marks (written as normal data), sector sizes
//! other than 512, and layouts other than the image's: FORMAT TRACK of such ends with "not
//! writable". A drive fits its medium: a 360 KiB diskette sits in a 40-track drive.
//!
//! **Surviving a restart.** The sector in flight and the place of the DMA channel before it are part
//! of the state, so a sector that was being moved when the process died is moved again, to the
//! same place.

mod commands;
mod names;
mod spec;
mod state;
mod transfer;

use crate::device::{
    ALL_PARTS, Access, Device, Dma, IoError, MirrorSlot, Parts, ReadResult, Region, RegionId, Register,
    ResetKind, StateError, TimerId, WriteResult, load_state, save_parts,
};
use crate::host::Host;
use crate::storage::image::{BlockDevice, FloppyFormat};
use ipc::time::VirtualTime;
use spec::{Command, DRIVES, configure, dir, dor, dsr, modifier, msr, perpendicular, port, sra, srb, tdr};
use state::{Phase, Stage, State, part};

/// From the end of reset to the ready-change interrupt.
const RESET_NS: u64 = 20_000;
/// One step pulse of a seek.
const STEP_NS: u64 = 20_000;
/// What a seek takes even if it goes nowhere.
const SETTLE_NS: u64 = 50_000;
/// From a data command to its first sector.
const ACCESS_NS: u64 = 100_000;
/// From one sector to the next.
const SECTOR_NS: u64 = 50_000;

const STATUS: RegionId = RegionId(0);
const MAIN_STATUS: RegionId = RegionId(1);
const DATA: RegionId = RegionId(2);
const DIGITAL_INPUT: RegionId = RegionId(3);

const MSR_MIRROR: MirrorSlot = MirrorSlot(0);
const DIR_MIRROR: MirrorSlot = MirrorSlot(1);

const TRANSFER_TIMER: TimerId = TimerId(0);
const RESET_TIMER: TimerId = TimerId(1);
/// The seek timer of drive n is this plus n.
const FIRST_SEEK_TIMER: u8 = 2;

/// A diskette: an image and how it is formatted.
pub struct Medium {
    /// The bytes.
    pub image: Box<dyn BlockDevice>,
    /// Tracks, sides, sectors and bit rate.
    pub format: FloppyFormat,
}

/// A floppy drive. It exists also without a diskette.
#[derive(Default)]
pub struct FloppyDrive {
    /// The diskette in it.
    pub medium: Option<Medium>,
}

/// What the controller's outputs were last set to, so that only changes are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outputs {
    msr: u8,
    dir: u8,
    irq: bool,
    dreq: bool,
}

/// The floppy disk controller.
pub struct Fdc {
    // Runtime glue.
    drives: [Option<FloppyDrive>; DRIVES],
    published: Option<Outputs>,
    changed: Parts,
    // Volatile state.
    state: State,
}

impl Fdc {
    /// A controller with drives A and B; `None` is a drive that is not connected.
    pub fn new(drives: [Option<FloppyDrive>; 2]) -> Self {
        let [a, b] = drives;
        Self { drives: [a, b, None, None], published: None, changed: ALL_PARTS, state: State::power_on() }
    }

    /// Puts a diskette into drive `drive` (0 or 1), or takes it out, and returns the one that was
    /// in. Nothing happens, and the diskette comes back, when there is no such drive.
    pub fn change_medium(
        &mut self,
        drive: usize,
        medium: Option<Medium>,
        host: &mut dyn Host,
    ) -> Option<Medium> {
        let Some(Some(unit)) = self.drives.get_mut(drive) else { return medium };
        let old = std::mem::replace(&mut unit.medium, medium);
        self.state.drives[drive].changed = true;
        self.publish(host);
        old
    }

    fn medium(&self, drive: usize) -> Option<&Medium> {
        self.drives.get(drive)?.as_ref()?.medium.as_ref()
    }

    fn selected(&self) -> usize {
        usize::from(self.state.dor & dor::DRIVE_SEL)
    }

    fn motor_on(&self, drive: usize) -> bool {
        self.state.dor >> dor::MOT_EN_SHIFT & 1 << drive != 0
    }

    /// The command being received or executed.
    fn command(&self) -> Option<Command> {
        Command::decode(*self.state.command.first()?)
    }

    /// Byte `index` of the command being executed; the state guarantees that it is there.
    fn command_byte(&self, index: usize) -> u8 {
        self.state.command.get(index).copied().unwrap_or(0)
    }

    fn main_status(&self) -> u8 {
        let seeking = (0..DRIVES).filter(|d| self.state.drives[*d].seek.is_some());
        let busy_drives = seeking.fold(0, |bits, drive| bits | 1 << drive);
        busy_drives
            | match self.state.phase {
                Phase::Reset => return 0,
                Phase::Command if self.state.command.is_empty() => msr::RQM,
                Phase::Command => msr::RQM | msr::CMD_BSY,
                Phase::Result => msr::RQM | msr::DIO | msr::CMD_BSY,
                Phase::Execution => self.execution_status(),
            }
    }

    fn execution_status(&self) -> u8 {
        let Some(transfer) = &self.state.transfer else { return msr::CMD_BSY };
        if transfer.stage != Stage::Pio {
            return msr::CMD_BSY;
        }
        let takes = self.command().is_some_and(Command::takes_bytes);
        msr::RQM | msr::NON_DMA | msr::CMD_BSY | if takes { 0 } else { msr::DIO }
    }

    fn digital_input(&self) -> u8 {
        let drive = self.selected();
        let changed = self.drives[drive].is_some() && self.state.drives[drive].changed;
        dir::UNDRIVEN | if changed { dir::DSK_CHG } else { 0 }
    }

    fn status_a(&self) -> u8 {
        let drive = self.selected();
        let protected = self.medium(drive).is_some_and(|m| m.image.read_only());
        let at_track_0 = self.drives[drive].is_some() && self.state.drives[drive].track == 0;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.state.interrupt, sra::INT_PENDING)
            | flag(self.drives[1].is_none(), sra::DRV2_N)
            | flag(self.state.drives[drive].seek.is_some(), sra::STEP)
            | flag(!at_track_0, sra::TRK0_N)
            | flag(self.state.head_select, sra::HDSEL)
            | sra::INDX_N
            | flag(!protected, sra::WP_N)
            | flag(self.state.inward, sra::DIR)
    }

    fn status_b(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let writing = self.state.transfer.is_some() && self.command().is_some_and(Command::writes);
        srb::ONES
            | flag(self.state.dor & 1 != 0, srb::DRIVE_SEL_0)
            | flag(self.state.write_toggle, srb::WRDATA_TOGGLE)
            | flag(self.state.read_toggle, srb::RDDATA_TOGGLE)
            | flag(writing, srb::WE)
            | self.state.dor >> dor::MOT_EN_SHIFT & 0b11
    }

    /// Publishes what the outside sees, where it changed.
    fn publish(&mut self, host: &mut dyn Host) {
        self.changed |= part::REGISTERS | part::REST;
        let gate = self.state.dor & dor::DMA_GATE != 0;
        let moving = self.state.transfer.as_ref().is_some_and(|t| t.stage == Stage::Dma);
        let now = Outputs {
            msr: self.main_status(),
            dir: self.digital_input(),
            irq: self.state.interrupt && gate,
            dreq: moving && gate,
        };
        let before = self.published.replace(now);
        if before.is_none_or(|b| b.msr != now.msr) {
            host.publish_mirror(MSR_MIRROR, now.msr.into());
        }
        if before.is_none_or(|b| b.dir != now.dir) {
            host.publish_mirror(DIR_MIRROR, now.dir.into());
        }
        if before.is_none_or(|b| b.dreq != now.dreq) {
            host.set_dreq(spec::DMA_CHANNEL, now.dreq);
        }
        if before.is_none_or(|b| b.irq != now.irq) {
            host.set_irq(spec::IRQ, now.irq);
        }
    }

    /// Lets the interrupt pin fall and rise again: a new reason while the old one stands.
    fn raise_interrupt(&mut self, host: &mut dyn Host) {
        self.state.interrupt = false;
        self.publish(host);
        self.state.interrupt = true;
        self.publish(host);
    }

    fn arm_transfer(&mut self, nanos: u64, host: &mut dyn Host) {
        let deadline = host.now().after(nanos);
        self.state.transfer_deadline = Some(deadline);
        host.arm_timer(TRANSFER_TIMER, deadline);
    }

    /// Arms every timer that the state says is running, and cancels the others.
    fn restore_timers(&self, host: &mut dyn Host) {
        let seeks = (0u8..).zip(&self.state.drives);
        let seeks = seeks.map(|(n, drive)| (TimerId(FIRST_SEEK_TIMER + n), drive.seek.map(|(end, _)| end)));
        let others =
            [(TRANSFER_TIMER, self.state.transfer_deadline), (RESET_TIMER, self.state.reset_deadline)];
        for (timer, deadline) in seeks.chain(others) {
            match deadline {
                Some(deadline) => host.arm_timer(timer, deadline),
                None => host.cancel_timer(timer),
            }
        }
    }

    /// Reset through the DOR or DSR: stops everything; LOCK keeps the FIFO set-up
    /// (sections 3.2 and 5.2.9).
    fn software_reset(&mut self, host: &mut dyn Host) {
        self.changed |= self.state.buffer();
        let state = &mut self.state;
        state.phase = Phase::Reset;
        state.command.clear();
        state.result.clear();
        state.transfer = None;
        state.transfer_deadline = None;
        state.reset_deadline = None;
        state.interrupt = false;
        state.ready_changes = 0;
        for drive in &mut state.drives {
            drive.seek = None;
            drive.seek_end = None;
        }
        state.perpendicular &= !perpendicular::GAP_WGATE;
        if !state.lock {
            state.configure = state.configure & !configure::FIFOTHR | configure::EFIFO;
            state.precompensation_track = 0;
        }
        if state.dor & dor::RESET_N != 0 {
            state.reset_deadline = Some(host.now().after(RESET_NS));
        }
        self.restore_timers(host);
    }

    /// The controller is up again: it takes commands, and finds that the ready state of every drive "changed"
    /// (section 4.2.1). The interrupt comes also with polling disabled: section 5.2.7 only promises it with polling,
    /// but Linux disables polling and then waits for the interrupt of each reset, on every controller there is.
    fn finish_reset(&mut self, host: &mut dyn Host) {
        self.state.reset_deadline = None;
        self.state.phase = Phase::Command;
        self.state.ready_changes = (1 << DRIVES) - 1;
        self.raise_interrupt(host);
    }

    fn write_dor(&mut self, value: u8, host: &mut dyn Host) {
        let before = std::mem::replace(&mut self.state.dor, value);
        let toggled = (before ^ value) & dor::RESET_N != 0;
        if toggled {
            self.software_reset(host);
        }
    }

    fn write_dsr(&mut self, value: u8, host: &mut dyn Host) {
        self.state.dsr = value & !dsr::SW_RESET;
        self.state.rate = value & dsr::DRATE;
        if value & dsr::SW_RESET != 0 {
            self.software_reset(host);
        }
    }

    fn read_data(&mut self, host: &mut dyn Host) -> u8 {
        match self.state.phase {
            Phase::Result => {
                // Reading the first result byte acknowledges the interrupt (section 5.1.3), but
                // not that of a seek that has ended and is still to be sensed.
                self.state.interrupt = self.state.drives.iter().any(|d| d.seek_end.is_some());
                let byte = if self.state.result.is_empty() { 0 } else { self.state.result.remove(0) };
                if self.state.result.is_empty() {
                    self.state.phase = Phase::Command;
                }
                byte
            }
            Phase::Execution => self.pio_read(host),
            Phase::Reset | Phase::Command => 0,
        }
    }

    fn write_data(&mut self, value: u8, host: &mut dyn Host) {
        match self.state.phase {
            Phase::Command => self.command_write(value, host),
            Phase::Execution => self.pio_write(value, host),
            Phase::Reset | Phase::Result => {}
        }
    }
}

impl Device for Fdc {
    fn name(&self) -> &'static str {
        "fdc"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(STATUS, "fdc-control", port::SRA, 4),
            Region::ports(MAIN_STATUS, "fdc-status", port::MSR, 1).mirrored(MSR_MIRROR),
            Region::ports(DATA, "fdc-data", port::DATA, 1),
            Region::ports(DIGITAL_INPUT, "fdc-rate", port::DIR, 1).mirrored(DIR_MIRROR),
        ]
    }

    fn dma(&self) -> Dma {
        Dma::ISA
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.published = None;
        self.publish(host);
        self.restore_timers(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let value = match at.port() {
            port::SRA => self.status_a(),
            port::SRB => self.status_b(),
            port::DOR => self.state.dor,
            port::TDR => !tdr::TAPE_SEL | self.state.tdr,
            port::MSR => self.main_status(),
            port::DATA => {
                let (changed, interrupt) = (self.changed, self.state.interrupt);
                let result = self.state.phase == Phase::Result;
                let byte = self.read_data(host);
                self.publish(host);
                if result && self.state.interrupt == interrupt {
                    // The byte was taken from the others, and nothing else.
                    self.changed = changed | part::REGISTERS;
                }
                byte
            }
            port::DIR => self.digital_input(),
            _ => return Err(IoError::InvalidRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let value = value as u8;
        let (changed, command) = (self.changed, self.state.command.len());
        match at.port() {
            port::DOR => self.write_dor(value, host),
            port::TDR => self.state.tdr = value & tdr::TAPE_SEL,
            port::DSR => self.write_dsr(value, host),
            port::DATA => self.write_data(value, host),
            port::CCR => self.state.rate = value & dsr::DRATE,
            _ => return Err(IoError::InvalidRegister),
        }
        self.publish(host);
        if self.state.phase == Phase::Command && self.state.command.len() == command + 1 {
            // The byte was put to the others, and nothing else.
            self.changed = changed | part::REGISTERS;
        }
        Ok(())
    }

    fn timer(&mut self, timer: TimerId, _: VirtualTime, host: &mut dyn Host) {
        match timer {
            TRANSFER_TIMER if self.state.transfer_deadline.take().is_some() => self.transfer_step(host),
            RESET_TIMER if self.state.reset_deadline.is_some() => self.finish_reset(host),
            TimerId(n) => {
                if let Some(drive) = n.checked_sub(FIRST_SEEK_TIMER) {
                    self.finish_seek(drive.into(), host);
                }
            }
        }
        self.publish(host);
    }

    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        // The diskettes and the heads stay where they are.
        let drives = self.state.drives;
        self.state = State::power_on();
        for (drive, before) in self.state.drives.iter_mut().zip(drives) {
            drive.track = before.track;
            drive.changed = before.changed;
        }
        self.changed = ALL_PARTS;
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_parts(self, out);
    }

    fn take_changed(&mut self) -> bool {
        self.take_changed_parts() != 0
    }

    fn parts(&self) -> usize {
        part::COUNT
    }

    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        self.state.save_part(part, out);
    }

    fn take_changed_parts(&mut self) -> Parts {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: State = load_state(data)?;
        state.validate()?;
        self.state = state;
        self.changed = ALL_PARTS;
        Ok(())
    }
}

/// Whether the first command byte carries the multi-track bit.
fn multi_track(command_byte: u8) -> bool {
    command_byte & modifier::MT != 0
}

#[cfg(test)]
mod tests;
