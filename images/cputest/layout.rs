//! Where things lie in memory, selectors, and the formats of descriptors.

/// The GDT that tests see and change, 256 entries.
pub const GDT: i32 = 0x1000;
pub const GDT_BYTES: i32 = 0x800;
pub const IDT: i32 = 0x1800;
pub const IDT_BYTES: i32 = 0x800;
pub const LDT: i32 = 0x2000;
pub const LDT_BYTES: i32 = 0x100;
/// The TSS of the running task, with a bitmap for ports 0 to 7FFh.
pub const TSS: i32 = 0x2200;
pub const TSS_IO_BITMAP: i32 = TSS + TSS_FIXED_BYTES;
pub const TSS_FIXED_BYTES: i32 = 0x68;
pub const TSS_BYTES: i32 = TSS_FIXED_BYTES + 0x101;
/// Two more tasks, and a 16-bit one.
pub const TSS_B: i32 = 0x2400;
pub const TSS_C: i32 = 0x2500;
pub const TSS_16: i32 = 0x2600;
/// What tests write, cleared before each.
pub const SCRATCH: i32 = 0x2800;
/// All of the above begins here and ends there; it is made anew for each case.
pub const TABLES_END: i32 = 0x3000;

/// What the last event left, see [`record`].
pub const RECORD: i32 = 0x3000;
pub const RECORD_BYTES: i32 = 0x100;
/// Events that were logged and returned from: a count, then [`LOG_ENTRY`] bytes each.
pub const LOG_COUNT: i32 = 0x3100;
pub const LOG: i32 = 0x3110;
pub const LOG_ENTRY: i32 = 16;
pub const LOG_END: i32 = 0x3800;
/// State of the runtime.
pub const STATE: i32 = 0x4000;
/// 16-bit code of a case is copied here.
pub const BLOB: i32 = 0x6000;
pub const BLOB_BYTES: i32 = 0x1000;
pub const BLOB_SEGMENT: u16 = (BLOB >> 4) as u16;

/// Tops of stacks.
pub const STACK_RUNTIME: i32 = 0xA000;
pub const STACK_CASE: i32 = 0xB000;
pub const STACK_TSS: i32 = 0xC000;
pub const STACK_USER: i32 = 0xD000;
pub const STACK_1: i32 = 0xD800;
pub const STACK_2: i32 = 0xE000;
pub const STACK_TASK: i32 = 0xF000;
/// Stack of V86 code: linear F000h to FFFFh.
pub const V86_STACK_SEGMENT: u16 = 0xF00;
pub const V86_SP: i32 = 0xFF0;

/// Page directory, and the page tables for linear 0 to 4 MiB and 4 to 8 MiB.
pub const DIRECTORY: i32 = 0x1_0000;
pub const TABLE_0: i32 = 0x1_1000;
pub const TABLE_1: i32 = 0x1_2000;
/// The same for PAE paging: pointers (the first is there), directory (2 MiB one to one, [`TEST`]), page table.
pub const PAE_POINTERS: i32 = 0x1_3020;
pub const PAE_DIRECTORY: i32 = 0x1_4000;
pub const PAE_TABLE: i32 = 0x1_5000;
pub const PAE_END: i32 = 0x1_6000;
pub const PAE_TEST_PDE: i32 = PAE_DIRECTORY + 8 * (TEST >> 21);
pub const PAE_TEST_PTE: i32 = PAE_TABLE;
/// Physical pages that linear [`TEST`] and the page after it map to.
pub const PAGE_A: i32 = 0x1_8000;
pub const PAGE_B: i32 = 0x1_9000;
pub const TEST: i32 = 0x40_0000;
pub const TEST_B: i32 = 0x40_1000;
pub const TEST_PDE: i32 = DIRECTORY + 4;
pub const TEST_PTE: i32 = TABLE_1;
pub const TEST_B_PTE: i32 = TABLE_1 + 4;

/// The test program.
pub const PROGRAM: i32 = 0x2_0000;
pub const PROGRAM_BYTES: usize = 0x2_8000;
pub const PROGRAM_DATA: i32 = PROGRAM + 0x6000;
/// Kept over a reset: no firmware clears it.
pub const SURVIVOR: i32 = 0x20_0000;

