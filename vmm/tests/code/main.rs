//! Code that changes while it runs, and code that looks at itself: the guest must not be able to tell that anything was made of it.
//! Everything runs on every engine.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod change;
mod descriptors;
mod devices;
mod float;
mod guest;
mod hidden;
mod levels;
mod neighbours;
mod patched;
mod prefixes;
mod real;
mod returns;
mod stack;
