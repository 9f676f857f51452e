//! Names of the registers of the interrupt controllers, for traces.

use super::{ELCR, MASTER, SLAVE};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 6] = [
    Register::new(MASTER, 0, "PIC1_ICW1/OCW2/OCW3"),
    Register::new(MASTER, 1, "PIC1_IMR/ICW2-4"),
    Register::new(SLAVE, 0, "PIC2_ICW1/OCW2/OCW3"),
    Register::new(SLAVE, 1, "PIC2_IMR/ICW2-4"),
    Register::new(ELCR, 0, "ELCR1"),
    Register::new(ELCR, 1, "ELCR2"),
];
