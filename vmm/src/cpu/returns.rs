//! Far returns and IRET (SDM vol. 2, RET and IRET).

use super::control::CodeTarget;
use super::descriptor::{error_code, is_null, rpl};
use super::fault::{Exec, Fault};
use super::registers::{Seg, eflags, vector};
use super::stack::Stack;
use super::state::Segment;
use super::task::TaskSwitch;
use super::{Vcpu, bus::Bus};

/// Flags that IRET and POPF always take from memory.
const ALWAYS: u32 = eflags::ARITHMETIC | eflags::TF | eflags::DF | eflags::NT;

impl<B: Bus> Vcpu<B> {
    /// RET far; `extra_bytes` of parameters are dropped.
    pub fn far_return(&mut self, wide: bool, extra_bytes: u16) -> Exec {
        let size = if wide { 4 } else { 2 };
        let extra = u32::from(extra_bytes);
        let mut stack = self.current_stack();
        let eip = self.stack_peek(&stack, 0, wide)?;
        let selector = self.stack_peek(&stack, size, wide)? as u16;
        let popped = 2 * size + extra;
        if !self.descriptors_used() {
            let target = self.segmented_target(selector, eip)?;
            stack.esp = stack.advanced(popped);
            self.set_stack(&stack);
            self.enter_segmented(&target);
            return Ok(());
        }
        let target = self.return_target(selector, eip)?;
        if target.cpl == self.cpl() {
            stack.esp = stack.advanced(popped);
            self.set_stack(&stack);
            self.enter_code(&target);
            return Ok(());
        }
        let mut outer = self.outer_stack(&stack, popped, wide, target.cpl)?;
        outer.esp = outer.advanced(extra);
        self.return_outward(&target, &outer);
        Ok(())
    }

    /// The code segment that a far return or IRET goes to, at its own or an outer level.
    fn return_target(&mut self, selector: u16, eip: u32) -> Exec<CodeTarget> {
        if is_null(selector) {
            return Err(Fault::gp(0));
        }
        let invalid = Fault::gp(error_code(selector));
        let level = rpl(selector);
        let descriptor = self.descriptor(selector, vector::GP)?;
        let allowed =
            if descriptor.is_conforming() { descriptor.dpl() <= level } else { descriptor.dpl() == level };
        if !descriptor.is_code() || level < self.cpl() || !allowed {
            return Err(invalid);
        }
        self.present_code(selector, descriptor, level, eip)
    }

    /// The outer stack, whose pointer and selector stand `at` bytes above the top of `stack`.
    fn outer_stack(&mut self, stack: &Stack, at: u32, wide: bool, cpl: u8) -> Exec<Stack> {
        let size = if wide { 4 } else { 2 };
        let esp = self.stack_peek(stack, at, wide)?;
        let selector = self.stack_peek(stack, at + size, wide)? as u16;
        let segment = self.stack_segment(selector, cpl, vector::GP)?;
        let mut outer = Stack::new(segment, 0, cpl);
        // A 16-bit stack gets only SP, so the inner level's high half shows: as the silicon does.
        outer.set_pointer(stack.esp, esp);
        Ok(outer)
    }

