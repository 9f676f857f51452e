//! What a device process does for its debugger: lets itself be attached to, and waits for one when it was told to. And
//! what a replay does: stops where it was told to.

use ipc::setup::DEBUG_VARIABLE;
use rustix::process::{PTracer, Signal, getpid, kill_process, set_ptracer};
use std::time::Duration;

/// How often it looks whether a debugger has come.
const LOOK: Duration = Duration::from_millis(20);

/// Allows any debugger of the same user, and waits for one if the environment says so.
pub fn wait_if_told(device: &str) {
    // Kernels that restrict debuggers (Yama) let them attach to their own children only, which the processes
    // of a VM are not. Others refuse the call, and need it not.
    let _ = set_ptracer(PTracer::Any);
    if std::env::var_os(DEBUG_VARIABLE).is_none() {
        return;
    }
    eprintln!("{device} waits for a debugger: gdb -p {}", std::process::id());
    while !is_traced() {
        std::thread::sleep(LOOK);
    }
}

/// Has the debugger stop the process here, after saying where that is. Without a debugger the process dies of it.
// A name in backtraces, one frame below whoever is to be looked at.
#[inline(never)]
pub fn stop(place: &str) {
    eprintln!("Stops at {place}");
    // The signal arrives before the call returns: there is one thread. It cannot fail for the process itself.
    let _ = kill_process(getpid(), Signal::TRAP);
}

/// Whether a debugger runs this process.
pub fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    // Where that cannot be told, nobody would ever be waited for.
    tracer.is_none_or(|pid| pid.trim() != "0")
}
