//! Memory of four lanes behind a latch: how the bus makes accesses to it without asking the device.
//!
//! A word of such memory has a byte for each lane. A read of one byte loads a word into the latch and gives one lane of it, or
//! compares all; a write combines CPU byte, latch and word, bit by bit. Which combination is the device's to say: any function of a
//! bit of the CPU's byte and a bit of the latch is `k0 ^ k1 & cpu ^ k2 & latch ^ k3 & cpu & latch`, so four masks name it for all
//! 32 bits at once. This module knows that arithmetic and how it travels, and no device's registers.

use crate::sync::{AtomicU64, Ordering};

/// Lanes of a word.
pub const LANES: usize = 4;
/// Words in which a raster is published.
const WORDS: usize = 6;
/// Repeats a byte for each lane.
const EVERY_LANE: u32 = 0x0101_0101;

const VALID: u64 = 1 << 0;
const EXPANDS: u64 = 1 << 1;
const COMPARES: u64 = 1 << 2;
const ROTATE_SHIFT: u32 = 8;
const LANE_SHIFT: u32 = 16;

/// Makes FFh of each set bit of a lane field, 0 of each clear bit.
#[inline]
pub const fn expand(lanes: u8) -> u32 {
    // Multiplying spreads the four bits to the low bit of each byte (bit n to bit 8n).
    let spread = (lanes as u32 & 0x0f).wrapping_mul(0x0020_4081) & EVERY_LANE;
    spread * 0xff
}

/// What a read of one byte gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// One lane.
    Lane(u8),
    /// For each bit, whether the lanes in `care` are those of `color`.
    Compare {
        /// What is looked for.
        color: u32,
        /// Lanes that count.
        care: u32,
    },
}

/// How accesses are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raster {
    /// `k0` to `k3`.
    pub function: [u32; 4],
    /// Bits of a word that a write changes.
    pub enabled: u32,
    /// The CPU's byte is not repeated in all lanes, but its four low bits are lanes.
    pub expands: bool,
    /// Bits by which the CPU's byte is rotated right before it is repeated.
    pub rotate: u8,
    /// What reads give.
    pub look: Look,
    /// Word of the region's first byte.
    pub first: u32,
    /// Words wrap round at this mask.
    pub wrap: u32,
    /// Where the words begin in the device memory.
    pub offset: u64,
}

impl Raster {
    /// The masks of a function of the CPU's bits and the latch's, given as what it makes of all zeros and all ones.
    pub fn function(make: impl Fn(bool, bool) -> u32) -> [u32; 4] {
        let (none, cpu, latch, both) =
            (make(false, false), make(true, false), make(false, true), make(true, true));
        [none, none ^ cpu, none ^ latch, none ^ cpu ^ latch ^ both]
    }

    /// Where in the device memory the word is that byte `at` of the region stands for.
    #[inline]
    pub fn place(&self, at: u32) -> u64 {
        let word = self.first.wrapping_add(at) & self.wrap;
        self.offset.saturating_add(LANES as u64 * u64::from(word))
    }

    /// What a write of `byte` makes of `word`.
    #[inline]
    pub fn write(&self, word: u32, latch: u32, byte: u8) -> u32 {
        let cpu = if self.expands {
            expand(byte)
        } else {
            u32::from(byte.rotate_right(self.rotate.into())) * EVERY_LANE
        };
        let [k0, k1, k2, k3] = self.function;
        let data = k0 ^ k1 & cpu ^ k2 & latch ^ k3 & cpu & latch;
        word & !self.enabled | data & self.enabled
    }

    /// What a read gives once the latch holds `latch`.
    #[inline]
    pub fn read(&self, latch: u32) -> u8 {
        match self.look {
            Look::Lane(lane) => latch.to_le_bytes()[usize::from(lane) % LANES],
            Look::Compare { color, care } => {
                let differs = (latch ^ color) & care;
                !differs.to_le_bytes().into_iter().fold(0, |all, lane| all | lane)
            }
        }
    }

    fn encode(&self) -> [u64; WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [k0, k1, k2, k3] = self.function;
        let (lane, color, care, compares) = match self.look {
            Look::Lane(lane) => (lane, 0, 0, 0),
            Look::Compare { color, care } => (0, color, care, COMPARES),
        };
        let kind = VALID
            | if self.expands { EXPANDS } else { 0 }
            | compares
            | u64::from(self.rotate) << ROTATE_SHIFT
            | u64::from(lane) << LANE_SHIFT;
        [
            kind | u64::from(self.enabled) << 32,
            pair(k0, k1),
            pair(k2, k3),
            pair(color, care),
            pair(self.first, self.wrap),
            self.offset,
        ]
    }

