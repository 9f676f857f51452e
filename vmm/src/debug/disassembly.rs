//! Guest code as text, in the Intel order of operands (iced's NASM form).

use super::memory::Place;
use crate::cpu::bus::Bus;
use crate::cpu::{Seg, Vcpu};
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write as _;

/// Longest instruction.
const MAX_LENGTH: usize = 15;
/// Width of the column of bytes: most instructions fit.
const BYTES_COLUMN: usize = 20;

/// `count` instructions from `start` on, one a line with its bytes.
pub fn disassemble<B: Bus>(cpu: &mut Vcpu<B>, start: Place, count: u32) -> String {
    let mut out = String::new();
    let mut place = start;
    for _ in 0..count {
        let (line, len) = instruction(cpu, place);
        // Writing to a string cannot fail.
        _ = writeln!(out, "{place}  {line}");
        if len == 0 {
            break;
        }
        place = place.after(len);
    }
    out
}

/// The bytes and the text of one instruction, and its length: 0 where there is nothing to decode.
pub fn instruction<B: Bus>(cpu: &mut Vcpu<B>, place: Place) -> (String, u32) {
    let mut bytes = Vec::with_capacity(MAX_LENGTH);
    while bytes.len() < MAX_LENGTH
        && let Some(byte) = place.after(bytes.len() as u32).read(cpu)
    {
        bytes.push(byte);
    }
    let (wide, ip) = match place {
        Place::Linear(linear) => (cpu.state.segment(Seg::Cs).big(), u64::from(linear)),
        Place::Physical(physical) => (cpu.state.segment(Seg::Cs).big(), physical),
        Place::Segment { wide, offset, .. } => (wide, u64::from(offset)),
    };
    if bytes.is_empty() {
        return ("(no memory)".into(), 0);
    }
    let mut decoder = Decoder::with_ip(if wide { 32 } else { 16 }, &bytes, ip, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let (len, text) = if decoded.is_invalid() {
        (1, "(bad)".into())
    } else {
        let mut formatter = NasmFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_small_hex_numbers_in_decimal(false);
        options.set_space_after_operand_separator(true);
        let mut text = String::new();
        formatter.format(&decoded, &mut text);
        (decoded.len(), text)
    };
    let hex: String = bytes.iter().take(len).map(|byte| format!("{byte:02x}")).collect();
    (format!("{hex:<BYTES_COLUMN$}  {text}"), len as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{protected, vcpu};

    #[test]
    fn code_is_decoded_with_the_size_of_its_segment() {
        let mut cpu = vcpu();
        // mov ax, 0x1234 / jmp short to itself in 16-bit code.
        cpu.bus.load(0x7c00, &[0xb8, 0x34, 0x12, 0xeb, 0xfe]);
        let place = Place::Segment { selector: 0x7c0, base: 0x7c00, wide: false, offset: 0 };
        assert_eq!(
            disassemble(&mut cpu, place, 2),
            "07c0:0000  b83412                mov ax, 0x1234\n\
             07c0:0003  ebfe                  jmp short 0x0003\n"
        );
        let mut cpu = protected();
        cpu.bus.load(0x7c00, &[0xb8, 0x78, 0x56, 0x34, 0x12]);
        assert_eq!(
            disassemble(&mut cpu, Place::Linear(0x7c00), 1),
            "00007c00  b878563412            mov eax, 0x12345678\n"
        );
    }

    #[test]
    fn what_is_no_code_is_shown_as_such() {
        let mut cpu = protected();
        cpu.bus.load(0x7c00, &[0x0f, 0xff, 0x90]);
        let text = disassemble(&mut cpu, Place::Linear(0x7c00), 1);
        assert!(text.contains("(bad)") || text.contains("ud0"), "{text}");
        assert_eq!(disassemble(&mut cpu, Place::Linear(0x8000_0000), 9), "80000000  (no memory)\n");
    }
}
