//! What shadow code depends on besides the guest's bytes: the mode it was made for.
//!
//! Everything that would otherwise be checked at every instruction is decided once, here, and is part of the key under which
//! shadow pages are kept.

use super::listing::Snippet;
use crate::cpu::bus::Bus;
use crate::cpu::model::feature;
use crate::cpu::registers::{cr0, cr4, eflags, rights};
use crate::cpu::{Mode as Rights, Seg, Vcpu};

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    bits: u16,
    /// Base of CS: EIP is a linear address minus this.
    pub cs_base: u32,
}

/// CS.D.
const CODE32: u16 = 1 << 0;
/// SS.B.
const STACK32: u16 = 1 << 1;
/// CPL 3.
const USER: u16 = 1 << 2;
/// DS has base 0 and limit 4 GiB, and can be read and written.
const FLAT_DS: u16 = 1 << 3;
/// The same of ES.
const FLAT_ES: u16 = 1 << 4;
/// The same of SS.
const FLAT_SS: u16 = 1 << 5;

/// SSE instructions with XMM registers are there: the model has them and the system knows of them.
const SSE: u16 = 1 << 6;
/// The same of SSE2.
const SSE2: u16 = 1 << 7;

/// Memory is accessed through a window, see [`super::window`].
const WINDOW: u16 = 1 << 8;
/// Loading ES, SS, DS, FS or GS gives a new selector and 16 times that as the base, and changes nothing else: 16-bit code
/// in real or virtual-8086 mode, and all segment registers are as such loads leave them; ES, SS and DS end at 64 KiB.
const SEGMENTED: u16 = 1 << 9;
/// What loads of ES, SS and DS can change.
const OF_SEGMENTS: u16 = STACK32 | FLAT_DS | FLAT_ES | FLAT_SS | SEGMENTED;
/// What code for a window takes for granted.
const FOR_WINDOW: u16 = CODE32 | STACK32 | USER | FLAT_DS | FLAT_ES | FLAT_SS;

/// Why no shadow code runs in the present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// CPL 1 or 2.
    Level,
    /// Alignment checks are on.
    Alignment,
    /// The code segment is neither flat 32-bit nor a 16-bit one of 64 KiB.
    CodeSegment,
}

/// Last offset of a 16-bit code segment.
const LIMIT_16: u32 = 0xffff;

impl Mode {
    /// The mode that the processor is in.
    ///
    /// # Errors
    /// When shadow code cannot run in it.
    #[inline]
    pub fn of<B: Bus>(cpu: &Vcpu<B>) -> Result<Self, NotNow> {
        let cs = cpu.state.segment(Seg::Cs);
        let code32 = cs.big();
        let plain = if code32 {
            cs.base() == 0 && cs.limit() == u32::MAX
        } else {
            cs.limit() >= LIMIT_16 && cs.base().checked_add(LIMIT_16).is_some()
        };
        if !plain || !code32 && cpu.state.eip > LIMIT_16 {
            return Err(NotNow::CodeSegment);
        }
        if matches!(cpu.cpl(), 1 | 2) {
            return Err(NotNow::Level);
        }
        if cpu.mode() == Rights::UserAligned {
            return Err(NotNow::Alignment);
        }
        let knows_xmm = cpu.state.cr4 & cr4::OSFXSR != 0;
        let bit = |on: bool, bit: u16| if on { bit } else { 0 };
        let bits = bit(code32, CODE32)
            | bit(cpu.cpl() == 3, USER)
            | Self::segment_bits(cpu)
            | bit(knows_xmm && cpu.state.model.has(feature::SSE), SSE)
            | bit(knows_xmm && cpu.state.model.has(feature::SSE2), SSE2);
        Ok(Self { bits, cs_base: cs.base() })
    }

    /// The part of a mode that loads of ES, SS and DS can change.
    #[inline]
    fn segment_bits<B: Bus>(cpu: &Vcpu<B>) -> u16 {
        let flat = |seg| Self::is_flat(cpu, seg);
        let bit = |on: bool, bit: u16| if on { bit } else { 0 };
        bit(cpu.stack_is_32bit(), STACK32)
            | bit(flat(Seg::Ds), FLAT_DS)
            | bit(flat(Seg::Es), FLAT_ES)
            | bit(flat(Seg::Ss), FLAT_SS)
            | bit(!cpu.descriptors_used() && !cpu.code_is_32bit() && Self::is_segmented(cpu), SEGMENTED)
    }

    /// Whether a segment has base 0 and limit 4 GiB, and can be read and written.
    #[inline]
    pub fn is_flat<B: Bus>(cpu: &Vcpu<B>, seg: Seg) -> bool {
        let segment = cpu.state.segment(seg);
        segment.base() == 0
            && segment.read_end() > u64::from(u32::MAX)
            && segment.write_end() > u64::from(u32::MAX)
    }

    /// See [`SEGMENTED`].
    #[inline]
    fn is_segmented<B: Bus>(cpu: &Vcpu<B>) -> bool {
        let (wanted, kept) = if cpu.v86() {
            (rights::V86_MODE, 0)
        } else {
            (rights::REAL_MODE, rights::GRANULAR | rights::BIG | rights::AVL)
        };
        let segments = &cpu.state.segments;
        let (all, any) = segments
            .iter()
            .fold((u16::MAX, 0), |(all, any), segment| (all & segment.rights(), any | segment.rights()));
        let limited = |seg: Seg| cpu.state.segment(seg).limit() ^ LIMIT_16;
        let other = limited(Seg::Es) | limited(Seg::Ss) | limited(Seg::Ds);
        let other_in_v86 = limited(Seg::Cs) | limited(Seg::Fs) | limited(Seg::Gs);
        all & !kept == wanted && any & !kept == wanted && other == 0 && (kept != 0 || other_in_v86 == 0)
    }

