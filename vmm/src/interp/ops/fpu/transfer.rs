//! Loads, stores, conversions, exchanges and constants.

use super::unit::{begin, complete, environment, is_full, note, note_operand, pop, push, set_c1, underflow};
use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::fault::Exec;
use crate::cpu::registers::Seg;
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::{Handler, Op};
use crate::interp::ops::holds;
use crate::softfloat::{Env, F32, F64, F80, Rounding, exception, x87};
use iced_x86::{MemorySize, Mnemonic};

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded, op: &mut Op<B>) -> Option<Handler<B>> {
    use Mnemonic::*;
    let size = form.instruction.memory_size();
    let memory = form.kinds[0] == Kind::Memory;
    let constant = |op: &mut Op<B>, n: u32| {
        op.imm = n;
        load_constant::<B> as Handler<B>
    };
    Some(match form.mnemonic {
        Fld if !memory => load_register::<B>,
        Fld if size == MemorySize::Float80 => load_extended::<B>,
        Fld | Fild | Fbld => match size {
            MemorySize::Float32 => load::<B, F32>,
            MemorySize::Float64 => load::<B, F64>,
            MemorySize::Int16 => load::<B, Integer16>,
            MemorySize::Int32 => load::<B, Integer32>,
            MemorySize::Int64 => load::<B, Integer64>,
            _ => load::<B, Decimal>,
        },
        Fst if !memory => store_register::<B, 0>,
        Fstp if !memory => store_register::<B, 1>,
        Fstpnce => move_register::<B>,
        Fstp if size == MemorySize::Float80 => store::<B, Extended, 1>,
        Fst | Fist => match size {
            MemorySize::Float32 => store::<B, F32, 0>,
            MemorySize::Float64 => store::<B, F64, 0>,
            MemorySize::Int16 => store::<B, Integer16, 0>,
            _ => store::<B, Integer32, 0>,
        },
        Fstp | Fistp | Fbstp => match size {
            MemorySize::Float32 => store::<B, F32, 1>,
            MemorySize::Float64 => store::<B, F64, 1>,
            MemorySize::Int16 => store::<B, Integer16, 1>,
            MemorySize::Int32 => store::<B, Integer32, 1>,
            MemorySize::Int64 => store::<B, Integer64, 1>,
            _ => store::<B, Decimal, 1>,
        },
        Fxch => {
            // Its aliases name one operand, which is then the first.
            op.rm |= op.reg;
            exchange::<B>
        }
        Fcmovb => move_if::<B, 2>,
        Fcmovnb => move_if::<B, 3>,
        Fcmove => move_if::<B, 4>,
        Fcmovne => move_if::<B, 5>,
        Fcmovbe => move_if::<B, 6>,
        Fcmovnbe => move_if::<B, 7>,
        Fcmovu => move_if::<B, 10>,
        Fcmovnu => move_if::<B, 11>,
        Fldz => load_zero::<B>,
        Fld1 => constant(op, 0),
        Fldl2t => constant(op, 1),
        Fldl2e => constant(op, 2),
        Fldpi => constant(op, 3),
        Fldlg2 => constant(op, 4),
        Fldln2 => constant(op, 5),
        _ => return None,
    })
}

/// Something in memory that is converted when it is loaded.
trait Source: 'static {
    /// As it is in memory.
    type Raw: Copy;

    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<Self::Raw>;
    fn convert(env: &mut Env, raw: Self::Raw) -> F80;
}

/// Something in memory that ST(0) is converted to.
trait Destination: 'static {
    /// As it is in memory.
    type Raw: Copy;
    /// What is stored for an empty register.
    const INDEFINITE: Self::Raw;
    /// Bytes in memory.
    const BYTES: u32;

    fn convert(env: &mut Env, value: F80) -> Self::Raw;
    fn write<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, raw: Self::Raw) -> Exec;
}

struct Integer16;
struct Integer32;
struct Integer64;
struct Decimal;
struct Extended;

macro_rules! memory_format {
    ($name:ident, $raw:ty, $read:ident, $write:ident, $indefinite:expr, $load:expr, $store:expr) => {
        impl Source for $name {
            type Raw = $raw;

            #[inline(always)]
            fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<$raw> {
                cpu.$read(segment, offset)
            }

            #[inline(always)]
            fn convert(env: &mut Env, raw: $raw) -> F80 {
                $load(env, raw)
            }
        }

        impl Destination for $name {
            type Raw = $raw;
            const INDEFINITE: $raw = $indefinite;
            const BYTES: u32 = size_of::<$raw>() as u32;

            #[inline(always)]
            fn convert(env: &mut Env, value: F80) -> $raw {
                $store(env, value)
            }

            #[inline(always)]
            fn write<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, raw: $raw) -> Exec {
                cpu.$write(segment, offset, raw)
            }
        }
    };
}

