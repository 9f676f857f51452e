//! The picture on the monitor, in shared memory: written by the process with the graphics
//! adapter, read by any number of displays and tools.
//!
//! Two buffers; a reader copies the current one and checks that it was not overwritten meanwhile.

#![expect(unsafe_code)] // For `unsafe impl Shared` and for copying pixels.

use crate::segment::{Segment, SegmentError, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Largest picture: pixels.
pub const MAX_PIXELS: usize = 2560 * 1600;
/// Largest text screen: cells.
pub const MAX_CELLS: usize = 160 * 100;

#[repr(C)]
struct Buffer {
    /// Odd while it is being written.
    sequence: AtomicU64,
    width: AtomicU32,
    height: AtomicU32,
    /// Text columns (bits 0-15) and rows (16-31); 0 in graphics modes.
    text_size: AtomicU32,
    /// Cursor column (bits 0-15), row (16-30), shown (31).
    cursor: AtomicU32,
    cells: [AtomicU32; MAX_CELLS / 2],
    pixels: [AtomicU32; MAX_PIXELS],
}

/// The shared layout.
#[repr(C)]
pub struct ScreenLayout {
    /// Pictures published so far.
    frames: AtomicU64,
    /// Which buffer is current.
    current: AtomicU32,
    reserved: AtomicU32,
    buffers: [Buffer; 2],
}

// SAFETY: repr(C) and atomics only.
unsafe impl Shared for ScreenLayout {}

/// A copy of one picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Its number; grows by one with each picture published.
    pub sequence: u64,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `0x00RRGGBB`, row by row.
    pub pixels: Vec<u32>,
    /// Text columns and rows, in text modes.
    pub text_size: Option<(u16, u16)>,
    /// Character (code page 437) in bits 0-7, attribute in bits 8-15.
    pub cells: Vec<u16>,
    /// Cursor column and row, when shown.
    pub cursor: Option<(u16, u16)>,
}

/// The screen segment.
pub struct Screen {
    segment: Segment,
}

impl Screen {
    /// Creates the segment; memory is taken as pictures get larger.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn create(name: &str) -> Result<Self, SegmentError> {
        Ok(Self { segment: Segment::create_sparse(name, size_of::<ScreenLayout>() as u64)? })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let segment = Segment::open(name)?;
        segment.view::<ScreenLayout>()?;
        Ok(Self { segment })
    }

    fn layout(&self) -> &ScreenLayout {
        // SAFETY: size and alignment were checked by `view` in `open`, or given in `create`.
        unsafe { &*self.segment.as_ptr().cast::<ScreenLayout>() }
    }

    /// Pictures published so far.
    pub fn sequence(&self) -> u64 {
        self.layout().frames.load(Ordering::Acquire)
    }

    /// Publishes a picture (its `sequence` is ignored). False when it is too large or inconsistent.
    #[must_use]
    pub fn publish(&self, width: u32, height: u32, pixels: &[u32], text: Option<TextView<'_>>) -> bool {
        let count = width as usize * height as usize;
        if count > MAX_PIXELS || pixels.len() != count {
            return false;
        }
        let cells = text.as_ref().map_or(0, |t| t.cells.len());
        if cells > MAX_CELLS
            || text.as_ref().is_some_and(|t| usize::from(t.columns) * usize::from(t.rows) != cells)
        {
            return false;
        }
        let layout = self.layout();
        let target = (layout.current.load(Ordering::Relaxed) & 1) ^ 1;
        let buffer = &layout.buffers[target as usize];
        let sequence = buffer.sequence.load(Ordering::Relaxed) | 1;
        buffer.sequence.store(sequence, Ordering::Relaxed);
        // SYNC POINT picture: the odd sequence is visible before any pixel changes.
        crate::sync::fence(Ordering::Release);
        buffer.width.store(width, Ordering::Relaxed);
        buffer.height.store(height, Ordering::Relaxed);
        let (size, cursor) = text.as_ref().map_or((0, 0), |t| {
            let cursor = t.cursor.map_or(0, |(x, y)| u32::from(x) | u32::from(y & 0x7fff) << 16 | 1 << 31);
            (u32::from(t.columns) | u32::from(t.rows) << 16, cursor)
        });
        buffer.text_size.store(size, Ordering::Relaxed);
        buffer.cursor.store(cursor, Ordering::Relaxed);
        if let Some(text) = text {
            for (cell, pair) in buffer.cells.iter().zip(text.cells.chunks(2)) {
                let high = pair.get(1).copied().unwrap_or(0);
                cell.store(u32::from(pair[0]) | u32::from(high) << 16, Ordering::Relaxed);
            }
        }
        let target_pixels = buffer.pixels.as_ptr().cast_mut().cast::<u32>();
        // SAFETY: `count` was checked against the buffer; the memory is atomics (UnsafeCell) and
        // this process is its only writer; readers notice through the sequence.
        unsafe { target_pixels.copy_from_nonoverlapping(pixels.as_ptr(), count) };
        buffer.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        layout.current.store(target, Ordering::Release);
        layout.frames.fetch_add(1, Ordering::Release);
        true
    }

    /// Copies the current picture; `None` when none was published yet.
    pub fn picture(&self) -> Option<Picture> {
        let layout = self.layout();
        for _ in 0..1000 {
            let frames = layout.frames.load(Ordering::Acquire);
            if frames == 0 {
                return None;
            }
            let buffer = &layout.buffers[(layout.current.load(Ordering::Acquire) & 1) as usize];
            let before = buffer.sequence.load(Ordering::Acquire);
            if let Some(picture) = copy(buffer, frames) {
                // SYNC POINT picture: pairs with the fence in `publish`.
                crate::sync::fence(Ordering::Acquire);
                if before & 1 == 0 && buffer.sequence.load(Ordering::Relaxed) == before {
                    return Some(picture);
                }
            }
            std::thread::yield_now();
        }
        // The writer died in the middle of a picture: its successor draws a new one.
        None
    }
}

