//! Registers, commands and bits of ATA-4 (and the 48-bit addresses of ATA-6) and of function 1
//! of the 82371AB (PIIX4), with the names of the documents.

/// Offsets in the command block (ATA-4 section 7.2).
pub mod reg {
    /// Data, 16 or 32 bits.
    pub const DATA: u64 = 0;
    /// Error (read), Features (write).
    pub const ERROR_FEATURES: u64 = 1;
    /// Sector Count.
    pub const SECTOR_COUNT: u64 = 2;
    /// Sector Number, LBA 7:0.
    pub const LBA_LOW: u64 = 3;
    /// Cylinder Low, LBA 15:8.
    pub const LBA_MID: u64 = 4;
    /// Cylinder High, LBA 23:16.
    pub const LBA_HIGH: u64 = 5;
    /// Device/Head.
    pub const DEVICE: u64 = 6;
    /// Status (read), Command (write).
    pub const STATUS_COMMAND: u64 = 7;
    /// Ports in the command block.
    pub const COUNT: u16 = 8;
}

/// First port of the command block of each channel in compatibility mode.
pub const COMMAND_BLOCK: [u16; 2] = [0x1f0, 0x170];
/// Alternate Status / Device Control port of each channel.
pub const CONTROL_BLOCK: [u16; 2] = [0x3f6, 0x376];
/// Interrupt line of each channel.
pub const IRQ: [u8; 2] = [14, 15];

/// Status register (section 7.2.13).
pub mod status {
    /// Busy.
    pub const BSY: u8 = 1 << 7;
    /// Device ready.
    pub const DRDY: u8 = 1 << 6;
    /// Device fault.
    pub const DF: u8 = 1 << 5;
    /// Seek complete.
    pub const DSC: u8 = 1 << 4;
    /// Data request.
    pub const DRQ: u8 = 1 << 3;
    /// Error.
    pub const ERR: u8 = 1 << 0;
}

/// Error register (section 7.2.9).
pub mod error {
    /// Uncorrectable data.
    pub const UNC: u8 = 1 << 6;
    /// ID not found: the address is beyond the end.
    pub const IDNF: u8 = 1 << 4;
    /// Command aborted.
    pub const ABRT: u8 = 1 << 2;
    /// Diagnostic code: passed.
    pub const DIAGNOSTIC_PASSED: u8 = 0x01;
}

/// Device/Head register (section 7.2.8).
pub mod device {
    /// Address is an LBA.
    pub const LBA: u8 = 1 << 6;
    /// Selects device 1.
    pub const DEV: u8 = 1 << 4;
    /// Head, or LBA 27:24.
    pub const HEAD: u8 = 0x0f;
    /// Obsolete bits that read as ones.
    pub const ONES: u8 = 0xa0;
}

/// Device Control register (section 7.2.7).
pub mod control {
    /// High-order byte: reads show the previous contents (ATA-6).
    pub const HOB: u8 = 1 << 7;
    /// Software reset.
    pub const SRST: u8 = 1 << 2;
    /// Interrupts disabled.
    pub const NIEN: u8 = 1 << 1;
}

