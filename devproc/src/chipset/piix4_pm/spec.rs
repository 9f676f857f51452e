//! Registers of PIIX4 function 3, named as in the datasheet "82371AB PCI-to-ISA / IDE Xcelerator
//! (PIIX4)", sections 7.1 (configuration), 7.2 (power management I/O) and 7.3 (SMBus I/O).

/// Intel's vendor ID.
pub const VENDOR_INTEL: u16 = 0x8086;
/// Device ID of function 3.
pub const DEVICE_82371AB_PM: u16 = 0x7113;
/// Stepping: that of the PIIX4M, whose timer reads without the glitches that make Linux read
/// the earlier ones three times.
pub const REVISION: u8 = 0x03;
/// Bridge of another kind.
pub const CLASS_OTHER_BRIDGE: u32 = 0x06_80_00;
/// INTA#.
pub const INTERRUPT_PIN: u8 = 1;

/// Command register: only IOSE can be written.
pub const PCICMD_WRITABLE: u16 = 0x0001;
/// Status register: fast back-to-back, medium DEVSEL timing.
pub const PCISTS_DEFAULT: u16 = 0x0280;
/// High byte of the status register: signalled target abort.
pub const PCISTS_HIGH_CLEAR: u8 = 0x08;

/// Base address of the power management registers.
pub const PMBA: u8 = 0x40;
/// PMBA and SMBBA after reset: bit 0 says I/O space.
pub const BASE_DEFAULT: u8 = 0x01;
/// PMBA: writable bits (64 ports).
pub const PMBA_WRITABLE: u16 = 0xffc0;
/// Device resource B.
pub const DEVACTB: u8 = 0x58;
/// DEVACTB bit 25 (bit 1 of its last byte): writes to APMC generate SMI#.
pub const DEVACTB_APMC_EN: u8 = 1 << 1;
/// Power management miscellaneous.
pub const PMREGMISC: u8 = 0x80;
/// PMREGMISC bit 0: the power management registers decode.
pub const PMIOSE: u8 = 1 << 0;
/// Base address of the SMBus registers.
pub const SMBBA: u8 = 0x90;
/// SMBBA: writable bits (16 ports).
pub const SMBBA_WRITABLE: u16 = 0xfff0;
/// SMBus host configuration.
pub const SMBHSTCFG: u8 = 0xd2;
/// SMBHSTCFG bit 0: the SMBus host is on.
pub const SMB_HST_EN: u8 = 1 << 0;
/// SMBHSTCFG bits 3-1: where the SMBus interrupt goes.
pub const SMB_INTRSEL: u8 = 0b1110;
/// SMBHSTCFG bits 3-1: to IRQ9.
pub const SMB_INTRSEL_IRQ9: u8 = 0b1000;

/// Registers without an effect in this model: first offset and the writable bits of each byte.
/// CNTA, CNTB, GPICTL, DEVRESD, DEVACTA, DEVACTB, DEVRESA-C, DEVRESE-J, PMREGMISC and the SMBus
/// slave registers. All are zero after reset.
pub const PLAIN: [(u8, &[u8]); 17] = [
    (0x44, &[0xff; 4]),
    (0x48, &[0xff, 0xff, 0x73, 0x01]),
    (0x4c, &[0xff, 0xff, 0xff, 0x0f]),
    (0x50, &[0x3f, 0x58, 0x7f]),
    (0x54, &[0xff; 4]),
    (0x58, &[0x77, 0xff, 0xff, 0x03]),
    (0x5c, &[0xff; 4]),
    (0x60, &[0xff, 0xff, 0xff, 0xf7]),
    (0x64, &[0xff, 0xff, 0xef, 0xff]),
    (0x68, &[0xff, 0xff, 0x1f]),
    (0x6c, &[0xff, 0x80, 0xff, 0xff]),
    (0x70, &[0xff, 0xff, 0x1f]),
    (0x74, &[0xff, 0x80, 0xff, 0xff]),
    (0x78, &[0xff, 0xff, 0x1f]),
    (0x7c, &[0xff, 0xff, 0x1f]),
    (PMREGMISC, &[0x0f]),
    (SMBHSTCFG, &[0x0f, 0xff, 0xff, 0xff]),
];

