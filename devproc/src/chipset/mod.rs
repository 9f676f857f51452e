//! The models of the chipset process: host bridge, south bridge and the motherboard's devices.

pub mod cmos_file;
pub mod cmos_setup;
pub mod debug_ports;
pub mod dma_8237;
pub mod fw_cfg;
pub mod i440fx;
pub mod pic_8259;
pub mod piix4_isa;
pub mod piix4_pm;
pub mod pit_8254;
pub mod rtc_cmos;
pub mod uart_16550;

use crate::device::Device;
use crate::outside::Outside;
use cmos_file::{CmosFile, KeptCmos};
use ipc::machine::{MachineConfig, SerialBackend};
use rtc_cmos::RtcCmos;
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use uart_16550::{FileSink, NullSink, SerialPort, Uart};

/// Why the chipset of a machine cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The firmware image cannot be read.
    #[error("Cannot read the firmware {}; check the path in the machine's description", path.display())]
    ReadFirmware {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The firmware image is not one.
    #[error("{} is not a firmware image; take one such as SeaBIOS's bios-256k.bin", path.display())]
    Firmware {
        /// The image.
        path: PathBuf,
        /// Why.
        source: i440fx::FirmwareSizeError,
    },
    /// The CMOS file cannot be used.
    #[error("Cannot use the CMOS file {}; make it writable, or remove it for a new one", path.display())]
    Cmos {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Serial output cannot be written.
    #[error("Cannot open {} for the output of {port}; name a file in a folder that can be written", path.display())]
    Serial {
        /// "COM1" or "COM2".
        port: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine cannot be described to its firmware.
    #[error("Cannot describe the machine to its firmware")]
    FwCfg(#[from] fw_cfg::ItemsError),
}

/// Builds the models of the chipset process for `config`. The real-time clock starts at
/// `now_unix_seconds`.
///
/// # Errors
/// When a file that `config` names cannot be used.
pub fn models(
    config: &MachineConfig,
    now_unix_seconds: u64,
    outside: &Outside,
) -> Result<Vec<Box<dyn Device>>, BuildError> {
    let firmware = outside
        .read_file(&config.firmware)
        .map_err(|source| BuildError::ReadFirmware { path: config.firmware.clone(), source })?;
    let bridge = i440fx::I440fx::new(config.ram_bytes, firmware)
        .map_err(|source| BuildError::Firmware { path: config.firmware.clone(), source })?;
    let mut models: Vec<Box<dyn Device>> = vec![
        Box::new(bridge),
        Box::new(piix4_isa::Piix4Isa::new()),
        Box::new(piix4_pm::Piix4Pm::new()),
        Box::new(fw_cfg::FwCfg::new(fw_cfg::standard_items(config))?),
        Box::new(debug_ports::DebugPorts::new()),
        Box::new(pic_8259::Pic::new()),
        Box::new(pit_8254::Pit::new()),
        Box::new(dma_8237::Dma::new()),
        real_time_clock(config, now_unix_seconds, outside)?,
    ];
    let ports = [(SerialPort::Com1, "COM1"), (SerialPort::Com2, "COM2")];
    for ((port, label), backend) in ports.into_iter().zip(&config.serial) {
        if let Some(uart) = uart(port, label, backend)? {
            models.push(Box::new(uart));
        }
    }
    Ok(models)
}

/// The clock, with the machine described in its CMOS RAM, which is kept in a file if there is one.
fn real_time_clock(
    config: &MachineConfig,
    now_unix_seconds: u64,
    outside: &Outside,
) -> Result<Box<dyn Device>, BuildError> {
    let now = i64::try_from(now_unix_seconds).unwrap_or(i64::MAX);
    let clock = |kept| {
        let mut rtc = RtcCmos::new(now, kept);
        cmos_setup::describe_machine(&mut rtc, config, outside);
        rtc
    };
    let Some(path) = &config.cmos else { return Ok(Box::new(clock(None))) };
    let unusable = |source| BuildError::Cmos { path: path.clone(), source };
    let file = CmosFile::open(path).map_err(unusable)?;
    let kept = file.read().map_err(unusable)?;
    Ok(Box::new(KeptCmos::new(clock(kept), file)))
}

/// A serial port; `None` when the machine has no such port.
fn uart(port: SerialPort, label: &'static str, backend: &SerialBackend) -> Result<Option<Uart>, BuildError> {
    Ok(match backend {
        SerialBackend::Absent => None,
        SerialBackend::Unconnected => Some(Uart::new(port, Box::new(NullSink))),
        SerialBackend::File(path) => {
            let sink = FileSink::open(path).map_err(|source| BuildError::Serial {
                port: label,
                path: path.clone(),
                source,
            })?;
            Some(Uart::new(port, Box::new(sink)))
        }
        SerialBackend::Socket(_) | SerialBackend::Pty(_) => Some(Uart::with_cable(port)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn config(dir: &Path) -> MachineConfig {
        let firmware = dir.join("bios.bin");
        std::fs::write(&firmware, vec![0xf4; 128 << 10]).unwrap();
        MachineConfig {
            name: "test".into(),
            cpu: "pentium3".into(),
            engine: "interp".into(),
            ram_bytes: 64 << 20,
            firmware,
            video_rom: None,
            floppies: [None, None],
            disks: [None, None, None, None],
            boot_order: Vec::new(),
            cmos: Some(dir.join("cmos.bin")),
            debug_console: None,
            serial: [SerialBackend::File(dir.join("com1.log")), SerialBackend::Absent],
        }
    }

    fn error(config: &MachineConfig) -> String {
        models(config, 0, &Outside::live()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn models_have_unique_names_addresses_and_ports() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.serial[1] = SerialBackend::Unconnected;
        let models = models(&config, 0, &Outside::live()).unwrap();
        let names: BTreeSet<_> = models.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), models.len());
        assert!(names.iter().all(|name| name.len() <= 15));
        let functions: Vec<_> = models.iter().filter_map(|m| m.pci_address()).collect();
        assert_eq!(functions.iter().collect::<BTreeSet<_>>().len(), functions.len());
        let regions: Vec<_> = models.iter().flat_map(|m| m.regions()).filter(|r| r.enabled).collect();
        for (i, a) in regions.iter().enumerate() {
            for b in &regions[..i] {
                let apart = a.space != b.space || a.base + a.len <= b.base || b.base + b.len <= a.base;
                assert!(apart, "{} and {} overlap", a.name, b.name);
            }
        }
    }

    #[test]
    fn an_absent_serial_port_has_no_model() {
        let dir = tempfile::tempdir().unwrap();
        let models = models(&config(dir.path()), 0, &Outside::live()).unwrap();
        assert!(models.iter().any(|m| m.name() == "com1"));
        assert!(models.iter().all(|m| m.name() != "com2"));
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let good = config(dir.path());
        let mut missing = good.clone();
        missing.firmware = dir.path().join("no.bin");
        assert!(error(&missing).contains("no.bin"));
        std::fs::write(dir.path().join("cmos.bin"), [0; 128]).unwrap();
        assert!(error(&good).contains("cmos.bin; make it writable, or remove it"));
        let mut serial = good;
        serial.cmos = None;
        serial.serial[0] = SerialBackend::File(dir.path().to_owned());
        assert!(error(&serial).contains("COM1"));
    }
}
