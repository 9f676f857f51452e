//! The committed state of one model: two buffers, of which one word says which is current.
//!
//! A process commits with one store; if it is killed before that, the state before is what its
//! successor finds, whole. All of it is words that are atomics, so the code that is
//! model-checked is the code that runs.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of saved state per model.
pub const STATE_BYTES: usize = if cfg!(loom) { 16 } else { 64 << 10 };
/// Words of the record that accompanies a committed state.
pub const COMMIT_WORDS: usize = if cfg!(loom) { 1 } else { 64 };

const WORD: usize = size_of::<u64>();

/// A copy of what a state page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedState {
    /// Sequence number of the last request that the state includes.
    pub sequence: u64,
    /// Version of the model's state format.
    pub version: u16,
    /// What else was decided with it (reply, effects); the device host's own format.
    pub record: Vec<u64>,
    /// The state.
    pub data: Vec<u8>,
    /// Whether what the record asks for had been done.
    pub applied: bool,
}

#[repr(C)]
struct StateSlot {
    sequence: AtomicU64,
    version: AtomicU32,
    len: AtomicU32,
    record_len: AtomicU32,
    reserved: AtomicU32,
    record: [AtomicU64; COMMIT_WORDS],
    data: [AtomicU64; STATE_BYTES / WORD],
}

/// Double-buffered committed state of one model.
#[repr(C)]
pub struct StatePage {
    /// Bit 0: which slot holds the committed state; the rest counts commits. 0: nothing committed.
    published: AtomicU64,
    /// The value of `published` whose record has been dealt with.
    applied: AtomicU64,
    reserved: [AtomicU64; 6],
    slots: [StateSlot; 2],
}

const _: () = {
    assert!(cfg!(loom) || size_of::<StateSlot>() == 24 + COMMIT_WORDS * WORD + STATE_BYTES);
    assert!(STATE_BYTES.is_multiple_of(WORD));
};

