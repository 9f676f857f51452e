//! The 8042, scan code set 1 to ASCII (US layout), and INT 16h.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::{kbc, pic};
use crate::demo::memory::*;
use iced_x86::code_asm::*;

const SCAN_LEFT_SHIFT: i32 = 0x2A;
const SCAN_RIGHT_SHIFT: i32 = 0x36;
const SCAN_CAPS_LOCK: i32 = 0x3A;
const RELEASED: i32 = 0x80;
/// Acknowledgements and other answers of the keyboard begin here.
const FIRST_ANSWER: i32 = 0xE0;
const SHIFTS: i32 = 0x03;
const RIGHT_SHIFT: i32 = 0x01;
const LEFT_SHIFT: i32 = 0x02;
const CAPS_LOCK: i32 = 0x40;

/// ASCII by scan code, from 00h; zero: the key has none.
const PLAIN: &[u8] = b"\0\x1b1234567890-=\x08\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8] = b"\0\x1b!@#$%^&*()_+\x08\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// Emits `keyboard.init`, `keyboard.irq` (IRQ 1) and `keyboard.service` (INT 16h).
pub fn emit(a: &mut Asm) -> AsmResult {
    init(a)?;
    interrupt(a)?;
    service(a)
}

fn init(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("keyboard.init");
        mov(word_ptr(KEY_HEAD), KEY_BUFFER); mov(word_ptr(KEY_TAIL), KEY_BUFFER);
        // Whatever was in the output buffer is of no interest.
        in_al(kbc::DATA);
        mov(al, kbc::SELF_TEST); call("keyboard.command");
        call("keyboard.answer"); mov(byte_ptr(KEYBOARD_TEST), al);
        mov(al, kbc::ENABLE_KEYBOARD); call("keyboard.command");
        mov(al, kbc::WRITE_COMMAND_BYTE); call("keyboard.command");
        mov(al, kbc::COMMAND_BYTE); call("keyboard.data");
        // The acknowledgement arrives by interrupt and is dropped there.
        mov(al, kbc::KEYBOARD_ENABLE_SCANNING); call("keyboard.data");
        ret();

        at("keyboard.command");
        call("keyboard.ready"); out_al(kbc::COMMAND); ret();
        at("keyboard.data");
        call("keyboard.ready"); out_al(kbc::DATA); ret();

        // Waits until the controller takes a byte; gives up after a while.
        at("keyboard.ready");
        push(ax); xor(cx, cx);
        at(".poll");
        in_al(kbc::STATUS); test(al, kbc::INPUT_FULL); jz(".end"); loop_(".poll");
        at(".end");
        pop(ax); ret();

        // AL = the controller's answer, zero when none comes.
        at("keyboard.answer");
        xor(cx, cx);
        at(".poll");
        in_al(kbc::STATUS); test(al, kbc::OUTPUT_FULL); jnz(".full"); loop_(".poll");
        xor(al, al); ret();
        at(".full");
        in_al(kbc::DATA); ret();
    }
    Ok(())
}

fn interrupt(a: &mut Asm) -> AsmResult {
    debug_assert_eq!(PLAIN.len(), SHIFTED.len());
    let plain = a.bytes(PLAIN);
    let shifted = a.bytes(SHIFTED);
    asm! { a;
        at("keyboard.irq");
        push(ax); push(bx); push(ds); xor(ax, ax); mov(ds, ax);
        in_al(kbc::DATA);
        cmp(al, SCAN_LEFT_SHIFT); jne(".not_left");
        or(byte_ptr(SHIFT_FLAGS), LEFT_SHIFT); jmp(".done");
        at(".not_left");
        cmp(al, SCAN_RIGHT_SHIFT); jne(".not_right");
        or(byte_ptr(SHIFT_FLAGS), RIGHT_SHIFT); jmp(".done");
        at(".not_right");
        cmp(al, SCAN_LEFT_SHIFT | RELEASED); jne(".not_left_up");
        and(byte_ptr(SHIFT_FLAGS), !LEFT_SHIFT); jmp(".done");
        at(".not_left_up");
        cmp(al, SCAN_RIGHT_SHIFT | RELEASED); jne(".not_right_up");
        and(byte_ptr(SHIFT_FLAGS), !RIGHT_SHIFT); jmp(".done");
        at(".not_right_up");
        cmp(al, SCAN_CAPS_LOCK); jne(".not_caps");
        xor(byte_ptr(SHIFT_FLAGS), CAPS_LOCK); jmp(".done");
        at(".not_caps");
        cmp(al, FIRST_ANSWER); jae(".done");
        test(al, RELEASED); jnz(".done");

        // AL becomes ASCII, AH the scan code.
        mov(ah, al); xor(bx, bx);
        cmp(al, PLAIN.len() as i32); jae(".no_ascii");
        mov(bl, al);
        test(byte_ptr(SHIFT_FLAGS), SHIFTS); jnz(".shifted");
        mov(al, byte_ptr(bx + plain).cs()); jmp(".caps");
        at(".shifted");
        mov(al, byte_ptr(bx + shifted).cs());
        at(".caps");
        test(byte_ptr(SHIFT_FLAGS), CAPS_LOCK); jz(".store");
        mov(bl, al); and(bl, 0xDF);
        cmp(bl, i32::from(b'A')); jb(".store");
        cmp(bl, i32::from(b'Z')); ja(".store");
        xor(al, 0x20); jmp(".store");
        at(".no_ascii");
        xor(al, al);

        at(".store");
        mov(bx, word_ptr(KEY_TAIL)); push(bx); call("keyboard.next");
        cmp(bx, word_ptr(KEY_HEAD)); je(".full");
        mov(word_ptr(KEY_TAIL), bx); pop(bx); mov(word_ptr(bx), ax); jmp(".done");
        at(".full");
        pop(bx);
        at(".done");
        out_byte(pic::MASTER, pic::EOI);
        pop(ds); pop(bx); pop(ax); iret();

        // BX = the place in the ring after BX.
        at("keyboard.next");
        add(bx, 2); cmp(bx, KEY_BUFFER_END); jb(".end"); mov(bx, KEY_BUFFER);
        at(".end");
        ret();
    }
    Ok(())
}

fn service(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("keyboard.service");
        push(bx); push(ds); push(0); pop(ds);
        and(ah, 0xEF);
        cmp(ah, 1); je(".look"); ja(".flags");
        at(".wait");
        cli(); mov(bx, word_ptr(KEY_HEAD)); cmp(bx, word_ptr(KEY_TAIL)); jne(".take");
        // STI holds interrupts off for one instruction, so no key slips in before HLT.
        sti(); hlt(); jmp(".wait");
        at(".take");
        mov(ax, word_ptr(bx)); call("keyboard.next"); mov(word_ptr(KEY_HEAD), bx);
        pop(ds); pop(bx); iret();

        // ZF of the caller says whether the buffer is empty.
        at(".look");
        mov(bx, word_ptr(KEY_HEAD)); cmp(bx, word_ptr(KEY_TAIL)); je(".empty");
        mov(ax, word_ptr(bx));
        mov(bx, sp); and(word_ptr(bx + 8).ss(), 0xFFBF); pop(ds); pop(bx); iret();
        at(".empty");
        mov(bx, sp); or(word_ptr(bx + 8).ss(), 0x0040); pop(ds); pop(bx); iret();

        at(".flags");
        mov(al, byte_ptr(SHIFT_FLAGS)); pop(ds); pop(bx); iret();
    }
    Ok(())
}
