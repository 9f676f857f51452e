//! The execution phase of the commands that work on the diskette (datasheet section 5.1).
//!
//! A sector goes through at most two steps, each a call of the transfer timer: *locate* finds it
//! (and, for reads, reads it), then the host moves its bytes, by DMA in one timer call or byte
//! by byte through the data register; then *moved* deals with them and locates the next one.

use super::spec::{Command, DMA_CHANNEL, N_512, SPECIFY_ND, configure, modifier, rate, st0, st1, st2, unit};
use super::state::{DmaMark, Phase, SectorId, Stage, Transfer, part};
use super::{ACCESS_NS, Fdc, Medium, SECTOR_NS, STEP_NS, multi_track};
use crate::host::{DmaChannel, DmaDirection, Host};
use crate::storage::image::{DataRate, FloppyFormat, SECTOR_BYTES};
use std::ops::ControlFlow::{self, Break, Continue};

/// How long the controller waits before it asks a masked DMA channel again.
const REFUSED_NS: u64 = 100_000;
/// How often it asks before that is an overrun: half a second in all.
const MAX_REFUSED: u16 = 5_000;
/// Bytes that the host sends per sector to format: C, H, R, N.
const ID_BYTES: usize = 4;
/// Type bits of the 8237's mode register.
const DMA_TYPE: u8 = 0b11 << 2;
/// Verify transfer.
const DMA_VERIFY: u8 = 0b00 << 2;
/// Write transfer: to memory.
const DMA_WRITE: u8 = 0b01 << 2;
/// Read transfer: from memory.
const DMA_READ: u8 = 0b10 << 2;
/// A scan takes this byte, from the host or the diskette, as equal to any other.
const SCAN_ANY: u8 = 0xff;

/// Goes on, or ends the command with these bits of ST0.
type Flow = ControlFlow<u8>;

impl DmaMark {
    fn of(channel: &DmaChannel) -> Self {
        Self {
            base_address: channel.base_address,
            base_count: channel.base_count,
            page: channel.page,
            mode: channel.mode,
            current_address: channel.current_address,
            current_count: channel.current_count,
        }
    }

    fn same_programming(&self, other: &Self) -> bool {
        let programming = |m: &Self| (m.base_address, m.base_count, m.page, m.mode);
        programming(self) == programming(other)
    }
}

impl Transfer {
    fn fail(&mut self, st1: u8, st2: u8) -> Flow {
        self.st1 |= st1;
        self.st2 |= st2;
        Break(st0::ABNORMAL)
    }

    /// A fresh sector for the host to move.
    fn begin_sector(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
        self.position = 0;
        self.refused = 0;
        self.mark = None;
    }
}

/// Whether the controller's rate finds address marks on a diskette of this format.
fn rate_fits(format: &FloppyFormat, selected: u8) -> bool {
    match format.rate {
        DataRate::Kbps250 => selected == rate::KBPS_250 || selected == rate::KBPS_300,
        DataRate::Kbps250Only => selected == rate::KBPS_250,
        DataRate::Kbps500 => selected == rate::KBPS_500,
        DataRate::Mbps1 => selected == rate::MBPS_1,
    }
}

/// Where sector `r` of a track is in the image.
fn offset(format: &FloppyFormat, track: u8, head: u8, r: u8) -> Option<u64> {
    if track >= format.cylinders || head >= format.heads || !(1..=format.sectors).contains(&r) {
        return None;
    }
    let track_index = u64::from(track) * u64::from(format.heads) + u64::from(head);
    let sector = track_index * u64::from(format.sectors) + u64::from(r - 1);
    Some(sector * SECTOR_BYTES as u64)
}

