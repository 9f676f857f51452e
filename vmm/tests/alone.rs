//! What the bus does without asking a device: it answers from cells that hold, joins writes, makes accesses to memory of four lanes,
//! latches and reads counters, and reads registers that count ticks.
//! There is no device process here; what would be sent to one stays in the ring.

use ipc::chassis::Chassis;
use ipc::counter::{Counting, Latch, Rate};
use ipc::link::{Link, LinkLayout};
use ipc::message::{Kind, Message};
use ipc::mirror::Mirrored;
use ipc::raster::{Look, Raster, expand};
use ipc::region::{RegionInfo, WritePolicy};
use ipc::segment::{Segment, SegmentNames};
use ipc::sync::Ordering;
use ipc::tick_register::TickRegister;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::sync::Arc;
use vmm::bus::{DeviceLink, MachineBus};
use vmm::cpu::bus::Bus;

const RAM: u64 = 1 << 20;
const MEMORY: u64 = 1 << 18;
const SLOT: usize = 1;
/// A register that is mirrored, and one whose writes are joined.
const STATUS: u16 = 0x300;
const PALETTE: u16 = 0x310;
const WINDOW: u64 = 0xa_0000;
const WINDOW_LEN: u64 = 0x1_0000;
/// Where the lanes begin in the device memory.
const LANES_AT: u64 = 0x1000;
/// Ports with two counters, and a port of the same device that has none.
const COUNTER: u16 = 0x320;
const OTHER_COUNTER: u16 = COUNTER + 1;
const COMMAND: u16 = COUNTER + 3;
/// Ports with a register that counts ticks from the fifth on.
const POWER: u16 = 0x340;
const TICKS: TickRegister = TickRegister { offset: 4, hz: 3_579_545, bits: 24, zero: 1000 };
/// Bytes that latch the first and the second.
const LATCH: u32 = 0x40;
const LATCH_OTHER: u32 = 0x80;
/// Of 10 MHz.
const COUNTERS_HZ: u32 = 10_000_000;

struct Machine {
    link: Link,
    memory: Segment,
    bus: MachineBus,
}

fn region(base: u64, len: u64, is_memory: bool) -> RegionInfo {
    RegionInfo {
        model: 0,
        region: 0,
        is_memory,
        width: Width::Byte,
        writes: WritePolicy::Joined,
        enabled: true,
        mirror: None,
        backing: None,
        raster: is_memory,
        counters: false,
        ticks: None,
        base,
        len,
        name: "region".into(),
    }
}

impl Machine {
    fn new(test: &str) -> Self {
        let names = SegmentNames::new(&format!("alone{}{test}", std::process::id()));
        let chassis = Chassis::create(&names, RAM, 0).expect("board and panel");
        let ram = Segment::create(&names.ram(), RAM).expect("RAM");
        let link = Link::create(&names.link(SLOT)).expect("a link");
        let memory = Segment::create(&names.device_memory(SLOT), MEMORY).expect("device memory");
        let layout = link.layout();
        layout.device_memory_bytes.store(MEMORY, Ordering::Release);
        let status = RegionInfo { mirror: Some(0), ..region(STATUS.into(), 1, false) };
        let counters = RegionInfo { counters: true, ..region(COUNTER.into(), 4, false) };
        let power = RegionInfo { ticks: Some(TICKS), width: Width::Dword, ..region(POWER.into(), 8, false) };
        let palette = region(PALETTE.into(), 1, false);
        let regions = [status, palette, region(WINDOW, WINDOW_LEN, true), counters, power];
        layout.set_regions(&regions.map(|region| region.encode()));
        let device = DeviceLink::open(&names, SLOT, "device").expect("the link");
        layout.process.set_serves(true);
        Self { bus: MachineBus::new(Arc::new(chassis), ram, vec![device]), link, memory }
    }

    fn layout(&self) -> &LinkLayout {
        self.link.layout()
    }

    /// Sets virtual time, ns; it stands still.
    fn set_time(&mut self, nanos: u64) {
        self.bus.panel().clock.set(VirtualTime(nanos));
    }

    /// Latches and reads a counter.
    fn latched(&mut self, command: u32, port: u16) -> u16 {
        self.bus.write_port(COMMAND, Width::Byte, command);
        let mut byte = || self.bus.read_port(port, Width::Byte) as u8;
        u16::from_le_bytes([byte(), byte()])
    }

    fn word(&self, place: u64) -> u32 {
        let mut bytes = [0; 4];
        assert!(self.memory.read(place, &mut bytes));
        u32::from_le_bytes(bytes)
    }

    /// Messages in the ring, as a device process takes them.
    fn take(&self) -> Vec<Message> {
        let requests = &self.layout().requests;
        let mut taken = Vec::new();
        while !requests.is_empty() {
            taken.push(Message::decode(requests.close_front()).expect("a message"));
            requests.advance();
        }
        taken
    }
}

