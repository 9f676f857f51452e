//! What a set-up program would store in CMOS RAM about the machine: memory, drives, boot order.

use super::RtcCmos;
use super::spec::{
    BASE_MEMORY_LOW, BOOT_DISK, BOOT_FLAGS_1, BOOT_FLAGS_2, BOOT_FLOPPY, BOOT_NONE,
    BOOT_SKIP_FLOPPY_SIGNATURE, CHECKSUM_FIRST, CHECKSUM_HIGH, CHECKSUM_LAST, DISK_0_EXTENDED_TYPE,
    DISK_0_GEOMETRY, DISK_1_EXTENDED_TYPE, DISK_1_GEOMETRY, DISK_CONTROL_MANY_HEADS, DISK_CONTROL_NO_RETRY,
    DISK_NO_PRECOMPENSATION, DISK_TRANSLATION, DISK_TYPE_EXTENDED, DISK_TYPE_USER, DISK_TYPES, EQUIPMENT,
    EQUIPMENT_FLOPPY, EQUIPMENT_FLOPPY_BITS, EQUIPMENT_FLOPPY_COUNT_SHIFT, EQUIPMENT_FPU, EQUIPMENT_MOUSE,
    EXTENDED_MEMORY_LOW, EXTRA_PROCESSORS, FLOPPY_TYPES, FOUND_MEMORY_LOW, MEMORY_ABOVE_4G_LOW,
    MEMORY_ABOVE_16M_LOW, TRANSLATION_LBA, TRANSLATION_NONE, UNTRANSLATED_CYLINDERS,
};
use ipc::machine::{BootDevice, Geometry};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// RAM below this is counted in KiB above 1 MiB, RAM above it in blocks of 64 KiB.
const EXTENDED_MEMORY_END: u64 = 64 * MIB;
const BLOCK: u64 = 64 * KIB;
const BASE_MEMORY_KIB: u16 = 640;

/// A floppy drive, by its code in CMOS RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FloppyType {
    /// No drive.
    #[default]
    None = 0,
    /// 5.25 inch, 360 KB.
    Inch5Kb360 = 1,
    /// 5.25 inch, 1.2 MB.
    Inch5Mb12 = 2,
    /// 3.5 inch, 720 KB.
    Inch3Kb720 = 3,
    /// 3.5 inch, 1.44 MB.
    Inch3Mb144 = 4,
    /// 3.5 inch, 2.88 MB.
    Inch3Mb288 = 5,
}

impl RtcCmos {
    /// Stores how much RAM there is, all of it from address 0 up, as far as it lies below 4 GiB.
    pub fn set_memory_size(&mut self, ram_bytes: u64) {
        let above_1m = (ram_bytes.min(EXTENDED_MEMORY_END).saturating_sub(MIB) / KIB) as u16;
        let above_16m = (ram_bytes.min(4 * GIB).saturating_sub(16 * MIB) / BLOCK) as u16;
        let above_4g = (ram_bytes.saturating_sub(4 * GIB) / BLOCK).to_le_bytes();
        self.store_word(BASE_MEMORY_LOW, (ram_bytes / KIB).min(BASE_MEMORY_KIB.into()) as u16);
        self.store_word(EXTENDED_MEMORY_LOW, above_1m);
        self.store_word(FOUND_MEMORY_LOW, above_1m);
        self.store_word(MEMORY_ABOVE_16M_LOW, above_16m);
        for (register, byte) in (MEMORY_ABOVE_4G_LOW..).zip(above_4g).take(3) {
            self.store(register, byte);
        }
        self.store_checksum();
    }

