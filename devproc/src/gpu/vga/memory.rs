//! The graphics controller's path between the CPU and the four planes: addressing, latches,
//! write modes 0-3 and read modes 0-1.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Graphics Controller Registers" and
//! "Sequencer Registers" (memory mode). The planes are interleaved: byte `4 * n + p` of the
//! display memory is byte `n` of plane `p`, so one 32-bit word holds one byte of every plane and
//! all four are worked on at once. In chain 4 the CPU's address bits 0-1 select the plane and
//! the rest the byte, which makes chain-4 memory linear; the IBM part leaves three of four bytes
//! of each plane unused instead, which no program can tell without leaving chain 4.

use super::registers::Registers;
use super::spec::{PLANES, graphics, sequencer};
use ipc::raster::{Look, Raster, expand};

/// One byte of each plane; plane 0 in bits 0-7.
pub(crate) type PlaneWord = u32;

/// Repeats a byte for each plane.
const EVERY_PLANE: PlaneWord = 0x0101_0101;
/// Planes 0 and 2, as a mask of planes: even addresses.
const EVEN_PLANES: u8 = 0b0101;

/// The write mode in which the CPU's byte is a color.
const WRITE_COLOR: u8 = 2;

/// Logical operation between CPU data and latches (function select).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Replace,
    And,
    Or,
    Xor,
}

/// How CPU addresses select planes, for writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressing {
    Planar,
    OddEven,
    Chain4,
}

/// The graphics controller as programmed, in the form that accesses need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pipeline {
    writes: Addressing,
    reads: Addressing,
    /// Address bit 0 selects the plane and does not reach the memory.
    drop_bit_0: bool,
    write_mode: u8,
    compare: bool,
    rotate: u32,
    function: Function,
    map_mask: u8,
    set_reset: PlaneWord,
    enable_set_reset: PlaneWord,
    bit_mask: u8,
    read_map: u8,
    color_compare: PlaneWord,
    color_care: PlaneWord,
}

impl Pipeline {
    /// Decodes the registers.
    pub fn decode(registers: &Registers) -> Self {
        let g = &registers.graphics;
        let memory_mode = registers.sequencer[sequencer::MEMORY_MODE];
        let mode = g[graphics::MODE];
        let chain_4 = memory_mode & sequencer::CHAIN_4 != 0;
        let writes = match memory_mode & sequencer::SEQUENTIAL != 0 {
            _ if chain_4 => Addressing::Chain4,
            true => Addressing::Planar,
            false => Addressing::OddEven,
        };
        let reads = match mode & graphics::ODD_EVEN != 0 {
            _ if chain_4 => Addressing::Chain4,
            true => Addressing::OddEven,
            false => Addressing::Planar,
        };
        Self {
            writes,
            reads,
            drop_bit_0: g[graphics::MISCELLANEOUS] & graphics::CHAIN_ODD_EVEN != 0,
            write_mode: mode & graphics::WRITE_MODE_MASK,
            compare: mode & graphics::READ_MODE_1 != 0,
            rotate: u32::from(g[graphics::DATA_ROTATE] & graphics::ROTATE_MASK),
            function: match g[graphics::DATA_ROTATE] >> graphics::FUNCTION_SHIFT & 0b11 {
                0 => Function::Replace,
                1 => Function::And,
                2 => Function::Or,
                _ => Function::Xor,
            },
            map_mask: registers.sequencer[sequencer::MAP_MASK],
            set_reset: expand(g[graphics::SET_RESET]),
            enable_set_reset: expand(g[graphics::ENABLE_SET_RESET]),
            bit_mask: g[graphics::BIT_MASK],
            read_map: g[graphics::READ_MAP_SELECT],
            color_compare: expand(g[graphics::COLOR_COMPARE]),
            color_care: expand(g[graphics::COLOR_DONT_CARE]),
        }
    }

    /// Whether a CPU byte goes to memory as it is, and is read back as it is: no rotation, set/reset,
    /// logical operation, bit mask, or comparison.
    pub fn transparent(&self) -> bool {
        self.write_mode == 0
            && !self.compare
            && self.rotate == 0
            && self.function == Function::Replace
            && self.bit_mask == u8::MAX
    }

    /// Whether the window is plain linear memory: chain 4 with nothing in the way.
    pub fn linear(&self) -> bool {
        let all_planes = (1 << PLANES) - 1;
        self.writes == Addressing::Chain4
            && self.transparent()
            && self.enable_set_reset == 0
            && self.map_mask == all_planes
    }

