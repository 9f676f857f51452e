//! Runs the cases, each in a machine set up anew: tables, page tables, control and debug registers.
//!
//! All interrupts and exceptions lead to one handler. It records what the processor left, then the
//! checks of the case are looked at. A case can have other handlers: it changes the IDT.

use super::layout::*;
use super::suite::row;
use crate::demo::asm::{Asm, AsmResult, asm};
use crate::demo::chips::pic;
use iced_x86::code_asm::*;

/// Row of the case that runs.
pub const ROW: i32 = STATE;
const LEFT: i32 = STATE + 4;
pub const PASSED: i32 = STATE + 8;
pub const FAILED: i32 = STATE + 12;
/// Whether a check of this case failed.
const BAD: i32 = STATE + 16;
/// What checks are left.
const CHECK: i32 = STATE + 20;
const CHECKS_LEFT: i32 = STATE + 24;
/// A write lowers IRQ 13.
const COPROCESSOR_ERROR: i32 = 0xF0;
/// "The triple fault is being tried", at [`SURVIVOR`].
const MAGIC: i32 = 0x5653_3346;

/// Vectors with a handler. Others have no gate.
const VECTORS: [i32; 0x32] = {
    let mut vectors = [0; 0x32];
    let mut i = 0;
    while i < 0x30 {
        vectors[i] = i as i32;
        i += 1;
    }
    vectors[0x30] = exception::DONE;
    vectors[0x31] = exception::DONE + 1;
    vectors
};

