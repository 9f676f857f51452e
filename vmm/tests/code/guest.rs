//! A guest for code that changes: RAM, flat 32-bit segments, page tables, and a device that writes memory.

use iced_x86::code_asm::CodeAssembler;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{cr0, eflags, gpr, rights};
use vmm::cpu::{CpuModel, Segment, TableRegister, Vcpu};
use vmm::engine::{Engine, EngineKind};
use vmm::interp::Exit;

/// Bytes of RAM.
pub const RAM: u32 = 2 << 20;
/// A device's registers, which are memory that is not granted.
pub const REGISTERS: u32 = 4 << 20;
/// A page.
pub const PAGE: u32 = 4096;
/// Page directory and the one page table, for the first 4 MiB.
pub const DIRECTORY: u32 = 0x1000;
pub const TABLE: u32 = 0x2000;
/// The interrupt descriptor table, and the global one.
pub const IDT: u32 = 0x3000;
pub const GDT: u32 = 0x4000;
/// Selectors of flat segments.
pub const CODE: u16 = 8;
pub const DATA: u16 = 16;
/// Where the stack starts.
pub const STACK: u32 = 0x9_0000;
/// The same in real mode.
pub const REAL_STACK: u32 = 0x7000;
/// The port of the device that writes memory.
pub const DEVICE: u16 = 0x300;
/// Page-table entry: present, writable.
pub const PRESENT: u32 = 3;

/// What most loops' worth of instructions are.
const BUDGET: u64 = 1 << 22;
const RUNS: u32 = 10_000;

/// RAM and the device.
pub struct Machine {
    pub ram: Box<[Cell<u8>]>,
    written: VecDeque<(u64, u64)>,
    /// What the device writes when its port is written: where, and what.
    pub transfer: Option<(u32, Vec<u8>)>,
    marked: std::collections::BTreeSet<u64>,
    /// The registers at [`REGISTERS`], and how often they have been accessed.
    pub registers: [u8; 64],
    pub accesses: u64,
}

impl Machine {
    fn poke(&self, address: u32, bytes: &[u8]) {
        for (cell, byte) in self.ram[address as usize..].iter().zip(bytes) {
            cell.set(*byte);
        }
    }

    /// Writes as a device does: what may be kept code is reported.
    pub fn write_by_device(&mut self, address: u32, bytes: &[u8]) {
        self.poke(address, bytes);
        let page = u64::from(address & !(PAGE - 1));
        assert_eq!(page, (u64::from(address) + bytes.len() as u64 - 1) & !u64::from(PAGE - 1));
        if self.marked.contains(&page) {
            self.written.push_back((u64::from(address), bytes.len() as u64));
        }
    }
}

