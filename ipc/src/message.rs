//! The fixed-size message that travels over rings.
//!
//! Layout (eight little-endian 64-bit words; asserted below and in `docs/protocol.md`):
//!
//! | word | content |
//! |---|---|
//! | 0 | sequence number: 1, 2, 3... per link and direction |
//! | 1 | virtual time, ns |
//! | 2 | kind (bits 0-7), width (8-15), model (16-23), region (24-31), status (32-39), flags (40-47) |
//! | 3 | address: port, physical address, configuration register |
//! | 4 | value |
//! | 5 | payload offset (bits 0-31) and length (32-63) |
//! | 6 | guest EIP (bits 0-31) and CS (32-47) at the access |
//! | 7 | values joined to a write (bits 0-4); bit 63: closed, see [`JOINED_BYTES`] |

use crate::time::VirtualTime;
use crate::width::Width;

/// Words in a message.
pub const MESSAGE_WORDS: usize = 8;

/// Version of the message layout and of everything else in shared memory. Processes of
/// different versions refuse each other in the handshake.
pub const PROTOCOL_VERSION: u32 = 12;

/// What a message asks for or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// VMM to device: read `width` bytes at `address` of a region.
    Read = 1,
    /// VMM to device: write `value`.
    Write = 2,
    /// VMM to device: fill the payload area (REP INS).
    ReadBurst = 3,
    /// VMM to device: write what the payload area holds (REP OUTS, MMIO burst).
    WriteBurst = 4,
    /// VMM to device: read PCI configuration register `address`.
    ConfigRead = 5,
    /// VMM to device: write PCI configuration register `address`.
    ConfigWrite = 6,
    /// VMM to device: reset every model; `value` 0 power-on, 1 hard.
    Reset = 7,
    /// VMM to device: the CPU took the published vector `value` of request number `address`.
    InterruptAcknowledge = 8,
    /// Device to VMM: the answer to the request of the same sequence number.
    Reply = 64,
    /// Device to VMM: `value` bytes at physical `address`, on pages that hold code, were written by DMA.
    CodeWritten = 65,
}

impl Kind {
    fn from_wire(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Kind::Read,
            2 => Kind::Write,
            3 => Kind::ReadBurst,
            4 => Kind::WriteBurst,
            5 => Kind::ConfigRead,
            6 => Kind::ConfigWrite,
            7 => Kind::Reset,
            8 => Kind::InterruptAcknowledge,
            64 => Kind::Reply,
            65 => Kind::CodeWritten,
            _ => return None,
        })
    }
}

/// How a device answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done; `value` or the payload holds what was read.
    #[default]
    Done = 0,
    /// No such register.
    InvalidRegister = 1,
    /// Not at this width.
    InvalidWidth = 2,
    /// The device does not respond.
    NoResponse = 3,
}

/// Flag: nobody waits for an answer, and none is sent.
pub const FLAG_POSTED: u8 = 1 << 0;
/// Flag: a write to which others may be joined: of the same width, to the same address. Their values follow each other in words 4
/// and 5 as they would in memory; the consumer closes the message before it reads them.
pub const FLAG_JOINS: u8 = 1 << 1;

/// Bytes that the values of a message have room for.
pub const JOINED_BYTES: u32 = 16;
/// Word of the first of them.
pub const JOINED_WORD: usize = 4;
const JOINED_MASK: u64 = 0x1f;

/// Whether the producer may be adding to a message: it is to be closed before it is decoded.
#[inline]
pub fn may_be_joined(words: &[u64; MESSAGE_WORDS]) -> bool {
    words[2] >> FLAGS_SHIFT & u64::from(FLAG_JOINS) != 0
}

const FLAGS_SHIFT: u32 = 40;

/// One message, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Sequence number on its ring's link.
    pub sequence: u64,
    /// When the guest made the access, or when the device answered.
    pub time: VirtualTime,
    /// What it asks or tells.
    pub kind: Kind,
    /// Width of the access.
    pub width: Width,
    /// Index of the model in its process.
    pub model: u8,
    /// The model's number of the region.
    pub region: u8,
    /// How a reply ended.
    pub status: Status,
    /// `FLAG_*`.
    pub flags: u8,
    /// Port, physical address or register.
    pub address: u64,
    /// Value written or read.
    pub value: u64,
    /// Payload: offset in the payload area of this direction, and length in bytes.
    pub payload: (u32, u32),
    /// Guest CS and EIP at the access, for traces.
    pub guest: (u16, u32),
    /// Writes that were joined to this one.
    pub joined: u8,
}

