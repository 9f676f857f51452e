//! What a virtual PC can be started with: the built-in demo, the system's firmware, disk images.

pub mod demo;
pub mod disk;
pub mod firmware;
pub mod recipes;
