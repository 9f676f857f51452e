//! The saved state of the adapter. Display memory is device memory and not part of it.

use super::memory::PlaneWord;
use super::registers::Registers;
use crate::device::StateError;
use crate::gpu::vbe::Dispi;
use crate::pci::PciConfigState;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};

/// Version of [`VgaState`].
pub(crate) const VERSION: u16 = 1;

/// Everything that the adapter remembers between two accesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VgaState {
    /// VGA registers.
    pub registers: Registers,
    /// Latches of the graphics controller.
    pub latch: PlaneWord,
    /// When the vertical interrupt was last cleared.
    pub interrupt_cleared: VirtualTime,
    /// VBE registers.
    pub dispi: Dispi,
    /// PCI configuration space.
    pub pci: PciConfigState,
}

impl VgaState {
    /// Refuses values that no guest could have produced.
    pub fn validate(&self) -> Result<(), StateError> {
        self.registers.validate()?;
        self.dispi.validate()
    }
}
