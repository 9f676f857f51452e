//! `vmsim log`: the logs of a VM's processes, merged by virtual time.

use crate::cli::LogArgs;
use crate::client;
use anyhow::Result;
use ipc::control::Request;
use ipc::runtime_dir::VmDir;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Prints the log, and what is added to it.
pub fn log(args: &LogArgs) -> Result<()> {
    let vm = client::find(args.vm.name.as_deref())?;
    if let Some(on) = args.accesses {
        client::connect(Some(vm.name()))?.0.ask(&Request::LogAccesses(on))?;
        if !args.follow {
            return Ok(());
        }
    }
    let mut positions = BTreeMap::new();
    loop {
        let mut lines = new_lines(&vm, &mut positions)?;
        // Every line begins with the virtual time, right-aligned: sorting by text sorts by time.
        lines.sort_by(|a, b| a.get(..16).cmp(&b.get(..16)));
        let mut out = std::io::stdout().lock();
        for line in lines.iter().filter(|line| args.device.as_deref().is_none_or(|d| concerns(line, d))) {
            if writeln!(out, "{line}").is_err() {
                // The reader of a pipe has seen enough.
                return Ok(());
            }
        }
        if !args.follow || !vm.is_running() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether a line comes from the process or the model `device`: `TIME CS:EIP LEVEL PROCESS PART: ...`.
fn concerns(line: &str, device: &str) -> bool {
    let mut words = line.split_whitespace().skip(3);
    let process = words.next().unwrap_or_default();
    let part = words.next().unwrap_or_default().trim_end_matches(':');
    let model = words.next().unwrap_or_default();
    [process, part, model].contains(&device)
}

fn new_lines(vm: &VmDir, positions: &mut BTreeMap<PathBuf, u64>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let Ok(entries) = std::fs::read_dir(vm.path()) else { return Ok(lines) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".log") || name.ends_with(".stderr.log") {
            continue;
        }
        let position = positions.entry(path.clone()).or_default();
        let Ok(mut file) = File::open(&path) else { continue };
        file.seek(SeekFrom::Start(*position))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // A line that is still being written is left for the next round.
        let complete = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        *position += complete as u64;
        lines.extend(String::from_utf8_lossy(&bytes[..complete]).lines().map(str::to_owned));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_process_part_or_model() {
        let line = "     1.000000000 f000:0000fff0 INFO  storage serve: fdc Write 03f2 <- 1c Done";
        assert!(concerns(line, "storage") && concerns(line, "fdc") && concerns(line, "serve"));
        assert!(!concerns(line, "gpu"));
    }
}
