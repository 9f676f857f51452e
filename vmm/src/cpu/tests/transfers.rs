//! Far jumps, calls and returns; SYSENTER and SYSEXIT.

use crate::cpu::Fault;
use crate::cpu::registers::{Seg, eflags, gpr};
use crate::cpu::testing::{at, descriptor, gate, protected, sel, vcpu};

const CALL_GATE32_DPL3: u16 = 0xec;
const CALL_GATE16_DPL3: u16 = 0xe4;

#[test]
fn near_jump_checks_the_code_segment_limit() {
    let mut cpu = vcpu();
    assert_eq!(cpu.jump_near(0x1_0000), Err(Fault::gp(0)));
    assert_eq!(cpu.state.eip, 0xfff0);
    cpu.jump_near(0x1234).unwrap();
    assert_eq!(cpu.state.eip, 0x1234);
}

#[test]
fn real_mode_far_call_and_return() {
    let mut cpu = vcpu();
    cpu.far_jump(0x100, 0x20).unwrap();
    cpu.state.gpr[gpr::ESP] = 0x8000;

    cpu.far_call(0x200, 0x30, false).unwrap();
    assert_eq!((cpu.stack_word(0), cpu.stack_word(1)), (0x20, 0x100));
    assert_eq!(cpu.state.segment(Seg::Cs).base(), 0x2000);
    cpu.far_return(false, 6).unwrap();

    assert_eq!((cpu.state.segment(Seg::Cs).selector, cpu.state.eip), (0x100, 0x20));
    assert_eq!(cpu.esp(), 0x8006);
}

#[test]
fn far_jump_checks_type_privilege_presence_and_limit() {
    let mut cpu = protected();
    let before = cpu.state.clone();
    assert_eq!(cpu.far_jump(0, 0), Err(Fault::gp(0)));
    assert_eq!(cpu.far_jump(sel::DATA0, 0), Err(Fault::gp(0x10)));
    assert_eq!(cpu.far_jump(sel::CODE3, 0), Err(Fault::gp(0x18)));
    assert_eq!(cpu.far_jump(sel::CODE16, 0x1_0000), Err(Fault::gp(0)));
    assert_eq!(cpu.far_jump(0xfff8, 0), Err(Fault::gp(0xfff8)));
    cpu.set_gdt(sel::SPARE, descriptor(0, 0xf_ffff, 0xc01a));
    assert_eq!(cpu.far_jump(sel::SPARE, 0), Err(Fault::np(0x70)));
    assert_eq!(cpu.state, before);
}

#[test]
fn conforming_code_keeps_the_privilege_level() {
    let mut cpu = protected();
    cpu.enter_user(0x4000, 2);
    cpu.far_call(sel::CONFORMING, 0x7000, true).unwrap();
    assert_eq!(cpu.cpl(), 3);
    assert_eq!(cpu.state.segment(Seg::Cs).selector, sel::CONFORMING | 3);
    cpu.far_return(true, 0).unwrap();
    assert_eq!((cpu.state.eip, cpu.cpl()), (0x4000, 3));
}

#[test]
fn call_gate_switches_stacks_copies_parameters_and_returns() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, gate(sel::CODE0, 0x7777, CALL_GATE32_DPL3, 2));
    cpu.enter_user(0x4000, 2);
    cpu.push32(0xaaaa).unwrap();
    cpu.push32(0xbbbb).unwrap();
    let user_esp = cpu.esp();

    cpu.far_call(sel::SPARE | 3, 0xdead_beef, true).unwrap();

    assert_eq!((cpu.cpl(), cpu.state.eip), (0, 0x7777));
    assert_eq!(cpu.esp(), at::STACK0 - 24);
    let frame: Vec<u32> = (0..6).map(|i| cpu.stack_dword(i)).collect();
    assert_eq!(frame, [0x4000, u32::from(sel::CODE3), 0xbbbb, 0xaaaa, user_esp, u32::from(sel::DATA3)]);

    cpu.load_segment(Seg::Ds, sel::DATA0).unwrap();
    cpu.far_return(true, 8).unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (3, 0x4000, user_esp + 8));
    assert!(!cpu.state.segment(Seg::Ds).usable(), "an inner data segment is dropped");
    assert!(cpu.state.segment(Seg::Es).usable());
}

#[test]
fn sixteen_bit_call_gate_pushes_words() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, gate(sel::CODE0, 0x1_7777, CALL_GATE16_DPL3, 1));
    cpu.enter_user(0x4000, 2);
    cpu.push16(0xbbbb).unwrap();
    cpu.far_call(sel::SPARE, 0, true).unwrap();
    assert_eq!(cpu.state.eip, 0x7777);
    assert_eq!(cpu.esp(), at::STACK0 - 10);
    assert_eq!(cpu.stack_word(0), 0x4000);
    assert_eq!(cpu.stack_word(2), 0xbbbb);
}

#[test]
fn call_gate_is_guarded_by_its_privilege_level() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, gate(sel::CODE0, 0x7777, 0x8c, 0));
    cpu.set_gdt(sel::SPARE_2, gate(sel::CODE0, 0x7777, CALL_GATE32_DPL3 & 0x7f, 0));
    cpu.enter_user(0x4000, 2);
    let before = cpu.state.clone();
    assert_eq!(cpu.far_call(sel::SPARE, 0, true), Err(Fault::gp(0x70)));
    assert_eq!(cpu.far_call(sel::SPARE_2, 0, true), Err(Fault::np(0x78)));
    cpu.set_gdt(sel::SPARE_2, gate(sel::CODE0, 0x7777, CALL_GATE32_DPL3, 0));
    assert_eq!(cpu.far_jump(sel::SPARE_2, 0), Err(Fault::gp(8)), "a jump cannot go inwards");
    assert_eq!(cpu.state, before);
}

