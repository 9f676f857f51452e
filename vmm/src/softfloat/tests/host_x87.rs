//! Extended precision against the host's x87: results, flags and C1, with exceptions masked and unmasked.
#![expect(unsafe_code, reason = "executes x87 instructions under another control word")]

use super::{ROUNDINGS, Random};
use crate::softfloat::{Env, F32, F64, F80, Precision, Relation, exception, x87};
use std::arch::asm;

/// Pairs of operands for each operation; each under all modes.
const ROUNDS: usize = 20_000;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
const CONDITIONS: u16 = C0 | C1 | C2 | C3;

/// The state of the unit as FNSAVE stores it, and a memory operand.
#[repr(C)]
#[derive(Clone, Copy)]
struct Image {
    control: u32,
    status: u32,
    tags: u32,
    pointers: [u32; 4],
    registers: [[u8; 10]; 8],
    memory: [u8; 10],
}

impl Image {
    /// ST(0) and ST(1), everything else empty.
    fn new(control: u16, a: F80, b: F80) -> Self {
        let mut image = Image {
            control: control.into(),
            status: 6 << 11,
            tags: 0x0fff,
            pointers: [0; 4],
            registers: [[0; 10]; 8],
            memory: [0xcc; 10],
        };
        image.registers[0] = bytes(a);
        image.registers[1] = bytes(b);
        image
    }

    fn st(&self, n: usize) -> F80 {
        let r = self.registers[n];
        let significand = u64::from_le_bytes(r[..8].try_into().unwrap());
        F80 { significand, sign_exponent: u16::from_le_bytes(r[8..].try_into().unwrap()) }
    }
}

fn bytes(a: F80) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&a.significand.to_le_bytes());
    bytes[8..].copy_from_slice(&a.sign_exponent.to_le_bytes());
    bytes
}

