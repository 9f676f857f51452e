//! Accesses to guest memory: the address, the segment's checks, the slot of the direct map, and the ways out when
//! the access is not plain.

use super::notes::Late;
use super::{Emit, Keep, context, host, number, seg_of, segment_field, state};
use crate::cpu::direct::ARRAY_BYTES;
use crate::cpu::registers::Seg;
use crate::cpu::{CpuState, Segment};
use crate::shadow::asm::{self, A, Alu, E, Label, NE, R8, R9, R10, R15, Reg, W};
use crate::shadow::bridge::{Context, Leave, SLOT_SHIFT};
use crate::shadow::classify::Terminal;
use crate::shadow::scanner::Scanned;
use iced_x86::{Instruction, Register};
use std::mem::offset_of;

/// What `bridge_fill` is told of an access: its size in the low byte, and whether it writes.
pub mod access {
    /// Bytes.
    pub const SIZE: u32 = 0xff;
    /// The slot for writes is wanted.
    pub const WRITE: u32 = 1 << 8;
    /// The instruction uses the floating-point unit.
    pub const FLOAT: u32 = 1 << 9;
    /// It can be made without the slot.
    pub const ONCE: u32 = 1 << 10;
}

/// Bits of an address that differ between pages.
const PAGE_BITS: u32 = 0xffff_f000;

/// How an operand in memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Also for what is read and written.
    Write,
}

/// An operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    pub(super) seg: Seg,
    pub(super) base: Option<Reg>,
    pub(super) index: Option<(Reg, u8)>,
    pub(super) disp: i32,
    /// Addresses are 16 bits.
    pub(super) short: bool,
}

impl Operand {
    /// The operand of `instruction` that ModRM or an absolute offset addresses.
    pub(super) fn of(instruction: &Instruction) -> Self {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let short = match (base, index) {
            (Register::None, Register::None) => instruction.memory_displ_size() == 2,
            (Register::None, index) => index.size() == 2,
            (base, _) => base.size() == 2,
        };
        let register = |register: Register| (register != Register::None).then(|| host(number(register)));
        Self {
            seg: seg_of(instruction.memory_segment()),
            base: register(base),
            index: register(index).map(|index| (index, instruction.memory_index_scale() as u8)),
            disp: instruction.memory_displacement32() as i32,
            short,
        }
    }

    /// `seg:[base + disp]`.
    pub(super) const fn at(seg: Seg, base: Reg, disp: i32, short: bool) -> Self {
        Self { seg, base: Some(base), index: None, disp, short }
    }

    const fn mem(&self) -> Option<asm::Mem> {
        match (self.base, self.index) {
            (Some(base), Some((index, scale))) => Some(asm::indexed(base, index, scale, self.disp)),
            (Some(base), None) => Some(asm::at(base, self.disp)),
            (None, Some((index, scale))) => Some(asm::scaled(index, scale, self.disp)),
            (None, None) => None,
        }
    }
}

/// Code that is needed rarely, behind the unit.
pub(super) enum Stub {
    /// The slot is empty: have it filled and try again, or leave, or go on at `once` with a distance for this access alone.
    Fill { label: Label, retry: Label, eip: u32, access: u32, saved: Keep, once: Option<Label> },
    /// The address is not aligned: if the access stays in its page, go on at `back`.
    Crossing { label: Label, back: Label, fill: Label, size: i32 },
    /// Poll at `eip`, and go on at `to`.
    PollAndGo { label: Label, to: Label, eip: u32, keep: Keep },
    /// Leave to the interpreter.
    Interpret { label: Label, eip: u32, saved: Keep },
    /// The attention byte is not zero: leave at `eip`, or go on at `back`.
    Poll { label: Label, back: Label, eip: u32, saved: Keep },
    /// The same for an instruction that uses the floating-point unit.
    InterpretFloat { label: Label, eip: u32, saved: Keep },
    /// Have the instruction at the offset, which ends at `next`, interpreted in place, and go on at `back`. `loads`: a segment register
    /// from a descriptor that is to be remembered.
    InPlace {
        label: Label,
        back: Label,
        offset: u16,
        next: u32,
        saved: Keep,
        why: Terminal,
        loads: Option<Seg>,
    },
    /// What a run of pushes or pops does, one by one; go on at `back`.
    StackRun { label: Label, back: Label, run: Vec<(u16, Scanned)>, saved: Keep, fpu_is_loaded: bool },
    /// A fault leaves: the processor's state is known but for what was put off.
    WayOut { label: Label },
    /// Have the floating-point unit loaded, and go on at `back`.
    LoadFpu { label: Label, back: Label, eip: u32 },
    /// Where the cell at an address leads at first: fills it, and goes to a linear address.
    Link { label: Label, cell: u32, linear: u32 },
    /// Nothing is known of a callee that may only load its return address, `next`, into a register: calls it, and goes on at `back`.
    ReadsEip { label: Label, back: Label, cell: u32, linear: u32, register: usize, next: u32 },
    /// A jump that is taken rarely, or that leaves the unit.
    Jump { label: Label, from: u32, to: u32, live: Keep },
}

