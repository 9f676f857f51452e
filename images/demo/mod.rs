//! Sources of the built-in demo: a 64 KiB system ROM with a demo guest in it, and two floppies.
//!
//! The build script assembles them; nothing of this is compiled into the library.

// The tables of chip constants name more than this ROM happens to use.
#![allow(dead_code)]
#![allow(missing_docs, reason = "register names document themselves")]

pub mod asm;
pub mod bench;
mod bios;
pub mod chips;
pub mod floppies;
mod font;
mod guest;
mod interrupt;
pub mod loader;
pub mod memory;
mod screen;

use asm::{Asm, AsmResult};
pub use floppies::{bench_floppy, demo_floppy, kernel_floppy};

/// Size of the system ROM.
const ROM_BYTES: usize = 0x1_0000;
/// The code's place in the ROM; the data lies below it.
const CODE_AT: u16 = 0xB000;
const RESET_VECTOR: usize = 0xFFF0;
/// JMP to a 16-bit segment and offset.
const JMP_FAR: u8 = 0xEA;
/// Where a BIOS shows its date and the machine its model (FCh: AT).
const DATE: usize = 0xFFF5;
const MODEL: usize = 0xFFFE;

/// The system ROM: its last byte belongs at FFFFFh and at FFFFFFFFh.
pub fn rom() -> AsmResult<Vec<u8>> {
    let mut a = Asm::new(CODE_AT, 0)?;
    bios::post::emit(&mut a)?;
    bios::timer::emit(&mut a)?;
    bios::video::emit(&mut a)?;
    bios::keyboard::emit(&mut a)?;
    bios::floppy::emit(&mut a)?;
    guest::emit(&mut a)?;
    bench::emit(&mut a)?;
    let (mut rom, entry) = a.finish(0, ROM_BYTES, "post")?;
    if rom[RESET_VECTOR..].iter().any(|byte| *byte != 0) {
        return Err("the code reaches into the reset vector".into());
    }
    rom[RESET_VECTOR] = JMP_FAR;
    rom[RESET_VECTOR + 1..RESET_VECTOR + 3].copy_from_slice(&entry.to_le_bytes());
    rom[RESET_VECTOR + 3..RESET_VECTOR + 5].copy_from_slice(&bios::post::ROM_SEGMENT.to_le_bytes());
    rom[DATE..DATE + 8].copy_from_slice(b"01/01/00");
    rom[MODEL] = 0xFC;
    Ok(rom)
}
