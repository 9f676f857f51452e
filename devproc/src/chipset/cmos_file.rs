//! The real-time clock with its CMOS RAM kept in a host file, as a battery keeps it.

use super::rtc_cmos::RtcCmos;
use super::rtc_cmos::spec::CMOS_LEN;
use crate::device::{Access, Device, ReadResult, Region, ResetKind, StateError, TimerId, WriteResult};
use crate::host::Host;
use ipc::time::VirtualTime;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file that keeps CMOS RAM.
#[derive(Debug)]
pub struct CmosFile {
    file: File,
    path: PathBuf,
    failing: bool,
}

impl CmosFile {
    /// Opens `path`, or creates it when it is missing.
    ///
    /// # Errors
    /// What the host's file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, path: path.to_owned(), failing: false })
    }

    /// The bytes kept; `None` when nothing has been written yet.
    ///
    /// # Errors
    /// `InvalidData` with the length when it is not that of CMOS RAM, or what the host's file
    /// system says.
    pub fn read(&self) -> io::Result<Option<[u8; CMOS_LEN]>> {
        let len = self.file.metadata()?.len();
        if len == 0 {
            return Ok(None);
        }
        if len != CMOS_LEN as u64 {
            let message = format!("it has {len} bytes instead of {CMOS_LEN}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = [0; CMOS_LEN];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    fn write(&mut self, bytes: &[u8; CMOS_LEN]) {
        match self.file.write_all_at(bytes, 0) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Once for each spell of failure: the guest may write as often as it likes.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("Cannot write CMOS RAM to {}: {error}", self.path.display());
                }
            }
        }
    }
}

/// A clock whose CMOS RAM is written to a file whenever its contents change.
pub struct KeptCmos {
    rtc: RtcCmos,
    file: CmosFile,
    /// Change count of what is in the file; `None` until this process has written it.
    written: Option<u64>,
}

impl KeptCmos {
    /// `rtc` with its bytes kept in `file`.
    pub fn new(rtc: RtcCmos, file: CmosFile) -> Self {
        Self { rtc, file, written: None }
    }

    fn keep(&mut self) {
        let count = Some(self.rtc.change_count());
        if self.written != count {
            self.file.write(&self.rtc.image());
            self.written = count;
        }
    }
}

impl Device for KeptCmos {
    fn name(&self) -> &'static str {
        self.rtc.name()
    }

    fn regions(&self) -> Vec<Region> {
        self.rtc.regions()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.rtc.attach(host);
        self.keep();
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        self.rtc.read(at, host)
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let result = self.rtc.write(at, value, host);
        self.keep();
        result
    }

    fn timer(&mut self, timer: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        self.rtc.timer(timer, deadline, host);
    }

    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host) {
        self.rtc.reset(kind, host);
        self.keep();
    }

    fn state_version(&self) -> u16 {
        self.rtc.state_version()
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.rtc.save(out);
    }

    fn take_changed(&mut self) -> bool {
        self.rtc.take_changed()
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        self.written = None;
        self.rtc.load(version, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn clock(path: &Path) -> KeptCmos {
        let file = CmosFile::open(path).unwrap();
        let rtc = RtcCmos::new(0, file.read().unwrap());
        KeptCmos::new(rtc, file)
    }

    fn store(bench: &mut Bench<KeptCmos>, register: u8, value: u8) {
        bench.outb(0x70, register);
        bench.outb(0x71, value);
    }

    #[test]
    fn what_the_guest_stores_is_there_in_the_next_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmos");
        let mut bench = Bench::new(clock(&path));
        store(&mut bench, 0x40, 0x5a);
        assert_eq!(std::fs::read(&path).unwrap()[0x40], 0x5a);
        drop(bench);
        let mut bench = Bench::new(clock(&path));
        bench.outb(0x70, 0x40);
        assert_eq!(bench.inb(0x71), 0x5a);
    }

    #[test]
    fn a_restarted_process_writes_what_its_predecessor_may_not_have_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmos");
        let mut bench = Bench::new(clock(&path));
        store(&mut bench, 0x41, 0x77);
        std::fs::write(&path, [0; CMOS_LEN]).unwrap();
        bench.restart(clock(&path));
        assert_eq!(std::fs::read(&path).unwrap()[0x41], 0x77);
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmos");
        std::fs::write(&path, [0; 128]).unwrap();
        let error = CmosFile::open(&path).unwrap().read().unwrap_err();
        assert_eq!(error.to_string(), "it has 128 bytes instead of 256");
    }
}
