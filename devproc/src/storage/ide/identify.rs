//! IDENTIFY DEVICE data (ATA-4 section 8.12, table 12; words 100-103 are ATA-6).

use super::drive::IdeDrive;
use super::spec::MAX_MULTIPLE;
use super::state::Unit;
use crate::storage::image::SECTOR_BYTES;

/// Sectors that 28-bit addressing reaches.
pub(super) const LBA28_SECTORS: u64 = 0x0fff_ffff;

const MODEL: &str = "VMSIM HARDDISK";
const FIRMWARE: &str = "1.0";

/// Word 0: ATA device, not removable.
const FIXED_DRIVE: u16 = 1 << 6;
/// Word 47: bits 15-8 are 80h, then the most sectors per block.
const MULTIPLE_MAX: u16 = 0x8000 | MAX_MULTIPLE as u16;
/// Word 49: IORDY supported and may be disabled, LBA, DMA.
const CAPABILITIES: u16 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 8;
/// Words 50, 83, 84 and 87: bit 14 one and bit 15 zero say that the word is valid.
const VALID: u16 = 1 << 14;
/// Word 51: PIO timing mode 2.
const PIO_MODE_2: u16 = 2 << 8;
/// Word 53: words 54-58, 64-70 and 88 are valid.
const FIELDS_VALID: u16 = 0b111;
/// Word 59: the setting of SET MULTIPLE is valid.
const MULTIPLE_VALID: u16 = 1 << 8;
/// Words 63 and 88: modes 0-2 supported.
const MODES_0_TO_2: u16 = 0b111;
/// Word 64: PIO modes 3 and 4.
const PIO_3_AND_4: u16 = 0b11;
/// Words 65-68: cycle time in nanoseconds.
const CYCLE_NS: u16 = 120;
/// Word 80: ATA-1 to ATA-6.
const MAJOR_VERSION: u16 = 0b111_1110;
/// Word 82: NOP, look-ahead, write cache, power management.
const COMMANDS: u16 = 1 << 14 | 1 << 6 | 1 << 5 | 1 << 3;
const LOOK_AHEAD: u16 = 1 << 6;
const WRITE_CACHE: u16 = 1 << 5;
/// Word 83: FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses.
const COMMANDS_EXT: u16 = 1 << 13 | 1 << 12 | 1 << 10;
/// Word 255: bits 7-0 when the checksum is valid.
const INTEGRITY: u16 = 0x00a5;

/// The 512 bytes.
pub(super) fn data(drive: &IdeDrive, unit: &Unit) -> Vec<u8> {
    let mut words = [0_u16; SECTOR_BYTES / 2];
    let total = drive.total_sectors();
    let geometry = drive.geometry();
    words[0] = FIXED_DRIVE;
    words[1] = geometry.cylinders;
    words[3] = geometry.heads.into();
    words[6] = geometry.sectors.into();
    put_string(&mut words[10..20], drive.serial());
    put_string(&mut words[23..27], FIRMWARE);
    put_string(&mut words[27..47], MODEL);
    words[47] = MULTIPLE_MAX;
    words[49] = CAPABILITIES;
    words[50] = VALID;
    words[51] = PIO_MODE_2;
    words[53] = FIELDS_VALID;
    let per_cylinder = u64::from(unit.heads.max(1)) * u64::from(unit.sectors.max(1));
    let most_cylinders = if unit.heads == geometry.heads && unit.sectors == geometry.sectors {
        geometry.cylinders
    } else {
        u16::MAX
    };
    let cylinders = (total / per_cylinder).min(most_cylinders.into());
    words[54] = cylinders as u16;
    words[55] = unit.heads.into();
    words[56] = unit.sectors.into();
    put_number(&mut words[57..59], cylinders * per_cylinder);
    words[59] = if unit.multiple == 0 { 0 } else { MULTIPLE_VALID | u16::from(unit.multiple) };
    put_number(&mut words[60..62], total.min(LBA28_SECTORS));
    words[63] = MODES_0_TO_2 | selected_mode(unit.dma_mode, 0x20);
    words[64] = PIO_3_AND_4;
    words[65..69].fill(CYCLE_NS);
    words[80] = MAJOR_VERSION;
    words[82] = COMMANDS;
    words[83] = VALID | COMMANDS_EXT;
    words[84] = VALID;
    let look_ahead = if unit.look_ahead { LOOK_AHEAD } else { 0 };
    let write_cache = if unit.write_cache { WRITE_CACHE } else { 0 };
    words[85] = COMMANDS & !(LOOK_AHEAD | WRITE_CACHE) | look_ahead | write_cache;
    words[86] = COMMANDS_EXT;
    words[87] = VALID;
    words[88] = MODES_0_TO_2 | selected_mode(unit.dma_mode, 0x40);
    put_number(&mut words[100..104], total);
    words[255] = INTEGRITY;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.last_mut() {
        *checksum = sum.wrapping_neg();
    }
    bytes
}

/// Bit 8 + n when mode n of the group that starts at `first` is selected.
fn selected_mode(mode: u8, first: u8) -> u16 {
    match mode.checked_sub(first) {
        Some(n @ 0..=2) => 1 << (8 + n),
        _ => 0,
    }
}

/// ATA strings hold the first character of each pair in the high byte and are padded with spaces.
fn put_string(words: &mut [u16], text: &str) {
    let mut characters = text.bytes().chain(std::iter::repeat(b' '));
    for word in words {
        let mut next = || u16::from(characters.next().unwrap_or(b' '));
        *word = next() << 8 | next();
    }
}

fn put_number(words: &mut [u16], value: u64) {
    for (i, word) in words.iter_mut().enumerate() {
        *word = (value >> (16 * i)) as u16;
    }
}
