//! The virtual clock: one for all processes of a VM, in shared memory.
//!
//! It runs at the speed of host time while nobody freezes it. Freezers are bits, so that a
//! pause by the user and a wait for a stopped device do not undo each other.
//!
//! The whole state is one word that changes by compare-and-swap only, so that a process which
//! is killed or stopped in the middle of a change holds up nobody. Stopping takes two steps:
//! first the word says that the clock is to stop, then whoever sees that and may write (the
//! stopper, another writer, a reader) fixes the moment. All host times read before the first step
//! are earlier than any read after it, so time never goes back. Who may only read ([`ClockView`])
//! waits for that.
//!
//! Host time is read off the processor's time-stamp counter where the launcher says how
//! ([`SharedClock::renew`]), which costs half of what reading CLOCK_MONOTONIC does.

#![expect(unsafe_code)] // For the view of who may only read.

use crate::host_clock::{Line, RATE_SHIFT, host_nanos, ticks, ticks_before};
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
    /// States are handed over: a device build is being swapped, or the VM saved.
    HandOver = 1 << 2,
    /// A device process died and has not come back yet, or is stopped.
    DeviceGone = 1 << 3,
    /// A debugger has stopped the guest.
    Debugger = 1 << 4,
    /// The launcher changes how host time is read.
    Renewal = 1 << 5,
}

/// All freezers.
const FREEZERS: u64 = 0x3f;
/// The clock is to stop, but the moment is not fixed yet: the value still is that of a running clock.
const STOPPING: u64 = 1 << 6;
const VALUE_SHIFT: u32 = 7;
/// Nanoseconds that the value holds, modulo: 4 years.
const VALUE_MASK: u64 = u64::MAX >> VALUE_SHIFT;

/// The clock. See [`SharedClock::initialise`].
#[repr(C, align(64))]
pub struct SharedClock {
    /// Bits 0-5: freezers. Bit 6: [`STOPPING`]. Bits 7-63: while it runs or is stopping, host time
    /// (ns) minus virtual time; while it stands still, virtual time.
    word: AtomicU64,
    /// Host nanoseconds per tick of the time-stamp counter, over [`RATE_SHIFT`]; 0 while host time is
    /// CLOCK_MONOTONIC. This and what follows change only while [`Freeze::Renewal`] is set.
    rate: AtomicU64,
    /// The counter at a known moment.
    from_ticks: AtomicU64,
    /// Host time then.
    from_host: AtomicU64,
    /// Ticks after the moment for which the rate holds; later, CLOCK_MONOTONIC is read.
    valid_ticks: AtomicU64,
    /// Host time minus CLOCK_MONOTONIC.
    host_ahead: AtomicU64,
}

const _: () = assert!(size_of::<SharedClock>() == 64 || cfg!(loom));

/// What host time jumps ahead at a renewal. It changes nothing in virtual time, and makes sure that no
/// word after a renewal is one from before.
const RENEWAL_JUMP: u64 = 1000;

/// `host` minus the value of `word`: the virtual time of a running clock, or the offset of one
/// that goes on.
#[inline]
fn difference(host: u64, word: u64) -> u64 {
    host.wrapping_sub(word >> VALUE_SHIFT) & VALUE_MASK
}

/// The clock as who may only read it sees it: with loads that also work in memory which is mapped read-only.
#[repr(transparent)]
pub struct ClockView(SharedClock);

impl ClockView {
    /// Virtual time now.
    #[inline]
    pub fn now(&self) -> VirtualTime {
        loop {
            match self.0.look() {
                Ok(now) => return now,
                Err(_) => self.wait_for_the_moment(),
            }
        }
    }

    /// Waits until the moment at which the clock stops is fixed. Its stopper does that next; if it was stopped itself,
    /// by a debugger, so is time.
    #[cold]
    fn wait_for_the_moment(&self) {
        for round in 0u32.. {
            if self.0.word() & STOPPING == 0 {
                return;
            }
            match round {
                0..100 => crate::sync::spin_hint(),
                100..1000 => std::thread::yield_now(),
                _ => std::thread::sleep(std::time::Duration::from_micros(200)),
            }
        }
    }

