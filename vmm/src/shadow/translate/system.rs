//! PUSHF and POPF at CPL 0, and IRET in real mode: EFLAGS as a whole, whose parts shadow code has in several places.

use super::memory::{Access, Stub};
use super::stack::width;
use super::{Counts, Emit, Keep, context, state};
use crate::cpu::CpuState;
use crate::cpu::registers::eflags;
use crate::shadow::asm::{Alu, NE, R8, R9, R10, R11, R13, Reg, W, at, indexed};
use crate::shadow::bridge::{Context, Leave, WITH_INTERRUPTS, WITHOUT_INTERRUPTS};
use crate::shadow::classify::Terminal;
use crate::shadow::scanner::Scanned;
use ipc::board::attention;
use std::mem::offset_of;

const DF_SHIFT: u8 = eflags::DF.trailing_zeros() as u8;
const IF_SHIFT: u8 = eflags::IF.trailing_zeros() as u8;
const OF_SHIFT: u8 = eflags::OF.trailing_zeros() as u8;

/// Flags beyond the arithmetic ones that POPF and IRET take at CPL 0.
const TAKEN: u32 = eflags::TF | eflags::DF | eflags::NT | eflags::IF | eflags::IOPL;
/// Those with a 32-bit operand.
const TAKEN_WIDE: u32 = eflags::AC | eflags::ID;
/// Those that POPF of 32 bits clears.
const CLEARED_WIDE: u32 = eflags::RF | eflags::VIF | eflags::VIP;

