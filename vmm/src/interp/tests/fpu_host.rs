//! Every x87 instruction against the processor that this test runs on: random contents of the whole unit, full and
//! empty registers, masked and unmasked exceptions; afterwards all of the unit's state, memory, AX and flags.
#![expect(unsafe_code, reason = "runs generated machine code")]

use super::host::CodePage;
use super::{Bench, CODE, DATA};
use crate::cpu::fpu::{FpuState, fcw, fsw, tag};
use crate::cpu::registers::{cr0, eflags};
use crate::interp::Exit;
use crate::softfloat::F80;
use crate::softfloat::tests::Random;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::ffi::c_void;

/// Tests per opcode.
const ROUNDS: usize = 400;
/// Bytes of memory that an instruction can use.
const MEMORY: usize = 128;

/// FNSAVE's image.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    control: u32,
    status: u32,
    tags: u32,
    pointers: [u32; 4],
    registers: [[u8; 10]; 8],
}

/// What an instruction sees and changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    image: Image,
    memory: [u8; MEMORY],
    /// EFLAGS, then EAX.
    flags: [u64; 2],
}

fn run_on_host(page: &CodePage, instruction: &[u8], machine: &mut Machine) {
    let mut code = vec![
        0x48, 0x8b, 0x57, 0x10, // mov rdx, [rdi + 16]
        0x48, 0x8b, 0x77, 0x08, // mov rsi, [rdi + 8]
        0x48, 0x8b, 0x3f, // mov rdi, [rdi]
        0xff, 0x32, 0x9d, // push qword [rdx]; popfq
        0xdd, 0x27, // frstor [rdi]
    ];
    code.extend(instruction);
    code.extend([
        0x89, 0x42, 0x08, // mov [rdx + 8], eax
        0x9c, 0x58, 0x48, 0x89, 0x02, // pushfq; pop rax; mov [rdx], rax
        0xdd, 0x37, // fnsave [rdi]
        0xc3, // ret
    ]);
    // Three pointers for the code.
    let Machine { image, memory, flags } = machine;
    let mut frame: [*mut c_void; 3] =
        [(&raw mut *image).cast(), (&raw mut *memory).cast(), (&raw mut *flags).cast()];
    // SAFETY: the code is a function of the C calling convention. It touches what the three pointers in the frame
    // point to, and the unit, which FNSAVE leaves as that convention has it. The instruction in the middle is an x87
    // instruction that addresses at most MEMORY bytes at RSI; no exception is pending when it starts.
    unsafe { page.call(&code, (&raw mut frame).cast()) };
}

fn value(bytes: [u8; 10]) -> F80 {
    let significand = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    F80 { significand, sign_exponent: u16::from_le_bytes(bytes[8..].try_into().unwrap()) }
}

fn bytes(value: F80) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&value.significand.to_le_bytes());
    bytes[8..].copy_from_slice(&value.sign_exponent.to_le_bytes());
    bytes
}

fn unit_of(image: &Image) -> FpuState {
    let mut unit = FpuState::at_reset();
    unit.control = image.control as u16;
    unit.status = image.status as u16;
    for (i, register) in image.registers.into_iter().enumerate() {
        unit.set_st(i as u8, value(register));
    }
    unit.set_tag_word(image.tags as u16);
    unit
}

fn image_of(unit: &FpuState) -> Image {
    Image {
        control: 0xffff_0000 | u32::from(unit.control),
        status: 0xffff_0000 | u32::from(unit.status),
        tags: 0xffff_0000 | u32::from(unit.tag_word()),
        pointers: [0; 4],
        registers: std::array::from_fn(|i| bytes(unit.st(i as u8))),
    }
}