#[test]
fn bad_inner_stack_is_an_invalid_tss() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, gate(sel::CODE0, 0x7777, CALL_GATE32_DPL3, 0));
    cpu.enter_user(0x4000, 2);
    cpu.bus.poke16(u64::from(at::TSS) + 8, sel::DATA3);
    assert_eq!(cpu.far_call(sel::SPARE, 0, true), Err(Fault::ts(0x20)));
    cpu.bus.poke16(u64::from(at::TSS) + 8, 0);
    assert_eq!(cpu.far_call(sel::SPARE, 0, true), Err(Fault::ts(0)));
    cpu.bus.poke16(u64::from(at::TSS) + 8, sel::ABSENT);
    assert_eq!(cpu.far_call(sel::SPARE, 0, true), Err(Fault::ss(0x60)));
    cpu.set_gdt(sel::SPARE_2, descriptor(0, 0, 0x4092));
    cpu.bus.poke16(u64::from(at::TSS) + 8, sel::SPARE_2);
    assert_eq!(cpu.far_call(sel::SPARE, 0, true), Err(Fault::ss(0x78)), "no room on the new stack");
    assert_eq!((cpu.cpl(), cpu.state.eip), (3, 0x4000));
}

#[test]
fn far_return_cannot_go_inwards() {
    let mut cpu = protected();
    cpu.enter_user(0x4000, 2);
    cpu.push32(u32::from(sel::CODE0)).unwrap();
    cpu.push32(0x1234).unwrap();
    let esp = cpu.esp();
    assert_eq!(cpu.far_return(true, 0), Err(Fault::gp(8)));
    assert_eq!(cpu.esp(), esp);
}

#[test]
fn iret_to_a_16_bit_stack_keeps_the_high_half_of_esp() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, descriptor(0, 0xffff, 0x00f2));
    cpu.state.gpr[gpr::ESP] = 0x0001_8000;
    for value in [u32::from(sel::SPARE | 3), 0x5555_1000, 2, u32::from(sel::CODE3), 0x4000] {
        cpu.push32(value).unwrap();
    }
    cpu.iret(true).unwrap();
    assert_eq!(cpu.esp(), 0x0001_1000);
}

#[test]
fn iret_gives_only_the_flags_its_level_may_change() {
    let mut cpu = protected();
    cpu.enter_user(0x4000, eflags::IF);
    for value in [eflags::DEFINED & !(eflags::NT | eflags::VM), u32::from(sel::CODE3), 0x5000] {
        cpu.push32(value).unwrap();
    }
    cpu.iret(true).unwrap();
    let kept = eflags::IOPL | eflags::VIF | eflags::VIP;
    assert_eq!(cpu.flags() & kept, 0);
    assert_ne!(cpu.flags() & eflags::IF, 0);

    // IF does not change at level 3 with IOPL 0.
    for value in [2, u32::from(sel::CODE3), 0x5000] {
        cpu.push32(value).unwrap();
    }
    cpu.set_flags(cpu.flags() & !eflags::AC);
    cpu.iret(true).unwrap();
    assert_eq!(cpu.flags(), eflags::IF | eflags::FIXED);
}

#[test]
fn popf_obeys_privilege_and_pushf_hides_the_resume_flag() {
    let mut cpu = protected();
    cpu.push32(eflags::DEFINED).unwrap();
    cpu.popf(true).unwrap();
    assert_eq!(cpu.flags(), eflags::DEFINED & !(eflags::VM | eflags::RF | eflags::VIF | eflags::VIP) | 2);
    cpu.set_flags(eflags::RF | eflags::CF);
    cpu.pushf(true).unwrap();
    assert_eq!(cpu.pop32(), Ok(eflags::CF | 2));

    cpu.set_flags(2);
    cpu.enter_user(0x4000, 2);
    cpu.push32(eflags::IF | eflags::IOPL | eflags::ZF).unwrap();
    cpu.popf(true).unwrap();
    assert_eq!(cpu.flags(), eflags::ZF | 2);
}

#[test]
fn sysenter_and_sysexit_cross_levels_without_descriptors() {
    let mut cpu = protected();
    assert_eq!(cpu.sysenter(), Err(Fault::gp(0)));
    for (msr, value) in [(0x174, u32::from(sel::CODE0)), (0x175, 0x8800), (0x176, 0x6600)] {
        cpu.state.gpr[gpr::ECX] = msr;
        cpu.state.gpr[gpr::EAX] = value;
        cpu.state.gpr[gpr::EDX] = 0;
        cpu.wrmsr().unwrap();
    }
    cpu.enter_user(0x4000, eflags::IF);
    assert_eq!(cpu.sysexit(), Err(Fault::gp(0)));

    cpu.sysenter().unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (0, 0x6600, 0x8800));
    assert_eq!(cpu.flags() & eflags::IF, 0);
    assert_eq!(cpu.state.segment(Seg::Ss).selector, sel::DATA0);

    cpu.state.gpr[gpr::EDX] = 0x4002;
    cpu.state.gpr[gpr::ECX] = 0x9900;
    cpu.sysexit().unwrap();
    assert_eq!((cpu.cpl(), cpu.state.eip, cpu.esp()), (3, 0x4002, 0x9900));
    assert_eq!(cpu.state.segment(Seg::Cs).selector, sel::CODE3);
    assert_eq!(cpu.state.segment(Seg::Ss).selector, sel::DATA3);
}
