//! Task switches through TSSs and task gates.

use crate::cpu::registers::{Seg, cr0, eflags, gpr, vector};
use crate::cpu::testing::{RamBus, at, descriptor, gate, protected, sel};
use crate::cpu::{Fault, SoftInterrupt, Vcpu};

const TASK_GATE: u16 = 0x85;
const BUSY: u32 = 0x200;

/// Fills the second TSS: level 0, EIP 0x5000, ESP 0x8800, EAX 0xa.
fn with_second_task() -> Vcpu<RamBus> {
    let mut cpu = protected();
    let base = u64::from(at::TSS_B);
    cpu.bus.poke32(base + 0x20, 0x5000);
    cpu.bus.poke32(base + 0x24, 2);
    cpu.bus.poke32(base + 0x28, 0xa);
    cpu.bus.poke32(base + 0x38, 0x8800);
    for (offset, selector) in [(0x48, sel::DATA0), (0x4c, sel::CODE0), (0x50, sel::DATA0), (0x54, sel::DATA0)]
    {
        cpu.bus.poke16(base + offset, selector);
    }
    cpu
}

#[test]
fn jump_switches_tasks_and_moves_the_busy_bit() {
    let mut cpu = with_second_task();
    cpu.state.gpr[gpr::EAX] = 0x1234_5678;
    assert_eq!(cpu.gdt_high(sel::TSS) & BUSY, BUSY);

    cpu.far_jump(sel::TSS_B, 0).unwrap();

    assert_eq!((cpu.state.eip, cpu.esp(), cpu.state.gpr[gpr::EAX]), (0x5000, 0x8800, 0xa));
    assert_eq!(cpu.gdt_high(sel::TSS) & BUSY, 0);
    assert_eq!(cpu.gdt_high(sel::TSS_B) & BUSY, BUSY);
    assert_eq!(cpu.str(), Ok(sel::TSS_B));
    assert_ne!(cpu.state.cr0 & cr0::TS, 0);
    assert_eq!(cpu.flags() & eflags::NT, 0);
    assert_eq!(cpu.bus.peek32(u64::from(at::TSS) + 0x28), 0x1234_5678);
    assert_eq!(cpu.bus.peek32(u64::from(at::TSS) + 0x20), 0x1_0000);
    assert_eq!(cpu.bus.peek16(u64::from(at::TSS) + 0x4c), sel::CODE0);

    cpu.far_jump(sel::TSS, 0).unwrap();
    assert_eq!((cpu.state.eip, cpu.state.gpr[gpr::EAX]), (0x1_0000, 0x1234_5678));
}

#[test]
fn call_nests_and_iret_returns() {
    let mut cpu = with_second_task();

    cpu.far_call(sel::TSS_B, 0, true).unwrap();

    assert_ne!(cpu.flags() & eflags::NT, 0);
    assert_eq!(cpu.bus.peek16(u64::from(at::TSS_B)), sel::TSS);
    assert_eq!(cpu.gdt_high(sel::TSS) & BUSY, BUSY);
    assert_eq!(cpu.far_jump(sel::TSS, 0), Err(Fault::gp(0x28)), "a busy task cannot be entered");

    cpu.state.eip = 0x5002;
    cpu.iret(true).unwrap();
    assert_eq!(cpu.str(), Ok(sel::TSS));
    assert_eq!(cpu.state.eip, 0x1_0000);
    assert_eq!(cpu.gdt_high(sel::TSS_B) & BUSY, 0);
    assert_eq!(cpu.bus.peek32(u64::from(at::TSS_B) + 0x24) & eflags::NT, 0);
    assert_eq!(cpu.bus.peek32(u64::from(at::TSS_B) + 0x20), 0x5002);
}

#[test]
fn exception_through_a_task_gate_pushes_its_error_code_in_the_new_task() {
    let mut cpu = with_second_task();
    cpu.set_idt(vector::DF, gate(sel::TSS_B, 0, TASK_GATE, 0));
    cpu.enter_user(0x4000, 2);

    cpu.deliver_fault(Fault::gp(0x18));

    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (0, 0x5000, 0x8800 - 4));
    assert_eq!(cpu.stack_dword(0), 0);
    assert_ne!(cpu.flags() & eflags::NT, 0);
    cpu.pop32().unwrap();
    cpu.iret(true).unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (3, 0x4000, at::STACK3));
}

#[test]
fn software_interrupt_through_a_task_gate_checks_the_gate_only() {
    let mut cpu = with_second_task();
    cpu.set_idt(0x40, gate(sel::TSS_B, 0, TASK_GATE, 0));
    cpu.set_idt(0x41, gate(sel::TSS_B, 0, TASK_GATE | 0x60, 0));
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.software_interrupt(SoftInterrupt::Int(0x40)), Err(Fault::gp(0x40 * 8 + 2)));
    cpu.software_interrupt(SoftInterrupt::Int(0x41)).unwrap();
    assert_eq!(cpu.str(), Ok(sel::TSS_B));
}

