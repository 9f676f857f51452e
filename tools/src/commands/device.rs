//! `vmsim device` and `vmsim replay`: other builds, restarts and recordings of device processes.
//!
//! A live look is a recording too: into a pipe, whose other end reads it as it comes.

use super::print_text;
use crate::cli::{DeviceCommand, State, SwapArgs};
use crate::client;
use anyhow::{Context, Result, bail};
use devproc::record::Options;
use devproc::record::coverage::Coverage;
use devproc::record::items::Items;
use ipc::control::{Control, ControlError, Reply, Request, StateChoice};
use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

/// How long a device process may take to come back: with back-off, until it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked whether a second build has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a command about a device process.
pub fn device(command: &DeviceCommand) -> Result<ExitCode> {
    match command {
        DeviceCommand::Swap(_) | DeviceCommand::Restart { .. } => {
            renew(command)?;
            Ok(ExitCode::SUCCESS)
        }
        DeviceCommand::Record { device, file, stop: _, vm } => {
            let absolute = |path| std::path::absolute(path).context("The recording's path");
            let to = file.as_ref().map(absolute).transpose()?;
            client::connect(vm.name.as_deref())?.0.ask(&Request::Record { device: device.clone(), to })?;
            Ok(ExitCode::SUCCESS)
        }
        DeviceCommand::Coverage { device, seconds, vm } => {
            coverage(device, Duration::try_from_secs_f64(*seconds)?, vm.name.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        DeviceCommand::Compare { device, exe, seconds, limit, vm } => {
            let seconds = seconds.map(Duration::try_from_secs_f64).transpose()?;
            compare(device, exe, seconds, *limit, vm.name.as_deref())
        }
    }
}

/// Swaps or restarts a device process.
fn renew(command: &DeviceCommand) -> Result<()> {
    let (vm, request) = match command {
        DeviceCommand::Swap(SwapArgs { device, exe, state, timeout, vm }) => {
            let patience = Duration::try_from_secs_f64(*timeout)
                .with_context(|| format!("--timeout {timeout} is no number of seconds"))?;
            // The supervisor may have another working directory.
            let exe = exe.as_ref().map(std::path::absolute).transpose().context("--exe")?;
            let request = Request::SwapDevice {
                device: device.clone(),
                exe,
                state: choice(*state),
                patience_millis: patience.as_millis() as u64,
            };
            (vm, request)
        }
        DeviceCommand::Restart { device, state, vm } => {
            (vm, Request::RestartDevice { device: device.clone(), state: choice(*state) })
        }
        _ => return Ok(()),
    };
    let (mut control, _) = client::connect(vm.name.as_deref())?;
    if let Reply::Done(line) = control.ask_patiently(&request, PATIENCE)? {
        print_text(&format!("{line}\n"))?;
    }
    Ok(())
}

fn choice(state: State) -> StateChoice {
    match state {
        State::Keep => StateChoice::Keep,
        State::Cold => StateChoice::Cold,
    }
}

/// Replays a recording with the models of this program, or becomes the program that does it.
pub fn replay(file: &Path, exe: Option<&Path>, options: &Options) -> Result<ExitCode> {
    let Some(exe) = exe else { return Ok(devproc::record::run(file, options, devproc::standard::builder)) };
    Err(replayer(exe, file, options).exec()).with_context(|| format!("Device executable {}", exe.display()))
}

fn replayer(exe: &Path, file: &Path, options: &Options) -> Command {
    let mut command = Command::new(exe);
    command.arg("replay").arg(file).args(options.arguments());
    command
}

/// A recording into a pipe, which ends with this value.
struct Pipe {
    control: Control,
    device: String,
    path: PathBuf,
    started: bool,
    _folder: tempfile::TempDir,
}

impl Pipe {
    fn new(device: &str, vm: Option<&str>) -> Result<Self> {
        let (control, _) = client::connect(vm)?;
        let folder = tempfile::Builder::new().prefix("vmsim-pipe-").tempdir()?;
        let path = folder.path().join(format!("{device}.rec"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )?;
        Ok(Self { control, device: device.into(), path, started: false, _folder: folder })
    }

    /// Has the device process record into the pipe, which somebody reads already.
    fn start(&mut self) -> Result<()> {
        let to = Some(self.path.clone());
        self.control.ask(&Request::Record { device: self.device.clone(), to })?;
        self.started = true;
        Ok(())
    }

    fn stop(&mut self) -> Result<(), ControlError> {
        if std::mem::take(&mut self.started) {
            self.control.ask(&Request::Record { device: self.device.clone(), to: None })?;
        }
        Ok(())
    }

    /// Opens the end to read from, without waiting for a writer.
    fn reader(&self) -> Result<File> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?;
        Ok(file)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // The VM may have ended, and the recording may have ended by itself.
        let _ = self.stop();
    }
}

fn coverage(device: &str, during: Duration, vm: Option<&str>) -> Result<()> {
    let mut pipe = Pipe::new(device, vm)?;
    let file = pipe.reader()?;
    // Reads wait for what comes from here on; the writer has the pipe open when `start` returns.
    let reading = file.try_clone()?;
    let reader = std::thread::spawn(move || -> Result<Coverage> {
        wait_for_writer(&reading)?;
        let (mut items, header) = Items::new(BufReader::new(reading))?;
        let mut map = Coverage::new(&header);
        while let Some(item) = items.next()? {
            map.add(&item);
        }
        Ok(map)
    });
    pipe.start()?;
    std::thread::sleep(during);
    // A VM that has ended has ended the recording too.
    let _ = pipe.stop();
    drop(pipe);
    match reader.join() {
        Ok(map) => print_text(&map?.table()),
        Err(_) => bail!("The recording of {device} could not be followed"),
    }
}

/// Waits until something can be read, then lets reads wait.
fn wait_for_writer(file: &File) -> Result<()> {
    let mut events = [rustix::event::PollFd::new(file, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut events, None)?;
    rustix::fs::fcntl_setfl(file, rustix::fs::OFlags::empty())?;
    Ok(())
}

/// The second build; ended with this value.
struct Second(Child);

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compare(
    device: &str,
    exe: &Path,
    during: Option<Duration>,
    limit: u64,
    vm: Option<&str>,
) -> Result<ExitCode> {
    let mut pipe = Pipe::new(device, vm)?;
    // Held until the second build reads: the device process needs somebody at the other end.
    let held = pipe.reader()?;
    let child = replayer(exe, &pipe.path, &Options { limit, ..Options::default() }).spawn();
    let mut second = Second(child.with_context(|| format!("Device executable {}", exe.display()))?);
    pipe.start()?;
    crate::progress::say(&format!(
        "{device} and {} get the same transactions; Ctrl+C ends it",
        exe.display()
    ));
    let deadline = during.map(|during| Instant::now() + during);
    let mut held = Some(held);
    loop {
        if let Some(status) = second.0.try_wait()? {
            // A recording that ended by itself, when the VM did, needs no end.
            let _ = pipe.stop();
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        if held.is_some() && reads(second.0.id(), &pipe.path) {
            held = None;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            // The second build comes to the end, and says what it found.
            let _ = pipe.stop();
            held = None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a process has a file open.
fn reads(pid: u32, path: &Path) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == path)
}
