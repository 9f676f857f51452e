//! The handshake: how a process becomes part of a VM, and what it is told.
//!
//! A process connects to the control socket and asks to attach, naming an ipc-channel one-shot
//! server of its own; the supervisor answers over that channel with a [`Setup`]. The same
//! path serves processes that the supervisor spawned and those started by hand. The channel
//! stays open: when it breaks, the supervisor is gone and the process ends.

use crate::control::{Control, ControlError, Request, Role};
use crate::dma::RamRange;
use crate::fault::Faults;
use crate::inspect::{Inspect, Inspected};
use crate::machine::MachineConfig;
use crate::runtime_dir::{RuntimeDir, RuntimeDirError, VmDir};
use crate::segment::SegmentNames;
use ipc_channel::ipc::{IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// Environment variable of processes that a supervisor starts: the VM is there.
pub const SPAWNED_VARIABLE: &str = "VMSIM_SPAWNED";
/// Environment variable of a process that waits for a debugger before it does anything.
pub const DEBUG_VARIABLE: &str = "VMSIM_WAIT_DEBUGGER";

/// A process that attaches listens already; it takes no longer than this to be reached.
const LISTENS: Duration = Duration::from_millis(500);

/// What the supervisor tells an attached process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// [`crate::message::PROTOCOL_VERSION`] of the supervisor.
    pub version: u32,
    /// The machine.
    pub config: MachineConfig,
    /// The process's slot on the board.
    pub slot: u32,
    /// The device processes of this VM: slot and name.
    pub devices: Vec<(u32, String)>,
    /// Later commands; broken when the supervisor is gone.
    pub commands: Commands,
    /// What a device process begins with.
    pub from: StartFrom,
    /// It is to take the place of one that runs: it prepares everything, says so
    /// ([`Request::StandBy`]), and waits for [`Command::TakeOver`].
    pub stands_by: bool,
    /// It goes into a sandbox once its models are built.
    pub sandbox: bool,
    /// The guest RAM that a device process may reach at most; `None`: what its models ask for.
    pub dma: Option<Vec<RamRange>>,
    /// Where a device process sends its recording, from the start.
    pub recording: Option<Recording>,
    /// What is to go wrong on the link of a device process.
    pub faults: Faults,
    /// What the VMM begins with in the place of a processor after reset: the VM was saved.
    pub processor: Option<Exported>,
}

/// A state as its owner has written it, for itself or for a later build of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Version of its format.
    pub version: u16,
    /// The state.
    pub data: Vec<u8>,
}

/// Where a device process sends what it records. Whoever receives it writes the file: the process may not open any.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// Takes pieces of the recording, in order, each of whole entries.
    pub sink: IpcBytesSender,
    /// A predecessor of the process sent the first part of it.
    pub append: bool,
}

/// What a device process begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartFrom {
    /// The machine is switched on: nothing was before it.
    PowerOn,
    /// The states that a predecessor committed.
    Committed,
    /// As at power-on, in the place of a predecessor: what the guest waits for is answered.
    Cold,
    /// The states that were saved with the VM. One that is not taken is an error.
    Saved,
}

/// Where a process hears what the supervisor tells it later.
pub type Commands = IpcReceiver<Command>;

/// What the supervisor tells a process later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// End, in order.
    Shutdown,
    /// Commit the states of all models, in these versions (0: the model's own), and do nothing more.
    HandOver {
        /// By number of the model.
        versions: Vec<u16>,
    },
    /// Begin, in the place of the process that has handed over.
    TakeOver,
    /// Stop the guest between two instructions, and time with it, have the devices finish what they were sent, and do nothing
    /// more until [`Command::GoOn`]. For the VMM only.
    Export {
        /// Where the state goes. It may come late, as a device may hold the VMM up.
        answer: IpcSender<Exported>,
    },
    /// Go on: no other build takes your place, or the VM is saved.
    GoOn {
        /// The other build may have gone on from your states: go on from what is committed now.
        reload: bool,
    },
    /// Answer a question about the guest. For the VMM only.
    Inspect {
        /// The question.
        what: Inspect,
        /// Where the answer goes. It may come late, as a device may hold the VMM up.
        answer: IpcSender<Inspected>,
    },
    /// Record what happens on the link from now on, or, with `None`, no longer. For device processes only.
    Record {
        /// Where to.
        to: Option<Recording>,
        /// Where is told when that is so, or in one line why not.
        answer: IpcSender<Result<(), String>>,
    },
}

/// Why a process could not attach.
#[derive(Debug, Error)]
pub enum AttachError {
    /// No such VM, or it refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The runtime directory is unusable.
    #[error(transparent)]
    Directory(#[from] RuntimeDirError),
    /// The channel broke.
    #[error("Handshake with the supervisor failed: {0}")]
    Channel(String),
}

/// A process's membership in a VM.
pub struct Attachment {
    /// What the supervisor said.
    pub setup: Setup,
    /// Names of the VM's segments.
    pub names: SegmentNames,
    /// The VM's directory.
    pub dir: VmDir,
}

/// Attaches the calling process to the VM `vm` as `role`.
///
/// # Errors
/// [`AttachError`].
pub fn attach(vm: &str, role: Role, build: &str) -> Result<Attachment, AttachError> {
    let dir = RuntimeDir::open()?.vm(vm)?;
    let channel = |error: &dyn std::fmt::Display| AttachError::Channel(error.to_string());
    let (server, name) = IpcOneShotServer::<Setup>::new().map_err(|e| channel(&e))?;
    let mut control = Control::connect(&dir.socket())?;
    control.ask(&Request::Attach { role, pid: std::process::id(), server: name, build: build.into() })?;
    let (_, setup) = server.accept().map_err(|e| channel(&e))?;
    Ok(Attachment { setup, names: SegmentNames::new(vm), dir })
}

/// The supervisor's end of an attached process's channel.
pub struct Lifeline {
    commands: IpcSender<Command>,
}

impl Lifeline {
    /// Tells the process; false when it is gone.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

/// Supervisor: answers an attach request by sending `setup` (with `commands` filled in here) to
/// the process's one-shot server.
///
/// # Errors
/// [`AttachError::Channel`].
pub fn accept(server: String, setup: impl FnOnce(Commands) -> Setup) -> Result<Lifeline, AttachError> {
    let channel = |error: &dyn std::fmt::Display| AttachError::Channel(error.to_string());
    let (commands, receiver) = ipc_channel::ipc::channel().map_err(|e| channel(&e))?;
    // Whoever does not listen must not hold us up.
    let (answer, connected) = std::sync::mpsc::channel();
    std::thread::spawn(move || answer.send(IpcSender::<Setup>::connect(server)));
    let to_process = connected
        .recv_timeout(LISTENS)
        .map_err(|_| AttachError::Channel("the process does not listen".into()))?
        .map_err(|e| channel(&e))?;
    to_process.send(setup(receiver)).map_err(|e| channel(&e))?;
    Ok(Lifeline { commands })
}
