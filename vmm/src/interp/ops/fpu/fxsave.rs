//! FXSAVE and FXRSTOR: x87 or MMX state and, once the operating system has said that it knows of them (CR4.OSFXSR),
//! the XMM registers and MXCSR, in a fixed format of 512 bytes. Bytes that the format does not use are not written.

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::fpu::{self, fcw};
use crate::cpu::model::feature;
use crate::cpu::registers::cr4;
use crate::interp::decode::Decoded;
use crate::interp::op::{Handler, Op};
use crate::softfloat::F80;
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    match form.mnemonic {
        Mnemonic::Fxsave => Some(save::<B>),
        Mnemonic::Fxrstor => Some(restore::<B>),
        _ => None,
    }
}

/// Bytes of the image, and what its address must be a multiple of.
const BYTES: u32 = 512;
const ALIGNMENT: u32 = 16;
/// Where the parts are.
const CONTROL: u32 = 0;
const STATUS: u32 = 2;
const TAGS: u32 = 4;
const OPCODE: u32 = 6;
const INSTRUCTION_OFFSET: u32 = 8;
const INSTRUCTION_SELECTOR: u32 = 12;
const OPERAND_OFFSET: u32 = 16;
const OPERAND_SELECTOR: u32 = 20;
const MXCSR: u32 = 24;
const MXCSR_MASK: u32 = 28;
const REGISTERS: u32 = 32;
const XMM: u32 = 160;
/// From one register to the next.
const REGISTER_BYTES: u32 = 16;

/// Where the image is, after the checks that both instructions make.
fn image<B: Bus>(cpu: &Vcpu<B>, op: &Op<B>) -> Exec<u32> {
    if !cpu.state.model.has(feature::FXSR) {
        return Err(Fault::ud());
    }
    cpu.check_fpu()?;
    let offset = op.offset(cpu);
    let linear = cpu.state.segment(op.segment).base().wrapping_add(offset);
    if !linear.is_multiple_of(ALIGNMENT) {
        return Err(Fault::gp(0));
    }
    Ok(offset)
}

fn has_xmm<B: Bus>(cpu: &Vcpu<B>) -> bool {
    cpu.state.model.has(feature::SSE) && cpu.state.cr4 & cr4::OSFXSR != 0
}

/// An eighth register follows the seventh: the parts of registers.
fn parts(first: u32) -> impl Iterator<Item = (u8, u32)> {
    (0..8).map(move |n| (n, first + REGISTER_BYTES * u32::from(n)))
}

fn save<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = image(cpu, op)?;
    cpu.probe_write(op.segment, offset, BYTES)?;
    let fpu = cpu.state.fpu.clone();
    let at = |part: u32| offset.wrapping_add(part);
    let segment = op.segment;
    cpu.write_u16(segment, at(CONTROL), fpu.control)?;
    cpu.write_u16(segment, at(STATUS), fpu.status)?;
    cpu.write_u16(segment, at(TAGS), fpu.valid.into())?;
    cpu.write_u16(segment, at(OPCODE), fpu.opcode & fpu::OPCODE)?;
    cpu.write_u32(segment, at(INSTRUCTION_OFFSET), fpu.instruction_offset)?;
    cpu.write_u32(segment, at(INSTRUCTION_SELECTOR), fpu.instruction_selector.into())?;
    cpu.write_u32(segment, at(OPERAND_OFFSET), fpu.operand_offset)?;
    cpu.write_u32(segment, at(OPERAND_SELECTOR), fpu.operand_selector.into())?;
    for (i, part) in parts(REGISTERS) {
        let value = fpu.st(i);
        cpu.write_u64(segment, at(part), value.significand)?;
        cpu.write_u64(segment, at(part + 8), value.sign_exponent.into())?;
    }
    if has_xmm(cpu) {
        cpu.write_u32(segment, at(MXCSR), fpu.mxcsr)?;
        cpu.write_u32(segment, at(MXCSR_MASK), cpu.state.model.mxcsr_mask())?;
        for (n, part) in parts(XMM) {
            let value = fpu.xmm[usize::from(n)];
            cpu.write_u64(segment, at(part), value as u64)?;
            cpu.write_u64(segment, at(part + 8), (value >> 64) as u64)?;
        }
    }
    Ok(())
}

fn restore<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = image(cpu, op)?;
    cpu.probe_read(op.segment, offset, BYTES)?;
    let at = |part: u32| offset.wrapping_add(part);
    let segment = op.segment;
    let mut fpu = cpu.state.fpu.clone();
    fpu.control = fcw::kept(cpu.read_u16(segment, at(CONTROL))?);
    fpu.status = cpu.read_u16(segment, at(STATUS))?;
    let valid = cpu.read_u8(segment, at(TAGS))?;
    fpu.opcode = cpu.read_u16(segment, at(OPCODE))? & fpu::OPCODE;
    fpu.instruction_offset = cpu.read_u32(segment, at(INSTRUCTION_OFFSET))?;
    fpu.instruction_selector = cpu.read_u16(segment, at(INSTRUCTION_SELECTOR))?;
    fpu.operand_offset = cpu.read_u32(segment, at(OPERAND_OFFSET))?;
    fpu.operand_selector = cpu.read_u16(segment, at(OPERAND_SELECTOR))?;
    for (i, part) in parts(REGISTERS) {
        let significand = cpu.read_u64(segment, at(part))?;
        let sign_exponent = cpu.read_u16(segment, at(part + 8))?;
        fpu.set_st(i, F80 { significand, sign_exponent });
    }
    fpu.valid = valid;
    if has_xmm(cpu) {
        fpu.mxcsr = cpu.read_u32(segment, at(MXCSR))?;
        if fpu.mxcsr & !cpu.state.model.mxcsr_mask() != 0 {
            return Err(Fault::gp(0));
        }
        for (n, part) in parts(XMM) {
            let low = cpu.read_u64(segment, at(part))?;
            let high = cpu.read_u64(segment, at(part + 8))?;
            fpu.xmm[usize::from(n)] = u128::from(low) | u128::from(high) << 64;
        }
    }
    cpu.state.fpu = fpu;
    cpu.update_fpu_summary();
    Ok(())
}
