//! Files and disk images that models use: the part of the outside world that is neither guest nor time.
//!
//! Models reach them through [`Outside`], so that a recording has what they read, and a replay
//! needs no file: it answers from the recording and touches nothing on the disk. Models that open
//! files by themselves work, but their replay finds the files as they are then.

use crate::storage::image::{BlockDevice, ImageError, RawFile};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes by which images are remembered.
const SECTOR: u64 = 512;

/// Something that a model did with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageAct {
    /// It read.
    Read {
        /// Which image, in the order in which they were opened.
        image: u32,
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// What it got; `None`: an error.
        data: Option<ByteBuf>,
    },
    /// It wrote.
    Write {
        /// Which image.
        image: u32,
        /// Where.
        offset: u64,
        /// What.
        data: ByteBuf,
        /// Whether it could.
        done: bool,
    },
    /// It had everything written go to stable storage.
    Flush {
        /// Which image.
        image: u32,
        /// Whether it could.
        done: bool,
    },
}

/// What models found while they were built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Files that were read whole; `None`: an error.
    pub files: Vec<(PathBuf, Option<ByteBuf>)>,
    /// Files whose length was asked for.
    pub lengths: Vec<(PathBuf, Option<u64>)>,
    /// Length of each image, and whether it is read-only.
    pub images: Vec<(u64, bool)>,
    /// What was done with images.
    pub acts: Vec<ImageAct>,
}

/// How models reach files. Clones are the same outside.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether acts are of interest: while models are built, and while they are recorded.
    listening: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    found: Found,
    /// Acts since they were last taken.
    acts: Vec<ImageAct>,
    replay: Option<Replay>,
}

/// What a replay answers from.
#[derive(Debug, Default)]
struct Replay {
    /// Reads of the call at hand that have not come yet.
    expected: VecDeque<ImageAct>,
    /// What is known of each image.
    known: BTreeMap<(u32, u64), Box<[u8]>>,
    /// Images opened so far.
    opened: u32,
    /// Reads that nothing is known for.
    unknown: Vec<(u32, u64, u64)>,
}

impl Outside {
    /// The files of this machine.
    pub fn live() -> Self {
        let outside = Self::default();
        outside.shared.listening.store(true, Ordering::Relaxed);
        outside
    }

    /// What `found` says, and nothing else.
    pub fn recorded(found: Found) -> Self {
        let outside = Self::live();
        let mut replay = Replay::default();
        for act in &found.acts {
            replay.learn(act);
        }
        replay.expected.extend(found.acts.iter().cloned());
        *outside.inner() = Inner { found, acts: Vec::new(), replay: Some(replay) };
        outside
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A model that panicked meanwhile left nothing half done here.
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.inner();
        if inner.replay.is_some() {
            let file = inner.found.files.iter().find(|(name, _)| name == path);
            let data = file.and_then(|(_, data)| data.as_ref());
            return data.map(|data| data.to_vec()).ok_or_else(not_recorded);
        }
        let data = std::fs::read(path);
        inner.found.files.push((path.into(), data.as_ref().ok().map(|data| ByteBuf::from(data.clone()))));
        data
    }

