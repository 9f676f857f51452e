//! The width of one bus access.

/// How many bytes one access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
}

impl Width {
    /// The number of bytes: 1, 2 or 4.
    pub const fn bytes(self) -> u32 {
        self as u32
    }

    /// The bits that a value of this width can have.
    pub const fn mask(self) -> u32 {
        match self {
            Width::Byte => 0xff,
            Width::Word => 0xffff,
            Width::Dword => 0xffff_ffff,
        }
    }
}
