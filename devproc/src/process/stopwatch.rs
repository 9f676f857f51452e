//! Estimates how long the process is in its models' code, for `vmsim top`.
//!
//! To look at the clock for each call would cost as much as committing its state does. So one call in some is timed,
//! and stands for those since the last one that was; after a sleep the first is, so that few calls are timed too.

use ipc::host_clock::host_nanos;
use ipc::link::ModelCell;
use ipc::sync::Ordering;

/// Of so many calls one is timed. A prime: what a driver does over and over has another period.
const EVERY: u32 = 31;

/// Times some calls.
#[derive(Debug)]
pub struct Stopwatch {
    /// Calls since the last one that was timed.
    since: u32,
    /// Calls until the next one that is timed.
    left: u32,
    /// What looking at the clock takes.
    overhead: u64,
}

impl Stopwatch {
    /// One that times the first call.
    pub fn new() -> Self {
        let look = |_| {
            let began = host_nanos();
            host_nanos().saturating_sub(began)
        };
        Self { since: 0, left: 0, overhead: (0..16).map(look).min().unwrap_or(0) }
    }

    /// A call begins. When it did, if it is one that is timed.
    #[inline]
    pub fn begin(&mut self) -> Option<u64> {
        self.since = self.since.saturating_add(1);
        if self.left != 0 {
            self.left -= 1;
            return None;
        }
        Some(host_nanos())
    }

    /// It ended: it was one of the model of `cell`.
    #[inline]
    pub fn end(&mut self, began: Option<u64>, cell: &ModelCell) {
        if let Some(began) = began {
            self.note(host_nanos().saturating_sub(began), cell);
        }
    }

    #[cold]
    fn note(&mut self, nanos: u64, cell: &ModelCell) {
        let calls = u64::from(std::mem::take(&mut self.since));
        self.left = EVERY - 1;
        add(nanos.saturating_sub(self.overhead).saturating_mul(calls), cell);
    }

    /// The next call is timed: there was a pause.
    #[inline]
    pub fn after_pause(&mut self) {
        self.left = 0;
    }
}

/// Adds time that was measured. Only one thread does so for a model.
pub fn add(nanos: u64, cell: &ModelCell) {
    cell.model_nanos.store(cell.model_nanos.load(Ordering::Relaxed).wrapping_add(nanos), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::link::Link;
    use ipc::segment::SegmentNames;
    use std::time::{Duration, Instant};

    #[test]
    fn calls_that_are_timed_stand_for_those_that_are_not() {
        let names = SegmentNames::new(&format!("watch{}", std::process::id()));
        let link = Link::create(&names.link(0)).unwrap();
        let cell = &link.layout().models[0];
        let mut watch = Stopwatch::new();
        let spend = |time: Duration| {
            let began = Instant::now();
            while began.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        let call = |watch: &mut Stopwatch| {
            let began = watch.begin();
            spend(Duration::from_micros(50));
            watch.end(began, cell);
            began.is_some()
        };
        let timed = (0..=2 * EVERY).filter(|_| call(&mut watch)).count();
        assert_eq!(timed, 3);
        // At least; a busy machine may take the CPU away meanwhile.
        let nanos = || cell.model_nanos.load(Ordering::Relaxed);
        let least = u64::from(2 * EVERY + 1) * 50_000;
        assert!((least * 99 / 100..).contains(&nanos()), "{} of {least}", nanos());
        assert!(!call(&mut watch));
        watch.after_pause();
        let before = nanos();
        assert!(call(&mut watch), "the first after a pause");
        assert!(nanos() - before >= 2 * 49_000, "for itself and the one before");
    }
}
