//! The file of a recording.
//!
//! [`MAGIC`], the version (u32), then entries: length (u32), check (u32) and a postcard [`Entry`]. The
//! first entry is the [`Header`]. All numbers are little endian. A file that ends in the middle of
//! an entry is what a killed process leaves: the entries before it count. Entries are appended
//! only, so that a recording can go through a pipe, and a successor can go on with the file.

use crate::outside::{Found, ImageAct};
use crate::record::hash::hash_bytes;
use crate::record::machine::Machine;
use ipc::input::HostEvent;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{self, Read};
use thiserror::Error;

/// First bytes of a recording.
pub const MAGIC: [u8; 8] = *b"VMSimRec";
/// Version of the format: raised with any change of a type in it. A new variant at the end of an enum is none, as
/// long as it is not needed.
pub const VERSION: u32 = 1;
/// Longest entry. The longest honest ones hold the files that models read while they were built.
const MAX_ENTRY: u32 = 64 << 20;
/// Bytes of length and check.
const PREFIX: usize = 8;

/// Why a file cannot be read as a recording.
#[derive(Debug, Error)]
pub enum FormatError {
    /// It is something else.
    #[error("It is not a recording of 'vmsim device record'")]
    NotARecording,
    /// Another version.
    #[error(
        "It is of format version {found}, this build reads version {VERSION}: replay it with the build that recorded it"
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The content makes no sense.
    #[error("It is damaged at byte {at}: {what}")]
    Damaged {
        /// Where in the file.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The system refused.
    #[error("It cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// What is recorded, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Who is recorded. The first entry, and no other.
    Header(Box<Header>),
    /// A section starts: the models are as said here, whatever they were.
    Start(Box<Start>),
    /// A model is called. Counted: call n is transaction n.
    Call(Call),
    /// The guest accessed memory of the device, or a mirror, in which the model has no part: the bus
    /// answers, and while there is no recording, no message is sent.
    Bus(Access, Answer),
    /// What the model learnt in the call before.
    Learnt(Learnt),
    /// What came of the call before.
    Outcome(Outcome),
    /// The recording ended in order, so many ns of host time after [`Start::host_nanos`].
    End {
        /// CLOCK_MONOTONIC of the host.
        host_nanos: u64,
    },
}

/// Who is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the device process.
    pub device: String,
    /// Version of the build.
    pub build: String,
    /// The machine.
    pub machine: Machine,
    /// Unix time (seconds) at virtual time zero.
    pub start_unix_seconds: u64,
    /// The models, in the order of their numbers.
    pub models: Vec<ModelInfo>,
    /// What they read while they were built.
    pub found: Found,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// PCI bus, device, function.
    pub pci: Option<(u8, u8, u8)>,
    /// Bytes of device memory.
    pub memory_len: u64,
    /// Its regions after construction.
    pub regions: Vec<RegionInfo>,
    /// Its registers.
    pub registers: Vec<RegisterInfo>,
}

/// A region, as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionInfo {
    /// The model's number for it.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Physical memory, not ports.
    pub is_memory: bool,
    /// First address.
    pub base: u64,
    /// Ports or bytes.
    pub len: u64,
    /// Widest access, bytes.
    pub width: u8,
    /// How writes travel: 0 sync, 1 posted, 2 posted local, 3 joined.
    pub writes: u8,
    /// First mirror cell, counted per model.
    pub mirror: Option<u16>,
    /// Direct memory: offset, and whether the guest can write it.
    pub backing: Option<(u64, bool)>,
    /// It decodes.
    pub enabled: bool,
}

/// A register by name, see [`crate::register::Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterInfo {
    /// Region.
    pub region: u8,
    /// Offset in it.
    pub offset: u64,
    /// Bytes.
    pub width: u8,
    /// Index that selects it.
    pub index: Option<u32>,
    /// Name.
    pub name: String,
    /// Names of bits.
    pub fields: Vec<(String, u32)>,
}

/// Where a section starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Virtual time, ns.
    pub now: u64,
    /// CLOCK_MONOTONIC of the host.
    pub host_nanos: u64,
    /// The models have done nothing since power-on.
    pub cold: bool,
    /// What the models find around them: lines, DMA channels, serial cables.
    pub around: Vec<Learnt>,
    /// The models.
    pub models: Vec<ModelStart>,
}

/// A model where a section starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStart {
    /// Version of its state format.
    pub version: u16,
    /// Its state.
    pub state: ByteBuf,
    /// What it shows the outside.
    pub shown: Shown,
    /// Its device memory where it is not zero: offset and bytes.
    pub memory: Vec<(u64, ByteBuf)>,
}

/// What a model shows the outside and `attach` shows again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// ISA lines (bits 0-15) and PCI pins (bits 16-19) that it drives.
    pub lines: u32,
    /// Armed timers and their deadlines, by timer.
    pub timers: Vec<(u8, u64)>,
    /// Mirror cells that are not 0, by cell.
    pub mirrors: Vec<(u16, u32)>,
    /// Regions, in the order in which they were declared.
    pub regions: Vec<RegionInfo>,
}

