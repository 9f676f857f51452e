//! Another build takes the place of a device process while the guest runs (`vmsim device swap`).
//!
//! The other build is started beside the running one, prepares everything and tries the states, while the
//! guest runs on. Only when it says that it is there does time stand still: the running build commits its
//! states and parks, the other one takes over, and the old one ends. Until the other one has taken every
//! state nothing has been changed, and whatever goes wrong, the running build goes on.

use super::children::{Child, ChildExit};
use super::{Managed, Supervisor};
use crate::roles::Executable;
use anyhow::{Context, Result};
use crossbeam::channel::Sender;
use ipc::clock::Freeze;
use ipc::control::{Reply, StateChoice};
use ipc::link::hand_over;
use ipc::panel::{MAX_DEVICES, ProcessState};
use ipc::setup::{Command, Lifeline, StartFrom};
use ipc::sync::Ordering;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the running build may take to finish what it is at.
const PARK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the other build may take to begin, all being prepared.
const TAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often is looked meanwhile: the guest waits.
const LOOK: Duration = Duration::from_micros(50);

/// A build that is to take the place of another one.
pub struct Swap {
    process: usize,
    executable: Executable,
    child: Child,
    lifeline: Option<Lifeline>,
    build: String,
    state: StateChoice,
    /// Versions of the states that it saves, once it is prepared.
    versions: Option<Vec<u16>>,
    deadline: Instant,
    patience: Duration,
    reply: Sender<Reply>,
}

/// How far a hand-over got that failed.
enum Failure {
    /// Nothing was changed.
    Early(String),
    /// The other build had begun to change what is shared.
    Late(String),
}

impl Swap {
    /// Whether process `pid` is the one that is to take over.
    pub fn is(&self, pid: u32) -> bool {
        self.child.pid == pid
    }

    /// What it begins with.
    pub fn from(&self) -> StartFrom {
        match self.state {
            StateChoice::Keep => StartFrom::Committed,
            StateChoice::Cold => StartFrom::Cold,
        }
    }

    /// Takes note that it has attached.
    pub fn attached(&mut self, lifeline: Lifeline, build: String) {
        self.lifeline = Some(lifeline);
        self.build = build;
    }

    /// Ends it: the VM ends.
    pub fn abandon(self) {
        self.child.kill();
        // A client that went away does not need its answer.
        let _ = self.reply.send(Reply::Refused("The VM is ending".into()));
    }

    /// Slot that it is to have.
    pub fn process(&self) -> usize {
        self.process
    }

    fn name(&self) -> String {
        let version = if self.build.is_empty() { "?" } else { &self.build };
        format!("{version} ({})", self.executable)
    }
}

impl Supervisor {
    /// Starts the other build. `reply` is answered when it has taken over, or is refused.
    pub(super) fn swap_device(
        &mut self,
        device: &str,
        exe: Option<&Path>,
        state: StateChoice,
        patience: Duration,
        reply: Sender<Reply>,
    ) {
        let begun = match self.replace_dead(device, exe) {
            Ok(true) => return self.restart_device(device, state, reply),
            Ok(false) => self.begin_swap(device, exe, state, patience, &reply),
            Err(why) => Err(why),
        };
        match begun {
            Ok(swap) => self.swap = Some(swap),
            // A client that went away does not need its answer.
            Err(why) => drop(reply.send(Reply::Refused(format!("{why:#}")))),
        }
    }

    /// Gives a device that is off the bus another program. False when it is not off the bus.
    fn replace_dead(&mut self, device: &str, exe: Option<&Path>) -> Result<bool> {
        let process = self.device_slot(device).map_err(anyhow::Error::msg)?;
        if !self.is_off_bus(process) {
            return Ok(false);
        }
        if let Some(managed) = &mut self.processes[process]
            && let Some(path) = exe
        {
            managed.executable = crate::config::executable(path)?;
        }
        Ok(true)
    }

