//! Runs sequences on two engines and compares all that they leave; shrinks what differs to one instruction.

use super::generate::{Approximate, Generator, Loose, Sequence};
use super::isa::{self, Class};
use super::liveness;
use super::machine::{Engine, Event, IMAGE, Image, Machine, Outcome, Program, address_of, at, fx};
use super::undefined;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, NasmFormatter,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use vmm::cpu::fpu::fsw;
use vmm::cpu::registers::{eflags, vector};

/// How often an encoding was executed.
#[derive(Clone, Copy, Default)]
pub struct Count {
    /// To its end.
    pub done: u64,
    /// Seed of the last sequence where it did.
    pub done_in: u64,
    /// To an exception.
    pub faulted: u64,
}

/// A comparison of two engines.
pub struct Comparison<'a> {
    reference: &'a mut dyn Engine,
    engine: &'a mut dyn Engine,
    generator: Generator,
    image: Box<Image>,
    after: [Box<Image>; 2],
    counts: BTreeMap<Code, Count>,
    /// The engine runs each program twice, and the second run counts.
    warm: bool,
    /// Print each sequence before it runs.
    pub list: bool,
    /// Sequences that were compared.
    pub sequences: u64,
    /// Instructions generated.
    pub instructions: u64,
    /// Exceptions by vector.
    pub exceptions: BTreeMap<u8, u64>,
    /// Sequences that differ in nothing but what is open, by reason.
    pub excused: BTreeMap<&'static str, u64>,
}

/// What is not compared at the point where a run ended.
#[derive(Default)]
struct Ignored {
    flags: u32,
    /// Those of `flags` that are only ignored because nobody reads them.
    dead: u32,
    /// Bits of the x87 status word.
    status: u16,
    /// An instruction faulted of which it is open how far it gets before that.
    partial: Option<undefined::Partial>,
    loose: Loose,
}

impl Ignored {
    fn is_nothing(&self) -> bool {
        self.reasons().is_empty()
    }

    fn reasons(&self) -> Vec<&'static str> {
        let loose = &self.loose;
        let mut reasons = Vec::new();
        if self.dead != 0 {
            reasons.push("flags in the frame of a fault that the program writes before it reads them");
        }
        if self.flags & !self.dead != 0 {
            reasons.push("flags that the manual leaves undefined");
        }
        if self.status != 0 {
            reasons.push("condition codes of FCOMI, and of comparisons with unmasked exceptions");
        }
        reasons.extend(self.partial.map(undefined::Partial::reason));
        if !loose.memory.is_empty() {
            reasons.push("pointers to the last x87 instruction in memory");
        }
        if loose.x87 {
            reasons.push(undefined::CVTPI2PS);
        }
        reasons.extend(loose.approximate.map(Approximate::reason));
        reasons
    }
}

fn image() -> Box<Image> {
    vec![0; IMAGE].into_boxed_slice().try_into().expect("the size is right")
}

impl<'a> Comparison<'a> {
    /// Compares `engine` with `reference` on the encodings that are given.
    pub fn new(
        reference: &'a mut dyn Engine,
        engine: &'a mut dyn Engine,
        codes: impl Iterator<Item = (Code, Class)>,
    ) -> Self {
        Comparison {
            reference,
            engine,
            generator: Generator::new(codes),
            image: image(),
            after: [image(), image()],
            counts: BTreeMap::new(),
            warm: false,
            list: false,
            sequences: 0,
            instructions: 0,
            exceptions: BTreeMap::new(),
            excused: BTreeMap::new(),
        }
    }

