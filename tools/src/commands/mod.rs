//! The commands of the program, one function or module each.

mod device;
mod image;
mod input;
pub mod inspect;
mod log;
mod recording;
mod run;
mod screen;
mod serial;
mod top;
mod trace;

use crate::cli::{Cli, Command, DisplayKind, SaveArgs};
use crate::client;
use anyhow::{Context, Result, bail};
use ipc::control::{ProcessStatus, Reply, Request, VmStatus};
use ipc::runtime_dir::{RuntimeDir, VmDir};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A window that cannot be opened says so within this time.
const DISPLAY_OPENS: Duration = Duration::from_millis(700);

/// Writing large memory and disks takes a while.
const SAVE_PATIENCE: Duration = Duration::from_secs(3600);

/// Runs what the command line asks for.
pub fn dispatch(cli: Cli) -> Result<ExitCode> {
    let ask = |vm: Option<&str>, request: Request| -> Result<()> {
        client::connect(vm)?.0.ask(&request)?;
        Ok(())
    };
    match cli.command.unwrap_or_else(|| Command::Run(Box::default())) {
        Command::Run(args) => return run::run(&args),
        Command::Ps => ps()?,
        Command::Screen(args) => screen::screen(&args)?,
        Command::Type { text, vm } => input::type_text(&text, vm.name.as_deref())?,
        Command::Key { keys, vm } => input::press(&keys, vm.name.as_deref())?,
        Command::Wait { text, timeout, vm } => return screen::wait(&text, timeout, vm.name.as_deref()),
        Command::Pause(vm) => ask(vm.name.as_deref(), Request::Pause)?,
        Command::Resume(vm) => ask(vm.name.as_deref(), Request::Resume)?,
        Command::Reset(vm) => ask(vm.name.as_deref(), Request::Reset)?,
        Command::Stop(vm) => stop(vm.name.as_deref())?,
        Command::Save(args) => save(&args)?,
        Command::Restore(args) => return run::restore(&args),
        Command::Top(args) => top::top(&args)?,
        Command::Display { display, vm } => open_display(display, vm.name.as_deref())?,
        Command::Serial(args) => return serial::serial(&args),
        Command::Log(args) => log::log(&args)?,
        Command::Device(command) => return device::device(&command),
        Command::Replay { file, exe, limit, stop_at } => {
            let options = devproc::record::Options { limit, stop_at };
            return device::replay(&file, exe.as_deref(), &options);
        }
        Command::Stats(vm) => inspect::stats(vm.name.as_deref())?,
        Command::Shadow { at, vm } => inspect::shadow(vm.name.as_deref(), at)?,
        Command::Regs(vm) => inspect::regs(vm.name.as_deref())?,
        Command::Disasm { at, count, vm } => inspect::disasm(vm.name.as_deref(), at, count)?,
        Command::Trace(args) => match &args.recording {
            Some(command) => recording::recording(command)?,
            None => trace::trace(&args)?,
        },
        Command::Gdb { port, vm } => inspect::gdb(vm.name.as_deref(), port)?,
        Command::Mem { at, len, vm } => inspect::mem(vm.name.as_deref(), at, len)?,
        Command::Image(command) => image::image(&command)?,
        Command::Firmware => firmware()?,
        Command::Bench { one_cpu } => crate::bench::run(one_cpu)?,
        Command::Role(args) => crate::roles::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(name: Option<&str>) -> Result<()> {
    let (mut control, vm) = client::connect(name)?;
    control.ask(&Request::Stop)?;
    wait_until_gone(&vm);
    Ok(())
}

fn save(args: &SaveArgs) -> Result<()> {
    // The supervisor may have another working directory.
    let file = std::path::absolute(&args.file).context("The file's path")?;
    let (mut control, vm) = client::connect(args.vm.name.as_deref())?;
    let request = Request::Save { file, stop: args.stop, with_disks: args.with_disks };
    let Reply::Done(line) = control.ask_patiently(&request, SAVE_PATIENCE)? else { return Ok(()) };
    if args.stop {
        wait_until_gone(&vm);
    }
    print_text(&format!("{line}\n"))
}

/// Images are complete and memory is free once the place of a VM that ends is gone.
fn wait_until_gone(vm: &VmDir) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while vm.is_running() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ps() -> Result<()> {
    let dir = RuntimeDir::open()?;
    let running = client::running(&dir);
    let mut out = String::new();
    if running.is_empty() {
        out.push_str("No VM is running.\n");
    }
    for vm in running {
        match client::connect(Some(vm.name())).and_then(|(mut control, _)| Ok(control.status()?)) {
            Ok(status) => describe(&status, &mut out)?,
            Err(error) => writeln!(out, "{}: {error:#}", vm.name())?,
        }
    }
    print_text(&out)
}

fn describe(status: &VmStatus, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{}: {}, {} MiB RAM, virtual time {:.3} s, {} instructions interpreted, last at {:04x}:{:08x}",
        status.name,
        status.state,
        status.ram_bytes >> 20,
        status.virtual_nanos as f64 / 1e9,
        status.instructions,
        status.cs_eip.0,
        status.cs_eip.1
    )?;
    writeln!(out, "  {:12} {:>8}  {:11} {:>8}  {:10}  MODELS", "PROCESS", "PID", "STATE", "RESTARTS", "DMA")?;
    for process in &status.processes {
        let pid = if process.pid == 0 { "-".into() } else { process.pid.to_string() };
        writeln!(
            out,
            "  {:12} {pid:>8}  {:11} {:>8}  {:10}  {}",
            process.name,
            process.state,
            process.restarts,
            dma(process),
            process.models.join(" ")
        )?;
    }
    for port in &status.serial {
        let terminal =
            port.terminal.as_ref().map_or_else(String::new, |path| format!(" -> {}", path.display()));
        let connected = if port.connected { ", connected" } else { "" };
        writeln!(out, "  COM{} at {}{terminal}{connected}", port.number, port.path.display())?;
    }
    Ok(())
}

/// The guest RAM that a device process has, and how often it wanted other RAM.
fn dma(process: &ProcessStatus) -> String {
    let ranges: Vec<_> = process.dma.iter().map(ToString::to_string).collect();
    let refused = match process.dma_refused {
        0 => String::new(),
        count => format!(" ({count} refused)"),
    };
    let ranges = if ranges.is_empty() { "-".into() } else { ranges.join(",") };
    ranges + &refused
}

/// Prints to standard output; a reader that has seen enough (`| head`) is no error.
fn print_text(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn open_display(kind: DisplayKind, name: Option<&str>) -> Result<()> {
    let kind = match kind {
        DisplayKind::Auto => crate::display_role::best_kind(),
        DisplayKind::Terminal => "terminal",
        DisplayKind::Window => "window",
        DisplayKind::None => return Ok(()),
    };
    if kind == "terminal" {
        // This terminal, not the supervisor's.
        return crate::display_role::run(client::find(name)?.name(), kind);
    }
    let (mut control, vm) = client::connect(name)?;
    // Kept for the window system of whoever asks, not of whoever started the VM.
    let environment = ["DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    control.ask(&Request::OpenDisplay { kind: kind.into(), environment })?;
    // A window that cannot open ends soon, and its last words are for the user.
    let deadline = Instant::now() + DISPLAY_OPENS;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        if control.status()?.processes.iter().all(|process| process.name != "display") {
            let said = std::fs::read_to_string(vm.log("display.stderr")).unwrap_or_default();
            let line = said.lines().last().unwrap_or("see 'vmsim log'");
            bail!("{}", line.trim_start_matches("vmsim: "));
        }
    }
    Ok(())
}

fn firmware() -> Result<()> {
    let found = images::firmware::find_or_fetch(&crate::progress::bar())?;
    println!("BIOS     {}", found.bios.display());
    println!("VGA ROM  {}", found.vga_rom.display());
    println!("from     {}", found.source);
    Ok(())
}
