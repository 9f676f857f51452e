//! A GPU process of a newer build: the built-in VGA with a state format of the next version, which imports the
//! older one and can still save it.

use devproc::device::{
    Access, Device, Frame, IoError, ReadResult, Region, ResetKind, StateError, TimerId, Width, WriteResult,
};
use devproc::host::Host;
use devproc::pci::PciAddress;
use devproc::process::BuildContext;
use ipc::time::VirtualTime;
use std::process::ExitCode;

/// What this build adds to the state.
const ADDED: u8 = 0x5a;

struct Newer(Box<dyn Device>);

impl Device for Newer {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn regions(&self) -> Vec<Region> {
        self.0.regions()
    }
    fn pci_address(&self) -> Option<PciAddress> {
        self.0.pci_address()
    }
    fn device_memory_len(&self) -> u64 {
        self.0.device_memory_len()
    }
    fn attach(&mut self, host: &mut dyn Host) {
        self.0.attach(host);
    }
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        self.0.read(at, host)
    }
    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        self.0.write(at, value, host)
    }
    fn read_burst(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        self.0.read_burst(at, data, host)
    }
    fn write_burst(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        self.0.write_burst(at, data, host)
    }
    fn config_read(&mut self, register: u8, width: Width, host: &mut dyn Host) -> u32 {
        self.0.config_read(register, width, host)
    }
    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        self.0.config_write(register, width, value, host);
    }
    fn timer(&mut self, timer: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        self.0.timer(timer, deadline, host);
    }
    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host) {
        self.0.reset(kind, host);
    }
    fn has_picture(&self) -> bool {
        self.0.has_picture()
    }
    fn render(&mut self, frame: &mut Frame, force: bool, host: &mut dyn Host) -> bool {
        self.0.render(frame, force, host)
    }
    fn take_changed(&mut self) -> bool {
        self.0.take_changed()
    }
    fn state_version(&self) -> u16 {
        self.0.state_version() + 1
    }
    fn save(&self, out: &mut Vec<u8>) {
        self.0.save(out);
        out.push(ADDED);
    }
    fn save_older(&self, version: u16, out: &mut Vec<u8>) -> bool {
        if version != self.0.state_version() {
            return false;
        }
        self.0.save(out);
        true
    }
    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return self.0.load(version, data);
        }
        match data.split_last() {
            Some((&ADDED, rest)) => self.0.load(self.0.state_version(), rest),
            _ => Err(StateError::OutOfRange("added")),
        }
    }
}

fn build(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    let built_in = devproc::standard::builder("gpu").ok_or("there is no built-in gpu")?;
    let newer = |model| Box::new(Newer(model)) as Box<dyn Device>;
    Ok(built_in(context)?.into_iter().map(newer).collect())
}

fn main() -> ExitCode {
    devproc::standard::main(|device| (device == "gpu").then_some(build))
}