    /// Runs the sequence of a seed on both. A difference is described, as short as it can be made.
    pub fn check(&mut self, seed: u64) -> Result<(), String> {
        let sequence = self.generator.sequence(seed, &mut self.image);
        let program = sequence.program(sequence.pieces.len());
        if self.list {
            let mut text = String::new();
            describe(&mut text, &sequence, &(0..sequence.pieces.len()).collect::<Vec<_>>());
            println!("{}\n{text}", show(&sequence.before, true));
        }
        let [reference, engine] = self.run(&program, &sequence.before);
        self.note(&sequence, &program, &reference);
        let ignored = self.ignored(&sequence, &program, &reference, sequence.pieces.len());
        if let Some(reason) = optional(&sequence, &program, &reference, &engine) {
            *self.excused.entry(reason).or_default() += 1;
            return Ok(());
        }
        if !self.same(&reference, &engine, &ignored) {
            return Err(self.explain(&sequence));
        }
        if self.engine.runs_warm() {
            let again = self.run_engine(&program, &sequence.before);
            if !self.same(&reference, &again, &ignored) {
                self.warm = true;
                let text = self.explain(&sequence);
                self.warm = false;
                return Err(format!("in the second run: {text}"));
            }
        }
        if !ignored.is_nothing() && !self.same(&reference, &engine, &Ignored::default()) {
            for reason in ignored.reasons() {
                *self.excused.entry(reason).or_default() += 1;
            }
        }
        Ok(())
    }

    fn run(&mut self, program: &Program, before: &Machine) -> [Outcome; 2] {
        self.reference.set_memory(&self.image);
        self.engine.hide(true);
        let reference = self.reference.run(program, before);
        self.engine.hide(false);
        self.reference.memory(&mut self.after[0]);
        if self.warm {
            self.run_engine(program, before);
        }
        [reference, self.run_engine(program, before)]
    }

    fn run_engine(&mut self, program: &Program, before: &Machine) -> Outcome {
        self.engine.set_memory(&self.image);
        let outcome = self.engine.run(program, before);
        self.engine.memory(&mut self.after[1]);
        outcome
    }

    /// What is not compared when the first `count` instructions of a sequence ended as the reference says.
    fn ignored(&self, sequence: &Sequence, program: &Program, reference: &Outcome, count: usize) -> Ignored {
        let mut ignored = ignored_by(sequence, program, reference, count);
        let trap = |number| matches!(number, vector::DB | vector::BP | vector::OF);
        if let Event::Exception { vector, .. } = reference.event
            && self.engine.leaves_dead_flags()
            && !trap(vector)
        {
            let mut fetch = |eip: u32| {
                let rest = program.bytes.get(eip.wrapping_sub(program.start) as usize..);
                rest.unwrap_or_default().to_vec()
            };
            let mut code = liveness::Code { bits: 32, fetch: &mut fetch };
            let dead = liveness::dead(&mut code, reference.machine.eip) & !ignored.flags;
            ignored.flags |= dead;
            ignored.dead = dead;
        }
        ignored
    }

    fn same(&self, reference: &Outcome, engine: &Outcome, ignored: &Ignored) -> bool {
        let mask = !(ignored.flags | eflags::RF);
        let (a, b) = (&reference.machine, &engine.machine);
        let exceptions = [reference, engine].map(|outcome| matches!(outcome.event, Event::Exception { .. }));
        (reference.event == engine.event
            || ignored.partial == Some(undefined::Partial::Which) && exceptions == [true; 2]
            || ignored.partial == Some(undefined::Partial::Address)
                && [reference, engine].iter().all(|outcome| is_memory_fault(outcome.event)))
            && (a.gpr == b.gpr || ignored.partial == Some(undefined::Partial::Registers))
            && a.eip == b.eip
            && a.segments == b.segments
            && (a.eflags ^ b.eflags) & mask == 0
            && fx_differences(a, b, ignored).is_empty()
            && (self.after[0] == self.after[1] || self.memory_differences(ignored).is_empty())
    }

    /// Where the memories differ.
    fn memory_differences(&self, ignored: &Ignored) -> Vec<usize> {
        let open = |index: usize| ignored.loose.memory.iter().any(|range| range.contains(&address_of(index)));
        (0..IMAGE).filter(|index| self.after[0][*index] != self.after[1][*index] && !open(*index)).collect()
    }

