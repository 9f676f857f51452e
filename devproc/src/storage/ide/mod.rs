//! The IDE controller of the PIIX4 (PCI function 00:01.1) with up to four disks.
//!
//! Sources: Intel 82371AB (PIIX4) datasheet 290562, chapter 5 (IDE controller registers); ATA/ATAPI-4
//! (T13 1153D): section 7.2 (registers), chapter 8 (commands), 9.1-9.3 (reset protocols); 48-bit
//! addressing from ATA/ATAPI-6. Both channels decode their AT ports, 1F0h/3F6h with IRQ 14 and
//! 170h/376h with IRQ 15, once firmware has set the decode bit of IDETIM and I/O space in the
//! command register, as the datasheet says: after reset neither is set.
//!
//! **Who answers.** Registers are written to both devices of a channel and read from the selected
//! one. When device 1 is selected and absent, device 0 answers for it with status 0 (ATA-4 9.16.1);
//! when device 0 is absent nobody answers and the bus floats. An empty channel floats too.
//!
//! **Time.** Commands complete within the access that starts them, see [`drive`]; there are no timers.
//!
//! **Surviving a restart.** The state holds the sector in flight and nothing else of an image. Every
//! access that is run again reads or writes the same sector.
//!
//! Left out: ATAPI, SMART, the host protected area, security, and READ/WRITE BUFFER; IDENTIFY
//! claims none of them and the commands abort. Timing registers are kept and have no effect.

mod bus_master;
pub mod drive;
mod identify;
mod names;
mod spec;
mod state;

pub use drive::IdeDrive;

use crate::device::{
    ALL_PARTS, Access, Device, Dma, IoError, MirrorSlot, Parts, ReadResult, Region, RegionId, Register,
    ResetKind, StateError, Width, WriteResult, load_state, save_parts,
};
use crate::host::Host;
use crate::pci::{Bar, PciAddress, PciConfig, PciIdentity, register};
use drive::Disk;
use spec::{COMMAND_BLOCK, CONTROL_BLOCK, IRQ, command, control, device, pci, reg, status};
use state::{Channel, Pair, State, part, save_part};

const BUS_MASTER: RegionId = RegionId(4);
const COMMAND_NAMES: [&str; 2] = ["ide0-command", "ide1-command"];
const CONTROL_NAMES: [&str; 2] = ["ide0-control", "ide1-control"];
/// What nobody drives reads as ones.
const FLOATING: u8 = 0xff;

const fn command_region(channel: usize) -> RegionId {
    RegionId(2 * channel as u8)
}

const fn control_region(channel: usize) -> RegionId {
    RegionId(2 * channel as u8 + 1)
}

/// Which part of which channel a region is.
fn decode(region: RegionId) -> Option<(usize, bool)> {
    (region.0 < BUS_MASTER.0).then_some((usize::from(region.0 / 2), region.0.is_multiple_of(2)))
}

/// What the outputs of a channel were last set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outputs {
    irq: bool,
    alternate_status: u8,
}

/// The IDE controller.
pub struct Ide {
    // Runtime glue.
    drives: [[Option<IdeDrive>; 2]; 2],
    published: [Option<Outputs>; 2],
    changed: Parts,
    // Sub-emulators.
    config: PciConfig,
    // Volatile state.
    channels: [Channel; 2],
}

fn new_config() -> PciConfig {
    let identity = PciIdentity {
        vendor: pci::VENDOR,
        device: pci::DEVICE,
        revision: pci::REVISION,
        class: pci::CLASS,
        subsystem: (0, 0),
        multifunction: false,
        // In compatibility mode the interrupts are IRQ 14 and 15, not a PCI pin.
        interrupt_pin: 0,
    };
    let mut bars = [Bar::None; 6];
    bars[pci::BMIBA_INDEX] = Bar::Io { size: pci::BMIBA_SIZE };
    let mut config = PciConfig::new(identity, bars, 0);
    config.preset16(register::STATUS, pci::STATUS_DEFAULT);
    config.allow8(register::INTERRUPT_LINE, 0);
    for channel in 0..2 {
        config.allow16(pci::IDETIM + 2 * channel, pci::IDETIM_WRITABLE);
    }
    config.allow8(pci::SIDETIM, u8::MAX);
    config.allow8(pci::UDMACTL, pci::UDMACTL_WRITABLE);
    config.allow16(pci::UDMATIM, pci::UDMATIM_WRITABLE);
    config
}

