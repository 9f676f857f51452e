//! A raw image in a file.

use super::{BlockDevice, check_range};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an image file cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("Image {} does not exist; create it or correct the path", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a pipe, a device or a socket.
    #[error("Image {} is not a regular file; give the path of a raw disk image", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read by this user.
    #[error("No permission to read image {}; give this user read access to it", path.display())]
    NotReadable {
        /// The file.
        path: PathBuf,
    },
    /// The file can be read but not written, and the drive is not configured as read-only.
    #[error("No permission to write image {}; make the file writable or the drive read-only", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
    },
    /// The host refused for another reason.
    #[error("Image {} cannot be opened: {source}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
}

/// A raw image: the bytes of the medium, in order, in a regular file.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    name: String,
    len: u64,
    read_only: bool,
    /// The last write failed and that has been reported. A guest repeats failed writes many
    /// times; the log says it once until a write succeeds again.
    write_failed: bool,
}

impl RawFile {
    /// Opens an existing image.
    ///
    /// # Errors
    /// [`ImageError`], which says what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, ImageError> {
        let refuse = |source: io::Error, writing: bool| {
            let path = path.to_path_buf();
            match source.kind() {
                io::ErrorKind::NotFound => ImageError::Missing { path },
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writing => {
                    ImageError::NotWritable { path }
                }
                io::ErrorKind::PermissionDenied => ImageError::NotReadable { path },
                _ => ImageError::Host { path, source },
            }
        };
        // Looked at before opening: opening a pipe would wait for its other end.
        let metadata = fs::metadata(path).map_err(|e| refuse(e, false))?;
        if !metadata.is_file() {
            return Err(ImageError::NotAFile { path: path.to_path_buf() });
        }
        let mut file = File::open(path).map_err(|e| refuse(e, false))?;
        if !read_only {
            file = File::options().read(true).write(true).open(path).map_err(|e| refuse(e, true))?;
        }
        let len = file.metadata().map_err(|e| refuse(e, false))?.len();
        Ok(Self { file, name: path.display().to_string(), len, read_only, write_failed: false })
    }

    fn report(&mut self, what: &str, outcome: io::Result<()>) -> io::Result<()> {
        match &outcome {
            Ok(()) => self.write_failed = false,
            Err(error) if !self.write_failed => {
                self.write_failed = true;
                tracing::error!(image = %self.name, %error, "{what} failed; the guest sees a drive error");
            }
            Err(_) => {}
        }
        outcome
    }
}

impl BlockDevice for RawFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        check_range(self.len, offset, buffer.len())?;
        let outcome = self.file.read_exact_at(buffer, offset);
        if let Err(error) = &outcome {
            tracing::warn!(image = %self.name, offset, %error, "Reading the image failed");
        }
        outcome
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(self.len, offset, data.len())?;
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let outcome = self.file.write_all_at(data, offset);
        self.report("Writing the image", outcome)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let outcome = self.file.sync_data();
        self.report("Flushing the image", outcome)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}
