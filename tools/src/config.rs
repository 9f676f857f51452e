//! From command line and machine file to the checked description of a machine.

mod faults;
mod saved;
mod saved_files;

pub use saved::{Restored, restored_plan};
pub use saved_files::KeptImages;

use crate::cli::{Boot, DisplayKind, HostArgs, RunArgs};
use crate::default_guest;
use crate::machine_file::{Drive, MachineFile, SerialEnd};
use crate::roles::{self, Executable};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use images::disk::{FloppyFormat, parse_size};
use ipc::dma::{GRAIN, MAX_RANGES, RamRange};
use ipc::fault::Faults;
use ipc::inspect::Listen;
use ipc::machine::{BootDevice, DriveConfig, Geometry, MachineConfig, SerialBackend};
use ipc::panel::MAX_RAM;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_RAM: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Much longer than any model of this project needs, however busy the host is.
const DEFAULT_WATCHDOG: Duration = Duration::from_secs(5);

/// A machine ready to be started.
#[derive(Debug)]
pub struct Plan {
    /// What every process is told.
    pub config: MachineConfig,
    /// What shows the picture.
    pub display: DisplayKind,
    /// Device processes, by name.
    pub devices: Vec<DevicePlan>,
    /// The serial port (1 is COM1) at whose other end this process's standard input and output are.
    pub stdio: Option<u8>,
    /// Where a debugger can connect, and whether the guest waits for one.
    pub debugger: Option<(Listen, bool)>,
    /// Device processes that are recorded from power-on, and where to.
    pub recordings: Vec<(String, PathBuf)>,
    /// Files made for this run, removed when it ends.
    pub temporary: Option<tempfile::TempDir>,
    /// What it goes on from; `None`: it is switched on.
    pub restored: Option<Restored>,
}

/// One device process.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub executable: Executable,
    /// It is taken for hung after doing nothing for so long; `None`: never.
    pub watchdog: Option<Duration>,
    /// It waits for a debugger before it begins.
    pub debug: bool,
    /// It goes into a sandbox once its models are built.
    pub sandbox: bool,
    /// What is to go wrong on its link.
    pub faults: Faults,
    /// The guest RAM that it may reach by DMA at most; `None`: what its models ask for.
    pub dma: Option<Vec<RamRange>>,
    /// It is not started: it was off the bus when the VM was saved.
    pub off_bus: bool,
}

impl DevicePlan {
    fn new(name: &str) -> Self {
        let watchdog = Some(DEFAULT_WATCHDOG);
        let faults = Faults::default();
        let executable = Executable::Own;
        let name = name.into();
        Self { name, executable, watchdog, debug: false, sandbox: true, faults, dma: None, off_bus: false }
    }
}

