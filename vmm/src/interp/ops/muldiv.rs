//! Multiplication and division. SF, ZF, AF and PF are undefined after them; here they stay as they were.

use super::{by_size, by_word_size};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::flags::{AF, CF, OF};
use crate::interp::op::{AH, EAX, EDX, Handler, Mem, Op, Place, Reg, Rm, Size};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    let memory = form.kinds[0] == Kind::Memory;
    Some(match form.mnemonic {
        Mnemonic::Mul if memory => by_size!(form.size, multiply, Mem),
        Mnemonic::Mul => by_size!(form.size, multiply, Reg),
        Mnemonic::Div if memory => by_size!(form.size, divide, Mem),
        Mnemonic::Div => by_size!(form.size, divide, Reg),
        Mnemonic::Idiv if memory => by_size!(form.size, divide_signed, Mem),
        Mnemonic::Idiv => by_size!(form.size, divide_signed, Reg),
        Mnemonic::Imul => match (form.operands, form.kinds[1]) {
            (1, _) if memory => by_size!(form.size, multiply_signed, Mem),
            (1, _) => by_size!(form.size, multiply_signed, Reg),
            (2, Kind::Memory) => by_word_size!(form.size, multiply_two, Mem),
            (2, _) => by_word_size!(form.size, multiply_two, Rm),
            (_, Kind::Memory) => by_word_size!(form.size, multiply_three, Mem),
            _ => by_word_size!(form.size, multiply_three, Rm),
        },
        _ => return None,
    })
}

/// The double-width accumulator: AX, DX:AX or EDX:EAX.
#[inline(always)]
fn wide_accumulator<B: Bus, S: Size>(cpu: &Vcpu<B>) -> u64 {
    if S::BITS == 8 {
        u64::from(cpu.state.gpr[EAX as usize] & 0xffff)
    } else {
        u64::from(S::get(cpu, EDX)) << S::BITS | u64::from(S::get(cpu, EAX))
    }
}

/// Writes both halves of the double-width accumulator.
#[inline(always)]
fn set_halves<B: Bus, S: Size>(cpu: &mut Vcpu<B>, high: u32, low: u32) {
    S::set(cpu, EAX, low);
    S::set(cpu, if S::BITS == 8 { AH } else { EDX }, high);
}

fn multiply<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let factor = R::read::<B, S>(cpu, op)?;
    let product = u64::from(S::get(cpu, EAX)) * u64::from(factor);
    let (high, low) = ((product >> S::BITS) as u32, product as u32 & S::MASK);
    set_halves::<B, S>(cpu, high, low);
    cpu.lazy.set_carry_overflow(high != 0, high != 0);
    Ok(())
}

#[inline(always)]
fn signed<S: Size>(value: u32) -> i64 {
    i64::from(S::sign_extend(value) as i32)
}

fn multiply_signed<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let factor = R::read::<B, S>(cpu, op)?;
    let product = signed::<S>(S::get(cpu, EAX)) * signed::<S>(factor);
    let low = product as u32 & S::MASK;
    set_halves::<B, S>(cpu, (product >> S::BITS) as u32, low);
    let overflow = signed::<S>(low) != product;
    cpu.lazy.set_carry_overflow(overflow, overflow);
    Ok(())
}

#[inline(always)]
fn truncated_product<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, a: u32, b: u32) {
    let product = signed::<S>(a) * signed::<S>(b);
    let low = product as u32 & S::MASK;
    S::set(cpu, op.reg, low);
    let overflow = signed::<S>(low) != product;
    cpu.lazy.set_carry_overflow(overflow, overflow);
}

fn multiply_two<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let factor = R::read::<B, S>(cpu, op)?;
    let own = S::get(cpu, op.reg);
    truncated_product::<B, S>(cpu, op, own, factor);
    Ok(())
}

fn multiply_three<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let factor = R::read::<B, S>(cpu, op)?;
    truncated_product::<B, S>(cpu, op, factor, op.imm);
    Ok(())
}

/// All flags are undefined after a division; these are what the Intel processors leave that this was
/// compared with.
fn set_division_flags<B: Bus>(cpu: &mut Vcpu<B>) {
    let kept = cpu.lazy.to_bits() & (CF | OF);
    cpu.lazy.set_bits(kept | AF);
}

fn divide<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let divisor = u64::from(R::read::<B, S>(cpu, op)?);
    let dividend = wide_accumulator::<B, S>(cpu);
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return Err(Fault::de());
    };
    if quotient > u64::from(S::MASK) {
        return Err(Fault::de());
    }
    set_halves::<B, S>(cpu, remainder as u32, quotient as u32);
    set_division_flags(cpu);
    Ok(())
}

fn divide_signed<B: Bus, S: Size, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let divisor = signed::<S>(R::read::<B, S>(cpu, op)?);
    let unused = 64 - 2 * S::BITS;
    let dividend = (wide_accumulator::<B, S>(cpu) << unused) as i64 >> unused;
    // checked_*: the most negative dividend by -1 overflows even 64 bits.
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return Err(Fault::de());
    };
    if quotient != signed::<S>(quotient as u32) {
        return Err(Fault::de());
    }
    set_halves::<B, S>(cpu, remainder as u32, quotient as u32);
    set_division_flags(cpu);
    Ok(())
}
