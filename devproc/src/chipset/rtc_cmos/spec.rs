//! Registers of the MC146818 and the bytes of CMOS RAM that firmware reads; no behaviour.
//!
//! Register names are those of the Motorola MC146818 datasheet ("Address map", "Registers");
//! ports those of the 82371AB (PIIX4) datasheet, section 4.2 (real time clock registers).

use bitfield_struct::bitfield;

/// RTC index (write only) and data of the standard bank.
pub const STANDARD_BASE: u16 = 0x70;
/// Index (write only) and data of the extended bank.
pub const EXTENDED_BASE: u16 = 0x72;
/// Ports of one bank.
pub const BANK_PORTS: u16 = 2;
/// Offset of a bank's index port.
pub const INDEX_OFFSET: u64 = 0;
/// Offset of a bank's data port.
pub const DATA_OFFSET: u64 = 1;
/// Bits of the index port that are the index.
pub const INDEX_MASK: u8 = 0x7f;
/// Bit 7 of port 70h: NMI is masked.
pub const NMI_MASK: u8 = 0x80;
/// Bytes of one bank.
pub const BANK_LEN: usize = 128;
/// Bytes of both banks.
pub const CMOS_LEN: usize = 2 * BANK_LEN;
/// The interrupt line of the clock.
pub const RTC_IRQ: u8 = 8;

/// Seconds.
pub const SECONDS: u8 = 0x00;
/// Seconds alarm.
pub const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub const MINUTES: u8 = 0x02;
/// Minutes alarm.
pub const MINUTES_ALARM: u8 = 0x03;
/// Hours; in 12-hour mode bit 7 is PM.
pub const HOURS: u8 = 0x04;
/// Hours alarm.
pub const HOURS_ALARM: u8 = 0x05;
/// Day of the week, Sunday is 1.
pub const DAY_OF_WEEK: u8 = 0x06;
/// Day of the month.
pub const DAY_OF_MONTH: u8 = 0x07;
/// Month.
pub const MONTH: u8 = 0x08;
/// Year within the century.
pub const YEAR: u8 = 0x09;
/// Register A.
pub const REGISTER_A: u8 = 0x0a;
/// Register B.
pub const REGISTER_B: u8 = 0x0b;
/// Register C; read only, cleared by reading.
pub const REGISTER_C: u8 = 0x0c;
/// Register D; read only.
pub const REGISTER_D: u8 = 0x0d;

/// Bit 7 of the hours in 12-hour mode.
pub const HOURS_PM: u8 = 0x80;
/// An alarm byte with both of these bits set matches anything.
pub const ALARM_DONT_CARE: u8 = 0xc0;

/// Register A.
#[bitfield(u8)]
pub struct RegisterA {
    /// RS3-RS0: rate of the periodic interrupt, 0 for none.
    #[bits(4)]
    pub rate: u8,
    /// DV2-DV0: divider control.
    #[bits(3)]
    pub divider: u8,
    /// UIP: update in progress; read only.
    pub update_in_progress: bool,
}

/// DV = 010: the divider runs from a 32.768 kHz crystal. All others hold the clock here.
pub const DIVIDER_32_KHZ: u8 = 0b010;
/// Register A as a BIOS leaves it: divider running, 1024 Hz.
pub const REGISTER_A_DEFAULT: u8 = 0x26;

/// Register B.
#[bitfield(u8)]
pub struct RegisterB {
    /// DSE: daylight saving; kept without effect, as in the MC146818B and later.
    pub daylight_saving: bool,
    /// 24/12: hours count to 24.
    pub hours_24: bool,
    /// DM: bytes are binary, not BCD.
    pub binary: bool,
    /// SQWE: square wave output; the pin is not connected.
    pub square_wave: bool,
    /// UIE: update-ended interrupt.
    pub update_interrupt: bool,
    /// AIE: alarm interrupt.
    pub alarm_interrupt: bool,
    /// PIE: periodic interrupt.
    pub periodic_interrupt: bool,
    /// SET: updates are inhibited while the time is set.
    pub set: bool,
}

/// Register B as a BIOS leaves it: 24 hours, BCD.
pub const REGISTER_B_DEFAULT: u8 = 0x02;
/// What of register B survives RESET# and power-off: DM, 24/12 and DSE (and SET while running).
pub const REGISTER_B_FORMAT: u8 = 0b0000_0111;

/// Register C.
#[bitfield(u8)]
pub struct RegisterC {
    /// Always 0.
    #[bits(4)]
    pub zero: u8,
    /// UF: an update has ended.
    pub update: bool,
    /// AF: the time matched the alarm.
    pub alarm: bool,
    /// PF: a period has passed.
    pub periodic: bool,
    /// IRQF: an enabled flag is set; the interrupt line.
    pub interrupt: bool,
}

/// The flag bits of register C are at the places of their enable bits in register B.
pub const INTERRUPT_FLAGS: u8 = 0b0111_0000;

/// Register D: VRT, the battery never fails.
pub const REGISTER_D_VALID: u8 = 0x80;

/// Frequency of the divider's input.
pub const CRYSTAL_HZ: u64 = 32_768;
/// UIP is set this long before the time changes: 244 us ahead of an update cycle of 1984 us.
pub const UPDATE_IN_PROGRESS_NANOS: u64 = 2_228_000;
/// After the divider is released from reset, the first update comes half a second later.
pub const DIVIDER_RELEASE_NANOS: u64 = 500_000_000;