    /// Counts what was executed.
    fn note(&mut self, sequence: &Sequence, program: &Program, outcome: &Outcome) {
        self.sequences += 1;
        self.instructions += sequence.pieces.len() as u64;
        let mut stopped_at = None;
        if let Event::Exception { vector, .. } = outcome.event {
            *self.exceptions.entry(vector).or_default() += 1;
            let offset = outcome.machine.eip.wrapping_sub(program.start) as usize;
            stopped_at = Some(offset);
        }
        for piece in &sequence.pieces {
            let trap = matches!(
                outcome.event,
                Event::Exception { vector: vector::BP | vector::OF | vector::DB, .. }
            );
            // Gone to somewhere else: the first transfer may have been the last that was executed.
            if stopped_at.is_some_and(|offset| offset > sequence.bytes.len())
                && piece.code.flow_control() != FlowControl::Next
            {
                self.counts.entry(piece.code).or_default().done += u64::from(!piece.conditional);
                break;
            }
            match stopped_at {
                Some(offset) if piece.bytes.start >= offset && offset <= sequence.bytes.len() => {
                    if piece.bytes.start == offset && !trap {
                        self.counts.entry(piece.code).or_default().faulted += 1;
                    }
                    break;
                }
                _ if !piece.conditional => {
                    let count = self.counts.entry(piece.code).or_default();
                    count.done += 1;
                    count.done_in = sequence.seed;
                }
                _ => {}
            }
        }
    }

    /// Finds the first instruction that differs and describes it.
    fn explain(&mut self, sequence: &Sequence) -> String {
        let mut text = format!("difference between {} and {}\n", self.reference.name(), self.engine.name());
        let mut states: Vec<(Machine, Box<Image>)> = vec![(sequence.before, self.image.clone())];
        for count in 1..=sequence.pieces.len() {
            let program = sequence.program(count);
            let [reference, engine] = self.run(&program, &sequence.before);
            let ignored = self.ignored(sequence, &program, &reference, count);
            if self.same(&reference, &engine, &ignored) {
                states.push((reference.machine, self.after[0].clone()));
                continue;
            }
            let piece = &sequence.pieces[count - 1];
            let (before, memory) = &states[count - 1];
            let before = *before;
            let _ = writeln!(text, "instruction {count} of {}:", sequence.pieces.len());
            describe(&mut text, sequence, &[count - 1]);
            let whole = piece.code.cpuid_features().iter().any(|feature| is_fx(*feature));
            let _ = writeln!(text, "before:\n{}", show(&before, whole));
            self.outcomes(&mut text, &reference, &engine, &ignored, whole);
            // Alone, from the state that the reference had before it.
            let whole = std::mem::replace(&mut self.image, memory.clone());
            let mut bytes = sequence.bytes[piece.bytes.clone()].to_vec();
            let end = before.eip + bytes.len() as u32;
            bytes.extend(super::machine::exit_jump());
            bytes.truncate((at::CODE + at::CODE_SIZE).saturating_sub(before.eip) as usize);
            let alone = Program { start: before.eip, bytes, end, loads_fs: sequence.loads_fs };
            if (at::CODE..at::CODE + at::CODE_SIZE).contains(&before.eip) {
                let [reference, engine] = self.run(&alone, &before);
                let still = !self.same(&reference, &engine, &ignored);
                let _ = writeln!(text, "alone: {}", if still { "the same" } else { "no difference" });
                if !still {
                    describe(&mut text, sequence, &(0..sequence.pieces.len()).collect::<Vec<_>>());
                }
            }
            self.image = whole;
            let _ =
                writeln!(text, "reproduce: VMSIM_SILICON_SEED={} VMSIM_SILICON_SEQUENCES=1", sequence.seed);
            return text;
        }
        text += "no shortened sequence differs:\n";
        describe(&mut text, sequence, &(0..sequence.pieces.len()).collect::<Vec<_>>());
        let _ = writeln!(text, "before:\n{}", show(&sequence.before, true));
        let program = sequence.program(sequence.pieces.len());
        let [reference, engine] = self.run(&program, &sequence.before);
        let ignored = self.ignored(sequence, &program, &reference, sequence.pieces.len());
        self.outcomes(&mut text, &reference, &engine, &ignored, true);
        let _ = writeln!(text, "reproduce: VMSIM_SILICON_SEED={} VMSIM_SILICON_SEQUENCES=1", sequence.seed);
        text
    }

