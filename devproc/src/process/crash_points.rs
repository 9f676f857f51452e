//! Lets a device process die at every point of its protocol, and checks that a successor goes on so
//! that nobody can tell: no access is lost or done twice, nor an edge, an interrupt, a
//! transfer, a key or a tick.
//!
//! The VMM's side is played here, in the same thread: a process is served until it is idle, and
//! "dies" by unwinding out of [`super::crash_point`].

mod cost;
mod counters;
mod dma;
mod serial;

use super::{BuildContext, Builder, DeviceProcess, Order, Place};
use crate::device::{
    Access, Device, Dma, IoError, ReadResult, Region, RegionId, ResetKind, StateError, TimerId, Width,
    WriteResult, load_state, save_state,
};
use crate::host::{DmaChannel, DmaDirection, Host};
use crate::record::replay::replay;
use ipc::board::{Board, attention};
use ipc::chassis::Chassis;
use ipc::clock::{Freeze, SharedClock};
use ipc::input::{HostEvent, Key};
use ipc::link::{Link, encode_event};
use ipc::machine::{MachineConfig, SerialBackend};
use ipc::message::{FLAG_POSTED, Kind, Message, Status};
use ipc::segment::{Segment, SegmentNames};
use ipc::setup::{Recording, StartFrom};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