    fn begin_swap(
        &mut self,
        device: &str,
        exe: Option<&Path>,
        state: StateChoice,
        patience: Duration,
        reply: &Sender<Reply>,
    ) -> Result<Swap> {
        let process = self.device_slot(device).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(self.swap.is_none(), "Another swap is under way: try again when it is done");
        let managed = self.processes[process].as_ref().context("No such process")?;
        let executable = match exe {
            Some(path) => crate::config::executable(path)?,
            None => managed.executable.clone(),
        };
        let vm = &self.config.name;
        let command = crate::roles::device_command(vm, device, &executable)
            .filter(|_| managed.executable != Executable::ByHand);
        let Some(mut command) = command else {
            anyhow::bail!("{device} is started by hand: end it, and start the other build in its place");
        };
        anyhow::ensure!(
            managed.child.is_some() && self.memory.process_state(process) == ProcessState::Ready,
            "{device} does not serve at present: see 'vmsim ps'"
        );
        self.set_environment(&mut command);
        let child = Child::spawn(
            command,
            process,
            &managed.role,
            false,
            &self.swap_stderr(process),
            self.sender.clone(),
        )
        .with_context(|| format!("Cannot start {executable}"))?;
        Ok(Swap {
            process,
            executable,
            child,
            lifeline: None,
            build: String::new(),
            state,
            versions: None,
            deadline: Instant::now() + patience,
            patience,
            reply: reply.clone(),
        })
    }

    fn swap_stderr(&self, process: usize) -> PathBuf {
        self.dir.log(&format!("{}.swap.stderr", self.name(process)))
    }

    /// The other build is prepared.
    pub(super) fn swap_stands_by(&mut self, pid: u32, versions: Vec<u16>) -> Reply {
        match &mut self.swap {
            Some(swap) if swap.is(pid) => {
                swap.versions = Some(versions);
                Reply::Ok
            }
            _ => Reply::Refused("No swap waits for this process".into()),
        }
    }

    /// Whether the end of a process was that of a build that was to take over; the swap is off then.
    pub(super) fn swap_ended(&mut self, exit: &ChildExit) -> bool {
        let Some(swap) = self.swap.take_if(|swap| swap.child.generation == exit.generation) else {
            return false;
        };
        let stderr = std::fs::read_to_string(self.swap_stderr(swap.process)).unwrap_or_default();
        self.refuse_swap(swap, &exit.why(&stderr));
        true
    }

    /// Goes on with a swap as soon as that can be.
    pub(super) fn follow_swap(&mut self) {
        let Some(swap) = self.swap.take() else { return };
        let managed = self.processes[swap.process].as_ref();
        // One that was just killed, or is held by a debugger, first has to come back.
        let ready = self.memory.process_state(swap.process) == ProcessState::Ready
            && managed
                .is_some_and(|managed| managed.child.is_some() && !managed.stopped && !managed.end_wanted);
        if ready && swap.versions.is_some() {
            self.hand_over(swap);
        } else if Instant::now() >= swap.deadline {
            let why = match (&swap.versions, &swap.lifeline) {
                (None, None) => format!("it did not attach within {:?}", swap.patience),
                (None, Some(_)) => format!("it was not prepared within {:?}", swap.patience),
                (Some(_), _) => {
                    format!("the running build does not serve: see 'vmsim ps' ({:?})", swap.patience)
                }
            };
            self.refuse_swap(swap, &why);
        } else {
            self.swap = Some(swap);
        }
    }

    /// Ends the other build, and says why.
    fn refuse_swap(&mut self, swap: Swap, why: &str) {
        swap.child.kill();
        let (device, other) = (self.name(swap.process), swap.name());
        let running = self.processes[swap.process].as_ref().map(Managed::build).unwrap_or_default();
        let text = format!("{device} stays with build {running}: {other} was refused: {why}");
        self.note(&text);
        // A client that went away does not need its answer.
        let _ = swap.reply.send(Reply::Refused(text));
    }

    /// The swap itself. The guest waits.
    fn hand_over(&mut self, swap: Swap) {
        let (started, process) = (Instant::now(), swap.process);
        self.memory.panel().clock.freeze(Freeze::HandOver);
        let result = self.try_hand_over(&swap);
        match result {
            Ok(()) => {
                let paused = self.complete_swap(&swap, started);
                let device = self.name(process);
                let (pid, build) = (swap.child.pid, swap.name());
                let before = self.replace_process(swap, paused);
                self.note(&format!(
                    "{device} is build {build}, process {pid}, in the place of {before}; paused {paused:?}"
                ));
            }
            Err(failure) => {
                let (why, reload) = match failure {
                    Failure::Early(why) => (why, false),
                    Failure::Late(why) => (why, true),
                };
                swap.child.kill();
                self.wait_for(TAKE_TIMEOUT, || swap.child.has_ended());
                self.take_back(process, reload);
                self.memory.chassis().thaw(Freeze::HandOver);
                self.refuse_swap(swap, &why);
            }
        }
        self.keep_time();
    }

