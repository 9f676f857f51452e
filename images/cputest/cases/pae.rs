//! PAE paging: three levels, 2 MiB pages, reserved bits, the directory pointers that the processor keeps; PSE-36.

use crate::cputest::layout::*;
use crate::cputest::suite::{Context, Suite, Write, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

const VALUE: i32 = 0x1234_5678;
const ALL: i32 = page::P | page::W | page::U;
/// Bit 36 in the high half of an entry; bit 63 without NX.
const BIT_36: i32 = 1 << 4;
const BIT_63: i32 = i32::MIN;
/// [`TEST`] by way of pointer 3.
const TEST_3: u32 = TEST as u32 | 3 << 30;
const POINTER_3: i32 = PAE_POINTERS + 24;
/// Reserved bit in an entry: error code.
const RESERVED: i32 = 9;

pub fn emit(t: &mut Suite) -> AsmResult {
    levels(t)?;
    rights(t)?;
    large(t)?;
    reserved(t)?;
    pointers(t)?;
    pse_36(t)
}

/// QEMU, which enables this, runs away.
pub fn emit_last(t: &mut Suite) -> AsmResult {
    // The directory is no pointer table: its entries have W and U.
    t.ring0(
        "pae-pointers/bad-when-pae-is-enabled",
        code! { mov(eax, cr4); or(eax, ctl::PAE); at(".fault"); mov(cr4, eax); },
    )?
    .paging()
    .cr4(ctl::PSE)
    .fault(x::GP, 0)
    .at(".fault");
    Ok(())
}

fn levels(t: &mut Suite) -> AsmResult {
    const A_D: u32 = (page::A | page::D) as u32;
    // QEMU 7.2 sets the accessed bit of the pointer too.
    t.shared("pae/read", Context::Ring0, "paging.read")
        .pae()
        .poke(PAGE_A, VALUE)
        .done()
        .eax(VALUE)
        .memory("entry", PAE_TEST_PTE, A_D, page::A)
        .memory("directory entry", PAE_TEST_PDE, A_D, page::A)
        .memory("pointer", PAE_POINTERS, u32::MAX, PAE_DIRECTORY | page::P);
    t.ring0("pae/write", code! { mov(dword_ptr(TEST), VALUE); })?
        .pae()
        .done()
        .memory("page", PAGE_A, u32::MAX, VALUE)
        .memory("entry", PAE_TEST_PTE, A_D, page::A | page::D)
        .memory("directory entry", PAE_TEST_PDE, A_D, page::A);
    t.ring0(
        "pae/write-after-read-sets-dirty",
        code! { mov(eax, dword_ptr(TEST)); mov(dword_ptr(TEST), eax); },
    )?
    .pae()
    .done()
    .memory("entry", PAE_TEST_PTE, A_D, page::A | page::D);
    t.ring0("pae/second-entry", code! { mov(eax, dword_ptr(TEST_B + 8)); })?
        .pae()
        .poke(PAGE_B + 8, VALUE)
        .done()
        .eax(VALUE);
    t.ring0("pae/fourth-pointer", code! { mov(eax, dword_ptr(TEST_3)); })?
        .pae()
        .poke(POINTER_3, PAE_DIRECTORY | page::P)
        .poke(PAGE_A, VALUE)
        .done()
        .eax(VALUE);
    for (name, at, address) in [
        ("pointer", POINTER_3, TEST_3 as i32),
        ("directory-entry", PAE_TEST_PDE, TEST),
        ("entry", PAE_TEST_PTE, TEST),
    ] {
        for (user, write) in [(false, false), (false, true), (true, false), (true, true)] {
            let (level, access) = (if user { 3 } else { 0 }, if write { "write" } else { "read" });
            let context = if user { Context::Ring3 } else { Context::Ring0 };
            let entry = if address == TEST { "paging" } else { "pae" };
            t.shared(
                &format!("pae/absent-{name}-level-{level}-{access}"),
                context,
                &format!("{entry}.{access}"),
            )
            .pae()
            .poke(at, 0)
            // What an absent entry holds besides does not matter.
            .poke(at + 4, BIT_63)
            .fault(x::PF, if write { 2 } else { 0 } | if user { 4 } else { 0 })
            .cr2(address);
        }
    }
    let third = code! {
        at("pae.read");
        mov(eax, dword_ptr(TEST_3)); int(x::DONE);
        at("pae.write");
        mov(dword_ptr(TEST_3), eax); int(x::DONE);
    };
    third(&mut t.a)?;
    t.ring0(
        "pae/global-page-outlives-cr3",
        code! {
            mov(eax, dword_ptr(TEST)); mov(dword_ptr(PAE_TEST_PTE), PAGE_B | ALL);
            mov(eax, cr3); mov(cr3, eax); mov(ebx, dword_ptr(TEST)); invlpg(byte_ptr(TEST)); mov(eax, dword_ptr(TEST));
        },
    )?
    .pae()
    .cr4(ctl::PGE)
    .poke(PAE_TEST_PTE, PAGE_A | ALL | page::G)
    .poke(PAGE_A, 1)
    .poke(PAGE_B, VALUE)
    .done()
    .ebx(1)
    .eax(VALUE);
    Ok(())
}

/// Each right taken from each of the two levels that have them.
fn rights(t: &mut Suite) -> AsmResult {
    for (name, directory, table) in [
        ("full", ALL, ALL),
        ("directory-read-only", ALL & !page::W, ALL),
        ("table-read-only", ALL, ALL & !page::W),
        ("directory-supervisor", ALL & !page::U, ALL),
        ("table-supervisor", ALL, ALL & !page::U),
    ] {
        for (user, write) in [(false, true), (true, false), (true, true)] {
            let both = directory & table;
            let denied = user && both & page::U == 0 || write && both & page::W == 0;
            let (level, access) = (if user { 3 } else { 0 }, if write { "write" } else { "read" });
            let context = if user { Context::Ring3 } else { Context::Ring0 };
            let case = t.shared(
                &format!("pae-rights/{name}-level-{level}-{access}"),
                context,
                &format!("paging.{access}"),
            );
            case.pae()
                .cr0(ctl::WP)
                .poke(PAE_TEST_PDE, PAE_TABLE | directory)
                .poke(PAE_TEST_PTE, PAGE_A | table);
            if denied {
                let error = page::P | if write { 2 } else { 0 } | if user { 4 } else { 0 };
                case.fault(x::PF, error).cr2(TEST).memory("dirty bit", PAE_TEST_PTE, page::D as u32, 0);
            } else {
                case.done();
            }
        }
    }
    Ok(())
}

fn large(t: &mut Suite) -> AsmResult {
    const LARGE: i32 = ALL | page::LARGE;
    const A_D: u32 = (page::A | page::D) as u32;
    t.ring0("pae/2-mib-page-read", code! { mov(eax, dword_ptr(TEST + SCRATCH)); })?
        .pae()
        .poke(PAE_TEST_PDE, LARGE)
        .poke(SCRATCH, VALUE)
        .done()
        .eax(VALUE)
        .memory("directory entry", PAE_TEST_PDE, A_D, page::A);
    t.ring0(
        "pae/2-mib-page-write",
        code! { mov(eax, dword_ptr(TEST + SCRATCH)); mov(dword_ptr(TEST + SCRATCH), VALUE); },
    )?
    .pae()
    .poke(PAE_TEST_PDE, LARGE)
    .done()
    .memory("memory", SCRATCH, u32::MAX, VALUE)
    .memory("directory entry", PAE_TEST_PDE, A_D, page::A | page::D);
    // Address bit 20 comes from the linear address, bit 21 from the entry.
    t.ring0("pae/2-mib-page-offset", code! { mov(dword_ptr(TEST + 0x10_0000 + SCRATCH), VALUE); })?
        .pae()
        .poke(PAE_TEST_PDE, LARGE | 0x20_0000)
        .done()
        .memory("memory", 0x30_0000 + SCRATCH, u32::MAX, VALUE);
    t.ring3("pae/2-mib-page-supervisor", code! { mov(eax, dword_ptr(TEST)); })?
        .pae()
        .poke(PAE_TEST_PDE, LARGE & !page::U)
        .fault(x::PF, 5)
        .cr2(TEST);
    t.ring0("pae/2-mib-page-read-only", code! { mov(dword_ptr(TEST), eax); })?
        .pae()
        .cr0(ctl::WP)
        .poke(PAE_TEST_PDE, LARGE & !page::W)
        .fault(x::PF, 3)
        .cr2(TEST)
        .memory("directory entry", PAE_TEST_PDE, page::D as u32, 0);
    // CR4.PSE says nothing here, and bit 12 is PAT's.
    t.ring0("pae/2-mib-page-pat-bit", code! { mov(eax, dword_ptr(TEST + SCRATCH)); })?
        .pae()
        .poke(PAE_TEST_PDE, LARGE | 1 << 12)
        .poke(SCRATCH, VALUE)
        .done()
        .eax(VALUE);
    Ok(())
}

/// QEMU 7.2 leaves P out of the error code; Bochs as configured by default has more address bits than 36.
fn reserved(t: &mut Suite) -> AsmResult {
    const LARGE: i32 = ALL | page::LARGE;
    for (name, at, low, high) in [
        ("entry-bit-36", PAE_TEST_PTE, PAGE_A | ALL, BIT_36),
        ("entry-bit-62", PAE_TEST_PTE, PAGE_A | ALL, 1 << 30),
        ("entry-bit-63", PAE_TEST_PTE, PAGE_A | ALL, BIT_63),
        ("directory-bit-36", PAE_TEST_PDE, PAE_TABLE | ALL, BIT_36),
        ("directory-bit-63", PAE_TEST_PDE, PAE_TABLE | ALL, BIT_63),
        ("2-mib-page-bit-13", PAE_TEST_PDE, LARGE | 1 << 13, 0),
        ("2-mib-page-bit-20", PAE_TEST_PDE, LARGE | 1 << 20, 0),
        ("2-mib-page-bit-36", PAE_TEST_PDE, LARGE, BIT_36),
        ("2-mib-page-bit-63", PAE_TEST_PDE, LARGE, BIT_63),
    ] {
        t.shared(&format!("pae-reserved/{name}"), Context::Ring0, "paging.read")
            .pae()
            .poke(at, low)
            .poke(at + 4, high)
            .fault(x::PF, RESERVED)
            .at("paging.read")
            .cr2(TEST)
            .memory("accessed bit", at, page::A as u32, 0);
    }
    t.shared("pae-reserved/write-at-level-3", Context::Ring3, "paging.write")
        .pae()
        .poke(PAE_TEST_PTE + 4, BIT_63)
        .fault(x::PF, RESERVED | 6)
        .cr2(TEST);
    t.shared("pae-reserved/write", Context::Ring0, "paging.write")
        .pae()
        .poke(PAE_TEST_PDE + 4, BIT_63)
        .fault(x::PF, RESERVED | 2)
        .cr2(TEST);
    Ok(())
}

/// QEMU reads the pointers from memory at each walk, and checks no bits of theirs. Bochs loads them at every write to
/// CR0 and CR4.
fn pointers(t: &mut Suite) -> AsmResult {
    const PRESENT_3: i32 = PAE_DIRECTORY | page::P;
    t.ring0(
        "pae-pointers/kept-until-cr3-is-loaded",
        code! { mov(dword_ptr(POINTER_3), PRESENT_3); invlpg(byte_ptr(TEST_3)); at(".fault"); mov(eax, dword_ptr(TEST_3)); },
    )?
    .pae()
    .fault(x::PF, 0)
    .at(".fault")
    .cr2(TEST_3 as i32);
    t.ring0(
        "pae-pointers/kept-when-gone-from-memory",
        code! { mov(dword_ptr(POINTER_3), 0); invlpg(byte_ptr(TEST_3)); mov(eax, dword_ptr(TEST_3)); },
    )?
    .pae()
    .poke(POINTER_3, PRESENT_3)
    .poke(PAGE_A, VALUE)
    .done()
    .eax(VALUE);
    let loads: [(&str, Write); 5] = [
        ("mov-cr3", code! { mov(eax, cr3); mov(cr3, eax); }),
        ("cr4-pge", code! { mov(eax, cr4); xor(eax, ctl::PGE); mov(cr4, eax); }),
        ("cr4-pse", code! { mov(eax, cr4); xor(eax, ctl::PSE); mov(cr4, eax); }),
        (
            "cr0-pg",
            code! { mov(eax, cr0); xor(eax, ctl::PG); mov(cr0, eax); xor(eax, ctl::PG); mov(cr0, eax); },
        ),
        (
            "cr0-cd",
            code! {
                mov(eax, cr0); and(eax, !(ctl::CD | ctl::NW)); mov(cr0, eax); or(eax, ctl::CD); mov(cr0, eax);
                and(eax, !ctl::CD); mov(cr0, eax);
            },
        ),
    ];
    for (name, load) in loads {
        t.ring0(&format!("pae-pointers/loaded-by-{name}"), |a| {
            a.mov(dword_ptr(POINTER_3), PRESENT_3)?;
            load(a)?;
            Ok(a.mov(eax, dword_ptr(TEST_3))?)
        })?
        .pae()
        .poke(PAGE_A, VALUE)
        .done()
        .eax(VALUE);
    }
    t.ring0(
        "pae-pointers/not-loaded-by-other-bits",
        code! {
            mov(dword_ptr(POINTER_3), PRESENT_3); mov(eax, cr4); xor(eax, ctl::TSD | ctl::DE); mov(cr4, eax);
            mov(eax, cr0); xor(eax, ctl::WP | ctl::AM); mov(cr0, eax); at(".fault"); mov(eax, dword_ptr(TEST_3));
        },
    )?
    .pae()
    .fault(x::PF, 0)
    .at(".fault")
    .cr2(TEST_3 as i32);
    for (name, low, high) in [
        ("1", 1 << 1, 0),
        ("2", 1 << 2, 0),
        ("5", 1 << 5, 0),
        ("8", 1 << 8, 0),
        ("36", 0, BIT_36),
        ("63", 0, BIT_63),
    ] {
        t.ring0(
            &format!("pae-pointers/bit-{name}-at-mov-cr3"),
            code! {
                mov(dword_ptr(POINTER_3), PRESENT_3 | low); mov(dword_ptr(POINTER_3 + 4), high);
                mov(eax, PAE_POINTERS); at(".fault"); mov(cr3, eax);
            },
        )?
        .pae()
        .fault(x::GP, 0)
        .at(".fault");
    }
    t.ring0(
        "pae-pointers/absent-may-hold-anything",
        code! { mov(dword_ptr(POINTER_3), !page::P); mov(dword_ptr(POINTER_3 + 4), -1); mov(eax, cr3); mov(cr3, eax); },
    )?
    .pae()
    .done();
    t.ring0(
        "pae-pointers/pwt-pcd-and-free-bits",
        code! { mov(dword_ptr(POINTER_3), PRESENT_3 | 0xE18); mov(eax, cr3); mov(cr3, eax); mov(eax, dword_ptr(TEST_3)); },
    )?
    .pae()
    .poke(PAGE_A, VALUE)
    .done()
    .eax(VALUE);
    t.ring0(
        "pae-pointers/a-bad-table-is-not-loaded",
        code! { mov(eax, PAGE_A); at(".fault"); mov(cr3, eax); },
    )?
    .pae()
    .poke(PAGE_A, PRESENT_3 | 2)
    .fault(x::GP, 0)
    .at(".fault")
    .memory("CR3", record::CR3, u32::MAX, PAE_POINTERS);
    t.ring0(
        "pae-pointers/bad-when-paging-is-enabled",
        code! { mov(eax, PAE_POINTERS); mov(cr3, eax); mov(eax, cr0); or(eax, ctl::PG); at(".fault"); mov(cr0, eax); },
    )?
    .cr4(ctl::PAE)
    .poke(POINTER_3, PRESENT_3 | 2)
    .fault(x::GP, 0)
    .at(".fault")
    .memory("PG", record::CR0, ctl::PG as u32, 0);
    Ok(())
}

/// 4 MiB pages beyond 4 GiB, where no PC of these tests has memory.
fn pse_36(t: &mut Suite) -> AsmResult {
    const LARGE: i32 = ALL | page::LARGE;
    for bit in [13, 16] {
        t.ring0(
            &format!("pse-36/bit-{bit}-is-part-of-the-address"),
            code! { mov(dword_ptr(TEST + SCRATCH), VALUE); },
        )?
        .paging()
        .cr4(ctl::PSE)
        .poke(TEST_PDE, LARGE | 1 << bit)
        .done()
        .memory("memory at the low address", SCRATCH, u32::MAX, 0)
        .memory("directory entry", TEST_PDE, 0x60, page::A | page::D);
    }
    Ok(())
}
