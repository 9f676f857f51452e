//! The architectural state: plain data that can be saved, compared and put back.

use super::fpu::FpuState;
use super::model::CpuModel;
use super::registers::{Seg, cr0, cr3, dr6, dr7, eflags, gpr, rights};
use serde::{Deserialize, Serialize};

/// A segment register (also LDTR and TR) with its hidden part.
///
/// `rights` holds the descriptor's attributes as [`rights`] names them; a register without
/// `PRESENT` was loaded with a null selector and is not usable. The limit is in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Attributes, see [`rights`].
    rights: u16,
    /// Linear address of offset zero.
    base: u32,
    /// Last offset (expand-up) or last offset that is not part of it (expand-down).
    limit: u32,
    /// Reads that end at or below this offset need no further check (zero: all need it).
    read_end: u64,
    /// The same for writes.
    write_end: u64,
}

impl Segment {
    /// A register with that content.
    pub const fn new(selector: u16, rights: u16, base: u32, limit: u32) -> Self {
        let attributes = rights;
        let usable = attributes & rights::PRESENT != 0 && attributes & rights::NOT_SYSTEM != 0;
        let code = attributes & rights::CODE != 0;
        let expand_up = code || attributes & rights::EXPAND_DOWN == 0;
        let readable = usable && (!code || attributes & rights::READABLE != 0);
        let writable = usable && !code && attributes & rights::WRITABLE != 0;
        let end = limit as u64 + 1;
        Self {
            selector,
            rights: attributes,
            base,
            limit,
            read_end: if readable && expand_up { end } else { 0 },
            write_end: if writable && expand_up { end } else { 0 },
        }
    }

    /// A register that was loaded with a null selector.
    pub const fn null(selector: u16) -> Self {
        Self::new(selector, 0, 0, 0)
    }

    /// What loading `selector` gives in real mode: the limit and the attributes G and D/B stay as
    /// they were, which is what "unreal" mode lives on.
    pub const fn real_mode(self, selector: u16) -> Self {
        let kept = self.rights & (rights::GRANULAR | rights::BIG | rights::AVL);
        Self::new(selector, kept | rights::REAL_MODE, (selector as u32) << 4, self.limit)
    }

    /// [`Segment::real_mode`] in place: only what changes is written, and nothing is read that has just been.
    #[inline]
    pub const fn load_real_mode(&mut self, selector: u16) {
        let kept = self.rights & (rights::GRANULAR | rights::BIG | rights::AVL);
        let end = self.limit as u64 + 1;
        self.selector = selector;
        self.rights = kept | rights::REAL_MODE;
        self.base = (selector as u32) << 4;
        self.read_end = end;
        self.write_end = end;
    }

    /// What loading `selector` gives in virtual-8086 mode.
    pub const fn v86_mode(selector: u16) -> Self {
        Self::new(selector, rights::V86_MODE, (selector as u32) << 4, 0xffff)
    }

    /// Where in this structure [`Segment::base`] lies, for translated code.
    pub const BASE_AT: usize = std::mem::offset_of!(Self, base);
    /// Where [`Segment::read_end`] lies.
    pub const READ_END_AT: usize = std::mem::offset_of!(Self, read_end);
    /// Where [`Segment::write_end`] lies.
    pub const WRITE_END_AT: usize = std::mem::offset_of!(Self, write_end);

    /// Linear address of offset zero.
    #[inline(always)]
    pub const fn base(&self) -> u32 {
        self.base
    }

    /// The limit in bytes.
    #[inline(always)]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Attributes, see [`rights`].
    #[inline(always)]
    pub const fn rights(&self) -> u16 {
        self.rights
    }

    /// Reads whose exclusive end (as u64) is not above this are within the segment.
    #[inline(always)]
    pub const fn read_end(&self) -> u64 {
        self.read_end
    }

    /// The same for writes.
    #[inline(always)]
    pub const fn write_end(&self) -> u64 {
        self.write_end
    }

    /// Not loaded with a null selector.
    #[inline(always)]
    pub const fn usable(&self) -> bool {
        self.rights & rights::PRESENT != 0
    }