impl Fdc {
    /// The command phase is over: begins the execution phase.
    pub(super) fn start_transfer(&mut self, command: Command, host: &mut dyn Host) {
        let second = self.command_byte(1);
        let byte = |index| self.command_byte(index);
        let (id, count) = match command {
            Command::ReadId => (SectorId::default(), self.state.sector_count),
            Command::FormatTrack => (SectorId { n: byte(2), ..SectorId::default() }, byte(3)),
            _ => (SectorId { c: byte(2), h: byte(3), r: byte(4), n: byte(5) }, byte(6)),
        };
        self.state.sector_count = count;
        let mut delay = ACCESS_NS;
        if self.implied_seek(command) {
            let drive = usize::from(second & unit::DS);
            let delta = i16::from(id.c) - i16::from(self.state.drives[drive].pcn);
            self.step(drive, delta);
            self.state.drives[drive].pcn = id.c;
            delay += STEP_NS * u64::from(delta.unsigned_abs());
        }
        let head = u8::from(second & unit::HDS != 0);
        self.state.head_select = head != 0;
        self.state.phase = Phase::Execution;
        self.changed |= self.state.buffer();
        self.state.transfer = Some(Transfer {
            stage: Stage::Locate,
            id,
            head,
            done: 0,
            buffer: Vec::new(),
            position: 0,
            st1: 0,
            st2: 0,
            terminal_count: false,
            mark: None,
            refused: 0,
        });
        self.arm_transfer(delay, host);
    }

    fn implied_seek(&self, command: Command) -> bool {
        self.state.configure & configure::EIS != 0
            && !matches!(command, Command::ReadId | Command::FormatTrack)
    }

    fn command_drive(&self) -> usize {
        usize::from(self.command_byte(1) & unit::DS)
    }

    /// The transfer timer: goes on with the command, or ends it.
    pub(super) fn transfer_step(&mut self, host: &mut dyn Host) {
        // Another sector may take the place of this one.
        self.changed |= self.state.buffer();
        let (Some(mut transfer), Some(command)) = (self.state.transfer.take(), self.command()) else {
            return;
        };
        let flow = match transfer.stage {
            Stage::Locate => self.locate(command, &mut transfer, host),
            Stage::Dma => self.move_by_dma(command, &mut transfer, host),
            Stage::Moved => self.moved(command, &mut transfer, host),
            Stage::Pio | Stage::NoIndex => Continue(()),
        };
        match flow {
            Continue(()) => self.state.transfer = Some(transfer),
            Break(code) => self.end_transfer(command, &transfer, code, host),
        }
        self.changed |= self.state.buffer();
        // Raised only now, with the transfer in place, so that the status shown fits.
        if self.state.transfer.as_ref().is_some_and(|t| t.stage == Stage::Pio) {
            self.raise_interrupt(host);
        }
    }

    fn end_transfer(&mut self, command: Command, transfer: &Transfer, code: u8, host: &mut dyn Host) {
        let seek_end = if self.implied_seek(command) { st0::SE } else { 0 };
        let status = code | seek_end | transfer.head << st0::H_SHIFT | self.command_drive() as u8;
        let SectorId { c, h, r, n } = transfer.id;
        self.state.transfer_deadline = None;
        self.give_result(&[status, transfer.st1, transfer.st2, c, h, r, n]);
        self.raise_interrupt(host);
    }

    /// The diskette in the command's drive, when it turns.
    fn turning(&mut self) -> Option<&mut Medium> {
        let drive = self.command_drive();
        if !self.motor_on(drive) {
            return None;
        }
        self.drives[drive].as_mut()?.medium.as_mut()
    }

    /// Waits for the sector to come by.
    fn locate(&mut self, command: Command, transfer: &mut Transfer, host: &mut dyn Host) -> Flow {
        let track = self.state.drives[self.command_drive()].track;
        let selected_rate = self.state.rate;
        let mfm = self.command_byte(0) & modifier::MFM != 0;
        let sectors_asked = self.command_byte(3);
        let Some(medium) = self.turning() else {
            transfer.stage = Stage::NoIndex;
            return Continue(());
        };
        let format = medium.format;
        if command.writes() && medium.image.read_only() {
            return transfer.fail(st1::NW, 0);
        }
        let on_medium = track < format.cylinders && transfer.head < format.heads;
        let readable = mfm && rate_fits(&format, selected_rate) && on_medium;
        if command == Command::FormatTrack {
            // What the image cannot hold cannot be written.
            if !readable || transfer.id.n != N_512 || sectors_asked != format.sectors {
                tracing::warn!(image = medium.image.name(), "Format does not fit the image");
                return transfer.fail(st1::NW, 0);
            }
            transfer.begin_sector(vec![0; ID_BYTES]);
            return self.ask_host(transfer, host);
        }
        if !readable {
            return transfer.fail(st1::MA, 0);
        }
        if command == Command::ReadId {
            let passed = host.now().0 / SECTOR_NS % u64::from(format.sectors);
            transfer.id = SectorId { c: track, h: transfer.head, r: passed as u8 + 1, n: N_512 };
            return Break(0);
        }
        self.locate_sector(command, transfer, track, host)
    }

