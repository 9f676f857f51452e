//! A device process that does its worst on everything it can write: its link (rings, region table, mirrors, payload,
//! state pages) and the board; the panel it cannot. Whatever it does, the bus answers every access in the end, panics never, and reaches
//! no byte outside guest RAM and the memory of devices.
//!
//! One thread is the guest, one the device process, which also does what a supervisor does with a process that does not
//! answer: takes it off the bus. `VMSIM_HOSTILE_MESSAGES=N` makes it longer, `VMSIM_HOSTILE_SEED=N` repeats what the attacker does (not when).

use ipc::board::Board;
use ipc::chassis::Chassis;
use ipc::clock::Freeze;
use ipc::counter::{Counting, Latch, MAX_COUNTERS, Rate};
use ipc::link::{Link, LinkLayout, ModelInfo, PAYLOAD_BYTES, Payload};
use ipc::message::{Kind, MESSAGE_WORDS, Message, Status};
use ipc::mirror::Mirrored;
use ipc::panel::{ProcessState, RunState, VMM_SLOT};
use ipc::raster::{Look, Raster};
use ipc::region::{RegionInfo, WritePolicy};
use ipc::segment::{Segment, SegmentNames};
use ipc::sync::Ordering;
use ipc::tick_register::TickRegister;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vmm::bus::{DeviceLink, MachineBus};
use vmm::cpu::bus::{Bus, PAGE_SIZE};

/// What the attacker does, unless the variable says otherwise.
const MESSAGES: u64 = 1_000_000;
const RAM: u64 = 4 << 20;
/// RAM from here on is nobody's: neither guest nor attacker writes there.
const FORBIDDEN: u64 = 2 << 20;
const DEVICE_MEMORY: u64 = 256 << 10;
/// Slots of the two device processes.
const HOSTILE: usize = 0;
const HONEST: usize = 1;
/// A port of the honest device and what it reads there.
const HONEST_PORT: u16 = 0x60;
const HONEST_VALUE: u64 = 0x5a;
/// Attacks between two accesses, and how long one of those is waited for.
const ATTACKS_AT_ONCE: u64 = 32;
const PATIENCE: Duration = Duration::from_millis(1);
/// After so many accesses that did not come, the devices are taken off the bus.
const LATE_ACCESSES: u32 = 3;
/// The test fails when an access takes this long.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 8) % limit
    }
    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
    /// A number that is often a limit or close to one.
    fn word(&mut self) -> u64 {
        let near = self.below(3).wrapping_sub(1);
        match self.below(6) {
            0 => near,
            1 => u64::MAX.wrapping_add(near),
            2 => (1u64 << self.below(64)).wrapping_add(near),
            3 => self.below(0x400),
            4 => u64::from(self.next() as u32),
            _ => self.next(),
        }
    }
}

struct Vm {
    names: SegmentNames,
    chassis: Arc<Chassis>,
    /// The board, by bytes.
    board: Segment,
    links: [Link; 2],
    /// The same memory as the first link, by bytes.
    hostile: Segment,
    _memory: Segment,
}

impl Vm {
    fn create() -> (Self, Segment) {
        let names = SegmentNames::new(&format!("hostile{}", std::process::id()));
        let chassis = Arc::new(Chassis::create(&names, RAM, 0).expect("board and panel"));
        let board = Segment::open(&names.board()).expect("the board");
        let ram = Segment::create(&names.ram(), RAM).expect("RAM");
        let links = [HOSTILE, HONEST].map(|slot| Link::create(&names.link(slot)).expect("a link"));
        let memory = Segment::create(&names.device_memory(HOSTILE), DEVICE_MEMORY).expect("device memory");
        let hostile = Segment::open(&names.link(HOSTILE)).expect("the link");
        (Self { chassis, board, links, hostile, _memory: memory, names }, ram)
    }

    fn board(&self) -> &Board {
        self.chassis.board()
    }

    /// Brings back what was taken off the bus, as the supervisor does when it is asked to.
    fn bring_back(&self) {
        for slot in [HOSTILE, HONEST] {
            self.chassis.panel().set_process_state(slot, ProcessState::Ready);
        }
    }
}

