//! Addition, subtraction, comparison and the bitwise operations, with their atomic relatives.

use super::by_size;
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::registers::Seg;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::flags::LazyFlags;
use crate::interp::op::{EAX, EBX, ECX, EDX, Handler, Imm, Mem, Op, Place, Reg, Rm, Size, Target};
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Add => binary::<B, Add>(form),
        Mnemonic::Adc => binary::<B, Adc>(form),
        Mnemonic::Sub => binary::<B, Sub>(form),
        Mnemonic::Sbb => binary::<B, Sbb>(form),
        Mnemonic::And => binary::<B, And>(form),
        Mnemonic::Or => binary::<B, Or>(form),
        Mnemonic::Xor => binary::<B, Xor>(form),
        Mnemonic::Cmp => comparison::<B, Sub>(form),
        Mnemonic::Test => comparison::<B, And>(form),
        Mnemonic::Inc => unary::<B, Inc>(form),
        Mnemonic::Dec => unary::<B, Dec>(form),
        Mnemonic::Neg => unary::<B, Neg>(form),
        Mnemonic::Not => unary::<B, Not>(form),
        Mnemonic::Xadd => match form.kinds[0] {
            Kind::Memory => by_size!(form.size, exchange_add, Mem),
            _ => by_size!(form.size, exchange_add, Reg),
        },
        Mnemonic::Cmpxchg => match form.kinds[0] {
            Kind::Memory => by_size!(form.size, compare_exchange, Mem),
            _ => by_size!(form.size, compare_exchange, Reg),
        },
        Mnemonic::Cmpxchg8b => compare_exchange_8_bytes::<B>,
        _ => return None,
    })
}

/// The handler that computes no flags, of an instruction of this group that writes a register and has no operand in
/// memory.
pub fn select_quiet<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    if form.kinds[0] != Kind::Register || form.kinds[1] == Kind::Memory {
        return None;
    }
    Some(match form.mnemonic {
        Mnemonic::Add => binary_quiet::<B, Add>(form),
        Mnemonic::Adc => binary_quiet::<B, Adc>(form),
        Mnemonic::Sub => binary_quiet::<B, Sub>(form),
        Mnemonic::Sbb => binary_quiet::<B, Sbb>(form),
        Mnemonic::And => binary_quiet::<B, And>(form),
        Mnemonic::Or => binary_quiet::<B, Or>(form),
        Mnemonic::Xor => binary_quiet::<B, Xor>(form),
        Mnemonic::Inc => by_size!(form.size, change_quiet, Inc),
        Mnemonic::Dec => by_size!(form.size, change_quiet, Dec),
        Mnemonic::Neg => by_size!(form.size, change_quiet, Neg),
        _ => return None,
    })
}

fn binary_quiet<B: Bus, O: Binary>(form: &Decoded) -> Handler<B> {
    match form.kinds[1] {
        Kind::Immediate => by_size!(form.size, compute_quiet, O, Imm),
        _ => by_size!(form.size, compute_quiet, O, Rm),
    }
}

fn binary<B: Bus, O: Binary>(form: &Decoded) -> Handler<B> {
    match (form.kinds[0], form.kinds[1]) {
        (Kind::Memory, Kind::Immediate) => by_size!(form.size, compute, O, Mem, Imm),
        (Kind::Memory, _) => by_size!(form.size, compute, O, Mem, Rm),
        (_, Kind::Memory) => by_size!(form.size, compute, O, Reg, Mem),
        (_, Kind::Immediate) => by_size!(form.size, compute, O, Reg, Imm),
        _ => by_size!(form.size, compute, O, Reg, Rm),
    }
}

fn comparison<B: Bus, O: Binary>(form: &Decoded) -> Handler<B> {
    match (form.kinds[0], form.kinds[1]) {
        (Kind::Memory, Kind::Immediate) => by_size!(form.size, compare, O, Mem, Imm),
        (Kind::Memory, _) => by_size!(form.size, compare, O, Mem, Rm),
        (_, Kind::Memory) => by_size!(form.size, compare, O, Reg, Mem),
        (_, Kind::Immediate) => by_size!(form.size, compare, O, Reg, Imm),
        _ => by_size!(form.size, compare, O, Reg, Rm),
    }
}

fn unary<B: Bus, O: Unary>(form: &Decoded) -> Handler<B> {
    match form.kinds[0] {
        Kind::Memory => by_size!(form.size, change, O, Mem),
        _ => by_size!(form.size, change, O, Reg),
    }
}

/// An operation on two operands that leaves flags.
pub trait Binary: 'static {
    /// Computes the result (bits above the operand size are garbage) and the flags.
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32;
}

/// An operation on one operand.
pub trait Unary: 'static {
    /// Computes the result (bits above the operand size are garbage) and the flags.
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32) -> u32;
}

struct Add;
struct Adc;
struct Sub;
struct Sbb;
struct And;
struct Or;
struct Xor;
struct Inc;
struct Dec;
struct Neg;
struct Not;

/// Bit n: the carry out of bit n of an addition.
#[inline(always)]
fn carries(a: u32, b: u32, sum: u32) -> u32 {
    (a & b) | ((a | b) & !sum)
}

/// Bit n: the borrow into bit n + 1 of a subtraction.
#[inline(always)]
fn borrows(a: u32, b: u32, difference: u32) -> u32 {
    (!a & b) | ((!a | b) & difference)
}

