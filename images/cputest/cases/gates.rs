//! Call gates, interrupt gates, far transfers and returns between levels.

use crate::cputest::layout::*;
use crate::cputest::suite::{Offsets, Suite, blob, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

pub fn emit(t: &mut Suite) -> AsmResult {
    targets(t)?;
    calls(t)?;
    calls_16(t)?;
    interrupts(t)?;
    jumps(t)?;
    returns(t)
}

/// What gates lead to.
fn targets(t: &mut Suite) -> AsmResult {
    let code = code! {
        // Keeps what the gate left on the stack: six dwords.
        at("gate.look");
        push(ds); mov(eax, i32::from(DATA0)); mov(ds, eax);
        mov(eax, dword_ptr(esp + 4)); mov(dword_ptr(SCRATCH), eax);
        mov(eax, dword_ptr(esp + 8)); mov(dword_ptr(SCRATCH + 4), eax);
        mov(eax, dword_ptr(esp + 12)); mov(dword_ptr(SCRATCH + 8), eax);
        mov(eax, dword_ptr(esp + 16)); mov(dword_ptr(SCRATCH + 12), eax);
        mov(eax, dword_ptr(esp + 20)); mov(dword_ptr(SCRATCH + 16), eax);
        mov(eax, dword_ptr(esp + 24)); mov(dword_ptr(SCRATCH + 20), eax);
        pop(ds);
        int(x::DONE);

        at("gate.return");
        mov(eax, i32::from(DATA0)); mov(ds, eax); mov(fs, eax); mov(eax, i32::from(DATA3)); mov(gs, eax);
        retf_1(8);

        at("gate.done");
        int(x::DONE);

        at("gate.iret");
        iretd();
    };
    code(&mut t.a)
}

fn calls(t: &mut Suite) -> AsmResult {
    const TWO: u32 = GATE_CALL | LEVEL_3;
    t.ring3(
        "call-gate/inward-copies-parameters",
        code! {
            push(0x1111_1111); push(0x2222_2222); call_far(CALL_GATE | 3, 0);
            at(".after"); nop();
        },
    )?
    .done()
    .cs(CODE0)
    .memory("SS", record::SS, 0xFFFF, DATA0.into())
    .memory("ESP", record::ESP, u32::MAX, STACK_TSS - 24)
    .memory_label("return EIP", SCRATCH, ".after")
    .memory("return CS", SCRATCH + 4, 0xFFFF, CODE3.into())
    .memory("last parameter", SCRATCH + 8, u32::MAX, 0x2222_2222)
    .memory("first parameter", SCRATCH + 12, u32::MAX, 0x1111_1111)
    .memory("outer ESP", SCRATCH + 16, u32::MAX, STACK_USER - 8)
    .memory("outer SS", SCRATCH + 20, 0xFFFF, DATA3.into());
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.look", CODE0, TWO, 2))?;
    t.ring3(
        "call-gate/return-outward-releases-parameters",
        code! {
            push(1); push(2); call_far(CALL_GATE | 3, 0);
            at(".after"); nop();
        },
    )?
    .done()
    .cs(CODE3)
    .memory("ESP", record::ESP, u32::MAX, STACK_USER)
    // Segments that the outer level may not have are null now; others stay.
    .memory("DS", record::DS, 0xFFFF, 0)
    .memory("FS", record::FS, 0xFFFF, 0)
    .memory("GS", record::GS, 0xFFFF, DATA3.into());
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.return", CODE0, TWO, 2))?;
    t.ring3("call-gate/dpl-0", code! { at(".fault"); call_far(CALL_GATE_0 | 3, 0); })?
        .fault(x::GP, CALL_GATE_0.into())
        .at(".fault");
    t.setup(|a| a.fill_gate(entry(CALL_GATE_0), "gate.look", CODE0, GATE_CALL, 0))?;
    t.ring0("call-gate/rpl-3-to-dpl-0", code! { at(".fault"); call_far(CALL_GATE_0 | 3, 0); })?
        .fault(x::GP, CALL_GATE_0.into());
    t.setup(|a| a.fill_gate(entry(CALL_GATE_0), "gate.look", CODE0, GATE_CALL, 0))?;
    t.ring3("call-gate/absent", code! { at(".fault"); call_far(CALL_GATE_ABSENT | 3, 0); })?
        .fault(x::NP, CALL_GATE_ABSENT.into())
        .at(".fault");
    t.setup(|a| a.fill_gate(entry(CALL_GATE_ABSENT), "gate.look", CODE0, TWO & !PRESENT, 0))?;
    for (name, selector, vector, error) in [
        ("null-target", 0, x::GP, 0),
        ("to-data", DATA0, x::GP, i32::from(DATA0)),
        ("to-absent-code", CODE_ABSENT, x::NP, i32::from(CODE_ABSENT)),
        ("beyond-the-table", BEYOND, x::GP, i32::from(BEYOND)),
    ] {
        t.ring3(&format!("call-gate/{name}"), code! { at(".fault"); call_far(CALL_GATE | 3, 0); })?
            .fault(vector, error)
            .at(".fault");
        t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.look", selector, TWO, 0))?;
    }
    t.ring0("call-gate/same-level", code! { call_far(CALL_GATE, 0); at(".after"); nop(); })?
        .done()
        .memory("ESP", record::ESP, u32::MAX, STACK_CASE - 8)
        .memory_label("return EIP", SCRATCH, ".after");
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.look", CODE0, TWO, 2))?;
    t.ring0("call-gate/jump-same-level", code! { jmp_far(CALL_GATE, 0); })?.done().memory(
        "ESP",
        record::ESP,
        u32::MAX,
        STACK_CASE,
    );
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE0, TWO, 0))?;
    t.ring3("call-gate/jump-cannot-go-inward", code! { at(".fault"); jmp_far(CALL_GATE | 3, 0); })?
        .fault(x::GP, CODE0.into())
        .at(".fault");
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE0, TWO, 0))?;
    // QEMU 7.2 takes a conforming target for one of its level.
    t.ring3("call-gate/conforming-keeps-the-level", code! { call_far(CALL_GATE | 3, 0); })?
        .done()
        .cs(CONFORMING | 3)
        .memory("ESP", record::ESP, u32::MAX, STACK_USER - 8);
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CONFORMING, TWO, 0))?;
    t.ring3("call-gate/to-level-1", code! { call_far(CALL_GATE | 3, 0); })?
        .done()
        .cs(CODE1)
        .memory("SS", record::SS, 0xFFFF, DATA1.into())
        .memory("ESP", record::ESP, u32::MAX, STACK_1 - 16);
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE1, TWO, 0))?;
    for (name, stack, vector, error) in [
        ("null-stack", 0, x::TS, 0),
        ("stack-of-level-0", i32::from(DATA0), x::TS, i32::from(DATA0)),
        ("stack-beyond-the-table", i32::from(BEYOND | 1), x::TS, i32::from(BEYOND)),
        ("stack-rpl-0", i32::from(DATA1 & !3), x::TS, i32::from(DATA1 & !3)),
        // QEMU: #TS.
        ("absent-stack", i32::from(SPARE | 1), x::SS, i32::from(SPARE)),
    ] {
        let absent = descriptor(0, 0xF_FFFF, (DATA_32 | PAGES | LEVEL_1) & !PRESENT);
        t.ring3(&format!("call-gate/{name}"), code! { at(".fault"); call_far(CALL_GATE | 3, 0); })?
            .descriptor(SPARE, absent)
            .poke(TSS + tss::SS1, stack)
            .fault(vector, error)
            .at(".fault")
            .cs(CODE3);
        t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE1, TWO, 0))?;
    }
    Ok(())
}

