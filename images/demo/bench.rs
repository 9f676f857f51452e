//! The port benchmark: what a trapped read, a posted write, a mirrored read, and latching and reading a counter cost.
//!
//! It needs only INT 10h teletype, the time-stamp counter and ports, so it runs under any BIOS.

use super::asm::{Asm, AsmResult, asm};
use super::chips::{DEBUG_PORT, dma, pit};
use super::interrupt;
use super::memory::*;
use iced_x86::code_asm::*;

/// Accesses per measurement.
pub const TURNS: i32 = 20_000;
/// Tenths of nanoseconds in the 10 ms that the time-stamp counter was measured over.
const TENTHS_PER_CALIBRATION: i32 = 100_000_000;
/// From here on (100 ns) the decimal place is noise.
const TENTHS_WITH_FRACTION: i32 = 1000;

/// Emits `bench.run`; the program also needs `timer.calibrate`. DS, ES and SS must be 0.
pub fn emit(a: &mut Asm) -> AsmResult {
    run(a)?;
    arithmetic(a)?;
    printing(a)
}

fn run(a: &mut Asm) -> AsmResult {
    let calibrated = a.text("time-stamp counter: ");
    let megahertz = a.text(" MHz\n");
    let alone = a.text("loop alone: ");
    let trapped = a.text("trapped read: ");
    let posted = a.text("posted write: ");
    let mirrored = a.text("mirrored read: ");
    let latched = a.text("latched count: ");
    let done = a.text("bench done\n");
    asm! { a;
        at("bench.run");
        call("timer.calibrate");
        mov(si, calibrated); call("bench.text");
        mov(eax, dword_ptr(TSC_PER_10MS)); xor(edx, edx); mov(ecx, 10_000); div(ecx); call("bench.decimal");
        mov(si, megahertz); call("bench.text");
        mov(dword_ptr(LOOP_TENTHS), 0);

        call("bench.start");
        at(".alone");
        dec(ecx); jnz(".alone");
        call("bench.stop"); push(eax); mov(si, alone); call("bench.line");
        pop(eax); mov(dword_ptr(LOOP_TENTHS), eax);

        // A counter of which reads give one byte is none that the bus reads: the timer itself must answer.
        out_byte(pit::CONTROL, pit::COUNTER_2_LOW_BYTE);
        call("bench.start");
        at(".trapped");
        in_al(pit::COUNTER_2); dec(ecx); jnz(".trapped");
        call("bench.stop"); mov(si, trapped); call("bench.line");

        call("bench.start");
        at(".posted");
        out_al(dma::POST_CODE); dec(ecx); jnz(".posted");
        call("bench.stop"); mov(si, posted); call("bench.line");

        call("bench.start");
        at(".mirrored");
        in_al(dma::POST_CODE); dec(ecx); jnz(".mirrored");
        call("bench.stop"); mov(si, mirrored); call("bench.line");

        call("bench.start");
        at(".latched");
        xor(eax, eax); out_al(pit::CONTROL); in_al(pit::COUNTER_0); in_al(pit::COUNTER_0);
        dec(ecx); jnz(".latched");
        call("bench.stop"); mov(si, latched); call("bench.line");
        mov(si, done); call("bench.text");
        ret();
    }
    Ok(())
}

fn arithmetic(a: &mut Asm) -> AsmResult {
    asm! { a;
        // ECX = turns; the clock runs from here.
        at("bench.start");
        rdtsc(); mov(dword_ptr(TSC_START), eax); mov(dword_ptr(TSC_START + 4), edx);
        mov(ecx, TURNS); ret();

        // EAX = tenths of nanoseconds per turn, without the loop itself.
        at("bench.stop");
        rdtsc(); sub(eax, dword_ptr(TSC_START)); sbb(edx, dword_ptr(TSC_START + 4));
        // EDX:EAX * 10 / turns: tenths of counts per turn.
        mov(ebx, edx); mov(ecx, 10); mul(ecx); imul_3(ebx, ebx, 10); add(edx, ebx);
        mov(ecx, TURNS); cmp(edx, ecx); jae(".overflow"); div(ecx);
        mov(ecx, TENTHS_PER_CALIBRATION / 10); mul(ecx);
        mov(ecx, dword_ptr(TSC_PER_10MS)); cmp(edx, ecx); jae(".overflow"); div(ecx);
        sub(eax, dword_ptr(LOOP_TENTHS)); jnc(".end"); xor(eax, eax);
        at(".end");
        ret();
        at(".overflow");
        mov(eax, -1); ret();
    }
    Ok(())
}

/// Emits `bench.text`, `bench.decimal`, `bench.character` and `decimal.digits`.
pub fn printing(a: &mut Asm) -> AsmResult {
    let point = a.text(".");
    let nanoseconds = a.text(" ns\n");
    asm! { a;
        // The text at CS:SI, then EAX tenths of nanoseconds.
        at("bench.line");
        push(eax); call("bench.text"); pop(eax);
        xor(edx, edx); mov(ecx, 10); div(ecx); push(dx);
        mov(ebx, eax); call("bench.decimal"); pop(dx);
        cmp(ebx, TENTHS_WITH_FRACTION / 10); jae(".unit");
        mov(si, point); call("bench.text"); mov(al, dl); add(al, i32::from(b'0')); call("bench.character");
        at(".unit");
        mov(si, nanoseconds); call("bench.text"); ret();

        at("bench.text");
        mov(al, byte_ptr(si).cs()); inc(si); test(al, al); jz(".end");
        call("bench.character"); jmp("bench.text");
        at(".end");
        ret();

        // EAX in decimal.
        at("bench.decimal");
        push(ebx); push(si); call("decimal.digits");
        at(".digit");
        mov(al, byte_ptr(si)); test(al, al); jz(".end"); call("bench.character"); inc(si); jmp(".digit");
        at(".end");
        pop(si); pop(ebx); ret();

        // AL to the screen and to the debug port.
        at("bench.character");
        pushad(); out_al(DEBUG_PORT); cmp(al, 0x0A); jne(".plain");
        mov(ax, 0x0E0D); mov(bx, 7); int(interrupt::VIDEO); mov(al, 0x0A);
        at(".plain");
        mov(ah, 0x0E); mov(bx, 7); int(interrupt::VIDEO); popad(); ret();

        // EAX in decimal: zero-ended digits at DS:SI; changes EAX, ECX, EDX.
        at("decimal.digits");
        mov(si, DIGITS_END); mov(byte_ptr(si), 0); mov(ecx, 10);
        at(".divide");
        xor(edx, edx); div(ecx); add(dl, i32::from(b'0')); dec(si); mov(byte_ptr(si), dl);
        test(eax, eax); jnz(".divide");
        ret();
    }
    Ok(())
}
