//! The engines against tests captured on silicon: a Harris 80C286 and an Intel 386EX, in real mode.
//!
//! The files are found under `$VMSIM_SHARED/vectors` or `../shared/vectors` from the workspace; a
//! machine without them skips these tests and says so. Format: `vectors/README.md` there.

#[path = "common/liveness.rs"]
mod liveness;

use flate2::read::GzDecoder;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use ipc::time::VirtualTime;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use vmm::cpu::bus::{Bus, PageGrant};
use vmm::cpu::registers::{eflags, rights};
use vmm::cpu::{Segment, Vcpu};
use vmm::engine::{Engine, EngineKind};
use vmm::interp::Exit;

/// All of the address space of the machines that the tests were captured on.
const RAM: usize = 16 << 20;
/// More than any test needs (a REP with CX = FFFF).
const BUDGET: u64 = 200_000;
/// Failures that are printed per file.
const SHOWN: usize = 3;

/// 16 MiB of RAM and nothing else.
struct TestBus {
    ram: Box<[Cell<u8>]>,
    written_code: VecDeque<(u64, u64)>,
}

impl TestBus {
    fn new() -> Self {
        TestBus { ram: vec![Cell::new(0); RAM].into_boxed_slice(), written_code: VecDeque::new() }
    }

    fn poke(&mut self, address: u32, value: u8) {
        let cell = &self.ram[address as usize % RAM];
        if cell.replace(value) != value {
            self.written_code.push_back((u64::from(address), 1));
        }
    }
}

impl Bus for TestBus {
    fn page(&mut self, address: u64) -> PageGrant {
        let Some(cell) = self.ram.get(address as usize) else { return PageGrant::default() };
        let host = NonNull::new(std::ptr::from_ref(cell).cast::<u8>().cast_mut());
        // The provenance of one cell is enough to name it, but not the page behind it.
        let whole = NonNull::new(self.ram.as_ptr().cast::<u8>().cast_mut().wrapping_add(address as usize));
        assert_eq!(host, whole);
        PageGrant { read: whole, write: whole, cacheable_code: true }
    }
    fn map_generation(&self) -> u64 {
        0
    }
    fn take_written_code(&mut self) -> Option<(u64, u64)> {
        self.written_code.pop_front()
    }
    fn now(&mut self) -> VirtualTime {
        VirtualTime(0)
    }
}

/// Registers and bytes, before or after.
#[derive(Clone, Debug, Default)]
struct Moment {
    /// By register number of the file's format.
    registers: BTreeMap<usize, u32>,
    ram: Vec<(u32, u8)>,
}

#[derive(Clone, Debug, Default)]
struct Test {
    name: String,
    bytes: Vec<u8>,
    before: Moment,
    after: Moment,
    exception: Option<(u8, u32)>,
    /// Registers are those of a 386.
    wide: bool,
}

/// Reads little-endian integers off a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }
    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().unwrap())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }
    fn chunk(&mut self) -> Option<(&'a [u8], Reader<'a>)> {
        if self.0.is_empty() {
            return None;
        }
        let name = self.take(4);
        let len = self.u32() as usize;
        Some((name, Reader(self.take(len))))
    }
}

fn parse_moment(mut reader: Reader<'_>) -> (Moment, bool) {
    let mut moment = Moment::default();
    let mut wide = false;
    while let Some((name, mut body)) = reader.chunk() {
        match name {
            b"REGS" => {
                let present = body.u16();
                for n in (0..16).filter(|n| present >> n & 1 != 0) {
                    moment.registers.insert(n, u32::from(body.u16()));
                }
            }
            b"RG32" => {
                wide = true;
                let present = body.u32();
                for n in (0..32).filter(|n| present >> n & 1 != 0) {
                    moment.registers.insert(n, body.u32());
                }
            }
            b"RAM " => {
                for _ in 0..body.u32() {
                    let address = body.u32();
                    moment.ram.push((address, body.u8()));
                }
            }
            _ => {}
        }
    }
    (moment, wide)
}