thread_local! {
    /// Points passed since the last look, and points to pass before the process dies.
    static PASSED: Cell<u64> = const { Cell::new(0) };
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Death;

/// A point was reached.
pub fn reached() {
    PASSED.set(PASSED.get() + 1);
    match LEFT.get() {
        Some(0) => {
            LEFT.set(None);
            resume_unwind(Box::new(Death));
        }
        Some(left) => LEFT.set(Some(left - 1)),
        None => {}
    }
}

const FIFO: u64 = 0;
const TRANSFER: u64 = 1;
const TIMER: u64 = 2;
const STATUS: u64 = 3;
const LATER: u64 = 4;
const LEVEL: u64 = 5;
const CONTROLLER: u64 = 0x20;
const TICK_IRQ: u8 = 0;
const DONE_IRQ: u8 = 6;
const PULSE_IRQ: u8 = 9;
const OWN_IRQ: u8 = 15;
const CHANNEL: u8 = 2;
const PERIOD: u64 = 1000;

/// A device with all that is hard to go on with: a FIFO whose reads take, DMA, a timer that makes
/// edges, an interrupt that is a level, an answer that comes later, keys.
#[derive(Default)]
struct Toy {
    state: ToyState,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ToyState {
    fifo: Vec<u32>,
    transfers: u32,
    ticks: u32,
    deadline: u64,
    irq: bool,
    waiting: bool,
    keys: u32,
}

impl Toy {
    fn arm(&self, host: &mut dyn Host) {
        if self.state.deadline != 0 {
            host.arm_timer(TimerId(0), VirtualTime(self.state.deadline));
        } else {
            host.cancel_timer(TimerId(0));
        }
    }
}

impl Device for Toy {
    fn dma(&self) -> Dma {
        Dma::Anywhere
    }
    fn name(&self) -> &'static str {
        "toy"
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(RegionId(0), "toy", 0x300, 8).width(Width::Dword)]
    }
    fn attach(&mut self, host: &mut dyn Host) {
        host.set_irq(DONE_IRQ, self.state.irq);
        host.set_irq(TICK_IRQ, self.state.ticks > 0);
        host.set_irq(PULSE_IRQ, false);
        self.arm(host);
    }
    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        match at.offset {
            FIFO if self.state.fifo.is_empty() => Err(IoError::NoResponse),
            FIFO => Ok(self.state.fifo.remove(0)),
            STATUS => {
                self.state.irq = false;
                host.set_irq(DONE_IRQ, false);
                Ok(self.state.transfers << 8 | self.state.ticks)
            }
            LATER => {
                self.state.waiting = true;
                Err(IoError::Deferred)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }
    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        match at.offset {
            FIFO => self.state.fifo.push(value),
            TRANSFER => {
                self.state.transfers += 1;
                let mut data = vec![self.state.transfers as u8; value as usize];
                host.isa_dma(CHANNEL, DmaDirection::ToMemory, &mut data);
                self.state.irq = true;
                host.set_irq(DONE_IRQ, true);
            }
            TIMER => {
                self.state.deadline = host.now().0 + PERIOD;
                self.arm(host);
            }
            LEVEL => {
                host.set_irq(PULSE_IRQ, true);
                host.set_irq(PULSE_IRQ, false);
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }
    fn timer(&mut self, _: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        self.state.ticks += 1;
        self.state.deadline = deadline.0 + PERIOD;
        host.set_irq(TICK_IRQ, false);
        host.set_irq(TICK_IRQ, true);
        // A DMA transfer that nobody asks for by a request.
        host.isa_dma(CHANNEL, DmaDirection::ToMemory, &mut [0xee]);
        if std::mem::take(&mut self.state.waiting) {
            host.complete_deferred(self.state.ticks);
        }
        self.arm(host);
    }
    fn host_event(&mut self, _: &HostEvent, host: &mut dyn Host) {
        self.state.keys += 1;
        self.state.fifo.push(0x1000 + self.state.keys);
        self.state.irq = true;
        host.set_irq(DONE_IRQ, true);
    }
    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        self.state = ToyState::default();
        self.attach(host);
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }
    fn load(&mut self, _: u16, data: &[u8]) -> Result<(), StateError> {
        self.state = load_state(data)?;
        Ok(())
    }
}

/// An interrupt controller: each edge of a line is a request; the lowest line comes first.
#[derive(Default)]
struct Controller {
    state: ControllerState,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ControllerState {
    seen: [u32; 16],
    requests: u16,
    in_service: Vec<u8>,
    keys: u32,
    writes: u32,
}

impl Controller {
    fn look(&mut self, host: &mut dyn Host) {
        let edges = host.irq_lines().isa_edges;
        for (irq, (seen, now)) in self.state.seen.iter_mut().zip(edges).enumerate() {
            if *seen != now {
                *seen = now;
                self.state.requests |= 1 << irq;
            }
        }
    }
    fn publish(&self, host: &mut dyn Host) {
        let request = (self.state.requests != 0).then(|| self.state.requests.trailing_zeros() as u8);
        host.set_interrupt_request(request);
    }
}

impl Device for Controller {
    fn name(&self) -> &'static str {
        "controller"
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(RegionId(0), "controller", 0x20, 1)]
    }
    fn attach(&mut self, host: &mut dyn Host) {
        host.set_irq(OWN_IRQ, self.state.writes % 2 == 1);
        self.look(host);
        self.publish(host);
    }
    fn read(&mut self, _: Access, _: &mut dyn Host) -> ReadResult {
        Ok(self.state.in_service.pop().map_or(0xff, u32::from))
    }
    fn write(&mut self, _: Access, _: u32, host: &mut dyn Host) -> WriteResult {
        // A write that changes a line, which this same model then is told of.
        self.state.writes += 1;
        host.set_irq(OWN_IRQ, self.state.writes % 2 == 1);
        Ok(())
    }
    fn lines_changed(&mut self, host: &mut dyn Host) {
        self.look(host);
        self.publish(host);
    }
    fn watches_lines(&self) -> bool {
        true
    }
    fn interrupt_acknowledged(&mut self, vector: u8, host: &mut dyn Host) {
        self.look(host);
        self.state.requests &= !(1 << vector);
        self.state.in_service.push(vector);
        self.publish(host);
    }
    fn host_event(&mut self, _: &HostEvent, _: &mut dyn Host) {
        self.state.keys += 1;
    }
    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        let seen = host.irq_lines().isa_edges;
        self.state = ControllerState { seen, ..ControllerState::default() };
        self.attach(host);
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }
    fn load(&mut self, _: u16, data: &[u8]) -> Result<(), StateError> {
        self.state = load_state(data)?;
        Ok(())
    }
}

fn build(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(vec![Box::new(Toy::default()), Box::new(Controller::default())])
}

fn config() -> MachineConfig {
    MachineConfig {
        name: "crash".into(),
        cpu: "pentium3".into(),
        engine: "interp".into(),
        ram_bytes: 1 << 20,
        firmware: "none".into(),
        video_rom: None,
        floppies: [None, None],
        disks: [None, None, None, None],
        boot_order: vec![],
        cmos: None,
        debug_console: None,
        serial: [SerialBackend::Absent, SerialBackend::Absent],
    }
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Write(u64, u32),
    Post(u64, u32),
    Read(u64),
    /// Posts several writes to the FIFO at once.
    Burst(u32),
    Advance(u64),
    Keys(u32),
    Interrupt,
    /// Programs the DMA channel anew.
    Program,
    Reset,
}

