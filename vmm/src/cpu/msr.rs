//! Model-specific registers (SDM vol. 4, "MSRs in the P6 Family Processors").

use super::fault::{Exec, Fault};
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
}

/// The performance counters have 40 bits.
const PERF_COUNTER: u64 = (1 << 40) - 1;
/// DEBUGCTL bits that are kept: LBR, BTF, PB0 to PB3, TR. Branch recording is not done: the
/// branch registers read as zero.
const DEBUGCTL: u32 = 0x7f;

impl<B: Bus> Vcpu<B> {
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
            _ => return Err(Fault::gp(0)),
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
            _ => return Err(Fault::gp(0)),
        }
        Ok(())
    }
}
