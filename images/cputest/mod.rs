//! Sources of the CPU tests: a floppy that boots without an operating system and checks what only
//! system software sees of the processor (Intel SDM volume 3).
//!
//! The build script assembles them; nothing of this is compiled into the library. A case is some code,
//! the state it starts in, and what must have happened when it ended with an interrupt or a fault
//! (`suite`). `runtime` runs one after the other, each in a machine set up anew.

// The tables of constants name more than the cases happen to use.
#![allow(dead_code)]
#![allow(missing_docs, reason = "register names document themselves")]

mod cases;
mod layout;
mod output;
mod runtime;
mod suite;

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::fdc;
use crate::demo::floppies::{RESERVED_SECTORS, SECTOR, image};
use crate::demo::loader;
use crate::demo::memory::TSC_START;
use iced_x86::code_asm::*;
use layout::*;

/// Offset of the number of reserved sectors in the parameter block.
const RESERVED_FIELD: usize = 14;
/// CR0.PE.
const PE: i32 = 1;

/// The floppy: boot sector, loader, test program.
pub fn floppy() -> AsmResult<Vec<u8>> {
    let program = suite::program()?;
    let sectors = program.len().div_ceil(SECTOR);
    let mut floppy = image(b"VMSIM TESTS", |a| stage(a, sectors))?;
    floppy.truncate(RESERVED_SECTORS * SECTOR);
    let reserved = (RESERVED_SECTORS + sectors) as u16;
    floppy[RESERVED_FIELD..RESERVED_FIELD + 2].copy_from_slice(&reserved.to_le_bytes());
    floppy.extend(program);
    Ok(floppy)
}

/// The second stage: reads the program, which has so many sectors, opens the A20 gate, enters protected mode.
fn stage(a: &mut Asm, sectors: usize) -> AsmResult {
    const KEYBOARD_STATUS: i32 = 0x64;
    const INPUT_FULL: i32 = 2;
    const WRITE_OUTPUT_PORT: i32 = 0xD1;
    const A20_OPEN: i32 = 0xDF;
    /// A word that nothing else uses by then.
    const TARGET: i32 = crate::demo::memory::LAST_TICK;
    use loader::BOUNCE_SEGMENT;
    const SYSTEM_CONTROL_A: i32 = 0x92;
    let loading = a.text("VMSim CPU tests");
    let newline = a.text("\n");
    let mut table = vec![0; 8];
    table.extend(descriptor(0, 0xF_FFFF, CODE_32 | PAGES).to_le_bytes());
    let table = a.bytes(&table);
    let mut pointer = 15u16.to_le_bytes().to_vec();
    pointer.extend((table as u32).to_le_bytes());
    let pointer = a.bytes(&pointer);
    asm! { a;
        at("stage");
        mov(si, loading); call("bench.text");
        mov(word_ptr(TSC_START), RESERVED_SECTORS as i32);
        mov(word_ptr(TARGET), PROGRAM >> 4); mov(bp, sectors as i32); call("stage.load");
        out_byte(fdc::DOR, fdc::DOR_IDLE);
        mov(si, newline); call("bench.text");
        cli();
        // By the fast gate, and by the keyboard controller.
        in_al(SYSTEM_CONTROL_A); or(al, 2); and(al, 0xFE); out_al(SYSTEM_CONTROL_A);
        call("stage.controller"); out_byte(KEYBOARD_STATUS, WRITE_OUTPUT_PORT);
        call("stage.controller"); out_byte(0x60, A20_OPEN);
        call("stage.controller");
        lgdt(fword_ptr(pointer));
        mov(eax, cr0); or(eax, PE); mov(cr0, eax);
        db(&[0x66, 0xEA]); dd(&[PROGRAM as u32]); dw(&[CODE0]);

        // BP sectors to the segment at TARGET. Not by INT 15h, which the built-in firmware does not have.
        at("stage.load");
        call("loader.read");
        push(ax); push(ds); push(es);
        mov(cx, ax); shl(cx, 7); mov(es, word_ptr(TARGET)); mov(dx, BOUNCE_SEGMENT); mov(ds, dx);
        xor(si, si); xor(di, di); rep_movsd();
        pop(es); pop(ds); pop(ax);
        sub(bp, ax); add(word_ptr(TSC_START), ax); shl(ax, 5); add(word_ptr(TARGET), ax);
        mov(al, i32::from(b'.')); call("bench.character");
        test(bp, bp); jnz("stage.load"); ret();

        at("stage.controller");
        in_al(KEYBOARD_STATUS); test(al, INPUT_FULL); jnz("stage.controller"); ret();
    }
    loader::reading(a)
}
