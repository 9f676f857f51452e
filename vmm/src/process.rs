//! The VMM as a process of a VM: attaches, waits for the devices, runs the monitor.

use crate::bus::{DeviceLink, MachineBus};
use crate::cpu::model::UnknownModel;
use crate::cpu::{CpuModel, InvalidState};
use crate::debug::{Desk, Event};
use crate::engine::{Engine, EngineError, EngineKind, UnknownEngine};
use crate::monitor::{EnginesDiffer, Monitor};
use crate::saved::{Processor, SavedError};
use ipc::chassis::Chassis;
use ipc::control::Role;
use ipc::panel::{ProcessState, RunState, VMM_SLOT};
use ipc::segment::Segment;
use ipc::setup::{AttachError, Attachment, Command};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why the VMM ended with an error.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It could not become part of the VM.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Shared memory could not be had.
    #[error(transparent)]
    Segment(#[from] ipc::segment::SegmentError),
    /// The machine wants a processor that this build does not have.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// The machine wants an engine that this build does not have.
    #[error(transparent)]
    UnknownEngine(#[from] UnknownEngine),
    /// The engine cannot run on this host.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What the VM was saved with is not a state of the VMM.
    #[error("The saved VM: {0}")]
    Saved(#[from] SavedError),
    /// It is not a state of a processor.
    #[error("The saved VM: {0}")]
    SavedState(#[from] InvalidState),
    /// The engine compares, and found a difference.
    #[error("The shadow engine and the interpreter differ: {}", place.display())]
    EnginesDiffer {
        /// Where the report is.
        place: PathBuf,
    },
}

/// Attaches the calling process to the VM `vm` as its VMM and runs guest code until the VM ends.
///
/// # Errors
/// [`ProcessError`].
pub fn run(vm: &str) -> Result<(), ProcessError> {
    let Attachment { setup, names, dir } = ipc::setup::attach(vm, Role::Vmm, env!("CARGO_PKG_VERSION"))?;
    // Without a log file the guest still runs; there is nowhere to say so but stderr.
    if let Err(error) = ipc::logging::to_file(&dir.log("vmm"), "vmm") {
        eprintln!("vmm: no log: {error}");
    }
    let chassis = Arc::new(Chassis::open(&names)?);
    let (desk, bell) = Desk::new(chassis.clone(), dir.debug_socket());
    let commands = setup.commands;
    // Beside the VM's directory, which goes with the VM.
    let report_file = dir.path().with_extension("lockstep");
    let (watch_names, watch_dir) = (names.clone(), dir);
    std::thread::spawn(move || {
        loop {
            match commands.recv() {
                Ok(Command::Inspect { what, answer }) => {
                    bell.ring(Event::Inspect(what, answer));
                }
                // For device processes.
                Ok(Command::Record { .. }) => {}
                Ok(Command::Shutdown) => break,
                Ok(Command::Export { answer }) => {
                    bell.ring(Event::Export(answer));
                }
                Ok(Command::GoOn { .. }) => {
                    bell.ring(Event::GoOn);
                }
                // For device processes.
                Ok(Command::HandOver { .. } | Command::TakeOver) => {}
                // The channel breaks when the supervisor is gone: then nothing must stay behind.
                Err(_) => {
                    watch_dir.remove_abandoned(&watch_names);
                    break;
                }
            }
        }
        std::process::exit(0);
    });
    chassis.panel().set_process_state(VMM_SLOT, ProcessState::Ready);
    let mut links = Vec::new();
    for (slot, name) in &setup.devices {
        links.push(DeviceLink::open(&names, *slot as usize, name)?);
    }
    wait_for_devices(&chassis, &links);
    let ram = Segment::open(&names.ram())?;
    let bus = MachineBus::new(chassis, ram, links);
    let model: CpuModel = setup.config.cpu.parse()?;
    tracing::info!("Guest starts with a {model:?} and {} MiB of RAM", setup.config.ram_bytes >> 20);
    let engine: EngineKind = setup.config.engine.parse()?;
    let mut monitor = Monitor::new(bus, model, Engine::new(engine)?, desk);
    if let Some(saved) = &setup.processor {
        monitor.restore(Processor::decode(saved)?)?;
    }
    match monitor.run() {
        Ok(()) => Ok(()),
        Err(EnginesDiffer(report)) => {
            eprintln!("{report}");
            tracing::error!("{report}");
            if let Err(error) = std::fs::write(&report_file, &report) {
                tracing::error!("The report cannot be written to {}: {error}", report_file.display());
            }
            Err(ProcessError::EnginesDiffer { place: report_file })
        }
    }
}

/// Waits until every device process serves, saying for whom once a second.
fn wait_for_devices(chassis: &Chassis, links: &[DeviceLink]) {
    let panel = chassis.panel();
    let ready = |link: &&DeviceLink| link.process_state(panel).is_settled();
    loop {
        let missing: Vec<_> = links.iter().filter(|link| !ready(link)).map(DeviceLink::name).collect();
        if missing.is_empty() || panel.run_state() == RunState::Stopping {
            return;
        }
        chassis
            .board()
            .doorbell(VMM_SLOT)
            .sleep(Some(Duration::from_secs(1)), || links.iter().all(|link| ready(&link)));
        tracing::debug!("Waits for {}", missing.join(", "));
    }
}
