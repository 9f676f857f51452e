//! What the processes of one virtual PC must agree on, and nothing else.
//!
//! This crate knows shared memory, rings, the virtual clock, interrupt lines and the
//! handshake. It must not know what a CPU or a particular device does.

pub mod input;
pub mod machine;
pub mod time;
pub mod width;
