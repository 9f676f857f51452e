//! The VGA: modes 3 and 13h by register tables, the font, the palettes, and INT 10h.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::vga;
use crate::demo::font;
use crate::demo::memory::*;
use iced_x86::code_asm::*;

/// Functions of INT 10h (AH).
mod function {
    pub const SET_MODE: i32 = 0x00;
    pub const SET_CURSOR: i32 = 0x02;
    pub const GET_CURSOR: i32 = 0x03;
    /// Clears the whole screen here, whatever the window.
    pub const SCROLL_UP: i32 = 0x06;
    pub const WRITE_CELLS: i32 = 0x09;
    pub const TELETYPE: i32 = 0x0E;
    pub const GET_MODE: i32 = 0x0F;
}

const SEQUENCER_REGISTERS: usize = 5;
const CRTC_REGISTERS: usize = 25;
const GRAPHICS_REGISTERS: usize = 9;
const ATTRIBUTE_REGISTERS: usize = 21;

/// What the registers hold in a mode.
struct Mode {
    misc: u8,
    sequencer: [u8; SEQUENCER_REGISTERS],
    crtc: [u8; CRTC_REGISTERS],
    graphics: [u8; GRAPHICS_REGISTERS],
    attribute: [u8; ATTRIBUTE_REGISTERS],
}

/// Mode 3: 80x25 text, 720x400.
const TEXT: Mode = Mode {
    misc: 0x67,
    sequencer: [0x03, 0x00, 0x03, 0x00, 0x02],
    crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C,
        0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF],
    attribute: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C,
        0x00, 0x0F, 0x08, 0x00,
    ],
};

/// Mode 13h: 320x200 in 256 colours.
const GRAPHICS: Mode = Mode {
    misc: 0x63,
    sequencer: [0x03, 0x01, 0x0F, 0x00, 0x0E],
    crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9C,
        0x8E, 0x8F, 0x28, 0x40, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0F, 0xFF],
    attribute: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x41,
        0x00, 0x0F, 0x00, 0x00,
    ],
};

/// Index, value pairs that open plane 2 for the font, and those that give text memory back.
const OPEN_FONT_SEQUENCER: [i32; 2] = [0x0402, 0x0704];
const OPEN_FONT_GRAPHICS: [i32; 3] = [0x0204, 0x0005, 0x0406];
const CLOSE_FONT_SEQUENCER: [i32; 2] = [0x0302, 0x0204];
const CLOSE_FONT_GRAPHICS: [i32; 3] = [0x0004, 0x1005, 0x0E06];
const DAC_BYTES: usize = 768;
const NORMAL: i32 = 0x07;
const MODE_TEXT: i32 = 0x03;
const MODE_GRAPHICS: i32 = 0x13;
/// The mode number's top bit keeps what is in video memory.
const KEEP_MEMORY: i32 = 0x80;
const TEXT_CELLS: i32 = 80 * 25;
const LAST_ROW: i32 = 24;
const ROW_BYTES: i32 = 160;

impl Mode {
    /// The table that `video.program` walks over.
    fn table(&self) -> Vec<u8> {
        let mut table = vec![self.misc];
        table.extend(self.sequencer);
        table.extend(self.crtc);
        table.extend(self.graphics);
        table.extend(self.attribute);
        table
    }
}

/// The 64 colours of the EGA (two bits per gun), then a grey ramp.
fn text_palette() -> Vec<u8> {
    let ega =
        |index: u8, primary: u8, secondary: u8| ((index >> primary & 1) * 2 + (index >> secondary & 1)) * 21;
    let mut palette: Vec<u8> = (0..64).flat_map(|i| [ega(i, 2, 5), ega(i, 1, 4), ega(i, 0, 3)]).collect();
    palette.extend((0..192).flat_map(|i: u16| [(i / 3) as u8; 3]));
    palette
}

/// A smooth rainbow that closes on itself, so that it can rotate; entry 0 and 255 stay for text.
fn rainbow_palette() -> Vec<u8> {
    let gun = |index: u32, phase: f64| {
        let angle = f64::from(index) / 256.0 * std::f64::consts::TAU;
        (31.5 + 31.5 * (angle + phase).sin()) as u8
    };
    (0..256).flat_map(|i| [gun(i, 0.0), gun(i, 2.1), gun(i, 4.2)]).collect()
}

/// Emits `video.service` (INT 10h) and the routines that the guest calls:
/// `video.text`, `video.graphics` and `video.rotate`.
pub fn emit(a: &mut Asm) -> AsmResult {
    modes(a)?;
    program(a)?;
    load_font(a)?;
    palettes(a)?;
    service(a)?;
    teletype(a)
}