impl StatePage {
    /// Commits a state: writes the slot that is not current, then makes it current with one store.
    /// Device side. False (and nothing changed) when it is too long.
    #[must_use]
    pub fn commit(&self, sequence: u64, version: u16, record: &[u64], data: &[u8]) -> bool {
        if data.len() > STATE_BYTES || record.len() > COMMIT_WORDS {
            return false;
        }
        let published = self.published.load(Ordering::Relaxed);
        // SYNC POINT state: whoever sees a word of what follows sees that the slot's former
        // content is no longer current.
        fence(Ordering::Release);
        let target = (published & 1) ^ 1;
        let slot = &self.slots[target as usize];
        slot.sequence.store(sequence, Ordering::Relaxed);
        slot.version.store(version.into(), Ordering::Relaxed);
        slot.len.store(data.len() as u32, Ordering::Relaxed);
        slot.record_len.store(record.len() as u32, Ordering::Relaxed);
        for (cell, word) in slot.record.iter().zip(record) {
            cell.store(*word, Ordering::Relaxed);
        }
        let (words, rest) = data.as_chunks::<WORD>();
        for (cell, bytes) in slot.data.iter().zip(words) {
            cell.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut bytes = [0; WORD];
            bytes[..rest.len()].copy_from_slice(rest);
            slot.data[words.len()].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        // SYNC POINT state: everything above is visible to whoever sees the new value.
        self.published.store(((published >> 1).wrapping_add(1) << 1) | target, Ordering::Release);
        true
    }

    /// Notes that what the last commit's record asks for has been done. Device side.
    #[inline]
    pub fn set_applied(&self) {
        self.applied.store(self.published.load(Ordering::Relaxed), Ordering::Release);
    }

    /// The committed state; `None` when nothing was committed yet, or when it changes all the time.
    pub fn committed(&self) -> Option<CommittedState> {
        // A reader is overtaken twice at most by an honest writer before it gets a whole state.
        (0..1000).find_map(|_| self.try_committed().transpose())?.ok()
    }

    /// One look: `Ok(None)` when it was overtaken, an error when there is nothing.
    fn try_committed(&self) -> Result<Option<CommittedState>, NothingCommitted> {
        // SYNC POINT state: pairs with the store in `commit`.
        let published = self.published.load(Ordering::Acquire);
        if published == 0 {
            return Err(NothingCommitted);
        }
        let slot = &self.slots[(published & 1) as usize];
        let len = (slot.len.load(Ordering::Relaxed) as usize).min(STATE_BYTES);
        let record_len = (slot.record_len.load(Ordering::Relaxed) as usize).min(COMMIT_WORDS);
        let words = slot.data[..len.div_ceil(WORD)].iter();
        let mut data: Vec<u8> = words.flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
        data.truncate(len);
        let state = CommittedState {
            sequence: slot.sequence.load(Ordering::Relaxed),
            version: slot.version.load(Ordering::Relaxed) as u16,
            record: slot.record[..record_len].iter().map(|w| w.load(Ordering::Relaxed)).collect(),
            data,
            applied: self.applied.load(Ordering::Relaxed) == published,
        };
        // SYNC POINT state: pairs with the fence in `commit`.
        fence(Ordering::Acquire);
        Ok((self.published.load(Ordering::Relaxed) == published).then_some(state))
    }

    /// Forgets everything committed: the next start of the process is a cold one.
    pub fn clear(&self) {
        self.published.store(0, Ordering::Release);
    }
}

struct NothingCommitted;

#[cfg(any(test, loom))]
impl Default for StatePage {
    fn default() -> Self {
        let slot = || StateSlot {
            sequence: AtomicU64::new(0),
            version: AtomicU32::new(0),
            len: AtomicU32::new(0),
            record_len: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            record: std::array::from_fn(|_| AtomicU64::new(0)),
            data: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            published: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            reserved: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: [slot(), slot()],
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_is_what_a_successor_finds() {
        let page = StatePage::default();
        assert_eq!(page.committed(), None);
        assert!(page.commit(5, 1, &[7], b"five"));
        assert!(page.commit(6, 2, &[], b"six and more"));
        let state = page.committed().unwrap();
        assert_eq!(
            (state.sequence, state.version, state.data.as_slice()),
            (6, 2, b"six and more".as_slice())
        );
        assert!(!state.applied);
        page.set_applied();
        assert!(page.committed().unwrap().applied);
        assert!(!page.commit(7, 1, &[], &vec![0; STATE_BYTES + 1]));
        assert_eq!(page.committed().unwrap().sequence, 6);
        assert!(page.commit(8, 1, &[], &[]));
        assert!(!page.committed().unwrap().applied);
    }

    #[test]
    fn a_reader_never_sees_a_mixed_state() {
        let page = StatePage::default();
        assert!(page.commit(0, 1, &[0], &[0; 4096]));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..20_000u64 {
                    assert!(page.commit(n, 1, &[n], &[n as u8; 4096]));
                }
            });
            while !writer.is_finished() {
                let Some(state) = page.committed() else { continue };
                assert!(state.data.iter().all(|b| *b == state.sequence as u8));
                assert_eq!(state.record, [state.sequence]);
            }
        });
    }

    #[test]
    fn hostile_lengths_stay_inside_the_page() {
        let page = StatePage::default();
        assert!(page.commit(1, 1, &[1], b"state"));
        let slot = &page.slots[1];
        slot.len.store(u32::MAX, Ordering::Relaxed);
        slot.record_len.store(u32::MAX, Ordering::Relaxed);
        let state = page.committed().unwrap();
        assert_eq!((state.data.len(), state.record.len()), (STATE_BYTES, COMMIT_WORDS));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn no_interleaving_shows_a_reader_a_mixed_state() {
        loom::model(|| {
            let page = Arc::new(StatePage::default());
            assert!(page.commit(1, 1, &[1], &[1; 8]));
            let writer = {
                let page = page.clone();
                loom::thread::spawn(move || {
                    for n in 2..=3u8 {
                        assert!(page.commit(n.into(), n.into(), &[n.into()], &[n; 8]));
                    }
                })
            };
            if let Ok(Some(state)) = page.try_committed() {
                assert!((1..=3).contains(&state.sequence));
                assert_eq!(state.record, [state.sequence]);
                assert_eq!(u64::from(state.version), state.sequence);
                assert_eq!(state.data, [state.sequence as u8; 8]);
            }
            writer.join().unwrap();
            assert_eq!(page.committed().map(|state| state.sequence), Some(3));
        });
    }
}
