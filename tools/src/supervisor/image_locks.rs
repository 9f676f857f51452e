//! Keeps two VMs from writing the same disk image.
//!
//! The supervisor holds the lock, not the storage process: that one may die and be replaced.

use anyhow::{Context, Result, bail};
use ipc::machine::MachineConfig;
use std::fs::{File, TryLockError};

/// Locks on all images of a VM; released when dropped, or by the system.
pub struct ImageLocks {
    _files: Vec<File>,
}

impl ImageLocks {
    /// Takes the images of `config`: alone where it writes, together with other readers where it
    /// does not.
    pub fn take(config: &MachineConfig) -> Result<Self> {
        let mut files = Vec::new();
        for drive in config.floppies.iter().chain(&config.disks).flatten() {
            let path = drive.path.display();
            let file = File::open(&drive.path).with_context(|| format!("Image {path}"))?;
            let taken = if drive.read_only { file.try_lock_shared() } else { file.try_lock() };
            match taken {
                Ok(()) => files.push(file),
                Err(TryLockError::WouldBlock) => {
                    bail!(
                        "Image {path} is in use, by another VM or twice in this one: copy it, or make all uses --read-only"
                    )
                }
                // A file system without locks: nothing can be said of other users.
                Err(TryLockError::Error(error)) => tracing::debug!("Image {path} cannot be locked: {error}"),
            }
        }
        Ok(Self { _files: files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::machine::{DriveConfig, SerialBackend};

    fn machine(path: &std::path::Path, read_only: bool) -> MachineConfig {
        let drive = DriveConfig { path: path.into(), read_only, geometry: None };
        MachineConfig {
            name: "vm".into(),
            cpu: "pentium3".into(),
            engine: "interp".into(),
            ram_bytes: 1 << 20,
            firmware: "rom".into(),
            video_rom: None,
            floppies: [Some(drive), None],
            disks: [None, None, None, None],
            boot_order: Vec::new(),
            cmos: None,
            debug_console: None,
            serial: [SerialBackend::Unconnected, SerialBackend::Unconnected],
        }
    }

    #[test]
    fn an_image_has_one_writer_or_many_readers() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let writer = ImageLocks::take(&machine(image.path(), false)).unwrap();
        assert!(ImageLocks::take(&machine(image.path(), false)).is_err());
        assert!(ImageLocks::take(&machine(image.path(), true)).is_err());
        drop(writer);
        let _reader = ImageLocks::take(&machine(image.path(), true)).unwrap();
        assert!(ImageLocks::take(&machine(image.path(), true)).is_ok());
        assert!(ImageLocks::take(&machine(image.path(), false)).is_err());
    }
}
