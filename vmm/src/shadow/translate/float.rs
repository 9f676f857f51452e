//! Floating point, MMX and SSE: the host's own instructions on the guest's registers.
//!
//! The state is loaded when the first such instruction runs after the monitor was last entered, and stays in the host's
//! registers until the interpreter needs it. It is only ever loaded while no exception can come of it
//! ([`crate::shadow::mode::fpu_is_plain`]); instructions that could change that are checked, or interpreted.

use super::memory::{Access, Operand, Stub};
use super::{Emit, Keep, context};
use crate::cpu::fpu::fcw;
use crate::shadow::asm::{self, E, NE, R9, R10, R11, RCX, W};
use crate::shadow::bridge::{Context, Leave};
use crate::shadow::classify::has_memory;
use crate::shadow::scanner::Scanned;
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::mem::offset_of;

/// Whether it reads or writes its operand in memory.
fn access_of(instruction: &Instruction) -> Access {
    use Mnemonic::*;
    let stores = matches!(
        instruction.mnemonic(),
        Fst | Fstp | Fist | Fistp | Fbstp | Fnstcw | Fstcw | Fnstsw | Fstsw | Stmxcsr
    );
    let moves_out = instruction.op0_kind() == OpKind::Memory && instruction.op_count() >= 2;
    if stores || moves_out { Access::Write } else { Access::Read }
}

/// Whether an operand of 16 bytes must be aligned.
fn demands_alignment(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    instruction.memory_size().size() == 16 && !matches!(instruction.mnemonic(), Movups | Movupd | Movdqu)
}

/// They clear C1, and together do nothing else.
const FINCSTP: [u8; 2] = [0xd9, 0xf7];
const FDECSTP: [u8; 2] = [0xd9, 0xf6];
/// MOVD R9D, MM0: does to x87 what every MMX instruction does, and nothing else.
const MOVD_R9_MM0: [u8; 4] = [0x41, 0x0f, 0x7e, 0xc1];

impl Emit<'_> {
    pub(super) fn float(&mut self, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        let keep = Keep::of(item.live_in);
        self.load_fpu(eip, keep);
        match instruction.mnemonic() {
            Mnemonic::Wait => return,
            Mnemonic::Fldcw => return self.load_control_word(eip, item),
            _ => {}
        }
        if has_memory(instruction) {
            let operand = Operand::of(instruction);
            let size = instruction.memory_size().size() as u32;
            if self.goes_through_gs(&operand) && access_of(instruction) == Access::Read {
                self.encode_through_gs(instruction);
            } else {
                let aligned = demands_alignment(instruction);
                self.reach(eip, &operand, size, access_of(instruction), keep, aligned);
                self.encode_at_operand(instruction);
            }
            // Afterwards: in a window the access may still have faulted.
            if let Some(fop) = item.fop {
                self.note_operand(&operand);
                self.note_instruction(eip, fop);
            }
        } else {
            if let Some(fop) = item.fop {
                self.note_instruction(eip, fop);
            }
            let mut instruction = *instruction;
            self.rename(&mut instruction);
            self.encode(&instruction);
        }
        self.fix_stack_after(instruction);
        match instruction.mnemonic() {
            Mnemonic::Fninit | Mnemonic::Finit => self.forget_notes(),
            // C1 becomes 0 (SDM vol. 2, FCOMI), but some processors leave it as it was.
            Mnemonic::Fcomi | Mnemonic::Fcomip | Mnemonic::Fucomi | Mnemonic::Fucomip => {
                self.asm.bytes(&FINCSTP);
                self.asm.bytes(&FDECSTP);
            }
            // An MMX instruction with an operand in memory too (SDM vol. 2), but AMD's processors leave x87 alone then.
            Mnemonic::Cvtpi2ps if has_memory(instruction) => self.asm.bytes(&MOVD_R9_MM0),
            _ => {}
        }
    }

    /// Makes sure that the guest's state is in the host's registers.
    fn load_fpu(&mut self, eip: u32, keep: Keep) {
        if std::mem::replace(&mut self.fpu_is_loaded, true) {
            return;
        }
        let loaded = context(offset_of!(Context, fpu_loaded));
        let go_on = self.asm.label();
        if keep != Keep::Nothing {
            self.asm.mov(W::Q, R10, RCX);
            self.asm.movzx_load(RCX, loaded, W::B);
            let load = self.asm.label();
            self.asm.unless_rcx_zero(|asm| {
                asm.mov(W::Q, RCX, R10);
                asm.jmp(go_on);
            });
            self.asm.mov(W::Q, RCX, R10);
            self.asm.jmp(load);
            self.asm.bind(go_on);
            self.later(Stub::LoadFpu { label: load, back: go_on, eip });
        } else {
            let load = self.asm.label();
            self.asm.cmp_mem_imm(W::B, loaded, 0);
            self.asm.jcc(E, load);
            self.asm.bind(go_on);
            self.later(Stub::LoadFpu { label: load, back: go_on, eip });
        }
    }

    /// The way to the monitor and back.
    pub(super) fn fpu_stub(&mut self, eip: u32, back: asm::Label) {
        self.asm.mov_label(R9, back);
        self.asm.store(W::Q, context(offset_of!(Context, target)), R9);
        self.leave(eip, Leave::LoadFpu);
    }

    /// FLDCW: to the interpreter when it unmasks an exception.
    fn load_control_word(&mut self, eip: u32, item: &Scanned) {
        let keep = Keep::of(item.live_in);
        self.reach(eip, &Operand::of(&item.instruction), 2, Access::Read, keep, false);
        self.asm.movzx_load(R11, self.reached(), W::H);
        // R9 is lost, R8 is not: the slot is looked up again below.
        self.save_flags(keep);
        let unmasks = self.asm.label();
        self.asm.not(R11);
        self.asm.test_low(R11, fcw::MASKS as u8);
        self.asm.jcc(NE, unmasks);
        self.restore_flags(keep);
        self.later(Stub::InterpretFloat { label: unmasks, eip, saved: keep });
        // From a copy: what was checked is what is loaded, whoever else writes the operand.
        self.asm.not(R11);
        self.asm.store(W::H, context(offset_of!(Context, control_word)), R11);
        self.asm.fldcw(context(offset_of!(Context, control_word)));
    }
}
