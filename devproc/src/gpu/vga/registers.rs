//! The register file of the VGA: what ports store and read back.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem", register
//! descriptions. Effects on memory and picture are computed from here by the other modules.

use super::palette::Dac;
use super::spec::{self, attribute, crtc, graphics, misc, port, sequencer};
use crate::device::StateError;
use crate::pack::pack;
use serde::{Deserialize, Serialize};

/// Every register that the guest can reach through the VGA ports, apart from the status registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    pub feature: u8,
    /// Video subsystem enable.
    pub video_enable: u8,
    /// Sequencer address register.
    pub sequencer_index: u8,
    /// Sequencer registers.
    pub sequencer: [u8; sequencer::COUNT],
    /// Graphics controller address register.
    pub graphics_index: u8,
    /// Graphics controller registers.
    pub graphics: [u8; graphics::COUNT],
    /// CRTC address register.
    pub crtc_index: u8,
    /// CRTC registers.
    pub crtc: [u8; crtc::COUNT],
    /// Attribute address register, with the palette address source bit.
    pub attribute_index: u8,
    /// The next write to the attribute port is data.
    pub attribute_flip_flop: bool,
    /// Attribute registers.
    pub attribute: [u8; attribute::COUNT],
    /// The digital-to-analog converter.
    pub dac: Dac,
}

impl Registers {
    /// Values after power-on. The IBM reference leaves most of them undefined; zero keeps the
    /// sequencer in reset and the screen blank until the firmware has set a mode.
    pub fn power_on() -> Self {
        Self {
            misc: 0,
            feature: 0,
            video_enable: spec::VIDEO_ENABLE_BIT,
            sequencer_index: 0,
            sequencer: [0; sequencer::COUNT],
            graphics_index: 0,
            graphics: [0; graphics::COUNT],
            crtc_index: 0,
            crtc: [0; crtc::COUNT],
            attribute_index: 0,
            attribute_flip_flop: false,
            attribute: [0; attribute::COUNT],
            dac: Dac::power_on(),
        }
    }

    /// Appends all but the DAC, which comes last, as it is saved.
    pub fn save(&self, out: &mut Vec<u8>) {
        pack(
            (
                (self.misc, self.feature, self.video_enable, self.sequencer_index, &self.sequencer),
                (self.graphics_index, &self.graphics, self.crtc_index, &self.crtc),
                (self.attribute_index, self.attribute_flip_flop, &self.attribute),
            ),
            out,
        );
    }

    /// Whether `address` is a CRTC, status 1 or feature port that the I/O address select switches off.
    pub fn deselected(&self, address: u16) -> bool {
        let color = self.misc & misc::IO_SELECT != 0;
        match address {
            port::CRTC_INDEX_MONO | port::CRTC_DATA_MONO | port::STATUS_1_MONO => color,
            port::CRTC_INDEX_COLOR | port::CRTC_DATA_COLOR | port::STATUS_1_COLOR => !color,
            _ => false,
        }
    }

    /// Whether ports and memory answer the CPU at all.
    pub fn enabled(&self) -> bool {
        self.video_enable & spec::VIDEO_ENABLE_BIT != 0
    }

    /// Stores a write to the selected sequencer register.
    pub fn write_sequencer(&mut self, value: u8) {
        let index = usize::from(self.sequencer_index);
        if let (Some(register), Some(mask)) = (self.sequencer.get_mut(index), sequencer::MASKS.get(index)) {
            *register = value & mask;
        }
    }

    /// The selected sequencer register.
    pub fn read_sequencer(&self) -> u8 {
        self.sequencer.get(usize::from(self.sequencer_index)).copied().unwrap_or(0)
    }

    /// Stores a write to the selected graphics controller register.
    pub fn write_graphics(&mut self, value: u8) {
        let index = usize::from(self.graphics_index);
        if let (Some(register), Some(mask)) = (self.graphics.get_mut(index), graphics::MASKS.get(index)) {
            *register = value & mask;
        }
    }