    /// Stores the types of floppy drives A and B, and the equipment byte that goes with them.
    pub fn set_floppies(&mut self, types: [FloppyType; 2]) {
        let [a, b] = types;
        self.store(FLOPPY_TYPES, (a as u8) << 4 | b as u8);
        let drives = types.iter().filter(|drive| **drive != FloppyType::None).count() as u8;
        let floppies = match drives.checked_sub(1) {
            Some(more) => EQUIPMENT_FLOPPY | more << EQUIPMENT_FLOPPY_COUNT_SHIFT,
            None => 0,
        };
        let others = self.stored(EQUIPMENT) & !EQUIPMENT_FLOPPY_BITS;
        self.store(EQUIPMENT, others | floppies | EQUIPMENT_FPU | EQUIPMENT_MOUSE);
        self.store_checksum();
    }

    /// Stores where the firmware looks for an operating system; the first three count.
    pub fn set_boot_order(&mut self, order: &[BootDevice]) {
        let code = |place: usize| match order.get(place) {
            Some(BootDevice::Floppy) => BOOT_FLOPPY,
            Some(BootDevice::Disk) => BOOT_DISK,
            None => BOOT_NONE,
        };
        self.store(BOOT_FLAGS_2, code(1) << 4 | code(0));
        self.store(BOOT_FLAGS_1, code(2) << 4 | BOOT_SKIP_FLOPPY_SIGNATURE);
    }

    /// Stores the geometry of IDE drives (primary master, primary slave, secondary master and
    /// slave) that are hard disks; `None` for no drive or a CD-ROM.
    pub fn set_disks(&mut self, disks: [Option<Geometry>; 4]) {
        let [first, second, ..] = disks;
        let nibble = |disk: Option<Geometry>| if disk.is_some() { DISK_TYPE_EXTENDED } else { 0 };
        self.store(DISK_TYPES, nibble(first) << 4 | nibble(second));
        self.store_disk(DISK_0_EXTENDED_TYPE, DISK_0_GEOMETRY, first);
        self.store_disk(DISK_1_EXTENDED_TYPE, DISK_1_GEOMETRY, second);
        let translation = |disk: &Option<Geometry>| match disk {
            Some(geometry) if geometry.cylinders > UNTRANSLATED_CYLINDERS => TRANSLATION_LBA,
            _ => TRANSLATION_NONE,
        };
        let translations =
            disks.iter().enumerate().fold(0, |byte, (i, disk)| byte | translation(disk) << (2 * i));
        self.store(DISK_TRANSLATION, translations);
        self.store_checksum();
    }

    /// Stores how many processors there are.
    pub fn set_processors(&mut self, processors: u8) {
        self.store(EXTRA_PROCESSORS, processors.saturating_sub(1));
    }

    fn store_disk(&mut self, extended_type: u8, first: u8, disk: Option<Geometry>) {
        self.store(extended_type, if disk.is_some() { DISK_TYPE_USER } else { 0 });
        let mut bytes = [0; 9];
        if let Some(Geometry { cylinders, heads, sectors }) = disk {
            let [cylinders_low, cylinders_high] = cylinders.to_le_bytes();
            let [precompensation_low, precompensation_high] = DISK_NO_PRECOMPENSATION.to_le_bytes();
            let many = if heads > 8 { DISK_CONTROL_MANY_HEADS } else { 0 };
            bytes = [
                cylinders_low,
                cylinders_high,
                heads,
                precompensation_low,
                precompensation_high,
                DISK_CONTROL_NO_RETRY | many,
                // Landing zone: the last cylinder, as set-up programs say.
                cylinders_low,
                cylinders_high,
                sectors,
            ];
        }
        for (register, byte) in (first..).zip(bytes) {
            self.store(register, byte);
        }
    }

    fn store_word(&mut self, register: u8, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.store(register, low);
        self.store(register + 1, high);
    }

    fn store_checksum(&mut self) {
        let sum =
            (CHECKSUM_FIRST..=CHECKSUM_LAST).fold(0u16, |sum, at| sum.wrapping_add(self.stored(at).into()));
        let [low, high] = sum.to_le_bytes();
        self.store(CHECKSUM_HIGH, high);
        self.store(CHECKSUM_HIGH + 1, low);
    }
}
