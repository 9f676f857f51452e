//! The interpreter, one instruction at a time on copies of memory, and when its state counts as the same.
#![expect(unsafe_code, reason = "asks a bus whose type it does not know")]

use super::Run;
use super::flags::{CodePages, Undefined};
use super::report::register_differences;
use crate::cpu::bus::{Bus, PAGE_SIZE, PageGrant};
use crate::cpu::overlay::{Disagreement, Overlay};
use crate::cpu::registers::{eflags, gpr};
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{CpuState, Seg, Vcpu};
use crate::interp::Interp;
use crate::shadow::scanner::CodeBytes;
use iced_x86::OpKind;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::ffi::c_void;

/// Most instructions (and iterations) that the reference runs in search of the state that shadow code left: more than one run of it
/// has.
const MOST: u64 = 1 << 18;
/// Most places in memory that are remembered of a difference.
const MOST_PLACES: usize = 64;

/// The machine's bus, for pages that shadow code has not touched.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    bus: *mut c_void,
    page: unsafe fn(*mut c_void, u64) -> PageGrant,
}

impl Machine {
    /// Whoever uses it does so while nobody else uses `bus`.
    pub(super) fn of<B: Bus>(bus: &mut B) -> Self {
        unsafe fn page<B: Bus>(bus: *mut c_void, address: u64) -> PageGrant {
            // SAFETY: made of a `&mut B` by `of`; `judge`, the only user, does not outlive that.
            unsafe { &mut *bus.cast::<B>() }.page(address)
        }
        Self { bus: std::ptr::from_mut(bus).cast(), page: page::<B> }
    }

    fn page(self, address: u64) -> PageGrant {
        // SAFETY: see `of`.
        unsafe { (self.page)(self.bus, address) }
    }
}

/// The machine as the reference sees it: copies, and nothing else.
#[derive(Default)]
struct Copies {
    overlay: Box<Overlay>,
    a20: bool,
    generation: u64,
    /// Where pages come from of which there is no copy yet.
    machine: Option<Machine>,
    /// A port or memory that is nobody's or a device's.
    device: Option<u64>,
}

