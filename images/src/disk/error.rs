//! Why an image could not be created or read.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why an image could not be created or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Creating never overwrites.
    #[error("{} exists already; choose another name or remove it first", .0.display())]
    Exists(PathBuf),
    /// The host's disk is full (or a quota is).
    #[error("No space left for {}; nothing was created", .0.display())]
    NoSpace(PathBuf),
    /// The host refuses or fails.
    #[error("{}: {source}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Too small or too large for a hard disk.
    #[error("A hard disk cannot have {size}; it needs 504 KiB at least and 128 PiB at most")]
    HardDiskSize {
        /// The size asked for.
        size: String,
    },
    /// Not a whole number of sectors.
    #[error("{size} bytes is not a whole number of 512-byte sectors")]
    PartialSector {
        /// The size asked for.
        size: u64,
    },
    /// Not a size.
    #[error("\"{0}\" is not a size; write it like 512K, 64M or 2G")]
    Size(String),
    /// No such floppy.
    #[error("\"{0}\" is not a floppy size; there are {known}", known = super::FloppyFormat::names())]
    FloppySize(String),
    /// A label that FAT cannot store.
    #[error(
        "\"{0}\" is not a volume label; it takes up to 11 letters, digits, spaces or any of -_!#$%&'()@^`{{}}~"
    )]
    Label(String),
    /// The file system could not be made.
    #[error("Could not make a file system: {0}")]
    Format(io::Error),
}

impl DiskError {
    /// Tells the failures apart that a user can do something about.
    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AlreadyExists => Self::Exists(path.to_owned()),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace(path.to_owned()),
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}
