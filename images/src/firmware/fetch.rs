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

const SYSTEM_LISTS: &str = "/var/lib/apt/lists";
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
pub(super) fn package_directory(cache: &Path, name: &str) -> PathBuf {
    cache.join("packages").join(name)
}

/// [`fetch_package`] with the places given.
pub(super) fn fetch_package_in(
    search: &Search,
    name: &str,
    architecture: Option<&str>,
    progress: &ProgressBar,
) -> Result<PathBuf, FirmwareError> {
    let target = package_directory(search.cache()?, name);
    if target.is_dir() {
        return Ok(target);
    }
    let parent = target.parent().unwrap_or(&target);
    let cache_error = |source| FirmwareError::Cache { path: target.clone(), source };
    fs::create_dir_all(parent).map_err(cache_error)?;
    let work = tempfile::tempdir_in(parent).map_err(cache_error)?;
    progress.set_message(format!("Fetching the package {name}"));
    let package = match &search.packages {
        Some(packages) => {
            find_package(packages, name).ok_or_else(|| FirmwareError::NoPackage { package: name.into() })?
        }
        None => Download { package: name, architecture, work: work.path(), progress }.run()?,
    };
    progress.set_message(format!("Unpacking the package {name}"));
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(cache_error)?;
    deb::unpack(&package, &unpacked).map_err(|source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::PermissionDenied => cache_error(source),
        _ => FirmwareError::Damaged { package: name.into(), source },
    })?;
    match fs::rename(&unpacked, &target) {
        // Somebody else fetched it at the same time.
        Err(_) if target.is_dir() => {}
        result => result.map_err(cache_error)?,
    }
    progress.set_message(format!("The package {name} is there"));
    Ok(target)
}

/// The package file of `name` (NAME_VERSION_ARCHITECTURE.deb) in `directory`.
fn find_package(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut packages: Vec<_> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension() == Some(OsStr::new("deb")))
        .filter(|path| {
            path.file_name().and_then(OsStr::to_str).and_then(|file| file.split('_').next()) == Some(name)
        })
        .collect();
    packages.sort();
    packages.pop()
}

/// One package on its way.
struct Download<'a> {
    package: &'a str,
    architecture: Option<&'a str>,
    work: &'a Path,
    progress: &'a ProgressBar,
}

impl Download<'_> {
    fn run(&self) -> Result<PathBuf, FirmwareError> {
        self.progress.set_length(100);
        // The system's own index is there at once, but may be missing or too old.
        if self.architecture.is_none() && has_index(Path::new(SYSTEM_LISTS)) {
            match self.download(&[]) {
                Err(FirmwareError::Network { .. } | FirmwareError::NoPackage { .. }) => {}
                result => return result,
            }
        }
        let state = self.work.join("state");
        let lists = state.join("lists");
        let status = state.join("status");
        let cache_error = |source| FirmwareError::Cache { path: state.clone(), source };
        fs::create_dir_all(lists.join("partial")).map_err(cache_error)?;
        fs::write(&status, "").map_err(cache_error)?;
        let private = [
            format!("Dir::State={}", state.display()),
            format!("Dir::State::lists={}", lists.display()),
            format!("Dir::State::status={}", status.display()),
        ];
        self.progress.set_message("Fetching the distribution's package index");
        // apt-get reports success even when it could fetch nothing.
        self.apt_get(&private, &["update"])?;
        if !has_index(&lists) {
            return Err(self.network());
        }
        self.progress.set_message(format!("Fetching the package {}", self.package));
        self.download(&private)
    }

    fn download(&self, private: &[String]) -> Result<PathBuf, FirmwareError> {
        let complaint = self.apt_get(private, &["download", self.package])?;
        if let Some(package) = find_package(self.work, self.package) {
            return Ok(package);
        }
        if NOT_FOUND.iter().any(|text| complaint.contains(text)) {
            return Err(FirmwareError::NoPackage { package: self.package.into() });
        }
        Err(self.network())
    }

    fn network(&self) -> FirmwareError {
        FirmwareError::Network { package: self.package.into() }
    }

    /// Runs apt-get in the working directory; returns what it complained about.
    fn apt_get(&self, private: &[String], arguments: &[&str]) -> Result<String, FirmwareError> {
        let cache = self.work.join("cache");
        let io_error = |source| FirmwareError::Cache { path: self.work.to_owned(), source };
        fs::create_dir_all(cache.join("archives/partial")).map_err(io_error)?;
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o"]).arg(format!("Dir::Cache={}", cache.display()));
        for option in OPTIONS.into_iter().map(str::to_owned).chain(private.iter().cloned()) {
            command.arg("-o").arg(option);
        }
        if let Some(architecture) = self.architecture {
            command.arg("-o").arg(format!("APT::Architecture={architecture}"));
            command.arg("-o").arg(format!("APT::Architectures={architecture}"));
        }
        let child = command
            .args(arguments)
            .current_dir(self.work)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| match error.kind() {
            ErrorKind::NotFound => FirmwareError::NoAptGet { package: self.package.into() },
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
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if let Some(percent) = percent(&String::from_utf8_lossy(&line)) {
                    self.progress.set_position(percent);
                }
            }
        }
        child.wait().map_err(io_error)?;
        Ok(reader.join().unwrap_or_default())
    }
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
