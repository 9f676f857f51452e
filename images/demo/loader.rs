//! Second stage of a floppy that holds a kernel of the Linux boot protocol (Documentation/arch/x86/boot.rst):
//! reads it sector by sector behind itself, puts it where the protocol says, and starts it.

use super::asm::{Asm, AsmResult, asm};
use super::bench;
use super::chips::fdc;
use super::interrupt;
use super::memory::*;
use iced_x86::code_asm::*;

/// Sectors that are read at once land here (no 64 KiB border within a track).
pub const BOUNCE_SEGMENT: i32 = 0x1000;
const BOUNCE: u32 = (BOUNCE_SEGMENT as u32) << 4;
/// Where the protocol wants the real-mode part, the command line and the protected-mode part.
const SETUP_SEGMENT: i32 = 0x9000;
const SETUP: i32 = SETUP_SEGMENT << 4;
/// The setup code begins after the kernel's own boot sector.
const SETUP_ENTRY_SEGMENT: u16 = 0x9020;
const COMMAND_LINE_OFFSET: i32 = 0x9800;
const HEAP_END: i32 = 0x9600;
const HIGH_MEMORY: i32 = 0x10_0000;
/// Fields of the setup header.
const TYPE_OF_LOADER: i32 = 0x210;
const LOAD_FLAGS: i32 = 0x211;
const HEAP_END_FIELD: i32 = 0x224;
const COMMAND_LINE_FIELD: i32 = 0x228;
/// "A loader without an assigned number".
const LOADER_UNDEFINED: i32 = 0xFF;
const CAN_USE_HEAP: i32 = 0x80;
/// The protocol measures the heap from here.
const HEAP_BASE: i32 = 0x200;
const SECTORS_PER_TRACK: i32 = 18;
const SECTORS_PER_CYLINDER: i32 = 36;
const SECTOR_BYTES: i32 = 512;
const TRIES: i32 = 3;
/// Bytes of the command line with its end.
pub const COMMAND_LINE_BYTES: usize = 256;
/// What the recipe fills in, at the start of the data: first sector, sectors of the real-mode
/// part, sectors of the rest (16 bits each), then the command line.
pub const PARAMETERS_BYTES: usize = 6 + COMMAND_LINE_BYTES;
/// Descriptors of INT 15h function 87h: two empty, source, target, two for the BIOS.
const DESCRIPTORS: [u8; 48] = {
    const PRESENT_WRITABLE_DATA: u8 = 0x93;
    let mut table = [0; 48];
    let base = BOUNCE.to_le_bytes();
    (table[16], table[17]) = (0xFF, 0xFF);
    (table[18], table[19], table[20], table[21]) = (base[0], base[1], base[2], PRESENT_WRITABLE_DATA);
    (table[24], table[25]) = (0xFF, 0xFF);
    table[29] = PRESENT_WRITABLE_DATA;
    table
};
const TARGET_BASE: i32 = 26;

/// Emits the loader; `stage` is its entry.
pub fn emit(a: &mut Asm) -> AsmResult {
    let parameters = a.bytes(&[0; PARAMETERS_BYTES]);
    let (first, setup, rest, command_line) = (parameters, parameters + 2, parameters + 4, parameters + 6);
    let loading = a.text("Loading the kernel");
    asm! { a;
        at("stage");
        mov(si, loading); call("bench.text");
        mov(ax, word_ptr(first)); mov(word_ptr(TSC_START), ax);
        mov(edi, SETUP); mov(bp, word_ptr(setup)); call("loader.load");
        mov(edi, HIGH_MEMORY); mov(bp, word_ptr(rest)); call("loader.load");
        // The kernel finds the motor off.
        out_byte(fdc::DOR, fdc::DOR_IDLE);

        cli(); mov(ax, SETUP_SEGMENT); mov(es, ax);
        mov(si, command_line); mov(di, COMMAND_LINE_OFFSET); mov(cx, COMMAND_LINE_BYTES as i32); rep_movsb();
        mov(ds, ax);
        mov(byte_ptr(TYPE_OF_LOADER), LOADER_UNDEFINED);
        or(byte_ptr(LOAD_FLAGS), CAN_USE_HEAP);
        mov(word_ptr(HEAP_END_FIELD), HEAP_END - HEAP_BASE);
        mov(dword_ptr(COMMAND_LINE_FIELD), SETUP + COMMAND_LINE_OFFSET);
        mov(fs, ax); mov(gs, ax); mov(ss, ax); mov(sp, HEAP_END);
        jmp_far(SETUP_ENTRY_SEGMENT, 0);
    }
    reading(a)
}

/// Emits `loader.load` and what it needs: reads BP sectors, from the one on whose number is at `TSC_START`, to
/// the linear address EDI.
pub fn reading(a: &mut Asm) -> AsmResult {
    let descriptors = a.bytes(&DESCRIPTORS);
    let unreadable = a.text("\nFloppy read error\n");
    let immovable = a.text("\nThis BIOS cannot move memory (INT 15h, 87h)\n");
    asm! { a;
        // BP sectors from the one remembered on, to the address EDI.
        at("loader.load");
        test(bp, bp); jz(".end");
        push(edi); call("loader.read"); pop(edi);
        // AX sectors are there: move them up, 256 words each.
        mov(dword_ptr(descriptors + TARGET_BASE), edi);
        // The store reached the access byte, which lies beside the 24-bit base.
        mov(byte_ptr(descriptors + TARGET_BASE + 3), 0x93);
        push(ax); mov(cx, ax); shl(cx, 8); mov(si, descriptors); mov(ah, 0x87); int(interrupt::SYSTEM); pop(ax);
        mov(si, immovable); jc("loader.stop");
        sub(bp, ax); add(word_ptr(TSC_START), ax);
        movzx(eax, ax); imul_3(eax, eax, SECTOR_BYTES); add(edi, eax);
        mov(al, i32::from(b'.')); call("bench.character");
        jmp("loader.load");
        at(".end");
        ret();

        // AX = sectors read into the bounce buffer: up to BP, not beyond the track.
        at("loader.read");
        mov(ax, word_ptr(TSC_START)); xor(dx, dx); mov(cx, SECTORS_PER_CYLINDER); div(cx);
        mov(ch, al); mov(ax, dx); mov(bl, SECTORS_PER_TRACK); div(bl);
        // AL = head, AH = sector from 0.
        mov(dh, al); xor(dl, dl); mov(cl, ah); inc(cl);
        mov(al, SECTORS_PER_TRACK); sub(al, ah); xor(ah, ah);
        cmp(ax, bp); jbe(".count"); mov(ax, bp);
        at(".count");
        mov(di, TRIES);
        at(".try");
        push(ax); push(es); push(BOUNCE_SEGMENT); pop(es); xor(bx, bx); mov(ah, 0x02); int(interrupt::DISK); pop(es); pop(ax);
        jc(".again"); ret();
        at(".again");
        push(ax); xor(ax, ax); int(interrupt::DISK); pop(ax); dec(di); jnz(".try");
        mov(si, unreadable);
        at("loader.stop");
        call("bench.text");
        at(".halt");
        hlt(); jmp(".halt");
    }
    bench::printing(a)
}
