//! Contents of registers and memory before a sequence: random, and such as have broken processors before.

use super::machine::{FxArea, IMAGE, Image, Machine, PAGE, address_of, at, fx, selector};
use super::random::Random;
use vmm::cpu::registers::eflags;

/// Bytes that images are cut from.
const POOL: usize = 256 << 10;
const BLOCK: usize = 16;

/// An 80-bit value: (significand, sign and exponent).
pub fn extended(random: &mut Random) -> (u64, u16) {
    const INTEGER: u64 = 1 << 63;
    let sign = (random.bits() as u16) & 0x8000;
    let fraction = match random.below(4) {
        0 => 0,
        1 => u64::from(random.bits()) << 40 & !INTEGER,
        2 => random.pick(&[1, !INTEGER, 1 << 62, 1 << 39, 1 << 40, 1 << 10, 1 << 11, 0x7ff, 0x3ff]),
        _ => random.next() & !INTEGER,
    };
    let near_one = 0x3fff_u16.wrapping_add(random.below(80) as u16).wrapping_sub(20);
    match random.below(16) {
        0 => (0, sign),
        // Denormal, pseudo-denormal.
        1 => (fraction, sign),
        2 => (fraction | INTEGER, sign),
        // Infinity, NaN; pseudo-infinity, pseudo-NaN.
        3 => (INTEGER, sign | 0x7fff),
        4 => (fraction | INTEGER, sign | 0x7fff),
        5 => (fraction, sign | 0x7fff),
        // Unnormal.
        6 => (fraction, sign | near_one),
        7 => (fraction | INTEGER, sign | random.bits() as u16),
        // At the ends of the ranges of double, single and extended.
        8 => (
            fraction | INTEGER,
            sign | random.pick(&[1, 2, 0x3fff - 1023, 0x3fff + 1023, 0x3fff - 126, 0x3fff + 127]),
        ),
        9 => (
            fraction | INTEGER,
            sign | random.pick(&[0x7ffe, 0x7ffd, 0x3fff - 1074, 0x3fff - 149, 0x3fff + 62]),
        ),
        10 => (u64::from(random.below(1000)) << 54 | INTEGER, sign | (0x3fff + random.below(10) as u16)),
        _ => (fraction | INTEGER, sign | near_one),
    }
}

/// A double.
pub fn double(random: &mut Random) -> u64 {
    let sign = random.next() & 1 << 63;
    let fraction = match random.below(4) {
        0 => 0,
        1 => random.pick(&[1, (1 << 52) - 1, 1 << 51, 1 << 29, 1 << 28]),
        _ => random.next() & ((1 << 52) - 1),
    };
    let exponent = match random.below(8) {
        0 => 0,
        1 => 0x7ff,
        2 => u64::from(random.pick(&[
            1u32,
            2,
            0x7fe,
            1023 - 126,
            1023 + 127,
            1023 - 149,
            1023 + 31,
            1023 + 30,
        ])),
        3 => u64::from(random.below(0x800)),
        _ => 1003 + u64::from(random.below(60)),
    };
    sign | exponent << 52 | fraction
}

/// A single.
pub fn single(random: &mut Random) -> u32 {
    let sign = random.bits() & 1 << 31;
    let fraction = match random.below(4) {
        0 => 0,
        1 => random.pick(&[1, (1 << 23) - 1, 1 << 22]),
        _ => random.bits() & ((1 << 23) - 1),
    };
    let exponent = match random.below(8) {
        0 => 0,
        1 => 0xff,
        2 => random.pick(&[1, 2, 0xfe, 0xfd, 127 + 31, 127 + 30, 127 + 63]),
        3 => random.below(0x100),
        _ => 117 + random.below(40),
    };
    sign | exponent << 23 | fraction
}

/// 16 bytes that mean something to some instruction.
fn block(random: &mut Random) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    match random.below(8) {
        0 => bytes.chunks_mut(4).for_each(|four| four.copy_from_slice(&single(random).to_le_bytes())),
        1 => bytes.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&double(random).to_le_bytes())),
        2 => {
            let (significand, sign_exponent) = extended(random);
            bytes[..8].copy_from_slice(&significand.to_le_bytes());
            bytes[8..10].copy_from_slice(&sign_exponent.to_le_bytes());
        }
        // Packed decimal.
        3 => {
            for byte in &mut bytes[..9] {
                *byte = (random.below(10) << 4 | random.below(10)) as u8;
            }
            bytes[9] = random.bits() as u8 & 0x80;
        }
        4 => bytes.chunks_mut(4).for_each(|four| four.copy_from_slice(&random.value().to_le_bytes())),
        5 => bytes.chunks_mut(2).for_each(|two| two.copy_from_slice(&random.value().to_le_bytes()[..2])),
        _ => bytes.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&random.next().to_le_bytes())),
    }
    bytes
}

