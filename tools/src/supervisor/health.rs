//! Tells processes apart that work, are slow, hang, or are held by somebody: by SIGSTOP, or by a debugger.
//!
//! Who is held does nothing, and time stands still until it goes on. Who hangs is ended by the watchdog
//! and started again; never one that a debugger has attached to, whose silence is its user's.

use ipc::panel::Health;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How often every process is looked at.
pub const LOOK: Duration = Duration::from_millis(20);
/// The same while a debugger is at one of them, as it may hold it at any moment.
pub const TRACED_LOOK: Duration = Duration::from_millis(2);
/// How often is looked whether a debugger has left.
const TRACER_LOOK: Duration = Duration::from_millis(200);
/// What asks for something waits longer than this for a process that is slow.
const SLOW: Duration = Duration::from_millis(250);
/// Between two looks no more time than this counts: we may have been held ourselves.
const LONGEST_STEP: Duration = Duration::from_millis(100);
/// Without work, a process still goes round this often (`devproc`'s longest sleep) and a little more.
const ROUND: Duration = Duration::from_secs(1);

/// Linux shows times to user space in 1/100 s, whatever its own tick is (USER_HZ).
const NANOS_PER_TICK: u64 = 10_000_000;

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// In a system call that cannot be interrupted: for disks.
    WaitsForDisk,
    Stopped,
    /// A debugger holds it.
    Held,
}

/// Follows one process.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    stat: Option<File>,
    last_look: Instant,
    /// What the process had done at the last look, and how long it has done nothing more.
    done: u64,
    still: Duration,
    tracer: bool,
    tracer_seen: Instant,
    health: Health,
}

impl Watch {
    /// Follows process `pid` from now on.
    pub fn new(pid: u32) -> Self {
        let now = Instant::now();
        let stat = File::open(format!("/proc/{pid}/stat")).ok();
        Self {
            pid,
            stat,
            last_look: now,
            done: 0,
            still: Duration::ZERO,
            tracer: false,
            tracer_seen: now,
            health: Health::Works,
        }
    }

    /// How it was at the last look.
    pub fn health(&self) -> Health {
        self.health
    }

    /// What it had done at the last look.
    pub fn last_done(&self) -> u64 {
        self.done
    }

    /// For how long it has done nothing.
    pub fn still(&self) -> Duration {
        self.still
    }

    /// Whether a debugger is attached, be it that it lets the process run.
    pub fn has_tracer(&self) -> bool {
        self.tracer
    }

    /// Looks at it. `done` is another number whenever it has done something; `waiting`: somebody wants
    /// something from it; it hangs when it does nothing for `patience`.
    pub fn look(&mut self, now: Instant, done: u64, waiting: bool, patience: Option<Duration>) -> Health {
        let state = self.state();
        if state == State::Held {
            self.tracer = true;
            self.tracer_seen = now;
        } else if self.tracer && now.duration_since(self.tracer_seen) > TRACER_LOOK {
            self.tracer = has_tracer(self.pid);
            self.tracer_seen = now;
        }
        let step = now.duration_since(self.last_look).min(LONGEST_STEP);
        self.last_look = now;
        if done != self.done || state != State::Runs {
            self.done = done;
            self.still = Duration::ZERO;
        } else {
            self.still += step;
        }
        let silent = self.still >= if waiting { SLOW } else { ROUND };
        self.health = match state {
            State::Stopped => Health::Stopped,
            State::Held => Health::Traced,
            State::Runs | State::WaitsForDisk if !silent => Health::Works,
            // Asked for only now: it costs more than the rest.
            _ if patience.is_some_and(|patience| self.still >= patience) && !self.debugged(now) => {
                Health::Hangs
            }
            _ => Health::Slow,
        };
        self.health
    }

    fn debugged(&mut self, now: Instant) -> bool {
        self.tracer = has_tracer(self.pid);
        self.tracer_seen = now;
        self.tracer
    }

    fn state(&self) -> State {
        let mut text = [0; 64];
        // One that has just ended is not there any more: its end is told by other means.
        let len = self.stat.as_ref().and_then(|stat| stat.read_at(&mut text, 0).ok()).unwrap_or(0);
        match state_letter(&text[..len]) {
            Some(b'T') => State::Stopped,
            Some(b't') => State::Held,
            Some(b'D') => State::WaitsForDisk,
            _ => State::Runs,
        }
    }
}

/// The third field of `/proc/PID/stat`, after the name in parentheses, which may have any character in it.
fn state_letter(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

/// CPU time that a process used, ns; 0 when there is none.
pub fn cpu_nanos(pid: u32) -> u64 {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let text = String::from_utf8_lossy(stat.get(end + 1..).unwrap_or_default()).into_owned();
    // utime and stime: fields 14 and 15 of proc(5); the one after the name is number 3.
    let ticks = text.split_whitespace().skip(14 - 3).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * NANOS_PER_TICK
}

fn has_tracer(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("60").spawn().unwrap())
        }
        fn signal(&self, signal: rustix::process::Signal) {
            let pid = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
            // The kernel lets it happen a moment later.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_stopped_process_is_told_from_one_that_goes_on() {
        let sleeper = Sleeper::start();
        let mut watch = Watch::new(sleeper.0.id());
        let now = Instant::now();
        assert_eq!(watch.look(now, 1, true, None), Health::Works);
        sleeper.signal(rustix::process::Signal::STOP);
        assert_eq!(watch.look(now, 1, true, None), Health::Stopped);
        sleeper.signal(rustix::process::Signal::CONT);
        assert_eq!(watch.look(now, 1, true, None), Health::Works);
    }

    #[test]
    fn one_that_does_nothing_while_it_is_waited_for_is_slow_and_then_hangs() {
        let sleeper = Sleeper::start();
        let mut watch = Watch::new(sleeper.0.id());
        let (start, patience) = (Instant::now(), Some(Duration::from_secs(2)));
        let mut at =
            |millis: u64, done| watch.look(start + Duration::from_millis(millis), done, true, patience);
        assert_eq!(at(0, 7), Health::Works);
        let seen: Vec<_> = (1..=21).map(|step| at(step * 100, 7)).collect();
        assert_eq!(seen[1], Health::Works);
        assert_eq!(seen[2], Health::Slow);
        assert_eq!(seen[18], Health::Slow);
        assert_eq!(seen[20], Health::Hangs);
        assert_eq!(at(2200, 8), Health::Works);
    }

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let sleeper = Sleeper::start();
        let mut watch = Watch::new(sleeper.0.id());
        let start = Instant::now();
        watch.look(start, 7, true, Some(Duration::from_secs(2)));
        let later = start + Duration::from_secs(3600);
        assert_eq!(watch.look(later, 7, true, Some(Duration::from_secs(2))), Health::Works);
    }

    #[test]
    fn the_state_stands_after_a_name_with_parentheses() {
        assert_eq!(state_letter(b"12 (a) T (b)) S 1 2"), Some(b'S'));
        assert_eq!(state_letter(b""), None);
        assert_eq!(state_letter(b"12 (a)"), None);
    }
}
