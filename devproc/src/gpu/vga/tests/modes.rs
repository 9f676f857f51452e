//! What the monitor shows in each mode.

use super::*;

/// Bits of the top rows of a glyph that tell left from right.
const GLYPH: [u8; 16] = [0x80, 0x01, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x18];
const BLACK: u32 = 0;
/// Attribute palette of mode 3 sends 7 to DAC 7, 15 to DAC 3Fh.
const GREY: u8 = 0x07;

fn text_bench() -> VgaBench {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_3);
    load_palette(&mut bench);
    load_font(&mut bench, 0, &[(b'A', GLYPH), (0xc4, GLYPH)]);
    bench.outw(0x3d4, 0x200a); // cursor off
    bench
}

#[test]
fn text_shows_the_font_in_nine_dots() {
    let mut bench = text_bench();
    poke_all(&mut bench, B8000, b"A\x07\xc4\x1e");
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (720, 400));
    let grey = rgb(GREY);
    assert_eq!(pixel(&frame, 0, 0), grey);
    assert_eq!(pixel(&frame, 1, 0), BLACK);
    assert_eq!(pixel(&frame, 7, 1), grey);
    assert_eq!(pixel(&frame, 8, 1), BLACK, "the ninth dot of a letter is background");
    assert_eq!(pixel(&frame, 3, 15), grey);
    let (yellow, blue) = (rgb(0x3e), rgb(0x01));
    assert_eq!(pixel(&frame, 9, 0), yellow);
    assert_eq!(pixel(&frame, 10, 0), blue);
    assert_eq!(pixel(&frame, 17, 1), yellow, "line graphics repeat the eighth dot");
    let text = frame.text.expect("a text mode has characters");
    assert_eq!((text.columns, text.rows), (80, 25));
    assert_eq!(text.cells[..2], [0x0741, 0x1ec4]);
    assert_eq!(text.cursor, None);
}

#[test]
fn the_start_address_scrolls_and_selects_pages() {
    let mut bench = text_bench();
    poke_all(&mut bench, B8000 + 0x1000 + 160, b"A\x07");
    bench.outw(0x3d4, 0x080c); // page 1: start address 800h
    let text = screen(&mut bench).text.unwrap();
    assert_eq!(text.cells[80], 0x0741);
}

#[test]
fn the_cursor_appears_where_the_crtc_says_and_blinks_in_virtual_time() {
    let mut bench = text_bench();
    bench.outw(0x3d4, 0x0d0a);
    bench.outw(0x3d4, 0x000e);
    bench.outw(0x3d4, 0x520f); // 82 = row 1, column 2
    poke_all(&mut bench, B8000 + 164, b" \x07");
    let frame = screen(&mut bench);
    assert_eq!(frame.text.as_ref().unwrap().cursor, Some((2, 1)));
    assert_eq!(pixel(&frame, 18, 16 + 13), rgb(GREY));
    assert_eq!(pixel(&frame, 18, 16 + 12), BLACK);
    assert_eq!(pixel(&frame, 18, 16 + 15), BLACK);
    assert!(!redraws(&mut bench));

    bench.advance(8 * 14_300_000); // eight frames at 70 Hz
    assert!(redraws(&mut bench));
    let frame = screen(&mut bench);
    assert_eq!(pixel(&frame, 18, 16 + 13), BLACK);
    assert_eq!(frame.text.unwrap().cursor, Some((2, 1)), "it is still there");
}

#[test]
fn blinking_text_blinks_and_still_text_is_not_drawn_again() {
    let mut bench = text_bench();
    poke_all(&mut bench, B8000, b"A\x87");
    assert_eq!(pixel(&screen(&mut bench), 0, 0), rgb(GREY));
    bench.advance(16 * 14_300_000);
    assert!(redraws(&mut bench));
    assert_eq!(pixel(&screen(&mut bench), 0, 0), BLACK);

    poke_all(&mut bench, B8000, b"A\x07");
    assert!(redraws(&mut bench), "the attribute changed");
    bench.advance(16 * 14_300_000);
    assert!(!redraws(&mut bench), "nothing blinks any more");
}

#[test]
fn bright_backgrounds_replace_blinking() {
    let mut bench = text_bench();
    poke_all(&mut bench, B8000, b"A\x87");
    bench.inb(0x3da);
    bench.outb(0x3c0, 0x30);
    bench.outb(0x3c0, 0x04);
    assert_eq!(pixel(&screen(&mut bench), 1, 0), rgb(0x38));
}

#[test]
fn attribute_bit_3_selects_the_second_font() {
    let mut bench = text_bench();
    load_font(&mut bench, 0x4000, &[(b'A', [0x0f; 16])]);
    poke_all(&mut bench, B8000, b"A\x0fA\x07");
    bench.outw(0x3c4, 0x0403); // map A = 1, map B = 0
    let frame = screen(&mut bench);
    assert_eq!(pixel(&frame, 0, 0), BLACK);
    assert_eq!(pixel(&frame, 4, 0), rgb(0x3f));
    assert_eq!(pixel(&frame, 9, 0), rgb(GREY));
}