fn modes(a: &mut Asm) -> AsmResult {
    let text = a.bytes(&TEXT.table());
    let graphics = a.bytes(&GRAPHICS.table());
    asm! { a;
        at("video.text");
        pushad(); push(ds); push(es); push(0); pop(ds);
        mov(byte_ptr(VIDEO_MODE), MODE_TEXT); mov(word_ptr(VIDEO_COLUMNS), 80); mov(word_ptr(CURSOR), 0);
        mov(si, text); call("video.program");
        call("video.font");
        call("video.text_palette");
        call("video.clear");
        call("video.place_cursor");
        pop(es); pop(ds); popad(); ret();

        at("video.graphics");
        pushad(); push(ds); push(es); push(0); pop(ds);
        mov(byte_ptr(VIDEO_MODE), MODE_GRAPHICS); mov(word_ptr(VIDEO_COLUMNS), 40);
        mov(si, graphics); call("video.program");
        mov(ax, vga::GRAPHICS_SEGMENT); mov(es, ax);
        xor(di, di); xor(ax, ax); mov(cx, 320 * 200 / 2); rep_stosw();
        pop(es); pop(ds); popad(); ret();

        at("video.clear");
        mov(ax, vga::TEXT_SEGMENT); mov(es, ax);
        xor(di, di); mov(ax, NORMAL << 8 | 0x20); mov(cx, TEXT_CELLS); rep_stosw();
        ret();
    }
    Ok(())
}

/// `video.program`: the mode table at CS:SI into the registers.
fn program(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("video.program");
        mov(al, byte_ptr(si).cs()); inc(si); out_al(vga::MISC);
        mov(dx, vga::SEQUENCER); mov(cx, SEQUENCER_REGISTERS as i32); call(".indexed");
        // Registers 0 to 7 of the CRTC are locked by bit 7 of register 11h.
        mov(dx, vga::CRTC); mov(ax, vga::CRTC_PROTECT); out(dx, ax);
        mov(cx, CRTC_REGISTERS as i32); call(".indexed");
        mov(dx, vga::GRAPHICS); mov(cx, GRAPHICS_REGISTERS as i32); call(".indexed");
        // Reading the status sets the attribute port to "index next".
        in_al(vga::STATUS_1);
        mov(dx, vga::ATTRIBUTE); xor(ah, ah); mov(cx, ATTRIBUTE_REGISTERS as i32);
        at(".attribute");
        mov(al, ah); out(dx, al); mov(al, byte_ptr(si).cs()); out(dx, al); inc(si); inc(ah); loop_(".attribute");
        mov(al, vga::PALETTE_ON); out(dx, al);
        ret();

        at(".indexed");
        xor(al, al);
        at(".register");
        mov(ah, byte_ptr(si).cs()); inc(si); out(dx, ax); inc(al); loop_(".register");
        ret();
    }
    Ok(())
}

fn load_font(a: &mut Asm) -> AsmResult {
    let glyphs = a.bytes(&font::text_font());
    a.at("video.font")?;
    let switch = |a: &mut Asm, sequencer: [i32; 2], graphics: [i32; 3]| -> AsmResult {
        a.mov(dx, vga::SEQUENCER)?;
        for pair in sequencer {
            asm! { a; mov(ax, pair); out(dx, ax); }
        }
        a.mov(dx, vga::GRAPHICS)?;
        for pair in graphics {
            asm! { a; mov(ax, pair); out(dx, ax); }
        }
        Ok(())
    };
    switch(a, OPEN_FONT_SEQUENCER, OPEN_FONT_GRAPHICS)?;
    asm! { a;
        push(ds); push(cs); pop(ds);
        mov(ax, vga::GRAPHICS_SEGMENT); mov(es, ax); mov(si, glyphs); xor(di, di); mov(bx, 256);
        at(".glyph");
        mov(cx, (font::GLYPH_HEIGHT / 2) as i32); rep_movsw();
        add(di, (32 - font::GLYPH_HEIGHT) as i32); dec(bx); jnz(".glyph");
        pop(ds);
    }
    switch(a, CLOSE_FONT_SEQUENCER, CLOSE_FONT_GRAPHICS)?;
    a.ret()?;
    Ok(())
}

