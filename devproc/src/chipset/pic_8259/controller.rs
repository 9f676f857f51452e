//! One 8259A: request, mask, in-service and priority logic.

use super::spec::{
    CASCADE_LEVEL, ICW2_VECTOR_BASE, INITIAL_LOWEST_LEVEL, Icw1, Icw4, LEVELS, OCW2_CLEAR_ROTATE_IN_AUTO_EOI,
    OCW2_NON_SPECIFIC_EOI, OCW2_ROTATE_ON_NON_SPECIFIC_EOI, OCW2_ROTATE_ON_SPECIFIC_EOI, OCW2_SET_PRIORITY,
    OCW2_SET_ROTATE_IN_AUTO_EOI, OCW2_SPECIFIC_EOI, Ocw2, Ocw3, POLL_INTERRUPT, SPURIOUS_LEVEL,
};
use crate::device::StateError;
use crate::pack::{pack_fields, pack_variants};
use serde::{Deserialize, Serialize};

/// What the next write with A0 = 1 is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InitStep {
    /// No ICW1 since power-on: the controller requests nothing.
    #[default]
    Uninitialized,
    /// ICW2 (vector base).
    Icw2,
    /// ICW3 (cascade).
    Icw3,
    /// ICW4 (modes).
    Icw4,
    /// OCW1 (mask): initialized.
    Operational,
}

/// Architectural state of one 8259A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Controller {
    init: InitStep,
    single: bool,
    icw4_needed: bool,
    vector_base: u8,
    /// Kept as written; the PIIX4 wires the cascade the same way whatever it says.
    icw3: u8,
    icw4: u8,
    mask: u8,
    in_service: u8,
    /// Bit n: input n is level-triggered (the ELCR).
    pub(super) level_triggered: u8,
    /// Levels of the inputs when we last looked.
    inputs: u8,
    /// Edge sense latches: a rising edge has come and was neither acknowledged nor withdrawn.
    edges: u8,
    lowest: u8,
    special_mask: bool,
    rotate_in_auto_eoi: bool,
    read_isr: bool,
    poll: bool,
}

pack_variants!(InitStep);
pack_fields!(Controller {
    init,
    single,
    icw4_needed,
    vector_base,
    icw3,
    icw4,
    mask,
    in_service,
    level_triggered,
    inputs,
    edges,
    lowest,
    special_mask,
    rotate_in_auto_eoi,
    read_isr,
    poll,
});

impl Controller {
    pub(super) fn new() -> Self {
        Self {
            init: InitStep::Uninitialized,
            single: false,
            icw4_needed: false,
            vector_base: 0,
            icw3: 0,
            icw4: 0,
            mask: 0,
            in_service: 0,
            level_triggered: 0,
            inputs: 0,
            edges: 0,
            lowest: INITIAL_LOWEST_LEVEL,
            special_mask: false,
            rotate_in_auto_eoi: false,
            read_isr: false,
            poll: false,
        }
    }

    pub(super) fn validate(&self) -> Result<(), StateError> {
        if self.lowest >= LEVELS {
            return Err(StateError::OutOfRange("pic.lowest"));
        }
        if self.vector_base & !ICW2_VECTOR_BASE != 0 {
            return Err(StateError::OutOfRange("pic.vector_base"));
        }
        Ok(())
    }

    /// Takes note of the inputs: `inputs` are their levels now, `rose` those with a rising edge
    /// since the last call.
    pub(super) fn set_inputs(&mut self, inputs: u8, rose: u8) {
        // A request that falls before INTA is withdrawn (datasheet, "IR triggering timing").
        // A pulse that came and went between two looks stays latched instead: on real wires it
        // would have had its chance to be acknowledged.
        let fell = self.inputs & !inputs;
        self.edges = self.edges & !fell | rose;
        self.inputs = inputs;
    }

    /// Whether a rising edge of an input is latched and was not acknowledged yet.
    pub(super) fn has_edge(&self, level: u8) -> bool {
        self.edges & 1 << (level % LEVELS) != 0
    }

    /// Whether an input cannot request at present, so that its edges come to one.
    pub(super) fn merges_edges(&self, level: u8) -> bool {
        self.init != InitStep::Operational || self.mask & 1 << (level % LEVELS) != 0
    }

    /// Levels of the inputs at the last look.
    pub(super) fn inputs(&self) -> u8 {
        self.inputs
    }

    /// Takes the levels as they are without seeing edges in them.
    pub(super) fn adopt_inputs(&mut self, inputs: u8) {
        self.inputs = inputs;
    }

    /// Interrupt request register.
    pub(super) fn requests(&self) -> u8 {
        self.level_triggered & self.inputs | !self.level_triggered & self.edges
    }

    /// The level that INT is asserted for. `requests` is the IRR, with the cascade input where
    /// there is one (`cascade`).
    pub(super) fn pending(&self, requests: u8, cascade: Option<u8>) -> Option<u8> {
        if self.init != InitStep::Operational {
            return None;
        }
        let pending = requests & !self.mask;
        if pending == 0 {
            return None;
        }
        let blocking = self.blocking();
        for level in self.by_priority() {
            let bit = 1 << level;
            // In special fully nested mode the slave may interrupt its own service.
            let nests = self.icw4().special_fully_nested() && cascade == Some(level);
            if pending & bit != 0 && (blocking & bit == 0 || nests) {
                return Some(level);
            }
            if blocking & bit != 0 {
                return None;
            }
        }
        None
    }

