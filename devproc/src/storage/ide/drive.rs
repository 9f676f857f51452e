//! One ATA disk: the commands (ATA-4 chapter 8) and its data phase.
//!
//! Commands take no virtual time: data is ready, and the interrupt pending, when the access that
//! asked for it is done, as with a drive that has everything in its cache.

use super::identify;
use super::spec::{MAX_MULTIPLE, command, device, error, feature, power, status};
use super::state::{Addressing, Kind, MAX_COUNT, Power, Transfer, Unit};
use crate::storage::image::{BlockDevice, SECTOR_BYTES};
use ipc::machine::Geometry;

/// Status of a drive that waits for a command.
const READY: u8 = status::DRDY | status::DSC;
/// Sector counts of zero mean this many (28-bit commands).
const COUNT_ZERO: u32 = 256;
/// Transfer mode 0: PIO default, and PIO default without IORDY.
const PIO_DEFAULT: std::ops::RangeInclusive<u8> = 0x00..=0x01;
/// PIO flow control modes 0-4.
const PIO_FLOW_CONTROL: std::ops::RangeInclusive<u8> = 0x08..=0x0c;
/// Multiword DMA modes 0-2.
const MULTIWORD_DMA: std::ops::RangeInclusive<u8> = 0x20..=0x22;
/// Ultra DMA modes 0-2, what the PIIX4 can do.
const ULTRA_DMA: std::ops::RangeInclusive<u8> = 0x40..=0x42;

/// A disk: an image with a geometry.
pub struct IdeDrive {
    image: Box<dyn BlockDevice>,
    geometry: Geometry,
    serial: String,
}

impl IdeDrive {
    /// A disk on `image`. `serial` goes into IDENTIFY (20 characters of ASCII at most).
    pub fn new(image: Box<dyn BlockDevice>, geometry: Geometry, serial: &str) -> Self {
        Self { image, geometry, serial: serial.to_owned() }
    }

    /// The default translation.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Serial number.
    pub(super) fn serial(&self) -> &str {
        &self.serial
    }

    /// Capacity in sectors.
    pub(super) fn total_sectors(&self) -> u64 {
        self.image.len() / SECTOR_BYTES as u64
    }

    fn read(&mut self, lba: u64, sector: &mut [u8]) -> Result<(), u8> {
        if lba >= self.total_sectors() {
            return Err(error::IDNF);
        }
        self.image.read_at(lba * SECTOR_BYTES as u64, sector).map_err(|_| error::UNC)
    }

    fn write(&mut self, lba: u64, sector: &[u8]) -> Result<(), u8> {
        if lba >= self.total_sectors() {
            return Err(error::IDNF);
        }
        self.image.write_at(lba * SECTOR_BYTES as u64, sector).map_err(|_| error::ABRT)
    }
}

/// A drive together with its state: one device as the channel sees it.
pub(super) struct Disk<'a> {
    pub drive: &'a mut IdeDrive,
    pub unit: &'a mut Unit,
}

