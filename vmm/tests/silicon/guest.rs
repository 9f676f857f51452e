//! The project's engines: a virtual CPU at privilege level 3 with the selectors and page protections of a Linux
//! process, and one page of its own for what a kernel needs.
#![expect(unsafe_code, reason = "hides the shadow engine's memory from programs that run on the host")]

use super::machine::{
    Engine, Event, FxArea, Image, LOCAL_SEGMENTS, Machine, Outcome, PAGE, Program, at, fx, read_only_page,
    selector,
};
use super::ram::SharedRam;
use ipc::time::VirtualTime;
use ipc::width::Width;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{Seg, cr0, cr4, eflags, gpr, rights, vector};
use vmm::cpu::state::Activity;
use vmm::cpu::{CpuModel, InterruptShadow, Segment, TableRegister, Vcpu};
use vmm::engine::{Engine as Runner, EngineKind};
use vmm::interp::Exit;
use vmm::shadow::{Shadow, Statistics, WindowPolicy};
use vmm::softfloat::F80;

/// Instructions that no program needs: repeated string instructions stop at the end of the data.
const BUDGET: u64 = 1 << 20;

/// The guest kernel's page, which hardly any program comes across, and what is where in it.
const SYSTEM: u32 = 0x9d3c_7000;
const GDT: u32 = 0;
const GDT_SIZE: u32 = 16 * 8;
const LDT: u32 = 0x100;
const IDT: u32 = 0x200;
const VECTORS: u32 = 32;
const TSS: u32 = 0x400;
const TSS_LIMIT: u32 = 0x67;
/// One HLT for each vector.
const HANDLERS: u32 = 0x500;
const STACK0: u32 = 0x1000;
const HLT: u8 = 0xf4;

/// Physical pages.
mod physical {
    use super::super::machine::PAGE;
    pub const SYSTEM: u32 = 0;
    pub const DIRECTORY: u32 = PAGE;
    pub const LOW_TABLE: u32 = 2 * PAGE;
    pub const HIGH_TABLE: u32 = 3 * PAGE;
    pub const DATA: u32 = 4 * PAGE;
    pub const READ_ONLY: u32 = 7 * PAGE;
    pub const STACK: u32 = 8 * PAGE;
    pub const CODE: u32 = 9 * PAGE;
    pub const SIZE: u32 = 11 * PAGE;
}

/// Page-table entry bits: present, writable, user, accessed, dirty.
const P: u32 = 1;
const W: u32 = 2;
const U: u32 = 4;
const AD: u32 = 0x60;

struct Ram {
    bytes: SharedRam,
    written_code: VecDeque<(u64, u64)>,
}

impl Ram {
    fn range(&self, address: u32, len: usize) -> &[Cell<u8>] {
        &self.bytes[address as usize..][..len]
    }

    fn load(&mut self, address: u32, data: &[u8]) {
        for (cell, byte) in self.range(address, data.len()).iter().zip(data) {
            cell.set(*byte);
        }
    }

    fn read(&self, address: u32, data: &mut [u8]) {
        for (cell, byte) in self.range(address, data.len()).iter().zip(data) {
            *byte = cell.get();
        }
    }