    /// INTA (or its equivalent, the read after a poll command) for `level`.
    pub(super) fn acknowledge(&mut self, level: u8, requests: u8) {
        let bit = 1 << (level % LEVELS);
        let spurious = level == SPURIOUS_LEVEL && requests & bit == 0;
        self.edges &= !bit;
        if spurious {
            return;
        }
        if self.icw4().auto_eoi() {
            if self.rotate_in_auto_eoi {
                self.lowest = level % LEVELS;
            }
        } else {
            self.in_service |= bit;
        }
    }

    pub(super) fn vector(&self, level: u8) -> u8 {
        self.vector_base | (level % LEVELS)
    }

    /// Which level `vector` stands for, if it is one of this controller's.
    pub(super) fn level_of(&self, vector: u8) -> Option<u8> {
        (vector & ICW2_VECTOR_BASE == self.vector_base).then_some(vector & !ICW2_VECTOR_BASE)
    }

    pub(super) fn polled(&self) -> bool {
        self.poll
    }

    /// The read after a poll command; also says which level it acknowledged.
    pub(super) fn read_poll(&mut self, requests: u8, cascade: Option<u8>) -> u8 {
        self.poll = false;
        match self.pending(requests, cascade) {
            Some(level) => {
                self.acknowledge(level, requests);
                POLL_INTERRUPT | level
            }
            None => 0,
        }
    }

    pub(super) fn read_status(&self, requests: u8) -> u8 {
        if self.read_isr { self.in_service } else { requests }
    }

    pub(super) fn read_mask(&self) -> u8 {
        self.mask
    }

    /// A write with A0 = 0.
    pub(super) fn write_command(&mut self, value: u8) {
        if Icw1::from_bits(value).is_icw1() {
            self.write_icw1(Icw1::from_bits(value));
        } else if Ocw3::from_bits(value).is_ocw3() {
            self.write_ocw3(Ocw3::from_bits(value));
        } else {
            self.write_ocw2(Ocw2::from_bits(value));
        }
    }

    /// A write with A0 = 1.
    pub(super) fn write_data(&mut self, value: u8) {
        match self.init {
            InitStep::Icw2 => {
                self.vector_base = value & ICW2_VECTOR_BASE;
                self.init = if self.single { self.after_icw3() } else { InitStep::Icw3 };
            }
            InitStep::Icw3 => {
                self.icw3 = value;
                self.init = self.after_icw3();
            }
            InitStep::Icw4 => {
                self.icw4 = value;
                self.init = InitStep::Operational;
            }
            InitStep::Uninitialized | InitStep::Operational => self.mask = value,
        }
    }

    fn after_icw3(&self) -> InitStep {
        if self.icw4_needed { InitStep::Icw4 } else { InitStep::Operational }
    }

    fn write_icw1(&mut self, icw1: Icw1) {
        // The edge sense circuit is reset: a line that is high must fall and rise to request
        // again. Reset of the ISR is not in the datasheet's list, but without it a warm boot
        // from within an interrupt handler could never take that interrupt again.
        self.edges = 0;
        self.in_service = 0;
        self.mask = 0;
        self.lowest = INITIAL_LOWEST_LEVEL;
        self.special_mask = false;
        self.rotate_in_auto_eoi = false;
        self.read_isr = false;
        self.poll = false;
        self.icw4 = 0;
        self.icw4_needed = icw1.icw4_needed();
        self.single = icw1.single();
        self.init = InitStep::Icw2;
    }

    fn write_ocw2(&mut self, ocw2: Ocw2) {
        match ocw2.command() {
            OCW2_CLEAR_ROTATE_IN_AUTO_EOI => self.rotate_in_auto_eoi = false,
            OCW2_SET_ROTATE_IN_AUTO_EOI => self.rotate_in_auto_eoi = true,
            OCW2_NON_SPECIFIC_EOI => {
                self.end_highest();
            }
            OCW2_ROTATE_ON_NON_SPECIFIC_EOI => {
                if let Some(level) = self.end_highest() {
                    self.lowest = level;
                }
            }
            OCW2_SPECIFIC_EOI => self.in_service &= !(1 << ocw2.level()),
            OCW2_ROTATE_ON_SPECIFIC_EOI => {
                self.in_service &= !(1 << ocw2.level());
                self.lowest = ocw2.level();
            }
            OCW2_SET_PRIORITY => self.lowest = ocw2.level(),
            // OCW2_NO_OPERATION; the field has three bits and the others are above.
            _ => {}
        }
    }

    fn write_ocw3(&mut self, ocw3: Ocw3) {
        if ocw3.special_mask_enable() {
            self.special_mask = ocw3.special_mask();
        }
        // The poll command overrides the read-register command (datasheet, "OCW3").
        if ocw3.poll() {
            self.poll = true;
        } else if ocw3.read_register() {
            self.read_isr = ocw3.read_isr();
        }
    }

    /// Ends the in-service level of highest priority. In special mask mode, masked levels are
    /// passed over.
    fn end_highest(&mut self) -> Option<u8> {
        let candidates = self.blocking();
        let level = self.by_priority().find(|level| candidates & 1 << level != 0)?;
        self.in_service &= !(1 << level);
        Some(level)
    }

    /// In-service levels that hold back their own and lower ones.
    fn blocking(&self) -> u8 {
        if self.special_mask { self.in_service & !self.mask } else { self.in_service }
    }

    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=LEVELS).map(move |step| (lowest + step) % LEVELS)
    }

    fn icw4(&self) -> Icw4 {
        Icw4::from_bits(self.icw4)
    }
}

/// The master's input that stands for the slave.
pub(super) const CASCADE: Option<u8> = Some(CASCADE_LEVEL);