impl Emit<'_> {
    /// PUSHF. True: control goes on.
    pub(super) fn push_flags(&mut self, offset: u16, item: &Scanned) -> bool {
        if self.target.lockstep {
            // Some may be undefined: what is pushed would differ.
            return self.interpret(offset, item, Terminal::Flags);
        }
        let size = item.instruction.stack_pointer_increment().unsigned_abs();
        self.flags_as_a_whole();
        self.reach_stack(self.eip(offset), -(size as i32), size, Access::Write, Keep::All);
        self.asm.store(width(size), self.reached(), R11);
        self.move_stack(-(size as i32));
        true
    }

    /// EFLAGS as PUSHF has it into R11D; no flag changes. R9 and R10 are lost.
    fn flags_as_a_whole(&mut self) {
        const ELSEWHERE: u32 = eflags::ARITHMETIC | eflags::DF | eflags::VM | eflags::RF;
        self.save_flags(Keep::All);
        self.asm.movzx(R9, R10, W::B);
        self.asm.shl(R9, OF_SHIFT);
        self.asm.movzx(R11, R10, W::H);
        self.asm.sar(R11, 8);
        self.asm.alu(Alu::Or, W::D, R11, R9);
        self.asm.load(W::D, R9, state(offset_of!(CpuState, eflags)));
        self.asm.alu_imm(Alu::And, W::D, R9, !ELSEWHERE as i32);
        self.asm.alu(Alu::Or, W::D, R11, R9);
        // All ones, or one.
        self.asm.load(W::D, R9, context(offset_of!(Context, direction)));
        self.asm.alu_imm(Alu::And, W::D, R9, eflags::DF as i32);
        self.asm.alu(Alu::Or, W::D, R11, R9);
        self.restore_flags(Keep::All);
    }

    /// POPF. True: control goes on.
    pub(super) fn pop_flags(&mut self, offset: u16, item: &Scanned) -> bool {
        let eip = self.eip(offset);
        let next = eip.wrapping_add(item.len() as u32);
        let size = item.instruction.stack_pointer_increment().unsigned_abs();
        self.reach_stack(eip, 0, size, Access::Read, Keep::Nothing);
        let (taken, cleared) = if size == 2 {
            self.asm.movzx_load(R11, self.reached(), W::H);
            (TAKEN, 0)
        } else {
            self.asm.load(W::D, R11, self.reached());
            (TAKEN | TAKEN_WIDE, CLEARED_WIDE)
        };
        self.decline_single_steps(eip);
        self.move_stack(size as i32);
        self.take_system_flags(taken, cleared);
        let live = Keep::of(item.live_out);
        if live != Keep::Nothing {
            self.arithmetic_flags(R10, R9);
            self.restore_flags(Keep::All);
        }
        if self.target.counts == Counts::All {
            // There is no attention byte: the monitor must see that interrupts are possible now.
            self.leave(next, Leave::Attention);
            return false;
        }
        self.poll(next, live);
        true
    }

    /// Leaves to the interpreter if the flags in R11D have TF set; arithmetic flags are lost.
    fn decline_single_steps(&mut self, eip: u32) {
        let label = self.asm.label();
        self.asm.test_imm(R11, eflags::TF);
        self.asm.jcc(NE, label);
        self.later(Stub::Interpret { label, eip, saved: Keep::Nothing });
    }

    /// Takes flags that are not arithmetic from R11D. R8, R9 and arithmetic flags are lost.
    fn take_system_flags(&mut self, taken: u32, cleared: u32) {
        let flags = state(offset_of!(CpuState, eflags));
        self.asm.load(W::D, R9, flags);
        self.asm.alu_imm(Alu::And, W::D, R9, !(taken | cleared) as i32);
        self.asm.mov(W::D, R8, R11);
        self.asm.alu_imm(Alu::And, W::D, R8, taken as i32);
        self.asm.alu(Alu::Or, W::D, R9, R8);
        self.asm.store(W::D, flags, R9);
        // 1 minus twice DF.
        self.asm.alu_imm(Alu::And, W::D, R8, eflags::DF as i32);
        self.asm.sar(R8, DF_SHIFT - 1);
        self.asm.mov_imm(R9, 1);
        self.asm.alu(Alu::Sub, W::Q, R9, R8);
        self.asm.store(W::Q, context(offset_of!(Context, direction)), R9);
        self.asm.mov(W::D, R8, R11);
        self.asm.sar(R8, IF_SHIFT);
        self.asm.alu_imm(Alu::And, W::D, R8, 1);
        let map = indexed(R13, R8, 8, offset_of!(Context, maps) as i32);
        self.asm.load(W::Q, R9, map);
        let slot = offset_of!(Context, exec) + attention::INTR as usize * size_of::<u64>();
        self.asm.store(W::Q, context(slot), R9);
        const { assert!(WITH_INTERRUPTS == WITHOUT_INTERRUPTS + 1) };
        self.asm.lea(W::D, R9, at(R8, i32::from(WITHOUT_INTERRUPTS)));
        self.asm.store(W::B, context(offset_of!(Context, wanted)), R9);
    }

    /// The arithmetic flags of R11D into `to`, as [`Emit::restore_flags`] takes them from R10; R11, `spare` and flags are lost.
    fn arithmetic_flags(&mut self, to: Reg, spare: Reg) {
        self.asm.movzx(to, R11, W::B);
        self.asm.shl(to, 8);
        self.asm.mov(W::D, spare, R11);
        self.asm.sar(spare, OF_SHIFT);
        self.asm.alu_imm(Alu::And, W::D, spare, 1);
        self.asm.alu(Alu::Or, W::D, to, spare);
    }

    /// IRET of 16 bits in real mode.
    pub(super) fn interrupt_return(&mut self, eip: u32) {
        const SELECTOR_AND_OFFSET: i32 = 4;
        const FRAME: u32 = 6;
        self.reach_stack(eip, 0, FRAME, Access::Read, Keep::Nothing);
        self.asm.lea(W::Q, R9, self.reached());
        self.asm.movzx_load(R11, at(R9, SELECTOR_AND_OFFSET), W::H);
        self.asm.load(W::D, R10, at(R9, 0));
        self.decline_single_steps(eip);
        self.move_stack(FRAME as i32);
        self.take_system_flags(TAKEN, 0);
        self.asm.store_imm(W::B, state(offset_of!(CpuState, nmi_blocked)), 0);
        self.arithmetic_flags(R9, R8);
        self.asm.mov(W::D, R11, R10);
        self.asm.mov(W::D, R10, R9);
        self.restore_flags(Keep::All);
        if self.target.counts == Counts::All {
            // As POPF does.
            self.far_to_r11();
            self.asm.jmp_to(self.places.miss);
        } else {
            self.jump_far_to_r11();
        }
    }
}
