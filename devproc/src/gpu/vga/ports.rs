//! The ports of the adapter, their aliases in BAR 2, and the mirror of what reads back unchanged.

use super::spec::{self, crtc, port, status_0};
use super::state::part;
use super::timing::FrameTiming;
use super::{MirrorSlot, Vga, cell};
use crate::device::{Access, IoError, ReadResult, Width, WriteResult};
use crate::gpu::vbe::{Effect, spec as vbe_spec};
use crate::host::Host;
use ipc::mirror::Mirrored;

/// What nobody drives reads as.
const FLOATING: u8 = u8::MAX;

impl Vga {
    /// Whether a port answers at present.
    fn answers(&self, address: u16) -> bool {
        let selected = self.registers.enabled() && !self.registers.deselected(address);
        selected || address == port::VIDEO_ENABLE
    }

    fn timing(&self) -> FrameTiming {
        if self.dispi.enabled() { FrameTiming::VBE } else { FrameTiming::decode(&self.registers) }
    }

    /// Reads a VGA port.
    pub(super) fn read_port(&mut self, address: u16, host: &mut dyn Host) -> Result<u8, IoError> {
        if !self.answers(address) {
            return Err(IoError::NoResponse);
        }
        let r = &mut self.registers;
        Ok(match address {
            port::ATTRIBUTE => r.attribute_index,
            port::ATTRIBUTE_DATA_READ => r.read_attribute(),
            port::MISC_OUTPUT_WRITE => self.status_0(host),
            port::VIDEO_ENABLE => r.video_enable,
            port::SEQUENCER_INDEX => r.sequencer_index,
            port::SEQUENCER_DATA => r.read_sequencer(),
            port::PEL_MASK => r.dac.mask,
            port::PEL_READ_INDEX => r.dac.state(),
            port::PEL_WRITE_INDEX => r.dac.write_index(),
            port::PEL_DATA => {
                self.changed |= part::DAC;
                r.dac.read_data()
            }
            port::FEATURE_CONTROL_READ => r.feature,
            port::MISC_OUTPUT_READ => r.misc,
            port::GRAPHICS_INDEX => r.graphics_index,
            port::GRAPHICS_DATA => r.read_graphics(),
            port::CRTC_INDEX_MONO | port::CRTC_INDEX_COLOR => r.crtc_index,
            port::CRTC_DATA_MONO | port::CRTC_DATA_COLOR => r.read_crtc(),
            port::STATUS_1_MONO | port::STATUS_1_COLOR => {
                if std::mem::take(&mut r.attribute_flip_flop) {
                    self.changed |= part::REGISTERS;
                }
                let (timing, now) = (self.timing(), host.now());
                let value = timing.status_1(now);
                let used =
                    if address == port::STATUS_1_MONO { cell::STATUS_MONO } else { cell::STATUS_COLOR };
                host.publish_timed(used, Mirrored::until(value, timing.status_1_until(now)));
                self.status_published = true;
                value
            }
            _ => return Err(IoError::InvalidRegister),
        })
    }

    /// A write may have changed the timing, or whether a read has an effect.
    pub(super) fn withdraw_status(&mut self, host: &mut dyn Host) {
        if std::mem::take(&mut self.status_published) {
            host.publish_timed(cell::STATUS_MONO, Mirrored::ASK);
            host.publish_timed(cell::STATUS_COLOR, Mirrored::ASK);
        }
    }

    fn status_0(&self, host: &mut dyn Host) -> u8 {
        let control = self.registers.crtc[crtc::VERTICAL_RETRACE_END];
        let timing = self.timing();
        let latched = control & crtc::CLEAR_INTERRUPT_N != 0
            && timing.retraces(host.now()) != timing.retraces(self.interrupt_cleared);
        status_0::SWITCH_SENSE | if latched { status_0::CRT_INTERRUPT } else { 0 }
    }

