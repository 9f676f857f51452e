//! Bootable media made from parts of the system.

pub mod linux;
#[cfg(test)]
mod tests;

use crate::demo::FLOPPY_BYTES;
use crate::disk::DiskError;
use crate::firmware::{self, FirmwareError};
use indicatif::ProgressBar;

/// Boot sector and loader, assembled by the build script from `images/demo/loader.rs`.
static LOADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel_floppy.bin"));
const SECTOR: usize = 512;
const SECTORS: usize = FLOPPY_BYTES / SECTOR;
/// Where the loader finds its parameters: the data of the second stage.
const PARAMETERS_AT: usize = SECTOR + 0x600;
const COMMAND_LINE_AT: usize = PARAMETERS_AT + 6;
const COMMAND_LINE_BYTES: usize = 256;
/// Fields of the FAT boot sector.
const RESERVED_SECTORS_FIELD: usize = 14;
const FAT_SECTORS: usize = 9;
const ROOT_SECTORS: usize = 14;
const FAT_START: [u8; 3] = [0xF0, 0xFF, 0xFF];
const VOLUME_LABEL: &[u8; 12] = b"VMSIM BOOT \x08";
/// Fields of the Linux setup header.
const SETUP_SECTORS_FIELD: usize = 0x1F1;
const SIGNATURE_FIELD: usize = 0x202;
const LOAD_FLAGS_FIELD: usize = 0x211;
const SIGNATURE: &[u8] = b"HdrS";
const LOADED_HIGH: u8 = 0x01;
/// What a header with zero setup sectors means.
const SETUP_SECTORS_DEFAULT: usize = 4;
/// The loader leaves this much for the real-mode part.
const SETUP_SECTORS_MAX: usize = 64;

/// Why a recipe failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Something it needs could not be found.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The file is no kernel that the Linux boot protocol can start.
    #[error("Not a kernel of the Linux boot protocol: {0}")]
    NotAKernel(&'static str),
    /// It is too large for a floppy.
    #[error("The kernel has {kernel} bytes; a floppy takes {room} at most")]
    TooLarge {
        /// Its size.
        kernel: usize,
        /// What there is room for.
        room: usize,
    },
    /// The command line is too long.
    #[error("The command line has {length} bytes; {max} are allowed")]
    CommandLine {
        /// Its length.
        length: usize,
        /// What there is room for.
        max: usize,
    },
    /// No disk for Linux can be this large or small.
    #[error("A disk for Linux cannot have {size}; give whole sectors from {min} to {max}")]
    Size {
        /// The size asked for.
        size: String,
        /// The smallest.
        min: String,
        /// The largest.
        max: String,
    },
    /// A package for the guest cannot be had.
    #[error(
        "Linux needs the package {package} for i386: {reason} (a directory with the .deb files can be named in \
         VMSIM_PACKAGES)"
    )]
    NoLinux {
        /// The package.
        package: String,
        /// Why not.
        reason: &'static str,
    },
    /// A package has other content than expected.
    #[error("The package {package} does not hold {what}; try again, or remove it from VMSIM_PACKAGES")]
    NotInPackage {
        /// The package.
        package: &'static str,
        /// What was looked for.
        what: &'static str,
    },
    /// The initramfs could not be packed.
    #[error("Could not compress the initramfs: {0}")]
    Pack(std::io::Error),
    /// The image could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file could not be read.
    #[error("Could not read {}: {source}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A bootable 1.44 MB floppy with the 32-bit Memtest86+ of this system or its distribution.
///
/// It needs a BIOS with INT 15h function 87h (SeaBIOS has it, the built-in ROM has not).
/// `command_line` is Memtest86+'s own (empty: its defaults).
pub fn memtest_floppy(command_line: &str, progress: &ProgressBar) -> Result<Vec<u8>, RecipeError> {
    let path = firmware::find_or_fetch_memtest(progress)?;
    let kernel = std::fs::read(&path).map_err(|source| RecipeError::Read { path, source })?;
    kernel_floppy(&kernel, command_line)
}

/// A bootable 1.44 MB floppy that starts `kernel`, a bzImage small enough for it.
///
/// The kernel lies in the reserved sectors of an otherwise empty FAT12 file system.
pub fn kernel_floppy(kernel: &[u8], command_line: &str) -> Result<Vec<u8>, RecipeError> {
    let setup = check_kernel(kernel)?;
    let sectors = kernel.len().div_ceil(SECTOR);
    let loader_sectors = LOADER.len() / SECTOR;
    let room = SECTORS - loader_sectors - 2 * FAT_SECTORS - ROOT_SECTORS;
    if sectors > room {
        return Err(RecipeError::TooLarge { kernel: kernel.len(), room: room * SECTOR });
    }
    if command_line.len() >= COMMAND_LINE_BYTES || command_line.contains('\0') {
        return Err(RecipeError::CommandLine { length: command_line.len(), max: COMMAND_LINE_BYTES - 1 });
    }

    let reserved = loader_sectors + sectors;
    let mut image = vec![0; FLOPPY_BYTES];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, LOADER);
    put(RESERVED_SECTORS_FIELD, &word(reserved));
    put(PARAMETERS_AT, &[word(loader_sectors), word(setup), word(sectors - setup)].concat());
    put(COMMAND_LINE_AT, command_line.as_bytes());
    put(LOADER.len(), kernel);
    put(reserved * SECTOR, &FAT_START);
    put((reserved + FAT_SECTORS) * SECTOR, &FAT_START);
    put((reserved + 2 * FAT_SECTORS) * SECTOR, VOLUME_LABEL);
    Ok(image)
}

/// Sectors of the real-mode part of `kernel`, which must be one that the loaders can start.
fn check_kernel(kernel: &[u8]) -> Result<usize, RecipeError> {
    let field = |at: usize, length: usize| kernel.get(at..at + length);
    if field(SIGNATURE_FIELD, SIGNATURE.len()) != Some(SIGNATURE) {
        return Err(RecipeError::NotAKernel("it has no setup header"));
    }
    if !matches!(field(LOAD_FLAGS_FIELD, 1), Some([flags]) if flags & LOADED_HIGH != 0) {
        return Err(RecipeError::NotAKernel("it must be loaded low (a zImage)"));
    }
    let setup = match field(SETUP_SECTORS_FIELD, 1) {
        Some([0]) | None => SETUP_SECTORS_DEFAULT,
        Some(sectors) => usize::from(sectors[0]),
    } + 1;
    if setup > SETUP_SECTORS_MAX || setup >= kernel.len().div_ceil(SECTOR) {
        return Err(RecipeError::NotAKernel("its setup part has an impossible size"));
    }
    Ok(setup)
}

/// A number below the sectors of a floppy, as the disk holds it.
fn word(number: usize) -> [u8; 2] {
    (number as u16).to_le_bytes()
}
