//! The far ends of the serial cables: a Unix socket or a pseudo-terminal per port, held by the supervisor so
//! that connections outlive the process with the UARTs.
//!
//! Two threads per port move characters between there and shared memory. They know nothing of UARTs.

use super::Event;
use anyhow::{Context, Result};
use crossbeam::channel::Sender;
use ipc::control::SerialStatus;
use ipc::machine::SerialBackend;
use ipc::serial::{PORTS, SerialCables};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Output kept for whoever connects next.
const KEPT_OUTPUT: usize = 64 << 10;
/// Output kept for a peer that is slow to read; more pushes the oldest out.
const SLOW_OUTPUT: usize = 1 << 20;
/// How soon is looked again whether the guest takes input.
const FULL_LOOK: Duration = Duration::from_millis(20);
/// How soon is looked again whether somebody has opened the pseudo-terminal.
const OPEN_LOOK: Duration = Duration::from_millis(20);
/// Longest sleep of either thread.
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// After output, for so many rounds of a millisecond more is looked for without being called.
const BUSY_ROUNDS: u32 = 20;
const ROUND: Duration = Duration::from_millis(1);
/// How long the last output may take to be read when the VM ends.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// All serial ports of a VM that have a cable.
pub struct SerialPorts {
    ports: Vec<Port>,
    writers: Vec<JoinHandle<()>>,
    /// Sockets outside the VM's directory, to be removed.
    sockets: Vec<PathBuf>,
}

struct Port {
    shared: Arc<PortShared>,
    path: PathBuf,
    terminal: Option<PathBuf>,
}

/// What the two threads of a port share.
struct PortShared {
    cables: Arc<SerialCables>,
    number: usize,
    /// Who is connected: both threads use it, the reader decides.
    peer: Mutex<Option<Arc<OwnedFd>>>,
    /// What the guest has sent. Whoever moves characters of it has it locked: each is in one place.
    output: Mutex<Output>,
    closing: AtomicBool,
    events: Sender<Event>,
}

/// What the guest has sent and nobody has read.
#[derive(Default)]
struct Output {
    waiting: VecDeque<u8>,
    /// It stays where it is: what is written into the file of a saved VM is not given to anybody else.
    held: bool,
}

impl SerialPorts {
    /// Makes sockets and pseudo-terminals and starts moving characters. Whoever connects first to a port is given what is in
    /// `held` for it.
    pub fn open(
        backends: &[SerialBackend],
        held: Vec<Vec<u8>>,
        cables: &Arc<SerialCables>,
        events: &Sender<Event>,
    ) -> Result<Self> {
        let mut held = held.into_iter();
        let mut all = Self { ports: Vec::new(), writers: Vec::new(), sockets: Vec::new() };
        for (number, backend) in backends.iter().enumerate() {
            let label = || format!("Serial port COM{}", number + 1);
            let waiting = held.next().unwrap_or_default().into();
            let shared = Arc::new(PortShared {
                cables: cables.clone(),
                number,
                peer: Mutex::new(None),
                output: Mutex::new(Output { waiting, held: false }),
                closing: AtomicBool::new(false),
                events: events.clone(),
            });
            let reader = shared.clone();
            let (path, terminal) = match backend {
                SerialBackend::Socket(path) => {
                    let listener =
                        listen(path).with_context(|| format!("{}: socket {}", label(), path.display()))?;
                    all.sockets.push(path.clone());
                    std::thread::spawn(move || reader.serve_socket(&listener));
                    (path.clone(), None)
                }
                SerialBackend::Pty(link) => {
                    let (master, terminal) =
                        open_pty(link).with_context(|| format!("{}: pseudo-terminal", label()))?;
                    all.sockets.push(link.clone());
                    std::thread::spawn(move || reader.serve_pty(&Arc::new(master)));
                    (link.clone(), Some(terminal))
                }
                SerialBackend::Unconnected | SerialBackend::Absent | SerialBackend::File(_) => continue,
            };
            let writer = shared.clone();
            all.writers.push(std::thread::spawn(move || writer.deliver()));
            all.ports.push(Port { shared, path, terminal });
        }
        Ok(all)
    }

