//! Source of the hard disk's boot loader: a master boot record, and a second stage that loads a
//! kernel of the Linux boot protocol (the kernel's Documentation/arch/x86/boot.rst) and its
//! initramfs from recorded sectors.
//!
//! It needs a BIOS with INT 13h extensions and INT 15h function 87h, knows no file system, and
//! says what it does on the screen and on COM1. The build script assembles it.

#[allow(dead_code, reason = "the recipe uses the rest")]
pub mod layout;

use crate::demo::asm::{Asm, AsmResult, asm};
use iced_x86::code_asm::*;
use layout::*;

/// Software interrupts and functions of the BIOS.
mod bios {
    pub const VIDEO: i32 = 0x10;
    pub const TELETYPE: i32 = 0x0E;
    pub const MEMORY: i32 = 0x12;
    pub const DISK: i32 = 0x13;
    pub const DISK_RESET: i32 = 0x00;
    pub const EXTENSIONS_CHECK: i32 = 0x41;
    pub const EXTENSIONS_ASK: i32 = 0x55AA;
    pub const EXTENSIONS_THERE: i32 = 0xAA55;
    pub const EXTENDED_READ: i32 = 0x42;
    pub const SYSTEM: i32 = 0x15;
    pub const MOVE_BLOCK: i32 = 0x87;
    pub const MEMORY_SIZE: i32 = 0xE801;
}

/// COM1, a 16550.
mod uart {
    pub const BASE: i32 = 0x3F8;
    pub const DIVISOR_LOW: i32 = BASE;
    pub const DIVISOR_HIGH: i32 = BASE + 1;
    pub const LCR: i32 = BASE + 3;
    pub const LCR_DLAB: i32 = 0x80;
    pub const LCR_8_BITS: i32 = 0x03;
    pub const MCR: i32 = BASE + 4;
    pub const MCR_DTR_RTS: i32 = 0x03;
    pub const LSR: i32 = BASE + 5;
    pub const LSR_THRE: i32 = 0x20;
    /// 115200 baud.
    pub const FASTEST: i32 = 1;
    /// How often the line status is read before a character is given up.
    pub const PATIENCE: i32 = 0x2000;
}

/// Fields of the setup header, from the start of the kernel's file.
mod header {
    pub const SETUP_SECTS: i32 = 0x1F1;
    pub const VID_MODE: i32 = 0x1FA;
    pub const SIGNATURE_AT: i32 = 0x202;
    pub const SIGNATURE: u32 = u32::from_le_bytes(*b"HdrS");
    pub const VERSION: i32 = 0x206;
    pub const TYPE_OF_LOADER: i32 = 0x210;
    pub const LOADFLAGS: i32 = 0x211;
    pub const RAMDISK_IMAGE: i32 = 0x218;
    pub const RAMDISK_SIZE: i32 = 0x21C;
    pub const HEAP_END_PTR: i32 = 0x224;
    pub const CMD_LINE_PTR: i32 = 0x228;
    pub const INITRD_ADDR_MAX: i32 = 0x22C;
    pub const PREF_ADDRESS: i32 = 0x258;
    pub const INIT_SIZE: i32 = 0x260;
    /// The first version with all of these fields.
    pub const VERSION_WANTED: i32 = 0x020A;
    /// "A loader without an assigned number".
    pub const LOADER_UNDEFINED: i32 = 0xFF;
    pub const CAN_USE_HEAP: i32 = 0x80;
    pub const VID_MODE_NORMAL: i32 = 0xFFFF;
    /// What zero in SETUP_SECTS means.
    pub const SETUP_SECTS_DEFAULT: i32 = 4;
}