    /// Whether the clock stands still.
    pub fn is_frozen(&self) -> bool {
        self.0.is_frozen()
    }

    /// A value that is another one after the clock stopped or went on.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.0.changes()
    }
}

impl SharedClock {
    /// Virtual time now.
    #[inline]
    pub fn now(&self) -> VirtualTime {
        loop {
            match self.look() {
                Ok(now) => return now,
                Err(word) => _ = self.settle(word),
            }
        }
    }

    /// Virtual time at some moment between now and a few hundred instructions ago, without [`SharedClock::now`]'s wait for what stands
    /// before it in the program; `None` when only that can tell. Only for comparisons whose result may be that old: it can be earlier than a time that this thread
    /// has seen.
    #[inline]
    pub fn glance(&self) -> Option<VirtualTime> {
        let word = self.word();
        if word & FREEZERS != 0 {
            return (word & STOPPING == 0).then_some(VirtualTime(word >> VALUE_SHIFT));
        }
        let rate = self.rate.load(Ordering::Relaxed);
        // (Less than nothing has passed if the line is younger than the counter's value: then it is far too much.)
        let passed = ticks_before().wrapping_sub(self.from_ticks.load(Ordering::Relaxed));
        if rate == 0 || passed >= self.valid_ticks.load(Ordering::Relaxed) {
            return None;
        }
        let host = self.on_line(rate, passed);
        // As in `look`.
        crate::sync::fence(Ordering::Acquire);
        let same = self.word.load(Ordering::Relaxed) == word;
        same.then(|| VirtualTime(difference(host, word)))
    }

    /// For who may only read it.
    pub fn view(&self) -> &ClockView {
        // SAFETY: ClockView is a transparent wrapper of SharedClock.
        unsafe { &*std::ptr::from_ref(self).cast() }
    }

    /// The word. What happened before a change of the clock is visible after it was seen (SYNC POINT clock).
    #[inline]
    fn word(&self) -> u64 {
        // Not an acquiring load: only relaxed ones are promised to work in memory that is mapped read-only.
        let word = self.word.load(Ordering::Relaxed);
        crate::sync::fence(Ordering::Acquire);
        word
    }

    /// Virtual time now, or the word of a clock that is to stop at a moment that is not fixed yet.
    #[inline]
    fn look(&self) -> Result<VirtualTime, u64> {
        let mut word = self.word();
        loop {
            if word & STOPPING != 0 {
                return Err(word);
            }
            if word & FREEZERS != 0 {
                return Ok(VirtualTime(word >> VALUE_SHIFT));
            }
            let host = self.host();
            // The clock may have stopped between the two looks, and then `host` is too late.
            crate::sync::fence(Ordering::Acquire);
            let again = self.word.load(Ordering::Relaxed);
            if again == word {
                return Ok(VirtualTime(difference(host, word)));
            }
            word = again;
        }
    }

