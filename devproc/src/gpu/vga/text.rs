//! The alphanumeric modes: characters and attributes in planes 0 and 1, fonts in plane 2.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Alphanumeric Modes", "Attribute
//! Controller Registers" and "Character Map Select Register".

use super::palette::Colors;
use super::registers::Registers;
use super::scan::{Planes, Raster};
use super::spec::{self, attribute, crtc, sequencer};
use crate::device::{Frame, TextScreen};

/// First of the line graphics characters, whose ninth dot repeats the eighth.
const LINE_GRAPHICS_FIRST: u8 = 0xc0;
/// Last of them.
const LINE_GRAPHICS_LAST: u8 = 0xdf;
/// Attribute bits: blink, or intense background.
const ATTRIBUTE_BLINK: u8 = 1 << 7;
/// Attribute bits: the font, when there are two.
const ATTRIBUTE_FONT: u8 = 1 << 3;
/// Attribute bits that decide on the underline...
const ATTRIBUTE_UNDERLINE_MASK: u8 = 0x77;
/// ... and their value when it is drawn.
const ATTRIBUTE_UNDERLINE: u8 = 0x01;

/// Which half of the blink period it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blink {
    /// The cursor is on.
    pub cursor: bool,
    /// Blinking characters are on.
    pub characters: bool,
}

impl Blink {
    /// The cursor blinks once in 16 frames, characters once in 32.
    pub fn at_frame(frame: u64) -> Self {
        Self { cursor: frame & 8 == 0, characters: frame & 16 == 0 }
    }
}

/// What in a drawn screen will look different in another half of the blink period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blinking {
    /// A cursor is on the screen.
    pub cursor: bool,
    /// A blinking character is on the screen.
    pub characters: bool,
}

/// Everything constant while one screen is drawn.
struct Style<'a> {
    planes: &'a Planes<'a>,
    colors: &'a [u32; attribute::PALETTE_COUNT],
    dots: usize,
    /// Offsets of the fonts for attribute bit 3 clear and set.
    fonts: [usize; 2],
    line_graphics: bool,
    blink_enabled: bool,
    blink: Blink,
    underline_row: u32,
}

impl Style<'_> {
    /// Draws one scan line of one character cell into `cell` (`dots` pixels).
    fn draw(&self, character: u8, attribute: u8, row_scan: u32, cursor: bool, cell: &mut [u32]) {
        let font = self.fonts[usize::from(attribute & ATTRIBUTE_FONT != 0)];
        let at = font + usize::from(character) * spec::FONT_BYTES_PER_CHARACTER + row_scan as usize;
        let mut bits = u32::from(self.planes.font(at)) << 1;
        let repeats = self.line_graphics && (LINE_GRAPHICS_FIRST..=LINE_GRAPHICS_LAST).contains(&character);
        if repeats {
            bits |= bits >> 1 & 1;
        }
        if row_scan == self.underline_row && attribute & ATTRIBUTE_UNDERLINE_MASK == ATTRIBUTE_UNDERLINE {
            bits = u32::MAX;
        }
        let blinks = self.blink_enabled && attribute & ATTRIBUTE_BLINK != 0;
        if blinks && !self.blink.characters {
            bits = 0;
        }
        if cursor {
            bits = u32::MAX;
        }
        let background = if self.blink_enabled { attribute >> 4 & 0x07 } else { attribute >> 4 };
        let colors =
            [self.colors[usize::from(background & 0x0f)], self.colors[usize::from(attribute & 0x0f)]];
        for (dot, pixel) in cell.iter_mut().enumerate() {
            *pixel = colors[(bits >> (8 - dot.min(8)) & 1) as usize];
        }
    }
}

/// Dots by which the picture moves to the left.
fn panning(registers: &Registers, dots: usize, below_split: bool) -> usize {
    let attributes = &registers.attribute;
    let value = usize::from(attributes[attribute::PEL_PANNING]);
    let fixed = below_split && attributes[attribute::MODE_CONTROL] & attribute::PANNING_COMPATIBILITY != 0;
    match dots {
        _ if fixed => 0,
        // With nine dots, 8 stands for no movement and 0 to 7 for one to eight dots.
        9 if value >= 8 => 0,
        9 => value + 1,
        _ => value & 0x07,
    }
}

