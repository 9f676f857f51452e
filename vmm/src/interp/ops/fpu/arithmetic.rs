//! Arithmetic, comparisons, and the operations on ST(0) that need no more than it and ST(1).

use super::unit::{begin, complete, environment, note, note_operand, overflow, pop, set_c1, underflow};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::fpu::fsw;
use crate::cpu::registers::{Seg, eflags};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Op};
use crate::softfloat::x87::{self, Remainder, ValueKind};
use crate::softfloat::{Env, F32, F64, F80, Format, Relation, exception};
use iced_x86::{MemorySize, Mnemonic};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    use Mnemonic::*;
    Some(match form.mnemonic {
        Fadd | Faddp | Fiadd => arithmetic::<B, Sum>(form),
        Fmul | Fmulp | Fimul => arithmetic::<B, Product>(form),
        Fsub | Fsubp | Fisub => arithmetic::<B, Difference>(form),
        Fsubr | Fsubrp | Fisubr => arithmetic::<B, ReversedDifference>(form),
        Fdiv | Fdivp | Fidiv => arithmetic::<B, Quotient>(form),
        Fdivr | Fdivrp | Fidivr => arithmetic::<B, ReversedQuotient>(form),
        Fcom | Ficom if form.kinds[0] == Kind::Memory => by_memory!(form, compare_memory, 0),
        Fcomp | Ficomp if form.kinds[0] == Kind::Memory => by_memory!(form, compare_memory, 1),
        Fcom => compare::<B, false, 0>,
        Fcomp => compare::<B, false, 1>,
        Fucom => compare::<B, true, 0>,
        Fucomp => compare::<B, true, 1>,
        Fcompp | Fucompp => {
            op.rm = 1;
            if form.mnemonic == Fcompp { compare::<B, false, 2> } else { compare::<B, true, 2> }
        }
        Fcomi => compare_to_flags::<B, false, 0>,
        Fcomip => compare_to_flags::<B, false, 1>,
        Fucomi => compare_to_flags::<B, true, 0>,
        Fucomip => compare_to_flags::<B, true, 1>,
        Ftst => test::<B>,
        Fxam => examine::<B>,
        Fabs => change_sign::<B, false>,
        Fchs => change_sign::<B, true>,
        Fsqrt => unary::<B, Sqrt>,
        Frndint => unary::<B, RoundToInteger>,
        Fscale => scale::<B>,
        Fprem => remainder::<B, false>,
        Fprem1 => remainder::<B, true>,
        Fxtract => extract::<B>,
        _ => return None,
    })
}

/// One handler per format of the memory operand.
macro_rules! by_memory {
    ($form:expr, $handler:ident $(, $argument:tt)*) => {
        match $form.instruction.memory_size() {
            MemorySize::Float32 => $handler::<B, F32 $(, $argument)*> as Handler<B>,
            MemorySize::Float64 => $handler::<B, F64 $(, $argument)*>,
            MemorySize::Int16 => $handler::<B, Integer16 $(, $argument)*>,
            _ => $handler::<B, Integer32 $(, $argument)*>,
        }
    };
}
use by_memory;

fn arithmetic<B: Bus, O: Arithmetic>(form: &Decoded) -> Handler<B> {
    let pops = form.instruction.fpu_stack_increment_info().increment() != 0;
    match form.kinds[0] {
        Kind::Memory => by_memory!(form, with_memory, O),
        _ if pops => with_register::<B, O, true>,
        _ => with_register::<B, O, false>,
    }
}

/// A format that arithmetic takes from memory.
pub trait Operand: 'static {
    /// What it is computed with.
    type Value: Format;

    /// Reads it.
    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<Self::Value>;
}

struct Integer16;
struct Integer32;

impl Operand for F32 {
    type Value = F32;

    #[inline(always)]
    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F32> {
        Ok(F32(cpu.read_u32(segment, offset)?))
    }
}

impl Operand for F64 {
    type Value = F64;

    #[inline(always)]
    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F64> {
        Ok(F64(cpu.read_u64(segment, offset)?))
    }
}

impl Operand for Integer16 {
    type Value = F80;

    #[inline(always)]
    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F80> {
        Ok(F80::from_i64((cpu.read_u16(segment, offset)? as i16).into()))
    }
}

impl Operand for Integer32 {
    type Value = F80;

    #[inline(always)]
    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F80> {
        Ok(F80::from_i64((cpu.read_u32(segment, offset)? as i32).into()))
    }
}

/// An operation on a destination and a source.
trait Arithmetic: 'static {
    fn apply<S: Format>(env: &mut Env, destination: F80, source: S) -> F80;
}

