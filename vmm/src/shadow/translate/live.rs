//! Immediate operands that the guest writes over again and again: they are read from guest memory when the instruction runs, so that
//! the code need not be made anew.

use super::memory::{Access, Operand};
use super::stack::width;
use super::{Emit, Keep};
use crate::shadow::asm::{self, R8, R11, R15, W};
use crate::shadow::bridge::SLOT_SHIFT;
use crate::shadow::classify::has_memory;
use crate::shadow::scanner::{LiveImmediate, Scanned};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// The form of an instruction with a register as its source instead of an immediate, for 8, 16 and 32 bits.
fn forms(mnemonic: Mnemonic) -> Option<[Code; 3]> {
    use Mnemonic::*;
    Some(match mnemonic {
        Mov => [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32],
        Add => [Code::Add_rm8_r8, Code::Add_rm16_r16, Code::Add_rm32_r32],
        Or => [Code::Or_rm8_r8, Code::Or_rm16_r16, Code::Or_rm32_r32],
        Adc => [Code::Adc_rm8_r8, Code::Adc_rm16_r16, Code::Adc_rm32_r32],
        Sbb => [Code::Sbb_rm8_r8, Code::Sbb_rm16_r16, Code::Sbb_rm32_r32],
        And => [Code::And_rm8_r8, Code::And_rm16_r16, Code::And_rm32_r32],
        Sub => [Code::Sub_rm8_r8, Code::Sub_rm16_r16, Code::Sub_rm32_r32],
        Xor => [Code::Xor_rm8_r8, Code::Xor_rm16_r16, Code::Xor_rm32_r32],
        Cmp => [Code::Cmp_rm8_r8, Code::Cmp_rm16_r16, Code::Cmp_rm32_r32],
        Test => [Code::Test_rm8_r8, Code::Test_rm16_r16, Code::Test_rm32_r32],
        _ => return None,
    })
}

/// Bytes of the first operand.
fn size_of_first(instruction: &Instruction) -> u32 {
    if has_memory(instruction) {
        instruction.memory_size().size() as u32
    } else {
        instruction.op0_register().size() as u32
    }
}

impl LiveImmediate {
    /// That of an instruction, if it is one whose immediate can be read from memory.
    pub fn of(instruction: &Instruction, offset: usize, size: usize) -> Option<Self> {
        let high = matches!(
            (instruction.op0_kind(), instruction.op0_register()),
            (OpKind::Register, Register::AH | Register::CH | Register::DH | Register::BH)
        );
        let known = match instruction.mnemonic() {
            Mnemonic::Push => instruction.op_count() == 1,
            mnemonic => forms(mnemonic).is_some() && instruction.op_count() == 2 && !high,
        };
        known.then_some(Self { offset: offset as u8, size: size as u8 })
    }
}

impl Emit<'_> {
    /// [`Emit::plain`] or [`Emit::push`] with the immediate from guest memory.
    pub(super) fn with_live_immediate(&mut self, eip: u32, item: &Scanned, live: LiveImmediate) {
        let keep = Keep::of(item.live_in);
        self.load_immediate(eip, live, keep);
        let mut instruction = item.instruction;
        if instruction.mnemonic() == Mnemonic::Push {
            let size = instruction.stack_pointer_increment().unsigned_abs();
            self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
            self.asm.store(width(size), self.reached(), R11);
            return self.move_stack(-(size as i32));
        }
        let size = size_of_first(&instruction);
        let Some([byte, word, dword]) = forms(instruction.mnemonic()) else {
            unreachable!("`LiveImmediate::of` takes no others: {instruction}")
        };
        let (code, register) = match size {
            1 => (byte, Register::R11L),
            2 => (word, Register::R11W),
            _ => (dword, Register::R11D),
        };
        instruction.set_code(code);
        instruction.set_op1_kind(OpKind::Register);
        instruction.set_op1_register(register);
        if has_memory(&instruction) {
            let only_read = matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
            let access = if only_read { Access::Read } else { Access::Write };
            self.reach(eip, &Operand::of(&item.instruction), size, access, keep, false);
            self.encode_at_operand(&instruction);
        } else {
            self.rename(&mut instruction);
            self.encode(&instruction);
        }
        self.fix_stack_after(&item.instruction);
    }

    /// The immediate, sign-extended if it is one byte, into R11.
    fn load_immediate(&mut self, eip: u32, live: LiveImmediate, keep: Keep) {
        let linear = self.mode.linear(eip).wrapping_add(u32::from(live.offset));
        let place = if self.mode.window() {
            self.asm.mov_imm(R8, linear);
            asm::indexed(R15, R8, 1, -SLOT_SHIFT)
        } else {
            let (fill, retry) = (self.asm.label(), self.asm.label());
            self.asm.bind(retry);
            self.save_flags(keep);
            self.asm.mov_imm(R8, linear);
            self.slot(Access::Read, fill);
            self.restore_flags(keep);
            self.fill_stub(fill, retry, eip, u32::from(live.size), Access::Read, keep);
            self.reached()
        };
        match live.size {
            1 => self.asm.movsx_load(R11, place),
            2 => self.asm.movzx_load(R11, place, W::H),
            _ => self.asm.load(W::D, R11, place),
        }
    }
}
