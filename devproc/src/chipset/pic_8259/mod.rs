//! The interrupt controllers: two cascaded 8259As and the PIIX4's edge/level control registers.
//!
//! Sources: Intel 8259A datasheet ("Interrupt sequence", "Programming the 8259A", "Poll
//! command", "Special mask mode", "Special fully nested mode"); 82371AB (PIIX4) datasheet,
//! sections 4.2 (interrupt controller registers) and 8.6 (interrupt controller).
//!
//! What differs from two chips on a board:
//! - The acknowledge is a hand-shake on a published vector. The CPU may take a vector just as
//!   its request is withdrawn or overtaken by a higher one; it is then acknowledged as the
//!   vector that the CPU took, and the higher one follows (the CPU sampled INTR a moment
//!   earlier). A request on level 7 that was withdrawn leaves no in-service bit, which is the
//!   8259A's spurious interrupt.
//! - An edge-triggered request is withdrawn when its line falls before the acknowledge, as the
//!   datasheet says; a pulse too short to be seen as a level stays latched, so no edge is lost.
//! - Ticks of the system timer are not merged, unless it is masked: an edge that comes while the one before still waits
//!   is latched when that one was acknowledged. On real hardware a CPU is never away for longer than it
//!   keeps interrupts off itself; ours may be, when the host has other work, and a guest that counts ticks would
//!   lose time.
//! - The mask registers are not mirrored: the read that follows a poll command is the poll,
//!   at either address, so a read of 21h can have a side effect.
//! - The MCS-80 call mode (ICW4 bit 0 clear), buffered mode, ICW1.LTIM, SNGL and the values of
//!   ICW3 do not change the wiring: the PIIX4 has one fixed cascade in 8086 mode.

mod controller;
mod names;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Device, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind, StateError,
    WriteResult, Writes, load_state,
};
use crate::host::Host;
use crate::pack::{pack, pack_fields};
use controller::{CASCADE, Controller};
use serde::{Deserialize, Serialize};
use spec::{
    CASCADE_LEVEL, COMMAND_OFFSET, CONTROLLER_PORTS, DATA_OFFSET, ELCR_BASE, ELCR_PORTS, ELCR1_WRITABLE,
    ELCR2_WRITABLE, LEVELS, MASTER_BASE, SLAVE_BASE,
};

const MASTER: RegionId = RegionId(0);
const SLAVE: RegionId = RegionId(1);
const ELCR: RegionId = RegionId(2);

const ELCR1_MIRROR: MirrorSlot = MirrorSlot(0);
const ELCR2_MIRROR: MirrorSlot = MirrorSlot(1);

/// ISA interrupt lines.
const LINES: usize = 16;
/// The line of the system timer, and its level at the master.
const TICK_LINE: u8 = 0;
/// Ticks that wait at most, two minutes' worth of a Linux guest's: on a host that is short of CPU for long they are
/// taken afterwards.
const MOST_TICKS: u32 = 30_000;

/// Saved state, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PicState {
    master: Controller,
    slave: Controller,
    /// Edge counters of the lines up to which edges have been latched.
    seen_edges: [u32; LINES],
}

pack_fields!(PicState { master, slave, seen_edges });

/// Both interrupt controllers of the PC.
pub struct Pic {
    // Runtime glue
    /// What we last told the CPU; not saved, [`Device::attach`] tells it again.
    published: Option<u8>,
    changed: bool,

    // Volatile state
    state: PicState,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// Controllers as after power-on: nothing is requested until they are initialized.
    pub fn new() -> Self {
        let state = PicState { master: Controller::new(), slave: Controller::new(), seen_edges: [0; LINES] };
        Self { published: None, changed: true, state }
    }

    /// The master's IRR: its inputs, with the slave's INT on the cascade input.
    fn master_requests(&self) -> u8 {
        let cascade = u8::from(self.slave_pending().is_some()) << CASCADE_LEVEL;
        self.state.master.requests() & !(1 << CASCADE_LEVEL) | cascade
    }