#[test]
fn forty_columns_have_their_own_size() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_1);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (360, 400));
    assert_eq!(frame.text.unwrap().columns, 40);
}

#[test]
fn eight_dot_text_is_640_wide() {
    let mut bench = text_bench();
    bench.outw(0x3c4, 0x0101);
    poke_all(&mut bench, B8000 + 2, b"A\x07");
    let frame = screen(&mut bench);
    assert_eq!(frame.width, 640);
    assert_eq!(pixel(&frame, 8, 0), rgb(GREY));
}

#[test]
fn monochrome_text_lives_at_b0000_and_underlines() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_7);
    load_palette(&mut bench);
    assert!(direct(&bench, B0000, true).is_some() && direct(&bench, B8000, true).is_none());
    poke_all(&mut bench, B0000, b" \x01");
    let frame = screen(&mut bench);
    assert_eq!(frame.text.as_ref().unwrap().cells[0], 0x0120);
    assert_eq!(pixel(&frame, 4, 13), rgb(8));
    assert_eq!(pixel(&frame, 4, 12), BLACK);
}

#[test]
fn mode_4_interleaves_lines_and_packs_two_bits() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_4);
    load_palette(&mut bench);
    poke(&mut bench, B8000, 0b00_01_10_11);
    poke(&mut bench, B8000 + 1, 0b11_00_00_00);
    poke(&mut bench, B8000 + 0x2000, 0b10_00_00_00);
    poke(&mut bench, B8000 + 80, 0b01_00_00_00);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (320, 200));
    let row: Vec<u32> = (0..5).map(|x| pixel(&frame, x, 0)).collect();
    assert_eq!(row, [rgb(0), rgb(0x13), rgb(0x15), rgb(0x17), rgb(0x17)]);
    assert_eq!(pixel(&frame, 0, 1), rgb(0x15), "odd lines are 2000h further");
    assert_eq!(pixel(&frame, 0, 2), rgb(0x13));
}

#[test]
fn mode_6_shows_one_bit_per_pixel() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_6);
    load_palette(&mut bench);
    poke(&mut bench, B8000 + 1, 0x81);
    poke(&mut bench, B8000 + 0x2000 + 79, 0x01);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (640, 200));
    let lit: Vec<usize> = (0..frame.pixels.len()).filter(|n| frame.pixels[*n] == rgb(23)).collect();
    assert_eq!(lit, [8, 15, 640 + 639]);
}

#[test]
fn mode_0d_is_320_wide() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_0D);
    load_palette(&mut bench);
    poke(&mut bench, A0000 + 39 + 40, 0x01);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (320, 200));
    assert_eq!(pixel(&frame, 319, 1), rgb(15));
}

#[test]
fn mode_12_draws_with_set_reset_and_bit_mask() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    load_palette(&mut bench);
    bench.outw(0x3ce, 0x0500); // set/reset = 5
    bench.outw(0x3ce, 0x0f01);
    bench.outw(0x3ce, 0x1008); // bit mask: fourth pixel
    let at = A0000 + 80 * 479 + 79;
    peek(&mut bench, at);
    poke(&mut bench, at, 0xff);
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (640, 480));
    assert_eq!(pixel(&frame, 632 + 3, 479), rgb(5));
    assert_eq!(frame.pixels.iter().filter(|p| **p != BLACK).count(), 1);
}

#[test]
fn planar_pictures_pan_by_pixels_and_split() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    load_palette(&mut bench);
    poke(&mut bench, A0000, 0x80); // top left of memory
    poke(&mut bench, A0000 + 80 * 100, 0x08); // fifth pixel of line 100
    bench.outw(0x3d4, 0x1f0c); // start at line 100: 1F40h
    bench.outw(0x3d4, 0x400d);
    bench.inb(0x3da);
    bench.outb(0x3c0, 0x33);
    bench.outb(0x3c0, 3);
    // Line compare 239: the lines from 240 on show memory from 0.
    bench.outw(0x3d4, 0xef18);
    bench.outw(0x3d4, 0x2e07);
    bench.outw(0x3d4, 0x0009);
    let lit = |frame: &Frame| -> Vec<(usize, usize)> {
        let is_lit = |n: &usize| frame.pixels[*n] == rgb(15);
        (0..frame.pixels.len()).filter(is_lit).map(|n| (n % 640, n / 640)).collect()
    };
    let frame = screen(&mut bench);
    // Memory line 100 is shown at the top, and again 100 lines below the split; line 0, panned
    // by three, has its pixel outside.
    assert_eq!(lit(&frame), [(1, 0), (1, 340)]);

    bench.outb(0x3c0, 0x30);
    bench.outb(0x3c0, 0x21); // panning compatibility: the lower part stays
    let frame = screen(&mut bench);
    assert_eq!(lit(&frame), [(1, 0), (0, 240), (4, 340)]);
}

