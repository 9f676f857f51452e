//! How the CRT controller walks through display memory, line by line.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "CRT Controller Registers".

use super::spec::{FONT_PLANE, PLANE_LEN, PLANES, crtc};
use super::timing::Vertical;

/// A snapshot of the VGA's part of display memory, as the shift registers see it.
pub(crate) struct Planes<'a> {
    /// The interleaved planes.
    pub vram: &'a [u8],
    /// The text window, while it holds the truth of planes 0 and 1.
    pub text: Option<&'a [u8]>,
}

impl Planes<'_> {
    /// One byte of each plane.
    #[inline]
    pub fn fetch(&self, offset: usize) -> [u8; PLANES] {
        let at = PLANES * (offset % PLANE_LEN);
        let bytes = self.vram.get(at..at + PLANES).and_then(|b| <[u8; PLANES]>::try_from(b).ok());
        let mut bytes = bytes.unwrap_or_default();
        if offset & 1 == 0
            && let Some(pair) = self.text.and_then(|text| text.get(offset..offset + 2))
        {
            bytes[..2].copy_from_slice(pair);
        }
        bytes
    }

    /// One byte of the font plane.
    #[inline]
    pub fn font(&self, offset: usize) -> u8 {
        self.vram.get(PLANES * (offset % PLANE_LEN) + FONT_PLANE).copied().unwrap_or(0)
    }
}

/// How the address counter's output becomes a memory address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressing {
    /// As it is. Also doubleword mode: chain 4 keeps its bytes together (see `memory.rs`).
    Byte,
    /// Shifted left by one; this bit of the counter comes in at the bottom.
    Word { wrap_bit: u32 },
}

/// The CRTC's programming, as far as addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raster {
    /// Characters in a line.
    pub columns: u32,
    /// Scan lines shown.
    pub lines: u32,
    /// Scan lines of a character row.
    pub row_height: u32,
    /// Memory addresses from one row to the next.
    pub pitch: u32,
    /// Every scan line appears twice.
    pub double_scan: bool,
    /// Row scan bits replace address bits (CGA and Hercules layouts).
    pub interleaved_rows: bool,
    start: u32,
    preset_row: u32,
    line_compare: u32,
    addressing: Addressing,
    row_scan_0: bool,
    row_scan_1: bool,
    count_shift: u32,
}

impl Raster {
    /// Decodes CRTC registers.
    pub fn decode(registers: &[u8; crtc::COUNT]) -> Self {
        let vertical = Vertical::decode(registers);
        let mode = registers[crtc::MODE_CONTROL];
        let underline = registers[crtc::UNDERLINE_LOCATION];
        let max_scan = registers[crtc::MAXIMUM_SCAN_LINE];
        let preset = registers[crtc::PRESET_ROW_SCAN];
        let start = u32::from(registers[crtc::START_ADDRESS_HIGH]) << 8
            | u32::from(registers[crtc::START_ADDRESS_LOW]);
        let panned = u32::from(preset >> crtc::BYTE_PANNING_SHIFT & 0b11);
        let addressing = if mode & crtc::BYTE_MODE != 0 || underline & crtc::DOUBLEWORD != 0 {
            Addressing::Byte
        } else {
            Addressing::Word { wrap_bit: if mode & crtc::ADDRESS_WRAP != 0 { 15 } else { 13 } }
        };
        let row_scan_0 = mode & crtc::ROW_SCAN_0_OFF == 0;
        let row_scan_1 = mode & crtc::ROW_SCAN_1_OFF == 0;
        let count_shift = match () {
            () if underline & crtc::COUNT_BY_4 != 0 => 2,
            () if mode & crtc::COUNT_BY_2 != 0 => 1,
            () => 0,
        };
        let half = u32::from(mode & crtc::VERTICAL_HALF != 0);
        Self {
            columns: u32::from(registers[crtc::HORIZONTAL_DISPLAY_END]) + 1,
            lines: vertical.display << half,
            row_height: u32::from(max_scan & crtc::MAXIMUM_SCAN_LINE_MASK) + 1,
            pitch: 2 * u32::from(registers[crtc::OFFSET]),
            double_scan: max_scan & crtc::DOUBLE_SCAN != 0,
            interleaved_rows: row_scan_0 || row_scan_1,
            start: start + panned,
            preset_row: u32::from(preset & crtc::PRESET_ROW_MASK),
            line_compare: vertical.line_compare << half,
            addressing,
            row_scan_0,
            row_scan_1,
            count_shift,
        }
    }

    /// Scan lines that show the same pixels in a graphics mode.
    pub fn repeat(&self) -> u32 {
        let rows = if self.interleaved_rows { 1 } else { self.row_height };
        if self.double_scan { 2 * rows } else { rows }
    }

    /// Address counter at character `column` of a row that starts at `row`.
    pub fn counter(&self, row: u32, column: u32) -> u32 {
        (row + (column >> self.count_shift)) & 0xffff
    }

    /// Byte of a plane that the counter addresses.
    #[inline]
    pub fn plane_offset(&self, counter: u32, row_scan: u32) -> usize {
        let mut address = match self.addressing {
            Addressing::Byte => counter,
            Addressing::Word { wrap_bit } => counter << 1 | (counter >> wrap_bit & 1),
        };
        if self.row_scan_0 {
            address = (address & !(1 << 13)) | (row_scan & 1) << 13;
        }
        if self.row_scan_1 {
            address = (address & !(1 << 14)) | (row_scan >> 1 & 1) << 14;
        }
        address as usize % PLANE_LEN
    }

    /// All scan lines from the top.
    pub fn walk(self) -> Walk {
        Walk {
            raster: self,
            next: 0,
            line: ScanLine { row: self.start & 0xffff, row_scan: self.preset_row, below_split: false },
            second: false,
        }
    }
}

/// Where one scan line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanLine {
    /// Address counter at its first character.
    pub row: u32,
    /// Row scan counter.
    pub row_scan: u32,
    /// Below line compare.
    pub below_split: bool,
}

/// The sequence of scan lines of a frame.
pub(crate) struct Walk {
    raster: Raster,
    next: u32,
    line: ScanLine,
    second: bool,
}

impl Iterator for Walk {
    type Item = ScanLine;

    fn next(&mut self) -> Option<ScanLine> {
        if self.next >= self.raster.lines {
            return None;
        }
        let current = self.line;
        if self.next == self.raster.line_compare {
            // The counters are cleared at the end of this line.
            self.line = ScanLine { row: 0, row_scan: 0, below_split: true };
            self.second = false;
        } else if self.raster.double_scan && !self.second {
            self.second = true;
        } else {
            self.second = false;
            if self.line.row_scan + 1 == self.raster.row_height {
                self.line.row_scan = 0;
                self.line.row = (self.line.row + self.raster.pitch) & 0xffff;
            } else {
                // Counts on past the end of the row when the preset was beyond it, as five bits do.
                self.line.row_scan = (self.line.row_scan + 1) & u32::from(crtc::MAXIMUM_SCAN_LINE_MASK);
            }
        }
        self.next += 1;
        Some(current)
    }
}
