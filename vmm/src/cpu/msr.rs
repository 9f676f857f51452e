//! Model-specific registers (SDM vol. 4, "MSRs in the P6 Family Processors").

use super::fault::{Exec, Fault};
use super::model::feature;
use super::registers::gpr;
use super::{Vcpu, bus::Bus};

/// MSR numbers.
mod number {
    pub(super) const P5_MC_ADDR: u32 = 0x000;
    pub(super) const P5_MC_TYPE: u32 = 0x001;
    pub(super) const TSC: u32 = 0x010;
    pub(super) const PLATFORM_ID: u32 = 0x017;
    pub(super) const EBL_CR_POWERON: u32 = 0x02a;
    pub(super) const BIOS_UPDT_TRIG: u32 = 0x079;
    pub(super) const BIOS_SIGN_ID: u32 = 0x08b;
    pub(super) const PERFCTR0: u32 = 0x0c1;
    pub(super) const PERFCTR1: u32 = 0x0c2;
    pub(super) const BBL_CR_CTL3: u32 = 0x11e;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const PERFEVTSEL0: u32 = 0x186;
    pub(super) const PERFEVTSEL1: u32 = 0x187;
    pub(super) const DEBUGCTL: u32 = 0x1d9;
    pub(super) const LAST_BRANCH_FROM: u32 = 0x1db;
    pub(super) const LAST_BRANCH_TO: u32 = 0x1dc;
    pub(super) const LAST_INT_FROM: u32 = 0x1dd;
    pub(super) const LAST_INT_TO: u32 = 0x1de;
    pub(super) const MTRRCAP: u32 = 0x0fe;
    pub(super) const MTRR_VARIABLE_FIRST: u32 = 0x200;
    pub(super) const MTRR_VARIABLE_LAST: u32 = 0x20f;
    /// MTRRfix64K_00000, MTRRfix16K_80000 and _A0000, MTRRfix4K_C0000 to _F8000.
    pub(super) const MTRR_FIXED: [u32; 11] =
        [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
    pub(super) const PAT: u32 = 0x277;
    pub(super) const MTRR_DEF_TYPE: u32 = 0x2ff;
}

/// The performance counters have 40 bits.
const PERF_COUNTER: u64 = (1 << 40) - 1;
/// DEBUGCTL bits that are kept: LBR, BTF, PB0 to PB3, TR. Branch recording is not done: the
/// branch registers read as zero.
const DEBUGCTL: u32 = 0x7f;

/// What the memory type registers may hold; another value is #GP.
mod memory_type {
    /// Eight variable ranges, fixed ranges, write combining.
    pub(super) const CAPABILITIES: u64 = 0x508;
    /// MTRRphysBase: type and a 36-bit address.
    pub(super) const BASE: u64 = 0xf_ffff_f0ff;
    /// MTRRphysMask: valid bit and a 36-bit mask.
    pub(super) const MASK: u64 = 0xf_ffff_f800;
    /// MTRRdefType: type, FE and E.
    pub(super) const DEFAULT: u64 = 0xcff;

    /// UC, WC, WT, WP, WB.
    pub(super) const fn is_valid(kind: u8) -> bool {
        matches!(kind, 0 | 1 | 4 | 5 | 6)
    }

    /// Those and UC-, in the page attribute table.
    pub(super) const fn is_valid_in_pat(kind: u8) -> bool {
        is_valid(kind) || kind == 7
    }
}

/// `value` if `good`, else #GP.
fn demand(value: u64, good: bool) -> Exec<u64> {
    if good { Ok(value) } else { Err(Fault::gp(0)) }
}

impl<B: Bus> Vcpu<B> {
    fn read_memory_type(&self, selected: u32) -> Exec<u64> {
        if !self.state.model.has(feature::MTRR | feature::PAT) {
            return Err(Fault::gp(0));
        }
        let types = &self.state.msr.memory_types;
        let fixed = number::MTRR_FIXED.iter().position(|fixed| *fixed == selected);
        match (selected, fixed) {
            (_, Some(n)) => types.fixed.get(n).copied().ok_or(Fault::gp(0)),
            (number::MTRRCAP, _) => Ok(memory_type::CAPABILITIES),
            (number::MTRR_VARIABLE_FIRST..=number::MTRR_VARIABLE_LAST, _) => {
                Ok(types.variable[(selected - number::MTRR_VARIABLE_FIRST) as usize])
            }
            (number::MTRR_DEF_TYPE, _) => Ok(types.default_type),
            (number::PAT, _) => Ok(types.pat),
            _ => Err(Fault::gp(0)),
        }
    }

