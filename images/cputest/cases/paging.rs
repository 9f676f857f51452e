//! Paging: rights, error codes, accessed and dirty bits, large pages, stale translations.

use crate::cputest::layout::*;
use crate::cputest::suite::{Context, Suite, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

const VALUE: i32 = 0x1234_5678;

pub fn emit(t: &mut Suite) -> AsmResult {
    rights(t)?;
    bits(t)?;
    large(t)?;
    stale(t)
}

/// Every combination of U and W in directory and table, of level, access and CR0.WP (SDM 3A 4.6).
fn rights(t: &mut Suite) -> AsmResult {
    t.a.at("paging.read")?;
    t.a.mov(eax, dword_ptr(TEST))?;
    t.a.int(x::DONE)?;
    t.a.at("paging.write")?;
    t.a.mov(dword_ptr(TEST), eax)?;
    t.a.int(x::DONE)?;
    let name = |bits: i32| match bits {
        0 => "sr",
        page::W => "sw",
        page::U => "ur",
        _ => "uw",
    };
    for directory in [0, page::W, page::U, page::U | page::W] {
        for table in [0, page::W, page::U, page::U | page::W] {
            for (user, write, protect) in
                [0, 1, 2, 3, 4, 5, 6, 7].map(|i| (i & 1 != 0, i & 2 != 0, i & 4 != 0))
            {
                let both = directory & table;
                let denied = user && both & page::U == 0 || write && (user || protect) && both & page::W == 0;
                let (level, access) = (if user { 3 } else { 0 }, if write { "write" } else { "read" });
                let wp = if protect { "wp" } else { "no-wp" };
                let case = format!("rights/{}-{}-{wp}-level-{level}-{access}", name(directory), name(table));
                let context = if user { Context::Ring3 } else { Context::Ring0 };
                let entry = if write { "paging.write" } else { "paging.read" };
                let case = t.shared(&case, context, entry);
                case.paging()
                    .poke(TEST_PDE, TABLE_1 | page::P | directory)
                    .poke(TEST_PTE, PAGE_A | page::P | table);
                if protect {
                    case.cr0(ctl::WP);
                }
                if denied {
                    let error = page::P | if write { 2 } else { 0 } | if user { 4 } else { 0 };
                    case.fault(x::PF, error).at(entry).cr2(TEST);
                    case.memory("dirty bit", TEST_PTE, page::D as u32, 0);
                } else {
                    case.done();
                }
            }
        }
    }
    Ok(())
}

fn bits(t: &mut Suite) -> AsmResult {
    const A_D: u32 = (page::A | page::D) as u32;
    t.shared("paging/absent-entry", Context::Ring0, "paging.read")
        .paging()
        .poke(TEST_PTE, 0)
        .fault(x::PF, 0)
        .cr2(TEST);
    t.shared("paging/absent-entry-write-at-level-3", Context::Ring3, "paging.write")
        .paging()
        .poke(TEST_PTE, 0)
        .fault(x::PF, 6)
        .cr2(TEST);
    t.shared("paging/absent-directory-entry", Context::Ring0, "paging.write")
        .paging()
        .poke(TEST_PDE, 0)
        .fault(x::PF, 2)
        .cr2(TEST);
    t.shared("paging/read-sets-accessed", Context::Ring0, "paging.read")
        .paging()
        .done()
        .memory("entry", TEST_PTE, A_D, page::A)
        .memory("directory entry", TEST_PDE, A_D & !(page::D as u32), page::A);
    t.shared("paging/write-sets-dirty", Context::Ring0, "paging.write").paging().done().memory(
        "entry",
        TEST_PTE,
        A_D,
        page::A | page::D,
    );
    t.ring0(
        "paging/write-after-read-sets-dirty",
        code! { mov(eax, dword_ptr(TEST)); mov(dword_ptr(TEST), eax); },
    )?
    .paging()
    .done()
    .memory("entry", TEST_PTE, A_D, page::A | page::D);
    t.ring0("paging/across-pages", code! { at(".fault"); mov(eax, dword_ptr(TEST_B - 2)); })?
        .paging()
        .poke(TEST_B_PTE, 0)
        .fault(x::PF, 0)
        .cr2(TEST_B)
        .at(".fault");
    t.ring0(
        "paging/write-across-pages-writes-nothing",
        code! { mov(eax, VALUE); mov(dword_ptr(TEST_B - 2), eax); },
    )?
    .paging()
    .poke(TEST_B_PTE, 0)
    .fault(x::PF, 2)
    .cr2(TEST_B)
    .memory("first page", PAGE_A + 0xFFC, u32::MAX, 0);
    t.ring0("paging/fetch", code! { mov(eax, TEST + 0x10); jmp_through(eax); })?
        .paging()
        .poke(TEST_PTE, 0)
        .fault(x::PF, 0)
        .cr2(TEST + 0x10)
        .eip(TEST + 0x10);
    t.ring3("paging/fetch-at-level-3", code! { mov(eax, TEST + 0x10); jmp_through(eax); })?
        .paging()
        .poke(TEST_PTE, PAGE_A | page::P)
        .fault(x::PF, 5)
        .cr2(TEST + 0x10)
        .cs(CODE3);
    t.ring3("paging/push", code! { mov(esp, TEST + 4); at(".fault"); push(eax); })?
        .paging()
        .poke(TEST_PTE, PAGE_A | page::P | page::U)
        .fault(x::PF, 7)
        .cr2(TEST)
        .at(".fault")
        .memory("ESP", record::ESP, u32::MAX, TEST + 4);
    // The processor's own accesses to tables are supervisor accesses, also at level 3.
    t.ring3("paging/descriptor-on-a-supervisor-page", code! { mov(eax, i32::from(DATA3)); mov(ds, eax); })?
        .paging()
        .poke(TABLE_0 + 4, GDT | page::P | page::W)
        .done();
    t.ring3("paging/descriptor-on-an-absent-page", code! { mov(eax, 0x14); at(".fault"); mov(ds, eax); })?
        .paging()
        .fault(x::PF, 0)
        .cr2(TEST + 0x10)
        .at(".fault");
    t.setup(code! {
        // The LDT is moved to the absent page; the case's selector means its entry 2.
        mov(dword_ptr(TEST_PTE), 0);
        mov(dword_ptr(entry(SPARE_2)), (TEST & 0xFFFF) << 16 | 0xFF); mov(dword_ptr(entry(SPARE_2) + 4), (LDT_TYPE << 8) as i32 | TEST >> 16);
        mov(eax, i32::from(SPARE_2)); lldt(ax);
    })?;
    Ok(())
}

fn large(t: &mut Suite) -> AsmResult {
    const LARGE: i32 = page::P | page::W | page::U | page::LARGE;
    t.ring0("pse/4-mib-page", code! { mov(dword_ptr(SCRATCH), VALUE); mov(eax, dword_ptr(TEST + SCRATCH)); mov(dword_ptr(TEST + SCRATCH + 4), 1); })?
        .paging()
        .cr4(ctl::PSE)
        .poke(TEST_PDE, LARGE)
        .done()
        .eax(VALUE)
        .memory("directory entry", TEST_PDE, 0x60, page::A | page::D)
        .memory("memory", SCRATCH + 4, u32::MAX, 1);
    t.ring0("pse/off-the-bit-means-nothing", code! { mov(eax, dword_ptr(TEST)); })?
        .paging()
        .poke(TEST_PDE, TABLE_1 | LARGE)
        .poke(PAGE_A, 0)
        .done()
        .memory("entry", TEST_PTE, page::A as u32, page::A);
    t.ring3("pse/supervisor", code! { at(".fault"); mov(eax, dword_ptr(TEST)); })?
        .paging()
        .cr4(ctl::PSE)
        .poke(TEST_PDE, LARGE & !page::U)
        .fault(x::PF, 5)
        .cr2(TEST);
    // Bit 21 is part of no address (PSE-36 has bits 13 to 20). QEMU 7.2 leaves P out of the error code.
    t.ring0("pse/reserved-bit", code! { at(".fault"); mov(eax, dword_ptr(TEST)); })?
        .paging()
        .cr4(ctl::PSE)
        .poke(TEST_PDE, LARGE | 1 << 21)
        .fault(x::PF, 9)
        .cr2(TEST);
    Ok(())
}

fn stale(t: &mut Suite) -> AsmResult {
    const TO_B: i32 = PAGE_B | page::P | page::W | page::U;
    for (name, how) in [
        ("invlpg", 0),
        ("mov-cr3", 1),
        ("cr4-pge-toggle", 2),
        ("cr0-pg-toggle", 3),
        ("invlpg-of-a-global-page", 4),
    ] {
        let case = t.ring0(&format!("stale/{name}"), |a| {
            let before = code! {
                mov(dword_ptr(PAGE_B), VALUE);
                mov(eax, dword_ptr(TEST)); mov(dword_ptr(TEST_PTE), TO_B);
            };
            before(a)?;
            let flush: fn(&mut crate::demo::asm::Asm) -> AsmResult = match how {
                0 | 4 => code! { invlpg(byte_ptr(TEST)); },
                1 => code! { mov(eax, cr3); mov(cr3, eax); },
                2 => code! { mov(eax, cr4); xor(eax, ctl::PGE); mov(cr4, eax); xor(eax, ctl::PGE); mov(cr4, eax); },
                _ => code! { mov(eax, cr0); xor(eax, ctl::PG); mov(cr0, eax); xor(eax, ctl::PG); mov(cr0, eax); },
            };
            flush(a)?;
            Ok(a.mov(eax, dword_ptr(TEST))?)
        })?;
        case.paging().done().eax(VALUE);
        if how == 2 || how == 4 {
            case.cr4(ctl::PGE).poke(TEST_PTE, PAGE_A | page::P | page::W | page::G);
        }
    }
    t.ring0(
        "stale/absent-is-never-kept",
        code! {
            mov(dword_ptr(PAGE_B), VALUE); mov(eax, dword_ptr(TEST));
        },
    )?
    .paging()
    .poke(TEST_PTE, 0)
    .done()
    .eax(VALUE);
    t.setup(|a| {
        a.set_gate(x::PF, "paging.repair", GATE_INTERRUPT)?;
        Ok(())
    })?;
    let repair = code! {
        at("paging.repair");
        mov(dword_ptr(TEST_PTE), TO_B); add(esp, 4); iretd();
    };
    repair(&mut t.a)?;
    t.ring0(
        "stale/rights-added-are-seen-after-the-fault",
        code! { mov(eax, dword_ptr(TEST)); mov(dword_ptr(TEST), VALUE); },
    )?
    .paging()
    .cr0(ctl::WP)
    .poke(TEST_PTE, PAGE_A | page::P)
    .done()
    .memory("memory", PAGE_B, u32::MAX, VALUE);
    t.setup(|a| a.set_gate(x::PF, "paging.repair", GATE_INTERRUPT))?;
    t.ring0(
        "stale/rights-taken-with-invlpg",
        code! {
            mov(dword_ptr(TEST), 1); mov(dword_ptr(TEST_PTE), PAGE_A | page::P); invlpg(byte_ptr(TEST));
            at(".fault"); mov(dword_ptr(TEST), 2);
        },
    )?
    .paging()
    .cr0(ctl::WP)
    .fault(x::PF, 3)
    .at(".fault")
    .memory("memory", PAGE_A, u32::MAX, 1);
    Ok(())
}
