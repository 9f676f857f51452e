//! PUSH, POP and their kin.

use super::memory::{Access, Operand, Stub};
use super::{Emit, Keep, host, number, seg_of, segment_field};
use crate::cpu::Segment;
use crate::cpu::registers::{Seg, gpr};
use crate::shadow::asm::{self, NE, R8, R9, R11, R12, RBP, W};
use crate::shadow::bridge::Leave;
use crate::shadow::classify::Kind;
use crate::shadow::scanner::{Scanned, Unit};
use iced_x86::{OpKind, Register};
use std::mem::offset_of;

/// Registers in the order in which PUSHA leaves them, from the lowest address up.
const ALL: [usize; 8] = [gpr::EDI, gpr::ESI, gpr::EBP, gpr::ESP, gpr::EBX, gpr::EDX, gpr::ECX, gpr::EAX];

/// Bytes of what one instruction of a run pushes or pops.
pub(super) const SLOT: usize = 4;
/// Most instructions of a run.
const LONGEST_RUN: usize = 16;

/// Whether an instruction can be part of a run, and then whether it pushes.
fn in_run(item: &Scanned) -> Option<bool> {
    let instruction = &item.instruction;
    let simple = match instruction.op0_kind() {
        _ if item.kind == Kind::Return || item.kind == Kind::PushSegment => true,
        OpKind::Register => instruction.op0_register() != Register::ESP,
        OpKind::Memory => false,
        _ => true,
    };
    if !simple
        || item.crosses
        || item.live.is_some()
        || instruction.stack_pointer_increment().unsigned_abs() as usize != SLOT && item.kind != Kind::Return
    {
        return None;
    }
    match item.kind {
        Kind::Push | Kind::PushSegment => Some(true),
        Kind::Pop | Kind::Return => Some(false),
        _ => None,
    }
}

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

    /// PUSH, POP, RET. True: control goes on behind it.
    pub(super) fn stack_instruction(&mut self, eip: u32, item: &Scanned) -> bool {
        match item.kind {
            Kind::Push => self.push(eip, item),
            Kind::PushSegment => self.push_segment(eip, item),
            Kind::Return => {
                self.ret(eip, item);
                return false;
            }
            _ => self.pop(eip, item),
        }
        true
    }

    /// Instructions from `offset` on that only push, or only pop and perhaps return, if it pays to look their place up together.
    pub(super) fn stack_run(&self, unit: &Unit, offset: u16) -> Vec<(u16, Scanned)> {
        let mut run = Vec::new();
        // In a window there is nothing to look up.
        if self.mode.window() || !self.mode.code32() || !self.mode.stack32() || !self.mode.flat(Seg::Ss) {
            return run;
        }
        let mut next = offset;
        let mut pushes = None;
        for (&at, item) in unit.instructions.range(offset..).take(LONGEST_RUN) {
            let Some(push) = in_run(item) else { break };
            let inside = at == offset || !self.labels.contains_key(&at);
            if at != next || !inside || *pushes.get_or_insert(push) != push {
                break;
            }
            run.push((at, item.clone()));
            next = at + item.len() as u16;
            if item.kind == Kind::Return {
                break;
            }
        }
        if run.len() < 2 {
            run.clear();
        }
        run
    }

    /// A run with its place looked up once: where it is not all on one plain page, one by one. True: control goes on behind it.
    pub(super) fn whole_stack_run(&mut self, run: Vec<(u16, Scanned)>, map: &mut Vec<(u16, u32)>) -> bool {
        let Some((_, first)) = run.first() else { return true };
        let keep = Keep::of(first.live_in);
        let down = in_run(first) == Some(true);
        let total = (run.len() * SLOT) as i32;
        let (slow, done) = (self.asm.label(), self.asm.label());
        map.push((run[0].0, self.asm.code.len() as u32));
        self.store_notes();
        self.save_flags(keep);
        self.asm.lea(W::D, R8, asm::at(R12, if down { -total } else { 0 }));
        self.page_change(total);
        self.asm.jcc(NE, slow);
        self.slot(if down { Access::Write } else { Access::Read }, slow);
        self.restore_flags(keep);
        let mut returns = None;
        for (n, (offset, item)) in run.iter().enumerate() {
            if n > 0 {
                map.push((*offset, self.asm.code.len() as u32));
            }
            let at = (n * SLOT) as i32;
            let place = asm::indexed(R9, R8, 1, if down { total - SLOT as i32 - at } else { at });
            let instruction = &item.instruction;
            match item.kind {
                Kind::PushSegment => {
                    let seg = seg_of(instruction.op0_register());
                    self.asm.movzx_load(R11, segment_field(seg, offset_of!(Segment, selector)), W::H);
                    self.asm.store(W::D, place, R11);
                }
                Kind::Push if instruction.op0_kind() == OpKind::Register => {
                    self.asm.store(W::D, place, host(number(instruction.op0_register())));
                }
                Kind::Push => self.asm.store_imm(W::D, place, instruction.immediate(0) as i32),
                Kind::Return => {
                    self.asm.load(W::D, R11, place);
                    returns = Some(item);
                }
                _ => self.asm.load(W::D, host(number(instruction.op0_register())), place),
            }
        }
        match returns {
            Some(item) => self.return_to_r11(total, item),
            None => self.move_stack(if down { -total } else { total }),
        }
        self.asm.bind(done);
        let continues = returns.is_none();
        let fpu_is_loaded = self.fpu_is_loaded;
        self.later(Stub::StackRun { label: slow, back: done, run, saved: keep, fpu_is_loaded });
        continues
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
                self.reach(eip, &self.operand(instruction), size, Access::Read, keep, false);
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
        self.move_stack_later(-(size as i32));
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
            self.move_stack_later(size as i32);
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

    /// Stores the return address of a CALL where that pushes it.
    pub(super) fn store_return(&mut self, eip: u32, item: &Scanned, keep: Keep) {
        let size = if self.mode.code32() { 4 } else { 2 };
        let next = eip.wrapping_add(item.len() as u32);
        self.reach_stack(eip, -(size as i32), size, Access::Write, keep);
        self.asm.store_imm(width(size), self.reached(), next as i32);
    }

    /// Pushes a constant of the mode's width: the return address of a CALL.
    pub(super) fn push_return(&mut self, eip: u32, item: &Scanned, keep: Keep) {
        let size = if self.mode.code32() { 4 } else { 2 };
        self.store_return(eip, item, keep);
        self.move_stack_later(-size);
        self.settle_stack();
    }
}
