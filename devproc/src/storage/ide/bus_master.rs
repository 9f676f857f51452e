//! The bus master function (82371AB section 5.2; SFF-8038i "Programming Interface for Bus Master
//! IDE Controller").
//!
//! A transfer runs when a DMA command is pending in the selected drive, the start bit is set
//! and the command register lets the function master the bus. It then runs to its end within
//! that one access; the descriptor table is read from its beginning, so running the access
//! again after a crash moves the same sectors to the same places.

use super::Ide;
use super::spec::{bus_master as bm, pci};
use super::state::{BusMaster, Kind, part};
use crate::device::Width;
use crate::host::Host;
use crate::pci::command;
use crate::storage::image::SECTOR_BYTES;

/// What is left of a descriptor table.
struct Descriptors {
    next: u64,
    address: u64,
    left: usize,
    ended: bool,
    /// Nobody answered where the table, or what it names, is.
    aborted: bool,
}

impl Descriptors {
    fn new(table: u32) -> Self {
        Self { next: u64::from(table & bm::TABLE_MASK), address: 0, left: 0, ended: false, aborted: false }
    }

    /// The next piece of at most `wanted` bytes; `None` when the table has ended or is not in RAM.
    fn take(&mut self, wanted: usize, host: &mut dyn Host) -> Option<(u64, usize)> {
        if self.left == 0 {
            if self.ended {
                return None;
            }
            let mut descriptor = [0; bm::DESCRIPTOR_BYTES as usize];
            if host.dma_read(self.next, &mut descriptor).is_err() {
                self.aborted = true;
                return None;
            }
            let [a0, a1, a2, a3, c0, c1, _, flags] = descriptor;
            self.next += bm::DESCRIPTOR_BYTES;
            self.address = u64::from(u32::from_le_bytes([a0 & !1, a1, a2, a3]));
            let count = usize::from(u16::from_le_bytes([c0 & !1, c1]));
            self.left = if count == 0 { bm::MAX_REGION } else { count };
            self.ended = u32::from(flags) << 24 & bm::END_OF_TABLE != 0;
        }
        let now = self.left.min(wanted);
        let at = self.address;
        self.address += now as u64;
        self.left -= now;
        Some((at, now))
    }

    /// Moves one sector between `sector` and memory; false when there is no room for all of it.
    fn transfer(&mut self, sector: &mut [u8], to_memory: bool, host: &mut dyn Host) -> bool {
        let mut rest = sector;
        while !rest.is_empty() {
            let Some((address, count)) = self.take(rest.len(), host) else { return false };
            let (now, later) = rest.split_at_mut(count);
            let outcome = if to_memory { host.dma_write(address, now) } else { host.dma_read(address, now) };
            if outcome.is_err() {
                self.aborted = true;
                return false;
            }
            rest = later;
        }
        true
    }

    /// Whether every byte of the table has been used.
    fn exhausted(&self) -> bool {
        self.ended && self.left == 0
    }
}

impl Ide {
    pub(super) fn read_bus_master(&self, offset: u64, width: Width) -> u32 {
        let mut value = 0;
        for i in 0..width.bytes() {
            value |= u32::from(self.bus_master_byte(offset + u64::from(i))) << (8 * i);
        }
        value
    }

    fn bus_master_byte(&self, offset: u64) -> u8 {
        let Some(channel) = self.channels.get((offset / bm::CHANNEL_PORTS) as usize) else { return 0 };
        let BusMaster { command, status, table } = channel.bus_master;
        match offset % bm::CHANNEL_PORTS {
            bm::COMMAND => command,
            bm::STATUS => status,
            at @ bm::TABLE.. => table.to_le_bytes()[(at - bm::TABLE) as usize],
            _ => 0,
        }
    }

    pub(super) fn write_bus_master(&mut self, offset: u64, width: Width, value: u32, host: &mut dyn Host) {
        for (i, byte) in (0..width.bytes()).zip(value.to_le_bytes()) {
            self.write_bus_master_byte(offset + u64::from(i), byte, host);
        }
    }

    fn write_bus_master_byte(&mut self, offset: u64, value: u8, host: &mut dyn Host) {
        let index = (offset / bm::CHANNEL_PORTS) as usize;
        let Some(channel) = self.channels.get_mut(index) else { return };
        self.changed |= part::bus_master(index);
        let registers = &mut channel.bus_master;
        match offset % bm::CHANNEL_PORTS {
            bm::COMMAND => {
                let before = registers.command;
                registers.command = value & (bm::RWCON | bm::SSBM);
                let started = before & bm::SSBM == 0 && value & bm::SSBM != 0;
                if started {
                    registers.status |= bm::BMIDEA;
                } else if value & bm::SSBM == 0 {
                    registers.status &= !bm::BMIDEA;
                }
                self.run_bus_master(index, host);
            }
            bm::STATUS => {
                let kept = registers.status & !bm::DMA_CAPABLE & !(value & (bm::IDEINTS | bm::DMA_ERROR));
                registers.status = kept | value & bm::DMA_CAPABLE;
            }
            at @ bm::TABLE.. => {
                let mut bytes = registers.table.to_le_bytes();
                bytes[(at - bm::TABLE) as usize] = value;
                registers.table = u32::from_le_bytes(bytes) & bm::TABLE_MASK;
            }
            _ => {}
        }
        self.publish(index, host);
    }

    /// Runs the pending DMA command of the channel, if all it waits for is there.
    pub(super) fn run_bus_master(&mut self, channel: usize, host: &mut dyn Host) {
        let registers = self.channels[channel].bus_master;
        let allowed = self.config.command() & command::BUS_MASTER != 0;
        if !allowed || registers.status & bm::BMIDEA == 0 || registers.command & bm::SSBM == 0 {
            return;
        }
        let to_memory = registers.command & bm::RWCON != 0;
        let Some(mut disk) = self.selected(channel) else { return };
        let wanted = match disk.dma_kind() {
            Some(Kind::ReadDma) => true,
            Some(_) => false,
            None => return,
        };
        if wanted != to_memory {
            // Drive and controller wait for each other for ever; the driver's timeout resets them.
            return;
        }
        let mut table = Descriptors::new(registers.table);
        let mut refused = false;
        while disk.dma_kind().is_some() && !refused {
            refused = if to_memory {
                disk.dma_in().is_some_and(|mut sector| !table.transfer(&mut sector, true, host))
            } else {
                let mut sector = [0; SECTOR_BYTES];
                let brought = table.transfer(&mut sector, false, host);
                if brought {
                    disk.dma_out(&sector);
                }
                !brought
            };
        }
        self.changed |=
            part::device(channel, self.channels[channel].selected.into()) | part::bus_master(channel);
        if table.aborted {
            self.config.note_master_abort();
            self.changed |= part::CONFIG;
        }
        let status = &mut self.channels[channel].bus_master.status;
        if refused {
            // The table ended before the command, or did not point to RAM: a PCI abort.
            *status = *status & !bm::BMIDEA | bm::DMA_ERROR;
        } else if table.exhausted() {
            *status &= !bm::BMIDEA;
        }
    }
}

/// The registers of both channels fill the range of BMIBA.
const _: () = assert!(2 * bm::CHANNEL_PORTS == pci::BMIBA_SIZE as u64);
