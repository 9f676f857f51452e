//! Control registers, table registers, CPUID, MSRs, I/O permission, saved state.

use crate::cpu::fpu::{fcw, fsw};
use crate::cpu::model::feature;
use crate::cpu::registers::{Seg, cr0, cr4, eflags, gpr};
use crate::cpu::testing::{at, protected, sel, vcpu};
use crate::cpu::{CpuModel, CpuState, Fault, InterruptShadow};
use ipc::time::VirtualTime;
use ipc::width::Width;

#[test]
fn cpuid_names_a_pentium_iii() {
    let mut cpu = vcpu();
    cpu.state.gpr[gpr::EAX] = 0;
    cpu.cpuid();
    let mut name = Vec::new();
    for register in [gpr::EBX, gpr::EDX, gpr::ECX] {
        name.extend(cpu.state.gpr[register].to_le_bytes());
    }
    assert_eq!(name, b"GenuineIntel");
    cpu.state.gpr[gpr::EAX] = 1;
    cpu.cpuid();
    assert_eq!(cpu.state.gpr[gpr::EAX] >> 4 & 0xff, 0x67);
    assert_eq!(cpu.state.gpr[gpr::EDX] & feature::TSC, feature::TSC);
}

#[test]
fn lmsw_sets_protection_and_cannot_clear_it() {
    let mut cpu = vcpu();
    cpu.lmsw(1).unwrap();
    assert!(cpu.protected_mode());
    cpu.lmsw(cr0::TS as u16).unwrap();
    assert!(cpu.protected_mode());
    assert_ne!(cpu.smsw() & cr0::TS, 0);
}

#[test]
fn lgdt_with_a_16_bit_operand_loads_24_bits_of_base() {
    let mut cpu = vcpu();
    cpu.bus.poke16(0x600, 0x7f);
    cpu.bus.poke32(0x602, 0x8912_3456);
    cpu.lgdt(Seg::Ds, 0x600, false).unwrap();
    assert_eq!(cpu.state.gdtr.base, 0x12_3456);
    cpu.lidt(Seg::Ds, 0x600, true).unwrap();
    cpu.sidt(Seg::Ds, 0x700).unwrap();
    assert_eq!((cpu.bus.peek16(0x700), cpu.bus.peek32(0x702)), (0x7f, 0x8912_3456));
}

#[test]
fn privileged_instructions_fault_at_level_3() {
    let mut cpu = protected();
    cpu.mov_to_cr(4, cr4::TSD).unwrap();
    cpu.enter_user(0x4000, 2);
    let gp = Err(Fault::gp(0));
    assert_eq!(cpu.mov_to_cr(0, 0), gp);
    assert_eq!(cpu.mov_to_cr(1, 0), Err(Fault::ud()));
    assert_eq!(cpu.mov_to_dr(7, 0), gp);
    assert_eq!(cpu.lgdt(Seg::Ds, 0x500, true), gp);
    assert_eq!(cpu.lldt(0), gp);
    assert_eq!(cpu.ltr(sel::TSS_B), gp);
    assert_eq!(cpu.lmsw(0), gp);
    assert_eq!(cpu.clts(), gp);
    assert_eq!(cpu.invlpg(Seg::Ds, 0), gp);
    assert_eq!(cpu.wbinvd(), gp);
    assert_eq!(cpu.hlt(), gp);
    assert_eq!(cpu.cli(), gp);
    assert_eq!(cpu.rdmsr(), gp);
    assert_eq!(cpu.wrmsr(), gp);
    assert_eq!(cpu.rdtsc(), gp);
    assert_eq!(cpu.rdpmc(), gp);
    assert_eq!(cpu.sldt(), Ok(0));
    cpu.sgdt(Seg::Ds, 0x600).unwrap();
}

#[test]
fn sti_delays_interrupts_by_one_instruction_only_when_it_enables_them() {
    let mut cpu = protected();
    cpu.sti().unwrap();
    assert!(!cpu.accepts_interrupts());
    cpu.state.interrupt_shadow = InterruptShadow::None;
    assert!(cpu.accepts_interrupts());
    cpu.sti().unwrap();
    assert!(cpu.accepts_interrupts());
}

