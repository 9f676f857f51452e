//! PCI configuration space type 0: the part every PCI function shares.
//!
//! Source: PCI Local Bus Specification 2.1, section 6.1 and 6.2 (register names are its own).
//! The space is a byte array with a mask of writable bits; BARs are tracked so that a model
//! learns of moves. Device-specific registers use the same array.

use crate::device::Width;
use crate::pack::pack;
use serde::{Deserialize, Serialize};

/// Bus, device and function number of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl PciAddress {
    /// A function on bus 0.
    pub const fn bus0(device: u8, function: u8) -> Self {
        Self { bus: 0, device, function }
    }
}

/// Offsets of the type 0 header (PCI 2.1, figure 6-1).
pub mod register {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u8 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u8 = 0x02;
    /// Command register, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status register, 16 bits; bits 11-15 are cleared by writing ones.
    pub const STATUS: u8 = 0x06;
    /// Revision ID.
    pub const REVISION_ID: u8 = 0x08;
    /// Class code: programming interface, sub-class, base class (24 bits).
    pub const CLASS_CODE: u8 = 0x09;
    /// Header type; bit 7 marks a multi-function device.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// First base address register; six of 32 bits.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
    /// Subsystem ID, 16 bits.
    pub const SUBSYSTEM_ID: u8 = 0x2e;
    /// Expansion ROM base address.
    pub const ROM_BAR: u8 = 0x30;
    /// Interrupt line (scratch for the firmware).
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt pin: 0 none, 1 INTA#.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Bits of the command register (PCI 2.1, section 6.2.2).
pub mod command {
    /// Responds to I/O space accesses.
    pub const IO_SPACE: u16 = 1 << 0;
    /// Responds to memory space accesses.
    pub const MEMORY_SPACE: u16 = 1 << 1;
    /// May act as bus master.
    pub const BUS_MASTER: u16 = 1 << 2;
}

/// Bits of the status register.
pub mod status {
    /// A transfer as a bus master ended because nobody answered.
    pub const RECEIVED_MASTER_ABORT: u16 = 1 << 13;
}

/// Bit 0 of a BAR: the range lies in I/O space.
const BAR_IO: u32 = 1 << 0;
/// Bit 3 of a memory BAR: prefetchable.
const BAR_PREFETCHABLE: u32 = 1 << 3;
/// Bit 0 of the expansion ROM BAR: decoding enabled.
const ROM_ENABLE: u32 = 1 << 0;
/// Index by which the expansion ROM is named among the BARs.
pub const ROM_INDEX: usize = 6;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Not implemented: reads zero.
    None,
    /// I/O ports; the size is a power of two, 4 to 256.
    Io {
        /// Number of ports.
        size: u32,
    },
    /// 32-bit memory; the size is a power of two, at least 16 bytes (a page for direct memory).
    Memory {
        /// Bytes.
        size: u32,
        /// Whether reads have no side effects.
        prefetchable: bool,
    },
}

/// Constant properties of a function, given at construction.
#[derive(Clone, Copy, Debug)]
pub struct PciIdentity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class, programming interface as `0xBBSSPP`.
    pub class: u32,
    /// Subsystem vendor and subsystem ID.
    pub subsystem: (u16, u16),
    /// True when the device has several functions (set in function 0).
    pub multifunction: bool,
    /// 0 none, 1 INTA# to 4 INTD#.
    pub interrupt_pin: u8,
}

/// Where a BAR decodes at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarMapping {
    /// First port or physical address.
    pub base: u32,
    /// Whether the command register (and ROM enable bit) let it decode.
    pub enabled: bool,
}

/// The 256 bytes of one function.
#[derive(Clone, Debug)]
pub struct PciConfig {
    // Constant: what the hardware is.
    bars: [Bar; 6],
    rom_size: u32,
    writable: [u8; 256],
    write_one_to_clear: [u8; 256],
    // Volatile state.
    bytes: [u8; 256],
    // Value after reset.
    initial: [u8; 256],
}