    /// Writes a VGA port.
    pub(super) fn write_port(&mut self, address: u16, value: u8, host: &mut dyn Host) -> WriteResult {
        if !self.answers(address) {
            return Err(IoError::NoResponse);
        }
        let changed = self.changed;
        self.changed |= part::REGISTERS;
        self.withdraw_status(host);
        let eight_bit = self.dispi.eight_bit_dac();
        let r = &mut self.registers;
        match address {
            port::ATTRIBUTE => r.write_attribute(value),
            port::MISC_OUTPUT_WRITE => {
                r.misc = value & spec::misc::MASK;
                self.remap(host);
                self.publish_registers(host);
            }
            port::VIDEO_ENABLE => {
                r.video_enable = value & spec::VIDEO_ENABLE_BIT;
                self.remap(host);
                self.publish_registers(host);
            }
            port::SEQUENCER_INDEX => {
                r.sequencer_index = value & spec::sequencer::INDEX_MASK;
                self.publish_sequencer(host);
            }
            port::SEQUENCER_DATA => {
                r.write_sequencer(value);
                self.remap(host);
                self.publish_sequencer(host);
            }
            port::PEL_MASK | port::PEL_READ_INDEX | port::PEL_WRITE_INDEX | port::PEL_DATA => {
                self.changed = changed | part::DAC;
                match address {
                    port::PEL_MASK => r.dac.mask = value,
                    port::PEL_READ_INDEX => r.dac.set_read_index(value),
                    port::PEL_WRITE_INDEX => r.dac.set_write_index(value),
                    _ => {
                        let color = r.dac.write_data(value, eight_bit);
                        self.changed |= color.map_or(0, part::color);
                    }
                }
            }
            port::GRAPHICS_INDEX => {
                r.graphics_index = value & spec::graphics::INDEX_MASK;
                self.publish_graphics(host);
            }
            port::GRAPHICS_DATA => {
                r.write_graphics(value);
                self.remap(host);
                self.publish_graphics(host);
            }
            port::CRTC_INDEX_MONO | port::CRTC_INDEX_COLOR => {
                r.crtc_index = value & crtc::INDEX_MASK;
                self.publish_crtc(host);
            }
            port::CRTC_DATA_MONO | port::CRTC_DATA_COLOR => {
                let held = r.crtc[crtc::VERTICAL_RETRACE_END] & crtc::CLEAR_INTERRUPT_N == 0;
                r.write_crtc(value);
                if held || r.crtc[crtc::VERTICAL_RETRACE_END] & crtc::CLEAR_INTERRUPT_N == 0 {
                    self.interrupt_cleared = host.now();
                    self.changed |= part::REST;
                }
                self.publish_crtc(host);
            }
            port::STATUS_1_MONO | port::STATUS_1_COLOR => {
                r.feature = value & spec::FEATURE_CONTROL_MASK;
                self.publish_registers(host);
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn write_dispi_register(&mut self, index: u16, value: u16, host: &mut dyn Host) {
        self.changed |= part::REST;
        self.withdraw_status(host);
        let effect = self.dispi.write(index, value);
        // The text window goes back to the planes first; clearing may then overwrite it.
        self.remap(host);
        if let Effect::Clear { len } = effect
            && let Some(memory) = host.device_memory().get_mut(..len)
        {
            memory.fill(0);
        }
    }

    /// Writes the DISPI ports.
    pub(super) fn write_dispi(&mut self, at: Access, value: u16, host: &mut dyn Host) -> WriteResult {
        match (at.port(), at.width) {
            (vbe_spec::INDEX_PORT, Width::Byte | Width::Word) => {
                self.changed |= part::REST;
                self.dispi.index = value;
                Ok(())
            }
            (vbe_spec::DATA_PORT | vbe_spec::DATA_PORT_ALIGNED, Width::Word) => {
                self.write_dispi_register(self.dispi.index, value, host);
                Ok(())
            }
            _ => Err(IoError::InvalidWidth),
        }
    }

    /// Reads the DISPI ports.
    pub(super) fn read_dispi(&mut self, at: Access) -> ReadResult {
        match (at.port(), at.width) {
            (vbe_spec::INDEX_PORT, Width::Byte | Width::Word) => Ok(self.dispi.index.into()),
            (vbe_spec::DATA_PORT | vbe_spec::DATA_PORT_ALIGNED, Width::Word) => {
                Ok(self.dispi.read(self.dispi.index).into())
            }
            _ => Err(IoError::InvalidWidth),
        }
    }

    /// Reads BAR 2.
    pub(super) fn read_mmio(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let len = at.width.bytes() as usize;
        match at.offset {
            ..vbe_spec::MMIO_EDID_END => {
                let mut bytes = [0; 4];
                for (to, n) in bytes[..len].iter_mut().zip(at.offset as usize..) {
                    *to = self.edid.get(n).copied().unwrap_or(0);
                }
                Ok(u32::from_le_bytes(bytes))
            }
            vbe_spec::MMIO_VGA..vbe_spec::MMIO_VGA_END => {
                let mut bytes = [0; 4];
                for (n, to) in bytes[..len].iter_mut().enumerate() {
                    *to = self.read_port(alias(at.offset + n as u64)?, host)?;
                }
                Ok(u32::from_le_bytes(bytes))
            }
            vbe_spec::MMIO_DISPI..vbe_spec::MMIO_DISPI_END => {
                let index = dispi_index(at)?;
                let low = u32::from(self.dispi.read(index));
                Ok(if at.width == Width::Dword {
                    low | u32::from(self.dispi.read(index + 1)) << 16
                } else {
                    low
                })
            }
            vbe_spec::MMIO_EXTENSION => Ok(vbe_spec::EXTENSION_LEN),
            vbe_spec::MMIO_BYTE_ORDER => Ok(vbe_spec::BYTE_ORDER_LITTLE),
            _ => Err(IoError::InvalidRegister),
        }
    }

    /// Writes BAR 2.
    pub(super) fn write_mmio(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        match at.offset {
            vbe_spec::MMIO_VGA..vbe_spec::MMIO_VGA_END => {
                let bytes = value.to_le_bytes();
                for (n, byte) in bytes.into_iter().take(at.width.bytes() as usize).enumerate() {
                    self.write_port(alias(at.offset + n as u64)?, byte, host)?;
                }
                Ok(())
            }
            vbe_spec::MMIO_DISPI..vbe_spec::MMIO_DISPI_END => {
                let index = dispi_index(at)?;
                self.write_dispi_register(index, value as u16, host);
                if at.width == Width::Dword {
                    self.write_dispi_register(index + 1, (value >> 16) as u16, host);
                }
                Ok(())
            }
            // Asking for the byte order that there is.
            vbe_spec::MMIO_BYTE_ORDER if value == vbe_spec::BYTE_ORDER_LITTLE => Ok(()),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn publish_pair(&self, first: MirrorSlot, index: u8, data: u8, host: &mut dyn Host) {
        let (index, data) = if self.registers.enabled() { (index, data) } else { (FLOATING, FLOATING) };
        host.publish_mirror(first, index.into());
        host.publish_mirror(MirrorSlot(first.0 + 1), data.into());
    }

    fn publish_sequencer(&self, host: &mut dyn Host) {
        let r = &self.registers;
        self.publish_pair(cell::SEQUENCER, r.sequencer_index, r.read_sequencer(), host);
    }

    fn publish_graphics(&self, host: &mut dyn Host) {
        let r = &self.registers;
        self.publish_pair(cell::GRAPHICS, r.graphics_index, r.read_graphics(), host);
    }

    fn publish_crtc(&self, host: &mut dyn Host) {
        let r = &self.registers;
        let color = r.misc & spec::misc::IO_SELECT != 0;
        let (used, unused) =
            if color { (cell::CRTC_COLOR, cell::CRTC_MONO) } else { (cell::CRTC_MONO, cell::CRTC_COLOR) };
        self.publish_pair(used, r.crtc_index, r.read_crtc(), host);
        self.publish_pair(unused, FLOATING, FLOATING, host);
    }

    /// Publishes every mirrored register.
    pub(super) fn publish_registers(&self, host: &mut dyn Host) {
        self.publish_sequencer(host);
        self.publish_graphics(host);
        self.publish_crtc(host);
        // 3CAh feature control, 3CBh nothing, 3CCh miscellaneous output.
        self.publish_pair(cell::READ_BACK, self.registers.feature, FLOATING, host);
        let misc = if self.registers.enabled() { self.registers.misc } else { FLOATING };
        host.publish_mirror(MirrorSlot(cell::READ_BACK.0 + 2), misc.into());
    }

    /// The n-th access of a burst that the model takes one by one.
    pub(super) fn burst_access(&self, at: Access, n: usize) -> Access {
        let step = if Self::is_memory(at.region) { n as u64 * u64::from(at.width.bytes()) } else { 0 };
        Access { address: at.address + step, offset: at.offset + step, ..at }
    }
}

/// The port behind an offset in BAR 2.
fn alias(offset: u64) -> Result<u16, IoError> {
    if offset < vbe_spec::MMIO_VGA_END {
        Ok(port::ATTRIBUTE + (offset - vbe_spec::MMIO_VGA) as u16)
    } else {
        Err(IoError::InvalidRegister)
    }
}

/// The DISPI register behind an offset in BAR 2.
fn dispi_index(at: Access) -> Result<u16, IoError> {
    if at.width == Width::Byte || !at.offset.is_multiple_of(2) {
        return Err(IoError::InvalidWidth);
    }
    Ok(((at.offset - vbe_spec::MMIO_DISPI) / 2) as u16)
}