fn has_error_code(vector: i32) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// The GDT as cases find it.
fn gdt() -> Vec<u8> {
    let mut table = vec![0u8; GDT_BYTES as usize];
    let mut set = |selector: u16, value: u64| {
        let at = usize::from(selector & 0xFFF8);
        table[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    let all = 0xF_FFFF;
    set(CODE0, descriptor(0, all, CODE_32 | PAGES));
    set(DATA0, descriptor(0, all, DATA_32 | PAGES));
    set(CODE3, descriptor(0, all, CODE_32 | PAGES | LEVEL_3));
    set(DATA3, descriptor(0, all, DATA_32 | PAGES | LEVEL_3));
    set(CODE1, descriptor(0, all, CODE_32 | PAGES | LEVEL_1));
    set(DATA1, descriptor(0, all, DATA_32 | PAGES | LEVEL_1));
    set(TASK, descriptor(TSS, TSS_BYTES as u32 - 1, TSS_32));
    set(TASK_B, descriptor(TSS_B, 0x67, TSS_32));
    set(TASK_C, descriptor(TSS_C, 0x67, TSS_32));
    set(TASK_16, descriptor(TSS_16, 0x2B, TSS_16_TYPE));
    set(LOCAL, descriptor(LDT, LDT_BYTES as u32 - 1, LDT_TYPE));
    set(CODE16, descriptor(BLOB, 0xFFFF, CODE_RX));
    set(DATA16, descriptor(BLOB, 0xFFFF, DATA_RW));
    set(CONFORMING, descriptor(0, all, CODE_CONFORMING | BIG | PAGES));
    set(EXECUTE_ONLY, descriptor(0, all, CODE_X | BIG | PAGES | LEVEL_3));
    set(READ_ONLY, descriptor(0, all, DATA_RO | BIG | PAGES | LEVEL_3));
    set(ABSENT, descriptor(0, all, (DATA_32 | PAGES) & !PRESENT));
    set(CODE_ABSENT, descriptor(0, all, (CODE_32 | PAGES) & !PRESENT));
    set(EXPAND_DOWN, descriptor(0, 0xFFF, DATA_DOWN | BIG));
    set(EXPAND_DOWN_16, descriptor(0, 0xFFF, DATA_DOWN));
    set(SMALL, descriptor(SCRATCH, 0xF, DATA_32));
    set(SMALL_PAGE, descriptor(SCRATCH, 0, DATA_32 | PAGES));
    table
}

/// The TSSs and the LDT as cases find them: (address, dword).
const TABLE_POKES: [(i32, i32); 10] = [
    (TSS + tss::ESP0, STACK_TSS),
    (TSS + tss::SS0, DATA0 as i32),
    (TSS + tss::ESP1, STACK_1),
    (TSS + tss::SS1, DATA1 as i32),
    (TSS + tss::TRAP, TSS_FIXED_BYTES << 16),
    (TSS + TSS_FIXED_BYTES + 0x100, 0xFF),
    (TSS_B + tss::TRAP, 0x68 << 16),
    (TSS_C + tss::TRAP, 0x68 << 16),
    // The LDT's entry for LOCAL_DATA: flat data.
    (LDT + 8, 0x0000_FFFF),
    (LDT + 12, 0x00CF_9200),
];

/// Emits the runtime: `runtime` is its entry, `rows` the case table.
pub fn emit(a: &mut Asm, rows: i32, count: i32) -> AsmResult {
    let gdt_copy = a.bytes(&gdt());
    let pointer = |limit: i32, base: i32| {
        let mut bytes = (limit as u16 - 1).to_le_bytes().to_vec();
        bytes.extend(base.to_le_bytes());
        bytes
    };
    let safe_gdt = a.bytes(&pointer(GDT_BYTES, gdt_copy));
    let gdt_pointer = a.bytes(&pointer(GDT_BYTES, GDT));
    let idt_pointer = a.bytes(&pointer(IDT_BYTES, IDT));
    let no_idt = a.bytes(&[0; 6]);
    let names: Vec<String> = VECTORS.iter().map(|vector| format!("stub.{vector}")).collect();
    let stubs = a.table(&names.iter().map(String::as_str).collect::<Vec<_>>());
    asm! { a;
        at("runtime");
        mov(eax, i32::from(DATA0));
    }
    asm! { a;
        // The boot GDT has code only: from now on the runtime's own.
        lgdt(fword_ptr(safe_gdt).cs());
        mov(ds, ax); mov(es, ax); mov(fs, ax); mov(gs, ax); mov(ss, ax); mov(esp, STACK_RUNTIME);
        push(flag::ONE); popfd();
        call("output.init");
        call("runtime.pic");
        mov(dword_ptr(PASSED), 0); mov(dword_ptr(FAILED), 0);
        cmp(dword_ptr(SURVIVOR), MAGIC); je("runtime.survived");
        mov(dword_ptr(ROW), rows); mov(dword_ptr(LEFT), count);

        at("runtime.next");
        mov(esi, dword_ptr(ROW)); cmp(dword_ptr(LEFT), 0); je("runtime.last");
        call("runtime.tables");
        mov(esi, dword_ptr(ROW));
        lgdt(fword_ptr(gdt_pointer)); lidt(fword_ptr(idt_pointer));
        mov(eax, i32::from(LOCAL)); lldt(ax);
        mov(eax, i32::from(TASK)); ltr(ax);
        mov(eax, dword_ptr(esi + row::CR3)); mov(cr3, eax);
        mov(eax, dword_ptr(esi + row::CR4)); test(eax, eax); jz(".no_cr4"); mov(cr4, eax);
        at(".no_cr4");
        mov(eax, cr0); or(eax, dword_ptr(esi + row::CR0)); mov(cr0, eax);
        mov(esp, STACK_CASE);
        mov(eax, dword_ptr(esi + row::SETUP)); test(eax, eax); jz(".ready");
        push(esi);
    }
    a.call_through_register(eax)?;
    asm! { a;
        pop(esi);
        at(".ready");
        mov(eax, dword_ptr(esi + row::CONTEXT)); cmp(eax, 1); je(".ring3"); ja(".v86");
        push(dword_ptr(esi + row::ENTRY));
        xor(eax, eax); xor(ebx, ebx); xor(ecx, ecx); xor(edx, edx); xor(esi, esi); xor(edi, edi); xor(ebp, ebp);
        ret();

        at(".ring3");
        mov(eax, i32::from(DATA3));
        push(eax); push(STACK_USER);
        mov(ecx, dword_ptr(esi + row::FLAGS)); or(ecx, flag::ONE); push(ecx);
        push(i32::from(CODE3)); push(dword_ptr(esi + row::ENTRY));
        mov(ds, ax); mov(es, ax);
        jmp(".go");

        at(".v86");
        mov(eax, i32::from(BLOB_SEGMENT));
        push(0x4444); push(0x3333); push(eax); push(0x2222);
        push(i32::from(V86_STACK_SEGMENT)); push(V86_SP);
        mov(ecx, dword_ptr(esi + row::FLAGS)); or(ecx, flag::ONE | flag::VM); push(ecx);
        push(eax); push(0);
        at(".go");
        xor(eax, eax); xor(ebx, ebx); xor(ecx, ecx); xor(edx, edx); xor(esi, esi); xor(edi, edi); xor(ebp, ebp);
        iretd();
    }
    finish(a, safe_gdt, no_idt)?;
    checks(a)?;
    tables(a, gdt_copy, stubs)?;
    handlers(a)?;
    logging(a)?;
    pic(a)?;
    last(a, no_idt)
}

/// After the event: back to a known state, then the checks.
fn finish(a: &mut Asm, safe_gdt: i32, no_idt: i32) -> AsmResult {
    asm! { a;
        at("runtime.finish");
        cli(); cld();
        mov(eax, cr0); and(eax, !(ctl::PG | ctl::WP | ctl::AM | ctl::TS | ctl::EM | ctl::MP | ctl::NE)); mov(cr0, eax);
        // No x87 error, and none ignored.
        fninit(); out(COPROCESSOR_ERROR, al);
        xor(eax, eax); mov(cr3, eax); mov(dr7, eax); mov(dr6, eax);
        mov(esi, dword_ptr(ROW)); cmp(dword_ptr(esi + row::CR4), 0); je(".no_cr4"); mov(cr4, eax);
        at(".no_cr4");
        lgdt(fword_ptr(safe_gdt)); lidt(fword_ptr(no_idt));
        mov(eax, i32::from(DATA0)); mov(ds, ax); mov(es, ax); mov(fs, ax); mov(gs, ax); mov(ss, ax);
        mov(esp, STACK_RUNTIME);
        push(flag::ONE); popfd();
        xor(eax, eax); lldt(ax);
    }
    a.out_byte(pic::MASTER_MASK, 0xFF)?;
    a.out_byte(pic::SLAVE_MASK, 0xFF)?;
    // Whatever is in service.
    a.out_byte(pic::MASTER, pic::EOI)?;
    a.out_byte(pic::MASTER, pic::EOI)?;
    a.out_byte(pic::SLAVE, pic::EOI)?;
    a.jmp("runtime.check")?;
    Ok(())
}

fn checks(a: &mut Asm) -> AsmResult {
    let expected = a.bytes(b" expected \0");
    let got = a.bytes(b" got \0");
    let fail = a.bytes(b"FAIL \0");
    let pass = a.bytes(b"PASS \0");
    let colon = a.bytes(b": \0");
    let comma = a.bytes(b", \0");
    let newline = a.bytes(b"\n\0");
    asm! { a;
        at("runtime.check");
        mov(dword_ptr(BAD), 0);
        mov(esi, dword_ptr(ROW));
        mov(eax, dword_ptr(esi + row::CHECKS)); mov(dword_ptr(CHECK), eax);
        mov(eax, dword_ptr(esi + row::CHECK_COUNT)); mov(dword_ptr(CHECKS_LEFT), eax);
        at(".check");
        cmp(dword_ptr(CHECKS_LEFT), 0); je(".judged");
        mov(edi, dword_ptr(CHECK));
        mov(ebx, dword_ptr(edi + 4)); mov(eax, dword_ptr(ebx)); and(eax, dword_ptr(edi + 8));
        cmp(eax, dword_ptr(edi + 12)); je(".good");
        push(eax);
        cmp(dword_ptr(BAD), 0); mov(dword_ptr(BAD), 1); mov(esi, comma); jne(".again");
        mov(esi, fail); call("output.text");
        mov(esi, dword_ptr(ROW)); mov(esi, dword_ptr(esi + row::NAME)); call("output.text");
        mov(esi, colon);
        at(".again");
        call("output.text");
        mov(esi, dword_ptr(edi)); call("output.text");
        mov(esi, expected); call("output.text");
        mov(eax, dword_ptr(edi + 12)); call("output.hex");
        mov(esi, got); call("output.text");
        pop(eax); call("output.hex");
        at(".good");
        add(dword_ptr(CHECK), 16); dec(dword_ptr(CHECKS_LEFT)); jmp(".check");

        at(".judged");
        cmp(dword_ptr(BAD), 0); jne(".bad");
        inc(dword_ptr(PASSED));
        mov(esi, pass); call("output.text");
        mov(esi, dword_ptr(ROW)); mov(esi, dword_ptr(esi + row::NAME)); call("output.text");
        jmp(".told");
        at(".bad");
        inc(dword_ptr(FAILED));
        at(".told");
        mov(esi, newline); call("output.text");
        add(dword_ptr(ROW), row::BYTES); dec(dword_ptr(LEFT)); jmp("runtime.next");
    }
    Ok(())
}

/// `runtime.tables`: all tables of a case anew, then its own pokes and 16-bit code.
fn tables(a: &mut Asm, gdt_copy: i32, stubs: i32) -> AsmResult {
    let pokes: Vec<u8> = TABLE_POKES
        .iter()
        .flat_map(|(at, value)| [at.to_le_bytes(), value.to_le_bytes()])
        .flatten()
        .collect();
    let pokes = a.bytes(&pokes);
    let vectors: Vec<u8> = VECTORS.iter().map(|vector| *vector as u8).collect();
    let vectors = a.bytes(&vectors);
    const IDENTITY: i32 = page::P | page::W | page::U;
    asm! { a;
        at("runtime.tables");
        xor(eax, eax);
        mov(edi, GDT); mov(ecx, (LOG_END - GDT) / 4); rep_stosd();
        mov(esi, gdt_copy); mov(edi, GDT); mov(ecx, GDT_BYTES); rep_movsb();
        // Interrupt gates for level 3.
        xor(ecx, ecx);
        at(".gate");
        movzx(edi, byte_ptr(ecx + vectors));
        mov(eax, dword_ptr(ecx * 4 + stubs));
        lea(edi, dword_ptr(edi * 8 + IDT));
        mov(word_ptr(edi), ax); mov(word_ptr(edi + 2), i32::from(CODE0));
        mov(word_ptr(edi + 4), ((GATE_INTERRUPT | LEVEL_3) << 8) as i32);
        shr(eax, 16); mov(word_ptr(edi + 6), ax);
        inc(ecx); cmp(ecx, VECTORS.len() as i32); jb(".gate");
        mov(esi, pokes); mov(ecx, TABLE_POKES.len() as i32); call("runtime.pokes");
        // Page tables.
        xor(eax, eax); mov(edi, DIRECTORY); mov(ecx, 0x400); rep_stosd();
        mov(dword_ptr(DIRECTORY), TABLE_0 | IDENTITY); mov(dword_ptr(TEST_PDE), TABLE_1 | IDENTITY);
        mov(edi, TABLE_0); mov(eax, IDENTITY);
        at(".page");
        mov(dword_ptr(edi), eax); add(eax, 0x1000); add(edi, 4); cmp(edi, TABLE_0 + 0x1000); jb(".page");
        xor(eax, eax); mov(edi, TABLE_1); mov(ecx, 0x400); rep_stosd();
        mov(dword_ptr(TEST_PTE), PAGE_A | IDENTITY); mov(dword_ptr(TEST_B_PTE), PAGE_B | IDENTITY);
        mov(edi, PAE_POINTERS); mov(ecx, (PAE_END - PAE_POINTERS) / 4); rep_stosd();
        mov(dword_ptr(PAE_POINTERS), PAE_DIRECTORY | page::P); mov(dword_ptr(PAE_DIRECTORY), IDENTITY | page::LARGE);
        mov(dword_ptr(PAE_TEST_PDE), PAE_TABLE | IDENTITY);
        mov(dword_ptr(PAE_TABLE), PAGE_A | IDENTITY); mov(dword_ptr(PAE_TABLE + 8), PAGE_B | IDENTITY);
        mov(edi, PAGE_A); mov(ecx, 0x800); rep_stosd();
        // The case's own.
        mov(ebx, dword_ptr(ROW));
        mov(esi, dword_ptr(ebx + row::POKES)); mov(ecx, dword_ptr(ebx + row::POKE_COUNT)); call("runtime.pokes");
        mov(esi, dword_ptr(ebx + row::BLOB)); mov(ecx, dword_ptr(ebx + row::BLOB_LEN)); mov(edi, BLOB); rep_movsb();
        ret();

        at("runtime.pokes");
        test(ecx, ecx); jz(".end");
        at(".poke");
        mov(edi, dword_ptr(esi)); mov(eax, dword_ptr(esi + 4)); mov(dword_ptr(edi), eax);
        add(esi, 8); dec(ecx); jnz(".poke");
        at(".end");
        ret();
    }
    Ok(())
}

/// The stubs and `handler`.
fn handlers(a: &mut Asm) -> AsmResult {
    for vector in VECTORS {
        a.at(&format!("stub.{vector}"))?;
        if !has_error_code(vector) {
            a.push(record::NO_ERROR)?;
        }
        asm! { a; push(vector); jmp("handler"); }
    }
    asm! { a;
        at("handler");
        pushad();
        push(ds); push(es); push(fs); push(gs); pushfd();
        mov(eax, i32::from(DATA0)); mov(ds, ax); mov(es, ax); cld();
        inc(dword_ptr(record::COUNT)); cmp(dword_ptr(record::COUNT), 1); ja("runtime.finish");
        mov(esi, esp); mov(edi, RECORD); mov(ecx, record::FRAME_DWORDS); rep_movsd();
        mov(dword_ptr(record::HANDLER_ESP), esp);
        mov(eax, cr2); mov(dword_ptr(record::CR2), eax);
        mov(eax, dr6); mov(dword_ptr(record::DR6), eax);
        mov(eax, cr0); mov(dword_ptr(record::CR0), eax);
        mov(eax, cr3); mov(dword_ptr(record::CR3), eax);
        xor(eax, eax); str(ax); mov(dword_ptr(record::TR), eax);
        // At the same level no stack was pushed: it is the one we are on.
        test(dword_ptr(record::EFLAGS), flag::VM); jnz("runtime.finish");
        mov(eax, dword_ptr(record::CS)); xor(eax, dword_ptr(esp + record::CS - RECORD)); jnz("runtime.finish");
        test(dword_ptr(record::CS), 3); jnz("runtime.finish");
        lea(eax, dword_ptr(esp + record::ESP - RECORD)); mov(dword_ptr(record::ESP), eax);
        xor(eax, eax); mov(eax, ss); mov(dword_ptr(record::SS), eax);
        jmp("runtime.finish");
    }
    Ok(())
}

/// `log.debug` and `log.irq`: handlers that a case can put into the IDT. They note where the event was, and
/// return; the debug handler clears DR6 and sets RF, as handlers of instruction breakpoints do.
fn logging(a: &mut Asm) -> AsmResult {
    asm! { a;
        at("log.irq");
        push(eax); mov(al, pic::EOI); out(pic::MASTER, al); pop(eax);
        at("log.debug");
        push(eax); push(ebx); push(ds);
        mov(eax, i32::from(DATA0)); mov(ds, ax);
        mov(ebx, dword_ptr(LOG_COUNT)); inc(dword_ptr(LOG_COUNT)); and(ebx, 0x3F); shl(ebx, 4);
        mov(eax, dword_ptr(esp + 12)); mov(dword_ptr(ebx + LOG), eax);
        mov(eax, dr6); mov(dword_ptr(ebx + LOG + 4), eax);
        mov(eax, dword_ptr(esp + 20)); mov(dword_ptr(ebx + LOG + 8), eax);
        xor(eax, eax); mov(dr6, eax);
        or(dword_ptr(esp + 20), flag::RF);
        pop(ds); pop(ebx); pop(eax);
        iretd();
    }
    Ok(())
}

/// `runtime.pic`: IRQs at vectors 20h and 28h, all masked.
fn pic(a: &mut Asm) -> AsmResult {
    a.at("runtime.pic")?;
    for (command, mask, base, wiring) in [
        (pic::MASTER, pic::MASTER_MASK, exception::IRQ0, pic::ICW3_MASTER),
        (pic::SLAVE, pic::SLAVE_MASK, exception::IRQ0 + 8, pic::ICW3_SLAVE),
    ] {
        a.out_byte(command, pic::ICW1)?;
        a.out_byte(mask, base)?;
        a.out_byte(mask, wiring)?;
        a.out_byte(mask, pic::ICW4)?;
        a.out_byte(mask, 0xFF)?;
    }
    a.ret()?;
    Ok(())
}

/// The triple fault, which ends in the firmware: the floppy is booted once more and finds the mark.
fn last(a: &mut Asm, no_idt: i32) -> AsmResult {
    let pass = a.bytes(b"PASS shutdown/triple-fault-resets\n\0");
    asm! { a;
        at("runtime.last");
        mov(eax, dword_ptr(PASSED)); mov(dword_ptr(SURVIVOR + 4), eax);
        mov(eax, dword_ptr(FAILED)); mov(dword_ptr(SURVIVOR + 8), eax);
        mov(dword_ptr(SURVIVOR), MAGIC);
        // No gate for #UD, none for #GP, none for #DF.
        lidt(fword_ptr(no_idt)); ud2();

        at("runtime.survived");
        mov(dword_ptr(SURVIVOR), 0);
        mov(eax, dword_ptr(SURVIVOR + 4)); inc(eax); mov(dword_ptr(PASSED), eax);
        mov(eax, dword_ptr(SURVIVOR + 8)); mov(dword_ptr(FAILED), eax);
        mov(esi, pass); call("output.text");
        jmp("output.summary");
    }
    Ok(())
}