    fn u32(&self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

impl Bus for Ram {
    fn page(&mut self, address: u64) -> PageGrant {
        if address >= u64::from(physical::SIZE) {
            return PageGrant::default();
        }
        let host = NonNull::new(self.bytes.as_ptr().cast::<u8>().cast_mut().wrapping_add(address as usize));
        PageGrant { read: host, write: host, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        0
    }
    fn read_memory(&mut self, address: u64, width: Width) -> u32 {
        let cell = |i: u32| self.bytes.get((address + u64::from(i)) as usize).map_or(0xff, Cell::get);
        (0..width.bytes()).fold(0, |value, i| value | u32::from(cell(i)) << (8 * i))
    }
    fn write_memory(&mut self, address: u64, width: Width, value: u32) {
        for i in 0..width.bytes() {
            if let Some(cell) = self.bytes.get((address + u64::from(i)) as usize) {
                cell.set((value >> (8 * i)) as u8);
            }
        }
    }
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        self.written_code.pop_front()
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// A mapping below 4 GiB: where, how long, what is allowed.
type LowMapping = (usize, usize, i32);

/// What this process has mapped below 4 GiB.
fn low_mappings() -> Vec<LowMapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let bound = |hex| usize::from_str_radix(hex, 16).ok().filter(|at| *at <= 1 << 32);
        let (start, end) = (bound(start)?, bound(end)?);
        let allowed = words.next()?;
        let bit = |letter, bit| if allowed.contains(letter) { bit } else { 0 };
        let bits = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC);
        Some((start, end - start, bits))
    };
    maps.lines().filter_map(parse).collect()
}

/// Programs after which the shadow engine forgets what it made, so that hiding its memory stays cheap.
const FORGET_AFTER: u64 = 256;

/// One of the project's engines with a processor.
pub struct Guest {
    cpu: Vcpu<Ram>,
    engine: Runner<Ram>,
    name: &'static str,
    /// The last program: offset in the code pages, and bytes. Nothing else may have been decoded.
    last_code: (u32, Vec<u8>),
    /// What the engine has below 4 GiB, where programs on the host would come across it.
    low: Vec<LowMapping>,
    programs: u64,
}

fn descriptor(base: u32, limit: u32, attributes: u16) -> u64 {
    let low = u64::from(limit & 0xffff) | u64::from(base & 0xffff) << 16;
    let high = u64::from(base >> 16 & 0xff)
        | u64::from(attributes) << 8
        | u64::from(limit & 0xf_0000)
        | u64::from(base & 0xff00_0000);
    low | high << 32
}

impl Guest {
    /// A processor in a process, with the interpreter.
    pub fn interpreter(model: CpuModel) -> Self {
        let engine = Runner::new(EngineKind::Interp).expect("it needs nothing");
        Self::new(model, engine, "interpreter", Vec::new())
    }

    /// The same with the shadow engine.
    pub fn shadow(model: CpuModel) -> Self {
        Self::shadow_with(model, WindowPolicy::Off, "shadow engine")
    }

    /// The same in a window.
    pub fn window(model: CpuModel) -> Self {
        Self::shadow_with(model, WindowPolicy::Always, "shadow engine in a window")
    }

    fn shadow_with(model: CpuModel, policy: WindowPolicy, name: &'static str) -> Self {
        let before = low_mappings();
        let mut shadow = Shadow::new().expect("there is memory");
        // Nobody asks for attention here.
        shadow.set_counting();
        shadow.use_windows(policy);
        let low = low_mappings().into_iter().filter(|mapping| !before.contains(mapping)).collect();
        Self::new(model, Runner::Shadow(Box::new(shadow)), name, low)
    }

    /// What the shadow engine did, and how many instructions were interpreted.
    pub fn statistics(&self) -> Option<(Statistics, u64)> {
        match &self.engine {
            Runner::Shadow(shadow) => Some((shadow.statistics(), shadow.interpreted())),
            Runner::Interp(_) => None,
        }
    }

    fn protect(&self, hidden: bool) {
        for &(start, len, bits) in &self.low {
            let bits = if hidden { libc::PROT_NONE } else { bits };
            // SAFETY: the engine's own mappings, which it uses only while it runs, and it does not.
            let result = unsafe { libc::mprotect(start as *mut libc::c_void, len, bits) };
            assert_eq!(result, 0, "mprotect: {}", std::io::Error::last_os_error());
        }
    }

