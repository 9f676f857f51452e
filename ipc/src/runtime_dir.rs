//! The private directory where running VMs are found: lock, control socket and logs of each.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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

/// Where the current user's VMs are.
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Finds or makes `$XDG_RUNTIME_DIR/vmsim`, else `vmsim-UID` in the system's temporary directory.
    ///
    /// # Errors
    /// [`RuntimeDirError`].
    pub fn open() -> Result<Self, RuntimeDirError> {
        let uid = rustix::process::getuid().as_raw();
        let path = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_dir() => PathBuf::from(dir).join("vmsim"),
            _ => std::env::temp_dir().join(format!("vmsim-{uid}")),
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
        let stale = match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => return Err(io(error)),
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.lock_path())
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(RuntimeDirError::Running(self.name.clone()));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
        }
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