    /// Host time in nanoseconds, as this clock counts it.
    ///
    /// Only of use when the word is the same before and after: otherwise what it is computed from
    /// may have been changed meanwhile.
    #[inline]
    fn host(&self) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return self.slow_host(0);
        }
        let passed = ticks().wrapping_sub(self.from_ticks.load(Ordering::Relaxed));
        let valid = self.valid_ticks.load(Ordering::Relaxed);
        if passed >= valid {
            // Never earlier than what was read while the line was valid.
            return self.slow_host(self.on_line(rate, valid));
        }
        self.on_line(rate, passed)
    }

    #[inline]
    fn on_line(&self, rate: u64, passed: u64) -> u64 {
        let nanos = (u128::from(passed) * u128::from(rate)) >> RATE_SHIFT;
        self.from_host.load(Ordering::Relaxed).wrapping_add(nanos as u64)
    }

    #[cold]
    fn slow_host(&self, earliest: u64) -> u64 {
        host_nanos().wrapping_add(self.host_ahead.load(Ordering::Relaxed)).max(earliest)
    }

    /// Reads host time as `line` says from now on. For the launcher only. The clock stands still for the
    /// moment that this takes; use [`crate::chassis::Chassis::renew_clock`], which wakes whom that concerns.
    pub(crate) fn begin_renewal(&self, line: Line) {
        self.freeze(Freeze::Renewal);
        // The line starts where this clock's host time is, not where CLOCK_MONOTONIC is: words from before
        // never come again, as host time gets ahead at every renewal while virtual time stands still.
        let host = self.host().wrapping_add(RENEWAL_JUMP);
        // Pairs with the fence in `now`: who sees anything of the new line sees a word that stands still.
        crate::sync::fence(Ordering::Release);
        self.rate.store(line.rate, Ordering::Relaxed);
        self.from_ticks.store(line.from.ticks, Ordering::Relaxed);
        self.from_host.store(host, Ordering::Relaxed);
        self.valid_ticks.store(line.valid, Ordering::Relaxed);
        self.host_ahead.store(host.wrapping_sub(line.from.nanos), Ordering::Relaxed);
        // Time goes on a little, so that who was about to change a clock that stood still looks again.
        let mut word = self.word.load(Ordering::Acquire);
        while let Err(found) = self.exchange(word, word.wrapping_add(1 << VALUE_SHIFT)) {
            word = found;
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
        self.word()
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
        self.thaw_ahead(reason, 0);
    }

    /// As [`SharedClock::thaw`], but the clock goes on `nanos` ahead of where it stopped: no more than for how long it stood.
    pub fn thaw_ahead(&self, reason: Freeze, nanos: u64) {
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
                difference(self.host().wrapping_sub(nanos), word) << VALUE_SHIFT
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
        let new = difference(self.host(), word) << VALUE_SHIFT | word & FREEZERS;
        self.exchange(word, new).unwrap_or_else(|found| found)
    }

    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        self.word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Acquire).map(|_| new)
    }
}

