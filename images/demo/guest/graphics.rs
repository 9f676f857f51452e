//! Mode 13h: a plasma pattern whose palette turns with the timer.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::vga;
use crate::demo::font;
use crate::demo::interrupt;
use crate::demo::memory::*;
use iced_x86::code_asm::*;

const WIDTH: i32 = 320;
const HEIGHT: i32 = 200;
const LEGEND: &str = " Mode 13h, 320x200x256 - any key: menu  ";
const LEGEND_TOP: i32 = 188;
const WHITE: i32 = 0xFF;
/// Colours that the palette turns by at each tick.
const STEP: i32 = 4;

/// One wave, 0 to 84: three of them stay below 255, the legend's colour.
fn wave() -> Vec<u8> {
    (0..256).map(|i| (42.0 + 42.0 * (f64::from(i) / 256.0 * std::f64::consts::TAU).sin()) as u8).collect()
}

/// Emits `graphics.page`.
pub fn emit(a: &mut Asm) -> AsmResult {
    let wave = a.bytes(&wave());
    let legend: Vec<u8> = font::encode(LEGEND).into_iter().take(40).flat_map(font::glyph).collect();
    let letters = (legend.len() / 8) as i32;
    let legend = a.bytes(&legend);
    let shown = a.text("demo: mode 13h\n");
    asm! { a;
        at("graphics.page");
        call("video.graphics");
        mov(bx, word_ptr(PALETTE_PHASE)); call("video.rotate");
        mov(ax, vga::GRAPHICS_SEGMENT); mov(es, ax);
        // Each line is made in memory and copied as a whole.
        xor(dx, dx);
        at(".line");
        push(es); push(0); pop(es); mov(di, SECTOR_BUFFER); xor(cx, cx);
        at(".pixel");
        xor(bx, bx); mov(bl, cl); mov(al, byte_ptr(bx + wave).cs());
        mov(bl, dl); add(bl, dl); add(al, byte_ptr(bx + wave).cs());
        mov(bl, cl); add(bl, dl); mov(ah, dl); shr(ah, 1); add(bl, ah); add(al, byte_ptr(bx + wave).cs());
        inc(al); stosb();
        inc(cx); cmp(cx, WIDTH); jb(".pixel");
        pop(es);
        imul_3(di, dx, WIDTH); mov(si, SECTOR_BUFFER); mov(cx, WIDTH / 2); rep_movsw();
        inc(dx); cmp(dx, HEIGHT); jb(".line");

        mov(di, LEGEND_TOP * WIDTH); xor(al, al); mov(cx, WIDTH * 12); rep_stosb();
        mov(si, legend); mov(di, (LEGEND_TOP + 2) * WIDTH); mov(bp, letters);
        at(".letter");
        mov(dh, 8); push(di);
        at(".row");
        mov(dl, byte_ptr(si).cs()); inc(si); mov(cx, 8);
        at(".dot");
        shl(dl, 1); sbb(al, al); and(al, WHITE); stosb(); loop_(".dot");
        add(di, WIDTH - 8); dec(dh); jnz(".row");
        pop(di); add(di, 8); dec(bp); jnz(".letter");
        mov(si, shown); call("debug.print");

        at(".idle");
        hlt(); mov(eax, dword_ptr(TICKS)); cmp(eax, dword_ptr(LAST_TICK)); je(".same");
        mov(dword_ptr(LAST_TICK), eax);
        add(byte_ptr(PALETTE_PHASE), STEP); mov(bx, word_ptr(PALETTE_PHASE)); call("video.rotate");
        at(".same");
        mov(ah, 1); int(interrupt::KEYBOARD); jz(".idle");
        xor(ah, ah); int(interrupt::KEYBOARD);
        call("video.text"); ret();
    }
    Ok(())
}