/// Displacements up to this are added without wrapping round: what they lead to beyond a window faults in its guard.
const SHORT_WAY: i32 = 1 << 15;
const _: () = assert!((SHORT_WAY as u64) < crate::shadow::window::GUARD_BYTES / 8);

/// `[R15 + offset + disp]` of a window.
const fn in_window(offset: Reg, disp: i32) -> asm::Mem {
    asm::indexed(R15, offset, 1, disp - SLOT_SHIFT)
}

/// Where the last access that was reached is, with the direct map.
const IN_SLOT: asm::Mem = asm::indexed(R9, R8, 1, 0);

impl Emit<'_> {
    /// Where the last operand that was reached is.
    pub(super) fn reached(&self) -> asm::Mem {
        if self.mode.window() { self.place } else { IN_SLOT }
    }

    /// The operand's place in a window, if an addressing mode of the host leads there.
    fn window_place(&self, operand: &Operand) -> Option<asm::Mem> {
        if operand.short || !self.mode.flat(operand.seg) || operand.index.is_some() {
            return None;
        }
        let near = operand.disp.unsigned_abs() <= SHORT_WAY as u32;
        match operand.base {
            Some(asm::R12) if near => Some(asm::at(asm::R12, operand.disp)),
            Some(base) if near && base != asm::R12 => Some(in_window(base, operand.disp)),
            // Absolute, in the lower half.
            None if operand.disp >= SLOT_SHIFT => Some(asm::at(R15, operand.disp - SLOT_SHIFT)),
            _ => None,
        }
    }

    /// Whether the instruction can have its operand through GS: the host then wraps the address round, and no register is needed.
    pub(super) fn goes_through_gs(&self, operand: &Operand) -> bool {
        self.mode.window()
            && !operand.short
            && self.mode.flat(operand.seg)
            && self.window_place(operand).is_none()
    }

    /// Puts R12 right after an instruction that made it ESP alone.
    pub(super) fn fix_stack(&mut self) {
        if self.mode.window() {
            self.asm.lea(W::Q, asm::R12, in_window(asm::R12, 0));
        }
    }

    /// The same after an instruction that may have.
    pub(super) fn fix_stack_if_needed(&mut self) {
        if self.mode.window() {
            self.asm.mov(W::D, asm::R12, asm::R12);
            self.fix_stack();
        }
    }

    /// [`Emit::reach`] in a window: nothing is asked, the access itself faults. R8 is only used where the host has no
    /// addressing mode for it.
    fn reach_window(&mut self, eip: u32, operand: &Operand, size: u32, access: Access, keep_flags: Keep) {
        if let Some(place) = self.window_place(operand) {
            self.place = place;
            return;
        }
        let flat = self.mode.flat(operand.seg);
        if !flat {
            self.save_flags(keep_flags);
        }
        self.offset(operand, R8);
        if !flat {
            self.segment(eip, operand.seg, size, access, keep_flags);
            self.restore_flags(keep_flags);
        }
        self.place = in_window(R8, 0);
    }

    /// Offset of an operand into `to`; no flag changes.
    pub(super) fn offset(&mut self, operand: &Operand, to: Reg) {
        match operand.mem() {
            None => self
                .asm
                .mov_imm(to, if operand.short { operand.disp as u32 & 0xffff } else { operand.disp as u32 }),
            Some(mem) => {
                if let (Some(base), None, 0, false) =
                    (operand.base, operand.index, operand.disp, operand.short)
                {
                    self.asm.mov(W::D, to, base);
                    return;
                }
                self.asm.lea(W::D, to, mem);
                if operand.short {
                    self.asm.movzx(to, to, W::H);
                }
            }
        }
    }

    /// Makes [`Emit::reached`] the operand's place in host memory, or leaves. With the direct map it is `[R8 + R9]`, in a
    /// window whatever leads there.
    ///
    /// `keep_flags`: somebody reads the arithmetic flags as they are before this access. R10 is lost then, R11 never.
    /// `aligned`: only addresses that are a multiple of the size are plain.
    pub(super) fn reach(
        &mut self,
        eip: u32,
        operand: &Operand,
        size: u32,
        access: Access,
        keep_flags: Keep,
        aligned: bool,
    ) {
        if self.mode.window() {
            return self.reach_window(eip, operand, size, access, keep_flags);
        }
        let (fill, retry) = (self.asm.label(), self.asm.label());
        self.asm.bind(retry);
        self.save_flags(keep_flags);
        self.offset(operand, R8);
        if !self.mode.flat(operand.seg) {
            self.segment(eip, operand.seg, size, access, keep_flags);
        }
        if aligned {
            let never = self.asm.label();
            self.asm.test_imm(R8, size - 1);
            self.asm.jcc(NE, never);
            self.later(Stub::InterpretFloat { label: never, eip, saved: keep_flags });
        } else if size > 1 {
            let back = self.asm.label();
            let crossing = self.asm.label();
            if size.is_power_of_two() {
                self.asm.test_low(R8, size as u8 - 1);
            } else {
                self.page_change(size as i32);
            }
            self.asm.jcc(NE, crossing);
            self.asm.bind(back);
            self.later(Stub::Crossing { label: crossing, back, fill, size: size as i32 });
        }
        self.slot(access, fill);
        self.restore_flags(keep_flags);
        if self.meets_devices(fill, keep_flags) {
            return;
        }
        let once = (access == Access::Write).then(|| {
            let once = self.asm.label();
            self.asm.bind(once);
            once
        });
        let access = self.fill_access(size, access);
        self.later(Stub::Fill { label: fill, retry, eip, access, saved: keep_flags, once });
    }

    /// The slot of the page of R8 into R9; to `fill` when it is empty.
    pub(super) fn slot(&mut self, access: Access, fill: Label) {
        let array = if access == Access::Write { ARRAY_BYTES as i32 } else { 0 };
        self.asm.shrx(R9, R8, R15);
        self.asm.load(W::Q, R9, asm::indexed(R15, R9, 8, array - SLOT_SHIFT));
        self.asm.test(W::Q, R9, R9);
        self.asm.jcc(E, fill);
    }

    /// What is done about an empty slot.
    pub(super) fn fill_stub(
        &mut self,
        label: Label,
        retry: Label,
        eip: u32,
        size: u32,
        access: Access,
        saved: Keep,
    ) {
        if self.meets_devices(label, saved) {
            return;
        }
        let access = self.fill_access(size, access);
        self.later(Stub::Fill { label, retry, eip, access, saved, once: None });
    }

    /// For an instruction whose access meets devices: at `label`, where a slot is empty, it is interpreted in place. False: it is not one.
    fn meets_devices(&mut self, label: Label, saved: Keep) -> bool {
        let Some((next, back)) = self.device else { return false };
        let why = Terminal::Device;
        self.later(Stub::InPlace { label, back, offset: self.offset, next, saved, why, loads: None });
        true
    }

    /// [`access`] bits.
    fn fill_access(&self, size: u32, access: Access) -> u32 {
        size | if access == Access::Write { access::WRITE } else { 0 }
            | if self.fpu_is_loaded { access::FLOAT } else { 0 }
    }

    /// Checks the offset in R8 against the segment's end and adds its base.
    fn segment(&mut self, eip: u32, seg: Seg, size: u32, access: Access, saved: Keep) {
        let outside = self.asm.label();
        let end = if access == Access::Write { Segment::WRITE_END_AT } else { Segment::READ_END_AT };
        self.asm.lea(W::Q, R9, asm::at(R8, size as i32));
        self.asm.alu_load(Alu::Cmp, W::Q, R9, segment_field(seg, end));
        self.asm.jcc(A, outside);
        self.asm.load(W::D, R9, segment_field(seg, Segment::BASE_AT));
        self.asm.lea(W::D, R8, asm::indexed(R8, R9, 1, 0));
        self.later(if self.fpu_is_loaded {
            Stub::InterpretFloat { label: outside, eip, saved }
        } else {
            Stub::Interpret { label: outside, eip, saved }
        });
    }

    /// ZF: `size` bytes at R8 lie within one page. R9 is lost.
    pub(super) fn page_change(&mut self, size: i32) {
        self.asm.lea(W::D, R9, asm::at(R8, size - 1));
        self.asm.alu(Alu::Xor, W::D, R9, R8);
        self.asm.test_imm(R9, PAGE_BITS);
    }

    /// The same as [`Emit::reach`] for the top of the stack: `bytes` below it (`down`), or at it.
    pub(super) fn reach_stack(&mut self, eip: u32, disp: i32, size: u32, access: Access, keep_flags: Keep) {
        let operand = self.with_lag(Operand::at(Seg::Ss, asm::R12, disp, !self.mode.stack32()));
        self.reach(eip, &operand, size, access, keep_flags, false);
    }

    /// Emits what was put off.
    pub(super) fn stubs(&mut self) {
        while let Some(Late { stub, notes }) = self.stubs.pop() {
            // What is emitted for it may put off more.
            self.notes = notes;
            match stub {
                Stub::Fill { label, retry, eip, access, saved, once } => {
                    self.asm.bind(label);
                    self.restore_flags(saved);
                    self.store(notes);
                    self.asm.store_imm(W::D, state(offset_of!(CpuState, eip)), eip as i32);
                    if let Some(once) = once {
                        self.asm.mov_imm(R9, access | access::ONCE);
                        self.asm.mov_label(R10, once);
                        self.asm.call_to(self.places.bridge.fill);
                        self.asm.jmp_reg(R10);
                    } else {
                        self.asm.mov_imm(R9, access);
                        self.asm.call_to(self.places.bridge.fill);
                    }
                    self.asm.jmp(retry);
                }
                Stub::Crossing { label, back, fill, size } => {
                    self.asm.bind(label);
                    self.page_change(size);
                    self.asm.jcc(E, back);
                    self.asm.jmp(fill);
                }
                Stub::PollAndGo { label, to, eip, keep } => {
                    self.asm.bind(label);
                    self.poll(eip, keep);
                    self.asm.jmp(to);
                }
                Stub::Interpret { label, eip, saved } => {
                    self.interpret_stub(label, eip, saved, Leave::Interpret)
                }
                Stub::Poll { label, back, eip, saved } => {
                    self.asm.bind(label);
                    self.poll_stub(back, eip, saved);
                }
                Stub::InterpretFloat { label, eip, saved } => {
                    self.interpret_stub(label, eip, saved, Leave::InterpretFloat);
                }
                Stub::InPlace { label, back, offset, next, saved, why, loads } => {
                    self.asm.bind(label);
                    if why == Terminal::Device {
                        self.asm.store(W::D, context(offset_of!(Context, device_linear)), R8);
                    }
                    self.restore_flags(saved);
                    self.store(notes);
                    if let Some(seg) = loads {
                        self.asm.store_imm(W::B, context(offset_of!(Context, loading)), seg as i32 + 1);
                    }
                    self.call_interpreter(offset, next, why);
                    self.asm.jmp(back);
                }
                Stub::StackRun { label, back, run, saved, fpu_is_loaded } => {
                    self.asm.bind(label);
                    self.restore_flags(saved);
                    self.fpu_is_loaded = fpu_is_loaded;
                    let mut continues = true;
                    for (offset, item) in &run {
                        self.offset = *offset;
                        continues = self.stack_instruction(self.eip(*offset), item);
                    }
                    if continues {
                        self.asm.jmp(back);
                    }
                }
                Stub::WayOut { label } => {
                    self.asm.bind(label);
                    self.store(notes);
                    self.asm.jmp_to(self.places.bridge.to_host);
                }
                Stub::LoadFpu { label, back, eip } => {
                    self.asm.bind(label);
                    self.fpu_stub(eip, back);
                }
                Stub::Link { label, cell, linear } => {
                    self.asm.bind(label);
                    self.asm.mov_imm(R8, linear);
                    self.asm.mov_imm(asm::R11, cell);
                    self.asm.jmp_to(self.places.fills.link[usize::from(self.mode.user())]);
                }
                Stub::ReadsEip { label, back, cell, linear, register, next } => {
                    self.asm.bind(label);
                    self.call_to_read_eip(cell, linear, register, next);
                    self.asm.jmp(back);
                }
                Stub::Jump { label, from, to, live } => {
                    self.asm.bind(label);
                    self.jump_to(from, to, live);
                }
            }
        }
    }

    fn interpret_stub(&mut self, label: Label, eip: u32, saved: Keep, why: Leave) {
        self.asm.bind(label);
        self.restore_flags(saved);
        self.store_notes();
        self.leave(eip, why);
    }
}
