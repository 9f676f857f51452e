//! The link between the VMM and one device process: rings, payload areas, region table, mirror
//! page and state pages, in one segment.
//!
//! Who writes what is fixed: the VMM writes requests and outgoing payloads, the device process
//! everything else but host events, which are the supervisor's. A peer's content is checked when read.

#![expect(unsafe_code)] // For `unsafe impl Shared` and for copying payloads from shared memory.

use crate::message::MESSAGE_WORDS;
use crate::ring::{Padded, Ring};
use crate::segment::{Segment, SegmentError, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// First word of a link: "VMSimLnk".
pub const LINK_MAGIC: u64 = u64::from_le_bytes(*b"VMSimLnk");
/// Requests in flight.
pub const REQUEST_SLOTS: usize = 1024;
/// Replies and device events in flight.
pub const REPLY_SLOTS: usize = 256;
/// Host events in flight.
pub const EVENT_SLOTS: usize = 256;
/// Regions per device process.
pub const MAX_REGIONS: usize = 128;
/// Models per device process.
pub const MAX_MODELS: usize = 16;
/// Mirror cells per device process.
pub const MIRROR_CELLS: usize = 1024;
/// Bytes of each payload area: the longest burst.
pub const PAYLOAD_BYTES: usize = 64 << 10;
/// Bytes of saved state per model.
pub const STATE_BYTES: usize = 64 << 10;
/// Words that describe a region.
pub const REGION_WORDS: usize = 8;
/// Words of the record that accompanies a committed state.
pub const COMMIT_WORDS: usize = 64;

/// A copy of the bytes in a state page.
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
}

#[repr(C)]
struct StateSlot {
    sequence: AtomicU64,
    version: AtomicU32,
    len: AtomicU32,
    record_len: AtomicU32,
    reserved: AtomicU32,
    record: [AtomicU64; COMMIT_WORDS],
    data: [AtomicU64; STATE_BYTES / 8],
}

/// Double-buffered committed state of one model.
#[repr(C)]
pub struct StatePage {
    /// Bit 0: which slot holds the committed state; the rest counts commits. 0: nothing committed.
    published: AtomicU64,
    reserved: [AtomicU64; 7],
    slots: [StateSlot; 2],
}

/// What identifies one model of the process.
#[repr(C)]
pub struct ModelCell {
    /// Name, zero-padded ASCII.
    name: [AtomicU64; 2],
    /// PCI address: 1 << 31 | bus << 16 | device << 8 | function; 0 for none.
    pci: AtomicU32,
    reserved: AtomicU32,
    /// Accesses handled.
    pub accesses: AtomicU64,
    /// Accesses answered with an error.
    pub errors: AtomicU64,
    reserved2: [AtomicU64; 3],
}

/// Identity of a model as published in the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name, such as `pic`.
    pub name: String,
    /// Bus, device, function of its PCI function.
    pub pci: Option<(u8, u8, u8)>,
}

#[repr(C)]
struct RegionTable {
    /// Odd while the table changes; counts changes.
    generation: AtomicU64,
    count: AtomicU32,
    reserved: AtomicU32,
    cells: [[AtomicU64; REGION_WORDS]; MAX_REGIONS],
}

/// The shared layout of a link.
#[repr(C)]
pub struct LinkLayout {
    /// [`LINK_MAGIC`].
    pub magic: AtomicU64,
    /// Models in [`LinkLayout::models`].
    model_count: AtomicU32,
    reserved: AtomicU32,
    /// Bytes of the process's device memory segment; 0 for none.
    pub device_memory_bytes: AtomicU64,
    /// Host ns (CLOCK_MONOTONIC) spent in models, for accounting.
    pub busy_nanos: AtomicU64,
    /// Who the process is.
    pub models: [ModelCell; MAX_MODELS],
    /// VMM to device.
    pub requests: Ring<REQUEST_SLOTS>,
    /// Device to VMM.
    pub replies: Ring<REPLY_SLOTS>,
    /// Supervisor to device: host events, packed.
    pub events: Ring<EVENT_SLOTS>,
    regions: Padded<RegionTable>,
    mirror: [AtomicU32; MIRROR_CELLS],
    payload_out: [AtomicU64; PAYLOAD_BYTES / 8],
    payload_in: [AtomicU64; PAYLOAD_BYTES / 8],
    /// Committed states, by model.
    pub states: [StatePage; MAX_MODELS],
}

