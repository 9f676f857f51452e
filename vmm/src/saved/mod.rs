//! A whole VM in a file: what `vmsim save` writes and `vmsim restore` reads.
//!
//! A VM can be saved while nothing happens in it: the vCPU stands between two instructions, virtual time stands still,
//! and every device process has committed the states of its models and waits. Then everything that the VM is lies in
//! shared memory, in the processor, and in the files of its disks. This module knows how that is kept in a file;
//! bringing a VM to rest, and making one from a file, is the supervisor's.
//!
//! Each section has a version. A build reads the versions up to its own, and leaves out sections that it does not know if
//! these say that it may. The states of device models have versions of their own, as in a swap of builds.

mod container;
pub mod memory;
mod older;
mod processor;

pub use container::{Reader, SavedError, Section, SectionWriter, Writer};
pub use memory::{FileSource, Source};
pub use processor::Processor;

use ipc::board::{ALL_LINES, Wiring};
use ipc::dma::RamRange;
use ipc::fault::{Faults, LineFault, MAX_FAULTS};
use ipc::input::HostEvent;
use ipc::link::{EVENT_SLOTS, MAX_MODELS, STATE_BYTES};
use ipc::machine::MachineConfig;
use ipc::panel::{MAX_DEVICES, MAX_RAM};
use ipc::serial::UnderWay;
use ipc::setup::Exported;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names and versions of the sections. Whoever changes what is in one raises its version, and keeps reading the
/// older ones: a test tells when that was forgotten.
mod section {
    pub const ABOUT: (&str, u16) = ("about", 1);
    pub const MACHINE: (&str, u16) = ("machine", 1);
    pub const CLOCK: (&str, u16) = ("clock", 1);
    pub const PROCESSOR: (&str, u16) = ("processor", super::Processor::VERSION);
    pub const BOARD: (&str, u16) = ("board", 1);
    pub const DEVICE: (&str, u16) = ("device", 2);
    /// Memory of the device before it.
    pub const DEVICE_MEMORY: (&str, u16) = ("device-memory", 1);
    pub const SERIAL: (&str, u16) = ("serial", 2);
    pub const INPUT: (&str, u16) = ("input", 1);
    pub const FILE: (&str, u16) = ("file", 1);
    /// Content of the file before it.
    pub const FILE_CONTENT: (&str, u16) = ("file-content", 1);
    pub const RAM: (&str, u16) = ("ram", 1);
}

/// Largest device memory of a process, and largest file that is kept inside, bytes.
const MAX_MEMORY: u64 = 1 << 30;
const MAX_FILE: u64 = 1 << 42;
/// Input events that may wait.
const MAX_INPUT: usize = 1 << 16;

/// Where a file is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of the program that wrote it.
    pub program: String,
    /// When, in seconds of Unix time.
    pub unix_seconds: u64,
}

/// The machine and the processes that it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What every process is told.
    pub config: MachineConfig,
    /// Serial ports whose other end is in the VM's own directory: it is elsewhere for another VM.
    pub own_serial: [bool; ipc::serial::PORTS],
    /// What showed the picture: `window`, `terminal` or `none`.
    pub display: String,
    /// Device processes, in the order of their slots.
    pub devices: Vec<DeviceProcess>,
}

/// One device process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceProcess {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub program: Program,
    /// After doing nothing for so long it is taken for hung; `None`: never.
    pub watchdog: Option<Duration>,
    /// It goes into a sandbox.
    pub sandbox: bool,
    /// What is to go wrong on its link.
    pub faults: Faults,
    /// The guest RAM that it may reach at most; `None`: what its models ask for.
    pub dma: Option<Vec<RamRange>>,
}

/// What runs a device process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// `vmsim` itself.
    BuiltIn,
    /// Another executable.
    Other(PathBuf),
    /// Somebody starts it by hand.
    ByHand,
}

/// The virtual clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Virtual time, ns.
    pub nanos: u64,
    /// Unix time (seconds) at virtual time zero, as the machine sees it.
    pub start_unix_seconds: u64,
}

/// The wiring of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// What of it belongs to no process.
    pub wiring: Wiring,
    /// Rising edges of each interrupt line so far.
    pub edges: Vec<u32>,
    /// Lines that each process holds, by its name; `vmm` is one too.
    pub held: Vec<(String, u32)>,
}

