//! How a PC reports x87 errors when CR0.NE is clear: the processor's FERR# pin raises IRQ13, and a write to
//! port F0h lowers it and asserts IGNNE#, so that the handler can use the unit (82371AB datasheet,
//! "Coprocessor error support"). The pins are the processor's, so the bus wires them.
//!
//! It does not know what an x87 error is.

use serde::{Deserialize, Serialize};

/// IRQ line of the coprocessor.
pub(super) const IRQ: u8 = 13;
/// Coprocessor error register: what is written does not matter.
pub(super) const ERROR_PORT: u16 = 0xf0;

/// The two pins and the latch between them and IRQ13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoprocessorError {
    ferr: bool,
    ignne: bool,
    irq: bool,
}

impl CoprocessorError {
    /// The processor drives FERR#. IRQ13 is latched when it is asserted.
    pub(super) fn set_ferr(&mut self, asserted: bool) {
        self.irq |= asserted && !self.ferr;
        self.ferr = asserted;
        self.ignne &= asserted;
    }

    /// A write to [`ERROR_PORT`].
    pub(super) fn acknowledge(&mut self) {
        self.irq = false;
        self.ignne = self.ferr;
    }

    /// Level of IRQ13.
    pub(super) fn irq(&self) -> bool {
        self.irq
    }

    /// Whether IGNNE# is asserted: instructions run although an error is pending.
    pub(super) fn ignne(&self) -> bool {
        self.ignne
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_raises_irq13_until_the_port_is_written() {
        let mut pins = CoprocessorError::default();
        pins.set_ferr(true);
        assert!(pins.irq() && !pins.ignne());
        pins.acknowledge();
        assert!(!pins.irq() && pins.ignne());
        pins.set_ferr(false);
        assert!(!pins.ignne());
        pins.acknowledge();
        assert!(!pins.ignne());
    }

    #[test]
    fn an_error_that_is_gone_leaves_its_interrupt() {
        let mut pins = CoprocessorError::default();
        pins.set_ferr(true);
        pins.set_ferr(false);
        assert!(pins.irq());
    }
}
