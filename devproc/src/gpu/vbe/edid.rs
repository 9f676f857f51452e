//! What the connected monitor says of itself.
//!
//! Source: VESA Enhanced EDID Standard, release A (EDID 1.4 structure), section 3.

/// Bytes of the EDID area: one base block, the rest zero.
pub(crate) const EDID_LEN: usize = 256;
/// Bytes of a block; its sum is zero.
const BLOCK_LEN: usize = 128;

/// The fixed pattern that an EDID starts with.
const HEADER: [u8; 8] = [0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];
/// Three letters of five bits.
const MANUFACTURER: [u8; 3] = *b"VMS";
const PRODUCT_CODE: u16 = 1;
/// Years are counted from 1990.
const YEAR_OF_MANUFACTURE: u8 = 2000_u16.wrapping_sub(1990) as u8;
/// Version 1, revision 4.
const VERSION: [u8; 2] = [1, 4];
/// Digital input, 8 bits per colour, interface not defined.
const VIDEO_INPUT: u8 = 0xa0;
/// Size in centimetres, 4:3.
const SIZE_CM: [u8; 2] = [30, 23];
/// Gamma 2.2, stored as (gamma * 100) - 100.
const GAMMA: u8 = 120;
/// sRGB default colour space; the first detailed timing is the native one.
const FEATURES: u8 = 0x06;
/// Chromaticity coordinates of sRGB.
const CHROMATICITY: [u8; 10] = [0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54];
/// Established timings: 640x480, 800x600 (60 Hz) and 1024x768 (60 Hz).
const ESTABLISHED: [u8; 3] = [0x21, 0x08, 0x00];
/// Standard timings at 60 Hz, (width / 8 - 31, aspect): 1280x1024, 1152x864, 1280x960, 1600x1200.
const STANDARD: [[u8; 2]; 4] = [[0x81, 0x80], [0x71, 0x40], [0x81, 0x40], [0xa9, 0x40]];
/// An unused standard timing.
const STANDARD_UNUSED: [u8; 2] = [0x01, 0x01];

/// VESA 1024x768 at 60 Hz: 65 MHz; active, blanking, sync offset and sync width of both directions.
const PREFERRED: Timing = Timing {
    clock_10_khz: 6500,
    horizontal: [1024, 320, 24, 136],
    vertical: [768, 38, 3, 6],
    size_mm: [304, 228],
};
/// Separate digital syncs, both negative.
const TIMING_FLAGS: u8 = 0x18;
/// Display range limits: 50-75 Hz, 30-80 kHz, 170 MHz, no secondary timing.
const RANGE_LIMITS: [u8; 18] =
    [0, 0, 0, 0xfd, 0, 50, 75, 30, 80, 17, 0x00, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20];
/// Display product name.
const NAME: [u8; 18] = *b"\0\0\0\xfc\0VMSim\n       ";
/// Unused descriptor.
const UNUSED: [u8; 18] = [0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

struct Timing {
    clock_10_khz: u16,
    horizontal: [u16; 4],
    vertical: [u16; 4],
    size_mm: [u16; 2],
}

impl Timing {
    fn descriptor(&self) -> [u8; 18] {
        let [h_active, h_blank, h_offset, h_width] = self.horizontal;
        let [v_active, v_blank, v_offset, v_width] = self.vertical;
        let [width, height] = self.size_mm;
        let low = |value: u16| value as u8;
        let nibbles = |high: u16, low: u16| ((high >> 8 & 0x0f) << 4 | (low >> 8 & 0x0f)) as u8;
        let [clock_low, clock_high] = self.clock_10_khz.to_le_bytes();
        [
            clock_low,
            clock_high,
            low(h_active),
            low(h_blank),
            nibbles(h_active, h_blank),
            low(v_active),
            low(v_blank),
            nibbles(v_active, v_blank),
            low(h_offset),
            low(h_width),
            low((v_offset & 0x0f) << 4 | (v_width & 0x0f)),
            low((h_offset >> 8 & 0b11) << 6 | (h_width >> 8 & 0b11) << 4 | (v_offset >> 4 & 0b11) << 2)
                | low(v_width >> 4 & 0b11),
            low(width),
            low(height),
            nibbles(width, height),
            0,
            0,
            TIMING_FLAGS,
        ]
    }
}

/// The EDID area.
pub(crate) fn edid() -> [u8; EDID_LEN] {
    let letter = |byte: u8| u16::from(byte - b'A' + 1);
    let [a, b, c] = MANUFACTURER;
    let mut block = Vec::with_capacity(BLOCK_LEN);
    block.extend(HEADER);
    block.extend((letter(a) << 10 | letter(b) << 5 | letter(c)).to_be_bytes());
    block.extend(PRODUCT_CODE.to_le_bytes());
    block.extend([0; 4]); // serial number: none
    block.extend([0, YEAR_OF_MANUFACTURE]);
    block.extend(VERSION);
    block.push(VIDEO_INPUT);
    block.extend(SIZE_CM);
    block.push(GAMMA);
    block.push(FEATURES);
    block.extend(CHROMATICITY);
    block.extend(ESTABLISHED);
    block.extend(STANDARD.as_flattened());
    block.extend([STANDARD_UNUSED; 4].as_flattened());
    block.extend(PREFERRED.descriptor());
    block.extend(RANGE_LIMITS);
    block.extend(NAME);
    block.extend(UNUSED);
    block.push(0); // extension blocks
    let sum = block.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    block.push(sum.wrapping_neg());
    let mut area = [0; EDID_LEN];
    for (to, from) in area.iter_mut().zip(block) {
        *to = from;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_complete_and_sums_to_zero() {
        let area = edid();
        let (block, rest) = area.split_at(BLOCK_LEN);
        assert_eq!(block.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(block[..8], HEADER);
        assert_ne!(block[BLOCK_LEN - 1], 0, "the checksum byte is the last one");
        assert!(rest.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_preferred_timing_is_the_vesa_one() {
        let area = edid();
        let expected = [0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00];
        assert_eq!(area[54..66], expected);
    }
}
