//! What the registers of a model are called: for traces, coverage and the reports of a replay.
//!
//! Names change nothing about what a model does; a model without them is shown by regions and offsets.

use crate::device::{RegionId, Width};

/// A named part of a register.
pub type Field = (&'static str, u32);

/// A register of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The region that it is in, or [`Register::CONFIG`].
    pub region: RegionId,
    /// Where in the region.
    pub offset: u64,
    /// How wide.
    pub width: Width,
    /// For a register behind an index register: the index that selects it, see
    /// [`crate::device::Device::selected`].
    pub index: Option<u32>,
    /// The datasheet's name.
    pub name: &'static str,
    /// Names of bits: a name and the bits that it is for.
    pub fields: &'static [Field],
}

impl Register {
    /// Stands for the PCI configuration space; the offset is the register number.
    pub const CONFIG: RegionId = RegionId(u8::MAX);

    /// A byte register.
    pub const fn new(region: RegionId, offset: u64, name: &'static str) -> Self {
        Self { region, offset, width: Width::Byte, index: None, name, fields: &[] }
    }

    /// A register of the PCI configuration space.
    pub const fn config(register: u8, width: Width, name: &'static str) -> Self {
        Self::new(Self::CONFIG, register as u64, name).width(width)
    }

    /// The same of another width.
    pub const fn width(mut self, width: Width) -> Self {
        self.width = width;
        self
    }

    /// The same behind an index register that holds `index`.
    pub const fn index(mut self, index: u32) -> Self {
        self.index = Some(index);
        self
    }

    /// The same with names for its bits.
    pub const fn fields(mut self, fields: &'static [Field]) -> Self {
        self.fields = fields;
        self
    }
}

/// The registers that every PCI function has (PCI 2.1, section 6.1).
pub const PCI_HEADER: [Register; 24] = [
    Register::config(0x00, Width::Word, "VID"),
    Register::config(0x02, Width::Word, "DID"),
    Register::config(0x04, Width::Word, "PCICMD").fields(&[
        ("IOSE", 1 << 0),
        ("MSE", 1 << 1),
        ("BME", 1 << 2),
        ("SCE", 1 << 3),
        ("PERR", 1 << 6),
        ("SERR", 1 << 8),
    ]),
    Register::config(0x06, Width::Word, "PCISTS"),
    Register::config(0x08, Width::Byte, "RID"),
    Register::config(0x09, Width::Byte, "PROGIF"),
    Register::config(0x0a, Width::Byte, "SUBC"),
    Register::config(0x0b, Width::Byte, "BASEC"),
    Register::config(0x0c, Width::Byte, "CLS"),
    Register::config(0x0d, Width::Byte, "MLT"),
    Register::config(0x0e, Width::Byte, "HEDT"),
    Register::config(0x0f, Width::Byte, "BIST"),
    Register::config(0x10, Width::Dword, "BAR0"),
    Register::config(0x14, Width::Dword, "BAR1"),
    Register::config(0x18, Width::Dword, "BAR2"),
    Register::config(0x1c, Width::Dword, "BAR3"),
    Register::config(0x20, Width::Dword, "BAR4"),
    Register::config(0x24, Width::Dword, "BAR5"),
    Register::config(0x28, Width::Dword, "CIS"),
    Register::config(0x2c, Width::Word, "SVID"),
    Register::config(0x2e, Width::Word, "SID"),
    Register::config(0x30, Width::Dword, "XROMBAR"),
    Register::config(0x3c, Width::Byte, "INTLN"),
    Register::config(0x3d, Width::Byte, "INTPN"),
];
