//! Decimal arithmetic.

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::{Exec, Fault};
use crate::interp::decode::Decoded;
use crate::interp::flags::{AF, CF};
use crate::interp::op::{AH, Byte, EAX, Handler, Op, Size, Word};
use iced_x86::Mnemonic;

/// Added to a decimal digit to make it carry into the next.
const DIGIT_CORRECTION: u32 = 6;
/// The same for the upper digit.
const UPPER_CORRECTION: u32 = 0x60;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Daa => decimal_adjust_add::<B>,
        Mnemonic::Das => decimal_adjust_subtract::<B>,
        Mnemonic::Aaa => ascii_adjust_add::<B>,
        Mnemonic::Aas => ascii_adjust_subtract::<B>,
        Mnemonic::Aam => ascii_adjust_multiply::<B>,
        Mnemonic::Aad => ascii_adjust_divide::<B>,
        _ => return None,
    })
}

/// Sets AL with its SF, ZF and PF, and CF and AF as given.
fn finish<B: Bus>(cpu: &mut Vcpu<B>, al: u32, carry: bool, auxiliary: bool) {
    let al = al & 0xff;
    Byte::set(cpu, EAX, al);
    cpu.lazy.set_logic(Byte::sign_extend(al));
    let others = cpu.lazy.to_bits() & !(CF | AF);
    cpu.lazy.set_bits(others | if carry { CF } else { 0 } | if auxiliary { AF } else { 0 });
}

fn decimal_adjust_add<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let old = Byte::get(cpu, EAX);
    let (mut al, mut carry, mut auxiliary) = (old, false, false);
    if old & 0xf > 9 || cpu.lazy.auxiliary() {
        al += DIGIT_CORRECTION;
        auxiliary = true;
    }
    if old > 0x99 || cpu.lazy.carry() {
        al += UPPER_CORRECTION;
        carry = true;
    }
    finish(cpu, al, carry, auxiliary);
    Ok(())
}

fn decimal_adjust_subtract<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let old = Byte::get(cpu, EAX);
    let old_carry = cpu.lazy.carry();
    let (mut al, mut carry, mut auxiliary) = (old, false, false);
    if old & 0xf > 9 || cpu.lazy.auxiliary() {
        al = al.wrapping_sub(DIGIT_CORRECTION);
        carry = old_carry || old < DIGIT_CORRECTION;
        auxiliary = true;
    }
    if old > 0x99 || old_carry {
        al = al.wrapping_sub(UPPER_CORRECTION);
        carry = true;
    }
    finish(cpu, al, carry, auxiliary);
    Ok(())
}

fn ascii_adjust_add<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let mut ax = Word::get(cpu, EAX);
    let adjust = ax & 0xf > 9 || cpu.lazy.auxiliary();
    if adjust {
        ax = ax.wrapping_add(0x100 + DIGIT_CORRECTION);
    }
    Word::set(cpu, EAX, ax & 0xff0f);
    finish(cpu, ax & 0xf, adjust, adjust);
    Ok(())
}

fn ascii_adjust_subtract<B: Bus>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec {
    let mut ax = Word::get(cpu, EAX);
    let adjust = ax & 0xf > 9 || cpu.lazy.auxiliary();
    if adjust {
        ax = ax.wrapping_sub(0x100 + DIGIT_CORRECTION);
    }
    Word::set(cpu, EAX, ax & 0xff0f);
    finish(cpu, ax & 0xf, adjust, adjust);
    Ok(())
}

fn ascii_adjust_multiply<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let al = Byte::get(cpu, EAX);
    let base = op.imm & 0xff;
    let (Some(tens), Some(ones)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Fault::de());
    };
    Byte::set(cpu, AH, tens);
    finish(cpu, ones, false, false);
    Ok(())
}

fn ascii_adjust_divide<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let al = Byte::get(cpu, EAX) + Byte::get(cpu, AH) * (op.imm & 0xff);
    Byte::set(cpu, AH, 0);
    finish(cpu, al, false, false);
    Ok(())
}
