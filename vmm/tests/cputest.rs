//! The CPU tests of `images/cputest/` on the interpreter alone, with the little of a PC that they need:
//! RAM, ports that collect the results, two interrupt requests, the A20 gate. The end-to-end tests boot the
//! same floppy in a whole VM.

#![expect(unsafe_code, reason = "guest memory that can be mapped twice")]

use ipc::time::VirtualTime;
use ipc::width::Width;
use std::cell::Cell;
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{cr0, rights};
use vmm::cpu::{Segment, Vcpu};
use vmm::engine::{Engine, EngineKind};
use vmm::interp::Exit;

const RAM: usize = 8 << 20;
/// Where the floppy's loader puts the program, and where on the floppy it is.
const PROGRAM: usize = 0x2_0000;
const PROGRAM_OFFSET: usize = 6 * 512;
/// What is big enough for the program.
const PROGRAM_MAX: usize = 0x2_8000;
const DEBUG_PORT: u16 = 0xe9;
/// Longest time that the tests may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
/// Many times what the whole run takes.
const INSTRUCTIONS: u64 = 50_000_000;
const SLICE: u64 = 100_000;

/// The master 8259A and counter 0 of the 8254, as far as the tests use them.
#[derive(Default)]
struct Timer {
    initialisation_words: u32,
    mask: u8,
    requested: bool,
    in_service: bool,
    read_requests: bool,
    count_bytes: u32,
    /// How many more looks at the request it takes until the count has run out: time, as far as there is any.
    looks: Cell<u32>,
    counts: u32,
}

impl Timer {
    const PIC_COMMAND: u16 = 0x20;
    const PIC_DATA: u16 = 0x21;
    const COUNTER_0: u16 = 0x40;
    const COUNTER_CONTROL: u16 = 0x43;
    const ICW1: u8 = 0x10;
    const OCW3_READ_IRR: u8 = 0x0a;
    const EOI: u8 = 0x20;
    const VECTOR: u8 = 0x20;
    const LONGEST: u32 = 11;

    fn read(&self, port: u16) -> Option<u8> {
        match port {
            Self::PIC_COMMAND if self.read_requests => Some(self.has_run_out().into()),
            Self::PIC_DATA => Some(self.mask),
            _ => None,
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            Self::PIC_COMMAND if value & Self::ICW1 != 0 => {
                *self = Self { initialisation_words: 3, ..Self::default() };
            }
            Self::PIC_COMMAND if value == Self::OCW3_READ_IRR => self.read_requests = true,
            Self::PIC_COMMAND if value == Self::EOI => self.in_service = false,
            Self::PIC_DATA if self.initialisation_words > 0 => self.initialisation_words -= 1,
            Self::PIC_DATA => self.mask = value,
            Self::COUNTER_CONTROL => (self.count_bytes, self.requested) = (0, false),
            Self::COUNTER_0 => {
                self.count_bytes += 1;
                if self.count_bytes == 2 {
                    self.requested = true;
                    // Each time another number, so that interrupts come at any instruction.
                    self.counts += 1;
                    self.looks.set(self.counts % Self::LONGEST);
                }
            }
            _ => {}
        }
    }

    fn has_run_out(&self) -> bool {
        let looks = self.looks.get();
        self.looks.set(looks.saturating_sub(1));
        self.requested && looks == 0
    }

    fn pending(&self) -> bool {
        self.has_run_out() && !self.in_service && self.mask & 1 == 0
    }
}

/// IRQ13 and port F0h, which belong to the coprocessor, and the slave 8259A as far as it is needed for them.
#[derive(Default)]
struct Coprocessor {
    ferr: bool,
    ignne: bool,
    requested: bool,
    mask: u8,
}

impl Coprocessor {
    const PIC_DATA: u16 = 0xa1;
    const ERROR: u16 = 0xf0;
    const SLAVE_BIT: u8 = 1 << 5;
    const CASCADE_BIT: u8 = 1 << 2;
    const VECTOR: u8 = 0x2d;

    fn write(&mut self, port: u16, value: u8) {
        match port {
            // With initialisation words too: the last that is written is the mask.
            Self::PIC_DATA => self.mask = value,
            Self::ERROR => (self.requested, self.ignne) = (false, self.ferr),
            _ => {}
        }
    }

    fn drive(&mut self, ferr: bool) {
        self.requested |= ferr && !self.ferr;
        self.ferr = ferr;
        self.ignne &= ferr;
    }

    fn pending(&self, master_mask: u8) -> bool {
        self.requested && self.mask & Self::SLAVE_BIT == 0 && master_mask & Self::CASCADE_BIT == 0
    }
}

/// Memory that can be mapped a second time, as a VM's can.
struct Memory(NonNull<u8>);

impl Memory {
    fn new() -> Self {
        use rustix::mm::{MapFlags, ProtFlags};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), RAM, protection, MapFlags::SHARED) };
        Self(NonNull::new(at.expect("there is memory").cast()).expect("a mapping is nowhere at zero"))
    }

    fn load(&self, address: usize, data: &[u8]) {
        assert!(address + data.len() <= RAM);
        // SAFETY: within the mapping (just checked).
        unsafe { self.0.as_ptr().add(address).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), RAM) };
    }
}

struct Machine {
    ram: Memory,
    timer: Timer,
    coprocessor: Coprocessor,
    a20: bool,
    generation: u64,
    output: String,
}

impl Machine {
    fn new() -> Self {
        Self {
            ram: Memory::new(),
            timer: Timer::default(),
            coprocessor: Coprocessor::default(),
            a20: true,
            generation: 0,
            output: String::new(),
        }
    }
}

