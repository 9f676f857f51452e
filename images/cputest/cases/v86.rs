//! Virtual-8086 mode, without its extensions.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

pub fn emit(t: &mut Suite) -> AsmResult {
    let (case, at_) =
        t.v86("v86/int-with-iopl-3-goes-through-the-idt", code! { int(x::DONE); at("after"); nop(); })?;
    case.flags(flag::IOPL3)
        .done()
        .cs(BLOB_SEGMENT)
        .eip(at_["after"] as i32)
        .eflags(flag::VM, flag::VM)
        .memory("SS", record::SS, 0xFFFF, V86_STACK_SEGMENT.into())
        .memory("ESP", record::ESP, u32::MAX, V86_SP)
        .memory("ES", record::V86_ES, 0xFFFF, 0x2222)
        .memory("DS", record::V86_DS, 0xFFFF, BLOB_SEGMENT.into())
        .memory("FS", record::V86_FS, 0xFFFF, 0x3333)
        .memory("GS", record::V86_GS, 0xFFFF, 0x4444)
        // In the handler they are null.
        .memory("DS in the handler", record::DS, 0xFFFF, 0)
        .memory("GS in the handler", record::GS, 0xFFFF, 0)
        .memory("handler's ESP", record::HANDLER_ESP, u32::MAX, STACK_TSS - 96);
    for (name, bytes) in [
        ("int", &[0xCD, x::DONE as u8][..]),
        ("cli", &[0xFA]),
        ("sti", &[0xFB]),
        ("pushf", &[0x9C]),
        ("popf", &[0x9D]),
        ("iret", &[0xCF]),
    ] {
        let (case, _) = t.v86(&format!("v86/{name}-with-iopl-0"), |a| Ok(a.db(bytes)?))?;
        case.fault(x::GP, 0).eip(0).eflags(flag::VM, flag::VM);
    }
    for (name, bytes) in [
        ("hlt", &[0xF4][..]),
        ("mov-cr0", &[0x0F, 0x20, 0xC0]),
        ("lgdt", &[0x0F, 0x01, 0x16, 0, 0]),
        ("clts", &[0x0F, 0x06]),
        ("mov-dr7", &[0x0F, 0x21, 0xF8]),
    ] {
        let (case, _) = t.v86(&format!("v86/{name}-is-privileged"), |a| Ok(a.db(bytes)?))?;
        case.flags(flag::IOPL3).fault(x::GP, 0).eip(0);
    }
    for (name, bytes) in [
        ("arpl", &[0x63, 0xC0][..]),
        ("lar", &[0x0F, 0x02, 0xC0]),
        ("lldt", &[0x0F, 0x00, 0xD0]),
        ("str", &[0x0F, 0x00, 0xC8]),
        ("verr", &[0x0F, 0x00, 0xE0]),
    ] {
        let (case, _) = t.v86(&format!("v86/{name}-is-undefined"), |a| Ok(a.db(bytes)?))?;
        case.flags(flag::IOPL3).plain_fault(x::UD).eip(0);
    }
    let (case, at_) = t.v86("v86/int3-needs-no-iopl", code! { int3(); at("after"); nop(); })?;
    case.plain_fault(x::BP).eip(at_["after"] as i32);
    let (case, _) = t.v86(
        "v86/sti-popf-pushf-with-iopl-3",
        code! {
            sti(); pushf(); pop(ax); push(0x3003); popf(); pushf(); pop(bx); int(x::DONE);
        },
    )?;
    case.flags(flag::IOPL3).done().memory("IF and IOPL", record::EAX, 0x3200, 0x3200).memory(
        "second",
        record::EBX,
        0x3201,
        0x3001,
    );
    let (case, _) = t.v86("v86/io-bitmap-allows-although-iopl-is-0", code! { in_(al, 0x80); int3(); })?;
    case.vector(x::BP);
    let (case, _) = t.v86("v86/io-bitmap-denies-although-iopl-is-3", code! { in_(al, 0x80); int3(); })?;
    case.flags(flag::IOPL3).poke(TSS_IO_BITMAP + 0x10, 1).fault(x::GP, 0).eip(0);
    let (case, _) = t.v86(
        "v86/segments-are-times-16",
        code! {
            mov(ax, SCRATCH >> 4); mov(ds, ax); mov(word_ptr(6), 0x7788); int3();
        },
    )?;
    case.vector(x::BP).memory("memory", SCRATCH + 4, 0xFFFF_0000, 0x7788_0000);
    // QEMU's TCG checks no limits.
    let (case, at_) =
        t.v86("v86/word-at-ffff", code! { mov(bx, 0xFFFF); at("fault"); mov(ax, word_ptr(bx)); int3(); })?;
    case.fault(x::GP, 0).eip(at_["fault"] as i32);
    let (case, at_) = t.v86(
        "v86/dword-on-the-stack-across-ffff",
        code! { mov(bp, 0xFFFE); at("fault"); mov(eax, dword_ptr(bp)); int3(); },
    )?;
    case.fault(x::SS, 0).eip(at_["fault"] as i32);
    let (case, at_) = t.v86(
        "v86/page-fault",
        code! {
            mov(ax, PAGE_A >> 4); mov(ds, ax); at("fault"); mov(word_ptr(6), ax); int3();
        },
    )?;
    case.paging()
        .poke(TABLE_0 + (PAGE_A >> 12) * 4, 0)
        .fault(x::PF, 6)
        .cr2(PAGE_A + 6)
        .eip(at_["fault"] as i32);
    // QEMU does not check it.
    let (case, _) = t.v86("v86/gate-must-lead-to-level-0", code! { int(x::DONE + 1); })?;
    case.flags(flag::IOPL3).fault(x::GP, i32::from(CODE1 & !3)).eip(0);
    t.setup(|a| a.fill_gate(vector(x::DONE + 1), "gate.done", CODE1, GATE_INTERRUPT | LEVEL_3, 0))?;
    let (case, at_) =
        t.v86("v86/iret-back", code! { int(x::DONE + 1); at("after"); int3(); at("end"); nop(); })?;
    case.flags(flag::IOPL3).vector(x::BP).eip(at_["end"] as i32).eflags(flag::VM, flag::VM).memory(
        "ES",
        record::V86_ES,
        0xFFFF,
        0x2222,
    );
    t.setup(|a| a.fill_gate(vector(x::DONE + 1), "gate.iret", CODE0, GATE_INTERRUPT | LEVEL_3, 0))?;
    let (case, at_) = t.v86(
        "v86/single-step",
        code! { pushf(); pop(ax); or(ax, flag::TF); push(ax); popf(); nop(); at("a"); nop(); },
    )?;
    case.flags(flag::IOPL3).plain_fault(x::DB).eip(at_["a"] as i32).dr6(0x4000).eflags(flag::VM, flag::VM);
    Ok(())
}
