//! What a PC's setup program would have written into CMOS RAM.
//!
//! SeaBIOS has no setup program and does not size memory on a virtual PC: it reads both from
//! CMOS RAM, as do DOS programs. So the cells that describe hardware are written anew each time
//! the machine is built; all others keep what the CMOS file says.
//!
//! Source: IBM PC AT Technical Reference, "Real-time clock / CMOS RAM"; the cells from 34h on
//! are conventions that QEMU and SeaBIOS share (`hw/rtc.h` of SeaBIOS names them).

use ipc::machine::{BootDevice, DriveConfig, MachineConfig};

/// Bytes of CMOS RAM, both banks.
pub const CMOS_LEN: usize = 256;

/// Shutdown status: how the BIOS goes on after a CPU reset; 0 is a cold boot.
const SHUTDOWN_STATUS: usize = 0x0f;
/// Types of floppy drive A (high nibble) and B.
const FLOPPY_TYPES: usize = 0x10;
/// Types of fixed disk C (high nibble) and D; Fh refers to the extended types.
const DISK_TYPES: usize = 0x12;
/// Equipment byte.
const EQUIPMENT: usize = 0x14;
/// Base memory in KiB, 16 bits.
const BASE_MEMORY: usize = 0x15;
/// Extended memory in KiB as configured, 16 bits.
const EXTENDED_MEMORY: usize = 0x17;
/// Extended types of fixed disk C and D.
const EXTENDED_DISK_TYPES: usize = 0x19;
/// Sum of the bytes from [`CHECKSUM_FIRST`] to [`CHECKSUM_LAST`], high byte first.
const CHECKSUM: usize = 0x2e;
const CHECKSUM_FIRST: usize = 0x10;
const CHECKSUM_LAST: usize = 0x2d;
/// Extended memory in KiB as found, 16 bits.
const EXTENDED_MEMORY_FOUND: usize = 0x30;
/// Memory above 16 MiB in units of 64 KiB, 16 bits.
const MEMORY_ABOVE_16M: usize = 0x34;
/// Third boot device (high nibble); bit 0: do not check floppies for a signature.
const BOOT_FLAGS_1: usize = 0x38;
/// Translation of each IDE disk, two bits each.
const DISK_TRANSLATION: usize = 0x39;
/// First (low nibble) and second boot device.
const BOOT_FLAGS_2: usize = 0x3d;
/// Memory above 4 GiB in units of 64 KiB, 24 bits.
const MEMORY_ABOVE_4G: usize = 0x5b;
/// Processors less one.
const SMP_COUNT: usize = 0x5f;

const EQUIPMENT_FLOPPY: u8 = 1 << 0;
const EQUIPMENT_FPU: u8 = 1 << 1;
const EQUIPMENT_MOUSE: u8 = 1 << 2;
const EQUIPMENT_SECOND_FLOPPY: u8 = 1 << 6;

const DISK_TYPE_EXTENDED: u8 = 0xf;
const DISK_TYPE_USER: u8 = 47;

const BOOT_FLOPPY: u8 = 1;
const BOOT_DISK: u8 = 2;

