//! The VBE extensions.

use super::*;
use crate::gpu::vbe::edid::edid;

const LFB: u64 = 0xe000_0000;
const MMIO: u64 = 0xfebf_0000;

fn dispi_write(bench: &mut VgaBench, index: u16, value: u16) {
    bench.outw(0x1ce, index);
    bench.outw(0x1cf, value);
}

fn dispi_read(bench: &mut VgaBench, index: u16) -> u16 {
    bench.outw(0x1ce, index);
    bench.inw(0x1cf)
}

/// Sets a mode as vgabios does: off, size, bank, on. `flags` are added to the enable bit.
pub(super) fn set_vbe_mode(bench: &mut VgaBench, width: u16, height: u16, bpp: u16, flags: u16) {
    for (index, value) in [(4, 0), (3, bpp), (1, width), (2, height), (5, 0), (4, 1 | flags)] {
        dispi_write(bench, index, value);
    }
}

fn pci_bench() -> VgaBench {
    let mut bench = bench();
    bench.config_write(0x10, Width::Dword, LFB as u32);
    bench.config_write(0x18, Width::Dword, MMIO as u32);
    bench.config_write(0x04, Width::Word, 3);
    set_mode(&mut bench, &MODE_3);
    bench
}

#[test]
fn the_interface_is_found_and_tells_its_limits() {
    let mut bench = bench();
    for id in 0xb0c0..=0xb0c5 {
        dispi_write(&mut bench, 0, id);
        assert_eq!(dispi_read(&mut bench, 0), id);
    }
    dispi_write(&mut bench, 0, 0xb0c6);
    assert_eq!(dispi_read(&mut bench, 0), 0xb0c5);
    assert_eq!(dispi_read(&mut bench, 10), 256);
    dispi_write(&mut bench, 4, 2);
    assert_eq!([1, 2, 3].map(|n| dispi_read(&mut bench, n)), [2560, 1600, 32]);
    dispi_write(&mut bench, 4, 0);
    assert_eq!([1, 2, 3].map(|n| dispi_read(&mut bench, n)), [0, 0, 0]);
    assert_eq!(bench.inw(0x1d0), 0, "the aligned alias of the data port");
}

#[test]
fn a_32_bit_picture_is_the_linear_frame_buffer() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 640, 480, 32, 0x40);
    for (x, y, color) in [(0, 0, 0x00aa_bbcc_u32), (639, 479, 0xff12_3456)] {
        poke_all(&mut bench, LFB + (y * 640 + x) * 4, &color.to_le_bytes());
    }
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (640, 480));
    assert_eq!((pixel(&frame, 0, 0), pixel(&frame, 639, 479)), (0x00aa_bbcc, 0x0012_3456));
    assert_eq!(frame.text, None);
    assert!(!redraws(&mut bench));
    poke(&mut bench, LFB + 4, 1);
    assert!(redraws(&mut bench));
    poke(&mut bench, LFB + 640 * 480 * 4, 1);
    assert!(!redraws(&mut bench), "that is below the picture");
}

#[test]
fn every_depth_has_its_pixel_layout() {
    let cases: [(u16, &[u8], u32); 4] = [
        (15, &[0x1f, 0x7c], 0x00ff_00ff),
        (16, &[0xe0, 0x07], 0x0000_ff00),
        (24, &[1, 2, 3], 0x0003_0201),
        (32, &[1, 2, 3, 4], 0x0003_0201),
    ];
    for (bpp, bytes, expected) in cases {
        let mut bench = pci_bench();
        set_vbe_mode(&mut bench, 800, 600, bpp, 0x40);
        let line = 800 * u64::from(bpp.div_ceil(8));
        poke_all(&mut bench, LFB + line + bytes.len() as u64, bytes);
        let frame = screen(&mut bench);
        assert_eq!(pixel(&frame, 1, 1), expected, "{bpp} bits per pixel");
        assert_eq!(frame.pixels.iter().filter(|p| **p != 0).count(), 1);
    }
}

