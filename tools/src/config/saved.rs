//! From a saved VM and a command line to the checked description of a machine that goes on.

use super::{
    DevicePlan, Plan, beside_terminal, console, debugger, device_options, executable, recordings, serial,
    stdio,
};
use crate::cli::{DisplayKind, HostArgs, RestoreArgs};
use crate::machine_file::SerialEnd;
use crate::roles::Executable;
use anyhow::{Context, Result, bail, ensure};
use ipc::machine::{MachineConfig, SerialBackend};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vmm::saved::{DeviceProcess, MachineFile, Match, Program, SavedVm, Use};

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
    let temporary = place_files(args, &mut vm, &mut config, extract).with_context(place)?;
    Ok(Plan {
        config,
        display: beside_terminal(display, stdio),
        devices,
        stdio,
        debugger: debugger(host)?,
        recordings,
        temporary,
        restored: Some(Restored { vm, path: args.file.clone(), paused: args.paused }),
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

/// Finds the machine's files where they are now, and puts those that are kept inside into a folder of this run.
fn place_files(
    args: &RestoreArgs,
    vm: &mut SavedVm,
    config: &mut MachineConfig,
    extract: bool,
) -> Result<Option<tempfile::TempDir>> {
    let files = vm.files.clone();
    let mut given = Given { floppies: args.floppy.iter(), disks: args.disk.iter() };
    let mut folder = None;
    for (index, file) in files.iter().enumerate() {
        let elsewhere = given.next(file.used_as);
        let Some(place) = place_of(config, file.used_as) else { continue };
        if file.outside.is_some() || elsewhere.is_some() {
            let path = elsewhere.map_or_else(|| Ok(file.path.clone()), std::path::absolute)?;
            check_image(file, &path, args.force)?;
            *place = path;
        } else if extract {
            if folder.is_none() {
                folder = Some(tempfile::Builder::new().prefix("vmsim-restored-").tempdir()?);
            }
            let Some(folder) = &folder else { continue };
            *place = folder.path().join(format!("{index}-{}", base_name(&file.path)));
            put_file(vm, index, place)?;
        }
    }
    ensure!(
        given.floppies.len() + given.disks.len() == 0,
        "more images are given than the machine has drives with a medium"
    );
    Ok(folder)
}

/// Images that the command line names, in the order of the drives.
struct Given<'a> {
    floppies: std::slice::Iter<'a, PathBuf>,
    disks: std::slice::Iter<'a, PathBuf>,
}

impl Given<'_> {
    fn next(&mut self, used_as: Use) -> Option<&Path> {
        let next = match used_as {
            Use::Floppy(_) => self.floppies.next(),
            Use::Disk(_) => self.disks.next(),
            Use::Firmware | Use::VideoRom => None,
        };
        next.map(PathBuf::as_path)
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Where the machine's description has the path of a file.
fn place_of(config: &mut MachineConfig, used_as: Use) -> Option<&mut PathBuf> {
    match used_as {
        Use::Firmware => Some(&mut config.firmware),
        Use::VideoRom => config.video_rom.as_mut(),
        Use::Floppy(number) => Some(&mut config.floppies.get_mut(usize::from(number))?.as_mut()?.path),
        Use::Disk(number) => Some(&mut config.disks.get_mut(usize::from(number))?.as_mut()?.path),
    }
}

fn check_image(file: &MachineFile, path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    let image = File::open(path)
        .with_context(|| format!("image {shown}: give the place where it is now (--floppy or --disk)"))?;
    // One that was inside is not known by anything but its content.
    let Some(identity) = &file.outside else { return Ok(()) };
    let why = match identity.check(&image).with_context(|| format!("image {shown}"))? {
        Match::Same => return Ok(()),
        Match::Length(len) => format!("had {} bytes and has {len}", identity.len),
        Match::Content => "has another content".into(),
    };
    if force {
        crate::progress::say(&format!(
            "image {shown} {why} since the VM was saved; taken all the same (--force)"
        ));
        return Ok(());
    }
    bail!("image {shown} {why} since the VM was saved: put back what it was, or use --force");
}

fn put_file(vm: &mut SavedVm, index: usize, path: &Path) -> Result<()> {
    let file = File::create_new(path).with_context(|| format!("File {}", path.display()))?;
    file.set_len(vm.file_len(index).unwrap_or(0))?;
    vm.read_file(index, |at, block| file.write_all_at(block, at))?;
    Ok(())
}