// Bytes of CMOS RAM, with who reads them.

/// What is left of the 14 clock registers: general purpose RAM starts here.
pub const FIRST_RAM_BYTE: u8 = 0x0e;
/// Shutdown status. Every BIOS, on CPU reset: why the CPU was reset.
pub const SHUTDOWN_STATUS: u8 = 0x0f;
/// Floppy drive types, A in the high nibble. SeaBIOS, Linux (`floppy.c`).
pub const FLOPPY_TYPES: u8 = 0x10;
/// Hard-disk types, drive 0 in the high nibble; Fh: see the extended type. AT BIOSes.
pub const DISK_TYPES: u8 = 0x12;
/// Equipment byte. SeaBIOS, AT BIOSes (INT 11h).
pub const EQUIPMENT: u8 = 0x14;
/// Base memory in KiB, low byte; the high byte follows. AT BIOSes, DOS diagnostics.
pub const BASE_MEMORY_LOW: u8 = 0x15;
/// Memory above 1 MiB in KiB (configured), low byte; high byte follows. AT BIOSes.
pub const EXTENDED_MEMORY_LOW: u8 = 0x17;
/// Extended type of hard disk 0. AT BIOSes.
pub const DISK_0_EXTENDED_TYPE: u8 = 0x19;
/// Extended type of hard disk 1. AT BIOSes.
pub const DISK_1_EXTENDED_TYPE: u8 = 0x1a;
/// User-defined geometry (type 47) of hard disk 0. AT BIOSes, old SeaBIOS/Bochs BIOS.
pub const DISK_0_GEOMETRY: u8 = 0x1b;
/// User-defined geometry (type 47) of hard disk 1.
pub const DISK_1_GEOMETRY: u8 = 0x24;
/// First byte that the checksum covers. AT BIOSes.
pub const CHECKSUM_FIRST: u8 = 0x10;
/// Last byte that the checksum covers.
pub const CHECKSUM_LAST: u8 = 0x2d;
/// Checksum, high byte; the low byte follows.
pub const CHECKSUM_HIGH: u8 = 0x2e;
/// Memory above 1 MiB in KiB (found), low byte; high byte follows. SeaBIOS (INT 15h AH=88h size).
pub const FOUND_MEMORY_LOW: u8 = 0x30;
/// Century, always in BCD. SeaBIOS (INT 1Ah), Linux by way of the FADT.
pub const CENTURY: u8 = 0x32;
/// Memory above 16 MiB in 64 KiB blocks, low byte; high byte follows. SeaBIOS (RAM below 4 GiB).
pub const MEMORY_ABOVE_16M_LOW: u8 = 0x34;
/// Boot device 3 in the high nibble; bit 0 skips the floppy signature check. SeaBIOS.
pub const BOOT_FLAGS_1: u8 = 0x38;
/// Translation of hard disks 0-3, two bits each. SeaBIOS.
pub const DISK_TRANSLATION: u8 = 0x39;
/// Boot device 1 in the low nibble, boot device 2 in the high nibble. SeaBIOS.
pub const BOOT_FLAGS_2: u8 = 0x3d;
/// Memory above 4 GiB in 64 KiB blocks, low byte; two more follow. SeaBIOS.
pub const MEMORY_ABOVE_4G_LOW: u8 = 0x5b;
/// Processors minus one. SeaBIOS.
pub const EXTRA_PROCESSORS: u8 = 0x5f;

/// Equipment: a floppy drive is installed.
pub const EQUIPMENT_FLOPPY: u8 = 1 << 0;
/// Equipment: a coprocessor is installed.
pub const EQUIPMENT_FPU: u8 = 1 << 1;
/// Equipment: a PS/2 mouse is installed.
pub const EQUIPMENT_MOUSE: u8 = 1 << 2;
/// Equipment: floppy drives minus one. Bits 5-4 stay 0: a display adapter with its own BIOS.
pub const EQUIPMENT_FLOPPY_COUNT_SHIFT: u8 = 6;
/// Equipment bits about floppy drives.
pub const EQUIPMENT_FLOPPY_BITS: u8 = 0b1100_0001;

/// Hard-disk type nibble: see the extended type byte.
pub const DISK_TYPE_EXTENDED: u8 = 0xf;
/// Extended hard-disk type: user defined.
pub const DISK_TYPE_USER: u8 = 47;
/// Control byte of a geometry: no retries on errors and ECC.
pub const DISK_CONTROL_NO_RETRY: u8 = 0xc0;
/// Control byte of a geometry: more than eight heads.
pub const DISK_CONTROL_MANY_HEADS: u8 = 0x08;
/// Write precompensation "none".
pub const DISK_NO_PRECOMPENSATION: u16 = 0xffff;
/// Cylinders that the BIOS interface reaches without translation.
pub const UNTRANSLATED_CYLINDERS: u16 = 1024;
/// Translation: none.
pub const TRANSLATION_NONE: u8 = 0;
/// Translation: LBA-assisted.
pub const TRANSLATION_LBA: u8 = 1;

/// Boot device code: none.
pub const BOOT_NONE: u8 = 0;
/// Boot device code: floppy.
pub const BOOT_FLOPPY: u8 = 1;
/// Boot device code: hard disk.
pub const BOOT_DISK: u8 = 2;
/// Boot flags 1 bit 0: boot floppies without the 55AAh signature too (plain DOS disks).
pub const BOOT_SKIP_FLOPPY_SIGNATURE: u8 = 1;
