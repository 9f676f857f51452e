//! The committed state of one model: two buffers, of which one word says which is current.
//!
//! A process commits with one store; if it is killed before that, the state before is what its
//! successor finds, whole. All of it is words that are atomics, so the code that is
//! model-checked is the code that runs.
//!
//! A state consists of parts, and each buffer says where each part lies. A [`StateWriter`] knows what either
//! buffer lacks, so a commit writes what changed since that buffer was last written, and nothing else.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of saved state per model.
pub const STATE_BYTES: usize = if cfg!(loom) { 16 } else { 64 << 10 };
/// Words of the record that accompanies a committed state.
pub const COMMIT_WORDS: usize = if cfg!(loom) { 1 } else { 64 };
/// Parts of a state.
pub const MAX_PARTS: usize = if cfg!(loom) { 2 } else { 28 };

const WORD: usize = size_of::<u64>();
/// Room that a part has at least: most grow a little when their varints do.
const LEAST_ROOM: usize = if cfg!(loom) { WORD } else { 8 * WORD };

/// A copy of what a state page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedState {
    /// Sequence number of the last request that the state includes.
    pub sequence: u64,
    /// Version of the model's state format.
    pub version: u16,
    /// What else was decided with it (reply, effects); the device host's own format.
    pub record: Vec<u64>,
    /// The state: all parts, one after the other.
    pub data: Vec<u8>,
    /// Whether what the record asks for had been done.
    pub applied: bool,
}

#[repr(C)]
struct StateSlot {
    sequence: AtomicU64,
    version: AtomicU32,
    parts: AtomicU32,
    record_len: AtomicU32,
    reserved: AtomicU32,
    /// Bits 0-31 length in bytes, 32-63 first word.
    places: [AtomicU64; MAX_PARTS],
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
    assert!(cfg!(loom) || size_of::<StateSlot>() == 24 + (MAX_PARTS + COMMIT_WORDS) * WORD + STATE_BYTES);
    assert!(STATE_BYTES.is_multiple_of(WORD) && MAX_PARTS < 32);
};

/// One part of a state, as it was last given, and its place in the slots.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    first_word: usize,
    /// In bytes.
    room: usize,
}

/// Parts that the two slots do not hold as they are: bits 0-31 for slot 0, 32-63 for slot 1. One word, because the halves are
/// changed by turns and together, and a wide read of what was just written by halves takes its time.
#[derive(Clone, Copy, Debug)]
struct Lacks(u64);

impl Lacks {
    /// Both lack these parts.
    #[inline]
    fn both(parts: u32) -> Self {
        Self(u64::from(parts) << 32 | u64::from(parts))
    }

    /// Both lack these too.
    #[inline]
    fn add(&mut self, parts: u32) {
        self.0 |= Self::both(parts).0;
    }

    /// What slot `slot` (0 or 1) lacks.
    #[inline]
    fn of(self, slot: u64) -> u32 {
        (self.0 >> (32 * slot)) as u32
    }

    /// Slot `slot` lacks nothing.
    #[inline]
    fn clear(&mut self, slot: u64) {
        self.0 &= u64::from(u32::MAX) << (32 * (slot ^ 1));
    }
}

/// The only writer of a [`StatePage`]: the parts of the state, and which of them each slot lacks.
#[derive(Debug)]
pub struct StateWriter {
    parts: Vec<Part>,
    /// What the slots lack.
    lacks: Lacks,
    /// What it has published last. Where another value is found, somebody else wrote the slots meanwhile.
    published: u64,
    /// Parts that were never given.
    missing: u32,
}

impl StateWriter {
    /// For a state of `parts` parts, at most [`MAX_PARTS`] of them.
    pub fn new(parts: usize) -> Self {
        let parts = parts.clamp(1, MAX_PARTS);
        let all = (1 << parts) - 1;
        Self {
            parts: (0..parts).map(|_| Part::default()).collect(),
            lacks: Lacks::both(all),
            published: 0,
            missing: all,
        }
    }

    /// All parts: bit n for part n.
    pub fn all(&self) -> u32 {
        (1 << self.parts.len()) - 1
    }

    /// Parts that were never given.
    #[inline]
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Where to put the bytes of part `number`, which must exist; the next commit includes them.
    #[inline]
    pub fn part(&mut self, number: usize) -> &mut Vec<u8> {
        let bit = 1 << number;
        self.lacks.add(bit);
        self.missing &= !bit;
        let bytes = &mut self.parts[number].bytes;
        bytes.clear();
        bytes
    }

