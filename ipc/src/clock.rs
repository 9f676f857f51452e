//! The virtual clock: one for all processes of a VM, in shared memory.
//!
//! It runs at the speed of host time while nobody freezes it. Freezers are bits, so that a
//! pause by the user and a wait for a stopped device do not undo each other.
//!
//! The whole state is one word that changes by compare-and-swap only, so that a process which
//! is killed or stopped in the middle of a change holds up nobody. Stopping takes two steps:
//! first the word says that the clock is to stop, then whoever sees that (the stopper, another
//! writer, a reader) fixes the moment. All host times read before the first step are earlier
//! than any read after it, so time never goes back.

use crate::sync::{AtomicU64, Ordering};
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
    /// A device process died and has not come back yet, or is stopped.
    DeviceGone = 1 << 3,
    /// A debugger has stopped the guest.
    Debugger = 1 << 4,
}

/// All freezers.
const FREEZERS: u64 = 0x1f;
/// The clock is to stop, but the moment is not fixed yet: the value still is that of a running clock.
const STOPPING: u64 = 1 << 5;
const VALUE_SHIFT: u32 = 6;
/// Nanoseconds that the value holds, modulo: 9 years.
const VALUE_MASK: u64 = u64::MAX >> VALUE_SHIFT;

/// The clock. See [`SharedClock::initialise`].
#[repr(C, align(64))]
pub struct SharedClock {
    /// Bits 0-4: freezers. Bit 5: [`STOPPING`]. Bits 6-63: while it runs or is stopping, host time
    /// (ns of CLOCK_MONOTONIC) minus virtual time; while it stands still, virtual time.
    word: AtomicU64,
}

/// Host time in nanoseconds: CLOCK_MONOTONIC, the same in all processes.
#[inline]
pub fn host_nanos() -> u64 {
    #[cfg(loom)]
    return model::host_nanos();
    #[cfg(not(loom))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

/// `host` minus the value of `word`: the virtual time of a running clock, or the offset of one
/// that goes on.
#[inline]
fn difference(host: u64, word: u64) -> u64 {
    host.wrapping_sub(word >> VALUE_SHIFT) & VALUE_MASK
}

impl SharedClock {
    /// Virtual time now.
    #[inline]
    pub fn now(&self) -> VirtualTime {
        // SYNC POINT clock: what happened before a change of the clock is visible after it was seen.
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & STOPPING != 0 {
                word = self.settle(word);
            } else if word & FREEZERS != 0 {
                return VirtualTime(word >> VALUE_SHIFT);
            } else {
                let host = host_nanos();
                // The clock may have stopped between the two looks, and then `host` is too late.
                crate::sync::fence(Ordering::Acquire);
                let again = self.word.load(Ordering::Relaxed);
                if again == word {
                    return VirtualTime(difference(host, word));
                }
                word = again;
            }
        }
    }

    /// Starts at time zero, frozen for `reason`. For the launcher, before anybody else looks.
    pub fn initialise(&self, reason: Freeze) {
        self.word.store(reason as u64, Ordering::Release);
    }

    /// Sets the time of a clock that stands still: for a VM that is restored, and for tests. Does
    /// nothing while it runs.
    pub fn set(&self, time: VirtualTime) {
        let mut word = self.word.load(Ordering::Acquire);
        while word & FREEZERS != 0 && word & STOPPING == 0 {
            let new = time.0 << VALUE_SHIFT | word & FREEZERS;
            match self.exchange(word, new) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }

    /// Whether the clock stands still.
    pub fn is_frozen(&self) -> bool {
        self.word.load(Ordering::Relaxed) & FREEZERS != 0
    }

    /// A value that is another one after the clock stopped or went on.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// Stops the clock for `reason` until [`SharedClock::thaw`] with the same reason.
    pub fn freeze(&self, reason: Freeze) {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let stopping = if word & FREEZERS == 0 { STOPPING } else { 0 };
            match self.exchange(word, word | reason as u64 | stopping) {
                Ok(new) => {
                    if new & STOPPING != 0 {
                        self.settle(new);
                    }
                    return;
                }
                Err(found) => word = found,
            }
        }
    }

    /// Takes `reason` back; the clock goes on where it stopped when it was the last one.
    pub fn thaw(&self, reason: Freeze) {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & STOPPING != 0 {
                word = self.settle(word);
                continue;
            }
            let freezers = word & FREEZERS & !(reason as u64);
            let new = if word & FREEZERS == 0 {
                return;
            } else if freezers == 0 {
                difference(host_nanos(), word) << VALUE_SHIFT
            } else {
                word & !FREEZERS | freezers
            };
            match self.exchange(word, new) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }

    /// Fixes the moment at which a stopping clock stands; returns the word as it is then.
    #[cold]
    fn settle(&self, word: u64) -> u64 {
        // Everything that was read from the running clock is earlier than this.
        crate::sync::fence(Ordering::SeqCst);
        let new = difference(host_nanos(), word) << VALUE_SHIFT | word & FREEZERS;
        self.exchange(word, new).unwrap_or_else(|found| found)
    }

    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        self.word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Acquire).map(|_| new)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn clock() -> SharedClock {
        let clock = SharedClock { word: AtomicU64::new(0) };
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

    #[test]
    fn a_writer_that_dies_while_it_stops_the_clock_holds_up_nobody() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let before = clock.now();
        // The first of the two steps of `freeze`, by a process that was killed after it.
        clock.word.fetch_or(STOPPING | Freeze::Swap as u64, Ordering::SeqCst);
        let stopped = clock.now();
        assert!(stopped >= before);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
        clock.freeze(Freeze::Paused);
        clock.thaw(Freeze::Swap);
        assert_eq!(clock.now(), stopped);
        clock.thaw(Freeze::Paused);
        assert!(clock.now() >= stopped);
    }

    #[test]
    fn a_change_is_seen_and_nothing_else_is() {
        let clock = clock();
        let frozen = clock.changes();
        clock.thaw(Freeze::DeviceWait);
        assert_eq!(clock.changes(), frozen);
        clock.thaw(Freeze::Paused);
        assert_ne!(clock.changes(), frozen);
    }
}

