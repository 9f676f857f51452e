//! The private directory where running VMs are found: lock, control socket and logs of each.

use crate::segment::SegmentNames;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why the directory or a VM's place in it could not be had.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// It belongs to somebody else or is open to others.
    #[error("{path} must be a directory of mode 0700 that belongs to you: remove it or set XDG_RUNTIME_DIR")]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// A VM of that name runs.
    #[error("A VM named '{0}' is running already: choose another --name, or end it with 'vmsim stop {0}'")]
    Running(String),
    /// The name is not one.
    #[error("'{0}' is not a VM name: use 1 to 32 of a-z, 0-9 and '-', not starting with '-'")]
    BadName(String),
    /// The system refused.
    #[error("Cannot use {path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How long a lock that somebody holds is tried again: long enough for those who only look.
const PATIENCE: Duration = Duration::from_millis(300);

/// Where the current user's VMs are.
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Finds or makes `$XDG_RUNTIME_DIR/vmsim`, else `/tmp/vmsim-UID`.
    ///
    /// # Errors
    /// [`RuntimeDirError`].
    pub fn open() -> Result<Self, RuntimeDirError> {
        let uid = rustix::process::getuid().as_raw();
        let path = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_dir() => PathBuf::from(dir).join("vmsim"),
            // Not TMPDIR: all processes of a VM must find the same place, and the supervisor gives
            // its children a TMPDIR of their own.
            _ => Path::new("/tmp").join(format!("vmsim-{uid}")),
        };
        Self::at(path)
    }

    /// The same at a path of one's own.
    ///
    /// # Errors
    /// [`RuntimeDirError`].
    pub fn at(path: PathBuf) -> Result<Self, RuntimeDirError> {
        let io = |source| RuntimeDirError::Io { path: path.clone(), source };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        let meta = std::fs::symlink_metadata(&path).map_err(io)?;
        let private =
            meta.is_dir() && meta.mode() & 0o077 == 0 && meta.uid() == rustix::process::getuid().as_raw();
        if private { Ok(Self { path }) } else { Err(RuntimeDirError::NotPrivate { path }) }
    }

    /// The place of the VM `name`, whether it exists or not.
    ///
    /// # Errors
    /// [`RuntimeDirError::BadName`].
    pub fn vm(&self, name: &str) -> Result<VmDir, RuntimeDirError> {
        let good = (1..=32).contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            Ok(VmDir { name: name.into(), path: self.path.join(name) })
        } else {
            Err(RuntimeDirError::BadName(name.into()))
        }
    }

    /// Names of the VMs that have a place here, running or left over, sorted.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| self.vm(name).is_ok_and(|vm| vm.path.is_dir()))
            .collect();
        names.sort();
        names
    }
}

/// The place of one VM.
#[derive(Clone, Debug)]
pub struct VmDir {
    name: String,
    path: PathBuf,
}

/// Held by the supervisor while the VM lives; released by the system when it dies.
#[derive(Debug)]
pub struct VmLock {
    _file: File,
}

