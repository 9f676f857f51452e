//! The VMM process of a VMSim virtual PC: CPU, memory, bus and monitor.
//!
//! It executes guest code and routes accesses. It must not know what any device does: devices
//! are ranges that other processes answer for.

pub mod bus;
pub mod cpu;
pub mod debug;
pub mod engine;
pub mod interp;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod lockstep;
pub mod monitor;
pub mod process;
pub mod saved;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod shadow;
pub mod softfloat;
