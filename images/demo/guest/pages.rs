//! The text pages: attributes, keyboard echo, floppy sector, benchmark.

use super::look::*;
use super::page;
use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::interrupt;
use crate::demo::memory::*;
use crate::demo::screen::{Screen, cell};
use iced_x86::code_asm::*;

const BACK: &str = "Any key: back to the menu";
const ESCAPE: i32 = 0x1B;
const ENTER: i32 = 0x0D;
const BACKSPACE: i32 = 0x08;
const ROW_BYTES: i32 = 160;
/// Where typed text goes.
const ECHO: (usize, usize, usize, usize) = (5, 6, 13, 68);
const ECHO_FIRST: i32 = cell(ECHO.0, ECHO.1);
const ECHO_END: i32 = cell(ECHO.0 + ECHO.2, ECHO.1);
const ECHO_WIDTH: i32 = (ECHO.3 * 2) as i32;
const SCAN_CODE_CELL: i32 = cell(20, 17);
const ASCII_CELL: i32 = cell(20, 30);
const DUMP_FIRST: i32 = cell(5, 5);
const DUMP_ROWS: i32 = 16;
const DUMP_STATUS: i32 = cell(22, 5);
const DUMP_MESSAGE: i32 = cell(11, 30);

fn attributes() -> Screen {
    let mut screen = page("text attributes", BACK);
    screen.window(3, 6, 20, 68, WINDOW, " All 256 attributes (backgrounds 8 to F blink) ");
    for attribute in 0..=255u8 {
        let (row, column) = (5 + usize::from(attribute >> 4), 8 + 4 * usize::from(attribute & 15));
        screen.text(row, column, attribute, &format!(" {attribute:02X} "));
    }
    screen
}

fn echo() -> Screen {
    let mut screen = page("keyboard echo", "Esc: back to the menu");
    screen.window(3, 4, 19, 72, WINDOW, " Type something ");
    screen.text(20, 6, LABEL, "Scan code");
    screen.text(20, 24, LABEL, "ASCII");
    screen.fill(18, 5, 1, 70, '─', WINDOW);
    screen
}

fn sector() -> Screen {
    let mut screen = page("floppy sector 0", "Space: other half   Any other key: back to the menu");
    screen.window(3, 3, 20, 74, WINDOW, " Drive A, cylinder 0, head 0, sector 1 ");
    screen
}

fn bench() -> Screen {
    let mut screen = page("port benchmark", "Measuring...");
    screen.text(3, 0, TEXT, "Port accesses, average of 20,000 each, in virtual time:");
    screen.fill(4, 0, 10, 80, ' ', VALUE);
    for (row, text) in [
        "trapped read   IN 40h: the timer's process must answer",
        "posted write   OUT 80h: goes into a ring, the guest runs on",
        "mirrored read  IN 80h: answered from the device's published state",
    ]
    .iter()
    .enumerate()
    {
        screen.text(17 + row, 0, FAINT, text);
    }
    screen
}

/// Emits the four pages.
pub fn emit(a: &mut Asm) -> AsmResult {
    let attributes = a.bytes(&attributes().into_bytes());
    asm! { a;
        at("attributes.page");
        mov(si, attributes); call("print.screen"); call("demo.key"); ret();
    }
    emit_echo(a)?;
    emit_sector(a)?;
    let bench = a.bytes(&bench().into_bytes());
    let done = a.text(BACK);
    asm! { a;
        at("bench.page");
        mov(si, bench); call("print.screen");
        mov(ah, 0x02); xor(bh, bh); mov(dx, 0x0500); int(interrupt::VIDEO);
        call("bench.run");
        mov(di, cell(24, 2)); mov(bl, i32::from(BAR)); mov(si, done); call("print.text");
        call("demo.key"); ret();
    }
    Ok(())
}

