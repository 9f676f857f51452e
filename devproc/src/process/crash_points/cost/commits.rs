//! What committing state costs for messages as drivers send them.

use super::super::config;
use crate::device::{Access, Device, Parts, ResetKind, Space, Width};
use crate::process::BuildContext;
use crate::process::commit::save_changed;
use crate::process::effects::{Decisions, pack_record};
use crate::testing::TestHost;
use ipc::input::{HostEvent, Key};
use ipc::link::{Link, StateWriter};
use ipc::machine::{DriveConfig, MachineConfig, SerialBackend};
use ipc::message::{Kind, Message};
use ipc::segment::SegmentNames;
use std::time::{Duration, Instant};

/// Commits per measurement, and measurements of each message.
const COMMITS: u32 = 2000;
const MEASUREMENTS: u32 = 200;
/// Nanoseconds that a message's commit may take; messages that take longer are named.
const GOAL: f64 = 50.0;
/// What a message may change of a state, so that committing it stays cheap.
const MOST_BYTES: usize = 280;

/// What happens to a model.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// OUT port, AL.
    Out(u16, u8),
    /// OUT port, AX.
    OutWord(u16, u16),
    /// IN AL, port.
    In(u16),
    /// IN AX, port.
    InWord(u16),
    /// A byte read from memory.
    Load(u64),
    /// A double word written to the configuration space.
    Config(u8, u32),
    /// Time goes on by so many milliseconds.
    Wait(u64),
    /// A line rises and falls.
    Line(u8),
    /// The CPU takes the vector.
    Acknowledge(u8),
    /// A key goes down or up.
    Key(bool),
}
use Deed::{Acknowledge, Config, In, InWord, Line, Load, Out, OutWord, Wait};

