//! Lanes put elsewhere: unpack, pack, shuffle, insert and extract.

use super::vector::{Lanes, Vector, build, lane, split};
use super::{
    Extraction, Gpr, Mm, Operation, Part, Unit, Xmm, compute, compute_either, compute_on, extract_either,
};
use crate::cpu::bus::Bus;
use crate::cpu::model::feature::{MMX, SSE, SSE2};
use crate::interp::decode::{Decoded, Kind};
use crate::interp::op::Handler;
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Punpcklbw => unpack_low::<B, UnpackLowBytes>(form),
        Mnemonic::Punpcklwd => unpack_low::<B, UnpackLowWords>(form),
        Mnemonic::Punpckldq => unpack_low::<B, UnpackLowDwords>(form),
        Mnemonic::Punpckhbw => compute_either::<B, UnpackHighBytes, MMX>(form),
        Mnemonic::Punpckhwd => compute_either::<B, UnpackHighWords, MMX>(form),
        Mnemonic::Punpckhdq => compute_either::<B, UnpackHighDwords, MMX>(form),
        Mnemonic::Punpcklqdq | Mnemonic::Unpcklpd => compute_on::<B, Xmm<SSE2>, UnpackLowQwords>(form),
        Mnemonic::Punpckhqdq | Mnemonic::Unpckhpd => compute_on::<B, Xmm<SSE2>, UnpackHighQwords>(form),
        Mnemonic::Unpcklps => compute_on::<B, Xmm<SSE>, UnpackLowDwords>(form),
        Mnemonic::Unpckhps => compute_on::<B, Xmm<SSE>, UnpackHighDwords>(form),
        Mnemonic::Packsswb => compute_either::<B, Packsswb, MMX>(form),
        Mnemonic::Packssdw => compute_either::<B, Packssdw, MMX>(form),
        Mnemonic::Packuswb => compute_either::<B, Packuswb, MMX>(form),
        Mnemonic::Pshufw => compute_on::<B, Mm<SSE>, ShuffleLowWords>(form),
        Mnemonic::Pshuflw => compute_on::<B, Xmm<SSE2>, ShuffleLowWords>(form),
        Mnemonic::Pshufhw => compute_on::<B, Xmm<SSE2>, ShuffleHighWords>(form),
        Mnemonic::Pshufd => compute_on::<B, Xmm<SSE2>, ShuffleDwords>(form),
        Mnemonic::Shufps => compute_on::<B, Xmm<SSE>, Shufps>(form),
        Mnemonic::Shufpd => compute_on::<B, Xmm<SSE2>, Shufpd>(form),
        Mnemonic::Pinsrw if form.register(0).is_mm() => insert::<B, Mm<SSE>>(form),
        Mnemonic::Pinsrw => insert::<B, Xmm<SSE2>>(form),
        Mnemonic::Pextrw => extract_either::<B, ExtractWord, SSE>(form),
        _ => return None,
    })
}

/// PUNPCKLBW and the like: the MMX forms read only the half of their memory operand that they use.
fn unpack_low<B: Bus, O: Operation>(form: &Decoded) -> Handler<B> {
    if form.register(0).is_mm() && form.kinds[1] == Kind::Memory {
        compute::<B, Mm<MMX>, O, Part<u32>>
    } else {
        compute_either::<B, O, MMX>(form)
    }
}

fn insert<B: Bus, U: Unit>(form: &Decoded) -> Handler<B> {
    if form.kinds[1] == Kind::Memory {
        compute::<B, U, InsertWord, Part<u16>>
    } else {
        compute::<B, U, InsertWord, Gpr>
    }
}

/// Interleaves the lanes of the low or the high half.
macro_rules! unpacks {
    ($($low:ident, $high:ident: $lane:ty;)*) => { $(
        struct $low;
        struct $high;

        impl Operation for $low {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                let a = split::<$lane, V>(a);
                let b = split::<$lane, V>(b);
                build::<$lane, V>(|n| lane(if n & 1 == 0 { &a } else { &b }, n / 2))
            }
        }

        impl Operation for $high {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                let a = split::<$lane, V>(a);
                let b = split::<$lane, V>(b);
                let half = a.as_ref().len() / 2;
                build::<$lane, V>(|n| lane(if n & 1 == 0 { &a } else { &b }, half + n / 2))
            }
        }
    )* };
}

