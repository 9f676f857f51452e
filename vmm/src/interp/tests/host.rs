//! Register instructions against the processor that this test runs on.
//!
//! The same bytes mean the same in 64-bit mode for register operands, so each random instruction is run
//! natively between code that loads and stores registers and flags, and in the interpreter; all
//! registers and all defined flags must agree.
#![expect(unsafe_code, reason = "runs generated machine code")]

use super::{Bench, CODE};
use crate::cpu::registers::eflags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};
use crate::interp::Exit;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::ffi::c_void;

/// Tests per pattern.
const ROUNDS: usize = 400;

/// Registers by encoding (ESP unused), then flags.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    registers: [u32; 8],
    flags: u32,
}

/// What the generated code gets.
#[repr(C)]
struct Frame {
    machine: Machine,
    /// Read by the 64-bit push of the flags.
    above: u32,
}

/// A page that can be executed.
pub(super) struct CodePage(*mut u8);

impl CodePage {
    pub(super) fn new() -> Self {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice aliases nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        CodePage(page.cast())
    }

    /// Runs `code` with a pointer to `frame` in RDI.
    ///
    /// # Safety
    /// `code` must be a function of the C calling convention that may be called with `frame`.
    pub(super) unsafe fn call(&self, code: &[u8], frame: *mut c_void) {
        assert!(code.len() <= 4096);
        // SAFETY: the page holds 4096 bytes and can be executed; the caller vouches for the rest.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.0, code.len());
            let function: extern "C" fn(*mut c_void) = std::mem::transmute(self.0);
            function(frame);
        }
    }

    /// Runs one instruction on a machine.
    fn run(&self, instruction: &[u8], machine: &mut Machine) {
        let mut code = vec![
            0x53, 0x55, // push rbx; push rbp
            0x49, 0x89, 0xf8, // mov r8, rdi
            0x41, 0xff, 0x70, 32,   // push qword [r8 + 32]
            0x9d, // popfq
        ];
        // mov reg, [r8 + 4 * n] for all but ESP
        for n in (0..8u8).filter(|n| *n != 4) {
            code.extend([0x41, 0x8b, 0x40 | n << 3, 4 * n]);
        }
        code.extend(instruction);
        for n in (0..8u8).filter(|n| *n != 4) {
            code.extend([0x41, 0x89, 0x40 | n << 3, 4 * n]);
        }
        code.extend([
            0x9c, 0x58, // pushfq; pop rax
            0x41, 0x89, 0x40, 32, // mov [r8 + 32], eax
            0x5d, 0x5b, 0xc3, // pop rbp; pop rbx; ret
        ]);
        let mut frame = Frame { machine: *machine, above: 0 };
        // SAFETY: the code is a complete function of the C calling convention that saves what it must, touches
        // only `frame`, and whose middle is a register instruction that does not fault (the
        // interpreter has executed it).
        unsafe { self.call(&code, (&raw mut frame).cast()) };
        *machine = frame.machine;
    }
}

/// xorshift: the same sequence every time.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    /// Boundary values more often than chance would give them.
    fn value(&mut self) -> u32 {
        const SPECIAL: [u32; 12] =
            [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        match self.next() % 4 {
            0 => SPECIAL[self.next() as usize % SPECIAL.len()],
            1 => self.next() & 0x1f,
            _ => self.next(),
        }
    }

    /// A ModRM byte with two registers, neither of them ESP (nor, as a byte register, AH, which is
    /// another register under no prefix that is used here).
    fn modrm(&mut self) -> u8 {
        loop {
            let byte = 0xc0 | self.next() as u8 & 0x3f;
            if byte & 7 != 4 && byte >> 3 & 7 != 4 {
                return byte;
            }
        }
    }
}