    /// Whether the processor's segment registers are still as this mode has them, after loads of any but CS.
    #[inline]
    pub fn has_segments_of<B: Bus>(self, cpu: &Vcpu<B>) -> bool {
        self.bits & OF_SEGMENTS == Self::segment_bits(cpu)
    }

    /// The mode of a snippet.
    pub fn made_of(snippet: &Snippet<'_>) -> Self {
        let bit = |on: bool, bits: u16| if on { bits } else { 0 };
        let bits = bit(snippet.code32, CODE32)
            | bit(snippet.stack32, STACK32)
            | bit(snippet.user, USER)
            | bit(snippet.flat, FLAT_DS | FLAT_ES | FLAT_SS)
            | bit(snippet.window, WINDOW)
            | bit(snippet.sse, SSE | SSE2)
            | bit(snippet.segmented, SEGMENTED);
        Self { bits, cs_base: snippet.cs_base }
    }

    /// Operands and addresses are 32-bit by default.
    pub const fn code32(self) -> bool {
        self.bits & CODE32 != 0
    }

    /// The stack pointer is ESP.
    pub const fn stack32(self) -> bool {
        self.bits & STACK32 != 0
    }

    /// Accesses are those of a user.
    pub const fn user(self) -> bool {
        self.bits & USER != 0
    }

    /// Accesses through `seg` need no check and no base.
    pub const fn flat(self, seg: Seg) -> bool {
        match seg {
            Seg::Ds => self.bits & FLAT_DS != 0,
            Seg::Es => self.bits & FLAT_ES != 0,
            Seg::Ss => self.bits & FLAT_SS != 0,
            Seg::Cs | Seg::Fs | Seg::Gs => false,
        }
    }

    /// SSE instructions are there.
    pub const fn sse(self) -> bool {
        self.bits & SSE != 0
    }

    /// SSE2 instructions are there.
    pub const fn sse2(self) -> bool {
        self.bits & SSE2 != 0
    }

    /// Loads of ES, SS, DS, FS and GS change a selector and a base, and nothing else.
    pub const fn segmented(self) -> bool {
        self.bits & SEGMENTED != 0
    }

    /// Whether its code could run in a window (if paging is on).
    pub const fn fits_window(self) -> bool {
        self.bits & FOR_WINDOW == FOR_WINDOW
    }

    /// The same with memory accessed through a window.
    pub const fn in_window(self) -> Self {
        Self { bits: self.bits | WINDOW, ..self }
    }

    /// The same with memory accessed through the direct map, as [`Mode::of`] has it.
    pub const fn without_window(self) -> Self {
        Self { bits: self.bits & !WINDOW, ..self }
    }

    /// Memory is accessed through a window.
    pub const fn window(self) -> bool {
        self.bits & WINDOW != 0
    }

    /// The same for another code segment.
    pub const fn with_cs_base(self, cs_base: u32) -> Self {
        Self { cs_base, ..self }
    }

    /// Linear address of an EIP.
    pub const fn linear(self, eip: u32) -> u32 {
        self.cs_base.wrapping_add(eip)
    }

    /// What of an EIP counts.
    pub const fn eip_mask(self) -> u32 {
        if self.code32() { u32::MAX } else { LIMIT_16 }
    }

    /// EIP of a linear address of an instruction.
    pub const fn eip(self, linear: u32) -> u32 {
        linear.wrapping_sub(self.cs_base) & self.eip_mask()
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |on, yes, no| if on { yes } else { no };
        write!(
            f,
            "{}-bit code, {}-bit stack, {}",
            word(self.code32(), "32", "16"),
            word(self.stack32(), "32", "16"),
            word(self.user(), "user", "supervisor"),
        )?;
        for (seg, name) in [(Seg::Ds, "DS"), (Seg::Es, "ES"), (Seg::Ss, "SS")] {
            if self.flat(seg) {
                write!(f, ", flat {name}")?;
            }
        }
        if self.segmented() {
            write!(f, ", segmented")?;
        }
        if self.window() {
            write!(f, ", in a window")?;
        }
        if self.cs_base != 0 {
            write!(f, ", CS base {:x}", self.cs_base)?;
        }
        Ok(())
    }
}

/// Whether the floating-point instructions of shadow code, which are the host's own, do what the guest's would: no
/// exception can come of them, neither for want of a task switch nor from a result.
pub fn fpu_is_plain<B: Bus>(cpu: &Vcpu<B>) -> bool {
    use crate::cpu::fpu::{fcw, fsw, mxcsr};
    let fpu = &cpu.state.fpu;
    cpu.state.cr0 & (cr0::EM | cr0::TS) == 0
        && fpu.control & fcw::MASKS == fcw::MASKS
        && fpu.status & fsw::ES == 0
        && fpu.mxcsr & mxcsr::MASKS == mxcsr::MASKS
}

/// EFLAGS.DF as a step.
pub const fn direction(flags: u32) -> i64 {
    if flags & eflags::DF != 0 { -1 } else { 1 }
}
