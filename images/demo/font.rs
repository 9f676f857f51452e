//! Code page 437 and its glyphs, from the public-domain 8x8 font, doubled to 8x16.

use font8x8::{BASIC_FONTS, BLOCK_FONTS, BOX_FONTS, GREEK_FONTS, LATIN_FONTS, MISC_FONTS, UnicodeFonts};

/// Bytes of a glyph in the character generator of an 8x16 text mode.
pub const GLYPH_HEIGHT: usize = 16;

/// The upper half of code page 437.
const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»\
░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Glyphs that the 8x8 font lacks and the demo shows, most significant bit left.
const EXTRA: [(u8, [u8; 8]); 6] = [
    (0x04, [0x10, 0x38, 0x7C, 0xFE, 0x7C, 0x38, 0x10, 0x00]),
    (0x07, [0x00, 0x00, 0x18, 0x3C, 0x3C, 0x18, 0x00, 0x00]),
    (0x10, [0x80, 0xE0, 0xF8, 0xFE, 0xF8, 0xE0, 0x80, 0x00]),
    (0xF9, [0x00, 0x00, 0x00, 0x18, 0x18, 0x00, 0x00, 0x00]),
    (0xFA, [0x00, 0x00, 0x00, 0x18, 0x00, 0x00, 0x00, 0x00]),
    (0xFE, [0x00, 0x00, 0x3C, 0x3C, 0x3C, 0x3C, 0x00, 0x00]),
];

/// `text` in code page 437; what it lacks becomes a question mark.
pub fn encode(text: &str) -> Vec<u8> {
    text.chars().map(code).collect()
}

/// The code of one character.
pub fn code(character: char) -> u8 {
    match character {
        '\u{0}'..='\u{7f}' => character as u8,
        '•' => 0x07,
        '♦' => 0x04,
        '►' => 0x10,
        _ => UPPER.chars().position(|upper| upper == character).map_or(b'?', |index| 0x80 + index as u8),
    }
}

/// The character of a code, where the 8x8 font may have it.
fn character(code: u8) -> Option<char> {
    match code {
        0x20..=0x7E => Some(char::from(code)),
        0x80.. => UPPER.chars().nth(usize::from(code - 0x80)),
        _ => None,
    }
}

/// The 8x8 glyph of a code, most significant bit left.
pub fn glyph(code: u8) -> [u8; 8] {
    if let Some((_, rows)) = EXTRA.iter().find(|(extra, _)| *extra == code) {
        return *rows;
    }
    let Some(character) = character(code) else { return [0; 8] };
    // This font's first pixel is the least significant bit; the VGA's is the most significant.
    BASIC_FONTS
        .get(character)
        .or_else(|| LATIN_FONTS.get(character))
        .or_else(|| BOX_FONTS.get(character))
        .or_else(|| BLOCK_FONTS.get(character))
        .or_else(|| GREEK_FONTS.get(character))
        .or_else(|| MISC_FONTS.get(character))
        .unwrap_or([0; 8])
        .map(u8::reverse_bits)
}

/// All 256 glyphs, 8x16, as plane 2 takes them (16 of each 32 bytes).
pub fn text_font() -> Vec<u8> {
    (0..=255).flat_map(|code| glyph(code).into_iter().flat_map(|row| [row, row])).collect()
}