/// Checks everything that can be checked before anything is started.
pub fn plan(args: &RunArgs) -> Result<Plan> {
    let file = match &args.machine {
        Some(path) => MachineFile::read(path)?,
        None => MachineFile::default(),
    };
    let ram_text = args.ram.as_ref().or(file.ram.as_ref());
    let ram_given = ram_text.map(|text| parse_size(text)).transpose().context("Guest RAM")?;
    if let Some(ram_bytes) = ram_given {
        ensure!(
            ram_bytes.is_multiple_of(MIB) && (MIB..=MAX_RAM).contains(&ram_bytes),
            "Guest RAM of {ram_bytes} bytes: give whole MiB from 1M to {}M",
            MAX_RAM / MIB
        );
    }
    let mut devices: BTreeMap<String, DevicePlan> =
        roles::STANDARD_DEVICES.iter().map(|name| (name.to_string(), DevicePlan::new(name))).collect();
    for (name, device) in &file.device {
        let built_in = devices.contains_key(name);
        let plan = devices.entry(name.clone()).or_insert_with(|| DevicePlan::new(name));
        match &device.exe {
            Some(exe) => plan.executable = executable(exe)?,
            None => {
                ensure!(built_in, "Device process '{name}' is not built in: give its executable (exe = ...)")
            }
        }
        plan.sandbox = device.sandbox;
        plan.dma = device.dma.as_deref().map(|ranges| dma(name, ranges)).transpose()?;
        match device.watchdog {
            None => {}
            Some(0.0) => plan.watchdog = None,
            Some(seconds) => {
                let patience = Duration::try_from_secs_f64(seconds).ok();
                plan.watchdog = Some(patience.with_context(|| {
                    format!("Device process '{name}': watchdog = {seconds} is no number of seconds")
                })?);
            }
        }
    }
    device_options(&args.host, &mut devices)?;
    faults::add(&file, &mut devices)?;

    let given = |path: &PathBuf| Drive { path: path.clone(), read_only: args.read_only, geometry: None };
    let mut floppies: Vec<Drive> =
        if args.floppy.is_empty() { file.floppy.clone() } else { args.floppy.iter().map(given).collect() };
    let mut disks: Vec<Drive> =
        if args.disk.is_empty() { file.disk.clone() } else { args.disk.iter().map(given).collect() };
    ensure!(floppies.len() <= 2, "A PC has two floppy drives; {} images were given", floppies.len());
    ensure!(disks.len() <= 4, "A PC has four IDE drives; {} images were given", disks.len());
    let mut temporary = None;
    let nothing_to_boot = floppies.is_empty() && disks.is_empty();
    let firmware_given = args.firmware.clone().or(file.firmware.clone());
    let cpu = args.cpu.as_deref().or(file.cpu.as_deref()).unwrap_or(vmm::cpu::CpuModel::NAMES[0]);
    let _: vmm::cpu::CpuModel = cpu.parse().with_context(|| format!("cpu = \"{cpu}\""))?;
    let engine = args
        .host
        .engine
        .as_deref()
        .or(file.engine.as_deref())
        .unwrap_or(vmm::engine::EngineKind::default().name());
    let _: vmm::engine::EngineKind = engine.parse().with_context(|| format!("engine = \"{engine}\""))?;
    let told_nothing = nothing_to_boot && args.machine.is_none() && firmware_given.is_none();
    let linux = if told_nothing && !args.demo { linux_if_possible(args) } else { None };
    let ram_bytes = ram_given.unwrap_or(if linux.is_some() { default_guest::RAM } else { DEFAULT_RAM });
    let (firmware, video_rom) = if let Some(linux) = linux {
        disks.push(Drive { path: linux.disk, read_only: false, geometry: None });
        temporary = Some(linux.folder);
        (linux.firmware.bios, Some(linux.firmware.vga_rom))
    } else if args.demo || told_nothing {
        let dir = tempfile::Builder::new().prefix("vmsim-demo-").tempdir()?;
        let rom = dir.path().join("demo.rom");
        std::fs::write(&rom, images::demo::demo_rom())?;
        if nothing_to_boot {
            let path = dir.path().join("demo.img");
            std::fs::write(&path, images::demo::data_floppy())?;
            floppies.push(Drive { path, read_only: false, geometry: None });
        }
        temporary = Some(dir);
        (rom, None)
    } else {
        firmware(firmware_given, file.video_rom.clone())?
    };

    let name = args.host.name.clone().or(file.name.clone()).unwrap_or_else(|| "vm".into());
    let com1 = args.host.serial.clone().map(SerialEnd::from).or(file.serial1.clone());
    let com2 = file.serial2.clone();
    let ends = [com1.unwrap_or(SerialEnd::Socket(None)), com2.unwrap_or(SerialEnd::None)];
    let mut config = MachineConfig {
        cpu: cpu.into(),
        engine: engine.into(),
        serial: [serial(&ends[0], &name, 1)?, serial(&ends[1], &name, 2)?],
        name,
        ram_bytes,
        firmware: absolute(&firmware)?,
        video_rom: video_rom.as_deref().map(absolute).transpose()?,
        floppies: [None, None],
        disks: [None, None, None, None],
        boot_order: boot_order(args, &file, floppies.is_empty())?,
        cmos: file.cmos.as_deref().map(absolute).transpose()?,
        debug_console: console(args.host.debug_console.as_ref().or(file.debug_console.as_ref()))?,
    };
    for (slot, drive) in config.floppies.iter_mut().zip(&floppies) {
        *slot = Some(floppy(drive)?);
    }
    for (slot, drive) in config.disks.iter_mut().zip(&disks) {
        *slot = Some(disk(drive)?);
    }
    let display = match (args.host.display, &file.display) {
        (Some(kind), _) => kind,
        (None, Some(text)) => DisplayKind::from_str(text, true)
            .map_err(|_| anyhow::anyhow!("display = \"{text}\": use auto, window, terminal or none"))?,
        (None, None) => DisplayKind::Auto,
    };
    let stdio = stdio(&ends, display, args.host.detach)?;
    let display = beside_terminal(display, stdio);
    let debugger = debugger(&args.host)?;
    let from_file = |(name, device): (&String, &crate::machine_file::DeviceProcess)| {
        Some((name.clone(), device.record.clone()?))
    };
    let recordings = recordings(&args.host, file.device.iter().filter_map(from_file).collect(), &devices)?;
    Ok(Plan {
        config,
        display,
        stdio,
        devices: devices.into_values().collect(),
        debugger,
        recordings,
        temporary,
        restored: None,
    })
}