    fn outcomes(
        &self,
        text: &mut String,
        reference: &Outcome,
        engine: &Outcome,
        ignored: &Ignored,
        whole: bool,
    ) {
        for (outcome, name) in [(reference, self.reference.name()), (engine, self.engine.name())] {
            let _ = writeln!(text, "{name}: {:x?}\n{}", outcome.event, show(&outcome.machine, whole));
        }
        let flags = reference.machine.eflags ^ engine.machine.eflags;
        let _ = writeln!(text, "flags that differ: {flags:#x}, undefined: {:#x}", ignored.flags);
        for difference in fx_differences(&reference.machine, &engine.machine, ignored) {
            let _ = writeln!(text, "{difference}");
        }
        for index in self.memory_differences(ignored).into_iter().take(16) {
            let [a, b] = [self.after[0][index], self.after[1][index]];
            let _ =
                writeln!(text, "[{:#x}] {:02x}: {a:02x} and {b:02x}", address_of(index), self.image[index]);
        }
    }

    /// Instructions that are known to have been executed to their end or to an exception.
    pub fn executed(&self) -> u64 {
        self.counts.values().map(|count| count.done + count.faulted).sum()
    }

    /// The encodings by mnemonic, with how often each ran to its end and to an exception. The second list is
    /// that of the encodings which did not do what their class says.
    pub fn coverage(&self) -> (String, Vec<String>) {
        let mut by_mnemonic: BTreeMap<String, (u64, Count)> = BTreeMap::new();
        let mut missing = Vec::new();
        let generated = self.generator.codes();
        for code in generated {
            let count = self.counts.get(code).copied().unwrap_or_default();
            let sum = by_mnemonic.entry(format!("{:?}", code.mnemonic()).to_lowercase()).or_default();
            sum.0 += 1;
            sum.1.done += count.done;
            sum.1.faulted += count.faulted;
            match isa::classify(*code) {
                Some(Class::Run) if count.done == 0 && !always_faults(*code) => {
                    missing.push(format!("{code:?} never ran to its end ({} exceptions)", count.faulted));
                }
                Some(Class::Faults) if count.done != 0 || count.faulted == 0 => {
                    missing.push(format!(
                        "{code:?} ran {} times (seed {}), {} exceptions",
                        count.done, count.done_in, count.faulted
                    ));
                }
                _ => {}
            }
        }
        let mut text = String::new();
        for (mnemonic, (encodings, count)) in by_mnemonic {
            let _ = write!(text, "{mnemonic} {encodings}:{}+{}  ", count.done, count.faulted);
        }
        (text, missing)
    }
}

/// Runs to an end that is not that of the sequence: interrupts, and transfers to where nothing is.
fn always_faults(code: Code) -> bool {
    matches!(code, Code::Int_imm8 | Code::Int3 | Code::Int1)
}

fn is_memory_fault(event: Event) -> bool {
    matches!(event, Event::Exception { vector: vector::PF | vector::GP | vector::SS, .. })
}

/// Whether one engine alone raised an exception that it may raise: nothing can be compared then.
fn optional(
    sequence: &Sequence,
    program: &Program,
    reference: &Outcome,
    engine: &Outcome,
) -> Option<&'static str> {
    if reference.event == engine.event && reference.machine.eip == engine.machine.eip {
        return None;
    }
    // Of the flat segments, and of those that start with the data.
    let wraps = |address: u32| {
        const NEAR: u32 = 0x200;
        [0, at::DATA].into_iter().any(|base| address.wrapping_sub(base).wrapping_add(NEAR) < 2 * NEAR)
    };
    if let Event::Exception { vector: vector::PF, address, .. } = reference.event
        && let Event::Exception { vector: vector::GP | vector::SS, .. } = engine.event
        && reference.machine.eip == engine.machine.eip
        && wraps(address)
    {
        return Some("operands that wrap at 4 GiB may exceed the segment's limit");
    }
    [reference, engine].into_iter().find_map(|outcome| {
        let Event::Exception { vector, .. } = outcome.event else { return None };
        let offset = outcome.machine.eip.wrapping_sub(program.start) as usize;
        let piece = sequence.pieces.iter().find(|piece| piece.bytes.start == offset)?;
        undefined::optional(piece.code, vector)
    })
}

