//! Sequences of instructions: a seed gives the registers, the memory and the code.
//!
//! The generator follows what it knows of registers through the sequence, so that most memory operands hit
//! memory, and which flags are undefined, so that nothing reads them.

use super::isa::{self, Class};
use super::liveness::arithmetic;
use super::machine::{Image, LOCAL_SEGMENTS, Machine, Program, at, exit_jump, selector};
use super::operands::Place;
use super::prepare::After;
use super::random::Random;
use super::undefined;
use super::values::{self, Pool};
use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind as K, OpKind,
    Register,
};
use std::ops::Range;
use vmm::cpu::registers::eflags;
use vmm::cpu::registers::gpr::{ECX, ESP};

/// One instruction of a sequence.
pub struct Piece {
    /// What it is.
    pub code: Code,
    /// Its bytes, in [`Sequence::bytes`].
    pub bytes: Range<usize>,
    /// Arithmetic flags that are undefined before it.
    pub undefined: u32,
    /// Bits of the x87 status word that are open before it, see [`undefined::status`].
    pub status: (u16, u16),
    /// Something before it may jump over it.
    pub conditional: bool,
}

/// What a seed gives.
pub struct Sequence {
    /// The seed.
    pub seed: u64,
    /// Registers before; EIP is that of the first instruction.
    pub before: Machine,
    /// The instructions.
    pub pieces: Vec<Piece>,
    /// All their bytes.
    pub bytes: Vec<u8>,
    /// Arithmetic flags that are undefined at the end.
    pub undefined: u32,
    /// Bits of the x87 status word that are open at the end.
    pub status: (u16, u16),
    /// Whether FS may be loaded.
    pub loads_fs: bool,
    /// What the last instruction leaves open.
    pub loose: Loose,
}

/// What the last instruction of a sequence leaves open besides flags.
#[derive(Clone, Default)]
pub struct Loose {
    /// Bytes of memory, by linear address.
    pub memory: Vec<Range<u32>>,
    /// Whether TOP and tags of x87 have been reset, as by an MMX instruction.
    pub x87: bool,
    /// The result is approximate.
    pub approximate: Option<Approximate>,
}

/// Results that may differ in their last bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Approximate {
    /// A transcendental function: ST0 and ST1 to some units in the last place.
    Transcendental,
    /// RCPPS and its like: relative error of 1.5 * 2^-12.
    Reciprocal,
}

impl Approximate {
    /// For the account.
    pub fn reason(self) -> &'static str {
        match self {
            Approximate::Transcendental => "last bits of transcendental functions",
            Approximate::Reciprocal => "last bits of RCPPS and RSQRTPS",
        }
    }
}

impl Sequence {
    /// The first `count` instructions as a program. What comes after them is HLT, which is #GP to users, so that
    /// a jump over the end of a shortened sequence ends it too.
    pub fn program(&self, count: usize) -> Program {
        const HLT: u8 = 0xf4;
        let cut = self.pieces.get(count).map_or(self.bytes.len(), |piece| piece.bytes.start);
        let mut bytes = self.bytes[..cut].to_vec();
        if count < self.pieces.len() {
            bytes.resize(self.bytes.len() + 1, HLT);
        } else {
            bytes.extend(exit_jump());
        }
        let start = self.before.eip;
        bytes.truncate((at::CODE + at::CODE_SIZE - start) as usize);
        Program { start, bytes, end: start + cut as u32, loads_fs: self.loads_fs }
    }
}

/// A forward branch whose target is not yet known.
struct Branch {
    /// End of the instruction in the bytes; its displacement is what is before that.
    end: usize,
    /// Bytes of the displacement.
    size: usize,
    /// Instructions to jump over.
    over: u32,
    /// State at the branch, to be merged with that at the target.
    undefined: u32,
    status: (u16, u16),
    known: Known,
}

/// What is known of registers.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) gpr: [Option<u32>; 8],
    pub(super) segments: [Option<u16>; 6],
    /// ESP is near where it started.
    pub(super) near_stack: bool,
}

/// Makes sequences.
pub struct Generator {
    codes: Vec<Code>,
    pool: Pool,
    encoder: Encoder,
    info: InstructionInfoFactory,
}

