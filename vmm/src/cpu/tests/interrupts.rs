//! Exceptions and interrupts in all modes, double and triple faults.

use crate::cpu::model::feature;
use crate::cpu::registers::{Seg, cr0, eflags, gpr, vector};
use crate::cpu::testing::{RamBus, at, gate, protected, sel, vcpu};
use crate::cpu::{Activity, Fault, SoftInterrupt, Vcpu};

const INTERRUPT_GATE: u16 = 0x8e;
const TRAP_GATE: u16 = 0x8f;
const INTERRUPT_GATE_DPL3: u16 = 0xee;

fn with_gate(number: u8, attributes: u16) -> Vcpu<RamBus> {
    let mut cpu = protected();
    cpu.set_idt(number, gate(sel::CODE0, 0x7000 + u32::from(number), attributes, 0));
    cpu
}

/// Goes to virtual-8086 mode as an operating system does; code at 1000:0100, stack 2000:1000.
fn enter_v86(cpu: &mut Vcpu<RamBus>, flags: u32) {
    let frame = [0x6000, 0x5000, 0x4000, 0x3000, 0x2000, 0x1000, flags | eflags::VM, 0x1000, 0x100];
    for value in frame {
        cpu.push32(value).unwrap();
    }
    cpu.iret(true).unwrap();
}

#[test]
fn real_mode_interrupt_goes_through_the_vector_table_and_returns() {
    let mut cpu = vcpu();
    cpu.far_jump(0x100, 0x20).unwrap();
    cpu.state.gpr[gpr::ESP] = 0x8000;
    cpu.bus.poke16(0x10 * 4, 0x1234);
    cpu.bus.poke16(0x10 * 4 + 2, 0xf000);
    cpu.set_flags(eflags::IF | eflags::TF | eflags::CF);

    cpu.software_interrupt(SoftInterrupt::Int(0x10)).unwrap();

    assert_eq!((cpu.state.segment(Seg::Cs).base(), cpu.state.eip), (0xf_0000, 0x1234));
    assert_eq!(cpu.flags(), eflags::CF | 2);
    assert_eq!(cpu.stack_word(0), 0x20);
    assert_eq!(cpu.stack_word(1), 0x100);
    assert_eq!(u32::from(cpu.stack_word(2)), eflags::IF | eflags::TF | eflags::CF | 2);
    cpu.iret(false).unwrap();
    assert_eq!((cpu.state.segment(Seg::Cs).selector, cpu.state.eip, cpu.esp()), (0x100, 0x20, 0x8000));
    assert_eq!(cpu.flags(), eflags::IF | eflags::TF | eflags::CF | 2);
}

#[test]
fn real_mode_exception_pushes_no_error_code() {
    let mut cpu = vcpu();
    cpu.state.gpr[gpr::ESP] = 0x8000;
    cpu.deliver_fault(Fault::gp(0));
    assert_eq!(cpu.esp(), 0x7ffa);
}

#[test]
fn external_interrupt_wakes_from_halt() {
    let mut cpu = with_gate(0x20, INTERRUPT_GATE);
    cpu.sti().unwrap();
    cpu.hlt().unwrap();
    assert_eq!(cpu.state.activity, Activity::Halted);
    cpu.deliver_external(0x20);
    assert_eq!(cpu.state.activity, Activity::Running);
    assert_eq!(cpu.state.eip, 0x7020);
    assert!(!cpu.accepts_interrupts());
    assert_eq!(cpu.esp(), at::STACK0 - 12);
}

#[test]
fn trap_gate_leaves_interrupts_enabled() {
    let mut cpu = with_gate(0x80, TRAP_GATE);
    cpu.set_flags(eflags::IF | eflags::TF | eflags::NT);
    cpu.software_interrupt(SoftInterrupt::Int(0x80)).unwrap();
    assert_eq!(cpu.flags(), eflags::IF | 2);
}

#[test]
fn exception_from_user_code_switches_to_the_kernel_stack_and_returns() {
    let mut cpu = with_gate(vector::PF, INTERRUPT_GATE);
    cpu.enter_user(0x4000, eflags::IF);

    cpu.deliver_fault(Fault::pf(0xdead_b000, 6));

    assert_eq!((cpu.cpl(), cpu.state.cr2, cpu.state.eip), (0, 0xdead_b000, 0x700e));
    let frame: Vec<u32> = (0..6).map(|i| cpu.stack_dword(i)).collect();
    let flags = eflags::IF | eflags::RF | 2;
    assert_eq!(frame, [6, 0x4000, u32::from(sel::CODE3), flags, at::STACK3, u32::from(sel::DATA3)]);
    cpu.pop32().unwrap();
    cpu.iret(true).unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (3, 0x4000, at::STACK3));
    assert_eq!(cpu.flags(), flags);
}