macro_rules! arithmetic {
    ($($name:ident ($a:ident, $b:ident) = $operation:expr;)*) => {
        $(
            struct $name;

            impl Arithmetic for $name {
                #[inline(always)]
                fn apply<S: Format>(env: &mut Env, $a: F80, $b: S) -> F80 {
                    $operation(env)
                }
            }
        )*
    };
}

arithmetic! {
    Sum(a, b) = |env| x87::add(env, a, b);
    Product(a, b) = |env| x87::mul(env, a, b);
    Difference(a, b) = |env| x87::sub(env, a, b);
    ReversedDifference(a, b) = |env| x87::sub(env, b, a);
    Quotient(a, b) = |env| x87::div(env, a, b);
    ReversedQuotient(a, b) = |env| x87::div(env, b, a);
}

fn with_register<B: Bus, O: Arithmetic, const POP: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let result = if fpu.is_empty(op.reg) | fpu.is_empty(op.rm) {
        underflow(cpu).then_some(F80::INDEFINITE)
    } else {
        let mut env = environment(fpu);
        let result = O::apply(&mut env, fpu.st(op.reg), fpu.st(op.rm));
        complete(cpu, &env).then_some(result)
    };
    if let Some(result) = result {
        cpu.state.fpu.set_st(op.reg, result);
        if POP {
            cpu.state.fpu.pop();
        }
    }
    Ok(())
}

fn with_memory<B: Bus, M: Operand, O: Arithmetic>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    let source = M::read(cpu, op.segment, offset)?;
    note_operand(cpu, op, offset);
    let fpu = &cpu.state.fpu;
    let result = if fpu.is_empty(0) {
        underflow(cpu).then_some(F80::INDEFINITE)
    } else {
        let mut env = environment(fpu);
        let result = O::apply(&mut env, fpu.st(0), source);
        complete(cpu, &env).then_some(result)
    };
    if let Some(result) = result {
        cpu.state.fpu.set_st(0, result);
    }
    Ok(())
}

/// Condition codes of a relation.
fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => fsw::C0,
        Relation::Equal => fsw::C3,
        Relation::Unordered => fsw::C0 | fsw::C2 | fsw::C3,
    }
}

#[inline(always)]
fn set_conditions<B: Bus>(cpu: &mut Vcpu<B>, conditions: u16) {
    let fpu = &mut cpu.state.fpu;
    fpu.status = fpu.status & !fsw::CONDITIONS | conditions;
}

/// Takes over what a comparison raised. Whether its outcome is told, and whether registers are popped: an unmasked
/// denormal keeps it from that alone.
#[inline(always)]
fn compared<B: Bus>(cpu: &mut Vcpu<B>, env: &Env) -> (bool, bool) {
    let goes_on = complete(cpu, env);
    (env.flags & env.unmasked & exception::IE == 0, goes_on)
}

#[inline(always)]
fn finish_comparison<B: Bus>(
    cpu: &mut Vcpu<B>,
    empty: bool,
    pops: u8,
    relation: impl Fn(&mut Env, F80) -> Relation,
) {
    let mut result = Relation::Unordered;
    let (told, popped) = if empty {
        let masked = underflow(cpu);
        (masked, masked)
    } else {
        let mut env = environment(&cpu.state.fpu);
        result = relation(&mut env, cpu.state.fpu.st(0));
        compared(cpu, &env)
    };
    if told {
        set_conditions(cpu, conditions(result));
    }
    if popped {
        pop(cpu, pops);
    }
}

fn compare<B: Bus, const QUIET: bool, const POPS: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let other = fpu.st(op.rm);
    let empty = fpu.is_empty(0) | fpu.is_empty(op.rm);
    finish_comparison(cpu, empty, POPS, |env, st0| {
        if QUIET { x87::compare_quiet(env, st0, other) } else { x87::compare(env, st0, other) }
    });
    Ok(())
}

fn compare_memory<B: Bus, M: Operand, const POPS: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    let other = M::read(cpu, op.segment, offset)?;
    note_operand(cpu, op, offset);
    let empty = cpu.state.fpu.is_empty(0);
    finish_comparison(cpu, empty, POPS, |env, st0| x87::compare(env, st0, other));
    Ok(())
}

fn test<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let empty = cpu.state.fpu.is_empty(0);
    finish_comparison(cpu, empty, 0, |env, st0| x87::compare(env, st0, F80::ZERO));
    Ok(())
}

