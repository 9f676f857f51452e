//! The device that does what a test tells it (`src/bin/toy_device.rs`).

use crate::home::Home;
use std::path::{Path, PathBuf};

/// One build of the toy device: a link to its executable, with files beside it that tell it what to do.
pub struct Toy {
    exe: PathBuf,
}

impl Toy {
    /// A build of its own in `home`, with states of `version`.
    pub fn new(home: &Home, name: &str, version: u32) -> Self {
        let exe = home.file(name);
        std::os::unix::fs::symlink(Home::built("toy-device"), &exe).expect("a link");
        let toy = Self { exe };
        std::fs::write(toy.beside("version"), version.to_string()).expect("a file");
        toy
    }

    /// Where the executable is.
    pub fn exe(&self) -> String {
        self.exe.display().to_string()
    }

    /// What `--device` takes to have it as device process `toy`.
    pub fn option(&self) -> String {
        format!("toy={}", self.exe())
    }

    fn beside(&self, name: &str) -> PathBuf {
        Path::new(&format!("{}.{name}", self.exe())).into()
    }

    /// Tells it what to do from now on.
    pub fn tell(&self, what: &str) {
        // At once: it may look at any moment.
        let new = self.beside("new");
        std::fs::write(&new, what).expect("a file");
        std::fs::rename(new, self.beside("do")).expect("a file");
    }

    /// What it said of its starts.
    pub fn seen(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.beside("seen")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
