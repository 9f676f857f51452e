//! Names of the registers of the floppy controller, for traces.

use super::{DATA, DIGITAL_INPUT, MAIN_STATUS, STATUS, spec};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 7] = [
    Register::new(STATUS, 0, "SRA").fields(&[
        ("INT_PENDING", spec::sra::INT_PENDING as u32),
        ("DRV2#", spec::sra::DRV2_N as u32),
        ("STEP", spec::sra::STEP as u32),
        ("TRK0#", spec::sra::TRK0_N as u32),
        ("HDSEL", spec::sra::HDSEL as u32),
        ("INDX#", spec::sra::INDX_N as u32),
        ("WP#", spec::sra::WP_N as u32),
        ("DIR", spec::sra::DIR as u32),
    ]),
    Register::new(STATUS, (spec::port::SRB - spec::port::SRA) as u64, "SRB"),
    Register::new(STATUS, (spec::port::DOR - spec::port::SRA) as u64, "DOR").fields(&[
        ("DRIVE_SEL", spec::dor::DRIVE_SEL as u32),
        ("RESET#", spec::dor::RESET_N as u32),
        ("DMA_GATE#", spec::dor::DMA_GATE as u32),
    ]),
    Register::new(STATUS, (spec::port::TDR - spec::port::SRA) as u64, "TDR"),
    Register::new(MAIN_STATUS, 0, "MSR/DSR").fields(&[
        ("CMD_BSY", spec::msr::CMD_BSY as u32),
        ("NON_DMA", spec::msr::NON_DMA as u32),
        ("DIO", spec::msr::DIO as u32),
        ("RQM", spec::msr::RQM as u32),
    ]),
    Register::new(DATA, 0, "FIFO"),
    Register::new(DIGITAL_INPUT, 0, "DIR/CCR")
        .fields(&[("DSK_CHG", spec::dir::DSK_CHG as u32), ("DRATE", spec::dsr::DRATE as u32)]),
];