/// Ports of the power management block.
pub const PM_LEN: u16 = 64;
/// Ports of the SMBus block.
pub const SMBUS_LEN: u16 = 16;
/// APM control port; the status port follows.
pub const APMC_PORT: u16 = 0xb2;
/// APM control and status.
pub const APM_LEN: u16 = 2;
/// General-purpose event block, where SeaBIOS's FADT says it is (a PIIX4 has none there).
pub const GPE0_PORT: u16 = 0xafe0;
/// Two status and two enable bytes.
pub const GPE0_LEN: u16 = 4;
/// SCI and SMBus interrupts arrive here.
pub const SCI_IRQ: u8 = 9;

/// APMC command by which ACPI software takes the hardware over (SeaBIOS's FADT).
pub const APMC_ACPI_ENABLE: u8 = 0xf1;
/// APMC command by which ACPI software gives it back.
pub const APMC_ACPI_DISABLE: u8 = 0xf0;

/// Power management I/O registers (section 7.2).
pub mod pm {
    /// Status, 16 bits.
    pub const PMSTS: usize = 0x00;
    /// Resume and SCI enable, 16 bits.
    pub const PMEN: usize = 0x02;
    /// Control, 16 bits.
    pub const PMCNTRL: usize = 0x04;
    /// Timer, 24 bits.
    pub const PMTMR: usize = 0x08;
    /// General-purpose status, 16 bits.
    pub const GPSTS: usize = 0x0c;
    /// General-purpose enable, 16 bits.
    pub const GPEN: usize = 0x0e;
    /// Processor control, 32 bits.
    pub const PCNTRL: usize = 0x10;
    /// Global status, 16 bits.
    pub const GLBSTS: usize = 0x18;
    /// Device status, 32 bits.
    pub const DEVSTS: usize = 0x1c;
    /// Global enable, 16 bits.
    pub const GLBEN: usize = 0x20;
    /// Global control, 32 bits.
    pub const GLBCTL: usize = 0x28;
    /// Device control, 32 bits.
    pub const DEVCTL: usize = 0x2c;
    /// General-purpose inputs, 24 bits.
    pub const GPIREG: usize = 0x30;
    /// General-purpose outputs, 32 bits.
    pub const GPOREG: usize = 0x34;

    /// PMSTS and PMEN bit 0: bit 23 of the timer changed.
    pub const TMROF: u16 = 1 << 0;
    /// PMSTS and PMEN bit 5: the BIOS released the global lock.
    pub const GBL: u16 = 1 << 5;
    /// PMSTS and PMEN bit 8: the power button was pressed.
    pub const PWRBTN: u16 = 1 << 8;
    /// PMCNTRL bit 0: events are SCI, not SMI.
    pub const SCI_EN: u16 = 1 << 0;
    /// PMCNTRL bit 2 (write only): ACPI software released the global lock.
    pub const GBL_RLS: u16 = 1 << 2;
    /// PMCNTRL bits 12-10: which suspend state.
    pub const SUS_TYP_SHIFT: u32 = 10;
    /// PMCNTRL bits 12-10: mask after the shift.
    pub const SUS_TYP_MASK: u16 = 7;
    /// SUS_TYP of soft-off, which SeaBIOS's DSDT gives for S5.
    pub const SUS_TYP_SOFF: u16 = 0;
    /// PMCNTRL bit 13 (write only): enter it.
    pub const SUS_EN: u16 = 1 << 13;
    /// GLBSTS bit 0: ACPI software released the global lock.
    pub const BIOS_STS: u16 = 1 << 0;
    /// GLBSTS bit 5: APMC was written.
    pub const APM_STS: u16 = 1 << 5;
    /// GLBCTL bit 1 (write only): the BIOS releases the global lock.
    pub const BIOS_RLS: u16 = 1 << 1;

    /// General-purpose input pins 0 to 21: all pulled high.
    pub const GPI_LEVELS: u32 = 0x003f_ffff;

