//! Single steps, breakpoints, DR6, RF.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::{Asm, AsmResult};
use exception as x;
use iced_x86::code_asm::*;

const BS: i32 = 0x4000;
const BD: i32 = 0x2000;
/// DR7: bit 10 is always one.
const ONE: i32 = 0x400;
const GD: i32 = 0x2000;
/// Kinds of breakpoints: execution, write, port, read or write; and lengths less one.
const WRITE: i32 = 1;
const PORT: i32 = 2;
const ACCESS: i32 = 3;

/// DR7 with breakpoint `n` enabled.
fn enabled(n: i32, kind: i32, len: i32) -> i32 {
    ONE | 1 << (2 * n) | (kind | (len - 1) << 2) << (16 + 4 * n)
}

/// Lets the events be logged, and returned from.
fn logged(a: &mut Asm) -> AsmResult {
    a.set_gate(x::DB, "log.debug", GATE_INTERRUPT)
}

pub fn emit(t: &mut Suite) -> AsmResult {
    steps(t)?;
    breakpoints(t)
}

fn steps(t: &mut Suite) -> AsmResult {
    t.ring0("step/every-instruction", code! {
        pushfd(); or(dword_ptr(esp), flag::TF); popfd();
        nop(); at(".a"); nop(); at(".b"); pushfd(); at(".c"); and(dword_ptr(esp), !flag::TF); at(".d"); popfd(); at(".e"); nop();
    })?
    .done()
    .logged(5)
    .log_at(0, ".a")
    .log_at(1, ".b")
    .log_at(2, ".c")
    .log_at(3, ".d")
    .log_at(4, ".e")
    .log_dr6(0, BS);
    t.setup(logged)?;
    t.ring0(
        "step/repeated-string-per-iteration",
        code! {
            mov(edi, SCRATCH); mov(ecx, 3); pushfd(); or(dword_ptr(esp), flag::TF); popfd();
            at(".rep"); rep_stosb(); at(".a"); pushfd(); and(dword_ptr(esp), !flag::TF); popfd(); nop();
        },
    )?
    .done()
    .log_at(0, ".rep")
    .log_at(1, ".rep")
    .log_at(2, ".a")
    .logged(6);
    t.setup(logged)?;
    t.ring0(
        "step/not-into-interrupt-handlers",
        code! {
            pushfd(); or(dword_ptr(esp), flag::TF); popfd();
            int(x::DONE + 1); nop(); at(".a"); pushfd(); and(dword_ptr(esp), !flag::TF); popfd(); nop();
        },
    )?
    .done()
    .log_at(0, ".a");
    t.setup(|a| {
        logged(a)?;
        a.set_gate(x::DONE + 1, "gate.iret", GATE_INTERRUPT)
    })?;
    t.ring0(
        "step/not-after-mov-ss",
        code! {
            mov(edx, ss); pushfd(); or(dword_ptr(esp), flag::TF); popfd();
            mov(ss, edx); nop(); at(".a"); pushfd(); and(dword_ptr(esp), !flag::TF); popfd(); nop();
        },
    )?
    .done()
    .log_at(0, ".a")
    .logged(4);
    t.setup(logged)?;
    t.ring0("step/not-after-pop-ss", code! {
        pushfd(); or(dword_ptr(esp), flag::TF); push(ss); mov(edx, dword_ptr(esp + 4)); push(edx); popfd();
        pop(ss); nop(); at(".a"); pushfd(); and(dword_ptr(esp), !flag::TF); popfd(); nop();
    })?
    .done()
    .log_at(0, ".a")
    .logged(4);
    t.setup(logged)?;
    t.ring3("step/at-level-3", code! { push(flag::TF); popfd(); nop(); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(BS)
        .cs(CODE3);
    t.ring0(
        "step/fault-comes-first",
        code! { pushfd(); or(dword_ptr(esp), flag::TF); popfd(); at(".fault"); ud2(); },
    )?
    .plain_fault(x::UD)
    .at(".fault")
    .dr6(0)
    // A fault pushes RF, so that a breakpoint there does not strike twice.
    .eflags(flag::RF | flag::TF, flag::RF | flag::TF);
    // QEMU's TCG has no ICEBP, pushes no RF with faults, and knows no GD.
    t.ring0("step/icebp-is-a-trap", code! { db(&[0xF1]); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(0);
    Ok(())
}

fn breakpoints(t: &mut Suite) -> AsmResult {
    t.ring0("breakpoint/execution-is-a-fault", code! { at(".b"); inc(ebx); })?
        .plain_fault(x::DB)
        .at(".b")
        .dr6(1)
        .ebx(0);
    t.setup(|a| execution(a, "breakpoint/execution-is-a-fault.b"))?;
    t.ring0("breakpoint/rf-lets-it-pass-once", code! { at(".b"); inc(ebx); cmp(ebx, 2); jb(".b"); })?
        .done()
        .logged(2)
        .log_at(0, ".b")
        .log_at(1, ".b")
        .log_dr6(1, 1);
    t.setup(|a| {
        logged(a)?;
        execution(a, "breakpoint/rf-lets-it-pass-once.b")
    })?;
    // QEMU does not hold it back.
    t.ring0(
        "breakpoint/not-on-the-instruction-after-mov-ss",
        code! { mov(edx, ss); mov(ss, edx); at(".b"); inc(ebx); },
    )?
    .done()
    .ebx(1);
    t.setup(|a| execution(a, "breakpoint/not-on-the-instruction-after-mov-ss.b"))?;
    both(t)?;
    let data = |n: i32, kind: i32, len: i32| {
        move |a: &mut Asm| -> AsmResult {
            a.mov(eax, SCRATCH)?;
            match n {
                1 => a.mov(dr1, eax)?,
                2 => a.mov(dr2, eax)?,
                _ => a.mov(dr3, eax)?,
            }
            a.mov(eax, enabled(n, kind, len))?;
            Ok(a.mov(dr7, eax)?)
        }
    };
    t.ring0("breakpoint/write-is-a-trap", code! { mov(dword_ptr(SCRATCH), 7); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(2)
        .memory("memory", SCRATCH, u32::MAX, 7);
    t.setup(data(1, WRITE, 4))?;
    t.ring0("breakpoint/write-does-not-see-reads", code! { mov(eax, dword_ptr(SCRATCH)); })?.done();
    t.setup(data(1, WRITE, 4))?;
    t.ring0("breakpoint/access-sees-reads", code! { mov(eax, dword_ptr(SCRATCH)); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(8);
    t.setup(data(3, ACCESS, 4))?;
    t.ring0("breakpoint/last-byte", code! { mov(byte_ptr(SCRATCH + 3), al); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(4);
    t.setup(data(2, WRITE, 4))?;
    t.ring0("breakpoint/byte-behind", code! { mov(byte_ptr(SCRATCH + 4), al); })?.done();
    t.setup(data(2, WRITE, 4))?;
    t.ring0("breakpoint/wide-access-over-it", code! { mov(dword_ptr(SCRATCH - 2), eax); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(2);
    t.setup(data(1, WRITE, 1))?;
    t.ring0("breakpoint/push", code! { mov(esp, SCRATCH + 4); push(eax); at(".a"); nop(); })?
        .plain_fault(x::DB)
        .at(".a")
        .dr6(2);
    t.setup(data(1, WRITE, 4))?;
    t.ring0(
        "breakpoint/repeated-string-stops-after-the-iteration",
        code! {
            mov(edi, SCRATCH - 4); mov(ecx, 4); at(".rep"); rep_stosd();
        },
    )?
    .plain_fault(x::DB)
    .at(".rep")
    .ecx(2)
    .dr6(2);
    t.setup(data(1, WRITE, 4))?;
    t.ring0("breakpoint/port", code! { out(0x80, al); at(".a"); nop(); })?
        .cr4(ctl::DE)
        .plain_fault(x::DB)
        .at(".a")
        .dr6(4);
    t.setup(|a| {
        a.mov(eax, 0x80)?;
        a.mov(dr2, eax)?;
        a.mov(eax, enabled(2, PORT, 1))?;
        Ok(a.mov(dr7, eax)?)
    })?;
    t.ring0(
        "breakpoint/general-detect",
        code! { mov(eax, ONE | GD); mov(dr7, eax); at(".fault"); mov(eax, dr0); },
    )?
    .plain_fault(x::DB)
    .at(".fault")
    .dr6(BD);
    t.ring0(
        "debug-registers/dr4-is-dr6",
        code! { mov(eax, dr6); mov(ebx, eax); db(&[0x0F, 0x21, 0xE0]); sub(eax, ebx); },
    )?
    .done()
    .eax(0);
    t.ring0("debug-registers/dr4-with-de", code! { at(".fault"); db(&[0x0F, 0x21, 0xE0]); })?
        .cr4(ctl::DE)
        .plain_fault(x::UD)
        .at(".fault");
    Ok(())
}

/// A single step and an execution breakpoint on one instruction.
fn both(t: &mut Suite) -> AsmResult {
    // The trap of the instruction before comes before the fault of this one.
    t.ring0(
        "step-and-breakpoint/trap-comes-first",
        code! { pushfd(); or(dword_ptr(esp), flag::TF); popfd(); nop(); at(".b"); inc(ebx); },
    )?
    .plain_fault(x::DB)
    .at(".b")
    .ebx(0)
    .memory("BS in DR6", record::DR6, BS as u32, BS)
    .eflags(flag::TF | flag::RF, flag::TF);
    t.setup(|a| execution(a, "step-and-breakpoint/trap-comes-first.b"))?;
    // Both strike: the fault before the instruction, the trap after it.
    t.ring0(
        "step-and-breakpoint/fault-then-trap",
        code! {
            pushfd(); or(dword_ptr(esp), flag::TF); popfd(); at(".b"); inc(ebx); at(".after");
            pushfd(); and(dword_ptr(esp), !flag::TF); popfd(); nop();
        },
    )?
    .done()
    .logged(5)
    .log_at(0, ".b")
    .log_dr6(0, 1)
    .log_at(1, ".after")
    .log_dr6(1, BS)
    .ebx(1);
    t.setup(|a| {
        logged(a)?;
        execution(a, "step-and-breakpoint/fault-then-trap.b")
    })?;
    // The fault of a breakpoint pushes RF as it was, for other faults see `step/fault-comes-first`.
    t.ring0("breakpoint/execution-pushes-no-rf", code! { at(".b"); inc(ebx); })?
        .plain_fault(x::DB)
        .at(".b")
        .eflags(flag::RF, 0);
    t.setup(|a| execution(a, "breakpoint/execution-pushes-no-rf.b"))?;
    t.ring0("breakpoint/execution-before-a-fault", code! { at(".b"); ud2(); })?
        .plain_fault(x::DB)
        .at(".b")
        .dr6(1);
    t.setup(|a| execution(a, "breakpoint/execution-before-a-fault.b"))?;
    Ok(())
}

fn execution(a: &mut Asm, label: &str) -> AsmResult {
    let target = a.table(&[label]);
    a.mov(eax, dword_ptr(target))?;
    a.mov(dr0, eax)?;
    a.mov(eax, enabled(0, 0, 1))?;
    Ok(a.mov(dr7, eax)?)
}
