//! The SMBus host controller with an empty bus: every command ends with "no acknowledge".

use super::spec::smbus::*;
use crate::device::{IoError, StateError};
use crate::pack::pack_fields;
use serde::{Deserialize, Serialize};

/// The registers of the block at SMBBA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Smbus {
    status: u8,
    control: u8,
    command: u8,
    address: u8,
    data: [u8; 2],
    block: [u8; BLOCK_LEN],
    block_index: u8,
    slave_control: u8,
    slave_event: [u8; 2],
}

pack_fields!(Smbus {
    status,
    control,
    command,
    address,
    data,
    block,
    block_index,
    slave_control,
    slave_event,
});

impl Smbus {
    /// Whether the controller asks for an interrupt.
    pub(super) fn interrupt(&self) -> bool {
        self.control & INTEREN != 0 && self.status & HSTSTS_CLEAR != 0
    }

    pub(super) fn read(&mut self, offset: u64) -> Result<u8, IoError> {
        Ok(match offset {
            SMBHSTSTS => self.status,
            // Nobody addresses this host, so the slave side never has anything to say.
            SMBSLVSTS | SMBSHDWCMD => 0,
            SMBHSTCNT => {
                self.block_index = 0;
                self.control
            }
            SMBHSTCMD => self.command,
            SMBHSTADD => self.address,
            SMBHSTDAT0 => self.data[0],
            SMBHSTDAT1 => self.data[1],
            SMBBLKDAT => self.next_block_byte().map_or(0, |byte| *byte),
            SMBSLVCNT => self.slave_control,
            SMBSLVEVT => self.slave_event[0],
            SMBSLVEVT_HIGH => self.slave_event[1],
            SMBSLVDAT | SMBSLVDAT_HIGH => 0,
            _ => return Err(IoError::InvalidRegister),
        })
    }

    pub(super) fn write(&mut self, offset: u64, value: u8) -> Result<(), IoError> {
        match offset {
            SMBHSTSTS => self.status &= !(value & HSTSTS_CLEAR),
            SMBHSTCNT => {
                self.control = value & HSTCNT_WRITABLE;
                if value & START != 0 {
                    // No slave pulls the line down in the acknowledge cycle of the address.
                    self.status |= DEV_ERR;
                }
            }
            SMBHSTCMD => self.command = value,
            SMBHSTADD => self.address = value,
            SMBHSTDAT0 => self.data[0] = value,
            SMBHSTDAT1 => self.data[1] = value,
            SMBBLKDAT => {
                if let Some(byte) = self.next_block_byte() {
                    *byte = value;
                }
            }
            SMBSLVCNT => self.slave_control = value & SLVCNT_WRITABLE,
            SMBSLVEVT => self.slave_event[0] = value,
            SMBSLVEVT_HIGH => self.slave_event[1] = value,
            SMBSLVSTS => {}
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    /// The byte that the index is at; the index moves on and wraps.
    fn next_block_byte(&mut self) -> Option<&mut u8> {
        let index = usize::from(self.block_index);
        self.block_index = ((index + 1) % BLOCK_LEN) as u8;
        self.block.get_mut(index)
    }

    /// Checks a state that came from outside.
    pub(super) fn validate(&self) -> Result<(), StateError> {
        if usize::from(self.block_index) >= BLOCK_LEN {
            return Err(StateError::OutOfRange("SMBus block index"));
        }
        if self.status & !HSTSTS_CLEAR != 0 || self.control & !HSTCNT_WRITABLE != 0 {
            return Err(StateError::OutOfRange("SMBus status or control"));
        }
        Ok(())
    }
}
