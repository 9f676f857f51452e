//! Tests of the adapter on a bus of its own. Modes are set as VGA BIOSes set them, from the
//! register tables of the IBM reference.

mod memory;
mod modes;
mod registers;
mod vbe;
mod windows;

use super::Vga;
use crate::device::{Device, Frame, Space, Width};
use crate::testing::Bench;

/// One line of the BIOS's video parameter table.
struct Mode {
    misc: u8,
    /// Sequencer registers 1 to 4.
    sequencer: [u8; 4],
    crtc: [u8; 25],
    attribute: [u8; 20],
    graphics: [u8; 9],
}

const TEXT_PALETTE_REST: [u8; 4] = [0x0c, 0x00, 0x0f, 0x08];

const fn attributes(palette: [u8; 16], rest: [u8; 4]) -> [u8; 20] {
    let mut all = [0; 20];
    let mut n = 0;
    while n < 20 {
        all[n] = if n < 16 { palette[n] } else { rest[n - 16] };
        n += 1;
    }
    all
}

const EGA_PALETTE: [u8; 16] = [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f];
const LINEAR_PALETTE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const CGA_PALETTE: [u8; 16] = [0, 0x13, 0x15, 0x17, 2, 4, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];

/// 80x25 text, 9x16 dots.
const MODE_3: Mode = Mode {
    misc: 0x67,
    sequencer: [0x00, 0x03, 0x00, 0x02],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    attribute: attributes(EGA_PALETTE, TEXT_PALETTE_REST),
    graphics: [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff],
};

/// 40x25 text.
const MODE_1: Mode = Mode {
    sequencer: [0x08, 0x03, 0x00, 0x02],
    crtc: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0xa0, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x14, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    ..MODE_3
};

/// Monochrome text at B0000h.
const MODE_7: Mode = Mode {
    misc: 0x66,
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x28, 0x0d, 0x96, 0xb9, 0xa3, 0xff,
    ],
    attribute: attributes([0, 8, 8, 8, 8, 8, 8, 8, 16, 24, 24, 24, 24, 24, 24, 24], [0x0e, 0, 0x0f, 0x08]),
    graphics: [0, 0, 0, 0, 0, 0x10, 0x0a, 0x0f, 0xff],
    ..MODE_3
};

/// CGA 320x200, 4 colours.
const MODE_4: Mode = Mode {
    misc: 0x63,
    sequencer: [0x09, 0x03, 0x00, 0x02],
    crtc: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff,
    ],
    attribute: attributes(CGA_PALETTE, [0x01, 0x00, 0x03, 0x00]),
    graphics: [0, 0, 0, 0, 0, 0x30, 0x0f, 0x0f, 0xff],
};

/// CGA 640x200, 2 colours.
const MODE_6: Mode = Mode {
    misc: 0x63,
    sequencer: [0x01, 0x01, 0x00, 0x06],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff,
    ],
    attribute: attributes([0, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23], [1, 0, 1, 0]),
    graphics: [0, 0, 0, 0, 0, 0x00, 0x0d, 0x0f, 0xff],
};

/// EGA 320x200, 16 colours.
const MODE_0D: Mode = Mode {
    misc: 0x63,
    sequencer: [0x09, 0x0f, 0x00, 0x06],
    crtc: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xe3, 0xff,
    ],
    attribute: attributes(LINEAR_PALETTE, [0x01, 0x00, 0x0f, 0x00]),
    graphics: [0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff],
};

/// VGA 640x480, 16 colours.
const MODE_12: Mode = Mode {
    misc: 0xe3,
    sequencer: [0x01, 0x0f, 0x00, 0x06],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xea,
        0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff,
    ],
    attribute: attributes(LINEAR_PALETTE, [0x01, 0x00, 0x0f, 0x00]),
    graphics: [0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff],
};

/// VGA 320x200, 256 colours.
const MODE_13: Mode = Mode {
    misc: 0x63,
    sequencer: [0x01, 0x0f, 0x00, 0x0e],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    attribute: attributes(LINEAR_PALETTE, [0x41, 0x00, 0x0f, 0x00]),
    graphics: [0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff],
};

const A0000: u64 = 0xa_0000;
const B0000: u64 = 0xb_0000;
const B8000: u64 = 0xb_8000;

type VgaBench = Bench<Vga>;

fn bench() -> VgaBench {
    Bench::new(Vga::new(None))
}

