//! A stack that is not (yet) the current one: where control transfers build and read their frames
//! before they commit.

use super::bus::Bus;
use super::fault::{Exec, Fault};
use super::registers::{Seg, gpr};
use super::state::Segment;
use super::tlb::Mode;
use super::{Vcpu, Word};

/// A stack segment and pointer with the rights to use them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) segment: Segment,
    pub(super) esp: u32,
    mode: Mode,
    /// Error code of a #SS: zero for the current stack, the selector of a new one.
    error_code: u32,
}

impl Stack {
    /// A stack of privilege level `cpl` that is being switched to.
    pub(super) fn new(segment: Segment, esp: u32, cpl: u8) -> Self {
        let mode = if cpl == 3 { Mode::User } else { Mode::Supervisor };
        Self { segment, esp, mode, error_code: super::descriptor::error_code(segment.selector) }
    }

    fn mask(&self) -> u32 {
        if self.segment.big() { u32::MAX } else { 0xffff }
    }

    fn check(&self, offset: u32, len: u32, write: bool) -> Exec<u32> {
        if self.segment.allows(offset, len, write) {
            Ok(self.segment.base().wrapping_add(offset))
        } else {
            Err(Fault::ss(self.error_code))
        }
    }

    /// Sets the pointer as a return to this stack does: a 16-bit stack keeps the high half.
    pub(super) fn set_pointer(&mut self, previous: u32, value: u32) {
        let mask = self.mask();
        self.esp = previous & !mask | value & mask;
    }

    /// The pointer `bytes` further up.
    pub(super) fn advanced(&self, bytes: u32) -> u32 {
        let mask = self.mask();
        self.esp & !mask | self.esp.wrapping_add(bytes) & mask
    }
}

impl<B: Bus> Vcpu<B> {
    /// The current stack.
    pub(super) fn current_stack(&self) -> Stack {
        Stack {
            segment: *self.state.segment(Seg::Ss),
            esp: self.state.gpr[gpr::ESP],
            mode: self.mode,
            error_code: 0,
        }
    }

    /// Makes `stack` the current one.
    pub(super) fn set_stack(&mut self, stack: &Stack) {
        self.state.segments[Seg::Ss as usize] = stack.segment;
        self.state.gpr[gpr::ESP] = stack.esp;
    }

    fn stack_push_word<T: Word>(&mut self, stack: &mut Stack, value: T) -> Exec {
        let mask = stack.mask();
        let top = stack.esp.wrapping_sub(T::SIZE) & mask;
        let linear = stack.check(top, T::SIZE, true)?;
        self.write_linear_as(linear, value, stack.mode)?;
        stack.esp = stack.esp & !mask | top;
        Ok(())
    }

    /// Pushes 32 (`wide`) or 16 bits.
    pub(super) fn stack_push(&mut self, stack: &mut Stack, value: u32, wide: bool) -> Exec {
        if wide { self.stack_push_word(stack, value) } else { self.stack_push_word(stack, value as u16) }
    }

    /// Reads the 32 (`wide`) or 16 bits that stand `bytes` above the top.
    pub(super) fn stack_peek(&mut self, stack: &Stack, bytes: u32, wide: bool) -> Exec<u32> {
        let offset = stack.advanced(bytes) & stack.mask();
        if wide {
            let linear = stack.check(offset, u32::SIZE, false)?;
            self.read_linear_as::<u32>(linear, stack.mode)
        } else {
            let linear = stack.check(offset, u16::SIZE, false)?;
            self.read_linear_as::<u16>(linear, stack.mode).map(u32::from)
        }
    }
}
