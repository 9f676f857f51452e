//! Which cylinders, heads and sectors an image of some size has.
//!
//! Floppies: the formats of the IBM PC, AT and PS/2 (DOS 1.0 to 5.0). Hard disks: ATA-4
//! annex B ("16 heads, 63 sectors, at most 16383 cylinders").

use super::BlockDevice;
use ipc::machine::Geometry;
use thiserror::Error;

/// Bytes in a sector, of every medium here.
pub const SECTOR_BYTES: usize = 512;

/// Heads that a hard disk has when nothing says otherwise.
const DEFAULT_HEADS: u8 = 16;
/// Sectors per track that a hard disk has when nothing says otherwise.
const DEFAULT_SECTORS: u8 = 63;
/// The most cylinders that IDENTIFY DEVICE reports (ATA-4, annex B).
const MAX_CYLINDERS: u64 = 16_383;
/// The most sectors that 48-bit addressing reaches.
const MAX_DISK_SECTORS: u64 = 1 << 48;
/// The most cylinders that a floppy drive's head reaches.
const MAX_FLOPPY_CYLINDERS: u16 = 84;
/// The most sectors per track of a floppy (extra density).
const MAX_FLOPPY_SECTORS: u8 = 36;

/// Why an image does not fit the drive.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The size is not that of a diskette.
    #[error(
        "{len} bytes is not the size of a diskette; a floppy image has exactly {} bytes",
        FloppyFormat::sizes()
    )]
    FloppySize {
        /// Size of the image.
        len: u64,
    },
    /// The geometry asked for does not multiply out to the image's size, or no drive has it.
    #[error(
        "{cylinders} cylinders, {heads} heads and {sectors} sectors do not fit an image of {len} bytes; \
         leave the geometry out to derive it",
        cylinders = geometry.cylinders, heads = geometry.heads, sectors = geometry.sectors
    )]
    Mismatch {
        /// What was asked for.
        geometry: Geometry,
        /// Size of the image.
        len: u64,
    },
    /// The size of a hard-disk image is zero, not a multiple of a sector, or out of reach.
    #[error(
        "{len} bytes is not the size of a hard disk; it must be a multiple of 512, not zero, at most 2^57"
    )]
    DiskSize {
        /// Size of the image.
        len: u64,
    },
}

/// Rate at which bits pass the head of a floppy drive (MFM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataRate {
    /// Double density. A 360 rpm drive (1.2 MB) reads such diskettes at 300 kbit/s.
    Kbps250,
    /// Double density 3.5 inch: the drive always turns at 300 rpm.
    Kbps250Only,
    /// High density.
    Kbps500,
    /// Extra density (perpendicular recording).
    Mbps1,
}

/// How a diskette is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloppyFormat {
    /// Tracks per side.
    pub cylinders: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors per track, numbered from 1.
    pub sectors: u8,
    /// Bit rate it was written with.
    pub rate: DataRate,
}

impl FloppyFormat {
    /// Every format that a size alone names.
    pub const ALL: [Self; 8] = [
        Self::new(40, 1, 8, DataRate::Kbps250),
        Self::new(40, 1, 9, DataRate::Kbps250),
        Self::new(40, 2, 8, DataRate::Kbps250),
        Self::new(40, 2, 9, DataRate::Kbps250),
        Self::new(80, 2, 9, DataRate::Kbps250Only),
        Self::new(80, 2, 15, DataRate::Kbps500),
        Self::new(80, 2, 18, DataRate::Kbps500),
        Self::new(80, 2, 36, DataRate::Mbps1),
    ];

    const fn new(cylinders: u8, heads: u8, sectors: u8, rate: DataRate) -> Self {
        Self { cylinders, heads, sectors, rate }
    }

    /// Size of an image with this format.
    pub const fn bytes(&self) -> u64 {
        self.cylinders as u64 * self.heads as u64 * self.sectors as u64 * SECTOR_BYTES as u64
    }

