//! `vmsim serial`, and the serial port of `vmsim run --serial stdio`: a terminal or a pipe at the other end of
//! a running VM's serial port.

use crate::cli::SerialArgs;
use crate::client;
use anyhow::{Context, Result, bail};
use ipc::control::Control;
use ipc::runtime_dir::VmDir;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ctrl+], as in the terminal view.
const ESCAPE: u8 = 0x1d;
/// After the end of its input a pipe's conversation ends once the guest has been silent this long.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may take until it is noticed that whoever was connected before has left.
const HANG_UP: Duration = Duration::from_millis(500);
/// How long the output of a VM that ended may take to be printed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long an awaited text may take unless told otherwise.
const TEXT_TIMEOUT: f64 = 30.0;

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The user typed the escape.
    Escaped,
    /// The VM, or whoever holds the other end, hung up.
    HungUp,
    /// The awaited text came.
    TextCame,
    /// It did not come in time.
    TimedOut,
    /// The input was at its end and the guest silent, or nobody reads the output.
    Done,
}

/// When a conversation ends beyond the other end's hanging up.
#[derive(Clone, Debug, Default)]
pub struct Until {
    /// When this text came.
    pub text: Option<Vec<u8>>,
    /// At this moment.
    pub deadline: Option<Instant>,
    /// When this long after the end of the input nothing has come.
    pub silence: Option<Duration>,
}

/// The terminal at standard input in raw mode, until it is dropped.
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Switches to raw mode; `None` when standard input is no terminal.
    ///
    /// # Errors
    /// What the terminal says.
    pub fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(&stdin).context("Terminal modes")?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&stdin, OptionalActions::Now, &raw).context("Raw mode")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Standard input and output at a serial port of a VM that this process supervises, until dropped.
pub struct AttachedStdio {
    raw: Arc<Mutex<Option<RawTerminal>>>,
    thread: JoinHandle<()>,
}

impl AttachedStdio {
    /// Attaches them to port `number` of `vm`, which is at `place`.
    ///
    /// # Errors
    /// When the port or the terminal does not play along.
    pub fn new(number: u8, vm: &str, place: &Path) -> Result<Self> {
        let line = open(place).with_context(|| format!("Cannot connect to {}", place.display()))?;
        let raw = RawTerminal::enter()?;
        let escape = raw.is_some();
        if escape {
            eprint!("COM{number} of '{vm}'; Ctrl+] leaves it\r\n");
        }
        let raw = Arc::new(Mutex::new(raw));
        let (modes, vm) = (raw.clone(), vm.to_owned());
        let thread = std::thread::spawn(move || {
            let ended = converse(&line, escape, &Until::default());
            *modes.lock().unwrap_or_else(PoisonError::into_inner) = None;
            match ended {
                Ok(Ended::Escaped) => crate::progress::say(&format!(
                    "COM{number} is let go and '{vm}' runs on; 'vmsim serial --port {number} --vm {vm}' \
                     attaches to it again, Ctrl+C or 'vmsim stop --vm {vm}' ends it"
                )),
                Ok(_) => {}
                Err(error) => crate::progress::say(&format!("COM{number}: {error:#}")),
            }
        });
        Ok(Self { raw, thread })
    }
}

