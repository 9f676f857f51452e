//! What is fuzzed: RAM and a bus that answers anything, hostile tables, garbage for code. All of it comes from one number.

use super::ram::SharedRam;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::fpu::fcw;
use vmm::cpu::model::CpuModel;
use vmm::cpu::registers::{cr0, cr4, eflags};
use vmm::cpu::{Segment, TableRegister, Vcpu};

/// Bytes of RAM.
pub const RAM: usize = 1 << 20;
pub const GDT: u32 = 0x1000;
pub const IDT: u32 = 0x2000;
const LDT: u32 = 0x3000;
pub const TSS: u32 = 0x3800;
const TABLE_ENTRIES: u32 = 64;
/// Page directories and tables, of either format.
pub const PAGING: u32 = 0x8000;
pub const PAGING_PAGES: u32 = 8;
/// Code is here, and everywhere else what earlier rounds left.
pub const CODE: u32 = 0x1_0000;
pub const CODE_BYTES: u32 = 0x4000;

/// SplitMix64: any seed will do, and the next one gives something else.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn dword(&mut self) -> u32 {
        self.next() as u32
    }

    pub fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.dword()) * u64::from(limit)) >> 32) as u32
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u32) as usize]
    }

    /// Mostly small, mostly near what matters.
    pub fn address(&mut self) -> u32 {
        match self.below(6) {
            0 => self.dword(),
            1 => self.below(0x1_0000),
            2 => CODE + self.below(CODE_BYTES),
            3 => u32::MAX - self.below(16),
            4 => self.pick(&[GDT, IDT, LDT, TSS, PAGING]) + self.below(0x200),
            _ => self.below(RAM as u32),
        }
    }

    fn selector(&mut self) -> u16 {
        if self.one_in(8) { self.dword() as u16 } else { self.below(TABLE_ENTRIES * 8) as u16 }
    }
}

/// RAM, and a bus that answers anything.
pub struct Machine {
    pub ram: SharedRam,
    pub random: Random,
    pub a20: bool,
    pub generation: u64,
    pub interrupt: bool,
    /// Devices report that they have written code, now and then.
    pub devices_write: bool,
    /// What a test wrote.
    pub written: Vec<(u64, u64)>,
}

impl Machine {
    /// Zeroes, and nothing asserted.
    pub fn new() -> Self {
        Self {
            ram: SharedRam::new(RAM),
            random: Random(0),
            a20: true,
            generation: 0,
            interrupt: false,
            devices_write: true,
            written: Vec::new(),
        }
    }

    pub fn poke(&self, address: u32, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            if let Some(cell) = self.ram.get(address as usize + n) {
                cell.set(*byte);
            }
        }
    }
}

impl Bus for Machine {
    fn page(&mut self, address: u64) -> PageGrant {
        if address as usize >= RAM {
            return PageGrant::default();
        }
        let host = NonNull::new(self.ram.as_ptr().cast::<u8>().cast_mut().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        self.generation
    }
    fn read_memory(&mut self, _address: u64, width: Width) -> u32 {
        self.random.dword() & width.mask()
    }
    fn read_port(&mut self, _port: u16, width: Width) -> u32 {
        self.random.dword() & width.mask()
    }
    fn write_port(&mut self, _port: u16, _width: Width, value: u32) {
        if self.random.one_in(8) {
            self.a20 = value & 2 != 0;
            self.generation += 1;
        }
    }
    fn a20_enabled(&self) -> bool {
        self.a20
    }
    fn attention(&self, interrupts_enabled: bool) -> bool {
        self.interrupt && interrupts_enabled
    }
    fn interrupt_pending(&self) -> bool {
        self.interrupt
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.interrupt = false;
        Some(self.random.dword() as u8)
    }
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        if let Some(range) = self.written.pop() {
            return Some(range);
        }
        (self.devices_write && self.random.one_in(16))
            .then(|| (u64::from(self.random.address()), u64::from(self.random.below(64))))
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(self.random.next() >> 8)
    }
}

/// A descriptor that looks like one: of every type, mostly present, mostly with a base in RAM.
fn descriptor(random: &mut Random) -> u64 {
    if random.one_in(10) {
        return random.next();
    }
    let limit = if random.one_in(2) { 0xf_ffff } else { random.below(0x3000) };
    let base = if random.one_in(2) { 0 } else { random.address() };
    let access = random.dword() & 0x7f | if random.one_in(8) { 0 } else { 0x80 };
    let flags = random.dword() & 0xd;
    let low = limit & 0xffff | base << 16;
    let high = base >> 16 & 0xff | access << 8 | limit & 0xf_0000 | flags << 20 | base & 0xff00_0000;
    if access & 0x1f == 0xc || access & 0x1f == 4 {
        return gate(random);
    }
    u64::from(low) | u64::from(high) << 32
}