memory_format!(
    F32,
    u32,
    read_u32,
    write_u32,
    0xffc0_0000,
    |env, raw| x87::load(env, F32(raw)),
    |env, value| x87::store::<F32>(env, value).0
);
memory_format!(
    F64,
    u64,
    read_u64,
    write_u64,
    0xfff8_0000_0000_0000,
    |env, raw| x87::load(env, F64(raw)),
    |env, value| x87::store::<F64>(env, value).0
);
memory_format!(
    Integer16,
    u16,
    read_u16,
    write_u16,
    0x8000,
    |_, raw| F80::from_i64((raw as i16).into()),
    |env, value| x87::to_integer(env, value, 16) as u16
);
memory_format!(
    Integer32,
    u32,
    read_u32,
    write_u32,
    0x8000_0000,
    |_, raw| F80::from_i64((raw as i32).into()),
    |env, value| x87::to_integer(env, value, 32) as u32
);
memory_format!(
    Integer64,
    u64,
    read_u64,
    write_u64,
    1 << 63,
    |_, raw| F80::from_i64(raw as i64),
    |env, value| x87::to_integer(env, value, 64) as u64
);

/// Bytes of an extended or packed decimal operand.
pub const EXTENDED_BYTES: u32 = 10;
/// Where its last two bytes are.
const UPPER: u32 = 8;

/// Reads an extended value (or ten bytes of another kind).
pub fn read_extended<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F80> {
    cpu.linear_for_read(segment, offset, EXTENDED_BYTES)?;
    let significand = cpu.read_u64(segment, offset)?;
    let sign_exponent = cpu.read_u16(segment, offset.wrapping_add(UPPER))?;
    Ok(F80 { significand, sign_exponent })
}

/// Raises what writing an operand would raise.
fn probe<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, bytes: u32) -> Exec {
    if bytes == EXTENDED_BYTES {
        // Alignment is that of the parts, and comes first.
        cpu.probe_write(segment, offset, UPPER)?;
    }
    cpu.probe_write(segment, offset, bytes)
}

/// Writes an extended value: all of it or, when it faults, nothing.
pub fn write_extended<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: F80) -> Exec {
    probe(cpu, segment, offset, EXTENDED_BYTES)?;
    cpu.write_u16(segment, offset.wrapping_add(UPPER), value.sign_exponent)?;
    cpu.write_u64(segment, offset, value.significand)
}

impl Source for Decimal {
    type Raw = F80;

    fn read<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<F80> {
        read_extended(cpu, segment, offset)
    }

    fn convert(_env: &mut Env, raw: F80) -> F80 {
        x87::from_decimal(to_bytes(raw))
    }
}

impl Destination for Decimal {
    type Raw = F80;
    const INDEFINITE: F80 = F80 { significand: 0xc000_0000_0000_0000, sign_exponent: 0xffff };
    const BYTES: u32 = EXTENDED_BYTES;

    fn convert(env: &mut Env, value: F80) -> F80 {
        from_bytes(x87::to_decimal(env, value))
    }

    fn write<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, raw: F80) -> Exec {
        write_extended(cpu, segment, offset, raw)
    }
}

impl Destination for Extended {
    type Raw = F80;
    const INDEFINITE: F80 = F80::INDEFINITE;
    const BYTES: u32 = EXTENDED_BYTES;

    fn convert(_env: &mut Env, value: F80) -> F80 {
        value
    }

    fn write<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, raw: F80) -> Exec {
        write_extended(cpu, segment, offset, raw)
    }
}

fn to_bytes(value: F80) -> [u8; EXTENDED_BYTES as usize] {
    let mut bytes = [0; EXTENDED_BYTES as usize];
    let (low, high) = bytes.split_at_mut(UPPER as usize);
    low.copy_from_slice(&value.significand.to_le_bytes());
    high.copy_from_slice(&value.sign_exponent.to_le_bytes());
    bytes
}

fn from_bytes(bytes: [u8; EXTENDED_BYTES as usize]) -> F80 {
    let [a, b, c, d, e, f, g, h, i, j] = bytes;
    F80 {
        significand: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        sign_exponent: u16::from_le_bytes([i, j]),
    }
}

fn load<B: Bus, S: Source>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    let raw = S::read(cpu, op.segment, offset)?;
    note_operand(cpu, op, offset);
    if is_full(&cpu.state.fpu) {
        push(cpu, F80::INDEFINITE);
        return Ok(());
    }
    let mut env = environment(&cpu.state.fpu);
    let value = S::convert(&mut env, raw);
    complete(cpu, &env);
    // A denormal is loaded even if that is an unmasked exception.
    if env.flags & env.unmasked & exception::IE == 0 {
        cpu.state.fpu.push(value);
    }
    Ok(())
}

fn load_extended<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    let offset = op.offset(cpu);
    let value = read_extended(cpu, op.segment, offset)?;
    note_operand(cpu, op, offset);
    push(cpu, value);
    Ok(())
}