const SCRIPT: &[Step] = &[
    Step::Program,
    Step::Post(FIFO, 1),
    Step::Post(FIFO, 2),
    Step::Read(FIFO),
    Step::Write(TRANSFER, 100),
    Step::Interrupt,
    Step::Read(STATUS),
    Step::Keys(3),
    Step::Interrupt,
    Step::Read(FIFO),
    Step::Post(TIMER, 0),
    Step::Advance(PERIOD),
    Step::Interrupt,
    Step::Advance(PERIOD),
    Step::Advance(PERIOD),
    Step::Interrupt,
    Step::Interrupt,
    Step::Read(LATER),
    Step::Post(LEVEL, 0),
    Step::Interrupt,
    Step::Write(CONTROLLER, 0),
    Step::Interrupt,
    Step::Write(CONTROLLER, 0),
    Step::Read(CONTROLLER),
    Step::Read(CONTROLLER),
    Step::Burst(20),
    Step::Program,
    Step::Post(TRANSFER, 300),
    Step::Advance(2 * PERIOD),
    Step::Read(FIFO),
    Step::Read(FIFO),
    Step::Interrupt,
    Step::Interrupt,
    Step::Interrupt,
    Step::Read(CONTROLLER),
    Step::Reset,
    Step::Post(FIFO, 7),
    Step::Read(FIFO),
    Step::Read(STATUS),
    Step::Interrupt,
];

/// What the guest and others saw of it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    answers: Vec<(Status, u64)>,
    vectors: Vec<Option<u8>>,
    edges: Vec<[u32; 16]>,
    ram: Vec<u8>,
    channels: Vec<[u64; 2]>,
    states: Vec<Vec<u8>>,
}

/// Threads that write a recording.
type Writers = Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>;

/// Waits until all of a recording is written.
fn join(writers: &Writers) {
    writers.lock().unwrap().drain(..).for_each(|writer| writer.join().unwrap());
}

struct Machine {
    names: SegmentNames,
    chassis: Chassis,
    ram: Segment,
    link: Link,
    config: MachineConfig,
    builder: Builder,
    process: Option<DeviceProcess>,
    started: bool,
    deaths: u32,
    /// Points after which the successor dies too.
    again: Option<u64>,
    /// Where it is recorded.
    recording: Option<PathBuf>,
    /// Those who write the recording.
    writers: Writers,
    seen: Seen,
}

impl Machine {
    fn new(name: &str, again: Option<u64>) -> Self {
        let names = SegmentNames::new(&format!("crash{}x{name}", std::process::id()));
        let chassis = Chassis::create(&names, 1 << 20, 0).unwrap();
        let ram = Segment::create(&names.ram(), 1 << 20).unwrap();
        let link = Link::create(&names.link(0)).unwrap();
        let (config, builder, seen) = (config(), build as Builder, Seen::default());
        Self {
            names,
            chassis,
            ram,
            link,
            config,
            builder,
            process: None,
            started: false,
            deaths: 0,
            again,
            recording: None,
            writers: Writers::default(),
            seen,
        }
    }

    fn board(&self) -> &Board {
        self.chassis.board()
    }

    fn clock(&self) -> &SharedClock {
        &self.chassis.panel().clock
    }

