//! Output straight into text memory: ES:DI is the cell, BL the attribute.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::vga;
use crate::demo::screen;
use iced_x86::code_asm::*;

/// Emits `print.screen`, `print.text`, `print.decimal`, `print.two`, `print.hex`, `print.character`.
pub fn emit(a: &mut Asm) -> AsmResult {
    let digits = a.bytes(b"0123456789ABCDEF");
    asm! { a;
        // The prepared screen at CS:SI; hides the cursor, leaves ES at text memory.
        at("print.screen");
        mov(ax, vga::TEXT_SEGMENT); mov(es, ax); xor(di, di);
        push(ds); push(cs); pop(ds); mov(cx, (screen::BYTES / 2) as i32); rep_movsw(); pop(ds);
        mov(dx, vga::CRTC); mov(ax, vga::CURSOR_OFF << 8 | vga::CRTC_CURSOR_START); out(dx, ax);
        ret();

        at("print.text");
        mov(ah, bl);
        at(".next");
        mov(al, byte_ptr(si).cs()); inc(si); test(al, al); jz(".end"); stosw(); jmp(".next");
        at(".end");
        ret();

        at("print.character");
        mov(ah, bl); stosw(); ret();

        // EAX in decimal; changes EAX, ECX, EDX, SI.
        at("print.decimal");
        call("decimal.digits"); mov(ah, bl);
        at(".digit");
        lodsb(); test(al, al); jz(".end"); stosw(); jmp(".digit");
        at(".end");
        ret();

        // AL as two decimal digits.
        at("print.two");
        aam(10); push(ax); mov(al, ah); add(al, i32::from(b'0')); call("print.character");
        pop(ax); add(al, i32::from(b'0')); call("print.character"); ret();

        // AL as two hexadecimal digits; changes AX.
        at("print.hex");
        push(si); push(ax); shr(al, 4); call(".nibble"); pop(ax); and(al, 0x0F); call(".nibble"); pop(si); ret();
        at(".nibble");
        xor(ah, ah); mov(si, ax); mov(al, byte_ptr(si + digits).cs()); call("print.character"); ret();
    }
    Ok(())
}
