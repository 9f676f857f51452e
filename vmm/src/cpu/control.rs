//! Jumps and calls, near and far, through call gates, task gates and TSSs
//! (SDM vol. 2, JMP and CALL; vol. 3, "Calling Procedures through Call Gates").

use super::descriptor::{Descriptor, error_code, is_null, rpl, system_type};
use super::fault::{Exec, Fault};
use super::registers::{Seg, rights, vector};
use super::stack::Stack;
use super::state::Segment;
use super::task::TaskSwitch;
use super::{Vcpu, bus::Bus};

/// A code segment that a far transfer goes to, all checks made.
#[derive(Clone, Copy)]
pub(super) struct CodeTarget {
    pub(super) segment: Segment,
    pub(super) cpl: u8,
    pub(super) eip: u32,
}

impl<B: Bus> Vcpu<B> {
    /// Near jump, call or return within CS: checks its limit. (The engine pushes or pops.)
    #[inline]
    pub fn jump_near(&mut self, eip: u32) -> Exec {
        if eip > self.state.segment(Seg::Cs).limit() {
            return Err(Fault::gp(0));
        }
        self.state.eip = eip;
        Ok(())
    }

    /// Goes to a code segment.
    pub(super) fn enter_code(&mut self, target: &CodeTarget) {
        self.set_cs(target.segment, target.cpl);
        self.state.eip = target.eip;
    }

    /// A far target in real or virtual-8086 mode.
    pub(super) fn segmented_target(&self, selector: u16, eip: u32) -> Exec<CodeTarget> {
        let (segment, cpl) = if self.v86() {
            (Segment::v86_mode(selector), 3)
        } else {
            (self.state.segment(Seg::Cs).real_mode(selector), 0)
        };
        if eip > segment.limit() { Err(Fault::gp(0)) } else { Ok(CodeTarget { segment, cpl, eip }) }
    }

    /// Goes to a target in real or virtual-8086 mode; the selector's low bits are no RPL there.
    pub(super) fn enter_segmented(&mut self, target: &CodeTarget) {
        self.state.segments[Seg::Cs as usize] = target.segment;
        self.set_cpl(target.cpl);
        self.state.eip = target.eip;
    }

    /// The code segment of a direct far jump or call, whose descriptor has been read.
    fn direct_target(&mut self, selector: u16, descriptor: Descriptor, eip: u32) -> Exec<CodeTarget> {
        let cpl = self.cpl();
        let allowed = if descriptor.is_conforming() {
            descriptor.dpl() <= cpl
        } else {
            rpl(selector) <= cpl && descriptor.dpl() == cpl
        };
        if !allowed {
            return Err(Fault::gp(error_code(selector)));
        }
        self.present_code(selector, descriptor, cpl, eip)
    }

    /// The last checks of a code segment that may be entered at `cpl`: present, offset within it.
    pub(super) fn present_code(
        &mut self,
        selector: u16,
        descriptor: Descriptor,
        cpl: u8,
        eip: u32,
    ) -> Exec<CodeTarget> {
        if !descriptor.present() {
            return Err(Fault::np(error_code(selector)));
        }
        if eip > descriptor.limit() {
            return Err(Fault::gp(0));
        }
        let segment = self.mark_accessed(selector, descriptor)?.segment(selector);
        Ok(CodeTarget { segment, cpl, eip })
    }

