//! The panel: what VMM and supervisor say of a VM to all its processes, as data in shared memory.
//!
//! What the VM is told to do, the virtual clock, how the vCPU and the processes are, and which pages of RAM hold
//! code. VMM and supervisor write it; device processes and displays map it read-only, and from a file that
//! was opened for reading, so that none of them can end, stop or misreport a VM. They get a [`PanelView`].
//! What devices drive is on the [board](crate::board).

#![expect(unsafe_code)] // For `unsafe impl Shared` and for the view of who may only read.

use crate::clock::{ClockView, Freeze, SharedClock};
use crate::segment::{Readable, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// First word of a panel: "VMSimPnl".
const PANEL_MAGIC: u64 = u64::from_le_bytes(*b"VMSimPnl");
/// Device processes per VM.
pub const MAX_DEVICES: usize = 12;
/// Process slot of the VMM; devices have 0 to [`MAX_DEVICES`] - 1.
pub const VMM_SLOT: usize = MAX_DEVICES;
/// Process slots in all.
pub const PROCESS_SLOTS: usize = MAX_DEVICES + 1;
/// Largest guest RAM, bytes.
pub const MAX_RAM: u64 = 2 << 30;
/// [`Panel::powered_off`]: the guest switched the machine off.
pub const SWITCHED_OFF: u32 = 1;
/// [`Panel::powered_off`]: a debugger killed the VM.
pub const KILLED: u32 = 2;
const PAGE_SHIFT: u64 = 12;
const CODE_WORDS: usize = (MAX_RAM >> PAGE_SHIFT) as usize / 64;

/// What the VM as a whole is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunState {
    /// Processes are being started.
    Starting = 0,
    /// Guest code runs.
    Running = 1,
    /// The user paused it.
    Paused = 2,
    /// It is ending.
    Stopping = 3,
}

impl RunState {
    fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Paused,
            3 => Self::Stopping,
            _ => Self::Starting,
        }
    }
}

/// State of the CPU, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VcpuState {
    /// Not running yet.
    Off = 0,
    /// Executes instructions.
    Running = 1,
    /// In HLT, waiting for an interrupt.
    Halted = 2,
    /// Stopped by a pause.
    Paused = 3,
    /// Waits for a device's answer.
    WaitsForDevice = 4,
    /// Shut down by a triple fault; a reset follows.
    Shutdown = 5,
    /// Stopped by a debugger, or waiting for one.
    Debugged = 6,
}

impl VcpuState {
    /// From a word of the panel; unknown values count as off.
    pub fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Halted,
            3 => Self::Paused,
            4 => Self::WaitsForDevice,
            5 => Self::Shutdown,
            6 => Self::Debugged,
            _ => Self::Off,
        }
    }
}

/// One process of the VM.
#[repr(C, align(64))]
pub struct ProcessCell {
    /// Process ID; 0 when the slot has none.
    pub pid: AtomicU32,
    /// A `ProcessState`.
    pub state: AtomicU32,
    /// Times it was started again.
    pub restarts: AtomicU32,
    /// A [`Health`], for people.
    pub health: AtomicU32,
    /// Host time that the vCPU waited for the process, ns. Waits that end while it spins are not counted.
    pub waited_nanos: AtomicU64,
}

/// How a process is, as the supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Health {
    /// It does its work.
    Works = 0,
    /// It has done nothing for a while although it runs.
    Slow = 1,
    /// The same for so long that the watchdog ends it.
    Hangs = 2,
    /// A signal stopped it.
    Stopped = 3,
    /// A debugger holds it.
    Traced = 4,
}

impl Health {
    /// From a word of the panel; unknown values count as well.
    pub fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Slow,
            2 => Self::Hangs,
            3 => Self::Stopped,
            4 => Self::Traced,
            _ => Self::Works,
        }
    }

    /// Whether somebody keeps the process from running.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Stopped | Self::Traced)
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Works => "ready",
            Self::Slow => "slow",
            Self::Hangs => "hung",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
        })
    }
}

/// State of a device process. The supervisor publishes it; whether it serves, it says itself ([`ProcessState::of`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessState {
    /// No such process.
    Absent = 0,
    /// Started, not attached yet.
    Starting = 1,
    /// Attached and serving.
    Ready = 2,
    /// It died; it will be started again.
    Restarting = 3,
    /// It died too often and is off the bus, until somebody brings it back: reads give all ones.
    Offline = 4,
    /// Another build is about to take its place.
    Swapping = 5,
}

impl ProcessState {
    /// How a process is of which the panel says `published` and which says itself whether it serves.
    pub fn of(published: Self, serves: bool) -> Self {
        match published {
            Self::Offline => Self::Offline,
            _ if serves => Self::Ready,
            // It panicked, and will be gone in a moment.
            Self::Ready => Self::Restarting,
            other => other,
        }
    }