    /// Where the next process records: somebody who writes the file, as the supervisor does.
    fn tape(&self) -> Option<Recording> {
        let path = self.recording.clone().filter(|_| self.process.is_none())?;
        join(&self.writers);
        let (sink, pieces) = ipc_channel::ipc::bytes_channel().unwrap();
        self.writers.lock().unwrap().push(std::thread::spawn(move || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            while let Ok(piece) = pieces.recv() {
                std::io::Write::write_all(&mut file, &piece).unwrap();
            }
        }));
        Some(Recording { sink, append: self.started })
    }

    /// Serves until nothing is left to do, with as many processes as that takes.
    fn settle(&mut self) {
        loop {
            let from = if self.started { StartFrom::Committed } else { StartFrom::PowerOn };
            let place = Place { slot: 0, config: &self.config, dma: None, ram: None };
            let recording = self.tape();
            let (names, builder, process) = (&self.names, self.builder, self.process.take());
            let run = AssertUnwindSafe(|| {
                let mut process = process.unwrap_or_else(|| {
                    DeviceProcess::open(names, "toy", &place, from, recording.as_ref(), builder).unwrap()
                });
                process.orders.give(Order::End);
                process.serve().unwrap();
                process
            });
            match catch_unwind(run) {
                Ok(process) => {
                    self.process = Some(process);
                    self.started = true;
                    return;
                }
                Err(reason) => {
                    assert!(reason.is::<Death>(), "a real panic");
                    self.deaths += 1;
                    LEFT.set(self.again.take());
                }
            }
        }
    }

    fn push(&self, message: Message) -> u64 {
        let requests = &self.link.layout().requests;
        let sequence = requests.produced() + 1;
        let time = self.clock().now();
        requests.push(Message { sequence, time, ..message }.encode()).unwrap();
        sequence
    }

    fn access(&self, kind: Kind, register: u64, value: u32) -> Message {
        let (model, address, width) = if register == CONTROLLER {
            (1, CONTROLLER, Width::Byte)
        } else {
            (0, 0x300 + register, Width::Dword)
        };
        Message { model, address, value: value.into(), width, ..Message::new(kind) }
    }

    fn answer(&self, sequence: u64) -> Option<Message> {
        let replies = &self.link.layout().replies;
        let mut answer = None;
        while let Some(words) = replies.peek().unwrap() {
            replies.advance();
            let message = Message::decode(words).unwrap();
            if message.kind == Kind::Reply && message.sequence == sequence {
                answer = answer.or(Some(message));
            }
        }
        answer
    }

    fn call(&mut self, message: Message) {
        let sequence = self.push(message);
        self.settle();
        let mut answer = self.answer(sequence);
        for _ in 0..3 {
            if answer.is_none() {
                // A deferred answer comes with the next tick.
                self.advance(PERIOD);
                answer = self.answer(sequence);
            }
        }
        let answer = answer.expect("the guest would wait for ever");
        self.seen.answers.push((answer.status, answer.value));
    }

    fn advance(&mut self, nanos: u64) {
        let clock = self.clock();
        clock.set(clock.now().after(nanos));
        self.settle();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(register, value) => self.call(self.access(Kind::Write, register, value)),
            Step::Read(register) => self.call(self.access(Kind::Read, register, 0)),
            Step::Post(register, value) => {
                self.push(Message { flags: FLAG_POSTED, ..self.access(Kind::Write, register, value) });
                self.settle();
            }
            Step::Burst(count) => {
                for value in 0..count {
                    self.push(Message { flags: FLAG_POSTED, ..self.access(Kind::Write, FIFO, value) });
                }
                self.settle();
            }
            Step::Advance(nanos) => self.advance(nanos),
            Step::Keys(count) => {
                for _ in 0..count {
                    let event = HostEvent::Key { key: Key::A, pressed: true };
                    self.link.layout().events.push(encode_event(&event)).unwrap();
                }
                self.settle();
            }
            Step::Interrupt => {
                // As the monitor does: the bit first, then the request.
                let called = self.board().take_attention(attention::INTR) != 0;
                let taken = if called { self.board().intr.take() } else { None };
                self.seen.vectors.push(taken.map(|t| t.vector));
                if let Some(taken) = taken {
                    self.push(Message {
                        model: taken.model,
                        value: taken.vector.into(),
                        address: taken.generation.into(),
                        flags: FLAG_POSTED,
                        ..Message::new(Kind::InterruptAcknowledge)
                    });
                    self.settle();
                }
            }
            Step::Program => {
                let channel =
                    DmaChannel { current_address: 0x1000, current_count: 0x2ff, ..DmaChannel::default() };
                self.board().set_dma_channel(CHANNEL, super::effects::pack_channel(&channel));
            }
            Step::Reset => self.call(Message { value: 1, ..Message::new(Kind::Reset) }),
        }
        self.seen.edges.push(self.board().lines.edges());
        self.seen.channels.push(self.board().dma_channel(CHANNEL).0);
        let states = &self.link.layout().states[..2];
        self.seen.states.push(states.iter().flat_map(|page| page.committed().unwrap().data).collect());
    }

    fn run(mut self) -> (Seen, u32) {
        self.settle();
        for step in SCRIPT {
            self.step(*step);
        }
        let mut ram = vec![0; 0x2000];
        assert!(self.ram.read(0, &mut ram));
        self.seen.ram = ram;
        (self.seen, self.deaths)
    }
}

