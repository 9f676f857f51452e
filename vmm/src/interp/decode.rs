//! From bytes to operations.

use super::liveness::FlagUse;
use super::op::{Ends, Handler, Op};
use super::ops;
use crate::cpu::bus::Bus;
use crate::cpu::registers::Seg;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// No instruction is longer.
pub const MAX_LENGTH: usize = 15;

/// What a P6 decodes: no later opcode hidden behind a mandatory prefix, hint NOPs as NOPs.
const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_PAUSE
    | DecoderOptions::NO_WBNOINVD
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD;

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such operand.
    None,
    /// A register.
    Register,
    /// Memory, addressed by ModRM or an absolute offset.
    Memory,
    /// A constant.
    Immediate,
    /// A branch target.
    Branch,
    /// Memory addressed by a string instruction.
    String,
}

/// What `select` functions look at.
pub struct Decoded {
    /// The instruction as iced-x86 sees it.
    pub instruction: Instruction,
    /// Its mnemonic.
    pub mnemonic: Mnemonic,
    /// Operand size in bytes.
    pub size: u8,
    /// Number of explicit operands.
    pub operands: u8,
    /// Kinds of the first three operands.
    pub kinds: [Kind; 3],
    /// Whether addresses are 32 bits.
    pub wide_address: bool,
    /// The first byte that is no prefix.
    pub opcode: u8,
    /// The byte after that: ModRM of an instruction of one opcode byte.
    pub second: u8,
}

impl Decoded {
    /// The condition of Jcc, SETcc or CMOVcc as it is encoded.
    fn condition(&self) -> Option<u8> {
        (self.instruction.condition_code() as u8).checked_sub(1)
    }

    /// The condition, if this is SETcc: one operand, a byte.
    pub fn set_condition(&self) -> Option<u8> {
        let is_set = self.operands == 1 && matches!(self.kinds[0], Kind::Register | Kind::Memory);
        if is_set { self.condition() } else { None }
    }

    /// The condition, if this is CMOVcc: two operands.
    pub fn move_condition(&self) -> Option<u8> {
        let is_move = self.operands == 2 && self.register(0).is_gpr();
        if is_move { self.condition() } else { None }
    }

    /// The condition, if this is Jcc.
    pub fn jump_condition(&self) -> Option<u8> {
        if self.instruction.is_jcc_short_or_near() { self.condition() } else { None }
    }

    /// The class of register of operand `n`.
    pub fn register(&self, n: u32) -> Register {
        if self.instruction.op_kind(n) == OpKind::Register {
            self.instruction.op_register(n)
        } else {
            Register::None
        }
    }
}

/// What came of decoding at one address.
pub enum Outcome<B: Bus> {
    /// An operation, and what else is to know about it to make it part of a block.
    Op(Op<B>, InBlock<B>),
    /// The instruction goes on behind the given bytes.
    Incomplete,
}

/// What matters when an instruction is followed by another one in the same block.
pub struct InBlock<B: Bus> {
    /// What it has to do with flags.
    pub flags: FlagUse<B>,
    /// Its handler when it is a conditional jump after which the block goes on.
    pub side_exit: Option<Handler<B>>,
}

/// Decodes the instruction that starts `bytes`. `wide` is CS.D.
pub fn decode<B: Bus>(bytes: &[u8], wide: bool) -> Outcome<B> {
    let mut decoder = Decoder::new(if wide { 32 } else { 16 }, bytes, OPTIONS);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        if decoder.last_error() == DecoderError::NoMoreBytes {
            return Outcome::Incomplete;
        }
        let handler: Handler<B> =
            if instruction.len() >= MAX_LENGTH { ops::too_long } else { ops::undefined };
        let mut op = Op::new(handler);
        op.len = instruction.len() as u8;
        op.ends = Ends::Full;
        return Outcome::Op(op, InBlock { flags: FlagUse::opaque(), side_exit: None });
    }
    let (opcode, second) = first_bytes(bytes);
    translate(instruction, opcode, second)
}

/// The first byte that is no prefix, and the next one.
fn first_bytes(bytes: &[u8]) -> (u8, u8) {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let mut rest = bytes.iter().copied().skip_while(is_prefix);
    (rest.next().unwrap_or(0), rest.next().unwrap_or(0))
}

fn translate<B: Bus>(instruction: Instruction, opcode: u8, second: u8) -> Outcome<B> {
    let mut op = Op::new(ops::undefined);
    op.len = instruction.len() as u8;
    let mut form = Decoded {
        mnemonic: instruction.mnemonic(),
        size: operand_size(&instruction),
        operands: instruction.op_count().min(3) as u8,
        kinds: [Kind::None; 3],
        wide_address: true,
        opcode,
        second,
        instruction,
    };
    for n in 0..instruction.op_count().min(3) {
        form.kinds[n as usize] = operand(&instruction, n, &mut form.wide_address, &mut op);
    }
    op.handler = ops::select(&form, &mut op);
    let flags = FlagUse::of(&form, &op, ops::select_quiet(&form));
    Outcome::Op(op, InBlock { flags, side_exit: ops::control::select_side_exit(&form) })
}

