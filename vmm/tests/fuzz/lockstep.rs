//! The same guest on both engines. The shadow engine goes ahead, as far as it pleases; the interpreter follows instruction by
//! instruction until it is in the same state. Where it never comes to that, one of them is wrong.
//!
//! Not compared: arithmetic flags that the code writes before it reads them, and those that the manual leaves undefined; there and
//! in the frames of faults; those that were dead until the code ahead was written over. Where undefined flags decide something, the round ends.

use super::guest::{Machine, PAGING, PAGING_PAGES, Random, check, code, prepare};
use super::user::make_user;
use super::{liveness, undefined};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter, OpKind, Register};
use std::cell::Cell;
use std::fmt::Write;
use std::ops::Range;
use vmm::cpu::registers::{Seg, cr0, cr4, eflags, gpr};
use vmm::cpu::state::{Activity, CpuState};
use vmm::cpu::{InterruptShadow, Vcpu};
use vmm::interp::{Exit, Interp};
use vmm::shadow::{Shadow, WindowPolicy, WindowStatistics};

/// How often the shadow engine goes ahead in a round.
const LEGS: u32 = 120;
/// Instructions after which the interpreter gives up.
const MOST_STEPS: u32 = 300_000;
/// Bytes of the longest frame of a fault but for those that leave virtual-8086 mode.
const FRAME: u32 = 24;
/// The paging structures.
const TABLES: Range<usize> =
    PAGING as usize..(PAGING + PAGING_PAGES * vmm::cpu::bus::PAGE_SIZE as u32) as usize;
/// Differences in memory that are listed.
const SHOWN: usize = 16;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guests {
    /// Code in any mode.
    Any,
    /// Users under a small kernel, see [`super::user`].
    Users,
}

/// Both engines.
pub struct Pair {
    guests: Guests,
    followed: Vcpu<Machine>,
    interp: Interp<Machine>,
    ahead: Vcpu<Machine>,
    shadow: Shadow<Machine>,
    steps: u64,
    legs: u64,
    dead_flags: u64,
    /// Arithmetic flags that are undefined now.
    undefined: u32,
    /// Linear addresses of the frame of the last fault that was delivered since both were in the same state; its arithmetic flags may
    /// have been dead.
    frame: Option<Range<u32>>,
    /// Why there may be a difference since both were in the same state.
    excuse: Option<&'static str>,
}

/// What a leg began with, for the case that it ends badly.
struct Start {
    state: CpuState,
    tables: Vec<u8>,
}

fn ram(cpu: &Vcpu<Machine>) -> &[u8] {
    let ram = &cpu.bus.ram;
    #[expect(unsafe_code, reason = "compares RAM that nobody writes meanwhile")]
    // SAFETY: a cell of a byte is a byte; no engine runs while the slice is used.
    unsafe {
        std::slice::from_raw_parts(ram.as_ptr().cast(), ram.len())
    }
}

impl Pair {
    /// Two machines.
    pub fn new(policy: WindowPolicy, guests: Guests) -> Self {
        crate::crash::prepare();
        let machine = || {
            let mut machine = Machine::new();
            machine.devices_write = false;
            machine
        };
        // Without windows everything is looked up; with them code is as in machines.
        let mut shadow = if policy == WindowPolicy::Off {
            let mut shadow = Shadow::new().expect("there is memory");
            shadow.set_counting();
            shadow
        } else {
            Shadow::that_counts_loops().expect("there is memory")
        };
        shadow.use_windows(policy);
        Self {
            guests,
            followed: Vcpu::new(machine()),
            interp: Interp::new(),
            ahead: Vcpu::new(machine()),
            shadow,
            steps: 0,
            legs: 0,
            dead_flags: 0,
            undefined: 0,
            frame: None,
            excuse: None,
        }
    }

    /// What has been done, in words.
    pub fn account(&self) -> String {
        let interpreted = self.shadow.interpreted();
        format!(
            "{} instructions in {} legs, {interpreted} of them interpreted by the shadow engine, {} times dead flags in frames",
            self.steps, self.legs, self.dead_flags
        )
    }

    /// What windows did.
    pub fn windows(&self) -> WindowStatistics {
        self.shadow.statistics().windows
    }

