//! Names of the registers of the debug ports, for traces.

use super::{BOCHS, POST, SEABIOS};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 3] = [
    Register::new(BOCHS, 0, "BOCHS_DEBUG"),
    Register::new(SEABIOS, 0, "SEABIOS_DEBUG"),
    Register::new(POST, 0, "POST_CODE"),
];