    fn new(model: CpuModel, engine: Runner<Ram>, name: &'static str, low: Vec<LowMapping>) -> Self {
        let bytes = SharedRam::new(physical::SIZE as usize);
        let mut ram = Ram { bytes, written_code: VecDeque::new() };
        write_tables(&mut ram);
        ram.load(physical::READ_ONLY, &read_only_page());

        let mut cpu = Vcpu::with_model(ram, model);
        let state = &mut cpu.state;
        state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::AM | cr0::NE | cr0::MP | cr0::ET;
        state.cr3 = physical::DIRECTORY;
        state.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
        state.gdtr = TableRegister { base: SYSTEM + GDT, limit: GDT_SIZE as u16 - 1 };
        state.idtr = TableRegister { base: SYSTEM + IDT, limit: (VECTORS * 8 - 1) as u16 };
        const LDT_TYPE: u16 = 2;
        const BUSY_TSS: u16 = 11;
        let local_limit = LOCAL_SEGMENTS.len() as u32 * 8 - 1;
        state.ldtr = Segment::new(0x50, rights::PRESENT | LDT_TYPE, SYSTEM + LDT, local_limit);
        state.tr = Segment::new(0x40, rights::PRESENT | BUSY_TSS, SYSTEM + TSS, TSS_LIMIT);
        state.cpl = 3;
        cpu.state_replaced();
        Guest { cpu, engine, name, last_code: (0, Vec::new()), low, programs: 0 }
    }

    /// A segment register as loading a selector makes it, from the tables of this file.
    fn segment(&self, selector: u16) -> Segment {
        const TI: u16 = 4;
        const INDEX: u16 = 0xfff8;
        if selector & !3 == 0 {
            return Segment::null(selector);
        }
        let table = if selector & TI == 0 { GDT } else { LDT };
        let address = physical::SYSTEM + table + u32::from(selector & INDEX);
        let (low, high) = (self.cpu.bus.u32(address), self.cpu.bus.u32(address + 4));
        let attributes = (high >> 8) as u16 & rights::DEFINED;
        let limit = low & 0xffff | high & 0xf_0000;
        let limit = if attributes & rights::GRANULAR != 0 { limit << 12 | 0xfff } else { limit };
        Segment::new(selector, attributes, low >> 16 | (high & 0xff) << 16 | high & 0xff00_0000, limit)
    }

    /// What an exception's handler finds on the stack and in registers.
    fn exception(&self) -> Outcome {
        let state = &self.cpu.state;
        let number = state.eip.wrapping_sub(SYSTEM + HANDLERS + 1);
        let with_error = matches!(
            number as u8,
            vector::DF | vector::TS | vector::NP | vector::SS | vector::GP | vector::PF | vector::AC
        );
        let mut at = state.gpr[gpr::ESP].wrapping_sub(SYSTEM);
        let mut pop = || {
            let value = self.cpu.bus.u32(physical::SYSTEM + at % PAGE);
            at += 4;
            value
        };
        let error = if with_error { pop() } else { 0 };
        let (eip, cs, flags, esp, ss) = (pop(), pop(), pop(), pop(), pop());
        let mut machine = Machine {
            gpr: state.gpr,
            eip,
            eflags: flags,
            segments: Seg::ALL.map(|seg| state.segment(seg).selector),
            fx: self.fx(),
        };
        machine.gpr[gpr::ESP] = esp;
        machine.segments[Seg::Cs as usize] = cs as u16;
        machine.segments[Seg::Ss as usize] = ss as u16;
        let address = if number as u8 == vector::PF { state.cr2 } else { 0 };
        Outcome { machine, event: Event::Exception { vector: number as u8, error, address } }
    }

    fn load_code(&mut self, offset: u32, bytes: &[u8]) {
        self.cpu.bus.load(physical::CODE + offset, bytes);
        let last = std::mem::replace(&mut self.last_code, (offset, bytes.to_vec()));
        // What was made of the previous program may reach into bytes that this one does not write.
        for (offset, len) in [(last.0, last.1.len() as u32), (offset, bytes.len() as u32)] {
            let end = offset + len;
            let mut at = offset;
            while at < end {
                let next = end.min((at / PAGE + 1) * PAGE);
                self.cpu.bus.written_code.push_back((u64::from(physical::CODE + at), u64::from(next - at)));
                at = next;
            }
        }
    }

