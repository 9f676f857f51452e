//! Hardware task switches.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::{Asm, AsmResult};
use exception as x;
use iced_x86::code_asm::*;

const BUSY: u32 = 0x200;

pub fn emit(t: &mut Suite) -> AsmResult {
    let code = code! {
        at("task.done");
        nop(); int(x::DONE);

        at("task.iret");
        mov(dword_ptr(SCRATCH), 0x77); iretd();

        // With an error code on its stack.
        at("task.error");
        pop(eax); int(x::DONE);

        at("task.local");
        mov(eax, i32::from(LOCAL_DATA)); at(".fault"); mov(fs, eax); int(x::DONE);
    };
    code(&mut t.a)?;
    switches(t)?;
    gates(t)?;
    bad(t)?;
    contents(t)
}

/// A runnable task in a TSS.
fn task(a: &mut Asm, tss_at: i32, entry: &str) -> AsmResult {
    a.store_label(tss_at + tss::EIP, entry)?;
    for (field, value) in [
        (tss::EFLAGS, flag::ONE),
        (tss::ESP, STACK_TASK),
        (tss::CR3, DIRECTORY),
        (tss::EAX, 0xAAAA),
        (tss::CS, CODE0.into()),
        (tss::SS, DATA0.into()),
        (tss::DS, DATA0.into()),
        (tss::ES, DATA0.into()),
    ] {
        a.mov(dword_ptr(tss_at + field), value)?;
    }
    Ok(())
}