/// A sequence in the making.
pub(super) struct Builder<'a> {
    pub(super) random: Random,
    pub(super) known: Known,
    generator: &'a mut Generator,
    pub(super) sequence: Sequence,
    branches: Vec<Branch>,
    undefined: u32,
    status: (u16, u16),
    last: bool,
    /// NT may be set.
    pub(super) nested: bool,
}

/// 32-bit registers by encoding.
pub(super) const GPR32: [Register; 8] = [
    Register::EAX,
    Register::ECX,
    Register::EDX,
    Register::EBX,
    Register::ESP,
    Register::EBP,
    Register::ESI,
    Register::EDI,
];
pub(super) const SEGMENTS: [Register; 6] =
    [Register::ES, Register::CS, Register::SS, Register::DS, Register::FS, Register::GS];

impl Generator {
    /// For these encodings.
    pub fn new(codes: impl Iterator<Item = (Code, Class)>) -> Self {
        let codes = codes.filter(|(_, class)| !matches!(class, Class::LeftOut(_))).map(|(code, _)| code);
        Generator {
            codes: codes.collect(),
            pool: Pool::new(),
            encoder: Encoder::new(32),
            info: InstructionInfoFactory::new(),
        }
    }

    /// The encodings that are generated.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// The sequence of a seed; its memory goes to `image`.
    pub fn sequence(&mut self, seed: u64, image: &mut Image) -> Sequence {
        let mut random = Random::new(seed);
        self.pool.fill(&mut random, image);
        let count = 1 + random.below(8);
        // Mostly anywhere in the first page, sometimes around the end of either page.
        let offset = match random.below(16) {
            0 => 0x1000 - random.below(40),
            1 => 0x2000 - random.below(60).max(8),
            _ => random.below(0xc00),
        };
        let before = values::machine(&mut random, at::CODE + offset);
        let known =
            Known { gpr: before.gpr.map(Some), segments: before.segments.map(Some), near_stack: true };
        let mut builder = Builder {
            random,
            known,
            generator: self,
            sequence: Sequence {
                seed,
                before,
                pieces: Vec::with_capacity(16),
                bytes: Vec::with_capacity(128),
                undefined: 0,
                status: (0, 0),
                loads_fs: false,
                loose: Loose::default(),
            },
            branches: Vec::new(),
            undefined: 0,
            status: (0, 0),
            last: false,
            nested: before.eflags & eflags::NT != 0,
        };
        let mut done = 0;
        while done < count && !builder.last {
            let index = builder.random.below(builder.generator.codes.len() as u32);
            let code = builder.generator.codes[index as usize];
            // These end a sequence.
            if isa::classify(code) == Some(Class::Faults) && builder.random.percent(75) {
                continue;
            }
            if builder.instruction(code) {
                done += 1;
                builder.resolve(false);
            }
        }
        builder.resolve(true);
        builder.sequence.undefined = builder.undefined;
        builder.sequence.status = builder.status;
        builder.sequence
    }
}