    fn return_outward(&mut self, target: &CodeTarget, outer: &Stack) {
        self.enter_code(target);
        self.set_stack(outer);
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            self.drop_inner_segment(seg);
        }
    }

    /// IRET.
    pub fn iret(&mut self, wide: bool) -> Exec {
        if self.descriptors_used() && self.state.eflags & eflags::NT != 0 {
            self.return_to_previous_task()?;
            self.state.nmi_blocked = false;
            return Ok(());
        }
        if self.v86() && self.state.iopl() < 3 {
            return Err(Fault::gp(0));
        }
        let size = if wide { 4 } else { 2 };
        let mut stack = self.current_stack();
        let eip = self.stack_peek(&stack, 0, wide)?;
        let selector = self.stack_peek(&stack, size, wide)? as u16;
        let flags = self.stack_peek(&stack, 2 * size, wide)?;
        let popped = 3 * size;
        if !self.descriptors_used() {
            let target = self.segmented_target(selector, eip)?;
            let mut taken = ALWAYS | eflags::IF;
            if wide {
                taken |= eflags::RF | eflags::AC | eflags::ID;
            }
            if !self.v86() {
                taken |= eflags::IOPL;
            }
            stack.esp = stack.advanced(popped);
            self.set_stack(&stack);
            self.set_flags(self.flags() & !taken | flags & taken);
            self.enter_segmented(&target);
        } else if wide && flags & eflags::VM != 0 && self.cpl() == 0 {
            self.return_to_v86(&stack, eip, selector, flags)?;
        } else {
            let target = self.return_target(selector, eip)?;
            let taken = self.flags_from_stack(wide);
            if target.cpl == self.cpl() {
                stack.esp = stack.advanced(popped);
                self.set_stack(&stack);
                self.enter_code(&target);
            } else {
                let outer = self.outer_stack(&stack, popped, wide, target.cpl)?;
                self.return_outward(&target, &outer);
            }
            self.set_flags(self.flags() & !taken | flags & taken);
        }
        self.state.nmi_blocked = false;
        Ok(())
    }

    /// Which flags IRET takes from memory at the current (not the outer) privilege level.
    fn flags_from_stack(&self, wide: bool) -> u32 {
        let mut taken = ALWAYS;
        if wide {
            taken |= eflags::RF | eflags::AC | eflags::ID;
        }
        if self.cpl() <= self.state.iopl() {
            taken |= eflags::IF;
        }
        if self.cpl() == 0 {
            taken |= eflags::IOPL;
            if wide {
                taken |= eflags::VIF | eflags::VIP;
            }
        }
        taken
    }

    fn return_to_v86(&mut self, stack: &Stack, eip: u32, cs: u16, flags: u32) -> Exec {
        let esp = self.stack_peek(stack, 12, true)?;
        let mut selectors = [0u16; 5];
        for (selector, at) in selectors.iter_mut().zip([16, 20, 24, 28, 32]) {
            *selector = self.stack_peek(stack, at, true)? as u16;
        }
        let code = Segment::v86_mode(cs);
        if eip > code.limit() {
            return Err(Fault::gp(0));
        }
        for (seg, selector) in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].into_iter().zip(selectors) {
            self.state.segments[seg as usize] = Segment::v86_mode(selector);
        }
        self.state.segments[Seg::Cs as usize] = code;
        self.state.gpr[super::registers::gpr::ESP] = esp;
        self.state.eip = eip;
        self.set_flags(flags);
        self.set_cpl(3);
        Ok(())
    }

    /// IRET with NT set: back to the task named in the current TSS.
    fn return_to_previous_task(&mut self) -> Exec {
        let back_link = self.read_linear_u16(self.state.tr.base())?;
        self.switch_task(back_link, TaskSwitch::Return, 0)
    }

    /// POPF.
    pub fn popf(&mut self, wide: bool) -> Exec {
        if self.v86() && self.state.iopl() < 3 {
            return Err(Fault::gp(0));
        }
        let value = if wide { self.pop32()? } else { u32::from(self.pop16()?) };
        let mut taken = ALWAYS;
        if wide {
            taken |= eflags::AC | eflags::ID;
        }
        if self.cpl() <= self.state.iopl() {
            taken |= eflags::IF;
        }
        if self.cpl() == 0 {
            taken |= eflags::IOPL;
        }
        let mut flags = self.flags() & !taken | value & taken;
        if wide {
            flags &= !(eflags::RF | eflags::VIF | eflags::VIP);
        }
        self.set_flags(flags);
        Ok(())
    }

    /// PUSHF: VM and RF are pushed as zero.
    pub fn pushf(&mut self, wide: bool) -> Exec {
        if self.v86() && self.state.iopl() < 3 {
            return Err(Fault::gp(0));
        }
        let flags = self.flags() & !(eflags::VM | eflags::RF);
        if wide { self.push32(flags) } else { self.push16(flags as u16) }
    }
}
