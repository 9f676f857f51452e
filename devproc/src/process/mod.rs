//! The device host: runs models in a process of their own and serves the VMM over a link.
//!
//! [`run`] is the whole `main` of a device process once it is attached. One thread, one loop:
//! due timers, then requests in order, host events, line changes, pictures; then it waits.
//! After each call of a model, its state is committed before anybody can see the result, so
//! that a successor can go on from there (see `commit`).

mod commit;
mod counters;
#[cfg(test)]
mod crash_points;
pub(crate) mod debugger;
mod effects;
mod faults;
mod host;
mod machine;
mod orders;
mod picture;
mod recording;
mod sandbox;
mod serve;
mod stopwatch;
mod swap;

use crate::device::Device;
use crate::outside::Outside;
use ipc::board::{Board, attention};
use ipc::control::{ControlError, Role};
use ipc::link::{Link, hand_over};
use ipc::machine::MachineConfig;
use ipc::runtime_dir::VmDir;
use ipc::segment::{Segment, SegmentNames};
use ipc::setup::{AttachError, Attachment, Command, Commands, Recording, SPAWNED_VARIABLE, StartFrom};
use ipc::sync::Ordering;
use std::time::Duration;
use thiserror::Error;

pub use effects::{pack_channel, unpack_channel};
pub use machine::{DeviceProcess, Place};
use orders::{Order, Orders};
pub use recording::model_info;
use recording::{TapeOrder, TapeOrders};
use serve::Ended;

/// A place where a process may die as well as anywhere else. Tests let it die here; otherwise it
/// is nothing.
#[inline(always)]
fn crash_point() {
    #[cfg(test)]
    crash_points::reached();
}

/// How often a process that was started by hand looks whether its VM is there.
const LOOK_FOR_VM: Duration = Duration::from_millis(100);

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
    /// A model does not take the state of the build before it: of a running one, or of one that was saved with the VM.
    #[error("{model} cannot go on from the state of the build before it: {reason}")]
    State {
        /// Name of the model.
        model: String,
        /// Why.
        reason: String,
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
    debugger::wait_if_told(device);
    let attachment = attach(vm, device)?;
    serve_attached(attachment, device, build)
}

/// Attaches to the VM; a process that was started by hand waits for a VM that is not there yet.
fn attach(vm: &str, device: &str) -> Result<Attachment, AttachError> {
    let by_hand = std::env::var_os(SPAWNED_VARIABLE).is_none();
    let mut told = false;
    loop {
        let role = Role::Device(device.into());
        match ipc::setup::attach(vm, role, env!("CARGO_PKG_VERSION")) {
            Err(AttachError::Control(ControlError::Connect { path, .. })) if by_hand => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!(
                        "{device}: waits for the VM '{vm}' (nobody answers at {path}); start it with: \
                         vmsim run --name {vm} --device {device}=hand"
                    );
                }
                std::thread::sleep(LOOK_FOR_VM);
            }
            attached => return attached,
        }
    }
}

/// A process that panics says where before it ends, which takes a while. The guest must not go on without
/// it meanwhile: the VMM is told at once, and waits until the supervisor has a successor.
fn call_vmm_on_panic(names: &SegmentNames, slot: usize) {
    let (Ok(board), Ok(link)) = (Segment::open(&names.board()), Link::open(&names.link(slot))) else {
        return;
    };
    let main_loop = std::thread::current().id();
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        // The end of another thread is not that of the process.
        if std::thread::current().id() == main_loop
            && let Ok(board) = board.view::<Board>()
        {
            link.layout().process.set_serves(false);
            board.call_vcpu(attention::PROCESS_ENDS);
        }
        say(what);
    }));
}

fn serve_attached(attachment: Attachment, device: &str, build: Builder) -> Result<(), ProcessError> {
    let Attachment { setup, names, dir } = attachment;
    // Without a log file the models still run; there is nowhere to say so but stderr.
    if let Err(error) = ipc::logging::to_file(&dir.log(device), device) {
        eprintln!("{device}: no log: {error}");
    }
    let slot = setup.slot as usize;
    let mut place = Place { slot, config: &setup.config, dma: setup.dma.as_deref(), ram: None };
    let mut process = DeviceProcess::prepare(&names, device, &place, build)?;
    process.set_faults(setup.faults.clone());
    let keeps = setup.from == StartFrom::Committed;
    let report = if setup.stands_by {
        Some(process.try_out(&setup.config, device, build, keeps, &dir)?)
    } else {
        None
    };
    let tape_orders = process.tape_orders();
    if setup.sandbox {
        match sandbox::enter(&setup.config, &names, slot, &dir.log(device)) {
            Ok(what) => tracing::info!("Sandboxed: {what}"),
            Err(error) => tracing::error!("No sandbox: {error}"),
        }
    }
    listen(setup.commands, process.orders.clone(), tape_orders.clone(), dir.clone(), names.clone());
    if let Some(report) = report {
        if !process.stand_by(report)? {
            return Ok(());
        }
        if keeps {
            process.try_states(false)?;
        }
        // From here on, what the predecessor knows is out of date.
        process.shared.layout().process.hand_over.store(hand_over::TAKEN, Ordering::Release);
    }
    let from = match setup.from {
        StartFrom::Saved => {
            process.try_states(false)?;
            StartFrom::Committed
        }
        from => from,
    };
    call_vmm_on_panic(&names, slot);
    process.begin(from, setup.recording.as_ref());
    loop {
        let Ended::HandsOver(versions) = process.serve()? else { return Ok(()) };
        match process.park(&versions) {
            Order::GoOn { reload: true } => {
                let (orders, sink) = (process.orders.clone(), process.tape.sink());
                place.ram = Some(process.shared.ram.clone());
                drop(process);
                process = DeviceProcess::prepare(&names, device, &place, build)?;
                process.orders = orders;
                process.tape_orders = tape_orders.clone();
                process.set_faults(setup.faults.clone());
                let recording = sink.map(|sink| Recording { sink, append: true });
                process.begin(StartFrom::Committed, recording.as_ref());
            }
            Order::End => return Ok(()),
            _ => {}
        }
    }
}

/// Passes on what the supervisor says.
fn listen(commands: Commands, orders: Orders, tape_orders: TapeOrders, dir: VmDir, names: SegmentNames) {
    std::thread::spawn(move || {
        loop {
            orders.give(match commands.recv() {
                // The main loop finishes what was posted, then ends.
                Ok(Command::Shutdown) => Order::End,
                Ok(Command::HandOver { versions }) => Order::HandOver(versions),
                Ok(Command::TakeOver) => Order::TakeOver,
                Ok(Command::GoOn { reload }) => Order::GoOn { reload },
                Ok(Command::Record { to, answer }) => {
                    tape_orders.give(TapeOrder::Record { to, answer });
                    continue;
                }
                // For the VMM only.
                Ok(Command::Inspect { .. } | Command::Export { .. }) => continue,
                Err(_) => break,
            });
        }
        // The channel broke: the supervisor is gone, and nothing must stay behind.
        dir.remove_abandoned(&names);
        std::process::exit(0);
    });
}