/// A device process and the states of its models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its build, for people.
    pub build: String,
    /// Its models, by number.
    pub models: Vec<Model>,
    /// What it was told from outside and has not dealt with.
    pub events: Vec<HostEvent>,
    /// Events that each fault rule has seen.
    pub fault_counts: Vec<u64>,
    /// What faults have under way on each interrupt line.
    pub line_faults: Vec<LineFault>,
    /// It is off the bus: its process was given up, and the states are those that were committed last.
    pub off_bus: bool,
}

/// State of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its state; `None` when it has committed none.
    pub state: Option<Exported>,
}

/// A serial port's cable, and what is at the other end of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialPort {
    /// What is under way on the cable.
    pub under_way: UnderWay,
    /// What the guest has sent and nobody has read, from before what is under way.
    pub held: Vec<u8>,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// System firmware.
    Firmware,
    /// Option ROM of the graphics adapter.
    VideoRom,
    /// Medium of a floppy drive, 0 is A.
    Floppy(u8),
    /// Hard disk.
    Disk(u8),
}

/// A file that belongs to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFile {
    /// What it is for.
    pub used_as: Use,
    /// Where it was.
    pub path: PathBuf,
    /// How it is known again; `None`: its content is kept inside.
    pub outside: Option<Identity>,
}

/// How a file that stays outside is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its length.
    pub len: u64,
    /// When it was changed last: Unix time, seconds and nanoseconds.
    pub modified: (i64, u32),
    /// [`memory::content_hash`].
    pub hash: u64,
}

/// Whether a file is the one that was there when the VM was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is, or has the same content.
    Same,
    /// It has another length.
    Length(u64),
    /// It has another content.
    Content,
}

impl Identity {
    /// Of a file as it is now.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File, goes_on: impl Fn() -> bool) -> io::Result<Self> {
        let source = FileSource::new(file.try_clone()?)?;
        let hash = memory::content_hash(&source, goes_on)?;
        Ok(Self { len: source.len(), modified: modified(file)?, hash })
    }

    /// Whether `file` is the same. Its content is only read when it is not as old.
    ///
    /// # Errors
    /// What the system says.
    pub fn check(&self, file: &File) -> io::Result<Match> {
        let len = file.metadata()?.len();
        if len != self.len {
            return Ok(Match::Length(len));
        }
        if modified(file)? == self.modified {
            return Ok(Match::Same);
        }
        let hash = memory::content_hash(&FileSource::new(file.try_clone()?)?, || true)?;
        Ok(if hash == self.hash { Match::Same } else { Match::Content })
    }
}

fn modified(file: &File) -> io::Result<(i64, u32)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_mtime, stat.st_mtime_nsec as u32))
}

/// Everything that is written.
pub struct Contents<'a> {
    /// Where it is from.
    pub about: &'a About,
    /// The machine.
    pub machine: &'a Machine,
    /// Its clock.
    pub clock: Clock,
    /// What the VMM exported.
    pub processor: &'a Exported,
    /// The wiring.
    pub board: &'a Board,
    /// Device processes, in the order of their slots, with their memory.
    pub devices: Vec<(&'a Device, Option<&'a dyn Source>)>,
    /// The serial ports.
    pub serial: &'a [SerialPort],
    /// Input that no process was told yet.
    pub input: &'a [HostEvent],
    /// Files, with the content of those that are kept inside.
    pub files: Vec<(&'a MachineFile, Option<&'a dyn Source>)>,
    /// Guest RAM.
    pub ram: &'a dyn Source,
}

