//! Names of the registers of the timer, for traces.

use super::{NMISC, PIT};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 5] = [
    Register::new(PIT, 0, "COUNTER_0"),
    Register::new(PIT, 1, "COUNTER_1"),
    Register::new(PIT, 2, "COUNTER_2"),
    Register::new(PIT, 3, "TCW"),
    Register::new(NMISC, 0, "NMISC"),
];
