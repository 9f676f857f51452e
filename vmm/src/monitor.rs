//! The monitor: the loop around the CPU. Runs guest code until something wants attention, then
//! deals with that: interrupts, resets, pauses, halts, shutdowns, debuggers.

use crate::bus::MachineBus;
use crate::cpu::bus::Bus;
use crate::cpu::registers::eflags;
use crate::cpu::{Activity, CpuModel, InvalidState, Seg};
use crate::debug::guest::{Guest, Reason, Resume};
use crate::debug::session::{After, Session, Stream};
use crate::debug::{self, Desk};
use crate::engine::Engine;
use crate::interp::Exit;
use crate::saved::Processor;
use gdbstub::common::Signal;
use ipc::board::{ResetRequest, attention};
use ipc::clock::Freeze;
use ipc::inspect::{Inspect, Inspected};
use ipc::panel::{KILLED, RunState, SWITCHED_OFF, VMM_SLOT, VcpuState};
use ipc::setup::Exported;
use ipc::sync::Ordering;
use ipc_channel::ipc::IpcSender;
use std::time::Duration;

/// Instructions per run of guest code between two updates of the published counters.
const SLICE: u64 = 200_000;
/// Longest sleep while halted or paused: the doorbell ends it sooner.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Two engines that are compared came to different results: the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginesDiffer(pub String);

/// One virtual CPU with its engine.
pub struct Monitor {
    guest: Guest<MachineBus>,
    instructions: u64,
    desk: Desk,
    /// The debugger that is connected.
    session: Option<Session<MachineBus>>,
    /// The guest is not to start before a debugger has connected.
    waits_for_debugger: bool,
    /// A debugger holds the guest, and time stands still for it.
    held: bool,
    /// The VM is being saved: nothing is to happen, and time stands still for it.
    parked: bool,
    /// The debugger has let the guest go, which has not left yet. (It may have been held for too short a time to be seen as `held`.)
    departs: bool,
    /// The debugger has seen the triple fault that is to be dealt with.
    shutdown_shown: bool,
}

impl Monitor {
    /// A CPU just after reset on `bus`.
    pub fn new(bus: MachineBus, model: CpuModel, engine: Engine<MachineBus>, desk: Desk) -> Self {
        Self {
            guest: Guest::new(bus, model, engine),
            instructions: 0,
            desk,
            session: None,
            waits_for_debugger: false,
            held: false,
            parked: false,
            departs: false,
            shutdown_shown: false,
        }
    }

    /// Goes on from a state that was saved.
    ///
    /// # Errors
    /// [`InvalidState`].
    pub fn restore(&mut self, saved: Processor) -> Result<(), InvalidState> {
        let vcpu = &mut self.guest.vcpu;
        vcpu.load_state(saved.cpu)?;
        vcpu.bus.load_state(saved.bus);
        let (cs, eip) = (vcpu.state.segment(Seg::Cs).selector, vcpu.state.eip);
        self.set_log_context();
        tracing::info!("The guest goes on at {cs:04x}:{eip:08x}, where it was saved");
        Ok(())
    }

    /// Brings guest and devices to rest for the VM to be saved, and gives the state of the VMM.
    fn park(&mut self, answer: &IpcSender<Exported>) {
        let vcpu = &mut self.guest.vcpu;
        vcpu.bus.panel().clock.freeze(Freeze::HandOver);
        vcpu.bus.settle();
        vcpu.sync_flags();
        let saved = Processor { cpu: vcpu.state.clone(), bus: vcpu.bus.state() };
        self.parked = true;
        // The supervisor may be gone, or have given up.
        let taken = saved.encode().ok().is_some_and(|saved| answer.send(saved).is_ok());
        if !taken {
            self.unpark();
        }
    }