#[test]
fn time_stamp_counts_virtual_time_and_can_be_set() {
    let mut cpu = protected();
    cpu.bus.time = VirtualTime(1_000_000_000);
    cpu.rdtsc().unwrap();
    assert_eq!((cpu.state.gpr[gpr::EAX], cpu.state.gpr[gpr::EDX]), (450_000_000, 0));
    cpu.state.gpr[gpr::ECX] = 0x10;
    cpu.state.gpr[gpr::EAX] = 7;
    cpu.wrmsr().unwrap();
    cpu.bus.time = VirtualTime(2_000_000_000);
    cpu.rdmsr().unwrap();
    assert_eq!(cpu.state.gpr[gpr::EAX], 450_000_007);
}

#[test]
fn unknown_msr_is_a_general_protection_fault() {
    let mut cpu = protected();
    cpu.state.gpr[gpr::ECX] = 0xc000_0080;
    assert_eq!(cpu.rdmsr(), Err(Fault::gp(0)));
    assert_eq!(cpu.wrmsr(), Err(Fault::gp(0)));
}

#[test]
fn io_bitmap_grants_single_ports_to_user_code() {
    let mut cpu = protected();
    let bitmap = 0x68u16;
    cpu.bus.poke16(u64::from(at::TSS) + 0x66, bitmap);
    for i in 0..0x40 {
        cpu.bus.load(u64::from(at::TSS) + 0x68 + i, &[0xff]);
    }
    // Ports 0x3c to 0x3e are open.
    cpu.bus.load(u64::from(at::TSS) + 0x68 + 7, &[0x8f]);
    cpu.bus.ports.insert(0x3c, 0xab);
    assert_eq!(cpu.port_read(0x80, Width::Byte), Ok(0xff), "level 0 needs no permission");

    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.port_read(0x3c, Width::Byte), Ok(0xab));
    assert_eq!(cpu.port_read(0x3d, Width::Word), Ok(0xffff));
    assert_eq!(cpu.port_read(0x3c, Width::Dword), Err(Fault::gp(0)));
    assert_eq!(cpu.port_write(0x3f, Width::Byte, 0), Err(Fault::gp(0)));
    assert_eq!(cpu.port_write(0x3f8, Width::Byte, 0), Err(Fault::gp(0)), "beyond the TSS");
    assert!(cpu.bus.port_log.is_empty());
}

#[test]
fn iopl_opens_every_port_but_not_in_v86_mode() {
    let mut cpu = protected();
    cpu.bus.poke16(u64::from(at::TSS) + 0x66, 0xffff);
    cpu.enter_user(0x4000, eflags::IOPL);
    assert_eq!(cpu.port_write(0x80, Width::Byte, 1), Ok(()));
    assert_eq!(cpu.bus.port_log, [(0x80, Width::Byte, 1)]);
    cpu.set_flags(eflags::VM | eflags::IOPL);
    assert_eq!(cpu.port_write(0x80, Width::Byte, 1), Err(Fault::gp(0)));
}

#[test]
fn debug_register_aliases_exist_without_debugging_extensions() {
    let mut cpu = protected();
    cpu.mov_to_dr(5, 0xffff_ffff).unwrap();
    assert_eq!(cpu.mov_from_dr(7), Err(Fault::db(0x2000)), "GD was set");
    let mut cpu = protected();
    cpu.mov_to_dr(4, 0).unwrap();
    assert_eq!(cpu.mov_from_dr(6), Ok(0xffff_0ff0));
    cpu.mov_to_cr(4, cr4::DE).unwrap();
    assert_eq!(cpu.mov_from_dr(4), Err(Fault::ud()));
}

#[test]
fn saved_state_is_restored_exactly() {
    let mut cpu = protected();
    cpu.enter_user(0x4000, eflags::IF | eflags::CF);
    cpu.sync_flags();
    let bytes = postcard::to_stdvec(&cpu.state).unwrap();

    let mut copy = vcpu();
    copy.load_state(postcard::from_bytes(&bytes).unwrap()).unwrap();

    assert_eq!(copy.state, cpu.state);
    assert_eq!(copy.mode(), cpu.mode());
    assert_eq!(copy.flags(), cpu.flags());
}