    /// How the bits of a register answer to writes.
    pub struct Register {
        /// Offset of the first byte.
        pub at: usize,
        /// Bytes.
        pub len: usize,
        /// Value after reset.
        pub reset: u32,
        /// Bits that take what is written.
        pub writable: u32,
        /// Bits that are cleared by writing ones.
        pub clear: u32,
    }

    const fn register(at: usize, len: usize, reset: u32, writable: u32, clear: u32) -> Register {
        Register { at, len, reset, writable, clear }
    }

    /// The registers that are storage; the rest of the block reads as zero. PMTMR is a counter,
    /// P_LVL2 and P_LVL3 (14h, 15h) read as zero and put no processor to sleep.
    pub const REGISTERS: [Register; 13] = [
        register(PMSTS, 2, 0, 0, 0x8d31),
        register(PMEN, 2, 0, 0x0521, 0),
        register(PMCNTRL, 2, 0, 0x3c07, 0),
        register(GPSTS, 2, 0, 0, 0x0f81),
        register(GPEN, 2, 0, 0x0f01, 0),
        register(PCNTRL, 4, 0, 0x0002_3e1e, 0),
        register(GLBSTS, 2, 0, 0, 0x0d25),
        register(DEVSTS, 4, 0, 0, 0x3fff_0fff),
        register(GLBEN, 2, 0, 0x8d1f, 0),
        register(GLBCTL, 4, 0, 0x0701_ff07, 0),
        register(DEVCTL, 4, 0, 0x0fff_ffff, 0),
        register(GPIREG, 3, GPI_LEVELS, 0, 0),
        register(GPOREG, 4, 0x7fff_bfff, 0x7fff_ffff, 0),
    ];

    /// Frequency of the timer.
    pub const TIMER_HZ: u64 = 3_579_545;
    /// The counter's width.
    pub const TIMER_MASK: u64 = 0x00ff_ffff;
    /// Ticks between changes of bit 23.
    pub const TIMER_HALF: u64 = 1 << 23;
}

/// SMBus I/O registers (section 7.3).
pub mod smbus {
    /// Host status.
    pub const SMBHSTSTS: u64 = 0x0;
    /// Slave status.
    pub const SMBSLVSTS: u64 = 0x1;
    /// Host control.
    pub const SMBHSTCNT: u64 = 0x2;
    /// Host command.
    pub const SMBHSTCMD: u64 = 0x3;
    /// Host address.
    pub const SMBHSTADD: u64 = 0x4;
    /// Host data 0.
    pub const SMBHSTDAT0: u64 = 0x5;
    /// Host data 1.
    pub const SMBHSTDAT1: u64 = 0x6;
    /// Host block data.
    pub const SMBBLKDAT: u64 = 0x7;
    /// Slave control.
    pub const SMBSLVCNT: u64 = 0x8;
    /// Shadow command.
    pub const SMBSHDWCMD: u64 = 0x9;
    /// Slave event, 16 bits.
    pub const SMBSLVEVT: u64 = 0xa;
    /// Its high byte.
    pub const SMBSLVEVT_HIGH: u64 = 0xb;
    /// Slave data, 16 bits.
    pub const SMBSLVDAT: u64 = 0xc;
    /// Its high byte.
    pub const SMBSLVDAT_HIGH: u64 = 0xd;

    /// SMBHSTSTS bit 2: the slave did not acknowledge.
    pub const DEV_ERR: u8 = 1 << 2;
    /// SMBHSTSTS bits 4-1: causes of the interrupt, cleared by writing ones.
    pub const HSTSTS_CLEAR: u8 = 0b1_1110;
    /// SMBHSTCNT bit 6 (write only): start the command.
    pub const START: u8 = 1 << 6;
    /// SMBHSTCNT bit 0: interrupt at the end of the command.
    pub const INTEREN: u8 = 1 << 0;
    /// SMBHSTCNT: bits that keep their value (protocol, KILL, INTEREN).
    pub const HSTCNT_WRITABLE: u8 = 0x1f;
    /// SMBSLVCNT: bits that keep their value.
    pub const SLVCNT_WRITABLE: u8 = 0x0f;
    /// Bytes of the block buffer.
    pub const BLOCK_LEN: usize = 32;
}
