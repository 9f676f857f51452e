//! Tests of the processor through its public methods, on the machine of [`super::testing`].

mod interrupts;
mod memory;
mod paging;
mod random;
mod segments;
mod system;
mod tasks;
mod transfers;
