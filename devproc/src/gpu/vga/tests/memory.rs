//! The graphics controller against a model that works plane by plane and bit by bit.

use super::super::memory::Pipeline;
use super::super::registers::Registers;
use super::super::spec::LEGACY_VRAM_LEN;
use proptest::prelude::*;

const WRAP: u32 = 0xffff;

/// One step of a random program.
#[derive(Clone, Copy, Debug)]
enum Step {
    Graphics(usize, u8),
    MapMask(u8),
    MemoryMode(u8),
    Write(u32, u8),
    Read(u32),
}

fn step() -> impl Strategy<Value = Step> {
    // A small range of addresses, so that reads meet what writes left.
    prop_oneof![
        (0..9_usize, any::<u8>()).prop_map(|(n, v)| Step::Graphics(n, v)),
        any::<u8>().prop_map(Step::MapMask),
        any::<u8>().prop_map(Step::MemoryMode),
        (0..24_u32, any::<u8>()).prop_map(|(a, v)| Step::Write(a, v)),
        (0..24_u32).prop_map(Step::Read),
    ]
}

/// The graphics controller as the IBM reference describes it, without any cleverness.
struct Reference {
    planes: [Vec<u8>; 4],
    latch: [u8; 4],
    graphics: [u8; 9],
    map_mask: u8,
    memory_mode: u8,
}

impl Reference {
    fn bit(value: u8, n: usize) -> u8 {
        value >> n & 1
    }

    /// Plane (or none: all) and offset that an address means.
    fn place(&self, address: u32, odd_even: bool) -> (Option<usize>, usize) {
        if self.memory_mode & 0x08 != 0 {
            return (Some(address as usize & 3), address as usize / 4);
        }
        let offset = if self.graphics[6] & 2 != 0 { address as usize & !1 } else { address as usize };
        (odd_even.then_some(address as usize & 1), offset)
    }

    fn write(&mut self, address: u32, value: u8) {
        let odd_even = self.memory_mode & 0x04 == 0;
        let chain_4 = self.memory_mode & 0x08 != 0;
        let (selected, offset) = self.place(address, odd_even);
        let g = self.graphics;
        let rotated = value.rotate_right(u32::from(g[3] & 7));
        for plane in 0..4 {
            let addressed = match selected {
                Some(n) if chain_4 => n == plane,
                Some(n) => n == plane % 2,
                None => true,
            };
            if !addressed || Self::bit(self.map_mask, plane) == 0 {
                continue;
            }
            let mut result = 0;
            for bit in 0..8 {
                let latch = Self::bit(self.latch[plane], bit);
                let (data, mask) = match g[5] & 3 {
                    0 if Self::bit(g[1], plane) == 1 => (Self::bit(g[0], plane), Self::bit(g[8], bit)),
                    0 => (Self::bit(rotated, bit), Self::bit(g[8], bit)),
                    1 => (latch, 0),
                    2 => (Self::bit(value, plane), Self::bit(g[8], bit)),
                    _ => (Self::bit(g[0], plane), Self::bit(g[8], bit) & Self::bit(rotated, bit)),
                };
                let data = match g[3] >> 3 & 3 {
                    0 => data,
                    1 => data & latch,
                    2 => data | latch,
                    _ => data ^ latch,
                };
                result |= (if mask == 1 { data } else { latch }) << bit;
            }
            self.planes[plane][offset] = result;
        }
    }

    fn read(&mut self, address: u32) -> u8 {
        let (selected, offset) = self.place(address, self.graphics[5] & 0x10 != 0);
        self.latch = [0, 1, 2, 3].map(|plane: usize| self.planes[plane][offset]);
        let chain_4 = self.memory_mode & 0x08 != 0;
        if chain_4 {
            return self.latch[selected.unwrap_or(0)];
        }
        if self.graphics[5] & 8 != 0 {
            let matches = |bit: usize| {
                (0..4).all(|plane| {
                    Self::bit(self.graphics[7], plane) == 0
                        || Self::bit(self.latch[plane], bit) == Self::bit(self.graphics[2], plane)
                })
            };
            return (0..8).fold(0, |value, bit| value | u8::from(matches(bit)) << bit);
        }
        let map = usize::from(self.graphics[4] & 3);
        self.latch[selected.map_or(map, |n| (map & 2) | n)]
    }
}

proptest! {
    #[test]
    fn every_write_and_read_mode_agrees_with_the_reference(steps in prop::collection::vec(step(), 1..120)) {
        let mut registers = Registers::power_on();
        let mut vram = vec![0; LEGACY_VRAM_LEN];
        let mut latch = 0;
        let mut reference = Reference {
            planes: [0, 1, 2, 3].map(|_| vec![0; 64]),
            latch: [0; 4],
            graphics: [0; 9],
            map_mask: 0,
            memory_mode: 0,
        };
        for step in steps {
            let pipeline = Pipeline::decode(&registers);
            match step {
                Step::Graphics(index, value) => {
                    registers.graphics_index = index as u8;
                    registers.write_graphics(value);
                    reference.graphics[index] = value;
                }
                Step::MapMask(value) => {
                    registers.sequencer_index = 2;
                    registers.write_sequencer(value);
                    reference.map_mask = value;
                }
                Step::MemoryMode(value) => {
                    registers.sequencer_index = 4;
                    registers.write_sequencer(value);
                    reference.memory_mode = value;
                }
                Step::Write(address, value) => {
                    pipeline.write(&mut vram, latch, address, WRAP, value);
                    reference.write(address, value);
                }
                Step::Read(address) => {
                    let (latched, value) = pipeline.read(&vram, address, WRAP);
                    latch = latched;
                    prop_assert_eq!(value, reference.read(address));
                    prop_assert_eq!(latch.to_le_bytes(), reference.latch);
                }
            }
        }
        for (n, byte) in vram[..4 * 64].iter().enumerate() {
            prop_assert_eq!(*byte, reference.planes[n % 4][n / 4], "plane {} byte {}", n % 4, n / 4);
        }
    }
}