    /// D/B: 32-bit code, or a stack addressed by ESP.
    #[inline(always)]
    pub const fn big(&self) -> bool {
        self.rights & rights::BIG != 0
    }

    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        ((self.rights & rights::DPL) >> rights::DPL_SHIFT) as u8
    }

    /// Base 0, limit 4 GiB - 1, readable and writable without any check.
    #[inline(always)]
    pub const fn flat(&self) -> bool {
        self.base == 0 && self.limit == u32::MAX && self.read_end != 0
    }

    /// Whether an access of `len` bytes at `offset` lies within the segment and is of an allowed kind.
    pub const fn allows(&self, offset: u32, len: u32, write: bool) -> bool {
        let code = self.rights & rights::CODE != 0;
        let kind = if write {
            !code && self.rights & rights::WRITABLE != 0
        } else {
            !code || self.rights & rights::READABLE != 0
        };
        kind && self.rights & rights::NOT_SYSTEM != 0 && self.usable() && self.contains(offset, len)
    }

    /// Whether `len` bytes (not zero) at `offset` lie within the limit.
    pub const fn contains(&self, offset: u32, len: u32) -> bool {
        let Some(last) = offset.checked_add(len.saturating_sub(1)) else { return false };
        let data = self.rights & (rights::NOT_SYSTEM | rights::CODE) == rights::NOT_SYSTEM;
        if data && self.rights & rights::EXPAND_DOWN != 0 {
            let top = if self.big() { u32::MAX } else { 0xffff };
            offset > self.limit && last <= top
        } else {
            last <= self.limit
        }
    }
}

/// GDTR or IDTR.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address of the table.
    pub base: u32,
    /// Offset of its last byte.
    pub limit: u16,
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// HLT: waits for an interrupt.
    Halted,
    /// Triple fault: waits for reset.
    Shutdown,
}

/// The boundary after these instructions is not one where interrupts are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum InterruptShadow {
    /// Interrupts are taken.
    #[default]
    None,
    /// STI that set IF: maskable interrupts wait.
    Sti,
    /// MOV SS or POP SS: interrupts, NMI and debug traps wait.
    MovSs,
}

/// Model-specific registers with state (see `msr.rs` for their numbers).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpecific {
    /// Added to the ticks of virtual time to give the time-stamp counter.
    pub tsc_offset: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u32,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u32,
    /// EBL_CR_POWERON.
    pub ebl_cr_poweron: u32,
    /// IA32_BIOS_SIGN_ID.
    pub bios_sign: u64,
    /// BBL_CR_CTL3.
    pub bbl_cr_ctl3: u64,
    /// DEBUGCTLMSR.
    pub debugctl: u32,
    /// PERFEVTSEL0 and 1.
    pub perf_select: [u32; 2],
    /// PERFCTR0 and 1; no event is counted.
    pub perf_counter: [u64; 2],
    /// Memory type range registers and page attribute table: kept, as every access is cached alike.
    pub memory_types: MemoryTypes,
}

/// MTRRs and PAT (SDM vol. 3, "Memory Cache Control").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryTypes {
    /// MTRRphysBase and MTRRphysMask, in turn.
    pub variable: [u64; 16],
    /// The fixed-range registers in the order of their numbers.
    pub fixed: [u64; 11],
    /// MTRRdefType.
    pub default_type: u64,
    /// The page attribute table.
    pub pat: u64,
}

impl MemoryTypes {
    /// PAT after RESET#: WB, WT, UC-, UC, and again.
    const PAT_AFTER_RESET: u64 = 0x0007_0406_0007_0406;
}

impl Default for MemoryTypes {
    fn default() -> Self {
        Self { variable: [0; 16], fixed: [0; 11], default_type: 0, pat: Self::PAT_AFTER_RESET }
    }
}

/// Everything that instructions can see or change, apart from memory.
///
/// Arithmetic flags may be kept lazily by an engine: use [`super::Vcpu::flags`].
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// General registers, indexed by encoding (see [`gpr`]).
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// EFLAGS; its arithmetic flags may be out of date while an engine runs.
    pub eflags: u32,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// Control register 0.
    pub cr0: u32,
    /// Page-fault linear address.
    pub cr2: u32,
    /// Page directory base.
    pub cr3: u32,
    /// The page-directory-pointer registers of PAE paging.
    pub pdpte: [u64; super::paging::POINTERS],
    /// Control register 4.
    pub cr4: u32,
    /// Debug registers; 4 and 5 are not used.
    pub dr: [u32; 8],
    /// Current privilege level; 0 in real mode, 3 in virtual-8086 mode.
    pub cpl: u8,
    /// Running, halted or shut down.
    pub activity: Activity,
    /// Set by the instruction that was executed last; an engine clears it when it starts the next one.
    pub interrupt_shadow: InterruptShadow,
    /// An NMI waits for delivery.
    pub nmi_pending: bool,
    /// An NMI handler runs: no further NMI until IRET.
    pub nmi_blocked: bool,
    /// DR6 bits of data breakpoints hit and task switches made by the current instruction; a
    /// debug trap follows it.
    pub pending_debug: u32,
    /// Model-specific registers.
    pub msr: ModelSpecific,
    /// x87, MMX and SSE.
    pub fpu: FpuState,
    /// Which processor this is.
    pub model: CpuModel,
}

