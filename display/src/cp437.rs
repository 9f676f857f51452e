//! Code page 437, the characters in the ROM of every PC's display adapter, as Unicode.
//!
//! Below 20h and at 7Fh stand the symbols that the adapter draws, not control characters.

/// Unicode character of each code. 00h, 20h and FFh are drawn empty.
#[rustfmt::skip] // Sixteen to a row, so that the row is the high digit.
pub const CHARACTERS: [char; 256] = [
    ' ', '☺', '☻', '♥', '♦', '♣', '♠', '•', '◘', '○', '◙', '♂', '♀', '♪', '♫', '☼',
    '►', '◄', '↕', '‼', '¶', '§', '▬', '↨', '↑', '↓', '→', '←', '∟', '↔', '▲', '▼',
    ' ', '!', '"', '#', '$', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?',
    '@', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O',
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '[', '\\', ']', '^', '_',
    '`', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '{', '|', '}', '~', '⌂',
    'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å',
    'É', 'æ', 'Æ', 'ô', 'ö', 'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ',
    'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '⌐', '¬', '½', '¼', '¡', '«', '»',
    '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║', '╗', '╝', '╜', '╛', '┐',
    '└', '┴', '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬', '╧',
    '╨', '╤', '╥', '╙', '╘', '╒', '╓', '╫', '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀',
    'α', 'ß', 'Γ', 'π', 'Σ', 'σ', 'µ', 'τ', 'Φ', 'Θ', 'Ω', 'δ', '∞', 'φ', 'ε', '∩',
    '≡', '±', '≥', '≤', '⌠', '⌡', '÷', '≈', '°', '∙', '·', '√', 'ⁿ', '²', '■', ' ',
];

/// What the adapter draws for `code`.
pub fn to_unicode(code: u8) -> char {
    CHARACTERS[usize::from(code)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ascii_is_itself() {
        for code in 0x20..0x7f {
            assert_eq!(u32::from(to_unicode(code)), u32::from(code));
        }
    }

    #[test]
    fn only_the_empty_cells_look_alike() {
        let distinct: BTreeSet<_> = CHARACTERS.iter().collect();
        assert_eq!(distinct.len(), 256 - 2);
    }

    #[test]
    fn frames_and_shades_are_where_dos_programs_expect_them() {
        let drawn: String = [0xc9, 0xcd, 0xbb, 0xba, 0xc8, 0xbc, 0xb0, 0xdb, 0xdf, 0xe1, 0xfe]
            .map(to_unicode)
            .iter()
            .collect();
        assert_eq!(drawn, "╔═╗║╚╝░█▀ß■");
    }
}
