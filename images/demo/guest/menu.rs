//! The first screen: what this machine is, and what the demo can show.

use super::look::*;
use super::{UPTIME, page};
use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::{cmos, kbc};
use crate::demo::interrupt;
use crate::demo::memory::*;
use crate::demo::screen::{Screen, cell};
use iced_x86::code_asm::*;

const ITEMS: [(&str, &str); 6] = [
    ("Text attributes", "attributes.page"),
    ("Graphics, mode 13h", "graphics.page"),
    ("Keyboard echo", "echo.page"),
    ("Timer and clock", "clock.page"),
    ("Floppy sector 0", "sector.page"),
    ("Port benchmark", "bench.page"),
];
const ITEMS_ROW: usize = 11;
const MACHINE_ROW: usize = 11;
const MACHINE_COLUMN: usize = 37;
const VALUE_COLUMN: usize = MACHINE_COLUMN + 12;
/// Time stamps per 10 ms of a 1 MHz counter.
const COUNTS_PER_MHZ: i32 = 10_000;
/// PIT input clock, and clocks per tick: what turns ticks into seconds.
const PIT_HZ: i32 = 1_193_182;
const PIT_CLOCKS_PER_TICK: i32 = 65_536;

/// Cell of the value in a row of the machine window.
const fn value(row: usize) -> i32 {
    cell(MACHINE_ROW + row, VALUE_COLUMN)
}

fn screen() -> Screen {
    let mut screen = page("built-in demo", "Press 1 to 6");
    screen.banner(3, 4, [0x1B, 0x1B, 0x13, 0x19], "VMSim");
    screen.text(3, 49, TEXT, "A virtual i386 PC");
    screen.text(4, 49, TEXT, "in pure software.");
    screen.text(5, 49, FAINT, "Every device model runs");
    screen.text(6, 49, FAINT, "in a process of its own.");
    screen.window(9, 4, 10, 28, WINDOW, " Menu ");
    for (index, (title, _)) in ITEMS.iter().enumerate() {
        screen.text(ITEMS_ROW + index, 7, KEY, &format!("{}", index + 1));
        screen.text(ITEMS_ROW + index, 10, VALUE, title);
    }
    screen.window(9, 35, 10, 41, WINDOW, " This machine ");
    for (row, label) in ["Processor", "Memory", "Timer", "Keyboard", "Floppy A", "Video"].iter().enumerate() {
        screen.text(MACHINE_ROW + row, MACHINE_COLUMN, LABEL, label);
    }
    screen.text(MACHINE_ROW + 5, VALUE_COLUMN, VALUE, "VGA, 80x25 text, font 8x16");
    screen.text(20, 4, FAINT, "This ROM and this demo were assembled from the project's own sources.");
    screen.text(21, 4, FAINT, "With a bootable floppy in drive A, the ROM starts that instead.");
    screen
}

/// Emits `demo.start`, `demo.menu`, and what pages share: `demo.tick`, `demo.seconds`, `demo.key`.
pub fn emit(a: &mut Asm) -> AsmResult {
    let screen = a.bytes(&screen().into_bytes());
    let pages = a.table(&ITEMS.map(|(_, label)| label));
    let started = a.text("demo: menu\n");
    asm! { a;
        at("demo.start");
        xor(ax, ax); mov(ds, ax); cli(); mov(ss, ax); mov(sp, STACK_TOP); sti(); cld();
        mov(si, started); call("debug.print");
        call("video.text");
        mov(dword_ptr(LAST_TICK), -1);
        at("demo.menu");
        mov(si, screen); call("print.screen");
        call("demo.machine");
        at(".idle");
        hlt();
        call("demo.tick");
        mov(di, value(2) + 2 * 15); mov(bl, i32::from(VALUE)); mov(eax, dword_ptr(TICKS)); call("print.decimal");
        mov(ah, 1); int(interrupt::KEYBOARD); jz(".idle");
        xor(ah, ah); int(interrupt::KEYBOARD);
        sub(al, i32::from(b'1')); cmp(al, ITEMS.len() as i32); jae(".idle");
        xor(ah, ah); mov(si, ax); shl(si, 1); call_through(word_ptr(si + pages).cs());
        jmp("demo.menu");
    }
    machine(a)?;
    shared(a)
}

