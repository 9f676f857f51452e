//! Harness of the end-to-end tests: starts VMs with the program `vmsim`, as a user would, looks
//! at their screens, types on their keyboards, kills their processes, and checks that nothing
//! stays behind.
//!
//! Every test has a [`Home`] of its own (runtime directory, temporary files), so that tests run
//! side by side and beside the user's own VMs.

mod gdb;
mod guests;
mod home;
mod image;
mod process;
mod skip;
mod toy;
mod vm;
mod wrapped;

pub use gdb::Gdb;
pub use guests::guest;
pub use home::{Home, Said, run};
pub use image::{Pixels, read_png};
pub use process::{cpu_time, is_alive, kill};
pub use skip::{Missing, is_root, program_in_path, skip};
pub use toy::Toy;
pub use vm::{ProcessRow, Status, Vm};

use std::time::{Duration, Instant};

/// How long anything that a test waits for may take. Generous: machines are shared and slow, and
/// a test that passes never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tries `attempt` until it gives something; panics with `what` after `patience`.
pub fn poll<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "within {patience:?} there was no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