fn random_machine(random: &mut Random) -> Machine {
    let masks = if random.below(2) == 0 { fcw::MASKS } else { random.next() as u16 & fcw::MASKS };
    // Reserved precision controls are none.
    let precision = [0, 2, 3, 3][random.below(4) as usize] << fcw::PC_SHIFT;
    let control = masks | precision | random.next() as u16 & fcw::RC | fcw::FIXED_ONE;
    // Flags only of what is masked: nothing is pending.
    let flags = if random.below(2) == 0 { 0 } else { random.next() as u16 & control & fsw::EXCEPTIONS };
    let status = flags | random.next() as u16 & (fsw::TOP | fsw::CONDITIONS | fsw::SF);
    let mut tags = 0;
    for n in 0..8 {
        if random.below(4) == 0 {
            tags |= tag::EMPTY << (2 * n);
        }
    }
    if random.below(4) == 0 {
        tags = if random.below(2) == 0 { 0 } else { 0xffff };
    }
    let mut registers = [[0; 10]; 8];
    let mut last = F80::ONE;
    for register in &mut registers {
        last = random.extended(last);
        *register = bytes(last);
    }
    let mut memory = [0; MEMORY];
    memory.fill_with(|| random.next() as u8);
    // An operand of one of the formats that can be there.
    let near = u64::MAX >> 2;
    let operand = match random.below(4) {
        0 => bytes(F80 { significand: random.float(8, 23, near), sign_exponent: 0 }),
        1 => bytes(F80 { significand: random.float(11, 52, near), sign_exponent: 0 }),
        2 => bytes(random.extended(F80::ONE)),
        _ => {
            let mut digits = [0; 10];
            digits.fill_with(|| (random.below(10) << 4 | random.below(10)) as u8);
            digits[9] = (random.below(2) << 7) as u8;
            digits
        }
    };
    memory[..10].copy_from_slice(&operand);
    Machine {
        image: Image {
            control: 0xffff_0000 | u32::from(control),
            status: 0xffff_0000 | u32::from(status),
            tags: 0xffff_0000 | u32::from(tags),
            pointers: [0; 4],
            registers,
        },
        memory,
        flags: [u64::from(random.next() as u32 & eflags::ARITHMETIC | eflags::FIXED), 0],
    }
}

fn run_here(bench: &mut Bench, instruction: &[u8], machine: &mut Machine) {
    let mut code = instruction.to_vec();
    code.push(0xf4);
    bench.cpu.bus.load(u64::from(CODE), &code);
    bench.interp.forget_code(&mut bench.cpu);
    bench.cpu.bus.load(u64::from(DATA), &machine.memory);
    bench.cpu.state.eip = CODE;
    bench.cpu.state.activity = Default::default();
    bench.cpu.state.gpr = [0; 8];
    bench.cpu.state.gpr[6] = DATA;
    bench.cpu.state.cr0 |= cr0::NE;
    bench.cpu.state.fpu = unit_of(&machine.image);
    bench.cpu.set_flags(machine.flags[0] as u32);
    assert_eq!(bench.interp.run(&mut bench.cpu, 10), Exit::Halted, "{instruction:02x?}");
    assert_eq!(bench.cpu.state.eip, CODE + code.len() as u32, "{instruction:02x?}");
    machine.image = image_of(&bench.cpu.state.fpu);
    machine.flags = [bench.cpu.flags().into(), bench.cpu.state.gpr[0].into()];
    for (i, byte) in machine.memory.iter_mut().enumerate() {
        *byte = bench.cpu.bus.peek16(u64::from(DATA) + i as u64) as u8;
    }
}

/// Status bits after an instruction in which processors differ.
fn undefined(mnemonic: Mnemonic, after: &Image) -> u32 {
    use Mnemonic::*;
    let unmasked_invalid = after.status & !after.control & 1 != 0;
    let bits = match mnemonic {
        // Intel's processors leave the codes alone (SDM vol. 2, "Operation"), AMD's do not.
        Fcom | Fcomp | Fcompp | Fucom | Fucomp | Fucompp | Ficom | Ficomp | Ftst if unmasked_invalid => {
            fsw::CONDITIONS
        }
        // Intel's clear C1 (SDM vol. 2, "FPU Flags Affected"), AMD's do not.
        Fcomi | Fcomip | Fucomi | Fucomip => fsw::C1,
        _ => 0,
    };
    bits.into()
}

