//! The surroundings of one test: a private runtime directory, files, and the program.

use crate::process::with_argument;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// A command that takes longer than this hangs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Panics unless the command succeeded; returns its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "the command failed: {}{}", self.out, self.err);
        self.out
    }

    /// Panics unless the command failed with one line on standard error; returns that line.
    #[track_caller]
    pub fn one_line_error(self) -> String {
        assert_eq!(self.code, Some(1), "out: {} err: {}", self.out, self.err);
        assert_eq!(self.err.trim_end().lines().count(), 1, "not one line: {:?}", self.err);
        assert!(self.err.starts_with("vmsim: "), "{:?}", self.err);
        assert!(!self.err.contains("panicked"), "{:?}", self.err);
        assert_eq!(self.out, "");
        self.err.trim_end().into()
    }
}

/// The surroundings of one test. Dropping it removes all files.
pub struct Home {
    folder: tempfile::TempDir,
    display: Option<String>,
    has_runtime_dir: bool,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// New, empty surroundings.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vmsim-test-").tempdir().expect("a temporary folder");
        for name in ["run", "tmp", "state", "files"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self { folder, display: None, has_runtime_dir: true }
    }

    /// Commands get the X server `display` in their environment from now on, or none.
    pub fn set_display(&mut self, display: Option<&str>) {
        self.display = display.map(str::to_owned);
    }

    /// Commands get no `$XDG_RUNTIME_DIR` from now on, as in a shell without a login session.
    pub fn remove_runtime_dir(&mut self) {
        self.has_runtime_dir = false;
    }

    /// A VM name that no other test has.
    pub fn fresh_name(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// A path for a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// A copy of `original`, which the guest may write.
    pub fn copy(&self, original: &Path) -> String {
        let copy = self.file(original.file_name().expect("a file").to_str().expect("a plain name"));
        // Not `fs::copy`, which would make a read-only copy of a read-only original.
        let bytes = std::fs::read(original).expect("the image");
        std::fs::write(&copy, bytes).expect("the copy of the image");
        copy.display().to_string()
    }

    /// A file with `bytes` in it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.file(name);
        std::fs::write(&path, bytes).expect("a file is written");
        path.display().to_string()
    }

    /// `$XDG_RUNTIME_DIR` of this test.
    pub fn runtime_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// `$TMPDIR` of this test.
    pub fn temporary_dir(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// `$XDG_STATE_HOME` of this test.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// An executable that was built with the tests.
    pub fn built(name: &str) -> PathBuf {
        let test = std::env::current_exe().expect("the path of the test program");
        // target/PROFILE/deps/TEST
        let path = test.ancestors().nth(2).expect("a folder of build results").join(name);
        assert!(path.is_file(), "{} is missing: run the tests with cargo", path.display());
        path
    }

    /// The program with its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Self::built("vmsim-under-test"));
        command
            .args(args)
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .env("TMPDIR", self.temporary_dir())
            .env("XDG_STATE_HOME", self.state_dir())
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("RUST_LOG")
            .envs(self.display.as_ref().map(|display| ("DISPLAY", display)))
            .stdin(Stdio::null());
        if !self.has_runtime_dir {
            command.env_remove("XDG_RUNTIME_DIR");
        }
        command
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn vmsim(&self, args: &[&str]) -> Said {
        run(self.command(args))
    }

    /// What is left of the VM `name`: processes, shared memory, its directory, temporary files.
    pub fn left_of(&self, name: &str) -> Vec<String> {
        let mut left: Vec<_> = with_argument(name).iter().map(|pid| format!("process {pid}")).collect();
        let prefix = format!("vmsim-{}-{name}-", rustix::process::getuid().as_raw());
        let files = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
        };
        left.extend(files(Path::new("/dev/shm")).into_iter().filter(|path| path.contains(&prefix)));
        let places = if self.has_runtime_dir {
            self.runtime_dir().join("vmsim")
        } else {
            Path::new("/tmp").join(format!("vmsim-{}", rustix::process::getuid().as_raw()))
        };
        let place = places.join(name);
        if place.exists() {
            left.push(place.display().to_string());
        }
        left
    }

    /// Files in `$TMPDIR`.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.temporary_dir()).expect("the temporary folder");
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or hangs.
#[track_caller]
pub fn run(mut command: Command) -> Said {
    let shown = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let pid = child.id();
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match output.recv_timeout(COMMAND_TIMEOUT) {
        Ok(Ok(Output { status, stdout, stderr })) => Said {
            code: status.code(),
            out: String::from_utf8_lossy(&stdout).into(),
            err: String::from_utf8_lossy(&stderr).into(),
        },
        Ok(Err(error)) => panic!("{shown}: {error}"),
        Err(_) => {
            crate::process::kill(pid);
            let said = output.recv_timeout(COMMAND_TIMEOUT).ok().and_then(Result::ok);
            let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
            panic!("{shown} hangs; it said:\n{}", String::from_utf8_lossy(&said));
        }
    }
}
