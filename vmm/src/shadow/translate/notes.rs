//! What the floating-point unit remembers of its last instruction: FOP, FIP and FDP.
//!
//! The host's own must not reach the guest, so shadow code stores the guest's. Only the last ones count: a note is put off until
//! something might look, or until what it is made of changes, and dropped when the next one comes first. The ways out of an instruction
//! that are taken rarely store what is still put off ([`Late`]); faults in windows go by such a way too ([`Emit::note_way_out`]).
//!
//! In windows constant moves of ESP are put off in the same way, by PUSH, POP and their kin, and by ADD and SUB where nobody reads their
//! flags: R12 then lags behind, accesses of the stack have that in their displacement, and one move does for all. Never
//! both at a time.

use super::memory::{Operand, Stub};
use super::stack::SLOT;
use super::{Emit, context, segment_field, state};
use crate::cpu::fpu::FpuState;
use crate::cpu::registers::Seg;
use crate::cpu::{CpuState, Segment};
use crate::shadow::asm::{self, R9, R12, Reg, W};
use crate::shadow::bridge::Context;
use crate::shadow::classify::{Kind, has_memory};
use crate::shadow::fpu;
use crate::shadow::scanner::Scanned;
use crate::shadow::window::GUARD_BYTES;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::mem::offset_of;

/// Notes that were put off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// EIP and FOP of an instruction.
    instruction: Option<(u32, u16)>,
    /// Its operand in memory, or that of one before it.
    operand: Option<Operand>,
    /// ESP is elsewhere than R12.
    stack: Lag,
}

/// How far R12 lags behind ESP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    /// ESP minus what R12 has of it.
    by: i32,
    /// Nothing was accessed where ESP is now. Then R12 must wrap round like ESP when it follows: a loop of such moves could carry it out of
    /// the window and its guards.
    unproven: bool,
}

impl Notes {
    pub(super) const fn is_empty(&self) -> bool {
        self.instruction.is_none() && self.operand.is_none() && self.stack.by == 0
    }
}

/// How far R12 may lag behind before an instruction: displacements stay short.
const LONGEST_LAG: u32 = 64;
/// How far one ADD or SUB may move ESP beyond that.
const LONGEST_MOVE: u32 = 4096;
const _: () = assert!(((LONGEST_LAG + LONGEST_MOVE) as u64) < GUARD_BYTES / 8);

/// Whether R12 may lag behind across an instruction.
fn stack_may_lag(item: &Scanned) -> bool {
    let instruction = &item.instruction;
    let names_esp = (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register
            && matches!(instruction.op_register(n), Register::ESP | Register::SP)
    });
    let moves_by_slot = instruction.stack_pointer_increment().unsigned_abs() == SLOT as u32;
    !item.crosses
        && item.live.is_none()
        && !names_esp
        && match item.kind {
            Kind::Plain | Kind::Lea | Kind::Nothing => true,
            Kind::Push | Kind::Pop => moves_by_slot,
            Kind::Call | Kind::Return => true,
            _ => false,
        }
}

/// Code that is needed rarely, behind the unit, and what was put off where it is needed.
pub(super) struct Late {
    pub(super) stub: Stub,
    pub(super) notes: Notes,
}

/// A field of the floating-point state.
const fn fpu_field(offset: usize) -> asm::Mem {
    state(offset_of!(CpuState, fpu) + offset)
}

/// Whether notes can be put off across an instruction.
const fn lets_pass(kind: Kind) -> bool {
    matches!(kind, Kind::Plain | Kind::Float | Kind::Nothing | Kind::Lea)
}

/// What an instruction adds to a 32-bit register, if it is a constant.
fn added_constant(instruction: &Instruction) -> Option<i32> {
    use Mnemonic::*;
    if instruction.op0_kind() != OpKind::Register || !instruction.op0_register().is_gpr32() {
        return None;
    }
    let is_immediate = instruction.op_count() == 2
        && matches!(instruction.op1_kind(), OpKind::Immediate32 | OpKind::Immediate8to32);
    match instruction.mnemonic() {
        Inc => Some(1),
        Dec => Some(-1),
        Add if is_immediate => Some(instruction.immediate(1) as i32),
        Sub if is_immediate => Some((instruction.immediate(1) as i32).wrapping_neg()),
        _ => None,
    }
}