unpacks! {
    UnpackLowBytes, UnpackHighBytes: u8;
    UnpackLowWords, UnpackHighWords: u16;
    UnpackLowDwords, UnpackHighDwords: u32;
    UnpackLowQwords, UnpackHighQwords: u64;
}

/// Halves the lanes, saturating: those of the first operand become the low half.
macro_rules! packs {
    ($($name:ident: $wide:ty as $signed:ty => $narrow:ty as $limits:ty;)*) => { $(
        struct $name;

        impl Operation for $name {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                let a = split::<$wide, V>(a);
                let b = split::<$wide, V>(b);
                let half = a.as_ref().len();
                build::<$narrow, V>(|n| {
                    let wide: $wide = lane(if n < half { &a } else { &b }, n);
                    let (least, most) = (<$signed>::from(<$limits>::MIN), <$signed>::from(<$limits>::MAX));
                    (wide as $signed).clamp(least, most) as $narrow
                })
            }
        }
    )* };
}

packs! {
    Packsswb: u16 as i16 => u8 as i8;
    Packssdw: u32 as i32 => u16 as i16;
    Packuswb: u16 as i16 => u8 as u8;
}

/// Field n of an immediate made of two-bit fields.
#[inline(always)]
fn field(imm: u8, n: usize) -> usize {
    usize::from(imm >> (2 * (n & 3)) & 3)
}

struct ShuffleLowWords;
struct ShuffleHighWords;
struct ShuffleDwords;
struct Shufps;
struct Shufpd;
struct InsertWord;
struct ExtractWord;

impl Operation for ShuffleLowWords {
    #[inline(always)]
    fn apply<V: Vector>(_a: V, b: V, imm: u8) -> V {
        let b = split::<u16, V>(b);
        build::<u16, V>(|n| lane(&b, if n < 4 { field(imm, n) } else { n }))
    }
}

impl Operation for ShuffleHighWords {
    #[inline(always)]
    fn apply<V: Vector>(_a: V, b: V, imm: u8) -> V {
        let b = split::<u16, V>(b);
        build::<u16, V>(|n| lane(&b, if n < 4 { n } else { 4 + field(imm, n) }))
    }
}

impl Operation for ShuffleDwords {
    #[inline(always)]
    fn apply<V: Vector>(_a: V, b: V, imm: u8) -> V {
        let b = split::<u32, V>(b);
        build::<u32, V>(|n| lane(&b, field(imm, n)))
    }
}

impl Operation for Shufps {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, imm: u8) -> V {
        let a = split::<u32, V>(a);
        let b = split::<u32, V>(b);
        build::<u32, V>(|n| lane(if n < 2 { &a } else { &b }, field(imm, n)))
    }
}

impl Operation for Shufpd {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, imm: u8) -> V {
        let a = split::<u64, V>(a);
        let b = split::<u64, V>(b);
        build::<u64, V>(|n| lane(if n == 0 { &a } else { &b }, usize::from(imm >> n & 1)))
    }
}

impl Operation for InsertWord {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, imm: u8) -> V {
        let mut a = split::<u16, V>(a);
        let lanes = a.as_mut();
        let last = lanes.len() - 1;
        if let Some(lane) = lanes.get_mut(usize::from(imm) & last) {
            *lane = b.widen() as u16;
        }
        <V as Lanes<u16>>::join(a)
    }
}

impl Extraction for ExtractWord {
    #[inline(always)]
    fn apply<V: Vector>(value: V, imm: u8) -> u32 {
        let lanes = split::<u16, V>(value);
        u32::from(lane::<u16, _>(&lanes, usize::from(imm)))
    }
}