fn parse(file: &[u8]) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut reader = Reader(file);
    while let Some((name, mut body)) = reader.chunk() {
        if name != b"TEST" {
            continue;
        }
        body.u32();
        let mut test = Test::default();
        while let Some((name, mut body)) = body.chunk() {
            match name {
                b"NAME" => {
                    let len = body.u32() as usize;
                    test.name = String::from_utf8_lossy(body.take(len)).into_owned();
                }
                b"BYTS" => {
                    let len = body.u32() as usize;
                    test.bytes = body.take(len).to_vec();
                }
                b"INIT" => (test.before, test.wide) = parse_moment(body),
                b"FINA" => test.after = parse_moment(body).0,
                b"EXCP" => test.exception = Some((body.u8(), body.u32())),
                _ => {}
            }
        }
        tests.push(test);
    }
    tests
}

/// How registers are numbered in one of the two layouts.
struct Layout {
    /// In the order of their encoding.
    general: [usize; 8],
    /// ES, CS, SS, DS.
    segments: [usize; 4],
    ip: usize,
    flags: usize,
}

const NARROW: Layout =
    Layout { general: [0, 2, 3, 1, 8, 9, 10, 11], segments: [7, 4, 5, 6], ip: 12, flags: 13 };
const WIDE: Layout =
    Layout { general: [2, 4, 5, 3, 9, 8, 6, 7], segments: [12, 10, 15, 11], ip: 16, flags: 17 };

impl Test {
    fn layout(&self) -> &'static Layout {
        if self.wide { &WIDE } else { &NARROW }
    }

    fn before(&self, register: usize) -> u32 {
        self.before.registers.get(&register).copied().unwrap_or(0)
    }

    fn after(&self, register: usize) -> u32 {
        self.after.registers.get(&register).copied().unwrap_or(self.before(register))
    }

    fn instruction(&self) -> Instruction {
        Decoder::new(16, &self.bytes, DecoderOptions::NONE).decode()
    }

    /// Offset of the memory operand.
    fn operand_offset(&self) -> u64 {
        let value = |register: Register, _, _| {
            if register.is_segment_register() {
                return Some(0);
            }
            Some(u64::from(self.before(self.layout().general[register.number()])))
        };
        let instruction = self.instruction();
        let operand = (0..instruction.op_count()).find(|n| instruction.op_kind(*n) == OpKind::Memory);
        operand.and_then(|n| instruction.virtual_address(n, 0, value)).unwrap_or(0) & 0xffff
    }

    /// The flags that the Intel manual (SDM vol. 2) leaves undefined.
    fn undefined_flags(&self) -> u32 {
        use Mnemonic::*;
        use eflags::{AF, CF, OF, PF, SF, ZF};
        let instruction = self.instruction();
        let count = || {
            let last = instruction.op_count() - 1;
            let count = match instruction.op_kind(last) {
                OpKind::Immediate8 => u32::from(instruction.immediate8()),
                _ => self.before(self.layout().general[1]),
            };
            count & 31
        };
        let bits = || {
            let register = instruction.op0_register();
            let size = if register.is_gpr() { register.size() } else { instruction.memory_size().size() };
            8 * size as u32
        };
        match instruction.mnemonic() {
            And | Or | Xor | Test => AF,
            Daa | Das => OF,
            Aaa | Aas => OF | SF | ZF | PF,
            // AAM by zero: a 286 has changed the flags before it raises #DE.
            Aam if self.exception.is_some() => eflags::ARITHMETIC,
            Aam | Aad => OF | AF | CF,
            Mul | Imul => SF | ZF | AF | PF,
            Div | Idiv => eflags::ARITHMETIC,
            Rol | Ror | Rcl | Rcr if count() != 1 => OF,
            Shl | Sal | Shr | Sar => match count() {
                0 => 0,
                1 => AF,
                n if n >= bits() => AF | OF | CF,
                _ => AF | OF,
            },
            _ => 0,
        }
    }
}

impl Test {
    /// Arithmetic flags that the instruction writes without reading them.
    fn dead_flags(&self) -> u32 {
        let start = self.before(self.layout().ip);
        let mut fetch =
            |eip: u32| self.bytes.get(eip.wrapping_sub(start) as usize..).unwrap_or_default().to_vec();
        liveness::dead(&mut liveness::Code { bits: 16, fetch: &mut fetch }, start)
    }
}