    fn locate_sector(
        &mut self,
        command: Command,
        transfer: &mut Transfer,
        track: u8,
        host: &mut dyn Host,
    ) -> Flow {
        let id = transfer.id;
        let skip = self.command_byte(0) & modifier::SK != 0;
        let Some(medium) = self.turning() else { return Continue(()) };
        let format = medium.format;
        // READ TRACK takes the sectors as they come; all others want the one that they name.
        let wanted = if command == Command::ReadTrack {
            u8::try_from(transfer.done.saturating_add(1)).unwrap_or(0)
        } else {
            id.r
        };
        let matches = id == SectorId { c: track, h: transfer.head, r: wanted, n: N_512 };
        let Some(place) = offset(&format, track, transfer.head, wanted) else {
            let code = if command == Command::ReadTrack { st1::MA } else { st1::ND };
            return transfer.fail(code, 0);
        };
        if !matches && command == Command::ReadTrack {
            transfer.st1 |= st1::ND;
        } else if !matches {
            return transfer.fail(st1::ND, if id.c == track { 0 } else { st2::WC });
        }
        if command.takes_bytes() {
            transfer.begin_sector(vec![0; SECTOR_BYTES]);
            return self.ask_host(transfer, host);
        }
        if command == Command::ReadDeleted {
            // Every data mark of a raw image is a normal one.
            transfer.st2 |= st2::CM;
        }
        let mut sector = vec![0; SECTOR_BYTES];
        if medium.image.read_at(place, &mut sector).is_err() {
            return transfer.fail(st1::DE, st2::DD);
        }
        transfer.begin_sector(sector);
        self.state.read_toggle = !self.state.read_toggle;
        if command == Command::Verify || command == Command::ReadDeleted && skip {
            transfer.stage = Stage::Moved;
            self.arm_transfer(SECTOR_NS, host);
            return Continue(());
        }
        self.ask_host(transfer, host)
    }

    fn ask_host(&mut self, transfer: &mut Transfer, host: &mut dyn Host) -> Flow {
        if self.state.specify[1] & SPECIFY_ND != 0 {
            transfer.stage = Stage::Pio;
        } else {
            transfer.stage = Stage::Dma;
            let channel = host.dma_channel(DMA_CHANNEL);
            transfer.mark = (!channel.masked).then(|| DmaMark::of(&channel));
            self.arm_transfer(SECTOR_NS, host);
        }
        Continue(())
    }

    /// Moves the whole sector over the DMA channel.
    fn move_by_dma(&mut self, command: Command, transfer: &mut Transfer, host: &mut dyn Host) -> Flow {
        let mut channel = host.dma_channel(DMA_CHANNEL);
        let here = DmaMark::of(&channel);
        match transfer.mark {
            Some(mark) if mark.same_programming(&here) => {
                if mark != here {
                    // A process that died here had moved the sector already, but nobody has
                    // been told: move it again, to the same place.
                    channel.current_address = mark.current_address;
                    channel.current_count = mark.current_count;
                    channel.masked = false;
                    host.set_dma_channel(DMA_CHANNEL, channel);
                }
            }
            _ if channel.masked => transfer.mark = None,
            _ => {
                // The mark must be in the saved state before the first byte moves.
                transfer.mark = Some(here);
                self.arm_transfer(SECTOR_NS, host);
                return Continue(());
            }
        }
        let gate = self.state.dor & super::dor::DMA_GATE != 0;
        let direction = match (channel.mode & DMA_TYPE, command.takes_bytes()) {
            (DMA_READ, true) => Some(DmaDirection::FromMemory),
            (DMA_WRITE, false) => Some(DmaDirection::ToMemory),
            (DMA_VERIFY, false) => Some(DmaDirection::Verify),
            // The channel would drive the wrong strobes; no byte is ever taken.
            _ => None,
        };
        let outcome = direction.filter(|_| gate && !channel.masked).map(|direction| {
            host.set_dreq(DMA_CHANNEL, true);
            host.isa_dma(DMA_CHANNEL, direction, &mut transfer.buffer)
        });
        match outcome {
            Some(outcome) if outcome.bytes != 0 => {
                transfer.position = outcome.bytes.min(transfer.buffer.len()) as u16;
                transfer.terminal_count = outcome.terminal_count;
                self.moved(command, transfer, host)
            }
            _ if transfer.refused >= MAX_REFUSED => transfer.fail(st1::OR, 0),
            _ => {
                transfer.refused += 1;
                self.arm_transfer(REFUSED_NS, host);
                Continue(())
            }
        }
    }

