//! Drawing the picture on the window.
//!
//! The pixel buffer has the window's size, one to one: the picture is scaled into it here,
//! because the graphics library scales only by whole factors and with square pixels.

use crate::DisplayError;
use crate::scale::{Rect, Scaler, Scaling, place, proportions};
use crate::source::Frame;
use pixels::wgpu::Color;
use pixels::{Error, Pixels, PixelsBuilder, SurfaceTexture};
use std::sync::Arc;
use winit::window::Window;

const BYTES_PER_PIXEL: usize = 4;
const OPAQUE: u8 = 0xff;

/// The window's surface.
pub struct Canvas {
    pixels: Pixels<'static>,
    size: (u32, u32),
    /// Where the picture is, as of the last drawing.
    rect: Rect,
    scaler: Scaler,
    /// One scaled row.
    row: Vec<u32>,
}

impl Canvas {
    /// A canvas over all of `window`.
    ///
    /// # Errors
    /// [`DisplayError::NoGraphicsAdapter`].
    pub fn new(window: &Arc<Window>) -> Result<Self, DisplayError> {
        let size = not_empty(window.inner_size().into());
        let surface = SurfaceTexture::new(size.0, size.1, Arc::clone(window));
        let pixels = PixelsBuilder::new(size.0, size.1, surface).clear_color(Color::BLACK).build().map_err(
            |error| DisplayError::NoGraphicsAdapter {
                reason: error.to_string().trim_end_matches('.').to_owned(),
            },
        )?;
        Ok(Self { pixels, size, rect: Rect::default(), scaler: Scaler::new((1, 1), (1, 1)), row: Vec::new() })
    }

    /// Follows the window's size.
    ///
    /// # Errors
    /// [`DisplayError::Drawing`] when the adapter cannot have it.
    pub fn resize(&mut self, size: (u32, u32)) -> Result<(), DisplayError> {
        let most = self.pixels.device().limits().max_texture_dimension_2d;
        let size = not_empty((size.0.min(most), size.1.min(most)));
        if size == self.size {
            return Ok(());
        }
        let failed = |error| DisplayError::Drawing(Error::InvalidTexture(error));
        self.pixels.resize_surface(size.0, size.1).map_err(failed)?;
        self.pixels.resize_buffer(size.0, size.1).map_err(failed)?;
        self.size = size;
        self.rect = Rect::default();
        Ok(())
    }

    /// Draws `frame`, or nothing but black when it is not complete.
    pub fn draw(&mut self, frame: &Frame, scaling: Scaling) {
        if !frame.is_complete() {
            self.clear();
            return;
        }
        let rect = place(proportions(frame), self.size, scaling);
        let sizes = ((frame.width, frame.height), (rect.width, rect.height));
        if rect != self.rect || sizes != self.scaler.sizes() {
            self.clear();
            self.rect = rect;
            self.scaler = Scaler::new(sizes.0, sizes.1);
            self.row.resize(rect.width as usize, 0);
        }
        let stride = self.size.0 as usize * BYTES_PER_PIXEL;
        let (left, length) = (rect.x as usize * BYTES_PER_PIXEL, rect.width as usize * BYTES_PER_PIXEL);
        let lines = self.pixels.frame_mut().chunks_exact_mut(stride).skip(rect.y as usize);
        let mut above: Option<&[u8]> = None;
        for (y, line) in lines.take(rect.height as usize).enumerate() {
            let Some(line) = line.get_mut(left..left + length) else { return };
            match above {
                Some(above) if self.scaler.repeats_row(y) => line.copy_from_slice(above),
                _ => {
                    self.scaler.row(&frame.pixels, y, &mut self.row);
                    for (bytes, pixel) in line.chunks_exact_mut(BYTES_PER_PIXEL).zip(&self.row) {
                        let [_, red, green, blue] = pixel.to_be_bytes();
                        bytes.copy_from_slice(&[red, green, blue, OPAQUE]);
                    }
                }
            }
            above = Some(line);
        }
    }

    /// Brings what was drawn to the window.
    ///
    /// # Errors
    /// [`DisplayError::Drawing`].
    pub fn present(&self) -> Result<(), DisplayError> {
        self.pixels.render().map_err(DisplayError::Drawing)
    }

    fn clear(&mut self) {
        for pixel in self.pixels.frame_mut().chunks_exact_mut(BYTES_PER_PIXEL) {
            pixel.copy_from_slice(&[0, 0, 0, OPAQUE]);
        }
        self.rect = Rect::default();
    }
}

fn not_empty(size: (u32, u32)) -> (u32, u32) {
    (size.0.max(1), size.1.max(1))
}