/// Why a test cannot hold for a Pentium II.
fn exclusion(test: &Test) -> Option<&'static str> {
    let instruction = test.instruction();
    let prefixes = |byte: &&u8| matches!(**byte, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0xf2 | 0xf3);
    if test.bytes.iter().take_while(prefixes).any(|byte| *byte == 0xf0) {
        // Even where LOCK is allowed the 286 test shows nothing that the same test without it does not.
        return Some("LOCK: a 286 takes it before everything, a 386 and later raise #UD");
    }
    let stack_operand = (0..instruction.op_count()).any(|n| {
        matches!(instruction.op_kind(n), OpKind::Memory | OpKind::MemorySegSI)
            && instruction.memory_segment() == Register::SS
    });
    if matches!(test.exception, Some((13, _))) && (stack_operand || instruction.is_stack_instruction()) {
        return Some("stack segment overrun: #GP (13) on a 286, #SS (12) on a 386 and later");
    }
    if matches!(test.exception, Some((13, _))) && instruction.len() > LONGEST_ON_286 {
        return Some("longer than 10 bytes: #GP on a 286, later processors allow 15");
    }
    if matches!(test.exception, Some((13, _))) && instruction.is_string_instruction() {
        return Some("a 286 moves SI and DI before a string element faults, later processors do not");
    }
    let new_segment = |n| matches!(instruction.op_register(n), Register::FS | Register::GS);
    if (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Register && new_segment(n)) {
        return Some("FS and GS do not exist on a 286");
    }
    let far_pointer = instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
        || matches!(instruction.mnemonic(), Mnemonic::Les | Mnemonic::Lds);
    if far_pointer && test.exception.is_none() && test.operand_offset() == 0xfffe {
        return Some("a far pointer at FFFE wraps around on a 286, later processors raise #GP");
    }
    let quotient = test.after(0) & 0xff;
    if instruction.mnemonic() == Mnemonic::Idiv && instruction.op0_register() == Register::DH {
        let exact = i32::from(test.before(0) as i16) / i32::from((test.before(3) >> 8) as i8).max(1);
        if test.exception.is_none() && quotient == 0x80 && exact < i32::from(i8::MIN) {
            return Some("IDIV: a 286 misses the overflow of a quotient below -128");
        }
    }
    None
}

/// The longest instruction that a 286 takes.
const LONGEST_ON_286: usize = 10;

fn real_mode_segment(selector: u32) -> Segment {
    Segment::new(selector as u16, rights::REAL_MODE, selector << 4, 0xffff)
}

/// Runs a test; the differences, in words.
fn run(test: &Test, cpu: &mut Vcpu<TestBus>, engine: &mut Engine<TestBus>) -> Vec<String> {
    let layout = test.layout();
    for (address, value) in &test.before.ram {
        cpu.bus.poke(*address, *value);
    }
    cpu.reset();
    for (n, register) in layout.general.iter().enumerate() {
        cpu.state.gpr[n] = test.before(*register);
    }
    for (n, register) in layout.segments.iter().enumerate() {
        cpu.state.segments[n] = real_mode_segment(test.before(*register));
    }
    if test.wide {
        cpu.state.segments[4] = real_mode_segment(test.before(13));
        cpu.state.segments[5] = real_mode_segment(test.before(14));
    }
    cpu.state.idtr = vmm::cpu::TableRegister { base: 0, limit: 0x3ff };
    cpu.state.eip = test.before(layout.ip);
    cpu.state.eflags = test.before(layout.flags) & 0xfff | eflags::FIXED;
    cpu.state_replaced();

    let exit = engine.run(cpu, BUDGET);

    let mut differences = Vec::new();
    if exit != Exit::Halted {
        differences.push(format!("stopped with {exit:?}"));
    }
    let mut check = |what: String, got: u32, wanted: u32, mask: u32| {
        if (got ^ wanted) & mask != 0 {
            differences.push(format!("{what}: {got:x}, not {wanted:x} (of {mask:x})"));
        }
    };
    let names = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    for (n, register) in layout.general.iter().enumerate() {
        check(names[n].into(), cpu.state.gpr[n], test.after(*register), u32::MAX);
    }
    for (n, register) in layout.segments.iter().enumerate() {
        check(
            ["es", "cs", "ss", "ds"][n].into(),
            u32::from(cpu.state.segments[n].selector),
            test.after(*register),
            0xffff,
        );
    }
    // IP has 16 bits in these files; a HLT at FFFF leaves 10000 in EIP.
    check("ip".into(), cpu.state.eip, test.after(layout.ip), 0xffff);
    let interprets = matches!(engine, Engine::Interp(_));
    // Flags that the instruction would have written: nobody keeps them for its fault but the interpreter.
    let dead = if interprets || test.exception.is_none() { 0 } else { test.dead_flags() };
    let mask = 0xfff & !test.undefined_flags() & !dead;
    check("flags".into(), cpu.flags(), test.after(layout.flags), mask);
    // The copy of FLAGS that an exception pushed. (The file's own address of it is off by one when
    // SP is odd.)
    let pushed =
        (test.before(layout.general[4]).wrapping_sub(2) & 0xffff) + (test.before(layout.segments[2]) << 4);
    for (address, value) in &test.after.ram {
        let mask = match test.exception {
            Some(_) if *address == pushed => mask as u8,
            Some(_) if *address == pushed + 1 => (mask >> 8) as u8,
            _ => u8::MAX,
        };
        let got = cpu.bus.ram[*address as usize % RAM].get();
        check(format!("[{address:x}]"), u32::from(got), u32::from(*value), u32::from(mask));
    }
    differences
}

