//! Named shared memory and where its names come from.
//!
//! Segments are POSIX shared memory objects with mode 0600. Their names carry the user and the
//! VM, so that a process started by hand finds them, and so that what a crashed VM left behind
//! can be found and removed.

#![expect(unsafe_code)] // Mapping memory that other processes write is what this module is for.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::shm;
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::path::PathBuf;
use thiserror::Error;

/// Where the kernel shows POSIX shared memory objects as files.
const SHM_DIR: &str = "/dev/shm";

/// Names of one VM's segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNames {
    prefix: String,
}

impl SegmentNames {
    /// Names for the VM `vm` of the current user.
    pub fn new(vm: &str) -> Self {
        Self { prefix: format!("vmsim-{}-{vm}-", rustix::process::getuid().as_raw()) }
    }

    /// The board: lines, doorbells.
    pub fn board(&self) -> String {
        format!("{}board", self.prefix)
    }

    /// The panel: clock, process table.
    pub fn panel(&self) -> String {
        format!("{}panel", self.prefix)
    }

    /// Guest RAM.
    pub fn ram(&self) -> String {
        format!("{}ram", self.prefix)
    }

    /// The picture on the monitor.
    pub fn screen(&self) -> String {
        format!("{}screen", self.prefix)
    }

    /// The cables at the serial ports.
    pub fn serial(&self) -> String {
        format!("{}serial", self.prefix)
    }

    /// The link between the VMM and device process number `slot`.
    pub fn link(&self, slot: usize) -> String {
        format!("{}link{slot}", self.prefix)
    }

    /// Device memory of device process number `slot`.
    pub fn device_memory(&self, slot: usize) -> String {
        format!("{}devmem{slot}", self.prefix)
    }

    /// Removes every segment of this VM that exists; returns their names. Safe to call at any
    /// time after the VM ended, and by several processes at once.
    pub fn remove_all(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(SHM_DIR) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            // The suffix has no '-', so VM "a" never takes the segments of VM "a-b" for its own.
            .filter(|name| name.strip_prefix(&self.prefix).is_some_and(|rest| !rest.contains('-')))
            .filter(|name| std::fs::remove_file(PathBuf::from(SHM_DIR).join(name)).is_ok())
            .collect()
    }
}

