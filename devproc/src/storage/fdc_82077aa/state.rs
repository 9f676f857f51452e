//! What the controller remembers, and how it is saved.

use super::spec::{Command, DRIVES, MAX_COMMAND, MAX_RESULT, configure, dor, perpendicular, rate, tdr};
use crate::device::{Parts, StateError};
use crate::pack::{Many, pack, pack_fields, pack_variants};
use crate::storage::image::SECTOR_BYTES;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};

/// Where the controller is in its conversation with the host (datasheet section 5.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Held in reset, or coming up from it.
    Reset,
    /// Takes command bytes.
    Command,
    /// Works; a [`Transfer`] says on what.
    Execution,
    /// Result bytes wait to be read.
    Result,
}

/// One of the four drives that the controller can address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DriveState {
    /// Present cylinder number: where the controller believes the head to be.
    pub pcn: u8,
    /// Where the head is.
    pub track: u8,
    /// The drive's DSKCHG latch: set by taking the diskette out, reset by a step with one in.
    pub changed: bool,
    /// When the running seek ends and the status that it will report.
    pub seek: Option<(VirtualTime, u8)>,
    /// ST0 of an ended seek that nobody has sensed yet.
    pub seek_end: Option<u8>,
}

/// A sector's ID field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SectorId {
    pub c: u8,
    pub h: u8,
    pub r: u8,
    pub n: u8,
}

/// What a data command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The sector to come by under the head (timer).
    Locate,
    /// The DMA channel to move the bytes (timer).
    Dma,
    /// The host to move the bytes through the data register.
    Pio,
    /// The moved bytes to be dealt with (timer).
    Moved,
    /// An index hole that never comes: the motor is off or the drive is empty. Only a reset ends it.
    NoIndex,
}

/// Where the DMA channel stood before a sector was moved. A process that dies during the move
/// leaves the channel advanced; the next one sets it back to here and moves the sector again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DmaMark {
    pub base_address: u16,
    pub base_count: u16,
    pub page: u8,
    pub mode: u8,
    pub current_address: u16,
    pub current_count: u16,
}

pack_variants!(Phase);
pack_variants!(Stage);
pack_fields!(SectorId { c, h, r, n });
pack_fields!(DriveState { pcn, track, changed, seek, seek_end });
pack_fields!(DmaMark { base_address, base_count, page, mode, current_address, current_count });

/// The parts in which the state is saved.
pub(super) mod part {
    use super::SECTOR_BYTES;
    use crate::device::Parts;

    /// Bytes of the buffer in one part.
    pub(super) const PIECE_BYTES: usize = 256;
    const PIECES: usize = SECTOR_BYTES / PIECE_BYTES;
    pub(super) const LAST: usize = 1 + PIECES;
    /// How many there are.
    pub(in super::super) const COUNT: usize = LAST + 1;

    /// All that comes before the bytes of the buffer.
    pub(in super::super) const REGISTERS: Parts = 1 << 0;
    /// All that comes after them.
    pub(in super::super) const REST: Parts = 1 << LAST;

    /// A buffer of `len` bytes.
    pub(in super::super) fn buffer(len: usize) -> Parts {
        (2 << len.div_ceil(PIECE_BYTES).min(PIECES)) - 2
    }

    /// The part that holds byte `at` of the buffer.
    pub(in super::super) fn piece(at: usize) -> Parts {
        2 << (at / PIECE_BYTES).min(PIECES - 1)
    }
}

/// A data command in its execution phase. The command bytes are still in [`State::command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub stage: Stage,
    /// The sector being worked on.
    pub id: SectorId,
    /// The side under the head; a multi-track command changes it.
    pub head: u8,
    /// Sectors dealt with so far.
    pub done: u16,
    /// Bytes of the sector (or of the ID field to format).
    #[serde(with = "serde_bytes")]
    pub buffer: Vec<u8>,
    /// How many of them the host has moved.
    pub position: u16,
    /// Status collected on the way.
    pub st1: u8,
    /// Status collected on the way.
    pub st2: u8,
    /// The DMA controller signalled the last byte.
    pub terminal_count: bool,
    pub mark: Option<DmaMark>,
    /// How often a masked DMA channel was met at this sector.
    pub refused: u16,
}

/// Everything that matters for what the controller does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub dor: u8,
    pub dsr: u8,
    /// DRATESEL, as last written through the DSR or the CCR.
    pub rate: u8,
    pub tdr: u8,
    pub specify: [u8; 2],
    pub configure: u8,
    pub precompensation_track: u8,
    pub lock: bool,
    pub perpendicular: u8,
    /// SC or EOT of the last command that had one, for DUMPREG.
    pub sector_count: u8,
    pub phase: Phase,
    /// Bytes of the command, as far as received.
    #[serde(with = "serde_bytes")]
    pub command: Vec<u8>,
    /// Result bytes not yet read.
    #[serde(with = "serde_bytes")]
    pub result: Vec<u8>,
    pub transfer: Option<Transfer>,
    /// The interrupt pin, before the DMA gate.
    pub interrupt: bool,
    /// Drives whose ready-change after reset has not been sensed, one bit each.
    pub ready_changes: u8,
    pub drives: [DriveState; DRIVES],
    pub transfer_deadline: Option<VirtualTime>,
    pub reset_deadline: Option<VirtualTime>,
    /// Read data toggle, write data toggle and step direction of the status registers.
    pub read_toggle: bool,
    pub write_toggle: bool,
    pub inward: bool,
    pub head_select: bool,
}