/// Runs one instruction on the unit; `{m}` is the address of the memory operand.
macro_rules! on_host {
    ($name:ident, $instruction:literal) => {
        fn $name(image: &mut Image) {
            // SAFETY: the unit's state is loaded from the image and stored there again by FNSAVE, which waits for no
            // exception and leaves the unit initialised, as the calling convention has it. One instruction runs in
            // between, so a pending exception is not raised. Memory is that of the image.
            unsafe {
                asm!(
                    "frstor [{image}]",
                    $instruction,
                    "fnsave [{image}]",
                    image = in(reg) &raw mut *image,
                    m = in(reg) &raw mut image.memory,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
        }
    };
}

on_host!(fadd, "fadd st, st(1) # {m}");
on_host!(fsub, "fsub st, st(1) # {m}");
on_host!(fmul, "fmul st, st(1) # {m}");
on_host!(fdiv, "fdiv st, st(1) # {m}");
on_host!(fadd_single, "fadd dword ptr [{m}]");
on_host!(fmul_double, "fmul qword ptr [{m}]");
on_host!(fdivr_single, "fdivr dword ptr [{m}]");
on_host!(fsqrt, "fsqrt # {m}");
on_host!(frndint, "frndint # {m}");
on_host!(fscale, "fscale # {m}");
on_host!(fxtract, "fxtract # {m}");
on_host!(fprem, "fprem # {m}");
on_host!(fprem1, "fprem1 # {m}");
on_host!(fcom, "fcom st(1) # {m}");
on_host!(fucom, "fucom st(1) # {m}");
on_host!(fxam, "fxam # {m}");
on_host!(fld_single, "fld dword ptr [{m}]");
on_host!(fld_double, "fld qword ptr [{m}]");
on_host!(fst_single, "fst dword ptr [{m}]");
on_host!(fst_double, "fst qword ptr [{m}]");
on_host!(fist_word, "fist word ptr [{m}]");
on_host!(fist_dword, "fist dword ptr [{m}]");
on_host!(fistp_qword, "fistp qword ptr [{m}]");
on_host!(fbstp, "fbstp [{m}]");
on_host!(fbld, "fbld [{m}]");

const PRECISIONS: [(Precision, u16); 3] =
    [(Precision::Single, 0), (Precision::Double, 2), (Precision::Extended, 3)];

/// Runs `test` on random operands under all rounding modes and precisions, with all exceptions masked and with
/// random ones unmasked.
fn for_all(rounds: usize, mut test: impl FnMut(&mut Random, u16, Env, F80, F80)) {
    let mut random = Random(0x0123_4567_89ab_cdef);
    for _ in 0..rounds {
        let a = random.extended(F80::ONE);
        let b = random.extended(a);
        for rounding in ROUNDINGS {
            for (precision, pc) in PRECISIONS {
                for unmasked in [0, random.next() as u8 & exception::ALL] {
                    let control =
                        u16::from(!unmasked & exception::ALL) | pc << 8 | (rounding as u16) << 10 | 1 << 6;
                    let env = Env { rounding, precision, unmasked, ..Env::default() };
                    test(&mut random, control, env, a, b);
                }
            }
        }
    }
}

/// Flags, and C1 where it tells about rounding.
fn outcome(env: &Env) -> (u8, bool) {
    (env.flags, env.rounded_up)
}

fn host_outcome(image: &Image) -> (u8, bool) {
    (image.status as u8 & exception::ALL, image.status as u16 & C1 != 0)
}

/// Operations that leave a result in ST(0).
fn check(name: &str, on_host: fn(&mut Image), ours: fn(&mut Env, F80, F80) -> F80) {
    for_all(ROUNDS, |_, control, mut env, a, b| {
        let before = env;
        let mut image = Image::new(control, a, b);
        on_host(&mut image);
        let result = ours(&mut env, a, b);
        let result = if env.stopped() { a } else { result };
        assert_eq!(
            (result, outcome(&env)),
            (image.st(0), host_outcome(&image)),
            "{name} {a:x?}, {b:x?} under {before:?}: {result:x?}, not {:x?}",
            image.st(0)
        );
    });
}

/// Operations with a memory operand in single or double precision.
fn check_memory(name: &str, on_host: fn(&mut Image), ours: fn(&mut Env, F80, u64) -> F80, wide: bool) {
    for_all(ROUNDS, |random, control, mut env, a, _| {
        let before = env;
        let near = u64::MAX >> 2;
        let m = if wide { random.float(11, 52, near) } else { random.float(8, 23, near) };
        let mut image = Image::new(control, a, F80::ZERO);
        image.memory[..8].copy_from_slice(&m.to_le_bytes());
        on_host(&mut image);
        let result = ours(&mut env, a, m);
        let result = if env.stopped() { a } else { result };
        assert_eq!(
            (result, outcome(&env)),
            (image.st(0), host_outcome(&image)),
            "{name} {a:x?}, {m:x} under {before:?}: {result:x?}, not {:x?}",
            image.st(0)
        );
    });
}

#[test]
fn sums_agree_with_the_host() {
    check("fadd", fadd, x87::add);
    check("fsub", fsub, x87::sub);
    check_memory("fadd m32", fadd_single, |env, a, m| x87::add(env, a, F32(m as u32)), false);
}

#[test]
fn products_and_quotients_agree_with_the_host() {
    check("fmul", fmul, x87::mul);
    check("fdiv", fdiv, x87::div);
    check_memory("fmul m64", fmul_double, |env, a, m| x87::mul(env, a, F64(m)), true);
    check_memory("fdivr m32", fdivr_single, |env, a, m| x87::div(env, F32(m as u32), a), false);
}

#[test]
fn square_roots_agree_with_the_host() {
    check("fsqrt", fsqrt, |env, a, _| x87::sqrt(env, a));
}

#[test]
fn rounding_to_integers_agrees_with_the_host() {
    check("frndint", frndint, |env, a, _| x87::round_to_integer(env, a));
}

#[test]
fn scaling_agrees_with_the_host() {
    check("fscale", fscale, x87::scale);
    // Powers that matter.
    for_all(ROUNDS, |random, control, mut env, a, _| {
        let b = F80::from_i64(random.below(70_000) as i64 - 35_000);
        let before = env;
        let mut image = Image::new(control, a, b);
        fscale(&mut image);
        let result = x87::scale(&mut env, a, b);
        let result = if env.stopped() { a } else { result };
        assert_eq!(
            (result, outcome(&env)),
            (image.st(0), host_outcome(&image)),
            "fscale {a:x?}, {b:x?} under {before:?}: {result:x?}, not {:x?}",
            image.st(0)
        );
    });
}

#[test]
fn extraction_agrees_with_the_host() {
    for_all(ROUNDS, |_, control, mut env, a, b| {
        let before = env;
        let mut image = Image::new(control, a, b);
        fxtract(&mut image);
        let (exponent, significand) = x87::extract(&mut env, a);
        if env.stopped() {
            assert_eq!(image.st(0), a);
        } else {
            assert_eq!(
                (significand, exponent),
                (image.st(0), image.st(1)),
                "fxtract {a:x?} under {before:?}"
            );
        }
        assert_eq!(outcome(&env), host_outcome(&image), "fxtract {a:x?} under {before:?}");
    });
}

fn check_remainder(name: &str, on_host: fn(&mut Image), nearest: bool) {
    for_all(ROUNDS, |_, control, mut env, a, b| {
        let before = env;
        let mut image = Image::new(control, a, b);
        on_host(&mut image);
        let remainder = x87::remainder(&mut env, a, b, nearest);
        let result = if env.stopped() { a } else { remainder.value };
        let q = remainder.quotient.unwrap_or(0);
        let bit = |n: u8, c: u16| if q >> n & 1 != 0 { c } else { 0 };
        let conditions = bit(0, C1) | bit(1, C3) | bit(2, C0) | if remainder.complete { 0 } else { C2 };
        assert_eq!(
            (result, env.flags, conditions),
            (image.st(0), image.status as u8 & exception::ALL, image.status as u16 & CONDITIONS),
            "{name} {a:x?}, {b:x?} under {before:?}: {remainder:x?}, not {:x?}",
            image.st(0)
        );
    });
}

#[test]
fn remainders_agree_with_the_host() {
    check_remainder("fprem", fprem, false);
    check_remainder("fprem1", fprem1, true);
}

#[test]
fn comparisons_agree_with_the_host() {
    let check = |name: &str, on_host: fn(&mut Image), ours: fn(&mut Env, F80, F80) -> Relation| {
        for_all(ROUNDS, |_, control, mut env, a, b| {
            let before = env;
            let mut image = Image::new(control, a, b);
            on_host(&mut image);
            let conditions = match ours(&mut env, a, b) {
                // What is told then differs: Intel's processors leave the codes alone (SDM vol. 2, FCOM), AMD's do not.
                _ if env.flags & env.unmasked & exception::IE != 0 => return,
                Relation::Greater => 0,
                Relation::Less => C0,
                Relation::Equal => C3,
                Relation::Unordered => C0 | C2 | C3,
            };
            assert_eq!(
                (conditions, env.flags),
                (image.status as u16 & CONDITIONS, image.status as u8 & exception::ALL),
                "{name} {a:x?}, {b:x?} under {before:?}"
            );
        });
    };
    check("fcom", fcom, x87::compare);
    check("fucom", fucom, x87::compare_quiet);
}

#[test]
fn loads_agree_with_the_host() {
    check_loads("fld m32", fld_single, |env, m| x87::load(env, F32(m as u32)), false);
    check_loads("fld m64", fld_double, |env, m| x87::load(env, F64(m)), true);
}

fn check_loads(name: &str, on_host: fn(&mut Image), ours: fn(&mut Env, u64) -> F80, wide: bool) {
    for_all(ROUNDS, |random, control, mut env, a, _| {
        let before = env;
        let near = u64::MAX >> 2;
        let m = if wide { random.float(11, 52, near) } else { random.float(8, 23, near) };
        let mut image = Image::new(control, a, F80::ZERO);
        image.memory[..8].copy_from_slice(&m.to_le_bytes());
        on_host(&mut image);
        let result = ours(&mut env, m);
        let result = if env.flags & env.unmasked & exception::IE != 0 { a } else { result };
        assert_eq!(
            (result, outcome(&env)),
            (image.st(0), host_outcome(&image)),
            "{name} {m:x} under {before:?}"
        );
    });
}

fn check_stores(name: &str, on_host: fn(&mut Image), len: usize, ours: fn(&mut Env, F80) -> [u8; 10]) {
    // Unmasked overflow and underflow leave memory alone as well.
    const NO_RESULT: u8 = exception::BEFORE | exception::OE | exception::UE;
    for_all(ROUNDS, |random, control, mut env, a, _| {
        let before = env;
        // Around what fits as well.
        let exponent = match random.below(2) {
            0 => a.sign_exponent,
            _ => a.sign_exponent & 0x8000 | (16383 + random.below(70)) as u16,
        };
        let a = F80 { sign_exponent: exponent, ..a };
        let mut image = Image::new(control, a, F80::ZERO);
        on_host(&mut image);
        let result = ours(&mut env, a);
        let result = if env.flags & env.unmasked & NO_RESULT != 0 {
            [0xcc; 10][..len].to_vec()
        } else {
            result[..len].to_vec()
        };
        assert_eq!(
            (&result[..], outcome(&env)),
            (&image.memory[..len], host_outcome(&image)),
            "{name} {a:x?} under {before:?}"
        );
    });
}

fn padded(value: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn stores_agree_with_the_host() {
    check_stores("fst m32", fst_single, 4, |env, a| padded(x87::store::<F32>(env, a).0.into()));
    check_stores("fst m64", fst_double, 8, |env, a| padded(x87::store::<F64>(env, a).0));
}

#[test]
fn integer_stores_agree_with_the_host() {
    check_stores("fist m16", fist_word, 2, |env, a| padded(x87::to_integer(env, a, 16) as u64));
    check_stores("fist m32", fist_dword, 4, |env, a| padded(x87::to_integer(env, a, 32) as u64));
    check_stores("fistp m64", fistp_qword, 8, |env, a| padded(x87::to_integer(env, a, 64) as u64));
    check_stores("fbstp", fbstp, 10, x87::to_decimal);
}

#[test]
fn decimal_loads_agree_with_the_host() {
    let mut random = Random(99);
    for _ in 0..ROUNDS {
        let mut image = Image::new(0x37f, F80::ZERO, F80::ZERO);
        for byte in &mut image.memory {
            *byte = (random.below(10) << 4 | random.below(10)) as u8;
        }
        image.memory[9] = (random.below(2) << 7) as u8;
        let expected = x87::from_decimal(image.memory);
        fbld(&mut image);
        assert_eq!(image.st(0), expected, "{:x?}", image.memory);
    }
}

#[test]
fn kinds_of_values_agree_with_the_host() {
    for_all(ROUNDS / 10, |_, control, _, a, b| {
        let mut image = Image::new(control, a, b);
        fxam(&mut image);
        let kind = match a.kind() {
            x87::ValueKind::Unsupported => 0,
            x87::ValueKind::Nan => C0,
            x87::ValueKind::Normal => C2,
            x87::ValueKind::Infinity => C2 | C0,
            x87::ValueKind::Zero => C3,
            x87::ValueKind::Denormal => C3 | C2,
        };
        let sign = if a.is_negative() { C1 } else { 0 };
        assert_eq!(kind | sign, image.status as u16 & CONDITIONS, "{a:x?}");
    });
}