impl Contents<'_> {
    /// Writes it all into an empty file, as long as `goes_on` says so.
    ///
    /// # Errors
    /// [`SavedError::Io`].
    pub fn write<W: Write + Seek>(&self, to: W, goes_on: &dyn Fn() -> bool) -> Result<W, SavedError> {
        let mut writer = Writer::new(to)?;
        let mut whole = |name, value: &dyn Fn() -> postcard::Result<Vec<u8>>, optional| {
            put_value(&mut writer, name, optional, &value())
        };
        whole(section::ABOUT, &|| postcard::to_stdvec(self.about), true)?;
        whole(section::MACHINE, &|| postcard::to_stdvec(self.machine), false)?;
        whole(section::CLOCK, &|| postcard::to_stdvec(&self.clock), false)?;
        whole(section::BOARD, &|| postcard::to_stdvec(self.board), false)?;
        whole(section::SERIAL, &|| postcard::to_stdvec(self.serial), false)?;
        whole(section::INPUT, &|| postcard::to_stdvec(self.input), false)?;
        // Its owner knows its version.
        let (name, _) = section::PROCESSOR;
        writer.section(name, self.processor.version, false, |to| Ok(to.write_all(&self.processor.data)?))?;
        for (device, memory) in &self.devices {
            put_value(&mut writer, section::DEVICE, false, &postcard::to_stdvec(device))?;
            put_memory(&mut writer, section::DEVICE_MEMORY, *memory, goes_on)?;
        }
        for (file, content) in &self.files {
            put_value(&mut writer, section::FILE, false, &postcard::to_stdvec(file))?;
            put_memory(&mut writer, section::FILE_CONTENT, *content, goes_on)?;
        }
        put_memory(&mut writer, section::RAM, Some(self.ram), goes_on)?;
        writer.finish()
    }
}

fn put_value<W: Write + Seek>(
    writer: &mut Writer<W>,
    (name, version): (&str, u16),
    optional: bool,
    value: &postcard::Result<Vec<u8>>,
) -> Result<(), SavedError> {
    let data = value.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
    writer.section(name, version, optional, |to| Ok(to.write_all(data)?))
}

fn put_memory<W: Write + Seek>(
    writer: &mut Writer<W>,
    (name, version): (&str, u16),
    source: Option<&dyn Source>,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), SavedError> {
    let Some(source) = source else { return Ok(()) };
    writer.section(name, version, false, |to| memory::write(source, to, goes_on))
}

/// A section with memory, and how much it is.
#[derive(Clone, Debug)]
struct MemorySection {
    section: Section,
    len: u64,
}

/// A saved VM, read and checked but for what its memory and files contain.
pub struct SavedVm<R: Read + Seek = BufReader<File>> {
    reader: Reader<R>,
    /// Where it is from.
    pub about: About,
    /// The machine.
    pub machine: Machine,
    /// Its clock.
    pub clock: Clock,
    /// For the VMM.
    pub processor: Exported,
    /// The wiring.
    pub board: Board,
    /// Device processes, in the order of their slots.
    pub devices: Vec<Device>,
    /// The serial ports.
    pub serial: Vec<SerialPort>,
    /// Input that no process was told yet.
    pub input: Vec<HostEvent>,
    /// Files.
    pub files: Vec<MachineFile>,
    device_memory: Vec<Option<MemorySection>>,
    file_content: Vec<Option<MemorySection>>,
    ram: MemorySection,
}

impl SavedVm {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn open(path: &Path) -> Result<Self, SavedError> {
        Self::read(BufReader::new(File::open(path)?))
    }
}

