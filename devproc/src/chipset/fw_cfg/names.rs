//! Names of the registers of the firmware configuration device, for traces.

use super::PORTS;
use crate::device::{Register, Width};

/// All of them.
pub(super) const REGISTERS: [Register; 2] =
    [Register::new(PORTS, 0, "FW_CFG_SELECTOR").width(Width::Word), Register::new(PORTS, 1, "FW_CFG_DATA")];