#[cfg(test)]
impl SharedClock {
    fn zero() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            word: zero(),
            rate: zero(),
            from_ticks: zero(),
            from_host: zero(),
            valid_ticks: zero(),
            host_ahead: zero(),
        }
    }

    fn renew(&self, line: Line) {
        self.begin_renewal(line);
        self.thaw(Freeze::Renewal);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host_clock::{Keeper, Pair, usable};
    use std::time::{Duration, Instant};

    /// The line of this machine, or a visible skip.
    fn line() -> Option<Line> {
        if !usable() {
            eprintln!("skipped: no time-stamp counter that can be trusted on this machine");
            return None;
        }
        let mut keeper = Keeper::new();
        std::thread::sleep(Duration::from_millis(30));
        keeper.line()
    }

    fn clock() -> SharedClock {
        let clock = SharedClock::zero();
        clock.initialise(Freeze::Paused);
        clock
    }

    #[test]
    fn it_stands_still_while_anybody_freezes_it_and_goes_on_without_a_jump() {
        let clock = clock();
        assert_eq!(clock.now(), VirtualTime(0));
        clock.thaw(Freeze::Paused);
        std::thread::sleep(Duration::from_millis(2));
        clock.freeze(Freeze::DeviceWait);
        clock.freeze(Freeze::Paused);
        let stopped = clock.now();
        assert!(stopped.0 >= 2_000_000);
        std::thread::sleep(Duration::from_millis(20));
        clock.thaw(Freeze::DeviceWait);
        assert_eq!(clock.now(), stopped);
        clock.thaw(Freeze::Paused);
        assert!(clock.now() - stopped < 15_000_000, "the frozen time was not left out");
    }

    #[test]
    fn it_may_go_on_ahead_of_where_it_stopped() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        clock.freeze(Freeze::DeviceWait);
        let stopped = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        clock.thaw_ahead(Freeze::DeviceWait, 1_000_000);
        let ahead = clock.now() - stopped;
        assert!((1_000_000..20_000_000).contains(&ahead), "{ahead}");
        // Somebody else still has it stand.
        clock.freeze(Freeze::DeviceWait);
        clock.freeze(Freeze::Paused);
        let stopped = clock.now();
        clock.thaw_ahead(Freeze::DeviceWait, 1_000_000);
        assert_eq!(clock.now(), stopped);
    }

    #[test]
    fn it_never_goes_back_while_two_threads_freeze_and_thaw() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reason in [Freeze::Paused, Freeze::HandOver] {
                let (clock, stop) = (&clock, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        clock.freeze(reason);
                        let stood = Instant::now();
                        clock.thaw_ahead(reason, stood.elapsed().as_nanos() as u64);
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
    fn a_glance_is_no_more_than_a_moment_late_while_the_clock_stops_and_goes_on() {
        let Some(line) = line() else { return };
        let clock = clock();
        assert_eq!(clock.glance(), Some(VirtualTime(0)));
        clock.thaw(Freeze::Paused);
        assert_eq!(clock.glance(), None, "no counter is read yet");
        clock.renew(line);
        clock.thaw(Freeze::Paused);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    clock.freeze(Freeze::HandOver);
                    clock.thaw(Freeze::HandOver);
                    clock.renew(line);
                }
            });
            let mut seen = 0;
            for _ in 0..200_000 {
                let before = clock.now();
                let Some(glance) = clock.glance() else { continue };
                assert!(glance <= clock.now(), "it is not over yet");
                assert!(glance.after(1_000_000) > before, "{glance:?} {before:?}");
                seen += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(seen > 0, "it never told");
        });
        clock.freeze(Freeze::Paused);
        assert_eq!(clock.glance(), Some(clock.now()));
    }

    #[test]
    fn a_writer_that_dies_while_it_stops_the_clock_holds_up_nobody() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let before = clock.now();
        // The first of the two steps of `freeze`, by a process that was killed after it.
        clock.word.fetch_or(STOPPING | Freeze::HandOver as u64, Ordering::SeqCst);
        let stopped = clock.now();
        assert!(stopped >= before);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
        clock.freeze(Freeze::Paused);
        clock.thaw(Freeze::HandOver);
        assert_eq!(clock.now(), stopped);
        clock.thaw(Freeze::Paused);
        assert!(clock.now() >= stopped);
    }

    #[test]
    fn who_may_only_read_waits_for_the_moment_at_which_it_stops() {
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let before = clock.now();
        // Its stopper comes to the second step later.
        clock.word.fetch_or(STOPPING | Freeze::HandOver as u64, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| clock.view().now());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!reader.is_finished(), "it has a time that is not fixed");
            let stopped = clock.now();
            assert_eq!(reader.join().unwrap(), stopped);
            assert!(stopped - before >= 20_000_000);
        });
    }

    #[test]
    fn read_off_the_counter_it_is_as_fast_as_host_time() {
        let Some(line) = line() else { return };
        let clock = clock();
        clock.renew(line);
        clock.thaw(Freeze::Paused);
        let (begun, started) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(200));
        // Between two looks at the clock, however long the scheduler lets us wait for each.
        let least = started.elapsed().as_nanos() as u64;
        let passed = clock.now() - begun;
        let most = started.elapsed().as_nanos() as u64 + 2_000;
        assert!(passed + least / 5_000 >= least && passed <= most + most / 5_000, "{least} {passed} {most}");
    }

    #[test]
    #[ignore = "a measurement of a minute: drift against CLOCK_MONOTONIC, and what a look costs"]
    fn drift_and_cost() {
        let clock = clock();
        let look = || {
            let started = Instant::now();
            for _ in 0..10_000 {
                std::hint::black_box(clock.now());
            }
            started.elapsed().as_nanos() as f64 / 1e4
        };
        let cost = || (0..500).map(|_| look()).fold(f64::MAX, f64::min);
        clock.thaw(Freeze::Paused);
        println!("a look at CLOCK_MONOTONIC: {:.1} ns", cost());
        let mut keeper = Keeper::new();
        std::thread::sleep(Duration::from_millis(50));
        clock.renew(keeper.line().expect("a usable counter"));
        println!("a look at the counter: {:.1} ns", cost());
        // The nearest of some pairs: the scheduler may come between the two.
        let behind = || (0..1000).map(|_| host_nanos() as i64 - clock.now().0 as i64).min().unwrap_or(0);
        let start = behind();
        for second in 1..=60 {
            std::thread::sleep(Duration::from_secs(1));
            if let Some(line) = keeper.line() {
                clock.renew(line);
            }
            if second % 10 == 1 {
                println!("after {second} s: {} ns behind CLOCK_MONOTONIC", behind() - start);
            }
        }
        assert!((behind() - start).abs() < 1_000_000);
    }

    #[test]
    fn it_never_goes_back_while_the_line_is_renewed_and_runs_out() {
        let Some(line) = line() else { return };
        let clock = clock();
        clock.thaw(Freeze::Paused);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Some run out at once, some say that the counter is not to be used; rates differ.
                    let valid = if round % 2 == 0 { 3_000 } else { line.valid };
                    let rate = if round % 7 == 0 { 0 } else { line.rate + round % 5 * (line.rate / 10_000) };
                    clock.renew(Line { from: Pair::read(), rate, valid });
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    clock.freeze(Freeze::DeviceWait);
                    clock.thaw(Freeze::DeviceWait);
                }
            });
            let mut last = clock.now();
            for _ in 0..300_000 {
                let now = clock.now();
                assert!(now >= last, "{now:?} after {last:?}");
                last = now;
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_line_that_ran_out_leaves_the_clock_running() {
        let Some(line) = line() else { return };
        let clock = clock();
        clock.renew(Line { valid: 1, ..line });
        clock.thaw(Freeze::Paused);
        let begun = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        let passed = clock.now() - begun;
        assert!((20_000_000..10_000_000_000).contains(&passed), "{passed}");
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

#[cfg(all(test, loom))]
mod model {
    use super::*;

    fn running() -> loom::sync::Arc<SharedClock> {
        let clock = SharedClock::zero();
        clock.initialise(Freeze::Paused);
        clock.thaw(Freeze::Paused);
        loom::sync::Arc::new(clock)
    }

    /// Time as `now` reads it does not go back while the clock stops and goes on.
    fn stops_and_goes_on(now: fn(&SharedClock) -> VirtualTime) {
        loom::model(move || {
            let clock = running();
            let writer = {
                let clock = clock.clone();
                loom::thread::spawn(move || {
                    clock.freeze(Freeze::Paused);
                    clock.thaw(Freeze::Paused);
                })
            };
            let first = now(&clock);
            let second = now(&clock);
            assert!(second >= first);
            writer.join().unwrap();
            assert!(clock.now() >= second);
        });
    }

    #[test]
    fn no_interleaving_of_stopping_and_going_on_takes_time_back() {
        stops_and_goes_on(SharedClock::now);
    }

    #[test]
    fn no_interleaving_takes_back_the_time_of_who_may_only_read() {
        stops_and_goes_on(|clock| clock.view().now());
    }

    #[test]
    fn no_interleaving_of_a_renewal_takes_time_back() {
        use crate::host_clock::Pair;
        // All interleavings take 20 minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let clock = running();
            let launcher = {
                let clock = clock.clone();
                loom::thread::spawn(move || {
                    let from = Pair { ticks: ticks(), nanos: host_nanos() };
                    clock.renew(Line { from, rate: 1 << RATE_SHIFT, valid: 1 << 20 });
                })
            };
            let first = clock.now();
            let second = clock.now();
            assert!(second >= first);
            launcher.join().unwrap();
            assert!(clock.now() >= second);
        });
    }

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