    /// The bytes of the sector have been moved: writes or compares them, and goes to the next sector.
    fn moved(&mut self, command: Command, transfer: &mut Transfer, host: &mut dyn Host) -> Flow {
        match command {
            Command::WriteData | Command::WriteDeleted => self.write_sector(transfer)?,
            Command::FormatTrack => self.format_sector(transfer)?,
            Command::ScanEqual | Command::ScanLowOrEqual | Command::ScanHighOrEqual => {
                self.scan_sector(command, transfer)?;
            }
            _ => {}
        }
        transfer.done = transfer.done.saturating_add(1);
        self.next_sector(command, transfer)?;
        self.locate(command, transfer, host)
    }

    fn write_sector(&mut self, transfer: &mut Transfer) -> Flow {
        let track = self.state.drives[self.command_drive()].track;
        let Some(medium) = self.turning() else { return transfer.fail(st1::MA, 0) };
        let Some(place) = offset(&medium.format, track, transfer.head, transfer.id.r) else {
            return transfer.fail(st1::ND, 0);
        };
        // After terminal count in mid-sector, the rest of the buffer is zeros (section 5.1.3).
        if medium.image.write_at(place, &transfer.buffer).is_err() {
            return Break(st0::ABNORMAL | st0::EC);
        }
        self.state.write_toggle = !self.state.write_toggle;
        Continue(())
    }

    fn format_sector(&mut self, transfer: &mut Transfer) -> Flow {
        let track = self.state.drives[self.command_drive()].track;
        let fill = self.command_byte(5);
        let &[c, h, r, n] = transfer.buffer.as_slice() else { return transfer.fail(st1::NW, 0) };
        transfer.id = SectorId { c, h, r, n };
        let head = transfer.head;
        let Some(medium) = self.turning() else { return transfer.fail(st1::MA, 0) };
        let place = offset(&medium.format, track, head, r).filter(|_| (c, h, n) == (track, head, N_512));
        let Some(place) = place else {
            tracing::warn!(image = medium.image.name(), c, h, r, n, "The image cannot hold this sector");
            return transfer.fail(st1::NW, 0);
        };
        if medium.image.write_at(place, &[fill; SECTOR_BYTES]).is_err() {
            return Break(st0::ABNORMAL | st0::EC);
        }
        self.state.write_toggle = !self.state.write_toggle;
        Continue(())
    }

    /// Compares as section 5.1.8 says: every byte must satisfy the condition.
    fn scan_sector(&mut self, command: Command, transfer: &mut Transfer) -> Flow {
        let track = self.state.drives[self.command_drive()].track;
        let Some(medium) = self.turning() else { return transfer.fail(st1::MA, 0) };
        let mut sector = [0; SECTOR_BYTES];
        let read = offset(&medium.format, track, transfer.head, transfer.id.r)
            .is_some_and(|place| medium.image.read_at(place, &mut sector).is_ok());
        if !read {
            return transfer.fail(st1::DE, st2::DD);
        }
        let compared = sector.iter().zip(&transfer.buffer).take(transfer.position.into());
        let (mut equal, mut satisfied) = (true, true);
        for (disk, host) in compared.filter(|(disk, host)| **disk != SCAN_ANY && **host != SCAN_ANY) {
            equal &= disk == host;
            satisfied &= match command {
                Command::ScanLowOrEqual => disk <= host,
                Command::ScanHighOrEqual => disk >= host,
                _ => disk == host,
            };
        }
        transfer.st2 &= !(st2::SN | st2::SH);
        if !satisfied {
            transfer.st2 |= st2::SN;
            return Continue(());
        }
        if equal {
            transfer.st2 |= st2::SH;
        }
        Break(0)
    }

