//! The trace: the last events of the kinds that were asked for, until somebody fetches them.
//!
//! It never holds the guest up: what is not fetched in time is overwritten, and counted as lost.

use ipc::inspect::{MAX_TRACE_BATCH, TraceBatch, TraceEvent, TraceFilter, TraceRecord};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Records that are kept.
const CAPACITY: usize = 1 << 16;
/// A reader that has not been heard of for this long is gone: recording ends.
const LEASE: Duration = Duration::from_secs(10);
/// How many records pass between two looks at the host's clock.
const LEASE_CHECK: u64 = 1 << 10;

/// See the module's description.
pub struct Trace {
    filter: TraceFilter,
    records: VecDeque<TraceRecord>,
    /// Records so far, overwritten ones included.
    total: u64,
    last_read: Instant,
    recording: bool,
}

impl Trace {
    /// A trace of these events.
    pub fn new(filter: TraceFilter) -> Self {
        Self {
            filter,
            records: VecDeque::with_capacity(CAPACITY),
            total: 0,
            last_read: Instant::now(),
            recording: true,
        }
    }

    fn wants(&self, event: &TraceEvent) -> bool {
        match *event {
            TraceEvent::Exception { .. } => self.filter.exceptions,
            TraceEvent::Interrupt { .. } | TraceEvent::Software { .. } => self.filter.interrupts,
            TraceEvent::Port { port, width, .. } => self.filter.ports.is_some_and(|(first, last)| {
                u32::from(port) <= u32::from(last)
                    && u32::from(port) + u32::from(width.max(1)) > u32::from(first)
            }),
        }
    }

    /// Keeps a record, if it is of a wanted kind.
    pub fn record(&mut self, record: TraceRecord) {
        if !self.recording || !self.wants(&record.event) {
            return;
        }
        if self.total.is_multiple_of(LEASE_CHECK) && self.last_read.elapsed() > LEASE {
            self.recording = false;
            return;
        }
        if self.records.len() == CAPACITY {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.total += 1;
    }

    /// The records from number `from` on, as many as one batch holds.
    pub fn read(&mut self, from: u64) -> TraceBatch {
        self.last_read = Instant::now();
        let oldest = self.total - self.records.len() as u64;
        let first = from.clamp(oldest, self.total);
        let skip = (first - oldest) as usize;
        let records: Vec<_> = self.records.iter().skip(skip).take(MAX_TRACE_BATCH).copied().collect();
        TraceBatch {
            lost: first.saturating_sub(from),
            next: first + records.len() as u64,
            records,
            recording: self.recording,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt(vector: u8) -> TraceRecord {
        TraceRecord { nanos: 0, cs: 0, eip: 0, event: TraceEvent::Interrupt { vector } }
    }

    fn port(port: u16, width: u8) -> TraceRecord {
        let event = TraceEvent::Port { port, width, write: true, value: 0, count: 1 };
        TraceRecord { event, ..interrupt(0) }
    }

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let mut trace = Trace::new(TraceFilter { ports: Some((0x60, 0x64)), ..TraceFilter::default() });
        for record in [interrupt(8), port(0x5e, 2), port(0x5e, 4), port(0x64, 1), port(0x65, 1)] {
            trace.record(record);
        }
        assert_eq!(trace.read(0).records, [port(0x5e, 4), port(0x64, 1)]);
    }

    #[test]
    fn what_is_not_fetched_in_time_is_counted_as_lost() {
        let mut trace = Trace::new(TraceFilter { interrupts: true, ..TraceFilter::default() });
        (0..CAPACITY as u32 + 5).for_each(|i| trace.record(interrupt(i as u8)));
        let batch = trace.read(2);
        assert_eq!((batch.lost, batch.records.len()), (3, MAX_TRACE_BATCH));
        assert_eq!(batch.records[0], interrupt(5));
        let next = trace.read(batch.next);
        assert_eq!((next.lost, next.records[0]), (0, interrupt((5 + MAX_TRACE_BATCH) as u8)));
        assert!(trace.read(u64::MAX).records.is_empty());
    }

    #[test]
    fn recording_ends_when_the_reader_is_gone() {
        let mut trace = Trace::new(TraceFilter { interrupts: true, ..TraceFilter::default() });
        trace.record(interrupt(1));
        trace.last_read = Instant::now().checked_sub(2 * LEASE).unwrap();
        (0..2 * LEASE_CHECK).for_each(|_| trace.record(interrupt(2)));
        let batch = trace.read(0);
        assert!(!batch.recording);
        assert_eq!(batch.next, LEASE_CHECK);
    }
}
