//! Names of the bits and numbers of the processor's registers (Intel SDM vol. 3, "System Architecture Overview").

use serde::{Deserialize, Serialize};

/// General registers by their encoding in instructions (index into [`super::CpuState::gpr`]).
pub mod gpr {
    /// EAX.
    pub const EAX: usize = 0;
    /// ECX.
    pub const ECX: usize = 1;
    /// EDX.
    pub const EDX: usize = 2;
    /// EBX.
    pub const EBX: usize = 3;
    /// ESP.
    pub const ESP: usize = 4;
    /// EBP.
    pub const EBP: usize = 5;
    /// ESI.
    pub const ESI: usize = 6;
    /// EDI.
    pub const EDI: usize = 7;
}

/// Segment registers by their encoding in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Seg {
    /// Extra segment.
    Es = 0,
    /// Code segment.
    Cs = 1,
    /// Stack segment.
    Ss = 2,
    /// Data segment.
    Ds = 3,
    /// Extra segment of the 386.
    Fs = 4,
    /// Extra segment of the 386.
    Gs = 5,
}

impl Seg {
    /// All of them, in the order of their encoding.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];

    /// The segment register with this encoding; 6 and 7 encode none.
    pub const fn from_encoding(encoding: u8) -> Option<Seg> {
        match encoding {
            0 => Some(Seg::Es),
            1 => Some(Seg::Cs),
            2 => Some(Seg::Ss),
            3 => Some(Seg::Ds),
            4 => Some(Seg::Fs),
            5 => Some(Seg::Gs),
            _ => None,
        }
    }
}

/// EFLAGS bits.
pub mod eflags {
    /// Carry.
    pub const CF: u32 = 1 << 0;
    /// Always one.
    pub const FIXED: u32 = 1 << 1;
    /// Parity of the low byte.
    pub const PF: u32 = 1 << 2;
    /// Carry out of bit 3.
    pub const AF: u32 = 1 << 4;
    /// Zero.
    pub const ZF: u32 = 1 << 6;
    /// Sign.
    pub const SF: u32 = 1 << 7;
    /// Single-step trap.
    pub const TF: u32 = 1 << 8;
    /// Interrupts enabled.
    pub const IF: u32 = 1 << 9;
    /// String direction: down.
    pub const DF: u32 = 1 << 10;
    /// Signed overflow.
    pub const OF: u32 = 1 << 11;
    /// I/O privilege level (two bits).
    pub const IOPL: u32 = 3 << 12;
    /// Where the I/O privilege level starts.
    pub const IOPL_SHIFT: u32 = 12;
    /// Nested task.
    pub const NT: u32 = 1 << 14;
    /// Resume: no instruction breakpoint at the next instruction.
    pub const RF: u32 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u32 = 1 << 17;
    /// Alignment check.
    pub const AC: u32 = 1 << 18;
    /// Virtual interrupt flag (VME; not offered by this processor, but the bit is stored).
    pub const VIF: u32 = 1 << 19;
    /// Virtual interrupt pending (see [`VIF`]).
    pub const VIP: u32 = 1 << 20;
    /// Can be toggled: CPUID exists.
    pub const ID: u32 = 1 << 21;