    fn try_hand_over(&self, swap: &Swap) -> Result<(), Failure> {
        let process = swap.process;
        let managed = self.processes[process].as_ref();
        let early = |why: &str| Failure::Early(why.into());
        let link = self.memory.link(process).ok_or_else(|| early("it has no link"))?;
        let (Some(Managed { lifeline: Some(running), child: Some(child), .. }), Some(other)) =
            (managed, &swap.lifeline)
        else {
            return Err(early("the running build is gone"));
        };
        link.process.hand_over.store(hand_over::NONE, Ordering::Release);
        let versions = match swap.state {
            StateChoice::Keep => swap.versions.clone().unwrap_or_default(),
            StateChoice::Cold => Vec::new(),
        };
        running.send(Command::HandOver { versions });
        let step = || link.process.hand_over.load(Ordering::Acquire);
        // One that dies meanwhile leaves its committed states, which are as good.
        if !self.wait_for(PARK_TIMEOUT, || step() != hand_over::NONE || child.has_ended()) {
            return Err(Failure::Early(format!("the running build is busy for more than {PARK_TIMEOUT:?}")));
        }
        if step() == hand_over::CANNOT {
            return Err(early("the running build cannot give its state in the older version that it takes"));
        }
        self.memory.set_process_state(process, ProcessState::Swapping);
        other.send(Command::TakeOver);
        let ready = || self.memory.process_state(process) == ProcessState::Ready;
        let answered = self.wait_for(TAKE_TIMEOUT, || ready() || swap.child.has_ended());
        if ready() {
            return Ok(());
        }
        let why = if answered {
            let said = std::fs::read_to_string(self.swap_stderr(process)).unwrap_or_default();
            super::children::last_words(&said).unwrap_or_else(|| "it ended when it was to take over".into())
        } else {
            format!("it did not take over within {TAKE_TIMEOUT:?}")
        };
        Err(if step() == hand_over::TAKEN { Failure::Late(why) } else { Failure::Early(why) })
    }

    /// Lets the running build go on.
    fn take_back(&mut self, process: usize, reload: bool) {
        let Some(link) = self.memory.link(process) else { return };
        link.process.hand_over.store(hand_over::NONE, Ordering::Release);
        let Some(Managed { lifeline: Some(running), .. }) = &self.processes[process] else { return };
        // One that has not lost its place serves as it did; another says so when it has its states again.
        self.memory.set_process_state(process, ProcessState::Swapping);
        link.process.set_serves(!reload);
        running.send(Command::GoOn { reload });
        let ready = || self.memory.process_state(process) == ProcessState::Ready;
        if !self.wait_for(TAKE_TIMEOUT, ready)
            && let Some(Managed { child: Some(child), .. }) = &self.processes[process]
        {
            // Its end is dealt with as any other.
            child.kill();
        }
    }

    /// Lets time go on: the other build serves. Returns how long the guest waited.
    fn complete_swap(&mut self, swap: &Swap, started: Instant) -> Duration {
        self.memory.panel().processes[swap.process].pid.store(swap.child.pid, Ordering::Relaxed);
        if let Some(link) = self.memory.link(swap.process) {
            link.process.hand_over.store(hand_over::NONE, Ordering::Release);
        }
        self.memory.chassis().thaw(Freeze::HandOver);
        started.elapsed()
    }

    /// Puts the other build in the place of the running one, which ends. Returns what that was.
    fn replace_process(&mut self, swap: Swap, paused: Duration) -> String {
        debug_assert!(swap.process < MAX_DEVICES);
        let device = self.name(swap.process);
        // The old one's last words are of no interest any more.
        let _ = std::fs::rename(self.swap_stderr(swap.process), self.dir.log(&format!("{device}.stderr")));
        let (pid, build) = (swap.child.pid, swap.name());
        let Some(managed) = &mut self.processes[swap.process] else { return String::new() };
        let before = managed.build();
        if let Some(old) = managed.child.take() {
            old.kill();
        }
        managed.begin(swap.child);
        managed.lifeline = swap.lifeline;
        managed.build = swap.build;
        managed.executable = swap.executable;
        managed.deaths.forget();
        managed.handled_at_start = self.memory.handled(swap.process);
        let millis = paused.as_secs_f64() * 1e3;
        // A client that went away does not need its answer.
        let _ = swap.reply.send(Reply::Done(format!(
            "{device} is now build {build}, process {pid}; before: {before}; the guest was paused for {millis:.2} ms"
        )));
        before
    }

    pub(super) fn wait_for(&self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !done() {
            if Instant::now() >= deadline {
                return done();
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}
