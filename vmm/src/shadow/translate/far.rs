//! Far transfers in real and virtual-8086 mode, where a selector is all there is to a code segment: CS gets it, and the exec map of the
//! segment comes from a table ([`crate::shadow::space::FarTable`]). What that does not know leads to the map that is empty, and so to
//! the monitor.

use super::memory::{Access, Operand};
use super::{Emit, Keep, context, segment_field};
use crate::cpu::Segment;
use crate::cpu::registers::Seg;
use crate::shadow::asm::{R8, R9, R10, R11, R13, RSP, W, at, indexed};
use crate::shadow::bridge::{Context, WITHOUT_INTERRUPTS};
use crate::shadow::home::STACK_TOP;
use crate::shadow::scanner::Scanned;
use ipc::board::attention;
use std::mem::offset_of;

/// Bytes of a far pointer of 16 bits.
const POINTER: u32 = 4;
const WORD: usize = size_of::<u64>();

impl Emit<'_> {
    /// JMP far.
    pub(super) fn jump_far(&mut self, eip: u32, item: &Scanned) {
        self.far_target(eip, item);
        self.jump_far_to_r11();
    }

    /// CALL far.
    pub(super) fn call_far(&mut self, eip: u32, item: &Scanned) {
        self.far_target(eip, item);
        self.reach_stack(eip, -(POINTER as i32), POINTER, Access::Write, Keep::All);
        self.asm.lea(W::Q, R9, self.reached());
        self.asm.movzx_load(R10, segment_field(Seg::Cs, offset_of!(Segment, selector)), W::H);
        self.asm.store(W::H, at(R9, 2), R10);
        self.asm.store_imm(W::H, at(R9, 0), eip.wrapping_add(item.len() as u32) as i32);
        self.move_stack(-(POINTER as i32));
        self.jump_far_to_r11();
    }

    /// RET far.
    pub(super) fn return_far(&mut self, eip: u32, item: &Scanned) {
        let extra =
            if item.instruction.op_count() == 1 { i32::from(item.instruction.immediate16()) } else { 0 };
        self.reach_stack(eip, 0, POINTER, Access::Read, Keep::All);
        self.asm.load(W::D, R11, self.reached());
        self.move_stack(POINTER as i32 + extra);
        self.jump_far_to_r11();
    }

    /// Selector and offset into R11D.
    fn far_target(&mut self, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        if crate::shadow::classify::has_memory(instruction) {
            self.reach(eip, &Operand::of(instruction), POINTER, Access::Read, Keep::All, false);
            self.asm.load(W::D, R11, self.reached());
        } else {
            let selector = u32::from(instruction.far_branch_selector());
            self.asm.mov_imm(R11, selector << 16 | u32::from(instruction.far_branch16()));
        }
    }

    /// Goes to the selector and offset in R11D; no flag changes.
    pub(super) fn jump_far_to_r11(&mut self) {
        self.far_to_r11();
        if self.target.lockstep {
            // A run that is compared has one mode.
            return self.asm.jmp_to(self.places.miss);
        }
        self.jump_counted_to_r8();
    }

    /// Makes the selector in the upper half of R11D that of CS, and a linear address in R8D of the offset in the lower; no flag
    /// changes.
    pub(super) fn far_to_r11(&mut self) {
        self.asm.movzx(R8, R11, W::H);
        self.asm.rorx(R11, R11, 16);
        self.asm.movzx(R11, R11, W::H);
        // The table has distances from the empty map, so that zero leads there.
        self.asm.load(W::Q, R9, context(offset_of!(Context, far)));
        self.asm.load(W::Q, R10, indexed(R9, R11, WORD as u8, 0));
        self.asm.load(W::Q, R9, context(offset_of!(Context, maps) + WORD));
        self.asm.lea(W::Q, R10, indexed(R10, R9, 1, 0));
        self.asm.store(W::Q, context(offset_of!(Context, maps)), R10);
        self.asm.store(W::Q, context(offset_of!(Context, exec)), R10);
        self.asm.movzx_load(R9, context(offset_of!(Context, wanted)), W::B);
        let wanted = offset_of!(Context, maps) as i32 - i32::from(WITHOUT_INTERRUPTS) * WORD as i32;
        self.asm.load(W::Q, R9, indexed(R13, R9, WORD as u8, wanted));
        self.asm.store(W::Q, context(offset_of!(Context, exec) + attention::INTR as usize * WORD), R9);
        self.set_segment(Seg::Cs);
        // Returns do not lead back into another segment.
        self.asm.lea(W::Q, RSP, at(R13, STACK_TOP));
        self.asm.lea(W::D, R8, indexed(R8, R11, 1, 0));
    }
}