/// 16-bit call gates: words are pushed and copied, whatever the caller and the stacks are.
fn calls_16(t: &mut Suite) -> AsmResult {
    const GATE: u32 = GATE_CALL_16 | LEVEL_3;
    let gate = |target: u32, parameters: u64| {
        u64::from(GATE) << 40 | parameters << 32 | u64::from(CODE16) << 16 | u64::from(target)
    };
    let caller = descriptor(BLOB, 0xFFFF, CODE_RX | LEVEL_3);
    let entry_of = |labels: &Offsets, name: &str| labels.get(name).copied().unwrap_or(u32::MAX);
    let (bytes, labels) = blob(code! {
        nop();
        at("done"); int(x::DONE);
        at("return"); retf_1(4);
        at("caller"); push(0x1111); push(0x2222); db(&[0x9A]); dw(&[0, CALL_GATE_16 | 3]);
        at("after"); int(x::DONE);
    })?;
    let after = entry_of(&labels, "after") as i32;
    t.ring3("call-gate-16/copies-words", code! { jmp_far(SPARE | 3, entry_of(&labels, "caller")); })?
        .blob(bytes.clone())
        .descriptor(SPARE, caller)
        .descriptor(CALL_GATE_16, gate(entry_of(&labels, "done"), 2))
        .done()
        .cs(CODE16)
        .memory("SS", record::SS, 0xFFFF, DATA0.into())
        .memory("ESP", record::ESP, u32::MAX, STACK_TSS - 12)
        .memory("outer SS and SP", STACK_TSS - 4, u32::MAX, i32::from(DATA3) << 16 | (STACK_USER - 4))
        .memory("parameters", STACK_TSS - 8, u32::MAX, 0x1111_2222)
        .memory("return address", STACK_TSS - 12, u32::MAX, i32::from(SPARE | 3) << 16 | after);
    t.ring3(
        "call-gate-16/return-releases-words",
        code! { jmp_far(SPARE | 3, entry_of(&labels, "caller")); },
    )?
    .blob(bytes.clone())
    .descriptor(SPARE, caller)
    .descriptor(CALL_GATE_16, gate(entry_of(&labels, "return"), 2))
    .done()
    .cs(SPARE | 3)
    .memory("SS", record::SS, 0xFFFF, DATA3.into())
    .memory("ESP", record::ESP, u32::MAX, STACK_USER);
    t.ring3(
        "call-gate-16/from-32-bit-code",
        code! { push(0x3333_4444); call_far(CALL_GATE_16 | 3, 0xFFFF_0000u32); },
    )?
    .blob(bytes.clone())
    .descriptor(CALL_GATE_16, gate(entry_of(&labels, "done"), 1))
    .done()
    .cs(CODE16)
    .memory("ESP", record::ESP, u32::MAX, STACK_TSS - 10)
    .memory("parameter and CS", STACK_TSS - 8, u32::MAX, 0x4444_0000 | i32::from(CODE3));
    t.ring0("call-gate-16/same-level", code! { call_far(CALL_GATE_16, 0); })?
        .blob(bytes)
        .descriptor(CALL_GATE_16, gate(entry_of(&labels, "done"), 2))
        .done()
        .cs(CODE16)
        .memory("ESP", record::ESP, u32::MAX, STACK_CASE - 4)
        .memory("return CS", STACK_CASE - 4, 0xFFFF_0000, i32::from(CODE0) << 16);
    t.ring3(
        "call-gate/31-parameters",
        code! { sub(esp, 31 * 4); mov(dword_ptr(esp + 30 * 4), 0x5555); call_far(CALL_GATE | 3, 0); },
    )?
    .done()
    .memory("ESP", record::ESP, u32::MAX, STACK_TSS - 16 - 31 * 4)
    .memory("first parameter", STACK_TSS - 12, u32::MAX, 0x5555)
    .memory("outer ESP", STACK_TSS - 8, u32::MAX, STACK_USER - 31 * 4);
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE0, GATE_CALL | LEVEL_3, 31))?;
    // A parameter that the outer stack does not have. QEMU's TCG checks no limits.
    t.ring3(
        "call-gate/parameter-beyond-the-outer-stack",
        code! { mov(ebx, i32::from(SPARE | 3)); mov(ss, ebx); mov(esp, 0xC); at(".fault"); call_far(CALL_GATE | 3, 0); },
    )?
    .descriptor(SPARE, descriptor(SCRATCH, 0xF, DATA_32 | LEVEL_3))
    .fault(x::SS, 0)
    .at(".fault")
    .cs(CODE3)
    .memory("ESP", record::ESP, u32::MAX, 0xC);
    t.setup(|a| a.fill_gate(entry(CALL_GATE), "gate.done", CODE0, GATE_CALL | LEVEL_3, 2))?;
    Ok(())
}

