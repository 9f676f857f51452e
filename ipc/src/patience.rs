//! How long to look for news before sleeping.
//!
//! A peer that runs answers within a microsecond: that is what spinning is for. One that has not answered by then is
//! asleep, busy, or waits for a CPU, perhaps ours: from there on the CPU is offered (`sched_yield`) every few looks, which costs
//! little when nobody wants it. When somebody else does, he has it for milliseconds, while the peer waits too; sleeping is far
//! better then, as the scheduler lets a process that was woken run soon. So where an offer was taken for long in vain, none are
//! made for a while.

use crate::host_clock::host_nanos;
use crate::sync::spin_hint;

/// An offered CPU that comes back after this long was taken by somebody who does not answer us. Host ns: more than a peer needs
/// for most answers.
const TAKEN: u64 = 50_000;
/// The same where the answer is there by then: on one CPU it is the peer who took it.
const TAKEN_ANYWAY: u64 = 500_000;
/// How long no CPU is offered after that, host ns: doubled each time that it happens again at once, halved when it does not.
const SHORTEST_WARINESS: u64 = 10_000_000;
const LONGEST_WARINESS: u64 = 1_000_000_000;

/// How long a process looks, fitted to the CPUs that it may use and to what else runs on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Looks with a spin hint in between. Zero on one CPU: the peer cannot move while we spin.
    spins: u32,
    /// Times to yield after that.
    yields: u32,
    /// Looks after each yield.
    spins_per_yield: u32,
    /// The CPU is not offered before this moment, host ns.
    wary_until: u64,
    /// How long it will not be offered after it was taken the next time.
    wariness: u64,
}

impl Patience {
    fn new(spins: u32, yields: u32, spins_per_yield: u32) -> Self {
        Self { spins, yields, spins_per_yield, wary_until: 0, wariness: SHORTEST_WARINESS }
    }

    /// For the vCPU that waits for an answer it cannot go on without.
    pub fn for_reply() -> Self {
        if cpus() > 1 { Self::new(300, 100, 20) } else { Self::new(0, 64, 0) }
    }

    /// For a device process after it ran out of work: stay awake a little, as accesses come in
    /// bursts. Some 30 us on two CPUs.
    pub fn for_work() -> Self {
        if cpus() > 1 { Self::new(300, 30, 20) } else { Self::new(0, 4, 0) }
    }

    /// Takes the counts of `fresh`: the CPUs that a process may use can change while it runs.
    pub fn renew(&mut self, fresh: Self) {
        *self = Self { wary_until: self.wary_until, wariness: self.wariness, ..fresh };
    }

    /// Looks until `news()` holds; true when it did before patience ran out.
    #[inline]
    pub fn look(&mut self, mut news: impl FnMut() -> bool) -> bool {
        self.spin(&mut news) || self.offer(news)
    }

    /// The first part of [`Patience::look`]: for some microseconds, without offering the CPU to anybody.
    #[inline]
    pub fn spin(&self, mut news: impl FnMut() -> bool) -> bool {
        for _ in 0..self.spins {
            if news() {
                return true;
            }
            spin_hint();
        }
        self.spins == 0 && news()
    }

    /// The second part of [`Patience::look`]: the CPU is offered in between.
    #[inline]
    pub fn offer(&mut self, news: impl FnMut() -> bool) -> bool {
        self.offer_by(host_nanos, std::thread::yield_now, news)
    }

    fn offer_by(&mut self, now: impl Fn() -> u64, give: impl Fn(), mut news: impl FnMut() -> bool) -> bool {
        let mut before = now();
        if before < self.wary_until {
            return news();
        }
        for _ in 0..self.yields {
            give();
            let after = now();
            let taken = after.saturating_sub(before);
            let mut came = news();
            for _ in 0..self.spins_per_yield {
                if came {
                    break;
                }
                spin_hint();
                came = news();
            }
            if taken > if came { TAKEN_ANYWAY } else { TAKEN } {
                self.wary_until = after.saturating_add(self.wariness);
                self.wariness = (2 * self.wariness).min(LONGEST_WARINESS);
                return came;
            }
            if came {
                self.relax();
                return true;
            }
            before = after;
        }
        self.relax();
        news()
    }

    /// The offers have cost little.
    fn relax(&mut self) {
        self.wariness = (self.wariness / 2).max(SHORTEST_WARINESS);
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
    use std::cell::Cell;

    /// Offers the CPU to somebody who keeps it for `taken` ns; returns how often it was offered, and whether there was news,
    /// which comes with offer number `answer`.
    fn offers(patience: &mut Patience, clock: &Cell<u64>, taken: u64, answer: u32) -> (u32, bool) {
        let count = Cell::new(0);
        let give = || {
            clock.set(clock.get() + taken);
            count.set(count.get() + 1);
        };
        let news = patience.offer_by(|| clock.get(), give, || count.get() >= answer);
        (count.get(), news)
    }

    #[test]
    fn a_cpu_that_is_taken_for_long_in_vain_is_not_offered_for_a_while() {
        let clock = Cell::new(5);
        let mut patience = Patience::new(1, 10, 2);
        assert_eq!(offers(&mut patience, &clock, 1_000, 99), (10, false), "nobody wants it");
        assert_eq!(offers(&mut patience, &clock, 100_000, 1), (1, true), "who took it has answered");
        assert_eq!(offers(&mut patience, &clock, 3_000_000, 2), (1, false), "somebody else has it");
        assert_eq!(offers(&mut patience, &clock, 0, 1), (0, false), "no more");
        let counts = Patience::new(7, 20, 2);
        patience.renew(counts);
        clock.set(clock.get() + SHORTEST_WARINESS - 1);
        assert_eq!(offers(&mut patience, &clock, 0, 1), (0, false), "not yet");
        clock.set(clock.get() + 1);
        assert_eq!(offers(&mut patience, &clock, 3_000_000, 9), (1, false), "once more");
        clock.set(clock.get() + 2 * SHORTEST_WARINESS - 1);
        assert_eq!(offers(&mut patience, &clock, 0, 1), (0, false), "for twice as long");
        clock.set(clock.get() + 1);
        assert_eq!(offers(&mut patience, &clock, 0, 99), (20, false), "again, and all goes well");
        assert_eq!(patience.wariness, 2 * SHORTEST_WARINESS);
        assert_eq!(
            offers(&mut patience, &clock, 3_000_000, 1),
            (1, true),
            "there is an answer, and somebody else had it too"
        );
        assert_eq!(offers(&mut patience, &clock, 0, 1), (0, false), "no more");
    }

    #[test]
    fn spinning_ends_with_the_news() {
        let looks = Cell::new(0);
        let look = |until: u32| {
            looks.set(looks.get() + 1);
            looks.get() == until
        };
        assert!(Patience::new(5, 0, 0).spin(|| look(3)));
        assert_eq!(looks.get(), 3);
        assert!(!Patience::new(5, 0, 0).spin(|| look(99)));
        assert_eq!(looks.get(), 8);
        assert!(Patience::new(0, 0, 0).spin(|| look(9)), "on one CPU there is one look");
    }
}
