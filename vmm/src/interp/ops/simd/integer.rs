//! Integer arithmetic, logic, comparisons and shifts, lane by lane.

use super::vector::{Lanes, Vector, map, split, zip};
use super::{Extraction, Operation, Xmm, compute_either, compute_on, extract, extract_either};
use crate::cpu::bus::Bus;
use crate::cpu::model::feature::{MMX, SSE, SSE2};
use crate::interp::decode::Decoded;
use crate::interp::op::Handler;
use iced_x86::Mnemonic;

/// Names the handler of an instruction of this group.
pub fn select<B: Bus>(form: &Decoded) -> Option<Handler<B>> {
    Some(match form.mnemonic {
        Mnemonic::Paddb => compute_either::<B, Paddb, MMX>(form),
        Mnemonic::Paddw => compute_either::<B, Paddw, MMX>(form),
        Mnemonic::Paddd => compute_either::<B, Paddd, MMX>(form),
        Mnemonic::Paddq => compute_either::<B, Paddq, SSE2>(form),
        Mnemonic::Paddsb => compute_either::<B, Paddsb, MMX>(form),
        Mnemonic::Paddsw => compute_either::<B, Paddsw, MMX>(form),
        Mnemonic::Paddusb => compute_either::<B, Paddusb, MMX>(form),
        Mnemonic::Paddusw => compute_either::<B, Paddusw, MMX>(form),
        Mnemonic::Psubb => compute_either::<B, Psubb, MMX>(form),
        Mnemonic::Psubw => compute_either::<B, Psubw, MMX>(form),
        Mnemonic::Psubd => compute_either::<B, Psubd, MMX>(form),
        Mnemonic::Psubq => compute_either::<B, Psubq, SSE2>(form),
        Mnemonic::Psubsb => compute_either::<B, Psubsb, MMX>(form),
        Mnemonic::Psubsw => compute_either::<B, Psubsw, MMX>(form),
        Mnemonic::Psubusb => compute_either::<B, Psubusb, MMX>(form),
        Mnemonic::Psubusw => compute_either::<B, Psubusw, MMX>(form),
        Mnemonic::Pmullw => compute_either::<B, Pmullw, MMX>(form),
        Mnemonic::Pmulhw => compute_either::<B, Pmulhw, MMX>(form),
        Mnemonic::Pmulhuw => compute_either::<B, Pmulhuw, SSE>(form),
        Mnemonic::Pmuludq => compute_either::<B, Pmuludq, SSE2>(form),
        Mnemonic::Pmaddwd => compute_either::<B, Pmaddwd, MMX>(form),
        Mnemonic::Pavgb => compute_either::<B, Pavgb, SSE>(form),
        Mnemonic::Pavgw => compute_either::<B, Pavgw, SSE>(form),
        Mnemonic::Psadbw => compute_either::<B, Psadbw, SSE>(form),
        Mnemonic::Pminub => compute_either::<B, Pminub, SSE>(form),
        Mnemonic::Pmaxub => compute_either::<B, Pmaxub, SSE>(form),
        Mnemonic::Pminsw => compute_either::<B, Pminsw, SSE>(form),
        Mnemonic::Pmaxsw => compute_either::<B, Pmaxsw, SSE>(form),
        Mnemonic::Pcmpeqb => compute_either::<B, Pcmpeqb, MMX>(form),
        Mnemonic::Pcmpeqw => compute_either::<B, Pcmpeqw, MMX>(form),
        Mnemonic::Pcmpeqd => compute_either::<B, Pcmpeqd, MMX>(form),
        Mnemonic::Pcmpgtb => compute_either::<B, Pcmpgtb, MMX>(form),
        Mnemonic::Pcmpgtw => compute_either::<B, Pcmpgtw, MMX>(form),
        Mnemonic::Pcmpgtd => compute_either::<B, Pcmpgtd, MMX>(form),
        Mnemonic::Pand => compute_either::<B, And, MMX>(form),
        Mnemonic::Pandn => compute_either::<B, AndNot, MMX>(form),
        Mnemonic::Por => compute_either::<B, Or, MMX>(form),
        Mnemonic::Pxor => compute_either::<B, Xor, MMX>(form),
        Mnemonic::Andps => compute_on::<B, Xmm<SSE>, And>(form),
        Mnemonic::Andnps => compute_on::<B, Xmm<SSE>, AndNot>(form),
        Mnemonic::Orps => compute_on::<B, Xmm<SSE>, Or>(form),
        Mnemonic::Xorps => compute_on::<B, Xmm<SSE>, Xor>(form),
        Mnemonic::Andpd => compute_on::<B, Xmm<SSE2>, And>(form),
        Mnemonic::Andnpd => compute_on::<B, Xmm<SSE2>, AndNot>(form),
        Mnemonic::Orpd => compute_on::<B, Xmm<SSE2>, Or>(form),
        Mnemonic::Xorpd => compute_on::<B, Xmm<SSE2>, Xor>(form),
        Mnemonic::Psllw => compute_either::<B, Psllw, MMX>(form),
        Mnemonic::Pslld => compute_either::<B, Pslld, MMX>(form),
        Mnemonic::Psllq => compute_either::<B, Psllq, MMX>(form),
        Mnemonic::Psrlw => compute_either::<B, Psrlw, MMX>(form),
        Mnemonic::Psrld => compute_either::<B, Psrld, MMX>(form),
        Mnemonic::Psrlq => compute_either::<B, Psrlq, MMX>(form),
        Mnemonic::Psraw => compute_either::<B, Psraw, MMX>(form),
        Mnemonic::Psrad => compute_either::<B, Psrad, MMX>(form),
        Mnemonic::Pslldq => compute_on::<B, Xmm<SSE2>, Pslldq>(form),
        Mnemonic::Psrldq => compute_on::<B, Xmm<SSE2>, Psrldq>(form),
        Mnemonic::Pmovmskb => extract_either::<B, ByteSigns, SSE>(form),
        Mnemonic::Movmskps => extract::<B, Xmm<SSE>, DwordSigns>,
        Mnemonic::Movmskpd => extract::<B, Xmm<SSE2>, QwordSigns>,
        _ => return None,
    })
}

