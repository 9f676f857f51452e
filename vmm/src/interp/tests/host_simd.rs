//! Every form of MMX, SSE and SSE2 against the processor that this test runs on: registers, memory, MXCSR and flags.
//!
//! Exceptions are masked here, as they would become signals; what unmasked ones do is in `simd.rs`.
#![expect(unsafe_code, reason = "runs generated machine code")]

use super::host::{CodePage, Random};
use super::simd::{Form, bench, forms};
use super::{Bench, CODE, DATA};
use crate::cpu::fpu::mxcsr;
use crate::cpu::registers::eflags::ARITHMETIC;
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// Tests per form.
const ROUNDS: usize = 300;
/// Bytes of the memory that an instruction may touch.
const MEMORY: usize = 48;

/// What the generated code gets.
#[repr(C, align(16))]
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    memory: [u8; MEMORY],
    xmm: [u128; 8],
    mm: [u64; 8],
    /// ECX and EDX.
    general: [u32; 2],
    flags: u64,
    mxcsr: u32,
    default_mxcsr: u32,
}

/// What `instruction` is run between: `at` is where its memory operand is in the frame.
fn wrapped(instruction: &[u8], at: u8) -> Vec<u8> {
    let mut code = vec![0x53, 0x55, 0x49, 0x89, 0xf8]; // push rbx; push rbp; mov r8, rdi
    // An instruction with the operands `reg` and [r8 + offset].
    let with_frame = |code: &mut Vec<u8>, opcode: &[u8], reg: u8, offset: usize| {
        code.push(0x41);
        code.extend(opcode);
        code.push(0x80 | reg << 3);
        code.extend((offset as u32).to_le_bytes());
    };
    let xmm = |n: u8| offset_of!(Frame, xmm) + 16 * usize::from(n);
    let mm = |n: u8| offset_of!(Frame, mm) + 8 * usize::from(n);
    let general = |n: u8| offset_of!(Frame, general) + 4 * (usize::from(n) - 1);
    for n in 0..8 {
        with_frame(&mut code, &[0x0f, 0x10], n, xmm(n)); // movups
        with_frame(&mut code, &[0x0f, 0x6f], n, mm(n)); // movq
    }
    for n in 1..=2 {
        with_frame(&mut code, &[0x8b], n, general(n)); // mov ecx / edx
    }
    code.extend([0x49, 0x8d, 0x40, at, 0x49, 0x8d, 0x78, at]); // lea rax, [r8 + at]; lea rdi, [r8 + at]
    with_frame(&mut code, &[0x0f, 0xae], 2, offset_of!(Frame, mxcsr)); // ldmxcsr
    with_frame(&mut code, &[0xff], 6, offset_of!(Frame, flags)); // push
    code.push(0x9d); // popfq
    code.extend(instruction);
    code.push(0x9c); // pushfq
    with_frame(&mut code, &[0x8f], 0, offset_of!(Frame, flags)); // pop
    with_frame(&mut code, &[0x0f, 0xae], 3, offset_of!(Frame, mxcsr)); // stmxcsr
    for n in 0..8 {
        with_frame(&mut code, &[0x0f, 0x11], n, xmm(n));
        with_frame(&mut code, &[0x0f, 0x7f], n, mm(n));
    }
    for n in 1..=2 {
        with_frame(&mut code, &[0x89], n, general(n));
    }
    with_frame(&mut code, &[0x0f, 0xae], 2, offset_of!(Frame, default_mxcsr));
    code.extend([0x0f, 0x77, 0x5d, 0x5b, 0xc3]); // emms; pop rbp; pop rbx; ret
    code
}

/// Values that are at the edges of some format.
fn interesting32(random: &mut Random) -> u32 {
    const SPECIAL: [u32; 24] = [
        0,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x0080_0001,
        0x3f7f_ffff,
        0x3f80_0000,
        0x3f80_0001,
        0x3fc0_0000,
        0x4b00_0001,
        0x4eff_ffff,
        0x4f00_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fbf_ffff,
        0x7fc0_0000,
        0x7fff_ffff,
        0x0000_ffff,
        0x7fff_8000,
        0x8080_7f7f,
        0x00ff_ff01,
        0x1f80_0000,
        0x2000_0001,
    ];
    let sign = random.next() & 1 << 31;
    match random.next() % 6 {
        0..=2 => SPECIAL[random.next() as usize % SPECIAL.len()] ^ sign,
        // Not far from one, so that sums and integers come out.
        3 => (random.next() & 0x0fff_ffff).wrapping_add(0x3b00_0000) ^ sign,
        4 => random.next() & 0x3f,
        _ => random.next(),
    }
}

fn interesting64(random: &mut Random) -> u64 {
    const SPECIAL: [u64; 22] = [
        0,
        1,
        0x000f_ffff_ffff_ffff,
        0x0010_0000_0000_0000,
        0x0010_0000_0000_0001,
        0x3fef_ffff_ffff_ffff,
        0x3ff0_0000_0000_0000,
        0x3ff8_0000_0000_0000,
        0x41df_ffff_ffc0_0000,
        0x41df_ffff_ffe0_0000,
        0x41e0_0000_0000_0000,
        0x41e0_0000_0010_0000,
        0x3690_0000_0000_0000,
        0x3800_0000_0000_0001,
        0x380f_ffff_f000_0000,
        0x47ef_ffff_e000_0000,
        0x47ef_ffff_f000_0000,
        0x7fef_ffff_ffff_ffff,
        0x7ff0_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x7ff8_0000_0000_0000,
        0x7fff_ffff_ffff_ffff,
    ];
    let any = |random: &mut Random| u64::from(random.next()) << 32 | u64::from(random.next());
    let sign = u64::from(random.next() & 1) << 63;
    match random.next() % 7 {
        0..=2 => SPECIAL[random.next() as usize % SPECIAL.len()] ^ sign,
        3 => (any(random) & 0x01ff_ffff_ffff_ffff).wrapping_add(0x3f00_0000_0000_0000) ^ sign,
        4 => u64::from(random.next() & 0x3f),
        // Exact in single precision, or half way between two such values.
        5 => any(random) & 0x0fff_ffff_f000_0000 | 0x3000_0000_0000_0000 ^ sign,
        _ => any(random),
    }
}

