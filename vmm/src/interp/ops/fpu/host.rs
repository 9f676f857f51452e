//! Transcendental functions on the host's own x87, which x86-64 processors have: the guest's control word, operands
//! and nothing else go in, and the unit is left as the calling convention wants it.
#![expect(unsafe_code, reason = "executes x87 instructions")]

use crate::softfloat::F80;
use std::arch::asm;

/// An extended value in memory.
type Bytes = [u8; 10];

/// What FNSAVE stores.
#[repr(C)]
#[derive(Default)]
struct Image {
    control: u32,
    status: u32,
    tags: u32,
    pointers: [u32; 4],
    registers: [Bytes; 8],
}

/// What an instruction left.
pub struct Outcome {
    /// Status word.
    pub status: u16,
    /// ST(0) and ST(1).
    pub results: [F80; 2],
}

fn to_bytes(value: F80) -> Bytes {
    let mut bytes = [0; 10];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&value.significand.to_le_bytes());
    high.copy_from_slice(&value.sign_exponent.to_le_bytes());
    bytes
}

fn from_bytes([a, b, c, d, e, f, g, h, i, j]: Bytes) -> F80 {
    F80 {
        significand: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        sign_exponent: u16::from_le_bytes([i, j]),
    }
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident $instruction:literal)*) => {
        $(
            $(#[$doc])*
            pub fn $name(control: u16, st0: F80, st1: F80) -> Outcome {
                let (st0, st1) = (to_bytes(st0), to_bytes(st1));
                let mut image = Image::default();
                // SAFETY: on entry the unit is empty and has its default control word (psABI), so no exception is
                // pending and loading extended values raises none. After the one instruction that may raise an
                // unmasked exception comes FNSAVE, which does not report it, clears it, and leaves the unit empty with
                // the default control word again. Memory accessed is that of the three locals.
                unsafe {
                    asm!(
                        "fld tbyte ptr [{st1}]",
                        "fld tbyte ptr [{st0}]",
                        "fldcw word ptr [{control}]",
                        $instruction,
                        "fnsave [{image}]",
                        st0 = in(reg) &raw const st0,
                        st1 = in(reg) &raw const st1,
                        control = in(reg) &raw const control,
                        image = in(reg) &raw mut image,
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                        options(nostack),
                    );
                }
                let [first, second, ..] = image.registers;
                Outcome { status: image.status as u16, results: [from_bytes(first), from_bytes(second)] }
            }
        )*
    };
}

instructions! {
    /// F2XM1.
    f2xm1 "f2xm1"
    /// FYL2X.
    fyl2x "fyl2x"
    /// FYL2XP1.
    fyl2xp1 "fyl2xp1"
    /// FPATAN.
    fpatan "fpatan"
    /// FPTAN.
    fptan "fptan"
    /// FSIN.
    fsin "fsin"
    /// FCOS.
    fcos "fcos"
    /// FSINCOS.
    fsincos "fsincos"
}
