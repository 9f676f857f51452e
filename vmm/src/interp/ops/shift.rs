//! Shifts and rotates. The count is taken modulo 32, as every processor since the 80186 does.

use super::{by_size, by_word_size};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::flags::LazyFlags;
use crate::interp::op::{ECX, Handler, Imm, Mem, Op, Place, Reg, Size, Target};
use iced_x86::Mnemonic;

const COUNT_MASK: u32 = 31;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Shl | Mnemonic::Sal => single::<B, Shl>(form),
        Mnemonic::Shr => single::<B, Shr>(form),
        Mnemonic::Sar => single::<B, Sar>(form),
        Mnemonic::Rol => single::<B, Rol>(form),
        Mnemonic::Ror => single::<B, Ror>(form),
        Mnemonic::Rcl => single::<B, Rcl>(form),
        Mnemonic::Rcr => single::<B, Rcr>(form),
        Mnemonic::Shld => double::<B, Left>(form),
        Mnemonic::Shrd => double::<B, Right>(form),
        _ => return None,
    })
}

/// The handler that computes no flags, of a shift of a register by a constant.
pub fn select_quiet<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    if form.kinds[0] != Kind::Register || form.kinds[1] != Kind::Immediate {
        return None;
    }
    Some(match form.mnemonic {
        Mnemonic::Shl | Mnemonic::Sal => by_size!(form.size, shift_quiet, Shl),
        Mnemonic::Shr => by_size!(form.size, shift_quiet, Shr),
        Mnemonic::Sar => by_size!(form.size, shift_quiet, Sar),
        Mnemonic::Rol => by_size!(form.size, shift_quiet, Rol),
        Mnemonic::Ror => by_size!(form.size, shift_quiet, Ror),
        _ => return None,
    })
}

fn single<B: Bus, O: Shift>(form: &Decoded) -> Handler<B> {
    match (form.kinds[0], form.kinds[1]) {
        (Kind::Memory, Kind::Immediate) => by_size!(form.size, shift, O, Mem, Imm),
        (Kind::Memory, _) => by_size!(form.size, shift, O, Mem, Cl),
        (_, Kind::Immediate) => by_size!(form.size, shift, O, Reg, Imm),
        _ => by_size!(form.size, shift, O, Reg, Cl),
    }
}

fn double<B: Bus, O: DoubleShift>(form: &Decoded) -> Handler<B> {
    match (form.kinds[0], form.kinds[2]) {
        (Kind::Memory, Kind::Immediate) => by_word_size!(form.size, shift_double, O, Mem, Imm),
        (Kind::Memory, _) => by_word_size!(form.size, shift_double, O, Mem, Cl),
        (_, Kind::Immediate) => by_word_size!(form.size, shift_double, O, Reg, Imm),
        _ => by_word_size!(form.size, shift_double, O, Reg, Cl),
    }
}

/// The count in CL.
struct Cl;

impl Place for Cl {
    #[inline(always)]
    fn read<B: Bus, S: Size>(cpu: &mut Vcpu<B>, _op: &Op<B>) -> Exec<u32> {
        Ok(cpu.state.gpr[ECX as usize])
    }
}

trait Shift: 'static {
    /// `count` is 1 to 31.
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32;
}

trait DoubleShift: 'static {
    /// `count` is 1 to 31.
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, filler: u32, count: u32) -> u32;
}

struct Shl;
struct Shr;
struct Sar;
struct Rol;
struct Ror;
struct Rcl;
struct Rcr;
struct Left;
struct Right;

fn shift<B: Bus, S: Size, O: Shift, D: Target, C: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let count = C::read::<B, S>(cpu, op)? & COUNT_MASK;
    D::modify::<B, S>(
        cpu,
        op,
        |cpu, value| {
            if count == 0 { value } else { O::apply::<S>(&mut cpu.lazy, value, count) }
        },
    )
}

/// For counts that are not zero modulo 32.
fn shift_quiet<B: Bus, S: Size, O: Shift>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let mut unseen = cpu.lazy;
    let result = O::apply::<S>(&mut unseen, S::get(cpu, op.reg), op.imm & COUNT_MASK);
    S::set(cpu, op.reg, result);
    Ok(())
}

