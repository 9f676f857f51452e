//! PCI configuration mechanism #1 (PCI Local Bus Specification 2.1, section 3.7.4.1): the address
//! latch at CF8h and the data window at CFCh, and which process owns which function.

use ipc::width::Width;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Bit 31 of CONFIG_ADDRESS: configuration cycles are generated.
const ENABLE: u32 = 1 << 31;
/// Bits of CONFIG_ADDRESS that exist.
const ADDRESS_BITS: u32 = 0x80ff_fffc;

/// Who answers a configuration cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigTarget {
    /// Index of the link.
    pub link: usize,
    /// Number of the model in its process.
    pub model: u8,
    /// Byte offset in the configuration space.
    pub register: u8,
}

/// State of the mechanism.
#[derive(Debug, Default)]
pub struct ConfigMechanism {
    address: u32,
    functions: Vec<((u8, u8, u8), usize, u8)>,
}

/// Whether an access is one to CONFIG_ADDRESS: only 32-bit ones are, narrower ones are ordinary
/// I/O (the reset control register lives at CF9h).
#[inline]
pub fn is_address_port(port: u16, width: Width) -> bool {
    port == CONFIG_ADDRESS && width == Width::Dword
}

/// Whether a port lies in CONFIG_DATA.
#[inline]
pub fn is_data_port(port: u16) -> bool {
    port & !3 == CONFIG_DATA
}

impl ConfigMechanism {
    /// Forgets all functions; the latch stays.
    pub fn clear(&mut self) {
        self.functions.clear();
    }

    /// Adds a function. The first process to claim an address keeps it.
    pub fn register(&mut self, address: (u8, u8, u8), link: usize, model: u8) {
        if self.functions.iter().any(|(taken, ..)| *taken == address) {
            let (bus, device, function) = address;
            tracing::error!("PCI function {bus:02x}:{device:02x}.{function} is claimed twice");
        } else {
            self.functions.push((address, link, model));
        }
    }

    /// The address latch.
    pub fn address(&self) -> u32 {
        self.address
    }

    /// Sets the address latch.
    pub fn set_address(&mut self, value: u32) {
        self.address = value & ADDRESS_BITS;
    }

    /// Who answers an access to `port` in the data window; `None` when nobody does.
    pub fn target(&self, port: u16) -> Option<ConfigTarget> {
        if self.address & ENABLE == 0 {
            return None;
        }
        let address =
            ((self.address >> 16) as u8, (self.address >> 11) as u8 & 31, (self.address >> 8) as u8 & 7);
        let (_, link, model) = self.functions.iter().find(|(function, ..)| *function == address)?;
        let register = (self.address & 0xfc) as u8 | (port & 3) as u8;
        Some(ConfigTarget { link: *link, model: *model, register })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_reaches_the_function_that_the_latch_names() {
        let mut pci = ConfigMechanism::default();
        pci.register((0, 1, 3), 2, 4);
        pci.set_address(0x8000_0b43);
        assert_eq!(pci.address(), 0x8000_0b40);
        assert_eq!(pci.target(0xcfd), Some(ConfigTarget { link: 2, model: 4, register: 0x41 }));
        pci.set_address(0x0000_0b40);
        assert_eq!(pci.target(0xcfc), None);
        pci.set_address(0x8000_0c40);
        assert_eq!(pci.target(0xcfc), None);
    }

    #[test]
    fn the_reset_control_register_is_not_the_latch() {
        assert!(is_address_port(0xcf8, Width::Dword));
        assert!(!is_address_port(0xcf9, Width::Byte));
        assert!(!is_address_port(0xcf8, Width::Byte));
        assert!(is_data_port(0xcff) && !is_data_port(0xd00));
    }
}
