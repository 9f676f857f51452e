//! The state of the floating-point unit: x87 registers, which MMX shares, and those of SSE (SDM vol. 1,
//! chapters 8 to 11). What instructions do with it is in `interp/ops`.

use super::Vcpu;
use super::bus::Bus;
use super::fault::{Exec, Fault};
use super::model::CpuModel;
use super::registers::cr0;
use crate::softfloat::F80;
use crate::softfloat::x87::ValueKind;
use serde::{Deserialize, Serialize};

/// x87 control word.
pub mod fcw {
    /// The six exception masks IM, DM, ZM, OM, UM, PM.
    pub const MASKS: u16 = 0x3f;
    /// Precision control.
    pub const PC: u16 = 3 << PC_SHIFT;
    /// Where precision control starts.
    pub const PC_SHIFT: u16 = 8;
    /// Rounding control.
    pub const RC: u16 = 3 << RC_SHIFT;
    /// Where rounding control starts.
    pub const RC_SHIFT: u16 = 10;
    /// Bit 6 reads as one since the 287.
    pub const FIXED_ONE: u16 = 1 << 6;
    /// Infinity control of the 287: stored, without effect.
    pub const X: u16 = 1 << 12;
    /// Every bit that FLDCW changes.
    pub const WRITABLE: u16 = MASKS | PC | RC | X;
    /// After FNINIT.
    pub const AFTER_INIT: u16 = 0x037f;
    /// After RESET#.
    pub const AFTER_RESET: u16 = FIXED_ONE;

    /// A control word as the unit keeps it.
    pub const fn kept(value: u16) -> u16 {
        value & WRITABLE | FIXED_ONE
    }
}

/// x87 status word.
pub mod fsw {
    /// The six exception flags IE, DE, ZE, OE, UE, PE.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// Stack fault.
    pub const SF: u16 = 1 << 6;
    /// Error summary: an unmasked exception is pending.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1: direction of rounding, or of a stack fault.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Number of the register that is ST(0).
    pub const TOP: u16 = 7 << TOP_SHIFT;
    /// Where TOP starts.
    pub const TOP_SHIFT: u16 = 11;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// Busy: a copy of ES.
    pub const B: u16 = 1 << 15;
    /// All condition codes.
    pub const CONDITIONS: u16 = C0 | C1 | C2 | C3;
    /// What FNCLEX clears.
    pub const CLEARED: u16 = EXCEPTIONS | SF | ES | B;
}

/// Bits of an instruction's opcode that FOP has.
pub const OPCODE: u16 = 0x7ff;

/// The two bits of a register in the full tag word.
pub mod tag {
    /// A normal value.
    pub const VALID: u16 = 0;
    /// Zero.
    pub const ZERO: u16 = 1;
    /// Anything else.
    pub const SPECIAL: u16 = 2;
    /// Empty.
    pub const EMPTY: u16 = 3;
}

/// SSE control and status register.
pub mod mxcsr {
    /// The six exception flags IE, DE, ZE, OE, UE, PE.
    pub const EXCEPTIONS: u32 = 0x3f;
    /// Denormals are zeros (reserved on processors whose MXCSR_MASK says so).
    pub const DAZ: u32 = 1 << 6;
    /// The six exception masks.
    pub const MASKS: u32 = 0x3f << MASKS_SHIFT;
    /// Where the masks start.
    pub const MASKS_SHIFT: u32 = 7;
    /// Rounding control.
    pub const RC: u32 = 3 << RC_SHIFT;
    /// Where rounding control starts.
    pub const RC_SHIFT: u32 = 13;
    /// Flush to zero.
    pub const FZ: u32 = 1 << 15;
    /// After RESET#.
    pub const AFTER_RESET: u32 = MASKS;
}

/// Everything of the x87, MMX and SSE units that instructions can see.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FpuState {
    /// XMM0 to XMM7.
    pub xmm: [u128; 8],
    /// R0 to R7 as they are numbered physically: ST(i) is R((TOP + i) mod 8), MMi is the significand of Ri.
    pub registers: [F80; 8],
    /// Control word, see [`fcw`].
    pub control: u16,
    /// Status word with TOP, see [`fsw`]; ES and B follow from flags and masks.
    pub status: u16,
    /// Bit i: Ri is not empty (the abridged tag word of FXSAVE).
    pub valid: u8,
    /// Opcode of the last non-control instruction: 11 bits.
    pub opcode: u16,
    /// CS of the last non-control instruction.
    pub instruction_selector: u16,
    /// EIP of the last non-control instruction.
    pub instruction_offset: u32,
    /// Segment of its memory operand.
    pub operand_selector: u16,
    /// Offset of its memory operand.
    pub operand_offset: u32,
    /// SSE control and status, see [`mxcsr`].
    pub mxcsr: u32,
}

impl FpuState {
    /// After RESET#: all registers zero and valid.
    pub const fn at_reset() -> Self {
        Self {
            xmm: [0; 8],
            registers: [F80 { significand: 0, sign_exponent: 0 }; 8],
            control: fcw::AFTER_RESET,
            status: 0,
            valid: 0xff,
            opcode: 0,
            instruction_selector: 0,
            instruction_offset: 0,
            operand_selector: 0,
            operand_offset: 0,
            mxcsr: mxcsr::AFTER_RESET,
        }
    }

    /// Number of the register that is ST(0).
    #[inline(always)]
    pub const fn top(&self) -> u8 {
        ((self.status & fsw::TOP) >> fsw::TOP_SHIFT) as u8
    }