    fn unpark(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.guest.vcpu.bus.chassis().thaw(Freeze::HandOver);
        }
    }

    /// Runs until the VM stops.
    ///
    /// # Errors
    /// [`EnginesDiffer`] when the engine compares, and found a difference.
    pub fn run(&mut self) -> Result<(), EnginesDiffer> {
        // Nobody calls the vCPU for a run state that never changed: it looks once itself.
        if !self.follow_run_state() {
            return Ok(());
        }
        loop {
            if !self.attend() {
                return Ok(());
            }
            if let Some(mode @ (Resume::Step | Resume::Range(..))) = self.guest.resume_mode() {
                self.step(mode);
                continue;
            }
            self.deliver_interrupt();
            self.set_state(VcpuState::Running);
            let exit = self.guest.engine.run(&mut self.guest.vcpu, SLICE);
            self.guest.vcpu.bus.settle_bells();
            self.publish_progress();
            match exit {
                Exit::Budget | Exit::Attention => {}
                Exit::Halted => self.halt(),
                Exit::Shutdown => self.shutdown(),
                Exit::Difference => {
                    self.set_state(VcpuState::Off);
                    return Err(EnginesDiffer(self.guest.engine.difference().unwrap_or_default().into()));
                }
                Exit::Breakpoint | Exit::Watchpoint => {
                    if let Some(reason) = self.guest.stop_reason(exit) {
                        self.report(reason);
                    }
                }
            }
        }
    }

    /// One step for the debugger. Interrupts wait meanwhile, except for what ends a HLT: otherwise
    /// every step would end in the handler of the timer.
    fn step(&mut self, mode: Resume) {
        if self.guest.is_halted() {
            self.deliver_interrupt();
            if self.guest.is_halted() {
                self.halt();
            } else {
                self.report(Reason::DoneStep);
            }
            return;
        }
        self.set_state(VcpuState::Running);
        let reason = self.guest.step(mode);
        self.guest.vcpu.bus.settle_bells();
        self.publish_progress();
        if self.guest.vcpu.state.activity == Activity::Shutdown {
            self.shutdown();
        } else if let Some(reason) = reason {
            self.report(reason);
        }
    }

    /// Deals with what others want from the vCPU. False when the VM stops.
    fn attend(&mut self) -> bool {
        let bits = self.guest.vcpu.bus.board().attention();
        if bits & !attention::ALL != 0 {
            // From a process that misbehaves. Nobody would take them, and the vCPU would look who calls for ever: it would
            // neither sleep nor run shadow code for long.
            self.guest.vcpu.bus.board().take_attention(!attention::ALL);
        }
        if bits & !attention::INTR == 0 {
            return !(self.parked || self.debugger_holds()) || self.follow_run_state();
        }
        if bits & attention::MAP != 0 {
            self.guest.vcpu.bus.board().take_attention(attention::MAP);
            self.guest.vcpu.bus.refresh_map();
            self.guest.vcpu.sync_map();
        }
        if bits & attention::RESET != 0 {
            self.guest.vcpu.bus.board().take_attention(attention::RESET);
            self.reset();
        }
        if bits & attention::PROCESS_ENDS != 0 {
            self.guest.vcpu.bus.board().take_attention(attention::PROCESS_ENDS);
            self.guest.vcpu.bus.wait_for_ending();
        }
        if bits & attention::POWER != 0 {
            self.switch_off();
        }
        if bits & attention::DEBUG != 0 {
            self.serve_desk();
        }
        if bits & attention::RUN_STATE != 0 {
            self.guest.vcpu.bus.board().take_attention(attention::RUN_STATE);
            return self.follow_run_state();
        }
        bits & (attention::DEBUG | attention::POWER) == 0 || self.follow_run_state()
    }

    /// Switches the machine off if a device has asked for that.
    fn switch_off(&self) {
        let bus = &self.guest.vcpu.bus;
        bus.board().take_attention(attention::POWER);
        if bus.board().take_power_off() {
            bus.panel().powered_off.store(SWITCHED_OFF, Ordering::Release);
        }
    }

    fn debugger_holds(&self) -> bool {
        self.waits_for_debugger || self.session.as_ref().is_some_and(|s| s.state() == After::Stopped)
    }

    /// Stops time while a debugger holds the guest, and lets go what it holds no more. True when the
    /// guest may run as far as the debugger is concerned.
    fn follow_debugger(&mut self) -> bool {
        let holds = self.debugger_holds();
        if holds != self.held {
            self.held = holds;
            let chassis = self.guest.vcpu.bus.chassis();
            if holds {
                chassis.panel().clock.freeze(Freeze::Debugger);
            } else {
                chassis.thaw(Freeze::Debugger);
            }
        }
        if !holds
            && std::mem::take(&mut self.departs)
            && self.session.is_some()
            && let Some(reason) = self.guest.depart()
        {
            self.report(reason);
            return self.follow_debugger();
        }
        !holds
    }

    /// Tells the debugger why the guest stopped.
    fn report(&mut self, reason: Reason) {
        if let Some(session) = &mut self.session {
            let after = session.report(&mut self.guest, reason);
            self.after_session(after);
        }
    }

    /// Takes the consequences of what the debugger said.
    fn after_session(&mut self, after: After) {
        if self.guest.take_reset() {
            self.guest.vcpu.bus.board().request_reset(ResetRequest::Machine);
            self.reset();
        }
        match after {
            After::Stopped | After::Running => {}
            After::Detached => self.end_session(),
            After::Killed => {
                self.end_session();
                tracing::info!("The debugger killed the VM");
                let bus = &self.guest.vcpu.bus;
                bus.panel().powered_off.store(KILLED, Ordering::Release);
                bus.board().call_vcpu(attention::RUN_STATE);
            }
        }
    }

    fn end_session(&mut self) {
        if self.session.take().is_some() {
            self.set_log_context();
            self.guest.let_go();
            tracing::info!("The debugger has let go of the guest");
        }
    }

    fn begin_session(&mut self, id: u64, stream: Box<dyn Stream>) {
        self.set_log_context();
        if self.session.is_some() {
            tracing::warn!("A second debugger is turned away");
            stream.close();
            return;
        }
        self.session = Session::new(id, stream, &mut self.guest);
        if self.session.is_some() {
            self.waits_for_debugger = false;
            tracing::info!("A debugger is connected, and the guest stops");
        }
    }

    /// Answers those who look at the guest from outside.
    fn serve_desk(&mut self) {
        // Taken before the desk is looked at: an event that is left meanwhile sets it again.
        self.guest.vcpu.bus.board().take_attention(attention::DEBUG);
        while let Some(event) = self.desk.take() {
            match event {
                debug::Event::Inspect(what, answer) => {
                    let reply = self.inspect(&what);
                    // Whoever asked may have gone.
                    let _ = answer.send(reply);
                }
                debug::Event::Export(answer) => self.park(&answer),
                debug::Event::GoOn => self.unpark(),
                debug::Event::Connected(id, stream) => self.begin_session(id, stream),
                debug::Event::Received(id, bytes) => {
                    if let Some(session) = self.session.as_mut().filter(|session| session.id == id) {
                        let after = session.receive(&mut self.guest, &bytes);
                        self.departs |= after == After::Running;
                        self.after_session(after);
                    }
                }
                debug::Event::Closed(id) => {
                    if self.session.as_ref().is_some_and(|session| session.id == id) {
                        self.end_session();
                    }
                }
            }
        }
    }

    fn inspect(&mut self, what: &Inspect) -> Inspected {
        match what {
            Inspect::Statistics => Inspected::Text(self.guest.engine.report()),
            Inspect::Shadow { at } => match debug::physical(&mut self.guest.vcpu, *at) {
                Ok(physical) => {
                    let guest = &mut self.guest;
                    Inspected::Text(guest.engine.list(&mut guest.vcpu, physical))
                }
                Err(why) => Inspected::Refused(why),
            },
            Inspect::Listen { at, wait } => {
                let reply = self.desk.listen(at);
                self.waits_for_debugger |= *wait && matches!(reply, Inspected::Listening(_));
                // Time must not begin between the answer and the freezing.
                self.follow_debugger();
                reply
            }
            other => debug::answer(&mut self.guest.vcpu, other),
        }
    }

    /// Says where the guest is, for the log lines that follow.
    fn set_log_context(&self) {
        let state = &self.guest.vcpu.state;
        let time = self.guest.vcpu.bus.panel().clock.now();
        ipc::logging::set_context(time, (state.segment(Seg::Cs).selector, state.eip));
    }

    fn reset(&mut self) {
        let Some(request) = self.guest.vcpu.bus.board().take_reset_request() else { return };
        // The next triple fault is another one.
        self.shutdown_shown = false;
        self.set_log_context();
        if request == ResetRequest::Cpu {
            tracing::info!("CPU reset");
            self.guest.vcpu.init();
        } else {
            tracing::info!("Machine reset");
            self.guest.vcpu.bus.reset();
            self.guest.vcpu.bus.panel().resets.fetch_add(1, Ordering::Relaxed);
            self.guest.vcpu.reset();
        }
        // Requests made while the machine went through its reset are part of it.
        self.guest.vcpu.bus.board().take_reset_request();
    }

    /// Stays here while the VM is paused, or held by a debugger. False when it stops.
    fn follow_run_state(&mut self) -> bool {
        loop {
            let may_run = self.follow_debugger() && !self.parked;
            let off = self.guest.vcpu.bus.panel().powered_off.load(Ordering::Acquire) != 0;
            if off {
                // The supervisor ends the VM; the guest executes nothing more.
                self.set_state(VcpuState::Off);
                self.report(Reason::Exited(0));
            }
            let seen = self.guest.vcpu.bus.panel().run_state();
            match seen {
                RunState::Stopping => return false,
                RunState::Running if may_run && !off => return true,
                RunState::Running if !off && !self.parked => self.set_state(VcpuState::Debugged),
                RunState::Running if !off => self.set_state(VcpuState::Paused),
                RunState::Running => {}
                RunState::Starting if !may_run => self.set_state(VcpuState::Debugged),
                RunState::Paused | RunState::Starting => self.set_state(VcpuState::Paused),
            }
            let board = self.guest.vcpu.bus.board();
            let panel = self.guest.vcpu.bus.panel();
            let called = || panel.run_state() != seen || board.attention() & attention::DEBUG != 0;
            board.doorbell(VMM_SLOT).sleep(Some(LONGEST_SLEEP), called);
            if board.attention() & attention::DEBUG != 0 {
                self.serve_desk();
            }
        }
    }

    fn deliver_interrupt(&mut self) {
        let board = self.guest.vcpu.bus.board();
        if board.attention() & attention::INTR == 0 || !self.guest.vcpu.accepts_interrupts() {
            return;
        }
        // Taken before the request is looked at: one that is published meanwhile sets it again.
        board.take_attention(attention::INTR);
        if let Some(vector) = self.guest.vcpu.bus.acknowledge_interrupt() {
            // The engine drops code that a device's DMA wrote over before it runs the handler.
            self.guest.vcpu.deliver_external(vector);
        }
    }

    fn halt(&mut self) {
        self.set_state(VcpuState::Halted);
        let board = self.guest.vcpu.bus.board();
        let panel = self.guest.vcpu.bus.panel();
        let started = panel.clock.now();
        let wanted = if self.guest.vcpu.state.eflags & eflags::IF != 0 { u32::MAX } else { !attention::INTR };
        while board.attention() & wanted == 0 {
            board.doorbell(VMM_SLOT).sleep(Some(LONGEST_SLEEP), || board.attention() & wanted != 0);
        }
        let halted = panel.clock.now() - started;
        panel.vcpu.halted_nanos.fetch_add(halted, Ordering::Relaxed);
    }

    /// A triple fault: the processor signals shutdown, and the board answers with INIT#.
    fn shutdown(&mut self) {
        // A debugger sees the processor as it shut down; the reset comes when it lets the guest go on.
        if self.session.is_some() && !std::mem::replace(&mut self.shutdown_shown, true) {
            self.report(Reason::Signal(Signal::SIGSEGV));
            return;
        }
        self.shutdown_shown = false;
        self.set_log_context();
        self.set_state(VcpuState::Shutdown);
        let state = &self.guest.vcpu.state;
        tracing::warn!(
            "Triple fault at {:04x}:{:08x}: the CPU shut down and is reset",
            state.segment(Seg::Cs).selector,
            state.eip
        );
        self.guest.vcpu.bus.board().request_reset(ResetRequest::Cpu);
    }

    fn set_state(&self, state: VcpuState) {
        let cell = &self.guest.vcpu.bus.panel().vcpu;
        let old = cell.state.swap(state as u32, Ordering::Release);
        if state == VcpuState::Running && old != VcpuState::Running as u32 {
            cell.activity.fetch_add(1, Ordering::Release);
        }
    }

    fn publish_progress(&mut self) {
        self.instructions = self.guest.engine.interpreted();
        let cs = self.guest.vcpu.state.segment(Seg::Cs).selector;
        let eip = self.guest.vcpu.state.eip;
        self.guest.vcpu.bus.set_guest_position(cs, eip);
        let cell = &self.guest.vcpu.bus.panel().vcpu;
        cell.instructions.store(self.instructions, Ordering::Relaxed);
        cell.cs_eip.store(u64::from(cs) << 32 | u64::from(eip), Ordering::Relaxed);
    }
}