fn machine(a: &mut Asm) -> AsmResult {
    let megahertz = a.text(" MHz");
    let base = a.text("640 KiB + ");
    let mebibytes = a.text(" MiB");
    let ticking = a.text("18.2 Hz, tick");
    let passed = a.text("8042, self-test passed");
    let silent = a.text("8042 does not answer");
    let none = a.text("no medium");
    let sectors = a.text(" sectors per track");
    asm! { a;
        at("demo.machine");
        // CPUID function 0: the vendor is EBX, EDX, ECX.
        xor(eax, eax); cpuid(); push(ecx); push(edx); push(ebx);
        mov(di, value(0)); mov(cx, 3);
        at(".part");
        pop(edx); mov(bp, 4);
        at(".letter");
        mov(al, dl); mov(ah, i32::from(VALUE)); stosw(); shr(edx, 8); dec(bp); jnz(".letter");
        loop_(".part");
        add(di, 4);
        mov(bl, i32::from(VALUE));
        mov(eax, dword_ptr(TSC_PER_10MS)); xor(edx, edx); mov(ecx, COUNTS_PER_MHZ); div(ecx); call("print.decimal");
        mov(si, megahertz); call("print.text");

        mov(di, value(1)); mov(si, base); call("print.text");
        mov(al, cmos::ABOVE_16M_HIGH); call("demo.cmos"); mov(ah, al); mov(al, cmos::ABOVE_16M_LOW);
        call("demo.cmos"); test(ax, ax); jz(".small");
        // In 64 KiB units above 16 MiB; the first mebibyte is the base memory's.
        shr(ax, 4); add(ax, 15); jmp(".size");
        at(".small");
        mov(al, cmos::EXTENDED_HIGH); call("demo.cmos"); mov(ah, al); mov(al, cmos::EXTENDED_LOW);
        call("demo.cmos"); shr(ax, 10);
        at(".size");
        movzx(eax, ax); call("print.decimal"); mov(si, mebibytes); call("print.text");

        mov(di, value(2)); mov(si, ticking); call("print.text");

        mov(di, value(3)); mov(bl, i32::from(GOOD)); mov(si, passed);
        cmp(byte_ptr(KEYBOARD_TEST), kbc::SELF_TEST_PASSED); je(".keyboard");
        mov(bl, i32::from(BAD)); mov(si, silent);
        at(".keyboard");
        call("print.text");

        mov(di, value(4)); mov(bl, i32::from(VALUE)); mov(si, none);
        movzx(eax, byte_ptr(FLOPPY_SPT)); test(al, al); jz(".floppy");
        call("print.decimal"); mov(si, sectors);
        at(".floppy");
        call("print.text");
        ret();

        // AL = CMOS byte AL; AH stays.
        at("demo.cmos");
        out_al(cmos::INDEX); in_al(cmos::DATA); ret();
    }
    Ok(())
}

fn shared(a: &mut Asm) -> AsmResult {
    asm! { a;
        // EAX = seconds since power-on.
        at("demo.seconds");
        mov(eax, dword_ptr(TICKS)); mov(ecx, PIT_CLOCKS_PER_TICK); mul(ecx); mov(ecx, PIT_HZ); div(ecx); ret();

        // Refreshes the top bar when the tick changed. CF: it did not.
        at("demo.tick");
        mov(eax, dword_ptr(TICKS)); cmp(eax, dword_ptr(LAST_TICK)); je(".same");
        mov(dword_ptr(LAST_TICK), eax);
        call("demo.seconds");
        mov(di, UPTIME); mov(bl, i32::from(BAR));
        xor(edx, edx); mov(ecx, 60); div(ecx); push(dx);
        xor(edx, edx); div(ecx); push(dx);
        call("print.two"); mov(al, i32::from(b':')); call("print.character");
        pop(ax); call("print.two"); mov(al, i32::from(b':')); call("print.character");
        pop(ax); call("print.two"); clc(); ret();
        at(".same");
        stc(); ret();

        // Sleeps until a key is pressed: AX; keeps the top bar running.
        at("demo.key");
        hlt(); call("demo.tick"); mov(ah, 1); int(interrupt::KEYBOARD); jz("demo.key");
        xor(ah, ah); int(interrupt::KEYBOARD); ret();
    }
    Ok(())
}