    /// Makes R`top` (modulo 8) ST(0).
    #[inline(always)]
    pub const fn set_top(&mut self, top: u8) {
        self.status = self.status & !fsw::TOP | ((top & 7) as u16) << fsw::TOP_SHIFT;
    }

    /// MMi, the significand of Ri.
    #[inline(always)]
    pub const fn mm(&self, register: u8) -> &u64 {
        &self.registers[(register & 7) as usize].significand
    }

    /// MMi to be written: sign and exponent of Ri become ones.
    #[inline(always)]
    pub const fn mm_mut(&mut self, register: u8) -> &mut u64 {
        let register = &mut self.registers[(register & 7) as usize];
        register.sign_exponent = u16::MAX;
        &mut register.significand
    }

    /// What every MMX instruction but EMMS does: all registers are valid, R0 is ST(0).
    #[inline(always)]
    pub const fn enter_mmx(&mut self) {
        self.valid = u8::MAX;
        self.status &= !fsw::TOP;
    }

    /// EMMS: all registers are empty.
    #[inline(always)]
    pub const fn leave_mmx(&mut self) {
        self.valid = 0;
        self.status &= !fsw::TOP;
    }

    /// Number of the register that is ST(`i`).
    #[inline(always)]
    const fn physical(&self, i: u8) -> u8 {
        (self.top() + i) & 7
    }

    /// Whether ST(`i`) is empty.
    #[inline(always)]
    pub const fn is_empty(&self, i: u8) -> bool {
        self.valid >> self.physical(i) & 1 == 0
    }

    /// ST(`i`), empty or not.
    #[inline(always)]
    pub const fn st(&self, i: u8) -> F80 {
        self.registers[self.physical(i) as usize]
    }

    /// Sets ST(`i`), which is no longer empty.
    #[inline(always)]
    pub const fn set_st(&mut self, i: u8, value: F80) {
        let register = self.physical(i);
        self.registers[register as usize] = value;
        self.valid |= 1 << register;
    }

    /// Makes ST(`i`) empty.
    #[inline(always)]
    pub const fn free(&mut self, i: u8) {
        self.valid &= !(1 << self.physical(i));
    }

    /// Empties ST(0) and makes ST(1) ST(0).
    #[inline(always)]
    pub const fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    /// Makes `value` ST(0), and what was that ST(1).
    #[inline(always)]
    pub const fn push(&mut self, value: F80) {
        self.set_top(self.top().wrapping_sub(1));
        self.set_st(0, value);
    }

    /// The full tag word, see [`tag`]: two bits for each of R0 to R7.
    pub fn tag_word(&self) -> u16 {
        let tags = self.registers.iter().enumerate().map(|(n, value)| {
            let tag = if self.valid >> n & 1 == 0 {
                tag::EMPTY
            } else {
                match value.kind() {
                    ValueKind::Normal => tag::VALID,
                    ValueKind::Zero => tag::ZERO,
                    _ => tag::SPECIAL,
                }
            };
            tag << (2 * n)
        });
        tags.sum()
    }

    /// Makes those registers empty that a full tag word says are.
    pub fn set_tag_word(&mut self, tags: u16) {
        self.valid = 0;
        for n in 0..8 {
            if tags >> (2 * n) & tag::EMPTY != tag::EMPTY {
                self.valid |= 1 << n;
            }
        }
    }

    /// Brings ES and B in line with flags and masks. Whether an unmasked exception is pending.
    pub const fn summarize(&mut self) -> bool {
        const SUMMARY: u16 = fsw::ES | fsw::B;
        let pending = self.status & !self.control & fsw::EXCEPTIONS != 0;
        self.status = self.status & !SUMMARY | if pending { SUMMARY } else { 0 };
        pending
    }

    /// A state that was read from outside, as the unit of `model` can have it.
    pub(super) fn validated(mut self, model: CpuModel) -> Self {
        self.control = fcw::kept(self.control);
        self.summarize();
        self.opcode &= OPCODE;
        self.mxcsr &= model.mxcsr_mask();
        self
    }

    /// FNINIT.
    pub const fn initialize(&mut self) {
        self.control = fcw::AFTER_INIT;
        self.status = 0;
        self.valid = 0;
        self.opcode = 0;
        self.instruction_selector = 0;
        self.instruction_offset = 0;
        self.operand_selector = 0;
        self.operand_offset = 0;
    }
}

impl<B: Bus> Vcpu<B> {
    /// Before every waiting x87 instruction, WAIT and every MMX instruction: reports an unmasked exception that an
    /// earlier instruction left, as #MF or, with CR0.NE clear, by waiting for the interrupt that FERR# causes.
    #[inline(always)]
    pub fn check_fpu_error(&mut self) -> Exec {
        if self.state.fpu.status & fsw::ES == 0 { Ok(()) } else { self.report_fpu_error() }
    }

    #[cold]
    fn report_fpu_error(&mut self) -> Exec {
        if self.state.cr0 & cr0::NE != 0 {
            return Err(Fault::mf());
        }
        self.bus.set_ferr(true);
        if self.bus.ignne() { Ok(()) } else { Err(Fault::retry()) }
    }

    /// Brings ES, B and FERR# in line with flags and masks, after either have changed.
    pub fn update_fpu_summary(&mut self) {
        let pending = self.state.fpu.summarize();
        let external = self.state.cr0 & cr0::NE == 0;
        self.bus.set_ferr(pending && external);
    }
}