    /// Whether the window is plain text memory: even addresses in plane 0, odd ones in plane 1.
    pub fn plain_text(&self) -> bool {
        self.writes == Addressing::OddEven
            && self.reads == Addressing::OddEven
            && self.drop_bit_0
            && self.transparent()
            && self.enable_set_reset & expand(0b0011) == 0
            && self.map_mask == 0b0011
            && self.read_map & 0b10 == 0
    }

    /// The byte of a plane that a CPU address reaches.
    fn plane_offset(&self, addressing: Addressing, address: u32) -> u32 {
        match addressing {
            Addressing::Chain4 => address >> 2,
            _ if self.drop_bit_0 => address & !1,
            _ => address,
        }
    }

    /// A CPU write of one byte. `wrap` is the plane length minus one (a mask).
    #[inline]
    pub fn write(&self, vram: &mut [u8], latch: PlaneWord, address: u32, wrap: u32, value: u8) {
        let planes = match self.writes {
            Addressing::Planar => self.map_mask,
            Addressing::OddEven => self.map_mask & (EVEN_PLANES << (address & 1)),
            Addressing::Chain4 => self.map_mask & (1 << (address & 0b11)),
        };
        let at = PLANES * (self.plane_offset(self.writes, address) & wrap) as usize;
        let Some(bytes) = vram.get_mut(at..at + PLANES).and_then(|b| <&mut [u8; PLANES]>::try_from(b).ok())
        else {
            return;
        };
        let data = self.combine(latch, value);
        let mask = expand(planes);
        *bytes = ((u32::from_le_bytes(*bytes) & !mask) | (data & mask)).to_le_bytes();
    }

    /// What the write mode makes of CPU data and latches.
    #[inline]
    fn combine(&self, latch: PlaneWord, value: u8) -> PlaneWord {
        let rotated = value.rotate_right(self.rotate);
        let (data, bit_mask) = match self.write_mode {
            0 => {
                let data = u32::from(rotated) * EVERY_PLANE;
                let data = (data & !self.enable_set_reset) | (self.set_reset & self.enable_set_reset);
                (data, self.bit_mask)
            }
            1 => return latch,
            WRITE_COLOR => (expand(value), self.bit_mask),
            _ => (self.set_reset, self.bit_mask & rotated),
        };
        let data = match self.function {
            Function::Replace => data,
            Function::And => data & latch,
            Function::Or => data | latch,
            Function::Xor => data ^ latch,
        };
        let mask = u32::from(bit_mask) * EVERY_PLANE;
        (data & mask) | (latch & !mask)
    }

    /// The same for whoever makes accesses in the adapter's place; `None` when they are of a kind that it cannot make. `first` is
    /// the address of the first byte, `wrap` as for [`Pipeline::write`].
    pub fn raster(&self, first: u32, wrap: u32) -> Option<Raster> {
        if self.writes != Addressing::Planar || self.reads != Addressing::Planar || self.drop_bit_0 {
            return None;
        }
        let all = |bits: bool| if bits { PlaneWord::MAX } else { 0 };
        Some(Raster {
            function: Raster::function(|cpu, latch| self.combine(all(latch), all(cpu) as u8)),
            enabled: expand(self.map_mask),
            expands: self.write_mode == WRITE_COLOR,
            rotate: self.rotate as u8,
            look: if self.compare {
                Look::Compare { color: self.color_compare, care: self.color_care }
            } else {
                Look::Lane(self.read_map)
            },
            first,
            wrap,
            offset: 0,
        })
    }

    /// A CPU read of one byte; gives what the latches hold afterwards, and the value.
    #[inline]
    pub fn read(&self, vram: &[u8], address: u32, wrap: u32) -> (PlaneWord, u8) {
        let at = PLANES * (self.plane_offset(self.reads, address) & wrap) as usize;
        let bytes = vram.get(at..at + PLANES).and_then(|b| <[u8; PLANES]>::try_from(b).ok());
        let bytes = bytes.unwrap_or_default();
        let latch = u32::from_le_bytes(bytes);
        if self.compare && self.reads != Addressing::Chain4 {
            let differs = (latch ^ self.color_compare) & self.color_care;
            let any = differs.to_le_bytes().into_iter().fold(0, |all, plane| all | plane);
            return (latch, !any);
        }
        let plane = match self.reads {
            Addressing::Planar => self.read_map,
            Addressing::OddEven => (self.read_map & 0b10) | (address & 1) as u8,
            Addressing::Chain4 => (address & 0b11) as u8,
        };
        (latch, bytes[usize::from(plane % PLANES as u8)])
    }
}