/// Operations on pairs of lanes.
macro_rules! lanewise {
    ($($name:ident: $lane:ty = $f:expr;)*) => { $(
        struct $name;

        impl Operation for $name {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                zip::<$lane, V>(a, b, $f)
            }
        }
    )* };
}

lanewise! {
    Paddb: u8 = u8::wrapping_add;
    Paddw: u16 = u16::wrapping_add;
    Paddd: u32 = u32::wrapping_add;
    Paddq: u64 = u64::wrapping_add;
    Paddsb: u8 = |a, b| (a as i8).saturating_add(b as i8) as u8;
    Paddsw: u16 = |a, b| (a as i16).saturating_add(b as i16) as u16;
    Paddusb: u8 = u8::saturating_add;
    Paddusw: u16 = u16::saturating_add;
    Psubb: u8 = u8::wrapping_sub;
    Psubw: u16 = u16::wrapping_sub;
    Psubd: u32 = u32::wrapping_sub;
    Psubq: u64 = u64::wrapping_sub;
    Psubsb: u8 = |a, b| (a as i8).saturating_sub(b as i8) as u8;
    Psubsw: u16 = |a, b| (a as i16).saturating_sub(b as i16) as u16;
    Psubusb: u8 = u8::saturating_sub;
    Psubusw: u16 = u16::saturating_sub;
    Pmullw: u16 = u16::wrapping_mul;
    Pmulhw: u16 = |a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16;
    Pmulhuw: u16 = |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
    Pmuludq: u64 = |a, b| u64::from(a as u32) * u64::from(b as u32);
    Pavgb: u8 = |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    Pavgw: u16 = |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    Pminub: u8 = |a, b| a.min(b);
    Pmaxub: u8 = |a, b| a.max(b);
    Pminsw: u16 = |a, b| (a as i16).min(b as i16) as u16;
    Pmaxsw: u16 = |a, b| (a as i16).max(b as i16) as u16;
    Pcmpeqb: u8 = |a, b| if a == b { u8::MAX } else { 0 };
    Pcmpeqw: u16 = |a, b| if a == b { u16::MAX } else { 0 };
    Pcmpeqd: u32 = |a, b| if a == b { u32::MAX } else { 0 };
    Pcmpgtb: u8 = |a, b| if a as i8 > b as i8 { u8::MAX } else { 0 };
    Pcmpgtw: u16 = |a, b| if a as i16 > b as i16 { u16::MAX } else { 0 };
    Pcmpgtd: u32 = |a, b| if a as i32 > b as i32 { u32::MAX } else { 0 };
    And: u64 = |a, b| a & b;
    AndNot: u64 = |a, b| !a & b;
    Or: u64 = |a, b| a | b;
    Xor: u64 = |a, b| a ^ b;
}

