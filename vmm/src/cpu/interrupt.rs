//! Delivering exceptions and interrupts (SDM vol. 3, "Interrupt and Exception Handling"; vol. 2, INT).

use super::descriptor::{DESCRIPTOR_SIZE, Descriptor, error_code, is_null, system_type};
use super::fault::{ERROR_EXTERNAL, ERROR_IDT, Exec, Fault, FaultClass};
use super::registers::{Seg, dr7, eflags, gpr, vector};
use super::state::{Activity, InterruptShadow, Segment};
use super::task::TaskSwitch;
use super::{Vcpu, bus::Bus};
use ipc::inspect::TraceEvent;

/// Instructions that raise an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftInterrupt {
    /// INT n (CD ib): sensitive to IOPL in virtual-8086 mode.
    Int(u8),
    /// INT3 (CC).
    Int3,
    /// INTO (CE) with OF set.
    Into,
    /// INT1 (F1): a debug exception that no gate's privilege level holds back.
    Int1,
}

/// Something to deliver.
struct Event {
    vector: u8,
    error_code: Option<u32>,
    /// The gate's privilege level is checked.
    software: bool,
    /// EXT bit of error codes that come up on the way.
    external: u32,
    /// EFLAGS as pushed.
    flags: u32,
}

/// Faults in a row whose delivery faults again. A processor goes on for ever when an alignment check meets
/// an alignment check on the way to its handler; ours shuts down, so that the machine is reset.
const MAX_NESTED_FAULTS: u32 = 16;

impl<B: Bus> Vcpu<B> {
    /// INT n, INT3, INTO, INT1. The return address is `state.eip`, which is after the instruction.
    pub fn software_interrupt(&mut self, kind: SoftInterrupt) -> Exec {
        let vector = match kind {
            SoftInterrupt::Int(vector) => {
                if self.v86() && self.state.iopl() < 3 {
                    return Err(Fault::gp(0));
                }
                vector
            }
            SoftInterrupt::Int3 => vector::BP,
            SoftInterrupt::Into => vector::OF,
            SoftInterrupt::Int1 => vector::DB,
        };
        self.trace(|cpu| TraceEvent::Software { vector, eax: cpu.state.gpr[gpr::EAX] });
        let software = kind != SoftInterrupt::Int1;
        self.deliver(&Event {
            vector,
            error_code: None,
            software,
            external: if software { 0 } else { ERROR_EXTERNAL },
            flags: self.flags(),
        })
    }

    /// Delivers an exception; what goes wrong on the way becomes a double fault or shuts the processor down.
    ///
    /// `state` is that of the instruction to restart (faults) or of the next one (traps).
    pub fn deliver_fault(&mut self, fault: Fault) {
        let mut fault = fault;
        for _ in 0..MAX_NESTED_FAULTS {
            self.trace(|_| TraceEvent::Exception {
                vector: fault.vector(),
                error_code: fault.error_code(),
                detail: fault.payload(),
            });
            self.before_exception(&fault);
            let mut flags = self.flags();
            if fault.sets_resume_flag() {
                flags |= eflags::RF;
            }
            let event = Event {
                vector: fault.vector(),
                error_code: fault.error_code(),
                software: false,
                external: ERROR_EXTERNAL,
                flags,
            };
            let Err(second) = self.deliver(&event) else { return };
            // CR2 also tells of a page fault that only leads to a double fault or a shutdown.
            self.before_exception(&second);
            fault = match (fault.class(), second.class()) {
                (FaultClass::DoubleFault, FaultClass::Benign) | (FaultClass::Benign, _) => second,
                (_, FaultClass::Benign) | (FaultClass::Contributory, FaultClass::PageFault) => second,
                (FaultClass::DoubleFault, _) => {
                    self.state.activity = Activity::Shutdown;
                    return;
                }
                _ => Fault::with_code(vector::DF, 0),
            };
        }
        self.state.activity = Activity::Shutdown;
    }

    /// What an exception changes even if it is not delivered.
    fn before_exception(&mut self, fault: &Fault) {
        match fault.vector() {
            vector::PF => self.state.cr2 = fault.payload(),
            vector::DB => {
                self.state.dr[6] |= fault.payload();
                self.state.dr[7] &= !dr7::GD;
            }
            _ => {}
        }
    }

    /// Delivers an interrupt that the interrupt controller acknowledged.
    pub fn deliver_external(&mut self, vector: u8) {
        self.trace(|_| TraceEvent::Interrupt { vector });
        let event = Event {
            vector,
            error_code: None,
            software: false,
            external: ERROR_EXTERNAL,
            flags: self.flags(),
        };
        if let Err(fault) = self.deliver(&event) {
            self.deliver_fault(fault);
        }
    }

    /// Delivers an NMI; the next one waits for an IRET.
    pub fn deliver_nmi(&mut self) {
        self.state.nmi_pending = false;
        self.state.nmi_blocked = true;
        self.deliver_external(vector::NMI);
    }

