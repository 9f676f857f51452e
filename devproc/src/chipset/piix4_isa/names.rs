//! Names of the registers of the ISA bridge, for traces.

use super::{PORT92, RCR, spec};
use crate::device::{Register, Width};

/// All of them.
pub(super) const REGISTERS: [Register; 10] = [
    Register::new(RCR, 0, "RC"),
    Register::new(PORT92, 0, "P92"),
    Register::config(spec::IORT, Width::Byte, "IORT"),
    Register::config(spec::XBCS, Width::Word, "XBCS"),
    Register::config(spec::PIRQRCA, Width::Byte, "PIRQRCA"),
    Register::config(spec::PIRQRCA + 1, Width::Byte, "PIRQRCB"),
    Register::config(spec::PIRQRCA + 2, Width::Byte, "PIRQRCC"),
    Register::config(spec::PIRQRCA + 3, Width::Byte, "PIRQRCD"),
    Register::config(spec::SERIRQC, Width::Byte, "SERIRQC"),
    Register::config(spec::TOM, Width::Byte, "TOM"),
];
