//! The monitor: the loop around the CPU. Runs guest code until something wants attention, then
//! deals with that: interrupts, resets, pauses, halts, shutdowns.

use crate::bus::MachineBus;
use crate::cpu::bus::Bus;
use crate::cpu::registers::eflags;
use crate::cpu::{CpuModel, Seg, Vcpu};
use crate::interp::{Exit, Interp};
use ipc::board::{RunState, VMM_SLOT, VcpuState, attention};
use ipc::sync::Ordering;
use std::time::Duration;

/// Instructions per run of guest code between two updates of the published counters.
const SLICE: u64 = 200_000;
/// Longest sleep while halted or paused: the doorbell ends it sooner.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// `Board::take_reset_request`: only the CPU.
const RESET_CPU: u32 = 1;

/// One virtual CPU with its engine.
pub struct Monitor {
    vcpu: Vcpu<MachineBus>,
    engine: Interp<MachineBus>,
    instructions: u64,
}

impl Monitor {
    /// A CPU just after reset on `bus`.
    pub fn new(bus: MachineBus, model: CpuModel) -> Self {
        Self { vcpu: Vcpu::with_model(bus, model), engine: Interp::new(), instructions: 0 }
    }

    /// Runs until the VM stops.
    pub fn run(&mut self) {
        // Nobody calls the vCPU for a run state that never changed: it looks once itself.
        if !self.follow_run_state() {
            return;
        }
        loop {
            if !self.attend() {
                return;
            }
            self.deliver_interrupt();
            self.set_state(VcpuState::Running);
            let exit = self.engine.run(&mut self.vcpu, SLICE);
            self.vcpu.bus.settle_bells();
            self.publish_progress();
            match exit {
                Exit::Budget | Exit::Attention => {}
                Exit::Halted => self.halt(),
                Exit::Shutdown => self.shutdown(),
            }
        }
    }

    /// Deals with what others want from the vCPU. False when the VM stops.
    fn attend(&mut self) -> bool {
        let bits = self.vcpu.bus.board().attention();
        if bits & !attention::INTR == 0 {
            return true;
        }
        if bits & attention::MAP != 0 {
            self.vcpu.bus.board().take_attention(attention::MAP);
            self.vcpu.bus.refresh_map();
            self.vcpu.sync_map();
        }
        if bits & attention::RESET != 0 {
            self.vcpu.bus.board().take_attention(attention::RESET);
            self.reset();
        }
        if bits & attention::RUN_STATE != 0 {
            self.vcpu.bus.board().take_attention(attention::RUN_STATE);
            return self.follow_run_state();
        }
        true
    }

    fn reset(&mut self) {
        let request = self.vcpu.bus.board().take_reset_request();
        if request == 0 {
            return;
        }
        if request == RESET_CPU {
            tracing::info!("CPU reset");
            self.vcpu.init();
        } else {
            tracing::info!("Machine reset");
            self.vcpu.bus.reset();
            self.vcpu.bus.board().resets.fetch_add(1, Ordering::Relaxed);
            self.vcpu.reset();
        }
        // Requests made while the machine went through its reset are part of it.
        self.vcpu.bus.board().take_reset_request();
    }

    /// Stays here while the VM is paused. False when it stops.
    fn follow_run_state(&mut self) -> bool {
        loop {
            let board = self.vcpu.bus.board();
            if board.powered_off.load(Ordering::Acquire) != 0 {
                // The supervisor ends the VM; the guest executes nothing more.
                self.set_state(VcpuState::Off);
            }
            match board.run_state() {
                RunState::Stopping => return false,
                RunState::Running if board.powered_off.load(Ordering::Acquire) == 0 => return true,
                RunState::Running => {}
                RunState::Paused | RunState::Starting => self.set_state(VcpuState::Paused),
            }
            let board = self.vcpu.bus.board();
            let before = board.run_state();
            board.processes[VMM_SLOT].doorbell.sleep(Some(LONGEST_SLEEP), || board.run_state() != before);
        }
    }

    fn deliver_interrupt(&mut self) {
        let board = self.vcpu.bus.board();
        if board.attention() & attention::INTR == 0 || !self.vcpu.accepts_interrupts() {
            return;
        }
        // Taken before the request is looked at: one that is published meanwhile sets it again.
        board.take_attention(attention::INTR);
        if let Some(vector) = self.vcpu.bus.acknowledge_interrupt() {
            // The engine drops code that a device's DMA wrote over before it runs the handler.
            self.vcpu.deliver_external(vector);
        }
    }

    fn halt(&mut self) {
        self.set_state(VcpuState::Halted);
        let board = self.vcpu.bus.board();
        let started = board.clock.now();
        let wanted = if self.vcpu.state.eflags & eflags::IF != 0 { u32::MAX } else { !attention::INTR };
        while board.attention() & wanted == 0 {
            board.processes[VMM_SLOT].doorbell.sleep(Some(LONGEST_SLEEP), || board.attention() & wanted != 0);
        }
        let halted = board.clock.now() - started;
        board.vcpu.halted_nanos.fetch_add(halted, Ordering::Relaxed);
    }

    /// A triple fault: the processor signals shutdown, and the board answers with INIT#.
    fn shutdown(&mut self) {
        self.set_state(VcpuState::Shutdown);
        let state = &self.vcpu.state;
        tracing::warn!(
            "Triple fault at {:04x}:{:08x}: the CPU shut down and is reset",
            state.segment(Seg::Cs).selector,
            state.eip
        );
        self.vcpu.bus.board().request_reset(RESET_CPU);
    }

    fn set_state(&self, state: VcpuState) {
        let cell = &self.vcpu.bus.board().vcpu;
        let old = cell.state.swap(state as u32, Ordering::Release);
        if state == VcpuState::Running && old != VcpuState::Running as u32 {
            cell.activity.fetch_add(1, Ordering::Release);
        }
    }

    fn publish_progress(&mut self) {
        self.instructions = self.engine.statistics().instructions;
        let cs = self.vcpu.state.segment(Seg::Cs).selector;
        let eip = self.vcpu.state.eip;
        self.vcpu.bus.set_guest_position(cs, eip);
        let cell = &self.vcpu.bus.board().vcpu;
        cell.instructions.store(self.instructions, Ordering::Relaxed);
        cell.cs_eip.store(u64::from(cs) << 32 | u64::from(eip), Ordering::Relaxed);
    }
}
