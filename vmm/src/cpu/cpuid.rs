//! What CPUID says: a Pentium II (Deschutes), and which parts of it exist here.

use super::Vcpu;
use super::bus::Bus;
use super::registers::{cr4, gpr};

/// Family 6, model 5, stepping 2; also EDX after reset.
pub const SIGNATURE: u32 = 0x652;

/// Feature bits of leaf 1, EDX.
pub mod feature {
    /// Floating-point unit.
    pub const FPU: u32 = 1 << 0;
    /// Debugging extensions.
    pub const DE: u32 = 1 << 2;
    /// 4 MiB pages.
    pub const PSE: u32 = 1 << 3;
    /// Time-stamp counter.
    pub const TSC: u32 = 1 << 4;
    /// RDMSR and WRMSR.
    pub const MSR: u32 = 1 << 5;
    /// CMPXCHG8B.
    pub const CX8: u32 = 1 << 8;
    /// SYSENTER and SYSEXIT.
    pub const SEP: u32 = 1 << 11;
    /// Global pages.
    pub const PGE: u32 = 1 << 13;
    /// CMOVcc.
    pub const CMOV: u32 = 1 << 15;
    /// MMX.
    pub const MMX: u32 = 1 << 23;
    /// FXSAVE and FXRSTOR.
    pub const FXSR: u32 = 1 << 24;
    /// SSE.
    pub const SSE: u32 = 1 << 25;
}

/// The features offered to the guest: the one list to extend when a unit is added.
pub const FEATURES: u32 = feature::DE
    | feature::PSE
    | feature::TSC
    | feature::MSR
    | feature::CX8
    | feature::SEP
    | feature::PGE
    | feature::CMOV;

/// The CR4 bits that go with [`FEATURES`]; setting another one is #GP.
pub const CR4_SUPPORTED: u32 = cr4::TSD | cr4::DE | cr4::PSE | cr4::PGE | cr4::PCE;

/// Highest leaf; a higher one asked for is answered with this one.
const MAX_LEAF: u32 = 2;
/// "GenuineIntel" in EBX, EDX, ECX.
const VENDOR: [u32; 3] =
    [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ineI"), u32::from_le_bytes(*b"ntel")];
/// Leaf 2: TLBs of the Pentium II, 16+16 KiB L1, 512 KiB L2.
const CACHE_DESCRIPTORS: [u32; 4] = [0x0302_0101, 0, 0, 0x0c04_0843];

impl<B: Bus> Vcpu<B> {
    /// CPUID: answers the leaf in EAX in EAX, EBX, ECX and EDX.
    pub fn cpuid(&mut self) {
        let [eax, ebx, ecx, edx] = match self.state.gpr[gpr::EAX] {
            0 => [MAX_LEAF, VENDOR[0], VENDOR[2], VENDOR[1]],
            1 => [SIGNATURE, 0, 0, FEATURES],
            _ => CACHE_DESCRIPTORS,
        };
        self.state.gpr[gpr::EAX] = eax;
        self.state.gpr[gpr::EBX] = ebx;
        self.state.gpr[gpr::ECX] = ecx;
        self.state.gpr[gpr::EDX] = edx;
    }
}