fn switches(t: &mut Suite) -> AsmResult {
    t.ring0("task/call", code! { mov(ebx, 0x5555); call_far(TASK_B, 0); at(".after"); nop(); })?
        .done()
        .eax(0xAAAA)
        .memory("TR", record::TR, 0xFFFF, TASK_B.into())
        .eflags(flag::NT, flag::NT)
        .memory("back link", TSS_B + tss::LINK, 0xFFFF, TASK.into())
        .memory("old task's busy bit", entry(TASK) + 4, BUSY, BUSY as i32)
        .memory("new task's busy bit", entry(TASK_B) + 4, BUSY, BUSY as i32)
        .memory_label("saved EIP", TSS + tss::EIP, ".after")
        .memory("saved EBX", TSS + tss::EAX + 12, u32::MAX, 0x5555)
        .memory("saved CS", TSS + tss::CS, 0xFFFF, CODE0.into())
        .memory("CR0.TS", record::CR0, ctl::TS as u32, ctl::TS)
        .memory("ESP", record::ESP, u32::MAX, STACK_TASK);
    t.setup(|a| task(a, TSS_B, "task.done"))?;
    t.ring0("task/jump", code! { jmp_far(TASK_B, 0); at(".after"); nop(); })?
        .done()
        .memory("TR", record::TR, 0xFFFF, TASK_B.into())
        .eflags(flag::NT, 0)
        .memory("back link", TSS_B + tss::LINK, 0xFFFF, 0)
        .memory("old task's busy bit", entry(TASK) + 4, BUSY, 0)
        .memory("new task's busy bit", entry(TASK_B) + 4, BUSY, BUSY as i32)
        .memory_label("saved EIP", TSS + tss::EIP, ".after");
    t.setup(|a| task(a, TSS_B, "task.done"))?;
    t.ring0("task/call-and-iret", code! { mov(ebx, 0x5555); call_far(TASK_B, 0); nop(); })?
        .done()
        .ebx(0x5555)
        .memory("TR", record::TR, 0xFFFF, TASK.into())
        .eflags(flag::NT, 0)
        .memory("task ran", SCRATCH, u32::MAX, 0x77)
        .memory("first task's busy bit", entry(TASK) + 4, BUSY, BUSY as i32)
        .memory("second task's busy bit", entry(TASK_B) + 4, BUSY, 0)
        .memory("saved NT of the second", TSS_B + tss::EFLAGS, flag::NT as u32, 0);
    t.setup(|a| task(a, TSS_B, "task.iret"))?;
    t.ring0("task/nested-twice", code! { call_far(TASK_B, 0); nop(); })?
        .done()
        .memory("TR", record::TR, 0xFFFF, TASK_C.into())
        .memory("link of the second", TSS_B + tss::LINK, 0xFFFF, TASK.into())
        .memory("link of the third", TSS_C + tss::LINK, 0xFFFF, TASK_B.into())
        .memory("second task's busy bit", entry(TASK_B) + 4, BUSY, BUSY as i32);
    t.setup(|a| {
        task(a, TSS_B, "task.nest")?;
        task(a, TSS_C, "task.done")
    })?;
    let nest = code! { at("task.nest"); call_far(TASK_C, 0); int(x::DONE); };
    nest(&mut t.a)?;
    t.ring3("task/call-from-level-3", code! { call_far(SPARE | 3, 0); })?.done().cs(CODE0).memory(
        "TR",
        record::TR,
        0xFFFC,
        SPARE.into(),
    );
    t.setup(|a| {
        a.mov(dword_ptr(entry(SPARE)), TSS_B << 16 | 0x67)?;
        a.mov(dword_ptr(entry(SPARE) + 4), ((TSS_32 | LEVEL_3) << 8) as i32)?;
        task(a, TSS_B, "task.done")
    })?;
    t.ring0("task/16-bit", code! { mov(ecx, 0x1234_5678); call_far(TASK_16, 0); })?
        .blob(vec![
            // mov ax, DATA0; mov ss, ax; 66 mov esp, STACK_CASE; int DONE
            0xB8,
            DATA0 as u8,
            0,
            0x8E,
            0xD0,
            0x66,
            0xBC,
            (STACK_CASE & 0xFF) as u8,
            (STACK_CASE >> 8) as u8,
            0,
            0,
            0xCD,
            x::DONE as u8,
        ])
        .done()
        .cs(CODE16)
        .memory("TR", record::TR, 0xFFFF, TASK_16.into())
        .memory("BX", record::EBX, 0xFFFF, 0x0BB0)
        .memory("back link", TSS_16, 0xFFFF, TASK.into())
        .memory("saved ECX", TSS + tss::EAX + 4, u32::MAX, 0x1234_5678);
    t.setup(|a| {
        // IP, FLAGS, BX, SP, ES, CS, SS, DS.
        for (offset, value) in [
            (14, 0),
            (16, 2),
            (24, 0x0BB0),
            (26, 0xF00),
            (34, DATA0),
            (36, CODE16),
            (38, DATA16),
            (40, DATA0),
        ] {
            a.mov(word_ptr(TSS_16 + offset), i32::from(value))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn gates(t: &mut Suite) -> AsmResult {
    let gate = u64::from(GATE_TASK | LEVEL_3) << 40 | u64::from(TASK_B) << 16;
    t.ring3("task-gate/call", code! { call_far(TASK_GATE | 3, 0); })?
        .descriptor(TASK_GATE, gate)
        .done()
        .memory("TR", record::TR, 0xFFFF, TASK_B.into());
    t.setup(|a| task(a, TSS_B, "task.done"))?;
    let poke_gate =
        |number: i32| (vector(number), (gate & 0xFFFF_FFFF) as i32, vector(number) + 4, (gate >> 32) as i32);
    let (low_at, low, high_at, high) = poke_gate(x::DONE + 1);
    t.ring3("task-gate/int", code! { int(x::DONE + 1); at(".after"); nop(); })?
        .poke(low_at, low)
        .poke(high_at, high)
        .done()
        .memory("TR", record::TR, 0xFFFF, TASK_B.into())
        .eflags(flag::NT, flag::NT)
        .memory_label("saved EIP", TSS + tss::EIP, ".after");
    t.setup(|a| task(a, TSS_B, "task.done"))?;
    t.ring3("task-gate/int-and-iret", code! { int(x::DONE + 1); nop(); })?
        .poke(low_at, low)
        .poke(high_at, high)
        .done()
        .cs(CODE3)
        .memory("TR", record::TR, 0xFFFF, TASK.into());
    t.setup(|a| task(a, TSS_B, "task.iret"))?;
    let (low_at, low, high_at, high) = poke_gate(x::GP);
    t.ring3(
        "task-gate/fault-pushes-its-error-code",
        code! { mov(eax, i32::from(DATA0)); at(".fault"); mov(ds, eax); },
    )?
    .poke(low_at, low)
    .poke(high_at, high)
    .done()
    .eax(DATA0.into())
    .memory("TR", record::TR, 0xFFFF, TASK_B.into())
    .memory_label("saved EIP", TSS + tss::EIP, ".fault");
    t.setup(|a| task(a, TSS_B, "task.error"))?;
    let (low_at, low, high_at, high) = poke_gate(x::DF);
    t.ring3("task-gate/double-fault", code! { mov(eax, i32::from(DATA0)); mov(ds, eax); })?
        .poke(low_at, low)
        .poke(high_at, high)
        .done()
        .eax(0)
        .memory("TR", record::TR, 0xFFFF, TASK_B.into());
    t.setup(|a| {
        a.and(byte_ptr(vector(x::GP) + 5), 0x7F)?;
        task(a, TSS_B, "task.error")
    })?;
    Ok(())
}

fn bad(t: &mut Suite) -> AsmResult {
    t.ring0("task/jump-to-itself-busy", code! { at(".fault"); jmp_far(TASK, 0); })?
        .fault(x::GP, TASK.into())
        .at(".fault");
    t.ring0("task/call-of-a-busy-task", code! { at(".fault"); call_far(TASK_B, 0); })?
        .descriptor(TASK_B, descriptor(TSS_B, 0x67, TSS_32_BUSY))
        .fault(x::GP, TASK_B.into())
        .at(".fault");
    t.ring3("task/dpl-0-from-level-3", code! { at(".fault"); call_far(TASK_B | 3, 0); })?
        .fault(x::GP, TASK_B.into())
        .at(".fault");
    t.ring0("task/absent", code! { at(".fault"); call_far(TASK_B, 0); })?
        .descriptor(TASK_B, descriptor(TSS_B, 0x67, TSS_32 & !PRESENT))
        .fault(x::NP, TASK_B.into())
        .at(".fault");
    t.ring0("task/limit-too-small", code! { at(".fault"); call_far(TASK_B, 0); })?
        .descriptor(TASK_B, descriptor(TSS_B, 0x66, TSS_32))
        .fault(x::TS, TASK_B.into())
        .at(".fault");
    t.ring0("task/iret-link-not-busy", code! {
        mov(dword_ptr(TSS), i32::from(TASK_B)); push(flag::NT | flag::ONE); popfd(); at(".fault"); iretd();
    })?
    .fault(x::TS, TASK_B.into())
    .at(".fault");
    t.ring0(
        "task/iret-link-null",
        code! { mov(dword_ptr(TSS), 0); push(flag::NT | flag::ONE); popfd(); at(".fault"); iretd(); },
    )?
    .fault(x::TS, 0)
    .at(".fault");
    for (name, field, selector, vector, error) in [
        ("data-as-code", tss::CS, DATA0, x::TS, i32::from(DATA0)),
        ("absent-code", tss::CS, CODE_ABSENT, x::NP, i32::from(CODE_ABSENT)),
        ("absent-data", tss::DS, ABSENT, x::NP, i32::from(ABSENT)),
        ("gate-as-data", tss::ES, TASK, x::TS, i32::from(TASK)),
    ] {
        t.ring0(&format!("task/new-task-{name}"), code! { call_far(TASK_B, 0); })?
            .fault(vector, error)
            .memory("TR", record::TR, 0xFFFF, TASK_B.into());
        t.setup(|a| {
            task(a, TSS_B, "task.done")?;
            Ok(a.mov(dword_ptr(TSS_B + field), i32::from(selector))?)
        })?;
    }
    Ok(())
}

fn contents(t: &mut Suite) -> AsmResult {
    // QEMU knows no T bit.
    t.ring0("task/t-bit-traps-before-the-first-instruction", code! { call_far(TASK_B, 0); })?
        .plain_fault(x::DB)
        .at("task.done")
        .dr6(0x8000)
        .memory("TR", record::TR, 0xFFFF, TASK_B.into());
    t.setup(|a| {
        task(a, TSS_B, "task.done")?;
        Ok(a.or(byte_ptr(TSS_B + tss::TRAP), 1)?)
    })?;
    t.ring0("task/loads-its-ldt", code! { call_far(TASK_B, 0); })?.done();
    t.setup(|a| {
        task(a, TSS_B, "task.local")?;
        Ok(a.mov(dword_ptr(TSS_B + tss::LDT), i32::from(LOCAL))?)
    })?;
    t.ring0("task/without-an-ldt", code! { call_far(TASK_B, 0); })?
        .fault(x::GP, LOCAL_DATA.into())
        .at("task.local.fault");
    t.setup(|a| task(a, TSS_B, "task.local"))?;
    // A second directory, at PAGE_B: the same but for the directory entry of TEST.
    t.ring0("task/loads-cr3", code! { call_far(TASK_B, 0); })?.paging().done().memory(
        "CR3",
        record::CR3,
        0xFFFF_F000,
        PAGE_B,
    );
    t.setup(|a| {
        task(a, TSS_B, "task.done")?;
        a.mov(eax, dword_ptr(DIRECTORY))?;
        a.mov(dword_ptr(PAGE_B), eax)?;
        Ok(a.mov(dword_ptr(TSS_B + tss::CR3), PAGE_B)?)
    })?;
    Ok(())
}
