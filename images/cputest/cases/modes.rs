//! SYSENTER, the A20 gate, unreal mode.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, blob, code};
use crate::demo::asm::{Asm, AsmResult};
use exception as x;
use iced_x86::code_asm::*;

const SYSENTER_CS: i32 = 0x174;

pub fn emit(t: &mut Suite) -> AsmResult {
    sysenter(t)?;
    a20(t)?;
    unreal(t)
}

fn msr(a: &mut Asm, number: i32, value: i32) -> AsmResult {
    let code = code! { mov(ecx, number); mov(eax, value); xor(edx, edx); wrmsr(); };
    code(a)
}

fn sysenter(t: &mut Suite) -> AsmResult {
    const ESP_MSR: i32 = SYSENTER_CS + 1;
    const EIP_MSR: i32 = SYSENTER_CS + 2;
    t.ring3("sysenter/enters-level-0", code! { sysenter(); })?
        .flags(flag::IF)
        .done()
        .cs(CODE0)
        .memory("SS", record::SS, 0xFFFF, DATA0.into())
        .memory("ESP", record::ESP, u32::MAX, STACK_1)
        .eflags(flag::IF, 0);
    t.setup(|a| {
        msr(a, SYSENTER_CS, CODE0.into())?;
        msr(a, ESP_MSR, STACK_1)?;
        let target = a.table(&["gate.done"]);
        let code = code! { mov(ecx, EIP_MSR); mov(eax, dword_ptr(target)); xor(edx, edx); wrmsr(); };
        code(a)
    })?;
    t.ring3("sysenter/null-cs", code! { at(".fault"); sysenter(); })?.fault(x::GP, 0).at(".fault");
    t.setup(|a| msr(a, SYSENTER_CS, 0))?;
    t.ring0("sysexit/returns-to-level-3", |a| {
        let target = a.table(&["gate.done"]);
        let code = code! { mov(edx, dword_ptr(target)); mov(ecx, STACK_USER); };
        code(a)?;
        Ok(a.db(&[0x0F, 0x35])?)
    })?
    .done()
    .cs(CODE3)
    .memory("SS", record::SS, 0xFFFF, DATA3.into())
    .memory("ESP", record::ESP, u32::MAX, STACK_USER);
    t.setup(|a| msr(a, SYSENTER_CS, CODE0.into()))?;
    t.ring3("sysexit/is-privileged", code! { at(".fault"); db(&[0x0F, 0x35]); })?
        .fault(x::GP, 0)
        .at(".fault");
    Ok(())
}

fn a20(t: &mut Suite) -> AsmResult {
    const HIGH: i32 = 0x10_0000 + SCRATCH;
    // Both sources: the fast gate, and the keyboard controller's output port.
    let gate = code! {
        // AL = output port, AH = port 92h.
        at("a20.set");
        push(eax); call("a20.ready"); mov(al, 0xD1); out(0x64, al); call("a20.ready"); pop(eax);
        out(0x60, al); mov(al, ah); out(0x92, al); push(eax); call("a20.ready"); pop(eax); ret();

        at("a20.ready");
        in_(al, 0x64); test(al, 2); jnz("a20.ready"); ret();
    };
    gate(&mut t.a)?;
    t.ring0(
        "a20/closed-wraps-at-1-mib",
        code! {
            mov(dword_ptr(HIGH), 0x1111); mov(dword_ptr(SCRATCH), 0x2222);
            mov(eax, 0x00DD); call("a20.set");
            mov(ebx, dword_ptr(HIGH));
            mov(eax, 0x02DF); call("a20.set");
            mov(ecx, dword_ptr(HIGH));
        },
    )?
    .done()
    .ebx(0x2222)
    .ecx(0x1111);
    Ok(())
}

fn unreal(t: &mut Suite) -> AsmResult {
    const FAR: i32 = 0x20_1000;
    let back = t.a.table(&["unreal.back"]);
    let code = code! {
        at("unreal.back");
        mov(eax, i32::from(DATA0)); mov(ss, eax); mov(esp, STACK_CASE); int(x::DONE);
    };
    code(&mut t.a)?;
    // Leaves protected mode by 16-bit code, keeps the limit of DS, and comes back.
    const REAL: u16 = 0x0D;
    let (bytes, labels) = blob(code! {
        mov(eax, cr0); and(al, 0xFE); mov(cr0, eax); db(&[0xEA]); dw(&[REAL, BLOB_SEGMENT]);
        at("real");
        mov(ebx, FAR); mov(dword_ptr(ebx), 0x1234_5678);
        xor(cx, cx); mov(es, cx); mov(dx, cs);
        mov(eax, cr0); or(al, 1); mov(cr0, eax);
        db(&[0x66, 0x2E, 0xFF, 0x2E]); dw(&[0xF0]);
    })?;
    if labels.get("real") != Some(&u32::from(REAL)) {
        return Err("the jump into real mode misses".into());
    }
    let mut bytes = bytes;
    bytes.resize(0xF8, 0);
    t.ring0("unreal/limit-outlives-protected-mode", code! {
        mov(eax, dword_ptr(back)); mov(dword_ptr(BLOB + 0xF0), eax); mov(dword_ptr(BLOB + 0xF4), i32::from(CODE0));
        jmp_far(CODE16, 0);
    })?
    .blob(bytes)
    .done()
    .memory("memory", FAR, u32::MAX, 0x1234_5678)
    .memory("CS in real mode", record::EDX, 0xFFFF, BLOB_SEGMENT.into());
    Ok(())
}