    /// Whether nobody waits for the process: it is there, or was given up.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Offline)
    }

    /// From a word of the panel; unknown values count as absent.
    pub fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Starting,
            2 => Self::Ready,
            3 => Self::Restarting,
            4 => Self::Offline,
            5 => Self::Swapping,
            _ => Self::Absent,
        }
    }
}

/// What the vCPU publishes about itself.
#[repr(C, align(64))]
pub struct VcpuCell {
    /// A [`VcpuState`].
    pub state: AtomicU32,
    /// Times the vCPU started to run guest code after a halt or pause: while it and the state
    /// stand still, no guest store can have happened.
    pub activity: AtomicU32,
    /// Instructions interpreted since power-on; what runs as shadow code is not counted.
    pub instructions: AtomicU64,
    /// CS (bits 32-47) and EIP (0-31) where the vCPU last left guest code.
    pub cs_eip: AtomicU64,
    /// Virtual ns spent halted, for the speed display.
    pub halted_nanos: AtomicU64,
    /// Device process that the vCPU waits for, plus one; 0 for none.
    pub waits_for: AtomicU32,
    /// Host ns (CLOCK_MONOTONIC) since when it waits.
    pub waits_since: AtomicU64,
}

/// The panel. Created by the launcher, all zero but for the header.
#[repr(C)]
pub struct Panel {
    /// [`PANEL_MAGIC`].
    magic: AtomicU64,
    /// [`crate::message::PROTOCOL_VERSION`].
    version: AtomicU32,
    /// A [`RunState`].
    run_state: AtomicU32,
    /// Guest RAM, bytes.
    pub ram_bytes: AtomicU64,
    /// Unix time (seconds) at virtual time zero.
    pub start_unix_seconds: AtomicU64,
    /// Accesses are logged by device processes while not zero.
    pub log_accesses: AtomicU32,
    /// Resets of the machine so far.
    pub resets: AtomicU32,
    /// Not zero: the machine is off, see [`SWITCHED_OFF`] and [`KILLED`].
    pub powered_off: AtomicU32,
    /// Displays attached at present.
    pub displays: AtomicU32,
    /// The virtual clock.
    pub clock: SharedClock,
    /// The vCPU.
    pub vcpu: VcpuCell,
    /// The processes.
    pub processes: [ProcessCell; PROCESS_SLOTS],
    /// One bit per RAM page: decoded code of it is being kept.
    code: [AtomicU64; CODE_WORDS],
}

// SAFETY: Panel is repr(C) and consists of atomics and arrays and structs of atomics only.
unsafe impl Shared for Panel {}

const _: () = {
    assert!(align_of::<Panel>() <= 4096);
    assert!(std::mem::offset_of!(Panel, clock) == 64);
    assert!(size_of::<Panel>() < 128 << 10);
};

impl Panel {
    /// Writes the header. For the launcher, on fresh zeroed memory.
    pub fn initialise(&self, ram_bytes: u64, start_unix_seconds: u64) {
        self.ram_bytes.store(ram_bytes, Ordering::Relaxed);
        self.start_unix_seconds.store(start_unix_seconds, Ordering::Relaxed);
        self.version.store(crate::message::PROTOCOL_VERSION, Ordering::Relaxed);
        self.clock.initialise(Freeze::Paused);
        self.magic.store(PANEL_MAGIC, Ordering::Release);
    }

