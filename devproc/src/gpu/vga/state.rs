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

/// The parts in which the state is saved.
pub(super) mod part {
    use crate::device::Parts;
    use crate::gpu::vga::palette;

    pub(in crate::gpu::vga) const REGISTERS: Parts = 1 << 0;
    /// The DAC but its colours, which follow.
    pub(in crate::gpu::vga) const DAC: Parts = 1 << 1;
    const FIRST_COLORS: usize = 2;
    const LAST_COLORS: usize = FIRST_COLORS + palette::PIECES - 1;
    /// Latches and VBE registers.
    pub(in crate::gpu::vga) const REST: Parts = 1 << (LAST_COLORS + 1);
    /// PCI configuration space.
    pub(in crate::gpu::vga) const PCI: Parts = REST << 1;
    /// How many there are.
    pub(in crate::gpu::vga) const COUNT: usize = LAST_COLORS + 3;

    /// The part that holds a colour.
    pub(in crate::gpu::vga) fn color(index: u8) -> Parts {
        1 << (FIRST_COLORS + palette::piece(index))
    }

    /// Which piece of the colours a part is.
    pub(in crate::gpu::vga) fn piece(part: usize) -> Option<usize> {
        (FIRST_COLORS..=LAST_COLORS).contains(&part).then(|| part - FIRST_COLORS)
    }
}

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
