//! The models of the gpu process: VGA with Bochs VBE extensions.

mod vbe;
mod vga;

use crate::device::Device;
use crate::outside::Outside;
use ipc::machine::MachineConfig;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the models of the gpu process could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The option ROM could not be read.
    #[error("Cannot read the video ROM {}", path.display())]
    ReadRom {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The option ROM does not fit the adapter.
    #[error("Video ROM {} has {len} bytes; the adapter takes 1 to {}", path.display(), vbe::spec::ROM_LEN)]
    RomLength {
        /// Its file.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
}

/// Builds the models that the gpu process runs.
///
/// # Errors
/// [`BuildError`] when the option ROM cannot be used.
pub fn models(config: &MachineConfig, outside: &Outside) -> Result<Vec<Box<dyn Device>>, BuildError> {
    let rom = config.video_rom.as_deref().map(|path| read_rom(path, outside)).transpose()?;
    Ok(vec![Box::new(vga::Vga::new(rom))])
}

fn read_rom(path: &Path, outside: &Outside) -> Result<Vec<u8>, BuildError> {
    let rom =
        outside.read_file(path).map_err(|source| BuildError::ReadRom { path: path.to_owned(), source })?;
    if (1..=vbe::spec::ROM_LEN).contains(&rom.len()) {
        Ok(rom)
    } else {
        Err(BuildError::RomLength { path: path.to_owned(), len: rom.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::machine::SerialBackend;
    use std::fs;

    fn config(video_rom: Option<PathBuf>) -> MachineConfig {
        MachineConfig {
            name: "test".to_owned(),
            cpu: "pentium3".into(),
            engine: "interp".into(),
            ram_bytes: 1 << 20,
            firmware: PathBuf::new(),
            video_rom,
            floppies: [None, None],
            disks: [None, None, None, None],
            boot_order: Vec::new(),
            cmos: None,
            debug_console: None,
            serial: [SerialBackend::Absent, SerialBackend::Absent],
        }
    }

    #[test]
    fn a_rom_that_cannot_be_used_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.bin");
        let too_long = dir.path().join("too-long.bin");
        fs::write(&too_long, vec![0; vbe::spec::ROM_LEN + 1]).unwrap();
        for path in [missing, too_long] {
            let error =
                models(&config(Some(path.clone())), &Outside::live()).err().expect("the file cannot be used");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_adapter_is_built_with_and_without_a_rom() {
        let dir = tempfile::tempdir().unwrap();
        let rom = dir.path().join("vgabios.bin");
        fs::write(&rom, [0x55, 0xaa, 1]).unwrap();
        for rom in [None, Some(rom)] {
            let models = models(&config(rom), &Outside::live()).unwrap();
            assert_eq!(models.len(), 1);
            assert_eq!(models[0].pci_address(), Some(crate::pci::PciAddress::bus0(2, 0)));
        }
    }
}