    /// JMP far. (With a 16-bit operand size the engine has cut `offset` to 16 bits.)
    pub fn far_jump(&mut self, selector: u16, offset: u32) -> Exec {
        if !self.descriptors_used() {
            let target = self.segmented_target(selector, offset)?;
            self.enter_segmented(&target);
            return Ok(());
        }
        let descriptor = self.far_descriptor(selector)?;
        if descriptor.is_code() {
            let target = self.direct_target(selector, descriptor, offset)?;
            self.enter_code(&target);
            return Ok(());
        }
        match self.far_system_target(selector, descriptor)? {
            SystemTarget::Gate(gate) => {
                let (code_selector, code) = self.gate_code(gate)?;
                let cpl = self.cpl();
                if !code.is_conforming() && code.dpl() != cpl {
                    return Err(Fault::gp(error_code(code_selector)));
                }
                let target = self.present_code(code_selector, code, cpl, gate.gate_offset())?;
                self.enter_code(&target);
                Ok(())
            }
            SystemTarget::Task(tss) => self.switch_task(tss, TaskSwitch::Jump, 0),
        }
    }

    /// CALL far; `wide` pushes dwords (and is the operand size).
    pub fn far_call(&mut self, selector: u16, offset: u32, wide: bool) -> Exec {
        if !self.descriptors_used() {
            let target = self.segmented_target(selector, offset)?;
            let mut stack = self.current_stack();
            self.push_return_address(&mut stack, wide)?;
            self.set_stack(&stack);
            self.enter_segmented(&target);
            return Ok(());
        }
        let descriptor = self.far_descriptor(selector)?;
        if descriptor.is_code() {
            let target = self.direct_target(selector, descriptor, offset)?;
            return self.call_same_level(&target, wide);
        }
        match self.far_system_target(selector, descriptor)? {
            SystemTarget::Gate(gate) => self.call_gate(gate),
            SystemTarget::Task(tss) => self.switch_task(tss, TaskSwitch::Call, 0),
        }
    }

    fn push_return_address(&mut self, stack: &mut Stack, wide: bool) -> Exec {
        let cs = self.state.segment(Seg::Cs).selector;
        self.stack_push(stack, u32::from(cs), wide)?;
        self.stack_push(stack, self.state.eip, wide)
    }

    fn call_same_level(&mut self, target: &CodeTarget, wide: bool) -> Exec {
        let mut stack = self.current_stack();
        self.push_return_address(&mut stack, wide)?;
        self.set_stack(&stack);
        self.enter_code(target);
        Ok(())
    }

    fn call_gate(&mut self, gate: Descriptor) -> Exec {
        let (selector, code) = self.gate_code(gate)?;
        let wide = gate.is_wide();
        let (eip, cpl) = (gate.gate_offset(), self.cpl());
        if code.is_conforming() || code.dpl() == cpl {
            let target = self.present_code(selector, code, cpl, eip)?;
            return self.call_same_level(&target, wide);
        }
        let inner = code.dpl();
        let target = self.present_code(selector, code, inner, eip)?;
        let mut stack = self.inner_stack(inner)?;
        let old = self.current_stack();
        self.stack_push(&mut stack, u32::from(old.segment.selector), wide)?;
        self.stack_push(&mut stack, old.esp, wide)?;
        let size = if wide { 4 } else { 2 };
        for parameter in (0..gate.gate_parameters()).rev() {
            let value = self.stack_peek(&old, parameter * size, wide)?;
            self.stack_push(&mut stack, value, wide)?;
        }
        self.push_return_address(&mut stack, wide)?;
        self.set_stack(&stack);
        self.enter_code(&target);
        Ok(())
    }

    /// The stack for privilege level `level`, from the TSS; errors are #TS and #SS.
    pub(super) fn inner_stack(&mut self, level: u8) -> Exec<Stack> {
        let tr = self.state.tr;
        let (at, size) = match tr.rights() & system_type::WIDE != 0 {
            true => (4 + u32::from(level) * 8, 8),
            false => (2 + u32::from(level) * 4, 4),
        };
        if !tr.usable() || at + size - 1 > tr.limit() {
            return Err(Fault::ts(error_code(tr.selector)));
        }
        let address = tr.base().wrapping_add(at);
        let (esp, selector) = if size == 8 {
            (self.read_linear_u32(address)?, self.read_linear_u16(address.wrapping_add(4))?)
        } else {
            (u32::from(self.read_linear_u16(address)?), self.read_linear_u16(address.wrapping_add(2))?)
        };
        let segment = self.stack_segment(selector, level, vector::TS)?;
        Ok(Stack::new(segment, esp, level))
    }

