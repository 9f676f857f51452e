//! The machine that a recording was made in, as far as device models are told of it.
//!
//! A form of its own, so that recordings stay readable when [`MachineConfig`] changes: what is new there gets the
//! value here that machines had before.

use ipc::machine::{BootDevice, DriveConfig, Geometry, MachineConfig, SerialBackend};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    name: String,
    cpu: String,
    ram_bytes: u64,
    firmware: PathBuf,
    video_rom: Option<PathBuf>,
    floppies: [Option<Drive>; 2],
    disks: [Option<Drive>; 4],
    /// The floppy is tried first.
    floppy_first: bool,
    serial: [Port; 2],
}

/// A drive with a medium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Drive {
    path: PathBuf,
    read_only: bool,
    /// Cylinders, heads, sectors.
    geometry: Option<(u16, u8, u8)>,
}

/// A serial port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Port {
    #[default]
    Unconnected,
    Absent,
    /// Characters go and come through shared memory.
    Cable,
}

impl Drive {
    fn of(drive: &DriveConfig) -> Self {
        Self {
            path: drive.path.clone(),
            read_only: drive.read_only,
            geometry: drive.geometry.map(|g| (g.cylinders, g.heads, g.sectors)),
        }
    }

    fn config(&self) -> DriveConfig {
        let geometry =
            self.geometry.map(|(cylinders, heads, sectors)| Geometry { cylinders, heads, sectors });
        DriveConfig { path: self.path.clone(), read_only: self.read_only, geometry }
    }
}

impl Machine {
    /// What a recording says of a machine.
    pub fn of(config: &MachineConfig) -> Self {
        let drive = |drive: &Option<DriveConfig>| drive.as_ref().map(Drive::of);
        Self {
            name: config.name.clone(),
            cpu: config.cpu.clone(),
            ram_bytes: config.ram_bytes,
            firmware: config.firmware.clone(),
            video_rom: config.video_rom.clone(),
            floppies: config.floppies.each_ref().map(drive),
            disks: config.disks.each_ref().map(drive),
            floppy_first: config.boot_order.first() == Some(&BootDevice::Floppy),
            serial: config.serial.each_ref().map(|port| match port {
                // A replay writes no file.
                SerialBackend::Unconnected | SerialBackend::File(_) => Port::Unconnected,
                SerialBackend::Absent => Port::Absent,
                SerialBackend::Socket(_) | SerialBackend::Pty(_) => Port::Cable,
            }),
        }
    }

    /// The machine for a replay: nothing of it leads to a file that a model would write.
    pub fn config(&self) -> MachineConfig {
        let drive = |drive: &Option<Drive>| drive.as_ref().map(Drive::config);
        let order = [BootDevice::Floppy, BootDevice::Disk];
        MachineConfig {
            name: self.name.clone(),
            cpu: self.cpu.clone(),
            engine: String::new(),
            ram_bytes: self.ram_bytes,
            firmware: self.firmware.clone(),
            video_rom: self.video_rom.clone(),
            floppies: self.floppies.each_ref().map(drive),
            disks: self.disks.each_ref().map(drive),
            boot_order: if self.floppy_first { order.into() } else { order.into_iter().rev().collect() },
            cmos: None,
            debug_console: None,
            serial: self.serial.map(|port| match port {
                Port::Unconnected => SerialBackend::Unconnected,
                Port::Absent => SerialBackend::Absent,
                Port::Cable => SerialBackend::Socket(PathBuf::new()),
            }),
        }
    }
}