/// The flags that SDM vol. 2 leaves undefined.
fn undefined(bytes: &[u8], before: &Machine) -> u32 {
    use Mnemonic::*;
    let instruction = Decoder::new(32, bytes, DecoderOptions::NONE).decode();
    let size = 8 * instruction.op0_register().size() as u32;
    let count = || {
        let last = instruction.op_count() - 1;
        let by_register = instruction.op_kind(last) == iced_x86::OpKind::Register;
        let count = if by_register { before.registers[1] } else { u32::from(instruction.immediate8()) };
        count & 31
    };
    match instruction.mnemonic() {
        And | Or | Xor | Test => AF,
        Mul | Imul => SF | ZF | AF | PF,
        Div | Idiv => ARITHMETIC,
        Bsf | Bsr => CF | OF | SF | AF | PF,
        Bt | Bts | Btr | Btc => OF | SF | AF | PF,
        Rol | Ror | Rcl | Rcr if count() > 1 => OF,
        Shl | Sal | Shr | Sar | Shld | Shrd => match count() {
            0 => 0,
            1 => AF,
            n if n > size && matches!(instruction.mnemonic(), Shld | Shrd) => ARITHMETIC,
            n if n >= size => AF | OF | CF,
            _ => AF | OF,
        },
        _ => 0,
    }
}

/// Whether the result itself is undefined.
fn result_undefined(bytes: &[u8], before: &Machine) -> bool {
    let instruction = Decoder::new(32, bytes, DecoderOptions::NONE).decode();
    let count = if bytes.last() == Some(&0) { 0 } else { before.registers[1] & 31 };
    match instruction.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => {
            let by_register = instruction.op_kind(2) == iced_x86::OpKind::Register;
            let count = if by_register { count } else { u32::from(instruction.immediate8()) & 31 };
            count > 8 * instruction.op0_register().size() as u32
        }
        Mnemonic::Bswap => instruction.op0_register().size() == 2,
        _ => false,
    }
}

fn compare(page: &CodePage, random: &mut Random, bytes: &[u8]) {
    let mut before = Machine { registers: [0; 8], flags: 0 };
    for register in &mut before.registers {
        *register = random.value();
    }
    before.flags = random.next() & ARITHMETIC | 2;
    if result_undefined(bytes, &before) {
        return;
    }
    let mut code = bytes.to_vec();
    code.push(0xf4);
    let mut bench = Bench::flat(&code);
    bench.cpu.state.gpr = before.registers;
    bench.cpu.set_flags(before.flags);
    match bench.interp.run(&mut bench.cpu, 10) {
        Exit::Halted => {}
        // #DE with nowhere to go.
        Exit::Shutdown => return,
        exit => panic!("{bytes:02x?}: {exit:?}"),
    }
    assert_eq!(bench.cpu.state.eip, CODE + code.len() as u32, "{bytes:02x?}");

    let mut native = before;
    page.run(bytes, &mut native);

    let mask = ARITHMETIC & !undefined(bytes, &before);
    let mut ours = Machine { registers: bench.cpu.state.gpr, flags: bench.cpu.flags() & mask };
    native.flags &= mask;
    ours.registers[4] = native.registers[4];
    assert_eq!(ours, native, "{bytes:02x?} on {before:x?} (flags of {mask:x})");
}

/// Compares all operand sizes of an opcode: `wide` opcodes with and without an operand-size prefix.
fn check(opcodes: &[&[u8]], immediate: usize, wide: bool) {
    let page = CodePage::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for opcode in opcodes {
        for round in 0..ROUNDS {
            let mut bytes = Vec::new();
            let narrow = wide && round % 2 == 1;
            if narrow {
                bytes.push(0x66);
            }
            bytes.extend(*opcode);
            bytes.push(random.modrm());
            let immediate = if immediate == 4 && narrow { 2 } else { immediate };
            for _ in 0..immediate {
                bytes.push(random.value() as u8);
            }
            compare(&page, &mut random, &bytes);
        }
    }
}