/// Why a segment could not be had.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// A segment of that name exists already.
    #[error("Shared memory {0} exists already: another VM of that name runs, or crashed")]
    Exists(String),
    /// No room.
    #[error(
        "No room for {bytes} bytes of shared memory ({name}): free some in {SHM_DIR}, or give the VM less RAM"
    )]
    NoSpace {
        /// Segment name.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// The system refused.
    #[error("Cannot open shared memory {name}: {reason}")]
    Os {
        /// Segment name.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// It is not as large as what it must hold.
    #[error("Shared memory {name} has {found} bytes where {needed} are needed")]
    TooSmall {
        /// Segment name.
        name: String,
        /// Its size.
        found: u64,
        /// The size needed.
        needed: u64,
    },
}

/// A type that may live in memory which other processes read and write at any time.
///
/// # Safety
/// Every field is an atomic or an array of such, the type is `repr(C)`, has no padding that
/// matters, and every bit pattern (all zeros in particular) is a valid value.
pub unsafe trait Shared: Sync {}

/// A type that may live in memory that is mapped read-only, which other processes write at any time.
///
/// # Safety
/// As for [`Shared`], and nothing that can be had of it stores, or loads but relaxed and at most 8 bytes at a time.
pub unsafe trait Readable: Sync {}

/// One mapped segment. The creator removes the name when it drops it.
pub struct Segment {
    memory: Shmem,
    name: String,
}

// SAFETY: `Shmem` is !Send only for its raw pointer; the mapping is process-wide and stays
// until drop, and all access through `Segment` is to atomics or through raw pointers.
unsafe impl Send for Segment {}
// SAFETY: as above; no method hands out a plain reference to the bytes.
unsafe impl Sync for Segment {}

impl Segment {
    /// Creates a segment of `bytes` bytes, all zero, and reserves its memory so that touching it
    /// later cannot fail.
    ///
    /// # Errors
    /// [`SegmentError`]; nothing is left behind.
    pub fn create(name: &str, bytes: u64) -> Result<Self, SegmentError> {
        let segment = Self::create_sparse(name, bytes)?;
        #[cfg(target_os = "linux")]
        {
            let path = PathBuf::from(SHM_DIR).join(name);
            let os = |e: std::io::Error| SegmentError::Os { name: name.into(), reason: e.to_string() };
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(os)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
                .map_err(|_| SegmentError::NoSpace { name: name.into(), bytes })?;
        }
        Ok(segment)
    }

    /// As [`Segment::create`], but memory is taken as it is touched. For large areas that are
    /// rarely used whole.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn create_sparse(name: &str, bytes: u64) -> Result<Self, SegmentError> {
        match ShmemConf::new().os_id(name).size(bytes as usize).create() {
            Ok(memory) => Ok(Self { memory, name: name.into() }),
            Err(ShmemError::MappingIdExists) => Err(SegmentError::Exists(name.into())),
            Err(error) => Err(SegmentError::Os { name: name.into(), reason: error.to_string() }),
        }
    }

    /// Opens a segment that another process created.
    ///
    /// # Errors
    /// [`SegmentError::Os`] when there is none or it belongs to another user.
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        match ShmemConf::new().os_id(name).open() {
            Ok(memory) => Ok(Self { memory, name: name.into() }),
            Err(error) => Err(SegmentError::Os { name: name.into(), reason: error.to_string() }),
        }
    }

    /// Leaves the name in place when this creator drops the segment: it belongs to the VM, whose
    /// end removes it ([`SegmentNames::remove_all`]).
    pub fn keep_name(&mut self) {
        self.memory.set_owner(false);
    }

    /// Bytes mapped.
    pub fn len(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.memory.len() == 0
    }

    /// First byte. Others write here at any time: read and write through atomics or raw copies only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// The `T` at the start of the segment.
    ///
    /// # Errors
    /// [`SegmentError::TooSmall`].
    pub fn view<T: Shared>(&self) -> Result<&T, SegmentError> {
        let needed = size_of::<T>() as u64;
        if self.len() < needed {
            return Err(SegmentError::TooSmall { name: self.name.clone(), found: self.len(), needed });
        }
        // SAFETY: the mapping is page-aligned (alignment of T is at most 4096, asserted by the
        // layouts in this crate), large enough, lives as long as `self`, and `Shared` promises
        // that any content is a valid T and that concurrent writes go to atomics.
        Ok(unsafe { &*self.as_ptr().cast::<T>() })
    }

    /// Copies bytes out. False when the range is not inside the segment.
    #[must_use]
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        if !self.contains(offset, buffer.len() as u64) {
            return false;
        }
        // SAFETY: the source range was checked to be inside the mapping and `buffer` is ours, so
        // they do not overlap. Another process may write at the same time: the bytes are then
        // mixed, as they are for a bus master on real hardware; nothing is derived from them.
        unsafe {
            self.as_ptr().add(offset as usize).copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len())
        };
        true
    }

    /// Copies bytes in. False, and nothing written, when the range is not inside the segment.
    #[must_use]
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        if !self.contains(offset, data.len() as u64) {
            return false;
        }
        // SAFETY: as for `read`.
        unsafe { self.as_ptr().add(offset as usize).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        true
    }

    fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }
}

/// A segment that another process created, mapped read-only for good: its file is opened for reading, so the mapping cannot
/// be made writable later.
pub struct ReadOnlySegment {
    memory: *const u8,
    len: u64,
    name: String,
}

// SAFETY: the pointer is to a mapping of the whole process, which stays until drop; all access is through `view`.
unsafe impl Send for ReadOnlySegment {}
// SAFETY: as above.
unsafe impl Sync for ReadOnlySegment {}

