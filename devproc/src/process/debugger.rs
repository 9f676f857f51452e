//! What a device process does for its debugger: lets itself be attached to, and waits for one when it was told to.

use ipc::setup::DEBUG_VARIABLE;
use rustix::process::{PTracer, set_ptracer};
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

fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    // Where that cannot be told, nobody would ever be waited for.
    tracer.is_none_or(|pid| pid.trim() != "0")
}