    /// The processor that goes ahead.
    pub fn state(&self) -> &CpuState {
        &self.ahead.state
    }

    /// Whether shadow code did something.
    pub fn is_meaningful(&self) -> bool {
        self.steps > 2 * self.shadow.interpreted()
    }

    /// One round; says how it ended, or what differed.
    pub fn round(&mut self, seed: u64) -> Result<&'static str, String> {
        let mut random = Random(seed);
        let guests = self.guests;
        self.run_guest(&mut random, |cpu| {
            let mut random = Random(seed);
            cpu.bus.random = Random(!seed);
            prepare(cpu, &mut random, program);
            match guests {
                Guests::Any => make_tables_sane(cpu, &mut random),
                Guests::Users => make_user(cpu, &mut random),
            }
        })
    }

    /// The same with the guest that `prepare` makes in a machine.
    pub fn run_guest(
        &mut self,
        random: &mut Random,
        prepare: impl Fn(&mut Vcpu<Machine>),
    ) -> Result<&'static str, String> {
        for cpu in [&mut self.followed, &mut self.ahead] {
            cpu.bus.ram.iter().for_each(|cell| cell.set(0));
            (cpu.bus.a20, cpu.bus.interrupt, cpu.bus.generation) = (true, false, 0);
            prepare(cpu);
        }
        self.undefined = 0;
        self.interp.forget_code(&mut self.followed);
        self.shadow.forget_code(&mut self.ahead);
        let first = Start { state: self.ahead.state.clone(), tables: tables(&self.ahead) };
        for leg in 0..LEGS {
            let start = self.ahead.state.clone();
            let exit = self.shadow.run(&mut self.ahead, 1 + u64::from(random.below(3)));
            self.legs += 1;
            check(&mut self.ahead);
            if let Err(text) = self.follow() {
                if let Some(excuse) = self.excuse {
                    return Ok(excuse);
                }
                if self.guests == Guests::Any && self.is_excused(&first) {
                    return Ok("rounds that changed page tables");
                }
                let text = format!("leg {leg}, {exit:?}: {text}\n{}", self.show(&start));
                return Err(text);
            }
            match exit {
                Exit::Shutdown => return Ok("shutdowns"),
                Exit::Halted if self.ahead.state.eflags & eflags::IF == 0 => return Ok("halts for ever"),
                _ => {}
            }
            if (random.one_in(8) || exit == Exit::Halted) && self.ahead.accepts_interrupts() {
                // A user's kernel expects an error code of some.
                const FIRST_EXTERNAL: u8 = 32;
                let vector = random.dword() as u8;
                let vector = if self.guests == Guests::Users { vector | FIRST_EXTERNAL } else { vector };
                for cpu in [&mut self.followed, &mut self.ahead] {
                    cpu.deliver_external(vector);
                }
            }
        }
        Ok("rounds that went on")
    }

    /// Steps the interpreter to where the shadow engine is.
    fn follow(&mut self) -> Result<(), String> {
        let mut met = false;
        self.excuse = None;
        self.frame = None;
        // Where it passed the shadow engine's EIP, with what of the registers differed.
        let mut passed: Vec<String> = Vec::new();
        let mut path: Vec<String> = Vec::new();
        let mut steps = 0;
        for _ in 0..MOST_STEPS {
            if self.is_there() {
                met = true;
                if self.is_memory_same() {
                    return self.take_over_flags();
                }
            }
            if self.followed.state.activity != Activity::Running {
                break;
            }
            if self.frame.is_some() && self.differs_like_flags() {
                self.excuse = Some("rounds that read the flags in a fault's frame");
            }
            if self.followed.state.eip == self.ahead.state.eip && passed.len() < SHOWN {
                passed.push(self.difference(steps));
            }
            steps += 1;
            let place = self.followed.state.segment(Seg::Cs).base().wrapping_add(self.followed.state.eip);
            let bytes = linear_bytes(&mut self.followed, place, LONGEST);
            let bits = if self.followed.code_is_32bit() { 32 } else { 16 };
            let eip = u64::from(self.followed.state.eip);
            let next = Decoder::with_ip(bits, &bytes, eip, DecoderOptions::NONE).decode();
            if self.uses_frame(&next) {
                self.excuse = Some("rounds that read the flags in a fault's frame");
            }
            let faults = self.interp.statistics().faults;
            let ahead = self.code_ahead(&next);
            if self.followed.state.pending_debug == 0 {
                if let Some((behind, mask)) = self.elements_behind(&next) {
                    self.step_elements(behind, mask);
                } else {
                    self.interp.step(&mut self.followed);
                }
            } else {
                // What the delivery of an interrupt left to report comes before any instruction, which `step` does not know.
                self.interp.run(&mut self.followed, 1);
            }
            self.steps += 1;
            if path.len() < SHOWN {
                let mut line = String::new();
                NasmFormatter::new().format(&next, &mut line);
                path.push(format!("{:x} {line}: flags {:x}", next.ip32(), self.followed.flags()));
            }
            if repeats(&next)
                && next.is_string_instruction()
                && linear_bytes(&mut self.followed, place, LONGEST) != bytes
            {
                // When it sees that depends on whether its code is kept, as on a processor on what it has fetched.
                self.excuse = Some("rounds in which a repeated instruction wrote over itself");
            }
            let faulted = self.interp.statistics().faults != faults;
            self.follow_flags(&next, faulted);
            if let Some(ahead) = ahead.filter(|_| !faulted) {
                self.follow_rewriting(next.next_ip32(), &ahead);
            }
        }
        let what = if met { "memory differs" } else { "the interpreter never comes there" };
        Err(format!(
            "{what} within {steps} steps; passed:\n  {}\npath:\n  {}",
            passed.join("\n  "),
            path.join("\n  ")
        ))
    }

    /// How many elements a repeated store or move is behind the shadow engine's, if that is in the midst of the same; and the
    /// counter's bits. Where one gives way depends on what its engine knows to be code.
    fn elements_behind(&self, next: &Instruction) -> Option<(u32, u32)> {
        let state = &self.followed.state;
        // A single step is one element on both, and the trap behind it must find an instruction that has not ended.
        if !repeats(next) || state.eip != self.ahead.state.eip || state.eflags & eflags::TF != 0 {
            return None;
        }
        let mask = match next.op0_kind() {
            OpKind::MemoryESDI => 0xffff,
            OpKind::MemoryESEDI => u32::MAX,
            _ => return None,
        };
        let left = |cpu: &Vcpu<Machine>| cpu.state.gpr[gpr::ECX] & mask;
        let behind = left(&self.followed).checked_sub(left(&self.ahead)).filter(|behind| *behind > 0)?;
        (left(&self.ahead) > 0).then_some((behind, mask))
    }

    /// A step that does no more than so many elements.
    fn step_elements(&mut self, most: u32, mask: u32) {
        let cpu = &mut self.followed;
        let (eip, task) = (cpu.state.eip, cpu.state.tr.selector);
        let left = cpu.state.gpr[gpr::ECX] & mask;
        // A data breakpoint stops both behind the same element, and as with TF its trap must find an instruction that has not ended.
        let watched = cpu.breakpoints_enabled();
        let rest = if watched { 0 } else { left - most };
        cpu.state.gpr[gpr::ECX] -= rest;
        self.interp.step(cpu);
        if cpu.state.tr.selector != task {
            if rest > 0 {
                self.excuse = Some("rounds in which a task switch saved a part of a count");
            }
            return;
        }
        let now = cpu.state.gpr[gpr::ECX] & mask;
        if watched && now < left - most {
            self.excuse =
                Some("rounds in which a watched repeated instruction gave way to code written over");
        }
        if rest > 0 && now == 0 {
            cpu.state.eip = eip;
        }
        cpu.state.gpr[gpr::ECX] += rest;
    }

    /// Whether an operand in memory lies in the frame of a fault. (What POP and IRET read there looks like flags, wherever it goes.)
    fn uses_frame(&self, next: &Instruction) -> bool {
        let Some(frame) = &self.frame else { return false };
        let state = &self.followed.state;
        let register = |register: Register, _, _| {
            let segment =
                Seg::from_encoding(register.number() as u8).filter(|_| register.is_segment_register());
            Some(match segment {
                Some(segment) => state.segment(segment).base().into(),
                None if register.size() == 1 => 0,
                None => {
                    let value = state.gpr.get(register.number()).copied().unwrap_or(0);
                    u64::from(if register.size() == 2 { value & 0xffff } else { value })
                }
            })
        };
        let accessed = |operand| {
            let is_memory = next.op_kind(operand) == OpKind::Memory;
            let start = next.virtual_address(operand, 0, register).filter(|_| is_memory)? as u32;
            Some(start..start.saturating_add(next.memory_size().size() as u32))
        };
        let mut operands = (0..next.op_count()).filter_map(accessed);
        operands.any(|at| at.start < frame.end && frame.start < at.end)
    }

    /// What differs now, in words.
    fn difference(&mut self, steps: u32) -> String {
        let dead = self.dead_flags() | self.undefined;
        let (a, b) = (&self.followed.state, &self.ahead.state);
        let mut text = format!("after {steps} steps:");
        for n in (0..a.gpr.len()).filter(|n| a.gpr[*n] != b.gpr[*n]) {
            let _ = write!(text, " r{n} {:x} {:x}", a.gpr[n], b.gpr[n]);
        }
        let flags = self.followed.flags() ^ self.ahead.flags();
        let _ = write!(text, " flags {flags:x} of {:x}", !dead & 0xffff);
        if a.segments != b.segments {
            text += " segments";
        }
        if a.fpu != b.fpu {
            let _ = write!(text, " fpu {:x?} {:x?}", a.fpu, b.fpu);
        }
        if self.followed.bus.random.0 != self.ahead.bus.random.0 {
            text += " bus";
        }
        text
    }

    /// Whether registers differ in nothing but the place of arithmetic flags, as when they were loaded from a fault's frame.
    fn differs_like_flags(&self) -> bool {
        let (a, b) = (&self.followed.state, &self.ahead.state);
        let selectors = |state: &CpuState| Seg::ALL.map(|seg| u32::from(state.segment(seg).selector));
        let like_flags =
            |a: &[u32], b: &[u32]| a.iter().zip(b).all(|(a, b)| (a ^ b) & !eflags::ARITHMETIC == 0);
        a.eip == b.eip
            && self.followed.bus.random.0 == self.ahead.bus.random.0
            && like_flags(&a.gpr, &b.gpr)
            && like_flags(&selectors(a), &selectors(b))
    }

    /// Whether registers are the same but for arithmetic flags.
    fn is_there(&mut self) -> bool {
        let (a, b) = (&self.followed.state, &self.ahead.state);
        if a.eip != b.eip || a.gpr != b.gpr || self.followed.bus.random.0 != self.ahead.bus.random.0 {
            return false;
        }
        let difference = self.followed.flags() ^ self.ahead.flags();
        if difference & !eflags::ARITHMETIC != 0 {
            return false;
        }
        let mut a = a.clone();
        a.eflags = b.eflags;
        a == *b && difference & !self.undefined & !self.dead_flags() == 0
    }

    /// What an instruction has done to what is undefined.
    fn follow_flags(&mut self, done: &Instruction, faulted: bool) {
        // Code in the memory of devices, which has another content each time, cannot be looked at.
        let is_unseen = done.is_invalid() && !faulted;
        if self.undefined & liveness::arithmetic(done.rflags_read()) != 0 || is_unseen && self.undefined != 0
        {
            self.excuse = Some("rounds that read undefined flags");
        }
        if faulted {
            // The handler finds what was left of flags that the instruction would have written.
            self.undefined = eflags::ARITHMETIC;
            let state = &self.followed.state;
            let top =
                state.segment(Seg::Ss).base().wrapping_add(state.gpr[gpr::ESP] & self.followed.stack_mask());
            self.frame = Some(top..top.saturating_add(FRAME));
        }
        if faulted || done.is_invalid() {
            return;
        }
        // A count in CL may be zero: then nothing is written.
        let cl = self.followed.state.gpr[gpr::ECX] & 0xff;
        let undefined = undefined::flags(done, Some(cl));
        let count = done.op_count() == 0 || undefined::count(done, Some(cl)) != Some(0);
        let written = if count { liveness::arithmetic(done.rflags_modified()) } else { 0 };
        self.undefined = self.undefined & !written | undefined;
    }

    /// Arithmetic flags that the code at EIP writes before it reads them.
    fn dead_flags(&mut self) -> u32 {
        self.flags_dead_with(0, &[])
    }

    /// The same if `bytes` stood at `from`.
    fn flags_dead_with(&mut self, from: u32, bytes: &[u8]) -> u32 {
        let cpu = &mut self.followed;
        let (bits, start) = (if cpu.code_is_32bit() { 32 } else { 16 }, cpu.state.eip);
        let mut fetch = |eip: u32| match bytes.get(eip.wrapping_sub(from) as usize..) {
            Some(bytes) if !bytes.is_empty() => {
                let mut bytes = bytes[..bytes.len().min(LONGEST as usize)].to_vec();
                let there = bytes.len() as u32;
                bytes.extend(bytes_at(cpu, eip.wrapping_add(there), LONGEST - there));
                bytes
            }
            _ => bytes_at(cpu, eip, LONGEST),
        };
        liveness::dead(&mut liveness::Code { bits, fetch: &mut fetch }, start)
    }

    /// The code behind an instruction that may write memory.
    fn code_ahead(&mut self, next: &Instruction) -> Option<Vec<u8>> {
        let writes = next.is_string_instruction()
            || next.is_stack_instruction()
            || next.op_count() > 0 && next.op0_kind() == OpKind::Memory;
        writes.then(|| bytes_at(&mut self.followed, next.next_ip32(), AHEAD))
    }

    /// Flags that were dead before an instruction wrote over the code at `from`, where there was `before`, and are not now, are lost.
    fn follow_rewriting(&mut self, from: u32, before: &[u8]) {
        if bytes_at(&mut self.followed, from, AHEAD) != before {
            self.undefined |= self.flags_dead_with(from, before) & !self.dead_flags();
        }
    }

    /// Compares RAM. Where only dead flags in a frame differ, the interpreter's are taken over.
    fn is_memory_same(&mut self) -> bool {
        if ram(&self.followed) == ram(&self.ahead) {
            return true;
        }
        let differences = self.memory_differences();
        /// Bits of EFLAGS by byte.
        const FLAGS: [u8; 2] = [eflags::ARITHMETIC as u8, (eflags::ARITHMETIC >> 8) as u8];
        // More than a few are not frames of faults.
        const FRAMES: usize = 8;
        let is_flags = |&at: &usize| {
            let difference = ram(&self.followed)[at] ^ ram(&self.ahead)[at];
            FLAGS.iter().any(|flags| difference & !flags == 0)
        };
        if differences.len() > FRAMES || !differences.iter().all(is_flags) {
            return false;
        }
        self.dead_flags += 1;
        for at in differences {
            let value = self.followed.bus.ram[at].get();
            self.ahead.bus.ram[at].set(value);
            self.ahead.bus.written.push((at as u64, 1));
        }
        true
    }

    fn memory_differences(&self) -> Vec<usize> {
        let (a, b) = (ram(&self.followed), ram(&self.ahead));
        (0..a.len()).filter(|at| a[*at] != b[*at]).collect()
    }

    fn take_over_flags(&mut self) -> Result<(), String> {
        let flags = self.followed.flags();
        self.ahead.set_flags(flags);
        Ok(())
    }

    /// Whether the guest has changed translations: engines may keep them for different times.
    fn is_excused(&self, first: &Start) -> bool {
        [&self.followed, &self.ahead].into_iter().any(|cpu| {
            let state = &cpu.state;
            state.cr0 & cr0::PG != 0
                && (state.cr3 != first.state.cr3
                    || state.cr4 != first.state.cr4
                    || tables(cpu) != first.tables)
        })
    }

    fn show(&mut self, start: &CpuState) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "before: {}", registers(start));
        self.disassemble(&mut text, start);
        text += "where the shadow engine is:\n";
        let now = self.ahead.state.clone();
        self.disassemble(&mut text, &now);
        for (name, cpu) in [("interpreter", &self.followed), ("shadow", &self.ahead)] {
            let _ = writeln!(text, "{name}: {}\n  {:x?}", registers(&cpu.state), cpu.state);
        }
        let differences = self.memory_differences();
        let _ = writeln!(text, "{} bytes differ", differences.len());
        for at in differences.into_iter().take(SHOWN) {
            let _ = writeln!(text, "[{at:x}] {:02x} {:02x}", ram(&self.followed)[at], ram(&self.ahead)[at]);
        }
        text
    }

    fn disassemble(&mut self, text: &mut String, start: &CpuState) {
        const INSTRUCTIONS: u32 = 24;
        const BYTES: u32 = 160;
        let bits = if start.segment(Seg::Cs).big() { 32 } else { 16 };
        let now = std::mem::replace(&mut self.followed.state, start.clone());
        let bytes = bytes_at(&mut self.followed, start.eip, BYTES);
        self.followed.state = now;
        let decoder = Decoder::with_ip(bits, &bytes, u64::from(start.eip), DecoderOptions::NONE);
        for instruction in decoder.into_iter().take(INSTRUCTIONS as usize) {
            let mut line = String::new();
            NasmFormatter::new().format(&instruction, &mut line);
            let at = instruction.ip32().wrapping_sub(start.eip) as usize;
            let encoded = &bytes[at..(at + instruction.len()).min(bytes.len())];
            let _ = writeln!(text, "  {:x}  {encoded:02x?}  {line}", instruction.ip32());
        }
    }
}

