//! `vmsim device`: recordings of device processes.

use crate::cli::DeviceCommand;
use crate::client;
use anyhow::{Context, Result};
use ipc::control::Request;
use std::process::ExitCode;

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
