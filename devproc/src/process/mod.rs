//! The device host: runs models in a process of their own and serves the VMM over a link.
//!
//! [`run`] is the whole `main` of a device process once it is attached. One thread, one loop:
//! due timers, then requests in order, host events, line changes, pictures; then it waits.
//! After each call of a model, its state is committed before anybody can see the result, so
//! that a successor can go on from there (see `commit`).

mod commit;
#[cfg(test)]
mod crash_points;
mod effects;
mod host;
mod machine;
mod picture;
mod recording;
mod serve;

use crate::device::Device;
use crate::outside::Outside;
use ipc::machine::MachineConfig;
use ipc::setup::{AttachError, Attachment, Command};
use thiserror::Error;

pub use effects::{pack_channel, unpack_channel};
pub use machine::{DeviceProcess, Place};
pub use recording::{TapeOrder, model_info};

/// A place where a process may die as well as anywhere else. Tests let it die here; otherwise it
/// is nothing.
#[inline(always)]
fn crash_point() {
    #[cfg(test)]
    crash_points::reached();
}

/// Why a device process ended with an error.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It could not become part of the VM.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The models could not be built.
    #[error("Cannot build the models of '{device}': {reason}")]
    Build {
        /// Name of the device process.
        device: String,
        /// One line that says why and what to do.
        reason: String,
    },
    /// Shared memory could not be had.
    #[error(transparent)]
    Segment(#[from] ipc::segment::SegmentError),
    /// The models do not fit what a link can carry.
    #[error("Device process '{device}' {what}")]
    Limits {
        /// Name of the device process.
        device: String,
        /// What it has too much of.
        what: String,
    },
    /// The VMM's ring is corrupt.
    #[error("The VMM sent what no VMM sends: {0}")]
    Protocol(String),
}

/// What a model builder is told.
#[derive(Debug)]
pub struct BuildContext<'a> {
    /// The machine.
    pub config: &'a MachineConfig,
    /// Unix time (seconds) at virtual time zero.
    pub start_unix_seconds: u64,
    /// Files and images: read through this, they are in recordings.
    pub outside: &'a Outside,
}

/// Builds the models of a device process. The error is one line that says what to do.
pub type Builder = fn(&BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String>;

/// Attaches the calling process to the VM `vm` as device process `device`, builds the models and
/// serves until the VM ends. This is all that the `main` of a model of one's own has to call.
///
/// # Errors
/// [`ProcessError`].
pub fn run(vm: &str, device: &str, build: Builder) -> Result<(), ProcessError> {
    let role = ipc::control::Role::Device(device.into());
    let attachment = ipc::setup::attach(vm, role, env!("CARGO_PKG_VERSION"))?;
    serve_attached(attachment, device, build)
}

fn serve_attached(attachment: Attachment, device: &str, build: Builder) -> Result<(), ProcessError> {
    let Attachment { setup, names, dir } = attachment;
    // Without a log file the models still run; there is nowhere to say so but stderr.
    if let Err(error) = ipc::logging::to_file(&dir.log(device), device) {
        eprintln!("{device}: no log: {error}");
    }
    let place = Place {
        slot: setup.slot as usize,
        config: &setup.config,
        resume: setup.resume,
        recording: setup.recording,
    };
    let mut process = DeviceProcess::open(&names, device, &place, build)?;
    let stop = process.stop_flag();
    let tape_orders = process.tape_orders();
    let commands = setup.commands;
    std::thread::spawn(move || {
        loop {
            match commands.recv() {
                Ok(Command::Shutdown) => {
                    // The main loop finishes what was posted, then ends.
                    stop.raise();
                    return;
                }
                Ok(Command::Record { to, answer }) => tape_orders.give(TapeOrder::Record { to, answer }),
                // For the VMM.
                Ok(Command::Inspect { .. }) => {}
                Err(_) => break,
            }
        }
        // The channel broke: the supervisor is gone, and nothing must stay behind.
        dir.remove_abandoned(&names);
        std::process::exit(0);
    });
    process.serve()
}
