//! The timer page: time since power-on in large digits, ticks, and the CMOS clock.

use super::look::*;
use super::page;
use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::cmos;
use crate::demo::font;
use crate::demo::interrupt;
use crate::demo::memory::*;
use crate::demo::screen::{Screen, cell};
use iced_x86::code_asm::*;

const DIGITS: i32 = cell(6, 8);
/// Cells from one large digit to the next, and from a row of cells to the next, in bytes.
const DIGIT_BYTES: i32 = 16;
const ROW_BYTES: i32 = 160;
const COLON: i32 = 10;
const BAR_CELL: i32 = cell(12, 8);
const BAR_CELLS: i32 = 64;
const TICKS_CELL: i32 = cell(15, 26);
const TSC_CELL: i32 = cell(16, 26);
const RTC_CELL: i32 = cell(17, 26);
const DIGIT_ATTRIBUTE: i32 = 0x0B;

fn screen() -> Screen {
    let mut screen = page("timer and clock", "Any key: back to the menu");
    screen.window(3, 4, 18, 72, WINDOW, " Time since power-on, from IRQ 0 ");
    screen.text(15, 8, LABEL, "Ticks (8254)");
    screen.text(16, 8, LABEL, "Time-stamp count");
    screen.text(17, 8, LABEL, "Clock (MC146818)");
    screen
}

/// Emits `clock.page`.
pub fn emit(a: &mut Asm) -> AsmResult {
    let screen = a.bytes(&screen().into_bytes());
    let glyphs: Vec<u8> = font::encode("0123456789:").into_iter().flat_map(font::glyph).collect();
    let glyphs = a.bytes(&glyphs);
    // By two pixels: upper one in bit 0, lower one in bit 1.
    let blocks = a.bytes(&font::encode(" ▀▄█"));
    asm! { a;
        at("clock.page");
        mov(si, screen); call("print.screen"); mov(dword_ptr(LAST_TICK), -1);
        at(".idle");
        hlt(); call("demo.tick"); jc(".key");
        call("demo.seconds");
        xor(edx, edx); mov(ecx, 60); div(ecx); push(dx); xor(edx, edx); div(ecx); push(dx);
        mov(di, DIGITS); mov(bl, DIGIT_ATTRIBUTE);
        call(".pair"); mov(al, COLON); call(".digit");
        pop(ax); call(".pair"); mov(al, COLON); call(".digit");
        pop(ax); call(".pair");

        // One cell more at each tick.
        mov(di, BAR_CELL); mov(cx, BAR_CELLS); mov(dx, word_ptr(TICKS)); and(dx, BAR_CELLS - 1);
        mov(ax, i32::from(GOOD) << 8 | 0xDB);
        at(".bar");
        test(dx, dx); jnz(".full"); mov(ax, i32::from(LABEL) << 8 | 0xB0); jmp(".cell");
        at(".full");
        dec(dx);
        at(".cell");
        stosw(); loop_(".bar");

        mov(bl, i32::from(VALUE)); mov(di, TICKS_CELL); mov(eax, dword_ptr(TICKS)); call("print.decimal");
        rdtsc(); push(eax); mov(eax, edx); mov(di, TSC_CELL); call(".hex"); pop(eax); call(".hex");
        mov(al, cmos::STATUS_A); call("demo.cmos"); test(al, cmos::UPDATE_IN_PROGRESS); jnz(".key");
        mov(di, RTC_CELL);
        mov(al, cmos::HOURS); call("demo.cmos"); call("print.hex"); mov(al, i32::from(b':')); call("print.character");
        mov(al, cmos::MINUTES); call("demo.cmos"); call("print.hex"); mov(al, i32::from(b':')); call("print.character");
        mov(al, cmos::SECONDS); call("demo.cmos"); call("print.hex");
        at(".key");
        mov(ah, 1); int(interrupt::KEYBOARD); jz(".idle");
        xor(ah, ah); int(interrupt::KEYBOARD); ret();

        // EAX as eight hexadecimal digits.
        at(".hex");
        mov(cx, 4);
        at(".hex_byte");
        rol(eax, 8); push(eax); call("print.hex"); pop(eax); loop_(".hex_byte");
        ret();

        // AL as two large digits at DI.
        at(".pair");
        aam(10); push(ax); mov(al, ah); call(".digit"); pop(ax);
        at(".digit");
        push(di); xor(ah, ah); mov(si, ax); shl(si, 3); add(si, glyphs); mov(ch, 4);
        at(".row");
        mov(dx, word_ptr(si).cs()); add(si, 2); mov(cl, 8);
        at(".dot");
        xor(ax, ax); shl(dh, 1); rcl(al, 1); shl(dl, 1); rcl(al, 1);
        mov(bp, ax); mov(al, byte_ptr(bp + blocks).cs()); mov(ah, bl); stosw();
        dec(cl); jnz(".dot");
        add(di, ROW_BYTES - DIGIT_BYTES); dec(ch); jnz(".row");
        pop(di); add(di, DIGIT_BYTES); ret();
    }
    Ok(())
}