impl Builder<'_> {
    /// Address of the next instruction.
    pub(super) fn ip(&self) -> u32 {
        self.sequence.before.eip + self.sequence.bytes.len() as u32
    }

    /// Base of a segment whose content is known.
    pub(super) fn base(&self, seg: usize) -> Option<u32> {
        const TI: u16 = 4;
        let selector = self.known.segments[seg]?;
        let local = LOCAL_SEGMENTS.get(usize::from(selector >> 3)).filter(|_| selector & TI != 0);
        Some(local.map_or(0, |segment| segment.base))
    }

    /// Appends an instruction. False when it cannot be encoded or must not be executed here.
    pub(super) fn push(&mut self, instruction: &Instruction, prefix: Option<u8>) -> bool {
        let cl = self.known.gpr[ECX];
        if undefined::result(instruction, cl) {
            return false;
        }
        use Mnemonic as M;
        let tells = matches!(instruction.mnemonic(), M::Fnstsw | M::Fnstenv | M::Fnsave | M::Fxsave);
        if tells && self.status != (0, 0) {
            return false;
        }
        if instruction.rflags_read() != 0 && self.undefined & arithmetic(instruction.rflags_read()) != 0 {
            self.define_flags();
        }
        let ip = self.ip() + u32::from(prefix.is_some());
        let encoded = self.generator.encoder.encode(instruction, u64::from(ip));
        let mut buffer = self.generator.encoder.take_buffer();
        if encoded.is_err() {
            return false;
        }
        let start = self.sequence.bytes.len();
        self.sequence.bytes.extend(prefix);
        self.sequence.bytes.extend(&buffer);
        buffer.clear();
        self.generator.encoder.set_buffer(buffer);
        self.sequence.pieces.push(Piece {
            code: instruction.code(),
            bytes: start..self.sequence.bytes.len(),
            undefined: self.undefined,
            status: self.status,
            conditional: !self.branches.is_empty(),
        });
        self.follow(instruction, cl);
        true
    }

    /// CMP: defines all arithmetic flags.
    fn define_flags(&mut self) {
        let (a, b) = (self.random.below(8), self.random.below(8));
        let registers = (GPR32[a as usize], GPR32[b as usize]);
        let compare = Instruction::with2(Code::Cmp_r32_rm32, registers.0, registers.1);
        self.push(&compare.expect("two registers"), None);
    }

    /// Follows what an instruction does to what is known.
    fn follow(&mut self, instruction: &Instruction, cl: Option<u32>) {
        let status = undefined::status(instruction.code());
        self.status = (self.status.0 | status.0, self.status.1 | status.1);
        if instruction.mnemonic() == Mnemonic::Fnclex {
            // No longer pending, but what it left open stays so.
            self.status.0 |= self.status.1;
        }
        let undefined = undefined::flags(instruction, cl);
        let writes = arithmetic(instruction.rflags_modified());
        // A shift by zero, or one whose count is not known, may leave the flags alone.
        let may_keep = match instruction.mnemonic() {
            Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Shld
            | Mnemonic::Shrd => undefined::count(instruction, cl).is_none_or(|count| count == 0),
            _ => instruction.has_rep_prefix() || instruction.has_repne_prefix(),
        };
        if may_keep {
            self.undefined |= undefined;
        } else {
            self.undefined = self.undefined & !writes | undefined;
        }
        let stack = instruction.is_stack_instruction();
        for used in self.generator.info.info(instruction).used_registers() {
            let written = matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            );
            if !written {
                continue;
            }
            let register = used.register();
            if register.is_gpr() {
                let number = register.full_register32().number();
                self.known.gpr[number] = None;
                if number == ESP && !stack {
                    self.known.near_stack = false;
                }
            } else if register.is_segment_register() {
                self.known.segments[register.number()] = None;
                self.sequence.loads_fs |= register == Register::FS;
            }
        }
        if matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Iret | Mnemonic::Iretd) {
            self.known.near_stack = instruction.mnemonic() != Mnemonic::Leave;
        }
        if instruction.code() == Code::Mov_r32_imm32 {
            self.known.gpr[instruction.op0_register().number()] = Some(instruction.immediate32());
        }
    }

    /// Makes the targets of branches that have jumped far enough; all of them at the end.
    fn resolve(&mut self, all: bool) {
        let target = self.sequence.bytes.len();
        let mut kept = Vec::new();
        for mut branch in std::mem::take(&mut self.branches) {
            branch.over = branch.over.saturating_sub(1);
            if branch.over > 0 && !all {
                kept.push(branch);
                continue;
            }
            let displacement = ((target - branch.end) as u32).to_le_bytes();
            self.sequence.bytes[branch.end - branch.size..branch.end]
                .copy_from_slice(&displacement[..branch.size]);
            self.undefined |= branch.undefined;
            self.status.0 |= branch.status.0;
            self.status.1 |= branch.status.1;
            for (now, then) in self.known.gpr.iter_mut().zip(branch.known.gpr) {
                *now = now.filter(|_| *now == then);
            }
            for (now, then) in self.known.segments.iter_mut().zip(branch.known.segments) {
                *now = now.filter(|_| *now == then);
            }
            self.known.near_stack &= branch.known.near_stack;
        }
        self.branches = kept;
    }

    /// Appends MOV register, constant, unless the register has that value.
    pub(super) fn ensure(&mut self, number: usize, value: u32) {
        if self.known.gpr[number] != Some(value) {
            let load = Instruction::with2(Code::Mov_r32_imm32, GPR32[number], value);
            self.push(&load.expect("a register and a constant"), None);
        }
    }

    /// Appends a store of a constant, `delta` bytes into the memory operand of another instruction.
    pub(super) fn store(&mut self, like: &Instruction, delta: u32, code: Code, value: u32) {
        let mut store = Instruction::new();
        store.set_code(code);
        store.set_op0_kind(OpKind::Memory);
        store.set_memory_base(like.memory_base());
        store.set_memory_index(like.memory_index());
        store.set_memory_index_scale(like.memory_index_scale());
        store.set_segment_prefix(like.segment_prefix());
        let wide = match (like.memory_base(), like.memory_index()) {
            (Register::None, Register::None) => like.memory_displ_size() != 2,
            (Register::None, index) => index.size() == 4,
            (base, _) => base.size() == 4,
        };
        let displacement = (like.memory_displacement64() as u32).wrapping_add(delta);
        if wide {
            store.set_memory_displ_size(4);
            store.set_memory_displacement64(u64::from(displacement));
        } else {
            store.set_memory_displ_size(2);
            store.set_memory_displacement64(u64::from(displacement as u16));
        }
        if code == Code::Mov_rm16_imm16 {
            store.set_op1_kind(OpKind::Immediate16);
            store.set_immediate16(value as u16);
        } else {
            store.set_op1_kind(OpKind::Immediate32);
            store.set_immediate32(value);
        }
        self.push(&store, None);
    }

    pub(super) fn push_constant(&mut self, value: u32) {
        let push = Instruction::with1(Code::Pushd_imm32, value).expect("a constant");
        self.push(&push, None);
    }

    /// Appends an instruction of an encoding, and before it what makes it likely to do something. False when
    /// it did not come to that.
    fn instruction(&mut self, code: Code) -> bool {
        let mut instruction = Instruction::new();
        instruction.set_code(code);
        let kinds = code.op_code().op_kinds();
        let mut place = None;
        for (n, kind) in kinds.iter().enumerate() {
            if !self.operand(&mut instruction, n as u32, *kind, &mut place) {
                return false;
            }
        }
        let mut prefix = self.prefix(&mut instruction, place.is_some());
        if instruction.is_string_instruction() || instruction.mnemonic() == Mnemonic::Xlatb {
            self.prepare_string(&mut instruction);
        }
        let loose = loose(&instruction, place);
        if loose.is_none() {
            return false;
        }
        let Some(after) = self.prepare(&mut instruction) else { return false };
        let mut patch = None;
        match after {
            After::Nothing | After::Last => {}
            After::Unprefixed => prefix = None,
            After::FarTarget => {
                const LENGTH: u32 = 7;
                prefix = None;
                instruction.set_far_branch_selector(selector::CODE);
                if instruction.op0_kind() == OpKind::FarBranch32 {
                    instruction.set_far_branch32(self.ip() + LENGTH);
                } else {
                    instruction.set_far_branch16(self.ip() as u16);
                    self.last = true;
                }
            }
            After::StoredTarget(far) => {
                self.store(&instruction, 0, Code::Mov_rm32_imm32, 0);
                patch = self.sequence.pieces.last().map(|piece| piece.bytes.end);
                if far {
                    self.store(&instruction, 4, Code::Mov_rm16_imm16, u32::from(selector::CODE));
                }
            }
        }
        if !self.push(&instruction, prefix) {
            return false;
        }
        if let Some(end) = patch {
            let target = self.ip().to_le_bytes();
            self.sequence.bytes[end - 4..end].copy_from_slice(&target);
        }
        let end = self.sequence.bytes.len();
        let displacement = match code.op_code().op_kinds().first() {
            Some(K::br16_1 | K::br32_1) => 1,
            Some(K::br16_2) => 2,
            Some(K::br32_4) => 4,
            _ => 0,
        };
        if displacement != 0 {
            let over = 2 + self.random.below(2);
            let (undefined, status, known) = (self.undefined, self.status, self.known.clone());
            self.branches.push(Branch { end, size: displacement, over, undefined, status, known });
        }
        let Some(loose) = loose else { return true };
        let open = !loose.memory.is_empty() || loose.approximate.is_some() || loose.x87;
        let gone = matches!(code, Code::Jmp_rel16 | Code::Jmp_rel8_16 | Code::Call_rel16);
        if open || gone || after == After::Last {
            self.last = true;
            self.sequence.loose = loose;
        }
        true
    }

    fn operand(&mut self, instruction: &mut Instruction, n: u32, kind: K, place: &mut Option<Place>) -> bool {
        let mut number = self.random.below(8);
        if number == ESP as u32 && self.random.percent(80) {
            number = self.random.below(4);
        }
        let gpr = |base: Register| Some(base + number);
        let memory = self.random.percent(60);
        let register = match kind {
            K::mem | K::mem_offs => {
                *place = Some(self.memory(instruction, n, kind == K::mem_offs));
                return true;
            }
            K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::mm_or_mem | K::xmm_or_mem if memory => {
                *place = Some(self.memory(instruction, n, false));
                return true;
            }
            K::seg_rBX_al => {
                instruction.set_op_kind(n, OpKind::Memory);
                instruction.set_memory_base(Register::EBX);
                instruction.set_memory_index(Register::AL);
                return true;
            }
            K::es_rDI | K::seg_rDI | K::seg_rSI => {
                let narrow = self.random.percent(10);
                instruction.set_op_kind(
                    n,
                    match (kind, narrow) {
                        (K::es_rDI, false) => OpKind::MemoryESEDI,
                        (K::es_rDI, true) => OpKind::MemoryESDI,
                        (K::seg_rDI, false) => OpKind::MemorySegEDI,
                        (K::seg_rDI, true) => OpKind::MemorySegDI,
                        (_, false) => OpKind::MemorySegESI,
                        (_, true) => OpKind::MemorySegSI,
                    },
                );
                // Both operands have the same address size.
                if n == 1 && instruction.op0_kind() == OpKind::MemoryESEDI {
                    instruction.set_op1_kind(OpKind::MemorySegESI);
                } else if n == 1 && instruction.op0_kind() == OpKind::MemoryESDI {
                    instruction.set_op1_kind(OpKind::MemorySegSI);
                } else if n == 1 && instruction.op0_kind() == OpKind::MemorySegESI {
                    instruction.set_op1_kind(OpKind::MemoryESEDI);
                } else if n == 1 && instruction.op0_kind() == OpKind::MemorySegSI {
                    instruction.set_op1_kind(OpKind::MemoryESDI);
                }
                return true;
            }
            K::imm8 | K::imm8_const_1 => {
                let value = if kind == K::imm8 { self.random.value() as u8 } else { 1 };
                if n > 0
                    && instruction.op_kind(n - 1) != OpKind::Register
                    && instruction.op_kind(n - 1) == OpKind::Immediate16
                {
                    instruction.set_op_kind(n, OpKind::Immediate8_2nd);
                    instruction.set_immediate8_2nd(value);
                } else {
                    instruction.set_op_kind(n, OpKind::Immediate8);
                    instruction.set_immediate8(value);
                }
                return true;
            }
            K::imm8sex16 => {
                instruction.set_op_kind(n, OpKind::Immediate8to16);
                instruction.set_immediate8to16(i16::from(self.random.value() as i8));
                return true;
            }
            K::imm8sex32 => {
                instruction.set_op_kind(n, OpKind::Immediate8to32);
                instruction.set_immediate8to32(i32::from(self.random.value() as i8));
                return true;
            }
            K::imm16 => {
                instruction.set_op_kind(n, OpKind::Immediate16);
                instruction.set_immediate16(self.random.value() as u16);
                return true;
            }
            K::imm32 => {
                instruction.set_op_kind(n, OpKind::Immediate32);
                instruction.set_immediate32(self.random.value());
                return true;
            }
            // Targets: patched, or set by `prepare`.
            K::br16_1 | K::br16_2 => {
                instruction.set_op_kind(n, OpKind::NearBranch16);
                instruction.set_near_branch16(self.ip() as u16);
                return true;
            }
            K::br32_1 | K::br32_4 => {
                instruction.set_op_kind(n, OpKind::NearBranch32);
                instruction.set_near_branch32(self.ip());
                return true;
            }
            K::farbr2_2 => {
                instruction.set_op_kind(n, OpKind::FarBranch16);
                return true;
            }
            K::farbr4_2 => {
                instruction.set_op_kind(n, OpKind::FarBranch32);
                return true;
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => gpr(Register::AL),
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => gpr(Register::AX),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode => gpr(Register::EAX),
            K::mm_or_mem | K::mm_reg | K::mm_rm => gpr(Register::MM0),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm => gpr(Register::XMM0),
            K::sti_opcode => gpr(Register::ST0),
            K::st0 => Some(Register::ST0),
            K::seg_reg => Some(self.random.pick(&SEGMENTS)),
            K::cr_reg => {
                Some(self.random.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4]))
            }
            K::dr_reg => Some(Register::DR0 + number),
            K::al => Some(Register::AL),
            K::ax => Some(Register::AX),
            K::eax => Some(Register::EAX),
            K::cl => Some(Register::CL),
            K::dx => Some(Register::DX),
            K::es => Some(Register::ES),
            K::cs => Some(Register::CS),
            K::ss => Some(Register::SS),
            K::ds => Some(Register::DS),
            K::fs => Some(Register::FS),
            K::gs => Some(Register::GS),
            _ => None,
        };
        let Some(register) = register else { return false };
        instruction.set_op_kind(n, OpKind::Register);
        instruction.set_op_register(n, register);
        true
    }

    /// Prefixes that change something, or should not.
    fn prefix(&mut self, instruction: &mut Instruction, memory: bool) -> Option<u8> {
        const LOCK: u8 = 0xf0;
        const SEGMENTS: [u8; 5] = [0x26, 0x2e, 0x36, 0x3e, 0x65];
        let info = instruction.code().op_code();
        if info.can_use_lock_prefix() && memory && self.random.percent(15) {
            instruction.set_has_lock_prefix(true);
        }
        match self.random.below(100) {
            0 => Some(LOCK).filter(|_| !instruction.has_lock_prefix() && !takes_lock(instruction.code())),
            1 if !memory && !instruction.is_string_instruction() && !instruction.is_jcc_short_or_near() => {
                Some(self.random.pick(&SEGMENTS))
            }
            _ => None,
        }
    }
}