/// What the command line says of device processes.
fn device_options(args: &HostArgs, devices: &mut BTreeMap<String, DevicePlan>) -> Result<()> {
    for option in &args.device {
        let (name, path) = option.split_once('=').with_context(|| {
            format!("--device {option}: write DEVICE=PATH, such as gpu=target/release/my-gpu")
        })?;
        let plan = devices.entry(name.into()).or_insert_with(|| DevicePlan::new(name));
        plan.executable = executable(Path::new(path))?;
    }
    if args.no_sandbox {
        devices.values_mut().for_each(|device| device.sandbox = false);
    }
    for name in &args.debug {
        let known = devices.keys().cloned().collect::<Vec<_>>().join(", ");
        let plan = devices.get_mut(name);
        let plan = plan.with_context(|| format!("--debug {name}: the device processes are {known}"))?;
        ensure!(
            plan.executable != Executable::ByHand,
            "--debug {name}: it is started by hand, so start it in the debugger"
        );
        plan.debug = true;
    }
    for name in devices.keys() {
        let good = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        ensure!(
            good && !["vmm", "display"].contains(&name.as_str()),
            "'{name}' cannot name a device process"
        );
    }
    ensure!(devices.len() <= ipc::panel::MAX_DEVICES, "At most {} device processes", ipc::panel::MAX_DEVICES);
    Ok(())
}

/// Ranges of guest RAM, each as `START-END`.
fn dma(device: &str, ranges: &[String]) -> Result<Vec<RamRange>> {
    let range = |text: &String| {
        let wrong =
            || format!("Device process '{device}': dma = [\"{text}\"]: write START-END, such as \"0-16M\"");
        let (start, end) = text.split_once('-').with_context(wrong)?;
        let [start, end] = [start, end].map(|text| parse_size(text.trim()));
        let range = RamRange { start: start.with_context(wrong)?, end: end.with_context(wrong)? };
        let whole = range.start.is_multiple_of(GRAIN) && range.end.is_multiple_of(GRAIN);
        ensure!(whole && range.start < range.end, "{}, in whole pages of 4K, the lower one first", wrong());
        Ok(range)
    };
    let ranges = ipc::dma::merged(ranges.iter().map(range).collect::<Result<_>>()?);
    ensure!(ranges.len() <= MAX_RANGES, "Device process '{device}': dma: at most {MAX_RANGES} ranges");
    Ok(ranges)
}

fn recordings(
    args: &HostArgs,
    mut recordings: BTreeMap<String, PathBuf>,
    devices: &BTreeMap<String, DevicePlan>,
) -> Result<Vec<(String, PathBuf)>> {
    for option in &args.record {
        let (name, path) = option
            .split_once('=')
            .with_context(|| format!("--record {option}: write DEVICE=FILE, such as gpu=boot.rec"))?;
        recordings.insert(name.into(), path.into());
    }
    for (name, path) in &mut recordings {
        ensure!(
            devices.contains_key(name),
            "--record {name}: this machine has no device process '{name}'; it has {}",
            devices.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        *path = absolute(path)?;
        ensure!(!path.exists(), "{} exists already: remove it or choose another name", path.display());
    }
    Ok(recordings.into_iter().collect())
}

fn debugger(args: &HostArgs) -> Result<Option<(Listen, bool)>> {
    let place = match &args.gdb {
        None if !args.wait_gdb => return Ok(None),
        None | Some(None) => Listen::Default,
        Some(Some(Listen::Unix(path))) => Listen::Unix(absolute(path)?),
        Some(Some(place)) => place.clone(),
    };
    Ok(Some((place, args.wait_gdb)))
}

/// The default guest; `None`, with a line that says why: the demo has to do.
fn linux_if_possible(args: &RunArgs) -> Option<default_guest::Linux> {
    match default_guest::linux() {
        Ok(linux) => Some(linux),
        Err(error) => {
            // A process that only starts the supervisor leaves it to that.
            if !args.host.detach || args.host.detached_supervisor {
                crate::progress::say(&format!("No Linux, so the built-in demo: {error:#}"));
            }
            None
        }
    }
}

/// What a path of a device executable means.
pub fn executable(path: &Path) -> Result<Executable> {
    use std::os::unix::fs::PermissionsExt;
    if path.file_name().is_some_and(|name| name == Executable::BY_HAND) && !path.exists() {
        return Ok(Executable::ByHand);
    }
    if path.file_name().is_some_and(|name| name == Executable::BUILT_IN) && !path.exists() {
        return Ok(Executable::Own);
    }
    let meta = std::fs::metadata(path).with_context(|| format!("Device executable {}", path.display()))?;
    ensure!(
        meta.is_file() && meta.permissions().mode() & 0o111 != 0,
        "Device executable {} cannot be run: is it built, and is it the program itself?",
        path.display()
    );
    Ok(Executable::Other(absolute(path)?))
}

fn firmware(given: Option<PathBuf>, video_rom: Option<PathBuf>) -> Result<(PathBuf, Option<PathBuf>)> {
    if let Some(path) = given {
        let len = std::fs::metadata(&path).with_context(|| format!("Firmware {}", path.display()))?.len();
        ensure!(
            len.is_power_of_two() && (64 << 10..=1 << 20).contains(&len),
            "Firmware {} has {len} bytes; a system ROM has 64K, 128K, 256K, 512K or 1M",
            path.display()
        );
        return Ok((path, video_rom));
    }
    let found = images::firmware::find_or_fetch(&crate::progress::bar())?;
    Ok((found.bios, Some(video_rom.unwrap_or(found.vga_rom))))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("Path {}", path.display()))
}