#[test]
fn eight_bit_modes_use_the_dac_at_either_width() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 640, 480, 8, 0x40);
    poke(&mut bench, LFB, 9);
    let write_color = |bench: &mut VgaBench| {
        for (port, value) in [(0x3c8, 9), (0x3c9, 0x81), (0x3c9, 0x3f), (0x3c9, 0x20)] {
            bench.outb(port, value);
        }
    };
    write_color(&mut bench);
    assert_eq!(pixel(&screen(&mut bench), 0, 0), 0x0004_ff82);
    dispi_write(&mut bench, 4, 0x61);
    write_color(&mut bench);
    assert_eq!(pixel(&screen(&mut bench), 0, 0), 0x0081_3f20);
    assert_eq!(peek(&mut bench, LFB), 9, "changing the DAC width clears nothing");
}

#[test]
fn sixteen_colour_modes_are_planar() {
    let mut bench = pci_bench();
    set_mode(&mut bench, &MODE_12);
    load_palette(&mut bench);
    set_vbe_mode(&mut bench, 1024, 768, 4, 0);
    bench.outw(0x3c4, 0x0402);
    poke(&mut bench, A0000 + 128, 0x40);
    dispi_write(&mut bench, 5, 1); // the last line is in the second 64 KiB of each plane
    poke(&mut bench, A0000 + 128 * 767 - 0x1_0000, 0x80);
    let frame = screen(&mut bench);
    assert_eq!((pixel(&frame, 1, 1), pixel(&frame, 0, 767)), (rgb(4), rgb(4)));
    assert_eq!(frame.pixels.iter().filter(|p| **p != 0).count(), 2);
}

#[test]
fn the_bank_is_a_direct_window_into_the_frame_buffer() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 1024, 768, 8, 0);
    assert_eq!(direct(&bench, A0000, true), Some(0));
    poke(&mut bench, A0000 + 5, 1);
    dispi_write(&mut bench, 5, 11);
    poke(&mut bench, A0000 + 0xffff, 2);
    assert_eq!((peek(&mut bench, LFB + 5), peek(&mut bench, LFB + 12 * 0x1_0000 - 1)), (1, 2));
    restart(&mut bench);
    assert_eq!(peek(&mut bench, A0000 + 0xffff), 2);
    dispi_write(&mut bench, 4, 0);
    assert_eq!(dispi_read(&mut bench, 5), 0);
    assert!(direct(&bench, A0000, true).is_none(), "the text mode is back");
}

#[test]
fn virtual_width_and_offsets_pan_over_a_larger_picture() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 640, 480, 16, 0x40);
    dispi_write(&mut bench, 6, 1024);
    assert_eq!(dispi_read(&mut bench, 7), 8192);
    dispi_write(&mut bench, 8, 100);
    dispi_write(&mut bench, 9, 500);
    poke_all(&mut bench, LFB + 2048 * 500 + 200, &[0xff, 0xff]);
    assert_eq!(pixel(&screen(&mut bench), 0, 0), 0x00ff_ffff);
    dispi_write(&mut bench, 9, 0xffff);
    assert_eq!(dispi_read(&mut bench, 9), 0, "an offset behind the memory is not taken");
}

#[test]
fn impossible_modes_are_brought_into_range() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 5000, 5000, 13, 0);
    assert_eq!([1, 2, 3].map(|n| dispi_read(&mut bench, n)), [2560, 1600, 8]);
    set_vbe_mode(&mut bench, 0, 0, 32, 0);
    assert_eq!([1, 2].map(|n| dispi_read(&mut bench, n)), [8, 1]);
    assert_eq!(screen(&mut bench).pixels.len(), 8);
}

#[test]
fn enabling_clears_the_picture_unless_told_not_to() {
    let mut bench = pci_bench();
    poke(&mut bench, LFB + 0x9000, 7);
    set_vbe_mode(&mut bench, 640, 480, 32, 0xc0);
    assert_eq!(peek(&mut bench, LFB + 0x9000), 7);
    set_vbe_mode(&mut bench, 640, 480, 32, 0x40);
    assert_eq!(peek(&mut bench, LFB + 0x9000), 0);
}

