//! Finds the system's SeaBIOS and VGA ROM, or fetches the distribution's package of them.
//!
//! Nothing here needs root: a package is downloaded and unpacked into the user's cache.

mod deb;
mod error;
mod fetch;
#[cfg(test)]
mod tests;

pub use error::FirmwareError;
pub use fetch::fetch_package;
pub(crate) use fetch::{Fetch, package_directory, work_directory};

use indicatif::ProgressBar;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file, or a directory that is searched before all others (like `--firmware`).
pub const FIRMWARE_VARIABLE: &str = "VMSIM_FIRMWARE";
/// Set to anything but `0`: nothing is ever downloaded.
pub const OFFLINE_VARIABLE: &str = "VMSIM_OFFLINE";
/// A directory of `.deb` files that are used instead of downloading.
pub const PACKAGES_VARIABLE: &str = "VMSIM_PACKAGES";

/// The package that holds both ROMs.
const SEABIOS_PACKAGE: &str = "seabios";
const MEMTEST_PACKAGE: &str = "memtest86+";
/// Memtest86+ exists for PCs only, so its package is fetched for one whatever the host is.
const MEMTEST_ARCHITECTURE: &str = "amd64";
/// Where distributions put the ROMs.
const SYSTEM_DIRECTORIES: [&str; 8] = [
    "/usr/share/seabios",
    "/usr/share/seavgabios",
    "/usr/share/vgabios",
    "/usr/share/qemu",
    "/usr/share/qemu-kvm",
    "/usr/share/kvm",
    "/usr/local/share/seabios",
    "/usr/local/share/qemu",
];
const BIOS_NAMES: [&str; 2] = ["bios-256k.bin", "bios.bin"];
const VGA_NAMES: [&str; 3] = ["vgabios-stdvga.bin", "vgabios.bin", "vgabios-isavga.bin"];
const MEMTEST_KERNELS: [&str; 3] =
    ["boot/memtest86+ia32.bin", "boot/memtest86+/memtest.bin", "boot/memtest86+-ia32.bin"];
/// A system ROM is a whole number of these.
const BIOS_UNIT: u64 = 64 * 1024;
const BIOS_MAX: u64 = 16 * 1024 * 1024;
const RESET_VECTOR_BYTES: usize = 16;
const OPTION_ROM_SIGNATURE: [u8; 2] = [0x55, 0xAA];
/// An option ROM's length byte counts these.
const OPTION_ROM_UNIT: u64 = 512;
const OPTION_ROM_MAX: u64 = 256 * 1024;
/// Where the Linux boot protocol has its signature, and the signature.
const LINUX_SIGNATURE_AT: usize = 0x202;
const LINUX_SIGNATURE: &[u8] = b"HdrS";

/// The ROM images a PC starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The system ROM.
    pub bios: PathBuf,
    /// The VGA option ROM.
    pub vga_rom: PathBuf,
    /// Where they came from, for people.
    pub source: String,
}

/// Where to look, and whether the network may be asked.
#[derive(Clone, Debug)]
pub struct Search {
    /// What the user asked for: a directory with both ROMs, or a system ROM. Nothing else is
    /// taken for a ROM that is given this way.
    pub chosen: Option<PathBuf>,
    /// Directories of the system, in order.
    pub system: Vec<PathBuf>,
    /// This project's folder in the user's cache; `None`: there is no home directory.
    pub cache: Option<PathBuf>,
    /// Never download.
    pub offline: bool,
    /// A directory of packages to use instead of downloading.
    pub packages: Option<PathBuf>,
}

impl Search {
    /// The usual places, as the environment says.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let cache = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // The XDG specification says to ignore a relative path.
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
            .map(|path| path.join("vmsim"));
        Self {
            chosen: variable(FIRMWARE_VARIABLE).map(PathBuf::from),
            system: SYSTEM_DIRECTORIES.iter().map(PathBuf::from).collect(),
            cache,
            offline: variable(OFFLINE_VARIABLE).is_some_and(|value| value != "0"),
            packages: variable(PACKAGES_VARIABLE).map(PathBuf::from),
        }
    }

    pub(crate) fn cache(&self) -> Result<&Path, FirmwareError> {
        self.cache.as_deref().ok_or(FirmwareError::NoCache)
    }

    fn firmware_cache(&self) -> Result<PathBuf, FirmwareError> {
        Ok(self.cache()?.join("firmware"))
    }
}

/// Finds SeaBIOS and its VGA ROM on this system or in the cache, or fetches them into the cache.
pub fn find_or_fetch(progress: &ProgressBar) -> Result<Firmware, FirmwareError> {
    find_or_fetch_in(&Search::from_environment(), progress)
}

/// [`find_or_fetch`] with the places given.
pub fn find_or_fetch_in(search: &Search, progress: &ProgressBar) -> Result<Firmware, FirmwareError> {
    if let Some(found) = find(search)? {
        return Ok(found);
    }
    if search.offline && search.packages.is_none() {
        return Err(FirmwareError::Offline { what: "SeaBIOS" });
    }
    let unpacked = fetch::fetch_package_in(search, SEABIOS_PACKAGE, None, progress)?;
    let from = unpacked.join("usr/share/seabios");
    let missing = || not_in_package(SEABIOS_PACKAGE, &unpacked);
    let bios = find_bios(&from).ok_or_else(missing)?;
    let vga_rom = find_vga_rom(&from).ok_or_else(missing)?;
    let cache = search.firmware_cache()?;
    Ok(Firmware {
        bios: install(&bios, &cache)?,
        vga_rom: install(&vga_rom, &cache)?,
        source: format!("the distribution's package {SEABIOS_PACKAGE}, kept in {}", cache.display()),
    })
}