/// Whether an instruction has a prefix that repeats strings.
fn repeats(instruction: &Instruction) -> bool {
    instruction.has_rep_prefix() || instruction.has_repne_prefix()
}

/// Longest instruction.
const LONGEST: u32 = 15;
/// Bytes of code ahead that are watched for an instruction's writing over it.
const AHEAD: u32 = 128;

/// Bytes of RAM at CS:EIP, `most` of them.
fn bytes_at(cpu: &mut Vcpu<Machine>, eip: u32, most: u32) -> Vec<u8> {
    let linear = cpu.state.segment(Seg::Cs).base().wrapping_add(eip);
    linear_bytes(cpu, linear, most)
}

/// The same at a linear address.
fn linear_bytes(cpu: &mut Vcpu<Machine>, linear: u32, most: u32) -> Vec<u8> {
    // Looking must not change what a bus that answers anything answers next.
    let random = cpu.bus.random.0;
    const PAGE: u32 = vmm::cpu::bus::PAGE_SIZE as u32;
    let mut bytes = Vec::with_capacity(most as usize);
    while (bytes.len() as u32) < most {
        let at = linear.wrapping_add(bytes.len() as u32);
        let len = (PAGE - at % PAGE).min(most - bytes.len() as u32) as usize;
        let Some(physical) = cpu.debug_translate(at) else { break };
        let Some(there) = cpu.bus.ram.get(physical as usize..).filter(|there| there.len() >= len) else {
            break;
        };
        bytes.extend(there[..len].iter().map(Cell::get));
    }
    cpu.bus.random = Random(random);
    bytes
}

