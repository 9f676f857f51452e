//! The shadow engine: guest code runs natively, scanned before it executes, from shadow pages that the guest cannot see.
//!
//! The parts, by the names of the original:
//! - `bridge`: swaps registers between host and guest.
//! - `scanner` with `classify`: decides which instructions are taken together, and what is done with each.
//! - `translate`: makes host code of them (`asm` knows encodings).
//! - `pages` (shadow pages), `cache` (memory for code and entry tables), `space` (which shadow page is mapped where),
//!   `links` (where jumps between pages have led).
//! - `patched`: code that is written over again and again.
//! - `mode`: what shadow code takes for granted.
//! - `window` (guest memory mapped where the host does the paging), `trap` (faults in it), `windowed` (which address spaces get one).
//! - `listing`: shows guest code and what was made of it; `perf`: tells perf.
//! - `engine`: the monitor's loop around it all.
//!
//! It decides nothing architectural: whatever is not plain is left to [`crate::interp`], instruction by instruction. It runs on
//! x86-64 Linux only.

mod asm;
mod bridge;
mod cache;
mod classify;
mod descriptors;
mod devices;
mod engine;
mod fpu;
mod home;
mod links;
mod listing;
pub(crate) mod mode;
mod pages;
mod patched;
mod perf;
pub(crate) mod scanner;
mod space;
mod statistics;
mod translate;
mod trap;
mod window;
mod windowed;

pub use cache::CacheError;
pub use classify::Terminal;
pub use engine::Shadow;
pub use listing::{Snippet, listing};
pub use statistics::Statistics;
pub use window::WindowStatistics;
pub use windowed::WindowPolicy;
