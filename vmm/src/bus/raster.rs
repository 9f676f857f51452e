//! Accesses that the bus makes by itself in memory of four lanes ([`ipc::raster`]): which addresses have such memory, and where it
//! is. What the accesses do is the device's to say, and it says it in its link.

#![expect(unsafe_code, reason = "device memory is raw pointers into mappings shared with other processes")]

use super::{BusRegion, DeviceLink};
use ipc::raster::{LANES, Raster};
use ipc::segment::Segment;

/// Writes that are sent to a process that has not done with earlier ones, before they are rather waited for: a program that changes
/// a register before each store is not to pay a round trip for each.
const MOST_POSTED: u32 = 8;

/// The one region of the machine whose accesses the bus makes by itself.
#[derive(Debug)]
pub struct RasterWindow {
    base: u64,
    len: u64,
    /// Index of its link.
    pub link: usize,
    generation: Option<u64>,
    raster: Option<Raster>,
    posted: u32,
}

impl RasterWindow {
    /// The first region that is one, if any is.
    pub fn find(regions: &[BusRegion]) -> Option<Self> {
        let BusRegion { link, info } = regions.iter().find(|r| r.info.raster && r.info.enabled)?;
        let (base, len) = (info.base, info.len);
        Some(Self { base, len, link: *link, generation: None, raster: None, posted: 0 })
    }

    /// Whether all of an access lies in it.
    #[inline]
    pub fn holds(&self, address: u64, bytes: u32) -> bool {
        address.wrapping_sub(self.base) < self.len && address + u64::from(bytes) <= self.base + self.len
    }

    /// Whether a write is rather sent, while the process has not done with earlier ones.
    #[inline]
    pub fn sends(&mut self) -> bool {
        self.posted += 1;
        self.posted <= MOST_POSTED
    }

    /// Nothing is under way any more: takes over what the process has published. False: it wants to be asked.
    #[inline]
    pub fn follow(&mut self, link: &DeviceLink) -> bool {
        self.posted = 0;
        let generation = link.raster().generation();
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.raster = link.raster().raster();
        }
        self.raster.is_some()
    }

    /// Reads `bytes` bytes, lowest address first. `None`: there is no such memory. [`RasterWindow::follow`] has said that it may.
    #[inline]
    pub fn read(&self, link: &DeviceLink, address: u64, bytes: u32) -> Option<u32> {
        let (raster, memory) = (self.raster.as_ref()?, link.memory()?);
        let mut value = 0;
        let mut latch = 0;
        for n in 0..bytes {
            let at = (address - self.base) as u32 + n;
            latch = word(memory, raster.place(at))?;
            value |= u32::from(raster.read(latch)) << (8 * n);
        }
        link.raster().load_latch(latch);
        Some(value)
    }

    /// Writes likewise. False: there is no such memory.
    #[inline]
    pub fn write(&self, link: &DeviceLink, address: u64, bytes: u32, value: u32) -> bool {
        let (Some(raster), Some(memory)) = (self.raster.as_ref(), link.memory()) else { return false };
        let latch = link.raster().latch();
        (0..bytes).all(|n| {
            let place = raster.place((address - self.base) as u32 + n);
            let Some(old) = word(memory, place) else { return false };
            set_word(memory, place, raster.write(old, latch, (value >> (8 * n)) as u8));
            true
        })
    }
}

fn reaches(memory: &Segment, place: u64) -> bool {
    place.checked_add(LANES as u64).is_some_and(|end| end <= memory.len())
}

fn word(memory: &Segment, place: u64) -> Option<u32> {
    // SAFETY: the word lies inside the mapping; other processes may write meanwhile, which only mixes bytes.
    reaches(memory, place)
        .then(|| unsafe { memory.as_ptr().add(place as usize).cast::<u32>().read_unaligned() })
}

fn set_word(memory: &Segment, place: u64, word: u32) {
    if reaches(memory, place) {
        // SAFETY: as for `word`.
        unsafe { memory.as_ptr().add(place as usize).cast::<u32>().write_unaligned(word) };
    }
}