fn emit_echo(a: &mut Asm) -> AsmResult {
    let screen = a.bytes(&echo().into_bytes());
    asm! { a;
        at("echo.page");
        mov(si, screen); call("print.screen"); mov(word_ptr(ECHO_CELL), ECHO_FIRST);
        at(".next");
        // A block marks the place of the next character.
        mov(di, word_ptr(ECHO_CELL)); mov(byte_ptr(di).es(), 0xDB); mov(byte_ptr(di + 1).es(), i32::from(KEY));
        call("demo.key");
        mov(bl, i32::from(VALUE)); push(ax); mov(al, ah); mov(di, SCAN_CODE_CELL); call("print.hex");
        pop(ax); push(ax); mov(di, ASCII_CELL); call("print.hex"); pop(ax);
        mov(di, word_ptr(ECHO_CELL)); mov(byte_ptr(di).es(), 0x20);
        cmp(al, ESCAPE); je(".end");
        cmp(al, BACKSPACE); je(".back");
        cmp(al, ENTER); je(".enter");
        cmp(al, 0x20); jb(".next");
        mov(bl, i32::from(VALUE)); call("print.character"); call(".column");
        test(dx, dx); jz(".new_row");
        at(".place");
        mov(word_ptr(ECHO_CELL), di); jmp(".next");
        at(".end");
        ret();

        at(".back");
        call(".column"); test(dx, dx); jz(".next");
        sub(di, 2); mov(byte_ptr(di).es(), 0x20); jmp(".place");

        at(".enter");
        call(".column"); sub(di, dx); add(di, ECHO_WIDTH);
        at(".new_row");
        add(di, ROW_BYTES - ECHO_WIDTH); cmp(di, ECHO_END); jb(".place");
        // Full: begin again on an empty field.
        mov(di, ECHO_FIRST); mov(bp, ECHO.2 as i32); mov(ax, i32::from(VALUE) << 8 | 0x20);
        at(".wipe");
        mov(cx, ECHO.3 as i32); rep_stosw(); add(di, ROW_BYTES - ECHO_WIDTH); dec(bp); jnz(".wipe");
        mov(di, ECHO_FIRST); jmp(".place");

        // DX = bytes from the field's left edge to DI, zero also just beyond its right edge.
        at(".column");
        mov(ax, di); sub(ax, ECHO_FIRST); xor(dx, dx); mov(cx, ROW_BYTES); div(cx);
        cmp(dx, ECHO_WIDTH); jb(".inside"); xor(dx, dx);
        at(".inside");
        ret();
    }
    Ok(())
}

fn emit_sector(a: &mut Asm) -> AsmResult {
    let screen = a.bytes(&sector().into_bytes());
    let reading = a.text("Reading...");
    let good = a.text("Read by INT 13h: 82077AA, DMA channel 2, IRQ 6");
    let none = a.text("No floppy in drive A");
    let status = a.text("INT 13h status ");
    let log_good = a.text("demo: sector 0 read\n");
    let log_none = a.text("demo: no floppy\n");
    asm! { a;
        at("sector.page");
        mov(si, screen); call("print.screen");
        mov(di, DUMP_STATUS - ROW_BYTES); mov(bl, i32::from(LABEL)); mov(si, reading); call("print.text");
        mov(word_ptr(DUMP_HALF), 0);
        push(es); push(0); pop(es);
        mov(ax, 0x0201); mov(bx, SECTOR_BUFFER); mov(cx, 1); xor(dx, dx); int(interrupt::DISK);
        pop(es); jnc(".show");
        push(ax); mov(di, DUMP_MESSAGE); mov(bl, i32::from(BAD)); mov(si, none); call("print.text");
        mov(di, DUMP_STATUS - ROW_BYTES); mov(bl, i32::from(LABEL)); mov(si, status); call("print.text");
        pop(ax); mov(al, ah); call("print.hex");
        mov(si, log_none); call("debug.print");
        call("demo.key"); ret();

        at(".show");
        mov(si, log_good); call("debug.print");
        at(".half");
        mov(di, DUMP_STATUS - ROW_BYTES); mov(bl, i32::from(GOOD)); mov(si, good); call("print.text");
        mov(bp, DUMP_ROWS); mov(si, SECTOR_BUFFER); add(si, word_ptr(DUMP_HALF)); mov(di, DUMP_FIRST);
        at(".row");
        push(di);
        mov(ax, si); sub(ax, SECTOR_BUFFER); push(ax); mov(al, ah); mov(bl, i32::from(LABEL)); call("print.hex");
        pop(ax); call("print.hex"); add(di, 4);
        mov(bl, i32::from(VALUE)); mov(cx, 16); push(si);
        at(".byte");
        lodsb(); call("print.hex"); add(di, 2); loop_(".byte");
        pop(si); add(di, 2); mov(cx, 16); mov(ah, i32::from(KEY));
        at(".letter");
        lodsb(); cmp(al, 0x20); jb(".dot"); cmp(al, 0x7E); jbe(".visible");
        at(".dot");
        mov(al, 0xFA);
        at(".visible");
        stosw(); loop_(".letter");
        pop(di); add(di, ROW_BYTES); dec(bp); jnz(".row");
        call("demo.key"); cmp(al, 0x20); jne(".end");
        xor(word_ptr(DUMP_HALF), 256); jmp(".half");
        at(".end");
        ret();
    }
    Ok(())
}
