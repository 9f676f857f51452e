//! Software interrupts of a PC BIOS.

pub const VIDEO: i32 = 0x10;
pub const EQUIPMENT: i32 = 0x11;
pub const MEMORY: i32 = 0x12;
pub const DISK: i32 = 0x13;
pub const SYSTEM: i32 = 0x15;
pub const KEYBOARD: i32 = 0x16;
/// Called when nothing can be booted; here: the demo.
pub const NO_BOOT: i32 = 0x18;
pub const BOOT: i32 = 0x19;
pub const CLOCK: i32 = 0x1A;
/// Called at each tick, for programs to hook.
pub const USER_TICK: i32 = 0x1C;