impl ReadOnlySegment {
    /// Opens it.
    ///
    /// # Errors
    /// [`SegmentError::Os`] when there is none or it belongs to another user.
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let os = |e: rustix::io::Errno| SegmentError::Os { name: name.into(), reason: e.to_string() };
        let file =
            shm::open(format!("/{name}"), shm::OFlags::RDONLY, rustix::fs::Mode::empty()).map_err(os)?;
        let len = rustix::fs::fstat(&file).map_err(os)?.st_size as u64;
        // SAFETY: a new mapping at an address that the kernel chooses: it replaces nothing, and a segment is never
        // made shorter by VMM or supervisor. Device processes may not: they have no descriptor that writes.
        let memory = unsafe {
            mmap(std::ptr::null_mut(), len as usize, ProtFlags::READ, MapFlags::SHARED, &file, 0)
                .map_err(os)?
        };
        Ok(Self { memory: memory.cast::<u8>().cast_const(), len, name: name.into() })
    }

    /// The `T` at the start of the segment.
    ///
    /// # Errors
    /// [`SegmentError::TooSmall`].
    pub fn view<T: Readable>(&self) -> Result<&T, SegmentError> {
        let needed = size_of::<T>() as u64;
        if self.len < needed {
            return Err(SegmentError::TooSmall { name: self.name.clone(), found: self.len, needed });
        }
        // SAFETY: as for `Segment::view`, and `Readable` promises that nothing is done which read-only memory does not bear.
        Ok(unsafe { &*self.memory.cast::<T>() })
    }
}

impl Drop for ReadOnlySegment {
    fn drop(&mut self) {
        // SAFETY: the mapping was made here, of this length, and `view` lends from `self`.
        let _ = unsafe { munmap(self.memory.cast_mut().cast(), self.len as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unique(part: &str) -> SegmentNames {
        SegmentNames::new(&format!("unit{}{part}", std::process::id()))
    }

    #[test]
    fn a_segment_is_shared_private_to_the_user_and_gone_with_its_creator() {
        let name = unique("a").ram();
        let creator = Segment::create(&name, 8192).unwrap();
        let opener = Segment::open(&name).unwrap();
        assert!(creator.write(100, b"hello"));
        let mut back = [0; 5];
        assert!(opener.read(100, &mut back));
        assert_eq!(&back, b"hello");
        let mode = std::fs::metadata(format!("{SHM_DIR}/{name}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Segment::create(&name, 4096), Err(SegmentError::Exists(_))));
        drop(creator);
        assert!(Segment::open(&name).is_err());
    }

    #[test]
    fn ranges_outside_are_refused() {
        let segment = Segment::create(&unique("b").ram(), 4096).unwrap();
        assert!(!segment.write(4095, &[1, 2]));
        assert!(!segment.read(u64::MAX, &mut [0; 2]));
        assert!(segment.write(4094, &[1, 2]));
    }

    #[test]
    fn what_is_opened_to_read_stays_read_only() {
        use rustix::mm::{MprotectFlags, mprotect};
        let name = unique("e").panel();
        let _creator = Segment::create(&name, 4096).unwrap();
        let reader = ReadOnlySegment::open(&name).unwrap();
        // SAFETY: nobody relies on the page being read-only, and readable it stays.
        let unlocked = unsafe {
            mprotect(reader.memory.cast_mut().cast(), 4096, MprotectFlags::READ | MprotectFlags::WRITE)
        };
        assert_eq!(unlocked, Err(rustix::io::Errno::ACCESS));
        assert!(reader.view::<crate::panel::PanelView>().is_err(), "it is too small for a panel");
        assert!(ReadOnlySegment::open("vmsim-no-such-segment").is_err());
    }

    #[test]
    fn leftovers_of_one_vm_are_removed_and_no_others() {
        let (mine, other) = (unique("c"), unique("c-d"));
        std::mem::forget(Segment::create(&mine.ram(), 4096).unwrap());
        let kept = Segment::create(&other.ram(), 4096).unwrap();
        assert_eq!(mine.remove_all(), [mine.ram()]);
        assert!(Segment::open(&other.ram()).is_ok());
        drop(kept);
    }
}