#[test]
fn software_interrupts_obey_the_gates_privilege_level_but_exceptions_do_not() {
    let mut cpu = with_gate(vector::BP, INTERRUPT_GATE);
    cpu.set_idt(0x80, gate(sel::CODE0, 0x8000, INTERRUPT_GATE_DPL3, 0));
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.software_interrupt(SoftInterrupt::Int3), Err(Fault::gp(3 * 8 + 2)));
    assert_eq!(cpu.software_interrupt(SoftInterrupt::Int(0xff)), Err(Fault::gp(0xff * 8 + 2)));
    cpu.set_idt(1, gate(sel::CODE0, 0x9000, INTERRUPT_GATE, 0));
    cpu.software_interrupt(SoftInterrupt::Int(0x80)).unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip), (0, 0x8000));
    cpu.iret(true).unwrap();
    cpu.software_interrupt(SoftInterrupt::Int1).unwrap();
    assert_eq!(cpu.state.eip, 0x9000);
}

#[test]
fn error_code_of_a_fault_during_an_external_interrupt_has_the_ext_bit() {
    let mut cpu = with_gate(vector::NP, INTERRUPT_GATE);
    cpu.set_idt(0x20, gate(sel::CODE0, 0, INTERRUPT_GATE & 0x7f, 0));
    cpu.deliver_external(0x20);
    assert_eq!(cpu.state.eip, 0x700b);
    assert_eq!(cpu.stack_dword(0), 0x20 * 8 + 3);

    let mut cpu = with_gate(vector::GP, INTERRUPT_GATE);
    cpu.set_idt(0x20, gate(sel::DATA0, 0, INTERRUPT_GATE, 0));
    cpu.deliver_external(0x20);
    assert_eq!(cpu.stack_dword(0), u32::from(sel::DATA0) | 1);
}

#[test]
fn contributory_exceptions_make_a_double_fault() {
    let mut cpu = with_gate(vector::DF, INTERRUPT_GATE);
    cpu.deliver_fault(Fault::gp(0x10));
    assert_eq!((cpu.state.eip, cpu.state.activity), (0x7008, Activity::Running));
    assert_eq!(cpu.stack_dword(0), 0);
}

#[test]
fn fault_while_delivering_a_benign_exception_is_delivered_itself() {
    let mut cpu = with_gate(vector::GP, INTERRUPT_GATE);
    cpu.deliver_fault(Fault::ud());
    assert_eq!(cpu.state.eip, 0x700d);
    assert_eq!(cpu.stack_dword(0), u32::from(vector::UD) * 8 + 3);
}

#[test]
fn page_fault_on_the_kernel_stack_shuts_down_with_its_address_in_cr2() {
    let mut cpu = with_gate(vector::DF, INTERRUPT_GATE);
    cpu.set_idt(vector::PF, gate(sel::CODE0, 0x8000, INTERRUPT_GATE, 0));
    cpu.enable_paging();
    cpu.enter_user(0x4000, 2);
    cpu.set_pte(at::STACK0 - 1, 0);

    cpu.deliver_fault(Fault::pf(0x1234, 4));

    // The double fault finds the same stack.
    assert_eq!(cpu.state.activity, Activity::Shutdown);
    assert_eq!(cpu.state.cr2, at::STACK0 - 4);
    assert!(!cpu.accepts_interrupts() && !cpu.accepts_nmi());
}

#[test]
fn triple_fault_shuts_down_and_reset_restarts() {
    let mut cpu = protected();
    cpu.lidt(Seg::Ds, 0x600, true).unwrap();
    cpu.deliver_fault(Fault::ud());
    assert_eq!(cpu.state.activity, Activity::Shutdown);
    assert_eq!(cpu.state.eip, 0x1_0000, "state as it was");
    cpu.reset();
    assert_eq!(cpu.state.activity, Activity::Running);
    assert_eq!(cpu.translate_code(cpu.state.eip).unwrap().linear, 0xffff_fff0);
}

#[test]
fn nmi_is_blocked_until_iret() {
    let mut cpu = with_gate(vector::NMI, INTERRUPT_GATE);
    cpu.state.nmi_pending = true;
    assert!(cpu.accepts_nmi());
    cpu.deliver_nmi();
    cpu.state.nmi_pending = true;
    assert!(!cpu.accepts_nmi());
    cpu.iret(true).unwrap();
    assert!(cpu.accepts_nmi());
}

#[test]
fn debug_exception_sets_dr6_and_clears_general_detect() {
    let mut cpu = with_gate(vector::DB, INTERRUPT_GATE);
    cpu.mov_to_dr(7, 0x2000).unwrap();
    let fault = cpu.mov_from_dr(0).unwrap_err();
    cpu.deliver_fault(fault);
    assert_eq!(cpu.state.eip, 0x7001);
    assert_eq!(cpu.mov_from_dr(6), Ok(0xffff_2ff0));
}

