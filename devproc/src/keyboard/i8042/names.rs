//! Names of the registers of the keyboard controller, for traces.

use super::{COMMAND, DATA};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 2] = [
    Register::new(DATA, 0, "OUTPUT/INPUT_BUFFER"),
    Register::new(COMMAND, 0, "STATUS/COMMAND").fields(&[
        ("OBF", 1 << 0),
        ("IBF", 1 << 1),
        ("SYS", 1 << 2),
        ("A2", 1 << 3),
        ("INH", 1 << 4),
        ("MOBF", 1 << 5),
        ("TO", 1 << 6),
        ("PERR", 1 << 7),
    ]),
];
