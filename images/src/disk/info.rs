//! What an image holds: format, medium, geometry, partitions, FAT volumes. Nothing read from the
//! image is trusted: sums are checked, and only what lies inside the file is looked at.

use super::{DiskError, FloppyFormat, Geometry, SECTOR, display_size};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const SECTOR_BYTES: usize = SECTOR as usize;
/// Units of `st_blocks`.
const BLOCK: u64 = 512;
/// Where the boot sector's signature lies, and the signature.
const SIGNATURE_AT: usize = 510;
const SIGNATURE: [u8; 2] = [0x55, 0xAA];

/// How an image file is organised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The sectors, one after the other.
    Raw,
    /// QEMU's format.
    Qcow2 {
        /// Its version (2 or 3).
        version: u32,
        /// Whether it is only the difference to another file.
        has_backing_file: bool,
    },
}

/// What the image seems to be an image of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A floppy of this size.
    Floppy(FloppyFormat),
    /// A CD-ROM.
    CdRom {
        /// The volume's name.
        label: String,
        /// Whether a PC can boot from it (El Torito).
        bootable: bool,
    },
    /// A hard disk.
    HardDisk,
}

/// A FAT file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatVolume {
    /// 12, 16 or 32.
    pub bits: u8,
    /// The volume label, when it has one.
    pub label: Option<String>,
    /// The name of the system that formatted it.
    pub oem: String,
}

/// An entry of the partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// 1 to 4.
    pub number: u8,
    /// Marked active.
    pub bootable: bool,
    /// The type byte.
    pub kind: u8,
    /// First sector.
    pub start: u64,
    /// Sectors.
    pub sectors: u64,
    /// The FAT file system in it.
    pub volume: Option<FatVolume>,
}

/// What is known about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// How the file is organised.
    pub format: Format,
    /// What it is an image of.
    pub medium: Medium,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes that the file takes on the host.
    pub allocated: u64,
    /// The geometry, as it follows from the size and the boot sector.
    pub geometry: Option<Geometry>,
    /// The boot sector ends in 55 AA.
    pub boot_signature: bool,
    /// The FAT file system, when the image has no partitions.
    pub volume: Option<FatVolume>,
    /// The partition table.
    pub partitions: Vec<Partition>,
}

/// Looks into the image `path`.
pub fn info(path: &Path) -> Result<ImageInfo, DiskError> {
    inspect(path).map_err(|source| DiskError::from_io(path, source))
}

fn inspect(path: &Path) -> io::Result<ImageInfo> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let image = Image { file, length: metadata.len() };
    let allocated = metadata.blocks().saturating_mul(BLOCK);
    if let Some((format, size)) = image.qcow2()? {
        // What its clusters hold is the storage process's business.
        return Ok(ImageInfo {
            format,
            medium: FloppyFormat::of_bytes(size).map_or(Medium::HardDisk, Medium::Floppy),
            size,
            allocated,
            geometry: Some(guess_geometry(size, None)),
            boot_signature: false,
            volume: None,
            partitions: Vec::new(),
        });
    }
    let size = image.length;
    let boot = image.sector(0)?;
    let boot_signature = boot[SIGNATURE_AT..] == SIGNATURE;
    let parameters = Parameters::parse(&boot);
    let cd = image.cd_rom()?;
    let volume = image.fat_volume(0)?;
    let partitions = if volume.is_none() && boot_signature { image.partitions(&boot)? } else { Vec::new() };
    let medium = match (cd, FloppyFormat::of_bytes(size)) {
        (Some(cd), _) => cd,
        (None, Some(format)) => Medium::Floppy(format),
        (None, None) => Medium::HardDisk,
    };
    let geometry = match medium {
        Medium::CdRom { .. } => None,
        Medium::Floppy(format) => Some(format.geometry()),
        Medium::HardDisk => Some(guess_geometry(size, parameters.as_ref())),
    };
    Ok(ImageInfo {
        format: Format::Raw,
        medium,
        size,
        allocated,
        geometry,
        boot_signature,
        volume,
        partitions,
    })
}

/// The geometry that an ATA disk of this size reports: 16 heads, 63 sectors, 16383 cylinders at most.
fn guess_geometry(size: u64, parameters: Option<&Parameters>) -> Geometry {
    const HEADS: u32 = 16;
    const SECTORS: u32 = 63;
    const CYLINDERS_MAX: u64 = 16_383;
    if let Some(format) = FloppyFormat::of_bytes(size) {
        return format.geometry();
    }
    let (heads, sectors) = parameters.map_or((HEADS, SECTORS), |p| (p.heads, p.sectors_per_track));
    let cylinders = size / SECTOR / u64::from(heads) / u64::from(sectors);
    Geometry { cylinders: cylinders.min(CYLINDERS_MAX) as u32, heads, sectors }
}