#[test]
fn sixteen_bit_task_saves_and_loads_words() {
    let mut cpu = protected();
    let base = u64::from(at::TSS16);
    for (offset, value) in [
        (0x0e, 0x4444),
        (0x10, 2),
        (0x12, 0xaaaa),
        (0x1a, 0x7000),
        (0x22, sel::DATA16),
        (0x24, sel::CODE16),
        (0x26, sel::DATA16),
        (0x28, sel::DATA16),
    ] {
        cpu.bus.poke16(base + offset, value);
    }
    cpu.far_call(sel::TSS16, 0, true).unwrap();
    assert_eq!((cpu.state.eip, cpu.esp() & 0xffff), (0x4444, 0x7000));
    assert_eq!(cpu.state.gpr[gpr::EAX] & 0xffff, 0xaaaa);
    assert!(!cpu.code_is_32bit());
    assert!(!cpu.state.segment(Seg::Fs).usable());
    cpu.iret(false).unwrap();
    assert_eq!(cpu.bus.peek16(base + 0x0e), 0x4444);
    assert!(cpu.code_is_32bit());
}

#[test]
fn fault_before_the_switch_leaves_the_old_task() {
    let mut cpu = with_second_task();
    let before = cpu.state.clone();
    cpu.set_gdt(sel::SPARE, descriptor(at::TSS_B, 0x66, 0x0089));
    assert_eq!(cpu.far_jump(sel::SPARE, 0), Err(Fault::ts(0x70)));
    cpu.set_gdt(sel::SPARE, descriptor(at::TSS_B, 0x67, 0x0009));
    assert_eq!(cpu.far_jump(sel::SPARE, 0), Err(Fault::np(0x70)));
    cpu.set_gdt(sel::SPARE, gate(sel::DATA0, 0, TASK_GATE, 0));
    assert_eq!(cpu.far_jump(sel::SPARE, 0), Err(Fault::gp(0x10)));
    assert_eq!(cpu.state, before);
}

#[test]
fn fault_after_the_switch_belongs_to_the_new_task() {
    let mut cpu = with_second_task();
    cpu.bus.poke16(u64::from(at::TSS_B) + 0x50, sel::DATA3);

    let fault = cpu.far_jump(sel::TSS_B, 0).unwrap_err();

    assert!(fault.in_new_task());
    assert_eq!((fault.vector(), fault.error_code()), (vector::TS, Some(0x20)));
    assert_eq!((cpu.state.eip, cpu.str()), (0x5000, Ok(sel::TSS_B)));
    assert!(!cpu.state.segment(Seg::Ss).usable());
}

#[test]
fn task_can_start_in_v86_mode() {
    let mut cpu = with_second_task();
    let base = u64::from(at::TSS_B);
    cpu.bus.poke32(base + 0x24, eflags::VM | eflags::IF | 2);
    cpu.bus.poke16(base + 0x4c, 0x1000);
    cpu.far_jump(sel::TSS_B, 0).unwrap();
    assert!(cpu.v86());
    assert_eq!((cpu.cpl(), cpu.state.segment(Seg::Cs).base()), (3, 0x1_0000));
}

#[test]
fn trap_bit_raises_a_debug_trap_and_cr3_is_loaded_with_paging_only() {
    let mut cpu = with_second_task();
    cpu.bus.poke16(u64::from(at::TSS_B) + 0x64, 1);
    cpu.bus.poke32(u64::from(at::TSS_B) + 0x1c, 0x7000);
    cpu.far_jump(sel::TSS_B, 0).unwrap();
    assert_eq!(cpu.take_debug_trap(false), Some(Fault::db(0x8000)));
    assert_eq!(cpu.mov_from_cr(3), Ok(0));
}

#[test]
fn back_link_that_is_not_a_busy_task_is_an_invalid_tss() {
    let mut cpu = with_second_task();
    cpu.set_flags(eflags::NT);
    cpu.bus.poke16(u64::from(at::TSS), sel::TSS_B);
    assert_eq!(cpu.iret(true), Err(Fault::ts(0x40)));
}

#[test]
fn a_bad_code_segment_of_a_new_task_is_reported_on_its_own_stack() {
    let mut cpu = with_second_task();
    cpu.bus.poke16(u64::from(at::TSS_B) + 0x4c, sel::DATA0);
    cpu.set_idt(vector::TS, gate(sel::CODE0, 0x7000, 0x8e, 0));

    let fault = cpu.far_jump(sel::TSS_B, 0).unwrap_err();
    assert_eq!(fault.error_code(), Some(u32::from(sel::DATA0)));
    cpu.deliver_fault(fault);

    assert_eq!((cpu.state.eip, cpu.esp()), (0x7000, 0x8800 - 16));
}
