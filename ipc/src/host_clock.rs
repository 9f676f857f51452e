//! Host time: CLOCK_MONOTONIC, and a cheaper reading of it by the processor's time-stamp counter
//! where that can be trusted.
//!
//! Every access of the guest to a device carries the time, and `clock_gettime` was a fifth of what a
//! posted write cost. The counter is used only when the kernel itself keeps time by it: then it runs
//! at one rate and shows the same on all CPUs.
//!
//! This module knows the counter and how fast it runs. What the processes of a VM do with that is
//! in `clock`.

#![cfg_attr(all(target_arch = "x86_64", not(loom)), expect(unsafe_code, reason = "the RDTSC intrinsic"))]

use crate::time::NANOS_PER_SEC;

/// Host nanoseconds per tick are a fraction over this power of two.
pub const RATE_SHIFT: u32 = 32;
/// Pairs that are read to find one that nothing interrupted.
const TRIES: u32 = 16;
/// A rate measured over less than this is not precise enough: 30 ns in it are 3 ppm.
const SHORTEST: u64 = 10_000_000;
/// When the time base of the rate measurement moves on, so that the rate follows that of the kernel.
const LONGEST: u64 = 64 * NANOS_PER_SEC;
/// Time between two renewals.
const PERIOD: u64 = 10 * NANOS_PER_SEC;
/// How long a line is valid; after that CLOCK_MONOTONIC counts (the launcher is stopped, or the host
/// was suspended and the counter went on).
const VALID: u64 = 3 * PERIOD;
/// Two rates that differ by more than one part in this are not those of a steady counter.
const STEADY: u64 = 1000;

/// Host time in nanoseconds: CLOCK_MONOTONIC, the same in all processes.
#[inline]
pub fn host_nanos() -> u64 {
    #[cfg(loom)]
    return model::look();
    #[cfg(not(loom))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * NANOS_PER_SEC + now.tv_nsec as u64
    }
}

/// The time-stamp counter, read after everything before it in the program was done: without that, a
/// time read after a message could be earlier than the one in it.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(loom)]
    return model::look();
    #[cfg(all(not(loom), target_arch = "x86_64"))]
    {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: every x86-64 processor has both instructions (SSE2 and TSC are part of it). That RDTSC
        // can be disabled for user mode is excluded by `usable`; if it were, the process would end.
        unsafe {
            _mm_lfence();
            _rdtsc()
        }
    }
    #[cfg(all(not(loom), not(target_arch = "x86_64")))]
    0
}

/// The time-stamp counter as it is, or was a few hundred instructions ago: the processor may read it ahead of what stands before it in the
/// program, which [`ticks`] waits for.
#[inline]
pub fn ticks_before() -> u64 {
    #[cfg(any(loom, not(target_arch = "x86_64")))]
    return ticks();
    #[cfg(all(not(loom), target_arch = "x86_64"))]
    // SAFETY: as in `ticks`.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

/// Set to `monotonic`, this variable makes a VM read CLOCK_MONOTONIC in any case.
pub const CLOCK_VARIABLE: &str = "VMSIM_CLOCK";

/// Whether the counter can be used for time: it is invariant, and the kernel keeps time by it.
pub fn usable() -> bool {
    std::env::var_os(CLOCK_VARIABLE).is_none_or(|clock| clock != "monotonic")
        && invariant()
        && kernel_uses_it()
}

#[cfg(all(target_arch = "x86_64", not(loom)))]
fn invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    const EXTENDED_LEAVES: u32 = 0x8000_0000;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    /// CPUID 80000007H, EDX: the counter runs at one rate in all power states.
    const INVARIANT_TSC: u32 = 1 << 8;
    __cpuid(EXTENDED_LEAVES).eax >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & INVARIANT_TSC != 0
}

#[cfg(not(all(target_arch = "x86_64", not(loom))))]
fn invariant() -> bool {
    false
}

/// Whether the kernel's clock source is the counter itself. A kernel that found it unsteady, or whose
/// hypervisor corrects it, has another one.
fn kernel_uses_it() -> bool {
    const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc")
}

/// The counter and CLOCK_MONOTONIC at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The counter.
    pub ticks: u64,
    /// Host ns.
    pub nanos: u64,
}

impl Pair {
    /// Both now, as near to each other as they can be read.
    pub fn read() -> Self {
        let pair = |_| {
            let before = ticks();
            let nanos = host_nanos();
            let width = ticks().wrapping_sub(before);
            (width, Self { ticks: before.wrapping_add(width / 2), nanos })
        };
        (0..TRIES).map(pair).min_by_key(|(width, _)| *width).map_or(Self { ticks: 0, nanos: 0 }, |(_, p)| p)
    }

    /// Nanoseconds per tick since `earlier`, over [`RATE_SHIFT`]; `None` when that makes no sense.
    fn rate_since(self, earlier: Self) -> Option<u64> {
        let nanos = u128::from(self.nanos.checked_sub(earlier.nanos)?) << RATE_SHIFT;
        let rate = nanos.checked_div(self.ticks.checked_sub(earlier.ticks)?.into())?;
        u64::try_from(rate).ok().filter(|rate| *rate != 0)
    }
}

/// How to read host time off the counter: a straight line through a known moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The known moment.
    pub from: Pair,
    /// Host nanoseconds per tick, over [`RATE_SHIFT`]. 0: the counter is not to be used.
    pub rate: u64,
    /// Ticks after the moment for which the line holds.
    pub valid: u64,
}

impl Line {
    /// No line: CLOCK_MONOTONIC is to be read.
    fn none() -> Self {
        Self { from: Pair { ticks: 0, nanos: host_nanos() }, rate: 0, valid: 0 }
    }
}

