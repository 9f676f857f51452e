//! Power-on: memory, interrupt table, chips, then the boot sector of drive A or the built-in demo.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::{DEBUG_PORT, dma, pic, pit};
use crate::demo::interrupt;
use crate::demo::memory::*;
use iced_x86::code_asm::*;

/// Interrupt vectors and their handlers.
const VECTORS: [(i32, &str); 12] = [
    (pic::MASTER_VECTOR, "timer.irq"),
    (pic::MASTER_VECTOR + 1, "keyboard.irq"),
    (pic::MASTER_VECTOR + 6, "floppy.irq"),
    (interrupt::VIDEO, "video.service"),
    (interrupt::EQUIPMENT, "equipment.service"),
    (interrupt::MEMORY, "memory.service"),
    (interrupt::DISK, "floppy.service"),
    (interrupt::KEYBOARD, "keyboard.service"),
    (interrupt::NO_BOOT, "demo.start"),
    (interrupt::BOOT, "post.boot"),
    (interrupt::CLOCK, "timer.service"),
    (interrupt::USER_TICK, "ignore.software"),
];
/// Segment that the ROM runs in.
pub const ROM_SEGMENT: u16 = 0xF000;
/// Floppy drive, 80x25 colour text.
const EQUIPMENT_WORD: i32 = 0x0021;
const BASE_MEMORY: i32 = 640;
/// Double words in 64 KiB.
const SEGMENT_DWORDS: i32 = 0x4000;
const VIDEO_MEMORY_SEGMENT: i32 = 0xA000;
const SEGMENT_STEP: i32 = 0x1000;
const BOOT_SIGNATURE: i32 = 0xAA55;
const CHAIN_TRIES: i32 = 3;

/// Emits the power-on code (label `post`) and the small services.
pub fn emit(a: &mut Asm) -> AsmResult {
    power_on(a)?;
    boot(a)?;
    vectors(a)?;
    interrupt_controllers(a)?;
    dma_controllers(a)?;
    small_services(a)?;
    debug_print(a)
}

fn power_on(a: &mut Asm) -> AsmResult {
    let started = a.text("VMSim tiny ROM: power-on\n");
    asm! { a;
        at("post");
        cli(); cld();
        // The first 640 KiB; no stack exists before this.
        xor(eax, eax); mov(bx, 0);
        at(".segment");
        mov(es, bx); xor(di, di); mov(ecx, SEGMENT_DWORDS); rep_stosd();
        add(bx, SEGMENT_STEP); cmp(bx, VIDEO_MEMORY_SEGMENT); jb(".segment");
        mov(ds, ax); mov(es, ax); mov(ss, ax); mov(sp, STACK_TOP);
        mov(word_ptr(EQUIPMENT), EQUIPMENT_WORD);
        mov(word_ptr(BASE_MEMORY_KB), BASE_MEMORY);
        mov(si, started); call("debug.print");
        call("post.vectors");
        call("post.pic");
        call("post.dma");
        call("timer.init");
        call("video.text");
        call("keyboard.init");
        sti();
        call("timer.calibrate");
        call("floppy.init");
        int(interrupt::BOOT);
    }
    Ok(())
}

fn boot(a: &mut Asm) -> AsmResult {
    let booting = a.text("VMSim tiny ROM: booting drive A\n");
    let demo = a.text("VMSim tiny ROM: no boot sector, starting the built-in demo\n");
    asm! { a;
        at("post.boot");
        xor(ax, ax); mov(ds, ax); mov(es, ax); cli(); mov(ss, ax); mov(sp, STACK_TOP); sti();
        mov(bp, CHAIN_TRIES);
        at(".try");
        mov(ax, 0x0201); mov(bx, BOOT_SECTOR); mov(cx, 1); xor(dx, dx); int(interrupt::DISK);
        jnc(".read");
        dec(bp); jnz(".try");
        jmp(".none");
        at(".read");
        cmp(word_ptr(BOOT_SECTOR + 510), BOOT_SIGNATURE); jne(".none");
        mov(si, booting); call("debug.print");
        xor(dx, dx);
        jmp_far(0, BOOT_SECTOR as u32);
        at(".none");
        mov(si, demo); call("debug.print");
        int(interrupt::NO_BOOT);
    }
    Ok(())
}

