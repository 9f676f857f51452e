//! What a message costs in the device process, without and with a recording, and what committing costs of it:
//! `cargo test --release -p vmsim-devproc --lib cost -- --ignored --nocapture`.

mod commits;

use super::*;
use std::time::{Duration, Instant};

const PORT: u64 = 0x300;
/// Messages handled at a time: what the ring holds.
const BATCH: u32 = 1000;
const ROUNDS: u32 = 200;

/// A register.
#[derive(Default)]
struct Plain(u8);

impl Device for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(RegionId(0), "plain", PORT as u16, 1)]
    }
    fn write(&mut self, _: Access, value: u32, _: &mut dyn Host) -> WriteResult {
        self.0 = value as u8;
        Ok(())
    }
    fn reset(&mut self, _: ResetKind, _: &mut dyn Host) {
        self.0 = 0;
    }
    fn save(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }
    fn load(&mut self, _: u16, data: &[u8]) -> Result<(), StateError> {
        self.0 = data.first().copied().unwrap_or_default();
        Ok(())
    }
}

fn build_plain(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(vec![Box::new(Plain::default())])
}

/// The shortest time for a batch, per message.
fn cost(name: &str, recording: Option<PathBuf>) -> Duration {
    let mut machine = Machine { builder: build_plain, recording, ..Machine::new(name, None) };
    machine.settle();
    let write = Message { address: PORT, value: 0x55, flags: FLAG_POSTED, ..Message::new(Kind::Write) };
    let batch = |machine: &mut Machine| {
        (0..BATCH).for_each(|_| {
            machine.push(write);
        });
        let began = Instant::now();
        machine.settle();
        began.elapsed() / BATCH
    };
    (0..ROUNDS).map(|_| batch(&mut machine)).min().unwrap_or_default()
}

#[test]
#[ignore = "it measures"]
fn cost_of_committing_state() {
    commits::measure();
}

#[test]
#[ignore = "it measures"]
fn cost_of_a_posted_write_without_and_with_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let without = cost("without", None);
    let with = cost("with", Some(folder.path().join("plain.rec")));
    println!("a posted write costs the device process {without:?}, recorded {with:?}");
}