const BOOT_RECORD: i32 = 0x7C00;
/// The stack ends where the boot record begins.
const STACK_TOP: i32 = BOOT_RECORD;
const BOOT_DATA: usize = 0x150;
const STAGE: i32 = 0x8000;
const TRIES: i32 = 3;
/// What is read at once: as much as fits a segment, with a sector to spare for old BIOSes.
const CHUNK_SECTORS: i32 = 127;
/// Chunks between two dots: half a MiB.
const DOT_CHUNKS: i32 = 8;
/// Chunks land here first (no 64 KiB border within).
const BOUNCE_SEGMENT: u32 = 0x1000;
const BOUNCE: u32 = BOUNCE_SEGMENT << 4;
/// Where the real-mode part, the heap's end and the command line go.
const SETUP_SEGMENT: i32 = 0x9000;
const SETUP: i32 = SETUP_SEGMENT << 4;
const SETUP_SECTORS_MAX: i32 = 64;
const HEAP_END: i32 = 0x9800;
/// The protocol measures the heap from here.
const HEAP_BASE: i32 = 0x200;
const COMMAND_LINE_OFFSET: i32 = 0x9800;
/// The setup code begins after the kernel's own boot sector.
const SETUP_ENTRY_SEGMENT: u16 = SETUP_SEGMENT as u16 + 0x20;
/// KiB of base memory that all this needs.
const BASE_MEMORY_KB: i32 = (SETUP + COMMAND_LINE_OFFSET + COMMAND_LINE_BYTES as i32) / 1024;
const HIGH_MEMORY: i32 = 0x10_0000;
const SIXTEEN_MIB: i32 = 0x100_0000;
const PAGE_MASK: i32 = !0xFFF;

/// Size of a disk address packet, and its fields.
const PACKET_BYTES: u8 = 16;
const PACKET_COUNT: i32 = 2;
const PACKET_OFFSET: i32 = 4;
const PACKET_SEGMENT: i32 = 6;
const PACKET_START: i32 = 8;

/// A disk address packet that reads `count` sectors from `start` to `segment:offset`.
fn packet(count: u16, segment: u16, offset: u16, start: u64) -> Vec<u8> {
    let mut packet = vec![PACKET_BYTES, 0];
    for field in [count, offset, segment] {
        packet.extend(field.to_le_bytes());
    }
    packet.extend(start.to_le_bytes());
    packet
}

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
/// The target's base, in its three places.
const TARGET_BASE_15_0: i32 = 26;
const TARGET_BASE_23_16: i32 = 28;
const TARGET_BASE_31_24: i32 = 31;

fn text(a: &mut Asm, text: &str) -> i32 {
    a.bytes(&[text.as_bytes(), b"\0"].concat())
}

/// Master boot record and second stage: the first sectors of the disk. Partition table and
/// parameters are empty.
pub fn disk_loader() -> AsmResult<Vec<u8>> {
    Ok([boot_record()?, stage()?].concat())
}

/// `print`: the zero-ended text at SI, on the screen and on COM1; changes AX, BX, CX, DX, SI.
/// `stop`: prints it and sleeps.
fn printing(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("stop");
        call("print");
        at(".sleep");
        sti(); hlt(); jmp(".sleep");

        at("print");
        lodsb(); test(al, al); jz(".end");
        push(ax); mov(ah, bios::TELETYPE); mov(bx, 7); int(bios::VIDEO);
        // Without a UART all lines read one, and nothing waits.
        mov(cx, uart::PATIENCE); mov(dx, uart::LSR);
        at(".busy");
        in_(al, dx); test(al, uart::LSR_THRE); jnz(".ready"); loop_(".busy");
        at(".ready");
        pop(ax); mov(dx, uart::BASE); out(dx, al); jmp("print");
        at(".end");
        ret();
    }
    Ok(())
}

/// Loads the second stage, and hands over the drive in DL.
fn boot_record() -> AsmResult<Vec<u8>> {
    let origin = BOOT_RECORD as u16;
    let mut program = Asm::new(origin, origin + BOOT_DATA as u16)?;
    let a = &mut program;
    let stage = a.bytes(&packet(STAGE_SECTORS as u16, 0, STAGE as u16, 1));
    let loaded = a.table(&["loaded"]);
    let no_extensions = text(a, "This BIOS cannot read by sector number (INT 13h, 42h)\r\n");
    let unreadable = text(a, "Hard disk read error\r\n");
    asm! { a;
        at("start");
        cli(); xor(ax, ax); mov(ds, ax); mov(es, ax); mov(ss, ax); mov(sp, STACK_TOP); sti(); cld();
        // CS may be 07C0h.
        push(0); push(word_ptr(loaded)); retf();
        at("loaded");
        push(dx);
        out_byte(uart::LCR, uart::LCR_DLAB);
        out_byte(uart::DIVISOR_LOW, uart::FASTEST);
        out_byte(uart::DIVISOR_HIGH, 0);
        out_byte(uart::LCR, uart::LCR_8_BITS);
        out_byte(uart::MCR, uart::MCR_DTR_RTS);
        pop(dx); push(dx);
        mov(ah, bios::EXTENSIONS_CHECK); mov(bx, bios::EXTENSIONS_ASK); int(bios::DISK);
        mov(si, no_extensions); jc("stop"); cmp(bx, bios::EXTENSIONS_THERE); jne("stop");
        mov(di, TRIES);
        at(".try");
        pop(dx); push(dx); mov(si, stage); mov(ah, bios::EXTENDED_READ); int(bios::DISK); jnc(".run");
        mov(ah, bios::DISK_RESET); int(bios::DISK); dec(di); jnz(".try");
        mov(si, unreadable); jmp("stop");
        at(".run");
        pop(dx); jmp_far(0, STAGE as u32);
    }
    printing(a)?;
    let (mut sector, _) = program.finish(origin, SECTOR, "start")?;
    if sector[PARTITION_TABLE..].iter().any(|byte| *byte != 0) {
        return Err("the master boot record reaches into the partition table".into());
    }
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xAA]);
    Ok(sector)
}

