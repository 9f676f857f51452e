//! The supervisor: makes a VM's shared memory, starts and watches its processes, restarts those
//! that die, answers the control socket, and takes everything away at the end.
//!
//! One thread owns the VM and handles one event at a time; other threads only wait (for a
//! child, a connection, a signal) and send it events.

mod children;
mod crash_bundle;
mod deaths;
mod health;
mod image_locks;
mod inspection;
mod memory;
mod recording;
mod recovery;
mod requests;
mod restore;
mod save;
mod serial;
mod server;
mod swap;
mod watchdog;

use crate::cli::DisplayKind;
use crate::config::{DevicePlan, KeptImages, Plan, Restored};
use crate::progress::say;
use crate::roles::Executable;
use anyhow::{Context, Result, bail};
use children::{Child, ChildExit};
use crossbeam::channel::{Receiver, Sender, unbounded};
use deaths::Deaths;
use health::Watch;
use image_locks::ImageLocks;
use ipc::clock::Freeze;
use ipc::control::Role;
use ipc::dma::RamRange;
use ipc::fault::Faults;
use ipc::host_clock::Keeper;
use ipc::input::HostEvent;
use ipc::inspect::{Inspect, Inspected, Listen};
use ipc::panel::{KILLED, MAX_DEVICES, ProcessState, RunState, VMM_SLOT};
use ipc::runtime_dir::{RuntimeDir, VmDir, VmLock};
use ipc::setup::{Command, DEBUG_VARIABLE, Exported, Lifeline, SPAWNED_VARIABLE};
use ipc::sync::Ordering;
use memory::VmMemory;
use recovery::PendingRestart;
use save::{Save, SavedAndStopped};
use serial::SerialPorts;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use swap::Swap;

/// How long processes may take to attach when a VM starts.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long processes may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_millis(700);
/// How long the last answer may take to leave.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon input that did not fit is offered again.
const INPUT_RETRY: Duration = Duration::from_millis(2);

/// How often is looked whether a device process has come back.
const RECOVERY_LOOK: Duration = Duration::from_millis(2);

/// Something that the supervisor reacts to.
pub enum Event {
    /// A child ended.
    Exit(ChildExit),
    /// A child was stopped by a signal, or goes on.
    Stopped {
        /// Index of the process.
        process: usize,
        /// Which run of it.
        generation: u64,
        /// Stopped, or else it goes on.
        stopped: bool,
    },
    /// Somebody asks something.
    Request(ipc::control::Request, Sender<ipc::control::Reply>),
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
    /// A process is to be started again now.
    Restart(usize),
    /// Something changed at the other end of a serial port's cable.
    Serial,
}

/// One process of the VM as the supervisor keeps it. Its index is its slot on the board; the
/// display's comes after those.
struct Managed {
    role: Role,
    executable: Executable,
    child: Option<Child>,
    lifeline: Option<Lifeline>,
    pid: u32,
    build: String,
    deaths: Deaths,
    attached_before: bool,
    stopped: bool,
    /// Where its link is recorded; its successor goes on with that.
    recording: Option<recording::Tape>,
    /// It begins as at power-on next time.
    cold: bool,
    /// It is being ended because somebody asked for a restart.
    end_wanted: bool,
    /// The watchdog ends it: why.
    hung: Option<String>,
    /// What had been handled in its slot when it began.
    handled_at_start: u64,
    /// How it ended last.
    last_end: String,
    /// When that was, while it is not back.
    died: Option<Instant>,
    /// Of the display, which has no slot on the board: times it was started again.
    restarts: u32,
    /// Since when it has not been ready, as far as was looked.
    unready_since: Option<Instant>,
    watch: Option<Watch>,
    /// It is taken for hung after doing nothing for so long; `None`: never.
    watchdog: Option<Duration>,
    /// Each run of it waits for a debugger.
    debug: bool,
    /// It goes into a sandbox.
    sandbox: bool,
    /// What is to go wrong on its link.
    faults: Faults,
    /// The guest RAM that it may reach by DMA at most.
    dma: Option<Vec<RamRange>>,
}

/// Why the VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched the machine off.
    PoweredOff,
    /// Somebody asked for it.
    Stopped,
}

