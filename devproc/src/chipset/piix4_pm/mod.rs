//! PIIX4 function 3: power management and SMBus, 00:01.3, with the APM ports B2h/B3h.
//!
//! Source: "82371AB PCI-to-ISA / IDE Xcelerator (PIIX4)" datasheet, sections 7.1 to 7.3 and 11;
//! Advanced Configuration and Power Interface Specification 1.0, section 4.7.
//!
//! What acts: PM1 status, enable and control, the 3.579545 MHz timer, soft-off, the SCI on
//! IRQ9, and an SMBus host on whose bus nothing answers. Device monitors, clock control and
//! suspend other than soft-off keep their registers and do nothing.
//!
//! System management mode does not exist in this machine. Two consequences:
//! - DEVACTB.APMC_EN is set after reset. SeaBIOS takes it for the mark that SMM has been set
//!   up and leaves it alone.
//! - The commands that a BIOS's SMM handler would execute when ACPI software writes them to
//!   APMC (F1h: set SCI_EN, F0h: clear it) are executed here.

mod names;
mod pm_io;
mod smbus;
mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    ALL_PARTS, Access, Device, IoError, MirrorSlot, Parts, ReadResult, Region, RegionId, Register, ResetKind,
    StateError, TimerId, Width, WriteResult, Writes, load_state, save_parts,
};
use crate::host::Host;
use crate::pack::pack;
use crate::pci::{Bar, PciAddress, PciConfig, PciConfigState, PciIdentity, command, register};
use ipc::time::VirtualTime;
use pm_io::{PmIo, PmIoState, Suspend};
use serde::{Deserialize, Serialize};
use smbus::Smbus;

/// The parts in which the state is saved.
mod part {
    use crate::device::Parts;
    pub(super) const CONFIG: Parts = 1 << 0;
    pub(super) const PM: Parts = 1 << 1;
    /// SMBus, APM and GPE.
    pub(super) const REST: Parts = 1 << 2;
    pub(super) const COUNT: usize = 3;
}

const PM: RegionId = RegionId(0);
const SMBUS: RegionId = RegionId(1);
const APM: RegionId = RegionId(2);
const GPE0: RegionId = RegionId(3);

const APM_CELL: MirrorSlot = MirrorSlot(0);
const GPE0_CELL: MirrorSlot = MirrorSlot(2);

const OVERFLOW: TimerId = TimerId(0);

/// Power management and SMBus.
pub struct Piix4Pm {
    // Runtime: whether the state may differ from what was last saved.
    changed: Parts,
    // Sub-models.
    pm: PmIo,
    smbus: Smbus,
    // Volatile state.
    config: PciConfig,
    apm: [u8; 2],
    /// Status (never set: nothing is wired to it) and enable bytes of the GPE block.
    gpe0: [u8; 4],
}

#[derive(Serialize, Deserialize)]
struct State {
    config: PciConfigState,
    pm: PmIoState,
    smbus: Smbus,
    apm: [u8; 2],
    gpe0_enable: [u8; 2],
}

impl Default for Piix4Pm {
    fn default() -> Self {
        Self::new()
    }
}

impl Piix4Pm {
    /// The function as after power-on.
    pub fn new() -> Self {
        Self {
            changed: ALL_PARTS,
            pm: PmIo::new(VirtualTime(0)),
            smbus: Smbus::default(),
            config: configuration(),
            apm: [0; 2],
            gpe0: [0; 4],
        }
    }

    fn base(&self, register: u8, writable: u16) -> u16 {
        self.config.read(register, Width::Word) as u16 & writable
    }

    fn pm_region(&self) -> Region {
        let base = self.base(spec::PMBA, spec::PMBA_WRITABLE);
        let region = Region::ports(PM, "pm", base, spec::PM_LEN).width(Width::Dword).writes(Writes::Sync);
        let region = region.ticking(self.pm.timer_register());
        // Firmware that enables the block before it gives it a base must not lose the DMA ports.
        Region { enabled: base != 0 && self.config.byte(spec::PMREGMISC) & spec::PMIOSE != 0, ..region }
    }