/// A raw image being looked at.
struct Image {
    file: File,
    length: u64,
}

impl Image {
    /// Fills `bytes` from `offset`, with zeroes beyond the end.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sector(&self, number: u64) -> io::Result<[u8; SECTOR_BYTES]> {
        let mut sector = [0; SECTOR_BYTES];
        if let Some(offset) = number.checked_mul(SECTOR) {
            self.read(offset, &mut sector)?;
        }
        Ok(sector)
    }

    fn qcow2(&self) -> io::Result<Option<(Format, u64)>> {
        const MAGIC: &[u8] = b"QFI\xFB";
        let header = self.sector(0)?;
        let be32 =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let be64 = |at: usize| u64::from(be32(at)) << 32 | u64::from(be32(at + 4));
        let format = Format::Qcow2 { version: be32(4), has_backing_file: be64(8) != 0 };
        Ok(header.starts_with(MAGIC).then(|| (format, be64(24))))
    }

    /// ISO 9660: the primary volume descriptor, and the boot record after it.
    fn cd_rom(&self) -> io::Result<Option<Medium>> {
        const PRIMARY_DESCRIPTOR: u64 = 16 * 2048;
        const BOOT_RECORD: u64 = 17 * 2048;
        const IDENTIFIER: &[u8] = b"\x01CD001";
        const BOOT_IDENTIFIER: &[u8] = b"\x00CD001\x01EL TORITO SPECIFICATION";
        const LABEL: std::ops::Range<usize> = 40..72;
        let descriptor = self.sector(PRIMARY_DESCRIPTOR / SECTOR)?;
        if !descriptor.starts_with(IDENTIFIER) {
            return Ok(None);
        }
        let bootable = self.sector(BOOT_RECORD / SECTOR)?.starts_with(BOOT_IDENTIFIER);
        Ok(Some(Medium::CdRom { label: text(&descriptor[LABEL]), bootable }))
    }

    fn partitions(&self, boot: &[u8; SECTOR_BYTES]) -> io::Result<Vec<Partition>> {
        const TABLE: std::ops::Range<usize> = 446..510;
        const ENTRY: usize = 16;
        const ACTIVE: u8 = 0x80;
        let entries = boot[TABLE].chunks_exact(ENTRY);
        // Boot code at this place is not a table.
        if entries.clone().any(|entry| entry[0] & !ACTIVE != 0) {
            return Ok(Vec::new());
        }
        let mut partitions = Vec::new();
        for (number, entry) in (1..).zip(entries) {
            let (kind, start, sectors) = (entry[4], le32(entry, 8), le32(entry, 12));
            if kind == 0 || sectors == 0 {
                continue;
            }
            partitions.push(Partition {
                number,
                bootable: entry[0] == ACTIVE,
                kind,
                start: start.into(),
                sectors: sectors.into(),
                volume: self.fat_volume(start.into())?,
            });
        }
        Ok(partitions)
    }

    /// The FAT file system whose boot sector is `start`.
    fn fat_volume(&self, start: u64) -> io::Result<Option<FatVolume>> {
        let boot = self.sector(start)?;
        let Some(parameters) = Parameters::parse(&boot) else { return Ok(None) };
        let label = match self.root_label(start, &parameters)? {
            None => parameters.label.clone(),
            label => label,
        };
        Ok(Some(FatVolume { bits: parameters.bits, label, oem: text(&boot[3..11]) }))
    }

    /// The label in the root directory of FAT12 and FAT16; it counts more than the boot sector's.
    fn root_label(&self, start: u64, parameters: &Parameters) -> io::Result<Option<String>> {
        const ENTRY: usize = 32;
        const ATTRIBUTES: usize = 11;
        const VOLUME_LABEL: u8 = 0x08;
        /// All of read-only, hidden, system and label: a piece of a long name.
        const LONG_NAME: u8 = 0x0F;
        const DELETED: u8 = 0xE5;
        let mut root = vec![0; parameters.root_entries * ENTRY];
        self.read((start + parameters.root_start).saturating_mul(SECTOR), &mut root)?;
        Ok(root
            .chunks_exact(ENTRY)
            .take_while(|entry| entry[0] != 0)
            .find(|entry| {
                let attributes = entry[ATTRIBUTES];
                entry[0] != DELETED && attributes & LONG_NAME != LONG_NAME && attributes & VOLUME_LABEL != 0
            })
            .map(|entry| text(&entry[..ATTRIBUTES])))
    }
}

/// The BIOS parameter block of a FAT boot sector, as far as it is of use here.
struct Parameters {
    heads: u32,
    sectors_per_track: u32,
    bits: u8,
    /// First sector of the root directory and its entries (FAT12 and FAT16).
    root_start: u64,
    root_entries: usize,
    label: Option<String>,
}