fn registers(state: &CpuState) -> String {
    let segments = Seg::ALL.map(|seg| state.segment(seg).selector);
    format!(
        "{:08x?} eip {:08x} eflags {:08x} segments {segments:04x?} cr0 {:08x} cpl {}{}",
        state.gpr,
        state.eip,
        state.eflags,
        state.cr0,
        state.cpl,
        if state.interrupt_shadow == InterruptShadow::None { "" } else { " (interrupt shadow)" }
    )
}

/// The paging structures without what the processor sets in them.
fn tables(cpu: &Vcpu<Machine>) -> Vec<u8> {
    const ACCESSED_DIRTY: u8 = 0x60;
    let mut bytes = ram(cpu)[TABLES].to_vec();
    bytes.iter_mut().step_by(4).for_each(|low| *low &= !ACCESSED_DIRTY);
    bytes
}

/// Page tables that map RAM but not themselves, so that rounds do not end by what engines may keep differently.
fn make_tables_sane(cpu: &mut Vcpu<Machine>, random: &mut Random) {
    const ENTRIES: u32 = 1024;
    const P_W_U: u32 = 7;
    const PAGE: u32 = vmm::cpu::bus::PAGE_SIZE as u32;
    let put = |at: u32, value: u32| cpu.bus.poke(at, &value.to_le_bytes());
    for n in 0..ENTRIES {
        let table = if n < 2 { 1 } else { 1 + random.below(PAGING_PAGES - 1) };
        put(PAGING + 4 * n, (PAGING + table * PAGE) | P_W_U);
    }
    for table in 1..PAGING_PAGES {
        for n in 0..ENTRIES {
            // The first ones map themselves, mostly.
            let frame = if random.one_in(4) {
                random.below(super::guest::RAM as u32) & !(PAGE - 1)
            } else {
                n * PAGE % super::guest::RAM as u32
            };
            let in_tables = TABLES.contains(&(frame as usize));
            let rights = if random.one_in(8) { random.below(8) } else { P_W_U };
            put(PAGING + table * PAGE + 4 * n, if in_tables { 0 } else { frame | rights });
        }
    }
    cpu.state.cr3 = PAGING;
    cpu.state.cr4 &= !(cr4::PAE | cr4::PSE);
    cpu.state_replaced();
}