impl VmDir {
    /// The VM's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control")
    }

    /// Where a debugger of its guest connects, unless another place is chosen.
    pub fn debug_socket(&self) -> PathBuf {
        self.path.join("gdb")
    }

    /// The other end of serial port `number` (1 is COM1), unless another place is chosen: a socket, or
    /// a link to a pseudo-terminal.
    pub fn serial(&self, number: usize) -> PathBuf {
        self.path.join(format!("serial{number}"))
    }

    /// The log of one of its processes.
    pub fn log(&self, process: &str) -> PathBuf {
        self.path.join(format!("{process}.log"))
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Takes the place for a new VM, removing what a crashed one left. Returns the lock and
    /// whether something was left over.
    ///
    /// # Errors
    /// [`RuntimeDirError::Running`] while a VM of that name lives.
    pub fn take(&self) -> Result<(VmLock, bool), RuntimeDirError> {
        let io = |source| RuntimeDirError::Io { path: self.path.clone(), source };
        let deadline = Instant::now() + PATIENCE;
        let (file, stale) = loop {
            let stale = match DirBuilder::new().mode(0o700).create(&self.path) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
                Err(error) => return Err(io(error)),
            };
            match self.try_take() {
                Ok(Some(file)) => break (file, stale),
                // Somebody looks at the lock, or removes what is left of a VM.
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err(RuntimeDirError::Running(self.name.clone())),
                Err(error) => return Err(io(error)),
            }
        };
        if stale {
            for entry in std::fs::read_dir(&self.path).map_err(io)?.flatten() {
                if entry.path() != self.lock_path() {
                    // What cannot be removed is found by whoever needs its name.
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        Ok((VmLock { _file: file }, stale))
    }

    /// Tries to lock the place; `None` when somebody holds it or has just removed it.
    fn try_take(&self) -> io::Result<Option<File>> {
        let path = self.lock_path();
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        // Between the two, the file may have been removed: then another one is the lock now.
        let same = std::fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|f| f.ino() == m.ino()));
        Ok(same.then_some(file))
    }

    /// Removes the VM's segments and its place, unless a supervisor holds it. For processes that
    /// find their supervisor gone: by then a new VM of the same name may have been started.
    pub fn remove_abandoned(&self, names: &SegmentNames) {
        let deadline = Instant::now() + PATIENCE;
        while self.lock_path().exists() {
            if let Ok(Some(_lock)) = self.try_take() {
                names.remove_all();
                self.remove();
                return;
            }
            // The dying supervisor's lock may go a moment after its channels.
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether a supervisor holds the place.
    pub fn is_running(&self) -> bool {
        let Ok(file) = File::open(self.lock_path()) else { return false };
        matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// Removes the place and all in it. Safe to call by several processes at once.
    pub fn remove(&self) {
        // Whoever comes second finds nothing: not an error.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_private_exclusive_and_reusable_after_a_crash() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(parent.path().join("run")).unwrap();
        assert_eq!(std::fs::metadata(parent.path().join("run")).unwrap().mode() & 0o777, 0o700);
        let vm = dir.vm("dos").unwrap();
        let (lock, stale) = vm.take().unwrap();
        assert!(!stale && vm.is_running());
        assert!(matches!(vm.take(), Err(RuntimeDirError::Running(_))));
        std::fs::write(vm.socket(), "left over").unwrap();
        drop(lock);
        assert!(!vm.is_running());
        assert_eq!(dir.names(), ["dos"]);
        let (_lock, stale) = vm.take().unwrap();
        assert!(stale && !vm.socket().exists());
        vm.remove();
        assert!(dir.names().is_empty());
    }

    #[test]
    fn what_is_abandoned_is_removed_and_what_a_new_vm_holds_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(parent.path().join("run")).unwrap();
        let name = format!("gone{}", std::process::id());
        let names = SegmentNames::new(&name);
        let vm = dir.vm(&name).unwrap();
        let (lock, _) = vm.take().unwrap();
        let segment = crate::segment::Segment::create(&names.ram(), 4096).unwrap();
        vm.remove_abandoned(&names);
        assert!(vm.is_running() && crate::segment::Segment::open(&names.ram()).is_ok());
        drop(lock);
        vm.remove_abandoned(&names);
        assert!(!vm.path().exists() && crate::segment::Segment::open(&names.ram()).is_err());
        drop(segment);
        let (_lock, stale) = vm.take().unwrap();
        assert!(!stale);
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(parent.path().join("run")).unwrap();
        for bad in ["", "..", "a/b", "-x", "A", "a b", "abcdefghijklmnopqrstuvwxyz0123456789"] {
            assert!(dir.vm(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(RuntimeDir::at(path), Err(RuntimeDirError::NotPrivate { .. })));
    }
}