/// What a guest does to bring a model up, and the messages that are measured.
fn driver(model: &str) -> (Vec<Deed>, Vec<Deed>) {
    let (up, messages): (&[Deed], &[Deed]) = match model {
        "i440fx" => (&[], &[Config(0x58, 0x1010_1010), Config(0x5c, 0x3333_3333)]),
        "piix4-isa" => (&[], &[Out(0x92, 2), Config(0x60, 0x0b0a_0b0a)]),
        "piix4-pm" => (
            &[
                Config(0x40, 0xb001),
                Config(0x80, 1),
                Config(0x90, 0xb101),
                Config(0xd0, 0x0001_0000),
                Config(4, 1),
            ],
            &[Out(0xb2, 1), OutWord(0xb002, 0x120), Out(0xb102, 0x48), Out(0xb105, 7), In(0xb102)],
        ),
        "fw-cfg" => (&[], &[OutWord(0x510, 0), In(0x511), In(0x511)]),
        "pic" => (
            &[Out(0x20, 0x11), Out(0x21, 8), Out(0x21, 4), Out(0x21, 1), Out(0x21, 0), Out(0xa0, 0x11)],
            &[
                Line(3),
                Acknowledge(11),
                Out(0x20, 0x20),
                Out(0x21, 0xb8),
                Out(0xa1, 0x8f),
                Line(4),
                Acknowledge(12),
            ],
        ),
        "pit" => (
            &[Out(0x43, 0x34), Out(0x40, 0x9c), Out(0x40, 0x2e), Out(0x43, 0xb6), Out(0x42, 1), Out(0x42, 1)],
            &[Out(0x43, 0), In(0x40), In(0x40), Out(0x61, 3), Out(0x42, 0x33), Out(0x42, 5), Wait(11)],
        ),
        "dma" => (
            &[],
            &[
                Out(0x0a, 6),
                Out(0x0c, 0),
                Out(4, 0),
                Out(4, 0x20),
                Out(0x81, 1),
                Out(5, 0xff),
                Out(0x0b, 0x46),
            ],
        ),
        "rtc" => (&[], &[Out(0x70, 0x0c), In(0x71), Out(0x70, 0x0b), Out(0x71, 0x42), Wait(1100)]),
        "com1" => {
            (&[Out(0x3fb, 3)], &[Out(0x3f9, 5), Out(0x3fc, 0x0b), Out(0x3f8, 0x41), In(0x3fa), Wait(2)])
        }
        "vga" => (
            &[
                Out(0x3c2, 0x63),
                OutWord(0x3c4, 0x0300),
                OutWord(0x3c4, 0x0f02),
                OutWord(0x3c4, 0x0604),
                OutWord(0x3ce, 0x0506),
            ],
            &[
                OutWord(0x3d4, 0x120e),
                OutWord(0x3d4, 0x340f),
                Out(0x3c8, 7),
                Out(0x3c9, 1),
                Out(0x3c9, 2),
                Out(0x3c9, 3),
                OutWord(0x3c4, 0x0102),
                OutWord(0x3ce, 0x0204),
                Load(0xa_0000),
                In(0x3da),
                Out(0x3c0, 0x20),
                OutWord(0x1ce, 5),
            ],
        ),
        "i8042" => (
            &[Out(0x64, 0x60), Out(0x60, 0x61), Wait(1000), In(0x60)],
            &[
                Out(0x64, 0x20),
                In(0x60),
                Out(0x60, 0xed),
                Wait(5),
                In(0x60),
                Out(0x60, 7),
                Wait(5),
                In(0x60),
                Out(0x64, 0xd1),
                Out(0x60, 0xdf),
                Deed::Key(true),
                Wait(5),
                In(0x60),
                Deed::Key(false),
                Wait(5),
                In(0x60),
                Wait(5),
                In(0x60),
            ],
        ),
        "fdc" => (
            &[Out(0x3f2, 0x1c), Wait(1), Out(0x3f5, 3), Out(0x3f5, 0xdf), Out(0x3f5, 2)],
            // SEEK and SENSE INTERRUPT STATUS, then READ DATA and its result.
            &[
                Out(0x3f5, 0x0f),
                Out(0x3f5, 0),
                Out(0x3f5, 2),
                Wait(100),
                Out(0x3f5, 8),
                In(0x3f5),
                In(0x3f5),
                Out(0x3f5, 0x46),
                Out(0x3f5, 0),
                Out(0x3f5, 2),
                Out(0x3f5, 0),
                Out(0x3f5, 1),
                Out(0x3f5, 2),
                Out(0x3f5, 1),
                Out(0x3f5, 0x1b),
                Out(0x3f5, 0xff),
                Wait(2000),
                In(0x3f5),
                In(0x3f5),
                In(0x3f5),
                In(0x3f5),
                In(0x3f5),
                In(0x3f5),
                In(0x3f5),
            ],
        ),
        "ide" => (
            &[Config(0x20, 0xc001), Config(4, 5), Config(0x40, 0x8000_8000), Out(0x3f6, 0)],
            // READ SECTORS and WRITE SECTORS word by word, and the bus master's registers.
            &[
                Out(0x1f6, 0xe0),
                Out(0x1f2, 1),
                Out(0x1f3, 5),
                Out(0x1f4, 0),
                Out(0x1f5, 0),
                Out(0x1f7, 0x20),
                In(0x1f7),
                InWord(0x1f0),
                InWord(0x1f0),
                Out(0x1f7, 0x30),
                OutWord(0x1f0, 0x1234),
                OutWord(0x1f0, 0x5678),
                Out(0xc000, 0),
                Out(0xc002, 6),
                Out(0xc004, 0),
            ],
        ),
        _ => (&[], &[]),
    };
    (up.to_vec(), messages.to_vec())
}

/// A model under its driver.
struct Driven {
    model: Box<dyn Device>,
    host: TestHost,
}

impl Driven {
    fn new(mut model: Box<dyn Device>) -> Self {
        let mut host = TestHost::new(model.as_ref());
        model.attach(&mut host);
        model.reset(ResetKind::PowerOn, &mut host);
        Self { model, host }
    }

    fn find(&self, space: Space, address: u64, width: Width) -> Option<Access> {
        let hit = |r: &&crate::device::Region| {
            r.enabled && r.space == space && (r.base..r.base + r.len).contains(&address)
        };
        let region = self.host.regions.iter().find(hit)?;
        Some(Access {
            region: region.id,
            address,
            offset: address - region.base,
            width: width.min(region.width),
        })
    }

