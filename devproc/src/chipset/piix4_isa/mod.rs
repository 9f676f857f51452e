//! PIIX4 function 0: PCI-to-ISA bridge, 00:01.0, with reset control and port 92h.
//!
//! Source: "82371AB PCI-to-ISA / IDE Xcelerator (PIIX4)" datasheet, sections 4.1 (configuration
//! registers) and 4.2 (I/O registers), 8.7 (interrupt routing).
//!
//! What acts: PIRQ routing, the reset control register and port 92h. The decode enables (XBCS,
//! RTCCFG, GENCFG), DMA routing and recovery timers keep what is written; the devices behind
//! them are models of their own and always decode. ELCR belongs to the interrupt controller,
//! port 61h to the timer, ports B2h/B3h to function 3, which holds their enable bit.

mod names;
mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Device, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind, StateError,
    Width, WriteResult, Writes, load_state,
};
use crate::host::{A20Source, Host, ResetRequest};
use crate::pack::pack;
use crate::pci::{Bar, PciAddress, PciConfig, PciConfigState, PciIdentity, register};
use serde::{Deserialize, Serialize};

const RCR: RegionId = RegionId(0);
const PORT92: RegionId = RegionId(1);

const RCR_CELL: MirrorSlot = MirrorSlot(0);
const PORT92_CELL: MirrorSlot = MirrorSlot(1);

/// The ISA bridge.
pub struct Piix4Isa {
    // Runtime: ISA IRQs that this model drives high at present; found again on attach.
    driven: u16,
    // Volatile state.
    config: PciConfig,
    rcr: u8,
    port92: u8,
}

#[derive(Serialize, Deserialize)]
struct State {
    config: PciConfigState,
    rcr: u8,
    port92: u8,
}

impl Default for Piix4Isa {
    fn default() -> Self {
        Self::new()
    }
}

impl Piix4Isa {
    /// A bridge as after power-on.
    pub fn new() -> Self {
        Self { driven: 0, config: configuration(), rcr: 0, port92: 0 }
    }

    /// The ISA IRQs that asserted PIRQ lines are routed to.
    fn routed(&self, pirq_levels: u8) -> u16 {
        let mut irqs = 0;
        for pirq in 0..spec::PIRQ_COUNT {
            let route = self.config.byte(spec::PIRQRCA + pirq);
            if pirq_levels & (1 << pirq) != 0 && route & spec::PIRQRC_DISABLE == 0 {
                irqs |= 1 << (route & spec::PIRQRC_IRQ);
            }
        }
        irqs & spec::ROUTABLE_IRQS
    }

    fn drive(&mut self, host: &mut dyn Host, lines: u16, wanted: u16) {
        self.driven = wanted;
        for irq in (0..16).filter(|irq| lines & (1 << irq) != 0) {
            host.set_irq(irq, wanted & (1 << irq) != 0);
        }
    }

    fn update_lines(&mut self, host: &mut dyn Host) {
        let wanted = self.routed(host.irq_lines().pirq_levels);
        let changed = wanted ^ self.driven;
        if changed != 0 {
            self.drive(host, changed, wanted);
        }
    }

    fn publish_ports(&self, host: &mut dyn Host) {
        host.publish_mirror(RCR_CELL, self.rcr.into());
        host.publish_mirror(PORT92_CELL, self.port92.into());
        host.set_a20(A20Source::Port92, self.port92 & spec::PORT92_FAST_A20 != 0);
    }
}

/// The registers after reset and what the guest can write.
fn configuration() -> PciConfig {
    let identity = PciIdentity {
        vendor: spec::VENDOR_INTEL,
        device: spec::DEVICE_82371AB_ISA,
        revision: spec::REVISION,
        class: spec::CLASS_ISA_BRIDGE,
        subsystem: (0, 0),
        multifunction: true,
        interrupt_pin: 0,
    };
    let mut config = PciConfig::new(identity, [Bar::None; 6], 0);
    config.preset16(register::COMMAND, spec::PCICMD_DEFAULT);
    config.allow16(register::COMMAND, spec::PCICMD_WRITABLE);
    config.preset16(register::STATUS, spec::PCISTS_DEFAULT);
    config.clear_by_one(register::STATUS + 1, spec::PCISTS_HIGH_CLEAR);
    config.allow8(register::INTERRUPT_LINE, 0);
    for spec::Plain(at, value, writable) in spec::PLAIN {
        config.preset8(at, value);
        config.allow8(at, writable);
    }
    config.clear_by_one(spec::MSTAT + 1, spec::MSTAT_HIGH_CLEAR);
    config.preset8(spec::RTCCFG, spec::RTCCFG_DEFAULT);
    config.allow8(spec::RTCCFG, spec::RTCCFG_WRITABLE);
    for pirq in 0..spec::PIRQ_COUNT {
        config.preset8(spec::PIRQRCA + pirq, spec::PIRQRC_DISABLE);
        config.allow8(spec::PIRQRCA + pirq, spec::PIRQRC_WRITABLE);
    }
    config
}

impl Device for Piix4Isa {
    fn name(&self) -> &'static str {
        "piix4-isa"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(RCR, "reset-control", spec::RCR_PORT, 1).writes(Writes::Sync).mirrored(RCR_CELL),
            Region::ports(PORT92, "port92", spec::PORT92, 1).writes(Writes::Sync).mirrored(PORT92_CELL),
        ]
    }

    fn pci_address(&self) -> Option<PciAddress> {
        Some(PciAddress::bus0(1, 0))
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.publish_ports(host);
        // A predecessor may have left any of them high.
        let wanted = self.routed(host.irq_lines().pirq_levels);
        self.drive(host, spec::ROUTABLE_IRQS, wanted);
    }

    fn read(&mut self, at: Access, _host: &mut dyn Host) -> ReadResult {
        match at.region {
            RCR => Ok(self.rcr.into()),
            PORT92 => Ok(self.port92.into()),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let value = value as u8;
        match at.region {
            RCR => {
                let rising = value & !self.rcr & spec::RCR_RCPU != 0;
                self.rcr = value & spec::RCR_WRITABLE;
                if rising {
                    let hard = self.rcr & spec::RCR_SRST != 0;
                    host.request_reset(if hard { ResetRequest::Machine } else { ResetRequest::Cpu });
                }
            }
            PORT92 => {
                let rising = value & !self.port92 & spec::PORT92_FAST_INIT != 0;
                self.port92 = value & spec::PORT92_WRITABLE;
                if rising {
                    host.request_reset(ResetRequest::Cpu);
                }
            }
            _ => return Err(IoError::InvalidRegister),
        }
        self.publish_ports(host);
        Ok(())
    }

    fn config_read(&mut self, register: u8, width: Width, _host: &mut dyn Host) -> u32 {
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        self.config.write(register, width, value);
        self.update_lines(host);
    }

    fn lines_changed(&mut self, host: &mut dyn Host) {
        self.update_lines(host);
    }

    fn watches_lines(&self) -> bool {
        true
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        self.config.reset();
        self.rcr = 0;
        self.port92 = 0;
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.config.save(out);
        pack((self.rcr, self.port92), out);
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let State { config, rcr, port92 } = load_state(data)?;
        if !self.config.load(&config) {
            return Err(StateError::OutOfRange("configuration space"));
        }
        self.rcr = rcr & spec::RCR_WRITABLE;
        self.port92 = port92 & spec::PORT92_WRITABLE;
        Ok(())
    }
}
