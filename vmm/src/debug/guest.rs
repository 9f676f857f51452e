//! The guest as a debugger handles it: what `gdbstub` asks of it, and what it wants done.
//!
//! It knows processor and engine. When the guest runs, and time, is up to the monitor, which looks at
//! [`Control`].

use super::memory::{self, Place};
use super::{disassembly, fpu, registers};
use crate::cpu::bus::Bus;
use crate::cpu::hooks::{Watch, Watchpoint};
use crate::cpu::registers::{eflags, gpr};
use crate::cpu::{Activity, CpuModel, Seg, Vcpu};
use crate::engine::Engine;
use crate::interp::Exit;
use gdbstub::common::Signal;
use gdbstub::outputln;
use gdbstub::stub::SingleThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadRangeStepping, SingleThreadRangeSteppingOps, SingleThreadResume,
    SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_SSE;
use gdbstub_arch::x86::reg::X86CoreRegs;
use ipc::inspect::Address;
use std::collections::BTreeSet;
use std::convert::Infallible;

/// Which registers there are, for the debugger.
const DESCRIPTION: &[u8] = include_bytes!("target.xml");
/// errno: bad address.
const EFAULT: u8 = 14;
/// Most steps before the monitor gets a chance to look, when a debugger steps over a range.
const RANGE_STEPS: u32 = 1000;

const MONITOR_HELP: &str = "\
regs                 all registers
xp ADDRESS [BYTES]   dump physical memory
x ADDRESS [BYTES]    dump memory at a linear address or SEGMENT:OFFSET
disasm [ADDRESS [N]] disassemble [from the next instruction on]
reset                press the reset button (GDB does not notice: 'maintenance flush register-cache')
Numbers are hexadecimal.";

/// How the guest is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Until something stops it.
    Continue,
    /// For one instruction.
    Step,
    /// Instruction by instruction while EIP is at or above the first address and below the second.
    Range(u32, u32),
}

/// What the debugger wants.
#[derive(Default)]
pub struct Control {
    software: BTreeSet<u32>,
    hardware: BTreeSet<u32>,
    watchpoints: Vec<Watchpoint>,
    /// Linear address of the breakpoint where the guest was stopped last.
    stopped_at: Option<u32>,
    resume: Option<Resume>,
    reset: bool,
}

/// Processor and engine.
pub struct Guest<B: Bus> {
    /// The processor.
    pub vcpu: Vcpu<B>,
    /// What runs it.
    pub engine: Engine<B>,
    /// What a debugger wants of it.
    pub control: Control,
}

/// Why the guest stopped, for the debugger.
pub type Reason = SingleThreadStopReason<u32>;

impl<B: Bus> Guest<B> {
    /// A processor just after reset on `bus`, not debugged.
    pub fn new(bus: B, model: CpuModel, engine: Engine<B>) -> Self {
        Self { vcpu: Vcpu::with_model(bus, model), engine, control: Control::default() }
    }

    fn linear_pc(&self) -> u32 {
        self.vcpu.state.segment(Seg::Cs).base().wrapping_add(self.vcpu.state.eip)
    }

    /// How the guest is to go on; `None` for a guest that no debugger handles.
    pub fn resume_mode(&self) -> Option<Resume> {
        self.control.resume
    }

