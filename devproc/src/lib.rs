//! The device side of VMSim: the [`device::Device`] trait that a model implements, the host
//! that runs models in a process of their own, and the models of a late-1990s PC.
//!
//! Models know registers, time and wires. They do not know processes, rings or shared memory:
//! all that stands behind [`host::Host`].

pub mod chipset;
pub mod device;
pub mod gpu;
pub mod host;
pub mod isa_dma;
pub mod keyboard;
pub mod outside;
mod pack;
pub mod pci;
pub mod process;
pub mod record;
pub mod register;
mod spare;
pub mod standard;
pub mod storage;
pub mod testing;