/// Measures the rate of the counter against CLOCK_MONOTONIC, from the start of the VM to its end. The
/// launcher has it, and publishes what it says.
#[derive(Debug)]
pub struct Keeper {
    /// Where the measurement began.
    anchor: Pair,
    /// Where the next one will begin.
    last: Pair,
    rate: Option<u64>,
    due: u64,
    usable: bool,
}

impl Default for Keeper {
    fn default() -> Self {
        Self::new()
    }
}

impl Keeper {
    /// Begins to measure, where the counter is usable.
    pub fn new() -> Self {
        Self::starting(usable(), Pair::read())
    }

    fn starting(usable: bool, now: Pair) -> Self {
        Self { anchor: now, last: now, rate: None, due: now.nanos + SHORTEST, usable }
    }

    /// The line to publish now, if one is due. The first is after a few ms: call it just before the
    /// clock starts, and then now and then.
    pub fn line(&mut self) -> Option<Line> {
        if !self.usable || host_nanos() < self.due { None } else { self.line_at(Pair::read()) }
    }

    fn line_at(&mut self, now: Pair) -> Option<Line> {
        // Soon after the start once more: by then the rate is known precisely.
        let soon = if self.rate.is_none() { NANOS_PER_SEC } else { PERIOD };
        self.due = now.nanos.saturating_add(soon);
        let rate = now.rate_since(self.anchor);
        let steady = match (rate, self.rate) {
            (Some(new), Some(old)) => new.abs_diff(old) <= old / STEADY,
            (new, _) => new.is_some(),
        };
        let Some(rate) = rate.filter(|_| steady) else {
            // One of the two stood still while the other went on: begin anew.
            tracing::warn!("The host's time-stamp counter and CLOCK_MONOTONIC went apart; measured anew");
            *self = Self::starting(self.usable, now);
            return Some(Line::none());
        };
        self.rate = Some(rate);
        if now.nanos.saturating_sub(self.anchor.nanos) >= LONGEST {
            self.anchor = self.last;
        }
        self.last = now;
        let valid = (u128::from(VALID) << RATE_SHIFT) / u128::from(rate);
        Some(Line { from: now, rate, valid: u64::try_from(valid).unwrap_or(0) })
    }
}

#[cfg(loom)]
mod model {
    use crate::sync::{AtomicU64, Ordering};

    loom::lazy_static! {
        static ref HOST: AtomicU64 = AtomicU64::new(1000);
    }

    /// A host clock that goes on by one with every look.
    pub fn look() -> u64 {
        HOST.fetch_add(1, Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A counter at 2.6 GHz.
    fn pair_at(nanos: u64) -> Pair {
        Pair { ticks: 777 + nanos * 26 / 10, nanos: 5_000 + nanos }
    }

    #[test]
    fn the_rate_is_that_between_the_start_and_now() {
        let mut keeper = Keeper::starting(true, pair_at(0));
        let line = keeper.line_at(pair_at(50_000_000)).expect("a line");
        assert_eq!(line.from, pair_at(50_000_000));
        assert_eq!(line.rate, (10 << RATE_SHIFT) / 26);
        // The rate is rounded to one part in 10^9.
        assert!(line.valid.abs_diff(VALID * 26 / 10) < 1000);
    }

    #[test]
    fn a_rate_that_drifts_is_followed() {
        let mut keeper = Keeper::starting(true, pair_at(0));
        let mut now = pair_at(0);
        for period in 1..=40 {
            // From the tenth second on CLOCK_MONOTONIC is slewed by 50 ppm.
            let slewed = if period > 10 { NANOS_PER_SEC + 50_000 } else { NANOS_PER_SEC };
            now = Pair { ticks: now.ticks + 26 * PERIOD / 10, nanos: now.nanos + 10 * slewed };
            assert!(keeper.line_at(now).is_some());
        }
        let wanted = (10 * 1_000_050) / 26 * (1 << RATE_SHIFT) / 1_000_000;
        let rate = keeper.rate.expect("a rate");
        assert!(rate.abs_diff(wanted) < wanted / 100_000, "{rate} {wanted}");
    }

    #[test]
    fn after_a_suspended_host_the_counter_is_left_alone_until_measured_anew() {
        let mut keeper = Keeper::starting(true, pair_at(0));
        assert!(keeper.line_at(pair_at(50_000_000)).is_some_and(|line| line.rate != 0));
        // The counter went on for an hour that CLOCK_MONOTONIC does not count.
        let later = pair_at(NANOS_PER_SEC);
        let slept = Pair { ticks: later.ticks + 3600 * 2_600_000_000, ..later };
        assert_eq!(keeper.line_at(slept).map(|line| line.rate), Some(0));
        let after = Pair { ticks: slept.ticks + 2_600_000_000, nanos: slept.nanos + NANOS_PER_SEC };
        assert_eq!(keeper.line_at(after).map(|line| line.rate), Some((10 << RATE_SHIFT) / 26));
    }

    #[test]
    fn a_counter_that_was_set_back_is_left_alone() {
        let mut keeper = Keeper::starting(true, pair_at(1_000_000_000));
        let reset = Pair { ticks: 5, nanos: pair_at(2_000_000_000).nanos };
        assert_eq!(keeper.line_at(reset).map(|line| line.rate), Some(0));
    }

    #[test]
    fn without_a_usable_counter_there_is_no_line() {
        let mut keeper = Keeper::starting(false, Pair { ticks: 0, nanos: 0 });
        assert_eq!(keeper.line(), None);
    }
}
