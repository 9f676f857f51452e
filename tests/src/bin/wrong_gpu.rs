//! The graphics adapter with one wrong register bit: input status register 1 has the vertical retrace
//! bit (VR) inverted. For tests of replays and comparisons.

use devproc::device::{
    Access, Device, Frame, IoError, ReadResult, Region, Register, ResetKind, StateError, TimerId, Width,
    WriteResult,
};
use devproc::host::Host;
use devproc::pci::PciAddress;
use devproc::process::BuildContext;
use ipc::time::VirtualTime;
use std::process::ExitCode;

/// Ports of input status register 1.
const STATUS_1: [u64; 2] = [0x3ba, 0x3da];
const VERTICAL_RETRACE: u32 = 1 << 3;

struct Wrong(Box<dyn Device>);

impl Device for Wrong {
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let value = self.0.read(at, host)?;
        Ok(if STATUS_1.contains(&at.address) { value ^ VERTICAL_RETRACE } else { value })
    }

    // The rest is the adapter's.
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn regions(&self) -> Vec<Region> {
        self.0.regions()
    }
    fn pci_address(&self) -> Option<PciAddress> {
        self.0.pci_address()
    }
    fn registers(&self) -> Vec<Register> {
        self.0.registers()
    }
    fn selected(&self, at: Access, written: Option<u32>) -> Option<u32> {
        self.0.selected(at, written)
    }
    fn device_memory_len(&self) -> u64 {
        self.0.device_memory_len()
    }
    fn attach(&mut self, host: &mut dyn Host) {
        self.0.attach(host);
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
    fn burst_advances(&self, at: Access) -> bool {
        self.0.burst_advances(at)
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
    fn state_version(&self) -> u16 {
        self.0.state_version()
    }
    fn save(&self, out: &mut Vec<u8>) {
        self.0.save(out);
    }
    fn take_changed(&mut self) -> bool {
        self.0.take_changed()
    }
    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        self.0.load(version, data)
    }
}

fn build(context: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    let adapter = devproc::standard::builder("gpu").ok_or("there is no graphics adapter")?;
    Ok(adapter(context)?.into_iter().map(|model| Box::new(Wrong(model)) as Box<dyn Device>).collect())
}

fn main() -> ExitCode {
    devproc::standard::main(|device| (device == "gpu").then_some(build))
}
