//! Downloads a package of the distribution with `apt-get`, as an ordinary user.
//!
//! apt-get checks the signatures; it gets private directories for everything it writes.

use super::{FirmwareError, Search, deb};
use indicatif::ProgressBar;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const SYSTEM_LISTS: &str = "/var/lib/apt/lists";
/// Folder of the cache that unpacked packages are kept in.
const PACKAGES: &str = "packages";
/// What comes before a dependency in apt-cache's answer.
const DEPENDS: &str = "Depends: ";
/// Prefix of the lines in which apt-get reports progress.
const STATUS_PREFIX: &str = "dlstatus:";
/// What apt-get says when no index knows the package.
const NOT_FOUND: [&str; 4] =
    ["Unable to locate package", "has no installation candidate", "Can't find a source", "Can't select"];
/// Options for every call: be quiet, report progress on standard output, give up soon, and fetch
/// package indices only.
const OPTIONS: [&str; 9] = [
    "APT::Status-Fd=1",
    "Acquire::Retries=1",
    "Acquire::http::Timeout=20",
    "Acquire::https::Timeout=20",
    "Acquire::Languages=none",
    "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false",
    "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false",
    // Root's private directories cannot be read by the user that apt would switch to.
    "APT::Sandbox::User=root",
];

/// Fetches and unpacks the distribution's package `name` into the user's cache.
///
/// `architecture` is for packages that exist for some only (`None`: the host's). Returns the
/// directory that holds the package's files. A package that is there already is not fetched again.
pub fn fetch_package(
    name: &str,
    architecture: Option<&str>,
    progress: &ProgressBar,
) -> Result<PathBuf, FirmwareError> {
    fetch_package_in(&Search::from_environment(), name, architecture, progress)
}

/// Where the files of package `name` are kept.
pub(crate) fn package_directory(cache: &Path, name: &str) -> PathBuf {
    cache.join(PACKAGES).join(name)
}

/// A new directory in `parent`, a part of the cache, that goes away again. Those go too that a process which was
/// killed or interrupted has left behind.
pub(crate) fn work_directory(parent: &Path) -> std::io::Result<TempDir> {
    const PREFIX: &str = "work-";
    /// No process works for so long.
    const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);
    fs::create_dir_all(parent)?;
    for entry in fs::read_dir(parent)?.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && age.is_some_and(|age| age > LEFT_BEHIND) {
            // Whoever else cleans up may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)
}

/// [`fetch_package`] with the places given.
pub(super) fn fetch_package_in(
    search: &Search,
    name: &str,
    architecture: Option<&str>,
    progress: &ProgressBar,
) -> Result<PathBuf, FirmwareError> {
    let target = package_directory(search.cache()?, name);
    if !target.is_dir() {
        Fetch::new(search, architecture, progress)?.package(name, &target, &|_| true)?;
    }
    Ok(target)
}

/// The package files in `directory` (NAME_VERSION_ARCHITECTURE.deb) whose NAME is `wanted`, oldest first.
fn package_files(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut packages: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension() == Some(OsStr::new("deb")))
        .filter(|path| package_name(path).is_some_and(&wanted))
        .collect();
    packages.sort();
    packages
}

fn package_name(file: &Path) -> Option<&str> {
    file.file_name()?.to_str()?.split('_').next()
}

/// The newest package file of `name` in `directory`.
fn find_package(directory: &Path, name: &str) -> Option<PathBuf> {
    package_files(directory, |package| package == name).pop()
}

/// Fetches packages for one architecture; the distribution's index is fetched at most once.
pub(crate) struct Fetch<'a> {
    search: &'a Search,
    architecture: Option<&'a str>,
    progress: &'a ProgressBar,
    work: TempDir,
    /// Options that make apt-get use its private index; empty until that is there.
    private: Vec<String>,
}