    fn fx(&self) -> FxArea {
        let fpu = &self.cpu.state.fpu;
        let mut area = FxArea([0; super::machine::FX_SIZE]);
        area.set_u16(fx::FCW, fpu.control);
        area.set_u16(fx::FSW, fpu.status);
        area.0[fx::FTW] = fpu.valid;
        area.set_u32(fx::MXCSR, fpu.mxcsr);
        for i in 0..8 {
            let register = fpu.registers[(usize::from(fpu.top()) + i) % 8];
            area.0[fx::ST + 16 * i..][..8].copy_from_slice(&register.significand.to_le_bytes());
            area.set_u16(fx::ST + 16 * i + 8, register.sign_exponent);
            area.0[fx::XMM + 16 * i..][..16].copy_from_slice(&fpu.xmm[i].to_le_bytes());
        }
        area
    }

    fn set_fx(&mut self, area: &FxArea) {
        let fpu = &mut self.cpu.state.fpu;
        fpu.control = area.u16(fx::FCW);
        fpu.status = area.u16(fx::FSW);
        fpu.valid = area.0[fx::FTW];
        fpu.mxcsr = area.u32(fx::MXCSR);
        for i in 0..8 {
            let st = area.st(i);
            let significand = u64::from_le_bytes(std::array::from_fn(|n| st[n]));
            let sign_exponent = u16::from_le_bytes([st[8], st[9]]);
            fpu.registers[(usize::from(fpu.top()) + i) % 8] = F80 { significand, sign_exponent };
            fpu.xmm[i] = u128::from_le_bytes(std::array::from_fn(|n| area.xmm(i)[n]));
        }
    }
}

fn write_tables(ram: &mut Ram) {
    let mut put = |address: u32, value: u64| ram.load(physical::SYSTEM + address, &value.to_le_bytes());
    let flat = |kind: u16, level: u16| descriptor(0, 0xf_ffff, kind | level << rights::DPL_SHIFT);
    for (selector, value) in [
        (0x08, flat(rights::FLAT_CODE, 0)),
        (0x10, flat(rights::FLAT_CODE, 0)),
        (selector::KERNEL_DATA, flat(rights::FLAT_DATA, 0)),
        (selector::CODE, flat(rights::FLAT_CODE, 3)),
        (selector::DATA, flat(rights::FLAT_DATA, 3)),
        (selector::EXIT, flat(rights::FLAT_CODE & !rights::PRESENT, 3)),
    ] {
        put(GDT + u32::from(selector & 0xfff8), value);
    }
    for (n, segment) in LOCAL_SEGMENTS.iter().enumerate() {
        let mut kind = rights::PRESENT | rights::NOT_SYSTEM | rights::DPL | rights::ACCESSED | rights::BIG;
        if segment.expand_down {
            kind |= rights::EXPAND_DOWN;
        }
        if !segment.read_only {
            kind |= rights::WRITABLE;
        }
        put(LDT + 8 * n as u32, descriptor(segment.base, segment.limit, kind));
    }
    const INTERRUPT_GATE: u64 = 0x8e00 << 32;
    const FOR_USERS: u64 = 0x6000 << 32;
    for n in 0..VECTORS {
        let offset = u64::from(SYSTEM + HANDLERS + n);
        let user = if matches!(n as u8, vector::BP | vector::OF) { FOR_USERS } else { 0 };
        let gate = offset & 0xffff | (offset & 0xffff_0000) << 32 | 0x08 << 16 | INTERRUPT_GATE | user;
        put(IDT + 8 * n, gate);
    }
    // ESP0 and SS0; the offset of the I/O bitmap lies behind the limit.
    put(TSS + 4, u64::from(SYSTEM + STACK0) | u64::from(selector::KERNEL_DATA) << 32);
    put(TSS + 0x60, u64::from(TSS_LIMIT + 1) << 48);
    ram.load(physical::SYSTEM + HANDLERS, &[HLT; VECTORS as usize]);

    let mut entry = |table: u32, index: u32, value: u32| ram.load(table + 4 * index, &value.to_le_bytes());
    entry(physical::DIRECTORY, at::DATA >> 22, physical::LOW_TABLE | P | W | U | AD);
    entry(physical::DIRECTORY, SYSTEM >> 22, physical::HIGH_TABLE | P | W | U | AD);
    entry(physical::HIGH_TABLE, SYSTEM >> 12 & 0x3ff, physical::SYSTEM | P | W | AD);
    let mut map = |linear: u32, physical: u32, pages: u32, bits: u32| {
        for n in 0..pages {
            let value = (physical + n * PAGE) | P | U | AD | bits;
            entry(physical::LOW_TABLE, (linear >> 12 & 0x3ff) + n, value);
        }
    };
    map(at::DATA, physical::DATA, 3, W);
    map(at::READ_ONLY, physical::READ_ONLY, 1, 0);
    map(at::STACK, physical::STACK, 1, W);
    map(at::CODE, physical::CODE, 2, 0);
}

impl Engine for Guest {
    fn name(&self) -> &str {
        self.name
    }

