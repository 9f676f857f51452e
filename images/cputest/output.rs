//! Where results go: every line to port E9h and COM1, the latest ones to the screen.

use super::layout::*;
use super::runtime::{FAILED, PASSED};
use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::DEBUG_PORT;
use iced_x86::code_asm::*;

const CURSOR: i32 = STATE + 0x40;
const DIGITS_END: i32 = STATE + 0x70;
const VIDEO: i32 = 0xB_8000;
const COLUMNS_BYTES: i32 = 160;
const ROWS: i32 = 25;
const SCREEN_BYTES: i32 = COLUMNS_BYTES * ROWS;
const ATTRIBUTE: i32 = 0x07;
const UART: i32 = 0x3F8;
const LINE_STATUS: i32 = UART + 5;
const HOLDING_EMPTY: i32 = 0x20;
/// An absent port reads as all ones.
const NO_UART: i32 = 0xFF;

/// Emits `output.init`, `output.text`, `output.hex` and `output.summary`.
pub fn emit(a: &mut Asm) -> AsmResult {
    let start = a.bytes(b"CPUTEST \0");
    let passed = a.bytes(b" passed, \0");
    let failed = a.bytes(b" failed\n\0");
    asm! { a;
        at("output.init");
        // 115200 baud, 8 bits, no interrupts.
        mov(ecx, 0);
    }
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0)] {
        a.out_byte(UART + register, value)?;
    }
    asm! { a;
        mov(edi, VIDEO); mov(eax, ATTRIBUTE << 24 | ATTRIBUTE << 8 | 0x20_0020); mov(ecx, SCREEN_BYTES / 4); rep_stosd();
        mov(dword_ptr(CURSOR), 0);
        ret();

        // The zero-ended text at ESI.
        at("output.text");
        pushad();
        at(".next");
        mov(bl, byte_ptr(esi)); test(bl, bl); jz(".end");
        call("output.character"); inc(esi); jmp(".next");
        at(".end");
        popad(); ret();

        // EAX in hexadecimal.
        at("output.hex");
        pushad(); mov(ebp, eax); mov(ecx, 8);
        at(".digit");
        rol(ebp, 4); mov(ebx, ebp); and(ebx, 0xF); cmp(bl, 10); jb(".small"); add(bl, 7);
        at(".small");
        add(bl, i32::from(b'0')); push(ecx); call("output.character"); pop(ecx);
        dec(ecx); jnz(".digit");
        popad(); ret();

        // EAX in decimal.
        at("output.decimal");
        pushad(); mov(esi, DIGITS_END); mov(byte_ptr(esi), 0); mov(ecx, 10);
        at(".divide");
        xor(edx, edx); div(ecx); add(dl, i32::from(b'0')); dec(esi); mov(byte_ptr(esi), dl);
        test(eax, eax); jnz(".divide");
        call("output.text"); popad(); ret();

        // BL; changes EAX, ECX, EDX, EDI.
        at("output.character");
        mov(al, bl); out_al(DEBUG_PORT);
        mov(ecx, 0x1_0000);
        at(".busy");
        mov(edx, LINE_STATUS); in_(al, dx); cmp(al, NO_UART); je(".screen");
        test(al, HOLDING_EMPTY); jnz(".send"); dec(ecx); jnz(".busy");
        at(".send");
        mov(al, bl); mov(edx, UART); out(dx, al);
        at(".screen");
        cmp(bl, 0x0A); je(".line");
        mov(edi, dword_ptr(CURSOR)); mov(byte_ptr(edi + VIDEO), bl);
        add(edi, 2); mov(dword_ptr(CURSOR), edi); cmp(edi, SCREEN_BYTES); jae(".scroll"); ret();
        at(".line");
        xor(edx, edx); mov(eax, dword_ptr(CURSOR)); mov(ecx, COLUMNS_BYTES); div(ecx); inc(eax);
        imul_3(eax, eax, COLUMNS_BYTES); mov(dword_ptr(CURSOR), eax); cmp(eax, SCREEN_BYTES); jae(".scroll"); ret();
        at(".scroll");
        push(esi); mov(esi, VIDEO + COLUMNS_BYTES); mov(edi, VIDEO); mov(ecx, (SCREEN_BYTES - COLUMNS_BYTES) / 4); rep_movsd();
        mov(eax, ATTRIBUTE << 24 | ATTRIBUTE << 8 | 0x20_0020); mov(ecx, COLUMNS_BYTES / 4); rep_stosd(); pop(esi);
        mov(dword_ptr(CURSOR), SCREEN_BYTES - COLUMNS_BYTES); ret();

        at("output.summary");
        mov(esi, start); call("output.text");
        mov(eax, dword_ptr(PASSED)); call("output.decimal");
        mov(esi, passed); call("output.text");
        mov(eax, dword_ptr(FAILED)); call("output.decimal");
        mov(esi, failed); call("output.text");
        at(".halt");
        cli(); hlt(); jmp(".halt");
    }
    Ok(())
}