fn vectors(a: &mut Asm) -> AsmResult {
    let offsets = a.table(&VECTORS.map(|(_, handler)| handler));
    let numbers = a.bytes(&VECTORS.map(|(vector, _)| vector as u8));
    let ignore = a.table(&["ignore.software", "ignore.master", "ignore.slave"]);
    let segment = i32::from(ROM_SEGMENT);
    asm! { a;
        at("post.vectors");
        xor(di, di); mov(cx, 256); mov(ax, word_ptr(ignore).cs());
        at(".all");
        mov(word_ptr(di), ax); mov(word_ptr(di + 2), segment); add(di, 4); loop_(".all");
        mov(di, pic::MASTER_VECTOR * 4); mov(cx, 8); mov(ax, word_ptr(ignore + 2).cs());
        at(".master");
        mov(word_ptr(di), ax); add(di, 4); loop_(".master");
        mov(di, pic::SLAVE_VECTOR * 4); mov(cx, 8); mov(ax, word_ptr(ignore + 4).cs());
        at(".slave");
        mov(word_ptr(di), ax); add(di, 4); loop_(".slave");
        xor(si, si); mov(cx, VECTORS.len() as i32);
        at(".own");
        mov(bl, byte_ptr(si + numbers).cs()); xor(bh, bh); shl(bx, 2);
        mov(di, si); shl(di, 1); mov(ax, word_ptr(di + offsets).cs());
        mov(word_ptr(bx), ax); inc(si); loop_(".own");
        ret();

        at("ignore.slave");
        push(ax); out_byte(pic::SLAVE, pic::EOI); out_byte(pic::MASTER, pic::EOI); pop(ax); iret();
        at("ignore.master");
        push(ax); out_byte(pic::MASTER, pic::EOI); pop(ax);
        at("ignore.software");
        iret();
    }
    Ok(())
}

fn interrupt_controllers(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("post.pic");
        out_byte(pic::MASTER, pic::ICW1);
        out_byte(pic::SLAVE, pic::ICW1);
        out_byte(pic::MASTER_MASK, pic::MASTER_VECTOR);
        out_byte(pic::SLAVE_MASK, pic::SLAVE_VECTOR);
        out_byte(pic::MASTER_MASK, pic::ICW3_MASTER);
        out_byte(pic::SLAVE_MASK, pic::ICW3_SLAVE);
        out_byte(pic::MASTER_MASK, pic::ICW4);
        out_byte(pic::SLAVE_MASK, pic::ICW4);
        out_byte(pic::MASTER_MASK, pic::MASTER_ENABLED);
        out_byte(pic::SLAVE_MASK, pic::NONE_ENABLED);
        ret();
    }
    Ok(())
}

fn dma_controllers(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("post.dma");
        out_byte(dma::MASTER_CLEAR, 0);
        out_byte(dma::SECOND_MASTER_CLEAR, 0);
        out_byte(dma::SECOND_MODE, dma::CASCADE);
        out_byte(dma::SECOND_MASK, 0);
        // Counter 2 stays gated off, the speaker silent.
        in_al(pit::SYSTEM_CONTROL); and(al, !(pit::GATE_2 | pit::SPEAKER)); out_al(pit::SYSTEM_CONTROL);
        ret();
    }
    Ok(())
}

fn small_services(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("equipment.service");
        push(ds); xor(ax, ax); mov(ds, ax); mov(ax, word_ptr(EQUIPMENT)); pop(ds); iret();
        at("memory.service");
        push(ds); xor(ax, ax); mov(ds, ax); mov(ax, word_ptr(BASE_MEMORY_KB)); pop(ds); iret();
    }
    Ok(())
}

/// `debug.print`: the text at CS:SI to the debug port; changes AX and SI.
pub fn debug_print(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("debug.print");
        mov(al, byte_ptr(si).cs()); inc(si); test(al, al); jz(".end");
        out_al(DEBUG_PORT); jmp("debug.print");
        at(".end");
        ret();
    }
    Ok(())
}
