//! The supervisor: makes a VM's shared memory, starts and watches its processes, restarts those
//! that die, answers the control socket, and takes everything away at the end.
//!
//! One thread owns the VM and handles one event at a time; other threads only wait (for a
//! child, a connection, a signal) and send it events.

mod children;
mod image_locks;
mod inspection;
mod memory;
mod recording;
mod requests;
mod serial;
mod server;

use crate::cli::DisplayKind;
use crate::config::Plan;
use crate::progress::say;
use crate::roles::Executable;
use anyhow::{Context, Result, bail};
use children::{Child, ChildExit};
use crossbeam::channel::{Receiver, Sender, unbounded};
use image_locks::ImageLocks;
use ipc::board::{KILLED, MAX_DEVICES, ProcessState, RunState, VMM_SLOT};
use ipc::clock::Freeze;
use ipc::control::Role;
use ipc::host_clock::Keeper;
use ipc::input::HostEvent;
use ipc::inspect::{Inspect, Inspected, Listen};
use ipc::runtime_dir::{RuntimeDir, VmDir, VmLock};
use ipc::setup::{Command, Lifeline};
use ipc::sync::Ordering;
use memory::VmMemory;
use serial::SerialPorts;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long processes may take to attach when a VM starts.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long processes may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_millis(700);
/// A process that died this often within [`DEATH_WINDOW`] is taken off the bus.
const MAX_DEATHS: usize = 10;
const DEATH_WINDOW: Duration = Duration::from_secs(10);
/// Restarts beyond the first few wait this much longer each time.
const BACK_OFF: Duration = Duration::from_millis(20);
const QUICK_RESTARTS: usize = 3;
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
    deaths: Vec<Instant>,
    attached_before: bool,
    stopped: bool,
    /// Where its link is recorded; its successor goes on with that.
    recording: Option<PathBuf>,
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
    events: Receiver<Event>,
    sender: Sender<Event>,
    last_sample: (Instant, u64),
    time_stands: bool,
    host_clock: Keeper,
    _images: ImageLocks,
    _temporary: Option<tempfile::TempDir>,
    _lock: VmLock,
}

/// Process index of the display.
const DISPLAY: usize = MAX_DEVICES + 1;

