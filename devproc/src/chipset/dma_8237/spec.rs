//! Registers of the 8237A pair and the DMA page registers; no behaviour.
//!
//! Names are those of the Intel 8237A datasheet ("Register description", "Software commands")
//! and of the 82371AB (PIIX4) datasheet, section 4.2 (DMA registers).

use bitfield_struct::bitfield;

/// Controller 1 (channels 0-3): one register per port.
pub const CONTROLLER_1_BASE: u16 = 0x00;
/// Ports of controller 1.
pub const CONTROLLER_1_PORTS: u16 = 0x10;
/// Controller 2 (channels 4-7): one register per word.
pub const CONTROLLER_2_BASE: u16 = 0xc0;
/// Ports of controller 2.
pub const CONTROLLER_2_PORTS: u16 = 0x20;
/// First page register. 80h belongs to the POST code port (`debug_ports`).
pub const PAGE_BASE: u16 = 0x81;
/// Page registers and the scratch registers among them: 81h to 8Fh.
pub const PAGE_PORTS: u16 = 0x0f;

/// Controllers.
pub const CONTROLLERS: usize = 2;
/// Channels of one controller.
pub const CHANNELS: u8 = 4;
/// The channel of controller 2 that controller 1 is cascaded through.
pub const CASCADE_CHANNEL: u8 = 4;

/// Registers 0 to 7: address and count of each channel, in turn.
pub const LAST_CHANNEL_REGISTER: u8 = 7;
/// Status (read), command (write).
pub const STATUS_COMMAND: u8 = 0x8;
/// Request register (write).
pub const REQUEST: u8 = 0x9;
/// Write single mask register bit.
pub const SINGLE_MASK: u8 = 0xa;
/// Mode register (write).
pub const MODE: u8 = 0xb;
/// Clear byte pointer flip-flop (write).
pub const CLEAR_BYTE_POINTER: u8 = 0xc;
/// Temporary register (read), master clear (write).
pub const TEMPORARY_MASTER_CLEAR: u8 = 0xd;
/// Clear mask register (write).
pub const CLEAR_MASK: u8 = 0xe;
/// Write all mask register bits; the PIIX4 reads it back.
pub const ALL_MASK: u8 = 0xf;

/// Command register bit 2: the controller is disabled.
pub const COMMAND_DISABLE: u8 = 1 << 2;
/// Status bits 3-0: terminal count reached, per channel.
pub const STATUS_TC_SHIFT: u8 = 0;
/// Status bits 7-4: request pending, per channel.
pub const STATUS_REQUEST_SHIFT: u8 = 4;
/// All four mask bits.
pub const MASK_ALL: u8 = 0b1111;
/// Bits of the mode register that select the channel; not kept.
pub const MODE_CHANNEL: u8 = 0b11;
/// Mode bits 7-6, transfer mode.
pub const MODE_TRANSFER: u8 = 0b1100_0000;
/// Transfer mode "block": the only one that serves software requests.
pub const MODE_BLOCK: u8 = 0b1000_0000;
/// Mode bits 3-2, transfer type.
pub const MODE_TYPE: u8 = 0b0000_1100;
/// Transfer type "write": device to memory.
pub const MODE_TYPE_WRITE: u8 = 0b0000_0100;
/// Transfer type "read": memory to device.
pub const MODE_TYPE_READ: u8 = 0b0000_1000;

/// What an ISA data bus that nobody drives reads as.
pub const FLOATING_BUS: u8 = 0xff;

/// Request register and single mask register: a channel and its new bit.
#[bitfield(u8)]
pub struct ChannelBit {
    /// Channel of this controller.
    #[bits(2)]
    pub channel: u8,
    /// New value of its request or mask bit.
    pub set: bool,
    /// Must be 0.
    #[bits(5)]
    pub reserved: u8,
}

/// What each page register port, from [`PAGE_BASE`] on, holds: a channel's page or nothing (scratch).
/// Port 8Fh is the refresh page, kept as that of channel 4.
pub const PAGE_CHANNELS: [Option<u8>; PAGE_PORTS as usize] = [
    Some(2),
    Some(3),
    Some(1),
    None,
    None,
    None,
    Some(0),
    None,
    Some(6),
    Some(7),
    Some(5),
    None,
    None,
    None,
    Some(CASCADE_CHANNEL),
];
