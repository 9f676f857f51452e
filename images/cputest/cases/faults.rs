//! Exceptions of single instructions, segment loads and limits, with their error codes.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

pub fn emit(t: &mut Suite) -> AsmResult {
    plain(t)?;
    privileged(t)?;
    ports(t)?;
    loads(t)?;
    limits(t)?;
    inspection(t)?;
    alignment(t)
}

fn plain(t: &mut Suite) -> AsmResult {
    t.ring0("fault/ud", code! { at(".fault"); ud2(); })?.plain_fault(x::UD).at(".fault").cs(CODE0);
    t.ring3("fault/ud-at-level-3", code! { at(".fault"); ud2(); })?
        .plain_fault(x::UD)
        .at(".fault")
        .cs(CODE3)
        .memory("SS", record::SS, 0xFFFF, DATA3.into())
        .memory("ESP", record::ESP, u32::MAX, STACK_USER)
        .memory("handler's ESP", record::HANDLER_ESP, u32::MAX, STACK_TSS - 80);
    t.ring0("fault/divide-by-zero", code! { mov(eax, 5); at(".fault"); div(ecx); })?
        .plain_fault(x::DE)
        .at(".fault")
        .eax(5);
    t.ring0("fault/divide-overflow", code! { mov(edx, 5); mov(ecx, 5); at(".fault"); div(ecx); })?
        .plain_fault(x::DE)
        .at(".fault");
    t.ring3("fault/int3", code! { int3(); at(".after"); nop(); })?.plain_fault(x::BP).at(".after");
    t.ring3("fault/into", code! { mov(al, 0x7F); inc(al); db(&[0xCE]); at(".after"); nop(); })?
        .plain_fault(x::OF)
        .at(".after");
    t.ring3("fault/into-without-overflow", code! { db(&[0xCE]); })?.done();
    t.ring0(
        "fault/bound",
        code! { mov(eax, 9); mov(dword_ptr(SCRATCH + 4), 8); at(".fault"); bound(eax, qword_ptr(SCRATCH)); },
    )?
    .plain_fault(x::BR)
    .at(".fault");
    // QEMU 7.2 ignores LOCK on MOV.
    t.ring0("fault/lock-on-mov", code! { at(".fault"); db(&[0xF0, 0x89, 0xC0]); })?
        .plain_fault(x::UD)
        .at(".fault");
    // QEMU before 4.2 had no limit on the length of an instruction.
    t.ring0("fault/15-bytes", code! { db(&[0x66; 14]); nop(); })?.done();
    t.ring0("fault/16-bytes", code! { at(".fault"); db(&[0x66; 15]); nop(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("int/gate-of-level-0", code! { at(".fault"); int(x::DONE + 1); })?
        .fault(x::GP, (x::DONE + 1) * 8 + 2)
        .at(".fault");
    t.setup(code! { and(byte_ptr(vector(x::DONE + 1) + 5), 0x9F); })?;
    t.ring0("int/no-gate", code! { at(".fault"); int(0x50); })?.fault(x::GP, 0x50 * 8 + 2).at(".fault");
    t.ring0("int/absent-gate", code! { at(".fault"); int(0x50); })?
        .poke(vector(0x50), i32::from(CODE0) << 16)
        .poke(vector(0x50) + 4, 0x0E00)
        .fault(x::NP, 0x50 * 8 + 2)
        .at(".fault");
    t.ring0("int/null-selector", code! { at(".fault"); int(0x50); })?
        .poke(vector(0x50) + 4, 0x8E00)
        .fault(x::GP, 0);
    t.ring0("int/gate-to-data", code! { at(".fault"); int(0x50); })?
        .poke(vector(0x50), i32::from(DATA0) << 16)
        .poke(vector(0x50) + 4, 0x8E00)
        .fault(x::GP, DATA0.into());
    t.ring0("int/gate-to-outer-level", code! { at(".fault"); int(0x50); })?
        .poke(vector(0x50), i32::from(CODE3) << 16)
        .poke(vector(0x50) + 4, 0x8E00)
        .fault(x::GP, i32::from(CODE3 & !3));
    t.ring0("int/gate-to-absent-code", code! { at(".fault"); int(0x50); })?
        .poke(vector(0x50), i32::from(CODE_ABSENT) << 16)
        .poke(vector(0x50) + 4, 0x8E00)
        .fault(x::NP, CODE_ABSENT.into());
    // The error code of a fault that comes while a fault is delivered has EXT set (QEMU does not set it).
    t.ring0("int/fault-with-absent-gate", code! { at(".fault"); ud2(); })?
        .fault(x::NP, x::UD * 8 + 3)
        .at(".fault");
    t.setup(code! { and(byte_ptr(vector(x::UD) + 5), 0x7F); })?;
    t.ring0(
        "double-fault/gp-with-absent-gate",
        code! { mov(eax, i32::from(BEYOND)); at(".fault"); mov(ds, eax); },
    )?
    .fault(x::DF, 0);
    t.setup(code! { and(byte_ptr(vector(x::GP) + 5), 0x7F); })?;
    t.ring0("double-fault/page-fault-with-absent-gate", code! { mov(eax, dword_ptr(TEST)); })?
        .paging()
        .poke(TEST_PTE, 0)
        .fault(x::DF, 0)
        .cr2(TEST);
    t.setup(code! { and(byte_ptr(vector(x::PF) + 5), 0x7F); })?;
    Ok(())
}

fn privileged(t: &mut Suite) -> AsmResult {
    t.ring3("privileged/hlt", code! { at(".fault"); hlt(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/cli", code! { at(".fault"); cli(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/sti", code! { at(".fault"); sti(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/cli-with-iopl-3", code! { cli(); })?.flags(flag::IOPL3).done();
    t.ring3("privileged/lgdt", code! { at(".fault"); lgdt(fword_ptr(SCRATCH)); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("privileged/lidt", code! { at(".fault"); lidt(fword_ptr(SCRATCH)); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("privileged/lldt", code! { at(".fault"); lldt(ax); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/ltr", code! { at(".fault"); ltr(ax); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/mov-from-cr0", code! { at(".fault"); mov(eax, cr0); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/mov-to-cr3", code! { at(".fault"); mov(cr3, eax); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/mov-from-dr7", code! { at(".fault"); mov(eax, dr7); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/lmsw", code! { at(".fault"); lmsw(ax); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/clts", code! { at(".fault"); clts(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/invlpg", code! { at(".fault"); invlpg(byte_ptr(TEST)); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("privileged/wbinvd", code! { at(".fault"); wbinvd(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/rdmsr", code! { at(".fault"); rdmsr(); })?.fault(x::GP, 0).at(".fault");
    t.ring3("privileged/smsw-is-not", code! { smsw(ax); })?.done().memory("PE", record::EAX, 1, 1);
    t.ring3("privileged/sgdt-is-not", code! { sgdt(fword_ptr(SCRATCH)); })?
        .done()
        .memory("limit", SCRATCH, 0xFFFF, GDT_BYTES - 1)
        .memory("base", SCRATCH + 2, u32::MAX, GDT);
    t.ring3("privileged/rdtsc-with-tsd", code! { at(".fault"); rdtsc(); })?
        .cr4(ctl::TSD)
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("privileged/rdtsc", code! { rdtsc(); })?.done();
    t.ring3(
        "privileged/popf-keeps-if-and-iopl",
        code! { push(flag::IF | flag::IOPL3 | flag::CF); popfd(); },
    )?
    .done()
    .eflags(flag::IF | flag::IOPL3 | flag::CF, flag::CF);
    t.ring3("privileged/popf-with-iopl-3-sets-if", code! { push(flag::IF | flag::CF); popfd(); })?
        .flags(flag::IOPL3)
        .done()
        .eflags(flag::IF | flag::IOPL3 | flag::CF, flag::IF | flag::IOPL3 | flag::CF);
    // QEMU and Bochs (as configured by default) read unknown registers as zero.
    t.ring0("msr/unknown", code! { mov(ecx, 0x7FFF_FFFF); at(".fault"); rdmsr(); })?
        .fault(x::GP, 0)
        .at(".fault");
    // QEMU does not check this.
    t.ring0(
        "control/nw-without-cd",
        code! { mov(eax, cr0); and(eax, 0x9FFF_FFFFu32); or(eax, 0x2000_0000); at(".fault"); mov(cr0, eax); },
    )?
    .fault(x::GP, 0)
    .at(".fault");
    t.ring0("control/lmsw-cannot-leave-protected-mode", code! { xor(eax, eax); lmsw(ax); smsw(ax); })?
        .done()
        .memory("PE", record::EAX, 1, 1);
    t.ring0("control/cr5", code! { at(".fault"); db(&[0x0F, 0x20, 0xE8]); })?.plain_fault(x::UD).at(".fault");
    Ok(())
}

/// Cases in which QEMU 7.2 hangs or loses the processor's mode; all others come before them.
pub fn emit_last(t: &mut Suite) -> AsmResult {
    t.ring0("control/cr4-reserved", code! { mov(eax, 0x8000); at(".fault"); mov(cr4, eax); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring0("control/pg-without-pe", code! { mov(eax, ctl::PG); at(".fault"); mov(cr0, eax); })?
        .fault(x::GP, 0)
        .at(".fault");
    Ok(())
}

fn ports(t: &mut Suite) -> AsmResult {
    const PORT: i32 = 0x80;
    const BYTE: i32 = TSS_IO_BITMAP + PORT / 8;
    t.ring3("io-bitmap/clear-bit-allows", code! { in_(al, PORT); })?.done();
    t.ring3("io-bitmap/set-bit-denies", code! { at(".fault"); in_(al, PORT); })?
        .poke(BYTE, 1)
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("io-bitmap/word-needs-two-bits", code! { at(".fault"); in_(ax, PORT); })?
        .poke(BYTE, 2)
        .fault(x::GP, 0);
    t.ring3("io-bitmap/byte-beside-a-set-bit", code! { in_(al, PORT); })?.poke(BYTE, 2).done();
    t.ring3("io-bitmap/beyond-the-limit", code! { mov(edx, 0x900); at(".fault"); in_(al, dx); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("io-bitmap/iopl-3-does-not-look", code! { in_(al, PORT); })?
        .poke(BYTE, 1)
        .flags(flag::IOPL3)
        .done();
    t.ring3("io-bitmap/map-base-beyond-limit", code! { at(".fault"); in_(al, PORT); })?
        .poke(TSS + tss::TRAP, 0x7FFF_0000)
        .fault(x::GP, 0);
    t.ring3(
        "io-bitmap/outs-is-checked-too",
        code! { mov(esi, SCRATCH); mov(edx, PORT); at(".fault"); outsb(); },
    )?
    .poke(BYTE, 1)
    .fault(x::GP, 0)
    .at(".fault");
    Ok(())
}

fn loads(t: &mut Suite) -> AsmResult {
    let local_gone = descriptor(LDT, 7, LDT_TYPE);
    t.ring0("load/ds-null", code! { xor(eax, eax); mov(ds, eax); mov(eax, i32::from(DATA0)); })?.done();
    t.ring0("load/use-of-null-ds", code! { mov(ds, eax); at(".fault"); mov(eax, dword_ptr(SCRATCH)); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3("load/store-through-null-es", code! { mov(es, eax); at(".fault"); stosb(); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring0("load/ss-null", code! { at(".fault"); mov(ss, eax); })?.fault(x::GP, 0).at(".fault");
    for (name, register, selector, vector) in [
        ("ds-beyond-the-table", 0, BEYOND, x::GP),
        ("ds-absent", 0, ABSENT, x::NP),
        ("ds-execute-only", 0, EXECUTE_ONLY, x::GP),
        ("ds-tss", 0, TASK, x::GP),
        ("ds-gate", 0, CALL_GATE, x::GP),
        ("ss-absent", 1, ABSENT, x::SS),
        ("ss-of-level-3", 1, DATA3, x::GP),
        ("ss-code", 1, CODE0, x::GP),
        ("ss-rpl-3", 1, DATA0 | 3, x::GP),
        ("ss-beyond-the-table", 1, BEYOND, x::GP),
    ] {
        let case = t.ring0(&format!("load/{name}"), |a| {
            let code = code! { mov(eax, i32::from(selector)); at(".fault"); };
            code(a)?;
            if register == 0 {
                a.mov(ds, eax)?;
            } else {
                a.mov(ss, eax)?;
            }
            Ok(())
        })?;
        case.fault(vector, i32::from(selector & !3)).at(".fault");
    }
    for (name, register, selector) in [
        ("ds-of-level-0-at-level-3", 0, DATA0),
        ("ds-rpl-cannot-help", 0, DATA0 | 3),
        ("ss-read-only-at-level-3", 1, READ_ONLY | 3),
        ("ss-rpl-0-at-level-3", 1, DATA3 & !3),
    ] {
        let case = t.ring3(&format!("load/{name}"), |a| {
            let code = code! { mov(eax, i32::from(selector)); at(".fault"); };
            code(a)?;
            if register == 0 {
                a.mov(ds, eax)?;
            } else {
                a.mov(ss, eax)?;
            }
            Ok(())
        })?;
        case.fault(x::GP, i32::from(selector & !3)).at(".fault");
    }
    t.ring3(
        "load/conforming-code-of-level-0-at-level-3",
        code! { mov(eax, i32::from(CONFORMING)); mov(ds, eax); },
    )?
    .done();
    t.ring0(
        "load/from-ldt",
        code! { mov(eax, i32::from(LOCAL_DATA)); mov(ds, eax); mov(eax, dword_ptr(SCRATCH)); },
    )?
    .poke(SCRATCH, 0x1234)
    .done()
    .eax(0x1234);
    t.ring0(
        "load/beyond-the-ldt",
        code! {
            mov(eax, i32::from(LOCAL)); lldt(ax);
            mov(eax, i32::from(LOCAL_DATA)); at(".fault"); mov(ds, eax);
        },
    )?
    .descriptor(LOCAL, local_gone)
    .fault(x::GP, LOCAL_DATA.into())
    .at(".fault");
    t.ring0(
        "load/without-an-ldt",
        code! { xor(eax, eax); lldt(ax); mov(eax, i32::from(LOCAL_DATA)); at(".fault"); mov(ds, eax); },
    )?
    .fault(x::GP, LOCAL_DATA.into())
    .at(".fault");
    t.ring0("load/lldt-of-a-tss", code! { mov(eax, i32::from(TASK)); at(".fault"); lldt(ax); })?
        .fault(x::GP, TASK.into());
    t.ring0("load/ltr-busy", code! { mov(eax, i32::from(TASK)); at(".fault"); ltr(ax); })?
        .fault(x::GP, TASK.into())
        .at(".fault");
    t.ring0("load/ltr-sets-busy", code! { mov(eax, i32::from(TASK_B)); ltr(ax); })?.done().memory(
        "type",
        entry(TASK_B) + 4,
        0xF00,
        0xB00,
    );
    t.ring0("load/sets-accessed", code! { mov(eax, i32::from(SMALL)); mov(fs, eax); })?.done().memory(
        "access byte",
        entry(SMALL) + 4,
        0xFF00,
        (DATA_RW as i32 | 1) << 8,
    );
    Ok(())
}

/// QEMU's TCG checks neither limits nor the rights of a loaded segment: where it runs on, only Bochs agrees.
fn limits(t: &mut Suite) -> AsmResult {
    let small_3 = descriptor(SCRATCH, 0xF, DATA_32 | LEVEL_3);
    t.ring0(
        "limit/last-dword",
        code! { mov(ebx, i32::from(SMALL)); mov(fs, ebx); mov(eax, dword_ptr(0xC).fs()); },
    )?
    .done();
    t.ring0(
        "limit/dword-across",
        code! { mov(ebx, i32::from(SMALL)); mov(fs, ebx); at(".fault"); mov(eax, dword_ptr(0xD).fs()); },
    )?
    .fault(x::GP, 0)
    .at(".fault");
    t.ring0(
        "limit/byte-behind",
        code! { mov(ebx, i32::from(SMALL)); mov(fs, ebx); at(".fault"); mov(al, byte_ptr(0x10).fs()); },
    )?
    .fault(x::GP, 0)
    .at(".fault");
    t.ring0(
        "limit/word-write-across",
        code! { mov(ebx, i32::from(SMALL)); mov(fs, ebx); at(".fault"); mov(word_ptr(0xF).fs(), ax); },
    )?
    .fault(x::GP, 0)
    .memory("memory", SCRATCH + 0xC, u32::MAX, 0);
    t.ring0(
        "limit/granularity-page-inside",
        code! { mov(ebx, i32::from(SMALL_PAGE)); mov(fs, ebx); mov(al, byte_ptr(0xFFF).fs()); },
    )?
    .done();
    t.ring0("limit/granularity-page-behind", code! { mov(ebx, i32::from(SMALL_PAGE)); mov(fs, ebx); at(".fault"); mov(al, byte_ptr(0x1000).fs()); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring0(
        "limit/expand-down-inside",
        code! { mov(ebx, i32::from(EXPAND_DOWN)); mov(fs, ebx); mov(al, byte_ptr(0x1000).fs()); },
    )?
    .done();
    t.ring0("limit/expand-down-below", code! { mov(ebx, i32::from(EXPAND_DOWN)); mov(fs, ebx); at(".fault"); mov(al, byte_ptr(0xFFF).fs()); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring0(
        "limit/expand-down-16-last",
        code! { mov(ebx, i32::from(EXPAND_DOWN_16)); mov(fs, ebx); mov(al, byte_ptr(0xFFFF).fs()); },
    )?
    .done();
    t.ring0("limit/expand-down-16-behind", code! { mov(ebx, i32::from(EXPAND_DOWN_16)); mov(fs, ebx); at(".fault"); mov(ax, word_ptr(0xFFFF).fs()); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3(
        "limit/stack-is-ss",
        code! { mov(ebx, i32::from(SPARE | 3)); mov(ss, ebx); mov(esp, 0x12); at(".fault"); push(eax); },
    )?
    .descriptor(SPARE, small_3)
    .fault(x::SS, 0)
    .at(".fault")
    .memory("ESP", record::ESP, u32::MAX, 0x12);
    t.ring3("limit/through-ebp-is-ss", code! { mov(ebx, i32::from(SPARE | 3)); mov(ss, ebx); mov(ebp, 0x20); at(".fault"); mov(eax, dword_ptr(ebp)); })?
        .descriptor(SPARE, small_3)
        .fault(x::SS, 0)
        .at(".fault");
    t.ring3("rights/write-to-read-only", code! { mov(ebx, i32::from(READ_ONLY | 3)); mov(ds, ebx); at(".fault"); mov(dword_ptr(SCRATCH), eax); })?
        .fault(x::GP, 0)
        .at(".fault");
    t.ring3(
        "rights/read-of-read-only",
        code! { mov(ebx, i32::from(READ_ONLY | 3)); mov(ds, ebx); mov(eax, dword_ptr(SCRATCH)); },
    )?
    .done();
    t.ring3("rights/write-through-cs", code! { at(".fault"); mov(dword_ptr(SCRATCH).cs(), eax); })?
        .fault(x::GP, 0)
        .at(".fault");
    Ok(())
}

fn inspection(t: &mut Suite) -> AsmResult {
    const Z: i32 = flag::ZF;
    t.ring3("lar/visible", code! { mov(ebx, i32::from(CODE3)); lar(eax, ebx); })?.done().eflags(Z, Z).memory(
        "EAX",
        record::EAX,
        0xF0_FE00,
        0xC0_FA00,
    );
    t.ring3("lar/hidden-by-level", code! { mov(eax, 7); mov(ebx, i32::from(DATA0)); lar(eax, ebx); })?
        .done()
        .eflags(Z, 0)
        .eax(7);
    t.ring0("lar/rpl-counts", code! { mov(ebx, i32::from(DATA0 | 3)); lar(eax, ebx); })?.done().eflags(Z, 0);
    t.ring0("lar/null", code! { lar(eax, ebx); })?.done().eflags(Z, 0);
    t.ring0("lar/call-gate", code! { mov(ebx, i32::from(CALL_GATE)); lar(eax, ebx); })?
        .descriptor(CALL_GATE, u64::from(GATE_CALL) << 40 | u64::from(CODE0) << 16)
        .done()
        .eflags(Z, Z)
        .memory("EAX", record::EAX, 0xFF00, (GATE_CALL << 8) as i32);
    t.ring0("lar/interrupt-gate-is-none", code! { mov(ebx, i32::from(SPARE)); lar(eax, ebx); })?
        .descriptor(SPARE, u64::from(GATE_INTERRUPT) << 40)
        .done()
        .eflags(Z, 0);
    t.ring0("lar/absent-counts", code! { mov(ebx, i32::from(ABSENT)); lar(eax, ebx); })?.done().eflags(Z, Z);
    t.ring0("lsl/bytes", code! { mov(ebx, i32::from(SMALL)); lsl(eax, ebx); })?.done().eflags(Z, Z).eax(0xF);
    t.ring0("lsl/pages", code! { mov(ebx, i32::from(SMALL_PAGE)); lsl(eax, ebx); })?
        .done()
        .eflags(Z, Z)
        .eax(0xFFF);
    t.ring0("lsl/tss", code! { mov(ebx, i32::from(TASK)); lsl(eax, ebx); })?
        .done()
        .eflags(Z, Z)
        .eax(TSS_BYTES - 1);
    t.ring0("lsl/gate-has-none", code! { mov(ebx, i32::from(CALL_GATE)); lsl(eax, ebx); })?
        .descriptor(CALL_GATE, u64::from(GATE_CALL) << 40)
        .done()
        .eflags(Z, 0);
    for (name, write, selector, expected) in [
        ("verr/data", false, DATA3, Z),
        ("verr/execute-only", false, EXECUTE_ONLY | 3, 0),
        ("verr/conforming-of-level-0", false, CONFORMING, Z),
        ("verr/level-0", false, DATA0, 0),
        ("verr/null", false, 0, 0),
        ("verr/tss", false, TASK, 0),
        ("verw/data", true, DATA3, Z),
        ("verw/read-only", true, READ_ONLY | 3, 0),
        ("verw/code", true, CODE3, 0),
        ("verw/beyond-the-table", true, BEYOND | 3, 0),
    ] {
        let case = t.ring3(name, |a| {
            a.mov(eax, i32::from(selector))?;
            if write {
                a.verw(ax)?;
            } else {
                a.verr(ax)?;
            }
            Ok(())
        })?;
        case.done().eflags(Z, expected);
    }
    t.ring0("arpl/raises", code! { mov(eax, 0x10); mov(ebx, 3); arpl(ax, bx); })?
        .done()
        .eflags(Z, Z)
        .eax(0x13);
    t.ring0("arpl/keeps", code! { mov(eax, 0x13); mov(ebx, 1); arpl(ax, bx); })?
        .done()
        .eflags(Z, 0)
        .eax(0x13);
    Ok(())
}

/// Old versions of QEMU's TCG know no alignment check.
fn alignment(t: &mut Suite) -> AsmResult {
    let checked = flag::AC;
    t.ring3("alignment/dword", code! { at(".fault"); mov(eax, dword_ptr(SCRATCH + 2)); })?
        .cr0(ctl::AM)
        .flags(checked)
        .fault(x::AC, 0)
        .at(".fault");
    t.ring3("alignment/word", code! { at(".fault"); mov(word_ptr(SCRATCH + 1), ax); })?
        .cr0(ctl::AM)
        .flags(checked)
        .fault(x::AC, 0)
        .at(".fault");
    t.ring3("alignment/aligned", code! { mov(eax, dword_ptr(SCRATCH + 4)); mov(ax, word_ptr(SCRATCH + 2)); mov(al, byte_ptr(SCRATCH + 1)); })?
        .cr0(ctl::AM)
        .flags(checked)
        .done();
    t.ring3("alignment/push", code! { mov(esp, STACK_USER - 2); at(".fault"); push(eax); })?
        .cr0(ctl::AM)
        .flags(checked)
        .fault(x::AC, 0)
        .at(".fault");
    t.ring3("alignment/without-am", code! { mov(eax, dword_ptr(SCRATCH + 2)); })?.flags(checked).done();
    t.ring3("alignment/without-ac", code! { mov(eax, dword_ptr(SCRATCH + 2)); })?.cr0(ctl::AM).done();
    t.ring0(
        "alignment/not-at-level-0",
        code! { push(flag::AC | flag::ONE); popfd(); mov(eax, dword_ptr(SCRATCH + 2)); },
    )?
    .cr0(ctl::AM)
    .done();
    t.ring3("alignment/page-fault-comes-later", code! { at(".fault"); mov(eax, dword_ptr(TEST + 2)); })?
        .cr0(ctl::AM)
        .paging()
        .poke(TEST_PTE, 0)
        .flags(checked)
        .fault(x::AC, 0);
    Ok(())
}
