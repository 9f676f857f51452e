use super::{Bench, CODE, DATA, STACK};
use crate::cpu::registers::eflags;
use crate::interp::Exit;
use iced_x86::code_asm::*;

/// Runs code that must raise #UD.
fn is_undefined(code: &[u8]) -> bool {
    let mut bench = Bench::real(code);
    // Vector 6 at 0:700, a HLT; all others at 0:600.
    for vector in 0..256 {
        bench.cpu.bus.poke32(vector * 4, if vector == 6 { 0x700 } else { 0x600 });
    }
    bench.cpu.bus.load(0x600, &[0xf4]);
    bench.cpu.bus.load(0x700, &[0xf4]);
    bench.interp.run(&mut bench.cpu, 100);
    let pushed = bench.cpu.bus.peek16(u64::from(STACK) - 6);
    bench.cpu.state.eip == 0x701 && u32::from(pushed) == CODE
}

#[test]
fn lock_is_allowed_only_where_memory_is_modified() {
    assert!(is_undefined(&[0xf0, 0x01, 0xc8, 0xf4]), "lock add ax, cx");
    assert!(is_undefined(&[0xf0, 0x03, 0x07, 0xf4]), "lock add ax, [bx]");
    assert!(is_undefined(&[0xf0, 0x39, 0x07, 0xf4]), "lock cmp [bx], ax");
    assert!(is_undefined(&[0xf0, 0x90, 0xf4]), "lock nop");
    assert!(is_undefined(&[0xf0, 0xa4, 0xf4]), "lock movsb");
    assert!(!is_undefined(&[0xf0, 0x01, 0x07, 0xf4]), "lock add [bx], ax");
    assert!(!is_undefined(&[0xf0, 0x87, 0x07, 0xf4]), "lock xchg [bx], ax");
    assert!(!is_undefined(&[0xf0, 0x0f, 0xb1, 0x0f, 0xf4]), "lock cmpxchg [bx], cx");
}

#[test]
fn opcodes_of_other_processors_are_undefined() {
    let undefined: [(&str, &[u8]); 19] = [
        ("ud2", &[0x0f, 0x0b]),
        ("ud1", &[0x0f, 0xb9, 0xc0]),
        ("rsm outside SMM", &[0x0f, 0xaa]),
        ("mov cs, ax", &[0x8e, 0xc8]),
        ("mov sreg 6", &[0x8e, 0xf0]),
        ("les with register", &[0xc4, 0xc0]),
        ("lea with register", &[0x8d, 0xc0]),
        ("group 5 /7", &[0xff, 0xf8]),
        ("group 4 /2", &[0xfe, 0xd0]),
        ("cmpxchg8b with register", &[0x0f, 0xc7, 0xc8]),
        ("popcnt", &[0xf3, 0x0f, 0xb8, 0xc0]),
        ("movbe", &[0x0f, 0x38, 0xf0, 0x07]),
        ("syscall", &[0x0f, 0x05]),
        ("vzeroupper", &[0xc5, 0xf8, 0x77]),
        ("mov tr", &[0x0f, 0x24, 0xc0]),
        ("arpl in real mode", &[0x63, 0xc0]),
        ("sldt in real mode", &[0x0f, 0x00, 0xc0]),
        ("paddd of XMM registers", &[0x66, 0x0f, 0xfe, 0xc1]),
        ("addps without CR4.OSFXSR", &[0x0f, 0x58, 0xc1]),
    ];
    for (name, code) in undefined {
        assert!(is_undefined(code), "{name}");
    }
    assert!(!is_undefined(&[0x0f, 0x1f, 0xc0, 0xf4]), "a hint NOP");
    assert!(!is_undefined(&[0xd6, 0xf4]), "salc");
    assert!(!is_undefined(&[0xf3, 0x90, 0xf4]), "pause is a NOP");
    assert!(!is_undefined(&[0x82, 0xc0, 0x01, 0xf4]), "82 is an alias of 80");
    assert!(!is_undefined(&[0xf6, 0xc8, 0x01, 0xf4]), "F6 /1 is TEST");
}

#[test]
fn tzcnt_and_lzcnt_prefixes_are_ignored_on_bit_scans() {
    // rep bsf eax, ecx; rep bsr ebx, ecx
    let mut bench = Bench::flat(&[0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0xd9, 0xf4]);
    bench.cpu.state.gpr[1] = 0x0001_0100;
    bench.run();
    assert_eq!(bench.eax(), 8);
    assert_eq!(bench.cpu.state.gpr[3], 16);
}

#[test]
fn bit_string_reaches_before_its_address() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, -33)?;
        a.bts(dword_ptr(DATA + 8), eax)?;
        a.mov(ecx, 65)?;
        a.btc(dword_ptr(DATA + 8), ecx)?;
        a.bt(dword_ptr(DATA + 8), eax)?;
        a.setc(bl)?;
        a.hlt()
    });
    bench.run();
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA)), 1 << 31);
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA) + 16), 2);
    assert_eq!(bench.cpu.state.gpr[3], 1);
}

