//! String instructions that are not repeated, and the direction flag, which lives in [`Context::direction`] as a step.

use super::memory::{Access, Operand};
use super::stack::REACHED;
use super::{Emit, context, seg_of};
use crate::cpu::registers::Seg;
use crate::shadow::asm::{self, Alu, R9, R11, RAX, RDI, RSI, Reg, W};
use crate::shadow::bridge::Context;
use crate::shadow::scanner::Scanned;
use iced_x86::{Mnemonic, OpKind};
use std::mem::offset_of;

impl Emit<'_> {
    pub(super) fn direction(&mut self, item: &Scanned) {
        let step = if item.instruction.mnemonic() == Mnemonic::Std { -1 } else { 1 };
        self.asm.store_imm(W::Q, context(offset_of!(Context, direction)), step);
    }

    /// Moves an index register by one element; no flag changes.
    fn advance(&mut self, register: Reg, size: u32, short: bool) {
        self.asm.load(W::Q, R9, context(offset_of!(Context, direction)));
        if short {
            self.asm.lea(W::D, R9, asm::indexed(register, R9, size as u8, 0));
            self.asm.mov(W::H, register, R9);
        } else {
            self.asm.lea(W::D, register, asm::indexed(register, R9, size as u8, 0));
        }
    }

    pub(super) fn string(&mut self, eip: u32, item: &Scanned) {
        use Mnemonic::*;
        let instruction = &item.instruction;
        let keep = item.live_in != 0;
        let size = instruction.memory_size().size() as u32;
        let w = match size {
            1 => W::B,
            2 => W::H,
            _ => W::D,
        };
        let short = (0..instruction.op_count()).any(|n| {
            matches!(instruction.op_kind(n), OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI)
        });
        let source = Operand::at(seg_of(instruction.memory_segment()), RSI, 0, short);
        let destination = Operand::at(Seg::Es, RDI, 0, short);
        let (mut source_moves, mut destination_moves) = (true, true);
        match instruction.mnemonic() {
            Movsb | Movsw | Movsd => {
                self.reach(eip, &source, size, Access::Read, keep, false);
                self.asm.load(w, R11, REACHED);
                self.reach(eip, &destination, size, Access::Write, keep, false);
                self.asm.store(w, REACHED, R11);
            }
            Stosb | Stosw | Stosd => {
                self.reach(eip, &destination, size, Access::Write, keep, false);
                self.asm.store(w, REACHED, RAX);
                source_moves = false;
            }
            Lodsb | Lodsw | Lodsd => {
                self.reach(eip, &source, size, Access::Read, keep, false);
                self.asm.load(w, RAX, REACHED);
                destination_moves = false;
            }
            Scasb | Scasw | Scasd => {
                self.reach(eip, &destination, size, Access::Read, keep, false);
                self.asm.alu_load(Alu::Cmp, w, RAX, REACHED);
                source_moves = false;
            }
            _ => {
                self.reach(eip, &source, size, Access::Read, keep, false);
                self.asm.load(w, R11, REACHED);
                self.reach(eip, &destination, size, Access::Read, keep, false);
                self.asm.alu_load(Alu::Cmp, w, R11, REACHED);
            }
        }
        if source_moves {
            self.advance(RSI, size, short);
        }
        if destination_moves {
            self.advance(RDI, size, short);
        }
    }
}
