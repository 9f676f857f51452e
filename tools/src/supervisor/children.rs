//! Starting a process and learning of its end.

#![expect(unsafe_code)] // `pre_exec`: between fork and exec, only system calls.

use super::Event;
use super::deaths::Cause;
use crossbeam::channel::Sender;
use ipc::control::Role;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A running child.
pub struct Child {
    /// Process ID.
    pub pid: u32,
    /// Tells this run of the process from earlier ones.
    pub generation: u64,
    /// Names the process for certain, also when it has ended and its ID belongs to another one.
    handle: OwnedFd,
}

/// How a process of the VM ended.
pub struct ChildExit {
    /// Index of the process.
    pub process: usize,
    /// Which run of it.
    pub generation: u64,
    /// Its status; not known of a process that somebody else started.
    pub status: Option<ExitStatus>,
}

impl ChildExit {
    /// One line that says how it ended: the last thing it said, or its signal or exit code.
    pub fn why(&self, said: &str) -> String {
        let Some(status) = self.status else { return "it was started by hand and ended".into() };
        match (status.signal(), last_words(said)) {
            (Some(signal), _) => {
                let core = if status.core_dumped() { ", core dumped" } else { "" };
                format!("killed by signal {signal}{core}")
            }
            (None, Some(line)) if !status.success() => line,
            _ => status.to_string(),
        }
    }

    /// Whose fault it was.
    pub fn cause(&self) -> Cause {
        // What is sent by people and by the system, not what a process brings upon itself.
        const SENT: [i32; 4] = [SIGKILL, SIGTERM, SIGINT, SIGHUP];
        let sent = |status: &ExitStatus| status.signal().is_some_and(|signal| SENT.contains(&signal));
        if self.status.as_ref().is_none_or(sent) { Cause::Killed } else { Cause::Crashed }
    }

    /// Whether it ended in order. What is not known counts as that.
    pub fn was_orderly(&self) -> bool {
        self.status.is_none_or(|status| status.success())
    }

    /// Whether it ended by itself with an error, as opposed to being killed or crashing.
    pub fn was_refused(&self) -> bool {
        self.status.is_some_and(|status| status.code() == Some(1))
    }
}

/// The last line that a process said; of one that panicked, where and why.
pub fn last_words(said: &str) -> Option<String> {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if let Some(at) = lines.iter().rposition(|line| line.contains("panicked at ")) {
        let place = lines[at].split_once("panicked at ").map_or("", |(_, place)| place);
        let why = lines.get(at + 1).copied().unwrap_or_default();
        return Some(format!("panic at {place} {why}").trim_end().into());
    }
    lines.last().map(|line| (*line).to_owned())
}

/// How long a process may take to write its core.
const TIME_TO_ABORT: Duration = Duration::from_secs(2);

static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Child {
    /// Starts `command` as process number `process`. Its end arrives as [`Event::Exit`].
    pub fn spawn(
        mut command: Command,
        process: usize,
        role: &Role,
        terminal: bool,
        stderr: &Path,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(stderr)?;
        if terminal {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
        } else {
            command.stdin(Stdio::null()).stdout(log.try_clone()?);
        }
        command.stderr(log);
        // The VMM outlives a killed supervisor for a moment: it removes what would be left behind.
        let dies_with_parent = *role != Role::Vmm;
        let own_group = !terminal;
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe system
        // calls; it captures two bools by value.
        unsafe {
            command.pre_exec(move || {
                if own_group {
                    // Ctrl-C in the terminal is for the supervisor alone.
                    rustix::process::setpgid(None, None)?;
                }
                if dies_with_parent {
                    let signal = Some(rustix::process::Signal::KILL);
                    rustix::process::set_parent_process_death_signal(signal)?;
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = child.id();
        // Not reaped before the thread below runs: the ID is still this child's.
        let handle = open_handle(pid)?;
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || watch(pid, process, generation, &events));
        Ok(Self { pid, generation, handle })
    }

    /// Watches a process that somebody else started and that attached by itself.
    pub fn adopt(pid: u32, process: usize, events: Sender<Event>) -> io::Result<Self> {
        use rustix::event::{PollFd, PollFlags};
        let fd = open_handle(pid)?;
        let handle = fd.try_clone()?;
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            // Readable once the process has ended; a signal to us only makes it look again.
            while !matches!(rustix::event::poll(&mut fds, None), Ok(ready) if ready > 0) {}
            // The supervisor may be gone by now.
            let _ = events.send(Event::Exit(ChildExit { process, generation, status: None }));
        });
        Ok(Self { pid, generation, handle })
    }

    /// Ends it so that it leaves a core, if the system keeps those.
    pub fn abort(&self) {
        // As for `kill`.
        let _ = rustix::process::pidfd_send_signal(&self.handle, rustix::process::Signal::ABORT);
        // It may have the signal blocked.
        let Ok(handle) = self.handle.try_clone() else { return self.kill() };
        std::thread::spawn(move || {
            std::thread::sleep(TIME_TO_ABORT);
            let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
        });
    }

    /// Whether it has ended, be it that nobody has been told yet.
    pub fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&now)), Ok(ready) if ready > 0)
    }

    /// Kills it.
    pub fn kill(&self) {
        // It may have ended by itself just now.
        let _ = rustix::process::pidfd_send_signal(&self.handle, rustix::process::Signal::KILL);
    }
}

fn open_handle(pid: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(raw.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

/// Tells of a child's stops and of its end. A debugger's stops are told to the debugger instead.
fn watch(pid: u32, process: usize, generation: u64, events: &Sender<Event>) {
    let options = WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    loop {
        let status = match waitpid(Pid::from_raw(pid as i32), options) {
            Ok(Some((_, status))) => status,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            // It was never ours, or somebody else reaped it.
            Err(_) => return,
        };
        let event = if status.stopped() || status.continued() {
            Event::Stopped { process, generation, stopped: status.stopped() }
        } else {
            let status = Some(ExitStatus::from_raw(status.as_raw()));
            Event::Exit(ChildExit { process, generation, status })
        };
        let ended = matches!(event, Event::Exit(_));
        // The supervisor may be gone by now.
        if events.send(event).is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_panic_its_place_and_reason_are_told_and_not_the_end_of_the_backtrace() {
        let said = "\nthread 'main' panicked at vga.rs:5:1:\nindex out of range\nstack backtrace:\n   0: x\nnote: y\n";
        assert_eq!(last_words(said).as_deref(), Some("panic at vga.rs:5:1: index out of range"));
        assert_eq!(last_words("a\nb\n\n").as_deref(), Some("b"));
        assert_eq!(last_words("\n"), None);
    }

    #[test]
    fn a_kill_is_not_the_fault_of_the_process() {
        let exit = |raw| ChildExit { process: 0, generation: 0, status: raw };
        assert_eq!(exit(Some(ExitStatus::from_raw(SIGKILL))).cause(), Cause::Killed);
        assert_eq!(exit(None).cause(), Cause::Killed);
        assert_eq!(exit(Some(ExitStatus::from_raw(signal_hook::consts::SIGSEGV))).cause(), Cause::Crashed);
        assert_eq!(exit(Some(ExitStatus::from_raw(101 << 8))).cause(), Cause::Crashed);
    }
}