    fn far_descriptor(&mut self, selector: u16) -> Exec<Descriptor> {
        if is_null(selector) {
            return Err(Fault::gp(0));
        }
        self.descriptor(selector, vector::GP)
    }

    /// What a far jump or call to a system descriptor goes to, after the checks of the gate or TSS itself.
    fn far_system_target(&mut self, selector: u16, descriptor: Descriptor) -> Exec<SystemTarget> {
        let invalid = Fault::gp(error_code(selector));
        let gate = descriptor.is_system()
            && matches!(
                descriptor.system_type(),
                system_type::CALL_GATE16 | system_type::CALL_GATE32 | system_type::TASK_GATE
            );
        let reachable = descriptor.dpl() >= self.cpl().max(rpl(selector));
        if !reachable || !gate && !descriptor.is_available_tss() {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(selector)));
        }
        Ok(if !gate {
            SystemTarget::Task(selector)
        } else if descriptor.system_type() == system_type::TASK_GATE {
            SystemTarget::Task(descriptor.gate_selector())
        } else {
            SystemTarget::Gate(descriptor)
        })
    }

    /// The code segment behind a call gate: selector and descriptor, type and privilege checked as
    /// far as jumps and calls agree.
    fn gate_code(&mut self, gate: Descriptor) -> Exec<(u16, Descriptor)> {
        let selector = gate.gate_selector();
        let code = self.far_descriptor(selector)?;
        if !code.is_code() || code.dpl() > self.cpl() {
            return Err(Fault::gp(error_code(selector)));
        }
        Ok((selector, code))
    }

    /// SYSENTER (SDM vol. 2).
    pub fn sysenter(&mut self) -> Exec {
        use super::registers::{eflags, gpr, selector};
        let cs = self.state.msr.sysenter_cs as u16 & !selector::RPL;
        if !self.protected_mode() || cs == 0 {
            return Err(Fault::gp(0));
        }
        self.set_flags(self.flags() & !(eflags::VM | eflags::IF | eflags::RF));
        self.set_flat_segments(cs, 0);
        self.state.gpr[gpr::ESP] = self.state.msr.sysenter_esp;
        self.state.eip = self.state.msr.sysenter_eip;
        Ok(())
    }

    /// SYSEXIT (SDM vol. 2).
    pub fn sysexit(&mut self) -> Exec {
        use super::registers::{gpr, selector};
        const USER_CODE: u16 = 16;
        let cs = self.state.msr.sysenter_cs as u16;
        if cs & !selector::RPL == 0 || !self.protected_mode() || self.cpl() != 0 {
            return Err(Fault::gp(0));
        }
        self.set_flat_segments(cs.wrapping_add(USER_CODE) & !selector::RPL, 3);
        self.state.gpr[gpr::ESP] = self.state.gpr[gpr::ECX];
        self.state.eip = self.state.gpr[gpr::EDX];
        Ok(())
    }

    /// CS and, eight higher, SS as SYSENTER and SYSEXIT set them, without looking at any descriptor.
    fn set_flat_segments(&mut self, cs: u16, cpl: u8) {
        let dpl = u16::from(cpl) << rights::DPL_SHIFT;
        let ss = cs.wrapping_add(8) | u16::from(cpl);
        self.set_cs(Segment::new(cs, rights::FLAT_CODE | dpl, 0, u32::MAX), cpl);
        self.state.segments[Seg::Ss as usize] = Segment::new(ss, rights::FLAT_DATA | dpl, 0, u32::MAX);
    }
}

/// Where a far transfer through a system descriptor leads.
enum SystemTarget {
    /// Through this call gate.
    Gate(Descriptor),
    /// To the task whose TSS this selects.
    Task(u16),
}
