//! Segment loads and limits.

use crate::cpu::registers::{Seg, cr0, gpr};
use crate::cpu::testing::{at, descriptor, protected, sel, vcpu};
use crate::cpu::{Fault, InterruptShadow};

#[test]
fn reset_starts_at_the_top_of_four_gigabytes() {
    let mut cpu = vcpu();

    let location = cpu.translate_code(cpu.state.eip).unwrap();

    assert_eq!(location.linear, 0xffff_fff0);
    assert_eq!(location.physical, 0xffff_fff0);
    assert!(location.grant.cacheable_code);
    assert!(!cpu.protected_mode() && !cpu.code_is_32bit());
}

#[test]
fn real_mode_far_jump_leaves_the_reset_segment() {
    let mut cpu = vcpu();

    cpu.far_jump(0xf000, 0xe05b).unwrap();

    assert_eq!(cpu.translate_code(cpu.state.eip).unwrap().linear, 0xf_e05b);
}

#[test]
fn real_mode_offset_above_64k_is_a_general_protection_fault() {
    let mut cpu = vcpu();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x1_0000), Err(Fault::gp(0)));
    assert_eq!(cpu.read_u16(Seg::Ds, 0xffff), Err(Fault::gp(0)));
    assert_eq!(cpu.write_u16(Seg::Ss, 0xffff, 0), Err(Fault::ss(0)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0xffff), Ok(0));
}

#[test]
fn unreal_mode_keeps_the_limit_loaded_in_protected_mode() {
    let mut cpu = protected();

    // The way SeaBIOS and DOS extenders go: 16-bit segments for CS and SS, big data, PE off, far jump.
    cpu.far_jump(sel::CODE16, 0x8000).unwrap();
    cpu.load_segment(Seg::Ss, sel::DATA16).unwrap();
    cpu.mov_to_cr(0, cpu.state.cr0 & !cr0::PE).unwrap();
    cpu.far_jump(0, 0x8005).unwrap();
    for seg in [Seg::Ds, Seg::Es, Seg::Ss] {
        cpu.load_segment(seg, 0x1234).unwrap();
    }

    cpu.bus.poke32(0x20_0000 + 0x1_2340, 0xdead_beef);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x20_0000), Ok(0xdead_beef));
    assert_eq!(cpu.read_u16(Seg::Ss, 0x1_0000), Err(Fault::ss(0)));
    assert!(!cpu.code_is_32bit() && !cpu.stack_is_32bit());
    assert_eq!(cpu.state.segment(Seg::Cs).selector, 0);
}

#[test]
fn protected_mode_entry_loads_flat_segments_and_sets_accessed_bits() {
    let mut cpu = protected();

    assert!(cpu.code_is_32bit() && cpu.stack_is_32bit());
    assert!(cpu.state.segment(Seg::Ds).flat());
    assert_eq!(cpu.gdt_high(sel::CODE0) & 0x100, 0x100);
    assert_eq!(cpu.gdt_high(sel::DATA0) & 0x100, 0x100);
    assert_eq!(cpu.gdt_high(sel::DATA3) & 0x100, 0);
}

#[test]
fn null_selector_loads_but_cannot_be_used() {
    let mut cpu = protected();
    cpu.load_segment(Seg::Es, 3).unwrap();
    assert_eq!(cpu.state.segment(Seg::Es).selector, 3);
    assert_eq!(cpu.read_u8(Seg::Es, 0), Err(Fault::gp(0)));
    assert_eq!(cpu.load_segment(Seg::Ss, 0), Err(Fault::gp(0)));
}