fn load_register<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let value = fpu.st(op.reg);
    if fpu.is_empty(op.reg) {
        if underflow(cpu) {
            cpu.state.fpu.push(F80::INDEFINITE);
        }
        return Ok(());
    }
    push(cpu, value);
    Ok(())
}

fn store<B: Bus, D: Destination, const POPS: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    /// Exceptions that leave memory alone when they are not masked.
    const NOT_STORED: u8 = exception::BEFORE | exception::OE | exception::UE;
    begin(cpu)?;
    let offset = op.offset(cpu);
    let fpu = &cpu.state.fpu;
    let mut env = environment(fpu);
    if fpu.is_empty(0) {
        if env.unmasked & exception::IE == 0 {
            D::write(cpu, op.segment, offset, D::INDEFINITE)?;
        } else {
            // Faults of memory come before those of numbers.
            probe(cpu, op.segment, offset, D::BYTES)?;
        }
        note_operand(cpu, op, offset);
        if underflow(cpu) {
            pop(cpu, POPS);
        }
        return Ok(());
    }
    let raw = D::convert(&mut env, fpu.st(0));
    let stored = env.flags & env.unmasked & NOT_STORED == 0;
    if stored {
        // When this faults, nothing has happened.
        D::write(cpu, op.segment, offset, raw)?;
    } else {
        probe(cpu, op.segment, offset, D::BYTES)?;
    }
    note_operand(cpu, op, offset);
    complete(cpu, &env);
    if stored {
        pop(cpu, POPS);
    }
    Ok(())
}

fn store_register<B: Bus, const POPS: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let mut value = cpu.state.fpu.st(0);
    if cpu.state.fpu.is_empty(0) {
        if !underflow(cpu) {
            return Ok(());
        }
        value = F80::INDEFINITE;
    } else {
        set_c1(&mut cpu.state.fpu, false);
    }
    cpu.state.fpu.set_st(op.reg, value);
    pop(cpu, POPS);
    Ok(())
}

/// FSTPNCE, an alias of FSTP that was never documented: it does not mind that ST(0) is empty, and then only pops.
fn move_register<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &mut cpu.state.fpu;
    set_c1(fpu, false);
    if !fpu.is_empty(0) {
        fpu.set_st(op.reg, fpu.st(0));
    }
    fpu.pop();
    Ok(())
}

fn exchange<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let (empty0, empty) = (fpu.is_empty(0), fpu.is_empty(op.rm));
    let (mut st0, mut other) = (fpu.st(0), fpu.st(op.rm));
    if empty0 | empty {
        if !underflow(cpu) {
            return Ok(());
        }
        st0 = if empty0 { F80::INDEFINITE } else { st0 };
        other = if empty { F80::INDEFINITE } else { other };
    } else {
        set_c1(&mut cpu.state.fpu, false);
    }
    cpu.state.fpu.set_st(op.rm, st0);
    cpu.state.fpu.set_st(0, other);
    Ok(())
}

fn move_if<B: Bus, const CONDITION: u8>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let fpu = &cpu.state.fpu;
    let value = fpu.st(op.rm);
    if fpu.is_empty(0) | fpu.is_empty(op.rm) {
        if underflow(cpu) {
            cpu.state.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    // C1 stays as it is.
    if holds::<CONDITION>(cpu.lazy) {
        cpu.state.fpu.set_st(0, value);
    }
    Ok(())
}

fn load_zero<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    push(cpu, F80::ZERO);
    Ok(())
}

/// A constant, rounded towards zero, and whether the value to nearest is the one above.
struct Constant {
    value: F80,
    nearest_is_above: bool,
    exact: bool,
}

const fn constant(sign_exponent: u16, significand: u64, nearest_is_above: bool) -> Constant {
    Constant { value: F80 { significand, sign_exponent }, nearest_is_above, exact: false }
}

/// 1, log2 10, log2 e, pi, log10 2, ln 2.
const CONSTANTS: [Constant; 6] = [
    Constant { value: F80::ONE, nearest_is_above: false, exact: true },
    constant(0x4000, 0xd49a_784b_cd1b_8afe, false),
    constant(0x3fff, 0xb8aa_3b29_5c17_f0bb, true),
    constant(0x4000, 0xc90f_daa2_2168_c234, true),
    constant(0x3ffd, 0x9a20_9a84_fbcf_f798, true),
    constant(0x3ffe, 0xb172_17f7_d1cf_79ab, true),
];

fn load_constant<B: Bus>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec {
    begin(cpu)?;
    note(cpu, op);
    let Some(constant) = CONSTANTS.get(op.imm as usize) else { return Ok(()) };
    let above = match environment(&cpu.state.fpu).rounding {
        Rounding::Nearest => constant.nearest_is_above,
        Rounding::Up => !constant.exact,
        Rounding::Down | Rounding::Zero => false,
    };
    let significand = constant.value.significand + u64::from(above);
    push(cpu, F80 { significand, ..constant.value });
    Ok(())
}
