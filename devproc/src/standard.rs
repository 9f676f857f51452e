//! The standard device processes of the PC, and a ready-made `main` for processes of one's own.

use crate::device::Device;
use crate::process::{self, BuildContext, Builder, ProcessError};
use crate::{chipset, gpu, keyboard, record, storage};

fn boxed_error<E: std::error::Error>(error: E) -> String {
    // One line with its causes: the supervisor shows it to the user.
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn build_chipset(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    chipset::models(context.config, context.start_unix_seconds, context.outside).map_err(boxed_error)
}

fn build_gpu(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    gpu::models(context.config, context.outside).map_err(boxed_error)
}

fn build_keyboard(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(keyboard::models(context.config))
}

fn build_storage(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    storage::models(context.config, context.outside).map_err(boxed_error)
}

/// The builder of a standard device process: `chipset`, `gpu`, `keyboard` or `storage`.
pub fn builder(device: &str) -> Option<Builder> {
    Some(match device {
        "chipset" => build_chipset,
        "gpu" => build_gpu,
        "keyboard" => build_keyboard,
        "storage" => build_storage,
        _ => return None,
    })
}

/// Attaches the calling process to `vm` as standard device process `device` and serves.
///
/// # Errors
/// [`ProcessError`]; also when there is no such device process.
pub fn run(vm: &str, device: &str) -> Result<(), ProcessError> {
    let Some(builder) = builder(device) else {
        let reason =
            "it is none of chipset, gpu, keyboard, storage: name its executable in the machine file".into();
        return Err(ProcessError::Build { device: device.into(), reason });
    };
    process::run(vm, device, builder)
}

/// The whole `main` of a device process: understands `EXE DEVICE --attach VM`, runs the models
/// that `builder` builds for DEVICE, and says on standard error why it ended. `EXE replay FILE` runs
/// them against a recording instead, see [`crate::record::run`].
pub fn main(builder: impl Fn(&str) -> Option<Builder>) -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (device, vm) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [device, "--attach", vm] | ["--attach", vm, device] => (device, vm),
        ["replay", file, ref options @ ..] => match record::Options::parse(options) {
            Some(options) => return record::run(file.as_ref(), &options, builder),
            None => return usage(),
        },
        _ => return usage(),
    };
    let result = match builder(device) {
        Some(builder) => process::run(vm, device, builder),
        None => {
            let reason = "this executable has no such device process".into();
            Err(ProcessError::Build { device: device.into(), reason })
        }
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{device}: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn usage() -> std::process::ExitCode {
    eprintln!(
        "usage: DEVICE --attach VM   (for example: gpu --attach vm; 'vmsim ps' lists VMs)\n       \
         replay FILE [--limit DIFFERENCES] [--stop-at TRANSACTION]   (a recording of 'vmsim device record')"
    );
    std::process::ExitCode::FAILURE
}