#[test]
fn segment_load_faults_name_the_selector_and_change_nothing() {
    let mut cpu = protected();
    let before = cpu.state.clone();

    assert_eq!(cpu.load_segment(Seg::Ds, sel::ABSENT), Err(Fault::np(0x60)));
    assert_eq!(cpu.load_segment(Seg::Ss, sel::ABSENT), Err(Fault::ss(0x60)));
    assert_eq!(cpu.load_segment(Seg::Ss, sel::DATA3), Err(Fault::gp(0x20)));
    assert_eq!(cpu.load_segment(Seg::Ss, sel::READ_ONLY), Err(Fault::gp(0x68)));
    assert_eq!(cpu.load_segment(Seg::Ds, sel::TSS), Err(Fault::gp(0x28)));
    assert_eq!(cpu.load_segment(Seg::Ds, 0x100), Err(Fault::gp(0x100)));
    assert_eq!(cpu.load_segment(Seg::Ds, 0x0f), Err(Fault::gp(0x0c)), "no LDT");
    assert_eq!(cpu.load_segment(Seg::Cs, sel::CODE0), Err(Fault::ud()));

    assert_eq!(cpu.state, before);
}

#[test]
fn user_code_cannot_load_a_supervisor_segment() {
    let mut cpu = protected();
    cpu.enter_user(0x4000, 0x202);
    assert_eq!(cpu.load_segment(Seg::Ds, sel::DATA0), Err(Fault::gp(0x10)));
    assert_eq!(cpu.load_segment(Seg::Ds, sel::DATA0 | 3), Err(Fault::gp(0x10)));
    assert_eq!(cpu.load_segment(Seg::Ds, sel::CONFORMING), Ok(()));
}

#[test]
fn expand_down_segment_is_above_its_limit() {
    let mut cpu = protected();
    cpu.load_segment(Seg::Es, sel::EXPAND_DOWN).unwrap();
    assert_eq!(cpu.read_u8(Seg::Es, 0xfff), Err(Fault::gp(0)));
    assert_eq!(cpu.write_u32(Seg::Es, 0x1000, 7), Ok(()));
    assert_eq!(cpu.read_u32(Seg::Es, 0x1000), Ok(7));
    assert_eq!(cpu.read_u8(Seg::Es, 0xffff_ffff), Ok(0));

    // Without B the upper bound is 64 KiB.
    cpu.set_gdt(sel::SPARE, descriptor(0, 0xfff, 0x0096));
    cpu.load_segment(Seg::Es, sel::SPARE).unwrap();
    assert_eq!(cpu.read_u16(Seg::Es, 0xfffe), Ok(0));
    assert_eq!(cpu.read_u16(Seg::Es, 0xffff), Err(Fault::gp(0)));
}

#[test]
fn code_is_not_writable_and_execute_only_code_is_not_readable() {
    let mut cpu = protected();
    cpu.set_gdt(sel::SPARE, descriptor(0, 0xf_ffff, 0xc098));
    assert_eq!(cpu.write_u8(Seg::Cs, 0x4000, 1), Err(Fault::gp(0)));
    assert_eq!(cpu.read_u8(Seg::Cs, 0x4000), Ok(0));
    cpu.far_jump(sel::SPARE, 0).unwrap();
    assert_eq!(cpu.read_u8(Seg::Cs, 0x4000), Err(Fault::gp(0)));
    assert_eq!(cpu.load_segment(Seg::Ds, sel::SPARE), Err(Fault::gp(0x70)));
    cpu.load_segment(Seg::Ds, sel::READ_ONLY).unwrap();
    assert_eq!(cpu.write_u8(Seg::Ds, 0, 1), Err(Fault::gp(0)));
    assert_eq!(cpu.probe_write(Seg::Ds, 0, 1), Err(Fault::gp(0)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0xffff), Ok(0));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x1_0000), Err(Fault::gp(0)));
}

#[test]
fn moving_to_ss_holds_interrupts_off() {
    let mut cpu = protected();
    cpu.sti().unwrap();
    cpu.state.interrupt_shadow = InterruptShadow::None;
    assert!(cpu.accepts_interrupts());
    cpu.load_ss_with_shadow(sel::DATA0).unwrap();
    assert!(!cpu.accepts_interrupts());
}

