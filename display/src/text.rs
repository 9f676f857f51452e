//! The screen of a text mode as plain text.

use crate::cp437;
use crate::source::TextScreen;

/// The character of a cell.
pub fn cell_char(cell: u16) -> char {
    cp437::to_unicode(cell as u8)
}

/// The lines of a text screen, each ended by a newline, without the blanks at their ends and
/// without the empty lines at the bottom.
pub fn plain_text(screen: &TextScreen) -> String {
    let lines: Vec<String> = screen
        .lines()
        .map(|cells| {
            let line: String = cells.iter().map(|cell| cell_char(*cell)).collect();
            line.trim_end().to_owned()
        })
        .collect();
    let used = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..used].iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_at_the_ends_are_left_out_and_others_kept() {
        let rows = [&b"  A:\\>  "[..], b"        ", b"\xc4\xc4 \0\xff   ", b"        "];
        let cells = rows.concat().into_iter().map(|code| 0x0700 | u16::from(code)).collect();
        let screen = TextScreen { columns: 8, rows: 4, cells, cursor: Some((5, 0)) };
        assert_eq!(plain_text(&screen), "  A:\\>\n\n──\n");
    }

    #[test]
    fn empty_and_torn_screens_do_no_harm() {
        assert_eq!(plain_text(&TextScreen::default()), "");
        let torn = TextScreen { columns: 4, rows: 9, cells: vec![0x41; 6], cursor: None };
        assert_eq!(plain_text(&torn), "AAAA\nAA\n");
    }
}
