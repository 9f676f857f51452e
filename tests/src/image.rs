//! Screenshots.

use std::collections::BTreeMap;
use std::path::Path;

/// A picture, as RGB triples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row by row.
    pub colours: Vec<[u8; 3]>,
}

/// Reads a PNG file of 8-bit RGB or RGBA.
pub fn read_png(path: &Path) -> Pixels {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("the screenshot"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG file");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a picture that fits memory")];
    let info = reader.next_frame(&mut bytes).expect("a whole picture");
    let samples = info.color_type.samples();
    let colours = bytes[..info.buffer_size()].chunks(samples).map(|p| [p[0], p[1], p[2]]).collect();
    Pixels { width: info.width, height: info.height, colours }
}

impl Pixels {
    /// How often each colour occurs.
    pub fn histogram(&self) -> BTreeMap<[u8; 3], usize> {
        let mut counts = BTreeMap::new();
        self.colours.iter().for_each(|colour| *counts.entry(*colour).or_default() += 1);
        counts
    }

    /// Share of pixels that are not black, from 0 to 1.
    pub fn lit(&self) -> f64 {
        let lit = self.colours.iter().filter(|colour| **colour != [0; 3]).count();
        lit as f64 / self.colours.len().max(1) as f64
    }
}
