//! What the VMM keeps of its own: the processor, and the latches of the bus. Everything else that it has is derived.

use super::container::SavedError;
use crate::bus::BusState;
use crate::cpu::CpuState;
use ipc::setup::Exported;
use serde::{Deserialize, Serialize};

/// The state of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// All registers, hidden ones too.
    pub cpu: CpuState,
    /// Latches of the bus.
    pub bus: BusState,
}

impl Processor {
    /// Version of the format. [`CpuState`] and [`BusState`] are part of it.
    pub const VERSION: u16 = 1;

    /// As it goes into a file. The error is one that no state makes.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn encode(&self) -> Result<Exported, postcard::Error> {
        Ok(Exported { version: Self::VERSION, data: postcard::to_stdvec(self)? })
    }

    /// As it comes out of a file, checked.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn decode(exported: &Exported) -> Result<Self, SavedError> {
        let (section, known) = super::section::PROCESSOR;
        if exported.version != known {
            return Err(SavedError::NewerSection { section: section.into(), found: exported.version, known });
        }
        let Self { cpu, bus } = super::decode(section, &exported.data)?;
        let cpu = cpu.validated().map_err(|error| SavedError::corrupt(section, error.to_string()))?;
        Ok(Self { cpu, bus })
    }
}