/// The instructions to be compared: one or two opcode bytes, with memory at ESI.
fn instructions() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for opcode in 0xd8..=0xdfu8 {
        let memory = (0..8).map(|reg| reg << 3 | 6);
        for modrm in memory.chain(0xc0..=0xff) {
            let bytes = [opcode, modrm];
            let instruction = Decoder::new(32, &bytes, DecoderOptions::NONE).decode();
            match instruction.mnemonic() {
                Mnemonic::INVALID => {}
                // Of a later processor.
                Mnemonic::Fisttp => {}
                // Not of this one.
                Mnemonic::Fneni | Mnemonic::Fndisi | Mnemonic::Fnsetpm | Mnemonic::Frstpm => {}
                _ => all.push(bytes.to_vec()),
            }
        }
    }
    all
}

/// The words of a difference.
fn difference(instruction: &str, before: &Machine, expected: &Machine, found: &Machine) -> String {
    let mut text = format!("{instruction}\nbefore: {}", brief(before));
    text.push_str(&format!("\nhost:   {}\nfound:  {}", brief(expected), brief(found)));
    for (i, (a, b)) in expected.image.registers.iter().zip(&found.image.registers).enumerate() {
        if a != b {
            text.push_str(&format!("\nST({i}): {:x?}, not {:x?}", value(*b), value(*a)));
        }
    }
    let differing = expected.memory.iter().zip(&found.memory).position(|(a, b)| a != b);
    if let Some(at) = differing {
        text.push_str(&format!(
            "\nmemory from {at}: {:x?}, not {:x?}",
            &found.memory[at..],
            &expected.memory[at..]
        ));
    }
    text
}

fn brief(machine: &Machine) -> String {
    let Machine { image, memory, flags } = machine;
    let st = |n: usize| {
        let F80 { significand, sign_exponent } = value(image.registers[n]);
        format!("{sign_exponent:04x}.{significand:016x}")
    };
    let (control, status, tags) = (image.control, image.status, image.tags);
    let operand = &memory[..10];
    format!("{control:x} {status:x} {tags:x} {} {} {operand:x?} {flags:x?}", st(0), st(1))
}

#[test]
fn instructions_agree_with_the_host() {
    let page = CodePage::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut bench = Bench::flat(&[]);
    let mut failures = Vec::new();
    for bytes in instructions() {
        let instruction = Decoder::new(32, &bytes, DecoderOptions::NONE).decode();
        let mut failed = 0;
        for _ in 0..ROUNDS {
            let before = random_machine(&mut random);
            let mut expected = before.clone();
            let mut found = before.clone();
            run_here(&mut bench, &bytes, &mut found);
            run_on_host(&page, &bytes, &mut expected);
            expected.image.pointers = [0; 4];
            expected.flags[0] &= u64::from(eflags::ARITHMETIC | eflags::FIXED);
            // RAX is whatever the host had there, but for FNSTSW AX.
            let mask = if bytes == [0xdf, 0xe0] { 0xffff } else { 0 };
            expected.flags[1] &= mask;
            found.flags[1] &= mask;
            if matches!(instruction.mnemonic(), Mnemonic::Fnstenv | Mnemonic::Fnsave) {
                // Pointers are not those of this code.
                expected.memory[12..28].copy_from_slice(&found.memory[12..28]);
            }
            let undefined = undefined(instruction.mnemonic(), &expected.image);
            expected.image.status |= undefined;
            found.image.status |= undefined;
            if expected != found {
                failed += 1;
                if failed == 1 {
                    failures.push(difference(
                        &format!("{instruction} {bytes:02x?}"),
                        &before,
                        &expected,
                        &found,
                    ));
                }
            }
        }
        if failed > 0 {
            let last = failures.last_mut().unwrap();
            last.push_str(&format!("\n{failed} of {ROUNDS}"));
        }
    }
    assert!(failures.is_empty(), "{} instructions differ:\n{}", failures.len(), failures.join("\n"));
}
