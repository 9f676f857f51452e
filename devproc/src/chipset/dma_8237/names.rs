//! Names of the registers of the DMA controllers, for traces.

use super::{CONTROLLER_1, CONTROLLER_2};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 32] = [
    Register::new(CONTROLLER_1, 0, "DMA0_ADDRESS"),
    Register::new(CONTROLLER_1, 1, "DMA0_COUNT"),
    Register::new(CONTROLLER_2, 0, "DMA4_ADDRESS"),
    Register::new(CONTROLLER_2, 2, "DMA4_COUNT"),
    Register::new(CONTROLLER_1, 2, "DMA1_ADDRESS"),
    Register::new(CONTROLLER_1, 3, "DMA1_COUNT"),
    Register::new(CONTROLLER_2, 4, "DMA5_ADDRESS"),
    Register::new(CONTROLLER_2, 6, "DMA5_COUNT"),
    Register::new(CONTROLLER_1, 4, "DMA2_ADDRESS"),
    Register::new(CONTROLLER_1, 5, "DMA2_COUNT"),
    Register::new(CONTROLLER_2, 8, "DMA6_ADDRESS"),
    Register::new(CONTROLLER_2, 10, "DMA6_COUNT"),
    Register::new(CONTROLLER_1, 6, "DMA3_ADDRESS"),
    Register::new(CONTROLLER_1, 7, "DMA3_COUNT"),
    Register::new(CONTROLLER_2, 12, "DMA7_ADDRESS"),
    Register::new(CONTROLLER_2, 14, "DMA7_COUNT"),
    Register::new(CONTROLLER_1, 8, "DMA1_STATUS/COMMAND"),
    Register::new(CONTROLLER_2, 16, "DMA2_STATUS/COMMAND"),
    Register::new(CONTROLLER_1, 9, "DMA1_REQUEST"),
    Register::new(CONTROLLER_2, 18, "DMA2_REQUEST"),
    Register::new(CONTROLLER_1, 10, "DMA1_SINGLE_MASK"),
    Register::new(CONTROLLER_2, 20, "DMA2_SINGLE_MASK"),
    Register::new(CONTROLLER_1, 11, "DMA1_MODE"),
    Register::new(CONTROLLER_2, 22, "DMA2_MODE"),
    Register::new(CONTROLLER_1, 12, "DMA1_CLEAR_FF"),
    Register::new(CONTROLLER_2, 24, "DMA2_CLEAR_FF"),
    Register::new(CONTROLLER_1, 13, "DMA1_TEMPORARY/MASTER_CLEAR"),
    Register::new(CONTROLLER_2, 26, "DMA2_TEMPORARY/MASTER_CLEAR"),
    Register::new(CONTROLLER_1, 14, "DMA1_CLEAR_MASK"),
    Register::new(CONTROLLER_2, 28, "DMA2_CLEAR_MASK"),
    Register::new(CONTROLLER_1, 15, "DMA1_WRITE_MASK"),
    Register::new(CONTROLLER_2, 30, "DMA2_WRITE_MASK"),
];