/// Finds both ROMs without asking the network.
pub fn find(search: &Search) -> Result<Option<Firmware>, FirmwareError> {
    let mut directories = search.system.clone();
    directories.extend(search.firmware_cache().ok());
    let Some(chosen) = &search.chosen else {
        // Both from one place when possible: they are built together.
        let pair =
            directories.iter().find_map(|directory| Some((find_bios(directory)?, find_vga_rom(directory)?)));
        let bios = || directories.iter().find_map(|directory| find_bios(directory));
        let vga_rom = || directories.iter().find_map(|directory| find_vga_rom(directory));
        return Ok(pair.or_else(|| Some((bios()?, vga_rom()?))).map(|(bios, vga_rom)| {
            let source = bios.parent().unwrap_or(Path::new("/")).display().to_string();
            Firmware { bios, vga_rom, source }
        }));
    };
    let refuse = |reason: String| FirmwareError::Unusable { path: chosen.clone(), reason };
    let (bios, directory) = if chosen.is_dir() {
        let bios =
            find_bios(chosen).ok_or_else(|| refuse(format!("it holds no {}", BIOS_NAMES.join(" or "))))?;
        (bios, chosen.as_path())
    } else {
        check_bios(chosen).map_err(refuse)?;
        (chosen.clone(), chosen.parent().unwrap_or(Path::new(".")))
    };
    directories.insert(0, directory.to_owned());
    let Some(vga_rom) = directories.iter().find_map(|directory| find_vga_rom(directory)) else {
        return Err(refuse(format!("no {} beside it or on this system", VGA_NAMES[0])));
    };
    Ok(Some(Firmware { bios, vga_rom, source: chosen.display().to_string() }))
}

/// Finds the 32-bit Memtest86+ (a kernel of the Linux boot protocol), or fetches it into the cache.
///
/// [`crate::recipes::memtest_floppy`] makes a bootable floppy of it.
pub fn find_or_fetch_memtest(progress: &ProgressBar) -> Result<PathBuf, FirmwareError> {
    find_or_fetch_memtest_in(&Search::from_environment(), Path::new("/"), progress)
}

/// [`find_or_fetch_memtest`] with the places given; `root` is the system's root directory.
pub fn find_or_fetch_memtest_in(
    search: &Search,
    root: &Path,
    progress: &ProgressBar,
) -> Result<PathBuf, FirmwareError> {
    let find = |directory: &Path| {
        MEMTEST_KERNELS.iter().map(|name| directory.join(name)).find(|path| is_linux_kernel(path))
    };
    if let Some(kernel) = find(root) {
        return Ok(kernel);
    }
    if let Some(kernel) =
        search.cache.as_deref().and_then(|cache| find(&package_directory(cache, MEMTEST_PACKAGE)))
    {
        return Ok(kernel);
    }
    if search.offline && search.packages.is_none() {
        return Err(FirmwareError::Offline { what: "Memtest86+" });
    }
    let unpacked = fetch::fetch_package_in(search, MEMTEST_PACKAGE, Some(MEMTEST_ARCHITECTURE), progress)?;
    find(&unpacked).ok_or_else(|| not_in_package(MEMTEST_PACKAGE, &unpacked))
}

/// Forgets a package that turned out useless, so that a better one can be fetched later.
fn not_in_package(package: &str, unpacked: &Path) -> FirmwareError {
    if let Err(error) = fs::remove_dir_all(unpacked) {
        tracing::debug!("could not remove {}: {error}", unpacked.display());
    }
    FirmwareError::NotInPackage { package: package.into() }
}

fn find_bios(directory: &Path) -> Option<PathBuf> {
    BIOS_NAMES.iter().map(|name| directory.join(name)).find(|path| check_bios(path).is_ok())
}

fn find_vga_rom(directory: &Path) -> Option<PathBuf> {
    VGA_NAMES.iter().map(|name| directory.join(name)).find(|path| is_option_rom(path))
}

/// Whether `path` can be a system ROM; says why not.
fn check_bios(path: &Path) -> Result<(), String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length == 0 || length > BIOS_MAX || !length.is_multiple_of(BIOS_UNIT) {
        return Err(format!("{length} bytes is not the size of a system ROM (a multiple of 64 KiB)"));
    }
    let rom = fs::read(path).map_err(|error| error.to_string())?;
    let vector = rom.last_chunk::<RESET_VECTOR_BYTES>().ok_or("it is empty")?;
    if vector.iter().all(|byte| *byte == 0) || vector.iter().all(|byte| *byte == 0xFF) {
        return Err("there is no code at its reset vector".into());
    }
    Ok(())
}

/// Whether `path` is an option ROM whose length byte fits the file.
fn is_option_rom(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    if metadata.len() > OPTION_ROM_MAX {
        return false;
    }
    let Ok(rom) = fs::read(path) else { return false };
    match rom.get(..3) {
        Some([first, second, units]) => {
            [*first, *second] == OPTION_ROM_SIGNATURE && u64::from(*units) * OPTION_ROM_UNIT <= metadata.len()
        }
        _ => false,
    }
}

fn is_linux_kernel(path: &Path) -> bool {
    let signature = LINUX_SIGNATURE_AT..LINUX_SIGNATURE_AT + LINUX_SIGNATURE.len();
    fs::read(path).is_ok_and(|kernel| kernel.get(signature) == Some(LINUX_SIGNATURE))
}

/// Copies `file` into `directory`; a reader there sees either nothing or the whole file.
fn install(file: &Path, directory: &Path) -> Result<PathBuf, FirmwareError> {
    let target = directory.join(file.file_name().unwrap_or_default());
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(&fs::read(file)?)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&target)?;
        Ok(())
    };
    copy().map_err(|source| FirmwareError::Cache { path: target.clone(), source })?;
    Ok(target)
}