impl Binary for Add {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        let sum = a.wrapping_add(b);
        flags.set_arithmetic(S::sign_extend(sum), carries(a, b, sum), S::BITS);
        sum
    }
}

impl Binary for Adc {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        let sum = a.wrapping_add(b).wrapping_add(u32::from(flags.carry()));
        flags.set_arithmetic(S::sign_extend(sum), carries(a, b, sum), S::BITS);
        sum
    }
}

impl Binary for Sub {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        let difference = a.wrapping_sub(b);
        flags.set_arithmetic(S::sign_extend(difference), borrows(a, b, difference), S::BITS);
        difference
    }
}

impl Binary for Sbb {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        let difference = a.wrapping_sub(b).wrapping_sub(u32::from(flags.carry()));
        flags.set_arithmetic(S::sign_extend(difference), borrows(a, b, difference), S::BITS);
        difference
    }
}

impl Binary for And {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        flags.set_logic(S::sign_extend(a & b));
        a & b
    }
}

impl Binary for Or {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        flags.set_logic(S::sign_extend(a | b));
        a | b
    }
}

impl Binary for Xor {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) -> u32 {
        flags.set_logic(S::sign_extend(a ^ b));
        a ^ b
    }
}

impl Unary for Inc {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32) -> u32 {
        let sum = a.wrapping_add(1);
        flags.set_arithmetic_keep_carry(S::sign_extend(sum), carries(a, 1, sum), S::BITS);
        sum
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32) -> u32 {
        let difference = a.wrapping_sub(1);
        flags.set_arithmetic_keep_carry(S::sign_extend(difference), borrows(a, 1, difference), S::BITS);
        difference
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn apply<S: Size>(flags: &mut LazyFlags, a: u32) -> u32 {
        Sub::apply::<S>(flags, 0, a)
    }
}

impl Unary for Not {
    #[inline(always)]
    fn apply<S: Size>(_flags: &mut LazyFlags, a: u32) -> u32 {
        !a
    }
}

/// What CMP does to the flags, for the string instructions.
#[inline(always)]
pub fn compare_values<S: Size>(flags: &mut LazyFlags, a: u32, b: u32) {
    Sub::apply::<S>(flags, a, b);
}

fn compute<B: Bus, S: Size, O: Binary, D: Target, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let b = R::read::<B, S>(cpu, op)?;
    D::modify::<B, S>(cpu, op, |cpu, a| O::apply::<S>(&mut cpu.lazy, a, b))
}

fn compute_quiet<B: Bus, S: Size, O: Binary, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let b = R::read::<B, S>(cpu, op)?;
    let a = S::get(cpu, op.reg);
    let mut unseen = cpu.lazy;
    let result = O::apply::<S>(&mut unseen, a, b);
    S::set(cpu, op.reg, result);
    Ok(())
}

fn change_quiet<B: Bus, S: Size, O: Unary>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let mut unseen = cpu.lazy;
    let result = O::apply::<S>(&mut unseen, S::get(cpu, op.reg));
    S::set(cpu, op.reg, result);
    Ok(())
}

fn compare<B: Bus, S: Size, O: Binary, D: Place, R: Place>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let b = R::read::<B, S>(cpu, op)?;
    let a = D::read::<B, S>(cpu, op)?;
    O::apply::<S>(&mut cpu.lazy, a, b);
    Ok(())
}

fn change<B: Bus, S: Size, O: Unary, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    D::modify::<B, S>(cpu, op, |cpu, a| O::apply::<S>(&mut cpu.lazy, a))
}

fn exchange_add<B: Bus, S: Size, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let b = S::get(cpu, op.rm);
    D::modify::<B, S>(cpu, op, |cpu, a| {
        let sum = Add::apply::<S>(&mut cpu.lazy, a, b);
        // The source before the destination: XADD of a register with itself leaves the sum.
        S::set(cpu, op.rm, a);
        sum
    })
}

fn compare_exchange<B: Bus, S: Size, D: Target>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let accumulator = S::get(cpu, EAX);
    let new = S::get(cpu, op.rm);
    let mut found = accumulator;
    let slot = &mut found;
    // Always a write: the destination is written back when the comparison fails.
    D::modify::<B, S>(cpu, op, |cpu, old| {
        *slot = old;
        Sub::apply::<S>(&mut cpu.lazy, accumulator, old);
        if old == accumulator { new } else { old }
    })?;
    if found != accumulator {
        S::set(cpu, EAX, found);
    }
    Ok(())
}

fn compare_exchange_8_bytes<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    let offset = op.offset(cpu);
    let segment: Seg = op.segment;
    cpu.probe_write(segment, offset, 8)?;
    let old = cpu.read_u64(segment, offset)?;
    let pair = |cpu: &Vcpu<B>, high: u8, low: u8| {
        u64::from(cpu.state.gpr[high as usize & 7]) << 32 | u64::from(cpu.state.gpr[low as usize & 7])
    };
    let equal = old == pair(cpu, EDX, EAX);
    let new = if equal { pair(cpu, ECX, EBX) } else { old };
    cpu.write_u64(segment, offset, new)?;
    if !equal {
        cpu.state.gpr[EAX as usize] = old as u32;
        cpu.state.gpr[EDX as usize] = (old >> 32) as u32;
    }
    cpu.lazy.set_zero(equal);
    Ok(())
}
