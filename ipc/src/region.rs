//! The wire form of a region: what a device process tells the VMM that it answers for.
//!
//! Word 0: model (bits 0-7), region (8-15), space (16: 1 memory), width (24-31), writes (32-39:
//! 0 sync, 1 posted, 2 posted local, 3 joined), flags (40: enabled, 41: mirrored, 42: backed, 43: backing
//! writable, 44: raster, 45: counters, 46: tick register); word 1 base; word 2 length; word 3 first mirror cell (0-15); word 4 backing
//! offset; or words 3 and 4 a tick register; words 5-7 name.

use crate::link::{MIRROR_CELLS, REGION_WORDS};
use crate::tick_register::TickRegister;
use crate::width::Width;

/// How the bus treats writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Wait for the device.
    Sync = 0,
    /// Do not wait; other devices' accesses do.
    Posted = 1,
    /// Do not wait.
    PostedLocal = 2,
    /// As [`WritePolicy::PostedLocal`], and nobody cares when exactly each was made: those to one register that wait for the process
    /// are joined in one message.
    Joined = 3,
}

/// A region as the VMM sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Model number in the process.
    pub model: u8,
    /// The model's number of the region.
    pub region: u8,
    /// Memory, or else ports.
    pub is_memory: bool,
    /// Widest access.
    pub width: Width,
    /// Treatment of writes.
    pub writes: WritePolicy,
    /// Whether it decodes at present.
    pub enabled: bool,
    /// First mirror cell, when reads are answered from the mirror page.
    pub mirror: Option<u16>,
    /// Offset in device memory and whether guest writes go there, when it is direct memory.
    pub backing: Option<(u64, bool)>,
    /// The bus makes accesses by itself, as [`crate::raster`] says, while that is published.
    pub raster: bool,
    /// The bus latches and reads counters by itself, as [`crate::counter`] says, while they are stated.
    pub counters: bool,
    /// A register of it that the bus reads by itself. A region with one has no mirror cells and no direct memory.
    pub ticks: Option<TickRegister>,
    /// First port or physical address.
    pub base: u64,
    /// Ports or bytes.
    pub len: u64,
    /// Name for messages.
    pub name: String,
}

const SPACE_MEMORY: u64 = 1 << 16;
const ENABLED: u64 = 1 << 40;
const MIRRORED: u64 = 1 << 41;
const BACKED: u64 = 1 << 42;
const BACKING_WRITABLE: u64 = 1 << 43;
const RASTER: u64 = 1 << 44;
const COUNTERS: u64 = 1 << 45;
const TICKS: u64 = 1 << 46;
/// Longest region name, bytes.
const NAME_BYTES: usize = 24;

impl RegionInfo {
    /// The wire form.
    pub fn encode(&self) -> [u64; REGION_WORDS] {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let head = u64::from(self.model)
            | u64::from(self.region) << 8
            | flag(self.is_memory, SPACE_MEMORY)
            | (self.width as u64) << 24
            | (self.writes as u64) << 32
            | flag(self.enabled, ENABLED)
            | flag(self.mirror.is_some(), MIRRORED)
            | flag(self.backing.is_some(), BACKED)
            | flag(self.backing.is_some_and(|(_, writable)| writable), BACKING_WRITABLE)
            | flag(self.raster, RASTER)
            | flag(self.counters, COUNTERS)
            | flag(self.ticks.is_some(), TICKS);
        let mut name = [0; NAME_BYTES];
        let len = self.name.len().min(NAME_BYTES - 1);
        name[..len].copy_from_slice(&self.name.as_bytes()[..len]);
        let word = |i: usize| u64::from_le_bytes(name[i * 8..i * 8 + 8].try_into().unwrap_or_default());
        let [mirror, backing] = self.ticks.map_or_else(
            || [self.mirror.unwrap_or(0).into(), self.backing.map_or(0, |(offset, _)| offset)],
            |ticks| ticks.encode(),
        );
        [head, self.base, self.len, mirror, backing, word(0), word(1), word(2)]
    }

