//! The control socket: how tools and processes started by hand talk to a VM's supervisor.
//!
//! One request and one reply per message, each a length (u32, little endian) and a postcard
//! value. The first message of a connection is the sender's protocol version.

use crate::dma::RamRange;
use crate::input::HostEvent;
use crate::inspect::{Inspect, Inspected};
use crate::message::PROTOCOL_VERSION;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Longest message, bytes: protects the receiver.
pub const MAX_MESSAGE: u32 = 1 << 20;

/// What a process is in its VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs the CPU.
    Vmm,
    /// Runs device models: the name of the device process, such as `gpu`.
    Device(String),
    /// Shows the picture.
    Display,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Vmm => f.write_str("vmm"),
            Role::Device(name) => f.write_str(name),
            Role::Display => f.write_str("display"),
        }
    }
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Take this process as part of the VM. The supervisor connects to the one-shot ipc-channel
    /// server `server` and sends a [`crate::setup::Setup`].
    Attach {
        /// What it wants to be.
        role: Role,
        /// Its process ID.
        pid: u32,
        /// Name of its one-shot server.
        server: String,
        /// Version of its build, for messages.
        build: String,
    },
    /// What runs, and how.
    Status,
    /// Key and mouse events, in order.
    Input(Vec<HostEvent>),
    /// Stop guest and time.
    Pause,
    /// Go on.
    Resume,
    /// Reset button.
    Reset,
    /// End the VM.
    Stop,
    /// Switch the log of every access on or off.
    LogAccesses(bool),
    /// Ask the VMM about the guest.
    Inspect(Inspect),
    /// Have a device process record what happens on its link.
    Record {
        /// Name of the device process.
        device: String,
        /// The file, which must be new, or a pipe; `None` ends the recording.
        to: Option<PathBuf>,
    },
    /// Let another build take the place of a device process. Answered when it serves, or is refused.
    SwapDevice {
        /// Name of the device process.
        device: String,
        /// Program of the other build; the one that the VM has for it, if none is given.
        exe: Option<PathBuf>,
        /// What it begins with.
        state: StateChoice,
        /// How long it may take to be there, milliseconds.
        patience_millis: u64,
    },
    /// This process, which was started to take the place of another one, is prepared.
    StandBy {
        /// Its process ID.
        pid: u32,
        /// Versions of the states that its models save, by number of the model.
        versions: Vec<u16>,
    },
    /// Start a device process again, also one that is off the bus. Answered when it serves.
    RestartDevice {
        /// Its name.
        device: String,
        /// What it begins with.
        state: StateChoice,
    },
    /// Write the whole VM into a file. Answered when that is done, and the VM goes on or has ended.
    Save {
        /// The file, which must be new.
        file: PathBuf,
        /// End the VM then.
        stop: bool,
        /// Put the disk images into the file too.
        with_disks: bool,
    },
    /// Start a display, if none runs.
    OpenDisplay {
        /// `window`.
        kind: String,
        /// How to reach the client's window system: variables that replace the supervisor's own.
        environment: Vec<(String, String)>,
    },
}

/// What becomes of the state of a device process that is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateChoice {
    /// It is kept.
    Keep,
    /// The models begin as at power-on.
    Cold,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Ok,
    /// Done; one line for the user.
    Done(String),
    /// Not done; one line that says why and what to do.
    Refused(String),
    /// To [`Request::Status`].
    Status(VmStatus),
    /// To [`Request::Inspect`].
    Inspected(Inspected),
}

/// State of a VM for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: String,
    /// `running`, `paused`, `halted`, `waiting for gpu`...
    pub state: String,
    /// Virtual time, ns.
    pub virtual_nanos: u64,
    /// Guest instructions that were interpreted; what runs as shadow code is not counted.
    pub instructions: u64,
    /// Guest CS:EIP where the vCPU last was.
    pub cs_eip: (u16, u32),
    /// Guest RAM, bytes.
    pub ram_bytes: u64,
    /// Its processes.
    pub processes: Vec<ProcessStatus>,
    /// Its serial ports to which somebody can connect.
    pub serial: Vec<SerialStatus>,
}

/// A serial port to which somebody can connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialStatus {
    /// 1 for COM1.
    pub number: u8,
    /// Where: a Unix socket, or a link to a pseudo-terminal.
    pub path: PathBuf,
    /// The pseudo-terminal, where it is one.
    pub terminal: Option<PathBuf>,
    /// Somebody is connected.
    pub connected: bool,
}