    /// The selected graphics controller register.
    pub fn read_graphics(&self) -> u8 {
        self.graphics.get(usize::from(self.graphics_index)).copied().unwrap_or(0)
    }

    /// Stores a write to the selected CRTC register, past or against the write protection.
    pub fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let protect = self.crtc[crtc::VERTICAL_RETRACE_END] & crtc::PROTECT != 0;
        let Some(register) = self.crtc.get_mut(index) else { return };
        let mask = match index {
            crtc::OVERFLOW if protect => crtc::OVERFLOW_LINE_COMPARE_8,
            ..=crtc::LAST_PROTECTED if protect => 0,
            _ => u8::MAX,
        };
        *register = (*register & !mask) | (value & mask);
    }

    /// The selected CRTC register.
    pub fn read_crtc(&self) -> u8 {
        self.crtc.get(usize::from(self.crtc_index)).copied().unwrap_or(0)
    }

    /// A write to the attribute port: address and data in turn.
    pub fn write_attribute(&mut self, value: u8) {
        if self.attribute_flip_flop {
            let index = usize::from(self.attribute_index & attribute::INDEX_MASK);
            let mask = match index.checked_sub(attribute::PALETTE_COUNT) {
                None => attribute::PALETTE_MASK,
                Some(after) => attribute::MASKS.get(after).copied().unwrap_or(0),
            };
            if let Some(register) = self.attribute.get_mut(index) {
                *register = value & mask;
            }
        } else {
            self.attribute_index = value & (attribute::INDEX_MASK | attribute::PALETTE_ADDRESS_SOURCE);
        }
        self.attribute_flip_flop = !self.attribute_flip_flop;
    }

    /// The selected attribute register.
    pub fn read_attribute(&self) -> u8 {
        let index = usize::from(self.attribute_index & attribute::INDEX_MASK);
        self.attribute.get(index).copied().unwrap_or(0)
    }

    /// Whether anything is shown: display enabled by the attribute controller and the sequencer.
    pub fn screen_on(&self) -> bool {
        self.attribute_index & attribute::PALETTE_ADDRESS_SOURCE != 0
            && self.sequencer[sequencer::CLOCKING_MODE] & sequencer::SCREEN_OFF == 0
    }

    /// Refuses values that no sequence of writes can produce.
    pub fn validate(&self) -> Result<(), StateError> {
        let within = |values: &[u8], masks: &[u8]| values.iter().zip(masks).all(|(v, m)| v & !m == 0);
        let check = |good: bool, what| if good { Ok(()) } else { Err(StateError::OutOfRange(what)) };
        check(self.misc & !misc::MASK == 0, "miscellaneous output")?;
        check(self.feature & !spec::FEATURE_CONTROL_MASK == 0, "feature control")?;
        check(self.video_enable & !spec::VIDEO_ENABLE_BIT == 0, "video subsystem enable")?;
        check(self.sequencer_index & !sequencer::INDEX_MASK == 0, "sequencer address")?;
        check(within(&self.sequencer, &sequencer::MASKS), "sequencer registers")?;
        check(self.graphics_index & !graphics::INDEX_MASK == 0, "graphics controller address")?;
        check(within(&self.graphics, &graphics::MASKS), "graphics controller registers")?;
        check(self.crtc_index & !crtc::INDEX_MASK == 0, "CRTC address")?;
        let address_mask = attribute::INDEX_MASK | attribute::PALETTE_ADDRESS_SOURCE;
        check(self.attribute_index & !address_mask == 0, "attribute address")?;
        let (palette, rest) = self.attribute.split_at(attribute::PALETTE_COUNT);
        check(palette.iter().all(|v| v & !attribute::PALETTE_MASK == 0), "attribute palette")?;
        check(within(rest, &attribute::MASKS), "attribute registers")?;
        self.dac.validate()
    }
}
