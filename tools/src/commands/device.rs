//! `vmsim device`.

use crate::cli::{DeviceCommand, State, SwapArgs};
use crate::client;
use anyhow::{Context, Result};
use ipc::control::{Reply, Request, StateChoice};
use std::time::Duration;

/// How long a device process may take to come back: with back-off, until it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does to a device process what the command says.
pub fn device(command: &DeviceCommand) -> Result<()> {
    let (vm, request) = match command {
        DeviceCommand::Swap(SwapArgs { device, exe, state, timeout, vm }) => {
            let patience = Duration::try_from_secs_f64(*timeout)
                .with_context(|| format!("--timeout {timeout} is no number of seconds"))?;
            // The supervisor may have another working directory.
            let exe = exe.as_ref().map(std::path::absolute).transpose().context("--exe")?;
            let request = Request::SwapDevice {
                device: device.clone(),
                exe,
                state: choice(*state),
                patience_millis: patience.as_millis() as u64,
            };
            (vm, request)
        }
        DeviceCommand::Restart { device, state, vm } => {
            (vm, Request::RestartDevice { device: device.clone(), state: choice(*state) })
        }
    };
    let (mut control, _) = client::connect(vm.name.as_deref())?;
    if let Reply::Done(line) = control.ask_patiently(&request, PATIENCE)? {
        super::print_text(&format!("{line}\n"))?;
    }
    Ok(())
}

fn choice(state: State) -> StateChoice {
    match state {
        State::Keep => StateChoice::Keep,
        State::Cold => StateChoice::Cold,
    }
}