    /// Whether `monitor reset` was given since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.control.reset)
    }

    /// Forgets the debugger: no breakpoint, no watchpoint.
    pub fn let_go(&mut self) {
        self.control = Control::default();
        self.arm();
    }

    /// Puts break- and watchpoints in force.
    fn arm(&mut self) {
        let all = self.control.software.union(&self.control.hardware).copied().collect();
        self.engine.set_breakpoints(&mut self.vcpu, &all);
        if !self.control.watchpoints.is_empty() || self.vcpu.hooks.watches_data() {
            self.vcpu.set_watchpoints(self.control.watchpoints.clone());
        }
        self.vcpu.hooks.take_hit();
    }

    /// Called before the guest goes on for the debugger: one that stands where it was stopped by a breakpoint leaves
    /// it. Says why it stopped at once, if it did.
    pub fn depart(&mut self) -> Option<Reason> {
        self.arm();
        let at_breakpoint = self.control.stopped_at.take() == Some(self.linear_pc());
        if at_breakpoint && self.control.resume == Some(Resume::Continue) {
            let exit = self.engine.step(&mut self.vcpu);
            return self.stop_reason(exit);
        }
        None
    }

    /// Makes the step or steps that the debugger wants. Says why the guest is to stop, if it is.
    pub fn step(&mut self, mode: Resume) -> Option<Reason> {
        let (start, end) = match mode {
            Resume::Range(start, end) => (start, end),
            Resume::Continue | Resume::Step => (0, 0),
        };
        for _ in 0..RANGE_STEPS {
            let exit = self.engine.step(&mut self.vcpu);
            if let Some(reason) = self.stop_reason(exit) {
                return Some(reason);
            }
            if !(start..end).contains(&self.vcpu.state.eip) {
                return Some(Reason::DoneStep);
            }
            // One breakpoint inside the range stops there; the first instruction's own was left behind.
            let pc = self.linear_pc();
            if self.control.software.contains(&pc) || self.control.hardware.contains(&pc) {
                return self.stop_reason(Exit::Breakpoint);
            }
            if exit != Exit::Budget {
                break;
            }
        }
        None
    }

    /// Why the guest stopped, when the engine's answer is one for the debugger.
    pub fn stop_reason(&mut self, exit: Exit) -> Option<Reason> {
        let reason = match exit {
            Exit::Breakpoint => {
                let pc = self.linear_pc();
                self.control.stopped_at = Some(pc);
                // GDB looks for its breakpoint at EIP. Where the segment has a base it finds none, and
                // would go on without a word.
                if pc != self.vcpu.state.eip {
                    Reason::Signal(Signal::SIGTRAP)
                } else if self.control.software.contains(&pc) {
                    Reason::SwBreak(())
                } else {
                    Reason::HwBreak(())
                }
            }
            Exit::Watchpoint => match self.vcpu.hooks.take_hit() {
                Some(hit) => Reason::Watch { tid: (), kind: gdb_kind(hit.kind), addr: hit.linear },
                None => return None,
            },
            Exit::Budget | Exit::Halted | Exit::Attention | Exit::Shutdown | Exit::Difference => return None,
        };
        Some(reason)
    }

    /// Whether the processor waits for an interrupt.
    pub fn is_halted(&self) -> bool {
        self.vcpu.state.activity == Activity::Halted
    }

    fn set_resume(&mut self, resume: Resume) {
        self.control.resume = Some(resume);
    }

    fn command(&mut self, line: &str, out: &mut ConsoleOutput<'_>) {
        let words: Vec<_> = line.split_whitespace().collect();
        let length = |at: usize, default: u32, most: u32| match words.get(at) {
            None => Some(default),
            Some(text) => u32::from_str_radix(text.trim_start_matches("0x"), 16).ok().map(|n| n.min(most)),
        };
        let address = words.get(1).map(|text| text.parse::<Address>());
        match (words.first().copied(), address) {
            (Some("regs"), _) => outputln!(out, "{}", registers::describe(&mut self.vcpu).trim_end()),
            (Some("reset"), _) => {
                self.control.reset = true;
                outputln!(out, "The machine is reset");
            }
            (_, Some(Err(why))) => outputln!(out, "{why}"),
            (Some("xp" | "x"), Some(Ok(address))) => {
                let address = match address {
                    Address::Linear(linear) if words[0] == "xp" => Address::Physical(linear.into()),
                    other => other,
                };
                match (Place::find(&mut self.vcpu, address), length(2, 0x80, ipc::inspect::MAX_MEMORY)) {
                    (Some(place), Some(len)) => {
                        outputln!(out, "{}", memory::dump(&mut self.vcpu, place, len).trim_end());
                    }
                    (None, _) => outputln!(out, "No descriptor has that selector"),
                    (_, None) => outputln!(out, "The length is a hexadecimal number"),
                }
            }
            (Some("disasm"), address) => {
                let place = match address {
                    Some(Ok(address)) => Place::find(&mut self.vcpu, address),
                    _ => Some(Place::next_instruction(&self.vcpu)),
                };
                match (place, length(2, 0x10, ipc::inspect::MAX_INSTRUCTIONS)) {
                    (Some(place), Some(count)) => {
                        let text = disassembly::disassemble(&mut self.vcpu, place, count);
                        outputln!(out, "{}", text.trim_end());
                    }
                    (None, _) => outputln!(out, "No descriptor has that selector"),
                    (_, None) => outputln!(out, "The count is a hexadecimal number"),
                }
            }
            _ => outputln!(out, "{MONITOR_HELP}"),
        }
    }
}

fn gdb_kind(kind: Watch) -> WatchKind {
    match kind {
        Watch::Write => WatchKind::Write,
        Watch::Read => WatchKind::Read,
        Watch::Access => WatchKind::ReadWrite,
    }
}