/// How a model is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Number of the model.
    pub model: u8,
    /// Virtual time that it is told, ns.
    pub now: u64,
    /// What for.
    pub what: What,
}

/// What a model is called for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An access of the guest.
    Access(Access),
    /// Power-on reset (false) or hard reset.
    Reset(bool),
    /// The CPU took a vector.
    Acknowledge(u8),
    /// A timer is due.
    Timer(u8, u64),
    /// Something happened outside.
    Event(HostEvent),
    /// Interrupt lines changed.
    Lines,
    /// Its picture is looked at; true: it must draw.
    Render(bool),
}

/// What an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AccessKind {
    /// One read.
    Read,
    /// One write.
    Write,
    /// REP INS.
    ReadBurst,
    /// REP OUTS.
    WriteBurst,
    /// Configuration space.
    ConfigRead,
    /// Configuration space.
    ConfigWrite,
}

impl AccessKind {
    /// Whether the guest gives the data.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::WriteBurst | Self::ConfigWrite)
    }

    /// Whether it is for the configuration space.
    pub fn is_config(self) -> bool {
        matches!(self, Self::ConfigRead | Self::ConfigWrite)
    }
}

/// An access of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Number of the model.
    pub model: u8,
    /// What it is.
    pub kind: AccessKind,
    /// The region.
    pub region: u8,
    /// Port, physical address or configuration register.
    pub address: u64,
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub width: u8,
    /// Nobody waits for it.
    pub posted: bool,
    /// Number of the message on its link.
    pub sequence: u64,
    /// Guest CS and EIP.
    pub guest: (u16, u32),
    /// What is written.
    pub value: u32,
    /// What a burst writes.
    pub data: ByteBuf,
    /// Bytes of a burst.
    pub len: u32,
    /// Index by which a register behind an index register is reached.
    pub selected: Option<u32>,
}

/// What a model learnt while it was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learnt {
    /// Guest memory.
    Dma {
        /// Where.
        address: u64,
        /// How much.
        len: u64,
        /// What; `None`: there is no RAM.
        data: Option<ByteBuf>,
    },
    /// Guest memory took, or did not take, what was written.
    DmaTaken {
        /// Where.
        address: u64,
        /// Whether it did.
        taken: bool,
    },
    /// State of an ISA DMA channel, packed as on the board, with DREQ.
    Channel(u8, [u64; 2], bool),
    /// Interrupt lines: ISA levels, edges, PIRQ levels.
    Lines(u16, [u32; 16], u8),
    /// A serial cable: connected, taken, sent.
    Cable(u8, bool, u64, u64),
    /// A character at the other end of a cable.
    Serial(u8, u64, Option<u8>),
    /// Disk images.
    Image(ImageAct),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Done.
    #[default]
    Done,
    /// No such register.
    InvalidRegister,
    /// Not at this width.
    InvalidWidth,
    /// No response.
    NoResponse,
    /// The answer comes later.
    Deferred,
}

/// What an access was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// What was read.
    pub value: u32,
    /// What a burst read.
    pub data: ByteBuf,
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was answered.
    pub answer: Answer,
    /// What the model did, kind by kind; see [`crate::record::deeds`].
    pub deeds: Vec<Deed>,
    /// The picture, if one was drawn.
    pub picture: Option<PictureHash>,
}

/// Something that a model did to the machine, as far as somebody can notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// ISA line (0-15) or PCI pin (16-19) changed.
    Line(u8, bool),
    /// The interrupt request to the CPU.
    Interrupt(Option<u8>),
    /// Guest memory was written.
    Dma(u64, ByteBuf),
    /// DREQ.
    Dreq(u8, bool),
    /// An ISA DMA channel.
    Channel(u8, [u64; 2]),
    /// A disk image was written.
    ImageWrite(u32, u64, ByteBuf),
    /// A disk image was flushed.
    ImageFlush(u32),
    /// A timer has another deadline, or none.
    Timer(u8, Option<u64>),
    /// A mirror cell.
    Mirror(u16, u32),
    /// A region changed.
    Region(RegionInfo),
    /// A20.
    A20(u8, bool),
    /// Shadow RAM: base, length, reads, writes.
    Shadow(u32, u32, bool, bool),
    /// A reset request.
    Reset(u8),
    /// Soft-off.
    PowerOff,
    /// A deferred access is answered.
    Late(u32),
    /// Debug text.
    Text(ByteBuf),
    /// Serial input taken.
    SerialTaken(u8, u64),
    /// Serial output: where and what.
    SerialPut(u8, u64, u8),
    /// Serial output sent.
    SerialSent(u8, u64),
}

/// A picture, as far as a comparison needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureHash {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Hashes of [`PictureHash::ROWS`] rows each.
    pub rows: Vec<u64>,
    /// Hash of characters and cursor.
    pub text: u64,
}

impl PictureHash {
    /// Rows under one hash.
    pub const ROWS: usize = 8;
}