impl PciConfig {
    /// A function with the given identity and base address registers. `rom_size` is 0 or a power
    /// of two from 2048.
    pub fn new(identity: PciIdentity, bars: [Bar; 6], rom_size: u32) -> Self {
        let mut config = Self {
            bars,
            rom_size,
            writable: [0; 256],
            write_one_to_clear: [0; 256],
            bytes: [0; 256],
            initial: [0; 256],
        };
        config.preset16(register::VENDOR_ID, identity.vendor);
        config.preset16(register::DEVICE_ID, identity.device);
        config.preset8(register::REVISION_ID, identity.revision);
        config.preset8(register::CLASS_CODE, identity.class as u8);
        config.preset16(register::CLASS_CODE + 1, (identity.class >> 8) as u16);
        config.preset8(register::HEADER_TYPE, if identity.multifunction { 0x80 } else { 0 });
        config.preset16(register::SUBSYSTEM_VENDOR_ID, identity.subsystem.0);
        config.preset16(register::SUBSYSTEM_ID, identity.subsystem.1);
        config.preset8(register::INTERRUPT_PIN, identity.interrupt_pin);
        let mut command_mask = command::BUS_MASTER;
        for (index, bar) in bars.iter().enumerate() {
            let at = register::BAR0 + 4 * index as u8;
            match *bar {
                Bar::None => {}
                Bar::Io { size } => {
                    command_mask |= command::IO_SPACE;
                    config.preset32(at, BAR_IO);
                    // All 32 bits, as the specification's full decode: SeaBIOS sizes I/O ranges in
                    // 32 bits and would take hardwired zeros for a range of almost 4 GiB.
                    config.allow32(at, !(size - 1));
                }
                Bar::Memory { size, prefetchable } => {
                    command_mask |= command::MEMORY_SPACE;
                    config.preset32(at, if prefetchable { BAR_PREFETCHABLE } else { 0 });
                    config.allow32(at, !(size - 1));
                }
            }
        }
        if rom_size != 0 {
            config.allow32(register::ROM_BAR, !(rom_size - 1) | ROM_ENABLE);
        }
        config.allow16(register::COMMAND, command_mask);
        config.clear_by_one(register::STATUS + 1, 0xf8);
        config.allow8(register::INTERRUPT_LINE, 0xff);
        config
    }

    /// Sets a byte and its value after reset.
    pub fn preset8(&mut self, at: u8, value: u8) {
        self.bytes[at as usize] = value;
        self.initial[at as usize] = value;
    }

    /// Sets 16 bits and their value after reset.
    pub fn preset16(&mut self, at: u8, value: u16) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            self.preset8(at + i as u8, byte);
        }
    }

    /// Sets 32 bits and their value after reset.
    pub fn preset32(&mut self, at: u8, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            self.preset8(at + i as u8, byte);
        }
    }

    /// Makes the bits of `mask` writable by the guest.
    pub fn allow8(&mut self, at: u8, mask: u8) {
        self.writable[at as usize] = mask;
    }

    /// Makes the bits of `mask` writable by the guest.
    pub fn allow16(&mut self, at: u8, mask: u16) {
        for (i, byte) in mask.to_le_bytes().into_iter().enumerate() {
            self.allow8(at + i as u8, byte);
        }
    }

    /// Makes the bits of `mask` writable by the guest.
    pub fn allow32(&mut self, at: u8, mask: u32) {
        for (i, byte) in mask.to_le_bytes().into_iter().enumerate() {
            self.allow8(at + i as u8, byte);
        }
    }

    /// Makes the bits of `mask` cleared by writing ones to them.
    pub fn clear_by_one(&mut self, at: u8, mask: u8) {
        self.write_one_to_clear[at as usize] = mask;
    }

    /// Reads for the guest. `at` is aligned to `width`.
    pub fn read(&self, at: u8, width: Width) -> u32 {
        let mut value = [0; 4];
        for i in 0..width.bytes() as u8 {
            value[i as usize] = self.bytes[at.wrapping_add(i) as usize];
        }
        u32::from_le_bytes(value)
    }

    /// Writes for the guest, through the writable and write-one-to-clear masks.
    pub fn write(&mut self, at: u8, width: Width, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().take(width.bytes() as usize).enumerate() {
            let index = at.wrapping_add(i as u8) as usize;
            let (mask, clear) = (self.writable[index], self.write_one_to_clear[index]);
            let old = self.bytes[index];
            self.bytes[index] = ((old & !mask) | (byte & mask)) & !(byte & clear);
        }
    }

    /// A byte of the space, for the model itself.
    pub fn byte(&self, at: u8) -> u8 {
        self.bytes[at as usize]
    }

    /// Sets a byte past the masks, for the model itself.
    pub fn set_byte(&mut self, at: u8, value: u8) {
        self.bytes[at as usize] = value;
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.read(register::COMMAND, Width::Word) as u16
    }

    /// Where BAR `index` (0-5, or [`ROM_INDEX`]) decodes; `None` when it is not implemented.
    pub fn bar(&self, index: usize) -> Option<BarMapping> {
        let command = self.command();
        if index == ROM_INDEX {
            let raw = self.read(register::ROM_BAR, Width::Dword);
            let enabled = raw & ROM_ENABLE != 0 && command & command::MEMORY_SPACE != 0;
            return (self.rom_size != 0).then(|| BarMapping { base: raw & !(self.rom_size - 1), enabled });
        }
        let raw = self.read(register::BAR0 + 4 * index as u8, Width::Dword);
        match *self.bars.get(index)? {
            Bar::None => None,
            Bar::Io { size } => {
                let base = raw & !(size - 1);
                // The PC has 64 Ki ports: a base beyond them decodes nothing.
                let reachable = base <= 0x1_0000 - size;
                let enabled = reachable && command & command::IO_SPACE != 0;
                Some(BarMapping { base: base & 0xffff, enabled })
            }
            Bar::Memory { size, .. } => {
                Some(BarMapping { base: raw & !(size - 1), enabled: command & command::MEMORY_SPACE != 0 })
            }
        }
    }

    /// Back to the values after PCIRST#.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// The bytes that a saved state needs.
    pub fn state(&self) -> PciConfigState {
        PciConfigState { bytes: self.bytes.to_vec() }
    }

    /// Sets the status bit that says that a transfer of the function as a bus master met nobody.
    pub fn note_master_abort(&mut self) {
        let at = usize::from(register::STATUS) + 1;
        self.bytes[at] |= (status::RECEIVED_MASTER_ABORT >> 8) as u8;
    }

    /// Appends [`PciConfig::state`] to `out`, as it is saved.
    pub fn save(&self, out: &mut Vec<u8>) {
        pack((self.bytes.len(), &self.bytes), out);
    }

    /// Takes over a saved state: only what the guest can write is taken, so that neither
    /// identity nor read-only bits can be forged. Returns false when it is malformed.
    #[must_use]
    pub fn load(&mut self, state: &PciConfigState) -> bool {
        let Ok(bytes) = <[u8; 256]>::try_from(state.bytes.as_slice()) else { return false };
        for (index, byte) in bytes.into_iter().enumerate() {
            let mask = self.writable[index] | self.write_one_to_clear[index];
            self.bytes[index] = (self.bytes[index] & !mask) | (byte & mask);
        }
        true
    }
}

