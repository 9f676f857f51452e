//! Port numbers of the debug devices. They are conventions of emulators, except port 80h.

/// Text port of Bochs; reads return the port number so that software can find it.
pub const BOCHS_PORT: u16 = 0xe9;
/// Text port of QEMU's "isa-debugcon" device as SeaBIOS uses it.
pub const SEABIOS_PORT: u16 = 0x402;
/// What a text port reads as.
pub const READBACK: u8 = 0xe9;
/// Diagnostic checkpoint ("POST code") register, IBM PC AT Technical Reference, section 5.
pub const POST_PORT: u16 = 0x80;
