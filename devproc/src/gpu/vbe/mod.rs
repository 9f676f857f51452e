//! The Bochs VBE extensions: high-resolution modes with a linear frame buffer.
//!
//! Source: Bochs, "VBE Display API". Where it is silent, what the VGA BIOSes and the drivers of
//! Linux (bochs-drm) and Windows rely on is done: values out of range are brought into range when
//! the mode is enabled, not refused.

pub(crate) mod edid;
pub(crate) mod scanout;
pub(crate) mod spec;

use crate::device::StateError;
use crate::pack::pack_fields;
use serde::{Deserialize, Serialize};

/// The DISPI registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dispi {
    /// Index register.
    pub index: u16,
    id: u16,
    xres: u16,
    yres: u16,
    bpp: u16,
    enable: u16,
    bank: u16,
    virt_width: u16,
    virt_height: u16,
    x_offset: u16,
    y_offset: u16,
}

pack_fields!(Dispi { index, id, xres, yres, bpp, enable, bank, virt_width, virt_height, x_offset, y_offset });

/// What a register write asks of the device beyond the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// The first `len` bytes of the display memory are to be cleared.
    Clear {
        /// Bytes.
        len: usize,
    },
}

/// The part of display memory that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanout {
    /// Pixels per line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits per pixel: 4, 8, 15, 16, 24 or 32.
    pub bits: u16,
    /// Byte offset of the first pixel.
    pub start: usize,
    /// Bytes from one line to the next.
    pub pitch: usize,
    /// Bytes of a line that are shown.
    pub line_len: usize,
}

/// Bits that a pixel takes in memory.
fn stored_bits(bpp: u16) -> usize {
    match bpp {
        15 => 16,
        other => usize::from(other),
    }
}

impl Dispi {
    /// Values after power-on.
    pub fn power_on() -> Self {
        Self {
            index: 0,
            id: spec::ID_LAST,
            xres: 0,
            yres: 0,
            bpp: 0,
            enable: 0,
            bank: 0,
            virt_width: 0,
            virt_height: 0,
            x_offset: 0,
            y_offset: 0,
        }
    }

    /// Whether these registers drive the display.
    pub fn enabled(&self) -> bool {
        self.enable & spec::ENABLE_ENABLED != 0
    }

    /// Whether the DAC has 8 bits per component.
    pub fn eight_bit_dac(&self) -> bool {
        self.enable & spec::ENABLE_8BIT_DAC != 0
    }

    /// Whether the mode has 16 colours, in planes.
    pub fn planar(&self) -> bool {
        self.bpp == 4
    }

    /// Byte offset of the bank.
    pub fn bank_offset(&self) -> u32 {
        u32::from(self.bank) * spec::BANK_LEN as u32
    }

    /// Reads register `index`.
    pub fn read(&self, index: u16) -> u16 {
        let capabilities = self.enable & spec::ENABLE_GETCAPS != 0;
        match index {
            spec::ID => self.id,
            spec::XRES if capabilities => spec::MAX_XRES,
            spec::YRES if capabilities => spec::MAX_YRES,
            spec::BPP if capabilities => spec::MAX_BPP,
            spec::XRES => self.xres,
            spec::YRES => self.yres,
            spec::BPP => self.bpp,
            spec::ENABLE => self.enable,
            spec::BANK => self.bank,
            spec::VIRT_WIDTH => self.virt_width,
            spec::VIRT_HEIGHT => self.virt_height,
            spec::X_OFFSET => self.x_offset,
            spec::Y_OFFSET => self.y_offset,
            spec::VIDEO_MEMORY_64K => (spec::VRAM_LEN / spec::BANK_LEN) as u16,
            _ => 0,
        }
    }