    fn slave_pending(&self) -> Option<u8> {
        self.state.slave.pending(self.state.slave.requests(), None)
    }

    /// The vector that INTA would deliver now.
    fn pending_vector(&self) -> Option<u8> {
        let level = self.state.master.pending(self.master_requests(), CASCADE)?;
        if level == CASCADE_LEVEL {
            self.slave_pending().map(|level| self.state.slave.vector(level))
        } else {
            Some(self.state.master.vector(level))
        }
    }

    fn publish(&mut self, host: &mut dyn Host) {
        let vector = self.pending_vector();
        if vector != self.published {
            self.publish_always(host);
        }
    }

    fn publish_always(&mut self, host: &mut dyn Host) {
        self.published = self.pending_vector();
        host.set_interrupt_request(self.published);
    }

    fn publish_elcr(&self, host: &mut dyn Host) {
        host.publish_mirror(ELCR1_MIRROR, self.state.master.level_triggered.into());
        host.publish_mirror(ELCR2_MIRROR, self.state.slave.level_triggered.into());
    }

    /// Latches what happened on the lines since the last look. Called before every access too,
    /// so that what the guest reads never depends on when we were told.
    fn look_at_lines(&mut self, host: &dyn Host) {
        let lines = host.irq_lines();
        let inputs = [self.state.master.inputs(), self.state.slave.inputs()];
        if lines.isa_edges == self.state.seen_edges && lines.isa_levels == u16::from_le_bytes(inputs) {
            return;
        }
        let mut rose = 0u16;
        let merges = self.state.master.merges_edges(TICK_LINE);
        let waits = self.state.master.has_edge(TICK_LINE);
        for (irq, (seen, edges)) in self.state.seen_edges.iter_mut().zip(lines.isa_edges).enumerate() {
            if *seen == edges {
                continue;
            }
            if irq != usize::from(TICK_LINE) || merges {
                *seen = edges;
                rose |= 1 << irq;
                continue;
            }
            let ticks = edges.wrapping_sub(*seen);
            if ticks > MOST_TICKS {
                *seen = edges.wrapping_sub(MOST_TICKS);
            }
            if !waits {
                *seen = seen.wrapping_add(1);
                rose |= 1 << irq;
            }
        }
        self.changed = true;
        let [master_levels, slave_levels] = lines.isa_levels.to_le_bytes();
        let [master_rose, slave_rose] = rose.to_le_bytes();
        self.state.master.set_inputs(master_levels, master_rose);
        self.state.slave.set_inputs(slave_levels, slave_rose);
    }

    /// Which controller and level `vector` stands for. What is pending now decides when both
    /// controllers were given the same base.
    fn source_of(&self, vector: u8) -> Option<(RegionId, u8)> {
        let pending_slave = self.slave_pending().filter(|level| self.state.slave.vector(*level) == vector);
        let from_slave =
            pending_slave.is_some() && self.state.master.pending(self.master_requests(), CASCADE) == CASCADE;
        let slave = self.state.slave.level_of(vector).map(|level| (SLAVE, level));
        let master = self.state.master.level_of(vector).map(|level| (MASTER, level));
        if from_slave { slave } else { master.or(slave) }
    }

