//! Whether a process that died is started again, how soon, and when it is given up.
//!
//! Somebody who kills a process that works says nothing about its build: such deaths do not count.
//! Crashes and hangs do, when they come thick and fast or before the process has got any further.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More deaths than this within [`WINDOW`], or in a row without any progress, are too many.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// A hang costs the guest a long pause each time: it counts for more.
const WEIGHT_OF_HANG: u32 = 4;
/// So many deaths are followed by a restart at once; each further one doubles the wait.
const QUICK_RESTARTS: u32 = 3;
const BACK_OFF: Duration = Duration::from_millis(20);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// How a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal that somebody sends, such as SIGKILL, or a process started by hand that ended.
    Killed,
    /// By its own fault: a panic, a bad memory access, an error.
    Crashed,
    /// The watchdog ended it.
    Hung,
}

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is started again after so long.
    Restart(Duration),
    /// It is given up.
    GiveUp,
}

/// The deaths of one process that count.
#[derive(Debug, Default)]
pub struct Deaths {
    recent: VecDeque<Instant>,
    /// Weight of those in a row after which nothing had been achieved.
    fruitless: u32,
}

impl Deaths {
    /// Takes note of a death. `progressed`: the process had achieved something in its life.
    pub fn record(&mut self, now: Instant, cause: Cause, progressed: bool) -> Verdict {
        if progressed {
            self.fruitless = 0;
            if cause == Cause::Killed {
                return Verdict::Restart(Duration::ZERO);
            }
        }
        let weight = if cause == Cause::Hung { WEIGHT_OF_HANG } else { 1 };
        self.fruitless = self.fruitless.saturating_add(if progressed { 0 } else { weight });
        self.recent.push_back(now);
        self.recent.retain(|death| now.duration_since(*death) < WINDOW);
        let count = self.fruitless.max(self.recent.len() as u32);
        if count > MOST {
            return Verdict::GiveUp;
        }
        let doublings = count.saturating_sub(QUICK_RESTARTS);
        let wait = match doublings.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => BACK_OFF.saturating_mul(1 << doublings.min(16)),
        };
        Verdict::Restart(wait.min(LONGEST_BACK_OFF))
    }

    /// Starts to count anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deaths, `apart` from each other, until the process is given up; `None` when it is not.
    fn until_given_up(cause: Cause, progressed: bool, apart: Duration) -> Option<usize> {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        (1..=5000u32)
            .find(|n| deaths.record(start + apart * *n, cause, progressed) == Verdict::GiveUp)
            .map(|n| n as usize)
    }

    #[test]
    fn a_process_that_works_may_be_killed_any_number_of_times() {
        assert_eq!(until_given_up(Cause::Killed, true, Duration::from_millis(1)), None);
    }

    #[test]
    fn one_that_gets_nowhere_is_given_up_whatever_ends_it_and_however_slowly() {
        let slowly = Duration::from_secs(60);
        assert_eq!(until_given_up(Cause::Killed, false, slowly), Some(11));
        assert_eq!(until_given_up(Cause::Crashed, false, slowly), Some(11));
        assert_eq!(until_given_up(Cause::Hung, false, slowly), Some(3));
    }

    #[test]
    fn one_that_crashes_thick_and_fast_is_given_up_although_it_gets_on() {
        assert_eq!(until_given_up(Cause::Crashed, true, Duration::from_millis(900)), Some(11));
        assert_eq!(until_given_up(Cause::Crashed, true, Duration::from_secs(2)), None);
    }

    #[test]
    fn waits_between_restarts_double_up_to_a_limit() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        let waits: Vec<_> = (0..10)
            .map(|_| match deaths.record(now, Cause::Crashed, false) {
                Verdict::Restart(wait) => wait.as_millis(),
                Verdict::GiveUp => u128::MAX,
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 20, 40, 80, 160, 320, 640, 1000]);
        assert_eq!(deaths.record(now, Cause::Crashed, false), Verdict::GiveUp);
        deaths.forget();
        assert_eq!(deaths.record(now, Cause::Crashed, false), Verdict::Restart(Duration::ZERO));
    }
}
