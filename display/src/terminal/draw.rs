//! Drawing the picture and the status line with the characters of a terminal.

use crate::scale::{Rect as PixelRect, Scaler, Scaling, place, proportions};
use crate::source::{Frame, TextScreen, VmStatus};
use crate::text::cell_char;
use ratatui::layout::{Alignment, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

/// The colours that the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// 24 bits.
    True,
    /// The 256 of xterm, of which the first 16 are the person's choice.
    Indexed,
}

impl Palette {
    /// The colours that the environment says the terminal has.
    pub fn of_terminal() -> Self {
        match std::env::var("COLORTERM").as_deref() {
            Ok("truecolor" | "24bit") => Self::True,
            _ => Self::Indexed,
        }
    }

    fn of_pixel(self, pixel: u32) -> Color {
        let [_, red, green, blue] = pixel.to_be_bytes();
        match self {
            Self::True => Color::Rgb(red, green, blue),
            Self::Indexed => {
                // The 6x6x6 cube after the 16 basic colours: levels 0, 95, 135, ... 255.
                let level = |value: u8| match value {
                    0..48 => 0,
                    48..115 => 1,
                    _ => (value - 35) / 40,
                };
                Color::Indexed(16 + 36 * level(red) + 6 * level(green) + level(blue))
            }
        }
    }

    fn of_attribute(self, colour: u8) -> Color {
        let colour = usize::from(colour & 0xf);
        match self {
            Self::True => self.of_pixel(VGA_COLOURS[colour]),
            Self::Indexed => BASIC_COLOURS[colour],
        }
    }
}

/// The colours of VGA text attributes after the BIOS has set the palette.
const VGA_COLOURS: [u32; 16] = [
    0x000000, 0x0000aa, 0x00aa00, 0x00aaaa, 0xaa0000, 0xaa00aa, 0xaa5500, 0xaaaaaa, //
    0x555555, 0x5555ff, 0x55ff55, 0x55ffff, 0xff5555, 0xff55ff, 0xffff55, 0xffffff,
];

/// The same as the terminal names them.
const BASIC_COLOURS: [Color; 16] = [
    Color::Black,
    Color::Blue,
    Color::Green,
    Color::Cyan,
    Color::Red,
    Color::Magenta,
    Color::Yellow,
    Color::Gray,
    Color::DarkGray,
    Color::LightBlue,
    Color::LightGreen,
    Color::LightCyan,
    Color::LightRed,
    Color::LightMagenta,
    Color::LightYellow,
    Color::White,
];

/// The upper half of a cell in the foreground colour, the lower half in the background colour.
const UPPER_HALF: char = '▀';
const PIXELS_PER_CELL: u32 = 2;
/// The attribute bit of blinking characters.
const BLINK: u8 = 0x80;

/// What there is to draw.
pub struct Screen<'a> {
    /// The picture, if there is one.
    pub picture: Option<&'a Frame>,
    /// For the status line.
    pub status: &'a VmStatus,
    /// The terminal's colours.
    pub palette: Palette,
}

/// Draws the picture, and the status line in the last row.
pub fn draw(area: &mut ratatui::Frame<'_>, screen: &Screen<'_>) {
    let whole = area.area();
    let Some(last) = whole.height.checked_sub(1) else { return };
    let picture_area = Rect { height: last, ..whole };
    let status_area = Rect { y: whole.y + last, height: 1, ..whole };
    match screen.picture {
        Some(Frame { text: Some(text), .. }) if text.is_complete() => {
            draw_text(area, picture_area, text, screen.palette);
        }
        Some(frame) if frame.is_complete() => draw_pixels(area, picture_area, frame, screen.palette),
        _ => area.render_widget(Line::from("No picture yet").alignment(Alignment::Center), picture_area),
    }
    draw_status(area, status_area, screen.status);
}

fn draw_status(area: &mut ratatui::Frame<'_>, place: Rect, status: &VmStatus) {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    area.buffer_mut().set_style(place, style);
    let left = format!(" {}", status.line());
    let right = "Ctrl+] leaves ";
    area.render_widget(Line::from(left.as_str()).style(style), place);
    // What is wrong matters more than how to leave.
    let room = usize::from(place.width).saturating_sub(left.chars().count() + 1);
    if right.len() <= room {
        area.render_widget(Line::from(right).style(style).alignment(Alignment::Right), place);
    }
}

/// The first of `total` rows or columns to show where only `room` fit: all, or the part that ends
/// with the cursor.
fn first_shown(total: u16, room: u16, cursor: u16) -> u16 {
    (cursor.saturating_add(1)).saturating_sub(room).min(total.saturating_sub(room))
}