fn shift_double<B: Bus, S: Size, O: DoubleShift, D: Target, C: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let count = C::read::<B, S>(cpu, op)? & COUNT_MASK;
    let filler = S::get(cpu, op.rm);
    D::modify::<B, S>(cpu, op, |cpu, value| {
        if count == 0 { value } else { O::apply::<S>(&mut cpu.lazy, value, filler, count) }
    })
}

/// Bit `n` of `value`.
#[inline(always)]
fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

/// The top bit of an operand.
#[inline(always)]
fn top<S: Size>(value: u32) -> bool {
    value & S::SIGN != 0
}

impl Shift for Shl {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let wide = u64::from(value) << count;
        let result = wide as u32 & S::MASK;
        let carry = bit(wide, S::BITS);
        flags.set_shift(S::sign_extend(result), carry, carry != top::<S>(result));
        result
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let result = value >> count;
        let before_last = value >> (count - 1);
        let carry = before_last & 1 != 0;
        flags.set_shift(S::sign_extend(result), carry, top::<S>(before_last));
        result
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let extended = S::sign_extend(value) as i32;
        let carry = extended >> (count - 1) & 1 != 0;
        let result = (extended >> count) as u32;
        flags.set_shift(result, carry, false);
        result
    }
}

impl Shift for Rol {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let n = count & (S::BITS - 1);
        let result = (value << n | value.checked_shr(S::BITS - n).unwrap_or(0)) & S::MASK;
        let carry = result & 1 != 0;
        flags.set_carry_overflow(carry, carry != top::<S>(result));
        result
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let n = count & (S::BITS - 1);
        let result = (value >> n | value.checked_shl(S::BITS - n).unwrap_or(0)) & S::MASK;
        let carry = top::<S>(result);
        flags.set_carry_overflow(carry, carry != top::<S>(result << 1));
        result
    }
}

impl Shift for Rcl {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let n = count % (S::BITS + 1);
        // The carry is the bit above the operand.
        let ring = u64::from(flags.carry()) << S::BITS | u64::from(value);
        let turned = ring << n | ring >> (S::BITS + 1 - n);
        let result = turned as u32 & S::MASK;
        let carry = bit(turned, S::BITS);
        flags.set_carry_overflow(carry, carry != top::<S>(result));
        result
    }
}

impl Shift for Rcr {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, count: u32) -> u32 {
        let n = count % (S::BITS + 1);
        let ring = u64::from(flags.carry()) << S::BITS | u64::from(value);
        let turned = ring >> n | ring << (S::BITS + 1 - n);
        let result = turned as u32 & S::MASK;
        flags.set_carry_overflow(bit(turned, S::BITS), top::<S>(result) != top::<S>(result << 1));
        result
    }
}

impl DoubleShift for Left {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, filler: u32, count: u32) -> u32 {
        // A 16-bit operand shifted by more than 16 is undefined; the register pair then behaves as
        // a ring on Intel processors.
        let pair = u64::from(value) << S::BITS | u64::from(filler);
        let (result, carry) = if count <= S::BITS {
            let shifted = (pair as u128) << count;
            ((shifted >> S::BITS) as u32 & S::MASK, shifted >> (2 * S::BITS) & 1 != 0)
        } else {
            let ring = pair << S::BITS | u64::from(value);
            ((ring << count >> (2 * S::BITS)) as u32 & S::MASK, bit(ring << count, 3 * S::BITS))
        };
        flags.set_shift(S::sign_extend(result), carry, carry != top::<S>(result));
        result
    }
}

impl DoubleShift for Right {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, value: u32, filler: u32, count: u32) -> u32 {
        let ring = if S::BITS == 16 {
            u64::from(value) << 32 | u64::from(filler) << 16 | u64::from(value)
        } else {
            u64::from(filler) << 32 | u64::from(value)
        };
        let result = (ring >> count) as u32 & S::MASK;
        let before_last = (ring >> (count - 1)) as u32;
        let overflow = top::<S>(result ^ before_last);
        flags.set_shift(S::sign_extend(result), before_last & 1 != 0, overflow);
        result
    }
}