#[test]
fn a_picture_drawn_before_the_text_mode_is_left_is_kept() {
    // bochs-drm fills the frame buffer first and enables the mode, without clearing, after.
    let mut bench = pci_bench();
    poke_all(&mut bench, B8000, b"t\x07e\x07");
    let picture: Vec<u8> = (0..0x2_0000_u32).map(|n| (n % 241 + 1) as u8).collect();
    poke_all(&mut bench, LFB, &picture);
    set_vbe_mode(&mut bench, 640, 480, 32, 0xc0);
    let seen: Vec<u8> = (0..0x2_0000).map(|n| peek(&mut bench, LFB + n)).collect();
    assert!(seen == picture);
}

#[test]
fn text_comes_back_after_a_mode_that_did_not_touch_it() {
    let mut bench = pci_bench();
    poke_all(&mut bench, B8000, b"t\x07e\x07");
    set_vbe_mode(&mut bench, 640, 480, 32, 0xc0);
    dispi_write(&mut bench, 4, 0);
    assert_eq!([0, 1, 2, 3].map(|n| peek(&mut bench, B8000 + n)), *b"t\x07e\x07");
}

#[test]
fn bar_2_has_edid_vga_ports_and_dispi_registers() {
    let mut bench = pci_bench();
    let edid = edid();
    let block: Vec<u8> = (0..256).map(|n| bench.mem_read(MMIO + n, Width::Byte) as u8).collect();
    assert_eq!(block, edid);
    assert_eq!(bench.mem_read(MMIO + 0x300, Width::Dword), 0);
    assert_eq!(bench.mem_read(MMIO + 0x40c, Width::Byte), 0x67, "miscellaneous output");
    bench.mem_write(MMIO + 0x414, Width::Word, 0x770e); // CRTC index and data
    bench.outb(0x3d4, 0x0e);
    assert_eq!(bench.inb(0x3d5), 0x77);
    for (index, value) in [(1, 800), (2, 600), (3, 32), (4, 0x41)] {
        bench.mem_write(MMIO + 0x500 + 2 * index, Width::Word, value);
    }
    assert_eq!(bench.mem_read(MMIO + 0x502, Width::Dword), 600 << 16 | 800);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (800, 600));
    assert_eq!(bench.mem_read(MMIO + 0x600, Width::Dword), 8);
    assert_eq!(bench.mem_read(MMIO + 0x604, Width::Dword), 0x1e1e_1e1e);
    assert_eq!(bench.mem_read(MMIO + 0x700, Width::Dword), 0xffff_ffff);
}

#[test]
fn a_vbe_mode_survives_a_restart() {
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 800, 600, 24, 0x40);
    poke_all(&mut bench, LFB + 300, &[9, 8, 7]);
    let (before, regions) = (screen(&mut bench), bench.host.regions.clone());
    restart(&mut bench);
    assert_eq!(screen(&mut bench), before);
    assert_eq!(bench.host.regions, regions);
}

#[test]
fn the_screen_is_blanked_through_the_attribute_controller() {
    // As bochs-drm does, through BAR 2.
    let mut bench = pci_bench();
    set_vbe_mode(&mut bench, 640, 480, 32, 0x40);
    poke(&mut bench, LFB, 0xff);
    bench.mem_read(MMIO + 0x41a, Width::Byte);
    bench.mem_write(MMIO + 0x400, Width::Byte, 0x00);
    assert_eq!(pixel(&screen(&mut bench), 0, 0), 0);
    bench.mem_read(MMIO + 0x41a, Width::Byte);
    bench.mem_write(MMIO + 0x400, Width::Byte, 0x20);
    assert_eq!(pixel(&screen(&mut bench), 0, 0), 0xff);
}
