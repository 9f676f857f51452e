//! The graphics modes: 16 colours in planes, CGA's packed and interleaved layouts, 256 colours in
//! chain 4 and mode X.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Graphics Modes", "Graphics Mode
//! Register" (shift registers) and "Horizontal PEL Panning Register".

use super::palette::Colors;
use super::registers::Registers;
use super::scan::{Planes, Raster};
use super::spec::{PLANES, attribute, graphics};
use crate::device::Frame;

/// How the shift registers make pixels of four plane bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    /// Eight pixels; a bit of each plane.
    Planar,
    /// Eight pixels of two bits, four from plane 0, then four from plane 1 (high bits from 2 and 3).
    Interleaved,
    /// Four pixels of eight bits, one from each plane.
    Packed,
}

impl Shift {
    fn decode(registers: &Registers) -> Self {
        let mode = registers.graphics[graphics::MODE];
        match () {
            () if mode & graphics::SHIFT_256 != 0 => Shift::Packed,
            () if mode & graphics::SHIFT_INTERLEAVE != 0 => Shift::Interleaved,
            () => Shift::Planar,
        }
    }

    /// Pixels of one character clock.
    fn pixels(self) -> usize {
        match self {
            Shift::Packed => PLANES,
            Shift::Planar | Shift::Interleaved => 8,
        }
    }

    fn draw(self, bytes: [u8; PLANES], colors: &Colors, out: &mut [u32]) {
        match self {
            Shift::Packed => {
                for (pixel, byte) in out.iter_mut().zip(bytes) {
                    *pixel = colors.direct[usize::from(byte)];
                }
            }
            Shift::Planar => draw_planar(bytes, &colors.attribute, out),
            Shift::Interleaved => {
                let [p0, p1, p2, p3] = bytes;
                for (half, (low, high)) in out.chunks_mut(4).zip([(p0, p2), (p1, p3)]) {
                    for (n, pixel) in half.iter_mut().enumerate() {
                        let shift = 6 - 2 * n.min(3);
                        let index = (low >> shift & 0b11) | (high >> shift & 0b11) << 2;
                        *pixel = colors.attribute[usize::from(index)];
                    }
                }
            }
        }
    }
}

/// Eight pixels of a 16-colour planar mode.
pub(crate) fn draw_planar(bytes: [u8; PLANES], palette: &[u32; attribute::PALETTE_COUNT], out: &mut [u32]) {
    let [p0, p1, p2, p3] = bytes;
    for (n, pixel) in out.iter_mut().enumerate() {
        let shift = 7 - n.min(7);
        let bit = |plane: u8| plane >> shift & 1;
        *pixel = palette[usize::from(bit(p0) | bit(p1) << 1 | bit(p2) << 2 | bit(p3) << 3)];
    }
}

/// Draws a graphics screen.
pub(crate) fn draw(registers: &Registers, planes: &Planes<'_>, colors: &Colors, frame: &mut Frame) {
    let raster = Raster::decode(&registers.crtc);
    let shift = Shift::decode(registers);
    let pixels = shift.pixels();
    let columns = raster.columns as usize;
    let width = columns * pixels;
    let step = raster.repeat();
    frame.width = width as u32;
    frame.height = raster.lines.div_ceil(step);
    frame.text = None;
    frame.pixels.clear();
    frame.pixels.reserve(width * frame.height as usize);

    let mut line_pixels = vec![0; (columns + 1) * pixels];
    for line in raster.walk().step_by(step as usize) {
        for (column, out) in line_pixels.chunks_exact_mut(pixels).enumerate() {
            let counter = raster.counter(line.row, column as u32);
            shift.draw(planes.fetch(raster.plane_offset(counter, line.row_scan)), colors, out);
        }
        let left = panning(registers, shift, line.below_split);
        frame.pixels.extend_from_slice(&line_pixels[left..left + width]);
    }
}

/// Pixels by which the picture moves to the left; less than a character's.
fn panning(registers: &Registers, shift: Shift, below_split: bool) -> usize {
    let attributes = &registers.attribute;
    if below_split && attributes[attribute::MODE_CONTROL] & attribute::PANNING_COMPATIBILITY != 0 {
        return 0;
    }
    let dots = usize::from(attributes[attribute::PEL_PANNING] & 0x07);
    // A 256-colour pixel is two dots wide.
    if shift == Shift::Packed { dots / 2 } else { dots }
}
