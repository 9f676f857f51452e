//! Registers, commands and status bits of the 82077AA, with the datasheet's names.

/// Ports of the controller (datasheet table 2-1).
pub mod port {
    /// Status Register A (read only).
    pub const SRA: u16 = 0x3f0;
    /// Status Register B (read only).
    pub const SRB: u16 = 0x3f1;
    /// Digital Output Register.
    pub const DOR: u16 = 0x3f2;
    /// Tape Drive Register.
    pub const TDR: u16 = 0x3f3;
    /// Main Status Register (read).
    pub const MSR: u16 = 0x3f4;
    /// Data Rate Select Register (write).
    pub const DSR: u16 = 0x3f4;
    /// Data register (FIFO).
    pub const DATA: u16 = 0x3f5;
    /// Digital Input Register (read).
    pub const DIR: u16 = 0x3f7;
    /// Configuration Control Register (write).
    pub const CCR: u16 = 0x3f7;
}

/// Interrupt line of the controller on an AT.
pub const IRQ: u8 = 6;
/// DMA channel of the controller on an AT.
pub const DMA_CHANNEL: u8 = 2;
/// Drives that the command bytes can name.
pub const DRIVES: usize = 4;

/// Status Register A, PS/2 definition (section 2.1.1a).
pub mod sra {
    /// Interrupt pending.
    pub const INT_PENDING: u8 = 1 << 7;
    /// Second drive installed, active low.
    pub const DRV2_N: u8 = 1 << 6;
    /// The step output.
    pub const STEP: u8 = 1 << 5;
    /// Head of the selected drive at track 0, active low.
    pub const TRK0_N: u8 = 1 << 4;
    /// Head select.
    pub const HDSEL: u8 = 1 << 3;
    /// Index hole, active low.
    pub const INDX_N: u8 = 1 << 2;
    /// Write protected, active low.
    pub const WP_N: u8 = 1 << 1;
    /// Step direction: towards the centre.
    pub const DIR: u8 = 1 << 0;
}

/// Status Register B, PS/2 definition (section 2.1.2a).
pub mod srb {
    /// Always one.
    pub const ONES: u8 = 0b1100_0000;
    /// Drive select 0 of the DOR.
    pub const DRIVE_SEL_0: u8 = 1 << 5;
    /// Toggles with write data.
    pub const WRDATA_TOGGLE: u8 = 1 << 4;
    /// Toggles with read data.
    pub const RDDATA_TOGGLE: u8 = 1 << 3;
    /// Write gate.
    pub const WE: u8 = 1 << 2;
}

/// Digital Output Register (section 2.1.3).
pub mod dor {
    /// Number of the selected drive.
    pub const DRIVE_SEL: u8 = 0b11;
    /// Zero holds the controller in reset.
    pub const RESET_N: u8 = 1 << 2;
    /// Gates the interrupt and DMA request pins.
    pub const DMA_GATE: u8 = 1 << 3;
    /// Position of the motor enable bits of drives 0-3.
    pub const MOT_EN_SHIFT: u8 = 4;
}

/// Tape Drive Register (section 2.1.4).
pub mod tdr {
    /// Drive that the tape occupies.
    pub const TAPE_SEL: u8 = 0b11;
}

/// Data Rate Select Register (section 2.1.5).
pub mod dsr {
    /// Self-clearing reset.
    pub const SW_RESET: u8 = 1 << 7;
    /// DRATESEL, as in the CCR.
    pub const DRATE: u8 = 0b11;
}

/// DRATESEL encodings (table 2-5).
pub mod rate {
    /// 500 kbit/s.
    pub const KBPS_500: u8 = 0;
    /// 300 kbit/s.
    pub const KBPS_300: u8 = 1;
    /// 250 kbit/s; the value after reset.
    pub const KBPS_250: u8 = 2;
    /// 1 Mbit/s.
    pub const MBPS_1: u8 = 3;
}

/// Main Status Register (section 2.1.6).
pub mod msr {
    /// The host may access the data register.
    pub const RQM: u8 = 1 << 7;
    /// Direction of that access: the host reads.
    pub const DIO: u8 = 1 << 6;
    /// Execution phase of a non-DMA transfer.
    pub const NON_DMA: u8 = 1 << 5;
    /// A command is in progress.
    pub const CMD_BSY: u8 = 1 << 4;
}

/// Digital Input Register, AT definition (section 2.1.8).
pub mod dir {
    /// The diskette may have been changed.
    pub const DSK_CHG: u8 = 1 << 7;
    /// Not driven by the controller in AT mode.
    pub const UNDRIVEN: u8 = 0x7f;
}