/// Accepted with LOCK by processors of AMD: VERW by a slip, MOV CR0 as another name of CR8.
fn takes_lock(code: Code) -> bool {
    matches!(code, Code::Verw_rm16 | Code::Verw_r32m16 | Code::Mov_r32_cr | Code::Mov_cr_r32)
}

/// What an instruction leaves open; `None` if that cannot be said before it has run.
fn loose(instruction: &Instruction, place: Option<Place>) -> Option<Loose> {
    use Mnemonic as M;
    // Pointers to the last x87 instruction: processors differ in when they keep them.
    let pointers: &[(u32, u32)] = match instruction.code() {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => &[(6, 14)],
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => &[(12, 28)],
        // Also MXCSR_MASK.
        Code::Fxsave_m512byte => &[(6, 24), (28, 32)],
        _ => &[],
    };
    let mut loose = Loose::default();
    if !pointers.is_empty() {
        let at = place.and_then(|place| place.linear)?;
        loose.memory =
            pointers.iter().map(|(start, end)| at.wrapping_add(*start)..at.wrapping_add(*end)).collect();
    }
    // AMD resets them only for a register operand, as the manuals of both say of CVTPI2PD.
    loose.x87 = instruction.mnemonic() == M::Cvtpi2ps && place.is_some();
    loose.approximate = match instruction.mnemonic() {
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fptan | M::Fpatan | M::Fsin | M::Fcos | M::Fsincos => {
            Some(Approximate::Transcendental)
        }
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss => Some(Approximate::Reciprocal),
        _ => None,
    };
    Some(loose)
}