/// Characters to publish with a picture.
#[derive(Clone, Copy, Debug)]
pub struct TextView<'a> {
    /// Characters per row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
    /// `columns * rows` cells.
    pub cells: &'a [u16],
    /// Cursor column and row, when shown.
    pub cursor: Option<(u16, u16)>,
}

fn copy(buffer: &Buffer, sequence: u64) -> Option<Picture> {
    let (width, height) = (buffer.width.load(Ordering::Relaxed), buffer.height.load(Ordering::Relaxed));
    let count = (width as usize).checked_mul(height as usize).filter(|n| *n <= MAX_PIXELS)?;
    let size = buffer.text_size.load(Ordering::Relaxed);
    let (columns, rows) = (size as u16, (size >> 16) as u16);
    let cell_count = usize::from(columns) * usize::from(rows);
    if cell_count > MAX_CELLS {
        return None;
    }
    let cells = (0..cell_count)
        .map(|i| (buffer.cells[i / 2].load(Ordering::Relaxed) >> (16 * (i % 2))) as u16)
        .collect();
    let cursor = buffer.cursor.load(Ordering::Relaxed);
    let mut pixels = vec![0; count];
    let source = buffer.pixels.as_ptr().cast::<u32>();
    // SAFETY: `count` is within the buffer; the target is ours. The caller checks the sequence.
    unsafe { source.copy_to_nonoverlapping(pixels.as_mut_ptr(), count) };
    Some(Picture {
        sequence,
        width,
        height,
        pixels,
        text_size: (cell_count > 0).then_some((columns, rows)),
        cells,
        cursor: (cursor >> 31 != 0).then_some((cursor as u16, (cursor >> 16) as u16 & 0x7fff)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentNames;

    #[test]
    fn a_published_picture_is_read_whole() {
        let names = SegmentNames::new(&format!("screen{}", std::process::id()));
        let screen = Screen::create(&names.screen()).unwrap();
        let reader = Screen::open(&names.screen()).unwrap();
        assert_eq!(reader.picture(), None);
        let cells = [0x0741, 0x1742, 0x2743];
        let text = TextView { columns: 3, rows: 1, cells: &cells, cursor: Some((2, 0)) };
        assert!(screen.publish(2, 2, &[1, 2, 3, 4], Some(text)));
        let picture = reader.picture().unwrap();
        assert_eq!((picture.width, picture.height, picture.sequence), (2, 2, 1));
        assert_eq!(picture.pixels, [1, 2, 3, 4]);
        assert_eq!((picture.text_size, picture.cells.as_slice()), (Some((3, 1)), cells.as_slice()));
        assert_eq!(picture.cursor, Some((2, 0)));
        assert!(!screen.publish(2, 2, &[1, 2, 3], None));
        assert!(!screen.publish(100_000, 100_000, &[], None));
    }
}