fn interrupts(t: &mut Suite) -> AsmResult {
    const OTHER: i32 = x::DONE + 1;
    t.ring3("interrupt-gate/clears-if-nt-tf", code! { int(x::DONE); })?
        .flags(flag::IF | flag::NT)
        .done()
        .memory(
            "flags in the handler",
            record::HANDLER_FLAGS,
            (flag::IF | flag::NT | flag::TF | flag::VM) as u32,
            0,
        )
        .eflags(flag::IF | flag::NT, flag::IF | flag::NT);
    t.ring3("trap-gate/keeps-if", code! { int(x::DONE); })?.flags(flag::IF).done().memory(
        "flags in the handler",
        record::HANDLER_FLAGS,
        flag::IF as u32,
        flag::IF,
    );
    t.setup(code! { or(byte_ptr(vector(x::DONE) + 5), 1); })?;
    t.ring3("interrupt-gate/to-level-1", code! { int(OTHER); })?.done().cs(CODE1).memory(
        "ESP",
        record::ESP,
        u32::MAX,
        STACK_1 - 20,
    );
    t.setup(|a| a.fill_gate(vector(OTHER), "gate.done", CODE1, GATE_INTERRUPT | LEVEL_3, 0))?;
    t.ring3("interrupt-gate/to-conforming-code", code! { int(OTHER); })?.done().cs(CONFORMING | 3).memory(
        "ESP",
        record::ESP,
        u32::MAX,
        STACK_USER - 12,
    );
    t.setup(|a| a.fill_gate(vector(OTHER), "gate.done", CONFORMING, GATE_INTERRUPT | LEVEL_3, 0))?;
    t.ring3(
        "interrupt-gate/iret-back",
        code! { mov(esp, STACK_USER - 0x40); int(OTHER); at(".after"); int(x::DONE); },
    )?
    .flags(flag::IF)
    .done()
    .cs(CODE3)
    .memory("ESP", record::ESP, u32::MAX, STACK_USER - 0x40)
    .eflags(flag::IF, flag::IF);
    t.setup(|a| a.fill_gate(vector(OTHER), "gate.iret", CODE0, GATE_INTERRUPT | LEVEL_3, 0))?;
    t.ring3("interrupt-gate/stack-of-wrong-level", code! { at(".fault"); int(OTHER); })?
        .poke(TSS + tss::SS1, DATA0.into())
        .fault(x::TS, DATA0.into())
        .at(".fault");
    t.setup(|a| a.fill_gate(vector(OTHER), "gate.done", CODE1, GATE_INTERRUPT | LEVEL_3, 0))?;
    Ok(())
}