/// A VM and its processes.
pub struct Supervisor {
    /// `None` before they are made, and again when the VM ends.
    serial: Option<SerialPorts>,
    // Order matters at the end: memory and directory go while the lock is still held.
    memory: VmMemory,
    dir: VmDir,
    config: ipc::machine::MachineConfig,
    devices: Vec<(u32, String)>,
    processes: Vec<Option<Managed>>,
    display_kind: Option<&'static str>,
    /// Variables for the display beyond the supervisor's own: who opened it may be elsewhere.
    display_environment: Vec<(String, String)>,
    /// Input that the keyboard process has not taken yet.
    input: VecDeque<HostEvent>,
    pending_restarts: Vec<PendingRestart>,
    /// A build that is to take the place of another one.
    swap: Option<Swap>,
    /// The VM is being saved.
    save: Option<Save>,
    /// What the VMM of a restored VM begins with.
    processor: Option<Exported>,
    /// The guest does not run before somebody says so.
    paused: bool,
    events: Receiver<Event>,
    sender: Sender<Event>,
    last_sample: (Instant, u64),
    time_stands: bool,
    last_look: Instant,
    host_clock: Keeper,
    images: Option<ImageLocks>,
    temporary: Option<tempfile::TempDir>,
    _lock: VmLock,
}

/// Process index of the display.
const DISPLAY: usize = MAX_DEVICES + 1;

