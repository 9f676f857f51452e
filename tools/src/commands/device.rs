//! `vmsim device`: recordings of device processes.

use crate::cli::DeviceCommand;
use crate::client;
use anyhow::{Context, Result};
use ipc::control::Request;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ExitCode};

/// Runs a command about a device process.
pub fn device(command: &DeviceCommand) -> Result<ExitCode> {
    match command {
        DeviceCommand::Record { device, file, stop: _, vm } => {
            let absolute = |path| std::path::absolute(path).context("The recording's path");
            let to = file.as_ref().map(absolute).transpose()?;
            client::connect(vm.name.as_deref())?.0.ask(&Request::Record { device: device.clone(), to })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replays a recording with the models of this program, or becomes the program that does it.
pub fn replay(file: &Path, exe: Option<&Path>, limit: u64) -> Result<ExitCode> {
    let Some(exe) = exe else { return Ok(devproc::record::run(file, limit, devproc::standard::builder)) };
    let mut command = process::Command::new(exe);
    command.arg("replay").arg(file).args(["--limit", &limit.to_string()]);
    Err(command.exec()).with_context(|| format!("Device executable {}", exe.display()))
}
