//! What the processes of one virtual PC must agree on, and nothing else.
//!
//! This crate knows shared memory, rings, the virtual clock, interrupt lines and the
//! handshake. It must not know what a CPU or a particular device does.
//!
//! The lock-free parts (`ring`, `doorbell`, `clock`, `interrupt`, `state_page`, `region_table`)
//! also build under `--cfg loom`, where every interleaving of their tests is tried; the rest is
//! left out there.

pub mod clock;
pub mod doorbell;
pub mod fault;
pub mod host_clock;
pub mod interrupt;
pub mod message;
pub mod mirror;
pub mod patience;
pub mod region_table;
pub mod ring;
pub mod state_page;
pub mod sync;
pub mod tick_register;
pub mod time;
pub mod width;

#[cfg(not(loom))]
pub mod board;
#[cfg(not(loom))]
pub mod chassis;
#[cfg(not(loom))]
pub mod control;
pub mod counter;
#[cfg(not(loom))]
pub mod dma;
#[cfg(not(loom))]
pub mod input;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
pub mod logging;
#[cfg(not(loom))]
pub mod machine;
#[cfg(not(loom))]
pub mod panel;
#[cfg(not(loom))]
pub mod raster;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod runtime_dir;
#[cfg(not(loom))]
pub mod screen;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod serial;
#[cfg(not(loom))]
pub mod setup;
