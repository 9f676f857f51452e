//! The same with a timer whose counters the bus latches and reads by itself: no latch is lost, no byte comes twice. The bus is played here.

use super::{LEFT, Machine, Order, PASSED};
use crate::chipset::pit_8254::Pit;
use crate::device::{Device, Width};
use crate::process::BuildContext;
use ipc::clock::Freeze;
use ipc::counter::{CounterCell, Counting, Latch, Seen};
use ipc::message::{FLAG_POSTED, Kind, Message};
use ipc::time::VirtualTime;

const COUNTER_0: u64 = 0x40;
const COUNTER_2: u64 = 0x42;
const CONTROL: u64 = 0x43;
const PORT_61: u64 = 0x61;
const LATCH_0: u8 = 0x00;
const LATCH_2: u8 = 0x80;
const READ_STATUS_2: u8 = 0xe8;
const MICROSECOND: u64 = 1000;
/// Longer than the period of counter 0.
const PERIOD: u64 = 1_700_000;

fn build(_: &BuildContext<'_>) -> Result<Vec<Box<dyn Device>>, String> {
    Ok(vec![Box::new(Pit::new())])
}

struct Guest {
    machine: Machine,
    read: Vec<u8>,
    edges: Vec<u32>,
    /// Accesses that the bus made by itself.
    alone: u32,
}

impl Guest {
    fn message(kind: Kind, port: u64, value: u8) -> Message {
        let region = u8::from(port == PORT_61);
        Message { region, address: port, value: value.into(), width: Width::Byte, ..Message::new(kind) }
    }

    /// The counter in force of which `is_it` is true, and the time.
    fn find(&self, is_it: impl Fn(&Counting) -> bool) -> Option<(&CounterCell, Seen, Counting, VirtualTime)> {
        let now = self.machine.clock().now();
        self.machine.link.layout().counters.iter().find_map(|cell| {
            let seen = cell.look()?;
            let counting = cell.counting(seen).filter(&is_it)?;
            Some((cell, seen, counting, now))
        })
    }

    fn write(&mut self, port: u64, value: u8) {
        let command = (port.wrapping_sub(COUNTER_0) as u16, value);
        let made = self
            .find(|counting| counting.command == command)
            .is_some_and(|(cell, seen, counting, now)| cell.latch(seen, &counting, || now));
        if made {
            self.alone += 1;
            return;
        }
        self.machine.push(Message { flags: FLAG_POSTED, ..Self::message(Kind::Write, port, value) });
        self.machine.settle();
    }

    fn read(&mut self, port: u64) {
        let made = self
            .find(|counting| COUNTER_0 + u64::from(counting.register) == port)
            .and_then(|(cell, seen, counting, now)| cell.read(seen, &counting, || now));
        if let Some(byte) = made {
            self.alone += 1;
            self.read.push(byte);
            return;
        }
        self.machine.call(Self::message(Kind::Read, port, 0));
        self.read.push(self.machine.seen.answers.last().expect("an answer").1 as u8);
    }

    fn advance(&mut self, nanos: u64) {
        self.machine.advance(nanos);
        self.edges.push(self.machine.board().lines.edges_of(0));
    }

    /// The process dies while it has nothing to do; it is some time until there is another one.
    fn kill(&mut self) {
        self.machine.process = None;
    }
}