    /// The six arithmetic flags, those that an engine may keep lazily.
    pub const ARITHMETIC: u32 = CF | PF | AF | ZF | SF | OF;
    /// Every bit that exists; the others read as zero, [`FIXED`] as one.
    pub const DEFINED: u32 = ARITHMETIC | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

/// CR0 bits.
pub mod cr0 {
    /// Protection enabled.
    pub const PE: u32 = 1 << 0;
    /// Monitor coprocessor: WAIT obeys TS.
    pub const MP: u32 = 1 << 1;
    /// Emulation: every floating-point instruction raises #NM.
    pub const EM: u32 = 1 << 2;
    /// Task switched.
    pub const TS: u32 = 1 << 3;
    /// Extension type, fixed to one since the 486.
    pub const ET: u32 = 1 << 4;
    /// Numeric errors are reported as #MF.
    pub const NE: u32 = 1 << 5;
    /// Supervisor writes obey page protection.
    pub const WP: u32 = 1 << 16;
    /// Alignment checks possible.
    pub const AM: u32 = 1 << 18;
    /// Not write-through.
    pub const NW: u32 = 1 << 29;
    /// Cache disabled.
    pub const CD: u32 = 1 << 30;
    /// Paging enabled.
    pub const PG: u32 = 1 << 31;
    /// Every bit that software can change.
    pub const WRITABLE: u32 = PE | MP | EM | TS | NE | WP | AM | NW | CD | PG;
    /// What LMSW can change.
    pub const LMSW: u32 = PE | MP | EM | TS;
}

/// CR3 bits.
pub mod cr3 {
    /// Two-level paging: where the page directory is.
    pub const DIRECTORY: u32 = 0xffff_f000;
    /// PAE paging: where the table of directory pointers is.
    pub const POINTER_TABLE: u32 = 0xffff_ffe0;
    /// What is kept of a written value, whatever the kind of paging: it may be switched on later.
    pub const WRITABLE: u32 = POINTER_TABLE | PWT | PCD;
    /// Page-level write-through.
    pub const PWT: u32 = 1 << 3;
    /// Page-level cache disable.
    pub const PCD: u32 = 1 << 4;
}

/// CR4 bits.
pub mod cr4 {
    /// Virtual-8086 extensions.
    pub const VME: u32 = 1 << 0;
    /// Protected-mode virtual interrupts.
    pub const PVI: u32 = 1 << 1;
    /// RDTSC is privileged.
    pub const TSD: u32 = 1 << 2;
    /// Debugging extensions: I/O breakpoints, DR4 and DR5 do not exist.
    pub const DE: u32 = 1 << 3;
    /// 4 MiB pages.
    pub const PSE: u32 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u32 = 1 << 5;
    /// Machine check enable.
    pub const MCE: u32 = 1 << 6;
    /// Global pages.
    pub const PGE: u32 = 1 << 7;
    /// RDPMC allowed at every privilege level.
    pub const PCE: u32 = 1 << 8;
    /// The operating system uses FXSAVE.
    pub const OSFXSR: u32 = 1 << 9;
    /// The operating system handles #XM.
    pub const OSXMMEXCPT: u32 = 1 << 10;
}

/// DR6 bits.
pub mod dr6 {
    /// The four conditions B0 to B3.
    pub const B: u32 = 0xf;
    /// A debug register was accessed while DR7.GD was set.
    pub const BD: u32 = 1 << 13;
    /// Single step.
    pub const BS: u32 = 1 << 14;
    /// A task with the T bit set in its TSS was entered.
    pub const BT: u32 = 1 << 15;
    /// Reads as one whatever is written.
    pub const FIXED_ONE: u32 = 0xffff_0ff0;
    /// What software can change.
    pub const WRITABLE: u32 = B | BD | BS | BT;
}

/// DR7 bits.
pub mod dr7 {
    /// The enable bits L0..G3.
    pub const ENABLES: u32 = 0xff;
    /// The local enable bits, cleared by a task switch, with LE.
    pub const LOCAL_ENABLES: u32 = 0x155;
    /// Reads as one.
    pub const FIXED_ONE: u32 = 1 << 10;
    /// General detect: debug register accesses trap.
    pub const GD: u32 = 1 << 13;
    /// Bits 11, 12, 14 and 15 read as zero.
    pub const WRITABLE: u32 = 0xffff_23ff;
    /// Condition "instruction execution".
    pub const ON_EXECUTE: u32 = 0;
    /// Condition "data write".
    pub const ON_WRITE: u32 = 1;
    /// Condition "I/O" (with CR4.DE).
    pub const ON_IO: u32 = 2;
    /// Condition "data read or write".
    pub const ON_ACCESS: u32 = 3;
}

/// Selector fields.
pub mod selector {
    /// Requested privilege level.
    pub const RPL: u16 = 3;
    /// Table indicator: LDT.
    pub const TI: u16 = 4;
    /// The index, still scaled by the size of a descriptor.
    pub const OFFSET: u16 = 0xfff8;
}

/// Access rights as kept in [`super::Segment::rights`]: bits 8 to 23 of a descriptor's second
/// dword, without the four limit bits among them.
pub mod rights {
    /// Accessed (code and data segments).
    pub const ACCESSED: u16 = 1 << 0;
    /// Data segment: writable.
    pub const WRITABLE: u16 = 1 << 1;
    /// Code segment: readable.
    pub const READABLE: u16 = 1 << 1;
    /// Data segment: expand-down.
    pub const EXPAND_DOWN: u16 = 1 << 2;
    /// Code segment: conforming.
    pub const CONFORMING: u16 = 1 << 2;
    /// Code segment, not data.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system descriptor.
    pub const NOT_SYSTEM: u16 = 1 << 4;
    /// Where the descriptor privilege level starts.
    pub const DPL_SHIFT: u16 = 5;
    /// Descriptor privilege level.
    pub const DPL: u16 = 3 << DPL_SHIFT;
    /// Present; in a segment register: usable.
    pub const PRESENT: u16 = 1 << 7;
    /// Available to software.
    pub const AVL: u16 = 1 << 12;
    /// Default size is 32 bits.
    pub const BIG: u16 = 1 << 14;
    /// The limit counts pages.
    pub const GRANULAR: u16 = 1 << 15;
    /// Type field.
    pub const TYPE: u16 = 0xf;
    /// Every bit there is.
    pub const DEFINED: u16 = 0xf0ff;

