//! Which region answers for a port or a physical address, and what can be reached directly.
//!
//! Memory, by priority: RAM where the shadow switches or the address say so, then regions in
//! the order of their links. Direct memory is granted by whole pages.

#![expect(unsafe_code)] // Direct memory is raw pointers into mappings shared with other processes.

use super::{BusRegion, DeviceLink};
use crate::cpu::bus::{PAGE_SIZE, PageGrant};
use ipc::board::{SHADOW_BASE, SHADOW_PAGES, SHADOW_READ, SHADOW_WRITE};
use ipc::segment::Segment;
use ipc::width::Width;
use std::ptr::NonNull;

const NO_REGION: u16 = u16::MAX;
const PORTS: usize = 1 << 16;
const SHADOW_AREA: std::ops::Range<u64> =
    SHADOW_BASE as u64..SHADOW_BASE as u64 + SHADOW_PAGES as u64 * PAGE_SIZE;

/// The map of both address spaces.
pub struct MemoryMap {
    ram: Segment,
    regions: Vec<BusRegion>,
    ports: Box<[u16]>,
    /// Indices of memory regions, in order of priority.
    memory: Vec<u16>,
}

impl MemoryMap {
    /// A map with RAM only.
    pub fn new(ram: Segment) -> Self {
        Self { ram, regions: Vec::new(), ports: vec![NO_REGION; PORTS].into(), memory: Vec::new() }
    }

    /// Takes the regions of all links. Where two claim a port, the first keeps it.
    pub fn set_regions(&mut self, regions: Vec<BusRegion>) {
        self.regions = regions;
        self.ports.fill(NO_REGION);
        self.memory.clear();
        for (index, region) in self.regions.iter().enumerate().filter(|(_, r)| r.info.enabled) {
            if region.info.is_memory {
                self.memory.push(index as u16);
                continue;
            }
            for port in region.info.base..region.info.base + region.info.len {
                let cell = &mut self.ports[port as usize];
                if *cell == NO_REGION {
                    *cell = index as u16;
                } else {
                    let owner = &self.regions[usize::from(*cell)].info.name;
                    tracing::debug!("Port {port:#x} of '{}' belongs to '{owner}' already", region.info.name);
                }
            }
        }
    }

    /// A region by its number here.
    pub fn region(&self, slot: usize) -> &BusRegion {
        &self.regions[slot]
    }

    /// Who answers for a port.
    #[inline]
    pub fn port(&self, port: u16) -> Option<usize> {
        let index = self.ports[usize::from(port)];
        (index != NO_REGION).then_some(index.into())
    }

    /// Which region answers for a physical address.
    pub fn memory(&self, address: u64) -> Option<usize> {
        let hit = |index: &&u16| {
            let info = &self.regions[usize::from(**index)].info;
            address >= info.base && address - info.base < info.len
        };
        self.memory.iter().find(hit).map(|index| usize::from(*index))
    }

    /// Whether there is RAM chip behind the address (whatever the shadow switches say).
    pub fn is_ram(&self, address: u64) -> bool {
        address < self.ram.len()
    }

    /// Bytes of RAM.
    pub fn ram_len(&self) -> u64 {
        self.ram.len()
    }

    fn ram_at(&self, address: u64) -> Option<NonNull<u8>> {
        if address >= self.ram.len() {
            return None;
        }
        // SAFETY: the offset lies inside the mapping.
        NonNull::new(unsafe { self.ram.as_ptr().add(address as usize) })
    }

    /// Where the byte at `address` is read from and written to directly; `page_end` is the first
    /// address that must not be reached through the same pointers.
    fn direct(&self, address: u64, shadow: u32, links: &[DeviceLink]) -> Direct {
        if !SHADOW_AREA.contains(&address) {
            let ram = self.ram_at(address);
            if ram.is_some() {
                return Direct { read: ram, write: ram, constant: true };
            }
        }
        let mut direct = self.behind_ram(address, links);
        if shadow & SHADOW_READ != 0 {
            direct.read = self.ram_at(address);
            direct.constant = true;
        }
        if shadow & SHADOW_WRITE != 0 {
            direct.write = self.ram_at(address);
            // Writes that do not reach what is read (copying a ROM onto its own shadow) make no
            // difference to code decoded from the ROM.
        } else if shadow & SHADOW_READ != 0 {
            // Write-protected shadow RAM: writes go to what lies behind, not to RAM.
            direct.write = None;
        }
        direct
    }

    fn behind_ram(&self, address: u64, links: &[DeviceLink]) -> Direct {
        let Some(slot) = self.memory(address) else { return Direct::default() };
        let BusRegion { link, info } = &self.regions[slot];
        let page = address & !(PAGE_SIZE - 1);
        let whole_page = info.base <= page && page + PAGE_SIZE <= info.base + info.len;
        let (Some((offset, writable)), true, Some(memory)) =
            (info.backing, whole_page, links[*link].memory())
        else {
            return Direct::default();
        };
        let inside = offset + (address - info.base);
        // `RegionInfo::decode` checked the backing against the mapping; this is cheap and certain.
        if inside - (address - page) + PAGE_SIZE > memory.len() {
            return Direct::default();
        }
        // SAFETY: the offset was just checked to lie inside the mapping.
        let pointer = NonNull::new(unsafe { memory.as_ptr().add(inside as usize) });
        Direct { read: pointer, write: pointer.filter(|_| writable), constant: !writable }
    }

    /// How the CPU may reach the page at `address`.
    pub fn page(&self, address: u64, shadow: u32, links: &[DeviceLink]) -> PageGrant {
        let direct = self.direct(address & !(PAGE_SIZE - 1), shadow, links);
        PageGrant {
            read: direct.read,
            write: direct.write,
            cacheable_code: direct.constant && direct.read.is_some(),
        }
    }

    /// Reads directly, if the address allows it. The access lies within one page.
    pub fn read_direct(&self, address: u64, width: Width, shadow: u32, links: &[DeviceLink]) -> Option<u32> {
        let pointer = self.direct(address, shadow, links).read?;
        let mut bytes = [0; 4];
        // SAFETY: `direct` grants whole pages and the access does not leave its page (contract of
        // `Bus`); other processes may write meanwhile, which only mixes bytes.
        unsafe { pointer.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), width.bytes() as usize) };
        Some(u32::from_le_bytes(bytes))
    }

    /// Writes directly; false when the address does not allow it. The access lies within one page.
    pub fn write_direct(
        &self,
        address: u64,
        width: Width,
        value: u32,
        shadow: u32,
        links: &[DeviceLink],
    ) -> bool {
        let Some(pointer) = self.direct(address, shadow, links).write else { return false };
        let bytes = value.to_le_bytes();
        // SAFETY: as for `read_direct`.
        unsafe { pointer.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), width.bytes() as usize) };
        true
    }
}

/// Where one byte can be reached.
#[derive(Clone, Copy, Default)]
struct Direct {
    read: Option<NonNull<u8>>,
    write: Option<NonNull<u8>>,
    /// What is read changes only through the CPU or through reported DMA.
    constant: bool,
}
