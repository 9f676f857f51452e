//! Registers of the 82441FX PMC, named as in the datasheet "82440FX PCIset: 82441FX PCI and
//! Memory Controller (PMC) and 82442FX Data Bus Accelerator (DBX)", section 3.2.

/// Intel's vendor ID.
pub const VENDOR_INTEL: u16 = 0x8086;
/// Device ID of the 82441FX.
pub const DEVICE_82441FX: u16 = 0x1237;
/// Stepping.
pub const REVISION: u8 = 0x02;
/// Host bridge.
pub const CLASS_HOST_BRIDGE: u32 = 0x06_00_00;
/// Subsystem vendor and ID by which SeaBIOS recognises its platform.
pub const SUBSYSTEM_QEMU: (u16, u16) = (0x1af4, 0x1100);

/// Command register: MAE (memory access enable) and the fixed bus master bit.
pub const PCICMD_DEFAULT: u16 = 0x0006;
/// Command register: MAE and SERRE can be written.
pub const PCICMD_WRITABLE: u16 = 0x0102;
/// Status register: fast back-to-back, medium DEVSEL timing.
pub const PCISTS_DEFAULT: u16 = 0x0280;
/// High byte of the status register: error bits cleared by writing ones.
pub const PCISTS_HIGH_CLEAR: u8 = 0xf9;

/// Master latency timer; bits 7-3.
pub const MLT: u8 = 0x0d;
/// PMC configuration, 16 bits.
pub const PMCCFG: u8 = 0x50;
/// Deturbo counter.
pub const DETURBO: u8 = 0x52;
/// DBX buffer control.
pub const DBC: u8 = 0x53;
/// Auxiliary control.
pub const AXC: u8 = 0x54;
/// DRAM row type, 16 bits.
pub const DRAMR: u8 = 0x55;
/// DRAM control.
pub const DRAMC: u8 = 0x57;
/// DRAM timing.
pub const DRAMT: u8 = 0x58;
/// Programmable attribute map; PAM0 to PAM6.
pub const PAM0: u8 = 0x59;
/// Number of PAM registers.
pub const PAM_COUNT: u8 = 7;
/// DRAM row boundary; DRB0 to DRB7, in units of 8 MiB.
pub const DRB0: u8 = 0x60;
/// Number of DRAM rows.
pub const DRB_COUNT: u8 = 8;
/// Fixed DRAM hole control.
pub const FDHC: u8 = 0x68;
/// Multi-transaction timer.
pub const MTT: u8 = 0x70;
/// CPU latency timer.
pub const CLT: u8 = 0x71;
/// System management RAM control.
pub const SMRAM: u8 = 0x72;
/// Error command.
pub const ERRCMD: u8 = 0x90;
/// Error status.
pub const ERRSTS: u8 = 0x91;
/// Turbo reset control.
pub const TRC: u8 = 0x93;

/// One plain register: offset, value after reset, writable bits.
pub struct Plain(pub u8, pub u8, pub u8);

/// Registers without an effect in this model: they keep what the firmware writes.
///
/// PMCCFG bits 9-8 are the strap for the host bus frequency: 10b is 66 MHz.
pub const PLAIN: [Plain; 14] = [
    Plain(MLT, 0x00, 0xf8),
    Plain(PMCCFG, 0x00, 0xf4),
    Plain(PMCCFG + 1, 0x02, 0xc3),
    Plain(DETURBO, 0x00, 0xff),
    Plain(DBC, 0x80, 0xff),
    Plain(AXC, 0x00, 0x82),
    Plain(DRAMR, 0x00, 0xff),
    Plain(DRAMR + 1, 0x00, 0xff),
    Plain(DRAMC, 0x01, 0x77),
    Plain(DRAMT, 0x10, 0x7f),
    Plain(FDHC, 0x00, 0xc0),
    Plain(MTT, 0x00, 0xf8),
    Plain(CLT, 0x10, 0x1f),
    Plain(ERRCMD, 0x00, 0x1b),
];

/// ERRSTS: both flags are cleared by writing ones.
pub const ERRSTS_CLEAR: u8 = 0x11;

/// PAM nibble: reads go to DRAM.
pub const PAM_RE: u8 = 1 << 0;
/// PAM nibble: writes go to DRAM.
pub const PAM_WE: u8 = 1 << 1;
/// PAM0 has attributes in its high nibble only.
pub const PAM0_WRITABLE: u8 = 0x30;
/// PAM1 to PAM6 have two ranges each.
pub const PAM_WRITABLE: u8 = 0x33;

/// SMRAM bit 6: the range is open outside system management mode.
pub const SMRAM_DOPEN: u8 = 1 << 6;
/// SMRAM bit 5: closed for data accesses.
pub const SMRAM_DCLS: u8 = 1 << 5;
/// SMRAM bit 4: DOPEN is cleared and both bits are read-only until reset.
pub const SMRAM_DLCK: u8 = 1 << 4;
/// SMRAM bit 3: SMM accesses reach the range.
pub const SMRAM_G_SMRAME: u8 = 1 << 3;
/// SMRAM after reset: C_BASE_SEG (read-only) says A0000h.
pub const SMRAM_DEFAULT: u8 = 0x02;
/// First address of the SMRAM range.
pub const SMRAM_BASE: u32 = 0xa_0000;
/// Its length.
pub const SMRAM_LEN: u32 = 0x2_0000;

/// TRC bit 2: a 0 to 1 transition resets.
pub const TRC_RCPU: u8 = 1 << 2;
/// TRC bit 1: the reset is a hard one.
pub const TRC_SHRE: u8 = 1 << 1;
/// TRC: writable bits.
pub const TRC_WRITABLE: u8 = 0x0f;

/// One DRB unit.
pub const DRB_UNIT: u64 = 8 << 20;

/// Where firmware images end.
pub const FIRMWARE_END: u64 = 1 << 32;
/// Where their copy below 1 MiB ends.
pub const FIRMWARE_LOW_END: u64 = 1 << 20;
/// How much of the image appears below 1 MiB at most.
pub const FIRMWARE_LOW_MAX: u64 = 128 << 10;
/// Sizes of firmware images that a flash chip of the time could have.
pub const FIRMWARE_SIZES: [usize; 5] = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