    /// What a segment register has in real mode: present, writable data, accessed.
    pub const REAL_MODE: u16 = PRESENT | NOT_SYSTEM | WRITABLE | ACCESSED;
    /// The same at privilege level 3.
    pub const V86_MODE: u16 = REAL_MODE | DPL;
    /// Flat 32-bit code as SYSENTER loads it.
    pub const FLAT_CODE: u16 = PRESENT | NOT_SYSTEM | CODE | READABLE | ACCESSED | BIG | GRANULAR;
    /// Flat 32-bit data as SYSENTER loads it.
    pub const FLAT_DATA: u16 = PRESENT | NOT_SYSTEM | WRITABLE | ACCESSED | BIG | GRANULAR;
}

/// Exception vectors.
pub mod vector {
    /// #DE, divide error.
    pub const DE: u8 = 0;
    /// #DB, debug.
    pub const DB: u8 = 1;
    /// NMI.
    pub const NMI: u8 = 2;
    /// #BP, breakpoint (INT3).
    pub const BP: u8 = 3;
    /// #OF, overflow (INTO).
    pub const OF: u8 = 4;
    /// #BR, BOUND range exceeded.
    pub const BR: u8 = 5;
    /// #UD, invalid opcode.
    pub const UD: u8 = 6;
    /// #NM, no math coprocessor.
    pub const NM: u8 = 7;
    /// #DF, double fault.
    pub const DF: u8 = 8;
    /// Coprocessor segment overrun (386).
    pub const COPROCESSOR_OVERRUN: u8 = 9;
    /// #TS, invalid TSS.
    pub const TS: u8 = 10;
    /// #NP, segment not present.
    pub const NP: u8 = 11;
    /// #SS, stack segment fault.
    pub const SS: u8 = 12;
    /// #GP, general protection.
    pub const GP: u8 = 13;
    /// #PF, page fault.
    pub const PF: u8 = 14;
    /// #MF, floating-point error.
    pub const MF: u8 = 16;
    /// #AC, alignment check.
    pub const AC: u8 = 17;
    /// #MC, machine check.
    pub const MC: u8 = 18;
    /// #XM, SIMD floating-point error.
    pub const XM: u8 = 19;
}