/// What is not compared when the first `count` instructions of a sequence ended as the reference says.
fn ignored_by(sequence: &Sequence, program: &Program, reference: &Outcome, count: usize) -> Ignored {
    let at_end = sequence.pieces.get(count).map_or(sequence.undefined, |piece| piece.undefined);
    let offset = reference.machine.eip.wrapping_sub(program.start) as usize;
    let stopped = sequence.pieces.iter().take(count).find(|piece| piece.bytes.start == offset);
    let inside = offset <= sequence.bytes.len();
    let flags = match (reference.event, stopped) {
        (Event::Exception { .. }, Some(piece)) => piece.undefined,
        // Somewhere a jump led to: it is not known which.
        (Event::Exception { .. }, None) if !inside => {
            sequence.pieces.iter().take(count).fold(at_end, |flags, piece| flags | piece.undefined)
        }
        _ => at_end,
    };
    let at_end = sequence.pieces.get(count).map_or(sequence.status, |piece| piece.status);
    let (mut status, when_unmasked) = match (reference.event, stopped) {
        (Event::Exception { .. }, Some(piece)) => piece.status,
        (Event::Exception { .. }, None) if !inside => sequence.status,
        _ => at_end,
    };
    if reference.machine.fx.u16(fx::FSW) & fsw::ES != 0 {
        status |= when_unmasked;
    }
    let partial = stopped.and_then(|piece| undefined::partial(piece.code));
    let whole = count == sequence.pieces.len() && stopped.is_none();
    Ignored {
        flags,
        dead: 0,
        status,
        partial,
        loose: if whole { sequence.loose.clone() } else { Loose::default() },
    }
}

/// What differs in x87, MMX and SSE.
fn fx_differences(a: &Machine, b: &Machine, ignored: &Ignored) -> Vec<String> {
    let (a, b) = (&a.fx, &b.fx);
    let mut found = Vec::new();
    let x87_open = ignored.loose.x87 || matches!(ignored.partial, Some(undefined::Partial::X87));
    if a.0[..fx::FTW + 1] == b.0[..fx::FTW + 1]
        && a.u32(fx::MXCSR) == b.u32(fx::MXCSR)
        && (0..8).all(|i| a.st(i) == b.st(i) && a.xmm(i) == b.xmm(i))
    {
        return found;
    }
    for (name, at) in [("FCW", fx::FCW), ("FSW", fx::FSW)] {
        let mask = if at == fx::FSW { !ignored.status } else { u16::MAX };
        if (a.u16(at) ^ b.u16(at)) & mask != 0 && !(x87_open && at == fx::FSW) {
            found.push(format!("{name}: {:04x} and {:04x}", a.u16(at), b.u16(at)));
        }
    }
    if a.0[fx::FTW] != b.0[fx::FTW] && !x87_open {
        found.push(format!("FTW: {:02x} and {:02x}", a.0[fx::FTW], b.0[fx::FTW]));
    }
    if a.u32(fx::MXCSR) != b.u32(fx::MXCSR) {
        found.push(format!("MXCSR: {:04x} and {:04x}", a.u32(fx::MXCSR), b.u32(fx::MXCSR)));
    }
    for i in 0..8 {
        if a.st(i) != b.st(i) && !x87_open && !(i < 2 && near_extended(a.st(i), b.st(i), ignored)) {
            found.push(format!("ST{i}: {} and {}", hex(a.st(i)), hex(b.st(i))));
        }
        if a.xmm(i) != b.xmm(i) && !near_singles(a.xmm(i), b.xmm(i), ignored) {
            found.push(format!("XMM{i}: {} and {}", hex(a.xmm(i)), hex(b.xmm(i))));
        }
    }
    found
}