/// Draws a text screen.
pub(crate) fn draw(
    registers: &Registers,
    planes: &Planes<'_>,
    colors: &Colors,
    blink: Blink,
    frame: &mut Frame,
) -> Blinking {
    let raster = Raster::decode(&registers.crtc);
    let crtc_registers = &registers.crtc;
    let select = registers.sequencer[sequencer::CHARACTER_MAP_SELECT];
    let eight = registers.sequencer[sequencer::CLOCKING_MODE] & sequencer::EIGHT_DOTS != 0;
    let mode = registers.attribute[attribute::MODE_CONTROL];
    let style = Style {
        planes,
        colors: &colors.attribute,
        dots: if eight { 8 } else { 9 },
        fonts: [font_offset(select, select >> 4), font_offset(select >> 2, select >> 5)],
        line_graphics: mode & attribute::LINE_GRAPHICS != 0,
        blink_enabled: mode & attribute::BLINK != 0,
        blink,
        underline_row: u32::from(crtc_registers[crtc::UNDERLINE_LOCATION] & crtc::UNDERLINE_ROW_MASK),
    };
    let cursor = Cursor::decode(crtc_registers);
    let columns = raster.columns as usize;
    let step = if raster.double_scan { 2 } else { 1 };
    let width = columns * style.dots;
    frame.width = width as u32;
    frame.height = raster.lines.div_ceil(step);
    frame.pixels.clear();
    frame.pixels.reserve(width * frame.height as usize);

    let mut line_pixels = vec![0; (columns + 1) * style.dots];
    // Address counters at the left of the rows that are shown, and how many of their lines.
    let mut rows: Vec<(u32, u32)> = Vec::new();
    let mut below_split = false;
    for line in raster.walk().step_by(step as usize) {
        match rows.last_mut() {
            Some((row, count)) if *row == line.row && line.below_split == below_split => *count += 1,
            _ => rows.push((line.row, 1)),
        }
        below_split = line.below_split;
        for (column, cell) in line_pixels.chunks_exact_mut(style.dots).enumerate() {
            let counter = raster.counter(line.row, column as u32);
            let [character, attribute, ..] = planes.fetch(raster.plane_offset(counter, line.row_scan));
            let on_cursor = blink.cursor && cursor.covers(counter, line.row_scan);
            style.draw(character, attribute, line.row_scan, on_cursor, cell);
        }
        let shift = panning(registers, style.dots, line.below_split).min(style.dots);
        frame.pixels.extend_from_slice(&line_pixels[shift..shift + width]);
    }
    rows.retain(|(_, count)| *count >= raster.row_height);
    finish(&raster, planes, &cursor, style.blink_enabled, &rows, frame)
}

/// Fills in the characters and finds out what will blink.
fn finish(
    raster: &Raster,
    planes: &Planes<'_>,
    cursor: &Cursor,
    blink_enabled: bool,
    rows: &[(u32, u32)],
    frame: &mut Frame,
) -> Blinking {
    let mut text = frame.text.take().unwrap_or_default();
    text.cells.clear();
    text.cursor = None;
    let mut blinking = Blinking::default();
    for (y, (row, _)) in rows.iter().enumerate() {
        for x in 0..raster.columns {
            let counter = raster.counter(*row, x);
            let [character, attribute, ..] = planes.fetch(raster.plane_offset(counter, 0));
            text.cells.push(u16::from_le_bytes([character, attribute]));
            blinking.characters |= blink_enabled && attribute & ATTRIBUTE_BLINK != 0;
            if cursor.visible(raster.row_height) && counter == cursor.location {
                text.cursor = Some((x as u16, y as u16));
            }
        }
    }
    // Partly shown rows are drawn but not listed: there the cursor is taken to be possible.
    blinking.cursor = cursor.visible(raster.row_height);
    let (columns, rows) = (raster.columns as u16, rows.len() as u16);
    frame.text = Some(TextScreen { columns, rows, ..text });
    blinking
}

/// Offset of a font in plane 2: two select bits count 16 KiB, the third 8 KiB.
fn font_offset(low: u8, high: u8) -> usize {
    (2 * usize::from(low & 0b11) + usize::from(high & 1)) * spec::FONT_LEN
}

/// The hardware cursor.
struct Cursor {
    location: u32,
    first_row: u32,
    last_row: u32,
    off: bool,
}

impl Cursor {
    fn decode(registers: &[u8; crtc::COUNT]) -> Self {
        let (start, end) = (registers[crtc::CURSOR_START], registers[crtc::CURSOR_END]);
        let skew = u32::from(end >> crtc::CURSOR_SKEW_SHIFT & 0b11);
        let location = u32::from(registers[crtc::CURSOR_LOCATION_HIGH]) << 8
            | u32::from(registers[crtc::CURSOR_LOCATION_LOW]);
        Self {
            location: (location + skew) & 0xffff,
            first_row: u32::from(start & crtc::CURSOR_ROW_MASK),
            last_row: u32::from(end & crtc::CURSOR_ROW_MASK),
            off: start & crtc::CURSOR_OFF != 0,
        }
    }

    /// Whether it has any scan line in a character of `height` lines. A start after the end shows
    /// none, as on the VGA (the EGA drew a split cursor).
    fn visible(&self, height: u32) -> bool {
        !self.off && self.first_row <= self.last_row && self.first_row < height
    }

    fn covers(&self, counter: u32, row_scan: u32) -> bool {
        !self.off && counter == self.location && (self.first_row..=self.last_row).contains(&row_scan)
    }
}