    /// Writes register `index`.
    pub fn write(&mut self, index: u16, value: u16) -> Effect {
        match index {
            spec::ID if (spec::ID_FIRST..=spec::ID_LAST).contains(&value) => self.id = value,
            spec::XRES => self.xres = value,
            spec::YRES => self.yres = value,
            spec::BPP => self.bpp = value,
            spec::BANK => self.bank = value % (spec::VRAM_LEN / spec::BANK_LEN) as u16,
            spec::VIRT_WIDTH => self.virt_width = value,
            spec::X_OFFSET => self.x_offset = value,
            spec::Y_OFFSET => self.y_offset = value,
            spec::ENABLE => return self.write_enable(value & spec::ENABLE_MASK),
            _ => {}
        }
        self.fit();
        Effect::None
    }

    fn write_enable(&mut self, value: u16) -> Effect {
        let starts = value & spec::ENABLE_ENABLED != 0 && !self.enabled();
        self.enable = value;
        if !self.enabled() {
            self.bank = 0;
            return Effect::None;
        }
        if !starts {
            return Effect::None;
        }
        self.virt_width = 0;
        self.x_offset = 0;
        self.y_offset = 0;
        self.fit();
        if value & spec::ENABLE_NO_CLEAR != 0 {
            return Effect::None;
        }
        Effect::Clear { len: self.line_bytes() * usize::from(self.yres) }
    }

    fn line_bytes(&self) -> usize {
        usize::from(self.virt_width) * stored_bits(self.bpp) / 8
    }

    /// Brings the mode into what the display memory holds, while it is enabled.
    fn fit(&mut self) {
        if !self.enabled() {
            return;
        }
        if !matches!(self.bpp, 4 | 8 | 15 | 16 | 24 | 32) {
            self.bpp = 8;
        }
        let whole = |width: u16| width - width % spec::WIDTH_STEP;
        self.xres = whole(self.xres).clamp(spec::WIDTH_STEP, spec::MAX_XRES);
        // The widest line that still lets the display memory hold one line of any depth.
        let widest = whole(u16::MAX / 2);
        self.virt_width = whole(self.virt_width).clamp(self.xres, widest);
        let line = self.line_bytes();
        let lines = spec::VRAM_LEN / line;
        self.yres = self.yres.clamp(1, spec::MAX_YRES.min(u16::try_from(lines).unwrap_or(u16::MAX)));
        self.virt_height = u16::try_from(lines).unwrap_or(u16::MAX);
        // An offset that would show what is behind the memory is not taken.
        if !self.offsets_fit() {
            self.y_offset = 0;
        }
        if !self.offsets_fit() {
            self.x_offset = 0;
        }
    }

    fn start(&self) -> usize {
        let column = if self.planar() {
            // Eight pixels share a byte of each plane.
            usize::from(self.x_offset / 8) * 4
        } else {
            usize::from(self.x_offset) * stored_bits(self.bpp) / 8
        };
        column + usize::from(self.y_offset) * self.line_bytes()
    }

    fn offsets_fit(&self) -> bool {
        self.start() + self.line_bytes() * usize::from(self.yres) <= spec::VRAM_LEN
    }

    /// What is shown, while enabled.
    pub fn scanout(&self) -> Option<Scanout> {
        self.enabled().then(|| Scanout {
            width: self.xres.into(),
            height: self.yres.into(),
            bits: self.bpp,
            start: self.start(),
            pitch: self.line_bytes(),
            line_len: usize::from(self.xres) * stored_bits(self.bpp) / 8,
        })
    }

    /// Refuses what writes cannot produce.
    pub fn validate(&self) -> Result<(), StateError> {
        let check = |good: bool, what| if good { Ok(()) } else { Err(StateError::OutOfRange(what)) };
        check((spec::ID_FIRST..=spec::ID_LAST).contains(&self.id), "DISPI id")?;
        check(self.enable & !spec::ENABLE_MASK == 0, "DISPI enable")?;
        check(usize::from(self.bank) < spec::VRAM_LEN / spec::BANK_LEN, "DISPI bank")?;
        let mut fitted = self.clone();
        fitted.fit();
        check(fitted == *self, "DISPI mode")
    }
}
