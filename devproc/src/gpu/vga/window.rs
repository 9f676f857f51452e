//! What stands behind the CPU's windows at A0000h, B0000h and B8000h, and the hand-over of text
//! memory between planes and window.
//!
//! Whenever the graphics controller would pass bytes unchanged, the guest gets the memory itself:
//! the display memory in linear modes, and in text modes the *text window*, a copy of planes 0 and
//! 1 in the order in which the CPU sees them. While it is mapped the copy is the truth.
//!
//! Both directions of the copy can be repeated after a crash in the middle: the source does not
//! change before the change of the mapping has been committed.

use super::registers::Registers;
use super::spec::{self, PLANES, graphics, misc};
use super::{Layout, memory::Pipeline};
use crate::gpu::vbe::Dispi;

/// What a window leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// Nothing decodes.
    Absent,
    /// The graphics controller; `base` is added to the offset in the window.
    Planar {
        /// Address of the window's first byte.
        base: u32,
    },
    /// Display memory, directly, from `offset` on.
    Vram {
        /// Byte offset in the display memory.
        offset: u32,
    },
    /// The text window, directly.
    Text,
}

impl Window {
    /// Whether the guest reaches memory without a trap.
    pub fn direct(self) -> bool {
        matches!(self, Window::Vram { .. } | Window::Text)
    }
}

/// The three windows; their order is that of [`Windows::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// At A0000h, 64 KiB.
    pub a: Window,
    /// At B0000h, 32 KiB.
    pub b0: Window,
    /// At B8000h, 32 KiB.
    pub b8: Window,
}

impl Windows {
    /// Follows from the registers, and from nothing else.
    pub fn decode(registers: &Registers, pipeline: &Pipeline, dispi: &Dispi) -> Self {
        let absent = Self { a: Window::Absent, b0: Window::Absent, b8: Window::Absent };
        if !registers.enabled() || registers.misc & misc::ENABLE_RAM == 0 {
            return absent;
        }
        if dispi.enabled() {
            let bank = dispi.bank_offset();
            let a =
                if dispi.planar() { Window::Planar { base: bank } } else { Window::Vram { offset: bank } };
            return Self { a, ..absent };
        }
        let at = |base: u32| {
            if pipeline.linear() { Window::Vram { offset: base } } else { Window::Planar { base } }
        };
        let text = || if pipeline.plain_text() { Window::Text } else { at(0) };
        match registers.graphics[graphics::MISCELLANEOUS] >> graphics::MEMORY_MAP_SHIFT & 0b11 {
            graphics::MAP_A0000_128K => {
                let half = spec::WINDOW_A_LEN as u32;
                Self { a: at(0), b0: at(half), b8: at(half + spec::WINDOW_B_LEN as u32) }
            }
            graphics::MAP_A0000_64K => Self { a: at(0), ..absent },
            graphics::MAP_B0000_32K => Self { b0: text(), ..absent },
            _ => Self { b8: text(), ..absent },
        }
    }

    /// From the lowest address up.
    pub fn all(&self) -> [Window; 3] {
        [self.a, self.b0, self.b8]
    }

    /// Whether the text window holds the truth for the text part of planes 0 and 1.
    pub fn text(&self) -> bool {
        self.all().contains(&Window::Text)
    }

    /// Whether any window is direct.
    pub fn any_direct(&self) -> bool {
        self.all().into_iter().any(Window::direct)
    }
}

/// Where byte `n` of the text window lives in the display memory: even bytes in plane 0, odd ones
/// in plane 1, both at the even plane address.
fn vram_index(n: usize) -> usize {
    PLANES * (n & !1) + (n & 1)
}

/// Fills the text window from the planes, before it is mapped.
pub(crate) fn open_text(memory: &mut [u8]) {
    let Some(mut layout) = Layout::split(memory) else { return };
    let Layout { vram, text, text_base, .. } = &mut layout;
    for (n, (byte, base)) in text.iter_mut().zip(text_base.iter_mut()).enumerate() {
        *byte = vram[vram_index(n)];
        *base = *byte;
    }
}

/// Writes the text window back to the planes, after it was unmapped.
///
/// A byte of the planes that is not as [`open_text`] found it was written meanwhile through the
/// linear frame buffer (a driver draws its first picture before it leaves the text mode); the
/// later writer is taken to be that one. A byte that an interrupted call copied also differs, and
/// holds the right value already.
pub(crate) fn close_text(memory: &mut [u8]) {
    let Some(mut layout) = Layout::split(memory) else { return };
    let Layout { vram, text, text_base, .. } = &mut layout;
    for (n, (byte, base)) in text.iter().zip(text_base.iter()).enumerate() {
        let plane_byte = &mut vram[vram_index(n)];
        if *plane_byte == *base {
            *plane_byte = *byte;
        }
    }
}