#[test]
fn v86_entry_loads_real_mode_segments_at_level_3() {
    let mut cpu = protected();
    enter_v86(&mut cpu, eflags::IF);
    assert!(cpu.v86() && !cpu.descriptors_used());
    assert_eq!(cpu.cpl(), 3);
    assert_eq!(cpu.state.segments.map(|s| s.selector), [0x3000, 0x1000, 0x2000, 0x4000, 0x5000, 0x6000]);
    assert_eq!(cpu.translate_code(cpu.state.eip).unwrap().linear, 0x1_0100);
    cpu.load_segment(Seg::Ds, 0xb800).unwrap();
    assert_eq!(cpu.state.segment(Seg::Ds).base(), 0xb_8000);
    assert_eq!(cpu.lar(8), Err(Fault::ud()));
}

#[test]
fn v86_instructions_that_touch_if_need_iopl_3() {
    let mut cpu = protected();
    enter_v86(&mut cpu, eflags::IF);
    let gp = Err(Fault::gp(0));
    assert_eq!(cpu.cli(), gp);
    assert_eq!(cpu.sti(), gp);
    assert_eq!(cpu.pushf(false), gp);
    assert_eq!(cpu.popf(false), gp);
    assert_eq!(cpu.iret(false), gp);
    assert_eq!(cpu.software_interrupt(SoftInterrupt::Int(0x21)), gp);
    assert_eq!(cpu.hlt(), gp);
    assert_eq!(cpu.mov_from_cr(0), Err(Fault::gp(0)));

    let mut cpu = protected();
    enter_v86(&mut cpu, eflags::IF | eflags::IOPL);
    cpu.pushf(false).unwrap();
    cpu.cli().unwrap();
    assert_eq!(cpu.flags() & eflags::IF, 0);
    cpu.popf(false).unwrap();
    assert_ne!(cpu.flags() & eflags::IF, 0);
    assert_eq!(cpu.state.iopl(), 3, "POPF does not change IOPL in virtual-8086 mode");
}

#[test]
fn v86_fault_pushes_all_segments_and_iret_restores_them() {
    let mut cpu = with_gate(vector::GP, INTERRUPT_GATE);
    enter_v86(&mut cpu, eflags::IF);

    cpu.deliver_fault(Fault::gp(0));

    assert_eq!((cpu.cpl(), cpu.v86()), (0, false));
    let frame: Vec<u32> = (0..10).map(|i| cpu.stack_dword(i)).collect();
    let flags = eflags::IF | eflags::VM | eflags::RF | 2;
    assert_eq!(frame, [0, 0x100, 0x1000, flags, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000]);
    for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
        assert!(!cpu.state.segment(seg).usable());
    }
    cpu.pop32().unwrap();
    cpu.iret(true).unwrap();
    assert!(cpu.v86());
    assert_eq!(cpu.state.segment(Seg::Gs).base(), 0x6_0000);
    assert_eq!((cpu.state.eip, cpu.esp()), (0x100, 0x1000));
}

#[test]
fn v86_interrupt_with_iopl_3_goes_through_the_gate() {
    let mut cpu = with_gate(0x21, INTERRUPT_GATE_DPL3);
    enter_v86(&mut cpu, eflags::IOPL);
    cpu.software_interrupt(SoftInterrupt::Int(0x21)).unwrap();
    assert_eq!((cpu.cpl(), cpu.v86(), cpu.state.eip), (0, false, 0x7021));
    assert_eq!(cpu.stack_dword(4), 0x2000);
}

#[test]
fn v86_interrupt_to_conforming_code_is_refused() {
    let mut cpu = protected();
    cpu.set_idt(0x21, gate(sel::CONFORMING, 0, INTERRUPT_GATE_DPL3, 0));
    enter_v86(&mut cpu, eflags::IOPL);
    assert_eq!(cpu.software_interrupt(SoftInterrupt::Int(0x21)), Err(Fault::gp(u32::from(sel::CONFORMING))));
    assert!(cpu.v86());
}

#[test]
fn int3_in_v86_mode_does_not_ask_for_iopl() {
    let mut cpu = with_gate(vector::BP, INTERRUPT_GATE_DPL3);
    enter_v86(&mut cpu, 0);
    cpu.software_interrupt(SoftInterrupt::Int3).unwrap();
    assert_eq!(cpu.state.eip, 0x7003);
}

#[test]
fn task_switched_and_emulation_bits_raise_device_not_available() {
    let mut cpu = protected();
    assert_eq!(cpu.check_fpu(), Ok(()));
    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::TS).unwrap();
    assert_eq!(cpu.check_fpu(), Err(Fault::nm()));
    assert_eq!(cpu.check_wait(), Ok(()));
    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::MP).unwrap();
    assert_eq!(cpu.check_wait(), Err(Fault::nm()));
    cpu.clts().unwrap();
    assert_eq!(cpu.check_wait(), Ok(()));
    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::EM).unwrap();
    assert_eq!(cpu.check_fpu(), Err(Fault::nm()));
    assert_eq!(cpu.check_mmx(feature::MMX), Err(Fault::ud()));
}