fn half(random: &mut Random) -> u64 {
    match random.next() % 3 {
        0 => interesting64(random),
        1 => u64::from(interesting32(random)) << 32 | u64::from(interesting32(random)),
        _ => [0x80, 0xff, 0x7f, 0, 1].into_iter().chain([random.next() as u8; 3]).fold(0, |value, byte| {
            let byte = if random.next() & 1 == 0 { byte } else { random.next() as u8 };
            value << 8 | u64::from(byte)
        }),
    }
}

fn random_frame(random: &mut Random) -> Frame {
    let mut frame = Frame {
        memory: [0; MEMORY],
        xmm: [0; 8],
        mm: [0; 8],
        general: [interesting32(random), interesting32(random)],
        flags: u64::from(random.next() & ARITHMETIC | 2),
        mxcsr: 0,
        default_mxcsr: mxcsr::AFTER_RESET,
    };
    for chunk in frame.memory.as_chunks_mut().0 {
        *chunk = half(random).to_le_bytes();
    }
    for n in 0..8 {
        frame.xmm[n] = u128::from(half(random)) << 64 | u128::from(half(random));
        frame.mm[n] = half(random);
        if n > 0 && random.next().is_multiple_of(4) {
            frame.xmm[n] = frame.xmm[n - 1] ^ u128::from(random.next() & 1) << (random.next() % 128);
        }
    }
    let modes = match random.next() % 3 {
        0 => 0,
        1 => random.next() & mxcsr::RC,
        _ => random.next() & (mxcsr::RC | mxcsr::FZ | mxcsr::DAZ),
    };
    frame.mxcsr =
        mxcsr::MASKS | modes | random.next() & mxcsr::EXCEPTIONS & 0u32.wrapping_sub(random.next() & 1);
    frame
}

/// Runs an instruction here.
fn interpret(bench: &mut Bench, instruction: &[u8], at: u8, frame: &mut Frame) {
    let cpu = &mut bench.cpu;
    cpu.bus.load(u64::from(CODE), instruction);
    cpu.bus.load(u64::from(DATA), &frame.memory);
    cpu.state.fpu.xmm = frame.xmm;
    for (n, value) in (0..).zip(frame.mm) {
        *cpu.state.fpu.mm_mut(n) = value;
    }
    cpu.state.fpu.mxcsr = frame.mxcsr;
    cpu.state.gpr[0] = DATA + u32::from(at);
    cpu.state.gpr[7] = DATA + u32::from(at);
    cpu.state.gpr[1..3].copy_from_slice(&frame.general);
    cpu.set_flags(frame.flags as u32);
    cpu.state.eip = CODE;
    bench.interp.step(cpu);
    assert_eq!(cpu.state.eip, CODE + instruction.len() as u32, "{instruction:02x?} faults");
    frame.xmm = cpu.state.fpu.xmm;
    for (n, value) in (0..).zip(&mut frame.mm) {
        *value = *cpu.state.fpu.mm(n);
    }
    frame.mxcsr = cpu.state.fpu.mxcsr;
    frame.general.copy_from_slice(&cpu.state.gpr[1..3]);
    frame.flags = u64::from(cpu.flags() & ARITHMETIC);
    for (n, byte) in frame.memory.iter_mut().enumerate() {
        *byte = cpu.bus.peek32(u64::from(DATA) + n as u64) as u8;
    }
}

fn compare(page: &CodePage, bench: &mut Bench, random: &mut Random, form: &Form) {
    let registers = [random.next(), random.next(), random.next()];
    let imm = if random.next().is_multiple_of(2) { random.next() as u8 } else { random.next() as u8 & 0x3f };
    let bytes = form.bytes(registers, imm);
    let at = if form.wants_alignment() { 16 } else { random.next() as u8 % 32 };
    let mut before = random_frame(random);
    if form.code.mnemonic() == Mnemonic::Ldmxcsr {
        let at = usize::from(at);
        before.memory[at..at + 4].copy_from_slice(&before.mxcsr.wrapping_add(0x2000).to_le_bytes());
        before.memory[at + 2..at + 4].fill(0);
    }
    let mut ours = before.clone();
    interpret(bench, &bytes, at, &mut ours);
    let mut native = before.clone();
    // SAFETY: the code saves what it must and touches only the frame: its middle is a vector instruction on at most 16
    // bytes at `at`, which is below 32 and a multiple of 16 where it must be; exceptions are masked.
    unsafe { page.call(&wrapped(&bytes, at), (&raw mut native).cast()) };
    native.flags &= u64::from(ARITHMETIC);
    assert!(
        ours == native,
        "\n{:?} {bytes:02x?}, memory at {at}, before: {before:x?}\nours {ours:x?}\nhost {native:x?}",
        form.code
    );
}

#[test]
fn vector_instructions_agree_with_the_host() {
    let page = CodePage::new();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut bench = bench();
    let mut covered = 0;
    for form in forms() {
        for _ in 0..ROUNDS {
            compare(&page, &mut bench, &mut random, &form);
        }
        covered += 1;
    }
    println!("{covered} forms, {ROUNDS} times each");
}
