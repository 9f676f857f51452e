//! The hash of recordings: fast, and the same in every build. It guards against accidents, not attackers.

use super::format::PictureHash;
use crate::device::Frame;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const TURN: u32 = 29;

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(TURN)
}

/// Hash of words.
pub fn hash_words(words: impl Iterator<Item = u64>) -> u64 {
    let (hash, count) = words.fold((0, 0u64), |(hash, count), word| (mix(hash, word), count + 1));
    mix(mix(hash, count), 0)
}

/// Hash of bytes.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain(std::iter::once(&last)).map(|word| u64::from_le_bytes(*word));
    mix(hash_words(words), bytes.len() as u64)
}

/// Hash of a picture.
pub fn hash_picture(frame: &Frame) -> PictureHash {
    let rows = frame.pixels.chunks((frame.width as usize).max(1) * PictureHash::ROWS);
    let rows = rows.map(|rows| hash_words(rows.iter().map(|pixel| u64::from(*pixel)))).collect();
    let text = frame.text.as_ref().map_or(0, |text| {
        let size = u64::from(text.columns) << 16 | u64::from(text.rows);
        let cursor = text.cursor.map_or(u64::MAX, |(column, row)| u64::from(column) << 16 | u64::from(row));
        hash_words(text.cells.iter().map(|cell| u64::from(*cell)).chain([size, cursor]))
    });
    PictureHash { width: frame.width, height: frame.height, rows, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_every_byte_count() {
        let bytes = [0u8; 20];
        let whole = hash_bytes(&bytes);
        assert_ne!(whole, hash_bytes(&bytes[..19]));
        for at in 0..bytes.len() {
            let mut other = bytes;
            other[at] = 1;
            assert_ne!(whole, hash_bytes(&other), "byte {at}");
        }
    }

    #[test]
    fn a_changed_pixel_shows_in_its_rows_only() {
        let mut frame = Frame { width: 4, height: 32, pixels: vec![0; 128], text: None };
        let before = hash_picture(&frame);
        frame.pixels[4 * 17] = 1;
        let after = hash_picture(&frame);
        let changed: Vec<_> = (0..4).filter(|n| before.rows[*n] != after.rows[*n]).collect();
        assert_eq!(changed, [2]);
    }
}
