//! Pictures of the screen as PNG files.

use crate::source::Frame;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a screenshot could not be written.
#[derive(Debug, Error)]
pub enum ScreenshotError {
    /// The picture has no pixels, or not as many as its size says.
    #[error("There is no picture on the screen")]
    NoPicture,
    /// The file could not be created.
    #[error("Cannot create {path}")]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The picture could not be encoded or written.
    #[error("Cannot write the picture")]
    Write(#[from] png::EncodingError),
}

/// Writes `frame` to the PNG file `path`, replacing what is there.
///
/// # Errors
/// [`ScreenshotError`].
pub fn save(frame: &Frame, path: &Path) -> Result<(), ScreenshotError> {
    if !frame.is_complete() {
        // Before an older file is lost.
        return Err(ScreenshotError::NoPicture);
    }
    let file =
        File::create(path).map_err(|source| ScreenshotError::Create { path: path.to_owned(), source })?;
    encode(frame, BufWriter::new(file))
}

/// Writes `frame` as PNG to `out`.
///
/// # Errors
/// [`ScreenshotError`].
pub fn encode(frame: &Frame, out: impl Write) -> Result<(), ScreenshotError> {
    if !frame.is_complete() {
        return Err(ScreenshotError::NoPicture);
    }
    let rgb: Vec<u8> = frame
        .pixels
        .iter()
        .flat_map(|pixel| {
            let [_, red, green, blue] = pixel.to_be_bytes();
            [red, green, blue]
        })
        .collect();
    let mut encoder = png::Encoder::new(out, frame.width, frame.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn picture_survives_the_file() {
        let frame = Frame { width: 3, height: 1, pixels: vec![0xff0000, 0x00ff01, 0x0200ff], text: None };
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("shot.png");

        save(&frame, &path).expect("written");

        let bytes = std::fs::read(&path).expect("the file");
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("a picture");
        assert_eq!((info.width, info.height), (3, 1));
        assert_eq!(pixels, [0xff, 0, 0, 0, 0xff, 1, 2, 0, 0xff]);
    }

    #[test]
    fn missing_picture_leaves_the_old_file_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("shot.png");
        std::fs::write(&path, "old").expect("written");

        assert!(matches!(save(&Frame::default(), &path), Err(ScreenshotError::NoPicture)));
        assert_eq!(std::fs::read(&path).expect("the file"), b"old");
        let nowhere = directory.path().join("no/such/place.png");
        let frame = Frame { width: 1, height: 1, pixels: vec![0], text: None };
        assert!(matches!(save(&frame, &nowhere), Err(ScreenshotError::Create { .. })));
    }
}