/// Operand size in bytes, where the instruction has operands of a size.
fn operand_size(instruction: &Instruction) -> u8 {
    for n in 0..instruction.op_count() {
        if instruction.op_kind(n) == OpKind::Register {
            let register = instruction.op_register(n);
            if register.is_gpr() {
                return register.size() as u8;
            }
        } else if n == 0 && is_memory(instruction.op_kind(n)) {
            let size = instruction.memory_size().size();
            if size != 0 {
                return size as u8;
            }
        }
    }
    match instruction.memory_size().size() {
        0 => match instruction.stack_pointer_increment().unsigned_abs() {
            2 => 2,
            _ => 4,
        },
        size => size as u8,
    }
}

fn is_memory(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
    )
}

/// The number that encodes a register.
fn encoding(register: Register) -> u8 {
    if register.is_gpr8() {
        // iced numbers AH to BH after BL.
        (register as u32 - Register::AL as u32) as u8
    } else {
        register.number() as u8
    }
}

fn segment(register: Register) -> Seg {
    match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

fn operand<B: Bus>(instruction: &Instruction, n: u32, wide_address: &mut bool, op: &mut Op<B>) -> Kind {
    match instruction.op_kind(n) {
        OpKind::Register => {
            let number = encoding(instruction.op_register(n));
            match n {
                0 => op.reg = number,
                1 => op.rm = number,
                _ => {}
            }
            Kind::Register
        }
        OpKind::Memory => {
            op.segment = segment(instruction.memory_segment());
            let base = instruction.memory_base();
            let index = instruction.memory_index();
            // An address without registers is as wide as its displacement.
            *wide_address = match (base, index) {
                (Register::None, Register::None) => instruction.memory_displ_size() != 2,
                (Register::None, index) => index.size() == 4,
                (base, _) => base.size() == 4,
            };
            let number = |register: Register| (register != Register::None).then(|| encoding(register));
            op.set_address(
                number(base),
                number(index),
                instruction.memory_index_scale().trailing_zeros() as u8,
                instruction.memory_displacement32(),
                if *wide_address { u32::MAX } else { 0xffff },
            );
            Kind::Memory
        }
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => {
            *wide_address = false;
            string_operand(instruction, n, op)
        }
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => {
            *wide_address = true;
            string_operand(instruction, n, op)
        }
        OpKind::NearBranch16 => {
            // Decoded at address zero, so that the block can run at any linear address.
            op.imm = instruction.near_branch16().wrapping_sub(instruction.len() as u16) as i16 as u32;
            op.address_mask = 0xffff;
            Kind::Branch
        }
        OpKind::NearBranch32 => {
            op.imm = instruction.near_branch32().wrapping_sub(instruction.len() as u32);
            Kind::Branch
        }
        OpKind::FarBranch16 => {
            op.imm = u32::from(instruction.far_branch16());
            op.imm2 = instruction.far_branch_selector();
            Kind::Branch
        }
        OpKind::FarBranch32 => {
            op.imm = instruction.far_branch32();
            op.imm2 = instruction.far_branch_selector();
            Kind::Branch
        }
        OpKind::Immediate8_2nd => {
            op.imm2 = u16::from(instruction.immediate8_2nd());
            Kind::Immediate
        }
        OpKind::Immediate8to16 => {
            op.imm = u32::from(instruction.immediate8to16() as u16);
            Kind::Immediate
        }
        OpKind::Immediate8to32 => {
            op.imm = instruction.immediate8to32() as u32;
            Kind::Immediate
        }
        OpKind::Immediate8 => {
            op.imm = u32::from(instruction.immediate8());
            Kind::Immediate
        }
        OpKind::Immediate16 => {
            op.imm = u32::from(instruction.immediate16());
            Kind::Immediate
        }
        OpKind::Immediate32 => {
            op.imm = instruction.immediate32();
            Kind::Immediate
        }
        _ => Kind::None,
    }
}

fn string_operand<B: Bus>(instruction: &Instruction, n: u32, op: &mut Op<B>) -> Kind {
    if !matches!(instruction.op_kind(n), OpKind::MemoryESDI | OpKind::MemoryESEDI) {
        op.segment = segment(instruction.memory_segment());
    }
    Kind::String
}

/// Whether a far transfer or table load has 32-bit offsets.
pub fn is_wide_far(code: Code) -> bool {
    matches!(
        code,
        Code::Jmp_ptr1632
            | Code::Call_ptr1632
            | Code::Jmp_m1632
            | Code::Call_m1632
            | Code::Retfd
            | Code::Retfd_imm16
            | Code::Iretd
            | Code::Sgdt_m1632
            | Code::Sidt_m1632
            | Code::Lgdt_m1632
            | Code::Lidt_m1632
    )
}