fn draw_text(area: &mut ratatui::Frame<'_>, place: Rect, text: &TextScreen, palette: Palette) {
    let (column, row) = text.cursor.unwrap_or((0, text.rows.saturating_sub(1)));
    let first_column = first_shown(text.columns, place.width, column);
    let first_row = first_shown(text.rows, place.height, row);
    let (columns, rows) = (text.columns.min(place.width), text.rows.min(place.height));
    let left = place.x + (place.width - columns) / 2;
    let top = place.y + (place.height - rows) / 2;
    let buffer = area.buffer_mut();
    for (line, y) in text.lines().skip(first_row.into()).zip(top..top + rows) {
        for (cell, x) in line.iter().skip(first_column.into()).zip(left..left + columns) {
            let attribute = (cell >> 8) as u8;
            let mut style = Style::new()
                .fg(palette.of_attribute(attribute))
                .bg(palette.of_attribute(attribute >> 4 & 0b111));
            if attribute & BLINK != 0 {
                style = style.add_modifier(Modifier::SLOW_BLINK);
            }
            if let Some(target) = buffer.cell_mut(Position::new(x, y)) {
                target.set_char(cell_char(*cell)).set_style(style);
            }
        }
    }
    if let Some((column, row)) = text.cursor
        && (first_column..first_column + columns).contains(&column)
        && (first_row..first_row + rows).contains(&row)
    {
        area.set_cursor_position((left + (column - first_column), top + (row - first_row)));
    }
}