/// Runs the script, letting the process die after `first` points and its successor after `again`.
fn run(name: &str, first: Option<u64>, again: Option<u64>) -> (Seen, u32) {
    run_machine(Machine::new(name, again), first)
}

fn run_machine(mut machine: Machine, first: Option<u64>) -> (Seen, u32) {
    LEFT.set(None);
    assert!(machine.clock().is_frozen());
    machine.clock().freeze(Freeze::Paused);
    machine.settle();
    PASSED.set(0);
    LEFT.set(first);
    let result = machine.run();
    LEFT.set(None);
    result
}

fn compare(seen: &Seen, expected: &Seen, when: &str) {
    assert_eq!(seen.answers, expected.answers, "answers: {when}");
    assert_eq!(seen.vectors, expected.vectors, "vectors: {when}");
    let step = seen.edges.iter().zip(&expected.edges).position(|(a, b)| a != b);
    assert_eq!(step.map(|i| (SCRIPT[i], seen.edges[i], expected.edges[i])), None, "edges: {when}");
    let step = seen.channels.iter().zip(&expected.channels).position(|(a, b)| a != b);
    assert_eq!(step.map(|i| (SCRIPT[i], seen.channels[i], expected.channels[i])), None, "channel: {when}");
    let byte = seen.ram.iter().zip(&expected.ram).position(|(a, b)| a != b);
    assert_eq!(byte, None, "memory: {when}");
    let step = seen.states.iter().zip(&expected.states).position(|(a, b)| a != b);
    assert_eq!(step.map(|i| (SCRIPT[i], &seen.states[i], &expected.states[i])), None, "states: {when}");
}

#[test]
fn a_process_that_dies_at_any_point_is_never_missed() {
    let (expected, _) = run("none", None, None);
    let points = PASSED.get();
    assert!(points > 200, "{points} points: are the hooks gone?");
    assert!(expected.vectors.iter().flatten().count() >= 7, "{:?}", expected.vectors);
    for point in 0..points {
        let (seen, deaths) = run(&format!("p{point}"), Some(point), None);
        assert_eq!(deaths, 1, "point {point} of {points}");
        compare(&seen, &expected, &format!("died at point {point} of {points}"));
    }
}

#[test]
fn a_successor_that_dies_while_it_takes_over_is_never_missed() {
    let (expected, _) = run("none2", None, None);
    let points = PASSED.get();
    for point in (0..points).step_by(3) {
        for again in 0..12 {
            let (seen, _) = run(&format!("p{point}a{again}"), Some(point), Some(again));
            compare(&seen, &expected, &format!("died at point {point} of {points}, then after {again}"));
        }
    }
}

/// The same with a recording, which is then replayed.
fn run_recorded(name: &str, first: Option<u64>, recording: &Path) -> (Seen, u32) {
    let machine = Machine { recording: Some(recording.into()), ..Machine::new(name, None) };
    let writers = machine.writers.clone();
    let result = run_machine(machine, first);
    join(&writers);
    let mut differences = Vec::new();
    let file = std::fs::File::open(recording).expect("the recording");
    let report = replay(
        std::io::BufReader::new(file),
        |_| Some(build),
        None,
        |difference| {
            differences.push(difference.clone());
            true
        },
    );
    let report = report.unwrap();
    assert_eq!(differences, [], "{name}");
    assert!(report.transactions > 60 && !report.cut, "{name}: {report:?}");
    std::fs::remove_file(recording).expect("the recording");
    result
}

#[test]
fn a_process_that_dies_while_it_is_recorded_is_not_missed_and_its_recording_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.rec");
    let (expected, _) = run("unrecorded", None, None);
    let (seen, _) = run_recorded("recorded", None, &file);
    let points = PASSED.get();
    compare(&seen, &expected, "recorded");
    for point in 0..points {
        let (seen, deaths) = run_recorded(&format!("r{point}"), Some(point), &file);
        assert_eq!(deaths, 1, "point {point} of {points}");
        compare(&seen, &expected, &format!("died at point {point} of {points}"));
    }
}