    fn access(&mut self, space: Space, address: u64, width: Width, value: Option<u32>) {
        let Some(at) = self.find(space, address, width) else {
            panic!("{}: nothing at {address:x}", self.model.name());
        };
        // A wider access comes as two.
        let pieces = width.bytes() / at.width.bytes();
        for piece in 0..u64::from(pieces) {
            let at = Access { address: address + piece, offset: at.offset + piece, ..at };
            match value {
                Some(value) => {
                    _ = self.model.write(at, value >> (8 * piece) & at.width.mask(), &mut self.host)
                }
                None => _ = self.model.read(at, &mut self.host),
            }
        }
    }

    fn run(&mut self, deed: Deed) {
        match deed {
            Out(port, value) => self.access(Space::Port, port.into(), Width::Byte, Some(value.into())),
            OutWord(port, value) => self.access(Space::Port, port.into(), Width::Word, Some(value.into())),
            In(port) => self.access(Space::Port, port.into(), Width::Byte, None),
            InWord(port) => self.access(Space::Port, port.into(), Width::Word, None),
            Load(address) => self.access(Space::Memory, address, Width::Byte, None),
            Config(register, value) => self.model.config_write(register, Width::Dword, value, &mut self.host),
            Wait(millis) => {
                let end = self.host.now.after(millis * 1_000_000);
                while let Some((&timer, &deadline)) = self.host.timers.iter().min_by_key(|(_, at)| **at)
                    && deadline <= end
                {
                    self.host.timers.remove(&timer);
                    self.host.now = self.host.now.max(deadline);
                    self.model.timer(timer, deadline, &mut self.host);
                }
                self.host.now = end;
            }
            Line(irq) => {
                for level in [true, false] {
                    crate::host::Host::set_irq(&mut self.host, irq, level);
                    self.model.lines_changed(&mut self.host);
                }
            }
            Acknowledge(vector) => self.model.interrupt_acknowledged(vector, &mut self.host),
            Deed::Key(pressed) => {
                self.model.host_event(&HostEvent::Key { key: Key::LEFT_SHIFT, pressed }, &mut self.host);
            }
        }
    }
}

/// The models of all built-in processes, with a diskette, a disk and a serial port.
fn models(folder: &std::path::Path) -> Vec<Box<dyn Device>> {
    let image = |name: &str, bytes: usize| {
        let path = folder.join(name);
        std::fs::write(&path, vec![0; bytes]).unwrap();
        path
    };
    let drive = |path| Some(DriveConfig { path, read_only: false, geometry: None });
    let config = MachineConfig {
        firmware: image("rom.bin", 128 << 10),
        floppies: [drive(image("floppy.img", 1440 << 10)), None],
        disks: [drive(image("disk.img", 8 << 20)), None, None, None],
        serial: [SerialBackend::Unconnected, SerialBackend::Absent],
        ..config()
    };
    let outside = crate::outside::Outside::live();
    let context = BuildContext { config: &config, start_unix_seconds: 0, outside: &outside };
    let build = |device: &&str| crate::standard::builder(device).unwrap()(&context).unwrap();
    ["chipset", "gpu", "keyboard", "storage"].iter().flat_map(build).collect()
}

/// What a state's parts are after each message, and which of them the message changed.
fn changes(driven: &mut Driven, messages: &[Deed]) -> Vec<(Deed, Parts, usize)> {
    // Twice: the second time a device is where it will be again and again.
    messages.iter().for_each(|deed| driven.run(*deed));
    let _ = driven.model.take_changed_parts();
    let message = |deed: &Deed| {
        driven.run(*deed);
        let all = (1 << driven.model.parts()) - 1;
        let changed = driven.model.take_changed_parts() & all;
        let mut bytes = Vec::new();
        (0..driven.model.parts())
            .filter(|part| changed & 1 << part != 0)
            .for_each(|part| driven.model.save_part(part, &mut bytes));
        (*deed, changed, bytes.len())
    };
    messages.iter().map(message).filter(|(_, changed, _)| *changed != 0).collect()
}

