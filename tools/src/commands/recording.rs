//! `vmsim trace show`, `stat`, `coverage` and `export`: what is in a recording.

use super::print_text;
use crate::cli::{TraceCommand, TraceForm};
use anyhow::{Context, Result};
use devproc::record::coverage::Coverage;
use devproc::record::export::{ExportError, Form, Part, export, statistics};
use devproc::record::items::Items;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Runs a command about a recording.
pub fn recording(command: &TraceCommand) -> Result<()> {
    match command {
        TraceCommand::Show { file, from, limit, only, details } => {
            let part =
                Part { from: *from, limit: limit.unwrap_or(u64::MAX), only: only.clone(), details: *details };
            write(file, Form::Text, &part, io::stdout().lock())
        }
        TraceCommand::Stat { file } => print_text(&statistics(open(file)?).with_context(|| named(file))?),
        TraceCommand::Coverage { file } => print_text(&coverage(file)?),
        TraceCommand::Export { file, form, only, output } => {
            let form = match form {
                TraceForm::Text => Form::Text,
                TraceForm::Json => Form::Json,
                TraceForm::Vcd => Form::Vcd,
            };
            let part = Part { only: only.clone(), ..Part::default() };
            match output {
                None => write(file, form, &part, io::stdout().lock()),
                Some(path) => {
                    let made = File::create_new(path).with_context(|| format!("File {}", path.display()))?;
                    write(file, form, &part, made)
                }
            }
        }
    }
}

fn named(file: &Path) -> String {
    format!("Recording {}", file.display())
}

fn open(file: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(file).with_context(|| named(file))?))
}

fn write(file: &Path, form: Form, part: &Part, out: impl Write) -> Result<()> {
    let mut out = BufWriter::new(out);
    let written = export(open(file)?, form, part, &mut out);
    match written.and_then(|()| Ok(out.flush()?)) {
        // A reader that has seen enough (`| head`) is no error.
        Err(ExportError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.with_context(|| named(file)),
    }
}

fn coverage(file: &Path) -> Result<String> {
    let (mut items, header) = Items::new(open(file)?).with_context(|| named(file))?;
    let mut map = Coverage::new(&header);
    while let Some(item) = items.next().with_context(|| named(file))? {
        map.add(&item);
    }
    Ok(map.table())
}