    fn smbus_region(&self) -> Region {
        let base = self.base(spec::SMBBA, spec::SMBBA_WRITABLE);
        let on = self.config.byte(spec::SMBHSTCFG) & spec::SMB_HST_EN != 0
            && self.config.command() & command::IO_SPACE != 0;
        let region = Region::ports(SMBUS, "smbus", base, spec::SMBUS_LEN);
        Region { enabled: base != 0 && on, ..region }
    }

    fn publish_map(&self, host: &mut dyn Host) {
        for region in [self.pm_region(), self.smbus_region()] {
            if host.region(region.id) != Some(region) {
                host.update_region(region);
            }
        }
    }

    fn publish_mirrors(&self, host: &mut dyn Host) {
        for (cell, byte) in (APM_CELL.0..).zip(self.apm) {
            host.publish_mirror(MirrorSlot(cell), byte.into());
        }
        for (cell, byte) in (GPE0_CELL.0..).zip(self.gpe0) {
            host.publish_mirror(MirrorSlot(cell), byte.into());
        }
    }

    /// Takes note of what the timer has done. Says whether it has done anything.
    fn catch_up(&mut self, host: &mut dyn Host) -> bool {
        let caught_up = self.pm.catch_up(host.now());
        if caught_up {
            self.changed |= part::PM;
        }
        caught_up
    }

    /// Publishes the interrupt and the timer.
    fn update(&mut self, host: &mut dyn Host) {
        self.catch_up(host);
        let smbus_to_irq9 = self.config.byte(spec::SMBHSTCFG) & spec::SMB_INTRSEL == spec::SMB_INTRSEL_IRQ9;
        host.set_irq(spec::SCI_IRQ, self.pm.sci() || smbus_to_irq9 && self.smbus.interrupt());
        match self.pm.timer_deadline() {
            Some(deadline) => host.arm_timer(OVERFLOW, deadline),
            None => host.cancel_timer(OVERFLOW),
        }
    }

    fn write_pm(&mut self, at: Access, value: u32, host: &mut dyn Host) {
        let bytes = value.to_le_bytes();
        self.catch_up(host);
        match self.pm.write(at.offset as usize, &bytes[..at.width.bytes() as usize]) {
            Some(Suspend::SoftOff) => host.power_off(),
            Some(Suspend::Other(kind)) => {
                tracing::warn!(
                    "Guest asked for suspend state {kind}, which this machine has not; it runs on"
                );
            }
            None => {}
        }
    }

    fn write_apm(&mut self, offset: u64, value: u8) {
        let Some(byte) = self.apm.get_mut(offset as usize) else { return };
        *byte = value;
        let generates_smi = self.config.byte(spec::DEVACTB + 3) & spec::DEVACTB_APMC_EN != 0;
        if offset == 0 && generates_smi {
            self.pm.note_apm();
            match value {
                spec::APMC_ACPI_ENABLE => self.pm.set_acpi_mode(true),
                spec::APMC_ACPI_DISABLE => self.pm.set_acpi_mode(false),
                _ => {}
            }
        }
    }
}

/// The registers after reset and what the guest can write.
fn configuration() -> PciConfig {
    let identity = PciIdentity {
        vendor: spec::VENDOR_INTEL,
        device: spec::DEVICE_82371AB_PM,
        revision: spec::REVISION,
        class: spec::CLASS_OTHER_BRIDGE,
        subsystem: (0, 0),
        multifunction: false,
        interrupt_pin: spec::INTERRUPT_PIN,
    };
    let mut config = PciConfig::new(identity, [Bar::None; 6], 0);
    config.allow16(register::COMMAND, spec::PCICMD_WRITABLE);
    config.preset16(register::STATUS, spec::PCISTS_DEFAULT);
    config.clear_by_one(register::STATUS + 1, spec::PCISTS_HIGH_CLEAR);
    for (first, masks) in spec::PLAIN {
        for (at, mask) in (first..).zip(masks) {
            config.allow8(at, *mask);
        }
    }
    for (at, writable) in [(spec::PMBA, spec::PMBA_WRITABLE), (spec::SMBBA, spec::SMBBA_WRITABLE)] {
        config.preset8(at, spec::BASE_DEFAULT);
        config.allow16(at, writable);
    }
    config.preset8(spec::DEVACTB + 3, spec::DEVACTB_APMC_EN);
    config
}

