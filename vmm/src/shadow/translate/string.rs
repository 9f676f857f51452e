//! String instructions, and the direction flag, which lives in [`Context::direction`] as a step.

use super::memory::{Access, Operand, Stub};
use super::{Borrow, Emit, Keep, context, seg_of};
use crate::cpu::bus::PAGE_SIZE;
use crate::cpu::registers::Seg;
use crate::shadow::asm::{
    self, A, AE, Alu, BE, Label, NE, R8, R9, R10, R11, R15, RAX, RCX, RDI, RSI, Reg, Rep, W,
};
use crate::shadow::bridge::{Context, SLOT_SHIFT};
use crate::shadow::classify::Terminal;
use crate::shadow::scanner::Scanned;
use iced_x86::{Mnemonic, OpKind};
use std::mem::offset_of;

/// Bytes that one instruction moves or fills at most without an interrupt: some 10 µs.
const LONGEST_REPEAT: u32 = 128 << 10;

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
        let keep = Keep::of(item.live_in);
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
                self.asm.load(w, R11, self.reached());
                self.reach(eip, &destination, size, Access::Write, keep, false);
                self.asm.store(w, self.reached(), R11);
            }
            Stosb | Stosw | Stosd => {
                self.reach(eip, &destination, size, Access::Write, keep, false);
                self.asm.store(w, self.reached(), RAX);
                source_moves = false;
            }
            Lodsb | Lodsw | Lodsd => {
                self.reach(eip, &source, size, Access::Read, keep, false);
                self.asm.load(w, RAX, self.reached());
                destination_moves = false;
            }
            Scasb | Scasw | Scasd => {
                self.reach(eip, &destination, size, Access::Read, keep, false);
                self.asm.alu_load(Alu::Cmp, w, RAX, self.reached());
                source_moves = false;
            }
            _ => {
                self.reach(eip, &source, size, Access::Read, keep, false);
                self.asm.load(w, R11, self.reached());
                self.reach(eip, &destination, size, Access::Read, keep, false);
                self.asm.alu_load(Alu::Cmp, w, R11, self.reached());
            }
        }
        if source_moves {
            self.advance(RSI, size, short);
        }
        if destination_moves {
            self.advance(RDI, size, short);
        }
    }

    /// REP MOVS and REP STOS in flat segments: the host's own, when every operand lies within a page.
    pub(super) fn repeat(&mut self, offset: u16, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        let keep = Keep::of(item.live_in);
        let size = instruction.memory_size().size() as u32;
        let moves = matches!(instruction.mnemonic(), Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd);
        let (again, not_plain, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        let next = eip.wrapping_add(item.len() as u32);
        let why = Terminal::Repeated;
        self.later(Stub::InPlace {
            label: not_plain,
            back: done,
            offset,
            next,
            saved: keep,
            why,
            loads: None,
        });
        if self.mode.window() {
            self.repeat_in_window(eip, moves, size, keep, again, not_plain);
            return self.asm.bind(done);
        }
        self.asm.bind(again);
        self.save_flags(keep);
        self.asm.cmp_mem_imm(W::Q, context(offset_of!(Context, direction)), 1);
        self.asm.jcc(NE, not_plain);
        // None at all, or more than fit into a page.
        self.asm.lea(W::D, R9, asm::at(RCX, -1));
        self.asm.alu_imm(Alu::Cmp, W::D, R9, (PAGE_SIZE as u32 / size) as i32);
        self.asm.jcc(AE, not_plain);
        if moves {
            self.slot_of_all(RSI, size, Access::Read, not_plain, (again, eip, keep));
            self.asm.lea(W::Q, R11, self.reached());
        }
        self.slot_of_all(RDI, size, Access::Write, not_plain, (again, eip, keep));
        self.restore_flags(keep);
        if moves {
            self.asm.lea(W::D, R10, asm::indexed(RSI, RCX, size as u8, 0));
            self.asm.mov(W::Q, RSI, R11);
        }
        self.asm.lea(W::D, R11, asm::indexed(RDI, RCX, size as u8, 0));
        self.asm.lea(W::Q, RDI, self.reached());
        self.asm.rep(if moves { Rep::Movs } else { Rep::Stos }, size);
        self.asm.mov(W::D, RDI, R11);
        if moves {
            self.asm.mov(W::D, RSI, R10);
        }
        self.asm.bind(done);
    }

    /// The same in a window: the host's own, whatever pages there are, in pieces between which interrupts are taken. A fault in the midst
    /// leaves ESI and EDI as they are then, which is what the guest's would be: windows are aligned, so the lower halves of
    /// addresses are the guest's. What is left of ECX behind this piece is in R11.
    fn repeat_in_window(
        &mut self,
        eip: u32,
        moves: bool,
        size: u32,
        keep: Keep,
        again: Label,
        not_plain: Label,
    ) {
        let piece = (LONGEST_REPEAT / size) as i32;
        let short = self.asm.label();
        self.asm.bind(again);
        self.save_flags(keep);
        self.asm.cmp_mem_imm(W::Q, context(offset_of!(Context, direction)), 1);
        self.asm.jcc(NE, not_plain);
        self.asm.mov_imm(R11, 0);
        self.asm.alu_imm(Alu::Cmp, W::D, RCX, piece);
        self.asm.jcc(BE, short);
        self.asm.lea(W::D, R11, asm::at(RCX, -piece));
        self.asm.mov_imm(RCX, piece as u32);
        self.asm.bind(short);
        self.restore_flags(keep);
        self.borrows.push((self.offset, Borrow::Count));
        self.asm.lea(W::Q, RDI, asm::indexed(R15, RDI, 1, -SLOT_SHIFT));
        if moves {
            self.asm.lea(W::Q, RSI, asm::indexed(R15, RSI, 1, -SLOT_SHIFT));
        }
        self.asm.rep(if moves { Rep::Movs } else { Rep::Stos }, size);
        self.asm.mov(W::D, RDI, RDI);
        if moves {
            self.asm.mov(W::D, RSI, RSI);
        }
        let more = self.asm.label();
        self.asm.mov(W::D, RCX, R11);
        self.asm.unless_rcx_zero(|asm| asm.jmp(more));
        self.later(Stub::PollAndGo { label: more, to: again, eip, keep: Keep::All });
    }

    /// Makes `[R8 + R9]` the place of ECX elements at `register`. To `not_plain` when they do not lie within a page.
    fn slot_of_all(
        &mut self,
        register: Reg,
        size: u32,
        access: Access,
        not_plain: Label,
        (retry, eip, saved): (Label, u32, Keep),
    ) {
        let fill = self.asm.label();
        self.asm.mov(W::D, R8, register);
        self.asm.mov(W::D, R9, register);
        self.asm.alu_imm(Alu::And, W::D, R9, PAGE_SIZE as i32 - 1);
        self.asm.lea(W::D, R9, asm::indexed(R9, RCX, size as u8, 0));
        self.asm.alu_imm(Alu::Cmp, W::D, R9, PAGE_SIZE as i32);
        self.asm.jcc(A, not_plain);
        self.slot(access, fill);
        // One byte stands for all: they are in the same page.
        self.fill_stub(fill, retry, eip, 1, access, saved);
    }
}
