//! The description of one virtual PC, as the launcher hands it to every process.
//!
//! This is the checked, absolute form: paths are absolute, sizes are in bytes, files exist.
//! What people write (TOML, command line) is parsed and checked in `tools`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that the processes of a VM need to know to build their part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Name of the VM: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// CPU model, as the VMM names it: `pentium3`...
    pub cpu: String,
    /// What runs guest code, as the VMM names it: `shadow`, `interp`.
    pub engine: String,
    /// Guest RAM in bytes: a multiple of 1 MiB, 1 MiB to 2 GiB.
    pub ram_bytes: u64,
    /// System firmware, mapped so that it ends at 4 GiB; its last 128 KiB also end at 1 MiB.
    pub firmware: PathBuf,
    /// Option ROM of the graphics adapter, if any.
    pub video_rom: Option<PathBuf>,
    /// Floppy drives A and B.
    pub floppies: [Option<DriveConfig>; 2],
    /// IDE drives: primary master, primary slave, secondary master, secondary slave.
    pub disks: [Option<DriveConfig>; 4],
    /// Where the firmware looks for an operating system, in order.
    pub boot_order: Vec<BootDevice>,
    /// File that keeps the 256 bytes of CMOS RAM; `None` keeps them only while the VM lives.
    pub cmos: Option<PathBuf>,
    /// Where text from the debug ports (E9h, 402h) goes; `None` drops it.
    pub debug_console: Option<PathBuf>,
    /// Where each serial port (COM1, COM2) is connected.
    pub serial: [SerialBackend; 2],
}

/// One floppy or hard-disk drive with a medium in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveConfig {
    /// The image file (raw).
    pub path: PathBuf,
    /// Whether writes are refused, as with a write-protect tab.
    pub read_only: bool,
    /// Cylinders, heads, sectors per track; derived from the image when `None`.
    pub geometry: Option<Geometry>,
}

/// Cylinders, heads and sectors per track of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Cylinders (tracks per side), at least 1.
    pub cylinders: u16,
    /// Heads (sides), 1 to 16.
    pub heads: u8,
    /// Sectors per track, 1 to 63.
    pub sectors: u8,
}

/// A place to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// Floppy drive A.
    Floppy,
    /// The first hard disk.
    Disk,
}

/// What is at the other end of a serial port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SerialBackend {
    /// The UART exists; nothing is connected.
    #[default]
    Unconnected,
    /// The port does not exist.
    Absent,
    /// Output is appended to this file; there is no input.
    File(PathBuf),
    /// The supervisor listens on this Unix socket; one client at a time is connected.
    Socket(PathBuf),
    /// The supervisor holds a pseudo-terminal; this symbolic link leads to it.
    Pty(PathBuf),
}

impl SerialBackend {
    /// Whether characters travel through shared memory ([`crate::serial`]).
    pub fn is_cable(&self) -> bool {
        matches!(self, Self::Socket(_) | Self::Pty(_))
    }
}