#[test]
fn cmpxchg8b_compares_both_halves() {
    let mut bench = Bench::assembled(|a| {
        a.cmpxchg8b(qword_ptr(DATA))?;
        a.setz(byte_ptr(DATA + 16))?;
        a.cmpxchg8b(qword_ptr(DATA))?;
        a.setz(byte_ptr(DATA + 17))?;
        a.hlt()
    });
    bench.cpu.bus.poke32(u64::from(DATA), 5);
    bench.cpu.bus.poke32(u64::from(DATA) + 4, 6);
    bench.cpu.state.gpr = [5, 0x22, 7, 0x11, STACK, 0, 0, 0];
    bench.run();
    assert_eq!(bench.eax(), 5);
    assert_eq!(bench.cpu.state.gpr[2], 6);
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA)), 0x11);
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA) + 4), 0x22);
    assert_eq!(bench.cpu.bus.peek16(u64::from(DATA) + 16), 0x0100);
}

#[test]
fn enter_copies_outer_frame_pointers() {
    let mut bench = Bench::assembled(|a| {
        a.enter(16, 3)?;
        a.hlt()
    });
    bench.cpu.state.gpr[5] = DATA + 0x100;
    bench.cpu.bus.poke32(u64::from(DATA) + 0xfc, 0xaaaa);
    bench.cpu.bus.poke32(u64::from(DATA) + 0xf8, 0xbbbb);
    bench.run();
    let frame = u64::from(STACK) - 4;
    assert_eq!(u64::from(bench.cpu.state.gpr[5]), frame);
    assert_eq!(bench.cpu.state.gpr[4], STACK - 4 - 12 - 16);
    let pushed: Vec<u32> = (0..4).map(|n| bench.cpu.bus.peek32(frame - 4 * n)).collect();
    assert_eq!(pushed, [DATA + 0x100, 0xaaaa, 0xbbbb, frame as u32]);
}

#[test]
fn sixteen_bit_code_uses_only_sp_and_wraps_addresses() {
    // push ax; mov ax, [bx+si]; hlt, in real mode with garbage above.
    let mut bench = Bench::real(&[0x50, 0x8b, 0x00, 0xf4]);
    bench.cpu.state.gpr[0] = 0x1234;
    bench.cpu.state.gpr[3] = 0xdead_f000;
    bench.cpu.state.gpr[6] = 0xbeef_3000;
    bench.cpu.state.gpr[4] = 0x7777_0000 | STACK;
    bench.cpu.bus.poke16(0x2000, 0x4242);
    bench.run();
    assert_eq!(bench.eax(), 0x4242);
    assert_eq!(bench.cpu.state.gpr[4], 0x7777_0000 | (STACK - 2));
    assert_eq!(bench.cpu.bus.peek16(u64::from(STACK) - 2), 0x1234);
}

#[test]
fn sysenter_and_sysexit_switch_levels() {
    let mut bench = Bench::flat(&[0x0f, 0x34]);
    bench.cpu.bus.load(0x3000, &[0x0f, 0x35]);
    bench.cpu.state.msr.sysenter_cs = 8;
    bench.cpu.state.msr.sysenter_esp = 0x6000;
    bench.cpu.state.msr.sysenter_eip = 0x3000;
    bench.interp.step(&mut bench.cpu);
    assert_eq!((bench.cpu.state.eip, bench.cpu.state.gpr[4], bench.cpu.cpl()), (0x3000, 0x6000, 0));
    bench.cpu.state.gpr[1] = 0x5000;
    bench.cpu.state.gpr[2] = 0x4000;
    bench.interp.step(&mut bench.cpu);
    assert_eq!((bench.cpu.state.eip, bench.cpu.state.gpr[4], bench.cpu.cpl()), (0x4000, 0x5000, 3));
}

#[test]
fn loop_counts_cx_or_ecx_by_address_size() {
    // a32 loop to itself would not end; here: 67 E2 with ECX = 2 in 16-bit code.
    let mut bench = Bench::real(&[0x40, 0x67, 0xe2, 0xfc, 0xf4]);
    bench.cpu.state.gpr[1] = 0x0001_0001;
    assert_eq!(bench.interp.run(&mut bench.cpu, 1_000_000), Exit::Halted);
    assert_eq!(bench.eax(), 1);
    assert_eq!(bench.ecx(), 0);

    let mut bench = Bench::real(&[0x40, 0xe2, 0xfd, 0xf4]);
    bench.cpu.state.gpr[1] = 0x0001_0001;
    bench.run();
    assert_eq!(bench.eax(), 1);
    assert_eq!(bench.ecx(), 0x0001_0000);
}

#[test]
fn popf_can_set_what_its_privilege_allows() {
    let mut bench = Bench::assembled(|a| {
        a.push(-1)?;
        a.popfd()?;
        a.hlt()
    });
    bench.cpu.state.eflags &= !eflags::TF;
    bench.interp.step(&mut bench.cpu);
    bench.interp.step(&mut bench.cpu);
    let flags = bench.cpu.flags();
    assert_eq!(flags & (eflags::VM | eflags::RF | eflags::VIP | eflags::VIF), 0);
    let wanted =
        eflags::ARITHMETIC | eflags::IF | eflags::IOPL | eflags::TF | eflags::NT | eflags::AC | eflags::ID;
    assert_eq!(flags & wanted, wanted);
}
