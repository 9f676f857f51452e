//! Translation, permissions, accessed and dirty bits, TLB behaviour.

use crate::cpu::Fault;
use crate::cpu::registers::{Seg, cr0, cr4};
use crate::cpu::testing::{at, protected};

const P: u32 = 1;
const RW: u32 = 2;
const US: u32 = 4;
const A: u32 = 0x20;
const D: u32 = 0x40;
const PS: u32 = 0x80;
const G: u32 = 0x100;

#[test]
fn accessed_and_dirty_bits_follow_reads_and_writes() {
    let mut cpu = protected();
    cpu.enable_paging();

    cpu.read_u8(Seg::Ds, 0x5000).unwrap();
    assert_eq!(cpu.pte(0x5000) & (A | D), A);
    assert_eq!(cpu.bus.peek32(u64::from(at::DIRECTORY)) & A, A);
    cpu.write_u8(Seg::Ds, 0x5000, 1).unwrap();
    assert_eq!(cpu.pte(0x5000) & (A | D), A | D);
    assert_eq!(cpu.pte(0x5_0000) & (A | D), 0);
    cpu.modify_u16(Seg::Ds, 0x5_0000).unwrap();
    assert_eq!(cpu.pte(0x5_0000) & (A | D), A | D);
}

#[test]
fn error_codes_tell_presence_write_and_privilege() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x5000, 0);
    cpu.set_pte(0x6000, 0x6000 | P | RW);
    cpu.set_pte(0x7000, 0x7000 | P | US);

    assert_eq!(cpu.read_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 0)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x5123, 0), Err(Fault::pf(0x5123, 2)));
    assert_eq!(cpu.modify_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 2)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x6000, 1), Ok(()));

    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 4)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x5123, 0), Err(Fault::pf(0x5123, 6)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x6000), Err(Fault::pf(0x6000, 5)), "cached for the supervisor only");
    assert_eq!(cpu.read_u8(Seg::Ds, 0x7000), Ok(0));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 0), Err(Fault::pf(0x7000, 7)));
    assert_eq!(cpu.probe_write(Seg::Ds, 0x7000, 4), Err(Fault::pf(0x7000, 7)));
    assert_eq!(cpu.translate_code(0x6000).map(|_| ()), Err(Fault::pf(0x6000, 5)));
}

#[test]
fn directory_entry_restricts_what_the_table_entry_allows() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.bus.poke32(u64::from(at::DIRECTORY) + 4, at::TABLE | P | RW);
    cpu.bus.poke32(u64::from(at::DIRECTORY) + 8, at::TABLE | P | US);
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x40_5000), Err(Fault::pf(0x40_5000, 5)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x80_5000), Ok(0));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x80_5000, 0), Err(Fault::pf(0x80_5000, 7)));
}

#[test]
fn write_protect_bit_binds_the_supervisor() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x7000, 0x7000 | P | US);
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 1), Ok(()));
    assert_eq!(cpu.pte(0x7000) & D, D);

    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::WP).unwrap();
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 1), Err(Fault::pf(0x7000, 3)));
}

#[test]
fn stale_translation_lives_until_invlpg_or_cr3() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.bus.poke32(0x20_0000, 0xaa);
    cpu.bus.poke32(0x30_0000, 0xbb);
    cpu.read_u8(Seg::Ds, 0x20_0000).unwrap();
    let entry = u64::from(at::TABLE) + 0x200 * 4;

    cpu.bus.poke32(entry, 0x30_0000 | 7);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
    cpu.invlpg(Seg::Ds, 0x20_0fff).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xbb));
    cpu.bus.poke32(entry, 0x20_0000 | 7);
    cpu.mov_to_cr(3, at::DIRECTORY).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
}

#[test]
fn global_pages_survive_cr3_but_not_invlpg() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.mov_to_cr(4, cr4::PGE).unwrap();
    cpu.bus.poke32(0x20_0000, 0xaa);
    cpu.bus.poke32(0x30_0000, 0xbb);
    cpu.set_pte(0x20_0000, 0x20_0000 | 7 | G);
    cpu.read_u8(Seg::Ds, 0x20_0000).unwrap();

    cpu.bus.poke32(u64::from(at::TABLE) + 0x200 * 4, 0x30_0000 | 7);
    cpu.mov_to_cr(3, at::DIRECTORY).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
    cpu.invlpg(Seg::Ds, 0x20_0000).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xbb));
}

#[test]
fn large_pages_need_pse_and_are_invalidated_whole() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.mov_to_cr(4, cr4::PSE).unwrap();
    let entry = u64::from(at::DIRECTORY) + 4;
    cpu.bus.poke32(entry, P | RW | PS);
    cpu.bus.poke32(0x20_1234, 0xcafe);

    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Ok(0xcafe));
    assert_eq!(cpu.bus.peek32(entry) & (A | D), A);
    cpu.write_u8(Seg::Ds, 0x60_2000, 1).unwrap();
    assert_eq!(cpu.bus.peek32(entry) & (A | D), A | D);

    cpu.bus.poke32(entry, 0);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Ok(0xcafe));
    cpu.invlpg(Seg::Ds, 0x7f_0000).unwrap();
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Err(Fault::pf(0x60_1234, 0)));

    // Bits 13 to 16 are address bits 32 to 35 (PSE-36), 17 to 21 are reserved.
    cpu.bus.poke32(entry, P | RW | PS | 1 << 13);
    assert_eq!(cpu.debug_translate(0x60_1234), Some(0x1_0020_1234));
    cpu.bus.poke32(entry, P | RW | PS | 1 << 17);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Err(Fault::pf(0x60_1234, 9)));
}

