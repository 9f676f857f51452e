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
    Ok(())
}