impl State {
    /// After power-on: held in reset by the DOR, all diskettes count as changed.
    pub fn power_on() -> Self {
        Self {
            dor: 0,
            dsr: rate::KBPS_250,
            rate: rate::KBPS_250,
            tdr: 0,
            specify: [0; 2],
            configure: configure::EFIFO,
            precompensation_track: 0,
            lock: false,
            perpendicular: 0,
            sector_count: 0,
            phase: Phase::Reset,
            command: Vec::with_capacity(MAX_COMMAND),
            result: Vec::with_capacity(MAX_RESULT),
            transfer: None,
            interrupt: false,
            ready_changes: 0,
            drives: [DriveState { changed: true, ..DriveState::default() }; DRIVES],
            transfer_deadline: None,
            reset_deadline: None,
            read_toggle: false,
            write_toggle: false,
            inward: false,
            head_select: false,
        }
    }

    /// The parts that hold the bytes of the buffer.
    pub fn buffer(&self) -> Parts {
        part::buffer(self.transfer.as_ref().map_or(0, |transfer| transfer.buffer.len()))
    }

    /// Appends part `part`. All parts are what the state is when it is serialized.
    pub fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        match part {
            0 => self.save_registers(out),
            part::LAST => self.save_rest(out),
            piece => {
                let buffer = self.transfer.as_ref().map_or(&[][..], |transfer| &transfer.buffer);
                out.extend_from_slice(buffer.chunks(part::PIECE_BYTES).nth(piece - 1).unwrap_or_default());
            }
        }
    }

    /// What comes before the bytes of the buffer.
    fn save_registers(&self, out: &mut Vec<u8>) {
        let transfer = self.transfer.as_ref().map(|t| (t.stage, t.id, t.head, t.done, t.buffer.len()));
        pack(
            (
                (self.dor, self.dsr, self.rate, self.tdr, self.specify, self.configure),
                (self.precompensation_track, self.lock, self.perpendicular, self.sector_count, self.phase),
                (Many(self.command.iter()), Many(self.result.iter()), transfer),
            ),
            out,
        );
    }

    /// What comes after them.
    fn save_rest(&self, out: &mut Vec<u8>) {
        if let Some(t) = &self.transfer {
            pack((t.position, t.st1, t.st2, t.terminal_count, t.mark, t.refused), out);
        }
        pack(
            (
                (self.interrupt, self.ready_changes, self.drives),
                (self.transfer_deadline, self.reset_deadline),
                (self.read_toggle, self.write_toggle, self.inward, self.head_select),
            ),
            out,
        );
    }

    /// Refuses what no controller can be in. Everything else may be odd but harms nothing.
    pub fn validate(&self) -> Result<(), StateError> {
        let refuse = |what| Err(StateError::OutOfRange(what));
        if self.rate > rate::MBPS_1 || self.tdr & !tdr::TAPE_SEL != 0 {
            return refuse("data rate or tape select");
        }
        if self.perpendicular & !(perpendicular::DRIVES | perpendicular::GAP_WGATE) != 0
            || self.ready_changes >= 1 << DRIVES
        {
            return refuse("drive bits");
        }
        if self.command.len() > MAX_COMMAND || self.result.len() > MAX_RESULT {
            return refuse("command or result length");
        }
        if (self.phase == Phase::Result) == self.result.is_empty() {
            return refuse("result bytes outside the result phase");
        }
        if self.phase != Phase::Reset && self.dor & dor::RESET_N == 0 {
            return refuse("phase while held in reset");
        }
        let running = match self.command.first().map(|byte| Command::decode(*byte)) {
            Some(Some(command)) => Some((command, command.length())),
            Some(None) => return refuse("command byte"),
            None => None,
        };
        match (&self.transfer, self.phase, running) {
            (None, Phase::Command, Some((_, length))) if self.command.len() >= length => {
                refuse("complete command in the command phase")
            }
            (None, Phase::Command | Phase::Result | Phase::Reset, _) => Ok(()),
            (Some(transfer), Phase::Execution, Some((command, length)))
                if self.command.len() == length && command.transfers() =>
            {
                transfer.validate()
            }
            _ => refuse("phase and running command"),
        }
    }
}

impl Transfer {
    fn validate(&self) -> Result<(), StateError> {
        if self.buffer.len() > SECTOR_BYTES || usize::from(self.position) > self.buffer.len() || self.head > 1
        {
            return Err(StateError::OutOfRange("transfer"));
        }
        Ok(())
    }
}
