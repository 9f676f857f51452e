//! How every process of a VM is found and started.
//!
//! The program itself has every role: `vmsim role vmm --attach VM` and so on, run from the same
//! file as the supervisor (`/proc/self/exe`), wherever that is: in a build tree, installed, or
//! already replaced on disk by a newer build. A device process may instead be any executable,
//! which is run as `EXE DEVICE --attach VM`; with `devproc::standard::main`
//! that is all it has to know.

use crate::cli::RoleArgs;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Device processes of the standard PC. Where two processes claim a port, the earlier one in
/// the alphabet keeps it.
pub const STANDARD_DEVICES: &[&str] = &["chipset", "gpu", "keyboard", "storage"];

/// What runs a device process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executable {
    /// This program.
    Own,
    /// Another one.
    Other(PathBuf),
    /// Nothing: somebody starts it by hand, from a shell, a debugger or an IDE.
    ByHand,
}

impl Executable {
    /// What `--device NAME=hand` says.
    pub const BY_HAND: &str = "hand";

    /// What it says for this program.
    pub const BUILT_IN: &str = "built-in";

    /// The command that replays a recording with it.
    pub fn replay_command(&self, recording: &Path) -> String {
        let command = format!("vmsim replay {}", quoted(recording));
        match self {
            Self::Own | Self::ByHand => command,
            Self::Other(path) => format!("{command} --exe {}", quoted(path)),
        }
    }

    /// The command with which a person starts it as device process `device` of `vm`.
    pub fn by_hand_command(&self, device: &str, vm: &str) -> String {
        match self {
            Self::Own | Self::ByHand => format!("vmsim-dev {device} --attach {vm}"),
            Self::Other(path) => format!("{} {device} --attach {vm}", path.display()),
        }
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

impl std::fmt::Display for Executable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => match std::fs::read_link("/proc/self/exe") {
                Ok(path) => path.display().fmt(f),
                Err(_) => f.write_str("vmsim"),
            },
            Self::Other(path) => path.display().fmt(f),
            Self::ByHand => f.write_str("started by hand"),
        }
    }
}

/// The program file of this process, even when it was replaced on disk meanwhile.
pub fn own_executable() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { link } else { std::env::current_exe().unwrap_or_else(|_| "vmsim".into()) }
}

/// The command that runs the VMM of `vm`.
pub fn vmm_command(vm: &str) -> Command {
    let mut command = Command::new(own_executable());
    command.args(["role", "vmm", "--attach", vm]);
    command
}

/// The command that runs device process `device` of `vm`; `None` when it is started by hand.
pub fn device_command(vm: &str, device: &str, executable: &Executable) -> Option<Command> {
    Some(match executable {
        Executable::ByHand => return None,
        Executable::Own => {
            let mut command = Command::new(own_executable());
            command.args(["role", "device", device, "--attach", vm]);
            command
        }
        Executable::Other(path) => {
            let mut command = Command::new(path);
            command.args([device, "--attach", vm]);
            command
        }
    })
}

/// The command that runs a display of `kind` for `vm`.
pub fn display_command(vm: &str, kind: &str) -> Command {
    let mut command = Command::new(own_executable());
    command.args(["role", "display", kind, "--attach", vm]);
    command
}

/// Runs as the process that the arguments name.
pub fn run(args: &RoleArgs) -> Result<()> {
    match (args.role.as_str(), args.device.as_deref()) {
        ("vmm", None) => vmm::process::run(&args.attach)?,
        ("device", Some(device)) => devproc::standard::run(&args.attach, device)?,
        ("display", Some(kind)) => crate::display_role::run(&args.attach, kind)?,
        _ => bail!("No such role: {} {}", args.role, args.device.as_deref().unwrap_or("")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_command_as_it_is_meant() {
        let own = Executable::Own.replay_command(Path::new("/tmp/boot-1.rec"));
        assert_eq!(own, "vmsim replay /tmp/boot-1.rec");
        let other = Executable::Other("/it's/my gpu".into());
        let command = other.replay_command(Path::new("/tmp/a b"));
        assert_eq!(command, r"vmsim replay '/tmp/a b' --exe '/it'\''s/my gpu'");
    }
}