/// MOV EAX, [ESP] and RET: where shadow code in windows does not call for that.
const READS_EIP: [u8; 4] = [0x8b, 0x04, 0x24, 0xc3];

/// Code that computes, jumps about, calls and writes over itself, and now and then garbage.
fn program(random: &mut Random, out: &mut Vec<u8>) {
    use super::guest::{CODE, CODE_BYTES};
    let mut garbage = Vec::new();
    code(random, &mut garbage);
    let mut readers_of_eip = Vec::new();
    while out.len() < CODE_BYTES as usize {
        match random.below(42) {
            0 => {
                let at = random.below(CODE_BYTES - 16) as usize;
                out.extend(&garbage[at..at + random.below(16) as usize]);
            }
            1..=3 => out.extend([0x70 + random.below(16) as u8, random.below(80) as u8]),
            4 => out.extend([0x70 + random.below(16) as u8, random.dword() as u8]),
            5 => out.extend([0xe0 + random.below(4) as u8, (random.below(60) as u8).wrapping_sub(40)]),
            6 => {
                // mov ecx, small
                out.push(0xb9);
                out.extend(random.below(5).to_le_bytes());
            }
            7 | 8 => {
                out.push(0xb8 + random.below(8) as u8);
                let value = if random.one_in(4) { CODE + random.below(CODE_BYTES) } else { random.address() };
                out.extend(value.to_le_bytes());
            }
            9 => {
                // call near, or jmp
                out.push(random.pick(&[0xe8, 0xe9, 0xe8]));
                out.extend(random.below(600).wrapping_sub(200).to_le_bytes());
            }
            10 => out.push(random.pick(&[0xc3, 0xc2, 0xc9])),
            11 => {
                // mov [near what runs now], something
                let at = CODE + (out.len() as u32 + random.below(64)) % CODE_BYTES;
                if random.one_in(2) {
                    out.extend([0xc6, 0x05]);
                    out.extend(at.to_le_bytes());
                    out.push(random.dword() as u8);
                } else {
                    out.push(0xa3);
                    out.extend(at.to_le_bytes());
                }
            }
            12 => out.extend([0xff, random.pick(&[0xd0, 0xe0, 0x25, 0x15, 0xd1, 0xe3])]),
            13 => {
                out.extend([random.pick(&[0xf3, 0xf2]), random.pick(&[0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xaf])])
            }
            14 => out.extend([
                random.pick(&[0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf]),
                random.dword() as u8,
            ]),
            15 => out.extend([0x0f, 0x10 + random.below(0x70) as u8, random.dword() as u8]),
            16 => tight_loop(random, out),
            17 => {
                // jmp over; mov register, [esp]; ret
                out.extend([0xeb, READS_EIP.len() as u8]);
                readers_of_eip.push(out.len());
                let [load, modrm, sib, ret] = READS_EIP;
                out.extend([load, modrm | random.pick(&[0, 1, 2, 3, 5, 6, 7]) << 3, sib, ret]);
            }
            18 if !readers_of_eip.is_empty() => {
                // call one, and mostly add to the register
                let to = random.pick(&readers_of_eip);
                let register = out[to + 1] >> 3;
                let behind = out.len() + 5;
                out.push(0xe8);
                out.extend((to as u32).wrapping_sub(behind as u32).to_le_bytes());
                if !random.one_in(4) {
                    out.extend([0x83, 0xc0 | register, random.dword() as u8]);
                }
            }
            _ => {
                if random.one_in(8) {
                    out.push(random.pick(&[0x66, 0x67, 0x2e, 0x36, 0x26, 0x64, 0x65, 0xf0, 0xf3, 0xf2]));
                }
                instruction(random, out);
            }
        }
    }
}