    /// Checks and decodes what a device process published. `memory_bytes` is the size of its
    /// device memory.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn decode(words: [u64; REGION_WORDS], memory_bytes: u64) -> Result<Self, String> {
        let head = words[0];
        let name: String = words[5..]
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .take_while(|b| *b != 0)
            .map(|b| if b.is_ascii_graphic() { char::from(b) } else { '?' })
            .collect();
        let wrong = |what: &str| Err(format!("region '{name}' at {:#x}..+{:#x}: {what}", words[1], words[2]));
        let width = match (head >> 24) as u8 {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return wrong("unknown width"),
        };
        let writes = match (head >> 32) as u8 {
            0 => WritePolicy::Sync,
            1 => WritePolicy::Posted,
            2 => WritePolicy::PostedLocal,
            3 => WritePolicy::Joined,
            _ => return wrong("unknown write policy"),
        };
        let is_memory = head & SPACE_MEMORY != 0;
        let (base, len) = (words[1], words[2]);
        let limit = if is_memory { 1 << 32 } else { 1 << 16 };
        if len == 0 || base >= limit || len > limit - base {
            return wrong("outside its address space");
        }
        let mirror = (head & MIRRORED != 0).then_some(words[3] as u16);
        if mirror.is_some_and(|first| words[3] > 0xffff || u64::from(first) + len > MIRROR_CELLS as u64) {
            return wrong("mirror cells outside the mirror page");
        }
        let backing = (head & BACKED != 0).then_some((words[4], head & BACKING_WRITABLE != 0));
        if let Some((offset, _)) = backing {
            let inside = offset.checked_add(len).is_some_and(|end| end <= memory_bytes);
            if !is_memory || !inside || offset % 4096 != 0 || base % 4096 != 0 {
                return wrong("its direct memory is not whole pages of the device memory");
            }
        }
        let ticks = (head & TICKS != 0).then(|| TickRegister::decode([words[3], words[4]], len));
        if ticks.is_some() && (mirror.is_some() || backing.is_some()) {
            return wrong("a tick register beside mirror cells or direct memory");
        }
        if ticks == Some(None) {
            return wrong("its tick register is outside, or has no speed or no bits");
        }
        Ok(Self {
            model: head as u8,
            region: (head >> 8) as u8,
            is_memory,
            width,
            writes,
            enabled: head & ENABLED != 0,
            mirror,
            backing,
            raster: is_memory && head & RASTER != 0,
            counters: head & COUNTERS != 0,
            ticks: ticks.flatten(),
            base,
            len,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_region_comes_back_as_it_went() {
        let region = RegionInfo {
            model: 3,
            region: 1,
            is_memory: true,
            width: Width::Dword,
            writes: WritePolicy::PostedLocal,
            enabled: true,
            mirror: None,
            backing: Some((0x10000, true)),
            raster: true,
            counters: true,
            ticks: None,
            base: 0xa0000,
            len: 0x10000,
            name: "vga-window".into(),
        };
        assert_eq!(RegionInfo::decode(region.encode(), 0x20000), Ok(region.clone()));
        assert!(RegionInfo::decode(region.encode(), 0x1ffff).is_err());
        let ticks = TickRegister { offset: 8, hz: 1000, bits: 24, zero: u64::MAX };
        let timer = RegionInfo { backing: None, ticks: Some(ticks), len: 12, ..region };
        assert_eq!(RegionInfo::decode(timer.encode(), 0), Ok(timer.clone()));
        assert!(RegionInfo::decode(RegionInfo { len: 11, ..timer.clone() }.encode(), 0).is_err());
        assert!(RegionInfo::decode(RegionInfo { mirror: Some(0), ..timer }.encode(), 0).is_err());
    }

    proptest! {
        #[test]
        fn hostile_tables_are_refused_or_in_bounds(words: [u64; REGION_WORDS], memory: u32) {
            if let Ok(region) = RegionInfo::decode(words, memory.into()) {
                prop_assert!(region.base + region.len <= 1 << 32);
                if let Some((offset, _)) = region.backing {
                    prop_assert!(offset + region.len <= u64::from(memory));
                }
            }
        }
    }
}
