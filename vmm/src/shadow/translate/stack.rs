//! PUSH, POP and their kin.

use super::memory::{Access, Operand};
use super::{Emit, Keep, host, number, seg_of, segment_field};
use crate::cpu::Segment;
use crate::cpu::registers::{Seg, gpr};
use crate::shadow::asm::{self, R8, R9, R11, R12, RBP, W};
use crate::shadow::bridge::Leave;
use crate::shadow::scanner::Scanned;
use iced_x86::OpKind;
use std::mem::offset_of;

/// Registers in the order in which PUSHA leaves them, from the lowest address up.
const ALL: [usize; 8] = [gpr::EDI, gpr::ESI, gpr::EBP, gpr::ESP, gpr::EBX, gpr::EDX, gpr::ECX, gpr::EAX];

/// 2 or 4 bytes as a width.
pub(super) const fn width(size: u32) -> W {
    if size == 2 { W::H } else { W::D }
}

impl Emit<'_> {
    /// Moves the stack pointer; no flag changes. R8 is lost.
    pub(super) fn move_stack(&mut self, by: i32) {
        if self.mode.stack32() {
            // In a window R12 is an address. It cannot leave the window's guards: the access before succeeded.
            let width = if self.mode.window() { W::Q } else { W::D };
            self.asm.lea(width, R12, asm::at(R12, by));
        } else {
            self.asm.lea(W::D, R8, asm::at(R12, by));
            self.asm.mov(W::H, R12, R8);
        }
    }

    pub(super) fn push(&mut self, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        let size = instruction.stack_pointer_increment().unsigned_abs();
        let (w, keep) = (width(size), Keep::of(item.live_in));
        match instruction.op0_kind() {
            OpKind::Register => {
                let from = host(number(instruction.op0_register()));
                self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
                self.asm.store(w, self.reached(), from);
            }
            OpKind::Memory => {
                self.reach(eip, &Operand::of(instruction), size, Access::Read, keep, false);
                self.asm.load(w, R11, self.reached());
                self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
                self.asm.store(w, self.reached(), R11);
            }
            _ => {
                let value = instruction.immediate(0) as i32;
                self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
                self.asm.store_imm(w, self.reached(), value);
            }
        }
        self.move_stack(-(size as i32));
    }

    pub(super) fn push_segment(&mut self, eip: u32, item: &Scanned) {
        let size = item.instruction.stack_pointer_increment().unsigned_abs();
        let seg = seg_of(item.instruction.op0_register());
        self.reach_stack(eip, -(size as i32), size, Access::Write, Keep::of(item.live_in));
        self.asm.movzx_load(R11, segment_field(seg, offset_of!(Segment, selector)), W::H);
        self.asm.store(width(size), self.reached(), R11);
        self.move_stack(-(size as i32));
    }

    pub(super) fn pop(&mut self, eip: u32, item: &Scanned) {
        let size = item.instruction.stack_pointer_increment().unsigned_abs();
        let to = host(number(item.instruction.op0_register()));
        self.reach_stack(eip, 0, size, Access::Read, Keep::of(item.live_in));
        if to == R12 {
            self.asm.load(width(size), R11, self.reached());
            self.move_stack(size as i32);
            self.asm.mov(width(size), to, R11);
            if size == 4 {
                self.fix_stack();
            }
        } else {
            self.asm.load(width(size), to, self.reached());
            self.move_stack(size as i32);
        }
    }

    /// Whether eight accesses are as good as one: not where the stack pointer wraps round within an address space that goes on.
    fn stack_is_one_piece(&self) -> bool {
        self.mode.stack32() || !self.mode.flat(Seg::Ss)
    }

    pub(super) fn push_all(&mut self, eip: u32, item: &Scanned) {
        let total = item.instruction.stack_pointer_increment().unsigned_abs();
        if !self.stack_is_one_piece() {
            return self.leave(eip, Leave::Interpret);
        }
        self.reach_stack(eip, -(total as i32), total, Access::Write, Keep::of(item.live_in));
        self.asm.lea(W::Q, R9, self.reached());
        let size = total / 8;
        if self.mode.window() {
            // The other page first, if there are two: then nothing is written unless all can be.
            let last = asm::at(R9, (7 * size) as i32);
            self.asm.load(width(size), R11, last);
            self.asm.store(width(size), last, R11);
        }
        for (n, register) in ALL.into_iter().enumerate() {
            self.asm.store(width(size), asm::at(R9, (n as u32 * size) as i32), host(register));
        }
        self.move_stack(-(total as i32));
    }

    pub(super) fn pop_all(&mut self, eip: u32, item: &Scanned) {
        let total = item.instruction.stack_pointer_increment().unsigned_abs();
        if !self.stack_is_one_piece() {
            return self.leave(eip, Leave::Interpret);
        }
        self.reach_stack(eip, 0, total, Access::Read, Keep::of(item.live_in));
        self.asm.lea(W::Q, R9, self.reached());
        let size = total / 8;
        if self.mode.window() {
            self.asm.load(width(size), R11, asm::at(R9, (7 * size) as i32));
        }
        for (n, register) in ALL.into_iter().enumerate().filter(|(_, register)| *register != gpr::ESP) {
            self.asm.load(width(size), host(register), asm::at(R9, (n as u32 * size) as i32));
        }
        self.move_stack(total as i32);
    }

    pub(super) fn leave_frame(&mut self, eip: u32, item: &Scanned) {
        let size = if matches!(item.instruction.code(), iced_x86::Code::Leavew) { 2 } else { 4 };
        let operand = Operand::at(Seg::Ss, RBP, 0, !self.mode.stack32());
        self.reach(eip, &operand, size, Access::Read, Keep::of(item.live_in), false);
        self.asm.load(width(size), R11, self.reached());
        let stack = if self.mode.stack32() { W::D } else { W::H };
        self.asm.lea(W::D, R8, asm::at(RBP, size as i32));
        self.asm.mov(stack, R12, R8);
        self.fix_stack();
        self.asm.mov(width(size), RBP, R11);
    }

    /// Pushes a constant of the mode's width: the return address of a CALL.
    pub(super) fn push_return(&mut self, eip: u32, item: &Scanned, keep: Keep) {
        let size = if self.mode.code32() { 4 } else { 2 };
        let next = eip.wrapping_add(item.len() as u32);
        self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
        self.asm.store_imm(width(size), self.reached(), next as i32);
        self.move_stack(-(size as i32));
    }
}
