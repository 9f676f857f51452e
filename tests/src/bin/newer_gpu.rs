//! A GPU process of a newer build: the built-in VGA with a state format of the next version, which imports the
//! older one and can still save it.

use devproc::device::{Access, Device, ReadResult, StateError};
use devproc::host::Host;
use devproc::process::BuildContext;
use std::process::ExitCode;

/// What this build adds to the state.
const ADDED: u8 = 0x5a;

struct Newer(Box<dyn Device>);

impl Device for Newer {
    vmsim_tests::pass_on_to_model!();

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        self.0.read(at, host)
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
