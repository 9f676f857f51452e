//! Lock-free single-producer single-consumer ring of fixed-size messages in shared memory.
//!
//! The algorithm is the classic bounded SPSC queue with free-running indices (Lamport 1983;
//! acquire/release form as in Le, Guatto, Cohen, Pop, "Correct and Efficient Bounded FIFO
//! Queues", 2013). Slots are arrays of atomics, so that even a hostile peer that writes while
//! we read causes wrong values, which the decoder checks, never undefined behaviour.
//!
//! The consumer *peeks*, works, and only then *advances*: a consumer process that dies in
//! between leaves the message in the ring for its successor.

use crate::message::MESSAGE_WORDS;
use crate::sync::{AtomicU64, Ordering};
use thiserror::Error;

/// A value alone on its cache line pair, so that both ends do not fight over it.
#[repr(C, align(128))]
pub struct Padded<T>(pub T);

#[repr(C, align(64))]
struct Slot {
    words: [AtomicU64; MESSAGE_WORDS],
}

/// The shared part of a ring with `N` slots (a power of two).
#[repr(C)]
pub struct Ring<const N: usize> {
    /// Messages produced so far. Written by the producer only.
    tail: Padded<AtomicU64>,
    /// Messages consumed so far. Written by the consumer only.
    head: Padded<AtomicU64>,
    slots: [Slot; N],
}

/// Why a message could not be put or taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The consumer is behind by the whole ring.
    #[error("Ring is full")]
    Full,
    /// The peer's index is impossible.
    #[error("Ring indices are corrupt: head {head}, tail {tail}")]
    Corrupt {
        /// Messages consumed.
        head: u64,
        /// Messages produced.
        tail: u64,
    },
}

impl<const N: usize> Ring<N> {
    const MASK: u64 = {
        assert!(N.is_power_of_two(), "ring sizes are powers of two");
        N as u64 - 1
    };

    /// Messages that wait.
    ///
    /// # Errors
    /// [`RingError::Corrupt`].
    #[inline]
    pub fn len(&self) -> Result<u64, RingError> {
        // SYNC POINT head: pairs with the Release store in `advance`.
        let head = self.head.0.load(Ordering::Acquire);
        // SYNC POINT tail: pairs with the Release store in `push`.
        let tail = self.tail.0.load(Ordering::Acquire);
        let len = tail.wrapping_sub(head);
        if len > N as u64 { Err(RingError::Corrupt { head, tail }) } else { Ok(len) }
    }