/// Some turns of straight code: MOV ECX, then what is repeated, and DEC or SUB ECX before a jump back if it is not zero.
fn tight_loop(random: &mut Random, out: &mut Vec<u8>) {
    let mut turn = Vec::new();
    for _ in 0..1 + random.below(6) {
        match random.below(4) {
            0 => instruction(random, &mut turn),
            // INC or DEC of a register that operands may use; not of ECX, not of ESP.
            1 => turn.push(random.pick(&[0x40, 0x42, 0x43, 0x45, 0x46, 0x47, 0x48, 0x4a, 0x4b])),
            // x87 with an operand in memory: absolute, or with a register or two.
            _ => {
                let operation = random.below(8) as u8;
                turn.push(random.pick(&[0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf]));
                let place = random.address() / 2;
                match random.below(3) {
                    0 => turn.push(operation << 3 | 5),
                    1 => turn.push(0x80 | operation << 3 | random.pick(&[0, 2, 3, 6, 7])),
                    _ => turn.extend([0x84 | operation << 3, random.pick(&[0x10, 0xc3, 0x76, 0x38])]),
                }
                turn.extend(place.to_le_bytes());
            }
        }
    }
    turn.extend(if random.one_in(2) { &[0x49][..] } else { &[0x83, 0xe9, 0x01] });
    const JNZ_BYTES: usize = 2;
    let Some(back) = i8::try_from(turn.len() + JNZ_BYTES).ok().map(i8::wrapping_neg) else { return };
    out.push(0xb9);
    out.extend((1 + random.below(12)).to_le_bytes());
    out.extend(turn);
    out.extend([0x75, back as u8]);
}