impl Bus for Machine {
    fn page(&mut self, address: u64) -> PageGrant {
        if address >= u64::from(RAM) {
            return PageGrant::default();
        }
        let host = NonNull::new(self.ram.as_ptr().cast::<u8>().cast_mut().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        0
    }
    fn read_memory(&mut self, address: u64, width: Width) -> u32 {
        self.accesses += u64::from(address >= REGISTERS.into());
        let byte = |n: u32| match (address + u64::from(n)).checked_sub(REGISTERS.into()) {
            Some(register) => self.registers.get(register as usize).copied().unwrap_or(0xff),
            None => self.ram.get(address as usize + n as usize).map_or(0xff, Cell::get),
        };
        (0..width.bytes()).fold(0, |value, n| value | u32::from(byte(n)) << (8 * n))
    }
    fn write_memory(&mut self, address: u64, width: Width, value: u32) {
        self.accesses += u64::from(address >= REGISTERS.into());
        for n in 0..width.bytes() {
            let register = (address + u64::from(n)).checked_sub(REGISTERS.into());
            if let Some(register) = register.and_then(|register| self.registers.get_mut(register as usize)) {
                *register = (value >> (8 * n)) as u8;
                continue;
            }
            if let Some(cell) = self.ram.get(address as usize + n as usize) {
                cell.set((value >> (8 * n)) as u8);
            }
        }
    }
    fn write_port(&mut self, port: u16, _width: Width, _value: u32) {
        if port == DEVICE
            && let Some((address, bytes)) = self.transfer.take()
        {
            self.write_by_device(address, &bytes);
        }
    }
    fn attention(&self, _: bool) -> bool {
        !self.written.is_empty()
    }
    fn mark_code(&mut self, address: u64) {
        self.marked.insert(address & !u64::from(PAGE - 1));
    }
    fn unmark_code(&mut self, address: u64) {
        self.marked.remove(&(address & !u64::from(PAGE - 1)));
    }
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        self.written.pop_front()
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// A processor with an engine.
pub struct Guest {
    pub cpu: Vcpu<Machine>,
    pub engine: Engine<Machine>,
    /// See [`on_every_engine_uninterrupted`].
    pub uninterrupted: bool,
}

/// Does the same on every engine; on the shadow engine also with code that counts, which is other code.
pub fn on_every_engine(test: impl Fn(&mut Guest)) {
    println!("interpreter");
    test(&mut Guest::new(EngineKind::Interp));
    println!("shadow");
    test(&mut Guest::new(EngineKind::Shadow));
    println!("shadow, counting");
    let mut guest = Guest::new(EngineKind::Shadow);
    if let Engine::Shadow(shadow) = &mut guest.engine {
        shadow.set_counting();
    }
    test(&mut guest);
}

/// Does the same on every engine, for code in which nobody wants attention: on the shadow engine also as it runs in a machine, where
/// the monitor is not asked before somebody does.
pub fn on_every_engine_uninterrupted(test: impl Fn(&mut Guest)) {
    on_every_engine(&test);
    println!("Shadow, not counting");
    let mut guest = Guest::new(EngineKind::Shadow);
    guest.engine = Engine::new(EngineKind::Shadow).expect("this host can");
    guest.uninterrupted = true;
    test(&mut guest);
}

/// The same in real mode.
pub fn on_every_engine_in_real_mode(test: impl Fn(&mut Guest)) {
    on_every_engine_uninterrupted(|guest| {
        let state = &mut guest.cpu.state;
        state.cr0 = cr0::ET | cr0::NE;
        state.idtr = TableRegister { base: 0, limit: 0x3ff };
        for segment in &mut state.segments {
            *segment = Segment::new(0, rights::REAL_MODE, 0, 0xffff);
        }
        state.gpr[gpr::ESP] = REAL_STACK;
        guest.cpu.state_replaced();
        test(guest);
    });
}

/// Assembles 16-bit code for `address`.
pub fn assemble_16(
    address: u16,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(16).expect("16 bits are possible");
    write(&mut assembler).expect("operands fit");
    assembler.assemble(u64::from(address)).expect("it assembles")
}

/// Assembles 32-bit code for `address`.
pub fn assemble(
    address: u32,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(32).expect("32 bits are possible");
    write(&mut assembler).expect("operands fit");
    assembler.assemble(u64::from(address)).expect("it assembles")
}

fn descriptor(kind: u16) -> [u8; 8] {
    let value = 0xffff | u64::from(kind) << 40 | 0xf << 48;
    value.to_le_bytes()
}

impl Guest {
    /// At reset, in flat 32-bit protected mode without paging.
    pub fn new(kind: EngineKind) -> Self {
        let machine = Machine {
            ram: vec![Cell::new(0); RAM as usize].into_boxed_slice(),
            written: VecDeque::new(),
            transfer: None,
            marked: std::collections::BTreeSet::new(),
            registers: [0; 64],
            accesses: 0,
        };
        let engine = Engine::new(kind).expect("this host can");
        let mut cpu = Vcpu::with_model(machine, CpuModel::Max);
        cpu.bus.poke(GDT + u32::from(CODE), &descriptor(rights::FLAT_CODE));
        cpu.bus.poke(GDT + u32::from(DATA), &descriptor(rights::FLAT_DATA));
        for n in 0..6 {
            let (selector, kind) = if n == 1 { (CODE, rights::FLAT_CODE) } else { (DATA, rights::FLAT_DATA) };
            cpu.state.segments[n] = Segment::new(selector, kind, 0, u32::MAX);
        }
        cpu.state.gdtr = TableRegister { base: GDT, limit: 0x1f };
        cpu.state.idtr = TableRegister { base: IDT, limit: 0x7ff };
        cpu.state.cr0 = cr0::PE | cr0::ET | cr0::NE;
        cpu.state.cr3 = DIRECTORY;
        cpu.state.gpr[gpr::ESP] = STACK;
        cpu.state_replaced();
        Self { cpu, engine, uninterrupted: false }
    }

    /// Puts bytes into memory before anything has run.
    pub fn load(&mut self, address: u32, bytes: &[u8]) {
        self.cpu.bus.poke(address, bytes);
    }

    /// An interrupt gate.
    pub fn gate(&mut self, vector: u8, handler: u32) {
        let gate = u64::from(handler & 0xffff)
            | u64::from(CODE) << 16
            | 0x8e00 << 32
            | u64::from(handler & 0xffff_0000) << 32;
        self.load(IDT + 8 * u32::from(vector), &gate.to_le_bytes());
    }

    /// A vector of real mode.
    pub fn vector(&mut self, vector: u8, segment: u16, offset: u16) {
        let [low, high] = [offset, segment].map(u16::to_le_bytes);
        self.load(4 * u32::from(vector), &[low, high].concat());
    }

    /// Turns paging on, with RAM at its own addresses, but for the first page.
    pub fn page(&mut self) {
        self.load(DIRECTORY, &(TABLE | PRESENT).to_le_bytes());
        for page in 1..RAM / PAGE {
            self.map(page * PAGE, page * PAGE);
        }
        self.cpu.state.cr0 |= cr0::PG;
        self.cpu.state_replaced();
    }

    /// Maps a page.
    pub fn map(&mut self, linear: u32, physical: u32) {
        self.load(entry(linear), &(physical | PRESENT).to_le_bytes());
    }

    /// Runs from `eip` to HLT.
    pub fn run(&mut self, eip: u32) {
        self.cpu.state.activity = vmm::cpu::state::Activity::Running;
        self.cpu.state.eip = eip;
        for _ in 0..RUNS {
            match self.engine.run(&mut self.cpu, BUDGET) {
                Exit::Halted => return,
                Exit::Attention => {}
                exit => panic!("{exit:?} at {:x}", self.cpu.state.eip),
            }
        }
        panic!("attention for ever at {:x}", self.cpu.state.eip);
    }

    /// A register.
    pub fn register(&self, number: usize) -> u32 {
        self.cpu.state.gpr[number]
    }

    /// Bytes of RAM.
    pub fn bytes(&self, address: u32, len: u32) -> Vec<u8> {
        self.cpu.bus.ram[address as usize..][..len as usize].iter().map(Cell::get).collect()
    }

    /// The flags that code can rely on.
    pub fn flags(&self) -> u32 {
        self.cpu.flags() & !eflags::RF
    }
}

/// Where the entry of a page is.
pub fn entry(linear: u32) -> u32 {
    TABLE + 4 * (linear / PAGE)
}
