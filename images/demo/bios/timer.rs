//! The 8254: the 18.2 Hz tick, and the measurement of the time-stamp counter against counter 2.

use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::{fdc, pic, pit};
use crate::demo::interrupt;
use crate::demo::memory::*;
use iced_x86::code_asm::*;

/// Emits `timer.init`, `timer.irq` (IRQ 0), `timer.service` (INT 1Ah) and `timer.calibrate`.
pub fn emit(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("timer.init");
        out_byte(pit::CONTROL, pit::COUNTER_0_SQUARE);
        out_byte(pit::COUNTER_0, 0); out_byte(pit::COUNTER_0, 0);
        ret();

        at("timer.irq");
        push(ax); push(dx); push(ds); xor(ax, ax); mov(ds, ax);
        inc(dword_ptr(TICKS));
        cmp(byte_ptr(MOTOR_TICKS), 0); jz(".motor_off");
        dec(byte_ptr(MOTOR_TICKS)); jnz(".motor_off");
        out_byte(fdc::DOR, fdc::DOR_IDLE);
        at(".motor_off");
        int(interrupt::USER_TICK);
        out_byte(pic::MASTER, pic::EOI);
        pop(ds); pop(dx); pop(ax); iret();

        // Read the tick counter: CX:DX.
        at("timer.service");
        push(ds); push(0); pop(ds);
        test(ah, ah); jnz(".end");
        mov(dx, word_ptr(TICKS)); mov(cx, word_ptr(TICKS + 2)); xor(al, al);
        at(".end");
        pop(ds); iret();
    }
    calibrate(a)
}

/// `timer.calibrate`: counts time stamps during 10 ms of counter 2.
pub fn calibrate(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("timer.calibrate");
        in_al(pit::SYSTEM_CONTROL); and(al, !(pit::GATE_2 | pit::SPEAKER)); out_al(pit::SYSTEM_CONTROL);
        out_byte(pit::CONTROL, pit::COUNTER_2_ONE_SHOT);
        out_byte(pit::COUNTER_2, pit::TEN_MS & 0xFF);
        out_byte(pit::COUNTER_2, pit::TEN_MS >> 8);
        in_al(pit::SYSTEM_CONTROL); or(al, pit::GATE_2); out_al(pit::SYSTEM_CONTROL);
        rdtsc(); mov(ebx, eax);
        at(".wait");
        in_al(pit::SYSTEM_CONTROL); test(al, pit::OUT_2); jz(".wait");
        rdtsc(); sub(eax, ebx); jnz(".counted");
        // A counter that stands still must not end in a division by zero.
        inc(eax);
        at(".counted");
        mov(dword_ptr(TSC_PER_10MS), eax);
        in_al(pit::SYSTEM_CONTROL); and(al, !(pit::GATE_2 | pit::SPEAKER)); out_al(pit::SYSTEM_CONTROL);
        ret();
    }
    Ok(())
}
