//! What the commands need to find a running VM and talk to it.

use anyhow::{Result, bail};
use display::source::{Frame, TextScreen};
use ipc::control::Control;
use ipc::runtime_dir::{RuntimeDir, VmDir};
use ipc::screen::{Picture, Screen};
use ipc::segment::SegmentNames;

/// Finds the VM that a command is for: the one named, or the only one that runs.
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
    match running.len() {
        0 => bail!("No VM is running; start one with 'vmsim run'"),
        1 => Ok(running.remove(0)),
        _ => {
            let names: Vec<_> = running.iter().map(|vm| vm.name().to_owned()).collect();
            bail!("Several VMs are running ({}): say which with --vm NAME", names.join(", "))
        }
    }
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
