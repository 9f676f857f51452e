//! What drives and channels remember, and how it is saved.

use super::drive::IdeDrive;
use super::spec::{MAX_MULTIPLE, device, error, status};
use crate::device::StateError;
use crate::pack::{Pack, pack, pack_variants};
use crate::pci::{PciConfig, PciConfigState};
use crate::storage::image::SECTOR_BYTES;
use serde::{Deserialize, Serialize};

/// The most sectors that one command moves (48-bit count of zero).
pub(super) const MAX_COUNT: u32 = 0x1_0000;

/// How a command addresses sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Addressing {
    Chs,
    Lba28,
    Lba48,
}

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Sectors to the host through the data port.
    Read,
    /// Sectors from the host through the data port.
    Write,
    /// IDENTIFY data to the host.
    Identify,
    /// Sectors to memory by bus master; waits for the start bit.
    ReadDma,
    /// Sectors from memory by bus master; waits for the start bit.
    WriteDma,
}

/// A command in its data phase. Only the sector in flight is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub kind: Kind,
    pub addressing: Addressing,
    /// The sector in flight.
    pub lba: u64,
    /// Sectors still to be completed, this one included.
    pub remaining: u32,
    /// Sectors per DRQ block.
    pub block: u8,
    /// Sectors left in this block, this one included.
    pub block_left: u8,
    /// Bytes of the sector that the host has moved.
    pub position: u16,
    #[serde(with = "serde_bytes")]
    pub buffer: Vec<u8>,
}

/// What a drive is doing for power management.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Power {
    Active,
    Standby,
    /// Only a reset wakes it.
    Sleep,
}

/// A register that keeps its previous contents (`[current, previous]`).
pub(super) type Pair = [u8; 2];

/// One device of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub status: u8,
    pub error: u8,
    pub features: Pair,
    pub count: Pair,
    pub low: Pair,
    pub mid: Pair,
    pub high: Pair,
    pub device: u8,
    /// INTRQ is pending.
    pub interrupt: bool,
    /// Sectors per block of READ MULTIPLE; 0 while disabled.
    pub multiple: u8,
    /// A software reset keeps `multiple`.
    pub keep_settings: bool,
    pub write_cache: bool,
    pub look_ahead: bool,
    /// Transfer mode chosen with SET FEATURES, if it is a DMA mode.
    pub dma_mode: u8,
    pub power: Power,
    /// Current translation (INITIALIZE DEVICE PARAMETERS).
    pub heads: u8,
    pub sectors: u8,
    pub transfer: Option<Transfer>,
}

impl Unit {
    /// After power-on.
    pub fn power_on(drive: Option<&IdeDrive>) -> Self {
        let mut unit = Self {
            status: 0,
            error: 0,
            features: [0; 2],
            count: [0; 2],
            low: [0; 2],
            mid: [0; 2],
            high: [0; 2],
            device: 0,
            interrupt: false,
            multiple: 0,
            keep_settings: false,
            write_cache: true,
            look_ahead: true,
            dma_mode: 0,
            power: Power::Active,
            heads: drive.map_or(1, |d| d.geometry().heads.max(1)),
            sectors: drive.map_or(1, |d| d.geometry().sectors.max(1)),
            transfer: None,
        };
        unit.show_signature();
        unit
    }

    /// What the registers hold after a reset or EXECUTE DEVICE DIAGNOSTIC (ATA-4 section 9.1).
    pub fn show_signature(&mut self) {
        self.status = status::DRDY | status::DSC;
        self.error = error::DIAGNOSTIC_PASSED;
        self.count = [1, 0];
        self.low = [1, 0];
        self.mid = [0; 2];
        self.high = [0; 2];
        self.device = device::ONES;
        self.interrupt = false;
        self.transfer = None;
        self.power = Power::Active;
    }

    /// All but the transfer, which comes last. Postcard has a byte for each of these, so they can be copied at once.
    #[inline(always)]
    fn registers(&self) -> impl Pack {
        let [[features, old_features], [count, old_count]] = [self.features, self.count];
        let [[low, old_low], [mid, old_mid], [high, old_high]] = [self.low, self.mid, self.high];
        [
            self.status,
            self.error,
            features,
            old_features,
            count,
            old_count,
            low,
            old_low,
            mid,
            old_mid,
            high,
            old_high,
            self.device,
            u8::from(self.interrupt),
            self.multiple,
            u8::from(self.keep_settings),
            u8::from(self.write_cache),
            u8::from(self.look_ahead),
            self.dma_mode,
            self.power as u8,
            self.heads,
            self.sectors,
        ]
    }

    /// The transfer, but the bytes of the sector in flight, which come last.
    fn save_transfer(&self, out: &mut Vec<u8>) {
        let transfer = self.transfer.as_ref().map(|t| {
            (t.kind, t.addressing, t.lba, t.remaining, t.block, t.block_left, t.position, t.buffer.len())
        });
        pack(transfer, out);
    }

    fn validate(&self) -> Result<(), StateError> {
        if self.heads == 0 || self.heads > 16 || self.sectors == 0 || self.multiple > MAX_MULTIPLE {
            return Err(StateError::OutOfRange("drive parameters"));
        }
        let Some(transfer) = &self.transfer else { return Ok(()) };
        let sane = transfer.buffer.len() == SECTOR_BYTES
            && usize::from(transfer.position) < SECTOR_BYTES
            && (1..=MAX_COUNT).contains(&transfer.remaining)
            && (1..=MAX_MULTIPLE).contains(&transfer.block)
            && (1..=transfer.block).contains(&transfer.block_left)
            && transfer.lba < 1 << 48;
        if sane { Ok(()) } else { Err(StateError::OutOfRange("transfer")) }
    }
}