    /// Length of a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn file_len(&self, path: &Path) -> io::Result<u64> {
        let mut inner = self.inner();
        if inner.replay.is_some() {
            let file = inner.found.lengths.iter().find(|(name, _)| name == path);
            return file.and_then(|(_, len)| *len).ok_or_else(not_recorded);
        }
        let len = std::fs::metadata(path).map(|metadata| metadata.len());
        inner.found.lengths.push((path.into(), len.as_ref().ok().copied()));
        len
    }

    /// Opens a raw disk image.
    ///
    /// # Errors
    /// [`ImageError`], which says what to do.
    pub fn open_image(&self, path: &Path, read_only: bool) -> Result<Box<dyn BlockDevice>, ImageError> {
        let mut inner = self.inner();
        let Inner { found, replay, .. } = &mut *inner;
        if let Some(replay) = replay {
            // Images are opened in the same order as in the recording.
            let number = replay.opened;
            let Some((len, read_only)) = found.images.get(number as usize).copied() else {
                return Err(ImageError::Host { path: path.into(), source: not_recorded() });
            };
            replay.opened += 1;
            let name = path.display().to_string();
            return Ok(Box::new(RecordedImage { outside: self.clone(), number, name, len, read_only }));
        }
        let file = RawFile::open(path, read_only)?;
        let number = found.images.len() as u32;
        found.images.push((file.len(), file.read_only()));
        Ok(Box::new(HeardImage { outside: self.clone(), number, file }))
    }

    /// The models are built: what they do from now on is forgotten until it is listened to.
    pub fn built(&self) {
        self.shared.listening.store(false, Ordering::Relaxed);
        let mut inner = self.inner();
        inner.found.acts = std::mem::take(&mut inner.acts);
    }

    /// What they found while they were built.
    pub fn found(&self) -> Found {
        self.inner().found.clone()
    }

    /// From now on, or no longer, what is done with images is kept for [`Outside::take_acts`].
    pub fn listen(&self, listen: bool) {
        self.shared.listening.store(listen, Ordering::Relaxed);
        self.inner().acts.clear();
    }

    /// What was done with images since this was last asked.
    pub fn take_acts(&self) -> Vec<ImageAct> {
        std::mem::take(&mut self.inner().acts)
    }

    /// Replay: what the recorded model did with images in the call that comes.
    pub fn expect(&self, acts: Vec<ImageAct>) {
        if let Some(replay) = &mut self.inner().replay {
            acts.iter().filter(|act| matches!(act, ImageAct::Read { .. })).for_each(|act| replay.learn(act));
            replay.expected = acts.into();
        }
    }

    /// Replay: reads that the recording has nothing for, since this was last asked.
    pub fn take_unknown(&self) -> Vec<(u32, u64, u64)> {
        self.inner().replay.as_mut().map(|replay| std::mem::take(&mut replay.unknown)).unwrap_or_default()
    }

    fn heard(&self, act: impl FnOnce() -> ImageAct) {
        if self.shared.listening.load(Ordering::Relaxed) {
            self.inner().acts.push(act());
        }
    }
}

fn not_recorded() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the recording does not have it")
}

impl Replay {
    fn learn(&mut self, act: &ImageAct) {
        match act {
            ImageAct::Read { image, offset, data: Some(data), .. } => self.keep(*image, *offset, data),
            ImageAct::Write { image, offset, data, done: true } => self.keep(*image, *offset, data),
            _ => {}
        }
    }

    fn keep(&mut self, image: u32, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(SECTOR) {
            return;
        }
        for (sector, bytes) in (offset / SECTOR..).zip(data.chunks_exact(SECTOR as usize)) {
            self.known.insert((image, sector), bytes.into());
        }
    }

    fn read(&mut self, image: u32, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let wanted = buffer.len() as u64;
        let is_it = |act: &ImageAct| matches!(act, ImageAct::Read { image: i, offset: o, len, .. } if (*i, *o, *len) == (image, offset, wanted));
        if let Some(at) = self.expected.iter().position(is_it)
            && let Some(ImageAct::Read { data, .. }) = self.expected.remove(at)
        {
            let data = data.filter(|data| data.len() == buffer.len());
            let data = data.ok_or_else(|| io::Error::other("the recorded read failed"))?;
            buffer.copy_from_slice(&data);
            return Ok(());
        }
        let mut sector = offset / SECTOR;
        for chunk in buffer.chunks_mut(SECTOR as usize) {
            match self.known.get(&(image, sector)) {
                Some(bytes) if offset.is_multiple_of(SECTOR) => chunk.copy_from_slice(&bytes[..chunk.len()]),
                _ => {
                    self.unknown.push((image, offset, wanted));
                    return Err(not_recorded());
                }
            }
            sector = sector.wrapping_add(1);
        }
        Ok(())
    }
}

/// A raw image whose use can be listened to.
struct HeardImage {
    outside: Outside,
    number: u32,
    file: RawFile,
}

impl BlockDevice for HeardImage {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let outcome = self.file.read_at(offset, buffer);
        let data = || outcome.is_ok().then(|| ByteBuf::from(&*buffer));
        self.outside.heard(|| ImageAct::Read {
            image: self.number,
            offset,
            len: buffer.len() as u64,
            data: data(),
        });
        outcome
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let outcome = self.file.write_at(offset, data);
        self.outside.heard(|| ImageAct::Write {
            image: self.number,
            offset,
            data: ByteBuf::from(data),
            done: outcome.is_ok(),
        });
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.file.flush();
        self.outside.heard(|| ImageAct::Flush { image: self.number, done: outcome.is_ok() });
        outcome
    }

    fn read_only(&self) -> bool {
        self.file.read_only()
    }
}

/// An image of which only the recording is there.
struct RecordedImage {
    outside: Outside,
    number: u32,
    name: String,
    len: u64,
    read_only: bool,
}

