//! How a process sleeps until another one has news, without ever missing any.
//!
//! A sleeper announces itself, looks once more, then sleeps in the kernel (futex). A ringer
//! publishes its news, then looks whether somebody announced itself: ringing an awake process
//! costs one load. Waiting is adaptive ([`Patience`]): spin, then yield, then sleep, so that it
//! is quick between two cores and still works when all processes share one.

use crate::sync::{AtomicU32, Ordering, fence, spin_hint};
use std::time::Duration;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One process's bell. Only that process sleeps on it; anybody may ring.
#[repr(C, align(64))]
pub struct Doorbell {
    state: AtomicU32,
}

impl Doorbell {
    /// Wakes the sleeper if there is one. Whatever was stored before the call is visible to it.
    #[inline]
    pub fn ring(&self) {
        // SYNC POINT bell: this fence and the one in `sleep` order "news, then state" here
        // against "state, then news" there, so that at least one side sees the other.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP && self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP
        {
            wake(&self.state);
        }
    }

    /// Whether the owner sleeps or is about to.
    pub fn is_asleep(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ASLEEP
    }

    /// Sleeps until rung or for `timeout`, unless `news()` already holds. Owner only.
    pub fn sleep(&self, timeout: Option<Duration>, mut news: impl FnMut() -> bool) {
        self.state.store(ASLEEP, Ordering::Relaxed);
        // SYNC POINT bell: see `ring`.
        fence(Ordering::SeqCst);
        if !news() {
            wait(&self.state, timeout);
        }
        self.state.store(AWAKE, Ordering::Relaxed);
    }
}

#[cfg(any(test, loom))]
impl Default for Doorbell {
    fn default() -> Self {
        Self { state: AtomicU32::new(AWAKE) }
    }
}

#[cfg(all(not(loom), target_os = "linux"))]
fn wait(word: &AtomicU32, timeout: Option<Duration>) {
    use rustix::thread::futex;
    let timeout = timeout.map(|t| futex::Timespec {
        tv_sec: t.as_secs().min(i32::MAX as u64) as _,
        tv_nsec: t.subsec_nanos().into(),
    });
    // Woken, timed out, interrupted or no longer asleep: the caller looks again in any case.
    let _ = futex::wait(word, futex::Flags::empty(), ASLEEP, timeout.as_ref());
}

#[cfg(all(not(loom), target_os = "linux"))]
fn wake(word: &AtomicU32) {
    use rustix::thread::futex;
    // Fails only for a bad address, and `word` is a reference.
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Hosts without a shared futex poll once a millisecond.
#[cfg(all(not(loom), not(target_os = "linux")))]
fn wait(word: &AtomicU32, timeout: Option<Duration>) {
    let end = timeout.map(|t| std::time::Instant::now() + t);
    while word.load(Ordering::Acquire) == ASLEEP && end.is_none_or(|e| std::time::Instant::now() < e) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(all(not(loom), not(target_os = "linux")))]
fn wake(_: &AtomicU32) {}

/// Under loom the kernel's part is: sleep while the word says so.
#[cfg(loom)]
fn wait(word: &AtomicU32, _: Option<Duration>) {
    while word.load(Ordering::Acquire) == ASLEEP {
        loom::thread::yield_now();
    }
}

#[cfg(loom)]
fn wake(_: &AtomicU32) {}

/// How long to look before sleeping, fitted to the CPUs this process may use.
///
/// A peer that runs answers within a microsecond: that is what spinning is for. One that has
/// not answered by then is probably waiting for a CPU, perhaps ours: from there on every few
/// looks the CPU is offered (`sched_yield`), which costs little when nobody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Looks with a spin hint in between. Zero on one CPU: the peer cannot move while we spin.
    spins: u32,
    /// Times to yield after that.
    yields: u32,
    /// Looks after each yield.
    spins_per_yield: u32,
}

impl Patience {
    /// For the vCPU that waits for an answer it cannot go on without.
    pub fn for_reply() -> Self {
        if cpus() > 1 {
            Self { spins: 300, yields: 100, spins_per_yield: 20 }
        } else {
            Self { spins: 0, yields: 64, spins_per_yield: 0 }
        }
    }

    /// For a device process after it ran out of work: stay awake a little, as accesses come in
    /// bursts. Some 30 us on two CPUs.
    pub fn for_work() -> Self {
        if cpus() > 1 {
            Self { spins: 300, yields: 30, spins_per_yield: 20 }
        } else {
            Self { spins: 0, yields: 4, spins_per_yield: 0 }
        }
    }

    /// Looks until `news()` holds; true when it did before patience ran out.
    #[inline]
    pub fn look(self, mut news: impl FnMut() -> bool) -> bool {
        self.spin(&mut news) || self.offer(news)
    }

    /// The first part of [`Patience::look`]: for some microseconds, without offering the CPU to anybody.
    #[inline]
    pub fn spin(self, mut news: impl FnMut() -> bool) -> bool {
        for _ in 0..self.spins {
            if news() {
                return true;
            }
            spin_hint();
        }
        self.spins == 0 && news()
    }

    /// The second part of [`Patience::look`]: the CPU is offered in between, to whoever wants it, for as long as he
    /// may have it.
    #[inline]
    pub fn offer(self, mut news: impl FnMut() -> bool) -> bool {
        for _ in 0..self.yields {
            std::thread::yield_now();
            for _ in 0..=self.spins_per_yield {
                if news() {
                    return true;
                }
                spin_hint();
            }
        }
        news()
    }
}

#[cfg(target_os = "linux")]
fn cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

#[cfg(not(target_os = "linux"))]
fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    #[test]
    fn a_sleeper_never_misses_news() {
        let bell = Doorbell::default();
        let news = AtomicU64::new(0);
        const ROUNDS: u64 = 20_000;
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=ROUNDS {
                    news.store(n, Ordering::Relaxed);
                    bell.ring();
                    while news.load(Ordering::Acquire) != 0 {
                        std::thread::yield_now();
                    }
                }
            });
            for _ in 0..ROUNDS {
                while news.load(Ordering::Acquire) == 0 {
                    bell.sleep(Some(Duration::from_secs(5)), || news.load(Ordering::Acquire) != 0);
                }
                news.store(0, Ordering::Release);
            }
        });
        assert!(started.elapsed() < Duration::from_secs(60), "a wake-up was lost");
    }

    #[test]
    fn sleeping_ends_at_the_timeout() {
        let started = Instant::now();
        Doorbell::default().sleep(Some(Duration::from_millis(20)), || false);
        assert!(started.elapsed() >= Duration::from_millis(19));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn no_interleaving_sleeps_through_news() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0)));
            let ringer = {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    shared.1.store(1, Ordering::Relaxed);
                    shared.0.ring();
                })
            };
            // If the wake-up could be lost, loom would report that this loop never ends.
            shared.0.sleep(None, || shared.1.load(Ordering::Relaxed) == 1);
            ringer.join().unwrap();
            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        });
    }
}