impl<R: Read + Seek> SavedVm<R> {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SavedError`], which names the section.
    pub fn read(file: R) -> Result<Self, SavedError> {
        let mut reader = Reader::new(file)?;
        let mut parts = Parts::default();
        for section in reader.sections().to_vec() {
            parts.take(&mut reader, &section)?;
        }
        let missing = |(name, _): (&str, u16)| SavedError::Missing(name.into());
        let vm = Self {
            reader,
            about: parts.about.unwrap_or_default(),
            machine: parts.machine.ok_or_else(|| missing(section::MACHINE))?,
            clock: parts.clock.ok_or_else(|| missing(section::CLOCK))?,
            processor: parts.processor.ok_or_else(|| missing(section::PROCESSOR))?,
            board: parts.board.ok_or_else(|| missing(section::BOARD))?,
            serial: parts.serial.ok_or_else(|| missing(section::SERIAL))?,
            input: parts.input.ok_or_else(|| missing(section::INPUT))?,
            devices: parts.devices,
            device_memory: parts.device_memory,
            files: parts.files,
            file_content: parts.file_content,
            ram: parts.ram.ok_or_else(|| missing(section::RAM))?,
        };
        vm.check()?;
        Ok(vm)
    }

    /// What no VM has: sections may be whole each and yet not belong together.
    fn check(&self) -> Result<(), SavedError> {
        let refuse = |(name, _): (&str, u16), what: String| Err(SavedError::corrupt(name, what));
        let config = &self.machine.config;
        if config.ram_bytes != self.ram.len || !(1..=MAX_RAM).contains(&self.ram.len) {
            let what = format!("has {} bytes where the machine has {}", self.ram.len, config.ram_bytes);
            return refuse(section::RAM, what);
        }
        let cpu = Processor::decode(&self.processor)?.cpu;
        if config.cpu.parse() != Ok(cpu.model) {
            return refuse(section::PROCESSOR, format!("is not of a {}, as the machine has it", config.cpu));
        }
        let names = self.machine.devices.iter().map(|device| &device.name);
        if !names.eq(self.devices.iter().map(|device| &device.name)) || self.devices.len() > MAX_DEVICES {
            return refuse(section::DEVICE, "is not there for each device process of the machine".into());
        }
        for device in &self.devices {
            let states = device.models.iter().filter_map(|model| model.state.as_ref());
            if device.models.len() > MAX_MODELS
                || device.events.len() > EVENT_SLOTS
                || device.fault_counts.len() > MAX_FAULTS
                || device.line_faults.len() > ALL_LINES
                || states.map(|state| state.data.len()).any(|len| len > STATE_BYTES)
            {
                return refuse(section::DEVICE, format!("has more than fits for '{}'", device.name));
            }
        }
        if self.board.edges.len() != ALL_LINES || self.input.len() > MAX_INPUT {
            return refuse(section::BOARD, "is that of another machine".into());
        }
        for (file, content) in self.files.iter().zip(&self.file_content) {
            if file.outside.is_none() && content.is_none() {
                return refuse(section::FILE, format!("has no content for {}", file.path.display()));
            }
        }
        let drives = (0..).map(Use::Floppy).zip(&config.floppies);
        let drives = drives.chain((0..).map(Use::Disk).zip(&config.disks));
        let drives = drives.filter(|(_, drive)| drive.is_some()).map(|(used_as, _)| used_as);
        let rom = config.video_rom.is_some().then_some(Use::VideoRom);
        for used_as in drives.chain([Use::Firmware]).chain(rom) {
            if self.files.iter().filter(|file| file.used_as == used_as).count() != 1 {
                return refuse(section::FILE, format!("is missing, or there twice, for {used_as:?}"));
            }
        }
        Ok(())
    }

    /// Puts the bytes of RAM that are not zero where they belong.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn read_ram(&mut self, put: impl FnMut(u64, &[u8]) -> io::Result<()>) -> Result<(), SavedError> {
        read_memory(&mut self.reader, &self.ram, put)
    }

    /// How much device memory process number `index` has.
    pub fn device_memory_len(&self, index: usize) -> Option<u64> {
        self.device_memory.get(index)?.as_ref().map(|memory| memory.len)
    }

    /// Puts the bytes of device memory of process number `index` that are not zero where they belong.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn read_device_memory(
        &mut self,
        index: usize,
        put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SavedError> {
        let Some(Some(memory)) = self.device_memory.get(index) else { return Ok(()) };
        read_memory(&mut self.reader, memory, put)
    }

    /// Length of file number `index` where it is kept inside.
    pub fn file_len(&self, index: usize) -> Option<u64> {
        self.file_content.get(index)?.as_ref().map(|content| content.len)
    }

    /// Puts the bytes of file number `index` that are not zero where they belong.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn read_file(
        &mut self,
        index: usize,
        put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), SavedError> {
        let Some(Some(content)) = self.file_content.get(index) else { return Ok(()) };
        read_memory(&mut self.reader, content, put)
    }
}

fn read_memory<R: Read + Seek>(
    reader: &mut Reader<R>,
    memory: &MemorySection,
    put: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), SavedError> {
    let name = &memory.section.name;
    let mut content = reader.open(&memory.section)?;
    let len = memory::read_len(name, &mut content, memory.len)?;
    memory::read_blocks(name, &mut content, len, put)
}

/// What was read so far.
#[derive(Default)]
struct Parts {
    about: Option<About>,
    machine: Option<Machine>,
    clock: Option<Clock>,
    processor: Option<Exported>,
    board: Option<Board>,
    serial: Option<Vec<SerialPort>>,
    input: Option<Vec<HostEvent>>,
    devices: Vec<Device>,
    device_memory: Vec<Option<MemorySection>>,
    files: Vec<MachineFile>,
    file_content: Vec<Option<MemorySection>>,
    ram: Option<MemorySection>,
}

impl Parts {
    fn take<R: Read + Seek>(&mut self, reader: &mut Reader<R>, section: &Section) -> Result<(), SavedError> {
        let known = [
            section::ABOUT,
            section::MACHINE,
            section::CLOCK,
            section::PROCESSOR,
            section::BOARD,
            section::DEVICE,
            section::DEVICE_MEMORY,
            section::SERIAL,
            section::INPUT,
            section::FILE,
            section::FILE_CONTENT,
            section::RAM,
        ];
        let Some(known) = known.into_iter().find(|(name, _)| *name == section.name) else {
            return if section.optional {
                tracing::info!("Section '{}' is unknown to this build and left out", section.name);
                Ok(())
            } else {
                Err(SavedError::UnknownSection(section.name.clone()))
            };
        };
        let (_, newest) = known;
        if section.version > newest {
            let (found, known) = (section.version, newest);
            return Err(SavedError::NewerSection { section: section.name.clone(), found, known });
        }
        if section.version == 0 {
            return Err(SavedError::corrupt(&section.name, "has version 0"));
        }
        match known {
            section::ABOUT => once(&mut self.about, section, || value(reader, section)),
            section::MACHINE => once(&mut self.machine, section, || value(reader, section)),
            section::CLOCK => once(&mut self.clock, section, || value(reader, section)),
            section::BOARD => once(&mut self.board, section, || value(reader, section)),
            section::SERIAL => once(&mut self.serial, section, || {
                value_since(2, reader, section, |cables: Vec<UnderWay>| {
                    cables.into_iter().map(SerialPort::from).collect()
                })
            }),
            section::INPUT => once(&mut self.input, section, || value(reader, section)),
            section::PROCESSOR => once(&mut self.processor, section, || {
                Ok(Exported { version: section.version, data: reader.read(section)? })
            }),
            section::RAM => once(&mut self.ram, section, || memory(reader, section, MAX_RAM)),
            section::DEVICE => {
                self.devices.push(value_since(2, reader, section, |device: older::Device1| device.into())?);
                self.device_memory.push(None);
                Ok(())
            }
            section::DEVICE_MEMORY => {
                let memory = memory(reader, section, MAX_MEMORY)?;
                belongs_to_last(&mut self.device_memory, section, memory)
            }
            section::FILE => {
                self.files.push(value(reader, section)?);
                self.file_content.push(None);
                Ok(())
            }
            _ => {
                let content = memory(reader, section, MAX_FILE)?;
                belongs_to_last(&mut self.file_content, section, content)
            }
        }
    }
}

fn once<T>(
    place: &mut Option<T>,
    section: &Section,
    read: impl FnOnce() -> Result<T, SavedError>,
) -> Result<(), SavedError> {
    if place.is_some() {
        return Err(SavedError::corrupt(&section.name, "is there twice"));
    }
    *place = Some(read()?);
    Ok(())
}

fn belongs_to_last(
    places: &mut [Option<MemorySection>],
    section: &Section,
    memory: MemorySection,
) -> Result<(), SavedError> {
    match places.last_mut() {
        Some(place @ None) => *place = Some(memory),
        _ => return Err(SavedError::corrupt(&section.name, "belongs to nothing")),
    }
    Ok(())
}

fn value<R: Read + Seek, T: DeserializeOwned>(
    reader: &mut Reader<R>,
    section: &Section,
) -> Result<T, SavedError> {
    decode(&section.name, &reader.read(section)?)
}

/// A value whose form is that of now since `version`, and was `O` before.
fn value_since<R: Read + Seek, T: DeserializeOwned, O: DeserializeOwned>(
    version: u16,
    reader: &mut Reader<R>,
    section: &Section,
    renew: impl FnOnce(O) -> T,
) -> Result<T, SavedError> {
    if section.version < version { value(reader, section).map(renew) } else { value(reader, section) }
}

fn decode<T: DeserializeOwned>(section: &str, data: &[u8]) -> Result<T, SavedError> {
    match postcard::take_from_bytes(data) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(SavedError::corrupt(section, "is longer than what is in it")),
        Err(error) => Err(SavedError::corrupt(section, format!("cannot be decoded ({error})"))),
    }
}

fn memory<R: Read + Seek>(
    reader: &mut Reader<R>,
    section: &Section,
    most: u64,
) -> Result<MemorySection, SavedError> {
    let len = memory::read_len(&section.name, &mut reader.open(section)?, most)?;
    Ok(MemorySection { section: section.clone(), len })
}

#[cfg(test)]
mod tests;