    fn leaves_dead_flags(&self) -> bool {
        matches!(self.engine, Runner::Shadow(_))
    }

    fn runs_warm(&self) -> bool {
        matches!(self.engine, Runner::Shadow(_))
    }

    fn hide(&mut self, hidden: bool) {
        self.protect(hidden);
    }

    fn set_memory(&mut self, image: &Image) {
        let (data, stack) = image.split_at(at::DATA_SIZE as usize);
        self.cpu.bus.load(physical::DATA, data);
        self.cpu.bus.load(physical::STACK, stack);
    }

    fn memory(&self, image: &mut Image) {
        let (data, stack) = image.split_at_mut(at::DATA_SIZE as usize);
        self.cpu.bus.read(physical::DATA, data);
        self.cpu.bus.read(physical::STACK, stack);
    }

    fn run(&mut self, program: &Program, before: &Machine) -> Outcome {
        let offset = program.start - at::CODE;
        let program_code = (offset, &program.bytes);
        // The same again is not written again: the second run is one of code that exists.
        if (self.last_code.0, &self.last_code.1) != program_code {
            self.load_code(offset, &program.bytes);
        }
        self.programs += 1;
        if self.programs.is_multiple_of(FORGET_AFTER) && !self.low.is_empty() {
            self.engine.forget_code(&mut self.cpu);
        }

        let segments = before.segments.map(|selector| self.segment(selector));
        let state = &mut self.cpu.state;
        state.gpr = before.gpr;
        state.eip = before.eip;
        state.segments = segments;
        state.cpl = 3;
        state.activity = Activity::Running;
        state.interrupt_shadow = InterruptShadow::None;
        state.pending_debug = 0;
        self.cpu.set_flags(before.eflags);
        self.set_fx(&before.fx);
        let exit = self.engine.run(&mut self.cpu, BUDGET);
        let mut outcome = self.exception();
        if exit != Exit::Halted || self.cpu.state.cpl != 0 {
            outcome.event = Event::Endless;
            outcome.machine.gpr = self.cpu.state.gpr;
            outcome.machine.eip = self.cpu.state.eip;
            return outcome;
        }
        let ended =
            Event::Exception { vector: vector::NP, error: u32::from(selector::EXIT & 0xfff8), address: 0 };
        if outcome.event == ended && outcome.machine.eip == program.end {
            outcome.event = Event::End;
        }
        outcome.machine.eflags &= !eflags::RF;
        outcome
    }
}
