//! Processes as `/proc` shows them.

use rustix::process::{Pid, Signal};
use std::time::Duration;

/// Linux shows times to user space in 1/100 s, whatever its own tick is (USER_HZ).
const MILLIS_PER_TICK: u64 = 10;

/// Sends SIGKILL.
pub fn kill(pid: u32) {
    let pid = Pid::from_raw(pid as i32).expect("no process has number 0");
    rustix::process::kill_process(pid, Signal::KILL).expect("the process lives");
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have spaces in it; what follows begins with the state.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether a process executes; one that nobody waited for yet does not.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// CPU time that all threads of a process used so far.
pub fn cpu_time(pid: u32) -> Duration {
    let fields = stat(pid).unwrap_or_else(|| panic!("process {pid} is gone"));
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a count of clock ticks");
    // utime and stime: fields 14 and 15 of proc(5), counted from 1 and from before the name.
    let ticks = ticks(14 - 3) + ticks(15 - 3);
    Duration::from_millis(ticks * MILLIS_PER_TICK)
}

/// Processes that have `word` as an argument of its own.
pub(crate) fn with_argument(word: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()) && is_alive(*pid)
        })
        .collect()
}
