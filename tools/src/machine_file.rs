//! The machine file: TOML that describes a virtual PC. Unknown keys are errors.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A machine file, as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFile {
    /// Name of the VM.
    pub name: Option<String>,
    /// CPU model: pentium2, pentium3, max.
    pub cpu: Option<String>,
    /// Engine: shadow, interp.
    pub engine: Option<String>,
    /// Guest RAM, such as "64M".
    pub ram: Option<String>,
    /// Boot order: "a", "c" or both.
    pub boot: Option<OneOrMany>,
    /// What shows the picture: auto, window, terminal, none.
    pub display: Option<String>,
    /// System firmware.
    pub firmware: Option<PathBuf>,
    /// Option ROM of the graphics adapter.
    pub video_rom: Option<PathBuf>,
    /// File that keeps the CMOS RAM.
    pub cmos: Option<PathBuf>,
    /// File for debug port text.
    pub debug_console: Option<PathBuf>,
    /// Other end of COM1: what `--serial` takes.
    pub serial1: Option<SerialEnd>,
    /// Other end of COM2.
    pub serial2: Option<SerialEnd>,
    /// Floppy drives, A first.
    #[serde(default)]
    pub floppy: Vec<Drive>,
    /// Hard disks: primary master, primary slave, secondary master, secondary slave.
    #[serde(default)]
    pub disk: Vec<Drive>,
    /// Device processes that are not the built-in ones.
    #[serde(default)]
    pub device: BTreeMap<String, DeviceProcess>,
    /// What is to go wrong on the links of device processes.
    #[serde(default)]
    pub fault: Vec<FaultEntry>,
    /// Decides where a fault has a chance; 0 without it.
    #[serde(default)]
    pub fault_seed: u64,
}

/// `[[fault]]`, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEntry {
    /// The device process.
    pub device: String,
    /// `delay-interrupt`, `drop-interrupt`, `repeat-interrupt`, `float-read`, `short-dma`, `kill`.
    pub what: String,
    /// Event number so much.
    pub at: Option<u64>,
    /// Each so-manieth event.
    pub every: Option<u64>,
    /// Share of the events.
    pub chance: Option<f64>,
    /// The line, of interrupts.
    pub irq: Option<u8>,
    /// The PCI interrupt line.
    pub pirq: Option<u8>,
    /// Port or address, of reads and requests.
    pub address: Option<u64>,
    /// Lateness.
    pub micros: Option<u64>,
    /// What arrives of a DMA transfer.
    pub bytes: Option<u64>,
}

/// The other end of a serial port, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum SerialEnd {
    /// `none`: nothing.
    None,
    /// `socket` or `socket:PATH`: a Unix socket, in the VM's directory or at a path.
    Socket(Option<PathBuf>),
    /// `pty`: a pseudo-terminal.
    Pty,
    /// `stdio` or `-`: the terminal that starts the VM.
    Stdio,
    /// A file that takes the output.
    File(PathBuf),
}

impl From<String> for SerialEnd {
    fn from(text: String) -> Self {
        match text.as_str() {
            "none" => Self::None,
            "socket" => Self::Socket(None),
            "pty" => Self::Pty,
            "stdio" | "-" => Self::Stdio,
            other => match other.strip_prefix("socket:") {
                Some(path) => Self::Socket(Some(path.into())),
                None => Self::File(text.into()),
            },
        }
    }
}

impl SerialEnd {
    fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Socket(path) => path.as_mut(),
            Self::File(path) => Some(path),
            Self::None | Self::Pty | Self::Stdio => None,
        }
    }
}

/// One value or a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// `[[floppy]]` or `[[disk]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Image file.
    pub path: PathBuf,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// Cylinders, heads, sectors per track.
    pub geometry: Option<[u16; 3]>,
}

/// `[device.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceProcess {
    /// Executable to run, as `EXE NAME --attach VM`; without one, the built-in models.
    pub exe: Option<PathBuf>,
    /// Where its link is recorded from power-on.
    pub record: Option<PathBuf>,
    /// Ranges of guest RAM that it may reach by DMA, as `0-16M`; without them, what its models ask for.
    pub dma: Option<Vec<String>>,
    /// Seconds without any progress after which it is taken for hung; 0: never.
    pub watchdog: Option<f64>,
    /// Whether it goes into a sandbox once its models are built.
    #[serde(default = "yes")]
    pub sandbox: bool,
}

fn yes() -> bool {
    true
}

impl MachineFile {
    /// Reads a machine file. Paths in it are relative to the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("Cannot read machine file {}", path.display()))?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("{}, line {line}: {}", path.display(), error.message())
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let fix = |p: &mut PathBuf| *p = base.join(&*p);
        let optional = [&mut file.firmware, &mut file.video_rom, &mut file.cmos, &mut file.debug_console];
        optional.into_iter().flatten().filter(|p| p.as_os_str() != "-").for_each(fix);
        let ends = [&mut file.serial1, &mut file.serial2].into_iter().flatten();
        ends.filter_map(SerialEnd::path_mut).for_each(fix);
        file.floppy.iter_mut().chain(&mut file.disk).map(|d| &mut d.path).for_each(fix);
        file.device.values_mut().flat_map(|d| d.exe.iter_mut().chain(&mut d.record)).for_each(fix);
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MachineFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.toml");
        std::fs::write(&path, text).unwrap();
        MachineFile::read(&path)
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = read("ram = \"64M\"\nramm = \"1M\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("ramm"), "{error}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let file =
            read("[[floppy]]\npath = \"dos.img\"\nread_only = true\n[device.gpu]\nexe = \"/bin/gpu\"\n")
                .unwrap();
        assert!(file.floppy[0].path.is_absolute() && file.floppy[0].read_only);
        assert_eq!(file.device["gpu"].exe, Some(PathBuf::from("/bin/gpu")));
    }

    #[test]
    fn ends_of_serial_ports_are_words_or_paths_relative_to_the_file() {
        let file = read("serial1 = \"socket:com1\"\nserial2 = \"pty\"\n").unwrap();
        assert!(matches!(file.serial1, Some(SerialEnd::Socket(Some(path))) if path.is_absolute()));
        assert_eq!(file.serial2, Some(SerialEnd::Pty));
        let file = read("serial1 = \"-\"\nserial2 = \"com2.log\"\n").unwrap();
        assert_eq!(file.serial1, Some(SerialEnd::Stdio));
        assert!(matches!(file.serial2, Some(SerialEnd::File(path)) if path.is_absolute()));
    }
}