/// Loads kernel and initramfs, and starts the kernel.
fn stage() -> AsmResult<Vec<u8>> {
    let origin = STAGE as u16;
    let mut program = Asm::new(origin, origin + STAGE_DATA as u16)?;
    let a = &mut program;
    let parameters = a.bytes(&[0; PARAMETERS_BYTES]);
    let parameter = |offset: usize| parameters + offset as i32;
    let request = a.bytes(&packet(0, 0, 0, 0));
    let descriptors = a.bytes(&DESCRIPTORS);
    let drive = a.bytes(&[0]);
    let [start, left, target, chunks] =
        [a.bytes(&[0; 4]), a.bytes(&[0; 4]), a.bytes(&[0; 4]), a.bytes(&[0; 2])];
    let loading = text(a, "Loading Linux ");
    let dot = text(a, ".");
    let done = text(a, "\r\n");
    let unreadable = text(a, "\r\nHard disk read error\r\n");
    let immovable = text(a, "\r\nThis BIOS cannot move memory (INT 15h, 87h)\r\n");
    let no_kernel = text(a, "\r\nThe kernel is not where it was: make this disk again\r\n");
    let too_small = text(a, "\r\nNot enough memory for this kernel and its initramfs\r\n");
    asm! { a;
        at("stage");
        mov(byte_ptr(drive), dl);
        mov(si, loading); call("print");
        int(bios::MEMORY); cmp(ax, BASE_MEMORY_KB); mov(si, too_small); jb("stop");

        // The real-mode part, with some of the rest, straight to its place.
        mov(word_ptr(request + PACKET_COUNT), SETUP_SECTORS_MAX);
        mov(word_ptr(request + PACKET_OFFSET), 0); mov(word_ptr(request + PACKET_SEGMENT), SETUP_SEGMENT);
        mov(eax, dword_ptr(parameter(KERNEL_START))); mov(dword_ptr(request + PACKET_START), eax);
        call("read");
        mov(ax, SETUP_SEGMENT); mov(fs, ax);
        mov(si, no_kernel);
        cmp(dword_ptr(header::SIGNATURE_AT).fs(), header::SIGNATURE); jne("stop");
        cmp(word_ptr(header::VERSION).fs(), header::VERSION_WANTED); jb("stop");

        // The rest to the first MiB.
        movzx(eax, byte_ptr(header::SETUP_SECTS).fs()); test(al, al); jnz(".counted");
        mov(al, header::SETUP_SECTS_DEFAULT);
        at(".counted");
        inc(ax); cmp(ax, SETUP_SECTORS_MAX); ja("stop");
        mov(ecx, dword_ptr(parameter(KERNEL_SECTORS))); sub(ecx, eax); mov(dword_ptr(left), ecx);
        add(eax, dword_ptr(parameter(KERNEL_START))); mov(dword_ptr(start), eax);
        mov(dword_ptr(target), HIGH_MEMORY);
        call("load");

        // The initramfs as high as possible, where the kernel does not unpack itself.
        call("memory_end");
        mov(ecx, dword_ptr(header::INITRD_ADDR_MAX).fs()); inc(ecx);
        cmp(eax, ecx); jbe(".end_found"); mov(eax, ecx);
        at(".end_found");
        mov(ecx, dword_ptr(parameter(INITRD_BYTES)));
        mov(si, too_small); sub(eax, ecx); jc("stop");
        and(eax, PAGE_MASK);
        mov(edx, dword_ptr(header::PREF_ADDRESS).fs()); add(edx, dword_ptr(header::INIT_SIZE).fs());
        cmp(eax, edx); jb("stop");
        mov(dword_ptr(target), eax);
        mov(dword_ptr(header::RAMDISK_IMAGE).fs(), eax); mov(dword_ptr(header::RAMDISK_SIZE).fs(), ecx);
        add(ecx, SECTOR as i32 - 1); shr(ecx, 9); mov(dword_ptr(left), ecx);
        mov(eax, dword_ptr(parameter(INITRD_START))); mov(dword_ptr(start), eax);
        call("load");
        mov(si, done); call("print");

        cli(); mov(ax, SETUP_SEGMENT); mov(es, ax);
        mov(si, parameter(COMMAND_LINE)); mov(di, COMMAND_LINE_OFFSET); mov(cx, COMMAND_LINE_BYTES as i32);
        rep_movsb();
        mov(ds, ax);
        mov(word_ptr(header::VID_MODE), header::VID_MODE_NORMAL);
        mov(byte_ptr(header::TYPE_OF_LOADER), header::LOADER_UNDEFINED);
        or(byte_ptr(header::LOADFLAGS), header::CAN_USE_HEAP);
        mov(word_ptr(header::HEAP_END_PTR), HEAP_END - HEAP_BASE);
        mov(dword_ptr(header::CMD_LINE_PTR), SETUP + COMMAND_LINE_OFFSET);
        mov(fs, ax); mov(gs, ax); mov(ss, ax); mov(sp, HEAP_END);
        jmp_far(SETUP_ENTRY_SEGMENT, 0);

        // Reads the remembered sectors to the remembered address.
        at("load");
        mov(eax, dword_ptr(left)); test(eax, eax); jnz(".chunk");
        ret();
        at(".chunk");
        cmp(eax, CHUNK_SECTORS); jbe(".count"); mov(eax, CHUNK_SECTORS);
        at(".count");
        mov(word_ptr(request + PACKET_COUNT), ax);
        mov(word_ptr(request + PACKET_OFFSET), 0); mov(word_ptr(request + PACKET_SEGMENT), BOUNCE_SEGMENT);
        sub(dword_ptr(left), eax);
        mov(edx, dword_ptr(start)); mov(dword_ptr(request + PACKET_START), edx);
        add(dword_ptr(start), eax);
        push(eax); call("read");
        mov(eax, dword_ptr(target));
        mov(word_ptr(descriptors + TARGET_BASE_15_0), ax); shr(eax, 16);
        mov(byte_ptr(descriptors + TARGET_BASE_23_16), al); mov(byte_ptr(descriptors + TARGET_BASE_31_24), ah);
        // 256 words each.
        pop(ecx); push(ecx); shl(cx, 8);
        mov(si, descriptors); mov(ah, bios::MOVE_BLOCK); int(bios::SYSTEM);
        mov(si, immovable); jc("stop");
        pop(eax); shl(eax, 9); add(dword_ptr(target), eax);
        inc(word_ptr(chunks)); test(word_ptr(chunks), DOT_CHUNKS - 1); jnz("load");
        mov(si, dot); call("print"); jmp("load");

        // Carries out the request.
        at("read");
        mov(di, TRIES);
        at(".try");
        mov(si, request); mov(ah, bios::EXTENDED_READ); mov(dl, byte_ptr(drive)); int(bios::DISK); jnc(".read");
        mov(ah, bios::DISK_RESET); mov(dl, byte_ptr(drive)); int(bios::DISK); dec(di); jnz(".try");
        mov(si, unreadable); jmp("stop");
        at(".read");
        ret();

        // EAX = end of the memory that begins at the first MiB; zero: not known.
        at("memory_end");
        xor(cx, cx); xor(dx, dx); mov(ax, bios::MEMORY_SIZE); int(bios::SYSTEM); jc(".unknown");
        // CX, DX is what was configured, AX, BX what is there; either may be empty.
        test(cx, cx); jnz(".known"); mov(cx, ax); mov(dx, bx);
        at(".known");
        movzx(eax, dx); shl(eax, 16); add(eax, SIXTEEN_MIB); test(dx, dx); jnz(".told");
        movzx(eax, cx); shl(eax, 10); add(eax, HIGH_MEMORY);
        at(".told");
        ret();
        at(".unknown");
        xor(eax, eax); ret();
    }
    printing(a)?;
    let (stage, entry) = program.finish(origin, STAGE_SECTORS * SECTOR, "stage")?;
    if entry != origin {
        return Err("the second stage must begin with its entry".into());
    }
    Ok(stage)
}
