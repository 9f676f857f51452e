//! The CPUID instruction; what it says is in [`super::model`].

use super::Vcpu;
use super::bus::Bus;
use super::registers::gpr;

/// Highest leaf; a higher one asked for is answered with this one.
const MAX_LEAF: u32 = 2;
/// "GenuineIntel" in EBX, EDX, ECX.
const VENDOR: [u32; 3] =
    [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ineI"), u32::from_le_bytes(*b"ntel")];

impl<B: Bus> Vcpu<B> {
    /// CPUID: answers the leaf in EAX in EAX, EBX, ECX and EDX.
    pub fn cpuid(&mut self) {
        let [eax, ebx, ecx, edx] = match self.state.gpr[gpr::EAX] {
            0 => [MAX_LEAF, VENDOR[0], VENDOR[2], VENDOR[1]],
            1 => {
                [self.state.model.signature(), self.state.model.flush_line(), 0, self.state.model.features()]
            }
            _ => self.state.model.cache_descriptors(),
        };
        self.state.gpr[gpr::EAX] = eax;
        self.state.gpr[gpr::EBX] = ebx;
        self.state.gpr[gpr::ECX] = ecx;
        self.state.gpr[gpr::EDX] = edx;
    }
}