impl Message {
    /// A request with everything else zero.
    pub fn new(kind: Kind) -> Self {
        Self {
            sequence: 0,
            time: VirtualTime(0),
            kind,
            width: Width::Byte,
            model: 0,
            region: 0,
            status: Status::Done,
            flags: 0,
            address: 0,
            value: 0,
            payload: (0, 0),
            guest: (0, 0),
            joined: 0,
        }
    }

    /// Whether the sender waits for a reply.
    pub fn expects_reply(&self) -> bool {
        self.flags & FLAG_POSTED == 0 && (self.kind as u8) < Kind::Reply as u8
    }

    /// The values of a write and of those that were joined to it, in order.
    pub fn values(&self) -> impl Iterator<Item = u32> + use<> {
        let (low, high) = (self.value, u64::from(self.payload.0) | u64::from(self.payload.1) << 32);
        let all = u128::from(low) | u128::from(high) << 64;
        let (width, count) = (self.width, 1 + u32::from(self.joined));
        (0..count).map(move |n| (all >> (8 * n * width.bytes())) as u32 & width.mask())
    }

    /// The wire form.
    #[inline]
    pub fn encode(&self) -> [u64; MESSAGE_WORDS] {
        [
            self.sequence,
            self.time.0,
            self.kind as u64
                | (self.width as u64) << 8
                | u64::from(self.model) << 16
                | u64::from(self.region) << 24
                | (self.status as u64) << 32
                | u64::from(self.flags) << FLAGS_SHIFT,
            self.address,
            self.value,
            u64::from(self.payload.0) | u64::from(self.payload.1) << 32,
            u64::from(self.guest.1) | u64::from(self.guest.0) << 32,
            self.joined.into(),
        ]
    }

    /// Checks and decodes the wire form. `None` when a field has no meaning: the sender is
    /// broken or hostile.
    #[inline]
    pub fn decode(words: [u64; MESSAGE_WORDS]) -> Option<Self> {
        let head = words[2];
        let width = match (head >> 8) as u8 {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        let status = match (head >> 32) as u8 {
            0 => Status::Done,
            1 => Status::InvalidRegister,
            2 => Status::InvalidWidth,
            3 => Status::NoResponse,
            _ => return None,
        };
        Some(Self {
            sequence: words[0],
            time: VirtualTime(words[1]),
            kind: Kind::from_wire(head as u8)?,
            width,
            model: (head >> 16) as u8,
            region: (head >> 24) as u8,
            status,
            flags: (head >> FLAGS_SHIFT) as u8,
            address: words[3],
            value: words[4],
            payload: (words[5] as u32, (words[5] >> 32) as u32),
            guest: ((words[6] >> 32) as u16, words[6] as u32),
            joined: ((words[7] & JOINED_MASK) as u8).min((JOINED_BYTES / width.bytes()) as u8 - 1),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_any_words_never_panics_and_keeps_what_it_accepts(words: [u64; MESSAGE_WORDS]) {
            if let Some(message) = Message::decode(words) {
                let again = Message::decode(message.encode()).expect("own encoding decodes");
                prop_assert_eq!(message, again);
            }
        }
    }

    #[test]
    fn the_wire_form_is_what_the_protocol_page_says() {
        let message = Message {
            sequence: 7,
            time: VirtualTime(8),
            width: Width::Word,
            model: 2,
            region: 3,
            flags: FLAG_POSTED,
            address: 0x3d4,
            value: 0x55aa,
            payload: (16, 32),
            guest: (0xf000, 0xfff0),
            ..Message::new(Kind::Write)
        };
        let words = [7, 8, 0x0100_0302_0202, 0x3d4, 0x55aa, 0x20_0000_0010, 0xf000_0000_fff0, 0];
        assert_eq!(message.encode(), words);
    }
}