// SAFETY: repr(C), only atomics and arrays and structs of atomics (rings and pads included).
unsafe impl Shared for LinkLayout {}

const _: () = {
    assert!(align_of::<LinkLayout>() <= 4096);
    assert!(size_of::<ModelCell>() == 64);
    assert!(size_of::<StateSlot>() == 24 + COMMIT_WORDS * 8 + STATE_BYTES);
};

/// Which payload area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// VMM to device.
    Out,
    /// Device to VMM.
    In,
}

/// One end's view of a link.
pub struct Link {
    segment: Segment,
}

impl Link {
    /// Bytes of a link's segment.
    pub const BYTES: u64 = size_of::<LinkLayout>() as u64;

    /// Creates the link's segment.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn create(name: &str) -> Result<Self, SegmentError> {
        let link = Self { segment: Segment::create(name, Self::BYTES)? };
        link.layout().magic.store(LINK_MAGIC, Ordering::Release);
        Ok(link)
    }

    /// Opens a link that the launcher created.
    ///
    /// # Errors
    /// [`SegmentError`], also when it is no link.
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let segment = Segment::open(name)?;
        let magic = segment.view::<LinkLayout>()?.magic.load(Ordering::Acquire);
        if magic != LINK_MAGIC {
            return Err(SegmentError::Os { name: name.into(), reason: "it is not a VMSim link".into() });
        }
        Ok(Self { segment })
    }

    /// The shared layout.
    #[inline]
    pub fn layout(&self) -> &LinkLayout {
        // SAFETY: `create` and `open` checked size and alignment through `view`.
        unsafe { &*self.segment.as_ptr().cast::<LinkLayout>() }
    }
}

impl LinkLayout {
    /// Publishes who the process is. Device side, before it says that it is ready.
    pub fn set_models(&self, models: &[ModelInfo]) {
        for (cell, model) in self.models.iter().zip(models) {
            let mut name = [0; 16];
            let len = model.name.len().min(15);
            name[..len].copy_from_slice(&model.name.as_bytes()[..len]);
            for (word, bytes) in cell.name.iter().zip(name.chunks_exact(8)) {
                word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
            }
            let pci = model.pci.map_or(0, |(bus, device, function)| {
                1 << 31 | u32::from(bus) << 16 | u32::from(device) << 8 | u32::from(function)
            });
            cell.pci.store(pci, Ordering::Relaxed);
        }
        self.model_count.store(models.len().min(MAX_MODELS) as u32, Ordering::Release);
    }

    /// The models of the process.
    pub fn model_infos(&self) -> Vec<ModelInfo> {
        let count = (self.model_count.load(Ordering::Acquire) as usize).min(MAX_MODELS);
        let info = |cell: &ModelCell| {
            let bytes: Vec<u8> =
                cell.name.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
            let name = bytes.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
            let pci = cell.pci.load(Ordering::Relaxed);
            let pci = (pci >> 31 != 0).then_some(((pci >> 16) as u8, (pci >> 8) as u8 & 31, pci as u8 & 7));
            ModelInfo { name, pci }
        };
        self.models[..count].iter().map(info).collect()
    }

    /// Changes of the region table so far; odd while it changes.
    #[inline]
    pub fn region_generation(&self) -> u64 {
        self.regions.0.generation.load(Ordering::Acquire)
    }

    /// Replaces the region table. Device side. Regions beyond [`MAX_REGIONS`] are refused by
    /// the caller.
    pub fn set_regions(&self, regions: &[[u64; REGION_WORDS]]) {
        let table = &self.regions.0;
        // A predecessor may have died in the middle and left it odd: start from even.
        let generation = table.generation.load(Ordering::Relaxed) | 1;
        table.generation.store(generation, Ordering::Relaxed);
        // SYNC POINT regions: the odd generation is visible before any cell changes.
        crate::sync::fence(Ordering::Release);
        for (cell, region) in table.cells.iter().zip(regions) {
            for (word, value) in cell.iter().zip(region) {
                word.store(*value, Ordering::Relaxed);
            }
        }
        table.count.store(regions.len().min(MAX_REGIONS) as u32, Ordering::Relaxed);
        table.generation.store(generation.wrapping_add(1), Ordering::Release);
    }