    /// Commits the parts as they are: completes the slot that is not current, then makes it current with one
    /// store. Device side. False (and nothing changed) when they are too long.
    #[must_use]
    pub fn commit(&mut self, page: &StatePage, sequence: u64, version: u16, record: &[u64]) -> bool {
        let published = page.published.load(Ordering::Relaxed);
        if published != self.published {
            self.lacks = Lacks::both(self.all());
        }
        if record.len() > COMMIT_WORDS {
            return false;
        }
        let target = (published & 1) ^ 1;
        // SYNC POINT state: whoever sees a word of what follows sees that the slot's former
        // content is no longer current.
        fence(Ordering::Release);
        let slot = &page.slots[target as usize];
        if !self.complete(slot, self.lacks.of(target)) {
            // Another layout, once.
            if !self.lay_out() || !self.complete(slot, self.all()) {
                return false;
            }
        }
        slot.sequence.store(sequence, Ordering::Relaxed);
        slot.version.store(version.into(), Ordering::Relaxed);
        slot.parts.store(self.parts.len() as u32, Ordering::Relaxed);
        slot.record_len.store(record.len() as u32, Ordering::Relaxed);
        for (cell, word) in slot.record.iter().zip(record) {
            cell.store(*word, Ordering::Relaxed);
        }
        self.lacks.clear(target);
        self.published = ((published >> 1).wrapping_add(1) << 1) | target;
        // SYNC POINT state: everything above is visible to whoever sees the new value.
        page.published.store(self.published, Ordering::Release);
        true
    }

    /// Writes parts to a slot. False when one does not fit its place.
    #[inline]
    fn complete(&self, slot: &StateSlot, mut parts: u32) -> bool {
        while parts != 0 {
            let number = parts.trailing_zeros() as usize;
            parts &= parts - 1;
            let part = &self.parts[number];
            if part.bytes.len() > part.room {
                return false;
            }
            let place = (part.first_word as u64) << 32 | part.bytes.len() as u64;
            slot.places[number].store(place, Ordering::Relaxed);
            store(&slot.data[part.first_word..], &part.bytes);
        }
        true
    }

    /// Gives every part a place, with room to grow if there is any. False when they do not fit.
    #[cold]
    fn lay_out(&mut self) -> bool {
        let generous = |part: &Part| part.bytes.len().next_power_of_two().max(LEAST_ROOM).max(part.room);
        let exact = |part: &Part| part.bytes.len().next_multiple_of(WORD);
        let fits = |room: &dyn Fn(&Part) -> usize| self.parts.iter().map(room).sum::<usize>() <= STATE_BYTES;
        let room: &dyn Fn(&Part) -> usize = if fits(&generous) { &generous } else { &exact };
        if !fits(room) {
            return false;
        }
        let mut end = 0;
        for part in &mut self.parts {
            part.room = room(part);
            part.first_word = end / WORD;
            end += part.room;
        }
        self.lacks = Lacks::both(self.all());
        true
    }
}