/// Appends an entry in its file form.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; PREFIX]);
    let buffer = std::mem::take(out);
    // Writing to a growing Vec cannot fail, and no entry has a type that postcard does not know.
    *out = postcard::to_extend(entry, buffer).unwrap_or_default();
    let Some(body) = out.get(start + PREFIX..) else { return };
    let (len, check) = (body.len() as u32, hash_bytes(body) as u32);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + PREFIX].copy_from_slice(&check.to_le_bytes());
}

/// What comes before the first entry.
pub fn preamble() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes
}

/// Reads a recording, entry by entry.
pub struct Reader<R> {
    source: R,
    at: u64,
    whole: u64,
    buffer: Vec<u8>,
    cut: bool,
}

impl<R: Read> Reader<R> {
    /// Starts to read, and reads the header.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn new(source: R) -> Result<(Self, Header), FormatError> {
        let mut reader = Self { source, at: 0, whole: 0, buffer: Vec::new(), cut: false };
        let mut start = [0; MAGIC.len() + 4];
        if reader.fill(&mut start)? < start.len() || start[..MAGIC.len()] != MAGIC {
            return Err(FormatError::NotARecording);
        }
        let found = u32::from_le_bytes(start[MAGIC.len()..].try_into().unwrap_or_default());
        if found != VERSION {
            return Err(FormatError::Version { found });
        }
        reader.whole = reader.at;
        match reader.next()? {
            Some(Entry::Header(header)) => Ok((reader, *header)),
            _ => Err(FormatError::Damaged { at: 0, what: "it has no header".into() }),
        }
    }

    /// Whether the file ended in the middle of an entry.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Bytes up to the end of the last whole entry.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    fn fill(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < target.len() {
            match self.source.read(&mut target[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    /// The next entry; `None` at the end, and where the file is cut off.
    ///
    /// # Errors
    /// [`FormatError`].
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<Entry>, FormatError> {
        let at = self.at;
        let damaged = |what: &str| FormatError::Damaged { at, what: what.into() };
        let mut prefix = [0; PREFIX];
        match self.fill(&mut prefix)? {
            0 => return Ok(None),
            PREFIX => {}
            _ => {
                self.cut = true;
                return Ok(None);
            }
        }
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        let (len, check) = (word(&prefix[..4]), word(&prefix[4..]));
        if len == 0 || len > MAX_ENTRY {
            return Err(damaged("an entry has an impossible length"));
        }
        // Grows with what is really there: a length alone takes no memory.
        self.buffer.clear();
        let got = (&mut self.source).take(len.into()).read_to_end(&mut self.buffer)?;
        self.at += got as u64;
        if got < len as usize {
            self.cut = true;
            return Ok(None);
        }
        if hash_bytes(&self.buffer) as u32 != check {
            return Err(damaged("the check of an entry does not fit"));
        }
        let entry = postcard::from_bytes(&self.buffer).map_err(|_| damaged("an entry makes no sense"))?;
        self.whole = self.at;
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            device: "gpu".into(),
            build: "1".into(),
            machine: Machine::default(),
            start_unix_seconds: 0,
            models: Vec::new(),
            found: Found::default(),
        }
    }

    fn file(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = preamble();
        encode(&Entry::Header(Box::new(header())), &mut bytes);
        entries.iter().for_each(|entry| encode(entry, &mut bytes));
        bytes
    }

    fn calls(count: u64) -> Vec<Entry> {
        (0..count).map(|now| Entry::Call(Call { model: 0, now, what: What::Lines })).collect()
    }

    fn read_all(bytes: &[u8]) -> Result<(Vec<Entry>, bool), FormatError> {
        let (mut reader, _) = Reader::new(bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok((entries, reader.is_cut()))
    }

    #[test]
    fn entries_come_back_in_order() {
        let entries = calls(5);
        assert_eq!(read_all(&file(&entries)).unwrap(), (entries, false));
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_was_whole() {
        let entries = calls(3);
        let whole = file(&entries);
        let head = file(&[]).len();
        for len in head..whole.len() {
            let (read, cut) = read_all(&whole[..len]).unwrap();
            assert!(read.len() < 3 && read == entries[..read.len()], "cut at {len}");
            let at_an_end = (0..3).any(|n| file(&entries[..n]).len() == len);
            assert_eq!(cut, !at_an_end, "cut at {len}");
        }
        for len in 0..head {
            assert!(read_all(&whole[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn another_version_and_other_files_are_named() {
        let mut bytes = file(&[]);
        bytes[8] = 9;
        assert!(read_all(&bytes).unwrap_err().to_string().contains("version 9"));
        assert!(matches!(read_all(b"#!/bin/sh\necho hello\n"), Err(FormatError::NotARecording)));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_an_error_or_an_end(at in 12usize..400, value: u8) {
            let mut bytes = file(&calls(20));
            let at = at % bytes.len();
            prop_assume!(bytes[at] != value && at >= 12);
            bytes[at] = value;
            match read_all(&bytes) {
                Ok((entries, cut)) => prop_assert!(cut && entries.len() < 20),
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }

        #[test]
        fn garbage_after_the_magic_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = preamble();
            bytes.extend(tail);
            prop_assert!(read_all(&bytes).is_err());
        }
    }
}