    /// Reads the region table with its generation; `None` while it is being changed.
    pub fn regions(&self) -> Option<(u64, Vec<[u64; REGION_WORDS]>)> {
        let table = &self.regions.0;
        let before = table.generation.load(Ordering::Acquire);
        let count = (table.count.load(Ordering::Relaxed) as usize).min(MAX_REGIONS);
        let regions = table.cells[..count]
            .iter()
            .map(|cell| std::array::from_fn(|i| cell[i].load(Ordering::Relaxed)))
            .collect();
        // SYNC POINT regions: pairs with the fence in `set_regions`.
        crate::sync::fence(Ordering::Acquire);
        let after = table.generation.load(Ordering::Relaxed);
        (before & 1 == 0 && before == after).then_some((before, regions))
    }

    /// A mirror cell; 0 beyond the end.
    #[inline]
    pub fn mirror(&self, cell: usize) -> u32 {
        self.mirror.get(cell).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Sets a mirror cell. Device side. False when there is no such cell.
    pub fn set_mirror(&self, cell: usize, value: u32) -> bool {
        self.mirror.get(cell).map(|cell| cell.store(value, Ordering::Release)).is_some()
    }

    fn payload(&self, area: Payload) -> &[AtomicU64; PAYLOAD_BYTES / 8] {
        match area {
            Payload::Out => &self.payload_out,
            Payload::In => &self.payload_in,
        }
    }

    /// Copies `data` to the start of a payload area. False when it is too long.
    #[must_use]
    pub fn write_payload(&self, area: Payload, data: &[u8]) -> bool {
        if data.len() > PAYLOAD_BYTES {
            return false;
        }
        let target = self.payload(area).as_ptr().cast_mut().cast::<u8>();
        // SAFETY: the area is PAYLOAD_BYTES long and made of UnsafeCell-backed atomics, so it may
        // be written through a shared reference; ring order keeps honest peers away meanwhile,
        // and a hostile one only garbles bytes.
        unsafe { target.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        true
    }

    /// Copies from the start of a payload area. False when `data` is too long.
    #[must_use]
    pub fn read_payload(&self, area: Payload, data: &mut [u8]) -> bool {
        if data.len() > PAYLOAD_BYTES {
            return false;
        }
        let source = self.payload(area).as_ptr().cast::<u8>();
        // SAFETY: as for `write_payload`.
        unsafe { source.copy_to_nonoverlapping(data.as_mut_ptr(), data.len()) };
        true
    }
}

impl StatePage {
    /// Commits a state: writes the slot that is not current, then makes it current with one store.
    /// Device side. False (and nothing changed) when it is too long.
    #[must_use]
    pub fn commit(&self, sequence: u64, version: u16, record: &[u64], data: &[u8]) -> bool {
        if data.len() > STATE_BYTES || record.len() > COMMIT_WORDS {
            return false;
        }
        let published = self.published.load(Ordering::Relaxed);
        let target = (published & 1) ^ 1;
        let slot = &self.slots[target as usize];
        slot.sequence.store(sequence, Ordering::Relaxed);
        slot.version.store(version.into(), Ordering::Relaxed);
        slot.len.store(data.len() as u32, Ordering::Relaxed);
        slot.record_len.store(record.len() as u32, Ordering::Relaxed);
        for (cell, word) in slot.record.iter().zip(record) {
            cell.store(*word, Ordering::Relaxed);
        }
        let target_bytes = slot.data.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: the length was checked against the slot; the memory is atomics (UnsafeCell), and
        // only this process writes it; a concurrent reader checks `published` again afterwards.
        unsafe { target_bytes.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        // SYNC POINT state: everything above is visible to whoever sees the new value.
        self.published.store(((published >> 1).wrapping_add(1) << 1) | target, Ordering::Release);
        true
    }

    /// The committed state; `None` when nothing was committed yet.
    pub fn committed(&self) -> Option<CommittedState> {
        loop {
            // SYNC POINT state: pairs with the store in `commit`.
            let published = self.published.load(Ordering::Acquire);
            if published == 0 {
                return None;
            }
            let slot = &self.slots[(published & 1) as usize];
            let len = (slot.len.load(Ordering::Relaxed) as usize).min(STATE_BYTES);
            let record_len = (slot.record_len.load(Ordering::Relaxed) as usize).min(COMMIT_WORDS);
            let mut data = vec![0; len];
            // SAFETY: as in `commit`; the length is bounded by the slot.
            unsafe { slot.data.as_ptr().cast::<u8>().copy_to_nonoverlapping(data.as_mut_ptr(), len) };
            let state = CommittedState {
                sequence: slot.sequence.load(Ordering::Relaxed),
                version: slot.version.load(Ordering::Relaxed) as u16,
                record: slot.record[..record_len].iter().map(|w| w.load(Ordering::Relaxed)).collect(),
                data,
            };
            crate::sync::fence(Ordering::Acquire);
            if self.published.load(Ordering::Relaxed) == published {
                return Some(state);
            }
        }
    }

    /// Forgets everything committed: the next start of the process is a cold one.
    pub fn clear(&self) {
        self.published.store(0, Ordering::Release);
    }
}

/// Packs a host event into one ring message.
pub fn encode_event(event: &crate::input::HostEvent) -> [u64; MESSAGE_WORDS] {
    let mut words = [0; MESSAGE_WORDS];
    let mut bytes = [0; MESSAGE_WORDS * 8];
    // Every event fits: the largest is a mouse movement of 8 bytes; an empty message is ignored.
    if let Ok(used) = postcard::to_slice(event, &mut bytes[1..]) {
        let len = used.len();
        bytes[0] = len as u8;
    }
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

/// Unpacks a host event; `None` when the message holds none.
pub fn decode_event(words: [u64; MESSAGE_WORDS]) -> Option<crate::input::HostEvent> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let len = usize::from(bytes[0]);
    postcard::from_bytes(bytes.get(1..1 + len)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{HostEvent, Key};
    use crate::segment::SegmentNames;

    fn link(part: &str) -> Link {
        Link::create(&SegmentNames::new(&format!("link{}{part}", std::process::id())).link(0)).unwrap()
    }

    #[test]
    fn the_last_commit_is_what_a_successor_finds() {
        let link = link("a");
        let page = &link.layout().states[3];
        assert_eq!(page.committed(), None);
        assert!(page.commit(5, 1, &[7], b"five"));
        assert!(page.commit(6, 2, &[], b"six"));
        let state = page.committed().unwrap();
        assert_eq!((state.sequence, state.version, state.data.as_slice()), (6, 2, b"six".as_slice()));
        assert!(!page.commit(7, 1, &[], &vec![0; STATE_BYTES + 1]));
        assert_eq!(page.committed().unwrap().sequence, 6);
    }

    #[test]
    fn a_reader_never_sees_a_mixed_state() {
        let link = link("b");
        let page = &link.layout().states[0];
        assert!(page.commit(0, 1, &[0], &[0; 4096]));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..20_000u64 {
                    assert!(page.commit(n, 1, &[n], &[n as u8; 4096]));
                }
            });
            while !writer.is_finished() {
                let state = page.committed().unwrap();
                assert!(state.data.iter().all(|b| *b == state.sequence as u8));
                assert_eq!(state.record, [state.sequence]);
            }
        });
    }

