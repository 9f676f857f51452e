//! Processes that end: which of them come back, when, and what is kept of the death; and devices that
//! are started again because somebody asks for it.

use super::children::ChildExit;
use super::crash_bundle::{Bundle, Snapshot};
use super::deaths::{Cause, Verdict};
use super::recording;
use super::{DISPLAY, Event, Managed, Supervisor};
use crate::progress::say;
use crate::roles::Executable;
use anyhow::{Result, bail};
use crossbeam::channel::Sender;
use ipc::control::{Reply, StateChoice};
use ipc::panel::{MAX_DEVICES, ProcessState, VMM_SLOT};
use ipc::sync::Ordering;
use std::time::{Duration, Instant};

/// Somebody waits for a device process that was started again.
pub struct PendingRestart {
    process: usize,
    reply: Sender<Reply>,
}

impl Supervisor {
    /// Takes note of the end of a process. An error ends the VM.
    pub(super) fn handle_exit(&mut self, exit: ChildExit) -> Result<()> {
        let process = exit.process;
        if self.swap_ended(&exit) {
            return Ok(());
        }
        let Some(managed) = &mut self.processes[process] else { return Ok(()) };
        if managed.child.as_ref().is_none_or(|child| child.generation != exit.generation) {
            return Ok(());
        }
        let name = managed.role.to_string();
        let stderr = std::fs::read_to_string(self.dir.log(&format!("{name}.stderr"))).unwrap_or_default();
        let hung = managed.hung.take();
        let wanted = std::mem::take(&mut managed.end_wanted);
        let cause = if hung.is_some() { Cause::Hung } else { exit.cause() };
        let why = hung.unwrap_or_else(|| exit.why(&stderr));
        let pid = managed.pid;
        managed.child = None;
        managed.lifeline = None;
        managed.watch = None;
        managed.stopped = false;
        managed.pid = 0;
        managed.last_end.clone_from(&why);
        managed.died = Some(Instant::now());
        if process == VMM_SLOT {
            bail!("The VMM ended: {why}");
        }
        if process == DISPLAY && self.display_stays_closed(&exit, &why) {
            return Ok(());
        }
        let progressed = self.has_progressed(process, cause);
        if process < MAX_DEVICES {
            self.memory.panel().processes[process].pid.store(0, Ordering::Relaxed);
            self.memory.set_process_state(process, ProcessState::Restarting);
        }
        self.keep_time();
        if wanted {
            self.note(&format!("{name} is started again because somebody asked for it"));
            self.restart_now(process);
            return Ok(());
        }
        // Before a successor changes what there is to see.
        let bundle = (process < MAX_DEVICES).then(|| self.bundle(process, pid, &why, stderr));
        self.restart(process, cause, progressed, &why);
        if let Some(bundle) = bundle {
            self.keep(bundle);
        }
        Ok(())
    }

    /// Whether the display is closed for good: by the user, or because it cannot be.
    fn display_stays_closed(&mut self, exit: &ChildExit, why: &str) -> bool {
        self.memory.panel().displays.store(0, Ordering::Release);
        if exit.was_orderly() {
            // The user closed it.
            if self.memory.panel().powered_off.load(Ordering::Acquire) == 0 {
                let vm = &self.config.name;
                say(&format!(
                    "the view is closed and '{vm}' runs on; 'vmsim display --vm {vm}' opens it again, \
                     'vmsim stop --vm {vm}' ends it"
                ));
            }
        } else if exit.was_refused() {
            self.note(&format!("display: {why}"));
            say(why);
        } else {
            return false;
        }
        self.processes[DISPLAY] = None;
        true
    }

    /// Whether a process that died had achieved something: one that was killed, by working at all; one
    /// that failed, by dealing with something.
    fn has_progressed(&self, process: usize, cause: Cause) -> bool {
        let Some(managed) = &self.processes[process] else { return false };
        if process == DISPLAY {
            return managed.attached_before;
        }
        let ready = self.memory.process_state(process) == ProcessState::Ready;
        ready && (cause == Cause::Killed || self.memory.handled(process) != managed.handled_at_start)
    }