impl Drop for AttachedStdio {
    /// The VM is gone: what it said last is on its way out.
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        *self.raw.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// `vmsim serial`.
pub fn serial(args: &SerialArgs) -> Result<ExitCode> {
    let (mut control, vm) = client::connect(args.vm.name.as_deref())?;
    let line = connect(&mut control, &vm, args.port)?;
    let raw = RawTerminal::enter()?;
    let terminal = raw.is_some();
    if terminal {
        eprint!("COM{} of '{}'; Ctrl+] leaves\r\n", args.port, vm.name());
    }
    let text = args.wait_text.as_ref().map(|text| text.clone().into_bytes());
    let timeout = args.timeout.or(text.is_some().then_some(TEXT_TIMEOUT));
    let timeout = timeout.map(Duration::try_from_secs_f64).transpose().context("--timeout")?;
    let until = Until {
        silence: (!terminal && text.is_none()).then_some(SILENCE),
        text,
        deadline: timeout.map(|timeout| Instant::now() + timeout),
    };
    let ended = converse(&line, terminal, &until);
    drop(raw);
    if terminal {
        // The guest's prompt is where the shell's would be.
        eprintln!();
    }
    match ended? {
        Ended::TimedOut => {
            if let Some(text) = &args.wait_text {
                eprintln!("vmsim: COM{} did not say '{text}' in time", args.port);
            }
            Ok(ExitCode::from(u8::from(args.wait_text.is_some())))
        }
        Ended::HungUp if vm.is_running() => {
            bail!("COM{} of '{}' hung up: another client was quicker", args.port, vm.name())
        }
        Ended::HungUp if args.wait_text.is_some() => bail!("The VM ended before it said the text"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Connects to serial port `number` of a VM.
///
/// # Errors
/// One line that says why there is nothing to connect to.
pub fn connect(control: &mut Control, vm: &VmDir, number: u8) -> Result<OwnedFd> {
    let deadline = Instant::now() + HANG_UP;
    loop {
        let status = control.status()?;
        let Some(port) = status.serial.iter().find(|port| port.number == number) else {
            bail!(
                "COM{number} of '{}' takes no connections: start the VM with --serial socket or pty, \
                 or serial{number} = \"socket\" in its machine file",
                vm.name()
            );
        };
        if !port.connected {
            return open(&port.path).with_context(|| format!("Cannot connect to {}", port.path.display()));
        }
        if Instant::now() >= deadline {
            bail!("Somebody is connected to COM{number} of '{}' already", vm.name());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects to a socket or opens a pseudo-terminal.
fn open(path: &Path) -> Result<OwnedFd> {
    if std::fs::metadata(path)?.file_type().is_socket() {
        return Ok(UnixStream::connect(path)?.into());
    }
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Passes standard input to `line` and what comes from there to standard output. With `escape`, Ctrl+] in the input
/// ends it.
///
/// # Errors
/// When standard output or the line fails otherwise than by its end.
pub fn converse(line: &OwnedFd, escape: bool, until: &Until) -> Result<Ended> {
    let stdin = std::io::stdin();
    let mut out = std::io::stdout();
    let mut input_open = true;
    let mut last = Instant::now();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let silent_until = until.silence.filter(|_| !input_open).map(|silence| last + silence);
        let wake = [until.deadline, silent_until].into_iter().flatten().min();
        let wait = wake.map(|at| at.saturating_duration_since(Instant::now()));
        if wait == Some(Duration::ZERO) {
            let timed_out = until.deadline.is_some_and(|at| at <= Instant::now());
            return Ok(if timed_out { Ended::TimedOut } else { Ended::Done });
        }
        let timeout = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().min(i32::MAX as u64) as _,
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(line, PollFlags::IN)];
        if input_open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("Waiting for serial port and input"),
        }
        let [at_line, at_input] =
            [0, 1].map(|index| fds.get(index).is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty()));
        if at_line {
            let count = match rustix::io::read(line, &mut buffer) {
                Ok(0) | Err(Errno::IO | Errno::CONNRESET) => return Ok(Ended::HungUp),
                Ok(count) => count,
                Err(Errno::INTR | Errno::AGAIN) => 0,
                Err(error) => return Err(error).context("Reading from the serial port"),
            };
            last = Instant::now();
            match out.write_all(&buffer[..count]).and_then(|()| out.flush()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Ended::Done),
                other => other.context("Standard output")?,
            }
            if let Some(text) = &until.text
                && comes(text, &mut said, &buffer[..count])
            {
                return Ok(Ended::TextCame);
            }
        }
        if at_input {
            let count = match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(count) => count,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => return Err(error).context("Standard input"),
            };
            last = Instant::now();
            let escaped = buffer[..count].iter().position(|byte| escape && *byte == ESCAPE);
            if !write_all(line, &buffer[..escaped.unwrap_or(count)])? {
                return Ok(Ended::HungUp);
            }
            if escaped.is_some() {
                return Ok(Ended::Escaped);
            }
            input_open = count > 0;
        }
    }
}

/// Writes all of it; false when the other end hung up.
fn write_all(line: &OwnedFd, mut data: &[u8]) -> Result<bool> {
    while !data.is_empty() {
        match rustix::io::write(line, data) {
            Ok(count) => data = &data[count..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::IO | Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error).context("Writing to the serial port"),
        }
    }
    Ok(true)
}

/// Whether `text` is in what was said, of which `said` keeps as much as a later part may complete.
fn comes(text: &[u8], said: &mut Vec<u8>, new: &[u8]) -> bool {
    said.extend(new);
    let found = text.is_empty() || said.windows(text.len()).any(|window| window == text);
    said.drain(..said.len().saturating_sub(text.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_parts_and_only_when_whole() {
        let mut said = Vec::new();
        assert!(!comes(b"login:", &mut said, b"welcome\r\nlog"));
        assert!(!comes(b"login:", &mut said, b"in"));
        assert!(comes(b"login:", &mut said, b": "));
        assert!(!comes(b"login:", &mut said, b""));
    }
}