    fn read_controller(&mut self, region: RegionId, offset: u64) -> ReadResult {
        let master_requests = self.master_requests();
        let (controller, requests, cascade) = if region == MASTER {
            (&mut self.state.master, master_requests, CASCADE)
        } else {
            let requests = self.state.slave.requests();
            (&mut self.state.slave, requests, None)
        };
        let value = if controller.polled() {
            self.changed = true;
            controller.read_poll(requests, cascade)
        } else {
            match offset {
                COMMAND_OFFSET => controller.read_status(requests),
                DATA_OFFSET => controller.read_mask(),
                _ => return Err(IoError::InvalidRegister),
            }
        };
        Ok(value.into())
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn regions(&self) -> Vec<Region> {
        // Everything here shows only in this device's reads and in INTR, and the CPU drains
        // our queue before it takes an interrupt.
        vec![
            Region::ports(MASTER, "pic1", MASTER_BASE, CONTROLLER_PORTS).writes(Writes::PostedLocal),
            Region::ports(SLAVE, "pic2", SLAVE_BASE, CONTROLLER_PORTS).writes(Writes::PostedLocal),
            Region::ports(ELCR, "elcr", ELCR_BASE, ELCR_PORTS)
                .writes(Writes::PostedLocal)
                .mirrored(ELCR1_MIRROR),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.look_at_lines(host);
        self.publish_elcr(host);
        self.publish_always(host);
        self.changed = true;
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        self.look_at_lines(host);
        let result = match at.region {
            MASTER | SLAVE => self.read_controller(at.region, at.offset),
            // Mirrored; answered all the same for a bus without a mirror.
            ELCR if at.offset == 0 => Ok(self.state.master.level_triggered.into()),
            ELCR => Ok(self.state.slave.level_triggered.into()),
            _ => Err(IoError::InvalidRegister),
        };
        self.publish(host);
        result
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        self.look_at_lines(host);
        let value = value as u8;
        let controller = match at.region {
            SLAVE => &mut self.state.slave,
            _ => &mut self.state.master,
        };
        match (at.region, at.offset) {
            (MASTER | SLAVE, COMMAND_OFFSET) => controller.write_command(value),
            (MASTER | SLAVE, DATA_OFFSET) => controller.write_data(value),
            (ELCR, 0) => self.state.master.level_triggered = value & ELCR1_WRITABLE,
            (ELCR, 1) => self.state.slave.level_triggered = value & ELCR2_WRITABLE,
            _ => return Err(IoError::InvalidRegister),
        }
        if at.region == ELCR {
            self.publish_elcr(host);
        }
        self.changed = true;
        self.publish(host);
        Ok(())
    }

    fn lines_changed(&mut self, host: &mut dyn Host) {
        self.look_at_lines(host);
        self.publish(host);
    }

    fn watches_lines(&self) -> bool {
        true
    }

    fn interrupt_acknowledged(&mut self, vector: u8, host: &mut dyn Host) {
        self.look_at_lines(host);
        match self.source_of(vector) {
            Some((MASTER, level)) => {
                let requests = self.master_requests();
                self.state.master.acknowledge(level, requests);
            }
            Some((_, level)) => {
                let (requests, slave_requests) = (self.master_requests(), self.state.slave.requests());
                self.state.slave.acknowledge(level, slave_requests);
                self.state.master.acknowledge(CASCADE_LEVEL, requests);
            }
            // A vector that we cannot have published: nothing is in service for it.
            None => {}
        }
        // A tick may have waited for this.
        self.look_at_lines(host);
        self.changed = true;
        // The hand-shake used up what was published, so the same vector counts as new.
        self.publish_always(host);
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        let lines = host.irq_lines();
        let [master_levels, slave_levels] = lines.isa_levels.to_le_bytes();
        let mut fresh = Self::new();
        fresh.state.master.adopt_inputs(master_levels);
        fresh.state.slave.adopt_inputs(slave_levels);
        fresh.state.seen_edges = lines.isa_edges;
        *self = fresh;
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        pack(&self.state, out);
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: PicState = load_state(data)?;
        state.master.validate()?;
        state.slave.validate()?;
        if state.master.level_triggered & !ELCR1_WRITABLE != 0
            || state.slave.level_triggered & !ELCR2_WRITABLE != 0
        {
            return Err(StateError::OutOfRange("pic.elcr"));
        }
        self.state = state;
        self.changed = true;
        Ok(())
    }
}

// One input of one controller per line.
const _: () = assert!(LINES == 2 * LEVELS as usize);
