//! Having device processes record their links, without waiting for them.

use super::Supervisor;
use crossbeam::channel::Sender;
use ipc::control::{Reply, Role};
use ipc::setup::{Command, Recording};
use ipc_channel::TryRecvError;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a recording may take to start: the guest must run for a moment, and the process must be free.
const PATIENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Has `device` record to `to` from now on, or no longer; the answer goes to `reply` when it comes.
    pub(super) fn record(&mut self, device: &str, to: Option<PathBuf>, reply: Sender<Reply>) {
        let asked = self.ask_for_recording(device, to);
        std::thread::spawn(move || {
            let answer = asked.and_then(|answer| {
                answer.try_recv_timeout(PATIENCE).unwrap_or_else(|error| {
                    Err(match error {
                        TryRecvError::Empty => "The recording has not started yet: it does when the guest \
                                                and the device process run; see 'vmsim ps'"
                            .into(),
                        TryRecvError::IpcError(error) => format!("The device process went away: {error}"),
                    })
                })
            });
            // A client that went away does not need its answer.
            let _ = reply.send(answer.map_or_else(Reply::Refused, |()| Reply::Ok));
        });
    }

    fn ask_for_recording(
        &mut self,
        device: &str,
        to: Option<PathBuf>,
    ) -> Result<ipc_channel::ipc::IpcReceiver<Result<(), String>>, String> {
        let role = Role::Device(device.into());
        let managed = self.processes.iter_mut().flatten().find(|managed| managed.role == role);
        let Some(managed) = managed else {
            let known: Vec<_> = self.devices.iter().map(|(_, name)| name.as_str()).collect();
            return Err(format!("This VM has no device process '{device}'; it has {}", known.join(", ")));
        };
        let is_file = |path: &Path| path.is_file() || path.is_dir();
        if let Some(path) = to.as_deref().filter(|path| is_file(path)) {
            return Err(format!("{} exists already: remove it or choose another name", path.display()));
        }
        let (answer, receiver) =
            ipc_channel::ipc::channel().map_err(|error| format!("No channel to {device}: {error}"))?;
        let recording = to.clone().map(|path| Recording { path, append: false });
        let lifeline = managed.lifeline.as_ref();
        if !lifeline.is_some_and(|process| process.send(Command::Record { to: recording, answer })) {
            return Err(format!("{device} does not run at present: see 'vmsim ps'"));
        }
        // One that is refused because of another recording leaves that in force.
        if to.is_none() || managed.recording.is_none() {
            managed.recording = to;
        }
        Ok(receiver)
    }
}