/// State of one process of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `vmm`, `gpu`...
    pub name: String,
    /// Process ID; 0 when there is none.
    pub pid: u32,
    /// `ready`, `restarting`...
    pub state: String,
    /// Times it was started again.
    pub restarts: u32,
    /// Models inside.
    pub models: Vec<String>,
    /// Requests and events that it was sent so far.
    pub messages: u64,
    /// Of these, how many it has not dealt with.
    pub queue: u64,
    /// Accesses answered with an error so far.
    pub errors: u64,
    /// Ranges of guest RAM that it has.
    pub dma: Vec<RamRange>,
    /// DMA transfers refused so far.
    pub dma_refused: u64,
    /// Host time that the guest waited for it so far, ns; short waits are not counted.
    pub waited_nanos: u64,
    /// Host time that it spent in its models' code so far, ns, estimated.
    pub model_nanos: u64,
    /// CPU time that it used so far, ns.
    pub cpu_nanos: u64,
}

/// Why a VM could not be talked to.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("No VM answers at {path} ({source}): 'vmsim ps' lists those that run")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("The VM's supervisor went away: {0}")]
    Broken(#[from] io::Error),
    /// The peer speaks another version.
    #[error(
        "Protocol versions differ: this program speaks {ours}, the VM speaks {theirs}; use the same build for both"
    )]
    Version {
        /// Our version.
        ours: u32,
        /// Theirs.
        theirs: u32,
    },
    /// Too long or not decodable.
    #[error("Malformed control message")]
    Malformed,
    /// The supervisor said no.
    #[error("{0}")]
    Refused(String),
}

/// Sends one value.
///
/// # Errors
/// [`ControlError::Broken`].
pub fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> Result<(), ControlError> {
    let data = postcard::to_stdvec(value).map_err(|_| ControlError::Malformed)?;
    let mut message = (data.len() as u32).to_le_bytes().to_vec();
    message.extend(data);
    stream.write_all(&message)?;
    Ok(())
}

/// Receives one value.
///
/// # Errors
/// [`ControlError::Broken`] at the end of the stream, [`ControlError::Malformed`].
pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, ControlError> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_MESSAGE {
        return Err(ControlError::Malformed);
    }
    let mut data = vec![0; len as usize];
    stream.read_exact(&mut data)?;
    postcard::from_bytes(&data).map_err(|_| ControlError::Malformed)
}

/// Both ends send their version first and read the other's.
///
/// # Errors
/// [`ControlError::Version`] names both.
pub fn exchange_versions(stream: &mut UnixStream) -> Result<(), ControlError> {
    stream.write_all(&PROTOCOL_VERSION.to_le_bytes())?;
    let mut theirs = [0; 4];
    stream.read_exact(&mut theirs)?;
    let theirs = u32::from_le_bytes(theirs);
    if theirs == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(ControlError::Version { ours: PROTOCOL_VERSION, theirs })
    }
}

/// A client's connection to a supervisor.
pub struct Control {
    stream: UnixStream,
}

impl Control {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        let mut stream = UnixStream::connect(path)
            .map_err(|source| ControlError::Connect { path: path.display().to_string(), source })?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        exchange_versions(&mut stream)?;
        Ok(Self { stream })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ControlError`]; a refusal is [`ControlError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ControlError> {
        send(&mut self.stream, request)?;
        match receive(&mut self.stream)? {
            Reply::Refused(why) => Err(ControlError::Refused(why)),
            reply => Ok(reply),
        }
    }

    /// As [`Control::ask`], for what may take long.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn ask_patiently(&mut self, request: &Request, patience: Duration) -> Result<Reply, ControlError> {
        self.stream.set_read_timeout(Some(patience))?;
        self.ask(request)
    }

    /// Asks for the VM's state.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn status(&mut self) -> Result<VmStatus, ControlError> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            _ => Err(ControlError::Malformed),
        }
    }

    /// Asks the VMM about the guest.
    ///
    /// # Errors
    /// [`ControlError`]; a refusal is [`ControlError::Refused`].
    pub fn inspect(&mut self, what: Inspect) -> Result<Inspected, ControlError> {
        match self.ask(&Request::Inspect(what))? {
            Reply::Inspected(Inspected::Refused(why)) => Err(ControlError::Refused(why)),
            Reply::Inspected(answer) => Ok(answer),
            _ => Err(ControlError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cross_a_socket_and_nonsense_is_refused() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        send(&mut a, &Request::Attach { role: Role::Vmm, pid: 1, server: "s".into(), build: "b".into() })
            .unwrap();
        assert!(matches!(receive::<Request>(&mut b).unwrap(), Request::Attach { pid: 1, .. }));
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(receive::<Request>(&mut b), Err(ControlError::Malformed)));
        a.write_all(&[1, 0, 0, 0, 0xff]).unwrap();
        assert!(matches!(receive::<Request>(&mut b), Err(ControlError::Malformed)));
    }

    #[test]
    fn a_version_mismatch_names_both() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        b.write_all(&99u32.to_le_bytes()).unwrap();
        let error = exchange_versions(&mut a).unwrap_err().to_string();
        assert!(error.contains("99") && error.contains(&PROTOCOL_VERSION.to_string()), "{error}");
    }
}