#[test]
fn a_cell_that_holds_is_answered_from() {
    let mut machine = Machine::new("cell");
    assert!(machine.layout().set_mirror(0, Mirrored::until(0x5a, VirtualTime(1 << 50))));
    assert_eq!(machine.bus.read_port(STATUS, Width::Byte), 0x5a);
    assert!(machine.layout().set_mirror(0, Mirrored::always(0xa5)));
    assert_eq!(machine.bus.read_port(STATUS, Width::Byte), 0xa5);
    assert_eq!(machine.take(), []);
}

#[test]
fn writes_to_one_register_share_messages() {
    let mut machine = Machine::new("join");
    for value in 1..=20 {
        machine.bus.write_port(PALETTE, Width::Byte, value);
    }
    let taken = machine.take();
    let values: Vec<Vec<u32>> = taken.iter().map(|message| message.values().collect()).collect();
    assert_eq!(values, [(1..=16).collect::<Vec<_>>(), (17..=20).collect()]);
    assert!(taken.iter().all(|message| message.kind == Kind::Write && !message.expects_reply()));
    // What was taken is closed, though it had room.
    machine.bus.write_port(PALETTE, Width::Byte, 21);
    assert_eq!(machine.take()[0].values().collect::<Vec<_>>(), [21]);
}

#[test]
fn a_raster_needs_no_message_and_a_write_behind_others_is_one() {
    let mut machine = Machine::new("raster");
    // Of the CPU's bits where the mask is set, and of the latch elsewhere; two of the lanes.
    let mask = 0x0f0f_0f0f;
    let raster = Raster {
        function: Raster::function(|cpu, latch| {
            let all = |bit: bool| if bit { u32::MAX } else { 0 };
            all(cpu) & mask | all(latch) & !mask
        }),
        enabled: expand(0b0101),
        expands: false,
        rotate: 0,
        look: Look::Lane(2),
        first: 0,
        wrap: 0xff,
        offset: LANES_AT,
    };
    assert!(machine.memory.write(LANES_AT + 4 * 7, &0x4433_2211u32.to_le_bytes()));
    machine.layout().raster.publish(Some(&raster));

    assert_eq!(machine.bus.read_memory(WINDOW + 7, Width::Byte), 0x33);
    assert_eq!(machine.layout().raster.loaded_by_bus(), Some(0x4433_2211));
    // Two words, the second by wrapping round.
    machine.bus.write_memory(WINDOW + 0xff, Width::Word, 0xbbaa);

    assert_eq!(machine.word(LANES_AT + 4 * 0xff), 0x003a_001a);
    assert_eq!(machine.word(LANES_AT), 0x003b_001b);
    assert_eq!(machine.take(), []);

    machine.bus.write_port(PALETTE, Width::Byte, 1);
    machine.bus.write_memory(WINDOW, Width::Byte, 0);
    let taken = machine.take();
    assert_eq!(taken.iter().map(|message| message.address).collect::<Vec<_>>(), [PALETTE.into(), WINDOW]);
    assert_eq!(machine.word(LANES_AT), 0x003b_001b, "the device makes it");

    // Without a raster, or beyond the memory, the device is asked.
    machine.layout().raster.publish(None);
    machine.bus.write_memory(WINDOW, Width::Byte, 0);
    machine.layout().raster.publish(Some(&Raster { offset: MEMORY - 2, ..raster }));
    machine.take();
    machine.bus.write_memory(WINDOW, Width::Byte, 0);
    assert_eq!(machine.take().len(), 1);
}

/// Counts down from 1000, from virtual time 0 on.
fn counting() -> Counting {
    Counting {
        register: 0,
        command: (COMMAND - COUNTER, LATCH as u8),
        rate: Rate::of_hz(COUNTERS_HZ),
        origin: VirtualTime(0),
        until: VirtualTime::NEVER,
        fraction: 0,
        phase: 0,
        period: 1000,
        turn: 1000,
        first: 1000,
        step: 1,
    }
}