    fn write_memory_type(&mut self, selected: u32, value: u64) -> Exec {
        if !self.state.model.has(feature::MTRR | feature::PAT) {
            return Err(Fault::gp(0));
        }
        let types = &mut self.state.msr.memory_types;
        let all = |valid: fn(u8) -> bool| value.to_le_bytes().into_iter().all(valid);
        let low_type = memory_type::is_valid(value as u8);
        let fixed = number::MTRR_FIXED.iter().position(|fixed| *fixed == selected);
        match (selected, fixed) {
            (_, Some(n)) => {
                let value = demand(value, all(memory_type::is_valid))?;
                if let Some(register) = types.fixed.get_mut(n) {
                    *register = value;
                }
            }
            (number::MTRR_VARIABLE_FIRST..=number::MTRR_VARIABLE_LAST, _) => {
                let n = (selected - number::MTRR_VARIABLE_FIRST) as usize;
                let is_base = n.is_multiple_of(2);
                let allowed = if is_base { memory_type::BASE } else { memory_type::MASK };
                types.variable[n] = demand(value, value & !allowed == 0 && (!is_base || low_type))?;
            }
            (number::MTRR_DEF_TYPE, _) => {
                types.default_type = demand(value, value & !memory_type::DEFAULT == 0 && low_type)?;
            }
            (number::PAT, _) => types.pat = demand(value, all(memory_type::is_valid_in_pat))?,
            _ => return Err(Fault::gp(0)),
        }
        Ok(())
    }

    /// RDMSR of the register in ECX: result in EDX:EAX.
    pub fn rdmsr(&mut self) -> Exec {
        self.demand_cpl0()?;
        let msr = self.state.msr;
        let value = match self.state.gpr[gpr::ECX] {
            number::TSC => self.time_stamp(),
            number::P5_MC_ADDR
            | number::P5_MC_TYPE
            | number::PLATFORM_ID
            | number::LAST_BRANCH_FROM
            | number::LAST_BRANCH_TO
            | number::LAST_INT_FROM
            | number::LAST_INT_TO => 0,
            number::EBL_CR_POWERON => u64::from(msr.ebl_cr_poweron),
            number::BIOS_SIGN_ID => msr.bios_sign,
            number::PERFCTR0 => msr.perf_counter[0],
            number::PERFCTR1 => msr.perf_counter[1],
            number::BBL_CR_CTL3 => msr.bbl_cr_ctl3,
            number::SYSENTER_CS => u64::from(msr.sysenter_cs),
            number::SYSENTER_ESP => u64::from(msr.sysenter_esp),
            number::SYSENTER_EIP => u64::from(msr.sysenter_eip),
            number::PERFEVTSEL0 => u64::from(msr.perf_select[0]),
            number::PERFEVTSEL1 => u64::from(msr.perf_select[1]),
            number::DEBUGCTL => u64::from(msr.debugctl),
            other => self.read_memory_type(other)?,
        };
        self.set_edx_eax(value);
        Ok(())
    }

    /// WRMSR of EDX:EAX to the register in ECX.
    pub fn wrmsr(&mut self) -> Exec {
        self.demand_cpl0()?;
        let low = self.state.gpr[gpr::EAX];
        let value = u64::from(low) | u64::from(self.state.gpr[gpr::EDX]) << 32;
        let selected = self.state.gpr[gpr::ECX];
        if selected == number::TSC {
            // The P6 family can only write the low half; the high half is cleared.
            let running = self.time_stamp().wrapping_sub(self.state.msr.tsc_offset);
            self.state.msr.tsc_offset = u64::from(low).wrapping_sub(running);
            return Ok(());
        }
        let msr = &mut self.state.msr;
        // A written counter is sign-extended from 32 bits.
        let counter = i64::from(low.cast_signed()).cast_unsigned() & PERF_COUNTER;
        match selected {
            number::P5_MC_ADDR | number::P5_MC_TYPE => {}
            // A microcode update that is offered is taken, and changes nothing.
            number::BIOS_UPDT_TRIG => {}
            number::EBL_CR_POWERON => msr.ebl_cr_poweron = low,
            number::BIOS_SIGN_ID => msr.bios_sign = value,
            number::PERFCTR0 => msr.perf_counter[0] = counter,
            number::PERFCTR1 => msr.perf_counter[1] = counter,
            number::BBL_CR_CTL3 => msr.bbl_cr_ctl3 = value,
            number::SYSENTER_CS => msr.sysenter_cs = low,
            number::SYSENTER_ESP => msr.sysenter_esp = low,
            number::SYSENTER_EIP => msr.sysenter_eip = low,
            number::PERFEVTSEL0 => msr.perf_select[0] = low,
            number::PERFEVTSEL1 => msr.perf_select[1] = low,
            number::DEBUGCTL => msr.debugctl = low & DEBUGCTL,
            other => self.write_memory_type(other, value)?,
        }
        Ok(())
    }
}
