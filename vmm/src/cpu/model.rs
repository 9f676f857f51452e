//! Which processor is modelled: what CPUID says and which instructions and registers exist.

use super::registers::cr4;
use serde::{Deserialize, Serialize};

/// Feature bits of CPUID leaf 1, EDX.
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
    /// Physical address extension.
    pub const PAE: u32 = 1 << 6;
    /// CMPXCHG8B.
    pub const CX8: u32 = 1 << 8;
    /// SYSENTER and SYSEXIT.
    pub const SEP: u32 = 1 << 11;
    /// Memory type range registers.
    pub const MTRR: u32 = 1 << 12;
    /// Global pages.
    pub const PGE: u32 = 1 << 13;
    /// CMOVcc.
    pub const CMOV: u32 = 1 << 15;
    /// Page attribute table.
    pub const PAT: u32 = 1 << 16;
    /// 36-bit addresses of 4 MiB pages.
    pub const PSE36: u32 = 1 << 17;
    /// CLFLUSH.
    pub const CLFSH: u32 = 1 << 19;
    /// MMX.
    pub const MMX: u32 = 1 << 23;
    /// FXSAVE and FXRSTOR.
    pub const FXSR: u32 = 1 << 24;
    /// SSE.
    pub const SSE: u32 = 1 << 25;
    /// SSE2.
    pub const SSE2: u32 = 1 << 26;
}

/// A processor that can be modelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum CpuModel {
    /// Pentium II (Deschutes).
    Pentium2,
    /// Pentium III (Katmai): adds SSE.
    #[default]
    Pentium3,
    /// Everything that is implemented: adds SSE2 and DAZ to a Pentium III. Its family, model and caches are those of a Core i7
    /// (Nehalem), of which libraries know what holds for hosts too: unaligned accesses and repeated string instructions are fast.
    Max,
}

/// What all models have.
const COMMON: u32 = feature::FPU
    | feature::DE
    | feature::PSE
    | feature::TSC
    | feature::MSR
    | feature::PAE
    | feature::CX8
    | feature::SEP
    | feature::MTRR
    | feature::PGE
    | feature::CMOV
    | feature::PAT
    | feature::PSE36
    | feature::MMX
    | feature::FXSR;

/// A processor that does not exist here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no CPU model: use pentium2, pentium3 or max")]
pub struct UnknownModel(pub String);

impl std::str::FromStr for CpuModel {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        match name {
            "pentium2" => Ok(CpuModel::Pentium2),
            "pentium3" => Ok(CpuModel::Pentium3),
            "max" => Ok(CpuModel::Max),
            other => Err(UnknownModel(other.into())),
        }
    }
}

impl CpuModel {
    /// Names of all models, the default first.
    pub const NAMES: [&str; 3] = ["pentium3", "pentium2", "max"];

    /// CPUID leaf 1, EDX.
    #[inline(always)]
    pub const fn features(self) -> u32 {
        match self {
            CpuModel::Pentium2 => COMMON,
            CpuModel::Pentium3 => COMMON | feature::SSE,
            CpuModel::Max => COMMON | feature::SSE | feature::SSE2 | feature::CLFSH,
        }
    }

    /// Whether it has every feature of `bits`, see [`feature`].
    #[inline(always)]
    pub const fn has(self, bits: u32) -> bool {
        self.features() & bits == bits
    }

    /// CPUID leaf 1, EAX: family, model, stepping; also EDX after reset.
    pub const fn signature(self) -> u32 {
        match self {
            CpuModel::Pentium2 => 0x652,
            CpuModel::Pentium3 => 0x673,
            CpuModel::Max => 0x1_06a5,
        }
    }

    /// CPUID leaf 1, EBX: what CLFLUSH flushes, in units of 8 bytes in bits 15-8.
    pub const fn flush_line(self) -> u32 {
        const LINE_OF_64_BYTES: u32 = 8 << 8;
        if self.has(feature::CLFSH) { LINE_OF_64_BYTES } else { 0 }
    }

    /// CPUID leaf 2: TLB and cache descriptors in EAX, EBX, ECX, EDX (16+16 KiB L1 and 512 KiB L2, or 32+32 KiB L1, 256 KiB L2 and
    /// 8 MiB L3).
    pub const fn cache_descriptors(self) -> [u32; 4] {
        match self {
            CpuModel::Pentium2 | CpuModel::Pentium3 => [0x0302_0101, 0, 0, 0x0c04_0843],
            CpuModel::Max => [0x0302_0101, 0, 0xe4, 0x2c04_3021],
        }
    }

    /// CR4 bits that exist; setting another one is #GP.
    pub const fn cr4(self) -> u32 {
        const FOR_FEATURES: [(u32, u32); 3] =
            [(feature::PAE, cr4::PAE), (feature::FXSR, cr4::OSFXSR), (feature::SSE, cr4::OSXMMEXCPT)];
        let mut bits = cr4::TSD | cr4::DE | cr4::PSE | cr4::PGE | cr4::PCE;
        let mut n = 0;
        while n < FOR_FEATURES.len() {
            if self.has(FOR_FEATURES[n].0) {
                bits |= FOR_FEATURES[n].1;
            }
            n += 1;
        }
        bits
    }

    /// MXCSR bits that exist; FXSAVE stores this as MXCSR_MASK (zero there means the Pentium III's).
    pub const fn mxcsr_mask(self) -> u32 {
        use super::fpu::mxcsr;
        let katmai = 0xffff & !mxcsr::DAZ;
        match self {
            CpuModel::Max => katmai | mxcsr::DAZ,
            _ => katmai,
        }
    }
}