fn region(base: u64, len: u64, is_memory: bool) -> RegionInfo {
    RegionInfo {
        model: 0,
        region: 0,
        is_memory,
        width: Width::Dword,
        writes: WritePolicy::Sync,
        enabled: true,
        mirror: None,
        backing: None,
        raster: false,
        counters: false,
        ticks: None,
        base,
        len,
        name: "region".into(),
    }
}

/// A region that makes sense or nearly so.
fn any_region(random: &mut Random) -> RegionInfo {
    let is_memory = random.one_in(2);
    let pages = |random: &mut Random| random.below(80) * PAGE_SIZE;
    let (base, len) = match (is_memory, random.below(3)) {
        (true, 0) => (0xa_0000 + pages(random), pages(random)),
        (true, _) => (RAM + pages(random), pages(random)),
        (false, 0) => (0x3f0 + random.below(16), random.below(32)),
        (false, _) => (random.below(1 << 16), random.below(256)),
    };
    RegionInfo {
        model: random.below(20) as u8,
        width: [Width::Byte, Width::Word, Width::Dword][random.below(3) as usize],
        writes: [WritePolicy::Sync, WritePolicy::Posted, WritePolicy::PostedLocal, WritePolicy::Joined]
            [random.below(4) as usize],
        enabled: !random.one_in(4),
        mirror: random.one_in(3).then(|| random.below(1030) as u16),
        backing: (is_memory && random.one_in(2)).then(|| (pages(random), random.one_in(2))),
        raster: is_memory && random.one_in(3),
        counters: random.one_in(3),
        ticks: random.one_in(4).then(|| TickRegister {
            offset: random.below(40) as u16,
            hz: random.next() as u32,
            bits: random.below(40) as u8,
            zero: random.next(),
        }),
        ..region(base, len, is_memory)
    }
}

struct Attacker<'a> {
    vm: &'a Vm,
    random: Random,
}

