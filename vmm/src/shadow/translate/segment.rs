//! Loads of segment registers. In real and virtual-8086 mode: a selector, and 16 times that as the base
//! ([`Mode::segmented`](crate::shadow::mode::Mode::segmented)). Those that name descriptors are the interpreter's, but for what is
//! remembered of it ([`crate::shadow::descriptors`]).

use super::memory::{Access, Operand, Stub};
use super::{Emit, Keep, context, host, number, seg_of, segment_field, state};
use crate::cpu::registers::Seg;
use crate::cpu::state::TableRegister;
use crate::cpu::{CpuState, Segment};
use crate::shadow::asm::{A, Alu, E, NE, R8, R9, R11, R12, R13, W, at, indexed};
use crate::shadow::bridge::Context;
use crate::shadow::classify::{Terminal, has_memory, segment_loaded};
use crate::shadow::descriptors::{Descriptors, Loaded, NULL_DESCRIPTOR, SLOT_BITS};
use crate::shadow::scanner::{Scanned, Unit};
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// Rotating right by so many bits shifts a selector left by four.
const TO_BASE: u8 = 32 - 4;

impl Emit<'_> {
    /// MOV, POP, LDS and their kin. True: control goes on.
    pub(super) fn load_segment(&mut self, offset: u16, item: &Scanned, unit: &Unit) -> bool {
        if !self.mode.segmented() {
            self.load_remembered(offset, item);
            return true;
        }
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

    /// MOV and POP of a selector whose descriptor may be remembered.
    fn load_remembered(&mut self, offset: u16, item: &Scanned) {
        const SELECTOR_OFFSET: i32 = !7;
        const LAST_BYTE: i32 = 7;
        let instruction = &item.instruction;
        let (eip, keep) = (self.eip(offset), Keep::of(item.live_in));
        let seg = seg_of(segment_loaded(instruction));
        let popped = match instruction.mnemonic() {
            Mnemonic::Pop => instruction.stack_pointer_increment().unsigned_abs(),
            _ => 0,
        };
        if popped != 0 {
            self.reach_stack(eip, 0, popped, Access::Read, keep);
            self.asm.movzx_load(R11, self.reached(), W::H);
        } else if has_memory(instruction) {
            self.reach(eip, &Operand::of(instruction), 2, Access::Read, keep, false);
            self.asm.movzx_load(R11, self.reached(), W::H);
        } else {
            self.asm.movzx(R11, host(number(instruction.op1_register())), W::H);
        }
        let (unknown, known, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.save_flags(keep);
        // What FDS is to become is the selector that it has now.
        self.asm.cmp_mem_imm(W::B, context(offset_of!(Context, fpu_operand_segment)), seg as i8);
        self.asm.jcc(E, unknown);
        self.asm.mov(W::D, R8, R11);
        self.asm.alu_imm(Alu::And, W::D, R8, SELECTOR_OFFSET);
        // A null selector has no descriptor: R8 is that then.
        const _: () = assert!(NULL_DESCRIPTOR == 0);
        self.asm.jcc(E, known);
        self.asm.lea(W::D, R9, at(R8, LAST_BYTE));
        let gdtr = offset_of!(CpuState, gdtr);
        self.asm.alu_load(Alu::Cmp, W::H, R9, state(gdtr + offset_of!(TableRegister, limit)));
        self.asm.jcc(A, unknown);
        self.asm.load(W::D, R9, state(gdtr + offset_of!(TableRegister, base)));
        self.asm.lea(W::D, R8, indexed(R8, R9, 1, 0));
        // Then it does not cross a page's boundary.
        self.asm.test_low(R8, LAST_BYTE as u8);
        self.asm.jcc(NE, unknown);
        self.slot(Access::Read, unknown);
        self.asm.load(W::Q, R8, self.reached());
        self.asm.bind(known);
        self.asm.mov(W::D, R9, R11);
        self.asm.alu_imm(Alu::And, W::D, R9, SLOT_BITS as i32);
        let kind = match seg {
            Seg::Ds | Seg::Es => offset_of!(Descriptors, flat),
            _ => offset_of!(Descriptors, any),
        };
        let loaded =
            |field: usize| indexed(R13, R9, 8, (offset_of!(Context, descriptors) + kind + field) as i32);
        self.asm.alu_load(Alu::Cmp, W::Q, R8, loaded(offset_of!(Loaded, descriptor)));
        self.asm.jcc(NE, unknown);
        self.asm.alu_load(Alu::Cmp, W::D, R11, loaded(offset_of!(Loaded, selector)));
        self.asm.jcc(NE, unknown);
        for at in (0..size_of::<Segment>()).step_by(size_of::<u64>()) {
            self.asm.load(W::Q, R8, loaded(offset_of!(Loaded, segment) + at));
            self.asm.store(W::Q, segment_field(seg, at), R8);
        }
        self.restore_flags(keep);
        if popped != 0 {
            self.move_stack(popped as i32);
        }
        self.asm.bind(done);
        let next = eip.wrapping_add(item.len() as u32);
        let (why, loads) = (Terminal::Segment, Some(seg));
        self.later(Stub::InPlace { label: unknown, back: done, offset, next, saved: keep, why, loads });
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