fn boot_order(args: &RunArgs, file: &MachineFile, no_floppy: bool) -> Result<Vec<BootDevice>> {
    let mut order = Vec::new();
    match (args.boot, &file.boot) {
        (Some(Boot::A), _) => order.push(BootDevice::Floppy),
        (Some(Boot::C), _) => order.push(BootDevice::Disk),
        (None, Some(values)) => {
            for value in values.values() {
                order.push(match value.as_str() {
                    "a" => BootDevice::Floppy,
                    "c" => BootDevice::Disk,
                    other => bail!("boot = \"{other}\": use \"a\" (floppy) or \"c\" (hard disk)"),
                });
            }
        }
        (None, None) if no_floppy => order.push(BootDevice::Disk),
        (None, None) => order.push(BootDevice::Floppy),
    }
    for other in [BootDevice::Floppy, BootDevice::Disk] {
        if !order.contains(&other) {
            order.push(other);
        }
    }
    Ok(order)
}

fn drive_file(drive: &Drive, what: &str) -> Result<(DriveConfig, u64)> {
    let path = absolute(&drive.path)?;
    let meta = std::fs::metadata(&path)
        .with_context(|| format!("{what} image {}: give the path of an image file", path.display()))?;
    ensure!(meta.is_file(), "{what} image {} is not a file", path.display());
    if !drive.read_only {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .with_context(|| format!("{what} image {} cannot be written; add --read-only", path.display()))?;
    }
    let geometry = drive.geometry.map(|[cylinders, heads, sectors]| -> Result<Geometry> {
        ensure!(
            cylinders >= 1 && (1..=16).contains(&heads) && (1..=63).contains(&sectors),
            "{what} image {}: geometry is [cylinders, heads 1-16, sectors 1-63]",
            path.display()
        );
        Ok(Geometry { cylinders, heads: heads as u8, sectors: sectors as u8 })
    });
    Ok((DriveConfig { path, read_only: drive.read_only, geometry: geometry.transpose()? }, meta.len()))
}

fn floppy(drive: &Drive) -> Result<DriveConfig> {
    let (config, len) = drive_file(drive, "Floppy")?;
    ensure!(
        FloppyFormat::of_bytes(len).is_some(),
        "Floppy image {} has {len} bytes, which is no floppy size (160K 180K 320K 360K 720K 1.2M 1.44M 2.88M); \
         is it truncated, or a hard disk image (--disk)?",
        config.path.display()
    );
    Ok(config)
}

fn disk(drive: &Drive) -> Result<DriveConfig> {
    let (config, len) = drive_file(drive, "Disk")?;
    ensure!(
        len > 0 && len.is_multiple_of(SECTOR),
        "Disk image {} has {len} bytes, which is not a whole number of 512-byte sectors; is it truncated?",
        config.path.display()
    );
    Ok(config)
}

fn console(path: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    match path {
        None => Ok(None),
        // The chipset process writes to the supervisor's own standard output, which it opens again: another user's or a socket cannot
        // be.
        Some(path) if path.as_os_str() == "-" => {
            std::fs::OpenOptions::new().append(true).open("/proc/self/fd/1").context(
                "Debug console: standard output cannot be opened a second time; name a file, or pipe it through 'cat'",
            )?;
            Ok(Some(PathBuf::from(format!("/proc/{}/fd/1", std::process::id()))))
        }
        Some(path) => {
            writable(path, "Debug console")?;
            Ok(Some(absolute(path)?))
        }
    }
}