/// FCOMI and its like: ZF, PF and CF instead of condition codes; OF, SF and AF are cleared.
fn compare_to_flags<B: Bus, const QUIET: bool, const POPS: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let mut relation = Relation::Unordered;
    let popped = if fpu.is_empty(0) | fpu.is_empty(op.rm) {
        underflow(cpu)
    } else {
        let mut env = environment(fpu);
        let (a, b) = (fpu.st(0), fpu.st(op.rm));
        relation = if QUIET { x87::compare_quiet(&mut env, a, b) } else { x87::compare(&mut env, a, b) };
        complete(cpu, &env)
    };
    // Even when an unmasked exception came up (SDM vol. 2, FCOMI, "Comparison Results").
    cpu.lazy.set_bits(match relation {
        Relation::Greater => 0,
        Relation::Less => eflags::CF,
        Relation::Equal => eflags::ZF,
        Relation::Unordered => eflags::ZF | eflags::PF | eflags::CF,
    });
    if popped {
        pop(cpu, POPS);
    }
    Ok(())
}

fn examine<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let value = fpu.st(0);
    let kind = match value.kind() {
        _ if fpu.is_empty(0) => fsw::C3 | fsw::C0,
        ValueKind::Unsupported => 0,
        ValueKind::Nan => fsw::C0,
        ValueKind::Normal => fsw::C2,
        ValueKind::Infinity => fsw::C2 | fsw::C0,
        ValueKind::Zero => fsw::C3,
        ValueKind::Denormal => fsw::C3 | fsw::C2,
    };
    set_conditions(cpu, kind | if value.is_negative() { fsw::C1 } else { 0 });
    Ok(())
}

/// FABS and FCHS.
fn change_sign<B: Bus, const NEGATE: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let value = cpu.state.fpu.st(0);
    if !cpu.state.fpu.is_empty(0) {
        set_c1(&mut cpu.state.fpu, false);
        cpu.state.fpu.set_st(0, if NEGATE { value.neg() } else { value.abs() });
    } else if underflow(cpu) {
        cpu.state.fpu.set_st(0, F80::INDEFINITE);
    }
    Ok(())
}

/// An operation on ST(0).
trait Unary: 'static {
    fn apply(env: &mut Env, a: F80) -> F80;
}

struct Sqrt;
struct RoundToInteger;

impl Unary for Sqrt {
    fn apply(env: &mut Env, a: F80) -> F80 {
        x87::sqrt(env, a)
    }
}

impl Unary for RoundToInteger {
    fn apply(env: &mut Env, a: F80) -> F80 {
        x87::round_to_integer(env, a)
    }
}

fn unary<B: Bus, O: Unary>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let result = if fpu.is_empty(0) {
        underflow(cpu).then_some(F80::INDEFINITE)
    } else {
        let mut env = environment(fpu);
        let result = O::apply(&mut env, fpu.st(0));
        complete(cpu, &env).then_some(result)
    };
    if let Some(result) = result {
        cpu.state.fpu.set_st(0, result);
    }
    Ok(())
}

fn scale<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let result = if fpu.is_empty(0) | fpu.is_empty(1) {
        underflow(cpu).then_some(F80::INDEFINITE)
    } else {
        let mut env = environment(fpu);
        let result = x87::scale(&mut env, fpu.st(0), fpu.st(1));
        complete(cpu, &env).then_some(result)
    };
    if let Some(result) = result {
        cpu.state.fpu.set_st(0, result);
    }
    Ok(())
}

fn remainder<B: Bus, const NEAREST: bool>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    // Without a quotient C0 and C3 stay as they are.
    cpu.state.fpu.status &= !fsw::C2;
    let fpu = &cpu.state.fpu;
    if fpu.is_empty(0) | fpu.is_empty(1) {
        if underflow(cpu) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = environment(fpu);
    let Remainder { value, quotient, complete: is_complete } =
        x87::remainder(&mut env, fpu.st(0), fpu.st(1), NEAREST);
    env.rounded_up = false;
    if complete(cpu, &env) {
        cpu.state.fpu.set_st(0, value);
        let Some(quotient) = quotient else { return Ok(()) };
        let bit = |n: u8, condition: u16| if quotient >> n & 1 != 0 { condition } else { 0 };
        let incomplete = if is_complete { 0 } else { fsw::C2 };
        set_conditions(cpu, bit(0, fsw::C1) | bit(1, fsw::C3) | bit(2, fsw::C0) | incomplete);
    }
    Ok(())
}

fn extract<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let indefinite = (F80::INDEFINITE, F80::INDEFINITE);
    let results = if fpu.is_empty(0) {
        underflow(cpu).then_some(indefinite)
    } else if !fpu.is_empty(7) {
        overflow(cpu).then_some(indefinite)
    } else {
        let mut env = environment(fpu);
        let results = x87::extract(&mut env, fpu.st(0));
        complete(cpu, &env).then_some(results)
    };
    if let Some((exponent, significand)) = results {
        cpu.state.fpu.set_st(0, exponent);
        cpu.state.fpu.push(significand);
    }
    Ok(())
}
