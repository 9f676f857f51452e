//! The command and result phases, and the commands that move no data (datasheet section 5.2).

use super::spec::{
    Command, DRIVES, DUMPREG_LOCK, LOCK_RESULT_SHIFT, VERSION_ID, configure, modifier, perpendicular, st0,
    st3, unit,
};
use super::state::Phase;
use super::{FIRST_SEEK_TIMER, Fdc, SETTLE_NS, STEP_NS};
use crate::device::TimerId;
use crate::host::Host;

/// Step pulses that RECALIBRATE gives before it gives up (section 5.2.1).
const RECALIBRATE_STEPS: u8 = 79;
/// How far past the last track of its medium a drive's head can go.
const EXTRA_TRACKS: u8 = 3;
/// Tracks of a drive that holds no medium.
const DRIVE_TRACKS: u8 = 80;

impl Fdc {
    /// One byte of the command phase.
    pub(super) fn command_write(&mut self, value: u8, host: &mut dyn Host) {
        if self.state.command.is_empty() && Command::decode(value).is_none() {
            tracing::debug!(command = value, "Invalid floppy command");
            self.give_result(&[st0::INVALID]);
            return;
        }
        self.state.command.push(value);
        let Some(command) = self.command() else { return };
        if self.state.command.len() >= command.length() {
            self.execute(command, host);
        }
    }

    /// Enters the result phase.
    pub(super) fn give_result(&mut self, bytes: &[u8]) {
        self.state.command.clear();
        self.state.result.clear();
        self.state.result.extend_from_slice(bytes);
        self.state.phase = Phase::Result;
    }

    fn no_result(&mut self) {
        self.state.command.clear();
        self.state.phase = Phase::Command;
    }

    fn execute(&mut self, command: Command, host: &mut dyn Host) {
        let (first, second, third) = (self.command_byte(0), self.command_byte(1), self.command_byte(2));
        let drive = usize::from(second & unit::DS);
        match command {
            Command::Specify => {
                self.state.specify = [second, third];
                self.no_result();
            }
            Command::SenseDriveStatus => {
                let status = self.drive_status(drive, second);
                self.give_result(&[status]);
            }
            Command::SenseInterrupt => self.sense_interrupt(host),
            Command::Recalibrate => self.recalibrate(drive, host),
            Command::Seek => {
                let delta = i16::from(third) - i16::from(self.state.drives[drive].pcn);
                self.seek(drive, delta, second, host);
            }
            Command::RelativeSeek => {
                let steps = i16::from(third);
                let inward = first & modifier::RELATIVE_INWARD != 0;
                self.seek(drive, if inward { steps } else { -steps }, second, host);
            }
            Command::DumpReg => {
                let registers = self.dump_registers();
                self.give_result(&registers);
            }
            Command::Version => self.give_result(&[VERSION_ID]),
            Command::Perpendicular => {
                self.set_perpendicular(second);
                self.no_result();
            }
            Command::Configure => {
                self.state.configure =
                    third & (configure::EIS | configure::EFIFO | configure::POLL | configure::FIFOTHR);
                self.state.precompensation_track = self.command_byte(3);
                self.no_result();
            }
            Command::Lock => {
                self.state.lock = first & modifier::LOCK != 0;
                self.give_result(&[u8::from(self.state.lock) << LOCK_RESULT_SHIFT]);
            }
            Command::ReadTrack
            | Command::WriteData
            | Command::ReadData
            | Command::WriteDeleted
            | Command::ReadId
            | Command::ReadDeleted
            | Command::FormatTrack
            | Command::ScanEqual
            | Command::Verify
            | Command::ScanLowOrEqual
            | Command::ScanHighOrEqual => self.start_transfer(command, host),
        }
    }

    fn drive_status(&self, drive: usize, second: u8) -> u8 {
        let protected = self.medium(drive).is_some_and(|m| m.image.read_only());
        let at_track_0 = self.drives[drive].is_some() && self.state.drives[drive].track == 0;
        st3::ONES
            | second & (unit::DS | unit::HDS)
            | if protected { st3::WP } else { 0 }
            | if at_track_0 { st3::T0 } else { 0 }
    }

    fn set_perpendicular(&mut self, value: u8) {
        let kept = if value & perpendicular::OW != 0 { 0 } else { perpendicular::DRIVES };
        let taken = perpendicular::GAP_WGATE | (perpendicular::DRIVES & !kept);
        self.state.perpendicular = self.state.perpendicular & kept | value & taken;
    }

