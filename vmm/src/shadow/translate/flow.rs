//! Jumps, calls, returns, and the polls that let interrupts in.
//!
//! Within a unit a jump is a jump, and so it is to a unit of the same page that exists when it is made: whoever jumps to one by itself
//! is dropped with it. Forward jumps and calls to constants on other pages remember what they found there
//! ([`crate::shadow::links`]). Anything else goes through tables: the exec map gives for a linear page the entry table of
//! the shadow page that is mapped there, and that the code of each instruction; what is not there leads to the
//! miss stub. So nothing needs to be patched or unlinked, whatever the guest does to its code or its page tables.
//!
//! Which exec map it is depends on the attention byte, which other processes set: while somebody wants attention it is one
//! that is empty. So every jump through it is a poll, without a branch and without touching flags. Calls by links do not poll: the return stack is
//! short, and when it is full the links are forgotten if somebody wants attention.
//!
//! A CALL is a call of the host too, and a RET a return: to where the matching call was, on the return stack
//! ([`crate::shadow::home`]), where the guest's EIP is compared with what that call pushed. It goes on there if they are the same: the
//! code there is of the mode and page that it was, because whatever changes either leaves shadow code, and what is on the return stack
//! behind, or empties it (far transfers). If not, EIP is looked up.

use super::memory::{Access, Operand, Stub};
use super::stack::width;
use super::{Counts, Emit, First, Keep, context, host, number, segment_field, state};
use crate::cpu::registers::{Seg, eflags};
use crate::cpu::{CpuState, Segment};
use crate::shadow::asm::{
    self, Alu, Asm, Cond, E, Label, NE, R8, R9, R10, R11, R12, R13, R15, RCX, RSP, Reg, W,
};
use crate::shadow::bridge::{Context, Leave};
use crate::shadow::cache::CodeCache;
use crate::shadow::classify::{Kind, Terminal};
use crate::shadow::scanner::{READS_EIP, Scanned, Unit, on_page, target};
use iced_x86::{Code, Mnemonic, OpKind};
use ipc::board::attention;
use std::mem::offset_of;

/// Code for returns that were predicted wrongly: EIP is in R11D.
#[derive(Clone, Copy, Debug)]
pub struct Returns {
    /// The return stack is empty.
    pub unknown: u64,
    /// It is another EIP.
    pub other: u64,
}

impl Returns {
    /// Emits it into the cache. `counts`: where it leaves when the budget is used up ([`Counts::Loops`]).
    pub fn install(cache: &mut CodeCache, counts: Option<u64>) -> Self {
        let unknown = cache.next();
        let mut asm = Asm::new(unknown);
        // The end of the stack is there again for the next one.
        asm.lea(W::Q, RSP, asm::at(RSP, -(size_of::<u64>() as i32)));
        let other = asm.here();
        asm.load(W::D, R9, segment_field(Seg::Cs, Segment::BASE_AT));
        asm.lea(W::D, R8, asm::indexed(R11, R9, 1, 0));
        if let Some(miss) = counts {
            count_to_r8(&mut asm, miss);
        }
        asm.load(W::Q, R10, context(offset_of!(Context, attention)));
        jump_through_map(&mut asm, asm::at(R10, 0));
        let code = cache.append(&asm.code);
        debug_assert!(code.is_some_and(|at| at == unknown), "an empty cache has room");
        Self { unknown, other }
    }
}

/// Code for places with a cell ([`crate::shadow::links`]) that does not say where they lead: the cell's address is in R11D, the target's
/// linear address in R8D. It goes there, and leaves in the cell what it found.
#[derive(Clone, Copy, Debug)]
pub struct Fills {
    /// Address of the target's code, for supervisors and for users.
    pub link: [u64; 2],
    /// 0, if all that the target's code does is to load its return address into a certain register, by number.
    pub reads_eip: [u64; 8],
}