/// Stores bytes as words.
#[inline]
fn store(cells: &[AtomicU64], bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<WORD>();
    for (cell, bytes) in cells.iter().zip(words) {
        cell.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if !rest.is_empty()
        && let Some(cell) = cells.get(words.len())
    {
        // Not by way of memory: a word that was just written in pieces takes its time to be read.
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        cell.store(word, Ordering::Relaxed);
    }
}

impl StatePage {
    /// Commits a whole state at once; see [`StateWriter::commit`], which costs less.
    #[must_use]
    pub fn commit(&self, sequence: u64, version: u16, record: &[u64], data: &[u8]) -> bool {
        let mut writer = StateWriter::new(1);
        writer.part(0).extend_from_slice(data);
        writer.commit(self, sequence, version, record)
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
        let parts = (slot.parts.load(Ordering::Relaxed) as usize).min(MAX_PARTS);
        let record_len = (slot.record_len.load(Ordering::Relaxed) as usize).min(COMMIT_WORDS);
        let mut data = Vec::new();
        for place in &slot.places[..parts] {
            let place = place.load(Ordering::Relaxed);
            let (first, len) = ((place >> 32) as usize, place as u32 as usize);
            let cells = slot.data.get(first..).unwrap_or_default();
            let len = len.min(cells.len() * WORD).min(STATE_BYTES - data.len());
            let end = data.len() + len;
            let words = cells[..len.div_ceil(WORD)].iter();
            data.extend(words.flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()));
            data.truncate(end);
        }
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
            parts: AtomicU32::new(0),
            record_len: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            places: std::array::from_fn(|_| AtomicU64::new(0)),
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
        slot.parts.store(u32::MAX, Ordering::Relaxed);
        slot.record_len.store(u32::MAX, Ordering::Relaxed);
        for place in &slot.places {
            place.store(u32::MAX.into(), Ordering::Relaxed);
        }
        let state = page.committed().unwrap();
        assert_eq!((state.data.len(), state.record.len()), (STATE_BYTES, COMMIT_WORDS));
        for place in &slot.places {
            place.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(page.committed().unwrap().data, []);
    }

    /// What a successor finds in `page`.
    fn data(page: &StatePage) -> Vec<u8> {
        page.committed().unwrap().data
    }

    #[test]
    fn parts_that_did_not_change_are_not_written_again_and_are_there() {
        let page = StatePage::default();
        let mut writer = StateWriter::new(3);
        assert_eq!(writer.missing(), 0b111);
        for (number, bytes) in [&b"one "[..], b"two ", b"three"].into_iter().enumerate() {
            writer.part(number).extend_from_slice(bytes);
        }
        assert_eq!(writer.missing(), 0);
        assert!(writer.commit(&page, 1, 1, &[]));
        assert_eq!(data(&page), b"one two three");
        writer.part(1).extend_from_slice(b"2 ");
        assert!(writer.commit(&page, 2, 1, &[]));
        assert_eq!(data(&page), b"one 2 three");
        // This slot saw neither the second part nor the third change.
        writer.part(2).extend_from_slice(b"3");
        assert!(writer.commit(&page, 3, 1, &[]));
        assert_eq!(data(&page), b"one 2 3");
        // What is not given again is not touched.
        let place = page.slots[1].places[0].load(Ordering::Relaxed);
        page.slots[0].data[(place >> 32) as usize].store(u64::from_le_bytes(*b"ONE     "), Ordering::Relaxed);
        assert!(writer.commit(&page, 4, 1, &[]));
        assert_eq!(data(&page), b"ONE 2 3");
    }

    #[test]
    fn a_part_that_outgrows_its_place_moves_the_others() {
        let page = StatePage::default();
        let mut writer = StateWriter::new(2);
        for len in [0, 1, 63, 64, 65, 1000, 3, 60_000] {
            let mut expected = vec![1; len];
            writer.part(0).extend_from_slice(&expected);
            writer.part(1).extend_from_slice(b"last");
            assert!(writer.commit(&page, 1, 1, &[]));
            expected.extend_from_slice(b"last");
            assert_eq!(data(&page), expected);
            assert!(writer.commit(&page, 1, 1, &[]));
            assert_eq!(data(&page), expected);
        }
        writer.part(0).extend_from_slice(&[2; STATE_BYTES - 4]);
        assert!(!writer.commit(&page, 2, 1, &[]), "the last part needs a word of its own");
        assert_eq!(data(&page).len(), 60_004);
        writer.part(0).extend_from_slice(&[2; STATE_BYTES - 8]);
        assert!(writer.commit(&page, 2, 1, &[]));
        assert_eq!(data(&page).len(), STATE_BYTES - 4);
    }

    #[test]
    fn a_writer_that_finds_another_ones_commit_writes_everything() {
        let page = StatePage::default();
        let mut writer = StateWriter::new(2);
        writer.part(0).extend_from_slice(b"mine");
        writer.part(1).extend_from_slice(b"too");
        assert!(writer.commit(&page, 1, 1, &[]));
        assert!(writer.commit(&page, 2, 1, &[]));
        for others in 1..=3 {
            for _ in 0..others {
                assert!(page.commit(3, 1, &[], b"somebody else's"));
            }
            writer.part(1).extend_from_slice(b"as well");
            assert!(writer.commit(&page, 4, 1, &[]));
            assert_eq!(data(&page), b"mineas well");
        }
        page.clear();
        assert!(writer.commit(&page, 5, 1, &[]));
        assert_eq!(data(&page), b"mineas well");
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

    #[test]
    fn no_interleaving_shows_a_reader_parts_of_different_commits() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let page = Arc::new(StatePage::default());
            let mut writer = StateWriter::new(2);
            writer.part(0).push(1);
            writer.part(1).push(1);
            assert!(writer.commit(&page, 1, 1, &[]));
            let writer = {
                let page = page.clone();
                loom::thread::spawn(move || {
                    // One part each time: the other comes from the commit before, into the other slot.
                    for n in 2..=3u8 {
                        writer.part(usize::from(n & 1)).push(n);
                        assert!(writer.commit(&page, n.into(), 1, &[]));
                    }
                })
            };
            if let Ok(Some(state)) = page.try_committed() {
                let n = state.sequence as usize;
                assert_eq!(state.data, [[1, 1], [2, 1], [2, 3]][n - 1]);
            }
            writer.join().unwrap();
            assert_eq!(page.committed().map(|state| state.data), Some(vec![2, 3]));
        });
    }
}
