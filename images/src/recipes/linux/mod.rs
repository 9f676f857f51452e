//! A hard disk that starts Debian's stock i386 kernel with a busybox initramfs.
//!
//! Kernel and busybox come from the distribution's packages, kept in the user's cache; boot loader
//! and scripts are this project's own.

mod cpio;
mod disk;
#[path = "../../../boot/layout.rs"]
#[allow(dead_code, reason = "the loader's source uses the rest")]
mod layout;
mod modules;
#[cfg(test)]
mod tests;

use super::{RecipeError, check_kernel};
use crate::disk::{create_with, display_size};
use crate::firmware::{Fetch, FirmwareError, Search, package_directory, work_directory};
use flate2::{Compression, Crc, write::GzEncoder};
use indicatif::ProgressBar;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Size of the disk unless told otherwise.
pub const DEFAULT_SIZE: u64 = 64 << 20;
/// Guest RAM that this Linux is comfortable with; it needs 64 MiB.
pub const RAM: u64 = 128 << 20;
/// Consoles unless told otherwise; the last one is where the kernel's own programs write.
pub const DEFAULT_CONSOLES: [&str; 2] = ["ttyS0,115200", "tty0"];
/// What the guest says on each console when its shell is there.
pub const READY: &str = "VMSIM-LINUX-READY";
const SIZE_MIN: u64 = 32 << 20;
const SIZE_MAX: u64 = 1 << 40;

const ARCHITECTURE: &str = "i386";
/// The empty package that depends on the current kernel for machines without PAE.
const KERNEL_META_PACKAGE: &str = "linux-image-686";
const KERNEL_PREFIX: &str = "linux-image-";
const KERNEL_SUFFIX: &str = "-686";
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// The cache keeps busybox under a name that a host's own busybox could not have.
const BUSYBOX_KEPT_AS: &str = "busybox-static-i386";
const BUSYBOX_FILES: [&str; 2] = ["bin/busybox", "usr/bin/busybox"];
const MODULES_FOLDERS: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// Folders of the kernel's modules that are unpacked.
const MODULES_KEPT: [&str; 12] = [
    "arch",
    "block",
    "crypto",
    "lib",
    "drivers/ata",
    "drivers/scsi",
    "drivers/block",
    "drivers/cdrom",
    "drivers/input",
    "fs/fat",
    "fs/nls",
    "fs/isofs",
];
/// What goes into the initramfs, together with what it depends on.
const MODULES: [&str; 17] = [
    "crct10dif_generic",
    "crc64_rocksoft_generic",
    "sd_mod",
    "ata_piix",
    "ata_generic",
    "pata_legacy",
    "sr_mod",
    "floppy",
    "loop",
    "psmouse",
    "evdev",
    "msdos",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "isofs",
];
/// Tells a debugger's user that addresses are those the kernel was linked for.
const ALWAYS: &str = "nokaslr";
const QUIET: &str = "quiet";

const KERNEL_FILE: &str = "VMLINUZ";
const INITRD_FILE: &str = "INITRD.GZ";
const README: &str = include_str!("guest/README.TXT");
const TEST_FILE: &str = "TEST.BIN";
const TEST_BYTES: usize = 1 << 20;
const TEST_SEED: u32 = 0x564D_5369;

/// Directories of the initramfs.
const DIRECTORIES: [&str; 22] = [
    "bin",
    "cdrom",
    "dev",
    "etc",
    "etc/init.d",
    "floppy",
    "lib",
    "lib/modules",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "var",
    "var/log",
    "var/run",
    "var/tmp",
];
/// Scripts and settings of the initramfs: name, permissions, content.
const GUEST_FILES: [(&str, u32, &str); 10] = [
    ("init", 0o755, include_str!("guest/init")),
    ("etc/inittab", 0o644, include_str!("guest/inittab")),
    ("etc/init.d/rcS", 0o755, include_str!("guest/rcS")),
    ("etc/init.d/console", 0o755, include_str!("guest/console")),
    ("etc/fstab", 0o644, include_str!("guest/fstab")),
    ("etc/profile", 0o644, include_str!("guest/profile")),
    ("etc/motd", 0o644, include_str!("guest/motd")),
    ("etc/hostname", 0o644, "vmsim\n"),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\n"),
];
const CONSOLE: (&str, u32, u32) = ("dev/console", 5, 1);
const NULL: (&str, u32, u32) = ("dev/null", 1, 3);

