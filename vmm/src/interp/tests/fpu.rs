//! The x87 as software sees it: reporting of exceptions, pointers, environments, faults.

use super::{Bench, CODE, DATA, assemble};
use crate::cpu::fpu::{fcw, fsw};
use crate::cpu::model::feature;
use crate::cpu::registers::{Seg, cr0, cr4, rights};
use crate::cpu::state::Segment;
use crate::interp::Exit;
use crate::softfloat::F80;
use iced_x86::code_asm::*;

#[test]
fn the_pointers_are_those_of_the_last_instruction_within_a_block() {
    let mut bench = Bench::assembled(|a| {
        a.fninit()?;
        a.nop()?;
        a.fld1()?;
        a.fadd_2(st0, st0)?;
        a.fmul(dword_ptr(DATA))?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    bench.run();
    let fpu = &bench.cpu.state.fpu;
    // FNINIT 2, NOP 1, FLD1 2, FADD 2.
    assert_eq!(fpu.instruction_offset, CODE + 7);
    assert_eq!((fpu.instruction_selector, fpu.opcode), (8, 0x00d));
    assert_eq!((fpu.operand_selector, fpu.operand_offset), (8, DATA));
}

#[test]
fn software_finds_the_unit() {
    // As Linux and BIOSes probe.
    let mut bench = Bench::assembled(|a| {
        a.fninit()?;
        a.mov(word_ptr(DATA), 0x5a5a)?;
        a.fnstsw(word_ptr(DATA))?;
        a.fnstcw(word_ptr(DATA + 2))?;
        a.mov(eax, dword_ptr(DATA))?;
        a.hlt()
    });
    bench.run();
    assert_eq!(bench.eax(), u32::from(fcw::AFTER_INIT) << 16);
}

/// Divides one by zero with ZE unmasked, then waits.
fn with_pending_exception() -> Vec<u8> {
    assemble(32, |a| {
        a.fninit()?;
        a.mov(word_ptr(DATA), i32::from(fcw::AFTER_INIT & !ZE))?;
        a.fldcw(word_ptr(DATA))?;
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        // Does not wait.
        a.fnstsw(ax)?;
        a.nop()?;
        a.wait()?;
        a.inc(ecx)?;
        a.hlt()
    })
}

/// The exception mask and flag of a division by zero.
const ZE: u16 = 4;

#[test]
fn a_pending_exception_is_reported_by_the_next_waiting_instruction() {
    let code = with_pending_exception();
    let mut bench = Bench::flat(&code);
    bench.cpu.state.cr0 |= cr0::NE;
    // There is no IDT.
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown);
    assert_eq!(bench.eax() as u16 & (fsw::ES | fsw::B | ZE), fsw::ES | fsw::B | ZE);
    assert_eq!(bench.cpu.state.eip, CODE + code.len() as u32 - 3, "at WAIT");
    // No result, no pop.
    assert_eq!(bench.cpu.state.fpu.st(0), F80::ZERO);
    assert_eq!(bench.cpu.state.fpu.st(1), F80::ONE);
}

#[test]
fn without_ne_the_waiting_instruction_waits_until_ignne() {
    let code = with_pending_exception();
    let mut bench = Bench::flat(&code);
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Budget);
    assert!(bench.cpu.bus.ferr);
    assert_eq!((bench.cpu.state.eip, bench.ecx()), (CODE + code.len() as u32 - 3, 0), "at WAIT");
    bench.cpu.bus.ignne = true;
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Halted);
    assert_eq!(bench.ecx(), 1);
    assert!(bench.cpu.bus.ferr, "the exception is still pending");
}

#[test]
fn clearing_exceptions_ends_ferr() {
    let mut code = with_pending_exception();
    // FNCLEX, one byte longer, instead of NOP and WAIT.
    let at = code.len() - 4;
    code[at..at + 2].copy_from_slice(&[0xdb, 0xe2]);
    let mut bench = Bench::flat(&code);
    bench.run();
    assert!(!bench.cpu.bus.ferr);
    assert_eq!(bench.cpu.state.fpu.status & (fsw::ES | fsw::B | fsw::EXCEPTIONS), 0);
}

#[test]
fn a_unit_that_belongs_to_another_task_or_is_emulated_is_not_touched() {
    for (bits, code) in [(cr0::TS, &[0xdb, 0xe3, 0xf4]), (cr0::EM, &[0xd9, 0xe8, 0xf4])] {
        let mut bench = Bench::flat(code);
        bench.cpu.state.cr0 |= bits;
        let before = bench.cpu.state.fpu.clone();
        assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown, "#NM without handler");
        assert_eq!((bench.cpu.state.eip, &bench.cpu.state.fpu), (CODE, &before));
    }
}

#[test]
fn a_store_that_faults_does_not_pop() {
    let mut bench = Bench::assembled(|a| {
        a.fninit()?;
        a.fld1()?;
        a.fstp(qword_ptr(esi))?;
        a.hlt()
    });
    let data = &mut bench.cpu.state.segments[Seg::Ds as usize];
    *data = Segment::new(8, data.rights(), 0, 0xffff);
    bench.cpu.state.gpr[6] = 0xfffc;
    bench.cpu.state_replaced();
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown);
    assert_eq!(bench.cpu.state.eip, CODE + 4, "at FSTP");
    assert_eq!(bench.cpu.state.fpu.top(), 7);
    assert_eq!(bench.cpu.state.fpu.st(0), F80::ONE);
    assert!(!bench.cpu.state.fpu.is_empty(0));
    assert_eq!(bench.cpu.state.fpu.instruction_offset, CODE + 2, "FLD1 is the last one that was executed");
}