impl<'a> Fetch<'a> {
    /// Prepares a place to work in, in the cache. Nothing is fetched yet.
    pub(crate) fn new(
        search: &'a Search,
        architecture: Option<&'a str>,
        progress: &'a ProgressBar,
    ) -> Result<Self, FirmwareError> {
        let parent = search.cache()?.join(PACKAGES);
        let cache_error = |source| FirmwareError::Cache { path: parent.clone(), source };
        let work = work_directory(&parent).map_err(cache_error)?;
        Ok(Self { search, architecture, progress, work, private: Vec::new() })
    }

    /// The package that the empty package `name` depends on and that `wanted` accepts.
    pub(crate) fn dependency(
        &mut self,
        name: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, FirmwareError> {
        let none = || FirmwareError::NoPackage { package: name.into() };
        if let Some(packages) = &self.search.packages {
            let newest = package_files(packages, &wanted).pop().ok_or_else(none)?;
            return Ok(package_name(&newest).ok_or_else(none)?.to_owned());
        }
        self.fetch_index(name)?;
        let answer = self.apt("apt-cache", name, &["depends", name])?.answer;
        let mut dependencies = answer.lines().filter_map(|line| line.trim().strip_prefix(DEPENDS));
        dependencies.find(|package| wanted(package)).map(str::to_owned).ok_or_else(none)
    }

    /// Fetches the package `name` and unpacks what `keep` wants of it into the new directory `target`.
    pub(crate) fn package(
        &mut self,
        name: &str,
        target: &Path,
        keep: &dyn Fn(&Path) -> bool,
    ) -> Result<(), FirmwareError> {
        self.progress.set_message(format!("Fetching the package {name}"));
        let package = match &self.search.packages {
            Some(packages) => find_package(packages, name)
                .ok_or_else(|| FirmwareError::NoPackage { package: name.into() })?,
            None => self.download(name)?,
        };
        self.progress.set_message(format!("Unpacking the package {name}"));
        let cache_error = |source| FirmwareError::Cache { path: target.to_owned(), source };
        let unpacked = self.work.path().join("unpacked");
        fs::create_dir(&unpacked).map_err(cache_error)?;
        deb::unpack(&package, &unpacked, keep).map_err(|source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::PermissionDenied => cache_error(source),
            _ => FirmwareError::Damaged { package: name.into(), source },
        })?;
        match fs::rename(&unpacked, target) {
            // Somebody else fetched it at the same time.
            Err(_) if target.is_dir() => fs::remove_dir_all(&unpacked).map_err(cache_error)?,
            result => result.map_err(cache_error)?,
        }
        self.progress.set_message(format!("The package {name} is there"));
        Ok(())
    }

    fn download(&mut self, name: &str) -> Result<PathBuf, FirmwareError> {
        self.progress.set_length(100);
        // The system's own index is there at once, but may be missing or too old.
        if self.architecture.is_none() && self.private.is_empty() && has_index(Path::new(SYSTEM_LISTS)) {
            match self.try_download(name) {
                Err(FirmwareError::Network { .. } | FirmwareError::NoPackage { .. }) => {}
                result => return result,
            }
        }
        self.fetch_index(name)?;
        self.progress.set_message(format!("Fetching the package {name}"));
        self.try_download(name)
    }

    /// Fetches the distribution's index for the sake of package `name`.
    fn fetch_index(&mut self, name: &str) -> Result<(), FirmwareError> {
        if !self.private.is_empty() {
            return Ok(());
        }
        let state = self.work.path().join("state");
        let lists = state.join("lists");
        let status = state.join("status");
        let cache_error = |source| FirmwareError::Cache { path: state.clone(), source };
        fs::create_dir_all(lists.join("partial")).map_err(cache_error)?;
        fs::write(&status, "").map_err(cache_error)?;
        self.private = vec![
            format!("Dir::State={}", state.display()),
            format!("Dir::State::lists={}", lists.display()),
            format!("Dir::State::status={}", status.display()),
        ];
        self.progress.set_length(100);
        self.progress.set_message("Fetching the distribution's package index");
        // apt-get reports success even when it could fetch nothing.
        self.apt("apt-get", name, &["update"])?;
        if !has_index(&lists) {
            return Err(FirmwareError::Network { package: name.into() });
        }
        Ok(())
    }