    fn decode(words: [u64; WORDS]) -> Option<Self> {
        let pair = |word: u64| (word as u32, (word >> 32) as u32);
        let (kind, enabled) = (words[0], (words[0] >> 32) as u32);
        let ((k0, k1), (k2, k3), (color, care)) = (pair(words[1]), pair(words[2]), pair(words[3]));
        let (first, wrap) = pair(words[4]);
        (kind & VALID != 0).then(|| Self {
            function: [k0, k1, k2, k3],
            enabled,
            expands: kind & EXPANDS != 0,
            rotate: (kind >> ROTATE_SHIFT) as u8 & 7,
            look: if kind & COMPARES != 0 {
                Look::Compare { color, care }
            } else {
                Look::Lane((kind >> LANE_SHIFT) as u8)
            },
            first,
            wrap,
            offset: words[5],
        })
    }
}

/// Bit of [`RasterCell::latch`]: the bus put it there.
const BY_BUS: u64 = 1 << 32;

/// A device process's raster, as it stands in the link.
#[repr(C)]
pub struct RasterCell {
    /// Counts publications.
    generation: AtomicU64,
    words: [AtomicU64; WORDS],
    /// Bits 0-31 the latch; bit 32: the bus loaded it, and the device has yet to take notice.
    latch: AtomicU64,
}

impl RasterCell {
    /// Publishes how accesses are made from now on; `None`: by asking. Device side, while it handles an access: the bus looks
    /// when none is under way.
    pub fn publish(&self, raster: Option<&Raster>) {
        let words = raster.map_or([0; WORDS], Raster::encode);
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        // One writer. Seen with the end of the access at the latest (SYNC POINT head).
        self.generation.store(self.generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Changes with each publication.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How accesses are made.
    pub fn raster(&self) -> Option<Raster> {
        Raster::decode(std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed)))
    }

    /// What the latch holds.
    #[inline]
    pub fn latch(&self) -> u32 {
        self.latch.load(Ordering::Relaxed) as u32
    }

    /// The device loaded the latch.
    pub fn set_latch(&self, latch: u32) {
        self.latch.store(latch.into(), Ordering::Relaxed);
    }

    /// The bus loaded the latch in the device's place.
    #[inline]
    pub fn load_latch(&self, latch: u32) {
        self.latch.store(BY_BUS | u64::from(latch), Ordering::Relaxed);
    }

    /// What the bus loaded into the latch, if it was the last to do so. For the device, before it handles an access (SYNC POINT
    /// tail).
    #[inline]
    pub fn loaded_by_bus(&self) -> Option<u32> {
        let latch = self.latch.load(Ordering::Relaxed);
        (latch & BY_BUS != 0).then_some(latch as u32)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn four_masks_name_any_function_of_two_bits(table in any::<u8>(), byte in any::<u8>(), latch in any::<u32>(), word in any::<u32>()) {
            let truth = |cpu: bool, latch: bool| table >> (2 * u8::from(cpu) + u8::from(latch)) & 1 != 0;
            let function = Raster::function(|cpu, latch| if truth(cpu, latch) { u32::MAX } else { 0 });
            let raster = Raster {
                function,
                enabled: 0xff00_ffff,
                expands: false,
                rotate: 0,
                look: Look::Lane(0),
                first: 0,
                wrap: 0xffff,
                offset: 0,
            };
            let made = raster.write(word, latch, byte);
            prop_assert_eq!(made & 0x00ff_0000, word & 0x00ff_0000);
            for bit in (0..32).filter(|bit| !(16..24).contains(bit)) {
                let cpu = byte >> (bit % 8) & 1 != 0;
                prop_assert_eq!(made >> bit & 1 != 0, truth(cpu, latch >> bit & 1 != 0));
            }
        }

        #[test]
        fn it_comes_back_as_it_was_published(k in any::<[u32; 4]>(), a in any::<u32>(), b in any::<u32>(), rotate in 0u8..8, lane in 0u8..4, flags in any::<[bool; 2]>()) {
            let look = if flags[1] { Look::Compare { color: a, care: b } } else { Look::Lane(lane) };
            let raster = Raster {
                function: k,
                enabled: b,
                expands: flags[0],
                rotate,
                look,
                first: a,
                wrap: b,
                offset: u64::from(a) << 12,
            };
            prop_assert_eq!(Raster::decode(raster.encode()), Some(raster));
            prop_assert_eq!(Raster::decode([0; WORDS]), None);
        }
    }
}