/// The shortest time of a commit.
fn cost(model: &dyn Device, changed: &[Parts], page: &ipc::link::StatePage) -> f64 {
    let mut writer = StateWriter::new(model.parts());
    let mut record = Vec::new();
    let mut reply = Message { value: 0x55, ..Message::new(Kind::Reply) };
    let mut sequence = 0;
    let mut round = || {
        let began = Instant::now();
        for changed in changed.iter().cycle().take(COMMITS as usize) {
            sequence += 1;
            reply.sequence = sequence;
            let decisions = Decisions { reply: Some(&reply), late_reply: None, events: 0, deferred: 0 };
            save_changed(model, *changed, &mut writer);
            pack_record(&decisions, &[], |_| (false, 0), &mut record);
            assert!(writer.commit(page, sequence, model.state_version(), &record));
        }
        began.elapsed()
    };
    let best = (0..MEASUREMENTS).map(|_| round()).min().unwrap_or_default();
    best.as_nanos() as f64 / f64::from(COMMITS)
}

/// Nanoseconds of a clock cycle, by multiplications that wait for each other: three cycles each.
fn cycle() -> f64 {
    const STEPS: u32 = 10_000;
    let round = || {
        let began = Instant::now();
        let mut value = std::hint::black_box(3u64);
        for _ in 0..STEPS {
            value = value.wrapping_mul(std::hint::black_box(value | 1));
        }
        std::hint::black_box(value);
        began.elapsed()
    };
    let best: Duration = (0..MEASUREMENTS).map(|_| round()).min().unwrap_or_default();
    best.as_nanos() as f64 / f64::from(STEPS)
}

/// Prints what committing costs: the mean of the driver's messages, and the dearest.
pub fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let names = SegmentNames::new(&format!("crash{}xcommit", std::process::id()));
    let link = Link::create(&names.link(0)).unwrap();
    let page = &link.layout().states[0];
    for model in models(folder.path()) {
        let mut driven = Driven::new(model);
        let name = driven.model.name();
        let (up, messages) = driver(name);
        up.into_iter().for_each(|deed| driven.run(deed));
        let changes = changes(&mut driven, &messages);
        let mut state = Vec::new();
        driven.model.save(&mut state);
        let model = driven.model.as_ref();
        let all: Vec<_> = changes.iter().map(|(_, changed, _)| *changed).collect();
        let mean = cost(model, if all.is_empty() { &[1] } else { &all }, page);
        let single = |&(deed, changed, bytes)| (cost(model, &[changed], page), deed, bytes);
        let mut singles: Vec<_> = changes.iter().map(single).collect();
        singles.sort_by(|a, b| b.0.total_cmp(&a.0));
        let dear = |number: &usize| *number == 0 || singles[*number].0 > GOAL;
        let dearest: String = (0..singles.len())
            .filter(dear)
            .map(|number| {
                let (cost, deed, bytes) = singles[number];
                format!("; {cost:.0} ns for {deed:x?} ({bytes} bytes)")
            })
            .collect();
        println!(
            "committing {name} ({} bytes in {} parts) costs {mean:.0} ns{dearest}",
            state.len(),
            model.parts()
        );
    }
    println!("a dependent multiplication takes {:.2} ns", cycle());
}

/// Time cannot be asserted on a machine that does other things too; the bytes that are written can.
#[test]
fn a_message_changes_little_of_a_state() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        let mut driven = Driven::new(model);
        let name = driven.model.name();
        let (up, messages) = driver(name);
        up.into_iter().for_each(|deed| driven.run(deed));
        for (deed, _, bytes) in changes(&mut driven, &messages) {
            // Whoever changes the configuration space does not do so often.
            let rare = matches!(deed, Config(..) | Wait(_) | Deed::Key(_) | Out(0x1f7, _));
            assert!(rare || bytes <= MOST_BYTES, "{name}: {deed:x?} changes {bytes} bytes");
        }
    }
}