impl Device for Piix4Pm {
    fn name(&self) -> &'static str {
        "piix4-pm"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            self.pm_region(),
            self.smbus_region(),
            Region::ports(APM, "apm", spec::APMC_PORT, spec::APM_LEN)
                .writes(Writes::PostedLocal)
                .mirrored(APM_CELL),
            Region::ports(GPE0, "gpe0", spec::GPE0_PORT, spec::GPE0_LEN)
                .writes(Writes::PostedLocal)
                .mirrored(GPE0_CELL),
        ]
    }

    fn pci_address(&self) -> Option<PciAddress> {
        Some(PciAddress::bus0(1, 3))
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.publish_map(host);
        self.publish_mirrors(host);
        self.update(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        match at.region {
            PM => {
                // The deadline may be due and its timer not yet have run.
                if self.catch_up(host) {
                    self.update(host);
                }
                let bytes = (0..at.width.bytes() as usize).rev();
                Ok(bytes.fold(0, |value, i| {
                    value << 8 | u32::from(self.pm.read(at.offset as usize + i, host.now()))
                }))
            }
            SMBUS => {
                // Some reads move the block index.
                self.changed |= part::REST;
                self.smbus.read(at.offset).map(u32::from)
            }
            APM => self.apm.get(at.offset as usize).map(|b| u32::from(*b)).ok_or(IoError::InvalidRegister),
            GPE0 => self.gpe0.get(at.offset as usize).map(|b| u32::from(*b)).ok_or(IoError::InvalidRegister),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        self.changed |= match at.region {
            PM => part::PM,
            // It shows in the status of the block.
            APM => part::PM | part::REST,
            _ => part::REST,
        };
        match at.region {
            PM => self.write_pm(at, value, host),
            SMBUS => self.smbus.write(at.offset, value as u8)?,
            APM => self.write_apm(at.offset, value as u8),
            GPE0 => {
                if let Some(enable) = self.gpe0[2..].get_mut(at.offset.wrapping_sub(2) as usize) {
                    *enable = value as u8;
                }
            }
            _ => return Err(IoError::InvalidRegister),
        }
        self.publish_mirrors(host);
        self.update(host);
        Ok(())
    }

    fn config_read(&mut self, register: u8, width: Width, _host: &mut dyn Host) -> u32 {
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        self.changed |= part::CONFIG;
        self.config.write(register, width, value);
        self.publish_map(host);
        self.update(host);
    }

    fn timer(&mut self, _timer: TimerId, _deadline: VirtualTime, host: &mut dyn Host) {
        self.update(host);
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        self.config.reset();
        self.pm = PmIo::new(host.now());
        self.smbus = Smbus::default();
        self.apm = [0; 2];
        self.gpe0 = [0; 4];
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
        let [_, _, enable @ ..] = self.gpe0;
        match 1 << part {
            part::CONFIG => self.config.save(out),
            part::PM => self.pm.save(out),
            _ => pack((&self.smbus, self.apm, enable), out),
        }
    }

    fn take_changed_parts(&mut self) -> Parts {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let State { config, pm, smbus, apm, gpe0_enable } = load_state(data)?;
        let pm = PmIo::from_state(pm)?;
        smbus.validate()?;
        if !self.config.load(&config) {
            return Err(StateError::OutOfRange("configuration space"));
        }
        self.pm = pm;
        self.smbus = smbus;
        self.apm = apm;
        self.gpe0[2..].copy_from_slice(&gpe0_enable);
        self.changed = ALL_PARTS;
        Ok(())
    }
}
