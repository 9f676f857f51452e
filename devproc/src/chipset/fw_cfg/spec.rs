//! Ports, keys and formats of QEMU's firmware configuration device, named as in its
//! specification ("QEMU Firmware Configuration (fw_cfg) Device") and in SeaBIOS.

/// Selector (16 bits, write) and, one higher, data (8 bits, read).
pub const SELECTOR_PORT: u16 = 0x510;
/// Ports of the region: selector low byte, selector high byte and data in one.
pub const PORT_COUNT: u16 = 2;
/// Offset of the data port.
pub const DATA_OFFSET: u64 = 1;

/// Selector bit 14: meant for writing through the interface; the key is the rest.
pub const WRITE_CHANNEL: u16 = 1 << 14;

/// Four bytes by which the device is found.
pub const KEY_SIGNATURE: u16 = 0x00;
/// What [`KEY_SIGNATURE`] holds.
pub const SIGNATURE: &[u8] = b"QEMU";
/// Feature bits, 32 bits.
pub const KEY_ID: u16 = 0x01;
/// Bit 0 of [`KEY_ID`]: selector and data port. Bit 1 (DMA) is clear: not offered.
pub const ID_TRADITIONAL: u32 = 1 << 0;
/// RAM size in bytes, 64 bits.
pub const KEY_RAM_SIZE: u16 = 0x03;
/// Whether there is no display, 16 bits.
pub const KEY_NOGRAPHIC: u16 = 0x04;
/// Processors present, 16 bits.
pub const KEY_NB_CPUS: u16 = 0x05;
/// Whether to offer the boot menu, 16 bits.
pub const KEY_BOOT_MENU: u16 = 0x0e;
/// Processors that may be present, 16 bits.
pub const KEY_MAX_CPUS: u16 = 0x0f;
/// Directory of the files.
pub const KEY_FILE_DIR: u16 = 0x19;
/// Key of the first file.
pub const KEY_FILE_FIRST: u16 = 0x20;
/// How many files fit between [`KEY_FILE_FIRST`] and [`WRITE_CHANNEL`].
pub const FILE_SLOTS: usize = (WRITE_CHANNEL - KEY_FILE_FIRST) as usize;
/// First key of the processor architecture.
pub const KEY_ARCH_LOCAL: u16 = 0x8000;
/// Whether IRQ0 is wired to pin 2 of the I/O APIC, 32 bits.
pub const KEY_IRQ0_OVERRIDE: u16 = KEY_ARCH_LOCAL + 2;

/// Bytes of a name in the directory, with its terminating zero.
pub const FILE_NAME_LEN: usize = 56;

/// `etc/e820`: usable memory.
pub const E820_RAM: u32 = 1;

/// `etc/system-states`: one byte for each of S0 to S5; bit 7 says available, bits 6-0 are the
/// SLP_TYP value. S3 and S4 are not available: the machine has no suspend of its own.
pub const SYSTEM_STATES: [u8; 6] = [0x80, 0x00, 0x00, 0x01, 0x02, 0x80];
/// `etc/boot-fail-wait`: milliseconds before a reboot when nothing boots; negative: stay.
pub const BOOT_FAIL_STAY: i32 = -1;
