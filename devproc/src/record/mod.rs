//! Recordings of what happens on a device's link, and what can be done with them without a VM.
//!
//! A recording has everything that the models of one device process were called with and learnt, in the
//! order in which they saw it, and what they did. So any build of them can be run against it, in
//! one process: [`replay`]. Nothing here knows rings or shared memory; the device process (`process`)
//! says what happens.

pub mod coverage;
pub mod deeds;
pub mod export;
pub mod format;
mod hash;
pub mod items;
pub mod machine;
pub mod names;
pub mod replay;
mod run;
pub mod show;
mod stand_in;
mod tape;
#[cfg(test)]
mod tests;

pub use hash::hash_picture;
pub use run::{Options, run};
pub use tape::{Recorder, Sink};
