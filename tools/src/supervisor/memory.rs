//! The shared memory of a VM, from the supervisor's side.

use crate::config::DevicePlan;
use ipc::board::Board;
use ipc::chassis::Chassis;
use ipc::input::HostEvent;
use ipc::link::{Link, LinkLayout, ModelCell, encode_event};
use ipc::machine::MachineConfig;
use ipc::panel::{Panel, ProcessState};
use ipc::screen::Screen;
use ipc::segment::{Segment, SegmentError, SegmentNames};
use ipc::serial::SerialCables;
use ipc::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What must be free beyond what is reserved: the screen and device memory, which take memory
/// as they are touched. Running out of it later would kill the process that touches it.
const ROOM_TO_GROW: u64 = 12 << 20;

/// All segments of a VM. Dropping it removes them.
pub struct VmMemory {
    names: SegmentNames,
    chassis: Chassis,
    links: Vec<Link>,
    ram: Arc<Segment>,
    // Held for its name, which goes when this is dropped.
    _screen: Screen,
    serial: Arc<SerialCables>,
}

impl VmMemory {
    /// Creates the segments. On error nothing is left behind.
    pub fn create(config: &MachineConfig, devices: &[DevicePlan]) -> Result<Self, SegmentError> {
        let names = SegmentNames::new(&config.name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let chassis = Chassis::create(&names, config.ram_bytes, now)?;
        let ram = Arc::new(Segment::create(&names.ram(), config.ram_bytes)?);
        let screen = Screen::create(&names.screen())?;
        let links =
            (0..devices.len()).map(|slot| Link::create(&names.link(slot))).collect::<Result<_, _>>()?;
        if let Ok(shared) = rustix::fs::statvfs("/dev/shm")
            && shared.f_bavail.saturating_mul(shared.f_frsize) < ROOM_TO_GROW
        {
            return Err(SegmentError::NoSpace {
                name: format!("{} and device memory", names.screen()),
                bytes: ROOM_TO_GROW,
            });
        }
        // Last: it leaves its name to `remove`.
        let serial = Arc::new(SerialCables::create(&names.serial())?);
        Ok(Self { names, chassis, links, ram, _screen: screen, serial })
    }

    /// The board.
    pub fn board(&self) -> &Board {
        self.chassis.board()
    }

    /// The panel.
    pub fn panel(&self) -> &Panel {
        self.chassis.panel()
    }

    /// Board and panel.
    pub fn chassis(&self) -> &Chassis {
        &self.chassis
    }

    /// Names of the segments.
    pub fn names(&self) -> &SegmentNames {
        &self.names
    }

    /// Guest RAM.
    pub fn ram(&self) -> &Arc<Segment> {
        &self.ram
    }

    /// Device memory of a device process, if it has any.
    pub fn device_memory(&self, slot: usize) -> Option<Segment> {
        Segment::open(&self.names.device_memory(slot)).ok()
    }

    /// The cables at the serial ports.
    pub fn serial(&self) -> &Arc<SerialCables> {
        &self.serial
    }

    /// State of a process slot.
    pub fn process_state(&self, slot: usize) -> ProcessState {
        let published = self.panel().view().process_state(slot);
        match self.link(slot) {
            Some(link) => ProcessState::of(published, link.process.serves()),
            None => published,
        }
    }

    /// Says how the process in `slot` is. Of one that does not run yet, or no more, what it said itself is void.
    pub fn set_process_state(&self, slot: usize, state: ProcessState) {
        if state != ProcessState::Ready
            && let Some(link) = self.link(slot)
        {
            link.process.set_serves(false);
        }
        self.panel().set_process_state(slot, state);
    }

    /// The link of a device process.
    pub fn link(&self, slot: usize) -> Option<&LinkLayout> {
        self.links.get(slot).map(Link::layout)
    }

    /// How much a device process has been asked and told so far and has dealt with.
    pub fn handled(&self, slot: usize) -> u64 {
        self.link(slot).map_or(0, |link| link.requests.consumed().wrapping_add(link.events.consumed()))
    }

    /// How much a device process has been asked and told so far, and how much of it waits.
    pub fn traffic(&self, slot: usize) -> (u64, u64) {
        self.link(slot).map_or((0, 0), |link| {
            let waits = link.requests.len().unwrap_or(0) + link.events.len().unwrap_or(0);
            (link.requests.produced().wrapping_add(link.events.produced()), waits)
        })
    }

    /// Accesses that models of a device process answered with an error.
    pub fn errors(&self, slot: usize) -> u64 {
        self.sum(slot, |model| &model.errors)
    }

    /// DMA transfers of a device process that were refused.
    pub fn dma_refused(&self, slot: usize) -> u64 {
        self.sum(slot, |model| &model.dma_refused)
    }

    /// Host time, ns, that a device process was in the code of its models.
    pub fn model_nanos(&self, slot: usize) -> u64 {
        self.sum(slot, |model| &model.model_nanos)
    }

    /// A count of all models of a device process together.
    fn sum(&self, slot: usize, count: impl Fn(&ModelCell) -> &AtomicU64) -> u64 {
        let counts = self.link(slot).map_or(&[][..], |link| &link.models).iter();
        counts.map(|model| count(model).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Drops what was asked of a device process while it was off the bus. Only while it does not run.
    pub fn forget_requests(&self, slot: usize) {
        if let Some(link) = self.link(slot) {
            link.requests.clear();
            self.board().intr.forget_acknowledge(slot as u8);
        }
    }

    /// Names of the models of a device process.
    pub fn models(&self, slot: usize) -> Vec<String> {
        self.links
            .get(slot)
            .map_or_else(Vec::new, |link| link.layout().model_infos().into_iter().map(|m| m.name).collect())
    }

    /// Sends an event to a device process. False when its ring is full.
    pub fn send_event(&self, slot: usize, event: &HostEvent) -> bool {
        let Some(link) = self.links.get(slot) else { return false };
        let sent = link.layout().events.push(encode_event(event)).is_ok();
        self.board().doorbell(slot).ring();
        sent
    }

    /// Removes every segment of the VM, also those that its processes made.
    pub fn remove(&self) {
        self.names.remove_all();
    }
}