    /// The format of an image of `len` bytes, or the one asked for.
    ///
    /// # Errors
    /// [`GeometryError`]; oversized formats (XDF, DMF, 82 tracks) have no size of their own and
    /// need their geometry given, and formats with mixed sector sizes cannot be raw images at all.
    pub fn of_image(len: u64, asked: Option<Geometry>) -> Result<Self, GeometryError> {
        let Some(geometry) = asked else {
            let by_size = Self::ALL.into_iter().find(|f| f.bytes() == len);
            return by_size.ok_or(GeometryError::FloppySize { len });
        };
        let possible = (1..=MAX_FLOPPY_CYLINDERS).contains(&geometry.cylinders)
            && (1..=2).contains(&geometry.heads)
            && (1..=MAX_FLOPPY_SECTORS).contains(&geometry.sectors);
        let rate = match geometry.sectors {
            0..=10 if geometry.cylinders > 43 => DataRate::Kbps250Only,
            0..=10 => DataRate::Kbps250,
            11..=21 => DataRate::Kbps500,
            _ => DataRate::Mbps1,
        };
        let format = Self::new(geometry.cylinders as u8, geometry.heads, geometry.sectors, rate);
        if possible && format.bytes() == len {
            Ok(format)
        } else {
            Err(GeometryError::Mismatch { geometry, len })
        }
    }

    fn sizes() -> String {
        let sizes: Vec<String> =
            Self::ALL.iter().map(|f| format!("{} ({} KiB)", f.bytes(), f.bytes() / 1024)).collect();
        sizes.join(", ")
    }
}

/// The geometry that a hard disk reports: the one asked for, the one its partition table was made
/// with, or 16 heads and 63 sectors.
///
/// # Errors
/// [`GeometryError`].
pub fn disk_geometry(
    image: &mut dyn BlockDevice,
    asked: Option<Geometry>,
) -> Result<Geometry, GeometryError> {
    let len = image.len();
    let total = len / SECTOR_BYTES as u64;
    if total == 0 || !len.is_multiple_of(SECTOR_BYTES as u64) || total > MAX_DISK_SECTORS {
        return Err(GeometryError::DiskSize { len });
    }
    if let Some(geometry) = asked {
        let product = u64::from(geometry.cylinders) * u64::from(geometry.heads) * u64::from(geometry.sectors);
        let possible = geometry.heads <= 16 && geometry.sectors <= 63;
        return if possible && (1..=total).contains(&product) {
            Ok(geometry)
        } else {
            Err(GeometryError::Mismatch { geometry, len })
        };
    }
    let (heads, sectors) = partition_table_hint(image).unwrap_or((DEFAULT_HEADS, DEFAULT_SECTORS));
    let cylinders = (total / (u64::from(heads) * u64::from(sectors))).clamp(1, MAX_CYLINDERS);
    Ok(Geometry { cylinders: cylinders as u16, heads, sectors })
}

/// Heads and sectors that the ends of all partitions agree on: partitions end on a cylinder
/// boundary of the disk that they were made on.
fn partition_table_hint(image: &mut dyn BlockDevice) -> Option<(u8, u8)> {
    const TABLE: usize = 446;
    const ENTRY: usize = 16;
    const SIGNATURE: [u8; 2] = [0x55, 0xaa];
    let mut boot_record = [0; SECTOR_BYTES];
    image.read_at(0, &mut boot_record).ok()?;
    let (table, signature) = boot_record[TABLE..].split_at(4 * ENTRY);
    if signature != SIGNATURE {
        return None;
    }
    let mut hint = None;
    for entry in table.chunks_exact(ENTRY) {
        let &[boot, _, _, _, kind, end_head, end_sector, ..] = entry else { return None };
        if boot & 0x7f != 0 {
            // Not a partition table: this is the boot sector of an unpartitioned disk.
            return None;
        }
        if kind == 0 {
            continue;
        }
        let this = (end_head.wrapping_add(1), end_sector & 0x3f);
        if !(1..=16).contains(&this.0) || this.1 == 0 || hint.is_some_and(|h| h != this) {
            return None;
        }
        hint = Some(this);
    }
    hint
}
