//! The virtual clock: one for all processes of a VM, in shared memory.
//!
//! It runs at the speed of host time while nobody freezes it. Freezers are bits, so that a
//! pause by the user and a wait for a stopped device do not undo each other.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::VirtualTime;

/// Why the clock stands still. Bits of one word; it runs when none is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Freeze {
    /// The VM was not started yet, or the user paused it.
    Paused = 1 << 0,
    /// The VMM waits for a device that does not answer.
    DeviceWait = 1 << 1,
    /// A device build is being swapped.
    Swap = 1 << 2,
}

/// The clock. See [`SharedClock::initialise`].
#[repr(C, align(64))]
pub struct SharedClock {
    /// Odd while somebody changes the rest.
    sequence: AtomicU32,
    freezers: AtomicU32,
    /// Virtual time at `base_host`.
    base_virtual: AtomicU64,
    /// Host time (ns of CLOCK_MONOTONIC) at which the clock last started or stopped.
    base_host: AtomicU64,
}

/// Host time in nanoseconds: CLOCK_MONOTONIC, the same in all processes.
#[inline]
pub fn host_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl SharedClock {
    /// Virtual time now.
    #[inline]
    pub fn now(&self) -> VirtualTime {
        loop {
            // SYNC POINT clock: pairs with the Release stores in `change`.
            let before = self.sequence.load(Ordering::Acquire);
            let frozen = self.freezers.load(Ordering::Relaxed) != 0;
            let base_virtual = self.base_virtual.load(Ordering::Relaxed);
            let base_host = self.base_host.load(Ordering::Relaxed);
            let host = if frozen { base_host } else { host_nanos() };
            crate::sync::fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return VirtualTime(base_virtual.wrapping_add(host.saturating_sub(base_host)));
            }
            crate::sync::spin_hint();
        }
    }

    /// Starts at time zero, frozen for `reason`. For the launcher, before anybody else looks.
    pub fn initialise(&self, reason: Freeze) {
        self.base_virtual.store(0, Ordering::Relaxed);
        self.base_host.store(host_nanos(), Ordering::Relaxed);
        self.freezers.store(reason as u32, Ordering::Release);
    }

    /// Whether the clock stands still.
    pub fn is_frozen(&self) -> bool {
        self.freezers.load(Ordering::Relaxed) != 0
    }

    /// Stops the clock for `reason` until [`SharedClock::thaw`] with the same reason.
    pub fn freeze(&self, reason: Freeze) {
        self.change(|bits| bits | reason as u32);
    }

    /// Takes `reason` back; the clock goes on where it stopped when it was the last one.
    pub fn thaw(&self, reason: Freeze) {
        self.change(|bits| bits & !(reason as u32));
    }

    fn change(&self, new_bits: impl Fn(u32) -> u32) {
        // Writers (supervisor, VMM) take turns by making the sequence odd.
        let mut sequence = self.sequence.load(Ordering::Relaxed) & !1;
        while let Err(found) = self.sequence.compare_exchange_weak(
            sequence,
            sequence.wrapping_add(1),
            Ordering::Acquire,
            Ordering::Relaxed,
        ) {
            sequence = found & !1;
            crate::sync::spin_hint();
        }
        // SYNC POINT clock: keeps the stores below after the odd sequence.
        crate::sync::fence(Ordering::Release);
        let host = host_nanos();
        let bits = self.freezers.load(Ordering::Relaxed);
        if bits == 0 {
            let passed = host.saturating_sub(self.base_host.load(Ordering::Relaxed));
            let base = self.base_virtual.load(Ordering::Relaxed).wrapping_add(passed);
            self.base_virtual.store(base, Ordering::Relaxed);
        }
        self.base_host.store(host, Ordering::Relaxed);
        self.freezers.store(new_bits(bits), Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> SharedClock {
        let clock = SharedClock {
            sequence: AtomicU32::new(0),
            freezers: AtomicU32::new(0),
            base_virtual: AtomicU64::new(0),
            base_host: AtomicU64::new(0),
        };
        clock.initialise(Freeze::Paused);
        clock
    }

    #[test]
    fn it_stands_still_while_anybody_freezes_it_and_goes_on_without_a_jump() {
        let clock = clock();
        assert_eq!(clock.now(), VirtualTime(0));
        clock.thaw(Freeze::Paused);
        std::thread::sleep(std::time::Duration::from_millis(2));
        clock.freeze(Freeze::DeviceWait);
        clock.freeze(Freeze::Paused);
        let stopped = clock.now();
        assert!(stopped.0 >= 2_000_000);
        std::thread::sleep(std::time::Duration::from_millis(20));
        clock.thaw(Freeze::DeviceWait);
        assert_eq!(clock.now(), stopped);
        clock.thaw(Freeze::Paused);
        assert!(clock.now() - stopped < 15_000_000, "the frozen time was not left out");
    }

    #[test]
    fn it_never_goes_back_while_two_threads_freeze_and_thaw() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reason in [Freeze::Paused, Freeze::Swap] {
                let (clock, stop) = (&clock, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        clock.freeze(reason);
                        clock.thaw(reason);
                    }
                });
            }
            let mut last = clock.now();
            for _ in 0..200_000 {
                let now = clock.now();
                assert!(now >= last);
                last = now;
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