/// A gate to somewhere in the code.
fn gate(random: &mut Random) -> u64 {
    let kind = random.pick(&[0x8e, 0x8f, 0x86, 0x87, 0x85, 0x8c, 0x84, 0xee, 0xef, 0xec, 0xe5, 0x0e]);
    let (offset, selector) = (CODE + random.below(CODE_BYTES), u32::from(random.selector()));
    let low = offset & 0xffff | selector << 16;
    let high = offset & 0xffff_0000 | kind << 8 | random.dword() & 0x1f;
    u64::from(low) | u64::from(high) << 32
}

/// An entry of any paging structure, as a quadword: two entries of the older format.
fn page_entries(random: &mut Random) -> u64 {
    if random.one_in(12) {
        return random.next();
    }
    let entry = |random: &mut Random| {
        let frame = if random.one_in(3) {
            PAGING + (random.below(PAGING_PAGES) << 12)
        } else {
            random.below(RAM as u32) & !0xfff
        };
        frame
            | random.dword() & 0xfff & !0x80
            | if random.one_in(6) { 0x80 } else { 0 }
            | if random.one_in(6) { 0 } else { 7 }
    };
    let low = entry(random);
    let high = if random.one_in(2) { 0 } else { entry(random) };
    u64::from(low) | u64::from(high) << 32
}

/// Code: random bytes, and instructions that garbage seldom forms.
pub fn code(random: &mut Random, out: &mut Vec<u8>) {
    const SYSTEM: [&[u8]; 40] = [
        &[0x0f, 0x01],
        &[0x0f, 0x00],
        &[0x0f, 0x20],
        &[0x0f, 0x22],
        &[0x0f, 0x21],
        &[0x0f, 0x23],
        &[0x0f, 0x30],
        &[0x0f, 0x32],
        &[0x0f, 0x34],
        &[0x0f, 0x35],
        &[0x0f, 0x06],
        &[0x0f, 0xa2],
        &[0x0f, 0x31],
        &[0x0f, 0x33],
        &[0x0f, 0xae],
        &[0x0f, 0xc7],
        &[0x0f, 0x02],
        &[0x0f, 0x03],
        &[0x63],
        &[0xcf],
        &[0xcb],
        &[0xca],
        &[0x9d],
        &[0x8e],
        &[0x0f, 0xb2],
        &[0xc8],
        &[0xc9],
        &[0x62],
        &[0xcd],
        &[0xfb],
        &[0xf3, 0xa4],
        &[0xf2, 0xa6],
        &[0xf3, 0x6c],
        &[0xf3, 0x6e],
        &[0xd9],
        &[0xdd],
        &[0xdf],
        &[0x0f, 0xa9],
        &[0xf0, 0x0f, 0xb1],
        &[0x17],
    ];
    const MSRS: [u32; 14] =
        [0x10, 0x1b, 0x17, 0x174, 0x175, 0x176, 0x179, 0x200, 0x201, 0x250, 0x277, 0x2ff, 0x1d9, 0x186];
    while out.len() < CODE_BYTES as usize {
        match random.below(10) {
            0..=3 => out.extend(random.next().to_le_bytes()),
            4 | 5 => {
                if random.one_in(4) {
                    out.push(random.pick(&[0x66, 0x67, 0x2e, 0x36, 0x26, 0x64, 0xf0, 0xf2, 0xf3]));
                }
                out.extend(random.pick(&SYSTEM));
                out.extend(&random.next().to_le_bytes()[..random.below(6) as usize]);
            }
            6 => {
                // Far jumps and calls.
                out.push(random.pick(&[0xea, 0x9a]));
                out.extend((CODE + random.below(CODE_BYTES)).to_le_bytes());
                out.extend(random.selector().to_le_bytes());
            }
            7 => {
                // mov ecx, MSR; wrmsr
                out.push(0xb9);
                out.extend(random.pick(&MSRS).to_le_bytes());
                out.extend([0x0f, 0x30]);
            }
            8 => {
                // mov eax, something; mov CRn, eax
                out.push(0xb8);
                let bits = random.pick(&[
                    PAGING,
                    cr0::PE,
                    cr0::PE | cr0::PG | cr0::WP,
                    cr4::PSE,
                    cr4::PAE,
                    cr4::PGE | cr4::DE,
                ]);
                out.extend((bits ^ 1 << random.below(32)).to_le_bytes());
                out.extend([0x0f, 0x22, random.pick(&[0xc0, 0xd8, 0xe0])]);
            }
            _ => {
                // mov r32, plausible; mov sreg, r16
                out.push(0xb8 + random.below(8) as u8);
                let value = if random.one_in(2) { random.selector().into() } else { random.address() };
                out.extend(value.to_le_bytes());
                out.extend([0x8e, random.dword() as u8]);
            }
        }
    }
}

