//! Where things lie in the first 64 KiB of memory. Segment 0 is used throughout; the BIOS data
//! area keeps its customary places.

pub const STACK_TOP: i32 = 0x7000;
pub const BOOT_SECTOR: i32 = 0x7C00;
pub const SECTOR_BUFFER: i32 = 0x8000;
/// Where the demo floppy's boot sector puts the second stage.
pub const SECOND_STAGE: i32 = 0x8000;

pub const EQUIPMENT: i32 = 0x410;
pub const BASE_MEMORY_KB: i32 = 0x413;
pub const SHIFT_FLAGS: i32 = 0x417;
pub const KEY_HEAD: i32 = 0x41A;
pub const KEY_TAIL: i32 = 0x41C;
pub const KEY_BUFFER: i32 = 0x41E;
pub const KEY_BUFFER_END: i32 = 0x43E;
/// Bit 7: the floppy controller has interrupted.
pub const FLOPPY_IRQ: i32 = 0x43E;
pub const MOTOR_TICKS: i32 = 0x440;
pub const FLOPPY_STATUS: i32 = 0x441;
pub const FLOPPY_RESULT: i32 = 0x442;
pub const VIDEO_MODE: i32 = 0x449;
pub const VIDEO_COLUMNS: i32 = 0x44A;
/// Column, then row.
pub const CURSOR: i32 = 0x450;
pub const TICKS: i32 = 0x46C;

/// Sectors per track of the medium in drive A; zero: not known yet.
pub const FLOPPY_SPT: i32 = 0x500;
/// The drive has answered.
pub const FLOPPY_PRESENT: i32 = 0x501;
/// What the keyboard controller answered to its self-test.
pub const KEYBOARD_TEST: i32 = 0x502;
/// Time-stamp counts in 10 ms.
pub const TSC_PER_10MS: i32 = 0x504;
/// Time stamp at the start of a measurement.
pub const TSC_START: i32 = 0x508;
/// Tenths of nanoseconds that one turn of the empty loop takes.
pub const LOOP_TENTHS: i32 = 0x510;
pub const LAST_TICK: i32 = 0x514;
pub const PALETTE_PHASE: i32 = 0x518;
pub const ECHO_CELL: i32 = 0x51A;
pub const DUMP_HALF: i32 = 0x51C;
/// Decimal digits are built here, downwards.
pub const DIGITS_END: i32 = 0x53F;