impl Parameters {
    /// `None`: not the boot sector of a FAT file system with 512-byte sectors.
    fn parse(boot: &[u8; SECTOR_BYTES]) -> Option<Self> {
        const JUMPS: [u8; 2] = [0xEB, 0xE9];
        const ENTRIES_PER_SECTOR: u64 = 16;
        const FAT12_CLUSTERS: u64 = 4085;
        const FAT16_CLUSTERS: u64 = 65_525;
        const NO_NAME: &str = "NO NAME";
        let cluster = u64::from(boot[13]);
        let reserved = u64::from(le16(boot, 14));
        let fats = u64::from(boot[16]);
        let root_entries = le16(boot, 17);
        let media = boot[21];
        let (sectors_per_track, heads) = (u32::from(le16(boot, 24)), u32::from(le16(boot, 26)));
        let plausible = JUMPS.contains(&boot[0])
            && u64::from(le16(boot, 11)) == SECTOR
            && cluster.is_power_of_two()
            && reserved != 0
            && (1..=2).contains(&fats)
            && media >= 0xF0
            && sectors_per_track != 0
            && heads != 0;
        if !plausible {
            return None;
        }
        let first_non_zero =
            |short: u16, long: u32| if short != 0 { u64::from(short) } else { u64::from(long) };
        let sectors = first_non_zero(le16(boot, 19), le32(boot, 32));
        let fat = first_non_zero(le16(boot, 22), le32(boot, 36));
        let root_start = reserved + fats * fat;
        let data = sectors.checked_sub(root_start + u64::from(root_entries).div_ceil(ENTRIES_PER_SECTOR))?;
        let bits = match data / cluster {
            clusters if clusters < FAT12_CLUSTERS => 12,
            clusters if clusters < FAT16_CLUSTERS => 16,
            _ => 32,
        };
        // The label follows an extended signature, whose place depends on the width.
        let signature_at = if bits == 32 { 66 } else { 38 };
        let label = (boot[signature_at] == 0x29)
            .then(|| text(&boot[signature_at + 5..signature_at + 16]))
            .filter(|label| !label.is_empty() && label != NO_NAME);
        Some(Self {
            heads,
            sectors_per_track,
            bits,
            root_start,
            root_entries: if bits == 32 { 0 } else { root_entries.into() },
            label,
        })
    }
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

/// A padded field as text; what cannot be shown becomes a question mark.
fn text(field: &[u8]) -> String {
    let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    let end = field.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    field[..end].iter().map(shown).collect()
}

/// What a partition's type byte stands for.
fn partition_kind(kind: u8) -> &'static str {
    match kind {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0E => "FAT16",
        0x0B | 0x0C => "FAT32",
        0x05 | 0x0F | 0x85 => "extended",
        0x07 => "NTFS or HPFS",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8E => "Linux LVM",
        0xA5 => "FreeBSD",
        0xEE => "GPT",
        0xEF => "EFI system",
        _ => "unknown",
    }
}

impl fmt::Display for FatVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAT{}", self.bits)?;
        match &self.label {
            Some(label) => write!(f, ", label {label}"),
            None => write!(f, ", no label"),
        }
    }
}

impl fmt::Display for ImageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.medium {
            Medium::Floppy(format) => writeln!(f, "medium:     {} floppy", format.name())?,
            Medium::CdRom { label, bootable } => {
                let boot = if *bootable { ", bootable" } else { "" };
                writeln!(f, "medium:     CD-ROM \"{label}\"{boot}")?;
            }
            Medium::HardDisk => writeln!(f, "medium:     hard disk")?,
        }
        match &self.format {
            Format::Raw => writeln!(f, "format:     raw")?,
            Format::Qcow2 { version, has_backing_file } => {
                let backing = if *has_backing_file { ", with a backing file" } else { "" };
                writeln!(f, "format:     qcow2 version {version}{backing}")?;
            }
        }
        let (size, taken) = (display_size(self.size), display_size(self.allocated));
        writeln!(f, "size:       {size} ({} bytes), {taken} on the host", self.size)?;
        if let Some(geometry) = &self.geometry {
            writeln!(f, "geometry:   {geometry}")?;
        }
        if self.format == Format::Raw {
            writeln!(
                f,
                "boot:       {}",
                if self.boot_signature { "signature 55 AA" } else { "no signature" }
            )?;
        }
        if let Some(volume) = &self.volume {
            writeln!(f, "volume:     {volume}")?;
        }
        for partition in &self.partitions {
            let Partition { number, bootable, kind, start, sectors, volume } = partition;
            let size = display_size(sectors.saturating_mul(SECTOR));
            write!(
                f,
                "partition {number}: {kind:02X}h {}, {size} from sector {start}",
                partition_kind(*kind)
            )?;
            if *bootable {
                write!(f, ", active")?;
            }
            if let Some(volume) = volume {
                write!(f, "; {volume}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