impl Ide {
    /// A controller with the disks of the primary and the secondary channel, master first.
    pub fn new(drives: [[Option<IdeDrive>; 2]; 2]) -> Self {
        let channels = [Channel::power_on(&drives[0]), Channel::power_on(&drives[1])];
        Self { drives, published: [None; 2], changed: ALL_PARTS, config: new_config(), channels }
    }

    /// The regions as the configuration space has them now.
    fn current_regions(&self) -> Vec<Region> {
        let bmiba = self.config.bar(pci::BMIBA_INDEX);
        let io_enabled = bmiba.is_some_and(|bar| bar.enabled);
        let mut regions = Vec::with_capacity(5);
        for channel in 0..2 {
            let timing = self.config.read(pci::IDETIM + 2 * channel as u8, Width::Word) as u16;
            let decodes = io_enabled && timing & pci::IDETIM_DECODE != 0;
            // The data port is as wide as the bus lets it be; the bus must not split its accesses,
            // so the whole block takes them and splits those to the byte registers here.
            let (id, name) = (command_region(channel), COMMAND_NAMES[channel]);
            let block = Region::ports(id, name, COMMAND_BLOCK[channel], reg::COUNT).width(Width::Dword);
            regions.push(Region { enabled: decodes, ..block });
            let (id, name) = (control_region(channel), CONTROL_NAMES[channel]);
            let alternate = Region::ports(id, name, CONTROL_BLOCK[channel], 1);
            regions.push(Region { enabled: decodes, ..alternate.mirrored(MirrorSlot(channel as u16)) });
        }
        let base = bmiba.map_or(0, |bar| bar.base) as u16;
        let master = Region::ports(BUS_MASTER, "ide-busmaster", base, pci::BMIBA_SIZE as u16);
        // A BAR that was never set must not cover the DMA controller at port 0.
        regions.push(Region { enabled: io_enabled && base != 0, ..master.width(Width::Dword) });
        regions
    }