    /// For `vmsim ps` and `vmsim serial`.
    pub fn status(&self) -> Vec<SerialStatus> {
        let status = |port: &Port| SerialStatus {
            number: port.shared.number as u8 + 1,
            path: port.path.clone(),
            terminal: port.terminal.clone(),
            connected: port.shared.peer().is_some(),
        };
        self.ports.iter().map(status).collect()
    }

    /// Keeps what the guest has sent from those who are connected, until [`SerialPorts::go_on`]; returns what of it is not on the
    /// cables any more, by port. Until then nothing is taken off the cables either.
    pub fn hold(&self) -> [Vec<u8>; PORTS] {
        let mut held = [const { Vec::new() }; PORTS];
        for Port { shared, .. } in &self.ports {
            let mut output = shared.output();
            output.held = true;
            if let Some(place) = held.get_mut(shared.number) {
                *place = output.waiting.iter().copied().collect();
            }
        }
        held
    }

    /// Gives what the guest has sent to those who are connected again.
    pub fn go_on(&self) {
        for Port { shared, .. } in &self.ports {
            shared.output().held = false;
            shared.cables.wake(shared.number);
        }
    }
}

impl Drop for SerialPorts {
    /// Gives the last output to who is connected, unless it is held, and hangs up.
    fn drop(&mut self) {
        for Port { shared, .. } in &self.ports {
            shared.closing.store(true, Ordering::Release);
            shared.cables.wake(shared.number);
        }
        for writer in self.writers.drain(..) {
            // A thread that panicked has said so.
            let _ = writer.join();
        }
        for Port { shared, .. } in &self.ports {
            shared.set_peer(None);
        }
        for socket in &self.sockets {
            // Those in the VM's directory may be gone with it.
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl PortShared {
    fn peer(&self) -> Option<Arc<OwnedFd>> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of who is connected, and tells guest and writer.
    fn set_peer(&self, peer: Option<Arc<OwnedFd>>) {
        self.cables.set_connected(self.number, peer.is_some());
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = peer;
        self.cables.wake(self.number);
        self.tell_device();
    }

    fn tell_device(&self) {
        // The supervisor's loop may have ended.
        let _ = self.events.send(Event::Serial);
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Reads from `peer` as much as the guest has room for; false at the end of what it sends.
    fn take_input(&self, peer: &OwnedFd) -> bool {
        let mut buffer = [0; 1024];
        let room = self.cables.room(self.number).min(buffer.len());
        if room == 0 {
            return true;
        }
        match rustix::io::read(peer, &mut buffer[..room]) {
            Ok(0) => false,
            Ok(count) => {
                // There is room: only this thread fills it.
                self.cables.offer(self.number, &buffer[..count]);
                self.tell_device();
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn serve_socket(&self, listener: &UnixListener) {
        let mut peer: Option<Arc<OwnedFd>> = None;
        // Whether the peer may still send; one that does not may still listen.
        let mut sends = true;
        while !self.closing() {
            let full = self.cables.room(self.number) == 0;
            let (at_listener, at_peer) = wait_for(listener, peer.as_ref(), sends && !full);
            if let Some(current) = &peer {
                let left = at_peer.intersects(PollFlags::HUP | PollFlags::ERR);
                if at_peer.contains(PollFlags::IN) && sends && !full && !self.take_input(current) {
                    sends = false;
                    continue;
                }
                // What it sent before it left still counts.
                if left && (!sends || !at_peer.contains(PollFlags::IN)) {
                    if full && sends {
                        std::thread::sleep(FULL_LOOK);
                        continue;
                    }
                    peer = None;
                    self.set_peer(None);
                    continue;
                }
            }
            if at_listener
                && let Ok((stream, _)) = listener.accept()
                && peer.is_none()
                && let Some(stream) = admit(stream)
            {
                let stream = Arc::new(stream);
                peer = Some(stream.clone());
                sends = true;
                self.set_peer(Some(stream));
            }
        }
    }

    fn serve_pty(&self, master: &Arc<OwnedFd>) {
        let mut open = false;
        while !self.closing() {
            let full = self.cables.room(self.number) == 0;
            let wanted = if full { PollFlags::empty() } else { PollFlags::IN };
            let mut fds = [PollFd::new(master, wanted)];
            let ready = poll(&mut fds, Some(&timespec(if full { FULL_LOOK } else { IDLE_LOOK })));
            let state = if ready.is_ok() { fds[0].revents() } else { PollFlags::empty() };
            let now_open = !state.contains(PollFlags::HUP);
            if now_open != open {
                open = now_open;
                self.set_peer(open.then(|| master.clone()));
            }
            if state.contains(PollFlags::IN) {
                // The end of it is a terminal that was closed.
                let _ = self.take_input(master);
            } else if !open {
                std::thread::sleep(OPEN_LOOK);
            }
        }
    }

    /// The writer: gives to the peer what the guest sends. Never waits for it for long, so that the guest is
    /// not held up.
    fn deliver(&self) {
        let mut quiet = 0;
        let mut closing_since = None;
        loop {
            let peer = self.peer();
            let mut output = self.output();
            if output.held {
                drop(output);
                if self.closing() {
                    return;
                }
                std::thread::sleep(ROUND);
                continue;
            }
            let waiting = &mut output.waiting;
            let came = self.cables.collect(self.number, waiting);
            let limit = if peer.is_some() { SLOW_OUTPUT } else { KEPT_OUTPUT };
            if waiting.len() > limit {
                waiting.drain(..waiting.len() - limit);
            }
            let written = match &peer {
                Some(peer) if !waiting.is_empty() => {
                    Some((peer, rustix::io::write(&**peer, waiting.as_slices().0)))
                }
                _ => None,
            };
            if let Some((_, Ok(count))) = written {
                waiting.drain(..count);
            }
            let waits = !waiting.is_empty();
            drop(output);
            if self.closing() {
                let since = *closing_since.get_or_insert_with(Instant::now);
                if !waits || peer.is_none() || since.elapsed() > LAST_WORDS {
                    return;
                }
            }
            quiet = if came > 0 { 0 } else { quiet + 1 };
            match written {
                Some((_, Ok(_))) => {}
                Some((peer, Err(rustix::io::Errno::AGAIN))) => {
                    let mut fds = [PollFd::new(&**peer, PollFlags::OUT)];
                    // Time-out or not, it is tried again.
                    let _ = poll(&mut fds, Some(&timespec(FULL_LOOK)));
                }
                // The reader will find that it has left.
                Some((_, Err(_))) => std::thread::sleep(ROUND),
                None if quiet < BUSY_ROUNDS => std::thread::sleep(ROUND),
                None => {
                    let news = || self.closing() || waits && self.peer().is_some();
                    self.cables.sleep(self.number, IDLE_LOOK, news);
                }
            }
        }
    }
}

/// Waits until somebody connects or the peer does something: whether at the listener, and what at the
/// peer.
fn wait_for(listener: &UnixListener, peer: Option<&Arc<OwnedFd>>, reads: bool) -> (bool, PollFlags) {
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    if let Some(peer) = peer {
        fds.push(PollFd::new(&**peer, if reads { PollFlags::IN } else { PollFlags::empty() }));
    }
    let patience = if peer.is_some() && !reads { FULL_LOOK } else { IDLE_LOOK };
    if poll(&mut fds, Some(&timespec(patience))).is_err() {
        return (false, PollFlags::empty());
    }
    let at_peer = fds.get(1).map_or(PollFlags::empty(), PollFd::revents);
    (fds[0].revents().contains(PollFlags::IN), at_peer)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as _, tv_nsec: duration.subsec_nanos().into() }
}

/// Lets a client of the same user in.
fn admit(stream: UnixStream) -> Option<OwnedFd> {
    let owner = rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.uid);
    let mine = owner == Ok(rustix::process::getuid());
    (mine && stream.set_nonblocking(true).is_ok()).then(|| stream.into())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            // What a VM that crashed left behind; anything but a socket stays.
            if !is_socket(path) {
                return Err(io::Error::new(error.kind(), "the file exists and is no socket"));
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// A pseudo-terminal in raw mode, closed at the guest's far end, and where it is.
fn open_pty(link: &Path) -> Result<(OwnedFd, PathBuf)> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    // Opened and closed once, it says from now on whether somebody has it open.
    let slave =
        rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    let mut modes = rustix::termios::tcgetattr(&slave)?;
    modes.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
    drop(slave);
    let flags = rustix::fs::fcntl_getfl(master.as_fd())?;
    rustix::fs::fcntl_setfl(master.as_fd(), flags | OFlags::NONBLOCK)?;
    std::os::unix::fs::symlink(&path, link).with_context(|| format!("link {}", link.display()))?;
    Ok((master, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::segment::SegmentNames;
    use std::io::Read;

    /// COM1 with a socket in `folder`, and what was kept for its first client.
    fn ports(folder: &Path, part: &str, held: &[u8]) -> (SerialPorts, Arc<SerialCables>, SegmentNames) {
        let names = SegmentNames::new(&format!("ports{}{part}", std::process::id()));
        let cables = Arc::new(SerialCables::create(&names.serial()).unwrap());
        let backends = [SerialBackend::Socket(folder.join("com1")), SerialBackend::Unconnected];
        // Nobody listens.
        let (events, _) = crossbeam::channel::unbounded();
        (SerialPorts::open(&backends, vec![held.to_vec()], &cables, &events).unwrap(), cables, names)
    }

    fn connect(ports: &SerialPorts) -> UnixStream {
        let client = UnixStream::connect(&ports.ports[0].path).unwrap();
        while !ports.status()[0].connected {
            std::thread::sleep(ROUND);
        }
        client
    }

    /// The guest sends it.
    fn send(cables: &SerialCables, data: &[u8]) {
        for (at, byte) in (0..).zip(data) {
            while !cables.put(0, at, *byte) {
                std::thread::sleep(ROUND);
            }
            cables.set_sent(0, at + 1);
        }
    }

    /// More than the socket has room for.
    fn stream() -> Vec<u8> {
        (0..400_000u32).map(|n| (n ^ n >> 8) as u8).collect()
    }

    #[test]
    fn what_is_held_for_a_saved_vm_is_given_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (ports, cables, names) = ports(folder.path(), "a", b"");
        let mut client = connect(&ports);
        send(&cables, &stream());

        let [held, _] = ports.hold();
        let under_way = cables.under_way().swap_remove(0).output;
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).map(|_| got)
        });
        // Long enough for a writer that does not hold it.
        std::thread::sleep(LAST_WORDS);
        drop(ports);

        let got = reading.join().unwrap().unwrap();
        assert!(!got.is_empty() && !held.is_empty(), "{} and {} characters", got.len(), held.len());
        assert!([got, held, under_way].concat() == stream(), "a gap or a repetition");
        names.remove_all();
    }

    #[test]
    fn a_vm_that_goes_on_gives_everything_to_its_client() {
        let folder = tempfile::tempdir().unwrap();
        let (ports, cables, names) = ports(folder.path(), "b", b"kept ");
        let mut client = connect(&ports);
        send(&cables, &stream());
        ports.hold();
        ports.go_on();
        let mut got = vec![0; 5 + stream().len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == [b"kept ".to_vec(), stream()].concat());
        names.remove_all();
    }
}