impl Fills {
    /// Emits it into the cache. `miss`: where the exec map leads when it knows nothing.
    pub fn install(cache: &mut CodeCache, miss: u64) -> Self {
        let mut emit = |code: &dyn Fn(&mut Asm)| {
            let start = cache.next();
            let mut asm = Asm::new(start);
            asm.load(W::Q, R10, context(offset_of!(Context, attention)));
            find_in_map(&mut asm, asm::at(R10, 0));
            asm.mov(W::Q, R10, RCX);
            code(&mut asm);
            asm.mov(W::Q, RCX, R10);
            asm.jmp_reg(R9);
            asm.finish();
            let code = cache.append(&asm.code);
            debug_assert!(code.is_some_and(|at| at == start), "an empty cache has room");
            start
        };
        let link = [0, 1].map(|side| {
            emit(&|asm| {
                asm.lea(W::D, RCX, asm::at(R9, (miss as i32).wrapping_neg()));
                asm.unless_rcx_zero(|asm| {
                    asm.store(W::Q, asm::at(R11, 0), R9);
                    Self::log(asm, side);
                });
            })
        });
        let reads_eip = std::array::from_fn(|register| emit(&|asm| Self::compare(asm, host(register))));
        Self { link, reads_eip }
    }

    /// Notes the cell at R11D in a side's log. RCX is lost.
    fn log(asm: &mut Asm, side: usize) {
        let log = context(offset_of!(Context, link_logs) + side * size_of::<u64>());
        asm.load(W::Q, RCX, log);
        asm.store(W::D, asm::at(RCX, 0), R11);
        asm.lea(W::Q, RCX, asm::at(RCX, size_of::<u32>() as i32));
        asm.store(W::Q, log, RCX);
    }

    /// What is behind R9 is compared, without touching flags, with the one piece of code that there is for a callee that only loads its return address: then it
    /// is that, whose ever it is. RCX is lost.
    fn compare(asm: &mut Asm, register: Reg) {
        let other = asm.label();
        let pattern = reads_eip_code(register);
        // The last piece overlaps the one before.
        let pieces = (0..pattern.len() - 4).step_by(4).chain([pattern.len() - 4]);
        for at in pieces {
            let piece = i32::from_le_bytes(std::array::from_fn(|n| pattern[at + n]));
            asm.load(W::D, RCX, asm::at(R9, at as i32));
            asm.lea(W::D, RCX, asm::at(RCX, piece.wrapping_neg()));
            asm.unless_rcx_zero(|asm| asm.jmp(other));
        }
        asm.store_imm(W::D, asm::at(R11, 0), 0);
        Self::log(asm, USER);
        asm.bind(other);
    }
}

/// Code in a window, of users, that loads its return address into a register and returns.
fn reads_eip_code(register: Reg) -> Vec<u8> {
    let mut asm = Asm::new(0);
    asm.load(W::D, register, asm::at(R12, 0));
    asm.load(W::D, R11, asm::at(R12, 0));
    asm.lea(W::Q, R12, asm::at(R12, size_of::<u32>() as i32));
    asm.ret();
    asm.code
}

/// Jumps to the linear address in R8D through the exec map, with the attention byte at `attention`. R9 and R10 are lost.
fn jump_through_map(asm: &mut Asm, attention: asm::Mem) {
    find_in_map(asm, attention);
    asm.jmp_reg(R9);
}

/// The code of the linear address in R8D into R9. R10 is lost.
fn find_in_map(asm: &mut Asm, attention: asm::Mem) {
    asm.movzx_load(R10, attention, W::B);
    asm.shrx(R9, R8, R15);
    asm.load(W::Q, R10, asm::indexed(R13, R10, 8, offset_of!(Context, exec) as i32));
    asm.load(W::Q, R10, asm::indexed(R10, R9, 8, 0));
    asm.load(W::D, R9, asm::indexed(R10, R8, 4, 0));
}

/// One less of the budget, into RCX, whose content goes to R10.
fn count_down(asm: &mut Asm) {
    let budget = context(offset_of!(Context, budget));
    asm.mov(W::Q, R10, RCX);
    asm.load(W::Q, RCX, budget);
    asm.lea(W::Q, RCX, asm::at(RCX, -1));
    asm.store(W::Q, budget, RCX);
}

