//! Loads of segment registers in real and virtual-8086 mode: a selector, and 16 times that as the base
//! ([`Mode::segmented`](crate::shadow::mode::Mode::segmented)). Those that name descriptors are the interpreter's.

use super::memory::{Access, Operand};
use super::{Emit, Keep, host, number, seg_of, segment_field};
use crate::cpu::Segment;
use crate::cpu::registers::Seg;
use crate::shadow::asm::{R9, R11, R12, W, at};
use crate::shadow::classify::{Terminal, has_memory, segment_loaded};
use crate::shadow::scanner::{Scanned, Unit};
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// Rotating right by so many bits shifts a selector left by four.
const TO_BASE: u8 = 32 - 4;

impl Emit<'_> {
    /// MOV, POP, LDS and their kin. True: control goes on.
    pub(super) fn load_segment(&mut self, offset: u16, item: &Scanned, unit: &Unit) -> bool {
        let instruction = &item.instruction;
        let (eip, keep) = (self.eip(offset), Keep::of(item.live_in));
        let seg = seg_of(segment_loaded(instruction));
        // After MOV SS and POP SS interrupts wait for one more instruction: it must follow without a poll between.
        let holds = seg == Seg::Ss && instruction.mnemonic() != Mnemonic::Lss;
        if holds && !Self::runs_into_next(offset, item, unit) {
            return self.interpret(offset, item, Terminal::Segment);
        }
        match instruction.mnemonic() {
            Mnemonic::Mov if has_memory(instruction) => {
                self.reach(eip, &Operand::of(instruction), 2, Access::Read, keep, false);
                self.asm.movzx_load(R11, self.reached(), W::H);
            }
            Mnemonic::Mov => self.asm.movzx(R11, host(number(instruction.op1_register())), W::H),
            Mnemonic::Pop => {
                let size = instruction.stack_pointer_increment().unsigned_abs();
                self.reach_stack(eip, 0, size, Access::Read, keep);
                self.asm.movzx_load(R11, self.reached(), W::H);
                self.move_stack(size as i32);
            }
            _ => self.load_far_pointer(eip, item, keep),
        }
        self.set_segment(seg);
        true
    }

    /// The offset of a far pointer into its register, the selector into R11D.
    fn load_far_pointer(&mut self, eip: u32, item: &Scanned, keep: Keep) {
        let register = item.instruction.op0_register();
        let (to, size) = (host(number(register)), register.size() as u32);
        self.reach(eip, &Operand::of(&item.instruction), size + 2, Access::Read, keep, false);
        if size == 2 {
            self.asm.load(W::D, R11, self.reached());
            self.asm.mov(W::H, to, R11);
            self.asm.rorx(R11, R11, 16);
            self.asm.movzx(R11, R11, W::H);
        } else {
            self.asm.lea(W::Q, R9, self.reached());
            self.asm.movzx_load(R11, at(R9, size as i32), W::H);
            self.asm.load(W::D, to, at(R9, 0));
        }
    }

    /// Makes the selector in R11D that of `seg`; no flag changes. R11 becomes the base.
    pub(super) fn set_segment(&mut self, seg: Seg) {
        self.asm.store(W::H, segment_field(seg, offset_of!(Segment, selector)), R11);
        self.asm.rorx(R11, R11, TO_BASE);
        self.asm.store(W::D, segment_field(seg, Segment::BASE_AT), R11);
        if self.fpu_operand_noted == Some(seg) {
            self.fpu_operand_noted = None;
        }
    }

    /// Whether the code of the next instruction follows that of this one.
    fn runs_into_next(offset: u16, item: &Scanned, unit: &Unit) -> bool {
        let next = offset + item.len() as u16;
        unit.instructions.range(offset + 1..).next().is_some_and(|(at, _)| *at == next)
    }

    /// MOV from a segment register.
    pub(super) fn read_segment(&mut self, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        let selector = segment_field(seg_of(instruction.op1_register()), offset_of!(Segment, selector));
        if has_memory(instruction) {
            self.reach(eip, &Operand::of(instruction), 2, Access::Write, Keep::of(item.live_in), false);
            self.asm.movzx_load(R11, selector, W::H);
            self.asm.store(W::H, self.reached(), R11);
            return;
        }
        let register = instruction.op0_register();
        let to = host(number(register));
        if register.is_gpr32() {
            self.asm.movzx_load(to, selector, W::H);
            if to == R12 {
                self.fix_stack();
            }
        } else {
            self.asm.load(W::H, to, selector);
        }
    }
}
