//! The atomics that lock-free parts are written with: the processor's, or loom's when the
//! crate is model-checked (`RUSTFLAGS="--cfg loom" cargo test -p vmsim-ipc --lib`).

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A hint that the caller spins; under loom, a point where another thread must run.
#[inline]
pub fn spin_hint() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
