//! Text screens composed at build time: the ROM only copies them to the screen.

use super::font;

/// Columns of a screen.
pub const COLUMNS: usize = 80;
/// Rows of a screen.
pub const ROWS: usize = 25;
/// Bytes of a screen: a character and an attribute per cell.
pub const BYTES: usize = COLUMNS * ROWS * 2;

/// Byte offset of a cell.
pub const fn cell(row: usize, column: usize) -> i32 {
    ((row * COLUMNS + column) * 2) as i32
}

/// An 80x25 text screen.
pub struct Screen {
    cells: [(u8, u8); COLUMNS * ROWS],
}

impl Screen {
    /// An empty screen in one attribute.
    pub fn new(attribute: u8) -> Self {
        Self { cells: [(b' ', attribute); COLUMNS * ROWS] }
    }

    /// Sets one cell.
    pub fn set(&mut self, row: usize, column: usize, code: u8, attribute: u8) {
        self.cells[row * COLUMNS + column] = (code, attribute);
    }

    /// Writes a text.
    pub fn text(&mut self, row: usize, column: usize, attribute: u8, text: &str) {
        for (index, code) in font::encode(text).into_iter().enumerate() {
            self.set(row, column + index, code, attribute);
        }
    }

    /// Fills a rectangle.
    pub fn fill(
        &mut self,
        row: usize,
        column: usize,
        rows: usize,
        columns: usize,
        character: char,
        attribute: u8,
    ) {
        for row in row..row + rows {
            for column in column..column + columns {
                self.set(row, column, font::code(character), attribute);
            }
        }
    }

    /// Draws a frame with a title on its upper edge, and a shadow under it.
    pub fn window(
        &mut self,
        row: usize,
        column: usize,
        rows: usize,
        columns: usize,
        attribute: u8,
        title: &str,
    ) {
        let (bottom, right) = (row + rows - 1, column + columns - 1);
        self.fill(row, column, rows, columns, ' ', attribute);
        self.fill(row, column, 1, columns, '─', attribute);
        self.fill(bottom, column, 1, columns, '─', attribute);
        self.fill(row, column, rows, 1, '│', attribute);
        self.fill(row, right, rows, 1, '│', attribute);
        for (row, column, corner) in
            [(row, column, '┌'), (row, right, '┐'), (bottom, column, '└'), (bottom, right, '┘')]
        {
            self.set(row, column, font::code(corner), attribute);
        }
        self.text(row, column + 2, attribute, title);
    }

    /// Draws `text` in letters of 8x4 cells (two pixels in each cell); `attributes` colours the rows.
    pub fn banner(&mut self, row: usize, column: usize, attributes: [u8; 4], text: &str) {
        for (index, code) in font::encode(text).into_iter().enumerate() {
            let glyph = font::glyph(code);
            for (line, attribute) in attributes.into_iter().enumerate() {
                for bit in 0..8 {
                    let lit = |row: usize| glyph[row] & (0x80 >> bit) != 0;
                    let block = match (lit(2 * line), lit(2 * line + 1)) {
                        (false, false) => continue,
                        (true, false) => '▀',
                        (false, true) => '▄',
                        (true, true) => '█',
                    };
                    self.set(row + line, column + 8 * index + bit, font::code(block), attribute);
                }
            }
        }
    }

    /// The screen as the VGA's text memory holds it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.cells.into_iter().flat_map(|(code, attribute)| [code, attribute]).collect()
    }
}
