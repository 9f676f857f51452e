//! What `vmsim run` starts when it is told nothing: Linux, where its packages can be had.

use crate::progress;
use anyhow::{Context, Result};
use images::firmware::{self, Firmware};
use images::recipes::linux;
use std::path::PathBuf;
use tempfile::TempDir;

/// Guest RAM that it gets unless told otherwise.
pub const RAM: u64 = linux::RAM;
const DISK: &str = "linux.img";

/// Linux, ready to be started.
#[derive(Debug)]
pub struct Linux {
    /// A copy of the disk in the cache, for this run only.
    pub disk: PathBuf,
    /// What it is started with.
    pub firmware: Firmware,
    /// Holds the copy.
    pub folder: TempDir,
}

/// Finds, or fetches and makes, what is needed, with a progress bar when that takes a while.
pub fn linux() -> Result<Linux> {
    let bar = progress::bar();
    let found = firmware::find_or_fetch(&bar).map_err(anyhow::Error::from);
    let found = found.and_then(|firmware| Ok((firmware, linux::cached(&bar)?)));
    bar.finish_and_clear();
    let (firmware, cached) = found?;
    let folder = tempfile::Builder::new().prefix("vmsim-linux-").tempdir()?;
    let disk = folder.path().join(DISK);
    images::disk::copy(&cached, &disk).with_context(|| format!("Copying {}", cached.display()))?;
    Ok(Linux { disk, firmware, folder })
}
