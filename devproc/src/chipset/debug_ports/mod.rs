//! Debug ports: text at E9h and 402h, POST codes at 80h.
//!
//! The text ports are conventions of Bochs and SeaBIOS, not hardware: a byte written is a
//! character for the debug console, a read gives E9h, which software takes for "present".
//! Port 80h keeps the last POST code, as a diagnostic card does; it is also the port that
//! software writes to for a short delay.

mod names;
mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Device, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind, StateError,
    WriteResult, Writes, load_state, save_state,
};
use crate::host::Host;
use serde::{Deserialize, Serialize};

const BOCHS: RegionId = RegionId(0);
const SEABIOS: RegionId = RegionId(1);
const POST: RegionId = RegionId(2);

const BOCHS_CELL: MirrorSlot = MirrorSlot(0);
const SEABIOS_CELL: MirrorSlot = MirrorSlot(1);
const POST_CELL: MirrorSlot = MirrorSlot(2);

/// The debug ports.
pub struct DebugPorts {
    // Runtime: whether the state may differ from what was last saved.
    changed: bool,
    // Volatile state.
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    post_code: u8,
}

impl Default for DebugPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl DebugPorts {
    /// Ports as after power-on.
    pub fn new() -> Self {
        Self { changed: true, state: State { post_code: 0 } }
    }

    /// The last value written to port 80h.
    pub fn post_code(&self) -> u8 {
        self.state.post_code
    }
}

impl Device for DebugPorts {
    fn name(&self) -> &'static str {
        "debug"
    }

    fn regions(&self) -> Vec<Region> {
        let port =
            |id, name, port, cell| Region::ports(id, name, port, 1).writes(Writes::Joined).mirrored(cell);
        vec![
            port(BOCHS, "debug-e9", spec::BOCHS_PORT, BOCHS_CELL),
            port(SEABIOS, "debug-402", spec::SEABIOS_PORT, SEABIOS_CELL),
            port(POST, "post-code", spec::POST_PORT, POST_CELL),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        host.publish_mirror(BOCHS_CELL, spec::READBACK.into());
        host.publish_mirror(SEABIOS_CELL, spec::READBACK.into());
        host.publish_mirror(POST_CELL, self.state.post_code.into());
    }

    fn read(&mut self, at: Access, _host: &mut dyn Host) -> ReadResult {
        match at.region {
            BOCHS | SEABIOS => Ok(spec::READBACK.into()),
            POST => Ok(self.state.post_code.into()),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        match at.region {
            BOCHS | SEABIOS => host.debug_text(value as u8),
            POST => {
                if self.state.post_code != value as u8 {
                    self.changed = true;
                    self.state.post_code = value as u8;
                    host.publish_mirror(POST_CELL, value & 0xff);
                }
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn write_burst(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        // The ports are a byte wide, so a burst is one access per byte.
        data.iter().try_for_each(|byte| self.write(at, u32::from(*byte), host))
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        self.state = State { post_code: 0 };
        self.changed = true;
        self.attach(host);
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
        self.state = load_state(data)?;
        self.changed = true;
        Ok(())
    }
}