impl Bus for Copies {
    fn page(&mut self, address: u64) -> PageGrant {
        if let Some(grant) = self.overlay.second(address) {
            return grant;
        }
        if let Some(machine) = self.machine {
            self.overlay.add(address, machine.page(address));
        }
        self.overlay.second(address).unwrap_or_default()
    }
    fn map_generation(&self) -> u64 {
        self.generation
    }
    fn read_memory(&mut self, address: u64, width: Width) -> u32 {
        self.device.get_or_insert(address);
        width.mask()
    }
    fn write_memory(&mut self, address: u64, _width: Width, _value: u32) {
        self.device.get_or_insert(address);
    }
    fn read_port(&mut self, port: u16, width: Width) -> u32 {
        self.device.get_or_insert(port.into());
        width.mask()
    }
    fn write_port(&mut self, port: u16, _width: Width, _value: u32) {
        self.device.get_or_insert(port.into());
    }
    fn a20_enabled(&self) -> bool {
        self.a20
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// What the reference made of the same instructions.
pub(super) struct Differs {
    /// After so many of them.
    pub(super) instructions: u64,
    /// Its state then.
    pub(super) state: CpuState,
    /// Where memory is not the same.
    pub(super) memory: Vec<Disagreement>,
    /// Its EIP is where shadow code was left; otherwise the reference never came there.
    pub(super) same_place: bool,
    /// Why the reference could not go on.
    pub(super) stopped: Option<&'static str>,
    /// Arithmetic flags that may differ.
    pub(super) free_flags: u32,
    /// The bytes of the code, the whole page of the first instruction.
    pub(super) code: Option<CodeBytes>,
}

/// What [`Reference::judge`] finds.
pub(super) enum Verdict {
    /// After so many instructions the reference is where shadow code is.
    Same(u64),
    /// It never is.
    Differs(Box<Differs>),
}

/// See the module's description.
pub(super) struct Reference {
    cpu: Vcpu<Copies>,
    interp: Interp<Copies>,
    /// Linear addresses of the instructions.
    path: Vec<u32>,
    pages: CodePages,
}

impl Reference {
    pub(super) fn new() -> Self {
        let mut cpu = Vcpu::new(Copies::default());
        cpu.updated_entries = Some(Vec::new());
        let mut interp = Interp::new();
        interp.remember_steps();
        Self { cpu, interp, path: Vec::new(), pages: CodePages::default() }
    }

    /// Linear addresses of the instructions that were executed.
    pub(super) fn path(&self) -> &[u32] {
        &self.path
    }

    /// Runs from `before` until everything is as in `shadow` and the first version of `overlay`. Pages that are not there yet are
    /// copied from `machine`.
    pub(super) fn judge<B: Bus>(
        &mut self,
        before: &CpuState,
        shadow: &CpuState,
        run: &Run,
        overlay: Box<Overlay>,
        machine: &mut B,
        walked: &[u64],
    ) -> (Box<Overlay>, Verdict) {
        let a20 = machine.a20_enabled();
        let bus = &mut self.cpu.bus;
        let machine = Some(Machine::of(machine));
        *bus = Copies { overlay, a20, generation: bus.generation, machine, device: None };
        self.restart(before, walked);
        let mut verdict = self.search(shadow, run, None);
        if matches!(verdict, Verdict::Differs(_)) {
            // Once more, to tell where it comes nearest.
            self.restart(before, walked);
            verdict = self.search(shadow, run, Some(Vec::new()));
        }
        self.cpu.bus.machine = None;
        (std::mem::take(&mut self.cpu.bus.overlay), verdict)
    }

    fn restart(&mut self, before: &CpuState, walked: &[u64]) {
        let bus = &mut self.cpu.bus;
        bus.overlay.restart_second();
        bus.generation += 1;
        bus.device = None;
        self.cpu.state.clone_from(before);
        self.cpu.state_replaced();
        self.path.clear();
        if let Some(updated) = &mut self.cpu.updated_entries {
            updated.clear();
            updated.extend_from_slice(walked);
        }
    }

    /// `found`: remember where the reference was at the same place.
    fn search(&mut self, shadow: &CpuState, run: &Run, mut found: Option<Vec<(usize, Differs)>>) -> Verdict {
        // As `Witness::before` does.
        _ = self.cpu.translate_code(self.cpu.state.eip);
        let mut stopped = None;
        let mut instructions = 0;
        loop {
            if self.cpu.state.eip == shadow.eip {
                if self.same_registers(shadow, run) && self.disagreements(1).is_empty() {
                    return Verdict::Same(instructions);
                }
                let behind = self.elements_behind(shadow, run);
                if behind > 0 {
                    self.step_elements(behind);
                    continue;
                }
                if let Some(found) =
                    found.as_mut().filter(|found| instructions > 0 && found.len() < MOST_PLACES)
                {
                    let differs = self.differs(instructions, true);
                    let distance = register_differences(&differs.state, shadow).len() + differs.memory.len();
                    found.push((distance, differs));
                }
            }
            if instructions == MOST || stopped.is_some() {
                break;
            }
            let faults = self.interp.statistics().faults;
            let at = self.cpu.state.segment(Seg::Cs).base().wrapping_add(self.cpu.state.eip);
            self.interp.step(&mut self.cpu);
            stopped = if self.interp.statistics().faults != faults {
                Some("it raises an exception")
            } else if self.cpu.bus.device.is_some() {
                Some("it accesses a device")
            } else if self.cpu.state.activity != Activity::Running {
                Some("it halts")
            } else {
                None
            };
            self.path.push(at);
            instructions += 1;
        }
        let nearest = found.unwrap_or_default().into_iter().min_by_key(|(distance, _)| *distance);
        let mut found = nearest
            .map(|(_, differs)| differs)
            .unwrap_or_else(|| Differs { stopped, ..self.differs(instructions, false) });
        let path = self
            .path
            .get(..usize::try_from(found.instructions).unwrap_or(usize::MAX))
            .unwrap_or(&self.path)
            .to_vec();
        found.free_flags = self.flags_that_may_differ(&path, shadow, run, u32::MAX);
        found.code = self.code_bytes(run.start, true).map(|(_, code)| code);
        Verdict::Differs(Box::new(found))
    }

    /// How many elements of a repeated store or move the reference has yet to do until it is where shadow code gave way in the midst of
    /// one: at a page that is not there, or to an interrupt.
    fn elements_behind(&mut self, shadow: &CpuState, run: &Run) -> u32 {
        let state = &self.cpu.state;
        let others = |state: &CpuState| {
            let mut others = state.gpr;
            for n in [gpr::ECX, gpr::ESI, gpr::EDI] {
                others[n] = 0;
            }
            others
        };
        let left = |state: &CpuState| state.gpr[gpr::ECX];
        if !run.mode.code32()
            || left(shadow) == 0
            || left(state) <= left(shadow)
            || others(state) != others(shadow)
        {
            return 0;
        }
        let behind = left(state) - left(shadow);
        let linear = run.mode.linear(state.eip);
        let Some((physical, bytes)) = self.code_bytes(linear, true) else { return 0 };
        let page = self.pages.page(physical, linear, run.mode, bytes);
        let repeats = page.instruction(linear).is_some_and(|instruction| {
            instruction.is_string_instruction()
                && instruction.has_rep_prefix()
                && instruction.op0_kind() == OpKind::MemoryESEDI
        });
        if repeats { behind } else { 0 }
    }

    /// So many elements of a repeated instruction, and no more.
    fn step_elements(&mut self, elements: u32) {
        let (eip, rest) = (self.cpu.state.eip, self.cpu.state.gpr[gpr::ECX] - elements);
        self.cpu.state.gpr[gpr::ECX] = elements;
        let faults = self.interp.statistics().faults;
        // (It gives way to itself now and then.)
        while self.cpu.state.eip == eip && self.interp.statistics().faults == faults {
            self.interp.step(&mut self.cpu);
        }
        if self.interp.statistics().faults == faults {
            self.cpu.state.eip = eip;
        }
        self.cpu.state.gpr[gpr::ECX] += rest;
    }

    fn disagreements(&self, most: usize) -> Vec<Disagreement> {
        self.cpu.bus.overlay.disagreements(self.cpu.updated_entries.as_deref().unwrap_or_default(), most)
    }

    /// The page of code around a linear address, and its physical address; with what follows on the next page, if that is wanted and
    /// can be had.
    fn code_bytes(&mut self, linear: u32, with_next: bool) -> Option<(u64, CodeBytes)> {
        let page = linear & !(PAGE_SIZE as u32 - 1);
        let physical = self.cpu.debug_translate(page)?;
        let next = page.checked_add(PAGE_SIZE as u32).filter(|_| with_next);
        let next = next.and_then(|next| self.cpu.debug_translate(next));
        for page in [Some(physical), next].into_iter().flatten() {
            self.cpu.bus.page(page);
        }
        let overlay = &mut self.cpu.bus.overlay;
        let next = next.and_then(|page| overlay.before(page).copied());
        Some((physical, CodeBytes::of(overlay.before(physical)?, next.as_ref())))
    }

    /// Of the arithmetic flags `differing`, in which shadow code that was left in state `shadow` differs after the instructions at `path`, at
    /// least those that may differ.
    fn flags_that_may_differ(&mut self, path: &[u32], shadow: &CpuState, run: &Run, differing: u32) -> u32 {
        let linear = run.mode.linear(shadow.eip);
        let mut may = 0;
        // All are live where a far transfer has led. What follows on the next page hardly ever matters.
        let stayed = shadow.segment(Seg::Cs).base() == run.mode.cs_base;
        for with_next in [false, true].into_iter().filter(|_| stayed) {
            if let Some((physical, bytes)) = self.code_bytes(linear, with_next) {
                may |= self.pages.page(physical, linear, run.mode, bytes).dead_flags(linear);
            }
            if differing & !may == 0 {
                return may;
            }
        }
        let mut open = Undefined::default();
        for linear in path.iter().rev() {
            let Some((physical, bytes)) = self.code_bytes(*linear, true) else { break };
            let page = self.pages.page(physical, *linear, run.mode, bytes);
            if !page.instruction(*linear).is_some_and(|instruction| open.went_through(&instruction)) {
                break;
            }
        }
        may | open.flags()
    }

    fn differs(&self, instructions: u64, same_place: bool) -> Differs {
        Differs {
            instructions,
            state: self.cpu.state.clone(),
            memory: self.disagreements(MOST_PLACES),
            same_place,
            stopped: None,
            free_flags: 0,
            code: None,
        }
    }

    fn same_registers(&mut self, shadow: &CpuState, run: &Run) -> bool {
        let state = &mut self.cpu.state;
        if state.gpr != shadow.gpr {
            return false;
        }
        let own = std::mem::replace(&mut state.eflags, shadow.eflags);
        let own_shadow = state.interrupt_shadow;
        // What shadow code declines is interpreted before anybody looks for interrupts.
        if run.declined && own_shadow == InterruptShadow::Sti {
            state.interrupt_shadow = shadow.interrupt_shadow;
        }
        let same = *state == *shadow;
        (state.eflags, state.interrupt_shadow) = (own, own_shadow);
        let differing = own ^ shadow.eflags;
        if !same || differing & !eflags::ARITHMETIC != 0 {
            return false;
        }
        if differing == 0 {
            return true;
        }
        let path = std::mem::take(&mut self.path);
        let may = self.flags_that_may_differ(&path, shadow, run, differing);
        self.path = path;
        differing & !may == 0
    }
}