/// Where images come from: each is a window of the same bytes.
pub struct Pool(Vec<u8>);

impl Pool {
    /// The pool; always the same.
    pub fn new() -> Self {
        let mut random = Random::new(0x00c0_ffee);
        Pool((0..POOL / BLOCK).flat_map(|_| block(&mut random)).collect())
    }

    /// An image.
    pub fn fill(&self, random: &mut Random, image: &mut Image) {
        let at = random.below(((POOL - IMAGE) / BLOCK) as u32) as usize * BLOCK;
        image.copy_from_slice(&self.0[at..at + IMAGE]);
    }
}

/// A random address in writable data, often near the edge of a page.
pub fn pointer(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => address_of(random.below(4) as usize * PAGE as usize).wrapping_sub(random.below(32)),
        1 => at::READ_ONLY.wrapping_sub(random.below(64)),
        _ => at::DATA + (random.below(at::DATA_SIZE) & !3),
    }
}

/// x87, MMX and SSE registers.
fn fx_area(random: &mut Random) -> FxArea {
    let mut area = FxArea::initial();
    const MASKS: u16 = 0x3f;
    const FIXED: u16 = 0x40;
    if random.percent(50) {
        let masks = if random.percent(60) { MASKS } else { random.bits() as u16 & MASKS };
        area.set_u16(fx::FCW, random.bits() as u16 & 0x1f00 | masks | FIXED);
    }
    // Often a full stack, sometimes an empty one, else anything.
    area.0[fx::FTW] = match random.below(8) {
        0 => 0,
        1..=4 => 0xff,
        _ => random.bits() as u8,
    };
    const TOP_AND_CODES: u16 = 0x7f00;
    let mut status = random.bits() as u16 & TOP_AND_CODES;
    if random.percent(20) {
        // Flags that are masked, or some that are pending: then ES and B are set.
        status |= random.bits() as u16 & 0x7f;
        if !area.u16(fx::FCW) & status & MASKS != 0 {
            status |= 0x8080;
        }
    }
    area.set_u16(fx::FSW, status);
    if random.percent(50) {
        const MXCSR_MASKS: u32 = 0x1f80;
        let masks = if random.percent(70) { MXCSR_MASKS } else { random.bits() & MXCSR_MASKS };
        area.set_u32(fx::MXCSR, random.bits() & 0xe07f & !MXCSR_MASKS | masks);
    }
    for i in 0..8 {
        let (significand, sign_exponent) = if random.percent(15) {
            // What MMX leaves.
            (random.next(), 0xffff)
        } else {
            extended(random)
        };
        area.0[fx::ST + 16 * i..][..8].copy_from_slice(&significand.to_le_bytes());
        area.set_u16(fx::ST + 16 * i + 8, sign_exponent);
        area.0[fx::XMM + 16 * i..][..16].copy_from_slice(&block(random));
    }
    area
}

/// Registers before a sequence.
pub fn machine(random: &mut Random, eip: u32) -> Machine {
    let mut gpr = [0; 8];
    for register in &mut gpr {
        *register = if random.percent(40) { pointer(random) } else { random.value() };
    }
    const ESP: usize = 4;
    gpr[ESP] = at::STACK
        + match random.below(32) {
            0 => random.below(24),
            1 => PAGE - random.below(24),
            2 => random.below(PAGE),
            _ => 0x400 + (random.below(0x800) & !3),
        };
    let mut flags = eflags::FIXED | eflags::IF | random.bits() & (eflags::ARITHMETIC | eflags::ID);
    for (flag, percent) in [(eflags::DF, 20), (eflags::AC, 3), (eflags::TF, 1), (eflags::NT, 2)] {
        if random.percent(percent) {
            flags |= flag;
        }
    }
    let mut data = || {
        let other = random.percent(20);
        if other { selector::SMALL } else { selector::DATA }
    };
    let (es, ds) = (data(), data());
    let gs = random.pick(&[
        selector::SMALL,
        selector::SMALL,
        selector::SMALL,
        selector::SMALL_READ_ONLY,
        selector::EXPAND_DOWN,
        selector::DATA,
        selector::DATA,
        0,
    ]);
    let segments = [es, selector::CODE, selector::DATA, ds, 0, gs];
    Machine { gpr, eip, eflags: flags, segments, fx: fx_area(random) }
}
