//! Fills in CMOS RAM what a PC's set-up program would have stored about the machine.
//!
//! SeaBIOS has no set-up program and does not size memory on a virtual PC: it takes both from
//! CMOS RAM. So the cells that describe hardware are stored anew each time the machine is
//! built; all others keep what the CMOS file says.

use super::rtc_cmos::{FloppyType, RtcCmos};
use crate::outside::Outside;
use ipc::machine::{DriveConfig, Geometry, MachineConfig};

const KIB: u64 = 1 << 10;
const SECTOR: u64 = 512;
/// Geometry that drives of the time report beyond what cylinders, heads and sectors can say:
/// 16383 * 16 * 63 (ATA-4, section 6.2).
const MAX_CYLINDERS: u64 = 16_383;
const HEADS: u8 = 16;
const SECTORS: u8 = 63;

/// Stores the description of `config` in the CMOS RAM of `rtc`.
pub fn describe_machine(rtc: &mut RtcCmos, config: &MachineConfig, outside: &Outside) {
    rtc.set_memory_size(config.ram_bytes);
    let floppy = |drive: &Option<DriveConfig>| {
        drive.as_ref().map_or(FloppyType::None, |drive| floppy_type(drive, outside))
    };
    rtc.set_floppies(config.floppies.each_ref().map(floppy));
    let disk = |drive: &Option<DriveConfig>| drive.as_ref().map(|drive| geometry(drive, outside));
    rtc.set_disks(config.disks.each_ref().map(disk));
    rtc.set_boot_order(&config.boot_order);
    rtc.set_processors(1);
}

/// The drive that takes the image. Firmware knows only these formats from the drive's type;
/// smaller ones are read by drives of their size, and others, up to 1.72 MB, by 1.44 MB drives.
fn floppy_type(drive: &DriveConfig, outside: &Outside) -> FloppyType {
    match image_len(drive, outside).map(|len| len.div_ceil(KIB)) {
        Some(160 | 180 | 320 | 360) => FloppyType::Inch5Kb360,
        Some(720) => FloppyType::Inch3Kb720,
        Some(1200) => FloppyType::Inch5Mb12,
        Some(2880) => FloppyType::Inch3Mb288,
        _ => FloppyType::Inch3Mb144,
    }
}

fn geometry(drive: &DriveConfig, outside: &Outside) -> Geometry {
    drive.geometry.unwrap_or_else(|| {
        let cylinder = u64::from(HEADS) * u64::from(SECTORS) * SECTOR;
        let cylinders = (image_len(drive, outside).unwrap_or(0) / cylinder).clamp(1, MAX_CYLINDERS);
        Geometry { cylinders: cylinders as u16, heads: HEADS, sectors: SECTORS }
    })
}

fn image_len(drive: &DriveConfig, outside: &Outside) -> Option<u64> {
    match outside.file_len(&drive.path) {
        Ok(len) => Some(len),
        Err(error) => {
            // The storage process opens the image and says what is wrong with it.
            tracing::warn!("Cannot tell the size of {}: {error}", drive.path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::machine::{BootDevice, SerialBackend};
    use std::path::PathBuf;

    const MIB: u64 = 1 << 20;

    fn config(ram_bytes: u64) -> MachineConfig {
        MachineConfig {
            name: "test".into(),
            cpu: "pentium3".into(),
            engine: "interp".into(),
            ram_bytes,
            firmware: PathBuf::new(),
            video_rom: None,
            floppies: [None, None],
            disks: [None, None, None, None],
            boot_order: vec![BootDevice::Floppy, BootDevice::Disk],
            cmos: None,
            debug_console: None,
            serial: [SerialBackend::Absent, SerialBackend::Absent],
        }
    }

    fn described(config: &MachineConfig) -> [u8; 256] {
        let mut rtc = RtcCmos::new(0, Some([0; 256]));
        describe_machine(&mut rtc, config, &Outside::live());
        rtc.image()
    }

    /// The formula of SeaBIOS's `qemu_preinit`.
    fn seabios_ram_size(cmos: &[u8; 256]) -> u64 {
        let word = |at: usize| u64::from(u16::from_le_bytes([cmos[at], cmos[at + 1]]));
        match word(0x34) << 16 {
            0 => (word(0x30) << 10) + MIB,
            above => above + 16 * MIB,
        }
    }

    #[test]
    fn seabios_computes_the_ram_size_from_it() {
        for mib in [1, 2, 8, 16, 17, 64, 128, 2048] {
            assert_eq!(seabios_ram_size(&described(&config(mib * MIB))), mib * MIB, "{mib} MiB");
        }
    }

    #[test]
    fn drives_are_described_by_their_images() {
        let dir = tempfile::tempdir().unwrap();
        let drive = |name: &str, len: u64, geometry| {
            let path = dir.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(len).unwrap();
            Some(DriveConfig { path, read_only: false, geometry })
        };
        let mut config = config(64 * MIB);
        assert_eq!((described(&config)[0x10], described(&config)[0x14] & 1), (0, 0));
        config.floppies = [drive("a", 1440 * KIB, None), drive("b", 360 * KIB, None)];
        let many = Geometry { cylinders: 2000, heads: 16, sectors: 63 };
        config.disks =
            [drive("c", 100 * MIB, None), drive("d", 600 * MIB, None), None, drive("e", MIB, Some(many))];
        let cmos = described(&config);
        assert_eq!(cmos[0x10], 0x41);
        assert_eq!(cmos[0x14] & 0xc1, 0x41);
        assert_eq!((cmos[0x12], cmos[0x19], cmos[0x1a]), (0xff, 47, 47));
        assert_eq!(cmos[0x39], 0b01_00_01_00);
    }

    #[test]
    fn a_missing_image_counts_as_the_usual_drive() {
        let mut config = config(64 * MIB);
        let drive = DriveConfig { path: "/nonexistent/image".into(), read_only: false, geometry: None };
        config.floppies[0] = Some(drive);
        assert_eq!(described(&config)[0x10], 0x40);
    }
}