/// Folder of the cache that made images are kept in.
const IMAGES: &str = "images";
const CACHED_IMAGE: &str = "linux.img";
/// What the cached image was made of.
const CACHED_KEY: &str = "linux.key";

/// What the disk is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the disk.
    pub size: u64,
    /// The kernel's consoles (`console=`).
    pub consoles: Vec<String>,
    /// More for the kernel's command line.
    pub append: String,
    /// Let the kernel show its messages while it starts.
    pub messages: bool,
}

impl Default for Options {
    fn default() -> Self {
        let consoles = DEFAULT_CONSOLES.map(str::to_owned).to_vec();
        Self { size: DEFAULT_SIZE, consoles, append: String::new(), messages: false }
    }
}

impl Options {
    fn command_line(&self) -> String {
        let consoles = self.consoles.iter().map(|console| format!("console={console}"));
        let mut words: Vec<String> = consoles.chain([ALWAYS.to_owned()]).collect();
        if !self.messages {
            words.push(QUIET.to_owned());
        }
        if !self.append.is_empty() {
            words.push(self.append.clone());
        }
        words.join(" ")
    }

    fn check(&self) -> Result<(), RecipeError> {
        let line = self.command_line();
        if line.len() >= layout::COMMAND_LINE_BYTES || line.contains('\0') {
            return Err(RecipeError::CommandLine { length: line.len(), max: layout::COMMAND_LINE_BYTES - 1 });
        }
        if !(SIZE_MIN..=SIZE_MAX).contains(&self.size) || !self.size.is_multiple_of(layout::SECTOR as u64) {
            return Err(RecipeError::Size {
                size: display_size(self.size),
                min: display_size(SIZE_MIN),
                max: display_size(SIZE_MAX),
            });
        }
        Ok(())
    }
}

/// Makes the new disk `path`. What it needs is fetched into the cache when it is not there.
pub fn create(path: &Path, options: &Options, progress: &ProgressBar) -> Result<(), RecipeError> {
    options.check()?;
    let parts = Parts::find_or_fetch(&Search::from_environment(), progress)?;
    progress.set_message("Writing the disk");
    parts.write(path, options)
}

/// The disk with default options in the user's cache, made when it is not there or not up to date.
///
/// A guest writes to its disk: give it a copy.
pub fn cached(progress: &ProgressBar) -> Result<PathBuf, RecipeError> {
    cached_in(&Search::from_environment(), progress)
}

/// [`cached`] with the places given.
pub fn cached_in(search: &Search, progress: &ProgressBar) -> Result<PathBuf, RecipeError> {
    let parts = Parts::find_or_fetch(search, progress)?;
    let options = Options::default();
    let folder = search.cache()?.join(IMAGES);
    let (image, key_file) = (folder.join(CACHED_IMAGE), folder.join(CACHED_KEY));
    let key = parts.key(&options);
    if image.is_file() && fs::read_to_string(&key_file).is_ok_and(|made_of| made_of == key) {
        return Ok(image);
    }
    progress.set_message("Writing the disk");
    let cache_error = |source| FirmwareError::Cache { path: image.clone(), source };
    // Whoever looks meanwhile sees a whole image, and its key only after it.
    let work = work_directory(&folder).map_err(cache_error)?;
    let (new_image, new_key) = (work.path().join(CACHED_IMAGE), work.path().join(CACHED_KEY));
    parts.write(&new_image, &options)?;
    fs::write(&new_key, &key).map_err(cache_error)?;
    fs::rename(&new_image, &image).and_then(|()| fs::rename(&new_key, &key_file)).map_err(cache_error)?;
    Ok(image)
}