/// Saved form of a [`PciConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciConfigState {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PciConfig {
        let identity = PciIdentity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x03_00_00,
            subsystem: (0x1af4, 0x1100),
            multifunction: false,
            interrupt_pin: 1,
        };
        let mut bars = [Bar::None; 6];
        bars[0] = Bar::Memory { size: 16 << 20, prefetchable: true };
        bars[1] = Bar::Io { size: 16 };
        PciConfig::new(identity, bars, 0x1_0000)
    }

    #[test]
    fn sizing_a_bar_gives_its_size_mask() {
        let mut config = sample();
        config.write(register::BAR0, Width::Dword, 0xffff_ffff);
        assert_eq!(config.read(register::BAR0, Width::Dword), 0xff00_0008);
        config.write(register::BAR0 + 4, Width::Dword, 0xffff_ffff);
        assert_eq!(config.read(register::BAR0 + 4, Width::Dword), 0xffff_fff1);
        config.write(register::ROM_BAR, Width::Dword, 0xffff_fffe);
        assert_eq!(config.read(register::ROM_BAR, Width::Dword), 0xffff_0000);
    }

    #[test]
    fn bars_decode_only_when_the_command_register_says_so() {
        let mut config = sample();
        config.write(register::BAR0, Width::Dword, 0xe000_0000);
        assert_eq!(config.bar(0), Some(BarMapping { base: 0xe000_0000, enabled: false }));
        config.write(register::COMMAND, Width::Word, u32::from(command::MEMORY_SPACE));
        assert_eq!(config.bar(0), Some(BarMapping { base: 0xe000_0000, enabled: true }));
        assert_eq!(config.bar(1), Some(BarMapping { base: 0, enabled: false }));
        assert_eq!(config.bar(2), None);
    }

    #[test]
    fn identity_cannot_be_written_nor_forged_by_a_state() {
        let mut config = sample();
        config.write(register::VENDOR_ID, Width::Dword, 0);
        assert_eq!(config.read(register::VENDOR_ID, Width::Dword), 0x1111_1234);
        assert!(config.load(&PciConfigState { bytes: vec![0; 256] }));
        assert_eq!(config.read(register::VENDOR_ID, Width::Dword), 0x1111_1234);
        assert!(!config.load(&PciConfigState { bytes: vec![0; 255] }));
    }
}