/// Status register 0 (section 6.2.1).
pub mod st0 {
    /// Interrupt code: abnormal termination.
    pub const ABNORMAL: u8 = 0b01 << 6;
    /// Interrupt code: invalid command.
    pub const INVALID: u8 = 0b10 << 6;
    /// Interrupt code: ready changed while polling (after reset).
    pub const POLLING: u8 = 0b11 << 6;
    /// Seek end.
    pub const SE: u8 = 1 << 5;
    /// Equipment check: no track 0 after a recalibrate.
    pub const EC: u8 = 1 << 4;
    /// Position of the head address.
    pub const H_SHIFT: u8 = 2;
}

/// Status register 1 (section 6.2.2).
pub mod st1 {
    /// End of cylinder: the last sector was done and nobody said stop.
    pub const EN: u8 = 1 << 7;
    /// Data error (CRC).
    pub const DE: u8 = 1 << 5;
    /// Overrun or underrun.
    pub const OR: u8 = 1 << 4;
    /// No data: sector not found.
    pub const ND: u8 = 1 << 2;
    /// Not writable: write protected.
    pub const NW: u8 = 1 << 1;
    /// Missing address mark.
    pub const MA: u8 = 1 << 0;
}

/// Status register 2 (section 6.2.3).
pub mod st2 {
    /// Control mark: the other kind of data mark was met.
    pub const CM: u8 = 1 << 6;
    /// Data error in the data field.
    pub const DD: u8 = 1 << 5;
    /// Wrong cylinder.
    pub const WC: u8 = 1 << 4;
    /// Scan equal hit.
    pub const SH: u8 = 1 << 3;
    /// Scan not satisfied.
    pub const SN: u8 = 1 << 2;
}

/// Status register 3 (section 6.2.4).
pub mod st3 {
    /// Write protected.
    pub const WP: u8 = 1 << 6;
    /// Bits 5 and 3 are always one.
    pub const ONES: u8 = 1 << 5 | 1 << 3;
    /// Track 0.
    pub const T0: u8 = 1 << 4;
}

/// Second byte of most commands: head and drive.
pub mod unit {
    /// Drive select.
    pub const DS: u8 = 0b11;
    /// Head select.
    pub const HDS: u8 = 1 << 2;
    /// VERIFY: the last byte counts sectors.
    pub const EC: u8 = 1 << 7;
}

/// First byte of a command: modifiers.
pub mod modifier {
    /// Multi-track.
    pub const MT: u8 = 1 << 7;
    /// Double density.
    pub const MFM: u8 = 1 << 6;
    /// Skip sectors with the other kind of data mark.
    pub const SK: u8 = 1 << 5;
    /// What remains: the command itself.
    pub const OPCODE: u8 = 0b1_1111;
    /// RELATIVE SEEK: towards the centre.
    pub const RELATIVE_INWARD: u8 = 1 << 6;
    /// LOCK: the new value of the lock bit.
    pub const LOCK: u8 = 1 << 7;
}

/// SPECIFY, second byte: non-DMA mode.
pub const SPECIFY_ND: u8 = 1 << 0;

/// CONFIGURE, second byte (section 5.2.7).
pub mod configure {
    /// Enable implied seek.
    pub const EIS: u8 = 1 << 6;
    /// FIFO disabled.
    pub const EFIFO: u8 = 1 << 5;
    /// Polling disabled.
    pub const POLL: u8 = 1 << 4;
    /// FIFO threshold minus one.
    pub const FIFOTHR: u8 = 0b1111;
}

/// PERPENDICULAR MODE byte (section 5.2.10).
pub mod perpendicular {
    /// Overwrite the drive bits.
    pub const OW: u8 = 1 << 7;
    /// D3-D0: drives with perpendicular media.
    pub const DRIVES: u8 = 0b11_1100;
    /// GAP and WGATE, which a software reset clears.
    pub const GAP_WGATE: u8 = 0b11;
}

/// What VERSION answers: an enhanced controller (section 5.2.6).
pub const VERSION_ID: u8 = 0x90;

/// LOCK bit in the answers to LOCK and in DUMPREG.
pub const LOCK_RESULT_SHIFT: u8 = 4;
/// LOCK bit in byte 8 of DUMPREG.
pub const DUMPREG_LOCK: u8 = 1 << 7;

/// Sector size code of 512 bytes.
pub const N_512: u8 = 2;