    /// The selected device, with its disk, if it is there.
    fn selected(&mut self, channel: usize) -> Option<Disk<'_>> {
        let unit = usize::from(self.channels[channel].selected);
        self.disk(channel, unit)
    }

    fn disk(&mut self, channel: usize, unit: usize) -> Option<Disk<'_>> {
        let drive = self.drives[channel][unit].as_mut()?;
        Some(Disk { drive, unit: &mut self.channels[channel].units[unit] })
    }

    /// Which device answers reads of the registers: the selected one, or device 0 for an absent
    /// device 1.
    fn responder(&self, channel: usize) -> Option<usize> {
        let selected = usize::from(self.channels[channel].selected);
        let present = |unit: usize| self.drives[channel][unit].is_some();
        if present(selected) { Some(selected) } else { (selected == 1 && present(0)).then_some(0) }
    }

    fn status(&self, channel: usize) -> Option<u8> {
        let responder = self.responder(channel)?;
        let absent = responder != usize::from(self.channels[channel].selected);
        Some(if absent { 0 } else { self.channels[channel].units[responder].status })
    }

    fn irq(&self, channel: usize) -> bool {
        let state = &self.channels[channel];
        let unit = usize::from(state.selected);
        let enabled = state.control & control::NIEN == 0;
        enabled && self.drives[channel][unit].is_some() && state.units[unit].interrupt
    }

    /// Publishes what the outside sees of a channel, where it changed. The caller notes which parts of the state did.
    fn publish(&mut self, channel: usize, host: &mut dyn Host) {
        let now =
            Outputs { irq: self.irq(channel), alternate_status: self.status(channel).unwrap_or(FLOATING) };
        let before = self.published[channel].replace(now);
        if before.is_none_or(|b| b.alternate_status != now.alternate_status) {
            host.publish_mirror(MirrorSlot(channel as u16), now.alternate_status.into());
        }
        if before.is_none_or(|b| b.irq != now.irq) {
            if now.irq && before.is_some() {
                self.channels[channel].bus_master.status |= spec::bus_master::IDEINTS;
                self.changed |= part::bus_master(channel);
            }
            host.set_irq(IRQ[channel], now.irq);
        }
    }

    fn read_register(&mut self, channel: usize, offset: u64, host: &mut dyn Host) -> Result<u8, IoError> {
        let responder = self.responder(channel).ok_or(IoError::NoResponse)?;
        let state = &self.channels[channel];
        let unit = &state.units[responder];
        let shown = |pair: Pair| pair[usize::from(state.control & control::HOB != 0)];
        Ok(match offset {
            reg::ERROR_FEATURES => unit.error,
            reg::SECTOR_COUNT => shown(unit.count),
            reg::LBA_LOW => shown(unit.low),
            reg::LBA_MID => shown(unit.mid),
            reg::LBA_HIGH => shown(unit.high),
            reg::DEVICE => unit.device,
            reg::STATUS_COMMAND => {
                let value = self.status(channel).unwrap_or(FLOATING);
                if let Some(disk) = self.selected(channel)
                    && disk.unit.interrupt
                {
                    disk.unit.interrupt = false;
                    self.changed |= part::registers(channel, responder);
                    self.publish(channel, host);
                }
                value
            }
            _ => return Err(IoError::InvalidRegister),
        })
    }

    fn write_register(&mut self, channel: usize, offset: u64, value: u8, host: &mut dyn Host) -> WriteResult {
        self.changed |= match offset {
            // For the selected device; what else it changes is noted there.
            reg::STATUS_COMMAND => part::registers(channel, 0),
            _ => part::registers(channel, 0) | part::registers(channel, 1),
        };
        let state = &mut self.channels[channel];
        state.control &= !control::HOB;
        let push = |pair: &mut Pair| *pair = [value, pair[0]];
        match offset {
            reg::ERROR_FEATURES => state.units.iter_mut().for_each(|u| push(&mut u.features)),
            reg::SECTOR_COUNT => state.units.iter_mut().for_each(|u| push(&mut u.count)),
            reg::LBA_LOW => state.units.iter_mut().for_each(|u| push(&mut u.low)),
            reg::LBA_MID => state.units.iter_mut().for_each(|u| push(&mut u.mid)),
            reg::LBA_HIGH => state.units.iter_mut().for_each(|u| push(&mut u.high)),
            reg::DEVICE => {
                state.selected = u8::from(value & device::DEV != 0);
                state.units.iter_mut().for_each(|u| u.device = value | device::ONES);
            }
            reg::STATUS_COMMAND => self.write_command(channel, value, host),
            _ => return Err(IoError::InvalidRegister),
        }
        self.publish(channel, host);
        Ok(())
    }

    fn write_command(&mut self, channel: usize, code: u8, host: &mut dyn Host) {
        if self.channels[channel].control & control::SRST != 0 {
            return;
        }
        if code == command::EXECUTE_DIAGNOSTIC {
            // Both devices run it, whichever is selected; device 0 reports.
            self.changed |= part::channel(channel);
            let present = self.drives[channel][0].is_some();
            self.show_signatures(channel);
            self.channels[channel].units[0].interrupt = present;
        } else if let Some(mut disk) = self.selected(channel) {
            disk.execute(code);
            self.changed |= part::device(channel, self.channels[channel].selected.into());
            // The start bit may have been set before the command.
            self.run_bus_master(channel, host);
        }
    }

    fn show_signatures(&mut self, channel: usize) {
        let state = &mut self.channels[channel];
        state.selected = 0;
        for unit in &mut state.units {
            unit.show_signature();
        }
    }

    fn write_control(&mut self, channel: usize, value: u8, host: &mut dyn Host) {
        self.changed |= part::channel(channel);
        let before = std::mem::replace(&mut self.channels[channel].control, value);
        if (before ^ value) & control::SRST != 0 {
            self.show_signatures(channel);
            for unit in &mut self.channels[channel].units {
                if value & control::SRST != 0 {
                    unit.status = status::BSY;
                    if !unit.keep_settings {
                        unit.multiple = 0;
                    }
                }
            }
        }
        self.publish(channel, host);
    }

    /// Moves data through the data port, and notes what changes. `fills` says whether it goes into the sector.
    fn move_data(
        &mut self,
        channel: usize,
        fills: bool,
        go: impl FnOnce(&mut Disk<'_>),
    ) -> Result<(), IoError> {
        let mut disk = self.selected(channel).ok_or(IoError::NoResponse)?;
        let before = disk.place();
        go(&mut disk);
        let after = disk.place();
        let unit = usize::from(self.channels[channel].selected);
        // Another sector, or none.
        self.changed |= match (before, after) {
            (Some((sector, from)), Some((same, to))) if sector == same && from <= to => {
                let filled = if fills { part::sector(channel, unit, from..to) } else { 0 };
                part::transfer(channel, unit) | filled
            }
            _ => part::device(channel, unit),
        };
        Ok(())
    }

    fn data_in(&mut self, channel: usize, out: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        self.move_data(channel, false, |disk| disk.data_in(out))?;
        self.publish(channel, host);
        Ok(())
    }

    fn data_out(&mut self, channel: usize, data: &[u8], host: &mut dyn Host) -> WriteResult {
        self.move_data(channel, true, |disk| disk.data_out(data))?;
        self.publish(channel, host);
        Ok(())
    }
}