/// Whether two results of a transcendental function are within what its accuracy allows.
fn near_extended(a: &[u8], b: &[u8], ignored: &Ignored) -> bool {
    const UNITS: u128 = 4;
    if ignored.loose.approximate != Some(Approximate::Transcendental) || (a[9] ^ b[9]) & 0x80 != 0 {
        return false;
    }
    let whole = |st: &[u8]| {
        let significand = u64::from_le_bytes(std::array::from_fn(|n| st[n])) & (u64::MAX >> 1);
        let exponent = u128::from(u16::from_le_bytes([st[8], st[9]]) & 0x7fff);
        exponent << 63 | u128::from(significand)
    };
    whole(a).abs_diff(whole(b)) <= UNITS
}

/// Whether two results of RCPPS or RSQRTPS are both within the error that is allowed of the same value.
fn near_singles(a: &[u8], b: &[u8], ignored: &Ignored) -> bool {
    const ERROR: f32 = 2.0 * 1.5 / 4096.0;
    if ignored.loose.approximate != Some(Approximate::Reciprocal) {
        return false;
    }
    a.chunks(4).zip(b.chunks(4)).all(|(a, b)| {
        let single = |bytes: &[u8]| f32::from_le_bytes(std::array::from_fn(|n| bytes[n]));
        a == b || ((single(a) - single(b)) / single(a)).abs() <= ERROR
    })
}

/// Whether instructions of a feature use x87 or SSE registers.
fn is_fx(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(feature, F::FPU | F::FPU287 | F::FPU387 | F::MMX | F::SSE | F::SSE2 | F::FXSR)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

fn describe(text: &mut String, sequence: &Sequence, pieces: &[usize]) {
    let mut formatter = NasmFormatter::new();
    for piece in pieces.iter().filter_map(|n| sequence.pieces.get(*n)) {
        let bytes = &sequence.bytes[piece.bytes.clone()];
        let address = u64::from(sequence.before.eip) + piece.bytes.start as u64;
        let mut instruction = Instruction::default();
        Decoder::with_ip(32, bytes, address, DecoderOptions::NONE).decode_out(&mut instruction);
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        let _ = writeln!(text, "  {address:#x}  {bytes:02x?}  {line}  ({:?})", piece.code);
    }
}

/// The registers; those of x87 and SSE only where they matter.
fn show(machine: &Machine, whole: bool) -> String {
    let Machine { gpr, eip, eflags, segments, fx: area } = machine;
    let mut text = format!(
        "  eax {:08x} ecx {:08x} edx {:08x} ebx {:08x} esp {:08x} ebp {:08x} esi {:08x} edi {:08x}\n",
        gpr[0], gpr[1], gpr[2], gpr[3], gpr[4], gpr[5], gpr[6], gpr[7]
    );
    let _ = write!(text, "  eip {eip:08x} eflags {eflags:08x} es cs ss ds fs gs {segments:02x?}");
    if !whole {
        return text;
    }
    let words = (area.u16(fx::FCW), area.u16(fx::FSW), area.0[fx::FTW], area.u32(fx::MXCSR));
    let _ =
        write!(text, "\n  fcw {:04x} fsw {:04x} ftw {:02x} mxcsr {:04x}", words.0, words.1, words.2, words.3);
    for i in 0..8 {
        let separator = if i % 4 == 0 { "\n " } else { "" };
        let _ = write!(text, "{separator} st{i} {}", hex(area.st(i)));
    }
    for i in 0..8 {
        let separator = if i % 2 == 0 { "\n " } else { "" };
        let _ = write!(text, "{separator} xmm{i} {}", hex(area.xmm(i)));
    }
    text
}