/// The same for opcodes whose ModRM selects the operation.
fn check_group(opcode: &[u8], selectors: &[u8], immediate: usize, wide: bool) {
    let page = CodePage::new();
    let mut random = Random(0x0123_4567_89ab_cdef);
    for selector in selectors {
        for round in 0..ROUNDS {
            let mut bytes = Vec::new();
            let narrow = wide && round % 2 == 1;
            if narrow {
                bytes.push(0x66);
            }
            bytes.extend(opcode);
            bytes.push(random.modrm() & !0x38 | selector << 3);
            let immediate = if immediate == 4 && narrow { 2 } else { immediate };
            for _ in 0..immediate {
                bytes.push(random.value() as u8);
            }
            compare(&page, &mut random, &bytes);
        }
    }
}

const ALL: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

#[test]
fn alu_operations_agree_with_the_host() {
    for operation in 0..8u8 {
        let base = operation << 3;
        check(&[&[base], &[base | 2]], 0, false);
        check(&[&[base | 1], &[base | 3]], 0, true);
    }
    check_group(&[0x80], &ALL, 1, false);
    check_group(&[0x81], &ALL, 4, true);
    check_group(&[0x83], &ALL, 1, true);
    check(&[&[0x84]], 0, false);
    check(&[&[0x85]], 0, true);
    check_group(&[0xfe], &[0, 1], 0, false);
    check_group(&[0xff], &[0, 1], 0, true);
    check_group(&[0xf6], &[2, 3], 0, false);
    check_group(&[0xf7], &[2, 3], 0, true);
}

#[test]
fn shifts_agree_with_the_host() {
    check_group(&[0xc0], &ALL, 1, false);
    check_group(&[0xc1], &ALL, 1, true);
    check_group(&[0xd0], &ALL, 0, false);
    check_group(&[0xd1], &ALL, 0, true);
    check_group(&[0xd2], &ALL, 0, false);
    check_group(&[0xd3], &ALL, 0, true);
    check(&[&[0x0f, 0xa4], &[0x0f, 0xac]], 1, true);
    check(&[&[0x0f, 0xa5], &[0x0f, 0xad]], 0, true);
}

#[test]
fn multiplications_and_divisions_agree_with_the_host() {
    check_group(&[0xf6], &[4, 5, 6, 7], 0, false);
    check_group(&[0xf7], &[4, 5, 6, 7], 0, true);
    check(&[&[0x0f, 0xaf]], 0, true);
    check(&[&[0x69]], 4, true);
    check(&[&[0x6b]], 1, true);
}

#[test]
fn bit_operations_agree_with_the_host() {
    check(&[&[0x0f, 0xa3], &[0x0f, 0xab], &[0x0f, 0xb3], &[0x0f, 0xbb]], 0, true);
    check_group(&[0x0f, 0xba], &[4, 5, 6, 7], 1, true);
    check(&[&[0x0f, 0xbc], &[0x0f, 0xbd]], 0, true);
}

#[test]
fn moves_and_exchanges_agree_with_the_host() {
    check(&[&[0x86], &[0x88], &[0x8a], &[0x0f, 0xc0], &[0x0f, 0xb0]], 0, false);
    check(&[&[0x87], &[0x89], &[0x8b], &[0x0f, 0xc1], &[0x0f, 0xb1]], 0, true);
    check(&[&[0x0f, 0xb6], &[0x0f, 0xb7], &[0x0f, 0xbe], &[0x0f, 0xbf]], 0, true);
    for condition in 0..16u8 {
        check(&[&[0x0f, 0x40 | condition]], 0, true);
        check(&[&[0x0f, 0x90 | condition]], 0, false);
    }
}

#[test]
fn one_byte_operations_agree_with_the_host() {
    let page = CodePage::new();
    let mut random = Random(77);
    // CBW CWDE CWD CDQ SAHF LAHF CMC CLC STC BSWAP and short immediates are all register work.
    let patterns: [&[u8]; 12] = [
        &[0x98],
        &[0x66, 0x98],
        &[0x99],
        &[0x66, 0x99],
        &[0x9e],
        &[0x9f],
        &[0xf5],
        &[0xf8],
        &[0xf9],
        &[0x0f, 0xc8],
        &[0x0f, 0xcb],
        &[0x93],
    ];
    for pattern in patterns {
        for _ in 0..ROUNDS {
            compare(&page, &mut random, pattern);
        }
    }
}