const TRANSLATION_NONE: u8 = 0;
const TRANSLATION_LBA: u8 = 1;
/// Cylinders that the INT 13h interface can name.
const INT13_CYLINDERS: u16 = 1024;
/// The largest disk that it can name without translation: 1024 * 16 * 63 sectors.
const INT13_BYTES: u64 = 1024 * 16 * 63 * 512;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Writes the description of `config` into `cmos`.
pub fn describe_machine(cmos: &mut [u8; CMOS_LEN], config: &MachineConfig) {
    cmos[SHUTDOWN_STATUS] = 0;
    describe_memory(cmos, config.ram_bytes);
    describe_drives(cmos, config);
    let boot = |place: usize| match config.boot_order.get(place) {
        Some(BootDevice::Floppy) => BOOT_FLOPPY,
        Some(BootDevice::Disk) => BOOT_DISK,
        None => 0,
    };
    cmos[BOOT_FLAGS_2] = boot(0) | boot(1) << 4;
    cmos[BOOT_FLAGS_1] = 0;
    cmos[SMP_COUNT] = 0;
    let sum: u16 = cmos[CHECKSUM_FIRST..=CHECKSUM_LAST].iter().map(|byte| u16::from(*byte)).sum();
    cmos[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

fn describe_memory(cmos: &mut [u8; CMOS_LEN], ram_bytes: u64) {
    let mut put = |at: usize, value: u64| {
        let value = value.min(u64::from(u16::MAX)) as u16;
        cmos[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    put(BASE_MEMORY, 640);
    let extended = ram_bytes.saturating_sub(MIB) / KIB;
    put(EXTENDED_MEMORY, extended);
    put(EXTENDED_MEMORY_FOUND, extended);
    put(MEMORY_ABOVE_16M, ram_bytes.saturating_sub(16 * MIB) / (64 * KIB));
    // RAM ends below 4 GiB.
    put(MEMORY_ABOVE_4G, 0);
    cmos[MEMORY_ABOVE_4G + 2] = 0;
}

fn describe_drives(cmos: &mut [u8; CMOS_LEN], config: &MachineConfig) {
    let [a, b] = config.floppies.each_ref().map(|drive| drive.as_ref().map_or(0, floppy_type));
    cmos[FLOPPY_TYPES] = a << 4 | b;
    let mut equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE;
    if a != 0 {
        equipment |= EQUIPMENT_FLOPPY;
    }
    if b != 0 {
        equipment |= EQUIPMENT_FLOPPY | EQUIPMENT_SECOND_FLOPPY;
    }
    cmos[EQUIPMENT] = equipment;
    let mut types = 0;
    for (disk, shift) in [(0, 4), (1, 0)] {
        let present = config.disks[disk].is_some();
        types |= if present { DISK_TYPE_EXTENDED << shift } else { 0 };
        cmos[EXTENDED_DISK_TYPES + disk] = if present { DISK_TYPE_USER } else { 0 };
    }
    cmos[DISK_TYPES] = types;
    cmos[DISK_TRANSLATION] = config
        .disks
        .iter()
        .enumerate()
        .map(|(disk, drive)| drive.as_ref().map_or(TRANSLATION_NONE, translation) << (2 * disk))
        .fold(0, |all, one| all | one);
}

/// The CMOS type of a drive that takes the image. SeaBIOS takes the geometry from it.
fn floppy_type(drive: &DriveConfig) -> u8 {
    const TYPES: [(u64, u8); 8] =
        [(160, 6), (180, 7), (320, 8), (360, 1), (720, 3), (1200, 2), (1440, 4), (2880, 5)];
    const TYPE_1440K: u8 = 4;
    let len = image_len(drive);
    TYPES.iter().find(|(kib, _)| len == Some(kib * KIB)).map_or(TYPE_1440K, |(_, kind)| *kind)
}

fn translation(drive: &DriveConfig) -> u8 {
    let small = match drive.geometry {
        Some(geometry) => geometry.cylinders <= INT13_CYLINDERS,
        None => image_len(drive).is_some_and(|len| len <= INT13_BYTES),
    };
    if small { TRANSLATION_NONE } else { TRANSLATION_LBA }
}

fn image_len(drive: &DriveConfig) -> Option<u64> {
    match std::fs::metadata(&drive.path) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) => {
            // The storage process opens the image and says what is wrong; here it is a guess less.
            tracing::warn!("Cannot tell the size of {}: {error}", drive.path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::machine::{Geometry, SerialBackend};
    use std::path::PathBuf;

    fn config(ram_bytes: u64) -> MachineConfig {
        MachineConfig {
            name: "test".into(),
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

    fn described(config: &MachineConfig) -> [u8; CMOS_LEN] {
        let mut cmos = [0xee; CMOS_LEN];
        describe_machine(&mut cmos, config);
        cmos
    }

    /// The formula of SeaBIOS's `qemu_preinit`.
    fn seabios_ram_size(cmos: &[u8; CMOS_LEN]) -> u64 {
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
    fn other_cells_are_kept_and_the_checksum_is_right() {
        let cmos = described(&config(64 * MIB));
        assert_eq!((cmos[0x11], cmos[0x40], cmos[0xff]), (0xee, 0xee, 0xee));
        assert_eq!(cmos[0x0f], 0);
        let sum: u16 = cmos[0x10..=0x2d].iter().map(|b| u16::from(*b)).sum();
        assert_eq!([cmos[0x2e], cmos[0x2f]], sum.to_be_bytes());
        assert_eq!(cmos[0x3d], 0x21);
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
        assert_eq!((described(&config)[0x10], described(&config)[0x14]), (0, 0x06));
        config.floppies = [drive("a", 1440 * KIB, None), drive("b", 360 * KIB, None)];
        let many = Geometry { cylinders: 2000, heads: 16, sectors: 63 };
        config.disks =
            [drive("c", 100 * MIB, None), drive("d", 600 * MIB, None), None, drive("e", MIB, Some(many))];
        let cmos = described(&config);
        assert_eq!(cmos[0x10], 0x41);
        assert_eq!(cmos[0x14], 0x47);
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