/// A processor in a random mode on random tables, and what `code` makes to execute.
pub fn prepare(cpu: &mut Vcpu<Machine>, random: &mut Random, code: fn(&mut Random, &mut Vec<u8>)) {
    for table in [GDT, LDT] {
        for n in 0..TABLE_ENTRIES {
            cpu.bus.poke(table + n * 8, &descriptor(random).to_le_bytes());
        }
    }
    for n in 0..256 {
        cpu.bus.poke(IDT + n * 8, &gate(random).to_le_bytes());
    }
    for n in (0..0x100).step_by(4) {
        let value = if random.one_in(2) { u32::from(random.selector()) } else { random.address() };
        cpu.bus.poke(TSS + n, &value.to_le_bytes());
    }
    for n in 0..PAGING_PAGES * 512 {
        cpu.bus.poke(PAGING + n * 8, &page_entries(random).to_le_bytes());
    }
    let mut bytes = Vec::new();
    code(random, &mut bytes);
    cpu.bus.poke(CODE, &bytes);

    cpu.state.model = random.pick(&[CpuModel::Pentium2, CpuModel::Pentium3, CpuModel::Max]);
    cpu.reset();
    let state = &mut cpu.state;
    state.gpr = std::array::from_fn(|_| random.address());
    state.eflags = random.dword() & eflags::DEFINED & !eflags::VM;
    state.gdtr = TableRegister { base: GDT, limit: (TABLE_ENTRIES * 8 - 1) as u16 };
    state.idtr =
        TableRegister { base: IDT, limit: if random.one_in(8) { random.dword() as u16 } else { 0x7ff } };
    state.ldtr = Segment::new(8, 0x82, LDT, TABLE_ENTRIES * 8 - 1);
    state.tr = Segment::new(16, random.pick(&[0x8b, 0x83]), TSS, random.below(0x200));
    state.cr3 = PAGING + (random.below(PAGING_PAGES) << 12);
    state.cr4 = random.dword() & random.dword();
    state.dr = std::array::from_fn(|_| random.address());
    if random.one_in(2) {
        state.dr[7] = 0;
    }
    // Shadow code leaves the floating-point unit to the interpreter unless all its exceptions are masked.
    if !random.one_in(4) {
        state.fpu.control |= fcw::MASKS;
    }
    let mode = random.below(5);
    state.eip = random.below(CODE_BYTES);
    let level = if mode == 0 { 0 } else { random.pick(&[0, 0, 0, 1, 2, 3, 3]) };
    if mode > 0 {
        state.cr0 |= cr0::PE | random.dword() & (cr0::WP | cr0::AM | cr0::TS | cr0::MP | cr0::EM | cr0::NE);
        if random.one_in(2) {
            state.cr0 |= cr0::PG;
        }
    }
    const CODE_RIGHTS: u16 = 0x9b;
    const DATA_RIGHTS: u16 = 0x93;
    const BIG: u16 = 0x4000;
    const FLAT: u16 = 0xc000;
    for (n, segment) in state.segments.iter_mut().enumerate() {
        let rights = if n == 1 { CODE_RIGHTS } else { DATA_RIGHTS };
        *segment = match mode {
            // Real mode.
            0 => Segment::new((CODE >> 4) as u16, DATA_RIGHTS, CODE, 0xffff),
            // V86.
            1 => Segment::v86_mode((CODE >> 4) as u16),
            // 16-bit, flat, and small protected-mode segments.
            2 => Segment::new(8 | level, rights | level << 5, CODE, 0xffff),
            3 => Segment::new(8 | level, rights | level << 5 | FLAT, 0, u32::MAX),
            _ => Segment::new(8 | level, rights | level << 5 | BIG, CODE, CODE_BYTES - 1),
        };
    }
    if mode == 3 {
        state.eip += CODE;
    }
    state.cpl = if mode == 1 { 3 } else { level as u8 };
    if mode == 1 {
        state.eflags |= eflags::VM;
    }
    let valid = cpu.state.clone().validated();
    cpu.state = valid.expect("the round begins in a state that a processor can be in");
    cpu.state_replaced();
}

/// What must hold between instructions whatever the guest did.
pub fn check(cpu: &mut Vcpu<Machine>) {
    cpu.sync_flags();
    let state = &cpu.state;
    let valid = state.clone().validated().unwrap_or_else(|error| panic!("{error}: {state:x?}"));
    assert_eq!(valid, *state, "a register holds bits that it does not have");
    if state.protected() && !state.v86() && state.cpl != 0 {
        let cs = state.segments[1].selector;
        assert_eq!(u16::from(state.cpl), cs & 3, "the level is not that of CS: {state:x?}");
    }
    assert_eq!(state.eflags & eflags::FIXED, eflags::FIXED);
}