fn jumps(t: &mut Suite) -> AsmResult {
    for (name, selector, vector, error) in [
        ("null", 0, x::GP, 0),
        ("data", DATA0, x::GP, i32::from(DATA0)),
        ("absent", CODE_ABSENT, x::NP, i32::from(CODE_ABSENT)),
        ("outer-level", CODE3, x::GP, i32::from(CODE3 & !3)),
        ("beyond-the-table", BEYOND, x::GP, i32::from(BEYOND)),
        ("rpl-3", CODE0 | 3, x::GP, i32::from(CODE0)),
    ] {
        t.ring0(&format!("far-jump/{name}"), code! { at(".fault"); jmp_far(selector, 0); })?
            .fault(vector, error)
            .at(".fault");
    }
    t.ring3("far-jump/inner-level", code! { at(".fault"); jmp_far(CODE0 | 3, 0); })?
        .fault(x::GP, CODE0.into())
        .at(".fault");
    t.ring0("far-jump/beyond-the-limit", code! { at(".fault"); jmp_far(SPARE, 0x100); })?
        .descriptor(SPARE, descriptor(BLOB, 0xFF, CODE_32))
        .fault(x::GP, 0)
        .at(".fault");
    Ok(())
}

fn returns(t: &mut Suite) -> AsmResult {
    for (name, code, stack, vector, error) in [
        ("outward-null-stack", CODE3, 0, x::GP, 0),
        ("outward-stack-of-level-0", CODE3, DATA0, x::GP, i32::from(DATA0)),
        ("outward-stack-rpl", CODE3, DATA3 & !3, x::GP, i32::from(DATA3 & !3)),
        // As the operation says; QEMU and Bochs raise #NP, as the list of exceptions does.
        ("outward-absent-stack", CODE3, SPARE | 3, x::SS, i32::from(SPARE)),
        ("null-code", 0, DATA3, x::GP, 0),
        ("data-as-code", DATA3, DATA3, x::GP, i32::from(DATA3 & !3)),
        ("rpl-not-dpl", CODE0 | 3, DATA3, x::GP, i32::from(CODE0)),
        ("absent-code", CODE_ABSENT, DATA3, x::NP, i32::from(CODE_ABSENT)),
    ] {
        let absent = descriptor(0, 0xF_FFFF, (DATA_32 | PAGES | LEVEL_3) & !PRESENT);
        t.ring0(&format!("iret/{name}"), code! {
            push(i32::from(stack)); push(STACK_USER); push(flag::ONE); push(i32::from(code)); push(PROGRAM);
            at(".fault"); iretd();
        })?
        .descriptor(SPARE, absent)
        .fault(vector, error)
        .at(".fault")
        .cs(CODE0)
        .memory("ESP", record::ESP, u32::MAX, STACK_CASE - 20);
    }
    t.ring3(
        "iret/inward",
        code! { push(flag::ONE); push(i32::from(CODE0)); push(PROGRAM); at(".fault"); iretd(); },
    )?
    .fault(x::GP, CODE0.into())
    .at(".fault");
    t.ring3("retf/inward", code! { push(i32::from(CODE0)); push(PROGRAM); at(".fault"); retf(); })?
        .fault(x::GP, CODE0.into())
        .at(".fault");
    t.ring3("iret/level-3-keeps-iopl-and-if", code! {
        push(flag::IOPL3 | flag::IF | flag::CF); push(i32::from(CODE3)); push(eax);
        call("gates.here"); at("gates.here"); pop(eax); add(eax, 12); mov(dword_ptr(esp), eax); nop(); nop(); iretd();
    })?
    .eflags(flag::IOPL3 | flag::IF, 0);
    Ok(())
}