/// Sets a mode as a VGA BIOS does.
fn set_mode(bench: &mut VgaBench, mode: &Mode) {
    bench.outb(0x3c2, mode.misc);
    let (crtc, status) = if mode.misc & 1 != 0 { (0x3d4, 0x3da) } else { (0x3b4, 0x3ba) };
    bench.inb(status);
    for (n, value) in mode.attribute.iter().chain([&0]).enumerate() {
        bench.outb(0x3c0, n as u8);
        bench.outb(0x3c0, *value);
    }
    bench.outw(0x3c4, 0x0300);
    for (n, value) in mode.sequencer.iter().enumerate() {
        bench.outw(0x3c4, indexed(n + 1, *value));
    }
    for (n, value) in mode.graphics.iter().enumerate() {
        bench.outw(0x3ce, indexed(n, *value));
    }
    bench.outw(crtc, 0x0011);
    for (n, value) in mode.crtc.iter().enumerate() {
        bench.outw(crtc, indexed(n, *value));
    }
    bench.outb(0x3c6, 0xff);
    bench.inb(status);
    bench.outb(0x3c0, 0x20);
}

fn indexed(index: usize, value: u8) -> u16 {
    u16::from_le_bytes([index as u8, value])
}

/// Loads the DAC with colours that can be told apart: colour n is (n/4, n/2 mod 64, n mod 64).
fn load_palette(bench: &mut VgaBench) {
    bench.outb(0x3c8, 0);
    for n in 0..=255_u8 {
        for level in [n >> 2, n >> 1 & 63, n & 63] {
            bench.outb(0x3c9, level);
        }
    }
}

/// What [`load_palette`] made of DAC entry `n`.
fn rgb(n: u8) -> u32 {
    [n >> 2, n >> 1 & 63, n & 63]
        .into_iter()
        .fold(0, |rgb, level| rgb << 8 | u32::from(level << 2 | level >> 4))
}

/// Writes the font plane as a VGA BIOS does, and goes back to the text mode.
fn load_font(bench: &mut VgaBench, offset: u64, glyphs: &[(u8, [u8; 16])]) {
    for (port, value) in [(0x3c4, 0x0100), (0x3c4, 0x0402), (0x3c4, 0x0704), (0x3c4, 0x0300)] {
        bench.outw(port, value);
    }
    for value in [0x0204, 0x0005, 0x0406] {
        bench.outw(0x3ce, value);
    }
    for (character, rows) in glyphs {
        for (n, row) in rows.iter().enumerate() {
            poke(bench, A0000 + offset + u64::from(*character) * 32 + n as u64, *row);
        }
    }
    for (port, value) in [(0x3c4, 0x0100), (0x3c4, 0x0302), (0x3c4, 0x0304), (0x3c4, 0x0300)] {
        bench.outw(port, value);
    }
    for value in [0x0004, 0x1005, 0x0e06] {
        bench.outw(0x3ce, value);
    }
    bench.outw(0x3c4, 0x0204);
}

/// A byte store of the CPU: directly where the bus would let it, through the model elsewhere.
fn poke(bench: &mut VgaBench, address: u64, value: u8) {
    match direct(bench, address, true) {
        Some(at) => bench.host.memory[at] = value,
        None => bench.mem_write(address, Width::Byte, value.into()),
    }
}

/// A byte load of the CPU.
fn peek(bench: &mut VgaBench, address: u64) -> u8 {
    match direct(bench, address, false) {
        Some(at) => bench.host.memory[at],
        None => bench.mem_read(address, Width::Byte) as u8,
    }
}

/// Where the CPU reaches the device memory behind an address without a trap.
fn direct(bench: &VgaBench, address: u64, write: bool) -> Option<usize> {
    let hit = |r: &&crate::device::Region| {
        r.enabled && r.space == Space::Memory && (r.base..r.base + r.len).contains(&address)
    };
    let region = bench.host.regions.iter().find(hit)?;
    let backing = region.backing.filter(|backing| backing.writable || !write)?;
    Some((backing.offset + address - region.base) as usize)
}

fn poke_all(bench: &mut VgaBench, address: u64, bytes: &[u8]) {
    for (address, byte) in (address..).zip(bytes) {
        poke(bench, address, *byte);
    }
}

/// Draws the screen in any case.
fn screen(bench: &mut VgaBench) -> Frame {
    let mut frame = Frame::default();
    assert!(bench.device.render(&mut frame, true, &mut bench.host));
    assert_eq!(frame.pixels.len(), (frame.width * frame.height) as usize);
    frame
}

fn pixel(frame: &Frame, x: u32, y: u32) -> u32 {
    frame.pixels[(y * frame.width + x) as usize]
}

/// Whether the model finds something new to draw.
fn redraws(bench: &mut VgaBench) -> bool {
    bench.device.render(&mut Frame::default(), false, &mut bench.host)
}

/// What a crash and restart of the process do: same board, state and memory.
fn restart(bench: &mut VgaBench) {
    bench.restart(Vga::new(None));
}
