//! External interrupts and their shadows, with a real one from the 8254.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::{Asm, AsmResult};
use crate::demo::chips::{pic, pit};
use exception as x;
use iced_x86::code_asm::*;

pub fn emit(t: &mut Suite) -> AsmResult {
    let wait = code! {
        // IRQ 0 is requested when this returns: counter 0 has run out once.
        at("irq.request");
        mov(al, 0x30); out(pit::CONTROL, al); mov(al, 0x20); out(pit::COUNTER_0, al); mov(al, 0); out(pit::COUNTER_0, al);
        mov(al, 0xFE); out(pic::MASTER_MASK, al); mov(al, 0x0A); out(pic::MASTER, al);
        at(".wait");
        in_(al, pic::MASTER); test(al, 1); jz(".wait");
        xor(eax, eax); ret();
    };
    wait(&mut t.a)?;
    let request = |a: &mut Asm| a.call("irq.request").map_err(Into::into);
    t.ring0("interrupt/sti-shadow", code! { sti(); inc(eax); at(".a"); inc(eax); inc(eax); })?
        .plain_fault(x::IRQ0)
        .at(".a")
        .eax(1);
    t.setup(request)?;
    t.ring0("interrupt/sti-cli-lets-none-in", code! { sti(); cli(); inc(ebx); })?.done().ebx(1);
    t.setup(request)?;
    t.ring0(
        "interrupt/popf-has-no-shadow",
        code! { push(flag::IF | flag::ONE); popfd(); at(".a"); inc(ebx); inc(ebx); },
    )?
    .plain_fault(x::IRQ0)
    .at(".a")
    .ebx(0);
    t.setup(request)?;
    t.ring0("interrupt/sti-hlt", code! { sti(); hlt(); at(".a"); inc(ebx); })?
        .plain_fault(x::IRQ0)
        .at(".a")
        .ebx(0);
    t.setup(request)?;
    t.ring0(
        "interrupt/sti-when-set-has-no-shadow",
        code! { push(flag::IF | flag::ONE); nop(); popfd(); at(".a"); sti(); inc(ebx); },
    )?
    .plain_fault(x::IRQ0)
    .at(".a");
    t.setup(request)?;
    t.ring3("interrupt/at-level-3", code! { at(".a"); inc(ebx); jmp(".a"); })?
        .flags(flag::IF)
        .plain_fault(x::IRQ0)
        .cs(CODE3)
        .memory("SS", record::SS, 0xFFFF, DATA3.into());
    t.setup(request)?;
    t.ring3("interrupt/iret-has-no-shadow", code! { nop(); })?
        .flags(flag::IF)
        .plain_fault(x::IRQ0)
        .at("interrupt/iret-has-no-shadow");
    t.setup(request)?;
    // STI holds it back past the load; whether that holds it back again is the processor's choice (SDM 3A 6.8.3).
    t.ring0(
        "interrupt/sti-shadow-covers-mov-ss",
        code! { mov(edx, ss); sti(); mov(ss, edx); inc(ebx); inc(ebx); },
    )?
    .plain_fault(x::IRQ0)
    .memory("instructions after the load", record::EBX, !1, 0);
    t.setup(request)?;
    // IF is set in the shadow of the load, and looked at after it.
    t.ring0(
        "interrupt/popf-after-mov-ss",
        code! { mov(edx, ss); push(flag::IF | flag::ONE); mov(ss, edx); popfd(); at(".a"); inc(ebx); inc(ebx); },
    )?
    .plain_fault(x::IRQ0)
    .at(".a")
    .ebx(0);
    t.setup(request)?;
    ticks(t)
}

/// Interrupts that come at any time never come between a load of SS and the next instruction.
fn ticks(t: &mut Suite) -> AsmResult {
    /// Input clocks until the interrupt.
    const CLOCKS: i32 = 200;
    const ROUNDS: i32 = 20;
    let handler = code! {
        // Counts the interrupts, and in the next dword those that found the shadow: EDI is its address.
        at("tick.handler");
        push(eax); inc(dword_ptr(SCRATCH)); cmp(dword_ptr(esp + 4), edi); jne(".outside"); inc(dword_ptr(SCRATCH + 4));
        at(".outside");
        mov(al, pic::EOI); out(pic::MASTER, al); pop(eax); iretd();

        at("tick.start");
        mov(ecx, dword_ptr(SCRATCH)); mov(al, 0x30); out(pit::CONTROL, al); mov(al, CLOCKS); out(pit::COUNTER_0, al); mov(al, 0); out(pit::COUNTER_0, al);
        mov(al, 0xFE); out(pic::MASTER_MASK, al); ret();
    };
    handler(&mut t.a)?;
    for (name, pop) in [("mov-ss", false), ("pop-ss", true)] {
        let label = format!("interrupt/never-after-{name}");
        let shadow = t.a.table(&[&format!("{label}.shadow")]);
        t.ring0(&label, |a| {
            let before = code! {
                mov(edi, dword_ptr(shadow)); mov(edx, ss); sti();
                at(".round"); call("tick.start");
                at(".again");
            };
            before(a)?;
            if pop {
                a.push(ss)?;
                a.pop(ss)?;
            } else {
                a.mov(ss, edx)?;
            }
            let after = code! {
                at(".shadow"); inc(ebx);
                cmp(dword_ptr(SCRATCH), ecx); je(".again");
                cmp(dword_ptr(SCRATCH), ROUNDS); jb(".round");
                cli();
            };
            after(a)
        })?
        .done()
        .memory("interrupts", SCRATCH, u32::MAX, ROUNDS)
        .memory("interrupts in the shadow", SCRATCH + 4, u32::MAX, 0);
        t.setup(|a| a.set_gate(x::IRQ0, "tick.handler", GATE_INTERRUPT))?;
    }
    Ok(())
}
