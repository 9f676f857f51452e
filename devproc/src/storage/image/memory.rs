//! An image in memory, for tests.

use super::{BlockDevice, check_range};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An image in memory. Clones share their bytes, as two openings of one file do.
#[derive(Clone, Debug)]
pub struct MemoryImage {
    bytes: Arc<Mutex<Vec<u8>>>,
    broken: Arc<AtomicBool>,
    read_only: bool,
}

impl MemoryImage {
    /// An image with these contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), broken: Arc::default(), read_only: false }
    }

    /// The same bytes behind a write-protect tab.
    #[must_use]
    pub fn write_protected(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// From now on every write fails (or no longer), as on a full host disk.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    /// A copy of `count` bytes from `offset` on; shorter when the image ends earlier.
    pub fn bytes(&self, offset: usize, count: usize) -> Vec<u8> {
        self.lock().iter().skip(offset).take(count).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockDevice for MemoryImage {
    fn name(&self) -> &str {
        "memory image"
    }

    fn len(&self) -> u64 {
        self.lock().len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.lock();
        check_range(bytes.len() as u64, offset, buffer.len())?;
        let start = offset as usize;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.lock();
        check_range(bytes.len() as u64, offset, data.len())?;
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = offset as usize;
        bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}