/// Commands (ATA-4 chapter 8; the "EXT" ones are ATA-6).
pub mod command {
    /// NOP.
    pub const NOP: u8 = 0x00;
    /// RECALIBRATE (10h-1Fh).
    pub const RECALIBRATE: u8 = 0x10;
    /// READ SECTORS.
    pub const READ_SECTORS: u8 = 0x20;
    /// READ SECTORS, without retries.
    pub const READ_SECTORS_ONCE: u8 = 0x21;
    /// READ SECTORS EXT.
    pub const READ_SECTORS_EXT: u8 = 0x24;
    /// READ DMA EXT.
    pub const READ_DMA_EXT: u8 = 0x25;
    /// READ NATIVE MAX ADDRESS EXT.
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    /// READ MULTIPLE EXT.
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    /// WRITE SECTORS.
    pub const WRITE_SECTORS: u8 = 0x30;
    /// WRITE SECTORS, without retries.
    pub const WRITE_SECTORS_ONCE: u8 = 0x31;
    /// WRITE SECTORS EXT.
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    /// WRITE DMA EXT.
    pub const WRITE_DMA_EXT: u8 = 0x35;
    /// WRITE MULTIPLE EXT.
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    /// WRITE VERIFY (obsolete in ATA-4).
    pub const WRITE_VERIFY: u8 = 0x3c;
    /// READ VERIFY SECTORS.
    pub const READ_VERIFY: u8 = 0x40;
    /// READ VERIFY SECTORS, without retries.
    pub const READ_VERIFY_ONCE: u8 = 0x41;
    /// READ VERIFY SECTORS EXT.
    pub const READ_VERIFY_EXT: u8 = 0x42;
    /// SEEK (70h-7Fh).
    pub const SEEK: u8 = 0x70;
    /// EXECUTE DEVICE DIAGNOSTIC.
    pub const EXECUTE_DIAGNOSTIC: u8 = 0x90;
    /// INITIALIZE DEVICE PARAMETERS.
    pub const INITIALIZE_PARAMETERS: u8 = 0x91;
    /// STANDBY IMMEDIATE, obsolete code.
    pub const STANDBY_IMMEDIATE_OLD: u8 = 0x94;
    /// IDLE IMMEDIATE, obsolete code.
    pub const IDLE_IMMEDIATE_OLD: u8 = 0x95;
    /// STANDBY, obsolete code.
    pub const STANDBY_OLD: u8 = 0x96;
    /// IDLE, obsolete code.
    pub const IDLE_OLD: u8 = 0x97;
    /// CHECK POWER MODE, obsolete code.
    pub const CHECK_POWER_OLD: u8 = 0x98;
    /// SLEEP, obsolete code.
    pub const SLEEP_OLD: u8 = 0x99;
    /// READ MULTIPLE.
    pub const READ_MULTIPLE: u8 = 0xc4;
    /// WRITE MULTIPLE.
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    /// SET MULTIPLE MODE.
    pub const SET_MULTIPLE: u8 = 0xc6;
    /// READ DMA.
    pub const READ_DMA: u8 = 0xc8;
    /// READ DMA, without retries.
    pub const READ_DMA_ONCE: u8 = 0xc9;
    /// WRITE DMA.
    pub const WRITE_DMA: u8 = 0xca;
    /// WRITE DMA, without retries.
    pub const WRITE_DMA_ONCE: u8 = 0xcb;
    /// STANDBY IMMEDIATE.
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    /// IDLE IMMEDIATE.
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    /// STANDBY.
    pub const STANDBY: u8 = 0xe2;
    /// IDLE.
    pub const IDLE: u8 = 0xe3;
    /// CHECK POWER MODE.
    pub const CHECK_POWER: u8 = 0xe5;
    /// SLEEP.
    pub const SLEEP: u8 = 0xe6;
    /// FLUSH CACHE.
    pub const FLUSH_CACHE: u8 = 0xe7;
    /// FLUSH CACHE EXT.
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    /// IDENTIFY DEVICE.
    pub const IDENTIFY: u8 = 0xec;
    /// SET FEATURES.
    pub const SET_FEATURES: u8 = 0xef;
    /// READ NATIVE MAX ADDRESS.
    pub const READ_NATIVE_MAX: u8 = 0xf8;
    /// The low digit that RECALIBRATE and SEEK ignore (ATA-1).
    pub const LOW_DIGIT: u8 = 0x0f;
}

