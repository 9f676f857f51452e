//! Names of the registers of the host bridge, for traces.

use super::spec;
use crate::device::{Register, Width};

/// All of them.
pub(super) const REGISTERS: [Register; 29] = [
    Register::config(spec::PMCCFG, Width::Word, "PMCCFG"),
    Register::config(spec::DETURBO, Width::Byte, "DETURBO"),
    Register::config(spec::DBC, Width::Byte, "DBC"),
    Register::config(spec::AXC, Width::Byte, "AXC"),
    Register::config(spec::DRAMC, Width::Byte, "DRAMC"),
    Register::config(spec::DRAMT, Width::Byte, "DRAMT"),
    Register::config(spec::FDHC, Width::Byte, "FDHC"),
    Register::config(spec::MTT, Width::Byte, "MTT"),
    Register::config(spec::CLT, Width::Byte, "CLT"),
    Register::config(spec::ERRCMD, Width::Byte, "ERRCMD"),
    Register::config(spec::ERRSTS, Width::Byte, "ERRSTS"),
    Register::config(spec::DRAMR, Width::Word, "DRAMR"),
    Register::config(spec::PAM0, Width::Byte, "PAM0"),
    Register::config(spec::PAM0 + 1, Width::Byte, "PAM1"),
    Register::config(spec::PAM0 + 2, Width::Byte, "PAM2"),
    Register::config(spec::PAM0 + 3, Width::Byte, "PAM3"),
    Register::config(spec::PAM0 + 4, Width::Byte, "PAM4"),
    Register::config(spec::PAM0 + 5, Width::Byte, "PAM5"),
    Register::config(spec::PAM0 + 6, Width::Byte, "PAM6"),
    Register::config(spec::DRB0, Width::Byte, "DRB0"),
    Register::config(spec::DRB0 + 1, Width::Byte, "DRB1"),
    Register::config(spec::DRB0 + 2, Width::Byte, "DRB2"),
    Register::config(spec::DRB0 + 3, Width::Byte, "DRB3"),
    Register::config(spec::DRB0 + 4, Width::Byte, "DRB4"),
    Register::config(spec::DRB0 + 5, Width::Byte, "DRB5"),
    Register::config(spec::DRB0 + 6, Width::Byte, "DRB6"),
    Register::config(spec::DRB0 + 7, Width::Byte, "DRB7"),
    Register::config(spec::SMRAM, Width::Byte, "SMRAM").fields(&[
        ("G_SMRAME", spec::SMRAM_G_SMRAME as u32),
        ("D_LCK", spec::SMRAM_DLCK as u32),
        ("D_CLS", spec::SMRAM_DCLS as u32),
        ("D_OPEN", spec::SMRAM_DOPEN as u32),
    ]),
    Register::config(spec::TRC, Width::Byte, "TRC")
        .fields(&[("SHRE", spec::TRC_SHRE as u32), ("RCPU", spec::TRC_RCPU as u32)]),
];