impl<B: Bus> Target for Guest<B> {
    type Arch = X86_SSE;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn use_rle(&self) -> bool {
        // Answers need not be short on this machine, but readable in 'set debug remote'.
        false
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl<B: Bus> SingleThreadBase for Guest<B> {
    fn read_registers(&mut self, regs: &mut X86CoreRegs) -> TargetResult<(), Self> {
        let flags = self.vcpu.flags();
        let state = &self.vcpu.state;
        regs.eax = state.gpr[gpr::EAX];
        regs.ecx = state.gpr[gpr::ECX];
        regs.edx = state.gpr[gpr::EDX];
        regs.ebx = state.gpr[gpr::EBX];
        regs.esp = state.gpr[gpr::ESP];
        regs.ebp = state.gpr[gpr::EBP];
        regs.esi = state.gpr[gpr::ESI];
        regs.edi = state.gpr[gpr::EDI];
        regs.eip = state.eip;
        regs.eflags = flags;
        let selector = |seg| u32::from(state.segment(seg).selector);
        regs.segments.cs = selector(Seg::Cs);
        regs.segments.ss = selector(Seg::Ss);
        regs.segments.ds = selector(Seg::Ds);
        regs.segments.es = selector(Seg::Es);
        regs.segments.fs = selector(Seg::Fs);
        regs.segments.gs = selector(Seg::Gs);
        fpu::read(&state.fpu, regs);
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86CoreRegs) -> TargetResult<(), Self> {
        // Segments first: one that cannot be loaded refuses the whole write. CS always does: with it
        // the privilege level would change.
        let segments = &regs.segments;
        if segments.cs != u32::from(self.vcpu.state.segment(Seg::Cs).selector) {
            return Err(TargetError::NonFatal);
        }
        let data = [
            (Seg::Ss, segments.ss),
            (Seg::Ds, segments.ds),
            (Seg::Es, segments.es),
            (Seg::Fs, segments.fs),
            (Seg::Gs, segments.gs),
        ];
        for (seg, selector) in data {
            let loaded = self.vcpu.state.segment(seg).selector;
            let selector = u16::try_from(selector).map_err(|_| TargetError::NonFatal)?;
            if selector != loaded && self.vcpu.load_segment(seg, selector).is_err() {
                return Err(TargetError::NonFatal);
            }
        }
        let state = &mut self.vcpu.state;
        state.gpr[gpr::EAX] = regs.eax;
        state.gpr[gpr::ECX] = regs.ecx;
        state.gpr[gpr::EDX] = regs.edx;
        state.gpr[gpr::EBX] = regs.ebx;
        state.gpr[gpr::ESP] = regs.esp;
        state.gpr[gpr::EBP] = regs.ebp;
        state.gpr[gpr::ESI] = regs.esi;
        state.gpr[gpr::EDI] = regs.edi;
        state.eip = regs.eip;
        // The mode stays what it is.
        let mode = state.eflags & eflags::VM;
        fpu::write(&mut state.fpu, regs, state.model.mxcsr_mask());
        self.vcpu.update_fpu_summary();
        self.vcpu.set_flags(regs.eflags & !eflags::VM | mode);
        Ok(())
    }

    fn read_addrs(&mut self, start: u32, data: &mut [u8]) -> TargetResult<usize, Self> {
        match memory::read_linear(&mut self.vcpu, start, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            read => Ok(read),
        }
    }

    fn write_addrs(&mut self, start: u32, data: &[u8]) -> TargetResult<(), Self> {
        if memory::write_linear(&mut self.vcpu, start, data) {
            Ok(())
        } else {
            Err(TargetError::Errno(EFAULT))
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl<B: Bus> SingleThreadResume for Guest<B> {
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), Infallible> {
        // A PC has no signals to pass on.
        self.set_resume(Resume::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<SingleThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
}

impl<B: Bus> SingleThreadSingleStep for Guest<B> {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.set_resume(Resume::Step);
        Ok(())
    }
}

impl<B: Bus> SingleThreadRangeStepping for Guest<B> {
    fn resume_range_step(&mut self, start: u32, end: u32) -> Result<(), Infallible> {
        self.set_resume(Resume::Range(start, end));
        Ok(())
    }
}

impl<B: Bus> Breakpoints for Guest<B> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<B: Bus> SwBreakpoint for Guest<B> {
    fn add_sw_breakpoint(&mut self, linear: u32, _kind: usize) -> TargetResult<bool, Self> {
        self.control.software.insert(linear);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, linear: u32, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.control.software.remove(&linear))
    }
}

impl<B: Bus> HwBreakpoint for Guest<B> {
    fn add_hw_breakpoint(&mut self, linear: u32, _kind: usize) -> TargetResult<bool, Self> {
        self.control.hardware.insert(linear);
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, linear: u32, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.control.hardware.remove(&linear))
    }
}

fn watchpoint(linear: u32, len: u32, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Write => Watch::Write,
        WatchKind::Read => Watch::Read,
        WatchKind::ReadWrite => Watch::Access,
    };
    Watchpoint { linear, len: len.max(1), kind }
}

impl<B: Bus> HwWatchpoint for Guest<B> {
    fn add_hw_watchpoint(&mut self, linear: u32, len: u32, kind: WatchKind) -> TargetResult<bool, Self> {
        self.control.watchpoints.push(watchpoint(linear, len, kind));
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, linear: u32, len: u32, kind: WatchKind) -> TargetResult<bool, Self> {
        let wanted = watchpoint(linear, len, kind);
        let found = self.control.watchpoints.iter().position(|watch| *watch == wanted);
        Ok(found.map(|at| self.control.watchpoints.swap_remove(at)).is_some())
    }
}

impl<B: Bus> MonitorCmd for Guest<B> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        self.command(&String::from_utf8_lossy(command), &mut out);
        Ok(())
    }
}

impl<B: Bus> TargetDescriptionXmlOverride for Guest<B> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let rest = usize::try_from(offset).ok().and_then(|at| DESCRIPTION.get(at..)).unwrap_or_default();
        let len = rest.len().min(length).min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}
