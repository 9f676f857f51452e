//! `vmsim run` and `vmsim restore`.

use super::serial;
use crate::cli::{DisplayKind, HostArgs, RestoreArgs, RunArgs};
use crate::config::{self, Plan};
use crate::supervisor::{Ending, Supervisor};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// What the detached supervisor says on standard output once the guest runs.
const READY: &str = "ready";

/// How long what the detached supervisor said while it started may take to come.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs a VM in the foreground, or starts one that stays.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    start(&args.host, config::plan(args)?)
}

/// The same with one that was saved.
pub fn restore(args: &RestoreArgs) -> Result<ExitCode> {
    let runs_here = !args.host.detach || args.host.detached_supervisor;
    start(&args.host, config::restored_plan(args, runs_here)?)
}

fn start(host: &HostArgs, mut plan: Plan) -> Result<ExitCode> {
    if host.detach && !host.detached_supervisor {
        let name = plan.config.name.clone();
        drop(plan);
        return detach(&name);
    }
    if host.detached_supervisor && matches!(plan.display, DisplayKind::Terminal) {
        bail!("--detach leaves no terminal to show the screen in: use --display none or window");
    }
    if host.detached_supervisor
        && plan.display == DisplayKind::Auto
        && crate::display_role::best_kind() == "terminal"
    {
        plan.display = DisplayKind::None;
    }
    let log = ipc::runtime_dir::RuntimeDir::open()?.vm(&plan.config.name)?;
    let stdio = plan.stdio;
    let mut supervisor = Supervisor::start(plan)?;
    // After the place was taken: an earlier VM's log is not appended to.
    ipc::logging::to_file(&log.log("supervisor"), "supervisor").context("Supervisor's log")?;
    let ports = supervisor.serial_ports();
    for port in &ports {
        if let Some(terminal) = &port.terminal {
            let (number, place) = (port.number, port.path.display());
            crate::progress::say(&format!("COM{number} is at {place} ({})", terminal.display()));
        }
    }
    if host.detached_supervisor {
        report_ready().context("Reporting to the starting process")?;
    }
    let attached = match ports.iter().find(|port| stdio == Some(port.number)) {
        Some(port) => Some(serial::AttachedStdio::new(port.number, log.name(), &port.path)?),
        None => None,
    };
    let ending = supervisor.run();
    // The terminal is itself again before anything else is said, however the VM ended.
    drop(supervisor);
    drop(attached);
    match ending? {
        Ending::PoweredOff => tracing::info!("The guest switched the machine off"),
        Ending::Stopped => tracing::info!("Stopped"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the starting process that the guest runs. Nobody listens from then on: the end of standard error says that everything which
/// was said before has come.
fn report_ready() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").and_then(|()| out.flush())?;
    let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stderr(nowhere)?)
}

/// Starts this program again as a supervisor in a session of its own, and waits until its guest
/// runs or it says why not.
fn detach(name: &str) -> Result<ExitCode> {
    let mut command = Command::new(crate::roles::own_executable());
    command
        .args(std::env::args_os().skip(1))
        .arg("--detached-supervisor")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    new_session(&mut command);
    let mut child = command.spawn().context("Cannot start the supervisor")?;
    // What it says while starting (for whom it waits, what is wrong) is passed on as it comes.
    let stderr = child.stderr.take();
    let (sender, passed_on) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines);
        sender.send(lines.map_while(Result::ok).map(|line| eprintln!("{line}")).count())
    });
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        // An empty line is the end of a supervisor that failed.
        BufReader::new(out).read_line(&mut line).context("Waiting for the supervisor")?;
    }
    if line.trim() == READY {
        // Whatever still has the other end open has nothing to say to the user.
        let _ = passed_on.recv_timeout(LAST_LINES);
        println!("{name}");
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("Waiting for the supervisor")?;
    if passed_on.recv().unwrap_or(0) == 0 {
        bail!("The supervisor ended: {status}");
    }
    Ok(ExitCode::FAILURE)
}

#[expect(unsafe_code)] // `pre_exec`: one system call between fork and exec.
fn new_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and the closure captures nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}