/// A saved state that no processor can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid processor state: {0}")]
pub struct InvalidState(pub &'static str);

impl CpuState {
    /// State after power-on or RESET# (SDM vol. 3, "Processor State After Reset").
    pub fn at_reset(model: CpuModel) -> Self {
        let data = Segment::new(0, rights::REAL_MODE, 0, 0xffff);
        let mut segments = [data; 6];
        segments[Seg::Cs as usize] = Segment::new(0xf000, rights::REAL_MODE, 0xffff_0000, 0xffff);
        let mut registers = [0; 8];
        registers[gpr::EDX] = model.signature();
        let mut dr = [0; 8];
        dr[6] = dr6::FIXED_ONE;
        dr[7] = dr7::FIXED_ONE;
        Self {
            gpr: registers,
            eip: 0xfff0,
            eflags: eflags::FIXED,
            segments,
            ldtr: Segment::new(0, rights::PRESENT | 2, 0, 0xffff),
            tr: Segment::new(0, rights::PRESENT | 11, 0, 0xffff),
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            cr0: cr0::CD | cr0::NW | cr0::ET,
            cr2: 0,
            cr3: 0,
            pdpte: [0; super::paging::POINTERS],
            cr4: 0,
            dr,
            cpl: 0,
            activity: Activity::Running,
            interrupt_shadow: InterruptShadow::None,
            nmi_pending: false,
            nmi_blocked: false,
            pending_debug: 0,
            msr: ModelSpecific::default(),
            fpu: FpuState::at_reset(),
            model,
        }
    }

    /// A segment register.
    #[inline(always)]
    pub const fn segment(&self, seg: Seg) -> &Segment {
        &self.segments[seg as usize]
    }

    /// CR0.PE.
    #[inline(always)]
    pub const fn protected(&self) -> bool {
        self.cr0 & cr0::PE != 0
    }

    /// EFLAGS.VM (only ever set in protected mode).
    #[inline(always)]
    pub const fn v86(&self) -> bool {
        self.eflags & eflags::VM != 0
    }

    /// I/O privilege level.
    #[inline(always)]
    pub const fn iopl(&self) -> u8 {
        ((self.eflags & eflags::IOPL) >> eflags::IOPL_SHIFT) as u8
    }

    /// Checks a state that was read from outside and brings its derived fields in order.
    pub fn validated(mut self) -> Result<Self, InvalidState> {
        if self.cpl > 3 {
            return Err(InvalidState("privilege level above 3"));
        }
        if self.cr0 & cr0::PG != 0 && self.cr0 & cr0::PE == 0 {
            return Err(InvalidState("paging without protection"));
        }
        if self.v86() && (!self.protected() || self.cpl != 3) {
            return Err(InvalidState("virtual-8086 mode without protected mode at level 3"));
        }
        if !self.protected() && self.cpl != 0 {
            return Err(InvalidState("real mode not at privilege level 0"));
        }
        self.eflags = self.eflags & eflags::DEFINED | eflags::FIXED;
        self.cr0 = self.cr0 & cr0::WRITABLE | cr0::ET;
        self.cr4 &= self.model.cr4();
        self.cr3 &= cr3::WRITABLE;
        self.pdpte = self.pdpte.map(|pointer| pointer & super::paging::POINTER_DEFINED);
        self.dr[6] = self.dr[6] & dr6::WRITABLE | dr6::FIXED_ONE;
        self.dr[7] = self.dr[7] & dr7::WRITABLE | dr7::FIXED_ONE;
        self.pending_debug &= dr6::WRITABLE;
        let renewed = |s: Segment| Segment::new(s.selector, s.rights & rights::DEFINED, s.base, s.limit);
        self.segments = self.segments.map(renewed);
        self.ldtr = renewed(self.ldtr);
        self.tr = renewed(self.tr);
        self.fpu = self.fpu.validated(self.model);
        Ok(self)
    }
}
