//! Pixels of the VBE modes.

use super::Scanout;
use crate::device::Frame;
use crate::gpu::vga::graphics::draw_planar;
use crate::gpu::vga::palette::Colors;

/// Draws a picture from the visible bytes, `scanout.line_len` per line without gaps.
pub(crate) fn draw(scanout: &Scanout, visible: &[u8], colors: &Colors, frame: &mut Frame) {
    frame.width = scanout.width;
    frame.height = scanout.height;
    frame.text = None;
    frame.pixels.clear();
    let pixels = &mut frame.pixels;
    match scanout.bits {
        4 => {
            pixels.resize(visible.len() * 2, 0);
            let (cells, _) = visible.as_chunks::<4>();
            for (cell, out) in cells.iter().zip(pixels.chunks_exact_mut(8)) {
                draw_planar(*cell, &colors.attribute, out);
            }
        }
        8 => pixels.extend(visible.iter().map(|&index| colors.direct[usize::from(index)])),
        15 => pixels.extend(visible.as_chunks().0.iter().map(|pixel| rgb_555(u16::from_le_bytes(*pixel)))),
        16 => pixels.extend(visible.as_chunks().0.iter().map(|pixel| rgb_565(u16::from_le_bytes(*pixel)))),
        24 => pixels.extend(visible.as_chunks().0.iter().map(|&[b, g, r]| u32::from_be_bytes([0, r, g, b]))),
        _ => {
            pixels.extend(visible.as_chunks().0.iter().map(|&[b, g, r, _]| u32::from_be_bytes([0, r, g, b])));
        }
    }
}

/// Widens a 5-bit level to 8 bits.
fn level_5(value: u16) -> u32 {
    let value = u32::from(value & 0x1f);
    value << 3 | value >> 2
}

fn rgb_555(pixel: u16) -> u32 {
    level_5(pixel >> 10) << 16 | level_5(pixel >> 5) << 8 | level_5(pixel)
}

fn rgb_565(pixel: u16) -> u32 {
    let green = u32::from(pixel >> 5 & 0x3f);
    level_5(pixel >> 11) << 16 | (green << 2 | green >> 4) << 8 | level_5(pixel)
}