impl RecordedImage {
    /// How the recorded act of this kind ended; one that was not recorded succeeds.
    fn outcome(&self, ended: impl Fn(&ImageAct) -> Option<bool>) -> io::Result<()> {
        let mut inner = self.outside.inner();
        let Some(replay) = &mut inner.replay else { return Ok(()) };
        let Some(at) = replay.expected.iter().position(|act| ended(act).is_some()) else { return Ok(()) };
        let done = replay.expected.remove(at).is_none_or(|act| ended(&act) == Some(true));
        if done { Ok(()) } else { Err(io::Error::other("the recorded one failed")) }
    }
}

impl BlockDevice for RecordedImage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut inner = self.outside.inner();
        inner.replay.as_mut().map_or(Ok(()), |replay| replay.read(self.number, offset, buffer))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let outcome = self.outcome(|act| match act {
            ImageAct::Write { image, offset: o, done, .. } if (*image, *o) == (self.number, offset) => {
                Some(*done)
            }
            _ => None,
        });
        let act =
            ImageAct::Write { image: self.number, offset, data: ByteBuf::from(data), done: outcome.is_ok() };
        if let Some(replay) = &mut self.outside.inner().replay {
            replay.learn(&act);
        }
        self.outside.heard(|| act);
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.outcome(|act| match act {
            ImageAct::Flush { image, done } if *image == self.number => Some(*done),
            _ => None,
        });
        self.outside.heard(|| ImageAct::Flush { image: self.number, done: outcome.is_ok() });
        outcome
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a model finds: a file, a length, and the first sector of an image.
    fn look(outside: &Outside, folder: &Path) -> (Vec<u8>, u64, Box<dyn BlockDevice>) {
        let file = outside.read_file(&folder.join("rom")).unwrap();
        let len = outside.file_len(&folder.join("rom")).unwrap();
        let mut image = outside.open_image(&folder.join("image"), false).unwrap();
        image.read_at(0, &mut [0; 512]).unwrap();
        (file, len, image)
    }

    #[test]
    fn a_replay_finds_what_was_found_and_touches_no_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rom"), b"rom").unwrap();
        std::fs::write(folder.path().join("image"), vec![7; 2048]).unwrap();
        let live = Outside::live();
        let (file, len, mut image) = look(&live, folder.path());
        live.built();
        assert_eq!(live.take_acts(), []);
        live.listen(true);
        let mut sector = [0; 512];
        image.read_at(1024, &mut sector).unwrap();
        image.write_at(1536, &[9; 512]).unwrap();
        let acts = live.take_acts();
        let path = folder.path().to_path_buf();
        drop(folder);

        let replayed = Outside::recorded(live.found());
        let (again, len_again, mut image) = look(&replayed, &path);
        assert_eq!((again, len_again, image.len()), (file, len, 2048));
        replayed.built();
        replayed.listen(true);
        replayed.expect(acts.clone());
        image.read_at(1024, &mut sector).unwrap();
        assert_eq!(sector, [7; 512]);
        image.write_at(1536, &[9; 512]).unwrap();
        assert_eq!(replayed.take_acts(), acts[1..]);
        // What it wrote itself it reads back; what nobody looked at is not known.
        image.read_at(1536, &mut sector).unwrap();
        assert_eq!(sector, [9; 512]);
        assert!(image.read_at(512, &mut sector).is_err());
        assert_eq!(replayed.take_unknown(), [(0, 512, 512)]);
        assert!(replayed.read_file(Path::new("/etc/hostname")).is_err());
    }

    #[test]
    fn recorded_errors_are_errors_again() {
        let mut found = Found { images: vec![(1024, false)], ..Found::default() };
        found.files.push(("rom".into(), None));
        let outside = Outside::recorded(found);
        assert!(outside.read_file(Path::new("rom")).is_err());
        let mut image = outside.open_image(Path::new("image"), false).unwrap();
        outside.expect(vec![
            ImageAct::Read { image: 0, offset: 0, len: 512, data: None },
            ImageAct::Write { image: 0, offset: 0, data: ByteBuf::from([1; 512]), done: false },
        ]);
        assert!(image.read_at(0, &mut [0; 512]).is_err());
        assert!(image.write_at(0, &[1; 512]).is_err());
        assert!(image.write_at(0, &[1; 512]).is_ok());
        assert!(outside.open_image(Path::new("another"), false).is_err());
    }
}
