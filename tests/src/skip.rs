//! Tests that cannot run here say so, on the terminal and counted, and fail where they must run.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a test lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Something that can be installed or fetched: with `CI=true` its absence is a failure.
    Installable,
    /// A right that the user may not have anywhere.
    Privilege,
}

static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// Says that the calling test does not run because of `why`. The caller returns then.
///
/// # Panics
/// In CI, when what is missing could have been installed.
pub fn skip(why: &str, missing: Missing) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!(ci && missing == Missing::Installable), "{why}: in CI it must be there");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, whose output of passing tests nobody sees. A closed terminal is no failure.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why} (number {count} in this program)");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where an executable is in PATH. As root, system directories are searched too.
pub fn program_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