    /// For who may only read it.
    pub fn view(&self) -> &PanelView {
        // SAFETY: PanelView is a transparent wrapper of Panel.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    /// What the VM is told to do.
    pub fn run_state(&self) -> RunState {
        self.view().run_state()
    }

    /// As [`crate::chassis::Chassis::set_run_state`], without a word to the vCPU.
    pub(crate) fn store_run_state(&self, state: RunState) {
        self.run_state.store(state as u32, Ordering::Release);
    }

    /// The process cell of a slot, if there is such a slot.
    pub fn process(&self, slot: usize) -> Option<&ProcessCell> {
        self.processes.get(slot)
    }

    /// Says how the process in `slot` is. Nothing happens beyond the last slot.
    pub fn set_process_state(&self, slot: usize, state: ProcessState) {
        if let Some(cell) = self.process(slot) {
            cell.state.store(state as u32, Ordering::Release);
        }
    }

    /// Marks or unmarks the RAM page at `address` as holding decoded code. vCPU only.
    pub fn set_code(&self, address: u64, holds_code: bool) {
        if let Some((word, bit)) = code_bit(address) {
            // SYNC POINT code: a device that writes after it saw no mark may be missed only if
            // the page was decoded later than that; the decoder then sees its bytes.
            if holds_code {
                self.code[word].fetch_or(bit, Ordering::SeqCst);
            } else {
                self.code[word].fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }
}

fn code_bit(address: u64) -> Option<(usize, u64)> {
    let page = address >> PAGE_SHIFT;
    let word = (page / 64) as usize;
    (word < CODE_WORDS).then_some((word, 1 << (page % 64)))
}

/// The panel as who may only read it sees it: with loads that also work in memory which is mapped read-only.
#[repr(transparent)]
pub struct PanelView(Panel);

// SAFETY: the layout is that of Panel, and all functions of this and of ClockView load relaxed and at most 8 bytes.
unsafe impl Readable for PanelView {}

/// A load that sees what was stored before what it reads. Only relaxed loads are promised to work in memory that is
/// mapped read-only, hence the fence.
fn load(word: &AtomicU32) -> u32 {
    let value = word.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

impl PanelView {
    /// Whether it is a panel of this version.
    pub fn is_valid(&self) -> bool {
        let magic = self.0.magic.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        magic == PANEL_MAGIC && load(&self.0.version) == crate::message::PROTOCOL_VERSION
    }

    /// The virtual clock.
    #[inline]
    pub fn clock(&self) -> &ClockView {
        self.0.clock.view()
    }

    /// What the VM is told to do.
    pub fn run_state(&self) -> RunState {
        RunState::from_wire(load(&self.0.run_state))
    }

    /// Unix time (seconds) at virtual time zero.
    pub fn start_unix_seconds(&self) -> u64 {
        self.0.start_unix_seconds.load(Ordering::Relaxed)
    }

    /// Whether device processes log accesses.
    #[inline]
    pub fn logs_accesses(&self) -> bool {
        self.0.log_accesses.load(Ordering::Relaxed) != 0
    }

    /// How the vCPU is.
    pub fn vcpu_state(&self) -> VcpuState {
        VcpuState::from_wire(self.0.vcpu.state.load(Ordering::Relaxed))
    }

    /// See [`VcpuCell::activity`].
    pub fn vcpu_activity(&self) -> u32 {
        self.0.vcpu.activity.load(Ordering::Relaxed)
    }

    /// How the process in `slot` is, as far as the supervisor has noticed.
    pub fn process_state(&self, slot: usize) -> ProcessState {
        self.0.process(slot).map_or(ProcessState::Absent, |cell| ProcessState::from_wire(load(&cell.state)))
    }

    /// How well the process in `slot` is.
    pub fn health(&self, slot: usize) -> Health {
        self.0
            .process(slot)
            .map_or(Health::Works, |cell| Health::from_wire(cell.health.load(Ordering::Relaxed)))
    }

    /// Whether the RAM page at `address` holds decoded code. The caller orders this after its own stores to the page by a
    /// sequentially consistent fence (SYNC POINT code, [`Panel::set_code`]).
    #[inline]
    pub fn holds_code(&self, address: u64) -> bool {
        code_bit(address).is_some_and(|(word, bit)| self.0.code[word].load(Ordering::Relaxed) & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chassis::Chassis;
    use crate::segment::{ReadOnlySegment, SegmentNames};

    #[test]
    fn who_may_only_read_sees_what_is_written() {
        let names = SegmentNames::new(&format!("panel{}", std::process::id()));
        let chassis = Chassis::create(&names, 1 << 20, 1234).unwrap();
        let reader = ReadOnlySegment::open(&names.panel()).unwrap();
        let view: &PanelView = reader.view().unwrap();
        assert!(view.is_valid() && view.clock().is_frozen());
        assert_eq!((view.start_unix_seconds(), view.run_state()), (1234, RunState::Starting));
        let frozen = view.clock().changes();

        let panel = chassis.panel();
        chassis.set_run_state(RunState::Running);
        chassis.thaw(Freeze::Paused);
        panel.set_process_state(3, ProcessState::Swapping);
        panel.processes[3].health.store(Health::Traced as u32, Ordering::Relaxed);
        panel.log_accesses.store(1, Ordering::Relaxed);
        panel.vcpu.state.store(VcpuState::Halted as u32, Ordering::Relaxed);
        panel.set_code(0x5123, true);

        assert_eq!(view.run_state(), RunState::Running);
        assert!(view.clock().changes() != frozen && view.clock().now() <= panel.clock.now());
        assert_eq!((view.process_state(3), view.health(3)), (ProcessState::Swapping, Health::Traced));
        assert_eq!((view.process_state(99), view.health(99)), (ProcessState::Absent, Health::Works));
        assert!(view.logs_accesses());
        assert_eq!(view.vcpu_state(), VcpuState::Halted);
        assert!(view.holds_code(0x5fff) && !view.holds_code(0x6000) && !view.holds_code(u64::MAX));
    }

    #[test]
    fn a_process_says_itself_whether_it_serves_unless_it_is_off_the_bus() {
        use ProcessState::{Absent, Offline, Ready, Restarting, Starting, Swapping};
        let states = [Absent, Starting, Ready, Restarting, Offline, Swapping];
        let serving = states.map(|state| ProcessState::of(state, true));
        assert_eq!(serving, [Ready, Ready, Ready, Ready, Offline, Ready]);
        let not = states.map(|state| ProcessState::of(state, false));
        assert_eq!(not, [Absent, Starting, Restarting, Restarting, Offline, Swapping]);
    }
}
