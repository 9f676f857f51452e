//! The demo floppy and the benchmark floppy: empty FAT12 file systems whose reserved sectors hold
//! a program that needs only a BIOS.

use super::asm::{Asm, AsmResult, asm};
use super::bench;
use super::bios::timer;
use super::interrupt;
use super::loader;
use super::memory::*;
use iced_x86::code_asm::*;

pub const SECTOR: usize = 512;
/// Sectors before the first FAT: the boot sector and the second stage.
pub const RESERVED_SECTORS: usize = 6;
const STAGE_SECTORS: usize = RESERVED_SECTORS - 1;
const FAT_SECTORS: usize = 9;
/// Media byte of a 1.44 MB floppy.
const MEDIA: u8 = 0xF0;
/// First code byte after the BIOS parameter block.
const BOOT_CODE: u16 = 0x3E;
const BOOT_DATA: u16 = 0x190;
const STAGE_DATA: u16 = 0x600;
const TRIES: i32 = 3;
const ESCAPE: i32 = 0x1B;

/// The parameter block of a 1.44 MB floppy, from offset 0 of the boot sector.
fn parameter_block(entry: u16, label: &[u8; 11]) -> Vec<u8> {
    let mut block = vec![0xEB, (entry - 2) as u8, 0x90];
    block.extend(b"VMSIM1.0");
    block.extend((SECTOR as u16).to_le_bytes());
    block.push(1); // sectors per cluster
    block.extend((RESERVED_SECTORS as u16).to_le_bytes());
    block.push(2); // FATs
    block.extend(224u16.to_le_bytes()); // root directory entries
    block.extend(2880u16.to_le_bytes()); // sectors
    block.push(MEDIA);
    block.extend((FAT_SECTORS as u16).to_le_bytes());
    block.extend(18u16.to_le_bytes()); // sectors per track
    block.extend(2u16.to_le_bytes()); // heads
    block.extend([0; 8]); // hidden sectors, large count
    block.extend([0, 0, 0x29]); // drive, reserved, extended signature
    block.extend(0x564D_5349u32.to_le_bytes()); // serial number
    block.extend(label);
    block.extend(b"FAT12   ");
    block
}

/// The boot sector: loads the second stage and jumps to it.
fn boot_sector(label: &[u8; 11]) -> AsmResult<Vec<u8>> {
    let origin = BOOT_SECTOR as u16;
    let mut program = Asm::new(origin + BOOT_CODE, origin + BOOT_DATA)?;
    let a = &mut program;
    let failed = a.text("Floppy read error\r\n");
    let loaded = a.table(&["loaded"]);
    asm! { a;
        at("start");
        cli(); xor(ax, ax); mov(ds, ax); mov(es, ax); mov(ss, ax); mov(sp, STACK_TOP); sti(); cld();
        // CS may be 07C0h on entry, and the texts are reached through CS.
        push(0); push(word_ptr(loaded)); retf();
        at("loaded");
        mov(bp, TRIES);
        at(".try");
        mov(ax, 0x0200 | STAGE_SECTORS as i32); mov(bx, SECOND_STAGE); mov(cx, 2); xor(dx, dx); int(interrupt::DISK);
        jnc(".run");
        xor(ax, ax); int(interrupt::DISK); dec(bp); jnz(".try");
        mov(si, failed);
        at(".letter");
        mov(al, byte_ptr(si).cs()); inc(si); test(al, al); jz(".stop");
        mov(ah, 0x0E); mov(bx, 7); int(interrupt::VIDEO); jmp(".letter");
        at(".stop");
        hlt(); jmp(".stop");
        at(".run");
        jmp_far(0, SECOND_STAGE as u32);
    }
    let (mut sector, entry) = program.finish(origin, SECTOR, "start")?;
    let block = parameter_block(entry - origin, label);
    sector[..block.len()].copy_from_slice(&block);
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xAA]);
    Ok(sector)
}

/// Boot sector, second stage and FATs: the head of an image that is empty from there on.
pub fn image(label: &[u8; 11], stage: impl FnOnce(&mut Asm) -> AsmResult) -> AsmResult<Vec<u8>> {
    let origin = SECOND_STAGE as u16;
    let mut a = Asm::new(origin, origin + STAGE_DATA)?;
    stage(&mut a)?;
    let (stage, entry) = a.finish(origin, STAGE_SECTORS * SECTOR, "stage")?;
    if entry != origin {
        return Err("the second stage must begin with its entry".into());
    }
    let mut image = boot_sector(label)?;
    image.extend(stage);
    for _ in 0..2 {
        let mut fat = vec![0; FAT_SECTORS * SECTOR];
        fat[..3].copy_from_slice(&[MEDIA, 0xFF, 0xFF]);
        image.extend(fat);
    }
    // The volume label is the root directory's first entry.
    image.extend(label);
    image.push(0x08);
    Ok(image)
}

/// The demo floppy: greets, reads its own boot sector again, echoes keys, restarts on Esc.
pub fn demo_floppy() -> AsmResult<Vec<u8>> {
    image(b"VMSIM DEMO ", |a| {
        let hello =
            a.text("\nVMSim demo floppy\n=================\nLoaded by INT 13h, printed by INT 10h.\n");
        let memory = a.text("Base memory in KiB (INT 12h): ");
        let newline = a.text("\n");
        let checked = a.text("Boot sector read again: signature 55 AA found.\n");
        let bad = a.text("Boot sector could not be read again.\n");
        let prompt = a.text("Type something (INT 16h); Esc restarts.\n\n");
        asm! { a;
            at("stage");
            mov(ax, 0x0003); int(interrupt::VIDEO);
            mov(si, hello); call("bench.text");
            mov(si, memory); call("bench.text"); int(interrupt::MEMORY); movzx(eax, ax); call("bench.decimal");
            mov(si, newline); call("bench.text");
            mov(ax, 0x0201); mov(bx, SECTOR_BUFFER + (STAGE_SECTORS * SECTOR) as i32); mov(cx, 1); xor(dx, dx);
            int(interrupt::DISK); mov(si, bad); jc(".told");
            cmp(word_ptr(SECTOR_BUFFER + ((STAGE_SECTORS + 1) * SECTOR) as i32 - 2), 0xAA55); jne(".told");
            mov(si, checked);
            at(".told");
            call("bench.text");
            mov(si, prompt); call("bench.text");
            at(".key");
            xor(ah, ah); int(interrupt::KEYBOARD);
            cmp(al, ESCAPE); je(".again"); test(al, al); jz(".key");
            cmp(al, 0x0D); jne(".plain"); mov(al, 0x0A);
            at(".plain");
            call("bench.character"); jmp(".key");
            at(".again");
            int(interrupt::BOOT);
        }
        bench::printing(a)
    })
}

/// The benchmark floppy: runs the port benchmark at once and then sleeps.
pub fn bench_floppy() -> AsmResult<Vec<u8>> {
    image(b"VMSIM BENCH", |a| {
        let title = a.text("VMSim port benchmark\n");
        asm! { a;
            at("stage");
            mov(si, title); call("bench.text");
            call("bench.run");
            at(".idle");
            hlt(); jmp(".idle");
        }
        timer::calibrate(a)?;
        bench::emit(a)
    })
}

/// The kernel floppy: its boot sector and loader, to be followed by the kernel and the FATs.
pub fn kernel_floppy() -> AsmResult<Vec<u8>> {
    let mut head = image(b"VMSIM BOOT ", loader::emit)?;
    head.truncate(RESERVED_SECTORS * SECTOR);
    Ok(head)
}