/// Bus master registers of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusMaster {
    pub command: u8,
    pub status: u8,
    pub table: u32,
}

/// One channel with its two devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    /// Device that the DEV bit selects: 0 or 1.
    pub selected: u8,
    pub control: u8,
    pub units: [Unit; 2],
    pub bus_master: BusMaster,
}

impl Channel {
    pub fn power_on(drives: &[Option<IdeDrive>; 2]) -> Self {
        let units = [Unit::power_on(drives[0].as_ref()), Unit::power_on(drives[1].as_ref())];
        Self { selected: 0, control: 0, units, bus_master: BusMaster::default() }
    }
}

pack_variants!(Addressing);
pack_variants!(Kind);

/// Parts of a channel in which the state is saved: registers of each device, followed by pieces of the sector
/// that it has in flight, and the bus master registers.
pub(super) mod part {
    use super::SECTOR_BYTES;
    use crate::device::Parts;
    use std::ops::Range;

    /// Bytes of a sector in one part.
    pub(in super::super) const PIECE_BYTES: usize = 256;
    const PIECES: usize = SECTOR_BYTES / PIECE_BYTES;
    const _: () = assert!(SECTOR_BYTES.is_multiple_of(PIECE_BYTES));
    /// Parts of one device before the pieces: its registers, and what it does.
    pub(super) const FIRST_PIECE: usize = 2;
    /// Parts of one device.
    pub(super) const OF_UNIT: usize = FIRST_PIECE + PIECES;
    /// Parts of one channel.
    pub(super) const OF_CHANNEL: usize = 2 * OF_UNIT + 1;
    /// The configuration space.
    pub(in super::super) const CONFIG: Parts = 1 << (2 * OF_CHANNEL);
    /// How many there are: both channels, and the configuration space.
    pub(in super::super) const COUNT: usize = 2 * OF_CHANNEL + 1;
    /// The registers of a device; those that the channel has once are with device 0.
    pub(in super::super) const fn registers(channel: usize, unit: usize) -> Parts {
        1 << (channel * OF_CHANNEL + unit * OF_UNIT)
    }

    /// What a device does, but for the bytes of the sector.
    pub(in super::super) const fn transfer(channel: usize, unit: usize) -> Parts {
        registers(channel, unit) << 1
    }

    /// The bus master registers.
    pub(in super::super) const fn bus_master(channel: usize) -> Parts {
        1 << (channel * OF_CHANNEL + 2 * OF_UNIT)
    }

    /// The bytes `range` of a device's sector.
    pub(in super::super) fn sector(channel: usize, unit: usize, range: Range<usize>) -> Parts {
        let pieces = range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES).min(PIECES);
        pieces.fold(0, |parts, piece| parts | registers(channel, unit) << (FIRST_PIECE + piece))
    }

    /// The registers of a device and its sector.
    pub(in super::super) fn device(channel: usize, unit: usize) -> Parts {
        registers(channel, unit) | transfer(channel, unit) | sector(channel, unit, 0..SECTOR_BYTES)
    }

    /// Everything of a channel.
    pub(in super::super) const fn channel(channel: usize) -> Parts {
        ((1 << OF_CHANNEL) - 1) << (channel * OF_CHANNEL)
    }
}

impl Channel {
    /// Appends part `part` of a channel.
    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        let (number, piece) = (part / part::OF_UNIT, part % part::OF_UNIT);
        let Some(unit) = self.units.get(number) else {
            let BusMaster { command, status, table } = self.bus_master;
            return pack((command, status, table), out);
        };
        match piece.checked_sub(part::FIRST_PIECE) {
            Some(piece) => {
                let buffer = unit.transfer.as_ref().map_or(&[][..], |transfer| &transfer.buffer);
                // A sector has whole pieces, and to copy one is cheaper when its length is known.
                if let Some(bytes) = buffer.as_chunks::<{ part::PIECE_BYTES }>().0.get(piece) {
                    out.extend_from_slice(bytes);
                }
            }
            None if piece == 0 && number == 0 => {
                pack((self.selected, self.control, unit.registers()), out);
            }
            None if piece == 0 => pack(unit.registers(), out),
            None => unit.save_transfer(out),
        }
    }
}

/// Appends part `part` of the state. All parts are what a [`State`] is when it is serialized.
pub(super) fn save_part(channels: &[Channel; 2], config: &PciConfig, part: usize, out: &mut Vec<u8>) {
    match channels.get(part / part::OF_CHANNEL) {
        Some(channel) => channel.save_part(part % part::OF_CHANNEL, out),
        None => config.save(out),
    }
}

/// Everything that matters for what the controller and its drives do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub channels: [Channel; 2],
    pub config: PciConfigState,
}

impl State {
    pub fn validate(&self) -> Result<(), StateError> {
        for channel in &self.channels {
            if channel.selected > 1 {
                return Err(StateError::OutOfRange("selected device"));
            }
            channel.units.iter().try_for_each(Unit::validate)?;
        }
        Ok(())
    }
}
