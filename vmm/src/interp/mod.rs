//! The reference engine: complete, portable, precise.
//!
//! Guest code is decoded once, with iced-x86, into blocks of operations ([`op::Op`]) whose handlers are
//! plain functions on the [`crate::cpu::Vcpu`]. Blocks are kept by physical address ([`cache`]), so that
//! paging changes cost nothing; stores into them are reported by the processor's slow store path.
//!
//! What the engine and the processor agree on:
//! - the arithmetic flags live in a [`flags::LazyFlags`], `Vcpu::lazy`, that `Vcpu::flags()` and
//!   `set_flags()` merge with the rest of EFLAGS;
//! - a handler that returns a fault leaves registers as they were; the engine restores EIP.

mod breakpoints;
mod bulk;
pub mod cache;
pub mod code_map;
pub mod decode;
pub mod flags;
pub mod liveness;
pub mod op;
pub mod ops;
mod run;
mod steps;
#[cfg(test)]
mod tests;

pub(crate) use run::Dropped;
pub use run::{Exit, Interp, Statistics};