/// Selectors.
pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x18 | 3;
pub const DATA3: u16 = 0x20 | 3;
pub const TASK: u16 = 0x28;
pub const LOCAL: u16 = 0x30;
pub const TASK_B: u16 = 0x38;
pub const TASK_C: u16 = 0x40;
pub const TASK_16: u16 = 0x48;
/// 16-bit code and data at [`BLOB`], 64 KiB.
pub const CODE16: u16 = 0x50;
pub const DATA16: u16 = 0x58;
pub const CONFORMING: u16 = 0x60;
/// Code that cannot be read.
pub const EXECUTE_ONLY: u16 = 0x68;
pub const READ_ONLY: u16 = 0x70;
/// Data, level 0, not present.
pub const ABSENT: u16 = 0x78;
/// Expand-down 32-bit data with limit FFFh.
pub const EXPAND_DOWN: u16 = 0x80;
/// Expand-down 16-bit data with limit FFFh.
pub const EXPAND_DOWN_16: u16 = 0x88;
/// Data of 10h bytes at [`SCRATCH`].
pub const SMALL: u16 = 0x90;
/// Data of one 4 KiB page at [`SCRATCH`], granularity 4 KiB.
pub const SMALL_PAGE: u16 = 0x98;
/// Gates: to level 0 with two parameters; with DPL 0; absent; task gate to [`TASK_B`]; 16-bit with one parameter.
pub const CALL_GATE: u16 = 0xA0;
pub const CALL_GATE_0: u16 = 0xA8;
pub const CALL_GATE_ABSENT: u16 = 0xB0;
pub const TASK_GATE: u16 = 0xB8;
pub const CALL_GATE_16: u16 = 0xC0;
/// Code and data, level 1.
pub const CODE1: u16 = 0xC8 | 1;
pub const DATA1: u16 = 0xD0 | 1;
pub const CODE_ABSENT: u16 = 0xD8;
/// For cases to fill in.
pub const SPARE: u16 = 0xE0;
pub const SPARE_2: u16 = 0xE8;
/// Beyond the limit of the GDT.
pub const BEYOND: u16 = 0x800;
/// Entries of the LDT.
pub const LOCAL_DATA: u16 = 0x0C;

/// Access bytes and flags of descriptors: bits 8-15 and 20-23 of the second dword, shifted down by 8.
pub const DATA_RW: u32 = 0x92;
pub const DATA_RO: u32 = 0x90;
pub const DATA_DOWN: u32 = 0x96;
pub const CODE_RX: u32 = 0x9A;
pub const CODE_X: u32 = 0x98;
pub const CODE_CONFORMING: u32 = 0x9E;
pub const LEVEL_1: u32 = 0x20;
pub const LEVEL_3: u32 = 0x60;
pub const PRESENT: u32 = 0x80;
pub const BIG: u32 = 0x4000;
pub const PAGES: u32 = 0x8000;
pub const CODE_32: u32 = CODE_RX | BIG;
pub const DATA_32: u32 = DATA_RW | BIG;
pub const TSS_32: u32 = 0x89;
pub const TSS_32_BUSY: u32 = 0x8B;
pub const TSS_16_TYPE: u32 = 0x81;
pub const LDT_TYPE: u32 = 0x82;
/// Types of gates with P.
pub const GATE_CALL: u32 = 0x8C;
pub const GATE_CALL_16: u32 = 0x84;
pub const GATE_TASK: u32 = 0x85;
pub const GATE_INTERRUPT: u32 = 0x8E;
pub const GATE_TRAP: u32 = 0x8F;
pub const GATE_INTERRUPT_16: u32 = 0x86;

/// A segment or system descriptor.
pub fn descriptor(base: i32, limit: u32, attributes: u32) -> u64 {
    let base = base as u32;
    let low = limit & 0xFFFF | base << 16;
    let high = base >> 16 & 0xFF | attributes << 8 | limit & 0xF_0000 | base & 0xFF00_0000;
    u64::from(low) | u64::from(high) << 32
}

/// Address of a GDT entry.
pub fn entry(selector: u16) -> i32 {
    GDT + i32::from(selector & 0xFFF8)
}

/// Address of an IDT entry.
pub fn vector(number: i32) -> i32 {
    IDT + 8 * number
}