    /// Whether the consumer has dealt with everything produced. True for corrupt indices too:
    /// nothing more can be waited for.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !matches!(self.len(), Ok(len) if len > 0)
    }

    /// Messages produced so far.
    pub fn produced(&self) -> u64 {
        self.tail.0.load(Ordering::Relaxed)
    }

    /// Messages consumed so far.
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.head.0.load(Ordering::Relaxed)
    }

    /// Appends a message. Must only be called by the one producer.
    ///
    /// # Errors
    /// [`RingError::Full`] or [`RingError::Corrupt`]; nothing was written.
    #[inline]
    pub fn push(&self, words: [u64; MESSAGE_WORDS]) -> Result<(), RingError> {
        self.push_remembering(words, &mut self.head.0.load(Ordering::Acquire))
    }

    /// As [`Ring::push`], for a producer that keeps `seen_head` from call to call (0 at first):
    /// the consumer's index is only read when the ring seems full, so that the cache line with
    /// it does not travel for every message.
    ///
    /// # Errors
    /// As [`Ring::push`].
    #[inline]
    pub fn push_remembering(
        &self,
        words: [u64; MESSAGE_WORDS],
        seen_head: &mut u64,
    ) -> Result<(), RingError> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        if tail.wrapping_sub(*seen_head) >= N as u64 {
            // SYNC POINT head: pairs with the Release store in `advance`: the consumer has
            // finished reading the slot that is overwritten here.
            *seen_head = self.head.0.load(Ordering::Acquire);
            match tail.wrapping_sub(*seen_head) {
                len if len < N as u64 => {}
                len if len == N as u64 => return Err(RingError::Full),
                _ => return Err(RingError::Corrupt { head: *seen_head, tail }),
            }
        }
        let slot = &self.slots[(tail & Self::MASK) as usize];
        prefetch_for_write(&self.slots[(tail.wrapping_add(AHEAD) & Self::MASK) as usize]);
        for (cell, word) in slot.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        // SYNC POINT tail: publishes the words above to `peek`.
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// The oldest message, left in place. Must only be called by the one consumer.
    ///
    /// # Errors
    /// [`RingError::Corrupt`].
    #[inline]
    pub fn peek(&self) -> Result<Option<[u64; MESSAGE_WORDS]>, RingError> {
        let head = self.head.0.load(Ordering::Relaxed);
        // SYNC POINT tail: pairs with the Release store in `push`.
        let tail = self.tail.0.load(Ordering::Acquire);
        match tail.wrapping_sub(head) {
            0 => return Ok(None),
            len if len > N as u64 => return Err(RingError::Corrupt { head, tail }),
            _ => {}
        }
        Ok(Some(self.slot(head)))
    }

    /// The oldest message, for a consumer that knows from [`Ring::len`] that there is one: the
    /// producer's index is not read again.
    #[inline]
    pub fn front(&self) -> [u64; MESSAGE_WORDS] {
        self.slot(self.head.0.load(Ordering::Relaxed))
    }

    #[inline]
    fn slot(&self, index: u64) -> [u64; MESSAGE_WORDS] {
        let slot = &self.slots[(index & Self::MASK) as usize];
        std::array::from_fn(|i| slot.words[i].load(Ordering::Relaxed))
    }

    /// Adds to the message that was produced as number `index` (counted from 0), while the consumer has not closed it: stores
    /// `content` in `word`, then changes the last word from `from` to `to`. False: it is closed, and what was stored means nothing.
    /// Must only be called by the one producer, for its newest message.
    #[inline]
    pub fn extend(&self, index: u64, (word, content): (usize, u64), from: u64, to: u64) -> bool {
        let words = &self.slots[(index & Self::MASK) as usize].words;
        words[word].store(content, Ordering::Relaxed);
        // SYNC POINT run: pairs with `close_front`.
        words[LAST_WORD].compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Closes the oldest message, so that the producer does not add to it any more, and gives it as it stays. Repeatable: a
    /// successor finds it as it was closed. While it grows, and is the newest too, that is put off for a moment: otherwise a
    /// consumer that keeps pace would get each addition as a message of its own, which costs both sides more.
    #[inline]
    pub fn close_front(&self) -> [u64; MESSAGE_WORDS] {
        let head = self.head.0.load(Ordering::Relaxed);
        let last = &self.slots[(head & Self::MASK) as usize].words[LAST_WORD];
        let mut seen = last.load(Ordering::Relaxed);
        for _ in 0..MOST_LOOKS {
            if self.tail.0.load(Ordering::Relaxed) != head.wrapping_add(1) {
                break;
            }
            (0..PAUSES).for_each(|_| crate::sync::spin_hint());
            let now = last.load(Ordering::Relaxed);
            if now == seen {
                break;
            }
            seen = now;
        }
        // SYNC POINT run: what was added before is complete.
        last.fetch_or(CLOSED, Ordering::AcqRel);
        self.slot(head)
    }

    /// The newest message, if it was not consumed yet. For a producer that takes over from a dead one.
    pub fn peek_last(&self) -> Option<[u64; MESSAGE_WORDS]> {
        if self.is_empty() {
            return None;
        }
        let last = self.tail.0.load(Ordering::Acquire).wrapping_sub(1);
        Some(self.slot(last))
    }

    /// The last messages produced, oldest first, also those that were consumed already, each with its
    /// number (the first is 1). For those who look at what happened; a producer that goes on meanwhile may
    /// overwrite the oldest, so what is in a message must be checked against its number.
    pub fn history(&self) -> Vec<(u64, [u64; MESSAGE_WORDS])> {
        let tail = self.tail.0.load(Ordering::Acquire);
        let first = tail.saturating_sub(N as u64);
        (first..tail).map(|index| (index + 1, self.slot(index))).collect()
    }

    /// The messages that wait, oldest first. Only while no peer uses the ring.
    pub fn waiting(&self) -> Vec<[u64; MESSAGE_WORDS]> {
        let (head, len) = (self.consumed(), self.len().unwrap_or(0));
        (0..len).map(|index| self.slot(head.wrapping_add(index))).collect()
    }

    /// Drops the oldest message: it has been dealt with. Must only be called by the one
    /// consumer, after a successful [`Ring::peek`].
    #[inline]
    pub fn advance(&self) {
        let head = self.head.0.load(Ordering::Relaxed);
        // SYNC POINT head: everything done for the message happens before the producer sees
        // the slot free (and, for drain waits, before it sees the ring empty).
        self.head.0.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Forgets all messages. Only while no peer uses the ring.
    pub fn clear(&self) {
        self.head.0.store(self.tail.0.load(Ordering::Acquire), Ordering::Release);
    }
}

/// The word of a message that says how much was added to it.
const LAST_WORD: usize = MESSAGE_WORDS - 1;
/// Bit of that word: nothing is added any more.
pub const CLOSED: u64 = 1 << 63;

/// Looks at a message that grows before it is closed in any case, and pauses before each: long enough for an addition, and too
/// short to be noticed by whoever waits.
#[cfg(not(loom))]
const MOST_LOOKS: u32 = 16;
#[cfg(loom)]
const MOST_LOOKS: u32 = 0;
const PAUSES: u32 = 6;

/// How many messages ahead a producer asks for the line of a slot: it comes out of the consumer's
/// cache while the messages before it are being written.
const AHEAD: u64 = 4;

#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline]
#[expect(unsafe_code)] // An intrinsic without safety conditions of its own.
fn prefetch_for_write(slot: &Slot) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: a prefetch is a hint; it changes nothing, and the pointer comes from a reference.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(slot).cast()) };
}