/// The commands (table 5-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// READ TRACK.
    ReadTrack,
    /// SPECIFY.
    Specify,
    /// SENSE DRIVE STATUS.
    SenseDriveStatus,
    /// WRITE DATA.
    WriteData,
    /// READ DATA.
    ReadData,
    /// RECALIBRATE.
    Recalibrate,
    /// SENSE INTERRUPT STATUS.
    SenseInterrupt,
    /// WRITE DELETED DATA.
    WriteDeleted,
    /// READ ID.
    ReadId,
    /// READ DELETED DATA.
    ReadDeleted,
    /// FORMAT TRACK.
    FormatTrack,
    /// DUMPREG.
    DumpReg,
    /// SEEK.
    Seek,
    /// RELATIVE SEEK.
    RelativeSeek,
    /// VERSION.
    Version,
    /// SCAN EQUAL.
    ScanEqual,
    /// PERPENDICULAR MODE.
    Perpendicular,
    /// CONFIGURE.
    Configure,
    /// LOCK.
    Lock,
    /// VERIFY.
    Verify,
    /// SCAN LOW OR EQUAL.
    ScanLowOrEqual,
    /// SCAN HIGH OR EQUAL.
    ScanHighOrEqual,
}

impl Command {
    /// The command that a first byte names; `None` is an invalid one. PART ID (18h) belongs to
    /// the 82078 and is invalid here: that is how drivers tell the two chips apart.
    pub fn decode(byte: u8) -> Option<Self> {
        const MT_MFM: u8 = modifier::MT | modifier::MFM;
        const MT_MFM_SK: u8 = MT_MFM | modifier::SK;
        let (command, modifiers) = match byte & modifier::OPCODE {
            0x02 => (Self::ReadTrack, MT_MFM_SK),
            0x03 => (Self::Specify, 0),
            0x04 => (Self::SenseDriveStatus, 0),
            0x05 => (Self::WriteData, MT_MFM),
            0x06 => (Self::ReadData, MT_MFM_SK),
            0x07 => (Self::Recalibrate, 0),
            0x08 => (Self::SenseInterrupt, 0),
            0x09 => (Self::WriteDeleted, MT_MFM),
            0x0a => (Self::ReadId, modifier::MFM),
            0x0c => (Self::ReadDeleted, MT_MFM_SK),
            0x0d => (Self::FormatTrack, modifier::MFM),
            0x0e => (Self::DumpReg, 0),
            0x0f if byte & modifier::MT != 0 => {
                (Self::RelativeSeek, modifier::MT | modifier::RELATIVE_INWARD)
            }
            0x0f => (Self::Seek, 0),
            0x10 => (Self::Version, 0),
            0x11 => (Self::ScanEqual, MT_MFM_SK),
            0x12 => (Self::Perpendicular, 0),
            0x13 => (Self::Configure, 0),
            0x14 => (Self::Lock, modifier::LOCK),
            0x16 => (Self::Verify, MT_MFM_SK),
            0x19 => (Self::ScanLowOrEqual, MT_MFM_SK),
            0x1d => (Self::ScanHighOrEqual, MT_MFM_SK),
            _ => return None,
        };
        (byte & !modifier::OPCODE & !modifiers == 0).then_some(command)
    }

    /// Whether the command has an execution phase that works on the diskette.
    pub fn transfers(self) -> bool {
        self.length() == MAX_COMMAND || matches!(self, Self::ReadId | Self::FormatTrack)
    }

    /// Whether the command changes the diskette.
    pub fn writes(self) -> bool {
        matches!(self, Self::WriteData | Self::WriteDeleted | Self::FormatTrack)
    }

    /// Whether the host sends bytes in the execution phase.
    pub fn takes_bytes(self) -> bool {
        self.writes() || matches!(self, Self::ScanEqual | Self::ScanLowOrEqual | Self::ScanHighOrEqual)
    }

    /// Bytes of the command phase, the first included.
    pub fn length(self) -> usize {
        match self {
            Self::SenseInterrupt | Self::DumpReg | Self::Version | Self::Lock => 1,
            Self::SenseDriveStatus | Self::Recalibrate | Self::ReadId | Self::Perpendicular => 2,
            Self::Specify | Self::Seek | Self::RelativeSeek => 3,
            Self::Configure => 4,
            Self::FormatTrack => 6,
            Self::ReadTrack
            | Self::WriteData
            | Self::ReadData
            | Self::WriteDeleted
            | Self::ReadDeleted
            | Self::ScanEqual
            | Self::Verify
            | Self::ScanLowOrEqual
            | Self::ScanHighOrEqual => MAX_COMMAND,
        }
    }
}

/// The longest command phase.
pub const MAX_COMMAND: usize = 9;
/// The longest result phase (DUMPREG).
pub const MAX_RESULT: usize = 10;
