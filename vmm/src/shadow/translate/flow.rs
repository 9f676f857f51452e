//! Jumps, calls, returns, and the polls that let interrupts in.
//!
//! Within a unit a jump is a jump. Anything else goes through tables: the exec map gives for a linear page the entry table of
//! the shadow page that is mapped there, and that the code of each instruction; what is not there leads to the
//! miss stub. So nothing needs to be patched or unlinked, whatever the guest does to its code or its page tables.
//!
//! Which exec map it is depends on the attention byte, which other processes set: while somebody wants attention it is one
//! that is empty. So every jump through it is a poll, without a branch and without touching flags.

use super::memory::{Access, Operand, Stub};
use super::stack::width;
use super::{Emit, Keep, context, host, number, state};
use crate::cpu::CpuState;
use crate::cpu::registers::eflags;
use crate::shadow::asm::{self, Alu, Cond, E, Label, NE, R8, R9, R10, R11, R13, R15, RCX, W};
use crate::shadow::bridge::{Context, Leave};
use crate::shadow::classify::{Kind, Terminal};
use crate::shadow::scanner::{Scanned, Unit, on_page, target};
use iced_x86::{Code, Mnemonic, OpKind};
use ipc::board::attention;
use std::mem::offset_of;

impl Emit<'_> {
    /// The label of an instruction of this unit.
    fn inside(&self, eip: u32) -> Option<(u16, Label)> {
        let offset = on_page(self.mode, self.target.page_eip, eip)?;
        self.labels.get(&offset).map(|label| (offset, *label))
    }

    /// Whether going there could be part of a loop without any other poll.
    fn is_backward(&self, from: u32, to: u32) -> bool {
        self.mode.linear(to) <= self.mode.linear(from)
    }

    /// Jumps to a constant EIP. `live`: somebody there reads arithmetic flags.
    pub(super) fn jump_to(&mut self, from: u32, to: u32, live: Keep) {
        match self.inside(to) {
            Some((_, label)) if !self.is_backward(from, to) => self.asm.jmp(label),
            Some((_, label)) if live != Keep::All => {
                self.count(to);
                if live == Keep::Nothing {
                    self.load_attention();
                    self.asm.jcc(E, label);
                    self.leave(to, Leave::Attention);
                } else {
                    self.poll(to, live);
                    self.asm.jmp(label);
                }
            }
            _ => self.jump_external(from, to),
        }
    }

    /// Jumps through the tables to a constant EIP.
    pub(super) fn jump_external(&mut self, from: u32, to: u32) {
        let offset = on_page(self.mode, self.target.page_eip, to);
        if self.is_backward(from, to) {
            self.count(to);
        }
        self.asm.mov_imm(R8, self.mode.linear(to));
        match offset {
            Some(offset) if !self.is_backward(from, to) => {
                let entry = self.target.table + u64::from(offset) * size_of::<u32>() as u64;
                self.asm.load(W::D, R9, asm::absolute(entry as i32));
                self.asm.jmp_reg(R9);
            }
            _ => self.jump_to_r8(),
        }
    }

    /// Jumps to the linear address in R8D.
    fn jump_to_r8(&mut self) {
        self.asm.load(W::Q, R10, context(offset_of!(Context, attention)));
        self.asm.movzx_load(R10, asm::at(R10, 0), W::B);
        self.asm.shrx(R9, R8, R15);
        self.asm.load(W::Q, R10, asm::indexed(R13, R10, 8, offset_of!(Context, exec) as i32));
        self.asm.load(W::Q, R10, asm::indexed(R10, R9, 8, 0));
        self.asm.load(W::D, R9, asm::indexed(R10, R8, 4, 0));
        self.asm.jmp_reg(R9);
    }

    /// Jumps to the EIP in R8D, of the mode's width.
    fn jump_to_eip_in_r8(&mut self) {
        if self.mode.cs_base != 0 {
            self.asm.lea(W::D, R8, asm::at(R8, self.mode.cs_base as i32));
        }
        if self.target.counts {
            self.count_down();
            let miss = self.places.miss;
            self.asm.unless_rcx_zero(|asm| {
                asm.mov(W::Q, RCX, R10);
                // Over the move and the jump that follow.
                asm.bytes(&[0xeb, 3 + 5]);
            });
            self.asm.mov(W::Q, RCX, R10);
            self.asm.jmp_to(miss);
        }
        self.jump_to_r8();
    }

    /// Leaves at `eip` when the budget is used up, if code is to count.
    fn count(&mut self, eip: u32) {
        if !self.target.counts {
            return;
        }
        self.count_down();
        let go_on = self.asm.label();
        self.asm.unless_rcx_zero(|asm| {
            asm.mov(W::Q, RCX, R10);
            asm.jmp(go_on);
        });
        self.asm.mov(W::Q, RCX, R10);
        self.leave(eip, Leave::Attention);
        self.asm.bind(go_on);
    }

    /// One less of the budget, into RCX, whose content goes to R10.
    fn count_down(&mut self) {
        let budget = context(offset_of!(Context, budget));
        self.asm.mov(W::Q, R10, RCX);
        self.asm.load(W::Q, RCX, budget);
        self.asm.lea(W::Q, RCX, asm::at(RCX, -1));
        self.asm.store(W::Q, budget, RCX);
    }

    /// ZF: no attention is wanted. R9 is lost.
    fn load_attention(&mut self) {
        self.asm.load(W::Q, R9, context(offset_of!(Context, attention)));
        self.asm.movzx_load(R9, asm::at(R9, 0), W::B);
        self.asm.test_mem(W::B, context(offset_of!(Context, wanted)), R9);
    }

    /// Leaves at `eip` when attention is wanted.
    pub(super) fn poll(&mut self, eip: u32, keep_flags: Keep) {
        let wanted = self.asm.label();
        self.save_flags(keep_flags);
        self.load_attention();
        self.asm.jcc(NE, wanted);
        self.restore_flags(keep_flags);
        self.stubs.push(Stub::Leave { label: wanted, eip, saved: keep_flags, why: Leave::Attention });
    }

    /// CLI and STI at CPL 0. True: control goes on.
    pub(super) fn interrupt_flag(&mut self, offset: u16, item: &Scanned, unit: &Unit) -> bool {
        let sets = item.instruction.mnemonic() == Mnemonic::Sti;
        let next = unit.instructions.get(&(offset + item.len() as u16));
        // Interrupts are taken after the instruction behind STI. It must be one that something can be emitted behind, or that
        // polls itself.
        let polls = next.is_some_and(|next| {
            !matches!(
                next.kind,
                Kind::Jcc(_) | Kind::Loop | Kind::Jump | Kind::Call | Kind::InterruptFlag | Kind::Terminal(_)
            )
        });
        if sets && (!polls || self.target.leaves_at_sti) {
            return self.interpret(offset, item, Terminal::Flags);
        }
        let keep = Keep::of(item.live_in);
        self.save_flags(keep);
        let flags = state(offset_of!(CpuState, eflags));
        self.asm.load(W::D, R9, flags);
        if sets {
            self.asm.alu_imm(Alu::Or, W::D, R9, eflags::IF as i32);
        } else {
            self.asm.alu_imm(Alu::And, W::D, R9, !eflags::IF as i32);
        }
        self.asm.store(W::D, flags, R9);
        self.restore_flags(keep);
        let map = offset_of!(Context, maps) + if sets { size_of::<u64>() } else { 0 };
        self.asm.load(W::Q, R9, context(map));
        let slot = offset_of!(Context, exec) + attention::INTR as usize * size_of::<u64>();
        self.asm.store(W::Q, context(slot), R9);
        let wanted = if sets { -1 } else { !attention::INTR as i32 };
        self.asm.store_imm(W::B, context(offset_of!(Context, wanted)), wanted);
        self.polls_next = sets;
        true
    }

    fn live_at(unit: &Unit, offset: Option<u16>) -> Keep {
        offset
            .and_then(|offset| unit.instructions.get(&offset))
            .map_or(Keep::All, |item| Keep::of(item.live_in))
    }

    fn live_there(&self, unit: &Unit, eip: u32) -> Keep {
        Self::live_at(unit, on_page(self.mode, self.target.page_eip, eip))
    }

    pub(super) fn jump(&mut self, eip: u32, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        self.jump_to(eip, to, self.live_there(unit, to));
    }

    pub(super) fn jump_if(&mut self, eip: u32, condition: u8, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        match self.inside(to) {
            Some((_, label)) if !self.is_backward(eip, to) => self.asm.jcc(Cond(condition), label),
            Some(_) => {
                let skip = self.asm.label();
                self.asm.jcc(Cond(condition ^ 1), skip);
                self.jump_to(eip, to, self.live_there(unit, to));
                self.asm.bind(skip);
            }
            None => {
                let label = self.asm.label();
                self.asm.jcc(Cond(condition), label);
                self.stubs.push(Stub::Jump { label, from: eip, to, live: Keep::All });
            }
        }
    }

    pub(super) fn loop_instruction(&mut self, eip: u32, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        let short = matches!(
            item.instruction.code(),
            Code::Loop_rel8_16_CX
                | Code::Loop_rel8_32_CX
                | Code::Loope_rel8_16_CX
                | Code::Loope_rel8_32_CX
                | Code::Loopne_rel8_16_CX
                | Code::Loopne_rel8_32_CX
                | Code::Jcxz_rel8_16
                | Code::Jcxz_rel8_32
        );
        let taken = self.asm.label();
        self.stubs.push(Stub::Jump { label: taken, from: eip, to, live: self.live_there(unit, to) });
        let jumps_on_zero = matches!(item.instruction.mnemonic(), Mnemonic::Jcxz | Mnemonic::Jecxz);
        if jumps_on_zero {
            self.asm.mov(W::D, R9, RCX);
        } else {
            self.asm.lea(W::D, R9, asm::at(RCX, -1));
            self.asm.mov(if short { W::H } else { W::D }, RCX, R9);
        }
        if short {
            self.asm.movzx(R9, R9, W::H);
        }
        self.asm.mov(W::Q, R10, RCX);
        self.asm.mov(W::Q, RCX, R9);
        let done = self.asm.label();
        // LOOPE goes on while ZF is set, LOOPNE while it is clear.
        let stops_on = match item.instruction.mnemonic() {
            Mnemonic::Loope => Some(NE),
            Mnemonic::Loopne => Some(E),
            _ => None,
        };
        self.asm.unless_rcx_zero(|asm| {
            asm.mov(W::Q, RCX, R10);
            if let Some(condition) = stops_on {
                asm.jcc(condition, done);
            }
            asm.jmp(if jumps_on_zero { done } else { taken });
        });
        self.asm.mov(W::Q, RCX, R10);
        if jumps_on_zero {
            self.asm.jmp(taken);
        }
        self.asm.bind(done);
    }

    pub(super) fn call(&mut self, eip: u32, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        let live = self.live_there(unit, to);
        self.push_return(eip, item, live);
        self.jump_to(eip, to, live);
    }

    /// The target of an indirect jump or call into R11D.
    fn indirect_target(&mut self, eip: u32, item: &Scanned) {
        let instruction = &item.instruction;
        if instruction.op0_kind() == OpKind::Register {
            let from = host(number(instruction.op0_register()));
            if self.mode.code32() { self.asm.mov(W::D, R11, from) } else { self.asm.movzx(R11, from, W::H) }
        } else {
            let size = if self.mode.code32() { 4 } else { 2 };
            self.reach(eip, &Operand::of(instruction), size, Access::Read, Keep::All, false);
            if self.mode.code32() {
                self.asm.load(W::D, R11, self.reached())
            } else {
                self.asm.movzx_load(R11, self.reached(), W::H)
            }
        }
    }

    pub(super) fn jump_indirect(&mut self, eip: u32, item: &Scanned) {
        self.indirect_target(eip, item);
        self.asm.mov(W::D, R8, R11);
        self.jump_to_eip_in_r8();
    }

    pub(super) fn call_indirect(&mut self, eip: u32, item: &Scanned) {
        self.indirect_target(eip, item);
        self.push_return(eip, item, Keep::All);
        self.asm.mov(W::D, R8, R11);
        self.jump_to_eip_in_r8();
    }

    pub(super) fn ret(&mut self, eip: u32, item: &Scanned) {
        let size = if self.mode.code32() { 4 } else { 2 };
        let extra =
            if item.instruction.op_count() == 1 { i32::from(item.instruction.immediate16()) } else { 0 };
        self.reach_stack(eip, 0, size, Access::Read, Keep::All);
        if width(size) == W::D {
            self.asm.load(W::D, R11, self.reached())
        } else {
            self.asm.movzx_load(R11, self.reached(), W::H)
        }
        self.move_stack(size as i32 + extra);
        self.asm.mov(W::D, R8, R11);
        self.jump_to_eip_in_r8();
    }
}
