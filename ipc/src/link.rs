//! The link between the VMM and one device process: rings, payload areas, region table, mirror
//! page and state pages, in one segment.
//!
//! Who writes what is fixed: the VMM writes requests and outgoing payloads, the device process
//! everything else but host events, which are the supervisor's. A peer's content is checked when read.

#![expect(unsafe_code)] // For `unsafe impl Shared` and for copying payloads from shared memory.

use crate::counter::{CounterCell, MAX_COUNTERS};
use crate::dma::{MAX_RANGES, RamRange};
use crate::fault::{LineFault, MAX_FAULTS};
use crate::interrupt::ALL_LINES;
use crate::message::MESSAGE_WORDS;
use crate::mirror::Mirrored;
use crate::raster::RasterCell;
pub use crate::region_table::{MAX_REGIONS, REGION_WORDS, RegionTable};
use crate::ring::Ring;
use crate::segment::{Segment, SegmentError, Shared};
pub use crate::state_page::{COMMIT_WORDS, CommittedState, MAX_PARTS, STATE_BYTES, StatePage, StateWriter};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// First word of a link: "VMSimLnk".
pub const LINK_MAGIC: u64 = u64::from_le_bytes(*b"VMSimLnk");
/// Requests in flight.
pub const REQUEST_SLOTS: usize = 1024;
/// Replies and device events in flight.
pub const REPLY_SLOTS: usize = 256;
/// Host events in flight.
pub const EVENT_SLOTS: usize = 256;
/// Models per device process.
pub const MAX_MODELS: usize = 16;
/// Mirror cells per device process.
pub const MIRROR_CELLS: usize = 1024;
/// Bytes of each payload area: the longest burst.
pub const PAYLOAD_BYTES: usize = 64 << 10;

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
    /// DMA transfers refused: to what is no RAM, or not for this model.
    pub dma_refused: AtomicU64,
    /// Host time that the process spent in the model's code, ns, estimated.
    pub model_nanos: AtomicU64,
    reserved2: AtomicU64,
}

/// Identity of a model as published in the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name, such as `pic`.
    pub name: String,
    /// Bus, device, function of its PCI function.
    pub pci: Option<(u8, u8, u8)>,
}

/// What a device process says of itself as a whole. The supervisor believes it of this process and of no other.
#[repr(C, align(64))]
pub struct ProcessWords {
    /// Not zero: it serves.
    serves: AtomicU32,
    /// Counts main-loop rounds, of which there are some every second, work or not: a process hangs when
    /// its count stands.
    pub heartbeat: AtomicU32,
    /// How far it is when it gives its place to another build, see [`hand_over`].
    pub hand_over: AtomicU32,
}

/// Values of [`ProcessWords::hand_over`].
pub mod hand_over {
    /// It keeps its place.
    pub const NONE: u32 = 0;
    /// It has committed everything and does nothing more.
    pub const PARKED: u32 = 1;
    /// It cannot commit its states as the other build wants them.
    pub const CANNOT: u32 = 2;
    /// The other build has taken all states and begins to change what is shared.
    pub const TAKEN: u32 = 3;
}

impl ProcessWords {
    /// Whether it serves.
    #[inline]
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Acquire) != 0
    }

    /// Says whether it serves. The supervisor does so for one that does not run.
    pub fn set_serves(&self, serves: bool) {
        self.serves.store(serves.into(), Ordering::Release);
    }
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
    /// Generation of the region table that the VMM acts by. VMM side.
    regions_taken: AtomicU64,
    /// How the process is.
    pub process: ProcessWords,
    /// Who the process is.
    pub models: [ModelCell; MAX_MODELS],
    /// VMM to device.
    pub requests: Ring<REQUEST_SLOTS>,
    /// Device to VMM.
    pub replies: Ring<REPLY_SLOTS>,
    /// Supervisor to device: host events, packed.
    pub events: Ring<EVENT_SLOTS>,
    regions: RegionTable,
    mirror: [AtomicU64; MIRROR_CELLS],
    /// Of the one region of the process that has [`crate::region::RegionInfo::raster`] set.
    pub raster: RasterCell,
    /// Of the one region of the process that has [`crate::region::RegionInfo::counters`] set.
    pub counters: [CounterCell; MAX_COUNTERS],
    payload_out: [AtomicU64; PAYLOAD_BYTES / 8],
    payload_in: [AtomicU64; PAYLOAD_BYTES / 8],
    /// Committed states, by model.
    pub states: [StatePage; MAX_MODELS],
    /// Events that each fault rule of the process has seen.
    pub faults: [AtomicU64; MAX_FAULTS],
    /// What faults have under way on each interrupt line, see [`LineFault::words`].
    line_faults: [[AtomicU64; 2]; ALL_LINES],
    /// Ranges of guest RAM that the process has: start and end of each, 0 and 0 for none.
    dma: [[AtomicU64; 2]; MAX_RANGES],
}