/// An integer instruction of any encoding.
fn instruction(random: &mut Random, out: &mut Vec<u8>) {
    const TWO_BYTE: [u8; 24] = [
        0x40, 0x44, 0x47, 0x4c, 0x90, 0x95, 0x9c, 0xa3, 0xab, 0xb3, 0xbb, 0xa4, 0xa5, 0xac, 0xad, 0xaf, 0xb0,
        0xb1, 0xb6, 0xb7, 0xbc, 0xbd, 0xbe, 0xc1,
    ];
    const GROUPS: [u8; 14] =
        [0x80, 0x81, 0x83, 0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3, 0xf6, 0xf7, 0xfe, 0x8d, 0x69];
    let operands = |random: &mut Random, out: &mut Vec<u8>| {
        // Registers half of the time, else any addressing, mostly with a small displacement.
        let modrm = if random.one_in(2) { 0xc0 | random.dword() as u8 } else { random.dword() as u8 };
        out.push(modrm);
        if modrm < 0xc0 {
            let base = if random.one_in(2) { random.below(0x100) } else { random.address() };
            out.extend(&base.to_le_bytes()[..random.pick(&[1, 1, 2, 4, 4])]);
        }
    };
    match random.below(8) {
        0 | 1 => {
            out.push((random.below(8) << 3 | random.below(6)) as u8);
            operands(random, out);
        }
        2 => {
            out.push(random.pick(&[0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8b, 0x89]));
            operands(random, out);
        }
        3 => {
            out.push(random.pick(&GROUPS));
            operands(random, out);
            out.extend(&random.next().to_le_bytes()[..random.pick(&[0, 1, 4])]);
        }
        4 => {
            out.extend([0x0f, random.pick(&TWO_BYTE)]);
            operands(random, out);
        }
        // Without operands: INC to POP, string instructions, conversions and flags.
        5 => out.push(0x40 + random.below(0x20) as u8),
        6 => out.push(random.pick(&[
            0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x98, 0x99, 0x9e, 0x9f, 0xf5, 0xf8,
            0xf9, 0xfc, 0xfd, 0xd7, 0x60, 0x61, 0x9c, 0x9d, 0xfa, 0xfb, 0x1e, 0x1f, 0x27, 0x37,
        ])),
        _ => {
            out.push(random.pick(&[0x68, 0x6a, 0xa8, 0xa9, 0x04, 0x2c, 0x3d, 0x25, 0xa0, 0xa1]));
            out.extend(&random.next().to_le_bytes()[..random.pick(&[1, 4])]);
        }
    }
}
