//! Passing questions about the guest on to the VMM, without waiting for it: a device may hold it up.

use crossbeam::channel::Sender;
use ipc::control::Reply;
use ipc::inspect::{Inspect, Inspected};
use ipc::setup::{Command, Lifeline};
use ipc_channel::TryRecvError;
use ipc_channel::ipc::IpcReceiver;
use std::time::Duration;

/// How long the VMM may take. It answers between two runs of guest code.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the VMM; the answer goes to `reply` when it comes.
pub fn forward(vmm: Option<&Lifeline>, what: Inspect, reply: Sender<Reply>) {
    let asked = ask(vmm, what);
    std::thread::spawn(move || {
        let answer = asked.and_then(|answer| wait(&answer));
        // A client that went away does not need its answer.
        let _ = reply.send(answer.map_or_else(Reply::Refused, Reply::Inspected));
    });
}

/// Asks the VMM and waits for its answer. Before the guest runs, when nothing holds the VMM up.
pub fn ask_now(vmm: Option<&Lifeline>, what: Inspect) -> Result<Inspected, String> {
    wait(&ask(vmm, what)?)
}

fn ask(vmm: Option<&Lifeline>, what: Inspect) -> Result<IpcReceiver<Inspected>, String> {
    let (answer, receiver) =
        ipc_channel::ipc::channel().map_err(|error| format!("No channel to the VMM: {error}"))?;
    if vmm.is_some_and(|vmm| vmm.send(Command::Inspect { what, answer })) {
        Ok(receiver)
    } else {
        Err("The VM has no VMM at present: see 'vmsim ps'".into())
    }
}

fn wait(answer: &IpcReceiver<Inspected>) -> Result<Inspected, String> {
    answer.try_recv_timeout(PATIENCE).map_err(|error| match error {
        TryRecvError::Empty => {
            "The VMM does not answer: it waits for a device, or is stopped itself; see 'vmsim ps'".into()
        }
        TryRecvError::IpcError(error) => format!("The VMM went away: {error}"),
    })
}
