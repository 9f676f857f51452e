//! Creates disk images and says what is in one.

mod error;
mod floppy;
mod info;
mod size;
#[cfg(test)]
mod tests;

pub use error::DiskError;
pub use floppy::FloppyFormat;
pub use info::{FatVolume, Format, ImageInfo, Medium, Partition, info};
pub use size::{display_size, parse_size};

use indicatif::ProgressBar;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes in a sector of every medium that this module creates.
pub const SECTOR: u64 = 512;
/// What a disk with 48-bit addresses can hold.
const HARD_DISK_MAX: u64 = (1 << 48) * SECTOR;
/// One cylinder of the customary 16 heads and 63 sectors.
const HARD_DISK_MIN: u64 = 16 * 63 * SECTOR;
/// Bytes reserved or written between two steps of the progress bar.
const STEP: u64 = 16 * 1024 * 1024;

/// Bytes copied at once; as much as is looked at for zeroes.
const COPY_STEP: usize = 64 * 1024;

/// Cylinders, heads and sectors per track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cylinders, {} heads, {} sectors per track", self.cylinders, self.heads, self.sectors)
    }
}

/// What to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A floppy.
    Floppy {
        /// Its size.
        format: FloppyFormat,
        /// What is on it.
        content: FloppyContent,
    },
    /// A hard disk without anything on it.
    HardDisk {
        /// Bytes; a multiple of [`SECTOR`].
        size: u64,
        /// Takes the space on the host now, instead of when the guest writes.
        allocate: bool,
    },
}

/// What a new floppy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FloppyContent {
    /// Zeroes: the guest formats it.
    Blank,
    /// An empty FAT12 file system.
    Fat {
        /// Its volume label: up to 11 characters.
        label: Option<String>,
    },
}

/// Creates the image `path`. An existing file is never touched, and a failure leaves none behind.
pub fn create(path: &Path, kind: &Kind, progress: &ProgressBar) -> Result<(), DiskError> {
    match kind {
        Kind::Floppy { format, content } => {
            // The label is checked before there is a file.
            let image = floppy::image(*format, content)?;
            create_with(path, |file| file.write_all(&image))
        }
        Kind::HardDisk { size, allocate } => {
            check_hard_disk(*size)?;
            create_with(path, |file| {
                if *allocate {
                    reserve(file, *size, progress)?;
                }
                file.set_len(*size)
            })
        }
    }
}

/// Copies the image `from` to the new file `to`; what is zero takes no space there.
pub fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    let mut source = File::open(from).map_err(|source| DiskError::from_io(from, source))?;
    create_with(to, |file| {
        let mut bytes = vec![0; COPY_STEP];
        let mut offset = 0;
        loop {
            let count = source.read(&mut bytes)?;
            let read = &bytes[..count];
            if count == 0 {
                return file.set_len(offset);
            }
            if read.iter().any(|byte| *byte != 0) {
                file.write_all_at(read, offset)?;
            }
            offset += count as u64;
        }
    })
}

fn check_hard_disk(size: u64) -> Result<(), DiskError> {
    if !(HARD_DISK_MIN..=HARD_DISK_MAX).contains(&size) {
        return Err(DiskError::HardDiskSize { size: display_size(size) });
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(DiskError::PartialSector { size });
    }
    Ok(())
}

/// Creates `path` and lets `fill` write it; the file goes away again when that fails.
pub(crate) fn create_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), DiskError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| DiskError::from_io(path, source))?;
    // Closing does not report a full disk; syncing does.
    fill(&mut file).and_then(|()| file.sync_all()).map_err(|source| {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!("could not remove the unfinished {}: {error}", path.display());
        }
        DiskError::from_io(path, source)
    })
}

/// Takes `size` bytes of the host's disk, showing how far it is.
fn reserve(file: &mut File, size: u64, progress: &ProgressBar) -> io::Result<()> {
    progress.set_length(size);
    let mut offset = 0;
    let mut zeroes = Vec::new();
    while offset < size {
        let step = STEP.min(size - offset);
        if zeroes.is_empty() {
            match rustix::fs::fallocate(&*file, FallocateFlags::empty(), offset, step) {
                Ok(()) => {}
                // File systems that cannot reserve get zeroes written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => zeroes = vec![0; STEP as usize],
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(zeroes) = zeroes.get(..step as usize) {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(zeroes)?;
        }
        offset += step;
        progress.set_position(offset);
    }
    Ok(())
}
