//! Disk images: what the drive models read and write.
//!
//! A [`BlockDevice`] is an array of bytes on the host. It keeps no cache of its own: a write has
//! been handed to the host's kernel when [`BlockDevice::write_at`] returns, so killing this process
//! at any instruction loses nothing that the guest was told is written.

mod file;
mod geometry;
mod memory;

pub use file::{ImageError, RawFile};
pub use geometry::{DataRate, FloppyFormat, GeometryError, SECTOR_BYTES, disk_geometry};
pub use memory::MemoryImage;

use std::io;

/// The medium of a drive, addressed by byte.
///
/// Implementations report failed writes themselves (they know the file's name); the models turn
/// the error into what the drive reports to the guest.
pub trait BlockDevice: Send {
    /// What to call it in messages: the path of the file.
    fn name(&self) -> &str;

    /// Size in bytes; it never changes.
    fn len(&self) -> u64;

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the host answered, or `InvalidInput` when the range is not inside the image.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`; the host's kernel has it when this returns.
    ///
    /// # Errors
    /// What the host answered, `InvalidInput` when the range is not inside the image, or
    /// `PermissionDenied` when the image is read-only.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Waits until all writes are on stable storage (they survive a crash of the host).
    ///
    /// # Errors
    /// What the host answered.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;
}

/// Refuses a range that is not inside an image of `len` bytes.
fn check_range(len: u64, offset: u64, count: usize) -> io::Result<()> {
    match offset.checked_add(count as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "range outside the image")),
    }
}

#[cfg(test)]
mod tests;