/// What the guest saw, deaths, and accesses that the bus made by itself.
fn run(name: &str, first: Option<u64>, again: Option<u64>) -> ((Vec<u8>, Vec<u32>), u32, u32) {
    LEFT.set(None);
    let mut machine = Machine::new(&format!("counters{name}"), again);
    machine.builder = build;
    machine.clock().freeze(Freeze::Paused);
    machine.settle();
    PASSED.set(0);
    LEFT.set(first);
    let mut guest = Guest { machine, read: Vec::new(), edges: Vec::new(), alone: 0 };
    // Rate generator with 2000; gate on, square wave with 1001.
    for (port, value) in [(CONTROL, 0x34), (COUNTER_0, 0xd0), (COUNTER_0, 0x07)] {
        guest.write(port, value);
    }
    for (port, value) in [(PORT_61, 1), (CONTROL, 0xb6), (COUNTER_2, 0xe9), (COUNTER_2, 0x03)] {
        guest.write(port, value);
    }
    guest.advance(10 * MICROSECOND);
    for (command, port) in [(LATCH_0, COUNTER_0), (LATCH_2, COUNTER_2), (LATCH_0, COUNTER_0)] {
        guest.write(CONTROL, command);
        guest.read(port);
        guest.read(port);
        guest.advance(7 * MICROSECOND);
    }
    // Killed between latch and reads, and between those.
    guest.write(CONTROL, LATCH_0);
    guest.kill();
    guest.read(COUNTER_0);
    guest.advance(MICROSECOND);
    guest.kill();
    guest.read(COUNTER_0);
    // With ticks in between.
    guest.write(CONTROL, LATCH_0);
    guest.write(CONTROL, LATCH_2);
    guest.advance(PERIOD);
    guest.read(COUNTER_0);
    guest.read(COUNTER_2);
    guest.advance(PERIOD);
    guest.read(COUNTER_0);
    guest.read(COUNTER_2);
    // With messages in between, which need the latch or change what is stated.
    guest.write(CONTROL, LATCH_2);
    guest.write(PORT_61, 3);
    guest.read(COUNTER_2);
    guest.write(CONTROL, READ_STATUS_2);
    guest.read(COUNTER_2);
    guest.read(COUNTER_2);
    guest.write(CONTROL, LATCH_0);
    guest.write(COUNTER_0, 100);
    guest.write(COUNTER_0, 0);
    guest.read(COUNTER_0);
    guest.advance(PERIOD);
    guest.read(COUNTER_0);
    // A control word lets go of what is latched.
    guest.write(CONTROL, LATCH_2);
    for (port, value) in [(CONTROL, 0xb6), (COUNTER_2, 7), (COUNTER_2, 0)] {
        guest.write(port, value);
    }
    guest.advance(3 * MICROSECOND);
    guest.read(COUNTER_2);
    guest.read(COUNTER_2);
    // Without a command.
    guest.read(COUNTER_0);
    guest.read(PORT_61);
    guest.read(COUNTER_0);
    guest.write(CONTROL, LATCH_0);
    guest.machine.call(Message { value: 1, ..Message::new(Kind::Reset) });
    guest.read(COUNTER_0);
    guest.read(COUNTER_0);
    guest.read(COUNTER_2);
    LEFT.set(None);
    guest.machine.names.remove_all();
    ((guest.read, guest.edges), guest.machine.deaths, guest.alone)
}

#[test]
fn a_timer_that_dies_at_any_point_loses_no_latch_and_doubles_no_byte() {
    let (expected, _, alone) = run("none", None, None);
    let points = PASSED.get();
    assert!(points > 100, "{points} points: are the hooks gone?");
    assert!(alone > 20, "{alone} accesses made by the bus");
    for point in 0..points {
        let (seen, deaths, _) = run(&format!("p{point}"), Some(point), None);
        assert_eq!(deaths, 1, "point {point} of {points}");
        assert_eq!(seen, expected, "died at point {point} of {points}");
    }
    for point in (0..points).step_by(3) {
        for again in 0..10 {
            let (seen, _, _) = run(&format!("p{point}a{again}"), Some(point), Some(again));
            assert_eq!(seen, expected, "died at point {point} of {points}, then after {again}");
        }
    }
}

#[test]
fn what_the_bus_latched_is_in_the_states_of_a_parked_process() {
    let mut machine = Machine::new("parked", None);
    machine.builder = build;
    machine.clock().freeze(Freeze::Paused);
    machine.settle();
    let mut guest = Guest { machine, read: Vec::new(), edges: Vec::new(), alone: 0 };
    for (port, value) in [(CONTROL, 0x34), (COUNTER_0, 0xd0), (COUNTER_0, 0x07)] {
        guest.write(port, value);
    }
    // 12 clocks, of which one loads the count.
    guest.advance(10 * MICROSECOND);
    guest.read(COUNTER_0);
    guest.read(COUNTER_0);
    guest.write(CONTROL, LATCH_0);
    let park = |guest: &mut Guest, reload| {
        let process = guest.machine.process.as_mut().unwrap();
        process.orders.give(Order::GoOn { reload });
        assert_eq!(process.park(&[]), Order::GoOn { reload });
    };

    // It goes on itself, with the same statements.
    park(&mut guest, false);
    guest.read(COUNTER_0);
    assert_eq!(guest.alone, 3, "latched and read by the bus");

    // Another one goes on, of another VM: nothing of it is in the link.
    park(&mut guest, true);
    let cells = &guest.machine.link.layout().counters;
    assert!(cells.iter().all(|cell| !cell.is_in_force()));
    cells.iter().for_each(|cell| cell.publish(None, Latch::default()));
    guest.machine.process = None;
    guest.machine.settle();
    guest.advance(MICROSECOND);
    guest.read(COUNTER_0);
    assert_eq!(guest.read, [0xc6, 0x07, 0xc6, 0x07]);
}