    #[test]
    fn the_region_table_is_whole_or_not_there() {
        let link = link("c");
        let layout = link.layout();
        layout.set_regions(&[[1; REGION_WORDS], [2; REGION_WORDS]]);
        let (generation, regions) = layout.regions().unwrap();
        assert_eq!((generation, regions.len()), (2, 2));
        layout.set_regions(&[[3; REGION_WORDS]]);
        assert_eq!(layout.regions().unwrap(), (4, vec![[3; REGION_WORDS]]));
    }

    #[test]
    fn events_and_models_come_back_as_they_went() {
        let event = HostEvent::Mouse { dx: -300, dy: 299, dz: -1, buttons: 7 };
        assert_eq!(decode_event(encode_event(&event)), Some(event));
        let key = HostEvent::Key { key: Key::ENTER, pressed: true };
        assert_eq!(decode_event(encode_event(&key)), Some(key));
        assert_eq!(decode_event([u64::MAX; MESSAGE_WORDS]), None);
        let link = link("d");
        let models = vec![
            ModelInfo { name: "ide".into(), pci: Some((0, 1, 1)) },
            ModelInfo { name: "fdc".into(), pci: None },
        ];
        link.layout().set_models(&models);
        assert_eq!(link.layout().model_infos(), models);
    }
}
