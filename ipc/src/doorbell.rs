//! How a process sleeps until another one has news, without ever missing any.
//!
//! A sleeper announces itself, looks once more, then sleeps in the kernel (futex). A ringer
//! publishes its news, then looks whether somebody announced itself: ringing an awake process
//! costs one load. How long a process looks before it sleeps is another matter: [`crate::patience`].

use crate::sync::{AtomicU32, Ordering, fence};
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