/// SET FEATURES subcommands (ATA-4 table 24).
pub mod feature {
    /// Enable the write cache.
    pub const WRITE_CACHE_ON: u8 = 0x02;
    /// Set the transfer mode from the Sector Count register.
    pub const TRANSFER_MODE: u8 = 0x03;
    /// Disable read look-ahead.
    pub const LOOK_AHEAD_OFF: u8 = 0x55;
    /// A software reset keeps settings.
    pub const KEEP_SETTINGS: u8 = 0x66;
    /// Disable the write cache.
    pub const WRITE_CACHE_OFF: u8 = 0x82;
    /// Enable read look-ahead.
    pub const LOOK_AHEAD_ON: u8 = 0xaa;
    /// A software reset restores the power-on settings.
    pub const RESTORE_SETTINGS: u8 = 0xcc;
}

/// CHECK POWER MODE answers (section 8.6).
pub mod power {
    /// Active or idle.
    pub const ACTIVE: u8 = 0xff;
    /// Standby.
    pub const STANDBY: u8 = 0x00;
}

/// The most sectors in a block of READ and WRITE MULTIPLE.
pub const MAX_MULTIPLE: u8 = 16;

/// Configuration space of function 1 (82371AB chapter 5).
pub mod pci {
    /// Intel.
    pub const VENDOR: u16 = 0x8086;
    /// PIIX4 IDE controller.
    pub const DEVICE: u16 = 0x7111;
    /// Revision of the PIIX4E.
    pub const REVISION: u8 = 0x01;
    /// Mass storage, IDE, bus master with both channels in compatibility mode.
    pub const CLASS: u32 = 0x01_01_80;
    /// Status after reset: fast back-to-back, medium DEVSEL#.
    pub const STATUS_DEFAULT: u16 = 0x0280;
    /// Which BAR is BMIBA.
    pub const BMIBA_INDEX: usize = 4;
    /// Ports of the bus master registers.
    pub const BMIBA_SIZE: u32 = 16;
    /// IDE timing, 16 bits per channel.
    pub const IDETIM: u8 = 0x40;
    /// Writable bits of IDETIM.
    pub const IDETIM_WRITABLE: u16 = 0xf3ff;
    /// IDETIM bit 15: the channel's ports are decoded.
    pub const IDETIM_DECODE: u16 = 1 << 15;
    /// Slave IDE timing.
    pub const SIDETIM: u8 = 0x44;
    /// Ultra DMA control.
    pub const UDMACTL: u8 = 0x48;
    /// Writable bits of UDMACTL: one per drive.
    pub const UDMACTL_WRITABLE: u8 = 0x0f;
    /// Ultra DMA timing.
    pub const UDMATIM: u8 = 0x4a;
    /// Writable bits of UDMATIM.
    pub const UDMATIM_WRITABLE: u16 = 0x3333;
}

/// Bus master registers (82371AB section 5.2), 8 ports per channel.
pub mod bus_master {
    /// Ports per channel.
    pub const CHANNEL_PORTS: u64 = 8;
    /// BMICX: command.
    pub const COMMAND: u64 = 0;
    /// BMISX: status.
    pub const STATUS: u64 = 2;
    /// BMIDTPX: descriptor table pointer, 32 bits.
    pub const TABLE: u64 = 4;
    /// BMICX: the transfer goes to memory.
    pub const RWCON: u8 = 1 << 3;
    /// BMICX: start.
    pub const SSBM: u8 = 1 << 0;
    /// BMISX: software's notes that the drives can do DMA.
    pub const DMA_CAPABLE: u8 = 0b0110_0000;
    /// BMISX: the drive interrupted; cleared by writing one.
    pub const IDEINTS: u8 = 1 << 2;
    /// BMISX: error; cleared by writing one.
    pub const DMA_ERROR: u8 = 1 << 1;
    /// BMISX: active.
    pub const BMIDEA: u8 = 1 << 0;
    /// The table is aligned to four bytes.
    pub const TABLE_MASK: u32 = !3;
    /// Bytes of a descriptor.
    pub const DESCRIPTOR_BYTES: u64 = 8;
    /// Most bytes that a descriptor covers (count 0).
    pub const MAX_REGION: usize = 0x1_0000;
    /// Last descriptor of the table, in its second word.
    pub const END_OF_TABLE: u32 = 1 << 31;
}