#[test]
fn a_store_to_bad_memory_faults_before_its_unmasked_exception() {
    // Nothing on the stack to store, with stack faults unmasked.
    let mut bench = Bench::assembled(|a| {
        a.fninit()?;
        a.mov(word_ptr(DATA), i32::from(fcw::AFTER_INIT & !1))?;
        a.fldcw(word_ptr(DATA))?;
        a.fistp(dword_ptr(esi))?;
        a.hlt()
    });
    let data = &mut bench.cpu.state.segments[Seg::Ds as usize];
    *data = Segment::new(8, data.rights(), 0, DATA + 0xff);
    bench.cpu.state.gpr[6] = DATA + 0xfd;
    bench.cpu.state_replaced();
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown);
    assert_eq!(bench.cpu.state.fpu.status & (fsw::EXCEPTIONS | fsw::SF | fsw::ES), 0);
}

#[test]
fn constants_follow_rounding_control() {
    for (control, last_bits) in [(0x37fu16, 0x35), (0x77f, 0x34), (0xb7f, 0x35), (0xf7f, 0x34)] {
        let mut bench = Bench::assembled(|a| {
            a.fninit()?;
            a.mov(word_ptr(DATA), i32::from(control))?;
            a.fldcw(word_ptr(DATA))?;
            a.fldpi()?;
            a.hlt()
        });
        bench.run();
        let pi = bench.cpu.state.fpu.st(0);
        assert_eq!((pi.sign_exponent, pi.significand), (0x4000, 0xc90f_daa2_2168_c200 | last_bits));
    }
}

#[test]
fn the_environment_of_real_mode_has_linear_addresses() {
    // FLD dword [2345h]; FNSTENV [100h]; HLT
    let code = [0xd9, 0x06, 0x45, 0x23, 0xd9, 0x36, 0x00, 0x01, 0xf4];
    let mut bench = Bench::real(&code);
    bench.cpu.state.segments[Seg::Cs as usize] = Segment::new(0x100, rights::REAL_MODE, 0x1000, 0xffff);
    bench.cpu.state.segments[Seg::Ds as usize] = Segment::new(0x4000, rights::REAL_MODE, 0x4_0000, 0xffff);
    bench.cpu.state.eip = 0;
    bench.cpu.state.fpu.initialize();
    bench.cpu.state_replaced();
    bench.run();
    let words: Vec<u16> = (0..7).map(|n| bench.cpu.bus.peek16(0x4_0100 + 2 * n)).collect();
    // Control, status, tags, FIP, its upper bits and FOP, FDP, its upper bits.
    assert_eq!(words, [fcw::AFTER_INIT, 7 << fsw::TOP_SHIFT, 0x7fff, 0x1000, 0x0106, 0x2345, 0x4000]);
}

#[test]
fn fxsave_and_fxrstor_keep_everything() {
    let mut bench = Bench::assembled(|a| {
        a.fninit()?;
        a.fldpi()?;
        a.fld1()?;
        a.fxsave(ptr(DATA))?;
        a.fninit()?;
        a.fldz()?;
        a.fxrstor(ptr(DATA))?;
        a.hlt()
    });
    bench.cpu.state.cr4 |= cr4::OSFXSR;
    bench.cpu.state.fpu.xmm[3] = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
    bench.run();
    let fpu = &bench.cpu.state.fpu;
    assert_eq!((fpu.st(0), fpu.top(), fpu.valid), (F80::ONE, 6, 0xc0));
    assert_eq!(fpu.opcode, 0x1e8, "FLD1");
    assert_eq!(fpu.xmm[3], 0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    let has_mxcsr = bench.cpu.state.model.has(feature::SSE);
    let bus = &mut bench.cpu.bus;
    assert_eq!(bus.peek32(u64::from(DATA) + 24), if has_mxcsr { 0x1f80 } else { 0 });
    assert_eq!(bus.peek32(u64::from(DATA) + 32 + 4), 0x8000_0000, "ST(0) comes first");
}

#[test]
fn fxrstor_refuses_reserved_bits_of_mxcsr_and_odd_addresses() {
    for (address, mxcsr, fine) in [(DATA, 0x1f80, true), (DATA, 0x1_1f80, false), (DATA + 8, 0x1f80, false)] {
        let mut bench = Bench::assembled(|a| {
            a.fxrstor(ptr(address))?;
            a.hlt()
        });
        bench.cpu.state.cr4 |= cr4::OSFXSR;
        let fine = fine || address == DATA && !bench.cpu.state.model.has(feature::SSE);
        bench.cpu.bus.poke32(u64::from(address) + 24, mxcsr);
        let exit = bench.interp.run(&mut bench.cpu, 100);
        assert_eq!(exit == Exit::Halted, fine, "{address:x} {mxcsr:x}");
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
fn instructions_agree_with_the_host() {
    eprintln!("SKIPPED: x87 instructions are compared with the processor on x86-64 Linux only");
}