impl Bus for Machine {
    fn page(&mut self, address: u64) -> PageGrant {
        if address as usize >= RAM {
            return PageGrant::default();
        }
        let host = NonNull::new(self.ram.0.as_ptr().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        self.generation
    }
    fn read_port(&mut self, port: u16, width: Width) -> u32 {
        const KEYBOARD_STATUS: u16 = 0x64;
        const SYSTEM_CONTROL_A: u16 = 0x92;
        match port {
            KEYBOARD_STATUS => 0,
            SYSTEM_CONTROL_A => u32::from(self.a20) << 1,
            _ => self.timer.read(port).map_or(width.mask(), u32::from),
        }
    }
    fn write_port(&mut self, port: u16, _width: Width, value: u32) {
        const SYSTEM_CONTROL_A: u16 = 0x92;
        match port {
            DEBUG_PORT => self.output.push(char::from(value as u8)),
            SYSTEM_CONTROL_A => {
                self.a20 = value & 2 != 0;
                self.generation += 1;
            }
            _ => {
                self.timer.write(port, value as u8);
                self.coprocessor.write(port, value as u8);
            }
        }
    }
    fn a20_enabled(&self) -> bool {
        self.a20
    }
    fn attention(&self, interrupts_enabled: bool) -> bool {
        interrupts_enabled && self.interrupt_pending()
    }
    fn interrupt_pending(&self) -> bool {
        self.timer.pending() || self.coprocessor.pending(self.timer.mask)
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        if !self.timer.pending() {
            self.coprocessor.requested = false;
            return Some(Coprocessor::VECTOR);
        }
        (self.timer.requested, self.timer.in_service) = (false, true);
        Some(Timer::VECTOR)
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
    fn set_ferr(&mut self, asserted: bool) {
        self.coprocessor.drive(asserted);
    }
    fn ignne(&self) -> bool {
        self.coprocessor.ignne
    }
}

/// Puts the program into memory and the processor at its entry, as the loader on the floppy does.
fn boot(cpu: &mut Vcpu<Machine>, program: &[u8]) {
    cpu.bus.ram.load(PROGRAM, program);
    cpu.reset();
    for n in 0..6 {
        let kind = if n == 1 { rights::FLAT_CODE } else { rights::FLAT_DATA };
        cpu.state.segments[n] = Segment::new(8, kind, 0, u32::MAX);
    }
    cpu.state.cr0 |= cr0::PE;
    cpu.state.eip = PROGRAM as u32;
    cpu.state_replaced();
}

/// What failed, and the last line.
fn told(output: &str) -> String {
    let last = output.lines().last();
    output.lines().filter(|line| line.starts_with("FAIL")).chain(last).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_case_passes_on_the_interpreter() {
    every_case_passes(Engine::new(EngineKind::Interp).expect("it needs nothing"));
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn every_case_passes_on_the_shadow_engine() {
    let mut shadow = vmm::shadow::Shadow::new().expect("there is memory");
    // Nobody asks for attention here.
    shadow.set_counting();
    every_case_passes(Engine::Shadow(Box::new(shadow)));
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn every_case_passes_on_the_shadow_engine_with_users_in_windows() {
    let mut shadow = vmm::shadow::Shadow::new().expect("there is memory");
    shadow.set_counting();
    shadow.use_windows(vmm::shadow::WindowPolicy::Always);
    every_case_passes(Engine::Shadow(Box::new(shadow)));
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn every_case_passes_in_lockstep() {
    let engine = Engine::new(EngineKind::Lockstep).expect("there is memory");
    // Each run of shadow code starts with an empty TLB there: no translation outlives what the page tables say.
    let failed = run_cases(engine);
    assert!(failed.iter().all(|line| line.contains(" pae/global-page-outlives-cr3:")), "{failed:#?}");
}

fn every_case_passes(engine: Engine<Machine>) {
    let failed = run_cases(engine);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Runs all cases; returns what is said of those that fail.
fn run_cases(mut engine: Engine<Machine>) -> Vec<String> {
    let floppy = images::demo::cputest_floppy();
    let program = &floppy[PROGRAM_OFFSET..PROGRAM_OFFSET + PROGRAM_MAX];
    let mut cpu = Vcpu::new(Machine::new());
    boot(&mut cpu, program);
    let started = std::time::Instant::now();
    let mut resets = 0;
    loop {
        if engine.interpreted() > INSTRUCTIONS || started.elapsed() > PATIENCE {
            panic!("the tests hang at {:08x}: {}", cpu.state.eip, told(&cpu.bus.output));
        }
        let exit = engine.run(&mut cpu, SLICE);
        if exit == Exit::Difference {
            panic!("{}", engine.difference().unwrap_or_default());
        }
        if cpu.bus.output.contains(" failed\n") {
            break;
        }
        if exit == Exit::Shutdown {
            // The last case does that on purpose, once.
            resets += 1;
            assert_eq!(resets, 1, "shut down at {:08x}: {}", cpu.state.eip, told(&cpu.bus.output));
            boot(&mut cpu, program);
            engine.forget_code(&mut cpu);
        }
        if cpu.bus.interrupt_pending() && cpu.accepts_interrupts() {
            let vector = cpu.bus.acknowledge_interrupt().expect("one is pending");
            cpu.deliver_external(vector);
        } else if exit == Exit::Halted {
            panic!("halted for ever at {:08x}: {}", cpu.state.eip, told(&cpu.bus.output));
        }
    }
    println!("{}", cpu.bus.output.lines().last().unwrap_or_default());
    cpu.bus.output.lines().filter(|line| line.starts_with("FAIL")).map(String::from).collect()
}