/// The count of a shift: 64 bits, whatever the width of the operand.
#[inline(always)]
fn count<V: Vector>(b: V) -> u64 {
    b.widen() as u64
}

/// Logical shifts: a count that is not below the lane's width leaves zero.
macro_rules! logical_shifts {
    ($($name:ident: $lane:ty = $shift:ident;)*) => { $(
        struct $name;

        impl Operation for $name {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                let count = count(b);
                if count >= u64::from(<$lane>::BITS) {
                    return V::default();
                }
                map::<$lane, V>(a, |lane| lane.$shift(count as u32))
            }
        }
    )* };
}

logical_shifts! {
    Psllw: u16 = wrapping_shl;
    Pslld: u32 = wrapping_shl;
    Psllq: u64 = wrapping_shl;
    Psrlw: u16 = wrapping_shr;
    Psrld: u32 = wrapping_shr;
    Psrlq: u64 = wrapping_shr;
}

/// Arithmetic shifts: a count that is too high leaves copies of the sign.
macro_rules! arithmetic_shifts {
    ($($name:ident: $lane:ty as $signed:ty;)*) => { $(
        struct $name;

        impl Operation for $name {
            #[inline(always)]
            fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
                let count = count(b).min(u64::from(<$lane>::BITS - 1)) as u32;
                map::<$lane, V>(a, |lane| (lane as $signed).wrapping_shr(count) as $lane)
            }
        }
    )* };
}

arithmetic_shifts! {
    Psraw: u16 as i16;
    Psrad: u32 as i32;
}

struct Pslldq;
struct Psrldq;

impl Operation for Pslldq {
    #[inline(always)]
    fn apply<V: Vector>(a: V, _b: V, imm: u8) -> V {
        V::narrow(a.widen().checked_shl(8 * u32::from(imm)).unwrap_or(0))
    }
}

impl Operation for Psrldq {
    #[inline(always)]
    fn apply<V: Vector>(a: V, _b: V, imm: u8) -> V {
        V::narrow(a.widen().checked_shr(8 * u32::from(imm)).unwrap_or(0))
    }
}

struct Pmaddwd;

impl Operation for Pmaddwd {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        zip::<u32, V>(a, b, |a, b| {
            let product = |shift: u32| {
                let (a, b) = ((a >> shift) as i16, (b >> shift) as i16);
                i32::from(a) * i32::from(b)
            };
            // Only (-32768)^2 twice overflows.
            product(0).wrapping_add(product(16)) as u32
        })
    }
}

struct Psadbw;

impl Operation for Psadbw {
    #[inline(always)]
    fn apply<V: Vector>(a: V, b: V, _imm: u8) -> V {
        let differences = split::<u8, V>(zip::<u8, V>(a, b, u8::abs_diff));
        let mut sums = split::<u64, V>(V::default());
        for (sum, group) in sums.as_mut().iter_mut().zip(differences.as_ref().as_chunks::<8>().0) {
            *sum = u64::from(group.iter().fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte))));
        }
        <V as Lanes<u64>>::join(sums)
    }
}

/// The sign bits of all lanes, the lowest lane's first.
macro_rules! signs {
    ($($name:ident: $lane:ty;)*) => { $(
        struct $name;

        impl Extraction for $name {
            #[inline(always)]
            fn apply<V: Vector>(value: V, _imm: u8) -> u32 {
                let lanes = split::<$lane, V>(value);
                let sign = |lane: &$lane| (lane >> (<$lane>::BITS - 1)) as u32;
                lanes.as_ref().iter().enumerate().fold(0, |mask, (n, lane)| mask | sign(lane) << n)
            }
        }
    )* };
}

signs! {
    ByteSigns: u8;
    DwordSigns: u32;
    QwordSigns: u64;
}