#[test]
fn a_stated_counter_is_latched_and_read_without_a_message() {
    let mut machine = Machine::new("counter");
    let other = Counting {
        register: OTHER_COUNTER - COUNTER,
        command: (COMMAND - COUNTER, LATCH_OTHER as u8),
        first: 0,
        ..counting()
    };
    // Whichever cells they have.
    machine.layout().counters[2].publish(Some(&counting()), Latch::default());
    machine.layout().counters[1].publish(Some(&other), Latch::default());
    machine.set_time(12_345);
    assert_eq!(machine.latched(LATCH, COUNTER), 877);
    assert_eq!(machine.latched(LATCH_OTHER, OTHER_COUNTER), 0u16.wrapping_sub(123));

    // It stays as it was latched first, and the other way without a command.
    machine.bus.write_port(COMMAND, Width::Byte, LATCH);
    machine.set_time(20_000);
    machine.bus.write_port(COMMAND, Width::Byte, LATCH);
    assert_eq!(machine.bus.read_port(COUNTER, Width::Byte), 877 & 0xff);
    assert_eq!(machine.layout().counters[2].take().moved, Some(Latch { count: Some(877), high: true }));
    machine.layout().counters[2].give();
    // Two bytes at a time are two reads.
    assert_eq!(machine.bus.read_port(COUNTER, Width::Byte), 877 >> 8);
    assert_eq!(machine.bus.read_port(COUNTER, Width::Byte), 800 & 0xff);
    assert_eq!(machine.bus.read_port(COUNTER, Width::Byte), 800 >> 8);
    assert_eq!(machine.take(), []);

    // A new statement is noticed.
    machine.layout().counters[2].publish(Some(&Counting { first: 2000, ..counting() }), Latch::default());
    assert_eq!(machine.latched(LATCH, COUNTER), 1800);
    assert_eq!(machine.take(), []);
}

#[test]
fn what_is_not_stated_of_a_counter_is_sent() {
    let mut machine = Machine::new("sent");
    let sends = |machine: &mut Machine, port: u16, byte: u32| {
        machine.bus.write_port(port, Width::Byte, byte);
        machine.take().len() == 1
    };
    let publish = |machine: &Machine, counting: Option<Counting>| {
        machine.layout().counters[0].publish(counting.as_ref(), Latch::default());
    };
    machine.set_time(5000);
    assert!(sends(&mut machine, COMMAND, LATCH), "nothing is stated");
    publish(&machine, Some(counting()));
    assert!(!sends(&mut machine, COMMAND, LATCH));
    assert!(sends(&mut machine, COMMAND, LATCH_OTHER), "another value");
    assert!(sends(&mut machine, COUNTER, LATCH), "another register");
    publish(&machine, Some(Counting { until: VirtualTime(5000), ..counting() }));
    assert!(sends(&mut machine, COMMAND, LATCH), "it was true until now");
    publish(&machine, Some(Counting { origin: VirtualTime(5001), ..counting() }));
    assert!(sends(&mut machine, COMMAND, LATCH), "it is not true yet");
    publish(&machine, Some(Counting { period: 0, ..counting() }));
    assert!(sends(&mut machine, COMMAND, LATCH), "that is no period");
    publish(&machine, None);
    assert!(sends(&mut machine, COMMAND, LATCH), "not any more");
    // The device has taken it to act on it.
    publish(&machine, Some(counting()));
    machine.layout().counters[0].take();
    assert!(sends(&mut machine, COMMAND, LATCH));
    machine.layout().counters[0].give();
    assert!(!sends(&mut machine, COMMAND, LATCH));

    // Behind a write that is under way.
    publish(&machine, Some(counting()));
    machine.bus.write_port(PALETTE, Width::Byte, 1);
    machine.bus.write_port(COMMAND, Width::Byte, LATCH);
    let taken = machine.take();
    assert_eq!(
        taken.iter().map(|message| message.address).collect::<Vec<_>>(),
        [PALETTE, COMMAND].map(u64::from)
    );
    assert_eq!(machine.layout().counters[0].take().moved, None);
}

#[test]
fn a_register_that_counts_ticks_is_read_without_a_message_and_without_waiting_for_any() {
    let mut machine = Machine::new("ticks");
    machine.bus.write_port(POWER, Width::Dword, 1);
    machine.set_time(VirtualTime::of_ticks(1000 + 0x1_5678, TICKS.hz.into()).0);
    assert_eq!(machine.bus.read_port(POWER + 4, Width::Dword), 0x1_5678);
    assert_eq!(machine.bus.read_port(POWER + 5, Width::Byte), 0x56);
    machine.set_time(VirtualTime::of_ticks(1000 + 0x100_0002, TICKS.hz.into()).0);
    assert_eq!(machine.bus.read_port(POWER + 4, Width::Word), 2);
    assert_eq!(machine.take().len(), 1, "the write alone");
}

#[test]
fn ports_without_counters_cannot_be_claimed() {
    let mut machine = Machine::new("claim");
    // As seen from the region of counters, its own other ports and those of others.
    for register in [PALETTE.wrapping_sub(COUNTER), STATUS.wrapping_sub(COUNTER), 0, PALETTE] {
        let claim = Counting { register, command: (register, 1), ..counting() };
        machine.layout().counters[0].publish(Some(&claim), Latch { count: Some(0x5555), high: false });
        machine.bus.write_port(PALETTE, Width::Byte, 1);
        assert_eq!(machine.take().len(), 1, "{register:#x}");
        assert!(machine.layout().set_mirror(0, Mirrored::always(0xa5)));
        assert_eq!(machine.bus.read_port(STATUS, Width::Byte), 0xa5, "{register:#x}");
        assert_eq!(machine.layout().counters[0].take().moved, None, "{register:#x}");
    }
}