/// What a disk is made of.
struct Parts {
    kernel: Vec<u8>,
    /// Uncompressed.
    initramfs: Vec<u8>,
}

impl Parts {
    fn find_or_fetch(search: &Search, progress: &ProgressBar) -> Result<Self, RecipeError> {
        let (kernel, busybox) = packages(search, progress).map_err(unavailable)?;
        progress.set_message("Making the initramfs");
        Self::from_packages(&kernel, &busybox).inspect_err(|_| {
            // Useless as they are: the next attempt gets better ones, or says why not.
            for package in [&kernel, &busybox] {
                if let Err(error) = fs::remove_dir_all(package) {
                    tracing::debug!("could not remove {}: {error}", package.display());
                }
            }
        })
    }

    /// From the directories that hold the two packages' files.
    fn from_packages(kernel: &Path, busybox: &Path) -> Result<Self, RecipeError> {
        let missing = |package: &'static str, what: &'static str| RecipeError::NotInPackage { package, what };
        let image = entries(&kernel.join("boot"))
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
        let image = read(&image.ok_or_else(|| missing(KERNEL_META_PACKAGE, "a kernel"))?)?;
        check_kernel(&image)?;
        let shell = BUSYBOX_FILES.iter().map(|file| busybox.join(file)).find(|path| path.is_file());
        let shell = read(&shell.ok_or_else(|| missing(BUSYBOX_PACKAGE, "busybox"))?)?;
        let folder = MODULES_FOLDERS.iter().flat_map(|folder| entries(&kernel.join(folder))).next();
        let folder = folder.ok_or_else(|| missing(KERNEL_META_PACKAGE, "modules"))?;
        let modules = modules::select(&folder, &MODULES)
            .map_err(|source| RecipeError::Read { path: folder.clone(), source })?;
        let version = folder.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self { kernel: image, initramfs: initramfs(&version, &modules, &shell) })
    }

    fn write(&self, path: &Path, options: &Options) -> Result<(), RecipeError> {
        let packed = pack(&self.initramfs)?;
        let test = test_file();
        let content = disk::Content {
            kernel: (KERNEL_FILE, &self.kernel),
            initrd: (INITRD_FILE, &packed),
            others: &[("README.TXT", &readme(&test)), (TEST_FILE, &test)],
            command_line: &options.command_line(),
        };
        Ok(create_with(path, |file| disk::write(file, options.size, &content))?)
    }

    /// Changes with everything that the disk is made of.
    fn key(&self, options: &Options) -> String {
        let parts = [disk::LOADER, &self.kernel, &self.initramfs, README.as_bytes()];
        let sums = parts.map(|bytes| format!("{:08x}", checksum(bytes)));
        format!("{} {} {}\n", sums.join(" "), options.size, options.command_line())
    }
}

fn unavailable(error: FirmwareError) -> RecipeError {
    let reason = match &error {
        FirmwareError::Offline { .. } => "downloads are off",
        FirmwareError::NoAptGet { .. } => "there is no apt-get here",
        FirmwareError::Network { .. } => "it could not be downloaded; is there no network?",
        FirmwareError::NoPackage { .. } => "this distribution does not have it",
        FirmwareError::Damaged { .. } => "the package is damaged",
        _ => return error.into(),
    };
    let package = match error {
        FirmwareError::NoAptGet { package }
        | FirmwareError::Network { package }
        | FirmwareError::NoPackage { package }
        | FirmwareError::Damaged { package, .. } => package,
        _ => KERNEL_META_PACKAGE.to_owned(),
    };
    RecipeError::NoLinux { package, reason }
}