impl Supervisor {
    /// Makes the VM's place and memory and starts its processes; the guest does not run yet.
    pub fn start(plan: Plan) -> Result<Self> {
        let Plan { config, display, devices, debugger, recordings, temporary, stdio: _ } = plan;
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
        let (images, memory) = match parts {
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
            devices: slots.map(|(slot, (name, _))| (slot as u32, name.clone())).collect(),
            processes: (0..=DISPLAY).map(|_| None).collect(),
            display_kind: display_kind(display),
            display_environment: Vec::new(),
            input: VecDeque::new(),
            dir,
            config,
            events,
            sender,
            last_sample: (Instant::now(), 0),
            time_stands: false,
            host_clock: Keeper::new(),
            _images: images,
            _temporary: temporary,
            _lock: lock,
        };
        server::listen(&supervisor.dir.socket(), supervisor.sender.clone())
            .with_context(|| format!("Control socket {}", supervisor.dir.socket().display()))?;
        server::watch_signals(supervisor.sender.clone())?;
        let cables = supervisor.memory.serial();
        supervisor.serial = Some(SerialPorts::open(&supervisor.config.serial, cables, &supervisor.sender)?);
        for (slot, (name, executable)) in devices.into_iter().enumerate() {
            let recording = recordings.iter().find(|(device, _)| *device == name);
            let recording = recording.map(|(_, path)| path.clone());
            let managed = Managed::new(Role::Device(name), executable);
            supervisor.processes[slot] = Some(Managed { recording, ..managed });
            supervisor.spawn(slot)?;
        }
        supervisor.processes[VMM_SLOT] = Some(Managed::new(Role::Vmm, Executable::Own));
        supervisor.spawn(VMM_SLOT)?;
        supervisor.wait_until_ready()?;
        if let Some((at, wait)) = debugger {
            supervisor.listen_for_debugger(at, wait)?;
        }
        Ok(supervisor)
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
                .filter(|slot| self.memory.process_state(*slot) != ProcessState::Ready)
                .map(|slot| self.name(slot))
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let by_hand = |name: &String| self.is_by_hand(name);
            if Instant::now() > deadline && !waiting.iter().all(by_hand) {
                bail!("{} did not attach within {START_TIMEOUT:?}", waiting.join(", "));
            }
            match self.events.recv_timeout(Duration::from_millis(5)) {
                Ok(Event::Exit(exit)) => {
                    let why = exit.why(&self.dir.log(&format!("{}.stderr", self.name(exit.process))));
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

    /// Lets the guest run.
    pub fn run_guest(&mut self) {
        self.renew_clock();
        let board = self.memory.board();
        board.thaw(Freeze::Paused);
        board.set_run_state(RunState::Running);
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
        match self.memory.board().powered_off.load(Ordering::Acquire) {
            0 => {}
            KILLED => return Ok(Some(Ending::Stopped)),
            _ => return Ok(Some(Ending::PoweredOff)),
        }
        self.pass_input();
        self.keep_time();
        self.renew_clock();
        let wait = if self.input.is_empty() { wait } else { wait.min(INPUT_RETRY) };
        let wait = if self.time_stands { wait.min(RECOVERY_LOOK) } else { wait };
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
                // A client that went away does not need its answer.
                let _ = reply.send(ipc::control::Reply::Ok);
                // Let the answer leave before the process ends.
                std::thread::sleep(Duration::from_millis(20));
                return Ok(Some(Ending::Stopped));
            }
            Ok(Event::Request(ipc::control::Request::Inspect(what), reply)) => {
                inspection::forward(self.vmm_lifeline(), what, reply);
            }
            Ok(Event::Request(ipc::control::Request::Record { device, to }, reply)) => {
                self.record(&device, to, reply);
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
            let ready =
                || matches!(self.memory.process_state(slot), ProcessState::Ready | ProcessState::Offline);
            managed.as_ref().is_some_and(|managed| managed.stopped || slot != VMM_SLOT && !ready())
        };
        let stands = self.processes.iter().enumerate().take(VMM_SLOT + 1).any(missing);
        if stands != self.time_stands {
            self.time_stands = stands;
            let board = self.memory.board();
            if stands {
                board.clock.freeze(Freeze::DeviceGone);
            } else {
                board.thaw(Freeze::DeviceGone);
            }
        }
    }

    /// Says anew how host time is read off the time-stamp counter, when that is due.
    fn renew_clock(&mut self) {
        if let Some(line) = self.host_clock.line() {
            self.memory.board().renew_clock(line);
        }
    }

    fn vmm_lifeline(&self) -> Option<&Lifeline> {
        self.processes[VMM_SLOT].as_ref()?.lifeline.as_ref()
    }

    fn is_by_hand(&self, name: &str) -> bool {
        self.processes
            .iter()
            .flatten()
            .any(|p| p.executable == Executable::ByHand && p.role.to_string() == name && p.pid == 0)
    }

    fn name(&self, process: usize) -> String {
        self.processes[process].as_ref().map_or_else(|| "?".into(), |p| p.role.to_string())
    }

    fn handle_exit(&mut self, exit: ChildExit) -> Result<()> {
        let process = exit.process;
        let name = self.name(process);
        let stderr = self.dir.log(&format!("{name}.stderr"));
        let Some(managed) = &mut self.processes[process] else { return Ok(()) };
        if managed.child.as_ref().is_none_or(|child| child.generation != exit.generation) {
            return Ok(());
        }
        managed.child = None;
        managed.lifeline = None;
        managed.stopped = false;
        managed.pid = 0;
        let why = exit.why(&stderr);
        if process == VMM_SLOT {
            bail!("The VMM ended: {why}");
        }
        if process == DISPLAY {
            self.memory.board().displays.store(0, Ordering::Release);
            if exit.was_orderly() {
                // The user closed it.
                self.processes[DISPLAY] = None;
                if self.memory.board().powered_off.load(Ordering::Acquire) == 0 {
                    let vm = &self.config.name;
                    say(&format!(
                        "the view is closed and '{vm}' runs on; 'vmsim display --vm {vm}' opens it again, \
                         'vmsim stop --vm {vm}' ends it"
                    ));
                }
                return Ok(());
            }
            if exit.was_refused() {
                self.note(&format!("display: {why}"));
                say(&why);
                self.processes[DISPLAY] = None;
                return Ok(());
            }
        }
        if let Some(cell) = self.memory.board().process(process) {
            cell.state.store(ProcessState::Restarting as u32, Ordering::Release);
        }
        self.keep_time();
        self.note(&format!("{name} died ({why}); it is started again"));
        self.restart(process);
        Ok(())
    }

    fn restart(&mut self, process: usize) {
        let Some(managed) = &mut self.processes[process] else { return };
        let now = Instant::now();
        managed.deaths.retain(|death| now - *death < DEATH_WINDOW);
        managed.deaths.push(now);
        let deaths = managed.deaths.len();
        if process < MAX_DEVICES {
            let cell = &self.memory.board().processes[process];
            cell.pid.store(0, Ordering::Relaxed);
            let offline = deaths > MAX_DEATHS;
            let state = if offline { ProcessState::Offline } else { ProcessState::Restarting };
            cell.state.store(state as u32, Ordering::Release);
            if offline {
                let name = self.name(process);
                self.note(&format!("{name} died {deaths} times in {DEATH_WINDOW:?}: it is off the bus"));
                self.memory.board().disconnect(process);
                return;
            }
        } else if deaths > MAX_DEATHS {
            self.note("the display dies again and again: it stays closed; 'vmsim display' opens one");
            self.processes[process] = None;
            return;
        }
        if deaths <= QUICK_RESTARTS {
            self.restart_now(process);
        } else {
            let (sender, wait) = (self.sender.clone(), BACK_OFF * (deaths - QUICK_RESTARTS) as u32);
            std::thread::spawn(move || {
                std::thread::sleep(wait);
                // The supervisor may be gone by now.
                let _ = sender.send(Event::Restart(process));
            });
        }
    }

    fn restart_now(&mut self, process: usize) {
        // Meanwhile somebody may have started it by hand.
        if self.processes[process].as_ref().is_none_or(|managed| managed.child.is_some()) {
            return;
        }
        if let Some(cell) = self.memory.board().process(process) {
            cell.restarts.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = self.spawn(process) {
            self.note(&format!("{} cannot be started again: {error:#}", self.name(process)));
            self.restart(process);
        }
    }

    fn spawn(&mut self, process: usize) -> Result<()> {
        let name = self.name(process);
        let Some(managed) = &mut self.processes[process] else { return Ok(()) };
        let vm = &self.config.name;
        let command = match &managed.role {
            Role::Vmm => Some(crate::roles::vmm_command(vm)),
            Role::Device(device) => crate::roles::device_command(vm, device, &managed.executable),
            Role::Display => Some(crate::roles::display_command(vm, self.display_kind.unwrap_or("window"))),
        };
        let Some(mut command) = command else {
            say(&format!("waits for {name}; start it with: vmsim-dev {name} --attach {vm}"));
            return Ok(());
        };
        if managed.role == Role::Display {
            command.envs(self.display_environment.iter().cloned());
        }
        // A socket that a process leaves that is killed while it attaches goes away with the VM.
        command.env("TMPDIR", self.dir.path());
        let terminal = managed.role == Role::Display && self.display_kind == Some("terminal");
        let stderr = self.dir.log(&format!("{name}.stderr"));
        let child = Child::spawn(command, process, &managed.role, terminal, &stderr, self.sender.clone())
            .with_context(|| format!("Cannot start {name}"))?;
        managed.pid = child.pid;
        managed.child = Some(child);
        if let Some(cell) = self.memory.board().process(process) {
            cell.pid.store(managed.pid, Ordering::Relaxed);
            cell.state.store(ProcessState::Starting as u32, Ordering::Release);
        }
        Ok(())
    }

    /// A line in the supervisor's own log.
    fn note(&self, text: &str) {
        ipc::logging::set_context(self.memory.board().clock.now(), (0, 0));
        tracing::warn!("{text}");
    }

    /// Ends all processes: the VMM first, so that nothing new is asked of devices, then the
    /// others, which finish what was posted to them.
    fn shut_down(&mut self) {
        self.memory.board().set_run_state(RunState::Stopping);
        self.tell_to_end(|process| process == VMM_SLOT);
        self.tell_to_end(|process| process != VMM_SLOT);
        for managed in self.processes.iter_mut().flatten() {
            if let Some(child) = managed.child.take() {
                child.kill();
            }
            managed.lifeline = None;
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
        self.dir.remove();
    }
}

impl Managed {
    fn new(role: Role, executable: Executable) -> Self {
        Self {
            role,
            executable,
            child: None,
            lifeline: None,
            pid: 0,
            build: String::new(),
            deaths: Vec::new(),
            attached_before: false,
            stopped: false,
            recording: None,
        }
    }
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
