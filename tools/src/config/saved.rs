//! From a saved VM and a command line to the checked description of a machine that goes on.

use super::saved_files::{KeptImages, place_files};
use super::{
    DevicePlan, Plan, beside_terminal, console, debugger, device_options, executable, recordings, serial,
    stdio,
};
use crate::cli::{DisplayKind, HostArgs, RestoreArgs};
use crate::machine_file::SerialEnd;
use crate::roles::Executable;
use anyhow::{Context, Result, ensure};
use ipc::machine::SerialBackend;
use std::collections::BTreeMap;
use std::path::PathBuf;
use vmm::saved::{DeviceProcess, Program, SavedVm};

/// Where the processes of the host are.
const PROCESSES: &str = "/proc";
/// What a saved VM without a display says of it.
const NO_DISPLAY: &str = "none";

/// A saved VM that is to go on.
pub struct Restored {
    /// What it was saved with.
    pub vm: SavedVm,
    /// Where that is.
    pub path: PathBuf,
    /// It waits for `vmsim resume`.
    pub paused: bool,
    /// Images that are to stay when it has ended.
    pub kept: KeptImages,
}

impl std::fmt::Debug for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Restored({})", self.path.display())
    }
}

/// Reads a saved VM and checks everything that can be checked before anything is started. What is inside of it is put in its
/// place if `extract`.
pub fn restored_plan(args: &RestoreArgs, extract: bool) -> Result<Plan> {
    let place = || format!("Saved VM {}", args.file.display());
    let mut vm = SavedVm::open(&args.file).with_context(place)?;
    let host = &args.host;
    let mut config = vm.machine.config.clone();
    config.name = host.name.clone().unwrap_or(config.name);
    config.engine = host.engine.clone().unwrap_or(config.engine);
    let _: vmm::engine::EngineKind = config.engine.parse().with_context(place)?;
    if host.debug_console.is_some() {
        config.debug_console = console(host.debug_console.as_ref())?;
    } else if config.debug_console.as_ref().is_some_and(|path| path.starts_with(PROCESSES)) {
        // Standard output of a process that has ended; its number may be another one's by now.
        config.debug_console = None;
    }

    // Saved processes keep their slots; any other comes after them.
    let saved = vm.machine.devices.iter().zip(&vm.devices);
    let saved = saved.map(|(process, device)| device_plan(process, device.off_bus, host));
    let saved = saved.collect::<Result<Vec<_>>>().with_context(place)?;
    let order: Vec<_> = saved.iter().map(|device| device.name.clone()).collect();
    let mut devices: BTreeMap<_, _> = saved.into_iter().map(|device| (device.name.clone(), device)).collect();
    ensure!(devices.len() == order.len(), "{}: it has two device processes of one name", place());
    device_options(host, &mut devices)?;
    let recordings = recordings(host, BTreeMap::new(), &devices)?;
    let first = order.iter().filter_map(|name| devices.remove(name)).collect::<Vec<_>>();
    let devices = first.into_iter().chain(devices.into_values()).collect();

    let own_serial = vm.machine.own_serial;
    let mut ends = [0, 1].map(|port| serial_end(&config.serial[port], own_serial[port]));
    if let Some(end) = host.serial.clone() {
        ends[0] = Some(SerialEnd::from(end));
    }
    for (port, end) in ends.iter().enumerate() {
        if let Some(end) = end {
            config.serial[port] = serial(end, &config.name, port + 1)?;
        }
    }
    let display = match host.display {
        Some(kind) => kind,
        None if vm.machine.display == NO_DISPLAY => DisplayKind::None,
        // Whatever there is here.
        None => DisplayKind::Auto,
    };
    let ends = ends.map(|end| end.unwrap_or(SerialEnd::None));
    let stdio = stdio(&ends, display, host.detach)?;
    let (temporary, kept) = place_files(args, &mut vm, &mut config, extract).with_context(place)?;
    Ok(Plan {
        config,
        display: beside_terminal(display, stdio),
        devices,
        stdio,
        debugger: debugger(host)?,
        recordings,
        temporary,
        restored: Some(Restored { vm, path: args.file.clone(), paused: args.paused, kept }),
    })
}

/// What is said of a device process that was saved; its program need not be there if the command line has another one.
/// One that was off the bus stays so, unless it is another one: whoever names a program wants it to run, as with a swap.
fn device_plan(saved: &DeviceProcess, off_bus: bool, host: &HostArgs) -> Result<DevicePlan> {
    let replaced = |option: &String| option.split_once('=').is_some_and(|(name, _)| name == saved.name);
    let replaced = host.device.iter().any(replaced);
    Ok(DevicePlan {
        executable: match &saved.program {
            Program::BuiltIn => Executable::Own,
            Program::ByHand => Executable::ByHand,
            Program::Other(path) if replaced => Executable::Other(path.clone()),
            Program::Other(path) => executable(path)?,
        },
        watchdog: saved.watchdog,
        sandbox: saved.sandbox,
        faults: saved.faults.clone(),
        dma: saved.dma.clone(),
        off_bus: off_bus && !replaced,
        ..DevicePlan::new(&saved.name)
    })
}

/// What `--serial` would have said; `None` for a port of a kind that it cannot say.
fn serial_end(backend: &SerialBackend, own: bool) -> Option<SerialEnd> {
    Some(match backend {
        SerialBackend::Unconnected => SerialEnd::None,
        SerialBackend::Absent => return None,
        SerialBackend::File(path) => SerialEnd::File(path.clone()),
        // Another VM has another place.
        SerialBackend::Socket(_) if own => SerialEnd::Socket(None),
        SerialBackend::Socket(path) => SerialEnd::Socket(Some(path.clone())),
        SerialBackend::Pty(_) => SerialEnd::Pty,
    })
}
