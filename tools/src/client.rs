//! What the commands need to find a running VM and talk to it.

use anyhow::{Result, bail};
use display::source::{Frame, TextScreen};
use ipc::control::{Control, ControlError};
use ipc::runtime_dir::{RuntimeDir, VmDir};
use ipc::screen::{Picture, Screen};
use ipc::segment::SegmentNames;

/// Finds the VM that a command is for: the one named, or the only one that runs and is of a build like this one.
pub fn find(name: Option<&str>) -> Result<VmDir> {
    let dir = RuntimeDir::open()?;
    if let Some(name) = name {
        let vm = dir.vm(name)?;
        if !vm.is_running() {
            bail!("No VM named '{name}' is running; 'vmsim ps' lists those that are");
        }
        return Ok(vm);
    }
    let mut running = running(&dir);
    let only = match running.len() {
        0 => bail!("No VM is running; start one with 'vmsim run'"),
        1 => Some(0),
        _ => only_one_of_our_version(&running),
    };
    match only {
        Some(only) => Ok(running.swap_remove(only)),
        None => {
            let names: Vec<_> = running.iter().map(|vm| vm.name().to_owned()).collect();
            bail!("Several VMs are running ({}): say which with --vm NAME", names.join(", "))
        }
    }
}

/// Where the only one of several VMs is that commands of this build can be for.
fn only_one_of_our_version(running: &[VmDir]) -> Option<usize> {
    let other = |vm: &VmDir| matches!(Control::connect(&vm.socket()), Err(ControlError::Version { .. }));
    let mut ours = (0..).zip(running).filter(|(_, vm)| !other(vm)).map(|(at, _)| at);
    let first = ours.next();
    first.filter(|_| ours.next().is_none())
}

/// The VMs that run, sorted by name.
pub fn running(dir: &RuntimeDir) -> Vec<VmDir> {
    dir.names().iter().filter_map(|name| dir.vm(name).ok()).filter(VmDir::is_running).collect()
}

/// Connects to the VM that a command is for.
pub fn connect(name: Option<&str>) -> Result<(Control, VmDir)> {
    let vm = find(name)?;
    Ok((Control::connect(&vm.socket())?, vm))
}

/// The screen of a VM.
pub fn screen(vm: &VmDir) -> Result<Screen> {
    Ok(Screen::open(&SegmentNames::new(vm.name()).screen())?)
}

/// A picture in the form that views show.
pub fn frame(picture: Picture) -> Frame {
    let Picture { width, height, pixels, text_size, cells, cursor, .. } = picture;
    let text = text_size.map(|(columns, rows)| TextScreen { columns, rows, cells, cursor });
    Frame { width, height, pixels, text }
}

/// The text on the screen; `None` in graphics modes and before there is a picture.
pub fn screen_text(screen: &Screen) -> Option<String> {
    let text = frame(screen.picture()?).text?;
    Some(display::text::plain_text(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::message::PROTOCOL_VERSION;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// The place of a VM whose supervisor says once which version it speaks.
    fn vm(dir: &RuntimeDir, name: &str, version: u32) -> VmDir {
        let vm = dir.vm(name).unwrap();
        std::fs::create_dir(vm.path()).unwrap();
        let listener = UnixListener::bind(vm.socket()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&version.to_le_bytes()).unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
        });
        vm
    }

    #[test]
    fn of_several_vms_a_command_is_for_the_one_that_it_can_talk_to() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(parent.path().join("run")).unwrap();
        let other = PROTOCOL_VERSION + 1;
        let old = |name: &str| vm(&dir, name, other);
        let ours = |name: &str| vm(&dir, name, PROTOCOL_VERSION);
        assert_eq!(only_one_of_our_version(&[old("a"), ours("b"), old("c")]), Some(1));
        assert_eq!(only_one_of_our_version(&[ours("d"), ours("e")]), None);
        assert_eq!(only_one_of_our_version(&[old("f"), old("g")]), None);
    }
}