// SAFETY: repr(C), only atomics and arrays and structs of atomics (rings and pads included).
unsafe impl Shared for LinkLayout {}

const _: () = {
    assert!(align_of::<LinkLayout>() <= 4096);
    assert!(size_of::<ModelCell>() == 64);
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
            let name = bytes
                .iter()
                .take_while(|b| **b != 0)
                .map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' })
                .collect();
            let pci = cell.pci.load(Ordering::Relaxed);
            let pci = (pci >> 31 != 0).then_some(((pci >> 16) as u8, (pci >> 8) as u8 & 31, pci as u8 & 7));
            ModelInfo { name, pci }
        };
        self.models[..count].iter().map(info).collect()
    }

    /// Says which ranges of guest RAM the process has. Device side.
    pub fn set_dma(&self, ranges: &[RamRange]) {
        let ranges = ranges.iter().copied().chain(std::iter::repeat(RamRange { start: 0, end: 0 }));
        for ([start, end], range) in self.dma.iter().zip(ranges) {
            start.store(range.start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
    }

    /// The ranges of guest RAM that the process says it has.
    pub fn dma(&self) -> Vec<RamRange> {
        let load = |[start, end]: &[AtomicU64; 2]| RamRange {
            start: start.load(Ordering::Relaxed),
            end: end.load(Ordering::Relaxed),
        };
        self.dma.iter().map(load).filter(|range| range.start < range.end).collect()
    }

    /// Says what faults have under way on line `line`. Device side, and the launcher before it.
    pub fn set_line_fault(&self, line: usize, fault: &LineFault) {
        let Some(cells) = self.line_faults.get(line) else { return };
        for (cell, word) in cells.iter().zip(fault.words()) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// What faults have under way on each interrupt line: ISA IRQs, then PIRQs.
    pub fn line_faults(&self) -> [LineFault; ALL_LINES] {
        std::array::from_fn(|line| {
            let words = self.line_faults[line].each_ref().map(|cell| cell.load(Ordering::Relaxed));
            LineFault::from_words(words)
        })
    }

    /// Changes of the region table so far; odd while it changes.
    #[inline]
    pub fn region_generation(&self) -> u64 {
        self.regions.generation()
    }

    /// Replaces the region table. Device side. Regions beyond [`MAX_REGIONS`] are refused by
    /// the caller.
    pub fn set_regions(&self, regions: &[[u64; REGION_WORDS]]) {
        self.regions.set(regions);
    }

    /// Reads the region table with its generation; `None` while it is being changed.
    pub fn regions(&self) -> Option<(u64, Vec<[u64; REGION_WORDS]>)> {
        self.regions.get()
    }

    /// Says that from now on no access is made by a region table older than `generation`. VMM side.
    pub fn take_regions(&self, generation: u64) {
        self.regions_taken.store(generation, Ordering::Release);
    }

    /// Whether the VMM acts by the region table as it is now. Device side.
    pub fn regions_are_taken(&self) -> bool {
        self.regions_taken.load(Ordering::Acquire) == self.region_generation()
    }

    /// A mirror cell; beyond the end, one that says nothing.
    #[inline]
    pub fn mirror(&self, cell: usize) -> Mirrored {
        self.mirror.get(cell).map_or(Mirrored::ASK, |cell| Mirrored::from_word(cell.load(Ordering::Acquire)))
    }

    /// Sets a mirror cell. Device side. False when there is no such cell.
    pub fn set_mirror(&self, cell: usize, content: Mirrored) -> bool {
        self.mirror.get(cell).map(|cell| cell.store(content.word(), Ordering::Release)).is_some()
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