#[cfg(not(all(target_arch = "x86_64", not(loom))))]
fn prefetch_for_write(_: &Slot) {}

#[cfg(any(test, loom))]
impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self {
            tail: Padded(AtomicU64::new(0)),
            head: Padded(AtomicU64::new(0)),
            slots: std::array::from_fn(|_| Slot { words: std::array::from_fn(|_| AtomicU64::new(0)) }),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn message(n: u64) -> [u64; MESSAGE_WORDS] {
        std::array::from_fn(|i| n * 10 + i as u64)
    }

    #[test]
    fn a_message_is_added_to_until_it_is_closed() {
        let ring = Ring::<8>::default();
        ring.push([0; MESSAGE_WORDS]).unwrap();
        assert!(ring.extend(0, (4, 0x1122), 0, 1));
        let closed = ring.close_front();
        assert_eq!((closed[4], closed[7]), (0x1122, CLOSED | 1));
        assert!(!ring.extend(0, (5, 0x33), 1, 2));
        assert_eq!(ring.close_front()[7], CLOSED | 1);
    }

    #[test]
    fn the_history_has_what_was_produced_last_consumed_or_not() {
        let ring = Ring::<8>::default();
        assert_eq!(ring.history(), []);
        for n in 1..=11 {
            ring.push(message(n)).unwrap();
            ring.advance();
        }
        ring.push(message(12)).unwrap();
        assert_eq!(ring.waiting(), [message(12)]);
        let history = ring.history();
        assert_eq!(history.len(), 8);
        assert_eq!((history[0], history[7]), ((5, message(5)), (12, message(12))));
        ring.tail.0.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(ring.history().len(), 8);
    }

    proptest! {
        #[test]
        fn behaves_like_a_bounded_queue(steps in prop::collection::vec(any::<bool>(), 0..400)) {
            let ring = Ring::<8>::default();
            let mut model = VecDeque::new();
            for (n, push) in steps.into_iter().enumerate() {
                if push {
                    let result = ring.push(message(n as u64));
                    prop_assert_eq!(result.is_ok(), model.len() < 8);
                    if result.is_ok() {
                        model.push_back(message(n as u64));
                    }
                } else {
                    prop_assert_eq!(ring.peek().unwrap(), model.front().copied());
                    prop_assert_eq!(ring.peek().unwrap(), model.front().copied());
                    if model.pop_front().is_some() {
                        ring.advance();
                    }
                }
                prop_assert_eq!(ring.len().unwrap(), model.len() as u64);
            }
        }

        #[test]
        fn impossible_indices_are_reported_not_followed(head: u64, tail: u64) {
            let ring = Ring::<8>::default();
            ring.head.0.store(head, Ordering::Relaxed);
            ring.tail.0.store(tail, Ordering::Relaxed);
            let corrupt = tail.wrapping_sub(head) > 8;
            prop_assert_eq!(ring.peek().is_err(), corrupt);
            prop_assert_eq!(ring.len().is_err(), corrupt);
        }
    }

    #[test]
    fn two_threads_pass_a_million_messages_in_order() {
        let ring = Ring::<64>::default();
        const COUNT: u64 = 1_000_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0;
                for n in 0..COUNT {
                    while ring.push_remembering(message(n), &mut seen).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            for n in 0..COUNT {
                let got = loop {
                    match ring.peek().unwrap() {
                        Some(words) => break words,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(got, message(n));
                ring.advance();
            }
        });
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn every_interleaving_delivers_whole_messages_in_order() {
        loom::model(|| {
            let ring = Arc::new(Ring::<2>::default());
            let producer = {
                let ring = ring.clone();
                loom::thread::spawn(move || {
                    let (mut n, mut seen) = (1, 0);
                    while n <= 3 {
                        match ring.push_remembering([n; MESSAGE_WORDS], &mut seen) {
                            Ok(()) => n += 1,
                            Err(RingError::Full) => loom::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            };
            let mut expected = 1;
            while expected <= 3 {
                match ring.len().unwrap() {
                    0 => loom::thread::yield_now(),
                    waiting => {
                        for _ in 0..waiting {
                            assert_eq!(ring.front(), [expected; MESSAGE_WORDS]);
                            ring.advance();
                            expected += 1;
                        }
                    }
                }
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn what_was_added_before_the_end_is_there_and_what_was_refused_is_not_lost() {
        loom::model(|| {
            let ring = Arc::new(Ring::<2>::default());
            ring.push([0; MESSAGE_WORDS]).unwrap();
            let producer = {
                let ring = ring.clone();
                loom::thread::spawn(move || {
                    (1..=2).take_while(|n| ring.extend(0, (4, *n), n - 1, *n)).count() as u64
                })
            };
            let closed = ring.close_front();
            ring.advance();
            let added = closed[LAST_WORD] & !CLOSED;
            // Something may have been stored that was refused then.
            assert!(closed[4] >= added);
            assert_eq!(producer.join().unwrap(), added);
        });
    }
}