impl Supervisor {
    /// Makes the VM's place and memory and starts its processes; the guest does not run yet.
    pub fn start(plan: Plan) -> Result<Self> {
        let Plan { config, display, devices, debugger, recordings, temporary, restored, stdio: _ } = plan;
        let dir = RuntimeDir::open()?.vm(&config.name)?;
        let (lock, stale) = dir.take()?;
        if stale {
            let removed = ipc::segment::SegmentNames::new(&config.name).remove_all();
            say(&format!(
                "removed what an earlier VM '{}' left behind ({} segments)",
                config.name,
                removed.len()
            ));
        }
        let parts =
            ImageLocks::take(&config).and_then(|images| Ok((images, VmMemory::create(&config, &devices)?)));
        let parts = parts.and_then(|(images, memory)| Ok((images, restore(&memory, restored)?, memory)));
        let (images, GoesOn { processor, paused, held_output, kept }, memory) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                dir.remove();
                return Err(error);
            }
        };
        let (sender, events) = unbounded();
        let slots = devices.iter().enumerate();
        let mut supervisor = Self {
            serial: None,
            memory,
            devices: slots.map(|(slot, device)| (slot as u32, device.name.clone())).collect(),
            processes: (0..=DISPLAY).map(|_| None).collect(),
            display_kind: display_kind(display),
            display_environment: Vec::new(),
            input: VecDeque::new(),
            pending_restarts: Vec::new(),
            swap: None,
            save: None,
            processor,
            paused,
            dir,
            config,
            events,
            sender,
            last_sample: (Instant::now(), 0),
            time_stands: false,
            last_look: Instant::now(),
            host_clock: Keeper::new(),
            images: Some(images),
            temporary,
            _lock: lock,
        };
        server::listen(&supervisor.dir.socket(), supervisor.sender.clone())
            .with_context(|| format!("Control socket {}", supervisor.dir.socket().display()))?;
        server::watch_signals(supervisor.sender.clone())?;
        let cables = supervisor.memory.serial();
        supervisor.serial =
            Some(SerialPorts::open(&supervisor.config.serial, held_output, cables, &supervisor.sender)?);
        for (slot, device) in devices.into_iter().enumerate() {
            let DevicePlan { name, executable, watchdog, debug, sandbox, faults, dma, off_bus } = device;
            let path = recordings.iter().find(|(device, _)| *device == name).map(|(_, path)| path);
            let recording =
                path.map(|path| recording::Tape::open(path).map_err(anyhow::Error::msg)).transpose()?;
            let managed = Managed::new(Role::Device(name), executable);
            let managed = Managed { watchdog, debug, sandbox, recording, faults, dma, ..managed };
            // Whoever brings one back that is off the bus goes on from a predecessor, or begins in its place.
            supervisor.processes[slot] = Some(Managed { attached_before: off_bus, ..managed });
            if off_bus {
                supervisor.take_off_bus(slot);
            } else {
                supervisor.spawn(slot)?;
            }
        }
        supervisor.processes[VMM_SLOT] = Some(Managed::new(Role::Vmm, Executable::Own));
        supervisor.spawn(VMM_SLOT)?;
        supervisor.wait_until_ready()?;
        if let Some((at, wait)) = debugger {
            supervisor.listen_for_debugger(at, wait)?;
        }
        supervisor.say_what_is_off_the_bus();
        kept.keep();
        Ok(supervisor)
    }

    /// Tells whoever restores a VM what it is without.
    fn say_what_is_off_the_bus(&self) {
        let vm = &self.config.name;
        for (_, name) in self.devices.iter().filter(|(slot, _)| self.is_off_bus(*slot as usize)) {
            say(&format!(
                "{name} is off the bus, as it was when the VM was saved; 'vmsim device restart {name} --vm {vm}' brings \
                 it back"
            ));
        }
    }

    /// How long the guest has waited for device processes, but for waits that ended while the VMM spun.
    pub fn waited(&self) -> Duration {
        let cells = self.memory.panel().processes.iter();
        Duration::from_nanos(cells.map(|cell| cell.waited_nanos.load(Ordering::Relaxed)).sum())
    }

    /// Serial ports to which somebody can connect.
    pub fn serial_ports(&self) -> Vec<ipc::control::SerialStatus> {
        self.serial.as_ref().map_or_else(Vec::new, SerialPorts::status)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let waiting: Vec<String> = (0..=VMM_SLOT)
                .filter(|slot| self.processes[*slot].is_some())
                .filter(|slot| !self.is_settled(*slot))
                .map(|slot| self.name(slot))
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let patient = |name: &String| self.waits_for_person(name);
            if Instant::now() > deadline && !waiting.iter().all(patient) {
                bail!("{} did not attach within {START_TIMEOUT:?}", waiting.join(", "));
            }
            match self.events.recv_timeout(Duration::from_millis(5)) {
                Ok(Event::Exit(exit)) => {
                    let stderr = self.dir.log(&format!("{}.stderr", self.name(exit.process)));
                    let why = exit.why(&std::fs::read_to_string(stderr).unwrap_or_default());
                    bail!("{} ended while the VM was starting: {why}", self.name(exit.process));
                }
                Ok(Event::Interrupted) => bail!("Interrupted"),
                Ok(Event::Request(request, reply)) => {
                    // A client that went away does not need its answer.
                    let _ = reply.send(self.answer(request));
                }
                Ok(Event::Serial) => self.pass_serial(),
                Ok(Event::Restart(_) | Event::Stopped { .. }) | Err(_) => {}
            }
        }
    }

    fn listen_for_debugger(&self, at: Listen, wait: bool) -> Result<()> {
        let vmm = self.vmm_lifeline();
        match inspection::ask_now(vmm, Inspect::Listen { at, wait }).map_err(anyhow::Error::msg)? {
            Inspected::Listening(address) => {
                let command = crate::commands::inspect::gdb_command(&address);
                say(&format!(
                    "the guest {}: {command}",
                    if wait { "waits for" } else { "can be debugged with" }
                ));
                Ok(())
            }
            Inspected::Refused(why) => bail!("{why}"),
            other => bail!("The VMM gave another answer than the one asked for: {other:?}"),
        }
    }

    /// Lets the guest run, unless it is to be paused at first.
    pub fn run_guest(&mut self) {
        self.renew_clock();
        let chassis = self.memory.chassis();
        if self.paused {
            chassis.set_run_state(RunState::Paused);
            return;
        }
        chassis.thaw(Freeze::Paused);
        chassis.set_run_state(RunState::Running);
    }

    /// Lets the guest run, opens the display, and serves until the VM ends.
    pub fn run(&mut self) -> Result<Ending> {
        self.run_guest();
        if self.display_kind.is_some() {
            self.processes[DISPLAY] = Some(Managed::new(Role::Display, Executable::Own));
            self.spawn(DISPLAY)?;
        }
        loop {
            if let Some(ending) = self.serve_for(Duration::from_millis(100))? {
                return Ok(ending);
            }
        }
    }

    /// Handles the next event, waiting for it at most `wait`. Says when the VM ended.
    pub fn serve_for(&mut self, wait: Duration) -> Result<Option<Ending>> {
        match self.memory.panel().powered_off.load(Ordering::Acquire) {
            0 => {}
            KILLED => return Ok(Some(Ending::Stopped)),
            _ => return Ok(Some(Ending::PoweredOff)),
        }
        self.pass_input();
        self.look_after_processes();
        self.keep_time();
        self.follow_restarts();
        self.follow_swap();
        if let Some(SavedAndStopped { reply, text }) = self.follow_save() {
            self.shut_down();
            answer_last(&reply, &ipc::control::Reply::Done(text));
            return Ok(Some(Ending::Stopped));
        }
        self.renew_clock();
        let wait = if self.input.is_empty() { wait } else { wait.min(INPUT_RETRY) };
        let wait = wait.min(if self.time_stands || self.swap.is_some() || self.save.is_some() {
            RECOVERY_LOOK
        } else {
            self.next_look()
        });
        match self.events.recv_timeout(wait) {
            Ok(Event::Exit(exit)) => self.handle_exit(exit)?,
            Ok(Event::Stopped { process, generation, stopped }) => {
                if let Some(managed) = &mut self.processes[process]
                    && managed.child.as_ref().is_some_and(|child| child.generation == generation)
                {
                    managed.stopped = stopped;
                }
            }
            Ok(Event::Restart(process)) => self.restart_now(process),
            Ok(Event::Serial) => self.pass_serial(),
            Ok(Event::Interrupted) => return Ok(Some(Ending::Stopped)),
            Ok(Event::Request(ipc::control::Request::Stop, reply)) => {
                self.shut_down();
                answer_last(&reply, &ipc::control::Reply::Ok);
                return Ok(Some(Ending::Stopped));
            }
            Ok(Event::Request(ipc::control::Request::Inspect(what), reply)) => {
                inspection::forward(self.vmm_lifeline(), what, reply);
            }
            Ok(Event::Request(ipc::control::Request::Save { file, stop, with_disks }, reply)) => {
                self.save(file, stop, with_disks, reply);
            }
            Ok(Event::Request(request, reply)) if self.save.is_some() && concerns_devices(&request) => {
                // As above.
                let _ = reply
                    .send(ipc::control::Reply::Refused("The VM is being saved: try again when it is".into()));
            }
            Ok(Event::Request(ipc::control::Request::Record { device, to }, reply)) => {
                self.record(&device, to, reply);
            }
            Ok(Event::Request(ipc::control::Request::RestartDevice { device, state }, reply)) => {
                self.restart_device(&device, state, reply);
            }
            Ok(Event::Request(
                ipc::control::Request::SwapDevice { device, exe, state, patience_millis },
                reply,
            )) => {
                let patience = Duration::from_millis(patience_millis);
                self.swap_device(&device, exe.as_deref(), state, patience, reply);
            }
            Ok(Event::Request(request, reply)) => {
                // As above.
                let _ = reply.send(self.answer(request));
            }
            Err(_) => self.sample(),
        }
        Ok(None)
    }

    /// Time stands still while a process that the guest needs is gone or stopped, so that no tick
    /// is missed and no time-out of the guest expires, also when the CPU waits for an interrupt.
    fn keep_time(&mut self) {
        let missing = |(slot, managed): (usize, &Option<Managed>)| {
            managed.as_ref().is_some_and(|managed| self.holds_time(slot, managed))
        };
        let stands = self.processes.iter().enumerate().take(VMM_SLOT + 1).any(missing);
        if stands != self.time_stands {
            self.time_stands = stands;
            let chassis = self.memory.chassis();
            if stands {
                chassis.panel().clock.freeze(Freeze::DeviceGone);
            } else {
                chassis.thaw(Freeze::DeviceGone);
            }
        }
    }

    fn holds_time(&self, slot: usize, managed: &Managed) -> bool {
        managed.stopped || slot != VMM_SLOT && !self.is_settled(slot)
    }

    /// Whether nobody waits for a process: it is there, or was given up.
    fn is_settled(&self, slot: usize) -> bool {
        self.memory.process_state(slot).is_settled()
    }

    /// Says anew how host time is read off the time-stamp counter, when that is due.
    fn renew_clock(&mut self) {
        if let Some(line) = self.host_clock.line() {
            self.memory.chassis().renew_clock(line);
        }
    }

    fn vmm_lifeline(&self) -> Option<&Lifeline> {
        self.processes[VMM_SLOT].as_ref()?.lifeline.as_ref()
    }

    /// Whether a process waits to be started by hand, or for a debugger. The VMM waits for the others.
    fn waits_for_person(&self, name: &str) -> bool {
        let waits = |p: &Managed| (p.executable == Executable::ByHand || p.debug) && p.lifeline.is_none();
        let any = || self.processes.iter().flatten().any(waits);
        self.processes
            .iter()
            .flatten()
            .any(|p| p.role.to_string() == name && (waits(p) || p.role == Role::Vmm && any()))
    }

    fn name(&self, process: usize) -> String {
        self.processes[process].as_ref().map_or_else(|| "?".into(), |p| p.role.to_string())
    }

    /// What every process is told by its environment.
    fn set_environment(&self, command: &mut std::process::Command) {
        // A socket that a process leaves that is killed while it attaches goes away with the VM.
        command.env("TMPDIR", self.dir.path());
        // Where a model panicked is what its author wants to know.
        if std::env::var_os("RUST_BACKTRACE").is_none() {
            command.env("RUST_BACKTRACE", "1");
        }
        command.env(SPAWNED_VARIABLE, "1");
    }

    fn spawn(&mut self, process: usize) -> Result<()> {
        let name = self.name(process);
        let Some(managed) = &self.processes[process] else { return Ok(()) };
        let vm = &self.config.name;
        let command = match &managed.role {
            Role::Vmm => Some(crate::roles::vmm_command(vm)),
            Role::Device(device) => crate::roles::device_command(vm, device, &managed.executable),
            Role::Display => Some(crate::roles::display_command(vm, self.display_kind.unwrap_or("window"))),
        };
        let Some(mut command) = command else {
            let command = Executable::ByHand.by_hand_command(&name, vm);
            say(&format!("waits for {name}; start it with: {command}"));
            return Ok(());
        };
        if managed.role == Role::Display {
            command.envs(self.display_environment.iter().cloned());
        }
        self.set_environment(&mut command);
        let debug = managed.debug;
        if debug {
            command.env(DEBUG_VARIABLE, "1");
        }
        let terminal = managed.role == Role::Display && self.display_kind == Some("terminal");
        let stderr = self.dir.log(&format!("{name}.stderr"));
        let child = Child::spawn(command, process, &managed.role, terminal, &stderr, self.sender.clone())
            .with_context(|| format!("Cannot start {name}"))?;
        let Some(managed) = &mut self.processes[process] else { return Ok(()) };
        managed.begin(child);
        managed.handled_at_start = self.memory.handled(process);
        if let Some(cell) = self.memory.panel().process(process) {
            cell.pid.store(managed.pid, Ordering::Relaxed);
            self.memory.set_process_state(process, ProcessState::Starting);
        }
        if debug {
            let command = format!("gdb -p {}", self.processes[process].as_ref().map_or(0, |p| p.pid));
            self.note(&format!("{name} waits for a debugger: {command}"));
            say(&format!("{name} waits for a debugger (set breakpoints, then 'continue'): {command}"));
        }
        Ok(())
    }

    /// A line in the supervisor's own log.
    fn note(&self, text: &str) {
        ipc::logging::set_context(self.memory.panel().clock.now(), (0, 0));
        tracing::warn!("{text}");
    }

    /// Ends all processes: the VMM first, so that nothing new is asked of devices, then the
    /// others, which finish what was posted to them.
    fn shut_down(&mut self) {
        self.memory.chassis().set_run_state(RunState::Stopping);
        self.tell_to_end(|process| process == VMM_SLOT);
        self.tell_to_end(|process| process != VMM_SLOT);
        for managed in self.processes.iter_mut().flatten() {
            if let Some(child) = managed.child.take() {
                child.kill();
            }
            managed.lifeline = None;
        }
        if let Some(swap) = self.swap.take() {
            swap.abandon();
        }
        if let Some(save) = self.save.take() {
            save.abandon();
            // What was kept from them is in no file.
            self.give_serial_output();
        }
        // The guest's last words are sent by now.
        self.serial = None;
    }

    fn tell_to_end(&mut self, which: impl Fn(usize) -> bool) {
        for (process, managed) in self.processes.iter().enumerate() {
            if let Some(Managed { lifeline: Some(lifeline), .. }) = managed
                && which(process)
            {
                // A process that is gone already needs no telling.
                let _ = lifeline.send(Command::Shutdown);
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let lives = |(process, managed): (usize, &Option<Managed>)| {
            which(process) && managed.as_ref().is_some_and(|m| m.child.is_some())
        };
        while self.processes.iter().enumerate().any(lives) && Instant::now() < deadline {
            if let Ok(Event::Exit(exit)) = self.events.recv_timeout(Duration::from_millis(20))
                && let Some(managed) = &mut self.processes[exit.process]
            {
                managed.child = None;
            }
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shut_down();
        self.memory.remove();
        // Whoever sees that the VM is gone may take its images at once.
        self.images = None;
        self.dir.remove();
    }
}

impl Managed {
    /// A run of it begins.
    fn begin(&mut self, child: Child) {
        self.pid = child.pid;
        self.watch = Some(Watch::new(child.pid));
        self.unready_since = None;
        self.child = Some(child);
    }

    fn new(role: Role, executable: Executable) -> Self {
        Self {
            role,
            executable,
            child: None,
            lifeline: None,
            pid: 0,
            build: String::new(),
            deaths: Deaths::default(),
            attached_before: false,
            stopped: false,
            recording: None,
            cold: false,
            end_wanted: false,
            hung: None,
            handled_at_start: 0,
            last_end: String::new(),
            died: None,
            restarts: 0,
            unready_since: None,
            watch: None,
            watchdog: None,
            debug: false,
            sandbox: false,
            faults: Faults::default(),
            dma: None,
        }
    }
}

/// Whether a request changes or asks device processes, which wait while the VM is being saved.
fn concerns_devices(request: &ipc::control::Request) -> bool {
    use ipc::control::Request::{Record, RestartDevice, SwapDevice};
    matches!(request, Record { .. } | RestartDevice { .. } | SwapDevice { .. })
}

/// What a VM goes on from besides its memory; nothing for one that is switched on.
#[derive(Default)]
struct GoesOn {
    /// For its VMM.
    processor: Option<Exported>,
    /// It is paused at first.
    paused: bool,
    /// For whoever connects first to each serial port.
    held_output: Vec<Vec<u8>>,
    /// Images that stay if it starts.
    kept: KeptImages,
}

/// Puts what was saved into a VM's memory, and returns the rest.
fn restore(memory: &VmMemory, restored: Option<Restored>) -> Result<GoesOn> {
    let Some(Restored { mut vm, path, paused, kept }) = restored else { return Ok(GoesOn::default()) };
    memory.restore(&mut vm).with_context(|| format!("Saved VM {}", path.display()))?;
    let held_output = vm.serial.into_iter().map(|port| port.held).collect();
    Ok(GoesOn { processor: Some(vm.processor), paused, held_output, kept })
}

/// Answers a client before the process ends: nobody takes a further answer when that one has left, or when
/// the client went away.
fn answer_last(reply: &Sender<ipc::control::Reply>, answer: &ipc::control::Reply) {
    while reply.send_timeout(answer.clone(), ANSWER_TIMEOUT).is_ok() {}
}

/// The kind of display to open; `None` for none.
fn display_kind(kind: DisplayKind) -> Option<&'static str> {
    match kind {
        DisplayKind::None => None,
        DisplayKind::Window => Some("window"),
        DisplayKind::Terminal => Some("terminal"),
        DisplayKind::Auto => Some(crate::display_role::best_kind()),
    }
}
