//! Fitting a picture into an area: where it goes, and what each pixel there shows.

use crate::source::Frame;

/// How the picture fills the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// As large as fits with the right proportions.
    #[default]
    Fit,
    /// As `Fit`, but only whole multiples of the picture's width where there is room for one.
    Integer,
}

/// A rectangle in an area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Distance from the left edge.
    pub x: u32,
    /// Distance from the top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Most rows of a graphics mode that a VGA monitor stretched to its 4:3 screen.
const LAST_STRETCHED_ROW_COUNT: u32 = 400;

/// The proportions of a picture as it is to be seen: width and height in square pixels, neither
/// less than the picture's own.
///
/// A monitor showed 320x200 as well as 640x480 on a 4:3 screen. Text is left as it is: letters
/// drawn with whole pixels are easier to read than letters of the right shape.
pub fn proportions(frame: &Frame) -> (u32, u32) {
    let (width, height) = (frame.width, frame.height);
    if frame.text.is_some() || height > LAST_STRETCHED_ROW_COUNT {
        return (width, height);
    }
    let full_height = width.saturating_mul(3) / 4;
    if full_height >= height { (width, full_height) } else { (height.saturating_mul(4) / 3, height) }
}

/// Where a picture of `proportions` goes in an area of the given size. Never empty, and never
/// outside an area that is not empty.
pub fn place(proportions: (u32, u32), area: (u32, u32), scaling: Scaling) -> Rect {
    let (width, height) = (u64::from(proportions.0.max(1)), u64::from(proportions.1.max(1)));
    let (area_width, area_height) = (u64::from(area.0.max(1)), u64::from(area.1.max(1)));
    let (mut to_width, mut to_height) = if area_width * height <= area_height * width {
        (area_width, area_width * height / width)
    } else {
        (area_height * width / height, area_height)
    };
    if scaling == Scaling::Integer && to_width >= width {
        to_width -= to_width % width;
        to_height = to_width * height / width;
    }
    let (to_width, to_height) = (to_width.max(1), to_height.max(1));
    Rect {
        x: ((area_width - to_width) / 2) as u32,
        y: ((area_height - to_height) / 2) as u32,
        width: to_width as u32,
        height: to_height as u32,
    }
}

/// Which source pixels, in one direction, a pixel of the result covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: usize,
    last: usize,
    /// Weights of the first and the last one; those between have `full`.
    first_weight: u64,
    last_weight: u64,
}

impl Span {
    fn weight(&self, index: usize, full: u64) -> u64 {
        match index {
            _ if index == self.first => self.first_weight,
            _ if index == self.last => self.last_weight,
            _ => full,
        }
    }
}

/// The spans of `to` result pixels over `from` source pixels. Lengths are measured in units of
/// 1/`to` source pixel, so that each span is `from` long and all numbers are whole.
fn spans(from: u32, to: u32) -> Vec<Span> {
    let (from, to) = (u64::from(from), u64::from(to));
    (0..to)
        .map(|index| {
            let (start, end) = (index * from, (index + 1) * from);
            let (first, last) = (start / to, (end - 1) / to);
            Span {
                first: first as usize,
                last: last as usize,
                first_weight: end.min((first + 1) * to) - start,
                last_weight: end - start.max(last * to),
            }
        })
        .collect()
}

/// Scales pictures of one size to another, each result pixel being the mean of what it covers.
///
/// Scaled up, pixels stay sharp: only result pixels on a border between two show a mix.
pub struct Scaler {
    from: (u32, u32),
    columns: Vec<Span>,
    rows: Vec<Span>,
}

impl Scaler {
    /// A scaler between two sizes, none of them empty.
    pub fn new(from: (u32, u32), to: (u32, u32)) -> Self {
        let from = (from.0.max(1), from.1.max(1));
        Self { from, columns: spans(from.0, to.0), rows: spans(from.1, to.1) }
    }

    /// The size that it scales from and the size that it scales to.
    pub fn sizes(&self) -> ((u32, u32), (u32, u32)) {
        (self.from, (self.columns.len() as u32, self.rows.len() as u32))
    }

    /// Whether row `y` of every result equals the row above.
    pub fn repeats_row(&self, y: usize) -> bool {
        y > 0 && self.rows.get(y) == self.rows.get(y - 1)
    }

    /// Computes row `y` of the result into `out`. `pixels` is a picture of the size scaled from;
    /// what is missing of it leaves `out` as it was.
    pub fn row(&self, pixels: &[u32], y: usize, out: &mut [u32]) {
        let width = self.from.0 as usize;
        let Some(row) = self.rows.get(y) else { return };
        let Some(pixels) = pixels.get(row.first * width..(row.last + 1) * width) else { return };
        for (column, out) in self.columns.iter().zip(out) {
            *out = if row.first == row.last && column.first == column.last {
                pixels[column.first]
            } else {
                self.mean(pixels, row, column)
            };
        }
    }