#[test]
fn system_tables_are_read_with_supervisor_rights() {
    let mut cpu = protected();
    cpu.enable_paging();
    let gdt_page = at::GDT;
    cpu.set_pte(gdt_page, gdt_page | P | RW);
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.load_segment(Seg::Es, crate::cpu::testing::sel::DATA3), Ok(()));
    assert_eq!(cpu.read_u8(Seg::Ds, gdt_page), Err(Fault::pf(gdt_page, 5)));
}

#[test]
fn paging_without_protection_is_refused() {
    let mut cpu = crate::cpu::testing::vcpu();
    assert_eq!(cpu.mov_to_cr(0, cr0::PG), Err(Fault::gp(0)));
    assert_eq!(cpu.mov_to_cr(4, cr4::VME), Err(Fault::gp(0)));
}

const POINTERS: u32 = 0x11_0020;
const PAE_DIRECTORY: u32 = 0x11_1000;
const PAE_TABLE: u32 = 0x11_2000;

/// PAE paging: the first 2 MiB mapped one to one by 4 KiB pages.
fn pae() -> crate::cpu::Vcpu<crate::cpu::testing::RamBus> {
    let mut cpu = protected();
    for n in 0..4 {
        cpu.bus.poke32(u64::from(POINTERS) + n * 8, 0);
    }
    cpu.bus.poke32(POINTERS.into(), PAE_DIRECTORY | P);
    cpu.bus.poke32(PAE_DIRECTORY.into(), PAE_TABLE | P | RW | US);
    for page in 0..512 {
        cpu.bus.poke32(u64::from(PAE_TABLE + page * 8), page << 12 | P | RW | US);
    }
    cpu.mov_to_cr(3, POINTERS).unwrap();
    cpu.mov_to_cr(4, cr4::PAE).unwrap();
    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::PG).unwrap();
    cpu
}

#[test]
fn pae_walks_three_levels_and_sets_accessed_and_dirty() {
    let mut cpu = pae();
    cpu.bus.poke32(0x12_3456 & !3, 0x5555_1234);
    cpu.bus.poke32(u64::from(PAE_TABLE + 0x33 * 8), 0x12_3000 | P | US);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x3_3454), Ok(0x5555_1234));
    assert_eq!(cpu.debug_translate(0x3_3454), Some(0x12_3454));
    assert_eq!(cpu.bus.peek32(u64::from(PAE_TABLE + 0x33 * 8)) & (A | D), A);
    assert_eq!(cpu.bus.peek32(PAE_DIRECTORY.into()) & A, A);
    cpu.write_u8(Seg::Ds, 0x4_4000, 1).unwrap();
    assert_eq!(cpu.bus.peek32(u64::from(PAE_TABLE + 0x44 * 8)) & (A | D), A | D);
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.write_u8(Seg::Ds, 0x3_3454, 0), Err(Fault::pf(0x3_3454, 7)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x4000_0000), Err(Fault::pf(0x4000_0000, 4)), "no directory");
}

#[test]
fn pae_reserved_bits_fault() {
    let mut cpu = pae();
    let entry = u64::from(PAE_TABLE + 0x33 * 8);
    cpu.bus.poke32(entry + 4, 1 << 31);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x3_3000), Err(Fault::pf(0x3_3000, 9)), "no NX on this processor");
    cpu.bus.poke32(entry + 4, 1 << 4);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x3_3000), Err(Fault::pf(0x3_3000, 9)), "37 address bits");
    let large = u64::from(PAE_DIRECTORY + 8);
    cpu.bus.poke32(large, P | RW | PS);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000 + 0x1000), cpu.read_u8(Seg::Ds, 0x1000));
    cpu.bus.poke32(large, P | RW | PS | 1 << 13);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_2000), Err(Fault::pf(0x20_2000, 9)));
}

#[test]
fn pae_directory_pointers_are_kept_until_cr3_is_loaded_and_checked_then() {
    let mut cpu = pae();
    cpu.bus.poke32(u64::from(POINTERS) + 8, PAE_DIRECTORY | P);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x4000_0000), Err(Fault::pf(0x4000_0000, 0)));
    cpu.mov_to_cr(3, POINTERS).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x4000_1000), cpu.read_u8(Seg::Ds, 0x1000));

    cpu.bus.poke32(u64::from(POINTERS) + 8, PAE_DIRECTORY | P | RW);
    assert_eq!(cpu.mov_to_cr(3, POINTERS), Err(Fault::gp(0)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x4000_1000), cpu.read_u8(Seg::Ds, 0x1000), "the old ones stay");
}