    fn deliver(&mut self, event: &Event) -> Exec {
        if self.protected_mode() {
            self.deliver_protected(event)?
        } else {
            self.deliver_real(event)?
        }
        self.state.activity = Activity::Running;
        self.state.interrupt_shadow = InterruptShadow::None;
        Ok(())
    }

    fn deliver_real(&mut self, event: &Event) -> Exec {
        const ENTRY_SIZE: u32 = 4;
        let at = u32::from(event.vector) * ENTRY_SIZE;
        if at + ENTRY_SIZE - 1 > u32::from(self.state.idtr.limit) {
            return Err(Fault::gp(idt_error(event)));
        }
        let entry = self.read_linear_u32(self.state.idtr.base.wrapping_add(at))?;
        let target = self.segmented_target((entry >> 16) as u16, entry & 0xffff)?;
        let mut stack = self.current_stack();
        self.stack_push(&mut stack, event.flags, false)?;
        self.stack_push(&mut stack, u32::from(self.state.segment(Seg::Cs).selector), false)?;
        self.stack_push(&mut stack, self.state.eip, false)?;
        self.set_stack(&stack);
        self.set_flags(self.flags() & !(eflags::IF | eflags::TF | eflags::AC | eflags::RF));
        self.enter_segmented(&target);
        Ok(())
    }

    fn deliver_protected(&mut self, event: &Event) -> Exec {
        let at = u32::from(event.vector) * DESCRIPTOR_SIZE;
        if at + DESCRIPTOR_SIZE - 1 > u32::from(self.state.idtr.limit) {
            return Err(Fault::gp(idt_error(event)));
        }
        let gate = self.read_descriptor_at(self.state.idtr.base.wrapping_add(at))?;
        let valid = gate.is_system()
            && matches!(
                gate.system_type(),
                system_type::TASK_GATE
                    | system_type::INTERRUPT_GATE16
                    | system_type::TRAP_GATE16
                    | system_type::INTERRUPT_GATE32
                    | system_type::TRAP_GATE32
            );
        if !valid || event.software && gate.dpl() < self.cpl() {
            return Err(Fault::gp(idt_error(event)));
        }
        if !gate.present() {
            return Err(Fault::np(idt_error(event)));
        }
        if gate.system_type() == system_type::TASK_GATE {
            self.through_task_gate(event, gate)
        } else {
            self.through_gate(event, gate).map_err(|fault| fault.adding(event.external))
        }
    }

    fn through_task_gate(&mut self, event: &Event, gate: Descriptor) -> Exec {
        let kind = TaskSwitch::Interrupt { flags: event.flags };
        self.switch_task(gate.gate_selector(), kind, event.external)?;
        if let Some(code) = event.error_code {
            let wide = self.state.tr.rights() & system_type::WIDE != 0;
            let mut stack = self.current_stack();
            self.stack_push(&mut stack, code, wide)
                .map_err(|fault| fault.adding(event.external).after_switch())?;
            self.set_stack(&stack);
        }
        Ok(())
    }

    fn through_gate(&mut self, event: &Event, gate: Descriptor) -> Exec {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(Fault::gp(0));
        }
        let invalid = Fault::gp(error_code(selector));
        let code = self.descriptor(selector, vector::GP)?;
        let cpl = self.cpl();
        if !code.is_code() || code.dpl() > cpl {
            return Err(invalid);
        }
        let inward = !code.is_conforming() && code.dpl() < cpl;
        let from_v86 = self.v86();
        if from_v86 && (!inward || code.dpl() != 0) {
            return Err(invalid);
        }
        let level = if inward { code.dpl() } else { cpl };
        let target = self.present_code(selector, code, level, gate.gate_offset())?;
        let wide = gate.is_wide();
        let old = self.current_stack();
        let mut stack = old;
        if inward {
            stack = self.inner_stack(level)?;
            if from_v86 {
                for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                    let selector = self.state.segment(seg).selector;
                    self.stack_push(&mut stack, u32::from(selector), wide)?;
                }
            }
            self.stack_push(&mut stack, u32::from(old.segment.selector), wide)?;
            self.stack_push(&mut stack, old.esp, wide)?;
        }
        self.stack_push(&mut stack, event.flags, wide)?;
        self.stack_push(&mut stack, u32::from(self.state.segment(Seg::Cs).selector), wide)?;
        self.stack_push(&mut stack, self.state.eip, wide)?;
        if let Some(code) = event.error_code {
            self.stack_push(&mut stack, code, wide)?;
        }

        let mut cleared = eflags::TF | eflags::NT | eflags::VM | eflags::RF;
        if matches!(gate.system_type(), system_type::INTERRUPT_GATE16 | system_type::INTERRUPT_GATE32) {
            cleared |= eflags::IF;
        }
        self.set_flags(self.flags() & !cleared);
        if from_v86 {
            for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                self.state.segments[seg as usize] = Segment::null(0);
            }
        }
        self.set_stack(&stack);
        self.enter_code(&target);
        Ok(())
    }
}

/// Error code that names an IDT entry.
fn idt_error(event: &Event) -> u32 {
    (u32::from(event.vector) * DESCRIPTOR_SIZE) | ERROR_IDT | event.external
}
