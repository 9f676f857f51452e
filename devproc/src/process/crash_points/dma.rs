//! A model's DMA ends where its RAM does: what it asks for, less what the machine does not give it.

use super::*;
use crate::host::DmaError;
use crate::process::host::ModelHost;
use ipc::dma::RamRange;

const PAGE: u64 = 4096;

/// Asks for so much.
struct Master(Dma);

impl Device for Master {
    fn name(&self) -> &'static str {
        "master"
    }
    fn dma(&self) -> Dma {
        self.0
    }
    fn reset(&mut self, _: ResetKind, _: &mut dyn Host) {}
    fn save(&self, _: &mut Vec<u8>) {}
    fn load(&mut self, _: u16, _: &[u8]) -> Result<(), StateError> {
        Ok(())
    }
}

fn masters(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    let all = [Dma::None, Dma::Below(4 * PAGE), Dma::Below(16 * PAGE)];
    Ok(all.into_iter().map(|dma| Box::new(Master(dma)) as Box<dyn Device>).collect())
}

fn nobody(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(vec![Box::new(Master(Dma::None))])
}

fn pages(start: u64, end: u64) -> RamRange {
    RamRange { start: start * PAGE, end: end * PAGE }
}

fn open(machine: &Machine, dma: Option<&[RamRange]>, builder: Builder) -> DeviceProcess {
    let place = Place { slot: 0, config: &machine.config, dma, ram: None };
    DeviceProcess::open(&machine.names, "masters", &place, StartFrom::PowerOn, None, builder).unwrap()
}

/// Whether model `model` can read and write a word there. What it cannot is left alone.
fn reaches(machine: &Machine, process: &mut DeviceProcess, model: usize, address: u64) -> bool {
    let mut before = [0; 2];
    let there = machine.ram.read(address, &mut before);
    let mut host = ModelHost { shared: &mut process.shared, model, now: VirtualTime(0) };
    let mut word = [0x11, 0x22];
    let read = host.dma_read(address, &mut word);
    let written = host.dma_write(address, &[0x33, 0x44]);
    let mut after = [0; 2];
    let _ = machine.ram.read(address, &mut after);
    let error = Err(DmaError { address, len: 2 });
    match read {
        Ok(()) => assert_eq!((word, written, after), (before, Ok(()), [0x33, 0x44])),
        Err(_) => assert_eq!((word, read, written, after), ([0x11, 0x22], error, error, before), "{there}"),
    }
    read.is_ok()
}

#[test]
fn a_model_reaches_what_it_asked_for() {
    let machine = Machine::new("reach", None);
    let mut process = open(&machine, None, masters);
    assert_eq!(process.shared.ram.ranges(), [pages(0, 16)]);
    assert_eq!(machine.link.layout().dma(), [pages(0, 16)]);
    for (model, end) in [(0, 0), (1, 4 * PAGE), (2, 16 * PAGE)] {
        for address in [0, PAGE, 4 * PAGE - 2, 4 * PAGE - 1, 16 * PAGE - 2, 16 * PAGE - 1, 1 << 20, u64::MAX]
        {
            let inside = address.checked_add(2).is_some_and(|last| last <= end);
            assert_eq!(reaches(&machine, &mut process, model, address), inside, "{model}: {address:x}");
        }
    }
    let refused = |model: usize| machine.link.layout().models[model].dma_refused.load(Ordering::Relaxed);
    assert_eq!([0, 1, 2].map(refused), [16, 10, 6]);
}

#[test]
fn the_machine_gives_less() {
    let machine = Machine::new("less", None);
    let mut process = open(&machine, Some(&[pages(1, 2), pages(3, 300)]), masters);
    assert_eq!(process.shared.ram.ranges(), [pages(1, 2), pages(3, 16)]);
    assert!(!reaches(&machine, &mut process, 2, 0));
    assert!(reaches(&machine, &mut process, 2, PAGE));
    assert!(!reaches(&machine, &mut process, 2, 2 * PAGE - 1), "what begins inside and ends outside");
    assert!(reaches(&machine, &mut process, 2, 3 * PAGE));
    assert!(!reaches(&machine, &mut process, 1, 4 * PAGE), "it did not ask for that");
}

#[test]
fn without_a_bus_master_no_ram_is_mapped() {
    let machine = Machine::new("nobody", None);
    // It is not even looked for.
    let name = machine.names.ram();
    let ranges = |process: &DeviceProcess| process.shared.ram.ranges();
    std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    assert_eq!(ranges(&open(&machine, None, nobody)), []);
    assert_eq!(ranges(&open(&machine, Some(&[pages(0, 256)]), nobody)), []);
    assert_eq!(ranges(&open(&machine, Some(&[]), masters)), []);
}
