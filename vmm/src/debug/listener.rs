//! Where debuggers connect: accepts connections and hands what they send to the monitor.

use super::session::Stream;
use super::{Bell, Event};
use ipc::inspect::Listen;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A debugger that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes read at once.
const READ_BYTES: usize = 4096;

/// Numbers of connections.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Stream for TcpStream {
    fn close(&self) {
        // The debugger may have closed it.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn close(&self) {
        // As above.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// Listens; says where, in the form that GDB's `target remote` takes. `default` is the socket for
/// [`Listen::Default`].
pub fn listen(at: &Listen, default: &Path, bell: Bell) -> io::Result<String> {
    match at {
        Listen::Default => listen_unix(default, bell),
        Listen::Unix(path) => listen_unix(path, bell),
        Listen::Tcp(port) => {
            // Never another address: whoever connects can do anything to the guest.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
            let address = listener.local_addr()?.to_string();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let prepared = stream
                        .set_nodelay(true)
                        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
                        .and_then(|()| stream.try_clone());
                    if let Ok(writer) = prepared {
                        serve(stream, Box::new(writer), &bell);
                    }
                }
            });
            Ok(address)
        }
    }
}

/// Binds a socket in the place of one that nobody listens to any more, as a VM that ended leaves it behind.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let is_left_over = || {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        is_socket && UnixStream::connect(path).is_err_and(refused)
    };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over() => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn listen_unix(path: &Path, bell: Bell) -> io::Result<String> {
    let listener = bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let prepared = stream.set_write_timeout(Some(WRITE_TIMEOUT)).and_then(|()| stream.try_clone());
            if let Ok(writer) = prepared {
                serve(stream, Box::new(writer), &bell);
            }
        }
    });
    Ok(path.display().to_string())
}

/// Announces a connection, and reads it in a thread of its own until it ends.
fn serve(mut stream: impl Read + Send + 'static, writer: Box<dyn Stream>, bell: &Bell) {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let bell = bell.clone();
    if !bell.ring(Event::Connected(id, writer)) {
        return;
    }
    std::thread::spawn(move || {
        let mut buffer = [0; READ_BYTES];
        loop {
            match stream.read(&mut buffer) {
                Ok(len) if len > 0 => {
                    if !bell.ring(Event::Received(id, buffer[..len].to_vec())) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The end, whatever the reason.
                _ => {
                    bell.ring(Event::Closed(id));
                    return;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let [socket, file] = ["socket", "file"].map(|name| folder.path().join(name));
        std::fs::write(&file, "mine").unwrap();
        assert!(bind(&file).is_err() && file.is_file());
        let listener = bind(&socket).unwrap();
        assert!(bind(&socket).is_err(), "somebody listens there");
        drop(listener);
        assert!(bind(&socket).is_ok());
    }
}