#[test]
fn lar_and_lsl_answer_for_visible_descriptors_only() {
    let mut cpu = protected();
    assert_eq!(cpu.lar(sel::CODE0), Ok(Some(0x00cf_9b00)), "with the limit bits between the attributes");
    assert_eq!(cpu.lsl(sel::CODE0), Ok(Some(u32::MAX)));
    assert_eq!(cpu.lsl(sel::DATA16), Ok(Some(0xffff)));
    assert_eq!(cpu.lar(sel::TSS), Ok(Some(0x0000_8b00)));
    assert_eq!(cpu.lar(sel::DATA0 | 3), Ok(None));
    assert_eq!(cpu.lar(0), Ok(None));
    assert_eq!(cpu.lsl(0x1000), Ok(None));
    cpu.set_gdt(sel::SPARE, crate::cpu::testing::gate(sel::CODE0, 0, 0x8e, 0));
    assert_eq!(cpu.lar(sel::SPARE), Ok(None), "interrupt gates are not valid for LAR");
    assert_eq!(vcpu().lar(8), Err(Fault::ud()));
}

#[test]
fn verr_and_verw_test_access() {
    let mut cpu = protected();
    assert_eq!(cpu.verr(sel::READ_ONLY), Ok(true));
    assert_eq!(cpu.verw(sel::READ_ONLY), Ok(false));
    assert_eq!(cpu.verw(sel::DATA0), Ok(true));
    assert_eq!(cpu.verr(sel::TSS), Ok(false));
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.verr(sel::DATA0), Ok(false));
    assert_eq!(cpu.verr(sel::CONFORMING), Ok(true));
}

#[test]
fn arpl_raises_but_never_lowers_the_privilege_level() {
    let cpu = protected();
    assert_eq!(cpu.arpl(0x10, 0x23), Ok(Some(0x13)));
    assert_eq!(cpu.arpl(0x13, 0x20), Ok(None));
    assert_eq!(vcpu().arpl(0, 0), Err(Fault::ud()));
}

#[test]
fn sixteen_bit_stack_wraps_and_keeps_the_high_half_of_esp() {
    let mut cpu = protected();
    cpu.load_segment(Seg::Ss, sel::DATA16).unwrap();
    cpu.state.gpr[gpr::ESP] = 0xabcd_0000;
    cpu.push32(0x1122_3344).unwrap();
    assert_eq!(cpu.esp(), 0xabcd_fffc);
    assert_eq!(cpu.bus.peek32(0xfffc), 0x1122_3344);
    assert_eq!(cpu.pop32(), Ok(0x1122_3344));
    assert_eq!(cpu.esp(), 0xabcd_0000);

    cpu.state.gpr[gpr::ESP] = 0xabcd_0001;
    assert_eq!(cpu.push16(1), Err(Fault::ss(0)));
    assert_eq!(cpu.esp(), 0xabcd_0001);
}

#[test]
fn ldt_descriptors_are_found_through_ldtr() {
    let mut cpu = protected();
    let ldt = 0x6000;
    cpu.set_gdt(sel::SPARE, descriptor(ldt, 0xf, 0x0082));
    cpu.bus.poke32(u64::from(ldt) + 8, 0x4000_ffff);
    cpu.bus.poke32(u64::from(ldt) + 12, 0x0000_9212);
    assert_eq!(cpu.lldt(sel::DATA0), Err(Fault::gp(0x10)));
    cpu.lldt(sel::SPARE).unwrap();
    assert_eq!(cpu.sldt(), Ok(sel::SPARE));

    cpu.load_segment(Seg::Fs, 0x0c).unwrap();
    assert_eq!(cpu.state.segment(Seg::Fs).base(), 0x12_4000);
    assert_eq!(cpu.load_segment(Seg::Fs, 0x14), Err(Fault::gp(0x14)));
    assert_eq!(cpu.bus.peek32(u64::from(at::GDT) + 8) & 0xffff, 0xffff);
}
