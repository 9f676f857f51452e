//! Recordings of device processes: the processes, which may open no file, send them; here they are written.
//!
//! Each run of a process has a channel and a thread of its own, which begins when those before it have
//! written all that they got. So a file has whole pieces only, in order, whenever a process dies.

use super::Supervisor;
use crossbeam::channel::Sender;
use ipc::control::{Reply, Role};
use ipc::setup::{Command, Recording};
use ipc_channel::TryRecvError;
use ipc_channel::ipc::IpcReceiver;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a recording may take to start: the guest must run for a moment, and the process must be free.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last pieces may take.
const LAST_PIECES: Duration = Duration::from_secs(1);

/// A file that a device process and its successors are recorded to.
pub struct Tape {
    file: Arc<File>,
    /// The file, if it is one.
    path: Option<PathBuf>,
    is_pipe: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Somebody was told to send.
    begun: bool,
    last: Option<JoinHandle<()>>,
}

impl Tape {
    /// Makes the file, or opens the pipe.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("{} exists already: remove it or choose another name", path.display())
            }
            _ => format!("{}: {error}", path.display()),
        };
        let is_pipe = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let file = if is_pipe {
            // Without a reader it fails instead of waiting for one.
            let pipe = options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path);
            let pipe = pipe.map_err(failed)?;
            rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::empty()).map_err(|e| failed(e.into()))?;
            pipe
        } else {
            options.create_new(true).open(path).map_err(failed)?
        };
        let path = (!is_pipe).then(|| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        Ok(Self { file: Arc::new(file), path, is_pipe, state: Mutex::default() })
    }

    /// Where it is, if it can be replayed.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// For one run of a process: where it sends what it records. `None` when it cannot go on with what its
    /// predecessor sent, as through a pipe.
    pub fn recording(&self) -> Option<Recording> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let append = std::mem::replace(&mut state.begun, true);
        if append && self.is_pipe {
            return None;
        }
        let (sink, pieces) = ipc_channel::ipc::bytes_channel().ok()?;
        let (file, before) = (self.file.clone(), state.last.take());
        state.last = Some(std::thread::spawn(move || {
            // A thread that panicked has written what it could.
            before.map(JoinHandle::join);
            while let Ok(piece) = pieces.recv() {
                if let Err(error) = (&*file).write_all(&piece) {
                    // The sender notices that nobody takes more.
                    tracing::error!("A recording ends: {error}");
                    return;
                }
            }
        }));
        Some(Recording { sink, append })
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        // The last pieces of a process that has ended are on their way; one that a debugger holds is not waited for.
        let last = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).last.take();
        let deadline = Instant::now() + LAST_PIECES;
        while last.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Supervisor {
    /// Has `device` record to `to` from now on, or no longer; the answer goes to `reply` when it comes.
    pub(super) fn record(&mut self, device: &str, to: Option<PathBuf>, reply: Sender<Reply>) {
        let asked = self.ask_for_recording(device, to);
        std::thread::spawn(move || {
            let answer = asked.and_then(|(answer, ended)| {
                let answer = answer.try_recv_timeout(PATIENCE).unwrap_or_else(|error| {
                    Err(match error {
                        TryRecvError::Empty => "The recording has not started yet: it does when the guest \
                                                and the device process run; see 'vmsim ps'"
                            .into(),
                        TryRecvError::IpcError(error) => format!("The device process went away: {error}"),
                    })
                });
                // When this is answered, all is in the file.
                drop(ended);
                answer
            });
            // A client that went away does not need its answer.
            let _ = reply.send(answer.map_or_else(Reply::Refused, |()| Reply::Ok));
        });
    }

    /// The answer that will come, and the recording that ends with it.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn ask_for_recording(
        &mut self,
        device: &str,
        to: Option<PathBuf>,
    ) -> Result<(IpcReceiver<Result<(), String>>, Option<Tape>), String> {
        let role = Role::Device(device.into());
        let managed = self.processes.iter_mut().flatten().find(|managed| managed.role == role);
        let Some(managed) = managed else {
            let known: Vec<_> = self.devices.iter().map(|(_, name)| name.as_str()).collect();
            return Err(format!("This VM has no device process '{device}'; it has {}", known.join(", ")));
        };
        let is_over = || managed.recording.as_ref().is_some_and(|tape| tape.is_over());
        if to.is_some() && managed.recording.is_some() && !is_over() {
            return Err(format!("{device} is being recorded already: end that first, with --stop"));
        }
        let tape = to.as_deref().map(Tape::open).transpose()?;
        let (answer, receiver) =
            ipc_channel::ipc::channel().map_err(|error| format!("No channel to {device}: {error}"))?;
        let recording = tape.as_ref().and_then(Tape::recording);
        let lifeline = managed.lifeline.as_ref();
        if !lifeline.is_some_and(|process| process.send(Command::Record { to: recording, answer })) {
            return Err(format!("{device} does not run at present: see 'vmsim ps'"));
        }
        let ended = std::mem::replace(&mut managed.recording, tape);
        Ok((receiver, ended))
    }
}

impl Tape {
    /// Whether it ended by itself: nobody writes any more.
    fn is_over(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begun && state.last.as_ref().is_none_or(JoinHandle::is_finished)
    }
}