    /// The weighted mean of an area; `pixels` starts at the first row of `row`.
    fn mean(&self, pixels: &[u32], row: &Span, column: &Span) -> u32 {
        let width = self.from.0 as usize;
        let (full_row, full_column) = (self.rows.len() as u64, self.columns.len() as u64);
        let mut sums = [0_u64; 3];
        for (line, y) in pixels.chunks_exact(width).zip(row.first..) {
            let row_weight = row.weight(y, full_row);
            for (pixel, x) in line[column.first..=column.last].iter().zip(column.first..) {
                let weight = row_weight * column.weight(x, full_column);
                let [_, channels @ ..] = pixel.to_be_bytes();
                for (sum, channel) in sums.iter_mut().zip(channels) {
                    *sum += weight * u64::from(channel);
                }
            }
        }
        let total = u64::from(self.from.0) * u64::from(self.from.1);
        let [red, green, blue] = sums.map(|sum| ((sum + total / 2) / total) as u8);
        u32::from_be_bytes([0, red, green, blue])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::TextScreen;

    fn frame(width: u32, height: u32, text: bool) -> Frame {
        Frame { width, height, pixels: Vec::new(), text: text.then(TextScreen::default) }
    }

    fn scale(pixels: &[u32], from: (u32, u32), to: (u32, u32)) -> Vec<u32> {
        let scaler = Scaler::new(from, to);
        let mut out = vec![0; (to.0 * to.1) as usize];
        for (y, row) in out.chunks_exact_mut(to.0 as usize).enumerate() {
            scaler.row(pixels, y, row);
        }
        out
    }

    #[test]
    fn old_graphics_modes_are_seen_as_on_a_4_to_3_monitor() {
        assert_eq!(proportions(&frame(320, 200, false)), (320, 240));
        assert_eq!(proportions(&frame(640, 200, false)), (640, 480));
        assert_eq!(proportions(&frame(640, 350, false)), (640, 480));
        assert_eq!(proportions(&frame(320, 400, false)), (533, 400));
        assert_eq!(proportions(&frame(640, 480, false)), (640, 480));
        assert_eq!(proportions(&frame(1280, 1024, false)), (1280, 1024));
        assert_eq!(proportions(&frame(720, 400, true)), (720, 400));
    }

    #[test]
    fn picture_is_centred_in_what_it_does_not_fill() {
        let wide = place((320, 240), (1000, 480), Scaling::Fit);
        assert_eq!(wide, Rect { x: 180, y: 0, width: 640, height: 480 });
        let tall = place((720, 400), (720, 1000), Scaling::Fit);
        assert_eq!(tall, Rect { x: 0, y: 300, width: 720, height: 400 });
    }

    #[test]
    fn integer_scaling_takes_whole_multiples_when_there_is_room() {
        let large = place((320, 240), (1000, 900), Scaling::Integer);
        assert_eq!(large, Rect { x: 20, y: 90, width: 960, height: 720 });
        let small = place((720, 400), (360, 400), Scaling::Integer);
        assert_eq!(small, Rect { x: 0, y: 100, width: 360, height: 200 });
    }

    #[test]
    fn placement_stays_inside_any_area() {
        for proportions in [(0, 0), (1, 4000), (4000, 1), (720, 400)] {
            for area in [(0, 0), (1, 1), (1, 3000), (3000, 2), (u32::MAX, 7)] {
                for scaling in [Scaling::Fit, Scaling::Integer] {
                    let rect = place(proportions, area, scaling);
                    assert!(rect.width > 0 && rect.height > 0);
                    assert!(rect.x + rect.width <= area.0.max(1), "{proportions:?} {area:?}");
                    assert!(rect.y + rect.height <= area.1.max(1), "{proportions:?} {area:?}");
                }
            }
        }
    }

    #[test]
    fn whole_multiples_repeat_pixels() {
        let scaled = scale(&[1, 2, 3, 4], (2, 2), (4, 4));
        assert_eq!(scaled, [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        let scaler = Scaler::new((2, 2), (4, 4));
        assert_eq!([0, 1, 2, 3].map(|y| scaler.repeats_row(y)), [false, true, false, true]);
    }

    #[test]
    fn only_borders_are_mixed_when_scaled_up() {
        assert_eq!(scale(&[0x000000, 0xff00ff], (2, 1), (3, 1)), [0x000000, 0x800080, 0xff00ff]);
    }

    #[test]
    fn scaled_down_pixels_are_means() {
        assert_eq!(scale(&[0x00, 0x40, 0x80, 0xc0], (2, 2), (1, 1)), [0x60]);
        assert_eq!(scale(&[0x30, 0x60, 0x90], (3, 1), (2, 1)), [0x40, 0x80]);
        assert_eq!(scale(&[0x123456; 720 * 400], (720, 400), (133, 71)), vec![0x123456; 133 * 71]);
    }

    #[test]
    fn short_picture_is_no_panic() {
        let mut out = [7; 4];
        Scaler::new((4, 4), (4, 4)).row(&[0; 5], 3, &mut out);
        assert_eq!(out, [7; 4]);
    }
}
