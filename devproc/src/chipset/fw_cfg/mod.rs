//! QEMU's firmware configuration device, by which SeaBIOS learns what the machine is.
//!
//! Source: "QEMU Firmware Configuration (fw_cfg) Device" specification: "Guest-side hardware
//! interface". Only the traditional interface is there: OUT of a key to the selector port
//! starts that item at its first byte, IN of the data port takes the next byte, and zeros
//! after its end. The items never change while the VM lives.
//!
//! There are no ACPI or SMBIOS tables among the files (`etc/table-loader`): SeaBIOS then
//! builds its own for a PIIX4, with the power management registers at B000h.

mod names;
mod spec;
mod standard;
#[cfg(test)]
mod tests;

pub use spec::{KEY_BOOT_MENU, KEY_IRQ0_OVERRIDE, KEY_MAX_CPUS, KEY_NB_CPUS, KEY_NOGRAPHIC, KEY_RAM_SIZE};
pub use standard::standard_items;

use crate::device::{
    Access, Device, IoError, ReadResult, Region, RegionId, Register, ResetKind, StateError, Width,
    WriteResult, Writes, load_state, save_state,
};
use crate::host::Host;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

const PORTS: RegionId = RegionId(0);

/// What the device offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// Items with a key of their own.
    pub keys: Vec<(u16, Vec<u8>)>,
    /// Files: name and contents. Their keys follow from their place.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Why a set of items cannot be offered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ItemsError {
    /// A name does not fit the directory.
    #[error("fw_cfg file name {name:?} must have 1 to 55 bytes without a zero")]
    Name {
        /// The name.
        name: String,
    },
    /// Two items would answer to one key.
    #[error("fw_cfg key {key:#06x} is used twice or reserved")]
    Key {
        /// The key.
        key: u16,
    },
    /// Two files have one name.
    #[error("fw_cfg file {name:?} appears twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More files than keys.
    #[error("fw_cfg has {count} files; there are keys for {max}")]
    TooMany {
        /// Files given.
        count: usize,
        /// Most that fit.
        max: usize,
    },
    /// An item is larger than the directory's 32-bit size field.
    #[error("fw_cfg file {name:?} is too large")]
    Size {
        /// The name.
        name: String,
    },
}

/// The device.
pub struct FwCfg {
    // Constant: what each key holds.
    items: BTreeMap<u16, Vec<u8>>,
    // Runtime: whether the state may differ from what was last saved.
    changed: bool,
    // Volatile state.
    state: State,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct State {
    /// The selected key.
    key: u16,
    /// Bytes of it that have been read.
    position: u32,
}

const POWER_ON: State = State { key: spec::KEY_SIGNATURE, position: 0 };

impl FwCfg {
    /// A device that offers `items`; signature, features and directory are added.
    ///
    /// # Errors
    /// When a name, a key or a size does not fit the interface.
    pub fn new(items: Items) -> Result<Self, ItemsError> {
        let Items { keys, mut files } = items;
        let mut map = BTreeMap::from([
            (spec::KEY_SIGNATURE, spec::SIGNATURE.to_vec()),
            (spec::KEY_ID, spec::ID_TRADITIONAL.to_le_bytes().to_vec()),
        ]);
        files.sort();
        map.insert(spec::KEY_FILE_DIR, directory(&files)?);
        for (key, (_, contents)) in (spec::KEY_FILE_FIRST..).zip(files) {
            map.insert(key, contents);
        }
        for (key, contents) in keys {
            if key & spec::WRITE_CHANNEL != 0 || map.insert(key, contents).is_some() {
                return Err(ItemsError::Key { key });
            }
        }
        Ok(Self { items: map, changed: true, state: POWER_ON })
    }

    /// Takes the next bytes of the selected item; zeros after its end.
    fn take(&mut self, out: &mut [u8]) {
        let item = self.items.get(&self.state.key).map_or(&[][..], Vec::as_slice);
        let rest = item.get(self.state.position as usize..).unwrap_or_default();
        let count = rest.len().min(out.len());
        let (data, zeros) = out.split_at_mut(count);
        data.copy_from_slice(&rest[..count]);
        zeros.fill(0);
        // Not beyond the end: so that a poll of an ended item changes nothing.
        if count != 0 {
            self.state.position = self.state.position.saturating_add(count as u32);
            self.changed = true;
        }
    }
}

/// The directory: a count, then size, key, two zeros and the name of each file, big-endian.
fn directory(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, ItemsError> {
    if files.len() > spec::FILE_SLOTS {
        return Err(ItemsError::TooMany { count: files.len(), max: spec::FILE_SLOTS });
    }
    if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ItemsError::Duplicate { name: pair[0].0.clone() });
    }
    let mut directory = (files.len() as u32).to_be_bytes().to_vec();
    for (key, (name, contents)) in (spec::KEY_FILE_FIRST..).zip(files) {
        let size = u32::try_from(contents.len()).map_err(|_| ItemsError::Size { name: name.clone() })?;
        if name.is_empty() || name.len() >= spec::FILE_NAME_LEN || name.contains('\0') {
            return Err(ItemsError::Name { name: name.clone() });
        }
        let mut padded = [0; spec::FILE_NAME_LEN];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        directory.extend_from_slice(&size.to_be_bytes());
        directory.extend_from_slice(&key.to_be_bytes());
        directory.extend_from_slice(&[0, 0]);
        directory.extend_from_slice(&padded);
    }
    Ok(directory)
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw-cfg"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(PORTS, "fw-cfg", spec::SELECTOR_PORT, spec::PORT_COUNT)
                .width(Width::Word)
                .writes(Writes::PostedLocal),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn read(&mut self, at: Access, _host: &mut dyn Host) -> ReadResult {
        match (at.region, at.offset, at.width) {
            (PORTS, spec::DATA_OFFSET, Width::Byte) => {
                let mut byte = [0];
                self.take(&mut byte);
                Ok(byte[0].into())
            }
            (PORTS, 0, _) => Err(IoError::InvalidRegister),
            _ => Err(IoError::InvalidWidth),
        }
    }

    fn write(&mut self, at: Access, value: u32, _host: &mut dyn Host) -> WriteResult {
        match (at.region, at.offset, at.width) {
            (PORTS, 0, Width::Word) => {
                self.state = State { key: value as u16 & !spec::WRITE_CHANNEL, position: 0 };
                self.changed = true;
                Ok(())
            }
            (PORTS, spec::DATA_OFFSET, Width::Byte) => Err(IoError::InvalidRegister),
            _ => Err(IoError::InvalidWidth),
        }
    }

    fn read_burst(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        if (at.region, at.offset, at.width) == (PORTS, spec::DATA_OFFSET, Width::Byte) {
            self.take(data);
            return Ok(());
        }
        self.read(at, host).map(|_| ())
    }

    fn reset(&mut self, _kind: ResetKind, _host: &mut dyn Host) {
        self.state = POWER_ON;
        self.changed = true;
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        // Any key and any position are harmless: reading past an end gives zeros.
        self.state = load_state(data)?;
        self.changed = true;
        Ok(())
    }
}
