//! Colours: the DAC, the PEL mask, the attribute palette and color select.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Video Digital-to-Analog Converter"
//! and "Attribute Controller".

use super::registers::Registers;
use super::spec::{self, attribute};
use crate::device::StateError;
use crate::pack::pack;
use serde::{Deserialize, Serialize};

/// Colours of the DAC.
const COLORS: usize = 256;
/// Bytes of the DAC: red, green and blue of each colour.
const DAC_LEN: usize = 3 * COLORS;

/// Pieces in which the colours are saved.
pub(super) const PIECES: usize = 8;
/// Bytes of a piece.
const PIECE_LEN: usize = DAC_LEN / PIECES;

/// The piece that a colour is in.
pub(super) fn piece(color: u8) -> usize {
    usize::from(color) * PIECES / COLORS
}

/// The digital-to-analog converter's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dac {
    /// PEL mask.
    pub mask: u8,
    read_index: u8,
    write_index: u8,
    /// Component that the next access to the data port means: 0 red, 1 green, 2 blue.
    component: u8,
    reading: bool,
    /// Components of a colour being written; it takes effect with the third.
    pending: [u8; 2],
    #[serde(with = "serde_bytes")]
    ram: [u8; DAC_LEN],
}

impl Dac {
    /// Black, everything passed by the mask.
    pub fn power_on() -> Self {
        Self {
            mask: u8::MAX,
            read_index: 0,
            write_index: 0,
            component: 0,
            reading: false,
            pending: [0; 2],
            ram: [0; DAC_LEN],
        }
    }

    /// Write to the PEL address register for reading.
    pub fn set_read_index(&mut self, index: u8) {
        self.read_index = index;
        self.component = 0;
        self.reading = true;
    }

    /// Write to the PEL address register for writing.
    pub fn set_write_index(&mut self, index: u8) {
        self.write_index = index;
        self.component = 0;
        self.reading = false;
    }

    /// PEL address register as read back.
    pub fn write_index(&self) -> u8 {
        self.write_index
    }

    /// DAC state register.
    pub fn state(&self) -> u8 {
        if self.reading { spec::DAC_STATE_READ } else { spec::DAC_STATE_WRITE }
    }

    /// Write to the PEL data register. Returns the colour that it completes.
    pub fn write_data(&mut self, value: u8, eight_bit: bool) -> Option<u8> {
        let value = if eight_bit { value } else { value & spec::DAC_6_BIT_MASK };
        if let Some(slot) = self.pending.get_mut(usize::from(self.component)) {
            *slot = value;
            self.component += 1;
            return None;
        }
        let index = self.write_index;
        let at = 3 * usize::from(index);
        let [red, green] = self.pending;
        self.ram[at..at + 3].copy_from_slice(&[red, green, value]);
        self.component = 0;
        self.write_index = index.wrapping_add(1);
        Some(index)
    }

    /// Read from the PEL data register.
    pub fn read_data(&mut self) -> u8 {
        let value = self.ram[3 * usize::from(self.read_index) + usize::from(self.component % 3)];
        self.component += 1;
        if self.component >= 3 {
            self.component = 0;
            self.read_index = self.read_index.wrapping_add(1);
        }
        value
    }

    /// Colour `index` as `0x00RRGGBB`, before the PEL mask.
    fn color(&self, index: u8, eight_bit: bool) -> u32 {
        let at = 3 * usize::from(index);
        self.ram[at..at + 3].iter().fold(0, |rgb, &component| {
            let level = if eight_bit { component } else { (component << 2) | (component >> 4 & 0b11) };
            rgb << 8 | u32::from(level)
        })
    }

    /// Appends all that comes before the colours in the saved state.
    pub fn save_registers(&self, out: &mut Vec<u8>) {
        let Self { mask, read_index, write_index, component, reading, pending, ram } = self;
        pack((mask, read_index, write_index, component, reading, pending, ram.len()), out);
    }

    /// Appends a piece of the colours.
    pub fn save_piece(&self, piece: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.ram.chunks(PIECE_LEN).nth(piece).unwrap_or_default());
    }

    /// Refuses what writes cannot produce.
    pub fn validate(&self) -> Result<(), StateError> {
        if self.component < 3 { Ok(()) } else { Err(StateError::OutOfRange("DAC component")) }
    }
}

/// All colours of a picture, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Colors {
    /// By 8-bit pixel value, behind the PEL mask.
    pub direct: [u32; COLORS],
    /// By 4-bit pixel value, through the attribute controller.
    pub attribute: [u32; attribute::PALETTE_COUNT],
}

impl Colors {
    /// Resolves the palette registers.
    pub fn resolve(registers: &Registers, eight_bit: bool) -> Self {
        let dac = &registers.dac;
        let mut direct = [0; COLORS];
        for (index, color) in direct.iter_mut().enumerate() {
            *color = dac.color(index as u8 & dac.mask, eight_bit);
        }
        let attributes = &registers.attribute;
        let planes = attributes[attribute::COLOR_PLANE_ENABLE] & attribute::PLANES_MASK;
        let select = attributes[attribute::COLOR_SELECT];
        let from_select = attributes[attribute::MODE_CONTROL] & attribute::PALETTE_SIZE_SELECT != 0;
        let mut palette = [0; attribute::PALETTE_COUNT];
        for (index, color) in palette.iter_mut().enumerate() {
            let entry = attributes[index & usize::from(planes)];
            // Color select bits 2-3 are always PEL bits 6-7; bits 0-1 replace PEL bits 4-5 if so chosen.
            let low = if from_select { (entry & 0x0f) | (select & 0b11) << 4 } else { entry & 0x3f };
            *color = direct[usize::from(low | (select & 0b1100) << 4)];
        }
        Self { direct, attribute: palette }
    }
}
