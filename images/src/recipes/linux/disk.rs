//! Lays out the hard disk: boot loader, partition table, and a FAT file system whose kernel and
//! initramfs the loader reads by sector number.

use super::layout::{
    COMMAND_LINE, INITRD_BYTES, INITRD_START, KERNEL_SECTORS, KERNEL_START, PARAMETERS_AT, PARTITION_TABLE,
    SECTOR,
};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// Master boot record and second stage, assembled by the build script from `images/boot/`.
pub static LOADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/disk_loader.bin"));
/// Where partitioning programs put the first partition.
const PARTITION_START: u64 = 2048;
const ACTIVE: u8 = 0x80;
/// Partition types: FAT16 and FAT32, to be read by sector number.
const FAT16_LBA: u8 = 0x0E;
const FAT32_LBA: u8 = 0x0C;
const LABEL: &[u8; 11] = b"VMSIM LINUX";
/// Fields of a FAT boot sector: sectors before the volume, and FAT32's copy of the boot sector.
const HIDDEN_SECTORS_FIELD: u64 = 0x1C;
const BACKUP_FIELD: u64 = 0x32;
/// The BIOS's number of it.
const FIRST_HARD_DISK: u8 = 0x80;
const HEADS_CHS: u64 = 16;
const HEADS_TRANSLATED: u64 = 255;
const TRACK_SECTORS: u64 = 63;
/// Cylinders that the BIOS's old functions can name.
const CYLINDERS_MAX: u64 = 1024;

/// What goes onto the disk.
pub struct Content<'a> {
    /// The kernel's file name and bytes.
    pub kernel: (&'a str, &'a [u8]),
    /// The initramfs's.
    pub initrd: (&'a str, &'a [u8]),
    /// Other files.
    pub others: &'a [(&'a str, &'a [u8])],
    /// What the kernel is told.
    pub command_line: &'a str,
}

/// Writes a disk of `size` bytes into the empty `file`.
pub fn write(file: &mut File, size: u64, content: &Content<'_>) -> io::Result<()> {
    file.set_len(size)?;
    let start = PARTITION_START * SECTOR as u64;
    let mut partition = Slice { file: &*file, start, length: size - start, position: 0 };
    let options = fatfs::FormatVolumeOptions::new()
        .volume_label(*LABEL)
        .drive_num(FIRST_HARD_DISK)
        .sectors_per_track(TRACK_SECTORS as u16)
        .heads(heads(size) as u16);
    fatfs::format_volume(&mut partition, options)?;
    partition.rewind()?;
    let volume = fatfs::FileSystem::new(partition, fatfs::FsOptions::new())?;
    let kind = match volume.fat_type() {
        fatfs::FatType::Fat32 => FAT32_LBA,
        _ => FAT16_LBA,
    };
    for (name, bytes) in [content.kernel, content.initrd].iter().chain(content.others) {
        let mut target = volume.root_dir().create_file(name)?;
        target.write_all(bytes)?;
        target.flush()?;
    }
    volume.unmount()?;
    set_hidden_sectors(file, start, kind == FAT32_LBA)?;

    let mut loader = LOADER.to_vec();
    let mut put = |at: usize, bytes: &[u8]| loader[at..at + bytes.len()].copy_from_slice(bytes);
    let mut parameter = |field: usize, value: u64| -> io::Result<()> {
        let value = u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        put(PARAMETERS_AT + field, &value.to_le_bytes());
        Ok(())
    };
    let (kernel, initrd) = (content.kernel.1, content.initrd.1);
    parameter(KERNEL_START, locate(file, start, kernel)?)?;
    parameter(KERNEL_SECTORS, kernel.len().div_ceil(SECTOR) as u64)?;
    parameter(INITRD_START, locate(file, start, initrd)?)?;
    parameter(INITRD_BYTES, initrd.len() as u64)?;
    put(PARAMETERS_AT + COMMAND_LINE, content.command_line.as_bytes());
    put(PARTITION_TABLE, &partition_entry(kind, size));
    file.write_all_at(&loader, 0)
}

/// Says where on the disk the volume lies; the formatter does not know.
fn set_hidden_sectors(file: &File, start: u64, fat32: bool) -> io::Result<()> {
    let hidden = (PARTITION_START as u32).to_le_bytes();
    file.write_all_at(&hidden, start + HIDDEN_SECTORS_FIELD)?;
    if fat32 {
        let mut backup = [0; 2];
        file.read_exact_at(&mut backup, start + BACKUP_FIELD)?;
        let backup = u64::from(u16::from_le_bytes(backup)) * SECTOR as u64;
        file.write_all_at(&hidden, start + backup + HIDDEN_SECTORS_FIELD)?;
    }
    Ok(())
}

/// The sector where `bytes` lie on the disk, which they do in one piece: the volume was empty.
fn locate(file: &File, start: u64, bytes: &[u8]) -> io::Result<u64> {
    let head = &bytes[..SECTOR.min(bytes.len())];
    let end = file.metadata()?.len();
    let mut sector = vec![0; head.len()];
    let mut at = start;
    while at + bytes.len() as u64 <= end {
        file.read_exact_at(&mut sector, at)?;
        if sector == head {
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, at)?;
            if found == bytes {
                return Ok(at / SECTOR as u64);
            }
        }
        at += SECTOR as u64;
    }
    Err(io::Error::other("a file on the disk is not in one piece"))
}

/// Heads of the geometry that BIOSes use for a disk of this size.
fn heads(size: u64) -> u64 {
    let sectors = size / SECTOR as u64;
    if sectors <= CYLINDERS_MAX * HEADS_CHS * TRACK_SECTORS { HEADS_CHS } else { HEADS_TRANSLATED }
}

/// The partition table's first entry: everything from [`PARTITION_START`] on.
fn partition_entry(kind: u8, size: u64) -> Vec<u8> {
    let sectors = size / SECTOR as u64;
    let chs = |sector: u64| {
        let cylinder = sector / (heads(size) * TRACK_SECTORS);
        let (cylinder, head, number) = match cylinder {
            0..CYLINDERS_MAX => (cylinder, sector / TRACK_SECTORS % heads(size), sector % TRACK_SECTORS + 1),
            _ => (CYLINDERS_MAX - 1, HEADS_TRANSLATED - 1, TRACK_SECTORS),
        };
        [head as u8, number as u8 | (cylinder >> 8 << 6) as u8, cylinder as u8]
    };
    let mut entry = vec![ACTIVE];
    entry.extend(chs(PARTITION_START));
    entry.push(kind);
    entry.extend(chs(sectors - 1));
    entry.extend((PARTITION_START as u32).to_le_bytes());
    entry.extend(((sectors - PARTITION_START) as u32).to_le_bytes());
    entry
}

/// The partition as a file of its own.
struct Slice<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    position: u64,
}

impl Slice<'_> {
    /// How much of `wanted` bytes there is from the position on.
    fn room(&self, wanted: usize) -> usize {
        (self.length.saturating_sub(self.position)).min(wanted as u64) as usize
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        let count = self.file.read_at(&mut bytes[..room], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Slice<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        let count = self.file.write_at(&bytes[..room], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Slice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