fn draw_pixels(area: &mut ratatui::Frame<'_>, place_in: Rect, frame: &Frame, palette: Palette) {
    if place_in.is_empty() {
        return;
    }
    let room = (u32::from(place_in.width), u32::from(place_in.height) * PIXELS_PER_CELL);
    let PixelRect { x, y, width, height } = place(proportions(frame), room, Scaling::Fit);
    let scaler = Scaler::new((frame.width, frame.height), (width, height));
    // Black around the picture, so that cells half covered by it need no care.
    let mut pixels = vec![0_u32; (room.0 * room.1) as usize];
    let lines = pixels.chunks_exact_mut(room.0 as usize).skip(y as usize).take(height as usize);
    for (index, line) in lines.enumerate() {
        if let Some(line) = line.get_mut(x as usize..(x + width) as usize) {
            scaler.row(&frame.pixels, index, line);
        }
    }
    let buffer = area.buffer_mut();
    let pairs = pixels.chunks_exact((room.0 * PIXELS_PER_CELL) as usize);
    for (pair, y) in pairs.zip(place_in.y..) {
        let (upper, lower) = pair.split_at(room.0 as usize);
        for ((upper, lower), x) in upper.iter().zip(lower).zip(place_in.x..) {
            if let Some(target) = buffer.cell_mut(Position::new(x, y)) {
                target.set_char(UPPER_HALF).set_fg(palette.of_pixel(*upper)).set_bg(palette.of_pixel(*lower));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Cell;

    fn status() -> VmStatus {
        VmStatus { name: "dos".into(), state: "running".into(), ..VmStatus::default() }
    }

    fn drawn(size: (u16, u16), picture: Option<&Frame>, palette: Palette) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a test terminal");
        let status = status();
        let screen = Screen { picture, status: &status, palette };
        terminal.draw(|area| draw(area, &screen)).expect("drawn");
        terminal
    }

    fn line(terminal: &Terminal<TestBackend>, y: u16) -> String {
        let buffer = terminal.backend().buffer();
        (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect()
    }

    fn cell(terminal: &Terminal<TestBackend>, x: u16, y: u16) -> Cell {
        terminal.backend().buffer()[(x, y)].clone()
    }

    fn text_frame(columns: u16, rows: u16, cursor: Option<(u16, u16)>) -> Frame {
        let cells = (0..columns * rows).map(|i| 0x0700 | (0x41 + i % columns + i / columns)).collect();
        let text = Some(TextScreen { columns, rows, cells, cursor });
        Frame { width: 1, height: 1, pixels: vec![0], text }
    }

    #[test]
    fn text_has_its_characters_colours_and_cursor() {
        let mut frame = text_frame(4, 2, Some((1, 1)));
        if let Some(text) = &mut frame.text {
            text.cells[0] = 0x1ec9; // yellow on blue, a frame's corner
            text.cells[1] = 0x8441; // blinking red on black
        }
        let mut terminal = drawn((6, 3), Some(&frame), Palette::True);

        assert_eq!(line(&terminal, 0), " ╔ACD ");
        assert_eq!(cell(&terminal, 1, 0).fg, Color::Rgb(0xff, 0xff, 0x55));
        assert_eq!(cell(&terminal, 1, 0).bg, Color::Rgb(0, 0, 0xaa));
        assert!(cell(&terminal, 2, 0).modifier.contains(Modifier::SLOW_BLINK));
        assert_eq!(cell(&terminal, 2, 0).bg, Color::Rgb(0, 0, 0));
        terminal.backend_mut().assert_cursor_position((2, 1));

        let basic = drawn((6, 3), Some(&frame), Palette::Indexed);
        assert_eq!((cell(&basic, 1, 0).fg, cell(&basic, 1, 0).bg), (Color::LightYellow, Color::Blue));
    }

    #[test]
    fn small_terminal_shows_the_part_with_the_cursor() {
        let mut terminal = drawn((3, 3), Some(&text_frame(10, 10, Some((8, 9)))), Palette::True);
        // Columns 6 to 8 of the last two rows.
        assert_eq!([line(&terminal, 0), line(&terminal, 1)], ["OPQ", "PQR"]);
        terminal.backend_mut().assert_cursor_position((2, 1));
        let terminal = drawn((3, 3), Some(&text_frame(10, 10, Some((0, 0)))), Palette::True);
        assert_eq!([line(&terminal, 0), line(&terminal, 1)], ["ABC", "BCD"]);
    }

    #[test]
    fn pixels_are_drawn_two_to_a_cell() {
        let pixels = vec![0xff0000, 0x00ff00, 0x0000ff, 0xffffff];
        let frame = Frame { width: 2, height: 2, pixels, text: None };
        let terminal = drawn((2, 2), Some(&frame), Palette::True);
        let (left, right) = (cell(&terminal, 0, 0), cell(&terminal, 1, 0));
        assert_eq!(left.symbol(), "▀");
        assert_eq!((left.fg, left.bg), (Color::Rgb(0xff, 0, 0), Color::Rgb(0, 0, 0xff)));
        assert_eq!((right.fg, right.bg), (Color::Rgb(0, 0xff, 0), Color::Rgb(0xff, 0xff, 0xff)));
    }

    #[test]
    fn large_pictures_are_scaled_down_and_centred() {
        let frame = Frame { width: 640, height: 480, pixels: vec![0xffffff; 640 * 480], text: None };
        // 40 columns by 11 rows of two pixels: 29 x 22 pixels.
        let terminal = drawn((40, 12), Some(&frame), Palette::True);
        let white = Color::Rgb(0xff, 0xff, 0xff);
        let first = (0..40).find(|x| cell(&terminal, *x, 5).fg == white);
        assert_eq!(first, Some(5));
        assert_eq!((0..40).filter(|x| cell(&terminal, *x, 5).fg == white).count(), 29);
    }

    #[test]
    fn status_line_tells_name_state_and_the_way_out() {
        let terminal = drawn((60, 5), None, Palette::True);
        let status_line = line(&terminal, 4);
        assert!(status_line.starts_with(" dos - running"), "{status_line}");
        assert!(status_line.trim_end().ends_with("Ctrl+] leaves"), "{status_line}");
        assert!(cell(&terminal, 30, 4).modifier.contains(Modifier::REVERSED));
        assert!(line(&terminal, 0).contains("No picture yet"));
        let narrow = drawn((16, 2), None, Palette::True);
        assert_eq!(line(&narrow, 1), " dos - running  ");
    }

    #[test]
    fn no_size_is_too_small() {
        let graphics = Frame { width: 320, height: 200, pixels: vec![0; 64_000], text: None };
        let torn = Frame { width: 320, height: 200, pixels: vec![0; 7], text: None };
        let off = text_frame(80, 25, Some((500, 500)));
        for size in [(0, 0), (1, 1), (1, 2), (2, 1), (3, 9), (200, 70)] {
            for picture in [None, Some(&graphics), Some(&torn), Some(&off)] {
                drawn(size, picture, Palette::Indexed);
            }
        }
    }

    #[test]
    fn cube_colours_are_the_nearest() {
        assert_eq!(Palette::Indexed.of_pixel(0x000000), Color::Indexed(16));
        assert_eq!(Palette::Indexed.of_pixel(0xffffff), Color::Indexed(231));
        assert_eq!(Palette::Indexed.of_pixel(0x5f0087), Color::Indexed(16 + 36 + 2));
    }
}