impl Device for Ide {
    fn name(&self) -> &'static str {
        "ide"
    }

    fn regions(&self) -> Vec<Region> {
        self.current_regions()
    }

    fn pci_address(&self) -> Option<PciAddress> {
        Some(PciAddress::bus0(1, 1))
    }

    fn dma(&self) -> Dma {
        Dma::Anywhere
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        for region in self.current_regions() {
            host.update_region(region);
        }
        self.published = [None; 2];
        for channel in 0..2 {
            self.publish(channel, host);
        }
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let Some((channel, command_block)) = decode(at.region) else {
            return Ok(self.read_bus_master(at.offset, at.width));
        };
        if !command_block {
            return self.status(channel).map(u32::from).ok_or(IoError::NoResponse);
        }
        if at.offset == reg::DATA {
            // The port is 16 bits wide: a byte access takes a word and drops its upper half.
            let mut bytes = [0; 4];
            self.data_in(channel, &mut bytes[..at.width.bytes().max(2) as usize], host)?;
            return Ok(u32::from_le_bytes(bytes) & at.width.mask());
        }
        let mut value = 0;
        for i in 0..at.width.bytes() {
            let byte = self.read_register(channel, at.offset + u64::from(i), host)?;
            value |= u32::from(byte) << (8 * i);
        }
        Ok(value)
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let Some((channel, command_block)) = decode(at.region) else {
            self.write_bus_master(at.offset, at.width, value, host);
            return Ok(());
        };
        let bytes = value.to_le_bytes();
        if !command_block {
            self.write_control(channel, bytes[0], host);
            return Ok(());
        }
        if at.offset == reg::DATA {
            return self.data_out(channel, &bytes[..at.width.bytes().max(2) as usize], host);
        }
        for (i, byte) in (0..at.width.bytes()).zip(bytes) {
            self.write_register(channel, at.offset + u64::from(i), byte, host)?;
        }
        Ok(())
    }

    fn read_burst(&mut self, at: Access, data: &mut [u8], host: &mut dyn Host) -> Result<(), IoError> {
        match decode(at.region) {
            Some((channel, true)) if at.offset == reg::DATA && at.width != Width::Byte => {
                self.data_in(channel, data, host)
            }
            _ => {
                let step = at.width.bytes() as usize;
                for chunk in data.chunks_exact_mut(step) {
                    let value = self.read(at, host)?;
                    chunk.copy_from_slice(&value.to_le_bytes()[..step]);
                }
                Ok(())
            }
        }
    }

    fn write_burst(&mut self, at: Access, data: &[u8], host: &mut dyn Host) -> WriteResult {
        match decode(at.region) {
            Some((channel, true)) if at.offset == reg::DATA && at.width != Width::Byte => {
                self.data_out(channel, data, host)
            }
            _ => {
                let step = at.width.bytes() as usize;
                for chunk in data.chunks_exact(step) {
                    let mut bytes = [0; 4];
                    bytes[..step].copy_from_slice(chunk);
                    self.write(at, u32::from_le_bytes(bytes), host)?;
                }
                Ok(())
            }
        }
    }

    fn burst_advances(&self, _: Access) -> bool {
        false
    }

    fn config_read(&mut self, register: u8, width: Width, _: &mut dyn Host) -> u32 {
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        let before = self.current_regions();
        self.config.write(register, width, value);
        self.changed = ALL_PARTS;
        for (now, before) in self.current_regions().into_iter().zip(before) {
            if now != before {
                host.update_region(now);
            }
        }
        // The bus master bit may be what a pending transfer waits for.
        for channel in 0..2 {
            self.run_bus_master(channel, host);
            self.publish(channel, host);
        }
    }

    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        self.config.reset();
        for (channel, drives) in self.channels.iter_mut().zip(&self.drives) {
            *channel = Channel::power_on(drives);
        }
        self.changed = ALL_PARTS;
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_parts(self, out);
    }

    fn take_changed(&mut self) -> bool {
        self.take_changed_parts() != 0
    }

    fn parts(&self) -> usize {
        part::COUNT
    }

    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        save_part(&self.channels, &self.config, part, out);
    }

    fn take_changed_parts(&mut self) -> Parts {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: State = load_state(data)?;
        state.validate()?;
        if !self.config.load(&state.config) {
            return Err(StateError::OutOfRange("configuration space"));
        }
        self.channels = state.channels;
        self.changed = ALL_PARTS;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