impl Disk<'_> {
    /// The command register was written.
    pub fn execute(&mut self, code: u8) {
        self.unit.interrupt = false;
        if self.unit.power == Power::Sleep {
            return;
        }
        self.unit.transfer = None;
        self.unit.status = READY;
        self.unit.error = 0;
        match code {
            command::READ_SECTORS | command::READ_SECTORS_ONCE => self.start(Kind::Read, false, 1),
            command::READ_SECTORS_EXT => self.start(Kind::Read, true, 1),
            command::WRITE_SECTORS | command::WRITE_SECTORS_ONCE | command::WRITE_VERIFY => {
                self.start(Kind::Write, false, 1);
            }
            command::WRITE_SECTORS_EXT => self.start(Kind::Write, true, 1),
            command::READ_MULTIPLE => self.start(Kind::Read, false, self.unit.multiple),
            command::READ_MULTIPLE_EXT => self.start(Kind::Read, true, self.unit.multiple),
            command::WRITE_MULTIPLE => self.start(Kind::Write, false, self.unit.multiple),
            command::WRITE_MULTIPLE_EXT => self.start(Kind::Write, true, self.unit.multiple),
            command::READ_DMA | command::READ_DMA_ONCE => self.start(Kind::ReadDma, false, 1),
            command::READ_DMA_EXT => self.start(Kind::ReadDma, true, 1),
            command::WRITE_DMA | command::WRITE_DMA_ONCE => self.start(Kind::WriteDma, false, 1),
            command::WRITE_DMA_EXT => self.start(Kind::WriteDma, true, 1),
            command::READ_VERIFY | command::READ_VERIFY_ONCE => self.verify(false),
            command::READ_VERIFY_EXT => self.verify(true),
            command::READ_NATIVE_MAX => self.native_max(Addressing::Lba28),
            command::READ_NATIVE_MAX_EXT => self.native_max(Addressing::Lba48),
            command::IDENTIFY => self.identify(),
            command::SET_FEATURES => self.set_features(),
            command::SET_MULTIPLE => self.set_multiple(),
            command::INITIALIZE_PARAMETERS => self.initialize_parameters(),
            command::FLUSH_CACHE | command::FLUSH_CACHE_EXT => self.flush(),
            command::STANDBY
            | command::STANDBY_OLD
            | command::STANDBY_IMMEDIATE
            | command::STANDBY_IMMEDIATE_OLD => self.change_power(Power::Standby),
            command::IDLE | command::IDLE_OLD | command::IDLE_IMMEDIATE | command::IDLE_IMMEDIATE_OLD => {
                self.change_power(Power::Active);
            }
            command::SLEEP | command::SLEEP_OLD => self.change_power(Power::Sleep),
            command::CHECK_POWER | command::CHECK_POWER_OLD => {
                let standby = self.unit.power == Power::Standby;
                self.unit.count[0] = if standby { power::STANDBY } else { power::ACTIVE };
                self.complete();
            }
            // NOP always ends this way; everything else here is a command this drive does not have.
            command::NOP => self.fail(error::ABRT),
            _ if code & !command::LOW_DIGIT == command::RECALIBRATE => self.recalibrate(),
            _ if code & !command::LOW_DIGIT == command::SEEK => self.seek(),
            _ => {
                tracing::debug!(command = code, "ATA command not supported");
                self.fail(error::ABRT);
            }
        }
    }

    fn complete(&mut self) {
        self.unit.transfer = None;
        self.unit.status = READY;
        self.unit.interrupt = true;
    }

    pub fn fail(&mut self, code: u8) {
        self.unit.transfer = None;
        self.unit.status = READY | status::ERR;
        self.unit.error = code;
        self.unit.interrupt = true;
    }

    /// The host could not store what the drive was to store: a device fault.
    fn fault(&mut self, code: u8) {
        self.fail(code);
        if code & error::IDNF == 0 {
            self.unit.status |= status::DF;
        }
    }

    fn addressing(&self, extended: bool) -> Addressing {
        match (extended, self.unit.device & device::LBA != 0) {
            (true, _) => Addressing::Lba48,
            (false, true) => Addressing::Lba28,
            (false, false) => Addressing::Chs,
        }
    }

    /// The sector that the registers name; `None` when the translation has no such place.
    fn address(&self, addressing: Addressing) -> Option<u64> {
        let byte = |pair: [u8; 2], index: usize| u64::from(pair[index]);
        let unit = &*self.unit;
        let low_24 = byte(unit.high, 0) << 16 | byte(unit.mid, 0) << 8 | byte(unit.low, 0);
        match addressing {
            Addressing::Lba48 => {
                let high_24 = byte(unit.high, 1) << 16 | byte(unit.mid, 1) << 8 | byte(unit.low, 1);
                Some(high_24 << 24 | low_24)
            }
            Addressing::Lba28 => Some(u64::from(unit.device & device::HEAD) << 24 | low_24),
            Addressing::Chs => {
                let cylinder = byte(unit.high, 0) << 8 | byte(unit.mid, 0);
                let head = unit.device & device::HEAD;
                let sector = unit.low[0].checked_sub(1).filter(|s| *s < unit.sectors)?;
                let track = cylinder * u64::from(unit.heads) + u64::from(head);
                (head < unit.heads).then(|| track * u64::from(unit.sectors) + u64::from(sector))
            }
        }
    }

    /// Shows where the transfer is in the registers.
    fn show_address(&mut self, addressing: Addressing, lba: u64) {
        let unit = &mut *self.unit;
        let bytes = lba.to_le_bytes();
        match addressing {
            Addressing::Lba48 => {
                unit.low = [bytes[0], bytes[3]];
                unit.mid = [bytes[1], bytes[4]];
                unit.high = [bytes[2], bytes[5]];
            }
            Addressing::Lba28 => {
                (unit.low[0], unit.mid[0], unit.high[0]) = (bytes[0], bytes[1], bytes[2]);
                unit.device = unit.device & !device::HEAD | bytes[3] & device::HEAD;
            }
            Addressing::Chs => {
                let (heads, sectors) = (u64::from(unit.heads), u64::from(unit.sectors));
                let (track, sector) = (lba / sectors, lba % sectors);
                let (cylinder, head) = (track / heads, track % heads);
                unit.low[0] = sector as u8 + 1;
                unit.mid[0] = cylinder as u8;
                unit.high[0] = (cylinder >> 8) as u8;
                unit.device = unit.device & !device::HEAD | head as u8 & device::HEAD;
            }
        }
    }

    fn sector_count(&self, extended: bool) -> u32 {
        let [low, high] = self.unit.count.map(u32::from);
        match (extended, high << 8 | low) {
            (true, 0) => MAX_COUNT,
            (true, count) => count,
            (false, _) if low == 0 => COUNT_ZERO,
            (false, _) => low,
        }
    }

    /// Begins a data command; `block` is its sectors per DRQ, 0 when multiple mode is off.
    fn start(&mut self, kind: Kind, extended: bool, block: u8) {
        let writes = matches!(kind, Kind::Write | Kind::WriteDma);
        if block == 0 || writes && self.drive.image.read_only() {
            return self.fail(error::ABRT);
        }
        self.unit.power = Power::Active;
        let addressing = self.addressing(extended);
        let in_range = |lba: &u64| *lba < self.drive.total_sectors();
        let Some(lba) = self.address(addressing).filter(in_range) else { return self.fail(error::IDNF) };
        let remaining = self.sector_count(extended);
        self.unit.transfer = Some(Transfer {
            kind,
            addressing,
            lba,
            remaining,
            block,
            block_left: remaining.min(block.into()) as u8,
            position: 0,
            buffer: vec![0; SECTOR_BYTES],
        });
        match kind {
            Kind::Read => {
                self.unit.interrupt = true;
                self.load_sector();
            }
            // The first block of a write is asked for without an interrupt.
            Kind::Write | Kind::ReadDma | Kind::WriteDma | Kind::Identify => {
                self.unit.status = READY | status::DRQ;
            }
        }
    }

    /// Reads the sector in flight of a read into the buffer, or ends the command.
    fn load_sector(&mut self) {
        let Some(transfer) = &mut self.unit.transfer else { return };
        let (addressing, lba) = (transfer.addressing, transfer.lba);
        transfer.position = 0;
        let outcome = self.drive.read(lba, &mut transfer.buffer);
        self.show_progress(addressing, lba);
        match outcome {
            Ok(()) => self.unit.status = READY | status::DRQ,
            Err(code) => self.fail(code),
        }
    }

    fn show_progress(&mut self, addressing: Addressing, lba: u64) {
        self.show_address(addressing, lba);
        let left = self.unit.transfer.as_ref().map_or(0, |t| t.remaining);
        self.unit.count = [left as u8, (left >> 8) as u8];
    }

    /// Whether the data port moves bytes now, and in which direction.
    fn data_kind(&self) -> Option<Kind> {
        let transfer = self.unit.transfer.as_ref()?;
        let through_port = matches!(transfer.kind, Kind::Read | Kind::Write | Kind::Identify);
        (through_port && self.unit.status & status::DRQ != 0).then_some(transfer.kind)
    }

    /// Which sector is in flight, and how many of its bytes were moved.
    pub fn place(&self) -> Option<((u64, u32), usize)> {
        let transfer = self.unit.transfer.as_ref()?;
        Some(((transfer.lba, transfer.remaining), transfer.position.into()))
    }

    /// The host reads the data port. What is read without DRQ is all ones.
    pub fn data_in(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Some(Kind::Read | Kind::Identify) = self.data_kind() else { return out.fill(0xff) };
            let Some(transfer) = &mut self.unit.transfer else { return };
            let left = &transfer.buffer[usize::from(transfer.position)..];
            let count = left.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&left[..count]);
            transfer.position += count as u16;
            out = later;
            if usize::from(transfer.position) == SECTOR_BYTES {
                self.sector_read();
            }
        }
    }

    /// The host has read a whole sector.
    fn sector_read(&mut self) {
        let Some(transfer) = &mut self.unit.transfer else { return };
        transfer.remaining -= 1;
        if transfer.remaining == 0 {
            // No interrupt after the last block of a read: it came before it.
            if transfer.kind == Kind::Read {
                self.unit.count = [0; 2];
            }
            self.unit.transfer = None;
            self.unit.status = READY;
            return;
        }
        if transfer.next_sector() {
            self.unit.interrupt = true;
        }
        self.load_sector();
    }

    /// The host writes the data port. What is written without DRQ is lost.
    pub fn data_out(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let Some(Kind::Write) = self.data_kind() else { return };
            let Some(transfer) = &mut self.unit.transfer else { return };
            let left = &mut transfer.buffer[usize::from(transfer.position)..];
            let count = left.len().min(data.len());
            let (now, later) = data.split_at(count);
            left[..count].copy_from_slice(now);
            transfer.position += count as u16;
            data = later;
            if usize::from(transfer.position) == SECTOR_BYTES {
                self.sector_written();
            }
        }
    }

    /// The host has sent a whole sector.
    fn sector_written(&mut self) {
        let Some(transfer) = &mut self.unit.transfer else { return };
        transfer.position = 0;
        let outcome = self.drive.write(transfer.lba, &transfer.buffer);
        let (addressing, lba) = (transfer.addressing, transfer.lba);
        if let Err(code) = outcome {
            self.show_progress(addressing, lba);
            return self.fault(code);
        }
        transfer.remaining -= 1;
        let (done, new_block) = (transfer.remaining == 0, transfer.remaining != 0 && transfer.next_sector());
        self.show_progress(addressing, lba);
        if done {
            self.complete();
        } else if new_block {
            self.unit.interrupt = true;
        }
    }

    fn verify(&mut self, extended: bool) {
        let addressing = self.addressing(extended);
        let Some(first) = self.address(addressing) else { return self.fail(error::IDNF) };
        let mut sector = [0; SECTOR_BYTES];
        for lba in (first..).take(self.sector_count(extended) as usize) {
            if let Err(code) = self.drive.read(lba, &mut sector) {
                self.show_address(addressing, lba);
                return self.fail(code);
            }
        }
        self.complete();
    }

    fn seek(&mut self) {
        let known = self.address(self.addressing(false)).is_some_and(|lba| lba < self.drive.total_sectors());
        if known { self.complete() } else { self.fail(error::IDNF) }
    }

    fn recalibrate(&mut self) {
        self.unit.mid = [0; 2];
        self.unit.high = [0; 2];
        self.complete();
    }

    fn native_max(&mut self, addressing: Addressing) {
        let last = self.drive.total_sectors().saturating_sub(1);
        let reach = match addressing {
            Addressing::Lba48 => u64::MAX >> 16,
            Addressing::Lba28 | Addressing::Chs => identify::LBA28_SECTORS - 1,
        };
        self.show_address(addressing, last.min(reach));
        self.complete();
    }

    fn identify(&mut self) {
        let buffer = identify::data(self.drive, self.unit);
        self.unit.transfer = Some(Transfer {
            kind: Kind::Identify,
            addressing: Addressing::Lba28,
            lba: 0,
            remaining: 1,
            block: 1,
            block_left: 1,
            position: 0,
            buffer,
        });
        self.unit.status = READY | status::DRQ;
        self.unit.interrupt = true;
    }

    fn set_features(&mut self) {
        match self.unit.features[0] {
            feature::WRITE_CACHE_ON => self.unit.write_cache = true,
            feature::WRITE_CACHE_OFF => self.unit.write_cache = false,
            feature::LOOK_AHEAD_ON => self.unit.look_ahead = true,
            feature::LOOK_AHEAD_OFF => self.unit.look_ahead = false,
            feature::KEEP_SETTINGS => self.unit.keep_settings = true,
            feature::RESTORE_SETTINGS => self.unit.keep_settings = false,
            feature::TRANSFER_MODE => {
                let mode = self.unit.count[0];
                if MULTIWORD_DMA.contains(&mode) || ULTRA_DMA.contains(&mode) {
                    self.unit.dma_mode = mode;
                } else if !PIO_DEFAULT.contains(&mode) && !PIO_FLOW_CONTROL.contains(&mode) {
                    return self.fail(error::ABRT);
                }
            }
            _ => return self.fail(error::ABRT),
        }
        self.complete();
    }

    fn set_multiple(&mut self) {
        let count = self.unit.count[0];
        if count > MAX_MULTIPLE || count != 0 && !count.is_power_of_two() {
            // Section 8.39: a refused count also switches multiple mode off.
            self.unit.multiple = 0;
            return self.fail(error::ABRT);
        }
        self.unit.multiple = count;
        self.complete();
    }

    fn initialize_parameters(&mut self) {
        if self.unit.count[0] == 0 {
            return self.fail(error::ABRT);
        }
        self.unit.sectors = self.unit.count[0];
        self.unit.heads = (self.unit.device & device::HEAD) + 1;
        self.complete();
    }

    fn flush(&mut self) {
        match self.drive.image.flush() {
            Ok(()) => self.complete(),
            Err(_) => self.fault(error::ABRT),
        }
    }

    fn change_power(&mut self, to: Power) {
        self.complete();
        self.unit.power = to;
    }

    /// The bus master takes the next sector of a DMA command that reads the disk.
    pub fn dma_in(&mut self) -> Option<Vec<u8>> {
        let transfer = self.unit.transfer.as_mut().filter(|t| t.kind == Kind::ReadDma)?;
        let (addressing, lba) = (transfer.addressing, transfer.lba);
        let mut sector = vec![0; SECTOR_BYTES];
        match self.drive.read(lba, &mut sector) {
            Ok(()) => {
                self.dma_sector_done();
                Some(sector)
            }
            Err(code) => {
                self.show_progress(addressing, lba);
                self.fail(code);
                None
            }
        }
    }

    /// The bus master brings the next sector of a DMA command that writes the disk.
    pub fn dma_out(&mut self, sector: &[u8]) {
        let Some(transfer) = self.unit.transfer.as_ref().filter(|t| t.kind == Kind::WriteDma) else { return };
        let (addressing, lba) = (transfer.addressing, transfer.lba);
        match self.drive.write(lba, sector) {
            Ok(()) => self.dma_sector_done(),
            Err(code) => {
                self.show_progress(addressing, lba);
                self.fault(code);
            }
        }
    }

    fn dma_sector_done(&mut self) {
        let Some(transfer) = &mut self.unit.transfer else { return };
        let (addressing, lba) = (transfer.addressing, transfer.lba);
        transfer.remaining -= 1;
        let done = transfer.remaining == 0;
        transfer.lba += 1;
        if done {
            self.show_progress(addressing, lba);
            self.complete();
        }
    }

    /// The direction of a DMA command that waits for the bus master.
    pub fn dma_kind(&self) -> Option<Kind> {
        let kind = self.unit.transfer.as_ref()?.kind;
        matches!(kind, Kind::ReadDma | Kind::WriteDma).then_some(kind)
    }
}

impl Transfer {
    /// Goes to the next sector; true when it begins a new DRQ block.
    fn next_sector(&mut self) -> bool {
        self.lba += 1;
        self.block_left -= 1;
        if self.block_left != 0 {
            return false;
        }
        self.block_left = self.remaining.min(self.block.into()) as u8;
        true
    }
}