/// The directories with what is needed of the kernel's package and of busybox's.
fn packages(search: &Search, progress: &ProgressBar) -> Result<(PathBuf, PathBuf), FirmwareError> {
    let kernel = package_directory(search.cache()?, KERNEL_META_PACKAGE);
    let busybox = package_directory(search.cache()?, BUSYBOX_KEPT_AS);
    if kernel.is_dir() && busybox.is_dir() {
        return Ok((kernel, busybox));
    }
    if search.offline && search.packages.is_none() {
        return Err(FirmwareError::Offline { what: "Linux" });
    }
    let mut fetch = Fetch::new(search, Some(ARCHITECTURE), progress)?;
    if !busybox.is_dir() {
        let wanted = |path: &Path| BUSYBOX_FILES.iter().any(|file| path == Path::new(file));
        fetch.package(BUSYBOX_PACKAGE, &busybox, &wanted)?;
    }
    if !kernel.is_dir() {
        let name = fetch.dependency(KERNEL_META_PACKAGE, is_kernel_package)?;
        fetch.package(&name, &kernel, &is_kept)?;
    }
    Ok((kernel, busybox))
}

/// Whether this is the package of one version of the kernel, such as linux-image-6.1.0-50-686.
fn is_kernel_package(name: &str) -> bool {
    let version = name.strip_prefix(KERNEL_PREFIX).and_then(|rest| rest.strip_suffix(KERNEL_SUFFIX));
    version.is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
}

/// Whether a file of the kernel's package may be needed.
fn is_kept(path: &Path) -> bool {
    if path.starts_with("boot") {
        return true;
    }
    let below = MODULES_FOLDERS.iter().find_map(|folder| path.strip_prefix(folder).ok());
    // The version comes first, then `kernel`.
    let below: Option<PathBuf> = below.map(|path| path.components().skip(2).collect());
    below.is_some_and(|path| MODULES_KEPT.iter().any(|folder| path.starts_with(folder)))
}

fn initramfs(version: &str, modules: &[modules::Module], busybox: &[u8]) -> Vec<u8> {
    let mut archive = cpio::Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory, 0o755);
    }
    for (name, major, minor) in [CONSOLE, NULL] {
        archive.character_device(name, 0o600, major, minor);
    }
    archive.file("bin/busybox", 0o755, busybox);
    archive.symlink("bin/sh", "busybox");
    archive.symlink("etc/mtab", "/proc/mounts");
    for (name, permissions, content) in GUEST_FILES {
        archive.file(name, permissions, content.as_bytes());
    }
    let folder = format!("lib/modules/{version}");
    archive.directory(&folder, 0o755);
    let mut made: Vec<String> = Vec::new();
    for module in modules {
        let parts: Vec<&str> = module.path.split('/').collect();
        for depth in 1..parts.len() {
            let directory = format!("{folder}/{}", parts[..depth].join("/"));
            if !made.contains(&directory) {
                archive.directory(&directory, 0o755);
                made.push(directory);
            }
        }
        archive.file(&format!("{folder}/{}", module.path), 0o644, &module.content);
    }
    archive.file(&format!("{folder}/modules.dep"), 0o644, modules::dependencies(modules).as_bytes());
    archive.file(&format!("{folder}/modules.alias"), 0o644, modules::aliases(modules).as_bytes());
    archive.finish()
}

fn pack(bytes: &[u8]) -> Result<Vec<u8>, RecipeError> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).and_then(|()| packer.finish()).map_err(RecipeError::Pack)
}

/// Numbers that look random (xorshift), the same in each image.
fn test_file() -> Vec<u8> {
    let mut state = TEST_SEED;
    let numbers = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    numbers.take(TEST_BYTES / 4).flatten().collect()
}

fn readme(test: &[u8]) -> Vec<u8> {
    format!("{README}\nCRC-32 of {TEST_FILE}: {:08x}\n", checksum(test)).into_bytes()
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Vec<u8>, RecipeError> {
    fs::read(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })
}