impl Operand {
    /// The same address seen from after an instruction that changes one of its registers, if that is as good as known: it adds a
    /// constant.
    fn after(&self, instruction: &Instruction) -> Option<Self> {
        let added = added_constant(instruction).filter(|_| !self.short)?;
        let register = super::host(instruction.op0_register().number());
        let mut factor = i32::from(self.base == Some(register));
        if let Some((index, scale)) = self.index
            && index == register
        {
            factor += i32::from(scale);
        }
        Some(Self { disp: self.disp.wrapping_sub(added.wrapping_mul(factor)), ..*self })
    }
}

/// Whether an instruction writes one of the registers of an operand.
fn changes(instruction: &Instruction, operand: &Operand) -> bool {
    let used = |register: Reg| {
        operand.base == Some(register) || operand.index.is_some_and(|(index, _)| index == register)
    };
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_registers().iter().any(|register| {
        let writes = !matches!(register.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
        let whole = register.register().full_register32();
        writes && whole.is_gpr32() && used(super::host(whole.number()))
    })
}

impl Emit<'_> {
    /// Puts off code.
    pub(super) fn later(&mut self, stub: Stub) {
        self.stubs.push(Late { stub, notes: self.notes });
    }

    /// Before an instruction: stores what cannot be put off across it.
    pub(super) fn notes_before(&mut self, item: &Scanned) {
        if self.notes.is_empty() {
            return;
        }
        if self.notes.stack.by != 0 {
            if !stack_may_lag(item) || self.notes.stack.by.unsigned_abs() > LONGEST_LAG {
                return self.store_notes();
            }
            let accesses = matches!(item.kind, Kind::Push | Kind::Pop | Kind::Call | Kind::Return);
            if accesses || has_memory(&item.instruction) {
                self.note_way_out();
            }
            return;
        }
        if !lets_pass(item.kind) {
            return self.store_notes();
        }
        if let Some(operand) = self.notes.operand
            && changes(&item.instruction, &operand)
        {
            self.notes.operand = operand.after(&item.instruction);
            if self.notes.operand.is_none() {
                self.store_operand(&operand);
            }
        }
        let accesses = has_memory(&item.instruction) || item.live.is_some();
        if self.mode.window() && accesses && !self.notes.is_empty() {
            self.note_way_out();
        }
    }

    /// Remembers that faults of this instruction leave by a way that stores what was put off.
    fn note_way_out(&mut self) {
        let label = self.asm.label();
        self.ways_out.push((self.start, label));
        self.later(Stub::WayOut { label });
    }

    /// An operand in memory of an instruction, with R12 as it is.
    pub(super) fn operand(&self, instruction: &Instruction) -> Operand {
        self.with_lag(Operand::of(instruction))
    }

    /// An operand that the guest has at ESP, with R12 as it is.
    pub(super) fn with_lag(&self, operand: Operand) -> Operand {
        let lag = if operand.base == Some(R12) { self.notes.stack.by } else { 0 };
        Operand { disp: operand.disp.wrapping_add(lag), ..operand }
    }

    /// [`Emit::move_stack`] by an instruction that has accessed the stack there, later if it can be put off.
    pub(super) fn move_stack_later(&mut self, by: i32) {
        if self.mode.window() && by.unsigned_abs() as usize == SLOT {
            self.notes.stack = Lag { by: self.notes.stack.by + by, unproven: false };
        } else {
            self.move_stack(by);
        }
    }

    /// ADD and SUB of a constant to ESP, and copies of ESP, while R12 lags behind or so that it does. True: that is all that was to be done.
    pub(super) fn put_off_stack_move(&mut self, item: &Scanned) -> bool {
        let (instruction, lag) = (&item.instruction, self.notes.stack);
        let has_notes = self.notes.instruction.is_some() || self.notes.operand.is_some();
        if !self.mode.window() || has_notes || item.crosses || item.live.is_some() {
            return false;
        }
        let is_esp = |n| {
            n < instruction.op_count()
                && instruction.op_kind(n) == OpKind::Register
                && instruction.op_register(n) == Register::ESP
        };
        if instruction.mnemonic() == Mnemonic::Mov && is_esp(1) && !is_esp(0) && lag.by != 0 {
            let to = instruction.op0_register();
            if instruction.op0_kind() == OpKind::Register && to.is_gpr32() {
                self.asm.lea(W::D, super::host(to.number()), asm::at(R12, lag.by));
                return true;
            }
        }
        let Some(by) = added_constant(instruction).filter(|_| is_esp(0) && item.live_out == 0) else {
            return false;
        };
        if by.unsigned_abs() > LONGEST_MOVE || lag.by.unsigned_abs() > LONGEST_LAG {
            return false;
        }
        self.notes.stack = Lag { by: lag.by + by, unproven: true };
        true
    }

    /// Moves the stack pointer as far as that was put off, and by `more` where the stack has just been accessed; no flag changes.
    pub(super) fn settle_stack_and_move(&mut self, more: i32) {
        let lag = std::mem::take(&mut self.notes.stack);
        self.move_stack(lag.by + more);
    }

    /// Moves the stack pointer as far as that was put off; no flag changes.
    pub(super) fn settle_stack(&mut self) {
        let lag = std::mem::take(&mut self.notes.stack);
        self.follow_stack(lag);
    }

    /// ESP has moved on by `more`: has R12 lag behind as if that had been put off too, like all that was with `notes`; no flag changes.
    pub(super) fn unsettle_stack(&mut self, notes: Notes, more: i32) {
        self.move_stack(-(notes.stack.by + more));
    }

    fn follow_stack(&mut self, lag: Lag) {
        match lag {
            Lag { by: 0, .. } => {}
            Lag { by, unproven: false } => self.move_stack(by),
            Lag { by, unproven: true } => {
                self.asm.lea(W::D, R12, asm::at(R12, by));
                self.fix_stack();
            }
        }
    }

    /// Remembers an x87 instruction that is not a control instruction. In code of 16 bits segments change often: selectors are stored
    /// at once. Elsewhere [`fpu::resolve`] stores them.
    pub(super) fn note_instruction(&mut self, eip: u32, mut fop: u16) {
        if !self.mode.code32() {
            fop |= fpu::SELECTOR_KNOWN;
            if !std::mem::replace(&mut self.fpu_cs_noted, true) {
                self.store_selector(Seg::Cs, offset_of!(FpuState, instruction_selector));
            }
        }
        self.notes.instruction = Some((eip, fop));
    }

    /// Remembers the operand in memory of such an instruction.
    pub(super) fn note_operand(&mut self, operand: &Operand) {
        self.notes.operand = Some(*operand);
        if !self.mode.code32() && self.fpu_operand_noted.replace(operand.seg) != Some(operand.seg) {
            self.store_selector(operand.seg, offset_of!(FpuState, operand_selector));
        }
    }

    /// FNINIT: the last instruction is forgotten.
    pub(super) fn forget_notes(&mut self) {
        self.notes = Notes::default();
        for (w, place, value) in [
            (W::H, fpu_field(offset_of!(FpuState, opcode)), i32::from(fpu::NO_OPCODE)),
            (W::H, context(offset_of!(Context, fpu_opcode)), 0),
            (W::B, context(offset_of!(Context, fpu_operand_segment)), i32::from(fpu::NO_SEGMENT)),
            (W::H, fpu_field(offset_of!(FpuState, instruction_selector)), 0),
            (W::D, fpu_field(offset_of!(FpuState, instruction_offset)), 0),
            (W::H, fpu_field(offset_of!(FpuState, operand_selector)), 0),
            (W::D, fpu_field(offset_of!(FpuState, operand_offset)), 0),
        ] {
            self.asm.store_imm(w, place, value);
        }
    }

    /// Stores what was put off. R9 is lost, no flag is.
    pub(super) fn store_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        self.store(notes);
    }

    /// Stores notes. R9 is lost, no flag is.
    pub(super) fn store(&mut self, notes: Notes) {
        if let Some((eip, fop)) = notes.instruction {
            self.asm.store_imm(W::D, fpu_field(offset_of!(FpuState, instruction_offset)), eip as i32);
            self.asm.store_imm(W::H, fpu_field(offset_of!(FpuState, opcode)), i32::from(fop));
        }
        if let Some(operand) = notes.operand {
            self.store_operand(&operand);
        }
        self.follow_stack(notes.stack);
    }

    fn store_operand(&mut self, operand: &Operand) {
        self.offset(operand, R9);
        self.asm.store(W::D, fpu_field(offset_of!(FpuState, operand_offset)), R9);
        if self.mode.code32() {
            let place = context(offset_of!(Context, fpu_operand_segment));
            self.asm.store_imm(W::B, place, operand.seg as i32);
        }
    }

    fn store_selector(&mut self, seg: Seg, offset: usize) {
        self.asm.movzx_load(R9, segment_field(seg, offset_of!(Segment, selector)), W::H);
        self.asm.store(W::H, fpu_field(offset), R9);
    }
}
