//! `vmsim image`.

use crate::cli::ImageCommand;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Makes images and describes them.
pub fn image(command: &ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Create { path, size, fat, label } => {
            let bytes = crate::config::parse_size(size)?;
            images::disk::create_from_options(path, bytes, *fat, label.as_deref(), &crate::progress::bar())?;
            println!("{}", images::disk::info(path)?);
        }
        ImageCommand::Info { path } => println!("{}", images::disk::info(path)?),
        ImageCommand::Memtest { path } => {
            let floppy = images::recipes::memtest_floppy(&crate::progress::bar())?;
            write_new(path, &floppy)?;
        }
        ImageCommand::Demo { path } => write_new(path, &images::demo::demo_floppy())?,
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    ensure!(!path.exists(), "{} exists already: give another name or remove it", path.display());
    std::fs::write(path, bytes).with_context(|| format!("Cannot write {}", path.display()))
}
