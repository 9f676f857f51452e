//! Instructions that are taken over: the same opcode with host registers and a host address.

use super::memory::{Access, Operand};
use super::{Borrow, Emit, Keep, host, number, seg_of};
use crate::shadow::asm::{self, AE, Alu, BE, NE, R8, R9, R11, RAX, RDX, Reg, W};
use crate::shadow::classify::has_memory;
use crate::shadow::scanner::Scanned;
use crate::shadow::translate::memory::Stub;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// How the operand in memory of an instruction that is taken over is accessed.
fn access_of(instruction: &Instruction) -> Access {
    use Mnemonic::*;
    let only_read = matches!(instruction.mnemonic(), Cmp | Test | Bt | Mul | Imul | Div | Idiv);
    if instruction.op0_kind() == OpKind::Memory && !only_read { Access::Write } else { Access::Read }
}

/// The same instruction in an encoding that 64-bit mode has.
fn widened(code: Code) -> Code {
    match code {
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        other => other,
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

fn high_bytes(instruction: &Instruction) -> bool {
    (0..instruction.op_count())
        .any(|n| instruction.op_kind(n) == OpKind::Register && is_high_byte(instruction.op_register(n)))
}

/// 64-bit registers by number.
const WIDE: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Gives an instruction another operand in memory.
fn set_place(instruction: &mut Instruction, place: asm::Mem) {
    let (base, index, disp) = place.parts();
    let wide = |register: Reg| WIDE[usize::from(register.0) % WIDE.len()];
    instruction.set_memory_base(base.map_or(Register::None, wide));
    instruction.set_memory_index(index.map_or(Register::None, |(index, _)| wide(index)));
    instruction.set_memory_index_scale(index.map_or(1, |(_, scale)| u32::from(scale)));
    instruction.set_memory_displ_size(u32::from(disp != 0));
    instruction.set_memory_displacement64(i64::from(disp) as u64);
}

/// The host's name of a guest register.
fn renamed(register: Register) -> Register {
    match register {
        Register::ESP => Register::R12D,
        Register::SP => Register::R12W,
        other => other,
    }
}

impl Emit<'_> {
    /// Emits a guest instruction whose operands are encodable.
    pub(super) fn encode(&mut self, instruction: &Instruction) {
        let rip = self.asm.here();
        if self.encoder.encode(instruction, rip).is_err() {
            unreachable!("classified as encodable: {instruction}");
        }
        let code = self.encoder.take_buffer();
        self.asm.bytes(&code);
        self.encoder.set_buffer(code_buffer(code));
    }

    /// Gives registers the names that they have on the host, and drops prefixes that say nothing to the guest. True: AH, CH, DH or
    /// BH is among the registers.
    pub(super) fn rename(&self, instruction: &mut Instruction) -> bool {
        // With BSF and BSR they are TZCNT and LZCNT to newer processors.
        instruction.set_has_rep_prefix(false);
        instruction.set_has_repne_prefix(false);
        let mut high = false;
        for n in 0..instruction.op_count() {
            if instruction.op_kind(n) == OpKind::Register {
                let register = instruction.op_register(n);
                high |= is_high_byte(register);
                instruction.set_op_register(n, renamed(register));
            }
        }
        high
    }

    /// Emits a guest instruction whose operand in memory has been reached.
    pub(super) fn encode_at_operand(&mut self, instruction: &Instruction) {
        let mut instruction = *instruction;
        instruction.set_code(widened(instruction.code()));
        let high = self.rename(&mut instruction);
        instruction.set_segment_prefix(Register::None);
        let place = self.reached();
        if high {
            // AH to BH cannot be encoded beside R8 to R15: the address goes through a register that the instruction does not use.
            let base = asm::RDI;
            self.borrows.push((self.offset, Borrow::Destination));
            self.asm.mov(W::Q, R11, base);
            self.asm.lea(W::Q, base, place);
            set_place(&mut instruction, asm::at(base, 0));
            self.encode(&instruction);
            self.asm.mov(W::Q, base, R11);
        } else {
            set_place(&mut instruction, place);
            self.encode(&instruction);
        }
    }

    /// Emits a guest instruction with its operand in memory where the guest has it, in the segment of the window.
    pub(super) fn encode_through_gs(&mut self, instruction: &Instruction) {
        let mut instruction = *instruction;
        let operand = self.operand(&instruction);
        instruction.set_code(widened(instruction.code()));
        self.rename(&mut instruction);
        instruction.set_segment_prefix(Register::GS);
        instruction.set_memory_base(renamed(instruction.memory_base()));
        let nowhere = operand.base.is_none() && operand.index.is_none();
        // (The size is that of addresses where there are no registers to tell it.)
        instruction.set_memory_displ_size(if nowhere { 4 } else { u32::from(operand.disp != 0) });
        instruction.set_memory_displacement64(if nowhere {
            u64::from(operand.disp as u32)
        } else {
            i64::from(operand.disp) as u64
        });
        self.encode(&instruction);
    }

    /// Whether the instruction is better off, or only possible, with its operand through GS.
    fn through_gs(&self, instruction: &Instruction, operand: &Operand) -> bool {
        if high_bytes(instruction) {
            // Without any prefix for the upper registers; stores through GS are slow, but right.
            return self.mode.window()
                && !operand.short
                && self.mode.flat(operand.seg)
                && operand.base != Some(asm::R12);
        }
        self.goes_through_gs(operand) && access_of(instruction) == Access::Read
    }

    pub(super) fn plain(&mut self, eip: u32, item: &Scanned) {
        if has_memory(&item.instruction) {
            let operand = self.operand(&item.instruction);
            let size = item.instruction.memory_size().size() as u32;
            if self.through_gs(&item.instruction, &operand) {
                self.encode_through_gs(&item.instruction);
            } else {
                self.reach(eip, &operand, size, access_of(&item.instruction), Keep::of(item.live_in), false);
                self.encode_at_operand(&item.instruction);
            }
        } else {
            let mut instruction = item.instruction;
            instruction.set_code(widened(instruction.code()));
            self.rename(&mut instruction);
            self.encode(&instruction);
        }
        self.fix_stack_after(&item.instruction);
    }

    /// When an instruction may have written ESP: R12 again.
    pub(super) fn fix_stack_after(&mut self, instruction: &Instruction) {
        use Mnemonic::*;
        let is_esp =
            |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n) == Register::ESP;
        let only_read = matches!(instruction.mnemonic(), Cmp | Test | Bt);
        if !(0..instruction.op_count()).any(is_esp) || only_read {
            return;
        }
        match instruction.mnemonic() {
            Mov | Movzx | Movsx | Add | Sub | And | Or | Xor | Inc | Dec if is_esp(0) => self.fix_stack(),
            Mov | Add | Sub | And | Or | Xor | Movzx | Movsx => {}
            _ => self.fix_stack_if_needed(),
        }
    }

    pub(super) fn lea(&mut self, item: &Scanned) {
        let operand = self.operand(&item.instruction);
        let register = item.instruction.op0_register();
        let to = host(number(register));
        if register.is_gpr32() {
            if operand.short {
                self.offset(&operand, R8);
                self.asm.mov(W::D, to, R8);
            } else {
                self.offset(&operand, to);
            }
            if to == asm::R12 {
                self.fix_stack();
            }
        } else {
            self.offset(&operand, R8);
            self.asm.mov(W::H, to, R8);
        }
    }

    /// DIV and IDIV: to the interpreter when they would raise #DE, or might.
    pub(super) fn divide(&mut self, eip: u32, item: &Scanned) {
        let keep = Keep::of(item.live_in);
        let mut instruction = item.instruction;
        let size = if has_memory(&instruction) {
            instruction.memory_size().size() as u32
        } else {
            instruction.op0_register().size() as u32
        };
        let signed = instruction.mnemonic() == Mnemonic::Idiv;
        let w = match size {
            1 => W::B,
            2 => W::H,
            _ => W::D,
        };
        // The divisor in R11.
        if has_memory(&instruction) {
            self.reach(eip, &Operand::of(&instruction), size, Access::Read, keep, false);
            self.asm.load(w, R11, self.reached());
        } else if is_high_byte(instruction.op0_register()) {
            self.asm.mov(W::D, R11, Reg(number(instruction.op0_register()) as u8 & 3));
            self.asm.rorx(R11, R11, 8);
        } else {
            self.asm.mov(W::D, R11, host(number(instruction.op0_register())));
        }
        self.save_flags(keep);
        let declined = self.asm.label();
        // The upper half of the dividend in R8, the lower in R9.
        match w {
            W::B => {
                self.asm.movzx(R9, RAX, W::B);
                self.asm.rorx(R8, RAX, 8);
                self.asm.movzx(R8, R8, W::B);
                self.asm.movzx(R11, R11, W::B);
            }
            W::H => {
                self.asm.movzx(R9, RAX, W::H);
                self.asm.movzx(R8, RDX, W::H);
                self.asm.movzx(R11, R11, W::H);
            }
            _ => {
                self.asm.mov(W::D, R9, RAX);
                self.asm.mov(W::D, R8, RDX);
            }
        }
        if signed {
            // Only dividends whose upper half is the lower half's sign, by neither 0 nor -1: no quotient overflows then.
            let bits = 8 * size as u8;
            self.shift_left(R9, 32 - bits);
            self.asm.sar(R9, 31);
            self.shift_left(R9, 32 - bits);
            self.shift_left(R8, 32 - bits);
            self.asm.alu(Alu::Cmp, W::D, R8, R9);
            self.asm.jcc(NE, declined);
            self.asm.lea(W::D, R9, asm::at(R11, 1));
            match w {
                W::B => self.asm.movzx(R9, R9, W::B),
                W::H => self.asm.movzx(R9, R9, W::H),
                _ => {}
            }
            self.asm.alu_imm(Alu::Cmp, W::D, R9, 1);
            // 0 is below it, 1 is equal: divisors -1 and 0.
            self.asm.jcc(BE, declined);
        } else {
            // The quotient fits if, and only if, the upper half is below the divisor.
            self.asm.alu(Alu::Cmp, W::D, R8, R11);
            self.asm.jcc(AE, declined);
        }
        self.restore_flags(keep);
        self.later(Stub::Interpret { label: declined, eip, saved: keep });
        let register = match w {
            W::B => Register::R11L,
            W::H => Register::R11W,
            _ => Register::R11D,
        };
        let code = match (w, signed) {
            (W::B, false) => Code::Div_rm8,
            (W::B, true) => Code::Idiv_rm8,
            (W::H, false) => Code::Div_rm16,
            (W::H, true) => Code::Idiv_rm16,
            (_, false) => Code::Div_rm32,
            (_, true) => Code::Idiv_rm32,
        };
        instruction = Instruction::default();
        instruction.set_code(code);
        instruction.set_op0_kind(OpKind::Register);
        instruction.set_op0_register(register);
        self.encode(&instruction);
    }

    fn shift_left(&mut self, register: Reg, count: u8) {
        if count != 0 {
            self.asm.shl(register, count);
        }
    }

    /// XLAT: AL = DS:[EBX + AL].
    pub(super) fn xlat(&mut self, eip: u32, item: &Scanned) {
        let seg = seg_of(item.instruction.memory_segment());
        let short = item.instruction.memory_base() == Register::BX;
        self.asm.movzx(R11, RAX, W::B);
        // The retry comes after this, and R11 survives it.
        let operand = Operand { seg, base: Some(asm::RBX), index: Some((R11, 1)), disp: 0, short };
        self.reach(eip, &operand, 1, Access::Read, Keep::of(item.live_in), false);
        self.asm.load(W::B, RAX, self.reached());
    }
}

/// The encoder's buffer, to be used again.
fn code_buffer(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer
}