/// The record of the event that ended a case: the frame that the handler built, from the bottom up.
pub mod record {
    use super::RECORD;
    /// EFLAGS in the handler.
    pub const HANDLER_FLAGS: i32 = RECORD;
    pub const GS: i32 = RECORD + 4;
    pub const FS: i32 = RECORD + 8;
    pub const ES: i32 = RECORD + 12;
    pub const DS: i32 = RECORD + 16;
    pub const EDI: i32 = RECORD + 20;
    pub const ESI: i32 = RECORD + 24;
    pub const EBP: i32 = RECORD + 28;
    pub const EBX: i32 = RECORD + 36;
    pub const EDX: i32 = RECORD + 40;
    pub const ECX: i32 = RECORD + 44;
    pub const EAX: i32 = RECORD + 48;
    pub const VECTOR: i32 = RECORD + 52;
    pub const ERROR: i32 = RECORD + 56;
    pub const EIP: i32 = RECORD + 60;
    pub const CS: i32 = RECORD + 64;
    pub const EFLAGS: i32 = RECORD + 68;
    pub const ESP: i32 = RECORD + 72;
    pub const SS: i32 = RECORD + 76;
    pub const V86_ES: i32 = RECORD + 80;
    pub const V86_DS: i32 = RECORD + 84;
    pub const V86_FS: i32 = RECORD + 88;
    pub const V86_GS: i32 = RECORD + 92;
    /// Dwords that are copied from the stack.
    pub const FRAME_DWORDS: i32 = 24;
    pub const CR2: i32 = RECORD + 96;
    pub const DR6: i32 = RECORD + 100;
    /// ESP of the handler after everything was pushed.
    pub const HANDLER_ESP: i32 = RECORD + 104;
    /// The task register in the handler.
    pub const TR: i32 = RECORD + 108;
    pub const CR0: i32 = RECORD + 112;
    pub const CR3: i32 = RECORD + 116;
    /// Events so far.
    pub const COUNT: i32 = RECORD + 120;
    /// What [`ERROR`] holds when the processor pushed none.
    pub const NO_ERROR: i32 = 0x0EEE_EEEE;
}

/// Offsets in a 32-bit TSS.
pub mod tss {
    pub const LINK: i32 = 0;
    pub const ESP0: i32 = 4;
    pub const SS0: i32 = 8;
    pub const ESP1: i32 = 12;
    pub const SS1: i32 = 16;
    pub const CR3: i32 = 28;
    pub const EIP: i32 = 32;
    pub const EFLAGS: i32 = 36;
    pub const EAX: i32 = 40;
    pub const ESP: i32 = 56;
    pub const ES: i32 = 72;
    pub const CS: i32 = 76;
    pub const SS: i32 = 80;
    pub const DS: i32 = 84;
    pub const FS: i32 = 88;
    pub const GS: i32 = 92;
    pub const LDT: i32 = 96;
    pub const TRAP: i32 = 100;
    pub const IO_MAP: i32 = 102;
}

/// EFLAGS.
pub mod flag {
    pub const CF: i32 = 1;
    pub const ONE: i32 = 2;
    pub const ZF: i32 = 0x40;
    pub const TF: i32 = 0x100;
    pub const IF: i32 = 0x200;
    pub const IOPL3: i32 = 0x3000;
    pub const NT: i32 = 0x4000;
    pub const RF: i32 = 0x1_0000;
    pub const VM: i32 = 0x2_0000;
    pub const AC: i32 = 0x4_0000;
}

/// CR0 and CR4.
pub mod ctl {
    pub const PE: i32 = 1;
    pub const MP: i32 = 2;
    pub const EM: i32 = 4;
    pub const TS: i32 = 8;
    pub const NE: i32 = 0x20;
    pub const WP: i32 = 0x1_0000;
    pub const AM: i32 = 0x4_0000;
    pub const NW: i32 = 0x2000_0000;
    pub const CD: i32 = 0x4000_0000;
    pub const PG: i32 = i32::MIN;
    pub const PSE: i32 = 0x10;
    pub const PGE: i32 = 0x80;
    pub const DE: i32 = 8;
    pub const TSD: i32 = 4;
    pub const PAE: i32 = 0x20;
    pub const OSFXSR: i32 = 0x200;
    pub const OSXMMEXCPT: i32 = 0x400;
}

/// MXCSR after reset: all exceptions masked.
pub const MXCSR_DEFAULT: i32 = 0x1F80;

/// Vectors.
pub mod exception {
    pub const DE: i32 = 0;
    pub const DB: i32 = 1;
    pub const BP: i32 = 3;
    pub const OF: i32 = 4;
    pub const BR: i32 = 5;
    pub const UD: i32 = 6;
    pub const NM: i32 = 7;
    pub const DF: i32 = 8;
    pub const TS: i32 = 10;
    pub const NP: i32 = 11;
    pub const SS: i32 = 12;
    pub const GP: i32 = 13;
    pub const PF: i32 = 14;
    pub const MF: i32 = 16;
    pub const AC: i32 = 17;
    pub const XM: i32 = 19;
    /// IRQ 0, as the runtime programs the interrupt controllers.
    pub const IRQ0: i32 = 0x20;
    /// What ends a case.
    pub const DONE: i32 = 0x40;
}

/// Page table entries.
pub mod page {
    pub const P: i32 = 1;
    pub const W: i32 = 2;
    pub const U: i32 = 4;
    pub const A: i32 = 0x20;
    pub const D: i32 = 0x40;
    pub const LARGE: i32 = 0x80;
    pub const G: i32 = 0x100;
}