#[test]
fn hostile_saved_state_is_refused() {
    let changed = |change: fn(&mut CpuState)| {
        let mut state = CpuState::at_reset(CpuModel::default());
        change(&mut state);
        vcpu().load_state(state).is_err()
    };
    assert!(!changed(|_| {}));
    assert!(changed(|state| state.cpl = 4));
    assert!(changed(|state| state.cpl = 3));
    assert!(changed(|state| state.cr0 = cr0::PG));
    assert!(changed(|state| state.eflags |= eflags::VM));
}

#[test]
fn a_saved_floating_point_unit_gets_only_what_the_model_has() {
    let mut state = CpuState::at_reset(CpuModel::default());
    state.fpu.control = 0xffff;
    state.fpu.status = fsw::ES | 1;
    state.fpu.opcode = u16::MAX;
    state.fpu.mxcsr = u32::MAX;
    let fpu = state.validated().unwrap().fpu;
    assert_eq!(fpu.control, fcw::WRITABLE | fcw::FIXED_ONE);
    assert_eq!(fpu.status, 1, "nothing unmasked is pending");
    assert_eq!((fpu.opcode, fpu.mxcsr), (0x7ff, CpuModel::default().mxcsr_mask()));
}

#[test]
fn memory_type_registers_keep_what_is_valid() {
    let mut cpu = vcpu();
    let write = |cpu: &mut crate::cpu::Vcpu<_>, number: u32, value: u64| {
        cpu.state.gpr[gpr::ECX] = number;
        cpu.state.gpr[gpr::EAX] = value as u32;
        cpu.state.gpr[gpr::EDX] = (value >> 32) as u32;
        cpu.wrmsr()
    };
    let (capabilities, base_0, mask_0, fixed_4k, pat, default_type) =
        (0xfe, 0x200, 0x201, 0x268, 0x277, 0x2ff);
    assert_eq!(write(&mut cpu, capabilities, 0), Err(Fault::gp(0)), "read-only");
    for (number, good, bad) in [
        (base_0, 0xf_e000_0001, 0x2),
        (mask_0, 0xf_ff00_0800, 0x10_0000_0800),
        (fixed_4k, 0x0606_0606_0505_0400, 0x0706_0606_0606_0606),
        (pat, 0x0007_0406_0107_0406, 0x0207_0406_0007_0406),
        (default_type, 0xc06, 0x1006),
    ] {
        write(&mut cpu, number, good).unwrap();
        assert_eq!(write(&mut cpu, number, bad), Err(Fault::gp(0)), "{number:#x}");
        cpu.rdmsr().unwrap();
        let read = u64::from(cpu.state.gpr[gpr::EDX]) << 32 | u64::from(cpu.state.gpr[gpr::EAX]);
        assert_eq!(read, good, "{number:#x}");
    }
}

#[test]
fn init_keeps_the_fpu_and_model_specific_registers_and_reset_does_not() {
    let mut cpu = vcpu();
    cpu.state.fpu.control = 0x27f;
    cpu.state.msr.sysenter_cs = 8;
    cpu.state.gpr[gpr::EBX] = 5;
    cpu.init();
    assert_eq!((cpu.state.fpu.control, cpu.state.msr.sysenter_cs, cpu.state.gpr[gpr::EBX]), (0x27f, 8, 0));
    cpu.reset();
    assert_eq!((cpu.state.fpu.control, cpu.state.msr.sysenter_cs), (0x40, 0));
}

#[test]
fn each_model_adds_vector_extensions() {
    let vector = |model: CpuModel| model.features() & (feature::MMX | feature::SSE | feature::SSE2);
    assert_eq!(vector(CpuModel::Pentium2), feature::MMX);
    assert_eq!(vector(CpuModel::Pentium3), feature::MMX | feature::SSE);
    assert_eq!(vector(CpuModel::Max), feature::MMX | feature::SSE | feature::SSE2);
}