#[cfg(loom)]
mod model {
    use super::*;

    loom::lazy_static! {
        static ref HOST: AtomicU64 = AtomicU64::new(1000);
    }

    /// A host clock that goes on by one with every look.
    pub fn host_nanos() -> u64 {
        HOST.fetch_add(1, Ordering::SeqCst)
    }

    #[cfg(test)]
    fn running() -> loom::sync::Arc<SharedClock> {
        let clock = SharedClock { word: AtomicU64::new(0) };
        clock.initialise(Freeze::Paused);
        clock.thaw(Freeze::Paused);
        loom::sync::Arc::new(clock)
    }

    #[cfg(test)]
    #[test]
    fn no_interleaving_of_stopping_and_going_on_takes_time_back() {
        loom::model(|| {
            let clock = running();
            let writer = {
                let clock = clock.clone();
                loom::thread::spawn(move || {
                    clock.freeze(Freeze::Paused);
                    clock.thaw(Freeze::Paused);
                })
            };
            let first = clock.now();
            let second = clock.now();
            assert!(second >= first);
            writer.join().unwrap();
            assert!(clock.now() >= second);
        });
    }

    #[cfg(test)]
    #[test]
    fn no_interleaving_of_two_freezers_loses_one() {
        loom::model(|| {
            let clock = running();
            let other = {
                let clock = clock.clone();
                loom::thread::spawn(move || clock.freeze(Freeze::DeviceWait))
            };
            clock.freeze(Freeze::Paused);
            let stopped = clock.now();
            other.join().unwrap();
            clock.thaw(Freeze::Paused);
            assert!(clock.is_frozen());
            assert_eq!(clock.now(), stopped);
        });
    }
}
