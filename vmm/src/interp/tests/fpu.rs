//! The x87 as software sees it: reporting of exceptions, pointers, environments, faults.

use super::{Bench, CODE, DATA, assemble};
use crate::cpu::fpu::{fcw, fsw};
use crate::cpu::registers::{Seg, cr0};
use crate::interp::Exit;
use crate::softfloat::F80;
use iced_x86::code_asm::*;

/// Where tests have their handler of #MF.
const HANDLER: u32 = 0x3000;

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