fn palettes(a: &mut Asm) -> AsmResult {
    let text = a.bytes(&text_palette());
    let rainbow = a.bytes(&rainbow_palette());
    asm! { a;
        at("video.text_palette");
        out_byte(vga::DAC_MASK, 0xFF); out_byte(vga::DAC_INDEX, 0);
        push(ds); push(cs); pop(ds);
        mov(si, text); mov(dx, vga::DAC_DATA); mov(cx, DAC_BYTES as i32); rep_outsb();
        pop(ds); ret();

        // Entries 1 to 254 from the rainbow, beginning at colour BX (0 to 255); 0 black, 255 white.
        at("video.rotate");
        push(ds); push(cs); pop(ds);
        out_byte(vga::DAC_INDEX, 0);
        mov(dx, vga::DAC_DATA); xor(al, al); out(dx, al); out(dx, al); out(dx, al);
        mov(di, 254);
        at(".entry");
        mov(si, bx); add(si, bx); add(si, bx); add(si, rainbow);
        mov(cx, 3); rep_outsb();
        inc(bx); xor(bh, bh); dec(di); jnz(".entry");
        mov(al, 0x3F); out(dx, al); out(dx, al); out(dx, al);
        pop(ds); ret();
    }
    Ok(())
}

fn service(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("video.service");
        sti(); cld(); push(ds); push(es); pusha(); mov(bp, sp);
        push(0); pop(ds);
        cmp(ah, function::TELETYPE); je(".teletype");
        cmp(ah, function::SET_MODE); je(".mode");
        cmp(ah, function::SET_CURSOR); je(".set_cursor");
        cmp(ah, function::GET_CURSOR); je(".get_cursor");
        cmp(ah, function::SCROLL_UP); je(".clear");
        cmp(ah, function::WRITE_CELLS); je(".fill");
        cmp(ah, function::GET_MODE); je(".get_mode");
        at(".end");
        popa(); pop(es); pop(ds); iret();

        at(".teletype");
        call("video.teletype"); jmp(".end");
        at(".mode");
        and(al, 0xFF & !KEEP_MEMORY); cmp(al, MODE_GRAPHICS); je(".graphics");
        call("video.text"); jmp(".end");
        at(".graphics");
        call("video.graphics"); xor(bx, bx); call("video.rotate"); jmp(".end");
        at(".set_cursor");
        mov(word_ptr(CURSOR), dx); call("video.place_cursor"); jmp(".end");
        at(".get_cursor");
        // The caller's CX and DX lie at these places of the PUSHA frame.
        mov(ax, word_ptr(CURSOR)); mov(word_ptr(bp + 10).ss(), ax); mov(word_ptr(bp + 12).ss(), 0x0D0E); jmp(".end");
        at(".clear");
        call("video.clear"); jmp(".end");
        at(".fill");
        push(ax); call("video.cell"); pop(ax); mov(ah, bl); rep_stosw(); jmp(".end");
        at(".get_mode");
        mov(al, byte_ptr(VIDEO_MODE)); mov(ah, byte_ptr(VIDEO_COLUMNS));
        mov(word_ptr(bp + 14).ss(), ax); mov(byte_ptr(bp + 9).ss(), 0); jmp(".end");

        // ES:DI = the cell under the cursor; changes AX.
        at("video.cell");
        mov(ax, vga::TEXT_SEGMENT); mov(es, ax);
        mov(al, 80); mul(byte_ptr(CURSOR + 1)); xor(dx, dx); mov(dl, byte_ptr(CURSOR)); add(ax, dx);
        mov(di, ax); shl(di, 1); ret();

        at("video.place_cursor");
        call("video.cell"); mov(bx, di); shr(bx, 1); mov(dx, vga::CRTC);
        mov(al, vga::CRTC_CURSOR_HIGH); mov(ah, bh); out(dx, ax);
        inc(al); mov(ah, bl); out(dx, ax); ret();
    }
    Ok(())
}

fn teletype(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("video.teletype");
        cmp(al, 0x0D); je(".return");
        cmp(al, 0x0A); je(".feed");
        cmp(al, 0x08); je(".back");
        cmp(al, 0x07); je(".end");
        mov(cl, al); call("video.cell"); mov(byte_ptr(di).es(), cl);
        inc(byte_ptr(CURSOR)); cmp(byte_ptr(CURSOR), 80); jb(".place");
        mov(byte_ptr(CURSOR), 0);
        at(".feed");
        cmp(byte_ptr(CURSOR + 1), LAST_ROW); jae(".scroll");
        inc(byte_ptr(CURSOR + 1)); jmp(".place");
        at(".scroll");
        call("video.cell"); push(ds); push(es); pop(ds);
        mov(si, ROW_BYTES); xor(di, di); mov(cx, ROW_BYTES / 2 * LAST_ROW); rep_movsw();
        pop(ds); mov(ax, NORMAL << 8 | 0x20); mov(cx, ROW_BYTES / 2); rep_stosw();
        jmp(".place");
        at(".back");
        cmp(byte_ptr(CURSOR), 0); jz(".place"); dec(byte_ptr(CURSOR)); jmp(".place");
        at(".return");
        mov(byte_ptr(CURSOR), 0);
        at(".place");
        call("video.place_cursor");
        at(".end");
        ret();
    }
    Ok(())
}
