//! The interpreter, one instruction at a time on copies of memory, and when its state counts as the same.

use super::Run;
use super::flags;
use super::report::register_differences;
use crate::cpu::bus::{Bus, PAGE_SIZE, PageGrant};
use crate::cpu::overlay::{Disagreement, Overlay};
use crate::cpu::registers::eflags;
use crate::cpu::state::{Activity, InterruptShadow};
use crate::cpu::{CpuState, Seg, Vcpu};
use crate::interp::Interp;
use crate::shadow::scanner::CodeBytes;
use ipc::time::VirtualTime;
use ipc::width::Width;

/// Most instructions (and iterations) that the reference runs in search of the state that shadow code left: more than one run of it
/// can have, which stays on a page and never jumps back.
const MOST: u64 = 16384;
/// Most places in memory that are remembered of a difference.
const MOST_PLACES: usize = 64;

/// The machine as the reference sees it: copies, and nothing else.
#[derive(Default)]
struct Copies {
    overlay: Box<Overlay>,
    a20: bool,
    generation: u64,
    /// A page of which there is no copy.
    needs: Option<u64>,
    /// A port or memory that is nobody's or a device's.
    device: Option<u64>,
}

impl Bus for Copies {
    fn page(&mut self, address: u64) -> PageGrant {
        self.overlay.second(address).unwrap_or_else(|| {
            self.needs.get_or_insert(address);
            PageGrant::default()
        })
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
    /// The bytes of the code.
    pub(super) code: Option<CodeBytes>,
}

/// What [`Reference::judge`] finds.
pub(super) enum Verdict {
    /// After so many instructions the reference is where shadow code is.
    Same(u64),
    /// It never is.
    Differs(Box<Differs>),
    /// This page must be copied first.
    Needs(u64),
}

/// Where the processor is.
fn linear_eip(state: &CpuState) -> u32 {
    state.segment(Seg::Cs).base().wrapping_add(state.eip)
}

/// See the module's description.
pub(super) struct Reference {
    cpu: Vcpu<Copies>,
    interp: Interp<Copies>,
    /// Linear addresses of the instructions.
    path: Vec<u32>,
}

impl Reference {
    pub(super) fn new() -> Self {
        let mut cpu = Vcpu::new(Copies::default());
        cpu.updated_entries = Some(Vec::new());
        Self { cpu, interp: Interp::new(), path: Vec::new() }
    }

    /// Linear addresses of the instructions that were executed.
    pub(super) fn path(&self) -> &[u32] {
        &self.path
    }

    /// Runs from `before` until everything is as in `shadow` and the first version of `overlay`.
    pub(super) fn judge(
        &mut self,
        before: &CpuState,
        shadow: &CpuState,
        run: &Run,
        overlay: Box<Overlay>,
        a20: bool,
        walked: &[u64],
    ) -> (Box<Overlay>, Verdict) {
        let bus = &mut self.cpu.bus;
        *bus = Copies { overlay, a20, generation: bus.generation, needs: None, device: None };
        self.restart(before, walked);
        let mut verdict = self.search(shadow, run, None);
        if matches!(verdict, Verdict::Differs(_)) {
            // Once more, to tell where it comes nearest.
            self.restart(before, walked);
            verdict = self.search(shadow, run, Some(Vec::new()));
        }
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
                if let Some(page) = self.cpu.bus.needs {
                    return Verdict::Needs(page);
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
            if let Some(page) = self.cpu.bus.needs {
                return Verdict::Needs(page);
            }
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
        found.free_flags =
            self.code(run).map_or(0, |code| flags::that_may_differ(&code, &path, linear_eip(shadow), run));
        found.code = self.code(run);
        Verdict::Differs(Box::new(found))
    }

    fn disagreements(&self, most: usize) -> Vec<Disagreement> {
        self.cpu.bus.overlay.disagreements(self.cpu.updated_entries.as_deref().unwrap_or_default(), most)
    }

    /// The code of a run, with what follows on the next page if that can be had.
    pub(super) fn code(&mut self, run: &Run) -> Option<CodeBytes> {
        let next = (run.start | (PAGE_SIZE as u32 - 1)).wrapping_add(1);
        let next = self.cpu.debug_translate(next);
        let overlay = &mut self.cpu.bus.overlay;
        if let Some(page) = next.filter(|page| !overlay.has(*page)) {
            self.cpu.bus.needs.get_or_insert(page);
        }
        let next = next.and_then(|page| overlay.before(page));
        Some(CodeBytes::of(&overlay.before(run.code_page)?, next.as_ref()))
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
        let code = self.code(run);
        code.is_some_and(|code| {
            differing & !flags::that_may_differ(&code, &self.path, linear_eip(shadow), run) == 0
        })
    }
}
