//! The floating-point unit, as GDB numbers its registers and as text for people.

use crate::cpu::fpu::{FpuState, fcw};
use crate::softfloat::F80;
use gdbstub_arch::x86::reg::X86CoreRegs;
use std::fmt::{self, Write as _};

/// Integer bit of a significand.
const INTEGER: u64 = 1 << 63;
/// The exponent's bits.
const EXPONENT: u16 = 0x7fff;
/// The exponent's bias.
const BIAS: i32 = 16383;

/// For the debugger.
pub fn read(fpu: &FpuState, regs: &mut X86CoreRegs) {
    for (i, st) in (0..).zip(&mut regs.st) {
        let register = fpu.st(i);
        st[..8].copy_from_slice(&register.significand.to_le_bytes());
        st[8..].copy_from_slice(&register.sign_exponent.to_le_bytes());
    }
    regs.fpu.fctrl = fpu.control.into();
    regs.fpu.fstat = fpu.status.into();
    regs.fpu.ftag = fpu.tag_word().into();
    regs.fpu.fop = fpu.opcode.into();
    regs.fpu.fiseg = fpu.instruction_selector.into();
    regs.fpu.fioff = fpu.instruction_offset;
    regs.fpu.foseg = fpu.operand_selector.into();
    regs.fpu.fooff = fpu.operand_offset;
    regs.xmm = fpu.xmm;
    regs.mxcsr = fpu.mxcsr;
}

/// From the debugger. Bits that the unit does not have are left out; ES, B and FERR# are the caller's to follow.
pub fn write(fpu: &mut FpuState, regs: &X86CoreRegs, mxcsr_mask: u32) {
    fpu.control = fcw::kept(regs.fpu.fctrl as u16);
    fpu.status = regs.fpu.fstat as u16;
    for (i, st) in (0..).zip(&regs.st) {
        let (significand, rest) = st.split_at(8);
        let value = F80 {
            significand: significand.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
            sign_exponent: rest.iter().rev().fold(0, |value, byte| value << 8 | u16::from(*byte)),
        };
        fpu.set_st(i, value);
    }
    fpu.set_tag_word(regs.fpu.ftag as u16);
    fpu.xmm = regs.xmm;
    fpu.mxcsr = regs.mxcsr & mxcsr_mask;
}

/// About what a register holds, in decimal.
fn approximate(register: &F80) -> f64 {
    let sign = if register.sign_exponent & !EXPONENT != 0 { -1.0 } else { 1.0 };
    let exponent = i32::from(register.sign_exponent & EXPONENT);
    match (register.sign_exponent & EXPONENT, register.significand) {
        (_, 0) => sign * 0.0,
        (EXPONENT, INTEGER) => sign * f64::INFINITY,
        (EXPONENT, _) => f64::NAN,
        (_, significand) => sign * (significand as f64 / INTEGER as f64) * 2f64.powi(exponent - BIAS),
    }
}

/// As text.
pub fn describe(out: &mut String, fpu: &FpuState) -> fmt::Result {
    writeln!(
        out,
        "FCW {:04x}  FSW {:04x} TOP {}  FTW {:04x}  FOP {:03x}  FIP {:04x}:{:08x}  FDP {:04x}:{:08x}",
        fpu.control,
        fpu.status,
        fpu.top(),
        fpu.tag_word(),
        fpu.opcode,
        fpu.instruction_selector,
        fpu.instruction_offset,
        fpu.operand_selector,
        fpu.operand_offset
    )?;
    for i in 0..8 {
        let register = fpu.st(i);
        let value = if fpu.is_empty(i) { "empty".into() } else { format!("{:e}", approximate(&register)) };
        writeln!(out, "ST{i} {:04x} {:016x} {value}", register.sign_exponent, register.significand)?;
    }
    for (i, xmm) in fpu.xmm.iter().enumerate() {
        writeln!(out, "XMM{i} {xmm:032x}")?;
    }
    writeln!(out, "MXCSR {:08x}", fpu.mxcsr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::fpu::tag;

    #[test]
    fn tags_and_values_follow_the_registers() {
        let mut fpu = FpuState::at_reset();
        fpu.registers[0] = F80 { significand: 0xc000_0000_0000_0000, sign_exponent: 0xc000 };
        fpu.registers[1] = F80 { significand: INTEGER, sign_exponent: EXPONENT };
        fpu.valid = 0b0000_0111;
        assert_eq!(fpu.tag_word(), !0x3f | tag::ZERO << 4 | tag::SPECIAL << 2);
        let mut text = String::new();
        describe(&mut text, &fpu).unwrap();
        assert!(text.contains("ST0 c000 c000000000000000 -3e0\n"), "{text}");
        assert!(
            text.contains("ST1 7fff 8000000000000000 inf\n")
                && text.contains("ST3 0000 0000000000000000 empty\n")
        );
    }
}
