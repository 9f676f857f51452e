//! The control socket's server side, and signals.

use super::Event;
use crossbeam::channel::{Sender, bounded};
use ipc::control::{self, Reply, Request};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// A client that is silent this long is let go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Listens on `path` (mode 0600) and turns what clients ask into events.
pub fn listen(path: &Path, events: Sender<Event>) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let events = events.clone();
            std::thread::spawn(move || serve(stream, &events));
        }
    });
    Ok(())
}

fn serve(mut stream: UnixStream, events: &Sender<Event>) {
    // The directory is private already; this also holds where somebody opened it up.
    let owner = rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.uid);
    if owner != Ok(rustix::process::getuid()) {
        return;
    }
    if stream.set_read_timeout(Some(IDLE_TIMEOUT)).is_err()
        || control::exchange_versions(&mut stream).is_err()
    {
        return;
    }
    while let Ok(request) = control::receive::<Request>(&mut stream) {
        let (sender, answer) = bounded(1);
        if events.send(Event::Request(request, sender)).is_err() {
            return;
        }
        let reply = answer.recv().unwrap_or_else(|_| Reply::Refused("The VM is ending".into()));
        if control::send(&mut stream, &reply).is_err() {
            return;
        }
    }
}

/// Turns the signals that ask a program to end into events.
pub fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Interrupted).is_err() {
                return;
            }
        }
    });
    Ok(())
}