    fn try_download(&self, name: &str) -> Result<PathBuf, FirmwareError> {
        let complaint = self.apt("apt-get", name, &["download", name])?.complaint;
        if let Some(package) = find_package(self.work.path(), name) {
            return Ok(package);
        }
        if NOT_FOUND.iter().any(|text| complaint.contains(text)) {
            return Err(FirmwareError::NoPackage { package: name.into() });
        }
        Err(FirmwareError::Network { package: name.into() })
    }

    /// Runs one of apt's programs in the working directory for the sake of package `name`.
    fn apt(&self, program: &str, name: &str, arguments: &[&str]) -> Result<Said, FirmwareError> {
        let cache = self.work.path().join("cache");
        let io_error = |source| FirmwareError::Cache { path: self.work.path().to_owned(), source };
        fs::create_dir_all(cache.join("archives/partial")).map_err(io_error)?;
        let mut command = Command::new(program);
        command.args(["-qq", "-o"]).arg(format!("Dir::Cache={}", cache.display()));
        for option in OPTIONS.into_iter().map(str::to_owned).chain(self.private.iter().cloned()) {
            command.arg("-o").arg(option);
        }
        if let Some(architecture) = self.architecture {
            command.arg("-o").arg(format!("APT::Architecture={architecture}"));
            command.arg("-o").arg(format!("APT::Architectures={architecture}"));
        }
        let child = command
            .args(arguments)
            .current_dir(self.work.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| match error.kind() {
            ErrorKind::NotFound => FirmwareError::NoAptGet { package: name.into() },
            _ => io_error(error),
        })?;
        // Both pipes are read at once, lest apt-get block on a full one.
        let complaints = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut complaints) = complaints {
                let _ = complaints.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut answer = String::new();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                match percent(&line) {
                    Some(percent) => self.progress.set_position(percent),
                    None => answer.extend([&*line, "\n"]),
                }
            }
        }
        child.wait().map_err(io_error)?;
        Ok(Said { answer, complaint: reader.join().unwrap_or_default() })
    }
}

/// What one of apt's programs said.
struct Said {
    /// On standard output, progress left out.
    answer: String,
    /// On standard error.
    complaint: String,
}

/// The percentage in a line `dlstatus:ITEM:PERCENT:TEXT`.
fn percent(line: &str) -> Option<u64> {
    let percent: f64 = line.strip_prefix(STATUS_PREFIX)?.split(':').nth(1)?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent as u64)
}

/// Whether `lists` holds an index of packages.
fn has_index(lists: &Path) -> bool {
    fs::read_dir(lists).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_of_apt_get_are_understood() {
        assert_eq!(percent("dlstatus:1:42.5:Retrieving file 1 of 1"), Some(42));
        assert_eq!(percent("dlstatus:1:1e9:x"), None);
        assert_eq!(percent("pmstatus:x:10:y"), None);
        assert_eq!(percent("dlstatus:1"), None);
    }

    #[test]
    fn what_an_interrupted_process_left_behind_goes_and_what_one_works_in_stays() {
        let parent = tempfile::tempdir().unwrap();
        let [old, new, other] = ["work-old", "work-new", "seabios"].map(|name| parent.path().join(name));
        for folder in [&old, &new, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        for folder in [&old, &other] {
            fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
        }
        let work = work_directory(parent.path()).unwrap();
        assert!(work.path().is_dir() && new.is_dir() && other.is_dir() && !old.exists());
    }

    #[test]
    fn package_files_are_found_by_their_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["seabios-extra_1_all.deb", "seabios_1.16_all.deb", "seabios_1.15_all.deb", "seabios_2.txt"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(find_package(folder.path(), "seabios"), Some(folder.path().join("seabios_1.16_all.deb")));
        assert_eq!(find_package(folder.path(), "memtest86+"), None);
    }
}