    fn dump_registers(&self) -> [u8; super::spec::MAX_RESULT] {
        let pcn = self.state.drives.map(|d| d.pcn);
        let lock = if self.state.lock { DUMPREG_LOCK } else { 0 };
        [
            pcn[0],
            pcn[1],
            pcn[2],
            pcn[3],
            self.state.specify[0],
            self.state.specify[1],
            self.state.sector_count,
            lock | self.state.perpendicular,
            self.state.configure,
            self.state.precompensation_track,
        ]
    }

    /// Ended seeks come first. Ready changes that nobody asked for after reset are dropped when a
    /// seek ends: firmware that senses once instead of four times would mistake them for it.
    fn sense_interrupt(&mut self, host: &mut dyn Host) {
        self.state.interrupt = false;
        let ended = (0..DRIVES).find(|d| self.state.drives[*d].seek_end.is_some());
        if let Some(drive) = ended {
            let unit = &mut self.state.drives[drive];
            let status = unit.seek_end.take().unwrap_or(0);
            let cylinder = unit.pcn;
            self.give_result(&[status, cylinder]);
            if self.state.drives.iter().any(|d| d.seek_end.is_some()) {
                self.raise_interrupt(host);
            }
        } else if self.state.ready_changes != 0 {
            let drive = self.state.ready_changes.trailing_zeros() as u8;
            self.state.ready_changes &= self.state.ready_changes - 1;
            let cylinder = self.state.drives[usize::from(drive) % DRIVES].pcn;
            self.give_result(&[st0::POLLING | drive, cylinder]);
        } else {
            self.give_result(&[st0::INVALID]);
        }
    }

    fn recalibrate(&mut self, drive: usize, host: &mut dyn Host) {
        let before = self.state.drives[drive].track;
        let steps = before.min(RECALIBRATE_STEPS);
        self.step(drive, -i16::from(steps));
        // A drive that is not there never says "track 0".
        let found = self.drives[drive].is_some() && self.state.drives[drive].track == 0;
        let pulses = if self.drives[drive].is_some() { steps } else { RECALIBRATE_STEPS };
        self.state.drives[drive].pcn = 0;
        let failed = if found { 0 } else { st0::ABNORMAL | st0::EC };
        self.begin_seek(drive, st0::SE | failed | drive as u8, pulses.into(), host);
    }

    fn seek(&mut self, drive: usize, delta: i16, second: u8, host: &mut dyn Host) {
        self.step(drive, delta);
        let unit = &mut self.state.drives[drive];
        unit.pcn = unit.pcn.wrapping_add_signed(delta as i8);
        let status = st0::SE | second & (unit::DS | unit::HDS);
        self.begin_seek(drive, status, delta.unsigned_abs(), host);
    }

    /// Moves a head by `delta` tracks as far as it goes. Any step with a diskette in the drive
    /// resets the drive's change line.
    pub(super) fn step(&mut self, drive: usize, delta: i16) {
        if delta == 0 || self.drives[drive].is_none() {
            return;
        }
        let last =
            self.medium(drive).map_or(DRIVE_TRACKS, |m| m.format.cylinders).saturating_add(EXTRA_TRACKS);
        let has_medium = self.medium(drive).is_some();
        let unit = &mut self.state.drives[drive];
        let target = (i16::from(unit.track) + delta).clamp(0, i16::from(last));
        unit.track = target as u8;
        if has_medium {
            unit.changed = false;
        }
        self.state.inward = delta > 0;
    }

    /// The head has arrived in the state at once; the guest is told after the time that takes.
    fn begin_seek(&mut self, drive: usize, status: u8, steps: u16, host: &mut dyn Host) {
        let end = host.now().after(SETTLE_NS + STEP_NS * u64::from(steps));
        let unit = &mut self.state.drives[drive];
        unit.seek = Some((end, status));
        unit.seek_end = None;
        host.arm_timer(TimerId(FIRST_SEEK_TIMER + drive as u8), end);
        self.no_result();
    }

    pub(super) fn finish_seek(&mut self, drive: usize, host: &mut dyn Host) {
        let Some(unit) = self.state.drives.get_mut(drive) else { return };
        let Some((_, status)) = unit.seek.take() else { return };
        unit.seek_end = Some(status);
        self.state.ready_changes = 0;
        self.raise_interrupt(host);
    }
}
