//! The instruction set that is compared: every encoding that iced-x86 knows for 32-bit mode and for the
//! processors of this project, sorted into what must run, what must fault at privilege level 3, and what is
//! left out, with the reason.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic};
use vmm::cpu::CpuModel;
use vmm::cpu::model::feature;

/// How an encoding is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Generated; must have run to its end at least once.
    Run,
    /// Generated; always raises an exception at privilege level 3.
    Faults,
    /// Not generated, for a reason.
    LeftOut(&'static str),
}

/// What the processors have. (iced-x86 names what only others have `..._ONLY` or after those.)
const FEATURES: [CpuidFeature; 23] = [
    CpuidFeature::CLFSH,
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::CPUID,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::FXSR,
    CpuidFeature::MMX,
    CpuidFeature::MSR,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::RDPMC,
    CpuidFeature::SEP,
    CpuidFeature::SMM,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::TSC,
    CpuidFeature::PAUSE,
];

/// How an encoding is treated; `None`: the processors do not have it, or not in 32-bit mode.
pub fn classify(code: Code) -> Option<Class> {
    use Mnemonic as M;
    let info = code.op_code();
    let ours = info.is_instruction()
        && info.mode32()
        && info.encoding() == EncodingKind::Legacy
        && code.cpuid_features().iter().all(|feature| FEATURES.contains(feature));
    if !ours {
        return None;
    }
    Some(match code.mnemonic() {
        M::Cpuid => Class::LeftOut("tells of the host"),
        M::Rdtsc | M::Rdpmc => Class::LeftOut("counts what only the host does"),
        M::Sysenter | M::Sysexit => Class::LeftOut("enters or leaves the host's kernel"),
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => {
            Class::LeftOut("hosts forbid it to user programs (UMIP), and Linux emulates a part of it")
        }
        M::Pause => Class::LeftOut("REP NOP to the processors of this project; compared as NOP"),
        M::Ud0 if code == Code::Ud0 => Class::LeftOut("another view of UD0 with operands"),
        M::Int1 => Class::LeftOut("hypervisors on AMD report another EIP"),
        M::Reservednop
            if matches!(code, Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D) =>
        {
            Class::LeftOut("PREFETCHW to later processors, whose register form is undefined")
        }
        M::Bswap if code == Code::Bswap_r16 => Class::LeftOut("its result is undefined"),
        M::Rsm => Class::Faults,
        _ if info.fwait() => Class::LeftOut("WAIT and an instruction without wait, compared one by one"),
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => Class::Faults,
        M::Ud0 | M::Ud1 | M::Ud2 => Class::Faults,
        _ if info.is_privileged() || !info.cpl3() => Class::Faults,
        _ => Class::Run,
    })
}

/// Whether a model has an encoding, as its CPUID says.
pub fn exists(code: Code, model: CpuModel) -> bool {
    let needed = code.cpuid_features().iter().fold(0, |needed, has| {
        needed
            | match has {
                CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 => feature::FPU,
                CpuidFeature::CMOV => feature::CMOV,
                CpuidFeature::CX8 => feature::CX8,
                CpuidFeature::MMX => feature::MMX,
                CpuidFeature::SSE => feature::SSE,
                CpuidFeature::SSE2 => feature::SSE2,
                CpuidFeature::FXSR => feature::FXSR,
                CpuidFeature::CLFSH => feature::CLFSH,
                _ => 0,
            }
    });
    // WAIT is older than the unit that it waits for.
    let needed = if code == Code::Wait { feature::FPU } else { needed };
    model.has(needed)
}

/// Every encoding of the instruction set.
pub fn all() -> impl Iterator<Item = (Code, Class)> {
    Code::values().filter_map(|code| Some((code, classify(code)?)))
}
