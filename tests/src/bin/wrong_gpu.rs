//! The graphics adapter with one wrong register bit: input status register 1 has the vertical retrace
//! bit (VR) inverted. For tests of replays and comparisons.

use devproc::device::{Access, Device, ReadResult, StateError};
use devproc::host::Host;
use devproc::process::BuildContext;
use std::process::ExitCode;

/// Ports of input status register 1.
const STATUS_1: [u64; 2] = [0x3ba, 0x3da];
const VERTICAL_RETRACE: u32 = 1 << 3;

struct Wrong(Box<dyn Device>);

impl Device for Wrong {
    vmsim_tests::pass_on_to_model!();

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let value = self.0.read(at, host)?;
        Ok(if STATUS_1.contains(&at.address) { value ^ VERTICAL_RETRACE } else { value })
    }

    fn state_version(&self) -> u16 {
        self.0.state_version()
    }
    fn save(&self, out: &mut Vec<u8>) {
        self.0.save(out);
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
