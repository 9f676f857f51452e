//! Answers to what clients ask of a VM.

use super::children::Child;
use super::health::Watch;
use super::save::Save;
use super::{DISPLAY, Managed, Supervisor, recording};
use crate::roles::Executable;
use ipc::board::ResetRequest;
use ipc::clock::Freeze;
use ipc::control::{ProcessStatus, Reply, Request, Role, VmStatus};
use ipc::fault::Faults;
use ipc::input::HostEvent;
use ipc::link::LinkLayout;
use ipc::message::PROTOCOL_VERSION;
use ipc::panel::{Health, MAX_DEVICES, ProcessState, RunState, VMM_SLOT, VcpuState};
use ipc::setup::{Setup, StartFrom};
use ipc::sync::Ordering;
use std::time::Instant;

/// Input events kept for a keyboard process that is busy or being restarted.
const MAX_WAITING_INPUT: usize = 4096;

impl Supervisor {
    /// Answers everything but [`Request::Stop`], which the main loop handles.
    pub(super) fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Attach { role, pid, server, build } => self.attach(&role, pid, server, build),
            Request::Status => Reply::Status(self.status()),
            Request::Input(events) => self.input(events),
            Request::Pause => {
                let chassis = self.memory.chassis();
                chassis.panel().clock.freeze(Freeze::Paused);
                chassis.set_run_state(RunState::Paused);
                Reply::Ok
            }
            Request::Resume => {
                let chassis = self.memory.chassis();
                chassis.set_run_state(RunState::Running);
                chassis.thaw(Freeze::Paused);
                Reply::Ok
            }
            Request::Reset => {
                self.memory.board().request_reset(ResetRequest::Machine);
                Reply::Ok
            }
            Request::LogAccesses(on) => {
                self.memory.panel().log_accesses.store(u32::from(on), Ordering::Relaxed);
                Reply::Ok
            }
            Request::StandBy { pid, versions } => self.swap_stands_by(pid, versions),
            Request::OpenDisplay { kind, environment } => self.open_display(&kind, environment),
            // Asked before the guest runs: nothing to see yet.
            Request::Stop
            | Request::Inspect(_)
            | Request::Record { .. }
            | Request::Save { .. }
            | Request::RestartDevice { .. }
            | Request::SwapDevice { .. } => Reply::Refused("The VM has not started yet".into()),
        }
    }

    fn attach(&mut self, role: &Role, pid: u32, server: String, build: String) -> Reply {
        let index = match role {
            Role::Vmm => VMM_SLOT,
            Role::Display => DISPLAY,
            Role::Device(name) => match self.device_slot(name) {
                Ok(slot) => slot,
                Err(why) => return Reply::Refused(why),
            },
        };
        // A display may be opened by hand any time; it is not kept in a slot of the board.
        if index == DISPLAY && self.processes[DISPLAY].is_none() {
            self.processes[DISPLAY] = Some(Managed::new(Role::Display, Executable::Own));
        }
        let config = self.config.clone();
        let devices = self.devices.clone();
        let sandbox = self.processes[index].as_ref().is_some_and(|managed| {
            managed.sandbox && !managed.debug && managed.executable != Executable::ByHand
        });
        if let Some(swap) = self.swap.as_mut().filter(|swap| swap.process() == index && swap.is(pid)) {
            let from = swap.from();
            let tape = self.processes[index].as_ref().and_then(|managed| managed.recording.as_ref());
            let recording = tape.and_then(recording::Tape::recording);
            let faults = self.processes[index].as_ref().map_or_else(Faults::default, |m| m.faults.clone());
            let dma = self.processes[index].as_ref().and_then(|m| m.dma.clone());
            let sent = ipc::setup::accept(server, |commands| Setup {
                version: PROTOCOL_VERSION,
                config,
                slot: index as u32,
                devices,
                commands,
                from,
                stands_by: true,
                sandbox,
                recording,
                faults,
                processor: None,
                dma,
            });
            return match sent {
                Ok(lifeline) => {
                    swap.attached(lifeline, build);
                    Reply::Ok
                }
                Err(error) => Reply::Refused(error.to_string()),
            };
        }
        let Some(managed) = &mut self.processes[index] else {
            return Reply::Refused(format!("This VM has no {role}"));
        };
        if let Some(child) = &managed.child
            && child.pid != pid
        {
            return Reply::Refused(format!(
                "The VM's {role} runs already as process {}; end that one first",
                child.pid
            ));
        }
        let from = match managed.attached_before {
            false if self.processor.is_some() => StartFrom::Saved,
            false => StartFrom::PowerOn,
            true if managed.cold => StartFrom::Cold,
            true => StartFrom::Committed,
        };
        if self.memory.process_state(index) == ProcessState::Offline {
            // Somebody brings it back by hand.
            self.memory.forget_requests(index);
            self.memory.set_process_state(index, ProcessState::Restarting);
        }
        managed.handled_at_start = self.memory.handled(index);
        let recording = managed.recording.as_ref().and_then(recording::Tape::recording);
        let (faults, dma) = (managed.faults.clone(), managed.dma.clone());
        let processor = self.processor.clone().filter(|_| index == VMM_SLOT);
        let sent = ipc::setup::accept(server, |commands| Setup {
            version: PROTOCOL_VERSION,
            config,
            slot: index as u32,
            devices,
            commands,
            from,
            stands_by: false,
            sandbox,
            recording,
            faults,
            processor,
            dma,
        });
        match sent {
            Ok(lifeline) => {
                if managed.child.is_none() {
                    match Child::adopt(pid, index, self.sender.clone()) {
                        Ok(child) => managed.begin(child),
                        Err(error) => {
                            return Reply::Refused(format!("Process {pid} cannot be watched: {error}"));
                        }
                    }
                }
                managed.lifeline = Some(lifeline);
                managed.pid = pid;
                managed.build = build;
                managed.attached_before = true;
                if index == DISPLAY {
                    self.memory.panel().displays.store(1, Ordering::Release);
                } else {
                    self.memory.panel().processes[index].pid.store(pid, Ordering::Relaxed);
                }
                Reply::Ok
            }
            Err(error) => Reply::Refused(error.to_string()),
        }
    }

    fn input(&mut self, events: Vec<HostEvent>) -> Reply {
        // All or nothing: a key whose release was refused would stay down in the guest.
        if self.input.len() + events.len() > MAX_WAITING_INPUT {
            return Reply::Refused("The keyboard process does not take input: see 'vmsim ps'".into());
        }
        self.input.extend(events);
        self.pass_input();
        Reply::Ok
    }

    /// Hands waiting input to the keyboard process as far as it takes it.
    pub(super) fn pass_input(&mut self) {
        let Some((slot, _)) = self.devices.iter().find(|(_, name)| name == "keyboard") else {
            self.input.clear();
            return;
        };
        while let Some(event) = self.input.front() {
            if !self.memory.send_event(*slot as usize, event) {
                return;
            }
            self.input.pop_front();
        }
    }

    /// Has the UARTs look at their cables.
    pub(super) fn pass_serial(&self) {
        let chipset = self.devices.iter().find(|(_, name)| name == "chipset");
        if let Some((slot, _)) = chipset {
            // Where there is no room, one that says the same waits already.
            let _ = self.memory.send_event(*slot as usize, &HostEvent::Serial);
        }
    }

    fn open_display(&mut self, kind: &str, environment: Vec<(String, String)>) -> Reply {
        if self.processes[DISPLAY].as_ref().is_some_and(|p| p.child.is_some() || p.lifeline.is_some()) {
            return Reply::Refused("The VM has a display already".into());
        }
        self.display_environment = environment;
        self.display_kind = Some(if kind == "terminal" { "terminal" } else { "window" });
        self.processes[DISPLAY] = Some(Managed::new(Role::Display, Executable::Own));
        match self.spawn(DISPLAY) {
            Ok(()) => Reply::Ok,
            Err(error) => Reply::Refused(format!("{error:#}")),
        }
    }

    fn status(&self) -> VmStatus {
        let panel = self.memory.panel();
        let cs_eip = panel.vcpu.cs_eip.load(Ordering::Relaxed);
        let mut processes = vec![ProcessStatus {
            name: "supervisor".into(),
            pid: std::process::id(),
            state: "ready".into(),
            cpu_nanos: super::health::cpu_nanos(std::process::id()),
            ..ProcessStatus::default()
        }];
        for (index, managed) in self.processes.iter().enumerate() {
            let Some(managed) = managed else { continue };
            let (messages, queue) = self.memory.traffic(index);
            let restarts = panel.process(index).map_or(0, |cell| cell.restarts.load(Ordering::Relaxed));
            processes.push(ProcessStatus {
                name: managed.role.to_string(),
                pid: managed.pid,
                state: self.process_state(index, managed),
                restarts: if index == DISPLAY { managed.restarts } else { restarts },
                models: if index < MAX_DEVICES { self.memory.models(index) } else { Vec::new() },
                messages,
                queue,
                errors: self.memory.errors(index),
                dma: self.memory.link(index).map_or_else(Vec::new, LinkLayout::dma),
                dma_refused: self.memory.dma_refused(index),
                model_nanos: self.memory.model_nanos(index),
                waited_nanos: panel
                    .process(index)
                    .map_or(0, |cell| cell.waited_nanos.load(Ordering::Relaxed)),
                cpu_nanos: super::health::cpu_nanos(managed.pid),
            });
        }
        VmStatus {
            name: self.config.name.clone(),
            state: self.vm_state(),
            virtual_nanos: panel.clock.now().0,
            instructions: panel.vcpu.instructions.load(Ordering::Relaxed),
            cs_eip: ((cs_eip >> 32) as u16, cs_eip as u32),
            ram_bytes: self.config.ram_bytes,
            processes,
            serial: self.serial_ports(),
        }
    }

    fn process_state(&self, index: usize, managed: &Managed) -> String {
        let health = managed.watch.as_ref().map_or(Health::Works, Watch::health);
        if health.is_held() {
            return health.to_string();
        }
        if index == DISPLAY {
            return if managed.lifeline.is_some() { "ready" } else { "starting" }.into();
        }
        match self.memory.process_state(index) {
            ProcessState::Absent => "absent".into(),
            ProcessState::Starting if managed.debug && managed.lifeline.is_none() => "awaits-gdb".into(),
            ProcessState::Starting => "starting".into(),
            ProcessState::Ready => health.to_string(),
            ProcessState::Restarting => "restarting".into(),
            ProcessState::Offline => "offline".into(),
            ProcessState::Swapping => "swapping".into(),
        }
    }

    /// Which process time stands still for, and how that one is.
    fn standing_for(&self) -> Option<(String, String)> {
        let at =
            |index: usize| self.processes[index].as_ref().filter(|managed| self.holds_time(index, managed));
        let (index, managed) = (0..=VMM_SLOT).find_map(|index| Some((index, at(index)?)))?;
        Some((managed.role.to_string(), self.process_state(index, managed)))
    }

    fn vm_state(&self) -> String {
        let panel = self.memory.panel();
        match panel.run_state() {
            RunState::Starting => return "starting".into(),
            RunState::Paused => return "paused".into(),
            RunState::Stopping => return "stopping".into(),
            RunState::Running => {}
        }
        if self.save.as_ref().is_some_and(Save::holds) {
            return "being saved".into();
        }
        match VcpuState::from_wire(panel.vcpu.state.load(Ordering::Relaxed)) {
            VcpuState::WaitsForDevice => {
                let slot = panel.vcpu.waits_for.load(Ordering::Relaxed).wrapping_sub(1);
                let since = panel.vcpu.waits_since.load(Ordering::Relaxed);
                let millis = ipc::host_clock::host_nanos().saturating_sub(since) / 1_000_000;
                let waits =
                    self.processes.get(slot as usize).and_then(Option::as_ref).filter(|_| millis > 100);
                match waits {
                    Some(managed) => {
                        let state = self.process_state(slot as usize, managed);
                        format!("waits for {} ({state}) since {millis} ms", managed.role)
                    }
                    None => "running".into(),
                }
            }
            _ if self.time_stands
                && let Some((name, state)) = self.standing_for() =>
            {
                format!("stands still: {name} is {state}")
            }
            VcpuState::Halted => "idle".into(),
            VcpuState::Shutdown => "shut down".into(),
            VcpuState::Off => "off".into(),
            VcpuState::Debugged => "held by a debugger".into(),
            VcpuState::Running | VcpuState::Paused => "running".into(),
        }
    }

    /// Looks at progress from time to time, for the log.
    pub(super) fn sample(&mut self) {
        let now = Instant::now();
        let instructions = self.memory.panel().vcpu.instructions.load(Ordering::Relaxed);
        if now - self.last_sample.0 >= std::time::Duration::from_secs(60) {
            let done = instructions.saturating_sub(self.last_sample.1);
            tracing::debug!("{done} guest instructions interpreted in the last minute");
            self.last_sample = (now, instructions);
        }
    }
}