/// Serial port `number` of VM `vm`.
fn serial(end: &SerialEnd, vm: &str, number: usize) -> Result<SerialBackend> {
    let own_place = || Ok::<_, anyhow::Error>(ipc::runtime_dir::RuntimeDir::open()?.vm(vm)?.serial(number));
    Ok(match end {
        SerialEnd::None => SerialBackend::Unconnected,
        SerialEnd::Socket(Some(path)) => SerialBackend::Socket(absolute(path)?),
        // This process is then the client of it.
        SerialEnd::Socket(None) | SerialEnd::Stdio => SerialBackend::Socket(own_place()?),
        SerialEnd::Pty => SerialBackend::Pty(own_place()?),
        SerialEnd::File(path) => {
            writable(path, "Serial output")?;
            SerialBackend::File(absolute(path)?)
        }
    })
}

/// Which serial port has standard input and output, if that can be.
fn stdio(ends: &[SerialEnd], display: DisplayKind, detach: bool) -> Result<Option<u8>> {
    let mut ports = (1..).zip(ends).filter(|(_, end)| **end == SerialEnd::Stdio).map(|(number, _)| number);
    let port = ports.next();
    ensure!(
        ports.next().is_none(),
        "Only one serial port can be at the terminal: choose socket or pty for the other"
    );
    if let Some(number) = port {
        ensure!(
            !detach,
            "--detach leaves no terminal for COM{number}: choose socket for it, and use 'vmsim serial'"
        );
        ensure!(
            display != DisplayKind::Terminal,
            "COM{number} and the screen cannot share the terminal: use --display none, or socket for the port \
             and 'vmsim serial'"
        );
    }
    Ok(port)
}

/// The terminal cannot show the picture when a serial port is at it.
fn beside_terminal(display: DisplayKind, stdio: Option<u8>) -> DisplayKind {
    match display {
        DisplayKind::Auto if stdio.is_some() && crate::display_role::best_kind() == "terminal" => {
            DisplayKind::None
        }
        display => display,
    }
}

fn writable(path: &Path, what: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{what} file {} cannot be written", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_takes_one_serial_port_and_no_screen_besides() {
        let (none, terminal) = (SerialEnd::None, SerialEnd::Stdio);
        let window = DisplayKind::Window;
        assert_eq!(stdio(&[none.clone(), none.clone()], DisplayKind::Terminal, true).unwrap(), None);
        assert_eq!(stdio(&[none.clone(), terminal.clone()], window, false).unwrap(), Some(2));
        let refused = |ends: [&SerialEnd; 2], display, detach| {
            stdio(&ends.map(Clone::clone), display, detach).unwrap_err().to_string()
        };
        assert!(refused([&terminal, &terminal], window, false).contains("Only one"));
        assert!(refused([&terminal, &none], window, true).contains("--detach"));
        assert!(refused([&terminal, &none], DisplayKind::Terminal, false).contains("--display none"));
    }

    #[test]
    fn ranges_of_ram_are_whole_pages() {
        let ranges =
            |texts: &[&str]| dma("storage", &texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let range = |start, end| RamRange { start, end };
        assert_eq!(ranges(&[]).unwrap(), []);
        assert_eq!(ranges(&["1M - 16M", "0-640K"]).unwrap(), [range(0, 640 << 10), range(1 << 20, 16 << 20)]);
        for wrong in ["16M", "16M-0", "0-0", "0-1000", "a-b", "0-16M-32M", "-1M"] {
            let error = ranges(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("'storage'") && error.contains(wrong), "{error}");
        }
        let many: Vec<_> = (0..9).map(|n| format!("{}K-{}K", 8 * n, 8 * n + 4)).collect();
        assert!(ranges(&many.iter().map(String::as_str).collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn bad_images_are_refused_in_one_line_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let drive = |path: PathBuf| Drive { path, read_only: false, geometry: None };
        let missing = floppy(&drive(dir.path().join("none.img"))).unwrap_err();
        assert!(format!("{missing:#}").contains("none.img"));
        let short = dir.path().join("short.img");
        std::fs::write(&short, vec![0; 1000]).unwrap();
        assert!(floppy(&drive(short.clone())).unwrap_err().to_string().contains("truncated"));
        assert!(disk(&drive(short)).unwrap_err().to_string().contains("truncated"));
    }
}