    fn restart(&mut self, process: usize, cause: Cause, progressed: bool, why: &str) {
        let name = self.name(process);
        let Some(managed) = &mut self.processes[process] else { return };
        match managed.deaths.record(Instant::now(), cause, progressed) {
            Verdict::GiveUp if process == DISPLAY => {
                self.note("the display dies again and again: it stays closed; 'vmsim display' opens one");
                self.processes[process] = None;
            }
            Verdict::GiveUp => {
                let vm = &self.config.name;
                self.note(&format!(
                    "{name} died ({why}) and does not get on: it is off the bus; 'vmsim device restart {name} \
                     --vm {vm}' brings it back"
                ));
                self.take_off_bus(process);
                self.keep_time();
            }
            Verdict::Restart(Duration::ZERO) => {
                self.note(&format!("{name} died ({why}); it is started again"));
                self.restart_now(process);
            }
            Verdict::Restart(wait) => {
                self.note(&format!("{name} died ({why}); it is started again in {wait:?}"));
                let sender = self.sender.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    // The supervisor may be gone by now.
                    let _ = sender.send(Event::Restart(process));
                });
            }
        }
    }

    /// Whether a device process was given up.
    pub(super) fn is_off_bus(&self, process: usize) -> bool {
        self.memory.process_state(process) == ProcessState::Offline
    }

    /// Gives a device process up: the guest goes on without it.
    pub(super) fn take_off_bus(&self, process: usize) {
        self.memory.set_process_state(process, ProcessState::Offline);
        self.memory.board().disconnect(process);
    }

    /// Starts a process that does not run again.
    pub(super) fn restart_now(&mut self, process: usize) {
        // Meanwhile somebody may have started it by hand.
        if self.processes[process].as_ref().is_none_or(|managed| managed.child.is_some()) {
            return;
        }
        match self.memory.panel().process(process) {
            Some(cell) if process < MAX_DEVICES => drop(cell.restarts.fetch_add(1, Ordering::Relaxed)),
            _ => self.processes[process].iter_mut().for_each(|managed| managed.restarts += 1),
        }
        if let Err(error) = self.spawn(process) {
            let why = format!("it cannot be started: {error:#}");
            if let Some(managed) = &mut self.processes[process] {
                managed.last_end.clone_from(&why);
            }
            self.restart(process, Cause::Crashed, false, &why);
        }
    }

    fn bundle(&self, process: usize, pid: u32, why: &str, stderr: String) -> Option<Bundle> {
        let managed = self.processes[process].as_ref()?;
        let device = managed.role.to_string();
        Some(Bundle {
            vm: self.config.name.clone(),
            pid,
            build: managed.build(),
            why: why.into(),
            virtual_nanos: self.memory.panel().clock.now().0,
            command: managed.executable.by_hand_command(&device, &self.config.name),
            recording: managed
                .recording
                .as_ref()
                .and_then(recording::Tape::path)
                .map(|path| (path.to_owned(), managed.executable.replay_command(path))),
            stderr,
            snapshot: Snapshot::take(self.memory.link(process)?),
            device,
        })
    }

    fn keep(&self, bundle: Option<Bundle>) {
        let Some((bundle, path)) = bundle.and_then(|bundle| bundle.path().map(|path| (bundle, path))) else {
            return;
        };
        self.note(&format!("what is known of the death of {} is in {}", bundle.device, path.display()));
        let time = self.memory.panel().clock.now();
        std::thread::spawn(move || {
            if let Err(error) = bundle.write(&path) {
                ipc::logging::set_context(time, (0, 0));
                tracing::error!("Crash bundle {}: {error}", path.display());
            }
        });
    }

    /// `vmsim device restart`: ends a device process and starts it again, or brings back one that is off
    /// the bus. `reply` is answered when it serves, or does not.
    pub(super) fn restart_device(&mut self, device: &str, state: StateChoice, reply: Sender<Reply>) {
        let process = match self.device_slot(device) {
            Ok(process) => process,
            // A client that went away does not need its answer.
            Err(why) => return drop(reply.send(Reply::Refused(why))),
        };
        let offline = self.is_off_bus(process);
        let by_hand = self.processes[process].as_ref().is_some_and(|m| m.executable == Executable::ByHand);
        if offline {
            self.memory.forget_requests(process);
            self.memory.set_process_state(process, ProcessState::Restarting);
        }
        let Some(managed) = &mut self.processes[process] else { return };
        managed.deaths.forget();
        managed.cold |= state == StateChoice::Cold;
        match &managed.child {
            Some(child) => {
                managed.end_wanted = true;
                child.kill();
            }
            None => self.restart_now(process),
        }
        if by_hand {
            let vm = &self.config.name;
            let command = Executable::ByHand.by_hand_command(device, vm);
            let _ = reply.send(Reply::Done(format!("{device} waits for you to start it: {command}")));
            return;
        }
        self.pending_restarts.push(PendingRestart { process, reply });
    }

    /// Answers those who wait for a device process that was started again.
    pub(super) fn follow_restarts(&mut self) {
        for slot in 0..MAX_DEVICES {
            self.follow_return(slot);
        }
        let mut pending = std::mem::take(&mut self.pending_restarts);
        pending.retain(|PendingRestart { process, reply }| {
            let Some(managed) = &self.processes[*process] else { return false };
            let (name, restarting) = (managed.role.to_string(), managed.end_wanted);
            let answer = match self.memory.process_state(*process) {
                ProcessState::Ready if !restarting && managed.child.is_some() => {
                    Reply::Done(format!("{name} serves again, as process {}", managed.pid))
                }
                ProcessState::Offline => {
                    Reply::Refused(format!("{name} does not come back: {}", managed.last_end))
                }
                _ => return true,
            };
            // As above.
            let _ = reply.send(answer);
            false
        });
        self.pending_restarts.append(&mut pending);
    }

    /// Takes note that a process serves again.
    fn follow_return(&mut self, slot: usize) {
        let ready = self.memory.process_state(slot) == ProcessState::Ready;
        let Some(managed) = self.processes[slot].as_mut().filter(|_| ready) else { return };
        // For displays, which see the panel only.
        self.memory.set_process_state(slot, ProcessState::Ready);
        // It has begun, unless it is one that is still to end.
        managed.cold &= managed.end_wanted;
        if let Some(died) = managed.died.take() {
            let (name, millis) = (managed.role.to_string(), died.elapsed().as_secs_f64() * 1e3);
            self.note(&format!("{name} serves again, {millis:.1} ms after its end was noticed"));
        }
    }

    /// The slot of a device process.
    pub(super) fn device_slot(&self, device: &str) -> Result<usize, String> {
        match self.devices.iter().find(|(_, name)| name == device) {
            Some((slot, _)) => Ok(*slot as usize),
            None => {
                let known: Vec<_> = self.devices.iter().map(|(_, name)| name.as_str()).collect();
                Err(format!("This VM has no device process '{device}'; it has {}", known.join(", ")))
            }
        }
    }
}

impl Managed {
    /// Version and program, for people.
    pub(super) fn build(&self) -> String {
        let version = if self.build.is_empty() { "?" } else { &self.build };
        format!("{version} ({})", self.executable)
    }
}