/// Leaves for the linear address in R8D when the budget is used up. `miss`: the code that does so.
fn count_to_r8(asm: &mut Asm, miss: u64) {
    count_down(asm);
    asm.unless_rcx_zero(|asm| {
        asm.mov(W::Q, RCX, R10);
        // Over the move and the jump that follow.
        asm.bytes(&[0xeb, 3 + 5]);
    });
    asm.mov(W::Q, RCX, R10);
    asm.jmp_to(miss);
}

/// Bytes of a return address on the stack of code in windows.
const SLOT: i32 = size_of::<u32>() as i32;
/// The side of users' logs and links.
const USER: usize = 1;

/// How control gets where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Jump,
    /// A call, whose return address is on the return stack.
    Call,
}

/// Code that is known when a jump to it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// In this unit.
    Own(Label),
    /// A neighbour's.
    Other(u64),
}

impl Emit<'_> {
    /// The code at an EIP, if it is known.
    fn known(&self, eip: u32) -> Option<Known> {
        let offset = on_page(self.mode, self.target.page_eip, eip)?;
        let own = self.labels.get(&offset).map(|label| Known::Own(*label));
        own.or_else(|| self.neighbours.get(&offset).map(|neighbour| Known::Other(neighbour.code)))
    }

    fn jump_known(&mut self, to: Known) {
        match to {
            Known::Own(label) => self.asm.jmp(label),
            Known::Other(code) => {
                self.links.insert(code);
                self.asm.jmp_to(code);
            }
        }
    }

    /// Control goes on with the instruction at another offset, whose code is not what follows.
    pub(super) fn fall_to(&mut self, offset: u16) {
        self.store_notes();
        let eip = self.eip(offset);
        match self.known(eip) {
            Some(known) => self.jump_known(known),
            None => self.jump_external(eip, eip),
        }
    }

    /// Whether going there could be part of a loop without any other poll.
    fn is_backward(&self, from: u32, to: u32) -> bool {
        self.mode.linear(to) <= self.mode.linear(from)
    }

    /// Jumps to a constant EIP. `live`: somebody there reads arithmetic flags.
    pub(super) fn jump_to(&mut self, from: u32, to: u32, live: Keep) {
        match self.known(to) {
            Some(known) if !self.is_backward(from, to) => self.jump_known(known),
            Some(known) if live != Keep::All => {
                self.count(to);
                self.poll_and_jump(to, known, live);
            }
            _ => self.jump_external(from, to),
        }
    }

    /// Jumps to the code of EIP `to`, or leaves there when attention is wanted. `live`: not all flags.
    pub(super) fn poll_and_jump(&mut self, to: u32, known: Known, live: Keep) {
        if let (Known::Own(label), Keep::Nothing) = (known, live) {
            let wanted = self.asm.label();
            self.asm.cmp_mem_imm(W::B, self.attention(), 0);
            self.asm.jcc(E, label);
            self.asm.jmp(wanted);
            self.later(Stub::Poll { label: wanted, back: label, eip: to, saved: Keep::Nothing });
        } else {
            self.poll(to, live);
            self.jump_known(known);
        }
    }

    /// Calls the code at a constant EIP, and polls if it is backward: what calls itself comes back by such a call.
    fn call_to(&mut self, from: u32, to: u32, live: Keep) {
        let polls = self.is_backward(from, to);
        match self.known(to) {
            Some(known) if !polls || live != Keep::All => {
                if polls {
                    self.poll(to, live);
                }
                match known {
                    Known::Own(label) => self.asm.call(label),
                    Known::Other(code) => {
                        self.links.insert(code);
                        self.asm.call_to(code);
                    }
                }
            }
            _ if self.go_by_link(to, By::Call) => {}
            _ => {
                self.asm.mov_imm(R8, self.mode.linear(to));
                self.go_to_r8(By::Call);
            }
        }
    }

    /// The next free cell. `first`: what is in it as long as nothing is known.
    fn cell(&mut self, first: First) -> Option<u32> {
        let [start, end] = self.target.cells;
        let cell = start + self.cells.len() as u32 * size_of::<u64>() as u32;
        (cell < end).then(|| self.cells.push(first))?;
        Some(cell)
    }

    /// Goes to a constant EIP of another page by a link, without a poll. No flag changes. False: there is no room for one.
    fn go_by_link(&mut self, to: u32, by: By) -> bool {
        let is_near = on_page(self.mode, self.target.page_eip, to).is_some();
        if !self.mode.code32() || is_near {
            return false;
        }
        let label = self.asm.label();
        let Some(cell) = self.cell(First::Code(label)) else { return false };
        self.later(Stub::Link { label, cell, linear: self.mode.linear(to) });
        match by {
            By::Jump => self.asm.jmp_through(cell as i32),
            By::Call => self.asm.call_through(cell as i32),
        }
        true
    }

    /// The attention byte.
    fn attention(&self) -> asm::Mem {
        asm::at(R13, self.places.attention)
    }

    /// Jumps through the tables to a constant EIP.
    pub(super) fn jump_external(&mut self, from: u32, to: u32) {
        let offset = on_page(self.mode, self.target.page_eip, to);
        if self.is_backward(from, to) {
            self.count(to);
        }
        if !self.is_backward(from, to) && self.go_by_link(to, By::Jump) {
            return;
        }
        self.asm.mov_imm(R8, self.mode.linear(to));
        match offset {
            Some(offset) if !self.is_backward(from, to) => {
                let entry = self.target.table + u64::from(offset) * size_of::<u32>() as u64;
                self.asm.load(W::D, R9, asm::absolute(entry as i32));
                self.asm.jmp_reg(R9);
            }
            _ => self.go_to_r8(By::Jump),
        }
    }

    /// Goes to the linear address in R8D.
    fn go_to_r8(&mut self, by: By) {
        let attention = self.attention();
        find_in_map(self.asm, attention);
        match by {
            By::Jump => self.asm.jmp_reg(R9),
            By::Call => self.asm.call_reg(R9),
        }
    }

    /// Goes to the EIP in R8D, of the mode's width.
    fn go_to_eip_in_r8(&mut self, by: By) {
        if self.mode.cs_base != 0 {
            self.asm.lea(W::D, R8, asm::at(R8, self.mode.cs_base as i32));
        }
        self.go_counted_to_r8(by);
    }

    /// Jumps to the linear address in R8D, which may be part of a loop.
    pub(super) fn jump_counted_to_r8(&mut self) {
        self.go_counted_to_r8(By::Jump);
    }

    fn go_counted_to_r8(&mut self, by: By) {
        if self.target.counts != Counts::Nothing {
            count_to_r8(self.asm, self.places.miss);
        }
        self.go_to_r8(by);
    }

    /// Leaves at `eip` when the budget is used up, if code is to count. No flag changes.
    pub(super) fn count(&mut self, eip: u32) {
        if self.target.counts == Counts::Nothing {
            return;
        }
        count_down(self.asm);
        let go_on = self.asm.label();
        self.asm.unless_rcx_zero(|asm| {
            asm.mov(W::Q, RCX, R10);
            asm.jmp(go_on);
        });
        self.asm.mov(W::Q, RCX, R10);
        self.store(self.notes);
        self.leave(eip, Leave::Attention);
        self.asm.bind(go_on);
    }

    /// Leaves at `eip` when attention is wanted.
    pub(super) fn poll(&mut self, eip: u32, keep_flags: Keep) {
        let (wanted, back) = (self.asm.label(), self.asm.label());
        self.save_flags(keep_flags);
        self.asm.cmp_mem_imm(W::B, self.attention(), 0);
        self.asm.jcc(NE, wanted);
        self.asm.bind(back);
        self.restore_flags(keep_flags);
        self.later(Stub::Poll { label: wanted, back, eip, saved: keep_flags });
    }

    /// The attention byte is not zero: leaves, if it is wanted now. R9 is lost.
    pub(super) fn poll_stub(&mut self, back: Label, eip: u32, saved: Keep) {
        self.asm.movzx_load(R9, self.attention(), W::B);
        self.asm.test_mem(W::B, context(offset_of!(Context, wanted)), R9);
        self.asm.jcc(E, back);
        self.restore_flags(saved);
        self.store_notes();
        self.leave(eip, Leave::Attention);
    }

    /// Whether calls are the host's too.
    fn predicts_returns(&self) -> bool {
        self.target.counts != Counts::All
    }

    /// Where the return of the call just emitted arrives: goes on behind the guest's CALL, if it is to `next`.
    fn landing(&mut self, next: u32) {
        let other = self.places.returns.other;
        self.asm.mov(W::Q, R10, RCX);
        self.asm.lea(W::D, RCX, asm::at(R11, (next as i32).wrapping_neg()));
        self.asm.unless_rcx_zero(|asm| {
            asm.mov(W::Q, RCX, R10);
            asm.jmp_to(other);
        });
        self.asm.mov(W::Q, RCX, R10);
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
                Kind::Jcc(_)
                    | Kind::Loop
                    | Kind::Jump
                    | Kind::Call
                    | Kind::InterruptFlag
                    | Kind::LoadSegment
                    // (The others do not go on in shadow code while attention is wanted.)
                    | Kind::Terminal(Terminal::Segment)
            )
        });
        if sets && (!polls || self.target.counts == Counts::All) {
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

    pub(super) fn live_at(unit: &Unit, offset: Option<u16>) -> Keep {
        offset
            .and_then(|offset| unit.instructions.get(&offset))
            .map_or(Keep::All, |item| Keep::of(item.live_in))
    }

    fn live_there(&self, unit: &Unit, eip: u32) -> Keep {
        let offset = on_page(self.mode, self.target.page_eip, eip);
        match offset.and_then(|offset| self.neighbours.get(&offset)) {
            Some(neighbour) => Keep::of(neighbour.live),
            None => Self::live_at(unit, offset),
        }
    }

    pub(super) fn jump(&mut self, eip: u32, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        self.jump_to(eip, to, self.live_there(unit, to));
    }

    pub(super) fn jump_if(&mut self, eip: u32, condition: u8, item: &Scanned, unit: &Unit) {
        let to = target(&item.instruction);
        match self.known(to) {
            Some(Known::Own(label)) if !self.is_backward(eip, to) => self.asm.jcc(Cond(condition), label),
            Some(Known::Other(code)) if !self.is_backward(eip, to) => {
                self.links.insert(code);
                self.asm.jcc_to(Cond(condition), code);
            }
            Some(_) => {
                let skip = self.asm.label();
                self.asm.jcc(Cond(condition ^ 1), skip);
                self.jump_to(eip, to, self.live_there(unit, to));
                self.asm.bind(skip);
            }
            None => {
                let label = self.asm.label();
                self.asm.jcc(Cond(condition), label);
                self.later(Stub::Jump { label, from: eip, to, live: Keep::All });
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
        self.later(Stub::Jump { label: taken, from: eip, to, live: self.live_there(unit, to) });
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

    /// EIP behind an instruction, of the mode's width.
    fn behind(&self, eip: u32, item: &Scanned) -> u32 {
        eip.wrapping_add(item.len() as u32) & self.mode.eip_mask()
    }

    /// CALL. True when control comes back behind it.
    pub(super) fn call(&mut self, eip: u32, item: &Scanned, unit: &Unit) -> bool {
        let to = target(&item.instruction);
        let live = self.live_there(unit, to);
        if self.call_that_reads_eip(eip, item, unit) {
            return true;
        }
        self.push_return(eip, item, live);
        if self.predicts_returns() && to != self.behind(eip, item) {
            if self.is_backward(eip, to) {
                self.count(to);
            }
            self.call_to(eip, to, live);
            self.landing(self.behind(eip, item));
            return true;
        }
        // (What is called only to learn EIP never returns.)
        self.jump_to(eip, to, live);
        false
    }

    /// CALL of code that only loads its return address into a register: does what that does, if it is that still. False: not here.
    fn call_that_reads_eip(&mut self, eip: u32, item: &Scanned, unit: &Unit) -> bool {
        let Some(register) = item.reads_eip.map(usize::from) else { return false };
        if !self.mode.window() || !self.mode.user() || !self.predicts_returns() {
            return false;
        }
        let (to, next) = (target(&item.instruction), self.behind(eip, item));
        let cell = match on_page(self.mode, self.target.page_eip, to) {
            // It must be of this unit, which is dropped when it is written over.
            Some(offset) if !unit.has_whole(offset, READS_EIP) => return false,
            Some(_) => None,
            None => match self.cell(First::One) {
                None => return false,
                cell => cell,
            },
        };
        // (Whoever is there instead may read flags.)
        self.store_return(eip, item, Keep::All);
        self.move_stack_later(-SLOT);
        if self.is_backward(eip, to) {
            self.count(to);
        }
        let back = self.asm.label();
        if let Some(cell) = cell {
            let unknown = self.asm.label();
            self.asm.mov(W::Q, R10, RCX);
            self.asm.load(W::D, RCX, asm::absolute(cell as i32));
            self.asm.unless_rcx_zero(|asm| asm.jmp(unknown));
            self.asm.mov(W::Q, RCX, R10);
            let linear = self.mode.linear(to);
            self.later(Stub::ReadsEip { label: unknown, back, cell, linear, register, next });
        }
        self.asm.mov_imm(host(register), next);
        self.asm.bind(back);
        self.move_stack_later(SLOT);
        true
    }

    /// The call of [`Emit::call_that_reads_eip`] itself.
    pub(super) fn call_to_read_eip(&mut self, cell: u32, linear: u32, register: usize, next: u32) {
        let notes = self.notes;
        self.asm.mov(W::Q, RCX, R10);
        self.settle_stack();
        self.asm.mov_imm(R8, linear);
        self.asm.mov_imm(R11, cell);
        self.asm.call_to(self.places.fills.reads_eip[register]);
        self.landing(next);
        self.unsettle_stack(notes, SLOT);
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
        self.go_to_eip_in_r8(By::Jump);
    }

    /// CALL through a register or memory. True when control comes back behind it.
    pub(super) fn call_indirect(&mut self, eip: u32, item: &Scanned) -> bool {
        self.indirect_target(eip, item);
        self.push_return(eip, item, Keep::All);
        self.asm.mov(W::D, R8, R11);
        if !self.predicts_returns() {
            self.go_to_eip_in_r8(By::Jump);
            return false;
        }
        self.go_to_eip_in_r8(By::Call);
        self.landing(self.behind(eip, item));
        true
    }

    pub(super) fn ret(&mut self, eip: u32, item: &Scanned) {
        let size = if self.mode.code32() { 4 } else { 2 };
        self.reach_stack(eip, 0, size, Access::Read, Keep::All);
        if width(size) == W::D {
            self.asm.load(W::D, R11, self.reached())
        } else {
            self.asm.movzx_load(R11, self.reached(), W::H)
        }
        self.return_to_r11(size as i32, item);
    }

    /// What RET does when the stack pointer is to be moved by `popped` and EIP is in R11.
    pub(super) fn return_to_r11(&mut self, popped: i32, item: &Scanned) {
        let extra =
            if item.instruction.op_count() == 1 { i32::from(item.instruction.immediate16()) } else { 0 };
        self.settle_stack_and_move(popped + extra);
        if self.predicts_returns() {
            return self.asm.ret();
        }
        self.asm.mov(W::D, R8, R11);
        self.go_to_eip_in_r8(By::Jump);
    }
}
