//! `vmsim image`.

use crate::cli::ImageCommand;
use anyhow::{Context, Result, bail, ensure};
use images::disk::{self, FloppyContent, FloppyFormat, Kind};
use images::recipes::linux;
use std::path::Path;

/// Makes images and describes them.
pub fn image(command: &ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Create { path, size, fat, label } => {
            let kind = kind(disk::parse_size(size)?, *fat, label.clone())?;
            disk::create(path, &kind, &crate::progress::bar())?;
            println!("{}", disk::info(path)?);
        }
        ImageCommand::Info { path } => println!("{}", disk::info(path)?),
        ImageCommand::Memtest { path } => {
            let floppy = images::recipes::memtest_floppy("", &crate::progress::bar())?;
            write_new(path, &floppy)?;
        }
        ImageCommand::Linux { path, size, console, append, messages } => {
            let mut options = linux::Options {
                size: disk::parse_size(size)?,
                append: append.clone(),
                messages: *messages,
                ..linux::Options::default()
            };
            if !console.is_empty() {
                options.consoles.clone_from(console);
            }
            let bar = crate::progress::bar();
            let made = linux::create(path, &options, &bar);
            bar.finish_and_clear();
            made?;
            println!("{}", disk::info(path)?);
        }
        ImageCommand::Demo { path } => write_new(path, &images::demo::demo_floppy())?,
    }
    Ok(())
}

fn kind(size: u64, fat: bool, label: Option<String>) -> Result<Kind> {
    let fat = fat || label.is_some();
    match FloppyFormat::of_bytes(size) {
        Some(format) => {
            let content = if fat { FloppyContent::Fat { label } } else { FloppyContent::Blank };
            Ok(Kind::Floppy { format, content })
        }
        None if fat => bail!("--fat and --label are for floppies; a hard disk is partitioned by the guest"),
        None => Ok(Kind::HardDisk { size, allocate: false }),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    ensure!(!path.exists(), "{} exists already: give another name or remove it", path.display());
    std::fs::write(path, bytes).with_context(|| format!("Cannot write {}", path.display()))
}