impl Attacker<'_> {
    fn layout(&self) -> &LinkLayout {
        self.vm.links[HOSTILE].layout()
    }

    fn overwrite(&mut self, at: usize, value: u64) {
        assert!(self.vm.hostile.write(at as u64, &value.to_le_bytes()), "inside the link");
    }

    fn send(&mut self, words: [u64; MESSAGE_WORDS]) {
        // A ring that is full or was spoilt takes nothing: there are other things to do.
        let _ = self.layout().replies.push(words);
    }

    /// Answers what waits, as it should or almost so.
    fn answer(&mut self, honestly: bool) {
        let vm = self.vm;
        let layout = vm.links[HOSTILE].layout();
        let Ok(waiting) = layout.requests.len() else {
            layout.requests.clear();
            return;
        };
        for _ in 0..waiting {
            let request = Message::decode(layout.requests.front());
            if let Some(request) = request.filter(Message::expects_reply) {
                let reply = Message {
                    sequence: request.sequence,
                    value: self.random.word(),
                    ..Message::new(Kind::Reply)
                };
                let mut words = reply.encode();
                if !honestly {
                    words[self.random.below(MESSAGE_WORDS as u64) as usize] ^= self.random.word();
                }
                self.send(words);
            }
            layout.requests.advance();
        }
        vm.board().doorbell(VMM_SLOT).ring();
    }

    /// Lets the guest make an access. When none comes, does what a supervisor does with a process that does not answer.
    fn let_the_guest_on(&mut self, accesses: &AtomicU64, gone: &AtomicBool) -> bool {
        let before = accesses.load(Ordering::Relaxed);
        let comes = |attacker: &mut Self, patience: Duration| {
            let started = Instant::now();
            let came = || accesses.load(Ordering::Relaxed) != before || gone.load(Ordering::Acquire);
            while !came() && started.elapsed() < patience {
                attacker.answer(true);
                std::thread::yield_now();
            }
            came()
        };
        if comes(self, PATIENCE * LATE_ACCESSES) {
            return true;
        }
        let board = self.vm.board();
        for slot in [HOSTILE, HONEST] {
            self.vm.chassis.panel().set_process_state(slot, ProcessState::Offline);
        }
        board.call_vcpu(0);
        while !comes(self, PATIENCE) {
            board.call_vcpu(0);
        }
        false
    }

    fn attack(&mut self) {
        let vm = self.vm;
        let board = vm.board();
        let layout = vm.links[HOSTILE].layout();
        let (a, b, c) = (self.random.word(), self.random.word(), self.random.word());
        match self.random.below(40) {
            0 if self.random.one_in(10) => self.answer(false),
            1 => self.send([a, b, c, a, b, c, a, b]),
            2 => {
                let written = Message { address: a, value: b, ..Message::new(Kind::CodeWritten) };
                self.send(written.encode());
                board.call_vcpu(c as u32);
            }
            3 => {
                if !self.random.one_in(20) {
                    return;
                }
                let ring = [
                    std::mem::offset_of!(LinkLayout, requests),
                    std::mem::offset_of!(LinkLayout, replies),
                    std::mem::offset_of!(LinkLayout, events),
                ][self.random.below(3) as usize];
                // Its two indices.
                let index = if self.random.one_in(2) { 0 } else { 128 };
                self.overwrite(ring + index, a);
            }
            4 | 5 => {
                let count = self.random.below(140);
                let regions: Vec<_> = (0..count).map(|_| any_region(&mut self.random).encode()).collect();
                layout.set_regions(&regions);
                board.call_vcpu(ipc::board::attention::MAP);
            }
            6 => {
                let regions: Vec<_> = (0..8)
                    .map(|_| {
                        let mut words = any_region(&mut self.random).encode();
                        words[self.random.below(8) as usize] = self.random.word();
                        words
                    })
                    .collect();
                layout.set_regions(&regions);
            }
            7 => {
                let at = self.random.below(Link::BYTES / 8) as usize * 8;
                self.overwrite(at, a);
            }
            // The start of the link has most of what the VMM reads.
            8 => {
                let at = self.random.below(0x4000) as usize * 8;
                self.overwrite(at, a);
            }
            9 => {
                layout.set_mirror(self.random.below(1100) as usize, Mirrored::from_word(a));
                let raster = Raster {
                    function: [a as u32, b as u32, c as u32, 0],
                    enabled: b as u32,
                    expands: a & 1 != 0,
                    rotate: b as u8 & 7,
                    look: Look::Lane(c as u8),
                    first: c as u32,
                    wrap: [0xffff, u32::MAX][b as usize & 1],
                    offset: [0, a][c as usize & 1],
                };
                layout.raster.publish((a & 3 != 0).then_some(&raster));
                layout.raster.set_latch(b as u32);
            }
            10 => {
                layout.device_memory_bytes.store(a, Ordering::Release);
                let models = (0..self.random.below(16))
                    .map(|_| ModelInfo { name: format!("{a:x}"), pci: Some((a as u8, b as u8, c as u8)) });
                layout.set_models(&models.collect::<Vec<_>>());
            }
            11 => _ = board.lines.set_isa(a as u8, HOSTILE, b & 1 != 0),
            12 => _ = board.intr.publish(Some(a as u8), b as u8, c as u8),
            13 => board.intr.acknowledge_arrived(a as u32),
            14 => board.call_vcpu(a as u32),
            15 => {
                layout.process.set_serves(a & 1 != 0);
                board.doorbell(HOSTILE).ring();
            }
            16 => _ = layout.write_payload(Payload::In, &vec![a as u8; b as usize % (PAYLOAD_BYTES + 2)]),
            17 => board.set_shadow(a as u32, b as u32, c & 1 != 0, c & 2 != 0),
            18 => board.set_a20(a as u32, b & 1 != 0),
            19 => board.set_dma_channel(a as u8, [b, c]),
            20 => board.request_power_off(),
            21..=24 => {
                let at = self.random.below(size_of::<Board>() as u64 / 8) * 8;
                assert!(vm.board.write(at, &a.to_le_bytes()), "inside the board");
            }
            25 => {
                let page = &layout.states[self.random.below(16) as usize];
                _ = page.commit(a, b as u16, &[a; 64], &[c as u8; 4096]);
            }
            26 | 27 => self.state_counter(),
            _ => self.answer(true),
        }
    }

    /// States a counter of which some or all is nonsense, and plays with its latch.
    fn state_counter(&mut self) {
        let layout = self.vm.links[HOSTILE].layout();
        let random = &mut self.random;
        let mut number = || if random.one_in(4) { random.word() } else { random.below(40) };
        let counting = Counting {
            register: number() as u16,
            command: (number() as u16, number() as u8),
            rate: Rate { ticks: number() as u32, nanos: number() as u32 },
            origin: VirtualTime(number()),
            until: VirtualTime(u64::MAX - number()),
            fraction: number() as u32,
            phase: number() as u32,
            period: number() as u32,
            turn: number() as u32,
            first: number() as u32,
            step: number() as u8,
        };
        let latch = Latch { count: random.one_in(2).then_some(0x55aa), high: random.one_in(2) };
        let cell = &layout.counters[random.below(MAX_COUNTERS as u64) as usize];
        match random.below(8) {
            0 => cell.publish(None, latch),
            1 => _ = cell.take(),
            2 => cell.give(),
            _ => cell.publish(Some(&counting), latch),
        }
    }
}

