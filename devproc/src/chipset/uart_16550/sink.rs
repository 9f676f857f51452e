//! What is at the other end of the cable.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Takes the characters that a UART sends.
pub trait SerialSink: Send {
    /// Takes one character. Failures are the sink's to report.
    fn write(&mut self, byte: u8);

    /// Whether somebody is there: CTS, DSR and DCD follow.
    fn connected(&self) -> bool {
        true
    }
}

/// Nothing is connected: characters are lost, the modem lines are inactive.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl SerialSink for NullSink {
    fn write(&mut self, _byte: u8) {}

    fn connected(&self) -> bool {
        false
    }
}

/// Appends to a file.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    path: PathBuf,
    failing: bool,
}

impl FileSink {
    /// Opens `path` for appending; creates it when it is missing.
    ///
    /// # Errors
    /// What the host's file system says.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, path: path.to_owned(), failing: false })
    }
}

impl SerialSink for FileSink {
    fn write(&mut self, byte: u8) {
        // Unbuffered: what the guest printed last matters most when something dies.
        match self.file.write_all(&[byte]) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Once for each spell of failure, not once for each character.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("Cannot write serial output to {}: {error}", self.path.display());
                }
            }
        }
    }
}
