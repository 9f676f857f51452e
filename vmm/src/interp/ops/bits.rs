//! Single bits: BT and its relatives, bit scans, byte swap, SETcc.

use super::{by_condition, by_word_size, holds};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Byte, Handler, Imm, Mem, Op, Place, Reg, Rm, Size, Target};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Bt => bit_operation::<B, Keep>(form),
        Mnemonic::Bts => bit_operation::<B, SetBit>(form),
        Mnemonic::Btr => bit_operation::<B, ResetBit>(form),
        Mnemonic::Btc => bit_operation::<B, ComplementBit>(form),
        Mnemonic::Bsf if form.kinds[1] == Kind::Memory => by_word_size!(form.size, scan_forward, Mem),
        Mnemonic::Bsf => by_word_size!(form.size, scan_forward, Rm),
        Mnemonic::Bsr if form.kinds[1] == Kind::Memory => by_word_size!(form.size, scan_reverse, Mem),
        Mnemonic::Bsr => by_word_size!(form.size, scan_reverse, Rm),
        Mnemonic::Bswap => by_word_size!(form.size, byte_swap),
        _ => match (form.set_condition(), form.kinds[0]) {
            (Some(condition), Kind::Memory) => by_condition!(condition, set_condition, Mem),
            (Some(condition), _) => by_condition!(condition, set_condition, Reg),
            (None, _) => return None,
        },
    })
}

fn bit_operation<B: Bus, O: BitChange>(form: &Decoded) -> Handler<B> {
    match (form.kinds[0], form.kinds[1]) {
        (Kind::Memory, Kind::Immediate) => by_word_size!(form.size, bit_here, O, Mem, Imm),
        (Kind::Memory, _) => by_word_size!(form.size, bit_in_string, O),
        (_, Kind::Immediate) => by_word_size!(form.size, bit_here, O, Reg, Imm),
        _ => by_word_size!(form.size, bit_here, O, Reg, Rm),
    }
}

trait BitChange: 'static {
    const WRITES: bool;
    fn apply(value: u32, mask: u32) -> u32;
}

struct Keep;
struct SetBit;
struct ResetBit;
struct ComplementBit;

impl BitChange for Keep {
    const WRITES: bool = false;
    fn apply(value: u32, _mask: u32) -> u32 {
        value
    }
}

impl BitChange for SetBit {
    const WRITES: bool = true;
    fn apply(value: u32, mask: u32) -> u32 {
        value | mask
    }
}

impl BitChange for ResetBit {
    const WRITES: bool = true;
    fn apply(value: u32, mask: u32) -> u32 {
        value & !mask
    }
}

impl BitChange for ComplementBit {
    const WRITES: bool = true;
    fn apply(value: u32, mask: u32) -> u32 {
        value ^ mask
    }
}

/// The bit number is taken modulo the operand size.
fn bit_here<B: Bus, S: Size, O: BitChange, D: Target, N: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let mask = 1 << (N::read::<B, S>(cpu, op)? & (S::BITS - 1));
    if O::WRITES {
        D::modify::<B, S>(cpu, op, |cpu, value| {
            cpu.lazy.set_carry(value & mask != 0);
            O::apply(value, mask)
        })
    } else {
        let value = D::read::<B, S>(cpu, op)?;
        cpu.lazy.set_carry(value & mask != 0);
        Ok(())
    }
}

/// The memory operand starts a bit string; a register gives the signed bit number.
fn bit_in_string<B: Bus, S: Size, O: BitChange>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let number = S::sign_extend(S::get(cpu, op.rm)) as i32;
    let bits = S::BITS as i32;
    let displacement = number.div_euclid(bits) * (bits / 8);
    let offset = op.offset(cpu).wrapping_add(displacement as u32) & op.address_mask;
    let mask = 1 << number.rem_euclid(bits);
    if O::WRITES {
        S::modify(cpu, op.segment, offset, |cpu, value| {
            cpu.lazy.set_carry(value & mask != 0);
            O::apply(value, mask)
        })
    } else {
        let value = S::load(cpu, op.segment, offset)?;
        cpu.lazy.set_carry(value & mask != 0);
        Ok(())
    }
}

/// The flags of a bit scan: ZF tells whether the source was zero; the others, undefined, are those of
/// the bit's number.
fn set_scan_flags<B: Bus>(cpu: &mut Vcpu<B>, position: Option<u32>) {
    cpu.lazy.set_logic(position.unwrap_or(0));
    if position == Some(0) {
        cpu.lazy.set_zero(false);
    }
}

fn scan_forward<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = R::read::<B, S>(cpu, op)?;
    let position = (value != 0).then(|| value.trailing_zeros());
    if let Some(position) = position {
        S::set(cpu, op.reg, position);
    }
    set_scan_flags(cpu, position);
    Ok(())
}

fn scan_reverse<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = R::read::<B, S>(cpu, op)?;
    let position = value.checked_ilog2();
    if let Some(position) = position {
        S::set(cpu, op.reg, position);
    }
    set_scan_flags(cpu, position);
    Ok(())
}

/// A 16-bit operand is undefined; Intel processors clear it.
fn byte_swap<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = S::get(cpu, op.reg);
    S::set(cpu, op.reg, if S::BITS == 32 { value.swap_bytes() } else { 0 });
    Ok(())
}

fn set_condition<B: Bus, const CONDITION: u8, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let value = u32::from(holds::<CONDITION>(cpu.lazy));
    D::write::<B, Byte>(cpu, op, value)
}