/// Serves the honest device until `over`.
fn serve_honestly(vm: &Vm, over: &AtomicBool) {
    let layout = vm.links[HONEST].layout();
    layout.process.set_serves(true);
    layout.set_regions(&[region(HONEST_PORT.into(), 1, false).encode()]);
    while !over.load(Ordering::Acquire) {
        while let Ok(Some(words)) = layout.requests.peek() {
            if let Some(request) = Message::decode(words).filter(Message::expects_reply) {
                let reply = Message {
                    sequence: request.sequence,
                    value: HONEST_VALUE,
                    status: Status::Done,
                    ..Message::new(Kind::Reply)
                };
                _ = layout.replies.push(reply.encode());
            }
            layout.requests.advance();
        }
        vm.board().doorbell(VMM_SLOT).ring();
        std::thread::yield_now();
    }
}

/// Where this process has mapped shared memory of the VM.
fn mapped(names: &SegmentNames) -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps of this process");
    let wanted = [names.ram(), names.device_memory(HOSTILE)];
    let parse = |line: &str| {
        wanted.iter().any(|name| line.ends_with(&format!("/{name}"))).then_some(())?;
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    maps.lines().filter_map(parse).collect()
}

/// One access of the guest, of any kind.
fn access(bus: &mut MachineBus, random: &mut Random, granted: &mut Vec<Range<usize>>, names: &SegmentNames) {
    let width = [Width::Byte, Width::Word, Width::Dword][random.below(3) as usize];
    let port = if random.one_in(2) { 0x3f0 + random.below(32) } else { random.below(1 << 16) } as u16;
    // RAM that is the guest's, what lies behind RAM, and the shadow area; within a page.
    let address = match random.below(4) {
        0 => random.below(0xa_0000),
        1 => 0xa_0000 + random.below(0x6_0000),
        2 => RAM + random.below(1 << 20),
        _ => random.below(1 << 32).max(RAM),
    } & !3;
    match random.below(16) {
        0..=3 => _ = bus.read_port(port, width),
        4 => bus.write_port(port, width, random.next() as u32),
        // As one latches counters.
        5 => bus.write_port(port, Width::Byte, random.below(40) as u32),
        6 => bus.write_memory(address, width, random.next() as u32),
        7 => _ = bus.read_memory(address, width),
        8 => {
            let page = bus.page(address & !(PAGE_SIZE - 1));
            for pointer in [page.read, page.write].into_iter().flatten() {
                let bytes = pointer.as_ptr() as usize..pointer.as_ptr() as usize + PAGE_SIZE as usize;
                let inside = |all: &Vec<Range<usize>>| {
                    all.iter().any(|m| m.start <= bytes.start && bytes.end <= m.end)
                };
                if !inside(granted) {
                    // Device memory is mapped when it is first heard of.
                    *granted = mapped(names);
                }
                assert!(
                    inside(granted),
                    "the page at {address:#x} is granted at {bytes:x?}, outside {granted:x?}"
                );
            }
        }
        9 => bus.read_port_string(
            port,
            width,
            &mut vec![0; random.below(PAYLOAD_BYTES as u64 + 4096) as usize & !3],
        ),
        10 => bus.write_port_string(
            port,
            width,
            &vec![0x55; random.below(PAYLOAD_BYTES as u64 + 4096) as usize & !3],
        ),
        11 => {
            if bus.interrupt_pending() {
                _ = bus.acknowledge_interrupt();
            }
        }
        12 => {
            while let Some((from, len)) = bus.take_written_code() {
                assert!(from + len <= RAM, "code at {from:#x}..+{len:#x} is no RAM");
            }
        }
        13 => {
            bus.write_port(0xcf8, Width::Dword, 0x8000_0000 | random.next() as u32);
            bus.write_port(0xcfc, width, random.next() as u32);
            _ = bus.read_port(0xcfc, width);
        }
        14 => {
            bus.refresh_map();
            bus.mark_code(address);
            _ = bus.now();
        }
        _ if random.one_in(200) => bus.reset(),
        _ if random.one_in(100) => bus.wait_for_ending(),
        _ => {
            bus.settle_bells();
            _ = bus.read_port(HONEST_PORT, Width::Byte);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_hostile_device_process_never_crashes_the_bus_nor_holds_it_up() {
    let messages = number("VMSIM_HOSTILE_MESSAGES", MESSAGES);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64 | 1);
    let seed = number("VMSIM_HOSTILE_SEED", now).max(1);
    println!("attacks from seed {seed}");
    let (vm, ram) = Vm::create();
    let canary = vec![0xa5; (RAM - FORBIDDEN) as usize];
    assert!(ram.write(FORBIDDEN, &canary));
    let look = Segment::open(&vm.names.ram()).expect("RAM");
    vm.chassis.set_run_state(RunState::Running);
    vm.chassis.thaw(Freeze::Paused);
    let (over, accesses, taken_off) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let gone = AtomicBool::new(false);
    let links = [(HOSTILE, "hostile"), (HONEST, "honest")]
        .map(|(slot, name)| DeviceLink::open(&vm.names, slot, name).expect("the link"));
    let mut bus = MachineBus::new(vm.chassis.clone(), ram, links.into());

    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            // Whatever ends this thread ends the test.
            let ends = (OnDrop(&over), OnDrop(&gone));
            let mut random = Random(!seed);
            let mut granted = mapped(&vm.names);
            while !over.load(Ordering::Acquire) {
                access(&mut bus, &mut random, &mut granted, &vm.names);
                accesses.fetch_add(1, Ordering::Relaxed);
            }
            drop(ends);
        });
        scope.spawn(|| serve_honestly(&vm, &over));
        scope.spawn(|| {
            let mut attacker = Attacker { vm: &vm, random: Random(seed) };
            let mut attacks = 0;
            while !over.load(Ordering::Acquire) && attacks < messages {
                (0..ATTACKS_AT_ONCE).for_each(|_| attacker.attack());
                attacks += ATTACKS_AT_ONCE;
                if !attacker.let_the_guest_on(&accesses, &gone) {
                    taken_off.fetch_add(1, Ordering::Relaxed);
                }
                vm.bring_back();
            }
            over.store(true, Ordering::Release);
            while !gone.load(Ordering::Acquire) {
                // It may wait for an answer still.
                attacker.let_the_guest_on(&accesses, &gone);
            }
            vm.bring_back();
        });
        let (mut seen, mut since) = (0, Instant::now());
        while !guest.is_finished() {
            std::thread::sleep(PATIENCE);
            let done = accesses.load(Ordering::Relaxed);
            if done != seen {
                (seen, since) = (done, Instant::now());
            } else if since.elapsed() > WATCHDOG {
                eprintln!("the bus hangs after {done} accesses: repeat it with VMSIM_HOSTILE_SEED={seed}");
                std::process::abort();
            }
        }
        guest.join().expect("the guest's thread does not panic");
    });

    // It answers as ever, and the honest device with it.
    vm.bring_back();
    let (accesses, taken_off) = (accesses.into_inner(), taken_off.into_inner());
    println!("{messages} attacks, {accesses} accesses; taken off the bus {taken_off} times");
    assert!(accesses >= messages / ATTACKS_AT_ONCE);
    let mut left = vec![0; canary.len()];
    assert!(look.read(FORBIDDEN, &mut left));
    assert!(left == canary, "RAM was written that was nobody's");
}

/// Says so when its owner ends or panics.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