    /// Moves on to the next sector, or ends the command after the last (table 5-4).
    fn next_sector(&mut self, command: Command, transfer: &mut Transfer) -> Flow {
        let first = self.command_byte(0);
        let (last, count) = (self.command_byte(6), self.command_byte(8));
        if command == Command::FormatTrack {
            let all = transfer.done >= u16::from(self.command_byte(3));
            return if all || transfer.terminal_count { Break(0) } else { Continue(()) };
        }
        let scan = matches!(command, Command::ScanEqual | Command::ScanLowOrEqual | Command::ScanHighOrEqual);
        let step = if scan { count.max(1) } else { 1 };
        let id = &mut transfer.id;
        let mut at_end = false;
        if command == Command::ReadTrack {
            at_end = transfer.done >= u16::from(last);
            id.r = id.r.wrapping_add(1);
        } else if id.r == last || scan && u16::from(id.r) + u16::from(step) > u16::from(last) {
            let to_other_side = multi_track(first) && transfer.head == 0;
            at_end = !to_other_side;
            id.r = 1;
            if multi_track(first) {
                id.h ^= 1;
            }
            if to_other_side {
                transfer.head = 1;
            } else {
                id.c = id.c.wrapping_add(1);
            }
        } else {
            id.r = id.r.wrapping_add(step);
        }
        let counted = command == Command::Verify && self.command_byte(1) & unit::EC != 0;
        if transfer.terminal_count || counted && transfer.done >= u16::from(count) {
            return Break(0);
        }
        let unwanted_mark = transfer.st2 & st2::CM != 0 && first & modifier::SK == 0;
        if unwanted_mark || at_end && (scan || matches!(command, Command::ReadTrack | Command::Verify)) {
            return Break(0);
        }
        if at_end { transfer.fail(st1::EN, 0) } else { Continue(()) }
    }

    /// The host reads the data register in the execution phase.
    pub(super) fn pio_read(&mut self, host: &mut dyn Host) -> u8 {
        if self.command().is_none_or(Command::takes_bytes) {
            return 0;
        }
        let Some(transfer) = self.state.transfer.as_mut().filter(|t| t.stage == Stage::Pio) else { return 0 };
        let byte = transfer.buffer.get(usize::from(transfer.position)).copied().unwrap_or(0);
        self.pio_advance(host);
        byte
    }

    /// The host writes the data register in the execution phase.
    pub(super) fn pio_write(&mut self, value: u8, host: &mut dyn Host) {
        if !self.command().is_some_and(Command::takes_bytes) {
            return;
        }
        let Some(transfer) = self.state.transfer.as_mut().filter(|t| t.stage == Stage::Pio) else { return };
        if let Some(byte) = transfer.buffer.get_mut(usize::from(transfer.position)) {
            *byte = value;
            self.changed |= part::piece(transfer.position.into());
        }
        self.pio_advance(host);
    }

    /// One byte has moved. The interrupt pin asks again each time the FIFO has reached its
    /// threshold, or for every byte when the FIFO is off (section 5.1.2).
    fn pio_advance(&mut self, host: &mut dyn Host) {
        let fifo_on = self.state.configure & configure::EFIFO == 0;
        let threshold = u16::from(self.state.configure & configure::FIFOTHR) + 1;
        let chunk = if fifo_on { threshold } else { 1 };
        let Some(transfer) = self.state.transfer.as_mut() else { return };
        transfer.position = transfer.position.saturating_add(1);
        if usize::from(transfer.position) >= transfer.buffer.len() {
            transfer.position = transfer.buffer.len() as u16;
            transfer.stage = Stage::Moved;
            self.state.interrupt = false;
            self.arm_transfer(SECTOR_NS, host);
        } else if transfer.position.is_multiple_of(chunk) {
            self.raise_interrupt(host);
        }
    }
}