#[test]
fn mode_13_is_linear_and_direct() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_13);
    load_palette(&mut bench);
    assert!(direct(&bench, A0000, true).is_some());
    for (offset, color) in [(0, 1), (319, 200), (320 * 199 + 319, 77)] {
        poke(&mut bench, A0000 + offset, color);
    }
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (320, 200));
    assert_eq!(pixel(&frame, 0, 0), rgb(1));
    assert_eq!(pixel(&frame, 319, 0), rgb(200));
    assert_eq!(pixel(&frame, 319, 199), rgb(77));
    assert_eq!(frame.pixels.iter().filter(|p| **p != BLACK).count(), 3);
}

#[test]
fn the_pel_mask_cuts_pixel_values() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_13);
    load_palette(&mut bench);
    poke(&mut bench, A0000, 0xf5);
    screen(&mut bench);
    bench.outb(0x3c6, 0x0f);
    assert!(redraws(&mut bench));
    assert_eq!(pixel(&screen(&mut bench), 0, 0), rgb(0x05));
}

#[test]
fn color_select_picks_a_quarter_of_the_dac() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_12);
    load_palette(&mut bench);
    poke(&mut bench, A0000, 0x80);
    bench.inb(0x3da);
    for (index, value) in [(0x34, 0x06), (0x30, 0x81)] {
        bench.outb(0x3c0, index);
        bench.outb(0x3c0, value);
    }
    // Pixel 15: bits 4-5 from color select bits 0-1 (2), bits 6-7 from its bits 2-3 (1).
    assert_eq!(pixel(&screen(&mut bench), 0, 0), rgb(0x6f));
}

#[test]
fn mode_x_puts_four_neighbours_into_four_planes() {
    let mut bench = bench();
    set_mode(&mut bench, &MODE_13);
    load_palette(&mut bench);
    // 320x240, unchained: the register writes of the well-known recipe.
    bench.outw(0x3c4, 0x0604);
    bench.outw(0x3c4, 0x0100);
    bench.outb(0x3c2, 0xe3);
    bench.outw(0x3c4, 0x0300);
    bench.outb(0x3d4, 0x11);
    let protected = bench.inb(0x3d5);
    bench.outb(0x3d5, protected & 0x7f);
    for value in [0x0d06, 0x3e07, 0x4109, 0xea10, 0xac11, 0xdf12, 0x0014, 0xe715, 0x0616, 0xe317] {
        bench.outw(0x3d4, value);
    }
    assert!(direct(&bench, A0000, true).is_none());
    bench.outw(0x3c4, 0x0402);
    poke(&mut bench, A0000 + 80 * 239 + 79, 99); // plane 2
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (320, 240));
    assert_eq!(pixel(&frame, 318, 239), rgb(99));
    assert_eq!(frame.pixels.iter().filter(|p| **p != BLACK).count(), 1);
}

#[test]
fn a_disabled_screen_is_black_and_keeps_its_size() {
    let mut bench = bench();
    assert_eq!(screen(&mut bench).width, 720, "before any mode is set");
    set_mode(&mut bench, &MODE_12);
    load_palette(&mut bench);
    poke(&mut bench, A0000, 0xff);
    screen(&mut bench);
    bench.outw(0x3c4, 0x2101);
    assert!(redraws(&mut bench));
    let frame = screen(&mut bench);
    assert_eq!((frame.width, frame.height), (640, 480));
    assert!(frame.pixels.iter().all(|p| *p == BLACK));
}

#[test]
fn every_mode_survives_a_restart() {
    for mode in [&MODE_1, &MODE_3, &MODE_4, &MODE_6, &MODE_7, &MODE_0D, &MODE_12, &MODE_13] {
        let mut bench = bench();
        set_mode(&mut bench, mode);
        load_palette(&mut bench);
        let window = [A0000, B0000, B8000][match mode.graphics[6] >> 2 & 3 {
            1 => 0,
            2 => 1,
            _ => 2,
        }];
        for n in 0..2000 {
            poke(&mut bench, window + n, (n * 7 % 251) as u8);
        }
        peek(&mut bench, window + 5);
        let (before, regions, mirror) =
            (screen(&mut bench), bench.host.regions.clone(), bench.host.mirror.clone());
        restart(&mut bench);
        assert!(redraws(&mut bench), "a new process draws");
        assert!(!redraws(&mut bench));
        assert_eq!(screen(&mut bench), before);
        assert_eq!(bench.host.regions, regions);
        assert_eq!(bench.host.mirror, mirror);
        assert_eq!(peek(&mut bench, window + 8), 8 * 7);
        bench.take_changed();
        assert!(!bench.take_changed());
    }
}