fn shared() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let candidates = [
        std::env::var_os("VMSIM_SHARED").map(PathBuf::from),
        Some(workspace.join("../shared")),
        Some(workspace.join("../../shared")),
    ];
    candidates.into_iter().flatten().find(|path| path.join("vectors").is_dir())
}

/// Runs all files of a folder on an engine.
fn run_folder(folder: &str, mut engine: Engine<TestBus>) {
    let Some((passed, failed)) = run_files(folder, &mut engine) else { return };
    eprintln!("{} instructions interpreted", engine.interpreted());
    assert!(passed > 0);
    assert_eq!(failed, 0);
}

fn interpreter() -> Engine<TestBus> {
    Engine::new(EngineKind::Interp).expect("it needs nothing")
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn shadow() -> Engine<TestBus> {
    let mut shadow = vmm::shadow::Shadow::new().expect("there is memory");
    // Nobody asks for attention here.
    shadow.set_counting();
    Engine::Shadow(Box::new(shadow))
}

/// Passed and failed; `None` when the folder is not there.
fn run_files(folder: &str, engine: &mut Engine<TestBus>) -> Option<(usize, usize)> {
    let Some(root) = shared().map(|path| path.join("vectors").join(folder)).filter(|path| path.is_dir())
    else {
        eprintln!("SKIPPED: no vectors/{folder}; set VMSIM_SHARED");
        return None;
    };
    let only = std::env::var("VMSIM_VECTORS").unwrap_or_default();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".MOO.gz"));
    files.sort();
    let mut cpu = Vcpu::new(TestBus::new());
    let (mut passed, mut failed) = (0, 0);
    let mut excluded: BTreeMap<&str, usize> = BTreeMap::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().replace(".MOO.gz", "");
        if !name.starts_with(&only) {
            continue;
        }
        let mut file = Vec::new();
        GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_end(&mut file).unwrap();
        let mut failed_here = 0;
        let tests = parse(&file);
        for test in &tests {
            if let Some(reason) = exclusion(test) {
                *excluded.entry(reason).or_default() += 1;
                continue;
            }
            let differences = run(test, &mut cpu, engine);
            if differences.is_empty() {
                passed += 1;
                continue;
            }
            failed_here += 1;
            if failed_here <= SHOWN {
                let bytes: Vec<String> = test.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("{name}: {} [{}] exception {:x?}", test.name, bytes.join(" "), test.exception);
                eprintln!("    {}", differences.join("; "));
            }
        }
        if failed_here > 0 {
            eprintln!("{name}: {failed_here} of {} failed", tests.len());
        }
        failed += failed_here;
    }
    eprintln!("{folder}: {passed} passed, {failed} failed");
    for (reason, count) in excluded {
        eprintln!("    {count} excluded: {reason}");
    }
    Some((passed, failed))
}

#[test]
fn real_mode_instructions_behave_as_on_a_286() {
    run_folder("286-real", interpreter());
}

#[test]
fn instructions_behave_as_on_a_386ex() {
    run_folder("386ex-sample", interpreter());
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn real_mode_instructions_behave_as_on_a_286_on_the_shadow_engine() {
    run_folder("286-real", shadow());
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn instructions_behave_as_on_a_386ex_on_the_shadow_engine() {
    run_folder("386ex-sample", shadow());
}
